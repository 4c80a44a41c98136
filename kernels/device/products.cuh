/* products.cuh - level 6 of the ladder in conv2d.cu: the same tiles and ring, filled for the filter gradient

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]

   dw is a matrix of M = K*K*maps rows, m = (r*K + s)*maps + c, and F columns; the reduction runs over outputs (p,q) and
   images. In both operands the reduction is what lies contiguous in memory, so copying turns it: 8 lanes take 8 images
   of one row and store them one below the other. Of the outputs only the rectangle takes part whose place (r,s) meets the
   map for at least one row of the tile; where the maps of a group fill whole tiles a tile has one (r,s), and padding
   costs nothing. The reduction of a tile is dealt into `slices` blocks, as many as shapes alone say; each writes its own
   part of the sum, and conv2d_sum_slices adds these in order.

   Where dy comes from the file says that includes this one, with its Outputs:

   At                          of one output, what a step has to know; at(conv, p, q, n, inside) makes it
   of_map(conv)                numbers of one filter's map in memory
   copy<NUMBERS>(to, at, map)  brings the gradients of NUMBERS images from there on into a tile, of the filter whose map
                               begins at offset `map`; zeros where that is below 0 or the output was not `inside` */
#pragma once
#include <ring.cuh>
#include <conv.cuh>

template <class Outputs>
struct Products {
    typedef Strips Tiles;
    const stored *x;
    Outputs dy;                       // where the gradient at an output is, and how it gets into a tile
    Conv conv;
    int group, maps, filters;         // the group's number, how many maps and filters it has

    static const int NUMBERS = PRECISION == FP32 ? 1 : VECTOR_B;            // of a copy: where N is a multiple of so many, or 1
    static const int IN_ROW = BK / NUMBERS;                                // copies of a row
    static const int ACROSS = NUMBERS > 1 ? 8 : 1;                         // rows that neighbouring lanes copy to
    static const int ROWS = THREADS / IN_ROW;                              // of a tile copied at once
    static_assert(THREADS % (IN_ROW * ACROSS) == 0 && BM % ACROSS == 0 && BN % ACROSS == 0, "whole rows");

    struct Row { long long at; int r, s; };             // of one row m: offset of x[c,r,s,0], and its place (r,s)
    struct Next { int p, q, n; long long left; };       // the step a thread plans next: its output, steps from it to the end
    struct Reduction {
        Row rows[BM];
        long long filters[BN];                          // offset of the outputs' first number of filter f, or -1
        Next next[BK];
        Span inside_q;
    } *shared;

    // Returns the number of tiles of that slice, for rows m0, m0+1 ... and filters f0, f0+1 ... of the group
    __device__ __forceinline__ int begin(int m0, int f0, int slice, int slices)
    {
        const int M = conv.K * conv.K * maps, m1 = min(m0 + BM, M) - 1;
        for (int i = threadIdx.x; i < BM; i += THREADS) {
            int place = (m0 + i) / maps, c = (m0 + i) % maps, r = place / conv.K, s = place % conv.K;
            shared->rows[i] = {((((long long)group * maps + c) * conv.H + r) * conv.W + s) * conv.N, r, s};   // beyond M: not stored
        }
        for (int i = threadIdx.x; i < BN; i += THREADS)
            shared->filters[i] = f0 + i < filters ? (long long)(group * filters + f0 + i) * dy.of_map(conv) : -1;
        int a = m0 / maps, z = m1 / maps;                                   // its first and last place
        bool one_row = a / conv.K == z / conv.K;
        Span inside_p = outputs_inside(conv.H, conv.Ho, a / conv.K, z / conv.K);
        Span inside_q = one_row ? outputs_inside(conv.W, conv.Wo, a % conv.K, z % conv.K)
                                : outputs_inside(conv.W, conv.Wo, 0, conv.K - 1);
        long long all = (long long)inside_p.count * inside_q.count * conv.N, tiles = (all + BK - 1) / BK;
        long long from = tiles * slice / slices, to = tiles * (slice + 1) / slices;
        long long k = from * BK + threadIdx.x, pixel = k / conv.N;
        int per_row = max(inside_q.count, 1);
        if (threadIdx.x < BK)
            shared->next[threadIdx.x] = {.p = inside_p.first + (int)(pixel / per_row),
                                         .q = inside_q.first + (int)(pixel % per_row),
                                         .n = (int)(k % conv.N), .left = all - k};
        if (threadIdx.x == 0) shared->inside_q = inside_q;
        return (int)(to - from);
    }

    // The outputs whose place `low`, or `high`, or one between them meets the map.
    __device__ __forceinline__ Span outputs_inside(int size, int outputs, int low, int high) const
    {
        int first = conv.P > high ? (conv.P - high + conv.S - 1) / conv.S : 0;
        int last = size - 1 + conv.P < low ? -1 : min((size - 1 + conv.P - low) / conv.S, outputs - 1);
        return {first, max(last - first + 1, 0)};
    }

    struct __align__(16) Step {
        long long x;                  // offset of x[0,h,v,n]
        typename Outputs::At dy;
        int h, v;                     // the pixel under place (0,0)
    };

    __device__ __forceinline__ void plan(Step *steps, int) const
    {
        if (threadIdx.x >= BK) return;
        Next &next = shared->next[threadIdx.x];
        int p = next.p, q = next.q, n = next.n, h = p * conv.S - conv.P, v = q * conv.S - conv.P;
        bool inside = next.left > 0;
        steps[threadIdx.x] = {.x = ((long long)h * conv.W + v) * conv.N + n,
                              .dy = dy.at(conv, p, q, n, inside),
                              .h = inside ? h : OUTSIDE, .v = v};
        const int q0 = shared->inside_q.first, q1 = q0 + shared->inside_q.count;
        for (n += BK; n >= conv.N; n -= conv.N)
            if (++q >= q1) q = q0, p++;
        next = {.p = p, .q = q, .n = n, .left = next.left - BK};
    }

    __device__ __forceinline__ void copy(Tiles &tiles, const Step *steps) const         // see Windows::copy
    {
        const int k = threadIdx.x / ACROSS % IN_ROW * NUMBERS;
        const int row = threadIdx.x / (IN_ROW * ACROSS) * ACROSS + threadIdx.x % ACROSS;
        const Step step = steps[k];
#pragma unroll
        for (int i0 = 0; i0 < BM; i0 += ROWS) {
            int i = i0 + row;
            if (BM % ROWS && i >= BM) break;
            Row m = shared->rows[i];
            bool wanted = (unsigned)(step.h + m.r) < (unsigned)conv.H && (unsigned)(step.v + m.s) < (unsigned)conv.W;
            copy_numbers<NUMBERS>(tiles.a_at(k, i), x + (wanted ? step.x + m.at : 0), wanted);
        }
#pragma unroll
        for (int i0 = 0; i0 < BN; i0 += ROWS) {
            int i = i0 + row;
            if (BN % ROWS && i >= BN) break;
            dy.template copy<NUMBERS>(tiles.b_at(k, i), step.dy, shared->filters[i]);
        }
    }
};

/* The work of a block: blockIdx.x = tile of filters * (tiles of rows) + tile of rows, so that blocks that read the same dy run
   together; blockIdx.y = slice, blockIdx.z = group. partial (slices,C/groups,K,K,F): their sum over slices is dw. */
template <class Outputs>
__device__ __forceinline__ void filter_gradient(const stored *x, Outputs dy, float *partial, const Conv &conv,
                                                Shared<Products<Outputs>> &shared)
{
    int maps = conv.maps(), filters = conv.filters(), group = blockIdx.z, places = conv.K * conv.K;
    int M = places * maps, tiles_m = (M + BM - 1) / BM;
    int m0 = blockIdx.x % tiles_m * BM, f0 = blockIdx.x / tiles_m * BN;
    Products<Outputs> block = {
        .x = x, .dy = dy,
        .conv = conv,
        .group = group, .maps = maps, .filters = filters,
        .shared = &shared.reduction};
    float sum[TM][TN];
    int tiles = block.begin(m0, f0, blockIdx.y, gridDim.y);
    multiply(block, tiles, shared, sum);
    float *mine = partial + (long long)blockIdx.y * maps * places * conv.F + group * filters;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        int m = m0 + tile_row(i);
        if (m >= M) continue;
        float *row = mine + ((long long)(m % maps) * places + m / maps) * conv.F;
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int f = f0 + tile_column(j);
            if (f < filters) row[f] = sum[i][j];
        }
    }
}
