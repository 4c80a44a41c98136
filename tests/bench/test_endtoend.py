"""An epoch from the pictures on: the first one from an empty cache in every round, the later ones from memory."""
import json
import os

import numpy as np
import pytest

from bench import endtoend
from zfcore.data import synthetic
from zfcore.data.transforms import random_crops
from zfcore.ops.crop_flip import crop_flip

TORCH = endtoend.torch


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(endtoend, "PICTURES", 16)
    monkeypatch.setattr(endtoend, "BATCH", 8)
    monkeypatch.setattr(endtoend, "torch", None)


@pytest.fixture
def drawn(monkeypatch):
    """The scenes that are drawn in this process, one entry each."""
    found, render = [], synthetic.render
    monkeypatch.setattr(synthetic, "render", lambda *args: found.append(args) or render(*args))
    return found


def test_a_first_epoch_finds_nothing_and_leaves_nothing(tmp_path, drawn, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    run = endtoend.contestants(endtoend.opener("drawn", tmp_path), "first epoch")["ours"]
    for rounds in (1, 2):
        run()
        assert len(drawn) == 16*rounds                                    # too few for helpers
    assert not (tmp_path/"cache").exists() and os.environ["ZFCORE_CACHE"] == str(tmp_path/"cache")


def test_later_epochs_draw_nothing(tmp_path, drawn):
    run = endtoend.contestants(endtoend.opener("drawn", tmp_path), "later epochs")["ours"]
    run()
    run()
    assert len(drawn) == 16


def test_the_jpegs_are_the_drawn_pictures(tmp_path):
    data = endtoend.opener("decoded", tmp_path)(keep=True)
    right = synthetic.Synthetic("train", 16, endtoend.STORED)
    assert len(data) == 16 and sorted(data.classes) == sorted(right.classes)
    for i in range(16):
        k = int(data.names[i].rpartition("/")[2].removesuffix(".jpg"))
        assert data.classes[data.labels[i]] == right.classes[right.labels[k]]
        apart = np.asarray(data.picture(i), float) - np.asarray(right.picture(k), float)
        assert np.abs(apart).mean() < 6


@pytest.mark.skipif(TORCH is None, reason="PyTorch is not installed")
def test_pytorch_draws_in_every_epoch_but_where_the_pictures_lie_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(endtoend, "torch", TORCH)
    monkeypatch.setattr(endtoend, "torch_twin", lambda network, layout, compiled: TORCH.nn.Sequential(TORCH.nn.Flatten(),
                                                                                                     TORCH.nn.Linear(3*96*96, 10)))
    opened = []

    class Counted(synthetic.Synthetic):
        def picture(self, i):
            with open(tmp_path/"drawn", "a") as file:                     # in processes of DataLoader's
                file.write(".")
            return super().picture(i)

    def drawn(keep):
        opened.append(keep)
        return Counted("train", 16, endtoend.SIZE)
    for epoch, each in ((endtoend.FIRST, 16), (endtoend.LATER, 16), (endtoend.KEPT, 0)):
        runs = endtoend.contestants(drawn, epoch)
        for _ in range(2):
            before = (tmp_path/"drawn").stat().st_size
            runs["DataLoader, eager"]()
            assert (tmp_path/"drawn").stat().st_size - before == each


@pytest.mark.skipif(TORCH is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("workers, in_memory", [(0, False), (0, True), (2, False)])
def test_what_enters_pytorchs_network_is_bytes_until_it_is_a_batch_and_the_pictures_that_ours_sees(workers, in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(endtoend, "torch", TORCH)
    loader = endtoend.Pictures(endtoend.opener("drawn", tmp_path)(keep=False), endtoend.SIZE, endtoend.CROP)
    ours = {}
    for pictures, labels, indices in loader.batches(8, seed=0, epoch=0):
        crops = random_crops(indices, 0, 0, endtoend.SIZE, endtoend.CROP)
        assert {True, False} == set(crops[2].tolist())
        x = crop_flip(pictures, endtoend.MEAN, *crops, endtoend.CROP, endtoend.CROP)
        ours |= {i: (x[..., n], label) for n, (i, label) in enumerate(zip(indices.tolist(), labels.tolist()))}
    batches = TORCH.utils.data.DataLoader(endtoend.Items(loader.dataset, in_memory), 8, num_workers=workers)
    for k, (images, labels) in enumerate(batches):
        entering = endtoend.entering(images)
        assert images.dtype == TORCH.uint8 and entering.is_contiguous(memory_format=TORCH.channels_last)
        for n, (image, label) in enumerate(zip(entering.numpy(), labels.tolist())):
            np.testing.assert_array_equal(image, ours[8*k + n][0])
            assert label == ours[8*k + n][1]
    assert k == 1
    endtoend.check_that_both_see_the_same(loader)
    monkeypatch.setattr(endtoend, "LEVEL", 127)
    with pytest.raises(AssertionError):
        endtoend.check_that_both_see_the_same(loader)


def test_every_row_is_measured_and_written(tmp_path, capsys):
    endtoend.main(1, tmp_path)
    rows = json.loads((tmp_path/"endtoend.json").read_text())["cases"]
    assert [row["name"] for row in rows] == ["tiny, drawn, first epoch", "tiny, drawn, later epochs",
                                             "tiny, decoded, first epoch", "tiny, decoded, later epochs",
                                             "tiny, drawn, in memory"]
    assert all(row["N"] == 8 and row["milliseconds"]["ours"] > 0 for row in rows)
    out = capsys.readouterr().out
    assert all(row["name"] in out for row in rows)
