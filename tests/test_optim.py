"""The step is the paper's; the plateau rule is what a person watching the validation error would do."""
from dataclasses import dataclass

import numpy as np
import pytest

from zfcore.layers import Pixelwise
from zfcore.models import build
from zfcore.network import Network
from zfcore.ops.clip_filter_rms import rms
from zfcore.optim import SGD, Plateau, decay_that_leaves, start_left


def with_gradients(value=1.0):
    network = build("tiny", 10).init(0)
    grads = {name: {key: np.full_like(array, value) for key, array in of_layer.items()}
             for name, of_layer in network.parameters().items()}
    return network, grads


def test_momentum_makes_the_second_step_longer_by_its_factor():
    network, grads = with_gradients()
    before = network["fc6"].parameters["b"].copy()
    optimizer = SGD(network, momentum=0.9)
    optimizer.step(network, grads, lr=0.1)
    np.testing.assert_allclose(network["fc6"].parameters["b"] - before, -0.1, rtol=1e-6)
    optimizer.step(network, grads, lr=0.1)
    np.testing.assert_allclose(network["fc6"].parameters["b"] - before, -0.1 - 0.19, rtol=1e-6)


def test_weight_decay_shrinks_weights_and_leaves_biases_alone():
    network, grads = with_gradients(0.0)
    network["fc6"].parameters["b"] += 1
    w = network["fc6"].parameters["w"].copy()
    SGD(network, weight_decay=0.5).step(network, grads, lr=0.1)
    np.testing.assert_allclose(network["fc6"].parameters["w"], w*0.95, rtol=1e-5)
    assert (network["fc6"].parameters["b"] == 1).all()


def test_weight_decay_falls_on_no_other_layer_s_w():
    """A parameter may have any name: what makes it a weight is that its layer has some."""
    @dataclass
    class Scale(Pixelwise):
        def parameter_shapes(self, shape):
            return {"w": (1,)}

        def init(self, shape, seed, law, factor):
            return {"w": np.ones(1, np.float32)}, {}

        forward = backward = cut_cache = None

    network = Network("scaled", (1, 2, 2), [Scale("scale")]).init()
    SGD(network, weight_decay=0.5).step(network, {"scale": {"w": np.zeros(1, np.float32)}}, lr=0.1)
    assert network["scale"].parameters["w"] == 1


def test_convolution_filters_are_kept_at_the_rms_limit_and_counted_and_linear_layers_are_not():
    network, grads = with_gradients(0.0)
    for name in ("conv1", "conv3", "fc6"):
        network[name].parameters["w"] *= 100
    clamped = np.full((), 5.0)
    SGD(network, rms_max=0.1).step(network, grads, lr=0.1, clamped=clamped)
    assert clamped == 5 + 24 + 96
    np.testing.assert_allclose(rms(network["conv1"].parameters["w"]), 0.1, rtol=1e-5)
    assert rms(network["fc6"].parameters["w"]).min() > 0.5
    network["conv1"].parameters["w"] *= 100
    SGD(network, rms_max=None).step(network, grads, lr=0.1, clamped=clamped)
    assert clamped == 5 + 24 + 96


def test_plateau_divides_by_ten_after_patience_epochs_without_improvement():
    rule = Plateau(0.01, patience=2)
    assert [rule.update(e) for e in (0.5, 0.4, 0.41, 0.4)] == [False, False, False, True]
    assert rule.lr == pytest.approx(0.001)


def test_plateau_counts_a_fall_below_its_margin_as_none_and_starts_again_after_a_real_one():
    rule = Plateau(1.0, patience=2, margin=0.1)
    assert [rule.update(e) for e in (0.5, 0.46, 0.3, 0.29, 0.28)] == [False, False, False, False, True]


def test_plateau_lowers_the_rate_three_times_at_most():
    rule = Plateau(1.0, patience=1)
    assert [rule.update(1.0) for _ in range(6)] == [False, True, True, True, False, False]
    assert rule.lr == pytest.approx(1e-3)


@pytest.mark.parametrize("momentum, weight_decay", [(0.9, 0.03), (0.0, 0.3), (0.7, 0.2)])
def test_what_is_left_of_the_start_is_what_decay_takes_where_nothing_is_learned(momentum, weight_decay):
    network, grads = with_gradients(0.0)
    start = network["fc7"].parameters["w"].copy()
    optimizer, rates = SGD(network, momentum, weight_decay, rms_max=None), [0.004]*150 + [0.0004]*50
    for lr in rates:
        optimizer.step(network, grads, lr)
    left = network["fc7"].parameters["w"]/start
    np.testing.assert_allclose(left, start_left(sum(rates), momentum, weight_decay), rtol=0.02)


def test_the_decay_that_leaves_a_share_of_the_start_leaves_it():
    assert start_left(3.7, 0.8, decay_that_leaves(0.3, 3.7, 0.8)) == pytest.approx(0.3)
    assert decay_that_leaves(1, 3.7, 0.8) == 0 and start_left(3.7, 0.8, 0) == 1
