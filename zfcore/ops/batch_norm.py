"""Batch normalisation (Ioffe & Szegedy 2015): each map, or each unit of a fully connected layer, by its own mean and variance.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

In training mean and variance are those of the map over all pictures of the batch and all its places; running means of them
stand in for them in evaluation, where a picture has the same bits in any batch.

All sums are formed in float64, in slices whose borders follow from the sizes alone: the same bits in every run and on any
number of cores. In float32 a variance as mean of squares minus squared mean would lose a spread below a thousandth of the mean,
and the gradients' sums, which nearly cancel under a softmax and under another normalisation, all their digits. So that nothing
cancels in float64 either, the squares are those of the distance to the map's first value.
"""
import math
from typing import NamedTuple

import numpy as np

from zfcore.backend import BF16, check_maps, empty, runs_kernels
from zfcore.check import dtype, positive, shape
from zfcore.cpu import parallel, pieces
from zfcore.kernel import Kernel, blocks, lanes
from zfcore.memory import workspace

SLICE, BLOCK = 2**12, 2**15       # numbers of a map that a warp adds up; numbers that a core works on at once
OF_SLICES = "long long L, int C, int slices"
SUMS = Kernel("batch_norm.cu", "batch_norm_sums", f"const stored *x, double *partial, {OF_SLICES}",
              {"LANES": 4}).stored_too(LANES=8)
STATISTICS = Kernel("batch_norm.cu", "batch_norm_statistics",
                    "const double *partial, const stored *x, float *mean, float *var, float *running_mean, float *running_var, "
                    f"{OF_SLICES}, double momentum").stored_too()
FORWARD = Kernel("batch_norm.cu", "batch_norm_forward",
                 "const stored *x, const float *gamma, const float *beta, const float *mean, const float *var, stored *y, "
                 "long long L, int C, float eps", {"LANES": 4}).stored_too(LANES=8)
GRADIENT_SUMS = Kernel("batch_norm.cu", "batch_norm_gradient_sums",
                       f"const stored *dy, const stored *x, const float *mean, double *partial, {OF_SLICES}",
                       {"LANES": 4}).stored_too(LANES=8)
GRADIENTS = Kernel("batch_norm.cu", "batch_norm_gradients",
                   "const double *partial, const float *var, float *dgamma, float *dbeta, int C, int slices, float eps")
BACKWARD = Kernel("batch_norm.cu", "batch_norm_backward",
                  "const stored *dy, const stored *x, const float *gamma, const float *mean, const float *var, "
                  "const float *dgamma, const float *dbeta, stored *dx, long long L, int C, float eps",
                  {"LANES": 4}).stored_too(LANES=8)
SCALE = Kernel("batch_norm.cu", "batch_norm_scale",
               "const stored *dy, const float *gamma, const float *var, stored *dx, long long L, int C, float eps",
               {"LANES": 4}).stored_too(LANES=8)


class BatchNormCache(NamedTuple):
    """Cache of `batch_norm`: what was normalised, and by what; `training`: mean and variance are those of x itself."""
    x: np.ndarray
    gamma: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    eps: float
    training: bool


def batch_norm_reference(x, gamma, beta, mean, var, eps, momentum=None):
    """(y, cache, new running mean, new running variance) in float64, map by map."""
    y, mean, var, of_batch = np.empty(x.shape), mean.astype(float), var.astype(float), np.empty((2, len(x)))
    for c in range(len(x)):
        values = x[c].astype(float).ravel()
        count, of_batch[:, c] = len(values), (mean[c], var[c])
        if momentum is not None:
            middle = math.fsum(values)/count
            spread = math.fsum((values - middle)**2)/count
            of_batch[:, c] = middle, spread
            if count > 1:
                mean[c] = (1 - momentum)*mean[c] + momentum*middle
                var[c] = (1 - momentum)*var[c] + momentum*spread*count/(count - 1)
        y[c] = gamma[c]*(x[c] - of_batch[0, c])/math.sqrt(of_batch[1, c] + eps) + beta[c]
    return y, BatchNormCache(x, gamma, *of_batch, eps, momentum is not None), mean, var


def batch_norm_backward_reference(dy, cache):
    """(dx, dgamma, dbeta) in float64, map by map."""
    x, gamma, mean, var, eps, training = cache
    dx, dgamma, dbeta = np.empty(x.shape), np.empty(len(x)), np.empty(len(x))
    for c in range(len(x)):
        root, above = math.sqrt(var[c] + eps), dy[c].astype(float)
        normal = (x[c].astype(float) - mean[c])/root
        dgamma[c], dbeta[c] = math.fsum((above*normal).ravel()), math.fsum(above.ravel())
        through_statistics = (dbeta[c] + normal*dgamma[c])/above.size if training else 0
        dx[c] = gamma[c]/root*(above - through_statistics)
    return dx, dgamma, dbeta


def batch_norm(x, gamma, beta, mean, var, eps, momentum=None):
    """x (C,H,W,N) or (D,N), gamma, beta and the running mean and var (C,) or (D,), all float32 or all float64
    (x stored as BF16: they are float32) -> (y shaped like x, cache).

    momentum   None: evaluation, by the running mean and var. A number: training; they are moved in place on their device,
               running = (1 - momentum)*running + momentum*(mean or unbiased variance of the batch)

    A map of a single value has no spread: its y is beta, and the running mean and var stay. Raises Expected where shapes or
    dtypes do not fit and unless eps > 0: no root is then 0."""
    check_maps("batch_norm: x", x)
    positive("batch_norm: eps", eps)
    for what, array in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        dtype(f"batch_norm: {what}", array, np.float32 if x.dtype == BF16 else x.dtype)
        shape(f"batch_norm: {what}", array, (len(x),))
    if momentum is not None:
        mean, var = _statistics(x, mean, var, float(momentum))
    y = empty(x.shape, x.dtype, like=x)
    if runs_kernels(x):
        _launch(FORWARD, y, x, gamma, beta, mean, var, y, eps=eps)
    else:
        factor = _factor(gamma, var, eps)

        def work(x, y, c):
            np.subtract(x, mean[c, None], out=y)
            y *= factor[c, None]
            y += beta[c, None]

        _in_blocks(work, x, y)
    return y, BatchNormCache(x, gamma, mean, var, float(eps), momentum is not None)


def batch_norm_backward(dy, cache, need_dx=True):
    """dy shaped like x -> (dx or None, dgamma, dbeta).

    dbeta = sum of dy;  dgamma = sum of dy*n, n the normalised x;  dx = gamma/sqrt(var + eps) * (dy - (dbeta + n*dgamma)/L), L
    the numbers of a map: mean and variance are functions of x too. In evaluation they are not, and dx is the scaling alone."""
    x, gamma, mean, var, eps, training = cache
    _check_gradient(dy, x)
    if runs_kernels(dy):
        dgamma, dbeta = (empty(gamma.shape, gamma.dtype, like=gamma) for _ in range(2))
        partial, slices = _partial_sums(GRADIENT_SUMS, dy, x, mean)
        GRADIENTS(blocks(len(x), GRADIENTS.block//32), partial, var, dgamma, dbeta, len(x), slices, eps)
    else:
        dbeta, dgamma = _sums(x, mean, dy)
        dbeta, dgamma = dbeta.astype(x.dtype), (dgamma/np.sqrt(var.astype(float) + eps)).astype(x.dtype)
    if not need_dx:
        return None, dgamma, dbeta
    return (_through_statistics(dy, cache, dgamma, dbeta) if training else batch_norm_transpose(dy, cache)), dgamma, dbeta


def batch_norm_transpose(dy, cache):
    """The dx of batch_norm_backward alone: in evaluation without a look at x."""
    x, gamma, _, var, eps, training = cache
    _check_gradient(dy, x)
    if training:
        return batch_norm_backward(dy, cache)[0]
    dx = empty(dy.shape, dy.dtype, like=dy)
    if runs_kernels(dy):
        _launch(SCALE, dx, dy, gamma, var, dx, eps=eps)
    else:
        factor = _factor(gamma, var, eps)
        _in_blocks(lambda dy, dx, c: np.multiply(dy, factor[c, None], out=dx), dy, dx)
    return dx


def _through_statistics(dy, cache, dgamma, dbeta):
    """dx in training."""
    x, gamma, mean, var, eps, _ = cache
    dx, L = empty(dy.shape, dy.dtype, like=dy), _length(x)
    if runs_kernels(dy):
        _launch(BACKWARD, dx, dy, x, gamma, mean, var, dgamma, dbeta, dx, eps=eps)
        return dx
    factor = _factor(gamma, var, eps)
    of_normal, constant = (dgamma/np.sqrt(var + x.dtype.type(eps))/L).astype(x.dtype), (dbeta/L).astype(x.dtype)

    def work(dy, x, dx, c):
        np.subtract(x, mean[c, None], out=dx)
        dx *= of_normal[c, None]
        dx += constant[c, None]
        np.subtract(dy, dx, out=dx)
        dx *= factor[c, None]

    _in_blocks(work, dy, x, dx)
    return dx


def _check_gradient(dy, x):
    dtype("batch_norm_backward: dy", dy, x.dtype)
    shape("batch_norm_backward: dy", dy, x.shape)


def _length(x):
    """Count of the elements of a map, over all pictures."""
    return math.prod(x.shape[1:])


def _factor(gamma, var, eps):
    return (gamma/np.sqrt(var.astype(float) + eps)).astype(gamma.dtype)


# ---------------------------------------------------------------------------------------------------------- the sums
def _statistics(x, running_mean, running_var, momentum):
    """(mean, biased variance) of the maps of x, in its dtype; the running ones are moved."""
    L = _length(x)
    momentum = momentum if L > 1 else 0.0
    if runs_kernels(x):
        mean, var = (empty(running_mean.shape, running_mean.dtype, like=x) for _ in range(2))
        partial, slices = _partial_sums(SUMS, x)
        STATISTICS.variant(x)(blocks(len(x), STATISTICS.block//32), partial, x, mean, var, running_mean, running_var, L, len(x),
                              slices, momentum)
        return mean, var
    first = x.reshape(len(x), -1)[:, 0].astype(float)
    total, squares = _sums(x, first)
    spread = np.maximum(squares - total*total/L, 0)
    mean, var = first + total/L, spread/L
    running_mean[...] = (1 - momentum)*running_mean.astype(float) + momentum*mean
    running_var[...] = (1 - momentum)*running_var.astype(float) + momentum*spread/max(L - 1, 1)
    return mean.astype(x.dtype), var.astype(x.dtype)


def _sums(x, middle, dy=None):
    """(2,C) float64: of each map the sums of d and of d*d, d = x - middle[c]; with dy those of dy and of dy*d."""
    sums = np.zeros((2, len(x)))

    def work(x, dy, c):
        d, factor = (workspace(name, x.shape, np.float64) for name in ("distance", "factor"))
        np.subtract(x, middle[c, None], out=d, dtype=np.float64)
        factor[...] = dy if of_gradient else d
        sums[0, c] += factor.sum(axis=1)
        d *= factor
        sums[1, c] += d.sum(axis=1)

    of_gradient = dy is not None
    _in_blocks(work, x, dy if of_gradient else x)
    return sums


def _partial_sums(kernel, x, *others):
    """(partial sums (C,slices,2), slices) of the two as `kernel` leaves them."""
    L, C = _length(x), len(x)
    slices = max(1, blocks(L, SLICE))
    partial = empty((C, slices, 2), np.float64, like=x)
    arrays = x, *others
    wide = kernel.variant(x, LANES=lanes(L, *(array for array in arrays if array.shape == x.shape)))
    wide(blocks(C*slices, kernel.block//32), *arrays, partial, L, C, slices)
    return partial, slices


def _launch(kernel, out, *arrays, eps):
    """A kernel in which a thread makes LANES neighbouring numbers of one map."""
    L, C = _length(out), len(out)
    wide = lanes(L, *(array for array in arrays if array.shape == out.shape))
    kernel.variant(out, LANES=wide)(C*blocks(L//wide, kernel.block), *arrays, L, C, eps)


def _in_blocks(work, *arrays):
    """work(*pieces (c,l) of the arrays, slice c of maps) for all of them. A core walks whole maps, their slices in order."""
    rows = [array.reshape(len(array), -1) for array in arrays]
    C, L = rows[0].shape

    def walk(c):
        for places in pieces(L, BLOCK):
            work(*(array[c, places] for array in rows), c)

    parallel(walk, pieces(C, BLOCK//max(L, 1)))
