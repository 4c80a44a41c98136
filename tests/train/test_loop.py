"""A run learns, can be stopped, killed and resumed without losing a bit, and says what goes wrong."""
import csv
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import zfcore
from train.__main__ import main
from train.evaluate import main as evaluate
from train.options import parser
from zfcore.__main__ import main as main_of_zfcore
from zfcore.check import Expected
from zfcore.checkpoint import load, save
from zfcore.data import loader
from zfcore.models import start_of
from zfcore.training import Training, resolve
from zfcore.training import folder as of_folder
from zfcore.training.folder import checked_empty, new_folder, stored_config
from zfcore.training.loop import over_fits
from zfcore.training.watch import Interrupt, StallGuard

ROOT = Path(__file__).resolve().parents[2]


def weights(path):
    return {(layer, key): array for layer, of_layer in load(path).parameters.items() for key, array in of_layer.items()}


def assert_same_bits(a, b):
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=str(name))


@pytest.fixture
def trained(made, pictures, tmp_path):
    """The folder of an uninterrupted run of four epochs."""
    return made(4, tmp_path/"whole")


@pytest.mark.figures
def test_a_run_leaves_what_the_readme_promises(options, tmp_path):
    trained = tmp_path/"whole"
    main([*options, "--epochs", "4", "--output", str(trained)])
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert files == {"config.json", "pictures.csv", "log.csv", "latest.h5", "best.h5", "epoch_0001.h5", "epoch_0002.h5",
                     "figures/learning_curves.png", "figures/filters.png", ".lock"}
    with open(trained/"log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"] and rows[0]["step"] == "4"


def test_the_log_tells_of_every_layer_how_much_of_the_start_is_left_and_it_is_what_the_decay_leaves(options, tmp_path, capsys):
    """The rate is so low that nothing is learned: only the decay, --lr 1e-5 against --weight-decay, moves the weights."""
    main([*options, "--epochs", "3", "--lr", "1e-9", "--seed", "3", "--output", str(tmp_path/"still")])
    with open(tmp_path/"still"/"log.csv") as file:
        rows = list(csv.DictReader(file))
    layers = [name for name in rows[0] if name.startswith("start_")]
    assert layers == [f"start_{name}" for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert all(float(rows[-1][name]) == pytest.approx(1, abs=1e-4) for name in layers)
    # of photographs nobody knows the boxes
    assert rows[0]["in_box"] == "nan" and "start's energy 100 %" in capsys.readouterr().out


def test_on_drawn_pictures_the_log_tells_what_projections_have_in_the_box(tmp_path, capsys):
    main(["--image-size", "32", "--limit-per-class", "3", "--epochs", "1", "--workers", "0", "--device", "cpu", "--output",
          str(tmp_path/"run")])
    with open(tmp_path/"run"/"log.csv") as file:
        row = list(csv.DictReader(file))[0]
    assert 0 < float(row["in_box"]) < 1 and 0 < float(row["box_area"]) < 1
    told = capsys.readouterr().out
    assert f"in box {100*float(row['in_box']):.0f} %" in told and "of the random weights' amplitude will be left, not 40 %: in so few steps" in told


def test_a_run_that_begins_with_trained_weights_has_no_start_to_tell_of(trained, options, tmp_path):
    main([*options, "--epochs", "1", "--init-from", str(trained), "--output", str(tmp_path/"on")])
    with open(tmp_path/"on"/"log.csv") as file:
        assert next(csv.DictReader(file))["start_conv5"] == "nan"
    assert start_of(load(tmp_path/"on"/"latest.h5")) is None
    begun = start_of(load(trained/"latest.h5"))
    fresh = Training.drawn_network(resolve(vars(parser().parse_args([*options]))), load(trained/"latest.h5").classes)
    np.testing.assert_array_equal(begun["conv3"].parameters["w"], fresh["conv3"].parameters["w"])


def test_a_checkpoint_from_before_there_were_these_columns_is_gone_on_with(trained, options):
    checkpoint = load(trained/"latest.h5")
    for column in [name for name in checkpoint.history if name.startswith("start_") or name in ("in_box", "box_area")]:
        del checkpoint.history[column]
    del checkpoint.state["init"]
    save(trained/"latest.h5", checkpoint)
    main(["--resume", str(trained), "--epochs", "5"])
    with open(trained/"log.csv") as file:
        shares = [row["start_conv5"] for row in csv.DictReader(file)]
    assert shares[:4] == ["nan"]*4 and 0.9 < float(shares[4]) <= 1


def test_a_run_learns_and_ends_with_its_error_and_where_the_files_lie(options, tmp_path, capsys):
    main([*options, "--epochs", "12", "--output", str(tmp_path/"run")])
    assert load(tmp_path/"run"/"latest.h5").history["val_error"][-1] < 0.1
    out = capsys.readouterr().out
    assert "30 training and 12 validation pictures" in out and "validation error 0.0 % after 12 epochs" in out
    assert f"{tmp_path/'run'}/best.h5" in out


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(trained, options, tmp_path):
    main([*options, "--epochs", "4", "--workers", "0", "--output", str(tmp_path/"again")])
    assert_same_bits(trained/"latest.h5", tmp_path/"again"/"latest.h5")
    main([*options, "--epochs", "1", "--seed", "1", "--output", str(tmp_path/"other")])
    assert (weights(tmp_path/"other"/"latest.h5")["conv1", "w"] != weights(trained/"epoch_0001.h5")["conv1", "w"]).any()


def test_resumed_after_epochs_equals_uninterrupted(trained, options, tmp_path):
    main([*options, "--epochs", "1", "--output", str(tmp_path/"part")])
    main(["--resume", str(tmp_path/"part"), "--epochs", "4"])
    assert_same_bits(trained/"latest.h5", tmp_path/"part"/"latest.h5")
    assert (trained/"log.csv").read_text().count("\n") == (tmp_path/"part"/"log.csv").read_text().count("\n")


def test_stopped_in_the_middle_of_an_epoch_and_resumed_equals_uninterrupted(trained, options, tmp_path, ctrl_c_after, capsys):
    ctrl_c_after(6)
    with pytest.raises(SystemExit) as exit:
        main([*options, "--epochs", "4", "--output", str(tmp_path/"part")])
    assert exit.value.code == 130 and f"--resume {tmp_path/'part'}" in capsys.readouterr().out
    stored = load(tmp_path/"part"/"latest.h5")
    assert (stored.epoch, stored.step, stored.state["sums_batches"]) == (1, 6, 2)
    main(["--resume", str(tmp_path/"part")])
    assert_same_bits(trained/"latest.h5", tmp_path/"part"/"latest.h5")
    whole, part = load(trained/"latest.h5").history, load(tmp_path/"part"/"latest.h5").history
    for column in ("train_loss", "train_error", "val_loss", "filters_clamped"):
        assert whole[column] == part[column]


def test_a_batch_lost_to_damage_counts_so_that_a_resumed_run_repeats_none(options, pictures, tmp_path, monkeypatch,
                                                                          ctrl_c_after):
    monkeypatch.setattr(loader, "MOST_DAMAGED", 0.1)
    (pictures/"train/jade/03.png").write_bytes(b"no picture")
    one_by_one = [*options, "--epochs", "1", "--batch-size", "1"]
    main([*one_by_one, "--output", str(tmp_path/"whole")])

    ctrl_c_after(28)
    with pytest.raises(SystemExit):
        main([*one_by_one, "--output", str(tmp_path/"part")])
    assert load(tmp_path/"part"/"latest.h5").state["sums_batches"] == 29
    main(["--resume", str(tmp_path/"part")])
    assert load(tmp_path/"part"/"latest.h5").step == 29
    assert_same_bits(tmp_path/"whole"/"latest.h5", tmp_path/"part"/"latest.h5")


def test_killed_twenty_times_at_random_moments_and_resumed_equals_uninterrupted(trained, options, tmp_path):
    """A process that has loaded everything forks a training run and kills it after a random time, again and again."""
    run = subprocess.run([sys.executable, "-m", "tests.kills", str(tmp_path/"killed"), "20", *options, "--epochs", "4"],
                         cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.strip() == "20", run.stderr
    assert_same_bits(trained/"latest.h5", tmp_path/"killed"/"latest.h5")
    assert_same_bits(trained/"best.h5", tmp_path/"killed"/"best.h5")
    assert not list((tmp_path/"killed").glob("epoch_0003*"))


def test_a_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.asked
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stall_at_the_loss_of_guessing_is_said_once_with_its_cures_and_learning_never():
    learning = StallGuard(10, after=50)
    for law in ("--init he", ""):                          # where the run was drawn by it
        stalled = StallGuard(10, law, after=50)
        said = [stalled.update(math.log(10) - 0.001) for _ in range(200)]
        assert sum(text is not None for text in said) == 1 and ("--init" in said[49]) == bool(law)
    assert not any(learning.update(math.log(10)*0.99**k) for k in range(200))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(options, tmp_path, capsys):
    for law, cure in (("he", "python -m train --lr;"), ("gaussian", "python -m train --lr, or try its --init he;")):
        with warnings.catch_warnings(record=True) as numpys, pytest.raises(SystemExit) as exit:
            warnings.simplefilter("always")
            main([*options, "--lr", "1e30", "--rms-max", "0", "--init", law, "--output", str(tmp_path/law)])
        err = capsys.readouterr().err
        assert exit.value.code == 2 and "expected a finite loss" in err and cure in err
        assert not [one for one in numpys if issubclass(one.category, RuntimeWarning)]
        load(tmp_path/law/"latest.h5")


def test_finite_weights_whose_validation_scores_are_not_end_the_run_and_do_not_replace_the_last_checkpoint(options, tmp_path):
    """The last step before a validation is one whose weights no training loss has seen."""
    training = Training.begin(resolve(vars(parser().parse_args(options))), tmp_path/"run")

    def spoilt(validate=training.validate):
        if training.epoch == 1:
            for layer in training.network.weighted:
                layer.parameters["w"][...] = 1e30
        return validate()
    training.validate = spoilt
    with pytest.raises(Expected, match="^training: expected a finite loss, got nan on the validation pictures at epoch 2, "
                                       "after step 8; lower the learning rate") as refused:
        training.run()
    assert f"{tmp_path/'run'} keeps the last checkpoint" in str(refused.value)
    kept = load(tmp_path/"run"/"latest.h5")
    assert (kept.epoch, kept.step) == (1, 4)
    Training.resume(tmp_path/"run").run()                  # which are good ones
    assert load(tmp_path/"run"/"latest.h5").epoch == 2


def test_a_run_whose_pictures_were_enlarged_remembers_it_for_whoever_looks_at_it(options, tmp_path, capsys):
    main([*options, "--image-size", "64", "--upscale", "--epochs", "1", "--output", str(tmp_path/"run")])
    model = zfcore.open(tmp_path/"run", "cpu")
    assert model.upscale and model.pictures(workers=0).picture(0).shape == (model.size, model.size, 3) and model.size > 64
    assert Training.resume(tmp_path/"run").trained.upscale
    checkpoint = load(tmp_path/"run"/"best.h5")
    del checkpoint.state["upscale"]                        # as the runs of before have it
    save(tmp_path/"run"/"best.h5", checkpoint)
    assert zfcore.open(tmp_path/"run", "cpu").upscale
    main_of_zfcore(["top-activations", "--run", str(tmp_path/"run"), "--layers", "conv1", "--units", "0", "--k", "1", "--device", "cpu"])
    evaluate(["--run", str(tmp_path/"run"), "--device", "cpu"])


@pytest.mark.parametrize("change, sentence", [
    (["--data", "nowhere"], "nowhere, which does not exist"),
    (["--image-size", "64"], "--upscale"),
    (["--model", "resnet"], "one of tiny, small, zfnet"),
    (["--resume", "nowhere"], "--resume: expected a run's folder with a latest.h5, got nowhere, which does not exist\n"),
    (["--resume", "drawn"], "got drawn; python -m train --init-from drawn begins a run with its weights"),
    (["--init-from", "drawm"], "--init-from: expected a run's folder, a checkpoint file or one of drawn, drawn-wide, got "
                               "drawm, which does not exist; drawn?"),
    (["--data", "drawn:objects", "--image-size", "13"], "--image-size: expected 14 to 3584, for which pictures can be drawn, "
                                                        "got 13"),
    (["--data", "drawn:objects", "--image-size", "3585"], "expected 14 to 3584, for which pictures can be drawn, got 3585"),
])
def test_bad_input_is_one_sentence_exit_status_2_and_no_folder(options, change, sentence, tmp_path, capsys):
    words = change if "--resume" in change else [*options, *change, "--output", str(tmp_path/"run")]
    with pytest.raises(SystemExit) as exit:
        main(words)
    err = capsys.readouterr().err
    assert exit.value.code == 2 and sentence in err and "Traceback" not in err
    assert not (tmp_path/"run").exists()


def test_a_flag_of_the_wrong_type_leaves_with_status_2(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--epochs", "many"])
    assert exit.value.code == 2 and "--epochs" in capsys.readouterr().err


def test_an_output_folder_that_holds_something_is_refused(trained, options, capsys):
    with pytest.raises(SystemExit):
        main([*options, "--output", str(trained)])
    assert "which holds something; go on with it by python -m train --resume" in capsys.readouterr().err
    (trained/"config.json").unlink()                       # what is no run does not go on
    with pytest.raises(Expected, match="which holds something; name another$"):
        checked_empty(trained)
    with pytest.raises(Expected, match="latest.h5, a file; name another$"):
        checked_empty(trained/"latest.h5")


def test_of_two_runs_that_begin_in_one_folder_at_the_same_moment_the_later_one_is_refused(tmp_path, monkeypatch):
    first, second = (resolve({"seed": seed}) for seed in (1, 2))

    def looked_at(folder, look=of_folder.checked_empty):
        found = look(folder)
        monkeypatch.setattr(of_folder, "checked_empty", look)
        new_folder(first, folder)                          # the other one, between this one's look and its first file
        return found
    monkeypatch.setattr(of_folder, "checked_empty", looked_at)
    with pytest.raises(Expected, match="run, in which another run has just begun; name another"):
        new_folder(second, tmp_path/"run")
    assert stored_config(tmp_path/"run").seed == 1


def test_where_a_run_was_killed_before_its_first_file_was_whole_another_begins(tmp_path):
    for left in ".lock", "config.json.part":
        (tmp_path/left).write_text("123 on a machine")
    assert stored_config(new_folder(resolve({"seed": 3}), tmp_path)).seed == 3


def test_resume_refuses_a_changed_option_a_damaged_file_and_changed_classes(options, pictures, tmp_path, capsys):
    trained = tmp_path/"whole"
    main([*options, "--epochs", "1", "--output", str(trained)])
    capsys.readouterr()

    def refused(*words):
        with pytest.raises(SystemExit) as exit:
            main(["--resume", str(trained), *words])
        assert exit.value.code == 2
        return capsys.readouterr().err
    assert "--lr: expected the run's own value 0.003, got 0.5" in refused("--lr", "0.5")
    for file in "nowhere.json", str(trained/"config.json"):        # whose options are not what goes on
        assert f"--resume: expected no --config beside it: a run goes on with its own options, but for those that are typed, got {file}\n" \
            in refused("--config", file)
    (pictures/"train"/"plum").rename(pictures/"train"/"violet")
    (pictures/"val"/"plum").rename(pictures/"val"/"violet")
    assert "other classes: 1 missing ('plum'), 1 new ('violet')" in refused()
    before = (trained/"latest.h5").read_bytes()
    (trained/"latest.h5").write_bytes(before[:5000])
    assert "cut short or damaged" in refused()


def test_dry_run_prints_options_and_network_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--preset", "zfnet", "--data", "elsewhere", "--dry-run"])      # of a folder that need not be there yet: 1000 classes
    out = capsys.readouterr().out
    assert "62,357,608" in out and "taken for granted" in out and "keep_prob" in out and not os.listdir(tmp_path)


def test_a_run_without_a_name_gets_a_folder_of_date_time_and_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = new_folder(resolve(vars(parser().parse_args([]))))
    assert folder.parent == Path("runs") and folder.name.endswith("-tiny") and (folder/"config.json").is_file()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path/"file").write_text("")
    with pytest.raises(Expected, match="a place where a folder can be made"):
        new_folder(resolve(vars(parser().parse_args([]))), tmp_path/"file"/"run")


LOW = [1.0, 0.5]                  # validation losses down to the lowest


@pytest.mark.parametrize("losses, errors, epochs", [
    ([*LOW, 0.6, 0.6, 0.6], [0.9, 0.5, 0.4, 0.3, 0.2], [5]),                             # said with the third epoch
    ([*LOW, 0.6, 0.6, 0.6, 0.9, 0.9], [0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1], [5]),         # and never again
    ([*LOW, 0.6, 0.6], [0.9, 0.5, 0.4, 0.3], []),                                        # too short
    ([*LOW, 0.54, 0.54, 0.54], [0.9, 0.5, 0.4, 0.3, 0.2], []),                           # too little
    ([*LOW, 0.6, 0.54, 0.6, 0.6], [0.9, 0.5, 0.4, 0.3, 0.2, 0.1], []),                   # not three in a row
    ([*LOW, 0.6, 0.54, 0.6, 0.6, 0.6], [0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1], [7]),
    # the training error does not fall: it diverges
    ([*LOW, 0.6, 0.6, 0.6], [0.9, 0.5, 0.6, 0.6, 0.5], []),
    ([*LOW, 0.6, 0.6, 0.4], [0.9, 0.5, 0.4, 0.3, 0.2], [])])                             # a new lowest
def test_a_loss_that_rises_while_the_training_error_falls_is_told_once(losses, errors, epochs):
    found = [n for n in range(1, len(losses) + 1) if over_fits({"val_loss": losses[:n], "train_error": errors[:n]})]
    assert found == epochs
