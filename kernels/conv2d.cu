/* conv2d.cu - convolution with its two gradients, batch last. Its data gradient is the transposed convolution of the
   deconvnet.

   y[f,p,q,n]  = b[f] + sum over c,r,s   w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n]     (x outside the map is 0; then max(y, 0)
                                                                                     if relu)
   dx[c,h,v,n] = sum over f,r,s          w[c,r,s,f] * dy[f,p,q,n]                   where p*S-P+r = h and q*S-P+s = v
   dw[c,r,s,f] = sum over p,q,n          x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]
   db[f]       = sum over p,q,n          dy[f,p,q,n]

   x, dx  (C,H,W,N)         y, dy  (F,Ho,Wo,N)         w, dw  (C/groups,K,K,F)         b, db  (F,)
   b, db and dw are float32, the others stored (device/stored.cuh); all C-contiguous. Group g of filters (F/groups of them)
   sees group g of maps (C/groups of them) only.
   Any size, stride and padding; windows may reach over any border; Ho, Wo are the caller's. Offsets are 64 bits wide; a
   map H*W, a filter C/groups*K*K and a batch N must each stay below 2^31 elements.

   floor     2 * F*Ho*Wo*N * C/groups*K*K FLOP per pass, less the taps that fall outside the map, over the rate of fp32
             FMAs; for conv1 of ZFNet nearly as much the bytes of y, which each pass moves once
   traffic   a block of 128 x 128 results copies 1 KiB per step of the reduction for 32768 FLOP, in BF16 half of it: what the L2
             cache must deliver is 1/32 byte per FLOP, or 1/64; main memory only sees each array about once
   order     in fp32 every y and dx is one chain of FMAs over its own taps, c (or f) slowest, then r, then s, whatever the tile
             and the batch: the fast kernels give the bits of the plain ones. On tensor cores it is one chain of mma, whose
             steps are the same whatever the tile and the batch (windows.cuh). So an image has the same bits in any batch, and
             a window cut out of a map those of the map. The filter gradient is cut into slices by shapes alone and these
             are added in order. No atomics.
   spec      zfcore/ops/conv2d.py: conv2d_reference, conv2d_backward_reference

   A ladder of eight levels, one idea each, to be read in this order:
     1  one thread computes one number                                 conv2d_plain.cu
     2  a block multiplies two tiles in shared memory, a thread 8x8    device/tiles.cuh: multiply_tiles
     3  the next tiles are copied while these are multiplied           device/ring.cuh: multiply
     4  tensor cores multiply the two tiles, in shorter numbers        device/tensor_tiles.cuh, where PRECISION is not FP32
     5  tiles are filled with windows, on the way up and on the way    device/windows.cuh: Windows
        down; taps that miss the map are never copied                  here, and conv2d_transpose.cu
     6  tiles are filled with windows and gradients                    device/products.cuh: Products, and conv2d_gradient.cu
     7  the max pool behind ReLU is folded out of the tiles, and on    conv2d_maxpool.cu,
        the way down into them                                         conv2d_maxpool_gradient.cu
     8  of bf16 in memory: a warp of its own has tiles fetched, whole  device/wgmma_ring.cuh, wgmma_windows.cuh: Gather,
        warpgroups multiply them in shared memory, and two blocks      conv2d_wgmma.cu, _transpose.cu and _gradient.cu,
        share what both read; Hopper alone                             and of level 7 conv2d_wgmma_maxpool.cu and
                                                                       conv2d_wgmma_maxpool_gradient.cu
   The engine launches levels 5 to 8; level 1 is there to be read first and to hold them against. Around them conv2d_filters.cu
   turns the filters for the way down, and conv2d_sums.cu adds what was cut into slices. A file has one kernel at most that is
   made of tiles: all kernels of a file are compiled together, once for each size of the tiles.
   None of them has run on hardware yet. */
#include <ptx.cuh>
#include <windows.cuh>

/* blockIdx.x = tile of columns * (tiles of maps) + tile of maps, so that blocks that read the same windows run together;
   blockIdx.y = group, blockIdx.z = slice of the reduction. y (slices,F,Ho,Wo,N), with SUMS float32 whatever is stored; of
   several slices y is only the sum of all, to which bias and ReLU are then left */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_forward(
    const stored *x, const stored *w, const float *b, result *y,
    Conv conv, int biased, int relu)
{
    SHARED_TILES(Windows, shared);
    int maps = conv.maps(), filters = conv.filters(), group = blockIdx.y, tiles_m = (filters + BM - 1) / BM;
    Windows block = {
        .w = w, .x = x, .y = y,
        .w_group = group * filters,
        .x_group = (long long)group * maps * conv.H * conv.W * conv.N,
        .y_group = ((long long)blockIdx.z * conv.F + group * filters) * conv.Ho * conv.Wo * conv.N,
        .maps = maps, .M = filters, .M_all = conv.F,
        .H = conv.H, .W = conv.W, .N = conv.N, .images = conv.N, .K = conv.K,
        .m0 = (int)(blockIdx.x % tiles_m) * BM,
        .shared = &shared.reduction};
    float sum[TM][TN];
    int tiles = block.begin(forward_axis(conv.H, conv.Ho, conv.K, conv.S, conv.P),
                            forward_axis(conv.W, conv.Wo, conv.K, conv.S, conv.P), blockIdx.x / tiles_m, blockIdx.z, gridDim.z);
    multiply(block, tiles, shared, sum);
    finish(sum, b + group * filters, block.m0, filters, biased, relu);
    block.store(sum);
}
