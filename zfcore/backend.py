"""Floor 0: which arrays, which device, which kernels.

Every operation of `zfcore.ops` has two forms, and the array it is given decides which one runs:

    a plain NumPy array                  the NumPy form, cut into blocks that `parallel` spreads over the cores
    a CuPy array (or any other array     the CUDA form: `Kernel` objects launched on that array's device
    class entered in `LAUNCHERS`)

So `runs_kernels(x)` is the only question an operation asks. This is the only file of zfcore that imports CuPy.
"""
import functools
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np
from threadpoolctl import ThreadpoolController

from zfcore.check import Expected

cupy = None                       # the module, once `select` has found it and a device


# ---------------------------------------------------------------------------------------------------- devices
@dataclass(frozen=True)
class Device:
    """Where a network lives. `array(host)` brings a NumPy array there (a copy, or the array itself on the CPU)."""
    name: str
    description: str
    array: Callable = np.asarray


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
CPU = Device("cpu", f"NumPy {np.__version__} on {CORES} cores")
DEVICES = {"cpu": lambda: CPU, "gpu": lambda: _gpu()}          # name -> function that makes the Device or raises


def select(name="auto"):
    """The device called `name`; "auto" takes the GPU where CuPy sees one and the CPU elsewhere."""
    if name == "auto":
        try:
            return DEVICES["gpu"]()
        except Expected:
            return CPU
    if name not in DEVICES:
        raise Expected("--device", "auto, " + ", ".join(DEVICES), repr(name))
    return DEVICES[name]()


def _gpu():
    """The first CUDA device, through CuPy; `Expected` says why where there is none."""
    global cupy
    try:
        import cupy as module
    except ImportError:
        raise Expected("--device gpu", "CuPy", "no module named cupy",
                       'pip install -e ".[cuda13]" (or cuda12) brings it, or use --device cpu') from None
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        raise Expected("--device gpu", "a CUDA device and a driver for it", str(error), "use --device cpu") from None
    if not count:
        raise Expected("--device gpu", "a CUDA device", "none", "use --device cpu")
    cupy = module
    properties = module.cuda.runtime.getDeviceProperties(0)
    return Device("gpu", f"CuPy {module.__version__} on {properties['name'].decode()}", module.asarray)


def array_module(x):
    """numpy or cupy, whichever `x` belongs to."""
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def to_host(x):
    """`x` as a plain NumPy array."""
    return cupy.asnumpy(x) if array_module(x) is cupy and cupy is not None else np.asarray(x)


def empty(shape, dtype, like):
    """An uninitialised array on the device (and of the array class) of `like`."""
    return array_module(like).empty_like(like, shape=shape, dtype=dtype)


def zeros(shape, dtype, like):
    """An array of zeros on the device (and of the array class) of `like`."""
    return array_module(like).zeros_like(like, shape=shape, dtype=dtype)


# ------------------------------------------------------------------------------------ the cores of the CPU
def slabs(x, nbytes=2**19):
    """Slices that cut axis 0 of `x` into slabs of about `nbytes`, the blocks of an elementwise operation."""
    step = max(1, nbytes*len(x)//max(x.nbytes, 1))
    return [slice(k, k + step) for k in range(0, len(x), step)]


@functools.cache
def _pool():
    return ThreadPoolExecutor(CORES, thread_name_prefix="zfcore")


@functools.cache
def _blas():
    return ThreadpoolController()


def parallel(work, items):
    """`[work(item) for item in items]`, the items spread over the cores, BLAS on one thread each.

    The items are the blocks an operation is cut into. They are cut the same way whatever the number of cores, and no
    matrix product is ever split between threads, so a result has the same bits on any number of cores. NumPy releases
    Python's lock inside copies, elementwise loops and matmul, which is where the time goes."""
    items = list(items)
    with _blas().limit(limits=1, user_api="blas"):
        if CORES == 1 or len(items) == 1 or threading.current_thread().name.startswith("zfcore"):
            return [work(item) for item in items]
        return list(_pool().map(work, items))


_own = threading.local()


def workspace(*wanted):
    """Uninitialised NumPy arrays of the (shape, dtype) `wanted`, in memory that each thread keeps and hands out again at
    the thread's next call: memory fresh from the system costs a page fault per 4 KB, more than the arithmetic on it."""
    nbytes = [int(np.prod(shape))*np.dtype(dtype).itemsize for shape, dtype in wanted]
    starts = np.cumsum([0] + [-(-n//64)*64 for n in nbytes])                       # each on its own cache line
    if getattr(_own, "buffer", None) is None or _own.buffer.nbytes < starts[-1]:
        _own.buffer = np.empty(starts[-1], np.uint8)
    return [_own.buffer[start:start + n].view(dtype).reshape(shape)
            for start, n, (shape, dtype) in zip(starts, nbytes, wanted)]


# -------------------------------------------------------------------------------------------------- kernels
CTYPES = {"float": np.float32, "int": np.int32, "unsigned int": np.uint32, "long long": np.int64,
          "unsigned long long": np.uint64, "unsigned char": np.uint8, "unsigned short": np.uint16}
LAUNCHERS = {}                    # array class -> launch(kernel, grid, arguments); CuPy's is entered by `_gpu`


def runs_kernels(x):
    """True where an operation must launch kernels on `x`, False where it runs its NumPy form."""
    return type(x) is not np.ndarray


@dataclass(frozen=True)
class Argument:
    name: str
    dtype: np.dtype
    pointer: bool
    const: bool


def _parse(signature):
    """"const float *x, int H" -> the tuple of its Arguments."""
    arguments = []
    for text in signature.split(","):
        match = re.fullmatch(r"\s*(const\s+)?([a-z ]+?)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)\s*", text)
        const, ctype, star, name = match.groups()
        arguments.append(Argument(name, np.dtype(CTYPES[ctype]), bool(star), bool(const)))
    return tuple(arguments)


@dataclass(frozen=True)
class Kernel:
    """One configuration of one CUDA kernel, declared beside the operation that launches it.

    file, name      kernels/<file> and the `extern "C" __global__` function in it
    signature       its parameter list as the source has it ("const float *x, float *y, int H"); tests compare the two
    defines         macros given with -D, such as tile sizes
    block           threads per block
    shared          bytes of dynamic shared memory

    `KERNELS` holds every declaration: the engine, the CPU executor, the NVRTC build and the resource table share it."""
    file: str
    name: str
    signature: str
    defines: dict = field(default_factory=dict, hash=False)
    block: int = 256
    shared: int = 0

    def __post_init__(self):
        object.__setattr__(self, "arguments", _parse(self.signature))
        KERNELS.append(self)

    def __call__(self, grid, *values):
        """Launch on `grid` blocks (an int or a tuple of up to three). Arrays must be C-contiguous and of the declared
        dtype; Python numbers are narrowed to the declared type here (a raw launch would pass 64 bits)."""
        if len(values) != len(self.arguments):
            raise Expected(self.name, f"{len(self.arguments)} arguments", len(values))
        ready = [self._ready(argument, value) for argument, value in zip(self.arguments, values)]
        array = next(value for argument, value in zip(self.arguments, values) if argument.pointer)
        grid = (grid,) if isinstance(grid, int) else tuple(grid)
        if all(grid):
            LAUNCHERS[type(array)](self, grid, ready)

    def _ready(self, argument, value):
        what = f"{self.name}({argument.name})"
        if not argument.pointer:
            if not isinstance(value, (int, float, np.generic)):
                raise Expected(what, f"a number ({argument.dtype})", type(value).__name__)
            narrow = argument.dtype.type(value)
            if argument.dtype.kind in "iu" and int(narrow) != value:
                raise Expected(what, f"a number that fits {argument.dtype}", value)
            return narrow
        if not hasattr(value, "flags"):
            raise Expected(what, f"an array of {argument.dtype}", type(value).__name__)
        if value.dtype != argument.dtype:
            raise Expected(what, argument.dtype, value.dtype)
        if not value.flags.c_contiguous:
            raise Expected(what, "a C-contiguous array", f"a strided view of shape {value.shape}", "copy it first")
        return value


KERNELS = []


def blocks(total, block):
    """How many blocks of `block` threads cover `total` threads."""
    return -(-total // block)


def kernels_folder():
    """kernels/ of the checkout (beside zfcore/) or of the installed package (inside it)."""
    here = Path(__file__).parent
    for folder in (here.parent / "kernels", here / "kernels"):
        if (folder / "device").is_dir():
            return folder
    raise Expected("kernels", f"a folder of .cu files beside or inside {here}", "none", "reinstall zfcore")
