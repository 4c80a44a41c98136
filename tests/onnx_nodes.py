"""Nodes of ONNX, computed by the engine's operations: `run`, and OPERATORS, its table of operators.

Followed is the specification of the operators (https://onnx.ai/onnx/operators): every attribute stands in the table with its
default. ONNX puts the batch first, maps (N,C,H,W) and filters (F,C,K,K); arrays are turned to batch-last on the way in and
back on the way out. What the engine cannot express raises Unsupported with the name of the attribute; nothing is guessed.
"""
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from zfcore.check import Expected, one_of
from zfcore.layers import Dropout, Flatten, Step
from zfcore.ops.avgpool import avgpool
from zfcore.ops.batch_norm import batch_norm
from zfcore.ops.conv2d import conv2d, conv2d_transpose
from zfcore.ops.linear import linear
from zfcore.ops.local_response_norm import local_response_norm
from zfcore.ops.maxpool import MaxPoolCache, Pooling, maxpool, maxpool_backward
from zfcore.ops.relu import relu
from zfcore.ops.sgd_step import sgd_step
from zfcore.ops.softmax_loss import softmax, softmax_loss

REQUIRED = object()               # the default of an attribute that has none
OPERATORS = {}                    # op_type -> Operator; `operator` enters them


class Unsupported(Exception):
    """A node that the engine cannot express; the message begins with the attribute or input that says so."""


class Operator(NamedTuple):
    compute: object               # of (attributes, *inputs) -> list of outputs
    defaults: dict                # attribute -> default


def operator(op_type, **defaults):
    """Enter the function below it in OPERATORS."""
    def enter(compute):
        OPERATORS[op_type] = Operator(compute, defaults)
        return compute
    return enter


def run(op_type, attributes, inputs, opset):
    """The outputs of one node, a list, as many as the engine gives.

    attributes   {name: number, text or list}, those that the node has
    inputs       its arrays in order, None where an optional one is left out
    opset        the version of the operators of its domain, on which some defaults depend"""
    if op_type not in OPERATORS:
        raise Unsupported(f"no {op_type}")
    compute, defaults = OPERATORS[op_type]
    for name in attributes.keys() - defaults.keys():
        raise Unsupported(f"{name}: an attribute of other versions")
    if inputs[0].dtype not in (np.float32, np.float64):
        raise Unsupported(f"numbers of {inputs[0].dtype}")
    values = {**defaults, **attributes}
    for name, value in values.items():
        if value is REQUIRED:
            raise Expected(op_type, f"the attribute {name}", "none")
    return compute(SimpleNamespace(**values, opset=opset), *inputs)


def batch_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def batch_first(y):
    return np.moveaxis(y, -1, 0)


# --------------------------------------------------------------------------------------------------------------- windows
class Window(NamedTuple):
    """A window of KxK pixels at stride S; pads are (before, after), for rows and for columns."""
    K: int
    S: int
    pads: tuple

    def even(self):
        """Whether the engine can pad so itself: alike on all sides, by less than the window."""
        return len({p for pair in self.pads for p in pair}) == 1 and self.pads[0][0] < self.K


def window(a, size, kernel):
    """The Window that attributes mean on maps of `size` (H,W), for a kernel of these sides."""
    one_of("auto_pad", a.auto_pad, ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    strides = a.strides or [1]*len(size)
    if len(size) != 2:
        raise Unsupported("kernel_shape: not of two axes")
    if set(a.dilations or [1]) != {1}:
        raise Unsupported("dilations: above 1")
    if len(set(kernel)) > 1:
        raise Unsupported("kernel_shape: not square")
    if len(set(strides)) > 1:
        raise Unsupported("strides: not the same for both axes")
    K, S = int(kernel[0]), int(strides[0])
    if a.auto_pad == "NOTSET":
        pads = a.pads or [0]*4
        pads = (pads[0], pads[2]), (pads[1], pads[3])
        if min(map(min, pads)) < 0:
            raise Unsupported("pads: below 0")
    elif a.auto_pad == "VALID":
        pads = (0, 0), (0, 0)
    else:
        pads = tuple(halves(max((-(-n//S) - 1)*S + K - n, 0), a.auto_pad) for n in size)
    return Window(K, S, pads)


def halves(total, auto_pad):
    """(before, after): padding in all, of which an odd one lies behind for SAME_UPPER, else in front."""
    less = total//2
    return (less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less)


def sides_of_filters(a, w):
    if a.kernel_shape and list(a.kernel_shape) != list(w.shape[2:]):
        raise Expected("kernel_shape", f"the filters' {list(w.shape[2:])}", list(a.kernel_shape))
    return w.shape[2:]


def framed(x, at, outside):
    """(x batch-last, P): padding that the engine has not is put around the maps here."""
    if at.even():
        return batch_last(x), at.pads[0][0]
    return batch_last(np.pad(x, [(0, 0), (0, 0), *at.pads], constant_values=outside)), 0


def pooled(a, at, size):
    """(rounding, outputs): how the outputs of a pool are counted, and the slices of them that are wanted: ceil_mode counts no
    window that begins in the padding behind the map, and has no say where auto_pad is set."""
    if not a.ceil_mode or a.auto_pad != "NOTSET":
        return "floor", np.s_[:, :, :]
    last = [min(-(-(n + sum(pads) - at.K)//at.S), (n + pads[0] - 1)//at.S) for n, pads in zip(size, at.pads)]
    return "ceil", np.s_[:, :last[0] + 1, :last[1] + 1]


# ------------------------------------------------------------------------------------------------------ the convolutions
@operator("Conv", auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None)
def conv(a, x, w, b=None):
    at = window(a, x.shape[2:], sides_of_filters(a, w))
    maps, P = framed(x, at, 0)
    return [batch_first(conv2d(maps, batch_last(w), b, at.S, P, a.group, "floor")[0])]


@operator("ConvTranspose", auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None,
          output_shape=None, pads=None, strides=None)
def conv_transpose(a, x, w, b=None):
    """The whole of what the filters write, without padding; the padding of ONNX says what is cut off it."""
    size = x.shape[2:]
    K, S, pads = window(a, size, sides_of_filters(a, w))
    whole = [S*(n - 1) + K for n in size]
    full = [n + more for n, more in zip(whole, a.output_padding or (0, 0))]
    wanted = a.output_shape and list(a.output_shape)[-2:]
    if not wanted and a.auto_pad.startswith("SAME"):
        wanted = [S*n for n in size]
    if wanted:
        if min(n - m for n, m in zip(full, wanted)) < 0:
            raise Unsupported("output_shape: larger than what the filters reach")
        pads = [halves(n - m, a.auto_pad) for n, m in zip(full, wanted)]
    y = conv2d_transpose(batch_last(x), batch_last(w), S, 0, *whole, a.group)
    y = np.pad(y, [(0, 0), *((0, n - m) for n, m in zip(full, whole)), (0, 0)])
    if b is not None:
        y += b[:, None, None, None]
    (top, bottom), (left, right) = pads
    return [batch_first(y[:, top:full[0] - bottom, left:full[1] - right])]


# ------------------------------------------------------------------------------------------------------------- the pools
@operator("MaxPool", auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape=REQUIRED, pads=None, storage_order=0,
          strides=None)
def max_pool(a, x):
    """The maxima, and where they lie in all of x as one row of numbers."""
    N, C, *size = x.shape
    at = window(a, size, a.kernel_shape)
    if at.K > 15:
        raise Unsupported("kernel_shape: above 15")
    rounding, outputs = pooled(a, at, size)
    maps, P = framed(x, at, -np.inf)
    y, (switches, *_) = maxpool(maps, at.K, at.S, P, rounding)
    y, switches = y[outputs], switches[outputs].astype(np.int64)
    (H, W), (top, left) = size, (before for before, _ in at.pads)
    c, p, q, n = np.indices(switches.shape)
    h, w = p*at.S - top + switches//at.K, q*at.S - left + switches % at.K
    place = w*H + h if a.storage_order else h*W + w
    return [batch_first(y), batch_first((n*C + c)*H*W + place)]


@operator("AveragePool", auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, kernel_shape=REQUIRED, pads=None,
          strides=None)
def average_pool(a, x):
    """A window that ceil_mode lets reach over the padding counts nothing that lies there, and padding if count_include_pad."""
    at = window(a, x.shape[2:], a.kernel_shape)
    rounding, outputs = pooled(a, at, x.shape[2:])
    maps, P = framed(x, at, 0)
    y, _ = avgpool(maps, at.K, at.S, P, rounding, "clipped" if a.count_include_pad else "inside")
    if not (at.even() or a.count_include_pad):                     # the frame was counted: divide by the share of the map
        inside, _ = framed(np.ones_like(x), at, 0)
        with np.errstate(invalid="ignore"):                        # windows that `outputs` leaves out hold none of the map
            y = y/avgpool(inside, at.K, at.S, P, rounding)[0]
    return [batch_first(y[outputs])]


@operator("GlobalMaxPool")
def global_max_pool(a, x):
    y = of_two_axes(x)
    while max(y.shape[1:3]) > 1:                                   # maxima of maxima: a window has at most 15 pixels a side
        K = min(max(y.shape[1:3]), 15)
        y, _ = maxpool(y, K, K)
    return [batch_first(y).reshape(*x.shape[:2], *[1]*(x.ndim - 2))]


@operator("GlobalAveragePool")
def global_average_pool(a, x):
    maps = of_two_axes(x)
    y, _ = avgpool(maps, max(maps.shape[1:3]), 1)
    return [batch_first(y).reshape(*x.shape[:2], *[1]*(x.ndim - 2))]


def of_two_axes(x):
    """Maps of one axis or more, batch-last as maps of two."""
    return batch_last(x.reshape(*x.shape[:3], -1))


@operator("MaxUnpool", kernel_shape=REQUIRED, pads=None, strides=None)
def max_unpool(a, y, places, output_shape=None):
    """`places` count in maps of the size that the window gives; an output_shape adds zeros behind those."""
    N, C, *size = y.shape
    K, S, pads = window(SimpleNamespace(**vars(a), auto_pad="NOTSET", dilations=None), size, a.kernel_shape)
    (top, bottom), (left, right) = pads
    H, W = (S*(n - 1) + K - sum(pair) for n, pair in zip(size, pads))
    if K > 15:
        raise Unsupported("kernel_shape: above 15")
    if len(np.unique(places)) < places.size:
        raise Unsupported("I: a place that two maxima share, where ours add up")
    c, p, q, n = np.indices((C, *size, N))
    plane, place = np.divmod(batch_last(places), H*W)
    r, s = place//W - p*S + top, place % W - q*S + left
    if (plane != n*C + c).any() or not ((0 <= r) & (r < K) & (0 <= s) & (s < K)).all():
        raise Unsupported("I: a place outside of its window")
    frame = Pooling((C, H + top + bottom, W + left + right, N), K, S, 0)
    x = maxpool_backward(batch_last(y), MaxPoolCache((r*K + s).astype(np.uint8), frame, None))[:, top:top + H, left:left + W]
    if output_shape is not None:
        more = np.array(output_shape[2:]) - (H, W)
        if min(more) < 0:
            raise Unsupported("output_shape: smaller than what the windows reach")
        x = np.pad(x, [(0, 0), (0, more[0]), (0, more[1]), (0, 0)])
    return [batch_first(x)]


# ------------------------------------------------------------------------------------------------- units, maps, products
@operator("Relu")
def rectified(a, x):
    return [relu(x)[0]]


@operator("LRN", alpha=1e-4, beta=0.75, bias=1.0, size=REQUIRED)
def local_response_normalisation(a, x):
    """An even window has one map more above; ours has it below, so the maps are turned round."""
    if a.bias <= 0:
        raise Unsupported("bias: not above 0")
    if a.alpha < 0:
        raise Unsupported("alpha: below 0")
    y, _ = local_response_norm(batch_last(x)[::-1], a.size, a.alpha, a.beta, a.bias, "mean")
    return [batch_first(y[::-1])]


@operator("BatchNormalization", epsilon=1e-5, momentum=0.9, training_mode=0, is_test=0, spatial=1)
def batch_normalisation(a, x, scale, shift, mean, var):
    """Momentum is the share that stays: ours is 1 less it. The running variance moves towards the mean square of the batch's
    L numbers of a map: ours moves towards L/(L - 1) times that. Before version 7 it was training unless is_test."""
    if not a.spatial:
        raise Unsupported("spatial: a unit's own statistics")
    if a.opset < 7 and not a.is_test:
        raise Unsupported("is_test: training, whose outputs were others")
    if a.epsilon <= 0:
        raise Unsupported("epsilon: not above 0")
    maps = batch_last(x) if x.ndim == 2 else of_two_axes(x)
    if not a.training_mode:
        return [batch_first(batch_norm(maps, scale, shift, mean, var, a.epsilon)[0]).reshape(x.shape)]
    L = maps[0].size
    if L == 1:
        raise Unsupported("training_mode: a map of a single number")
    moved, spread = mean.copy(), var.copy()
    y, _ = batch_norm(maps, scale, shift, moved, spread, a.epsilon, momentum=1 - a.momentum)
    kept = var*x.dtype.type(a.momentum)
    return [batch_first(y).reshape(x.shape), moved, kept + (spread - kept)*x.dtype.type((L - 1)/L)]


@operator("Dropout", ratio=0.5, seed=None, is_test=0)
def dropped(a, x, ratio=None, training_mode=None):
    """Version 12 made inputs of the attribute ratio and of what is training; before 7 it was training unless is_test."""
    ratio = float(a.ratio if ratio is None else ratio)
    training = not a.is_test if a.opset < 7 else training_mode is not None and bool(training_mode)
    if training and ratio > 0:
        raise Unsupported("training_mode: units are chosen by another random generator")
    layer = Dropout("dropout", keep_prob=1.0) if training else Dropout("dropout")
    y, _ = layer.forward(x, step=Step(7) if training else None)
    return [y, np.ones(x.shape, x.dtype if a.opset < 10 else bool)]


@operator("Flatten", axis=1)
def flattened(a, x):
    """The layer flattens all axes but one: those before `axis` become that one."""
    axis = a.axis + x.ndim if a.axis < 0 else a.axis
    pictures = x.reshape(math.prod(x.shape[:axis]), *x.shape[axis:])
    return [batch_first(Flatten("flatten").forward(batch_last(pictures))[0])]


@operator("Gemm", alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0)
def gemm(a, x, w, c=None):
    """alpha x w + beta c; c broadcasts to (N,M), and where all its rows are one it is the bias of a layer."""
    x, w = (x.T if a.transA else x), (w.T if a.transB else w)*x.dtype.type(a.alpha)
    if c is None:
        return [product(x, w)]
    c = c*x.dtype.type(a.beta)
    if c.ndim == 2 and len(c) > 1:
        return [product(x, w) + c]
    return [product(x, w, np.broadcast_to(c, (1, w.shape[1]))[0])]


@operator("MatMul")
def matmul(a, x, w):
    """Stacks of matrices as numpy.matmul broadcasts them; a vector is a matrix of one row, or of one column."""
    rows, columns = (x[None] if x.ndim == 1 else x), (w[:, None] if w.ndim == 1 else w)
    stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = (np.broadcast_to(array, (*stack, *array.shape[-2:])) for array in (rows, columns))
    y = np.empty((*stack, rows.shape[-2], columns.shape[-1]), x.dtype)
    for at in np.ndindex(*stack):
        y[at] = product(rows[at], columns[at])
    y = y[..., 0] if w.ndim == 1 else y
    return [y[..., 0] if x.ndim == w.ndim == 1 else y[..., 0, :] if x.ndim == 1 else y]


def product(x, w, bias=None):
    """x (N,D) by w (D,M), plus bias (M,)."""
    return linear(x.T, w, np.zeros(w.shape[1], x.dtype) if bias is None else np.ascontiguousarray(bias, x.dtype))[0].T


# --------------------------------------------------------------------------------------------------- softmax and losses
@operator("Softmax", axis=None)
def softmaxed(a, x):
    logits, back = by_class(a, x)
    return [back(softmax(logits))]


@operator("LogSoftmax", axis=None)
def log_softmax(a, x):
    """The loss of the likeliest class is -log of its probability; the others lie below it as far as their logits do."""
    logits, back = by_class(a, x)
    return [back(logits - logits.max(axis=0) - losses(logits, logits.argmax(axis=0)))]


def by_class(a, x):
    """x as logits (M,N) with the classes of its softmax in front, and the way back. Before version 13 the classes were all
    axes from `axis` on, as one."""
    if a.opset < 13:
        axis = 1 if a.axis is None else a.axis
        return x.reshape(math.prod(x.shape[:axis]), -1).T, lambda y: y.T.reshape(x.shape)
    axis = -1 if a.axis is None else a.axis
    front = np.moveaxis(x, axis, 0)
    return front.reshape(len(front), -1), lambda y: np.moveaxis(y.reshape(front.shape), 0, axis)


def losses(logits, labels):
    """softmax_loss of each picture by itself, (N,): -log of the probability of the class that its label names."""
    return np.array([softmax_loss(logits[:, [n]], labels[[n]])[0] for n in range(len(labels))], logits.dtype)


@operator("SoftmaxCrossEntropyLoss", ignore_index=None, reduction="mean")
def softmax_cross_entropy_loss(a, scores, labels, weights=None):
    """The loss and the log-probabilities; scores (N,C,...), labels (N,...)."""
    logits = np.moveaxis(scores, 1, 0).reshape(scores.shape[1], -1)
    log_p, = log_softmax(SimpleNamespace(axis=1, opset=13), scores)
    if a.reduction == "mean" and weights is None and a.ignore_index is None:
        return [np.array(softmax_loss(logits, labels.reshape(-1))[0], scores.dtype), log_p]
    counted, known = counted_labels(a, labels)
    return [reduced(a, losses(logits, known.reshape(-1)).reshape(labels.shape), counted, known, weights), log_p]


@operator("NegativeLogLikelihoodLoss", ignore_index=None, reduction="mean")
def negative_log_likelihood_loss(a, log_p, labels, weights=None):
    """The engine has it only with the softmax below; here the log-probabilities are read as they are."""
    counted, known = counted_labels(a, labels)
    picked = np.take_along_axis(log_p, known[:, None].astype(np.int64), axis=1)[:, 0]
    return [reduced(a, -picked, counted, known, weights)]


def counted_labels(a, labels):
    """(which labels are not ignore_index, the labels with class 0 for those that are)."""
    counted = np.ones(labels.shape, bool) if a.ignore_index is None else labels != a.ignore_index
    return counted, np.where(counted, labels, 0)


def reduced(a, loss, counted, labels, weights):
    """Sum, mean or none of the losses, weighted by the classes; a mean is divided by the weights of those that count."""
    one_of("reduction", a.reduction, ("none", "mean", "sum"))
    weight = np.where(counted, 1 if weights is None else weights[labels], 0).astype(loss.dtype)
    loss = np.where(counted, loss*weight, 0)
    if a.reduction == "none":
        return loss
    return loss.sum() if a.reduction == "sum" else loss.sum()/weight.sum()


# --------------------------------------------------------------------------------------------------------- the optimiser
@operator("Momentum", alpha=REQUIRED, beta=REQUIRED, mode=REQUIRED, norm_coefficient=REQUIRED)
def momentum(a, rate, step, *tensors):
    """New weights, then new velocities, of (weights, gradients, velocities) of several tensors. ONNX keeps the learning rate
    outside the velocity: ours is -rate times it."""
    if a.mode != "standard":
        raise Unsupported(f"mode: {a.mode}")
    if rate == 0:
        raise Unsupported("R: 0, at which our velocity is none")
    count = len(tensors)//3
    w, dw, v = [x.copy() for x in tensors[:count]], tensors[count:2*count], [-rate*x for x in tensors[2*count:]]
    sgd_step([(*each, a.norm_coefficient) for each in zip(w, dw, v)], rate*(a.beta if step > 0 else 1), a.alpha)
    return [*w, *(-x/rate for x in v)]
