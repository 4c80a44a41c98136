"""Keras: Sequential networks, and functional ones whose layers lie in a row, in HDF5 (.h5, of Keras 2 and 3) or a zip (.keras).

Keras has its channels last: kernels (K,K,C,F) and matrices (D,M) are turned here, and where maps are flattened the rows of the matrix
behind them are in the order H,W,C. "same" is a padding of which an odd pixel lies behind. A layer's activation is a node of its own.
"""
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import anything, listed, mapping, parsed, said, text
from zfcore.hdf5 import Reader, open_h5
from zfcore.hints import FilePath
from zfcore.interchange.archive import open_archive
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Dropping, Flattening, Foreign, MaxPooling, Node,
                                        Padding, Probabilities, Rectifier, Window, in_a_row, unsupported)

MOST_CONFIG, MOST_LAYERS, MOST_DEPTH = 2**24, 10_000, 8
HINT = "pip install keras torch"
OBJECT = mapping(anything)
ORDERS = {"BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"), "Normalization": ("mean", "variance", "count")}
FLOATS = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64)

Arrays = Mapping[str, NDArray[Any]]


def read(path: FilePath, graph: FilePath | None = None, model: str | None = None) -> Foreign:
    """The network in the Keras file at `path`, which has all that it takes: `graph` and `model` must be None. Raises Expected for what
    is no such file or is damaged, and Unsupported, naming the layer, for what zfcore has no layer for."""
    path = Path(path)
    for option, value in (("--graph", graph), ("--model", model)):
        if value is not None:
            raise check.Expected(option, "nothing beside a Keras file, which says how its layers lie", value)
    try:
        if path.suffix.lower() == ".keras":
            with open_archive(path) as archive:
                config = archive.bytes_of("config.json", MOST_CONFIG).decode("utf-8", "replace")
                with open_h5(path, member=archive.part("model.weights.h5")) as file:
                    return _network(path, config, lambda name, kind: _by_number(file, name, kind))
        with open_h5(path) as file:
            if file.attribute("format", anything, "") == "zfcore":
                raise check.Expected(path, "a network of Keras", "a checkpoint of zfcore's", f"it is opened as it is: --run {path}")
            config = file.attribute("model_config", text(MOST_CONFIG), "")
            if not config:
                raise check.Expected(path, "a network of Keras, with the attribute model_config", "none, weights alone perhaps",
                                     "save it by model.save(...)")
            weights = file.group("model_weights")
            return _network(path, config, lambda name, kind: _by_name(weights, name))
    except OSError as error:
        raise check.Expected(path, "a file that can be read", error.strerror or error) from None


# -------------------------------------------------------------------------------------------------------------- weights
def _by_name(weights, layer):
    """{"kernel": array, ...} of a layer, in HDF5 as model.save wrote it: by the ends of their names, "a/b/kernel:0"."""
    return dict(_leaves(weights.group(layer))) if layer in weights else {}


def _leaves(group: Reader, depth: int = 0) -> Iterator[tuple[str, NDArray[Any]]]:
    if depth > MOST_DEPTH:
        raise check.Expected(group.place(), f"groups in groups, {MOST_DEPTH} deep", "deeper")
    for name in group.names():
        if group.is_group(name):
            yield from _leaves(group.group(name), depth + 1)
        else:
            yield name.partition(":")[0], group.array(name, FLOATS, finite=True)


def _by_number(file, layer, kind):
    """{"kernel": array, ...} of a layer of a .keras file, where they are numbered: in the order in which layers of its kind have them."""
    layers = file.group("layers")
    for name in layers.names():
        group = layers.group(name)
        if "vars" not in group or (found := group.group("vars")).attribute("name", text(), name) != layer:
            continue
        arrays = [found.array(str(k), None, None, finite=True) for k in range(len(found.names()))]
        names = ORDERS.get(kind, ("kernel", "bias"))
        if kind == "BatchNormalization" and len(arrays) < 4:         # without gamma or beta: `_normalised` asks what is missing
            names = (*("only",)*(len(arrays) - 2), "moving_mean", "moving_variance")
        return dict(zip(names, arrays))
    return {}


# --------------------------------------------------------------------------------------------------------------- layers
def _network(path: Path, config: str, weights_of: Callable[[str, str], Arrays]) -> Foreign:
    """The Foreign of a model_config, whose layers' arrays `weights_of` (name, kind) gives."""
    model = parsed(f"{path}: model_config", config, OBJECT)
    kind, inner = model.get("class_name"), model.get("config")
    if kind not in ("Sequential", "Functional", "Model"):
        raise check.Expected(f"{path}: model_config", "a Sequential or Functional model", said(kind))
    rows = listed(OBJECT, MOST_LAYERS, 1)(f"{path}: layers", inner.get("layers") if isinstance(inner, dict) else inner)
    layers = [_Layer(path, row) for row in rows]
    shape = next((shape for layer in layers if (shape := layer.shape())), None)
    formats = {layer.config["data_format"] for layer in layers if layer.config.get("data_format")}
    if shape is None or len(formats) > 1:
        raise check.Expected(f"{path}: model_config", "pictures (H,W,C) of a fixed size, and one order of axes",
                             f"none, and {len(formats)} orders" if shape is None else "several orders", "save it with an Input layer")
    last = formats != {"channels_first"}
    C, H, W = (shape[2], *shape[:2]) if last else shape
    nodes, first, before = [], "input", "input"
    for layer in layers:
        if layer.kind == "InputLayer":
            first = before = layer.name
            continue
        reads = layer.source(before if kind == "Sequential" else None)
        nodes += _nodes(layer, reads, weights_of, last)
        before = layer.name
    foreign = Foreign("Keras", path, first, (C, H, W), in_a_row(path, nodes, first), engine_hint=HINT)
    if not foreign.nodes:
        raise check.Expected(f"{path}: model_config", "layers behind the pictures", "none")
    if find_spec("keras") and (find_spec("torch") or find_spec("tensorflow") or find_spec("jax")):
        foreign.engine, foreign.engine_name = _engine(path, last), f"Keras {version('keras')}"
    return foreign


class _Layer:
    """A row of a model_config: the layer's kind, name and fields."""

    def __init__(self, path, row):
        self.path, self.row, self.kind = path, row, row.get("class_name")
        config = row.get("config")
        self.name = config.get("name", row.get("name")) if isinstance(config, dict) else None
        if not isinstance(self.kind, str) or not isinstance(self.name, str) or not 0 < len(self.name) < 1000:
            raise check.Expected(f"{path}: layers", "layers with class_name, config and name", said(row))
        self.config = config

    def refuse(self, expected, got, needed=""):
        """The sentence about something that the layer has."""
        return unsupported(self.path, f"{self.name} ({self.kind})", expected, said(got) if not isinstance(got, str) else got, needed)

    def shape(self):
        """Shape of the pictures that enter, where the layer says it; None elsewhere."""
        found = next((self.config[key] for key in ("batch_shape", "batch_input_shape") if self.config.get(key)), None)
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != 4 or not all(type(n) is int and 0 < n <= 2**14 for n in found[1:]):
            raise self.refuse("pictures of three axes of fixed sizes", found)
        return found[1:]

    def source(self, before):
        """Name of the layer that it reads: the one `before` it in a Sequential model, else of its inbound nodes the only one."""
        if before is not None:
            return before
        found = list(dict.fromkeys(_histories(self.row.get("inbound_nodes"))))
        if len(found) != 1:
            raise self.refuse("one layer whose output it reads", f"{len(found)}", "networks that branch")
        return found[0]

    def pair(self, key, default=None):
        """The two whole numbers above 0 of a field, for rows and columns."""
        value = self.config.get(key)
        value = default if value is None else value
        value = [value, value] if type(value) is int else value
        if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(type(n) is int and 0 < n <= 2**14 for n in value):
            raise self.refuse(f"{key}, two whole numbers above 0", value)
        return tuple(value)

    def number(self, key, default):
        """A finite number of a field."""
        value = self.config.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e30:
            raise self.refuse(f"{key}, a number", value)
        return float(value)

    def window(self, K, S):
        """The Window of these sides and strides with the layer's padding."""
        padding = self.config.get("padding", "valid")
        if padding not in ("valid", "same"):
            raise self.refuse("padding valid or same", padding)
        return Window(K, S, "same_upper" if padding == "same" else ((0, 0), (0, 0)), "floor", self.pair("dilation_rate", 1))


def _histories(inbound, depth=0):
    """Names of the layers whose outputs stand in inbound_nodes, as Keras 2 ([name, 0, 0, {}]) or 3 (keras_history) writes them."""
    if isinstance(inbound, dict):
        if isinstance(history := inbound.get("keras_history"), list) and history and isinstance(history[0], str):
            yield history[0]
        else:
            for value in inbound.values():
                yield from _histories(value, depth + 1)
    elif isinstance(inbound, list):
        if inbound and isinstance(inbound[0], str) and len(inbound) >= 3 and isinstance(inbound[1], int):
            yield inbound[0]
        else:
            for value in inbound:
                yield from _histories(value, depth + 1)


def _nodes(layer: _Layer, reads: str, weights_of: Callable[[str, str], Arrays], last: bool) -> list[Node]:
    """The nodes of a layer, of which the last one gives what bears its name."""
    if layer.kind not in _MAKE:
        raise layer.refuse("a layer that zfcore has", layer.kind, "a layer for it, or networks that branch")
    activation = layer.config.get("activation", "linear") if layer.kind in ("Conv2D", "Dense", "Activation") else "linear"
    activation = activation.get("class_name") if isinstance(activation, dict) else activation or "linear"
    if activation not in _ACTIVATIONS:
        raise layer.refuse(f"one of the activations {', '.join(_ACTIVATIONS)}", activation, "a layer for it")
    behind = _ACTIVATIONS[activation]
    made = f"{layer.name}, before its activation" if behind else layer.name
    node = _MAKE[layer.kind](layer, weights_of(layer.name, layer.kind), layer.name, reads, made, last)
    found = [] if node is None else [node]
    if node is not None and layer.kind.startswith("Global") and not layer.config.get("keepdims"):
        node.gives = f"{layer.name}, a pixel each"
        found.append(Flattening(f"{layer.name}_flat", node.gives, made, "chw"))
    made = made if found else reads
    if behind:
        return [*found, behind(f"{layer.name}_{activation}" if found else layer.name, made, layer.name)]
    return found or [Affine(layer.name, reads, layer.name, np.ones(1), np.zeros(1))]                 # it does nothing


_ACTIVATIONS: dict[Any, Any] = {"linear": None, "relu": Rectifier, "softmax": Probabilities}


def _kernel(layer, arrays, axes):
    """(kernel, bias or None), of so many axes."""
    if "kernel" not in arrays or arrays["kernel"].ndim != axes:
        raise layer.refuse(f"weights called kernel, of {axes} axes", "none" if "kernel" not in arrays else str(arrays["kernel"].shape))
    uses = layer.config.get("use_bias", True)
    if uses and "bias" not in arrays:
        raise layer.refuse("a bias", "none")
    return arrays["kernel"], arrays["bias"] if uses else None


def _convolution(layer, arrays, name, reads, gives, last):
    kernel, bias = _kernel(layer, arrays, 4)
    groups = layer.config.get("groups", 1)
    if type(groups) is not int or groups < 1:
        raise layer.refuse("groups, a whole number above 0", groups)
    window = layer.window(layer.pair("kernel_size"), layer.pair("strides", 1))
    if kernel.shape[:2] != window.K:
        raise layer.refuse(f"kernels of {window.K}", str(kernel.shape))
    return Convolution(name, reads, gives, np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias, window, groups)


def _dense(layer, arrays, name, reads, gives, last):
    kernel, bias = _kernel(layer, arrays, 2)
    return Dense(name, reads, gives, np.ascontiguousarray(kernel.T), bias)


def _pooling(kind, **more):
    def make(layer, arrays, name, reads, gives, last):
        K = layer.pair("pool_size", 2)
        return kind(name, reads, gives, layer.window(K, layer.pair("strides", list(K))), **more)
    return make


def _global_pooling(kind):
    def make(layer, arrays, name, reads, gives, last):
        return kind(name, reads, gives, None)
    return make


def _zeros(layer, arrays, name, reads, gives, last):
    value = layer.config.get("padding", 1)
    value = [[value]*2]*2 if type(value) is int else [[n, n] if type(n) is int else n for n in value] if isinstance(value, list) else None
    if not value or len(value) != 2 or not all(isinstance(n, list) and len(n) == 2 and all(type(m) is int and 0 <= m <= 2**14 for m in n)
                                               for n in value):
        raise layer.refuse("padding, whole numbers from 0", layer.config.get("padding"))
    return Padding(name, reads, gives, (tuple(value[0]), tuple(value[1])))


def _batch_normalised(layer, arrays, name, reads, gives, last):
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in ((-1, 3) if last else (1,)):
        raise layer.refuse("a normalisation of each channel", f"axis {axis}")
    if missing := [key for key in ("moving_mean", "moving_variance") if key not in arrays]:
        raise layer.refuse("weights called moving_mean and moving_variance", f"no {missing[0]}")
    mean, var = (np.asarray(arrays[key], np.float64) for key in ("moving_mean", "moving_variance"))
    given = dict(arrays)
    if "only" in given:
        given["gamma" if layer.config.get("scale", True) else "beta"] = given.pop("only")
    gamma = np.asarray(given["gamma"], np.float64) if layer.config.get("scale", True) and "gamma" in given else np.ones(len(mean))
    beta = np.asarray(given["beta"], np.float64) if layer.config.get("center", True) and "beta" in given else np.zeros(len(mean))
    if not mean.shape == var.shape == gamma.shape == beta.shape == (mean.size,) or (var < 0).any():
        raise layer.refuse("four arrays (C,), the variances from 0", str([mean.shape, var.shape, gamma.shape, beta.shape]))
    scale = gamma/np.sqrt(var + layer.number("epsilon", 1e-3))
    return Affine(name, reads, gives, scale, beta - mean*scale)


def _rescaled(layer, arrays, name, reads, gives, last):
    scale, offset = layer.config.get("scale"), layer.config.get("offset", 0.0)
    try:
        scale, offset = (np.atleast_1d(np.array(value, np.float64)) for value in (scale, offset))
        C = max(scale.size, offset.size)
        scale, offset = np.broadcast_to(scale, (C,)), np.broadcast_to(offset, (C,))
    except (TypeError, ValueError):
        raise layer.refuse("scale and offset, numbers", f"{said(scale)} and {said(offset)}") from None
    if not np.isfinite([scale, offset]).all():
        raise layer.refuse("finite numbers", "others")
    return Affine(name, reads, gives, scale, offset)


def _standardised(layer, arrays, name, reads, gives, last):
    if layer.config.get("invert") or layer.config.get("axis", -1) not in (-1, [-1], [3], 3):
        raise layer.refuse("a normalisation of each channel", said(layer.config.get("axis")))
    given = [arrays.get("mean", layer.config.get("mean")), arrays.get("variance", layer.config.get("variance"))]
    try:
        mean, var = (np.array(value, np.float64).reshape(-1) for value in given)
        std = np.maximum(np.sqrt(var), 1e-7)
        return Affine(name, reads, gives, 1/std, -mean/std)
    except (TypeError, ValueError):
        raise layer.refuse("mean and variance of each channel", "none, or others") from None


def _flattened(layer, arrays, name, reads, gives, last):
    return Flattening(name, reads, gives, "hwc" if last else "chw")


def _dropped(layer, arrays, name, reads, gives, last):
    rate = layer.number("rate", 0.5)
    if not 0 <= rate < 1:
        raise layer.refuse("rate, 0 <= rate < 1", rate)
    return Dropping(name, reads, gives, rate)


def _rectified(layer, arrays, name, reads, gives, last):
    plain = layer.config.get("max_value") is None and not layer.config.get("negative_slope") and not layer.config.get("threshold")
    if not plain:
        raise layer.refuse("max(x, 0)", "one with a slope, a threshold or a highest value", "a rectifier of that kind")
    return Rectifier(name, reads, gives)


def _softmax(layer, arrays, name, reads, gives, last):
    if layer.config.get("axis", -1) not in (-1, 1):
        raise layer.refuse("a softmax over the classes", f"axis {layer.config.get('axis')}")
    return Probabilities(name, reads, gives)


def _activated(layer, arrays, name, reads, gives, last):
    return None


_MAKE: dict[str, Callable[..., Node | None]]
_MAKE = {"Conv2D": _convolution, "Dense": _dense, "MaxPooling2D": _pooling(MaxPooling), "AveragePooling2D": _pooling(AveragePooling),
         "GlobalMaxPooling2D": _global_pooling(MaxPooling), "GlobalAveragePooling2D": _global_pooling(AveragePooling),
         "ZeroPadding2D": _zeros, "BatchNormalization": _batch_normalised, "Rescaling": _rescaled, "Normalization": _standardised,
         "Flatten": _flattened, "Dropout": _dropped, "SpatialDropout2D": _dropped, "ReLU": _rectified, "Softmax": _softmax,
         "Activation": _activated}


# --------------------------------------------------------------------------------------------------------------- engine
def _engine(path: Path, last: bool) -> Callable[[NDArray[np.float32], Sequence[str]], Mapping[str, NDArray[Any]]]:
    """Keras itself: (x (N,C,H,W), names) -> {name of a layer: its output, batch and channels first}."""
    def compute(x, names):
        """Outputs of the layers called `names`."""
        if find_spec("torch"):
            os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        wanted = [layer for layer in model.layers if layer.name in names]
        given = keras.Model(model.inputs, [layer.output for layer in wanted])(x.transpose(0, 2, 3, 1) if last else x, training=False)
        arrays = [keras.ops.convert_to_numpy(y) for y in (given if isinstance(given, (list, tuple)) else [given])]
        return {layer.name: y.transpose(0, 3, 1, 2) if last and y.ndim == 4 else y for layer, y in zip(wanted, arrays)}
    return compute
