/* filter_rms.cu - filters whose root mean square exceeds the limit are scaled back to it, in two launches.
   squares   partial[j,f] = sum of w[d,f]^2 over the ROWS weights d of part j
   scale     rms = sqrt(sum of partial[j,f] over j / D); over[f] = rms > limit*(1 + 2^-21); where so w[d,f] *= limit/rms

   w         (D,F)       float32   C-contiguous, as are all; D = C*K*K, the weights of one filter
   partial   (parts,F)   float64   parts = ceil(D/ROWS). Sums in float64, as the specification has it: else a filter
                                   that was just scaled back could seem to exceed the limit again
   over      (F,)        uint8     their sum is the number of filters scaled

   work      one block = FILTERS filters in one part, both times: a warp reads FILTERS neighbouring weights, coalesced,
             and WARPS warps share the rows. All sums have a fixed order
   traffic   squares 4*D*F bytes; scale 8*D*F if all filters exceed the limit, and next to nothing if none does. Over the
             bandwidth, that is the floor
   spec      zfcore/ops/filter_rms.py: filter_rms_reference                                               */
#define FILTERS 32
#define WARPS 8
#define ROWS 128

extern "C" __global__ void filter_rms_squares(const float *w, double *partial, int D, int F)
{
    __shared__ double held[WARPS][FILTERS];
    int tiles = (F + FILTERS - 1) / FILTERS, part = blockIdx.x / tiles;
    int lane = threadIdx.x % FILTERS, warp = threadIdx.x / FILTERS, f = blockIdx.x % tiles * FILTERS + lane;
    double sum = 0;
    if (f < F) {
#pragma unroll 4
        for (int d = part * ROWS + warp; d < min((part + 1) * ROWS, D); d += WARPS) {
            double v = w[(long long)d * F + f];
            sum += v * v;
        }
    }
    held[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && f < F) {
        for (int k = 1; k < WARPS; k++) sum += held[k][lane];
        partial[(long long)part * F + f] = sum;
    }
}

extern "C" __global__ void filter_rms_scale(float *w, const double *partial, unsigned char *over, int D, int F, double limit)
{
    __shared__ float factor[FILTERS];                                       // 0: leave the filter alone
    int tiles = (F + FILTERS - 1) / FILTERS, part = blockIdx.x / tiles, parts = (D + ROWS - 1) / ROWS;
    int lane = threadIdx.x % FILTERS, warp = threadIdx.x / FILTERS, f = blockIdx.x % tiles * FILTERS + lane;
    if (warp == 0 && f < F) {
        double sum = 0;
        for (int k = 0; k < parts; k++) sum += partial[(long long)k * F + f];
        double rms = sqrt(sum / D);
        bool exceeds = rms > limit * (1 + 1.0 / (1 << 21));                 // by more than the rounding of float32
        factor[lane] = exceeds ? (float)(limit / rms) : 0;
        if (part == 0) over[f] = exceeds;
    }
    __syncthreads();
    if (f < F && factor[lane] != 0)
        for (int d = part * ROWS + warp; d < min((part + 1) * ROWS, D); d += WARPS) w[(long long)d * F + f] *= factor[lane];
}
