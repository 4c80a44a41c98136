"""The kernels of the stand-in: what the driver is given to load is no machine code but a line that says what to run.

A kernel of zfcore runs as the CPU executor compiles it. One of CuPy's own is compiled by g++ from the source that NVRTC would
have been given, with the executor's cuda_emu.h. Names do not tell kernels apart (CuPy has a `cupy_fill` for every dtype);
images do. Pointers are used as they are: that a kernel stays within its arrays, in all schedules, tests/kernels proves."""
import ctypes
import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from tests import executor
from tests.executor import emu
from zfcore import gpu
from zfcore.cubin import kernels_folder
from zfcore.kernel import CTYPES

HERE = Path(__file__).parent
GET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_uint), ctypes.c_uint, ctypes.c_uint,
                       ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_char), ctypes.c_int)
SIZES = {name: dtype.itemsize for name, dtype in ((name, np.dtype(dtype)) for name, dtype in CTYPES.items())} | {
    "bool": 1, "char": 1, "signed char": 1, "short": 2}
ours = 0                                  # launches of zfcore's kernels so far
loaded, failures = [], []                 # the kernels by their numbers; what went wrong below C++, which cannot raise


def enter(library):
    """Give the driver its kernels, and CuPy and zfcore the compilers that make what it can load."""
    library.standin_kernels(_get, _run)
    from cupy.cuda import compiler
    compiler._preprocess = lambda *_: ""
    compiler._compile_using_nvrtc_no_warning = _cupys
    from cuda import pathfinder
    pathfinder.find_nvidia_header_directory = lambda _: str(HERE/"shadow")       # g++ reads none of CUDA's headers
    from cupy.cuda import thrust
    thrust.argsort = _argsort                             # compiled into the wheel for GPUs alone
    gpu.cached_cubin = _ours


def _cupys(source, options=(), arch=None, filename="", name_expressions=None, *_):
    image = {"source": source, "options": [option for option in options if option[:2] in ("-D", "-I")]}
    return json.dumps(image).encode(), {name: name for name in name_expressions or ()}


def _ours(kernel, arch):
    image = json.dumps({"file": kernel.file, "name": kernel.name, "defines": list(kernel.defines.items())})
    return emu.built("image", [image], lambda path: path.write_text(image), ".cubin")


def _argsort(dtype, indices, data, keys, shape):
    """As CuPy's thrust: stable, along the last axis, on the current stream."""
    from cupy.cuda import get_current_stream, runtime

    def sort(_):
        count = math.prod(shape)
        there = lambda address, dtype: np.frombuffer((ctypes.c_uint8*(count*np.dtype(dtype).itemsize)).from_address(address),
                                                     dtype)
        there(indices, np.int64)[:] = np.argsort(there(data, dtype).reshape(shape), axis=-1, kind="stable").ravel()

    if math.prod(shape):
        runtime.launchHostFunc(get_current_stream().ptr, sort, 0)


@GET
def _get(image, name, sizes):
    try:
        library = _library(image, name.decode())
        loaded.append(library)
        for k, of_type in enumerate([*filter(None, library.types.split(", ")), None]):
            sizes[k] = 0 if of_type is None else 8 if of_type[-1] == "*" else \
                int(of_type[7:]) if of_type.startswith("struct:") else SIZES[of_type]
        return len(loaded) - 1
    except BaseException as error:                        # nothing may be raised through C++
        failures.append(error)
        return -1


@cache
def _library(image, name):
    image = json.loads(image)
    if "file" in image:
        text = (kernels_folder()/image["file"]).read_text()
        return emu.compile(text, f"kernels/{image['file']}", image["name"], tuple(map(tuple, image["defines"])))
    own = next(option for option in image["options"] if option.endswith("_core/include"))
    how = [f"-I{HERE/'shadow'}", *(option for option in image["options"] if option[:2] == "-D"), own]
    text = f'#include <cuda_emu.h>\n#include <cupys.cuh>\n{image["source"]}\nEMU_EXPORT({name})\n'

    def make(path):
        source, object_file = path.with_suffix(".cpp"), path.with_suffix(".o")
        source.write_text(text)
        emu.run_compiler(f"-I{emu.headers('plain')}", *emu.compiler()[1], *emu.where(), *how, "-c", source, "-o", object_file)
        emu.run_compiler("-shared", object_file, emu.runtime(), "-o", path)

    shadow = [path.read_text() for path in sorted((HERE/"shadow").rglob("*.cuh"))]
    return emu.Library(emu.built("cupys", [text, how[1:-1], shadow, *emu.sources()], make), name, "CuPy")


@RUN
def _run(number, grid, block, shared, values, message, room):
    global ours
    try:
        library = loaded[number]
        ours += library.label != "CuPy"
        return _launch(library, tuple(grid[:3]), block, shared, values, message, room)
    except BaseException as error:
        failures.append(error)
        return 1


def _launch(library, grid, block, shared, values, message, room):
    count = len(list(filter(None, library.types.split(", "))))
    packed = (emu.Value*count)(*[(values[k], -1, 0) for k in range(count)])
    now = executor._current
    job = emu.Launch(ctypes.cast(library.dll.emu_call, ctypes.c_void_p), ctypes.cast(library.dll.emu_touch, ctypes.c_void_p),
                     library.name.encode(), packed, count, None, 0, (ctypes.c_uint*3)(*grid), block, library.cluster, shared,
                     emu.SCHEDULES.index(now.schedule), now.copies == "eager", now.wgmma == "eager", False, now.seed,
                     now.seconds, ctypes.addressof(message.contents), None, room, 0)
    with emu._running:
        failed = library.run(ctypes.byref(job))
    if failed:
        said = library.named(ctypes.string_at(message).decode()).encode()
        failures.append(emu.KernelError(said.decode()))
        ctypes.memmove(message, said + b"\0", min(len(said) + 1, room))
    return failed
