"""Fully connected layer, y = w' x + b (paper, section 1.1: layers 6 to 8). The products are left to BLAS.

    y[m,n]  = b[m] + sum over d of  w[d,m] * x[d,n]
    dx[d,n] = sum over m of  w[d,m] * dy[m,n]        dw[d,m] = sum over n of  x[d,n] * dy[m,n]        db[m] = sum of dy[m,:]
"""
import numpy as np

from zfcore import check
from zfcore.backend import Kernel, array_module, blocks, empty, lanes, parallel, runs_kernels
from zfcore.ops.window import pieces

BLOCK = 512                       # rows of a product that one core forms at once
BIAS = Kernel("linear.cu", "linear_bias", "float *y, const float *b, int M, int N", {"LANES": 4})
BIAS_GRADIENT = Kernel("linear.cu", "linear_bias_gradient", "const float *dy, float *db, int M, int N", {"LANES": 4})


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


def linear(x, w, b):
    """x (D,N), w (D,M), b (M,), all float32 or all float64 -> (y (M,N), cache). Raises Expected where they do not fit."""
    check.shape("linear x", x, (None, None))
    check.dtype("linear x", x, np.float32, np.float64)
    check.shape("linear w", w, (x.shape[0], None))
    check.shape("linear b", b, (w.shape[1],))
    for what, array in (("linear w", w), ("linear b", b)):
        check.dtype(what, array, x.dtype)
    y = empty((w.shape[1], x.shape[1]), x.dtype, like=x)
    if runs_kernels(x):
        array_module(x).matmul(w.T, x, out=y)
        BIAS.variant(LANES=lanes(y.shape[1], y))(blocks(len(y), BIAS.block//32), y, b, *y.shape)
        return y, (x, w)

    def job(m):
        np.matmul(w[:, m].T, x, out=y[m])
        y[m] += b[m, None]

    parallel(job, pieces(len(y), BLOCK))
    return y, (x, w)


def linear_backward(dy, cache, need_dx=True):
    """dy (M,N) -> (dx (D,N) or None, dw (D,M), db (M,))."""
    x, w = cache
    check.shape("linear_backward dy", dy, (w.shape[1], x.shape[1]))
    check.dtype("linear_backward dy", dy, x.dtype)
    dx = empty(x.shape, x.dtype, like=x) if need_dx else None
    dw = empty(w.shape, w.dtype, like=w)
    if runs_kernels(dy):
        product, db = array_module(dy).matmul, empty((len(dy),), dy.dtype, like=dy)
        product(x, dy.T, out=dw)
        if need_dx:
            product(w, dy, out=dx)
        BIAS_GRADIENT.variant(LANES=lanes(dy.shape[1], dy))(blocks(len(dy), BIAS_GRADIENT.block//32), dy, db, *dy.shape)
        return dx, dw, db

    def job(d):
        np.matmul(x[d], dy.T, out=dw[d])
        if need_dx:
            np.matmul(w[d], dy, out=dx[d])

    parallel(job, pieces(len(x), BLOCK))
    return dx, dw, dy.sum(axis=1)
