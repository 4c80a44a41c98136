"""A network of somebody else's, as its file says it: nodes in a row, in nobody's conventions but the file's own.

A reader (onnx.py, caffe.py, torch.py, ...) turns a file into a `Foreign`; lower.py makes layers of zfcore of it. A reader
changes no numbers and leaves out nothing but what computes nothing: it knows the format, and nothing of zfcore's layers.

Arrays are in the order of ONNX, Caffe and PyTorch, batch first: maps (N,C,H,W), filters (F,C/groups,K,K), matrices (M,D); a
format that has another order (Keras) turns them round, and says by `Flattening.order` what it cannot turn.
"""
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.layers import Layer

MOST_NODES = 1000                 # as many layers as a checkpoint may have
Pads = tuple[tuple[int, int], tuple[int, int]]                  # (before, after) of rows, of columns


@dataclass
class Window:
    """Windows of K (rows, columns) at strides S. `pads`: what lies around the maps, or "same_upper", "same_lower": as much as
    makes ceil(size/S) outputs, of which an odd pixel lies behind or in front. `rounding` as `zfcore.ops.window.output_size`."""
    K: tuple[int, int]
    S: tuple[int, int] = (1, 1)
    pads: Pads | Literal["same_upper", "same_lower"] = ((0, 0), (0, 0))
    rounding: Literal["ceil", "floor"] = "floor"
    dilation: tuple[int, int] = (1, 1)


def padding(window: Window, size: Sequence[int]) -> Pads:
    """((top, bottom), (left, right)) of a window on maps of `size` (H,W)."""
    if not isinstance(window.pads, str):
        return window.pads
    pads = []
    for n, K, S, d in zip(size, window.K, window.S, window.dilation):
        total = max((-(-n//S) - 1)*S + 1 + (K - 1)*d - n, 0)
        less = total//2
        pads.append((less, total - less) if window.pads == "same_upper" else (total - less, less))
    return pads[0], pads[1]


def counted(size: int, K: int, S: int, pads: tuple[int, int], rounding: str) -> int:
    """Number of windows along an axis; of those that "ceil" lets reach over the end none begins behind the map."""
    over = size + sum(pads) - K
    if rounding == "floor":
        return over//S + 1
    count = -(-over//S) + 1
    while count > 1 and (count - 1)*S >= size + pads[0]:
        count -= 1
    return count


# ----------------------------------------------------------------------------------------------------------------- nodes
@dataclass
class Node:
    """A step of a network: `name` is what the file calls it, for layers and for sentences; it reads the tensor `reads` and
    makes the tensor `gives`, by the file's names for them."""
    name: str
    reads: str
    gives: str


@dataclass
class Convolution(Node):
    """Filters w (F,C/groups,K,K), biases b (F,) or None."""
    w: NDArray[Any]
    b: NDArray[Any] | None
    window: Window
    groups: int = 1


@dataclass
class Dense(Node):
    """y = w x + b with w (M,D), b (M,) or None."""
    w: NDArray[Any]
    b: NDArray[Any] | None


@dataclass
class MaxPooling(Node):
    """Maxima of windows; None: of whole maps."""
    window: Window | None


@dataclass
class AveragePooling(Node):
    """Means of windows, None: of whole maps; what they divide by at the border is `borders`, as `zfcore.layers.AvgPool` has
    it."""
    window: Window | None
    borders: Literal["inside", "padded", "clipped"] = "inside"


@dataclass
class Padding(Node):
    """Zeros around the maps."""
    pads: Pads


@dataclass
class Rectifier(Node):
    """max(x, 0)."""


@dataclass
class ResponseNorm(Node):
    """x / (k + a*(sum of squares))^beta over n neighbours: maps ("across"), or pixels of the same map ("within", n x n of
    them). a = alpha/(number of neighbours) in the "mean" convention, alpha in the "sum" one. Of an even n one more map lies
    `above`."""
    n: int
    alpha: float
    beta: float
    k: float
    convention: Literal["mean", "sum"] = "mean"
    region: Literal["across", "within"] = "across"
    above: bool = False


@dataclass
class Affine(Node):
    """y = scale*x + shift, float64 (C,) each, a map or unit at a time; of size (1,) the same for all. A batch normalisation by
    running statistics is one: scale = gamma/sqrt(var + eps), shift = beta - mean*scale."""
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass
class Subtraction(Node):
    """y = x less a picture, float64 (C,S,S): of what enters alone, which is its middle's size."""
    picture: NDArray[np.float64]


@dataclass
class Flattening(Node):
    """(N,C,H,W) -> (N,D), maps in the order "chw", or "hwc" where the rows of the matrix behind it are so."""
    order: Literal["chw", "hwc"] = "chw"


@dataclass
class Dropping(Node):
    """Dropout: nothing, outside of training."""
    ratio: float = 0.5


@dataclass
class Probabilities(Node):
    """Softmax over maps or units (or its logarithm)."""


# --------------------------------------------------------------------------------------------------------------- networks
@dataclass
class Foreign:
    """A network as its file says it.

    format        "ONNX", "Caffe", ..., for sentences
    path          the file
    input_shape   (C,H,W) of what enters; `input` is the file's name for it
    nodes         in the order in which they are computed; `output` is what the last one gives
    labels        names of the classes, where the file has them
    preprocessing what the file says of it, as keywords of `preprocessing.Preprocessing`
    told          a line about each of these, or about one that the file leaves open, by its keyword
    notes         a line for each other thing that was assumed or computed when it was read
    engine        computes it with the format's own engine: (x float32 (N,C,H,W), names of tensors) -> {name: array}; None:
                  there is none here, and `engine_hint` says what to install"""
    format: str
    path: Path
    input: str
    input_shape: tuple[int, int, int]
    nodes: list[Node]
    labels: list[str] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    engine: Callable[[NDArray[np.float32], Sequence[str]], Mapping[str, NDArray[Any]]] | None = None
    engine_name: str = ""
    engine_hint: str = ""

    @property
    def output(self) -> str:
        return self.nodes[-1].gives


def nothing_beside(what: str, graph: object, model: object) -> None:
    """Raise Expected where --graph or --model stands beside a file, called `what`, that says itself how its layers lie."""
    for option, value in (("--graph", graph), ("--model", model)):
        if value is not None:
            raise check.Expected(option, f"nothing beside {what}, which says how its layers lie", value)


@contextmanager
def part_of(where: object) -> Iterator[None]:
    """`with part_of(path):` a sentence about something in it begins with `where` it is."""
    try:
        yield
    except check.Expected as error:
        raise check.Expected(f"{where}: {error.what}", error.expected, error.got, error.advice) from None


class Unsupported(check.Expected):
    """A node that zfcore has no layer for: "FILE: conv1: expected dilation 1, got 2; it would take ..."."""


def unsupported(where: object, node: str, expected: str, got: object, needed: str = "") -> Unsupported:
    """The sentence about the node called `node` of the file `where`; `needed`: what zfcore would have to learn."""
    return Unsupported(f"{where}: {node}", expected, got, needed and f"zfcore would need {needed}")


def for_kind(table: Mapping[Any, Any], layer: Layer, where: object) -> Any:
    """The entry of `table` for the layer's kind. Raises Expected for a kind that it has not, as one of somebody's own."""
    if type(layer) not in table:
        raise check.Expected(f"{where}: {layer.name}", f"a layer of {', '.join(kind.__name__ for kind in table)}", type(layer).__name__)
    return table[type(layer)]


def in_a_row(where: object, nodes: Iterable[Node], first: str, last: str | None = None) -> list[Node]:
    """The nodes in the order in which they are computed, from the tensor called `first` to the one called `last`, or to the
    end.

    Raises Unsupported, naming a node, where two read the same tensor (branches), or one that nobody makes; Expected for a
    tensor that is made twice and for nodes that lead round in a circle."""
    nodes = list(nodes)
    if len(nodes) > MOST_NODES:
        raise check.Expected(where, f"at most {MOST_NODES} nodes", len(nodes))
    for name, count in Counter(node.gives for node in nodes).items():
        if count > 1 or name == first:
            raise check.Expected(f"{where}: {name}", "to be made by one node", f"{count + (name == first)} that do")
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        readers.setdefault(node.reads, []).append(node)
    row, at = [], first
    while at != last and at in readers:
        if len(readers[at]) > 1:
            raise unsupported(where, readers[at][1].name, f"one reader of {at!r}",
                              " and ".join(node.name for node in readers[at][:2]), "networks that branch")
        node, = readers[at]
        if len(row) == len(nodes):
            raise check.Expected(f"{where}: {node.name}", "nodes in a row", "a circle")
        row.append(node)
        at = node.gives
    taken = set(map(id, row))
    left = [node for node in nodes if id(node) not in taken]
    if left or last is not None and at != last:
        node = left[0] if left else row[-1] if row else None
        raise unsupported(where, node.name if node else first, "one row of nodes from the input to the output",
                          "one that is not in it", "networks that branch")
    return row
