"""Compiles the project's .cu files with g++ and runs them on NumPy arrays, one fiber per CUDA thread.

    library = compile(text, label, name, defines, build)      cached by a hash of everything that matters
    library.launch(grid, block, shared, values, writable, names, settings)

A build is plain, race (every access of shared and global memory reported to emu_race.cpp) or bounds (index, alignment,
shift, overflow and division checks of g++). Anything the executor finds wrong is a `KernelError` that names the line."""
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from zfcore.cubin import kernels_folder

HERE = Path(__file__).parent
RUNTIME = ("emu_rt.cpp", "emu_ptx.cpp", "emu_race.cpp")
HEADERS = ("emu.h", "cuda_emu.h", "ptx.cuh")         # that a kernel includes
SONAME = "zfcore-executor.so"                        # what a compiled kernel asks for is the runtime that is loaded, whichever
GXX = shutil.which(os.environ.get("CXX", "g++"))
# DWARF 4, because addr2line of binutils 2.40 mistakes the files of DWARF 5; stack-clash protection touches every page of
# a large frame, so that it cannot jump over the guard page below a stack.
FLAGS = ["-std=c++20", "-O2", "-g1", "-gdwarf-4", "-fPIC", "-fno-strict-aliasing", "-fno-exceptions",
         "-fstack-clash-protection", "-U_FORTIFY_SOURCE", "-w", "-Wno-psabi"]
BUILDS = {
    "plain": [],
    "race": ["-fsanitize=thread", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"],
    "bounds": ["-fsanitize=bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero"],
}
SCHEDULES = ("forward", "reverse", "random", "skewed")


class KernelError(AssertionError):
    """A kernel did something no GPU promises to survive; the message begins with its file and line."""


# --------------------------------------------------------------------------------------------------- compiling
@cache
def compiler():
    """(version text, flags) of g++; its pattern for uninitialised locals exists from version 12 on."""
    version = subprocess.run([GXX, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(subprocess.run([GXX, "-dumpversion"], capture_output=True, text=True, check=True).stdout.split(".")[0])
    return version, FLAGS + ["-ftrivial-auto-var-init=pattern"]*(major >= 12)


@cache
def cache_folder():
    """This user's own folder for compiled kernels; a private temporary one where there is no home to write to."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home()/".cache")
    try:
        folder = home/"zfcore"/"executor"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="zfcore-executor-"))


def built(kind, key, make, suffix=".so"):
    """The file of that key in the cache, made by `make(path)` if it is not there yet. Two processes may do so at once:
    each writes its own temporary file and the renaming is atomic. Files unused for two weeks are removed."""
    path = cache_folder()/(f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}" + suffix)
    if path.exists():
        os.utime(path)
        return path
    forget_unused()
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh = Path(folder)/path.name
        make(fresh)
        os.replace(fresh, path)
    return path


@cache
def forget_unused():
    for pattern in ("*-*.*", "headers-*/*.gch"):
        for old in cache_folder().glob(pattern):
            if time.time() - old.stat().st_mtime > 14*86400:
                old.unlink(missing_ok=True)


def run_compiler(*arguments):
    outcome = subprocess.run([GXX, *map(str, arguments)], capture_output=True, text=True)
    if outcome.returncode:
        raise KernelError("g++ refuses:\n" + outcome.stderr[-4000:])


@cache
def sources(*more):
    """What every compiled file depends on: the compiler, and what the executor and kernels have in common."""
    return [*compiler(), platform.machine(), *((HERE/name).read_text() for name in (*HEADERS, *more))]


def where():
    """Flags that name this checkout's folders. What is compiled names none of them, so that all checkouts share it."""
    device = kernels_folder()/"device"
    return [f"-I{HERE}", f"-I{device}", f"-ffile-prefix-map={HERE}=executor", f"-ffile-prefix-map={device}=device"]


@cache
def runtime():
    flags = ["-O3", "-shared", "-Wl,-Bsymbolic", f"-Wl,-soname,{SONAME}"]
    how = [*compiler()[1], *flags, *where(), *(HERE/name for name in RUNTIME), "-ldl"]
    return built("runtime", [flags, *sources("emu_rt.h", *RUNTIME)], lambda path: run_compiler(*how, "-o", path))


@cache
def headers(build):
    """The folder of cuda_emu.h, with all that it includes, as g++ keeps what it has read: half the cost of a small kernel.
    Where g++ cannot take it, it goes on to the next folder and reads the text."""
    how = [*compiler()[1], *where(), *BUILDS[build], "-x", "c++-header", HERE/"cuda_emu.h"]
    return built("headers", [*sources(), build], lambda path: run_compiler(*how, "-o", path), "/cuda_emu.h.gch").parent


@cache
def compile(text, label, name, defines=(), build="plain"):
    """The `Library` of kernel `name` in the source `text`, which messages call `label`; defines is a tuple of pairs."""
    folder = kernels_folder()/"device"
    device = {f"<{path.name}>": path.read_text() for path in sorted(folder.glob("*.cuh"))}
    for source in (text, *device.values()):
        foreign = [line for line in re.findall(r"^\s*#\s*include\s*(\S+)", source, re.M) if line not in device]
        if foreign:
            raise KernelError(f"{label}: a kernel file includes headers of kernels/device and nothing else, "
                              f"not {', '.join(foreign)}")
    macros = "".join(f"#define {key} {value}\n" for key, value in defines)    # after the headers, which use short names
    wrapper = f'#include <cuda_emu.h>\n#include <ptx.cuh>\n{macros}#line 1 "{label}"\n{text}\nEMU_EXPORT({name})\n'

    def make(path):
        source, object_file = path.with_suffix(".cpp"), path.with_suffix(".o")
        source.write_text(wrapper)
        run_compiler(f"-I{headers(build)}", *compiler()[1], *where(), *BUILDS[build], "-c", source, "-o", object_file)
        run_compiler("-shared", object_file, runtime(), "-o", path)       # no sanitizer library: the hooks are ours

    cluster = blocks_together(text, name, "".join(device.values()))
    return Library(built("kernel", [wrapper, *device.values(), build, *sources()], make), name, label, cluster)


def blocks_together(text, name, headers):
    """Count of blocks in a cluster of kernel `name`: a number or a macro of the headers in its __cluster_dims__; 1 without."""
    found = re.search(rf"__cluster_dims__\((\w+), 1, 1\)[^;{{]*\b{name}\(", text)
    macros = dict(re.findall(r"^#define (\w+) (\d+)", headers, re.M))
    return int(macros.get(found[1], found[1])) if found else 1


# --------------------------------------------------------------------------------------------------- launching
class Buffer(ctypes.Structure):
    _fields_ = [("host", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("skew", ctypes.c_size_t),
                ("writable", ctypes.c_int), ("name", ctypes.c_char_p),
                ("device", ctypes.c_void_p), ("mapping", ctypes.c_void_p), ("mapped", ctypes.c_size_t)]


class Value(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("buffer", ctypes.c_int), ("offset", ctypes.c_size_t)]


class Launch(ctypes.Structure):
    _fields_ = [("call", ctypes.c_void_p), ("touch", ctypes.c_void_p), ("name", ctypes.c_char_p),
                ("values", ctypes.POINTER(Value)), ("n_values", ctypes.c_int),
                ("buffers", ctypes.POINTER(Buffer)), ("n_buffers", ctypes.c_int),
                ("grid", ctypes.c_uint*3), ("block", ctypes.c_uint), ("cluster", ctypes.c_uint), ("shared", ctypes.c_uint),
                ("schedule", ctypes.c_int), ("eager_copies", ctypes.c_int), ("eager_wgmma", ctypes.c_int),
                ("race", ctypes.c_int), ("seed", ctypes.c_uint), ("seconds", ctypes.c_double),
                ("message", ctypes.c_void_p), ("report", ctypes.c_void_p),
                ("message_size", ctypes.c_size_t), ("report_size", ctypes.c_size_t)]


@dataclass(frozen=True)
class Settings:
    """How kernels run: in which order threads take turns, when asynchronous work takes effect, which checks look on."""
    schedule: str = "forward"         # forward, reverse, random, skewed (one warp as far ahead as it can get)
    seed: int = 0                     # of the random and the skewed schedule
    copies: str = "lazy"              # cp.async and TMA: lazy (at the last legal moment) or eager (at issue)
    wgmma: str = "lazy"               # likewise
    build: str = "plain"              # plain, race, bounds
    report: bool = False              # of a race build: count bank conflicts and sectors per source line
    seconds: float = 60               # CPU time after which a launch is given up


@dataclass(frozen=True)
class Traffic:
    """What one source line costs: wavefronts of shared memory or sectors of global memory, and the fewest possible."""
    line: str                         # file.cu:12
    space: str                        # shared, global
    actual: int
    ideal: int

    @property
    def ratio(self):
        return self.actual/self.ideal


def traffic(report):
    rows = {}
    for row in report.splitlines():
        line, space, *counts = row.split("\t")
        rows[line, space] = np.add(rows.get((line, space), (0, 0)), [int(count) for count in counts])
    return [Traffic(line, space, *map(int, counts)) for (line, space), counts in sorted(rows.items())]


@dataclass(frozen=True, eq=False)
class TensorMap:
    """What cuTensorMapEncodeTiled or cuTensorMapEncodeIm2col would be told, as an argument for a `const __grid_constant__
    TensorMap`. Sizes run from the contiguous axis outwards, as in the driver's interface: array.shape backwards."""
    array: np.ndarray
    box: tuple = ()                   # tiled: elements of each axis in one load
    swizzle: bool = False             # the 128-byte swizzle
    lower: tuple = ()                 # im2col, of an array (N,H,W,C): corners (w, h) of the pixels, relative to (0, 0)
    upper: tuple = ()                 # and to the last pixel
    channels: int = 0                 # in one load
    pixels: int = 0                   # in one load
    steps: tuple = (1, 1, 1, 1)       # over (C, W, H, N): the stride of the convolution

    FIELDS = np.dtype([("base", "u8"), ("strides", "u8", 4), ("sizes", "u4", 5), ("box", "u2", 5), ("steps", "u2", 5),
                       ("lower", "i2", 2), ("upper", "i2", 2), ("pixels", "u2"), ("channels", "u2"),
                       ("rank", "u1"), ("item", "u1"), ("swizzle", "u1"), ("im2col", "u1")])

    def packed(self):
        """The fields in 128 bytes at a multiple of 64; the address is filled in by the launch."""
        rank, item, im2col = self.array.ndim, self.array.itemsize, not self.box
        inner = item*(self.channels if im2col else self.box[0])
        if not (2 <= rank <= 5 and self.array.flags.c_contiguous and all(s % 16 == 0 for s in self.array.strides[:-1])):
            raise KernelError("tensor map: 2 to 5 contiguous axes whose strides are multiples of 16 bytes")
        if inner % 16 or max(self.box, default=0) > 256 or self.pixels > 1024 or self.channels > 256:
            raise KernelError("tensor map: a row of whole 16 bytes, a box of at most 256 (1024 pixels, 256 channels)")
        if (self.swizzle and inner != 128) or (im2col and rank != 4) or (not im2col and set(self.steps) != {1}):
            raise KernelError("tensor map: not emulated: swizzled rows of other than 128 bytes, im2col of other than 4 "
                              "axes, tiles with steps")

        def padded(values, n):
            return [*values, *[0]*(n - len(values))]

        raw = np.zeros(192, np.uint8)
        raw = raw[-raw.ctypes.data % 64:][:128]
        raw[:self.FIELDS.itemsize].view(self.FIELDS)[0] = (
            0, padded(self.array.strides[-2::-1], 4), padded(self.array.shape[::-1], 5), padded(self.box, 5),
            padded(self.steps, 5), padded(self.lower, 2), padded(self.upper, 2), self.pixels, self.channels,
            rank, item, self.swizzle, im2col)
        return raw


_running = threading.Lock()           # the runtime has one set of fibers


class Library:
    """One compiled kernel."""

    def __init__(self, path, name, label, cluster=1):
        self.path, self.name, self.label, self.cluster = path, name, label, cluster          # blocks that run together
        self.run = ctypes.CDLL(str(runtime())).emu_launch                                    # before who asks for it
        self.dll = ctypes.CDLL(str(path))
        self.dll.emu_types.restype = ctypes.c_char_p
        self.types = self.dll.emu_types().decode()

    def launch(self, grid, block, shared, values, names, writable, settings=Settings()):
        """`values`: arrays for pointers, `TensorMap`s, NumPy scalars; tuples of arrays or of scalars for structs that hold
        one after the other. Arrays named in `writable` get back what was written. Returns the `Traffic` of each source
        line where settings.report asks for it."""
        if not (0 < block <= 1024 and 0 <= shared <= 227*1024 and len(grid) <= 3):
            raise KernelError(f"{self.name}: no GPU runs a block of {block} threads with {shared} bytes, grid {grid}")
        flat = [(k, one) for k, value in enumerate(values) for one in (value if isinstance(value, tuple) else [value])]
        buffers, places = merge([one for _, one in flat], [names[k] for k, _ in flat], writable)
        storage = [value.packed() if isinstance(value, TensorMap) else struct(value) if isinstance(value, tuple) else
                   np.zeros(1, np.uint64) if isinstance(value, np.ndarray) else np.atleast_1d(value) for value in values]
        packed = [Value(held.ctypes.data, -1, 0) for held in storage]
        taken = [0]*len(values)                                   # fields of each struct
        for number, (k, _) in enumerate(flat):                    # what follows the arguments themselves: addresses in structs
            if number in places:
                packed.append(Value(storage[k].ctypes.data + 8*taken[k], *places[number]))
            taken[k] += 1
        packed = (Value*len(packed))(*packed)
        message, report = ctypes.create_string_buffer(8192), ctypes.create_string_buffer(65536)
        job = Launch(ctypes.cast(self.dll.emu_call, ctypes.c_void_p), ctypes.cast(self.dll.emu_touch, ctypes.c_void_p),
                     self.name.encode(), packed, len(packed), buffers, len(buffers),
                     (ctypes.c_uint*3)(*grid, *[1]*(3 - len(grid))), block, self.cluster, shared,
                     SCHEDULES.index(settings.schedule), settings.copies == "eager", settings.wgmma == "eager",
                     settings.build == "race", settings.seed,
                     settings.seconds, ctypes.addressof(message), settings.report and ctypes.addressof(report) or None,
                     len(message), len(report))
        with _running:
            failed = self.run(ctypes.byref(job))
        if failed:
            raise KernelError(self.named(message.value.decode()))
        return traffic(self.named(report.value.decode()))

    def named(self, text):
        """`text` with file.cu:12 for each address in the compiled kernel: of the inlined calls there, the innermost in the .cu
        file or in a header of kernels/device."""
        addresses = sorted(set(re.findall(r"<pc \+(\w+)>", text)))
        if not addresses:
            return text
        said = subprocess.run(["addr2line", "-a", "-i", "-e", self.path, *addresses], capture_output=True, text=True).stdout
        ours = Path(self.label).name, *(f"/device/{path.name}" for path in (kernels_folder()/"device").glob("*.cuh"))
        places = {}
        for address, of_address in zip(addresses, re.split(r"^0x\w+\n", said, flags=re.M)[1:]):
            lines = [re.sub(r" \(.*", "", line) for line in of_address.split("\n") if line]
            own = [line for line in lines if line.rsplit(":", 1)[0].endswith(ours)]
            places[address] = Path((own or lines or ["?"])[0]).name
        return re.sub(r"<pc \+(\w+)>", lambda m: places.get(m[1], "?"), text)


def struct(values):
    """Memory for a by-value struct of 16 addresses or numbers, zero where there are fewer `values`."""
    numbers = [0 if isinstance(value, np.ndarray) else value for value in values]
    held = np.zeros(16, np.uint64 if isinstance(values[0], np.ndarray) else values[0].dtype)
    held[:len(values)] = numbers
    return held


def merge(values, names, writable):
    """The buffers behind the arrays among `values`, and for each of those (its buffer, its offset there). Arguments that
    share memory share a buffer, so that an in-place launch really is in place."""
    values = [value.array if isinstance(value, TensorMap) else value for value in values]
    arrays = sorted((value.ctypes.data, value.ctypes.data + value.nbytes, k)
                    for k, value in enumerate(values) if isinstance(value, np.ndarray))
    spans, places = [], {}                                    # span: [start, end, argument numbers]
    for start, end, k in arrays:
        if spans and start < spans[-1][1]:
            spans[-1][1] = max(end, spans[-1][1])
            spans[-1][2].append(k)
        else:
            spans.append([start, end, [k]])
        places[k] = len(spans) - 1, start - spans[-1][0]
    buffers = (Buffer*len(spans))()
    for b, (start, end, members) in enumerate(spans):
        name = "/".join(names[k] for k in sorted(members)).encode()
        buffers[b] = Buffer(start, end - start, start % 16, any(names[k] in writable for k in members), name)
    return buffers, places
