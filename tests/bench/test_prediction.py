"""The predicted time of a step is made of its launches, and of nothing that anybody would take for a measurement."""
import numpy as np
import pytest

from bench import prediction, traffic
from bench.traffic import DEVICE
from zfcore import backend
from zfcore.ops import model, tuning
from zfcore.ops.conv2d import conv2d, conv2d_transpose
from zfcore.ops.relu import relu


@pytest.fixture
def launches(monkeypatch):
    tape = []
    monkeypatch.setitem(backend.LAUNCHERS, traffic.Ghost, lambda *launch: tape.append(launch))
    return tape


def ghost(*shape):
    return DEVICE.array(np.empty(shape, np.float32))


def test_a_map_kernel_takes_its_bytes_at_the_rate_of_a_copy(launches):
    relu(ghost(96, 55, 55, 64))
    seconds, bound = prediction.of_launch(*launches[0])
    assert bound == "memory" and seconds == pytest.approx(2*4*96*55*55*64/4300e9 + prediction.LAUNCH)


def test_a_convolution_takes_the_steps_of_its_blocks(launches):
    conv2d(ghost(256, 13, 13, 128), ghost(256, 3, 3, 384), None, 1, 1, precision="tf32")
    (kernel, grid, _), = launches
    count, steps, moved = prediction.of_tiles(*launches[0])
    assert count == grid[0] and steps == 256*9/16 and moved == model.tile_bytes(kernel, 384, 169*128)
    seconds, bound = prediction.of_launch(*launches[0])
    assert seconds == pytest.approx(model.seconds(kernel, count, steps, moved, tuning.current) + prediction.LAUNCH) and bound == "l2"


def test_a_transposed_convolution_takes_the_taps_of_its_phases(launches):
    conv2d_transpose(ghost(24, 4, 5, 8), ghost(40, 3, 3, 24), 2, 1, 7, 9, precision="tf32")
    count, steps, _ = prediction.of_tiles(*launches[-1])
    # a quarter of the taps on average
    assert count == np.prod(launches[-1][1]) and steps == pytest.approx(24*9/4/16)


def test_shares_add_up_the_longest_first():
    tape = traffic.step("bf16", 8)
    found = prediction.shares(tape)
    assert sum(part.launches for part in found.values()) == len(tape)
    assert sum(part.seconds for part in found.values()) == pytest.approx(sum(prediction.of_launch(*launch)[0]
                                                                             for launch in tape))
    times = [part.seconds for part in found.values()]
    assert times == sorted(times, reverse=True) and all(sum(part.bounds.values()) == pytest.approx(part.seconds)
                                                        for part in found.values())
    products, slots = prediction.issued(traffic.step("tf32", 8))
    assert 0 < products < 1 and slots > 0
    assert prediction.issued(tape) is None                              # all its products are wgmma's


def test_what_is_printed_says_that_it_is_a_prediction(monkeypatch):
    monkeypatch.setattr(traffic, "step", lambda precision, step=traffic.step: step(precision, 8))
    lines = list(prediction.lines())
    assert lines[0].endswith("a prediction:") and [line.split()[0] for line in lines[1:] if line[0] != " "] == ["bf16", "tf32", "fp32x3", "fp32"]
