"""Floor 0: which arrays, and what is asked of the device that they live on.

Every operation of `zfcore.ops` has two forms, and the class of the array it is given decides which one runs:

    a NumPy array                        the NumPy form, cut into blocks that `zfcore.cpu.parallel` spreads over the cores
    a CuPy array (or any other array     the CUDA form: `Kernel` objects (kernel.py) launched on that array's device
    class entered in `LAUNCHERS`)

So `runs_kernels(x)` is the only question an operation asks. Nothing here knows CuPy: gpu.py enters it when it is asked for.
"""
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.beside import Thread
from zfcore.cpu import CORES
from zfcore.hints import Array
from zfcore.memory import recycled

BF16 = np.dtype(np.uint16)        # of arrays that hold bf16, the upper 16 bits of float32 numbers: on devices alone
LAUNCHERS = {}                    # array class -> launch(kernel, grid, arguments) of a zfcore.kernel.Kernel
ARCHITECTURES = {}                # array class -> function () -> what its device's kernels are compiled for, such as "sm_90a"
MODULES = {}                      # array class -> the module of its functions, where that is not numpy


@dataclass(frozen=True)
class Device:
    """Device that a network lives on.

    array       NumPy array -> the same there (a copy, or the array itself on the CPU)
    pinned      (shape, dtype) -> an uninitialised NumPy array, on the host, which the device can fetch by itself
    prefetch    iterator over (NumPy array, ...) -> one over (array there, ...), each copied while the caller still computes
                on the one before; on the CPU the iterator itself
    capture     (function of arrays that returns nothing, `beyond`) -> one with the same effect, whose launches are recorded
                once and then repeated at the price of one; on the CPU the function itself. It takes NumPy arrays too, which
                it sends, and must do the same whatever the arrays hold. A tuple among its arguments is handed on as it is.
                `beyond()` gives, in lists and dictionaries, what else it goes by: arrays, which it may change in place, and
                numbers. For another tuple, other arrays there or other numbers it is recorded again
    beside      () -> what does work beside the caller's: `run(work)`, and `join()` to wait for it"""
    name: str
    description: str
    array: Callable[..., Array] = np.asarray
    pinned: Callable[..., NDArray[Any]] = np.empty
    prefetch: Callable[[Iterable[Any]], Iterator[Any]] = iter
    capture: Callable[[Callable[..., None], Callable[[], Iterable[Any]]], Callable[..., None]] = lambda work, beyond: work
    beside: Callable[[], Any] = Thread


NUMBA = " with numba"*(find_spec("numba") is not None)       # which is loaded where a loop is (zfcore/ops/loops.py)
CPU = Device("cpu", f"NumPy {np.__version__}{NUMBA} on {CORES} core{'s'*(CORES > 1)}")


def runs_kernels(x):
    """Return whether an operation must launch kernels on `x`; else it runs its NumPy form."""
    return type(x) in LAUNCHERS


def architecture(x):
    """Name of what kernels on the device of `x` are compiled for, such as "sm_90a"; "" where no kernel asks."""
    return ARCHITECTURES.get(type(x), str)()


def check_device(device: Device) -> None:
    """Raise Expected unless it is a Device, not the name of one."""
    check.instance("device", device, Device, 'zfcore.select("cpu") gives one')


def check_maps(what, x):
    """Raise Expected unless x holds float32 or float64, or BF16 on a device."""
    check.dtype(what, x, np.float32, BF16 if runs_kernels(x) else np.float64)


def array_module(x):
    """numpy or cupy, whichever `x` belongs to."""
    return MODULES.get(type(x), np)


def to_host(x):
    """`x` as a plain NumPy array."""
    module = array_module(x)
    return np.asarray(x) if module is np else module.asnumpy(x)


def empty(shape, dtype, like):
    """An uninitialised array on the device (and of the array class) of `like`."""
    if type(like) is np.ndarray:
        return recycled(shape, dtype)
    module = array_module(like)              # CuPy's empty_like takes the shape () for none given
    return np.empty_like(like, dtype, "C", shape=shape) if module is np else module.empty(shape, dtype)


def zeros(shape, dtype, like):
    """An array of zeros on the device (and of the array class) of `like`."""
    module = array_module(like)
    return np.zeros_like(like, dtype, "C", shape=shape) if module is np else module.zeros(shape, dtype)


def to_device(host, like):
    """A copy of the NumPy array `host` on the device (and of the array class) of `like`."""
    copy = empty(host.shape, host.dtype, like)
    if array_module(like) is np:
        copy[...] = host
    else:
        copy.set(host)
    return copy


def unread(like):
    """An array for a `const float *` that a kernel does not read, on the device of `like`."""
    return empty((1,), np.float32, like)


def scalar(value, dtype, like):
    """`value` in the memory of the device of `like`, as an array (); one that is there already is left as it is."""
    return value if runs_kernels(value) else to_device(np.asarray(value, dtype), like)


def address(array):
    """Address at which the memory of `array` begins, on its device."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
