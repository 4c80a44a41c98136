/* conv2d_wgmma.cu - level 8 of the ladder in conv2d.cu: the forward convolution for a Hopper GPU, whose tiles come by TMA and
   are multiplied by wgmma

   y[f,p,q,n] = b[f] + sum over c,r,s   w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n]        (then max(y, 0) if relu)

   x (C,H,W,N)   w (C/groups,K,K,F)   bf16, as its 16 bits     b (F,) float32     y (F,Ho,Wo,N) bf16 or float32

   N and F/groups are multiples of 8: TMA wants whole 16 bytes. Else as conv2d.cu has it.

   CHUNK maps of a tap are a step of the sum: 48 where that leaves fewer beyond the last, as of 96, which multiply zeros.

   traffic   two blocks of 128 x 256 results that see the same windows fetch 64 KiB for 8.4 MFLOP: of the L2 cache 1/128 byte
             per FLOP; two with the same filters 80 KiB, 1/102
   order     tap by tap, of each the maps in sixteens; zeros change nothing (wgmma_windows.cuh). No atomics
   spec      zfcore/ops/conv2d.py: conv2d_reference, of rounded factors

   It has never run on hardware. */
#include <ptx.cuh>
#include <wgmma_windows.cuh>

/* Pairs of tiles: slices * groups * those that tiles_m by tiles_n tiles of maps and columns make; any number of clusters shares
   them. x is seen as (groups,C/groups,H,W,N), w as (C/groups,K,K,groups,F/groups); y (slices,F,Ho,Wo,N), of several slices
   float32, bias and ReLU left to their sum */
extern "C" __global__ void __cluster_dims__(PAIR, 1, 1) __launch_bounds__(THREADS, 1) conv2d_wgmma_forward(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const float *b, OUTPUT *y,
    Conv conv, int tiles_m, int tiles_n, int slices, int biased, int relu)
{
    DYN_SHARED(raw);
    Gather work = {
        .w = &w, .x = &x, .b = biased ? b : nullptr, .on = nullptr, .y = y,
        .conv = conv,
        .M = conv.filters(), .maps = conv.maps(),
        .relu = relu != 0, .transposed = false, .S = 1,
        .tiles_m = tiles_m, .tiles_n = tiles_n, .slices = slices};
    walk<true, true>(work, slices * conv.groups * work.pairs(), *reinterpret_cast<WgmmaRing *>(raw));
}
