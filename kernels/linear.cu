/* linear.cu - what a fully connected layer does besides its matrix products, which are cuBLAS's.
   bias            y[m,n] += b[m]                    in place
   bias_gradient   db[m]   = sum of dy[m,n] over n

   y, dy     (M,N)   float32   C-contiguous, as are all
   b, db     (M,)    float32

   work      one warp = one row; its lanes walk n in steps of 32 packs, every access is coalesced. A row's sum always has
             the same order: along each lane, then over the lanes by halves
   traffic   bias 8*M*N bytes, bias_gradient 4*M*N; over the bandwidth, that is the floor
   spec      zfcore/ops/linear.py: linear_reference                                                      */
#ifndef LANES
#define LANES 4                     // divides N
#endif
struct __align__(4 * LANES) Pack { float v[LANES]; };

extern "C" __global__ void linear_bias(float *y, const float *b, int M, int N)
{
    int m = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, packs = N / LANES;
    if (m >= M) return;
    float bias = b[m];
    Pack *row = (Pack *)y + (long long)m * packs;
    for (int n = lane; n < packs; n += 32) {
        Pack a = row[n];
        for (int k = 0; k < LANES; k++) a.v[k] += bias;
        row[n] = a;
    }
}

extern "C" __global__ void linear_bias_gradient(const float *dy, float *db, int M, int N)
{
    int m = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, packs = N / LANES;
    if (m >= M) return;
    const Pack *row = (const Pack *)dy + (long long)m * packs;
    float sum = 0;
    for (int n = lane; n < packs; n += 32) {
        Pack a = row[n];
        for (int k = 0; k < LANES; k++) sum += a.v[k];
    }
    for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(~0u, sum, half);
    if (lane == 0) db[m] = sum;
}
