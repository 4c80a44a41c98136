"""Tables 2 and 3: the declared rows and claims fit together, runs are trained once and go on, and what fails is said."""
import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from PIL import Image

from tests.train.conftest import write_set
from tests.train.test_loop import assert_same_bits
from train import ablation, network_tables
from train.__main__ import main as train
from train.ablation import CLAIMS, OF, SCALES, TABLE2, TABLE3, TABLES, chosen, main
from train.claims import LITTLE, Claim, looks_of
from train.evaluate import main as evaluate
from train.network_tables import Ensemble, Errors, Line, Result, Row, in_order, judged
from train.report import claims_table
from train.study import StudyFolder
from zfcore import checkpoint, plots
from zfcore.analysis.diagnostics import bands, radial_shares
from zfcore.models import MODELS
from zfcore.training import Training
from zfcore.training.folder import Lock, new_folder

ROOT = Path(__file__).parents[2]
SMALL = SCALES["tiny"]
SHORT = ["--image-size", "32", "--batch-size", "8", "--epochs", "2", "--drop-after", "--limit-per-class", "0", "--workers", "1",
         "--device", "cpu", "--crops", "centre"]


@pytest.fixture
def study(pictures, tmp_path):
    """The folder of a study, and what makes it short, as it would be typed."""
    return tmp_path/"study", ["--output", str(tmp_path/"study"), "--data", str(pictures), *SHORT, "--rows", "tiny",
                              "tiny-without-7"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study of two rows and a seed that nothing stopped, and what it said. Nobody changes it."""
    root, said = tmp_path_factory.mktemp("finished"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setenv("ZFCORE_CACHE", str(root/"cache"))
        patch.setattr(plots, "beside_paper", lambda *_: None)
        patch.setattr(plots, "save", lambda *_: None)
        main(["table3", "--output", str(root/"study"), "--data", str(write_set(root/"pictures")), *SHORT, "--rows", "tiny",
              "tiny-without-7", "--seeds", "1"])
    return root/"study", said.getvalue()


@pytest.fixture(autouse=True)
def undrawn(request):
    """Figures take as long as these trainings: only a test of a plot has one, and none of the runs'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("learning_curves", "filters", *(["beside_paper"] if "plot" not in request.node.name else [])):
            patch.setattr(plots, name, lambda *_: None)
        patch.setattr(plots, "save", lambda drawn, path, save=plots.save: drawn and save(drawn, path))
        yield


@pytest.fixture
def instant(monkeypatch):
    """(model, seed) of the networks, in the order in which they were trained, in no time and to no purpose."""
    names = []

    def run_or_resume(self, name, config, pictures, progress):
        names.append((config.model, config.seed))
        (new_folder(config, self.path/name)/"log.csv").write_text("\n"*(config.epochs + 1))

    monkeypatch.setattr(StudyFolder, "run_or_resume", run_or_resume)
    for module in (ablation, network_tables):
        monkeypatch.setattr(module, "result_of", lambda *_: Result(Errors(1.0, 2.0, 0.0), 10, 1.0, middle=20.0))
    return names


@pytest.fixture
def steps(monkeypatch):
    """Names of the networks in the order in which they made a step of training."""
    names = []
    def one_step(self, *batch, step=Training.one_step):
        names.append((self.network.name, self.config.seed))
        step(self, *batch)
    monkeypatch.setattr(Training, "one_step", one_step)
    return names


def line(row, errors):
    return Line(row, {seed: Result(Errors(*e), 10, 1.0, middle=20.0) for seed, e in errors.items()}, len(errors))


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
        higher, lower = claim.paper or (getattr(papers[claim.higher], claim.of), getattr(papers[claim.lower], claim.of))
        assert abs(higher - lower) <= LITTLE if claim.little else higher > lower, claim.text


def test_a_difference_of_the_papers_is_between_networks_of_one_origin():
    """Krizhevsky's own networks in table 2 are 40.7 (one) and 38.1 (five); all others that claims are about are the paper's."""
    his = "AlexNet, all seeds"
    told = {claim.text: claim.paper for claim in CLAIMS if claim.paper or his in (claim.higher, claim.lower)}
    assert told == {"1 networks together beat one: AlexNet": (40.7, 38.1)}
    assert [row.paper.top1 for row in TABLE2 if getattr(row, "label", "") == his] == [38.1]


def test_rows_of_both_tables_that_are_the_same_network_have_the_same_numbers():
    of_table3 = {row.model: row.paper for row in TABLE3}
    for row in TABLE2:
        if isinstance(row, Row):
            assert row.paper[1:] == of_table3[row.model][1:]


def test_any_model_can_be_a_row_and_an_ensemble_is_shown_where_its_networks_are():
    rows, shown = chosen("table2", SMALL, ["zfnet-b", "tiny", "tiny"])
    assert [row.model for row in rows] == ["zfnet-b", "tiny"] and rows[0].paper == Errors(None, None, None)
    assert [row.label for row in shown] == ["figure 3: (a), 1 net", "(a), all seeds", "zfnet-b"]


def test_a_claim_says_no_more_than_one_difference_can_tell():
    """Neither how far one row lies above the other, nor why."""
    assert not [claim.text for claim in CLAIMS for word in ("over-fit", "far ", "lack", "because") if word in claim.text]
    assert all(("training error" in claim.text) == (claim.of == "train") for claim in CLAIMS)


# -------------------------------------------------------------------------------------------------------------- judging
@pytest.mark.parametrize("name", TABLES)
def test_the_claims_in_bench_results_are_what_its_networks_say(name):
    """By the networks' numbers in the CSV file, which has no spectra."""
    lines = []
    with open(ROOT/"bench"/"results"/f"{name}.csv", newline="", encoding="utf-8") as file:
        of_row = {label: list(rows) for label, rows in groupby(csv.DictReader(file), key=itemgetter("row"))}
    for row in chosen(name, SMALL)[1]:
        results = {None if of["seed"] == "all" else int(of["seed"]): Result(Errors(*(
            float(of[error]) if of[error] else None for error in ("train_error", "val_top1_error", "val_top5_error"))), 1, 1.0)
            for of in of_row[row.label]}
        lines.append(Line(row, results, len(results)))
    looks = looks_of(5, 10)
    judgements = judged(CLAIMS, lines, SMALL.models, looks)
    kept = (ROOT/"bench"/"results"/f"{name}.md").read_text(encoding="utf-8").split("\n")
    head, _, *rows = claims_table(judgements, OF, looks).split("\n")
    begins = kept.index(head) + 2
    assert rows == kept[begins:kept.index("", begins) - 1] and kept[begins + len(rows)].startswith("| 4 ")


def test_claims_are_judged_by_the_rows_that_stand_for_the_papers_and_left_out_without_their_results():
    row = {r.model: r for r in chosen("table3", SMALL)[0]}
    lines = [line(row["tiny-alexnet"], {0: (9, 12, 1)}), line(row["tiny"], {0: (9, 10, 1)}), line(row["tiny-b"], {})]
    assert [(one.claim.text[0], one.paper, one.mean, one.half, one.pairs, one.needed)
            for one in judged(CLAIMS, lines, SMALL.models, [5])] == [("1", pytest.approx(2.1), 2, None, 1, None),
                                                                     ("4", None, 0, None, 1, None)]


def test_more_seeds_are_asked_of_the_rows_of_undecided_claims_but_not_of_an_ensemble():
    row = {r.model if isinstance(r, Row) else r.label: r for r in (*chosen("table3", SMALL)[1], *chosen("table2", SMALL)[1])}
    lines = [line(row["tiny-alexnet"], {0: (9, 20, 1), 1: (9, 25, 1)}), line(row["tiny"], {0: (9, 10, 1), 1: (9, 15.1, 1)}),
             line(row["(a), all seeds"], {None: (None, 9, 1)}),
             line(row["tiny-b"], {0: (9, 5, 1), 1: (9, 10, 1)})]
    judgements = {one.claim.text: one for one in judged(CLAIMS, lines, SMALL.models, [2])}
    assert judgements["1 the 7x7/2 network beats AlexNet"].verdict == "agrees"
    undecided = [one for one in judgements.values() if one.claim.higher == "zfnet" and one.claim.lower == "(a), all seeds"]
    assert ablation.asked_again(lines, undecided, SMALL) == {"tiny"}
    assert ablation.asked_again(lines, [judgements["1 the 7x7/2 network beats AlexNet"]], SMALL) == set()


def test_pairs_of_rows_in_the_papers_order_are_counted_and_its_ties_are_not():
    rows = [Row("", str(k), Errors(None, paper, None)) for k, paper in enumerate((40.0, 45.0, 40.0, 38.0))]
    assert in_order([line(row, {0: (0, ours, 0)}) for row, ours in zip(rows, (4, 5, 4.5, 4.2))]) == (4, 5)


# ------------------------------------------------------------------------------------------------------------- training
def test_a_study_trains_each_row_and_seed_once_and_writes_table_and_plot(study, steps, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "2", "--crops", "ten"])
    assert list(dict.fromkeys(steps)) == [("tiny", 0), ("tiny-without-7", 0), ("tiny", 1), ("tiny-without-7", 1)]
    text = (folder/"table3.md").read_text()
    assert " ".join(text.split()) in " ".join(capsys.readouterr().out.split()) and "Incomplete" not in text and "mean of ten crops" in text
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
    # its options are remembered
    main(["table3", "--output", str(folder), "--seeds", "2", "--rows", "tiny", "tiny-without-7"])
    assert state() == before


def test_a_run_of_a_study_is_an_ordinary_one_whose_errors_are_those_of_train_evaluate(study, pictures, capsys):
    folder, words = study
    for name in ("00.png", "01.png", "02.png"):            # errors of three equal classes would be alike in both parts
        (pictures/"val"/"jade"/name).unlink()
    main(["table2", *words, "--seeds", "2", "--rows", "tiny", "--rms-max", "0.02", "--crops", "ten"])
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


def test_more_seeds_and_rows_are_added_to_what_is_there(study, instant):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    instant.clear()
    main(["table3", *words, "--seeds", "2", "--rows", "tiny", "tiny-without-3-4"])
    assert instant == [("tiny-without-3-4", 0), ("tiny", 1), ("tiny-without-3-4", 1)]


def test_a_study_of_an_earlier_version_is_gone_on_with(study, pictures, instant):
    folder, _ = study
    folder.mkdir()
    text = """{
  "scale": "tiny",
  "options": {
    "data": %s,
    "image_size": 32,
    "batch_size": 8,
    "epochs": 2,
    "drop_after": [],
    "limit_per_class": 0,
    "workers": 1,
    "device": "cpu"
  }
}
""" % json.dumps(str(pictures))
    (folder/"study.json").write_text(text)
    main(["table3", "--output", str(folder), "--seeds", "1", "--rows", "tiny"])
    kept = json.loads((folder/"study.json").read_text())
    assert json.loads(text).items() < kept.items() and instant == [("tiny", 0)]
    assert kept.keys() - json.loads(text).keys() == {"train_key", "val_key"}            # its pictures, which it knows from now on
    options = json.loads((folder/"tiny-seed0"/"config.json").read_text())["options"]
    assert (options["batch_size"], options["drop_after"], options["lr"]) == (8, [], 0.002)


def test_stopped_in_the_middle_and_begun_again_ends_with_the_same_bits(study, finished, monkeypatch, capsys):
    folder, words = study
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
        assert_same_bits(finished[0]/run/"latest.h5", folder/run/"latest.h5")


def test_killed_before_its_first_checkpoint_a_run_begins_anew(study):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    for path in (folder/"tiny-seed0").glob("*"):
        if path.name not in ("config.json", "output.txt", "figures", ".lock"):
            path.unlink()
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    assert (folder/"tiny-seed0"/"latest.h5").is_file() and not (folder/"tiny-seed0"/"failed.txt").exists()


def test_a_network_that_fails_is_said_the_others_go_on_and_the_next_time_it_is_tried_again(study, monkeypatch, capsys):
    folder, words = study
    whole, failing = Training.one_step, {"tiny", "tiny-without-7"}
    def one_step(self, *batch):
        if self.network.name in failing:
            raise ablation.check.Expected("training", "a finite loss", "nan at epoch 1")
        whole(self, *batch)
    monkeypatch.setattr(Training, "one_step", one_step)
    assert "a network that could be trained, got 2 that failed, the first by: training: expected a finite" in refused(
        ["table3", *words, "--seeds", "1"], capsys)                      # one that failed altogether
    assert (folder/"table3.md").read_text().count("0 of 1 trained") == 2
    failing.remove("tiny-without-7")
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
    assert json.loads((folder/"tiny-seed0"/"results-centre.json").read_text())["epochs"] == 3


def refused(words, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(words)
    err = capsys.readouterr().err
    assert exit.value.code == 2 and "Traceback" not in err
    return err


def test_other_options_than_those_it_was_started_with_are_refused_before_anything_is_trained(study, instant, capsys):
    folder, words = study
    main(["table3", *words, "--seeds", "1", "--rows", "tiny"])
    instant.clear()
    err = refused(["table3", *words, "--lr", "0.5", "--rows", "tiny-without-7", "tiny"], capsys)
    assert f"--lr: expected 0.002, with which {folder/'tiny-seed0'} was started, got 0.5" in err and not instant
    assert "lr" not in json.loads((folder/"study.json").read_text())["options"]
    main(["table3", *words, "--workers", "0", "--seeds", "1", "--rows", "tiny"])


@pytest.mark.parametrize("change, sentence", [
    (["--rows", "resnet"], "--rows: expected one of tiny"),
    (["--data", "nowhere"], "nowhere, which does not exist"), (["--lr", "0"], "--lr"), (["--image-size", "400"], "--upscale")])
def test_bad_input_is_one_sentence_and_nothing_is_left_behind(study, change, sentence, capsys):
    folder, words = study
    assert sentence in refused(["table3", *words, *change], capsys)
    assert not list(folder.glob("*-seed*"))


def test_a_study_json_that_is_none_is_one_sentence(study, capsys):
    folder, words = study
    folder.mkdir()
    for content in ("", "[]", '{"scale": "huge", "options": {}}', '{"scale": [], "options": {}}',
                    '{"scale": "tiny", "options": 3}', "["*100000):
        (folder/"study.json").write_text(content)
        assert "expected the scale and options of a study" in refused(["table3", *words], capsys)
    (folder/"study.json").write_text('{"scale": "tiny", "options": {"lr": "high"}}')
    assert "study.json: lr: expected a value of type float" in refused(["table3", *words], capsys)


def test_two_studies_in_one_folder_share_the_work_and_write_one_table(study):
    """As once a core: no network is trained twice, and both wait for the other's."""
    folder, words = study
    folder.mkdir()
    undrawn = "import sys; from unittest import mock; sys.modules['zfcore.plots'] = mock.MagicMock(); from train.ablation import main; main()"
    command = [sys.executable, "-c", undrawn, "table3", *words, "--seeds", "2"]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=alone) for _ in range(2)]
    told = [process.communicate(timeout=300)[0] for process in both]
    tables = [text[text.index("Networks called"):] for text in told]
    assert [process.returncode for process in both] == [0, 0] and tables[0] == tables[1]
    assert sum(text.count("s of training\n") for text in told) == 4          # the lines of networks that each has trained
    runs = sorted(folder.glob("*-seed*"))
    assert len(runs) == 4 and all((run/"output.txt").read_text().count("epoch   1/2") == 1 for run in runs)
    assert "Incomplete" not in tables[0]


def test_on_two_devices_the_networks_are_those_of_one_and_what_fails_is_said_once(study, finished, tmp_path, capsys):
    (_, words), (folder, first) = study, finished
    rows = ["--seeds", "1", "--rows", "tiny", "tiny-without-7"]
    main(["table3", *words, *rows, "--devices", "2", "--output", str(tmp_path/"two")])
    second = capsys.readouterr().out
    for name in ("tiny-seed0", "tiny-without-7-seed0"):
        assert_same_bits(folder/name/"latest.h5", tmp_path/"two"/name/"latest.h5")
        assert first.count(f"{name}: validation error") == second.count(f"{name}: validation error") == 1
    errors = [[row[key] for row in csv.DictReader(open(at/"table3.csv")) for key in ("network", "seed", "val_top1_error")]
              for at in (folder, tmp_path/"two")]
    assert errors[0] == errors[1] and len(errors[0]) == 6
    with pytest.raises(SystemExit):
        main(["table3", *words, *rows, "--devices", "2", "--output", str(tmp_path/"bad"), "--lr", "1e30"])
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("bad/tiny-seed0: ") == 1 and "2 that failed, the first by: " in said


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


def test_seeds_are_added_for_rows_of_undecided_claims_alone(study, instant, monkeypatch, capsys):
    folder, words = study
    errors = {"tiny": (20, 30), "tiny-alexnet": (90, 99, 90), "tiny-alexnet-without-7": (91, 107, 98)}
    def result_of(run, *_):
        return Result(Errors(1.0, errors[run.config.model][run.config.seed], 0.0), 10, 1.0, middle=20.0)
    for module in (ablation, network_tables):
        monkeypatch.setattr(module, "result_of", result_of)
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
    main(["table3", "--output", str(folder), *rows, "--seeds", "2", "--until-decided", "3", "--collect", "--crops", "centre"])
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


# ------------------------------------------------------------------------------------------------------- its pictures
def without_keys(folder):
    """Make it a study of before studies knew their pictures."""
    content = json.loads((folder/"study.json").read_text())
    (folder/"study.json").write_text(json.dumps({name: content[name] for name in ("scale", "options")}))


@pytest.fixture
def begun(study, steps):
    """(folder, words) of a study with two networks; `steps` are forgotten."""
    folder, words = study
    main(["table3", *words, "--seeds", "1"])
    steps.clear()
    return folder, [*words, "--seeds", "2"]


@pytest.mark.parametrize("part, which", [("train", "training pictures"), ("val", "validation pictures")])
def test_a_study_with_other_pictures_of_the_same_names_and_sizes_is_refused_before_anything_is_trained(begun, pictures, steps, part,
                                                                                                     which, capsys):
    folder, words = begun
    before = (folder/"study.json").read_bytes(), (folder/"table3.md").read_bytes()
    path = pictures/part/"jade"/"00.png"
    kept = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns + 1))
    for more in ([], ["--collect"], ["--rows", "tiny-b"]):
        said = " ".join(refused(["table3", *words, *more], capsys).split())
        assert f"the study that was begun there ({which}), got others; put them back as they were" in said
        assert said.endswith("or name another folder") and not steps
    assert ((folder/"study.json").read_bytes(), (folder/"table3.md").read_bytes()) == before
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    main(["table3", *words])
    assert set(steps) == {("tiny", 1), ("tiny-without-7", 1)}


@pytest.mark.parametrize("old", [False, True], ids=["keys", "without keys"])
def test_which_pictures_a_study_misses_or_has_in_another_size_is_said_also_where_it_has_no_keys(begun, pictures, steps, old, capsys):
    folder, words = begun
    if old:
        without_keys(folder)
    gone, grown = pictures/"train"/"amber"/"03.png", pictures/"val"/"plum"/"01.png"
    content = gone.read_bytes()
    gone.unlink()
    with open(grown, "ab") as file:
        file.write(b"\0")
    (folder/"tiny-seed0").rename(folder.parent/"lost")                   # would be trained on what there is now
    said = " ".join(refused(["table3", *words], capsys).split())
    assert f"{folder/'tiny-without-7-seed0'}: expected the 42 pictures that it began with, got 1 missing ('train/amber/03.png'), " \
           "1 of another size ('val/plum/01.png'); put them back as they were, or name another folder" in said and not steps
    gone.write_bytes(content)
    grown.write_bytes(grown.read_bytes()[:-1])
    if old:                                                # times are not in its networks' lists
        main(["table3", *words])
        assert {"train_key", "val_key"} < json.loads((folder/"study.json").read_text()).keys()


@pytest.mark.parametrize("old", [False, True], ids=["keys", "without keys"])
def test_a_study_that_was_moved_with_its_pictures_goes_on_to_the_same_table(study, pictures, tmp_path, steps, old, monkeypatch):
    folder, words = study
    monkeypatch.chdir(tmp_path)
    words = [*words, "--output", "study", "--data", "pictures", "--seeds", "1"]
    main(["table3", *words, "--rows", "tiny"])
    training = Training.run
    monkeypatch.setattr(Training, "run", lambda *_, **__: (_ for _ in ()).throw(ablation.Stop))
    with pytest.raises(SystemExit):
        main(["table3", *words])                           # the second network has not made a step
    monkeypatch.setattr(Training, "run", training)
    if old:
        without_keys(folder)
    (tmp_path/"there").mkdir()
    for name in ("study", "pictures"):
        (tmp_path/name).rename(tmp_path/"there"/name)
    monkeypatch.chdir(tmp_path/"there")
    steps.clear()
    main(["table3", "--output", "study", "--seeds", "1", "--rows", "tiny", "tiny-without-7", "--crops", "centre"])
    assert set(steps) == {("tiny-without-7", 0)} and "Incomplete" not in Path("study/table3.md").read_text()


def test_a_study_without_a_network_takes_pictures_that_were_mended(study, pictures, instant, capsys):
    folder, words = study
    small = pictures/"train"/"jade"/"00.png"
    content = small.read_bytes()
    Image.new("RGB", (9, 9)).save(small)
    assert "9x9" in refused(["table3", *words], capsys) and (folder/"study.json").is_file()
    small.write_bytes(content)
    main(["table3", *words, "--seeds", "1"])
    assert instant == [("tiny", 0), ("tiny-without-7", 0)]


def test_a_drawn_study_is_not_gone_on_with_on_pictures_of_files_nor_the_other_way(begun, pictures, capsys):
    folder, words = begun
    assert "missing" in refused(["table3", *words, "--data", "drawn:unseen"], capsys)
    config = json.loads((folder/"tiny-seed0"/"config.json").read_text())
    config["options"]["data"] = "drawn:unseen"
    (folder/"tiny-seed0"/"config.json").write_text(json.dumps(config))
    (folder/"tiny-seed0"/"pictures.csv").unlink()
    assert "--data: expected 'drawn:unseen'" in refused(["table3", *words], capsys)
