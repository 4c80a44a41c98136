"""The deconvnet: backward with the paper's rules, held against PyTorch's autograd with its ReLU and LRN replaced."""
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.deconvnet import (DECONVNET, GRADIENT, GUIDED, descend, feature_layer, find_places, project, start_signal)
from zfcore.layers import Conv, Flatten, Linear, LocalResponseNorm, LocalResponseNormWithin, MaxPool, ReLU
from zfcore.models.zfnet import zfnet
from zfcore.network import Network

N = 4


def randomised(network, seed=0):
    """Float64 parameters, biases and gains large enough to leave no layer silent and to make the norm bite."""
    rng = np.random.default_rng(seed)
    network.init(0, "he")
    for of_layer in network.parameters().values():
        w, b = of_layer["w"], of_layer["b"]
        of_layer["w"] = rng.standard_normal(w.shape)*np.sqrt(3/np.prod(w.shape[:-1]))
        of_layer["b"] = rng.standard_normal(b.shape)*0.3
    for layer in network.layers:
        if isinstance(layer, LocalResponseNorm):
            layer.alpha = 0.8
    return network, rng.standard_normal((*network.input_shape, N))


def small_zfnet(size=79):
    """Every layer of ZFNet: 79, 37, 18, 8, 4, 4, 4, 4, 2 pixels."""
    return randomised(zfnet(classes=5, size=size, maps=(6, 8, 10, 7, 9), units=(11, 12)))


def odd():
    """Oblong maps, padding at every window, groups, the norm before the pool, strides of 3."""
    return randomised(Network("odd", (3, 61, 47), [
        Conv("conv1", 6, K=3, S=2, P=1), ReLU("relu1"), LocalResponseNorm("norm1", n=3), MaxPool("pool1", K=3, S=2, P=1),
        Conv("conv2", 8, K=4, S=1, P=2, groups=2), ReLU("relu2"), Conv("conv3", 5, K=3, P=1), ReLU("relu3")]))


def projectable(network):
    return [layer.name for layer in network.layers if not isinstance(layer, Flatten)]


def some_units(network, layer, x):
    """A unit per picture that is on, where the layer has one."""
    y = network.forward(x, until=network.layers[feature_layer(network, layer)].name)[0]
    return y.reshape(len(y), -1, x.shape[-1]).max(axis=1).argsort(axis=0)[-2]


def close(a, b, digits=1e-10):
    assert np.abs(b).max() > 0, "nothing to compare"
    np.testing.assert_allclose(a, b, rtol=0, atol=digits*np.abs(b).max())


# ------------------------------------------------------------------------------------------- the independent oracle
def autograd(network, x, layer, units, relu_rule=None, norm_is_skipped=True, start=None):
    """The same projection by PyTorch: its own layers, its own gradients, a ReLU and an LRN whose backward is replaced."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    class DeconvReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, dy):
            return relu_rule(dy, ctx.saved_tensors[0])

    class Unseen(torch.autograd.Function):
        """value(x) on the way up, the identity on the way down."""
        @staticmethod
        def forward(ctx, x, value):
            return value

        @staticmethod
        def backward(ctx, dy):
            return dy, None

    def windows(y, H, W, K, S, P):
        """Zeros at the right and the bottom, until as many windows fit as zfcore's rounding up gives."""
        return functional.pad(y, (P, max(0, (W - 1)*S + K - P - y.shape[3]), P, max(0, (H - 1)*S + K - P - y.shape[2])))

    pixels = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)
    y = pixels
    for k in range(feature_layer(network, layer) + 1):
        one, shape = network.layers[k], network.shapes[k + 1]
        if isinstance(one, Conv):
            w = torch.tensor(one.parameters["w"].transpose(3, 0, 1, 2).copy())
            y = windows(y, *shape[1:], one.K, one.S, one.P)
            y = functional.conv2d(y, w, torch.tensor(one.parameters["b"]), stride=one.S, groups=one.groups)
            y = y[:, :, :shape[1], :shape[2]]
        elif isinstance(one, MaxPool):
            y = functional.max_pool2d(y, one.K, one.S, one.P, ceil_mode=True)
        elif isinstance(one, ReLU):
            y = torch.relu(y) if relu_rule is None else DeconvReLU.apply(y)
        elif isinstance(one, LocalResponseNorm):
            normed = functional.local_response_norm(y, one.n, one.alpha, one.beta, one.k)
            y = Unseen.apply(y, normed.detach()) if norm_is_skipped else normed
        elif isinstance(one, Flatten):
            y = y.flatten(1)
        elif isinstance(one, Linear):
            y = y @ torch.tensor(one.parameters["w"]) + torch.tensor(one.parameters["b"])
    flat = y.reshape(len(y), y.shape[1], -1)
    strongest = flat[torch.arange(N), torch.tensor(units)].max(dim=1).values
    (strongest.sum() if start else (strongest*strongest.detach()).sum()).backward()
    return pixels.grad.numpy().transpose(1, 2, 3, 0), strongest.detach().numpy()


def rectify(dy, x):
    return dy.clamp(min=0)


@pytest.mark.parametrize("make", [small_zfnet, odd])
def test_every_layer_projects_as_autograd_does_whose_relu_acts_on_the_signal_and_whose_norm_is_skipped(make):
    network, x = make()
    for layer in projectable(network):
        units = some_units(network, layer, x)
        pixels, values = autograd(network, x, layer, units, rectify)
        projection = project(network, x, layer, units)
        close(projection.pixels, pixels)
        np.testing.assert_allclose(projection.values, values, rtol=1e-12)


def test_guided_backpropagation_is_autograd_whose_relu_acts_on_the_signal_and_where_it_was_off():
    network, x = small_zfnet()
    for layer in ("conv2", "conv4", "fc7", "fc8"):
        units = some_units(network, layer, x)
        pixels, _ = autograd(network, x, layer, units, lambda dy, x: dy.clamp(min=0)*(x > 0), norm_is_skipped=False)
        close(project(network, x, layer, units, rules=GUIDED).pixels, pixels)


def test_without_its_rules_for_relu_and_norm_the_deconvnet_is_the_gradient():
    network, x = small_zfnet()
    for layer in ("conv2", "conv5", "fc8"):
        units = some_units(network, layer, x)
        gradient, _ = autograd(network, x, layer, units, norm_is_skipped=False, start=1)
        without = {kind: rule for kind, rule in DECONVNET.items() if kind not in (ReLU, LocalResponseNorm)}
        close(project(network, x, layer, units, rules=without, start=1).pixels, gradient)
        close(project(network, x, layer, units, rules=GRADIENT, start=1).pixels, gradient)
        y, caches = network.forward(x, until=network.layers[feature_layer(network, layer)].name)
        dy = np.random.default_rng(3).standard_normal(y.shape)
        close(descend(network, dy, caches, GRADIENT), network.backward(dy, caches)[0])


# ------------------------------------------------------------------------------------------------------ properties
def test_with_random_switches_it_is_another_picture():
    network, x = small_zfnet()
    y, caches = network.forward(x, until="relu5")
    dy = np.zeros_like(y)
    dy[3, 1, 2] = 1.0
    true, rng = descend(network, dy, caches), np.random.default_rng(0)
    drawn = [(rng.permutation(cache[0].ravel()).reshape(cache[0].shape), *cache[1:]) if isinstance(layer, MaxPool) else cache
             for layer, cache in zip(network.layers, caches)]
    other = descend(network, dy, drawn)
    assert np.abs(true - other).max() > 0.1*np.abs(true).max()


@pytest.mark.parametrize("make", [small_zfnet, odd])
@pytest.mark.parametrize("rules", [DECONVNET, GRADIENT, GUIDED], ids=["deconvnet", "gradient", "guided"])
def test_the_cone_of_a_place_holds_all_that_the_dense_way_down_finds(make, rules):
    network, x = make()
    rng = np.random.default_rng(5)
    for layer in network.layers:
        y, caches = network.forward(x, until=layer.name)
        if y.ndim == 2:
            break
        F, Ho, Wo, _ = y.shape
        corners = np.array([[0, 0], [Ho - 1, Wo - 1], [Ho - 1, 0], [Ho//2, Wo//3]])       # windows over every border
        dy = np.zeros_like(y)
        dy[:, corners[:, 0], corners[:, 1], np.arange(N)] = rng.standard_normal((F, N)) + 0.5
        close(descend(network, dy, caches, rules, corners), descend(network, dy, caches, rules), 1e-13)


def test_a_projection_vanishes_outside_the_receptive_field_and_reaches_its_edges():
    network, x = small_zfnet(131)
    for name, (field, jump, start) in zip([layer.name for layer in network.layers], network.receptive_fields()[:9]):
        F, Ho, Wo = network.shapes[network.index(name) + 1]
        places = np.array([[Ho//2, Wo//2]]*N)
        top, left = start + jump*places[0]
        inside = np.zeros(x.shape[1:3], bool)
        inside[max(top, 0):top + field, max(left, 0):left + field] = True
        for rules in (GRADIENT, DECONVNET):
            pixels = project(network, x, name, range(N), places, rules=rules, start=1).pixels
            assert not pixels[:, ~inside].any()
        if name == "conv1":
            assert (pixels[:, [top, top + field - 1], left] != 0).all() and pixels[:, top, left + field - 1].all()


def test_the_same_call_gives_the_same_bits():
    network, x = small_zfnet()
    for layer in ("pool2", "conv5", "fc8"):
        first, second = (project(network, x, layer, [0, 3, 1, 3]).pixels for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_a_batch_of_different_units_is_each_of_them_alone():
    network, x = small_zfnet(131)
    for layer in ("conv2", "norm2", "conv4", "fc7"):
        units = some_units(network, layer, x)
        batch = project(network, x, layer, units)
        for n in range(N):
            alone = project(network, np.ascontiguousarray(x[..., n:n + 1]), layer, units[n:n + 1])
            np.testing.assert_allclose(alone.pixels[..., 0], batch.pixels[..., n], rtol=0,
                                       atol=1e-12*np.abs(batch.pixels).max())
            assert alone.values[0] == pytest.approx(batch.values[n]) and (alone.places[0] == batch.places[n]).all()


def test_the_start_value_scales_the_picture():
    network, x = small_zfnet()
    for layer in ("conv3", "fc6"):
        units = some_units(network, layer, x)
        plain = project(network, x, layer, units)
        assert (plain.values > 0).all() and not np.allclose(plain.values, 1)
        close(project(network, x, layer, units, start=1).pixels*plain.values, plain.pixels)
        close(project(network, x, layer, units, start=2.5).pixels*plain.values, 2.5*plain.pixels)
    whole = project(network, x, "conv3", some_units(network, "conv3", x), whole_map=True)
    scaled = project(network, x, "conv3", some_units(network, "conv3", x), whole_map=True, start=1)
    close(scaled.pixels*whole.values, whole.pixels)


def test_a_whole_map_is_scaled_to_the_start_from_a_negative_activation_too():
    network, x = small_zfnet()
    network["fc8"].parameters["b"] -= 3
    below_0 = network.forward(x)[0].argmin(axis=0)
    one, whole = (project(network, x, "fc8", below_0, whole_map=how, start=2) for how in (False, True))       # a map of one
    assert (one.values < 0).all()
    close(whole.pixels, one.pixels)
    y, units = np.array([[[-3.0, -1.5]], [[0.0, -2.0]]])[..., None].repeat(2, axis=3), np.array([0, 1])      # (2,1,2,2)
    places, values = find_places(y, units)
    np.testing.assert_array_equal(start_signal(y, units, places, values, whole_map=True, start=1)[units, 0, :, [0, 1]],
                                  [[2, 1], [0, -2]])


def test_the_strongest_place_is_the_first_of_the_map_and_can_be_named():
    network, x = small_zfnet()
    y = network.forward(x, until="relu3")[0]
    units = some_units(network, "conv3", x)
    found = project(network, x, "conv3", units)
    for n, unit in enumerate(units):
        row, column = divmod(int(y[unit, :, :, n].argmax()), y.shape[2])
        assert tuple(found.places[n]) == (row, column) and found.values[n] == y[unit, row, column, n]
    named = project(network, x, "conv3", units, found.places)
    assert named.pixels.tobytes() == found.pixels.tobytes()
    other = project(network, x, "conv3", units, (found.places + 1) % y.shape[1])
    assert not np.allclose(other.pixels, found.pixels)


def test_a_whole_map_starts_from_all_of_its_activations():
    network, x = small_zfnet()
    y, caches = network.forward(x, until="relu2")
    units = some_units(network, "conv2", x)
    dy = np.zeros_like(y)
    for n, unit in enumerate(units):
        dy[unit, :, :, n] = y[unit, :, :, n]
    close(project(network, x, "conv2", units, whole_map=True).pixels, network.backward(dy, caches, DECONVNET)[0])


def test_a_layers_unit_is_the_map_after_its_relu_by_either_name():
    network, x = small_zfnet()
    for one, other in (("conv1", "relu1"), ("conv4", "relu4"), ("fc6", "relu6")):
        units = some_units(network, one, x)
        a, b = project(network, x, one, units), project(network, x, other, units)
        assert a.pixels.tobytes() == b.pixels.tobytes() and (a.values >= 0).all()
    assert project(network, x, "fc8", some_units(network, "fc8", x)).values.shape == (N,)


def test_a_silent_unit_projects_to_nothing():
    network, x = small_zfnet()
    network["conv2"].parameters["b"][3] = -1e6
    silent = project(network, x, "conv2", [3]*N)
    assert not silent.values.any() and not silent.pixels.any()
    assert not project(network, x, "conv2", [3]*N, whole_map=True, start=1).pixels.any()


def test_no_gradient_of_a_parameter_is_computed():
    network, x = small_zfnet()
    y, caches = network.forward(x)
    for rules in (DECONVNET, GRADIENT, GUIDED):
        assert network.backward(np.ones_like(y), caches, rules)[1] == {}


def test_float32_stays_float32():
    network, x = small_zfnet()
    network.load(network.parameters())
    projection = project(network, x.astype(np.float32), "conv4", [0]*N)
    assert projection.pixels.dtype == projection.values.dtype == np.float32


def test_a_layer_a_unit_or_a_place_that_is_not_there_is_named_with_those_that_are():
    network, x = small_zfnet()
    with pytest.raises(Expected, match="one of conv1, relu1.*got 'conv6'"):
        project(network, x, "conv6", [0]*N)
    with pytest.raises(Expected, match="unit of conv2: expected 0 to 7, got 8"):
        project(network, x, "conv2", [0, 8, 1, 2])
    with pytest.raises(Expected, match="unit of fc8: expected 0 to 4, got -1"):
        project(network, x, "fc8", [0, -1, 1, 2])
    with pytest.raises(Expected, match=r"place: expected rows 0 to 3, columns 0 to 3, got \(0, 4\)"):
        project(network, x, "conv4", [0]*N, [[0, 0], [0, 4], [1, 1], [2, 2]])
    with pytest.raises(Expected, match="units: expected shape"):
        project(network, x, "conv4", [0, 1])


@pytest.mark.parametrize("rule", [lambda layer, dy, cache: dy, lambda layer, dy, cache: 2*dy[::-1]])
def test_a_rule_that_is_written_for_whole_maps_projects_from_one_place_as_from_all(rule):
    network = randomised(Network("within", (3, 31, 27), [Conv("conv1", 6, K=3, S=2), ReLU("relu1"), LocalResponseNormWithin("norm1", 3),
                                                         Conv("conv2", 5, K=2)]))[0]
    x, asked = np.random.default_rng(1).standard_normal((3, 31, 27, N)), []
    rules = {**DECONVNET, LocalResponseNormWithin: lambda layer, dy, cache: asked.append(dy.shape[1:3]) or rule(layer, dy, cache)}
    y, caches = network.forward(x)
    found = project(network, x, "conv2", range(N), rules=rules)
    dy = start_signal(y, np.arange(N), found.places, found.values)
    close(found.pixels, network.backward(dy, caches, rules)[0])
    assert asked == [(2, 2), network.shapes[2][1:], network.shapes[2][1:]]
    with pytest.raises(Expected, match=r"^norm1: what its rule returns: expected shape \(6, 15, 13, 4\), got \(6, 14, 13, 4\)"):
        project(network, x, "conv2", range(N), rules={LocalResponseNormWithin: lambda layer, dy, cache: dy[:, 1:]})


def test_a_rule_for_a_kind_holds_for_the_kinds_that_descend_from_it():
    class Named(ReLU):
        """A ReLU that somebody has made his own."""

    network, x = odd()
    own = Network("own", network.input_shape, [Named(layer.name) if type(layer) is ReLU else layer for layer in network.layers])
    for rules in (DECONVNET, GUIDED, {**DECONVNET, Named: DECONVNET[ReLU]}):
        as_ever = project(network, x, "conv3", range(N), rules=rules).pixels
        np.testing.assert_array_equal(project(own, x, "conv3", range(N), rules=rules).pixels, as_ever)
    below = {**DECONVNET, Named: ReLU.data_gradient}                     # the nearest kind decides
    assert (project(own, x, "conv3", range(N), rules=below).pixels != project(own, x, "conv3", range(N)).pixels).any()
