"""Floor 2: layers. A layer is parameters around an operation; it keeps nothing of the pictures that pass through.

    layer.shape_out(shape)             shape of one picture's output, e.g. (96, 110, 110), for an input (3, 224, 224)
    layer.parameter_shapes(shape)      {"w": ..., "b": ...} for that input, {} for a layer without parameters
    layer.forward(x, step=None)        (y, cache). `step` numbers the training step; None means evaluation
    layer.backward(dy, cache)          (dx, {"w": dw, "b": db})

What a layer is made of is its fields, and they are what a checkpoint stores (`layer.fields()`); `w` and `b` are in
`layer.parameters`, put there by `Network.init` or by a checkpoint. How products are formed is no part of it: the `precision`
of a Conv or Linear is fp32 until `Network.use` says otherwise.
"""
from dataclasses import dataclass, fields

import numpy as np

from zfcore import check
from zfcore.ops.contrast_norm import contrast_norm, contrast_norm_backward, contrast_norm_of_maxpool
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_maxpool, pool_fits
from zfcore.ops.dropout import dropout, dropout_backward
from zfcore.ops.linear import linear, linear_backward
from zfcore.ops.maxpool import maxpool, maxpool_backward
from zfcore.ops.relu import relu, relu_backward
from zfcore.ops.window import output_size


@dataclass
class Layer:
    name: str

    def __post_init__(self):
        self.parameters = {}

    def fields(self):
        """{"kind": "Conv", "name": "conv1", "F": 96, ...}: the row of the layer table, as JSON can hold it."""
        return {"kind": type(self).__name__, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def shape_out(self, shape):
        return shape

    def parameter_shapes(self, shape):
        return {}

    def multiply_adds(self, shape):
        """Multiply-adds for one picture of input `shape`."""
        return 0

    def window(self):
        """(K, S, P) of the pixels that one output sees; (1, 1, 0) for a layer that works pixel by pixel."""
        return 1, 1, 0


@dataclass
class Conv(Layer):
    """Convolution with F filters KxK at stride S, padding P, in `groups` (AlexNet); parameters w (C/groups,K,K,F), b (F,)."""
    F: int
    K: int
    S: int = 1
    P: int = 0
    groups: int = 1
    rounding: str = "ceil"
    precision = "fp32"

    def shape_out(self, shape):
        C, H, W = _maps(self, shape)
        if C % self.groups or self.F % self.groups:
            raise check.Expected(self.name, f"maps in and out divisible by {self.groups} groups", f"{C} and {self.F}")
        return (self.F, output_size(H, self.K, self.S, self.P, self.rounding),
                output_size(W, self.K, self.S, self.P, self.rounding))

    def parameter_shapes(self, shape):
        return {"w": (shape[0]//self.groups, self.K, self.K, self.F), "b": (self.F,)}

    def multiply_adds(self, shape):
        return int(np.prod(self.shape_out(shape)))*(shape[0]//self.groups)*self.K**2

    def window(self):
        return self.K, self.S, self.P

    def forward(self, x, step=None, relu=False):
        """`relu=True` ends in a ReLU while the outputs are still in cache or registers (see Network.forward)."""
        w, b = self.parameters["w"], self.parameters["b"]
        return conv2d(x, w, b, self.S, self.P, self.groups, self.rounding, relu, self.precision)

    def takes_pool(self, pool, x):
        """Whether a kernel computes this convolution, a ReLU and the MaxPool `pool` for x in one pass, and gains by it."""
        return pool_fits(x, self.parameters["w"], pool.arguments(), self.groups)

    def forward_pooled(self, pool, x):
        """This convolution, a ReLU and `pool` -> cache of the convolution, (y, cache) of the pool."""
        w, b = self.parameters["w"], self.parameters["b"]
        return conv2d_maxpool(x, w, b, self.S, self.P, pool.arguments(), self.groups, self.rounding, self.precision)

    def backward(self, dy, cache, need_dx=True):
        dx, dw, db = conv2d_backward(dy, cache, need_dx)
        return dx, {"w": dw, "b": db}


@dataclass
class MaxPool(Layer):
    """Maximum over windows KxK at stride S, padding P; its cache holds the switches of the deconvnet."""
    K: int
    S: int
    P: int = 0
    rounding: str = "ceil"

    def shape_out(self, shape):
        C, H, W = _maps(self, shape)
        return (C, output_size(H, self.K, self.S, self.P, self.rounding),
                output_size(W, self.K, self.S, self.P, self.rounding))

    def window(self):
        return self.K, self.S, self.P

    def arguments(self):
        return self.K, self.S, self.P, self.rounding

    def forward(self, x, step=None):
        return maxpool(x, *self.arguments())

    def forward_with(self, norm, x):
        """This pool and the ContrastNorm `norm` behind it in one pass -> (y, cache) of the one, (y, cache) of the other."""
        return contrast_norm_of_maxpool(x, self.arguments(), norm.arguments())

    def backward(self, dy, cache, relu=False):
        """`relu=True` brings in the backward of a ReLU right below (see Network.backward)."""
        return maxpool_backward(dy, cache, relu), {}


@dataclass
class ReLU(Layer):
    def forward(self, x, step=None):
        return relu(x)

    def backward(self, dy, cache):
        return relu_backward(dy, cache), {}


@dataclass
class ContrastNorm(Layer):
    """Normalisation across n neighbouring maps at one pixel: y = x / (k + alpha/n * sum of squares)^beta."""
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    convention: str = "mean"

    def arguments(self):
        return self.n, self.alpha, self.beta, self.k, self.convention

    def forward(self, x, step=None):
        return contrast_norm(x, *self.arguments())

    def backward(self, dy, cache, relu=False):
        """`relu=True` brings in the backward of a ReLU right below (see Network.backward)."""
        return contrast_norm_backward(dy, cache, relu), {}


@dataclass
class Flatten(Layer):
    """(C,H,W,N) -> (C*H*W,N), the maps of one picture as one column."""
    def shape_out(self, shape):
        return (int(np.prod(shape)),)

    def forward(self, x, step=None):
        return x.reshape(-1, x.shape[-1]), x.shape

    def backward(self, dy, shape):
        return dy.reshape(shape), {}


@dataclass
class Linear(Layer):
    """Fully connected: y = w' x + b with M outputs; parameters w (D,M), b (M,)."""
    M: int
    precision = "fp32"

    def shape_out(self, shape):
        if len(shape) != 1:
            raise check.Expected(self.name, "a flat input (D,)", shape, "put a Flatten before it")
        return (self.M,)

    def parameter_shapes(self, shape):
        return {"w": (shape[0], self.M), "b": (self.M,)}

    def multiply_adds(self, shape):
        return shape[0]*self.M

    def forward(self, x, step=None):
        return linear(x, self.parameters["w"], self.parameters["b"], self.precision)

    def backward(self, dy, cache, need_dx=True):
        dx, dw, db = linear_backward(dy, cache, need_dx)
        return dx, {"w": dw, "b": db}


@dataclass
class Dropout(Layer):
    """In training keeps each unit with probability keep_prob, scaled by 1/keep_prob; in evaluation it does nothing.
    Which units are kept follows from (seed, number of the layer, step) alone."""
    keep_prob: float = 0.5
    seed: int = 0
    number: int = 0

    def forward(self, x, step=None, part=None):
        """`part` (first, N): x is the pictures from number `first` on of a batch of N (see Network.forward)."""
        return (x, None) if step is None else dropout(x, self.keep_prob, (self.seed, self.number, step), part)

    def backward(self, dy, cache):
        return (dy if cache is None else dropout_backward(dy, cache)), {}


KINDS = {kind.__name__: kind for kind in (Conv, MaxPool, ReLU, ContrastNorm, Flatten, Linear, Dropout)}


def from_fields(row):
    """The layer whose `fields()` gave `row`."""
    row = dict(row)
    kind = row.pop("kind", None)
    check.one_of("layer table: kind", kind, KINDS)
    try:
        return KINDS[kind](**row)
    except TypeError as error:
        raise check.Expected("layer table", f"the fields of {kind}", f"{sorted(row)} ({error})") from None


def _maps(layer, shape):
    if len(shape) != 3:
        raise check.Expected(layer.name, "maps (C,H,W) as input", shape)
    return shape
