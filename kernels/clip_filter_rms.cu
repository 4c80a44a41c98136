/* clip_filter_rms.cu - filters whose root mean square exceeds the limit are scaled back to it: all convolutions, two launches.
   squares   partial[j,f] = sum of w[d,f]^2 over the ROWS weights d of slice j
   scale     rms = sqrt(sum of partial[j,f] over j / D); where rms > limit*(1 + 2^-21)  w[d,f] *= limit/rms
             clamped += number of filters scaled

   w         (D,F)        float32   of up to TENSORS convolutions, C-contiguous, as are all; D = C*K*K, the weights of a filter
   partial   (slices,F)   float64   of one convolution behind the other; slices = ceil(D/ROWS). Sums in float64, as the
                                    specification has it: else a filter that was just scaled back could seem to exceed again
   clamped                float64, one number
   copies                 of w as maps are stored; scaled with them where that is not float32 itself

   work      one block = FILTERS filters in one slice, both times: a warp reads FILTERS neighbouring weights, coalesced,
             and WARPS warps share the rows; of `scale` one block more, which counts. All sums have a fixed order
   traffic   squares 4*D*F bytes; scale 8*D*F if all filters exceed the limit, and next to nothing if none does. Over the
             bandwidth, that is the floor
   spec      zfcore/ops/clip_filter_rms.py: clip_filter_rms_reference                                     */
#include <stored.cuh>
#define FILTERS 32
#define WARPS 8
#define ROWS 128
#define TENSORS 16
template <class T> struct Each { T of[TENSORS]; };

// The convolution t of a block, and which slice of which tile of filters it works on; t is TENSORS for a block behind the last.
struct Place { int t, tile, slice; long long before; };                     // partial sums of the convolutions before it

__device__ __forceinline__ Place place(const Each<int> &D, const Each<int> &F)
{
    Place at = {0, 0, 0, 0};
    for (int block = blockIdx.x; at.t < TENSORS; at.t++) {
        int tiles = (F.of[at.t] + FILTERS - 1) / FILTERS, slices = (D.of[at.t] + ROWS - 1) / ROWS;
        if (block < tiles * slices) {
            at.tile = block % tiles, at.slice = block / tiles;
            break;
        }
        block -= tiles * slices, at.before += (long long)slices * F.of[at.t];
    }
    return at;
}

// limit/rms of filter f where it must be scaled, else 0.
__device__ __forceinline__ float factor(const double *partial, int f, int D, int F, double limit)
{
    double sum = 0;
    for (int k = 0; k < (D + ROWS - 1) / ROWS; k++) sum += partial[(long long)k * F + f];
    double rms = sqrt(sum / D);
    return rms > limit * (1 + 1.0 / (1 << 21)) ? (float)(limit / rms) : 0;  // by more than the rounding of float32
}

extern "C" __global__ void clip_filter_rms_squares(Each<const float *> w, double *partial, Each<int> D, Each<int> F)
{
    __shared__ double held[WARPS][FILTERS];
    Place at = place(D, F);
    int lane = threadIdx.x % FILTERS, warp = threadIdx.x / FILTERS, f = at.tile * FILTERS + lane, filters = F.of[at.t];
    const float *weights = w.of[at.t];
    double sum = 0;
    if (f < filters) {
#pragma unroll 4
        for (int d = at.slice * ROWS + warp; d < min((at.slice + 1) * ROWS, D.of[at.t]); d += WARPS) {
            double v = weights[(long long)d * filters + f];
            sum += v * v;
        }
    }
    held[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && f < filters) {
        for (int k = 1; k < WARPS; k++) sum += held[k][lane];
        partial[at.before + (long long)at.slice * filters + f] = sum;
    }
}

// The block behind the last: how many filters of all convolutions are scaled.
__device__ __forceinline__ void count(const double *partial, const Each<int> &D, const Each<int> &F, double limit, double *clamped)
{
    __shared__ int held[WARPS * FILTERS];
    int scaled = 0;
    for (int t = 0; t < TENSORS; t++) {
        for (int f = threadIdx.x; f < F.of[t]; f += WARPS * FILTERS) scaled += factor(partial, f, D.of[t], F.of[t], limit) != 0;
        partial += (long long)((D.of[t] + ROWS - 1) / ROWS) * F.of[t];
    }
    held[threadIdx.x] = scaled;
    for (int half = WARPS * FILTERS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) held[threadIdx.x] += held[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *clamped += held[0];
}

extern "C" __global__ void clip_filter_rms_scale(Each<float *> w, const double *partial, Each<int> D, Each<int> F, double limit,
    double *clamped, Each<stored *> copies)
{
    __shared__ float scale[FILTERS];                                        // 0: leave the filter alone
    Place at = place(D, F);
    if (at.t == TENSORS) {
        count(partial, D, F, limit, clamped);
        return;
    }
    int lane = threadIdx.x % FILTERS, warp = threadIdx.x / FILTERS, f = at.tile * FILTERS + lane, filters = F.of[at.t];
    if (warp == 0 && f < filters) scale[lane] = factor(partial + at.before, f, D.of[at.t], filters, limit);
    __syncthreads();
    if (f < filters && scale[lane] != 0)
        for (int d = at.slice * ROWS + warp; d < min((at.slice + 1) * ROWS, D.of[at.t]); d += WARPS) {
            long long i = (long long)d * filters + f;
            float scaled = w.of[at.t][i] *= scale[lane];
            if (PRECISION == BF16) copies.of[at.t][i] = as_stored(scaled);
        }
}
