"""Local response normalisation within maps: Caffe's LRN with the region WITHIN_CHANNEL, of the ZFNet that detectors are built
on."""
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels
from zfcore.check import Expected, dtype, shape
from zfcore.cpu import map_blocks, parallel
from zfcore.kernel import Kernel, blocks, lanes
from zfcore.memory import workspace
from zfcore.ops.local_response_norm import normalisation, to_power
from zfcore.ops.window import tap_pixels, taps_met

FORWARD = Kernel("local_response_norm_within.cu", "local_response_norm_within_forward",
                 "const stored *x, stored *y, int rows, int H, int W, int N, int P, float a, float k",
                 {"WINDOW": 3, "BETA": "0.75f", "LANES": 4}).stored_too(LANES=8)
TERMS = Kernel("local_response_norm_within.cu", "local_response_norm_within_terms",
               "const stored *dy, const stored *x, float *t, float *first, int rows, int H, int W, int N, int P, "
               "float a, float k",
               {"WINDOW": 3, "BETA": "0.75f", "LANES": 4}).stored_too(LANES=8)
BACKWARD = Kernel("local_response_norm_within.cu", "local_response_norm_within_backward",
                  "const stored *x, const float *t, const float *first, stored *dx, int rows, int H, int W, int N, int P, "
                  "float a",
                  {"WINDOW": 3, "BETA": "0.75f", "LANES": 4}).stored_too(LANES=8)


class Neighbourhood(NamedTuple):
    n: int
    a: float                  # what a square is multiplied by: alpha/n^2 or alpha
    beta: float
    k: float
    P: int                    # zeros around the maps, at most n//2: an output for each pixel whose window then fits


class LocalResponseNormWithinCache(NamedTuple):
    """The maps x that were normalised, and how."""
    x: np.ndarray
    rule: Neighbourhood


def local_response_norm_within_reference(x, n, alpha, beta, k, convention="mean", P=None):
    rule = Neighbourhood(n, alpha/n**2 if convention == "mean" else alpha, beta, k, n//2 if P is None else P)
    y = np.empty(_shape_out(x.shape, rule))
    for p, q in np.ndindex(y.shape[1:3]):
        _, middle, s = _window_reference(x, p, q, rule)
        y[:, p, q] = middle*s**-beta
    return y, LocalResponseNormWithinCache(x, rule)


def local_response_norm_within_backward_reference(dy, cache):
    x, rule = cache
    dx = np.zeros(x.shape)
    for p, q in np.ndindex(dy.shape[1:3]):                   # each y depends on the pixels of its window
        window, middle, s = _window_reference(x, p, q, rule)
        dx[:, p + rule.n//2 - rule.P, q + rule.n//2 - rule.P] += dy[:, p, q]*s**-rule.beta
        dx[window] -= 2*rule.a*rule.beta*x[window]*(dy[:, p, q]*middle*s**(-rule.beta - 1))[:, None, None]
    return dx


def _window_reference(x, p, q, rule):
    """(the window of output (p,q) as an index of x, the pixel in its middle, s)."""
    top, left, r = p - rule.P, q - rule.P, rule.n//2
    window = slice(None), slice(max(top, 0), top + rule.n), slice(max(left, 0), left + rule.n)
    return window, x[:, top + r, left + r].astype(float), rule.k + rule.a*np.square(x[window], dtype=float).sum(axis=(1, 2))


def local_response_norm_within(x, n, alpha, beta, k, convention="mean", P=None):
    """y = x / s^beta with s = k + a * (sum of the squares of the n x n pixels around, of the same map).

    x (C,H,W,N) float32 or float64 -> y (C, H+2P+1-n, W+2P+1-n, N), and the cache. n is odd. P zeros lie around the maps; None:
    n//2, so that each pixel has an output. At the border of a map they count as pixels, and the divisor is n*n everywhere.
    convention   "mean"   a = alpha/(n*n), as Caffe reads alpha: its k is 1
                 "sum"    a = alpha
    Raises Expected for an even n, and unless n, k > 0, alpha >= 0 and 0 <= P <= n//2."""
    check_maps("local_response_norm_within: x", x)
    shape("local_response_norm_within: x", x, (None,)*4)
    rule = neighbourhood(n, alpha, beta, k, convention, P)
    C, Ho, Wo, N = _shape_out(x.shape, rule)
    y = empty((C, Ho, Wo, N), x.dtype, like=x)
    if runs_kernels(x):
        _launch(FORWARD, rule, (x, y), C*Ho, Wo, x.shape, rule.a, rule.k)
        return y, LocalResponseNormWithinCache(x, rule)
    middle = n//2 - rule.P

    def work(block):
        maps, rows = block
        s, spare = _scales(x[maps], rows, Wo, rule)
        np.divide(x[maps, rows.start + middle:rows.stop + middle, middle:middle + Wo], to_power(s, rule.beta, s, spare),
                  out=y[maps, rows])

    parallel(work, map_blocks(C, Ho, Wo*N*x.itemsize))
    return y, LocalResponseNormWithinCache(x, rule)


def neighbourhood(n, alpha, beta, k, convention="mean", P=None):
    """The Neighbourhood of these arguments. Raises Expected as `local_response_norm_within`."""
    _, _, beta, k = normalisation(n, alpha, beta, k, convention)
    if n % 2 == 0:
        raise Expected("local_response_norm_within: n", "an odd number of pixels, of which one is in the middle", n)
    P = n//2 if P is None else P
    if not 0 <= P <= n//2:
        raise Expected("local_response_norm_within: P", f"0 to {n//2}", P)
    return Neighbourhood(n, float(alpha/n**2 if convention == "mean" else alpha), beta, k, P)


def local_response_norm_within_backward(dy, cache):
    """dx[i] = dy[i] / s[i]^beta - 2 a beta x[i] * (sum over the pixels j whose window holds i of dy[j] y[j] / s[j])."""
    x, rule = cache
    dtype("local_response_norm_within_backward: dy", dy, x.dtype)
    C, Ho, Wo, N = _shape_out(x.shape, rule)
    shape("local_response_norm_within_backward: dy", dy, (C, Ho, Wo, N))
    H, W = x.shape[1:3]
    n, a, beta, k, P = rule
    dx = empty(x.shape, dy.dtype, like=dy)
    if runs_kernels(dy):
        t, first = (empty(array.shape, np.float32, like=dy) for array in (dy, dx))
        _launch(TERMS, rule, (dy, x, t, first), C*H, W, x.shape, a, k)
        _launch(BACKWARD, rule, (x, t, first, dx), C*H, W, x.shape, a)
        return dx
    middle = n//2 - P

    def work(block):
        maps, rows = block
        first, last = max(rows.start + P + 1 - n, 0), min(rows.stop + P, Ho)               # the outputs that see these rows
        s, t = _scales(x[maps], slice(first, last), Wo, rule)
        above = dy[maps, first:last]
        np.divide(above, to_power(s, beta, workspace("power", s.shape, s.dtype), t), out=t)    # the first term, dy / s^beta
        part = dx[maps, rows]
        part[:] = 0
        lo, hi = max(rows.start - middle, first), min(rows.stop - middle, last)            # those whose middle lies in them
        if lo < hi:
            part[:, lo + middle - rows.start:hi + middle - rows.start, middle:middle + Wo] = t[:, lo - first:hi - first]
        t *= x[maps, first + middle:last + middle, middle:middle + Wo]
        t /= s                                                                             # dy y / s
        sums = _back_to_pixels(t, part.shape, rows.start - first, P, n)
        sums *= x[maps, rows]
        sums *= 2*a*beta
        part -= sums

    parallel(work, map_blocks(C, H, W*N*dy.itemsize))
    return dx


def _launch(kernel, rule, arrays, rows, width, of_maps, *constants):
    """One thread is LANES neighbouring images of one pixel, of the `rows` rows of `width` pixels of all maps together."""
    _, H, W, N = of_maps
    wide = lanes(N, *arrays)
    tuned = kernel.variant(arrays[0], WINDOW=rule.n, BETA=f"{rule.beta}f", LANES=wide)
    tuned(blocks(rows*width*(N//wide), kernel.block), *arrays, rows, H, W, N, rule.P, *constants)


def _shape_out(of_maps, rule):
    C, H, W, N = of_maps
    less = rule.n - 1 - 2*rule.P
    if min(H, W) <= less:
        raise Expected("local_response_norm_within", f"maps of more than {less} pixels a side", f"{H}x{W}")
    return C, H - less, W - less, N


def _scales(x, rows, Wo, rule):
    """(s of the outputs of these rows, an array as large to work in); x are some of the maps, whole."""
    n, a, _, k, P = rule
    C, H, W, N = x.shape
    count, top = rows.stop - rows.start, max(rows.start - P, 0)
    bottom = min(rows.stop - P + n - 1, H)
    squares = workspace("squares", (C, bottom - top, W, N), x.dtype)
    across = workspace("sums", (C, bottom - top, Wo, N), x.dtype)                    # of a window's columns, row by row
    s, spare = (workspace(name, (C, count, Wo, N), x.dtype) for name in ("scale", "spare"))
    np.square(x[:, top:bottom], out=squares)
    across[:], s[:] = 0, 0
    for tap in taps_met(n, W, Wo, 1, P):
        q, w = tap_pixels(tap, W, Wo, 1, P)
        across[:, :, q] += squares[:, :, w]
    for tap in taps_met(n, bottom - top, count, 1, top - rows.start + P):
        p, h = tap_pixels(tap, bottom - top, count, 1, top - rows.start + P)
        s[:, p] += across[:, h]
    s *= a
    s += k
    return s, spare


def _back_to_pixels(t, of_pixels, down, P, n):
    """Sums of t (C,rows,Wo,N) over the outputs that see a pixel, for pixels (C,h,W,N) of which the first lies in row `down`
    counted from the first output's."""
    C, h, W, N = of_pixels
    across = workspace("sums", (C, t.shape[1], W, N), t.dtype)
    sums = workspace("squares", of_pixels, t.dtype)
    across[:], sums[:] = 0, 0
    for tap in taps_met(n, W, t.shape[2], 1, P):
        q, w = tap_pixels(tap, W, t.shape[2], 1, P)
        across[:, :, w] += t[:, :, q]
    for tap in taps_met(n, h, t.shape[1], 1, P + down):
        p, i = tap_pixels(tap, h, t.shape[1], 1, P + down)
        sums[:, i] += across[:, p]
    return sums
