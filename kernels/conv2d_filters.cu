/* conv2d_filters.cu - filters with maps and filters exchanged, as the transposed convolution reads them

   transposed[f,t,c] = w[c,t,f]                    w (C,T,F), T = K*K places t; transposed (F,T,C); stored, C-contiguous

   A block turns 32 x 32 numbers of one place through shared memory, so that reads and writes are both coalesced; the 33rd
   column puts the numbers of a column into different banks. blockIdx.x = tile of f * (tiles of c) + tile of c, blockIdx.y = t.

   traffic   8 bytes per weight
   spec      zfcore/ops/conv2d_kernels.py: transpose_filters */
#include <stored.cuh>

extern "C" __global__ void conv2d_transpose_filters(const stored *w, stored *transposed, int C, int T, int F)
{
    __shared__ stored tile[32][33];
    int t = blockIdx.y, lane = threadIdx.x % 32, tiles_c = (C + 31) / 32;
    int c0 = blockIdx.x % tiles_c * 32, f0 = blockIdx.x / tiles_c * 32;
    for (int i = threadIdx.x / 32; i < 32; i += blockDim.x / 32)
        if (c0 + i < C && f0 + lane < F) tile[i][lane] = w[((long long)(c0 + i) * T + t) * F + f0 + lane];
    __syncthreads();
    for (int i = threadIdx.x / 32; i < 32; i += blockDim.x / 32)
        if (f0 + i < F && c0 + lane < C) transposed[((long long)(f0 + i) * T + t) * C + c0 + lane] = tile[lane][i];
}
