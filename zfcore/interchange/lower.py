"""Lowering of a Foreign network to one of zfcore's layers that computes the same.

What zfcore's layers do otherwise is brought into their form here, each with a line in `Lowered.folded`: a scaling and a shift
go into the weights below them, how pictures are seen into the first weights (preprocessing.py), a softmax at the end is left to
zfcore, which has its own, filters that are not square or that have holes become square ones with zeros, padding that is not the
same on all sides is expressed by the rounding, by a frame cut off or by one laid around. All of it is formed in float64 and
rounded once. What cannot be expressed exactly is refused, with the node's name.
"""
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.hints import Shape
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Dropping, Flattening, Foreign, MaxPooling,
                                        Node, Padding, Probabilities, Rectifier, ResponseNorm, Subtraction, Window, counted,
                                        padding, part_of, unsupported)
from zfcore.interchange.preprocessing import Preprocessing
from zfcore.layers import (AvgPool, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm,
                           LocalResponseNormWithin, MaxPool, Pad, ReLU)
from zfcore.network import Network
from zfcore.ops.window import output_size

MOST_NUMBERS = 2**26              # of a picture's maps: 64 of 1024x1024 pixels, or a picture of 4728x4728
MOST_SQUARED = 2**26              # numbers of filters that are filled up with zeros
LARGEST_POOL = 15                 # pixels a side of a window whose switches fit a byte
EPS = 1e-5                        # of a BatchNorm that stands for a scaling and a shift


@dataclass
class Lowered:
    """`network`, with its weights; `seen`, how it sees pixels with what the file itself does to them first, and its `mean`
    (3,size,size), which is subtracted from pictures; of each layer that gives what a node gave, `tensors` {layer: the file's name
    of that}; `folded`, a line for each thing that was brought into another form; `probabilities`, the file's name of what the
    softmax gives that was left out."""
    network: Network
    seen: Preprocessing
    mean: NDArray[np.float32]
    tensors: dict[str, str]
    folded: list[str]
    probabilities: str | None = None


def to_network(foreign: Foreign, seen: Preprocessing, name: str) -> Lowered:
    """The network `name` that computes on RGB pixels less its mean what `foreign` computes on pictures as `seen` says. Raises
    Unsupported, naming the node, for what zfcore's layers cannot express."""
    (_, H, W), work = foreign.input_shape, _Work(foreign, list(foreign.nodes))
    work.leave_the_softmax()
    work.fold_affines()
    seen = work.fold_input(seen)
    if not work.nodes:
        raise check.Expected(foreign.path, "layers between pictures and scores", "none")
    work.see_pixels(seen)
    network = work.network(name, (3, H, W))
    return Lowered(network, seen, seen.mean_image(), work.tensors, work.folded, work.probabilities)


def as_it_is(foreign: Foreign, name: str) -> Network:
    """The network `name` that computes what `foreign` computes of the maps (C,H,W) that enter it, whatever they show. Raises
    Unsupported, naming the node, for what zfcore's layers cannot express."""
    work = _Work(foreign, list(foreign.nodes))
    work.leave_the_softmax()
    work.fold_affines()
    return work.network(name, foreign.input_shape)


@dataclass
class _Work:
    """The nodes on their way, and what has become of them."""
    foreign: Foreign
    nodes: list[Node]
    layers: list[Layer] = field(default_factory=list)
    parameters: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    buffers: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    probabilities: str | None = None
    first: Node | None = None             # into whose weights went how pictures are seen

    # ------------------------------------------------------------------------------------- what folds away
    def leave_the_softmax(self):
        if self.nodes and isinstance(self.nodes[-1], Probabilities):
            softmax = self.nodes.pop()
            self.probabilities = softmax.gives
            self.folded.append(f"{softmax.name}: the softmax at the end is zfcore's own; scores are what enters it")
        for node in self.nodes:
            if isinstance(node, Probabilities):
                raise unsupported(self.foreign.path, node.name, "a softmax at the end", "one in between", "a layer for it")

    def fold_affines(self):
        """Each Affine right behind a Convolution or a Dense goes into its weights."""
        kept: list[Node] = []
        for node in self.nodes:
            below = kept[-1] if kept else None
            if isinstance(node, Affine) and isinstance(below, (Convolution, Dense)):
                kept[-1] = scaled(below, node)
                self.folded.append(f"{node.name}: a factor and a shift, folded into the weights of {below.name}")
            else:
                kept.append(node)
        self.nodes = kept

    def fold_input(self, seen):
        """`seen` with what the first nodes subtract from the pictures, and multiply them by, in it."""
        while self.nodes and (beyond := self._beyond(seen, self.nodes[0])):
            seen, line = beyond
            self.folded.append(f"{self.nodes.pop(0).name}: {line}")
        return seen

    def _beyond(self, seen, node):
        """(`seen` with a node that follows in it, a line that says so); None where the node is none that can be."""
        mean, scale = seen.mean, seen.scale
        with part_of(f"{self.foreign.path}: {node.name}"):
            if isinstance(node, Subtraction):              # (x - mean)*scale - picture = (x - (mean + picture/scale))*scale
                if node.picture.shape[1] != seen.size:
                    raise check.Expected("--picture-size", f"{node.picture.shape[1]}, the side of the picture that the file itself subtracts",
                                         seen.size)
                mean = mean.reshape(len(mean), *mean.shape[1:] or (1, 1)) + node.picture/scale[:, None, None]
                return replace(seen, mean=mean), "a picture that is subtracted, folded into the mean"
            if isinstance(node, Affine) and node.scale.all():
                shift = (node.shift/(node.scale*scale)).reshape(-1, *[1]*(mean.ndim - 1))
                return (replace(seen, mean=mean - shift, scale=scale*node.scale),
                        "a factor and a shift of the pictures, folded into mean and first weights")
        return None

    def see_pixels(self, seen):
        """Put into the first weights what `seen` does to pixels but for the mean."""
        C, H, W = self.foreign.input_shape
        if C == 3 and seen.channels == "rgb" and (seen.scale == 1).all():
            return
        first = next((k for k, node in enumerate(self.nodes) if not isinstance(node, (Padding, Dropping, Flattening))), 0)
        node = self.nodes[first]
        orders = [below.order for below in self.nodes[:first] if isinstance(below, Flattening)]
        if isinstance(node, Convolution) and node.groups == 1 and not orders:
            w = seen.into_filters(np.asarray(node.w, np.float64))
        elif isinstance(node, Dense) and orders:
            w = _by_rows(node.w, lambda rows: as_rows(seen.into_filters(as_maps(rows, (C, H, W), orders[0])), orders[0]))
        else:
            own = self.foreign.input                       # which it gives, and no engine is asked for
            first, node = 0, Convolution("pixels", own, own, np.eye(C)[:, :, None, None], None, Window((1, 1)))
            self.nodes.insert(0, node)
            w = seen.into_filters(node.w)
        self.nodes[first] = self.first = replace(node, w=w)
        what = {"grey": "the grey of three channels", "bgr": "the order of the channels", "rgb": ""}[seen.channels]
        factor = "" if (seen.scale == 1).all() else "the factor of the pictures"
        self.folded.append(f"{node.name}: {' and '.join(filter(None, (what, factor)))}, folded into its weights")

    # -------------------------------------------------------------------------------------------- the layers
    def network(self, name: str, shape: Shape) -> Network:
        """The Network of the nodes, for pictures of `shape`, with its weights."""
        self.build(shape)
        network = Network(name, shape, self.layers)
        with part_of(self.foreign.path):
            return network.load(self.parameters, buffers=self.buffers)

    def build(self, shape: Shape) -> None:
        as_made = self.first is None
        rows: Sequence[int] | None = None                 # maps whose pixels the units are, where these come in the order hwc
        self._within_reach(self.foreign.input, shape)
        for node in self.nodes:
            as_made = as_made or node is self.first        # below it lie pixels, not what the file's network sees of them
            if isinstance(node, Flattening):
                rows = shape if node.order == "hwc" and len(shape) == 3 and shape[1:] != (1, 1) else rows
            elif isinstance(node, Dense) and rows is not None:
                node, rows = replace(node, w=as_maps(node.w, rows, "hwc").reshape(len(node.w), -1)), None
            elif rows is not None and isinstance(node, Affine):
                node = replace(node, **{key: as_maps(np.broadcast_to(array, (1, *shape)), rows, "hwc").reshape(-1)
                                        for key, array in (("scale", node.scale), ("shift", node.shift))})
            before = len(self.layers)
            _LAYERS[type(node)](self, node, shape)
            for layer in self.layers[before:]:
                shape = self._shape_out(node, layer, shape)
            if (len(self.layers) > before and as_made and rows is None and not isinstance(node, (Flattening, Dropping))
                    and node.gives != self.foreign.input):
                self.tensors[self.layers[-1].name] = node.gives
        if rows is not None:
            raise unsupported(self.foreign.path, self.nodes[-1].name, "a fully connected layer behind maps in the order H,W,C",
                              "none")
        if len(shape) == 3 and shape[1:] == (1, 1):
            self.layers.append(Flatten(self._name("scores")))

    def _shape_out(self, node, layer, shape):
        try:
            return self._within_reach(node.name, layer.shape_out(shape))
        except check.Expected as error:
            raise unsupported(self.foreign.path, node.name, error.expected, error.got, error.advice) from None

    def _within_reach(self, name, shape):
        """`shape` of what a node called `name` gives of a picture, before any is computed: a file of a few bytes can say all."""
        if math.prod(shape) > MOST_NUMBERS:
            raise check.Expected(f"{self.foreign.path}: {name}", f"at most {MOST_NUMBERS} numbers in the maps of a picture",
                                 "x".join(map(str, shape)))
        return shape

    def _name(self, wanted):
        """A name for a layer, and for a figure's file: letters, digits, "_", "-" and "." of the node's, which no other layer
        has."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_.-")[:100] or "layer"
        name, number = plain, 2
        while name.lower() in self.names:
            name, number = f"{plain}_{number}", number + 1
        self.names.add(name.lower())
        return name

    def _convolution(self, node, shape):
        given = replace(node.window, pads=padding(node.window, _maps(self.foreign.path, node, shape)[1:]))
        side = max(1 + (K - 1)*d for K, d in zip(given.K, given.dilation))
        if node.w.shape[0]*node.w.shape[1]*side**2 > max(MOST_SQUARED, node.w.size):
            raise unsupported(self.foreign.path, node.name,
                              f"filters that stand in square ones of {MOST_SQUARED} numbers in all",
                              f"{side}x{side} each", "dilation")
        w, window = squared(node.w, given)
        if window is not given:
            self.folded.append(f"{node.name}: filters of {'x'.join(map(str, node.window.K))}"
                               + (f" with dilation {'x'.join(map(str, node.window.dilation))}"
                                  if set(node.window.dilation) != {1} else "")
                               + f", which stand in filters of {window.K[0]}x{window.K[1]} with zeros")
        S, P, rounding, cut = self._placed(node, window, shape)
        name = self._name(node.name)
        self.layers.append(Conv(name, len(w), window.K[0], S, P, node.groups, rounding))
        self.parameters[name] = {"w": _float32(w.transpose(1, 2, 3, 0)), "b": _bias(node.b, len(w))}
        self.layers += cut

    def _dense(self, node, shape):
        name = self._name(node.name)
        self.layers.append(Linear(name, len(node.w)))
        self.parameters[name] = {"w": _float32(node.w.T), "b": _bias(node.b, len(node.w))}

    def _maxpooling(self, node, shape):
        if node.window is None:
            side, k = max(shape[1:]), 1
            while side > 1 or k == 1:                      # maxima of maxima
                K = min(side, LARGEST_POOL)
                self.layers.append(MaxPool(self._name(node.name if k == 1 else f"{node.name}_{k}"), K, K))
                side, k = -(-side//K), k + 1
            return
        if max(node.window.K) > LARGEST_POOL:
            raise unsupported(self.foreign.path, node.name, f"maxima of at most {LARGEST_POOL}x{LARGEST_POOL} pixels",
                              "x".join(map(str, node.window.K)), "switches of more than a byte")
        S, P, rounding, cut = self._placed(node, node.window, shape, zeros_around=False)
        self.layers += [MaxPool(self._name(node.name), node.window.K[0], S, P, rounding), *cut]

    def _averagepooling(self, node, shape):
        if node.window is None:
            self.layers.append(AvgPool(self._name(node.name)))
            return
        if (means := self._as_filters(node, shape)) is not None:
            self._convolution(means, shape)
            return
        before = len(self.layers)
        S, P, rounding, cut = self._placed(node, node.window, shape, node.borders != "inside", even=node.borders == "clipped")
        framed = len(self.layers) > before                # then the padding is a part of the maps
        borders = "inside" if framed and node.borders == "clipped" else node.borders
        self.layers += [AvgPool(self._name(node.name), node.window.K[0], S, P, rounding, borders), *cut]

    def _as_filters(self, node, shape):
        """The Convolution that gives the means of windows which are not square or have holes; None of others, and where the
        means at a border are of fewer pixels."""
        window, (C, *size) = node.window, _maps(self.foreign.path, node, shape)
        if len(set(window.K)) == 1 and set(window.dilation) == {1}:
            return None
        reach = [1 + (K - 1)*d for K, d in zip(window.K, window.dilation)]
        ends = [(counted(n, K, S, pair, window.rounding) - 1)*S + K - pair[0] - n
                for n, K, S, pair in zip(size, reach, window.S, padding(window, size))]
        if node.borders != "padded" and (max(ends) > 0 or any(pair[0] for pair in padding(window, size))):
            return None
        self.folded.append(f"{node.name}: means of {'x'.join(map(str, window.K))} pixels, by filters of a map each")
        w = np.full((C, 1, *window.K), 1/np.prod(window.K))
        return Convolution(node.name, node.reads, node.gives, w, None, window, C)

    def _padding(self, node, shape):
        (top, bottom), (left, right) = node.pads
        self.layers.append(Pad(self._name(node.name), top, bottom, left, right))

    def _rectifier(self, node, shape):
        self.layers.append(ReLU(self._name(node.name)))

    def _responsenorm(self, node, shape):
        within = node.region == "within"
        turned = not within and node.above and node.n % 2 == 0
        if within and node.n % 2 == 0:
            raise unsupported(self.foreign.path, node.name, "an odd window", node.n)
        kind = LocalResponseNormWithin if within else LocalResponseNorm
        if turned:
            self._turn_round(f"{node.name}_turned", shape[0])
            self.folded.append(f"{node.name}: one more of {node.n} neighbours lies above, so maps are turned round before and "
                               f"behind")
        self.layers.append(kind(self._name(node.name), node.n, node.alpha, node.beta, node.k, node.convention))
        if turned:
            self._turn_round(f"{node.name}_back", shape[0])

    def _turn_round(self, name, C):
        """Append filters of a pixel that give the last map first."""
        name = self._name(name)
        self.layers.append(Conv(name, C, 1))
        self.parameters[name] = {"w": _float32(np.eye(C)[::-1, None, None]), "b": _bias(None, C)}

    def _affine(self, node, shape):
        """Append a batch normalisation whose running mean is 0 and whose variance is 1."""
        C, name = shape[0], self._name(node.name)
        scale, shift = (np.broadcast_to(array, (C,)) for array in (node.scale, node.shift))
        self.layers.append(BatchNorm(name, EPS))
        self.parameters[name] = {"gamma": _float32(scale*np.sqrt(1 + EPS)), "beta": _float32(shift)}
        self.buffers[name] = {"mean": np.zeros(C, np.float32), "var": np.ones(C, np.float32)}

    def _subtraction(self, node, shape):
        raise unsupported(self.foreign.path, node.name, "a picture that is subtracted from those that enter", "one from maps",
                          "a constant for every pixel")

    def _flattening(self, node, shape):
        if len(shape) == 3:
            self.layers.append(Flatten(self._name(node.name)))

    def _dropping(self, node, shape):
        if node.ratio > 0:
            self.layers.append(Dropout(self._name(node.name), 1 - node.ratio))

    def _placed(self, node, window, shape, zeros_around=True, even=False):
        """(S, P, rounding, layers behind) with which a layer gives what windows placed as `window` says give on maps of
        `shape`. Where that takes more than a cut behind, a Pad is laid in front if zeros may stand around, else more windows
        are taken than are wanted. `even`: P must be all of the padding."""
        where, (_, H, W) = self.foreign.path, _maps(self.foreign.path, node, shape)
        for what, pair in (("windows as high as wide", window.K), ("the same stride for rows and columns", window.S)):
            if pair[0] != pair[1]:
                raise unsupported(where, node.name, what, "x".join(map(str, pair)))
        if set(window.dilation) != {1}:
            raise unsupported(where, node.name, "no dilation", "x".join(map(str, window.dilation)))
        K, S, pads = window.K[0], window.S[0], padding(window, (H, W))
        wanted = tuple(counted(n, K, S, pair, window.rounding) for n, pair in zip((H, W), pads))
        if min(wanted) < 1:
            raise unsupported(where, node.name, f"maps of at least {K}x{K} pixels", f"{H}x{W}")
        found = None if even and len(set(sum(pads, ()))) > 1 else next(placements((H, W), K, S, pads, wanted), None)
        if zeros_around and (found is None or found[0] != S or any(skipped for skipped, _ in found[3])):
            (top, bottom), (left, right) = pads
            self.layers.append(Pad(self._name(f"{node.name}_pad"), top, bottom, left, right))
            self.folded.append(f"{node.name}: padding {top},{left},{bottom},{right} is laid around the maps before it")
            found = next(placements((H + top + bottom, W + left + right), K, S, ((0, 0), (0, 0)), wanted), None)
        if found is None:
            raise unsupported(where, node.name, "less padding than the windows have pixels", pads)
        step, P, rounding, ((top, bottom), (left, right)) = found
        behind: list[Layer] = []
        if top or bottom or left or right:
            behind.append(Pad(self._name(f"{node.name}_cut"), -top, -bottom, -left, -right))
            self.folded.append(f"{node.name}: what lies around {wanted[0]}x{wanted[1]} outputs is cut off")
        if step != S:
            behind.append(MaxPool(self._name(f"{node.name}_taken"), 1, S))
            self.folded.append(f"{node.name}: windows at all places, of which every {S}th is taken")
        return step, P, rounding, behind


_LAYERS = {Convolution: _Work._convolution, Dense: _Work._dense, MaxPooling: _Work._maxpooling,
           AveragePooling: _Work._averagepooling,
           Padding: _Work._padding, Rectifier: _Work._rectifier, ResponseNorm: _Work._responsenorm, Affine: _Work._affine,
           Subtraction: _Work._subtraction, Flattening: _Work._flattening, Dropping: _Work._dropping}


def placements(size, K, S, pads, wanted):
    """Yield (step, P, rounding, (skipped, left over) of rows and of columns) of windows at strides `step`, with P pixels on all
    sides, among which are the `wanted` ones (rows, columns) at strides S with `pads`: behind those skipped every
    (S/step)-th."""
    before = [pair[0] for pair in pads]
    for step, P, rounding in product(dict.fromkeys((S, 1)), range(max(0, *before), K), ("floor", "ceil")):
        if any((P - first) % step for first in before):
            continue
        try:
            there = [output_size(n, K, step, P, rounding) for n in size]
        except check.Expected:                             # no window fits
            continue
        skipped = [(P - first)//step for first in before]
        over = [n - skip - (count - 1)*(S//step) - 1 for n, skip, count in zip(there, skipped, wanted)]
        if min(over) >= 0:
            yield step, P, rounding, tuple(zip(skipped, over))


# --------------------------------------------------------------------------------------------------------------- arrays
def scaled(node, affine):
    """The Convolution or Dense `node` with the Affine behind it in its weights, float64."""
    M = len(node.w)
    scale, shift = (np.broadcast_to(np.asarray(array, np.float64), (M,)) for array in (affine.scale, affine.shift))
    b = np.zeros(M) if node.b is None else np.asarray(node.b, np.float64)
    w = np.array(node.w, np.float64)
    w *= scale.reshape(-1, *[1]*(w.ndim - 1))
    return replace(node, w=w, b=b*scale + shift, gives=affine.gives)


def as_maps(w, shape, order):
    """Rows of w (M,D), for maps (C,H,W) that came in `order`, as filters (M,C,H,W)."""
    C, H, W = shape
    check.shape("matrix behind maps", w, (None, C*H*W))
    return w.reshape(-1, C, H, W) if order == "chw" else w.reshape(-1, H, W, C).transpose(0, 3, 1, 2)


def as_rows(w, order):
    """Filters (M,C,H,W) as rows (M,D), for maps that come in `order`."""
    return (w if order == "chw" else w.transpose(0, 2, 3, 1)).reshape(len(w), -1)


def _by_rows(w, change):
    """change(w) of a matrix, whose rows it changes each by itself, in float32 and in memory as a layer has it; a few rows at a
    time, since in float64 all take twice as much."""
    changed = np.empty((change(w[:1]).shape[1], len(w)), np.float32).T
    few = max(2**17//w.shape[1], 1)
    for k in range(0, len(w), few):
        changed[k:k + few] = change(w[k:k + few])
    return changed


def squared(w, window):
    """(w, window) whose filters are square and have no holes, with zeros where there was none; as they are if they are so. The
    window's padding stands in numbers."""
    reach = [1 + (K - 1)*d for K, d in zip(window.K, window.dilation)]
    K = max(reach)
    if set(window.K) == {K}:
        return w, window
    before = [(K - n)//2 for n in reach]
    pads = tuple((first + b, last + K - n - b) for (first, last), b, n in zip(window.pads, before, reach))
    full = np.zeros((*w.shape[:2], K, K), w.dtype)
    rows, columns = (slice(b, b + n, d) for b, n, d in zip(before, reach, window.dilation))
    full[:, :, rows, columns] = w
    return full, replace(window, K=(K, K), pads=pads, dilation=(1, 1))


def _maps(where, node, shape):
    if len(shape) != 3:
        raise unsupported(where, node.name, "maps", "units, which have no rows and columns")
    return shape


def _bias(b, count):
    return np.zeros(count, np.float32) if b is None else _float32(np.broadcast_to(np.asarray(b).reshape(-1), (count,)))


def _float32(array):
    return np.ascontiguousarray(array, np.float32)
