"""The same network by other engines on the CPU, an adapter each: what `python -m bench cpu` has beside ours.

    for engine in installed(): run = engine.forward(network, x)           # x (C,H,W,N); run() -> scores (M,N)
                               run = engine.step(network, x, labels)      # run() does a training step; None where there is none

    PyTorch          eager, in its two layouts          torch.compile    its compiler, channels last
    onnxruntime      forward alone, from our ONNX       JAX              jitted, channels last; its step is the gradient alone

Each takes the parameters of `network` and the very pictures that ours gets, laid out beforehand as it likes them, and as many
threads. None is needed, and none is loaded before it is asked for: --help must not wait for it.
"""
import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.record import optional
from zfcore.cpu import CORES
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU

LAYOUTS = "channels first", "channels last"


class Engine(NamedTuple):
    name: str
    package: str                           # whose version is told
    forward: Callable
    step: Callable | None = None


def installed():
    """The engines of ENGINES whose packages are there."""
    # importlib.util's would load one that is `optional`
    return [engine for engine in ENGINES if PathFinder.find_spec(engine.package)]


def versions():
    """{package: version} of what is installed."""
    return {package: importlib.metadata.version(package) for package in sorted({engine.package for engine in installed()})}


def contestants(network, x, labels=None, left_out=()):
    """{name: run} of the engines but for those `left_out`: forward passes, or with `labels` training steps."""
    runs = {}
    for engine in installed():
        if engine.name not in left_out and (labels is None or engine.step):
            runs[engine.name] = engine.forward(network, x) if labels is None else engine.step(network, x, labels)
    return runs


# ------------------------------------------------------------------------------------------------------------ PyTorch
torch = optional("torch")


def torch_network(network):
    """The network's layers as a user of PyTorch would write them, with our parameters. Windows that reach over the border are
    rows and columns of zeros before a convolution and ceil_mode in a pool; alpha of LocalResponseNorm is divided by its width,
    as ours."""
    nn, modules = torch.nn, []
    torch.set_num_threads(CORES)
    for layer, shape, out in zip(network.layers, network.shapes, network.shapes[1:]):
        modules += TORCH[type(layer)](nn, layer, shape, out)
    twin = nn.Sequential(*modules)
    weighted = [module for module in twin if isinstance(module, (nn.Conv2d, nn.Linear))]
    for module, of_layer in zip(weighted, network.parameters().values()):
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.moveaxis(of_layer["w"], -1, 0)))
            module.bias.copy_(torch.from_numpy(of_layer["b"]))
    return twin


def _torch_conv(nn, layer, shape, out):
    K, S, P = layer.window()
    over = [max(0, (to - 1)*S + K - 2*P - size) for size, to in zip(shape[1:], out[1:])]
    pad = [nn.ZeroPad2d((0, over[1], 0, over[0]))] if any(over) else []
    return [*pad, nn.Conv2d(shape[0], layer.F, K, S, P, groups=layer.groups)]


TORCH = {Conv: _torch_conv,
         ReLU: lambda nn, layer, shape, out: [nn.ReLU(inplace=True)],
         MaxPool: lambda nn, layer, shape, out: [nn.MaxPool2d(*layer.window(), ceil_mode=layer.rounding == "ceil")],
         LocalResponseNorm: lambda nn, layer, shape, out: [nn.LocalResponseNorm(*layer.arguments()[:4])],
         Flatten: lambda nn, layer, shape, out: [nn.Flatten()],
         Dropout: lambda nn, layer, shape, out: [nn.Dropout(1 - layer.keep_prob)],
         Linear: lambda nn, layer, shape, out: [nn.Linear(shape[0], out[0])]}


def memory_format(layout):
    return torch.channels_last if layout == "channels last" else torch.contiguous_format


def torch_images(x, layout):
    """x (C,H,W,N) as PyTorch's tensor (N,C,H,W) in that layout."""
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 1, 2)))
    return images.contiguous(memory_format=memory_format(layout))


def torch_twin(network, layout, compiled=False):
    twin = torch_network(network).to(memory_format=memory_format(layout))
    if compiled:
        torch.compiler.reset()             # else the ninth form of one module would run uncompiled, and say nothing
    return torch.compile(twin, dynamic=False) if compiled else twin


def torch_forward(layout, compiled, network, x):
    twin, images = torch_twin(network, layout, compiled).eval(), torch_images(x, layout)

    def run():
        with torch.no_grad():
            return twin(images).numpy().T
    return run


def torch_step(layout, compiled, network, x, labels):
    learn, images, labels = torch_learner(torch_twin(network, layout, compiled)), torch_images(x,
                                                                                               layout), torch.from_numpy(labels)
    return lambda: learn(images, labels)


def torch_learner(twin):
    """A function (images, labels) that does a training step of `twin`, with the momentum that ours has, by the quickest form that
    PyTorch's optimizer has."""
    optimizer = torch.optim.SGD(twin.train().parameters(), lr=1e-4, momentum=0.9, fused=True)

    def learn(images, labels):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(images), labels).backward()
        optimizer.step()
    return learn


# -------------------------------------------------------------------------------------------------------- onnxruntime
def onnx_forward(network, x):
    from zfcore.interchange import onnx_writer                         # needs the package onnx
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = CORES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"network.onnx"
        onnx_writer.write(network, path)
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entering = {session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(3, 0, 1, 2))}
    return lambda: session.run(None, entering)[0].T


# ---------------------------------------------------------------------------------------------------------------- JAX
def jax_network(network):
    """(function (parameters, images (N,H,W,C)) -> scores (N,M), parameters). Dropout is left out, in its favour."""
    jax = importlib.import_module("jax")
    lax, layers = jax.lax, []
    parameters = {name: {key: jax.numpy.asarray(array) for key, array in of_layer.items()}
                  for name, of_layer in network.parameters().items()}

    def over(layer, shape, out):
        K, S, P = layer.window()
        return [(P, max(0, (to - 1)*S + K - P - size)) for size, to in zip(shape[1:], out[1:])]

    def conv(layer, shape, out, x, w, b):
        around = over(layer, shape, out)
        return lax.conv_general_dilated(x, w, (layer.S, layer.S), around, dimension_numbers=("NHWC", "IHWO", "NHWC"),
                                        feature_group_count=layer.groups) + b

    def pool(layer, shape, out, x):
        around = [(0, 0), *over(layer, shape, out), (0, 0)]
        return lax.reduce_window(x, -np.inf, lax.max, (1, layer.K, layer.K, 1), (1, layer.S, layer.S, 1), around)

    def norm(layer, shape, out, x):
        n, alpha, beta, k, _ = layer.arguments()
        total = lax.reduce_window(x*x, 0.0, lax.add, (1, 1, 1, n), (1, 1, 1, 1), [(0, 0)]*3 + [(n//2, n - 1 - n//2)])
        return x/(k + alpha/n*total)**beta

    kinds = {Conv: conv, MaxPool: pool, LocalResponseNorm: norm,
             ReLU: lambda layer, shape, out, x: jax.numpy.maximum(x, 0),
             # in our order of features
             Flatten: lambda layer, shape, out, x: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
             Dropout: lambda layer, shape, out, x: x,
             Linear: lambda layer, shape, out, x, w, b: x @ w + b}
    for layer, *shapes in zip(network.layers, network.shapes, network.shapes[1:]):
        layers.append((layer.name, partial(kinds[type(layer)], layer, *shapes)))

    def scores(parameters, x):
        for name, apply in layers:
            x = apply(x, **parameters.get(name, {}))
        return x
    return scores, parameters


def jax_forward(network, x):
    jax = importlib.import_module("jax")
    (scores, parameters), images = jax_network(network), jax.numpy.asarray(x.transpose(3, 1, 2, 0))
    forward = jax.jit(scores)
    return lambda: np.asarray(forward(parameters, images)).T


def jax_gradient(network, x, labels):
    jax = importlib.import_module("jax")
    (scores, parameters), images = jax_network(network), jax.numpy.asarray(x.transpose(3, 1, 2, 0))

    def loss(parameters):
        return -jax.nn.log_softmax(scores(parameters, images))[np.arange(len(labels)), labels].mean()
    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(parameters))


ENGINES = [*(Engine(f"PyTorch, {layout}", "torch", partial(torch_forward, layout, False), partial(torch_step, layout, False))
             for layout in LAYOUTS),
           Engine("torch.compile", "torch", partial(torch_forward, LAYOUTS[1], True), partial(torch_step, LAYOUTS[1], True)),
           Engine("onnxruntime", "onnxruntime", onnx_forward), Engine("JAX", "jax", jax_forward, jax_gradient)]
