"""Errors are counted as the definitions say, of one network or the mean of several, from one crop or the mean of ten, and
printed with their protocol; the tables agree with them, and the folder they lie in is whole or not there."""
import csv
import json
import os
import re
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import zfcore
from tests.analysis.test_top_activations import MEAN, Noise, pictures_of, small
from tests.train.conftest import write_set
from train.__main__ import main as train
from train.evaluate import FILES, main, whole_folder, write_worst
from zfcore import plots
from zfcore.backend import CPU
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, load, save
from zfcore.data.loader import Pictures
from zfcore.data.transforms import CorruptImage
from zfcore.models import build
from zfcore.trained import Trained
from zfcore.training.evaluation import answers, confused_pairs, confusion, evaluate, judge, open_part, per_class, predict, score, wilson


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Of matrices of confusion, which take as long as an evaluation, only tests marked `figures` have any."""
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr(plots, "confusion", lambda *_: None)
        monkeypatch.setattr(plots, "save", lambda drawn, path, save=plots.save: save(drawn, path) if drawn else path.touch())


class Known(Pictures):
    """Stands for a Pictures set, in batches of three; with the networks below their answers are known."""
    def __init__(self, labels, classes="abcdefghij"):
        self.damaged, self.dataset = {}, SimpleNamespace(labels=np.array(labels), classes=list(classes))

    def batches(self, size, seed, epoch, shuffle, device):
        for k in range(0, len(self.labels), 3):
            n = np.arange(k, min(k + 3, len(self.labels)))
            yield n, self.labels[n], n


class Answering(Trained):
    """Stands for a model whose probabilities are rows of p (N,classes), and which knows no names of them."""
    def __init__(self, p):
        vars(self).update(p=p, mean=np.array(p), device=CPU, classes=())

    def probabilities(self, n, crops):
        return np.array(self.p, np.float32)[n].T


def score_of(p, labels):
    return evaluate([Answering(p)], Known(labels, range(len(p[0]))))


# --------------------------------------------------------------------------------------------------------------- errors
RISING = np.arange(1, 8)/28                                # class 6 first, class 2 fifth, class 1 sixth


def test_top1_and_top5_errors_are_the_shares_outside_the_first_and_the_first_five():
    s = score_of([RISING]*4, [6, 2, 1, 0])
    assert (s.top1, s.top5, s.count) == (0.75, 0.5, 4)
    assert s.loss == pytest.approx(-np.log(RISING[[6, 2, 1, 0]]).mean(), rel=1e-6)


def test_a_network_that_answers_the_same_for_all_classes_is_wrong():
    s = score_of([np.full(10, 0.1)]*3, [0, 5, 9])
    assert (s.top1, s.top5) == (1, 1)


@pytest.mark.parametrize("p, bits", [(0.0, 126), (2**-140, 126), (2**-126, 126), (2**-125, 125)])
def test_a_probability_counts_as_two_to_the_minus_126_at_the_least(p, bits):
    assert score_of([[1.0, p]], [1]).loss == pytest.approx(bits*math.log(2), rel=1e-12) and bits*math.log(2) < 87.4


def test_a_nan_is_refused_in_one_sentence():
    """It would win every comparison by losing it."""
    network = small()
    network["fc8"].parameters["w"][0, 1] = math.nan
    with pytest.raises(Expected, match="^small: probabilities: expected finite values"):
        evaluate([Trained(network, MEAN)], pictures_of(Noise()))


def test_no_pictures_or_no_members_are_refused():
    with pytest.raises(Expected, match="pictures: expected at least one that can be used, got none"):
        evaluate([Answering(None)], Known([]))
    with pytest.raises(Expected, match="members"):
        evaluate([], Known([0]))


@pytest.mark.parametrize("of", [evaluate, predict])
def test_what_is_no_list_of_networks_and_what_is_no_pictures_are_refused(of):
    one, pictures = Answering(np.eye(10)), Known([0])
    for models, got in ((one, "Answering"), ([one, None], "NoneType in it"), ([small()], "Network in it"), ("drawn", "str")):
        with pytest.raises(Expected, match=f"members of the ensemble: expected a list of Trained, got {got}"):
            of(models, pictures)
    for wrong in (None, np.zeros((2, 9, 9, 3), np.uint8), "folder", Noise()):
        with pytest.raises(Expected, match="pictures: expected Pictures, got .*model.pictures"):
            of([one], wrong)


def test_crops_other_than_centre_and_ten_are_refused():
    with pytest.raises(Expected, match="centre, ten"):
        evaluate([Answering(np.eye(10))], Known([0]), crops="center")


def test_rank_counts_the_classes_before_the_true_one_and_a_tie_goes_against_it():
    p = np.array([[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], np.float32).T
    found = judge(p, np.array([0, 0, 0, 2]), np.array([4, 5, 6, 7]))
    assert found.rank.tolist() == [0, 1, 1, 1]
    assert found.predicted.tolist() == [0, 1, 1, 1]        # never the true class where the rank says it is not the first
    np.testing.assert_array_equal(found.p_true, np.float32([0.5, 0.3, 0.4, 0.4]))
    np.testing.assert_array_equal(found.p_predicted, np.float32([0.5, 0.5, 0.4, 0.4]))
    assert found.indices.tolist() == [4, 5, 6, 7]


# ------------------------------------------------------------------------------------------------------------- ensembles
A, B = [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]]*2, [[0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]*2


def test_an_ensemble_is_the_mean_of_its_members_probabilities():
    found = predict([Answering(A), Answering(B)], Known([0, 1, 2, 0], "abc"))
    np.testing.assert_allclose(found.p.T, [[0.55, 0.3, 0.15], [0.1, 0.45, 0.45]]*2, rtol=1e-6)
    assert found.p.dtype == np.float32 and found.labels.tolist() == [0, 1, 2, 0] and found.indices.tolist() == [0, 1, 2, 3]


def test_each_member_is_judged_alone_in_the_same_pass():
    pictures, members = Known([0, 1, 2, 0], "abc"), [Answering(A), Answering(B)]
    together, alone = answers(members, pictures)
    for one, member in zip(alone, members):
        assert score(one, "centre", 1, 3) == evaluate([member], pictures)
    s = evaluate(members, pictures)
    assert s == score(together, "centre", 2, 3) and s.networks == 2
    assert (s.top1, s.loss) == (0.75, pytest.approx(-np.log([0.55, 0.45, 0.15, 0.1]).mean(), rel=1e-6))


def test_evaluate_agrees_with_the_probabilities_of_predict():
    rng = np.random.default_rng(1)
    p, labels = rng.dirichlet(np.ones(9), 41), rng.integers(0, 9, 41)
    found, s = predict([Answering(p)], Known(labels)), score_of(p, labels)
    order = (-found.p).argsort(axis=0)
    assert s.top1 == np.mean(order[0] != found.labels)
    assert s.top5 == np.mean([label not in five for label, five in zip(found.labels, order[:5].T)])


# ----------------------------------------------------------------------------------------------------------------- crops
def test_ten_crops_are_the_mean_of_the_softmaxes_of_four_corners_the_centre_and_their_mirror_images():
    network = build("tiny", 3, 32).init(0, "he")
    for name in network.parameters():                      # larger scores, so that the crops differ
        network[name].parameters["w"] *= 1.5
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    mean = rng.uniform(90, 150, (3, 40, 40)).astype(np.float32)
    ten, centre = (Trained(network, mean).probabilities(pictures, crops) for crops in ("ten", "centre"))
    centred, by_hand = pictures.transpose(3, 1, 2, 0) - mean[..., None], []            # (3,40,40,2)
    for top, left in ((4, 4), (0, 0), (0, 8), (8, 0), (8, 8)):
        for step in (1, -1):
            y, _ = network.forward(np.ascontiguousarray(centred[:, top:top + 32, left:left + 32][:, :, ::step]))
            by_hand.append(np.exp(y)/np.exp(y).sum(axis=0))
    np.testing.assert_allclose(ten, np.mean(by_hand, axis=0), atol=1e-6)
    np.testing.assert_allclose(centre, by_hand[0], atol=1e-6)
    assert np.ptp(by_hand, axis=0).max() > 1e-3 and ten.dtype == np.float32


# ------------------------------------------------------------------------------------------------------------- intervals
@pytest.mark.parametrize("wrong, count, low, high", [      # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_the_interval_is_wilsons(wrong, count, low, high):
    assert wilson(wrong/count, count) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))
    assert wilson(1 - wrong/count, count) == (pytest.approx(1 - high, abs=6e-5), pytest.approx(1 - low, abs=6e-5))


def test_the_interval_stays_in_0_to_1():
    assert wilson(0.0, 7)[0] == 0 and wilson(1.0, 7)[1] == 1


# ----------------------------------------------------------------------------------------------------------------- texts
def test_the_text_of_a_score_is_its_protocol():
    s = evaluate([Answering(A), Answering(B)], Known([0, 1, 2, 0], "abc"), of="validation pictures of X")
    assert str(s) == ("top-1 error 75.0 % (95 %: 30.1 to 95.4), loss 1.399 "
                      "(centre crop, mean of 2 networks, 4 validation pictures of X)")


def test_a_loss_of_nothing_has_no_sign():
    s = evaluate([Answering(np.eye(3))], Known([0, 1, 2], "abc"))
    assert math.copysign(1, s.loss) == 1 and s.loss == 0 and " loss 0.000 " in str(s)


def test_a_top5_error_among_five_classes_is_not_meaningful():
    assert "top-5" not in str(evaluate([Answering(np.eye(5))], Known([0], "abcde")))


def test_a_top5_error_among_six_classes_is_meaningful_and_damaged_pictures_are_told():
    pictures = Known([0], "abcdef")
    pictures.damaged = {7: "cut short"}
    text = str(evaluate([Answering(np.eye(6)[::-1])], pictures, crops="ten"))
    assert "top-5 error 100.0 % (95 %: 20.7 to 100.0)" in text
    assert text.endswith("(mean of ten crops, 1 network, 1 picture, 1 damaged left out)")


# ---------------------------------------------------------------------------------------------------------------- tables
@pytest.fixture
def found():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 6, 300)                       # of 7 classes: the last has no picture
    p = rng.dirichlet(np.full(7, 0.4), 300) + 0.1*np.eye(7)[labels]
    p[:40] = p[:40].round(1)                               # ties
    return judge(p.T.astype(np.float32), labels, np.arange(300))


def test_confusion_is_of_the_true_class_taken_for_the_predicted():
    p = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]].T
    assert confusion(judge(p, np.array([0, 0, 0, 1, 2]), np.arange(5)), 3).tolist() == [[1, 2, 0], [0, 0, 1], [1, 0, 0]]


def test_confused_pairs_are_the_wrong_answers_most_frequent_first():
    counts = np.array([[5, 1, 0], [3, 7, 2], [1, 0, 0]])
    assert confused_pairs(counts, "abc") == [("b", "a", 3, 12), ("b", "c", 2, 12), ("a", "b", 1, 6), ("c", "a", 1, 1)]


def test_the_classes_errors_add_up_to_the_whole(found):
    s, counts, classes = score(found, "centre", 1, 7), confusion(found, 7), list("abcdefg")
    rows = list(per_class(found, counts, classes))
    assert rows[6] == ("g", 0, "", "", "", "")             # nothing to be wrong about
    n, top1, top5 = np.array([(row[1], float(row[2]), float(row[3])) for row in rows[:6]]).T
    assert n.sum() == s.count == counts.sum()
    assert (n*top1).sum()/s.count == pytest.approx(s.top1, abs=1e-6) == 1 - counts.trace()/s.count
    assert (n*top5).sum()/s.count == pytest.approx(s.top5, abs=1e-6) and s.top5 > 0
    for name, _, _, _, wrong, often in rows[:6]:
        answered = [classes[c] for c, label in zip(found.predicted, found.labels) if classes[label] == name != classes[c]]
        assert answered.count(wrong) == often == max(map(answered.count, classes))


def test_a_class_without_mistakes_has_no_wrong_class_and_few_classes_no_top5_error():
    rows = list(per_class(judge(np.eye(3, dtype=np.float32), np.arange(3), np.arange(3)), np.eye(3, dtype=int), "abc"))
    assert rows == [(name, 1, "0", "", "", "") for name in "abc"]


# -------------------------------------------------------------------------------------------------------------- figures
def test_the_worst_pictures_are_those_of_least_probability_worst_first_without_what_is_gone(monkeypatch):
    class Numbered(Known):
        def picture(self, i):
            if i == 3:
                raise CorruptImage("3", "no such file", lasting=False)
            return i

    p = np.array([[0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.6, 0.4]], np.float32).T
    drawn = []
    monkeypatch.setattr(plots, "captioned", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr(plots, "save", lambda *_: None)
    write_worst("worst.png", judge(p, np.array([0, 0, 1, 0, 0]), np.arange(5)), Numbered([0]*5, "ab"), "protocol", most=4)
    (pictures, captions, right, title), = drawn
    assert (pictures, right) == ([1, 2, 4], [False, True, True]) and title.startswith("The 3 pictures") and "protocol" in title
    assert captions == [("0.200 a", "0.800 → b"), ("0.600 b", "right"), ("0.600 a", "right")]


@pytest.mark.figures
@pytest.mark.parametrize("M", [2, 61, 1000])
def test_a_single_mistake_is_seen_in_the_matrix_of_however_many_classes(M):
    counts = 50*np.eye(M, dtype=int)
    shown = []
    for mistakes in (0, 1):
        counts[M//2, M - 2] = mistakes
        canvas = FigureCanvasAgg(plots.confusion(counts, [f"class {k}" for k in range(M)], [], "title"))
        canvas.draw()
        shown.append(np.asarray(canvas.buffer_rgba())[..., :3].astype(int))
    assert (np.abs(shown[1] - shown[0]).max(axis=2) > 40).any()


# ---------------------------------------------------------------------------------------------------------- command line
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of one epoch on one set: (folder of the set, [run, run])."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(root/"cache"))
        data = write_set(root/"pictures")
        for seed in "01":
            train(["--data", str(data), "--preset", "tiny", "--image-size", "32", "--batch-size", "8", "--epochs", "1", "--lr",
                   "0.003", "--workers", "1", "--device", "cpu", "--seed", seed, "--output", str(root/f"run{seed}")])
    return data, [root/"run0", root/"run1"]


def run(*arguments):
    main([*map(str, arguments), "--device", "cpu", "--workers", "1"])


def refused(capsys, *arguments):
    """The one sentence that these arguments are answered with."""
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    said = capsys.readouterr().err.strip().splitlines()
    assert exit.value.code == 2 and len([line for line in said if line.startswith("error: ")]) == 1
    return said[-1]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_run_is_printed_and_written_with_its_protocol(trained, tmp_path, capsys):
    data, (first, _) = trained
    for crops, words in (("centre", "centre crop"), ("ten", "mean of ten crops")):
        run("--run", first, "--crops", crops, "--output", tmp_path/crops)
        said = " ".join(capsys.readouterr().out.split())
        assert f"({words}, 1 network, 12 validation pictures of {data})" in said and "top-5" not in said
        assert sorted(path.name for path in (tmp_path/crops).iterdir()) == sorted(FILES)
        summary = json.loads((tmp_path/crops/"summary.json").read_text())
        assert summary["text"] in said and (summary["crops"], summary["count"], summary["networks"]) == (crops, 12, 1)
        assert summary["top5_error"] is None and summary["members"][0]["top1_error"] == summary["top1_error"]


@pytest.mark.figures
def test_the_tables_on_disk_say_what_the_summary_says(trained, tmp_path):
    _, runs = trained
    run("--run", *runs, "--output", tmp_path/"new")
    summary = json.loads((tmp_path/"new"/"summary.json").read_text())
    header, *rows = table(tmp_path/"new"/"predictions.csv")
    assert header == ["name", "true", "predicted", "p_true", "p_predicted", "rank_of_true"] and len(rows) == 12
    assert rows[0][:2] == ["val/amber/00.png", "amber"] and all((row[1] == row[2]) == (row[5] == "1") for row in rows)
    assert np.mean([row[5] != "1" for row in rows]) == summary["top1_error"]
    assert -np.log([float(row[3]) for row in rows]).mean() == pytest.approx(summary["loss"], rel=1e-5)
    (corner, *across), *matrix = table(tmp_path/"new"/"confusion.csv")
    assert corner == "true / predicted" and across == [row[0] for row in matrix] == ["amber", "jade", "plum"]
    for true, *counts in matrix:
        assert [int(n) for n in counts] == [sum(row[1:3] == [true, taken] for row in rows) for taken in across]
    assert [row[:2] for row in table(tmp_path/"new"/"per_class.csv")] == [["class", "count"], *([name, "4"] for name in across)]
    pairs = table(tmp_path/"new"/"confused_pairs.csv")[1:]
    assert sum(int(row[2]) for row in pairs) == summary["top1_error"]*12
    for name in ("confusion.png", "worst.png"):
        with Image.open(tmp_path/"new"/name) as picture:
            assert min(picture.size) > 100


def test_an_ensembles_probabilities_on_disk_are_the_mean_of_its_members(trained, tmp_path, capsys):
    _, runs = trained
    for name, members in (("a", runs[:1]), ("b", runs[1:]), ("both", runs)):
        run("--run", *members, "--output", tmp_path/name)
    said = " ".join(capsys.readouterr().out.split())
    protocols = re.findall(r"\([^()]*12 validation pictures", said)                     # one, one, and two with their mean
    assert len(protocols) == 5 and ["mean of 2 networks" in line for line in protocols] == [False]*4 + [True]
    a, b, both = ([float(row[3]) for row in table(tmp_path/name/"predictions.csv")[1:]] for name in ("a", "b", "both"))
    np.testing.assert_allclose(both, (np.array(a) + b)/2, rtol=2e-5)
    members = json.loads((tmp_path/"both"/"summary.json").read_text())["members"]
    for name, member in zip("ab", members):                # each alone is what it is when evaluated alone
        alone = json.loads((tmp_path/name/"summary.json").read_text())
        assert alone["text"] == member["text"] and alone["loss"] == member["loss"]


def other_input(run, path, size):
    """A checkpoint of an untrained network with another input, for the pictures of `run`."""
    network, first = build("tiny", 3, size).init(5, "he"), load(run/"best.h5")
    save(path, Checkpoint(network.name, network.input_shape, network.table(), first.classes, network.parameters(),
                          mean_image=first.mean_image, state=first.state))
    return path


def test_members_may_take_crops_of_different_sizes(trained, tmp_path):
    _, runs = trained
    members = runs[0], other_input(runs[0], tmp_path/"small.h5", 27)
    for name, of in (("a", members[:1]), ("b", members[1:]), ("both", members)):
        run("--run", *of, "--output", tmp_path/name)
    a, b, both = ([float(row[3]) for row in table(tmp_path/name/"predictions.csv")[1:]] for name in ("a", "b", "both"))
    np.testing.assert_allclose(both, (np.array(a) + b)/2, rtol=2e-5)
    summary = json.loads((tmp_path/"both"/"summary.json").read_text())
    assert [member["input_shape"] for member in summary["members"]] == [[3, 32, 32], [3, 27, 27]]


def test_pictures_smaller_than_the_largest_input_are_refused_unless_upscaled(trained, tmp_path, capsys):
    _, runs = trained
    data, large = write_set(tmp_path/"pictures", size=(41, 34)), other_input(runs[0], tmp_path/"large.h5", 36)
    for members in ((runs[0], large), (large, runs[0])):
        assert "--upscale" in refused(capsys, "--run", *members, "--data", data, "--output", tmp_path/"new")
    run("--run", *members, "--data", data, "--upscale", "--output", tmp_path/"new")


def test_the_training_part_is_evaluated_on_request(trained, tmp_path, capsys):
    data, runs = trained
    run("--run", runs[0], "--part", "train", "--output", tmp_path/"new")
    assert f"30 training pictures of {data})" in " ".join(capsys.readouterr().out.split())


def test_classes_in_another_order_are_the_same_classes(trained, tmp_path):
    """Of the second member and of the set: what counts is the name."""
    _, runs = trained
    turned = load(runs[1]/"best.h5")
    order = [2, 0, 1]
    turned.classes = [turned.classes[k] for k in order]
    last = turned.parameters[turned.layers[-1]["name"]]
    last["w"], last["b"] = last["w"][:, order], last["b"][order]
    save(tmp_path/"turned.h5", turned)
    run("--run", *runs, "--output", tmp_path/"plain")
    run("--run", tmp_path/"turned.h5", runs[0], "--output", tmp_path/"other")
    assert table(tmp_path/"plain"/"predictions.csv") == table(tmp_path/"other"/"predictions.csv")


def test_a_damaged_picture_is_left_out_and_told(trained, tmp_path, capsys):
    data, runs = trained
    many = tmp_path/"many"                                 # one in a hundred may be damaged
    shutil.copytree(data, many)
    for k in range(100):
        shutil.copy(data/"val"/"plum"/"00.png", many/"val"/"plum"/f"copy{k:03}.png")
    (many/"val"/"jade"/"02.png").write_bytes(b"no picture")
    run("--run", runs[0], "--data", many, "--output", tmp_path/"new")
    assert f"111 validation pictures of {many}, 1 damaged left out)" in " ".join(capsys.readouterr().out.split())
    assert list(json.loads((tmp_path/"new"/"summary.json").read_text())["damaged"]) == ["val/jade/02.png"]
    assert "val/jade/02.png" not in [row[0] for row in table(tmp_path/"new"/"predictions.csv")]


def test_the_folder_goes_by_default_into_the_first_runs(trained, tmp_path, monkeypatch):
    _, runs = trained
    for name, source in zip("ab", runs):
        shutil.copytree(source, tmp_path/name)
    monkeypatch.chdir(tmp_path)
    run("--run", "a")
    run("--run", "a/latest.h5")
    run("--run", "a", "b")
    made = sorted(path.parent.as_posix() for path in Path("a").glob("*/summary.json"))
    assert made == ["a/evaluation", "a/evaluation-latest", "a/evaluation-of-2-networks"]


# ---------------------------------------------------------------------------------------------------- the folder is whole
def test_another_evaluation_gets_a_number_and_one_of_the_same_answers_takes_the_place_of_the_first(tmp_path):
    for given, text in (("a", "one"), ("b", "two"), ("a", "three"), ("b", "four")):
        with whole_folder(tmp_path/"new") as (folder, place):
            (folder/"predictions.csv").write_text(given)
            (folder/"summary.json").write_text(text)
        assert place().name == {"a": "new", "b": "new_2"}[given]
    assert {path.parent.name: path.read_text() for path in tmp_path.rglob("*.json")} == {"new": "three", "new_2": "four"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new_2"]


def test_two_that_fill_one_folder_at_once_do_not_mix(tmp_path, monkeypatch):
    """The second begins after the first, and ends before or behind it; where the folder is there, empty, both would take it."""
    def fill(text, seconds):
        with whole_folder(tmp_path/"new") as (folder, place):
            for file in FILES:
                (folder/file).write_text(text)
                time.sleep(seconds)
        return place().name, text
    monkeypatch.setattr(os, "replace", lambda *names, replace=os.replace: (time.sleep(0.01), replace(*names)))
    (tmp_path/"new").mkdir()
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            told = dict(pool.map(fill, "abc", (0.03, 0.02, 0.02)))
        assert told.keys() == {"new", "new_2", "new_3"} and len(set(told.values())) == 3
    for path in tmp_path.iterdir():
        assert {file.name: file.read_text() for file in path.iterdir()} == dict.fromkeys(FILES, told[path.name])


def test_at_no_moment_is_there_no_evaluation(tmp_path, monkeypatch):
    def watched(one, other, replace=os.replace):
        assert (tmp_path/"new"/"summary.json").is_file()
        replace(one, other)
        assert (tmp_path/"new"/"summary.json").is_file()
    for text in ("one", "two"):
        with whole_folder(tmp_path/"new") as (folder, _):
            (folder/"predictions.csv").write_text("a")
            (folder/"summary.json").write_text(text)
        monkeypatch.setattr(os, "replace", watched)
    assert (tmp_path/"new"/"summary.json").read_text() == "two"


def test_what_fails_on_the_way_leaves_the_earlier_evaluation_and_nothing_else(tmp_path):
    with whole_folder(tmp_path/"new") as (folder, _):
        (folder/"summary.json").write_text("one")
    with pytest.raises(KeyboardInterrupt):
        with whole_folder(tmp_path/"new") as (folder, _):
            (folder/"summary.json").write_text("two")
            raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_a_kill_left_behind_does_no_harm(tmp_path):
    (tmp_path/".new.part").mkdir()
    (tmp_path/".new.part"/"per_class.csv").write_text("half")
    for left in ".new.part.lock", ".new.lock":
        (tmp_path/left).touch()
    with whole_folder(tmp_path/"new") as (folder, _):
        (folder/"summary.json").write_text("one")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "summary.json"]


# ------------------------------------------------------------------------------------------------------------- bad inputs
def test_a_folder_that_holds_something_else_is_left_alone(trained, tmp_path, capsys):
    _, runs = trained
    (tmp_path/"diary.txt").write_text("dear")
    assert "diary.txt" in refused(capsys, "--run", runs[0], "--output", tmp_path)
    assert "diary.txt" in refused(capsys, "--run", runs[0], "--output", tmp_path/"diary.txt")
    assert "diary.txt" in refused(capsys, "--run", runs[0], "--output", tmp_path/"diary.txt"/"below")
    assert (tmp_path/"diary.txt").read_text() == "dear" and len(list(tmp_path.iterdir())) == 1


def test_a_missing_run_is_refused(tmp_path, capsys):
    assert "which does not exist" in refused(capsys, "--run", tmp_path/"nowhere")


def test_one_run_twice_is_no_ensemble(trained, capsys):
    _, runs = trained
    for again in (runs[0].parent/"run1"/".."/"run0", runs[0]/"best.h5"):
        assert f"--run: expected different networks, got {again}" in refused(capsys, "--run", runs[0], runs[1], again)
    one, other = map(zfcore.open, runs[:2])
    with pytest.raises(Expected, match="^members of the ensemble: expected different networks"):
        evaluate([one, other, one], one.pictures())


def altered(run, path, **changes):
    checkpoint = load(run/"best.h5")
    for name, value in changes.items():
        setattr(checkpoint, name, value)
    save(path, checkpoint)
    return path


def test_members_with_other_classes_are_refused_by_name(trained, tmp_path, capsys):
    _, runs = trained
    other = altered(runs[1], tmp_path/"other.h5", classes=["amber", "jade", "violet"])
    said = refused(capsys, "--run", runs[0], other, "--output", tmp_path/"new")
    assert "other.h5" in said and "the 3 classes of" in said and "violet" in said and not (tmp_path/"new").exists()


def test_members_with_pictures_of_another_size_are_refused(trained, tmp_path, capsys):
    _, runs = trained
    other = altered(runs[1], tmp_path/"other.h5", mean_image=np.zeros((3, 40, 40), np.float32))
    assert "pictures of 37 pixels" in refused(capsys, "--run", runs[0], other, "--output", tmp_path/"new")


def test_a_checkpoint_without_a_mean_image_is_refused(trained, tmp_path, capsys):
    other = altered(trained[1][0], tmp_path/"other.h5", mean_image=None)
    assert "mean image" in refused(capsys, "--run", other, "--output", tmp_path/"new")


def test_runs_trained_on_different_sets_need_a_set_to_be_named(trained, tmp_path, capsys):
    data, runs = trained
    other = altered(runs[1], tmp_path/"other.h5", state={"data": "elsewhere"})
    assert "different ones" in refused(capsys, "--run", runs[0], other, "--output", tmp_path/"new")
    run("--run", runs[0], other, "--data", data, "--output", tmp_path/"new")


def test_another_sets_classes_are_refused(trained, tmp_path, capsys):
    data, runs = trained
    other = tmp_path/"pictures"
    shutil.copytree(data, other)
    for part in ("train", "val"):
        (other/part/"plum").rename(other/part/"violet")
    said = refused(capsys, "--run", runs[0], "--data", other, "--output", tmp_path/"new")
    assert "--data" in said and "amber, jade, plum" in said and "violet" in said and not (tmp_path/"new").exists()


def test_a_part_without_pictures_is_refused(trained, tmp_path, capsys, monkeypatch):
    _, runs = trained
    monkeypatch.setattr("zfcore.trained.open_data", lambda *_: (Known([], "ab"), Known([], ("amber", "jade", "plum"))))
    monkeypatch.setattr(Known, "__len__", lambda self: len(self.labels), raising=False)
    assert "pictures in the val part" in refused(capsys, "--run", runs[0], "--output", tmp_path/"new")


def test_a_network_of_the_drawn_objects_is_judged_on_them_where_no_other_pictures_are_named():
    model = zfcore.open("drawn")
    pictures, of = open_part([model], None, "val", False, 0)
    assert model.data == "" and pictures.dataset.names[0] == "synthetic/val/000000" and "synthetic" in of
