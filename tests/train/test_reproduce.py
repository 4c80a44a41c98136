"""python -m train.reproduce: verdict rules on made-up numbers, every item's outcome, going on after a stop, what is shown of
hostile names, and that one changed number is found."""
import csv
import json
import math
import re
import shutil
import signal
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.analysis.test_evolution import planted_run
from tests.analysis.test_top_activations import SIZE
from tests.spoken import in_one
from tests.train.test_transfer import made as transfers  # noqa: F401  (a fixture)
from train import ablation, reproduce
from train.__main__ import main as train
from train.claims import Claim, judged
from train.paper import ITEMS, looking, networks, outcome, page, setting
from train.paper import transfers as of_transfer
from train.paper.outcome import VERDICTS, Number, Outcome, Picture, exactly, jackknife, moved, number, of_two_groups, paired
from train.reproduce import main
from zfcore import plots, results, trained
from zfcore.analysis import probing
from zfcore.analysis.diagnostics import Diagnosis
from zfcore.analysis.top_activations import UnitViews
from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.data.transforms import check_large_enough
from zfcore.layers import Conv, Flatten, Linear, ReLU
from zfcore.network import Network

AGREES, DOES_NOT, UNDECIDED, NOT_HERE = VERDICTS
HOSTILE = "<script>alert(1)<& \"'|`*_[x](y)"
NAMES = {HOSTILE: (230, 160, 30), "日本 é": (40, 170, 110), "plum": (120, 50, 130)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs on three classes of noise, one of which is called like a tag, both epochs kept."""
    root, patch = tmp_path_factory.mktemp("reproduce"), pytest.MonkeyPatch()
    patch.setenv("ZFCORE_CACHE", str(root/"cache"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name, colour in NAMES.items():
            (root/"pictures"/part/name).mkdir(parents=True)
            for k in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (37, 41, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root/"pictures"/part/name/f"{k:02}.png")
    train(["--data", str(root/"pictures"), "--preset", "tiny", "--image-size", "32", "--batch-size", "6", "--epochs", "2",
           "--keep-epochs", "1", "2",
           "--workers", "0", "--device", "cpu", "--output", str(root/"run")])
    yield root/"run"
    patch.undo()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take longer than all else: each is one pixel. Each classifier is fitted with two values of C."""
    monkeypatch.setattr(probing, "GRID", {kind: grid[1:3] for kind, grid in probing.GRID.items()})
    monkeypatch.setattr(plots, "save", lambda drawn, path: Image.new("RGB", (1, 1)).save(path))
    for name in ("occlusion", "invariance", "evolution", "diagnostics", "sanity_checks", "correspondence", "unit_blocks",
                 "beside_paper", "learning_curves",
                 "filters", "accuracy_curve", "accuracy_by_layer", "average_precisions"):
        monkeypatch.setattr(plots, name, lambda *_: None)


def made_by(run, output, *words):
    main([*words, "--run", str(run), "--output", str(output), "--workers", "0", "--device", "cpu"])


def numbers(folder):
    with open(folder/"numbers.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------------------------------- rules
@pytest.mark.parametrize("differences, verdict", [
    ([3.0, 4, 5, 4], AGREES), ([-3.0, -4, -5, -4], DOES_NOT), ([3.0, -4, 5, -4], UNDECIDED), ([5.0], UNDECIDED),
                                                  ([], UNDECIDED),
    ([math.nan, 3, 4, 5], AGREES), ([math.nan]*3, UNDECIDED), ([2.0]*7, UNDECIDED), ([0.0]*7, UNDECIDED)])
def test_paired_differences_are_judged_by_their_whole_interval(differences, verdict):
    found = paired("a claim", differences)
    assert found.verdict == verdict
    if found.low is not None:
        assert found.low <= found.here <= found.high
        assert found.low == found.high or (found.low > 0, found.high < 0) == (verdict == AGREES, verdict == DOES_NOT)


def test_the_interval_of_paired_differences_is_students():
    found = paired("a claim", [1.0, 2, 3, 4, math.nan])            # spread 1.29099, t 3.18245 of three degrees of freedom
    assert found.high - found.here == pytest.approx(3.182446*1.290994/2, rel=1e-6) and "over 4 pictures" in found.rule


def test_the_interval_of_two_groups_is_welchs():
    one, other = [27.5, 21, 19, 23.6, 17, 17.9], [27.1, 22, 20.8, 23.4, 23.4, 23.5, 25.8]
    found = of_two_groups("a claim", one, [*other, math.nan])
    errors = np.var(one, ddof=1)/6, np.var(other, ddof=1)/7
    degrees = sum(errors)**2/(errors[0]**2/5 + errors[1]**2/6)
    assert int(degrees) == 7 and found.here == pytest.approx(np.mean(one) - np.mean(other))
    assert found.high - found.here == pytest.approx(2.364624*math.sqrt(sum(errors)), rel=1e-6) and found.verdict == UNDECIDED
    assert of_two_groups("a claim", [9.0, 10, 11], [1.0, 2, 3]).verdict == AGREES and of_two_groups("", [1.0, 2, 3],
                                                                                                    [9.0, 10, 11]).verdict == DOES_NOT
    assert of_two_groups("a claim", [1.0], [1.0, 2]).verdict == UNDECIDED


def test_the_jackknife_of_a_mean_is_its_students_interval():
    values = np.array([1.0, 4, 2, 8, 5])
    value, half = jackknife(lambda kept: values[kept].mean(), 5)
    assert value == 4 and half == pytest.approx(paired("", values).high - 4)


def test_facts_agree_where_they_are_the_papers():
    assert exactly("", 110, 110).verdict == AGREES and exactly("", 109, 110).verdict == DOES_NOT and exactly("", 1e-6, 0,
                                                                                                             near=1e-4).verdict == AGREES


@pytest.mark.parametrize("words, whole", [
    ([AGREES, AGREES], AGREES), ([AGREES, UNDECIDED], "agrees in part"), ([DOES_NOT, UNDECIDED], DOES_NOT),
                                          ([UNDECIDED], UNDECIDED),
    ([UNDECIDED, NOT_HERE], UNDECIDED), ([AGREES, DOES_NOT], "agrees in part"), ([NOT_HERE], NOT_HERE), ([""], ""), ([], "")])
def test_an_items_verdict_is_that_of_its_claims(words, whole):
    assert Outcome("fig2", tuple(Number("a claim", 1.0, verdict=word) for word in words)).verdict == whole


@pytest.mark.parametrize("numbers, left", [
    ((math.nan, None, None), (None, None, None)), ((1.0, math.nan, math.nan), (1.0, None, None)), ((1.0, -math.inf, 2.0), (1.0, None, None))])
def test_what_is_not_finite_is_no_number_decides_nothing_and_is_kept_as_all_are(tmp_path, numbers, left):
    found = Outcome("fig2", tuple(Number("it", *numbers, rule="a rule", verdict=word) for word in (*VERDICTS, "")),
                    took={"seconds": 1.0, "pictures": 0, "networks": 0}, versions={})
    outcome.save(tmp_path, found)
    again = outcome.load(tmp_path).numbers
    assert [(n.here, n.low, n.high) for n in again] == [left]*5 and [n.verdict for n in again] == [NOT_HERE]*4 + [""]
    assert all(n.rule == "a rule; not finite here" for n in again)
    assert exactly("a fact", math.nan, 1).verdict == NOT_HERE and number("a mean", [math.nan]).here is None


@pytest.mark.parametrize("n, moves, verdict", [(3, (), NOT_HERE), (5, (), NOT_HERE), (5, (0,), NOT_HERE), (5, (0, 9), AGREES),
                                               (3, (0,), UNDECIDED)])
def test_of_a_layer_that_random_places_do_not_change_no_lead_is_told(n, moves, verdict):
    """`moves`: the pairs in which they do; only the first and the last have no picture in common."""
    m = n*(n - 1)//2
    scores, random = np.zeros((2, 1, m)), np.zeros((2, 2, m))
    scores[1], random[1], random[0][:, [at for at in moves if at < m]] = 0.1, 0.2, 0.3
    claim = looking.shrinking(SimpleNamespace(pictures=np.zeros(n), scores=scores, random=random, layers=np.array(["conv5", "fc7"])))
    assert claim.verdict == verdict and ("changes the signs of conv5 or fc7 alike" in claim.rule) == (verdict == NOT_HERE)


def views(projections, pictures=None):
    n, k, f = projections.shape[:3]
    pictures = np.zeros((n, k), np.int64) if pictures is None else pictures
    return UnitViews("conv2", np.arange(n), np.ones((n, k), np.float32), pictures, np.zeros((n, k, 2), np.int64),
                     np.zeros((n, k, 4), np.int64),
                     np.full((n, k), "x"), projections, np.zeros(projections.shape, np.uint8))


def test_units_that_show_one_thing_each_are_grouped_and_those_that_show_anything_are_not():
    rng = np.random.default_rng(1)
    own = rng.normal(size=(20, 1, 5, 5, 3)) + 0.3*rng.normal(size=(20, 4, 5, 5, 3))
    assert (looking.grouping(views(own)) > 0.7).all()
    assert abs(looking.grouping(views(rng.normal(size=(20, 4, 5, 5, 3)))).mean()) < 0.1
    silent = np.zeros((20, 4), np.int64)
    silent[3] = -1
    found = looking.grouping(views(own, silent))
    assert np.isnan(found[3]) and np.isfinite(np.delete(found, 3)).all()


def test_the_commonest_class_of_a_unit_that_as_many_pictures_make_fire_as_are_asked_for():
    shares = looking.commonest(np.array([[0, 1, 2], [0, 3, -1], [4, -1, -1], [-1, -1, -1]]), np.array([7, 7, 2, 7, 2]))
    np.testing.assert_allclose(shares, [2/3, np.nan, np.nan, np.nan])


def test_of_one_class_are_pictures_of_units_that_all_nine_make_fire_in_the_run_and_before(run, tmp_path, monkeypatch):
    here, many = of_run(run, tmp_path), {"run": 5, "untrained": 4}         # units that do; a picture less makes the others fire
    counts = iter(many.values())

    def passed(model, pictures, layers, k, **_):
        of = np.tile(np.arange(9), (8, 1))
        of[next(counts):, 8] = -1
        return SimpleNamespace(pictures=dict.fromkeys(layers, of))

    monkeypatch.setattr(looking.top, "top_activations", passed)
    layers = ["conv1", "conv2"]
    passes = {name: looking.passed(here, name, of, layers, 9) for name, of in looking.networks_of(here).items()}
    rules = {n.what: n.rule for n in looking.of_one_class(here, layers, passes)}
    over = {what: rule.partition(" over ")[2] for what, rule in rules.items()}
    assert over["conv2: of a unit's nine strongest pictures those of one class"] == "5 of 8 units"
    assert over["conv2, untrained (control): those of one class"] == "4 of 8 units"
    assert over["conv2 is class-specific: more than before training"].startswith("4 of 8 units, less the untrained")


# ---------------------------------------------------------------------------------------------------------------- items
def test_every_item_has_an_outcome_which_says_what_it_lacks(run, tmp_path, monkeypatch, capsys):
    for name, value in (("epochs", 1), ("image_size", 32)):
        monkeypatch.setitem(ablation.SCALES["tiny"].options, name, value)
    monkeypatch.setattr(setting.Setting, "of", lambda self, minutes, hours, paper,
                        own=setting.Setting.of: few(own(self, minutes, hours, paper)))
    monkeypatch.setattr("zfcore.analysis.invariance.STEPS", 16)
    # theirs take seconds
    monkeypatch.setattr(networks, "diagnosed", lambda *_: results.load(tmp_path/"out/fig6/diagnostics.h5", Diagnosis))
    (tmp_path/"empty").mkdir()
    made_by(run, tmp_path/"out", "--caltech256", str(tmp_path/"empty"))
    said, found = capsys.readouterr().out, {name: outcome.load(tmp_path/"out"/name) for name in ITEMS}
    assert set(found) == set(ITEMS) and all(f"{name:10}" in said for name in ITEMS)
    assert {name for name, one in found.items() if one.lacking} == {"table1", "table3", "table4", "fig9", "table5", "table6",
                                                                    "table7"}
    for name, word in {"table1": "--landmarks", "table3": "--scale hours", "table4": "--caltech101", "table6": "--voc",
                       "fig9": "no class folders"}.items():
        assert word in found[name].lacking
    assert {n.verdict for n in found["fig7"].numbers if n.what == "P falls where the object is hidden"} == {NOT_HERE}
    left = [picture.shows.split(" left ")[1] for picture in found["fig2"].figures]
    assert left[0].startswith("each unit's filter, ") and all(text.startswith("the projections of ") for text in left[1:]) and left[1:]
    assert found["fig4"].numbers and found["table2"].took["networks"] == 4 and found["fig6"].took["networks"] == 4
    controls = [n for n in found["fig4"].numbers if "(control)" in n.what]
    assert [n.what.split()[0] for n in controls] == [*(f"conv{k}" for k in range(1, 6)), "conv1", "conv5"]
    assert not any("pictures" in n.rule for n in controls)
    assert "agree; apart from the paper's, this project's sanity checks: " + page.verdict_in_words(found["sanity"]) in in_one(said)
    rows = numbers(tmp_path/"out")
    assert {row["item"] for row in rows} == set(ITEMS) and {row["verdict"] for row in rows} <= {"", *VERDICTS}
    for name, one in found.items():
        assert all((tmp_path/"out"/name/picture.file).is_file()
                   for picture in one.figures) and one.took["seconds"] >= 0 and one.versions["numpy"]
        assert one.lacking or one.protocol


def few(value):
    """What a scale has, in small."""
    if isinstance(value, list):
        return [word.replace("--seeds=3", "--seeds=2") for word in value]
    return min(value, 4) if isinstance(value, int) else {"random:12": "random:3", "random:32": "random:3"}.get(value, value)


def test_tables_4_and_7_judge_what_the_folds_have(transfers, tmp_path, monkeypatch):  # noqa: F811
    make, seconds = of_transfer.accuracies("table4", "table4", ((2, 4),)*3, (3,)*3, ((2, 1, (2,)),)*3)
    here = of_run(transfers/"run", tmp_path, caltech101=transfers/"101_ObjectCategories")
    (tmp_path/"table4").mkdir()
    found = make(here)
    claims = {n.what: n for n in found.numbers if n.verdict}
    assert set(claims) == {"2 a class: features learned elsewhere beat random weights trained there", "2 a class: what was "
                                                                                                      "learned serves here",
                           "4 a class: what was learned serves here"}
    run, untrained = ([n for n in found.numbers if n.what.startswith("4 a class: features of the") and word in n.what][0]
                      for word in ("run", "control"))
    assert claims["4 a class: what was learned serves here"].here == pytest.approx(run.here - untrained.here)
    assert found.took["networks"] == 2 and seconds(here, setting.Speed(1, 1, 1)) > 0
    # called otherwise
    again = make(of_run(transfers/"run", tmp_path, caltech101=transfers/".."/transfers.name/"101_ObjectCategories"))
    assert again.numbers == found.numbers and len(list((tmp_path/"table4").iterdir())) == 2
    monkeypatch.setattr(setting.Setting, "of", lambda self, minutes, *_: 4 if minutes == 15 else minutes)
    found = of_transfer.layers(here)
    assert len([n for n in found.numbers if n.verdict]) == 8 and "44.8 ± 0.7" in [n.paper for n in found.numbers]


def test_without_its_config_a_run_has_features_and_no_network_from_random_weights(transfers, tmp_path):  # noqa: F811
    shutil.copytree(transfers/"run", tmp_path/"run", ignore=shutil.ignore_patterns("config.json"))
    make, seconds = of_transfer.accuracies("table4", "table4", ((2,),)*3, (2,)*3, ((2, 1, (2,)),)*3)
    here = of_run(tmp_path/"run", tmp_path, caltech101=transfers/"101_ObjectCategories")
    found = make(here)
    assert found.took["networks"] == 0 and [n.verdict for n in found.numbers if "beat random weights" in n.what] == [NOT_HERE]
    assert seconds(here, setting.Speed(0, 0, 1)) == seconds(here, setting.Speed(0, 0, 0))


def test_table_1_is_of_the_pictures_beside_the_landmarks(run, tmp_path, monkeypatch):
    for k in range(3):
        shutil.copy(run.parent/"pictures/val/plum"/f"{k:02}.png", tmp_path/f"-{k}.png")         # a name that is no option
    (tmp_path/"marks.json").write_text(json.dumps({f"-{k}.png": {"nose": [20 + k, 18], "ear": [12, 10 + k]}
                                                   for k in range(3)}))
    (tmp_path/"out").mkdir()
    monkeypatch.chdir(tmp_path)
    found = looking.corresponding(of_run(run, tmp_path/"out", landmarks=Path("marks.json")))
    claims = {n.what: n for n in found.numbers if n.verdict}
    assert {what.split(":")[0] for what in claims} == {f"{layer}, {part}" for layer in ("conv5", "fc7")
                                                       for part in ("nose", "ear", "parts")} | {
        "what parts are ahead by shrinks from conv5 to fc7"}
    rows = {n.what: n.here for n in found.numbers if not n.verdict}
    nose, = (n for what, n in claims.items() if what.startswith("conv5, nose"))
    assert nose.here == pytest.approx(rows["conv5, random hidden: mean sign change"]
                                      - rows["conv5, nose hidden: mean sign change"])
    assert nose.low is None and "0.079 ± 0.017" in [n.paper for n in found.numbers
                                                    if n.what == "conv5, nose hidden: mean sign change"]


@pytest.mark.parametrize("item, options, claims", [
    (looking.strongest, {}, 4 + 1), (looking.hiding, {}, 1), (looking.corresponding, {"landmarks": "marks.json"}, 2)])
def test_a_network_before_its_first_step_has_learned_nothing(run, tmp_path, monkeypatch, item, options, claims):
    for k in range(5):
        shutil.copy(run.parent/"pictures/train/plum"/f"{k:02}.png", tmp_path/f"{k}.png")
    (tmp_path/"marks.json").write_text(json.dumps({f"{k}.png": {"nose": [20 + 2*k, 18], "ear": [12, 10 + 3*k]}
                                                   for k in range(5)}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setting.Setting, "of", lambda self, *of, own=setting.Setting.of: few(own(self, *of)))
    here = of_run(run, tmp_path/"out", **{name: Path(file) for name, file in options.items()})
    trained_more = [n for n in item(here).numbers if "more than before training" in n.what]
    assert len(trained_more) == claims and any(n.here for n in trained_more)
    monkeypatch.setattr(type(here.model), "untrained", lambda self: self)
    found = [n for n in item(of_run(run, tmp_path/"again", **here.options)).numbers if "more than before training" in n.what]
    assert len(found) == claims
    for of in found:
        assert of.here == pytest.approx(0, abs=1e-12) and of.verdict in (UNDECIDED, NOT_HERE)


def test_the_control_of_figure_4_tells_what_a_layer_does_from_what_lies_below_it(run, tmp_path, monkeypatch):
    """Layer 1 is turned and all weights are halved: upper layers change more than it, by their own weights not at all."""
    here, rng = of_run(run, tmp_path), np.random.default_rng(5)
    later, layers = replace(here.model, epoch=2), [layer.name for layer in here.model.network.convolutions]
    network = later.network.copy()
    for layer in network.convolutions:
        w = layer.parameters["w"]
        noise = rng.standard_normal(w.shape).astype(np.float32)
        noise *= 0.2*np.linalg.norm(w)/np.linalg.norm(noise)*(layer.name == "conv1")
        layer.parameters = {**layer.parameters, "w": 2*(w + noise), "b": 2*layer.parameters["b"]}
    earlier = replace(later, network=network, epoch=1)
    monkeypatch.setattr(looking, "opened", lambda file, device: earlier if file.stem.endswith("1") else later)
    step = looking.growing.evolution([earlier, later], here.pictures, layers, {layer: [0] for layer in layers})
    (tmp_path/"fig4").mkdir()
    control = looking.by_own_weights(here, step, 0, here.asked("fig4", "evolution", "--part=val"))
    mean = {layer: (np.nanmean(step.changes[layer][0]), np.nanmean(control[layer])) for layer in layers}
    assert mean["conv3"][0] > 2*mean["conv1"][0] > 0 and mean["conv1"][1] == pytest.approx(mean["conv1"][0], rel=1e-3)
    assert all(mean[layer][1] < 0.01*mean[layer][0] for layer in layers[1:])


def test_values_of_one_picture_count_together():
    rng = np.random.default_rng(0)
    values = rng.normal(1, 1, 12)
    one, other = paired("it", values), paired("it", values, groups=range(12))
    assert (other.here, other.low, other.high) == pytest.approx((one.here, one.low, one.high))
    twice = paired("it", np.repeat(values, 3), groups=np.repeat(np.arange(12), 3))                # nothing new in them
    assert (twice.here, twice.low, twice.high) == pytest.approx((one.here, one.low, one.high))
    assert twice.rule.endswith("over 36 pictures of 12 pictures")
    assert paired("it", np.repeat(values, 3)).low > twice.low
    alone = paired("it", values, groups=np.zeros(12))
    assert alone.verdict == UNDECIDED and alone.low is None and "needs those of two" in alone.rule
    gap = paired("it", [np.nan, *values], groups=[0, *range(12)])
    assert gap.low == pytest.approx(one.low)


def test_intervals_of_groups_hold_the_mean_as_often_as_they_say():
    rng, held = np.random.default_rng(1), 0
    groups = np.repeat(np.arange(15), 4)
    for _ in range(800):
        found = paired("it", rng.normal(size=15)[groups] + 0.3*rng.normal(size=60), groups=groups)
        held += found.low <= 0 <= found.high
    assert 0.92 < held/800 < 0.975


NOSES = {f"{k}.png": {"nose": [20, 18]} for k in range(6)}


@pytest.mark.parametrize("content, there, said", [
    (NOSES, (), "6 missing: 0.png, 1.png, 2.png, ...; copy"),
    (NOSES, (0, 1, 3, 4), "2 missing: 2.png, 5.png; copy"),
    ({}, (), "two pictures or more, to compare, got those of none"), ({"0.png": {"nose": [1, 2]}}, (0,), "got those of 1"),
    ({"0.png": {}, "1.png": {"nose": [1, 2]}}, (0, 1), "--landmarks: expected a part that all pictures have"),
    ('{"0.png": ', (), "--landmarks: expected JSON like"), ([1], (), "--landmarks: expected JSON like")])
def test_landmarks_that_do_not_serve_are_refused_before_anything_is_made(run, tmp_path, capsys, content, there, said):
    (tmp_path/"marks").mkdir()
    for k in there:
        (tmp_path/"marks"/f"{k}.png").touch()
    file = tmp_path/"marks"/"marks.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SystemExit) as left:
        made_by(run, tmp_path/"out", "fig3", "table1", "--landmarks", str(file))
    told = capsys.readouterr()
    assert left.value.code == 2 and said in in_one(told.err) and not told.out and not (tmp_path/"out").exists()
    assert "missing" not in said or f"--landmarks {file}: expected its 6 pictures in {file.parent}, got " in in_one(told.err)


def test_the_pictures_of_a_folder_of_landmarks_lie_in_it(tmp_path):
    for k in range(2):
        (tmp_path/f"{k}.png").touch()
        nose = {"label": "nose", "points": [[1, 2]]}
        (tmp_path/f"{k}.json").write_text(json.dumps({"imagePath": f"{k}.png", "shapes": [nose]}))
    assert looking.landmarked(tmp_path) == [str(tmp_path/f"{k}.png") for k in range(2)]


def test_table_6_judges_the_classes(transfers, tmp_path):  # noqa: F811
    found = of_transfer.average_precision(of_run(transfers/"run", tmp_path, voc=transfers/"voc"))
    claim, = (n for n in found.numbers if n.verdict)
    assert claim.what == "the run's features beat features of random weights" and "87.8" in [n.paper for n in found.numbers
                                                                                             if n.what.startswith("dog")]


def of_run(run, output, **options):
    model = trained.open(run, "cpu")
    return setting.Setting(str(run), None, output, "minutes", 0, model, model.pictures(workers=0), "cpu", 0, options)


def test_a_drawn_set_has_boxes_and_a_set_that_is_kept_apart(run, tmp_path, monkeypatch):
    here = of_run(run, tmp_path)
    assert of_transfer.set_for(here, "caltech101") is None
    drawn = setting.Setting("drawn", "", tmp_path, "minutes", 0, trained.open("drawn", "cpu"), here.pictures)
    assert of_transfer.set_for(drawn, "caltech101") == "drawn:unseen" and not looking.no_landmarks(drawn)
    assert "python -m train.reference drawn" in looking.no_epochs(drawn)


def test_figure_6_agrees_where_alexnet_is_what_the_paper_says_it_is():
    def made_up(mid, silent, alias):
        dead = {name: np.arange(10) < silent for name in ("conv1", "conv2", "conv3")}
        return SimpleNamespace(bands=lambda: {"low": 0, "mid": mid, "high": 1 - mid}, dead=dead, aliasing=alias)

    alexnet, ours = made_up(0.2, 4, 0.05), made_up(0.5, 1, -0.01)
    found = [sign*(of(alexnet) - of(ours)) for _, of, _, sign in networks.COMPARED]
    np.testing.assert_allclose(found, [30, 30, 6])


@pytest.mark.parametrize("layers, made", [
    ([Flatten("flatten"), Linear("fc8", 2)], {"fig1", "fig3"}),
    ([Conv("conv1", 5, K=5, S=3), ReLU("relu1"), Flatten("flatten"), Linear("fc8", 2)],
     {"fig1", "fig2", "fig3", "fig5", "fig7", "sanity"})])
def test_a_network_with_one_layer_has_what_it_can_have(tmp_path, monkeypatch, layers, made):
    network = Network("plain", (3, SIZE - 6, SIZE - 6), layers).init(0, "he")
    monkeypatch.setattr("zfcore.analysis.invariance.STEPS", 16)
    run = planted_run(tmp_path, network=network, pictures=3)
    made_by(run, tmp_path/"out", "fig1", "fig2", "fig3", "fig4", "fig5", "fig7", "fig8", "table7", "sanity")
    found = {name: outcome.load(tmp_path/"out"/name) for name in ITEMS if (tmp_path/"out"/name).is_dir()}
    assert {name for name, one in found.items() if not one.lacking} == made and set(found) > {"table1", "table7", "sanity"}
    assert all("expected" in one.lacking or one.lacking.endswith(".") for name, one in found.items() if name not in made)


# -------------------------------------------------------------------------------------------------------- going on
def test_a_reproduction_that_was_stopped_goes_on_to_the_same_numbers(run, tmp_path, monkeypatch, capsys):
    made_by(run, tmp_path/"whole", "fig1", "fig2", "fig3")
    save, seen = outcome.save, []

    def stop(folder, found):
        seen.append(found.item)
        if found.item == "fig2" and seen.count("fig2") == 1:
            signal.raise_signal(signal.SIGTERM)
        save(folder, found)

    monkeypatch.setattr(outcome, "save", stop)
    with pytest.raises(SystemExit) as left:
        made_by(run, tmp_path/"out", "fig1", "fig2", "fig3")
    assert left.value.code == 143 and "the same command goes on" in capsys.readouterr().out and "fig1" in (tmp_path/"out"/"index.html").read_text("utf-8")
    made_by(run, tmp_path/"out", "fig1", "fig2", "fig3")
    assert seen == ["fig1", "fig2", "fig2", "fig3"]
    assert (tmp_path/"out"/"numbers.csv").read_bytes() == (tmp_path/"whole"/"numbers.csv").read_bytes()
    capsys.readouterr()
    main(["--output", str(tmp_path/"out"), "--check", str(tmp_path/"whole")])
    assert "0 of " in capsys.readouterr().out and sorted(p.name for p in (tmp_path/"out"/"fig2").iterdir()) == sorted(
        p.name for p in (tmp_path/"whole"/"fig2").iterdir())


def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_room(run, tmp_path, monkeypatch, capsys):
    full, leave = [True], atomic.__exit__

    def refuse(self, kind, error, trace):
        if full[0] and self.path.name == outcome.FILE and self.path.parent.name == "fig3":
            kind, error = OSError, OSError(28, "No space left on device")
        return leave(self, kind, error, trace)

    monkeypatch.setattr(atomic, "__exit__", refuse)
    with pytest.raises(SystemExit) as left:
        made_by(run, tmp_path/"out", "fig1", "fig3")
    assert left.value.code == 2 and "make room there" in capsys.readouterr().err and "fig3" not in {row["item"]
                                                                                                    for row in numbers(tmp_path/"out")}
    full[0] = False
    made_by(run, tmp_path/"out", "fig1", "fig3")
    assert {row["item"] for row in numbers(tmp_path/"out")} == {"fig1", "fig3"}


def test_of_pictures_that_are_too_small_only_what_the_command_has_is_advised(run, tmp_path, monkeypatch):
    def make(here):
        check_large_enough(Image.new("RGB", (9, 9)), 48, False, "a.png")
    monkeypatch.setattr(page, "write", lambda here: None)
    reproduce.make_all(of_run(run, tmp_path), [setting.Item("fig6", "", "", "", make, lambda *_: 0.0)])
    said = outcome.load(tmp_path/"fig6").lacking
    assert said.startswith("a.png: expected a shorter side of at least 48 pixels")
    assert {f"--{word}" for word in re.findall(r"; (?:--)?(\w+)", said)} <= {*reproduce.parser()._option_string_actions}


def test_what_could_not_be_made_is_tried_again_and_what_another_option_allows_is_made(run, tmp_path, monkeypatch):
    tried = []

    def make(here):
        tried.append(here)
        raise Expected("this", "that", "other")

    item = setting.Item("fig3", "", "", "", make, lambda *_: 0.0)
    here = of_run(run, tmp_path)
    monkeypatch.setattr(page, "write", lambda here: None)
    for _ in range(2):
        reproduce.make_all(here, [item])
    assert len(tried) == 2 and outcome.load(tmp_path/"fig3").lacking == "this: expected that, got other"
    table6 = ITEMS["table6"]
    assert here.key(table6) != of_run(run, tmp_path, voc=tmp_path).key(table6) and here.key(ITEMS["fig2"]) == of_run(run,
                                                                                                                     tmp_path, voc=tmp_path).key(ITEMS["fig2"])


@pytest.mark.parametrize("words, said", [
    (["fig10", "--run", "RUN"], "item: expected one of all, fig1"), (["fig3"], "--run: expected"),
                                         (["--run", "RUN", "--voc", "nowhere"], "--voc: expected"),
    (["fig3", "--run", "RUN", "--scale", "hours"], "the study that was begun there (scale minutes)"), (["--check", "nowhere"],
                                                                                                       "--check: expected")])
def test_what_cannot_be_is_one_sentence(run, tmp_path, capsys, words, said):
    made_by(run, tmp_path/"out", "fig3")
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(run) if word == "RUN" else word for word in words] + ["--output", str(tmp_path/"out")])
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_a_reproduction_whose_study_json_is_damaged_goes_on_as_it_is_advised(run, tmp_path, capsys):
    made_by(run, tmp_path/"out", "fig1", "fig3")
    made = (tmp_path/"out"/"fig1"/outcome.FILE).stat().st_mtime_ns
    (tmp_path/"out"/"study.json").write_text('{"scale"')
    capsys.readouterr()
    with pytest.raises(SystemExit):
        made_by(run, tmp_path/"out", "fig1", "fig3")
    assert "remove it, and type the options that the study began with" in in_one(capsys.readouterr().err)
    (tmp_path/"out"/"study.json").unlink()
    made_by(run, tmp_path/"out", "fig1", "fig3")
    assert (tmp_path/"out"/"study.json").is_file() and (tmp_path/"out"/"fig1"/outcome.FILE).stat().st_mtime_ns == made


def test_the_folder_of_an_item_that_leads_elsewhere_is_refused_and_nothing_is_written_there(run, tmp_path, capsys):
    made_by(run, tmp_path/"out", "fig1")
    shutil.move(tmp_path/"out"/"fig1", tmp_path/"elsewhere")
    (tmp_path/"elsewhere"/outcome.FILE).write_text("precious")
    (tmp_path/"out"/"fig1").symlink_to(tmp_path/"elsewhere")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (["--run", str(run), "fig1"], ["--check", str(tmp_path/"out")]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([*words, "--output", str(tmp_path/"out")])
        assert left.value.code == 2 and "fig1: expected a place in its own folder, got a link that leads out" in in_one(capsys.readouterr().err)
    assert {path: path.read_bytes() for path in before if path.is_file()} == before


@pytest.mark.parametrize("content", ["", '{"item": "fig1", "num', "[]", "{}"])
def test_an_outcome_that_is_damaged_is_told_and_made_anew(run, tmp_path, content, capsys):
    made_by(run, tmp_path/"out", "fig1", "fig3")
    file = tmp_path/"out"/"fig1"/outcome.FILE
    numbers_before, whole = json.loads(file.read_text())["numbers"], numbers(tmp_path/"out")
    file.write_text(content)
    with pytest.raises(SystemExit) as left:
        main(["--output", str(tmp_path/"out"), "--check", str(tmp_path/"out")])
    assert left.value.code == 2                            # numbers that cannot be read are not compared
    capsys.readouterr()
    made_by(run, tmp_path/"out", "fig3")                   # another item: the page is written without it
    said = in_one(capsys.readouterr().err)
    assert said.count(f"{file}: expected ") == 1 and "python -m train.reproduce fig1 makes it anew" in said
    assert {row["item"] for row in numbers(tmp_path/"out")} == {"fig3"}
    made_by(run, tmp_path/"out", "fig1")
    assert json.loads(file.read_text())["numbers"] == numbers_before and numbers(tmp_path/"out") == whole


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path, capsys):
    (tmp_path/"mine.txt").write_text("precious")
    with pytest.raises(SystemExit) as left:
        made_by(run, tmp_path, "fig3")
    assert left.value.code == 2 and "a new or empty folder" in capsys.readouterr().err and [p.name
                                                                                            for p in tmp_path.iterdir()] == ["mine.txt"]


# -------------------------------------------------------------------------------------------------------------- --check
def test_one_changed_number_is_found_and_the_status_says_so(run, tmp_path, capsys):
    for name in ("earlier", "now"):
        made_by(run, tmp_path/name, "fig1", "fig3")
    file = tmp_path/"earlier"/"fig3"/outcome.FILE
    told = json.loads(file.read_text())
    for name, value in (("here", 26 + 2**-40), ("low", 25.0), ("verdict", DOES_NOT)):
        told["numbers"][2][name] = value
    file.write_text(json.dumps(told))
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["--output", str(tmp_path/"now"), "--check", str(tmp_path/"earlier")])
    said = capsys.readouterr().out
    assert left.value.code == 1 and "fig3: conv2: side of the maps: the number was 26.0000" in said
    assert "low was 25.0, is None; verdict was does not agree, is agrees" in " ".join(said.split())
    assert "1 of 20 numbers in 2 items moved" in " ".join(said.split())


def test_numbers_that_only_one_folder_has_are_named_and_counted_among_all(tmp_path, capsys):
    one, other = (Outcome("fig2", tuple(Number(what, 1.0) for what in names), versions={},
                          took={"seconds": 1.0, "pictures": 0, "networks": 0}) for names in ("ab", "bcd"))
    assert list(moved(one, other)) == ["c: only in the earlier one", "d: only in the earlier one", "a: only in the newer one"]
    for name, found in (("now", one), ("earlier", other)):
        (tmp_path/name/"fig2").mkdir(parents=True)
        outcome.save(tmp_path/name/"fig2", found)
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path/"now"), "--check", str(tmp_path/"earlier")])
    assert "3 of 4 numbers in 1 item moved" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------------- page
class Tags(HTMLParser):
    """Tags of a page, with what they name, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text, self.open = [], [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def test_hostile_names_are_shown_and_never_run(run, tmp_path):
    here = of_run(run, tmp_path)
    found = {"fig2": Outcome("fig2", (Number(HOSTILE, 1.0, rule=HOSTILE, unit="%", paper="</table>", verdict=AGREES),),
                             (Picture(f"{HOSTILE}.png", HOSTILE),),
                             HOSTILE, "\x1b[31m\u202e", took={"seconds": 1.0, "pictures": 2, "networks": 0},
                             versions={"<b>": "<i>"}),
             "fig3": Outcome("fig3", lacking=HOSTILE, took={"seconds": 1.0, "pictures": 0, "networks": 0}, versions={})}
    text, tags = page.page(here, found), Tags()
    tags.feed(text)
    assert "script" not in tags.tags and tags.text.count(HOSTILE) >= 4 and "\x1b" not in text and "\u202e" not in text
    assert all(address.startswith(("#", "numbers.csv", "reproduction.md", "fig2/%3Cscript%3E")) for address in tags.addresses)
    told = page.markdown(here, found)
    assert "<script" not in told and "</table" not in told and "[x](y)" not in told
    assert len({line.count("|") for line in told.splitlines() if line.startswith("|") and "alert" in line
                and line.count("|") > 5}) == 1


@pytest.mark.parametrize("made", [(), ("fig1",), ("fig1", "sanity")])
def test_links_within_the_page_lead_to_what_was_made(run, tmp_path, made):
    found = {name: Outcome(name, lacking="nothing", took={"seconds": 1.0, "pictures": 0, "networks": 0}, versions={}) for name in made}
    text, tags = page.page(of_run(run, tmp_path), found), Tags()
    tags.feed(text)
    assert {address for address in tags.addresses if address.startswith("#")} == {f"#{name}" for name in made}
    assert ("sanity checks, not made yet" in text) == ("sanity" not in made)


def test_what_was_not_looked_at_is_not_counted():
    nothing = Outcome("table1", lacking="no landmarks")
    assert page.counted(page.claims({"table1": nothing})) == "1 not measurable here"
    assert page.facts({"table1": nothing}) == "no facts of arithmetic and architecture were looked at"
    facts = Outcome("fig1", (exactly("", 1, 1), exactly("", 1, 2)))
    assert page.facts({"fig1": facts}) == "1 of 2 facts of arithmetic and architecture agree"
    assert page.counted(page.claims({"fig1": facts})) == ""


def test_the_projects_own_checks_are_counted_apart_from_the_papers_claims():
    of = lambda name, *words: Outcome(name, tuple(Number("a claim", 1.0, verdict=word) for word in words))
    found = {"fig2": of("fig2", AGREES), "fig3": of("fig3", AGREES)}
    assert page.apart(found) == "" and page.apart(found | {"sanity": of("sanity", AGREES, AGREES, NOT_HERE)}) == (
        "; apart from the paper's, this project's sanity checks: 2 agree, 1 not measurable here")


@pytest.mark.parametrize("looks", [[5], [5, 10], [5, 10, 15]])
def test_the_column_of_intervals_names_no_per_cent_and_the_rule_of_each_that_is_not_of_95_does(run, tmp_path, looks):
    """As that of train.claims is where it has several looks."""
    (one,) = judged([Claim("1 x", "a", "b")], {("a", "top1"): {0: 3.0, 1: 4.0}, ("b", "top1"): {0: 1.0, 1: 1.0}}, {}, looks)
    claim = networks.of_claim(one, looks)
    assert (claim.low, claim.high) == (one.mean - one.half, one.mean + one.half)
    percents = re.findall(r"([\d.]+) %", claim.rule)
    assert float(percents[0]) == pytest.approx(100 - 5/len(looks), abs=0.01) and percents[1:] == ["95"]*(len(looks) > 1)
    found = {"table2": Outcome("table2", (claim,), took={"seconds": 1.0, "pictures": 2, "networks": 0}, versions={})}
    here = of_run(run, tmp_path)
    assert "|  | paper | here | interval |  | verdict | by |" in page.markdown(here, found)
    text = page.page(here, found)
    assert "<th>interval</th>" in text and 'data-is="interval"' in text and "<th>95" not in text and 'data-is="95' not in text
    assert "An interval is of 95 % unless the rule of its number says another" in text


@pytest.mark.parametrize("value, said", [(None, ""), (0.0, "0"), (62_357_608.0, "62,357,608"), (87.685, "87.7"),
                                         (0.10678, "0.11"), (0.0672, "0.067"), (-3.0, "-3"), (-0.456, "-0.46")])
def test_numbers_are_shown_with_the_digits_that_count(value, said):
    assert page.shown(value) == said
