"""Top-1 and top-5 error of a trained network, from its centre crop or the paper's ten crops.

    python -m train.evaluate --run RUN [--data DIR] [--crops centre|ten]
"""
import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from zfcore import check
from zfcore.backend import select, to_host
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.data.transforms import centre_crops, ten_crops
from zfcore.models import from_checkpoint
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import softmax


@dataclass(frozen=True)
class Score:
    """Errors in [0, 1] over `count` pictures; `loss` is the mean of -log P(true class), P the mean over the crops."""
    loss: float
    top1: float
    top5: float
    count: int
    crops: str

    def __str__(self):
        how = "centre crop" if self.crops == "centre" else "mean of ten crops"
        return (f"top-1 error {100*self.top1:.1f} %, top-5 error {100*self.top5:.1f} %, loss {self.loss:.3f} "
                f"({how}, 1 network, {self.count} validation pictures)")


def probabilities(network, pictures, mean, device, crops="centre"):
    """P (classes, N) float32 on the host for uint8 pictures (N,H,W,3): softmax, averaged over the crops."""
    n, size = len(pictures), network.input_shape[1]
    pictures = device.array(pictures)
    views = zip(*(ten_crops if crops == "ten" else partial(centre_crops, 1))(pictures.shape[1], size))
    each = []
    for view in views:                                     # (top, left, mirrored), the same for every picture
        tops, lefts, flips = (np.full(n, value) for value in view)
        y, _ = network.forward(crop_flip(pictures, mean, tops, lefts, flips, size, size))
        each.append(to_host(softmax(y)))
    return np.mean(each, axis=0)


def evaluate(network, pictures, mean, device, batch_size=128, crops="centre", bar=None):
    """The Score of `network` on a `Pictures` set, in its order; `bar` is a tqdm bar to move on, if any."""
    loss = wrong1 = wrong5 = count = 0
    for batch, labels, _ in pictures.batches(batch_size, 0, 0, shuffle=False):
        p = probabilities(network, batch, mean, device, crops)
        true = p[labels, np.arange(len(labels))]
        rank = (p >= true).sum(axis=0) - 1                 # classes thought as likely as the true one or likelier
        loss -= float(np.log(np.maximum(true, np.finfo(np.float32).tiny), dtype=np.float64).sum())
        wrong1, wrong5, count = wrong1 + int((rank >= 1).sum()), wrong5 + int((rank >= 5).sum()), count + len(labels)
        if bar is not None:
            bar.update(len(labels))
    if not count:
        raise check.Expected("evaluation", "at least one picture", "none")
    return Score(loss/count, wrong1/count, wrong5/count, count, crops)


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
        score = evaluate(network, pictures, device.array(checkpoint.mean_image), device, args.batch_size, args.crops, bar)
    print(f"{args.run}: {score}")


if __name__ == "__main__":
    main()
