"""The stand-in refuses what CUDA refuses, forgets no byte, and tells of a kernel that goes wrong where it does."""
from types import SimpleNamespace

import numpy as np
import pytest

import zfcore.gpu
from tests.standin import STREAMS, late
from tests.train.test_graph import live
from zfcore import backend, nvrtc
from zfcore.check import Expected
from zfcore.device import select
from zfcore.gpu import card
from zfcore.graph import capture
from zfcore.kernel import Kernel
from zfcore.ops.relu import relu


@pytest.fixture
def cupy(standin):
    import cupy
    return cupy


def test_cupy_sees_one_hopper_and_computes_on_it(cupy, gpu):
    assert cupy.cuda.runtime.getDeviceCount() == 1 and cupy.cuda.Device().compute_capability == "90"
    assert len(card().identity) == 16 and any(card().identity)
    assert nvrtc.architecture(90, nvrtc.architectures()) == "sm_90a" and "stand-in" in gpu.description
    assert (cupy.zeros(3, np.float32) + 1).tolist() == [1, 1, 1] and np.isnan(cupy.empty((3, 2), np.float32).get()).all()
    x = np.random.default_rng(0).standard_normal((3, 5, 7, 2), np.float32)
    np.testing.assert_array_equal(backend.to_host(relu(gpu.array(x))[0]), np.maximum(x, 0))
    numbers = cupy.arange(12).reshape(3, 4)
    assert numbers[numbers > 5].tolist() == list(range(6, 12)) and numbers.sum(axis=0).tolist() == [12, 15, 18, 21]
    assert cupy.argsort(-numbers, axis=1)[1].tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("capability", ["75", "130"])
def test_a_card_that_no_kernel_is_compiled_for_is_told_and_auto_takes_the_cpu(cupy, standin, monkeypatch, capability):
    monkeypatch.setattr(cupy.cuda, "Device", lambda number: SimpleNamespace(compute_capability=capability))
    monkeypatch.setattr(zfcore.gpu, "_architecture", zfcore.gpu._architecture.__wrapped__)        # which remembers
    with pytest.raises(Expected, match=f"device gpu: expected .* got {int(capability)/10}; .*use device cpu"):
        select("gpu")
    assert select("auto").name == "cpu"


def test_memory_is_counted_and_there_is_no_more_than_there_is(cupy, standin):
    before = live(standin)
    array = cupy.empty(100_000, np.uint8)
    assert live(standin) == before + 100_352                                    # CuPy takes multiples of 512 bytes
    run = capture(cupy, lambda x: backend.zeros((100_000,), np.uint8, like=x))
    run(np.zeros(3))
    standin.standin_memory(live(standin) + 50_000)
    try:
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            cupy.empty(100_000, np.uint8)
        with pytest.raises(MemoryError, match="smaller batches"):
            run(np.zeros(3))                                                    # which would record it
    finally:
        standin.standin_memory(0)
    del array, run
    assert live(standin) == before


@pytest.mark.parametrize("refused", [
    lambda cupy, stream, x: stream.synchronize(), lambda cupy, stream, x: x.get(),
    lambda cupy, stream, x: x.set(np.zeros(9, np.float32)), lambda cupy, stream, x: cupy.cuda.runtime.deviceSynchronize(),
    lambda cupy, stream, x: stream.wait_event(cupy.cuda.Stream.null.record())],
    ids=["to wait", "to read", "to send", "to wait for the device", "to wait for another stream"])
def test_what_cuda_refuses_while_capturing_is_refused(cupy, standin, refused):
    x, stream = cupy.zeros(9, np.float32), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x += 1
        with pytest.raises(RuntimeError):
            refused(cupy, stream, x)
        try:
            stream.end_capture()                                                # CuPy's own refusals leave the capture whole
        except cupy.cuda.runtime.CUDARuntimeError as error:
            assert "Invalidated" in str(error)
    assert not stream.is_capturing() and x.tolist() == [0]*9


def test_a_second_stream_takes_part_in_a_capture_and_must_be_joined(cupy, standin):
    x, stream, other = cupy.zeros(9, np.float32), cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    for joins in (True, False):
        with stream:
            stream.begin_capture()
            x += 1
            other.wait_event(stream.record())
            with other:
                x *= 2
            if joins:
                stream.wait_event(other.record())
                x += 3
                graph = stream.end_capture()
            else:
                with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Unjoined"):
                    stream.end_capture()
        assert not stream.is_capturing() and not other.is_capturing() and x.tolist() == [0]*9
    graph.launch(stream)
    graph.launch(stream)
    stream.synchronize()
    assert x.tolist() == [15]*9


def test_a_graph_that_touches_memory_that_is_gone_is_told(cupy, standin):
    x, stream = cupy.zeros(9, np.float32), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
        graph.launch()
        stream.synchronize()
        assert x.tolist() == [1]*9
        del x
        live(standin)
        with pytest.raises(RuntimeError, match="IllegalAddress"):
            graph.launch()


def test_a_late_stream_does_nothing_before_it_is_waited_for(cupy, standin):
    host = cupy.cuda.alloc_pinned_memory(64)
    numbers = np.frombuffer(host, np.float32, 16)
    numbers[...] = 3
    x = cupy.zeros(16, np.float32)
    with late(*STREAMS):
        x.set(numbers)
        done = cupy.cuda.get_current_stream().record()
        assert not done.done
        numbers[...] = 4                                                        # the copy has not come yet
        done.synchronize()
        assert done.done and x.tolist() == [4]*16


def test_a_kernel_that_goes_wrong_says_where(cupy, gpu, standin, tmp_path, monkeypatch):
    (tmp_path/"device").mkdir()
    (tmp_path/"wrong.cu").write_text('extern "C" __global__ void wrong(float *y, int n)\n{\n    if (threadIdx.x < 7) '
                                     '__syncthreads();\n}\n')
    from tests.executor import emu
    from tests.standin import kernels
    monkeypatch.setattr(kernels, "kernels_folder", lambda: tmp_path)
    monkeypatch.setattr(emu, "kernels_folder", lambda: tmp_path)
    from zfcore import kernel
    monkeypatch.setattr(kernel, "KERNELS", [])
    y = gpu.array(np.zeros(9, np.float32))
    with pytest.raises(RuntimeError, match="wrong.cu"):
        Kernel("wrong.cu", "wrong", "float *y, int n", block=32)(1, y, 9)
