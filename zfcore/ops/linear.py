"""Fully connected layer, y = w' x + b (paper, section 1.1: layers 6 to 8). Matrix products, cut into blocks of rows."""
import numpy as np

from zfcore import check
from zfcore.backend import parallel


def linear_reference(x, w, b):
    """y (M,N) in float64, unit by unit."""
    y = np.zeros((w.shape[1], x.shape[1]))
    for m, n in np.ndindex(y.shape):
        y[m, n] = b[m] + np.sum(w[:, m].astype(np.float64)*x[:, n])
    return y


def linear(x, w, b):
    """x (D,N), w (D,M), b (M,) -> (y (M,N), cache)."""
    check.shape("linear x", x, (None, None))
    check.shape("linear w", w, (x.shape[0], None))
    check.shape("linear b", b, (w.shape[1],))
    return w.T @ x + b[:, None], (x, w)


def linear_backward(dy, cache, need_dx=True):
    """dy (M,N) -> (dx (D,N) or None, dw (D,M), db (M,))."""
    x, w = cache
    check.shape("linear_backward dy", dy, (w.shape[1], x.shape[1]))
    return w @ dy if need_dx else None, x @ dy.T, dy.sum(axis=1)
