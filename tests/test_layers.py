"""What every kind of layer must be, known of or new: whatever the engine, the deconvnet, the cones and the checkpoint rely on.

A kind of layer is held to all of it by one row in LAYERS."""
import json
from dataclasses import fields

import numpy as np
import pytest

from zfcore.analysis.occlusion import occlusion
from zfcore.backend import CPU
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, load, save
from zfcore.deconvnet import DECONVNET, GRADIENT, GUIDED, descend, feature_layer
from zfcore.layers import (FORMS, KINDS, AvgPool, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm,
                           LocalResponseNormWithin, MaxPool, Pad, Pixelwise, ReLU, Step, from_fields)
from zfcore.models import from_checkpoint, from_table
from zfcore.network import Network
from zfcore.ops.window import Regions
from zfcore.trained import Trained

LAYERS = [
    Conv("layer", 4, K=3, S=2), Conv("layer", 4, K=3, P=1), Conv("layer", 6, K=2, S=2, P=1, groups=3),
    Conv("layer", 4, K=3, S=2, rounding="floor"),
    MaxPool("layer", K=3, S=2), MaxPool("layer", K=3, S=1, P=1), MaxPool("layer", K=2, S=3, P=1),
    MaxPool("layer", K=3, S=2, rounding="floor"),
    AvgPool("layer", K=3, S=2), AvgPool("layer", K=2, S=3, P=1), AvgPool("layer", K=3, S=2, P=1, borders="padded"),
    AvgPool("layer", K=5, S=2, borders="padded"), AvgPool("layer", K=3, S=2, P=1, borders="clipped"),
    AvgPool("layer", K=5, S=3, borders="clipped"), AvgPool("layer", K=3, S=1, P=2, borders="clipped"),
    AvgPool("layer", K=3, S=2, P=1, rounding="floor"), AvgPool("layer"),
    Pad("layer", 0, -1, 0, -1), Pad("layer", 1, 1, 1, 1), Pad("layer", 0, 2, 0, 1), Pad("layer", 2, -1, 0, 1),
    Pad("layer", -1, 0, -2, 3), Pad("layer", 1, 0, -2, 1), Pad("layer", 0, 0, 0, 0),
    LocalResponseNormWithin("layer", n=3, alpha=0.5), LocalResponseNormWithin("layer", n=5, alpha=0.1, beta=0.6, k=0.5,
                                                                              convention="sum"),
    LocalResponseNormWithin("layer", n=1, alpha=0.5),
    ReLU("layer"), LocalResponseNorm("layer", n=3, alpha=0.5, k=1.0), BatchNorm("layer"), Dropout("layer", 0.6),
    Flatten("layer")]
FLAT = [Linear("layer", 4), BatchNorm("layer", eps=0.01)]                  # these are given units, not maps
LAYERS += FLAT
MAPS = (3, 11, 9)


def words(layer):
    return "-".join(str(value) for key, value in layer.fields().items() if key not in ("name", "seed", "number"))


every = pytest.mark.parametrize("layer", LAYERS, ids=words)
of_maps = pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.window() and layer not in FLAT], ids=words)


def copied(layer):
    return KINDS[type(layer).__name__](**{key: value for key, value in layer.fields().items() if key != "kind"})


def around(layer, size=MAPS):
    """A network with `layer` in its midst: behind a convolution, and below another one and the classes."""
    layers = [Conv("first", 6, K=2, P=1), ReLU("relu_first"), copied(layer)]
    if layer.window() is None or layer in FLAT:
        layers = [*layers[:2], *([Flatten("flat")] if layer in FLAT else []), layers[2]]
    else:
        layers += [Conv("above", 5, K=2), ReLU("relu_above"), Flatten("flat")]
    network = Network("around", size, [*layers, Linear("classes", 3)]).init(2, "he")
    rng = np.random.default_rng(0)
    for of_layer in network.parameters().values():
        for key, array in of_layer.items():
            of_layer[key] = array.astype(float)*(8 if key == "w" else 1) + 0.1*rng.standard_normal(array.shape)
    for kept in network.layers:
        kept.buffers = {key: array.astype(float) for key, array in kept.buffers.items()}
    return network


def alone(layer):
    """(the layer with parameters in float64, an input for it)."""
    layer, shape = copied(layer), (12,) if layer in FLAT else MAPS
    rng = np.random.default_rng(1)
    layer.parameters, layer.buffers = ({key: array.astype(float) + 0.1*rng.standard_normal(array.shape)
                                        for key, array in arrays.items()}
                                       for arrays in layer.init(shape, 3, "he", 1))
    layer.buffers = {key: np.abs(array) for key, array in layer.buffers.items()}
    return layer, rng.standard_normal((*shape, 4))


def test_every_kind_stands_here():
    assert {type(layer) for layer in LAYERS} == set(KINDS.values())


def test_a_kind_that_leaves_a_question_open_is_refused_at_once():
    class Silent(Pixelwise):
        def forward(self, x, step=None):
            return x, None

    with pytest.raises(TypeError, match="backward"):
        Silent("silent")

    class Shifting(Layer):
        """Has a window, and does not say what padding around its input means."""
        shape_out = window = forward = backward = cut_cache = lambda self, *_: (3, 1, 1)

    with pytest.raises(Expected, match=r"shifting: expected a layer that answers inside\(outputs\), got Shifting, .*incremental=False"):
        Shifting("shifting").inside(None)


def test_the_mean_of_whole_maps_fits_any_size_and_has_no_border():
    network = Network("whole", (2, 5, 8), [AvgPool("mean"), Flatten("scores")])
    x = np.random.default_rng(7).standard_normal((2, 5, 8, 3))
    np.testing.assert_allclose(network.forward(x)[0], x.mean(axis=(1, 2)))
    assert network["mean"].window()[0] == 8 and from_table("whole", (2, 3, 3), network.table())["mean"].window()[0] == 3
    for field in ({"P": 1}, {"borders": "padded"}, {"rounding": "floor"}):
        with pytest.raises(Expected, match="mean: expected no padding, rounding or borders where the window is the whole map"):
            Network("whole", (2, 5, 8), [AvgPool("mean", **field)])


def test_a_pad_takes_maps_that_are_many_and_refuses_those_that_would_be_too_large():
    assert Pad("rim", 1, 1, 1, 1).shape_out((4096, 7, 7)) == (4096, 9, 9)
    for rims in ((2**14, 0, 0, 0), (0, 0, 2**13, 2**13)):                 # long and thin: in a cone it is a square
        with pytest.raises(Expected,
                           match="rim: expected at most 268435456 numbers in the padded maps of a picture, seen as squares, "
                                 "got 3x"):
            Pad("rim", *rims).shape_out((3, 5, 5))


def test_a_frame_under_the_first_convolution_and_a_cut_behind_it_leave_its_units_and_its_cones_what_they_are():
    """As networks come from elsewhere. The maps of conv1 are still read behind its ReLU."""
    network = Network("elsewhere", (3, 9, 9), [Pad("frame", 0, 2, 1, -1), Conv("conv1", 4, K=3), Pad("cut", -1, -1, 0, -2),
                                               ReLU("relu1"),
                                               LocalResponseNormWithin("norm1", 3, 0.5), Flatten("flat"),
                                               Linear("fc2", 3)]).init(1, "he")
    assert feature_layer(network, "conv1") == network.index("relu1") and network.shapes[4] == (4, 7, 5)
    pictures, mean = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8), np.full((3, 9, 9), 100, np.float32)
    for size in (1, 3):
        cone, whole = (occlusion(Trained(network, mean), pictures, [0, 2], size=size, stride=2, incremental=how)
                       for how in (True, False))
        np.testing.assert_allclose(cone.sums, whole.sums, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(cone.probabilities, whole.probabilities, rtol=1e-5, atol=1e-6)
    x = pictures.transpose(3, 1, 2, 0) - np.float32(100)
    y, caches = network.forward(x, until="norm1")
    for place in ((0, 0), (6, 4), (3, 2)):
        dy = np.zeros_like(y)
        dy[1, place[0], place[1]] = 1
        for rules in (GRADIENT, DECONVNET, GUIDED):
            np.testing.assert_allclose(descend(network, dy, caches, rules, np.array([place, place])),
                                       descend(network, dy, caches, rules), rtol=1e-4, atol=1e-6)


def test_nothing_comes_down_from_zeros_that_were_laid_around_maps():
    """Where such a zero lies there is no unit of the convolution below, but pixels that one there would see."""
    network = Network("rim", (3, 7, 6), [Conv("conv1", 4, K=3), Pad("rim", 0, 1, 0, 2)]).init(1, "he")
    y, caches = network.forward(np.ones((3, 7, 6, 2), np.float32))
    places = np.array([(5, 1), (2, 5)])
    dy = np.zeros_like(y)
    dy[1, places[:, 0], places[:, 1], [0, 1]] = 1
    assert not y[:, 5].any() and not y[:, :, 4:].any()
    assert not descend(network, dy, caches, DECONVNET, places).any() and not descend(network, dy, caches).any()


# ----------------------------------------------------------------------------------------------------- by itself
@every
def test_its_output_and_arrays_have_the_shapes_that_it_tells(layer):
    layer, x = alone(layer)
    y, _ = layer.forward(x)
    assert y.shape == (*layer.shape_out(x.shape[:-1]), 4) and y.dtype == x.dtype
    for arrays, shapes in ((layer.parameters, layer.parameter_shapes), (layer.buffers, layer.buffer_shapes)):
        assert {key: array.shape for key, array in arrays.items()} == shapes(x.shape[:-1])


@every
@pytest.mark.parametrize("step", (None, Step(7)), ids=("evaluation", "training"))
def test_its_gradients_are_the_slopes_of_its_output(layer, step):
    layer, x = alone(layer)
    rng = np.random.default_rng(2)
    y, cache = layer.forward(x, step)
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(dy, cache)
    assert set(grads) == set(layer.parameters)
    for array, gradient in ((x, dx), *((layer.parameters[key], grads[key]) for key in grads)):
        direction = rng.standard_normal(array.shape)
        slope = 0
        for sign in (1, -1):
            array += sign*1e-6*direction
            slope += sign*(layer.forward(x, step)[0]*dy).sum()/2e-6
            array -= sign*1e-6*direction
        assert slope == pytest.approx((gradient*direction).sum(), rel=1e-5, abs=1e-6)


@every
def test_the_halves_of_its_gradient_are_those_of_the_whole(layer):
    layer, x = alone(layer)
    y, cache = layer.forward(x)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    dx, grads = layer.backward(dy, cache)
    np.testing.assert_array_equal(layer.data_gradient(dy, cache), dx)
    found = layer.parameter_gradients(dy, cache)
    assert set(found) == set(grads) and all((found[key] == grads[key]).all() for key in grads)


@every
def test_what_it_says_of_its_outputs_is_so(layer):
    layer, x = alone(layer)
    positive = layer.forward(np.abs(x))[0]
    assert not layer.rectifies or (layer.forward(x)[0] >= 0).all()
    assert not layer.keeps_positive or (positive >= 0).all()
    assert not layer.hands_on or (layer.forward(x)[0].ravel() == x.ravel()).all()
    assert layer.has_weights == ("w" in layer.parameters) and (not layer.has_filters or layer.parameters["w"].ndim == 4)
    if layer.affine:                                                          # what stands behind it may be done by its arrays
        y, (factor, shift) = layer.forward(x)[0], np.random.default_rng(8).standard_normal((2, len(positive)))
        layer.parameters = {"w": layer.parameters["w"]*factor, "b": layer.parameters["b"]*factor + shift}
        as_maps = (-1, *[1]*(y.ndim - 1))
        np.testing.assert_allclose(layer.forward(x)[0], y*factor.reshape(as_maps) + shift.reshape(as_maps), rtol=1e-9, atol=1e-12)


@every
def test_its_outputs_in_another_order_are_the_same_outputs(layer):
    layer, x = alone(layer)
    x = x[:, :1, :1] if isinstance(layer, Flatten) else x                     # whose places are units otherwise
    order = np.random.default_rng(4).permutation(len(y := layer.forward(x)[0]))
    if type(layer) is LocalResponseNorm or getattr(layer, "groups", 1) > 1:
        with pytest.raises(Expected, match="^layer: expected "):
            layer.reordered(order)
    else:
        found, _ = layer.reordered(order).forward(x[order] if layer.by_units else x)
        np.testing.assert_allclose(found, y[order], rtol=1e-9, atol=1e-12)


@every
def test_it_begins_alike_from_one_seed_and_otherwise_from_another(layer):
    shape = (12,) if layer in FLAT else MAPS
    for law in ("gaussian", "he"):
        one, again, other = (copied(layer).init(shape, seed, law, 1)[0] for seed in (1, 1, 2))
        assert all((one[key] == again[key]).all() and one[key].dtype == np.float32 for key in one)
        assert not layer.has_weights or (one["w"] != other["w"]).any()


# ---------------------------------------------------------------------------------------------------- in a network
@of_maps
@pytest.mark.parametrize("rules", (GRADIENT, DECONVNET, GUIDED), ids=("gradient", "deconvnet", "guided"))
def test_the_cone_of_a_place_is_the_dense_way_down(layer, rules):
    network = around(layer)
    top = network.index("relu_above")
    x = np.random.default_rng(4).standard_normal((*MAPS, 5))
    y, caches = network.forward(x, until="relu_above")
    F, H, W, N = y.shape
    places = np.array([(0, 0), (H - 1, W - 1), (0, W - 1), (H//2, W//2), (H - 1, 0)])
    dy = np.zeros_like(y)
    dy[2, places[:, 0], places[:, 1], np.arange(N)] = 1.5
    assert len(caches) == top + 1
    np.testing.assert_allclose(descend(network, dy, caches, rules, places), descend(network, dy, caches, rules), rtol=1e-9,
                               atol=1e-9)


@of_maps
@pytest.mark.parametrize("size", (1, 4))
def test_the_cone_of_a_square_that_hides_is_every_layer_whole(layer, size):
    network = around(layer, (3, 11, 11))
    network.load({name: {key: np.float32(array) for key, array in of_layer.items()}
                  for name, of_layer in network.parameters().items()},
                 CPU,
                 {name: {key: np.float32(np.abs(array)) for key, array in of_layer.items()}
                  for name, of_layer in network.buffers().items()})
    rng = np.random.default_rng(5)
    pictures, mean = rng.integers(0, 256, (2, 11, 11, 3), dtype=np.uint8), rng.uniform(0, 200, (3, 11, 11)).astype(np.float32)
    cone, whole = (occlusion(Trained(network, mean), pictures, [0, 2], layer="above", size=size, stride=4, incremental=how)
                   for how in (True, False))
    for name in ("sums", "probabilities"):
        np.testing.assert_allclose(getattr(cone, name), getattr(whole, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert whole.sums.std() > 0


@every
def test_a_checkpoint_gives_it_back(layer, tmp_path):
    network = around(layer)
    single = {name: {key: np.float32(array) for key, array in of_layer.items()}
              for name, of_layer in network.parameters().items()}
    kept = {name: {key: np.float32(array) for key, array in of_layer.items()} for name, of_layer in network.buffers().items()}
    network.load(single, CPU, kept)
    assert json.loads(json.dumps(network.table())) == network.table()
    assert from_table(network.name, network.input_shape, network.table()).table() == network.table()
    save(tmp_path/"c.h5", Checkpoint(network.name, network.input_shape, network.table(), ["a", "b", "c"], network.parameters(),
                                     buffers=network.buffers()))
    again, checkpoint = from_checkpoint(tmp_path/"c.h5")
    x = np.random.default_rng(6).standard_normal((*MAPS, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.forward(x)[0], network.forward(x)[0])
    assert set(load(tmp_path/"c.h5").buffers) == set(kept) and checkpoint.layers == network.table()


@pytest.mark.parametrize("layer", [BatchNorm("layer"), Dropout("layer", 0.6)], ids=words)
def test_what_a_training_step_drew_or_took_is_not_cut_to_a_window(layer):
    """The mask and the statistics are the whole batch's: in evaluation a cone needs neither."""
    layer, x = alone(layer)
    regions = Regions(*np.zeros((2, 4), int), 1)
    _, cache = layer.forward(x, Step(7))
    with pytest.raises(TypeError, match="project in evaluation"):
        layer.cut_cache(cache, regions, regions)
    layer.cut_cache(layer.forward(x)[1], regions, regions)


ODD = {"name": (3, None, "", "a/b", "a"*101), "borders": ("x", 1), "rounding": ("up", None), "convention": ("max",),
       **dict.fromkeys(("F", "K", "S", "M", "groups", "n"), (0, -4, 4.0, "4", (3, 3), True, 2**30, np.array([3]))),
       **dict.fromkeys(("P", "seed", "number"), (-1, 1.0, None)), **dict.fromkeys(("top", "left"), (0.5, -2**30, None)),
       **dict.fromkeys(("alpha", "beta", "k"), (-1, np.nan, np.inf, "1", None)), "eps": (0, -1, np.nan, None),
       "momentum": (-0.1, 1.5, np.nan, True), "keep_prob": (0, 1.5, np.nan, "half")}


@pytest.mark.parametrize("layer", [next(one for one in LAYERS if type(one) is kind) for kind in KINDS.values()],
                         ids=lambda layer: type(layer).__name__)
def test_what_no_layer_has_is_refused_alike_in_python_and_in_a_table(layer):
    row = layer.fields()
    for key, values in ODD.items():
        for value in values if key in row else ():
            odd, whose = {**row, key: value}, row["kind"] if key == "name" else "layer"
            for made in (lambda: from_fields(odd), lambda: type(layer)(**{k: v for k, v in odd.items() if k != "kind"})):
                with pytest.raises(Expected, match=f"^{whose}: {key}: expected "):
                    made()


def test_numbers_of_numpy_are_taken_and_are_pythons_from_then_on():
    layer = Conv(np.str_("conv1"), np.int64(8), np.uint8(3), groups=np.int32(2))
    norm = LocalResponseNorm("norm1", alpha=np.float32(0.5), k=np.float64(1))
    assert layer == Conv("conv1", 8, 3, groups=2) and norm == LocalResponseNorm("norm1", alpha=0.5, k=1)
    assert json.loads(json.dumps([layer.fields(), norm.fields()])) == [layer.fields(), norm.fields()]
    assert Network("n", np.array([4, 9, 8]), [layer]).shapes == [(4, 9, 8), (8, 7, 6)]


def test_every_field_has_a_form():
    assert {one.name for kind in KINDS.values() for one in fields(kind)} == set(FORMS)
