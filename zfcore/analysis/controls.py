"""Floor 6: what a projection owes to the network, to the unit, and to the picture's switches.

Adebayo et al. 2018 ("Sanity checks for saliency maps") and Nie et al. 2018 ("A theoretical explanation for perplexing
behaviors of backpropagation-based visualizations") found that such pictures may hardly depend on what was learned. Here each
projection is made again with one thing replaced, and compared with the original:

    conv5, conv5 to conv4, ...   the weights of these layers in random order, from the unit's own layer downwards (those
                                 above do not take part). The values stay, so their distribution does; what was learned is gone
    another unit                 of the same layer at the same place, drawn at random
    other switches               those of another picture, drawn among the strongest of the layer's other units

The way down looks at the picture at the switches alone, so the last one is also the projection of the other picture from
that place. All start as 1 instead of the activation, which a random layer does not have; this only scales a projection.

Two similarities over the pixels of the unit's field (outside both are 0, which would flatter them):

    cosine   of the signed values: the same pattern, its sign and its colours
    rank     Spearman's correlation of the strengths, |.| summed over the colours: the same places, whatever the pattern

Where the truth is known, also the share of a projection's energy (sum of squares) inside the object's box, beside the box's
share of the area; of the part of the field that lies in the picture, both. Energy thins out towards the border of a field
and objects stand near the middle: what a projection owes to its picture's object is what it has in the box beyond the controls.
"""
from dataclasses import dataclass, replace

import numpy as np

from zfcore import check
from zfcore.analysis.evolution import cosine
from zfcore.analysis.top_activations import centre, crops, decoded, field_windows, patches_of
from zfcore.backend import to_device, to_host
from zfcore.data.loader import shuffled
from zfcore.deconvnet import check_units, feature_layer, project, unit_count
from zfcore.layers import MaxPool, from_fields
from zfcore.network import Network


@dataclass(frozen=True)
class Controls:
    """n projections from one layer, and each under J - 1 controls.

    conditions    (J,) texts       "as trained", then the controls
    units         (n,) int64       a unit comes k times, with its k strongest pictures
    pictures (n,), names (n,)      index and name in the data set
    patches       (n,f,f,3)        uint8, cropped as in `top_activations.UnitViews`
    projections   (n,J,f,f,3)      float32
    cosine, rank  (n,J) float64    similarity to the projection as trained, with which the first column is 1
    inside        (n,J) float64    share of the energy inside the object's box; no number where there is no energy
    area          (n,) float64     the box's share of the area
    inside and area are None where the truth is not known.
    classes       (n,) texts       the units' classes, of the last layer, where the caller knows them; or None"""
    layer: str
    conditions: np.ndarray
    units: np.ndarray
    pictures: np.ndarray
    names: np.ndarray
    patches: np.ndarray
    projections: np.ndarray
    cosine: np.ndarray
    rank: np.ndarray
    inside: np.ndarray = None
    area: np.ndarray = None
    classes: np.ndarray = None


def controls(network, pictures, mean, top, layer, units, seed=0, batch_size=32, bar=None):
    """Controls of the projections of `units` of `layer` from the strongest pictures that the pass `top` found for them.

    `bar` moves on by one a projection (`length` says how many). Raises Expected where a control is impossible: a network or
    layer without pooling below it has no switches, a layer with one unit no other unit, one picture no other picture."""
    units = check_units(network, layer, units)
    check_possible(network, layer)
    rows, ranks = np.nonzero(top.pictures[layer][units] >= 0)
    if not len(rows):
        raise check.Expected("--units", f"units of {layer} that some picture makes fire", f"{len(units)} that never fire")
    units = units[rows]
    shown, places, boxes = (getattr(top, name)[layer][units, ranks] for name in ("pictures", "places", "boxes"))
    drawn = np.random.Philox(key=[seed, network.index(layer)]).random_raw((2, len(units)))
    other_units = _another(units, np.arange(unit_count(network, layer)), drawn[0])
    other_pictures = _another(shown, found_pictures(top, layer), drawn[1])
    made = [(network, shown, units), *((randomised(network, names, seed), shown, units) for names in cascade(network, layer)),
            (network, shown, other_units), (network, other_pictures, units)]

    projections, patches = [], []
    for at in (slice(k, k + batch_size) for k in range(0, len(units), batch_size)):
        windows = field_windows(network, layer, boxes[at])
        patches.append(patches_of(network, decoded(pictures, shown[at]), windows))
        of_batch = []
        for net, which, of in made:
            x = centre(net, decoded(pictures, which[at]), mean)
            of_batch.append(crops(project(net, x, layer, of[at], places[at], start=1).pixels, windows))
            if bar is not None:
                bar.update(len(of_batch[-1]))
        projections.append(np.stack(of_batch, axis=1))                                       # (batch,J,f,f,3)
    projections = np.concatenate(projections)
    names = np.array([pictures.dataset.names[i] for i in shown], dtype=str)
    found = Controls(layer, conditions(network, layer), units, shown, names, np.concatenate(patches), projections,
                     *similarities(network, projections, field_windows(network, layer, boxes)))
    if not hasattr(pictures.dataset, "truth"):
        return found
    inside, area = shares_in_boxes(network, projections, field_windows(network, layer, boxes),
                                   object_boxes(network, pictures, shown))
    return replace(found, inside=inside, area=area)


def check_possible(network, layer):
    below = network.layers[:feature_layer(network, layer) + 1]
    if not any(isinstance(one, MaxPool) for one in below):
        raise check.Expected(layer, "a layer above a pool, whose switches another picture can replace", "one below all pools")
    if unit_count(network, layer) < 2:
        raise check.Expected(layer, "two units or more, to compare one with another", unit_count(network, layer))


def cascade(network, layer):
    """[["conv3"], ["conv3", "conv2"], ...]: the layers with weights from `layer` down, ever more of them."""
    weighted = [one.name for one in reversed(network.layers[:feature_layer(network, layer) + 1]) if one.parameters]
    return [weighted[:count] for count in range(1, len(weighted) + 1)]


def conditions(network, layer):
    random = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in cascade(network, layer)]
    return np.array(["as trained", *random, "another unit", "other switches"])


def length(network, layer, count):
    """How many projections the controls of `count` projections take."""
    return count*len(conditions(network, layer))


def randomised(network, names, seed=0):
    """The network with the weights, and the biases, of the layers `names` each in random order. Each layer's order depends on
    seed and layer alone: of two networks of one cascade, the one has the other's random layers."""
    copy = Network(network.name, network.input_shape, [from_fields(row) for row in network.table()])
    for number, (layer, new) in enumerate(zip(network.layers, copy.layers)):
        new.parameters = dict(layer.parameters)
        if layer.name in names:
            new.parameters = {key: _in_random_order(array, seed, number) for key, array in layer.parameters.items()}
    return copy


def _in_random_order(array, seed, number):
    return to_device(to_host(array).ravel()[shuffled(array.size, seed, number)].reshape(array.shape), like=array)


def found_pictures(top, layer):
    """The pictures that are among the strongest of some unit of the layer, int64 in order."""
    known = np.unique(top.pictures[layer][top.pictures[layer] >= 0])
    if len(known) < 2:
        raise check.Expected("pictures", f"two or more that make units of {layer} fire", len(known))
    return known


def _another(chosen, known, drawn):
    """For each of `chosen` another one among the sorted `known`, as random 64-bit words say."""
    steps = 1 + (drawn % np.uint64(len(known) - 1)).astype(np.int64)
    return known[(np.searchsorted(known, chosen) + steps) % len(known)]


# ------------------------------------------------------------------------------------------------------- the numbers
def similarities(network, projections, windows):
    """(cosine, rank), each (n,J), between projections[n,0] and projections[n,j] over the pixels inside the picture."""
    n, J = projections.shape[:2]
    strengths = np.abs(projections).sum(axis=-1)                                             # (n,J,f,f)
    _, H, W = network.input_shape
    inside = windows.pixels(H, W)[1]                                                         # (f,f,n)
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


def object_boxes(network, pictures, shown):
    """(n,4) float64: the true boxes of the objects as left, top, right, bottom in pixels of the network's input."""
    margin = (pictures.size - network.input_shape[1])//2
    return np.array([pictures.dataset.truth(i).box for i in shown.tolist()]) - margin


def shares_in_boxes(network, projections, windows, boxes):
    """(inside, area): of projections (n,J,f,f,3) in `windows` the share of energy inside `boxes` (n,4; left, top, right,
    bottom), (n,J); and the boxes' share of the windows' area inside the picture, (n,). A pixel that a box cuts counts in
    part."""
    _, H, W = network.input_shape
    in_picture = windows.pixels(H, W)[1].transpose(2, 0, 1)                                  # (n,f,f)
    steps = np.arange(windows.size)
    rows, columns = (_overlap(corner[:, None] + steps, low[:, None], high[:, None]) for corner, low, high in
                     ((windows.tops, boxes[:, 1], boxes[:, 3]), (windows.lefts, boxes[:, 0], boxes[:, 2])))
    cover = rows[:, :, None]*columns[:, None]*in_picture                                     # (n,f,f), 0..1
    energy = np.square(projections, dtype=float).sum(axis=-1)                           # (n,J,f,f)
    total = energy.sum(axis=(2, 3))
    inside = np.divide((energy*cover[:, None]).sum(axis=(2, 3)), total, where=total > 0, out=np.full(total.shape, np.nan))
    return inside, cover.sum(axis=(1, 2))/in_picture.sum(axis=(1, 2))


def _overlap(pixels, low, high):
    """How much of the pixels [p, p+1) lies between low and high, 0..1."""
    return np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, 1)
