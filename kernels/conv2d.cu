/* conv2d.cu - convolution with its two gradients, batch last. Its data gradient is the transposed convolution of the
   deconvnet.

   y[f,p,q,n]  = b[f] + sum over c,r,s   w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n]     (x outside the map is 0; then max(y, 0)
                                                                                     if relu)
   dx[c,h,v,n] = sum over f,r,s          w[c,r,s,f] * dy[f,p,q,n]                   where p*S-P+r = h and q*S-P+s = v
   dw[c,r,s,f] = sum over p,q,n          x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]
   db[f]       = sum over p,q,n          dy[f,p,q,n]

   x, dx  (C,H,W,N)         y, dy  (F,Ho,Wo,N)         w, dw  (C/groups,K,K,F)         b, db  (F,)
   float32, C-contiguous. Group g of filters (F/groups of them) sees group g of maps (C/groups of them) only.
   Any size, stride and padding; windows may reach over any border; Ho, Wo are the caller's. Offsets are 64 bits wide; a
   map H*W, a filter C/groups*K*K and a batch N must each stay below 2^31 elements.

   floor     2 * F*Ho*Wo*N * C/groups*K*K FLOP per pass, less the taps that fall outside the map, over the rate of fp32
             FMAs; for conv1 of ZFNet nearly as much the bytes of y, which each pass moves once
   traffic   a block of 128 x 128 results copies 1 KiB per step of the reduction for 32768 FLOP: what the L2 cache must
             deliver is 1/32 byte per FLOP; main memory only sees each array about once
   order     in fp32 every y and dx is one chain of FMAs over its own taps, c (or f) slowest, then r, then s, whatever the tile
             and the batch: the fast kernels give the bits of the plain ones. On tensor cores it is one chain of mma, whose
             steps are the same whatever the tile and the batch (Windows). So an image has the same bits in any batch, and
             a window cut out of a map those of the map. The filter gradient is cut into slices by shapes alone and these
             are added in order. No atomics.
   spec      zfcore/ops/conv2d.py: conv2d_reference, conv2d_backward_reference

   The file is a ladder of six steps, one idea each:
     1  one thread computes one number                                 conv2d_plain, ..._plain
     2  a block multiplies two tiles in shared memory, a thread 8x8    multiply_tiles
     3  the next tiles are copied while these are multiplied           multiply
     4  tensor cores multiply the two tiles, in shorter numbers        multiply_tiles, where PRECISION is not FP32
     5  only the tiles differ between the passes; taps that miss       Windows:  conv2d_forward, conv2d_transpose
        the map are never copied                                       Products: conv2d_filter_gradient
     6  the max pool behind ReLU is folded out of the tiles            conv2d_pool
   The engine launches the kernels of steps 5 and 6; step 1 is there to be read first and to hold them against.
   None of them has run on hardware yet. */
#include <ptx.cuh>

#define FP32 0                        // what PRECISION may be
#define FP32X3 1
#define TF32 2
#define BF16 3
#ifndef PRECISION
#define PRECISION FP32
#endif

// ====================================================================================== step 1: one thread, one number

/* one thread = one y; a warp walks n, so x is read and y written coalesced, and w is the same for the whole warp */
extern "C" __global__ void conv2d_plain(const float *x, const float *w, const float *b, float *y,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups, int biased, int relu)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of y
    if (i >= (long long)F * Ho * Wo * N) return;
    int n = i % N, q = i / N % Wo, p = i / N / Wo % Ho, f = i / N / Wo / Ho;
    int maps = C / groups, first = f / (F / groups) * maps;                 // the maps that filter f sees
    float sum = 0;
    for (int c = 0; c < maps; c++)
        for (int r = 0; r < K; r++)
            for (int s = 0; s < K; s++) {
                int h = p * S - P + r, v = q * S - P + s;
                if (h < 0 || h >= H || v < 0 || v >= W) continue;
                sum += w[((long long)(c * K + r) * K + s) * F + f] * x[(((long long)(first + c) * H + h) * W + v) * N + n];
            }
    if (biased) sum += b[f];
    y[i] = relu && sum < 0 ? 0 : sum;                                       // NaN stays NaN
}

/* one thread = one dx. Of the taps r only every S-th meets row h: r = (h + P) mod S, then p goes down as r goes up. */
extern "C" __global__ void conv2d_transpose_plain(const float *dy, const float *w, float *dx,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of dx
    if (i >= (long long)C * H * W * N) return;
    int n = i % N, v = i / N % W, h = i / N / W % H, c = i / N / W / H;
    int filters = F / groups, first = c / (C / groups) * filters, cg = c % (C / groups);
    float sum = 0;
    for (int f = first; f < first + filters; f++)
        for (int r = (h + P) % S; r < K; r += S)
            for (int s = (v + P) % S; s < K; s += S) {
                int p = (h + P - r) / S, q = (v + P - s) / S;
                if (h + P < r || p >= Ho || v + P < s || q >= Wo) continue;
                sum += w[((long long)(cg * K + r) * K + s) * F + f] * dy[(((long long)f * Ho + p) * Wo + q) * N + n];
            }
    dx[i] = sum;
}

/* one thread = one dw */
extern "C" __global__ void conv2d_filter_gradient_plain(const float *x, const float *dy, float *dw,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of dw
    int maps = C / groups;
    if (i >= (long long)maps * K * K * F) return;
    int f = i % F, s = i / F % K, r = i / F / K % K, c = i / F / K / K + f / (F / groups) * maps;
    float sum = 0;
    for (int p = 0; p < Ho; p++)
        for (int q = 0; q < Wo; q++) {
            int h = p * S - P + r, v = q * S - P + s;
            if (h < 0 || h >= H || v < 0 || v >= W) continue;
            for (int n = 0; n < N; n++)
                sum += x[(((long long)c * H + h) * W + v) * N + n] * dy[(((long long)f * Ho + p) * Wo + q) * N + n];
        }
    dw[i] = sum;
}

// ================================================================================== step 2: the product of two tiles

/* A block owns a tile of BM x BN results, a thread TM x TN of them in registers. In shared memory lie BK steps of the
   reduction, a (BK,BM) and b (BK,BN). Per step a thread reads TM + TN numbers and does TM*TN FMAs: with 8x8 that is four
   16-byte reads for 64 FMAs, which the shared memory of an SM can serve to all its cores. (Prediction, not a measurement:
   in the loop of the 128x128 forward kernel for sm_90a about 610 instructions of a thread carry 512 FMAs, so that issue
   alone would bound it at 84 % of the FMA peak; of the filter gradient, whose copies are of 4 bytes, at about 65 %.)

   Threads of a warp stand LANES_M x LANES_N. A thread's rows (and columns) come in fours, BM*4/TM apart: LANES_N
   neighbours then read LANES_N*16 bytes in a row, and no two of them the same bank. */
#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef BK
#define BK (PRECISION == FP32 ? 8 : 16)
#endif
#ifndef TM
#define TM 8
#endif
#ifndef TN
#define TN 8
#endif
#ifndef LANES_M
#define LANES_M (PRECISION == FP32 ? 4 : 8)
#endif
#define LANES_N (32 / LANES_M)
#define THREADS (BM / TM * (BN / TN))
static_assert(BM % (TM * LANES_M) == 0 && BN % (TN * LANES_N) == 0, "whole warps");

__device__ __forceinline__ int warp_m() { return threadIdx.x / 32 / (BN / TN / LANES_N); }
__device__ __forceinline__ int warp_n() { return threadIdx.x / 32 % (BN / TN / LANES_N); }

#if PRECISION == FP32
static_assert(TM % 4 == 0 && TN % 4 == 0, "a thread reads its rows and columns in fours");

// Rows are 4 floats longer than the tile: Products stores columns, 8 lanes of a warp one below the other, and BM + 4
// puts these into different banks.
struct __align__(16) Tiles {
    float a[BK][BM + 4];
    float b[BK][BN + 4];

    __device__ __forceinline__ float *a_at(int k, int m) { return &a[k][m]; }
    __device__ __forceinline__ float *b_at(int k, int n) { return &b[k][n]; }
};
typedef Tiles Strips;                 // step 4 has others
#define MMA_K 1

__device__ __forceinline__ int thread_m() { return warp_m() * LANES_M + threadIdx.x % 32 / LANES_N; }
__device__ __forceinline__ int thread_n() { return warp_n() * LANES_N + threadIdx.x % LANES_N; }
__device__ __forceinline__ int tile_row(int i) { return i / 4 * (BM / TM * 4) + thread_m() * 4 + i % 4; }
__device__ __forceinline__ int tile_column(int j) { return j / 4 * (BN / TN * 4) + thread_n() * 4 + j % 4; }

__device__ __forceinline__ void load4(float *to, const float *from)
{
    float4 four = *reinterpret_cast<const float4 *>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

__device__ __forceinline__ void multiply_tiles(const Tiles &tiles, float (&sum)[TM][TN])
{
#pragma unroll
    for (int k = 0; k < BK; k++) {
        float a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; i += 4) load4(a + i, &tiles.a[k][tile_row(i)]);
#pragma unroll
        for (int j = 0; j < TN; j += 4) load4(b + j, &tiles.b[k][tile_column(j)]);
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] += a[i] * b[j];
    }
}
#endif

// ========================================================================== step 3: copy the next, multiply this one

/* A ring of STAGES pairs of tiles. cp.async carries numbers from global to shared memory without passing registers, so
   the copies of tile t + STAGES-1 are under way while tile t is multiplied. What a step of the reduction means in
   addresses is the same for a whole row of a tile; so BK threads work it out one tile ahead, into `plan`, and the copying
   is left with a sum and two comparisons. One barrier per tile is enough for all of it: it says that the copies of tile t
   have landed, that nobody still reads tile t-1, whose place is filled next, and that the plan of that filling is there.

   source.plan(steps, first)   BK threads write what steps first, first+1 ... are; all they need for it lies in shared
                               memory too (Reduction), as registers are what this kernel is short of
   source.copy(tiles, steps)   starts this thread's share of the copies of such steps; past the last tile it copies what
                               nobody reads, which costs less than to ask */
#ifndef STAGES
#define STAGES 2
#endif

template <class Source>
struct Shared {
    typename Source::Tiles ring[STAGES];
    typename Source::Step plan[2][BK];
    typename Source::Reduction reduction;
};

template <class Source>
__device__ __forceinline__ void multiply(Source &source, int tiles, Shared<Source> &shared, float (&sum)[TM][TN])
{
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] = 0;
    __syncthreads();                                    // the Reduction is there
#pragma unroll
    for (int t = 0; t < STAGES - 1; t++) {
        source.plan(shared.plan[t % 2], t * BK);
        __syncthreads();
        source.copy(shared.ring[t], shared.plan[t % 2]);
        cp_async_commit();
    }
    source.plan(shared.plan[(STAGES - 1) % 2], (STAGES - 1) * BK);
    for (int t = 0; t < tiles; t++) {
        int next = t + STAGES - 1;
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        source.copy(shared.ring[next % STAGES], shared.plan[next % 2]);
        cp_async_commit();
        source.plan(shared.plan[(next + 1) % 2], (next + 1) * BK);
        multiply_tiles(shared.ring[t % STAGES], sum);
    }
}

// Starts copying 4 floats (addresses 16-byte aligned) or 1; zeros where not `wanted`, `from` being valid all the same.
template <int FLOATS>
__device__ __forceinline__ void copy_floats(float *to, const float *from, bool wanted)
{
    if (FLOATS == 4) cp_async16(to, from, wanted);
    else cp_async4(to, from, wanted);
}

const int OUTSIDE = -0x40000000;      // a row that lies in no map, nor does the sum of two such

// ===================================================================== step 4: tensor cores multiply the two tiles

/* Any other PRECISION leaves the products to tensor cores: mma.sync multiplies 16 rows by 8 columns over 8 steps of the
   reduction (16 in bf16) at once and adds in float32. It takes short factors; PRECISION says what is made of the tile's
   float32 numbers on their way into registers:

     TF32     rounded to 11 bits, which is wrong by 2^-11 of the number at most
     BF16     rounded to 8 bits, 2^-8; half as many mma
     FP32X3   split into two tf32 numbers, x = big + small up to 2^-23. A product is small*big + big*small + big*big; small*small,
              2^-22 of it, is left out: nearly float32, for three times the mma. An infinity becomes NaN

   A warp stands 8 x 4 lanes, and a lane owns TM x TN results as in step 2, so a warp owns 8*TM x 4*TN of them. In one mma
   lane 4*g + t brings rows g and g+8 and column g, of each steps t and t+4, and gets columns 2t and 2t+1 of its rows. */
#if PRECISION != FP32
#define MMA_K (PRECISION == BF16 ? 16 : 8)                                  // steps of one mma
#define PARTS (PRECISION == FP32X3 ? 2 : 1)                                 // big, small
static_assert(LANES_M == 8 && TM % 2 == 0 && TN % 2 == 0 && BK % MMA_K == 0, "whole mma");

__device__ __forceinline__ int lane_g() { return threadIdx.x % 32 / 4; }
__device__ __forceinline__ int lane_t() { return threadIdx.x % 4; }
__device__ __forceinline__ int tile_row(int i) { return warp_m() * TM * 8 + i * 8 + lane_g(); }
__device__ __forceinline__ int tile_column(int j) { return warp_n() * TN * 4 + j / 2 * 8 + lane_t() * 2 + j % 2; }

// A row is a step of the reduction, as in step 2. 8 floats more a row: the four steps that a warp reads at a time, 8 numbers
// of each, then lie in different banks.
struct __align__(16) Tiles {
    float a[BK][BM + 8];
    float b[BK][BN + 8];

    // what mma wants of 16 rows from m on, or of 8 columns from n on, and steps k .. k+7
    __device__ __forceinline__ void rows(unsigned (&x)[4], int k, int m) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __float_as_uint(a[k + i / 2 * 4 + lane_t()][m + i % 2 * 8 + lane_g()]);
    }
    __device__ __forceinline__ void columns(unsigned (&x)[2], int k, int n) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) x[i] = __float_as_uint(b[k + i * 4 + lane_t()][n + lane_g()]);
    }
};

// The reduction runs along a row, as it does in memory in the filter gradient. ldmatrix hands 8 rows of 16 bytes to a warp as
// mma wants them, be they 8 numbers of 16 bits or 4 of 32; rows of BK + 4 floats put the 8 into different banks.
struct __align__(16) Strips {
    float a[BM][BK + 4];
    float b[BN][BK + 4];

    __device__ __forceinline__ void rows(unsigned (&x)[4], int k, int m) const
    {
        ldmatrix(x, &a[m + threadIdx.x % 16][k + threadIdx.x % 32 / 16 * 4]);
    }
    __device__ __forceinline__ void columns(unsigned (&x)[2], int k, int n) const
    {
        ldmatrix(x, &b[n + threadIdx.x % 8][k + threadIdx.x % 16 / 8 * 4]);
    }
    __device__ __forceinline__ float *a_at(int k, int m) { return &a[m][k]; }
    __device__ __forceinline__ float *b_at(int k, int n) { return &b[n][k]; }
};

// The words of one factor of an mma: in bf16 two steps share a word, those of x[0] and of x[1].
template <int WORDS>
__device__ __forceinline__ void round_factor(const unsigned (&x)[MMA_K / 8][WORDS], unsigned (&part)[PARTS][WORDS])
{
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        float first = __uint_as_float(x[0][i]);
        if constexpr (PRECISION == BF16) part[0][i] = to_bf16x2(first, __uint_as_float(x[1][i]));
        else part[0][i] = to_tf32(first);
        if constexpr (PRECISION == FP32X3) part[1][i] = to_tf32(first - __uint_as_float(part[0][i]));
    }
}

template <class Tiles>
__device__ __forceinline__ void multiply_tiles(const Tiles &tiles, float (&sum)[TM][TN])
{
#pragma unroll
    for (int k = 0; k < BK; k += MMA_K) {
        unsigned a[TM / 2][PARTS][4], b[TN / 2][PARTS][2];
#pragma unroll
        for (int i = 0; i < TM / 2; i++) {
            unsigned x[MMA_K / 8][4];
            for (int u = 0; u < MMA_K / 8; u++) tiles.rows(x[u], k + 8 * u, warp_m() * TM * 8 + i * 16);
            round_factor(x, a[i]);
        }
#pragma unroll
        for (int j = 0; j < TN / 2; j++) {
            unsigned x[MMA_K / 8][2];
            for (int u = 0; u < MMA_K / 8; u++) tiles.columns(x[u], k + 8 * u, warp_n() * TN * 4 + j * 8);
            round_factor(x, b[j]);
        }
#pragma unroll
        for (int term = PARTS == 2 ? 2 : 0; term >= 0; term--)              // small*big, big*small, big*big
#pragma unroll
            for (int i = 0; i < TM; i += 2)
#pragma unroll
                for (int j = 0; j < TN; j += 2) {
                    float d[4] = {sum[i][j], sum[i][j + 1], sum[i + 1][j], sum[i + 1][j + 1]};
                    if constexpr (PRECISION == BF16) mma_bf16(d, a[i / 2][0], b[j / 2][0]);
                    else mma_tf32(d, a[i / 2][term / 2], b[j / 2][term % 2]);
                    sum[i][j] = d[0], sum[i][j + 1] = d[1], sum[i + 1][j] = d[2], sum[i + 1][j + 1] = d[3];
                }
    }
}
#endif

// ===================================================================== step 5: forward and transposed convolution

/* Both are one gather. Forward, output row p reads with tap t input row p*S - P + t. Transposed, the rows h of dx are taken
   apart into S phases by (h + P) mod S; a phase meets just the taps r = phase + S*t, and reads with them dy row
   (h + P - phase)/S - t: exact, with no zeros between the rows. Axis holds either, for rows and for columns. */
struct Axis {
    int outputs, first, hop;          // output i of this phase is row first + hop*i of its map
    int size;                         // of the output map
    int inputs, start, stride, way;   // output i reads with tap t input row start + stride*i + way*t, of `inputs`
    int taps, tap, tap_hop;           // tap t of this phase is row tap + tap_hop*t of the filter
};

__device__ __forceinline__ Axis forward_axis(int H, int Ho, int K, int S, int P)
{
    return {Ho, 0, 1, Ho, H, -P, S, 1, K, 0, 1};
}

__device__ __forceinline__ Axis transpose_axis(int H, int Ho, int K, int S, int P, int phase)
{
    int first = ((phase - P) % S + S) % S;                                  // the first h with (h + P) mod S = phase
    return {(H - first + S - 1) / S, first, S, H, Ho, (first + P - phase) / S, 1, -1, (K - phase + S - 1) / S, phase, S};
}

struct Span { int first, count; };

// The taps that meet the map for at least one of the outputs lo..hi.
__device__ __forceinline__ Span taps_inside(const Axis &axis, int lo, int hi)
{
    int low = axis.start + axis.stride * lo, high = axis.start + axis.stride * hi;        // rows that tap 0 reads
    int first = axis.way > 0 ? -high : low - (axis.inputs - 1);
    int last = axis.way > 0 ? axis.inputs - 1 - low : high;
    first = max(first, 0), last = min(last, axis.taps - 1);
    return {first, max(last - first + 1, 0)};
}

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

#ifndef VECTOR_A
#define VECTOR_A 4                    // floats per copy of filters: 4 where a group's maps out are a multiple of 4
#endif
#ifndef VECTOR_B
#define VECTOR_B 4                    // floats per copy of windows: 4 where N is a multiple of 4
#endif

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
    const float *w, *x;               // filters (maps,K,K,M) with rows M_all apart, and maps (maps,H,W,N)
    float *y;                         // (M,size,size,N)
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
        Reduction block = {rows, columns, (int)min(all - first, (long long)BN), (int)(first / images), (int)(first % images),
                           w_group, y_group};
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
        unsigned step = block.first + first + threadIdx.x, slow = block.fast.quotient(step), fast = step - slow * block.fast.divisor;
        bool by_tap = MMA_K > 1 && block.by_tap;
        unsigned c = by_tap ? fast : slow, tap = by_tap ? slow : fast, row = block.per_row.quotient(tap);
        int r = block.taps_r.first + row, s = block.taps_s.first + tap - row * block.per_row.divisor;
        int place = (c * K + block.rows.tap + block.rows.tap_hop * r) * K + block.columns.tap + block.columns.tap_hop * s;
        int dh = block.rows.way * r, dv = block.columns.way * s;
        bool inside = step < block.length;
        steps[threadIdx.x] = {inside ? block.w + (long long)place * M_all : -1,
                              (((long long)c * H + dh) * W + dv) * N, inside ? dh : OUTSIDE, dv};
    }

    __device__ __forceinline__ void copy(Tiles &tiles, const Step *steps) const
    {
#pragma unroll
        for (int i0 = 0; i0 < BK * LANES_A; i0 += THREADS) {
            int i = i0 + threadIdx.x, row = i / LANES_A, m = VECTOR_A * (i % LANES_A);
            if (i >= BK * LANES_A) break;
            long long from = steps[row].w;
            bool wanted = from >= 0 && m0 + m < M;
            copy_floats<VECTOR_A>(&tiles.a[row][m], w + (wanted ? from + m0 + m : 0), wanted);
        }
#pragma unroll
        for (int row0 = 0; row0 < BK; row0 += ROWS_B) {
            int row = row0 + threadIdx.x / (LANES_B / COLUMNS);
            if (row >= BK) break;
            Step step = steps[row];
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                bool wanted = (unsigned)(h[i] + step.dh) < (unsigned)H && (unsigned)(v[i] + step.dv) < (unsigned)W;
                copy_floats<VECTOR_B>(&tiles.b[row][column(i)], x + (wanted ? step.x + at[i] : 0), wanted);
            }
        }
    }

    static const int PACK = PRECISION == FP32 || VECTOR_B == 1 ? VECTOR_B : 2;      // neighbouring columns that a thread owns

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
            float *column = y + block.y + (long long)pixel * N + to.n;
#pragma unroll
            for (int i = 0; i < TM; i++) {
                int m = m0 + tile_row(i);
                if (m >= M) continue;
                if constexpr (PACK == 4)
                    *reinterpret_cast<float4 *>(column + m * map) = make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
                else if constexpr (PACK == 2)
                    *reinterpret_cast<float2 *>(column + m * map) = make_float2(sum[i][j], sum[i][j + 1]);
                else column[m * map] = sum[i][j];
            }
        }
    }
};

#ifndef BLOCKS
#define BLOCKS 2                      // that an SM is to hold at a time, which bounds the registers of a thread
#endif

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

/* blockIdx.x = tile of columns * (tiles of maps) + tile of maps, so that blocks that read the same windows run together;
   blockIdx.y = group, blockIdx.z = slice of the reduction. y (slices,F,Ho,Wo,N); of several slices y is only the sum of all,
   to which bias and ReLU are then left */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_forward(
    const float *x, const float *w, const float *b, float *y,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups, int biased, int relu)
{
    __shared__ Shared<Windows> shared;
    int maps = C / groups, filters = F / groups, group = blockIdx.y, tiles_m = (filters + BM - 1) / BM;
    Windows block = {w, x, y, group * filters, (long long)group * maps * H * W * N,
                     ((long long)blockIdx.z * F + group * filters) * Ho * Wo * N,
                     maps, filters, F, H, W, N, N, K, (int)(blockIdx.x % tiles_m) * BM, &shared.reduction};
    float sum[TM][TN];
    int tiles = block.begin(forward_axis(H, Ho, K, S, P), forward_axis(W, Wo, K, S, P), blockIdx.x / tiles_m,
                            blockIdx.z, gridDim.z);
    multiply(block, tiles, shared, sum);
    finish(sum, b + group * filters, block.m0, filters, biased, relu);
    block.store(sum);
}

// ===================================================================== step 6: a pool folded out of the tiles

/* y and switches of the max pool (windows POOL x POOL at stride STRIDE, see maxpool.cu) of max(convolution + b, 0): what
   conv2d_forward and maxpool_forward leave, bit by bit, but the map between them is never in memory.

   A block owns BM maps, IMAGES images and STRIP neighbouring outputs of the pool, in `run` rows of them. It walks down the
   convolution's rows under these. Of each row, the PIXELS columns under the strip times the images are the BN columns of a
   tile, multiplied as in step 5: a strip is a map that begins further right. The finished row takes the place of the
   tiles in shared memory and is folded into the maxima of the windows it lies in, a thread always the same ones. As windows
   share one row at most, one is closed before the next is opened.

   cost      8 strips of 16 columns cover the 110 of conv1, and a run repeats one row: 1.2 times the products
   traffic   4*(C*H*W*N + C*K*K*F) + 5*F*height*width*N bytes; without it 8*F*Ho*Wo*N more */
#ifdef POOL                           // its window, given with STRIDE and SHARED, the bytes that a launch asks for
#define IMAGES 8
#define PIXELS (BN / IMAGES)
#define STRIP ((PIXELS - POOL) / STRIDE + 1)
static_assert(POOL <= STRIDE + 1, "windows share one row at most");

struct Fold {
    union {
        Shared<Windows> tiles;
        float row[BM][BN + 8];        // pixel by pixel the images; 8 floats more put the rows of an mma into different banks
    };
    float best[BM][STRIP * IMAGES];
    unsigned char where[BM][STRIP * IMAGES];
};
static_assert(sizeof(Fold) <= SHARED, "fits what a launch asks for");

// The pool of maps (F,Ho,Wo,N), of which this block has maps from m0 on, images from n0 on and columns of the pool from q0 on.
struct Pool {
    float *y;
    unsigned char *switches;
    int F, Ho, Wo, N, P, height, width;                 // the last three of the pool
    int m0, n0, q0;
    int left, v0;                                       // the strip's first column, and the first of them inside the map

    // Row h of the convolution, of which the block's part lies in shared.row, into the windows of row p
    __device__ __forceinline__ void fold(Fold &shared, int h, int p) const
    {
        int top = p * STRIDE - P, r = h - top;
        bool opens = h == max(top, 0), closes = h == min(top + POOL, Ho) - 1;
        for (int i = threadIdx.x; i < BM * STRIP * IMAGES; i += THREADS) {
            int m = i / (STRIP * IMAGES), k = i % (STRIP * IMAGES), q = q0 + k / IMAGES, n = k % IMAGES;
            if (m0 + m >= F || q >= width) continue;
            int v = left + k / IMAGES * STRIDE;         // the window's first column
            float best = opens ? -infinity() : shared.best[m][k];
            int where = opens ? r * POOL + max(-v, 0) : shared.where[m][k];
#pragma unroll
            for (int s = 0; s < POOL; s++) {
                if (v + s < 0 || v + s >= Wo) continue;
                float a = shared.row[m][(v + s - v0) * IMAGES + n];
                if (!(a <= best) && best == best) best = a, where = r * POOL + s;          // higher, or the first NaN
            }
            long long at = (((long long)(m0 + m) * height + p) * width + q) * N + n0 + n;
            if (closes) y[at] = best, switches[at] = where;
            else shared.best[m][k] = best, shared.where[m][k] = where;
        }
    }
};

/* blockIdx.x = strip * (tiles of maps) + tile of maps, blockIdx.y = group of images, blockIdx.z = run of rows. N is a multiple
   of IMAGES. Ho, Wo are the convolution's, pool_P, height, width the pool's. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_pool(
    const float *x, const float *w, const float *b, float *y, unsigned char *switches,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo,
    int pool_P, int height, int width, int run, int biased)
{
    DYN_SHARED(raw);
    Fold &shared = *reinterpret_cast<Fold *>(raw);
    int tiles_m = (F + BM - 1) / BM, m0 = blockIdx.x % tiles_m * BM, n0 = blockIdx.y * IMAGES, q0 = blockIdx.x / tiles_m * STRIP;
    int p0 = blockIdx.z * run, p1 = min(p0 + run, height), left = q0 * STRIDE - pool_P, v0 = max(left, 0);
    Pool pool = {y, switches, F, Ho, Wo, N, pool_P, height, width, m0, n0, q0, left, v0};
    Windows block = {w, x + n0, nullptr, 0, 0, 0, C, F, F, H, W, N, IMAGES, K, m0, &shared.tiles.reduction};
    Axis columns = forward_axis(W, min(left + PIXELS, Wo) - v0, K, S, P - v0 * S);
    for (int h = max(p0 * STRIDE - pool_P, 0); h < min((p1 - 1) * STRIDE - pool_P + POOL, Ho); h++) {
        int first = max(max(h + pool_P - POOL + STRIDE, 0) / STRIDE, p0);           // rows of the pool whose windows hold row h
        int last = min((h + pool_P) / STRIDE, p1 - 1);
        if (first > last) continue;                     // between windows
        float sum[TM][TN];
        int tiles = block.begin(forward_axis(H, 1, K, S, P - h * S), columns, 0);
        multiply(block, tiles, shared.tiles, sum);
        finish(sum, b, m0, F, biased, true);
        cp_async_wait<0>();
        __syncthreads();                                // nobody reads or fills the tiles any more
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) shared.row[tile_row(i)][tile_column(j)] = sum[i][j];
        __syncthreads();
        for (int p = first; p <= last; p++) pool.fold(shared, h, p);
        __syncthreads();                                // the row is read: tiles again
    }
}
#endif

/* swapped (F,K,K,C/groups) = w with maps and filters exchanged. blockIdx.x as above, blockIdx.y = group,
   blockIdx.z = phase of the row * S + phase of the column */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_transpose(
    const float *dy, const float *swapped, float *dx,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups)
{
    __shared__ Shared<Windows> shared;
    int maps = C / groups, filters = F / groups, group = blockIdx.y, phase = blockIdx.z;
    int tiles_m = (maps + BM - 1) / BM;
    Windows block = {swapped, dy, dx, (long long)group * filters * K * K * maps, (long long)group * filters * Ho * Wo * N,
                     (long long)group * maps * H * W * N, filters, maps, maps, Ho, Wo, N, N, K,
                     (int)(blockIdx.x % tiles_m) * BM, &shared.reduction};
    int tiles = block.begin(transpose_axis(H, Ho, K, S, P, phase / S), transpose_axis(W, Wo, K, S, P, phase % S),
                            blockIdx.x / tiles_m);
    if (tiles < 0) return;
    float sum[TM][TN];
    multiply(block, tiles, shared, sum);
    block.store(sum);
}

/* swapped[f,t,c] = w[c,t,f], T = K*K places t. A block turns 32 x 32 numbers of one place through shared memory, so that
   reads and writes are both coalesced; the 33rd column puts the numbers of a column into different banks.
   blockIdx.x = tile of f * (tiles of c) + tile of c, blockIdx.y = t. 8 bytes per weight. */
extern "C" __global__ void conv2d_swap_filters(const float *w, float *swapped, int C, int T, int F)
{
    __shared__ float tile[32][33];
    int t = blockIdx.y, lane = threadIdx.x % 32, tiles_c = (C + 31) / 32;
    int c0 = blockIdx.x % tiles_c * 32, f0 = blockIdx.x / tiles_c * 32;
    for (int i = threadIdx.x / 32; i < 32; i += blockDim.x / 32)
        if (c0 + i < C && f0 + lane < F) tile[i][lane] = w[((long long)(c0 + i) * T + t) * F + f0 + lane];
    __syncthreads();
    for (int i = threadIdx.x / 32; i < 32; i += blockDim.x / 32)
        if (f0 + i < F && c0 + lane < C) swapped[((long long)(f0 + i) * T + t) * C + c0 + lane] = tile[lane][i];
}

// ============================================================================================ step 5: filter gradient

/* dw is a matrix of M = K*K*maps rows, m = (r*K + s)*maps + c, and F columns; the reduction runs over outputs (p,q) and
   images. In both operands the reduction is what lies contiguous in memory, so copying turns it: 8 lanes take 8 images
   of one row and store them one below the other. Of the outputs only the rectangle takes part whose place (r,s) meets the
   map for at least one row of the tile; where the maps of a group fill whole tiles a tile has one (r,s), and padding
   costs nothing. The reduction of a tile is dealt into `slices` blocks; each writes its own part of the sum. */
struct Products {
    typedef Strips Tiles;
    const float *x, *dy;
    int group, maps, H, W, N, filters, K, S, P, Ho, Wo;

    static const int FLOATS = PRECISION == FP32 ? 1 : VECTOR_B;             // of a copy: 4 where N is a multiple of 4
    static const int LANES = BK / FLOATS;                                   // copies in a row
    static const int ACROSS = FLOATS == 4 ? 8 : 1;                          // rows that neighbouring lanes copy to
    static_assert(THREADS % (LANES * ACROSS) == 0 && BM % ACROSS == 0 && BN % ACROSS == 0, "whole rows");

    struct Row { long long at; int r, s; };             // of one row m: offset of x[c,r,s,0], and its place (r,s)
    struct Next { int p, q, n; long long left; };       // the step a thread plans next: its output, and steps from it to the end
    struct Reduction {
        Row rows[BM];
        long long filters[BN];                          // offset of dy[f,0,0,0], or -1
        Next next[BK];
        Span inside_q;
    } *shared;

    // Returns the number of tiles of that slice, for rows m0, m0+1 ... and filters f0, f0+1 ... of the group
    __device__ __forceinline__ int begin(int m0, int f0, int slice, int slices)
    {
        const int M = K * K * maps, m1 = min(m0 + BM, M) - 1;
        for (int i = threadIdx.x; i < BM; i += THREADS) {
            int place = (m0 + i) / maps, c = (m0 + i) % maps, r = place / K, s = place % K;
            shared->rows[i] = {((((long long)group * maps + c) * H + r) * W + s) * N, r, s};      // beyond M: not stored
        }
        for (int i = threadIdx.x; i < BN; i += THREADS)
            shared->filters[i] = f0 + i < filters ? (long long)(group * filters + f0 + i) * Ho * Wo * N : -1;
        int a = m0 / maps, z = m1 / maps;                                   // its first and last place
        Span inside_p = outputs_inside(H, Ho, a / K, z / K);
        Span inside_q = a / K == z / K ? outputs_inside(W, Wo, a % K, z % K) : outputs_inside(W, Wo, 0, K - 1);
        long long all = (long long)inside_p.count * inside_q.count * N, tiles = (all + BK - 1) / BK;
        long long from = tiles * slice / slices, to = tiles * (slice + 1) / slices;
        long long k = from * BK + threadIdx.x, pixel = k / N;
        int per_row = max(inside_q.count, 1);
        if (threadIdx.x < BK)
            shared->next[threadIdx.x] = {inside_p.first + (int)(pixel / per_row), inside_q.first + (int)(pixel % per_row),
                                            (int)(k % N), all - k};
        if (threadIdx.x == 0) shared->inside_q = inside_q;
        return (int)(to - from);
    }

    // The outputs whose place `low`, or `high`, or one between them meets the map.
    __device__ __forceinline__ Span outputs_inside(int size, int outputs, int low, int high) const
    {
        int first = P > high ? (P - high + S - 1) / S : 0;
        int last = size - 1 + P < low ? -1 : min((size - 1 + P - low) / S, outputs - 1);
        return {first, max(last - first + 1, 0)};
    }

    struct __align__(16) Step {
        long long x, dy;              // offsets of x[0,h,v,n], and of dy[0,p,q,n] or -1
        int h, v;                     // the pixel under place (0,0)
    };

    __device__ __forceinline__ void plan(Step *steps, int) const
    {
        if (threadIdx.x >= BK) return;
        Next &next = shared->next[threadIdx.x];
        int p = next.p, q = next.q, n = next.n, h = p * S - P, v = q * S - P;
        bool inside = next.left > 0;
        steps[threadIdx.x] = {((long long)h * W + v) * N + n, inside ? ((long long)p * Wo + q) * N + n : -1,
                              inside ? h : OUTSIDE, v};
        const int q0 = shared->inside_q.first, q1 = q0 + shared->inside_q.count;
        for (n += BK; n >= N; n -= N)
            if (++q >= q1) q = q0, p++;
        next = {p, q, n, next.left - BK};
    }

    __device__ __forceinline__ void copy(Tiles &tiles, const Step *steps) const
    {
        const int k = threadIdx.x / ACROSS % LANES * FLOATS;
        const int row = threadIdx.x / (LANES * ACROSS) * ACROSS + threadIdx.x % ACROSS;
        const Step step = steps[k];
#pragma unroll
        for (int i0 = 0; i0 < BM; i0 += THREADS / LANES) {
            int i = i0 + row;
            if (i >= BM) break;
            Row m = shared->rows[i];
            bool wanted = (unsigned)(step.h + m.r) < (unsigned)H && (unsigned)(step.v + m.s) < (unsigned)W;
            copy_floats<FLOATS>(tiles.a_at(k, i), x + (wanted ? step.x + m.at : 0), wanted);
        }
#pragma unroll
        for (int i0 = 0; i0 < BN; i0 += THREADS / LANES) {
            int i = i0 + row;
            if (i >= BN) break;
            long long at = shared->filters[i];
            bool wanted = step.dy >= 0 && at >= 0;
            copy_floats<FLOATS>(tiles.b_at(k, i), dy + (wanted ? step.dy + at : 0), wanted);
        }
    }
};

/* blockIdx.x = tile of filters * (tiles of rows) + tile of rows, so that blocks that read the same dy run together;
   blockIdx.y = slice, blockIdx.z = group. parts (slices,C/groups,K,K,F): their sum over slices is dw. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_filter_gradient(
    const float *x, const float *dy, float *parts,
    int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups)
{
    __shared__ Shared<Products> shared;
    int maps = C / groups, filters = F / groups, group = blockIdx.z, M = K * K * maps, tiles_m = (M + BM - 1) / BM;
    int m0 = blockIdx.x % tiles_m * BM, f0 = blockIdx.x / tiles_m * BN;
    Products block = {x, dy, group, maps, H, W, N, filters, K, S, P, Ho, Wo, &shared.reduction};
    float sum[TM][TN];
    int tiles = block.begin(m0, f0, blockIdx.y, gridDim.y);
    multiply(block, tiles, shared, sum);
    float *part = parts + (long long)blockIdx.y * maps * K * K * F + group * filters;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        int m = m0 + tile_row(i);
        if (m >= M) continue;
        float *row = part + ((long long)(m % maps) * K * K + m / maps) * F;
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int f = f0 + tile_column(j);
            if (f < filters) row[f] = sum[i][j];
        }
    }
}

// =============================================================================================== sums in a fixed order

/* sum[i] = parts[0,i] + parts[1,i] + ..., plus b[i/map] if biased, max(that, 0) if relu; one thread = one i.
   4*(slices + 1) bytes each. */
extern "C" __global__ void conv2d_sum_slices(const float *parts, const float *b, float *sum, long long size, long long map,
    int slices, int biased, int relu)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float total = 0;
    for (int slice = 0; slice < slices; slice++) total += parts[slice * size + i];
    if (biased) total += b[i / map];
    sum[i] = relu && total < 0 ? 0 : total;                                 // NaN stays NaN
}

/* parts[slice,f] = the sum of one slice of dy[f,:,:,:], `length` = Ho*Wo*N numbers. One block = one (slice, f):
   blockIdx.x = f*slices + slice; each thread adds every 256th number, then a tree adds the threads. 4 bytes per dy. */
extern "C" __global__ void conv2d_bias_gradient(const float *dy, float *parts, long long length, int F, int slices)
{
    __shared__ float sums[256];
    int f = blockIdx.x / slices, slice = blockIdx.x % slices;
    const float *map = dy + f * length;
    float sum = 0;
#pragma unroll 4
    for (long long i = length * slice / slices + threadIdx.x; i < length * (slice + 1) / slices; i += 256) sum += map[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) parts[slice * F + f] = sums[0];
}
