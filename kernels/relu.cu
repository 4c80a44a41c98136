/* relu.cu - the rectifier.
   forward    y[i]  = max(x[i], 0); a NaN stays one, so that a network that diverged shows it
   backward   dx[i] = dy[i] where y[i] > 0, else 0

   x, y, dy, dx   any shape, `total` elements   stored    C-contiguous; y may be x, dx may be dy

   work      one thread = LANES neighbouring elements (LANES divides total)
   traffic   forward 8*total bytes, backward 12*total; over the bandwidth, that is the floor
   spec      zfcore/ops/relu.py: relu_reference                                                          */
#ifndef LANES
#define LANES 4
#endif
#include <stored.cuh>

extern "C" __global__ void relu_forward(const stored *x, stored *y, long long total)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // number of the pack
    if (i >= total / LANES) return;
    Pack a = ((const Stored *)x)[i];
    for (int k = 0; k < LANES; k++) a.v[k] = a.v[k] < 0 ? 0 : a.v[k];
    ((Stored *)y)[i] = a;
}

extern "C" __global__ void relu_backward(const stored *dy, const stored *y, stored *dx, long long total)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total / LANES) return;
    Pack a = ((const Stored *)dy)[i], b = ((const Stored *)y)[i];
    for (int k = 0; k < LANES; k++) a.v[k] = b.v[k] > 0 ? a.v[k] : 0;
    ((Stored *)dx)[i] = a;
}
