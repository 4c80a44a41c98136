"""Max pooling that remembers where each maximum was, and its way back: the gradient, and the deconvnet's unpooling."""
from itertools import product
from typing import NamedTuple

import numpy as np

from zfcore.backend import empty, parallel
from zfcore.check import Expected, dtype, shape
from zfcore.ops.window import output_size, tap_range


class Pooling(NamedTuple):
    """What was pooled: the shape (C,H,W,N) of x, and the window."""
    shape: tuple
    K: int
    S: int
    P: int


def maxpool_reference(x, K, S, P=0, rounding="ceil"):
    C, H, W, N = x.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    y, switches = np.empty((C, Ho, Wo, N), x.dtype), np.empty((C, Ho, Wo, N), np.uint8)
    for p, q in np.ndindex(Ho, Wo):
        places = [(r, s) for r, s in np.ndindex(K, K) if 0 <= p*S - P + r < H and 0 <= q*S - P + s < W]
        window = np.stack([x[:, p*S - P + r, q*S - P + s] for r, s in places])         # (places,C,N)
        y[:, p, q] = window.max(axis=0)
        switches[:, p, q] = np.array([r*K + s for r, s in places])[window.argmax(axis=0)]
    return y, (switches, Pooling(x.shape, K, S, P))


def maxpool_backward_reference(dy, cache):
    switches, ((C, H, W, N), K, S, P) = cache
    dx = np.zeros((C, H, W, N), dy.dtype)
    for c, p, q, n in np.ndindex(dy.shape):
        r, s = divmod(int(switches[c, p, q, n]), K)
        dx[c, p*S - P + r, q*S - P + s, n] += dy[c, p, q, n]
    return dx


def maxpool(x, K, S, P=0, rounding="ceil"):
    """Maximum over windows of KxK pixels at stride S; what lies outside the map takes no part.

    x (C,H,W,N) float32 or float64 -> y (C,Ho,Wo,N) and the cache (switches, Pooling).
    switches (C,Ho,Wo,N) uint8: r*K + s, the place of the maximum in its window; the first in row order wins a tie, and
    a NaN wins over every number, as in np.max. K <= 15, so that a place fits a byte. The size rule is `output_size`'s."""
    dtype("maxpool: x", x, np.float32, np.float64)
    shape("maxpool: x", x, (None,)*4)
    if K > 15:
        raise Expected("maxpool", "a window of at most 15x15, whose places fit one byte", f"K {K}")
    C, H, W, N = x.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    y, switches = empty((C, Ho, Wo, N), x.dtype, like=x), empty((C, Ho, Wo, N), np.uint8, like=x)

    def work(block):
        maps, rows = block
        _pool_rows(x[maps], y[maps, rows], switches[maps, rows], K, S, P, rows.start)

    parallel(work, _blocks(C, Ho, S*W*N*x.itemsize))
    return y, (switches, Pooling(x.shape, K, S, P))


def _pool_rows(x, y, switches, K, S, P, p0):
    """Fill y, the output rows from p0 on of some maps: first the maximum of each row of a window, then of those."""
    H, W = x.shape[1:3]
    (Ho, Wo), top = y.shape[1:3], P - p0*S                      # row p of this block begins at input row p*S - top
    h0, h1 = max(-top, 0), min((Ho - 1)*S - top + K, H)
    x, top = x[:, h0:h1], top + h0
    r0 = np.maximum(top - S*np.arange(Ho, dtype=int), 0)[:, None, None].astype(np.uint8)    # first row, column of
    s0 = np.maximum(P - S*np.arange(Wo, dtype=int), 0)[:, None].astype(np.uint8)            # each window in the map

    best = np.full((len(x), h1 - h0, Wo, x.shape[3]), -np.inf, x.dtype)
    column = np.empty(best.shape, np.uint8)
    column[:] = s0
    for s in range(K):
        q, w = _tap(s, W, Wo, S, P)
        _raise(best[:, :, q], column[:, :, q], x[:, :, w], np.uint8(s))

    y[:] = -np.inf
    switches[:] = r0*np.uint8(K) + s0
    for r in range(K):
        p, h = _tap(r, h1 - h0, Ho, S, top)
        _raise(y[:, p], switches[:, p], best[:, h], np.uint8(r*K) + column[:, h])

    if np.isnan(y).any():                                       # no comparison above is true of a NaN
        for r, s in reversed(list(np.ndindex(K, K))):           # so that the first one is written last
            (p, h), (q, w) = _tap(r, h1 - h0, Ho, S, top), _tap(s, W, Wo, S, P)
            np.copyto(switches[:, p, q], r*K + s, where=np.isnan(x[:, h, w]))


def _raise(best, where, values, places):
    """best = max(best, values); where values is higher, where = places, which exceed every place written before."""
    higher = np.greater(values, best).view(np.uint8)
    np.maximum(best, values, out=best)
    np.maximum(where, np.multiply(higher, places, out=higher), out=where)


def maxpool_backward(dy, cache):
    """dy (C,Ho,Wo,N) -> dx (C,H,W,N): each gradient goes to the pixel that its switch names, all other pixels get 0.

    This is also the deconvnet's unpooling (paper, section 2.1): the signal from above put back where the maximum was.
    Windows that overlap may have chosen the same pixel; what they bring adds up there. (The paper is silent on this;
    the gradient adds, and so does this.) Every pixel asks the windows it lies in, in the order of their taps."""
    switches, pooling = cache
    (C, H, W, N), K, S, P = pooling
    dtype("maxpool_backward: dy", dy, np.float32, np.float64)
    shape("maxpool_backward: dy", dy, switches.shape)
    Ho, Wo = dy.shape[1:3]
    dx = empty((C, H, W, N), dy.dtype, like=dy)

    def work(block):
        maps, rows = block
        part = dx[maps, rows]
        part[:] = 0
        for r, s in np.ndindex(K, K):
            (p, h), (q, w) = _tap(r, part.shape[1], Ho, S, P + rows.start), _tap(s, W, Wo, S, P)
            chosen = switches[maps, p, q] == r*K + s
            pixels = part[:, h, w]
            np.add(pixels, dy[maps, p, q]*chosen, out=pixels)

    parallel(work, _blocks(C, H, W*N*dy.itemsize))
    return dx


def _tap(tap, size, out, S, P):
    """Slices of the outputs whose tap lies inside a map of `size` pixels, and of the pixels it lies on."""
    lo, hi = tap_range(tap, size, out, S, P)
    return (slice(lo, hi), slice(lo*S - P + tap, hi*S - P + tap, S)) if lo < hi else (slice(0), slice(0))


def _blocks(C, rows, nbytes, budget=2**19):
    """(maps, rows) slices that cut C maps of `rows` rows, each worth `nbytes` of memory, into blocks that fit the cache."""
    tall = min(max(budget//max(nbytes, 1), 1), rows)
    deep = max(budget//max(nbytes*rows, 1), 1) if tall == rows else 1
    return list(product([slice(c, min(c + deep, C)) for c in range(0, C, deep)],
                        [slice(p, min(p + tall, rows)) for p in range(0, rows, tall)]))
