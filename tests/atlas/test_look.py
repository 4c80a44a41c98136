"""A look at a picture finds what the engine finds unit by unit, and what is shown of it can be read back."""
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from zfcore.analysis.occlusion import occlusion
from zfcore.atlas.look import LOSSLESS, encoded, encoded_occlusion, look, occluded, projected, quick_stride, sheet
from zfcore.check import Expected
from zfcore.deconvnet import DECONVNET, GRADIENT, GUIDED, project
from zfcore.layers import Conv, Flatten, Linear, ReLU
from zfcore.models import build
from zfcore.models.zfnet import zfnet
from zfcore.network import Network
from zfcore.trained import Trained

CROP, SIZE, CLASSES = 67, 73, 4
LAYERS = ["conv1", "pool1", "conv3", "conv5", "fc6", "fc8"]


def trained(network, size=SIZE, seed=7):
    """The network with lively biases, and a mean image."""
    network.init(3, "he")
    rng = np.random.default_rng(seed)
    for of_layer in network.parameters().values():
        of_layer["b"] += rng.normal(0, 0.3, of_layer["b"].shape).astype(np.float32)
    return Trained(network, rng.uniform(90, 150, (3, size, size)).astype(np.float32))


@pytest.fixture(scope="module")
def model():
    return trained(zfnet(CLASSES, CROP, maps=(6, 8, 7, 5, 9), units=(11, 10)))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def found(model, picture):
    return look(model, picture, LAYERS)


def cropped(pixels, box):
    """What of one projection (3,H,W) lies in the box, 0 beyond the border; all of it where the box is larger."""
    top, left, bottom, right = box
    if bottom - top > pixels.shape[1]:
        return pixels.transpose(1, 2, 0)
    return np.pad(pixels, ((0, 0), (99, 99), (99, 99)))[:, top + 99:bottom + 99, left + 99:right + 99].transpose(1, 2, 0)


# ------------------------------------------------------------------------------------------------------- strongest units
@pytest.mark.parametrize("layer, features", [*zip(LAYERS, ["relu1", "pool1", "relu3", "relu5", "relu6", "fc8"])])
def test_the_strongest_units_are_those_of_the_maps_and_look_as_projected_one_by_one(model, picture, found, layer, features):
    one, x = found.layers[LAYERS.index(layer)], model.inputs(picture[None])
    maps = model.network.activations(x, [features])[features]
    maxima = maps.reshape(len(maps), -1)
    order = np.argsort(-maxima.max(axis=1), kind="stable")[:6]
    assert one.layer == layer
    np.testing.assert_array_equal(one.units, [unit for unit in order if maxima[unit].max() != 0])
    for unit, value, box, projection in zip(one.units, one.values, one.boxes, one.projections):
        alone = project(model.network, x, layer, [unit])
        np.testing.assert_allclose(value, alone.values[0], rtol=1e-5)
        shown = cropped(alone.pixels[..., 0], box)
        np.testing.assert_allclose(projection, shown, atol=1e-5*max(np.abs(shown).max(), 1e-30))
        assert layer != "conv1" or (box[:2] == 2*alone.places[0]).all() and (box[2:] == box[:2] + 7).all()


def test_scores_below_zero_are_told_and_no_more_units_than_there_are(found):
    scores = found.layers[-1]
    assert sorted(scores.units) == list(range(CLASSES)) and (np.diff(scores.values) <= 0).all() and scores.values[-1] < 0


def test_a_unit_that_is_off_everywhere_is_not_among_the_strongest(picture):
    silenced = trained(zfnet(CLASSES, CROP, maps=(6, 8, 7, 5, 9), units=(11, 10)))
    silenced.network["conv1"].parameters["b"][[0, 2, 3]] = -1e9
    silenced.network["conv2"].parameters["b"][:] = -1e9
    one, none = look(silenced, picture, ["conv1", "conv2"], hide=False).layers
    assert sorted(one.units) == [1, 4, 5] and (one.values > 0).all() and len(one.projections) == len(one.boxes) == 3
    assert none.units.size == 0 and none.projections.shape == (0, 27, 27, 3)
    told = encoded(look(silenced, picture, ["conv2"], hide=False), "", -1, 0, lambda file, name: name)["layers"]
    assert told == [{"name": "conv2", "units": [], "values": [], "boxes": [], "sheet": None, "side": 81}]


def test_probabilities_are_the_models_own(model, picture, found):
    np.testing.assert_allclose(found.probabilities, model.probabilities(picture[None])[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.picture, picture[3:70, 3:70])


@pytest.mark.parametrize("rules", [DECONVNET, GRADIENT, GUIDED])
@pytest.mark.parametrize("layer, unit", [("conv2", 5), ("norm1", 2), ("fc7", 9), ("fc8", 0)])
def test_one_unit_by_any_rule_is_the_engines_projection(model, picture, layer, unit, rules):
    one = projected(model, picture, layer, unit, rules)
    alone = project(model.network, model.inputs(picture[None]), layer, [unit], rules=rules)
    assert one.units == [unit] and one.values == alone.values
    np.testing.assert_array_equal(one.projections[0], cropped(alone.pixels[..., 0], one.boxes[0]))


@pytest.mark.parametrize("layer, unit, sentence", [
    ("conv9", 0, "layer: expected one of conv1"), ("conv1", 6, "unit of conv1: expected 0 to 5"), ("conv1", -1, "of conv1")])
def test_a_layer_or_unit_that_there_is_not_is_refused(model, picture, layer, unit, sentence):
    with pytest.raises(Expected, match=sentence):
        projected(model, picture, layer, unit)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_overflow_are_refused(picture):
    wild = trained(zfnet(CLASSES, CROP, maps=(6, 8, 7, 5, 9), units=(11, 10)))
    wild.network["fc8"].parameters["w"][:] = 3e38
    with pytest.raises(Expected, match="zfnet: outputs: expected finite"):
        look(wild, picture, ["conv1"], hide=False)
    wild.network["conv1"].parameters["w"][:] = 3e38
    with pytest.raises(Expected, match="conv1: activations: expected finite"):
        projected(wild, picture, "conv1", 0)


# ------------------------------------------------------------------------------------------------------------- occlusion
def test_the_occlusion_is_that_of_the_analysis_of_the_class_that_is_asked_for(model, picture, found):
    likeliest, other = int(found.probabilities.argmax()), int(found.probabilities.argmin())
    for label, shown in ((None, found.occlusion), (other, look(model, picture, [], label=other, stride=11).occlusion)):
        alone = occlusion(model, picture[None], None if label is None else [label], stride=shown.stride)
        assert shown.labels[0] == (likeliest if label is None else other)
        np.testing.assert_array_equal(shown.probabilities, alone.probabilities)
    assert shown.stride == 11 and found.notes == ()


@pytest.mark.parametrize("layers", [[Flatten("flatten"), Linear("fc", 3)], [Conv("conv", 4, K=3), ReLU("relu")]])
def test_a_network_without_convolutions_or_scores_has_no_occlusion_and_says_so(layers):
    model = trained(Network("plain", (3, 9, 9), layers), size=11)
    seen = look(model, np.zeros((11, 11, 3), np.uint8), [layers[-1].name])
    assert seen.occlusion is None and len(seen.notes) == 1
    assert seen.notes[0].startswith("No occlusion: plain: expected a network of convolutions")
    told = encoded(seen, "", -1, 0, lambda file, name: name)
    assert told["occlusion"] is None and told["notes"] == list(seen.notes)
    assert (seen.probabilities is None) == (layers[0].name == "conv") == (told["probabilities"] == [])
    assert occluded(model, np.zeros((11, 11, 3), np.uint8)) == (None, seen.notes[0])


def test_the_quick_stride_is_the_papers_where_that_is_quick_and_a_multiple_of_it_elsewhere(model):
    def of(name, classes, crop):
        network = build(name, classes, crop)
        return quick_stride(Trained(network, np.zeros((3, crop, crop), np.float32)))
    assert quick_stride(model) == round(6*CROP/224) and of("tiny", 10, 96) == round(6*96/224)
    assert of("zfnet", 1000, 224) == 12


# ------------------------------------------------------------------------------------------------------------------ JSON
def test_what_is_told_can_be_read_back(model, picture, found):
    files = {}
    made = encoded(found, "a.png", 2, 3, lambda file, name: files.setdefault(name, file) and f"{name}.webp")
    told = json.loads(json.dumps(made, allow_nan=False))
    assert list(files) == ["3", *(f"3-{layer}" for layer in LAYERS), "3.map"] and told["image"] == "3.webp"
    assert (told["name"], told["label"], told["number"], told["side"]) == ("a.png", 2, 3, CROP)
    assert [k for k, _ in told["probabilities"]] == np.argsort(-found.probabilities).tolist()
    np.testing.assert_array_equal(np.float32([p for _, p in told["probabilities"]]), np.sort(found.probabilities)[::-1])
    for one, shown in zip(found.layers, told["layers"]):
        tiles = np.asarray(Image.open(io.BytesIO(files[shown["sheet"].removesuffix(".webp")])))
        assert tiles.shape == (shown["side"], len(one.units)*shown["side"], 3)
        np.testing.assert_array_equal(np.float32(shown["values"]), one.values)
        assert shown["units"] == one.units.tolist() and shown["boxes"] == one.boxes.tolist()
    square = told["occlusion"]
    assert {np.shape(square[key]) for key in ("p", "class", "sums")} == {(len(square["tops"]), len(square["lefts"]))}
    np.testing.assert_allclose(square["sums"], found.occlusion.sums[0], rtol=1e-6)
    assert square["clean"]["class"] == square["label"] == told["probabilities"][0][0] and square["projection"] == "3.map.webp"
    assert square["clean"]["p"] == pytest.approx(told["probabilities"][0][1])
    assert encoded_occlusion(found.occlusion, lambda file, name: name, "m")["projection"] == "m" and square["silent"] is False
    nothing = replace(found.occlusion, clean_sums=np.zeros(1), projections=np.zeros_like(found.occlusion.projections))
    assert encoded_occlusion(nothing, lambda file, name: name, "m")["silent"] is True


def test_no_more_than_ten_classes_are_told(picture):
    model = trained(zfnet(13, CROP, maps=(6, 8, 7, 5, 9), units=(11, 10)))
    told = encoded(look(model, picture, [], hide=False), "", -1, 0, lambda file, name: name)["probabilities"]
    assert len(told) == 10 and told == sorted(told, key=lambda row: -row[1])


def test_layers_of_any_names_have_files_of_their_own():
    convolutions = [Conv(name, 2, K=3) for name in ("map", "a", "A")]
    network, names = Network("named", (3, 9, 9), [*convolutions, Flatten("f"), Linear("fc", 2)]), []
    for layer, name in zip(network.weighted, ("map", "a/b", "A/B", "..")):
        layer.name = name                                  # as none may be made
    model = trained(network, size=9)
    seen = look(model, np.full((9, 9, 3), 9, np.uint8), ["map", "a/b", "A/B", ".."])
    encoded(seen, "", -1, 5, lambda file, name: names.append(name) or name)
    assert len({name.casefold() for name in names}) == len(names) == 6 and not any("/" in name for name in names)


@pytest.mark.parametrize("field", [5, LOSSLESS])
def test_a_sheet_shows_nothing_as_mid_grey_each_tile_to_its_own_scale_and_pixels_as_squares(field):
    projections = np.zeros((3, field, field, 3), np.float32)
    projections[0, 0, 1, 0], projections[1, 2, 0, 1] = -0.25, 800
    tiles = np.asarray(Image.open(io.BytesIO(sheet(projections))))
    zoom = 96//field
    assert tiles.shape == (zoom*field, 3*zoom*field, 3)
    wanted = np.full((3, field, field, 3), 128, np.uint8)
    wanted[0, 0, 1, 0], wanted[1, 2, 0, 1] = 0, 255
    np.testing.assert_array_equal(tiles[::zoom, ::zoom], np.concatenate(wanted, axis=1))
    np.testing.assert_array_equal(tiles[zoom - 1::zoom, zoom - 1::zoom], np.concatenate(wanted, axis=1))
