/* wgmma_windows.cuh - level 8 of the ladder in conv2d.cu: the boxes of forward and transposed convolution

   Of one pixel the images are neighbours in memory, so 64 maps of one tap's pixel by 64 images are one box of the map, and no
   window is ever written out: the sum runs over taps and, fastest, over maps CHUNK by CHUNK, and a step's b is UNITS such
   boxes. A unit is 64 images of a pixel; a tile has UNITS neighbouring ones, wherever these begin: with N a multiple of BN they
   are of one pixel, else of several. A tap that misses the map for all units of a tile, or of two that read the same filters,
   is left out; where it misses it for some, TMA writes zeros for these. So it does for maps beyond the group's last (the group
   is an axis of its own) and images beyond N.

   Sums over very many maps for few outputs, those of fully connected layers, are cut into slices of the maps.

   Zeros change no sum, and of what is left the order is the same whatever the tile and the batch: an image has the same bits in
   any batch. */
#pragma once
#include <wgmma_ring.cuh>
#include <axis.cuh>

#ifndef OUTPUT
#define OUTPUT float                  // or unsigned short, the bits of a bf16
#endif

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

struct Gather {
    const TensorMap *w, *x;           // filters (maps,K,K,groups,filters) and maps (groups,maps,H,W,N) that are read
    const float *b;                   // (groups*M,), or nullptr
    OUTPUT *y;                        // (slices,groups*M,size,size,N)
    Conv conv;
    int M, maps;                      // a group's maps out and in
    bool relu, transposed;            // transposed: maps and filters are exchanged
    int tiles_m, tiles_n, phases;     // tiles of the maps out; of the columns, of the largest phase
    int slices;                       // of the maps in: a sum's are added up by conv2d_sum_slices
    Axis rows, columns;
    Span taps_r, taps_s;
    int group, m0, slice, chunk0, chunks;                  // the slice's first step along the maps in, and how many
    int per_pixel, first, last;                            // units of a pixel; the tile's first unit, and the last there is
    int rank;
    bool shares_w;                                         // with the other tile of the pair; else they see the same units
    struct Unit { int p, q, n; };
    Unit units[UNITS];

    __device__ __forceinline__ Unit unit(int u) const
    {
        int pixel = u / per_pixel;
        return {pixel / columns.outputs, pixel % columns.outputs, u % per_pixel * 64};
    }

    // Of a pair's numbers the one of its maps out is fastest: blocks that run together read the same windows.
    __device__ __forceinline__ int begin(int pair, int of_pair)
    {
        int pairs = pairs_of(tiles_m, tiles_n), phase = pair / pairs % phases;
        Tile tile = tile_of(pair % pairs, of_pair, tiles_m, tiles_n);
        rank = of_pair, shares_w = tile.shares_a;
        m0 = tile.m * BM, first = tile.n * UNITS;
        pair /= pairs * phases;
        group = pair % conv.groups, slice = pair / conv.groups;
        if (transposed) {
            rows = transpose_axis(conv.H, conv.Ho, conv.K, conv.S, conv.P, phase / conv.S);
            columns = transpose_axis(conv.W, conv.Wo, conv.K, conv.S, conv.P, phase % conv.S);
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

    __device__ __forceinline__ void load(int step, Stage &stage, Mbar *bar) const
    {
        int tap = step / chunks, k0 = (chunk0 + step % chunks) * CHUNK;
        int r = taps_r.first + tap / taps_s.count, s = taps_s.first + tap % taps_s.count;
#pragma unroll
        for (int i = 0; i < CONSUMERS; i++) {
            int m = m0 + 64 * i;
            fetch(shares_w, i, rank, stage.a[i], w, bar, transposed ? k0 : m, group, columns.tap + columns.tap_hop * s,
                  rows.tap + rows.tap_hop * r, transposed ? m : k0);
        }
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
            int m = m0 + wgmma_row(2 * half);
            bool mine = m < M;
            float bias = b && mine ? b[group * M + m] : 0;
            auto value = [&](int i) {
                float sum = d[i + 2 * half] + bias;
                return relu && sum < 0 ? 0 : sum;                           // NaN stays NaN
            };
#pragma unroll
            for (int j = 0; j < UNITS; j++) {
                const Unit &to = units[j];
                long long pixel = (long long)(rows.first + rows.hop * to.p) * columns.size + columns.first + columns.hop * to.q;
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
                        if (mine && to.n + n < conv.N)
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
