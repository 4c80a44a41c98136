/* samples.cu - small correct kernels, one for each thing the executor plays. test_executor.py runs them in every way and
   test_broken.py breaks them one line at a time. Sizes are free; nothing here is fast. */
#include <ptx.cuh>

/* y (M,N) = a (M,K) b (K,N), a tile of 16x16 a block, through static shared memory. */
extern "C" __global__ void __launch_bounds__(256) matmul(const float *__restrict__ a, const float *__restrict__ b, float *y,
                                                         int M, int N, int K)
{
    __shared__ float as[16][17], bs[16][17];
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    int m = blockIdx.y * 16 + row, n = blockIdx.x * 16 + column;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 16) {
        as[row][column] = m < M && k0 + column < K ? a[(long long)m * K + k0 + column] : 0;
        bs[row][column] = n < N && k0 + row < K ? b[(long long)(k0 + row) * N + n] : 0;
        __syncthreads();                                        // the tile is there
        for (int k = 0; k < 16; k++) sum += as[row][k] * bs[k][column];
        __syncthreads();                                        // the tile may go
    }
    if (m < M && n < N) y[(long long)m * N + n] = sum;
}

/* y (R) = sums of the rows of x (R,L), a block a row: shuffles within warps, dynamic shared memory between them. */
extern "C" __global__ void __launch_bounds__(128) row_sums(const float *x, float *y, int L)
{
    DYN_SHARED(raw);
    float *part = reinterpret_cast<float *>(raw);               // one a warp
    float sum = 0;
    for (int i = threadIdx.x; i < L; i += 128) sum += x[blockIdx.x * L + i];
    for (int k = 16; k > 0; k /= 2) sum += __shfl_down_sync(0xffffffff, sum, k);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();                                            // part is there
    if (threadIdx.x < 32) {
        sum = threadIdx.x < 4 ? part[threadIdx.x] : 0;
        for (int k = 2; k > 0; k /= 2) sum += __shfl_xor_sync(0xffffffff, sum, k);
        if (threadIdx.x == 0) y[blockIdx.x] = sum;
    }
}

/* y[i] = x[total-1-i] in each run of 32, four floats a load, a warp on its own. */
extern "C" __global__ void __launch_bounds__(64) reverse_runs(const float *x, float *y, int runs)
{
    __shared__ __align__(16) float turned[2][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, run = blockIdx.x * 2 + warp;
    if (run < runs && lane < 8) {
        float4 v = reinterpret_cast<const float4 *>(x + run * 32)[lane];
        *reinterpret_cast<float4 *>(&turned[warp][28 - 4 * lane]) = make_float4(v.w, v.z, v.y, v.x);
    }
    __syncwarp();                                               // the run is turned
    if (run < runs) y[run * 32 + lane] = turned[warp][lane];
}

/* counts (bins) += how often each value occurs in x (total). */
extern "C" __global__ void __launch_bounds__(64) histogram(const unsigned char *x, int *counts, int total, int bins)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total && x[i] < bins) atomicAdd(&counts[x[i]], 1);
}

/* y = x + 1 by two warps that hand over through named barriers: warp 0 fills, warp 1 empties, `rounds` times. */
extern "C" __global__ void __launch_bounds__(64) hand_over(const float *x, float *y, int rounds)
{
    __shared__ float box[32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int k = 0; k < rounds; k++) {
            if (k > 0) named_barrier_sync(2, 64);               // the box is empty
            box[lane] = x[k * 32 + lane];
            named_barrier_arrive(1, 64);
        }
    } else {
        for (int k = 0; k < rounds; k++) {
            named_barrier_sync(1, 64);                          // the box is full
            y[k * 32 + lane] = box[lane] + 1;
            if (k + 1 < rounds) named_barrier_arrive(2, 64);
        }
    }
}

/* y (M,N) = a (M,K) b (N,K)', bf16 in, fp32 out; K a multiple of 8. Tile 32x16x32 by two warps: cp.async into two stages of
   rows of 80 bytes (free of bank conflicts for ldmatrix), mma m16n8k16. */
struct Stage { unsigned short a[32][40], b[16][40]; };

__device__ __forceinline__ void fill(Stage &stage, const unsigned short *a, const unsigned short *b,
                                     int M, int N, int K, int k0)
{
    for (int i = threadIdx.x; i < 48 * 4; i += 64) {
        int row = i / 4, c = i % 4 * 8, m = blockIdx.y * 32 + row, n = blockIdx.x * 16 + row - 32;
        bool is_a = row < 32, inside = k0 + c < K && (is_a ? m < M : n < N);
        const unsigned short *src = is_a ? a + (long long)m * K : b + (long long)n * K;
        cp_async16(is_a ? &stage.a[row][c] : &stage.b[row - 32][c], inside ? src + k0 + c : a, inside);
    }
}
extern "C" __global__ void __launch_bounds__(64) matmul_bf16(const unsigned short *a, const unsigned short *b, float *y,
                                                             int M, int N, int K)
{
    DYN_SHARED(raw);
    Stage *stages = reinterpret_cast<Stage *>(raw);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tiles = (K + 31) / 32;
    float d[2][4] = {};
    fill(stages[0], a, b, M, N, K, 0);
    cp_async_commit();
    for (int t = 0; t < tiles; t++) {
        if (t + 1 < tiles) fill(stages[(t + 1) % 2], a, b, M, N, K, (t + 1) * 32);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();                                        // the stage is there
        const Stage &now = stages[t % 2];
        for (int k = 0; k < 32; k += 16) {
            unsigned fa[4], fb[4];
            ldmatrix(fa, &now.a[warp * 16 + lane % 16][k + lane / 16 * 8]);
            ldmatrix(fb, &now.b[lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
            unsigned left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
            mma_bf16(d[0], fa, left);
            mma_bf16(d[1], fa, right);
        }
        __syncthreads();                                        // the stage may go
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++) {
            int m = blockIdx.y * 32 + warp * 16 + lane / 4 + i / 2 * 8, n = blockIdx.x * 16 + j * 8 + lane % 4 * 2 + i % 2;
            if (m < M && n < N) y[(long long)m * N + n] = d[j][i];
        }
}

/* The same product for a Hopper GPU: tile 64x64x64, warp 4 loads by TMA into a ring of two stages, warps 0-3 multiply. */
struct Ring { unsigned char a[2][8192], b[2][8192]; Mbar full[2], empty[2]; };

extern "C" __global__ void __launch_bounds__(160) matmul_wgmma(const __grid_constant__ TensorMap a,
                                                               const __grid_constant__ TensorMap b,
                                                               float *y, int M, int N, int K)
{
    DYN_SHARED(raw);
    Ring &ring = *reinterpret_cast<Ring *>(raw);
    int tiles = (K + 63) / 64;
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; s++) mbar_init(&ring.full[s], 1), mbar_init(&ring.empty[s], 128);
        mbar_fence_init();
    }
    __syncthreads();                                            // the barriers are there
    if (threadIdx.x == 128)
        for (int t = 0; t < tiles; t++) {
            int s = t % 2, turn = t / 2;
            mbar_wait(&ring.empty[s], (turn & 1) ^ 1);
            mbar_arrive_expect_tx(&ring.full[s], 2 * 8192);
            tma_load_2d(ring.a[s], &a, &ring.full[s], t * 64, blockIdx.y * 64);
            tma_load_2d(ring.b[s], &b, &ring.full[s], t * 64, blockIdx.x * 64);
        }
    if (threadIdx.x < 128) {
        float d[32];
        for (int t = 0; t < tiles; t++) {
            int s = t % 2, turn = t / 2;
            mbar_wait(&ring.full[s], turn & 1);
            wgmma_fence();
            for (int step = 0; step < 4; step++)
                wgmma_bf16(d, wgmma_k_major(ring.a[s] + 32 * step), wgmma_k_major(ring.b[s] + 32 * step), t + step > 0);
            wgmma_commit();
            wgmma_wait<0>();
            mbar_arrive(&ring.empty[s]);
        }
        for (int i = 0; i < 32; i++) {
            int m = blockIdx.y * 64 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
            int n = blockIdx.x * 64 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
            if (m < M && n < N) y[(long long)m * N + n] = d[i];
        }
    }
}

/* And by clusters of two blocks, one below the other, which read the same 64 columns of b: each fetches half for both. */
struct Halves { unsigned char a[2][8192], b[2][8192]; Mbar full[2], empty[2]; };

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(256) matmul_cluster(const __grid_constant__ TensorMap a,
                                                                                           const __grid_constant__ TensorMap b,
                                                                                           float *y, int M, int N, int K)
{
    DYN_SHARED(raw);
    Halves &ring = *reinterpret_cast<Halves *>(raw);
    int tiles = (K + 63) / 64, rank = cluster_rank();
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; s++) mbar_init(&ring.full[s], 1), mbar_init(&ring.empty[s], 2 * 4);
        mbar_fence_init();
    }
    cluster_sync();                                             // the barriers of both blocks are there
    if (threadIdx.x == 128)
        for (int t = 0; t < tiles; t++) {
            int s = t % 2, turn = t / 2;
            mbar_wait(&ring.empty[s], (turn & 1) ^ 1);
            mbar_arrive_expect_tx(&ring.full[s], 2 * 8192);
            tma_load_5d(ring.a[s], &a, &ring.full[s], t * 64, blockIdx.x * 64, 0, 0, 0);
            tma_multicast_5d(3, ring.b[s] + rank * 4096, &b, &ring.full[s], t * 64, blockIdx.y * 64 + rank * 32, 0, 0, 0);
        }
    if (threadIdx.x < 128) {
        float d[32];
        for (int t = 0; t < tiles; t++) {
            int s = t % 2, turn = t / 2;
            mbar_wait(&ring.full[s], turn & 1);
            wgmma_fence();
            for (int step = 0; step < 4; step++)
                wgmma_bf16(d, wgmma_k_major(ring.a[s] + 32 * step), wgmma_k_major(ring.b[s] + 32 * step), t + step > 0);
            wgmma_commit();
            wgmma_wait<0>();
            if (threadIdx.x % 32 < 2) mbar_arrive_at(threadIdx.x % 32, &ring.empty[s]);
        }
        for (int i = 0; i < 32; i++) {
            int m = blockIdx.x * 64 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
            int n = blockIdx.y * 64 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
            if (m < M && n < N) y[(long long)m * N + n] = d[i];
        }
    }
    cluster_sync();                                             // neither block's memory is reached any more
}

/* y (64,N) = a (64,K) b (K,N) for a Hopper GPU, both in rows along m and n: b comes by TMA, a is turned into bf16 by the
   threads that multiply, into the swizzled place of each number. N and K multiples of 64. Two warpgroups, of which one
   thread asks for b, give registers away. */
struct Turned { unsigned char a[8192], b[8192]; Mbar full, empty; };

extern "C" __global__ void __launch_bounds__(384) matmul_turned(const float *a, const __grid_constant__ TensorMap b,
                                                                float *y, int N, int K)
{
    DYN_SHARED(raw);
    Turned &tile = *reinterpret_cast<Turned *>(raw);
    if (threadIdx.x == 0) {
        mbar_init(&tile.full, 1), mbar_init(&tile.empty, 128);
        mbar_fence_init();
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        registers_decrease<56>();
        if (threadIdx.x == 128)
            for (int t = 0; t < K / 64; t++) {
                mbar_wait(&tile.empty, (t & 1) ^ 1);
                mbar_arrive_expect_tx(&tile.full, 8192);
                tma_load_2d(tile.b, &b, &tile.full, blockIdx.x * 64, t * 64);
            }
    } else {
        registers_increase<256>();
        float d[32];
        for (int t = 0; t < K / 64; t++) {
            for (int i = threadIdx.x; i < 64 * 64; i += 128) {              // row k of 128 bytes along m
                int m = i / 64, k = i % 64, at = k * 128 + (m * 2 ^ k % 8 * 16);
                *reinterpret_cast<unsigned short *>(tile.a + at) = to_bf16(a[m * K + t * 64 + k]);
            }
            fence_async_proxy();                                            // wgmma sees what was written
            named_barrier_sync(1, 128);
            mbar_wait(&tile.full, t & 1);
            wgmma_fence();
            for (int k = 0; k < 64; k += 16)
                wgmma_bf16<true, true>(d, wgmma_mn_major(tile.a + 128 * k, 8192, 1024),
                                       wgmma_mn_major(tile.b + 128 * k, 8192, 1024), t + k > 0);
            wgmma_commit();
            wgmma_wait<0>();
            mbar_arrive(&tile.empty);
            named_barrier_sync(1, 128);
        }
        for (int i = 0; i < 32; i++) {
            int m = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
            y[m * N + blockIdx.x * 64 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = d[i];
        }
    }
}
