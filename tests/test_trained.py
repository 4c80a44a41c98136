"""A trained network fits its mean image and its names, and its outputs can be put in another order."""
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.layers import BatchNorm, Flatten, Linear, ReLU
from zfcore.network import Network
from zfcore.trained import Trained

NAMES = ["ant", "bee", "cow"]
MEAN = np.full((3, 9, 7), 100, np.float32)


def network():
    """Something of its own for each output behind the last weights too."""
    made = Network("made", (3, 7, 5), [Flatten("flatten"), Linear("fc1", 4), ReLU("relu1"), Linear("fc2", 3), BatchNorm("bn2")])
    made.init(0, "he")
    rng = np.random.default_rng(1)
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


@pytest.mark.parametrize("others", [NAMES[:2], [*NAMES, "dog"], ["ant", "ant", "bee"], ["ant", "bee", "dog"]])
def test_other_classes_are_no_order_of_its_own(others):
    with pytest.raises(Expected, match="its own 3 in another order"):
        Trained(network(), MEAN, NAMES).with_classes(others)


@pytest.mark.parametrize("classes", [NAMES[:2], [*NAMES, "dog"], ["ant", "ant", "bee"]])
def test_names_that_are_not_one_for_each_output_are_refused(classes):
    with pytest.raises(Expected, match="made: classes: expected 3 different names"):
        Trained(network(), MEAN, classes)
    assert Trained(network(), MEAN).classes == ()                        # none are none


@pytest.mark.parametrize("shape, sentence", [((3, 9, 8), "the same rim"), ((3, 5, 3), "the same rim"),
                                             ((1, 9, 7), "mean image: expected shape"), ((9, 7), "mean image: expected shape")])
def test_a_mean_image_has_the_pictures_shape_and_the_same_rim_everywhere(shape, sentence):
    with pytest.raises(Expected, match=sentence):
        Trained(network(), np.zeros(shape, np.float32), NAMES)
