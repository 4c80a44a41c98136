/* conv2d_wgmma_gradient.cu - level 8 of the ladder in conv2d.cu: the filter gradient for a Hopper GPU, whose tiles come by TMA
   and are multiplied by wgmma

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]

   x (C,H,W,N)   dy (F,Ho,Wo,N)   bf16, as its 16 bits     dw (C/groups,K,K,F) float32

   The rows of dw are taken tap by tap, of each the maps in boxes of BOX: a tile has 128 rows, of one tap or of neighbouring
   ones, so that few maps fill it too, and BN filters. A step of the sum is 64 images of one output pixel: a box of dy for each
   64 filters, and of x for each BOX maps, at the pixel that its tap sees from there; all run along the sum. Pixels for which
   every tap of the tile misses the map are left out; where some do, TMA writes zeros. The sum is cut into slices by shapes
   alone, which conv2d_sum_slices adds in order.

   spec      zfcore/ops/conv2d.py: conv2d_backward_reference, of rounded factors

   It has never run on hardware. */
#include <ptx.cuh>
#include <wgmma_ring.cuh>
static_assert(CHUNK == 64, "a box is one step along the sum");

#define BOX 32                        // maps of a box of x

struct Gradient {
    const TensorMap *x, *dy;
    float *partial;
    Conv conv;
    int tiles_m, tiles_n, slices;

    int group, slice, first_box, f0, per_pixel, first;
    Span rows, columns;
    struct Box { int h, v, c; };      // where it lies for output (0,0)
    Box boxes[BM / BOX];

    __device__ __forceinline__ int per_tap() const { return (conv.maps() + BOX - 1) / BOX; }

    // Of the tile's numbers the one of its rows is fastest: blocks that run together read the same pixels.
    __device__ __forceinline__ int begin(int tile)
    {
        first_box = tile % tiles_m * (BM / BOX), tile /= tiles_m;
        f0 = tile % tiles_n * BN, tile /= tiles_n;
        group = tile % conv.groups, slice = tile / conv.groups;
        int K = conv.K, low = first_box / per_tap(), high = min((first_box + BM / BOX - 1) / per_tap(), K * K - 1);      // taps
        rows = outputs_inside(conv.Ho, conv.H, low / K, high / K);
        bool one = low / K == high / K;
        columns = outputs_inside(conv.Wo, conv.W, one ? low % K : 0, one ? high % K : K - 1);
#pragma unroll
        for (int i = 0; i < BM / BOX; i++) {
            int tap = (first_box + i) / per_tap(), c = (first_box + i) % per_tap() * BOX;
            boxes[i] = {tap / K - conv.P, tap % K - conv.P, tap < K * K ? c : conv.maps()};
        }
        per_pixel = (conv.N + 63) / 64;
        long long steps = (long long)rows.count * columns.count * per_pixel;
        first = steps * slice / slices;
        return steps * (slice + 1) / slices - first;
    }

    // The outputs of a map's `outputs` for which one of the taps low..high along an axis meets one of the `size` rows of x.
    __device__ __forceinline__ Span outputs_inside(int outputs, int size, int low, int high) const
    {
        int first = max(conv.P - high + conv.S - 1, 0) / conv.S, end = conv.P - low + size - 1;
        int last = end < 0 ? -1 : min(end / conv.S, outputs - 1);
        return {first, max(last - first + 1, 0)};
    }

    __device__ __forceinline__ void load(int step, Stage &stage, Mbar *bar) const
    {
        int pixel = (first + step) / per_pixel, n = (first + step) % per_pixel * 64;
        int p = rows.first + pixel / columns.count, q = columns.first + pixel % columns.count;
#pragma unroll
        for (int i = 0; i < BM / BOX; i++)
            tma_load_5d(stage.a[0] + 128 * BOX * i, x, bar, n, q * conv.S + boxes[i].v, p * conv.S + boxes[i].h, boxes[i].c,
                        group);
#pragma unroll
        for (int j = 0; j < UNITS; j++) tma_load_5d(stage.b[j], dy, bar, n, q, p, f0 + 64 * j, group);
    }

    __device__ __forceinline__ void store(const float (&d)[BN / 2]) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = wgmma_row(2 * half), box = first_box + row / BOX;
            int tap = box / per_tap(), c = box % per_tap() * BOX + row % BOX;
            if (tap >= conv.K * conv.K || c >= conv.maps()) continue;
            long long place = ((long long)slice * conv.maps() + c) * conv.K * conv.K + tap;
            float *to = partial + place * conv.F + group * conv.filters();
#pragma unroll
            for (int i = 2 * half; i < BN / 2; i += 4) {
                int f = f0 + wgmma_column(i);
                if (f < conv.filters()) *reinterpret_cast<float2 *>(to + f) = make_float2(d[i], d[i + 1]);
            }
        }
    }
};

/* tiles = slices * groups * tiles of filters * tiles of rows. x is seen as (groups,C/groups,H,W,N), dy as
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
    walk<false, false>(work, slices * conv.groups * tiles_n * tiles_m, *reinterpret_cast<WgmmaRing *>(raw));
}
