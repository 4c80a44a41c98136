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
import argparse
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import zfcore
from zfcore import check, plots, trained
from zfcore.backend import PRECISIONS
from zfcore.checkpoint import atomic, write_csv
from zfcore.data import data_in_words, open_data
from zfcore.data.loader import Pictures
from zfcore.data.transforms import Damaged
from zfcore.files import inside
from zfcore.networks import home_of

FILES = ("summary.json", "per_class.csv", "confusion.csv", "confusion.png", "confused_pairs.csv", "predictions.csv",
         "worst.png")


class Predictions(NamedTuple):
    """Probabilities of N pictures; a damaged picture is not among them."""
    p: np.ndarray                 # (classes,N) float32
    labels: np.ndarray            # (N,) int64, the true classes
    indices: np.ndarray           # (N,) int64, numbers of the pictures in their set


class Answers(NamedTuple):
    """What remains of the probabilities when they are judged: for ImageNet 2 MB instead of 200. Arrays (N,)."""
    labels: np.ndarray            # int64, the true classes
    predicted: np.ndarray         # int64, the likeliest classes; a tie goes against the true one
    rank: np.ndarray              # int64, how many other classes are as likely as the true one or likelier
    p_true: np.ndarray            # float32, probability of the true class
    p_predicted: np.ndarray       # float32
    indices: np.ndarray           # int64, numbers of the pictures in their set


@dataclass(frozen=True)
class Score:
    """Errors in [0, 1] over `count` pictures and the protocol behind them. `loss` is the mean of -log P(true class)."""
    loss: float
    top1: float
    top5: float                   # 0, and without meaning, where there are no more than five classes
    count: int
    crops: str                    # "centre" or "ten"
    networks: int
    classes: int = 1000
    of: str = "pictures"          # which part of which set
    left_out: int = 0             # damaged pictures, which `count` does not contain

    def __str__(self):
        crops = "centre crop" if self.crops == "centre" else "mean of ten crops"
        networks = "1 network" if self.networks == 1 else f"mean of {self.networks} networks"
        top5 = self._percent(self.top5) if self.classes > 5 else f"not meaningful among {self.classes} classes"
        damaged = f", {self.left_out} damaged left out" if self.left_out else ""
        return (f"top-1 error {self._percent(self.top1)}, top-5 error {top5}, loss {self.loss:.3f} "
                f"({crops}, {networks}, {self.count} {self.of}{damaged})")

    def _percent(self, error):
        low, high = wilson(error, self.count)
        return f"{100*error:.1f} % (95 %: {100*low:.1f} to {100*high:.1f})"


def wilson(share, count):
    """The 95 % confidence interval (low, high) of a binomial share, of which `share` was found in `count` trials: Wilson's,
    which unlike the normal approximation holds for few trials and for shares near 0 and 1."""
    z = 1.959964                                           # 97.5 % of the normal distribution lie below
    middle = share + z*z/(2*count)
    half = z*math.sqrt(share*(1 - share)/count + (z/(2*count))**2)
    return max(0.0, (middle - half)/(1 + z*z/count)), min(1.0, (middle + half)/(1 + z*z/count))


# ------------------------------------------------------------------------------------------------------ probabilities
def batches_of_probabilities(models, pictures, batch_size, crops, bar):
    """Yield (P of each model (models,classes,n) float32, labels, indices) for the batches of `pictures`, in order."""
    check.positive("members of the ensemble", len(models))
    check.one_of("--crops", crops, ("centre", "ten"))
    count = 0
    for batch, labels, indices in pictures.batches(batch_size, 0, 0, shuffle=False, device=models[0].device):
        if not len(labels):                                # all damaged
            continue
        each = np.stack([model.probabilities(batch, crops) for model in models])
        check.finite("the network's probabilities", each)  # a NaN would win every comparison by losing it
        yield each, labels, indices
        count += len(labels)
        if bar is not None:
            bar.update(len(labels))
    if not count:
        raise check.Expected("evaluation", "at least one picture", "none")


def predict(models, pictures, batch_size=128, crops="centre", bar=None):
    """The Predictions of an ensemble, a list of `Trained` models, for a `Pictures` set, in its order:
    the mean over the models of their softmaxes, each the mean over the crops. `bar` is a tqdm bar to move on, if any.

    One pass over the pictures: all models take them at the size of this set, whatever the crops they cut from it."""
    ps, labels, indices = zip(*((each.mean(axis=0), labels, indices) for each, labels, indices
                                in batches_of_probabilities(models, pictures, batch_size, crops, bar)))
    return Predictions(np.concatenate(ps, axis=1), np.concatenate(labels), np.concatenate(indices))


# ---------------------------------------------------------------------------------------------------------- judgement
def judge(p, labels, indices):
    """The Answers that probabilities p (classes,N) amount to."""
    n = np.arange(len(labels))
    p_true = p[labels, n]
    rank = (p >= p_true).sum(axis=0) - 1                   # not the true class itself
    others = p.copy()
    others[labels, n] = -1
    predicted = np.where(rank > 0, others.argmax(axis=0), labels)
    return Answers(labels, predicted, rank, p_true, p[predicted, n], indices)


def answers(models, pictures, batch_size=128, crops="centre", bar=None):
    """(Answers of the ensemble, [Answers of each model alone]) from one pass over the pictures."""
    judged = [[judge(p, labels, indices) for p in (each.mean(axis=0), *each)] for each, labels, indices
              in batches_of_probabilities(models, pictures, batch_size, crops, bar)]
    ensemble, *alone = (Answers(*map(np.concatenate, zip(*batches))) for batches in zip(*judged))
    return ensemble, alone


def score(found, crops, networks, classes=1000, of="pictures", left_out=0):
    """The Score of Answers."""
    loss = -np.log(np.maximum(found.p_true, np.finfo(np.float32).tiny), dtype=np.float64).mean()
    return Score(float(loss), float((found.rank >= 1).mean()), float((found.rank >= 5).mean()), len(found.labels),
                 crops, networks, classes, of, left_out)


def evaluate(models, pictures, batch_size=128, crops="centre", bar=None, of="pictures"):
    """The Score of the ensemble of `models` on a `Pictures` set; the arguments are those of `predict`, and `of` the words
    for the set in its text."""
    found, _ = answers(models, pictures, batch_size, crops, bar)
    return score(found, crops, len(models), len(pictures.dataset.classes), of, len(pictures.damaged))


# ------------------------------------------------------------------------------------------------------------- tables
def confusion(found, M):
    """counts (M,M) int64: of the pictures of the row's class, how many were taken for the column's."""
    return np.bincount(found.labels*M + found.predicted, minlength=M*M).reshape(M, M)


def confused_pairs(counts, classes):
    """[(true, predicted, count, pictures of the true class)] by name, most confused first, equals in the classes' order."""
    true, predicted = np.nonzero(counts*~np.eye(len(counts), dtype=bool))
    order = np.argsort(-counts[true, predicted], kind="stable")
    return [(classes[i], classes[j], int(counts[i, j]), int(counts[i].sum())) for i, j in zip(true[order], predicted[order])]


def per_class(found, counts, classes):
    """Rows (class, count, top-1 error, top-5 error, the most frequent wrong class, how often it was predicted); "" for what
    has no meaning: the errors of no pictures, a top-5 error among five classes, a wrong class where all are right."""
    beyond = np.bincount(found.labels[found.rank >= 5], minlength=len(classes))
    wrong = counts*~np.eye(len(counts), dtype=bool)
    for k, (name, count, row) in enumerate(zip(classes, counts.sum(axis=1), wrong)):
        top1 = f"{row.sum()/count:.6g}" if count else ""
        top5 = f"{beyond[k]/count:.6g}" if count and len(classes) > 5 else ""
        yield name, count, top1, top5, *((classes[row.argmax()], row.max()) if row.any() else ("", ""))


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
        except Damaged:                                    # its file is gone since
            continue
        captions.append((f"{p:.3f} {classes[true]}", f"{q:.3f} → {classes[taken]}" if rank else "right"))
        right.append(rank == 0)
    plots.save(plots.captioned(tiles, captions, right, f"The {len(tiles)} pictures whose true class was given the least probability: P "
                    f"and name of the true class; below, of the predicted one.\n{protocol}"), path)


def write_summary(path, pictures, models, ensemble, singles):
    """summary.json: the Scores of the ensemble and of each of its `models`, in full."""
    damaged = {pictures.dataset.names[i]: reason for i, reason in sorted(pictures.damaged.items())}
    content = {**numbers(ensemble), "combination": "mean of the softmaxes of the crops, then of the networks",
               "damaged": damaged, "picture_size": pictures.size, "device": models[0].device.description, "zfcore": zfcore.__version__,
               "members": [{"run": str(model.path), "model": model.name, "input_shape": model.network.input_shape,
                            "epoch": model.epoch, **numbers(alone)} for model, alone in zip(models, singles)]}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def numbers(found):
    """A Score as JSON can hold it, with the 95 % intervals."""
    meaningful = found.classes > 5
    return {"text": str(found), "set": found.of, "count": found.count, "damaged_left_out": found.left_out,
            "crops": found.crops, "networks": found.networks, "loss": found.loss,
            "top1_error": found.top1, "top1_error_95": wilson(found.top1, found.count),
            "top5_error": found.top5 if meaningful else None,
            "top5_error_95": wilson(found.top5, found.count) if meaningful else None}


@contextmanager
def whole_folder(path):
    """`with whole_folder(path) as new:` fill the folder `new`. It becomes `path` when the block ends well, in place of an
    earlier evaluation there, and vanishes when not. A folder that holds anything else is refused."""
    path = Path(path).resolve()
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("part", "old"))
    try:
        strange = sorted({entry.name for entry in path.iterdir()} - set(FILES)) if path.exists() else []
        if strange:
            raise check.Expected("--output", "a new folder, or one with an evaluation and nothing else",
                                 f"{path}, which holds {', '.join(strange[:3])}")
        for left_by_a_kill in (new, old):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise check.Expected("--output", "a place where a folder can be written", f"{path} ({error.strerror})",
                             "name another one") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------- command line
def parser():
    p = argparse.ArgumentParser(prog="python -m train.evaluate",
                                description="Top-1 and top-5 error of a trained network, or of an ensemble of several.")
    p.add_argument("--run", required=True, nargs="+",
                   help="a run's folder (its best.h5) or a checkpoint file; of several, the mean of the softmaxes is judged")
    p.add_argument("--data", help="the set, as for python -m train (default: what the runs were trained on)")
    p.add_argument("--part", choices=("val", "train"), default="val")
    p.add_argument("--crops", choices=("centre", "ten"), default="centre", help="ten: the mean over the paper's ten crops")
    p.add_argument("--output", metavar="DIR", help="folder to write (default: evaluation, in the first run's folder)")
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--device", default="auto", help="auto, cpu or gpu")
    p.add_argument("--precision", default="fp32", help=f"how products are formed: {', '.join(PRECISIONS)} (on a CPU: fp32)")
    p.add_argument("--workers", type=int, default=2, help="threads that decode pictures")
    p.add_argument("--upscale", action="store_true", help="enlarge pictures smaller than the network's input")
    return p


def open_runs(runs, device, precision):
    """[Trained]. Raises Expected for runs that cannot be an ensemble: all must know the same classes, in whatever order, and see
    the same pictures, so of one size; what crop a network takes of it is its own matter."""
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise check.Expected("--run", "different runs", "one of them twice")
    models = [trained.open(run, device, precision) for run in runs]
    for run, model in zip(runs, models):
        same_classes(run, model.classes, runs[0], models[0].classes)
        if model.size != models[0].size:
            raise check.Expected(run, f"pictures of {models[0].size} pixels, as {runs[0]} has", f"{model.size} pixels",
                                 "an ensemble sees the same pictures; evaluate these runs one by one")
    return models


def same_classes(what, classes, run, expected):
    """Raise Expected unless `classes` are the `expected` ones of `run`, in whatever order."""
    strange, missing = sorted(set(classes) - set(expected)), sorted(set(expected) - set(classes))
    if strange or missing:
        other = f"among them {', '.join(strange[:3])}" if strange else f"without {', '.join(missing[:3])}"
        raise check.Expected(what, f"the {len(expected)} classes of {run} ({', '.join(expected[:3])} ...)",
                             f"{len(classes)} classes, {other}")


def open_part(models, data, part, upscale, workers):
    """(Pictures, the words for them) of the part "train" or "val" of `data`; None: of what all the models were trained on."""
    trained_on = {model.data for model in models}
    if data is None and len(trained_on) > 1:
        raise check.Expected("--data", "the set to evaluate on, since the runs were trained on different ones", "none")
    data, size = trained_on.pop() if data is None else data, models[0].size
    dataset = open_data(data, size)[part == "val"]
    if not len(dataset):
        raise check.Expected("--part", f"pictures in the {part} part of {data}", "none")
    same_classes("--data", dataset.classes, models[0].path, models[0].classes)
    of = f"{'validation' if part == 'val' else 'training'} pictures of {data_in_words(data)}"
    return Pictures(dataset, size, max(model.crop for model in models), upscale, workers), of


def default_output(runs):
    """RUN/evaluation; RUN/evaluation-NAME for RUN/NAME.h5; for an ensemble evaluation-of-N-networks in the first run's."""
    first = Path(runs[0])
    word = f"-{first.stem}" if first.is_file() else ""
    return inside(home_of(first), f"evaluation{word}" if len(runs) == 1 else f"evaluation-of-{len(runs)}-networks")


@check.speak_and_exit
def main(arguments=None):
    args = parser().parse_args(arguments)
    check.positive("--batch-size", args.batch_size)
    models = open_runs(args.run, args.device, args.precision)
    pictures, of = open_part(models, args.data, args.part, args.upscale, args.workers)
    classes = pictures.dataset.classes
    models = [model.with_classes(classes) for model in models]
    output = Path(args.output or default_output(args.run))
    with whole_folder(output) as folder:
        with tqdm(total=len(pictures), unit="picture", disable=None, desc="evaluating") as bar:
            together, alone = answers(models, pictures, args.batch_size, args.crops, bar)
        about = (len(classes), of, len(pictures.damaged))
        ensemble = score(together, args.crops, len(models), *about)
        singles = [score(found, args.crops, 1, *about) for found in alone]
        counts = confusion(together, len(classes))
        pairs = confused_pairs(counts, classes)
        print("\n".join(in_words(args.run, ensemble, singles, pairs)), flush=True)
        write_tables(folder, together, counts, pairs, pictures.dataset.names, classes)
        plots.save(plots.confusion(counts, classes, pairs, str(ensemble)), folder/"confusion.png")
        write_worst(folder/"worst.png", together, pictures, ensemble)
        write_summary(folder/"summary.json", pictures, models, ensemble, singles)
    print("\n".join(f"  {output/name}" for name in FILES))


def in_words(runs, ensemble, singles, pairs, most=5):
    """The lines that are printed."""
    yield from (f"{run}: {alone}" for run, alone in zip(runs, singles))
    if len(runs) > 1:
        yield f"ensemble: {ensemble}"
    if pairs:
        yield "most confused:"
    yield from (f"  {count:4} of {of} {true} -> {taken}" for true, taken, count, of in pairs[:most])


if __name__ == "__main__":
    main()
