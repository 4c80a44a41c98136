"""A network in a row: its gradient is the derivative of its loss, its caches serve any rules, its errors name the layer."""
import importlib.util
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.deconvnet import GRADIENT, GUIDED, descend, project, skip
from zfcore.fusion import Unkept
from zfcore.layers import (AvgPool, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm, MaxPool, Pixelwise, ReLU,
                           Step)
from zfcore.models import build
from zfcore.network import Network
from zfcore.optim import SGD
from zfcore.ops.relu import relu_backward
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.trained import Trained


def small(keep_prob=0.7):
    """Every kind of layer, float64, sizes all different: 3x13x11 -> 5x7x6 -> 5x3x3 -> 8x3x3 -> 8x1x1."""
    network = Network("small", (3, 13, 11), [
        Conv("conv1", 6, K=3, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1", 3, 0.5, k=1.0),
        Conv("conv2", 8, K=2, P=1, groups=2), ReLU("relu2"), MaxPool("pool2", K=2, S=2),
        Flatten("flatten"), Linear("fc6", 7), ReLU("relu6"), Dropout("drop6", keep_prob), Linear("fc8", 4)])
    network.init(seed=3, law="he")
    rng = np.random.default_rng(1)
    for of_layer in network.parameters().values():
        of_layer["w"] = rng.standard_normal(of_layer["w"].shape)*0.5
        of_layer["b"] = rng.standard_normal(of_layer["b"].shape)*0.1
    return network, rng.standard_normal((3, 13, 11, 5)), np.array([0, 3, 1, 2, 3])


def loss_of(network, x, labels, step=4):
    return softmax_loss(network.forward(x, step)[0], labels)[0]


def gradients(network, x, labels, step=4):
    y, caches = network.forward(x, step)
    return network.backward(softmax_loss_backward(softmax_loss(y, labels)[1]), caches)


def test_the_gradient_is_the_derivative_of_the_loss_for_every_parameter_and_pixel():
    network, x, labels = small()
    dx, grads = gradients(network, x, labels)
    arrays = [(x, dx)] + [(of_layer[key], grads[name][key]) for name, of_layer in network.parameters().items() for key in "wb"]
    rng = np.random.default_rng(2)
    for array, gradient in arrays:
        for _ in range(4):
            direction = rng.standard_normal(array.shape)
            array += 1e-6*direction
            above = loss_of(network, x, labels)
            array -= 2e-6*direction
            below = loss_of(network, x, labels)
            array += 1e-6*direction
            assert (above - below)/2e-6 == pytest.approx((gradient*direction).sum(), rel=1e-5, abs=1e-8)


def test_dropout_draws_by_the_seed_that_the_network_was_drawn_with():
    network, *_ = small()
    one, same, other = (network.init(seed)["drop6"].forward(np.ones((7, 40)), Step(4))[0] for seed in (3, 3, 5))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_relu_computed_by_its_convolution_leaves_the_same_output_and_caches():
    network, x, _ = small()
    y, caches = network.forward(x)
    for layer, cache in zip(network.layers, caches):
        x, plain = layer.forward(x)
        if isinstance(layer, ReLU):
            np.testing.assert_array_equal(cache, plain)
    np.testing.assert_array_equal(y, x)


def test_training_keeps_no_map_between_a_convolution_and_its_pool_and_changes_no_bit():
    network, x, labels = small()
    logits, caches = network.forward(x, step=4)
    wanted, alone = one_by_one(network, x)
    np.testing.assert_array_equal(logits, wanted)
    below_a_pool = [k for k, pair in enumerate(pairwise(network.layers)) if tuple(map(type, pair)) == (ReLU, MaxPool)]
    assert below_a_pool and all(caches[k] is Unkept for k in below_a_pool)
    dy = softmax_loss_backward(softmax_loss(logits, labels)[1])
    (dx, grads), (dx_alone, grads_alone) = (network.backward(dy, kept) for kept in (caches, alone))
    np.testing.assert_array_equal(dx, dx_alone)
    for name, of_layer in grads.items():
        np.testing.assert_array_equal(of_layer["w"], grads_alone[name]["w"])


def test_a_way_down_that_a_training_step_kept_nothing_for_is_refused_in_a_sentence():
    network, x, _ = small()
    y, caches = network.forward(x, step=4)
    for back in (caches, deepcopy(caches)):
        for rules in (GUIDED, {MaxPool: MaxPool.data_gradient}):
            with pytest.raises(Expected, match=r"^caches: relu\d: expected those of an evaluation, .* got those of a training step"):
                network.backward(y, back, rules)
    at = [layer.name for layer in network.layers].index("relu1")
    relu1 = np.ones((*network.shapes[at + 1], x.shape[-1]), x.dtype)
    for ask in (lambda: network.backward(relu1, caches[:at + 1]),
                lambda: descend(network, relu1, caches[:at + 1], GUIDED, np.zeros((x.shape[-1], 2), int))):
        with pytest.raises(Expected, match=r"^caches: relu1: expected those of an evaluation"):
            ask()
    assert network.backward(y, caches, GRADIENT)[0].any()                         # which the pool above brings in


def one_by_one(network, x):
    """(y, caches) of a training step, each layer by itself."""
    caches = []
    for layer in network.layers:
        x, cache = layer.forward(x, Step(4))
        caches.append(cache)
    return x, caches


def test_activations_are_the_outputs_of_the_named_layers_the_convolutions_before_their_relu():
    network, x, _ = small()
    out = network.activations(x, ["conv1", "relu1", "fc8"])
    assert set(out) == {"conv1", "relu1", "fc8"} and out["conv1"].min() < 0
    np.testing.assert_array_equal(np.maximum(out["conv1"], 0), out["relu1"])
    np.testing.assert_allclose(out["fc8"], network.forward(x)[0])


def test_forward_until_a_layer_gives_its_output_and_caches_that_go_back_to_the_pixels():
    network, x, _ = small()
    y, caches = network.forward(x, until="pool1")
    np.testing.assert_array_equal(y, network.activations(x, ["pool1"])["pool1"])
    dx, grads = network.backward(np.ones_like(y), caches)
    assert len(caches) == 3 and dx.shape == x.shape and set(grads) == {"conv1"}


def test_the_same_caches_serve_several_backward_passes():
    network, x, labels = small()
    y, caches = network.forward(x, step=4)
    dy = softmax_loss_backward(softmax_loss(y, labels)[1])
    first, second = network.backward(dy, caches), network.backward(dy, caches)
    np.testing.assert_array_equal(first[0], second[0])


def test_a_rule_replaces_the_backward_of_its_kind_of_layer_and_of_no_other():
    network, x, _ = small()
    y, caches = network.forward(x, until="relu1")
    seen = []
    def rule(layer, dy, cache):
        seen.append(layer.name)
        return np.maximum(dy, 0)
    dx, _ = network.backward(-np.ones_like(y), caches, {ReLU: rule})
    assert seen == ["relu1"] and not dx.any()


def normalised_first():
    """AlexNet's order, the normalisation between ReLU and pool."""
    network = Network("alex", (3, 13, 11), [
        Conv("conv1", 6, K=3, S=2), ReLU("relu1"), LocalResponseNorm("norm1", 3, 0.5, k=1.0), MaxPool("pool1", K=3, S=2),
        Conv("conv2", 8, K=2, P=1), ReLU("relu2"), MaxPool("pool2", K=2, S=2)])
    network.init(seed=3, law="he")
    return network, np.random.default_rng(1).standard_normal((3, 13, 11, 5), np.float32), None


@pytest.mark.parametrize("make", [small, normalised_first])
def test_a_relu_whose_backward_the_layer_above_brings_in_leaves_every_gradient_as_it_is(make, monkeypatch):
    network, x, _ = make()
    y, caches = one_by_one(network, x)
    top = np.random.default_rng(5).standard_normal(y.shape).astype(y.dtype)
    dy, wanted = top, {}
    for layer, cache in zip(reversed(network.layers), reversed(caches)):                 # each layer by itself
        dy, grad = layer.backward(dy, cache)
        wanted[layer.name] = grad
    monkeypatch.setattr(ReLU, "backward", lambda layer, dy, cache: (relu_backward(dy, cache), {})
                        if layer.name == "relu6" else pytest.fail(f"a pass for {layer.name} alone"))
    dx, grads = network.backward(top, caches)
    assert dx.tobytes() == dy.tobytes()
    for name, of_layer in grads.items():
        assert of_layer["w"].tobytes() == wanted[name]["w"].tobytes() and of_layer["b"].tobytes() == wanted[name]["b"].tobytes()


@pytest.mark.parametrize("kind", [ReLU, MaxPool, LocalResponseNorm, Pixelwise, Layer])
@pytest.mark.parametrize("make", [small, normalised_first])
def test_a_rule_for_a_relu_or_for_the_layer_above_it_keeps_the_two_apart(make, kind):
    network, x, _ = make()
    y, caches = network.forward(x)
    seen = []
    def rule(layer, dy, cache):
        seen.append(layer.name)
        return layer.data_gradient(dy, cache)
    top = np.random.default_rng(5).standard_normal(y.shape).astype(y.dtype)
    np.testing.assert_array_equal(network.backward(top, caches, {kind: rule})[0], network.backward(top, caches)[0])
    assert seen == [layer.name for layer in reversed(network.layers) if isinstance(layer, kind)]


def test_caches_that_end_at_a_relu_below_a_pool_go_back_through_it():
    network, x, _ = small()
    y, caches = network.forward(x, until="relu1")
    dx, _ = network.backward(np.ones_like(y), caches)
    plain, _ = network["conv1"].backward((y > 0).astype(float), caches[0])
    np.testing.assert_array_equal(dx, plain)


def test_training_leaves_out_the_gradient_of_the_pixels_and_changes_no_other():
    network, x, labels = small()
    y, caches = network.forward(x, step=4)
    dy = softmax_loss_backward(softmax_loss(y, labels)[1])
    (dx, all_of), (none, rest) = network.backward(dy, caches), network.backward(dy, caches, to_pixels=False)
    assert dx is not None and none is None
    for name in all_of:
        np.testing.assert_array_equal(all_of[name]["w"], rest[name]["w"])


def test_gradients_and_projections_have_the_same_bits_on_any_number_of_cores(monkeypatch):
    network, x = build("tiny", 3), np.random.default_rng(0).standard_normal((3, 96, 96, 5), np.float32)
    network.init(0)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(cpu, "CORES", cores)
        dw = gradients(network, x, np.array([0, 2, 1, 1, 0]))[1]
        found.append([array.tobytes() for of_layer in dw.values() for array in of_layer.values()]
                     + [project(network, x, layer.name, np.arange(5)).pixels.tobytes() for layer in network.convolutions])
    assert found[0] == found[1] == found[2]


def test_a_copy_computes_alike_in_the_same_precision_and_its_arrays_may_be_replaced():
    network, x, _ = small()
    network["conv1"].precision = "tf32"                      # as `use` says it on a GPU
    twin = network.copy()
    assert twin["conv1"].precision == "tf32" and twin.table() == network.table()
    assert twin["conv1"].parameters["w"] is network["conv1"].parameters["w"]
    before = network["conv1"].parameters["w"]
    twin["conv1"].parameters["w"] = 0*before
    assert network["conv1"].parameters["w"] is before and before.any()


def test_dropout_draws_anew_in_every_step_and_does_nothing_in_evaluation():
    network, x, _ = small()
    one, again, other, plain = (network.forward(x, step)[0] for step in (1, 1, 2, None))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and (one != plain).any()


def test_two_dropout_layers_drop_different_units():
    network = build("tiny", 10)
    drops = [layer for layer in network.layers if isinstance(layer, Dropout)]
    assert drops[0].number != drops[1].number
    ones = np.ones((256, 9), np.float32)
    assert (drops[0].forward(ones, Step(0))[0] != drops[1].forward(ones, Step(0))[0]).any()


def test_init_is_gaussian_with_std_a_hundredth_and_zero_biases_or_he_on_request():
    paper, he = build("tiny", 10).init(1), build("tiny", 10).init(1, "he")
    assert paper["fc6"].parameters["w"].std() == pytest.approx(0.01, rel=0.02)
    assert he["conv3"].parameters["w"].std() == pytest.approx(np.sqrt(2/(64*9)), rel=0.02)
    assert he["conv1"].parameters["w"].std() == pytest.approx(np.sqrt(2/147)/8, rel=0.05)
    assert he["fc8"].parameters["w"].std() == pytest.approx(np.sqrt(2/256)/64, rel=0.05)
    assert not any(of_layer["b"].any() for of_layer in paper.parameters().values())


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, 1.0, "1", True, None, [1], np.float32(1)])
def test_a_seed_is_a_whole_number(seed):
    network = build("tiny", 10)
    with pytest.raises(Expected, match="^seed: expected a whole number from 0 to"):
        network.init(seed)
    assert network.drawn is None and not network.parameters()
    assert network.init(np.int64(3)).drawn == (3, "gaussian") and type(network.drawn[0]) is int


def test_init_depends_on_the_seed_and_on_the_layers_own_name_only():
    a, b, c = build("tiny", 10).init(1), build("tiny", 7).init(1), build("tiny", 10).init(2)
    np.testing.assert_array_equal(a["conv4"].parameters["w"], b["conv4"].parameters["w"])
    assert (a["conv4"].parameters["w"] != c["conv4"].parameters["w"]).any()
    assert (a["conv3"].parameters["w"].ravel()[:99] != a["conv4"].parameters["w"].ravel()[:99]).any()


def test_wrong_inputs_are_answered_in_one_sentence():
    network, x, _ = small()
    with pytest.raises(Expected, match=r"expected shape \(3, 13, 11, any\), got \(3, 11, 13, 5\)"):
        network.forward(x.transpose(0, 2, 1, 3))
    with pytest.raises(Expected, match="one of conv1, relu1.*got 'conv9'"):
        network["conv9"]
    with pytest.raises(Expected, match="relu1 twice"):
        Network("twice", (3, 8, 8), [ReLU("relu1"), ReLU("relu1")])
    with pytest.raises(Expected, match="put a Flatten before it"):
        Network("flat", (3, 8, 8), [Linear("fc6", 4)])
    with pytest.raises(Expected, match="2 groups"):
        Network("odd", (3, 8, 8), [Conv("conv1", 4, 3, groups=2)])


UP = [lambda network, x: network.forward(x), lambda network, x: network.forward(x, until="relu1"),
      lambda network, x: list(network.steps(x)), lambda network, x: network.activations(x, ["fc8"]),
      lambda network, x: project(network, x, "conv1", [0, 0])]


@pytest.mark.parametrize("runs", UP)
def test_no_pictures_and_pictures_of_another_dtype_are_told(runs):
    network, x = build("tiny", 10, 32).init(0), np.zeros((3, 32, 32, 2), np.float32)
    with pytest.raises(Expected, match="^tiny: pictures: expected one or more, got none"):
        runs(network, x[..., :0])
    for strange in ("float64", "float16", "uint8"):
        with pytest.raises(Expected, match=rf"^tiny: pictures: expected float32, got {strange}; .*astype\(np.float32\)"):
            runs(network, x.astype(strange))
    for layer in network.weighted:
        layer.parameters = {key: array.astype(np.float64) for key, array in layer.parameters.items()}
    runs(network, x.astype(np.float64))
    with pytest.raises(Expected, match="^tiny: pictures: expected float64, got float32"):
        runs(network, x)


def test_caches_of_another_network_and_a_signal_of_another_shape_are_told():
    network, x, _ = small()
    y, caches = network.forward(x)
    for other in (small()[0].copy(), small()[0]):            # these are alike
        other.backward(y, caches)
    for instead in (Conv("conv1", 8, K=3, S=2), AvgPool("pool1", K=3, S=2)):
        other = Network("other", (3, 13, 11), [instead if layer.name == instead.name else layer for layer in network.layers])
        for down in (other.backward, lambda dy, caches: descend(other, dy, caches)):
            with pytest.raises(Expected, match="^caches: expected those of this network, other, got those of another, small"):
                down(y, caches)
    for odd, sentence in ((None, "list or tuple, got None"), (3, "list or tuple, got int"),
                          ([*caches, None], "one for each of 12 layers, got 13")):
        with pytest.raises(Expected, match=f"^caches: expected {sentence}"):
            network.backward(y, odd)
    for dy, of in ((y[:3], caches), (y, caches[:-1]), (y, []), (None, caches), (y.astype(np.float32), caches), (y.astype(int), caches)):
        for down in (network.backward, lambda dy, caches: descend(network, dy, caches)):
            with pytest.raises(Expected, match="^small: dy: expected"):
                down(dy, of)


@pytest.mark.parametrize("runs", [
    *UP, lambda network, x: network.use("fp32"),
    lambda network, x: Trained(network, np.zeros((3, 32, 32), np.float32)).probabilities(np.zeros((1, 32, 32, 3), np.uint8))])
def test_a_network_without_weights_says_how_it_gets_them(runs):
    network, x = build("tiny", 10, 32), np.zeros((3, 32, 32, 2), np.float32)
    with pytest.raises(Expected, match=r"^tiny: conv1: expected weights, got none yet; init\(seed\) draws .* load\("):
        runs(network, x)
    runs(network.init(0), x)
    network["fc8"].parameters = {}
    with pytest.raises(Expected, match="^tiny: fc8: expected weights"):
        runs(network, x)


@pytest.mark.parametrize("shape, layers, sentence", [
    ((3, 9, 9), [ReLU], "network odd: expected layers, got the class ReLU; ReLU\\(...\\) makes a layer"),
    ((3, 9, 9), ["relu"], "network odd: expected layers, whose kinds zfcore.layers has, got 'relu'$"),
    ((3, 9, 9), [None], "network odd: expected layers, .*, got None$"),
    ((3, 30.5, 9), [ReLU("relu")], r"network odd: input\[1\]: expected a whole number .*, got 30.5"),
    ((3, 0, 9), [ReLU("relu")], r"network odd: input\[1\]: expected a whole number from 1"),
    ((3, 9), [ReLU("relu")], "network odd: input: expected a list of 3"), (9, [ReLU("relu")], "network odd: input: expected a list")])
def test_what_is_no_network_is_refused_when_it_is_made(shape, layers, sentence):
    with pytest.raises(Expected, match=sentence):
        Network("odd", shape, layers)


def another_class(name):
    """A kind of layer of the same name as one of zfcore's, as a module that is loaded again has."""
    return type(name, (Pixelwise,), {})


@pytest.mark.parametrize("rules", [{another_class("ReLU"): skip}, {another_class("Conv"): skip}])
@pytest.mark.parametrize("top", ["relu", "pool"])
def test_rules_for_another_class_of_the_same_name_are_no_gradient_without_a_word(rules, top):
    """Of a pool too, whose gradient brings the ReLU's with it."""
    layers = [Conv("conv", 4, K=3), ReLU("relu"), MaxPool("pool", K=3, S=2)]
    network, x = Network("n", (3, 9, 9), layers).init(0, "he"), np.ones((3, 9, 9, 2), np.float32)
    y, caches = network.forward(x, until=top)
    with pytest.raises(Expected, match="rules: (ReLU|Conv): expected the class that layer (relu|conv) is of, got "):
        network.backward(y, caches, rules)
    with pytest.raises(Expected, match="rules: (ReLU|Conv): "):
        descend(network, y, caches, rules, np.zeros((2, 2), int))
    network.backward(y, caches, {BatchNorm: skip})           # which it has not: no harm


def test_a_module_of_layers_that_was_loaded_again_is_told():
    """As `importlib.reload` and notebooks do."""
    spec = importlib.util.find_spec("zfcore.layers")
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    with pytest.raises(Expected, match="network n: expected layers, .* got ReLU.*; zfcore.layers was loaded a second time"):
        Network("n", (3, 9, 9), [again.ReLU("relu")])
    _, caches = Network("n", (3, 9, 9), [ReLU("relu")]).forward(x := np.ones((3, 9, 9, 2), np.float32))
    with pytest.raises(Expected, match="rules: .*zfcore.layers was loaded a second time"):
        Network("n", (3, 9, 9), [ReLU("relu")]).backward(x, caches, {again.ReLU: skip})


def test_a_network_tells_what_it_is():
    assert repr(build("tiny", 10)) == "<Network tiny: 3x96x96 pictures, 23 layers, 369,962 parameters>"


def test_load_refuses_other_layers_other_shapes_and_nan():
    network, other = build("tiny", 10).init(0), build("tiny", 9).init(0)
    with pytest.raises(Expected, match=r"fc8.w: expected shape \(256, 10\), got \(256, 9\)"):
        network.load(other.parameters())
    with pytest.raises(Expected, match="the layers conv1, .*fc8, got conv1"):
        network.load({"conv1": network["conv1"].parameters})
    spoilt = {name: dict(of_layer) for name, of_layer in network.parameters().items()}
    spoilt["conv2"]["b"] = np.full(64, np.nan, np.float32)
    with pytest.raises(Expected, match="conv2.b: expected finite values, got 64 of 64"):
        network.load(spoilt)


@pytest.mark.parametrize("odd, sentence", [
    (np.full(4, 1e300), "fc2.b in float32: expected finite values, got 4 of 4"),
    (np.array([1, 2, 1e39, 4]), "fc2.b in float32: expected finite values, got 1 of 4"),
    (np.ones(4, np.complex64), "fc2.b: expected real numbers, got complex64"), (np.array(list("abcd")), "fc2.b: expected real numbers, got <U1"),
    (np.array([None]*4), "fc2.b: expected real numbers, got object"), (np.ones(4, bool), "fc2.b: expected real numbers, got bool")], ids=str)
def test_load_takes_real_numbers_that_float32_holds_alone_and_leaves_the_network_as_it_was(odd, sentence):
    network = Network("n", (2, 1, 1), [Flatten("flatten"), Linear("fc2", 4)]).init(0)
    before = network["fc2"].parameters
    with pytest.raises(Expected, match=f"^{sentence}"):
        network.load({"fc2": {"w": np.ones((2, 4), np.float32), "b": odd}})
    assert network["fc2"].parameters is before


def test_load_shares_arrays_of_float32_in_c_order_and_copies_all_others():
    network = Network("n", (2, 1, 1), [Flatten("flatten"), Linear("fc2", 4)])
    for w, shared in ((np.ones((2, 4), np.float32), True), (np.ones((2, 4), np.float32, "F"), False), (np.ones((2, 4), int), False),
                      (np.ones((2, 4), ">f4"), False), (np.ones((2, 8), np.float32)[:, ::2], False)):
        kept = network.load({"fc2": {"w": w, "b": np.ones(4, np.float16)}})["fc2"].parameters["w"]
        assert (kept is w) == shared == np.shares_memory(kept, w) and kept.dtype == np.float32 and kept.flags.c_contiguous


def test_what_a_network_has_loaded_can_be_trained_though_it_may_not_be_written_into():
    """As what stands in a file that is mapped."""
    layers = [Conv("conv1", 3, K=3, S=2), BatchNorm("norm1"), Flatten("flatten"), Linear("fc2", 4)]
    one, other = Network("n", (2, 7, 6), layers).init(0), Network("n", (2, 7, 6), layers)
    given = one.parameters(), one.buffers()
    for arrays in given:
        for of_layer in arrays.values():
            for array in of_layer.values():
                array.flags.writeable = False
    other.load(given[0], buffers=given[1])
    for arrays, loaded in zip(given, (other.parameters(), other.buffers())):
        for name, of_layer in arrays.items():
            for key, array in of_layer.items():
                assert not np.shares_memory(array, loaded[name][key]) and (array == loaded[name][key]).all()
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 5), np.float32)
    y, caches = other.forward(x)
    SGD(other).step(other, other.backward(y, caches, to_pixels=False)[1], 0.1)
    assert (given[0]["fc2"]["w"] != other["fc2"].parameters["w"]).any()


def test_layers_given_to_two_networks_are_those_of_neither():
    """What a network tells its layers, their place, seed and precision, another one does not hear; their arrays they share."""
    shared = [Conv("conv1", 3, K=3, S=2), ReLU("relu1"), AvgPool("pool1", K=3, S=2, P=1), Dropout("drop1", 0.5),
              Flatten("flatten"), Linear("fc2", 2)]
    first = Network("first", (3, 13, 11), shared).init(seed=1, law="he")
    x = np.random.default_rng(0).standard_normal((3, 13, 11, 4)).astype(np.float32)
    before, caches = first.forward(x, 5)
    other = Network("other", (3, 13, 12), [ReLU("relu0"), *first.layers[:-1]])
    other["drop1"].seed = 99
    np.testing.assert_array_equal(first.forward(x, 5)[0], before)
    assert first["conv1"].parameters["w"] is other["conv1"].parameters["w"]
    other["conv1"].parameters["w"] = first["conv1"].parameters["w"]*2
    np.testing.assert_array_equal(first.forward(x, 5)[0], before)
    assert all(layer.parameters == {} for layer in shared)


def test_a_network_without_weights_has_nothing_to_draw():
    network = Network("shapes", (3, 8, 8), [MaxPool("pool1", K=2, S=2), ReLU("relu1")]).init(0, "he")
    y, _ = network.forward(np.ones((3, 8, 8, 2), np.float32))
    assert y.shape == (3, 4, 4, 2) and not any(layer.parameters for layer in network.layers)
