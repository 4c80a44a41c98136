"""Keras: Sequential networks, and functional ones whose layers lie in a row, in HDF5 (.h5, of Keras 2 and 3) or a zip (.keras).

Kernels (K,K,C,F) and matrices (D,M) are turned here. Where maps are flattened the rows of the matrix behind them are in the
order H,W,C, for maps whose channels come first too. "same" is a padding of which an odd pixel lies behind. A layer's activation
is a node of its own. Keras is the engine, but only of a file that names no class beyond OWN: Keras makes whatever a file names,
and some of its own classes are programs too, Lambda and TorchModuleWrapper among them.
"""
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import anything, listed, mapping, parsed, said, text
from zfcore.hdf5 import Reader, open_h5, short
from zfcore.hints import FilePath
from zfcore.interchange.archive import open_archive
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Dropping, Flattening, Foreign, MaxPooling,
                                        Node, Padding, Probabilities, Rectifier, Unsupported, Window, in_a_row, nothing_beside,
                                        padding, unsupported)

MOST_CONFIG, MOST_LAYERS, MOST_DEPTH = 2**24, 1000, 8
MOST_PARTS = 100                  # groups and arrays in the group of a layer, which has its weights in one or two more
HINT = "pip install keras torch"
OBJECT = mapping(anything)
GROUPS = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization", "Normalization": "normalization"}
MODELS = ("Sequential", "Functional", "Model")
FLOATS = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64)

Arrays = Mapping[str, NDArray[Any]]


def read(path: FilePath, graph: FilePath | None = None, model: str | None = None) -> Foreign:
    """The network in the Keras file at `path`, which has all that it takes: `graph` and `model` must be None. Raises Expected
    for what is no such file or is damaged, and Unsupported, naming the layer, for what zfcore has no layer for."""
    path = Path(path)
    nothing_beside("a Keras file", graph, model)
    try:
        if path.suffix.lower() == ".keras":
            with open_archive(path) as archive:
                config = archive.bytes_of("config.json", MOST_CONFIG).decode("utf-8", "replace")
                with open_h5(path, member=archive.part("model.weights.h5")) as file:
                    return _network(path, config, _Numbered(file))
        with open_h5(path) as file:
            if file.attribute("format", anything, "") == "zfcore":
                raise check.Expected(path, "a network of Keras", "a checkpoint of zfcore's",
                                     f"it is opened as it is: --run {path}")
            config = file.attribute("model_config", text(MOST_CONFIG), "")
            if not config:
                raise check.Expected(path, "a network of Keras, with the attribute model_config", "none, weights alone perhaps",
                                     "save it by model.save(...)")
            weights = file.group("model_weights")
            return _network(path, config, lambda layer: _by_name(weights, layer))
    except OSError as error:
        raise check.Expected(path, "a file that can be read", error.strerror or error) from None


# -------------------------------------------------------------------------------------------------------------- weights
def _by_name(weights, layer):
    """{"kernel": array, ...} of a layer, in HDF5 as model.save wrote it: by the ends of their names, "a/b/kernel:0"."""
    group, wanted = weights, layer.variables()
    # one at a time: each is looked at, that no link leads out of the file
    for part in layer.name.split("/") if wanted else ():
        if part not in group:
            return {}
        group = group.group(part)
    return _leaves(group, wanted) if wanted else {}


def _leaves(group: Reader, wanted: Sequence[str]) -> Arrays:
    """The arrays called as `wanted` in a group and those within it. Raises Expected where two are called the same."""
    groups, parts, found = [group], 0, {}
    while groups:
        group = groups.pop()
        for name in group.names():
            if (parts := parts + 1) > MOST_PARTS:
                raise check.Expected(group.place(), f"at most {MOST_PARTS} groups and arrays of a layer", "more")
            key = name.partition(":")[0]
            if group.is_group(name):
                groups.append(group.group(name))
            elif key in found:
                raise check.Expected(group.place(name), f"one {key} of the layer", "another beside it")
            elif key in wanted and key != "count":
                found[key] = group.array(name, FLOATS, finite=True)
    return found


class _Numbered:
    """The arrays of a .keras `file`. Its groups are called after kinds of layers and numbered, dense, dense_1, as Keras comes
    to them, whatever the layers are called; so it is to be asked for all of them in their order."""

    def __init__(self, file: Reader) -> None:
        self._layers, self._seen = file.group("layers"), Counter()

    def __call__(self, layer: "_Layer") -> Arrays:
        if layer.kind not in GROUPS:
            return {}
        called = GROUPS[layer.kind]
        number, wanted = self._seen[called], layer.variables()
        self._seen[called] += 1
        called = f"{called}_{number}" if number else called
        if not wanted or called not in self._layers or "vars" not in (group := self._layers.group(called)):
            return {}
        found = group.group("vars")
        if (other := found.attribute("name", text(), layer.name)) != layer.name:
            raise check.Expected(found.place(), f"the weights of {layer.name}", f"those of {said(other)}")
        if sorted(found.names()) != [str(k) for k in range(len(wanted))]:
            raise layer.refuse(f"weights {', '.join(wanted)}", f"{len(found.names())} of them",
                               "quantised layers, if it is one")
        return {name: found.array(str(k), FLOATS, finite=True) for k, name in enumerate(wanted) if name != "count"}


# --------------------------------------------------------------------------------------------------------------- layers
def _network(path: Path, config: str, weights_of: Callable[["_Layer"], Arrays]) -> Foreign:
    """The Foreign of a model_config, whose layers' arrays `weights_of` gives."""
    model = parsed(f"{path}: model_config", config, OBJECT)
    kind, inner = model.get("class_name"), model.get("config")
    if kind not in MODELS:
        raise check.Expected(f"{path}: model_config", "a Sequential or Functional model", said(kind))
    rows = listed(OBJECT, MOST_LAYERS, 1)(f"{path}: layers", inner.get("layers") if isinstance(inner, dict) else inner)
    layers = [_Layer(path, row) for row in rows]
    shape = next((shape for layer in layers if (shape := layer.shape())), None)
    formats = {layer.order() for layer in layers} - {None}
    if shape is None or len(formats) > 1:
        raise check.Expected(f"{path}: model_config", "pictures (H,W,C) of a fixed size, and one order of axes",
                             f"none, and {len(formats)} orders" if shape is None else "several orders",
                             "save it with an Input layer")
    last = formats != {"channels_first"}
    C, H, W = (shape[2], *shape[:2]) if last else shape
    entering = [layer for layer in layers if layer.kind == "InputLayer"]
    if len(entering) > 1:
        raise entering[1].refuse("one input", f"{len(entering)}", "networks that branch")
    first = before = entering[0].name if entering else "input"
    nodes = []
    for layer in layers:
        if layer.kind != "InputLayer":
            nodes += _nodes(layer, layer.source(before if kind == "Sequential" else None), weights_of, last)
            before = layer.name
    outputs = [before] if kind == "Sequential" else list(_histories(inner.get("output_layers")))
    if len(outputs) != 1:
        raise unsupported(path, "output_layers", "one output", ", ".join(outputs)[:200] or "none", "networks of several heads")
    row = [node for node in in_a_row(path, nodes, first, outputs[0]) if not (isinstance(node, Dropping) and node.ratio == 0)]
    left_out = [one for layer in layers for one in (layer, *layer.inner()) if one.kind in ONLY_IN_TRAINING]
    notes = [f"{node.name}: means of the pixels that lie within the maps, as Keras on TensorFlow has them; on PyTorch it "
             f"repeats pixels of "
             "the border where the padding is uneven" for node in row
             if isinstance(node, AveragePooling) and node.window is not None and node.window.pads == "same_upper"]
    notes += [f"{layer.name}: {layer.kind} does nothing but in training, and is left out" for layer in left_out]
    foreign = Foreign("Keras", path, first, (C, H, W), row, notes=notes, engine_hint=_beyond_loading(path, model, layers) or HINT)
    if not row:
        raise check.Expected(f"{path}: model_config", "layers behind the pictures", "none")
    row[:] = _checked(path, row, layers, C, last)
    if foreign.engine_hint == HINT and find_spec("keras") and (find_spec("torch") or find_spec("tensorflow")
                                                               or find_spec("jax")):
        foreign.engine, foreign.engine_name = _engine(path, last), f"Keras {version('keras')}"
    return foreign


class _Layer:
    """A row of a model_config: the layer's kind, name and fields."""

    def __init__(self, path, row):
        self.path, self.row, self.kind = path, row, row.get("class_name")
        config = row.get("config")
        self.name = config.get("name", row.get("name")) if isinstance(config, dict) else None
        if (not isinstance(self.kind, str) or not isinstance(self.name, str) or len(self.name) > 1000
            or not self.name.isprintable()
                or {"", ".", ".."} & set(self.name.split("/"))):
            raise check.Expected(f"{path}: layers", "layers with class_name, config and a name that can be printed", said(row))
        self.config = config
        if self.kind in LAYERS and not _is_among(OWN, row):
            raise self.refuse("a layer of Keras's own", f"{said(row.get('registered_name'))} of {said(row.get('module'))}",
                              "a layer for it")

    def refuse(self, expected, got, needed=""):
        """The sentence about something that the layer has."""
        return unsupported(self.path, f"{self.name} ({self.kind})", expected, said(got) if not isinstance(got, str) else got,
                           needed)

    def inner(self):
        """The layers of a Sequential within the model, all of which work in training alone; () of another layer."""
        if self.kind not in MODELS:
            return ()
        rows = listed(OBJECT, MOST_LAYERS, 1)(f"{self.path}: {self.name}: layers", self.config.get("layers"))
        found = [_Layer(self.path, row) for row in rows]
        other = next((layer for layer in found if layer.kind not in ("InputLayer", *ONLY_IN_TRAINING)), None)
        if self.kind != "Sequential" or other is not None:
            raise Unsupported(f"{self.path}: {self.name} ({self.kind})", "within the model no other, but a Sequential of layers that work "
                              "in training alone", f"one with {other.name} ({other.kind})" if other else self.kind,
                              "put its layers into the model itself")
        return found

    def shape(self):
        """Shape of the pictures that enter, where the layer says it; None elsewhere."""
        found = next((self.config[key] for key in ("batch_shape", "batch_input_shape") if self.config.get(key)), None)
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != 4 or not all(type(n) is int and 0 < n <= 2**14 for n in found[1:]):
            raise self.refuse("pictures of three axes of fixed sizes", found)
        return found[1:]

    def order(self):
        """Order of its axes, None where it has none."""
        found = self.config.get("data_format")
        if found not in (None, "channels_first", "channels_last"):
            raise self.refuse("data_format channels_first or channels_last", found)
        return found

    def variables(self):
        """Names of its arrays, in the order in which Keras numbers them."""
        if self.kind in ("Conv2D", "Dense"):
            return ("kernel", "bias") if self.flag("use_bias") else ("kernel",)
        if self.kind == "BatchNormalization":
            of_config = [key for key, option in (("gamma", "scale"), ("beta", "center")) if self.flag(option)]
            return (*of_config, "moving_mean", "moving_variance")
        return ("mean", "variance", "count") if self.kind == "Normalization" and self.config.get("mean") is None else ()

    def flag(self, key):
        """True or false, as a field says; true where nothing does."""
        value = self.config.get(key, True)
        if not isinstance(value, bool):
            raise self.refuse(f"{key}, true or false", value)
        return value

    def source(self, before):
        """Name of the layer that it reads: the one `before` it in a Sequential model, else of its inbound nodes the only
        one."""
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
    """Names of the layers whose outputs stand in inbound_nodes, as Keras 2 ([name, 0, 0, {}]) or 3 (keras_history) writes
    them."""
    if depth > MOST_DEPTH:
        return
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


def _nodes(layer: _Layer, reads: str, weights_of: Callable[[_Layer], Arrays], last: bool) -> list[Node]:
    """The nodes of a layer, of which the last one gives what bears its name."""
    if old := {"dim_ordering", "output_dim", "nb_filter", "border_mode"} & layer.config.keys():
        raise layer.refuse("a layer of Keras 2 or 3",
                           f"one of Keras 1, which has {min(old)} and does not say whether its kernels are "
                           "turned round", "it loaded by Keras 1.2 or 2 and saved by Keras 2")
    if layer.inner():
        return [Dropping(layer.name, reads, layer.name, 0.0)]
    if layer.kind not in _MAKE:
        raise layer.refuse("a layer that zfcore has", layer.kind, "a layer for it, or networks that branch")
    activation = layer.config.get("activation", "linear") if layer.kind in ("Conv2D", "Dense", "Activation") else "linear"
    activation = "linear" if activation is None else activation
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise layer.refuse(f"one of the activations {', '.join(_ACTIVATIONS)}", activation, "a layer for it")
    behind = _ACTIVATIONS[activation]
    made = f"{layer.name}, before its activation" if behind else layer.name
    node = _MAKE[layer.kind](layer, weights_of(layer), layer.name, reads, made, last)
    found = [] if node is None else [node]
    if node is not None and layer.kind.startswith("Global") and not layer.config.get("keepdims"):
        node.gives = f"{layer.name}, a pixel each"
        found.append(Flattening(f"{layer.name}_flat", node.gives, made, "chw"))
    made = made if found else reads
    if behind:
        return [*found, behind(f"{layer.name}_{activation}" if found else layer.name, made, layer.name)]
    return found or [Dropping(layer.name, reads, layer.name, 0.0)]                 # it does nothing


_ACTIVATIONS: dict[Any, Any] = {"linear": None, "relu": Rectifier, "softmax": Probabilities}


def _kernel(layer, arrays, axes, count):
    """(kernel, bias or None), of so many axes, the last of which has as many numbers as the field `count` says."""
    for key in layer.variables():
        if key not in arrays:
            raise layer.refuse(f"weights called {key}", "none")
    kernel, bias = arrays["kernel"], arrays.get("bias")
    found, said_of_it = kernel.shape, layer.config.get(count)
    if kernel.ndim != axes or found[-1] != said_of_it or not kernel.size or bias is not None and bias.shape != found[-1:]:
        raise layer.refuse(f"a kernel of {axes} axes and a bias for {count} {said(said_of_it)}",
                           f"{found}, {getattr(bias, 'shape', 'none')}")
    return kernel, bias


def _convolution(layer, arrays, name, reads, gives, last):
    kernel, bias = _kernel(layer, arrays, 4, "filters")
    groups = layer.config.get("groups", 1)
    if type(groups) is not int or groups < 1:
        raise layer.refuse("groups, a whole number above 0", groups)
    window = layer.window(layer.pair("kernel_size"), layer.pair("strides", 1))
    if kernel.shape[:2] != window.K:
        raise layer.refuse(f"kernels of {window.K}", str(kernel.shape))
    return Convolution(name, reads, gives, np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias, window, groups)


def _dense(layer, arrays, name, reads, gives, last):
    kernel, bias = _kernel(layer, arrays, 2, "units")
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
    key, sign = ("cropping", -1) if layer.kind == "Cropping2D" else ("padding", 1)
    value = layer.config.get(key, 1)
    value = [[value]*2]*2 if type(value) is int else [[n, n] if type(n) is int else n for n in value] if isinstance(value, list) else None
    if not value or len(value) != 2 or not all(isinstance(n, list) and len(n) == 2
                                               and all(type(m) is int and 0 <= m <= 2**14 for m in n)
                                               for n in value):
        raise layer.refuse(f"{key}, whole numbers from 0", layer.config.get(key))
    (top, bottom), (left, right) = value
    return Padding(name, reads, gives, ((sign*top, sign*bottom), (sign*left, sign*right)))


def _batch_normalised(layer, arrays, name, reads, gives, last):
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in ((-1, 3) if last else (1,)):
        raise layer.refuse("a normalisation of each channel", f"axis {axis}")
    if missing := [key for key in layer.variables() if key not in arrays]:
        raise layer.refuse(f"weights called {', '.join(layer.variables())}", f"no {missing[0]}")
    mean, var = (np.asarray(arrays[key], np.float64) for key in ("moving_mean", "moving_variance"))
    gamma = np.asarray(arrays.get("gamma", np.ones(mean.shape)), np.float64)
    beta = np.asarray(arrays.get("beta", np.zeros(mean.shape)), np.float64)
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
    if C > 1 and not last:                                 # which are numbers for columns
        raise layer.refuse("one number for all, where channels come first", f"{C}")
    return Affine(name, reads, gives, scale, offset)


def _standardised(layer, arrays, name, reads, gives, last):
    axis = layer.config.get("axis", -1)
    axis = (*axis, None)[0] if isinstance(axis, list) and len(axis) < 2 else axis           # none: one number for all
    if layer.config.get("invert") or axis is not None and axis not in ((-1, 3) if last else (1,)):
        raise layer.refuse("a normalisation of each channel",
                           f"axis {said(axis)}" if not layer.config.get("invert") else "its inverse")
    given = [arrays.get(key, layer.config.get(key)) for key in ("mean", "variance")]
    try:
        mean, var = (np.array(value, np.float64).reshape(-1) for value in given)
        mean, var = np.broadcast_arrays(mean, var)
    except (TypeError, ValueError):
        raise layer.refuse("mean and variance of each channel", "none, or others") from None
    if not np.isfinite([mean, var]).all() or (var < 0).any():
        raise layer.refuse("finite means and variances from 0", "others")
    std = np.maximum(np.sqrt(var), 1e-7)
    return Affine(name, reads, gives, 1/std, -mean/std)


def _reshaped(layer, arrays, name, reads, gives, last):
    target = layer.config.get("target_shape")
    if not isinstance(target, list) or len(target) != 1:
        raise layer.refuse("maps that become a row of units", target, "layers that make maps of units")
    return _flattened(layer, arrays, name, reads, gives, last)


def _flattened(layer, arrays, name, reads, gives, last):
    return Flattening(name, reads, gives, "hwc")        # Keras turns maps whose channels come first, too


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
    return Probabilities(name, reads, gives)


def _passed(layer, arrays, name, reads, gives, last):
    return None


ONLY_IN_TRAINING = ("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness",
                    "GaussianNoise", "GaussianDropout")
_MAKE: dict[str, Callable[..., Node | None]]
_MAKE = {"Conv2D": _convolution, "Dense": _dense, "MaxPooling2D": _pooling(MaxPooling),
         "AveragePooling2D": _pooling(AveragePooling),
         "GlobalMaxPooling2D": _global_pooling(MaxPooling), "GlobalAveragePooling2D": _global_pooling(AveragePooling),
         "ZeroPadding2D": _zeros, "Cropping2D": _zeros, "BatchNormalization": _batch_normalised, "Rescaling": _rescaled,
         "Normalization": _standardised,
         "Flatten": _flattened, "Reshape": _reshaped, "Dropout": _dropped, "SpatialDropout2D": _dropped, "ReLU": _rectified,
         "Softmax": _softmax, "Activation": _passed, **dict.fromkeys(ONLY_IN_TRAINING, _passed)}


def _checked(path: Path, row: Sequence[Node], layers: Sequence[_Layer], C: int, last: bool) -> Iterator[Node]:
    """The nodes, of which a Dense that sees maps is a Convolution. Raises Expected for weights and factors of another number of
    channels than there are, and a softmax not over the classes."""
    axes = {layer.name: layer.config.get("axis", -1) for layer in layers if layer.kind == "Softmax"}
    count: int | None = C
    are_maps = True
    for node in row:
        if isinstance(node, Flattening):
            are_maps, count = False, count if node.order == "chw" else None         # of one pixel each
        elif isinstance(node, (Convolution, Dense)):
            found = node.w.shape[1]*(node.groups if isinstance(node, Convolution) else 1)
            if count not in (None, found):
                raise unsupported(path, node.name, f"weights for {count} channels", f"for {found}")
            count = len(node.w)
            if isinstance(node, Dense) and are_maps:
                if not last:
                    raise unsupported(path, node.name, "maps whose channels come last", "columns that it sums over")
                node = Convolution(node.name, node.reads, node.gives, node.w[:, :, None, None], node.b, Window((1, 1)))
        elif isinstance(node, Affine) and count is not None and node.scale.size not in (1, count):
            raise unsupported(path, node.name, f"1 or {count} numbers, one for each channel", node.scale.size)
        elif isinstance(node, Probabilities):
            axis, right = axes.get(node.name, -1), (-1, 1) if not are_maps else (-1, 3) if last else (1,)
            if axis not in right:
                raise unsupported(path, node.name, "a softmax over the classes", f"axis {said(axis)}")
        yield node


# --------------------------------------------------------------------------------------------------------------- engine
def _pairs(modules: Mapping[str | None, Iterable[str]]) -> set[tuple[object, object]]:
    """(module, class) of each, and (None, class), as Keras 2 has it."""
    return {(module, kind) for own, kinds in modules.items() for module in (own, None) for kind in kinds}


LAYERS = ("InputLayer", *_MAKE)
# The only objects that Keras is to make of what a file describes, and the models that they lie in.
OWN = _pairs({
    None: ("__keras_tensor__", "__tuple__"), "keras.layers": LAYERS, "keras": ("DTypePolicy",), "keras.dtype_policies": ("DTypePolicy",),
    "keras.initializers": ("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "LecunNormal", "LecunUniform",
                           "Ones", "Orthogonal", "OrthogonalInitializer", "RandomNormal", "RandomUniform", "TruncatedNormal",
                           "VarianceScaling", "Zeros"),
    "keras.regularizers": ("L1", "L2", "L1L2", "OrthogonalRegularizer"),
    "keras.constraints": ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")})
OUTERMOST = _pairs(dict.fromkeys(("keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential"), MODELS))


def _is_among(classes: set[tuple[object, object]], thing: Mapping[str, Any]) -> bool:
    """Return whether the class that is described is one of `classes`, and registered under no other name."""
    module, kind, registered = (thing.get(key) for key in ("module", "class_name", "registered_name"))
    return (isinstance(kind, str) and (module is None or isinstance(module, str)) and (module, kind) in classes
            and registered in (None, kind))


def _beyond_loading(path: Path, model: Mapping[str, Any], layers: Sequence[_Layer]) -> str:
    """A line about something for which Keras is not to load the file, or would compute it in other numbers; "" where there is
    none."""
    models = [model, *(layer.row for layer in layers if layer.inner())]
    strange = [one for one in models if not _is_among(OUTERMOST, one)]
    # what it was trained by Keras loads of no .keras
    left = [value for key, value in model.items() if key != "config" and (key != "compile_config" or path.suffix != ".keras")]
    if isinstance(config := model.get("config"), dict):
        left.append({key: value for key, value in config.items() if key != "layers"})
    for layer in layers:                                   # a model may be one of these, and nothing else
        left += layer.row.values() if layer.inner() else [layer.row]
    while left and not strange:
        thing = left.pop()
        if isinstance(thing, dict):
            if "class_name" in thing and not _is_among(OWN, thing):
                strange.append(thing)
            left += thing.values()
        elif isinstance(thing, list):
            left += thing
    if strange:
        return f"the file names {said(strange[0]['class_name'])}, which is beyond what Keras is given to load"
    for layer in (one for layer in layers for one in (layer, *layer.inner())):
        dtype = layer.config.get("dtype")
        dtype = dtype["config"].get("name") if isinstance(dtype, dict) and isinstance(dtype.get("config"), dict) else dtype
        if dtype not in (None, "float32"):
            return f"{layer.name}: Keras would compute it in {said(dtype)}"
    return ""


def _engine(path: Path, last: bool) -> Callable[[NDArray[np.float32], Sequence[str]], Mapping[str, NDArray[Any]]]:
    """Keras itself: (x (N,C,H,W), names) -> {name of a layer: its output, batch and channels first}."""
    def compute(x, names):
        """Outputs of the layers called `names`."""
        if find_spec("torch"):
            os.environ.setdefault("KERAS_BACKEND", "torch")
        try:
            import keras
            model = keras.models.load_model(path, compile=False, safe_mode=True)
            odd = keras.backend.backend() == "torch" and next(filter(_is_odd, model.layers), None)
            wanted = [layer for layer in model.layers[:model.layers.index(odd) if odd else None] if layer.name in names]
            if not wanted:
                return {}
            part = keras.Model(model.inputs[0], [layer.output for layer in wanted])
            given = part(x.transpose(0, 2, 3, 1) if last else x, training=False)
            arrays = [keras.ops.convert_to_numpy(y) for y in (given if isinstance(given, (list, tuple)) else [given])]
        except MemoryError:
            raise
        except Exception as error:                         # Keras answers a file that it does not take with many
            raise check.Expected(path, "a network that Keras computes too", short(error) or type(error).__name__) from None
        return {layer.name: y.transpose(0, 3, 1, 2) if last and y.ndim == 4 else y for layer, y in zip(wanted, arrays)}
    return compute


def _is_odd(layer: Any) -> bool:
    """Return whether it is an average pooling whose padding is uneven, where Keras on PyTorch repeats pixels of the border: of
    windows of two that changes no mean."""
    if type(layer).__name__ != "AveragePooling2D" or layer.padding != "same" or max(layer.pool_size) < 3:
        return False
    size = layer.input.shape[1:3] if layer.data_format == "channels_last" else layer.input.shape[2:4]
    return any(sum(pair) % 2 for pair in padding(Window(layer.pool_size, layer.strides, "same_upper"), size))
