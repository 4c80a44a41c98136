/* pad.cu - zeros around maps; where top, left or what they leave behind are below 0, rows and columns are cut off. The way back
   is the same kernel with the signs turned.
   y[c,p,q,n] = x[c, p - top, q - left, n], and 0 where that lies outside the map

   x   (C,H,W,N)    stored     C-contiguous, as is y
   y   (C,Ho,Wo,N)  stored

   work      one thread = LANES neighbouring images of one y. The rows of all maps lie one behind another and are cut into blocks
             without a gap. A warp walks n: every access is coalesced
   traffic   4*C*(Ho*Wo + pixels kept)*N bytes; over the bandwidth, that is the floor
   spec      zfcore/ops/pad.py: pad_reference                                                             */
#ifndef LANES
#define LANES 4                     // divides N
#endif
#include <stored.cuh>

extern "C" __global__ void pad(const stored *x, stored *y, int rows, int H, int W, int Ho, int Wo, int N, int top, int left)
{
    unsigned packs = N / LANES, in_row = (unsigned)Wo * packs;
    unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x;           // the block's first thread
    unsigned k = first % in_row + threadIdx.x;                                        // counted from the row it is in
    unsigned row = first / in_row + k / in_row;                                       // of all maps
    if (row >= rows) return;
    k %= in_row;
    int h = (int)(row % Ho) - top, w = (int)(k / packs) - left;
    Pack a;
    for (int j = 0; j < LANES; j++) a.v[j] = 0;
    if (h >= 0 && h < H && w >= 0 && w < W)
        a = ((const Stored *)x)[(((long long)(row / Ho) * H + h) * W + w) * packs + k % packs];
    ((Stored *)y)[(long long)row * in_row + k] = a;
}
