"""The command `zfcore`, as it is installed: zfcore train, zfcore evaluate, zfcore predict, zfcore top-activations, ... are
python -m train, python -m train.evaluate, python -m zfcore top-activations, ..."""
import importlib
import sys

from zfcore.commands import COMMANDS, TOOLS
from zfcore.terminal import say

TRAINING = {"train": "train.__main__",
            **{name: f"train.{name}" for name in ("evaluate", "predict", "ablation", "transfer", "reproduce", "pack")}}


def main(words=None):
    first, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if first in TRAINING:
        return importlib.import_module(TRAINING[first]).main(rest)
    if first in ("-h", "--help"):
        say(f"training: zfcore {' | '.join(TRAINING)}; each has --help. Looking inside: zfcore "
            f"{' | '.join([*COMMANDS, *TOOLS, 'redraw'])}\n")
    return importlib.import_module("zfcore.__main__").main([first, *rest])
