/* conv2d_wgmma_gradient.cu - level 8 of the ladder in conv2d.cu: the filter gradient for a Hopper GPU, whose tiles come by TMA
   and are multiplied by wgmma

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]

   x (C,H,W,N)   dy (F,Ho,Wo,N)   bf16, as its 16 bits     dw (C/groups,K,K,F) float32

   The rows of dw are taken tap by tap, of each the maps in boxes of BOX: a tile has 128 rows, of one tap or of neighbouring
   ones, so that few maps fill it too, and BN filters. A step of the sum is 64 images of one output pixel: a box of dy for each
   64 filters, and of x for each BOX maps, at the pixel that its tap sees from there; all run along the sum. Pixels for which
   every tap of the tile misses the map are left out; where some do, TMA writes zeros. The sum is cut into slices by shapes
   alone, which conv2d_sum_slices adds in order. Two tiles of a cluster that read the same dy may differ in what is left out,
   and so in where a slice begins: they walk through what is for either of them, one with zeros where a step is not its own.

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

    int group, slice, first_box, f0, per_pixel;
    int rank;
    bool shares_x;                    // with the other tile of the pair; else dy
    struct Outputs { Span rows, columns; };
    struct Stretch { int first, end; };                    // of the sum: steps, numbered as if taps met all of the map
    Outputs seen;                     // by taps of the pair
    int first;                        // of the steps there, the pair's first
    Stretch mine;                     // of the pair's steps those that are this tile's
    struct Box { int h, v, c; };      // where it lies for output (0,0)
    Box boxes[BM / BOX];

    __device__ __forceinline__ int per_tap() const { return (conv.maps() + BOX - 1) / BOX; }

    // Of a pair's numbers the one of its rows is fastest: blocks that run together read the same pixels.
    __device__ __forceinline__ int begin(int pair, int of_pair)
    {
        int pairs = pairs_of(tiles_m, tiles_n);
        Tile tile = tile_of(pair % pairs, of_pair, tiles_m, tiles_n);
        pair /= pairs;
        group = pair % conv.groups, slice = pair / conv.groups;
        rank = of_pair, shares_x = tile.shares_a;
        first_box = tile.m * (BM / BOX), f0 = tile.n * BN;
        per_pixel = (conv.N + 63) / 64;
        int pair_box = shares_x ? first_box : first_box - rank * (BM / BOX);
        Stretch own = stretch(first_box), other = shares_x ? own : stretch(pair_box + (1 - rank) * (BM / BOX));
        int start = min(own.first, other.first), end = max(own.end, other.end);
        if (end <= start) return 0;
        seen = outputs(pair_box, shares_x ? BM / BOX : PAIR * BM / BOX);
#pragma unroll
        for (int i = 0; i < BM / BOX; i++) {
            int tap = (first_box + i) / per_tap(), c = (first_box + i) % per_tap() * BOX;
            boxes[i] = {tap / conv.K - conv.P, tap % conv.K - conv.P, tap < conv.K * conv.K ? c : conv.maps()};
        }
        first = step_of(seen, start);
        mine = own.end ? Stretch{step_of(seen, own.first) - first, step_of(seen, own.end - 1) + 1 - first} : Stretch{0, 0};
        return step_of(seen, end - 1) + 1 - first;
    }

    // The slice's stretch of the sum of a tile that begins with this box. It follows from the tile's own taps, not the pair's.
    __device__ __forceinline__ Stretch stretch(int box) const
    {
        const Stretch none = {0x7fffffff, 0};
        if (box >= conv.K * conv.K * per_tap()) return none;
        Outputs own = outputs(box, BM / BOX);
        int steps = own.rows.count * own.columns.count * per_pixel;
        int from = part_of(steps, slice), to = part_of(steps, slice + 1);
        return from < to ? Stretch{number_of(own, from), number_of(own, to - 1) + 1} : none;
    }

    // steps * some / slices, which may be more than 32 bits before it is divided.
    __device__ __forceinline__ int part_of(int steps, int some) const
    {
        return steps / slices * some + steps % slices * some / slices;
    }

    // The outputs at which a tap of so many boxes meets the map.
    __device__ __forceinline__ Outputs outputs(int box, int many) const
    {
        int K = conv.K, low = box / per_tap(), high = min((box + many - 1) / per_tap(), K * K - 1);      // taps
        bool one = low / K == high / K;
        return {outputs_inside(conv.Ho, conv.H, low / K, high / K),
                outputs_inside(conv.Wo, conv.W, one ? low % K : 0, one ? high % K : K - 1)};
    }

    // A step at some outputs, numbered as in a Stretch, and back.
    __device__ __forceinline__ int number_of(const Outputs &some, int step) const
    {
        int pixel = step / per_pixel, p = some.rows.first + pixel / some.columns.count;
        return (p * conv.Wo + some.columns.first + pixel % some.columns.count) * per_pixel + step % per_pixel;
    }
    __device__ __forceinline__ int step_of(const Outputs &some, int number) const
    {
        int pixel = number / per_pixel, p = pixel / conv.Wo - some.rows.first, q = pixel % conv.Wo - some.columns.first;
        return (p * some.columns.count + q) * per_pixel + number % per_pixel;
    }

    // The outputs of a map's `outputs` for which one of the taps low..high along an axis meets one of the `size` rows of x.
    __device__ __forceinline__ Span outputs_inside(int outputs, int size, int low, int high) const
    {
        int first = max(conv.P - high + conv.S - 1, 0) / conv.S, end = conv.P - low + size - 1;
        int last = end < 0 ? -1 : min(end / conv.S, outputs - 1);
        return {first, max(last - first + 1, 0)};
    }

    // Steps of the pair that are not this tile's: of x there come zeros, from beyond the group's maps.
    __device__ __forceinline__ void load(int step, Stage &stage, Mbar *bar) const
    {
        int pixel = (first + step) / per_pixel, n = (first + step) % per_pixel * 64;
        int p = seen.rows.first + pixel / seen.columns.count, q = seen.columns.first + pixel % seen.columns.count;
        bool used = step >= mine.first && step < mine.end;
#pragma unroll
        for (int i = 0; i < BM / BOX; i++)
            fetch(shares_x, i, rank, stage.a[0] + 128 * BOX * i, x, bar, n, q * conv.S + boxes[i].v, p * conv.S + boxes[i].h,
                  used ? boxes[i].c : conv.maps(), group);
#pragma unroll
        for (int j = 0; j < UNITS; j++) fetch(!shares_x, step + j, rank, stage.b[j], dy, bar, n, q, p, f0 + 64 * j, group);
    }

    __device__ __forceinline__ bool used(int) const { return true; }

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

/* Pairs of tiles: slices * groups * those of tiles_m by tiles_n tiles, of rows and filters. x is seen as
   (groups,C/groups,H,W,N), dy as (groups,F/groups,Ho,Wo,N); partial (slices,C/groups,K,K,F) */
extern "C" __global__ void __cluster_dims__(PAIR, 1, 1) __launch_bounds__(THREADS, 1) conv2d_wgmma_gradient(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap dy, float *partial,
    Conv conv, int tiles_m, int tiles_n, int slices)
{
    DYN_SHARED(raw);
    Gradient work = {
        .x = &x, .dy = &dy, .partial = partial,
        .conv = conv,
        .tiles_m = tiles_m, .tiles_n = tiles_n, .slices = slices};
    walk<false, false>(work, slices * conv.groups * pairs_of(tiles_m, tiles_n), *reinterpret_cast<WgmmaRing *>(raw));
}
