"""Training without a command line: complete when it is made, silent, the same bits, every mistake an Expected."""
import pickle
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import zfcore
from tests.train.test_loop import assert_same_bits
from train.__main__ import main
from train.options import parser
from zfcore import training
from zfcore.check import Expected
from zfcore.checkpoint import Unwritable, load
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.training import Stop, Training, loop, resolve


@pytest.fixture
def config(options):
    return resolve(vars(parser().parse_args(options)))


@pytest.fixture
def whole(made, config, tmp_path):
    """The folder of a run of two epochs that nothing stopped."""
    return made(2, tmp_path/"whole")


def test_a_few_lines_train_print_nothing_and_give_what_open_gives(config, tmp_path, capsys):
    mine = Training.begin(config, tmp_path/"run")
    mine.run()
    assert capsys.readouterr() == ("", "")
    model, opened = mine.trained, zfcore.open(tmp_path/"run"/"latest.h5")
    images = np.stack([mine.val.picture(i) for i in range(5)])
    np.testing.assert_array_equal(model.probabilities(images), opened.probabilities(images))
    assert (model.epoch, model.classes, model.data, model.path) == (opened.epoch, opened.classes, opened.data,
                                                                    tmp_path/"run") and model.epoch == 2
    for name, of_layer in opened.start.parameters().items():
        np.testing.assert_array_equal(model.start.parameters()[name]["w"], of_layer["w"])
    assert (model.start["conv1"].parameters["w"] != model.network["conv1"].parameters["w"]).any()
    assert list(model.history) == list(mine.columns) and all(
        np.array_equal(model.history[column], values, equal_nan=True) for column, values in opened.history.items())


def test_the_lines_that_are_told_and_the_weights_are_those_of_the_command(config, options, tmp_path, capsys):
    lines = []
    Training.begin(config, tmp_path/"run").run(say=lines.append)
    main([*options, "--output", str(tmp_path/"typed")])
    told = re.findall("^epoch  .*\n.*", capsys.readouterr().out, flags=re.M)
    without_speed = [[re.sub(r" +\d+ img/s", "", line) for line in of] for of in (lines, told)]
    assert without_speed[0] == without_speed[1] and len(lines) == 2
    assert_same_bits(tmp_path/"run"/"latest.h5", tmp_path/"typed"/"latest.h5")
    kept = [re.sub("(started.*|.*seconds.*)", "", (tmp_path/name/"config.json").read_text()) for name in ("run", "typed")]
    assert kept[0] == kept[1]


def test_every_attribute_is_there_when_it_is_made_and_every_method_works(config, whole, tmp_path):
    new, resumed = Training.begin(config, tmp_path/"run"), Training.resume(whole)
    assert vars(new).keys() == vars(resumed).keys()
    attributes = set(vars(new))
    assert new.validate().count == 12 and new.added_up() == [0, 0, 0]
    new.look(), new.draw(), new.write_log(), new.rescue()
    assert load(tmp_path/"run"/"latest.h5").step == 0 and new.legibility()[0] != new.legibility()[0]        # no numbers
    assert all(share == 1 for share in new.shares_of_start().values()) and (new.trained.epoch, new.trained.history) == (0, {})
    new.run()
    assert set(vars(new)) == attributes
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")


def test_a_run_that_is_stopped_goes_on_in_the_same_object_or_in_another_to_the_same_bits(config, whole, tmp_path, ctrl_c_after,
                                                                                         capsys):
    for name in ("same", "another"):
        ctrl_c_after(5)
        mine = Training.begin(config, tmp_path/name)
        with pytest.raises(Stop):
            mine.run()
        assert load(tmp_path/name/"latest.h5").step == 5 and "stopping after this step" in capsys.readouterr().err
        (mine if name == "same" else Training.resume(tmp_path/name)).run()
        assert_same_bits(whole/"latest.h5", tmp_path/name/"latest.h5")
        assert load(tmp_path/name/"latest.h5").history["val_loss"] == load(whole/"latest.h5").history["val_loss"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("was", ["run", "begun", "resumed", "sent"])
def test_a_training_does_not_write_over_the_epochs_that_another_has_trained_since(was, config, tmp_path):
    stale = Training.begin(replace(config, epochs=1), tmp_path/"run")
    stale.run() if was in ("run", "resumed") else None
    stale = {"resumed": lambda: Training.resume(tmp_path/"run", epochs=3), "sent": lambda: pickle.loads(pickle.dumps(stale))}.get(
        was, lambda: stale)()
    Training.resume(tmp_path/"run", epochs=2).run()
    before = files(tmp_path/"run")
    with pytest.raises(Expected, match=r"latest.h5: expected the checkpoint that this Training wrote or read last, got .*; "
                                       r"Training\.resume\('.*run'\) goes on"):
        stale.run()
    assert files(tmp_path/"run") == before
    (tmp_path/"run"/"latest.h5").unlink()      # then there is none that would be lost
    stale.run()


def test_a_training_goes_on_where_it_was_stopped_and_so_does_a_copy_but_only_one_of_them(config, whole, tmp_path, ctrl_c_after, capsys):
    ctrl_c_after(5)
    mine = Training.begin(config, tmp_path/"run")
    with pytest.raises(Stop):
        mine.run()
    pickle.loads(pickle.dumps(mine)).run()
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")
    with pytest.raises(Expected, match="one that another has written since"):
        mine.run()


@pytest.mark.parametrize("at", ["in a step", "at the end of an epoch"])
def test_a_training_that_is_broken_off_within_what_belongs_together_is_resumed_and_not_run_on(at, config, whole, tmp_path, monkeypatch):
    def broken(self, *arguments, real=loop.GradientSum.total):
        if mine.step == 5:
            raise KeyboardInterrupt
        return real(self, *arguments)

    def full(path, *arguments, real=loop.save):
        if path.name != "latest.h5":
            raise Unwritable(path, "room", "none")
        return real(path, *arguments)
    mine = Training.begin(replace(config, keep_epochs=(1,)), tmp_path/"run")
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Expected)):
        patch.setattr(loop.GradientSum, "total", broken) if at == "in a step" else patch.setattr(loop, "save", full)
        mine.run()
    before = files(tmp_path/"run")
    for again in mine, pickle.loads(pickle.dumps(mine)):
        with pytest.raises(Expected, match=r"a Training whose last step was finished, .*; Training\.resume\('.*run'\) goes on"):
            again.run()
    assert files(tmp_path/"run") == before
    Training.resume(tmp_path/"run").run()
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")
    assert (tmp_path/"run"/"best.h5").is_file() and (tmp_path/"run"/"epoch_0001.h5").is_file()


@pytest.mark.parametrize("how", ["again", "by hand"])
def test_steps_that_nobody_has_looked_at_count_where_the_training_goes_on(how, config, whole, tmp_path, monkeypatch):
    mine = Training.begin(config, tmp_path/"run")
    if how == "by hand":
        for batch in [*mine.train.batches(config.batch_size, config.seed, 0, device=mine.device)][:2]:
            mine.one_step(*batch)
    else:
        def stopped(self, *batch, real=Training.one_step):
            real(self, *batch)
            if self.step == 2:
                raise KeyboardInterrupt
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Training, "one_step", stopped)
            patch.setattr(loop, "LOOK_EVERY", 1e9)
            mine.run()
    assert mine.sums.count and not mine.sums.loss
    mine.run()
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")
    assert mine.history["train_loss"] == load(whole/"latest.h5").history["train_loss"]


def test_a_run_that_was_begun_and_never_run_is_resumed_from_its_start(config, whole, tmp_path):
    Training.begin(config, tmp_path/"run")
    Training.resume(tmp_path/"run").run()
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")


def test_a_run_is_not_resumed_with_fewer_epochs_than_it_has_done(whole):
    before = files(whole)
    with pytest.raises(Expected, match="^epochs: expected 2 or more, as many as .* has done, got 1; epochs that are done stay"):
        Training.resume(whole, epochs=1)
    assert files(whole) == before
    Training.resume(whole, epochs=2).run()


def test_in_another_thread_it_runs_too(config, whole, tmp_path):
    thread = threading.Thread(target=Training.begin(config, tmp_path/"run").run)
    thread.start()
    thread.join(60)
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")


def test_data_sets_and_pictures_of_ones_own_take_the_place_of_those_that_the_options_name(config, whole, tmp_path):
    sets = open_data(config.data, config.picture_size)
    for name, data in (("sets", sets),
                       ("prepared", [Pictures(part, config.picture_size, config.image_size, workers=0) for part in sets])):
        mine = Training.begin(replace(config, data="elsewhere"), tmp_path/name, data)
        assert name == "sets" or [mine.train, mine.val] == data
        mine.run()
        assert_same_bits(whole/"latest.h5", tmp_path/name/"latest.h5")
        Training.resume(tmp_path/name, data, epochs=3).run()
        assert load(tmp_path/name/"latest.h5").epoch == 3


def test_without_a_folder_it_makes_one(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Training.begin(config).folder
    assert folder.parent == Path("runs") and (folder/"config.json").is_file()


def test_what_is_wrong_is_an_expected_and_leaves_no_folder(config, whole, tmp_path, capsys):
    def refused(sentence, door, *arguments, **more):
        with pytest.raises(Expected, match=sentence):
            door(*arguments, **more)
    refused("which does not exist", Training.begin, replace(config, data="nowhere"), tmp_path/"new")
    refused("upscale", Training.begin, replace(config, image_size=64), tmp_path/"new")
    train, val = open_data(config.data, config.picture_size)
    other = open_data("", config.picture_size, 1)[1]
    refused("the 3 classes of the training pictures, got other classes: 3 missing .*, 10 new", Training.begin, config, tmp_path/"new", (train, other))
    others = [Pictures(part, config.picture_size, config.image_size + 2) for part in (train, val)]
    refused("pictures: expected squares of 37 pixels for crops of 32, as the options say, got 37 for 34", Training.begin,
            config, tmp_path/"new", others)
    refused("init_from: expected a network whose next layer", Training.begin,
            replace(config, init_from=str(whole), model="tiny-alexnet"), tmp_path/"new")
    assert not (tmp_path/"new").exists()
    refused("which holds something", Training.begin, config, whole)
    refused("a run's folder with a latest.h5", Training.resume, tmp_path/"new")
    refused("lr: expected the run's own value 0.003, got 1", Training.resume, whole, lr=1.0)
    refused("option: expected one of preset.*got 'epoch'", Training.resume, whole, epoch=3)
    refused("workers: expected 0 or more", Training.resume, whole, workers=-1)
    assert capsys.readouterr() == ("", "")


def test_the_lines_at_the_head_of_the_package_run(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "TrainConfig", lambda epochs: replace(config, epochs=epochs))
    lines = [line.strip() for line in training.__doc__.split("\n") if line.startswith("    ")][:4]
    names = {}
    exec("\n".join(lines), names)
    assert names["model"].epoch == 3 and names["model"].path == Path("runs/mine") and Path("runs/mine/best.h5").is_file()
