"""Whole networks on kernels: nothing between two layers leaves the device, and NumPy's results come out."""
import copy

import numpy as np
import pytest

from bench.gpu import recorded
from tests import executor
from tests.kernels.conftest import in_any_order
from tests.test_network import gradients, loss_of, small
from zfcore import fusion
from zfcore.analysis.occlusion import occlusion
from zfcore.analysis.sanity_checks import randomised
from zfcore.backend import BF16, runs_kernels, to_host, zeros
from zfcore.deconvnet import DECONVNET, project
from zfcore.device import select
from zfcore.kernel import PRECISIONS
from zfcore.layers import Conv, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU, Step
from zfcore.network import Network
from zfcore.ops.convert import from_bf16, in_float, to_bf16
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.optim import SGD
from zfcore.trained import Trained


def moved(network, machine):
    """A copy of `network` with float32 parameters on the device."""
    other = copy.deepcopy(network)
    for of_layer in other.parameters().values():
        for key, array in of_layer.items():
            of_layer[key] = machine.array(array.astype(np.float32))
    return other


def flat(grads):
    return {(name, key): to_host(array) for name, of_layer in grads.items() for key, array in of_layer.items()}


def test_gradients_are_those_of_numpy_and_of_finite_differences(machine):
    network, x, labels = small()
    on_device, pictures = moved(network, machine), machine.array(x.astype(np.float32))
    loss = loss_of(on_device, pictures, labels)
    assert loss == pytest.approx(loss_of(network, x, labels), rel=1e-5)
    wanted_dx, wanted = gradients(network, x, labels)
    dx, grads = gradients(on_device, pictures, labels)
    assert runs_kernels(dx) and all(runs_kernels(array) for of_layer in grads.values() for array in of_layer.values())
    assert np.abs(to_host(dx) - wanted_dx).max() < 1e-4*np.abs(wanted_dx).max()
    for key, got in flat(grads).items():
        size = np.abs(flat(wanted)[key]).max()
        assert np.abs(got - flat(wanted)[key]).max() < 1e-4*size, key

    direction, h = wanted_dx/np.linalg.norm(wanted_dx), 1e-3
    above, below = (loss_of(on_device, machine.array((x + sign*h*direction).astype(np.float32)), labels) for sign in (1, -1))
    assert (above - below)/(2*h) == pytest.approx((to_host(dx)*direction).sum(), rel=5e-3)


def test_layers_that_share_a_pass_leave_the_caches_of_layers_by_themselves(machine):
    network, x, _ = small()
    on_device = moved(network, machine)
    y, caches = on_device.forward(machine.array(x.astype(np.float32)), step=4)
    x = machine.array(x.astype(np.float32))
    for layer, cache in zip(on_device.layers, caches, strict=True):
        x, alone = layer.forward(x, Step(4))
        for one, other in zip(arrays_of(cache), arrays_of(alone), strict=True):
            np.testing.assert_array_equal(to_host(one), to_host(other), err_msg=layer.name)
    np.testing.assert_array_equal(to_host(y), to_host(x))


@pytest.mark.parametrize("rules", [None, {}], ids=["with gradients of parameters", "without"])
def test_layers_that_share_a_pass_down_leave_the_gradients_of_layers_by_themselves(machine, rules, monkeypatch):
    network, x, labels = small()
    on_device = moved(network, machine)
    y, caches = on_device.forward(machine.array(x.astype(np.float32)), step=4)
    dy = softmax_loss_backward(softmax_loss(y, labels)[1])
    taken = []
    for kinds, together in fusion.BACKWARD.items():
        monkeypatch.setitem(fusion.BACKWARD, kinds, lambda *given, kinds=kinds, together=together: (
            taken.append(kinds) or together(*given)))
    dx, grads = on_device.backward(dy, caches, rules)
    first = (Conv, ReLU, MaxPool, LocalResponseNorm)
    assert taken == [(ReLU, MaxPool), first[1:] if rules is not None else first]
    for layer, cache in reversed(list(zip(on_device.layers, caches, strict=True))):
        dy, alone = layer.backward(dy, cache)
        for key, wanted in alone.items() if rules is None else ():
            close = np.testing.assert_allclose if key == "b" else np.testing.assert_array_equal
            close(to_host(grads[layer.name][key]), to_host(wanted), **dict(rtol=1e-5, atol=1e-7) if key == "b" else {})
    assert rules is None or grads == {}
    np.testing.assert_array_equal(to_host(dx), to_host(dy))


@in_any_order
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_convolution_hands_down_what_comes_out_below_the_relu_under_it(machine, hopper, precision):
    """Of few maps, which wgmma leaves to others, and of many; parameters' gradients bear the convolution's name."""
    network = Network("two", (3, 6, 5), [Conv("conv1", 32, K=3), ReLU("relu1"), Conv("conv2", 40, K=3, P=1), ReLU("relu2"),
                                         Conv("conv3", 8, K=2), Flatten("flatten"), Linear("fc4", 5)]).init(3, "he")
    on_device, rng = moved(network, machine).use(precision), np.random.default_rng(1)
    y, caches = on_device.forward(machine.array(rng.standard_normal((3, 6, 5, 7), np.float32)), step=4)
    dy = softmax_loss_backward(softmax_loss(y, np.arange(7) % 5)[1])
    (dx, grads), tape = recorded(lambda dy: on_device.backward(dy, caches), [dy])
    names = [kernel.name for kernel, *_ in tape]
    assert names.count("relu_backward") == (2 if precision == "fp32" else 1)
    assert list(grads) == ["fc4", "conv3", "conv2", "conv1"]
    dy = on_device.stored(dy)
    for layer, cache in reversed(list(zip(on_device.layers, caches, strict=True))):
        dy, alone = layer.backward(dy, cache)
        for key, wanted in alone.items():
            np.testing.assert_array_equal(to_host(grads[layer.name][key]), to_host(wanted))
    np.testing.assert_array_equal(to_host(dx), to_host(in_float(dy)))


def arrays_of(cache):
    parts = cache if isinstance(cache, tuple) else (cache,)
    return [part for part in parts if isinstance(part, np.ndarray) or runs_kernels(part)]


@in_any_order
def test_training_takes_a_pool_into_its_convolution_and_changes_no_bit(machine, monkeypatch):
    """conv1 keeps no map of its own, conv2, with too many products, does; evaluation keeps both."""
    network = Network("wide", (3, 13, 11), [
        Conv("conv1", 96, K=3, S=1), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"),
        Conv("conv2", 4, K=2), ReLU("relu2"), MaxPool("pool2", K=2, S=2), Flatten("flatten"), Linear("fc6", 4)]).init(3, "he")
    network.layers[0].parameters["b"] += 0.1
    on_device, rng = moved(network, machine), np.random.default_rng(1)
    x, labels = machine.array(rng.standard_normal((3, 13, 11, 8), np.float32)), np.arange(8) % 4

    def work():
        y, caches = on_device.forward(x, step=4)
        dx, grads = on_device.backward(softmax_loss_backward(softmax_loss(y, labels)[1]), caches)
        return [y, dx, *flat(grads).values(), caches[2][0]], caches

    one_pass, caches = work()
    assert caches[1] is fusion.Unkept and caches[5] is not fusion.Unkept
    assert all(cache is not fusion.Unkept for cache in on_device.forward(x)[1])
    assert on_device.forward(x, step=4, until="relu1")[1][1] is not fusion.Unkept
    monkeypatch.setattr(fusion, "pool_fits", lambda *arguments: False)
    apart, caches = work()
    assert caches[1] is not fusion.Unkept
    for one, other in zip(one_pass, apart, strict=True):
        np.testing.assert_array_equal(to_host(one), to_host(other))


def test_three_steps_of_training_end_where_numpys_do(machine):
    network, x, labels = small()
    for of_layer in network.parameters().values():
        for key, array in of_layer.items():
            of_layer[key] = array.astype(np.float32)
    x = x.astype(np.float32)

    def train(network, x):
        optimizer, clamped = SGD(network, 0.9, weight_decay=0.01, rms_max=0.45), zeros((), np.float64, like=x)
        for step in range(3):
            optimizer.step(network, gradients(network, x, labels, step)[1], lr=0.01, clamped=clamped)
        return flat(network.parameters()), clamped

    wanted, wanted_clamped = train(copy.deepcopy(network), x)
    got = machine.results(lambda: train(moved(network, machine), machine.array(x))[0].values())
    assert 0 < wanted_clamped == to_host(train(moved(network, machine), machine.array(x))[1])
    for key, array in zip(wanted, got, strict=True):
        assert np.abs(array - wanted[key]).max() < 1e-5*np.abs(wanted[key]).max(), key


def test_the_deconvnet_projects_on_kernels_as_on_numpy(machine):
    network, x, _ = small()
    y, caches = network.forward(x)
    top = np.zeros_like(y)
    top[1] = 1
    wanted, _ = network.backward(top, caches, DECONVNET)
    on_device = moved(network, machine)
    _, caches = on_device.forward(machine.array(x.astype(np.float32)))
    projected, _ = on_device.backward(machine.array(top.astype(np.float32)), caches, DECONVNET)
    assert runs_kernels(projected)
    assert np.abs(to_host(projected) - wanted).max() < 1e-5*np.abs(wanted).max()


# ------------------------------------------------------------------------------------------------- stored as bf16
def in_bf16(seed=1):
    """The network of `small` on the executor, and its pictures and labels."""
    network, x, labels = small()
    on_device = network.copy().load({name: {key: array.astype(np.float32) for key, array in of_layer.items()}
                                     for name, of_layer in network.parameters().items()}, select("executor")).use("bf16")
    return on_device, x.astype(np.float32), labels


@executor.requires_executor
def test_in_bf16_maps_are_stored_so_and_what_leaves_the_network_is_float32():
    network, x, labels = in_bf16()
    y, caches = network.forward(executor.array(x), step=4)
    dx, grads = network.backward(softmax_loss_backward(softmax_loss(y, labels)[1]), caches)
    activations = network.activations(executor.array(x), [layer.name for layer in network.layers])
    left = [y, dx, *flat(grads).values(), *activations.values()]
    assert {array.dtype for array in left} == {np.dtype(np.float32)}
    kept = [array for cache in caches for array in arrays_of(cache) if array.dtype != np.uint8]
    assert kept and {array.dtype for array in kept} == {BF16}
    wanted_dx, wanted = gradients(small()[0], small()[1], labels)
    for got, there in [(dx, wanted_dx), *zip(flat(grads).values(), flat(wanted).values(), strict=True)]:
        assert 0 < np.linalg.norm(to_host(got) - there) < 0.05*np.linalg.norm(there)


def copies_are_fresh(network):
    for layer in network.weighted:
        w = to_host(layer.parameters["w"])
        np.testing.assert_array_equal(to_host(layer.factors()), to_bf16(w), err_msg=layer.name)
        np.testing.assert_array_equal(to_host(layer.copy_of("w")), to_bf16(w))
        assert layer.copy_of("b") is None


@executor.requires_executor
def test_the_copy_of_the_weights_is_never_stale():
    network, x, labels = in_bf16()
    start, device = copy.deepcopy(network), select("executor")
    copies_are_fresh(network)
    optimizer, clamped = SGD(network, rms_max=0.3), executor.array(np.zeros(()))
    for step in range(2):
        optimizer.step(network, gradients(network, executor.array(x), labels, step)[1], lr=0.05, clamped=clamped)
        copies_are_fresh(network)
    assert clamped > 0, "no filter was scaled back"
    for layer, before in zip(network.weighted, start.weighted):
        assert (to_host(layer.factors()) != to_host(before.factors())).any()
    random = randomised(network, [layer.name for layer in network.weighted])
    copies_are_fresh(random)
    copies_are_fresh(network)
    for changed in (network.copy(), network.load(start.parameters(), device), network.init(5, "he", device)):
        copies_are_fresh(changed)
    network.layers[0].parameters["w"] = executor.array(np.ones(network.layers[0].parameters["w"].shape, np.float32))
    copies_are_fresh(network)
    assert network.use("fp32").layers[0].copy_of("w") is None
    optimizer.step(network, gradients(network, executor.array(x), labels)[1], lr=0.05)
    copies_are_fresh(network.use("bf16"))


@in_any_order
def test_a_step_on_wgmma_is_right_and_a_piece_of_a_batch_has_its_bits(machine, hopper):
    """Layers with few maps beside layers that wgmma takes, in an odd batch, and in pieces of it."""
    network = Network("wide", (3, 9, 7), [
        Conv("conv1", 32, K=3, S=2), ReLU("relu1"), Conv("conv2", 40, K=3, S=1, P=1), ReLU("relu2"), MaxPool("pool2", K=3, S=2),
        Flatten("flatten"), Linear("fc3", 48), ReLU("relu3"), Linear("fc4", 5)]).init(3, "he")
    on_device, rng = moved(network, machine).use("bf16"), np.random.default_rng(1)
    x, labels = rng.standard_normal((3, 9, 7, 7), np.float32), np.arange(7) % 5

    def step(first, last):
        y, caches = on_device.forward(machine.array(np.ascontiguousarray(x[..., first:last])), step=4, piece=(first, 7))
        dy = softmax_loss_backward(softmax_loss(y, labels[first:last])[1])
        dx, grads = on_device.backward(dy*np.float32((last - first)/7), caches)
        return [y, dx, *flat(grads).values()]

    _, tape = recorded(lambda _: step(0, 7), [machine.array(x)])
    assert {f"conv2d_wgmma_{one}" for one in ("forward", "transpose", "gradient")} <= {kernel.name for kernel, *_ in tape}
    _, tape = recorded(on_device.forward, [machine.array(x)])
    assert not {kernel.arch for kernel, *_ in tape} - {""}
    whole = machine.results(lambda: step(0, 7))
    rounded = copy.deepcopy(network)
    for layer in rounded.weighted:
        layer.parameters["w"] = from_bf16(to_bf16(layer.parameters["w"])).astype(np.float64)
        layer.parameters["b"] = layer.parameters["b"].astype(np.float64)
    y, caches = rounded.forward(x.astype(np.float64), step=4)
    dx, grads = rounded.backward(softmax_loss_backward(softmax_loss(y, labels)[1]), caches)
    for got, there in zip(whole, [y, dx, *flat(grads).values()], strict=True):
        assert 0 < np.linalg.norm(got - there) < 0.03*np.linalg.norm(there)
    parts = [list(map(machine.host, step(*piece))) for piece in ((0, 2), (2, 7))]
    np.testing.assert_array_equal(np.concatenate([y for y, *_ in parts], axis=-1), whole[0])
    for one, other, both in zip(parts[0][2:], parts[1][2:], whole[2:], strict=True):
        np.testing.assert_allclose(one + other, both, atol=0.02*abs(both).max())


# ------------------------------------------------------------------------------------- incremental forms, bit for bit
@pytest.fixture(params=PRECISIONS)
def seeing(request):
    """(network on the executor in that precision, pictures (n,s,s,3), mean): 3 maps, which tensor cores cannot fill, then
    16."""
    network = Network("small", (3, 23, 19), [
        Conv("conv1", 16, K=5, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"),
        Conv("conv2", 16, K=3, P=1), ReLU("relu2"), Conv("conv3", 8, K=3, P=1), ReLU("relu3"),
        Flatten("flatten"), Linear("fc8", 5)]).init(1, "he")
    device, rng = select("executor"), np.random.default_rng(4)
    network.load(network.parameters(), device).use(request.param)
    return network, rng.integers(0, 256, (3, 23, 19, 3), np.uint8), device.array(np.full((3, 23, 19), 120, np.float32))


@executor.requires_executor
def test_a_projection_alone_is_the_one_of_the_batch_bit_for_bit(seeing):
    network, pictures, mean = seeing
    x = executor.array(pictures.transpose(3, 1, 2, 0) - to_host(mean)[..., None])
    for layer in ("conv3", "fc8"):
        together = project(network, x, layer, [1, 3, 1])
        for n in range(3):
            alone = project(network, executor.array(to_host(x)[..., n:n + 1]), layer, [[1, 3, 1][n]])
            np.testing.assert_array_equal(to_host(alone.pixels)[..., 0], to_host(together.pixels)[..., n],
                                          f"{layer}, picture {n}")
    assert to_host(together.pixels).any()


@executor.requires_executor
def test_the_incremental_occlusion_map_is_the_full_one_bit_for_bit(seeing):
    network, pictures, mean = seeing
    cone, full = (occlusion(Trained(network, mean), pictures[:1], size=7, stride=5, incremental=way) for way in (True, False))
    assert cone.sums.std() > 0
    for name in ("sums", "probabilities", "most_probable"):
        np.testing.assert_array_equal(getattr(cone, name), getattr(full, name), name)
