"""Floor 7: figure 4."""
from dataclasses import replace

import numpy as np

from zfcore import check, plots, trained
from zfcore.analysis import evolution as growing
from zfcore.analysis import top_activations as top
from zfcore.commands.common import (LAYERS, LIMIT, UNITS, chosen_layers, chosen_units, classes_of, open_model, open_pictures,
                                    option, output_folder)
from zfcore.terminal import Bar, plural, printable

HELP = "figure 4: how the strongest projection of a unit comes about over a run's kept epochs"
OPTIONS = [
    option("--part", choices=("train", "val"), default="train", help="the part of the data to look at (the paper: train)"),
    option("--epochs", type=check.whole_number(0, 10**6), nargs="+", metavar="N",
           help="some of the kept epochs (default: all)"),
    LAYERS,
    option("--units", default="random:6", help=UNITS), LIMIT]
RESULT, TOGETHER = growing.Evolution, None


def run(args):
    files = growing.kept_epochs(args.run, args.epochs) if args.run is not None else {}        # else the next line has a word
    model = open_model(args)
    layers = chosen_layers(args, model.network, [layer.name for layer in model.network.convolutions])
    units = {layer: chosen_units(args.units, model.network, layer, args.seed) for layer in layers}
    pictures = open_pictures(args, model)
    folder = output_folder(args)
    kept = lambda of: top.pass_file(folder/f"strongest_{of.epoch:04}.h5", of, pictures, layers, 1, args.batch_size)
    epochs = (trained.open(file, args.device, args.precision) for file in files.values())          # one after the other
    with Bar(growing.length(model.network, pictures, layers, len(files)), "picture", plural(len(files), "epoch")) as moving:
        found = growing.evolution(epochs, pictures, layers, units, batch_size=args.batch_size, file_of=kept, bar=moving)
    named = {layer: classes_of(model, layer, units[layer]) for layer in layers}
    yield folder/"evolution.h5", replace(found, classes={layer: names for layer, names in named.items() if names is not None})


def draw(found, path):
    """The figure, and how much projections change from epoch to epoch."""
    plots.save(plots.evolution(found), path)
    steps = list(zip(found.epochs.tolist(), found.epochs.tolist()[1:]))
    told = lambda change, moved: "silent" if np.isnan(change) else f"{change:.2f} ({100*moved:.0f} %)"
    said = [f"epoch {a} to {b}: " + ", ".join(f"{layer} {told(found.change[layer][k], found.moved[layer][k])}"
                                              for layer in found.units) for k, (a, b) in enumerate(steps)]
    if steps:
        said.append("change of the projections, 1 - cosine; in brackets: units whose strongest picture is another one")
    if apart := {layer: distance[0] for layer, distance in (found.unrelated or {}).items() if np.isfinite(distance[0])}:
        said.append("as far from each other as units that have nothing to do with each other would be: "
                    + ", ".join(f"{layer} {distance:.2f}" for layer, distance in apart.items()))
    return "\n".join([*said, printable(path)])
