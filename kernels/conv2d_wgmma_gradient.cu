/* conv2d_wgmma_gradient.cu - level 8 of the ladder in conv2d.cu: the filter gradient for a Hopper GPU, whose tiles come by TMA
   and are multiplied by wgmma

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]

   x (C,H,W,N)   dy (F,Ho,Wo,N)   bf16, as its 16 bits     dw (C/groups,K,K,F) float32

   A tile has one tap, 128 maps and BN filters. A step of the sum is 64 images of one pixel: one box of x and of dy each for 64
   maps or filters, both running along the sum. Pixels for which the tap misses the map are left out. The sum is cut into slices
   by shapes alone, which conv2d_sum_slices adds in order.

   spec      zfcore/ops/conv2d.py: conv2d_backward_reference, of rounded factors

   It has never run on hardware. */
#include <ptx.cuh>
#include <wgmma_ring.cuh>
static_assert(CHUNK == 64, "a box is one step along the sum");

// The outputs p of a map's `outputs` for which tap r meets one of the `size` rows of x.
__device__ __forceinline__ Span outputs_inside(int outputs, int size, int S, int P, int r)
{
    int first = max(P - r + S - 1, 0) / S, last = P - r + size - 1 < 0 ? -1 : min((P - r + size - 1) / S, outputs - 1);
    return {first, max(last - first + 1, 0)};
}

struct Gradient {
    const TensorMap *x, *dy;
    float *partial;
    Conv conv;
    int tiles_m, tiles_n, slices;

    int group, slice, tap, c0, f0, per_pixel, first;
    Span rows, columns;

    // Of the tile's numbers the one of the tap is fastest: blocks that run together read the same pixels.
    __device__ __forceinline__ int begin(int tile)
    {
        int taps = conv.K * conv.K;
        tap = tile % taps, tile /= taps;
        c0 = tile % tiles_m * BM, tile /= tiles_m;
        f0 = tile % tiles_n * BN, tile /= tiles_n;
        group = tile % conv.groups, slice = tile / conv.groups;
        rows = outputs_inside(conv.Ho, conv.H, conv.S, conv.P, tap / conv.K);
        columns = outputs_inside(conv.Wo, conv.W, conv.S, conv.P, tap % conv.K);
        per_pixel = (conv.N + 63) / 64;
        long long steps = (long long)rows.count * columns.count * per_pixel;
        first = steps * slice / slices;
        return steps * (slice + 1) / slices - first;
    }

    __device__ __forceinline__ void load(int step, Stage &stage, Mbar *bar) const
    {
        int pixel = (first + step) / per_pixel, n = (first + step) % per_pixel * 64;
        int p = rows.first + pixel / columns.count, q = columns.first + pixel % columns.count;
        int h = p * conv.S - conv.P + tap / conv.K, v = q * conv.S - conv.P + tap % conv.K;
#pragma unroll
        for (int i = 0; i < CONSUMERS; i++) tma_load_5d(stage.a[i], x, bar, n, v, h, c0 + 64 * i, group);
#pragma unroll
        for (int j = 0; j < UNITS; j++) tma_load_5d(stage.b[j], dy, bar, n, q, p, f0 + 64 * j, group);
    }

    __device__ __forceinline__ void store(const float (&d)[BN / 2]) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int c = c0 + wgmma_row(2 * half);
            if (c >= conv.maps()) continue;
            long long place = ((long long)slice * conv.maps() + c) * conv.K * conv.K + tap;
            float *row = partial + place * conv.F + group * conv.filters();
#pragma unroll
            for (int i = 2 * half; i < BN / 2; i += 4) {
                int f = f0 + wgmma_column(i);
                if (f < conv.filters()) *reinterpret_cast<float2 *>(row + f) = make_float2(d[i], d[i + 1]);
            }
        }
    }
};

/* tiles = slices * groups * tiles of filters * tiles of maps * taps. x is seen as (groups,C/groups,H,W,N), dy as
   (groups,F/groups,Ho,Wo,N); partial (slices,C/groups,K,K,F) */
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv2d_wgmma_gradient(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap dy, float *partial,
    Conv conv, int tiles_m, int tiles_n, int slices)
{
    DYN_SHARED(raw);
    Gradient work = {
        .x = &x, .dy = &dy, .partial = partial,
        .conv = conv,
        .tiles_m = tiles_m, .tiles_n = tiles_n, .slices = slices};
    walk<false, false>(work, slices * conv.groups * tiles_n * tiles_m * conv.K * conv.K, *reinterpret_cast<WgmmaRing *>(raw));
}
