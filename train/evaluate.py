"""Top-1 and top-5 error of a trained network or an ensemble, from the centre crop or the paper's ten crops.

    python -m train.evaluate --run RUN [RUN ...] [--data DIR] [--part val|train] [--crops centre|ten] [--output DIR]

The paper does not say how it tests. Our reading, which is AlexNet's: the probabilities of a picture are the mean of the
softmaxes of its crops, and those of an ensemble the mean of its members' probabilities. A folder is written:

    summary.json          the protocol, the errors with their 95 % intervals, of each member too
    per_class.csv         each class's errors and the class that it is most often taken for
    confusion.csv, .png   how often pictures of each class were taken for each
    confused_pairs.csv    the same as a list, most frequent first
    predictions.csv       each picture: its class, the predicted one, their probabilities, the true one's rank (1 is first)
    worst.png             the pictures whose true class was given the least probability
"""
import filecmp
import itertools
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import zfcore
from zfcore import check, plots
from zfcore.checkpoint import atomic, claimed, in_turn, write_csv
from zfcore.data.folders import is_system
from zfcore.data.transforms import CorruptImage
from zfcore.files import folder_made, inside, numbered_folder
from zfcore.kernel import PRECISIONS
from zfcore.networks import home_of
from zfcore.terminal import Bar, plural, printable, say
from zfcore.training.evaluation import answers, confused_pairs, confusion, open_part, open_runs, per_class, score, wilson

FILES = ("summary.json", "per_class.csv", "confusion.csv", "confusion.png", "confused_pairs.csv", "predictions.csv",
         "worst.png")


# ------------------------------------------------------------------------------------------------ the folder it writes
def write_tables(folder, found, counts, pairs, names, classes):
    """per_class.csv, confusion.csv, confused_pairs.csv and predictions.csv; `names` are those of the set's pictures."""
    write_csv(folder/"per_class.csv", per_class(found, counts, classes),
              "class", "count", "top1_error", "top5_error", "most_frequent_wrong_class", "predicted_so_often")
    write_csv(folder/"confusion.csv", ((name, *row) for name, row in zip(classes, counts)), "true / predicted", *classes)
    write_csv(folder/"confused_pairs.csv", pairs, "true", "predicted", "count", "pictures_of_true")
    rows = ((names[i], classes[true], classes[taken], f"{p:.6g}", f"{q:.6g}", rank + 1)
            for true, taken, rank, p, q, i in zip(*(column.tolist() for column in found)))
    write_csv(folder/"predictions.csv", rows, "name", "true", "predicted", "p_true", "p_predicted", "rank_of_true")


def write_worst(path, found, pictures, protocol, most=30):
    """worst.png: the pictures whose true class was given the least probability."""
    classes, tiles, captions, right = pictures.dataset.classes, [], [], []
    for true, taken, rank, p, q, i in sorted(zip(*(column.tolist() for column in found)), key=lambda row: row[3])[:most]:
        try:
            tiles.append(pictures.picture(i))
        except CorruptImage:                                    # its file is gone since
            continue
        captions.append((f"{p:.3f} {plots.named(classes[true], true)}",
                         f"{q:.3f} → {plots.named(classes[taken], taken)}" if rank else "right"))
        right.append(rank == 0)
    plots.save(plots.captioned(tiles, captions, right, f"The {plural(len(tiles), 'picture')} whose true class was given the "
                                                       f"least probability: P "
                    f"and name of the true class; below, of the predicted one.\n{protocol}"), path)


def write_summary(path, pictures, models, ensemble, singles):
    """summary.json: the Scores of the ensemble and of each of its `models`, in full."""
    damaged = {pictures.dataset.names[i]: reason for i, reason in sorted(pictures.damaged.items())}
    content = {**as_json(ensemble), "combination": "mean of the softmaxes of the crops, then of the networks",
               "damaged": damaged, "picture_size": pictures.size, "device": models[0].device.description,
               "zfcore": zfcore.__version__,
               "members": [{"run": str(model.path), "model": model.name, "input_shape": model.network.input_shape,
                            "epoch": model.epoch, **as_json(alone)} for model, alone in zip(models, singles)]}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def as_json(found):
    """A Score as JSON can hold it, with the 95 % intervals."""
    meaningful = found.classes > 5
    return {"text": str(found), "set": found.of, "count": found.count, "damaged_left_out": found.left_out,
            "crops": found.crops, "networks": found.networks, "loss": found.loss,
            "top1_error": found.top1, "top1_error_95": wilson(found.top1, found.count),
            "top5_error": found.top5 if meaningful else None,
            "top5_error_95": wilson(found.top5, found.count) if meaningful else None}


@contextmanager
def whole_folder(path, files=FILES, what="an evaluation"):
    """`with whole_folder(path) as (new, place):` fill the folder `new`. When the block ends well it becomes `path`, or where
    that holds other answers, which stay, path_2, path_3, ...; `place()` tells which. It vanishes when not. A folder that holds
    anything else is refused."""
    path, places = Path(path).resolve(), []
    if path.exists() and not path.is_dir():
        raise check.Expected("--output", f"a new folder, or one with {what} and nothing else", f"{path}, a file")
    if strange := strangers(path, files):
        raise check.Expected("--output", f"a new folder, or one with {what} and nothing else",
                             f"{path}, which holds {', '.join(strange[:3])}")
    try:
        with folder_made(path.parent), own_folder(path) as new:
            yield new, lambda: places[-1]
            with in_turn(path):                            # else two that find the same place free would mix
                places.append(next(place for place in (numbered_folder(path, number) for number in itertools.count(1))
                                   if not place.exists() or not strangers(place, files) and same_answers(place, new)))
                if places[-1].exists():                    # file by file: at every moment there is a whole one
                    for file in new.iterdir():
                        os.replace(file, places[-1]/file.name)
                else:
                    new.rename(places[-1])
    except OSError as error:
        raise check.Expected("--output", "a place where a folder can be written", f"{path} ({error.strerror})",
                             "name another one") from None


@contextmanager
def own_folder(path):
    """`with own_folder(path) as new:` an empty folder beside what is to be called `path`, nobody else's, which vanishes with the
    block unless it is renamed; what a kill left goes before. Raises OSError."""
    claim = claimed(path, ".part.lock")
    new = claim.path.with_suffix("")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            claim.drop()


def strangers(path, files):
    """The names of what lies in a folder, is none of `files` and was not put there by a system that shows folders."""
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    return sorted(name for name in names - set(files) if not is_system(name))


def same_answers(one, other):
    """Return whether two evaluations are of the same pictures, with the same answers."""
    files = [folder/"predictions.csv" for folder in (one, other)]
    return not files[0].exists() or filecmp.cmp(*files, shallow=False)


def written(output, place, files):
    """The lines that tell which files `whole_folder` has made for `output`, and that an earlier folder stays."""
    if place.name != output.name:
        yield f"{printable(output)} holds other answers, which stay; these are in {printable(place.name)}"
    yield from (f"  {printable(output.with_name(place.name)/name)}" for name in files)


# ------------------------------------------------------------------------------------------------------- command line
def add_options(p, output):
    """Add the options of whoever asks trained networks for probabilities; `output`, the default of --output, in words."""
    p.add_argument("--run", required=True, nargs="+",
                   help="a run's folder (its best.h5) or a checkpoint file; of several, the mean of the softmaxes is taken")
    p.add_argument("--crops", choices=("centre", "ten"), default="centre", help="ten: the mean over the paper's ten crops")
    p.add_argument("--output", metavar="DIR", help=f"folder to write (default: {output}, in the first run's folder)")
    p.add_argument("--batch-size", type=check.BATCH, default=128)
    p.add_argument("--device", default="auto", help="auto, cpu or gpu")
    p.add_argument("--precision", default="fp32", help=f"how products are formed: {', '.join(PRECISIONS)} (on a CPU: fp32)")
    p.add_argument("--workers", type=check.THREADS, default=2, help="threads that decode pictures")
    p.add_argument("--upscale", action="store_true", help="enlarge pictures smaller than the network's input, as is done where its own were enlarged")


def parser():
    p = check.Parser(prog="python -m train.evaluate",
                     description="Top-1 and top-5 error of a trained network, or of an ensemble of several.")
    add_options(p, "evaluation")
    p.add_argument("--data", help="the set, as for python -m train, or one folder of classes (default: what the "
                                  "runs were trained on)")
    p.add_argument("--part", choices=("val", "train"), default="val")
    return p


def default_output(runs, what="evaluation"):
    """RUN/evaluation; RUN/evaluation-NAME for RUN/NAME.h5; for an ensemble evaluation-of-N-networks in the first run's; or
    `what`."""
    first = Path(runs[0])
    word = f"-{first.stem}" if first.is_file() else ""
    return inside(home_of(first), f"{what}{word}" if len(runs) == 1 else f"{what}-of-{len(runs)}-networks")


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    models = open_runs(args.run, args.device, args.precision)
    pictures, of = open_part(models, args.data, args.part, args.upscale, args.workers)
    classes = pictures.dataset.classes
    models = [model.with_classes(classes) for model in models]
    output = Path(args.output or default_output(args.run))
    with whole_folder(output) as (folder, place):
        with Bar(len(pictures), "picture", "evaluating") as bar:
            together, alone = answers(models, pictures, args.batch_size, args.crops, bar)
        about = (len(classes), of, len(pictures.damaged))
        ensemble = score(together, args.crops, len(models), *about)
        singles = [score(found, args.crops, 1, *about) for found in alone]
        counts = confusion(together, len(classes))
        pairs = confused_pairs(counts, classes)
        write_tables(folder, together, counts, pairs, pictures.dataset.names, classes)
        plots.save(plots.confusion(counts, classes, pairs, str(ensemble)), folder/"confusion.png")
        write_worst(folder/"worst.png", together, pictures, ensemble)
        write_summary(folder/"summary.json", pictures, models, ensemble, singles)
    say(*in_words(args.run, ensemble, singles, pairs))
    say(*written(output, place(), FILES))


def in_words(runs, ensemble, singles, pairs, most=5):
    """The lines that are printed."""
    yield from (f"{printable(run)}: {alone}" for run, alone in zip(runs, singles))
    if len(runs) > 1:
        yield f"ensemble: {ensemble}"
    if pairs:
        yield "most confused:"
    yield from (f"  {count:4} of {of} {printable(true)} -> {printable(taken)}" for true, taken, count, of in pairs[:most])


if __name__ == "__main__":
    main()
