"""One step of stochastic gradient descent with momentum, in AlexNet's form."""
import numpy as np

from zfcore.backend import Kernel, blocks, lanes, parallel, runs_kernels, slabs
from zfcore.check import dtype, shape

KERNEL = Kernel("sgd_step.cu", "sgd_step", "float *w, const float *dw, float *v, long long total, "
                "float lr, float momentum, float weight_decay", {"LANES": 4})


def sgd_step_reference(w, dw, v, lr, momentum, weight_decay):
    """The new (w, v)."""
    v = momentum*v - lr*(dw + weight_decay*w)
    return w + v, v


def sgd_step(w, dw, v, lr, momentum, weight_decay):
    """v = momentum*v - lr*(dw + weight_decay*w), then w = w + v; w and v are changed in place, dw is only read.

    w, dw, v of one shape, all float32 or all float64; Expected is raised before anything is changed where they are not.
    The learning rate is inside v, so a new one leaves what earlier steps put there alone (PyTorch keeps it outside)."""
    dtype("sgd_step: w", w, np.float32, np.float64)
    for what, array in (("dw", dw), ("v", v)):
        dtype(f"sgd_step: {what}", array, w.dtype)
        shape(f"sgd_step: {what}", array, w.shape)
    lr, momentum, weight_decay = float(lr), float(momentum), float(weight_decay)       # so that float32 stays float32
    if runs_kernels(w):
        wide = lanes(w.size, w, dw, v)
        KERNEL.variant(LANES=wide)(blocks(w.size//wide, KERNEL.block), w, dw, v, w.size, lr, momentum, weight_decay)
        return

    def work(k):
        step = weight_decay*w[k]
        step += dw[k]
        step *= lr
        v[k] *= momentum
        v[k] -= step
        w[k] += v[k]

    parallel(work, slabs(w))
