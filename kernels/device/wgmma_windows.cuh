/* wgmma_windows.cuh - level 8 of the ladder in conv2d.cu: the boxes of forward and transposed convolution

   Of one pixel the images are neighbours in memory, so 64 maps of one tap's pixel by 64 images are one box of the map, and no
   window is ever written out: the sum runs over taps and, fastest, over maps CHUNK by CHUNK, and a step's b is UNITS such
   boxes. A unit is 64 images of a pixel; a tile has UNITS neighbouring ones, wherever these begin: with N a multiple of BN they
   are of one pixel, else of several. A tap that misses the map for all units of a tile, or of two that read the same filters,
   is left out; where it misses it for some, TMA writes zeros for these. So it does for maps beyond the group's last (the group
   is an axis of its own) and images beyond N.

   Of a transposed convolution the boxes of filters are of BOX maps, and of the phase that the tile has there; of a forward one
   they are of 64 filters.

   Sums over very many maps for few outputs, those of fully connected layers, are cut into slices of the maps.

   Zeros change no sum, and of what is left the order is the same whatever the tile and the batch: an image has the same bits in
   any batch. */
#pragma once
#include <wgmma_ring.cuh>
#include <axis.cuh>

#ifndef OUTPUT
#define OUTPUT float                  // or unsigned short, the bits of a bf16
#endif

#define BOX 32                        // maps of a box of filters, transposed

// Of four lanes each has w[0..3]; afterwards lane t has the w[t] of lanes 0..3.
__device__ __forceinline__ void transpose_of_four(unsigned (&w)[4])
{
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k & bit) continue;
            bool upper = threadIdx.x & bit;
            unsigned got = __shfl_xor_sync(0xffffffff, upper ? w[k] : w[k | bit], bit);
            if (upper) w[k] = got;
            else w[k | bit] = got;
        }
}

// Of two bf16, 16 bits each where the number is above 0.
__device__ __forceinline__ unsigned above_zero(unsigned two)
{
    return (__uint_as_float(two << 16) > 0 ? 0xffffu : 0) | (__uint_as_float(two & 0xffff0000) > 0 ? 0xffff0000u : 0);
}

struct Gather {
    const TensorMap *w, *x;           // filters (maps,K,K,groups,filters) and maps (groups,maps,H,W,N) that are read
    const float *b;                   // (groups*M,), or nullptr
    const OUTPUT *on;                 // like y, which stays 0 where this is not above 0; or nullptr
    OUTPUT *y;                        // (slices,groups*M,size,size,N)
    Conv conv;
    int M, maps;                      // a group's maps out and in
    bool relu, transposed;            // transposed: maps and filters are exchanged
    int S;                            // phases a way, forward 1
    int tiles_m, tiles_n;             // tiles of the maps out, of all phases; of the columns
    int slices;                       // of the maps in: a sum's are added up by conv2d_sum_slices
    Axis rows, columns;
    Span taps_r, taps_s;
    int group, slice, chunk0, chunks;                      // the slice's first step along the maps in, and how many
    int m0;                                                // the first row, forward a map out, else of boxes
    int per_pixel, first, last;                            // units of a pixel; the tile's first unit, and the last there is
    int rank;
    bool shares_w;                                         // with the other tile of the pair; else they see the same units
    struct Maps { int r, s, m; };                          // the phase of rows and columns, and a map out of it
    struct Tap { int r, s, k0; };
    struct Unit { int p, q, n; };
    Unit units[UNITS];

    __device__ __forceinline__ Unit unit(int u) const
    {
        int pixel = u / per_pixel;
        return {pixel / columns.outputs, pixel % columns.outputs, u % per_pixel * 64};
    }

    // Of a row among all there are. Beyond the last phase r is S.
    __device__ __forceinline__ Maps maps_at(int row) const
    {
        if (!transposed) return {0, 0, row};
        int of_phase = (M + BOX - 1) / BOX * BOX, phase = min(row / of_phase, S * S);
        return {phase / S, phase % S, row % of_phase};
    }
    __device__ __forceinline__ Tap tap(int step) const
    {
        int tap = step / chunks;
        return {taps_r.first + tap / taps_s.count, taps_s.first + tap % taps_s.count, (chunk0 + step % chunks) * CHUNK};
    }

    // Pairs of tiles of a group's slice.
    __device__ __forceinline__ int pairs() const { return S == 1 ? pairs_of(tiles_m, tiles_n) : pairs_of(tiles_n, tiles_m); }

    // Of a pair's numbers the one of its maps out is fastest: blocks that run together read the same windows. Not where tiles
    // have different phases, of unlike many taps.
    __device__ __forceinline__ int begin(int pair, int of_pair)
    {
        int pairs = this->pairs();
        Tile tile = S == 1 ? tile_of(pair % pairs, of_pair, tiles_m, tiles_n)
                           : tile_along(pair % pairs, of_pair, tiles_m, tiles_n);
        rank = of_pair, shares_w = tile.shares_a;
        m0 = tile.m * BM, first = tile.n * UNITS;
        pair /= pairs;
        group = pair % conv.groups, slice = pair / conv.groups;
        if (transposed) {
            rows = transpose_axis(conv.H, conv.Ho, conv.K, S, conv.P);
            columns = transpose_axis(conv.W, conv.Wo, conv.K, S, conv.P);
            int pair_m0 = shares_w ? m0 : m0 - rank * BM;
            Maps low = maps_at(pair_m0), high = maps_at(pair_m0 + (shares_w ? 1 : PAIR) * BM - 1);
            rows.taps = taps_of(low.r);                    // and no fewer than those of later phases
            columns.taps = taps_of(low.r == high.r ? low.s : 0);
        } else {
            rows = forward_axis(conv.H, conv.Ho, conv.K, conv.S, conv.P);
            columns = forward_axis(conv.W, conv.Wo, conv.K, conv.S, conv.P);
        }
        int of_all = (maps + CHUNK - 1) / CHUNK;
        chunk0 = of_all * slice / slices, chunks = of_all * (slice + 1) / slices - chunk0;
        per_pixel = (conv.N + 63) / 64;
        int units_of_all = rows.outputs * columns.outputs * per_pixel;
        last = min(first + UNITS, units_of_all) - 1;
#pragma unroll
        for (int j = 0; j < UNITS; j++) units[j] = first + j <= last ? unit(first + j) : Unit{0, 0, conv.N};
        int pair_first = shares_w ? first - rank * UNITS : first;
        int pair_last = min(pair_first + (shares_w ? PAIR : 1) * UNITS, units_of_all) - 1;
        if (pair_last < pair_first) return 0;              // the grid is made for the phase that has most
        Unit a = unit(pair_first), z = unit(pair_last);
        taps_r = taps_inside(rows, a.p, z.p);
        taps_s = a.p == z.p ? taps_inside(columns, a.q, z.q) : taps_inside(columns, 0, columns.outputs - 1);
        return taps_r.count * taps_s.count * chunks;
    }

    __device__ __forceinline__ int taps_of(int phase) const { return max((conv.K - phase + S - 1) / S, 0); }

    // Whether a row of this consumer has that tap: of two boxes.
    __device__ __forceinline__ bool used(int step) const
    {
        if (!transposed) return true;
        Tap at = tap(step);
        bool any = false;
#pragma unroll
        for (int box = 0; box < 64; box += BOX) {
            Maps to = maps_at(m0 + threadIdx.x / 128 * 64 + box);
            any = any || (to.r < S && to.r + S * at.r < conv.K && to.s + S * at.s < conv.K);
        }
        return __any_sync(0xffffffff, any);                // the same for a warp: the compiler wants to know
    }

    __device__ __forceinline__ void load(int step, Stage &stage, Mbar *bar) const
    {
        auto [r, s, k0] = tap(step);
        if (transposed) {
            Maps to = maps_at(m0);
#pragma unroll
            for (int i = 0; i < BM / BOX; i++) {
                fetch(shares_w, i, rank, stage.a[0] + 128 * BOX * i, w, bar, k0, group, to.s + S * s, to.r + S * r,
                      to.r < S ? to.m : M);
                if ((to.m += BOX) < M) continue;
                to.m = 0;
                if (++to.s == S) to.s = 0, to.r++;
            }
        } else
#pragma unroll
            for (int i = 0; i < CONSUMERS; i++)
                fetch(shares_w, i, rank, stage.a[i], w, bar, m0 + 64 * i, group, s, r, k0);
#pragma unroll
        for (int j = 0; j < UNITS; j++)
            fetch(!shares_w, step + j, rank, stage.b[j], x, bar, units[j].n,
                  columns.start + columns.stride * units[j].q + columns.way * s,
                  rows.start + rows.stride * units[j].p + rows.way * r, k0, group);
    }

    // y = the sums, with bias and rectified where asked for: 16 bytes a lane of bf16, 8 of float32.
    __device__ __forceinline__ void store(const float (&d)[BN / 2]) const
    {
        const int lane = threadIdx.x % 4;
        if (last < first) return;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            auto [r, s, m] = maps_at(m0 + wgmma_row(2 * half));
            float bias = b && m < M ? b[group * M + m] : 0;
            auto value = [&](int i) {
                float sum = d[i + 2 * half] + bias;
                return relu && sum < 0 ? 0 : sum;                           // NaN stays NaN
            };
#pragma unroll
            for (int j = 0; j < UNITS; j++) {
                const Unit &to = units[j];
                int p = rows.first + rows.hop * to.p + r, q = columns.first + columns.hop * to.q + s;
                bool mine = m < M && r < S && (unsigned)p < (unsigned)rows.size && (unsigned)q < (unsigned)columns.size;
                long long pixel = (long long)p * columns.size + q;
                long long map = (slice * conv.groups + group) * M + m;
                OUTPUT *row = y + (map * rows.size * columns.size + pixel) * conv.N + to.n;
#pragma unroll
                for (int k = 0; k < 8; k += 4) {                            // four times eight images
                    if constexpr (sizeof(OUTPUT) == 2) {
                        unsigned four[4];
#pragma unroll
                        for (int t = 0; t < 4; t++) {
                            int i = 4 * (8 * j + k + t);
                            four[t] = to_bf16x2(value(i), value(i + 1));
                        }
                        transpose_of_four(four);
                        int n = (k + lane) * 8;
                        if (!mine || to.n + n >= conv.N) continue;
                        if (on) {
                            uint4 was = *reinterpret_cast<const uint4 *>(on + (row + n - y));
                            four[0] &= above_zero(was.x), four[1] &= above_zero(was.y);
                            four[2] &= above_zero(was.z), four[3] &= above_zero(was.w);
                        }
                        *reinterpret_cast<uint4 *>(row + n) = make_uint4(four[0], four[1], four[2], four[3]);
                    } else
#pragma unroll
                        for (int t = 0; t < 4; t++) {
                            int n = (k + t) * 8 + 2 * lane, i = 4 * (8 * j + k + t);
                            if (mine && to.n + n < conv.N)
                                *reinterpret_cast<float2 *>(row + n) = make_float2(value(i), value(i + 1));
                        }
                }
            }
        }
    }
};
