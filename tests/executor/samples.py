"""The kernels of samples.cu with inputs and expected outputs: `SAMPLES[name].run(settings)` against `.expected`."""
import re
from dataclasses import dataclass
from pathlib import Path
from collections.abc import Callable

import numpy as np

from tests.executor import emu

SOURCE = Path(__file__).with_name("samples.cu")
rng = np.random.default_rng(20)


def part(kernel):
    """samples.cu with every kernel but this one blanked out, which keeps the line numbers."""
    parts = re.split(r"(?m)^(?=/\* )", SOURCE.read_text())
    blanked = [p if k < 2 or f" {kernel}(" in p else "\n"*p.count("\n") for k, p in enumerate(parts)]
    return "".join(blanked)


def bf16(x):
    """float32 -> the 16 bits of the nearest bf16, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Sample:
    name: str
    grid: tuple
    block: int
    shared: int
    values: Callable                  # () -> the arguments, the output among them
    names: str                        # of the arguments, one word each
    output: str                       # the one that is written
    expected: np.ndarray

    def run(self, settings=emu.Settings(), text=None):
        """Output and traffic of one launch, of a changed source where `text` is given."""
        library = emu.compile(text or part(self.name), SOURCE.name, self.name, (), settings.build)
        names, values = self.names.split(), self.values()
        traffic = library.launch(self.grid, self.block, self.shared, values, names, {self.output}, settings)
        return values[names.index(self.output)], traffic


def product(M, N, K, tile, name, shared, half, boxes=()):
    """The sample `name` of a product; boxes: those by which TMA fetches a and b."""
    a, b = rng.standard_normal((M, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
    if half:
        a, b = bf16(a), bf16(b.T.copy())                                      # b (N,K)
        expected = from_bf16(a).astype(float) @ from_bf16(b).T
    else:
        expected = a.astype(float) @ b

    def values():
        operands = [emu.TensorMap(x.reshape(*[1]*(len(box) - 2), *x.shape), box, swizzle=True)
                    for x, box in zip((a, b), boxes)] or [a, b]
        return [*operands, np.full((M, N), np.nan, np.float32), np.int32(M), np.int32(N), np.int32(K)]

    block = {"matmul": 256, "matmul_bf16": 64, "matmul_wgmma": 160, "matmul_cluster": 256}[name]
    m, n = -(-M//tile[0]), -(-N//tile[1])
    grid = (m + m % 2, n) if name == "matmul_cluster" else (n, m)
    return Sample(name, grid, block, shared, values, "a b y M N K", "y", expected)


def samples():
    x = rng.standard_normal((5, 333)).astype(np.float32)
    yield Sample("row_sums", (5,), 128, 16, lambda: [x, np.full(5, np.nan, np.float32), np.int32(333)],
                 "x y L", "y", x.sum(1, float))
    runs = rng.standard_normal((7, 32)).astype(np.float32)
    yield Sample("reverse_runs", (4,), 64, 0, lambda: [runs, np.full_like(runs, np.nan), np.int32(7)],
                 "x y runs", "y", runs[:, ::-1])
    bytes_ = rng.integers(0, 9, 201, np.uint8)
    yield Sample("histogram", (4,), 64, 0, lambda: [bytes_, np.zeros(7, np.int32), np.int32(201), np.int32(7)],
                 "x counts total bins", "counts", np.bincount(bytes_, minlength=9)[:7])
    yield Sample("hand_over", (1,), 64, 0, lambda: [runs, np.full_like(runs, np.nan), np.int32(7)],
                 "x y rounds", "y", runs + 1.0)
    yield product(37, 21, 43, (16, 16), "matmul", 0, half=False)
    yield product(45, 27, 104, (32, 16), "matmul_bf16", 2*48*80, half=True)
    yield product(83, 101, 328, (64, 64), "matmul_wgmma", 4*8192 + 32, half=True, boxes=[(64, 64)]*2)
    yield product(170, 101, 328, (64, 64), "matmul_cluster", 4*8192 + 32, half=True,
                  boxes=[(64, 64, 1, 1, 1), (64, 32, 1, 1, 1)])
    a, b = rng.standard_normal((64, 192)).astype(np.float32), bf16(rng.standard_normal((192, 128)))
    yield Sample("matmul_turned", (2,), 384, 2*8192 + 16, lambda: [a, emu.TensorMap(b, (64, 64), swizzle=True),
                 np.full((64, 128), np.nan, np.float32), np.int32(128), np.int32(192)],
                 "a b y N K", "y", from_bf16(bf16(a)).astype(float) @ from_bf16(b))


SAMPLES = {sample.name: sample for sample in samples()}
