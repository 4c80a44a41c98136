"""python -m bench cpu --parts projections: what looking into the full ZFNet costs, in forward passes.

    top-9 pass     the nine strongest of 64 pictures for every unit of layers 1-5, and a forward pass over the same pictures
    projections    nine units of layer 5, each from the picture it is strongest in: up, and down in its cone; and a forward
                   pass of the nine pictures through the whole network

Both take turns, round after round; printed is the median over the rounds of the ratio within a round, and its spread.
Results go to projections.json in the folder --output.
"""
import numpy as np
from PIL import Image

from bench.cpu import compare
from bench.record import Record
from zfcore.analysis.top_activations import top_activations
from zfcore.data.loader import Pictures
from zfcore.deconvnet import project
from zfcore.models.zfnet import zfnet
from zfcore.trained import Trained

LAYERS = "conv1", "conv2", "conv3", "conv4", "conv5"
PASSED, PROJECTED, BATCH = 64, 9, 32
MEAN = np.full((3, 256, 256), 128, np.float32)


def noise(count, size=256):
    """(count,size,size,3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


class Noise:
    """Pictures of noise, decoded already: only the network's time counts."""
    classes = ["noise", "more noise"]

    def __init__(self, count):
        self.pixels = noise(count)
        self.names, self.labels = [str(i) for i in range(count)], np.zeros(count, np.int64)

    def __len__(self):
        return len(self.pixels)

    def picture(self, i):
        return Image.fromarray(self.pixels[i])


class Decoded(Pictures):
    def picture(self, i):
        return self.dataset.pixels[i]


def main(rounds, folder):
    record = Record(folder/"projections.json", {"rounds": rounds})
    print(f"{'milliseconds a picture':28}{'N':>5}{'ours':>9}{'forward':>9}{'ratio':>8}  (spread), within a round")
    for name, N, contestants in cases():
        row = record.has("cases", name=name, N=N)
        if row is None:
            record.add("cases", row := {"name": name, "N": N, **compare(name, contestants, N, rounds)})
        times, (low, high) = row["milliseconds"], row["spread"]
        print(f"{name:28}{N:5}{times['ours']:9.2f}{times['forward']:9.2f}{row['ratio']:8.2f}  ({low:.2f} to {high:.2f})",
              flush=True)
    record.finish()


def cases():
    """(name, pictures, {"ours": run, "forward": run})"""
    network = zfnet().init(0, "he")
    pictures = Decoded(Noise(PASSED), 256, 224, workers=0, memory=0)
    x = Trained(network, MEAN).inputs(pictures.dataset.pixels)                         # (3,224,224,64)
    batches = [np.ascontiguousarray(x[..., n:n + BATCH]) for n in range(0, PASSED, BATCH)]
    yield "top-9 pass, layers 1-5", PASSED, {
        "ours": lambda: top_activations(Trained(network, MEAN), pictures, LAYERS, 9, batch_size=BATCH),
        "forward": lambda: [network.forward(batch) for batch in batches]}

    nine, units = np.ascontiguousarray(x[..., :PROJECTED]), np.arange(PROJECTED)*28
    yield "projections from layer 5", PROJECTED, {
        "ours": lambda: project(network, nine, "conv5", units),
        "forward": lambda: network.forward(nine)}
