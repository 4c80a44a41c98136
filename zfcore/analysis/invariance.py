"""Floor 6: how far a shifted, enlarged or turned picture takes a network from the picture itself (paper, figure 5).

    invariance    along each of three series the distance of the features, P of the class and the most probable class
    transform     the sampler: any similarity of a picture, straight from its original pixels
    consistency, mean_height, early_rise    one number a curve, to compare networks by

The three series, read off the figure for an input of 224 pixels, cut out of a square of 256:

    translation   vertical, -63 to 63 pixels, 127 steps; positive is down. The picture's square is brought to
                  224 + 2*63 = 350 pixels, 1.37 times as large as usual, so that the crop always shows picture
    scale         1 to 1.99, 128 steps of 1/128, about the middle
    rotation      0 to 357 degrees, 128 steps of 360/128, counter-clockwise; the square of 256 is turned, and what comes
                  from beyond it is black, the value 0 before the mean is subtracted

Other inputs have as many steps; the translations are as large in proportion, hence fractions of a pixel. Each series starts
from a clean picture of its own (shift 0, scale 1, 0 degrees): for the translations it is the enlarged one.

A transformed picture is sampled once, in floating point. Each of its pixels is a mean of original pixels, weighted by the
bicubic kernel (Keys, a = -1/2, as in preparing pictures for training), which is as wide as a pixel of the result where the
picture shrinks: so it is antialiased. Of a picture more than four times as large as needed, squares of pixels are first
replaced by their means, once for all steps; at least one such mean is left for each pixel at the largest zoom.

Distances are given raw, relative to the length of the clean picture's features, and between the features scaled to length 1
(0 to sqrt 2, as they are never negative behind a ReLU). The paper does not say which one is its "canonical distance", nor
where in a layer it was taken; "conv1" and "fc7" are here the maps after their ReLU, before pooling and normalisation, and
any other place can be asked for by its name ("norm1").
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import array_module, to_device, to_host
from zfcore.cpu import parallel, pieces
from zfcore.data.transforms import check_crop
from zfcore.deconvnet import check_layers, feature_layer
from zfcore.hints import Bar, Ints
from zfcore.ops import loops
from zfcore.ops.convert import in_float
from zfcore.ops.softmax_loss import class_labels, softmax
from zfcore.trained import Trained, check_model, check_sees_squares

LARGEST_SHIFT, STEPS = 63/224, 128           # of the input's side; of a series from end to end
LARGEST_ZOOM = 2
SHOWN = 8                                    # pictures of a series in the figure
MOVED = 1e-5                                 # of the features: what changes by no more is rounding
ROWS, COLUMNS = 512, 32                      # of features, whose squares are added at once


@dataclass(frozen=True, eq=False)
class Invariance:
    """Invariance of n pictures, L layers and, in dicts by the name of the series, S steps.

    layers          (L,) texts              steps           {(S,) float64}   pixels, factors, degrees
    labels          (n,) int64              clean           {int}            the step that leaves the picture as it is
    distances       {(n,L,S) float64}       |f(x) - f(Tx)|
    relative        {(n,L,S) float64}       the same over |f(x)|; NaN where f(x) is 0
    unit            {(n,L,S) float64}       |f(x)/|f(x)| - f(Tx)/|f(Tx)||
    probabilities   {(n,S) float64}         of the class `labels`
    most_probable   {(n,S) int64}           class
    shown           {(8,) int64}            steps, and {(n,8,H,W,3) uint8} the pictures there, rounded
    What the caller knows besides, or None: names (n,), classes (M,) texts"""
    FORM = {"layers": "text L", "labels": "int64 n 0..M-1", "steps": "{series} float64 S finite",
            "clean": "{series} int 0..S-1", "distances": "{series} float64 n L S", "relative": "{series} float64 n L S",
            "unit": "{series} float64 n L S", "probabilities": "{series} float64 n S 0..1",
            "most_probable": "{series} int64 n S 0..M-1", "shown": "{series} int64 m 0..S-1",
            "pictures": "{series} uint8 n m h w 3", "names": "text n", "classes": "text M"}
    layers: NDArray[np.str_]
    labels: NDArray[np.int64]
    steps: dict[str, NDArray[np.float64]]
    clean: dict[str, int]
    distances: dict[str, NDArray[np.float64]]
    relative: dict[str, NDArray[np.float64]]
    unit: dict[str, NDArray[np.float64]]
    probabilities: dict[str, NDArray[np.float64]]
    most_probable: dict[str, NDArray[np.int64]]
    shown: dict[str, NDArray[np.int64]]
    pictures: dict[str, NDArray[np.uint8]]
    names: NDArray[np.str_] | None = None
    classes: NDArray[np.str_] | None = None


class Series(NamedTuple):
    """S similarities: shifts down in pixels of the input, zooms, counter-clockwise degrees, all (S,); `steps` is what the
    series is named after, `clean` its step that changes nothing, `shown` those of the figure."""
    steps: NDArray[np.float64]
    shifts: NDArray[np.float64]
    zooms: NDArray[np.float64]
    degrees: NDArray[np.float64]
    clean: int
    shown: NDArray[np.int64]


def paper_series(size: int, crop: int) -> dict[str, Series]:
    """{name: Series} of figure 5, for crops of `crop` pixels in squares of `size`."""
    check_crop(size, crop)
    shifts = np.arange(1 - STEPS//2, STEPS//2)/(STEPS//2 - 1)*LARGEST_SHIFT*crop
    room = crop + 2*shifts[-1] + (size - crop) % 2           # pixels that the shifted crops need, side by side
    zooms, degrees = 1 + np.arange(STEPS)/STEPS, np.arange(STEPS)*360/STEPS
    ends = lambda count: np.linspace(0, count - 1, SHOWN).round().astype(np.int64)
    return {"translation": _series(shifts, len(shifts)//2, ends(len(shifts)), shifts=shifts, zooms=max(1, room/size)),
            "scale": _series(zooms, 0, ends(STEPS), zooms=zooms),
            "rotation": _series(degrees, 0, np.arange(SHOWN)*STEPS//SHOWN, degrees=degrees)}


def _series(steps, clean, shown, shifts=0.0, zooms=1.0, degrees=0.0):
    return Series(steps, *(np.broadcast_to(each, steps.shape) for each in (shifts, zooms, degrees)), clean, shown)


# ------------------------------------------------------------------------------------------------------ the analysis
def invariance(model: Trained, pictures: Sequence[NDArray[np.uint8]], labels: Ints | None = None, *,
               layers: Sequence[str] | None = None, series: Mapping[str, Series] | None = None, batch_size: int = 64,
               bar: Bar | None = None) -> Invariance:
    """Take pictures (h,w,3) of any sizes, not yet cropped, through each series.

    labels       (n,) classes to follow; None: the one most probable on each picture's centre crop
    layers       names as in `deconvnet.feature_layer`; None: the first convolution and the last layer with a ReLU, 1 and 7
    series       by name; None: the paper's
    batch_size   steps computed at once
    bar          moved on by one a step

    Raises Expected for a class or a layer that there is not, for a network without class scores, and where these are not finite."""
    check_model(model)
    check_sees_squares(model)
    check.whole("batch size", batch_size)
    check.instance("pictures", pictures, (Sequence, np.ndarray), "a list of arrays (h,w,3)")
    check.positive("pictures", len(pictures))
    network = model.network
    series = checked_series(paper_series(model.size, model.crop) if series is None else series)
    layers = default_layers(network) if layers is None else check_layers(network, layers)
    squares = [centre_square(check.pictures(f"picture {i}", picture, (None, None, 3)), model.size)
               for i, picture in enumerate(pictures)]
    if labels is None:
        labels = np.concatenate([_most_probable(model, square) for square in squares])
    labels = class_labels("labels", labels, network.shapes[-1][0], len(pictures))
    found = {name: [_along(model, square, int(label), layers, one, batch_size, bar)
                    for square, label in zip(squares, labels)] for name, one in series.items()}
    return Invariance(np.array(layers), labels, **{part: {name: getattr(one, part) for name, one in series.items()}
                                                   for part in ("steps", "clean", "shown")},
                      **{part: {name: np.stack([each[part] for each in found[name]]) for name in series}
                         for part in ("distances", "relative", "unit", "probabilities", "most_probable", "pictures")})


def checked_series(series):
    """{name: Series}, with arrays in them. Raises Expected for what is none, and unless there are as many shifts, zooms and
    degrees as steps."""
    check.instance("series", series, Mapping, "{name: Series}")
    return {name: _checked(f"series {name}", series[name]) for name in check.names("series", [*series])}


def _checked(what, one):
    check.instance(what, one, Series, "paper_series makes those of the paper")
    steps, shifts, zooms, degrees = arrays = [check.numbers(f"{what}: {name}", array) for name, array in zip(one._fields, one[:4])]
    if steps.size < 2:                                     # how far a layer is after one says nothing of how it rises
        raise check.Expected(f"{what}: steps", "two or more", steps.size)
    for name, array in zip(one._fields, arrays):
        check.shape(f"{what}: {name}", array, (steps.size,))
        check.finite(f"{what}: {name}", array)
    check.positive(f"{what}: zooms", zooms.min())
    check.shape(f"{what}: shown", shown := check.whole_numbers(f"{what}: shown", one.shown), (None,))
    for step in (one.clean, *shown):
        check.whole(f"{what}: clean or shown", step, 0, steps.size - 1)
    return Series(steps.astype(np.float64), shifts, zooms, degrees, int(one.clean), shown)


def default_layers(network, first=True):
    """The names of the first (or the last) convolution and of the last layer with a ReLU behind it: layers 1 (or 5), 7."""
    convolutions = [layer.name for layer in network.convolutions]
    hidden = [layer.name for layer in network.weighted
              if network.layers[feature_layer(network, layer.name)].rectifies]
    if not (convolutions and hidden):
        raise check.Expected(network.name, "a network with a convolution and a ReLU", "one without", "name the layers")
    return list(dict.fromkeys([convolutions[0 if first else -1], hidden[-1]]))


def look(network, x, layers):
    """({layer: its features (D,N)}, scores (M,N)) of pictures x (3,H,W,N), on one way up."""
    wanted = {name: network.layers[feature_layer(network, name)].name for name in layers}
    if len(network.shapes[-1]) != 1:
        raise check.Expected(network.name, "a network that ends in scores of classes", f"maps {network.shapes[-1]}")
    outputs = {}
    for layer, y, _ in network.steps(x):
        if layer.name in wanted.values():
            outputs[layer.name] = in_float(y).reshape(-1, x.shape[-1])
    check.finite(f"{network.name}: outputs", y := in_float(y))
    return {name: outputs[wanted[name]] for name in layers}, y


def _most_probable(model, square):
    """(1,): the class of a picture as it is."""
    x = transform(square, model.crop, *np.array([[0.0], [1.0], [0.0]]))
    return to_host(look(model.network, subtract(x, model.mean), [])[1].argmax(axis=0))


def _along(model, square, label, layers, series, batch_size, bar):
    """One picture along one series -> {field: array without the axis of the pictures}.

    The clean picture goes first, in the first batch: its features are then one of those that the others are compared with,
    to the bit, and its distance is 0."""
    crop, count = model.crop, len(series.steps)
    order = np.concatenate([[series.clean], np.delete(np.arange(count), series.clean)])
    found = {**{name: np.empty((len(layers), count)) for name in ("distances", "relative", "unit")},
             "probabilities": np.empty(count), "most_probable": np.empty(count, np.int64),
             "pictures": np.empty((len(series.shown), crop, crop, 3), np.uint8)}
    clean = None
    for piece in pieces(count, batch_size):
        at = order[piece]
        seen = transform(square, crop, series.shifts[at], series.zooms[at], series.degrees[at])        # (3,H,W,N)
        features, scores = look(model.network, subtract(seen, model.mean), layers)
        if clean is None:
            clean = {name: f[:, :1].copy() for name, f in features.items()}
        for number, name in enumerate(layers):
            three = distances(clean[name], features[name])
            for part, values in zip(("distances", "relative", "unit"), three):
                found[part][number, at] = values
        found["probabilities"][at] = to_host(softmax(scores)[label])
        found["most_probable"][at] = to_host(scores.argmax(axis=0))
        for place, step in enumerate(series.shown):
            for column in np.flatnonzero(at == step):
                found["pictures"][place] = np.rint(seen[..., column]).transpose(1, 2, 0)
        if bar is not None:
            bar.update(len(at))
    return found


def distances(clean, features):
    """Distances of features (D,N) from the clean ones (D,1): (raw, relative, unit), each (N,) float64."""
    xp = array_module(features)
    scale = lambda norm: (1/xp.where(norm > 0, norm, 1)).astype(features.dtype)
    one, all_ = length(clean), length(features)
    raw = length(features, clean)
    unit = length(features, clean, scale(all_), scale(one))
    relative = xp.where(one > 0, raw/xp.where(one > 0, one, 1), np.nan)
    return tuple(to_host(values) for values in (raw, relative, unit))


def length(f, g=None, of_f=1, of_g=1):
    """|f*of_f - g*of_g| of each column of f (D,N), where there is a g (D,1): (N,) float64. On the host what lies between the
    bars is never in memory as a whole; its squares are added row after row."""
    xp, N = array_module(f), f.shape[1]
    apart = lambda rows, columns, factor: f[rows, columns]*factor if g is None else f[rows, columns]*factor - g[rows]*of_g
    if xp is not np or N == 1:                               # NumPy adds the numbers of one column by pairs
        return xp.sqrt(xp.square(apart(slice(None), slice(None), of_f)).sum(axis=0, dtype=np.float64))
    factors, loop = np.broadcast_to(np.asarray(of_f, f.dtype), N).copy(), loops.compiled(loops.add_squares, f)
    other = np.zeros(len(f), f.dtype) if g is None else (g*of_g)[:, 0]

    def job(columns):
        total = np.zeros(columns.stop - columns.start)
        if loop:
            loop(f[:, columns], factors[columns], other, total)
            return total
        for rows in pieces(len(f), ROWS):
            squares = np.square(apart(rows, columns, factors[columns])).astype(np.float64)
            squares[0] += total
            squares.sum(axis=0, out=total)
        return total

    return np.sqrt(np.concatenate(parallel(job, pieces(N, COLUMNS))))


# ------------------------------------------------------------------------------------------------------- the sampler
class Square(NamedTuple):
    """A picture and where its centre square lies in it."""
    planes: np.ndarray            # (3,h,w) float32 or float64, values 0..255
    middle: tuple                 # row, column of the square's middle; a pixel's upper or left edge is its number
    scale: float                  # pixels of `planes` to one of the square
    size: int                     # the square's side, in its own pixels


def centre_square(picture, size, dtype=np.float32):
    """The Square of side `size` in a picture (h,w,3): its centre, as `data.transforms.square` cuts it. Of a picture more than
    2*LARGEST_ZOOM times as large as that, pixels are averaged, no further than to one a pixel at the largest zoom."""
    h, w = picture.shape[:2]
    side = min(h, w)
    f = max(1, side//(LARGEST_ZOOM*size))
    planes = np.asarray(picture[:h//f*f, :w//f*f], dtype).transpose(2, 0, 1)
    if f > 1:
        planes = planes.reshape(3, h//f, f, w//f, f).mean(axis=(2, 4))
    middle = ((h - side)//2 + side/2)/f, ((w - side)//2 + side/2)/f
    return Square(np.ascontiguousarray(planes), middle, side/size/f, size)


def transform(square, crop, shifts, zooms, degrees):
    """Inputs of a network from a Square that is turned, enlarged, then shifted, N times: (3,crop,crop,N), values 0..255,
    of the dtype of its planes. What is taken is the centre crop; beyond the square is black."""
    S, (middle_row, middle_column) = square.size, square.middle
    check_crop(S, crop)
    start = (S - crop)//2 + 0.5 - S/2                        # first pixel of the centre crop, from the square's middle
    zooms, turn = np.asarray(zooms), np.deg2rad(degrees)
    cos, sin = np.cos(turn)/zooms, np.sin(turn)/zooms
    out = np.empty((3, crop, crop, len(zooms)), square.planes.dtype)
    u, width = start + np.arange(crop), square.scale/zooms
    inside = lambda place, zooms: (zooms*(S/2 - abs(place)) + 0.5).clip(0, 1)          # an edge one pixel soft
    points = lambda down, right: (middle_row + square.scale*down, middle_column + square.scale*right)

    def some_rows(rows):
        v, across = u[rows, None, None] - shifts, u[:, None]
        down, right = across*sin + v*cos, across*cos - v*sin     # (rows,W,N): where a pixel comes from, from the middle
        pixels = sample(bordered, *points(down, right), width)
        out[:, rows] = pixels.clip(0, 255)*inside(down, zooms)*inside(right, zooms)

    def some_steps(steps):
        factor, numbers = zooms[steps, None], range(*steps.indices(len(zooms)))
        down, right = (u - np.asarray(shifts)[steps, None])*cos[steps, None], u*cos[steps, None]      # (N,H), (N,W)
        grids = sample_grids(square.planes, *points(down, right), width[steps])
        for number, pixels, rows, columns in zip(numbers, grids, inside(down, factor), inside(right, factor)):
            out[..., number] = pixels.clip(0, 255)*rows[:, None]*columns

    if sin.any():
        bordered = Bordered.of(square.planes, width)
        parallel(some_rows, pieces(crop, 2**13//max(1, crop*len(zooms))))
    else:                                                    # rows stay rows
        parallel(some_steps, pieces(len(zooms), -(-len(zooms)//4)))
    return out


class Bordered(NamedTuple):
    """Planes (C,h,w) with zeros around, as wide as the kernel reaches, the C values of a pixel side by side: fetched at
    once."""
    pixels: np.ndarray            # (h + 2*border, w + 2*border, C or up to 3 more)
    border: int
    shape: tuple                  # C, h, w

    @classmethod
    def of(cls, planes, width):
        """The Bordered of planes that are sampled with a `width`, or several."""
        (C, h, w), border = planes.shape, _reach(width) + 1
        pixels = np.zeros((h + 2*border, w + 2*border, -(-C//4)*4), planes.dtype)
        pixels[border:-border, border:-border, :C] = planes.transpose(1, 2, 0)
        return cls(pixels, border, planes.shape)


def sample(bordered, rows, columns, width):
    """Planes, which are Bordered, at points `rows`, `columns` (arrays of one shape) -> (C,*shape): the means of the pixels
    around each point, weighted by the bicubic kernel in both directions.

    The kernel reaches 2 pixels, or 2*width where `width`, the pixels of the planes to one of the result, is above 1. Beyond
    the planes nothing is there: the weights of what is there are scaled up, as Pillow does."""
    pixels, border, (C, h, w) = bordered
    if loop := loops.compiled(loops.sample, pixels):
        out = np.empty((C, rows.size), pixels.dtype)
        loop(pixels, border, rows.ravel(), columns.ravel(), np.broadcast_to(width, rows.shape).ravel(), out)
        return out.reshape(C, *rows.shape)
    (top, down), (left, across) = _taps(rows, width, h, pixels.dtype), _taps(columns, width, w, pixels.dtype)
    long, flat = pixels.shape[1], pixels.reshape(-1, pixels.shape[2])
    at = ((top + border)*long + left + border).ravel()
    down, across = (_for_each_value(weights, flat.shape[1]) for weights in (down, across))
    out = np.zeros((at.size, flat.shape[1]), pixels.dtype)
    for r, of_row in enumerate(down):
        line = np.zeros_like(out)
        for s, of_column in enumerate(across):
            found = flat[r*long + s:].take(at, axis=0)
            found *= of_column
            line += found
        line *= of_row
        out += line
    return out[:, :C].T.reshape(C, *rows.shape)


def _for_each_value(weights, count):
    """Weights (T,*shape) -> (T,points,count), each `count` times."""
    out = np.empty((len(weights), weights[0].size, count), weights.dtype)
    for k in range(count):
        out[..., k] = weights.reshape(len(weights), -1)
    return out


def sample_grids(planes, rows, columns, width):
    """Yield planes (C,h,w) on N grids, `rows` (N,H) by `columns` (N,W), `width` (N,): (C,H,W) each, to the bit as `sample`
    does.

    Each row of the planes is filtered once for all rows of a grid, and for all grids that have the same columns."""
    _, h, w = planes.shape
    columns_of = np.ascontiguousarray(planes.transpose(2, 1, 0))                    # (w,h,C)
    top, down = _taps(rows, width[:, None], h, planes.dtype)
    left, across = _taps(columns, width[:, None], w, planes.dtype)
    for n in range(len(rows)):
        if not n or width[n] != width[n - 1] or (columns[n] != columns[n - 1]).any():
            lines = np.ascontiguousarray(_weighted(columns_of, left[n], across[:, n]).transpose(1, 0, 2))      # (h,W,C)
        yield _weighted(lines, top[n], down[:, n]).transpose(2, 0, 1)


def _weighted(lines, first, weights):
    """Sums of `lines` (n,...) over T of them from the `first` (m,) on, each with its weight (T,m): (m,...)."""
    out = 0
    for tap, of_tap in enumerate(weights):
        found = lines.take((first + tap).clip(0, len(lines) - 1), axis=0)              # of weight 0 where there is none
        found *= of_tap[:, None, None]
        out += found
    return out


def _reach(width):
    """Pixels of an axis that the kernel reaches, the most of all points."""
    return int(np.ceil(4*np.maximum(width, 1).max()))


def _taps(points, width, length, dtype):
    """(first pixel, (*shape); weights of `dtype`, (T,*shape)) of the pixels of an axis that the kernel around a point reaches.
    Pixels that there are not have weight 0."""
    points = points.clip(0, length)                          # a point beyond the picture is black anyway
    reach, width = _reach(width), np.maximum(width, 1)
    first = np.floor(points - 0.5 - 2*width) + 1
    weights, total = np.empty((reach, *points.shape)), 0
    inside = first.min() >= 0 and first.max() + reach <= length
    for tap, of_tap in enumerate(weights):                   # one after the other they stay in the cache
        pixels = first + tap
        of_tap[...] = bicubic((pixels + 0.5 - points)/width)
        if not inside:
            of_tap *= (pixels >= 0) & (pixels < length)
        total += of_tap
    return first.astype(np.int64), (weights/total).astype(dtype)


def bicubic(d):
    """Keys' kernel with a = -1/2 (Keys 1981): 1 at 0, 0 at the other whole numbers and from 2 on."""
    d = abs(d)
    if d.max() <= 1:
        return (1.5*d - 2.5)*d*d + 1
    far = ((-0.5*d + 2.5)*d - 4)*d + 2
    if d.max() > 2:
        far[d > 2] = 0
    return far if d.min() >= 1 else np.where(d < 1, (1.5*d - 2.5)*d*d + 1, far)


def subtract(pictures, mean):
    """Pictures (3,H,W,N) on the host -> the network's input on the device of `mean`, which is (3,size,size)."""
    crop = pictures.shape[1]
    margin = (mean.shape[1] - crop)//2                       # as `data.transforms.centre_crops`
    return to_device(pictures, like=mean) - mean[:, margin:margin + crop, margin:margin + crop, None]


# --------------------------------------------------------------------------------------------- one number a curve
def consistency(most_probable, clean):
    """Consistency: of (n,S) most probable classes the share of steps, the clean one left out, that have the clean step's:
    (n,)."""
    others = np.delete(most_probable, clean, axis=-1)
    return (others == most_probable[..., clean, None]).mean(axis=-1)


def mean_height(steps, values):
    """The area under curves (...,S) over the length of `steps`: (...)."""
    return np.trapezoid(values, steps, axis=-1)/(steps[-1] - steps[0])


def early_rise(values, clean):
    """Share of its largest distance from the clean picture that a curve (...,S) of relative distances has reached after an eighth
    of the way, the mean over both directions where there are two: 1/8 if it rises in a straight line, near 1/2 in the figure's
    layer 1. NaN where the curve is, and where its largest distance is no more than MOVED: of rounding no share is a number."""
    rises = []
    for side in values[..., clean:], values[..., clean::-1]:
        if side.shape[-1] == 1:
            continue
        at = (side.shape[-1] - 1)/8
        low = int(at)
        there = side[..., low] + (at - low)*(side[..., low + 1] - side[..., low])
        largest = side.max(axis=-1)
        rises.append(there/np.where(largest > MOVED, largest, np.nan))
    return np.mean(rises, axis=0)


def columns(found):
    """{series: {what: (n,) float64}}, what being columns of a table, for an Invariance."""
    table = {}
    for name, steps in found.steps.items():
        clean = found.clean[name]
        table[name] = {"consistency": consistency(found.most_probable[name], clean),
                       "P(clean)": found.probabilities[name][:, clean],
                       "P(mean)": mean_height(steps, found.probabilities[name])}
        for number, layer in enumerate(found.layers.tolist()):
            for what, values in (("raw", found.distances), ("relative", found.relative), ("unit", found.unit)):
                table[name][f"{layer} {what} (mean)"] = mean_height(steps, values[name][:, number])
            table[name][f"{layer} early rise"] = early_rise(found.relative[name][:, number], clean)
    return table
