/* linear.cu - what a fully connected layer does besides its matrix products, which are convolutions of one pixel: conv2d.cu.
   bias_gradient   db[m] = sum of dy[m,n] over n

   dy        (M,N)   stored    C-contiguous, as is all
   db        (M,)    float32

   work      one warp = one row; its lanes walk n in steps of 32 packs, every access is coalesced. A row's sum always has
             the same order: along each lane, then over the lanes by halves
   traffic   4*M*N bytes; over the bandwidth, that is the floor
   spec      zfcore/ops/linear.py: linear_backward_reference                                                      */
#ifndef LANES
#define LANES 4                     // divides N
#endif
#include <stored.cuh>

extern "C" __global__ void linear_bias_gradient(const stored *dy, float *db, int M, int N)
{
    int m = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, packs = N / LANES;
    if (m >= M) return;
    const Stored *row = (const Stored *)dy + (long long)m * packs;
    float sum = 0;
    for (int n = lane; n < packs; n += 32) {
        Pack a = row[n];
        for (int k = 0; k < LANES; k++) sum += a.v[k];
    }
    for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(~0u, sum, half);
    if (lane == 0) db[m] = sum;
}
