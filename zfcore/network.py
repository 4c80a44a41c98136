"""Floor 3: a network is named layers in a row.

    y, caches = network.forward(x)               caches: one cache per layer, the switches of the pools among them
    dx, grads = network.backward(dy, caches)     grads: {layer name: {"w": dw, "b": db}}

`backward` walks the caches from their end to the pixels. A table of `rules` replaces what a kind of layer hands down by
something else; that is all the difference between the gradient and the deconvnet (zfcore/deconvnet.py).

In precision bf16 maps are stored so between the layers, in caches and in what `steps` yields (zfcore/ops/convert.py). What a
network is given may be float32, and what it returns otherwise always is: scores, activations, pixels, gradients.
"""
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from inspect import signature
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from zfcore import check, files
from zfcore.backend import BF16, CPU, Device, check_device, to_host
from zfcore.fusion import backward_pass, kept, walk
from zfcore.hints import Array, Arrays, Law, Precision, Row, Shape
from zfcore.layers import Layer, Step, check_maps, pair
from zfcore.ops.conv2d import check_precision
from zfcore.ops.convert import convert, in_float
from zfcore.terminal import plural

Rule: TypeAlias = Callable[[Any, Array, Any], Array]            # (layer, dy, cache) -> dx
Rules: TypeAlias = Mapping[type[Layer], Rule]                   # of some kinds of layer


class Caches(list[Any]):
    """Caches of the layers from the pixels up, as `forward` leaves them, which know of which network they are."""

    def __init__(self, network: "Network") -> None:
        super().__init__()
        self.network = network


class Network:
    """`layers` applied in order to pictures of `input_shape` (C,H,W); `name` is the model's. The network has copies of the
    layers, which share their arrays: what it tells them, of their place and seed, it tells no other network's."""

    def __init__(self, name: str, input_shape: Sequence[int], layers: Iterable[Layer]) -> None:
        self.name, self.input_shape = files.name("network", name), _shape_of(f"network {name}: input", input_shape)
        self.layers = layers = [_copied(_layer_of(name, layer)) for layer in layers]
        names = [layer.name for layer in layers]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise check.Expected(name, "layers of different names", f"{twice[0]} twice")
        self.drawn: tuple[int, Law] | None = None          # seed and law that `init` drew weights by, whatever became of them
        self.shapes = [self.input_shape]                   # shapes[k] enters layers[k], shapes[k+1] leaves it
        for number, layer in enumerate(self.layers):
            self.shapes.append(layer.shape_out(self.shapes[-1]))
            layer.place(number, self.shapes[number])
            learned = layer.parameter_shapes(self.shapes[number])
            for key in (*learned, *layer.buffer_shapes(self.shapes[number])):      # a file has them by their names, as the layers
                files.name(f"{name}: {layer.name}: name of an array", key)
            _check_weights(f"{name}: {layer.name}", layer, learned, *self.shapes[number:number + 2])
        _check_table(name, self.table())

    # ------------------------------------------------------------------------------------------ forward, backward
    def forward(self, x: Array, step: int | None = None, until: str | None = None,
                piece: tuple[int, int] | None = None) -> tuple[Array, list[Any]]:
        """x (C,H,W,N) -> (y, caches), through all layers or through the layer named `until`.

        `step` is the number of the training step; None evaluates: nothing is dropped, no statistics are taken.
        `piece` (first, N) says that x is the pictures from number `first` on of a batch of N that comes in pieces: each
        picture then meets the dropout mask that it would meet in the whole batch.
        Layers that share a pass over memory are computed together (zfcore/fusion.py); what comes of each is the same."""
        caches = Caches(self)
        for _, x, cache in self.steps(x, step, until, piece):
            caches.append(cache)
        if step is not None:
            self._check_left(np.float32, *[np.float64]*(x.dtype == np.float64))
        return in_float(x), caches

    def steps(self, x: Array, step: int | None = None, until: str | None = None,
              piece: tuple[int, int] | None = None) -> Iterator[tuple[Layer, Array, Any]]:
        """`forward` step by step: yields (layer, output, cache), and keeps nothing of it. Of layers that are computed together
        those below the last may yield its output as theirs."""
        self._check_ready(x)
        step = _step(step, piece)
        layers = self.layers if until is None else self.layers[:self.index(until) + 1]
        return walk(layers, self.stored(x), step, self.shapes[1:])

    def _check_ready(self, x):
        """Raise Expected unless all layers have what they learn, and x may enter."""
        what = f"{self.name}: pictures"
        self._check_parameters()
        check.shape(what, x, (*self.input_shape, None))
        if not x.shape[-1]:
            raise check.Expected(what, "one or more", "none")
        self.check_dtype(what, x)

    def check_dtype(self, what: str, array: Array) -> None:
        """Raise Expected unless the array, of what goes up or down, has the dtype of the parameters, or where there are none
        float32 or float64; in precision bf16 it may be stored."""
        own = self.dtype or (array.dtype if array.dtype == np.float64 else np.dtype(np.float32))
        check.dtype(what, array, own, *[BF16]*self.in_bf16, advice=f"this network computes in {own}: astype(np.{own})")

    def check_caches(self, dy: Array, caches: Sequence[Any]) -> None:
        """Raise Expected unless the caches are of this network, or of one alike, and dy of the output of their last layer, in
        the network's dtype."""
        check.instance("caches", caches, (list, tuple), "forward returns them behind its output")
        of = caches.network if isinstance(caches, Caches) else self
        if of is not self and (of.input_shape, of.table()) != (self.input_shape, self.table()):
            raise check.Expected("caches", f"those of this network, {self.name}", f"those of another, {of.name}")
        if len(caches) > len(self.layers):
            raise check.Expected("caches", f"one for each of {plural(len(self.layers), 'layer')}", len(caches))
        check.shape(f"{self.name}: dy", dy, (*self.shapes[len(caches)], None))
        self.check_dtype(f"{self.name}: dy", dy)

    def _check_parameters(self):
        for layer, shape in zip(self.layers, self.shapes):
            if (wanted := layer.parameter_shapes(shape)) and not layer.parameters:
                raise check.Expected(f"{self.name}: {layer.name}", "weights", "none yet", "init(seed) draws the network's, "
                                     "load(parameters) takes those there are, zfcore.open(...) opens a trained one")
            check_arrays(f"{self.name}: parameters of {layer.name}", f"{layer.name}.", layer.parameters, wanted)

    def _check_left(self, *dtypes):
        """Raise Expected unless a training pass left all arrays, of these dtypes, as the layers told of them: no checkpoint holds
        others."""
        for layer, shape in zip(self.layers, self.shapes):
            for what, arrays, shapes in (("parameters", layer.parameters, layer.parameter_shapes(shape)),
                                         ("buffers", layer.buffers, layer.buffer_shapes(shape))):
                if arrays or shapes:
                    check_arrays(f"{layer.name}: {what} that forward leaves", f"{layer.name}: forward leaves ", arrays, shapes)
                for key, array in arrays.items():
                    check.dtype(f"{layer.name}: forward leaves {key}", array, *dtypes)

    def stored(self, maps: Array) -> Array:
        """`maps` as the layers take them and leave them: in precision bf16 as BF16."""
        return convert(maps, BF16) if self.in_bf16 else maps

    @property
    def in_bf16(self) -> bool:
        """Return whether maps are stored as BF16."""
        return any(layer.precision == "bf16" for layer in self.weighted)

    def backward(self, dy: Array, caches: Sequence[Any], rules: Rules | None = None,
                 to_pixels: bool = True, take: Callable[[str, dict[str, Array]], object] | None = None
                 ) -> tuple[Array, dict[str, dict[str, Array]]]:
        """dy, shaped like the output of the last traced layer -> (dx, grads).

        rules       {kind of layer: function(layer, dy, cache) -> dx} for kinds that hand down something else than their
                    gradient; then, with {} too, grads are not computed. None: the gradient of everything. Rules want caches of
                    an evaluation: a training step keeps none of a ReLU that it computes together with the pool above it
        to_pixels   False in training: the first layer's data gradient, which nobody reads, is not computed (dx None)
        take        is handed (layer name, its gradients) as soon as a layer with some has them; grads is then empty"""
        self.check_caches(dy, caches)
        if rules is not None:
            check_rules(rules)
        ways = [] if rules is None else [rule_of(layer, rules) for layer in self.layers[:len(caches)]]
        grads, k, dy = {}, len(caches) - 1, self.stored(dy)
        while k >= 0:
            count, together = backward_pass(self.layers[:k + 1], rules)
            k -= count - 1                                 # of those that share a pass, to the lowest
            layer = next((one for one in self.layers[k:k + count] if one.parameters), self.layers[k])
            if together is not None:
                dy, grads[layer.name] = together(dy, caches[k:k + count], k > 0 or to_pixels)
            elif rules is not None:
                dy = check_maps(layer, "its rule", ways[k](layer, dy, kept(layer, caches[k])), dy, self.shapes[k])
            elif k == 0 and not to_pixels:
                dy, grads[layer.name] = None, _gradients(layer, layer.parameter_gradients(dy, caches[k]))
            else:
                dx, of_layer = pair(layer, "backward", layer.backward(dy, kept(layer, caches[k])))
                dy, grads[layer.name] = check_maps(layer, "backward", dx, dy, self.shapes[k]), _gradients(layer, of_layer)
            if take is not None and (of_layer := grads.pop(layer.name, None)):
                take(layer.name, of_layer)
            k -= 1
        return None if dy is None else in_float(dy), {name: of_layer for name, of_layer in grads.items() if of_layer}

    def activations(self, x: Array, names: Iterable[str]) -> dict[str, Array]:
        """{name: output of that layer} for pictures x, in evaluation; in the order of the network, whatever that of `names` is.
        What a layer hands on as it is, as Flatten does, is one array with what it was given, x itself perhaps: whoever writes into
        one writes into both."""
        self._check_ready(x)
        wanted = {self.index(name) for name in check.names("names", names, none=True)}
        out, x = {}, self.stored(x)
        for k, layer in enumerate(self.layers[:max(wanted, default=-1) + 1]):
            [(_, x, _)] = walk([layer], x, leaving=[self.shapes[k + 1]])               # by itself: its own output is asked for
            if k in wanted:
                out[layer.name] = in_float(x)
        return out

    def copy(self) -> "Network":
        """The same network with layers of its own. The arrays they share: `layer.parameters["w"] = other` replaces one's own
        alone, but what is written into an array, as by `w[...] = 0` or `SGD.step`, is written into that of both. `copy.deepcopy`
        shares nothing, and `Training.begin` none of the arrays of a network that it is given."""
        twin = Network(self.name, self.input_shape, self.layers)
        twin.drawn = self.drawn
        return twin

    # -------------------------------------------------------------------------------------------------- parameters
    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the parameters, in which the network computes; None where it has none."""
        return next((one.dtype for layer in self.layers for one in layer.parameters.values()), None)

    def in_dtype(self, dtype: DTypeLike) -> "Network":
        """The network with all its arrays in this dtype, itself where its parameters are."""
        if self.dtype == dtype:
            return self
        twin = self.copy()
        for layer in twin.layers:
            layer.parameters, layer.buffers = ({key: array.astype(dtype) for key, array in arrays.items()}
                                               for arrays in (layer.parameters, layer.buffers))
        return twin._copied()

    def index(self, name: str) -> int:
        """Place of the layer called `name`. Raises Expected where there is none."""
        names = [layer.name for layer in self.layers]
        check.one_of("layer", name, names)
        return names.index(name)

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} {self.name}: {'x'.join(map(str, self.input_shape))} pictures, "
                f"{plural(len(self.layers), 'layer')}, {_thousands(self.parameter_count())} parameters>")

    def __getitem__(self, name: str) -> Any:                  # a Layer of whatever kind
        return self.layers[self.index(name)]

    @property
    def weighted(self) -> list[Any]:
        """The layers with weights, from the pixels up."""
        return [layer for layer in self.layers if layer.has_weights]

    @property
    def convolutions(self) -> list[Any]:
        """Layers whose weights are filters."""
        return [layer for layer in self.layers if layer.has_filters]

    @property
    def colour_filters(self) -> Array | None:
        """w (3,K,K,F) of the first layer, where these are filters that see all three colours and so are pictures; else None."""
        first = self.layers[0]
        return first.parameters["w"] if first.has_filters and len(first.parameters["w"]) == 3 == self.input_shape[0] else None

    def parameter_shapes(self) -> dict[str, dict[str, Shape]]:
        """{layer name: {"w": shape, "b": shape}} of the layers that have parameters."""
        shapes = {layer.name: layer.parameter_shapes(shape) for layer, shape in zip(self.layers, self.shapes)}
        return {name: of_layer for name, of_layer in shapes.items() if of_layer}

    def buffer_shapes(self) -> dict[str, dict[str, Shape]]:
        """{layer name: {name: shape}} of the layers that keep something beside their parameters."""
        shapes = {layer.name: layer.buffer_shapes(shape) for layer, shape in zip(self.layers, self.shapes)}
        return {name: of_layer for name, of_layer in shapes.items() if of_layer}

    def buffers(self) -> dict[str, dict[str, Array]]:
        """{layer name: {name: array}}, the arrays themselves."""
        return {layer.name: layer.buffers for layer in self.layers if layer.buffers}

    def parameters(self) -> dict[str, dict[str, Array]]:
        """{layer name: {"w": array, "b": array}}, the arrays themselves."""
        return {layer.name: layer.parameters for layer in self.layers if layer.parameters}

    def init(self, seed: int = 0, law: Law = "gaussian", device: Device = CPU) -> "Network":
        """Draw the parameters: biases 0, weights from N(0, std), a generator per layer so that changing one layer
        leaves the others' start alone.

        "gaussian"   std = 0.01 everywhere, made for pictures of +-128 (paper, section 3)
        "he"         std = sqrt(2/fan_in), which keeps the signal's size from layer to layer; the first layer's is divided
                     by 8 and the last one's by 64. Pixels have a spread of about 64: so the maps start near 8 and the
                     scores below 1, and a step moves the scores about as much through layer 1, where the pixels make
                     gradients large, as through the layers above it

        Raises Expected for another law, for a seed that is no whole number from 0 to 2^63 - 1, and, before anything is taken over,
        for a layer that draws other arrays than it told."""
        check.one_of("init", law, ("gaussian", "he"))
        check_device(device)
        seed = check.seed("seed", seed)
        first, last = (self.weighted or [None])[0], (self.weighted or [None])[-1]
        drawn = [_drawn(layer, shape, seed, law, 1/8 if layer is first else 1/64 if layer is last else 1)
                 for layer, shape in zip(self.layers, self.shapes)]
        for layer, of_layer in zip(self.layers, drawn):
            layer.parameters, layer.buffers = ({key: device.array(array) for key, array in arrays.items()} for arrays in of_layer)
            layer.seeded(seed)
        self.drawn = seed, law
        return self._copied()

    def load(self, parameters: Arrays, device: Device = CPU, buffers: Arrays | None = None) -> "Network":
        """Take over {layer name: {"w": array, "b": array}}, and {layer name: {...}} of the layers with buffers, as float32; on a CPU
        arrays that are that already, C-contiguous and may be written into themselves, which the network then shares, as `copy`
        does. Raises Expected, before anything is taken over, for other names or shapes, for what are no real numbers, and for
        those that are not finite in float32."""
        given = {"parameters": (self.parameter_shapes(), parameters),
                 "buffers": (self.buffer_shapes(), {} if buffers is None else buffers)}
        check_device(device)
        taken = []
        for what, (shapes, arrays) in given.items():
            check.instance(f"{self.name}: {what}", arrays, Mapping)
            if set(arrays) != set(shapes):
                raise check.Expected(f"{self.name}: {what}", f"the layers {_listed(shapes)}", _listed(arrays))
            for name, of_layer in shapes.items():
                check_arrays(f"{self.name}: {what} of {name}", f"{name}.", arrays[name], of_layer)
                taken.append((name, what, {key: _single(f"{name}.{key}", arrays[name][key]) for key in of_layer}))
        for name, what, of_layer in taken:
            setattr(self[name], what, {key: device.array(array) for key, array in of_layer.items()})
        return self._copied()

    def use(self, precision: Precision) -> "Network":
        """Let all layers with weights form their products in this one of PRECISIONS from now on, and in bf16 maps be stored so.
        It is a way to compute, not a part of the network: parameters stay float32, and no checkpoint keeps it. Raises Expected
        where the device of the parameters does not have it."""
        self._check_parameters()
        for layer in self.weighted:
            check_precision("precision", layer.parameters["w"], precision)
            layer.precision, layer.scores = precision, layer is self.layers[-1]
            layer.copied = None, None                      # one from before may be old: in fp32 nobody kept it up
        return self._copied()

    def _copied(self):
        """The network, with the copies that its precision takes made now and not in a step that is recorded."""
        for layer in self.weighted:
            layer.copy_of("w")
        return self

    # ----------------------------------------------------------------------------------------------------- the table
    def table(self) -> list[Row]:
        """The layer table as JSON can hold it; `models.from_table` builds the network again."""
        return [layer.fields() for layer in self.layers]

    def parameter_count(self) -> int:
        """Number of weights and biases of all layers."""
        return sum(int(np.prod(shape)) for of_layer in self.parameter_shapes().values() for shape in of_layer.values())

    def receptive_fields(self) -> list[tuple[int, int, int] | None]:
        """Per layer (field, jump, start): the width in pixels that one unit sees, the distance between two neighbours'
        fields, and where the field of unit (0,0) starts. None from the first layer on that sees all of its maps, as a Flatten."""
        field, jump, start = 1, 1, 0
        out: list[tuple[int, int, int] | None] = []
        for layer in self.layers[:self.windowed]:
            K, S, P = layer.window()                       # type: ignore[misc]   # it has one
            field, start, jump = field + (K - 1)*jump, start - P*jump, jump*S
            out.append((field, jump, start))
        return out + [None]*(len(self.layers) - len(out))

    @property
    def windowed(self) -> int:
        """Number of the layers, from the pixels up, whose outputs are maps and see windows of maps: what is behind them sees all
        of the picture."""
        seeing_all = (k for k, layer in enumerate(self.layers) if layer.window() is None or len(self.shapes[k + 1]) == 1)
        return next(seeing_all, len(self.layers))

    def summary(self) -> str:
        """The network as a table: layer, output size, parameters, multiply-adds, receptive field and jump."""
        rows = [f"{self.name}: {'x'.join(map(str, self.input_shape))} pictures"]
        wide = max(10, *(len(layer.name) + 1 for layer in self.layers))
        kinds = max(18, *(len(type(layer).__name__) + 1 for layer in self.layers))
        rows.append(f"{'layer':{wide}}{'kind':{kinds}}{'output':>15}{'parameters':>13}{'mult-adds':>15}{'field/jump':>12}")
        total = 0
        for layer, shape, out, seen in zip(self.layers, self.shapes, self.shapes[1:], self.receptive_fields()):
            count = sum(int(np.prod(s)) for s in layer.parameter_shapes(shape).values())
            work = layer.multiply_adds(shape)
            total += work
            rows.append(f"{layer.name:{wide}}{type(layer).__name__:{kinds}}{'x'.join(map(str, out)):>15}"
                        f"{_thousands(count):>13}{_thousands(work):>15}{'%d/%d' % seen[:2] if seen else 'all':>12}")
        rows.append(f"{'sum':{wide}}{'':{kinds}}{'':>15}{_thousands(self.parameter_count()):>13}{_thousands(total):>15}")
        return "\n".join(rows)


def check_arrays(what: str, prefix: str, arrays: Any, shapes: Mapping[str, Shape],
                 dtypes: Mapping[str, DTypeLike] | None = None) -> None:
    """Raise Expected unless `arrays`, which are called `what`, and each by its name behind the `prefix`, have these names and
    shapes, and these dtypes; None: any."""
    check.instance(what, arrays, Mapping)
    if arrays.keys() != shapes.keys():
        raise check.Expected(what, _listed(shapes), _listed(arrays))
    for key, shape in shapes.items():
        check.shape(f"{prefix}{key}", arrays[key], shape)
        if dtypes is not None:
            check.dtype(f"{prefix}{key}", arrays[key], dtypes[key])


def _single(what, array):
    """The numbers on the host, as float32 in C order that may be written into."""
    numbers = check.numbers(what, to_host(array), words="real numbers")
    with np.errstate(over="ignore"):
        single = np.require(numbers, np.float32, ["C", "W"])
    check.finite(what if single is numbers else f"{what} in float32", single)
    return single


def _drawn(layer, shape, *how):
    """({name: array} of parameters, the same of buffers) that the layer begins with."""
    found = pair(layer, "init", layer.init(shape, *how))
    for what, arrays, shapes in zip(("parameters", "buffers"), found, (layer.parameter_shapes(shape), layer.buffer_shapes(shape))):
        check_arrays(f"{layer.name}: {what} that init returns", f"{layer.name}: init: ", arrays, shapes,
                     dict.fromkeys(shapes, np.float32))
        for key, array in arrays.items():
            check.finite(f"{layer.name}: init: {key}", array)
    return found


def _gradients(layer, grads):
    """The gradients that the layer has for its parameters."""
    check_arrays(f"{layer.name}: gradients that backward returns", f"{layer.name}: gradient of ", grads,
                 {key: array.shape for key, array in layer.parameters.items()},
                 {key: array.dtype for key, array in layer.parameters.items()})
    return grads


def _step(step, piece):
    """The training's Step, or None. Raises Expected for what is no number of one, on whatever device, and no piece (first, N) of
    a batch."""
    if step is not None and not (getattr(step, "shape", None) == () and step.dtype == np.uint64):
        step = check.whole("step", step, 0, 2**64 - 1)
    if piece is not None:
        check.shape("piece", piece := check.whole_numbers("piece", piece), (2,))
        piece = tuple(piece.tolist())
    return None if step is None else Step(step, piece)


def check_rules(rules: Rules) -> None:
    """Raise Expected unless it is a table of functions for kinds of layer."""
    check.instance("rules", rules, Mapping, "zfcore.GRADIENT, with no rules, is the gradient")
    for kind, rule in rules.items():
        if not (isinstance(kind, type) and issubclass(kind, Layer)):
            raise check.Expected("rules", "kinds of layer, such as zfcore.layers.ReLU itself, as keys", repr(kind),
                                 _if_again(kind))
        if not _takes_three(rule):
            raise check.Expected(f"rules: {kind.__name__}", "a function (layer, dy, cache) -> dx", repr(rule))


def _takes_three(rule):
    """Return whether it is a function of three arguments, or one that does not tell of how many."""
    try:
        signature(rule).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def rule_of(layer: Layer, rules: Rules) -> Rule:
    """The function (layer, dy, cache) -> dx that `rules` has for the layer's kind, or the kind that it descends from; the
    layer's own gradient where they have none. Raises Expected for rules of a kind of the same name that is another class: one
    that was loaded or defined again."""
    kinds = type(layer).__mro__
    for kind in kinds:
        if kind in rules:
            return rules[kind]
    names = {kind.__name__ for kind in kinds}
    if stale := [kind.__name__ for kind in rules if kind.__name__ in names]:
        raise check.Expected(f"rules: {stale[0]}", f"the class that layer {layer.name} is of", f"another one called {stale[0]}",
                             "a module loaded again has other classes: make network and rules by the same ones")
    return type(layer).data_gradient


def _copied(layer):
    twin = copy(layer)
    twin.parameters, twin.buffers = dict(layer.parameters), dict(layer.buffers)
    return twin


def _layer_of(name, layer):
    """The layer, of the network called `name`. Raises Expected for what is none."""
    if isinstance(layer, type) and issubclass(layer, Layer):
        raise check.Expected(f"network {name}", "layers", f"the class {layer.__name__}", f"{layer.__name__}(...) makes a layer")
    if not isinstance(layer, Layer):
        raise check.Expected(f"network {name}", "layers, whose kinds zfcore.layers has", files.said(layer), _if_again(type(layer)))
    return layer


def _if_again(kind):
    """Advice where a class would be a kind of layer, were the module not loaded a second time."""
    again = isinstance(kind, type) and any(one.__name__ == Layer.__name__ for one in kind.__mro__)
    return "zfcore.layers was loaded a second time, whose classes are others: start Python anew" if again else ""


def _check_weights(where, layer, learned, shape, out):
    """Raise Expected unless the arrays that the layer learns, from maps of `shape` to those of `out`, are what it says of them."""
    said = [word for word in ("has_weights", "has_filters", "affine") if getattr(layer, word)]
    if not said:
        return
    if "w" not in learned:
        raise check.Expected(where, f"weights called w, as it says {said[0]}", _listed(learned))
    w = learned["w"]
    if layer.has_filters and not (len(w) == 4 and w[1] == w[2] and w[3] == out[0] and w[0] and shape[0] % w[0] == 0):
        raise check.Expected(f"{where}: w", f"filters (C,K,K,{out[0]}) of C of its {shape[0]} maps, as it says has_filters", w)
    if layer.affine and not w[-1:] == learned.get("b") == out[:1]:
        raise check.Expected(where, f"w (...,{out[0]}) and b ({out[0]},), as it says affine",
                             ", ".join(f"{key} {one}" for key, one in learned.items()))


def _check_table(name, table):
    """Raise Expected unless JSON gives the layer table back equal: else the network in a file were another than this one, `name`."""
    if _is_given_back(table):
        return
    row, key = next((row, key) for row in table for key, value in row.items() if not _is_given_back(value))
    raise check.Expected(f"{name}: {row['name']}: {key}", "what JSON gives back equal", f"{row[key]!r:.60}",
                         "it has numbers, texts, True, False, None, lists, and dicts whose names are texts")


def _is_given_back(value):
    try:
        return files.parsed("layer table", json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _shape_of(where, shape):
    """(C,H,W) of pictures."""
    return tuple(files.listed(files.whole(1, 2**14), 3, 3)(where, list(shape) if np.iterable(shape) else shape))


def _listed(names):
    return ", ".join(map(str, names)) or "none"


def _thousands(count):
    return f"{count:,}" if count else ""
