"""Floor 7: figure 5."""
from dataclasses import replace

import numpy as np

from zfcore import plots
from zfcore.analysis import invariance as moved
from zfcore.analysis.known import mean_of_known
from zfcore.checkpoint import write_csv
from zfcore.commands.common import LABEL, asked_for, chosen_layers, labels_of, open_model, option, originals, output_folder
from zfcore.data.synthetic import Synthetic
from zfcore.terminal import Bar, percent, printable

HELP = "figure 5: how far shifting, enlarging and turning a picture takes the network from it"
OPTIONS = [
    option("--images", nargs="+", metavar="FILE", help="pictures to look at"),
    option("--pictures", metavar="NUMBERS", help="or pictures of the data: all, random:N, FIRST:LAST+1 or 3,5,7"),
    LABEL,
    option("--layers", nargs="+", help="where to measure; conv1 is after its ReLU, norm1 the end of the layer (default: the "
                                       "first convolution and the last layer with a ReLU behind it)"),
    option("--against", metavar="RUN", help="a second network, to compare the numbers with; untrained: this one before its "
                                            "first step")]
RESULT, TOGETHER = moved.Invariance, None


def run(args):
    model = open_model(args)
    models = {"invariance": model}
    if args.against:
        models["against"] = model.untrained() if args.against == "untrained" else open_model(args, args.against, "--against")
    ready = {name: (model, *moving_pictures(args, model)) for name, model in models.items()}
    for of, *_ in ready.values():
        chosen_layers(args, of.network, None)              # before the work begins
    folder = output_folder(args)
    for name, (model, pictures, labels, names) in ready.items():
        series = moved.paper_series(model.size, model.crop)
        with Bar(len(pictures)*sum(len(one.steps) for one in series.values()), "step", name) as moving:
            found = moved.invariance(model, pictures, labels, layers=args.layers, series=series, batch_size=args.batch_size,
                                     bar=moving)
        yield folder/f"{name}.h5", replace(found, names=np.array(names), classes=np.array(model.classes, dtype=str))


def moving_pictures(args, model):
    """(pictures in all their pixels, labels or None, names). The synthetic ones are drawn larger than the network wants them,
    so that there is something to see when they are enlarged."""
    pictures, numbers = asked_for(args, model)
    dataset = pictures.dataset
    labels = labels_of(args, dataset, numbers, model.classes)
    if isinstance(dataset, Synthetic):
        dataset = Synthetic(dataset.split, len(dataset), moved.LARGEST_ZOOM*dataset.size, dataset.seed, dataset.drawings)
    return originals(dataset, numbers, model.crop, pictures.upscale), labels, [dataset.names[i] for i in numbers]


def draw(found, path):
    """The figure and beside it a CSV: figure 5, and a row of numbers for each picture and series."""
    plots.save(plots.invariance(found), path)
    table = moved.columns(found)
    columns = list(next(iter(table.values())))
    names = range(len(found.labels)) if found.names is None else found.names.tolist()
    rows = [[name, series, *(f"{of[column][i]:.6g}" for column in columns)]
            for i, name in enumerate(names) for series, of in table.items()]
    write_csv(path.with_suffix(".csv"), rows, "picture", "series", *columns)
    return printable(path)


def closing(args, found):
    """Findings in words, of two networks with their names before them."""
    runs = [args.run, args.against] if args.against else [""]
    return "\n".join(f"{printable(run)}: {in_words(one)}" if run else in_words(one) for run, one in zip(runs, found))


def in_words(found):
    """Means over the pictures; of a layer over those that the shifts move at all, told with their number where it is not all."""
    table = {series: {what: mean_of_known(values) for what, values in of.items()} for series, of in moved.columns(found).items()}
    words = {"translation": "enlarged and shifted", "scale": "enlarged", "rotation": "turned"}
    kept = "; ".join(f"{words[series]}: the same class at {percent(of['consistency'][0])} of the steps, P(class) "
                     f"{of['P(mean)'][0]:.2f} on average against {of['P(clean)'][0]:.2f}" for series, of in table.items())
    n, rises = len(found.labels), {layer: table["translation"][f"{layer} early rise"] for layer in found.layers.tolist()}
    early = " and ".join(f"{100*rise:.0f} % of its distance at {layer}{f' (mean of {count} of {n})'*bool(count < n)}"
                         for layer, (rise, count) in rises.items() if count)
    said = [f"After an eighth of the largest shift a picture has gone {early} (in a straight line: 12.5 %)"]*bool(early)
    said += [f"{layer} is silent, or no shift moves it" for layer, (_, count) in rises.items() if not count]
    return f"{kept}. {'; '.join(said)}"
