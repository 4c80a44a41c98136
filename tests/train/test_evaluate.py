"""Errors are counted as the definitions say, from one crop or the mean of ten, and printed with their protocol."""
import numpy as np
import pytest

from train import evaluate as module
from train.__main__ import main as train
from train.evaluate import evaluate, main, probabilities
from zfcore.backend import CPU
from zfcore.models import build


class Answers:
    """Stands for a Pictures set of 4 pictures."""
    def __init__(self, labels):
        self.labels, self.damaged, self.dataset = np.array(labels), {}, self
        self.classes = "abcdefghij"

    def batches(self, size, seed, epoch, shuffle, device=CPU):
        yield np.zeros((len(self.labels), 8, 8, 3), np.uint8), self.labels, np.arange(len(self.labels))


def score_of(p, labels, monkeypatch):
    monkeypatch.setattr(module, "probabilities", lambda *_: np.array(p, np.float32).T)
    return evaluate([(None, None)], Answers(labels), CPU)


def test_top1_and_top5_errors_are_the_shares_outside_the_first_and_the_first_five(monkeypatch):
    rising = np.arange(1, 8)/28                            # class 6 first, class 2 fifth, class 1 sixth
    s = score_of([rising]*4, [6, 2, 1, 0], monkeypatch)
    assert (s.top1, s.top5, s.count) == (0.75, 0.5, 4)
    assert s.loss == pytest.approx(-np.log(rising[[6, 2, 1, 0]]).mean(), rel=1e-6)


def test_a_network_that_answers_the_same_for_all_classes_is_wrong(monkeypatch):
    s = score_of([np.full(10, 0.1)]*3, [0, 5, 9], monkeypatch)
    assert (s.top1, s.top5) == (1, 1)


def test_a_probability_of_zero_gives_a_finite_loss(monkeypatch):
    assert np.isfinite(score_of([[1.0, 0.0]], [1], monkeypatch).loss)


def test_ten_crops_are_the_mean_of_ten_softmaxes_and_see_the_mirrored_picture():
    network = build("tiny", 3, 32).init(0, "he")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    mean = np.full((3, 40, 40), 127, np.float32)
    ten = probabilities(network, pictures, mean, CPU, "ten")
    mirrored = probabilities(network, np.ascontiguousarray(pictures[:, :, ::-1]), mean, CPU, "ten")
    centre = probabilities(network, pictures, mean, CPU)
    np.testing.assert_allclose(ten, mirrored, atol=1e-6)
    np.testing.assert_allclose(ten.sum(axis=0), 1, atol=1e-6)
    assert np.abs(ten - centre).max() > 1e-6
    inner = probabilities(network, np.ascontiguousarray(pictures[:, 4:36, 4:36]), mean[:, 4:36, 4:36], CPU)
    np.testing.assert_array_equal(centre, inner)


def test_the_command_prints_the_errors_with_their_protocol(options, tmp_path, capsys):
    train([*options, "--output", str(tmp_path/"run")])
    for crops, words in (("centre", "centre crop"), ("ten", "mean of ten crops")):
        main(["--run", str(tmp_path/"run"), "--crops", crops])
        assert f"({words}, 1 network, 12 validation pictures)" in capsys.readouterr().out


def test_another_sets_classes_are_refused(options, tmp_path, capsys, pictures):
    train([*options, "--output", str(tmp_path/"run")])
    (pictures/"train"/"plum").rename(pictures/"train"/"violet")
    (pictures/"val"/"plum").rename(pictures/"val"/"violet")
    with pytest.raises(SystemExit) as exit:
        main(["--run", str(tmp_path/"run")])
    assert exit.value.code == 2 and "amber, jade, plum" in capsys.readouterr().err
