"""Top-1 and top-5 error of a trained network or an ensemble, from the centre crop or the paper's ten crops.

    evaluate(models, pictures)     the Score: errors with the protocol behind them
    predict(models, pictures)      the probabilities themselves
    answers(models, pictures)      what remains of them when they are judged, of which `confusion`, `per_class` ... are made
    open_runs, open_part           the models of an ensemble and the pictures that they can be judged on

The paper does not say how it tests. Our reading, which is AlexNet's: the probabilities of a picture are the mean of the
softmaxes of its crops, and those of an ensemble the mean of its members' probabilities.
"""
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zfcore import check, trained
from zfcore.data import check_there, data_in_words, same_place
from zfcore.data.loader import Pictures, check_one_class
from zfcore.hints import Bar
from zfcore.ranks import ALONE, Ranks
from zfcore.terminal import plural
from zfcore.trained import Trained, check_different, check_pictures


class Predictions(NamedTuple):
    """Probabilities of N pictures; a damaged picture is not among them."""
    p: NDArray[np.float32]        # (classes,N), in the order of the models' classes
    labels: NDArray[np.int64]     # (N,), numbers of the true classes among these, -1 where it is none of them
    indices: NDArray[np.int64]    # (N,), numbers of the pictures in their set


class Answers(NamedTuple):
    """Answers: what remains of the probabilities when they are judged: for ImageNet 2 MB instead of 200. Arrays (N,)."""
    labels: NDArray[np.int64]     # the true classes
    predicted: NDArray[np.int64]  # the likeliest classes; a tie goes against the true one
    rank: NDArray[np.int64]       # how many other classes are as likely as the true one or likelier
    p_true: NDArray[np.float32]   # probability of the true class
    p_predicted: NDArray[np.float32]
    indices: NDArray[np.int64]    # numbers of the pictures in their set


ANSWER = np.dtype([(name, np.float32 if name.startswith("p_") else np.int64) for name in Answers._fields])     # to one picture


@dataclass(frozen=True)
class Score:
    """Errors in [0, 1] over `count` pictures and the protocol behind them. `loss` is the mean of -log P(true class), where P counts
    as 2^-126 at the least, the smallest normal float32: a picture adds at most 87.3. Training's loss, of scores, has no such end."""
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
        networks = "1 network" if self.networks == 1 else f"mean of {plural(self.networks, 'network')}"
        of = self.of.replace("pictures", "picture", 1) if self.count == 1 else self.of
        top5 = f"top-5 error {self._percent(self.top5)}, " if self.classes > 5 else ""
        damaged = f", {self.left_out} damaged left out" if self.left_out else ""
        return (f"top-1 error {self._percent(self.top1)}, {top5}loss {self.loss:.3f} "
                f"({crops}, {networks}, {self.count} {of}{damaged})")

    def _percent(self, error):
        low, high = wilson(error, self.count)
        return f"{100*error:.1f} % (95 %: {100*low:.1f} to {100*high:.1f})"


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval (low, high) of a binomial share, of which `share` was found in `count` trials: Wilson's,
    which unlike the normal approximation holds for few trials and for shares near 0 and 1."""
    z = 1.959964                                           # 97.5 % of the normal distribution lie below
    middle = share + z*z/(2*count)
    half = z*math.sqrt(share*(1 - share)/count + (z/(2*count))**2)
    return max(0.0, (middle - half)/(1 + z*z/count)), min(1.0, (middle + half)/(1 + z*z/count))


# ------------------------------------------------------------------------------------------------------ probabilities
def batches_of_probabilities(models, pictures, batch_size, crops, bar):
    """Yield (P of each model (models,classes,n) float32, labels, indices) for the batches of `pictures`, in order."""
    check.one_of("--crops", crops, ("centre", "ten"))
    if any(list(model.classes) != list(models[0].classes) for model in models):
        raise check.Expected("members of the ensemble", "the same classes in the same order", "others",
                             "the method with_classes of each puts the same ones into one order")
    count = 0
    for batch, labels, indices in pictures.batches(batch_size, 0, 0, shuffle=False, device=models[0].device):
        if not len(labels):                                # all damaged
            continue
        yield probabilities(models, batch, crops), labels, indices
        count += len(labels)
        if bar is not None:
            bar.update(len(labels))
    if not count:
        raise none_left(pictures)


def check_ensemble(models, pictures):
    """Raise Expected unless the models are a list of Trained, all of them different, and the pictures Pictures."""
    check.each("members of the ensemble", models, Trained)
    check_pictures(pictures)
    check_different("members of the ensemble", models)


def none_left(pictures):
    """Expected, for a `Pictures` set of which nothing can be used."""
    left = len(pictures.damaged)
    return check.Expected("pictures", "at least one that can be used", f"{left} that cannot" if left else "none")


def probabilities(models, batch, crops):
    """P of each model (models,classes,n) float32 for a batch of pictures."""
    return np.stack([model.probabilities(batch, crops) for model in models])


def predict(models: Sequence[Trained], pictures: Pictures, batch_size: int = 128, crops: Literal["centre", "ten"] = "centre",
            bar: Bar | None = None) -> Predictions:
    """The Predictions of an ensemble, a list of `Trained` models, for a `Pictures` set, in its order:
    the mean over the models of their softmaxes, each the mean over the crops. `bar` is a bar to move on, if any.

    The set may have other classes than the models, in another order, or none: rows and labels go by the models', and by the
    set's where these know no names. Of a set whose pictures show several classes the labels stay its own, (N,its classes).

    One pass over the pictures: all models take them at the size of this set, whatever the crops they cut from it."""
    check_ensemble(models, pictures)
    ps, labels, indices = zip(*((each.mean(axis=0), labels, indices) for each, labels, indices
                                in batches_of_probabilities(models, pictures, batch_size, crops, bar)))
    labels = labels_among(models[0].classes, pictures.dataset.classes, np.concatenate(labels))
    return Predictions(np.concatenate(ps, axis=1), labels, np.concatenate(indices))


def labels_among(classes, own, labels):
    """The labels (N,), numbers into `own`, names of a data set's classes, as numbers into `classes`, if these have names; -1
    for what is none of them."""
    if not classes or labels.ndim > 1:
        return labels
    number = {name: k for k, name in enumerate(classes)}
    numbers = np.array([number.get(name, -1) for name in own], np.int64)
    return numbers[labels] if len(own) else np.full_like(labels, -1)


# ---------------------------------------------------------------------------------------------------------- judgement
def judge(p, labels, indices):
    """The Answers that probabilities p (classes,N) amount to."""
    if labels.max(initial=0) >= len(p):
        raise check.Expected("pictures", f"labels below {len(p)}, the network's number of classes", labels.max())
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
    loss = 0 - np.log(np.maximum(found.p_true, np.finfo(np.float32).tiny), dtype=np.float64).mean()      # 0, not -0, where all are 1
    return Score(float(loss), float((found.rank >= 1).mean()), float((found.rank >= 5).mean()), len(found.labels),
                 crops, networks, classes, of, left_out)


def answers_together(models, pictures, batch_size, crops, bar, ranks):
    """`answers` of the ensemble, on each of the `ranks`, of which each takes every batch that is its turn."""
    found, drawn, damaged = [], pictures.drawn(batch_size, 0, 0, shuffle=False), {}
    with closing(pictures.those(drawn[ranks.rank::ranks.size], models[0].device, damaged.update)) as mine:
        for _ in range(0, len(drawn), ranks.size):
            rows = ranks.gather(b"".join(row_of_answers(models, *batch, crops) for batch in islice(mine, 1)))
            found += [np.frombuffer(row, ANSWER) for row in rows]
            if bar is not None:
                bar.update(sum(map(len, found[-ranks.size:])))
    pictures.leave_out_together(damaged, ranks)
    whole = np.concatenate(found)
    if not len(whole):
        raise none_left(pictures)
    check.finite(f"{models[0].name}: probabilities", whole["p_true"])          # on all ranks, whichever had those that are not
    return Answers(*(whole[name] for name in Answers._fields))


def row_of_answers(models, batch, labels, indices, crops):
    """The Answers of the ensemble to one batch as bytes, an ANSWER a picture; NaN where probabilities are not finite, so that
    all ranks learn of it."""
    if not len(labels):                                    # all damaged
        return b""
    row = np.empty(len(labels), ANSWER)
    try:
        p = probabilities(models, batch, crops).mean(axis=0)
    except check.NotFinite:
        p = np.full((len(models[0].classes), len(labels)), np.nan)
    for name, column in judge(p, labels, indices)._asdict().items():
        row[name] = column
    return row.tobytes()


def evaluate(models: Sequence[Trained], pictures: Pictures, batch_size: int = 128, crops: Literal["centre", "ten"] = "centre",
             bar: Bar | None = None, of: str = "pictures", ranks: Ranks = ALONE) -> Score:
    """The Score of the ensemble of `models` on a `Pictures` set; the arguments are those of `predict`, and `of` the words
    for the set in its text. Several `ranks` share the pictures, and each has the Score that one alone would have. Raises
    Expected unless all know the classes of the pictures, in whatever order."""
    check_ensemble(models, pictures)
    check_one_class(pictures.dataset)
    models = in_order_of(pictures.dataset.classes, models)
    if ranks.size == 1:
        found, _ = answers(models, pictures, batch_size, crops, bar)
    else:
        found = answers_together(models, pictures, batch_size, crops, bar, ranks)
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


# ------------------------------------------------------------------------------------- runs and pictures that fit together
def open_runs(runs, device, precision):
    """[Trained]. Raises Expected for runs that cannot be an ensemble: all must know the same classes, in whatever order, and
    see the same pictures, so of one size; what crop a network takes of it is its own matter."""
    models = [trained.open(run, device, precision) for run in runs]
    check_different("--run", models)
    for run, model in zip(runs, models):
        same_classes(run, model.classes, runs[0], models[0].classes)
        if model.size != models[0].size:
            raise check.Expected(run, f"pictures of {models[0].size} pixels, as {runs[0]} has", f"{model.size} pixels",
                                 "an ensemble sees the same pictures; evaluate these runs one by one")
    return models


def same_classes(what, classes, run, expected, all_of_them=True, advice=""):
    """Raise Expected unless `classes` are the `expected` ones of `run`, in whatever order, or some of them."""
    strange, missing = sorted(set(classes) - set(expected)), sorted(set(expected) - set(classes))
    if strange or missing and all_of_them:
        other = f"among them {', '.join(strange[:3])}" if strange else f"without {', '.join(missing[:3])}"
        raise check.Expected(what, f"the {plural(len(expected), 'class')} of {run} ({', '.join(expected[:3])} ...)",
                             f"{plural(len(classes), 'class')}, {other}", advice)


def in_order_of(classes, models):
    """The models with their outputs in the order of `classes`, the names of those of a data set; those that know no names are
    believed to have it. Raises Expected where they know others."""
    found = []
    for model in models:
        if model.classes and list(model.classes) != list(classes):
            same_classes("pictures", classes, model.path or model.name, model.classes)
            model = model.with_classes(classes)
        found.append(model)
    return found


class Among:
    """A data set whose classes are some of `classes`, as one of all of them."""

    def __init__(self, dataset, classes):
        self.dataset, self.classes = dataset, classes
        self.labels = np.array([classes.index(name) for name in dataset.classes], np.int64)[dataset.labels]

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def open_part(models, data, part, upscale, workers):
    """(Pictures, the words for them) of the part "train" or "val" of `data`; None: of what all the models were trained on, no
    more of each class than they had, where they had as many. Of a set without parts all pictures are judged; it may have some
    of the classes only."""
    trained_on = {model.data for model in models}
    if data is None and len(trained_on) > 1:
        raise check.Expected("--data", "the set to evaluate on, since the runs were trained on different ones", "none")
    limits = {model.limit_per_class for model in models} if data is None else {0}
    if data is None:
        check_there(data := trained_on.pop())
    owner = next((model for model in models if same_place(data, model.data)), models[0])
    dataset = owner.dataset(data or None, part, limits.pop() if len(limits) == 1 else 0)       # "" is stored for drawn objects
    if not dataset.classes:
        raise check.Expected("--data", "class folders, whose names tell what is right", f"{data}, pictures without classes",
                             "python -m train.predict says what they are taken for")
    same_classes("--data", dataset.classes, models[0].path, models[0].classes, all_of_them=False,
                 advice="a file classes.txt beside the class folders, FOLDER NAME a line, gives them the network's names; "
                        "those of a network from elsewhere are what python -m zfcore import --labels says")
    if len(dataset.classes) < len(models[0].classes):
        dataset = Among(dataset, list(models[0].classes))
    of = f"{'validation' if part == 'val' else 'training'} pictures of {data_in_words(data)}"
    upscale = upscale or any(model.upscale for model in models)
    return Pictures(dataset, models[0].size, max(model.crop for model in models), upscale, workers), of
