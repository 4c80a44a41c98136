"""A run of a small network that has learned nothing, with class folders of noise."""
import json
import sys

import numpy as np
import pytest
from PIL import Image

from zfcore import atlas, plots
from zfcore.checkpoint import Checkpoint, save
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.network import Network

CLASSES = ["<script>alert(1)</script>", 'quo"te', "katze \u732b"]
SIZE, CROP = 39, 33


def small(seed=0):
    """Unit 2 of conv2 never fires."""
    network = Network("small", (3, CROP, CROP), [
        Conv("conv1", 6, K=5, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2),
        Conv("conv2", 11, K=3, P=1), ReLU("relu2"), MaxPool("pool2", K=3, S=2),
        Flatten("flatten"), Linear("fc6", 9), ReLU("relu6"), Linear("fc8", 3)]).init(seed, "he")
    network["conv2"].parameters["b"][2] = -1e6
    return network


def write_run(folder, data, network=None, **state):
    """A run's folder with best.h5, which says that it was trained on the pictures at `data`."""
    network, folder = network or small(), folder
    folder.mkdir()
    history = {column: [2.0, 1.0] for column in ("train_loss", "val_loss")} | {"epoch": [1, 2], "lr": [0.1, 0.1],
                                                                               "train_error": [0.5, 0.25],
                                                                                   "val_error": [0.5, 0.125],
                                                                               "val_error_top5": [0, 0]}
    save(folder/"best.h5", Checkpoint("small", network.input_shape, network.table(), CLASSES, network.parameters(), epoch=2,
                                      history=history,
                                      mean_image=np.full((3, SIZE, SIZE), 120, np.float32),
                                      state={"data": str(data), "seed": 0, "init": "he", **state}))
    return folder


def write_pictures(root, per_class=8):
    rng = np.random.default_rng(1)
    for part, count in (("train", 1), ("val", per_class)):
        for k in range(len(CLASSES)):
            folder = root/part/f"{k}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (SIZE + 4, SIZE, 3), np.uint8)).save(folder/f"{i}.png")
    return root


def check_columns(folder):
    """The page finds a tile by its share of a sheet's width: each sheet that data name with its columns is so many tiles wide,
    however few it holds. Returns what data say, by name."""
    def sheets(value):
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from sheets(one)
        if isinstance(value, dict) and "columns" in value:
            files = [file for one in value.values() for file in (one if isinstance(one, list) else [one])]
            yield from ((value, file) for file in files if isinstance(file, str) and file.endswith(".webp"))

    found = values(folder)
    for value, file in sheets(found):
        width, height = Image.open(folder/file).size
        side = value.get("side", width/value["columns"])
        assert width == side*value["columns"] and height % side == 0, file
    return found


def told_curves(history, epoch):
    """The file that stands for learning curves."""
    return f"<svg><!-- {history} {epoch} --></svg>"


@pytest.fixture(scope="package", autouse=True)
def _undrawn():
    """Learning curves and maps of units take longer than the rest of a small network's atlas: the former are what they are
    drawn of, the latter two numbers of what describes a unit. tests/test_plots.py and test_portraits.py have both as they
    are."""
    def arranged(described, seed):
        return np.where(described.any(axis=1)[:, None], described[:, :2], np.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "learning_curves", told_curves)
        patch.setattr(plots, "save", lambda drawn, path, save=plots.save: path.write_text(drawn) if isinstance(drawn, str)
                      else save(drawn, path))
        patch.setattr(sys.modules[f"{atlas.__name__}.layer_page"], "arranged", arranged)
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("atlas")
    return write_run(root/"run", write_pictures(root/"pictures"))


def values(folder):
    """{name: value} of the data of an atlas, read as a page reads them."""
    found = {}
    for path in sorted((folder/"data").glob("*.js")):
        text = path.read_bytes().decode("ascii").strip()
        name, value = json.loads(f"[{text.removeprefix('atlas.receive(').removesuffix(');')}]")
        assert name == path.stem
        found[name] = value
    return found
