"""Every option of every command, given odd values: refused in one sentence or taken, at once, and nothing around is touched."""
import argparse
import os
import random
import warnings
from importlib import import_module

import pytest

from tests import odd_options
from zfcore.check import Parser, whole_number

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs FIFOs and alarms")
ONCE_FAILED = {                       # with what they answered
    "endless": [("train", "--epochs", "huge"), ("train --resume", "--epochs", "large"),
                ("train --lr-test", "--epochs", "large"), ("ablation", "--seeds", "large"), ("table4", "--folds", "large")],
    "a traceback": [("train", "--image-size", "large"), ("train --lr-test", "--image-size", "huge"),
                    ("train", "--patience", "huge"),
                    ("table4", "--seed", "huge"), ("top-activations", "--units", "a range"),
                    ("occlusion", "--pictures", "a range"), ("sanity-checks", "--seed", "minus one")]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield odd_options.make(tmp_path_factory.mktemp("options"))


@pytest.mark.parametrize("kind", ONCE_FAILED)
def test_what_once_was_answered_otherwise_is_one_sentence(place, kind):
    for odd in ONCE_FAILED[kind]:
        assert odd_options.tried(place, *odd) == (2, ""), odd


@pytest.mark.filterwarnings("ignore")
def test_an_odd_value_of_any_option_is_taken_or_one_sentence(place):
    """A sample of the options, each with a value that it cannot have; tests.faults tries all."""
    rng, tried = random.Random(0), []
    for name, command in odd_options.COMMANDS.items():
        for option, action in command.options().items():
            values = ["missing"] if action.type in (None, str) else ["nan", "empty", "not ASCII", "300 characters", "a FIFO"]
            tried.append((name, option, rng.choice(values)))
    for odd in rng.sample(tried, 60):
        status, wrong = odd_options.tried(place, *odd)
        assert not wrong, (odd, wrong)


@pytest.mark.parametrize("name", odd_options.COMMANDS)
def test_sound_arguments_of_a_command_are_refused_by_none_of_its_options(name):
    """Or what is tried with them would be refused for another reason than the odd value."""
    parser = odd_options.COMMANDS[name].parser()()
    if name != "console":
        parser.parse_args(odd_options.COMMANDS[name].words.split())


@pytest.mark.parametrize("name",
                         [name for name in odd_options.COMMANDS
                          if not name.startswith(("train", "ablation", "pack", "console"))])
def test_whole_numbers_of_a_command_have_bounds(name):
    """`int` takes any; a training's are looked at by TrainConfig, those of packing by its `main`."""
    assert [option for option, action in odd_options.COMMANDS[name].options().items() if action.type is int] == []


@pytest.mark.parametrize("words, sentence", [
    (["--data", ""], "--data: expected a word, got an empty one"), (["--data="], "--data: expected a word, got an empty one"),
    (["--data", "x", ""], "arguments: expected a word, got an empty one"),
    (["-x.jpg"], "unrecognized arguments: -x.jpg; a file of that name is ./-x.jpg"),
    (["-y.jpg"], "unrecognized arguments: -y.jpg\n"),
    (["--data", "3", "5", "7"], "unrecognized arguments: 5 7; several numbers are one word, as 3,5,7")])
def test_an_empty_word_is_refused_and_a_strange_one_tells_what_it_may_be_meant_for(words, sentence, tmp_path, monkeypatch,
                                                                                   capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"-x.jpg").touch()
    parser = Parser(prog="command")
    parser.add_argument("--data")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize("words, fits", [("1", True), ("7", True), (" 3 ", True), ("0", False), ("8", False), ("2.0", False),
                                         ("", False), ("nan", False), ("9"*5000, False)])
def test_a_whole_number_has_bounds_and_a_sentence(words, fits):
    if fits:
        assert whole_number(1, 7)(words) == int(words)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 7, got"):
            whole_number(1, 7)(words)


def test_every_command_is_tried():
    from train.console import COMMANDS, TRAINING
    tried = {command.words.split()[0] for command in odd_options.COMMANDS.values() if command.words} | set(odd_options.COMMANDS)
    assert {*COMMANDS, *TRAINING, "redraw"} - {"transfer"} <= tried
    assert set(import_module("train.transfer").HELP) <= tried
