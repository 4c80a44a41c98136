"""Odd values for every option of every command line, for tests/test_options.py and tests/faults.py.

    make(root)                     what the commands work on: a run, class folders, Caltech, VOC, landmarks; returns root
    COMMANDS                       {name: Command}, each with arguments that are sound
    inputs()                       [(name of a command, name of an option, word for the value)] of all
    tried(root, *input)            gives the command that value, and says what was wrong with the answer: "" if nothing was
"""
import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import traceback
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np

from tests.hostile import tree
from tests.train.conftest import write_set
from tests.train.test_transfer import CALTECH, noise, write_voc
from train import lr_test
from train.__main__ import main as train
from zfcore import plots

MOST_SECONDS = 20
VALUES = {"missing": [], "nought": ["0"], "minus one": ["-1"], "large": ["1000000000"], "huge": ["1" + "0"*30], "nan": ["nan"],
          "inf": ["inf"],
          "tiny": ["1e-320"], "empty": [""], "not ASCII": ["né-日本"], "no UTF-8": ["\udcff"], "a range": ["0:1000000000"],
          "a folder": ["odd/folder"], "a FIFO": ["odd/fifo"], "300 characters": ["x"*300]}


@dataclass
class Command:
    """A command line: where its `main` and its parser are, and sound arguments; of `main` only the options are looked at where
    its `work`, [(module, function)], would take long or needs another machine."""
    module: str
    words: str
    work: tuple = ()
    resumes: bool = False             # changes the run that it is given

    def parser(self):
        return getattr(import_module(self.module), "parser", None) or import_module("train.options").parser

    def options(self):
        """The actions of the command that `words` name, of a command of commands the one below."""
        of, words = self.parser()(), self.words.split()
        while below := [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]:
            if not (named := [word for word in words if word in below[0].choices]):
                break
            of = below[0].choices[named[0]]
        return {action.option_strings[0]: action for action in of._actions if action.option_strings and action.nargs != 0
                and action.dest != "help"}


SHORT = "--preset tiny --image-size 32 --batch-size 8 --epochs 1 --workers 0 --device cpu --data pictures"
SHORT_STUDY = "--image-size 32 --batch-size 8 --epochs 1 --drop-after --limit-per-class 0 --workers 0 --device cpu --data pictures"
LOOK = "--run run --output out --workers 0 --batch-size 8 --device cpu"
TRANSFER = "--run run --output out --workers 0 --device cpu --data"
COMMANDS = {
    "train": Command("train.__main__", f"{SHORT} --output out"),
    "train --resume": Command("train.__main__", "--resume run --workers 0 --epochs 2", resumes=True),
    "train --dry-run": Command("train.__main__", f"--dry-run {SHORT}"),
    "train --eval-only": Command("train.__main__", "--eval-only --init-from run --workers 0 --device cpu"),
    "train --lr-test": Command("train.__main__", f"--lr-test {SHORT} --output out"),
    "evaluate": Command("train.evaluate", LOOK),
    "predict": Command("train.predict", f"one.png two.png {LOOK}"),
    "ablation": Command("train.ablation", f"table3 --output out {SHORT_STUDY} --seeds 1 --rows tiny"),
    "table4": Command("train.transfer", f"table4 {TRANSFER} 101_ObjectCategories --train 2 --folds 1 --no-scratch"),
    "table5": Command("train.transfer", f"table5 {TRANSFER} 101_ObjectCategories --train 2 --folds 1 --scratch-folds 1 "
                                        f"--scratch-epochs 1"),
    "figure9": Command("train.transfer", f"figure9 {TRANSFER} 101_ObjectCategories --train 2 --folds 1 --no-scratch"),
    "table6": Command("train.transfer", f"table6 {TRANSFER} voc --no-scratch"),
    "table7": Command("train.transfer", f"table7 {TRANSFER} 101_ObjectCategories --train 2 --folds 1 --layers 2"),
    "duplicates": Command("train.transfer", f"duplicates {TRANSFER} 101_ObjectCategories"),
    "reproduce": Command("train.reproduce", "fig3 --run run --output out --workers 0 --device cpu"),
    "pack": Command("train.pack", "pictures out.h5 --size 16 --workers 1"),
    "reference": Command("train.reference", "drawn --output out",
                         (("train.reference", "train_to_the_end"), ("train.reference", "write"))),
    "top-activations": Command("zfcore.__main__", f"top-activations {LOOK} --layers conv1 --units 0:2 --k 1"),
    "occlusion": Command("zfcore.__main__", f"occlusion {LOOK} --pictures 0 --others --stride 16"),
    "invariance": Command("zfcore.__main__", f"invariance {LOOK} --pictures 0"),
    "correspondence": Command("zfcore.__main__", f"correspondence {LOOK} --images one.png two.png --landmarks marks.json "
                                                 f"--random 1 --permutations 9"),
    "evolution": Command("zfcore.__main__", f"evolution {LOOK} --layers conv1 --units 0"),
    "diagnostics": Command("zfcore.__main__", f"diagnostics {LOOK} --units 0 --k 1"),
    "sanity-checks": Command("zfcore.__main__", f"sanity-checks {LOOK} --units 0 --k 1"),
    "import": Command("zfcore.__main__", "import none.onnx --output out"),
    "export": Command("zfcore.__main__", "export run --format safetensors --output out.safetensors"),
    "redraw": Command("zfcore.__main__", "redraw none.h5"),
    "console": Command("train.console", ""),
    "bench": Command("bench.__main__", "", (("bench.gpu", "main"),)),
    "bench cpu": Command("bench.__main__", "cpu --output out",
                         (("bench.cpu", "say_forecast"), *((f"bench.{part}", "main") for part in (
        "cpu", "shares", "endtoend", "threads", "projections", "occlusion", "analyses", "atlas")))),
    "bench loader": Command("bench.__main__", "loader --output out.json", (("bench.loader", "main"),)),
    "bench pack": Command("bench.__main__", "pack --output out.json", (("bench.pack", "main"),)),
    "bench figures": Command("bench.__main__", "figures --run run", (("bench.figures", "main"),)),
    "bench recipes": Command("bench.__main__", "recipes --output out", (("bench.recipes", "main"),)),
}


def make(root):
    """What the commands work on, in `root`/sound."""
    root = Path(root, "sound")
    rng = np.random.default_rng(5)
    write_set(root/"pictures", (8, 4))
    for name, colour in list(CALTECH.items())[:3]:
        (root/"101_ObjectCategories"/name).mkdir(parents=True)
        for k in range(1, 6):
            noise(rng, colour).save(root/"101_ObjectCategories"/name/f"image_{k:04}.jpg")
    write_voc(root/"voc", rng)
    for name in ("one.png", "two.png"):
        noise(rng, (90, 90, 90)).save(root/name)
    (root/"marks.json").write_text(json.dumps({"one.png": {"nose": [20, 21], "eye": [12, 10]},
                                               "two.png": {"nose": [19, 22], "eye": [13, 12]}}))
    (root/"odd/folder").mkdir(parents=True)
    (root/"odd/folder/precious.txt").write_text("mine")
    os.mkfifo(root/"odd/fifo")
    with _in(root), _quick(), contextlib.redirect_stdout(io.StringIO()):
        train([*SHORT.split(), "--output", "run", "--keep-epochs", "1"])
    return root.parent


def inputs():
    """[(command, option, value)] of all commands, options and values."""
    return [(name, option, value) for name, command in COMMANDS.items() for option in command.options() for value in VALUES
            # the whole synthetic set
            if (option, value) != ("--data", "empty") or name[:5] != "train" and name not in ("ablation", "evolution")]


def words_of(name, option, value):
    """The sound words of a command but for `option`, which has this value."""
    command = COMMANDS[name]
    words, kept = command.words.split(), []
    while words:
        word = words.pop(0)
        if word != option:
            kept.append(word)
            continue
        while words and not words[0].startswith("--"):
            words.pop(0)
    return [*kept, option, *VALUES[value]]


def tried(root, name, option, value):
    """(exit status, what was wrong with the answer): "" if nothing was, else in words."""
    command, place = COMMANDS[name], Path(root, "sound")
    words, out, err = words_of(name, option, value), _stream("strict"), _stream("backslashreplace")
    before, status, wrong = tree(place), 0, []
    warnings.simplefilter("ignore")                        # of numbers that overflow
    with _in(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _quick(command.work), _at_most(MOST_SECONDS):
        try:
            import_module(command.module).main(words)
        except SystemExit as end:
            status = end.code or 0
        except (Exception, TooLong):
            wrong.append("".join(traceback.format_exc()[-1500:]))
    said = _text(err)
    if status not in (0, 2):
        wrong.append(f"ended with {status}")
    if status == 2 and not re.fullmatch(r"(out/.*\n)*(usage: .*\n(  .*\n)*.*: )?error:( [^\n]+)?\n(  [^\n]+\n)*", said):
        wrong.append(f"said {said[:500]!r}")
    if "Traceback" in said:
        wrong.append(said)
    wrong += _undone(place, before, changes_run=command.resumes)
    return status, "\n".join(wrong)


def _undone(place, before, changes_run):
    """Bring `place` back to what it was `before`; what was changed of that, in words."""
    after, wrong = tree(place), []
    for path, content in before.items():
        if after.get(path) != content and not (changes_run and path.startswith("run")):
            wrong.append(f"changed {path}")
        if after.get(path) != content:
            (place/path).write_bytes(content)
    for path in sorted(after.keys() - before.keys(), key=len):
        full = place/path
        if full.is_dir() and not full.is_symlink():
            shutil.rmtree(full)
        else:
            full.unlink(missing_ok=True)
    return wrong


@contextlib.contextmanager
def _in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _quick(work=()):
    """Without figures, which take longer than all else here, and without this `work`."""
    nothing = lambda *_, **__: None
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(plots, "save", lambda *_: None))
        for name in ("learning_curves", "filters", "accuracy_curve", "accuracy_by_layer", "average_precisions", "beside_paper",
                     "confusion", "captioned",
                     "unit_blocks", "occlusion", "invariance", "evolution", "diagnostics", "sanity_checks", "lr_test"):
            patches.enter_context(mock.patch.object(plots, name, nothing))
        patches.enter_context(mock.patch.object(lr_test, "STEPS", 3))
        for module, function in work:
            patches.enter_context(mock.patch.object(import_module(module), function, nothing))
        yield


class TooLong(BaseException):
    """No OSError, as TimeoutError is: nobody may take it for a disk's."""


@contextlib.contextmanager
def _at_most(seconds):
    def too_long(*_):
        raise TooLong(f"more than {seconds} seconds")
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _stream(errors):
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)


def _text(stream):
    stream.flush()
    return stream.buffer.getvalue().decode()
