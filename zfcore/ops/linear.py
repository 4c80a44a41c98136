"""Fully connected layer, y = w' x + b (paper, section 1.1: layers 6 to 8).

    y[m,n]  = b[m] + sum over d of  w[d,m] * x[d,n]
    dx[d,n] = sum over m of  w[d,m] * dy[m,n]        dw[d,m] = sum over n of  x[d,n] * dy[m,n]        db[m] = sum of dy[m,:]

NumPy leaves the products to BLAS: the same bits for the same batch, on any number of cores; for another N it may add in another
order. On a GPU it is a convolution of maps of one pixel, by the kernels and in the precisions
of zfcore/ops/conv2d.py: a call of cuBLAS could not be captured in the CUDA graph of a training step. Its long sums over few
outputs are cut into slices, by the sizes of w alone: there y and dx of an image have the same bits in any batch.
"""
from typing import NamedTuple

import numpy as np

from zfcore import check
from zfcore.backend import BF16, check_maps, empty, runs_kernels
from zfcore.cpu import parallel, pieces
from zfcore.kernel import Kernel, blocks, lanes
from zfcore.ops.conv2d import check_precision, check_stored
from zfcore.ops.conv2d_kernels import (launch_filter_gradient, launch_forward, launch_wgmma_transpose, slices_of_rows,
                                       takes_wgmma, transpose_filters)

BLOCK = 512                       # rows of a product that one core forms at once
LONG = 2048                       # columns of w that are read at once where each number is used once: memory likes long runs
BIAS_GRADIENT = Kernel("linear.cu", "linear_bias_gradient", "const stored *dy, float *db, int M, int N",
                       {"LANES": 4}).stored_too(LANES=8)


class LinearCache(NamedTuple):
    """Cache of `linear`, for its gradients."""
    x: np.ndarray
    w: np.ndarray
    precision: str
    training: bool


def linear_reference(x, w, b):
    """y (M,N) in float64, number by number."""
    y = np.zeros((w.shape[1], x.shape[1]))
    for m, n in np.ndindex(y.shape):
        y[m, n] = b[m] + sum(float(w[d, m])*float(x[d, n]) for d in range(len(x)))
    return y


def linear_backward_reference(dy, x, w):
    """(dx, dw, db) in float64: every product of linear_reference, walked once more."""
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for (m, n), d in ((mn, d) for mn in np.ndindex(dy.shape) for d in range(len(x))):
        dx[d, n] += float(w[d, m])*float(dy[m, n])
        dw[d, m] += float(x[d, n])*float(dy[m, n])
    return dx, dw, dy.sum(axis=1, dtype=np.float64)


def linear(x, w, b, precision="fp32", scores=False, training=False, relu=False):
    """x (D,N), w (D,M), b (M,), all float32 or all float64 -> (y (M,N), cache). The gradients form their products in the
    same `precision`; in bf16 x, w and y are BF16, but y is float32 if they are `scores`, for a loss. training: it is a step's,
    see conv2d.py. relu=True ends in max(y, 0). Raises Expected where shapes, dtypes or the precision do not fit."""
    check.shape("linear x", x, (None, None))
    check_precision("linear precision", x, precision)
    check_maps("linear x", x)
    check_stored("linear x", x, precision)
    check.shape("linear w", w, (x.shape[0], None))
    check.shape("linear b", b, (w.shape[1],))
    check.dtype("linear w", w, x.dtype)
    check.dtype("linear b", b, np.float32 if x.dtype == BF16 else x.dtype)
    y = empty((w.shape[1], x.shape[1]), b.dtype if scores else x.dtype, like=x)
    cache = LinearCache(x, w, precision, training)
    if runs_kernels(x):
        launch_forward(_pixel(x), _pixel(w), b, _pixel(y), 1, 0, 1, relu, precision, sliced=True, training=training)
        return y, cache

    def job(m):
        np.add(np.matmul(x.T, w[:, m]).T, b[m, None], out=y[m])     # BLAS is quicker with the few images as rows, same bits
        if relu:
            np.maximum(y[m], 0, out=y[m])

    M, N = y.shape
    parallel(job, pieces(M, BLOCK if N > 1 else max(BLOCK, min(LONG, M//2))))
    return y, cache


def linear_transpose(dy, w, precision="fp32", training=False):
    """dy (M,N), w (D,M) -> dx (D,N): the data gradient of linear, a step's if `training`."""
    check.shape("linear_transpose dy", dy, (w.shape[1], None))
    check_precision("linear_transpose precision", dy, precision)
    check_stored("linear_transpose dy", dy, precision)
    if takes_wgmma(dy, _pixel(w).shape, 1, training):
        dx = empty((len(w), dy.shape[1]), dy.dtype, like=dy)
        launch_wgmma_transpose(_pixel(dy), _pixel(w), _pixel(dx), 1, 0, 1, sliced=True)
        return dx
    if runs_kernels(dy):
        # w and dy turned are read along m: the kernel of the filter gradient
        return launch_filter_gradient(_pixel(w), transpose_filters(_pixel(dy)), (len(w), 1, 1, dy.shape[1]), 1, 0, 1, precision,
                                      slices_of_rows(len(dy), len(w)), dy.dtype).reshape(len(w), -1)
    dx = empty((len(w), dy.shape[1]), dy.dtype, like=dy)
    parallel(lambda d: np.matmul(w[d], dy, out=dx[d]), pieces(len(w), BLOCK))
    return dx


def linear_backward(dy, cache, need_dx=True):
    """dy (M,N) -> (dx (D,N) or None, dw (D,M), db (M,))."""
    x, w, precision, training = cache
    check.shape("linear_backward dy", dy, (w.shape[1], x.shape[1]))
    check.dtype("linear_backward dy", dy, x.dtype)
    dx = linear_transpose(dy, w, precision, training) if need_dx else None
    if runs_kernels(dy):
        dw = launch_filter_gradient(_pixel(x), _pixel(dy), _pixel(w).shape, 1, 0, 1, precision, training=training)
        db = empty((len(dy),), np.float32, like=dy)
        BIAS_GRADIENT.variant(dy, LANES=lanes(dy.shape[1], dy))(blocks(len(dy), BIAS_GRADIENT.block//32), dy, db, *dy.shape)
        return dx, dw.reshape(w.shape), db
    dw = empty(w.shape, w.dtype, like=w)
    parallel(lambda d: np.matmul(x[d], dy.T, out=dw[d]), pieces(len(x), BLOCK))
    return dx, dw, dy.sum(axis=1)


def _pixel(x):
    """(D,N) -> (D,1,1,N): maps of one pixel; and w (D,M) -> (D,1,1,M), filters of one."""
    return x.reshape(len(x), 1, 1, -1)
