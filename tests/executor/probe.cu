/* probe.cu - one tiny kernel for each primitive of ptx.cuh whose layout or rounding the executor had to take from the
   text of the PTX ISA. probe.py runs them here and on a GPU; what the hardware answered is what the executor is then held to.
   Every kernel is one block, or one cluster of two, and writes y completely; numbers are small integers, so that sums are
   exact. */
#include <ptx.cuh>

extern "C" __global__ void conversions(const float *x, unsigned *y, int total)
{
    for (int i = threadIdx.x; i < total; i += blockDim.x) {
        y[i] = to_bf16(x[i]);
        y[total + i] = to_bf16x2(x[i], x[(i + 1) % total]);
        y[2 * total + i] = to_tf32(x[i]);
        y[3 * total + i] = __float_as_uint(from_bf16(__float_as_uint(x[i]) >> 16));
    }
}

extern "C" __global__ void bytes(const unsigned *x, unsigned *y)
{
    unsigned v = x[threadIdx.x];
    unsigned of[4] = {signs_of_bytes<0>(v), signs_of_bytes<1>(v), signs_of_bytes<2>(v), __float_as_uint(infinity())};
    for (int k = 0; k < 4; k++) y[k * 32 + threadIdx.x] = of[k] ^ v;
}

/* A warp writes, another reads, `rounds` times, and neither is ahead of the other: y is x, one further along in each round, with
   the lanes turned about. */
extern "C" __global__ void __launch_bounds__(64) by_named_barriers(const unsigned *x, unsigned *y, int rounds)
{
    __shared__ unsigned s[32];
    int lane = threadIdx.x % 32;
    for (int k = 0; k < rounds; k++)
        if (threadIdx.x < 32) {
            if (k) named_barrier_sync(2, 64);
            s[lane] = x[lane + k];
            named_barrier_arrive(1, 64);
        } else {
            named_barrier_sync(1, 64);
            y[k * 32 + lane] = s[31 - lane];
            if (k + 1 < rounds) named_barrier_arrive(2, 64);
        }
}

extern "C" __global__ void shuffles(const unsigned *x, unsigned *y)
{
    int lane = threadIdx.x;
    unsigned v = x[lane];
    y[lane] = __shfl_sync(~0u, v, lane * 3 + 1, 16);
    y[32 + lane] = __shfl_up_sync(~0u, v, 3, 8);
    y[64 + lane] = __shfl_down_sync(~0u, v, 5, 16);
    y[96 + lane] = __shfl_xor_sync(~0u, v, 9, 8);
    y[128 + lane] = __shfl_xor_sync(~0u, v, 21);
    y[160 + lane] = __ballot_sync(~0u, v & 1);
}

extern "C" __global__ void copies(const unsigned *x, unsigned *y)           // every third copy is a zero fill
{
    __shared__ __align__(16) unsigned s[32 * 7];
    int i = threadIdx.x;
    cp_async4(&s[i], &x[i], i % 3 != 0);
    cp_async8(&s[32 + 2 * i], &x[32 + 2 * i], i % 3 != 1);
    cp_async16(&s[96 + 4 * i], &x[96 + 4 * i], i % 3 != 2);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    for (int k = i; k < 32 * 7; k += 32) y[k] = s[k];
}

extern "C" __global__ void fragments(const unsigned *x, unsigned *y)   // ldmatrix, rows of 16 bytes in a scrambled order
{
    __shared__ __align__(16) unsigned s[128];
    int lane = threadIdx.x;
    for (int k = lane; k < 128; k += 32) s[k] = x[k];
    __syncwarp();
    const void *row = &s[lane * 5 % 32 * 4];
    unsigned r1[1], r2[2], r4[4], t1[1], t2[2], t4[4];
    ldmatrix(r1, row), ldmatrix(r2, row), ldmatrix(r4, row);
    ldmatrix_trans(t1, row), ldmatrix_trans(t2, row), ldmatrix_trans(t4, row);
    unsigned all[14] = {r1[0], r2[0], r2[1], r4[0], r4[1], r4[2], r4[3], t1[0], t2[0], t2[1], t4[0], t4[1], t4[2], t4[3]};
    for (int k = 0; k < 14; k++) y[k * 32 + lane] = all[k];
}

/* x: registers a[4], b[2], d[4] of each lane, as 10 rows of 32 */
extern "C" __global__ void product_tf32(const unsigned *x, float *y)
{
    unsigned a[4], b[2];
    float d[4];
    for (int k = 0; k < 4; k++) a[k] = x[k * 32 + threadIdx.x], d[k] = __uint_as_float(x[(6 + k) * 32 + threadIdx.x]);
    for (int k = 0; k < 2; k++) b[k] = x[(4 + k) * 32 + threadIdx.x];
    mma_tf32(d, a, b);
    for (int k = 0; k < 4; k++) y[k * 32 + threadIdx.x] = d[k];
}
extern "C" __global__ void product_bf16(const unsigned *x, float *y)
{
    unsigned a[4], b[2];
    float d[4];
    for (int k = 0; k < 4; k++) a[k] = x[k * 32 + threadIdx.x], d[k] = __uint_as_float(x[(6 + k) * 32 + threadIdx.x]);
    for (int k = 0; k < 2; k++) b[k] = x[(4 + k) * 32 + threadIdx.x];
    mma_bf16(d, a, b);
    for (int k = 0; k < 4; k++) y[k * 32 + threadIdx.x] = d[k];
}

#ifdef HOPPER
/* One TMA load of `words` into shared memory, which is then written out as it lies. RANK 2..5, or 0 for im2col. */
#ifndef RANK
#define RANK 2
#endif
extern "C" __global__ void tile(const __grid_constant__ TensorMap map, unsigned *y, int words,
                                int c0, int c1, int c2, int c3, int c4, int offset_w, int offset_h)
{
    DYN_SHARED(raw);
    Mbar *bar = reinterpret_cast<Mbar *>(raw + words * 4);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_fence_init();
        mbar_arrive_expect_tx(bar, words * 4);
#if RANK == 0
        tma_load_im2col_4d(raw, &map, bar, c0, c1, c2, c3, offset_w, offset_h);
#elif RANK == 2
        tma_load_2d(raw, &map, bar, c0, c1);
#elif RANK == 3
        tma_load_3d(raw, &map, bar, c0, c1, c2);
#elif RANK == 4
        tma_load_4d(raw, &map, bar, c0, c1, c2, c3);
#else
        tma_load_5d(raw, &map, bar, c0, c1, c2, c3, c4);
#endif
    }
    __syncthreads();
    mbar_wait(bar, 0);
    for (int k = threadIdx.x; k < words; k += blockDim.x) y[k] = reinterpret_cast<unsigned *>(raw)[k];
}

/* The same, each lane arriving at an mbarrier. */
extern "C" __global__ void __launch_bounds__(64) by_mbarriers(const unsigned *x, unsigned *y, int rounds)
{
    __shared__ unsigned s[32];
    __shared__ Mbar full, empty;
    int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbar_init(&full, 32), mbar_init(&empty, 32);
        mbar_fence_init();
    }
    __syncthreads();
    for (int k = 0; k < rounds; k++)
        if (threadIdx.x < 32) {
            mbar_wait(&empty, k % 2 ^ 1);                                   // at once in the first round
            s[lane] = x[lane + k];
            mbar_arrive(&full);
        } else {
            mbar_wait(&full, k % 2);
            y[k * 32 + lane] = s[31 - lane];
            mbar_arrive(&empty);
        }
}

/* Two blocks of a cluster load half a box each, into its place in those blocks whose bits are set in the loader's mask; then
   all threads of both arrive at both blocks' other mbarrier. y: what lies in each block's shared memory, and its number. */
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(128) multicast(
    const __grid_constant__ TensorMap map, unsigned *y, int words, int rows, int mask0, int mask1)
{
    DYN_SHARED(raw);
    unsigned *tile = reinterpret_cast<unsigned *>(raw);
    Mbar *full = reinterpret_cast<Mbar *>(raw + words * 4), *all = full + 1;
    int rank = cluster_rank(), mine = rank ? mask1 : mask0;
    for (int k = threadIdx.x; k < words; k += 128) tile[k] = k;
    fence_async_proxy();
    if (threadIdx.x == 0) {
        mbar_init(full, 1), mbar_init(all, 2 * 128);
        mbar_fence_init();
        mbar_arrive_expect_tx(full, ((mask0 >> rank & 1) + (mask1 >> rank & 1)) * words * 2);
    }
    cluster_sync();
    if (threadIdx.x == 0 && mine) tma_multicast_5d(mine, raw + rank * words * 2, &map, full, 0, rank * rows, 0, 0, 0);
    mbar_wait(full, 0);
    mbar_arrive_at(0, all), mbar_arrive_at(1, all);
    mbar_wait(all, 0);
    for (int k = threadIdx.x; k < words; k += 128) y[blockIdx.x * (words + 1) + k] = tile[k];
    if (threadIdx.x == 0) y[blockIdx.x * (words + 1) + words] = rank;
    cluster_sync();
}

/* y: d (64,WIDTH) as the 128 threads hold it, WIDTH/2 rows of 128, after `steps` products of the operands that lie at 0
   and at b_at in shared memory, whose content is x. A step is 32 bytes on along k, or 2048 where the operand is MN-major. */
#ifndef WIDTH
#define WIDTH 64
#define A_IS_MN false
#define B_IS_MN false
#endif
extern "C" __global__ void __launch_bounds__(128) warpgroup(const unsigned *x, float *y, int words,
                                                            int b_at, int steps, int leading)
{
    DYN_SHARED(raw);
    for (int k = threadIdx.x; k < words; k += 128) reinterpret_cast<unsigned *>(raw)[k] = x[k];
    fence_async_proxy();
    __syncthreads();
    float d[WIDTH / 2];
    for (int i = 0; i < WIDTH / 2; i++) d[i] = 1000;
    wgmma_fence();
    for (int step = 0; step < steps; step++) {
#ifdef TF32
        wgmma_tf32(d, wgmma_k_major(raw + 32 * step), wgmma_k_major(raw + b_at + 32 * step), true);
#else
        Operand a = A_IS_MN ? wgmma_mn_major(raw + 2048 * step, leading, 1024) : wgmma_k_major(raw + 32 * step);
        Operand b = B_IS_MN ? wgmma_mn_major(raw + b_at + 2048 * step, leading, 1024) : wgmma_k_major(raw + b_at + 32 * step);
        wgmma_bf16<A_IS_MN, B_IS_MN>(d, a, b, true);
#endif
    }
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < WIDTH / 2; i++) y[i * 128 + threadIdx.x] = d[i];
}

/* d (64,64) after `rounds` products of tiles that threads write anew before each: what wgmma reads of shared memory is what was
   written before the fence, and not what the round before left. */
extern "C" __global__ void __launch_bounds__(128) rewritten(const unsigned *x, float *y, int words, int rounds)
{
    DYN_SHARED(raw);
    float d[32];
    for (int i = 0; i < 32; i++) d[i] = 1000;
    for (int round = 0; round < rounds; round++) {
        for (int k = threadIdx.x; k < words; k += 128) reinterpret_cast<unsigned *>(raw)[k] = x[(k + 37 * round) % words];
        fence_async_proxy();
        __syncthreads();
        wgmma_fence();
        for (int step = 0; step < 4; step++)
            wgmma_bf16(d, wgmma_k_major(raw + 32 * step), wgmma_k_major(raw + 8192 + 32 * step), true);
        wgmma_commit();
        wgmma_wait<0>();
        __syncthreads();
    }
    for (int i = 0; i < 32; i++) y[i * 128 + threadIdx.x] = d[i];
}

/* Two warpgroups of three take the registers that the last gives away, and hold HELD numbers each, all needed until the end. */
#define HELD 180
extern "C" __global__ void __launch_bounds__(384, 1) registers(const float *x, float *y)
{
    if (threadIdx.x / 128 == 2) {
        registers_decrease<56>();
        y[threadIdx.x] = x[threadIdx.x % HELD];
    } else {
        registers_increase<224>();
        float held[HELD], sum = 0;
#pragma unroll
        for (int k = 0; k < HELD; k++) held[k] = x[k] + threadIdx.x;
        for (int round = 0; round < 3; round++)
#pragma unroll
            for (int k = 0; k < HELD; k++) held[k] += held[(k + 7) % HELD];
#pragma unroll
        for (int k = 0; k < HELD; k++) sum += held[k] * (k % 3);
        y[threadIdx.x] = sum;
    }
}
#endif
