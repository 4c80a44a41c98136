"""Floor 7: figure 6, and how legible a network's projections are."""
import numpy as np

from zfcore import check, plots
from zfcore.analysis import diagnostics as measured
from zfcore.analysis import top_activations as top
from zfcore.commands.common import K, LIMIT, chosen_units, names_of, open_model, open_pictures, option, output_folder
from zfcore.terminal import Bar, plural, printable
from zfcore.trained import check_different

HELP = "figure 6: what is wrong with the first layers, of one run or of two side by side"
OPTIONS = [
    option("--run", action="append", help="a run's folder (its best.h5) or a checkpoint file; given twice, two are compared"),
    option("--units", default="random:15", help="all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of layer 2, to be shown"),
    option("--k", type=K, default=9, help="pictures kept for each unit"), LIMIT]
RESULT, TOGETHER = measured.Diagnosis, "diagnostics"


def run(args):
    paths, opened = args.run or [None], []
    if len(paths) > 2:
        raise check.Expected("--run", "one run, or two to compare", len(paths))
    for path in paths:
        model = open_model(args, path)
        units = chosen_units(args.units, model.network, measured.first_two(model.network)[1], args.seed)
        opened.append((model, open_pictures(args, model), units))
    check_different("--run", [model for model, *_ in opened])
    folder, names = output_folder(args), names_of([model for model, *_ in opened])
    for number, (name, (model, pictures, units)) in enumerate(zip(names, opened), 1):
        ending = "" if len(opened) == 1 else f"_{number}"
        file = top.pass_file(folder/f"strongest{ending}.h5", model, pictures, measured.looked_at(model.network), args.k,
                             args.batch_size)
        with Bar(measured.length(model.network, pictures, args.k), "picture", name) as moving:
            found = measured.diagnose(model, pictures, units, name=name, k=args.k, batch_size=args.batch_size, file=file,
                                      bar=moving)
        yield folder/f"diagnostics{ending}.h5", found


def draw(found, path):
    plots.save(plots.diagnostics(found), path)
    return "\n".join([*(line for one in found for line in (in_words(one), what_is_legible(one))), printable(path)])


def in_words(one):
    """The numbers of figure 6 of a Diagnosis."""
    bands = ", ".join(f"{band} {100*share:.0f} %" for band, share in one.bands().items()) if one.rms.any() else "none"
    dead = (f"never fire on {plural(one.total, 'picture')}: "
            + ", ".join(f"{layer} {of.sum()} of {len(of)}" for layer, of in one.dead.items())
            if one.dead else "no layer ends in a ReLU, by which units never fire")
    alias = (f"{one.aliasing:.3f} of the energy of {one.layer}'s projections stands out at the frequencies of the grid of "
             f"{one.stride} pixels" if np.isfinite(one.aliasing) else f"aliasing of {one.layer} cannot be measured")
    return (f"{one.name}: filter RMS max/median {one.dominance_in_words()}; energy of layer 1 {bands}; {dead}; "
            f"{alias}")


def what_is_legible(one):
    """Lines of a Diagnosis, one a layer: what is left of the start, what its projections have in the object's box and parts."""
    shares = lambda values: " ".join("  - " if np.isnan(value) else f"{100*value:3.0f}" for value in values)
    lines = [f"{'layer':8}{'start':>7}   in the box: " + ", ".join(measured.JUDGED) + ", of the area | in its parts: the same"] * bool(one.legible)
    for layer in dict.fromkeys([*one.start, *one.legible]):
        start = f"{100*one.start[layer][0]:5.1f} %" if layer in one.start else "       "
        if layer in one.legible:
            of, areas = one.legible[layer], one.areas[layer]
            start += "   " + " | ".join(f"{shares(of[:, k])} of {100*areas[k]:.0f} %" for k in range(2))
        lines.append(f"{layer:8}{start}")
    return "\n".join(lines)
