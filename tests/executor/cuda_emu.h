/* cuda_emu.h - CUDA C++ as far as the kernels of this project use it, for g++.

Keywords, vector types, built-in variables, barriers, shuffles, votes, atomics and intrinsics. What is missing here is
missing on purpose: a kernel that needs it fails to compile instead of meaning something else than on a GPU. */
#pragma once
#include "emu.h"
#undef _GLIBCXX_USE_STD_SPEC_FUNCS             // Bessel functions and the like are half of what compiling a kernel costs
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

// ------------------------------------------------------------------------------------------------------- keywords
// after the system headers, which use __noinline__ themselves
#define __global__ inline __attribute__((visibility("hidden")))   // of a file only the kernel that is launched is compiled
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __constant__ static const
#define __shared__ static thread_local      // one OS thread runs a block; the loader can tell where its variables lie
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)                // emu.py reads it
#define __grid_constant__
#define __CUDA_ARCH__ 900
#define asm assembly_belongs_into_ptx_cuh

const int warpSize = 32;
struct dim3 { unsigned x = 1, y = 1, z = 1; };

// --------------------------------------------------------------------------------------------------- vector types
#define EMU_VECTOR(T, name, align1, align2, align4)                                                                 \
    struct __align__(align1) name##1 { T x; };                                                                      \
    struct __align__(align2) name##2 { T x, y; };                                                                   \
    struct __align__(align4) name##4 { T x, y, z, w; };                                                             \
    inline name##1 make_##name##1(T x) { return {x}; }                                                              \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                      \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(signed char, char, 1, 2, 4)
EMU_VECTOR(unsigned char, uchar, 1, 2, 4)
EMU_VECTOR(short, short, 2, 4, 8)
EMU_VECTOR(unsigned short, ushort, 2, 4, 8)
EMU_VECTOR(int, int, 4, 8, 16)
EMU_VECTOR(unsigned, uint, 4, 8, 16)
EMU_VECTOR(float, float, 4, 8, 16)
EMU_VECTOR(long long, longlong, 8, 16, 16)
EMU_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
EMU_VECTOR(double, double, 8, 16, 16)
struct float3 { float x, y, z; };
struct int3 { int x, y, z; };
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// ------------------------------------------------------------------------------------------- barriers and shuffles
inline void __syncthreads(EMU_HERE) { emu::vote("__syncthreads", 0, here); }
inline int __syncthreads_count(int p, EMU_HERE) { return emu::vote("__syncthreads_count", p, here); }
inline int __syncthreads_or(int p, EMU_HERE) { return emu::vote("__syncthreads_or", p, here) > 0; }
inline int __syncthreads_and(int p, EMU_HERE) { return emu::vote("__syncthreads_and", !p, here) == 0; }
inline void __syncwarp(unsigned mask = ~0u, EMU_HERE) { emu::warp(mask, "__syncwarp", 0, 0, here); }
inline void __threadfence() {}               // memory is sequentially consistent here: a missing fence is not found
inline void __threadfence_block() {}
inline void __trap(EMU_HERE) { emu::fail(here, "__trap()"); }

namespace emu {

// A lane of a shuffle: its value, and after the rendezvous that of the lane `source`. As PTX `shfl` defines it, a source
// beyond the segment of `width` lanes yields the lane's own value; one outside the mask is undefined, here all ones.
struct Shuffle { uint64_t value, result; int source; };
inline void shuffle_all(void **lanes, unsigned mask)
{
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        Shuffle &s = *(Shuffle *)lanes[lane];
        s.result = mask >> s.source & 1 ? ((Shuffle *)lanes[s.source])->value : ~0ull;
    }
}
template <class T> T shuffle(unsigned mask, T value, int source, bool inside, const char *doing, Site here)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    int lane = threadIdx.x % 32;
    Shuffle mine = {0, 0, inside ? source : lane};
    memcpy(&mine.value, &value, sizeof(T));
    warp(mask, doing, &mine, shuffle_all, here);
    memcpy((void *)&value, &mine.result, sizeof(T));
    return value;
}
struct Vote { bool holds; unsigned ballot; };
inline void vote_all(void **lanes, unsigned mask)
{
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++) ballot |= (mask >> lane & 1 && ((Vote *)lanes[lane])->holds) ? 1u << lane : 0;
    for (int lane = 0; lane < 32; lane++) if (mask >> lane & 1) ((Vote *)lanes[lane])->ballot = ballot;
}
inline unsigned ballot(unsigned mask, bool holds, const char *doing, Site here)
{
    Vote mine = {holds, 0};
    warp(mask, doing, &mine, vote_all, here);
    return mine.ballot;
}

}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_HERE)
{
    int first = threadIdx.x % 32 & ~(width - 1);
    return emu::shuffle(mask, value, first | (source & (width - 1)), true, "__shfl_sync", here);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_HERE)
{
    int lane = threadIdx.x % 32, source = lane - (int)delta;
    return emu::shuffle(mask, value, source, source >= (lane & ~(width - 1)), "__shfl_up_sync", here);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_HERE)
{
    int lane = threadIdx.x % 32, source = lane + (int)delta;
    return emu::shuffle(mask, value, source, source <= (lane | (width - 1)), "__shfl_down_sync", here);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMU_HERE)
{
    int lane = threadIdx.x % 32, source = lane ^ lanes;
    return emu::shuffle(mask, value, source, source <= (lane | (width - 1)), "__shfl_xor_sync", here);
}
inline unsigned __ballot_sync(unsigned mask, int p, EMU_HERE) { return emu::ballot(mask, p, "__ballot_sync", here); }
inline int __any_sync(unsigned mask, int p, EMU_HERE) { return emu::ballot(mask, p, "__any_sync", here) != 0; }
inline int __all_sync(unsigned mask, int p, EMU_HERE) { return emu::ballot(mask, !p, "__all_sync", here) == 0; }

// --------------------------------------------------------------------------- atomics: fibers never preempt each other
#define EMU_ATOMIC(name, expression)                                                                                \
    template <class T> __attribute__((no_sanitize("thread")))                                                       \
    T name(T *p, std::common_type_t<T> value, EMU_HERE)                                                             \
    { emu::atomic(p, sizeof(T), here); T old = *p; *p = (expression); return old; }
EMU_ATOMIC(atomicAdd, old + value)
EMU_ATOMIC(atomicMax, old > value ? old : value)
EMU_ATOMIC(atomicMin, old < value ? old : value)
EMU_ATOMIC(atomicOr, old | value)
EMU_ATOMIC(atomicExch, value)
template <class T> __attribute__((no_sanitize("thread")))
T atomicCAS(T *p, std::common_type_t<T> compare, std::common_type_t<T> value, EMU_HERE)
{ emu::atomic(p, sizeof(T), here); T old = *p; if (old == compare) *p = value; return old; }

// ------------------------------------------------------------------------------------------------------ intrinsics
#define EMU_MINMAX(T) inline T min(T a, T b) { return b < a ? b : a; } inline T max(T a, T b) { return a < b ? b : a; }
EMU_MINMAX(int) EMU_MINMAX(unsigned) EMU_MINMAX(long long) EMU_MINMAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

template <class To, class From> To emu_bits(From from)
{ static_assert(sizeof(To) == sizeof(From), ""); To to; memcpy(&to, &from, sizeof to); return to; }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
#define __expf(x) expf(x)                    // macros, because glibc declares functions of these names
#define __exp2f(x) exp2f(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
inline float cospif(float x) { return cos(x * M_PI); }
inline float sinpif(float x) { return sin(x * M_PI); }

inline float __int2float_rn(int x) { return x; }
inline float __uint2float_rn(unsigned x) { return x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x)
{ unsigned r = 0; for (int k = 0; k < 32; k++) r |= (x >> k & 1) << (31 - k); return r; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline int __mulhi(int a, int b) { return (int64_t)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{ return (unsigned __int128)a * b >> 64; }
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s)
{ return ((uint64_t)hi << 32 | lo) << (s & 31) >> 32; }
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s)
{ return ((uint64_t)hi << 32 | lo) >> (s & 31); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int k = 0; k < 4; k++) {
        unsigned s = selector >> 4 * k & 15, byte = bytes >> 8 * (s & 7) & 255;
        r |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * k;          // bit 3 of a selector repeats the sign
    }
    return r;
}
template <class T> T __ldg(const T *p) { return *p; }                     // the caches of a GPU are not emulated
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> void __stcs(T *p, T value) { *p = value; }
template <class T> void __stcg(T *p, T value) { *p = value; }
template <class T> void __stwt(T *p, T value) { *p = value; }

// --------------------------------------------------------------- what a compiled kernel exports: its types and a caller
namespace emu {

template <class T> struct Name {
    static const char *get() { static char s[24]; snprintf(s, 24, "struct:%zu", sizeof(T)); return s; }
};
#define EMU_NAME(T) template <> struct Name<T> { static const char *get() { return #T; } };
EMU_NAME(float) EMU_NAME(double) EMU_NAME(int) EMU_NAME(unsigned int) EMU_NAME(long long) EMU_NAME(unsigned long long)
EMU_NAME(char) EMU_NAME(signed char) EMU_NAME(unsigned char) EMU_NAME(short) EMU_NAME(unsigned short) EMU_NAME(bool)

template <class T> void append(char *&out, bool first)
{
    using Plain = std::remove_pointer_t<T>;
    out += sprintf(out, "%s%s%s%s", first ? "" : ", ", std::is_pointer_v<T> && std::is_const_v<Plain> ? "const " : "",
                   Name<std::remove_cv_t<Plain>>::get(), std::is_pointer_v<T> ? " *" : "");
}
template <class... A> const char *types(void (*)(A...))
{
    static char text[4096];
    char *out = text;
    *out = 0;
    bool first = true;
    ((append<A>(out, first), first = false), ...);
    return text;
}
template <class... A, size_t... I> void call(void (*kernel)(A...), void **values, std::index_sequence<I...>)
{
    kernel(*(std::remove_reference_t<A> *)values[I]...);
}
template <class... A> void call(void (*kernel)(A...), void **values)
{
    call(kernel, values, std::index_sequence_for<A...>());
}

}
#define EMU_EXPORT(kernel)                                                                                          \
    static thread_local char emu_first_touch;   /* its address makes the loader allocate the thread-local variables */ \
    extern "C" __attribute__((visibility("default"))) const char *emu_types() { return emu::types(kernel); }        \
    extern "C" __attribute__((visibility("default"))) void emu_call(void **values) { emu::call(kernel, values); }   \
    extern "C" __attribute__((visibility("default"))) void *emu_touch() { return &emu_first_touch; }
