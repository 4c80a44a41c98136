/* conv2d_gradient.cu - the filter gradient, level 6 of the ladder in conv2d.cu

   dw[c,r,s,f] = sum over p,q,n   x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]

   x (C,H,W,N)   dy (F,Ho,Wo,N)   dw (C/groups,K,K,F)   x, dy stored, dw float32; C-contiguous

   work      products.cuh says what a block does, and in which order the sums are added
   traffic   4*(C*H*W*N + F*Ho*Wo*N) bytes, in BF16 half of it, and 4*(slices + 1) per dw; FLOP as conv2d.cu has them
   spec      zfcore/ops/conv2d.py: conv2d_backward_reference */
#include <products.cuh>

struct Outputs {
    const stored *dy;
    typedef long long At;             // offset of dy[0,p,q,n], or -1

    __device__ __forceinline__ long long of_map(const Conv &conv) const { return (long long)conv.Ho * conv.Wo * conv.N; }
    __device__ __forceinline__ At at(const Conv &conv, int p, int q, int n, bool inside) const
    {
        return inside ? ((long long)p * conv.Wo + q) * conv.N + n : -1;
    }
    template <int NUMBERS>
    __device__ __forceinline__ void copy(stored *to, At at, long long map) const
    {
        bool wanted = at >= 0 && map >= 0;
        copy_numbers<NUMBERS>(to, dy + (wanted ? at + map : 0), wanted);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_filter_gradient(
    const stored *x, const stored *dy, float *partial, Conv conv)
{
    SHARED_TILES(Products<Outputs>, shared);
    filter_gradient(x, Outputs{dy}, partial, conv, shared);
}
