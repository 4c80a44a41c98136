"""python -m bench recipes --output DIR: how the small recipe was found. Each of RECIPES is an ordinary run in DIR/NAME on the
drawn pictures; what there is already is not trained again. Of each: the validation error, how long it took, how much of the
random start is left, and how legible its projections are. Results go to bench/results/recipes.json."""
import json
import os
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bench.cpu import RESULTS, cpu_name
from train.__main__ import main as train
from zfcore import backend, check
from zfcore.analysis.controls import last_convolution, shares_of_start
from zfcore.analysis.diagnostics import judge
from zfcore.analysis.top_activations import top_activations
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.models import from_checkpoint, start_of

# The first is what zfcore trained with before the start was looked at; each of the others says what it changes.
RECIPES = {
    "decay-0.0005": "--weight-decay 0.0005 --epochs 10 --patience 3",
    "decay-0.03": "--weight-decay 0.03 --epochs 10 --patience 3",
    "decay-0.05": "--weight-decay 0.05 --epochs 10 --patience 3",
    "decay-0.05-lr-0.004": "--weight-decay 0.05 --epochs 10 --patience 3 --lr 0.004",
    "decay-0.03-batch-16": "--weight-decay 0.03 --epochs 10 --patience 3 --batch-size 16 --lr 0.002",
    "drop-lr-0.005": "--weight-decay 0.03 --epochs 8 --drop-after 6 --lr 0.005",
    "drop-lr-0.004": "--weight-decay 0.04 --epochs 8 --drop-after 6 --lr 0.004",
    "drop": "--weight-decay 0.04 --epochs 8 --drop-after 6",
    "drop-no-dropout": "--weight-decay 0.04 --epochs 8 --drop-after 6 --keep-prob 1",
    "drop-batch-24": "--weight-decay 0.031 --epochs 8 --drop-after 6 --batch-size 24",
    "default": "",
    "drop-40-epochs": "--epochs 40 --start-left 0.03 --drop-after 30",
}


def add_arguments(parser):
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=RECIPES, help="train and measure these alone")


def main(args):
    path = RESULTS.with_name("recipes.json")
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for name in args.only or RECIPES:
        folder = Path(args.output)/name
        if not (folder/"latest.h5").is_file():
            train([*RECIPES[name].split(), "--output", str(folder)])
        rows[name] = {"name": name, "options": RECIPES[name], **measure(folder/"latest.h5")}
        print(line(rows[name]), flush=True)
        report = {"cpu": cpu_name(), "cores": backend.CORES, "load": os.getloadavg()[0], "numpy": np.__version__,
                  "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "rows": [rows[n] for n in RECIPES if n in rows]}
        path.write_text(json.dumps(report, indent=1) + "\n")


def measure(file):
    """What is told of the run whose last checkpoint is `file`. Of the layers the last convolution and the classes are judged."""
    network, checkpoint = from_checkpoint(file)
    start = start_of(checkpoint)
    if start is None:
        raise check.Expected(file, "a checkpoint that tells its start", "one without")
    size = checkpoint.mean_image.shape[1]
    pictures = Pictures(open_data("", size)[1], size, network.input_shape[1], workers=2)
    layers, unread = [last_convolution(network), network.layers[-1].name], np.full((4, 2), np.nan)
    top = top_activations(network, pictures, checkpoint.mean_image, layers, 1, 64)
    legible, _ = judge(network, pictures, checkpoint.mean_image, top, layers, start)
    history = checkpoint.history
    return {"epochs": checkpoint.epoch, "steps": checkpoint.step, "error": history["val_error"][-1],
            "seconds": sum(history["seconds"]), "start": shares_of_start(network, start)[layers[0]],
            "in_box": {layer: legible.get(layer, unread)[:2, 0].tolist() for layer in layers},
            "in_parts": {layer: legible.get(layer, unread)[:2, 1].tolist() for layer in layers}}


HEAD = ("| `python -m train` with | epochs | error | start left in conv5 | conv5 in the box | another unit's | classes in the box | "
        "another's | conv5 in the parts |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")


def line(row):
    (conv, other), (classes, another) = row["in_box"].values()
    shares = (row["error"], row["start"], conv, other, classes, another, list(row["in_parts"].values())[0][0])
    return f"| `{row['options'] or '(no option)'}` | {row['epochs']} | " + " | ".join(f"{100*share:.1f} %" for share in shares) + " |"


def table(report):
    """The table of bench/README.md."""
    return "\n".join([HEAD, *map(line, report["rows"])])
