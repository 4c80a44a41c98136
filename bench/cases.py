"""The cases of the benchmark: every operation at the shapes at which ZFNet uses it, and what it has to move and multiply there.

    for case in cases():
        arrays = case.draw(Source(device.array), N)       # the inputs, on the device
        outputs = case.run(*arrays)                       # the operation; on float64 NumPy arrays it is what is right
        floor = max(case.traffic(N)/bandwidth, case.flops(N)/rate)          # seconds that no implementation goes under

The layers' cases are read off the network, so a changed network changes them; of layers that do the same work one is
measured. Traffic counts every array once that an operation is given and reads, and once that it returns, so twice what it
changes in place: neither what its kernels read again nor what they leave for each other, which the headers of kernels/*.cu tell.
Biases and other vectors of parameters count as nothing beside maps. A multiply-add is two FLOPs."""
from dataclasses import dataclass
from collections.abc import Callable

import numpy as np

from zfcore.backend import BF16, empty, runs_kernels, zeros
from zfcore.fusion import pool_norm
from zfcore.kernel import PRECISIONS, blocks, lanes
from zfcore.layers import AvgPool, Conv, Dropout, Linear, LocalResponseNorm, LocalResponseNormWithin, MaxPool, Pad, ReLU
from zfcore.models.zfnet import zfnet
from zfcore.ops import conv2d_kernels
from zfcore.ops.avgpool import AvgPoolCache, avgpool, avgpool_backward
from zfcore.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_transpose
from zfcore.ops.clip_filter_rms import clip_filter_rms
from zfcore.ops.conv2d import ConvCache, conv2d, conv2d_backward, conv2d_transpose
from zfcore.ops.conv2d_maxpool import conv2d_maxpool, conv2d_maxpool_backward, gradient_fits_wgmma, pool_fits_wgmma
from zfcore.ops.convert import convert
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.dropout import dropout
from zfcore.ops.hinge_loss import hinge_loss, hinge_loss_backward
from zfcore.ops.linear import BIAS_GRADIENT, linear, linear_backward
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward
from zfcore.ops.local_response_norm_within import (LocalResponseNormWithinCache, local_response_norm_within,
                                                   local_response_norm_within_backward, neighbourhood)
from zfcore.ops.maxpool import MaxPoolCache, Pooling, maxpool, maxpool_backward
from zfcore.ops.pad import Frame, pad, pad_backward
from zfcore.ops.relu import relu, relu_backward
from zfcore.ops.sgd_step import sgd_step
from zfcore.ops.softmax_loss import softmax, softmax_loss, softmax_loss_backward, softmax_loss_onto
from zfcore.ops.strongest import Lists, strongest
from zfcore.ops.tree_sum import tree_sum

LR, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4
BATCH_EPS, BATCH_MOMENTUM = 1e-5, 0.1    # of batch normalisation
RANKS = 8                         # each of which adds up its share of all gradients
KEPT = 2**22 - 3                  # numbers drawn; a larger array repeats them, out of step with any size of the network


class Source:
    """Draws arrays like those of a network in training; `array` brings a NumPy array to the device.

    Half of a ReLU's outputs are zero, and of the gradients that come down through it: a GPU is faster on zeros."""

    def __init__(self, array, seed=0):
        self.array, self.rng = array, np.random.default_rng(seed)

    def normal(self, *shape, scale=1.0):
        size = int(np.prod(shape))
        return self.array(np.resize(self.rng.standard_normal(min(size, KEPT), np.float32)*np.float32(scale), shape))

    def outputs(self, *shape):
        size = int(np.prod(shape))
        return self.array(np.resize(np.maximum(self.rng.standard_normal(min(size, KEPT), np.float32), 0), shape))

    def gradients(self, *shape):
        size = min(int(np.prod(shape)), KEPT)
        values = self.rng.standard_normal(size, np.float32)*(self.rng.random(size, np.float32) < 0.5)
        return self.array(np.resize(values, shape))

    def labels(self, M, N):
        return self.rng.integers(0, M, N)


@dataclass(frozen=True)
class Case:
    noun: str                     # kernels/<noun>.cu
    layer: str                    # "pool1"
    what: str                     # "forward"
    draw: Callable                # draw(source, N) -> the inputs of run
    run: Callable                 # run(*inputs) -> its outputs, a tuple
    traffic: Callable             # N -> bytes
    flops: Callable = lambda N: 0
    terms: Callable = lambda N: 16          # that an output sums; a handful of roundings where it is no sum
    images: tuple = ()            # which inputs have images as their last axis, if an image's outputs depend on it alone
    window: tuple = ()            # (K, S, P, H, W) of a convolution or a pool, the Frame of a pad, for peers
    precision: str = "fp32"       # in which products are formed, by peers too
    wgmma: bool = False           # as a step of training launches it on a Hopper GPU; no other has what it takes

    @property
    def name(self):
        return (f"{self.layer} {self.what}" + (f", {self.precision}" if self.precision != "fp32" else "")
                + (" by wgmma" if self.wgmma else ""))


def cases(network=None):
    """Every case for `network`, by default the paper's."""
    network = network or zfnet()
    found, seen = [], set()
    for k, (layer, shape) in enumerate(zip(network.layers, network.shapes)):
        work = type(layer), shape, *(value for name, value in layer.fields().items() if name not in ("name", "number"))
        if type(layer) in MAKERS and work not in seen:
            seen.add(work)
            found += MAKERS[type(layer)](layer, shape, network.shapes[k + 1], behind_relu=k > 0)
            if type(layer) in OF_MAPS:
                found += MAKERS[type(layer)](layer, shape, network.shapes[k + 1], k > 0, "bf16")
            after, behind = [*network.layers, None, None][k + 1:k + 3]
            if isinstance(layer, Conv) and isinstance(behind, MaxPool):
                found += conv_pool_cases(layer, behind, shape, network.shapes[k + 3], behind_relu=k > 0)
            if isinstance(layer, MaxPool) and isinstance(after, LocalResponseNorm):
                found += [pool_norm_case(layer, after, shape, network.shapes[k + 1], precision) for precision in STORED]
    return (found + averages(network) + frames(network) + norms_within(network) + batch_norms(network)
            + losses(network.shapes[-1][0]) + parameters(network)
            + [crop(*network.input_shape)] + listed(network) + conversions(network))


def on(x, precision):
    """The precision that `x` can have: float64 NumPy arrays tell what is right."""
    return precision if runs_kernels(x) else "fp32"


def stored(draw, precision, *which):
    """`draw` whose arrays number `which` are, in bf16 on a device, stored so, as a network does it."""
    def drawn(source, N):
        return tuple(convert(array, BF16) if k in which and runs_kernels(array) else array
                     for k, array in enumerate(draw(source, N)))

    return drawn if precision == "bf16" else draw


def bytes_of(precision):
    """Bytes of a number of the maps, or filters, that a network in this precision stores."""
    return BF16.itemsize if precision == "bf16" else 4


def elements(*shapes):
    """Count of the elements of arrays of these shapes together."""
    return sum(int(np.prod(shape)) for shape in shapes)


# ----------------------------------------------------------------------------------------------- layers of the network
def conv_cases(layer, shape, out, behind_relu):
    K, S, P = layer.window()
    groups, w_shape = layer.groups, layer.parameter_shapes(shape)["w"]
    flops = lambda N: 2*layer.multiply_adds(shape)*N
    traffic = lambda N: 4*(elements(w_shape) + N*elements(shape, out))
    taps, scale = elements(w_shape[:3]), (2/elements(w_shape[:3]))**0.5

    def x(source, N):
        return source.outputs(*shape, N) if behind_relu else source.normal(*shape, N, scale=64)

    def w(source):
        return source.normal(*w_shape, scale=scale)

    def case(what, draw, run, terms, images, **changes):
        return Case("conv2d", layer.name, what, draw, run, **{**dict(
            traffic=traffic, flops=flops, terms=terms, images=images, window=(K, S, P, *shape[1:])), **changes})

    forward = dict(draw=lambda source, N: (x(source, N), w(source)), terms=lambda N: taps, images=(0,))
    transpose = dict(draw=lambda source, N: (source.gradients(*out, N), w(source)),
                     terms=lambda N: out[0]//groups*K*K, images=(0,))
    gradient = dict(draw=lambda source, N: (x(source, N), source.gradients(*out, N), w(source)),
                    terms=lambda N: elements(out[1:])*N, images=())

    def forward_plain(x, w):
        if not runs_kernels(x):
            return conv2d(x, w, None, S, P, groups, layer.rounding)[0],
        y = empty((*out, x.shape[-1]), x.dtype, like=x)
        kernel = conv2d_kernels.PLAIN
        kernel(blocks(y.size, kernel.block), x, w, w, y, sizes(x, w, y), False, False)
        return y,

    def transpose_plain(dy, w):
        if not runs_kernels(dy):
            return conv2d_transpose(dy, w, S, P, *shape[1:], groups),
        dx = empty((*shape, dy.shape[-1]), dy.dtype, like=dy)
        kernel = conv2d_kernels.TRANSPOSE_PLAIN
        kernel(blocks(dx.size, kernel.block), dy, w, dx, sizes(dx, w, dy))
        return dx,

    def gradient_plain(x, dy, w):
        if not runs_kernels(x):
            return conv2d_backward(dy, (x, w, S, P, groups, False, "fp32", False), need_dx=False)[1],
        dw, kernel = empty(w.shape, w.dtype, like=w), conv2d_kernels.FILTER_GRADIENT_PLAIN
        kernel(blocks(dw.size, kernel.block), x, dy, dw, sizes(x, w, dy))
        return dw,

    def sizes(x, w, y):
        return conv2d_kernels.sizes(x, w, y, S, P, groups)

    def bias_gradient(dy):
        return conv2d_kernels.launch_bias_gradient(dy) if runs_kernels(dy) else dy.sum(axis=(1, 2, 3)),

    def by(precision, training=False):
        """Every pass with products formed in this precision."""
        def forward_bias_relu(x, w, b):
            return conv2d(x, w, b, S, P, groups, layer.rounding, True, on(x, precision), training)[0],

        def pass_of(what, draw, run, terms, images, of_filters=bytes_of(precision)):
            return case(what, stored(draw, precision, *range(2 + (what == "weight gradient"))), run, terms, images,
                        traffic=lambda N: of_filters*elements(w_shape) + bytes_of(precision)*N*elements(shape, out),
                        precision=precision, wgmma=training)

        return [
            pass_of("forward", run=lambda x, w: (
                conv2d(x, w, None, S, P, groups, layer.rounding, False, on(x, precision), training)[0],), **forward),
            pass_of("forward, bias and ReLU", lambda source, N: (x(source, N), w(source), source.normal(layer.F)),
                    forward_bias_relu, lambda N: taps, (0,)),
            pass_of("data gradient", run=lambda dy, w: (
                conv2d_transpose(dy, w, S, P, *shape[1:], groups, on(dy, precision), training),), **transpose),
            pass_of("weight gradient", run=lambda x, dy, w: (conv2d_backward(
                dy, (x, w, S, P, groups, False, on(x, precision), training), need_dx=False)[1],), of_filters=4, **gradient)]

    def of_bias(precision):
        return case("bias gradient", stored(lambda source, N: (source.gradients(*out, N),), precision, 0), bias_gradient,
                    lambda N: elements(out[1:])*N, (), traffic=lambda N: bytes_of(precision)*N*elements(out), flops=lambda N: 0,
                    precision=precision)

    tensor = [one for precision in PRECISIONS[1:] for one in by(precision)
              if one.what != "data gradient" or precision == "bf16"
              or shape[0]//groups > conv2d_kernels.FEW["BM"]]                        # of few maps it is fp32's
    return [
        *by("fp32"),
        case("forward, plain kernel", run=forward_plain, **forward),
        case("data gradient, plain kernel", run=transpose_plain, **transpose),
        case("weight gradient, plain kernel", run=gradient_plain, **gradient),
        of_bias("fp32"),
        *tensor,
        *(by("bf16", training=True) if conv2d_kernels.fits_wgmma(w_shape, groups) else ()),
        of_bias("bf16")]


def relu_cases(layer, shape, out, behind_relu, precision="fp32"):
    size, of = bytes_of(precision)*elements(shape), dict(precision=precision)
    return [Case("relu", layer.name, "forward", stored(lambda source, N: (source.normal(*shape, N),), precision, 0),
                 lambda x: (relu(x)[0],), lambda N: 2*size*N, images=(0,), **of),
            Case("relu", layer.name, "backward", stored(lambda source, N: (source.normal(*shape, N), source.outputs(*shape, N)),
                                                        precision, 0, 1),
                 lambda dy, y: (relu_backward(dy, y),), lambda N: 3*size*N, images=(0, 1), **of)]


def pool_cases(layer, shape, out, behind_relu, precision="fp32"):
    K, S, P = layer.window()
    size, of = bytes_of(precision), dict(window=(K, S, P, *shape[1:]), precision=precision)

    def forward(x):
        y, (switches, *_) = maxpool(x, K, S, P, layer.rounding)
        return y, switches

    def inputs(source, N):                                 # the switches are those of x as it is stored
        x, = stored(lambda source, N: (source.outputs(*shape, N),), precision, 0)(source, N)
        dy, = stored(lambda source, N: (source.normal(*out, N),), precision, 0)(source, N)
        y, switches = forward(x)
        return x, dy, switches, y

    def backward(x, dy, switches):                         # x tells its shape, and peers where the maxima are
        return maxpool_backward(dy, (switches, Pooling(x.shape, K, S, P), None)),

    def backward_relu(x, dy, switches, y):
        return maxpool_backward(dy, (switches, Pooling(x.shape, K, S, P), y), relu=True),

    traffic = lambda N: (size*elements(shape) + (size + 1)*elements(out))*N              # a switch is a byte
    return [Case("maxpool", layer.name, "forward", stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 forward, traffic, images=(0,), **of),
            Case("maxpool", layer.name, "backward", lambda source, N: inputs(source, N)[:3], backward, traffic,
                 images=(0, 1, 2), **of),
            Case("maxpool", layer.name, "backward and ReLU's", inputs, backward_relu,
                 lambda N: (size*elements(shape) + (2*size + 1)*elements(out))*N, images=(0, 1, 2, 3), **of)]


def average_cases(layer, shape, out, behind_relu, precision="fp32"):
    K, S, P, rounding, borders = layer.arguments(shape[1:])

    def forward(x):
        return avgpool(x, K, S, P, rounding, borders)[0],

    def backward(dy):
        return avgpool_backward(dy, AvgPoolCache((*shape, dy.shape[-1]), out[1:], K, S, P, borders)),

    of = dict(traffic=lambda N: bytes_of(precision)*elements(shape, out)*N, terms=lambda N: K*K, images=(0,),
              window=(K, S, P, *shape[1:]), precision=precision)
    return [Case("avgpool", layer.name, "forward", stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 forward, **of),
            Case("avgpool", layer.name, "backward", stored(lambda source, N: (source.normal(*out, N),), precision, 0), backward,
                 **of)]


def norm_cases(layer, shape, out, behind_relu, precision="fp32"):
    constants = layer.n, layer.alpha, layer.beta, layer.k, layer.convention
    _, (_, rule) = local_response_norm(np.ones((1, 1), np.float32), *constants)

    def backward(dy, x):
        return local_response_norm_backward(dy, (x, rule)),

    def cached(source, N):
        return source.normal(*shape, N), source.outputs(*shape, N)

    size, of = bytes_of(precision)*elements(shape), dict(precision=precision)
    return [Case("local_response_norm", layer.name, "forward",
                 stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 lambda x: (local_response_norm(x, *constants)[0],), lambda N: 2*size*N, images=(0,), **of),
            Case("local_response_norm", layer.name, "backward", stored(cached, precision, 0, 1), backward, lambda N: 3*size*N,
                 images=(0, 1), **of)]


def norm_within_cases(layer, shape, out, behind_relu, precision="fp32"):
    constants, size, of = layer.arguments(), bytes_of(precision)*elements(shape), dict(precision=precision)
    rule = neighbourhood(*constants)

    def backward(dy, x):
        return local_response_norm_within_backward(dy, LocalResponseNormWithinCache(x, rule)),

    return [Case("local_response_norm_within", layer.name, "within maps, forward",
                 stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 lambda x: (local_response_norm_within(x, *constants)[0],), lambda N: 2*size*N, images=(0,), **of),
            Case("local_response_norm_within", layer.name, "within maps, backward",
                 stored(lambda source, N: (source.normal(*shape, N), source.outputs(*shape, N)), precision, 0, 1), backward,
                 lambda N: 3*size*N, images=(0, 1), **of)]


def frame_cases(layer, shape, out, behind_relu, precision="fp32"):
    frame, size = Frame(*layer.arguments()), bytes_of(precision)
    kept, of = elements((shape[0], *map(min, shape[1:], out[1:]))), dict(images=(0,), window=frame, precision=precision)
    return [Case("pad", layer.name, "forward", stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 lambda x: (pad(x, *frame)[0],), lambda N: size*(kept + elements(out))*N, **of),
            Case("pad", layer.name, "backward", stored(lambda source, N: (source.gradients(*out, N),), precision, 0),
                 lambda dy: (pad_backward(dy, frame),), lambda N: size*(kept + elements(shape))*N, **of)]


def conv_pool_cases(conv, pool, shape, out, behind_relu):
    w_shape = conv.parameter_shapes(shape)["w"]
    taps = elements(w_shape[:3])

    def draw(source, N):
        x = source.outputs(*shape, N) if behind_relu else source.normal(*shape, N, scale=64)
        return x, source.normal(*w_shape, scale=(2/taps)**0.5), source.normal(conv.F)

    def by(precision, training=False):
        def run(x, w, b):                                  # the switches hang on the last bit where maxima are close
            return conv2d_maxpool(x, w, b, conv.S, conv.P, pool.arguments(), conv.groups, conv.rounding,
                                  on(x, precision), training)[1][0],

        size = bytes_of(precision)
        return Case("conv2d_maxpool", conv.name, "forward with its pool", stored(draw, precision, 0, 1), run,
                    traffic=lambda N: size*elements(w_shape) + (size*elements(shape) + (size + 1)*elements(out))*N,
                    precision=precision, images=(0,), terms=lambda N: taps,
                    flops=lambda N: 2*conv.multiply_adds(shape)*N, window=(*conv.window(), *shape[1:], *pool.window()),
                    wgmma=training)

    def gradient(precision, training=False):
        """Case of the gradients of filters and bias, as training asks them of the first layer, whose data gradient nobody
        needs."""
        def draw_gradient(source, N):
            x, w, _ = draw(source, N)
            switches = maxpool(source.outputs(*conv.shape_out(shape), N), *pool.arguments())[1].switches
            return x, source.gradients(*out, N), w, switches

        def run(x, dy, w, switches):
            of_conv = ConvCache(x, w, conv.S, conv.P, conv.groups, True, on(x, precision), training)
            of_pool = MaxPoolCache(switches, Pooling((*conv.shape_out(shape), x.shape[-1]), *pool.window()), None)
            return conv2d_maxpool_backward(dy, of_conv, of_pool, need_dx=False)[1:]

        size = bytes_of(precision)
        return Case("conv2d_maxpool", conv.name, "weight gradient through its pool", stored(draw_gradient, precision, 0, 1, 2),
                    run,
                    traffic=lambda N: 4*elements(w_shape) + (size*elements(shape) + (size + 1)*elements(out))*N,
                    precision=precision, terms=lambda N: elements(conv.shape_out(shape)[1:])*N,
                    flops=lambda N: 2*conv.multiply_adds(shape)*N, window=(*conv.window(), *shape[1:], *pool.window()),
                    wgmma=training)

    forward, gradients = list(map(by, PRECISIONS)), [gradient(precision) for precision in PRECISIONS[1:]]
    sizes = w_shape, conv.S, conv.groups, *pool.window()[:2]
    if pool_fits_wgmma(*sizes):
        forward.append(by("bf16", training=True))
    if gradient_fits_wgmma(*sizes):
        gradients.append(gradient("bf16", training=True))
    return [*forward, *(gradients if not behind_relu else ())]


def pool_norm_case(pool, norm, shape, out, precision):
    def run(x):
        (maxima, (switches, *_)), (y, _) = pool_norm(pool, norm, x, None)
        return maxima, y, switches

    size = bytes_of(precision)
    return Case("local_response_norm", norm.name, "forward with its pool",
                stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                run, lambda N: (size*elements(shape) + (2*size + 1)*elements(out))*N, images=(0,),
                window=(*pool.window(), *shape[1:]), precision=precision)


def linear_cases(layer, shape, out, behind_relu):
    D, M = shape[0], layer.M

    def x_w(source, N):
        return source.outputs(D, N), source.normal(D, M, scale=(2/D)**0.5)

    def with_bias(source, N):
        return *x_w(source, N), source.normal(M)

    def gradients(source, N):
        return source.gradients(M, N), *x_w(source, N)

    def bias_gradient(dy):
        if not runs_kernels(dy):
            return dy.sum(axis=1),
        db, wide = empty((M,), dy.dtype, like=dy), BIAS_GRADIENT.variant(LANES=lanes(dy.shape[1], dy))
        wide(blocks(M, BIAS_GRADIENT.block//32), dy, db, *dy.shape)
        return db,

    def by(precision, training=False):
        of = dict(precision=precision, wgmma=training)
        forward = lambda x, w, b: (linear(x, w, b, on(x, precision), training=training)[0],)
        backward = lambda dy, x, w: linear_backward(dy, (x, w, on(x, precision), training))
        size = bytes_of(precision)
        return [Case("linear", layer.name, "forward", stored(with_bias, precision, 0, 1), forward,
                     lambda N: size*(D*M + (D + M)*N), lambda N: 2*D*M*N, lambda N: D, (0,), **of),
                Case("linear", layer.name, "backward", stored(gradients, precision, 0, 1, 2), backward,
                     lambda N: (size + 4)*D*M + size*(2*D + M)*N, lambda N: 4*D*M*N, lambda N: max(M, N), **of)]

    return [*by("fp32"),
            Case("linear", layer.name, "bias gradient", lambda source, N: (source.gradients(M, N),), bias_gradient,
                 lambda N: 4*M*N, terms=lambda N: N),
            *(case for precision in PRECISIONS[1:] for case in by(precision)),
            *(by("bf16", training=True) if conv2d_kernels.fits_wgmma((D, 1, 1, M), 1) else ())]


def dropout_cases(layer, shape, out, behind_relu, precision="fp32"):
    key = layer.seed, layer.number, 2**32 + 1
    return [Case("dropout", layer.name, "forward", stored(lambda source, N: (source.outputs(*shape, N),), precision, 0),
                 lambda x: (dropout(x, layer.keep_prob, key)[0],), lambda N: 2*bytes_of(precision)*elements(shape)*N,
                 precision=precision)]


MAKERS = {Conv: conv_cases, ReLU: relu_cases, MaxPool: pool_cases, AvgPool: average_cases, LocalResponseNorm: norm_cases,
          LocalResponseNormWithin: norm_within_cases, Pad: frame_cases, Linear: linear_cases, Dropout: dropout_cases}
OF_MAPS = ReLU, MaxPool, LocalResponseNorm, Dropout         # which form no products: in fp32 and stored in bf16
STORED = "fp32", "bf16"


def averages(network):
    """The means of its first pool's windows, and of its last maps whole: the paper's networks take none."""
    first = next(k for k, layer in enumerate(network.layers) if isinstance(layer, MaxPool))
    ways = (AvgPool("average1", *network.layers[first].arguments()), network.shapes[first]), (
        AvgPool("average"), [shape for shape in network.shapes if len(shape) == 3][-1])
    return [case for layer, shape in ways for precision in STORED
            for case in average_cases(layer, shape, layer.shape_out(shape), True, precision)]


def frames(network):
    """A frame of zeros around the first maps, and a row and a column cut off them: networks from elsewhere come to have
    such."""
    shape = network.shapes[1]
    return [case for layer in (Pad("frame1", 1, 1, 1, 1), Pad("cut1", 0, -1, 0, -1)) for precision in STORED
            for case in frame_cases(layer, shape, layer.shape_out(shape), True, precision)]


def norms_within(network):
    """Layer that normalises within maps, as Caffe's ZFNet does it, where the network normalises across them."""
    return [case for layer, shape in zip(network.layers, network.shapes) if type(layer) is LocalResponseNorm
            for precision in STORED
            for case in norm_within_cases(LocalResponseNormWithin(layer.name, 3, 5e-5), shape, shape, True, precision)]


# --------------------------------------------------------------------------------------- losses, parameters, pictures
def batch_norms(network):
    """Cases of a normalisation behind the first and the last convolution and the first fully connected layer; the paper has
    none."""
    convolutions = [layer.name for layer in network.convolutions]
    flat = next(layer.name for layer in network.weighted if not layer.has_filters)
    names = dict.fromkeys([convolutions[0], convolutions[-1], flat])
    return [case for name in names for case in batch_norm_cases(name, network.shapes[network.index(name) + 1])]


def batch_norm_cases(name, shape):
    C, size, eps = shape[0], elements(shape), BATCH_EPS

    def draw(source, N):
        kept = source.normal(C, scale=0.1), source.array(np.ones(C, np.float32))
        return source.normal(*shape, N), source.normal(C), source.normal(C), *kept

    def training(x, gamma, beta, mean, var):
        return batch_norm(x, gamma, beta, mean, var, eps, BATCH_MOMENTUM)[0], mean, var

    def gradient(momentum):
        def run(dy, *arrays):
            return batch_norm_backward(dy, batch_norm(*arrays, eps, momentum)[1])
        return run

    def with_gradient(source, N):
        return source.gradients(*shape, N), *draw(source, N)

    def scaled(dy, x, gamma, _, mean, var):
        return batch_norm_transpose(dy, (x, gamma, mean, var, eps, False)),

    def case(what, draw, run, moved, images=(), terms=lambda N: 16):
        return Case("batch_norm", name, f"normalised, {what}", draw, run, lambda N: moved*size*N, images=images, terms=terms)

    sums = lambda N: elements(shape[1:])*N
    return [case("forward in training", draw, training, 8, terms=sums),
            case("forward in evaluation", draw, lambda *arrays: (batch_norm(*arrays, eps)[0],), 8, (0,)),
            case("there and back in training", with_gradient, gradient(BATCH_MOMENTUM), 12, terms=sums),
            case("data gradient in evaluation", with_gradient, scaled, 8, (0, 1))]


def losses(M):
    def scores(source, N):
        return source.normal(M, N, scale=3), source.labels(M, N)

    def kept(forward):
        return lambda source, N: forward(*scores(source, N))[1][:2]         # p, labels or margins, targets

    def softmax_forward(logits, labels):
        loss, (p, _) = softmax_loss(logits, labels)
        return loss, p

    def onto(source, N):
        return *scores(source, N), source.array(np.ones(2))

    def softmax_onto(logits, labels, totals):
        p, _ = softmax_loss_onto(totals, logits, labels)
        return totals, p

    def hinge_forward(logits, labels):
        loss, (margins, *_) = hinge_loss(logits, labels)
        return loss, margins

    return [Case("softmax_loss", "softmax", "alone", lambda source, N: (source.normal(M, N, scale=3),),
                 lambda logits: (softmax(logits),), lambda N: 8*M*N, terms=lambda N: M),
            Case("softmax_loss", "softmax_loss", "forward", scores, softmax_forward, lambda N: 8*M*N, terms=lambda N: M),
            Case("softmax_loss", "softmax_loss", "forward, added up", onto, softmax_onto, lambda N: 8*M*N, terms=lambda N: M),
            Case("softmax_loss", "softmax_loss", "backward", kept(softmax_loss),
                 lambda p, labels: (softmax_loss_backward((p, labels)),), lambda N: 8*M*N),
            Case("hinge_loss", "hinge_loss", "forward", scores, hinge_forward, lambda N: 8*M*N),
            Case("hinge_loss", "hinge_loss", "backward", kept(hinge_loss),
                 lambda margins, targets: (hinge_loss_backward((margins, targets, True)),), lambda N: 12*M*N)]


def parameters(network):
    """The step of all parameters, the limit on all filters where none exceeds it, which is nearly always so, and the sum of the
    gradients of several ranks that one of them forms."""
    shapes = [shape for of_layer in network.parameter_shapes().values() for shape in of_layer.values()]
    filters = [network.parameter_shapes()[layer.name]["w"] for layer in network.convolutions]

    def triples(source, N):
        return [source.normal(*shape, scale=scale) for shape in shapes for scale in (0.01, 0.001, 1e-5)]

    def step(*arrays):
        sgd_step([(w, dw, v, DECAY) for w, dw, v in zip(arrays[0::3], arrays[1::3], arrays[2::3])], LR, MOMENTUM)
        return *arrays[0::3], *arrays[2::3]

    def limit(*arrays):
        clip_filter_rms(arrays, 0.1, zeros((), np.float64, like=arrays[0]))
        return arrays

    def gradients(source, N):
        return [source.normal(-(-elements(*shapes)//(4*RANKS))*4) for _ in range(RANKS)]

    def total(*parts):
        tree_sum(parts, range(RANKS), RANKS)
        return parts[:1]

    return [Case("sgd_step", "sgd_step", "all parameters", triples, step, lambda N: 20*elements(*shapes)),
            Case("tree_sum", "tree_sum", f"a share of {RANKS} ranks", gradients, total,
                 lambda N: 4*(RANKS + 1)*(-(-elements(*shapes)//(4*RANKS))*4)),
            Case("clip_filter_rms", "clip_filter_rms", "all filters",
                 lambda source, N: [source.normal(*shape, scale=0.01) for shape in filters],
                 limit, lambda N: 4*elements(*filters))]


def crop(C, H, W):
    def draw(source, N):
        rng = source.rng
        pictures = source.array(rng.integers(0, 256, (N, H + 32, W + 32, C), np.uint8))
        mean = source.array(np.full((C, H + 32, W + 32), 128, np.float32))
        return pictures, mean, rng.integers(0, 33, N), rng.integers(0, 33, N), rng.random(N) < 0.5

    def run(pictures, mean, tops, lefts, flips):
        return crop_flip(pictures, mean, tops, lefts, flips, H, W),

    return Case("crop_flip", "crop_flip", "forward", draw, run, lambda N: 5*C*H*W*N)


def conversions(network):
    """The largest maps to bf16 and back. In a step they are written as they are stored; analyses convert."""
    shape = network.shapes[1]
    there = lambda x: convert(x, BF16) if runs_kernels(x) else x
    return [Case("convert", "convert", "to bf16", lambda source, N: (source.normal(*shape, N),), lambda x: (there(x),),
                 lambda N: 6*elements(shape)*N, images=(0,), precision="bf16"),
            Case("convert", "convert", "from bf16", lambda source, N: (there(source.normal(*shape, N)),),
                 lambda x: (convert(x, np.float32) if runs_kernels(x) else x,), lambda N: 6*elements(shape)*N, images=(0,),
                 precision="bf16")]


def listed(network):
    """The nine strongest pictures of every unit, of the largest maps and of the scores."""
    largest = next(k for k, layer in enumerate(network.layers) if isinstance(layer, Conv))

    def case(layer, shape):
        def draw(source, N):
            lists = [source.array(np.full((shape[0], 9), fill)) for fill in (np.float32(0), -1, -1)]
            return source.outputs(*shape, N), *lists

        def run(y, *lists):
            lists = Lists(*lists)
            strongest(lists, y, np.arange(y.shape[-1]))
            return tuple(lists)
        return Case("strongest", layer.name, "nine strongest", draw, run,       # lists are read, and seldom written
                    lambda N: 4*elements(shape)*N + 9*(4 + 8 + 8)*shape[0])
    return [case(network.layers[k], network.shapes[k + 1]) for k in (largest, len(network.layers) - 1)]
