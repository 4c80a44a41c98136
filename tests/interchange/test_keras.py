"""Networks of Keras, made by Keras here: each layer beside Keras itself; what is refused; files that are spoilt."""
import io
import json
import os
import zipfile
from importlib.util import find_spec

import h5py
import numpy as np
import pytest

import zfcore
from zfcore.backend import to_host
from zfcore.interchange import import_network
from zfcore.interchange.certificate import check_all, compare
from zfcore.interchange.keras import ONLY_IN_TRAINING, OWN, read
from zfcore.interchange.lower import as_it_is, to_network
from zfcore.interchange.preprocessing import seen_by

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
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1
                       else rng.standard_normal(w.shape)*np.sqrt(2/np.prod(w.shape[:-1]))
                       for w in model.get_weights()])
    return model


def networks(keras):
    L = keras.layers
    return {
        "same on odd sizes": [L.Rescaling(1/127.5, offset=-1), L.Conv2D(5, 3, strides=2, padding="same", activation="relu"),
                              L.MaxPooling2D(3, strides=2, padding="same"), L.Conv2D(4, 2, padding="same", use_bias=False),
                              L.ReLU(),
                              L.Flatten(), L.Dropout(0.3), L.Dense(6, activation="relu"), L.Dense(5, activation="softmax")],
        "normalised": [L.Conv2D(6, 3), L.BatchNormalization(), L.Activation("relu"), L.BatchNormalization(scale=False),
                       L.ZeroPadding2D(((1, 2), (1, 2))),
                       L.Conv2D(6, 4, groups=2), L.BatchNormalization(center=False, epsilon=0.1), L.AveragePooling2D(2),
                       L.Flatten(), L.Dense(3), L.Softmax()],
        "a normalisation of units": [L.Cropping2D(((1, 0), (2, 1))), L.Conv2D(4, 3), L.Flatten(), L.BatchNormalization(),
                                     L.ReLU(), L.Rescaling(2), L.Dense(3)],
        "units of each pixel": [L.Dense(5, activation="relu"), L.AveragePooling2D(2, padding="same"), L.Dense(4),
                                L.Reshape((-1,)), L.Dense(3)],
        "windows that lie unevenly": [L.Conv2D(4, 3), L.MaxPooling2D(4, strides=1, padding="same"),
                                      L.MaxPooling2D(4, strides=3, padding="same"),
                                      L.AveragePooling2D((2, 3), strides=1), L.GlobalMaxPooling2D(), L.Dense(2)],
        "to one pixel": [L.Conv2D(4, 3, dilation_rate=2, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(4)],
        "maxima": [L.Conv2D(4, (3, 1), padding="same"), L.ReLU(), L.GlobalMaxPooling2D(), L.Dense(2)]}


@pytest.mark.parametrize("functional, suffix", [(False, ".h5"), (True, ".keras"), (True, ".h5")])
@pytest.mark.parametrize("name", ["same on odd sizes", "normalised", "to one pixel", "maxima", "a normalisation of units",
                                  "units of each pixel", "windows that lie unevenly"])
def test_every_layer_is_as_keras_has_it(keras, name, functional, suffix, tmp_path):
    path = tmp_path/f"net{suffix}"
    drawn(keras, networks(keras)[name], functional=functional).save(path)
    found = import_network(path)
    assert len(found.differences) >= 2 and max(one.relative for one in found.differences) < 1e-5
    assert found.foreign.engine_name.startswith("Keras ")


def test_layers_that_work_in_training_alone_are_left_out_and_told(keras, tmp_path):
    L = keras.layers
    given = {"RandomFlip": L.RandomFlip(), "RandomRotation": L.RandomRotation(0.2), "RandomTranslation": L.RandomTranslation(0.2, 0.2),
             "RandomZoom": L.RandomZoom(0.3), "RandomContrast": L.RandomContrast(0.4), "RandomBrightness": L.RandomBrightness(0.4),
             "GaussianNoise": L.GaussianNoise(1.0), "GaussianDropout": L.GaussianDropout(0.5)}
    assert tuple(given) == ONLY_IN_TRAINING
    model = drawn(keras, [*list(given.values())[:6], L.Rescaling(1/255), L.Conv2D(4, 3, activation="relu"), *list(given.values())[6:],
                          L.Flatten(), L.Dense(3)])
    model.save(tmp_path/"net.keras")
    found = import_network(tmp_path/"net.keras")
    assert max(one.relative for one in found.differences) < 1e-5
    assert [kind for kind in given for note in found.notes if f": {kind} does nothing but in training" in note] == [*given]
    pixels = np.random.default_rng(3).integers(0, 256, (4, 13, 13, 3), np.uint8)
    y, _ = found.lowered.network.forward((pixels.transpose(3, 1, 2, 0) - found.lowered.mean[..., None]).astype(np.float32))
    theirs = np.asarray(keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False)))
    np.testing.assert_allclose(y.T, theirs, atol=1e-4*abs(theirs).max())


@pytest.mark.parametrize("scaling", [{}, {"scale": 1/127.5, "offset": -1}])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_layers_of_training_are_left_out_by_one_line_each_of_the_model_or_of_a_sequential_in_it(keras, scaling, nested, suffix, tmp_path):
    L = keras.layers
    flips = [L.RandomFlip(name="flip"), L.RandomZoom(0.1, name="zoom")]
    model = drawn(keras, [*([keras.Sequential(flips, name="augment")] if nested else flips), *([L.Rescaling(**scaling)] if scaling else []),
                          L.Conv2D(4, 3), L.ReLU(), L.MaxPooling2D(2), L.GaussianNoise(0.1, name="noise"), L.Flatten(), L.Dense(3)])
    model.save(tmp_path/f"net{suffix}")
    found = import_network(tmp_path/f"net{suffix}")
    for name in ("flip", "zoom", "noise"):
        assert [note.partition(": ")[2] for note in found.notes if name in note] == [
            f"Random{name.title()} does nothing but in training, and is left out" if name != "noise" else
            "GaussianNoise does nothing but in training, and is left out"]
    assert not any("augment" in note for note in found.notes)
    assert any("nothing subtracted" in note for note in found.notes) == (not scaling)
    assert found.differences and max(one.relative for one in found.differences) < 1e-5
    assert [type(layer).__name__ for layer in found.lowered.network.layers] == ["Conv", "ReLU", "MaxPool", "Flatten", "Linear"]
    assert found.lowered.seen.in_words().startswith(f"RGB, pixels 0 to 255 less "
                                                    f"{'127.5, 127.5, 127.5 times 0.007843' if scaling else 'nothing'};")


def test_a_model_within_the_model_of_other_layers_is_refused_with_what_to_do(keras, tmp_path):
    L = keras.layers
    inner = keras.Input((13, 13, 3))
    for within, other in ((keras.Sequential([L.RandomFlip(), L.Rescaling(2.0, name="twice")], name="within"), r"one with twice \(Rescaling\)"),
                          (keras.Model(inner, L.RandomFlip()(inner), name="within"), "Functional")):
        drawn(keras, [within, L.Conv2D(2, 3)]).save(tmp_path/"net.keras")
        with pytest.raises(zfcore.Expected, match=f"within .*: expected within the model no other.*got {other}; put its layers into the model"):
            read(tmp_path/"net.keras")


def test_a_softmax_that_keras_fuses_is_compared_and_padding_before_the_first_weights_is_not(keras, tmp_path):
    L = keras.layers
    drawn(keras, [L.Rescaling(1/255), L.ZeroPadding2D(1), L.Conv2D(3, 3), L.Flatten(),
                  L.Dense(4, activation="softmax")]).save(tmp_path/"net.keras")
    found = import_network(tmp_path/"net.keras")
    assert [one.layer for one in found.differences][-1] == "softmax" and len(found.differences) == 2
    assert max(one.relative for one in found.differences) < 1e-5


@pytest.mark.parametrize("before", [{}, {"scale": 1/255}, {"scale": 1, "offset": -120.0}, {"scale": 30.0}])
@pytest.mark.parametrize("wrong", ["as it is", "weights", "one weight", "biases", "one bias"])
def test_a_last_layer_that_computes_something_else_is_refused_though_keras_shows_a_softmax_alone(keras, before, wrong, tmp_path):
    """Of noise, whose scores are mostly so far apart that the softmax is 0 and 1, whatever the last layer."""
    L = keras.layers
    drawn(keras, [*([L.Rescaling(**before)] if before else []), L.Conv2D(4, 3, activation="relu"), L.Flatten(),
                  L.Dense(5, activation="softmax")]).save(tmp_path/"net.keras")
    foreign = read(tmp_path/"net.keras")
    seen = seen_by(foreign)
    lowered = to_network(foreign, seen, "made")
    w, b = (lowered.network.layers[-1].parameters[key] for key in "wb")
    if wrong == "weights":
        w *= 3
    elif wrong == "one weight":
        w[np.abs(w).argmax() // 5, 4] *= -1
    elif wrong == "biases":
        b += 0.5*np.arange(5, dtype=np.float32)
    elif wrong == "one bias":
        b[4] -= 0.5
    found = compare(foreign, seen, lowered)
    assert found[-1].layer == "softmax" and not found[-1].hidden
    if wrong == "as it is":
        assert found[-1].relative < 1e-5
    else:
        with pytest.raises(zfcore.Expected, match="softmax: expected what the file's own engine computes"):
            check_all("net", found)


@pytest.mark.parametrize("biases, told", [([0, 200, 400], True), ([0, 2, 4], False)])
def test_where_no_picture_shows_the_last_layer_a_note_says_that_it_is_not_checked(keras, biases, told, tmp_path):
    model = drawn(keras, [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    model.layers[-1].bias.assign(biases)
    model.save(tmp_path/"net.keras")
    notes = "\n".join(import_network(tmp_path/"net.keras").notes)
    assert ("the last layer is not checked: Keras" in notes) == told


def test_a_grey_network_and_one_with_channels_first_are_as_keras_has_them(keras, tmp_path):
    L = keras.layers
    drawn(keras, [L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)], (9, 9, 1)).save(tmp_path/"grey.keras")
    assert import_network(tmp_path/"grey.keras").seen.channels == "grey"
    first = "channels_first"
    drawn(keras, [L.Conv2D(4, 3, data_format=first), L.MaxPooling2D(2, data_format=first), L.Flatten(data_format=first),
                  L.Dense(2)],
          (3, 11, 11)).save(tmp_path/"first.h5")
    found = import_network(tmp_path/"first.h5")
    assert found.foreign.input_shape == (3, 11, 11) and max(one.relative for one in found.differences) < 1e-5


# Keras cannot read its own .h5 of axis None
@pytest.mark.parametrize("axis, suffix", [(-1, ".h5"), (-1, ".keras"), (None, ".keras")])
def test_a_normalisation_that_was_adapted_is_as_keras_has_it(keras, axis, suffix, tmp_path):
    L = keras.layers
    normalised = L.Normalization(axis=axis)
    normalised.adapt(np.random.default_rng(4).uniform(0, 255, (6, 9, 9, 3)).astype(np.float32)*np.float32([1, 0.5, 0.2]))
    keras.Sequential([keras.Input((9, 9, 3)), normalised, L.Conv2D(4, 3), L.Flatten(), L.Dense(2)]).save(tmp_path/f"net{suffix}")
    found = import_network(tmp_path/f"net{suffix}")
    assert found.differences and max(one.relative for one in found.differences) < 1e-5


def test_means_at_an_uneven_border_are_of_the_pixels_within_and_a_note_says_so(keras, tmp_path):
    """Keras itself gives two answers, by its backend: the yardstick is the mean."""
    L = keras.layers
    drawn(keras, [L.AveragePooling2D(3, strides=2, padding="same", name="means"), L.Flatten(), L.Dense(2)],
          (6, 6, 3)).save(tmp_path/"net.h5")
    foreign = read(tmp_path/"net.h5")
    assert [note.partition(":")[0] for note in foreign.notes] == ["means"]
    foreign.nodes = foreign.nodes[:1]
    assert import_network(tmp_path/"net.h5").notes[-1].startswith("parity not checked") or keras.backend.backend() != "torch"
    x = np.random.default_rng(5).standard_normal((3, 6, 6, 2)).astype(np.float32)
    y, _ = as_it_is(foreign, "means").forward(x)
    # one pixel of padding, behind
    wanted = [[x[:, i:i + 3, j:j + 3].mean(axis=(1, 2)) for j in (0, 2, 4)] for i in (0, 2, 4)]
    assert np.allclose(to_host(y), np.moveaxis(np.array(wanted), 2, 0), atol=1e-6)


def test_weights_of_a_zip_are_found_as_keras_finds_them_by_the_numbers_of_their_kind(keras, tmp_path):
    """Earlier versions of Keras 3 wrote no names into the file, and layers may be called as groups of others are."""
    L = keras.layers
    model = drawn(keras, [L.Conv2D(3, 3, name="conv2d_1", padding="same"), L.Conv2D(3, 3, name="conv2d"), L.Flatten(),
                          L.Dense(2)], (7, 7, 3))
    model.save(tmp_path/"net.keras")

    def without_names(file):
        for group in ("conv2d", "conv2d_1"):
            del file[f"layers/{group}/vars"].attrs["name"]
    changed(tmp_path/"net.keras", weights=without_names)
    found = import_network(tmp_path/"net.keras")
    assert np.array_equal(read(tmp_path/"net.keras").nodes[0].w, model.layers[0].get_weights()[0].transpose(3, 2, 0, 1))
    assert max(one.relative for one in found.differences) < 1e-5


def changed(path, config=None, weights=None):
    """Change the text of the configuration, and the HDF5 file of the weights, of a Keras file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            if config:
                before = file.attrs["model_config"]
                assert config(before) != before
                del file.attrs["model_config"]
                file.attrs.create("model_config", config(before))
            if weights:
                weights(file["model_weights"])
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if weights:
        inner = io.BytesIO(members["model.weights.h5"])
        with h5py.File(inner, "r+") as file:
            weights(file)
        members["model.weights.h5"] = inner.getvalue()
    if config:
        members["config.json"] = config(members["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


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


@pytest.mark.parametrize("make, sentence", [
    (lambda L, first: [L.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]), L.Conv2D(3, 1, **first)], "normalisation of each "
                                                                                                      "channel, got axis -1"),
    (lambda L, first: [L.Rescaling([1, 2, 3]), L.Conv2D(3, 1, **first)], "one number for all"),
    (lambda L, first: [L.Conv2D(3, 1, **first), L.Softmax()], "a softmax over the classes, got axis -1")])
def test_what_is_said_of_the_last_axis_is_refused_where_that_is_of_columns(keras, tmp_path, make, sentence):
    drawn(keras, make(keras.layers, {"data_format": "channels_first"}), (3, 3, 3)).save(tmp_path/"net.h5")
    with pytest.raises(zfcore.Expected, match=sentence):
        read(tmp_path/"net.h5")


@pytest.mark.parametrize("old", ["dim_ordering", "output_dim"])
def test_a_layer_of_keras_1_is_refused_with_what_to_do(keras, tmp_path, old):
    drawn(keras, [keras.layers.Conv2D(3, 3, name="one"), keras.layers.Flatten(), keras.layers.Dense(2)]).save(tmp_path/"net.h5")
    changed(tmp_path/"net.h5", lambda text: text.replace('"data_format": "channels_last"', f'"{old}": "th"', 1))
    with pytest.raises(zfcore.Expected,
                       match=rf"one \(Conv2D\): expected a layer of Keras 2 or 3, got one of Keras 1, which has {old}.*saved "
                             rf"by Keras 2"):
        read(tmp_path/"net.h5")


def test_units_of_each_pixel_are_refused_where_the_last_axis_is_of_columns(keras, tmp_path):
    drawn(keras, [keras.layers.Conv2D(3, 1, data_format="channels_first"), keras.layers.Dense(3, name="odd")],
          (3, 3, 3)).save(tmp_path/"net.h5")
    with pytest.raises(zfcore.Expected, match="odd: expected maps whose channels come last"):
        read(tmp_path/"net.h5")


def test_several_heads_are_refused(keras, tmp_path):
    L, inputs = keras.layers, keras.Input((9, 9, 3))
    maps = L.Conv2D(3, 3, name="one")(inputs)
    keras.Model(inputs, [maps, L.Dense(2, name="two")(L.Flatten()(maps))]).save(tmp_path/"net.keras")
    with pytest.raises(zfcore.Expected, match="one output, got one, two"):
        read(tmp_path/"net.keras")


def test_quantised_layers_are_refused(saved, tmp_path):
    path = copied(saved, tmp_path, ".keras")

    def as_int8(file):
        kernel = file["layers/dense/vars/0"][()]
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.clip(kernel*100, -127, 127).astype(np.int8)
    changed(path, weights=as_int8)
    with pytest.raises(zfcore.Expected, match="got int8"):
        read(path)


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


def copied(saved, folder, suffix):
    (folder/f"net{suffix}").write_bytes((saved/f"net{suffix}").read_bytes())
    return folder/f"net{suffix}"


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
    (lambda config: config.replace('"conv"', '"other"'), "kernel"),
    (lambda config: config.replace("[3, 3]", "[3, 5]"), "kernels of"),
    (lambda config: config.replace("[null, 7, 7, 3]", "[null, 7, 100000000, 3]"), "fixed sizes"),
    (lambda config: json.dumps({"class_name": "Sequential",
                                "config": {"layers": [{"class_name": "Lambda", "config": {"name": "evil"}}]}}), "of a fixed "
                                                                                                                "size"),
    (lambda config: config.replace('"class_name": "Flatten"', '"class_name": "Lambda"'), r"\(Lambda\): expected a layer that "
                                                                                         r"zfcore has")])
def test_a_configuration_that_lies_is_one_sentence(saved, tmp_path, change, sentence):
    path = copied(saved, tmp_path, ".h5")
    changed(path, change)
    with pytest.raises(zfcore.Expected, match=sentence):
        read(path)


def of_layer(name, /, **fields):
    """Change of a configuration: the `fields` of the layer called `name`; those of its row where they are no fields."""
    def change(config):
        model = json.loads(config)
        row = next(row for row in model["config"]["layers"] if row["config"]["name"] == name)
        for key, value in fields.items():
            (row if key in ("module", "registered_name") else row["config"])[key] = value
        return json.dumps(model)
    return change


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("fields, sentence", [
    ({"activation": ["relu"]}, "one of the activations"), ({"data_format": ["channels_last"]}, "data_format channels_first or"),
    ({"activation": {"class_name": "relu", "module": "mine", "registered_name": "Mine>relu"}}, "one of the activations"),
    ({"registered_name": "Mine>Conv2D", "module": "mine"}, "a layer of Keras's own, got 'Mine>Conv2D'"),
    ({"filters": 5}, "for filters 5"),
    ({"use_bias": "no"}, "true or false"), ({"name": "/"}, "a name that can be printed"),
    ({"name": "../conv"}, "a name that can be printed"), ({"name": "a\0b"}, "a name that can be printed")])
def test_fields_that_lie_are_one_sentence_about_them(saved, tmp_path, fields, sentence, suffix):
    path = copied(saved, tmp_path, suffix)
    changed(path, of_layer("conv", **fields))
    with pytest.raises(zfcore.Expected, match=sentence):
        read(path)


@pytest.mark.parametrize("called, shape", [("conv/kernel", (3, 3, 5, 3)), ("conv/bias", (4,)), ("conv/bias", (1,)),
                                           ("conv/bias", (3, 1)),
                                           ("scores/kernel", (6, 2)), ("scores/kernel", (75, 0)), ("scores/bias", (3,))])
def test_weights_of_other_shapes_are_one_sentence(saved, tmp_path, called, shape, monkeypatch):
    path, layer = copied(saved, tmp_path, ".h5"), called.partition("/")[0]

    def other(weights):
        name = next(name for name in every(weights[layer]) if name.endswith(called))
        del weights[layer][name]
        weights[layer][name] = np.ones(shape, np.float32)
    changed(path, weights=other)
    monkeypatch.setattr("zfcore.interchange.keras.find_spec", lambda name: None)           # Keras would refuse it too
    with pytest.raises(zfcore.Expected):
        import_network(path)


def every(group):
    names = []
    group.visit(names.append)
    return names


def test_weights_for_other_channels_than_there_are_name_the_layer(keras, saved, tmp_path):
    path = copied(saved, tmp_path, ".keras")

    def other(file):
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 5, 3), np.float32)
    changed(path, weights=other)
    with pytest.raises(zfcore.Expected, match="conv: expected weights for 3 channels, got for 5"):
        read(path)
    L = keras.layers
    drawn(keras, [L.Conv2D(4, 3), L.BatchNormalization(name="norm"), L.Flatten(), L.Dense(2)],
          (7, 7, 3)).save(tmp_path/"norm.keras")

    def fewer(file):
        for k in range(4):
            del file[f"layers/batch_normalization/vars/{k}"]
            file[f"layers/batch_normalization/vars/{k}"] = np.ones(3, np.float32)
    changed(tmp_path/"norm.keras", weights=fewer)
    with pytest.raises(zfcore.Expected, match="norm: expected 1 or 4 numbers"):
        read(tmp_path/"norm.keras")


def test_a_layer_of_no_units_is_refused(saved, tmp_path):
    path = copied(saved, tmp_path, ".keras")

    def none(file):
        for k, shape in enumerate([(75, 0), (0,)]):
            del file[f"layers/dense/vars/{k}"]
            file[f"layers/dense/vars/{k}"] = np.ones(shape, np.float32)
    changed(path, of_layer("scores", units=0), none)
    with pytest.raises(zfcore.Expected, match="for units 0"):
        read(path)


def test_weights_that_bear_another_layers_name_are_refused(saved, tmp_path):
    path = copied(saved, tmp_path, ".keras")
    changed(path, weights=lambda file: file["layers/dense/vars"].attrs.modify("name", "others"))
    with pytest.raises(zfcore.Expected, match="the weights of scores, got those of 'others'"):
        read(path)


def test_a_second_input_is_refused(saved, tmp_path):
    path = copied(saved, tmp_path, ".h5")

    def twice(config):
        model = json.loads(config)
        layers = model["config"]["layers"]
        layers.insert(0, {**layers[0], "config": {**layers[0]["config"], "name": "more", "batch_shape": [None, 5, 5, 3]}})
        return json.dumps(model)
    changed(path, twice)
    with pytest.raises(zfcore.Expected, match=r"pictures \(InputLayer\): expected one input, got 2"):
        read(path)


def test_what_keras_computes_in_other_numbers_is_read_and_not_compared(saved, tmp_path):
    path = copied(saved, tmp_path, ".keras")
    changed(path, of_layer("conv", dtype="mixed_float16"))
    found = import_network(path)
    assert not found.differences and "Keras would compute it in 'mixed_float16'" in found.notes[-1]


def test_two_kernels_of_a_layer_and_groups_that_lead_to_each_other_are_refused(saved, tmp_path):
    path = copied(saved, tmp_path, ".h5")
    changed(path, weights=lambda weights: weights["conv"].create_dataset("more/kernel", data=np.ones((3, 3, 3, 3), np.float32)))
    with pytest.raises(zfcore.Expected, match="one kernel of the layer"):
        read(path)

    def tree(weights):
        del weights["conv"]
        group = weights.create_group("conv")
        for k in range(30):
            below = weights.create_group(f"below{k}")
            group["left"], group["right"] = below, below
            group = below
    path = copied(saved, tmp_path, ".h5")
    changed(path, weights=tree)
    with pytest.raises(zfcore.Expected, match="at most 100 groups"):
        read(path)


def test_what_keras_does_not_take_is_one_sentence(saved, tmp_path):
    path = copied(saved, tmp_path, ".h5")
    changed(path, of_layer("conv", kernel_initializer={"class_name": "Zeros", "config": {"nonsense": 1}}))
    with pytest.raises(zfcore.Expected, match="a network that Keras computes too"):
        import_network(path)


def described(module, kind, registered=None, /, **config):
    return {"module": module, "class_name": kind, "config": config, "registered_name": registered}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("thing", [
    described("os", "system", command="false"), {"class_name": "__lambda__", "config": {"value": "evil"}},
    described("keras.layers", "Lambda"), described("keras", "layers.Lambda"), described("keras.layers", "TorchModuleWrapper", module=""),
    {"class_name": "TorchModuleWrapper", "config": {"module": ""}}, described("keras.initializers", "Zeros", "mine>Zeros"),
    described("keras.layers", "Zeros"), described("keras", "initializers.Zeros"), described("keras.utils", "get_file"),
    described("builtins", "function"), {"class_name": "__typespec__", "config": [], "spec_name": "x"},
    {"module": ["os"], "class_name": ["system"]}, described("keras", "Sequential", layers=[])])
@pytest.mark.parametrize("place", ["a field", "what a node reads", "how it was built", "beside all", "beside the layers", "a model within"])
def test_a_file_that_names_what_keras_is_not_to_make_never_reaches_it(saved, tmp_path, thing, suffix, place, keras, monkeypatch):
    path = copied(saved, tmp_path, suffix)
    assert read(path).engine is not None

    def change(config):
        model = json.loads(config)
        row = next(row for row in model["config"]["layers"] if row["config"]["name"] == "conv")
        if place == "a field":
            row["config"]["kernel_initializer"] = {"class_name": "Zeros", "config": {"inner": [thing]}}
        elif place == "what a node reads":
            row["inbound_nodes"] = [{"args": [], "kwargs": {"x": thing}}]
        elif place == "beside the layers":
            model["config"]["inner"] = thing
        elif place == "a model within":
            flip = described("keras.layers", "RandomFlip", name="flip", seed=thing)
            model = described("keras", "Sequential", name="all", layers=[model["config"]["layers"][0],
                              described("keras", "Sequential", name="augment", layers=[flip]), *model["config"]["layers"][1:]])
        else:
            (row if place == "how it was built" else model)["build_config"] = {"inner": thing}
        return json.dumps(model)
    changed(path, change)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("Keras was given it"))
    found = import_network(path)
    assert found.foreign.engine is None and not found.differences and "beyond what Keras is given to load" in found.notes[-1]


def test_of_what_a_network_was_trained_by_hdf5_is_given_nothing_that_keras_would_make(saved, tmp_path):
    """Of a .keras Keras leaves it, of an HDF5 file that says where its classes are it does not."""
    for suffix in (".h5", ".keras"):
        path = copied(saved, tmp_path, suffix)
        changed(path, lambda config: json.dumps({**json.loads(config), "compile_config": {"loss": described("mine", "Loss")}}))
        assert (read(path).engine is None) == (suffix == ".h5")


def test_no_class_that_keras_is_given_is_a_program_of_the_files_own(keras):
    """Each is there, computes by Keras alone, and takes no other layer, module or function that a file could bring."""
    beyond = {"Lambda", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TFSMLayer", "Wrapper", "TimeDistributed", "Bidirectional", "RNN",
              "StackedRNNCells", "SpectralNormalization"}
    for module, kind in sorted((pair for pair in OWN if pair[0]), key=str):
        made = getattr(keras if module == "keras" else getattr(keras, module.removeprefix("keras.")), kind)
        bases = made.__mro__
        assert bases[0].__module__.startswith("keras.src.") and not beyond & {base.__name__ for base in bases}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_all_that_a_genuine_layer_names_beside_its_weights_is_loaded_and_compared(keras, suffix, tmp_path):
    L, I, R, C = keras.layers, keras.initializers, keras.regularizers, keras.constraints
    starts = [I.Constant(0.5), I.GlorotNormal(), I.GlorotUniform(), I.HeNormal(), I.HeUniform(), I.LecunNormal(), I.LecunUniform(), I.Ones(),
              I.Orthogonal(), I.RandomNormal(), I.RandomUniform(), I.TruncatedNormal(), I.VarianceScaling(), I.Zeros()]
    model = drawn(keras, [*(L.Conv2D(3, 1, kernel_initializer=start) for start in starts), L.Flatten(),
                          L.Dense(12, kernel_initializer=I.Identity(), kernel_regularizer=R.L1(1e-3), bias_regularizer=R.L2(1e-3)),
                          L.Dense(6, kernel_regularizer=R.L1L2(1e-3, 1e-3), kernel_constraint=C.MaxNorm(2), bias_constraint=C.NonNeg()),
                          L.Dense(4, kernel_regularizer=R.OrthogonalRegularizer(), kernel_constraint=C.UnitNorm(),
                                  bias_constraint=C.MinMaxNorm(), dtype=keras.DTypePolicy("float32"))], (2, 2, 3))
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path/f"net{suffix}")
    found = import_network(tmp_path/f"net{suffix}")
    assert found.differences and max(one.relative for one in found.differences) < 1e-5


def test_a_zip_that_unfolds_is_refused_and_a_link_out_of_the_file_is_not_followed(saved, tmp_path):
    with zipfile.ZipFile(tmp_path/"net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}" + b" "*10**7)
        archive.writestr("model.weights.h5", b"\0"*10**7)
    with pytest.raises(zfcore.Expected, match="neither compressed"):
        read(tmp_path/"net.keras")
    path = copied(saved, tmp_path, ".h5")

    def link(weights, name="conv", to="model_weights/conv"):
        del weights["conv"]
        weights[name] = h5py.ExternalLink(str(saved/"net.h5"), to)
    changed(path, weights=link)
    with pytest.raises(zfcore.Expected, match="a link to somewhere else"):
        read(path)
    path = copied(saved, tmp_path, ".h5")                  # nor one in the middle of a layer's name
    changed(path, of_layer("conv", name="out/conv"), lambda weights: link(weights, "out", "model_weights"))
    with pytest.raises(zfcore.Expected, match="a link to somewhere else"):
        read(path)
