/* convert.cu - numbers from float32 to how maps are stored, and back.
   to_stored     y[i] = x[i], rounded to nearest, ties to even; a NaN stays one
   from_stored   y[i] = x[i], exactly

   `total` elements of any shape, C-contiguous; one side float32, the other stored

   work      one thread = LANES neighbouring elements (LANES divides total)
   traffic   6*total bytes where bf16 is stored; over the bandwidth, that is the floor
   spec      zfcore/ops/convert.py: to_bf16, from_bf16                                                    */
#ifndef LANES
#define LANES 8
#endif
#include <stored.cuh>

extern "C" __global__ void convert_to_stored(const float *x, stored *y, long long total)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // number of the pack
    if (i < total / LANES) ((Stored *)y)[i] = ((const Pack *)x)[i];
}

extern "C" __global__ void convert_from_stored(const stored *x, float *y, long long total)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total / LANES) ((Pack *)y)[i] = ((const Stored *)x)[i];
}
