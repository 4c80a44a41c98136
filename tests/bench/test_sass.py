"""Instructions counted in machine code, of loops of which it is known what they hold."""
import numpy as np
import pytest

from bench import sass
from bench.gpu import FMA, MMA, READ
from zfcore import nvrtc
from zfcore.check import Expected
from zfcore.cubin import kernels_folder

HEADERS = {path.name: path.read_text() for path in (kernels_folder()/"device").glob("*.cuh")}


def compiled(code, *options):
    try:
        return nvrtc.compile(code, "code.cu", ("-arch=sm_90a", "-std=c++20", *options), HEADERS)[0]
    except Expected as none:
        pytest.skip(str(none))


def test_a_loop_of_multiply_adds_and_one_of_mma_hold_what_their_source_says():
    found = sass.main_loop(compiled(FMA), "fma_rate", 16)
    assert found.products == 16*found.steps <= found.instructions < 16*found.steps + 8 and found.wavefronts == 0
    found = sass.main_loop(compiled(MMA, "-DPRODUCT=mma_bf16"), "mma_rate", 8)
    assert found.products == 8*found.steps <= found.instructions < 8*found.steps + 8 and found.wavefronts == 0
    with pytest.raises(Expected, match="fma_rate: expected a loop with whole steps of 7 products, got"):
        sass.main_loop(compiled(FMA), "fma_rate", 7)


def test_shared_memory_is_counted_in_128_bytes_of_a_warp():
    """A copy of 16 bytes a lane fills four of them; the sum at the end reads one number a lane, eight times."""
    cubin = compiled(READ)
    code = sass.instructions(cubin, "read_rate")
    kinds = sass.kinds_of(code)
    copies = int((kinds == "LDGSTS").sum())
    assert copies >= 1 and sass.wavefronts(code, kinds) == 4*copies + 8
    assert not sass.wavefronts(code[kinds == "BRA"], kinds[kinds == "BRA"])


def test_a_loop_that_multiplies_less_than_another_is_not_the_main_one():
    code = """extern "C" __global__ void two(float *y, int n)
    {
        float a = y[0], b = y[1], c[4] = {a, b, a + 1, b + 1};
        for (int i = 0; i < n; i++) a = fmaf(a, b, 1.5f);
        #pragma unroll 1
        for (int i = 0; i < n; i++)
            #pragma unroll
            for (int k = 0; k < 60; k++) c[k % 4] = fmaf(c[k % 4], a, b);
        y[0] = c[0] + c[1] + c[2] + c[3];
    }"""
    assert sass.main_loop(compiled(code), "two", 60)[:3:2] == (1, 60)


def test_only_the_wanted_kernel_of_a_file_is_read():
    code = 'extern "C" __global__ void f(float *y) { y[threadIdx.x] = 1; }  extern "C" __global__ void f2(float *y) { y[0] = y[1] * y[2] + y[3]; }'
    one, other = (sass.instructions(compiled(code), name) for name in ("f", "f2"))
    assert one.dtype == np.uint64 and one.shape[1] == 2
    assert (sass.kinds_of(one) == "FFMA").sum() == 0 and (sass.kinds_of(other) == "FFMA").sum() == 1
