/* conv2d_maxpool_gradient.cu - the filter gradient of a convolution under a max pool, whose gradient is spread over the
   convolution's outputs on its way into a tile: the map that maxpool_backward would leave is never in memory

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * (sum of dy[f,i,j,n] over the windows whose switch names (p,q))

   x (C,H,W,N)   dy (F,height,width,N)   switches like dy, uint8, as maxpool.cu has them   dw (C,K,K,F)
   x, dy stored, dw float32; C-contiguous

   work      products.cuh says what a block does. An output asks the windows that it lies in, at most 4 of a pool 3x3 at stride
             2, in the order in which maxpool_backward asks them: the bits are those of the two kernels
   traffic   5*F*height*width*N + 4*C*H*W*N bytes, in BF16 3 and 2, and 4*(slices + 1) per dw, where all rows are one tile;
             without it 8*F*Ho*Wo*N more. From the L2 cache a window comes once for each of its 9 outputs
   spec      zfcore/ops/conv2d_maxpool.py: conv2d_maxpool_backward

   POOL and STRIDE are always given. */
#define LANES VECTOR_B                // images of a copy
#include <products.cuh>

#define REACH ((POOL + STRIDE - 1) / STRIDE)                                // windows that an output lies in, a way
#define NOWHERE 255                                                         // no place in a window

struct __align__(LANES) Marks { unsigned char v[LANES]; };

struct Windows {
    const stored *dy;
    const unsigned char *switches;
    int height, width, P;             // of the pool
    int images;

    struct At {
        long long window;             // offset of dy[0,i,j,n], of the last window that begins at or before the output
        short r, s;                   // the output's place there
        unsigned exists;              // bit a*REACH + b: window (i-a, j-b) is one of the pool's and holds the output
    };

    __device__ __forceinline__ long long of_map(const Conv &conv) const { return (long long)height * width * conv.N; }
    __device__ __forceinline__ At at(const Conv &conv, int p, int q, int n, bool inside) const
    {
        int i = (p + P) / STRIDE, j = (q + P) / STRIDE, r = (p + P) % STRIDE, s = (q + P) % STRIDE;
        unsigned exists = 0;
#pragma unroll
        for (int a = 0; a < REACH; a++)
#pragma unroll
            for (int b = 0; b < REACH; b++)
                if (inside && r + a * STRIDE < POOL && s + b * STRIDE < POOL
                    && i >= a && i - a < height && j >= b && j - b < width)
                    exists |= 1u << (a * REACH + b);
        return {((long long)i * width + j) * conv.N + n, (short)r, (short)s, exists};
    }
    template <int NUMBERS>
    __device__ __forceinline__ void copy(stored *to, const At &at, long long map) const
    {
        static_assert(NUMBERS == LANES, "a copy is a pack");
        Pack sum;
        for (int l = 0; l < LANES; l++) sum.v[l] = 0;
        Stored gradients[REACH * REACH];
        Marks chosen[REACH * REACH];
#pragma unroll
        for (int k = 0; k < REACH * REACH; k++) {                           // all of them under way together
            long long from = at.window + map - ((long long)(k / REACH) * width + k % REACH) * images;
            bool wanted = map >= 0 && at.exists >> k & 1;
            gradients[k] = sum;
            for (int l = 0; l < LANES; l++) chosen[k].v[l] = NOWHERE;
            if (wanted) gradients[k] = *(const Stored *)(dy + from), chosen[k] = *(const Marks *)(switches + from);
        }
#pragma unroll
        for (int k = 0; k < REACH * REACH; k++) {
            int place = (at.r + k / REACH * STRIDE) * POOL + at.s + k % REACH * STRIDE;
            Pack gradient = gradients[k];
            for (int l = 0; l < LANES; l++) sum.v[l] += chosen[k].v[l] == place ? gradient.v[l] : 0;
        }
        *(Stored *)to = sum;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_maxpool_filter_gradient(
    const stored *x, const stored *dy, const unsigned char *switches, float *partial,
    Conv conv, int height, int width, int pool_P)
{
    SHARED_TILES(Products<Windows>, shared);
    filter_gradient(x, Windows{dy, switches, height, width, pool_P, conv.N}, partial, conv, shared);
}
