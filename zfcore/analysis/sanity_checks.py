"""Floor 6: sanity checks of projections: what they owe to the network, to the unit, and to the picture's switches.

Adebayo et al. 2018 ("Sanity checks for saliency maps") and Nie et al. 2018 ("A theoretical explanation for perplexing
behaviors of backpropagation-based visualizations") found that such pictures may hardly depend on what was learned. Here each
projection is made again with one thing replaced, and compared with the original:

    conv5, conv5 to conv4, ...   the weights of these layers in random order, from the unit's own layer downwards (those
                                 above do not take part). The values stay, so their distribution does; what was learned is gone
    another unit                 of the same layer at the same place, drawn at random
    other switches               those of another picture, drawn among the strongest of all the layer's units, its own among them
    weights of the start         on the way down the random weights that training began with, the switches as trained
    untrained                    these weights on the way up too: the network before its first step

The way down looks at the picture at the switches alone, so "other switches" is also the projection of the other picture from
that place; where no max pool lies below a layer there are none, and no such control. The last two are there where the start is
known. All start as 1 instead of the activation, which a random layer does not have; this only scales a projection.

Two similarities over the pixels of the unit's field (outside both are 0, which would flatter them):

    cosine   of the signed values: the same pattern, its sign and its colours
    rank     Spearman's correlation of the strengths, |.| summed over the colours: the same places, whatever the pattern

Where the truth is known, also the share of a projection's energy (sum of squares) inside the object's box, beside the box's
share of the area; of the part of the field that lies in the picture, both. Energy thins out towards the border of a field
and objects stand near the middle: what a projection owes to its picture's object is what it has in the box beyond the controls.
The same of the object's named parts (eyes, wheels, hands): how much of the energy in the box lies in discs around those that
are seen, beside the discs' share of the box. That too is worth what it is beyond the controls.

These shares tell whether projections are legible, so that it can be told without looking, also while a network trains
(`legibility`); and `shares_of_start` tells of the weights how much of them is still what training began with: of the energy
(sum of squares) of a layer's weights the share in the direction of its start, (w.w0)^2/(w.w w0.w0)."""
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.evolution import cosine
from zfcore.analysis.top_activations import TopActivations, check_top, crops, decoded, field_regions, patches_of
from zfcore.backend import to_device, to_host
from zfcore.data.loader import WATCHED, Pictures, shuffled, truths_of
from zfcore.deconvnet import DECONVNET, check_units, feature_layer, project, unit_count
from zfcore.hints import Bar, Ints
from zfcore.network import Network
from zfcore.ops.window import Regions
from zfcore.trained import Trained


OTHER_CONDITIONS = "as trained", "another unit", "other switches", "weights of the start", "untrained"      # than layers' names


@dataclass(frozen=True, eq=False)
class SanityChecks:
    """n projections from one layer, and each under J - 1 controls.

    conditions    (J,) texts       "as trained", then the controls
    units         (n,) int64       a unit comes k times, with its k strongest pictures
    pictures (n,), names (n,)      index and name in the data set
    patches       (n,f,f,3)        uint8, cropped as in `top_activations.UnitViews`
    projections   (n,J,f,f,3)      float32
    cosine, rank  (n,J) float64    similarity to the projection as trained, with which the first column is 1
    inside        (n,J) float64    share of the energy inside the object's box; no number where there is no energy
    area          (n,) float64     the box's share of the area
    in_parts      (n,J) float64    share of the box's energy in its parts; no number where none is seen
    parts_area    (n,) float64     the parts' share of the box's area
    The last four are None where the truth is not known.
    classes       (n,) texts       the units' classes, of the last layer, where the caller knows them; or None"""
    FORM = {"layer": "text", "conditions": "text J", "units": "int64 n 0..", "pictures": "int64 n 0..", "names": "text n",
            "patches": "uint8 n f f 3", "projections": "float32 n J f f 3 finite", "cosine": "float64 n J",
            "rank": "float64 n J", "inside": "float64 n J", "area": "float64 n", "in_parts": "float64 n J",
            "parts_area": "float64 n", "classes": "text n"}
    layer: str
    conditions: NDArray[np.str_]
    units: NDArray[np.int64]
    pictures: NDArray[np.int64]
    names: NDArray[np.str_]
    patches: NDArray[np.uint8]
    projections: NDArray[np.float32]
    cosine: NDArray[np.float64]
    rank: NDArray[np.float64]
    inside: NDArray[np.float64] | None = None
    area: NDArray[np.float64] | None = None
    in_parts: NDArray[np.float64] | None = None
    parts_area: NDArray[np.float64] | None = None
    classes: NDArray[np.str_] | None = None


def sanity_checks(model: Trained, pictures: Pictures, top: TopActivations, layer: str, units: Ints, *, seed: int = 0,
                  batch_size: int = 32, only: Collection[str] | None = None, bar: Bar | None = None) -> SanityChecks:
    """Sanity checks of the projections of `units` of `layer` from the strongest pictures that the pass `top` found for them.

    `only` names the `conditions` that are wanted, None for all. `bar` moves on by one a projection (`length` says how many).
    Raises Expected for the pass of another network or over other pictures, and where a control is impossible: a layer with one
    unit has no other unit, one picture no other switches."""
    batch_size, seed = check_top(top, model, pictures, layer, batch_size), check.seed("seed", seed)
    network, start = model.network, model.start
    units = check_units(network, layer, units)
    check_possible(network, layer)
    rows, ranks = np.nonzero(top.pictures[layer][units] >= 0)
    if not len(rows):
        raise check.Expected("--units", f"units of {layer} that some picture makes fire", f"{len(units)} that never fire")
    units = units[rows]
    shown, places, boxes = (getattr(top, name)[layer][units, ranks] for name in ("pictures", "places", "boxes"))
    drawn = np.random.Philox(key=[seed, network.index(layer)]).random_raw((2, len(units)))
    other_units = _another(units, np.arange(unit_count(network, layer)), drawn[0])
    asked = conditions(network, layer, start).tolist()
    if only is not None:
        only = check.names("only", only)
        for name in only:
            check.one_of("only", name, conditions(network, layer, network).tolist())          # those that the start would add too
        asked = [condition for condition in asked if condition in only]
        check.positive("conditions that are possible", len(asked))
    other_pictures = _another(shown, found_pictures(top, layer), drawn[1]) if "other switches" in asked else shown
    ways = {"as trained": (network, shown, units, DECONVNET),
            **{in_words(names): (randomised(network, names, seed), shown, units, DECONVNET)
               for names in cascade(network, layer) if in_words(names) in asked},
            "another unit": (network, shown, other_units, DECONVNET),
            "other switches": (network, other_pictures, units, DECONVNET),
            "weights of the start": (network, shown, units, start and with_weights_of(start)),
            "untrained": (start, shown, units, DECONVNET)}

    projections, patches = [], []
    for at in (slice(k, k + batch_size) for k in range(0, len(units), batch_size)):
        regions = field_regions(network, layer, boxes[at])
        patches.append(patches_of(network, decoded(pictures, shown[at]), regions))
        of_batch = []
        for net, which, of, rules in (ways[condition] for condition in asked):
            x = model.inputs(decoded(pictures, which[at]))
            of_batch.append(crops(project(net, x, layer, of[at], places[at], rules=rules, start=1).pixels, regions))
            if bar is not None:
                bar.update(len(of_batch[-1]))
        projections.append(np.stack(of_batch, axis=1))                                       # (batch,J,f,f,3)
    projections = np.concatenate(projections).astype(np.float32, copy=False)
    names = np.array([pictures.dataset.names[i] for i in shown], dtype=str)
    found = SanityChecks(layer, np.array(asked), units, shown, names, np.concatenate(patches), projections,
                         *similarities(network, projections, field_regions(network, layer, boxes)))
    if not hasattr(pictures.dataset, "truth"):
        return found
    regions, truths = field_regions(network, layer, boxes), truths_of(pictures.dataset, shown.tolist())
    margin = (pictures.size - network.input_shape[1])//2
    inside, area = shares_in_boxes(network, projections, regions, object_boxes(truths, margin))
    in_parts, parts_area = shares_in_parts(network, projections, regions, truths, margin)
    return replace(found, inside=inside, area=area, in_parts=in_parts, parts_area=parts_area)


def check_possible(network, layer):
    """Raise Expected for a layer whose units no control can be made of."""
    if unit_count(network, layer) < 2:
        raise check.Expected(layer, "two units or more, to compare one with another", unit_count(network, layer))


def cascade(network, layer):
    """[["conv3"], ["conv3", "conv2"], ...]: the layers with weights from `layer` down, ever more of them."""
    weighted = [one.name for one in reversed(network.layers[:feature_layer(network, layer) + 1]) if one.has_weights]
    return [weighted[:count] for count in range(1, len(weighted) + 1)]


def conditions(network: Network, layer: str, start: Network | None = None) -> NDArray[np.str_]:
    """Names of all controls of a layer, texts (J,), "as trained" first; "other switches" only where a max pool lies below, the
    last two only where the `start` is known."""
    switches = any(one.has_switches for one in network.layers[:feature_layer(network, layer) + 1])
    return np.array(["as trained", *map(in_words, cascade(network, layer)), "another unit", *["other switches"]*switches,
                     *["weights of the start", "untrained"]*(start is not None)])


def in_words(names):
    """["conv3", "conv2"] -> "conv3 to conv2"."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def length(network: Network, layer: str, count: int, start: Network | None = None) -> int:
    """Number of projections that the controls of `count` projections take."""
    return count*len(conditions(network, layer, start))


def with_weights_of(other):
    """DECONVNET, but the weights on the way down are those of the network `other`."""
    def of_the_other(layer, dy, cache):
        return (own := other[layer.name]).data_gradient(dy, own.reweighted(cache))

    return {**DECONVNET, **{type(layer): of_the_other for layer in other.weighted}}


def randomised(network, names, seed=0):
    """The network with the weights, and the biases, of the layers `names` each in random order. Each layer's order depends on
    seed and layer alone: of two networks of one cascade, the one has the other's random layers."""
    random = network.copy()
    for number, layer in enumerate(random.layers):
        if layer.name in names:
            layer.parameters = {key: _in_random_order(array, seed, number) for key, array in layer.parameters.items()}
    return random


def _in_random_order(array, seed, number):
    return to_device(to_host(array).ravel()[shuffled(array.size, seed, number)].reshape(array.shape), like=array)


def found_pictures(top, layer):
    """The pictures that are among the strongest of some unit of the layer, int64 in order."""
    known = np.unique(top.pictures[layer][top.pictures[layer] >= 0])
    if len(known) < 2:
        raise check.Expected("pictures", f"two or more that make units of {layer} fire", len(known))
    return known


def _another(chosen, known, drawn):
    """Draw for each of `chosen` another one among the sorted `known`, as random 64-bit words say."""
    steps = 1 + (drawn % np.uint64(len(known) - 1)).astype(np.int64)
    return known[(np.searchsorted(known, chosen) + steps) % len(known)]


# ------------------------------------------------------------------------------------------------------- the numbers
def similarities(network, projections, regions):
    """(cosine, rank), each (n,J), between projections[n,0] and projections[n,j] over the pixels inside the picture."""
    n, J = projections.shape[:2]
    strengths = np.abs(projections).sum(axis=-1)                                             # (n,J,f,f)
    _, H, W = network.input_shape
    inside = regions.pixels(H, W)[1]                                                         # (f,f,n)
    cosines = np.stack([cosine(projections[:, 0], projections[:, j]) for j in range(J)], axis=1)
    ranks = np.array([[rank_correlation(strengths[i, 0][inside[..., i]], strengths[i, j][inside[..., i]]) for j in range(J)]
                      for i in range(n)])
    return cosines, ranks


def rank_correlation(one, other):
    """Spearman's correlation of two arrays of m values: Pearson's of their ranks, equal values sharing the mean of theirs;
    0 where one of them is constant."""
    a, b = (_ranks(values) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    lengths = np.sqrt((a*a).sum()*(b*b).sum())
    return float((a*b).sum()/lengths) if lengths > 0 else 0.0


def _ranks(values):
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1)/2)[group]


def object_boxes(truths, margin):
    """(n,4) float64: the true boxes of the objects as left, top, right, bottom in pixels of the network's input, the centre
    of the pictures without `margin` pixels at each side."""
    return np.array([truth.box for truth in truths]) - margin


def shares_in_boxes(network, projections, regions, boxes):
    """(inside, area): of projections (n,J,f,f,3) in `regions` the share of energy inside `boxes` (n,4; left, top, right,
    bottom), (n,J); and the boxes' share of the regions' area inside the picture, (n,). A pixel that a box cuts counts in
    part."""
    _, H, W = network.input_shape
    in_picture = regions.pixels(H, W)[1].transpose(2, 0, 1)                                  # (n,f,f)
    steps = np.arange(regions.size)
    rows, columns = (_overlap(corner[:, None] + steps, low[:, None], high[:, None]) for corner, low, high in
                     ((regions.tops, boxes[:, 1], boxes[:, 3]), (regions.lefts, boxes[:, 0], boxes[:, 2])))
    cover = rows[:, :, None]*columns[:, None]*in_picture                                     # (n,f,f), 0..1
    energy = np.square(projections, dtype=float).sum(axis=-1)                           # (n,J,f,f)
    total = energy.sum(axis=(2, 3))
    inside = np.divide((energy*cover[:, None]).sum(axis=(2, 3)), total, where=total > 0, out=np.full(total.shape, np.nan))
    return inside, cover.sum(axis=(1, 2))/in_picture.sum(axis=(1, 2))


def _overlap(pixels, low, high):
    """Share of the pixels [p, p+1) that lies between low and high, 0..1."""
    return np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, 1)


PART = 0.1                                     # radius of the disc around a part, in square roots of the box's area


def shares_in_parts(network, projections, regions, truths, margin):
    """(in_parts, parts_area): of what projections (n,J,f,f,3) in `regions` have inside the objects' boxes the share of energy
    within PART of a part that is seen, (n,J); and of the boxes' area inside field and picture the share of these discs, (n,).
    No number where no part is seen. A pixel counts by its middle."""
    _, H, W = network.input_shape
    in_picture = regions.pixels(H, W)[1].transpose(2, 0, 1)                                  # (n,f,f)
    energy = np.square(projections, dtype=float).sum(axis=-1)                                # (n,J,f,f)
    in_parts, area = np.full(projections.shape[:2], np.nan), np.full(len(projections), np.nan)
    steps = np.arange(regions.size) + 0.5 + margin
    for i, truth in enumerate(truths):
        left, top, right, bottom = truth.box
        y, x = (regions.tops[i] + steps)[:, None], regions.lefts[i] + steps                  # of the pixels' middles
        box = in_picture[i] & (x > left) & (x < right) & (y > top) & (y < bottom)
        radius, disc = PART*np.sqrt((right - left)*(bottom - top)), np.zeros_like(box)
        for name, (px, py) in truth.parts.items():
            if truth.visible[name]:
                disc |= np.hypot(x - px, y - py) < radius
        disc &= box
        if disc.any():
            total = energy[i][:, box].sum(axis=1)                                            # (J,)
            in_parts[i] = np.divide(energy[i][:, disc].sum(axis=1), total, where=total > 0, out=np.full(total.shape, np.nan))
            area[i] = disc.sum()/box.sum()
    return in_parts, area


# ------------------------------------------------------------------------------------------- while a network trains
def legibility(model, pictures):
    """(share of the projected energy inside the objects' boxes, the boxes' share of the area), means over the first WATCHED
    of the `pictures`, whose truth is known: each is projected from the unit of the last convolution that it excites most.
    Damaged ones are left out."""
    network, shown = model.network, np.setdiff1d(np.arange(min(WATCHED, len(pictures))), [*pictures.damaged])
    layer, x = last_convolution(network), model.inputs(decoded(pictures, shown))
    y = network.activations(x, [network.layers[feature_layer(network, layer)].name]).popitem()[1]
    units = to_host(y.max(axis=(1, 2)).argmax(axis=0))                                       # (n,)
    pixels = to_host(project(network, x, layer, units).pixels).transpose(3, 1, 2, 0)[:, None]
    whole = Regions(*np.zeros((2, len(shown)), int), network.input_shape[1])
    margin = (pictures.size - network.input_shape[1])//2
    inside, area = shares_in_boxes(network, pixels, whole, object_boxes(truths_of(pictures.dataset, shown.tolist()), margin))
    return float(np.nanmean(inside)) if np.isfinite(inside).any() else float("nan"), float(area.mean())


def last_convolution(network):
    """Name of the last convolution. Raises Expected where there is none."""
    if not network.convolutions:
        raise check.Expected(network.name, "a network with a convolution", "one without")
    return network.convolutions[-1].name


def shares_of_start(network: Network, start: Network) -> dict[str, float]:
    """{layer: share}, 0..1: of the energy of its weights what lies in the direction of those in `start`, the same network as
    its training began. 1 at the beginning; of unrelated weights about 1/(their number). Raises Expected for another network."""
    for what, of in (("network", network), ("start", start)):
        check.instance(what, of, Network, "of a trained one: model.network")
    if network.parameter_shapes() != start.parameter_shapes():
        raise check.Expected("start", f"{network.name} as its training began", f"{start.name}, of other layers")
    shares = {}
    for layer, begun in zip(network.weighted, start.weighted):
        w, w0 = (to_host(of.parameters["w"]).ravel().astype(np.float64) for of in (layer, begun))
        shares[layer.name] = _dot(w, w0)**2/max(_dot(w, w)*_dot(w0, w0), np.finfo(float).tiny)
    return shares


def _dot(a, b):
    """Dot product, of the same bits on any number of threads: BLAS would cut it among its own."""
    return float((a*b).sum())
