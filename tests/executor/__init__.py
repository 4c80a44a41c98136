"""The CPU executor: the project's own .cu files on NumPy arrays, with g++ alone.

How to test a kernel with it. The operations of `zfcore.ops` launch kernels on any array that is not a plain NumPy array,
so an `ExecutorArray` is all it takes; `WAYS` are the ways in which every kernel should be run:

    from tests import executor
    pytestmark = executor.requires_executor                       # skips by name where there is no g++

    @pytest.mark.parametrize("way", executor.WAYS)
    def test_relu_forward_kernel_equals_the_reference(way):
        x = rng.standard_normal((3, 5, 7, 2)).astype(np.float32)
        with executor.settings(way):                              # or (way, seed=3), or (schedule="skewed", build="race")
            y, cache = relu(executor.array(x))
        np.testing.assert_allclose(executor.plain(y), relu_reference(x))

A wrong kernel raises `executor.KernelError`, whose message begins with file and line: races, missing barriers and waits,
accesses outside arrays or shared memory, divergent collectives, deadlocks. Kernels with cp.async, TMA or wgmma take
`executor.asynchronous()`. `zfcore.device.select("executor")` is the device for whole networks. Choose sizes that all differ
and divide no tile; uninitialised and shared memory is NaN, so a forgotten element shows."""
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.executor import emu
from tests.executor.emu import KernelError, Settings
from zfcore import backend
from zfcore.cubin import kernels_folder
from zfcore.device import DEVICES
from zfcore.kernel import CTYPES, EACH, TensorMap

requires_executor = pytest.mark.skipif(emu.GXX is None, reason="the CPU executor needs g++")

WAYS = {
    "forward": Settings("forward"),
    "reverse": Settings("reverse", copies="eager", wgmma="eager"),
    "random": Settings("random"),
    "skewed": Settings("skewed", copies="eager"),
    "race": Settings("forward", build="race"),
    "bounds": Settings("forward", build="bounds"),
}
ASYNC_WAYS = {**WAYS, **{
    f"{schedule}-{copies}-copies-{wgmma}-wgmma": Settings(schedule, 1, copies, wgmma)
    for schedule in emu.SCHEDULES for copies, wgmma in (("lazy", "lazy"), ("eager", "lazy"), ("eager", "eager"))}}


def asynchronous(wgmma=False):
    """Parametrizes `way` by ASYNC_WAYS. With --all alone: those that differ from another in the seed, or, where a kernel has no
    `wgmma`, in when that takes effect."""
    rows, seen = [], set()
    for name, way in ASYNC_WAYS.items():
        does = way.schedule, way.build, way.copies, way.wgmma if wgmma else ""
        rows.append(pytest.param(name, marks=[pytest.mark.exhaustive] if does in seen else []))
        seen.add(does)
    return pytest.mark.parametrize("way", rows)


_current, _traffic = Settings(), []


@contextmanager
def settings(way="forward", **changes):
    """Every launch inside runs in the way of that name, with `changes` to its `Settings`. Yields the list that launches
    with report=True add their `Traffic` to."""
    global _current, _traffic
    before = _current, _traffic
    _current, _traffic = replace(ASYNC_WAYS[way], **changes), []
    try:
        yield _traffic
    finally:
        _current, _traffic = before


class ExecutorArray(np.ndarray):
    """A NumPy array whose class says: run kernels on me, in the executor. Views and `empty_like` keep the class."""


def array(host):
    """A C-contiguous copy of `host` as an ExecutorArray."""
    return np.array(host, order="C").view(ExecutorArray)


def plain(x):
    """`x` as a plain NumPy array."""
    return np.asarray(x)


def library(kernel, build="plain"):
    """The compiled form of a `zfcore.kernel.Kernel`, its declared signature held against the source's."""
    path = kernels_folder()/kernel.file
    compiled = emu.compile(path.read_text(), f"kernels/{kernel.file}", kernel.name, tuple(kernel.defines.items()), build)
    names = {np.dtype(dtype): ctype for ctype, dtype in CTYPES.items()}
    declared = [f"struct:{EACH*(8 if a.pointer else a.dtype.itemsize)}" if a.each else
                f"struct:{a.dtype.itemsize}" if a.dtype.names or a.is_map else
                ("const " if a.const else "") + names[a.dtype] + (" *" if a.pointer else "") for a in kernel.arguments]
    if declared != compiled.types.split(", "):
        raise KernelError(f"{path.name}: {kernel.name} takes ({compiled.types}), "
                          f"but is declared ({', '.join(declared)})")
    return compiled


def launch(kernel, grid, values):
    """The launcher that a `zfcore.kernel.Kernel` calls for ExecutorArrays."""
    values = [emu.TensorMap(value.array, value.box[::-1], swizzle=True) if isinstance(value, TensorMap) else value
              for value in values]
    _traffic.extend(library(kernel, _current.build).launch(
        grid, kernel.block, kernel.shared, values, [a.name for a in kernel.arguments],
        {a.name for a in kernel.arguments if a.pointer and not a.const}, _current))


backend.LAUNCHERS[ExecutorArray] = launch
def capture(work, beyond):
    """`work` for arrays of which some are on the host still."""
    return lambda *arrays: work(*(value if isinstance(value, (ExecutorArray, tuple)) else array(value) for value in arrays))


DEVICES["executor"] = lambda: backend.Device("executor", "CUDA kernels on NumPy arrays, through g++", array, capture=capture)
