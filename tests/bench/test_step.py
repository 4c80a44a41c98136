"""The whole step is timed on a GPU; that it is the step which is said is seen here, on the stand-in and PyTorch's CPU."""
import types

import numpy as np
import pytest

from bench import peers, step
from tests.standin import kernels
from tests.train.test_graph import counts as counts        # a fixture
from tests.train.test_graph import few_maps
from zfcore.kernel import PRECISIONS

SMALL = ["--image-size", "32"]
CLOCK = types.SimpleNamespace(wait=lambda: None, seconds=lambda run: run() and 2.0,
                              captured=lambda once, passes: lambda: once() or True)


def test_ours_is_one_replay_a_step_and_its_launches_are_counted(gpu, standin, counts, monkeypatch):
    ready, row = step.ready, {}
    monkeypatch.setattr(step, "ready", lambda *given: ready(*given, SMALL))
    monkeypatch.setattr(step, "STEPS", 3)
    found = dict(step.contestants("fp32", 4, gpu, CLOCK, row))
    run = found["ours"]()
    assert {"conv2d_forward", "sgd_step", "softmax_loss"} <= row["kernels"].keys() and set(row["kernels"].values()) == {2e6/3}
    before = counts.launched, kernels.ours
    run()
    assert counts.launched == before[0] + 3 and kernels.ours == before[1] + 3*row["launches"] and row["launches"] > 20
    run = found["ours, launch by launch"]()
    before = counts.launched, kernels.ours
    run()
    assert counts.launched == before[0] and kernels.ours == before[1] + 3*row["launches"]


def test_who_fails_is_told_and_the_others_are_measured(monkeypatch):
    def contestants(precision, N, device, clock, row):
        row["launches"], row["kernels"] = 5, {"conv2d_forward": 4.5}
        yield "ours", lambda: (lambda: [1])
        yield "PyTorch eager", lambda: 1/0
    monkeypatch.setattr(step, "contestants", contestants)
    asked = types.SimpleNamespace(batch_size=128, rounds=3, precisions=PRECISIONS)
    rows = list(step.measured(None, CLOCK, asked))
    assert sorted(row["precision"] for row in rows) == sorted(PRECISIONS)
    asked.precisions = ["tf32", "bf16"]
    assert [row["precision"] for row in step.measured(None, CLOCK, asked)] == ["bf16", "tf32"]
    entry = rows[0]["contestants"]
    assert entry["ours"]["ms"] == 1e3*2.0/step.STEPS and entry["ours"]["images_per_second"] == 128*step.STEPS/2.0
    lines = "\n".join(step.lines(rows[0]))
    assert "failed: ZeroDivisionError" in lines and "640 images/s" in lines and "5 launches" in lines
    assert "conv2d_forward" in lines and "4.5 us" in lines


@pytest.mark.skipif(peers.torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pytorchs_step_moves_its_weights(precision, monkeypatch):
    twins = []
    monkeypatch.setattr(step, "STEPS", 1)
    monkeypatch.setattr(step, "zfnet", lambda: few_maps("few", step.CLASSES, 224, 0.5).init(1, "he"))
    run = step.torch_steps(precision, 1, CLOCK, lambda twin: twins.append(twin) or twin, where="cpu")
    before = twins[0][-1].bias.detach().numpy().copy()
    run()
    after = twins[0][-1].bias.detach().numpy()
    assert np.isfinite(after).all() and (after != before).any()
