/* stored.cuh - the numbers of maps as they lie in memory, which PRECISION says, and in registers, where they are float32.

   BF16: the upper 16 bits of a float32 number, rounded to nearest, ties to even; else float32 itself. A kernel reads `stored`,
   counts in float32 and writes `stored`. Of LANES neighbours, where the file has them, Stored is what one load or store moves,
   and Pack what a thread counts with: assigning one to the other converts. */
#pragma once
#include <ptx.cuh>

#define FP32 0                        // what PRECISION may be
#define FP32X3 1
#define TF32 2
#define BF16 3
#ifndef PRECISION
#define PRECISION FP32
#endif

__device__ __forceinline__ float in_float(float x) { return x; }
#if PRECISION == BF16
typedef unsigned short stored;
__device__ __forceinline__ float in_float(stored x) { return from_bf16(x); }
__device__ __forceinline__ stored as_stored(float x) { return to_bf16(x); }
#else
typedef float stored;
__device__ __forceinline__ stored as_stored(float x) { return x; }
#endif

#ifdef LANES
struct __align__(LANES < 4 ? 4 * LANES : 16) Pack { float v[LANES]; };
#if PRECISION == BF16 && LANES > 1
struct __align__(2 * LANES) Stored {
    unsigned pairs[LANES / 2];

    __device__ __forceinline__ operator Pack() const
    {
        Pack a;
        for (int k = 0; k < LANES; k += 2)
            a.v[k] = __uint_as_float(pairs[k / 2] << 16), a.v[k + 1] = __uint_as_float(pairs[k / 2] & 0xffff0000u);
        return a;
    }
    __device__ __forceinline__ void operator=(const Pack &a)
    {
        Stored all;
        for (int k = 0; k < LANES; k += 2) all.pairs[k / 2] = to_bf16x2(a.v[k], a.v[k + 1]);
        *this = all;
    }
};
#elif PRECISION == BF16
struct Stored {
    stored one;
    __device__ __forceinline__ operator Pack() const { return {in_float(one)}; }
    __device__ __forceinline__ void operator=(const Pack &a) { one = as_stored(a.v[0]); }
};
#else
typedef Pack Stored;
#endif
#endif
