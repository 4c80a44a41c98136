"""Tables 2 and 3: the declared rows and claims fit together, runs are trained once and go on, what fails is said, and
differences are judged seed by seed."""
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.test_loop import assert_same_bits
from train import ablation
from train.__main__ import main as train
from train.ablation import (CLAIMS, LITTLE, SCALES, TABLE2, TABLE3, Claim, Ensemble, Errors, Line, Result, Row, chosen, interval,
                            main)
from train.evaluate import main as evaluate
from zfcore import checkpoint
from zfcore.analysis.diagnostics import bands, radial_shares
from zfcore.models import MODELS
from zfcore.training import Training
from zfcore.training.folder import Lock

ROOT = Path(__file__).parents[2]
SMALL = SCALES["tiny"]
SHORT = ["--image-size", "32", "--batch-size", "8", "--epochs", "2", "--drop-after", "--limit-per-class", "0", "--workers", "1",
         "--device", "cpu"]


@pytest.fixture
def study(pictures, tmp_path):
    """The folder of a study, and what makes it short, as it would be typed."""
    return tmp_path/"study", ["--output", str(tmp_path/"study"), "--data", str(pictures), *SHORT, "--rows", "tiny", "tiny-without-7"]


@pytest.fixture
def steps(monkeypatch):
    """Names of the networks in the order in which they made a step of training."""
    names = []
    def one_step(self, *batch, step=Training.one_step):
        names.append((self.network.name, self.config.seed))
        step(self, *batch)
    monkeypatch.setattr(Training, "one_step", one_step)
    return names


def line(row, errors, key=None):
    return Line(row, key or row.model, {seed: Result(Errors(*e), 10, 1.0, middle=20.0) for seed, e in errors.items()}, len(errors))


# --------------------------------------------------------------------------------------------------------- declarations
def test_table_3_has_the_papers_twelve_rows_at_both_scales_and_table_2_its_networks():
    assert [len(chosen("table3", scale)[0]) for scale in SCALES.values()] == [12, 12]
    for scale in SCALES.values():
        for table in ("table2", "table3"):
            assert {row.model for row in chosen(table, scale)[0]} <= set(MODELS)
    assert all(row.model.startswith("tiny") for table in ("table2", "table3") for row in chosen(table, SMALL)[0])
    assert [row.model for row in chosen("table2", SMALL)[0]] == ["tiny-alexnet", "tiny", "tiny-b"]
    assert [row.seed_0 for row in chosen("table2", SMALL)[1] if isinstance(row, Ensemble)] == [(), (), ("tiny-b",)]


def test_the_papers_own_numbers_satisfy_every_claim():
    papers = {(row.model if isinstance(row, Row) else row.label): row.paper for row in (*TABLE2, *TABLE3)}
    for claim in CLAIMS:
        if claim.of not in Errors._fields:
            continue
        difference = getattr(papers[claim.higher], claim.of) - getattr(papers[claim.lower], claim.of)
        assert abs(difference) <= LITTLE if claim.little else difference > 0, claim.text


def test_rows_of_both_tables_that_are_the_same_network_have_the_same_numbers():
    of_table3 = {row.model: row.paper for row in TABLE3}
    for row in TABLE2:
        if isinstance(row, Row):
            assert row.paper[1:] == of_table3[row.model][1:]


def test_any_model_can_be_a_row_and_an_ensemble_is_shown_where_its_networks_are():
    rows, shown = chosen("table2", SMALL, ["zfnet-b", "tiny", "tiny"])
    assert [row.model for row in rows] == ["zfnet-b", "tiny"] and rows[0].paper == Errors(None, None, None)
    assert [row.label for row in shown] == ["figure 3: (a), 1 net", "(a), all seeds", "zfnet-b"]


# -------------------------------------------------------------------------------------------------------------- judging
def test_the_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and half == pytest.approx(2.7764*np.sqrt(2.5/5), rel=1e-4)
    assert interval([4.0]) == (4.0, None)
    assert interval([1.0, 2.0])[1] == pytest.approx(12.706*0.5, rel=1e-4)
    assert interval(list(range(40)))[1] > 0


def test_what_two_rows_share_by_their_seed_cancels():
    a = line(Row("a", "a"), {0: (0, 10, 0), 1: (0, 50, 0), 2: (0, 90, 0)})
    b = line(Row("b", "b"), {2: (0, 89, 0), 0: (0, 9, 0), 1: (0, 48, 0), 3: (0, 7, 0)})
    assert ablation.differences(Claim("", "a", "b"), a, b) == [1, 2, 1]


def test_every_seed_is_set_against_the_one_number_of_an_ensemble():
    a = line(Row("a", "a"), {0: (0, 10, 0), 1: (0, 12, 0)})
    e = line(Ensemble("e", "a"), {None: (None, 9, 0)}, key="e")
    assert ablation.differences(Claim("", "a", "e"), a, e) == [1, 3]
    assert ablation.differences(Claim("", "e", "a"), e, a) == [-1, -3]


@pytest.mark.parametrize("mean, half, little, word", [
    (2, 1, False, "agrees"), (-2, 1, False, "does not agree"), (1, 2, False, "undecided"), (0.5, 1, True, "agrees"),
    (4, 1, True, "does not agree"), (-4, 1, True, "does not agree"), (1.5, 1, True, "undecided"),
    (1, None, False, "undecided: one pair"), (0, None, True, "undecided: one pair")])
def test_a_claim_agrees_where_its_whole_interval_lies_on_its_side(mean, half, little, word):
    assert ablation.verdict(Claim("", "a", "b", little=little), mean, half) == word


def test_claims_without_their_rows_or_results_are_left_out():
    row = {r.model: r for r in chosen("table3", SMALL)[0]}
    lines = [line(row["tiny-alexnet"], {0: (9, 12, 1)}), line(row["tiny"], {0: (9, 10, 1)}), line(row["tiny-b"], {})]
    assert [(one.claim.text[0], one.paper, one.mean, one.half, one.pairs, one.needed)
            for one in ablation.judged(lines, SMALL, [5])] == [("1", pytest.approx(2.1), 2, None, 1, None),
                                                               ("4", None, 0, None, 1, None)]


@pytest.mark.parametrize("degrees, confidence, table", [
    (1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.99, 5.841), (4, 0.95, 2.776), (9, 0.99, 3.250), (30, 0.95, 2.042),
    (120, 0.9, 1.658)])
def test_students_t_is_that_of_the_printed_tables(degrees, confidence, table):
    assert ablation.student(degrees, confidence) == pytest.approx(table, abs=6e-4)


@pytest.mark.parametrize("values, little, needed", [
    ([0.0, 2.0, 1.0, 1.0], False, 6),                       # 2.571*0.816/sqrt(6) = 0.857 < 1 < 1.014 = 2.776*0.816/sqrt(5)
    ([0.0, -2.0, -1.0, -1.0], False, 6), ([0.5, 2.5, 1.5, 1.5], True, 13), ([1.5, 3.5, 2.5, 2.5], True, 13),
    ([-1.0, 1.0], False, None), ([0.0, 0.0], False, None), ([2.0, 2.0], True, None), ([0.1, 8.0, -7.9, 0.2], False, None)])
def test_how_many_pairs_are_needed_follows_from_mean_and_spread(values, little, needed):
    found = ablation.pairs_needed(Claim("", "a", "b", little=little), values, 0.95)
    assert found == needed
    if needed:
        room = abs(LITTLE - abs(np.mean(values))) if little else abs(np.mean(values))
        half = lambda n: ablation.student(n - 1, 0.95)*np.std(values, ddof=1)/np.sqrt(n)
        assert half(needed) < room <= half(needed - 1)


def studies(difference, looks, count=1000):
    """In which of many studies of two rows whose true difference is this a claim agrees, does not agree."""
    rng, row = np.random.default_rng(0), {r.model: r for r in chosen("table3", SMALL)[0]}
    words = []
    for _ in range(count):
        a, b = ({seed: (0, value, 0) for seed, value in enumerate(rng.normal(mean, 1, looks[-1]))} for mean in (difference, 0))
        lines = [line(row["tiny-alexnet"], a), line(row["tiny"], b)]
        words.append(next(one for one in ablation.judged(lines, SMALL, looks) if one.claim.of == "top1"))
    return words


def test_looking_often_does_not_find_more_often_what_is_not_there():
    words = studies(0, [3, 6, 9, 12])
    assert np.mean([not one.undecided for one in words]) < 0.055


def test_a_claim_is_judged_by_the_first_look_that_decides_it():
    words = studies(2, [3, 6, 9, 12], 60)
    assert {one.pairs for one in words} >= {3, 6, 9} and all(one.verdict == "agrees" for one in words if one.pairs < 12)
    assert ablation.looks_of(3, 8) == [3, 6, 8] and ablation.looks_of(5, 5) == [5]


def test_more_seeds_are_asked_of_the_rows_of_undecided_claims_but_not_of_an_ensemble():
    row = {r.model if isinstance(r, Row) else r.label: r for r in (*chosen("table3", SMALL)[1], *chosen("table2", SMALL)[1])}
    lines = [line(row["tiny-alexnet"], {0: (9, 20, 1), 1: (9, 25, 1)}), line(row["tiny"], {0: (9, 10, 1), 1: (9, 15, 1)}),
             line(row["(a), all seeds"], {None: (None, 9, 1)}, "(a), all seeds"),
             line(row["tiny-b"], {0: (9, 5, 1), 1: (9, 10, 1)})]
    judgements = {one.claim.text: one for one in ablation.judged(lines, SMALL, [2])}
    assert judgements["1 the 7x7/2 network beats AlexNet"].verdict == "agrees"
    undecided = [one for one in judgements.values() if one.claim.higher == "zfnet" and one.claim.lower == "(a), all seeds"]
    assert ablation.asked_again(lines, undecided, SMALL) == {"tiny"}
    assert ablation.asked_again(lines, [judgements["1 the 7x7/2 network beats AlexNet"]], SMALL) == set()


def test_pairs_of_rows_in_the_papers_order_are_counted_and_its_ties_are_not():
    rows = [Row("", str(k), Errors(None, paper, None)) for k, paper in enumerate((40.0, 45.0, 40.0, 38.0))]
    assert ablation.in_order([line(row, {0: (0, ours, 0)}) for row, ours in zip(rows, (4, 5, 4.5, 4.2))]) == (4, 5)


# ------------------------------------------------------------------------------------------------------------- training
def test_a_study_trains_each_row_and_seed_once_and_writes_table_and_plot(study, steps, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "2", "--rows", "tiny", "tiny-without-7"])
    assert list(dict.fromkeys(steps)) == [("tiny", 0), ("tiny-without-7", 0), ("tiny", 1), ("tiny-without-7", 1)]
    text = (folder/"table3.md").read_text()
    assert text in capsys.readouterr().out and "Incomplete" not in text and "mean of ten crops" in text
    assert "30 training and 12 validation pictures, input 32x32, 2 epochs" in text
    assert "| figure 3 | `tiny` | 33.1 | 38.4 | 16.5 |" in text and "| tiny-without-7 | `tiny-without-7` |  |  |  |" in text
    with open(folder/"table3.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["seed"]) for row in rows] == [("tiny", "0"), ("tiny", "1"), ("tiny-without-7", "0"),
                                                               ("tiny-without-7", "1")]
    assert Image.open(folder/"table3.png").size[0] > 500
    def state():
        return (folder/"table3.md").read_text(), len(steps), (folder/"tiny-seed0"/"latest.h5").stat().st_mtime_ns
    before = state()
    main(["table3", "--output", str(folder), "--seeds", "2", "--rows", "tiny", "tiny-without-7"])       # its options are remembered
    assert state() == before


def test_a_run_of_a_study_is_an_ordinary_one_whose_errors_are_those_of_train_evaluate(study, pictures, capsys):
    folder, words = study
    for name in ("00.png", "01.png", "02.png"):            # errors of three equal classes would be alike in both parts
        (pictures/"val"/"jade"/name).unlink()
    main(["table2", *words, "--seeds", "2", "--rows", "tiny", "--rms-max", "0.02"])
    kept = json.loads((folder/"tiny-seed0"/"results-ten.json").read_text())
    found, trained = kept["errors"], checkpoint.load(folder/"tiny-seed0"/"latest.h5")
    both = [sum(checkpoint.load(folder/f"tiny-seed{k}"/"latest.h5").history["filters_clamped"]) for k in range(2)]
    assert kept["clamped"] == both[0] > 0 and f"scaled a filter back {int(sum(both))} times" in (folder/"table2.md").read_text()
    assert kept["middle"] == pytest.approx(100*bands(radial_shares(trained.parameters["conv1"]["w"]))["mid"])
    runs = [str(folder/f"tiny-seed{k}"/"latest.h5") for k in range(2)]
    for name, members, part, expected in (
            ("val", runs[:1], "val", found["top1"]), ("train", runs[:1], "train", found["train"]),
            ("both", runs, "val", float(last_cell(folder/"table2.md", "(a), all seeds")))):
        evaluate(["--run", *members, "--crops", "ten", "--part", part, "--output", str(folder/name)])
        assert json.loads((folder/name/"summary.json").read_text())["top1_error"]*100 == pytest.approx(expected, abs=0.05)
    assert found["top5"] is None                           # among three classes


def last_cell(path, label):
    """The validation top-1 error of the row called `label`."""
    cells = next(row for row in path.read_text().splitlines() if row.startswith(f"| {label}")).split(" | ")
    return cells[4]


def test_more_seeds_and_rows_are_added_to_what_is_there(study, steps):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    steps.clear()
    main(["table3", *words, "--seeds", "2", "--rows", "tiny", "tiny-without-3-4"])
    assert set(steps) == {("tiny-without-3-4", 0), ("tiny", 1), ("tiny-without-3-4", 1)}


def test_stopped_in_the_middle_and_begun_again_ends_with_the_same_bits(study, tmp_path, monkeypatch, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--output", str(tmp_path/"whole")])
    count = []
    def one_step(self, *batch, step=Training.one_step):
        step(self, *batch)
        count.append(1)
        if len(count) == 13:                               # in the second network's second epoch
            os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(Training, "one_step", one_step)
    with pytest.raises(SystemExit) as exit:
        main(["table3", *words, "--seeds", "1"])
    assert exit.value.code == 143 and "the same command goes on" in capsys.readouterr().out
    main(["table3", "--output", str(folder), "--collect", "--seeds", "1", "--rows", "tiny", "tiny-without-7"])
    assert "**Incomplete: networks are missing in 1 of 2 rows.**" in capsys.readouterr().out
    main(["table3", *words, "--seeds", "1"])
    assert len(count) == 16 and (folder/"table3.csv").read_text().count("tiny-without-7,0") == 1
    for run in ("tiny-seed0", "tiny-without-7-seed0"):
        assert_same_bits(tmp_path/"whole"/run/"latest.h5", folder/run/"latest.h5")


def test_killed_before_its_first_checkpoint_a_run_begins_anew(study):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    for path in (folder/"tiny-seed0").glob("*"):
        if path.name not in ("config.json", "output.txt", "figures"):
            path.unlink()
    for path in (folder/"tiny-seed0"/"figures").iterdir():
        path.unlink()
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    assert (folder/"tiny-seed0"/"latest.h5").is_file() and not (folder/"tiny-seed0"/"failed.txt").exists()


def test_a_network_that_fails_is_said_the_others_go_on_and_the_next_time_it_is_tried_again(study, monkeypatch, capsys):
    folder, words = study
    whole = Training.one_step
    def one_step(self, *batch):
        if self.network.name == "tiny":
            raise ablation.check.Expected("training", "a finite loss", "nan at epoch 1")
        whole(self, *batch)
    monkeypatch.setattr(Training, "one_step", one_step)
    main(["table3", *words, "--seeds", "1"])
    text = (folder/"table3.md").read_text()
    assert "0 of 1 trained; tiny-seed0 failed: training: expected a finite loss, got nan at epoch 1 |" in text
    assert text.startswith("**Incomplete") and "tiny-without-7,0," in (folder/"table3.csv").read_text()
    monkeypatch.setattr(Training, "one_step", whole)
    main(["table3", *words, "--seeds", "1"])
    assert not (folder/"tiny-seed0"/"failed.txt").exists()
    assert "failed" not in (folder/"table3.md").read_text() and "Incomplete" not in (folder/"table3.md").read_text()


def test_collecting_trains_nothing_and_says_what_is_missing(study, steps, capsys):
    folder, words = study
    main(["table2", *words, "--collect", "--rows", "tiny", "tiny-b"])
    out = capsys.readouterr().out
    assert not steps and not list(folder.glob("tiny*")) and out.count("0 of 5 trained") == 2 and "0 of 6 trained" in out


def test_a_run_that_python_m_train_resumes_further_is_not_taken_for_the_studys(study, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    train(["--resume", str(folder/"tiny-seed0"), "--epochs", "3"])
    assert "--epochs: expected 3, with which" in refused(["table3", *words, "--rows", "tiny"], capsys)
    main(["table3", *words, "--seeds", "1", "--rows", "tiny", "--epochs", "3"])
    assert json.loads((folder/"tiny-seed0"/"results-ten.json").read_text())["epochs"] == 3


def refused(words, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(words)
    err = capsys.readouterr().err
    assert exit.value.code == 2 and "Traceback" not in err
    return err


def test_other_options_than_those_it_was_started_with_are_refused_before_anything_is_trained(study, steps, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    steps.clear()
    err = refused(["table3", *words, "--lr", "0.5", "--rows", "tiny-without-7", "tiny"], capsys)
    assert f"--lr: expected 0.002, with which {folder/'tiny-seed0'} was started, got 0.5" in err and not steps
    assert "lr" not in json.loads((folder/"study.json").read_text())["options"]
    main(["table3", *words, "--workers", "0", "--seeds", "1", "--rows", "tiny"])


@pytest.mark.parametrize("change, sentence", [
    (["--rows", "resnet"], "--rows: expected one of tiny"), (["--seeds", "0"], "--seeds: expected a number above 0"),
    (["--data", "nowhere"], "nowhere, which does not exist"), (["--lr", "0"], "--lr"), (["--image-size", "400"], "--upscale")])
def test_bad_input_is_one_sentence_and_nothing_is_left_behind(study, change, sentence, capsys):
    folder, words = study
    assert sentence in refused(["table3", *words, *change], capsys)
    assert not list(folder.glob("*-seed*"))


def test_a_study_json_that_is_none_is_one_sentence(study, capsys):
    folder, words = study
    folder.mkdir()
    for content in ("", "[]", '{"scale": "huge", "options": {}}', '{"scale": "tiny", "options": 3}'):
        (folder/"study.json").write_text(content)
        assert "expected the scale and options of a study" in refused(["table3", *words], capsys)


def test_two_studies_in_one_folder_share_the_work_and_write_one_table(study):
    """As once a core: no network is trained twice, and both wait for the other's."""
    folder, words = study
    folder.mkdir()
    command = [sys.executable, "-m", "train.ablation", "table3", *words, "--seeds", "4", "--epochs", "3"]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=alone) for _ in range(2)]
    told = [process.communicate(timeout=300)[0] for process in both]
    tables = [text[text.index("Networks called"):] for text in told]
    assert [process.returncode for process in both] == [0, 0] and tables[0] == tables[1]
    assert sum(text.count("s of training\n") for text in told) == 8          # the lines of networks that each has trained
    runs = sorted(folder.glob("*-seed*"))
    assert len(runs) == 8 and all((run/"output.txt").read_text().count("epoch   1/3") == 1 for run in runs)
    assert "Incomplete" not in tables[0]


def test_a_network_that_another_is_at_comes_last_and_is_not_tried_again_where_it_fails_there(study, steps):
    folder, words = study
    folder.mkdir()
    elsewhere = Lock(folder, ".tiny.0.lock")
    elsewhere.__enter__()

    def let_go():
        while ("tiny", 1) not in steps:
            time.sleep(0.01)
        (folder/"tiny-seed0").mkdir()
        (folder/"tiny-seed0"/"failed.txt").write_text("no memory there\n")
        elsewhere.__exit__()
    other = threading.Thread(target=let_go)
    other.start()
    main(["table3", *words, "--seeds", "2", "--rows", "tiny"])
    other.join()
    assert set(steps) == {("tiny", 1)} and "tiny-seed0 failed: no memory there" in (folder/"table3.md").read_text()


def test_collecting_does_not_wait_for_a_study_at_work(study):
    folder, words = study
    folder.mkdir()
    with Lock(folder, ".tiny.0.lock"):
        main(["table3", *words, "--collect"])
    assert not list(folder.glob("*-seed*"))


def test_seeds_are_added_for_rows_of_undecided_claims_alone(study, monkeypatch, capsys):
    folder, words = study
    errors = {"tiny": (20, 30), "tiny-alexnet": (90, 99, 90), "tiny-alexnet-without-7": (91, 107, 98)}
    def result_of(run, *_):
        return Result(Errors(1.0, errors[run.row.model][run.config.seed], 0.0), 10, 1.0, middle=20.0)
    monkeypatch.setattr(ablation, "result_of", result_of)
    monkeypatch.setattr(ablation, "CLAIMS", (
        Claim("one", "alexnet", "zfnet"), Claim("two", "alexnet-without-7", "alexnet", little=True)))
    rows = ["--rows", "tiny", "tiny-alexnet", "tiny-alexnet-without-7", "--epochs", "1"]
    main(["table3", *words, *rows, "--seeds", "2", "--until-decided", "3"])
    assert {path.name for path in folder.glob("*-seed*")} == {f"{row}-seed{k}" for row, seeds in (
        ("tiny", 2), ("tiny-alexnet", 3), ("tiny-alexnet-without-7", 3)) for k in range(seeds)}
    text = (folder/"table3.md").read_text()
    assert "2 looks at a claim, after 2, 3 seeds" in text and "the whole 97.5 % interval" in text
    assert "2 pairs | agrees |" in text
    before = text
    main(["table3", "--output", str(folder), *rows, "--seeds", "2", "--until-decided", "3", "--collect"])
    assert (folder/"table3.md").read_text() == before
    assert "--until-decided: expected no fewer than the first 2" in refused(
        ["table3", *words, *rows, "--seeds", "2", "--until-decided", "1"], capsys)


def test_a_full_disk_ends_the_study_with_a_sentence(study, monkeypatch, capsys):
    folder, words = study
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(checkpoint, "flush", full)
    assert "make room there" in refused(["table3", *words], capsys)


def test_the_papers_scale_asks_for_imagenet(tmp_path, capsys):
    assert "--scale full: expected --data" in refused(["table3", "--scale", "full", "--output", str(tmp_path/"s")], capsys)
    assert not (tmp_path/"s").exists()
