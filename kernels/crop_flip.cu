/* crop_flip.cu - from stored pictures to the network's input: mean subtracted, cropped, mirrored, turned to batch-last.
   out[ch,p,q,n] = pictures[n,h,v,ch] - mean[ch,h,v],   h = tops[n] + p,   v = lefts[n] + (flips[n] ? w-1-q : q)

   pictures      (N,H,W,3)   uint8     C-contiguous, as are all
   mean          (3,H,W)     float32
   tops, lefts   (N,)        int32;    flips (N,) uint8
   out           (3,h,w,N)   stored    in the signature h, w are rows, columns

   work      one block = a tile of TILE columns of one row, of TILE pictures, turned in shared memory: a warp reads along
             the columns of one picture (and of the mean), and writes along the pictures of one column. A row of the
             tile has TILE+1 words, so that neither way two lanes meet in one bank
   traffic   15*N*h*w bytes: 3 read, 12 written; the mean is read again for every picture, from cache. Over the
             bandwidth, that is the floor
   spec      zfcore/ops/crop_flip.py: crop_flip_reference                                                 */
#include <stored.cuh>
#define TILE 32
#define WARPS 8

extern "C" __global__ void crop_flip(const unsigned char *pictures, const float *mean, const int *tops, const int *lefts,
    const unsigned char *flips, stored *out, int H, int W, int rows, int columns, int N)
{
    __shared__ float tile[3][TILE][TILE + 1];                               // channel, column, picture
    int lane = threadIdx.x % TILE, warp = threadIdx.x / TILE;
    int across = (columns + TILE - 1) / TILE;                               // tiles in a row
    int q0 = blockIdx.x % across * TILE, p = blockIdx.x / across % rows, n0 = blockIdx.x / across / rows * TILE;

    int q = q0 + lane;
#pragma unroll
    for (int k = warp; k < TILE; k += WARPS) {
        int n = n0 + k;
        if (n >= N || q >= columns) continue;
        int h = tops[n] + p, v = lefts[n] + (flips[n] ? columns - 1 - q : q);
        const unsigned char *pixel = pictures + (((long long)n * H + h) * W + v) * 3;
        for (int ch = 0; ch < 3; ch++) tile[ch][lane][k] = pixel[ch] - mean[((long long)ch * H + h) * W + v];
    }
    __syncthreads();
    int n = n0 + lane;
#pragma unroll
    for (int k = warp; k < 3 * TILE; k += WARPS) {
        int ch = k / TILE, column = k % TILE;
        if (n < N && q0 + column < columns)
            out[(((long long)ch * rows + p) * columns + q0 + column) * N + n] = as_stored(tile[ch][column][lane]);
    }
}
