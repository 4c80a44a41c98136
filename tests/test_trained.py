"""A trained network fits its mean image and its names, and its outputs can be put in another order."""
import inspect
import pickle
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

import zfcore
from zfcore.analysis.sanity_checks import shares_of_start
from zfcore.check import Expected
from zfcore.data.synthetic import Synthetic
from zfcore.layers import BatchNorm, Flatten, Linear, ReLU
from zfcore.network import Network
from zfcore.trained import Trained
from zfcore.trained import open as open_trained

NAMES = ["ant", "bee", "cow"]
MEAN = np.full((3, 9, 7), 100, np.float32)


def network(seed=1):
    """Something of its own for each output behind the last weights too."""
    made = Network("made", (3, 7, 5), [Flatten("flatten"), Linear("fc1", 4), ReLU("relu1"), Linear("fc2", 3), BatchNorm("bn2")])
    made.init(0, "he")
    rng = np.random.default_rng(seed)
    for of_layer in (*made.parameters().values(), *made.buffers().values()):
        for key, array in of_layer.items():
            of_layer[key] = (rng.random(array.shape) + 0.5).astype(np.float32)
    return made


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2], [0, 1, 2]])
def test_outputs_in_another_order_are_the_same_outputs(order):
    model, x = Trained(network(), MEAN, NAMES), np.random.default_rng(2).standard_normal((3, 7, 5, 4)).astype(np.float32)
    turned = model.with_classes([NAMES[k] for k in order])
    np.testing.assert_array_equal(turned.network.forward(x)[0], model.network.forward(x)[0][order])
    assert model.classes == NAMES and turned.classes == [NAMES[k] for k in order]


def test_a_network_in_another_order_began_in_that_order():
    model, pictures = Trained(network(), MEAN, NAMES, begun=partial(network, 5)), np.full((2, 9, 7, 3), 50, np.uint8)
    for order in ([2, 0, 1], [2, 1, 0]):
        turned = model.with_classes([model.classes[k] for k in order])
        for of in (turned, pickle.loads(pickle.dumps(turned))):
            np.testing.assert_array_equal(of.untrained().probabilities(pictures), model.untrained().probabilities(pictures)[order])
            assert shares_of_start(of.network, of.start) == pytest.approx(shares_of_start(model.network, model.start), rel=1e-9)
        model = turned                                             # and from there into another one
    for unknown in (None, lambda: None):
        assert Trained(network(), MEAN, NAMES, begun=unknown).with_classes(NAMES[::-1]).start is None


@pytest.mark.parametrize("others", [NAMES[:2], [*NAMES, "dog"], ["ant", "ant", "bee"], ["ant", "bee", "dog"]])
def test_other_classes_are_no_order_of_its_own(others):
    with pytest.raises(Expected, match="its own 3 in another order"):
        Trained(network(), MEAN, NAMES).with_classes(others)


@pytest.mark.parametrize("classes", [NAMES[:2], [*NAMES, "dog"], ["ant", "ant", "bee"]])
def test_names_that_are_not_one_for_each_output_are_refused(classes):
    with pytest.raises(Expected, match="made: classes: expected 3 different names"):
        Trained(network(), MEAN, classes)
    assert Trained(network(), MEAN).classes == ()                        # none are none


def test_names_that_can_be_asked_once_only_or_that_numpy_holds_are_a_list():
    for given in (iter(NAMES), np.array(NAMES)):
        model = Trained(network(), MEAN, given)
        assert model.classes == NAMES and model.with_classes(iter(NAMES[::-1])).classes == NAMES[::-1]


ODD = None, 3, -1, 1.5, "x", object(), [], [None], {}, np.nan, np.zeros((3, 9, 7), int), lambda: None
TAKEN = {"classes": [[]], "epoch": [3], "data": [None, "x"], "path": [None, "x"], "begun": [None, ODD[-1]], "history": [{}],
         "val_fraction": [3, -1, 1.5], "limit_per_class": [3]}


@pytest.mark.parametrize("word", [field.name for field in fields(Trained)])
def test_what_no_trained_network_is_made_of_is_refused(word):
    for odd in ODD:
        if any(odd is one or type(odd) is type(one) and odd == one for one in TAKEN.get(word, ())):
            Trained(**{"network": network(), "mean": MEAN, word: odd})
        else:
            with pytest.raises(Expected, match=f"^({word}|made: (mean image|classes)): expected "):
                Trained(**{"network": network(), "mean": MEAN, word: odd})
    for odd in ODD:
        with pytest.raises(Expected, match="^made: classes: expected "):
            Trained(network(), MEAN, NAMES).with_classes(odd)


@pytest.mark.parametrize("shape, sentence", [((3, 9, 8), "the same rim"), ((3, 5, 3), "the same rim"),
                                             ((1, 9, 7), "mean image: expected shape"), ((9, 7), "mean image: expected shape")])
def test_a_mean_image_has_the_pictures_shape_and_the_same_rim_everywhere(shape, sentence):
    with pytest.raises(Expected, match=sentence):
        Trained(network(), np.zeros(shape, np.float32), NAMES)


def test_a_mean_image_is_of_the_dtype_that_the_network_computes_in():
    with pytest.raises(Expected, match=r"^made: mean image: expected float32, got float64; .*astype\(np.float32\)"):
        Trained(network(), MEAN.astype(float))


@pytest.mark.parametrize("path", [3, None, b"drawn", ["drawn"], ""])
def test_what_is_no_path_is_one_sentence(path):
    with pytest.raises(Expected, match="expected a run's folder, a checkpoint file or one of drawn"):
        open_trained(path)


# --------------------------------------------------------------------------------------------- pictures of another size
@pytest.fixture(scope="module")
def drawn():
    """A network for pictures of 110 pixels, whose crops have 96; such pictures, and what of them excites it most."""
    model = zfcore.open("drawn")
    right = zfcore.Pictures(Synthetic("val", 10, 110), 110, 96)
    return model, right, zfcore.top_activations(model, right, ["conv5"], k=1)


TAKES_PICTURES = {
    "Trained.inputs": lambda model, wrong, images, top: model.inputs(images),
    "Trained.probabilities": lambda model, wrong, images, top: model.probabilities(images),
    "top_activations": lambda model, wrong, images, top: zfcore.top_activations(model, wrong, ["conv5"]),
    "unit_views": lambda model, wrong, images, top: zfcore.unit_views(model, wrong, top, "conv5", [3]),
    "evolution": lambda model, wrong, images, top: zfcore.evolution([model], wrong, ["conv5"], {"conv5": [3]}),
    "diagnose": lambda model, wrong, images, top: zfcore.diagnose(model, wrong, [3]),
    "occlusion": lambda model, wrong, images, top: zfcore.occlusion(model, images),
    "sanity_checks": lambda model, wrong, images, top: zfcore.sanity_checks(model, wrong, top, "conv5", [3]),
    "matching": lambda model, wrong, images, top: zfcore.matching(model, wrong, model, wrong, ["conv5"]),
    "evaluate": lambda model, wrong, images, top: zfcore.training.evaluate([model], wrong)}


@pytest.mark.parametrize("name", TAKES_PICTURES)
def test_pictures_of_another_size_are_told_as_the_caller_has_them(drawn, name):
    """96 pixels, as what enters the network has; the sentence is about what was given, not about what was made of it."""
    model, _, top = drawn
    wrong = zfcore.Pictures(Synthetic("val", 10, 96), 96, 96)
    images = np.stack([wrong.picture(i) for i in range(2)])
    with pytest.raises(Expected, match=r"^pictures: expected shape \(any, 110, 110, 3\), got \(\d+, 96, 96, 3\)"):
        TAKES_PICTURES[name](model, wrong, images, top)


def test_every_analysis_of_pictures_is_asked():
    """Those that are not take crops or pictures of any size, no pictures, or what others found."""
    asked = {name.rpartition(".")[2] for name in TAKES_PICTURES}
    takes = {name for name in zfcore.__all__ if "pictures" in parameters_of(getattr(zfcore, name))}
    assert takes - asked == {"correspondence", "invariance"}


def parameters_of(thing):
    return inspect.signature(thing).parameters if inspect.isfunction(thing) else ()


@pytest.mark.parametrize("ask", [
    lambda model: model.prepared(Synthetic("val", 10, 96)),
    lambda model: zfcore.invariance(model, np.zeros((1, 9, 9, 3), np.uint8)),
    lambda model: zfcore.correspondence(model, np.zeros((2, 7, 5, 3), np.uint8), np.ones((2, 1, 2), int), ["eye"])])
def test_a_network_that_sees_no_squares_is_told_where_pictures_would_be_cut(ask):
    with pytest.raises(Expected, match="^made: expected a network that sees squares, got one that sees 7x5 pixels; arrays of that form"):
        ask(Trained(network(), MEAN, NAMES))
    assert Trained(network(), MEAN, NAMES).probabilities(np.zeros((1, 9, 7, 3), np.uint8)).shape == (3, 1)
