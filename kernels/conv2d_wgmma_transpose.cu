/* conv2d_wgmma_transpose.cu - level 8 of the ladder in conv2d.cu: the transposed convolution for a Hopper GPU, whose tiles come
   by TMA and are multiplied by wgmma

   dx[c,h,v,n] = sum over f,r,s   w[c,r,s,f] * dy[f,p,q,n]       where p*S-P+r = h and q*S-P+s = v
                 (and 0 where on[c,h,v,n] is not above 0, if rectified: the gradient below a ReLU that left `on`)

   dy (F,Ho,Wo,N)   w (C/groups,K,K,F)   bf16, as its 16 bits     dx (C,H,W,N) bf16 or float32; on like dx, of bf16 alone

   As conv2d_wgmma.cu, with maps and filters exchanged. The rows of a tile are taken from the S*S phases of dx (axis.cuh), one
   after the other, of each the maps in boxes of BOX: with neighbouring phases in one tile what they read of dy comes once, and
   two phases of 96 maps are a tile of 192. Of the taps of the first a later phase has not all: TMA writes zeros for its filters
   then, beyond the window, and 64 rows that are all zeros are not multiplied. The filters are read as they are: a box of them
   has maps as rows now and runs along the sum, which for bf16 wgmma can take either way.

   spec      zfcore/ops/conv2d.py: conv2d_backward_reference, of rounded factors

   It has never run on hardware. */
#include <ptx.cuh>
#include <wgmma_windows.cuh>
static_assert(CHUNK == 64, "a box of filters is one step along the sum");

/* Pairs of tiles: slices * groups * those of tiles_m by tiles_n tiles, of maps of all phases and of columns of one. dy is seen
   as (groups,F/groups,Ho,Wo,N), w as (C/groups,K,K,groups,F/groups); dx (slices,C,H,W,N), of several slices float32 */
extern "C" __global__ void __cluster_dims__(PAIR, 1, 1) __launch_bounds__(THREADS, 1) conv2d_wgmma_transpose(
    const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w, const OUTPUT *on, OUTPUT *dx,
    Conv conv, int tiles_m, int tiles_n, int slices, int rectified)
{
    DYN_SHARED(raw);
    Gather work = {
        .w = &w, .x = &dy, .b = nullptr, .on = rectified ? on : nullptr, .y = dx,
        .conv = conv,
        .M = conv.maps(), .maps = conv.filters(),
        .relu = false, .transposed = true, .S = conv.S,
        .tiles_m = tiles_m, .tiles_n = tiles_n, .slices = slices};
    walk<false, true>(work, slices * conv.groups * work.pairs(), *reinterpret_cast<WgmmaRing *>(raw));
}
