"""python -m train.transfer: the tables in small, gone on with after every kind of stop, and what is refused."""
import csv
import json
import re
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.data.test_voc import write_year
from train import caltech_tables, study, transfer_study, voc_table
from train.__main__ import main as train
from train.caltech_tables import TABLE7, TABLES, claim_of_features, claim_of_layers, claim_of_six
from train.report import mean_spread
from train.study import measured
from train.transfer import main
from train.transfer_study import Fitted, Joined
from train.voc_table import TABLE6, Scores
from zfcore import networks, plots, results
from zfcore.analysis.probing import probe, random_projection
from zfcore.checkpoint import load, save, write_csv
from zfcore.data.caltech import open_caltech
from zfcore.data.loader import Pictures
from zfcore.data.transforms import centre_crops
from zfcore.data.voc import CLASSES, average_precision
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.models import build
from zfcore.network import Network
from zfcore.ops.crop_flip import crop_flip
from zfcore.trained import Trained
from zfcore.training import TrainConfig, Training
from zfcore.training.config import read_options
from zfcore.training.folder import Lock

CALTECH = {"amber": (230, 160, 30), "jade": (40, 170, 110), "plum": (120, 50, 130), "slate": (90, 100, 120)}
COUNTS = 9, 7, 11, 8
TABLE4 = ["table4", "--train", "2", "4", "--folds", "2", "--scratch-folds", "1", "--scratch-epochs", "2"]
TABLE6_IN_SMALL, TABLE7_IN_SMALL = ["table6", "--scratch-epochs", "2"], ["table7", "--train", "4", "--folds", "2"]

DRAWN = "accuracy_curve", "accuracy_by_layer", "average_precisions"


def ratio_of(train):
    """The mean share of COUNTS that is tested on, all but so many, over the share that is not."""
    share = np.mean([(n - train)/n for n in COUNTS])
    return share/(1 - share)


def noise(rng, colour, size=(39, 44)):
    return Image.fromarray(np.uint8(np.clip(np.array(colour) + rng.normal(0, 60, (size[1], size[0], 3)), 0, 255)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of one epoch, a Caltech tree and a VOCdevkit, made once."""
    root, patch = tmp_path_factory.mktemp("transfer"), pytest.MonkeyPatch()
    patch.setenv("ZFCORE_CACHE", str(root/"cache"))
    from tests.train.conftest import write_set
    write_set(root/"pictures")
    train(["--data", str(root/"pictures"), "--preset", "tiny", "--image-size", "32", "--batch-size", "8", "--epochs", "1",
           "--workers", "1", "--device", "cpu", "--output", str(root/"run"), "--seed", "1"])
    rng = np.random.default_rng(5)
    for (name, colour), count in zip(CALTECH.items(), COUNTS):
        (root/"101_ObjectCategories"/name).mkdir(parents=True)
        for k in range(1, count + 1):
            noise(rng, colour).save(root/"101_ObjectCategories"/name/f"image_{k:04}.jpg", quality=95)
    write_voc(root/"voc", rng)
    yield root
    patch.undo()


def write_voc(root, rng):
    """Pictures of dogs (amber), cats (jade), both or difficult ones; cows only among those that are scored."""
    shows = [[("dog", 0)], [("cat", 0)], [("dog", 0), ("cat", 0)], [("person", 0), ("cat", 1)], [("dog", 1)]]
    objects = {f"p{k:02}": shows[k % 5] for k in range(30)} | {"p30": [("cow", 0)], "p31": [("cow", 0), ("dog", 0)]}
    labels = {id: {CLASSES.index(name): 1 - difficult for name, difficult in things} for id, things in objects.items()}
    ids = sorted(objects)
    write_year(root, {"train": ids[:15], "val": ids[15:]}, objects, labels)
    for id, things in objects.items():
        colour = np.mean([{"dog": (230, 160, 30), "cat": (40, 170, 110)}.get(name, (90, 90, 160)) for name, _ in things],
                         axis=0)
        noise(rng, colour).save(root/f"VOCdevkit/VOC2012/JPEGImages/{id}.jpg", quality=95)


@pytest.fixture(autouse=True)
def undrawn(request):
    """Figures take longer than all else here: only tests marked `figures` have any."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("figures"):
            for name in ("learning_curves", "filters", *DRAWN):
                patch.setattr(plots, name, lambda *_: None)
            patch.setattr(plots, "save", lambda drawn, path, save=plots.save: drawn and save(drawn, path))
        yield


@pytest.mark.figures
@pytest.mark.parametrize("name", ["table4", "table6", "table7"])
def test_each_table_has_a_figure_that_is_drawn(call, finished, made, tmp_path, name):
    words, data = {"table4": (TABLE4, None), "table6": (TABLE6_IN_SMALL, made/"voc"), "table7": (TABLE7_IN_SMALL, None)}[name]
    shutil.copytree(finished(*words, data=data), tmp_path/"out")
    assert call(*words, data=data)[0] == 0
    with Image.open(tmp_path/f"out/{name}.png") as figure:
        assert figure.size[0] > 500 and len(figure.convert("RGB").getcolors(10**6)) > 20


def command(made, *arguments, output, data=None, run=None):
    """The command on `made`: its exit status."""
    try:
        main([arguments[0], "--run", str(run or made/"run"), "--data", str(data or made/"101_ObjectCategories"), "--output",
              str(output), "--workers", "1", "--device", "cpu", *map(str, arguments[1:])])
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture
def call(made, tmp_path, monkeypatch, capsys):
    """call(arguments): the command on `made` with OUT in tmp_path; its exit status, standard output, standard error."""
    monkeypatch.setenv("ZFCORE_CACHE", str(made/"cache"))

    def run(*arguments, output=tmp_path/"out", **more):
        status = command(made, *arguments, output=output, **more)
        return status, *capsys.readouterr()
    return run


@pytest.fixture(scope="module")
def finished(made):
    """finished(arguments): the folder of the command on `made`, which is given once and went on to its end. Nobody changes
    it."""
    folders = {}

    def run(*arguments, data=None):
        if arguments not in folders:
            folders[arguments] = made/f"finished-{len(folders)}"
            with pytest.MonkeyPatch.context() as patch:                # a test of figures may be the first to ask
                patch.setattr(Training, "draw", lambda training: None)
                for name in DRAWN:
                    patch.setattr(plots, name, lambda *_: None)
                patch.setattr(plots, "save", lambda *_: None)
                assert command(made, *arguments, output=folders[arguments], data=data) == 0
        return folders[arguments]
    return run


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------------- tables 4, 5
def test_table4_sets_features_beside_random_weights_and_both_beside_the_paper(call, finished, tmp_path):
    shutil.copytree(finished(*TABLE4), tmp_path/"out")
    status, printed, _ = call(*TABLE4)
    assert status == 0
    text = (tmp_path/"out/table4.md").read_text()
    assert " ".join(text.split()) in " ".join(printed.split())
    found = {row["what"]: row for row in rows(tmp_path/"out/table4.csv") if row["train_per_class"] == "4"}
    parts = rows(tmp_path/"out/parts.csv")
    assert {(p["kind"], p["network"], p["train_per_class"], p["fold"]) for p in parts} == {
        *(("softmax", network, n, fold) for network in ("run", "untrained") for n in "24" for fold in "01"),
        ("scratch", "", "2", "0"), ("scratch", "", "4", "0")}
    mine = {network: [100*float(p["accuracy"]) for p in parts if (p["network"], p["train_per_class"]) == (network, "4")]
            for network in ("run", "untrained")}
    for network, row in (("run", "features of the run"), ("untrained", "features of random weights")):
        mean, spread = np.mean(mine[network]), np.std(mine[network], ddof=1)
        assert float(found[row]["accuracy"]) == pytest.approx(mean, abs=1e-3)
        assert float(found[row]["spread"]) == pytest.approx(spread, abs=1e-3)
        assert re.search(rf"\| here: {row} \| .* \| {mean:.1f} ± {spread:.1f} \|", text)
    one, other = np.subtract(mine["run"], mine["untrained"])
    ratio = ratio_of(4)
    half = 12.706*abs(one - other)/2*np.sqrt(1 + 2*ratio)     # Student's for two values, of deviation |a-b|/sqrt(2), of one pool
    middle = (one + other)/2
    assert f"{middle:+.1f} ({middle - half:+.1f} to {middle + half:+.1f}) points at 4 a class in 2 folds: " in text
    assert found["features of the run"]["folds"] == "2" and found["from random weights"]["spread"] == ""
    assert all(p["train"] == str(4*int(p["train_per_class"])) for p in parts)
    assert "chance is 25.0 %" in text and "over 2 folds (1 of networks from random weights)" in text and "2 epochs of the training pictures" in text
    first = {p["network"]: 100*float(p["accuracy"]) for p in parts if (p["fold"], p["train_per_class"]) == ("0", "4")}
    assert f"{first['run'] - first['']:+.1f} points at 4 a class in 1 fold;" in text and "weights: undecided (" in text
    assert "do not fit their own training pictures yet" in text
    assert (tmp_path/"out/scratch-4-fold0/log.csv").read_text().count("\n") == 3


def test_what_is_counted_is_the_mean_of_the_classes_on_the_test_pictures_of_each_fold(call, made, tmp_path, monkeypatch):
    theirs = pytest.importorskip("sklearn.linear_model").LogisticRegression
    asked = []

    def watched(kind, features, train, labels, test, M, held, measure):
        found = probe(kind, features, train, labels, test, M, held, measure)
        x = features[:, :].astype(float)
        x -= x[train].mean(axis=0)
        x /= np.sqrt(np.square(x[train]).sum(axis=1).mean())
        predicted = theirs(C=found.C, max_iter=5000, tol=1e-8).fit(x[train], labels).predict(x[test])
        asked.append((train, test, predicted, held))
        return found

    monkeypatch.setattr(caltech_tables, "probe", watched)
    call("table4", "--train", 3, "--folds", 2, "--no-scratch", "--test-most", 4)
    of_all = np.repeat(np.arange(4), COUNTS)                             # classes are sorted as CALTECH is
    parts = sorted(rows(tmp_path/"out/parts.csv"), key=lambda part: (part["fold"], part["network"]))        # as they were asked
    assert len(asked) == len(parts) == 4
    for (chosen, test, predicted, _), part in zip(asked, parts):
        assert not set(chosen) & set(test) and np.bincount(of_all[chosen]).tolist() == [3]*4
        assert np.bincount(of_all[test]).tolist() == [4, 4, 4, 4]
        each = [np.mean(predicted[of_all[test] == c] == c) for c in range(4)]
        assert float(part["accuracy"]) == pytest.approx(np.mean(each), abs=0.07)
    assert np.array_equal(asked[0][0], asked[1][0]) and not np.array_equal(asked[0][0], asked[2][0])
    # held out to choose C
    assert np.array_equal(asked[0][3], asked[1][3]) and not np.array_equal(asked[0][3], asked[2][3])


def test_a_finished_table_is_not_computed_again_and_may_get_more_folds(call, finished, tmp_path, monkeypatch):
    shutil.copytree(finished(*TABLE4), tmp_path/"out")
    before, text = rows(tmp_path/"out/parts.csv"), (tmp_path/"out/table4.md").read_text()
    monkeypatch.setattr(caltech_tables, "probe", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(study, "StudiedTraining", None)                       # whoever trained again would fail
    assert call(*TABLE4)[0] == 0
    assert rows(tmp_path/"out/parts.csv") == before and (tmp_path/"out/table4.md").read_text() == text
    monkeypatch.undo()
    assert call("table4", "--train", 2, "--folds", 3, "--no-scratch", "--scratch-epochs", 2)[0] == 0
    after = rows(tmp_path/"out/parts.csv")
    assert len(after) == len(before) + 2 and all(part in after for part in before)


def test_a_stopped_command_goes_on_to_the_same_numbers(call, finished, tmp_path, monkeypatch):
    whole, calls = finished(*TABLE4), []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return probe(*arguments)

    monkeypatch.setattr(caltech_tables, "probe", stopped)
    status, _, told = call(*TABLE4)
    assert status == 130 and "Give the command again" in told and len(rows(tmp_path/"out/parts.csv")) == 2
    assert call(*TABLE4)[0] == 0 and len(calls) == 9
    accuracies = [[(p["kind"], p["accuracy"], p["C"]) for p in rows(folder/"parts.csv")] for folder in (whole, tmp_path/"out")]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize("table", ["table4", pytest.param("table6", marks=pytest.mark.exhaustive)])
def test_on_two_devices_the_numbers_are_those_of_one(call, finished, made, tmp_path, table):
    words, data = {"table4": (TABLE4, made/"101_ObjectCategories"),
                   "table6": (TABLE6_IN_SMALL, made/"voc")}[table]
    shutil.copytree(finished(*words, data=data), tmp_path/"one")
    assert call(*words, "--devices", "2", data=data, output=tmp_path/"two")[0] == 0
    found = []
    for name in ("one", "two"):
        of = rows(tmp_path/name/f"{table}.csv")
        if table == "table4":
            of += [{**row, "seconds": ""} for row in rows(tmp_path/name/"parts.csv")]
        found.append(of)
    assert found[0] == found[1] and len(found[0]) > 5
    # nothing is left, no process begins
    assert call(*words, "--devices", "2", data=data, output=tmp_path/"two")[0] == 0


@pytest.mark.parametrize("killed_at", ["save", "close_epoch", "validate"])
def test_a_network_from_random_weights_that_was_killed_goes_on_to_the_same_weights(call, finished, tmp_path, monkeypatch,
                                                                                   killed_at):
    words = ["table4", "--train", "3", "--folds", "1", "--scratch-folds", "1", "--scratch-epochs", "3"]
    whole = finished(*words)
    original, calls = getattr(Training, killed_at), []

    def kill(self, *arguments):
        calls.append(1)
        if len(calls) == (1 if killed_at == "save" else 2):
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Training, killed_at, kill)
    assert call(*words)[0] == 130
    assert call(*words)[0] == 0
    logs = [[row["train_loss"] for row in rows(folder/"scratch-3-fold0/log.csv")] for folder in (whole, tmp_path/"out")]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert (tmp_path/"out/scratch-3-fold0/output.txt").read_text().count("epoch ") == 3                # none of them twice
    assert rows(tmp_path/"out/parts.csv")[0]["accuracy"] == rows(whole/"parts.csv")[0]["accuracy"]


def test_networks_from_random_weights_have_the_runs_options_but_see_no_test_picture_in_training(call, made, tmp_path):
    call("table4", "--train", 3, "--folds", 1, "--scratch-epochs", 6)
    folders = made/"run", tmp_path/"out/scratch-3-fold0"
    own, theirs = (json.loads((folder/"config.json").read_text())["options"] for folder in folders)
    changed = {name for name in own if own[name] != theirs[name]}
    assert changed == {"data", "epochs", "drop_after", "keep_epochs", "seed", "upscale"}
    assert theirs["epochs"] == 6 and theirs["drop_after"] == [4, 5] and theirs["seed"] == 0
    log = rows(tmp_path/"out/scratch-3-fold0/log.csv")
    assert [float(row["lr"]) for row in log] == pytest.approx([0.003]*4 + [0.0003, 0.00003])
    part = next(part for part in rows(tmp_path/"out/parts.csv") if part["kind"] == "scratch")
    assert part["train"] == "12" and part["test"] == str(sum(COUNTS) - 12)
    assert float(part["train_error"]) == pytest.approx(float(log[-1]["train_error"]), abs=1e-4)


@pytest.mark.parametrize("name", ["tiny", "own"])
def test_a_network_from_random_weights_has_the_layers_of_the_run_whatever_it_is_called(call, made, tmp_path, name):
    config = replace(TrainConfig(**read_options(made/"run/config.json")), epochs=1)
    layers = [Conv("conv1", 4, K=5, S=2), ReLU("relu1"), MaxPool("pool1", 3, 2), Conv("conv2", 5, K=3), ReLU("relu2"), Flatten("flat"),
              Linear("fc3", 6), ReLU("relu3"), Linear("fc4", 3)]
    mine = Training.begin(config, tmp_path/"mine", network=Network(name, (3, 32, 32), layers))
    mine.run()
    assert call("table4", "--train", 3, "--folds", 1, "--scratch-epochs", 1, run=tmp_path/"mine")[0] == 0
    found = load(tmp_path/"out/scratch-3-fold0/latest.h5")
    assert found.model == name and found.layers == [*mine.network.table()[:-1], {**mine.network.table()[-1], "M": len(CALTECH)}]


def test_each_fold_begins_with_a_seed_of_its_own_and_is_judged_on_centre_crops(call, made, tmp_path, monkeypatch):
    """Of networks that are not trained at all, which takes no time and tells it as well."""
    begun, judged, mean = {}, [], load(made/"run/best.h5").mean_image

    def start(folder, name, config, pictures, network):
        begun[name] = config.seed
        network = build("tiny", len(CALTECH), 32, 0.9).init(config.seed, "he")
        return Trained(network, mean, list(CALTECH)), {"seconds": [1.0], "train_error": [0.5]}

    def watched(models, pictures, *rest, **more):
        judged.append((models[0], pictures, measured(models, pictures, *rest, **more)))
        return judged[-1][-1]

    monkeypatch.setattr(study.StudyFolder, "run_or_resume", start)
    monkeypatch.setattr(transfer_study, "measured", watched)
    assert call("table4", "--train", 2, "--folds", 2, "--scratch-folds", 2, "--seed", 5)[0] == 0
    assert begun == {"scratch-2-fold0": 5, "scratch-2-fold1": 6}
    for model, pictures, found in judged:
        squares = np.stack([pictures.picture(i) for i in range(len(pictures))])
        scores, _ = model.network.forward(crop_flip(squares, mean, *centre_crops(len(squares), 37, 32), 32, 32))
        p = np.exp(scores - scores.max(axis=0))
        np.testing.assert_allclose(found.p, p/p.sum(axis=0), rtol=1e-3)
    assert {part["fold"] for part in rows(tmp_path/"out/parts.csv") if part["kind"] == "scratch"} == {"0", "1"} and len(judged) == 2


def test_table5_is_for_caltech_256_unless_numbers_are_given(call, tmp_path):
    status, _, told = call("table5")
    assert status == 2 and "table5: expected Caltech-256 (256_ObjectCategories), got 101_ObjectCategories; give --train" in told
    assert not (tmp_path/"out").exists()
    assert call("table5", "--train", 2, "--folds", 1, "--no-scratch")[0] == 0


def test_small_classes_can_be_left_out_and_are_named(call, tmp_path):
    assert call("table4", "--train", 8, "--folds", 1, "--no-scratch", "--leave-out-small")[0] == 0
    text = (tmp_path/"out/table4.md").read_text()
    assert "2 classes of 101_ObjectCategories (jade, slate left out)" in text and "chance is 50.0 %" in text
    assert rows(tmp_path/"out/parts.csv")[0]["train"] == "16"


# ------------------------------------------------------------------------------------------------- table 7, figure 9
def test_table7_has_every_layer_with_both_classifiers_beside_the_papers(finished):
    out = finished(*TABLE7_IN_SMALL)
    text = (out/"table7.md").read_text()
    for kind, word in (("svm", "SVM"), ("softmax", "softmax")):
        for layer, name in enumerate("norm1 norm2 relu3 relu4 pool5 relu6 relu7".split(), 1):
            line = next(line for line in text.split("\n") if line.startswith(f"| {word} ({layer}) | {name} |"))
            paper = [mean_spread(pair) for pair in TABLE7.get((kind, layer), (None, None))]
            assert [cell.strip() for cell in line.split("|")[4:6]] == paper
    assert "after ReLU, max pooling and contrast normalisation" in text and text.count("Claim 10") == 2
    table = rows(out/"table7.csv")
    assert len(table) == 21 and all(25 < float(row["accuracy"]) <= 100 for row in table if row["layer"] == "1")


def test_table7_has_the_untrained_network_beside_the_run_and_what_that_is_ahead_by_fold_by_fold(call, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "accuracy_by_layer", lambda paper, here, chance: drawn.append((here, chance)))
    assert call("table7", "--train", 4, "--folds", 3, "--layers", 2, 5)[0] == 0
    parts = rows(tmp_path/"out/parts.csv")
    accuracy = {(p["kind"], p["network"], p["layer"], p["reduced"], p["fold"]): 100*float(p["accuracy"]) for p in parts}
    ratio = ratio_of(4)
    assert len(accuracy) == 3*2*2*3
    for row in rows(tmp_path/"out/table7.csv"):
        reduced = row["features"] if row["projected"] == "1" else "0"
        run, untrained = ([accuracy[row["classifier"], network, row["layer"], reduced, fold] for fold in "012"]
                          for network in ("run", "untrained"))
        points = np.subtract(run, untrained)
        for key, value in (("accuracy", np.mean(run)), ("untrained_accuracy", np.mean(untrained)),
                           ("ahead_by", np.mean(points)), ("ahead_by_95_half", 4.303*np.std(points, ddof=1)*(1/3 + ratio)**0.5)):
            assert float(row[key]) == pytest.approx(value, abs=1e-3*max(1, abs(value)))
    [(here, chance)] = drawn[-1:]
    full, equal = here.values()
    assert list(full) == ["SVM", "SVM, untrained", "softmax", "softmax, untrained"] and list(equal) == list(full)[:2]
    assert chance == 25
    assert equal["SVM, untrained"][5][0] == pytest.approx(np.mean([accuracy["svm", "untrained", "5", "64", k] for k in "012"]))


def test_the_untrained_network_is_the_runs_random_start(call, made, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(caltech_tables, "probe", lambda *a: seen.append(a[1][:, :]) or probe(*a))
    assert call("table4", "--train", 2, "--folds", 1, "--no-scratch")[0] == 0
    pictures = Pictures(open_caltech(made/"101_ObjectCategories"), 37, 32, upscale=True, workers=1)
    mean = load(made/"run/best.h5").mean_image
    squares = np.stack([pictures.picture(i) for i in range(sum(COUNTS))])
    x = crop_flip(squares, mean, *centre_crops(len(squares), 37, 32), 32, 32)
    start = build("tiny", 3, 32, 0.9).init(1, "he")                     # as `made` trains its run: --seed 1, preset tiny
    run, untrained = seen
    assert np.allclose(untrained, start.activations(x, ["relu7"])["relu7"].T, atol=1e-4)
    assert not np.allclose(run, untrained, atol=1e-2)
    text = (tmp_path/"out/table4.md").read_text()
    assert 'with seed 1 and the law "he" (those of the run\'s own start)' in text


def test_all_layers_meet_one_projection_to_as_many_features_as_the_smallest_has(call, tmp_path, monkeypatch):
    seen = {}

    def watched(kind, features, *rest):
        seen.setdefault(kind, []).append(features[:, :])
        return probe(kind, features, *rest)

    monkeypatch.setattr(caltech_tables, "probe", watched)
    assert call("table7", "--train", 4, "--folds", 1, "--layers", 1, 7)[0] == 0
    for k in range(0, 8, 4):                                          # of each layer: all of both networks, projected of both
        for whole, projected in zip(seen["svm"][k:k + 2], seen["svm"][k + 2:k + 4]):
            assert np.array_equal(projected, random_projection(whole, 64))               # layer 5's, though it is not asked for
    assert seen["svm"][0].shape[1] > 256 == seen["svm"][4].shape[1]


def test_figure9_is_a_curve_and_says_what_six_pictures_reach(call, tmp_path):
    assert call("figure9", "--train", 6, 1, 2, 2, "--folds", 2)[0] == 0
    mine = [row for row in rows(tmp_path/"out/figure9.csv") if row["who"] == "here"]
    assert [(row["what"], row["train_per_class"]) for row in mine] == [
        (f"features of {whose}", n) for whose in ("random weights", "the run") for n in "126"]
    assert not list((tmp_path/"out").glob("scratch*"))
    text = (tmp_path/"out/figure9.md").read_text()
    assert "With 6 pictures a class the features reach" in text and "those of random weights reach" in text
    assert "from random weights |" not in text and "What the features of the run owe to its training. The control" in text
    papers, = re.findall(r"\| paper: ImageNet-pretrained \|(.*)\|", text)
    assert [cell.strip() for cell in papers.split("|")] == ["27.4 ± 0.9†", "39.3 ± 2.3†", "57.1 ± 0.6†"] and "† read off" in text
    assert {row["train_per_class"] for row in rows(tmp_path/"out/figure9.csv") if row["what"] == "ImageNet-pretrained"} == {
        str(n) for n in TABLES["figure9"].train}


def test_what_the_features_are_worth_is_judged_beside_networks_trained_there_and_beside_features_of_random_weights():
    ahead, behind, open_, one = [2.0, 2.1], [-2.0, -2.1], [9.0, 0.1], [2.0]
    ratios = {15: 1.5, 30: 1.5, 60: 15.5}                              # twice and, at 60, 5.7 times the width of Student's own
    text = claim_of_features({15: ahead, 30: behind}, {15: ahead, 30: ahead}, ratios)
    assert "from random weights: agrees in part (+2.0 (+0.8 to +3.3) points at 15 a class in 2 folds, -2.0 (-3.3 to -0.8) " in text
    assert text.endswith("in 2 folds: what the run learned serves here.")
    assert "weights: undecided (+2.0 points at 15 a class in 1 fold;" in claim_of_features({15: one}, {15: open_}, ratios)
    for left_open in ({15: open_}, {60: ahead}):
        assert claim_of_features({15: behind}, left_open, ratios).endswith("whether what the run learned serves here is open.")
    text = claim_of_features({}, {15: behind}, ratios)
    assert "Claim 10" not in text and text.endswith("what the run learned does not serve here.")
    assert claim_of_features({15: ahead}, {}, ratios) == ""


def test_accuracy_over_the_layer_is_judged_with_the_untrained_networks_as_its_control():
    def curve(means, wobble=0.1):
        return {layer: {fold: mean + wobble*layer*(fold - 1) for fold in range(3)} for layer, mean in means.items()}

    falling, rising = curve({1: 30, 2: 40, 5: 35, 7: 90}), curve({1: 30, 2: 40, 5: 50, 7: 0})
    text = claim_of_layers("all features", falling, curve({1: 25, 2: 32, 5: 20, 7: 0}, 0.2), 1.0)
    assert "for the SVM on all features of layers 1 to 5: does not agree, it rises from layer 1 to 2, falls from" in text
    assert "control, the untrained network's, rises from layer 1 to 2, falls from layer 2 to 5. A fall that both have" in text
    assert "ahead by, +5.0, +8.0, +15.0, rises from layer 1 to 2, 2 to 5; that it rises with the layer: agrees." in text
    text = claim_of_layers("", rising, curve({1: 10, 2: 25, 5: 35, 7: 0}, 0.2), 1.0)
    assert "layers 1 to 5: agrees, it rises from" in text and "that both have" not in text
    assert "falls from layer 1 to 2, is undecided from layer 2 to 5; that it rises with the layer: does not agree." in text
    one = {layer: {0: folds[0]} for layer, folds in rising.items()}
    assert "undecided, it is undecided from layer 1 to 2, 2 to 5." in claim_of_layers("", one, one, 1.0)
    assert "undecided, it is undecided from layer 1 to 2, 2 to 5." in claim_of_layers("", rising, rising, 1500.0)
    assert claim_of_layers("", {5: rising[5], 7: rising[7]}, rising, 1.0) == ""


def test_figure9s_claim_of_six_pictures_has_its_control():
    ours, untrained = {6: (30.0, 1), 15: (40.0, 1)}, {6: (10.0, 1), 15: (25.0, 1)}
    text = claim_of_six(ours, untrained)
    assert "reach 30.0 %, which is 75 % of what they reach with 15; those of random weights reach 10.0 %, 40 % of theirs (" in text
    assert "with 15 (the paper" in claim_of_six(ours, {}) and claim_of_six({15: (40.0, 1)}, untrained) == ""


# ------------------------------------------------------------------------------------------------------ drawn pictures
class Drawn:
    """A part of a drawn set in small: discs of three colours, named as zfcore's are."""
    classes, shorter_side = list(CALTECH)[:3], None

    def __init__(self, part, count):
        self.labels = np.arange(count) % 3
        self.names = [f"unseen/{part}/{i:06}" for i in range(count)]

    def __len__(self):
        return len(self.labels)

    def picture(self, i):
        rng = np.random.default_rng(zlib.crc32(self.names[i].encode()))
        return noise(rng, list(CALTECH.values())[self.labels[i]], (37, 37))

    def fingerprint(self):
        return f"{self.names}"


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.setattr(caltech_tables, "open_data", lambda data, size: (Drawn("train", 13), Drawn("val", 8)))


@pytest.mark.parametrize("name", ["table4", "table7", "figure9"])
def test_tables_are_made_of_a_drawn_set_whose_two_parts_are_one_pool(call, tmp_path, drawn, monkeypatch, name):
    monkeypatch.setattr(Drawn, "classes", ["fox", "cart", "rose"])
    more = ["--scratch-epochs", 1] if name == "table4" else []
    assert call(name, "--train", 5, "--folds", 2, "--test-most", 0, *more, data="drawn:unseen")[0] == 0
    text = (tmp_path/f"out/{name}.md").read_text()
    assert "3 classes of drawn:unseen; 21 drawn pictures, of the training and the validation part together; to test on" in text
    assert "Caltech" not in text.split("Here: ")[1].split("The run:")[0] and "background" not in text
    assert "chance is 33.3 %" in text and "drawn:unseen" in text.split("\n")[0]
    parts = rows(tmp_path/"out/parts.csv")
    assert {(p["train"], p["test"]) for p in parts} == {("15", "6")}
    if name == "table4":
        assert {p["kind"] for p in parts} == {"softmax", "scratch"} and "| here: from random weights |" in text


def test_of_a_drawn_set_no_background_and_no_class_of_the_runs_is_taken(call, tmp_path, drawn):
    status, _, told = call("table7", "--train", 5, data="drawn:unseen")
    assert status == 2 and "--data: expected another set than the one that the run was trained on, got drawn:unseen" in told
    assert "--background: expected Caltech-101 or -256" in call("table7", "--background", data="drawn:unseen")[2]
    assert not (tmp_path/"out").exists()


def test_the_joined_parts_have_every_picture_once_and_a_fingerprint_of_both():
    one, other = Drawn("train", 4), Drawn("val", 5)
    both = Joined(one, other)
    assert len(both) == 9 and both.names == one.names + other.names and both.labels.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 1]
    for i, (part, k) in enumerate([(one, k) for k in range(4)] + [(other, k) for k in range(5)]):
        assert np.array_equal(np.asarray(both.picture(i)), np.asarray(part.picture(k)))
    assert both.fingerprint() not in (Joined(other, one).fingerprint(), Joined(one, Drawn("val", 4)).fingerprint())


def test_the_papers_numbers_are_those_of_the_paper():
    assert TABLES["figure9"].printed == min(TABLES["table5"].train) and TABLES["table4"].printed == TABLES["table5"].printed == 0
    assert TABLE7["svm", 3] == ((72.3, 0.4), (46.0, 0.3)) and TABLE7["softmax", 7] == ((85.4, 0.4), (72.6, 0.1))
    assert TABLES["table4"].features == {15: (83.8, 0.5), 30: (86.5, 0.5)} and TABLES["table5"].scratch[60] == (38.8, 1.4)
    means = np.array([TABLE6[name] for name in CLASSES]).mean(axis=0)
    assert means == pytest.approx([79.0, 74.03, 82.33], abs=0.05)        # of the rows; the printed means of the others differ
    assert TABLES["figure9"].features[60] == TABLES["table5"].features[60] == (74.2, 0.3)


# -------------------------------------------------------------------------------------------------------------- table 6
def test_table6_has_the_average_precisions_of_what_it_ranked(finished, made):
    out = finished(*TABLE6_IN_SMALL, data=made/"voc")
    from zfcore.data.voc import open_voc
    scored = open_voc(made/"voc", "val")
    table = {row["class"]: row for row in rows(out/"table6.csv")}
    for way in ("run", "untrained", "scratch"):
        scores = results.load(out/f"scores-{way}.h5", Scores)
        assert scores.p.shape == (17, 20) and scores.p.sum(axis=1) == pytest.approx(np.ones(17), abs=1e-4)
        for definition in ("2010", "11-point"):
            expected = 100*average_precision(scores.p, scored.labels[scores.pictures], definition)
            for name in ("dog", "cat", "person"):
                assert float(table[name][f"{way}_{definition}"]) == pytest.approx(expected[CLASSES.index(name)], abs=1e-3)
            mean = np.mean([float(table[name][f"{way}_{definition}"]) for name in ("dog", "cat", "person")])
            assert float(table["mean"][f"{way}_{definition}"]) == pytest.approx(mean, abs=1e-3)
    assert np.flatnonzero(results.load(out/"scores-run.h5", Scores).p.sum(axis=0)).tolist() == sorted(
        CLASSES.index(name) for name in ("dog", "cat", "person")) and table["mean"]["train_pictures"] == "12"
    assert [table["cow"][key] for key in ("run_2010", "scored_pictures", "train_pictures")] == ["nan", "2", "0"]
    assert table["dog"]["paper"] == "87.8" and float(table["dog"]["chance"]) == pytest.approx(100*7/14)
    text = (out/"table6.md").read_text()
    assert re.search(r"\| cow \| 0 \| 2 \|  \|  \|  \|  \|  \|  \|  \| 74.4 \| 63.2 \| 77.8 \|", text) and "Claim 10" in text
    ahead = {way: float(table["mean"]["run_2010"]) > float(table["mean"][f"{way}_2010"]) for way in ("untrained", "scratch")}
    assert f"features of the run are {'' if ahead['scratch'] else 'not '}ahead (mean" in text
    assert f"of random weights they are {'' if ahead['untrained'] else 'not '}ahead (mean" in text
    assert len(list((out/"results").rglob("*_cls_val_dog.txt"))) == 2                # none of the control
    for competition in ("comp1", "comp2"):
        lines = (out/f"results/VOC2012/Main/{competition}_cls_val_dog.txt").read_text().split("\n")
        assert len(lines) == 18 and lines[0].startswith("p15 ")


def test_a_picture_of_two_classes_is_two_examples_held_out_together(call, made, monkeypatch):
    seen = []

    def watched(kind, features, train, labels, test, M, held, measure):
        seen.append((train, labels, test, held))
        return probe(kind, features, train, labels, test, M, held, measure)

    monkeypatch.setattr(voc_table, "probe", watched)
    assert call("table6", "--no-scratch", data=made/"voc")[0] == 0
    (train, labels, test, held), control = seen
    assert all(map(np.array_equal, seen[0], control))
    assert len(train) == 15 and len(set(train)) == 12                    # 3 of both, 3 of only difficult dogs left out
    assert all(len(set(held[train == row])) == 1 for row in train) and 0 < held.sum() < len(held)
    assert test.tolist() == list(range(15, 32))


def test_table6_goes_on_and_leaves_the_features_alone(call, made, tmp_path, monkeypatch):
    monkeypatch.setattr(voc_table.VOC, "train_network", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call("table6", "--scratch-epochs", 1, data=made/"voc")[0] == 130
    before = (tmp_path/"out/scores-run.h5").read_bytes()
    assert "features of the run" in (tmp_path/"out/table6.md").read_text()
    monkeypatch.undo()
    assert call("table6", "--scratch-epochs", 1, data=made/"voc")[0] == 0
    assert (tmp_path/"out/scores-run.h5").read_bytes() == before and (tmp_path/"out/scores-scratch.h5").is_file()


# ----------------------------------------------------------------------------------------------------------- duplicates
@pytest.fixture
def copied(made):
    """A picture of the run in the new set, as a darker JPEG of another size."""
    path = made/"101_ObjectCategories/slate/image_0099.jpg"
    picture = Image.open(made/"pictures/train/jade/03.png")
    Image.fromarray(np.uint8(0.7*np.asarray(picture))).resize((61, 55), Image.BICUBIC).save(path, quality=90)
    yield
    path.unlink()


def test_a_picture_that_the_run_was_trained_on_is_listed_and_left_out(call, tmp_path, copied, monkeypatch):
    assert call("duplicates", output=tmp_path/"list")[0] == 0
    [pair] = rows(tmp_path/"list/duplicates.csv")
    assert pair["new_picture"].endswith("slate/image_0099.jpg") and pair["run_picture"].endswith("jade/03.png")
    assert float(pair["correlation"]) >= 0.95 and Image.open(tmp_path/"list/duplicates.png").size[0] > 200
    used = []
    monkeypatch.setattr(caltech_tables, "probe", lambda *a: used.append({*a[2].tolist(), *a[4].tolist()}) or probe(*a))
    command = ["table4", "--train", 2, "--folds", 1, "--no-scratch"]
    call(*command, output=tmp_path/"with")
    call(*command, "--without-duplicates", output=tmp_path/"without")
    assert used == [set(range(sum(COUNTS) + 1))]*2 + [set(range(sum(COUNTS)))]*2         # the copy is the last one
    assert "1 picture of the new set that correlates by 0.95 or more" in (tmp_path/"without/table4.md").read_text()
    assert "were not looked for" in (tmp_path/"with/table4.md").read_text()


def test_pairs_are_named_rightly_behind_a_damaged_picture(call, made, tmp_path, copied, monkeypatch):
    monkeypatch.setattr("zfcore.data.loader.MOST_DAMAGED", 0.5)
    torn = made/"101_ObjectCategories/amber/image_0001.jpg"
    data = torn.read_bytes()
    torn.write_bytes(data[:200])
    try:
        assert call("duplicates")[0] == 0
    finally:
        torn.write_bytes(data)
    [pair] = rows(tmp_path/"out/duplicates.csv")
    assert pair["new_picture"].endswith("slate/image_0099.jpg") and pair["run_picture"].endswith("jade/03.png")


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("arguments, sentence", [
    (["table4", "--train", "9", "--no-scratch"],
     "per class: expected 9 of each class .* got 9 of amber, 7 of jade, 8 of slate"),
    (["table7", "--train", "2", "--layers", "3", "8"], "--layers: expected one of 1, 2, 3, 4, 5, 6, 7, got 8"),
    (["table4", "--train", "2", "--device", "abacus"], "--device: expected .*abacus"),
    (["table6"], "expected VOCdevkit"),
])
def test_what_is_asked_wrongly_is_one_sentence_and_leaves_nothing(call, tmp_path, arguments, sentence):
    status, _, told = call(*arguments)
    assert status == 2 and re.search(sentence, told) and told.startswith("error: ") and told.count("\n") == 1
    assert not (tmp_path/"out").exists()


def test_what_is_no_caltech_no_run_and_no_folder_of_a_study_is_refused(call, made, tmp_path):
    assert "expected 101_ObjectCategories or" in call(*TABLE4, data=made/"voc")[2]
    assert "--run: expected a run's folder, with its best.h5 or latest.h5" in call(*TABLE4, run=tmp_path)[2]
    assert "another part than --train-part" in call("table6", "--score-part", "train", data=made/"voc")[2]
    (tmp_path/"full").mkdir()
    (tmp_path/"full/thesis.tex").write_text("")
    status, _, told = call(*TABLE4, output=tmp_path/"full")
    assert status == 2 and "expected a new or empty folder" in told and len(list((tmp_path/"full").iterdir())) == 1
    for content in ('{"scale": "tiny", "options": {}}', "[", "{}"):
        (tmp_path/"full/study.json").write_text(content)
        assert "study.json: expected the table and key of a study" in call(*TABLE4, output=tmp_path/"full")[2]


def test_a_study_whose_study_json_is_damaged_goes_on_as_it_is_advised(call, tmp_path):
    command = ["table4", "--train", "2", "--folds", "1", "--no-scratch"]
    call(*command)
    kept = (tmp_path/"out/study.json").read_text(), (tmp_path/"out/parts.csv").read_text()
    (tmp_path/"out/study.json").write_text("{")
    status, _, told = call(*command)
    assert status == 2 and "remove it, and type the options that the study began with" in told
    (tmp_path/"out/study.json").unlink()
    assert call(*command)[0] == 0                          # seconds are in parts.csv: nothing was fitted again
    assert ((tmp_path/"out/study.json").read_text(), (tmp_path/"out/parts.csv").read_text()) == kept


def test_numbers_of_other_options_weights_or_pictures_are_not_mixed(call, made, tmp_path, copied):
    command = ["table4", "--train", "2", "--folds", "1", "--no-scratch"]
    call(*command)
    kept = json.loads((tmp_path/"out/study.json").read_text())           # as earlier versions have it, whose studies go on
    assert kept == {"table": "table4", "run": str(made/"run/best.h5"), "data": str(made/"101_ObjectCategories"),
                    "key": kept["key"],
                    "seed": 0, "untrained": [1, "he"], "without_duplicates": False, "test_most": 50, "background": False,
                    "classes_left_out_below": False, "scratch_epochs": 60}
    for more, sentence in ((["--test-most", "3"], r"the study that was begun there \(test most 50\), got 3"),
                           (["--seed", "4"], r"\(seed 0\), got 4"),
                           (["--without-duplicates"], r"\(without duplicates False\)")):
        status, _, told = call(*command, *more)
        assert status == 2 and re.search(sentence, told) and "name another folder" in told
    (made/"101_ObjectCategories/slate/image_0099.jpg").rename(made/"101_ObjectCategories/slate/image_0098.jpg")
    assert "(pictures or weights), got others" in call(*command)[2]
    (made/"101_ObjectCategories/slate/image_0098.jpg").rename(made/"101_ObjectCategories/slate/image_0099.jpg")


def test_a_spoilt_list_of_parts_and_a_study_at_work_are_told(call, tmp_path):
    command = ["table4", "--train", "2", "--folds", "1", "--no-scratch"]
    call(*command)
    with Lock(tmp_path/"out"):
        status, _, told = call(*command)
        assert status == 2 and "in which no other" in told
    (tmp_path/"out/parts.csv").write_text("kind,layer\nsoftmax,seven\n")
    status, _, told = call(*command)
    assert status == 2 and "expected the rows that this command wrote" in told


def test_a_checkpoint_alone_gives_features_but_no_network_from_random_weights(call, made, tmp_path):
    alone = tmp_path/"alone/net.h5"
    alone.parent.mkdir()
    checkpoint = load(made/"run/latest.h5")
    del checkpoint.state["init"]                           # as one from before checkpoints told it
    save(alone, checkpoint)
    assert call("table4", "--train", 2, "--folds", 1, "--no-scratch", run=alone)[0] == 0
    text = (tmp_path/"out/table4.md").read_text()
    assert 'with seed 0 and the law "he" (as the run does not say its own)' in text
    (alone.parent/"config.json").write_text((made/"run/config.json").read_text())
    status, _, told = call("table4", "--train", 2, "--folds", 1, "--no-scratch", run=alone)
    assert status == 2 and "(untrained [0, 'he']), got [1, 'he']" in told
    (alone.parent/"config.json").unlink()
    status, _, told = call("table4", "--train", 2, "--folds", 1, run=alone, output=tmp_path/"other")
    assert status == 2 and "a run's folder with its config.json" in told and "--no-scratch goes without" in told
    assert not (tmp_path/"other").exists()                 # it is told before anything is computed
    status, _, told = call("table7", "--train", 2, "--without-duplicates", run=alone, output=tmp_path/"other")
    assert status == 2 and "a run's folder with its config.json" in told and not (tmp_path/"other").exists()


def test_of_a_network_that_comes_along_the_card_tells_how_to_train_another(call, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # where what is found out about it belongs: no config.json counts here
    (tmp_path/"runs/drawn").mkdir(parents=True)
    shutil.copy(made/"run/config.json", tmp_path/"runs/drawn")
    assert call("table4", "--train", 2, "--folds", 1, "--scratch-epochs", 1, run="drawn")[0] == 0
    options = json.loads((tmp_path/"out/scratch-2-fold0/config.json").read_text())["options"]
    assert (options["model"], options["image_size"], options["lr"], options["init"]) == ("tiny", 96, 0.003, "he")
    assert options["start_left"] == networks.card("drawn")["options"]["start_left"] and options["init_from"] == ""


def test_parts_are_read_as_they_were_written(tmp_path):
    part = Fitted("scratch", "", 0, 0, 15, 3, 1/3, float("nan"), 0.25, 12.5, 900, 1905)
    names = list(Fitted.__dataclass_fields__)
    write_csv(tmp_path/"parts.csv", [[getattr(part, name) for name in names]], *names)
    [found] = transfer_study.read_fitted(tmp_path/"parts.csv").values()
    assert repr(found) == repr(part)
