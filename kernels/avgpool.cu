/* avgpool.cu - average pooling, and its way back.
   y[c,p,q,n]      = sum of x[c,h,w,n] over the window of (p,q) / divisor of (p,q)
   dx[c,h,w,n]     = sum of dy[c,p,q,n] / divisor of (p,q) over the windows in which (h,w) lies
   window of (p,q) = rows p*S-P .. p*S-P+K-1, columns alike, cut at the border
   divisor         = rows times columns of the window that count. BORDERS says which:
     INSIDE     those in the map, 0 .. H-1
     PADDED     all K
     CLIPPED    those in the map or its padding, -P .. H+P-1
     GIVEN      divisors[p,q,n], of windows of larger maps, which know where they lie there

   x, dx     (C,H,W,N)    stored     C-contiguous, as are all below
   y, dy     (C,Ho,Wo,N)  stored
   divisors  (Ho,Wo,N)    float32    read where GIVEN alone

   work      one thread = LANES neighbouring images of one y, backward of one dx. The rows of all maps lie one behind another
             and are cut into blocks without a gap, so that none is nearly empty where a map has one output. A warp walks n:
             every access is coalesced
   traffic   4*C*H*W*N + 4*C*Ho*Wo*N bytes both ways: where windows overlap, x and dy are read again from cache. Over the
             bandwidth, that is the floor
   back      each pixel asks the windows it lies in: nothing is scattered, every dx is written once
   sums      forward in row order of the window, backward in row order of the windows: the same bits in every run
   spec      zfcore/ops/avgpool.py: avgpool_reference, avgpool_backward_reference                                    */
#include <rows.cuh>
#define INSIDE 0                    // what BORDERS may be
#define PADDED 1
#define CLIPPED 2
#define GIVEN 3
#ifndef BORDERS
#define BORDERS INSIDE
#endif
#ifndef LANES
#define LANES 4                     // divides N
#endif
#include <stored.cuh>
#ifndef WINDOW                      // macros, so that loops over a window unroll and no division by the stride is left
#define WINDOW 3
#define STRIDE 2
#endif
const int K = WINDOW, S = STRIDE;
const bool LARGE = K > 32;          // such windows may be far larger than a map: no further than that goes their loop

// How many rows (or columns) from `first` on count, of a map of `size`.
__device__ __forceinline__ int counted(int first, int size, int P)
{
    if (BORDERS == INSIDE) return min(first + K, size) - max(first, 0);
    if (BORDERS == CLIPPED) return min(first + K, size + P) - first;
    return K;
}

// a / divisor of (p,q)
__device__ __forceinline__ Pack share(Pack a, const float *divisors, int p, int q, int H, int W, int Wo, int packs, int pack,
    int P)
{
    Pack by;
    if (BORDERS == GIVEN)
        by = ((const Pack *)divisors)[((long long)p * Wo + q) * packs + pack];
    else
        for (int k = 0; k < LANES; k++) by.v[k] = (float)counted(p * S - P, H, P) * counted(q * S - P, W, P);
    for (int k = 0; k < LANES; k++) a.v[k] /= by.v[k];
    return a;
}

extern "C" __global__ void avgpool_forward(const stored *x, const float *divisors, stored *y, int rows,
    int H, int W, int Ho, int Wo, int N, int P)
{
    int packs = N / LANES;
    Place at;
    if (!my_place(at, rows, Ho, Wo, packs)) return;
    int h0 = at.row * S - P, w0 = at.pixel * S - P;                         // the window's first row and column
    const Stored *map = (const Stored *)x + (long long)at.map * H * W * packs + at.pack;

    Pack sum;
    for (int k = 0; k < LANES; k++) sum.v[k] = 0;
#pragma unroll (K < 5 ? K : 1)      // small windows wholly, of large ones the rows in parts: their loads are in flight together
    for (int r = LARGE ? max(-h0, 0) : 0; r < (LARGE ? min(K, H - h0) : K); r++)
#pragma unroll 8
        for (int s = LARGE ? max(-w0, 0) : 0; s < (LARGE ? min(K, W - w0) : K); s++) {
            int h = h0 + r, w = w0 + s;
            Pack a;
            for (int k = 0; k < LANES; k++) a.v[k] = 0;                     // outside the map
            if (h >= 0 && h < H && w >= 0 && w < W) a = map[((long long)h * W + w) * packs];
            for (int k = 0; k < LANES; k++) sum.v[k] += a.v[k];
        }
    long long i = (((long long)at.map * Ho + at.row) * Wo + at.pixel) * packs + at.pack;
    ((Stored *)y)[i] = share(sum, divisors, at.row, at.pixel, H, W, Wo, packs, at.pack, P);
}

extern "C" __global__ void avgpool_backward(const stored *dy, const float *divisors, stored *dx, int rows,
    int H, int W, int Ho, int Wo, int N, int P)
{
    int packs = N / LANES;
    Place at;
    if (!my_place(at, rows, H, W, packs)) return;
    int h = at.row + P, w = at.pixel + P;                                   // counted from where the first windows begin
    int p0 = max(h - K + S, 0) / S, p1 = min(h / S + 1, Ho);                // the windows p0 .. p1-1, q0 .. q1-1 hold it
    int q0 = max(w - K + S, 0) / S, q1 = min(w / S + 1, Wo);

    Pack sum;
    for (int k = 0; k < LANES; k++) sum.v[k] = 0;
    for (int p = p0; p < p1; p++)
        for (int q = q0; q < q1; q++) {
            Pack a = ((const Stored *)dy)[(((long long)at.map * Ho + p) * Wo + q) * packs + at.pack];
            a = share(a, divisors, p, q, H, W, Wo, packs, at.pack, P);
            for (int k = 0; k < LANES; k++) sum.v[k] += a.v[k];
        }
    ((Stored *)dx)[(((long long)at.map * H + at.row) * W + at.pixel) * packs + at.pack] = sum;
}
