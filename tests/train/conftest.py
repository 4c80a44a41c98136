"""A set of class folders small enough to train on in a second: coloured noise, three classes told apart by their colour."""
import io
import os
import shutil
import signal
from functools import cache

import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from zfcore.training import Training

DRAW = Training.draw
COLOURS = {"amber": (230, 160, 30), "jade": (40, 170, 110), "plum": (120, 50, 130)}


@cache
def files(per_class, size):
    """[(part/class/name, bytes)] of the set, which to draw and to write as PNG takes longer than an epoch of training."""
    rng, found = np.random.default_rng(0), []
    for part, count in zip(("train", "val"), per_class):
        for name, colour in COLOURS.items():
            for k in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (size[1], size[0], 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(file := io.BytesIO(), "png")
                found.append((f"{part}/{name}/{k:02}.png", file.getvalue()))
    return found


def write_set(root, per_class=(10, 4), size=(41, 37)):
    for part in ("train", "val"):
        for name in COLOURS:
            (root/part/name).mkdir(parents=True)
    for name, content in files(tuple(per_class), tuple(size)):
        (root/name).write_bytes(content)
    return root


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    return write_set(tmp_path/"pictures")


def short(pictures):
    """What makes a run short, as it would be typed."""
    return ["--data", str(pictures), "--preset", "tiny", "--image-size", "32", "--batch-size", "8", "--epochs", "2",
            "--lr", "0.003", "--weight-decay", "0.0005", "--keep-prob", "0.7", "--patience", "20", "--workers", "1", "--device",
            "cpu"]


@pytest.fixture(scope="session", autouse=True)
def _undrawn():
    """Nor does a run draw that the tests of a file share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "draw", lambda training: None)
        yield


@pytest.fixture(autouse=True)
def drawn_where_marked(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("figures"):
            patch.setattr(Training, "draw", DRAW)
        yield


@pytest.fixture
def options(pictures):
    return short(pictures)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made(epochs, folder): a copy of an uninterrupted run of so many epochs, which is trained once. Its pictures are no
    test's own, and nobody changes them."""
    root, runs = tmp_path_factory.mktemp("made"), {}

    def copied(epochs, folder):
        if epochs not in runs:
            pictures = root/"pictures" if runs else write_set(root/"pictures")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ZFCORE_CACHE", str(root/"cache"))
                main([*short(pictures), "--epochs", str(epochs), "--output", str(root/str(epochs))])
            runs[epochs] = root/str(epochs)
        return shutil.copytree(runs[epochs], folder)

    return copied


@pytest.fixture
def ctrl_c_after(monkeypatch):
    """ctrl_c_after(count): Ctrl-C is pressed after so many steps of training."""
    def press(count):
        steps = []

        def one_step(self, *batch, step=Training.one_step):
            step(self, *batch)
            steps.append(self.step)
            if len(steps) == count:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Training, "one_step", one_step)
    return press
