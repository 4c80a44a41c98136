"""ReLU: y = max(x, 0). In the deconvnet the same function is applied to the signal coming down (paper, section 2.1)."""
import numpy as np

from zfcore import check
from zfcore.backend import empty, runs_kernels
from zfcore.cpu import parallel, slabs
from zfcore.kernel import Kernel, blocks, lanes

FORWARD = Kernel("relu.cu", "relu_forward", "const stored *x, stored *y, long long total", {"LANES": 4}).stored_too(LANES=8)
BACKWARD = Kernel("relu.cu", "relu_backward", "const stored *dy, const stored *y, stored *dx, long long total",
                  {"LANES": 4}).stored_too(LANES=8)


def relu_reference(x):
    return np.where(x <= 0, 0, x)                            # a NaN stays one


def relu_backward_reference(dy, y):
    return np.where(y > 0, dy, 0)


def relu(x):
    """x of any shape -> (y, cache); the cache is y itself, whose zeros are all that backward needs."""
    y = empty(x.shape, x.dtype, like=x)
    if runs_kernels(x):
        wide = lanes(x.size, x, y)
        FORWARD.variant(x, LANES=wide)(blocks(x.size//wide, FORWARD.block), x, y, x.size)
    else:
        parallel(lambda k: np.maximum(x[k], 0, out=y[k]), slabs(x))
    return y, y


def relu_backward(dy, y):
    """dx = dy where the unit was on, else 0; y is what relu gave. Raises Expected for a dy of another shape or dtype."""
    check.shape("relu_backward: dy", dy, y.shape)
    check.dtype("relu_backward: dy", dy, y.dtype)
    dx = empty(dy.shape, dy.dtype, like=dy)
    if runs_kernels(dy):
        wide = lanes(dy.size, dy, y, dx)
        BACKWARD.variant(dy, LANES=wide)(blocks(dy.size//wide, BACKWARD.block), dy, y, dx, dy.size)
    else:
        parallel(lambda k: where_on(dy[k], y[k] > 0, dx[k]), slabs(dy))
    return dx


def where_on(dy, on, dx):
    """dx = dy where `on`, else 0, also where dy is infinite (inf*0 is not): AND with a mask of all bits or none."""
    mask, bits = on.view(np.int8), f"i{dy.itemsize}"
    np.negative(mask, out=mask)                              # 1 -> -1, all bits
    np.bitwise_and(dy.view(bits), mask, out=dx.view(bits))

