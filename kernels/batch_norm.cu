/* batch_norm.cu - batch normalisation of maps, in training and in evaluation, forward and backward.
   sums             partial[c,s] = sums of d and of d*d over slice s of map c, d = x[c,i] - x[c,0]
   statistics       mean[c] = x[c,0] + sum of d / L,  var[c] = (sum of d*d - (sum of d)^2 / L) / L, and with them
                    running = (1 - momentum)*running + momentum*(mean[c], var[c]*L/(L-1)), in place
   forward          y[c,i] = (x[c,i] - mean[c]) * f[c] + beta[c],  f[c] = gamma[c] / sqrt(var[c] + eps)
   gradient_sums    partial[c,s] = sums of dy[c,i] and of dy[c,i] * (x[c,i] - mean[c]) over slice s
   gradients        dbeta[c] = sum of dy,  dgamma[c] = sum of dy*(x - mean) / sqrt(var[c] + eps)
   backward         dx[c,i] = f[c] * (dy[c,i] - (dbeta[c] + dgamma[c] * (x[c,i] - mean[c]) / sqrt(var[c] + eps)) / L)
   scale            dx[c,i] = f[c] * dy[c,i], the gradient in evaluation, where mean and var are the running ones

   x, y, dy, dx                     (C,L)          stored    C-contiguous, as is all; L = H*W*N, the numbers of a map; or N
   gamma, beta, mean, var and gradients, running   (C,)   float32
   partial                          (C,slices,2)   float64   slices by L alone; of float32 numbers products are exact in it
                                                   and the sums, which may nearly cancel, keep their digits

   work      sums, gradient_sums: one warp = one slice of a map, its lanes walk it in steps of 32 packs. statistics,
             gradients: one warp = one map. A sum always has the same order: along each lane, over the lanes by halves; then
             over the slices likewise. forward, backward, scale: one thread = one pack, a block stays in one map. Every access
             to maps is coalesced
   traffic   sums 4*C*L bytes, forward 8*C*L, gradient_sums 8*C*L, backward 12*C*L, scale 8*C*L; the rest next to nothing.
             Over the bandwidth, that is the floor
   spec      zfcore/ops/batch_norm.py: batch_norm_reference, batch_norm_backward_reference                            */
#ifndef LANES
#define LANES 4                     // divides L
#endif
#include <stored.cuh>
struct Two { double a, b; };

// The sums of all lanes, in lane 0.
__device__ __forceinline__ Two over_lanes(Two sum)
{
    for (int half = 16; half > 0; half /= 2) {
        sum.a += __shfl_down_sync(~0u, sum.a, half);
        sum.b += __shfl_down_sync(~0u, sum.b, half);
    }
    return sum;
}

// What this warp works on: its slice of map c, packs first .. last-1 of it. False beyond the last map.
struct Slice { int c, number; long long first, last; };

__device__ __forceinline__ bool my_slice(Slice &at, long long L, int C, int slices)
{
    int warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    at.c = warp / slices, at.number = warp % slices;
    at.first = L / LANES * at.number / slices, at.last = L / LANES * (at.number + 1) / slices;
    return at.c < C;
}

extern "C" __global__ void batch_norm_sums(const stored *x, double *partial, long long L, int C, int slices)
{
    Slice at;
    if (!my_slice(at, L, C, slices)) return;
    const stored *map = x + at.c * L;
    double origin = in_float(map[0]);
    int lane = threadIdx.x % 32;
    Two sum = {0, 0};
#pragma unroll 4
    for (long long i = at.first + lane; i < at.last; i += 32) {
        Pack p = ((const Stored *)map)[i];
        for (int k = 0; k < LANES; k++) {
            double d = p.v[k] - origin;
            sum.a += d, sum.b += d * d;
        }
    }
    sum = over_lanes(sum);
    if (lane == 0) ((Two *)partial)[(long long)at.c * slices + at.number] = sum;
}

extern "C" __global__ void batch_norm_gradient_sums(const stored *dy, const stored *x, const float *mean, double *partial,
    long long L, int C, int slices)
{
    Slice at;
    if (!my_slice(at, L, C, slices)) return;
    const Stored *above = (const Stored *)(dy + at.c * L), *map = (const Stored *)(x + at.c * L);
    double middle = mean[at.c];
    int lane = threadIdx.x % 32;
    Two sum = {0, 0};
#pragma unroll 4
    for (long long i = at.first + lane; i < at.last; i += 32) {
        Pack p = map[i], g = above[i];
        for (int k = 0; k < LANES; k++) sum.a += g.v[k], sum.b += g.v[k] * (p.v[k] - middle);
    }
    sum = over_lanes(sum);
    if (lane == 0) ((Two *)partial)[(long long)at.c * slices + at.number] = sum;
}

// The sums of map c over its slices, in lane 0.
__device__ __forceinline__ Two over_slices(const double *partial, int c, int slices)
{
    Two sum = {0, 0};
    for (int s = threadIdx.x % 32; s < slices; s += 32) {
        Two each = ((const Two *)partial)[(long long)c * slices + s];
        sum.a += each.a, sum.b += each.b;
    }
    return over_lanes(sum);
}

extern "C" __global__ void batch_norm_statistics(const double *partial, const stored *x, float *mean, float *var,
    float *running_mean, float *running_var, long long L, int C, int slices, double momentum)
{
    int c = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (c >= C) return;
    Two sum = over_slices(partial, c, slices);
    if (threadIdx.x % 32 != 0) return;
    double middle = in_float(x[c * L]) + sum.a / L, spread = sum.b - sum.a * sum.a / L;
    if (spread < 0) spread = 0;                                             // and a NaN stays one
    mean[c] = (float)middle, var[c] = (float)(spread / L);
    running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * middle);
    running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * (spread / max(L - 1, 1LL)));
}

extern "C" __global__ void batch_norm_gradients(const double *partial, const float *var, float *dgamma, float *dbeta,
    int C, int slices, float eps)
{
    int c = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (c >= C) return;
    Two sum = over_slices(partial, c, slices);
    if (threadIdx.x % 32 != 0) return;
    dbeta[c] = (float)sum.a;
    dgamma[c] = (float)(sum.b / sqrt((double)var[c] + eps));
}

// The map of this block, and the pack of this thread in it. False beyond the map's end.
struct Place { int c; long long i; };

__device__ __forceinline__ bool my_place(Place &at, long long L, int C)
{
    int blocks = gridDim.x / C;                                             // of a map
    at.c = blockIdx.x / blocks;
    int i = blockIdx.x % blocks * blockDim.x + threadIdx.x;                 // number of the pack in the map
    at.i = at.c * (L / LANES) + i;
    return i < L / LANES;
}

extern "C" __global__ void batch_norm_forward(const stored *x, const float *gamma, const float *beta, const float *mean,
    const float *var, stored *y, long long L, int C, float eps)
{
    Place at;
    if (!my_place(at, L, C)) return;
    float factor = gamma[at.c] / sqrtf(var[at.c] + eps), middle = mean[at.c], constant = beta[at.c];
    Pack p = ((const Stored *)x)[at.i];
    for (int k = 0; k < LANES; k++) p.v[k] = (p.v[k] - middle) * factor + constant;
    ((Stored *)y)[at.i] = p;
}

extern "C" __global__ void batch_norm_backward(const stored *dy, const stored *x, const float *gamma, const float *mean,
    const float *var, const float *dgamma, const float *dbeta, stored *dx, long long L, int C, float eps)
{
    Place at;
    if (!my_place(at, L, C)) return;
    float root = sqrtf(var[at.c] + eps), factor = gamma[at.c] / root, middle = mean[at.c];
    float of_normal = dgamma[at.c] / root / L, constant = dbeta[at.c] / L;
    Pack p = ((const Stored *)x)[at.i], g = ((const Stored *)dy)[at.i];
    for (int k = 0; k < LANES; k++) g.v[k] = (g.v[k] - ((p.v[k] - middle) * of_normal + constant)) * factor;
    ((Stored *)dx)[at.i] = g;
}

extern "C" __global__ void batch_norm_scale(const stored *dy, const float *gamma, const float *var, stored *dx, long long L,
    int C, float eps)
{
    Place at;
    if (!my_place(at, L, C)) return;
    float factor = gamma[at.c] / sqrtf(var[at.c] + eps);
    Pack g = ((const Stored *)dy)[at.i];
    for (int k = 0; k < LANES; k++) g.v[k] *= factor;
    ((Stored *)dx)[at.i] = g;
}
