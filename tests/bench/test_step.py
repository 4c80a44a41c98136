"""The whole step is timed on a GPU; that it is the step which is said is seen here, on the stand-in and PyTorch's CPU."""
import math
import types
import weakref
from dataclasses import replace

import numpy as np
import pytest

from bench import peers, step
from tests.standin import kernels
from tests.train.test_graph import counts as counts        # a fixture
from tests.train.test_graph import few_maps, state
from zfcore.kernel import PRECISIONS
from zfcore.training import loop

SMALL = ["--image-size", "32"]
CLOCK = types.SimpleNamespace(wait=lambda: None, seconds=lambda run: run() and 2.0,
                              captured=lambda once, passes: lambda: once() or True)


@pytest.fixture
def small(monkeypatch):
    """Three steps at a time, of pictures of 32 pixels."""
    asked = step.asked
    monkeypatch.setattr(step, "asked", lambda *given: asked(*given, SMALL))
    monkeypatch.setattr(step, "STEPS", 3)


@pytest.fixture
def trainings(monkeypatch):
    """Weak references to all that are made."""
    made, ready = [], step.ready

    def noted(config):
        training, batch = ready(config)
        made.append(weakref.ref(training))
        return training, batch
    monkeypatch.setattr(step, "ready", noted)
    return made


def test_ours_is_one_replay_a_step_and_its_launches_are_counted(gpu, standin, counts, small):
    row = {}
    found = dict(step.contestants("fp32", 4, gpu, CLOCK, row))
    run, _ = found["ours"]()
    assert {"conv2d_forward", "sgd_step", "softmax_loss"} <= {kernel.split()[1] for kernel in row["kernels"]} and set(row["kernels"].values()) == {2e6/3}
    before = counts.launched, kernels.ours
    run()
    assert counts.launched == before[0] + 3 and kernels.ours == before[1] + 3*row["launches"] and row["launches"] > 20
    run, _ = found["ours, launch by launch"]()
    before = counts.launched, kernels.ours
    run()
    assert counts.launched == before[0] and kernels.ours == before[1] + 3*row["launches"]


def test_steps_are_timed_on_weights_and_velocities_that_as_many_steps_of_training_leave(gpu, standin, counts, small, trainings):
    """The kernels' shares are found by running each many times over, the update among them."""
    run, loss = dict(step.contestants("fp32", 4, gpu, CLOCK, {}))["ours"]()
    assert trainings[0]() is None, "the Training of the shares gives its memory back before the timed one is there"
    run()
    fresh, batch = step.ready(step.asked("fp32", 4, gpu))
    for _ in range(3 + step.STEPS):
        fresh.one_step(*batch)
    wanted, got = state(fresh), state(trainings[1]())
    assert wanted.keys() == got.keys() and all(got[key].tobytes() == array.tobytes() for key, array in wanted.items())
    assert loss() == wanted["totals"][0] > 0


def test_shares_are_found_on_weights_that_hardly_move(gpu, standin, counts, small, monkeypatch):
    made, ready = [], step.ready
    monkeypatch.setattr(step, "ready", lambda config: made.append(ready(config)) or made[-1])
    config, many = step.asked("fp32", 4, gpu), types.SimpleNamespace(**vars(CLOCK))
    many.captured = lambda once, passes: lambda: [once() for _ in range(10)]
    step.of_a_step(config, many)
    fresh, batch = ready(config)
    fresh.one_step(*batch)
    (training, _), = made
    for name, of_layer in fresh.network.parameters().items():
        np.testing.assert_allclose(training.network.parameters()[name]["w"].get(), of_layer["w"].get(), atol=1e-3)


@pytest.mark.skipif(peers.torch is None, reason="needs PyTorch")
def test_pytorchs_twin_begins_with_our_weights_and_sees_our_pictures(gpu, standin, counts, small, monkeypatch):
    monkeypatch.setattr(loop, "build", lambda *given: few_maps(*given[:3], 1.0))             # without draws of its own
    config, twins, seen = replace(step.asked("fp32", 4, gpu), rms_max=0.0), [], []

    def noted(twin):
        twins.append({name: w.detach().clone() for name, w in twin.named_parameters()})
        return lambda images: seen.append(images) or twin(images)
    run, loss = step.torch_steps(config, CLOCK, noted, where="cpu")
    training, batch = step.ready(config)
    weights = [w for of_layer in training.network.parameters().values() for w in (of_layer["w"], of_layer["b"])]
    for theirs, mine in zip(twins[0].values(), weights, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), np.moveaxis(mine.get(), -1, 0))
    _, tape = step.gpu.recorded(lambda pictures: training.one_step(pictures, *batch[1:]), batch[:1])
    crops, = (arguments[5].get() for kernel, _, arguments in tape if kernel.name == "crop_flip")
    np.testing.assert_array_equal(seen[0].numpy(), crops.transpose(3, 0, 1, 2))
    run()
    for _ in range(2 + step.STEPS):
        before = float(training.totals[0])
        training.one_step(*batch)
    assert loss() == pytest.approx((float(training.totals[0]) - before)/4, rel=1e-3)


def test_who_fails_is_told_and_the_others_are_measured(monkeypatch):
    def contestants(precision, N, device, clock, row):
        row["launches"], row["kernels"] = 5, {"conv2d_forward": 4.5}
        yield "ours", lambda: (lambda: [1], lambda: 6.9)
        yield "PyTorch eager", lambda: 1/0
        yield "torch.compile", lambda: (lambda: [1], lambda: math.nan)
    monkeypatch.setattr(step, "contestants", contestants)
    asked = types.SimpleNamespace(batch_size=128, rounds=3, precisions=PRECISIONS)
    rows = list(step.measured(None, CLOCK, asked))
    assert sorted(row["precision"] for row in rows) == sorted(PRECISIONS)
    asked.precisions = ["tf32", "bf16"]
    assert [row["precision"] for row in step.measured(None, CLOCK, asked)] == ["bf16", "tf32"]
    entry = rows[0]["contestants"]
    assert entry["ours"]["ms"] == 1e3*2.0/step.STEPS and entry["ours"]["images_per_second"] == 128*step.STEPS/2.0
    lines = "\n".join(step.lines(rows[0]))
    assert entry["torch.compile"] == {"failed": "Expected: loss at the end: expected a finite number, got nan"}
    assert "failed: ZeroDivisionError" in lines and "640 images/s" in lines and "5 launches" in lines
    assert "conv2d_forward" in lines and "4.5 us" in lines


@pytest.mark.skipif(peers.torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pytorchs_step_moves_its_weights(precision, small, monkeypatch):
    twins = []
    monkeypatch.setattr(loop, "build", few_maps)
    config = step.asked(precision, 1, types.SimpleNamespace(name="cpu"))
    run, _ = step.torch_steps(config, CLOCK, lambda twin: twins.append(twin) or twin, where="cpu")
    before = twins[0][-1].bias.detach().numpy().copy()
    run()
    after = twins[0][-1].bias.detach().numpy()
    assert np.isfinite(after).all() and (after != before).any()
