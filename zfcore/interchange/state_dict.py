"""Weights without a network: tensors with names, and the layers that somebody says they are of.

A file of weights alone does not tell how its layers lie. `--model` does: one of zfcore's models, whose classes and pictures'
size follow from the tensors, or a JSON file with a layer table. Tensors are matched to the layers with weights in the file's
order, and every shape must fit.
"""
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import to_host
from zfcore.files import anything, choice, listed, mapping, parsed, read_json, said, table, text, whole
from zfcore.hints import Shape
from zfcore.interchange import foreign as to
from zfcore.interchange.foreign import Foreign, Window, for_kind, part_of
from zfcore.layers import (AvgPool, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm,
                           LocalResponseNormWithin, MaxPool, Pad, ReLU)
from zfcore.models import MODELS, NATIVE_SIZE, build, from_table
from zfcore.network import Network

Group = dict[str, str]                       # of one layer: {"weight": the tensor's name, "bias": ...}
FORM_INPUT, FORM_LAYERS = listed(whole(1, 2**14), 3, 3), listed(mapping(anything), 1000, 1)
FORM = table({"input": FORM_INPUT, "layers": FORM_LAYERS})
SIZES = range(8, 513)                        # pixels a side that are tried
SHOWN = 8                                    # layers that a sentence lists
ABOUT, MEAN = "zfcore", "mean_image"         # what stands in files that zfcore writes beside the weights
OF_OURS = table({"version": choice(1), "input": FORM_INPUT, "layers": FORM_LAYERS, "classes": listed(text(), 10**6)})


@dataclass
class Weights:
    """Contents of a file of weights.

    shapes, numbers   {name: shape} of its tensors, and a function that gives one's numbers
    by_torch, needs   a function that gives {name: torch.Tensor}, as torch reads the file, and the packages that it takes
    ordered           whether the tensors stand in the order of the layers; else that of their names is taken, shape by shape
    about, mean       what zfcore wrote into it beside them: a JSON text, and the mean picture (3,S,S)"""
    shapes: dict[str, Shape]
    numbers: Callable[[str], NDArray[Any]]
    by_torch: Callable[[], Mapping[str, Any]]
    needs: tuple[str, ...] = ("torch",)
    ordered: bool = True
    about: str | None = None
    mean: NDArray[Any] | None = None


def foreign(form: str, path: Path, weights: Weights, model: str | None) -> Foreign:
    """The network `model`, a name of MODELS or a JSON file, with the Weights of the file at `path`. A file of zfcore's says
    itself what network it is, what classes it has and how it sees pictures.

    Raises Expected where the shapes are not those of the layers, with both beside each other; where no model is given, with
    what is in the file."""
    shapes, numbers, ordered = weights.shapes, weights.numbers, weights.ordered
    groups = grouped(shapes)
    labels, seen = None, {}
    if model is None and weights.about is not None:
        network, labels, seen = _ours(path, weights)
        owners = _matched(network, groups, shapes, ordered)
    elif model is None:
        raise check.Expected(f"--model for {path}",
                             "one of zfcore's models, or a JSON file with a layer table, as the file holds weights alone",
                             _in_words(groups, shapes))
    else:
        network, owners = _named(model, groups, shapes, ordered) if model in MODELS else _of_table(model, groups, shapes, ordered)
    if owners is None:
        raise _misfit(path, network, groups, shapes)
    nodes, at = [], "input"
    for layer in network.layers:
        of_layer = {key: numbers(name) for key, name in owners.get(layer.name, {}).items()}
        nodes.append(for_kind(_NODES, layer, path)(layer, (layer.name, at, layer.name), of_layer))
        at = layer.name
    by_name = ordered or _names_of(network, groups) is not None
    notes = [] if by_name else ["tensors: matched to layers by shape, and by the order of their names"]
    torch = all(map(_version, weights.needs)) and _version("torch")
    return Foreign(form, path, "input", network.input_shape, nodes, labels, seen, notes=notes,
                   engine_hint=f"pip install {' '.join(weights.needs)}",
                   engine_name=f"PyTorch {torch}" if torch else "",
                   engine=_engine(network, owners, weights.by_torch) if torch else None)


def _version(package):
    """Version of an installed package; "" of another."""
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return ""


# ----------------------------------------------------------------------------------------------------- what zfcore writes
def module_names(network: Network) -> dict[str, str]:
    """{layer: its name as a module of PyTorch}: letters, digits and "_", with a digit in it, as no attribute of a module has,
    and no other layer's."""
    names: dict[str, str] = {}
    for number, layer in enumerate(network.layers, 1):
        name = re.sub(r"\W", "_", layer.name, flags=re.ASCII)
        names[layer.name] = name if re.search(r"\d", name) and name not in names.values() else f"{name}_{number}"
    return names


def tensors(network: Network) -> dict[str, NDArray[np.float32]]:
    """{"conv1.weight": (F,C/groups,K,K), "fc6.weight": (M,D), ...}: the parameters as PyTorch names and turns them. Raises
    Expected for a kind of layer that is not read again."""
    found, names = {}, module_names(network)
    for layer in network.layers:
        for_kind(_NODES, layer, network.name)
        ours = {"weight": "w", "bias": "b"} if layer.has_weights else {"weight": "gamma", "bias": "beta",
                                                                       "running_mean": "mean", "running_var": "var"}
        arrays = {**layer.parameters, **layer.buffers}
        for theirs, key in ours.items():
            if key in arrays:
                array = to_host(arrays[key])
                found[f"{names[layer.name]}.{theirs}"] = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return found


def about(network: Network, classes: Sequence[str]) -> str:
    """Text that is written beside the weights: the layer table and the classes, as JSON."""
    return json.dumps({"version": 1, "input": list(network.input_shape), "layers": network.table(), "classes": list(classes)})


def _ours(path, weights):
    """(network, labels, preprocessing) of a file of zfcore's."""
    where = f"{path}: {ABOUT}"
    found = parsed(where, weights.about, OF_OURS)
    with part_of(where):
        network = from_table("network", found["input"], found["layers"])
    mean = weights.mean
    if mean is None:
        return network, found["classes"] or None, {"channels": "rgb", "mean": np.zeros(3), "scale": np.ones(3)}
    check.shape(f"{path}: {MEAN}", mean, (3, None, None))
    if mean.shape[1] != mean.shape[2] or mean.shape[1] < max(network.input_shape[1:]):
        raise check.Expected(f"{path}: {MEAN}", "a square picture, no smaller than what enters", mean.shape)
    return network, found["classes"] or None, {"channels": "rgb", "mean": mean.astype(np.float64), "scale": np.ones(3),
                                               "size": mean.shape[1]}


# -------------------------------------------------------------------------------------------------- whose tensors they are
def grouped(shapes: Mapping[str, Shape]) -> dict[str, Group]:
    """{name of a layer: {"weight": name of its tensor, "bias": ...}}, in the file's order, of names such as
    "features.0.weight"."""
    groups: dict[str, Group] = {}
    for name in shapes:
        owner, _, key = name.rpartition(".")
        if key != "num_batches_tracked":
            groups.setdefault(owner.removeprefix("module."), {})[key] = name
    return groups


def _named(model, groups, shapes, ordered):
    """(network, {layer: Group} or None) of one of MODELS, for as many classes as the weights have, and for its native size, or
    the one size that fits."""
    weights = [shapes[group["weight"]] for group in groups.values() if len(shapes.get(group.get("weight"), ())) in (2, 4)]
    counts = list(dict.fromkeys(shape[0] for shape in reversed(weights) if 2 <= shape[0] <= 2**24)) or [2]
    for classes in counts[:1] if ordered else counts:
        network = build(model, classes)
        if (owners := _matched(network, groups, shapes, ordered)) is not None:
            return network, owners
    classes, fits = counts[0], []
    for size in SIZES:
        try:
            network = build(model, classes, size)
        except check.Expected:                             # too small for the windows
            continue
        if (owners := _matched(network, groups, shapes, ordered)) is not None:
            fits.append((network, owners))
    if len(fits) > 1:
        small, large = fits[0][0].input_shape[1], fits[-1][0].input_shape[1]
        raise check.Expected(f"--model {model}",
                             f"weights for pictures of {NATIVE_SIZE.get(model, 224)} pixels, or of one size alone",
                             f"weights that fit all from {small} to {large}",
                             "write the layer table with its input into a JSON file")
    return fits[0] if fits else (build(model, classes), None)


def _of_table(model, groups, shapes, ordered):
    try:
        found = read_json(model, FORM)
    except OSError as error:
        known = ", ".join(name for name in MODELS if "-" not in name)
        raise check.Expected("--model", f"{known} or another of zfcore's models, or a JSON file with a layer table",
                             f"{said(model)} ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, check.Expected):
            raise
        raise check.Expected("--model", "a name or path", said(model)) from None
    with part_of(model):
        network = from_table(Path(model).stem[:60] or "network", found["input"], found["layers"])
    return network, _matched(network, groups, shapes, ordered)


def wanted(network: Network) -> dict[str, dict[str, Shape]]:
    """{layer: {"weight": shape, ...}} of the layers with parameters, as PyTorch names and turns them."""
    of = {}
    for name, arrays in network.parameter_shapes().items():
        if "w" in arrays:
            *taps, F = arrays["w"]
            of[name] = {"weight": (F, *taps), "bias": (F,)}
        else:
            of[name] = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), arrays["gamma"])
    return of


def _matched(network, groups, shapes, ordered):
    """{layer: Group} of the layers with parameters; None where the tensors are not theirs."""
    of_layers, left = wanted(network), dict(groups)
    by_name = _names_of(network, groups)
    if not ordered:
        left = dict(sorted(groups.items(), key=lambda item: _natural(item[0])))
    owners = {}
    for layer, needed in of_layers.items():
        if by_name is not None:
            name = by_name[layer]
        elif ordered:
            name = next(iter(left), None)
        else:
            name = next((one for one, group in left.items() if _fits(needed, group, shapes)), None)
        if name is None or not _fits(needed, left[name], shapes):
            return None
        owners[layer] = left.pop(name)
    return None if left else owners


def _names_of(network, groups):
    """{layer: what the tensors of that name belong to}, where all are called as the layers are; else None."""
    own = wanted(network)
    for names in ({name: name for name in own}, module_names(network)):
        if {names[layer] for layer in own} == set(groups):
            return names
    return None


def _fits(needed, group, shapes):
    """Return whether the tensors are those that a layer needs; biases, and the scale of a normalisation, may be missing."""
    optional = {"bias", "weight"} if "running_mean" in needed else {"bias"}
    return set(needed) - optional <= set(group) <= set(needed) and all(shapes[name] == needed[key]
                                                                       for key, name in group.items())


def _natural(name):
    return [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in re.findall(r"\d{1,18}|\D+", name)]


def _misfit(path, network, groups, shapes):
    """The sentence with the layers and the tensors that do not fit, beside each other."""
    of_layers, there = list(wanted(network).items()), list(groups.items())
    pairs = []
    for k in range(max(len(of_layers), len(there))):
        layer, needed = of_layers[k] if k < len(of_layers) else ("no layer", {})
        name, group = there[k] if k < len(there) else ("nothing", {})
        if not (needed and group and _fits(needed, group, shapes)):
            pairs.append((f"{layer} {_size(needed.get('weight'))}".strip(), _in_words({name: group}, shapes)))
    shown = "; ".join(f"{ours}: {theirs}" for ours, theirs in pairs[:SHOWN]) + ("; ..." if len(pairs) > SHOWN else "")
    return check.Expected(f"{path} as {network.name}", "tensors that fit the layers, in their order",
                          f"{len(pairs)} that do not ({shown})", "a JSON file with the layer table can say how the layers lie")


def _in_words(groups, shapes):
    """Names and shapes of the tensors, in short."""
    words = []
    for name, group in groups.items():
        is_prelu = set(group) == {"weight"} and len(shapes[group["weight"]]) == 1
        extra = " (as of a PReLU)" if is_prelu else "" if set(group) <= {"weight", "bias"} else f" ({', '.join(sorted(group))})"[:60]
        words.append(f"{name[:60]} {_size(shapes[group['weight']]) if 'weight' in group else ''}".strip() + extra)
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "") or "no tensors"


def _size(shape):
    return "x".join(map(str, shape)) if shape else ""


# ---------------------------------------------------------------------------------------------------------- as nodes
def _window(layer):
    return Window((layer.K, layer.K), (layer.S, layer.S), ((layer.P, layer.P), (layer.P, layer.P)), layer.rounding)


def _affine(layer, names, of):
    """A batch normalisation by its running statistics, in float64."""
    mean, var = (of[key].astype(np.float64) for key in ("running_mean", "running_var"))
    if not (var >= 0).all():
        raise check.Expected(f"{layer.name}: running_var", "numbers from 0 on", "negative ones, or NaN")
    scale = of.get("weight", np.float64(1))/np.sqrt(var + layer.eps)
    return to.Affine(*names, scale, of.get("bias", np.float64(0)) - mean*scale)


def _response_norm(region):
    return lambda layer, names, of: to.ResponseNorm(*names, layer.n, layer.alpha, layer.beta, layer.k, layer.convention, region)


_NODES: dict[type[Layer], Callable[[Any, tuple[str, str, str], Mapping[str, NDArray[Any]]], to.Node]]
_NODES = {
    Conv: lambda layer, names, of: to.Convolution(*names, of["weight"], of.get("bias"), _window(layer), layer.groups),
    Linear: lambda layer, names, of: to.Dense(*names, of["weight"], of.get("bias")),
    MaxPool: lambda layer, names, of: to.MaxPooling(*names, _window(layer)),
    AvgPool: lambda layer, names, of: to.AveragePooling(*names, layer.K and _window(layer), layer.borders),
    ReLU: lambda layer, names, of: to.Rectifier(*names),
    LocalResponseNorm: _response_norm("across"), LocalResponseNormWithin: _response_norm("within"),
    BatchNorm: _affine,
    Flatten: lambda layer, names, of: to.Flattening(*names),
    Dropout: lambda layer, names, of: to.Dropping(*names, 1 - layer.keep_prob),
    Pad: lambda layer, names, of: to.Padding(*names, ((layer.top, layer.bottom), (layer.left, layer.right)))}


# ------------------------------------------------------------------------------------------------------ as torch computes
def _engine(network, owners, by_torch):
    """The function of `Foreign.engine`: every layer by torch.nn.functional, with tensors that torch has read itself."""
    def engine(x, names):
        import torch
        tensors = by_torch()
        y, given = torch.from_numpy(np.array(x, np.float32)), {}
        with torch.no_grad():
            for layer, of_layer, out in zip(network.layers, [owners.get(layer.name, {}) for layer in network.layers],
                                            network.shapes[1:]):
                y = _TORCH[type(layer)](torch.nn.functional, layer, y,
                                        {key: tensors[name].float() for key, name in of_layer.items()}, out)
                if layer.name in names:
                    given[layer.name] = y.numpy().copy()
        return given
    return engine


def _framed(F, layer, y, out, value=0.0):
    """y with the padding around it, and behind it as much as the last window reaches over or as it leaves."""
    behind = [(count - 1)*layer.S + layer.K - size - layer.P for count, size in zip(out[1:], y.shape[2:])]
    return F.pad(y, (layer.P, behind[1], layer.P, behind[0]), value=value)


def _avg_pool(F, layer, y, of, out):
    if layer.K is None:
        return y.mean(dim=(2, 3), keepdim=True)
    ones = y.new_ones(1, 1, *y.shape[2:])
    inside = {"inside": ones, "padded": None, "clipped": F.pad(ones, (layer.P,)*4, value=1.0)}[layer.borders]
    framed, K, S = _framed(F, layer, y, out), layer.K, layer.S
    if inside is None:
        return F.avg_pool2d(framed, K, S)
    if layer.borders == "clipped":
        inside = F.pad(inside, (0, framed.shape[3] - inside.shape[3], 0, framed.shape[2] - inside.shape[2]))
    else:
        inside = _framed(F, layer, inside, out)
    return F.avg_pool2d(framed, K, S)/F.avg_pool2d(inside, K, S)


def _within(F, layer, y, of, out):
    squares = F.avg_pool2d(y*y, layer.n, 1, layer.n//2)*(layer.n**2 if layer.convention == "sum" else 1)
    return y/(layer.k + layer.alpha*squares)**layer.beta


_TORCH = {
    Conv: lambda F, layer, y, of, out: F.conv2d(_framed(F, layer, y, out), of["weight"], of.get("bias"), layer.S, 0, 1,
                                                layer.groups),
    Linear: lambda F, layer, y, of, out: F.linear(y, of["weight"], of.get("bias")),
    MaxPool: lambda F, layer, y, of, out: F.max_pool2d(_framed(F, layer, y, out, -np.inf), layer.K, layer.S),
    AvgPool: _avg_pool,
    ReLU: lambda F, layer, y, of, out: F.relu(y),
    LocalResponseNorm: lambda F, layer, y, of, out: F.local_response_norm(
        y, layer.n, layer.alpha*(layer.n if layer.convention == "sum" else 1), layer.beta, layer.k),
    LocalResponseNormWithin: _within,
    BatchNorm: lambda F, layer, y, of, out: F.batch_norm(y, of["running_mean"], of["running_var"], of.get("weight"),
                                                         of.get("bias"), eps=layer.eps),
    Flatten: lambda F, layer, y, of, out: y.flatten(1),
    Dropout: lambda F, layer, y, of, out: y,
    Pad: lambda F, layer, y, of, out: F.pad(y, (layer.left, layer.right, layer.top, layer.bottom))}
