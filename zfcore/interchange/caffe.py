"""Caffe: a .caffemodel, where the weights lie under their layers' names, and the .prototxt that says how the layers lie.

Both forms are read, `layers` (V1) and `layer`, of deployment and of training: there the layers of the test are taken, and
losses are left out. Layers that call what they make by the name of what they read make another tensor of it: tensors are called
by the layers that make them, as OpenCV does. OpenCV before version 5 is the engine, since Caffe itself is hardly to be had.
"""
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zfcore import check
from zfcore.files import inside, read_bytes
from zfcore.interchange.caffe_proto import (KINDS, MOST_FILE, MOST_LAYERS, MOST_TEXT, PARAMETERS, message, numbers, read_net,
                                            read_text_net, shape_of, words)
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Dropping, Flattening, Foreign, MaxPooling,
                                        Node, Probabilities, Rectifier, ResponseNorm, Window, in_a_row, unsupported)
from zfcore.interchange.means import read_mean

HINT = 'pip install "opencv-python-headless<5"'
V1_KINDS = {"RELU": "ReLU", "LRN": "LRN", "HDF5_DATA": "HDF5Data", "SOFTMAX_LOSS": "SoftmaxWithLoss"}     # else InnerProduct
KNOWN = {"Convolution", "InnerProduct", "Pooling", "ReLU", "LRN", "BatchNorm", "Scale", "Power", "Dropout", "Softmax",
         "Flatten"}
DATA = {"Input", "Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData"}
LEFT_OUT = {"SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss", "Accuracy", "Silence"}
BRANCHES = {"Eltwise", "Concat", "Slice"}
TEST = 1                          # the phase
MOST_SIDE = 4096                  # pixels of a side of pictures, and of padding


def read(path: Path, graph: Path | None, model: str | None) -> Foreign:
    """The network of a .caffemodel whose layers the prototxt `graph` has; None: the one beside it, else the .caffemodel itself.

    Raises Expected for a file that is damaged, of another network, or no such file; Unsupported, naming the layer, for what
    zfcore has no layer for."""
    if model is not None:
        raise check.Expected("--model", "none, since a network of Caffe has its layers in a prototxt", model, "say --graph")
    weights, notes = read_net(path), []
    if graph is None:
        graph = _beside(path, notes)
    where = graph or path
    net = weights if graph is None else read_text_net(graph)
    layers = _layers(where, net)
    if graph is None and not any(layer.bottoms for layer in layers):
        raise check.Expected(path, "layers that say what they read", "weights alone", "say --graph with its prototxt")
    if graph is not None:                                  # Caffe writes into a .caffemodel what its rules have left
        kept = [layer for layer in layers if _is_of_the_test(net.state, layer.message)]
    else:
        kept = layers
    entering, steps = _steps(where, net, kept, notes)
    row = in_a_row(where, steps, entering.name)
    of_weights = _layers(path, weights)
    reading = _Reading(path, where, _blobs(path, of_weights))
    shape = _input_shape(path, where, entering, row, reading.blobs)
    nodes = reading.converted(row, shape[0])
    brought_by = (layer for layer in (entering.layer, *of_weights) if layer and layer.kind in DATA - {"Input"})
    seen, told = _preprocessing(where, next(brought_by, None), shape[0])
    if unused := sorted(reading.blobs.keys() - {step.name for step in row}):
        notes.append(f"weights of layers that are not in {where.name} are left aside: {', '.join(unused)[:200]}")
    beyond = _beyond_opencv(row, reading.blobs)
    if graph is not None and _is_deployed(net, layers, kept):
        text = read_bytes(graph, MOST_TEXT)
    else:
        text = _deployed(entering.name, shape, kept)
    return _with_engine(Foreign("Caffe", path, entering.name, shape, nodes, preprocessing=seen, told=told,
                                notes=notes), text, beyond)


# ---------------------------------------------------------------------------------------------------------------- layers
@dataclass
class _Layer:
    """A layer in either form; `kind` in the newer one's words."""
    name: str
    kind: str
    bottoms: list[str]
    tops: list[str]
    message: Any

    def said(self, parameter):
        """Fields of its message `parameter`; all as they are meant where nothing is said."""
        if hasattr(self.message, parameter):
            return getattr(self.message, parameter)
        return message(PARAMETERS[parameter][0])()


@dataclass
class _Step(Node):
    """A layer with its place in the row."""
    layer: _Layer


@dataclass
class _Entering:
    """A tensor that no layer computes: `sizes` [C,H,W] as far as they are said, and the layer that brings it, if one does."""
    name: str
    sizes: list[int | None]
    layer: _Layer | None = None


def _beside(path, notes):
    """The prototxt in the folder of the .caffemodel: of the same name, or else the only one; None without."""
    found = [name for name in _names_beside(path) if name.lower().endswith(".prototxt")]
    own = [name for name in found if name == f"{path.stem}.prototxt"] or found
    if len(own) != 1:
        notes.append(f"layers: the file's own, since {len(found) or 'no'} .prototxt lie beside it and --graph names none")
        return None
    notes.append(f"layers: of {own[0]}, which lies beside the file, since --graph names none")
    return inside(path.parent, own[0])


def _names_beside(path):
    try:
        return sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []


def _layers(where, net):
    """The layers of a Net. Raises Expected where there are none, or of both forms."""
    if net.layer and net.layers or not 0 < len(net.layer) + len(net.layers) <= MOST_LAYERS:
        raise check.Expected(where, f"1 to {MOST_LAYERS} layers, all `layer` or all `layers`",
                             f"{len(net.layer)} and {len(net.layers)}")
    made = []
    for one in net.layer or net.layers:
        kind = words(one.type) if net.layer else KINDS[one.type]
        if net.layers:
            kind = V1_KINDS.get(kind) or "".join(part.capitalize() for part in kind.split("_"))
        tops = [words(name) for name in one.top]
        made.append(_Layer(words(one.name) or (tops or ["layer"])[0], kind, [words(name) for name in one.bottom], tops, one))
    return made


def _is_of_the_test(state, layer):
    """Return whether the rules of a layer's message let it be there when a network is tested."""
    def is_met(rule):
        return ((not rule.HasField("phase") or rule.phase == TEST)
                and (not rule.HasField("min_level") or state.level >= rule.min_level)
                and (not rule.HasField("max_level") or state.level <= rule.max_level)
                and set(rule.stage) <= set(state.stage) and not set(rule.not_stage) & set(state.stage))
    return any(map(is_met, layer.include)) if layer.include else not any(map(is_met, layer.exclude))


def _blobs(path, layers):
    """{name: blobs} of the layers that have some."""
    blobs = {}
    for layer in layers:
        if layer.message.blobs:
            if layer.name in blobs:
                raise check.Expected(f"{path}: {layer.name}", "one layer of this name", "two")
            blobs[layer.name] = layer.message.blobs
    return blobs


def _steps(where, net, layers, notes):
    """(what enters, steps): the layers that compute, each tensor called by the layer that makes it."""
    entering, steps = {one.name: one for one in _inputs(net)}, []
    current = {name: name for name in entering}
    for layer in layers:
        if layer.kind in DATA:
            entering |= {one.name: one for one in _brought(layer)}
            current |= {name: name for name in layer.tops}
        elif layer.kind in LEFT_OUT:
            notes.append(f"{layer.name}: {layer.kind}, left out, since it computes nothing of what the network answers")
        elif layer.kind == "Split" and len(layer.bottoms) == 1:
            current |= {name: _made(where, layer, current) for name in layer.tops}
        else:
            if layer.kind not in KNOWN:
                needed = "networks that branch" if layer.kind in BRANCHES else f"a layer {layer.kind}"
                raise unsupported(where, layer.name, "a layer of a type that zfcore has", layer.kind or "none", needed)
            if len(layer.bottoms) != 1 or len(layer.tops) != 1:
                raise unsupported(where, layer.name, "one bottom and one top", f"{len(layer.bottoms)} and {len(layer.tops)}",
                                  "networks that branch")
            steps.append(_Step(layer.name, _made(where, layer, current), layer.name, layer))
            current[layer.tops[0]] = layer.name
    read = [one for name, one in entering.items() if any(step.reads == name for step in steps)]
    if len(read) != 1:
        raise unsupported(where, read[1].name if read else "input", "one input that layers read",
                          " and ".join(one.name for one in read[:2]) or "none", "networks with several inputs" if read else "")
    return read[0], steps


def _made(where, layer, current):
    if layer.bottoms[0] not in current:
        raise check.Expected(f"{where}: {layer.name}", "a bottom that a layer above it makes", repr(layer.bottoms[0]))
    return current[layer.bottoms[0]]


def _inputs(net):
    """Inputs that a Net names, `input` with `input_shape` or four `input_dim`."""
    for k, name in enumerate(net.input):
        sizes = list(net.input_shape[k].dim if k < len(net.input_shape) else net.input_dim[4*k:4*k + 4])
        yield _Entering(words(name), sizes[1:] if len(sizes) == 4 else [])


def _brought(layer):
    """Outputs of a layer of DATA: pictures, and labels, of which nothing is known but the name."""
    if layer.kind == "Input":
        shapes = [list(shape.dim) for shape in layer.said("input_param").shape] or [[]]
        for k, name in enumerate(layer.tops):
            sizes = shapes[min(k, len(shapes) - 1)]
            yield _Entering(name, sizes[1:] if len(sizes) == 4 else [], layer)
        return
    memory, dummy, picture = (layer.said(f"{kind}_data_param") for kind in ("memory", "dummy", "image"))
    sizes = [memory.channels, memory.height, memory.width]
    if layer.kind == "DummyData":
        sizes = [*dummy.channels[:1], *dummy.height[:1], *dummy.width[:1]]
        sizes = list(dummy.shape[0].dim[1:4]) if dummy.shape else sizes
    elif layer.kind == "ImageData":
        sizes = [None, picture.new_height, picture.new_width]
    if crop := layer.said("transform_param").crop_size or layer.said("data_param").crop_size or picture.crop_size:
        sizes = [sizes[0] if len(sizes) == 3 else None, crop, crop]
    for name in layer.tops:
        yield _Entering(name, sizes, layer)


def _input_shape(path, where, entering, row, blobs):
    """(C,H,W) of what enters; the channels, where only the sides are said, are those of the first filters."""
    sizes = list(entering.sizes)
    if len(sizes) == 3 and not sizes[0] and all(sizes[1:]):
        first = next((step.layer for step in row if step.layer.kind == "Convolution" and step.name in blobs), None)
        if first is not None:
            sizes[0] = (*shape_of(blobs[first.name][0]), 0, 0)[1]*first.said("convolution_param").group
    if len(sizes) != 3 or not all(sizes):
        raise check.Expected(f"{where}: {entering.name}", "the sizes of what enters, channels x height x width", "none",
                             "say --graph with a prototxt that has them, as those for deployment do")
    if not all(0 < size <= MOST_SIDE for size in sizes):
        raise check.Expected(f"{where}: {entering.name}", f"pictures of at most {MOST_SIDE} pixels a side",
                             "x".join(map(str, sizes)))
    return tuple(sizes)


# ----------------------------------------------------------------------------------------------------------------- nodes
@dataclass
class _Reading:
    """Steps on their way to nodes: `path` has the blobs, `where` the layers; `C` maps or units, None: nobody has counted them,
    come out of the step before."""
    path: Path
    where: Path
    blobs: dict[str, Any]
    C: int | None = None
    are_units: bool = False

    def converted(self, row, C):
        """The nodes of a row of steps."""
        self.C, nodes = C, []
        for step in row:
            nodes += getattr(self, f"_{step.layer.kind.lower()}")(step)
        return nodes

    def _convolution(self, step):
        said = step.layer.said("convolution_param")
        self._check(step, "axis 1", said.axis == 1, said.axis)
        F, groups, window = said.num_output, said.group, self._window(step, said, "floor")
        if not groups or self.C is None or self.C % groups or F % groups:
            maps = f"groups of the {self.C or 'unknown number of'} maps below and the {F} above"
            raise check.Expected(f"{self.where}: {step.name}", maps, groups)
        w, b = self._weights(step, said, (F, self.C//groups, *window.K))
        self.C = F
        return [Convolution(step.name, step.reads, step.gives, w, b, window, groups)]

    def _innerproduct(self, step):
        said = step.layer.said("inner_product_param")
        self._check(step, "axis 1", said.axis == 1, said.axis)
        M, D = said.num_output, self.C if self.are_units else None
        w, b = self._weights(step, said, (D, M) if said.transpose else (M, D))
        w = w.T if said.transpose else w
        if self.C and w.shape[1] % self.C:
            raise check.Expected(f"{self.path}: {step.name}: w", f"as many columns for each of {self.C} maps", w.shape[1],
                                 "is it another network's prototxt?")
        flattening = [] if self.are_units else [Flattening(f"{step.name}_flat", step.reads, f"{step.name} flattened")]
        self.C, self.are_units = M, True
        return [*flattening, Dense(step.name, flattening[0].gives if flattening else step.reads, step.gives, w, b)]

    def _pooling(self, step):
        said, place = step.layer.said("pooling_param"), (step.name, step.reads, step.gives)
        kind = ("MAX", "AVE", "STOCHASTIC")[said.pool]
        self._check(step, "MAX or AVE", kind != "STOCHASTIC", kind)
        if said.global_pooling:
            return [(AveragePooling if kind == "AVE" else MaxPooling)(*place, None)]
        rounding = "floor" if _rounds_down(said) else "ceil"
        window = self._window(step, said, rounding)
        for K, S, (P, _) in zip(window.K, window.S, window.pads):
            self._check(step, "padding less than the window", P < K, P)
            self._check(step, "windows at least as large as their stride", rounding == "floor" or K >= S, f"{K}, at stride {S}")
        return [AveragePooling(*place, window, "clipped") if kind == "AVE" else MaxPooling(*place, window)]

    def _relu(self, step):
        slope = step.layer.said("relu_param").negative_slope
        self._check(step, "negative_slope 0", slope == 0, f"{slope:g}", "leaky ReLUs")
        return [Rectifier(step.name, step.reads, step.gives)]

    def _lrn(self, step):
        said = step.layer.said("lrn_param")
        within = said.norm_region == 1
        self._check(step, "local_size odd, as Caffe demands", said.local_size % 2 == 1, said.local_size)
        self._check(step, "k 1 within a channel, where Caffe heeds no other", not within or said.k == 1, f"{said.k:g}")
        return [ResponseNorm(step.name, step.reads, step.gives, said.local_size, said.alpha, said.beta, said.k,
                             region="within" if within else "across")]

    def _batchnorm(self, step):
        said = step.layer.said("batch_norm_param")
        self._check(step, "use_global_stats true in the test", said.use_global_stats, "false", "statistics of each batch")
        arrays = self._arrays(step, {"mean": (self.C,), "var": (self.C,), "factor": (1,)})
        mean, var, factor = (array.astype(np.float64) for array in arrays)
        with np.errstate(all="ignore"):                    # of a spoilt file; lower.py says what is not finite
            factor = 1/factor[0] if factor[0] else 0.0
            scale = 1/np.sqrt(var*factor + said.eps)
            return [Affine(step.name, step.reads, step.gives, scale, -mean*factor*scale)]

    def _scale(self, step):
        said = step.layer.said("scale_param")
        self._check(step, "axis 1 and num_axes 1", (said.axis, said.num_axes) == (1, 1), f"{said.axis} and {said.num_axes}")
        shapes = {"gamma": (self.C,), **({"beta": (self.C,)} if said.bias_term else {})}
        scale, *shift = (array.astype(np.float64) for array in self._arrays(step, shapes))
        return [Affine(step.name, step.reads, step.gives, scale, shift[0] if shift else np.zeros_like(scale))]

    def _power(self, step):
        said = step.layer.said("power_param")
        self._check(step, "power 1", said.power == 1, f"{said.power:g}", "powers")
        return [Affine(step.name, step.reads, step.gives, np.array([said.scale]), np.array([said.shift]))]

    def _dropout(self, step):
        ratio = step.layer.said("dropout_param").dropout_ratio
        self._check(step, "dropout_ratio from 0 to below 1", 0 <= ratio < 1, f"{ratio:g}")
        return [Dropping(step.name, step.reads, step.gives, ratio)]

    def _softmax(self, step):
        axis = step.layer.said("softmax_param").axis
        self._check(step, "axis 1", axis == 1, axis)
        return [Probabilities(step.name, step.reads, step.gives)]

    def _flatten(self, step):
        said = step.layer.said("flatten_param")
        axes = said.axis, said.end_axis
        self._check(step, "axis 1 to the last", axes in ((1, -1), (1, 3)), f"{said.axis} to {said.end_axis}")
        self.C, self.are_units = self.C if self.are_units else None, True
        return [Flattening(step.name, step.reads, step.gives)]

    # ------------------------------------------------------------------------------------------- what nodes consist of
    def _check(self, step, expected, holds, got, needed=""):
        if not holds:
            raise unsupported(self.where, step.name, expected, got, needed)

    def _window(self, step, said, rounding):
        given = {field.name: value for field, value in said.ListFields()}
        names = ("kernel_size", "kernel"), ("stride", "stride", 1), ("pad", "pad", 0), ("dilation", "dilation", 1)
        K, S, P, dilation = (self._pair(step, given, *of_each) for of_each in names)
        if min(*K, *S, *dilation) < 1 or max(P) > MOST_SIDE:
            raise check.Expected(f"{self.where}: {step.name}",
                                 f"windows and strides of at least 1, padding of at most {MOST_SIDE}",
                                 f"{K}, {S}, dilation {dilation}, padding {P}")
        return Window(K, S, tuple((pixels, pixels) for pixels in P), rounding, dilation)

    def _pair(self, step, given, name, stem, default=None):
        """(rows, columns) of what is said as `name`, once or for each, or as stem_h and stem_w."""
        if f"{stem}_h" in given or f"{stem}_w" in given:
            said = [given.get(f"{stem}_h", default), given.get(f"{stem}_w", default)]
        else:
            said = given.get(name, default)
            said = [said]*2 if isinstance(said, int) or said is None else list(said)*(2 if len(said) == 1 else 1)
        if len(said) != 2 or None in said:
            got = "none" if None in said else len(said)
            raise check.Expected(f"{self.where}: {step.name}", f"{name} of rows and columns", got)
        return tuple(said)

    def _weights(self, step, said, shape):
        """(w, b), b None without."""
        w, *b = self._arrays(step, {"w": shape, **({"b": (said.num_output,)} if said.bias_term else {})})
        return w, b[0] if b else None

    def _arrays(self, step, shapes):
        """The arrays of a step's blobs, {what one is called: its shape as the layers have it}; None is any size."""
        if step.name not in self.blobs:
            raise check.Expected(f"{self.path}: {step.name}", f"weights of this layer, which {self.where.name} has",
                                 f"those of {', '.join(self.blobs)[:200] or 'no layer'}", "is it another network's prototxt?")
        blobs = self.blobs[step.name]
        if len(blobs) != len(shapes):
            raise check.Expected(f"{self.path}: {step.name}", f"blobs {' and '.join(shapes)}, as {self.where.name} has it",
                                 f"{len(blobs)} of them")
        return [self._array(f"{self.path}: {step.name}: {what}", blob, shapes[what]) for what, blob in zip(shapes, blobs)]

    def _array(self, what, blob, shape):
        array = numbers(what, blob)
        sizes, found = ["any" if size is None else size for size in shape], array.shape
        while len(found) > len(shape) and found[0] == 1:   # the old form has four sizes always
            found = found[1:]
        if len(found) != len(shape) or any(size not in ("any", n) for size, n in zip(sizes, found)):
            raise check.Expected(what, f"{'x'.join(map(str, sizes))} numbers, as {self.where.name} has it",
                                 "x".join(map(str, array.shape)), "is it another network's prototxt?")
        return array.reshape(found)


def _rounds_down(pooling):
    return pooling.round_mode == 1 or not pooling.ceil_mode


# -------------------------------------------------------------------------------------------------------------- pictures
def _preprocessing(where, layer, C):
    """Keywords of Preprocessing: what the layer that brings pictures in training does to them; the usual order of channels. And
    a line about each."""
    seen, told = {}, {}
    if C == 3:
        seen["channels"] = "bgr"
        told["channels"] = "channels: B, G, R, as OpenCV gave them to Caffe; assumed, since no file of Caffe's says so"
    if layer is None:
        return seen, told
    for said in (layer.said(name) for name in ("transform_param", "data_param", "image_data_param")):
        if said.scale != 1:
            seen["scale"] = np.full(C, said.scale)
            told["scale"] = f"scale: {said.scale:g}, as the layer {layer.name} of the training has it"
        if len(values := getattr(said, "mean_value", ())):
            if len(values) not in (1, C):
                raise check.Expected(f"{where}: {layer.name}", f"1 or {C} mean_value", len(values))
            seen["mean"] = np.broadcast_to(np.array(values, np.float64), (C,))
            numbered = ", ".join(f"{value:g}" for value in values)
            told["mean"] = f"mean: {numbered}, as the layer {layer.name} of the training has it"
        if name := words(said.mean_file):
            mean, told["mean"] = _mean_beside(where, re.split(r"[\\/]", name)[-1], layer, C)
            seen |= mean
    return seen, told


def _mean_beside(where, name, layer, C):
    """The mean in the file called `name`, {} unless it lies beside the network, and a line about it."""
    if name not in _names_beside(where):
        return {}, f"mean: in the file {name}, says the layer {layer.name} of the training; it does not lie here: say --mean"
    mean = read_mean(inside(where.parent, name))
    if len(mean) != C:
        raise check.Expected(where.parent/name, f"a mean of {C} channels", len(mean))
    return {"mean": mean}, f"mean: of {name}, which lies beside the network, as the layer {layer.name} of the training has it"


# ---------------------------------------------------------------------------------------------------------------- engine
def _is_deployed(net, layers, kept):
    """Return whether OpenCV can take the prototxt as it is: made for deployment, and with no word that Caffe alone knows."""
    inputs = len(net.input) + sum(layer.kind == "Input" for layer in layers)
    return (inputs == 1 and len(kept) == len(layers) and not any(layer.kind in LEFT_OUT | DATA - {"Input"} for layer in layers)
            and not any(layer.said("pooling_param").HasField("round_mode") for layer in layers))


def _deployed(entering, shape, layers):
    """A prototxt for deployment of the `layers`, which lose their weights and rules."""
    from google.protobuf import text_format
    net = message("Net")()
    net.input.append(entering)
    net.input_shape.add().dim.extend((1, *shape))
    for layer in layers:
        if layer.kind not in DATA | LEFT_OUT:
            for field in ("blobs", "include", "exclude"):
                layer.message.ClearField(field)
            if layer.kind == "Pooling" and _rounds_down(layer.said("pooling_param")):
                layer.message.pooling_param.ceil_mode = False
                layer.message.pooling_param.ClearField("round_mode")
            (net.layer if hasattr(layer.message, "scale_param") else net.layers).append(layer.message)
    return text_format.MessageToString(net).encode()


def _beyond_opencv(row, blobs):
    """A line about something that OpenCV does otherwise than Caffe, without a word; "" where there is nothing of that."""
    for step in row:
        if step.layer.said("lrn_param").k != 1:
            return f"{step.name}: OpenCV, which would compute it, heeds no k of an LRN"
        if step.layer.said("inner_product_param").transpose:
            return f"{step.name}: OpenCV, which would compute it, heeds no transpose"
        if any(blob.double_data for blob in blobs.get(step.name, ())):
            return f"{step.name}: OpenCV, which would compute it, reads no weights in double precision"
    return ""


def _with_engine(foreign, text, beyond):
    """`foreign` with OpenCV as its engine, where one that reads networks of Caffe is installed, unless something in it lies
    `beyond` OpenCV. `text`: a prototxt."""
    foreign.engine_hint = beyond or HINT
    if beyond:
        return foreign
    try:
        import cv2
    except ImportError:
        return foreign
    if not hasattr(cv2.dnn, "readNetFromCaffe"):           # it went with version 5
        return foreign
    given = {node.gives for node in foreign.nodes}
    reads = {node.gives: node.reads for node in foreign.nodes if isinstance(node, Flattening) and node.gives != node.name}

    def engine(x, names):
        """Tensors among `names` that the file has, for x (N,C,H,W)."""
        names = [name for name in names if name in given]
        inner = [name for name in dict.fromkeys(reads.get(name, name) for name in names) if name != foreign.input]
        try:
            weights = np.frombuffer(read_bytes(foreign.path, MOST_FILE), np.uint8)
            net = cv2.dnn.readNetFromCaffe(np.frombuffer(text, np.uint8), weights)
            net.enableFusion(False)                        # each layer by itself, in the plain way
            net.enableWinograd(False)
            net.setInput(np.ascontiguousarray(x, np.float32))
            found = {foreign.input: x, **dict(zip(inner, net.forward(inner) if inner else ()))}
        except (cv2.error, OSError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise check.Expected(foreign.path, "a network that OpenCV computes too", reason) from None
        return {name: found[reads[name]].reshape(len(x), -1) if name in reads else found[name] for name in names}
    foreign.engine, foreign.engine_name = engine, f"OpenCV {cv2.__version__}"
    return foreign
