"""What a step moves, counted from its launches, against counts by hand."""
import numpy as np
import pytest

from bench import traffic
from bench.traffic import DEVICE, of_memory, of_tiles, step
from zfcore import backend
from zfcore.backend import BF16
from zfcore.ops import conv2d_kernels
from zfcore.ops.conv2d import conv2d_transpose
from zfcore.ops.relu import relu_backward
from zfcore.ops.sgd_step import sgd_step


@pytest.fixture
def launches(monkeypatch):
    """The tape of what ghosts launch in this test."""
    tape = []
    monkeypatch.setitem(backend.LAUNCHERS, traffic.Ghost, lambda *launch: tape.append(launch))
    return tape


def ghost(*shape, dtype=np.float32):
    return DEVICE.array(np.empty(shape, dtype))


def test_memory_is_every_array_once_and_what_changes_in_place_twice(launches):
    relu_backward(ghost(5, 7), ghost(5, 7))
    x = ghost(5, 7, dtype=BF16)
    relu_backward(x, x)
    w, dw, v = ghost(40), ghost(40), ghost(40)
    sgd_step([(w, dw, v, 0.1)], ghost(), 0.9, ghost(dtype=np.float64), [ghost(40, dtype=BF16)])
    assert [of_memory(kernel, arguments) for kernel, _, arguments in launches] == [3*35*4, 2*35*2, 22*40 + 4 + 8]


def test_tiles_of_a_transposed_convolution_are_what_its_blocks_take_phase_by_phase(launches):
    conv2d_transpose(ghost(24, 4, 5, 8, dtype=BF16), ghost(40, 3, 3, 24, dtype=BF16), 2, 1, 7, 9, precision="bf16")
    (kernel, grid, arguments) = launches[-1]
    rows, columns, moved = kernel.defines["BM"], kernel.defines["BN"], 0
    for r, s in ((2, 2), (2, 1), (1, 2), (1, 1)):                            # taps of a phase, at stride 2
        for tile_m in range(0, 40, rows):
            for tile_n in range(0, 4*5*8, columns):
                moved += 24*r*s*2*(min(rows, 40 - tile_m) + min(columns, 4*5*8 - tile_n))
    assert grid[0]*grid[2] == 4*-(-40//rows)*-(-4*5*8//columns)
    assert of_tiles(kernel, grid, arguments) == moved
    assert of_tiles(*launches[0]) == 0                                       # the filters are turned


def test_a_step_in_bf16_moves_half_the_tiles_of_tf32_and_little_more_than_half_of_what_is_no_parameter():
    found = {precision: traffic.traffic(step(precision)) for precision in ("tf32", "bf16")}
    tiles, memory = ({precision: sum(getattr(one, what) for one in by.values()) for precision, by in found.items()}
                     for what in ("tiles", "memory"))
    memory = {precision: total - found[precision]["sgd_step"].memory for precision, total in memory.items()}
    assert tiles["bf16"] == pytest.approx(tiles["tf32"]/2, rel=1e-3)
    for name in ("conv2d_maxpool", "maxpool_backward", "local_response_norm_backward", "relu_backward"):
        assert found["bf16"][name].memory < 0.6*found["tf32"][name].memory
    assert memory["bf16"] < 0.6*memory["tf32"] and found["bf16"]["sgd_step"].memory > found["tf32"]["sgd_step"].memory
    assert conv2d_kernels.TRANSPOSE_FILTERS.name in found["bf16"]
