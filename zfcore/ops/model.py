"""The time of a kernel that is made of tiles, predicted: by what its main loop asks of a multiprocessor.

    cycles of a step, of a block     the longest of these, and a part of the others that does not hide behind it:
        issue      instructions of its warps, counted in machine code, over four schedulers
        math       products over the rate of FMAs, mma.sync or wgmma
        shared     128 bytes a cycle to and from shared memory, counted in machine code
        L2         bytes of its two tiles over a multiprocessor's share of the L2 cache
    time                             those of all blocks of the multiprocessor that has most, but no less than each round of
                                     blocks waits for the L2 cache; or the bytes of memory over the rate of a copy

The counts stand in kernels/loops.json, which `python -m bench resources` writes; the rates in tuning.py. Nothing of it is
measured."""
from functools import cache
from typing import NamedTuple

from zfcore.cubin import kernels_folder
from zfcore.files import listed, mapping, read_json, table, text, whole
from zfcore.kernel import blocks

FORM = table({"nvrtc": text(), "arch": text(), "loops": mapping(listed(whole(), 4, 4), text())})
TERMS = {"fp32": 8, "fp32x3": 16, "tf32": 16, "bf16": 32, "wgmma": 64}       # of the sum in a tile, BK in kernels/device
SCHEDULERS = 4                                            # of a multiprocessor
UNHIDDEN = 0.1                                            # part of what is shorter than the longest; predicted


class Loop(NamedTuple):
    """Counts of a kernel's main loop, of one warp: steps of tiles that it takes, instructions, products among them (FFMA or
    HMMA), wavefronts of shared memory."""
    steps: int
    instructions: int
    products: int
    wavefronts: int


class Cycles(NamedTuple):
    """Cycles of a step of a block, by what they are spent on."""
    issue: float
    math: float
    shared: float
    l2: float

    def together(self):
        """Cycles of all four at a time."""
        return max(self) + UNHIDDEN*(sum(self) - max(self))


def words(kernel):
    """The kernel in words: its file, its name, its macros."""
    return " ".join([kernel.file, kernel.name, *(f"{name}={value}" for name, value in kernel.defines.items())])


@cache
def loops():
    """{a kernel in words: its Loop}, of every declared kernel whose tiles are multiplied by FFMA or mma.sync."""
    return {name: Loop(*counts) for name, counts in read_json(kernels_folder()/"loops.json", FORM)["loops"].items()}


def precision(kernel):
    """Precision of the products of its tiles, "wgmma" for those in bf16 that wgmma forms."""
    return "wgmma" if kernel.arch else kernel.defines.get("PRECISION", "FP32").lower()


def in_pairs(kernel):
    """Return whether its blocks are clusters of two: those on wgmma whose tiles come by TMA alone."""
    return bool(kernel.arch) and "BM" not in kernel.defines


def sizes(kernel):
    """(rows, columns, terms of the sum) of its tiles."""
    tile = kernel.defines
    return tile.get("BM", wgmma_rows(tile)), tile["BN"], tile.get("CHUNK", TERMS[precision(kernel)])


def wgmma_rows(tile):
    """Rows of a tile on wgmma with these macros: as many times 64 as consumers multiply."""
    return 64*tile.get("CONSUMERS", 2)


def pairs(m, n, S=1):
    """Count of the pairs in which m by n tiles are dealt to clusters of two blocks (kernels/device/wgmma_ring.cuh); S as in
    `dealt`."""
    m, n = (m, n) if S == 1 else (n, m)
    return n//2*m + n % 2*blocks(m, 2)


def dealt(m, n, S=1):
    """Pairs of m by n tiles as these are dealt, of each the places of both, ((row, column), (row, column)). They share a
    column, but for the last tiles of two neighbouring columns, which share a row where m is odd. Where n is odd too, the last
    is there with a tile (m, n-1) that there is not. With a stride S of a transposed convolution, whose rows are of several
    phases, rows and columns change their parts."""
    if S > 1:
        yield from (tuple((row, column) for column, row in pair) for pair in dealt(n, m))
        return
    for first in range(0, n, 2):
        couple = [first, first + 1] if first + 1 < n else [first]
        for column in couple:
            yield from (((row, column), (row + 1, column)) for row in range(0, m - m % 2*(len(couple) == 2), 2))
        if m % 2 and len(couple) == 2:
            yield (m - 1, first), (m - 1, first + 1)


def tiles(kernel, M, columns, S=1):
    """Count of tiles for M rows by so many columns, on wgmma with those that fill up a pair."""
    rows, across, _ = sizes(kernel)
    m, n = blocks(M, rows), blocks(columns, across)
    return 2*pairs(m, n, S) if in_pairs(kernel) else m*n


def tile_bytes(kernel, M, columns, S=1):
    """Bytes of both operands of a step that a block fetches, on average over those for M rows by so many columns: what lies
    beyond is not fetched, and on wgmma what a pair shares by one of its two blocks."""
    rows, across, terms = sizes(kernel)
    m, n = blocks(M, rows), blocks(columns, across)
    numbers = M/m + columns/n
    if in_pairs(kernel):
        high, wide = extents(M, rows), extents(columns, across)
        numbers = sum(high[row] for pair in dealt(m, n, S) for row in {row for row, _ in pair})
        numbers += sum(wide[column] for pair in dealt(m, n, S) for column in {column for _, column in pair})
        numbers /= tiles(kernel, M, columns, S)
    return numbers*terms*(2 if precision(kernel) in ("bf16", "wgmma") else 4)


def extents(total, size):
    """Parts of `total` in each of the tiles of that size that cover it, and in one more, 0."""
    return [min(size, total - first) for first in range(0, total, size)] + [0]


def products(kernel):
    """Products that a warp forms in a step: FFMA, or mma of 16 x 8 results over 16 terms in bf16 and 8 else, of which fp32x3
    takes three. On wgmma, where warps do more than that, wgmma over 16 terms or what a warp that fills a tile writes, 16 bytes
    a lane."""
    if kernel.arch:
        return sizes(kernel)[2]//16 if counted(kernel) == ("HGMMA",) else kernel.defines["BN"]*sizes(kernel)[2]//8//busy(kernel)
    of_warp = kernel.defines["TM"]*kernel.defines["TN"]*sizes(kernel)[2]
    limbs = 3 if precision(kernel) == "fp32x3" else 1
    return limbs*of_warp//{"fp32": 1, "fp32x3": 4*8, "tf32": 4*8, "bf16": 4*16}[precision(kernel)]


def counted(kernel):
    """Kinds of instructions (bench/sass.py) of which its main loop has most, the first that there is."""
    return ("HMMA", "FFMA") if not kernel.arch else ("HGMMA",) if "CHUNK" in kernel.defines else ("STS",)


def busy(kernel):
    """Count of threads that go through its main loop: on wgmma all but a warpgroup, which fetches or multiplies."""
    return kernel.block - 128 if kernel.arch else kernel.block


def cycles(kernel, moved, tuning):
    """The Cycles of a step of a block that moves so many bytes into tiles, on the GPU that `tuning` describes."""
    rows, columns, terms = sizes(kernel)
    a_cycle = 1e9*tuning.clock_ghz*tuning.multiprocessors                    # of all multiprocessors in a second
    l2 = moved*a_cycle/(1e9*tuning.l2_gb_s)
    math = 2*rows*columns*terms*a_cycle/(1e12*tuning.tflop_s(precision(kernel)))
    # a thread asks for tiles, and for products that take hundreds of cycles
    if in_pairs(kernel):
        return Cycles(0, math, 0, l2)
    loop, warps = loops()[words(kernel)], busy(kernel)/32
    return Cycles(warps*loop.instructions/loop.steps/SCHEDULERS, math, warps*loop.wavefronts/loop.steps, l2)


def wait(kernel, moved, tuning):
    """Cycles that a step of a block takes at least: its tiles were asked for as many steps before as there are stages but one.
    With one stage nothing else is done meanwhile."""
    stages = kernel.defines.get("STAGES", 2)
    return tuning.l2_latency/(stages - 1) if stages > 1 else tuning.l2_latency + cycles(kernel, moved, tuning).together()


def at_once(kernel):
    """Count of blocks that a multiprocessor is to hold at a time."""
    return kernel.defines.get("BLOCKS", 1)


def share(kernel, moved, tuning):
    """Cycles of a multiprocessor that a step of one of its blocks costs, where it has as many as it holds."""
    return max(cycles(kernel, moved, tuning).together(), wait(kernel, moved, tuning)/at_once(kernel))


def seconds(kernel, count, steps, moved, tuning):
    """Time of `count` blocks of so many steps each, which move so many bytes each into tiles."""
    of_one = blocks(count, tuning.multiprocessors)
    longest = max(of_one*cycles(kernel, moved, tuning).together(), blocks(of_one, at_once(kernel))*wait(kernel, moved, tuning))
    return steps*longest/(1e9*tuning.clock_ghz)
