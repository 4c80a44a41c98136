/* tensor_tiles.cuh - level 4 of the ladder in conv2d.cu: tensor cores multiply the two tiles, in shorter numbers

   Any other PRECISION leaves the products to tensor cores: mma.sync multiplies 16 rows by 8 columns over 8 steps of the
   reduction (16 in bf16) at once and adds in float32. It takes short factors; PRECISION says what is made of the tile's
   float32 numbers on their way into registers:

     TF32     rounded to 11 bits, which is wrong by 2^-11 of the number at most
     BF16     rounded to 8 bits, 2^-8; half as many mma
     FP32X3   split into two tf32 numbers, x = big + small up to 2^-23. A product is small*big + big*small + big*big;
              small*small, 2^-22 of it, is left out: nearly float32, for three times the mma. An infinity becomes NaN

   A warp stands 8 x 4 lanes, and a lane owns TM x TN results as in tiles.cuh, so a warp owns 8*TM x 4*TN of them. In one mma
   lane 4*g + t brings rows g and g+8 and column g, of each steps t and t+4, and gets columns 2t and 2t+1 of its rows. */
#pragma once

#define MMA_K (PRECISION == BF16 ? 16 : 8)                                  // steps of one mma
#define LIMBS (PRECISION == FP32X3 ? 2 : 1)                                 // of a factor: big, small
static_assert(LANES_M == 8 && TM % 2 == 0 && TN % 2 == 0 && BK % MMA_K == 0, "whole mma");

__device__ __forceinline__ int lane_g() { return threadIdx.x % 32 / 4; }
__device__ __forceinline__ int lane_t() { return threadIdx.x % 4; }
__device__ __forceinline__ int tile_row(int i) { return warp_m() * TM * 8 + i * 8 + lane_g(); }
__device__ __forceinline__ int tile_column(int j) { return warp_n() * TN * 4 + j / 2 * 8 + lane_t() * 2 + j % 2; }

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
__device__ __forceinline__ void round_factor(const unsigned (&x)[MMA_K / 8][WORDS], unsigned (&limb)[LIMBS][WORDS])
{
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        float first = __uint_as_float(x[0][i]);
        if constexpr (PRECISION == BF16) limb[0][i] = to_bf16x2(first, __uint_as_float(x[1][i]));
        else limb[0][i] = to_tf32(first);
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
        for (int term = LIMBS == 2 ? 2 : 0; term >= 0; term--)              // small*big, big*small, big*big
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
