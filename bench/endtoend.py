"""python -m bench cpu --parts endtoend: `tiny` trained on pictures that are not in memory yet, beside PyTorch with its
DataLoader.

    drawn      pictures of the embedded set, drawn as they are asked for, as in a first epoch without a cache
    decoded    the same pictures as JPEGs of 160 pixels, decoded and scaled

Ours is the loader and the step of `python -m train`. PyTorch has the same network and the same pictures, drawn or decoded,
scaled, cropped and mirrored by the same functions, in DataLoader's own process or in as many others as there are cores, and
torch.compile; the best counts. An epoch of PICTURES is timed, three rounds at most. First it is checked that both see the same
pictures. Results go to endtoend.json in the folder --output.
"""
import tempfile
from pathlib import Path

import numpy as np

from bench import engines
from bench.cpu import compare, line
from bench.engines import LAYOUTS, torch, torch_learner, torch_twin
from bench.loader import training_step
from bench.record import Record
from zfcore import backend
from zfcore.cpu import CORES
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import CLASSES, Synthetic
from zfcore.data.transforms import random_crops, square
from zfcore.models.zfnet import tiny
from zfcore.ops.crop_flip import crop_flip

PICTURES, BATCH, SIZE, CROP = 512, 32, 110, 96
STORED = 160                      # pixels of the JPEGs
MEAN = np.full((3, SIZE, SIZE), 128, np.float32)


def main(rounds, folder):
    rounds = min(rounds, 3)
    record = Record(folder/"endtoend.json", {"engines": engines.versions(), "pytorch": engines.versions().get("torch"),
                                             "rounds": rounds, "batch_size": BATCH})
    print(f"{'milliseconds a picture':28}{'':>5}{'ours':>9}{'best':>9}   {'which':22}{'ratio':>6}  (spread)")
    with tempfile.TemporaryDirectory() as drawn_in:
        for name, dataset in (("tiny, drawn", lambda: Synthetic("train", PICTURES, SIZE)),
                              ("tiny, decoded", lambda: written(Path(drawn_in)))):
            row = record.has("cases", name=name)
            if row is None:
                runs = contestants(dataset())
                record.add("cases", row := {"name": name, "N": PICTURES, **compare(name, runs, PICTURES, rounds)})
            print(line(row), flush=True)
    record.finish()


def written(folder):
    """The pictures as JPEGs in a folder a class, as the data set that a user would open."""
    drawn = Synthetic("train", PICTURES, STORED)
    for i in range(PICTURES):
        for part in ("train", "val") if i < len(CLASSES) else ("train",):          # a set has both parts
            path = folder/part/CLASSES[drawn.labels[i]]/f"{i:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.picture(i).save(path, quality=90)
    return open_data(str(folder), SIZE)[0]


def contestants(dataset):
    """{"ours": run, ...}; each trains for an epoch of the data set."""
    loader, step = Pictures(dataset, SIZE, CROP, memory=0), training_step("tiny", backend.CPU, len(CLASSES), CROP, SIZE)

    def ours():
        for batch in loader.batches(BATCH, seed=0, epoch=0):
            step(*batch)
    runs = {"ours": ours}
    if torch is None:
        return runs
    check_that_both_see_the_same(loader)
    for name, compiled, workers in (("DataLoader, 0 workers", False, 0), (f"DataLoader, {CORES} workers", False, CORES),
                                    ("DataLoader, compiled", True, CORES)):
        learn = torch_learner(torch_twin(tiny(len(CLASSES), CROP).init(0, "he"), LAYOUTS[1], compiled))
        runs[name] = lambda learn=learn, workers=workers: torch_epoch(dataset, learn, workers)
    return runs


class Items:
    """The data set as PyTorch's DataLoader takes one: item i is (picture (3,CROP,CROP), label)."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        pixels = square(self.dataset.picture(i), SIZE, CROP, False, self.dataset.names[i])
        (top,), (left,), (flip,) = random_crops(np.array([i]), 0, 0, SIZE, CROP)
        rows, columns = slice(top, top + CROP), slice(left, left + CROP)
        x = pixels[rows, columns].transpose(2, 0, 1) - MEAN[:, rows, columns]
        return torch.from_numpy(np.ascontiguousarray(x[..., ::-1] if flip else x)), int(self.dataset.labels[i])


def torch_epoch(dataset, learn, workers):
    torch.set_num_threads(CORES)
    batches = torch.utils.data.DataLoader(Items(dataset), BATCH, shuffle=True, num_workers=workers)
    for images, labels in batches:
        learn(images.contiguous(memory_format=engines.memory_format(LAYOUTS[1])), labels)


def check_that_both_see_the_same(loader):
    """Raises AssertionError where PyTorch's item is another picture than ours."""
    pictures, labels, indices = next(loader.batches(4, seed=0, epoch=0))
    ours = crop_flip(pictures, MEAN, *random_crops(indices, 0, 0, SIZE, CROP), CROP, CROP)
    items = Items(loader.dataset)
    for n, i in enumerate(indices.tolist()):
        image, label = items[i]
        np.testing.assert_array_equal(image.numpy(), ours[..., n])
        assert label == labels[n]
