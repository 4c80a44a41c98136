"""Networks of zfcore's as ONNX files, which onnxruntime and others run without zfcore.

Operators of version 13, any number of pictures, weights by PyTorch's names ("conv1.weight"), nodes and tensors by the layers'.
What zfcore rounds up stands there as padding behind the maps, which every engine understands alike.
"""
from collections.abc import Sequence

import numpy as np

from zfcore import check
from zfcore.backend import to_host
from zfcore.checkpoint import atomic
from zfcore.files import opener
from zfcore.hints import Array, FilePath
from zfcore.interchange.foreign import for_kind
from zfcore.interchange.onnx_metadata import KEY, to_metadata
from zfcore.interchange.preprocessing import as_exported
from zfcore.layers import (AvgPool, BatchNorm, Conv, Dropout, Flatten, Linear, LocalResponseNorm, LocalResponseNormWithin,
                           MaxPool, Pad, ReLU)
from zfcore.network import Network
from zfcore.ops.window import output_size

OPSET, IR = 13, 7                 # of 2020: what has read ONNX since then reads this


def write(network: Network, path: FilePath, mean: Array | None = None, classes: Sequence[str] = (), preprocessing: bool = False,
          softmax: bool = False) -> None:
    """Write `network` to the ONNX file `path`, whole or not at all.

    mean            the mean image (3,size,size) of its pictures, which is kept in the file's metadata, as `classes` are; what
                    is to enter is then told in the input's doc_string
    preprocessing   take uint8 RGB pictures (N,H,W,3), the centre crops of those, and subtract the mean's in the graph; else
                    float ones (N,3,H,W) less the mean
    softmax         give probabilities, not scores

    Raises Expected, naming the layer, for what ONNX cannot express, for more than 2 GB of weights and where the disk refuses,
    and where the package onnx is not installed."""
    try:
        import onnx
    except ImportError:
        raise check.Expected(path, "the package onnx, which writes such files", "none installed", "pip install onnx") from None
    mean = None if mean is None else to_host(mean)
    work = _Writer(onnx, network)
    work.see(None if not preprocessing else _centre(network, mean),
             "" if mean is None else as_exported(network.input_shape, mean, preprocessing))
    for layer, shape, out in zip(network.layers, network.shapes, network.shapes[1:]):
        for_kind(_NODES, layer, path)(work, layer, shape, out)
    model = work.model(network.shapes[-1], softmax)
    onnx.helper.set_model_props(model, {KEY: to_metadata(classes, mean)})
    if model.ByteSize() >= 2**31:
        raise check.Expected(path, "at most 2 GB of weights, as an ONNX file may have", f"{model.ByteSize()} bytes")
    with atomic(path) as temporary, open(temporary, "wb", opener=opener) as file:
        file.write(model.SerializeToString())


def _centre(network, mean):
    """The centre of the mean image as large as what enters."""
    if mean is None:
        raise check.Expected("--with-preprocessing", "a network with a mean image", "none")
    _, H, W = network.input_shape
    top, left = ((n - side)//2 for n, side in zip(mean.shape[1:], (H, W)))
    return np.ascontiguousarray(mean[:, top:top + H, left:left + W], np.float32)


class _Writer:
    """A graph that grows: `at` is the tensor that the next node reads."""

    def __init__(self, onnx, network):
        self.onnx, self.network = onnx, network
        self.nodes, self.initialisers = [], []
        self.taken = {layer.name for layer in network.layers}
        self.at = self.entered = None

    def see(self, mean, told):
        """Let pictures enter, of which a sentence is `told`: float ones less the mean, or uint8 ones, of which `mean` (3,H,W) is
        subtracted here."""
        C, H, W = self.network.input_shape
        self.at = self.free("pictures")
        kinds, helper = self.onnx.TensorProto, self.onnx.helper
        kind, shape = (kinds.FLOAT, ["N", C, H, W]) if mean is None else (kinds.UINT8, ["N", H, W, C])
        self.entered = helper.make_tensor_value_info(self.at, kind, shape, told)
        if mean is not None:
            self.node("Cast", self.free("pixels"), to=kinds.FLOAT)
            self.node("Transpose", self.free("channels_first"), perm=[0, 3, 1, 2])
            self.node("Sub", self.free("less_mean"), [self.array("mean", mean)])

    def model(self, shape, softmax):
        """The ModelProto; `shape` is that of the scores of one picture."""
        helper = self.onnx.helper
        if softmax:
            self.node("Softmax", self.free("softmax"), axis=1)
        last, name = self.nodes[-1], self.free("probabilities" if softmax else "scores")
        last.output[0] = name
        scores = helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["N", *shape])
        graph = helper.make_graph(self.nodes, self.network.name, [self.entered], [scores], self.initialisers)
        return helper.make_model(graph, producer_name="zfcore", ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])

    def free(self, name):
        """A name for a tensor that no layer and no other tensor has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def node(self, op_type, name, constants=(), **attributes):
        """A node behind the last, called `name` as the tensor that it gives."""
        self.nodes.append(self.onnx.helper.make_node(op_type, [self.at, *constants], [name], name, **attributes))
        self.at = name

    def array(self, name, array):
        """The name of a constant that is to be called `name`."""
        name = self.free(name)
        self.initialisers.append(self.onnx.numpy_helper.from_array(to_host(array), name))
        return name

    # ---------------------------------------------------------------------------------------------------------------- layers
    def conv(self, layer, shape, out):
        w, b = (self.array(f"{layer.name}.{word}", array) for word, array in
                (("weight", np.moveaxis(to_host(layer.parameters["w"]), 3, 0)), ("bias", layer.parameters["b"])))
        self.node("Conv", layer.name, [w, b], group=layer.groups, **_window(layer, shape, out))

    def maxpool(self, layer, shape, out):
        self.node("MaxPool", layer.name, **_window(layer, shape, out))

    def avgpool(self, layer, shape, out):
        """A window that may reach over the padding, and divides by what lies within it, has the padding in the maps
        themselves."""
        if layer.K is None:
            return self.node("GlobalAveragePool", layer.name)
        window, P = _window(layer, shape, out), layer.P
        if layer.borders == "clipped" and max(window["pads"]) > P:
            self.pads(self.free(f"{layer.name}_pad"), P, P, P, P)
            window["pads"] = [max(n - P, 0) for n in window["pads"]]
            return self.node("AveragePool", layer.name, **window)
        self.node("AveragePool", layer.name, count_include_pad=int(layer.borders != "inside"), **window)

    def pad(self, layer, shape, out):
        self.pads(layer.name, layer.top, layer.left, layer.bottom, layer.right)

    def pads(self, name, top, left, bottom, right):
        around = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        self.node("Pad", name, [self.array(f"{name}.pads", around)])

    def relu(self, layer, shape, out):
        self.node("Relu", layer.name)

    def response_norm(self, layer, shape, out):
        if layer.n % 2 == 0:
            raise check.Expected(layer.name, "an odd n, since of an even one ONNX has the one more map above", layer.n)
        alpha = layer.alpha*(layer.n if layer.convention == "sum" else 1)
        self.node("LRN", layer.name, size=layer.n, alpha=alpha, beta=layer.beta, bias=layer.k)

    def response_norm_within(self, layer, shape, out):
        raise check.Expected(layer.name, "a layer that ONNX has", "a local response normalisation within each map")

    def batch_norm(self, layer, shape, out):
        named = {"weight": layer.parameters["gamma"], "bias": layer.parameters["beta"],
                 "running_mean": layer.buffers["mean"], "running_var": layer.buffers["var"]}
        arrays = [self.array(f"{layer.name}.{word}", array) for word, array in named.items()]
        self.node("BatchNormalization", layer.name, arrays, epsilon=layer.eps)

    def flatten(self, layer, shape, out):
        self.node("Flatten", layer.name)

    def linear(self, layer, shape, out):
        w, b = self.array(f"{layer.name}.weight", to_host(layer.parameters["w"]).T), self.array(f"{layer.name}.bias",
                                                                                                layer.parameters["b"])
        self.node("Gemm", layer.name, [w, b], transB=1)

    def dropout(self, layer, shape, out):
        self.node("Dropout", layer.name, [self.array(f"{layer.name}.ratio", np.array(1 - layer.keep_prob, np.float32))])


_NODES = {Conv: _Writer.conv, MaxPool: _Writer.maxpool, AvgPool: _Writer.avgpool, Pad: _Writer.pad, ReLU: _Writer.relu,
          LocalResponseNorm: _Writer.response_norm, LocalResponseNormWithin: _Writer.response_norm_within,
          BatchNorm: _Writer.batch_norm, Flatten: _Writer.flatten, Linear: _Writer.linear, Dropout: _Writer.dropout}


def _window(layer, shape, out):
    """Attributes of a window: behind the maps as much padding as the last one takes, where that is not P."""
    K, S, P = layer.K, layer.S, layer.P
    ends = [P if _fits(n, count, K, S, P) else (count - 1)*S + K - n - P for n, count in zip(shape[1:], out[1:])]
    return {"kernel_shape": [K, K], "strides": [S, S], "pads": [P, P, *ends]}


def _fits(size, count, K, S, P):
    return size + 2*P >= K and output_size(size, K, S, P, "floor") == count
