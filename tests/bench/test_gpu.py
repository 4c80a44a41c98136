"""bench on a GPU, as far as a machine without one can tell: the check that precedes a time, in the CPU executor; what is
done with times, with a clock that is told; the report."""
import contextlib
import json
import math
import types
from dataclasses import asdict, replace

import numpy as np
import pytest

from bench import gpu, peers
from bench.__main__ import main
from bench.cases import Case, Source, cases
from bench.gpu import (FMA, MMA, MMA_FLOPS, READ, READ_TILES, WGMMA, WGMMA_BYTES, WGMMA_FLOPS, allowed, checked, error, floor,
                       measured, recorded, sets_needed, shown, truth)
from bench.timing import MOST, Clock, Contestant, microseconds, prepared, ratio, take_turns
from tests import executor
from tests.executor import emu
from zfcore import backend
from zfcore.check import Expected
from zfcore.cubin import in_one_piece
from zfcore.device import select
from zfcore.kernel import PRECISIONS, Kernel, _parse
from zfcore.ops import tuned, tuning
from zfcore.models.zfnet import zfnet
from zfcore.ops.convert import from_bf16
from zfcore.ops.relu import relu

N = 6
CEILINGS = {"copy_gb_s": 4000.0, "l2_gb_s": 6000.0, "fma_tflop_s": 60.0, "matmul_tflop_s": 50.0, "tf32_tflop_s": 300.0,
            "bf16_tflop_s": 600.0}
SMALL = cases(zfnet(classes=7, size=34, maps=(4, 8, 8, 8, 4), units=(12, 8)))


# ---------------------------------------------------------------------------------------------------------- the check
@executor.requires_executor
@pytest.mark.parametrize("case", SMALL, ids=[case.name for case in SMALL])
def test_the_check_passes_every_case_in_the_executor(case):
    arrays = case.draw(Source(executor.array), N)
    kept = [np.array(a) for a in arrays]
    wanted, chosen = truth(case, arrays, N)
    outputs, tape = checked(case, arrays)
    assert error(shown(case, outputs, chosen), wanted) <= allowed(case, N)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept)), "the inputs are what was drawn"
    assert tape


WIDE = [case for case in cases(zfnet(classes=40, size=34, maps=(4, 8, 32, 40, 4), units=(32, 40))) if case.wgmma]


@executor.requires_executor
@pytest.mark.parametrize("case", WIDE, ids=[case.name for case in WIDE])
def test_rows_by_wgmma_launch_what_training_does_on_a_hopper_gpu_and_pass_the_check(case, monkeypatch):
    monkeypatch.setitem(backend.ARCHITECTURES, executor.ExecutorArray, lambda: "sm_90a")
    arrays = case.draw(Source(executor.array), N)
    wanted, chosen = truth(case, arrays, N)
    outputs, tape = checked(case, arrays)
    assert error(shown(case, outputs, chosen), wanted) <= allowed(case, N)
    assert any(kernel.arch for kernel, _, _ in tape)


FORGETFUL = """extern "C" __global__ void f(const float *x, float *y, int total)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total && i != 17) y[i] = 2 * x[i];
}"""


@executor.requires_executor
def test_the_check_finds_an_output_that_no_thread_writes(monkeypatch):
    kernel = object.__new__(Kernel)                        # undeclared: not one of the project's
    for name, value in dict(file="f.cu", name="f", signature="", defines={}, block=32, shared=0,
                            arguments=_parse("const float *x, float *y, int total")).items():
        object.__setattr__(kernel, name, value)

    def launch(kernel, grid, values):
        emu.compile(FORGETFUL, "f.cu", "f").launch(grid, 32, 0, values, ["x", "y", "total"], {"y"}, executor.Settings())

    monkeypatch.setitem(backend.LAUNCHERS, executor.ExecutorArray, launch)
    stale = []                                             # memory that already holds what is right, as a pool hands it out

    def run(x):
        if not backend.runs_kernels(x):
            return 2*x,
        y = executor.array(2*executor.plain(x))
        kernel(2, x, y, y.size)
        stale.append(y.copy())
        return y,

    case = Case("f", "f", "forward", None, run, None)
    arrays = executor.array(np.arange(40, dtype=np.float32)),
    outputs, _ = checked(case, arrays)
    wanted, _ = truth(case, arrays, N)
    assert error(stale, wanted) == 0 and error(outputs, wanted) == math.inf


def test_error_is_relative_and_infinite_where_nothing_can_be_said():
    truth = np.array([3.0, 4.0])
    assert error([np.array([3, 4.5], np.float32)], [truth]) == pytest.approx(0.1)
    assert error([truth, np.array([1, 2], np.uint8)], [truth, np.array([1, 2], np.uint8)]) == 0
    for wrong in ([np.array([3, np.nan])], [np.array([3.0, 4.0, 5.0])]):
        assert error(wrong, [truth]) == math.inf
    assert error([np.array([1, 3], np.uint8)], [np.array([1, 2], np.uint8)]) == math.inf
    assert error([2.0], [1.0]) == 1 and error([np.zeros(3)], [np.zeros(3)]) == 0
    with pytest.raises(ValueError):
        error([], [truth])


def test_tf32_would_be_seen_in_a_convolution_of_zfnet():
    of = {case.precision: allowed(case, 128) for case in cases() if (case.layer, case.what) == ("conv5", "forward")}
    assert 1e-6 < of["fp32"] < of["fp32x3"] < 1e-4          # TF32 errs by 3e-4, bfloat16 by 2e-3
    assert 3e-4 < of["tf32"] < 2e-3 < of["bf16"] < 1e-2


@executor.requires_executor
def test_a_tape_holds_the_launches_and_the_launcher_is_put_back_after_an_error():
    launch = backend.LAUNCHERS[executor.ExecutorArray]
    x = executor.array(np.ones(8, np.float32))
    _, tape = recorded(lambda x: relu(x), [x])
    assert [kernel.name for kernel, _, _ in tape] == ["relu_forward"] and tape[0][2][0] is x
    with pytest.raises(ZeroDivisionError):
        recorded(lambda x: 1/0, [x])
    assert backend.LAUNCHERS[executor.ExecutorArray] is launch


# ---------------------------------------------------------------------------------------------------------- the times
class ToldClock:
    """A run is told to last what the last of `LASTS` that it called says."""

    def __init__(self):
        self.graphs, self.now = [], 0.0

    def wait(self):
        pass

    def seconds(self, run):
        before = self.now
        run()
        return self.now - before

    def captured(self, once, passes):
        self.graphs.append(passes)
        return lambda: [once() for _ in range(passes)]

    def lasting(self, name, seconds, sets=1, captured=True):
        def once():
            self.now += sets*seconds
        return Contestant(name, once, sets, None, self.captured if captured else None)


def test_short_operations_are_repeated_until_they_last_two_milliseconds():
    clock = ToldClock()
    for seconds, sets, operations in ((5e-6, 1, 400), (1e-6, 10, 2000), (1.5e-3, 1, 2), (3e-3, 2, 2),
                                      (1e-9, 64, 64*(MOST//64))):
        run, count = prepared(clock, clock.lasting("f", seconds, sets))
        assert count == pytest.approx(operations, abs=sets)
        assert clock.seconds(run) == pytest.approx(count*seconds)
    _, count = prepared(clock, clock.lasting("f", 1e-4, captured=False))
    assert 20 <= count <= 21 and len(clock.graphs) == 5


def test_contestants_take_turns_after_a_round_that_warms_up():
    order, lasts = [], {"a": iter([9, 2, 4, 6]), "b": iter([9, 30, 20, 10])}

    def seconds(run):
        return float(next(lasts[run()]))

    def contestant(name):
        return (lambda: order.append(name) or name), 2

    times = take_turns(seconds, {"a": contestant("a"), "b": contestant("b")}, rounds=3, patience=1000)
    assert order == ["a", "b"]*4
    assert times == {"a": [1, 2, 3], "b": [15, 10, 5]}
    assert microseconds(times["a"]) == {"us": 2e6, "spread": [1e6, 3e6]}
    assert ratio(times["b"], times["a"]) == {"ratio": 5, "ratio_spread": [5/3, 15]}


def test_long_operations_are_timed_three_times_at_least_and_no_more_than_patience_allows():
    times = take_turns(lambda run: 1.0, {"slow": (None, 1)}, rounds=20, patience=2.0)
    assert len(times["slow"]) == 3
    assert len(take_turns(lambda run: 0.01, {"fast": (None, 1)}, rounds=20, patience=2.0)["fast"]) == 20


def test_floor_is_the_longer_of_moving_and_multiplying():
    conv1, pool1 = (next(case for case in cases() if case.name == name) for name in ("conv1 forward", "relu1 forward"))
    found = floor(conv1.traffic(128), conv1.flops(128), 4.3e12, 60e12)
    assert found["bound"] == "math" and found["floor_us"] == pytest.approx(728.6, abs=0.1)
    found = floor(pool1.traffic(128), pool1.flops(128), 4.3e12, 60e12)
    assert found["bound"] == "memory" and found["floor_us"] == pytest.approx(277, abs=0.5)


def test_sets_of_arrays_exceed_the_cache_twice():
    assert [sets_needed(nbytes, 60*10**6) for nbytes in (672*10**6, 59*10**6, 4*10**6, 1000)] == [1, 3, 30, gpu.SETS]


# ------------------------------------------------------------------------------------------- a row, and what fails in it
@pytest.fixture
def on_executor(monkeypatch):
    """measured() of the small pool, in the executor, with these peers."""
    clock = ToldClock()
    case = next(case for case in SMALL if case.name == "pool1 forward")
    report = {"ceilings": CEILINGS, "l2_bytes": 1000}
    device, args = select("executor"), types.SimpleNamespace(batch_size=N, rounds=3)

    def row(found, change=lambda case: case):
        monkeypatch.setattr(peers, "peers", lambda case: found)
        monkeypatch.setattr(gpu, "ours", lambda case, sets, clock: clock.lasting("ours", 2e-6))
        return measured(change(case), device, clock, report, args)

    row.clock = clock
    row.outputs = lambda: [executor.plain(a) for a in case.run(*case.draw(Source(executor.array), N))]
    return row


@executor.requires_executor
def test_a_row_tells_times_errors_floor_and_the_best_peer(on_executor):
    def peer(name, seconds, output, **more):
        return name, lambda sets, clock: types.SimpleNamespace(**{**vars(clock.lasting(name, seconds)), "output": output, **more})

    off = lambda: [on_executor.outputs()[0]*1.2]
    row = on_executor([peer("slow", 6e-6, lambda: on_executor.outputs()[:1]), peer("fast", 3e-6, lambda: None),
                       peer("wrong", 1e-6, off), ("absent", lambda sets, clock: 1/0),
                       peer("not captured", 1e-6, lambda: None, capture=lambda once, passes: 1/0)])
    assert row["us"] == pytest.approx(2) and row["spread"] == pytest.approx([2, 2])
    assert [kernel.split()[:2] for kernel in row["kernels"]] == [["maxpool.cu", "maxpool_forward"]] and row["bound"] == "memory" and row["error"] == 0
    assert row["share_of_floor"] == pytest.approx(row["bytes"]/4e12/2e-6)
    assert row["best_peer"] == "fast" and row["ratio"] == pytest.approx(1.5)
    assert row["peers"]["slow"] == {"error": 0, "us": pytest.approx(6), "spread": pytest.approx([6, 6])}
    assert "computes something else" in row["peers"]["wrong"]["failed"] and "us" not in row["peers"]["wrong"]
    assert row["peers"]["absent"] == row["peers"]["not captured"] == {"failed": "ZeroDivisionError: division by zero"}
    json.dumps(row, allow_nan=False)


@executor.requires_executor
def test_without_peers_the_ratio_stays_empty(on_executor):
    row = on_executor([])
    assert row["peers"] == {} and "ratio" not in row and row["us"] > 0


@executor.requires_executor
def test_a_wrong_kernel_is_not_timed(on_executor):
    def doubled(case):
        return Case(**{**vars(case), "run": lambda x: tuple(
            2*part if backend.runs_kernels(x) and part.dtype == np.float32 else part for part in case.run(x))})

    with pytest.raises(AssertionError, match="relative error 1.0e[+]00, rounding explains"):
        on_executor([], doubled)


def test_a_failed_case_is_reported_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    """The whole of main, with a device that is told."""
    about = {"device": "NVIDIA Test 9000", "capability": "89", "multiprocessors": 2, "l2_bytes": 1, "driver": None,
             "cuda": "13.0", "cupy": "14",
             "pytorch": None, "cudnn": None, "date": "2026-01-02T03:04:05+00:00", "cases": [], "steps": []}

    in_force, choices = [], tuned.Choices({"a question": "a kernel"})
    monkeypatch.setattr(tuned, "current", tuned.Choices())

    def told(case, *_):
        in_force.append(tuning.current)
        if case.name == "conv2 forward":
            raise RuntimeError("bad\nluck")
        return {"us": 10.0, "share_of_floor": 0.5, "error": 1e-7, "peers": {"P": {"us": 20.0}}, "best_peer": "P", "ratio": 2.0}

    monkeypatch.setattr(gpu, "select", lambda name: tuned.use(choices))
    monkeypatch.setattr(gpu, "find_cupy", lambda: None)
    monkeypatch.setattr(gpu, "Clock", lambda cupy: None)
    monkeypatch.setattr(gpu, "about", lambda cupy, args: about)
    monkeypatch.setattr(gpu, "ceilings", lambda *_: CEILINGS)
    monkeypatch.setattr(gpu, "measured", told)
    monkeypatch.setattr(gpu, "still_alive", lambda clock: True)
    monkeypatch.setattr(peers, "strict_fp32", lambda: None)
    args = types.SimpleNamespace(output=tmp_path, only="conv", batch_size=128, rounds=1, tune=False, precisions=PRECISIONS)
    row = {"precision": "bf16", "contestants": {"ours": {"failed": "bad luck"}, "PyTorch eager": {"failed": "worse"}}}
    steps = types.SimpleNamespace(measured=lambda *_: [row], lines=lambda row: ["a step in bf16"])
    assert gpu.main(args, steps) == ["conv2 forward"]            # --only conv
    args.only = ""
    about["cases"] = []
    assert gpu.main(args, steps) == ["ours bf16", "conv2 forward"] and "a step in bf16" in capsys.readouterr().out
    about["cases"], args.only = [], "conv"
    assert gpu.main(args) == ["ours bf16", "conv2 forward"]
    report = json.loads((tmp_path/"nvidia-test-9000-2026-01-02.json").read_text())
    rows = {row["name"]: row for row in report["cases"]}
    assert rows["conv2 forward"]["failed"] == "RuntimeError: bad" and rows["conv5 forward"]["us"] == 10
    assert not any("by wgmma" in name for name in rows), "which capability 8.9 has not"
    assert "pool1 forward" not in rows and not list(tmp_path.glob("*.part"))
    printed = capsys.readouterr().out
    assert "conv2 forward" in printed and report["tuning"] == asdict(tuning.Tuning())
    assert "; before that counts a table of this card, of 1 choice" in printed and report["choices"] == {"a question": "a kernel"}
    about["cases"], args.tune = [], True
    gpu.main(args)
    assert in_force[-1] == replace(tuning.Tuning(), multiprocessors=2, fma_tflop_s=60.0, tf32_tflop_s=300.0, bf16_tflop_s=600.0,
                                   copy_gb_s=4000.0, l2_gb_s=6000.0) != in_force[0]
    assert about["tuning"] == asdict(in_force[-1]) and tuning.current == tuning.Tuning()
    about["cases"], args.only, args.output, args.precisions = [], "ceilings", tmp_path/"ceilings", ["bf16"]
    assert gpu.main(args, steps) == ["ours bf16"]
    report = json.loads((tmp_path/"ceilings"/"nvidia-test-9000-2026-01-02.json").read_text())
    assert report["ceilings"] == CEILINGS and not report["cases"], "what the device can do is kept before a case is measured"
    args.only = " conv2 "
    gpu.main(args)
    assert {case["precision"] for case in about["cases"]} == {"bf16"} and all(row["name"].startswith("conv2 ")
                                                                              for row in about["cases"])
    args.only, args.precisions = "conv", PRECISIONS
    monkeypatch.setattr(gpu, "still_alive", lambda clock: False)
    about["cases"], args.output = [], None
    monkeypatch.setattr(gpu, "RESULTS", tmp_path/"results")
    gpu.main(args)
    assert not (tmp_path/"results").exists(), "a part of the cases leaves the file of all alone"
    assert len(about["cases"]) == 1 and "no longer answers" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------- the machine, the door
class ToldStream:
    def __init__(self, cupy):
        self.cupy = cupy

    def __enter__(self):
        self.cupy.current = self

    def __exit__(self, *_):
        self.cupy.current = None

    def begin_capture(self):
        self.cupy.did.append("begin")

    def end_capture(self):
        self.cupy.did.append("end")
        note = lambda what: lambda: self.cupy.did.append((what, self.cupy.current is self))
        return types.SimpleNamespace(upload=note("upload"), launch=note("launch"))


class ToldCupy:
    """As much of CuPy as the clock and the ceilings use; an event reads 5 ms more than the one before."""

    def __init__(self):
        self.did, self.current, self.now = [], None, 0
        self.cuda = types.SimpleNamespace(
            Stream=lambda non_blocking: ToldStream(self), Event=self.event,
            Device=lambda: types.SimpleNamespace(synchronize=int), get_elapsed_time=lambda first, last: last.at - first.at)
        for name in ("empty", "empty_like", "isfinite", "matmul", "asarray"):
            setattr(self, name, getattr(np, name))
        self.empty = np.zeros              # neither `zeros` nor `full`: what is copied and read is not all the same

    def event(self):
        event = types.SimpleNamespace(synchronize=lambda: self.did.append("waited"))

        def record():
            assert self.current is not None
            self.now += 5
            event.at = self.now
        event.record = record
        return event

    def resize(self, numbers, size):
        copy = lambda source, nbytes: self.did.append("copy")
        return types.SimpleNamespace(nbytes=numbers.itemsize*size, data=types.SimpleNamespace(copy_from_device_async=copy))

    def RawModule(self, code, options=()):
        asked = [(FMA,), (READ,), (MMA, "-DPRODUCT=mma_tf32"), (MMA, "-DPRODUCT=mma_bf16"), (WGMMA, "-arch=sm_90a")]
        assert (code, *options) in [(in_one_piece(source), *more) for source, *more in asked]
        return types.SimpleNamespace(get_function=lambda name: lambda grid, block, values, shared_mem=0: self.did.append((name, grid, block)))


def test_the_clock_captures_and_replays_on_its_own_stream():
    cupy = ToldCupy()
    clock = Clock(cupy)
    run = clock.captured(lambda: cupy.did.append("once"), 3)
    assert cupy.did == ["begin", "once", "once", "once", "end", ("upload", True)]
    assert clock.seconds(run) == pytest.approx(0.005)
    assert cupy.did[-2:] == [("launch", True), "waited"] and cupy.current is None


def test_what_breaks_a_capture_is_told_and_not_what_cuda_says_of_it(monkeypatch):
    def refuse(stream):
        stream.cupy.did.append("end")
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    cupy = ToldCupy()
    monkeypatch.setattr(ToldStream, "end_capture", refuse)
    with pytest.raises(ZeroDivisionError):
        Clock(cupy).captured(lambda: 1/0, 3)
    assert cupy.did == ["begin", "end"] and cupy.current is None, "the stream records no longer"
    with pytest.raises(RuntimeError, match="Invalidated"):
        Clock(cupy).captured(lambda: None, 3)


def test_ceilings_are_bytes_and_flops_over_the_time_of_the_clock(monkeypatch):
    cupy = ToldCupy()
    monkeypatch.setattr(gpu.Source, "normal", lambda self, *shape: np.zeros((2, 2), np.float32))
    assert "wgmma_tflop_s" not in gpu.ceilings(Clock(cupy), 132, hopper=False)
    cupy.did.clear()
    found = gpu.ceilings(Clock(cupy), 132, hopper=True)
    assert found["copy_gb_s"] == pytest.approx(4*2*2**30/0.005/1e9) and cupy.did.count("copy") == 4*12
    assert ("fma_rate", (1056,), (256,)) in cupy.did
    assert found["fma_tflop_s"] == pytest.approx(2*16*2**14*1056*256/0.005/1e12)
    assert found["l2_gb_s"] == pytest.approx(16*256*1056*2**12/0.005/1e9) and cupy.did.count(("read_rate", (1056,),
                                                                                              (256,))) == 12
    assert found["matmul_tflop_s"] == pytest.approx(2*8192**3/0.005/1e12)
    assert cupy.did.count(("mma_rate", (1056,), (256,))) == 2*12
    assert found["wgmma_tflop_s"] == pytest.approx(2*128*256*64*2**14*132/0.005/1e12) and cupy.did.count(("wgmma_rate", (132,), (256,))) == 12
    assert found["bf16_tflop_s"] == 2*found["tf32_tflop_s"] == pytest.approx(2*16*8*16*8*2**14*1056*8/0.005/1e12)


def test_three_products_in_tf32_make_one_in_fp32x3():
    of = {case.name: gpu.of_products(CEILINGS | {"wgmma_tflop_s": 700}, case) for case in cases()
          if (case.layer, case.what) == ("conv2", "forward")}
    assert of == {"conv2 forward": 60, "conv2 forward, fp32x3": 100, "conv2 forward, tf32": 300, "conv2 forward, bf16": 600,
                  "conv2 forward, bf16 by wgmma": 700}


def test_cupy_has_what_the_clock_and_the_report_ask_for():
    cupy = pytest.importorskip("cupy")
    for owner, names in {cupy.cuda.Stream: "begin_capture end_capture", cupy.cuda.Graph: "launch upload",
                         cupy.cuda.Event: "record synchronize", cupy.cuda.MemoryPointer: "copy_from_device_async",
                         cupy.cuda: "get_elapsed_time Device", cupy.cuda.Device: "compute_capability synchronize",
                         cupy.cuda.runtime: "runtimeGetVersion getDeviceProperties",
                         cupy.RawModule: "get_function", cupy.ndarray: "fill copy __dlpack__ transpose",
                         cupy: "resize empty empty_like isfinite matmul asarray pad ascontiguousarray",
                         cupy.get_default_memory_pool(): "free_all_blocks"}.items():
        assert all(hasattr(owner, name) for name in names.split()), owner


OF_WORD, ALIKE = "return 0x3f803f80u | (k * 2654435761u & 0x807f807fu);", "return 0x3f803f80u;"


def rate(code, kernel, steps, shared=0, macros=(), threads=256):
    """What the kernel that measures a rate writes, from a block of so many threads."""
    y = np.zeros(threads, np.float32)
    emu.compile(code, f"{kernel}.cu", kernel, macros).launch((1,), threads, shared, [y, np.int32(steps)], ["y", "steps"], {"y"},
                                                             executor.Settings())
    return y


@executor.requires_executor
def test_the_kernel_that_measures_the_rate_computes_its_chains():
    thread = np.arange(256)
    a, b = 1.618034*(thread[:, None] + 1) + 0.7320508*np.arange(16), 0.7 + 0.001*thread[:, None]
    for factor in 2*[b, -1/b] + [b, -1/b]:
        a = a*factor + 0.3
    np.testing.assert_allclose(rate(FMA, "fma_rate", 6), a.sum(1), rtol=2e-6)


@executor.requires_executor
def test_the_kernel_that_measures_the_rate_of_tensor_cores_multiplies_two_tiles_by_four():
    steps, lane = 3, np.arange(32)
    words = np.uint32(0x3f803f80) | (16*lane[:, None] + np.arange(16)).astype(np.uint32)*np.uint32(2654435761) & np.uint32(0x807f807f)
    numbers = from_bf16(words.view(np.uint16)).astype(np.float64).reshape(32, 16, 2)          # of a lane: words, both of each
    a, b, row, pair = np.zeros((2, 16, 16)), np.zeros((4, 16, 8)), lane//4, 2*(lane % 4)      # as kernels/device/ptx.cuh says
    for r, high in np.ndindex(4, 2):
        a[:, row + 8*(r % 2), pair + 8*(r//2) + high] = numbers[:, [r, 4 + r], high].T
    for r, high in np.ndindex(2, 2):
        b[:, pair + 8*r + high, row] = numbers[:, 8 + 2*np.arange(4) + r, high].T
    d = (a[:, None] @ b).sum((0, 1))
    of_lane = d[row, pair] + d[row, pair + 1] + d[row + 8, pair] + d[row + 8, pair + 1]
    np.testing.assert_allclose(rate(MMA, "mma_rate", steps, 0, (("PRODUCT", "mma_bf16"),), 32), sum(range(32)) + steps*of_lane, atol=1e-3)


# The code, its kernel, its shared memory, its macros.
RATES = {"fma": (FMA, "fma_rate"), "wgmma": (WGMMA, "wgmma_rate", WGMMA_BYTES),
         **{name: (MMA, "mma_rate", 0, (("PRODUCT", f"mma_{name}"),)) for name in MMA_FLOPS}}


@executor.requires_executor
@pytest.mark.parametrize("name", RATES)
def test_kernels_that_measure_rates_multiply_numbers_that_differ_and_their_sums_change_and_stay_finite(name):
    before, after, later = (rate(*RATES[name][:2], steps, *RATES[name][2:]) for steps in (2, 4, 6))
    for y in before, after, later:
        assert len(np.unique(y)) > len(y)*9/10, "what a thread adds up is not what the others do"
    assert (before != after).all() and (after != later).all()
    if name == "fma":
        long = rate(FMA, "fma_rate", 2**14)
        np.testing.assert_allclose(long, rate(FMA, "fma_rate", 0), rtol=0.01)
    else:
        np.testing.assert_allclose(later - after, after - before, atol=0.05)    # the same products in each step
        assert (np.abs(after - before)/2*2**14 < 2**27).all()


@executor.requires_executor
@pytest.mark.parametrize("name", MMA_FLOPS)
def test_the_kernel_that_measures_the_rate_of_tensor_cores_forms_as_many_products_as_it_says(name):
    steps = 3
    y = rate(MMA.replace(OF_WORD, ALIKE), "mma_rate", steps, 0, (("PRODUCT", f"mma_{name}"),), threads=32)
    one = 1 if name == "bf16" else np.uint32(0x3f802000).view(np.float32)**2            # the words as numbers of that type
    products = MMA_FLOPS[name]/2/(16*8)*one                # that are added to each number of d in a step
    np.testing.assert_allclose(y, sum(range(32)) + 32*steps*products, rtol=1e-6)


@executor.requires_executor
def test_the_kernel_that_measures_the_rate_of_wgmma_forms_as_many_products_as_it_says():
    steps = 3
    y = rate(WGMMA.replace(OF_WORD, ALIKE), "wgmma_rate", steps, WGMMA_BYTES)
    # of ones, that are added to each of the 128 sums of a thread in a step
    products = WGMMA_FLOPS/2/(256*128)
    np.testing.assert_array_equal(y, sum(range(128)) + 128*steps*products)


@executor.requires_executor
def test_the_kernel_that_measures_the_l2_cache_reads_one_tile_after_the_other():
    x, y, tiles, steps, blocks = np.arange(11*1024, dtype=np.float32), np.zeros(3*256, np.float32), 11, 14, 3
    emu.compile(READ, "read.cu", "read_rate").launch((blocks,), 256, 0, [y, x, np.int32(tiles), np.int32(steps)],
                                                     ["y", "x", "tiles", "steps"], {"y"}, executor.Settings())
    # steps - 8 is 6: place 6 of 8
    last = np.array([[(block*7 + i) % tiles for i in range(steps - 8, steps)] for block in range(blocks)])
    wanted = sum(1024.0*last[:, k, None] + 4*np.arange(256) + (steps - 8 + k) % 8 % 4 for k in range(8))
    np.testing.assert_array_equal(y, wanted.ravel())
    assert 4*1024*READ_TILES < 25e6, "half of the cache of a H100 or H200 holds it"


def test_what_cupy_compiles_changes_with_the_header_that_its_cache_does_not_look_at(tmp_path, monkeypatch):
    (tmp_path/"device").mkdir()
    monkeypatch.setattr("zfcore.cubin.kernels_folder", lambda: tmp_path)
    texts = []
    for header in "#pragma once\nint one;\n", "#pragma once\nint two;\n":
        (tmp_path/"device"/"ptx.cuh").write_text(header)
        texts.append([in_one_piece(code) for code in (FMA, MMA, WGMMA, READ)])
    assert [one == two for one, two in zip(*texts)] == [True, False, False, False]
    assert not any("#include" in text or "pragma once" in text for text in texts[0])


def test_kernels_that_measure_rates_keep_their_sums_in_registers():
    from zfcore import nvrtc
    try:
        for code, *macros in (FMA,), (WGMMA,), (MMA, "-DPRODUCT=mma_bf16"), (READ,):
            _, log = nvrtc.compile(in_one_piece(code), "rate.cu", ("-arch=sm_90a", "-std=c++20", "--ptxas-options=-v", *macros), {})
            assert "0 bytes stack frame, 0 bytes spill stores" in log
    except Expected as none:
        pytest.skip(str(none))


def test_a_machine_without_a_gpu_gets_one_sentence_and_status_2(monkeypatch, capsys):
    with contextlib.suppress(Expected):
        select("gpu")
        pytest.skip("there is a GPU")
    monkeypatch.setattr("sys.argv", ["python -m bench"])
    with pytest.raises(SystemExit) as leave:
        main()
    out, err = capsys.readouterr()
    assert leave.value.code == 2 and out == ""
    assert err.startswith("error: python -m bench: expected a GPU, got none (") and "`python -m bench cpu`" in err
    assert err.count("\n") == 1
