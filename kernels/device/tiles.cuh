/* tiles.cuh - level 2 of the ladder in conv2d.cu: a block multiplies two tiles in shared memory

   A block owns a tile of BM x BN results, a thread TM x TN of them in registers. In shared memory lie BK steps of the
   reduction, a (BK,BM) and b (BK,BN). Per step a thread reads TM + TN numbers and does TM*TN FMAs: with 8x8 that is four
   16-byte reads for 64 FMAs, which the shared memory of an SM can serve to all its cores. (Prediction, not a measurement:
   in the loop of the 128x128 forward kernel for sm_90a about 610 instructions of a thread carry 512 FMAs, so that issue
   alone would bound it at 84 % of the FMA peak; of the filter gradient, whose copies are of 4 bytes, at about 65 %.)

   Threads of a warp stand LANES_M x LANES_N. A thread's rows (and columns) come in fours, BM*4/TM apart: LANES_N
   neighbours then read LANES_N*16 bytes in a row, and no two of them the same bank. */
#pragma once
#include <stored.cuh>


#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef BK
#define BK (PRECISION == FP32 ? 8 : PRECISION == BF16 ? 32 : 16)
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
#ifndef VECTOR_A
#define VECTOR_A 4                    // numbers a copy of filters, 16 bytes where a group's maps out are whole such; or 1
#endif
#ifndef VECTOR_B
#define VECTOR_B 4                    // of windows, where N is; or 1
#endif
#ifndef BLOCKS
#define BLOCKS 2                      // that an SM is to hold at a time, which bounds the registers of a thread
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
typedef Tiles Strips;                 // of the filter gradient; tensor cores have others
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
#else
#include <tensor_tiles.cuh>
#endif
