"""Top-1 and top-5 error of a trained network or an ensemble, from the centre crop or the paper's ten crops.

    python -m train.evaluate --run RUN [RUN ...] [--data DIR] [--part val|train] [--crops centre|ten] [--output DIR]

The paper does not say how it tests. Our reading, which is AlexNet's: the probabilities of a picture are the mean of the
softmaxes of its crops, and those of an ensemble the mean of its members' probabilities.
"""
import argparse
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from zfcore import check
from zfcore.backend import select, to_host
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.data.transforms import centre_crops, ten_crops
from zfcore.models import from_checkpoint
from zfcore.network import Network
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import softmax


class Member(NamedTuple):
    """A trained network, and the mean image (3,H,W) of the pictures that it was trained on, on the device."""
    network: Network
    mean: Any


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
    """Errors in [0, 1] over `count` pictures, and the protocol they were got with. `loss` is the mean of -log P(true class)."""
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
def probabilities(network, pictures, mean, device, crops="centre"):
    """P (classes,N) float32 on the host for uint8 pictures (N,H,W,3): softmax, averaged over the crops."""
    n, size = len(pictures), network.input_shape[1]
    pictures = device.array(pictures)
    views = zip(*(ten_crops if crops == "ten" else partial(centre_crops, 1))(pictures.shape[1], size))
    each = []
    for view in views:                                     # (top, left, mirrored), the same for every picture
        tops, lefts, flips = (np.full(n, value) for value in view)
        y, _ = network.forward(crop_flip(pictures, mean, tops, lefts, flips, size, size))
        each.append(to_host(softmax(y)))
    return np.mean(each, axis=0)


def batches_of_probabilities(members, pictures, device, batch_size, crops, bar):
    """Yield (P of each member (members,classes,n) float32, labels, indices) for the batches of `pictures`, in their order."""
    check.positive("members of the ensemble", len(members))
    check.one_of("--crops", crops, ("centre", "ten"))
    count = 0
    for batch, labels, indices in pictures.batches(batch_size, 0, 0, shuffle=False):
        each = np.stack([probabilities(network, batch, mean, device, crops) for network, mean in members])
        check.finite("the network's probabilities", each)  # a NaN would win every comparison by losing it
        yield each, labels, indices
        count += len(labels)
        if bar is not None:
            bar.update(len(labels))
    if not count:
        raise check.Expected("evaluation", "at least one picture", "none")


def predict(members, pictures, device, batch_size=128, crops="centre", bar=None):
    """The Predictions of the ensemble of `members` (Member, or (network, mean image)) for a `Pictures` set, in its order:
    the mean over the members of their softmaxes, each the mean over the crops. `bar` is a tqdm bar to move on, if any.

    One pass over the pictures: all members take them at the size of this set, whatever the crops they cut from it."""
    ps, labels, indices = zip(*((each.mean(axis=0), labels, indices) for each, labels, indices
                                in batches_of_probabilities(members, pictures, device, batch_size, crops, bar)))
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


def answers(members, pictures, device, batch_size=128, crops="centre", bar=None):
    """(Answers of the ensemble, [Answers of each member alone]) from one pass over the pictures."""
    judged = [[judge(p, labels, indices) for p in (each.mean(axis=0), *each)] for each, labels, indices
              in batches_of_probabilities(members, pictures, device, batch_size, crops, bar)]
    ensemble, *alone = (Answers(*map(np.concatenate, zip(*batches))) for batches in zip(*judged))
    return ensemble, alone


def score(found, crops, networks, classes=1000, of="pictures", left_out=0):
    """The Score of Answers."""
    loss = -np.log(np.maximum(found.p_true, np.finfo(np.float32).tiny), dtype=np.float64).mean()
    return Score(float(loss), float((found.rank >= 1).mean()), float((found.rank >= 5).mean()), len(found.labels),
                 crops, networks, classes, of, left_out)


def evaluate(members, pictures, device, batch_size=128, crops="centre", bar=None, of="pictures"):
    """The Score of the ensemble of `members` on a `Pictures` set; the arguments are those of `predict`, and `of` the words
    for the set in its text."""
    found, _ = answers(members, pictures, device, batch_size, crops, bar)
    return score(found, crops, len(members), len(pictures.dataset.classes), of, len(pictures.damaged))


# ------------------------------------------------------------------------------------------------------- command line
@check.speak_and_exit
def main(arguments=None):
    p = argparse.ArgumentParser(prog="python -m train.evaluate", description="Error of a trained network on a validation set.")
    p.add_argument("--run", required=True, help="a run's folder (its best.h5) or a checkpoint file")
    p.add_argument("--data", help="class folders or tar with a val part (default: what the run was trained on)")
    p.add_argument("--crops", choices=("centre", "ten"), default="centre")
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--device", default="auto")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--upscale", action="store_true", help="enlarge pictures smaller than the network's input")
    args = p.parse_args(arguments)
    check.positive("--batch-size", args.batch_size)
    device = select(args.device)
    network, checkpoint = from_checkpoint(args.run, device)
    size, crop = checkpoint.mean_image.shape[1], network.input_shape[1]
    _, val = open_data(args.data if args.data is not None else checkpoint.state.get("data", ""), size)
    if val.classes != checkpoint.classes:
        raise check.Expected("--data", f"the run's classes {', '.join(checkpoint.classes[:5])} ...",
                             f"{', '.join(val.classes[:5])} ...")
    pictures = Pictures(val, size, crop, args.upscale, args.workers)
    with tqdm(total=len(val), unit="picture", disable=None, desc="evaluating") as bar:
        found = evaluate([Member(network, device.array(checkpoint.mean_image))], pictures, device, args.batch_size, args.crops,
                         bar, of="validation pictures")
    print(f"{args.run}: {found}")


if __name__ == "__main__":
    main()
