"""What is measured: every operation at the shapes at which ZFNet uses it, and what it has to move and multiply there.

    for case in cases():
        work = case.prepare(device.array, N)        # a function without arguments; each call runs the operation once
        floor = case.traffic(N) / bandwidth         # seconds that no implementation goes under

The layers' cases are read off the network, so a changed network changes them. Traffic counts every array once, as the
headers of kernels/*.cu do."""
from dataclasses import dataclass
from typing import Callable

import numpy as np

from zfcore.layers import ContrastNorm, Conv, Dropout, Linear, MaxPool, ReLU
from zfcore.models.zfnet import zfnet
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.filter_rms import filter_rms
from zfcore.ops.hinge_loss import hinge_loss, hinge_loss_backward
from zfcore.ops.sgd_step import sgd_step
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward

# kind of layer -> the noun of its kernel, and bytes moved forward and backward by x inputs, y outputs, w weights
LAYERS = {
    Conv:         ("conv2d", lambda x, y, w: 4*(x + w + y), lambda x, y, w: 4*(2*x + 2*w + 2*y)),
    ReLU:         ("relu", lambda x, y, w: 8*x, lambda x, y, w: 12*x),
    MaxPool:      ("maxpool", lambda x, y, w: 4*x + 5*y, lambda x, y, w: 4*x + 5*y),
    ContrastNorm: ("contrast_norm", lambda x, y, w: 8*x, lambda x, y, w: 12*x),
    Linear:       ("linear", lambda x, y, w: 4*(x + w + y), lambda x, y, w: 4*(2*x + 2*w + 2*y)),
    Dropout:      ("dropout", lambda x, y, w: 8*x, lambda x, y, w: 8*x),
}


@dataclass(frozen=True)
class Case:
    noun: str                     # kernels/<noun>.cu
    name: str                     # "pool1 forward"
    prepare: Callable             # prepare(array, N) -> work(), `array` bringing a NumPy array to the device
    traffic: Callable             # N -> bytes
    multiply_adds: Callable = lambda N: 0


def cases(network=None):
    """Every case for `network`, by default the paper's. Its layers hold the parameters of the last case prepared."""
    network = network or zfnet()
    found = []
    for layer, shape, out in zip(network.layers, network.shapes, network.shapes[1:]):
        if type(layer) in LAYERS:
            found += _layer_cases(layer, shape, out)
    return found + _other_cases(network)


def _layer_cases(layer, shape, out):
    noun, forward_bytes, backward_bytes = LAYERS[type(layer)]
    parameters = layer.parameter_shapes(shape)
    sizes = int(np.prod(shape)), int(np.prod(out)), sum(int(np.prod(s)) for s in parameters.values())

    def arrange(array, N):
        rng = np.random.default_rng(0)
        layer.parameters = {key: array(0.05*rng.standard_normal(s, np.float32)) for key, s in parameters.items()}
        return [array(rng.standard_normal((*s, N), np.float32)) for s in (shape, out)]

    def forward(array, N):
        x, _ = arrange(array, N)
        return lambda: layer.forward(x, step=0)

    def backward(array, N):
        x, dy = arrange(array, N)
        _, cache = layer.forward(x, step=0)
        return lambda: layer.backward(dy, cache)

    def moved(count):
        return lambda N: count(sizes[0]*N, sizes[1]*N, sizes[2])

    products = layer.multiply_adds(shape)
    return [Case(noun, f"{layer.name} forward", forward, moved(forward_bytes), lambda N: products*N),
            Case(noun, f"{layer.name} backward", backward, moved(backward_bytes), lambda N: 2*products*N)]


def _other_cases(network):
    M, (C, H, W) = network.shapes[-1][0], network.input_shape
    weights = {name: of_layer["w"] for name, of_layer in network.parameter_shapes().items()}
    found = []

    def loss(noun, forward, backward):
        def arrange(array, N):
            rng = np.random.default_rng(0)
            return array(rng.standard_normal((M, N), np.float32)), rng.integers(0, M, N)

        def prepare_backward(array, N):
            _, cache = forward(*arrange(array, N))
            return lambda: backward(cache)

        def prepare_forward(array, N):
            scores, labels = arrange(array, N)
            return lambda: forward(scores, labels)

        moved = {"softmax_loss": (8, 8), "hinge_loss": (12, 12)}[noun]
        found.append(Case(noun, f"{noun} forward", prepare_forward, lambda N: moved[0]*M*N))
        found.append(Case(noun, f"{noun} backward", prepare_backward, lambda N: moved[1]*M*N))

    loss("softmax_loss", softmax_loss, softmax_loss_backward)
    loss("hinge_loss", hinge_loss, hinge_loss_backward)

    for name, shape in weights.items():
        size = int(np.prod(shape))

        def step(array, N, shape=shape):
            w, dw, v = (array(0.01*np.ones(shape, np.float32)) for _ in range(3))
            return lambda: sgd_step(w, dw, v, 1e-3, 0.9, 5e-4)

        def limit(array, N, shape=shape):
            w = array(np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32))
            return lambda: filter_rms(w, 0.1)

        found.append(Case("sgd_step", f"{name} step", step, lambda N, size=size: 20*size))
        if isinstance(network[name], Conv):
            found.append(Case("filter_rms", f"{name} filter limit, none over", limit, lambda N, size=size: 4*size))

    def crop(array, N):
        rng = np.random.default_rng(0)
        pictures = array(rng.integers(0, 256, (N, H + 32, W + 32, C), np.uint8))
        mean = array(np.full((C, H + 32, W + 32), 128, np.float32))
        tops, lefts, flips = rng.integers(0, 33, N), rng.integers(0, 33, N), rng.random(N) < 0.5
        return lambda: crop_flip(pictures, mean, tops, lefts, flips, H, W)

    return [*found, Case("crop_flip", "crop and mirror", crop, lambda N: 5*C*H*W*N)]
