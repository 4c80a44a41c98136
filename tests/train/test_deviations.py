"""A run says where it differs from the paper's recipe (section 3) and what it chose where the paper is silent."""
import json

import pytest

from bench.tables import deviations_table
from train.__main__ import main
from train.options import parser
from zfcore.models import MODELS
from zfcore.models.variants import IN_TABLES
from zfcore.training import PRESETS, TrainConfig, resolve
from zfcore.training.deviations import IMAGENET, STATED, deviations, in_words, open_questions

PAPER = dict(image_size=224, epochs=70, batch_size=128, lr=0.01, momentum=0.9, keep_prob=0.5, init="gaussian", rms_max=0.1,
             crops="ten", upscale=True, limit_per_class=0, init_from="", precision="fp32")             # typed from the paper


def typed(*words):
    return resolve(vars(parser().parse_args(list(words))))


@pytest.mark.parametrize("preset", ["zfnet", "zfnet-b", "alexnet"])
def test_the_papers_presets_on_imagenet_depart_in_nothing_and_say_what_is_open(preset):
    c = typed("--preset", preset, "--data", "ILSVRC2012")
    assert {name: getattr(c, name) for name in PAPER} == PAPER and c.model == preset and c.picture_size == 256
    assert deviations(c, IMAGENET) == deviations(c) == []
    about = [entry.what for entry in open_questions(c)]
    for word in ("padding", "contrast", "1e-2", "weight decay", "learning rate", "ten crops", "dropout", "RMS", "an error"):
        assert sum(word in what for what in about) == 1, word
    assert in_words(c, IMAGENET) == f"the paper's, {len(about)} choices where it leaves a question open; config.json lists them"


@pytest.mark.parametrize("words, what, here", [
    (["--image-size", "64"], "--image-size", "64"), (["--epochs", "7"], "--epochs", "7"), (["--lr", "0.02"], "--lr", "0.02"),
    (["--batch-size", "32"], "--batch-size", "32"), (["--momentum", "0.8"], "--momentum", "0.8"),
    (["--keep-prob", "0.8"], "--keep-prob", "0.8"), (["--init", "he"], "--init", "he"),
    (["--rms-max", "0"], "--rms-max", "0.0"),
    (["--crops", "random"], "--crops", "random"), (["--no-upscale"], "--upscale", "off"),
    (["--limit-per-class", "5"], "--limit-per-class", "5"), (["--data", "drawn:objects"], "pictures", "synthetic"),
    (["--model", "alexnet-b"], "network", "alexnet-b")])
def test_each_option_that_leaves_the_recipe_is_one_deviation_and_those_that_do_not_are_none(words, what, here):
    c = typed("--preset", "zfnet", "--data", "ILSVRC2012", "--workers", "7", "--seed", "3", "--micro-batch", "16", *words)
    (found,) = deviations(c)
    assert found.what == what and here in found.here and found.paper and found.why
    assert in_words(c).startswith("1 deviation from the paper's, ")


@pytest.mark.parametrize("model, listed", [*((name, True) for name in ("tiny", "alexnet", "vgg11", "nin")), ("zfnet-without-6-7", False), ("own", False)])
def test_the_share_that_dropout_keeps_is_a_deviation_of_networks_with_dropout_alone(model, listed):
    assert listed == any(entry.what == "--keep-prob" for entry in deviations(TrainConfig(model=model, keep_prob=0.8)))


@pytest.mark.parametrize("init_from, of", [("", ""), ("runs/a", ", of layers that --init-from does not bring")])
def test_the_law_of_the_start_is_told_of_what_is_drawn_by_it(init_from, of):
    told = {entry.what: entry.here for entry in open_questions(TrainConfig(init_from=init_from))}
    assert told['weights "1e-2" at the start'] == f"N(0, 0.01), biases 0{of}"


def test_another_set_is_told_with_its_counts():
    (found,) = deviations(typed("--preset", "zfnet", "--data", "flowers"), (102, 1020))
    assert found.here == "flowers: 102 classes, 1020 training pictures"


@pytest.mark.parametrize("data, here, why", (("", "the synthetic set", "needs no download"),
                                             ("drawn:objects", "the synthetic set", "asked for"),
                                             ("drawn:combinations", "the drawn combinations", "asked for")))
def test_drawn_sets_are_told_by_name_before_they_are_opened_too(data, here, why):
    for counts, more in ((None, ""), ((126, 12600), ": 126 classes, 12600 training pictures")):
        (found,) = deviations(typed("--preset", "zfnet", *["--data", data][:2*bool(data)]), counts)
        assert (found.here, found.why) == (here + more, why)


def test_what_is_open_follows_the_options():
    def here(*words):
        return {entry.what: entry.here for entry in open_questions(typed(*words))}
    zfnet = here("--preset", "zfnet", "--weight-decay", "0.25", "--patience", "9")
    assert zfnet["weight decay"].startswith("0.25 on") and "after 9 epochs" in zfnet["when the learning rate falls"]
    assert zfnet["padding, rounding of sizes"].endswith("0, 0, 1, 1, 1") and zfnet["stride of layer 2"] == "2"
    here = here("--model", "alexnet-grouped", "--drop-after", "3", "8", "--init", "he", "--crops", "random", "--rms-max", "0")
    assert "two groups" in here["AlexNet's two halves"] and here["when the learning rate falls"].endswith("after epochs 3, 8")
    assert here["padding, rounding of sizes"].endswith("0, 2, 1, 1, 1")
    assert "before the pool" in here["constants of the contrast normalisation"]
    # these are deviations then
    assert not any(word in what for what in here for word in ("1e-2", "ten crops", "RMS", "stride"))


def test_every_reason_of_tiny_is_its_own_and_every_option_is_either_stated_or_not_the_papers_matter():
    tiny = deviations(typed())
    assert len(tiny) == len(PRESETS["tiny"].keys() - {"weight_decay", "start_left", "drop_after"}) + 1        # and the pictures
    assert all(entry.why and entry.why != "asked for" for entry in tiny)
    silent = {"preset", "data", "model", "micro_batch", "weight_decay", "start_left", "patience", "drop_after", "seed",
              "device", "workers", "keep_epochs", "val_fraction"}
    assert STATED.keys() | silent == TrainConfig.__dataclass_fields__.keys() and not STATED.keys() & silent
    assert set(IN_TABLES) < set(MODELS)


def test_config_json_and_the_first_lines_of_a_run_tell_them(options, tmp_path, capsys):
    main([*options, "--epochs", "1", "--output", str(tmp_path/"run")])
    written = json.loads((tmp_path/"run"/"config.json").read_text())
    about = {entry["what"]: entry for entry in written["departures"]}
    assert about["--batch-size"] == {"what": "--batch-size", "paper": "128", "here": "8", "why": "asked for"}
    assert about["pictures"]["here"].endswith(": 3 classes, 30 training pictures")
    assert {entry["what"] for entry in written["open_questions"]} > {"weight decay", "dropout's scale"}
    assert f"recipe: {len(about)} deviations from the paper's, {len(written['open_questions'])} choices" in capsys.readouterr().out


def test_a_run_from_before_they_were_told_is_resumed_and_tells_them(options, tmp_path):
    main([*options, "--epochs", "1", "--output", str(tmp_path/"run")])
    path = tmp_path/"run"/"config.json"
    old = json.loads(path.read_text())
    for key in ("departures", "open_questions", "init_from"):
        del old[key]
    for name in ("micro_batch", "drop_after", "init_from"):
        del old["options"][name]
    path.write_text(json.dumps(old))
    main(["--resume", str(tmp_path/"run"), "--epochs", "2"])
    assert json.loads(path.read_text())["departures"]


def test_the_table_has_every_row_and_no_broken_one():
    rows = deviations_table(None).splitlines()
    assert all(row.count("|") == 5 for row in rows) and len({row.split("|")[1] for row in rows}) == len(rows)
