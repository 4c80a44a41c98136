"""Floor 0: what a CUDA kernel is to Python: a declaration beside the operation that launches it, whose arguments are checked.

How a launch is done is the array class's affair (`LAUNCHERS` of backend.py), how machine code is made cubin.py's."""
import functools
import re
from collections import namedtuple
from dataclasses import dataclass, field

import numpy as np

from zfcore.backend import BF16, LAUNCHERS, address
from zfcore.check import Expected

CTYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned int": np.uint32,
          "long long": np.int64, "unsigned long long": np.uint64, "unsigned char": np.uint8, "unsigned short": np.uint16,
          "TensorMap": np.dtype("V128")}
PRECISIONS = "fp32", "fp32x3", "tf32", "bf16"          # how kernels form products, and in bf16 store maps
KERNELS = []                      # every Kernel declared: the engine, the executor, the NVRTC build, the resource table
GRID = 2**31 - 1, 65535, 65535    # most blocks of a launch along x, y, z
EACH = 16                         # most tensors of a launch that works on many: TENSORS in the .cu files


@dataclass(frozen=True)
class Argument:
    name: str
    dtype: np.dtype
    pointer: bool
    const: bool
    each: bool                    # a struct with EACH of them, one for each tensor

    @property
    def is_map(self):
        """Return whether it takes a `TensorMap`."""
        return self.dtype == CTYPES["TensorMap"]


@dataclass(frozen=True, eq=False)
class TensorMap:
    """Boxes of an `array` of 2 to 5 axes, as a kernel fetches them by TMA; box is how many elements of each axis. Those of the
    last axis are 128 bytes, and lie in shared memory with the swizzle of that length; all but the last axis lie multiples of
    16 bytes apart. What a box has outside of the array comes as zeros."""
    array: object
    box: tuple


def _parse(signature, defines=None):
    """"const float *x, Each<int> H" -> the tuple of its Arguments. A type may be one of the macros; what `stored` and `result`
    are follows from them, as in kernels/device/stored.cuh and windows.cuh."""
    defines, arguments = defines or {}, []
    stored = BF16 if defines.get("PRECISION") == "BF16" else np.dtype(np.float32)
    types = {**CTYPES, "stored": stored, "result": np.float32 if defines.get("SUMS") else stored}
    for text in signature.split(","):
        match = re.fullmatch(r"\s*(Each<)?(const\s+)?(?:__grid_constant__\s+)?([A-Za-z ]+?)\s*(\*?)\s*(?:__restrict__\s+)?>?"
                             r"\s*(\w+)\s*", text)
        each, const, ctype, star, name = match.groups()
        arguments.append(Argument(name, np.dtype(types[defines.get(ctype, ctype)]), bool(star), bool(const), bool(each)))
    return tuple(arguments)


def struct(name, fields):
    """A class of named tuples for the struct `name` of numbers, which kernels then take by value; `fields` as the source has
    them, "int C, int H". Tests compare the two."""
    members = _parse(fields)
    CTYPES[name] = np.dtype([(member.name, member.dtype) for member in members], align=True)
    return namedtuple(name, [member.name for member in members])


def tensors(kernel, arguments):
    """(Argument, array) for every array among the `arguments` of a launch, also those of an Each or behind a TensorMap."""
    return [(argument, array) for argument, value in zip(kernel.arguments, arguments) if argument.pointer or argument.is_map
            for array in (value if argument.each else [value.array] if argument.is_map else [value])]


@dataclass(frozen=True)
class Kernel:
    """One configuration of one CUDA kernel, declared beside the operation that launches it.

    file, name      kernels/<file> and the `extern "C" __global__` function in it
    signature       its parameter list as the source has it ("const float *x, float *y, int H"); tests compare the two
    defines         macros given with -D, such as tile sizes
    block           threads per block
    shared          bytes of dynamic shared memory
    arch            the only architecture that has what it is made of ("sm_90a"); "" where every one has

    A declaration enters itself in `KERNELS`."""
    file: str
    name: str
    signature: str
    defines: dict = field(default_factory=dict, hash=False)
    block: int = 256
    shared: int = 0
    arch: str = ""

    def __post_init__(self):
        object.__setattr__(self, "arguments", _parse(self.signature, self.defines))
        KERNELS.append(self)

    def variant(self, like=None, **defines):
        """Variant of this kernel, compiled with other macros, say another window size: the declared one stands for the paper's
        sizes, the others are compiled when they are first launched and are not in `KERNELS`. One for maps that are stored as
        the array `like` is."""
        if like is not None and like.dtype == BF16:
            defines["PRECISION"] = "BF16"
        return _variant(self, tuple({**self.defines, **defines}.items()))

    def stored_too(self, **defines):
        """Declare its variant with these macros for maps that are stored as BF16 as well -> the kernel."""
        KERNELS.append(self.variant(PRECISION="BF16", **defines))
        return self

    def __call__(self, grid, *values):
        """Launch on `grid` blocks (an int or a tuple of up to three). Arrays must be C-contiguous and of the declared
        dtype; Python numbers are narrowed to the declared type here (a raw launch would pass 64 bits). An Each takes a
        sequence of up to EACH of them."""
        if len(values) != len(self.arguments):
            raise Expected(self.name, f"{len(self.arguments)} arguments", len(values))
        device = type(tensors(self, values)[0][1])
        if device not in LAUNCHERS:
            raise Expected(self.name, "arrays on a device", device.__name__)
        ready = [tuple(self._ready(argument, one, device) for one in value) if argument.each else
                 self._ready(argument, value, device) for argument, value in zip(self.arguments, values)]
        grid = (grid,) if isinstance(grid, int) else tuple(grid)
        if any(size > most for size, most in zip(grid, GRID)):
            raise Expected(self.name, f"at most {GRID} blocks", grid, "cut the batch into smaller ones")
        if all(grid):
            LAUNCHERS[device](self, grid, ready)

    def _ready(self, argument, value, device):
        what = f"{self.name}({argument.name})"
        if argument.is_map:
            return _fetched(what, value, device)
        if not argument.pointer:
            return _narrowed(what, argument.dtype, value)
        if type(value) is not device:
            raise Expected(what, f"an array of class {device.__name__}, as the first one", type(value).__name__)
        if value.dtype != argument.dtype:
            raise Expected(what, argument.dtype, value.dtype)
        if not value.flags.c_contiguous:
            raise Expected(what, "a C-contiguous array", f"a strided view of shape {value.shape}", "copy it first")
        return value


def _fetched(what, value, device):
    """The TensorMap `value`, of an array on that device from which TMA can fetch its boxes."""
    if not isinstance(value, TensorMap) or type(value.array) is not device:
        raise Expected(what, f"a TensorMap of an array of class {device.__name__}",
                       type(getattr(value, "array", value)).__name__)
    array, box = value.array, value.box
    whole = array.ndim and array.shape[-1]*array.itemsize % 16 == 0 == address(array) % 16
    if not (2 <= array.ndim <= 5 and array.flags.c_contiguous and whole):
        raise Expected(what, "2 to 5 C-contiguous axes, the last of whole 16 bytes, at a multiple of 16 bytes", array.shape)
    if not (len(box) == array.ndim and all(0 < size <= 256 for size in box) and box[-1]*array.itemsize == 128):
        raise Expected(what, f"a box of {array.ndim} axes of 1 to 256 elements, the last of 128 bytes", box)
    return value


def _narrowed(what, dtype, value):
    """The number `value` as a scalar of `dtype`; of a struct, all its fields."""
    if dtype.names:
        if not isinstance(value, tuple) or len(value) != len(dtype):
            raise Expected(what, f"{len(dtype)} numbers ({', '.join(dtype.names)})", value)
        fields = (_narrowed(f"{what}.{name}", dtype[name], one) for name, one in zip(dtype.names, value))
        return np.array(tuple(fields), dtype)[()]
    if not isinstance(value, (int, float, np.generic)):
        raise Expected(what, f"a number ({dtype})", type(value).__name__)
    if dtype.kind in "iu":
        span = np.iinfo(dtype)
        if not (span.min <= value <= span.max and value == int(value)):
            raise Expected(what, f"a whole number that fits {dtype}", value)
    return dtype.type(value)


@functools.cache
def _variant(kernel, defines):
    if dict(defines) == kernel.defines:
        return kernel
    made = object.__new__(Kernel)
    for name, value in {**vars(kernel), "defines": dict(defines)}.items():
        object.__setattr__(made, name, value)
    object.__setattr__(made, "arguments", _parse(made.signature, made.defines))
    return made


def blocks(total, block):
    """Number of blocks of `block` threads that cover `total` threads."""
    return -(-total // block)


def lanes(length, *arrays, most=16):
    """Number of neighbouring elements that a thread may move at once: what fills `most` bytes (4 of float32, 8 of BF16) where
    rows of `length` elements are whole such packs and the memory of all arrays begins at a multiple of 16 bytes, else 1."""
    wide = most//arrays[0].itemsize
    return wide if length % wide == 0 and all(address(array) % 16 == 0 for array in arrays) else 1
