"""The constants of an ONNX file: tensors, in it or in a file beside it, and what its nodes compute of them.

What a tensor declares is held against what is there before memory is taken for it. How many pictures there are is not known
when a shape is computed: shapes are then arrays of objects, in which PICTURES stands for that number.
"""
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore.check import Expected
from zfcore.files import inside, opener, said

PICTURES = "N"
MOST_BYTES = 2**32                # of tensors that lie in files
# bytes of what nodes compute of constants: so many at most, these of any file, and so many times its own
MOST_COMPUTED, FREE, TIMES = 2**31, 2**27, 16

# TensorProto.DataType: how the numbers lie in raw_data, and the field that has them where there is none.
BFLOAT16, HALF, DOUBLE, BOOL, INT8 = 16, 10, 11, 9, 3
FORMS = {1: ("<f4", "float_data"), DOUBLE: ("<f8", "double_data"), HALF: ("<f2", "int32_data"), BFLOAT16: ("<u2", "int32_data"),
         2: ("|u1", "int32_data"), INT8: ("|i1", "int32_data"), 4: ("<u2", "int32_data"), 5: ("<i2", "int32_data"),
         6: ("<i4", "int32_data"), 7: ("<i8", "int64_data"), BOOL: ("|u1", "int32_data"), 12: ("<u4", "uint64_data"),
         13: ("<u8", "uint64_data")}


class Tensors:
    """Reads tensors of the file at `path`, of whose bytes it keeps count."""

    def __init__(self, path: Path) -> None:
        self.path, self.external = path, 0

    def check(self, tensor: Any) -> None:
        """Raise Expected for a TensorProto of a kind that is not known, or whose numbers are not as many as it says."""
        count, (form, field) = self._count(tensor), self._form(tensor)
        if tensor.data_location == tensor.EXTERNAL:
            self._place(tensor, count*np.dtype(form).itemsize)
        elif tensor.HasField("raw_data"):
            self._same(tensor, f"{count*np.dtype(form).itemsize} bytes", len(tensor.raw_data) == count*np.dtype(form).itemsize,
                       len(tensor.raw_data))
        else:
            self._same(tensor, f"{count} numbers", len(getattr(tensor, field)) == count, len(getattr(tensor, field)))

    def array(self, tensor: Any) -> NDArray[Any]:
        """The numbers of a TensorProto; those of bfloat16 as float32. Raises Expected as `check` does."""
        self.check(tensor)
        form, field = self._form(tensor)
        if tensor.data_location == tensor.EXTERNAL:
            flat = np.frombuffer(self._read(tensor, self._count(tensor)*np.dtype(form).itemsize), form)
        elif tensor.HasField("raw_data"):
            flat = np.frombuffer(tensor.raw_data, form)
        else:
            flat = self._listed(tensor, form, field)
        if tensor.data_type == BFLOAT16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        if flat.dtype.kind == "f" and np.isnan(flat).any():
            raise Expected(self._called(tensor), "numbers", f"{np.isnan(flat).sum()} of {flat.size} that are none (NaN)")
        return (flat != 0 if tensor.data_type == BOOL else flat).reshape(tuple(tensor.dims))

    def _listed(self, tensor, form, field):
        """Numbers that stand one by one; those of 16 bits by their bits."""
        numbers = np.array(getattr(tensor, field))
        if tensor.data_type in (HALF, BFLOAT16):
            numbers, form = numbers.astype(np.int64), np.dtype(form)
            self._same(tensor, "numbers of 16 bits", ((0 <= numbers) & (numbers < 2**16)).all(), "others")
            return numbers.astype(np.uint16).view(form)
        with np.errstate(over="ignore"):
            flat = numbers.astype(form)
        self._same(tensor, f"numbers of the kind {flat.dtype}", flat.dtype.kind == "f" or (flat == numbers).all(), "others")
        return flat

    def _form(self, tensor):
        if tensor.data_type not in FORMS:
            raise Expected(self._called(tensor), "a tensor of plain numbers", f"data type {tensor.data_type}")
        return FORMS[tensor.data_type]

    def _count(self, tensor):
        if len(tensor.dims) > 32 or any(n < 0 for n in tensor.dims):
            raise Expected(self._called(tensor), "a shape", said(list(tensor.dims)))
        return math.prod(tensor.dims)

    def _called(self, tensor):
        return f"{self.path}: {tensor.name[:100] or 'a constant'}"

    def _same(self, tensor, expected, holds, got):
        if not holds:
            shape = "x".join(map(str, tensor.dims)) or "one number"
            raise Expected(self._called(tensor), f"{expected} for the shape {shape}", got, "the file is damaged")

    # -------------------------------------------------------------------------------- numbers in a file beside the model
    def _place(self, tensor, size):
        """(path, offset) of `size` bytes in a regular file in the model's own folder."""
        called, entry = self._called(tensor), {item.key: item.value for item in tensor.external_data}
        location, parts = entry.get("location", ""), PurePosixPath(entry.get("location", "")).parts
        if not parts or ".." in parts or location.startswith("/") or set("\\:\0") & set(location):
            raise Expected(called, "its numbers in a file in the model's own folder", said(location))
        for key in ("offset", "length"):
            if not (entry.get(key, "0").isdecimal() and len(entry.get(key, "0")) < 19):
                raise Expected(called, f"a whole number as the {key} of its numbers", said(entry[key]))
        path = inside(self.path.parent, str(PurePosixPath(location)))
        offset, length = int(entry.get("offset", 0)), int(entry.get("length", size))
        self._same(tensor, f"{size} bytes", length == size, length)
        try:
            for place in [path, *list(path.parents)[:len(parts) - 1]]:
                status = os.lstat(place)
                if stat.S_ISLNK(status.st_mode) or place == path and status.st_nlink > 1:
                    raise Expected(called, "its numbers in a file of its own", f"{place}, which is a link",
                                   "put the file itself there")
        except OSError as error:
            raise Expected(called, f"its numbers in {path}", error.strerror) from None
        self._same(tensor, f"{size} bytes from byte {offset} on in {location}", offset + size <= status_size(path),
                   f"a file of {status_size(path)} bytes")
        return path, offset

    def _read(self, tensor, size):
        path, offset = self._place(tensor, size)
        self.external += size
        if self.external > MOST_BYTES:
            raise Expected(self.path, f"at most {MOST_BYTES} bytes of weights", "more")
        try:
            with open(path, "rb", opener=opener) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise Expected(self._called(tensor), f"its numbers in {path}", error.strerror) from None
        self._same(tensor, f"{size} bytes", len(data) == size, len(data))
        return data


def status_size(path: Path) -> int:
    """The size of a file in bytes."""
    return os.stat(path).st_size


# ------------------------------------------------------------------------------------------------ what nodes compute of them
class Budget:
    """Counts the bytes that constants take which nodes compute, and holds them against those of the file of `tensors`."""

    def __init__(self, tensors: Tensors) -> None:
        self.where, self.tensors, self.bytes = tensors.path, tensors, 0

    def take(self, node: str, shape: Sequence[int], itemsize: int) -> None:
        """Raise Expected, before it is made, for an array of `shape` that would be too much."""
        self.bytes += math.prod(map(int, shape))*itemsize
        most = min(MOST_COMPUTED, FREE + TIMES*(status_size(self.where) + self.tensors.external))
        if self.bytes > most:
            raise Expected(f"{self.where}: {node}", f"constants of at most {most} bytes in all, computed of a file of this size",
                           f"{self.bytes}")


def settled(array: NDArray[Any]) -> NDArray[Any]:
    """An array of objects as one of whole numbers, where PICTURES is not among them."""
    if array.dtype != object or any(isinstance(value, str) for value in array.reshape(-1)):
        return array
    return array.astype(np.int64)


def computed(op_type: str, a: Any, inputs: Sequence[NDArray[Any] | None], budget: Budget, node: str) -> NDArray[Any]:
    """Compute what the operator `op_type`, one of COMPUTED, makes of constants; `a` has its attributes. Raises Expected,
    calling it `node`, where the inputs do not fit together."""
    try:
        with np.errstate(all="ignore"):
            return settled(COMPUTED[op_type](a, lambda shape, dtype: budget.take(node, shape, np.dtype(dtype).itemsize),
                                             *inputs))
    except Expected:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise Expected(f"{budget.where}: {node}", f"constants that {op_type} takes", "others") from None


def _constant(a, take):
    given = [value for value in vars(a).values() if value is not None]
    if len(given) != 1:
        _refuse()
    value = np.asarray(given[0])
    if isinstance(given[0], np.ndarray):
        return value
    return value.astype({"f": np.float32, "i": np.int64}[value.dtype.kind])


def _constant_of_shape(a, take, shape):
    value = np.zeros(1, np.float32) if a.value is None else a.value
    take(shape := [_whole(n) for n in shape], value.dtype)
    return np.broadcast_to(value.reshape(()), shape)


def _gather(a, take, x, places):
    axis = a.axis + x.ndim if a.axis < 0 else a.axis
    take((*x.shape[:axis], *places.shape, *x.shape[axis + 1:]), x.dtype)
    return np.asarray(np.take(x, places.astype(np.int64), axis), x.dtype)


def _concat(a, take, *arrays):
    take((sum(array.size for array in arrays),), arrays[0].dtype)
    return np.concatenate(arrays, a.axis)


def _axes(a, axes):
    axes = getattr(a, "axes", None) if axes is None else axes
    return None if axes is None else tuple(int(axis) for axis in axes)


def _unsqueeze(a, take, x, axes=None):
    return np.expand_dims(x, _axes(a, axes))


def _squeeze(a, take, x, axes=None):
    return np.squeeze(x, _axes(a, axes))


def _reshape(a, take, x, shape):
    take(x.shape, x.dtype)
    shape = [int(n) for n in shape]
    return x.reshape([x.shape[k] if n == 0 and not getattr(a, "allowzero", 0) else n for k, n in enumerate(shape)])


def _slice(a, take, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (a.starts, a.ends) if starts is None else (starts, ends)
    axes = _axes(a, axes)
    cuts = [slice(None)]*x.ndim
    for k, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = 1 if steps is None else int(steps[k])
        start, end = int(starts[k]), int(ends[k])
        cuts[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(cuts)]


def _cast(a, take, x):
    if x.dtype == object:
        return x if a.to in (6, 7) else _refuse()
    if a.to == BFLOAT16 or a.to not in FORMS:
        _refuse()
    dtype = np.dtype(bool if a.to == BOOL else FORMS[a.to][0])
    take(x.shape, dtype)
    return x.astype(dtype)


def _transpose(a, take, x):
    return np.transpose(x, a.perm)


def _arithmetic(operation):
    def of_two(a, take, x, y):
        if object in (x.dtype, y.dtype) or x.dtype != y.dtype or getattr(a, "axis", None) is not None:
            _refuse()
        take(np.broadcast_shapes(x.shape, y.shape), x.dtype)
        return np.asarray(operation(x, y))
    return of_two


def _equal(a, take, x, y):
    take(np.broadcast_shapes(x.shape, y.shape), bool)
    return np.asarray(x == y)


def _quotient(x, y):
    if x.dtype.kind in "iu" and ((x < 0).any() or (y <= 0).any()):
        _refuse()                                          # ONNX rounds it towards 0
    return x//y if x.dtype.kind in "iu" else x/y


def _root(a, take, x):
    take(x.shape, x.dtype)
    return np.sqrt(x) if x.dtype.kind == "f" else _refuse()


def _negative(a, take, x):
    take(x.shape, x.dtype)
    return np.negative(x) if x.dtype.kind in "fi" else _refuse()


def _reduced_product(a, take, x, axes=None):
    if not a.keepdims and x.ndim != 1 or x.dtype.kind not in "fiu":
        _refuse()
    take(x.shape, x.dtype)
    return np.asarray(np.prod(x, axis=_axes(a, axes), keepdims=bool(a.keepdims), dtype=x.dtype))


def _whole(n):
    if isinstance(n, str) or n < 0:
        _refuse()
    return int(n)


def _refuse():
    raise ValueError


COMPUTED = {"Constant": _constant, "ConstantOfShape": _constant_of_shape, "Gather": _gather, "Concat": _concat,
            "Unsqueeze": _unsqueeze,
            "Squeeze": _squeeze, "Reshape": _reshape, "Slice": _slice, "Cast": _cast, "Identity": lambda a, take, x: x,
            "Shape": lambda a, take, x: np.array(x.shape, np.int64)[slice(getattr(a, "start", 0), getattr(a, "end", None))],
            "Transpose": _transpose, "Add": _arithmetic(np.add), "Sub": _arithmetic(np.subtract),
            "Mul": _arithmetic(np.multiply),
            "Equal": _equal, "Div": _arithmetic(_quotient), "Sqrt": _root, "Neg": _negative,
            "ReduceProd": _reduced_product}
