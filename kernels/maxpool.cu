/* maxpool.cu - max pooling that remembers where each maximum was, and its way back.
   y[c,p,q,n]        = max of x[c,h,w,n] over the window of (p,q)
   switches[c,p,q,n] = r*K + s, the maximum's place in its window; the first in row order wins a tie, a NaN wins over numbers
   dx[c,h,w,n]       = sum of dy[c,p,q,n] over the windows whose switch names (h,w); with RELU only over those with y > 0
   window of (p,q)   = rows p*S-P .. p*S-P+K-1, columns alike, cut at the border

   x, dx     (C,H,W,N)    stored     C-contiguous, as are all below
   y, dy     (C,Ho,Wo,N)  stored
   switches  (C,Ho,Wo,N)  uint8

   work      forward: one thread = LANES neighbouring images of one y. backward: LANES images of SxS pixels, the pixels that
             the same windows cover. A block stays within one row of one map. A warp walks n: every access is coalesced
   traffic   4*C*H*W*N + 5*C*Ho*Wo*N bytes both ways, with RELU 4*C*Ho*Wo*N more: where windows overlap, x is read again
             from cache, and so are dy, switches and y. Over the bandwidth, that is the floor
   relu      RELU = 1 is the way back through the pool and through a ReLU that x comes out of. A pixel that was chosen is
             the maximum of all windows that chose it, so it was on where y > 0: the ReLU's own way back, which reads two
             maps of x's size and writes a third, is saved
   back      each pixel asks the windows it lies in, in the order of their taps, "did you choose me?": nothing is
             scattered, every dx is written once, and the sum always has the same order
   spec      zfcore/ops/maxpool.py: maxpool_reference, maxpool_backward_reference                                    */
#ifndef LANES
#define LANES 4                     // divides N
#endif
#include <stored.cuh>
#ifndef WINDOW                      // macros, so that the loops over a window unroll and its loads are in flight together
#define WINDOW 3
#define STRIDE 2
#endif
#ifndef RELU
#define RELU 1
#endif
const int K = WINDOW, S = STRIDE;
struct __align__(LANES) Marks { unsigned char v[LANES]; };

#define MINUS_INFINITY __int_as_float(0xff800000)

// What this thread works on: map, row, pixel, and pack of images. False beyond the end of the row.
struct Place { int map, row, pixel, pack; };

__device__ __forceinline__ bool my_place(Place &at, int height, int width, int packs)
{
    unsigned in_row = (unsigned)width * packs, tiles = (in_row + blockDim.x - 1) / blockDim.x;     // blocks per row
    unsigned k = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    at.map = blockIdx.x / tiles / height;
    at.row = blockIdx.x / tiles % height;
    at.pixel = k / packs;
    at.pack = k % packs;
    return k < in_row;
}

extern "C" __global__ void maxpool_forward(const stored *x, stored *y, unsigned char *switches,
    int H, int W, int Ho, int Wo, int N, int P)
{
    int packs = N / LANES;
    Place at;
    if (!my_place(at, Ho, Wo, packs)) return;
    int h0 = at.row * S - P, w0 = at.pixel * S - P;                         // the window's first row and column
    const Stored *map = (const Stored *)x + (long long)at.map * H * W * packs + at.pack;

    Pack best;
    Marks where;
    for (int k = 0; k < LANES; k++) best.v[k] = MINUS_INFINITY, where.v[k] = max(-h0, 0) * K + max(-w0, 0);
#pragma unroll
    for (int r = 0; r < K; r++)
#pragma unroll
        for (int s = 0; s < K; s++) {
            int h = h0 + r, w = w0 + s;
            Pack a;
            for (int k = 0; k < LANES; k++) a.v[k] = MINUS_INFINITY;        // outside the map: never higher
            if (h >= 0 && h < H && w >= 0 && w < W) a = map[((long long)h * W + w) * packs];
            for (int k = 0; k < LANES; k++)
                if (!(a.v[k] <= best.v[k]) && best.v[k] == best.v[k]) {     // higher, or the first NaN
                    best.v[k] = a.v[k];
                    where.v[k] = r * K + s;
                }
        }
    long long i = (((long long)at.map * Ho + at.row) * Wo + at.pixel) * packs + at.pack;
    ((Stored *)y)[i] = best;
    ((Marks *)switches)[i] = where;
}

extern "C" __global__ void maxpool_backward(const stored *dy, const unsigned char *switches, const stored *y,
    stored *dx, int H, int W, int Ho, int Wo, int N, int P)
{
    int packs = N / LANES;
    Place at;                                                               // of a tile of SxS pixels, the border of P included
    if (!my_place(at, (H - 1 + P) / S + 1, (W - 1 + P) / S + 1, packs)) return;

    Pack sum[S][S];
    for (int r = 0; r < S; r++)
        for (int s = 0; s < S; s++)
            for (int k = 0; k < LANES; k++) sum[r][s].v[k] = 0;
#pragma unroll
    for (int j = 0; j < (K + S - 1) / S; j++)
#pragma unroll
        for (int i = 0; i < (K + S - 1) / S; i++) {
            int p = at.row - j, q = at.pixel - i;                           // its taps from (j*S, i*S) on lie in the tile
            bool exists = p >= 0 && p < Ho && q >= 0 && q < Wo;             // else its neighbour is read, and counts as 0:
            p = min(max(p, 0), Ho - 1), q = min(max(q, 0), Wo - 1);         // without a branch all loads are in flight together
            long long o = (((long long)at.map * Ho + p) * Wo + q) * packs + at.pack;
            Marks chosen = ((const Marks *)switches)[o];
            Pack a = ((const Stored *)dy)[o];
            if (RELU) {
                Pack top = ((const Stored *)y)[o];
                for (int k = 0; k < LANES; k++) a.v[k] = top.v[k] > 0 ? a.v[k] : 0;
            }
            for (int k = 0; k < LANES; k++) a.v[k] = exists ? a.v[k] : 0;
#pragma unroll
            for (int r = 0; r < S && j * S + r < K; r++)
#pragma unroll
                for (int s = 0; s < S && i * S + s < K; s++)
                    for (int k = 0; k < LANES; k++)
                        sum[r][s].v[k] += chosen.v[k] == (j * S + r) * K + i * S + s ? a.v[k] : 0;
        }
#pragma unroll
    for (int r = 0; r < S; r++)
#pragma unroll
        for (int s = 0; s < S; s++) {
            int h = at.row * S + r - P, w = at.pixel * S + s - P;
            if (h >= 0 && h < H && w >= 0 && w < W)
                ((Stored *)dx)[(((long long)at.map * H + h) * W + w) * packs + at.pack] = sum[r][s];
        }
}
