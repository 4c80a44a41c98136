/* conv2d_transpose.cu - level 5 of the ladder in conv2d.cu: the transposed convolution, which is the data gradient and the
   filtering of the deconvnet

   dx[c,h,v,n] = sum over f,r,s   w[c,r,s,f] * dy[f,p,q,n]       where p*S-P+r = h and q*S-P+s = v

   dy (F,Ho,Wo,N)   w (C/groups,K,K,F)   dx (C,H,W,N)   stored, C-contiguous

   Each of the S*S phases of dx is a gather as the forward pass is one (windows.cuh), of the filters as conv2d_filters.cu leaves
   them: a row of a tile of filters, which are a group's maps of one tap, then lies in one piece.

   traffic   4*(C*H*W*N + F*Ho*Wo*N + C/groups*K*K*F) bytes; FLOP and order as conv2d.cu has them
   spec      zfcore/ops/conv2d.py: conv2d_backward_reference */
#include <windows.cuh>

/* blockIdx.x = tile of columns * (tiles of maps) + tile of maps, blockIdx.y = group, blockIdx.z = phase of the row * S + phase
   of the column. transposed (F,K,K,C/groups) = w with maps and filters exchanged */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_transpose(
    const stored *dy, const stored *transposed, stored *dx, Conv conv)
{
    SHARED_TILES(Windows, shared);
    int maps = conv.maps(), filters = conv.filters(), group = blockIdx.y, phase = blockIdx.z, tiles_m = (maps + BM - 1) / BM;
    Windows block = {
        .w = transposed, .x = dy, .y = dx,
        .w_group = (long long)group * filters * conv.K * conv.K * maps,
        .x_group = (long long)group * filters * conv.Ho * conv.Wo * conv.N,
        .y_group = (long long)group * maps * conv.H * conv.W * conv.N,
        .maps = filters, .M = maps, .M_all = maps,
        .H = conv.Ho, .W = conv.Wo, .N = conv.N, .images = conv.N, .K = conv.K,
        .m0 = (int)(blockIdx.x % tiles_m) * BM,
        .shared = &shared.reduction};
    int tiles = block.begin(transpose_axis(conv.H, conv.Ho, conv.K, conv.S, conv.P, phase / conv.S),
                            transpose_axis(conv.W, conv.Wo, conv.K, conv.S, conv.P, phase % conv.S), blockIdx.x / tiles_m);
    if (tiles < 0) return;
    float sum[TM][TN];
    multiply(block, tiles, shared, sum);
    block.store(sum);
}
