"""Local response normalisation across maps (Krizhevsky 2012, section 3.3), in layers 1 and 2 behind the pool: the paper's local
contrast normalisation."""
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels
from zfcore.check import Expected, dtype, one_of, positive, shape
from zfcore.cpu import parallel, pieces
from zfcore.kernel import Kernel, blocks
from zfcore.memory import workspace
from zfcore.ops import loops
from zfcore.ops.maxpool import MaxPoolCache, Pooling, maxpool, pooled_shape
from zfcore.ops.relu import relu_backward_reference, where_on

FORWARD = Kernel("local_response_norm.cu", "local_response_norm_forward",
                 "const stored *x, stored *y, long long L, int C, int maps, float a, float k",
                 {"NEIGHBOURS": 5, "BETA": "0.75f"}).stored_too()
BACKWARD = Kernel("local_response_norm.cu", "local_response_norm_backward",
                  "const stored *dy, const stored *x, stored *dx, long long L, int C, int maps, float a, float k",
                  {"NEIGHBOURS": 5, "BETA": "0.75f", "RELU": 0}).stored_too()
OF_MAXPOOL = Kernel("local_response_norm.cu", "local_response_norm_of_maxpool",
                    "const stored *x, stored *maxima, unsigned char *switches, stored *y, "
                    "int H, int W, int Ho, int Wo, int N, int P, int C, int maps, float a, float k",
                    {"NEIGHBOURS": 5, "BETA": "0.75f", "POOL": 3, "STRIDE": 2}).stored_too()


class Normalisation(NamedTuple):
    n: int
    a: float                  # what a square is multiplied by: alpha/n or alpha
    beta: float
    k: float


class LocalResponseNormCache(NamedTuple):
    """The maps x that were normalised, and how."""
    x: np.ndarray
    rule: Normalisation


def local_response_norm_reference(x, n, alpha, beta, k, convention="mean"):
    s = np.empty(x.shape)
    a = alpha/n if convention == "mean" else alpha
    for c in range(len(x)):
        first = c - n//2
        s[c] = k + a*np.square(x[max(first, 0):max(first + n, 0)], dtype=float).sum(axis=0)
    return x*s**-beta, LocalResponseNormCache(x, Normalisation(n, a, beta, k))


def local_response_norm_backward_reference(dy, cache, relu=False):
    x, (n, a, beta, k) = cache
    dx = np.zeros(x.shape)
    for c in range(len(x)):                                  # each y[c] depends on the maps near it
        near = slice(max(c - n//2, 0), max(c - n//2 + n, 0))
        s = k + a*np.square(x[near], dtype=float).sum(axis=0)
        dx[c] += dy[c]*s**-beta
        dx[near] -= 2*a*beta*x[near]*dy[c]*x[c]*s**(-beta - 1)
    return relu_backward_reference(dx, x) if relu else dx


def local_response_norm(x, n, alpha, beta, k, convention="mean"):
    """y = x / s^beta with s = k + a * (sum of the squares of n neighbouring maps, at the same pixel).

    x (C,H,W,N) float32, float64 or stored BF16 -> y of the same shape, and the cache.
    The maps of y[c] are c - n//2 .. c - n//2 + n-1, cut at the first and the last map: symmetric for odd n; for even n
    one more below, as in cuda-convnet and PyTorch (ONNX LRN has one more above).
    convention   "mean"   a = alpha/n, as cuda-convnet, Caffe, PyTorch and ONNX read alpha
                 "sum"    a = alpha, the formula of the AlexNet paper taken literally
    Raises Expected unless n, k > 0 and alpha >= 0: s is then never 0."""
    check_maps("local_response_norm: x", x)
    rule = normalisation(n, alpha, beta, k, convention)
    y = empty(x.shape, x.dtype, like=x)
    if runs_kernels(x):
        _launch(FORWARD, rule, x, y)
        return y, LocalResponseNormCache(x, rule)
    columns, out = x.reshape(len(x), -1), y.reshape(len(x), -1)          # (C, pixels of all images)
    if loop := _loop(loops.normalise, rule, columns):
        number = x.dtype.type
        parallel(lambda block: loop(columns, out, n, number(rule.a), number(k), block.start, block.stop),
                 _blocks(columns, loops.BUDGET))
        return y, LocalResponseNormCache(x, rule)

    def work(block):
        x = columns[:, block]
        s, spare = (workspace(name, x.shape, x.dtype) for name in ("scale", "spare"))
        _scale(x, rule, s, spare)
        np.divide(x, to_power(s, rule.beta, s, spare), out=out[:, block])

    parallel(work, _blocks(columns))
    return y, LocalResponseNormCache(x, rule)


def normalisation(n, alpha, beta, k, convention="mean"):
    """The Normalisation of these arguments. Raises Expected as `local_response_norm`."""
    one_of("local_response_norm: convention", convention, ("mean", "sum"))
    positive("local_response_norm: n", n)
    positive("local_response_norm: k", k)
    if alpha < 0:
        raise Expected("local_response_norm: alpha", "a number not below 0", alpha)
    return Normalisation(n, float(alpha/n if convention == "mean" else alpha), float(beta), float(k))


def local_response_norm_of_maxpool(x, pool, norm):
    """`maxpool` and `local_response_norm` behind it: on a device in one pass, so that the maxima are not read again.

    x (C,H,W,N); `pool` and `norm` are the other arguments of the two -> (maxima, cache of the pool), (y, cache of the
    normalisation), what the two would return, to the bit. Raises Expected as they do."""
    if not runs_kernels(x):
        pooled = maxpool(x, *pool)
        return pooled, local_response_norm(pooled[0], *norm)
    (_, H, W, _), (C, Ho, Wo, N), (K, S, P, *_) = x.shape, pooled_shape(x, *pool), pool
    rule = normalisation(*norm)
    maxima, y = (empty((C, Ho, Wo, N), x.dtype, like=x) for _ in range(2))
    switches = empty(y.shape, np.uint8, like=x)
    tuned = OF_MAXPOOL.variant(x, NEIGHBOURS=rule.n, BETA=f"{rule.beta}f", POOL=K, STRIDE=S)
    grid, maps = _grid(tuned, C, Ho*Wo*N)
    tuned(grid, x, maxima, switches, y, H, W, Ho, Wo, N, P, C, maps, rule.a, rule.k)
    return (maxima, MaxPoolCache(switches, Pooling(x.shape, K, S, P), maxima)), (y, LocalResponseNormCache(maxima, rule))


def local_response_norm_backward(dy, cache, relu=False):
    """dx[c] = dy[c] / s[c]^beta - 2 a beta x[c] * (sum over the maps j that have c among theirs of dy[j] y[j] / s[j]).

    relu=True goes on through a ReLU that x came out of, with x at hand: dx is 0 where x is not above 0."""
    x, rule = cache
    dtype("local_response_norm_backward: dy", dy, x.dtype)
    shape("local_response_norm_backward: dy", dy, x.shape)
    n, a, beta, k = rule
    dx = empty(dy.shape, dy.dtype, like=dy)
    if runs_kernels(dy):
        _launch(BACKWARD.variant(RELU=int(relu)), rule, dy, x, dx)
        return dx
    columns, above, out = (array.reshape(len(x), -1) for array in (x, dy, dx))
    if loop := _loop(loops.normalise_back, rule, columns):
        scalars = [x.dtype.type(number) for number in (a, k, 2*a*beta)]
        parallel(lambda block: loop(above, columns, out, n, *scalars, relu, block.start, block.stop),
                 _blocks(columns, loops.BUDGET))
        return dx

    def work(block):
        x, dy, dx = columns[:, block], above[:, block], out[:, block]
        s, power, shared = (workspace(name, x.shape, x.dtype) for name in ("scale", "power", "spare"))
        _scale(x, rule, s, shared)
        np.divide(dy, to_power(s, beta, power, shared), out=dx)       # the first term, dy / s^beta
        np.multiply(dx, x, out=power)
        power /= s                                                      # dy y / s
        _neighbours(power, n, n - 1 - n//2, shared)                     # the maps that have this one among theirs
        shared *= x
        shared *= 2*a*beta
        dx -= shared
        if relu:
            where_on(dx, x > 0, dx)

    parallel(work, _blocks(columns))
    return dx


def _loop(loop, rule, columns):
    """The compiled `loop`, which knows of no power but 0.75; None where there is none."""
    return loops.compiled(loop, columns) if rule.beta == 0.75 and columns.flags.c_contiguous else None


def _launch(kernel, rule, *arrays):
    C, L = len(arrays[0]), arrays[0].size//max(len(arrays[0]), 1)
    grid, maps = _grid(kernel, C, L)
    kernel.variant(arrays[0], NEIGHBOURS=rule.n, BETA=f"{rule.beta}f")(grid, *arrays, L, C, maps, rule.a, rule.k)


def _grid(kernel, C, L):
    """(blocks, maps): a thread walks all maps of its pixel; where the L pixels are too few to fill a large GPU, 32 of them."""
    maps = C if L >= 2**18 else min(C, 32)
    return blocks(L, kernel.block)*blocks(C, max(maps, 1)), maps


def _scale(x, rule, s, spare):
    """s = k + a * (sum of the squares of n maps); all arrays (C,L)."""
    _neighbours(np.square(x, out=spare), rule.n, rule.n//2, s)
    s *= rule.a
    s += rule.k


def _neighbours(t, n, below, out):
    """out[c] = t[c - below] + ... + t[c - below + n-1], cut at the ends. The maps are added one by one: a running sum
    that adds the next map and takes the oldest off would lose small maps behind large ones."""
    C = len(t)
    out[:] = t
    for shift in range(max(-below, 1 - C), min(n - below, C)):
        if shift:
            lo, hi = max(0, -shift), C - max(0, shift)
            out[lo:hi] += t[lo + shift:hi + shift]


def to_power(s, beta, out, spare):
    """out = s^beta; AlexNet's 0.75 from two square roots, which every CPU has, and a general power has not."""
    if beta != 0.75:
        return np.power(s, beta, out=out)
    np.sqrt(np.sqrt(s, out=spare), out=out)
    out *= spare
    return out


def _blocks(columns, budget=2**21):
    """Slices of pixels for which all maps of one array take about `budget` bytes."""
    C, L = columns.shape
    return pieces(L, budget//max(C*columns.itemsize, 1))
