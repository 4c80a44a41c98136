"""The limit on the size of filters, which keeps a few of them from taking over the first layer (paper, section 3)."""
import numpy as np

from zfcore.backend import empty, runs_kernels
from zfcore.check import dtype, positive
from zfcore.kernel import EACH, Kernel, blocks

FILTERS, ROWS = 32, 128           # that one block works on
SQUARES = Kernel("clip_filter_rms.cu", "clip_filter_rms_squares",
                 "Each<const float *> w, double *partial, Each<int> D, Each<int> F")
SCALE = Kernel("clip_filter_rms.cu", "clip_filter_rms_scale",
               "Each<float *> w, const double *partial, Each<int> D, Each<int> F, double limit, double *clamped, "
               "Each<stored *> copies").stored_too()


def clip_filter_rms_reference(w, limit):
    """The new w, and how many filters were scaled back."""
    w, clamped = w.copy(), 0
    for f in range(w.shape[-1]):
        size = np.sqrt(np.mean(np.square(w[..., f], dtype=float)))
        if size > limit:
            w[..., f] *= limit/size
            clamped += 1
    return w, clamped


def rms(w):
    """Root mean square of each filter w[..., f] over all its weights, (F,) float64."""
    flat = w.reshape(-1, w.shape[-1])
    return np.sqrt(np.einsum("kf,kf->f", flat, flat, dtype=np.float64)/len(flat))


def clip_filter_rms(filters, limit, clamped, copies=None):
    """Scale every filter w[..., f] of each w of `filters` whose RMS over all its weights exceeds `limit` back to that RMS,
    in place, and add the number of filters scaled to `clamped`, an array () of float64 on the device of the filters.

    copies: on a device, of each w an array of BF16 of its shape, which is kept the same.
    The paper's limit is 0.1. Rounding in w's dtype does not count as exceeding, so a filter that was scaled back is left
    alone by the next call."""
    for w in filters:
        dtype("clip_filter_rms: w", w, np.float32, np.float64)
    dtype("clip_filter_rms: clamped", clamped, np.float64)
    positive("clip_filter_rms: limit", limit)
    if runs_kernels(filters[0]):
        for first in range(0, len(filters), EACH):
            _launch(*(arrays[first:first + EACH] for arrays in (filters, copies or filters)), float(limit), clamped)
        return
    for w in filters:
        size = rms(w)
        over = size > limit*(1 + 4*np.finfo(w.dtype).eps)
        if over.any():
            w[..., over] *= (limit/size[over]).astype(w.dtype)
        clamped[...] += over.sum()


def _launch(filters, copies, limit, clamped):
    F = [w.shape[-1] for w in filters]
    D = [w.size//max(f, 1) for w, f in zip(filters, F)]
    partial = empty((sum(blocks(d, ROWS)*f for d, f in zip(D, F)),), np.float64, like=filters[0])
    grid = sum(blocks(f, FILTERS)*blocks(d, ROWS) for d, f in zip(D, F))
    SQUARES(grid, filters, partial, D, F)
    SCALE.variant(copies[0])(grid + 1, filters, partial, D, F, limit, clamped, copies)           # the last block counts
