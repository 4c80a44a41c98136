"""Floor 0: NVRTC, NVIDIA's compiler as a library. CUDA C++ text in, machine code (a cubin) out.

It needs neither a GPU nor a driver nor a toolkit, only the wheel nvidia-cuda-nvrtc, which comes with CuPy's `ctk` extra;
so every kernel is compiled for every architecture on any machine, and the compiler's log says how many registers it took.
CuPy compiles too, but only for the device it sees, and its cache does not notice a changed header.
"""
import ctypes
import functools
import os
import re

from zfcore.check import Expected

OLDEST = 80                       # compute capability that has what all kernels are made of: cp.async, mma of BF16 and TF32


@functools.cache
def library():
    """libnvrtc, from the wheel, a conda environment or a toolkit, whichever is found first."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
        path = load_nvidia_dynamic_lib("nvrtc").abs_path
    except (ImportError, RuntimeError) as error:              # pathfinder's DynamicLibNotFoundError is a RuntimeError
        reason = str(error).splitlines()[0]
        raise Expected("CUDA kernels", "NVRTC, the CUDA compiler library", f"none ({reason})",
                       'pip install -e ".[cuda13]" (or cuda12) brings it') from None
    nvrtc = ctypes.CDLL(path)
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def version():
    """(major, minor) of NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def build():
    """Numbers that tell one NVRTC from another that gives the same version but not, perhaps, the same machine code."""
    return *version(), os.path.getsize(library()._name)


def architectures():
    """The compute capabilities this NVRTC compiles for, (80, 86, 90, ...)."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    archs = (ctypes.c_int*count.value)()
    _call("nvrtcGetSupportedArchs", archs)
    return tuple(archs)


def architecture(capability, known):
    """Architecture that NVRTC is told for a device of compute capability `capability`, when it knows those in `known`.

    From Hopper on machine code has features that only the very same capability runs (wgmma: sm_90a), so those get the
    "a". A device newer than NVRTC runs the code of the nearest older one of its generation."""
    if capability < OLDEST:
        raise Expected("--device gpu", f"a GPU of compute capability {in_words(OLDEST)} or newer", in_words(capability),
                       "use --device cpu")
    if capability in known:
        return f"sm_{capability}" + ("a" if capability >= 90 else "")
    older = [k for k in known if k//10 == capability//10 and k < capability]
    if not older:
        raise Expected("--device gpu", f"a GPU for which this NVRTC compiles, of compute capability "
                       f"{', '.join(in_words(k) for k in known if k >= OLDEST)}", in_words(capability),
                       "bring a newer NVRTC, or use --device cpu")
    return f"sm_{max(older)}"


def in_words(capability):
    """8.0 of 80."""
    return f"{capability//10}.{capability % 10}"


def compile(source, name, options, headers):
    """(machine code, log) of the CUDA C++ text `source`, which messages call `name`.

    options   such as "-arch=sm_90a"; with an sm_ the outcome is machine code and no driver need translate it
    headers   {name: text} of what `#include <name>` finds"""
    program = ctypes.c_void_p()
    texts = (ctypes.c_char_p*len(headers))(*[text.encode() for text in headers.values()])
    names = (ctypes.c_char_p*len(headers))(*[key.encode() for key in headers])
    _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names)
    try:
        status = library().nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p*len(options))(*[option.encode() for option in options]))
        log = _bytes("nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace")
        if status:
            first = re.search(r".*\berror\b.*", log)
            raise Expected(name, f"source that NVRTC {'%d.%d' % version()} compiles with {' '.join(options)}",
                           first[0].strip() if first else library().nvrtcGetErrorString(status).decode())
        return _bytes("nvrtcGetCUBIN", program), log
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _bytes(getter, program):
    """Bytes that `getter` yields, whose size the function `getter`Size tells."""
    size = ctypes.c_size_t()
    _call(getter + "Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(getter, program, buffer)
    return buffer.raw


def _call(function, *arguments):
    status = getattr(library(), function)(*arguments)
    if status:
        raise RuntimeError(f"{function}: {library().nvrtcGetErrorString(status).decode()}")
