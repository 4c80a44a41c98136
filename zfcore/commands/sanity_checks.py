"""Floor 7: sanity checks of projections, what they owe to what was learned (Adebayo et al. 2018)."""
from dataclasses import replace

import numpy as np

from zfcore import plots
from zfcore.analysis import sanity_checks
from zfcore.analysis import top_activations as top
from zfcore.analysis.known import mean_of_known
from zfcore.commands.common import (K, LIMIT, UNITS, chosen_layers, chosen_units, classes_of, open_model, open_pictures, option,
                                    output_folder)
from zfcore.files import file_names
from zfcore.terminal import Bar, printable

HELP = "whether projections depend on what was learned, on the unit, and on the picture"
OPTIONS = [
    option("--layers", nargs="+", help="default: the last convolution and the last layer"),
    option("--units", default="random:8", help=UNITS),
    option("--k", type=K, default=3, help="pictures of each unit, the strongest"), LIMIT]
RESULT, TOGETHER = sanity_checks.SanityChecks, None


def run(args):
    model = open_model(args)
    last = dict.fromkeys([sanity_checks.last_convolution(model.network), model.network.layers[-1].name])
    layers = chosen_layers(args, model.network, [*last])
    units = {layer: chosen_units(args.units, model.network, layer, args.seed) for layer in layers}
    for layer in layers:
        sanity_checks.check_possible(model.network, layer)
    pictures = open_pictures(args, model)
    folder = output_folder(args)
    file = top.pass_file(folder/"strongest.h5", model, pictures, layers, args.k, args.batch_size)
    with Bar(len(pictures), "picture", "strongest pictures") as moving:
        found = top.top_activations(model, pictures, layers, args.k, batch_size=args.batch_size, file=file, bar=moving)
    for layer, called in zip(layers, file_names(layers)):
        length = sanity_checks.length(model.network, layer, args.k*len(units[layer]), model.start)
        with Bar(length, "projection", layer) as moving:
            made = sanity_checks.sanity_checks(model, pictures, found, layer, units[layer], seed=args.seed, bar=moving)
        yield folder/f"{called}.h5", replace(made, classes=classes_of(model, layer, made.units))


def draw(found, path):
    """The figure, and a line for each control."""
    plots.save(plots.sanity_checks(found), path)
    said = [in_words(found, j, condition) for j, condition in enumerate(found.conditions.tolist())]
    return "\n".join([*said, printable(path)])


def in_words(found, j, condition):
    said = f"{found.layer}, {plots.condition_in_words(condition)}: cosine {found.cosine[:, j].mean():.2f}, rank {found.rank[:, j].mean():.2f}"
    if found.inside is not None:
        inside, count = mean_of_known(found.inside[:, j])
        said += (f", {100*inside:.0f} % of the energy in the object's box, which is {100*found.area.mean():.0f} % of the field"
                 if count else ", nothing is projected")
    if found.in_parts is not None and np.isfinite(found.in_parts[:, j]).any():
        said += (f", {100*np.nanmean(found.in_parts[:, j]):.0f} % of that in its parts, which are "
                 f"{100*np.nanmean(found.parts_area):.0f} % of the box")
    return said
