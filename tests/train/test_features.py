"""Features: the layers' own outputs, computed once, kept under a key of all that they depend on."""
import os

import numpy as np
import pytest
from PIL import Image

from train import features
from train.features import features_of, key_of
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, save
from zfcore.data.folders import open_folders
from zfcore.data.loader import Pictures
from zfcore.data.transforms import CorruptImage, centre_crops
from zfcore.models import build
from zfcore.ops.crop_flip import crop_flip
from zfcore.trained import Trained

LAYERS = ["norm1", "pool5", "relu7"]
MEAN = np.full((3, 37, 37), 100, np.float32)


@pytest.fixture
def dataset(pictures):
    return open_folders(str(pictures), 0, 37)[0]


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(features, "PICTURES", 7)


def prepared(dataset):
    return Pictures(dataset, 37, 32, upscale=True, workers=1)


def made():
    network = build("tiny", 3, 32, 0.5)
    network.init(3, "he")
    return network


def test_features_are_the_layers_outputs_of_the_centre_crops_a_row_a_picture(dataset, tmp_path):
    network, pictures = made(), prepared(dataset)
    found = features_of(Trained(network, MEAN), pictures, LAYERS, tmp_path/"f")
    squares = np.stack([pictures.picture(i) for i in range(30)])
    x = crop_flip(squares, MEAN, *centre_crops(30, 37, 32), 32, 32)
    for layer, expected in network.activations(x, LAYERS).items():
        rows = np.moveaxis(expected, -1, 0).reshape(30, -1)
        assert found[layer].shape == rows.shape and np.array_equal(found[layer].pictures, np.arange(30))
        assert np.allclose(found[layer][:, :], rows, atol=1e-4) and found[layer][:, :].dtype == np.float32
        assert np.allclose(found[layer][[3, 29], 1:5], rows[[3, 29], 1:5], atol=1e-4)
    assert found["relu7"].seconds > 0


def test_what_is_there_is_not_computed_again_and_a_killed_pass_goes_on_with_the_same_bits(dataset, tmp_path, monkeypatch):
    network, pictures = made(), prepared(dataset)
    whole = features_of(Trained(network, MEAN), pictures, LAYERS, tmp_path/"whole")
    compute, calls = features.layer_outputs, []

    def counted(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(features, "layer_outputs", counted)
    with pytest.raises(KeyboardInterrupt):
        features_of(Trained(network, MEAN), pictures, LAYERS, tmp_path/"f")
    found = features_of(Trained(network, MEAN), pictures, LAYERS, tmp_path/"f")
    assert calls == [7, 7, 7, 7, 7, 2]                     # two files, the killed one, and the three that were left
    features_of(Trained(network, MEAN), pictures, ["relu7"], tmp_path/"f")
    assert len(calls) == 6
    for layer in LAYERS:
        assert np.array_equal(found[layer][:, :], whole[layer][:, :])


def test_another_layer_is_computed_when_it_is_asked_for(dataset, tmp_path):
    network, pictures = made(), prepared(dataset)
    features_of(Trained(network, MEAN), pictures, ["relu7"], tmp_path/"f")
    found = features_of(Trained(network, MEAN), pictures, ["relu7", "relu3"], tmp_path/"f")
    alone = features_of(Trained(network, MEAN), pictures, ["relu3"], tmp_path/"g")
    assert np.array_equal(found["relu3"][:, :], alone["relu3"][:, :])


def test_the_bar_counts_every_picture_once_also_those_found(dataset, tmp_path):
    class Bar:
        n = 0

        def update(self, n):
            self.n += n

    for _ in range(2):
        bar = Bar()
        features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"f", bar)
        assert bar.n == 30


def test_damaged_pictures_have_no_row(dataset, tmp_path, monkeypatch):
    read = dataset.picture
    monkeypatch.setattr("zfcore.data.loader.MOST_DAMAGED", 0.9)

    def picture(i):
        if i in (2, *range(7, 14)):
            raise CorruptImage(dataset.names[i], "torn")
        return read(i)

    monkeypatch.setattr(dataset, "picture", picture)
    found = features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"f")["relu7"]
    left = [i for i in range(30) if i not in (2, *range(7, 14))]
    assert found.pictures.tolist() == left and found[:, :].shape == (22, found.shape[1])


@pytest.mark.parametrize("spoil", ["cut", "flipped", "emptied"])
def test_a_damaged_file_is_named_in_a_sentence(dataset, tmp_path, spoil):
    features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"f")
    path = sorted((tmp_path/"f").iterdir())[1]
    data = bytearray(path.read_bytes())
    if spoil == "flipped":
        at = data.find(np.float32(0).tobytes()*8, len(data)//2)
        data[at] ^= 255
    path.write_bytes({"cut": data[:-100], "flipped": data, "emptied": b""}[spoil])
    with pytest.raises(Expected, match=f"{path.name}: expected a whole file of features, .*; remove it") as caught:
        features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"f")["relu7"][:, :]
    assert "\n" not in str(caught.value)
    path.unlink()
    assert features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"f")["relu7"].shape[0] == 30


def test_a_folder_that_cannot_be_made_is_a_sentence(dataset, tmp_path):
    (tmp_path/"file").write_text("")
    with pytest.raises(Expected, match="features: expected a place where a folder can be made"):
        features_of(Trained(made(), MEAN), prepared(dataset), ["relu7"], tmp_path/"file"/"f")


# ------------------------------------------------------------------------------------------------------------- the key
@pytest.fixture
def file(tmp_path):
    return checkpoint(tmp_path/"best.h5", made())


def checkpoint(path, network):
    save(path, Checkpoint(network.name, network.input_shape, network.table(), ["a", "b", "c"], network.parameters(),
                          mean_image=MEAN))
    return path


def test_the_key_stays_while_nothing_changes(pictures, dataset, file):
    again = open_folders(str(pictures), 0, 37)[0]
    assert key_of(file, prepared(dataset)) == key_of(file, prepared(again)) and len(key_of(file, prepared(again))) == 16


def weights(pictures, file):
    network = made()
    network["fc8"].parameters["b"][0] += 1e-6
    checkpoint(file, network)


def one_picture(pictures, file):
    path = pictures/"train/jade/03.png"
    Image.new("RGB", (41, 37)).save(path)
    os.utime(path, (1, 1))


def a_picture_more(pictures, file):
    Image.new("RGB", (41, 37)).save(pictures/"train/jade/99.png")


def a_picture_less(pictures, file):
    (pictures/"train/jade/03.png").unlink()


def test_the_key_of_the_untrained_network_is_another_one_for_each_start(dataset, file):
    starts = (None, (0, "he"), (1, "he"), (0, "gaussian"))
    assert len({key_of(file, prepared(dataset), start) for start in starts}) == 4
    assert key_of(file, prepared(dataset), None) == key_of(file, prepared(dataset))


@pytest.mark.parametrize("change", [weights, one_picture, a_picture_more, a_picture_less], ids=lambda change: change.__name__)
def test_the_key_changes_with_what_features_depend_on(pictures, dataset, file, change):
    before = key_of(file, prepared(dataset))
    change(pictures, file)
    assert key_of(file, prepared(open_folders(str(pictures), 0, 37)[0])) != before


def test_the_key_changes_with_how_pictures_are_prepared(dataset, file):
    keys = {key_of(file, Pictures(dataset, 37, crop, upscale, 1)) for crop in (32, 33) for upscale in (True, False)}
    assert len(keys) == 4
