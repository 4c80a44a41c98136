"""Weights without a network: tensors with names, and the layers that somebody says they are of.

A file of weights alone does not tell how its layers lie. `--model` does: one of zfcore's models, whose classes and pictures'
size follow from the tensors, or a JSON file with a layer table. Tensors are matched to the layers with weights by their
names, those whose names are no layer's in the file's order, and every shape must fit.
"""
import json
import os
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
    by_order = _by_order(network, owners, groups, shapes)
    notes = [f"tensors of equal shapes: matched to layers by {'their order' if ordered else 'the order of their names'} alone: "
             + ", ".join(f"{layer} <- {next(iter(owners[layer].values()))}" for layer in by_order)] if by_order else []
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
            groups.setdefault(owner, {})[key] = name
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
    of_layers = wanted(network)
    if len(groups) != len(of_layers):
        return None
    by_name = _names_of(network, groups, shapes)
    left = [name for name in groups if name not in by_name.values()]
    if not ordered:
        left.sort(key=_natural)
    owners = {}
    for layer, needed in of_layers.items():
        name = by_name.get(layer)
        if name is None:
            name = left[0] if ordered else next((one for one in left if _fits(needed, groups[one], shapes)), None)
            if name is None:
                return None
            left.remove(name)
        if not _fits(needed, groups[name], shapes):
            return None
        owners[layer] = groups[name]
    return owners


def _names_of(network, groups, shapes):
    """{layer: the name of its Group} of the layers whose names the file has; {} where some, but not all, are called like
    layers that they do not fit: then the names say something else."""
    own = wanted(network)
    named = max((_called(names, groups) for names in ({name: name for name in own}, module_names(network))), key=len)
    named = {layer: name for layer, name in named.items() if layer in own}
    fit = len(set(named.values())) == len(named) and all(_fits(own[layer], groups[name], shapes) for layer, name in named.items())
    return named if fit or set(named) == set(own) else {}


def _called(names, groups):
    """{layer: the Group that is called as `names` say}: but for words with which all begin, as "module." and "_orig_mod.", or
    as no other one behind a dot."""
    shared = len(os.path.commonprefix([owner.split(".")[:-1] for owner in groups]))
    short = {".".join(owner.split(".")[shared:]): owner for owner in groups}
    found = {}
    for layer, name in names.items():
        ends = [owner for owner in groups if owner.endswith(f".{name}")]
        own = name if name in groups else short.get(name, ends[0] if len(ends) == 1 else None)
        if own is not None:
            found[layer] = own
    return found


def _by_order(network, owners, groups, shapes):
    """The layers whose tensors would fit another of them as well, and have no names that tell."""
    of_layers, named = wanted(network), _names_of(network, groups, shapes)
    unnamed = [layer for layer in of_layers if layer not in named]
    return [layer for layer in unnamed
            if any(_fits(of_layers[layer], owners[other], shapes) for other in unnamed if other != layer)]


def _fits(needed, group, shapes):
    """Return whether the tensors are those that a layer needs; biases, and the scale of a normalisation, may be missing."""
    optional = {"bias", "weight"} if "running_mean" in needed else {"bias"}
    return set(needed) - optional <= set(group) <= set(needed) and all(shapes[name] == needed[key]
                                                                       for key, name in group.items())


def _natural(name):
    return [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in re.findall(r"\d{1,18}|\D+", name)]


def _misfit(path, network, groups, shapes):
    """The sentence with the layers and the tensors that do not fit, beside each other."""
    of_layers, named = list(wanted(network).items()), _names_of(network, groups, shapes)
    rest = iter([name for name in groups if name not in named.values()])
    there = [(name, groups[name]) for layer, _ in of_layers if (name := named.get(layer) or next(rest, None)) is not None]
    there += [(name, groups[name]) for name in rest]
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
