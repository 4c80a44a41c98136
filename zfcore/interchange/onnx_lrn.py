"""PyTorch's LocalResponseNorm in ONNX, where it is squares, their means over neighbouring maps, a power and a quotient.

A `Squares` goes through the nodes as far as it is certain what they make of it; the quotient at the end is a ResponseNorm. Axes
are (N,C,H,W), or (N,1,C,H,W) while the means are taken.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zfcore.hints import Shape


MOST_NEIGHBOURS = 2**16


@dataclass(frozen=True)
class Squares:
    """(k + alpha*mean)^beta of the squares of the maps `of` (C,H,W), each over n neighbours; `more` zeros are below and
    above."""
    of: str
    shape: Shape
    deep: bool = False                # with an axis more
    more: tuple[int, int] = (0, 0)
    above: tuple[int, int] = (0, 0)   # neighbours below and above, as soon as means are taken
    n: int = 1
    alpha: float = 1.0
    k: float = 0.0
    beta: float | None = None

    @property
    def axes(self) -> Shape:
        """Shape, but for the number of pictures."""
        C, H, W = self.shape
        return (1, C + sum(self.more), H, W) if self.deep else self.shape


def squares_behind(op_type: str, a: Any, value: Squares, others: Sequence[Any], pictures: Sequence[Any]) -> Squares | None:
    """Result of an operator with attributes `a` on Squares and constants; None where that is nothing of the kind. `pictures`
    are the ways in which a shape may write the number of pictures."""
    if not all(one is None or isinstance(one, np.ndarray) and (one.dtype != object or op_type == "Reshape") for one in others):
        return None
    first = others[0] if others else None
    number = _number(first)
    match op_type:
        case "Identity" | "Cast":
            return value
        case "Reshape" | "Unsqueeze" | "Squeeze":
            return _shaped(op_type, a, value, first, pictures)
        case "Pad" if value.deep and value.n == 1:
            return _padded(a, value, others)
        case "AveragePool" if value.deep and value.n == 1:
            return _averaged(a, value)
        case "Mul" if value.n > 1 and not value.deep and value.k == 0 and number > 0:
            return replace(value, alpha=value.alpha*number)
        case "Add" if value.n > 1 and not value.deep and value.k == 0 and number > 0:
            return replace(value, k=number)
        case "Pow" if value.k > 0 and value.beta is None and number >= 0:
            return replace(value, beta=number)
    return None


def _number(array):
    """The number of an array of one, as somebody wrote it; NaN of others."""
    is_one = array is not None and array.size == 1 and array.dtype.kind == "f"
    return float(str(array.reshape(())[()])) if is_one else math.nan


def _shaped(op_type, a, value, first, pictures):
    if op_type != "Reshape":
        axes = getattr(a, "axes", None) if first is None else first.reshape(-1).tolist()
        fits = axes == [1] and value.deep == (op_type == "Squeeze") and not any(value.more)
        return replace(value, deep=not value.deep) if fits else None
    if first is None or first.ndim != 1:
        return None
    other = replace(value, deep=not value.deep)
    for kept in (value, other) if not any(value.more) else (value,):
        wanted, found = list(kept.axes), first.tolist()
        as_many = len(found) == len(wanted) + 1 and found[0] in pictures and found.count(-1) <= 1
        if as_many and all(n in (m, -1) for n, m in zip(found[1:], wanted)):
            return kept
    return None


def _padded(a, value, others):
    pads, outside = (a.pads, a.value) if hasattr(a, "pads") else (others[0], 0.0 if len(others) < 2 else _number(others[1]))
    pads = np.asarray(pads)
    if pads.shape != (10,) or pads.dtype.kind not in "iu" or len(others) > 2 or a.mode != "constant" or outside != 0:
        return None
    pads = pads.tolist()
    if min(pads) < 0 or max(pads) > MOST_NEIGHBOURS or any(pads[:2] + pads[3:7] + pads[8:]):
        return None
    return replace(value, more=(value.more[0] + pads[2], value.more[1] + pads[7]))


def _averaged(a, value):
    n = 1 + sum(value.more)
    steps = {*(a.strides or [1]), *(getattr(a, "dilations", None) or [1])}
    if steps != {1} or a.auto_pad != "NOTSET" or any(a.pads or ()) or list(a.kernel_shape) != [n, 1, 1] or n == 1:
        return None
    return replace(value, n=n, more=(0, 0), above=value.more)
