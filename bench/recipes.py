"""python -m bench recipes --output DIR: how the small recipe was found. Each of RECIPES is an ordinary run in DIR/NAME on the
drawn pictures; one that has ended is not trained again. Of each: the validation error, how long it took, how much of the
random start is left, and how legible its projections are. Results go to bench/results/recipes.json."""
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.record import cpu_name
from train.options import parser
from train.reference import train_to_the_end
from zfcore import check, trained
from zfcore.analysis.diagnostics import judge
from zfcore.analysis.sanity_checks import last_convolution, shares_of_start
from zfcore.analysis.top_activations import top_activations
from zfcore.checkpoint import load
from zfcore.cpu import CORES
from zfcore.data import OBJECTS
from zfcore.files import read_json
from zfcore.layers import LocalResponseNorm
from zfcore.terminal import plural
from zfcore.training import Training, resolve

RESULTS = Path(__file__).parent/"results"


def scaled_start(factor):
    """A change of a network that has just been drawn: the weights of all layers but the first and the last times `factor`."""
    def change(network):
        for layer in network.weighted[1:-1]:
            layer.parameters["w"] *= np.float32(factor)
    return change


def without_normalisation(network):
    """The change after which the contrast normalisation hands on what it gets, but for the constant k^-beta."""
    for layer in network.layers:
        if isinstance(layer, LocalResponseNorm):
            layer.alpha = 0.0


class Recipe(NamedTuple):
    """Options of `python -m train`, and what no option does."""
    options: str
    words: str = ""
    change: object = None


# The first is what zfcore trained with before the start was looked at; each of the others says what it changes.
RECIPES = {
    "decay-0.0005": Recipe("--weight-decay 0.0005 --epochs 10 --patience 3"),
    "decay-0.03": Recipe("--weight-decay 0.03 --epochs 10 --patience 3"),
    "decay-0.05": Recipe("--weight-decay 0.05 --epochs 10 --patience 3"),
    "decay-0.05-lr-0.004": Recipe("--weight-decay 0.05 --epochs 10 --patience 3 --lr 0.004"),
    "decay-0.03-batch-16": Recipe("--weight-decay 0.03 --epochs 10 --patience 3 --batch-size 16 --lr 0.002"),
    "gaussian": Recipe("--weight-decay 0.005 --epochs 20 --init gaussian --lr 0.01 --drop-after 16"),
    "drop-lr-0.005": Recipe("--weight-decay 0.03 --epochs 8 --drop-after 6 --lr 0.005"),
    "drop-lr-0.004": Recipe("--weight-decay 0.04 --epochs 8 --drop-after 6 --lr 0.004"),
    "drop": Recipe("--weight-decay 0.04 --epochs 8 --drop-after 6"),
    "drop-no-dropout": Recipe("--weight-decay 0.04 --epochs 8 --drop-after 6 --keep-prob 1"),
    "drop-batch-24": Recipe("--weight-decay 0.031 --epochs 8 --drop-after 6 --batch-size 24"),
    "default": Recipe(""),
    "half-start": Recipe("", "the start of layers 2 to 7 half as large", scaled_start(0.5)),
    "double-start": Recipe("", "twice as large", scaled_start(2)),
    "without-normalisation": Recipe("", "no contrast normalisation", without_normalisation),
    "drop-40-epochs": Recipe("--epochs 40 --start-left 0.03 --drop-after 30"),
}


def add_arguments(parser):
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=RECIPES, help="train and measure these alone")


def main(args):
    path = RESULTS/"recipes.json"
    rows = {row["name"]: row for row in read_json(path)["rows"]} if path.exists() else {}
    for name in args.only or RECIPES:
        folder, recipe = Path(args.output)/name, RECIPES[name]
        train_to_the_end(config_of(recipe), folder, changed(recipe.change) if recipe.change else Training)
        rows[name] = {"name": name, "options": recipe.options, "words": recipe.words, **measure(folder/"latest.h5"),
                      "cpu": cpu_name(), "cores": CORES, "load": os.getloadavg()[0], "numpy": np.__version__,
                      "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        print(line(rows[name]), flush=True)
        path.write_text(json.dumps({"rows": [rows[n] for n in RECIPES if n in rows]}, indent=1) + "\n")


def changed(change):
    """A Training whose network is changed as soon as it is drawn."""
    class Changed(Training):
        @staticmethod
        def drawn_network(config, classes):
            network = Training.drawn_network(config, classes)
            change(network)
            return network
    return Changed


def config_of(recipe):
    return resolve(vars(parser().parse_args(recipe.options.split())))


def measure(file):
    """Row of the run whose last checkpoint is `file`. Of the layers the last convolution and the classes are judged."""
    model, checkpoint = trained.open(file), load(file, velocity=False)
    if model.start is None:
        raise check.Expected(file, "a checkpoint that tells its start", "one without")
    pictures = model.pictures(OBJECTS)
    layers, unread = [last_convolution(model.network), model.network.layers[-1].name], np.full((4, 2), np.nan)
    legible, _ = judge(model, pictures, top_activations(model, pictures, layers, 1), layers)
    history = checkpoint.history
    return {"epochs": checkpoint.epoch, "steps": checkpoint.step, "error": history["val_error"][-1],
            "seconds": sum(history["seconds"]), "start": shares_of_start(model.network, model.start)[layers[0]],
            "in_box": {layer: legible.get(layer, unread)[:2, 0].tolist() for layer in layers},
            "in_parts": {layer: legible.get(layer, unread)[:2, 1].tolist() for layer in layers}}


HEAD = ("| `python -m train` with | epochs | error | start left in layer 5 | layer 5 in the box | another unit's | classes in "
        "the box | another's | layer 5 in the parts | another unit's |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")


def line(row):
    (conv, other), (classes, another) = row["in_box"].values()
    shares = (row["error"], row["start"], conv, other, classes, another, *list(row["in_parts"].values())[0])
    asked = ", ".join(filter(None, (f"`{row['options'] or '(no option)'}`", row.get("words"))))
    return f"| {asked} | {row['epochs']} | " + " | ".join("-" if np.isnan(share) else f"{100*share:.1f} %"
                                                          for share in shares) + " |"


def table(report):
    """The table of bench/README.md, below a sentence that says where and when its rows were measured."""
    rows = report["rows"]
    machines = dict.fromkeys(f"{row['cpu']}, {plural(row['cores'], 'core')}, NumPy {row['numpy']}" for row in rows)
    days = sorted({row["date"][:10] for row in rows})
    return "\n".join([f"{'; '.join(machines)}; {' to '.join(dict.fromkeys((days[0], days[-1])))}.", "", HEAD, *map(line, rows)])
