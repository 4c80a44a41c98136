"""Max pooling that remembers where each maximum was, and its way back: the gradient, and the deconvnet's unpooling."""
from itertools import product
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels
from zfcore.check import Expected, shape
from zfcore.cpu import map_blocks, parallel
from zfcore.kernel import Kernel, blocks, lanes
from zfcore.memory import workspace
from zfcore.ops import loops
from zfcore.ops.relu import relu_backward, relu_backward_reference
from zfcore.ops.window import output_size, places, tap_pixels

FORWARD = Kernel("maxpool.cu", "maxpool_forward",
                 "const stored *x, stored *y, unsigned char *switches, int H, int W, int Ho, int Wo, int N, int P",
                 {"WINDOW": 3, "STRIDE": 2, "LANES": 4}).stored_too(LANES=8)
BACKWARD = Kernel("maxpool.cu", "maxpool_backward",
                  "const stored *dy, const unsigned char *switches, const stored *y, stored *dx, "
                  "int H, int W, int Ho, int Wo, int N, int P",
                  {"WINDOW": 3, "STRIDE": 2, "LANES": 4, "RELU": 1}).stored_too(LANES=8)


class Pooling(NamedTuple):
    """Geometry of a pooling: the shape (C,H,W,N) of x, and the window."""
    shape: tuple
    K: int
    S: int
    P: int


class MaxPoolCache(NamedTuple):
    """The switches (C,Ho,Wo,N) uint8, the Pooling they belong to, and the maxima y."""
    switches: np.ndarray
    pooling: Pooling
    y: np.ndarray


def maxpool_reference(x, K, S, P=0, rounding="ceil"):
    C, H, W, N = x.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    y, switches = np.empty((C, Ho, Wo, N), x.dtype), np.empty((C, Ho, Wo, N), np.uint8)
    for p, q in np.ndindex(Ho, Wo):
        places = [(r, s) for r, s in np.ndindex(K, K) if 0 <= p*S - P + r < H and 0 <= q*S - P + s < W]
        window = np.stack([x[:, p*S - P + r, q*S - P + s] for r, s in places])         # (places,C,N)
        y[:, p, q] = window.max(axis=0)
        switches[:, p, q] = np.array([r*K + s for r, s in places])[window.argmax(axis=0)]
    return y, MaxPoolCache(switches, Pooling(x.shape, K, S, P), y)


def maxpool_backward_reference(dy, cache, relu=False):
    switches, ((C, H, W, N), K, S, P), y = cache
    if relu:
        dy = relu_backward_reference(dy, y)
    dx = np.zeros((C, H, W, N), dy.dtype)
    for c, p, q, n in np.ndindex(dy.shape):
        r, s = divmod(int(switches[c, p, q, n]), K)
        dx[c, p*S - P + r, q*S - P + s, n] += dy[c, p, q, n]
    return dx


def maxpool(x, K, S, P=0, rounding="ceil"):
    """Maximum over windows of KxK pixels at stride S; what lies outside the map takes no part.

    x (C,H,W,N) float32, float64 or stored BF16 -> y (C,Ho,Wo,N) and the cache (switches, Pooling, y).
    switches (C,Ho,Wo,N) uint8: r*K + s, the place of the maximum in its window; the first in row order wins a tie.
    A NaN wins over every number, as in np.max. K <= 15, so that a place fits a byte. Ho, Wo: see `output_size`.
    Raises Expected for another K, dtype or number of axes, and for a window that fits no map."""
    (_, H, W, N), (C, Ho, Wo, _) = x.shape, pooled_shape(x, K, S, P, rounding)
    y, switches = empty((C, Ho, Wo, N), x.dtype, like=x), empty((C, Ho, Wo, N), np.uint8, like=x)
    if runs_kernels(x):
        wide = lanes(N, x, y)
        tiles = C*Ho*blocks(Wo*(N//wide), FORWARD.block)
        FORWARD.variant(x, WINDOW=K, STRIDE=S, LANES=wide)(tiles, x, y, switches, H, W, Ho, Wo, N, P)
        return y, MaxPoolCache(switches, Pooling(x.shape, K, S, P), y)
    x, loop = np.ascontiguousarray(x), loops.compiled(loops.pool_rows, x)
    pixels = x.reshape(C, H*W, N)

    def work(block):
        maps, rows = block
        if loop:
            loop(x[maps], y[maps], switches[maps], K, S, P, rows.start, rows.stop)
        else:
            _pool_rows(pixels[maps], (H, W), y[maps, rows], switches[maps, rows], K, S, P, rows.start)

    parallel(work, map_blocks(C, Ho, S*W*N*x.itemsize, budget=loops.BUDGET if loop else 2**22))
    return y, MaxPoolCache(switches, Pooling(x.shape, K, S, P), y)


def pooled_shape(x, K, S, P, rounding):
    """(C,Ho,Wo,N) of the pooled maps, after the checks of `maxpool`."""
    check_maps("maxpool: x", x)
    shape("maxpool: x", x, (None,)*4)
    if K > 15:
        raise Expected("maxpool", "a window of at most 15x15, whose places fit one byte", f"K {K}")
    C, H, W, N = x.shape
    return C, output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding), N


def _pool_rows(pixels, size, y, switches, K, S, P, p0):
    """Fill y (c,p,Wo,N), the output rows from p0 on of some maps, and their switches. pixels (c,H*W,N), size (H,W).

    First the maximum of each row of a window, then the maximum of those: fewer comparisons than K*K. Where a window
    leaves the map it sees the nearest pixel once more, which is never higher than itself: padding needs no cases."""
    (H, W), (c, Ho, Wo, N) = size, y.shape
    rows, columns = np.arange((Ho - 1)*S + K), np.arange(Wo + (K - 1)//S)
    r0 = np.maximum(P - S*(p0 + np.arange(Ho)), 0).astype(np.uint8)[:, None, None]   # the first row and column of each
    s0 = np.maximum(P - S*np.arange(Wo), 0).astype(np.uint8)[:, None]                # window that is in the map
    phases = workspace("phases", (min(S, K), c, len(rows), len(columns), N), y.dtype)
    best = workspace("best", (c, len(rows), Wo, N), y.dtype)
    column, places, higher = (workspace(name, best.shape, np.uint8) for name in ("column", "places", "higher"))

    for a in range(len(phases)):           # every S-th column side by side: the loops below run over long stretches
        h, w = (p0*S - P + rows).clip(0, H - 1), (columns*S + a - P).clip(0, W - 1)
        np.take(pixels, h[:, None]*W + w, axis=1, out=phases[a], mode="clip")
    taps = [phases[s % S][:, :, s//S:s//S + Wo] for s in range(K)]                    # (c,rows,Wo,N) each

    best[:], column[:] = taps[0], 0
    for s in range(1, K):
        _raise(best, column, taps[s], np.uint8(s), higher)
    np.maximum(column, s0, out=column)

    windows = [slice(r, r + (Ho - 1)*S + 1, S) for r in range(K)]                     # row r of every window
    y[:], switches[:] = best[:, windows[0]], column[:, windows[0]] + r0*np.uint8(K)
    for r in range(1, K):
        np.add(column[:, windows[r]], np.uint8(r*K), out=places[:, :Ho])
        _raise(y, switches, best[:, windows[r]], places[:, :Ho], higher[:, :Ho])

    if np.isnan(y, out=higher[:, :Ho].view(bool)).any():       # a NaN is higher than nothing: look for it by itself
        for r, s in reversed(list(np.ndindex(K, K))):          # the first one is written last
            np.copyto(switches, np.maximum(r0, r)*K + np.maximum(s0, s), where=np.isnan(taps[s][:, windows[r]]),
                      casting="unsafe")


def _raise(best, where, values, places, higher):
    """best = max(best, values); where values was higher, where = places, which must exceed those before."""
    np.greater(values, best, out=higher.view(bool))
    np.maximum(best, values, out=best)
    np.multiply(higher, places, out=higher)
    np.maximum(where, higher, out=where)


def maxpool_backward(dy, cache, relu=False):
    """dy (C,Ho,Wo,N) -> dx (C,H,W,N): each gradient goes to the pixel that its switch names, all other pixels get 0.

    relu=True goes on through a ReLU that x came out of: windows whose maximum is not above 0 bring nothing. A pixel is the
    maximum of every window that chose it, so this is the same, bit by bit, as relu_backward behind it, which would
    read and write maps of x's size.

    This is also the deconvnet's unpooling (paper, section 2.1): the signal from above put back where the maximum was.
    Windows that overlap may have chosen the same pixel; what they bring adds up there. (The paper is silent on this;
    the gradient adds, and so does this.) Every pixel asks the windows it lies in, in the order of their taps."""
    switches, ((C, H, W, N), K, S, P), y = cache
    check_maps("maxpool_backward: dy", dy)
    shape("maxpool_backward: dy", dy, switches.shape)
    Ho, Wo = dy.shape[1:3]
    dx = empty((C, H, W, N), dy.dtype, like=dy)
    if runs_kernels(dy):
        on = y if relu else dy                                             # else it is not read
        wide = lanes(N, dy, on, dx)
        tiles = C*((H - 1 + P)//S + 1)*blocks(((W - 1 + P)//S + 1)*(N//wide), BACKWARD.block)     # of SxS pixels
        tuned = BACKWARD.variant(dy, WINDOW=K, STRIDE=S, LANES=wide, RELU=int(relu))
        tuned(tiles, dy, switches, on, dx, H, W, Ho, Wo, N, P)
        return dx
    if N >= loops.MANY and (loop := loops.compiled(loops.unpool_rows, dx)):
        dy = np.ascontiguousarray(dy)
        on = y if relu else dy                                             # else it is not read
        parallel(lambda at: loop(dy[at[0]], switches[at[0]], on[at[0]], relu, dx[at[0]], K, S, P, at[1].start, at[1].stop),
                 map_blocks(C, H, W*N*dy.itemsize, budget=loops.BUDGET))
        return dx
    if relu:
        dy = relu_backward(dy, y)
    bits = np.dtype(f"i{dy.itemsize}")                                     # whole numbers as wide as those of dy

    def work(block):
        maps, rows = block
        slab = dx[maps, rows]
        c, tall = slab.shape[:2]
        masks, selected = (workspace(name, (c, -(-tall//S), Wo, N), kind)
                           for name, kind in (("masks", np.int8), ("selected", bits)))
        phase = workspace("phase", (c, -(-tall//S), -(-W//S), N), dy.dtype)
        for a, b in np.ndindex(S, S):                     # the pixels of every S-th row and column: they meet the same taps
            i, j = slice((a - P - rows.start) % S, None, S), slice((b - P) % S, None, S)
            of_phase = phase[:, :len(range(tall)[i]), :len(range(W)[j])]
            of_phase[:] = 0
            for r, s in product(range(a, K, S), range(b, K, S)):
                (p, h), (q, w) = tap_pixels(r, tall, Ho, S, P + rows.start), tap_pixels(s, W, Wo, S, P)
                asked = maps, p, q
                size = np.s_[:, :p.stop - p.start, :q.stop - q.start]
                np.equal(switches[asked], r*K + s, out=masks[size].view(bool))
                np.negative(masks[size], out=masks[size])                             # 1 -> -1: all bits set
                np.bitwise_and(dy[asked].view(bits), masks[size], out=selected[size])         # (inf*0 would not be 0)
                pixels = of_phase[:, h.start//S:, w.start//S:][size]
                np.add(pixels, selected[size].view(dy.dtype), out=pixels)
            places(slab)[:, i, j] = places(of_phase)

    parallel(work, map_blocks(C, H, W*N*dy.itemsize))
    return dx
