"""Convolution of maps with filters, as networks mean it (the filter is not flipped), and its two gradients (paper,
section 1.1: layers 1 to 5).

    y[f,p,q,n]   = b[f] + sum over c,r,s of  w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n]       x outside the map is 0
    dx[c,h,w,n]  = sum over f,r,s of  w[c,r,s,f] * dy[f,p,q,n]                            where p*S-P+r = h, q*S-P+s = w
    dw[c,r,s,f]  = sum over p,q,n of  x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]
    db[f]        = sum over p,q,n of  dy[f,p,q,n]

With `groups` G the maps are dealt into G parts: filters g*F/G ... see only maps g*C/G ..., so w is (C/G,K,K,F).

The NumPy form writes the windows of a few outputs side by side as a matrix of (taps, outputs) that stays in a core's
cache, and multiplies it from the left by the filters. All images of a pixel lie together in memory, so windows are
copied with one pixel of the whole batch as one element. The CUDA form is kernels/conv2d.cu. There `precision` says how
products are formed; maps, filters and sums are float32 in all:

    fp32     by float32 arithmetic, the only one that NumPy has
    fp32x3   as three tf32 products on tensor cores, nearly float32
    tf32     of factors rounded to 11 bits, on tensor cores
    bf16     of factors rounded to 8 bits, on tensor cores
"""
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from zfcore import check
from zfcore.backend import PRECISIONS, Kernel, blocks, empty, parallel, runs_kernels
from zfcore.ops import winograd
from zfcore.ops.maxpool import MaxPoolCache, Pooling, maxpool
from zfcore.ops.window import clear, output_size, pieces, pixels, rectangles, tap_range, tap_spans, workspace

BLOCK = 4*2**20                   # bytes of windows that are multiplied at once


class ConvCache(NamedTuple):
    """What conv2d leaves for its gradients: its arguments, `biased` saying whether there was a bias."""
    x: np.ndarray
    w: np.ndarray
    S: int
    P: int
    groups: int
    biased: bool
    precision: str


# -------------------------------------------------------------------------------------------- the specification
def conv2d_reference(x, w, b, S, P, groups=1, rounding="ceil"):
    """y (F,Ho,Wo,N) in float64, output by output."""
    (C, H, W, N), (_, K, _, F) = x.shape, w.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    y = np.zeros((F, Ho, Wo, N))
    for f, p, q in np.ndindex(F, Ho, Wo):
        first = f//(F//groups)*(C//groups)                            # the first map that filter f sees
        for c, r, s in np.ndindex(C//groups, K, K):
            h, v = p*S - P + r, q*S - P + s
            if 0 <= h < H and 0 <= v < W:
                y[f, p, q] += w[c, r, s, f].astype(np.float64)*x[first + c, h, v]
        if b is not None:
            y[f, p, q] += b[f]
    return y


def conv2d_backward_reference(dy, x, w, S, P, groups=1):
    """(dx, dw, db) in float64: every product of conv2d_reference, walked once more."""
    (C, H, W, N), (_, K, _, F) = x.shape, w.shape
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for f, p, q in np.ndindex(dy.shape[:3]):
        first = f//(F//groups)*(C//groups)
        for c, r, s in np.ndindex(C//groups, K, K):
            h, v = p*S - P + r, q*S - P + s
            if 0 <= h < H and 0 <= v < W:
                dx[first + c, h, v] += w[c, r, s, f].astype(np.float64)*dy[f, p, q]
                dw[c, r, s, f] += np.dot(x[first + c, h, v].astype(np.float64), dy[f, p, q])
    return dx, dw, dy.sum(axis=(1, 2, 3), dtype=np.float64)


# ------------------------------------------------------------------------------------------------- the operation
def conv2d(x, w, b, S, P, groups=1, rounding="ceil", relu=False, precision="fp32"):
    """x (C,H,W,N), w (C/groups,K,K,F), b (F,) or None -> (y (F,Ho,Wo,N), cache).

    S stride, P zeros around the map, Ho and Wo by `output_size(..., rounding)`. relu=True ends in max(y, 0) while y is
    in cache; the cache of the convolution does not depend on it. float32 or float64, one for all three. The gradients
    form their products in the same `precision`. Raises Expected where shapes, dtypes or the precision do not fit."""
    F, Ho, Wo, N = _check_conv2d(x, w, b, S, P, groups, rounding, precision)
    C, K = len(x), w.shape[1]
    y = empty((F, Ho, Wo, N), x.dtype, like=x)
    cache = ConvCache(x, w, S, P, groups, b is not None, precision)
    if runs_kernels(x):
        launch_forward(x, w, b, y, S, P, groups, relu, precision)
        return y, cache
    jobs = []
    for maps, filters in _groups(C, F, groups):
        bias = None if b is None else b[filters]
        if _saves_products(C//groups, F//groups, K, S, N):
            jobs += winograd.forward(x[maps], w[..., filters], bias, S, P, y[filters], relu)
        else:
            matrix = w[..., filters].reshape(-1, F//groups).T                   # (F/G, C/G*K*K)
            jobs += _filter(x[maps], matrix, (K, K), S, (P, P), y[filters], bias, relu)
    parallel(lambda job: job(), jobs)
    return y, cache


def conv2d_maxpool(x, w, b, S, P, pool, groups=1, rounding="ceil", precision="fp32"):
    """`conv2d` with relu=True and `maxpool` behind it -> cache of the convolution, (y, cache of the pool), the same bits.

    `pool` is maxpool's K, S, P, rounding. Where sizes suit, one kernel does both on a device, and the map between them is
    never in memory; elsewhere the two are called. Raises Expected as they do."""
    if not pool_fits(x, w, pool, groups):
        between, cache = conv2d(x, w, b, S, P, groups, rounding, True, precision)
        return cache, maxpool(between, *pool)
    size = _check_conv2d(x, w, b, S, P, groups, rounding, precision)
    return ConvCache(x, w, S, P, groups, b is not None, precision), _launch_pool(x, w, b, S, P, pool, size, precision)


def conv2d_transpose(dy, w, S, P, H, W, groups=1, precision="fp32"):
    """dy (F,Ho,Wo,N), w (C/groups,K,K,F) -> dx (C,H,W,N): the data gradient of conv2d on maps of H x W.

    This is the transposed convolution, the filtering of the deconvnet: each filter flipped and applied to the maps above
    (paper, section 2.1). For S > 1 nothing is stuffed with zeros: dx is taken apart into S*S phases by row and column
    modulo S; the pixels of one phase meet the same every S-th taps, so each phase is a plain convolution of dy with
    stride 1. Where maps are few, as below layer 1, the windows of dy would be many times larger than what is made of them;
    there dy is multiplied by the filters first, and the products are added to the pixels tap by tap. Raises Expected where shapes do not fit, dy's size to H and W among them."""
    check.shape("conv2d_transpose dy", dy, (None, None, None, None))
    check_precision("conv2d_transpose precision", dy, precision)
    check.dtype("conv2d_transpose dy", dy, np.float32, np.float64)
    check.shape("conv2d_transpose w", w, (None, None, None, dy.shape[0]))
    (Cg, K, _, F), N = w.shape, dy.shape[-1]
    C = Cg*groups
    _check_filters("conv2d_transpose", w, C, groups, dy.dtype)
    _check_size("conv2d_transpose dy", dy, H, W, K, S, P)
    dx = empty((C, H, W, N), dy.dtype, like=dy)
    if runs_kernels(dy):
        _launch_transpose(dy, w, dx, S, P, groups, precision)
        return dx
    jobs = []
    for maps, filters in _groups(C, F, groups):
        if _saves_products(Cg, F//groups, K, S, N):
            jobs += winograd.transpose(dy[filters], w[..., filters], S, P, dx[maps])
            continue
        if _maps_are_few(Cg, F//groups):
            jobs += _add_taps(dy[filters], w[..., filters], S, P, dx[maps])
            continue
        for rows, taps_r, Pr in _phases(K, S, P):
            for columns, taps_s, Ps in _phases(K, S, P):
                out = dx[maps, rows, columns]
                phase = w[:, taps_r, taps_s, filters][:, ::-1, ::-1]            # (C/G,Kr,Ks,F/G), flipped
                if phase.size == 0:
                    out[...] = 0                                                # between the windows, where S > K
                else:
                    matrix = phase.transpose(0, 3, 1, 2).reshape(Cg, -1)        # (C/G, F/G*Kr*Ks)
                    jobs += _filter(dy[filters], matrix, phase.shape[1:3], 1, (Pr, Ps), out)
    parallel(lambda job: job(), jobs)
    return dx


def conv2d_backward(dy, cache, need_dx=True):
    """dy (F,Ho,Wo,N) -> (dx or None, dw, db); db is None where the convolution had no bias."""
    x, w, S, P, groups, biased, precision = cache
    (C, H, W, N), (_, K, _, F) = x.shape, w.shape
    check.shape("conv2d_backward dy", dy, (F, None, None, N))
    check.dtype("conv2d_backward dy", dy, x.dtype)
    _check_size("conv2d_backward dy", dy, H, W, K, S, P)
    dx = conv2d_transpose(dy, w, S, P, H, W, groups, precision) if need_dx else None
    if runs_kernels(x):
        dw = launch_filter_gradient(x, dy, w.shape, S, P, groups, precision)
        return dx, dw, _launch_bias_gradient(dy) if biased else None
    dw = empty(w.shape, w.dtype, like=w)
    for maps, filters in _groups(C, F, groups):
        if _saves_products(C//groups, F//groups, K, S, N):
            winograd.filter_gradient(x[maps], dy[filters], S, P, dw[..., filters])
        else:
            _filter_gradient(x[maps], dy[filters], K, S, P, dw[..., filters])
    db = None
    if biased:
        db = np.concatenate(parallel(lambda f: dy[f:f + 8].reshape(len(dy[f:f + 8]), -1).sum(axis=1), range(0, F, 8)))
    return dx, dw, db


# ---------------------------------------------------------------------------------------------------- the blocks
def _filter(x, matrix, K, S, P, out, bias=None, relu=False):
    """Jobs that fill out (M,Ho,Wo,N), which may be strided, with matrix (M, C*Kr*Ks) @ windows of x (C,H,W,N);
    K and P are pairs, rows and columns, and P may be negative: the first window then starts inside the map."""
    M, Ho, Wo, N = out.shape
    taps = matrix.shape[1]
    x_pixels = pixels(x)

    def job(rows, columns):
        block = out[:, rows, columns]                                           # (M,p,q,N)
        flat = block.reshape(M, -1)                                             # a view where whole rows lie together
        windows = _windows(x_pixels, K, S, P, rows, columns).view(x.dtype).reshape(taps, -1)
        if np.may_share_memory(flat, out):
            np.matmul(matrix, windows, out=flat)
        else:
            flat = np.matmul(matrix, windows)
        if bias is not None:
            flat += bias[:, None]
        if relu:
            np.maximum(flat, 0, out=flat)
        if not np.may_share_memory(flat, out):
            block[...] = flat.reshape(block.shape)

    return [lambda at=at: job(*at) for at in rectangles(Ho, Wo, BLOCK//(taps*N*x.itemsize))]


def _add_taps(dy, w, S, P, dx):
    """Jobs that fill dx (C,H,W,N), some rows each: the products of w (C,K,K,F) and dy (F,Ho,Wo,N), added tap by tap in the
    order of the taps to the pixels they belong to."""
    (C, H, W, N), (F, Ho, Wo, _), K = dx.shape, dy.shape, w.shape[1]
    matrix = w.reshape(-1, F)                                                   # (C*K*K,F)

    def job(rows):
        part, tall = dx[:, rows], rows.stop - rows.start
        part[...] = 0
        first, last = max(0, (rows.start + P - K)//S + 1), min(Ho, (rows.stop - 1 + P)//S + 1)   # rows of dy that reach these
        if first >= last:
            return                                                              # between the windows, where S > K
        products = workspace("products", (len(matrix), (last - first)*Wo*N), dy.dtype)
        np.matmul(matrix, dy[:, first:last].reshape(F, -1), out=products)
        products = products.reshape(C, K, K, last - first, Wo, N)
        over = rows.start - first*S + P                                         # pixels of the first window above these rows
        for r, s in np.ndindex(K, K):
            (p0, p1), (q0, q1) = tap_range(r, tall, last - first, S, over), tap_range(s, W, Wo, S, P)
            if p0 < p1 and q0 < q1:
                part[:, p0*S - over + r:(p1 - 1)*S - over + r + 1:S,
                     q0*S - P + s:(q1 - 1)*S - P + s + 1:S] += products[:, r, s, p0:p1, q0:q1]

    return [lambda rows=rows: job(rows) for rows in pieces(H, max(1, BLOCK//(len(matrix)*Wo*N*dy.itemsize))*S)]


def _filter_gradient(x, dy, K, S, P, dw):
    """dw (C,K,K,F) = windows of x (C,H,W,N) @ dy (F,Ho,Wo,N) transposed. A few maps at a time; where maps are few, the
    outputs are dealt into parts as well, whose sums are added in order at the end."""
    C, N, (F, Ho, Wo, _) = x.shape[0], x.shape[-1], dy.shape
    x_pixels = pixels(x)
    of_maps = pieces(C, 512//K**2)
    blocks = rectangles(Ho, Wo, BLOCK//(min(C*K*K, 512)*N*x.itemsize))
    of_blocks = pieces(len(blocks), -(-len(blocks)*len(of_maps)//16))
    sums = np.empty((len(of_blocks), C, K, K, F), x.dtype)

    def job(part, maps):
        total = sums[part, maps].reshape(-1, F)                                 # (c*K*K,F)
        for k, (rows, columns) in enumerate(blocks[of_blocks[part]]):
            windows = _windows(x_pixels[maps], (K, K), S, (P, P), rows, columns).view(x.dtype).reshape(len(total), -1)
            product = np.matmul(windows, dy[:, rows, columns].reshape(F, -1).T, out=None if k else total)
            if k:
                total += product

    parallel(lambda at: job(*at), [(part, maps) for part in range(len(sums)) for maps in of_maps])
    dw[...] = sums.sum(axis=0)


def _windows(x, K, S, P, rows, columns):
    """pixels x (C,H,W) -> (C,Kr,Ks,p,q): the windows of a block of outputs, zeros where they leave the map."""
    C, H, W = x.shape
    p, q = rows.stop - rows.start, columns.stop - columns.start
    windows = workspace("windows", (C, *K, p, q), x.dtype)
    c, h, v = x.strides
    for taps_r, inside_p, top in tap_spans(K[0], H, rows.start, p, S, P[0]):
        for taps_s, inside_q, left in tap_spans(K[1], W, columns.start, q, S, P[1]):
            block = windows[:, taps_r, taps_s]
            inner = block[:, :, :, inside_p, inside_q]
            if inner.shape != block.shape:
                clear(block)
            if inner.size:
                inner[...] = as_strided(x[:, top:, left:], inner.shape, (c, h, v, h*S, v*S))
    return windows


def _saves_products(C, F, K, S, N):
    """Whether Winograd's form is worth its additions: maps and filters many, images enough to add in long runs."""
    return 1 < K <= 3*S and min(C*S*S, F) >= 32 and N >= 16


def _maps_are_few(C, F):
    """Whether the products with C maps are smaller than the windows of F, by enough to pay for adding them."""
    return 4*C <= F


def _phases(K, S, P):
    """The rows (or columns) of dx by phase: for each (rows, taps, padding) as slices and a number, the rows of dx that
    meet just these taps, and the padding of the plain convolution of dy with the taps flipped."""
    for a in range(S):
        first = (a - P) % S                                     # the first row h with (h + P) mod S = a
        count = len(range(a, K, S))
        yield slice(first, None, S), slice(a, K, S), count - 1 - (first + P)//S


def _groups(C, F, groups):
    """(maps, filters) of each group, as slices."""
    Cg, Fg = C//groups, F//groups
    return [(slice(g*Cg, (g + 1)*Cg), slice(g*Fg, (g + 1)*Fg)) for g in range(groups)]


def pool_fits(x, w, pool, groups):
    """Whether the kernel of `conv2d_maxpool` takes these sizes, and gains by it. Of the products it computes about a sixth
    twice, and it saves writing and reading 4 bytes an output: in fp32 that pays up to 300 products an output
    (prediction for an H200, of 60 TFLOP/s and 4.3 TB/s)."""
    (C, K, _, F), (K_pool, S_pool, *_), tile = w.shape, pool, MIDDLE["BM"]
    return (runs_kernels(x) and groups == 1 and x.shape[-1] % IMAGES == 0 and F % tile == 0 and C*K*K <= 300
            and 2 <= S_pool and K_pool <= S_pool + 1)


# --------------------------------------------------------------------------------------------------- the kernels
SIZES = "int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo"
SHAPE = f"{SIZES}, int groups"
FORWARD = f"const float *x, const float *w, const float *b, float *y, {SHAPE}, int biased, int relu"
TRANSPOSE = f"const float *dy, const float *swapped, float *dx, {SHAPE}"
FILTER_GRADIENT = f"const float *x, const float *dy, float *parts, {SHAPE}"

# BM x BN results a block, TM x TN a thread; VECTOR_A floats a copy of filters, VECTOR_B of windows; BLOCKS on an SM
LARGE = dict(BM=128, BN=128, TM=8, TN=8, VECTOR_A=4, VECTOR_B=4, BLOCKS=2)
LARGE_ODD = LARGE | dict(VECTOR_A=1, VECTOR_B=1)
MIDDLE = LARGE | dict(BM=96)                                          # the 96 filters of conv1, the 96 maps of conv2
SMALL = dict(BM=32, BN=32, TM=4, TN=4, VECTOR_A=1, VECTOR_B=1, STAGES=4, BLOCKS=8)        # single pictures
FEW = dict(BM=4, BN=512, TM=4, TN=4, LANES_M=1, VECTOR_A=1, VECTOR_B=4, BLOCKS=4)         # back to the 3 colours
FEW_ODD = FEW | dict(VECTOR_B=1)
COLOURS = dict(BM=64, BN=96, TM=8, TN=8, LANES_M=8, BLOCKS=4)         # the 3*7*7 places of conv1 by its 96 filters

# the same for tensor cores, of which a warp owns 8*TM x 4*TN results
TENSOR_LARGE = dict(BM=128, BN=128, TM=8, TN=16, VECTOR_A=4, VECTOR_B=4, BLOCKS=2)
TENSOR_LARGE_ODD = TENSOR_LARGE | dict(VECTOR_A=1, VECTOR_B=1)
TENSOR_MIDDLE = TENSOR_LARGE | dict(BM=96, TM=6)
TENSOR_SMALL = dict(BM=32, BN=32, TM=2, TN=8, VECTOR_A=1, VECTOR_B=1, STAGES=4, BLOCKS=8)
TENSOR_COLOURS = dict(BM=160, BN=96, TM=10, TN=8, VECTOR_B=4, BLOCKS=2)


def _tiled(name, signature, tiles, tensor_tiles):
    """{precision: a Kernel per tile}"""
    def kernels(tiles):
        return [Kernel("conv2d.cu", name, signature, tile, tile["BM"]//tile["TM"]*(tile["BN"]//tile["TN"]), tile.get("SHARED", 0))
                for tile in tiles]

    return {"fp32": kernels(tiles), **{precision: kernels([tile | dict(PRECISION=precision.upper()) for tile in tensor_tiles])
                                       for precision in PRECISIONS[1:]}}


POOL = (f"const float *x, const float *w, const float *b, float *y, unsigned char *switches, {SIZES}, "
        "int pool_P, int height, int width, int run, int biased")
POOLED = dict(POOL=3, STRIDE=2, SHARED=82944)               # with MIDDLE; shared memory for a stride of 2 or more
IMAGES = 8                                                  # of a block, as in kernels/conv2d.cu

FORWARD_KERNELS = _tiled("conv2d_forward", FORWARD, [LARGE, LARGE_ODD, MIDDLE, SMALL],
                         [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_MIDDLE, TENSOR_SMALL])
TRANSPOSE_KERNELS = _tiled("conv2d_transpose", TRANSPOSE, [LARGE, LARGE_ODD, MIDDLE, SMALL, FEW, FEW_ODD],
                           [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_MIDDLE, TENSOR_SMALL])
FILTER_GRADIENT_KERNELS = _tiled("conv2d_filter_gradient", FILTER_GRADIENT, [LARGE, COLOURS, SMALL],
                                 [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_COLOURS, TENSOR_SMALL])
POOL_KERNELS = {precision: kernel for precision, [kernel] in _tiled(
    "conv2d_pool", POOL, [MIDDLE | POOLED], [TENSOR_MIDDLE | POOLED]).items()}
SWAP_FILTERS = Kernel("conv2d.cu", "conv2d_swap_filters", "const float *w, float *swapped, int C, int T, int F")
BIAS_GRADIENT = Kernel("conv2d.cu", "conv2d_bias_gradient",
                       "const float *dy, float *parts, long long length, int F, int slices")
SUM_SLICES = Kernel("conv2d.cu", "conv2d_sum_slices", "const float *parts, const float *b, float *sum, long long size, "
                    "long long map, int slices, int biased, int relu")

# the same, a thread a number: to be read first, and for tests and bench to hold the others against
PLAIN = Kernel("conv2d.cu", "conv2d_plain", FORWARD)
TRANSPOSE_PLAIN = Kernel("conv2d.cu", "conv2d_transpose_plain", TRANSPOSE.replace("swapped", "w"))
FILTER_GRADIENT_PLAIN = Kernel("conv2d.cu", "conv2d_filter_gradient_plain", FILTER_GRADIENT.replace("parts", "dw"))

SMS = 132                         # multiprocessors the launches are cut for (H200), never asked from the device: the
                                  # slices of a sum decide its bits, which are to be the same on every GPU


def _sizes(x, w, y, S, P, groups):
    """The arguments SHAPE."""
    (C, H, W, N), (F, Ho, Wo, _) = x.shape, y.shape
    return C, H, W, N, F, w.shape[1], S, P, Ho, Wo, groups


def _tiles(kernel, M, columns):
    """How many tiles of `kernel` cover M rows and so many columns."""
    return blocks(M, kernel.defines["BM"])*blocks(columns, kernel.defines["BN"])


def _cost(kernel):
    """What a block costs per step of the reduction, in numbers read from shared memory. Tensor cores are so fast that
    copying the tiles counts too, and 20 products (prediction: 1/20 number per cycle and SM on an H200, by all of tf32)."""
    tile = kernel.defines
    if "PRECISION" not in tile:
        return tile["BM"]*tile["BN"]*(1/tile["TM"] + 1/tile["TN"])
    return tile["BM"]*tile["BN"]*(1/(8*tile["TM"]) + 1/(4*tile["TN"]) + 1/20) + tile["BM"] + tile["BN"]


def _fitting(kernels, M, N):
    """Those of `kernels` whose copies fit rows of M filters and of N images."""
    return [kernel for kernel in kernels
            if M % kernel.defines.get("VECTOR_A", 1) == 0 and N % kernel.defines.get("VECTOR_B", 1) == 0]


def _quickest(kernels, M, columns, times):
    """The kernel whose tiles, `times` M rows by `columns` in rounds of one a multiprocessor, take the least time."""
    return min(kernels, key=lambda kernel: blocks(times*_tiles(kernel, M, columns), SMS)*_cost(kernel))


def _cheapest(kernels, M, columns):
    """The kernel whose tiles cost least in all: of sums that are cut into slices there are always blocks enough."""
    return min(kernels, key=lambda kernel: _tiles(kernel, M, columns)*_cost(kernel))


def launch_forward(x, w, b, y, S, P, groups, relu, precision, sliced=False):
    """y = the convolution. sliced: its sums are cut into slices, as their length and the filters say, not N: so an image keeps
    its bits in any batch."""
    (F, Ho, Wo, N), (maps, K, _, _), M = y.shape, w.shape, w.shape[3]//groups
    kernels, slices = _fitting(FORWARD_KERNELS[precision], M, N), 1
    if sliced:
        kernel = _cheapest(kernels, M, Ho*Wo*N)
        slices = slices_of_rows(maps*K*K, groups*M)
    else:
        kernel = _quickest(kernels, M, Ho*Wo*N, groups)
    out = y if slices == 1 else empty((slices, *y.shape), y.dtype, like=y)
    kernel((_tiles(kernel, M, Ho*Wo*N), groups, slices), x, w, w if b is None else b, out,
           *_sizes(x, w, y, S, P, groups), b is not None and slices == 1, relu and slices == 1)
    if slices > 1:
        _sum_slices(out, y, b, relu)


def _launch_pool(x, w, b, S, P, pool, size, precision):
    """(y, cache of the pool); `size` (F,Ho,Wo,N) is that of the map between."""
    (K_pool, S_pool, P_pool, rounding), (F, Ho, Wo, N) = pool, size
    height, width = output_size(Ho, K_pool, S_pool, P_pool, rounding), output_size(Wo, K_pool, S_pool, P_pool, rounding)
    y, switches = (empty((F, height, width, N), dtype, like=x) for dtype in (x.dtype, np.uint8))
    kernel = POOL_KERNELS[precision].variant(POOL=K_pool, STRIDE=S_pool)
    strip = (kernel.defines["BN"]//IMAGES - K_pool)//S_pool + 1
    tiles = blocks(F, kernel.defines["BM"])*blocks(width, strip)
    run = blocks(height, blocks(4*SMS, tiles*(N//IMAGES)))                      # rows of a block, so that there are enough blocks
    kernel((tiles, N//IMAGES, blocks(height, run)), x, w, w if b is None else b, y, switches,
           *x.shape, F, w.shape[1], S, P, Ho, Wo, P_pool, height, width, run, b is not None)
    return y, MaxPoolCache(switches, Pooling(size, K_pool, S_pool, P_pool), y)


def _launch_transpose(dy, w, dx, S, P, groups, precision):
    (M, K, _, F), (_, H, W, N) = w.shape, dx.shape
    if M <= FEW["BM"]:
        precision = "fp32"                                  # tensor cores multiply 16 rows at once, used or not
    swapped = turn_filters(w)
    columns = blocks(H, S)*blocks(W, S)*N                                       # of the largest phase
    kernel = _quickest(_fitting(TRANSPOSE_KERNELS[precision], M, N), M, columns, groups*S*S)
    kernel((_tiles(kernel, M, columns), groups, S*S), dy, swapped, dx, *_sizes(dx, w, dy, S, P, groups))


def turn_filters(w):
    """w (C,K,K,F) -> (F,K,K,C)."""
    C, K, _, F = w.shape
    swapped = empty((F, K, K, C), w.dtype, like=w)
    SWAP_FILTERS((blocks(C, 32)*blocks(F, 32), K*K), w, swapped, C, K*K, F)
    return swapped


def slices_of_rows(length, rows):
    """Into how many slices sums of `length` terms are cut of which there are so many rows, and an unknown number of columns."""
    return _slices(length, 2*SMS//blocks(rows, LARGE["BM"]), 512)


def launch_filter_gradient(x, dy, shape, S, P, groups, precision, slices=None):
    """dw of that `shape` (C/groups,K,K,F)."""
    (maps, K, _, F), (_, Ho, Wo, N) = shape, dy.shape
    rows, columns = maps*K*K, F//groups
    kernels = FILTER_GRADIENT_KERNELS[precision]
    kernel = _cheapest(kernels if precision == "fp32" else _fitting(kernels, 4, N), rows, columns)
    tiles = _tiles(kernel, rows, columns)
    slices = slices or _slices(Ho*Wo*N, 4*SMS//(tiles*groups), 512)
    parts = empty((slices, *shape), x.dtype, like=x)
    kernel((tiles, slices, groups), x, dy, parts, *_sizes(x, parts[0], dy, S, P, groups))
    return _sum_slices(parts)


def _launch_bias_gradient(dy):
    F, Ho, Wo, N = dy.shape
    slices = _slices(Ho*Wo*N, 8*SMS//F, 8192)
    parts = empty((slices, F), dy.dtype, like=dy)
    BIAS_GRADIENT(F*slices, dy, parts, Ho*Wo*N, F, slices)
    return _sum_slices(parts)


def _slices(length, wanted, least):
    """Into how many slices a sum of `length` terms is cut: `wanted`, but each of `least` terms or more."""
    return max(1, min(wanted, length//least))


def _sum_slices(parts, total=None, b=None, relu=False):
    """parts (slices, ...) -> their sum (...), where b is given plus b of its first axis, and rectified if relu."""
    if total is None:
        if len(parts) == 1:
            return parts[0]
        total = empty(parts.shape[1:], parts.dtype, like=parts)
    SUM_SLICES(blocks(total.size, SUM_SLICES.block), parts, parts if b is None else b, total, total.size,
               total.size//len(total), len(parts), b is not None, relu)
    return total


# ---------------------------------------------------------------------------------------------------- the checks
def check_precision(what, x, precision):
    """Raise unless products with `x` can be formed in this `precision`."""
    check.one_of(what, precision, PRECISIONS)
    if precision != "fp32" and not runs_kernels(x):
        raise check.Expected(what, "fp32, the one that NumPy has", precision, "run it on a GPU, or leave it at fp32")


def _check_conv2d(x, w, b, S, P, groups, rounding, precision):
    """The shape (F,Ho,Wo,N) of conv2d's output, after its checks."""
    check.shape("conv2d x", x, (None, None, None, None))
    check_precision("conv2d precision", x, precision)
    check.dtype("conv2d x", x, np.float32, np.float64)
    _check_filters("conv2d", w, x.shape[0], groups, x.dtype)
    (_, H, W, N), (_, K, _, F) = x.shape, w.shape
    if b is not None:
        check.shape("conv2d b", b, (F,))
        check.dtype("conv2d b", b, x.dtype)
    return F, output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding), N


def _check_filters(op, w, C, groups, dtype):
    check.positive(f"{op} groups", groups)
    if C % groups:
        raise check.Expected(f"{op} x", f"maps divisible by {groups} groups", C)
    check.shape(f"{op} w", w, (C//groups, None, None, None))
    check.shape(f"{op} w", w, (C//groups, w.shape[1], w.shape[1], None))
    check.dtype(f"{op} w", w, dtype)
    if w.shape[3] % groups:
        raise check.Expected(f"{op} w", f"filters divisible by {groups} groups", w.shape[3])


def _check_size(what, dy, H, W, K, S, P):
    """dy must be what conv2d makes of maps H x W, by one of the two rounding rules."""
    for rounding in ("ceil", "floor"):
        if rounding == "floor" and min(H, W) + 2*P < K:
            break
        if dy.shape[1:3] == (output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)):
            return
    Ho, Wo = output_size(H, K, S, P), output_size(W, K, S, P)
    check.shape(what, dy, (dy.shape[0], Ho, Wo, dy.shape[3]))
