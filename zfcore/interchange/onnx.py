"""ONNX: networks of nodes in a row, of operators of version 6 and later, as PyTorch, TensorFlow, CNTK and many others export
them.

Which attributes an operator of a version has, and their defaults, the package `onnx` knows; what they mean is in its
specification (https://onnx.ai/onnx/operators). What is computed of constants is computed here, so that a shape which is put
together of the number of pictures and a product is a Flattening. What zfcore cannot express is refused by the node's name, and
nothing is guessed.

`zfcore.interchange.onnx_writer` writes such files.
"""
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import read_bytes, said
from zfcore.hints import FilePath, Shape
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Dropping, Flattening, Foreign, MaxPooling,
                                        Padding, Probabilities, Rectifier, ResponseNorm, Subtraction, Unsupported, Window, counted,
                                        in_a_row, nothing_beside, padding, unsupported)
from zfcore.interchange.onnx_lrn import Squares, squares_behind
from zfcore.interchange.onnx_metadata import KEY, from_metadata
from zfcore.interchange.onnx_tensors import (BFLOAT16, BOOL, COMPUTED, DOUBLE, FORMS, HALF, INT8, MOST_BYTES, PICTURES, Budget, Tensors,
                                             computed, settled)
from zfcore.interchange.protobuf import parse

VERSIONS = 6, 28                                   # of the operators, whose rules are followed
BACK, FORTH = (0, 3, 1, 2), (0, 2, 3, 1)           # N,H,W,C to N,C,H,W, and the other way
OF_MAPS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN", "BatchNormalization", "Flatten",
           "Reshape"}                              # which see in pictures what zfcore's layers see
LARGE = 2**16                                      # bytes of a constant
MOST_NODES, MOST_SIDE = 10**5, 2**14               # pixels of maps, of windows and of what lies around
HIGHEST = float(np.finfo(np.float32).max)
NEEDED = {**dict.fromkeys(("PRelu", "LeakyRelu"), "a rectifier with a slope"),
          **dict.fromkeys(("Sigmoid", "Tanh", "Elu", "Selu", "HardSigmoid", "HardSwish", "Gelu", "Softplus", "Erf", "Mish"),
                          "a layer for it"),
          **dict.fromkeys(("Concat", "Split", "Sum", "Mean"), "branches"),
          **dict.fromkeys(("RNN", "GRU", "LSTM", "Loop", "Scan", "If"), "recurrence"),
          **dict.fromkeys(("Upsample", "Resize", "DepthToSpace", "MaxUnpool"), "layers that enlarge maps")}


def read(path: FilePath, graph: FilePath | None = None, model: str | None = None) -> Foreign:
    """The network in the ONNX file at `path`, which has all that it takes: `graph` and `model` must be None. Raises Expected
    for what is no such file or is damaged, and Unsupported, naming the node, for what zfcore has no layer for."""
    path = Path(path)
    nothing_beside("an ONNX file", graph, model)
    try:
        return _Reader(path, parsed(path)).foreign()
    except UnicodeDecodeError:
        raise check.Expected(path, "names in UTF-8", "other bytes", "the file is damaged") from None


def parsed(path: Path) -> Any:
    """The onnx.ModelProto in the file at `path`, without the tensors in other files."""
    if not find_spec("onnx"):
        raise check.Expected(path, "the package onnx, which reads such files", "none installed", "pip install onnx")
    from onnx import ModelProto
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise check.Expected(path, "a file that can be read", error.strerror or error) from None
    return parse(path, data, ModelProto(), "an ONNX model")


@dataclass(frozen=True)
class Flow:
    """A tensor between pictures and scores: `name` is that of the one which has its numbers, `shape` of one picture: (C,H,W) or
    (D,); `order` is how the file has its axes."""
    name: str
    shape: Shape
    order: str = "chw"

    @property
    def axes(self) -> Shape:
        """Shape as the file has it, but for the number of pictures."""
        return (*self.shape[1:], self.shape[0]) if self.order == "hwc" else self.shape


class _Reader:
    """Goes through the nodes of a model, from the pictures to the scores."""

    def __init__(self, path, model):
        self.path, self.model, self.graph = path, model, model.graph
        self.tensors = Tensors(path)
        self.budget = Budget(self.tensors)
        self.values = {}                  # name -> Flow or array, of what is known so far
        self.row = []
        # name that a node here gives -> that of the same numbers in the file, "" if it has none
        self.aliases = {}
        self.preprocessing = {}
        self.notes = []
        self.version = self._version()
        self.initialisers = self._initialisers()
        self.first, self.batch, self.dtype = self._input()
        self.source, self.source_dtype = self.first, self.dtype               # what the file itself is given, before any cast

    def foreign(self):
        """The Foreign."""
        outputs = [value.name for value in self.graph.output]
        if len(outputs) != 1:
            raise check.Expected(f"{self.path}: outputs", "one, the scores",
                                 f"{len(outputs)}: {', '.join(map(said, outputs[:4]))}",
                                 "zfcore would need several heads" if outputs else "")
        with np.errstate(all="ignore"):                   # numbers that are too large for anything are refused later, as such
            nodes = self._ordered(outputs[0])
            if self._is_turned(nodes):
                H, W, C = self.first.shape
                self.source = self.values[self.first.name] = self._head(Flow(self.first.name, (C, H, W), "hwc"))
            for node in nodes:
                self._step(node)
        last = self.values.get(outputs[0])
        if not isinstance(last, Flow) or not self.row:
            raise check.Expected(f"{self.path}: {said(outputs[0])}", "scores that are computed of pictures",
                                 "constants or pictures")
        if last.order != "chw":
            raise check.Expected(f"{self.path}: {said(outputs[0])}", "scores in the order of their maps", "another order")
        labels, told = from_metadata(self.path, {item.key: item.value for item in self.model.metadata_props}.get(KEY),
                                     self.first.shape)
        told = self._agree(told)
        row = in_a_row(self.path, self.row, self.first.name, last.name)
        found = Foreign("ONNX", self.path, self.first.name, self.first.shape, row, labels, {**self.preprocessing, **told},
                        notes=self.notes)
        even = next((node.name for node in row if isinstance(node, ResponseNorm) and node.above), None)
        if even is not None:
            found.engine_hint = f"{even}: onnxruntime has no normalisation over an even number of maps"
        elif find_spec("onnxruntime"):
            found.engine = Engine(self.path, self.source, self.source_dtype, self.first, self.batch, self.aliases)
            found.engine_name = f"onnxruntime {_version_of('onnxruntime', 'onnxruntime-gpu')}"
            from onnx import helper
            kinds = {helper.np_dtype_to_tensor_dtype(self.dtype), *(tensor.data_type for tensor in self.initialisers.values())}
            found.notes += [f"numbers of {bits} bits: zfcore computes with them in 32, and so does onnxruntime beside it"
                            for bits, those in ((16, {HALF, BFLOAT16}), (64, {DOUBLE})) if kinds & those]
        else:
            found.engine_hint = "pip install onnxruntime"
        return found

    def _agree(self, told):
        """Return what the metadata has `told`, but for a mean image that the graph subtracts: its node gets that, in the size of
        whole pictures. Raises Expected where the two are not the same."""
        own = [node for node in self.row if isinstance(node, Subtraction)]
        if "mean" not in told or not own and self.source_dtype.kind == "f":           # pixels less a mean are no whole numbers
            return told
        mean, side = told["mean"], self.first.shape[1]
        rim = (mean.shape[1] - side)//2
        if own != self.row[:1] or not np.array_equal(mean[:, rim:rim + side, rim:rim + side], own[0].picture):
            raise check.Expected(f"{self.path}: metadata {KEY}", "the mean image that the graph subtracts", "another")
        own[0].picture = mean
        return {key: value for key, value in told.items() if key != "mean"}

    # ------------------------------------------------------------------------------------------------- what the file declares
    def _version(self):
        versions = {item.domain: item.version for item in self.model.opset_import}
        found = versions.get("", versions.get("ai.onnx", 1))
        if not self.graph.node:
            raise check.Expected(self.path, "an ONNX model with nodes", "none")
        if not VERSIONS[0] <= found <= VERSIONS[1]:
            raise check.Expected(f"{self.path}: version of its operators", f"{VERSIONS[0]} to {VERSIONS[1]}", found,
                                 "export it with another opset_version")
        if len(self.graph.node) > MOST_NODES:
            raise check.Expected(self.path, f"at most {MOST_NODES} nodes", len(self.graph.node))
        if self.graph.sparse_initializer:
            raise check.Expected(self.path, "weights that are written in full", "sparse ones",
                                 "zfcore would need sparse weights")
        return found

    def _initialisers(self):
        found = {}
        for tensor in self.graph.initializer:
            if tensor.name in found:
                raise check.Expected(f"{self.path}: {said(tensor.name)}", "one tensor of this name", "two")
            self.tensors.check(tensor)
            found[tensor.name] = tensor
        return found

    def _input(self):
        """(Flow that enters, number of pictures or None for any, dtype)."""
        inputs = [value for value in self.graph.input if value.name not in self.initialisers]
        if len(inputs) != 1:
            raise check.Expected(f"{self.path}: inputs", "one, the pictures",
                                 f"{len(inputs)}: {', '.join(said(value.name) for value in inputs[:4])}")
        tensor, where = inputs[0].type.tensor_type, f"{self.path}: {inputs[0].name[:100]}"
        sizes = [entry.dim_value if entry.HasField("dim_value") else None for entry in tensor.shape.dim]
        if len(sizes) != 4 or not all(n is not None and 1 <= n <= MOST_SIDE for n in sizes[1:]):
            words = "x".join("?" if n is None else str(n) for n in sizes[:8]) or "none"
            raise check.Expected(where, "pictures (N,C,H,W) of a fixed size", words, "export it with one")
        if tensor.elem_type not in FORMS or tensor.elem_type in (BFLOAT16, BOOL, INT8):
            raise check.Expected(where, "pictures of numbers that can be pixels, 0 to 255", f"data type {tensor.elem_type}")
        if (sizes[0] or 0) > 2**16:
            raise check.Expected(where, f"at most {2**16} pictures at once", sizes[0])
        flow = Flow(inputs[0].name, tuple(sizes[1:]))
        self.values[flow.name] = flow
        return flow, sizes[0] if (sizes[0] or 0) > 0 else None, np.dtype(FORMS[tensor.elem_type][0])

    def _ordered(self, output):
        """The nodes that `output` needs, in an order in which they can be computed."""
        makers = {}
        for node in self.graph.node:
            for name in filter(None, node.output):
                if name in makers or name in self.initialisers or name == self.first.name:
                    raise check.Expected(f"{self.path}: {said(name)}", "to be made by one node", "two that do")
                makers[name] = node
        needed, below, todo = {}, {}, [output]
        while todo:
            node = makers.get(todo.pop())
            if node is not None and id(node) not in needed:
                needed[id(node)] = node
                below[id(node)] = {id(makers[name]) for name in read_by(node) if name in makers}
                todo += read_by(node)
        try:
            return [needed[key] for key in TopologicalSorter(below).static_order()]
        except CycleError as error:
            raise check.Expected(f"{self.path}: {called(needed[error.args[1][0]])}", "nodes that lead from pictures to scores",
                                 "ones that lead round in a circle") from None

    def _is_turned(self, nodes):
        """Return whether the pictures are (N,H,W,C): whether, before a layer reads them, their axes are turned to N,C,H,W."""
        at = self.first.name
        for node in nodes:
            if at in node.input and node.op_type != "Shape":
                if node.op_type in OF_MAPS:
                    return False
                if node.op_type == "Transpose":
                    return any(tuple(entry.ints) == BACK for entry in node.attribute)
                at = next(iter(node.output), "")
        return False

    # ------------------------------------------------------------------------------------------------------ node after node
    def _step(self, node):
        inputs = [self._value(node, name) if name else None for name in node.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        flows = [value for value in inputs if isinstance(value, Flow)]
        for special in (self._normalising, self._chosen) if node.domain in ("", "ai.onnx") else ():
            if (made := special(node, inputs)) is not None:
                self.values[node.output[0]] = made
                return
        if node.domain not in ("", "ai.onnx") or not (node.op_type in LAYERS or node.op_type in COMPUTED):
            raise self._unsupported(node, "an operator that zfcore has a layer for", said(node.op_type),
                                    NEEDED.get(node.op_type, ""))
        a = self._attributes(node, len(inputs))
        if node.op_type == "Shape" and flows:
            made = self._shape(node, a, flows[0])
        elif not flows and node.op_type in COMPUTED:
            made = computed(node.op_type, a, inputs, self.budget, called(node))
        elif not flows:
            raise self._unsupported(node, f"maps or units that {node.op_type} reads", "constants alone")
        elif len(flows) > 1:
            raise self._unsupported(node, "one input that is no constant", f"{len(flows)} of {node.op_type}", "branches")
        elif node.op_type == "Gather" and isinstance(inputs[0], Flow) and a.axis % (len(flows[0].shape) + 1) == 1:
            raise self._other_order(node, flows[0])
        elif node.op_type not in LAYERS:
            raise self._unsupported(node, f"constants that {node.op_type} reads", "maps or units", NEEDED.get(node.op_type, ""))
        else:
            if self.dtype.kind != "f" and node.op_type not in ("Cast", "Transpose", "Identity"):
                raise self._unsupported(node, "pictures that are cast to float before", self.dtype)
            if flows[0].order == "hwc" and self._only_pictures() and node.op_type not in ANY_ORDER:
                raise self._before_turning(node, node.op_type)
            if not isinstance(inputs[0], Flow) and node.op_type not in EITHER:
                raise self._unsupported(node, f"maps or units as the first input of {node.op_type}", "a constant")
            made = LAYERS[node.op_type](self, node, a, *inputs)
        self.values[node.output[0]] = made

    def _normalising(self, node, inputs):
        """Value of a node that is a part of PyTorch's response normalisation; None of others."""
        squares = next((value for value in inputs if isinstance(value, Squares)), None)
        if squares is None:
            twice = node.op_type == "Mul" and len(inputs) == 2 and inputs[0] is inputs[1] and isinstance(inputs[0], Flow)
            return Squares(inputs[0].name, inputs[0].shape) if twice and len(inputs[0].shape) == 3 and inputs[0].order == "chw" else None
        a = self._attributes(node, len(inputs))
        if node.op_type == "Shape":
            return self._shape(node, a, squares)
        if node.op_type == "Div" and isinstance(flow := inputs[0], Flow) and flow.name == squares.of and squares.beta is not None:
            below, above = squares.above
            if below in (above, above + 1):
                return self._add(node, ResponseNorm, flow, flow.shape, n=squares.n, alpha=squares.alpha, beta=squares.beta,
                                 k=squares.k)
        made = squares_behind(node.op_type, a, squares, [value for value in inputs if value is not squares],
                              [-1, self.batch or PICTURES])
        if made is None or inputs[0] is not squares and node.op_type not in ("Mul", "Add"):
            raise self._unsupported(node, "squares of maps in a response normalisation, as PyTorch writes it",
                                    f"{node.op_type} of them", "branches")
        return made

    def _chosen(self, node, inputs):
        """Value of an If whose condition is known; None of other nodes."""
        if node.op_type != "If" or len(inputs) != 1 or not isinstance(inputs[0], np.ndarray) or inputs[0].size != 1 or len(node.output) != 1:
            return None
        a = self._attributes(node, 1)
        branch = a.then_branch if bool(inputs[0].reshape(())) else a.else_branch
        if branch.initializer or len(branch.output) != 1 or any(name in self.values for inner in branch.node
                                                                for name in inner.output):
            raise self._unsupported(node, "a branch of nodes alone, with one output", "another")
        for inner in branch.node:
            self._step(inner)
        return self._value(node, branch.output[0].name)

    def _shape(self, node, a, flow):
        shape = np.array([PICTURES, *flow.axes], object)
        return settled(shape[slice(a.start, a.end)] if self.version >= 15 else shape)

    def _value(self, node, name):
        if name not in self.values:
            if name not in self.initialisers:
                raise self._unsupported(node, "inputs that other nodes give first, or the file has", said(name))
            self.values[name] = self.tensors.array(self.initialisers[name])
        return self.values[name]

    def _attributes(self, node, count):
        """A namespace of the attributes that an operator of this version has, with the node's values or the defaults; `count`:
        of its inputs."""
        from onnx import defs, helper
        try:
            schema = defs.get_schema(node.op_type, self.version, "")
        except (defs.SchemaError, TypeError):                # one that there is none of, or bytes that are no UTF-8
            raise self._unsupported(node, f"an operator of version {self.version}", said(node.op_type)) from None
        if not schema.min_input <= count <= schema.max_input or not node.output or not node.output[0]:
            raise self._unsupported(node, f"{node.op_type} with its inputs and its output", f"{count} and {len(node.output)}")
        given = {}
        for entry in node.attribute:
            if entry.name not in schema.attributes or entry.type != int(schema.attributes[entry.name].type) or entry.ref_attr_name:
                raise self._unsupported(node, f"attributes of {node.op_type} of version {self.version}", said(entry.name))
            value = helper.get_attribute_value(entry)
            given[entry.name] = self.tensors.array(value) if entry.type == entry.TENSOR else _plain(value)
        for name, entry in schema.attributes.items():
            if name not in given:
                if entry.required:
                    raise self._unsupported(node, f"the attribute {name}", "none")
                value = helper.get_attribute_value(entry.default_value) if entry.default_value.type else None
                given[name] = _plain(value)
        if bad := [name for name, value in given.items() if isinstance(value, float) and not math.isfinite(value)]:
            raise self._unsupported(node, f"a finite number as {bad[0]}", given[bad[0]])
        return SimpleNamespace(**given)

    def _unsupported(self, node, expected, got, needed=""):
        return unsupported(self.path, called(node), expected, got, needed)

    def _add(self, node, kind, flow, shape, inner=False, **what):
        """Put a node of the kind behind `flow`, and return the Flow that it gives; `inner`: more of the same node follows."""
        if flow.order != "chw" and kind is not Flattening:
            raise self._unsupported(node, "maps (N,C,H,W)", "their axes in another order", "layers of channels last")
        gives = f"{node.output[0]}, part {len(self.row)}" if inner else node.output[0]
        if inner:
            self.aliases[gives] = ""
        self.row.append(kind(called(node), flow.name, gives, **what))
        return Flow(gives, tuple(shape))

    def _around(self, node, value, kind, flow, shape, **what):
        """Put a node behind `flow` that does with `value` what its kind does with 0."""
        if value:
            flow = self._add(node, Affine, flow, flow.shape, inner=True, scale=np.ones(1), shift=np.array([-value]))
        flow = self._add(node, kind, flow, shape, inner=bool(value), **what)
        return self._add(node, Affine, flow, shape, scale=np.ones(1), shift=np.array([value])) if value else flow

    def _constant(self, node, value, what):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise self._unsupported(node, f"a constant as {what}", "none")
        return value

    def _number(self, node, value, what, otherwise):
        """The only number of a constant; `otherwise` where there is none."""
        if value is None:
            return otherwise
        if self._constant(node, value, what).size != 1:
            raise self._unsupported(node, f"one number as {what}", f"shape {value.shape}")
        return float(value.reshape(()))

    def _maps(self, node, flow):
        if len(flow.shape) != 3:
            raise self._unsupported(node, "maps", "units, which have no rows and columns")
        return flow

    # ------------------------------------------------------------------------------------------------------------- windows
    def _window(self, node, a, kernel, size):
        """(Window, (H,W) of what comes out)."""
        kernel, strides, pads = list(kernel or ()), a.strides or [1, 1], a.pads or [0]*4
        dilations = getattr(a, "dilations", None) or [1, 1]
        for name, values, least, count in (("kernel_shape", kernel, 1, 2), ("strides", strides, 1, 2),
                                           ("dilations", dilations, 1, 2), ("pads", pads, 0, 4)):
            if len(values) != count or not all(least <= n <= MOST_SIDE for n in values):
                raise self._unsupported(node, f"{count} numbers from {least} to {MOST_SIDE} as {name}", said(str(values)))
        if a.auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise self._unsupported(node, "a known auto_pad", said(a.auto_pad))
        around = {"NOTSET": ((pads[0], pads[2]), (pads[1], pads[3])),
                  "VALID": ((0, 0), (0, 0))}.get(a.auto_pad, a.auto_pad.lower())
        ceil = getattr(a, "ceil_mode", 0) and a.auto_pad == "NOTSET"
        window = Window(tuple(kernel), tuple(strides), around, "ceil" if ceil else "floor", tuple(dilations))
        reach = [1 + (K - 1)*d for K, d in zip(kernel, dilations)]
        placed = list(zip(size, reach, strides, padding(window, size)))
        if any(K > n + sum(pair) for n, K, _, pair in placed):
            raise self._unsupported(node, f"maps of at least {'x'.join(map(str, reach))} pixels", "x".join(map(str, size)))
        if all(counted(*place, "floor") == counted(*place, "ceil") for place in placed):
            window.rounding = "floor"
        return window, [counted(*place, window.rounding) for place in placed]

    def _conv(self, node, a, x, w=None, b=None):
        C, *size = self._maps(node, x).shape
        w = self._constant(node, w, "filters")
        if w.ndim != 4 or a.kernel_shape and list(a.kernel_shape) != list(w.shape[2:]):
            raise self._unsupported(node, "filters (F,C,K,K), as kernel_shape says", w.shape)
        if a.group < 1 or w.shape[1]*a.group != C or w.shape[0] % a.group:
            raise self._unsupported(node, f"filters for {C} maps in {said(a.group)} groups", w.shape)
        window, out = self._window(node, a, w.shape[2:], size)
        return self._add(node, Convolution, x, (len(w), *out), w=w, b=self._biases(node, b, len(w)), window=window,
                         groups=a.group)

    def _conv_transpose(self, node, a, x, w=None, b=None):
        """One of strides 1: a convolution whose filters are turned round, with padding as wide as they are less its own."""
        C, *size = self._maps(node, x).shape
        w = self._constant(node, w, "filters")
        if set(a.strides or [1]) != {1}:
            raise self._unsupported(node, "strides of 1", said(str(a.strides)), "layers that enlarge maps")
        if (w.ndim != 4 or a.kernel_shape and list(a.kernel_shape) != list(w.shape[2:]) or a.group < 1 or len(w) != C
                or C % a.group or not w.size):
            raise self._unsupported(node, f"filters ({C},F,K,K) in groups, as kernel_shape says",
                                    f"{w.shape} in {said(a.group)}")
        window, _ = self._window(node, a, w.shape[2:], [n + (K - 1)*MOST_SIDE for n, K in zip(size, w.shape[2:])])
        more = list(a.output_padding or [0, 0])
        if len(more) != 2 or not all(0 <= n <= MOST_SIDE for n in more):
            raise self._unsupported(node, "two whole numbers from 0 as output_padding", said(str(more)))
        reach = [(K - 1)*d for K, d in zip(window.K, window.dilation)]
        full = [n + far + extra for n, far, extra in zip(size, reach, more)]
        wanted = list(a.output_shape or [])[-2:] or (size if isinstance(window.pads, str) else None)
        pads = window.pads
        if wanted is not None:
            total = [n - m for n, m in zip(full, wanted)]
            pads = [(n//2, n - n//2) if a.auto_pad == "SAME_UPPER" else (n - n//2, n//2) for n in total]
        out = [n - sum(pair) for n, pair in zip(full, pads)]
        if len(wanted or size) != 2 or min(out) < 1 or min(map(min, pads)) < 0:
            raise self._unsupported(node, "an output that the filters reach", "x".join(map(str, out)))
        around = tuple((far - first, far + extra - last) for far, extra, (first, last) in zip(reach, more, pads))
        w = w.reshape(a.group, C//a.group, *w.shape[1:]).swapaxes(1, 2).reshape(-1, C//a.group, *w.shape[2:])[:, :, ::-1, ::-1]
        return self._add(node, Convolution, x, (len(w), *out), w=w, b=self._biases(node, b, len(w)), groups=a.group,
                         window=Window(window.K, (1, 1), around, "floor", window.dilation))

    def _biases(self, node, b, count):
        if b is not None and self._constant(node, b, "biases").shape != (count,):
            raise self._unsupported(node, f"{count} biases", f"shape {b.shape}")
        return b

    def _max_pool(self, node, a, x):
        C, *size = self._maps(node, x).shape
        window, out = self._window(node, a, a.kernel_shape, size)
        return self._add(node, MaxPooling, x, (C, *out), window=window)

    def _average_pool(self, node, a, x):
        C, *size = self._maps(node, x).shape
        window, out = self._window(node, a, a.kernel_shape, size)
        borders = "clipped" if window.rounding == "ceil" else "padded"
        if not getattr(a, "count_include_pad", 0):               # of version 7 and later
            borders = "inside"
        return self._add(node, AveragePooling, x, (C, *out), window=window, borders=borders)

    def _global_pool(self, node, a, x):
        kind = AveragePooling if node.op_type == "GlobalAveragePool" else MaxPooling
        return self._add(node, kind, self._maps(node, x), (x.shape[0], 1, 1), window=None)

    def _reduced(self, node, a, x, axes=None):
        kind = AveragePooling if node.op_type == "ReduceMean" else MaxPooling
        axes = self._known(node, a.axes if axes is None and self.version < 18 else axes, "axes")
        C, *_ = self._maps(node, x).shape
        if {axis % 4 for axis in axes} != ({2, 3} if x.order == "chw" else {1, 2}) or len(axes) != 2:
            raise self._unsupported(node, f"a {node.op_type} over rows and columns", f"one over axes {said(str(axes))}")
        if x.order == "hwc":
            x = Flow(x.name, x.shape)
        if a.keepdims:
            return self._add(node, kind, x, (C, 1, 1), window=None)
        name = f"{node.output[0]} as maps"
        self.aliases[name] = node.output[0]
        self.row.append(kind(called(node), x.name, name, window=None))
        return self._add(node, Flattening, Flow(name, (C, 1, 1)), (C,))

    def _pad(self, node, a, x, pads=None, value=None, axes=None):
        C, *size = self._maps(node, x).shape
        pads, value = (a.pads, a.value) if self.version < 11 else (pads, self._number(node, value, "value", 0.0))
        axes = [0, 1, 2, 3] if axes is None else [axis % 4 for axis in self._known(node, axes, "axes")]
        pads = self._known(node, pads, "pads")
        if len(pads) != 2*len(axes) or len(set(axes)) != len(axes) or not all(abs(n) <= MOST_SIDE for n in pads):
            raise self._unsupported(node, "pads in front of and behind each axis", said(str(pads)))
        pairs = dict(zip(axes, zip(pads, pads[len(axes):])))
        if any(pairs.get(axis, (0, 0)) != (0, 0) for axis in (0, 1)):
            raise self._unsupported(node, "padding of rows and columns", "pictures or maps more")
        if not any(pads):
            return x
        if a.mode != "constant" and max(pads) > 0 or not abs(value) <= HIGHEST:
            raise self._unsupported(node, "padding with one number", f"mode {said(a.mode)}, value {value:g}",
                                    "borders of that kind")
        around = pairs.get(2, (0, 0)), pairs.get(3, (0, 0))
        out = [n + sum(pair) for n, pair in zip(size, around)]
        if any(n < 1 or n + min(pair) < 1 for n, pair in zip(size, around)) or min(out) < 1:
            raise self._unsupported(node, "something left of the maps", "x".join(map(str, out)))
        return self._around(node, value if max(pads) > 0 else 0, Padding, x, (C, *out), pads=around)

    def _slice(self, node, a, x, starts=None, ends=None, axes=None, steps=None):
        """A part of the rows and columns."""
        if self.version < 10:
            starts, ends, axes = a.starts, a.ends, a.axes
        starts, ends = self._known(node, starts, "starts"), self._known(node, ends, "ends")
        axes = [0, 1, 2, 3][:len(starts)] if axes is None else [axis % 4 for axis in self._known(node, axes, "axes")]
        C, *size = self._maps(node, x).shape
        steps = self._known(node, [1] if steps is None else steps, "steps")
        if axes == [1] and steps == [-1]:
            raise self._other_order(node, x)
        around = {0: (0, 0), 1: (0, 0), 2: (0, 0), 3: (0, 0)}
        for axis, start, end in zip(axes, starts, ends):
            n = (2**31 - 1, C, *size)[axis]                # of pictures there may be any number
            first, last = (min(max(place + n if place < 0 else place, 0), n) for place in (start, end))
            around[axis] = -first, last - n
        if (any(around[0] + around[1]) or set(steps) != {1}
                or len(set(axes)) != len(axes) or not len(starts) == len(ends) == len(axes)):
            raise self._unsupported(node, "rows and columns that lie together", "others, or pictures or maps", "branches")
        out = [n + sum(around[axis]) for axis, n in zip((2, 3), size)]
        if min(out) < 1:
            raise self._unsupported(node, "something left of the maps", "x".join(map(str, out)))
        return self._add(node, Padding, x, (C, *out), pads=(around[2], around[3])) if out != size else x

    def _other_order(self, node, flow):
        """The sentence about a node that takes maps, or the colours of pictures, in another order."""
        if flow.shape[0] == 3 and not self.row:            # behind a mean of each colour --channels bgr is not the same
            return Unsupported(f"{self.path}: {called(node)}", "the colours in the order in which they enter", "another order",
                               "export the network without this node; if it turns them round, --channels bgr does that")
        return self._unsupported(node, "maps in their order", "another order", "a layer for it")

    def _only_pictures(self):
        """Return whether of the pictures that enter nothing else was made so far."""
        return all(isinstance(node, (Affine, Subtraction)) for node in self.row)

    def _before_turning(self, node, got):
        """The sentence about a node that sees pictures (N,H,W,C)."""
        return Unsupported(f"{self.path}: {called(node)}", "before the Transpose to N,C,H,W a cast, and sums and products with one number, "
                           "one for each channel (the last axis) or a mean picture", got, "export the network with this behind its "
                           "Transpose, or without it")

    def _known(self, node, values, what):
        """Whole numbers, as a list, that are attributes or constants."""
        values = np.asarray([] if values is None else values)
        if values.dtype.kind not in "iu" or values.ndim > 1 or values.size > 8:
            raise self._unsupported(node, f"known whole numbers as {what}", "others")
        return values.reshape(-1).tolist()

    # ------------------------------------------------------------------------------------------------ pixel by pixel, unit by
    # unit
    def _relu(self, node, a, x):
        return self._add(node, Rectifier, x, x.shape)

    def _clip(self, node, a, x, low=None, high=None):
        if self.version < 11:
            return self._clipped(node, x, a.min, a.max)
        return self._clipped(node, x, self._number(node, low, "min", -HIGHEST), self._number(node, high, "max", HIGHEST))

    def _clipped(self, node, x, low, high):
        if high < HIGHEST or not low <= HIGHEST:
            raise self._unsupported(node, "a clip without an upper end", f"one to {low:g} and {high:g}",
                                    "a rectifier that ends")
        return x if low <= -HIGHEST else self._around(node, low, Rectifier, x, x.shape)

    def _max(self, node, a, *inputs):
        """The larger one of each number and a constant."""
        flow, = (value for value in inputs if isinstance(value, Flow))
        constants = [self._constant(node, value, "its other input") for value in inputs if value is not flow]
        if any(value.size != 1 or value.ndim > len(flow.shape) + 1 for value in constants):
            raise self._unsupported(node, "one number for all", "several", "branches")
        low = max((float(value.reshape(())) for value in constants), default=-np.inf)
        return self._clipped(node, flow, low, HIGHEST)

    def _lrn(self, node, a, x):
        if not 1 <= a.size <= 2**16 or a.bias <= 0 or a.alpha < 0 or a.beta < 0:
            raise self._unsupported(node, "a size, a bias above 0, alpha and beta not below",
                                    f"{said(a.size)}, {a.bias:g}, {a.alpha:g}, {a.beta:g}")
        return self._add(node, ResponseNorm, self._maps(node, x), x.shape, n=a.size, alpha=a.alpha, beta=a.beta, k=a.bias,
                         above=a.size % 2 == 0)

    def _batch_normalization(self, node, a, x, *arrays):
        training = (self.version < 7 and not a.is_test) or getattr(a, "training_mode", 0) or len(list(filter(None, node.output))) > 1
        if training:
            raise self._unsupported(node, "batch normalisation as it is used", "as it is trained", "an export for inference")
        if not getattr(a, "spatial", 1) and x.shape[1:] not in ((), (1, 1)):
            raise self._unsupported(node, "one number a map", "spatial = 0", "a normalisation of every pixel by its own")
        if any(self._constant(node, array, "scale, shift, mean and variance").shape != x.shape[:1] for array in arrays):
            raise self._unsupported(node, f"{x.shape[0]} numbers each", ", ".join(str(array.shape) for array in arrays))
        gamma, beta, mean, var = (np.asarray(array, np.float64) for array in arrays)
        if not (var + a.epsilon > 0).all():
            raise self._unsupported(node, "variances above 0", f"{var.min():g}")
        scale = gamma/np.sqrt(var + a.epsilon)
        return self._add(node, Affine, x, x.shape, scale=scale, shift=beta - mean*scale)

    def _dropout(self, node, a, x, ratio=None, training=None):
        ratio = _plain(self._number(node, ratio, "ratio", getattr(a, "ratio", 0.5)))
        trains = not a.is_test if self.version < 7 else training is not None and bool(np.asarray(training).any())
        if trains and ratio:
            raise self._unsupported(node, "dropout that does nothing", "as it is in training", "an export for inference")
        if not 0 <= ratio < 1:
            raise self._unsupported(node, "a ratio from 0 to below 1", ratio)
        return self._add(node, Dropping, x, x.shape, ratio=ratio)

    def _softmax(self, node, a, x):
        flat = self.version < 13                                 # then it is over all axes from that one on
        if a.axis not in (1, -len(x.shape)) or x.shape[1:] not in ((), (1, 1)) and not flat or x.order != "chw":
            raise self._unsupported(node, "a softmax over the classes", f"one over axis {said(a.axis)} of {len(x.shape) + 1}")
        if x.shape[1:] not in ((), (1, 1)):
            x = self._add(node, Flattening, x, (math.prod(x.shape),), inner=True)
        return self._add(node, Probabilities, x, x.shape)

    def _with_constant(self, node, a, x, y):
        """Sum, difference, product or quotient of maps or units and a constant."""
        op, constant_first = node.op_type, isinstance(y, Flow)
        flow, c = (y, x) if constant_first else (x, y)
        c = np.asarray(self._constant(node, c, "its other input"), np.float64)
        if op == "Div" and constant_first:
            raise self._unsupported(node, "maps divided by a constant", "a constant divided by maps")
        if op in ("Add", "Sub") and not constant_first and (picture := self._picture(flow, c)) is not None:
            self.preprocessing.update(size=flow.shape[1])
            self.notes.append(f"{called(node)}: a picture, which the file itself {'subtracts' if op == 'Sub' else 'adds'}")
            return self._of_each(node, flow, Subtraction, picture=picture if op == "Sub" else -picture)
        c = self._each(node, a, flow, c)
        if op == "Div" and not c.all():
            raise self._unsupported(node, "numbers other than 0 to divide by", 0)
        if op in ("Add", "Sub"):
            scale, shift = (-1 if op == "Sub" and constant_first else 1), (-c if op == "Sub" and not constant_first else c)
        else:
            scale, shift = (c if op == "Mul" else 1/c), 0
        return self._of_each(node, flow, Affine, scale=scale + np.zeros_like(c), shift=shift + np.zeros_like(c))

    def _of_each(self, node, flow, kind, **what):
        """Put a node behind `flow`, in whatever order its axes are, that does the same wherever they stand."""
        made = self._add(node, kind, Flow(flow.name, flow.shape), flow.shape, **what)
        if flow.order != "chw":
            self.aliases[made.name] = ""                   # the file has its numbers in another order
        return replace(made, order=flow.order)

    def _each(self, node, a, flow, c):
        """A constant that is broadcast to every pixel of a map, (C,) or (1,)."""
        rank = len(flow.shape) + 1
        if self.version < 7 and c.ndim < rank and c.size > 1:
            axis = rank - c.ndim if a.axis is None else a.axis % rank
            if not a.broadcast or axis + c.ndim > rank:
                raise self._unsupported(node, "a constant that is broadcast", f"shape {c.shape}")
            c = c.reshape(*c.shape, *[1]*(rank - axis - c.ndim))
        if c.size == 1 and c.ndim <= rank:
            return c.reshape(1)
        if (1,)*(rank - c.ndim) + c.shape != (1, *Flow("", (flow.shape[0], *[1]*(rank - 2)), flow.order).axes):
            if flow.order == "hwc" and self._only_pictures():
                raise self._before_turning(node, f"a constant of shape {c.shape}")
            raise self._unsupported(node, "one number, or one for each map or unit", f"shape {c.shape}",
                                    "a constant for every pixel")
        return c.reshape(-1)

    def _picture(self, flow, c):
        """c as (C,H,W) where it has a number for every pixel of the pictures that enter, or one for all channels of each, of which
        so far nothing else was made; else None."""
        if not self._only_pictures() or len(flow.shape) != 3 or math.prod(flow.shape[1:]) == 1:
            return None
        C, H, W = flow.shape
        whole, grey = flow.axes, Flow("", (1, H, W), flow.order).axes
        if c.shape not in {whole, (1, *whole)} | ({grey, (1, *grey)} if self.version >= 7 else set()):
            return None
        c = c.reshape(c.shape[-3:])
        return np.broadcast_to(c.transpose(2, 0, 1) if flow.order == "hwc" else c, flow.shape)

    def _head(self, flow):
        self.first = flow
        return flow

    # ---------------------------------------------------------------------------------------------------------- products and
    # shapes
    def _gemm(self, node, a, x, w=None, c=None):
        w = self._matrix(node, x, w)
        if a.transA:
            raise self._unsupported(node, "units as they are", "transA = 1")
        w = w if a.transB else w.T
        self._fits(node, x, w)
        if c is not None:
            c = self._constant(node, c, "C")
            if c.ndim > 2 or c.size not in (1, len(w)) or c.ndim == 2 and len(c) > 1 or self.version < 7 and c.ndim < 2 and not a.broadcast:
                raise self._unsupported(node, f"{len(w)} biases", f"C of shape {c.shape}")
            c = np.broadcast_to(c.reshape(-1), (len(w),))
            c = c if a.beta == 1 else a.beta*c.astype(np.float64)
        w = w if a.alpha == 1 else a.alpha*w.astype(np.float64)
        return self._add(node, Dense, x, (len(w),), w=w, b=c)

    def _matmul(self, node, a, x, w=None):
        w = self._matrix(node, x, w).T
        self._fits(node, x, w)
        return self._add(node, Dense, x, (len(w),), w=w, b=None)

    def _matrix(self, node, x, w):
        if not isinstance(x, Flow) or len(x.shape) != 1:
            raise self._unsupported(node, "units times a constant", "maps, or a constant times units")
        if self._constant(node, w, "matrix").ndim != 2:
            raise self._unsupported(node, "a matrix", f"shape {w.shape}")
        return w

    def _fits(self, node, x, w):
        if w.shape[1] != x.shape[0]:
            raise self._unsupported(node, f"a matrix for {x.shape[0]} units", w.shape[::-1])

    def _flatten(self, node, a, x):
        if a.axis not in (1, -len(x.shape)) and not (self.batch == 1 and a.axis in (0, -len(x.shape) - 1)):
            raise self._unsupported(node, "the axes behind the pictures as one", f"axis {said(a.axis)}")
        return self._flattened(node, x)

    def _flattened(self, node, x):
        if len(x.shape) == 1:
            return x
        order = "chw" if x.shape[1:] == (1, 1) else x.order
        return self._add(node, Flattening, x, (math.prod(x.shape),), order=order)

    def _reshape(self, node, a, x, shape=None):
        """One that makes a row of each picture's maps, or leaves the shape as it is."""
        if not isinstance(shape, np.ndarray) or shape.dtype.kind not in "iuO" or shape.ndim != 1 or shape.size > 8:
            raise self._unsupported(node, "a shape that is known", "another")
        own, shape = [self.batch or PICTURES, *x.axes], shape.tolist()
        if not getattr(a, "allowzero", 0):
            shape = [own[k] if n == 0 and k < len(own) else n for k, n in enumerate(shape)]
        pictures, rest = shape[:1], shape[1:]
        if rest.count(-1) == 1 and pictures != [-1] and PICTURES not in rest:
            others = math.prod(n for n in rest if n != -1)
            rest = [math.prod(x.shape)//others if n == -1 and others else n for n in rest]
        if pictures not in ([-1], [PICTURES], own[:1]) or rest not in (own[1:], [math.prod(x.shape)]):
            raise self._unsupported(node, "one row of each picture's maps",
                                    f"the shape {said(str(shape))} for {'x'.join(map(str, own))}")
        return x if rest == own[1:] else self._flattened(node, x)

    def _squeeze(self, node, a, x, axes=None):
        axes = self._known(node, a.axes if self.version < 13 else axes, "axes")
        left = [n for k, n in enumerate(x.axes, 1) if k not in {axis % (len(x.shape) + 1) for axis in axes}]
        if left != [x.shape[0]] or math.prod(x.shape) != x.shape[0]:
            raise self._unsupported(node, "maps of one pixel, whose rows and columns are left out",
                                    f"axes {said(str(axes))} of {'x'.join(map(str, x.axes))}")
        return self._flattened(node, x)

    def _negative(self, node, a, x):
        return self._add(node, Affine, x, x.shape, scale=-np.ones(1), shift=np.zeros(1))

    def _identity(self, node, a, x):
        return x

    def _cast(self, node, a, x):
        if a.to not in FORMS or np.dtype(FORMS[a.to][0]).kind != "f":
            raise self._unsupported(node, "a cast to floating-point numbers", f"data type {said(a.to)}")
        if self.dtype.kind == "f":
            return x
        zero, one = np.zeros(1), np.ones(1)
        self.preprocessing = {"mean": zero, "scale": one}
        self.notes.append(f"{self.first.name}: pictures of {self.dtype}, 0 to 255")
        self.dtype = np.dtype(FORMS[a.to][0])
        return self._head(Flow(node.output[0], x.shape, x.order))

    def _transpose(self, node, a, x):
        rank = len(x.shape) + 1
        perm = tuple(a.perm if a.perm is not None else range(rank)[::-1])
        if perm == tuple(range(rank)):
            return x
        if perm == BACK and x.order == "hwc" or perm == FORTH and x.order == "chw":
            return Flow(x.name, x.shape, "chw" if perm == BACK else "hwc")
        raise self._unsupported(node, "axes in the order N,C,H,W or N,H,W,C", f"{said(str(list(perm)))} of them")


LAYERS = {"Conv": _Reader._conv, "ConvTranspose": _Reader._conv_transpose,
          "MaxPool": _Reader._max_pool, "AveragePool": _Reader._average_pool,
          **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _Reader._global_pool),
          **dict.fromkeys(("ReduceMean", "ReduceMax"), _Reader._reduced), "Max": _Reader._max, "Neg": _Reader._negative,
          "Pad": _Reader._pad, "Slice": _Reader._slice, "Relu": _Reader._relu, "Clip": _Reader._clip, "LRN": _Reader._lrn,
          "BatchNormalization": _Reader._batch_normalization, "Dropout": _Reader._dropout,
          **dict.fromkeys(("Softmax", "LogSoftmax"), _Reader._softmax),
          **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _Reader._with_constant), "Gemm": _Reader._gemm,
          "MatMul": _Reader._matmul,
          "Flatten": _Reader._flatten, "Reshape": _Reader._reshape, "Squeeze": _Reader._squeeze, "Identity": _Reader._identity,
          "Cast": _Reader._cast, "Transpose": _Reader._transpose}

ANY_ORDER = {"Add", "Sub", "Mul", "Div", "Cast", "Identity", "Transpose"}
EITHER = {"Max", "Add", "Sub", "Mul", "Div", "Gemm", "MatMul"}        # which ask themselves which of their inputs is a constant


def read_by(node: Any) -> list[str]:
    """Names of the tensors that a node reads, those of its branches included."""
    inner = [name for entry in node.attribute if entry.HasField("g") for one in entry.g.node for name in read_by(one)]
    return [*node.input, *inner]


def called(node: Any) -> str:
    """Name by which the file calls a node; where it has no name, its output's."""
    name = node.name or next(filter(None, node.output), "") or node.op_type
    return (name.decode() if isinstance(name, bytes) else name)[:100]             # protobuf gives bytes where they are no UTF-8


def _plain(value):
    """An attribute's value as Python has it; of float32, the shortest number that is rounded to it: what somebody wrote."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return float(str(np.float32(value))) if isinstance(value, float) else list(value) if isinstance(value, Sequence) else value


def _version_of(*packages):
    for name in packages:
        try:
            return version(name)
        except ImportError:
            pass
    return ""


# ------------------------------------------------------------------------------------------------------------- onnxruntime
@dataclass
class Engine:
    """Computes tensors of the file at `path` with onnxruntime. What enters the file is `source`, of `dtype`, and behind its cast
    the Flow `first`. `batch` pictures enter at once (None: as many as there are);
    `aliases` are names that the file has others for, or none, "". What the file has in 16 or 64 bits is given to it in 32: its
    own rounding in 16 is larger than many an error, which it would hide, and in 64 it has no convolution."""
    path: Path
    source: Flow
    dtype: np.dtype[Any]
    first: Flow
    batch: int | None
    aliases: Mapping[str, str]

    def __call__(self, x: NDArray[np.float32], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """{name: array (N,...)} of x (N,C,H,W)."""
        wanted = list(filter(None, dict.fromkeys(self.aliases.get(name, name) for name in names)))
        count, each = len(x), self.batch or len(x)
        where, x = self._entering(np.concatenate([x, np.repeat(x[:1], -count % each, axis=0)]))
        model, weights = self._model(wanted, where, x.dtype)
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented
        try:
            session = self._session(model)
            rows = [session.run(wanted, {where.name: x[k:k + each], **weights}) for k in range(0, len(x), each)]
        except NotImplemented:                            # which is nothing against the file: none of its tensors is shown
            return {}
        except Exception as error:                        # onnxruntime has a dozen kinds of its own
            raise check.Expected(f"{self.path}: onnxruntime", "to compute it", said(str(error), 300)) from None
        found = dict(zip(wanted, (np.concatenate(arrays)[:count] for arrays in zip(*rows))))
        return {name: found[own] for name in names if (own := self.aliases.get(name, name))}

    def _entering(self, x):
        """(the Flow at which x (N,C,H,W) enters, x as it is there): what the file itself is given, so that all that it does to
        pictures is computed too; but behind its cast for numbers that its input cannot hold."""
        as_given, behind = (x.transpose(0, 2, 3, 1) if flow.order == "hwc" else x for flow in (self.source, self.first))
        if self.dtype.kind == "f":
            return self.source, as_given.astype(np.float32)
        with np.errstate(invalid="ignore"):
            whole = as_given.astype(self.dtype)
        return (self.source, whole) if (whole == as_given).all() else (self.first, behind.astype(np.float32))

    def _session(self, model):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _model(self, wanted, where, dtype):
        """(the bytes of a model that gives these tensors, of what enters at the Flow `where`; {name: array} of its large
        constants, which enter it too: of what enters onnxruntime makes no copy)."""
        from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

        def entering(name, kind, shape):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), shape)
        model = parsed(self.path)
        graph, tensors = model.graph, Tensors(self.path)
        nodes, read = self._needed(graph, wanted, where.name)
        inputs = [entering(where.name, dtype, [self.batch or PICTURES, *where.axes])]
        small, large = [], {}
        for tensor in (tensor for tensor in graph.initializer if tensor.name in read):
            array = _in_32_bits(tensors.array(tensor))
            if array.nbytes > LARGE:
                large[tensor.name] = array
                inputs.append(entering(tensor.name, array.dtype, array.shape))
            else:
                small.append(numpy_helper.from_array(array, tensor.name))
        cut = helper.make_graph(nodes, "graph", inputs, [ValueInfoProto(name=name) for name in wanted], small)
        for entry in (entry for node in cut.node for entry in node.attribute):
            if entry.HasField("t"):
                entry.t.CopyFrom(numpy_helper.from_array(_in_32_bits(tensors.array(entry.t))))
            elif entry.name == "to" and entry.i in (HALF, BFLOAT16, DOUBLE):
                entry.i = TensorProto.FLOAT
        whole = helper.make_model(cut, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
        return whole.SerializeToString(), large

    def _needed(self, graph, wanted, first):
        """(the nodes that these tensors need of the one called `first`, the names of all that those read)."""
        makers = {name: node for node in graph.node for name in node.output}
        kept, read, todo = set(), set(), list(wanted)
        while todo:
            if (name := todo.pop()) not in read:
                read.add(name)
                if name != first and name in makers:
                    kept.add(id(makers[name]))
                    todo += read_by(makers[name])
        return [node for node in graph.node if id(node) in kept], read


def _in_32_bits(array):
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
