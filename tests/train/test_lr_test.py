"""The learning-rate range test finds where a network learns, keeps what it measured, and leaves nothing to resume."""
import csv
import math
import os
import signal
from itertools import islice

import numpy as np
import pytest

from train import lr_test
from train.__main__ import main
from train.lr_test import DIVERGED, HIGHEST, LOWEST, SETTLED, STEPS, Row, suggestion
from train.options import parser
from zfcore.training import TrainConfig, Training, resolve


@pytest.fixture
def typed(options):
    return [*options, "--lr-test", "--output"]


def rows_of(folder):
    with open(folder/"lr_test.csv") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def curve(loss, steps=STEPS):
    """Rows whose running mean is loss(log10 of the rate)."""
    lrs = np.geomspace(LOWEST, HIGHEST, STEPS)[:steps]
    return [Row(k + 1, lr, 0.0, loss(math.log10(lr))) for k, lr in enumerate(lrs)]


def test_the_rates_grow_by_one_factor_and_the_running_mean_is_that_of_the_losses(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lr_test, "STEPS", 90)
    main([*typed, str(tmp_path/"test")])
    rows = rows_of(tmp_path/"test")
    assert sorted(path.name for path in (tmp_path/"test").iterdir()) == ["lr_test.csv", "lr_test.png"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and rows[0]["lr"] == LOWEST
    ratios = np.array([b["lr"]/a["lr"] for a, b in zip(rows, rows[1:])])
    np.testing.assert_allclose(ratios, (HIGHEST/LOWEST)**(1/89), rtol=1e-4)          # six figures are written
    for k in (0, 1, 7, 30):
        weights = 0.95**np.arange(k, -1, -1)
        assert rows[k]["smoothed"] == pytest.approx((weights*[row["loss"] for row in rows[:k + 1]]).sum()/weights.sum(),
                                                    rel=1e-4)
    assert rows[0]["loss"] == pytest.approx(math.log(3), rel=0.2) and min(row["smoothed"] for row in rows) < 0.8*math.log(3)
    out = capsys.readouterr().out
    lr = float(out.split("suggested: --lr ")[1].split(",")[0])
    assert LOWEST < lr < min(rows[SETTLED:], key=lambda row: row["smoothed"])["lr"]


def test_its_first_steps_are_those_of_training_at_such_rates(options, tmp_path):
    config = resolve(vars(parser().parse_args(options)))
    rows = islice(lr_test.measured(prepared(config)), 4)
    training = prepared(config)
    for row, batch in zip(rows, training.train.batches(8, 0, 0)):
        before, training.plateau.lr = training.added_up()[0], row.lr
        training.one_step(*batch)
        assert (training.added_up()[0] - before)/len(batch[1]) == pytest.approx(row.loss, rel=1e-12)
    assert training.step == 4


def prepared(config):
    return Training("nowhere", *Training.materials(config))


@pytest.mark.parametrize("what", [lambda k: 10.0*2**k, lambda k: math.nan if k == 40 else 1.0,
                                  pytest.param(lambda k: math.inf if k == 40 else 1.0, marks=pytest.mark.exhaustive)],
                         ids=["growing", "nan", "inf"])
def test_a_loss_that_diverges_or_is_not_finite_ends_it_there(what, options, tmp_path, monkeypatch, capsys):
    def added_up(self):
        return self.sums.count*(what(self.step - 1) if self.step > 30 else 1.0), 0.0, 0.0
    monkeypatch.setattr(Training, "added_up", added_up)
    main([*options, "--lr-test", "--output", str(tmp_path/"test")])
    rows = rows_of(tmp_path/"test")
    assert 30 < len(rows) <= 41 and not rows[-1]["smoothed"] <= DIVERGED
    assert all(row["smoothed"] <= DIVERGED for row in rows[:-1])
    assert f"diverged at a learning rate of {rows[-1]['lr']:.2g}, step {len(rows)}" in capsys.readouterr().out


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive), signal.SIGTERM])
def test_a_signal_keeps_what_was_measured(number, typed, tmp_path, monkeypatch, capsys):
    def one_step(self, *batch, step=Training.one_step):
        if self.step == 12:
            os.kill(os.getpid(), number)
        step(self, *batch)
    monkeypatch.setattr(Training, "one_step", one_step)
    with pytest.raises(SystemExit) as exit:
        main([*typed, str(tmp_path/"test")])
    assert exit.value.code == 128 + number and len(rows_of(tmp_path/"test")) == 13
    assert "stopped after 13 of" in capsys.readouterr().out and (tmp_path/"test"/"lr_test.png").is_file()


def test_it_cannot_be_resumed_nor_resume_a_run_nor_take_a_folder_that_holds_something(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lr_test, "STEPS", 3)
    main([*typed, str(tmp_path/"test")])
    for words, sentence in ((["--resume", str(tmp_path/"test")], "a run's folder with a latest.h5"),
                            (["--lr-test", "--resume", str(tmp_path/"test")], "--lr-test: expected no --resume"),
                            ([*typed, str(tmp_path/"test")], "a new or empty folder")):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 2 and sentence in capsys.readouterr().err


def test_the_suggestion_is_where_the_loss_falls_fastest_before_it_is_lowest():
    lr, reason = suggestion(curve(lambda x: 2.3 - 1.5/(1 + math.exp(-12*(x + 3))) + 3*max(x + 2, 0)**2))     # fastest at 1e-3
    assert lr == 0.001 and "lowest, 0.8, at" in reason
    lr, _ = suggestion(curve(lambda x: np.interp(x, [-5, -4, -3, -2, -1.5, 0], [2.3, 2.2, 1, 3, 1.2, 1.2])))
    assert 1e-4 <= lr <= 1e-3                                            # the steeper fall behind the rise does not count


def test_without_a_fall_or_with_too_few_steps_there_is_no_suggestion():
    for config, is_cure in ((TrainConfig(), True), (TrainConfig(init="he"), False)):
        lr, reason = suggestion(curve(lambda x: 2.3 - 0.02*(x + 5)/5), config.other_law)
        assert lr is None and "never fell by 5 % below the 2.3" in reason and ("try --init he, a larger" in reason) == is_cure
    assert suggestion(curve(lambda x: -x, 2*SETTLED))[0] is None and suggestion([])[0] is None
    assert suggestion(curve(lambda x: math.nan if x > -4 else -x + 5))[0]
