"""The limit on the size of filters, which keeps a few of them from taking over the first layer (paper, section 3)."""
import numpy as np

from zfcore.backend import Kernel, blocks, empty, runs_kernels, to_host
from zfcore.check import dtype, positive

FILTERS, ROWS = 32, 128           # that one block works on
SQUARES = Kernel("filter_rms.cu", "filter_rms_squares", "const float *w, double *partial, int D, int F")
SCALE = Kernel("filter_rms.cu", "filter_rms_scale",
               "float *w, const double *partial, unsigned char *over, int D, int F, double limit")


def filter_rms_reference(w, limit):
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


def filter_rms(w, limit):
    """Scale every filter w[..., f] whose RMS over all its weights exceeds `limit` back to that RMS, in place; the
    number of filters scaled. The paper's limit is 0.1. Rounding in w's dtype does not count as exceeding, so a filter
    that was scaled back is left alone by the next call."""
    dtype("filter_rms: w", w, np.float32, np.float64)
    positive("filter_rms: limit", limit)
    if runs_kernels(w):
        F = w.shape[-1]
        D = w.size//max(F, 1)
        partial, over = empty((blocks(D, ROWS), F), np.float64, like=w), empty((F,), np.uint8, like=w)
        grid = blocks(F, FILTERS)*blocks(D, ROWS)
        SQUARES(grid, w, partial, D, F)
        SCALE(grid, w, partial, over, D, F, float(limit))
        return int(to_host(over).sum())
    size = rms(w)
    over = size > limit*(1 + 4*np.finfo(w.dtype).eps)
    if over.any():
        w[..., over] *= (limit/size[over]).astype(w.dtype)
    return int(over.sum())
