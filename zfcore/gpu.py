"""Floor 1: the GPU, through CuPy. This is the only file of zfcore that imports it."""
import ctypes
import os
import warnings
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import NamedTuple

import numpy as np

from zfcore import nvrtc
from zfcore.backend import ARCHITECTURES, LAUNCHERS, MODULES, Device, address
from zfcore.beside import Stream
from zfcore.check import Expected
from zfcore.cubin import cached_cubin
from zfcore.graph import capture
from zfcore.kernel import EACH
from zfcore.prefetch import prefetch

MINIMAL_DRIVERS = {12: 525, 13: 580}      # of a CUDA version; NVIDIA, CUDA Compatibility, table 1


def device():
    """The current CUDA device as a `Device`, whose arrays launch kernels from now on. Raises Expected as `find_cupy` does, and
    for a device that kernels cannot be compiled for."""
    cupy = find_cupy()
    from cupyx import empty_pinned
    number = cupy.cuda.runtime.getDevice()
    _architecture(cupy, number)
    MODULES[cupy.ndarray], LAUNCHERS[cupy.ndarray] = cupy, partial(launch, cupy)
    ARCHITECTURES[cupy.ndarray] = lambda: _architecture(cupy, cupy.cuda.runtime.getDevice())
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    return Device("gpu", f"CuPy {cupy.__version__} on {properties['name'].decode()}", cupy.asarray, empty_pinned,
                  partial(prefetch, cupy), partial(capture, cupy), partial(Stream, cupy))


class Card(NamedTuple):
    """One GPU: its name in words, and bytes that tell it from any other in the world."""
    name: str
    identity: bytes


def card() -> Card:
    """The current CUDA device. Raises Expected as `find_cupy` does."""
    runtime = find_cupy().cuda.runtime
    number = runtime.getDevice()
    return Card(runtime.getDeviceProperties(number)["name"].decode(), _uuid(number))


def _uuid(number):
    """The 16 bytes that tell a device from any other, asked of the driver: CuPy's end before the first of them that is 0."""
    driver, handle, uuid = _library(), ctypes.c_int(), (ctypes.c_ubyte*16)()
    if status := driver.cuDeviceGet(ctypes.byref(handle), number) or driver.cuDeviceGetUuid_v2(uuid, handle):
        raise RuntimeError(f"the driver does not tell which GPU number {number} is, error {status}")
    return bytes(uuid)


def _library():
    """The driver's library, which whoever has a CUDA device has."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def count() -> int:
    """The number of CUDA devices that this process sees. Raises Expected as `find_cupy` does."""
    return find_cupy().cuda.runtime.getDeviceCount()


def find_nccl() -> tuple[ModuleType, ModuleType]:
    """The modules CuPy and its NCCL. Raises Expected as `find_cupy` does, and where the library of NCCL is not there."""
    cupy = find_cupy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                   # CuPy tells at length what is told below
        from cupy.cuda import nccl
    if not nccl.available:
        raise Expected("several GPUs", "NCCL, by which they exchange", "none",
                       f'pip install "nvidia-nccl-cu{cupy.cuda.runtime.runtimeGetVersion()//1000}"')
    return cupy, nccl


def find_cupy():
    """The module CuPy, where it sees a CUDA device and NVRTC fits it; elsewhere `Expected` says why there is none.

    It is imported here and not at the head, as zfcore runs without it."""
    try:
        import cupy
    except ImportError:
        raise Expected("--device gpu", "CuPy", "no module named cupy",
                       'pip install -e ".[cuda13]" (or cuda12) brings it, or use --device cpu') from None
    except OSError as error:                              # it makes a folder in the user's home as it is imported
        raise Expected("--device gpu", "CuPy", f"one that cannot be imported ({error})",
                       "let CUPY_CACHE_DIR name a folder that it may write, or use --device cpu") from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise Expected("--device gpu", *_driver(runtime, error), "use --device cpu") from None
    if not count:
        raise Expected("--device gpu", "a CUDA device", "none", "use --device cpu")
    built = runtime.runtimeGetVersion()//1000
    if nvrtc.version()[0] != built:                       # machine code of a newer NVRTC may not load
        raise Expected("--device gpu", f"NVRTC {built}, the CUDA version of this CuPy", "NVRTC %d.%d" % nvrtc.version(),
                       f'pip install "cupy-cuda{built}x[ctk]"')
    return cupy


def _driver(runtime, error):
    """(expected, got): why CUDA sees no device. The driver's version is 0 where there is no driver."""
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()//1000
    wanted = f"a CUDA device and an NVIDIA driver >= {MINIMAL_DRIVERS.get(built, '?')} (CUDA {built})"
    if not driver:
        return wanted, "no NVIDIA driver"
    if driver//1000 < built:
        return wanted, f"a driver for CUDA {driver//1000}.{driver % 1000//10}"
    return wanted, str(error)


@cache
def _architecture(cupy, device):
    """Name of what kernels for CUDA device number `device` are compiled for."""
    return nvrtc.architecture(int(cupy.cuda.Device(device).compute_capability), nvrtc.architectures())


@cache
def _function(cupy, kernel, device):
    """The kernel loaded onto CUDA device number `device`."""
    function = cupy.RawModule(path=str(cached_cubin(kernel, _architecture(cupy, device)))).get_function(kernel.name)
    if kernel.shared > 48*1024:                           # more than every GPU grants unasked
        function.max_dynamic_shared_size_bytes = kernel.shared
    return function


def launch(cupy, kernel, grid, arguments):
    """Launch `kernel` on CuPy's current device and stream. A launch that CUDA refuses is a mistake in zfcore and is told at
    once; what goes wrong inside a running kernel shows at a later call, or at the launch itself with
    CUDA_LAUNCH_BLOCKING=1."""
    values = tuple(_each(argument, value) if argument.each else _map(value) if argument.is_map else
                   np.atleast_1d(value) if argument.dtype.names else value
                   for argument, value in zip(kernel.arguments, arguments))    # a struct: an array of one element
    try:
        _function(cupy, kernel, cupy.cuda.runtime.getDevice())(grid, (kernel.block,), values, shared_mem=kernel.shared)
    except cupy.cuda.driver.CUDADriverError as error:
        raise RuntimeError(f"{kernel.file}: {kernel.name} on {grid} blocks of {kernel.block} threads, "
                           f"{kernel.shared} bytes of shared memory: {error}") from error


def _each(argument, values):
    """An Each as CuPy passes it by value: one element of a structured dtype. What is left over is zero."""
    struct = np.zeros(1, [("of", np.uint64 if argument.pointer else argument.dtype, EACH)])
    struct["of"][0, :len(values)] = [address(value) if argument.pointer else value for value in values]
    return struct


def _map(value):
    """A TensorMap as CuPy passes it by value: the driver's 128 bytes."""
    array = value.array
    return _encoded(address(array), array.shape, array.dtype.itemsize, value.box)


@lru_cache(1024)
def _encoded(start, shape, itemsize, box):
    """The CUtensorMap of a C-contiguous array at that address (CUDA Driver API, Tensor Map Object Management). Sizes run from
    the last axis to the first there; the driver wants the memory that it writes at a multiple of 64 bytes."""
    def numbers(kind, values):
        return (kind*len(values))(*values)

    room = np.zeros(128 + 64, np.uint8)
    room = room[-room.ctypes.data % 64:][:128]
    rank, strides = len(shape), itemsize*np.cumprod(shape[:0:-1], dtype=np.uint64)
    unsigned = {1: 0, 2: 1, 4: 2}[itemsize]               # CU_TENSOR_MAP_DATA_TYPE_UINT8, 16, 32: bits that nothing converts
    status = _library().cuTensorMapEncodeTiled(
        ctypes.c_void_p(room.ctypes.data), unsigned, rank, ctypes.c_void_p(start), numbers(ctypes.c_uint64, shape[::-1]),
        numbers(ctypes.c_uint64, strides.tolist()), numbers(ctypes.c_uint32, box[::-1]), numbers(ctypes.c_uint32, (1,)*rank),
        0, 3, 2, 0)                                   # not interleaved; swizzle, L2 promotion of 128 bytes; zeros outside
    if status:
        raise RuntimeError(f"the driver refuses a tensor map of {shape} in boxes {box}, error {status}")
    return room.view("V128")
