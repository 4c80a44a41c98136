/* local_response_norm_within.cu - local response normalisation within maps, forward in one pass and backward in two.
   s[p,q]  = k + a * (sum of x[h,w]^2 over the window of (p,q), cut at the border)
   y[p,q]  = x[middle of (p,q)] / s[p,q]^beta
   t[p,q]  = dy[p,q] * x[middle of (p,q)] / s[p,q]^(beta+1)
   dx[h,w] = dy[p,q] / s[p,q]^beta, of the (p,q) whose middle is (h,w), if one is, - 2*a*beta * x[h,w] * (sum of t over the windows
             that hold (h,w))                                           all of the same map of the same image
   window of (p,q) = rows p-P .. p-P+WINDOW-1, columns alike; its middle is row p-P+WINDOW/2. WINDOW is odd, P <= WINDOW/2

   x, dx     (C,H,W,N)    stored     C-contiguous, as are all below
   y, dy     (C,Ho,Wo,N)  stored     Ho = H + 2P + 1 - WINDOW, Wo alike: the size of x where P = WINDOW/2
   t         (C,Ho,Wo,N)  float32, and so is `first`, the first term of dx, like dx
   a = alpha/n^2 ("mean") or alpha ("sum"); WINDOW = n, BETA = beta: macros, so that small windows unroll

   work      one thread = LANES neighbouring images of one y, or of one pixel of dx: `terms` forms t and the first term of dx,
             `backward` takes the second off. The rows of all maps lie one behind another and are cut into blocks without a
             gap. A warp walks n: every access is coalesced
   traffic   forward 8*C*H*W*N bytes, backward 12*C*H*W*N: over the bandwidth, that is the floor. Windows overlap: x is read again
             from cache. The two passes of backward move 32*C*H*W*N, since t and the first term go through memory; within one
             pass each t would be formed n^2 times
   sums      in row order of the window, backward in row order of the windows: the same bits in every run
   spec      zfcore/ops/local_response_norm_within.py: local_response_norm_within_reference,
             local_response_norm_within_backward_reference                                                */
#include <rows.cuh>
#ifndef LANES
#define LANES 4                     // divides N
#endif
#include <stored.cuh>
#ifndef WINDOW
#define WINDOW 3
#define BETA 0.75f
#endif
const int R = WINDOW / 2;

__device__ __forceinline__ float inverse_power(float s)                                // s^-beta
{
    if (BETA != 0.75f) return powf(s, -BETA);
    float root = rsqrtf(s);
    return root * root * rsqrtf(root);
}

// The images `pack` of one map of height x width pixels.
template <class Held> struct Map {
    const Held *first;
    int height, width, packs;

    __device__ __forceinline__ Pack at(int h, int w) const                            // 0 outside the map
    {
        Pack a;
        for (int j = 0; j < LANES; j++) a.v[j] = 0;
        if (h >= 0 && h < height && w >= 0 && w < width) a = first[((long long)h * width + w) * packs];
        return a;
    }
};

template <class Held>
__device__ __forceinline__ Map<Held> map_of(const Held *maps, const Place &at, int height, int width, int packs)
{
    return {maps + (long long)at.map * height * width * packs + at.pack, height, width, packs};
}

// Sum over the window around (h,w) of the numbers in it, or of their squares.
template <bool squares, class Held> __device__ __forceinline__ Pack window_sum(const Map<Held> &map, int h, int w)
{
    Pack sum;
    for (int j = 0; j < LANES; j++) sum.v[j] = 0;
#pragma unroll (WINDOW < 6 ? WINDOW : 1)
    for (int r = -R; r <= R; r++)
#pragma unroll (WINDOW < 6 ? WINDOW : 1)
        for (int s = -R; s <= R; s++) {
            Pack a = map.at(h + r, w + s);
            for (int j = 0; j < LANES; j++) sum.v[j] += squares ? a.v[j] * a.v[j] : a.v[j];
        }
    return sum;
}

extern "C" __global__ void local_response_norm_within_forward(const stored *x, stored *y, int rows, int H, int W, int N, int P,
    float a, float k)
{
    int packs = N / LANES, shift = R - P, Ho = H - 2 * shift, Wo = W - 2 * shift;       // of the middle against the output
    Place at;
    if (!my_place(at, rows, Ho, Wo, packs)) return;
    Map<Stored> map = map_of((const Stored *)x, at, H, W, packs);
    Pack sum = window_sum<true>(map, at.row + shift, at.pixel + shift), b = map.at(at.row + shift, at.pixel + shift);
    for (int j = 0; j < LANES; j++) b.v[j] *= inverse_power(k + a * sum.v[j]);
    ((Stored *)y)[(((long long)at.map * Ho + at.row) * Wo + at.pixel) * packs + at.pack] = b;
}

extern "C" __global__ void local_response_norm_within_terms(const stored *dy, const stored *x, float *t, float *first, int rows,
    int H, int W, int N, int P, float a, float k)
{
    int packs = N / LANES, shift = R - P, Ho = H - 2 * shift, Wo = W - 2 * shift;
    Place at;
    if (!my_place(at, rows, H, W, packs)) return;
    int p = at.row - shift, q = at.pixel - shift;                                     // the output in whose middle it is
    Pack d;
    for (int j = 0; j < LANES; j++) d.v[j] = 0;
    if (p >= 0 && p < Ho && q >= 0 && q < Wo) {
        Map<Stored> map = map_of((const Stored *)x, at, H, W, packs);
        long long i = (((long long)at.map * Ho + p) * Wo + q) * packs + at.pack;
        Pack sum = window_sum<true>(map, at.row, at.pixel), b = map.at(at.row, at.pixel);
        d = ((const Stored *)dy)[i];
        for (int j = 0; j < LANES; j++) {
            float s = k + a * sum.v[j];
            d.v[j] *= inverse_power(s);
            b.v[j] = __fdividef(d.v[j] * b.v[j], s);
        }
        ((Pack *)t)[i] = b;
    }
    ((Pack *)first)[(((long long)at.map * H + at.row) * W + at.pixel) * packs + at.pack] = d;
}

extern "C" __global__ void local_response_norm_within_backward(const stored *x, const float *t, const float *first,
    stored *dx, int rows, int H, int W, int N, int P, float a)
{
    int packs = N / LANES, shift = R - P;
    Place at;
    if (!my_place(at, rows, H, W, packs)) return;
    Map<Pack> terms = map_of((const Pack *)t, at, H - 2 * shift, W - 2 * shift, packs);
    Pack sum = window_sum<false>(terms, at.row - shift, at.pixel - shift);
    Pack b = map_of((const Stored *)x, at, H, W, packs).at(at.row, at.pixel);
    long long i = (((long long)at.map * H + at.row) * W + at.pixel) * packs + at.pack;
    Pack d = ((const Pack *)first)[i];
    for (int j = 0; j < LANES; j++) d.v[j] -= 2 * a * BETA * b.v[j] * sum.v[j];
    ((Stored *)dx)[i] = d;
}
