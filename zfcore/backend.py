"""Floor 0: which arrays, which device, which kernels.

Every operation of `zfcore.ops` has two forms, and the class of the array it is given decides which one runs:

    a NumPy array                        the NumPy form, cut into blocks that `parallel` spreads over the cores
    a CuPy array (or any other array     the CUDA form: `Kernel` objects launched on that array's device
    class entered in `LAUNCHERS`)

So `runs_kernels(x)` is the only question an operation asks. This is the only file of zfcore that imports CuPy.
"""
import functools
import hashlib
import itertools
import math
import os
import re
import tempfile
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from zfcore import nvrtc
from zfcore.check import Expected
from zfcore.hints import Array

cupy = None                       # the module, once `select` has found it and a device


# ---------------------------------------------------------------------------------------------------- devices
@dataclass(frozen=True)
class Device:
    """Where a network lives.

    array       NumPy array -> the same there (a copy, or the array itself on the CPU)
    pinned      (shape, dtype) -> an uninitialised NumPy array, on the host, which the device can fetch by itself
    prefetch    iterator over (NumPy array, ...) -> one over (array there, ...), each copied while the caller still computes
                on the one before; on the CPU the iterator itself
    capture     function of arrays that returns nothing -> one with the same effect, whose launches are recorded once and
                then repeated at the price of one; on the CPU the function itself. It takes NumPy arrays too, which it
                sends, and must do the same whatever the arrays hold, and on the same memory but for them"""
    name: str
    description: str
    array: Callable[..., Array] = np.asarray
    pinned: Callable[..., NDArray[Any]] = np.empty
    prefetch: Callable[[Iterable[Any]], Iterator[Any]] = iter
    capture: Callable[[Callable[..., None]], Callable[..., None]] = lambda work: work


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
CPU = Device("cpu", f"NumPy {np.__version__} on {CORES} core{'s'*(CORES > 1)}")
DEVICES = {"cpu": lambda: CPU, "gpu": lambda: _gpu()}          # name -> function that makes the Device or raises


def select(name: Literal["auto", "cpu", "gpu"] = "auto") -> Device:
    """The device called `name`; "auto" takes the GPU where CuPy sees one and the CPU elsewhere. Raises Expected
    for another name, and where there is no such device."""
    if name == "auto":
        try:
            return DEVICES["gpu"]()
        except Expected:
            return CPU
    if name not in DEVICES:
        raise Expected("--device", "auto, " + ", ".join(DEVICES), repr(name))
    return DEVICES[name]()


def _gpu():
    """The current CUDA device, through CuPy; `Expected` says why where there is none."""
    global cupy
    try:
        import cupy as module
    except ImportError:
        raise Expected("--device gpu", "CuPy", "no module named cupy",
                       'pip install -e ".[cuda13]" (or cuda12) brings it, or use --device cpu') from None
    runtime = module.cuda.runtime
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
    from cupyx import empty_pinned
    cupy = module
    LAUNCHERS[module.ndarray] = _launch
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return Device("gpu", f"CuPy {module.__version__} on {properties['name'].decode()}", module.asarray, empty_pinned, _prefetch,
                  _capture)


MINIMAL_DRIVERS = {12: 525, 13: 580}      # of a CUDA version; NVIDIA, CUDA Compatibility, table 1


def _driver(runtime, error):
    """(expected, got): why CUDA sees no device. The driver's version is 0 where there is no driver."""
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()//1000
    wanted = f"a CUDA device and an NVIDIA driver >= {MINIMAL_DRIVERS.get(built, '?')} (CUDA {built})"
    if not driver:
        return wanted, "no NVIDIA driver"
    if driver//1000 < built:
        return wanted, f"a driver for CUDA {driver//1000}.{driver % 1000//10}"
    return wanted, str(error)


def _prefetch(batches):
    """Yield (device array, ...) for each (NumPy array, ...) of the generator `batches`. The copy of the next one is under way
    on a second stream while the caller computes on this one, on the current stream.

    The arrays of `batches` should be `pinned`: copies from other memory are right too, but nothing overlaps. Four waits
    keep it so, since CuPy hands out the memory of an array again as soon as Python has dropped it, whatever the device is
    still doing: two on the device, which cost the host nothing, and two on the host, for copies that are long done."""
    copies = cupy.cuda.Stream(non_blocking=True)

    def send(batch):
        host, *rest = batch
        array = cupy.empty(host.shape, host.dtype)                   # in memory that the current stream used before and,
        copies.wait_event(cupy.cuda.get_current_stream().record())   # for all the host knows, may be using still
        array.set(host, stream=copies)
        return array, host, copies.record(), rest

    with closing(batches):
        try:
            for (array, host, copied, rest), _ in pairwise(chain(map(send, batches), [None])):
                cupy.cuda.get_current_stream().wait_event(copied)
                yield array, *rest
                copied.synchronize()                                 # `host` may now be dropped and filled again
        finally:
            copies.synchronize()                                     # after an early end: both sides' memory


def _capture(work):
    """`work` as `Device.capture` has it. A call whose arrays have other shapes than the last call's runs launch by launch, as
    the first call does, which also compiles and loads the kernels. The second one in a row is recorded after it has run, and
    from then on a call is two copies and a launch. One graph is kept: an epoch's last, smaller batch does without."""
    graph = last = None

    def run(*arrays):
        nonlocal graph, last
        shapes, parts = _parcel(arrays)
        before, last = last, shapes
        if graph is not None and shapes == graph.shapes:
            graph.replay(parts)
        elif shapes == before:
            graph = None                       # an older one first gives its memory back
            graph = _Graph(work, shapes, parts)
        else:
            work(*_unpacked(shapes, parts))
    return run


class _Graph:
    """`work` on `parts` (see `_parcel`) as a CUDA graph. Making one runs `work` once, for the caller; so does each replay.

    A graph holds addresses: of the arrays that `work` was given, which are therefore copies that nobody else has, and of the
    arrays that it makes, which lie in a memory pool that lives as long as the graph, so that what Python drops and CuPy lends
    again stays with the graph. While a stream is recorded nothing may wait for the device, copy to it or call cuBLAS, which
    CuPy refuses then; launches, memset and copies within the device are recorded. (CuPy's manual, Stream.begin_capture;
    CUDA C++ Programming Guide, CUDA graphs.)"""

    def __init__(self, work, shapes, parts):
        self.shapes, self.parts = shapes, [part.copy() for part in parts]
        cupy.get_default_memory_pool().free_all_blocks()             # the steps so far have left as much as a graph takes
        self.memory, current = cupy.cuda.MemoryPool(_block), cupy.cuda.get_current_stream()
        stream = cupy.cuda.Stream(non_blocking=True)                 # the default stream cannot be recorded
        stream.wait_event(current.record())
        with stream, cupy.cuda.using_allocator(self.memory.malloc):
            work(*_unpacked(shapes, self.parts))                     # fills the pool, where recording then finds its memory
            stream.begin_capture()
            try:
                work(*_unpacked(shapes, self.parts))
            finally:
                self.graph = stream.end_capture()
        current.wait_event(stream.record())

    def replay(self, parts):
        for mine, part in zip(self.parts, parts):
            mine[...] = part
        self.graph.launch()                                          # on the current stream, behind the copies


def _block(nbytes):
    """Memory for a graph's pool. Where there is none left, a pool would take back blocks that nobody holds at the moment and
    try again; those the graph needs. It does so for CuPy's error and not for this one."""
    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(nbytes), 0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MemoryError(f"no {nbytes} bytes left on the GPU for a step; a smaller --batch-size or --micro-batch needs less") from error


def launch_by_launch(work):
    """What `_capture` gives, without ever recording."""
    return lambda *arrays: work(*_unpacked(*_parcel(arrays)))


def _parcel(arrays):
    """(shapes, parts): `arrays` on the device. Those of NumPy travel together as one array of bytes, parts[0], in a copy that
    nothing waits for: CuPy lays it in pinned memory first."""
    host = [np.ravel(array).view(np.uint8) for array in arrays if not runs_kernels(array)]
    packed = np.zeros(sum(map(_padded, host)), np.uint8)
    place = 0
    for array in host:
        packed[place:place + array.nbytes] = array
        place += _padded(array)
    shapes = [(array.shape, array.dtype, runs_kernels(array)) for array in arrays]
    return shapes, [cupy.asarray(packed), *filter(runs_kernels, arrays)]


def _unpacked(shapes, parts):
    """Yield the arrays of `_parcel` again, all on the device now."""
    packed, *there = parts
    place = 0
    for shape, dtype, on_device in shapes:
        if on_device:
            yield there.pop(0)
        else:
            array = packed[place:place + math.prod(shape)*dtype.itemsize]
            yield array.view(dtype).reshape(shape)
            place += _padded(array)


def _padded(array):
    """Bytes of `array`, rounded up to where the next one may begin."""
    return -(-array.nbytes//16)*16


def array_module(x):
    """numpy or cupy, whichever `x` belongs to."""
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def to_host(x):
    """`x` as a plain NumPy array."""
    return cupy.asnumpy(x) if array_module(x) is cupy and cupy is not None else np.asarray(x)


class _Memory:
    """Memory for one array. NumPy keeps it alive as long as any view of the array; then it waits in `_idle`."""

    def __init__(self, buffer, nbytes):
        self.buffer = buffer
        self.__array_interface__ = dict(buffer[:nbytes].__array_interface__)

    def __del__(self):
        _idle.append((next(_clock), self.buffer))


_idle = []                        # (when, buffer): memory that no array uses, the longest unused first
_clock = itertools.count()
_requests = threading.Lock()


def _recycled(shape, dtype):
    """An uninitialised NumPy array, large ones in memory that an array of about the same size has left.

    Every training step makes and drops the same large arrays. Were they given back to the system each time, it would
    clear the pages again at the first touch, which costs as much as the arithmetic of a pooling. What 256 arrays that
    came and went after it found no use for is given back."""
    nbytes = math.prod(shape)*np.dtype(dtype).itemsize
    if nbytes < 2**20:
        return np.empty(shape, dtype)
    with _requests:                                                    # `__del__` only ever appends, at any moment
        now = next(_clock)
        while _idle and _idle[0][0] < now - 512:                       # a tick when it came, a tick when it went
            del _idle[0]
        sizes = {buffer.nbytes: k for k, (_, buffer) in enumerate(_idle) if nbytes <= buffer.nbytes <= 1.25*nbytes}
        buffer = _idle.pop(sizes[min(sizes)])[1] if sizes else np.empty(nbytes, np.uint8)
    return np.asarray(_Memory(buffer, nbytes)).view(dtype).reshape(shape)


def empty(shape, dtype, like):
    """An uninitialised array on the device (and of the array class) of `like`."""
    if type(like) is np.ndarray:
        return _recycled(shape, dtype)
    return array_module(like).empty_like(like, shape=shape, dtype=dtype, order="C")


def zeros(shape, dtype, like):
    """An array of zeros on the device (and of the array class) of `like`."""
    return array_module(like).zeros_like(like, shape=shape, dtype=dtype, order="C")


def to_device(host, like):
    """A copy of the NumPy array `host` on the device (and of the array class) of `like`."""
    copy = empty(host.shape, host.dtype, like)
    if array_module(like) is np:
        copy[...] = host
    else:
        copy.set(np.ascontiguousarray(host))
    return copy


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


# -------------------------------------------------------------------------------------------------- kernels
CTYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned int": np.uint32,
          "long long": np.int64, "unsigned long long": np.uint64, "unsigned char": np.uint8, "unsigned short": np.uint16}
LAUNCHERS = {}                    # array class -> launch(kernel, grid, arguments); CuPy's is entered by `_gpu`
PRECISIONS = "fp32", "fp32x3", "tf32", "bf16"          # how kernels form products of float32 numbers (kernels/conv2d.cu)
KERNELS = []                      # every Kernel declared: the engine, the executor, the NVRTC build, the resource table
GRID = 2**31 - 1, 65535, 65535    # most blocks of a launch along x, y, z
EACH = 16                         # most tensors of a launch that works on many: TENSORS in the .cu files


def runs_kernels(x):
    """True where an operation must launch kernels on `x`, False where it runs its NumPy form."""
    return type(x) in LAUNCHERS


@dataclass(frozen=True)
class Argument:
    name: str
    dtype: np.dtype
    pointer: bool
    const: bool
    each: bool                    # a struct with EACH of them, one for each tensor


def _parse(signature):
    """"const float *x, Each<int> H" -> the tuple of its Arguments."""
    arguments = []
    for text in signature.split(","):
        match = re.fullmatch(r"\s*(Each<)?(const\s+)?([A-Za-z ]+?)\s*(\*?)\s*(?:__restrict__\s+)?>?\s*(\w+)\s*", text)
        each, const, ctype, star, name = match.groups()
        arguments.append(Argument(name, np.dtype(CTYPES[ctype]), bool(star), bool(const), bool(each)))
    return tuple(arguments)


def struct(name, fields):
    """A class of named tuples for the struct `name` of numbers, which kernels then take by value; `fields` as the source has
    them, "int C, int H". Tests compare the two."""
    members = _parse(fields)
    CTYPES[name] = np.dtype([(member.name, member.dtype) for member in members], align=True)
    return namedtuple(name, [member.name for member in members])


def tensors(kernel, arguments):
    """(Argument, array) for every array among the `arguments` of a launch, also those of an Each."""
    return [(argument, array) for argument, value in zip(kernel.arguments, arguments) if argument.pointer
            for array in (value if argument.each else [value])]


@dataclass(frozen=True)
class Kernel:
    """One configuration of one CUDA kernel, declared beside the operation that launches it.

    file, name      kernels/<file> and the `extern "C" __global__` function in it
    signature       its parameter list as the source has it ("const float *x, float *y, int H"); tests compare the two
    defines         macros given with -D, such as tile sizes
    block           threads per block
    shared          bytes of dynamic shared memory

    A declaration enters itself in `KERNELS`."""
    file: str
    name: str
    signature: str
    defines: dict = field(default_factory=dict, hash=False)
    block: int = 256
    shared: int = 0

    def __post_init__(self):
        object.__setattr__(self, "arguments", _parse(self.signature))
        KERNELS.append(self)

    def variant(self, **defines):
        """This kernel compiled with other macros, say another window size: the declared one stands for the paper's
        sizes, the others are compiled when they are first launched and are not in `KERNELS`."""
        return _variant(self, tuple({**self.defines, **defines}.items()))

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
        if not argument.pointer:
            return _narrowed(what, argument.dtype, value)
        if type(value) is not device:
            raise Expected(what, f"an array of class {device.__name__}, as the first one", type(value).__name__)
        if value.dtype != argument.dtype:
            raise Expected(what, argument.dtype, value.dtype)
        if not value.flags.c_contiguous:
            raise Expected(what, "a C-contiguous array", f"a strided view of shape {value.shape}", "copy it first")
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
    return made


def blocks(total, block):
    """How many blocks of `block` threads cover `total` threads."""
    return -(-total // block)


def lanes(length, *arrays):
    """How many neighbouring floats a thread may move at once: 4 (one float4) where rows of `length` elements are whole
    fours and the memory of all arrays begins at a multiple of 16 bytes, else 1."""
    return 4 if length % 4 == 0 and all(_address(array) % 16 == 0 for array in arrays) else 1


def _address(array):
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def number(value, dtype, like):
    """`value` in the memory of the device of `like`, as an array (); one that is there already is left as it is."""
    return value if runs_kernels(value) else to_device(np.asarray(value, dtype), like)


def kernels_folder():
    """kernels/ of the checkout (beside zfcore/) or of the installed package (inside it)."""
    here = Path(__file__).parent
    for folder in (here.parent / "kernels", here / "kernels"):
        if (folder / "device").is_dir():
            return folder
    raise Expected("kernels", f"a folder of .cu files beside or inside {here}", "none", "reinstall zfcore")


# ------------------------------------------------------------------------------- kernels on a GPU: NVRTC and CuPy
def architecture(capability, known):
    """What NVRTC is told for a device of compute capability `capability`, when it knows those in `known`.

    From Hopper on machine code has features that only the very same capability runs (wgmma: sm_90a), so those get the
    "a". A device newer than NVRTC runs the code of the nearest older one of its generation."""
    if capability in known:
        return f"sm_{capability}" + ("a" if capability >= 90 else "")
    older = [k for k in known if k//10 == capability//10 and k < capability]
    if not older:
        raise Expected("CUDA kernels", f"a device of compute capability {', '.join(map(str, known))}", capability,
                       "a newer NVRTC may know it")
    return f"sm_{max(older)}"


def compile_cubin(kernel, arch):
    """(machine code, log) of the file of `kernel` with its macros, for `arch` such as "sm_90a". The log tells registers,
    shared memory and spills of every kernel in it. Needs NVRTC but no GPU."""
    return nvrtc.compile(*_translation(kernel, arch))


def _translation(kernel, arch):
    """What the machine code depends on, as the arguments of nvrtc.compile."""
    folder = kernels_folder()
    options = (f"-arch={arch}", "-std=c++20", "-lineinfo", "--ptxas-options=-v",
               *(f"-D{name}={value}" for name, value in kernel.defines.items()))
    headers = {path.name: path.read_text() for path in sorted((folder / "device").glob("*.cuh"))}
    return (folder / kernel.file).read_text(), f"kernels/{kernel.file}", options, headers


def _cached_cubin(kernel, arch):
    """The path of a file with the machine code, made by NVRTC unless an earlier run left it: a file is named by the
    hash of all that it depends on. It is renamed into place, so two processes may do this at the same time."""
    translation = _translation(kernel, arch)
    path = _cache_folder() / (hashlib.sha256(repr((nvrtc.version(), translation)).encode()).hexdigest() + ".cubin")
    if not path.exists():
        cubin, _ = nvrtc.compile(*translation)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(cubin)
        os.replace(file.name, path)
    return path


@functools.cache
def _cache_folder():
    """This user's folder of compiled kernels; a temporary one where there is no home to write to."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "zfcore" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="zfcore-kernels-"))


@functools.cache
def _function(kernel, device):
    """The kernel loaded onto CUDA device number `device`."""
    arch = architecture(int(cupy.cuda.Device(device).compute_capability), nvrtc.architectures())
    function = cupy.RawModule(path=str(_cached_cubin(kernel, arch))).get_function(kernel.name)
    if kernel.shared > 48*1024:                           # more than every GPU grants unasked
        function.max_dynamic_shared_size_bytes = kernel.shared
    return function


def _launch(kernel, grid, arguments):
    """Launch on CuPy's current device and stream. A launch that CUDA refuses is a mistake in zfcore and is told at once;
    what goes wrong inside a running kernel shows at a later call, or at the launch itself with CUDA_LAUNCH_BLOCKING=1."""
    values = tuple(_each(argument, value) if argument.each else np.atleast_1d(value) if argument.dtype.names else value
                   for argument, value in zip(kernel.arguments, arguments))    # a struct: an array of one element
    try:
        _function(kernel, cupy.cuda.runtime.getDevice())(grid, (kernel.block,), values, shared_mem=kernel.shared)
    except cupy.cuda.driver.CUDADriverError as error:
        raise RuntimeError(f"{kernel.file}: {kernel.name} on {grid} blocks of {kernel.block} threads, "
                           f"{kernel.shared} bytes of shared memory: {error}") from error


def _each(argument, values):
    """An Each as CuPy passes it by value: one element of a structured dtype. What is left over is zero."""
    struct = np.zeros(1, [("of", np.uint64 if argument.pointer else argument.dtype, EACH)])
    struct["of"][0, :len(values)] = [_address(value) if argument.pointer else value for value in values]
    return struct
