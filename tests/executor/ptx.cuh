/* ptx.cuh - the primitives of kernels/device/ptx.cuh, same names and signatures, played by the executor. */
#pragma once
#include "cuda_emu.h"

#define DYN_SHARED(name) unsigned char *name = emu::dynamic_shared()

inline float infinity() { return __int_as_float(0x7f800000); }

// --------------------------------------------------------------------------------------------------- number formats
inline unsigned short to_bf16(float x)                         // to nearest, ties to even; NaN becomes 0x7fff
{
    unsigned u = __float_as_uint(x);
    return x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
inline unsigned to_bf16x2(float low, float high) { return (unsigned)to_bf16(high) << 16 | to_bf16(low); }
inline float from_bf16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
inline unsigned to_tf32(float x)                               // to nearest, ties to even, as from sm_90 on
{
    unsigned u = __float_as_uint(x);
    return (u & 0x7f800000) == 0x7f800000 ? (x != x ? 0x7fffffff : u) : (u + 0xfff + (u >> 13 & 1)) & ~0x1fffu;
}
template <int FIRST> unsigned signs_of_bytes(unsigned x)
{
    static_assert(FIRST >= 0 && FIRST < 3, "");
    return (x >> (8 * FIRST + 7) & 1) * 0xffff | (x >> (8 * FIRST + 15) & 1) * 0xffff0000;
}

// ---------------------------------------------------------------------------------------------- asynchronous copies
inline void cp_async4(void *dst, const void *src, bool pred = true, EMU_HERE) { emu::cp_async(dst, src, 4, pred, here); }
inline void cp_async8(void *dst, const void *src, bool pred = true, EMU_HERE) { emu::cp_async(dst, src, 8, pred, here); }
inline void cp_async16(void *dst, const void *src, bool pred = true, EMU_HERE) { emu::cp_async(dst, src, 16, pred, here); }
inline void cp_async_commit(EMU_HERE) { emu::cp_async_commit(here); }
template <int PENDING> void cp_async_wait(EMU_HERE) { emu::cp_async_wait(PENDING, here); }

// --------------------------------------------------------------------------------------------------- ldmatrix, mma
template <int COUNT> void ldmatrix(unsigned (&r)[COUNT], const void *row, EMU_HERE)
{ static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, ""); emu::ldmatrix(r, COUNT, false, row, here); }
template <int COUNT> void ldmatrix_trans(unsigned (&r)[COUNT], const void *row, EMU_HERE)
{ static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, ""); emu::ldmatrix(r, COUNT, true, row, here); }
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMU_HERE)
{ emu::mma("mma_tf32", d, a, b, here); }
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMU_HERE)
{ emu::mma("mma_bf16", d, a, b, here); }

// --------------------------------------------------------------------------------------------------------- barriers
inline void named_barrier_sync(int id, int threads, EMU_HERE)
{ emu::arrive("named_barrier_sync", id, threads, true, here); }
inline void named_barrier_arrive(int id, int threads, EMU_HERE)
{ emu::arrive("named_barrier_arrive", id, threads, false, here); }
typedef unsigned long long Mbar;
inline void mbar_init(Mbar *bar, unsigned count, EMU_HERE) { emu::mbar_init((uint64_t *)bar, count, here); }
inline void mbar_fence_init(EMU_HERE) { emu::fence_async_proxy(here); }
inline void mbar_arrive(Mbar *bar, EMU_HERE) { emu::mbar_arrive((uint64_t *)bar, 0, here); }
inline void mbar_arrive_expect_tx(Mbar *bar, unsigned bytes, EMU_HERE) { emu::mbar_arrive((uint64_t *)bar, bytes, here); }
inline void mbar_wait(Mbar *bar, unsigned parity, EMU_HERE) { emu::mbar_wait((uint64_t *)bar, parity, here); }
inline void mbar_arrive_at(unsigned rank, Mbar *bar, EMU_HERE) { emu::mbar_arrive_at(rank, (uint64_t *)bar, here); }
inline unsigned cluster_rank() { return emu::cluster_rank(); }
inline void cluster_sync(EMU_HERE) { emu::cluster_sync(here); }
inline void fence_async_proxy(EMU_HERE) { emu::fence_async_proxy(here); }

// -------------------------------------------------------------------------------------------------------------- TMA
struct alignas(64) TensorMap { unsigned long long opaque[16]; };
#define EMU_TMA(rank, parameters, ...)                                                                              \
    inline void tma_load_##rank##d(void *dst, const TensorMap *map, Mbar *bar, parameters, EMU_HERE)                \
    { int at[] = {__VA_ARGS__}; emu::tma_load(dst, map, (uint64_t *)bar, rank, at, nullptr, nullptr, here); }
#define EMU_INTS2 int c0, int c1
#define EMU_INTS3 int c0, int c1, int c2
#define EMU_INTS4 int c0, int c1, int c2, int c3
#define EMU_INTS5 int c0, int c1, int c2, int c3, int c4
EMU_TMA(2, EMU_INTS2, c0, c1)
EMU_TMA(3, EMU_INTS3, c0, c1, c2)
EMU_TMA(4, EMU_INTS4, c0, c1, c2, c3)
EMU_TMA(5, EMU_INTS5, c0, c1, c2, c3, c4)
inline void tma_multicast_5d(unsigned short blocks, void *dst, const TensorMap *map, Mbar *bar, EMU_INTS5, EMU_HERE)
{
    int at[] = {c0, c1, c2, c3, c4};
    emu::tma_load(dst, map, (uint64_t *)bar, 5, at, nullptr, &blocks, here);
}
inline void tma_load_im2col_4d(void *dst, const TensorMap *map, Mbar *bar, int c, int w, int h, int n,
                               unsigned short offset_w, unsigned short offset_h, EMU_HERE)
{
    int at[] = {c, w, h, n};
    unsigned short offsets[] = {offset_w, offset_h};
    emu::tma_load(dst, map, (uint64_t *)bar, 4, at, offsets, nullptr, here);
}

// ------------------------------------------------------------------------------------------------------------ wgmma
typedef unsigned long long Operand;
inline Operand wgmma_k_major(const void *tile, EMU_HERE)
{ return 1ull << 62 | 64ull << 32 | 1ull << 16 | emu::shared_address(tile, here) >> 4; }
inline Operand wgmma_mn_major(const void *tile, unsigned leading, unsigned stride, EMU_HERE)
{
    return 1ull << 62 | (unsigned long long)(stride >> 4) << 32 | (unsigned long long)(leading >> 4) << 16 |
           emu::shared_address(tile, here) >> 4;
}
template <int N> constexpr bool emu_wgmma_width = N == 64 || N == 96 || N == 128 || N == 192 || N == 256;
template <bool A_MN = false, bool B_MN = false, int HALF>
void wgmma_bf16(float (&d)[HALF], Operand a, Operand b, bool accumulate, EMU_HERE)
{
    static_assert(emu_wgmma_width<2 * HALF>, "kernels/device/ptx.cuh has no wgmma of this width");
    emu::wgmma(false, 2 * HALF, d, a, b, accumulate, A_MN, B_MN, here);
}
template <int HALF> void wgmma_tf32(float (&d)[HALF], Operand a, Operand b, bool accumulate, EMU_HERE)
{
    static_assert(emu_wgmma_width<2 * HALF>, "kernels/device/ptx.cuh has no wgmma of this width");
    emu::wgmma(true, 2 * HALF, d, a, b, accumulate, false, false, here);
}
inline void wgmma_fence(EMU_HERE) { emu::wgmma_fence(here); }
inline void wgmma_commit(EMU_HERE) { emu::wgmma_commit(here); }
template <int PENDING> void wgmma_wait(EMU_HERE) { emu::wgmma_wait(PENDING, here); }
template <int COUNT> void registers_increase(EMU_HERE)
{ static_assert(COUNT >= 24 && COUNT <= 256 && COUNT % 8 == 0, ""); emu::registers_change(true, COUNT, here); }
template <int COUNT> void registers_decrease(EMU_HERE)
{ static_assert(COUNT >= 24 && COUNT <= 256 && COUNT % 8 == 0, ""); emu::registers_change(false, COUNT, here); }
