"""python -m bench resources: what each kernel takes of a GPU, told by the compiler, written as a table into kernels/README.md.

No GPU is needed: NVRTC compiles every kernel that an operation declares for sm_90a (H100, H200), and its log says the rest.
Register counts change from one compiler version to the next, so the table names its NVRTC version. Beside it kernels/loops.json
is written: the instructions of main loops, counted in machine code (bench/sass.py), by which the model of a kernel's time goes.
Printed: what a training step moves (bench/traffic.py) and what time that model predicts for it (bench/prediction.py).

python -m bench compile: all these kernels into the cache of machine code, before a device that is lent by the minute waits for
them."""
import importlib
import json
import pkgutil
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import zfcore.ops
from bench import ladder, prediction, sass, traffic
from bench.gpu import RESULTS
from zfcore import nvrtc
from zfcore.check import Expected
from zfcore.cpu import CORES
from zfcore.cubin import cached_cubin, compile_cubin, kernels_folder
from zfcore.gpu import find_cupy
from zfcore.kernel import KERNELS
from zfcore.ops import model

README = Path(__file__).parents[1] / "kernels" / "README.md"
LOOPS = README.with_name("loops.json")
BEGIN, END = "<!-- written by python -m bench resources -->", "<!-- end -->"
BEGIN_LADDER, END_LADDER = "<!-- the ladder, written by python -m bench resources -->", "<!-- end of the ladder -->"
ARCH = "sm_90a"


class Resources(NamedTuple):
    registers: int                # per thread
    spills: int                   # bytes per thread that did not fit into registers
    shared: int                   # bytes per block, static


def declared():
    """Every kernel that an operation declares, in the order of the files."""
    for module in pkgutil.iter_modules(zfcore.ops.__path__):
        importlib.import_module(f"zfcore.ops.{module.name}")
    return sorted((k for k in KERNELS if (kernels_folder() / k.file).exists()), key=lambda k: k.file)


@cache
def compiled(kernel, arch=ARCH):
    """compile_cubin, but only once."""
    return compile_cubin(kernel, arch)


def resources(kernel, arch=ARCH):
    """Resources of `kernel` as ptxas tells them, among all those of its file."""
    _, log = compiled(kernel, arch)
    of_kernel, = (part for part in log.split("Compiling entry function ") if part.startswith(f"'{kernel.name}' "))
    total = lambda pattern: sum(map(int, re.findall(pattern, of_kernel)))
    return Resources(total(r"Used (\d+) registers"), total(r"(\d+) bytes spill"), total(r"(\d+) bytes smem"))


def blocks_per_sm(kernel, taken):
    """Count of blocks that an SM of sm_90 holds at once: 65536 registers given out 256 to a warp, 64 warps, 32 blocks, 228 KiB
    of shared memory of which each block takes 1 KiB more than it asks (CUDA C++ Programming Guide, compute capabilities)."""
    warps = -(-kernel.block//32)
    registers = warps*(-(-taken.registers*32//256)*256)
    return min(65536//registers, 64//warps, 32, 228*1024//(taken.shared + kernel.shared + 1024))


def table():
    """The lines between the two marks."""
    lines = [f"NVRTC {nvrtc.version()[0]}.{nvrtc.version()[1]}, {ARCH}.", "",
             "| file | kernel | defines | registers | spills | shared memory | threads | blocks/SM | has run on hardware |",
             "|---|---|---|--:|--:|--:|--:|--:|---|"]
    for kernel in declared():
        taken = resources(kernel)
        defines = " ".join(f"{name}={value}" for name, value in kernel.defines.items())
        shared = f"{taken.shared:,}" + (f" + {kernel.shared:,}" if kernel.shared else "")
        lines.append(f"| {kernel.file} | {kernel.name} | {defines} | {taken.registers} | {taken.spills} | {shared} "
                     f"| {kernel.block} | {blocks_per_sm(kernel, taken)} | no |")
    return "\n".join(lines)


def loops():
    """The text of kernels/loops.json."""
    found = {model.words(kernel): list(sass.main_loop(compiled(kernel)[0], kernel.name, model.products(kernel),
                                                      model.counted(kernel)))
             for kernel in [*declared(), *(rung.kernel for rung in ladder.rungs())] if "BM" in kernel.defines}
    lines = [f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in found.items()]
    return "\n".join(['{"nvrtc": "%d.%d", "arch": "%s", "loops": {' % (*nvrtc.version(), ARCH), ",\n".join(lines), "}}\n"])


def between_marks(text, begin=BEGIN, end=END):
    """(before, table, after) of the README's text."""
    before, rest = text.split(begin + "\n", 1)
    inside, after = rest.split("\n" + end, 1)
    return before, inside, after


def written(text, table, begin=BEGIN, end=END):
    """The README's text with this table between the marks."""
    before, _, after = between_marks(text, begin, end)
    return before + begin + "\n" + table + "\n" + end + after


def main():
    LOOPS.write_text(loops())
    model.loops.cache_clear()
    text = written(README.read_text(), ladder.table(RESULTS), BEGIN_LADDER, END_LADDER)
    README.write_text(written(text, table()))
    print(f"{len(declared())} kernels, tables in {README}, counts in {LOOPS}", *traffic.lines(), *prediction.lines(), sep="\n")


def add_arguments(parser):
    parser.add_argument("--arch", metavar="SM",
                        help=f"what they are compiled for, such as {ARCH} (default: what this GPU gets)")


def ahead(args):
    """Compile every declared kernel for that architecture that the cache does not hold, as many at once as there are cores."""
    known = nvrtc.architectures()
    arch = args.arch or nvrtc.architecture(int(find_cupy().cuda.Device().compute_capability), known)
    allowed = [nvrtc.architecture(capability, known) for capability in known if capability >= nvrtc.OLDEST]
    if arch not in allowed:
        raise Expected("--arch", ", ".join(allowed), arch)
    kernels = {(kernel.file, str(kernel.defines)): kernel for kernel in declared() if kernel.arch in ("", arch)}.values()
    with ThreadPoolExecutor(CORES) as pool:
        paths = set(pool.map(lambda kernel: cached_cubin(kernel, arch), kernels))
    print(f"{len(paths)} files for {arch} in {paths.pop().parent}")
