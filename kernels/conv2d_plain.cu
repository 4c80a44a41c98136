/* conv2d_plain.cu - level 1 of the ladder in conv2d.cu: one thread computes one number of y, dx or dw.

   Formulas and shapes are those of conv2d.cu. The engine launches none of them: they are to be read first, and for tests and
   bench to hold the other levels against, which give their bits in fp32, but for the filter gradient, a sum in another order.

   traffic   2 numbers read per FMA, as far as no cache has them
   spec      zfcore/ops/conv2d.py: conv2d_reference, conv2d_backward_reference */
#include <ptx.cuh>
#include <conv.cuh>

/* one thread = one y; a warp walks n, so x is read and y written coalesced, and w is the same for the whole warp */
extern "C" __global__ void conv2d_plain(const float *x, const float *w, const float *b, float *y,
    Conv conv, int biased, int relu)
{
    const auto [C, H, W, N, F, K, S, P, Ho, Wo, groups] = conv;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of y
    if (i >= (long long)F * Ho * Wo * N) return;
    int n = i % N, q = i / N % Wo, p = i / N / Wo % Ho, f = i / N / Wo / Ho;
    int maps = C / groups, first = f / (F / groups) * maps;                 // the maps that filter f sees
    float sum = 0;
    for (int c = 0; c < maps; c++)
        for (int r = 0; r < K; r++)
            for (int s = 0; s < K; s++) {
                int h = p * S - P + r, v = q * S - P + s;
                if (h < 0 || h >= H || v < 0 || v >= W) continue;
                sum += w[((long long)(c * K + r) * K + s) * F + f] * x[(((long long)(first + c) * H + h) * W + v) * N + n];
            }
    if (biased) sum += b[f];
    y[i] = relu && sum < 0 ? 0 : sum;                                       // NaN stays NaN
}

/* one thread = one dx. Of the taps r only every S-th meets row h: r = (h + P) mod S, then p goes down as r goes up. */
extern "C" __global__ void conv2d_transpose_plain(const float *dy, const float *w, float *dx, Conv conv)
{
    const auto [C, H, W, N, F, K, S, P, Ho, Wo, groups] = conv;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of dx
    if (i >= (long long)C * H * W * N) return;
    int n = i % N, v = i / N % W, h = i / N / W % H, c = i / N / W / H;
    int filters = F / groups, first = c / (C / groups) * filters, cg = c % (C / groups);
    float sum = 0;
    for (int f = first; f < first + filters; f++)
        for (int r = (h + P) % S; r < K; r += S)
            for (int s = (v + P) % S; s < K; s += S) {
                int p = (h + P - r) / S, q = (v + P - s) / S;
                if (h + P < r || p >= Ho || v + P < s || q >= Wo) continue;
                sum += w[((long long)(cg * K + r) * K + s) * F + f] * dy[(((long long)f * Ho + p) * Wo + q) * N + n];
            }
    dx[i] = sum;
}

/* one thread = one dw */
extern "C" __global__ void conv2d_filter_gradient_plain(const float *x, const float *dy, float *dw, Conv conv)
{
    const auto [C, H, W, N, F, K, S, P, Ho, Wo, groups] = conv;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         // flat index of dw
    int maps = C / groups;
    if (i >= (long long)maps * K * K * F) return;
    int f = i % F, s = i / F % K, r = i / F / K % K, c = i / F / K / K + f / (F / groups) * maps;
    float sum = 0;
    for (int p = 0; p < Ho; p++)
        for (int q = 0; q < Wo; q++) {
            int h = p * S - P + r, v = q * S - P + s;
            if (h < 0 || h >= H || v < 0 || v >= W) continue;
            for (int n = 0; n < N; n++)
                sum += x[(((long long)c * H + h) * W + v) * N + n] * dy[(((long long)f * Ho + p) * Wo + q) * N + n];
        }
    dw[i] = sum;
}
