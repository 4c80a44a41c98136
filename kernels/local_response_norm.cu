/* local_response_norm.cu - local response normalisation across maps (the paper's local contrast normalisation), forward and
   backward in one pass each; forward also with the max pool in front of it.
   s[c]  = k + a * (sum of x[j]^2 over the maps j = c-BELOW .. c-BELOW+NEIGHBOURS-1, cut at the first and the last map)
   y[c]  = x[c] / s[c]^beta
   dx[c] = dy[c] / s[c]^beta - 2*a*beta * x[c] * (sum of t[j] over the maps j that have c among theirs)
   t[j]  = dy[j] * x[j] / s[j]^(beta+1)                           all at the same pixel of the same image
   With RELU dx is 0 where x is not above 0: on through the ReLU that x came out of, with x at hand

   x, y, dy, dx   (C,L)   stored    C-contiguous; L = H*W*N, the pixels of all images
   a = alpha/n ("mean") or alpha ("sum"); NEIGHBOURS = n, BELOW = n/2, BETA = beta: macros, so that the maps live in registers

   behind a pool: x[c,p,q,n] are the maxima of maps (C,H,W,N) over windows, switches where they were, as maxpool.cu has them;
   local_response_norm_of_maxpool forms, keeps and normalises them

   work      one thread = one pixel of one image in `maps` maps, which it walks with n maps in registers; MAPS maps
             are loaded together so that enough loads are in flight. A warp walks the pixels: every access is coalesced.
             No sum is carried along: one that adds the newest map and takes off the oldest would lose small maps behind
             large ones
   traffic   forward 8*C*L bytes, backward 12*C*L (s is computed again, not stored), and the NEIGHBOURS-1 maps around each slab
             of `maps` once more from cache. Behind a pool 4*C*H*W*N + 9*C*L: the maxima are written for the way back, but
             not read again. Over the bandwidth, that is the floor
   spec      zfcore/ops/local_response_norm.py: local_response_norm_reference, local_response_norm_backward_reference  */
#include <stored.cuh>
#ifndef NEIGHBOURS
#define NEIGHBOURS 5
#define BETA 0.75f
#endif
#ifndef RELU
#define RELU 0
#endif
#define BELOW (NEIGHBOURS / 2)
#define CARRY (NEIGHBOURS - 1)      // maps kept from one group of MAPS to the next
#define FORWARD_MAPS 8
#define BACKWARD_MAPS 4

__device__ __forceinline__ float map_at(const stored *column, int c, int C, long long L)
{
    return c >= 0 && c < C ? in_float(column[c * L]) : 0;
}

__device__ __forceinline__ float maps_scale(const float *x, float a, float k)          // s of the NEIGHBOURS maps from x on
{
    float sum = 0;
#pragma unroll
    for (int j = 0; j < NEIGHBOURS; j++) sum += x[j] * x[j];
    return k + a * sum;
}

__device__ __forceinline__ float inverse_power(float s)                                // s^-beta
{
    if (BETA != 0.75f) return powf(s, -BETA);
    float root = rsqrtf(s);
    return root * root * rsqrtf(root);
}

// What this thread works on: pixel i, maps first .. last-1. False beyond the last pixel. The slabs of the same pixels are
// neighbouring blocks, so that the maps around them meet in cache.
struct Slab { long long i; int first, last; };

__device__ __forceinline__ bool my_slab(Slab &at, long long L, int C, int maps)
{
    unsigned slabs = (C + maps - 1) / maps;
    at.i = (long long)(blockIdx.x / slabs) * blockDim.x + threadIdx.x;
    at.first = blockIdx.x % slabs * maps;
    at.last = min(at.first + maps, C);
    return at.i < L;
}

extern "C" __global__ void local_response_norm_forward(const stored *x, stored *y, long long L, int C, int maps,
    float a, float k)
{
    Slab at;
    if (!my_slab(at, L, C, maps)) return;
    x += at.i, y += at.i;
    float v[CARRY + FORWARD_MAPS];                                          // maps c - BELOW ..
#pragma unroll
    for (int j = 0; j < CARRY; j++) v[j] = map_at(x, at.first - BELOW + j, C, L);
    for (int c = at.first; c < at.last; c += FORWARD_MAPS) {
#pragma unroll
        for (int j = CARRY; j < CARRY + FORWARD_MAPS; j++) v[j] = map_at(x, c - BELOW + j, C, L);
#pragma unroll
        for (int j = 0; j < FORWARD_MAPS; j++)
            if (c + j < at.last) y[(c + j) * L] = as_stored(v[j + BELOW] * inverse_power(maps_scale(v + j, a, k)));
#pragma unroll
        for (int j = 0; j < CARRY; j++) v[j] = v[j + FORWARD_MAPS];
    }
}

#ifndef POOL
#define POOL 3                      // the pool's window and stride
#define STRIDE 2
#endif
#define POOLED_MAPS 2

// The windows of one output of the pool in all maps: maximum(c) is that of map c, 0 beyond the maps, kept if the slab owns c.
struct Windows {
    const stored *x;                // (C,H,W,N), from image n on
    stored *maxima;                 // (C,L), from this output on, and so is the next
    unsigned char *switches;
    int h0, w0, H, W, N, C;
    long long L;

    __device__ __forceinline__ float maximum(int c, const Slab &at) const
    {
        if (c < 0 || c >= C) return 0;
        const stored *map = x + (long long)c * H * W * N;
        float best = __int_as_float(0xff800000);                            // -infinity
        int where = max(-h0, 0) * POOL + max(-w0, 0);
#pragma unroll
        for (int r = 0; r < POOL; r++)
#pragma unroll
            for (int s = 0; s < POOL; s++) {
                int h = h0 + r, w = w0 + s;
                float a = __int_as_float(0xff800000);                       // outside the map: never higher
                if (h >= 0 && h < H && w >= 0 && w < W) a = in_float(map[((long long)h * W + w) * N]);
                if (!(a <= best) && best == best) best = a, where = r * POOL + s;      // higher, or the first NaN
            }
        if (c >= at.first && c < at.last) maxima[c * L] = as_stored(best), switches[c * L] = where;
        return best;
    }
};

extern "C" __global__ void local_response_norm_of_maxpool(const stored *x, stored *maxima, unsigned char *switches, stored *y,
    int H, int W, int Ho, int Wo, int N, int P, int C, int maps, float a, float k)
{
    const long long L = (long long)Ho * Wo * N;
    Slab at;
    if (!my_slab(at, L, C, maps)) return;
    int n = at.i % N, q = at.i / N % Wo, p = at.i / N / Wo;
    Windows windows = {x + n, maxima + at.i, switches + at.i, p * STRIDE - P, q * STRIDE - P, H, W, N, C, L};
    y += at.i;
    float v[CARRY + POOLED_MAPS];                                           // maps c - BELOW ..
#pragma unroll
    for (int j = 0; j < CARRY; j++) v[j] = windows.maximum(at.first - BELOW + j, at);
    for (int c = at.first; c < at.last; c += POOLED_MAPS) {
#pragma unroll
        for (int j = CARRY; j < CARRY + POOLED_MAPS; j++) v[j] = windows.maximum(c - BELOW + j, at);
#pragma unroll
        for (int j = 0; j < POOLED_MAPS; j++)
            if (c + j < at.last) y[(c + j) * L] = as_stored(v[j + BELOW] * inverse_power(maps_scale(v + j, a, k)));
#pragma unroll
        for (int j = 0; j < CARRY; j++) v[j] = v[j + POOLED_MAPS];
    }
}

// t and dy/s^beta run BELOW maps ahead of dx, and x as far ahead of them as neighbours reach: NEIGHBOURS-1 in all.
extern "C" __global__ void local_response_norm_backward(const stored *dy, const stored *x, stored *dx, long long L, int C,
                                                        int maps, float a, float k)
{
    Slab at;
    if (!my_slab(at, L, C, maps)) return;
    dy += at.i, x += at.i, dx += at.i;
    float v[CARRY + BACKWARD_MAPS];                                         // x of maps c ..
    float t[CARRY + BACKWARD_MAPS];                                         // t of maps c + BELOW - CARRY ..
    float d[BELOW + BACKWARD_MAPS];                                         // dy/s^beta of maps c ..
    int before = (CARRY + BACKWARD_MAPS - 1) / BACKWARD_MAPS * BACKWARD_MAPS;      // maps that only fill t and d
#pragma unroll
    for (int j = 0; j < CARRY; j++) t[j] = 0, v[j] = map_at(x, at.first - before + j, C, L);
#pragma unroll
    for (int j = 0; j < BELOW; j++) d[j] = 0;
    for (int c = at.first - before; c < at.last; c += BACKWARD_MAPS) {
#pragma unroll
        for (int j = 0; j < BACKWARD_MAPS; j++) {
            v[CARRY + j] = map_at(x, c + CARRY + j, C, L);
            d[BELOW + j] = map_at(dy, c + BELOW + j, C, L);
        }
#pragma unroll
        for (int j = 0; j < BACKWARD_MAPS; j++) {                       // of map c + BELOW + j, whose first neighbour is v[j]
            float s = maps_scale(v + j, a, k);
            d[BELOW + j] *= inverse_power(s);
            t[CARRY + j] = __fdividef(d[BELOW + j] * v[BELOW + j], s);
        }
#pragma unroll
        for (int j = 0; j < BACKWARD_MAPS; j++) {
            float sum = 0;                                                  // over maps c+j + BELOW-CARRY .. c+j + BELOW
#pragma unroll
            for (int m = 0; m < NEIGHBOURS; m++) sum += t[j + m];
            if (c + j >= at.first && c + j < at.last)
                dx[(c + j) * L] = as_stored(RELU && !(v[j] > 0) ? 0 : d[j] - 2 * a * BETA * v[j] * sum);
        }
#pragma unroll
        for (int j = 0; j < CARRY; j++) v[j] = v[j + BACKWARD_MAPS], t[j] = t[j + BACKWARD_MAPS];
#pragma unroll
        for (int j = 0; j < BELOW; j++) d[j] = d[j + BACKWARD_MAPS];
    }
}
