"""One step of stochastic gradient descent with momentum, in AlexNet's form, for all parameters of a network at once."""
import math

import numpy as np

from zfcore.backend import BF16, runs_kernels, scalar
from zfcore.check import dtype, shape
from zfcore.cpu import parallel, slabs
from zfcore.kernel import EACH, Kernel, blocks, lanes

KERNEL = Kernel("sgd_step.cu", "sgd_step", "Each<float *> w, Each<const float *> dw, Each<float *> v, Each<long long> total, "
                "Each<float> weight_decay, float momentum, const float *lr, const double *loss, Each<stored *> copies",
                {"LANES": 4}).stored_too(LANES=4)


def sgd_step_reference(w, dw, v, lr, momentum, weight_decay):
    """The new (w, v) of one tensor."""
    v = momentum*v - lr*(dw + weight_decay*w)
    return w + v, v


def sgd_step(tensors, lr, momentum, loss=0.0, copies=None):
    """v = momentum*v - lr*(dw + weight_decay*w), then w = w + v, for each (w, dw, v, weight_decay) of `tensors`; w and v
    are changed in place, dw is only read.

    w, dw, v of one shape, all float32 or all float64 (one or the other for all tensors); Expected is raised before
    anything is changed where they are not. Where `loss` is infinite or not a number nothing is changed.
    lr, loss   numbers, or arrays () on the device, float32 and float64, so that a captured step finds those of its turn
    copies     on a device: of each w an array of BF16 of its shape, into which the new w is written as well
    The learning rate is inside v, so a new one leaves what earlier steps put there alone (PyTorch keeps it outside)."""
    for w, dw, v, _ in tensors:
        dtype("sgd_step: w", w, np.float32, np.float64)
        for what, array in (("dw", dw), ("v", v)):
            dtype(f"sgd_step: {what}", array, w.dtype)
            shape(f"sgd_step: {what}", array, w.shape)
    for (w, *_), copy in zip(tensors, copies or ()):
        dtype("sgd_step: copy", copy, BF16)
        shape("sgd_step: copy", copy, w.shape)
    if runs_kernels(tensors[0][0]):
        _launch(tensors, lr, momentum, loss, copies)
    elif math.isfinite(loss):
        for w, dw, v, weight_decay in tensors:
            _on_cores(w, dw, v, float(lr), float(momentum), float(weight_decay))       # so that float32 stays float32


def _launch(tensors, lr, momentum, loss, copies):
    like = tensors[0][0]
    lr, loss = scalar(lr, np.float32, like), scalar(loss, np.float64, like)
    for first in range(0, len(tensors), EACH):
        w, dw, v, weight_decay = zip(*tensors[first:first + EACH])
        copied = w if copies is None else copies[first:first + EACH]
        wide = lanes(4, *w, *dw, *v, *copied)
        total = [array.size for array in w]
        grid = sum(blocks(size, wide*KERNEL.block) for size in total)
        KERNEL.variant(copied[0], LANES=wide)(grid, w, dw, v, total, weight_decay, momentum, lr, loss, copied)


def _on_cores(w, dw, v, lr, momentum, weight_decay):
    def work(k):
        step = weight_decay*w[k]
        step += dw[k]
        step *= lr
        v[k] *= momentum
        v[k] -= step
        w[k] += v[k]

    parallel(work, slabs(w))
