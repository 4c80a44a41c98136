"""Floor 0: what the annotations of the public names say where Python and NumPy have no word for it."""
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

# An array on the network's device: numpy.ndarray or, on a GPU, cupy.ndarray, which have no type in common. So checkers let any
# type pass; docstrings say shape and dtype. Where it says NDArray, the array lies on the host.
Array: TypeAlias = Any
Arrays: TypeAlias = Mapping[str, Mapping[str, Array]]                    # {layer name: {"w": array, "b": array}}
Ints: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]               # whole numbers in a row: units, labels
Floats: TypeAlias = float | Sequence[float] | NDArray[np.floating[Any]]  # one number, or several in a row or an array
Points: TypeAlias = Sequence[Sequence[float]] | NDArray[Any]                # (n,2)
Shape: TypeAlias = tuple[int, ...]                                       # of one picture: (C,H,W), or (D,) behind a Flatten
Row: TypeAlias = dict[str, Any]                                          # of the layer table, see `Layer.fields`
FilePath: TypeAlias = str | os.PathLike[str]
Precision: TypeAlias = Literal["fp32", "fp32x3", "tf32", "bf16"]
Law: TypeAlias = Literal["gaussian", "he"]


class Bar(Protocol):
    """A progress bar, as those of tqdm are: `update(n)` moves it on by n."""

    def update(self, n: int, /) -> object: ...


class Result(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
