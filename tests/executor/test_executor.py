"""Correct kernels stay correct in every way they can be run; the seam to the engine; the reports."""
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import executor
from tests.executor import ASYNC_WAYS, ExecutorArray, KernelError, emu, requires_executor
from tests.executor.samples import SAMPLES, part
from zfcore import backend
from zfcore.device import select
from zfcore.kernel import KERNELS, Kernel, blocks

pytestmark = requires_executor


def run(text, *values, block=32, grid=(1,), shared=0, build="plain", writable=("y",), **settings):
    """Launches `f(..., y)` of a source text; the last value is y."""
    names = [f"a{k}" for k in range(len(values) - 1)] + ["y"]
    library = emu.compile("#include <ptx.cuh>\n" + text, "f.cu", "f", (), build)
    return library.launch(grid, block, shared, values, names, set(writable), emu.Settings(build=build, **settings))


@pytest.fixture
def kernel(tmp_path):
    """Declares a Kernel as an operation would, and takes it out of the registry again."""
    before = len(KERNELS)

    def declare(text, *rest, **more):
        (tmp_path/"f.cu").write_text("#include <ptx.cuh>\n" + text)
        return Kernel(str(tmp_path/"f.cu"), "f", *rest, **more)

    yield declare
    del KERNELS[before:]


@pytest.mark.parametrize("way", ASYNC_WAYS)
@pytest.mark.parametrize("name", SAMPLES)
def test_correct_kernel_is_right_in_every_way(name, way):
    y, _ = SAMPLES[name].run(ASYNC_WAYS[way])
    np.testing.assert_allclose(y, SAMPLES[name].expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_correct_kernel_is_right_for_other_seeds(seed):
    for schedule in ("random", "skewed"):
        y, _ = SAMPLES["matmul_wgmma"].run(emu.Settings(schedule, seed, "eager", "lazy"))
        np.testing.assert_allclose(y, SAMPLES["matmul_wgmma"].expected, atol=1e-4)


# ---------------------------------------------------------------------------------------------- the seam to the engine
SCALE = 'extern "C" __global__ void f(const float *__restrict__ x, float *__restrict__ y, float by, long long total)\n' \
        "{ long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; if (i < total) y[i] = x[i] * by * FACTOR; }"
SIGNATURE = "const float *x, float *y, float by, long long total"


@pytest.mark.parametrize("way", executor.WAYS)
def test_engine_launches_kernels_on_executor_arrays(kernel, way):
    scale = kernel(SCALE, SIGNATURE, defines={"FACTOR": "2.0f"}, block=64)
    x = select("executor").array(np.arange(15, dtype=np.float32).reshape(5, 3))
    y = backend.empty(x.shape, x.dtype, like=x)
    with executor.settings(way):
        scale(blocks(x.size, scale.block), x, y, 1.5, x.size)
    assert isinstance(y, ExecutorArray) and backend.runs_kernels(y)
    assert type(backend.to_host(y)) is np.ndarray
    np.testing.assert_array_equal(executor.plain(y), 3*np.arange(15).reshape(5, 3))


def test_in_place_and_overlapping_arguments_share_memory(kernel):
    scale = kernel(SCALE, SIGNATURE, defines={"FACTOR": 1})
    x = executor.array(np.arange(9, dtype=np.float32))
    scale(1, x, x, 2.0, 9)
    np.testing.assert_array_equal(executor.plain(x), 2*np.arange(9))
    scale(1, x[:8], x[1:], 0.0, 3)
    np.testing.assert_array_equal(executor.plain(x), [0, 0, 0, 0, 8, 10, 12, 14, 16])


def test_views_keep_their_place_modulo_16_bytes(kernel):
    """As on a GPU, a float4 may be loaded from x[4:] but not from x[1:]."""
    copy = kernel('extern "C" __global__ void f(const float *x, float *y) { *(float4 *)y = *(const float4 *)x; }',
                  "const float *x, float *y", block=1)
    x, y = executor.array(np.arange(9, dtype=np.float32)), executor.array(np.zeros(4, np.float32))
    with executor.settings("bounds"):
        copy(1, x[4:], y)
        assert executor.plain(y).tolist() == [4, 5, 6, 7]
        with pytest.raises(KernelError, match="misaligned for 'const struct float4'"):
            copy(1, x[1:], y)


def test_empty_arrays_and_whole_grids_of_blocks(kernel):
    numbers = kernel('extern "C" __global__ void f(int *y)'
                     "{ y[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] += threadIdx.x == 0; }",
                     "int *y", block=32)
    y = executor.array(np.zeros(24, np.int32))
    numbers((4, 3, 2), y)
    assert (executor.plain(y) == 1).all()
    scale = kernel(SCALE, SIGNATURE, defines={"FACTOR": 1})
    scale(1, executor.array(np.zeros((0, 3), np.float32)), executor.array(np.zeros((0, 3), np.float32)), 1.0, 0)


def test_declared_signature_must_be_the_sources(kernel):
    x = executor.array(np.zeros(3, np.float32))
    with pytest.raises(KernelError, match=r"takes \(const float \*, float \*, float, long long\), but .*float, int"):
        kernel(SCALE, "const float *x, float *y, float by, int total", defines={"FACTOR": 1})(1, x, x, 1.0, 3)
    with pytest.raises(KernelError, match="is declared .float .x?"):
        kernel(SCALE, "float *x, float *y, float by, long long total", defines={"FACTOR": 1})(1, x, x, 1.0, 3)


@pytest.mark.parametrize("text, sentence", [
    ('#include <math.h>\nextern "C" __global__ void f(float *y) {}', "nothing else, not <math.h>"),
    ('extern "C" __global__ void f(float *y) { asm volatile("nanosleep.u32 1;"); }', "assembly_belongs_into_ptx_cuh"),
    ('extern "C" __global__ void f(float *y) { __nanosleep(1); }', "__nanosleep"),
])
def test_source_that_breaks_the_rules_does_not_compile(text, sentence):
    with pytest.raises(KernelError, match=sentence):
        run(text, np.zeros(1, np.float32))


# ------------------------------------------------------------------------------------------------- what a thread sees
def test_memory_nobody_wrote_is_nan():
    y = np.zeros(3*32, np.float32)
    run("""extern "C" __global__ void f(float *y)
{
    __shared__ float s[32];
    DYN_SHARED(raw);
    y[threadIdx.x] = s[threadIdx.x];
    y[32 + threadIdx.x] = ((float *)raw)[threadIdx.x];
    s[threadIdx.x] = 1;
    y[64 + threadIdx.x] = s[threadIdx.x];
}""", y, grid=(2,), shared=128)
    assert np.isnan(y[:64]).all() and (y[64:] == 1).all()


@pytest.mark.parametrize("schedule", emu.SCHEDULES)
def test_largest_and_ragged_blocks_meet_at_barriers(schedule):
    text = """extern "C" __global__ void f(int *y)
{
    __shared__ int s[1024];
    int n = blockDim.x, i = threadIdx.x;
    s[i] = i;
    __syncthreads();
    y[i] = s[n - 1 - i] + 1000 * __syncthreads_count(i % 3 == 0) + 10000000 * __syncthreads_or(i == n - 1);
}"""
    for block in (1, 33, 1024):
        y = np.zeros(block, np.int32)
        run(text, y, block=block, schedule=schedule)
        np.testing.assert_array_equal(y, np.arange(block)[::-1] + 1000*-(-block//3) + 10000000)


def test_integer_intrinsics_equal_python():
    text = """extern "C" __global__ void f(const unsigned *a, unsigned *y)
{
    unsigned x = a[threadIdx.x], z = a[31 - threadIdx.x], *o = y + threadIdx.x;
    o[0] = __umulhi(x, z), o[32] = __popc(x), o[64] = __clz(x), o[96] = __brev(x);
    o[128] = __byte_perm(x, z, 0x7531), o[160] = __funnelshift_l(x, z, 7);
    o[192] = __float_as_uint(__saturatef(__uint_as_float(x))), o[224] = __ffs(x);
}"""
    x = np.random.default_rng(5).integers(0, 2**32, 32, np.uint32)
    x[0] = 0
    y = np.zeros(256, np.uint32)
    run(text, x, y)
    for i, (a, b) in enumerate(zip(x.tolist(), x[::-1].tolist())):
        bits = f"{a:032b}"
        number = np.uint32(a).view(np.float32)
        saturated = np.float32(number if 0 < number < 1 else number >= 1).view(np.uint32)
        permuted = int.from_bytes((a.to_bytes(4, "little") + b.to_bytes(4, "little"))[1::2], "little")
        assert y[i::32].tolist() == [a*b >> 32, bits.count("1"), 32 - a.bit_length(), int(bits[::-1], 2), permuted,
                                     ((b << 32 | a) << 7 >> 32) & 0xffffffff, saturated, (a & -a).bit_length()]


def test_result_does_not_depend_on_order_unless_the_kernel_does():
    """The order in which blocks and threads run differs between schedules: this kernel shows it."""
    text = 'extern "C" __global__ void f(int *y)' \
           "{ int k = atomicAdd(&y[0], 1); y[1 + k] = blockIdx.x * 64 + threadIdx.x; }"
    orders = {}
    for schedule in emu.SCHEDULES:
        y = np.zeros(129, np.int32)
        run(text, y, grid=(2,), block=64, schedule=schedule)
        orders[schedule] = y[1:].tolist()
        assert sorted(orders[schedule]) == list(range(128))
    assert orders["forward"] == list(range(128)) and orders["reverse"] == list(range(128))[::-1]
    assert len({tuple(order) for order in orders.values()}) == 4


# ------------------------------------------------------------------------------------------------------------ clusters
PAIR = 'extern "C" __global__ void __cluster_dims__(2, 1, 1) f('


@pytest.mark.parametrize("way", executor.WAYS)
def test_blocks_of_a_cluster_know_their_number_and_wait_for_each_other(way):
    text = PAIR + """int *y)
{
    int block = blockIdx.y * gridDim.x + blockIdx.x, other = block ^ 1;
    y[block * 128 + threadIdx.x] = cluster_rank() * 1000 + threadIdx.x;
    cluster_sync();
    int seen = y[other * 128 + 127 - threadIdx.x];
    cluster_sync();
    y[block * 128 + threadIdx.x] = seen;
}"""
    y, settings = np.zeros((3, 4, 128), np.int32), ASYNC_WAYS[way]
    run(text, y, block=128, grid=(4, 3), build=settings.build, schedule=settings.schedule)
    np.testing.assert_array_equal(y, np.broadcast_to(np.array([[1000], [0]]*2) + np.arange(127, -1, -1), y.shape))


MESSAGE = PAIR + """int *y)
{
    DYN_SHARED(raw);
    Mbar *bar = reinterpret_cast<Mbar *>(raw);
    if (threadIdx.x == 0) mbar_init(bar, 1);
    cluster_sync();
    if (cluster_rank() == 0) {
        y[threadIdx.x] = threadIdx.x;
        __syncthreads();
        if (threadIdx.x == 100) mbar_arrive_at(1, bar);
    } else {
        if (threadIdx.x == 5) mbar_wait(bar, 0);
        __syncthreads();
        y[threadIdx.x] += 1000;
    }
    cluster_sync();
}"""


def test_what_a_thread_knows_it_tells_its_block_and_by_an_mbarrier_another():
    y = np.zeros(128, np.int32)
    run(MESSAGE, y, block=128, grid=(2,), shared=8, build="race")
    np.testing.assert_array_equal(y, 1000 + np.arange(128))


@pytest.mark.parametrize("old, sentence", [
    ("y[threadIdx.x] = threadIdx.x;\n        __syncthreads();", r"race in y at byte \d+: .* by thread \d+ of block 0 at"),
    ("mbar_wait(bar, 0);\n        __syncthreads();", "race in y at byte"),
    ("if (threadIdx.x == 5) mbar_wait(bar, 0);", "race in y at byte")])
def test_a_block_of_a_cluster_knows_of_the_other_only_what_it_is_told(old, sentence):
    said = old.replace("__syncthreads();", "").replace("if (threadIdx.x == 5) mbar_wait(bar, 0);", "")
    assert MESSAGE.count(old) == 1
    with pytest.raises(KernelError, match=sentence):
        run(MESSAGE.replace(old, said), np.zeros(128, np.int32), block=128, grid=(2,), shared=8, build="race")


@pytest.mark.parametrize("leaves, schedule, copies, sentence", [
    ("before", "reverse", "eager", "tma_multicast: block 1 of the cluster has left"),
    ("after", "reverse", "lazy", "this copy goes into block 1 of the cluster, which has left"),
    ("after", "forward", "lazy", "the block ended before this TMA load was waited for")])
def test_a_copy_into_a_block_that_leaves_before_it_comes_is_an_error(leaves, schedule, copies, sentence):
    text = PAIR + """const __grid_constant__ TensorMap x, int *y)
{
    DYN_SHARED(raw);
    Mbar *bar = reinterpret_cast<Mbar *>(raw + 1024);
    if (threadIdx.x == 0) mbar_init(bar, 1), mbar_fence_init();
    cluster_sync();
    if (LEAVES_before && cluster_rank() == 1) return;
    if (threadIdx.x == 0 && cluster_rank() == 0) {
        mbar_arrive_expect_tx(bar, 1024);
        tma_multicast_5d(3, raw, &x, bar, 0, 0, 0, 0, 0);
    }
    if (LEAVES_after) cluster_sync();
    if (cluster_rank() == 1) return;
    mbar_wait(bar, 0);
    y[threadIdx.x] = raw[threadIdx.x];
}"""
    for when in "before", "after":
        text = text.replace(f"LEAVES_{when}", str(when == leaves).lower())
    x = emu.TensorMap(np.zeros((1, 1, 1, 8, 64), np.uint16), (64, 8, 1, 1, 1), swizzle=True)
    with pytest.raises(KernelError, match=f"f.cu:11: .*{sentence}"):
        run(text, x, np.zeros(128, np.int32), block=128, grid=(2,), shared=1032, copies=copies, schedule=schedule)


@pytest.mark.parametrize("grid, block", [((3,), 128), ((2, 2), 64), ((2,), 640)])
def test_a_cluster_that_is_not_whole_is_refused(grid, block):
    with pytest.raises(KernelError, match="expected a grid of whole clusters of 2 blocks"):
        run(PAIR + "int *y) { cluster_sync(); }", np.zeros(1, np.int32), block=block, grid=grid)


# ------------------------------------------------------------------------------------------------------------- reports
def test_bank_conflicts_and_sectors_are_counted_per_line():
    text = """extern "C" __global__ void f(const float *x, float *y)
{
    __shared__ float s[32][32];
    for (int k = 0; k < 32; k++) s[k][threadIdx.x] = x[k * 32 + threadIdx.x];
    __syncwarp();
    for (int k = 0; k < 32; k++)
        y[threadIdx.x * 32 + k] = s[threadIdx.x][k];
}"""
    traffic = run(text, np.zeros(1024, np.float32), np.zeros(1024, np.float32), build="race", report=True)
    rows = {(t.line, t.space): t for t in traffic}
    assert rows["f.cu:5", "shared"].ratio == 1 and rows["f.cu:5", "global"].ratio == 1
    assert rows["f.cu:8", "shared"].ratio == 32                  # 32 rows of 32 words: all in one bank
    assert rows["f.cu:8", "global"].ratio == 8                   # a sector of 32 bytes for every 4 written
    assert rows["f.cu:5", "shared"].ideal == 32 and rows["f.cu:5", "global"].ideal == 128


def test_rows_of_80_bytes_suit_ldmatrix_but_not_the_copies():
    text = part("matmul_bf16").splitlines()
    _, traffic = SAMPLES["matmul_bf16"].run(emu.Settings(build="race", report=True))
    ratio = {(text[int(t.line.split(":")[1]) - 1].strip().split("(")[0], t.space): t.ratio for t in traffic}
    assert ratio["ldmatrix", "shared"] == 1
    assert ratio["cp_async16", "shared"] == 2


def test_without_a_report_launches_yield_no_traffic(kernel):
    scale = kernel(SCALE, SIGNATURE, defines={"FACTOR": 1})
    x = executor.array(np.zeros(64, np.float32))
    with executor.settings("race") as traffic:
        scale(1, x, x, 1.0, 64)
    assert not traffic
    with executor.settings("race", report=True) as traffic:
        scale(1, x, x, 1.0, 64)
    assert {t.space for t in traffic} == {"global"}


# --------------------------------------------------------------------------------------------------- being a good guest
FAULT = 'extern "C" __global__ void f(float *y) { if (threadIdx.x == 7) y[1 << 18] = 1; }'


def test_signal_handlers_are_put_back_after_a_fault():
    before = signal.getsignal(signal.SIGVTALRM)
    for _ in range(3):
        with pytest.raises(KernelError, match="outside 'y': byte offset 1048576 of 4"):
            run(FAULT, np.zeros(1, np.float32))
    assert signal.getsignal(signal.SIGVTALRM) is before
    code = "import faulthandler, ctypes\nfaulthandler.enable()\nimport numpy as np\n" \
           "from tests.executor.test_executor import FAULT, KernelError, run\n" \
           "try: run(FAULT, np.zeros(1, np.float32))\n" \
           "except KernelError: print('caught', flush=True)\nctypes.string_at(0)\n"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert outcome.stdout == "caught\n" and "Fatal Python error: Segmentation fault" in outcome.stderr


def test_failed_launch_leaves_outputs_untouched():
    y = np.arange(4, dtype=np.float32)
    with pytest.raises(KernelError, match="__trap"):
        run('extern "C" __global__ void f(float *y) { y[threadIdx.x] = 9; if (threadIdx.x == 3) __trap(); }', y, block=4)
    np.testing.assert_array_equal(y, [0, 1, 2, 3])


def test_two_processes_may_compile_the_same_kernel_at_once(tmp_path):
    code = "import numpy as np\nfrom tests.executor.samples import SAMPLES\ny, _ = SAMPLES['row_sums'].run()\n" \
           "np.testing.assert_allclose(y, SAMPLES['row_sums'].expected, atol=1e-4)\n"
    cache = tmp_path/"zfcore"/"executor"
    cache.mkdir(parents=True)
    shutil.copy2(emu.runtime(), cache)
    jobs = [subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2],
                             env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}) for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["headers", "kernel", "runtime"]


def test_portable_context_switch_runs_the_same_kernels():
    """ucontext, for processors other than x86-64."""
    code = "from tests.executor import emu\nemu.FLAGS += ['-DEMU_UCONTEXT', '-O0']\nimport numpy as np\n" \
           "from tests.executor.samples import SAMPLES\n" \
           "for name in ('matmul', 'matmul_wgmma', 'matmul_cluster'):\n" \
           "    y, _ = SAMPLES[name].run()\n    np.testing.assert_allclose(y, SAMPLES[name].expected, atol=1e-4)\n"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
