"""python -m bench cpu --parts occlusion: figure 7's square over one picture of 224 x 224, through the full ZFNet.

    cone       50x50 pixels moved by 6, 900 places, of every layer only what the square reaches (zfcore, as it is used)
    whole      the same with every layer computed as a whole (zfcore, incremental=False)
    PyTorch    a plain loop: copies of the picture with the square painted on each, forward, batch by batch; in both
               layouts, of which the faster one counts

Two contests, cone against whole and cone against PyTorch; in each they take turns, round after round (three at most: a
round takes a minute). Printed is the median over the rounds of how many times as fast the cone is, and its spread. First
it is checked that all find the same. Results go to bench/results/occlusion.json.
"""
import json
import os
import platform
from datetime import datetime, timezone

import numpy as np

from bench.cpu import RESULTS, compare, cpu_name, memory_format, torch, torch_twins
from zfcore.analysis.occlusion import occlusion
from zfcore.cpu import CORES
from zfcore.models.zfnet import zfnet
from zfcore.trained import Trained

BATCH, SIZE, STRIDE, GREY = 64, 50, 6, 128
PLACES = len(range(0, 224 - SIZE + 1, STRIDE))**2


def main(rounds):
    rounds = min(rounds, 3)
    if torch is not None:
        torch.set_num_threads(CORES)
    network, mean = zfnet().init(0, "he"), np.full((3, 224, 224), 120, np.float32)
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    check_that_all_find_the_same(contestants(network, picture, mean, stride=58))
    cone, whole, *peers = contestants(network, picture, mean, STRIDE).items()
    report = {"cpu": cpu_name(), "cores": CORES, "numpy": np.__version__, "python": platform.python_version(),
              "pytorch": torch and torch.__version__, "rounds": rounds, "load_before": os.getloadavg(), "batch_size": BATCH,
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "cases": []}
    print(f"{'seconds a picture':28}{'cone':>9}{'other':>9}   {'':16}{'times as fast':>14}  (spread)")
    for name, others in (("cone or every layer whole", [whole]), ("cone or PyTorch", peers)):
        if not others:
            continue
        row = {"name": name, "N": PLACES, **compare(name, {"ours": cone[1], **dict(others)}, PLACES, rounds)}
        report["cases"].append(row)
        ours, theirs = (row["milliseconds"][key]*PLACES/1e3 for key in ("ours", row["best"]))
        high, low = (1/ratio for ratio in row["spread"])
        print(f"{name:28}{ours:9.2f}{theirs:9.2f}   {row['best']:16}{1/row['ratio']:14.2f}  ({low:.2f} to {high:.2f})",
              flush=True)
    path = RESULTS.with_name("occlusion.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}")


def contestants(network, picture, mean, stride):
    """{"cone": run, "whole": run, layout: run}; each run returns P(class 0) at every place of the square, in row order."""
    def ours(incremental):
        found = occlusion(Trained(network, mean), picture, [0], layer=None, size=SIZE, stride=stride, grey=GREY, criterion="sum", batch_size=BATCH, incremental=incremental)
        return found.probabilities.ravel()

    runs = {"cone": lambda: ours(True), "whole": lambda: ours(False)}
    x = picture.transpose(3, 1, 2, 0) - mean[..., None]
    for layout, twin, image in torch_twins(network, x):
        runs[layout] = lambda twin=twin.eval(), image=image, layout=layout: torch_loop(twin, image, GREY - mean, stride,
                                                                                       layout)
    return runs


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
