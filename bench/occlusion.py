"""python -m bench cpu --parts occlusion: figure 7's square over one picture of 224 x 224, through the full ZFNet.

    cone       50x50 pixels moved by 6, 900 places, of every layer only what the square reaches (zfcore, as it is used)
    whole      the same with every layer computed as a whole (zfcore, incremental=False)
    PyTorch    a plain loop: copies of the picture with the square painted on each, forward, batch by batch; in both
               layouts, and compiled by torch.compile, of which the fastest counts
    Captum     its Occlusion, as many places at once, over the same network in PyTorch, channels last

Two contests, cone against whole and cone against the others; in each they take turns, round after round (three at most: a
round takes minutes). Printed is the median over the rounds of how many times as fast the cone is, and its spread. First
it is checked that all find the same. Results go to occlusion.json in the folder --output.
"""
import importlib
import math
from importlib.util import find_spec

import numpy as np

from bench import engines
from bench.cpu import compare
from bench.engines import LAYOUTS, memory_format, torch, torch_images, torch_twin
from bench.record import Record
from zfcore.analysis.occlusion import occlusion
from zfcore.models.zfnet import zfnet
from zfcore.trained import Trained

BATCH, SIZE, STRIDE, GREY = 64, 50, 6, 128
PLACES = len(range(0, 224 - SIZE + 1, STRIDE))**2


def main(rounds, folder):
    rounds = min(rounds, 3)
    network, mean = zfnet().init(0, "he"), np.full((3, 224, 224), 120, np.float32)
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    check_that_all_find_the_same(contestants(network, picture, mean, stride=29))
    cone, whole, *peers = contestants(network, picture, mean, STRIDE).items()
    record = Record(folder/"occlusion.json", {"engines": engines.versions() | captum(), "pytorch": engines.versions().get("torch"),
                                              "rounds": rounds, "batch_size": BATCH})
    print(f"{'seconds a picture':28}{'cone':>9}{'other':>9}   {'':22}{'times as fast':>14}  (spread), within a round")
    for name, others in (("cone or every layer whole", [whole]), ("cone or another engine", peers)):
        if not others:
            continue
        row = record.has("cases", name=name)
        if row is None:
            record.add("cases", row := {"name": name, "N": PLACES,
                                        **compare(name, {"ours": cone[1], **dict(others)}, PLACES, rounds)})
        ours, theirs = (row["milliseconds"][key]*PLACES/1e3 for key in ("ours", row["best"]))
        high, low = (1/ratio for ratio in row["spread"])
        print(f"{name:28}{ours:9.2f}{theirs:9.2f}   {row['best']:22}{1/row['ratio']:14.2f}  ({low:.2f} to {high:.2f})",
              flush=True)
    record.finish()


def captum():
    """{"captum": version} where it and PyTorch are installed, else {}."""
    return {"captum": importlib.import_module("captum").__version__} if torch and find_spec("captum") else {}


def contestants(network, picture, mean, stride):
    """{"cone": run, "whole": run, layout: run}; each run returns P(class 0) at every place of the square, in row order."""
    def ours(incremental):
        found = occlusion(Trained(network, mean), picture, [0], layer=None, size=SIZE, stride=stride, grey=GREY,
                          criterion="sum", batch_size=BATCH, incremental=incremental)
        return found.probabilities.ravel()

    runs = {"cone": lambda: ours(True), "whole": lambda: ours(False)}
    if torch is None:
        return runs
    x = picture.transpose(3, 1, 2, 0) - mean[..., None]
    for name, layout, compiled in (*((f"PyTorch, {layout}", layout, False) for layout in LAYOUTS),
                                   ("torch.compile", LAYOUTS[1], True)):
        twin, image = torch_twin(network, layout, compiled).eval(), torch_images(x, layout)
        runs[name] = lambda twin=twin, image=image, layout=layout: torch_loop(twin, image, GREY - mean, stride, layout)
    if captum():
        twin, image = torch_twin(network, LAYOUTS[1]).eval(), torch_images(x, LAYOUTS[1])
        runs["Captum"] = lambda: captum_occlusion(twin, image, GREY - mean, stride)
    return runs


def captum_occlusion(twin, image, grey, stride):
    """P(class 0) of image (1,3,224,224) at every place of the square, which Captum asks the network for on the way to its own
    result, how much each pixel's windows lower the class."""
    found = []

    def probability(batch):
        found.append(torch.softmax(twin(batch), dim=1)[:, 0])
        return found[-1]
    with torch.no_grad():
        importlib.import_module("captum.attr").Occlusion(probability).attribute(
            image, (3, SIZE, SIZE), (3, stride, stride), torch.from_numpy(grey)[None], perturbations_per_eval=BATCH)
    places = torch.cat(found[1:])                          # the first one is of the picture as it is
    return places.reshape(math.isqrt(len(places)), -1).T.flatten().numpy()          # Captum goes down the columns


def torch_loop(twin, image, grey, stride, layout):
    """P(class 0) of image (1,3,224,224) as a user of PyTorch would occlude it; grey (3,224,224)."""
    grey = torch.from_numpy(grey)
    places = [(top, left) for top in range(0, 224 - SIZE + 1, stride) for left in range(0, 224 - SIZE + 1, stride)]
    probabilities = []
    with torch.no_grad():
        for start in range(0, len(places), BATCH):
            here = places[start:start + BATCH]
            batch = image.repeat(len(here), 1, 1, 1).contiguous(memory_format=memory_format(layout))
            for n, (top, left) in enumerate(here):
                at = slice(top, top + SIZE), slice(left, left + SIZE)
                batch[(n, slice(None), *at)] = grey[(slice(None), *at)]
            probabilities.append(torch.softmax(twin(batch), dim=1)[:, 0])
    return torch.cat(probabilities).numpy()


def check_that_all_find_the_same(runs):
    """Raises AssertionError unless they agree: whoever times something else learns nothing."""
    first, *others = (run() for run in runs.values())
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-3)
