"""Networks that are not the paper's, trained for two steps on drawn pictures: all that looks into a network takes them."""
from functools import partial

import numpy as np
import pytest

import zfcore
from train.__main__ import main
from zfcore import models
from zfcore.analysis import diagnostics
from zfcore.analysis.diagnostics import JUDGED, diagnose, judged_layers
from zfcore.analysis.invariance import default_layers, look
from zfcore.analysis.occlusion import occlusion
from zfcore.analysis.probing import feature_layers
from zfcore.analysis.sanity_checks import sanity_checks
from zfcore.analysis.top_activations import top_activations
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic
from zfcore.deconvnet import descend, feature_layer, project, start_signal
from zfcore.models.nin import nin
from zfcore.models.vgg import CONFIGURATIONS, vgg

NARROW = {name: partial(vgg, groups=[[F//8 for F in maps] for maps in CONFIGURATIONS[name]], units=(32, 32), name=name)
          for name in CONFIGURATIONS} | {"nin": partial(nin, maps=(12, 32, 48, 128))}        # an eighth of the maps
SIZES = {"vgg11": 32, "vgg16": 32, "nin": 72}               # of nin's last maps 2x2 pixels are left


@pytest.fixture(scope="module", params=[pytest.param("vgg11", marks=pytest.mark.exhaustive), "vgg16", "nin"])
def trained(request, tmp_path_factory):
    """(Trained, Pictures)"""
    name, run = request.param, tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(run/"cache"))
        patch.setitem(models.MODELS, name, NARROW[name])
        main(["--preset", "tiny", "--model", name, "--image-size", str(SIZES[name]), "--batch-size", "10", "--epochs", "1",
              "--limit-per-class", "2", "--lr", "0.0001", "--workers", "1", "--device", "cpu", "--output", str(run/"run")])
    model = zfcore.open(run/"run", "cpu")
    return model, Pictures(Synthetic("val", 8, model.size), model.size, model.crop, workers=0)


def inputs(network, count=3):
    return np.random.default_rng(0).uniform(-100, 100, (*network.input_shape, count)).astype(np.float32)


def test_two_steps_move_every_layer(trained):
    model, _ = trained
    assert model.epoch == 1 and model.name in SIZES and model.network.shapes[-1] == (10,)
    assert all((layer.parameters["w"] != begun.parameters["w"]).any()
               for layer, begun in zip(model.network.weighted, model.start.weighted))


@pytest.mark.parametrize("trained", [pytest.param("vgg16", marks=pytest.mark.exhaustive), "nin"], indirect=True)
def test_every_layer_is_projected_and_the_cone_is_the_dense_way_down(trained):
    network = trained[0].network
    x = inputs(network)
    for layer in network.layers:
        y, caches = network.forward(x, until=network.layers[feature_layer(network, layer.name)].name)
        unit = int(y.reshape(len(y), -1).max(axis=1).argmax())
        found = project(network, x, layer.name, [unit]*3)
        dy = start_signal(y, np.array([unit]*3), found.places, found.values)
        dense = descend(network, dy, caches)
        assert found.pixels.shape == x.shape and dense.any(), layer.name
        np.testing.assert_allclose(found.pixels, dense, rtol=1e-3, atol=1e-5*np.abs(dense).max(), err_msg=layer.name)


def test_a_square_is_slid_over_its_pictures(trained):
    model, pictures = trained
    shown = np.stack([pictures.picture(0)])
    cone, whole = (occlusion(model, shown, [3], size=9, stride=19, incremental=how)
                   for how in (True, False))
    assert cone.layer == model.network.convolutions[-1].name
    np.testing.assert_allclose(cone.sums, whole.sums, rtol=1e-4)
    np.testing.assert_allclose(cone.probabilities, whole.probabilities, rtol=1e-4)


def test_features_of_every_layer_with_weights_but_the_last_are_probed_where_they_leave_it(trained):
    network = trained[0].network
    layers = feature_layers(network)
    assert list(layers) == list(range(1, len(network.weighted)))
    above = [network.index(layer.name) for layer in network.weighted[1:]]
    assert all(network.index(name) < k and all(layer.hands_on for layer in network.layers[network.index(name) + 1:k])
               for name, k in zip(layers.values(), above))
    assert list(layers.values())[-1] == ("relu4_2" if network.name == "nin" else "relu7")


@pytest.mark.parametrize("trained", [pytest.param("vgg16", marks=pytest.mark.exhaustive), "nin"], indirect=True)
def test_it_is_diagnosed_and_its_projections_are_judged(trained, monkeypatch):
    monkeypatch.setattr(diagnostics, "LOOKED_AT", 5)
    (model, pictures), network = trained, trained[0].network
    found = diagnose(model, pictures, np.array([0, 3]), k=1)
    assert found.layer == network.convolutions[1].name and set(found.start) == {layer.name for layer in network.weighted}
    assert found.legible and set(found.legible) <= set(judged_layers(network))
    assert all(of.shape == (len(JUDGED), 2) for of in found.legible.values())


def test_its_scores_have_controls(trained):
    model, pictures = trained
    last = model.network.layers[-1].name
    top = top_activations(model, pictures, [last], 1)
    found = sanity_checks(model, pictures, top, last, np.flatnonzero(~top.dead(last))[:2])
    assert found.conditions[1] == model.network.weighted[-1].name and (found.cosine[:, 0] > 0.999).all()


def test_invariance_looks_at_the_first_convolution_and_the_last_layer_with_a_relu(trained):
    network = trained[0].network
    layers = default_layers(network)
    assert layers == ["conv1_1", "conv4_3" if network.name == "nin" else "fc7"]
    features, scores = look(network, inputs(network), layers)
    assert list(features) == layers and scores.shape == (10, 3)


def test_classes_in_another_order_are_the_scores_in_that_order(trained):
    model, _ = trained
    x = inputs(model.network)
    got, wanted = (of.network.forward(x)[0] for of in (model.with_classes(model.classes[::-1]), model))
    np.testing.assert_allclose(got, wanted[::-1], rtol=1e-5, atol=1e-6)
