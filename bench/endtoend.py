"""python -m bench cpu --parts endtoend: `tiny` trained from its pictures on, beside PyTorch with its DataLoader.

    drawn      pictures of the embedded set, which are drawn when they are asked for
    decoded    the same pictures as JPEGs of 160 pixels, decoded and scaled

Ours are the loader and the step of `python -m train`, with what its user has by default:

    first epoch      nothing is there: the cache is empty in each round. Helpers draw, their start and their end are in the
                     time, and what is drawn is written into the cache
    later epochs     the pictures lie in memory, as those of a set that fits into 1 GiB do from the second epoch on
    in memory        the same, and what PyTorch would draw lies in memory too, as a user may arrange it there

PyTorch has the same network and the same pictures, drawn or decoded and scaled by the same functions, in as many processes of
DataLoader as there are cores, which stay from epoch to epoch in the rows of later ones, eager or with torch.compile; where all
lies in memory, also without such processes. They cut and mirror bytes, which are what goes from process to process and lie as
channels last wants them; the mean is subtracted from a batch. The best counts. By itself it keeps nothing of what an epoch has
made, so its later epochs draw and decode again. An epoch of PICTURES is timed, three rounds at most, after one that is not
counted (compilation). First it is checked that both see the same pictures. Results go to endtoend.json in the folder --output.
"""
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

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

PICTURES, BATCH, SIZE, CROP = 2048, 32, 110, 96
STORED = 160                      # pixels of the JPEGs
LEVEL = 128                       # of grey, the mean of all pixels
MEAN = np.full((3, SIZE, SIZE), LEVEL, np.float32)
FIRST, LATER, KEPT = "first epoch", "later epochs", "in memory"
ROWS = ("drawn", FIRST), ("drawn", LATER), ("decoded", FIRST), ("decoded", LATER), ("drawn", KEPT)


def main(rounds, folder):
    rounds = min(rounds, 3)
    record = Record(folder/"endtoend.json", {"engines": engines.versions(), "pytorch": engines.versions().get("torch"),
                                             "rounds": rounds, "pictures": PICTURES})
    print(f"{'milliseconds a picture':28}{'':>5}{'ours':>9}{'best':>9}   {'which':22}{'ratio':>6}  (spread), within a round")
    with tempfile.TemporaryDirectory() as jpegs:
        for kind, epoch in ROWS:
            name = f"tiny, {kind}, {epoch}"
            row = record.has("cases", name=name)
            if row is None:
                runs = contestants(opener(kind, Path(jpegs)), epoch)
                record.add("cases", row := {"name": name, "N": BATCH, **compare(name, runs, PICTURES, rounds)})
            print(line(row), flush=True)
    record.finish()


def opener(kind, folder):
    """A function that opens the data set; with `keep` as `python -m train` does, of whose pictures all will be asked for."""
    if kind == "drawn":
        return drawn
    if not any(folder.iterdir()):
        write_jpegs(folder)
    return lambda keep: open_data(str(folder), SIZE)[0]


def drawn(keep):
    data = Synthetic("train", PICTURES, SIZE, keep=keep)
    data.expect()
    return data


def write_jpegs(folder):
    """The pictures as JPEGs in a folder a class, as the data set that a user would open."""
    drawn = Synthetic("train", PICTURES, STORED)
    for i in range(PICTURES):
        for part in ("train", "val") if i < len(CLASSES) else ("train",):          # a set has both parts
            path = folder/part/CLASSES[drawn.labels[i]]/f"{i:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.picture(i).save(path, quality=90)


def contestants(opened, epoch):
    """{"ours": run, ...}; each trains for an epoch of the data set."""
    step = training_step("tiny", backend.CPU, len(CLASSES), CROP, SIZE)
    loader = Pictures(opened(keep=False), SIZE, CROP)

    def first_epoch():
        with empty_cache():
            train(Pictures(opened(keep=True), SIZE, CROP))

    def train(pictures):
        for batch in pictures.batches(BATCH, seed=0, epoch=0):
            step(*batch)

    runs = {"ours": first_epoch if epoch == FIRST else lambda: train(loader)}
    if torch is None:
        return runs
    check_that_both_see_the_same(loader)
    items = Items(loader.dataset, in_memory=epoch == KEPT)
    for name, compiled, workers in (("DataLoader, eager", False, CORES), ("DataLoader, compiled", True, CORES),
                                    *([("compiled, one process", True, 0)] if epoch == KEPT else [])):
        learn = torch_learner(torch_twin(tiny(len(CLASSES), CROP).init(0, "he"), LAYOUTS[1], compiled))
        batches = torch.utils.data.DataLoader(items, BATCH, shuffle=True, num_workers=workers,
                                              persistent_workers=bool(workers) and epoch != FIRST)
        runs[name] = lambda learn=learn, batches=batches: torch_epoch(batches, learn)
    return runs


@contextmanager
def empty_cache():
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ZFCORE_CACHE=folder):
        yield


class Items:
    """The data set as PyTorch's DataLoader takes one: item i is (the crop of picture i (CROP,CROP,3) uint8, label). Crops are
    drawn when it is made, as those of every epoch here are alike; `in_memory`, pictures are too."""

    def __init__(self, dataset, in_memory=False):
        self.dataset, self.crops = dataset, list(zip(*random_crops(np.arange(len(dataset)), 0, 0, SIZE, CROP)))
        if in_memory:
            self.pixels = list(map(self.pixels, range(len(dataset)))).__getitem__

    def __len__(self):
        return len(self.dataset)

    def pixels(self, i):
        return square(self.dataset.picture(i), SIZE, CROP, False, self.dataset.names[i])

    def __getitem__(self, i):
        top, left, flip = self.crops[i]
        crop = self.pixels(i)[top:top + CROP, left:left + CROP]
        return torch.from_numpy(np.ascontiguousarray(crop[:, ::-1] if flip else crop)), int(self.dataset.labels[i])


def entering(images):
    """A batch of items (N,CROP,CROP,3) uint8 as it enters the network: (N,3,CROP,CROP), channels last, minus the mean."""
    return images.permute(0, 3, 1, 2).float().sub_(LEVEL)


def torch_epoch(batches, learn):
    torch.set_num_threads(CORES)
    for images, labels in batches:
        learn(entering(images), labels)


def check_that_both_see_the_same(loader):
    """Raises AssertionError where PyTorch's item is another picture than ours."""
    pictures, labels, indices = next(loader.batches(4, seed=0, epoch=0))
    ours = crop_flip(pictures, MEAN, *random_crops(indices, 0, 0, SIZE, CROP), CROP, CROP)
    theirs, of_theirs = zip(*map(Items(loader.dataset).__getitem__, indices.tolist()))
    np.testing.assert_array_equal(entering(torch.stack(theirs)).numpy(), ours.transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(of_theirs, labels)
