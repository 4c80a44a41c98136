"""From a declaration to a launch: what is checked on the way, which machine code is made and kept, what CuPy is told.

CuPy is played by a stand-in that writes down what it is asked, so that this runs without a GPU; the compiler is the real
one. With a GPU, every test of this folder goes the whole way."""
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tests import executor
from tests.kernels.conftest import normal
from tests.kernels.test_nvrtc import needs_nvrtc
from zfcore import backend, cubin, gpu, kernel, nvrtc
from zfcore.check import Expected
from zfcore.cubin import cached_cubin
from zfcore.device import select
from zfcore.gpu import find_cupy
from zfcore.kernel import KERNELS, Kernel, lanes
from zfcore.nvrtc import architecture
from zfcore.ops import conv2d_kernels, local_response_norm, maxpool, relu

FORWARD = relu.FORWARD
ROW = executor.array(np.zeros(8, np.float32))


# ------------------------------------------------------------------------------------------------- arguments
@pytest.mark.parametrize("values, sentence", [
    ((ROW, ROW), r"relu_forward: expected 3 arguments, got 2"),
    ((ROW, ROW.astype(np.float64), 8), r"relu_forward\(y\): expected float32, got float64"),
    ((ROW, ROW[::2], 4), r"relu_forward\(y\): expected a C-contiguous array, got a strided view of shape \(4,\); copy it"),
    ((ROW, np.zeros(8, np.float32), 8), r"relu_forward\(y\): expected an array of class ExecutorArray.*got ndarray"),
    ((np.zeros(8, np.float32), ROW, 8), r"relu_forward: expected arrays on a device, got ndarray"),
    ((ROW, 5, 8), r"relu_forward\(y\): expected an array of class ExecutorArray.*got int"),
    ((ROW, ROW, ROW), r"relu_forward\(total\): expected a number \(int64\), got ExecutorArray"),
    ((ROW, ROW, 2**63), r"relu_forward\(total\): expected a whole number that fits int64, got 9223372036854775808"),
    ((ROW, ROW, 1.5), r"relu_forward\(total\): expected a whole number that fits int64, got 1.5"),
])
def test_a_wrong_argument_is_told_in_one_sentence(values, sentence):
    with pytest.raises(Expected, match=sentence):
        FORWARD(1, *values)


def test_a_number_that_32_bits_cannot_hold_is_refused():
    with pytest.raises(Expected, match=r"norm_forward\(C\): expected a whole number that fits int32, got 2147483648"):
        local_response_norm.FORWARD(1, ROW, ROW, 1, 2**31, 1, 1.0, 1.0)


@pytest.mark.parametrize("conv, sentence", [
    ((3, 5), r"conv2d_plain\(conv\): expected 11 numbers \(C, H, W, N, F, K, S, P, Ho, Wo, groups\), got \(3, 5\)"),
    (7, r"conv2d_plain\(conv\): expected 11 numbers .*, got 7"),
    (conv2d_kernels.Conv(1, 1, 1, 2**31, *[1]*7), r"conv2d_plain\(conv\).N: expected a whole number that fits int32, got "
                                                  r"2147483648"),
    (conv2d_kernels.Conv(1, 1, 1, 1, 1, ROW, *[1]*5),
     r"conv2d_plain\(conv\).K: expected a number \(int32\), got ExecutorArray")])
def test_a_wrong_struct_is_told_by_its_field(conv, sentence):
    with pytest.raises(Expected, match=sentence):
        conv2d_kernels.PLAIN(1, ROW, ROW, ROW, ROW, conv, False, False)


def test_a_grid_beyond_the_hardwares_is_refused():
    with pytest.raises(Expected, match="relu_forward: expected at most .* blocks"):
        FORWARD((1, 65536), ROW, ROW, 8)


def test_python_numbers_reach_the_kernel_in_the_declared_width(monkeypatch):
    seen = []
    monkeypatch.setitem(backend.LAUNCHERS, executor.ExecutorArray, lambda kernel, grid, values: seen.extend(values))
    local_response_norm.FORWARD(1, ROW, ROW, 8, 1, True, 0.1, np.float64(2))
    assert [type(value) for value in seen[2:]] == [np.int64, np.int32, np.int32, np.float32, np.float32]


def test_nothing_is_launched_on_an_empty_array(monkeypatch):
    monkeypatch.setitem(backend.LAUNCHERS, executor.ExecutorArray, lambda *_: pytest.fail("launched"))
    y, _ = relu.relu(executor.array(np.zeros((3, 0, 5), np.float32)))
    assert y.shape == (3, 0, 5)


def test_float64_is_for_numpy_alone():
    with pytest.raises(Expected, match=r"relu_forward\(x\): expected float32, got float64"):
        relu.relu(executor.array(np.zeros(8)))


def test_a_variant_is_made_once_keeps_the_rest_and_is_no_declaration():
    declared = len(KERNELS)
    other = maxpool.FORWARD.variant(WINDOW=5)
    assert other.defines == {"WINDOW": 5, "STRIDE": 2, "LANES": 4} and other.arguments == maxpool.FORWARD.arguments
    assert other is maxpool.FORWARD.variant(WINDOW=5) and maxpool.FORWARD.variant(WINDOW=3) is maxpool.FORWARD
    assert len(KERNELS) == declared and other != maxpool.FORWARD


def test_four_lanes_only_where_rows_and_addresses_allow():
    memory = executor.array(np.zeros(64, np.float32))
    assert lanes(8, memory) == 4
    assert lanes(6, memory) == 1
    assert lanes(8, memory, memory[1:9]) == 1


# --------------------------------------------------------------------------------------------- machine code
@pytest.mark.parametrize("capability, arch", [(80, "sm_80"), (89, "sm_89"), (90, "sm_90a"), (100, "sm_100a"), (120, "sm_120a"),
                                              (91, "sm_90"), (87, "sm_86")])
def test_architecture_of_a_device(capability, arch):
    assert architecture(capability, (80, 86, 89, 90, 100, 120)) == arch


def test_a_device_older_than_the_kernels_or_a_generation_newer_than_the_compiler_is_told():
    with pytest.raises(Expected, match=r"a GPU of compute capability 8\.0 or newer, got 7\.5; use device cpu"):
        architecture(75, (75, 80, 90))
    with pytest.raises(Expected, match=r"of compute capability 8\.0, 9\.0, got 13\.0; bring a newer NVRTC, or use device cpu"):
        architecture(130, (75, 80, 90))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """kernels/ in a temporary place, to be changed freely, and an empty cache."""
    (tmp_path/"kernels"/"device").mkdir(parents=True)
    (tmp_path/"kernels"/"device"/"ptx.cuh").write_text("#define ONE 1\n")
    (tmp_path/"kernels"/"unit.cu").write_text(
        '#include <ptx.cuh>\nextern "C" __global__ void unit(float *y, int n) { y[n] = ONE * FACTOR; }\n')
    monkeypatch.setattr(cubin, "kernels_folder", lambda: tmp_path/"kernels")
    monkeypatch.setattr(cubin, "cache_folder", lambda: tmp_path)
    return tmp_path/"kernels"


@pytest.fixture
def unit(monkeypatch):
    """A kernel with 64 KiB of shared memory; its declaration is forgotten after the test."""
    monkeypatch.setattr(kernel, "KERNELS", [])
    return Kernel("unit.cu", "unit", "float *y, int n", {"FACTOR": 3}, block=64, shared=64*1024)


@needs_nvrtc
def test_machine_code_is_kept_until_anything_it_depends_on_changes(folder, unit, monkeypatch):
    made = []
    compile = nvrtc.compile
    monkeypatch.setattr(nvrtc, "compile", lambda *args: made.append(args) or compile(*args))
    first = cached_cubin(unit, "sm_80")
    assert cached_cubin(unit, "sm_80") == first and len(made) == 1
    assert first.read_bytes() == compile(*made[0])[0]
    cached_cubin(unit, "sm_90a")
    cached_cubin(unit.variant(FACTOR=4), "sm_80")
    (folder/"device"/"ptx.cuh").write_text("#define ONE 1.0f\n")
    cached_cubin(unit, "sm_80")
    (folder/"unit.cu").write_text((folder/"unit.cu").read_text() + "// changed\n")
    cached_cubin(unit, "sm_80")
    monkeypatch.setattr(nvrtc, "version", lambda: (99, 0))
    cached_cubin(unit, "sm_80")
    assert len(made) == 6 and len(list(folder.parent.glob("*.cubin"))) == 6


@needs_nvrtc
def test_an_interrupted_compilation_leaves_no_machine_code(folder, unit, monkeypatch):
    monkeypatch.setattr(cubin.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        cached_cubin(unit, "sm_80")
    assert not list(folder.parent.glob("*.cubin"))


@pytest.mark.parametrize("home", ["a file", "missing/deep"])
def test_a_home_that_cannot_be_written_to_costs_only_the_cache(monkeypatch, tmp_path, home):
    (tmp_path/"a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/home))
    folder = cubin.cache_folder.__wrapped__()
    assert folder.is_dir() and (tmp_path/"a file" in folder.parents) is False


# ------------------------------------------------------------------------------------------------------ CuPy
class DriverError(Exception):
    pass


@pytest.fixture
def cupy():
    """A stand-in for CuPy on a Hopper card: `asked` is what it was told."""
    asked = []

    class Function:
        def __call__(self, grid, block, arguments, shared_mem=0):
            asked.append((grid, block, arguments, shared_mem, self.__dict__.get("max_dynamic_shared_size_bytes")))
            if grid == (13,):
                raise DriverError("CUDA_ERROR_INVALID_VALUE")

    def raw_module(path):
        asked.append(path)
        return SimpleNamespace(get_function=lambda name: asked.append(name) or Function())

    cuda = SimpleNamespace(
        Device=lambda number: SimpleNamespace(compute_capability="90"), runtime=SimpleNamespace(getDevice=lambda: 0),
        driver=SimpleNamespace(CUDADriverError=DriverError))
    return type("CuPy", (), {"RawModule": staticmethod(raw_module), "cuda": cuda, "asked": asked})


@needs_nvrtc
def test_a_launch_loads_the_machine_code_once_and_grants_the_shared_memory(folder, unit, cupy):
    for _ in range(2):
        gpu.launch(cupy, unit, (5,), ["y", 3])
    path, name, *launches = cupy.asked
    assert path.endswith(".cubin") and name == "unit"
    assert launches == [((5,), (64,), ("y", 3), 64*1024, 64*1024)]*2


@needs_nvrtc
def test_cupy_is_given_a_struct_as_one_element_in_the_layout_of_c(cupy, monkeypatch, tmp_path):
    monkeypatch.setattr(cubin, "cache_folder", lambda: tmp_path)
    monkeypatch.setitem(backend.LAUNCHERS, executor.ExecutorArray, partial(gpu.launch, cupy))
    conv2d_kernels.PLAIN(1, ROW, ROW, ROW, ROW, conv2d_kernels.Conv(*range(2, 13)), True, False)
    _, _, arguments, *_ = cupy.asked[-1]
    struct = arguments[4]
    assert type(struct) is np.ndarray and struct.shape == (1,)
    assert struct.tobytes() == np.arange(2, 13, dtype=np.int32).tobytes() and struct["groups"] == 12


@needs_nvrtc
def test_a_launch_that_cuda_refuses_says_which_and_why(folder, unit, cupy):
    with pytest.raises(RuntimeError, match=r"unit.cu: unit on \(13,\) blocks of 64 threads, 65536 bytes.*INVALID_VALUE"):
        gpu.launch(cupy, unit, (13,), ["y", 3])


@pytest.mark.parametrize("driver, built, got", [
    (0, 13020, r">= 580 \(CUDA 13\), got no NVIDIA driver"),
    (12040, 13020, r">= 580 \(CUDA 13\), got a driver for CUDA 12.4"),
    (11080, 12090, r">= 525 \(CUDA 12\), got a driver for CUDA 11.8"),
    (13000, 13020, r">= 580 \(CUDA 13\), got cudaErrorNoDevice"),
])
def test_no_device_is_told_with_its_reason(monkeypatch, driver, built, got):
    class RuntimeAPIError(Exception):
        pass

    def count():
        raise RuntimeAPIError("cudaErrorNoDevice")

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=RuntimeAPIError,
                              driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    with pytest.raises(Expected, match="device gpu: expected a CUDA device and an NVIDIA driver " + got):
        select("gpu")
    assert select("auto") is backend.CPU


def test_cupy_missing_is_told_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(Expected, match=r"device gpu: expected CuPy, got no module named cupy; pip install -e "):
        select("gpu")


# ------------------------------------------------------------------------------------ more than 2^31 elements
def test_offsets_beyond_two_to_the_31_on_a_gpu():
    try:
        device = select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    if find_cupy().cuda.runtime.memGetInfo()[0] < 24*2**30:
        pytest.skip("less than 24 GiB of free GPU memory")
    C, H, W, N = 66, 8, 8, 2**19                                          # 2^31 + 2^26 elements, 8.9 GB
    x = backend.empty((C, H, W, N), np.float32, like=device.array(np.zeros(1, np.float32)))
    x[...] = -1
    some = normal(np.random.default_rng(0), H, W, N)
    x[-1] = device.array(some)                                            # the last map lies beyond
    y, _ = maxpool.maxpool(x, 3, 2)
    wanted, _ = maxpool.maxpool(some[None], 3, 2)
    np.testing.assert_array_equal(backend.to_host(y[-1]), wanted[0])
    del y
    z, _ = relu.relu(x)
    np.testing.assert_array_equal(backend.to_host(z[-1]), np.maximum(some, 0))
