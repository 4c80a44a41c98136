"""Options: the paper's by default, a preset, a file and the command line over it, every bad value named."""
import json
import re

import numpy as np
import pytest

from train.__main__ import main, start_in_words
from train.options import parser
from zfcore.check import Expected
from zfcore.terminal import at_work
from zfcore.training import PRESETS, TrainConfig, Training, resolve
from zfcore.training.config import MOST_DECAY, flag, resumed
from zfcore.training.folder import stored_config


@pytest.fixture(autouse=True)
def of_a_command():
    """Sentences name options, as on a command line."""
    with at_work():
        yield


def typed(*words):
    return vars(parser().parse_args(list(words)))


def test_the_defaults_are_the_papers_recipe():
    c = resolve(typed("--preset", "zfnet"))
    assert (c.model, c.image_size, c.picture_size) == ("zfnet", 224, 256)
    assert (c.batch_size, c.lr, c.momentum, c.keep_prob, c.rms_max, c.epochs) == (128, 0.01, 0.9, 0.5, 0.1, 70)
    assert (c.init, c.crops, c.keep_epochs) == ("gaussian", "ten", (1, 2, 5, 10, 20, 30, 40, 64))


def test_nothing_typed_is_the_tiny_network_on_the_synthetic_set():
    c = resolve(typed())
    assert (c.preset, c.model, c.data, c.image_size) == ("tiny", "tiny", "", 96)


def test_a_model_brings_its_preset_and_its_size():
    assert resolve(typed("--model", "zfnet-b")).preset == "zfnet-b"
    c = resolve(typed("--model", "alexnet-without-7"))
    assert (c.preset, c.model, c.image_size) == ("zfnet", "alexnet-without-7", 224)


def test_typed_wins_over_the_file_and_the_file_over_the_preset(tmp_path):
    (tmp_path/"c.json").write_text(json.dumps({"preset": "tiny", "lr": 0.5, "epochs": 3, "keep_epochs": [1, 3]}))
    c = resolve(typed("--config", str(tmp_path/"c.json"), "--lr", "0.25"))
    assert (c.lr, c.epochs, c.batch_size, c.keep_epochs) == (0.25, 3, PRESETS["tiny"]["batch_size"], (1, 3))


def test_a_runs_config_json_is_a_config_file(tmp_path):
    stored = resolve(typed("--lr", "0.125"))
    (tmp_path/"config.json").write_text(json.dumps({"options": stored.__dict__, "device": "x"}))
    assert resolve(typed("--config", str(tmp_path/"config.json"))) == stored


@pytest.mark.parametrize("content, sentence", [
    ("{", "a JSON object of options, got Expecting"), ("7", "options, got int"),
    ("[1]", "a JSON object of options, got list"), ('{"learning_rate": 1}', "got 'learning_rate'"),
    ('{"weight_decay": null, "start_left": 0}', "--weight-decay: expected a number, or --start-left"),
    ('{"lr": "fast"}', "lr: expected a value of type float, got 'fast'"), ('{"epochs": 2.5}', "type int"),
    ('{"keep_epochs": 3}', "keep_epochs"), ('{"keep_epochs": [true]}', "keep_epochs"),
    ('{"epochs": true}', "epochs: expected a value of type int, got True"),
    ('{"lr": false}', "lr: expected a value of type float")])
def test_a_bad_config_file_is_named_with_what_is_wrong(tmp_path, content, sentence):
    (tmp_path/"c.json").write_text(content)
    with pytest.raises(Expected, match=sentence):
        resolve(typed("--config", str(tmp_path/"c.json")))


@pytest.mark.parametrize("words, sentence", [
    (["--lr", "0"], "--lr: expected a number above 0, got 0.0"), (["--epochs", "-1"], "--epochs"),
    (["--seed", str(2**63)], "--seed: expected a whole number from 0 to"),
    (["--batch-size", "0"], "--batch-size"), (["--keep-prob", "0"], "--keep-prob: expected 0 < keep_prob <= 1"),
    (["--momentum", "1"], "--momentum"), (["--workers", "-1"], "--workers"), (["--model", "vgg"], "got 'vgg'"),
    (["--init", "xavier"], "one of gaussian, he"), (["--crops", "all"], "one of ten, random"),
    (["--precision", "fp16"], "--precision"), (["--device", "tpu"], "one of auto, cpu, gpu"),
    (["--config", "nowhere.json"], "nowhere.json"), (["--lr", "nan"], "--lr"),
    (["--weight-decay", "nan"], "--weight-decay: expected 0 or more"), (["--rms-max", "inf"], "--rms-max"),
    (["--start-left", "nan"], "--start-left")])
def test_a_bad_value_is_answered_with_the_flag_and_what_fits(words, sentence):
    with pytest.raises(Expected, match=sentence):
        resolve(typed(*words))


def test_resume_keeps_the_stored_options_and_refuses_a_changed_one_by_name():
    stored = resolve(typed("--lr", "0.02", "--epochs", "4"))
    assert resumed(stored, typed("--lr", "0.02", "--epochs", "9", "--workers", "1")).epochs == 9
    assert resumed(stored, typed("--micro-batch", "8")).micro_batch == 8
    assert resumed(stored, typed("--precision", "tf32")).precision == "tf32"
    with pytest.raises(Expected, match="--lr: expected the run's own value 0.02, got 0.03"):
        resumed(stored, typed("--lr", "0.03"))
    with pytest.raises(Expected, match="--preset"):
        resumed(stored, typed("--preset", "zfnet"))


def test_printing_a_config_names_every_option():
    assert all(name in str(TrainConfig()) for name in TrainConfig.__dataclass_fields__)


@pytest.mark.parametrize("precision", ["fp32x3", "tf32", "bf16"])
def test_on_a_cpu_a_run_in_another_precision_is_refused_before_anything_is_written(precision, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--device", "cpu", "--precision", precision, "--output", str(tmp_path/"run")])
    assert left.value.code == 2 and not (tmp_path/"run").exists()
    assert f"precision: expected fp32, the one that NumPy has, got {precision}; run it on a GPU" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the start, forgotten
def test_the_decay_follows_from_the_share_of_the_start_that_is_to_be_left_and_the_forecast_says_it():
    for words in ((), ("--epochs", "20"), ("--epochs", "30", "--lr", "0.002", "--drop-after", "15", "29"),
                  ("--batch-size", "48")):
        c = resolve(typed("--start-left", "0.6", *words)).decided(3001)
        assert 0 < c.weight_decay < MOST_DECAY and c.forecast(3001) == pytest.approx(0.6, abs=0.01), words
    assert c.decided(10) is c                                             # a number stays what it is


def test_the_rates_of_all_steps_are_those_of_the_schedule():
    c = resolve(typed("--epochs", "7", "--batch-size", "10", "--lr", "0.5", "--drop-after", "2", "6"))
    assert c.lr_sum(31) == pytest.approx(4*(2*0.5 + 4*0.05 + 1*0.005))


def test_so_few_steps_that_no_bearable_decay_takes_the_start_away_get_the_largest():
    c = resolve(typed("--epochs", "1")).decided(50)
    assert c.weight_decay == MOST_DECAY and c.forecast(50) > 0.9


def test_a_decay_that_is_typed_is_taken_as_it_is_and_both_are_one_too_many():
    c = resolve(typed("--weight-decay", "0.01"))
    assert (c.weight_decay, c.start_left) == (0.01, 0)
    assert resolve(typed("--start-left", "0.2")).weight_decay is None
    assert resolve(typed("--start-left", "0")).weight_decay == TrainConfig.weight_decay
    with pytest.raises(Expected, match="--weight-decay or --start-left"):
        resolve(typed("--weight-decay", "0.01", "--start-left", "0.2"))
    with pytest.raises(Expected, match="--start-left: expected a share"):
        resolve(typed("--start-left", "1"))


def test_a_file_with_one_of_the_two_means_that_one_and_a_runs_own_file_repeats_the_run(tmp_path):
    path = tmp_path/"c.json"
    for content, expected in (({"weight_decay": 0.02}, (0.02, 0)), ({"start_left": 0.5}, (None, 0.5)),
                              ({"weight_decay": 0.02, "start_left": 0.5}, (None, 0.5)),
                              ({"weight_decay": 0.02, "start_left": 0}, (0.02, 0)),
                              ({"weight_decay": None, "start_left": 0.5}, (None, 0.5))):
        path.write_text(json.dumps({"preset": "tiny", **content}))
        c = resolve(typed("--config", str(path)))
        assert (c.weight_decay, c.start_left) == expected
    assert resolve(typed("--config", str(path), "--weight-decay", "0.04")).start_left == 0


@pytest.mark.parametrize("words, pictures, line, advice", (
    ((), 4000, "40 % of the random weights' amplitude will be left (weight decay 0.0", ""),
    (("--weight-decay", "0.0005"), 4000, "99 % of", "--start-left 0.4, which makes the weight decay 0.03"),
    (("--weight-decay", "0.0005", "--patience", "3"), 4000, "98 % of", "or with --epochs 489"),
    (("--epochs", "1"), 100, "of the random weights' amplitude will be left, not 40 %: in so few steps that takes more than "
                             "the most that is chosen",
     "40 % are left with --epochs "),
    (("--init-from", "drawn"), 100, "", "")))
def test_a_run_says_what_will_be_left_of_its_start_and_where_that_is_much_what_would_take_it_away(words, pictures, line, advice):
    said = start_in_words(resolve(typed(*words)).decided(pictures), pictures)
    assert line in said and advice in said and said.count("\n") == (0 if not line else 2 if advice else 1)


@pytest.mark.parametrize("words, pictures", ((("--epochs", "1"), 100), (("--weight-decay", "0.0005"), 4000),
                                             (("--weight-decay", "0.002", "--patience", "3"), 900)))
def test_so_many_epochs_as_are_proposed_leave_as_much_as_is_said_and_one_fewer_leaves_more(words, pictures):
    said = start_in_words(resolve(typed(*words)).decided(pictures), pictures)
    enough = int(re.search(r"40 % are left with .*--epochs (\d+)\n", said)[1])
    left = lambda epochs: resolve(typed(*words, "--epochs", str(epochs))).decided(pictures).forecast(pictures)
    assert left(enough) < 0.4005 and left(enough - 1) > 0.4


def test_the_papers_recipe_has_alexnets_decay_and_chooses_none():
    c = resolve(typed("--preset", "zfnet"))
    assert (c.weight_decay, c.start_left) == (5e-4, 0) and c.forecast(1281167) < 1e-6


def test_the_rate_of_tiny_falls_for_the_last_fifth_whatever_the_epochs_unless_patience_is_asked_for():
    assert resolve(typed("--epochs", "40")).drop_after == (32,)
    assert resolve(typed("--epochs", "1")).drop_after == ()
    assert resolve(typed("--patience", "4")).drop_after == () and resolve(typed("--drop-after", "3")).drop_after == (3,)
    with pytest.raises(Expected, match="--patience or --drop-after, which is used instead of it, got both"):
        resolve(typed("--patience", "3", "--drop-after", "3"))


@pytest.mark.parametrize("drops", [(0,), (3, 3), (5, 0, 2), (2, 5, 2)])
def test_epochs_after_which_the_rate_falls_are_numbered_from_1_and_named_once(drops, tmp_path):
    """A run that took others goes on as it did: 0 never came, and what stood there twice came once."""
    words = " ".join(map(str, drops))
    with pytest.raises(Expected, match=f"^--drop-after: expected numbers of epochs, from 1, each once, got {words}$"):
        TrainConfig(drop_after=drops)
    (tmp_path/"options.json").write_text(json.dumps({"drop_after": drops}))
    with pytest.raises(Expected, match="--drop-after: expected numbers of epochs"):
        resolve(typed("--config", str(tmp_path/"options.json")))
    (tmp_path/"config.json").write_text(json.dumps({"options": {**TrainConfig(epochs=9).__dict__, "drop_after": drops}}))
    c, lr = stored_config(tmp_path), 0.01
    for epoch in range(9):
        assert c.drop_after and c.lr_after(epoch) == lr
        lr /= 10 if epoch + 1 in drops else 1


def test_the_rates_that_the_loop_takes_are_those_of_the_forecast(options, tmp_path):
    c = resolve(vars(parser().parse_args([a for a in options if a not in ("--patience", "20")]
                                         + ["--epochs", "4", "--drop-after", "3", "1"])))
    training = Training.begin(c, tmp_path/"run")
    training.run()
    rates = training.history["lr"]
    assert rates == [c.lr_after(epoch) for epoch in range(4)] == [0.003, 0.003/10, 0.003/10, 0.003/10/10]
    assert c.lr_sum(30) == pytest.approx(4*sum(rates), rel=1e-12)


def test_another_run_of_a_runs_options_with_other_epochs_has_the_presets_fall_for_them_and_keeps_one_that_was_asked_for(tmp_path):
    def of(*words, again=()):
        (tmp_path/"config.json").write_text(json.dumps({"options": resolve(typed(*words)).decided(4000).__dict__}))
        return resolve(typed("--config", str(tmp_path/"config.json"), *again))
    assert of().drop_after == (7,) and of("--epochs", "1").drop_after == ()
    for again, drops in ((("--epochs", "40"), (32,)), (("--epochs", "9"), (7,)), (("--lr", "0.001"), (7,)),
                         (("--epochs", "40", "--drop-after", "5"), (5,)), (("--epochs", "40", "--patience", "5"), ())):
        assert of(again=again).drop_after == drops, again
        assert of(again=again).weight_decay is None
    assert of("--drop-after", "4", again=("--epochs", "40")).drop_after == (4,)
    assert of("--patience", "3", again=("--epochs", "40")).drop_after == ()
    assert of("--preset", "zfnet", "--drop-after", "30", again=("--epochs", "40")).drop_after == (30,)


@pytest.mark.parametrize("options, sentence", [
    ({"lr": "fast"}, "--lr: expected a value of type float, got 'fast'"),
    ({"epochs": 2.5}, "--epochs: expected a value of type int"),
    ({"epochs": True}, "--epochs"), ({"keep_epochs": [1, 2]}, "--keep-epochs: expected a value of type tuple"),
    ({"drop_after": (-1,)}, "--drop-after: expected a value of type tuple of whole numbers"), ({"upscale": 1}, "--upscale")])
def test_an_option_of_another_type_is_answered_when_the_config_is_made(options, sentence):
    with pytest.raises(Expected, match=sentence):
        TrainConfig(**options)
    assert TrainConfig(lr=1, momentum=np.float64(0.5)).lr == 1


@pytest.mark.parametrize("name", TrainConfig.__dataclass_fields__)
def test_whatever_an_option_is_given_resolve_takes_it_or_says_in_a_sentence_which_it_is(name):
    for odd in (None, "3", "", 3, -1, 1.5, True, [], [1], [None], {}, object(), np.zeros(3), np.nan, b"x"):
        try:
            assert isinstance(resolve({name: odd}), TrainConfig)
        except Expected as sentence:
            assert re.match(f"{flag(name)}: |options: ", str(sentence)), sentence


@pytest.mark.parametrize("odd", [None, "tiny", ["epochs"], 3, TrainConfig(), {"config": None}, {"config": 3}, {3: 4}])
def test_what_is_no_table_of_options_is_told(odd):
    with pytest.raises(Expected, match="^(options|--config|option): expected"):
        resolve(odd)


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(Expected, match="option: expected one of preset, data, model.* got 'epoch'"):
        resolve({"epoch": 3})
    with pytest.raises(Expected, match="got 'epoch'"):
        resumed(TrainConfig(), {"epoch": 3})
