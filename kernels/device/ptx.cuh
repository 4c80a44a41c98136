/* ptx.cuh - every PTX primitive the kernels use, one small inline function each, after the PTX ISA.

The CPU executor (tests/executor) has its own ptx.cuh with the same names and signatures, so a kernel says
`#include <ptx.cuh>`, holds no asm itself, and is compiled unchanged for both. cp.async, ldmatrix, mma need sm_80;
mbarriers and TMA sm_90; wgmma and the register counts sm_90a. A function that is not used costs nothing. */
#pragma once

#define PTX_INLINE __device__ __forceinline__

// Dynamic shared memory: DYN_SHARED(raw); Tile &tile = *reinterpret_cast<Tile *>(raw);
// 1024 bytes are the period of the 128-byte swizzle, in which TMA writes and wgmma reads.
#define DYN_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

PTX_INLINE float infinity() { return __int_as_float(0x7f800000); }

// --------------------------------------------------------------------------------------------------- number formats
// bf16 is kept as its 16 bits, tf32 as a float's 32 bits of which the low 13 are zero.
PTX_INLINE unsigned short to_bf16(float x)                         // to nearest, ties to even
{
    unsigned short r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
PTX_INLINE unsigned to_bf16x2(float low, float high)               // low in bits 0-15
{
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
PTX_INLINE float from_bf16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
PTX_INLINE unsigned to_tf32(float x)                               // to nearest; ties to even, before sm_90 away from zero
{
    unsigned r;
#if __CUDA_ARCH__ >= 900
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
#else
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
#endif
    return r;
}

// The highest bit of bytes FIRST and FIRST + 1 of x, sixteen times each.
template <int FIRST> PTX_INLINE unsigned signs_of_bytes(unsigned x)
{
    unsigned r;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(r) : "r"(x), "n"(0x9988 + 0x1111 * FIRST));
    return r;
}

PTX_INLINE unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

// ---------------------------------------------------------------------------------------------- asynchronous copies
// Global to shared memory, 4, 8 or 16 aligned bytes; zeros where `pred` is false, and then `src` is not read.
PTX_INLINE void cp_async4(void *dst, const void *src, bool pred = true)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(shared_address(dst)), "l"(src), "r"(pred ? 4 : 0) : "memory");
}
PTX_INLINE void cp_async8(void *dst, const void *src, bool pred = true)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" :: "r"(shared_address(dst)), "l"(src), "r"(pred ? 8 : 0) : "memory");
}
PTX_INLINE void cp_async16(void *dst, const void *src, bool pred = true)           // past L1
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(shared_address(dst)), "l"(src), "r"(pred ? 16 : 0) : "memory");
}
PTX_INLINE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most PENDING of this thread's newest groups are in flight. Other threads see the rest after a barrier.
template <int PENDING> PTX_INLINE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory"); }

// --------------------------------------------------------------------------------------------------- ldmatrix, mma
// COUNT = 1, 2 or 4 matrices of 8x8 16-bit numbers; lanes 8m..8m+7 give the addresses of the rows of matrix m. Lane l gets
// row l/4, columns 2(l%4) and 2(l%4)+1 of each; of the transposed matrix with _trans.
PTX_INLINE void ldmatrix(unsigned (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(shared_address(row)) : "memory");
}
PTX_INLINE void ldmatrix(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
PTX_INLINE void ldmatrix(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
PTX_INLINE void ldmatrix_trans(unsigned (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(shared_address(row)) : "memory");
}
PTX_INLINE void ldmatrix_trans(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
PTX_INLINE void ldmatrix_trans(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d (16,8) += a (16,8) b (8,8). With g = lane/4, t = lane%4: a = (g,t) (g+8,t) (g,t+4) (g+8,t+4); b = (t,g) (t+4,g);
// d = (g,2t) (g,2t+1) (g+8,2t) (g+8,2t+1).
PTX_INLINE void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d (16,8) += a (16,16) b (16,8), two bf16 a register: a = (g,2t..) (g+8,2t..) (g,2t+8..) (g+8,2t+8..); b = (2t..,g) (2t+8..,g).
PTX_INLINE void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// --------------------------------------------------------------------------------------------------------- barriers
// Barrier `id` 1..15 of `threads` threads in whole warps, of which some may arrive without waiting.
PTX_INLINE void named_barrier_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(threads) : "memory"); }
PTX_INLINE void named_barrier_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory"); }

// Blocks of a cluster, __cluster_dims__(blocks, 1, 1), run at the same time. All their threads meet in cluster_sync: before
// another block's mbarriers are used, which are then set up, and before one leaves whose shared memory another may still reach.
PTX_INLINE unsigned cluster_rank()                                 // this block's number in its cluster
{
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
PTX_INLINE void cluster_sync() { asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory"); }

// An mbarrier counts arrivals and bytes. A phase ends when `count` threads have arrived and all expected bytes have come;
// then the next begins. Phases have parities 0, 1, 0, ...; mbar_wait returns once the phase of that parity has ended, so
// waiting for parity 1 on a fresh mbarrier returns at once.
typedef unsigned long long Mbar;
PTX_INLINE void mbar_init(Mbar *bar, unsigned count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(bar)), "r"(count) : "memory");
}
PTX_INLINE void mbar_fence_init()                                  // after the inits, before others (TMA too) use them
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
PTX_INLINE void mbar_arrive(Mbar *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(bar)) : "memory");
}
PTX_INLINE void mbar_arrive_expect_tx(Mbar *bar, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(shared_address(bar)), "r"(bytes) : "memory");
}
PTX_INLINE void mbar_wait(Mbar *bar, unsigned parity)
{
    asm volatile("{\n.reg .pred done;\nAGAIN:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra AGAIN;\n}"
                 :: "r"(shared_address(bar)), "r"(parity) : "memory");
}
// The same at the mbarrier of the cluster's block `rank` that lies where `bar` does in this one. What the thread has read
// before it is read; that what it has written is seen there, it does not say.
PTX_INLINE void mbar_arrive_at(unsigned rank, Mbar *bar)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" :: "r"(shared_address(bar)), "r"(rank) : "memory");
}
// Ordinary writes to shared memory before it are seen by TMA and wgmma after it; each writing thread, before the barrier.
PTX_INLINE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// -------------------------------------------------------------------------------------------------------------- TMA
// The box of `map` that starts at coordinates c0 (contiguous), c1, ... goes to `dst`, zeros where it leaves the tensor; its
// bytes are counted by `bar`. One thread calls. The map is a kernel parameter: const __grid_constant__ TensorMap map.
struct __align__(64) TensorMap { unsigned long long opaque[16]; };     // CUtensorMap
PTX_INLINE void tma_load_2d(void *dst, const TensorMap *map, Mbar *bar, int c0, int c1)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4}], [%2];"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1) : "memory");
}
PTX_INLINE void tma_load_3d(void *dst, const TensorMap *map, Mbar *bar, int c0, int c1, int c2)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4,%5}], [%2];"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2) : "memory");
}
PTX_INLINE void tma_load_4d(void *dst, const TensorMap *map, Mbar *bar, int c0, int c1, int c2, int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4,%5,%6}], [%2];"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3) : "memory");
}
PTX_INLINE void tma_load_5d(void *dst, const TensorMap *map, Mbar *bar, int c0, int c1, int c2, int c3, int c4)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4,%5,%6,%7}], [%2];"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4) : "memory");
}
// The same to each block of the cluster whose bit is set in `blocks`, to the place where `dst` lies in this one; there the
// mbarrier at the place of `bar` counts the bytes. They cross from the L2 cache once.
PTX_INLINE void tma_multicast_5d(unsigned short blocks, void *dst, const TensorMap *map, Mbar *bar,
                                 int c0, int c1, int c2, int c3, int c4)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3,%4,%5,%6,%7}], [%2], %8;"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4),
                    "h"(blocks) : "memory");
}
// im2col, tensor (C,W,H,N): from pixel (w,h,n) on, as many pixels as the map says, walking w, h, n inside the box of its
// corners; of each, the channels from c on at (w + offset_w, h + offset_h).
PTX_INLINE void tma_load_im2col_4d(void *dst, const TensorMap *map, Mbar *bar, int c, int w, int h, int n,
                                   unsigned short offset_w, unsigned short offset_h)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4,%5,%6}], [%2], {%7,%8};"
                 :: "r"(shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(c), "r"(w), "r"(h), "r"(n),
                    "h"(offset_w), "h"(offset_h) : "memory");
}

// ------------------------------------------------------------------------------------------------------------ wgmma
// A warpgroup (4 warps, the first a multiple of 4) computes d (64,N) += a (64,K) b (K,N), K = 16 bf16 or 8 tf32 (32 bytes),
// both operands in shared memory with the 128-byte swizzle that TMA writes. Warp w holds rows 16w..16w+15; its lane l
// has d[i] = (l/4 + 8*(i/2%2), 8*(i/4) + 2*(l%4) + i%2).
//   wgmma_fence();  wgmma_bf16(d, a, b, accumulate); ...  wgmma_commit();  wgmma_wait<0>();
// Between the first wgmma and the wait, neither d nor the tiles may be touched. accumulate = false: d = a b.
typedef unsigned long long Operand;
// Rows (m or n) of 128 bytes along k, at a multiple of 1024 bytes; the next K is 32 bytes on: wgmma_k_major(tile + 32*step).
PTX_INLINE Operand wgmma_k_major(const void *tile)
{
    return 1ull << 62 | 64ull << 32 | 1ull << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}
// bf16 alone. Rows (k) of 64 elements along m or n, 8 rows an atom of 1024 bytes; `stride` bytes from an atom to the next
// along k, `leading` bytes to the next 64 elements along m or n.
PTX_INLINE Operand wgmma_mn_major(const void *tile, unsigned leading, unsigned stride)
{
    return 1ull << 62 | (unsigned long long)(stride >> 4) << 32 | (unsigned long long)(leading >> 4) << 16 |
           (shared_address(tile) & 0x3ffff) >> 4;
}
PTX_INLINE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX_INLINE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> PTX_INLINE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory"); }

// One asm statement must list every register of d. PTX_REGS_n: n operands; PTX_NAMES_n: their names %0..%n-1.
#define PTX_REGS_8(i) "+f"(d[i]), "+f"(d[i+1]), "+f"(d[i+2]), "+f"(d[i+3]), "+f"(d[i+4]), "+f"(d[i+5]), "+f"(d[i+6]), "+f"(d[i+7])
#define PTX_REGS_32(i) PTX_REGS_8(i), PTX_REGS_8(i+8), PTX_REGS_8(i+16), PTX_REGS_8(i+24)
#define PTX_REGS_48 PTX_REGS_32(0), PTX_REGS_8(32), PTX_REGS_8(40)
#define PTX_REGS_64 PTX_REGS_32(0), PTX_REGS_32(32)
#define PTX_REGS_96 PTX_REGS_64, PTX_REGS_32(64)
#define PTX_REGS_128 PTX_REGS_96, PTX_REGS_32(96)
#define PTX_NAMES_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define PTX_NAMES_48 PTX_NAMES_32 "," "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define PTX_NAMES_64 PTX_NAMES_48 "," "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define PTX_NAMES_96 PTX_NAMES_64 "," "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define PTX_NAMES_128 PTX_NAMES_96 "," "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define PTX_WGMMA(N, HALF, REGS, A, B, ACC, A_MN_, B_MN_)                                                            \
    template <bool A_MN = false, bool B_MN = false>                                                                 \
    PTX_INLINE void wgmma_bf16(float (&d)[HALF], Operand a, Operand b, bool accumulate)                             \
    {                                                                                                               \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ACC ", 0;\n"                                               \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 "                                    \
                     "{" PTX_NAMES_##HALF "}, " A ", " B ", p, 1, 1, " A_MN_ ", " B_MN_ ";\n}"                      \
                     : REGS : "l"(a), "l"(b), "r"((int)accumulate), "n"((int)A_MN), "n"((int)B_MN) : "memory");     \
    }                                                                                                               \
    PTX_INLINE void wgmma_tf32(float (&d)[HALF], Operand a, Operand b, bool accumulate)           /* K-major only */  \
    {                                                                                                               \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ACC ", 0;\n"                                               \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k8.f32.tf32.tf32 "                                     \
                     "{" PTX_NAMES_##HALF "}, " A ", " B ", p, 1, 1;\n}"                                            \
                     : REGS : "l"(a), "l"(b), "r"((int)accumulate) : "memory");                                     \
    }
PTX_WGMMA(64, 32, PTX_REGS_32(0), "%32", "%33", "%34", "%35", "%36")
PTX_WGMMA(96, 48, PTX_REGS_48, "%48", "%49", "%50", "%51", "%52")
PTX_WGMMA(128, 64, PTX_REGS_64, "%64", "%65", "%66", "%67", "%68")
PTX_WGMMA(192, 96, PTX_REGS_96, "%96", "%97", "%98", "%99", "%100")
PTX_WGMMA(256, 128, PTX_REGS_128, "%128", "%129", "%130", "%131", "%132")

// A whole warpgroup takes registers from, or gives them to, the block's pool: COUNT a multiple of 8 from 24 to 256.
template <int COUNT> PTX_INLINE void registers_increase() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT)); }
template <int COUNT> PTX_INLINE void registers_decrease() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT)); }
