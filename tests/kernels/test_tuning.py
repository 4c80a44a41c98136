"""Every field of Tuning decides something, those that bench measures decide about no bit, and no other file takes a GPU to be
of some speed."""
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import zfcore
from bench.gpu import MEASURED, recorded
from tests import executor
from tests.kernels.conftest import normal
from zfcore import backend
from zfcore.ops import tuning
from zfcore.ops.conv2d import conv2d, conv2d_backward
from zfcore.ops.conv2d_kernels import launch_bias_gradient, launch_wgmma_filter_gradient
from zfcore.ops.conv2d_maxpool import conv2d_maxpool
from zfcore.ops.linear import linear, linear_backward

OTHERS = {"multiprocessors": 1, "fma_tflop_s": 1.0, "copy_gb_s": 1e6, "strip_blocks": 30, "forward_blocks": 1,
          "clock_ghz": 50.0, "tf32_tflop_s": 1.0, "bf16_tflop_s": 1.0, "wgmma_tflop_s": 1.0, "l2_gb_s": 50.0, "l2_latency": 1e5,
          "gradient_blocks": 1, "bias_blocks": 1, "wgmma_blocks": 1, "slice_terms": 2**20, "bias_slice_terms": 2**20}


class Ghost(np.ndarray):
    """An array of which no number is ever touched."""


def ghost(*shape, dtype=np.float32):
    return np.empty(shape, dtype).view(Ghost)


@pytest.fixture
def choices(monkeypatch):
    """A function: what layers of the paper's sizes launch, and on how many blocks."""
    monkeypatch.setitem(backend.LAUNCHERS, Ghost, lambda kernel, grid, arguments: None)

    def layers(x):
        conv2d_maxpool(x, ghost(3, 7, 7, 96), ghost(96), 2, 0, (3, 2, 0, "ceil"))
        for precision in "fp32", "tf32":
            y, cache = conv2d(ghost(96, 27, 27, 128), ghost(96, 5, 5, 256), ghost(256), 2, 0, precision=precision)
            conv2d_backward(y, cache)
            y, cache = linear(ghost(9216, 16), ghost(9216, 512), ghost(512), precision)
            linear_backward(y, cache)
        for size in 27, 6, 3:
            for precision, dtype in ("tf32", np.float32), ("bf16", backend.BF16):
                conv2d(ghost(96, size, size, 128, dtype=dtype), ghost(96, 3, 3, 256, dtype=dtype), ghost(256), 1, 1,
                       precision=precision)
        maps, dy = ghost(96, 27, 27, 128, dtype=backend.BF16), ghost(256, 12, 12, 128, dtype=backend.BF16)
        launch_wgmma_filter_gradient(maps, dy, (96, 5, 5, 256), 2, 0, 1)
        launch_bias_gradient(ghost(96, 55, 55, 128))

    return lambda: [(kernel.name, tuple(kernel.defines.items()), grid) for kernel, grid, _ in
                    # what bench predicts by
                    recorded(layers, [ghost(3, 113, 113, 128)])[1]] + [tuning.current.tflop_s("wgmma")]


@pytest.mark.parametrize("field", [field.name for field in fields(tuning.Tuning)])
def test_every_field_decides_something_and_is_put_back(choices, field):
    before, in_force = choices(), tuning.current
    with tuning.use(**{field: OTHERS[field]}) as other:
        assert getattr(other, field) == OTHERS[field] and choices() != before
    with pytest.raises(ZeroDivisionError), tuning.use(**{field: OTHERS[field]}):
        1/0
    assert tuning.current is in_force and choices() == before


@executor.requires_executor
def test_what_bench_measures_decides_about_no_bit(rng):
    """Blocks of other sizes, and the pool apart from its convolution."""
    x, w, b, dy = normal(rng, 3, 21, 23, 8), normal(rng, 3, 7, 7, 96), normal(rng, 96), normal(rng, 96, 8, 9, 8)
    tapes = []

    def work():
        parts = []

        def layers(x):
            parts.extend(conv2d_maxpool(x, executor.array(w), executor.array(b), 2, 0, (3, 2, 0, "ceil"))[1][:1])
            y, cache = conv2d(x, executor.array(w), executor.array(b), 2, 0, precision="tf32")
            parts.extend([y, *conv2d_backward(executor.array(dy), cache)])
        tapes.append([(kernel.name, str(kernel.defines), grid) for kernel, grid, _ in recorded(layers, [executor.array(x)])[1]])
        return [executor.plain(part) for part in parts]

    wanted = work()
    with tuning.use(**{name: OTHERS[name] for name in MEASURED}):
        got = work()
    assert tapes[0] != tapes[-1]
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, wanted, strict=True))


def test_the_pool_is_taken_along_up_to_the_products_that_cost_as_much_as_its_map():
    with tuning.use(fma_tflop_s=12.0, copy_gb_s=3000.0) as these:
        seconds = these.pool_products()/6*2/12e12, 2*4/3000e9             # products computed twice; 4 bytes written and read
    assert seconds[0] == pytest.approx(seconds[1])


def test_no_other_file_takes_a_gpu_to_be_of_some_speed():
    found = {path.name for path in Path(zfcore.__file__).parent.rglob("*.py")
             if re.search(r"\b[HAB][12]00\b|FLOPs?/s|[TG]B/s|data sheet", path.read_text())}
    assert found == {"tuning.py"}
