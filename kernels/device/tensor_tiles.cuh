/* tensor_tiles.cuh - level 4 of the ladder in conv2d.cu: tensor cores multiply the two tiles, in shorter numbers

   Any other PRECISION leaves the products to tensor cores: mma.sync multiplies 16 rows by 8 columns over 8 steps of the
   reduction (16 in bf16) at once and adds in float32. It takes short factors; PRECISION says what is made of the tile's
   numbers on their way into registers:

     BF16     nothing: they are stored so, 8 bits, and ldmatrix brings them as mma wants them, two a register; half as many mma,
              half the bytes from memory to a tile and from a tile to registers
     TF32     float32 rounded to 11 bits, which is wrong by 2^-11 of the number at most
     FP32X3   split into two tf32 numbers, x = big + small up to 2^-23. A product is small*big + big*small + big*big;
              small*small, 2^-22 of it, is left out: nearly float32, for three times the mma. An infinity becomes NaN

   A warp stands 8 x 4 lanes, and a lane owns TM x TN results as in tiles.cuh, so a warp owns 8*TM x 4*TN of them. In one mma
   lane 4*g + t brings rows g and g+8 and column g, of each steps t and t+4 (in bf16 2t, 2t+1, 2t+8, 2t+9), and gets columns
   2t and 2t+1 of its rows. */
#pragma once

#define MMA_K (PRECISION == BF16 ? 16 : 8)                                  // steps of one mma
#define LIMBS (PRECISION == FP32X3 ? 2 : 1)                                 // of a factor: big, small
static_assert(LANES_M == 8 && TM % 2 == 0 && TN % 2 == 0 && BK % MMA_K == 0, "whole mma");

__device__ __forceinline__ int lane_g() { return threadIdx.x % 32 / 4; }
__device__ __forceinline__ int lane_t() { return threadIdx.x % 4; }
__device__ __forceinline__ int tile_row(int i) { return warp_m() * TM * 8 + i * 8 + lane_g(); }
__device__ __forceinline__ int tile_column(int j) { return warp_n() * TN * 4 + j / 2 * 8 + lane_t() * 2 + j % 2; }

#if PRECISION == BF16
// ldmatrix hands four 8 x 8 matrices to a warp, to each lane two neighbours of a row of each, with _trans of a column; lanes
// 8m .. 8m+7 name the rows of matrix m. The four stand two by two: matrix 1 is the near neighbour of matrix 0, matrix 2 the far
// one. 8 numbers more a row of the tile put the rows of a matrix into different banks.
__device__ __forceinline__ int matrix_near() { return threadIdx.x % 32 / 8 % 2 * 8; }
__device__ __forceinline__ int matrix_far() { return threadIdx.x % 32 / 16 * 8; }
__device__ __forceinline__ int matrix_row() { return threadIdx.x % 8; }

// A row is a step of the reduction, as in tiles.cuh: mma wants the neighbours of a column.
struct __align__(16) Tiles {
    stored a[BK][BM + 8];
    stored b[BK][BN + 8];

    // what mma wants of 16 rows from m on, or of 16 columns from n on, and steps k .. k+15
    __device__ __forceinline__ void rows(unsigned (&x)[4], int k, int m) const
    {
        ldmatrix_trans(x, &a[k + matrix_far() + matrix_row()][m + matrix_near()]);
    }
    __device__ __forceinline__ void columns(unsigned (&x)[4], int k, int n) const
    {
        ldmatrix_trans(x, &b[k + matrix_near() + matrix_row()][n + matrix_far()]);
    }
};

// The reduction runs along a row, as it does in memory in the filter gradient: mma wants the neighbours of a row.
struct __align__(16) Strips {
    stored a[BM][BK + 8];
    stored b[BN][BK + 8];

    __device__ __forceinline__ void rows(unsigned (&x)[4], int k, int m) const
    {
        ldmatrix(x, &a[m + matrix_near() + matrix_row()][k + matrix_far()]);
    }
    __device__ __forceinline__ void columns(unsigned (&x)[4], int k, int n) const
    {
        ldmatrix(x, &b[n + matrix_far() + matrix_row()][k + matrix_near()]);
    }
    __device__ __forceinline__ stored *a_at(int k, int m) { return &a[m][k]; }
    __device__ __forceinline__ stored *b_at(int k, int n) { return &b[n][k]; }
};

template <class Tiles>
__device__ __forceinline__ void multiply_tiles(const Tiles &tiles, float (&sum)[TM][TN])
{
    static_assert(TN % 4 == 0, "columns in sixteens");
#pragma unroll
    for (int k = 0; k < BK; k += MMA_K) {
        unsigned a[TM / 2][4], b[TN / 4][4];
#pragma unroll
        for (int i = 0; i < TM / 2; i++) tiles.rows(a[i], k, warp_m() * TM * 8 + i * 16);
#pragma unroll
        for (int j = 0; j < TN / 4; j++) tiles.columns(b[j], k, warp_n() * TN * 4 + j * 16);
#pragma unroll
        for (int i = 0; i < TM; i += 2)
#pragma unroll
            for (int j = 0; j < TN; j += 2) {
                float d[4] = {sum[i][j], sum[i][j + 1], sum[i + 1][j], sum[i + 1][j + 1]};
                unsigned of_columns[2] = {b[j / 4][j / 2 % 2 * 2], b[j / 4][j / 2 % 2 * 2 + 1]};
                mma_bf16(d, a[i / 2], of_columns);
                sum[i][j] = d[0], sum[i][j + 1] = d[1], sum[i + 1][j] = d[2], sum[i + 1][j + 1] = d[3];
            }
    }
}
#else
// A row is a step of the reduction, as in tiles.cuh. 8 floats more a row: the four steps that a warp reads at a time, 8 numbers
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
// mma wants them, which may be 4 numbers of 32 bits; rows of BK + 4 floats put the 8 into different banks.
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

// The words of one factor of an mma.
template <int WORDS>
__device__ __forceinline__ void round_factor(const unsigned (&x)[WORDS], unsigned (&limb)[LIMBS][WORDS])
{
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        float first = __uint_as_float(x[i]);
        limb[0][i] = to_tf32(first);
        if constexpr (PRECISION == FP32X3) limb[1][i] = to_tf32(first - __uint_as_float(limb[0][i]));
    }
}

template <class Tiles>
__device__ __forceinline__ void multiply_tiles(const Tiles &tiles, float (&sum)[TM][TN])
{
#pragma unroll
    for (int k = 0; k < BK; k += MMA_K) {
        unsigned a[TM / 2][LIMBS][4], b[TN / 2][LIMBS][2];
#pragma unroll
        for (int i = 0; i < TM / 2; i++) {
            unsigned x[4];
            tiles.rows(x, k, warp_m() * TM * 8 + i * 16);
            round_factor(x, a[i]);
        }
#pragma unroll
        for (int j = 0; j < TN / 2; j++) {
            unsigned x[2];
            tiles.columns(x, k, warp_n() * TN * 4 + j * 8);
            round_factor(x, b[j]);
        }
#pragma unroll
        for (int term = LIMBS == 2 ? 2 : 0; term >= 0; term--)              // small*big, big*small, big*big
#pragma unroll
            for (int i = 0; i < TM; i += 2)
#pragma unroll
                for (int j = 0; j < TN; j += 2) {
                    float d[4] = {sum[i][j], sum[i][j + 1], sum[i + 1][j], sum[i + 1][j + 1]};
                    mma_tf32(d, a[i / 2][term / 2], b[j / 2][term % 2]);
                    sum[i][j] = d[0], sum[i][j + 1] = d[1], sum[i + 1][j] = d[2], sum[i + 1][j + 1] = d[3];
                }
    }
}
#endif
