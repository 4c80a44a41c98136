"""One picture as a network sees it: its classes, its strongest units with what in it excites them, and what hiding it does.

    look          arrays: probabilities, of each layer the strongest units with their projections, the occlusion
    projected     one unit of any layer, by any rule
    occluded      the occlusion alone, or the sentence that tells why there is none
    encoded       what `look` found as JSON can hold it, with pictures as files or data: addresses
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zfcore import check, plots
from zfcore.analysis.occlusion import Occlusion, check_square, occlusion, silent
from zfcore.analysis.top_activations import crops, field_boxes, field_regions
from zfcore.atlas.sheets import LOSSLESS, fitted, shown_side, webp
from zfcore.backend import runs_kernels, to_host
from zfcore.deconvnet import DECONVNET, check_units, descend, feature_layer, find_places, start_signal
from zfcore.files import file_names
from zfcore.network import Rules
from zfcore.ops.convert import in_float
from zfcore.ops.softmax_loss import softmax
from zfcore.trained import Trained

STRONGEST, LIKELIEST = 6, 10      # units of a layer, classes that are told
SIDE = 96                         # pixels to which a smaller tile is enlarged, each pixel to a square
QUICK = 3e11                      # multiply-adds of whole passes that two cores spare in about 2 s, see `quick_stride`

Keep: TypeAlias = Callable[[bytes, str], str]             # (a WebP file, its name without ending) -> the address that it gets


@dataclass(frozen=True)
class Strongest:
    """The k units of `layer` that one picture excites most, the strongest first. A unit that is 0 everywhere is not among them,
    so k may be 0.

    units         (k,)         int64
    values        (k,)         float32    the strongest activation
    boxes         (k,4)        int64      its receptive field: top, left, bottom, right in pixels of the network's input
    projections   (k,f,f,3)    float32    signed, cropped as those of `zfcore.analysis.top_activations.UnitViews`"""
    layer: str
    units: NDArray[np.int64]
    values: NDArray[np.float32]
    boxes: NDArray[np.int64]
    projections: NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """One picture as a network sees it.

    picture         (H,W,3) uint8      the centre crop
    probabilities   (M,) float32       of the classes; None of a network that ends in no scores
    layers          a Strongest of each layer that was asked for
    occlusion       None where there is none
    notes           sentences: what is not here, and why"""
    picture: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    layers: list[Strongest]
    occlusion: Occlusion | None = None
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------- arrays
def look(model: Trained, picture: NDArray[np.uint8], layers: Sequence[str], label: int | None = None, hide: bool = True,
         stride: int | None = None, most: int = STRONGEST) -> Look:
    """Look at a picture (s,s,3) of the model's `size`: one pass up for all layers, and one batch of projections down from each.

    layers          names, as `zfcore.deconvnet.feature_layer` takes them
    label, stride   the class whose P the occlusion follows, and how far its square moves; see `occluded`
    hide            False: without the occlusion, which takes by far the longest
    most            units of a layer

    Raises Expected for a picture of another size, a layer that there is not, and outputs that are not finite."""
    picture = check.pictures("picture", picture, (*model.mean.shape[1:], 3))
    network = model.network
    features = [feature_layer(network, layer) for layer in layers]
    x, caches, outputs = model.inputs(np.stack([picture]*most)), [], {}
    for k, (_, y, cache) in enumerate(network.steps(x)):
        caches.append(cache)
        if k in features:
            outputs[k] = in_float(y)
    y = in_float(y)
    check.finite(f"{network.name}: outputs", y)
    probabilities = to_host(softmax(y))[:, 0] if y.ndim == 2 else None
    found = [_strongest(network, layer, caches, outputs[k], most) for layer, k in zip(layers, features)]
    hidden, why = occluded(model, picture, label, stride) if hide else (None, "")
    _, H, W = network.input_shape
    margin = (picture.shape[0] - H)//2
    return Look(picture[margin:margin + H, margin:margin + W], probabilities, found, hidden, (why,) if why else ())


def _strongest(network, layer, caches, y, most):
    """The Strongest of a batch of equal pictures, at most so many."""
    values = to_host(y[..., 0]).reshape(len(y), -1).max(axis=1)
    units = np.argsort(-values, kind="stable")[:most]
    return _projected(network, layer, caches, y, units[values[units] != 0])


def _projected(network, layer, caches, y, units, rules=DECONVNET):
    """The Strongest of the units (k,), each projected from one of N >= k equal pictures, that left y (F,Ho,Wo,N) or (M,N)."""
    of_batch = np.resize(units, y.shape[-1])                                 # from each picture something
    places, values = find_places(y, of_batch)
    dy = start_signal(y, of_batch, places, values)
    pixels = descend(network, dy, caches[:feature_layer(network, layer) + 1], rules, places)
    boxes = field_boxes(network, layer, places)
    shown = crops(pixels, field_regions(network, layer, boxes))
    return Strongest(layer, units, *(array[:len(units)] for array in (to_host(values), boxes, shown)))


def projected(model: Trained, picture: NDArray[np.uint8], layer: str, unit: int, rules: Rules = DECONVNET) -> Strongest:
    """Project one unit of any layer back to a picture (s,s,3), by any rule: a Strongest of this unit alone, even where it is 0.
    Raises Expected for a layer or a unit that there is not, and an activation that is not finite."""
    network, picture = model.network, check.pictures("picture", picture, (*model.mean.shape[1:], 3))
    units = check_units(network, layer, [unit])
    y, caches = network.forward(model.inputs(picture[None]), until=network.layers[feature_layer(network, layer)].name)
    check.finite(f"{layer}: activations", y[units])
    return _projected(network, layer, caches, y, units, rules)


def occluded(model: Trained, picture: NDArray[np.uint8], label: int | None = None,
             stride: int | None = None) -> tuple[Occlusion | None, str]:
    """(the Occlusion of a picture (s,s,3), ""), or (None, the sentence that tells why this network has none).

    label     the class that is followed; None: the most probable one
    stride    pixels by which the square moves; None: the paper's 6 of 224"""
    try:
        check_square(model.network)
    except check.Expected as error:
        return None, f"No occlusion: {error}"
    return occlusion(model, picture[None], None if label is None else [label], stride=stride), ""


def quick_stride(model: Trained) -> int:
    """Stride of a square that crosses a picture in about two seconds, for who waits before a screen: the paper's, 6 of 224; on
    a CPU as often doubled as it takes until the places of the square, times the multiply-adds of a pass, are no more than
    QUICK. ZFNet at 224 pixels: 12. Raises Expected for a network that has no occlusion."""
    network = model.network
    square, side = check_square(network), min(network.input_shape[1:])
    if runs_kernels(model.mean):
        return square.stride
    work = sum(layer.multiply_adds(shape) for layer, shape in zip(network.layers, network.shapes))
    stride = square.stride
    while check_square(network, stride=stride).places*work > QUICK and stride < side - square.size:
        stride *= 2
    return stride


# ------------------------------------------------------------------------------------------------------------------ JSON
def encoded(found: Look, name: str, label: int, number: int | None, keep: Keep) -> dict[str, Any]:
    """A Look as the atlas' pages read it.

    name, label, number    of the picture; label -1 and number None: not known
    keep                   puts a picture somewhere, under a name such as "3", "3-conv5" or "3.map", and gives the address"""
    called = file_names([one.layer for one in found.layers])
    p = np.zeros(0, np.float32) if found.probabilities is None else found.probabilities
    likeliest = np.argsort(-p, kind="stable")[:LIKELIEST]
    return {"number": number, "name": name, "label": label, "side": found.picture.shape[0],
            "image": keep(webp(found.picture, found.picture.shape[0] <= LOSSLESS), f"{number}"),
            "probabilities": [[int(k), _short(p[k])] for k in likeliest],
            "layers": [_encoded_layer(one, keep, f"{number}-{its_name}") for one, its_name in zip(found.layers, called)],
            "occlusion": found.occlusion and encoded_occlusion(found.occlusion, keep, f"{number}.map"),
            "notes": list(found.notes)}


def _encoded_layer(one, keep, name):
    return {"name": one.layer, "units": one.units.tolist(), "values": _short(one.values), "boxes": one.boxes.tolist(),
            "sheet": keep(sheet(one.projections), name) if len(one.units) else None,
            "side": shown_side(one.projections.shape[1], _most(one.projections))}


def encoded_occlusion(found: Occlusion, keep: Keep, name: str) -> dict[str, Any]:
    """The Occlusion of one picture as the atlas' pages read it; its projection is kept under this name."""
    clean = {"p": _short(found.clean_probabilities[0]), "class": int(found.clean_classes[0]),
             "sum": _short(found.clean_sums[0])}
    return {"layer": found.layer, "unit": int(found.units[0]), "size": found.size, "stride": found.stride, "grey": found.grey,
            "tops": found.tops.tolist(), "lefts": found.lefts.tolist(), "label": int(found.labels[0]), "clean": clean,
            "silent": bool(silent(found)[0]), "p": _short(found.probabilities[0]), "class": found.most_probable[0].tolist(),
            "sums": _short(found.sums[0]),
            "projection": keep(sheet(found.projections), name)}


def _short(values):
    """Numbers of float32 as Python's, with no more digits than tell them apart."""
    if np.ndim(values):
        return [_short(value) for value in values]
    return float(str(np.float32(values)))


def sheet(projections: NDArray[np.float32]) -> bytes:
    """The WebP file of signed projections (k,f,f,3) in a row: 0 is mid-grey, each to its own scale, the pixels of small ones
    enlarged to squares."""
    tiles = fitted(np.stack([plots.signed_tiles(one) for one in projections]), _most(projections))
    return webp(np.concatenate(list(tiles), axis=1), projections.shape[1] <= LOSSLESS)


def _most(projections):
    """Pixels that a projection may have on the page: SIDE, or its own where it has more."""
    return max(SIDE, projections.shape[1])
