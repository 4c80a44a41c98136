"""Floor 6: the pictures that excite each unit most, and what in them does (paper, section 4 and figure 2).

    top_activations   one pass over a data set: for every unit of the chosen layers the k strongest pictures
    merge             the passes over several shards as one
    unit_views        of some units the projections and the picture patches, cropped to the unit's receptive field

The paper says neither whether one picture may count twice nor which crop was shown: here a picture counts once, with its
strongest place, and the network sees its centre crop. On the way up only the maximum of each map is asked for; where it
lies is looked up for the few pictures that enter a unit's list, so the pass costs hardly more than the forward.
"""
import hashlib
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zfcore import check, results
from zfcore.backend import to_device, to_host
from zfcore.data.loader import Pictures
from zfcore.data.transforms import CorruptImage
from zfcore.deconvnet import DECONVNET, check_layers, check_units, feature_layer, project
from zfcore.files import numbered
from zfcore.hints import Bar, FilePath, Ints
from zfcore.network import Rules
from zfcore.ops.convert import in_float
from zfcore.ops.strongest import Lists, strongest
from zfcore.ops.window import Regions, cut
from zfcore.terminal import plural
from zfcore.trained import Trained, arrays_of, check_pass_of

MID_GREY = 128


@dataclass(frozen=True, eq=False)
class TopActivations:
    """The k pictures that excite each unit most, strongest first; a tie goes to the earlier picture.

    values        {layer: (units,k) float32}    the activation
    pictures      {layer: (units,k) int64}      index in the data set. -1: no further picture makes the unit fire; its
                                                value is then 0, its place and box -1
    places        {layer: (units,k,2) int64}    row and column in the map; 0, 0 in a fully connected layer
    boxes         {layer: (units,k,4) int64}    the receptive field: top, left, bottom, right, in pixels of the network's
                                                input, bottom and right exclusive; it may lie over the border
    ranges        (m,2) int64                   the pictures that were looked at, first and last + 1
    total         pictures in the data set
    fingerprint   of network, data and settings: what may be merged or continued. Its first word is that of network and data
                  alone, whose pictures and places these are"""
    FORM = {"values": "{layer} float32 U k finite", "pictures": "{layer} int64 U k -1..total-1",
            "places": "{layer} int64 U k 2 -1..", "boxes": "{layer} int64 U k 4", "ranges": "int64 r? 2 0..total",
            "total": "int 1..", "fingerprint": "text"}
    values: dict[str, NDArray[np.float32]]
    pictures: dict[str, NDArray[np.int64]]
    places: dict[str, NDArray[np.int64]]
    boxes: dict[str, NDArray[np.int64]]
    ranges: NDArray[np.int64]
    total: int
    fingerprint: str

    @property
    def complete(self) -> bool:
        return self.ranges.tolist() == [[0, self.total]]

    def first(self, k: int, layer: str) -> "TopActivations":
        """The pass with the k strongest pictures of each unit of one layer."""
        kept = {name: {layer: getattr(self, name)[layer][:, :k]} for name in ("values", "pictures", "places", "boxes")}
        return replace(self, **kept)

    def dead(self, layer: str) -> NDArray[np.bool_]:
        """(units,) bool: the units that no picture made fire."""
        return self.pictures[layer][:, 0] < 0


# ------------------------------------------------------------------------------------------------------- the pass
def top_activations(model: Trained, pictures: Pictures, layers: Sequence[str], k: int = 9, *, batch_size: int = 64,
                    shard: tuple[int, int] = (1, 1), file: FilePath | None = None, every: float = 60.0,
                    bar: Bar | None = None) -> TopActivations:
    """One pass over `pictures`, or over shard (i, n), the i-th of n.

    layers  names as in `deconvnet.feature_layer`: "conv1" is the map after its ReLU
    file    where the pass is kept, at its end and `every` so many seconds. If the file is there, the pass goes on from it
            and ends with the same bits as if it had never stopped; if it is complete, it is read and nothing is computed
            It is known again by the network's table and arrays and by the pictures, not by what a layer of one's own does: where
            the code of one is changed, remove the file
    bar     moved on by one a picture

    Shards are cut between batches, so the merged shards are the single pass to the bit.
    Raises Expected for a layer that there is not, an empty data set, activations that are not finite, or a file of another
    network, data set or setting."""
    batch_size, k = check_pass_of(model, pictures, batch_size), check.whole("k", k)
    check.number("every", every)
    if file is not None:
        check.instance("file", file, (str, os.PathLike))
    network, (first, stop) = model.network, shard_range(shard, len(pictures), batch_size)
    layers = check_layers(network, layers)
    found = _start(model, pictures, layers, k, batch_size, first)
    if file is not None and Path(file).exists():
        found = _continued(results.load(file, TopActivations), found, file, model, pictures)
    start = int(found.ranges[0, 1])
    if bar is not None:
        bar.update(start - first)
    if start >= stop:
        return found

    best = {name: _to_lists(found, name, network, like=model.mean) for name in found.values}
    wanted = {}                                          # {layer whose output is asked for: names it is asked by}
    for name in best:
        wanted.setdefault(network.layers[feature_layer(network, name)].name, []).append(name)
    until = max(wanted, key=network.index)
    saved, strange = time.monotonic(), 0                 # activations of the highest layer that are not finite
    for batch, _, indices in pictures.batches(batch_size, 0, 0, shuffle=False, start=start//batch_size):
        if not len(indices):                             # all damaged
            continue
        if indices[0] >= stop:
            break
        for layer, y, _ in network.steps(model.inputs(batch), until=until):
            for name in wanted.get(layer.name, ()):
                strongest(best[name], y, indices)
        strange = strange + (~np.isfinite(in_float(y))).sum()            # on a device: nothing waits for it
        done = min((indices[-1]//batch_size + 1)*batch_size, stop)
        if bar is not None:
            bar.update(done - start)
        start = done
        if file is not None and time.monotonic() - saved >= every and done < stop:
            check_none_strange(until, strange)
            results.save(file, _from_lists(best, found, network, done))
            saved = time.monotonic()
    check_none_strange(until, strange)
    found = _from_lists(best, found, network, stop)
    if file is not None:
        results.save(file, found)
    return found


def check_none_strange(layer, strange):
    """Raise Expected where activations were not finite: no list would tell, as NaN enters none."""
    if count := int(strange):
        raise check.Expected(f"{layer}: activations", "finite values", f"{count} NaN or infinite")


def shard_range(shard, count, batch_size):
    """(first, last + 1) of the pictures in shard i of n: whole batches, but for the last of all."""
    shard = check.whole_numbers("shard", shard)
    check.shape("shard", shard, (2,))
    i, n = shard.tolist()
    if not 1 <= i <= n:
        raise check.Expected("--shard", "i/n with i from 1 to n", f"{i}/{n}")
    batches = -(-count//batch_size)
    return batches*(i - 1)//n*batch_size, min(batches*i//n*batch_size, count)


def _never_negative(network, name):
    """Return whether the layer's outputs come out of a ReLU, perhaps through pools and norms: then only above 0 a unit
    fires."""
    way_down = reversed(network.layers[:feature_layer(network, name) + 1])
    return next((layer.rectifies for layer in way_down if not layer.keeps_positive), False)


def _start(model, pictures, layers, k, batch_size, first):
    """The TopActivations of no picture at all."""
    sizes = {name: model.network.shapes[feature_layer(model.network, name) + 1][0] for name in layers}
    empty_lists = [{name: np.full((count, k, *more), fill, dtype) for name, count in sizes.items()}
                   for more, fill, dtype in (((), 0, np.float32), ((), -1, np.int64),            # values, pictures
                                             ((2,), -1, np.int64), ((4,), -1, np.int64))]        # places, boxes
    return TopActivations(*empty_lists, np.array([[first, first]]), len(pictures),
                          fingerprint(model, pictures, k, batch_size))


def fingerprint(model, pictures, k, batch_size):
    """All that the bits of a pass depend on, but for the layers and the shard, in words."""
    precisions = sorted({layer.precision for layer in model.network.weighted} - {"fp32"})        # passes from before know none
    return " ".join([seen(model, pictures), f"k {k} batch {batch_size}", *precisions])


def seen(model, pictures, key=Pictures.key):
    """A digest of a network and the pictures that it sees, which are known by this `key`."""
    digest = hashlib.sha256(json.dumps([model.network.input_shape, model.network.table(), key(pictures),
                                        len(pictures), pictures.size]).encode())
    for array in arrays_of(model):
        digest.update(array)
    return digest.hexdigest()


def pass_file(path, model, pictures, layers, k=9, batch_size=64):
    """File to keep such a pass in: `path`; where that holds another pass, of other layers or pictures, say, path_2, path_3,
    ..., the first that is free or holds this one."""
    for file in (numbered(path, number) for number in itertools.count(1)):
        if not file.exists():
            return file
        kept = results.load(file, TopActivations)
        try:
            _continued(kept, _start(model, pictures, layers, k, batch_size, first=0), file, model, pictures)
            return file
        except check.Expected:
            continue


def check_pass(found, model, pictures, layers, k, batch_size, what):
    """Raise Expected unless `found`, which `what` names, is a pass over all of these pictures with this network."""
    _continued(found, _start(model, pictures, layers, k, batch_size, first=0), what, model, pictures)
    if not found.complete:
        raise check.Expected(what, f"all of {plural(found.total, 'picture')}", f"the pictures {_spoken(found.ranges)}")


def check_top(top, model, pictures, layer, batch_size):
    """`batch_size` as an int. Raise Expected unless `top` is of a pass of this network over these pictures, in whatever batches,
    and has the layer."""
    batch_size = check_pass_of(model, pictures, batch_size)
    check.instance("top", top, TopActivations, "top_activations makes one")
    if all(top.fingerprint.split(" ")[0] != seen(model, pictures, key) for key in (Pictures.key, Pictures.key_before)):
        raise check.Expected("top", "the pass of this network over these pictures", "one of another network or data set",
                             "make it anew with top_activations")
    check.one_of("layer", layer, top.values)
    return batch_size


def _continued(kept, wanted, file, model, pictures):
    """Contents of the file for the pass `wanted`, the layers in its order; Expected where it holds another pass, or one that
    says what no pass over this network can."""
    advice = "remove it, or choose another output"
    settings = wanted.fingerprint.partition(" ")[2]
    if (kept.fingerprint != wanted.fingerprint
            and kept.fingerprint != f"{seen(model, pictures, Pictures.key_before)} {settings}"):
        raise check.Expected(file, "a pass of this network over these pictures",
                             "one of another network, data set, k, batch size or precision", advice)
    missing = [name for name in wanted.values if name not in kept.values]
    if missing:
        raise check.Expected(file, f"a pass with the layers {', '.join(wanted.values)}",
                             f"one with {', '.join(kept.values)}", advice)
    if len(kept.ranges) != 1 or kept.ranges[0, 0] != wanted.ranges[0, 0]:
        raise check.Expected(file, f"a pass from picture {wanted.ranges[0, 0]} on",
                             f"the pictures {_spoken(kept.ranges)}", advice)
    for name in wanted.values:
        same = kept.values[name].shape == wanted.values[name].shape and kept.total == wanted.total
        if not (same and _possible(kept, name, model.network)):
            raise check.Expected(f"{file}: {name}", "places in its maps, with their fields, a list for each unit", "others",
                                 advice)
    return replace(kept, fingerprint=wanted.fingerprint)


def _possible(kept, name, network):
    """Return whether the places of a pass lie in the maps of the layer, the boxes around them, and both are -1 where no picture
    is."""
    filled, places = kept.pictures[name] >= 0, kept.places[name]
    size = np.array(network.shapes[feature_layer(network, name) + 1][1:] or (1, 1))
    return bool((places < size).all() and ((places >= 0) == filled[..., None]).all() and
                (kept.boxes[name] == np.where(filled[..., None], field_boxes(network, name, places), -1)).all())


def _spoken(ranges):
    return ", ".join(f"{first} to {last - 1}" for first, last in ranges)


def _to_lists(found, name, network, like):
    """The lists of a layer on the device; an empty entry has the value that any firing picture beats."""
    width = network.shapes[feature_layer(network, name) + 1][-1]
    values, pictures, places = found.values[name], found.pictures[name], found.places[name]
    lowest = np.float32(0 if _never_negative(network, name) else -np.inf)
    flat = places[..., 0]*width + places[..., 1]
    return Lists(*(to_device(array, like=like) for array in (np.where(pictures < 0, lowest, values), pictures, flat)))


def _from_lists(best, found, network, done):
    """The TopActivations of lists that hold the pictures from the first of `found` up to `done`."""
    values, pictures, places, boxes = {}, {}, {}, {}
    for name, lists in best.items():
        of_values, pictures[name], flat = map(to_host, lists)
        filled = pictures[name] >= 0
        shape = network.shapes[feature_layer(network, name) + 1]
        here = np.stack(np.divmod(flat, shape[-1]) if len(shape) == 3 else (0*flat, 0*flat), axis=-1)
        values[name] = np.where(filled, of_values, 0).astype(np.float32)
        places[name] = np.where(filled[..., None], here, -1)
        boxes[name] = np.where(filled[..., None], field_boxes(network, name, here), -1)
    ranges = np.array([[found.ranges[0, 0], done]])
    return TopActivations(values, pictures, places, boxes, ranges, found.total, found.fingerprint)


def field_boxes(network, layer, places):
    """The receptive field of units at `places` (...,2) -> (...,4): top, left, bottom, right in pixels of the input. It may
    lie over the border. A unit that sees no field but all, as of a fully connected layer, has the whole picture."""
    seen = network.receptive_fields()[feature_layer(network, layer)]
    if seen is None:
        return np.broadcast_to((0, 0, *network.input_shape[1:]), (*places.shape[:-1], 4))
    field, jump, start = seen
    corner = start + jump*places
    return np.concatenate([corner, corner + field], axis=-1)


def merge(shards):
    """The TopActivations of several shards as one. Raises Expected where they are not of one pass or overlap."""
    one = shards[0]
    for shard in shards:
        if shard.fingerprint != one.fingerprint or list(shard.values) != list(one.values):
            raise check.Expected("--merge", "shards of one pass",
                                 "passes of different networks, data sets, layers or settings")
    ranges = sorted(range_ for shard in shards for range_ in shard.ranges.tolist() if range_[0] < range_[1])
    joined = ranges[:1]
    for first, last in ranges[1:]:
        if first < joined[-1][1]:
            raise check.Expected("--merge", "shards without common pictures",
                                 f"pictures {first} to {min(last, joined[-1][1]) - 1} twice")
        if first == joined[-1][1]:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    merged = {name: {} for name in ("values", "pictures", "places", "boxes")}
    for layer in one.values:
        of = {name: np.concatenate([getattr(shard, name)[layer] for shard in shards], axis=1) for name in merged}
        k = one.values[layer].shape[1]
        keys = of["pictures"], -of["values"], of["pictures"] < 0                # the last one counts most
        order = np.lexsort(keys, axis=1)[:, :k]
        for name, array in of.items():
            merged[name][layer] = np.take_along_axis(array, order.reshape(*order.shape, *[1]*(array.ndim - 2)), axis=1)
    return TopActivations(**merged, ranges=np.array(joined).reshape(-1, 2), total=one.total, fingerprint=one.fingerprint)


# ------------------------------------------------------------------------------------- projections and patches
@dataclass(frozen=True, eq=False)
class UnitViews:
    """Views of U units of one layer: of each its k strongest pictures, cropped to the receptive field of f pixels. What of a
    field lies beyond the picture's border is mid-grey in the patch and 0 in the projection. Where the field is wider than the
    network's input, and in fully connected layers, the crop is the whole input.

    units         (U,)           int64          values, pictures   (U,k)   as in TopActivations
    projections   (U,k,f,f,3)    float32        signed; all 0 where there is no picture
    patches       (U,k,f,f,3)    uint8          mid-grey where there is no picture
    places (U,k,2), boxes (U,k,4)               names (U,k)   of the pictures, "" where there is none
    filters       (U,f,f,3)      float32        of the first layer, where every projection is the filter, these, if they see all
                                                colours; else None
    classes       (U,)           texts          the units' classes, where the caller knows them: of the last layer"""
    FORM = {"layer": "text", "units": "int64 U? 0..", "values": "float32 U k finite", "pictures": "int64 U k -1..",
            "places": "int64 U k 2 -1..", "boxes": "int64 U k 4", "names": "text U k",
            "projections": "float32 U k f f 3 finite", "patches": "uint8 U k f f 3", "filters": "float32 U f f 3 finite",
            "classes": "text U"}
    layer: str
    units: NDArray[np.int64]
    values: NDArray[np.float32]
    pictures: NDArray[np.int64]
    places: NDArray[np.int64]
    boxes: NDArray[np.int64]
    names: NDArray[np.str_]
    projections: NDArray[np.float32]
    patches: NDArray[np.uint8]
    filters: NDArray[np.float32] | None = None
    classes: NDArray[np.str_] | None = None


def unit_views(model: Trained, pictures: Pictures, top: TopActivations, layer: str, units: Ints, *, batch_size: int = 32,
               rules: Rules = DECONVNET, bar: Bar | None = None) -> UnitViews:
    """Views of `units` of `layer`: each of the strongest pictures that `top` names is shown to the network again, and
    that one activation projected back. `batch_size` projections at a time; `bar` moves on by one a projection.
    Raises Expected for a unit that the layer does not have, and for the pass of another network or over other pictures."""
    batch_size = check_top(top, model, pictures, layer, batch_size)
    return views_of(model, pictures, top, layer, units, batch_size, rules, bar)


def views_of(model, pictures, top, layer, units, batch_size=32, rules=DECONVNET, bar=None):
    """`unit_views` of a pass that the caller made, perhaps with another network, such as this one at an earlier epoch."""
    network = model.network
    units = check_units(network, layer, units)
    _, H, W = network.input_shape
    chosen = {name: getattr(top, name)[layer][units] for name in ("values", "pictures", "places", "boxes")}
    k, size = chosen["pictures"].shape[1], field_regions(network, layer, chosen["boxes"][:0, 0]).size
    projections = np.zeros((len(units), k, size, size, 3), np.float32)
    patches = np.full((len(units), k, size, size, 3), MID_GREY, np.uint8)
    rows, ranks = np.nonzero(chosen["pictures"] >= 0)
    for at in range(0, len(rows), batch_size):
        at = rows[at:at + batch_size], ranks[at:at + batch_size]
        batch = decoded(pictures, chosen["pictures"][at])
        x = model.inputs(batch)
        pixels = project(network, x, layer, units[at[0]], chosen["places"][at], rules=rules).pixels
        regions = field_regions(network, layer, chosen["boxes"][at])
        projections[at] = crops(pixels, regions)
        patches[at] = patches_of(network, batch, regions)
        if bar is not None:
            bar.update(len(at[0]))
    names = np.array([[pictures.dataset.names[i] if i >= 0 else "" for i in row] for row in chosen["pictures"]], dtype=str)
    names = names.reshape(len(units), k)                   # of no units too
    return UnitViews(layer, units, names=names, projections=projections, patches=patches, **chosen,
                     filters=_filters(network, units, size))


def _filters(network, units, size):
    """(U,size,size,3): filters of the first layer as pictures, if a field of `size` pixels is of its units, and they see all
    colours; else None."""
    w = network.colour_filters
    if w is None or w.shape[1] != size:
        return None
    return np.ascontiguousarray(to_host(w)[..., units].transpose(3, 1, 2, 0), np.float32)


def field_regions(network, layer, boxes):
    """The Regions that the boxes (n,4) of units of `layer` are cropped to: the boxes; where the field is wider than the
    network's input, and in fully connected layers, the whole input."""
    seen = network.receptive_fields()[feature_layer(network, layer)]
    if seen is None or sees_all(network, layer):
        return Regions(*np.zeros_like(boxes[:, :2]).T, network.input_shape[1])
    return Regions(*boxes[:, :2].T, seen[0])


def sees_all(network, layer):
    """Return whether a unit of the layer sees the whole input, or a field wider than that."""
    seen = network.receptive_fields()[feature_layer(network, layer)]
    return seen is None or seen[0] > min(network.input_shape[1:])


def crops(pixels, regions, outside=0):
    """Pictures (3,H,W,N) -> (N,size,size,3) on the host, a region each."""
    return to_host(cut(pixels, regions, outside)).transpose(3, 1, 2, 0)


def patches_of(network, batch, regions):
    """Patches: what of uint8 pictures (N,size,size,3) lies in the regions of the network's input, beyond its border
    mid-grey."""
    H, margin = network.input_shape[1], (batch.shape[1] - network.input_shape[1])//2       # where the centre crop begins
    inputs = np.ascontiguousarray(batch[:, margin:margin + H, margin:margin + H].transpose(3, 1, 2, 0))
    return crops(inputs, regions, outside=MID_GREY)


def decoded(pictures, indices):
    """uint8 (N,size,size,3): pictures that a pass has seen already, so that each must decode."""
    try:
        return np.stack([pictures.picture(i) for i in indices.tolist()])
    except CorruptImage as error:
        raise check.Expected("picture", "one that decodes, as it did in the pass", error,
                             "the data set has changed; run the pass again") from None
