"""Networks of Keras, made by Keras here: each layer beside Keras itself; what is refused; files that are spoilt."""
import json
import os
import zipfile
from importlib.util import find_spec

import h5py
import numpy as np
import pytest

import zfcore
from zfcore.interchange import import_network
from zfcore.interchange.keras import read

if not find_spec("keras"):
    pytest.skip("the package keras, which makes these networks, is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def keras():
    if find_spec("torch"):
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    return keras


def drawn(keras, layers, shape=(13, 13, 3), functional=False):
    """A model of `layers`, its weights drawn: variances above 0."""
    inputs = keras.Input(shape, name="pictures")
    if functional:
        y = inputs
        for layer in layers:
            y = layer(y)
        model = keras.Model(inputs, y)
    else:
        model = keras.Sequential([inputs, *layers])
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else rng.standard_normal(w.shape)*np.sqrt(2/np.prod(w.shape[:-1]))
                       for w in model.get_weights()])
    return model


def networks(keras):
    L = keras.layers
    return {
        "same on odd sizes": [L.Rescaling(1/127.5, offset=-1), L.Conv2D(5, 3, strides=2, padding="same", activation="relu"),
                              L.MaxPooling2D(3, strides=2, padding="same"), L.Conv2D(4, 2, padding="same", use_bias=False), L.ReLU(),
                              L.Flatten(), L.Dropout(0.3), L.Dense(6, activation="relu"), L.Dense(5, activation="softmax")],
        "normalised": [L.Conv2D(6, 3), L.BatchNormalization(), L.Activation("relu"), L.BatchNormalization(scale=False), L.ZeroPadding2D(((1, 2), (1, 2))),
                       L.Conv2D(6, 4, groups=2), L.BatchNormalization(center=False, epsilon=0.1), L.AveragePooling2D(2), L.Flatten(), L.Dense(3), L.Softmax()],
        "to one pixel": [L.Conv2D(4, 3, dilation_rate=2, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(4)],
        "maxima": [L.Conv2D(4, (3, 1), padding="same"), L.ReLU(), L.GlobalMaxPooling2D(), L.Dense(2)]}


@pytest.mark.parametrize("functional, suffix", [(False, ".h5"), (True, ".keras"), (True, ".h5")])
@pytest.mark.parametrize("name", ["same on odd sizes", "normalised", "to one pixel", "maxima"])
def test_every_layer_is_as_keras_has_it(keras, name, functional, suffix, tmp_path):
    path = tmp_path/f"net{suffix}"
    drawn(keras, networks(keras)[name], functional=functional).save(path)
    found = import_network(path)
    assert len(found.differences) >= 2 and max(one.relative for one in found.differences) < 1e-5
    assert found.foreign.engine_name.startswith("Keras ")


def test_a_grey_network_and_one_with_channels_first_are_read(keras, tmp_path):
    L = keras.layers
    drawn(keras, [L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)], (9, 9, 1)).save(tmp_path/"grey.keras")
    assert import_network(tmp_path/"grey.keras").seen.channels == "grey"
    first = "channels_first"
    drawn(keras, [L.Conv2D(4, 3, data_format=first), L.MaxPooling2D(2, data_format=first), L.Flatten(data_format=first), L.Dense(2)],
          (3, 11, 11)).save(tmp_path/"first.h5")
    foreign = read(tmp_path/"first.h5")
    assert foreign.input_shape == (3, 11, 11) and foreign.nodes[2].order == "chw"


def branching(keras):
    inputs = keras.Input((9, 9, 3))
    y = keras.layers.Conv2D(3, 1, name="one")(inputs)
    return keras.Model(inputs, keras.layers.Add(name="sum")([inputs, y]))


@pytest.mark.parametrize("make, sentence", [
    (lambda L: [L.Conv2D(3, 3, activation="tanh", name="odd")], r"odd \(Conv2D\): expected one of the activations"),
    (lambda L: [L.DepthwiseConv2D(3, name="odd")], r"odd \(DepthwiseConv2D\): expected a layer that zfcore has"),
    (lambda L: [L.ReLU(max_value=6, name="odd")], r"odd \(ReLU\): expected max\(x, 0\)"),
    (lambda L: [L.BatchNormalization(axis=1, name="odd")], "odd .*axis 1")])
def test_what_zfcore_has_no_layer_for_is_refused_by_name(keras, tmp_path, make, sentence):
    drawn(keras, [*make(keras.layers), keras.layers.Flatten(), keras.layers.Dense(2)]).save(tmp_path/"net.keras")
    with pytest.raises(zfcore.Expected, match=sentence):
        read(tmp_path/"net.keras")


def test_branches_checkpoints_and_weights_alone_are_refused(keras, tmp_path):
    branching(keras).save(tmp_path/"two.h5")
    with pytest.raises(zfcore.Expected, match="sum"):
        read(tmp_path/"two.h5")
    with pytest.raises(zfcore.Expected, match="a checkpoint of zfcore's"):
        read(zfcore.networks.FOLDER/"drawn.h5")
    drawn(keras, networks(keras)["maxima"]).save_weights(tmp_path/"a.weights.h5")
    with pytest.raises(zfcore.Expected, match="weights alone"):
        read(tmp_path/"a.weights.h5")


# ----------------------------------------------------------------------------------------------------------- spoilt files
@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    folder, L = tmp_path_factory.mktemp("saved"), keras.layers
    model = drawn(keras, [L.Conv2D(3, 3, name="conv", activation="relu"), L.Flatten(), L.Dense(2, name="scores")], (7, 7, 3))
    for suffix in (".h5", ".keras"):
        model.save(folder/f"net{suffix}")
    return folder


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_whatever_is_cut_or_flipped_is_read_or_refused_in_one_sentence(saved, tmp_path, suffix):
    data, rng = (saved/f"net{suffix}").read_bytes(), np.random.default_rng(2)
    for k in range(40):
        spoilt = bytearray(data[:rng.integers(len(data))] if k % 2 else data)
        for at in rng.integers(0, len(spoilt), 3) if len(spoilt) else ():
            spoilt[at] ^= 1 << rng.integers(8)
        (tmp_path/f"net{suffix}").write_bytes(spoilt)
        try:
            read(tmp_path/f"net{suffix}")
        except zfcore.Expected:
            pass


@pytest.mark.parametrize("change, sentence", [
    (lambda config: "["*100_000, "model_config"), (lambda config: "{}", "Sequential or Functional"),
    (lambda config: config.replace('"conv"', '"other"'), "kernel"), (lambda config: config.replace("[3, 3]", "[3, 5]"), "kernels of"),
    (lambda config: config.replace("[null, 7, 7, 3]", "[null, 7, 100000000, 3]"), "fixed sizes"),
    (lambda config: json.dumps({"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"name": "evil"}}]}}), "of a fixed size")])
def test_a_configuration_that_lies_is_one_sentence(saved, tmp_path, change, sentence):
    (tmp_path/"net.h5").write_bytes((saved/"net.h5").read_bytes())
    with h5py.File(tmp_path/"net.h5", "r+") as file:
        config = file.attrs["model_config"]
        assert change(config) != config
        del file.attrs["model_config"]
        file.attrs.create("model_config", change(config))
    with pytest.raises(zfcore.Expected, match=sentence):
        read(tmp_path/"net.h5")


def test_a_zip_that_unfolds_is_refused_and_a_link_out_of_the_file_is_not_followed(saved, tmp_path):
    with zipfile.ZipFile(tmp_path/"net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}" + b" "*10**7)
        archive.writestr("model.weights.h5", b"\0"*10**7)
    with pytest.raises(zfcore.Expected, match="neither compressed"):
        read(tmp_path/"net.keras")
    (tmp_path/"net.h5").write_bytes((saved/"net.h5").read_bytes())
    with h5py.File(tmp_path/"net.h5", "r+") as file:
        del file["model_weights/conv"]
        file["model_weights/conv"] = h5py.ExternalLink(str(saved/"net.h5"), "model_weights/conv")
    with pytest.raises(zfcore.Expected, match="a link to somewhere else"):
        read(tmp_path/"net.h5")
