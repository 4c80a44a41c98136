"""Average pooling, and its way back: every output's share of the signal to every pixel of its window."""
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels, to_device, unread
from zfcore.check import one_of, shape
from zfcore.cpu import map_blocks, parallel
from zfcore.kernel import Kernel, blocks, lanes
from zfcore.memory import workspace
from zfcore.ops.window import output_size, tap_pixels, taps_met

BORDERS = "inside", "padded", "clipped"      # what a window at the border divides by
FORWARD = Kernel("avgpool.cu", "avgpool_forward",
                 "const stored *x, const float *divisors, stored *y, int rows, int H, int W, int Ho, int Wo, int N, int P",
                 {"WINDOW": 3, "STRIDE": 2, "LANES": 4, "BORDERS": "INSIDE"}).stored_too(LANES=8)
BACKWARD = Kernel("avgpool.cu", "avgpool_backward",
                  "const stored *dy, const float *divisors, stored *dx, int rows, int H, int W, int Ho, int Wo, int N, int P",
                  {"WINDOW": 3, "STRIDE": 2, "LANES": 4, "BORDERS": "INSIDE"}).stored_too(LANES=8)


class AvgPoolCache(NamedTuple):
    """Cache of `avgpool`: the shape (C,H,W,N) of x, the size (Ho,Wo) of y, the window, and what it divides by at borders: one
    of BORDERS, or the divisors themselves, (Ho,Wo,N) on the host."""
    shape: tuple
    out: tuple
    K: int
    S: int
    P: int
    borders: object


def avgpool_reference(x, K, S, P=0, rounding="ceil", borders="inside"):
    C, H, W, N = x.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    y = np.empty((C, Ho, Wo, N))
    for p, q in np.ndindex(Ho, Wo):
        inside, count = _window_reference(p, q, H, W, K, S, P, borders)
        y[:, p, q] = sum(x[:, h, w].astype(float) for h, w in inside)/count
    return y, AvgPoolCache(x.shape, (Ho, Wo), K, S, P, borders)


def avgpool_backward_reference(dy, cache):
    shape, out, K, S, P, borders = cache
    dx = np.zeros(shape)
    for p, q in np.ndindex(out):
        inside, count = _window_reference(p, q, *shape[1:3], K, S, P, borders)
        for h, w in inside:
            dx[:, h, w] += dy[:, p, q].astype(float)/count
    return dx


def _window_reference(p, q, H, W, K, S, P, borders):
    """The pixels of the map that window (p,q) holds, and how many it counts."""
    places = [(p*S - P + r, q*S - P + s) for r, s in np.ndindex(K, K)]
    inside = [(h, w) for h, w in places if 0 <= h < H and 0 <= w < W]
    clipped = [(h, w) for h, w in places if -P <= h < H + P and -P <= w < W + P]
    return inside, len({"inside": inside, "padded": places, "clipped": clipped}[borders])


def avgpool(x, K, S, P=0, rounding="ceil", borders="inside"):
    """Mean over windows of KxK pixels at stride S.

    x (C,H,W,N) float32, float64 or stored BF16 -> y (C,Ho,Wo,N) and the AvgPoolCache. Ho, Wo: see `output_size`. At the
    border the pixels that there are are added up, and `borders` says how many they count as:

    "inside"    so many: the mean of what lies in the map (cuda-convnet; PyTorch with count_include_pad=False)
    "padded"    always K*K: the padding is zeros, however far the window reaches
    "clipped"   the window ends where the map and its padding of P end; padding within it counts, as zeros (Caffe; PyTorch
                with count_include_pad=True)
    an array    (Ho,Wo,N), on the host, of the divisors themselves: windows of larger maps, which know where they lie there

    Raises Expected for another rule or dtype, for wrong shapes, and for a window that fits no map."""
    check_maps("avgpool: x", x)
    shape("avgpool: x", x, (None,)*4)
    C, H, W, N = x.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    if isinstance(borders, str):
        one_of("avgpool: borders", borders, BORDERS)
    else:
        shape("avgpool: divisors", borders, (Ho, Wo, N))
    y, cache = empty((C, Ho, Wo, N), x.dtype, like=x), AvgPoolCache(x.shape, (Ho, Wo), K, S, P, borders)
    if runs_kernels(x):
        _launch(FORWARD, cache, C*Ho, Wo, x, y)
        return y, cache
    of_window = _divisors(cache, y.dtype)

    def work(block):
        maps, rows = block
        slab, first = y[maps, rows], rows.start*S - P                      # the row of the map where its windows begin
        top, bottom = max(first, 0), min(first + (slab.shape[1] - 1)*S + K, H)
        sums = workspace("sums", (len(slab), bottom - top, Wo, N), y.dtype)            # of a window's columns, row by row
        sums[:], slab[:] = 0, 0
        for s in taps_met(K, W, Wo, S, P):
            q, w = tap_pixels(s, W, Wo, S, P)
            sums[:, :, q] += x[maps, top:bottom, w]
        for r in taps_met(K, bottom - top, slab.shape[1], S, top - first):
            p, h = tap_pixels(r, bottom - top, slab.shape[1], S, top - first)
            slab[:, p] += sums[:, h]
        slab /= of_window[rows]

    parallel(work, map_blocks(C, Ho, K*W*N*x.itemsize))
    return y, cache


def avgpool_backward(dy, cache):
    """dy (C,Ho,Wo,N) -> dx (C,H,W,N): the transposed averaging. Every pixel asks the windows it lies in and takes of each
    gradient its share, 1/divisor; what overlapping windows bring adds up."""
    (C, H, W, N), (Ho, Wo), K, S, P, _ = cache
    check_maps("avgpool_backward: dy", dy)
    shape("avgpool_backward: dy", dy, (C, Ho, Wo, N))
    dx = empty((C, H, W, N), dy.dtype, like=dy)
    if runs_kernels(dy):
        _launch(BACKWARD, cache, C*H, W, dy, dx)
        return dx
    of_window = _divisors(cache, dy.dtype)

    def work(block):
        maps, rows = block
        slab, reach = dx[maps, rows], P + rows.start
        first, last = max(-((K - 1 - reach)//S), 0), min((slab.shape[1] - 1 + reach)//S + 1, Ho)      # outputs that meet it
        sums = workspace("sums", (len(slab), max(last - first, 0), W, N), dy.dtype)      # a row of windows on each pixel
        sums[:], slab[:] = 0, 0
        shares = workspace("shares", (len(slab), sums.shape[1], Wo, N), dy.dtype)
        np.divide(dy[maps, first:last], of_window[first:last], out=shares)
        for s in taps_met(K, W, Wo, S, P):
            q, w = tap_pixels(s, W, Wo, S, P)
            sums[:, :, w] += shares[:, :, q]
        for r in taps_met(K, slab.shape[1], sums.shape[1], S, reach - first*S):
            p, h = tap_pixels(r, slab.shape[1], sums.shape[1], S, reach - first*S)
            slab[:, h] += sums[:, p]

    parallel(work, map_blocks(C, H, W*N*dy.itemsize))
    return dx


def divisors(size, rows, columns, K, S, P, borders):
    """Divisors of the windows number `rows` (Ho,N) and `columns` (Wo,N) of maps of size (H,W): (Ho,Wo,N) float64. The
    numbers may be such as no window has, where a cut reaches over the maps: at least 1."""
    def counted(number, size):
        first = number*S - P
        lowest, highest = {"inside": (0, size), "padded": (first, first + K), "clipped": (-P, size + P)}[borders]
        return np.maximum(np.minimum(first + K, highest) - np.maximum(first, lowest), 1.0)

    return counted(rows, size[0])[:, None]*counted(columns, size[1])


def _divisors(cache, dtype):
    """Divisors of a cache, (Ho,Wo,N) or (Ho,Wo,1)."""
    (_, H, W, _), (Ho, Wo), K, S, P, borders = cache
    if isinstance(borders, str):
        borders = divisors((H, W), np.arange(Ho)[:, None], np.arange(Wo)[:, None], K, S, P, borders)
    return borders.astype(dtype)


def _launch(kernel, cache, rows, width, source, result):
    """One thread is LANES neighbouring images of one number of `result`, which has `rows` rows of `width` pixels."""
    (_, H, W, N), (Ho, Wo), K, S, P, borders = cache
    given = None if isinstance(borders, str) else to_device(borders.astype(np.float32), like=source)
    on = unread(source) if given is None else given
    wide = lanes(N, source, on, result)
    tuned = kernel.variant(source, WINDOW=K, STRIDE=S, LANES=wide, BORDERS="GIVEN" if given is not None else borders.upper())
    tuned(blocks(rows*width*(N//wide), kernel.block), source, on, result, rows, H, W, Ho, Wo, N, P)
