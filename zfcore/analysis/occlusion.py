"""Floor 6: what of a picture the network relies on, asked by hiding it (paper, section 4.2 and figure 7).

    occlusion                      a grey square slid over each picture; at every place of it the sum of the strongest map
                                   of layer 5, P(true class) and the most probable class; and the map's projection
    silent                         whether no map fires at all
    share_lost                     where another class wins than the one that is followed
    drop_form                      the same falls as other tools show them, spread over the pixels
    fall_inside_box                how much of the fall of P lies inside the object, where that is known
    correlation_with_projection    whether the map's sum falls where its projection lies

The text says neither how large the square is, nor how far it moves, nor how grey it is. In the figure it has 50 of 224
pixels, moves by 6, is always wholly inside, and is neutral grey. Grey is here 128 of 255 as a pixel of the picture, before
the mean is subtracted, so that no colour is preferred; and "strongest" is the map with the largest activation on the clean
picture, as it is of all pictures that excite a unit. The map with the largest sum is often one that fires a little everywhere,
the same for many pictures, and hardly falls where it is hidden.

A square changes only a part of every map: the outputs whose windows meet it. So the clean picture goes up once, and for
each place of the square that part alone is computed again, from regions that are filled with the clean maps around what
has changed. It is the same arithmetic on the same numbers: nothing is approximated.
"""
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.known import mean_of_known, varying
from zfcore.analysis.top_activations import MID_GREY, field_boxes
from zfcore.backend import BF16, array_module, empty, to_device, to_host
from zfcore.cpu import parallel, pieces
from zfcore.deconvnet import feature_layer, project
from zfcore.fusion import walk
from zfcore.hints import Bar, Ints
from zfcore.ops.convert import in_float, to_bf16
from zfcore.ops.softmax_loss import class_labels, softmax
from zfcore.ops.window import Regions, cut
from zfcore.trained import Trained, check_model


@dataclass(frozen=True, eq=False)
class Occlusion:
    """n pictures (H,W), R x Q places of the square, which is the pixels tops[i] .. tops[i]+size-1, columns alike.

    pictures         (n,H,W,3) uint8     as the network sees them: the centre crop
    labels           (n,)      int64     the class whose probability is followed
    units            (n,)      int64     the map of `layer` that is strongest on the clean picture, by `criterion`; 0 where
                                         none fires, see `silent`
    clean_sums, clean_probabilities (n,) float64, clean_classes (n,) int64      without a square
    sums             (n,R,Q)   float64   all activations of that map together: panel (b)
    probabilities    (n,R,Q)   float64   of the class `labels`: panel (d)
    most_probable    (n,R,Q)   int64     class: panel (e)
    drops            (n,H,W)   float64   the DROP form of `probabilities`, see `drop_form`
    projections      (n,H,W,3) float32   that map of the clean picture as a whole, projected back; signed
    views            (n,f,f,3) float32   its strongest activation alone, cropped to its receptive field (to the whole input
                                         where the field is wider): panel (c)
    What the caller knows besides, or None:
    names (n,), classes (M,) texts       boxes (n,4) float64: top, left, bottom, right of the object, NaN where unknown
    others           (n,m,f,f,3)         views of the same map from other pictures: the rest of panel (c)"""
    FORM = {"layer": "text", "criterion": "text", "size": "int 1..H", "stride": "int 1..", "grey": "int 0..255",
            "tops": "int64 R 0..H-1", "lefts": "int64 Q 0..W-1", "pictures": "uint8 n H W 3", "labels": "int64 n 0..M-1",
            "units": "int64 n 0..", "clean_sums": "float64 n finite", "clean_probabilities": "float64 n 0..1",
            "clean_classes": "int64 n 0..M-1", "sums": "float64 n R Q finite", "probabilities": "float64 n R Q 0..1",
            "most_probable": "int64 n R Q 0..M-1", "drops": "float64 n H W", "projections": "float32 n H W 3 finite",
            "views": "float32 n f f 3 finite", "names": "text n", "classes": "text M", "boxes": "float64 n 4",
            "others": "float32 n o? f f 3 finite"}
    layer: str
    criterion: str
    size: int
    stride: int
    grey: int
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    clean_sums: NDArray[np.float64]
    clean_probabilities: NDArray[np.float64]
    clean_classes: NDArray[np.int64]
    sums: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    most_probable: NDArray[np.int64]
    drops: NDArray[np.float64]
    projections: NDArray[np.float32]
    views: NDArray[np.float32]
    names: NDArray[np.str_] | None = None
    classes: NDArray[np.str_] | None = None
    boxes: NDArray[np.float64] | None = None
    others: NDArray[np.float32] | None = None


CRITERIA = {"max": lambda maps: maps.max(axis=(1, 2)), "sum": lambda maps: maps.sum(axis=(1, 2))}


# ------------------------------------------------------------------------------------------------------ the analysis
def occlusion(model: Trained, pictures: NDArray[np.uint8], labels: Ints | None = None, *, layer: str | None = None,
              size: int | None = None, stride: int | None = None, grey: int = MID_GREY,
              criterion: Literal["max", "sum"] = "max", batch_size: int = 64, incremental: bool = True,
              bar: Bar | None = None) -> Occlusion:
    """Slide a grey square over pictures (n,s,s,3), whose centre crop the network sees.

    labels         (n,) classes to follow; None: each picture's most probable one
    layer          a layer of maps; None: the last convolution
    size, stride   pixels; None: 50 and 6 of 224, and as much of other inputs
    grey           0..255, the pixel value of the square
    criterion      what makes a map the strongest: its largest activation, or the sum of all of them
    batch_size     places computed at once; memory grows with it
    incremental    False: every layer is computed as a whole at every place, to compare with
    bar            moved on by one a place

    Raises Expected for a square, class, layer or criterion that there cannot be, for a network without class scores, and where
    these are not finite."""
    check_model(model)
    network = model.network
    _, H, W = network.input_shape
    layer, size, stride, grey, tops, lefts = check_square(network, layer, size, stride, grey)
    check.one_of("criterion", criterion, CRITERIA)
    batch_size = check.whole("batch size", batch_size)
    pictures = check.pictures("pictures", pictures, (None, *model.mean.shape[1:], 3))
    check.positive("pictures", len(pictures))
    if labels is not None:
        labels = class_labels("labels", labels, network.shapes[-1][0], len(pictures))
    inputs = [network.stored(model.inputs(batch)) for batch in (pictures, np.full_like(pictures[:1], grey))]   # (3,H,W,n or 1)
    square = partial(_slide, network, inputs[1], layer, tops, lefts, size, criterion, batch_size, incremental, bar)
    each = [square(inputs[0][..., n:n + 1].copy(), None if labels is None else int(labels[n]))
            for n in range(len(pictures))]
    margin = [(s - n)//2 for s, n in zip(pictures.shape[1:3], (H, W))]                                     # as centre_crops
    return Occlusion(layer, criterion, size, stride, grey, tops, lefts,
                     pictures[:, margin[0]:margin[0] + H, margin[1]:margin[1] + W].copy(),      # else a view of the caller's array
                     **{name: np.stack([one[name] for one in each]) for name in each[0]})


class Square(NamedTuple):
    """Square that is slid over a network's input, and the layer whose strongest map is followed meanwhile."""
    layer: str
    size: int
    stride: int
    grey: int
    tops: np.ndarray
    lefts: np.ndarray

    @property
    def places(self):
        return len(self.tops)*len(self.lefts)


def check_square(network, layer=None, size=None, stride=None, grey=MID_GREY):
    """The Square with its defaults filled in (see `occlusion`). Raises Expected where there cannot be such a one."""
    convolutions = [each.name for each in network.convolutions]
    if not convolutions or len(network.shapes[-1]) != 1:
        raise check.Expected(network.name, "a network of convolutions that ends in scores of classes", "another one")
    layer = convolutions[-1] if layer is None else layer
    if len(network.shapes[feature_layer(network, layer) + 1]) != 3:
        raise check.Expected("layer", "one of maps", f"{layer}, which is fully connected")
    _, H, W = network.input_shape
    size, stride = (max(1, round(paper*H/224)) if given is None else given for given, paper in ((size, 50), (stride, 6)))
    stride = check.whole("stride of the square", stride)
    size = check.whole(f"size of the square, in an input of {H}x{W} pixels", size, 1, min(H, W))
    grey = check.whole("grey", grey, 0, 255)
    tops, lefts = (np.arange(0, side - size + 1, stride) for side in (H, W))                  # always wholly inside
    return Square(layer, size, stride, grey, tops, lefts)


def _slide(network, grey, layer, tops, lefts, size, criterion, batch_size, incremental, bar, x, label):
    """All places of the square over one picture x (3,H,W,1), `grey` being a picture of nothing else -> {field: array}."""
    feature = feature_layer(network, layer)
    clean = _look(network, x, feature)
    unit = int(CRITERIA[criterion](clean.features).argmax())
    p = to_host(softmax(clean.scores))[:, 0]
    label = int(p.argmax()) if label is None else label
    found = {"sums": np.empty((len(tops), len(lefts))), "probabilities": np.empty((len(tops), len(lefts))),
             "most_probable": np.empty((len(tops), len(lefts)), np.int64)}
    ascend = _recompute_cone if incremental else _recompute_all
    for rows, columns in _groups(network, tops, lefts, size, batch_size):
        region = Rectangles(np.repeat(tops[rows], len(columns)), np.tile(lefts[columns], len(rows)), size, size)
        scores, maps = ascend(network, clean, _pixels_of(grey, region), region, feature, unit)    # (M,N), (H,W,N)
        there = softmax(scores)
        for name, values in (("sums", maps.sum(axis=(0, 1), dtype=np.float64)), ("probabilities", there[label]),
                             ("most_probable", there.argmax(axis=0))):
            found[name][np.ix_(rows, columns)] = to_host(values).reshape(len(rows), len(columns))
        if bar is not None:
            bar.update(len(rows)*len(columns))
    return {**found, "labels": np.int64(label), "units": np.int64(unit),
            "clean_sums": float(clean.features[unit].sum(dtype=np.float64)),
            "clean_probabilities": float(p[label]), "clean_classes": np.int64(p.argmax()),
            "drops": drop_form(p[label] - found["probabilities"], tops, lefts, size, *x.shape[1:3]),
            "projections": _on_page(project(network, x, layer, [unit], whole_map=True).pixels),
            "views": _view(network, x, layer, unit)}


def _view(network, x, layer, unit):
    """(f,f,3): the projection of the strongest activation, cropped as `top_activations.unit_views` crops it."""
    _, H, W = network.input_shape
    projection = project(network, x, layer, [unit])
    top, left, bottom, right = field_boxes(network, layer, projection.places)[0]
    if bottom - top > min(H, W):
        return _on_page(projection.pixels)
    return _on_page(cut(projection.pixels, Regions(np.array([top]), np.array([left]), bottom - top)))


def _on_page(pixels):
    """(3,h,w,1) on the device -> (h,w,3) float32 on the host."""
    return to_host(pixels)[..., 0].transpose(1, 2, 0).astype(np.float32)


# ------------------------------------------------------------------------------------------ the cone of the square
class Rectangles(NamedTuple):
    """One rectangle of pixels for each of N places of the square, all of one size: rows tops[n] .. tops[n]+height-1,
    columns alike."""
    tops: np.ndarray
    lefts: np.ndarray
    height: int
    width: int

    def seen(self, K, S):
        """The rectangles of a layer's padded input that these of its output see."""
        return Rectangles(self.tops*S, self.lefts*S, (self.height - 1)*S + K, (self.width - 1)*S + K)

    def moved(self, P):
        """The same in maps with a rim of P pixels around them."""
        return self._replace(tops=self.tops + P, lefts=self.lefts + P)


class Stage(NamedTuple):
    """A layer with a window and the layers behind it that see a pixel each, and what the clean picture brings to them."""
    first: int                    # number of the first one in the network
    layers: list
    around: np.ndarray            # (C,h,w,1): the maps that enter, and what counts as padding around them
    out: tuple                    # (Ho,Wo) of the maps that leave


class Clean(NamedTuple):
    """Maps that a clean picture leaves on its way through the network."""
    x: np.ndarray                 # (3,H,W,1)
    stages: list                  # of the layers that see windows of maps, `Network.windowed`
    features: np.ndarray          # (F,H,W), the maps of the layer of interest
    maps: np.ndarray              # (C,H,W,1), the last maps of these
    scores: np.ndarray            # (M,1)


def _look(network, x, feature):
    """The Clean of picture x (3,H,W,1); `feature` is the number of the layer of interest."""
    stages, maps = [], x
    for number, (layer, y, _) in enumerate(network.steps(x)):
        if number == feature:
            features = in_float(y[..., 0])
        if number >= network.windowed:
            continue
        if stages and layer.pixelwise:
            stages[-1].layers.append(layer)
        else:
            stages.append(Stage(number, [layer], _pad(maps, layer, y.shape[1:3]), y.shape[1:3]))
        maps = y
    check.finite(f"{network.name}: outputs", y := in_float(y))
    return Clean(x, stages, features, maps, y)


def _pad(maps, layer, out):
    """Maps (C,H,W,1) with a rim of what does not count, wide enough for the windows of all `out` = (Ho,Wo) outputs."""
    K, S, P = layer.window()
    rim = [(P, max(0, (n - 1)*S + K - P - size)) for n, size in zip(out, maps.shape[1:3])]
    H, W = maps.shape[1:3]
    padded = empty((len(maps), H + sum(rim[0]), W + sum(rim[1]), 1), maps.dtype, like=maps)
    padded[...] = to_bf16(layer.border) if maps.dtype == BF16 else layer.border
    padded[:, P:P + H, P:P + W] = maps
    return padded


def _recompute_cone(network, clean, changed, region, feature, unit):
    """The scores (M,N) and the map `unit` of the layer of interest (H,W,N), where of the clean picture the pixels of
    `region`, N Rectangles, are `changed` (3,size,size,N)."""
    spans = [(region.tops, region.tops + region.height), (region.lefts, region.lefts + region.width)]
    for first, (layer, *pixelwise), around, out in clean.stages:
        K, S, P = layer.window()
        spans = [reach(*span, layer, n) for span, n in zip(spans, out)]
        above = _enclose(spans, out)
        changed, region = _fill(around, changed, region.moved(P), above.seen(K, S)), above
        for number, (_, y, _) in enumerate(walk([layer.inside(above), *pixelwise], changed), first):
            if number == feature:
                features = _whole(clean.features[unit][None, ..., None], in_float(y[unit:unit + 1]), region)[0]
        changed = y
    x = _whole(clean.maps, changed, region)                                             # (C,H,W,N)
    for number, (_, x, _) in enumerate(walk(network.layers[network.windowed:], x), network.windowed):
        if number == feature:
            features = in_float(x[unit])
    return in_float(x), features


def _recompute_all(network, clean, changed, region, feature, unit):
    """Recompute as `_recompute_cone` does, with every layer computed as a whole."""
    for number, (_, x, _) in enumerate(network.steps(_whole(clean.x, changed, region))):
        if number == feature:
            features = in_float(x[unit])
    return in_float(x), features


def reach(first, last, layer, size):
    """Outputs first .. last-1, along one axis, of a layer with `size` of them whose windows meet its inputs
    first .. last-1; arrays of N."""
    K, S, P = layer.window()
    return np.maximum(-((K - 1 - P - first)//S), 0), np.minimum((last - 1 + P)//S + 1, size)


def _enclose(spans, size):
    """The smallest Rectangles of one size, inside maps of `size` (H,W), that hold the spans ((first, last) of the rows, of
    the columns). Near a border, where less is reached, they are moved inwards and hold more than is needed."""
    height, width = (max(1, int((last - first).max())) for first, last in spans)
    (tops, _), (lefts, _) = spans
    return Rectangles(np.minimum(tops, size[0] - height), np.minimum(lefts, size[1] - width), height, width)


def _whole(maps, changed, region):
    """Maps (C,H,W,1) -> (C,H,W,N): N times the maps, the pixels of `region` being `changed`."""
    nowhere = np.zeros(len(region.tops), np.int64)
    return _fill(maps, changed, region, Rectangles(nowhere, nowhere, *maps.shape[1:3]))


def _fill(maps, changed, region, wanted):
    """The pixels `wanted` (N Rectangles) of N pictures, (C,h,w,N): of `changed` (C,height,width,N) where they lie in its
    `region`, of the clean maps (C,H,W,1) elsewhere. One gather, from both side by side."""
    C, H, W, _ = maps.shape
    N = len(region.tops)
    rows, columns = np.arange(wanted.height)[:, None] + wanted.tops, np.arange(wanted.width)[:, None] + wanted.lefts
    r, s = (rows - region.tops)[:, None], columns - region.lefts                         # (h,1,N), (w,N): place in `region`
    inside = (r >= 0) & (r < region.height) & (s >= 0) & (s < region.width)              # (h,w,N)
    places = np.where(inside, H*W + (r*region.width + s)*N + np.arange(N), rows[:, None]*W + columns)
    return _gather([maps.reshape(C, -1), changed.reshape(C, -1)], to_device(places, like=maps))


def _gather(sources, places):
    """Sources (C,L), (C,M) joined along their second axis and read at `places`, for each of the C maps."""
    xp, C = array_module(sources[0]), len(sources[0])
    if xp is not np:
        return xp.concatenate(sources, axis=1)[:, places]
    out = empty((C, *places.shape), sources[0].dtype, like=sources[0])

    def job(maps):
        np.take(np.concatenate([source[maps] for source in sources], axis=1), places, axis=1, out=out[maps], mode="clip")

    parallel(job, pieces(C, max(1, 2**18//places.size)))
    return out


def _pixels_of(picture, region):
    """The pixels `region` of one picture (3,H,W,1), for each of its N Rectangles: (3,height,width,N)."""
    rows, columns = np.arange(region.height)[:, None] + region.tops, np.arange(region.width)[:, None] + region.lefts
    places = rows[:, None]*picture.shape[2] + columns                                    # (height,width,N)
    return picture.reshape(3, -1)[:, to_device(places, like=picture)]


def _groups(network, tops, lefts, size, most):
    """(rows, columns): numbers of tops and lefts, whose product is a batch of at most `most` places."""
    for rows in _alike(network, tops, size, 0, isqrt(most)):
        for columns in _alike(network, lefts, size, 1, most//len(rows)):
            yield rows, columns


def _alike(network, starts, size, axis, most):
    """The places of the square along an axis dealt into groups of at most `most` that reach about equally far in all
    layers: of a batch the regions have one size, that of the largest, so a group should not mix large and small."""
    span, widths = (starts, starts + size), [starts]
    for layer, shape in zip(network.layers[:network.windowed], network.shapes[1:]):
        span = reach(*span, layer, shape[1 + axis])
        widths.append(span[1] - span[0])
    order = np.lexsort(widths)                               # by the last layer first
    return [order[piece] for piece in pieces(len(starts), most)]


# --------------------------------------------------------------------------------------------- what it tells: numbers
def drop_form(fall, tops, lefts, size, H, W):
    """The DROP form of Captum and others: a pixel's value is the mean of the fall (clean minus occluded) over all squares
    that cover it. fall (R,Q) -> (H,W); NaN where no square comes."""
    rows, columns = _cover(tops, size, H), _cover(lefts, size, W)
    with np.errstate(invalid="ignore"):
        return rows.T @ fall @ columns/np.outer(rows.sum(axis=0), columns.sum(axis=0))


def _cover(starts, size, side):
    """(R,side) of 0 and 1: which pixels of an axis each place of the square covers."""
    pixel = np.arange(side)
    return ((pixel >= starts[:, None]) & (pixel < starts[:, None] + size)).astype(float)


def silent(found):
    """(n,) bool: where no map of the layer fires on the clean picture, so that the one that is followed is none's choice."""
    return (found.clean_sums == 0) & ~found.projections.any(axis=(1, 2, 3))


def share_lost(found):
    """(n,): the share of the places of the square at which another class than the one that is followed is the most probable."""
    return (found.most_probable != found.labels[:, None, None]).mean(axis=(1, 2))


def fall_inside_box(found):
    """(share of the fall of P of the class that lies inside the object's box, the box's share of the area), (n,) each.

    The fall is taken pixel by pixel in its DROP form, rises left out, and the area is that which squares cover: all of the
    picture, but for a rim that the stride may leave. If hiding the object matters no more than hiding anything else, both
    shares are equal. NaN where there is no box or P never falls."""
    H, W = found.pictures.shape[1:3]
    covered = np.isfinite(found.drops)
    fall = np.nan_to_num(found.drops).clip(0)
    y, x = np.arange(H)[:, None] + 0.5, np.arange(W) + 0.5
    top, left, bottom, right = np.moveaxis(found.boxes, -1, 0)[..., None, None]
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right) & covered              # (n,H,W)
    total, known = fall.sum(axis=(1, 2)), ~np.isnan(found.boxes).any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(known & (total > 0), (fall*inside).sum(axis=(1, 2))/total, np.nan)
    return share, np.where(known, inside.sum(axis=(1, 2))/covered.sum(axis=(1, 2)), np.nan)


def fall_inside_other_boxes(occlusions):
    """(n,): of the n pictures in a list of Occlusions the mean share of the fall that lies inside the boxes of the others, those
    that are known, n > 1: the control of `fall_inside_box`, as all objects stand near the middle. NaN where P never falls or no
    other box is known."""
    boxes, shares = np.concatenate([one.boxes for one in occlusions]), []
    for turn in range(1, len(boxes)):
        turned = iter(np.roll(boxes, turn, axis=0))
        shares.append(np.concatenate([fall_inside_box(replace(one, boxes=np.array([next(turned) for _ in one.boxes])))[0]
                                      for one in occlusions]))
    return mean_of_known(np.stack(shares))[0]


def correlation_with_projection(found):
    """(n,): over the places of the square, the correlation of how far the map's sum falls with how much of the energy
    (squares) of the map's projection the square hides (claim of section 4.2). NaN where one of them is constant."""
    H, W = found.pictures.shape[1:3]
    energy = np.square(found.projections, dtype=float).sum(axis=3)                        # (n,H,W)
    hidden = _cover(found.tops, found.size, H) @ energy @ _cover(found.lefts, found.size, W).T            # (n,R,Q)
    left = found.sums.astype(float)                                                       # falls where more energy is hidden
    squares = [np.square(each).mean(axis=(1, 2)) for each in (left, hidden)]
    left, hidden = (each - each.mean(axis=(1, 2), keepdims=True) for each in (left, hidden))
    first, second = (varying(np.square(each).mean(axis=(1, 2)), square) for each, square in zip((left, hidden), squares))
    scale = np.sqrt(first*second)
    return np.divide(-(left*hidden).mean(axis=(1, 2)), scale, where=scale > 0, out=np.full(scale.shape, np.nan))


def correlation_with_other_projections(occlusions):
    """(n,): of the n pictures in a list of Occlusions the same with the projection of the one before, n > 1: the control of
    `correlation_with_projection`, as projections too lie near the middle."""
    turned = iter(np.roll(np.concatenate([one.projections for one in occlusions]), 1, axis=0))
    return np.concatenate([correlation_with_projection(replace(one,
                                                               projections=np.stack([next(turned) for _ in one.projections])))
                           for one in occlusions])
