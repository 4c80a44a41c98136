"""Floor 2: layers. A layer is parameters around an operation; it keeps nothing of the pictures that pass through.

Whoever needs to know something of a layer asks the layer; nobody asks what kind it is. What every kind must answer
(`Layer` cannot be instantiated without):

    shape_out(shape)             shape of one picture's output, e.g. (96, 110, 110), for an input (3, 224, 224)
    window()                     (K, S, P) of the pixels that one output sees, 0 <= P < K; (1, 1, 0): its own; None: all of them
    forward(x, step=None)        (y, cache), the cache what the way down needs. `step` is the training's `Step`; None: evaluation
    backward(dy, cache)          (dx, {"w": dw, "b": db}), of the parameters there are, by their names
    cut_cache(cache, outputs, inputs)   the cache that the layer would have had from the `Regions` inputs of its maps alone,
                                 around which lies what counts as padding: it would have given the `Regions` outputs

and what it answers otherwise only where the answer is another one:

    parameter_shapes(shape)      {"w": ..., "b": ...} for that input            init(shape, seed, law, factor)    their start
    buffer_shapes(shape)         {name: shape} of what training keeps beside the parameters, such as running means
    data_gradient(dy, cache)     dx alone                    parameter_gradients(dy, cache)   the rest alone
    place(number, shape)         told by the network: which of its layers this is, and the shape of one picture that enters it
    seeded(seed)                 told by which seed it is to draw while it learns, by whoever draws the weights or trains
    check_whole(count, N)        refuses to learn from count pictures of a batch of N, where the layer takes no less than all
    inside(outputs)              this layer for inputs around which the padding already lies, which give the outputs at
                                 `outputs`: a layer whose window is not (1, 1, 0) is asked for it by occlusion
    reordered(order)             this layer with its outputs in another order, and its inputs too where it goes `by_units`
    multiply_adds(shape)         for one picture
    pixelwise                    each output sees its own pixel, and outputs lie where pixels lie: the window is (1, 1, 0)
    has_weights                  its "w" are weights, drawn at random at the start: weight decay, precision, the rest of the
                                 start. It is then asked also for net_weights(units), what each output takes from each unit
                                 below, and reweighted(cache), the cache with the weights that it has now
    has_filters                  these are filters: "w" (C,K,K,F) for F outputs, each of C of the maps below, such as a group's, which
                                 may be looked at and whose RMS is limited
    affine                       each output is the sum of what it sees times its weights "w" (...,outputs), and its entry of "b"
                                 (outputs,): a BatchNorm behind it may be folded into them. Conv and Linear are, and so is what
                                 derives from them, but for a kind that makes other factors of its weights and says affine = False
    rectifies                    its outputs are never negative, and 0 where a unit is off: features are read behind it
    keeps_positive               of inputs that are never negative neither are its outputs
    by_units                     each of its units comes of the unit below of the same number alone, and by arrays, if it has some,
                                 whose last axis are the units, or one entry for all
    keeps_units                  output and input have the same units, each by itself scaled or moved: BatchNorm, Pad
    has_switches                 it chooses among its inputs, and its cache says which
    hands_on                     in evaluation the output is the input, in another shape perhaps
    border                       what counts outside the map

What a layer is made of is its fields, and they are what a checkpoint stores (`layer.fields()`), as JSON: `Network` refuses what does
not come back equal, such as a tuple. Parameters are in `layer.parameters`, what training keeps in `layer.buffers`, put there by
`Network.init` or by a checkpoint. How products are formed is no part of it: the `precision` of a layer with weights is fp32 until
`Network.use` says otherwise. In bf16 a copy of the weights, stored so, stands beside them (`copy_of`). Arrays of parameters are
replaced by others, which the copy follows, and changed in place by SGD alone, which changes the copy too.

On a GPU a training step is recorded and then repeated without Python. So what `forward` and `backward` go by besides their arguments
lies in the layer's attributes: once one is replaced, the step is recorded anew. What changes from step to step they get as an array.
"""
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from zfcore import check, files
from zfcore.backend import BF16, empty, zeros
from zfcore.hints import Array, Law, Precision, Row, Shape
from zfcore.ops.avgpool import AvgPoolCache, avgpool, avgpool_backward, divisors
from zfcore.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_transpose
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_transpose
from zfcore.ops.convert import convert
from zfcore.ops.dropout import dropout, dropout_backward
from zfcore.ops.linear import linear, linear_backward, linear_transpose
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward
from zfcore.ops.local_response_norm_within import local_response_norm_within, local_response_norm_within_backward
from zfcore.ops.maxpool import Pooling, maxpool, maxpool_backward
from zfcore.ops.pad import Frame, pad, pad_backward
from zfcore.ops.relu import relu, relu_backward
from zfcore.ops.window import Regions, cut, output_size
from zfcore.terminal import called


MOST_PADDED = 2**28               # numbers of a picture's maps behind a Pad: a stranger's file does not make them larger


class Step(NamedTuple):
    """Training step: its number, which draws the dropout masks (an array () of uint64 where a step is captured), and
    `piece` (first, N) where x is the pictures from number `first` on of a batch of N that comes in pieces."""
    number: Any
    piece: tuple[int, int] | None = None


@dataclass
class Layer(ABC):
    """A layer called `name`; the head of this file says what each kind must answer and what it may."""
    name: str
    has_weights = has_filters = affine = rectifies = keeps_positive = by_units = keeps_units = has_switches = hands_on = False
    border = 0.0
    precision: ClassVar[Precision] = "fp32"        # of its products
    scores: ClassVar[bool] = False                 # its outputs are those of the network: float32 whatever is stored

    def __post_init__(self) -> None:
        for one in fields(self):                   # the layer's own __post_init__ asks what FORMS does not
            value, form = getattr(self, one.name), FORMS.get(one.name, files.anything)
            whose = type(self).__name__ if one.name == "name" else self.name
            if value is not None or one.default is not None:
                setattr(self, one.name, form(f"{whose}: {one.name}", value))
        self.parameters: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}

    def fields(self) -> Row:
        """{"kind": "Conv", "name": "conv1", "F": 96, ...}: the row of the layer table, as JSON can hold it."""
        return {"kind": type(self).__name__, **{f.name: getattr(self, f.name) for f in fields(self)}}

    @abstractmethod
    def shape_out(self, shape: Shape) -> Shape: ...

    @abstractmethod
    def window(self) -> tuple[int, int, int] | None: ...

    @abstractmethod
    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]: ...

    @abstractmethod
    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]: ...

    @abstractmethod
    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any: ...

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {}

    def buffer_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {}

    def init(self, shape: Shape, seed: int, law: Law, factor: float) -> tuple[dict[str, Array], dict[str, Array]]:
        """({name: array} of parameters, the same of buffers), as training begins with them, of an input of `shape`; `law`
        and `factor` say how large weights are, see `Network.init`."""
        return {}, {}

    def place(self, number: int, shape: Shape) -> None:
        """Learn from the network that this is its layer `number`, which maps (or columns) of `shape` enter."""

    def seeded(self, seed: int) -> None:
        """Learn by which seed to draw in training steps, as dropout does. Most draw nothing."""

    def check_whole(self, count: int, N: int) -> None:
        """Raise Expected where the layer is to learn from `count` pictures of a batch of N and takes no less than all. Most
        take any."""

    def copy_of(self, key: str) -> Array | None:
        """The array of BF16 in which the parameter `key` is kept a second time; None where it is not."""
        return None

    def data_gradient(self, dy: Array, cache: Any) -> Array:
        return pair(self, "backward", self.backward(dy, cache))[0]

    def parameter_gradients(self, dy: Array, cache: Any) -> dict[str, Array]:
        return pair(self, "backward", self.backward(dy, cache))[1]

    @property
    def pixelwise(self) -> bool:
        return self.window() == (1, 1, 0)

    def inside(self, outputs: Any) -> "Layer":
        if not self.pixelwise:
            raise self._unanswered("inside(outputs)", f", or have whole maps computed, by {called('--whole', 'incremental=False')}")
        return self

    def reordered(self, order: Sequence[int]) -> "Layer":
        if not self.by_units:
            raise self._unanswered("reordered(order), or by_units = True")
        return _permuted(self, order)

    def net_weights(self, units: int) -> Array:
        raise self._unanswered("net_weights(units)")

    def reweighted(self, cache: Any) -> Any:
        raise self._unanswered("reweighted(cache)")

    def _unanswered(self, question, otherwise=""):
        return check.Expected(self.name, f"a layer that answers {question}", f"{type(self).__name__}, which does not",
                              f"define it as the head of zfcore/layers.py says{otherwise}")

    def multiply_adds(self, shape: Shape) -> int:
        return 0


class Pixelwise(Layer):
    """A layer each of whose outputs sees one pixel, its own, of all maps."""
    def shape_out(self, shape: Shape) -> Shape:
        return shape

    def window(self) -> tuple[int, int, int]:
        return 1, 1, 0


class Whole(Layer):
    """A layer each of whose outputs sees all of the input."""
    def window(self) -> None:
        return None

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        raise TypeError(f"{type(self).__name__} sees the whole input: it has no cache of a region")


class Weighted(ABC):
    """Base of Conv and Linear: weights "w" (..., outputs), biases "b" (outputs,)."""
    has_weights = affine = True
    precision: Precision = "fp32"
    scores = False
    copied: Any = (None, None)                   # the array of weights that there is a copy of, and that copy
    parameters: dict[str, Array]
    gradients: ClassVar[Callable[..., Any]]      # function(dy, cache, need_dx=True) -> (dx or None, dw, db), the operation's

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        dx, dw, db = self.gradients(dy, cache)
        return dx, {"w": dw, "b": db}

    def parameter_gradients(self, dy: Array, cache: Any) -> dict[str, Array]:
        _, dw, db = self.gradients(dy, cache, need_dx=False)
        return {"w": dw, "b": db}

    def copy_of(self, key: str) -> Array | None:
        w = self.parameters[key]
        if self.precision != "bf16" or key != "w":
            return None
        if self.copied[0] is not w:
            self.copied = w, convert(w, BF16)
        return self.copied[1]

    def factors(self) -> Array:
        """The weights as products take them."""
        copy = self.copy_of("w")
        return self.parameters["w"] if copy is None else copy

    def reordered(self, order: Sequence[int]) -> Any:
        return _permuted(self, order)              # an output is a column of w

    def reweighted(self, cache: Any) -> Any:
        return cache._replace(w=self.factors())

    @abstractmethod
    def net_weights(self, units: int) -> Array:
        """(units,outputs): with what weight each output sees each of `units` maps of the input, or blocks of a flat one that
        are as long, summed over the places at which it sees it."""

    def init(self: Any, shape: Shape, seed: int, law: Law, factor: float) -> tuple[dict[str, Array], dict[str, Array]]:
        """Weights drawn from N(0, std) by a generator of the layer's own, biases 0."""
        shapes = self.parameter_shapes(shape)
        std = 0.01 if law == "gaussian" else np.sqrt(2/np.prod(shapes["w"][:-1]))*factor
        rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(self.name.encode())]))
        return {"w": rng.standard_normal(shapes["w"], np.float32)*np.float32(std), "b": np.zeros(shapes["b"], np.float32)}, {}


@dataclass
class Conv(Weighted, Layer):
    """Convolution with F filters KxK at stride S, padding P, in `groups` (AlexNet); parameters w (C/groups,K,K,F), b (F,)."""
    F: int
    K: int
    S: int = 1
    P: int = 0
    groups: int = 1
    rounding: Literal["ceil", "floor"] = "ceil"
    has_filters, gradients = True, staticmethod(conv2d_backward)

    def shape_out(self, shape: Shape) -> Shape:
        C, H, W = _maps(self, shape)
        if C % self.groups or self.F % self.groups:
            raise check.Expected(self.name, f"maps in and out divisible by {self.groups} groups", f"{C} and {self.F}")
        return (self.F, output_size(H, self.K, self.S, self.P, self.rounding),
                output_size(W, self.K, self.S, self.P, self.rounding))

    def window(self) -> tuple[int, int, int]:
        return self.K, self.S, self.P

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"w": (shape[0]//self.groups, self.K, self.K, self.F), "b": (self.F,)}

    def multiply_adds(self, shape: Shape) -> int:
        return int(np.prod(self.shape_out(shape)))*(shape[0]//self.groups)*self.K**2

    def arguments(self) -> tuple[Array, Array, int, int, int, str]:
        """Arguments of `conv2d` behind x: w, b, S, P, groups, rounding."""
        return self.factors(), self.parameters["b"], self.S, self.P, self.groups, self.rounding

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return conv2d(x, *self.arguments(), precision=self.precision, training=step is not None)

    def net_weights(self, units: int) -> Array:
        w, of_group = self.parameters["w"].sum(axis=(1, 2)), units//self.groups              # (C/groups,F)
        out = zeros((units, self.F), w.dtype, like=w)
        for group, columns in enumerate(range(0, self.F, self.F//self.groups)):
            rows, columns = slice(group*of_group, (group + 1)*of_group), slice(columns, columns + self.F//self.groups)
            out[rows, columns] = w[:, columns]
        return out

    def data_gradient(self, dy: Array, cache: Any) -> Array:
        _, H, W, _ = cache.x.shape
        return conv2d_transpose(dy, cache.w, cache.S, cache.P, H, W, cache.groups, cache.precision)

    def reordered(self, order: Sequence[int]) -> "Layer":
        if self.groups > 1:
            raise check.Expected(self.name, "one group, whose maps may come in any order", self.groups)
        return super().reordered(order)

    def inside(self, outputs: Any) -> "Layer":
        return _without_padding(self)

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        x = cache.x                              # asked for its shape only
        return cache._replace(x=empty((len(x), inputs.size, inputs.size, x.shape[-1]), x.dtype, like=x), P=0)


@dataclass
class MaxPool(Layer):
    """Maximum over windows KxK at stride S, padding P; its cache holds the switches of the deconvnet."""
    K: int
    S: int
    P: int = 0
    rounding: Literal["ceil", "floor"] = "ceil"
    has_switches = keeps_positive = by_units = True
    border = -np.inf

    def shape_out(self, shape: Shape) -> Shape:
        C, H, W = _maps(self, shape)
        return (C, output_size(H, self.K, self.S, self.P, self.rounding),
                output_size(W, self.K, self.S, self.P, self.rounding))

    def window(self) -> tuple[int, int, int]:
        return self.K, self.S, self.P

    def arguments(self) -> tuple[int, int, int, str]:
        """Arguments of `maxpool` behind x: K, S, P, rounding."""
        return self.K, self.S, self.P, self.rounding

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return maxpool(x, *self.arguments())

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return maxpool_backward(dy, cache), {}

    def inside(self, outputs: Any) -> "Layer":
        return _without_padding(self)

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        switches, (shape, K, S, _), y = cache                # nobody looks at y
        return cache._replace(switches=cut(switches, outputs),
                              pooling=Pooling((shape[0], inputs.size, inputs.size, shape[3]), K, S, 0))


@dataclass
class AvgPool(Layer):
    """Mean over windows KxK at stride S, padding P, which at the border divides by what `borders` says (`ops.avgpool`). K None:
    over the whole map, however large, one output a map; S plays no part then, and there is no border."""
    K: int | None = None
    S: int = 1
    P: int = 0
    rounding: Literal["ceil", "floor"] = "ceil"
    borders: Literal["inside", "padded", "clipped"] = "inside"
    keeps_positive = by_units = True
    size = 0, 0                                    # (H,W) of the maps that enter, once the network has said it

    def place(self, number: int, shape: Shape) -> None:
        self.size = shape[1:]                      # type: ignore[assignment]

    def shape_out(self, shape: Shape) -> Shape:
        C, H, W = _maps(self, shape)
        if self.K is None and (self.P, self.rounding, self.borders) != (0, "ceil", "inside"):
            raise check.Expected(self.name, "no padding, rounding or borders where the window is the whole map",
                                 f"P {self.P}, rounding {self.rounding}, borders {self.borders}")
        K, S, P, rounding, _ = self.arguments((H, W))
        return C, output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)

    def window(self) -> tuple[int, int, int]:
        return self.arguments(self.size)[:3]

    def arguments(self, size: Shape) -> tuple[int, int, int, str, Any]:
        """Arguments of `avgpool` behind x of (H,W) `size`: K, S, P, rounding, borders. Of a whole map the longer side is K."""
        return max(size) if self.K is None else self.K, self.S, self.P, self.rounding, self.borders

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return avgpool(x, *self.arguments(x.shape[1:3]))

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return avgpool_backward(dy, cache), {}

    def inside(self, outputs: Any) -> "Layer":
        rows, columns = (np.arange(count)[:, None] + first for count, first in
                         ((outputs.height, outputs.tops), (outputs.width, outputs.lefts)))
        inner = _without_padding(self)
        inner.K, inner.borders = self.window()[0], divisors(self.size, rows, columns, *self.window(), self.borders)
        return inner

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        (C, H, W, N), _, K, S, P, borders = cache
        rows, columns = (np.arange(outputs.size)[:, None] + first for first in (outputs.tops, outputs.lefts))
        return AvgPoolCache((C, inputs.size, inputs.size, N), (outputs.size, outputs.size), K, S, 0,
                            divisors((H, W), rows, columns, K, S, P, borders))


@dataclass
class Pad(Layer):
    """Zeros around the maps: so many rows and columns, where below 0 so many are cut off.

    Its window is square, as all are: where the rows are moved by another number than the columns, it holds more than the pixel
    that an output is, and it always holds the pixel that lies where the output does."""
    top: int
    bottom: int
    left: int
    right: int
    keeps_positive = by_units = keeps_units = True
    pixelwise = False                              # where nothing is moved either: an output may lie beyond the map

    def shape_out(self, shape: Shape) -> Shape:
        C, H, W = _maps(self, shape)
        try:
            out = C, *Frame(*self.arguments()).around(H, W)
        except check.Expected as error:
            raise check.Expected(self.name, error.expected, error.got) from None
        if C*max(out[1:])**2 > MOST_PADDED:
            raise check.Expected(self.name, f"at most {MOST_PADDED} numbers in the padded maps of a picture, seen as squares",
                                 "x".join(map(str, out)))
        return out

    def window(self) -> tuple[int, int, int]:
        lowest, highest = min(self.top, self.left, 0), max(self.top, self.left, 0)
        return 1 + highest - lowest, 1, highest

    def arguments(self) -> tuple[int, int, int, int]:
        """Arguments of `pad` behind x: top, bottom, left, right."""
        return self.top, self.bottom, self.left, self.right

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return pad(x, *self.arguments())

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return pad_backward(dy, cache), {}

    def inside(self, outputs: Any) -> "Layer":
        return Pad(self.name, *self._of_windows())

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        return self._of_windows()

    def _of_windows(self):
        """Frame that leaves, of windows of its input, the windows of its output that see them: it cuts off the rest."""
        K, _, P = self.window()
        return Frame(self.top - P, P - self.top - (K - 1), self.left - P, P - self.left - (K - 1))


@dataclass
class ReLU(Pixelwise):
    """max(x, 0); the cache is the output."""
    rectifies = by_units = True

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return relu(x)

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return relu_backward(dy, cache), {}

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        return cut(cache, outputs)


@dataclass
class LocalResponseNorm(Pixelwise):
    """Local response normalisation (the paper's local contrast normalisation): across n neighbouring maps at one pixel,
    y = x / (k + alpha/n * sum of squares)^beta."""
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    convention: Literal["mean", "sum"] = "mean"
    keeps_positive = True

    def arguments(self) -> tuple[int, float, float, float, str]:
        """Arguments of `local_response_norm` behind x: n, alpha, beta, k, convention."""
        return self.n, self.alpha, self.beta, self.k, self.convention

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return local_response_norm(x, *self.arguments())

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return local_response_norm_backward(dy, cache), {}

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        return cache._replace(x=cut(cache.x, outputs))


@dataclass
class LocalResponseNormWithin(LocalResponseNorm):
    """Local response normalisation within each map: over the n x n pixels around, n odd, y = x / (k + alpha/n^2 * sum of
    squares)^beta. Caffe's region WITHIN_CHANNEL, whose k is always 1."""
    k: float = 1.0
    by_units = True
    P = None                                       # zeros around the maps; None: so many that each pixel has an output

    def shape_out(self, shape: Shape) -> Shape:
        if self.n % 2 == 0:
            raise check.Expected(self.name, "an odd n, whose window has a pixel in the middle", self.n)
        return _maps(self, shape)

    def window(self) -> tuple[int, int, int]:      # type: ignore[override]
        return self.n, 1, self.n//2

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return local_response_norm_within(x, *self.arguments(), self.P)

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return local_response_norm_within_backward(dy, cache), {}

    def inside(self, outputs: Any) -> "Layer":
        return _without_padding(self)

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        return cache._replace(x=cut(cache.x, inputs), rule=cache.rule._replace(P=0))


@dataclass
class BatchNorm(Pixelwise):
    """Normalisation of each map by its mean and variance over the batch, in evaluation by the running ones; of units likewise.

    Parameters gamma, beta (C,), which no weight decay draws to 0; buffers mean, var (C,), moved by `momentum` in a step. In
    evaluation it scales and moves each map: the layer with weights below could do it as well (zfcore/models/folded.py)."""
    eps: float = 1e-5
    momentum: float = 0.1
    by_units = keeps_units = True

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"gamma": shape[:1], "beta": shape[:1]}

    def buffer_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"mean": shape[:1], "var": shape[:1]}

    def init(self, shape: Shape, seed: int, law: Law, factor: float) -> tuple[dict[str, Array], dict[str, Array]]:
        one, zero = np.ones(shape[:1], np.float32), np.zeros(shape[:1], np.float32)
        return {"gamma": one, "beta": zero}, {"mean": zero.copy(), "var": one.copy()}

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        if step is not None and step.piece is not None:
            self.check_whole(x.shape[-1], step.piece[1])
        p, kept, momentum = self.parameters, self.buffers, None if step is None else self.momentum
        return batch_norm(x, p["gamma"], p["beta"], kept["mean"], kept["var"], self.eps, momentum)

    def check_whole(self, count: int, N: int) -> None:
        if count < N:
            raise check.Expected(self.name, f"the whole batch of {N} pictures, whose mean and variance it takes",
                                 f"a piece of {count}", "leave out --micro-batch, and train on one device: several take pieces")

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        dx, dgamma, dbeta = batch_norm_backward(dy, cache)
        return dx, {"gamma": dgamma, "beta": dbeta}

    def parameter_gradients(self, dy: Array, cache: Any) -> dict[str, Array]:
        _, dgamma, dbeta = batch_norm_backward(dy, cache, need_dx=False)
        return {"gamma": dgamma, "beta": dbeta}

    def data_gradient(self, dy: Array, cache: Any) -> Array:
        return batch_norm_transpose(dy, cache)

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        if cache.training:
            raise TypeError("the statistics of a training step are not those of regions: project in evaluation")
        return cache._replace(x=cut(cache.x, outputs))


@dataclass
class Flatten(Whole):
    """(C,H,W,N) -> (C*H*W,N), the maps of one picture as one column; the cache is x's shape."""
    hands_on = keeps_positive = by_units = True    # one place a map: the network sees to that

    def shape_out(self, shape: Shape) -> Shape:
        return (int(np.prod(shape)),)

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return x.reshape(-1, x.shape[-1]), x.shape

    def backward(self, dy: Array, shape: Shape) -> tuple[Array, dict[str, Array]]:
        return dy.reshape(shape), {}


@dataclass
class Linear(Weighted, Whole):
    """Fully connected: y = w' x + b with M outputs; parameters w (D,M), b (M,)."""
    M: int
    gradients = staticmethod(linear_backward)

    def shape_out(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise check.Expected(self.name, "a flat input (D,)", shape, "put a Flatten before it")
        return (self.M,)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"w": (shape[0], self.M), "b": (self.M,)}

    def multiply_adds(self, shape: Shape) -> int:
        return shape[0]*self.M

    def forward(self, x: Array, step: Step | None = None, relu: bool = False) -> tuple[Array, Any]:
        return linear(x, self.factors(), self.parameters["b"], self.precision, self.scores, step is not None, relu)

    def net_weights(self, units: int) -> Array:
        return self.parameters["w"].reshape(units, -1, self.M).sum(axis=1)

    def data_gradient(self, dy: Array, cache: Any) -> Array:
        return linear_transpose(dy, cache.w, cache.precision)


@dataclass
class Dropout(Pixelwise):
    """Dropout: in training keeps each unit with probability keep_prob, scaled by 1/keep_prob; else does nothing, and
    its cache is None. Which units are kept follows from (seed, number of the layer, step) alone."""
    keep_prob: float = 0.5
    seed: int = 0
    number: int = 0
    hands_on = keeps_positive = by_units = True

    def place(self, number: int, shape: Shape) -> None:
        self.number = number

    def seeded(self, seed: int) -> None:
        self.seed = seed

    def forward(self, x: Array, step: Step | None = None) -> tuple[Array, Any]:
        return (x, None) if step is None else dropout(x, self.keep_prob, (self.seed, self.number, step.number), step.piece)

    def backward(self, dy: Array, cache: Any) -> tuple[Array, dict[str, Array]]:
        return (dy if cache is None else dropout_backward(dy, cache)), {}

    def cut_cache(self, cache: Any, outputs: Regions, inputs: Regions) -> Any:
        if cache is not None:
            raise TypeError("the mask of a training step is not cut: project in evaluation")
        return None


KINDS = {kind.__name__: kind for kind in (Conv, MaxPool, AvgPool, Pad, ReLU, LocalResponseNorm, LocalResponseNormWithin,
                                          BatchNorm, Flatten, Linear, Dropout)}
FORMER = {"ContrastNorm": LocalResponseNorm.__name__}            # kinds by the names they have in older checkpoints


# The form of the fields that layers have, whatever their kind: of other fields their own kind must ask, in __post_init__. What fits
# together is asked by `shape_out`.
FORMS = {"name": files.name, **{size: files.whole(1, 2**24) for size in ("F", "M", "K", "S", "groups", "n")},
         "P": files.whole(0, 2**24), **{rim: files.whole(-2**14, 2**14) for rim in ("top", "bottom", "left", "right")},
         "rounding": files.choice("ceil", "floor"), "borders": files.choice("inside", "padded", "clipped"),
         "convention": files.choice("mean", "sum"), "alpha": files.real(0), "beta": files.real(0), "k": files.real(0),
         "eps": files.real(above=0), "momentum": files.real(0, 1), "keep_prob": files.real(0, 1, above=0),
         "seed": files.whole(), "number": files.whole()}


def pair(layer: Layer, method: str, given: Any) -> tuple[Any, Any]:
    """Return the two things that a layer's `method` has given. Raises Expected for anything else."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise check.Expected(f"{layer.name}: {method}", "two things returned, as the head of zfcore/layers.py says", files.said(given))
    return given


def check_maps(layer: Layer, method: str, maps: Array, like: Array, shape: Shape) -> Array:
    """The `maps` that a layer's `method` has made of `like`. Raises Expected unless they are of this shape, with as many pictures,
    and of its type; where it is float32 they may be stored."""
    what = f"{layer.name}: what {method} returns"
    check.shape(what, maps, (*shape, like.shape[-1]))
    if like.dtype.kind == "f" and maps.dtype not in (like.dtype, BF16):
        raise check.Expected(what, like.dtype, maps.dtype, f"astype(np.{like.dtype})")
    return maps


def renamed(row: Row) -> Row:
    """A row of a layer table, of whatever age, with the kind's name of today."""
    kind = row.get("kind")
    return {**row, "kind": FORMER[kind]} if isinstance(kind, str) and kind in FORMER else row


def from_fields(row: Mapping[str, Any]) -> Layer:
    """The layer whose `fields()` gave `row`. Raises Expected for a kind or field that there is not, or a value that is none."""
    kind: Any = row.get("kind") if isinstance(row, dict) else row
    if not isinstance(kind, str) or kind not in KINDS:
        raise check.Expected("layer table: kind", f"one of {', '.join(KINDS)}", files.said(kind),
                             "a kind of your own is entered in zfcore.layers.KINDS first: for a command by a script that enters it and "
                             "then calls the command's main, such as zfcore.__main__.main(), in one process: others do not know it")
    given = {key: value for key, value in row.items() if key != "kind"}
    needed, optional = ({one.name: files.anything for one in fields(KINDS[kind]) if (one.default is MISSING) == is_needed}
                        for is_needed in (True, False))
    return KINDS[kind](**files.table(needed, optional)(f"layer table: fields of {kind} {files.said(row.get('name'))}", given))


def _permuted(layer, order):
    """The layer with the last axis of its arrays in another order. Raises Expected where that is not one entry a unit, or one for all."""
    def moved(key, array):
        if array.shape[-1:] in ((), (1,)):
            return array
        check.shape(f"{layer.name}: {key}, whose last axis are to be the units", array, (*array.shape[:-1], len(order)))
        return array[..., order]

    twin = copy(layer)
    twin.parameters, twin.buffers = ({key: moved(key, array) for key, array in arrays.items()}
                                     for arrays in (layer.parameters, layer.buffers))
    return twin


def _without_padding(layer):
    """The layer with the same parameters and P = 0."""
    inner = copy(layer)
    inner.P = 0
    return inner


def _maps(layer, shape):
    if len(shape) != 3:
        raise check.Expected(layer.name, "maps (C,H,W) as input", shape)
    return shape
