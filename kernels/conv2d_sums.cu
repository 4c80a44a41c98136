/* conv2d_sums.cu - sums in a fixed order around the products: of slices, and of the outputs' gradient for the bias

   sum[i] = partial[0,i] + partial[1,i] + ...                     db[f] = sum over p,q,n   dy[f,p,q,n]

   Both are cut by shapes alone and no atomics join the partial sums: the same bits on every GPU.
   spec      zfcore/ops/conv2d.py: conv2d_backward_reference */
#include <stored.cuh>

/* sum[i] = partial[0,i] + partial[1,i] + ..., plus b[i/map] if biased, max(that, 0) if relu; one thread = one i.
   4*(slices + 1) bytes each. */
extern "C" __global__ void conv2d_sum_slices(const float *partial, const float *b, stored *sum, long long size, long long map,
    int slices, int biased, int relu)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float total = 0;
    for (int slice = 0; slice < slices; slice++) total += partial[slice * size + i];
    if (biased) total += b[i / map];
    sum[i] = as_stored(relu && total < 0 ? 0 : total);                                // NaN stays NaN
}

/* partial[slice,f] = the sum of one slice of dy[f,:,:,:], `length` = Ho*Wo*N numbers. One block = one (slice, f):
   blockIdx.x = f*slices + slice; each thread adds every 256th number, then a tree adds the threads. 4 bytes per dy. */
extern "C" __global__ void conv2d_bias_gradient(const stored *dy, float *partial, long long length, int F, int slices)
{
    __shared__ float sums[256];
    int f = blockIdx.x / slices, slice = blockIdx.x % slices;
    const stored *map = dy + f * length;
    float sum = 0;
#pragma unroll 4
    for (long long i = length * slice / slices + threadIdx.x; i < length * (slice + 1) / slices; i += 256)
        sum += in_float(map[i]);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[slice * F + f] = sums[0];
}
