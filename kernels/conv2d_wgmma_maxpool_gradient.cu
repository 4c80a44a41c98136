/* conv2d_wgmma_maxpool_gradient.cu - level 8 of the ladder in conv2d.cu: the filter gradient of a convolution of few maps under
   a max pool, for a Hopper GPU; and that of its bias

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * (sum of dy[f,i,j,n] over the windows whose switch names (p,q))
   db[f]       = sum over i,j,n   dy[f,i,j,n]

   x (C,H,W,N)   dy (F,height,width,N), 0 where the ReLU was off   bf16, as their 16 bits
   switches      like dy, uint8, as maxpool.cu has them
   partial       (slices, C*K*K + 1, F) float32: the rows of dw, and last db. Their sum over slices is the gradient

   N and F are multiples of 8, K is 8 at most, and a window's pixels, 8 a row of a map, are BM at most: the rows of the product.

   work      A step is STRIDE outputs below each other, of 64 images. Of x TMA brings what they see, row by row, of each map 8
             neighbours: 8 rows of the product, one atom of wgmma's. So the window of the next output begins whole atoms later.
             Of dy two warpgroups, the spreaders, read each window once for all outputs of a column, keep it for the column
             after, spread it over these and write what a map after the pool's way down would have there into shared memory.
             One warpgroup multiplies all rows by BN filters. Steps go along a row of the pool, so that windows are at hand
   traffic   3*F*height*width*N + 2*C*H*W*N bytes; from the L2 cache each window twice, and of x 1024*C*(K + (STRIDE-1)*S) a
             step
   order     by columns, rows, images in sixty-fours; slices are cut by shapes alone. No atomics
   spec      zfcore/ops/conv2d_maxpool.py: conv2d_maxpool_backward

   POOL, STRIDE, BM = 192 rows of dw and BN = 96 filters of a tile are always given. It has never run on hardware. */
#define LANES 8                       // images of a load
#include <stored.cuh>
#include <conv.cuh>

#define ATOMS 30                      // of x in a stage; what no window reaches is multiplied into rows that are not stored
#define SPREADERS 256                 // threads
#define THREADS (128 + SPREADERS)
#define PACKS (BN * 64 / LANES / SPREADERS)                                 // of a spreader in a step
#define REACH ((POOL + STRIDE - 1) / STRIDE)                                // windows that an output lies in, a way
#define NOWHERE 0xffffffff                                                  // no place in a window, of four images
static_assert(PRECISION == BF16 && REACH <= 2 && PACKS * SPREADERS * LANES == BN * 64, "");

struct Stage { unsigned char x[ATOMS][1024], dy[STRIDE][BN * 128]; };
struct Ring {
    Stage stages[STAGES];
    Mbar full[STAGES], empty[STAGES];
};
static_assert(sizeof(Ring) <= SHARED, "fits what a launch asks for");

struct Window {                       // of the pool, of one filter and LANES images
    Stored gradient;
    uint2 chosen;                     // LANES switches, 8 bits each: apart they would be as many registers
};

// A block's part of the sum: columns j of the pool in rows i, for each 64 images. Also those that begin behind the last window.
struct Work {
    const stored *dy;
    const unsigned char *switches;
    Conv conv;
    int height, width, P;             // of the pool
    int f0;

    struct Place { int n, i, j; };

    __device__ __forceinline__ int rows() const { return (conv.Ho - 1 + P) / STRIDE + 1; }
    __device__ __forceinline__ int columns() const { return (conv.Wo - 1 + P) / STRIDE + 1; }
    __device__ __forceinline__ long long part(int slice, int slices) const
    {
        return (long long)(conv.N + 63) / 64 * rows() * columns() * slice / slices;
    }
    __device__ __forceinline__ Place place(int at) const
    {
        return {at / columns() / rows() * 64, at / columns() % rows(), at % columns()};
    }
    __device__ __forceinline__ Window window(int f, int n, int i, int j) const
    {
        if (f0 + f >= conv.F || n >= conv.N || (unsigned)i >= (unsigned)height || (unsigned)j >= (unsigned)width)
            return {{0, 0, 0, 0}, {NOWHERE, NOWHERE}};
        long long from = (((long long)(f0 + f) * height + i) * width + j) * conv.N + n;
        return {*(const Stored *)(dy + from), *(const uint2 *)(switches + from)};
    }
};

// sum += what the window gives its pixel `place`. Of four bytes that are 0 where the switch is `place` each gets its highest
// bit set there, and no other; of two of them come 16 bits each, which leave of two gradients those that are meant.
__device__ __forceinline__ void spread(Pack &sum, const Window &window, unsigned place)
{
#pragma unroll
    for (int l = 0; l < LANES; l += 2) {
        unsigned differs = (l < 4 ? window.chosen.x : window.chosen.y) ^ place * 0x01010101;
        unsigned equal = ~((differs & 0x7f7f7f7f) + 0x7f7f7f7f | differs);
        unsigned two = window.gradient.pairs[l / 2] & (l % 4 ? signs_of_bytes<2>(equal) : signs_of_bytes<0>(equal));
        sum.v[l] += __uint_as_float(two << 16), sum.v[l + 1] += __uint_as_float(two & 0xffff0000);
    }
}

// Fills the stages, two warpgroups. `bias` gets the sums of dy over this thread's windows.
__device__ __forceinline__ void fill(const Work &work, const TensorMap *x, Ring &ring, int first, int end, float (&bias)[PACKS])
{
    const int thread = threadIdx.x - 128, image = thread % 8 * LANES, height_x = work.conv.K + (STRIDE - 1) * work.conv.S;
    Window now[PACKS][REACH], before[PACKS][REACH];
    for (int k = 0; k < PACKS; k++) bias[k] = 0;
    int turn = 0;
    for (int at = first; at < end; at++) {
        Work::Place to = work.place(at);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            int f = (thread + SPREADERS * k) / 8, n = to.n + image;
#pragma unroll
            for (int a = 0; a < REACH; a++) {
                before[k][a] = at > first && to.j > 0 ? now[k][a] : work.window(f, n, to.i - a, to.j - 1);
                now[k][a] = work.window(f, n, to.i - a, to.j);
            }
            Pack gradient = now[k][0].gradient;
            for (int l = 0; l < LANES; l++) bias[k] += gradient.v[l];
        }
#pragma unroll
        for (int s = 0; s < STRIDE; s++, turn++) {
            Stage &stage = ring.stages[turn % STAGES];
            Mbar *full = &ring.full[turn % STAGES];
            mbar_wait(&ring.empty[turn % STAGES], turn / STAGES % 2 ^ 1);
            if (thread == 0) {
                mbar_arrive_expect_tx(full, height_x * work.conv.C * 1024);
                int h = (STRIDE * to.i - work.P) * work.conv.S - work.conv.P;
                int v = (STRIDE * to.j + s - work.P) * work.conv.S - work.conv.P;
#pragma unroll 1
                for (int r = 0; r < height_x; r++) tma_load_4d(stage.x[r * work.conv.C], x, full, to.n, v, h + r, 0);
            }
#pragma unroll
            for (int r = 0; r < STRIDE; r++)
#pragma unroll
                for (int k = 0; k < PACKS; k++) {
                    Pack sum;
                    for (int l = 0; l < LANES; l++) sum.v[l] = 0;
#pragma unroll
                    for (int a = 0; a < REACH; a++)
#pragma unroll
                        for (int b = 0; b < REACH; b++)
                            if (r + a * STRIDE < POOL && s + b * STRIDE < POOL)
                                spread(sum, b ? before[k][a] : now[k][a], (r + a * STRIDE) * POOL + s + b * STRIDE);
                    int f = (thread + SPREADERS * k) / 8;
                    *(Stored *)(stage.dy[r] + 128 * f + 16 * (thread % 8 ^ f % 8)) = sum;       // with the swizzle of wgmma
                }
            fence_async_proxy();
            __syncwarp();
            if (threadIdx.x % 32 == 0) mbar_arrive(full);
        }
    }
}

// The sums of all rows over so many stages; one warpgroup.
__device__ __forceinline__ void multiply(Ring &ring, int stages, int hop, float (&d)[BM / 64][BN / 2])
{
#pragma unroll
    for (int m = 0; m < BM / 64; m++)
#pragma unroll
        for (int i = 0; i < BN / 2; i++) d[m][i] = 0;
    for (int turn = 0; turn < stages; turn++) {
        const Stage &stage = ring.stages[turn % STAGES];
        mbar_wait(&ring.full[turn % STAGES], turn / STAGES % 2);
        wgmma_fence();
#pragma unroll
        for (int r = 0; r < STRIDE; r++)
#pragma unroll
            for (int k = 0; k < 128; k += 32)
#pragma unroll
                for (int m = 0; m < BM / 64; m++)
                    wgmma_bf16(d[m], wgmma_k_major(stage.x[r * hop + 8 * m] + k), wgmma_k_major(stage.dy[r] + k), true);
        wgmma_commit();
        wgmma_wait<1>();
        if (turn > 0 && threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[(turn - 1) % STAGES]);
    }
    wgmma_wait<0>();
}

// blockIdx.x: tile of filters, blockIdx.y: slice. x is seen as (C,H,W,N)
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv2d_wgmma_maxpool_gradient(
    const __grid_constant__ TensorMap x, const stored *dy, const unsigned char *switches, float *partial,
    Conv conv, int height, int width, int pool_P)
{
    DYN_SHARED(raw);
    Ring &ring = *reinterpret_cast<Ring *>(raw);
    Work work = {
        .dy = dy, .switches = switches,
        .conv = conv,
        .height = height, .width = width, .P = pool_P,
        .f0 = (int)blockIdx.x * BN};
    const int first = work.part(blockIdx.y, gridDim.y), end = work.part(blockIdx.y + 1, gridDim.y), K = conv.K;
    float *mine = partial + (long long)blockIdx.y * (conv.C * K * K + 1) * conv.F + work.f0;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) mbar_init(&ring.full[s], SPREADERS / 32 + 1), mbar_init(&ring.empty[s], 4);
        mbar_fence_init();
    }
    __syncthreads();                  // the barriers are there
    if (threadIdx.x >= 128) {
        registers_decrease<152>();
        float bias[PACKS];
        fill(work, &x, ring, first, end, bias);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            for (int lane = 1; lane < 8; lane *= 2) bias[k] += __shfl_xor_sync(0xffffffff, bias[k], lane);
            int f = (threadIdx.x - 128 + SPREADERS * k) / 8;
            if (threadIdx.x % 8 == 0 && work.f0 + f < conv.F) mine[(long long)conv.C * K * K * conv.F + f] = bias[k];
        }
    } else {
        registers_increase<200>();               // the rest of 3 * 168, which a launch of 384 threads gets
        float d[BM / 64][BN / 2];
        multiply(ring, (end - first) * STRIDE, conv.S * conv.C, d);
#pragma unroll
        for (int m = 0; m < BM / 64; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int atom = 8 * m + threadIdx.x / 32 * 2 + half, r = atom / conv.C, c = atom % conv.C, s = threadIdx.x % 32 / 4;
                if (r >= K || s >= K) continue;
                float *row = mine + (long long)((c * K + r) * K + s) * conv.F;
#pragma unroll
                for (int i = 2 * half; i < BN / 2; i += 4) {
                    int f = i / 4 * 8 + threadIdx.x % 4 * 2;
                    if (work.f0 + f < conv.F) *reinterpret_cast<float2 *>(row + f) = make_float2(d[m][i], d[m][i + 1]);
                }
            }
    }
}
