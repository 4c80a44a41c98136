"""Convolution of maps with filters, as networks mean it (the filter is not flipped), and its two gradients (paper,
section 1.1: layers 1 to 5).

    y[f,p,q,n]   = b[f] + sum over c,r,s of  w[c,r,s,f] * x[c, p*S-P+r, q*S-P+s, n]       x outside the map is 0
    dx[c,h,w,n]  = sum over f,r,s of  w[c,r,s,f] * dy[f,p,q,n]                            where p*S-P+r = h, q*S-P+s = w
    dw[c,r,s,f]  = sum over p,q,n of  x[c, p*S-P+r, q*S-P+s, n] * dy[f,p,q,n]
    db[f]        = sum over p,q,n of  dy[f,p,q,n]

With `groups` G the maps are dealt into G parts: filters g*F/G ... see only maps g*C/G ..., so w is (C/G,K,K,F).

The NumPy form is conv2d_blocks.py; the CUDA form kernels/conv2d.cu, which conv2d_kernels.py launches. There `precision` says
how products are formed; sums are float32 in all, and so are maps and filters but for bf16:

    fp32     by float32 arithmetic, the only one that NumPy has
    fp32x3   as three tf32 products on tensor cores, nearly float32
    tf32     of factors rounded to 11 bits, on tensor cores
    bf16     of maps and filters that are stored as BF16, 8 bits, on tensor cores; gradients of filters and biases are float32

On a GPU an image has the same bits in any batch. In bf16 on a Hopper GPU a step of training takes other kernels than all that looks
at a network does, and these may add up in another order: which ones follows from `training` and from the filters, not from N. The
NumPy form has the same bits for the same batch, on any number of cores; BLAS may add in another order where N is another.
"""
from typing import NamedTuple

import numpy as np

from zfcore import check
from zfcore.backend import BF16, check_maps, empty, runs_kernels
from zfcore.cpu import parallel
from zfcore.kernel import PRECISIONS
from zfcore.ops import conv2d_blocks, conv2d_kernels
from zfcore.ops.relu import relu_backward
from zfcore.ops.window import output_size


class ConvCache(NamedTuple):
    """Cache of `conv2d`, for its gradients: its arguments, `biased` saying whether there was a bias."""
    x: np.ndarray
    w: np.ndarray
    S: int
    P: int
    groups: int
    biased: bool
    precision: str
    training: bool


# -------------------------------------------------------------------------------------------- the specification
def conv2d_reference(x, w, b, S, P, groups=1, rounding="ceil"):
    """y (F,Ho,Wo,N) in float64, tap by tap of each output pixel."""
    (C, H, W, N), (_, K, _, F) = x.shape, w.shape
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    x, w, y = x.astype(np.float64), w.astype(np.float64), np.zeros((F, Ho, Wo, N))
    for p, q, r, s in np.ndindex(Ho, Wo, K, K):
        h, v = p*S - P + r, q*S - P + s
        if 0 <= h < H and 0 <= v < W:
            for maps, filters in _groups_reference(C, F, groups):
                y[filters, p, q] += w[:, r, s, filters].T @ x[maps, h, v]
    return y if b is None else y + b[:, None, None, None]


def conv2d_backward_reference(dy, x, w, S, P, groups=1):
    """(dx, dw, db) in float64: every product of conv2d_reference, walked once more."""
    (C, H, W, _), (_, K, _, F) = x.shape, w.shape
    dy, x, w = (array.astype(np.float64) for array in (dy, x, w))
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for p, q, r, s in np.ndindex(*dy.shape[1:3], K, K):
        h, v = p*S - P + r, q*S - P + s
        if 0 <= h < H and 0 <= v < W:
            for maps, filters in _groups_reference(C, F, groups):
                dx[maps, h, v] += w[:, r, s, filters] @ dy[filters, p, q]
                dw[:, r, s, filters] += x[maps, h, v] @ dy[filters, p, q].T
    return dx, dw, dy.sum(axis=(1, 2, 3))


def _groups_reference(C, F, groups):
    """(maps, filters) of each group, told without the NumPy form's own."""
    return [(slice(g*C//groups, (g + 1)*C//groups), slice(g*F//groups, (g + 1)*F//groups)) for g in range(groups)]


# ------------------------------------------------------------------------------------------------- the operation
def conv2d(x, w, b, S, P, groups=1, rounding="ceil", relu=False, precision="fp32", training=False):
    """x (C,H,W,N), w (C/groups,K,K,F), b (F,) or None -> (y (F,Ho,Wo,N), cache).

    S stride, P zeros around the map, Ho and Wo by `output_size(..., rounding)`. relu=True ends in max(y, 0) while y is
    in cache; the cache of the convolution does not depend on it. float32 or float64, one for all three; in bf16 x, w and
    y are BF16. The gradients form their products in the same `precision`. training: it is a step's, as its gradients will be.
    Raises Expected where shapes, dtypes or the precision do not fit."""
    y = empty(check_conv2d(x, w, b, S, P, groups, rounding, precision), x.dtype, like=x)
    cache = ConvCache(x, w, S, P, groups, b is not None, precision, training)
    if runs_kernels(x):
        conv2d_kernels.launch_forward(x, w, b, y, S, P, groups, relu, precision, training=training)
    else:
        conv2d_blocks.forward(x, w, b, y, S, P, groups, relu)
    return y, cache


def conv2d_transpose(dy, w, S, P, H, W, groups=1, precision="fp32", training=False, on=None):
    """dy (F,Ho,Wo,N), w (C/groups,K,K,F) -> dx (C,H,W,N): the data gradient of conv2d on maps of H x W, or below the ReLU that
    left these, `on`, its gradient.

    This is the transposed convolution, the filtering of the deconvnet: each filter flipped and applied to the maps above
    (paper, section 2.1). Raises Expected where shapes do not fit, dy's size to H and W among them."""
    check.shape("conv2d_transpose dy", dy, (None, None, None, None))
    check_precision("conv2d_transpose precision", dy, precision)
    check_maps("conv2d_transpose dy", dy)
    check_stored("conv2d_transpose dy", dy, precision)
    check.shape("conv2d_transpose w", w, (None, None, None, dy.shape[0]))
    (maps, K, _, _), N = w.shape, dy.shape[-1]
    C = maps*groups
    _check_filters("conv2d_transpose", w, C, groups, dy.dtype)
    _check_size("conv2d_transpose dy", dy, H, W, K, S, P)
    dx = empty((C, H, W, N), dy.dtype, like=dy)
    if runs_kernels(dy):
        return conv2d_kernels.launch_transpose(dy, w, dx, S, P, groups, precision, training, on)
    conv2d_blocks.transpose(dy, w, dx, S, P, groups)
    return dx if on is None else relu_backward(dx, on)


def conv2d_backward(dy, cache, need_dx=True, relu=False):
    """dy (F,Ho,Wo,N) -> (dx or None, dw, db); db is None where the convolution had no bias. relu=True where a ReLU is below:
    dx is what comes out under it, to the bit."""
    x, w, S, P, groups, biased, precision, training = cache
    (_, H, W, N), (_, K, _, F) = x.shape, w.shape
    check.shape("conv2d_backward dy", dy, (F, None, None, N))
    check.dtype("conv2d_backward dy", dy, x.dtype)
    _check_size("conv2d_backward dy", dy, H, W, K, S, P)
    dx = conv2d_transpose(dy, w, S, P, H, W, groups, precision, training, x if relu else None) if need_dx else None
    if runs_kernels(x):
        dw = conv2d_kernels.launch_filter_gradient(x, dy, w.shape, S, P, groups, precision, training=training)
        return dx, dw, conv2d_kernels.launch_bias_gradient(dy) if biased else None
    dw = empty(w.shape, w.dtype, like=w)
    conv2d_blocks.filter_gradient(x, dy, dw, S, P, groups)
    db = None
    if biased:
        db = np.concatenate(parallel(lambda f: dy[f:f + 8].reshape(len(dy[f:f + 8]), -1).sum(axis=1), range(0, F, 8)))
    return dx, dw, db


# ---------------------------------------------------------------------------------------------------- the checks
def check_precision(what, x, precision):
    """Raise unless products with `x` can be formed in this `precision`."""
    check.one_of(what, precision, PRECISIONS)
    if precision != "fp32" and not runs_kernels(x):
        raise check.Expected(what, "fp32, the one that NumPy has", precision, "run it on a GPU, or leave it at fp32")


def check_stored(what, x, precision):
    """Raise unless x is stored as products of this `precision` take it."""
    if (x.dtype == BF16) != (precision == "bf16"):
        raise check.Expected(what, f"an array of {BF16 if precision == 'bf16' else 'float32'}, as {precision} takes", x.dtype)


def check_conv2d(x, w, b, S, P, groups, rounding, precision):
    """The shape (F,Ho,Wo,N) of conv2d's output, after its checks."""
    check.shape("conv2d x", x, (None, None, None, None))
    check_precision("conv2d precision", x, precision)
    check_maps("conv2d x", x)
    check_stored("conv2d x", x, precision)
    _check_filters("conv2d", w, x.shape[0], groups, x.dtype)
    (_, H, W, N), (_, K, _, F) = x.shape, w.shape
    if b is not None:
        check.shape("conv2d b", b, (F,))
        check.dtype("conv2d b", b, np.float32 if x.dtype == BF16 else x.dtype)
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
