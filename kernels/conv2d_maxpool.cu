/* conv2d_maxpool.cu - level 7 of the ladder in conv2d.cu: the max pool behind ReLU is folded out of the tiles

   y and switches of the max pool (windows POOL x POOL at stride STRIDE, see maxpool.cu) of max(convolution + b, 0): what
   conv2d_forward and maxpool_forward leave, bit by bit, but the map between them is never in memory.

   A block owns BM maps, IMAGES images and STRIP neighbouring outputs of the pool, in `run` rows of them. It walks down the
   convolution's rows under these. Of each row, the PIXELS columns under the strip times the images are the BN columns of a
   tile, multiplied as in conv2d.cu: a strip is a map that begins further right. The finished row takes the place of the
   tiles in shared memory and is folded into the maxima of the windows it lies in, a thread always the same ones. As windows
   share one row at most, one is closed before the next is opened.

   cost      8 strips of 16 columns cover the 110 of conv1, and a run repeats one row: 1.2 times the products
   traffic   4*(C*H*W*N + C*K*K*F) + 5*F*height*width*N bytes; without it 8*F*Ho*Wo*N more
   spec      zfcore/ops/conv2d.py: conv2d_reference, and zfcore/ops/maxpool.py: maxpool_reference

   POOL, STRIDE and SHARED, the bytes that a launch asks for, are always given. */
#include <windows.cuh>

#define IMAGES 8
#define PIXELS (BN / IMAGES)
#define STRIP ((PIXELS - POOL) / STRIDE + 1)
static_assert(POOL <= STRIDE + 1, "windows share one row at most");

struct Fold {
    union {
        Shared<Windows> tiles;
        stored row[BM][BN + 8];       // pixel by pixel the images; 8 numbers more put the rows of an mma into different banks
    };
    float best[BM][STRIP * IMAGES];
    unsigned char where[BM][STRIP * IMAGES];
};
static_assert(sizeof(Fold) <= SHARED, "fits what a launch asks for");

// The pool of maps (F,Ho,Wo,N), of which this block has maps from m0 on, images from n0 on and columns of the pool from q0 on.
struct Pool {
    stored *y;
    unsigned char *switches;
    int F, Ho, Wo, N, P, height, width;                 // the last three of the pool
    int m0, n0, q0;
    int left, v0;                                       // the strip's first column, and the first of them inside the map

    // Row h of the convolution, of which the block's part lies in shared.row, into the windows of row p
    __device__ __forceinline__ void fold(Fold &shared, int h, int p) const
    {
        int top = p * STRIDE - P, r = h - top;
        bool opens = h == max(top, 0), closes = h == min(top + POOL, Ho) - 1;
        for (int i = threadIdx.x; i < BM * STRIP * IMAGES; i += THREADS) {
            int m = i / (STRIP * IMAGES), k = i % (STRIP * IMAGES), q = q0 + k / IMAGES, n = k % IMAGES;
            if (m0 + m >= F || q >= width) continue;
            int v = left + k / IMAGES * STRIDE;         // the window's first column
            float best = opens ? -infinity() : shared.best[m][k];
            int where = opens ? r * POOL + max(-v, 0) : shared.where[m][k];
#pragma unroll
            for (int s = 0; s < POOL; s++) {
                if (v + s < 0 || v + s >= Wo) continue;
                float a = in_float(shared.row[m][(v + s - v0) * IMAGES + n]);
                if (!(a <= best) && best == best) best = a, where = r * POOL + s;          // higher, or the first NaN
            }
            long long at = (((long long)(m0 + m) * height + p) * width + q) * N + n0 + n;
            if (closes) y[at] = as_stored(best), switches[at] = where;
            else shared.best[m][k] = best, shared.where[m][k] = where;
        }
    }
};

/* blockIdx.x = strip * (tiles of maps) + tile of maps, blockIdx.y = group of images, blockIdx.z = run of rows. N is a multiple
   of IMAGES. Ho, Wo are the convolution's, pool_P, height, width the pool's. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_maxpool(
    const stored *x, const stored *w, const float *b, stored *y, unsigned char *switches,
    Conv conv, int pool_P, int height, int width, int run, int biased)
{
    DYN_SHARED(raw);
    Fold &shared = *reinterpret_cast<Fold *>(raw);
    int tiles_m = (conv.F + BM - 1) / BM;
    int m0 = blockIdx.x % tiles_m * BM, n0 = blockIdx.y * IMAGES, q0 = blockIdx.x / tiles_m * STRIP;
    int p0 = blockIdx.z * run, p1 = min(p0 + run, height), left = q0 * STRIDE - pool_P, v0 = max(left, 0);
    Pool pool = {
        .y = y, .switches = switches,
        .F = conv.F, .Ho = conv.Ho, .Wo = conv.Wo, .N = conv.N, .P = pool_P, .height = height, .width = width,
        .m0 = m0, .n0 = n0, .q0 = q0,
        .left = left, .v0 = v0};
    Windows block = {
        .w = w, .x = x + n0, .y = nullptr,
        .w_group = 0, .x_group = 0, .y_group = 0,
        .maps = conv.C, .M = conv.F, .M_all = conv.F,
        .H = conv.H, .W = conv.W, .N = conv.N, .images = IMAGES, .K = conv.K,
        .m0 = m0,
        .shared = &shared.tiles.reduction};
    Axis columns = forward_axis(conv.W, min(left + PIXELS, conv.Wo) - v0, conv.K, conv.S, conv.P - v0 * conv.S);
    for (int h = max(p0 * STRIDE - pool_P, 0); h < min((p1 - 1) * STRIDE - pool_P + POOL, conv.Ho); h++) {
        int first = max(max(h + pool_P - POOL + STRIDE, 0) / STRIDE, p0);           // rows of the pool whose windows hold row h
        int last = min((h + pool_P) / STRIDE, p1 - 1);
        if (first > last) continue;                     // between windows
        float sum[TM][TN];
        int tiles = block.begin(forward_axis(conv.H, 1, conv.K, conv.S, conv.P - h * conv.S), columns, 0);
        multiply(block, tiles, shared.tiles, sum);
        finish(sum, b, m0, conv.F, biased, true);
        cp_async_wait<0>();
        __syncthreads();                                // nobody reads or fills the tiles any more
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) shared.row[tile_row(i)][tile_column(j)] = as_stored(sum[i][j]);
        __syncthreads();
        for (int p = first; p <= last; p++) pool.fold(shared, h, p);
        __syncthreads();                                // the row is read: tiles again
    }
}
