/* conv2d_wgmma_maxpool.cu - level 8 of the ladder in conv2d.cu: what conv2d_maxpool.cu is, for a step of training on a Hopper
   GPU

   y[f,i,j,n] = max of v over the POOL x POOL outputs (p,q) from (i*STRIDE - pool_P, j*STRIDE - pool_P) on that there are
   v          = max(b[f] + sum over c,r,s   w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n], 0), rounded to bf16
   switches[f,i,j,n] = POOL*(p's place in the window) + q's, of the first maximum by rows

   x (C,H,W,N), N a multiple of 8   w (C,K,K,F)   bf16, as their 16 bits   b (F,) float32   y (F,height,width,images) bf16 and
   switches, uint8, of `images` of them

   F is a multiple of BN, K is 8 at most, and CHUNK = 8*K*C, rounded up to sixteens, 192.

   work      A consumer, one warpgroup, has a row of the pool and 64 images, CONSUMERS rows that are neighbours a block. It goes
             from column to column of outputs: the sums of 64 images by BN filters of each of the POOL outputs below each other,
             of which it keeps the highest; and of these over the columns of a window. Of x TMA brings what they all see, row by
             row of each map 8 neighbours, which are 8 terms of the sum. The filters, in the same order, stay in shared memory.
             What is higher is asked of whole numbers: 16 bits of v, which is not below 0, over 255 less its place
   traffic   2*C*H*W*N + 3*F*height*width*N bytes; from the L2 cache 1024*C*(K + S*(STRIDE*(CONSUMERS-1) + POOL-1)) a column
   order     r, c, s, in sixteens, whatever the batch. The eighth neighbour counts times 0: an infinity there makes a NaN
   spec      zfcore/ops/conv2d_maxpool.py: conv2d_maxpool

   POOL, STRIDE and the macros of a tile are always given. It has never run on hardware. */
#include <ptx.cuh>
#include <conv.cuh>

#define CONSUMERS (BM / 64)
#define THREADS (128 * (CONSUMERS + 1))
#define ATOMS 46                      // of x in a stage, 8 pixels each; the last that are read are zeros
#define FIRST 255                     // less the place in a window, so that the first of equals is the highest
static_assert(POOL == STRIDE + 1 && CHUNK % 16 == 0 && CHUNK <= 192, "");

struct Ring {
    unsigned char x[STAGES][ATOMS][1024];
    unsigned char w[3][BN * 128];     // 64 terms each
    float b[BN];
    Mbar full[STAGES], empty[STAGES];
};
static_assert(sizeof(Ring) <= SHARED, "fits what a launch asks for");

struct Work {
    Conv conv;
    int height, width, P, images;     // of the pool
    int f0;

    // Columns j of the pool, of one strip of CONSUMERS rows of it, for 64 images.
    struct Run { int n, i, j, end; };

    __device__ __forceinline__ int strips() const { return (height + CONSUMERS - 1) / CONSUMERS; }
    __device__ __forceinline__ long long part(int block, int blocks) const
    {
        return (long long)(conv.N + 63) / 64 * strips() * width * block / blocks;
    }
    __device__ __forceinline__ Run run(int at, int end) const
    {
        int strip = at / width, j = at % width;
        return {strip / strips() * 64, strip % strips() * CONSUMERS, j, min(j + end - at, width)};
    }
    __device__ __forceinline__ int columns(const Run &run) const { return (run.end - run.j - 1) * STRIDE + POOL; }
    __device__ __forceinline__ int rows() const { return conv.K + conv.S * (STRIDE * (CONSUMERS - 1) + POOL - 1); }     // of x
};

// The filters as the second factor: 8 terms, of a row and a map, are 16 bytes, with the swizzle of wgmma.
__device__ __forceinline__ void place_filters(const Work &work, const unsigned short *w, const float *b, Ring &ring)
{
    const int C = work.conv.C, K = work.conv.K;
    for (int i = threadIdx.x; i < 24 * BN; i += THREADS) {
        int atom = i / BN, f = i % BN, r = atom / C, c = atom % C;
        unsigned two[4] = {0, 0, 0, 0};
        for (int s = 0; s < K && r < K; s++)
            two[s / 2] |= (unsigned)w[(long long)((c * K + r) * K + s) * work.conv.F + work.f0 + f] << s % 2 * 16;
        *reinterpret_cast<uint4 *>(ring.w[atom / 8] + 128 * f + 16 * (atom % 8 ^ f % 8))
            = make_uint4(two[0], two[1], two[2], two[3]);
    }
    for (int f = threadIdx.x; f < BN; f += THREADS) ring.b[f] = b ? b[work.f0 + f] : 0;
    for (int s = 0; s < STAGES; s++)
        for (int i = threadIdx.x; i < 256; i += THREADS)
            reinterpret_cast<unsigned *>(ring.x[s][work.rows() * C])[i] = 0;
}

// best = the higher of it and v, for all sums of an output at row r of its windows.
__device__ __forceinline__ void fold(unsigned (&best)[BN / 2], const float (&d)[BN / 2], const Ring &ring, int r)
{
#pragma unroll
    for (int i = 0; i < BN / 2; i += 2) {
        const float *b = ring.b + i / 4 * 8 + threadIdx.x % 4 * 2;
        float v[2] = {d[i] + b[0], d[i + 1] + b[1]};
        for (int k = 0; k < 2; k++) v[k] = (v[k] < 0 ? 0 : v[k]) + 0.0f;    // NaN stays NaN; -0 becomes 0
        unsigned two = to_bf16x2(v[0], v[1]), place = FIRST - r * POOL;
        best[i] = max(best[i], two << 16 | place), best[i + 1] = max(best[i + 1], (two & 0xffff0000u) | place);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) conv2d_wgmma_maxpool(
    const __grid_constant__ TensorMap x, const unsigned short *w, const float *b, unsigned short *y, unsigned char *switches,
    Conv conv, int pool_P, int height, int width, int images, int biased)
{
    DYN_SHARED(raw);
    Ring &ring = *reinterpret_cast<Ring *>(raw);
    Work work = {.conv = conv, .height = height, .width = width, .P = pool_P, .images = images, .f0 = (int)blockIdx.x * BN};
    const int first = work.part(blockIdx.y, gridDim.y), end = work.part(blockIdx.y + 1, gridDim.y), row = threadIdx.x / 128;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) mbar_init(&ring.full[s], 1), mbar_init(&ring.empty[s], 4 * CONSUMERS);
        mbar_fence_init();
    }
    place_filters(work, w, biased ? b : nullptr, ring);
    fence_async_proxy();
    __syncthreads();                  // barriers, filters and zeros are there
    int turn = 0;
    if (row == CONSUMERS) {
        registers_decrease<72>();
        if (threadIdx.x % 128 != 0) return;
        for (int at = first; at < end;) {
            Work::Run run = work.run(at, end);
            for (int column = 0; column < work.columns(run); column++, turn++) {
                Mbar *full = &ring.full[turn % STAGES];
                mbar_wait(&ring.empty[turn % STAGES], turn / STAGES % 2 ^ 1);
                mbar_arrive_expect_tx(full, work.rows() * conv.C * 1024);
                int h = (run.i * STRIDE - pool_P) * conv.S - conv.P, v = (run.j * STRIDE - pool_P + column) * conv.S - conv.P;
#pragma unroll 1
                for (int r = 0; r < work.rows(); r++)
                    tma_load_4d(ring.x[turn % STAGES][r * conv.C], &x, full, run.n, v, h + r, 0);
            }
            at += run.end - run.j;
        }
        return;
    }
    registers_increase<216>();
    for (int at = first; at < end;) {
        Work::Run run = work.run(at, end);
        unsigned window[BN / 2];      // the highest so far, of the window that began last
        const int i = run.i + row, p = i * STRIDE - pool_P;
        for (int column = 0; column < work.columns(run); column++, turn++) {
            unsigned highest[BN / 2];                      // of this column
#pragma unroll
            for (int k = 0; k < BN / 2; k++) highest[k] = 0;
            const int s = column % STRIDE, q = run.j * STRIDE - pool_P + column;
            mbar_wait(&ring.full[turn % STAGES], turn / STAGES % 2);
#pragma unroll
            for (int r = 0; r < POOL; r++) {
                float d[BN / 2];
                const unsigned char(*seen)[1024] = ring.x[turn % STAGES] + (row * STRIDE + r) * conv.S * conv.C;
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < CHUNK; k += 16)
                    wgmma_bf16<true, false>(d, wgmma_mn_major(seen[k / 8], 1024, 1024),
                                            wgmma_k_major(ring.w[k / 64] + 2 * (k % 64)), k > 0);
                wgmma_commit();
                wgmma_wait<0>();
                if (r == POOL - 1 && threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[turn % STAGES]);
                if ((unsigned)(p + r) < (unsigned)conv.Ho && (unsigned)q < (unsigned)conv.Wo) fold(highest, d, ring, r);
            }
            const bool last = s == 0 && column > 0, there = (unsigned)q < (unsigned)conv.Wo;
            const int j = run.j + column / STRIDE - 1;     // whose last column this is, the next one's first
            const int f = work.f0 + threadIdx.x % 4 * 2, n = run.n + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
            const long long map = (long long)height * width * images;
            const long long to = f * map + ((long long)i * width + j) * images + n;
#pragma unroll
            for (int k = 0; k < BN / 2; k++) {
                unsigned best = max(window[k], highest[k] - (there ? last ? STRIDE : s : 0));
                window[k] = s == 0 ? highest[k] : best;
                int further = k / 2 % 2 * 8;               // of the images
                if (!last || i >= height || n + further >= images) continue;
                y[to + (k / 4 * 8 + k % 2) * map + further] = best >> 16;
                switches[to + (k / 4 * 8 + k % 2) * map + further] = FIRST - (best & 255);
            }
        }
        at += run.end - run.j;
    }
}
