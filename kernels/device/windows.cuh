/* windows.cuh - level 5 of the ladder in conv2d.cu: what the tiles of forward and transposed convolution are made of. Taps that
   miss the map are never copied. Both are one gather (axis.cuh). */
#pragma once
#include <ring.cuh>
#include <axis.cuh>
#include <conv.cuh>

#ifdef SUMS                           // results are float32 whatever is stored, to be added up, or scores
typedef float result;
#else
typedef stored result;
#endif

__device__ __forceinline__ void store_one(float *to, float a) { *to = a; }
__device__ __forceinline__ void store_two(float *to, float a, float b) { *reinterpret_cast<float2 *>(to) = make_float2(a, b); }
#if PRECISION == BF16
__device__ __forceinline__ void store_one(stored *to, float a) { *to = as_stored(a); }
__device__ __forceinline__ void store_two(stored *to, float a, float b) { *reinterpret_cast<unsigned *>(to) = to_bf16x2(a, b); }
#endif

// n / divisor by a multiplication, exact for n < 2^31 (Granlund and Montgomery, 1994).
struct Divisor {
    unsigned divisor, factor, shift;
    __device__ __forceinline__ unsigned quotient(unsigned n) const { return (__umulhi(n, factor) + n) >> shift; }
};

__device__ __forceinline__ Divisor divisor(unsigned d)
{
    unsigned shift = 0;
    while ((1ull << shift) < d) shift++;
    return {d, (unsigned)((((1ull << shift) - d) << 32) / d + 1), shift};
}

/* A group's outputs are a matrix of M maps x (pixel, image) columns, those of a phase numbered
   j = (p*columns.outputs + q)*N + n. A block takes BM maps and BN columns, wherever these begin and end: with N a multiple
   of BN they are images of one pixel, with N = 1 a strip of pixels, and no thread idles in either. The reduction runs over
   the maps in and, of the taps, the rectangle that meets the map for at least one pixel of the block; it is flattened, so
   the 3*7*7 = 147 of conv1 fill tiles as well as the 384*9 of conv4. For a block on one pixel the rectangle is exact and
   a padding tap costs nothing; else a column that leaves the map copies zeros.

   Which zeros a sum meets depends on the tile. A chain of FMAs keeps its bits, but an mma adds MMA_K products at once, and
   which ones share an mma decides how they are rounded. So on tensor cores the tap is the slow index, where maps fill whole
   mma: then a tap is some mma, all zeros or left out, which is the same. Else (the 3 maps of conv1) no tap is left out. */
struct Windows {
    typedef ::Tiles Tiles;
    const stored *w, *x;              // filters (maps,K,K,M) with rows M_all apart, and maps (maps,H,W,N)
    result *y;                        // (M,size,size,N)
    long long w_group, x_group, y_group;      // where those of this group (and slice) begin
    int maps, M, M_all, H, W, N, images, K;   // images of the N that take part, from the first on
    int m0;                           // the block's first map out

    struct Place { int p, q, n; };
    struct Reduction {
        Axis rows, columns;
        int width, pixel0, n0;        // the block's columns: how many, and the first
        long long w, y;               // w_group, y_group
        int length, first;            // steps of the reduction, and the first of this block's slice
        Span taps_r, taps_s;
        bool by_tap;                  // whether the tap is the slow index of a step, else the map
        Divisor fast, per_row;        // how many values the other index has, and taps_s.count

        __device__ __forceinline__ Place place(int j, int images) const     // of the block's column j
        {
            unsigned n = (unsigned)n0 + j, pixel = pixel0 + n / images;
            return {(int)(pixel / columns.outputs), (int)(pixel % columns.outputs), (int)(n % images)};
        }
    } *shared;

    static const int LANES_A = BM / VECTOR_A, LANES_B = BN / VECTOR_B;      // copies in a row of a tile
    static const int COLUMNS = LANES_B > THREADS ? LANES_B / THREADS : 1;   // copies of one thread in a row of b
    static const int ROWS_B = THREADS * COLUMNS / LANES_B;                  // rows of b copied at once
    static_assert(THREADS * COLUMNS % LANES_B == 0, "whole rows");
    int h[COLUMNS], v[COLUMNS];       // the pixel under tap (0,0) of each column that this thread copies
    long long at[COLUMNS];            // and its offset from x
    __device__ __forceinline__ int column(int i) const { return VECTOR_B * (threadIdx.x % (LANES_B / COLUMNS) + i * THREADS); }

    // Takes tile number `tile` of the columns and a slice of the reduction; returns the number of tiles of that slice, or -1
    // where there are no such columns: the grid is made for the phase that has most.
    __device__ __forceinline__ int begin(Axis rows, Axis columns, int tile, int slice = 0, int slices = 1)
    {
        long long first = (long long)tile * BN, all = (long long)rows.outputs * columns.outputs * images;
        if (first >= all) return -1;
        Reduction block = {.rows = rows, .columns = columns,
                           .width = (int)min(all - first, (long long)BN),
                           .pixel0 = (int)(first / images), .n0 = (int)(first % images),
                           .w = w_group, .y = y_group};
        Place a = block.place(0, images), z = block.place(block.width - 1, images);
        block.by_tap = MMA_K > 1 && maps % MMA_K == 0;
        if (MMA_K == 1 || block.by_tap) {
            block.taps_r = taps_inside(rows, a.p, z.p);
            block.taps_s = a.p == z.p ? taps_inside(columns, a.q, z.q) : taps_inside(columns, 0, columns.outputs - 1);
        } else block.taps_r = {0, rows.taps}, block.taps_s = {0, columns.taps};
        int taps = block.taps_r.count * block.taps_s.count;
        block.length = maps * taps;
        block.fast = divisor(max(block.by_tap ? maps : taps, 1));
        block.per_row = divisor(max(block.taps_s.count, 1));
        long long tiles = (block.length + BK - 1) / BK;
        int from = (int)(tiles * slice / slices), to = (int)(tiles * (slice + 1) / slices);
        block.first = from * BK;
        if (threadIdx.x == 0) *shared = block;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            Place to = block.place(column(i), images);
            h[i] = column(i) < block.width ? rows.start + rows.stride * to.p : OUTSIDE;
            v[i] = columns.start + columns.stride * to.q;
            at[i] = x_group + ((long long)h[i] * W + v[i]) * N + to.n;
        }
        return to - from;
    }

    struct __align__(16) Step {
        long long w, x;               // offset of the row of filters, or -1; how far the tap is from tap (0,0)
        int dh, dv;                   // the same in rows and columns
    };

    __device__ __forceinline__ void plan(Step *steps, int first) const
    {
        if (threadIdx.x >= BK) return;
        const Reduction &block = *shared;
        unsigned step = block.first + first + threadIdx.x;
        unsigned slow = block.fast.quotient(step), fast = step - slow * block.fast.divisor;
        bool by_tap = MMA_K > 1 && block.by_tap;
        unsigned c = by_tap ? fast : slow, tap = by_tap ? slow : fast, row = block.per_row.quotient(tap);
        int r = block.taps_r.first + row, s = block.taps_s.first + tap - row * block.per_row.divisor;
        int place = (c * K + block.rows.tap + block.rows.tap_hop * r) * K + block.columns.tap + block.columns.tap_hop * s;
        int dh = block.rows.way * r, dv = block.columns.way * s;
        bool inside = step < block.length;
        steps[threadIdx.x] = {.w = inside ? block.w + (long long)place * M_all : -1,
                              .x = (((long long)c * H + dh) * W + dv) * N,
                              .dh = inside ? dh : OUTSIDE, .dv = dv};
    }

    // Where a tile is several whole rounds of all threads, no thread asks whether it has left it: behind a branch each copy would
    // wait for the one before. Eight at a time are in flight; more take registers that the product needs.
    static const bool PARTLY_A = BK * LANES_A <= THREADS || BK * LANES_A % THREADS, PARTLY_B = BK <= ROWS_B || BK % ROWS_B;
    __device__ __forceinline__ void copy(Tiles &tiles, const Step *steps) const
    {
#pragma unroll 8
        for (int i0 = 0; i0 < BK * LANES_A; i0 += THREADS) {
            int i = i0 + threadIdx.x, row = i / LANES_A, m = VECTOR_A * (i % LANES_A);
            if (PARTLY_A && i >= BK * LANES_A) break;
            long long from = steps[row].w;
            bool wanted = from >= 0 && m0 + m < M;
            copy_numbers<VECTOR_A>(&tiles.a[row][m], w + (wanted ? from + m0 + m : 0), wanted);
        }
#pragma unroll 8
        for (int row0 = 0; row0 < BK; row0 += ROWS_B) {
            int row = row0 + threadIdx.x / (LANES_B / COLUMNS);
            if (PARTLY_B && row >= BK) break;
            Step step = steps[row];
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                bool wanted = (unsigned)(h[i] + step.dh) < (unsigned)H && (unsigned)(v[i] + step.dv) < (unsigned)W;
                copy_numbers<VECTOR_B>(&tiles.b[row][column(i)], x + (wanted ? step.x + at[i] : 0), wanted);
            }
        }
    }

    static const int PACK = VECTOR_B == 1 ? 1 : PRECISION == FP32 ? 4 : 2;           // neighbouring columns that a thread owns

    // y = sum
    __device__ __forceinline__ void store(const float (&sum)[TM][TN]) const
    {
        const Reduction &block = *shared;
        const Axis &rows = block.rows, &columns = block.columns;
        const long long map = (long long)rows.size * columns.size * N;
#pragma unroll
        for (int j = 0; j < TN; j += PACK) {
            if (tile_column(j) >= block.width) continue;
            Place to = block.place(tile_column(j), images);
            int pixel = (rows.first + rows.hop * to.p) * columns.size + columns.first + columns.hop * to.q;
            result *column = y + block.y + (long long)pixel * N + to.n;
#pragma unroll
            for (int i = 0; i < TM; i++) {
                int m = m0 + tile_row(i);
                if (m >= M) continue;
                if constexpr (PACK == 4)
                    *reinterpret_cast<float4 *>(column + m * map)
                        = make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
                else if constexpr (PACK == 2) store_two(column + m * map, sum[i][j], sum[i][j + 1]);
                else store_one(column + m * map, sum[i][j]);
            }
        }
    }
};

// Adds the bias of maps m0, m0+1 ... of M, and rectifies.
__device__ __forceinline__ void finish(float (&sum)[TM][TN], const float *b, int m0, int M, bool biased, bool relu)
{
#pragma unroll
    for (int i = 0; i < TM; i++) {
        int m = m0 + tile_row(i);
        float bias = biased && m < M ? b[m] : 0;
#pragma unroll
        for (int j = 0; j < TN; j++) {
            if (biased) sum[i][j] += bias;
            if (relu) sum[i][j] = sum[i][j] < 0 ? 0 : sum[i][j];            // NaN stays NaN
        }
    }
}
