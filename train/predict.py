"""Predictions of a trained network, or an ensemble, for pictures.

    python -m train.predict --run RUN [RUN ...] FILE_OR_FOLDER ... [--crops centre|ten] [--output DIR]

The probabilities of a picture are those of `train.evaluate`: the mean of the softmaxes of its crops, and over several networks.
Pictures that are damaged or too small are left out, by name. A folder is written; where
it holds other predictions these stay, and the new ones go into a folder of the same name with _2 behind it:

    predictions.csv       each picture: its five likeliest classes, the first first, and their probabilities
    probabilities.csv     each picture: the probability of every class
    predictions.png       the first pictures with their two likeliest classes
"""
import os
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from train.evaluate import FILES as OF_EVALUATION, add_options, default_output, whole_folder, written
from zfcore import check, plots
from zfcore.checkpoint import write_csv
from zfcore.data.folders import Files, is_picture
from zfcore.data.loader import Pictures
from zfcore.data.transforms import CorruptImage, TooSmall, check_large_enough
from zfcore.interchange import SUFFIXES
from zfcore.terminal import Bar, command, plural, printable, say
from zfcore.training.evaluation import open_runs, predict

FILES = ("predictions.csv", "probabilities.csv", "predictions.png")
TOP, SHOWN, LINES = 5, 30, 20     # classes of a picture in the table; pictures on the sheet; pictures in what is printed
DEEPEST = 4                       # folders from a figure up to that of its run, of an atlas one more than of others


class LargeEnough(Files):
    """Files of which those that have fewer pixels than the network's input, `crop` a side, cannot be used."""

    def __init__(self, paths, shorter_side, crop):
        super().__init__(paths, shorter_side, written=is_own)
        self.crop = crop

    def picture(self, i):
        try:
            check_large_enough(picture := super().picture(i), self.crop, False, self.names[i])
        except TooSmall as small:
            raise CorruptImage(self.names[i], f"{small.got} pixels, where the network's input has {self.crop}x{self.crop}; "
                                              f"--upscale enlarges it") from None
        return picture


def is_own(path):
    """Return whether a picture is a figure of zfcore's: beside the tables of `predict` or `evaluate`, or in a run's folder."""
    folder, name = os.path.split(path)
    beside_tables = any(name in files and {one for one in files if not is_picture(one)} <= set(os.listdir(folder))
                        for files in (FILES, OF_EVALUATION))
    return beside_tables or any(map(is_run, Path(path).absolute().parents[:DEEPEST]))


@cache
def is_run(folder):
    """Return whether a folder is that of a training run."""
    return all((folder/name).is_file() for name in ("config.json", "latest.h5"))


def open_files(models, paths, upscale, workers):
    """The Pictures of files and of all those below folders, prepared as those of `models` were; any of them may be damaged or
    too small."""
    size, crop = models[0].size, max(model.crop for model in models)
    upscale = upscale or any(model.upscale for model in models)
    dataset = LargeEnough(paths, size, 0 if upscale else crop)
    pictures = Pictures(dataset, size, crop, upscale, workers)
    pictures.may_be_damaged = len(dataset)
    return pictures


def write_tables(folder, names, order, p, classes):
    """predictions.csv and probabilities.csv of N pictures: `order` (TOP,N), their likeliest classes; p (classes,N)."""
    top = [f"{what}_{k}" for k in range(1, len(order) + 1) for what in ("class", "p")]
    write_csv(folder/"predictions.csv", ([name, *(word for k in likeliest for word in (classes[k], f"{of_one[k]:.6g}"))]
                                         for name, likeliest, of_one in zip(names, order.T, p.T)), "name", *top)
    write_csv(folder/"probabilities.csv", ([name, *(f"{value:.6g}" for value in of_one)] for name, of_one in zip(names, p.T)),
              "name" if "name" not in classes else "picture", *classes)


def write_sheet(path, pictures, found, order, classes):
    """predictions.png: the first pictures, each with its two likeliest classes."""
    tiles, captions = [], []
    for n, i in enumerate(found.indices[:SHOWN].tolist()):
        try:
            tiles.append(pictures.picture(i))
        except CorruptImage:                                    # its file is gone since
            continue
        captions.append(tuple(f"{found.p[k, n]:.3f} {plots.named(classes[k], k)}" for k in order[:2, n]))
    title = f"{len(tiles)} of {plural(len(found.indices), 'picture')}: P and name of the likeliest class; below, of the second"
    plots.save(plots.captioned(tiles, captions, [True]*len(tiles), title), path)


def in_words(names, order, p, classes):
    """The lines that are printed: each of the first pictures with its likeliest classes."""
    for name, likeliest, of_one in [*zip(names, order.T, p.T)][:LINES]:
        yield f"{printable(name)}: " + ", ".join(f"{printable(classes[k])} {100*of_one[k]:.1f} %" for k in likeliest)
    if len(names) > LINES:
        yield f"and {len(names) - LINES} more"


# ------------------------------------------------------------------------------------------------------- command line
def parser():
    p = check.Parser(prog="python -m train.predict",
                     description="What a trained network, or an ensemble of several, takes pictures for.")
    p.add_argument("pictures", nargs="*", metavar="FILE_OR_FOLDER", help="pictures, and folders with pictures in them or below")
    add_options(p, "predictions")
    return p


def divided(runs, paths):
    """(runs, paths of pictures) of the words behind --run and of the others: `--run RUN photo.jpg` names one of each."""
    first, *others = runs
    pictures = [word for word in others if is_picture(Path(word).name) or Path(word).exists() and not is_network(Path(word))]
    if not (paths := [*paths, *pictures]):
        raise check.Expected("FILE_OR_FOLDER", "pictures, or folders of pictures",
                             f"none beside {command('--run', *runs)}", "the first word behind --run is always a run")
    return [first, *(word for word in others if word not in pictures)], paths


def is_network(path):
    """Return whether something that there is may be a run's folder or a file with a network, rather than pictures."""
    return any(path.glob("*.h5")) if path.is_dir() else path.suffix.lower() in SUFFIXES or path.is_file() and h5py.is_hdf5(path)


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    runs, paths = divided(args.run, args.pictures)
    models = open_runs(runs, args.device, args.precision)
    classes = models[0].classes
    models = [model.with_classes(classes) for model in models]
    pictures = open_files(models, paths, args.upscale, args.workers)
    output = Path(args.output or default_output(runs, "predictions"))
    with whole_folder(output, FILES, "predictions") as (folder, place):
        with Bar(len(pictures), "picture", "predicting") as bar:
            found = predict(models, pictures, args.batch_size, args.crops, bar)
        names = [pictures.dataset.names[i] for i in found.indices]
        order = np.argsort(-found.p, axis=0, kind="stable")[:TOP]
        write_tables(folder, names, order, found.p, classes)
        write_sheet(folder/"predictions.png", pictures, found, order, classes)
    say(*in_words(names, order, found.p, classes), *written(output, place(), FILES))


if __name__ == "__main__":
    main()
