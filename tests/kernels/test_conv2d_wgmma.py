"""Convolution on wgmma, of bf16 in memory: held to the reference in float64, given what bf16 holds of the numbers."""
from functools import cache

import numpy as np
import pytest

from bench.gpu import recorded
from tests import executor
from tests.executor.samples import bf16, from_bf16
from tests.kernels.conftest import BF16_UNIT, EPS, close, ways
from zfcore import backend
from zfcore.check import Expected
from zfcore.kernel import KERNELS, TensorMap
from zfcore.ops import conv2d_kernels as kernels
from zfcore.ops import tuning
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference
from zfcore.ops.conv2d_maxpool import pool_fits
from zfcore.ops.linear import linear, linear_backward
from zfcore.ops.window import output_size

CASES = {        # C    H  W  N    F   K  S  P  groups
    "padding, two units a pixel":         (72, 3, 2, 72, 24, 3, 1, 1, 1),
    "stride 2, tails everywhere":         (24, 4, 5, 40, 136, 3, 2, 1, 1),
    "two groups":                         (80, 3, 4, 16, 48, 2, 1, 0, 2),
    "taps that meet nothing, one image":  (16, 2, 3, 8, 8, 5, 3, 2, 1),
    "pixels that no window sees":         (8, 5, 6, 24, 16, 1, 2, 0, 1),
    "several tiles of images":            (8, 1, 2, 264, 8, 2, 1, 1, 1),
    "96 maps, an odd batch":              (96, 4, 2, 37, 40, 3, 2, 1, 1),
    "two tiles of maps, an odd batch":    (136, 2, 3, 5, 32, 2, 1, 1, 1),
    "three tiles of filters, odd columns": (40, 2, 2, 24, 264, 2, 1, 1, 1),
    "three tiles of maps, four phases":   (264, 5, 3, 8, 8, 3, 2, 1, 1),
    "64 rows of unlike phases":           (24, 8, 10, 8, 16, 5, 3, 1, 1),
    "pairs of each kind":                 (72, 2, 3, 8, 136, 3, 1, 1, 1),
}
few = pytest.mark.parametrize("machine", ways("random", "gpu"), indirect=True)


def in_turn(by, kernels):
    """Each of CASES, for each key of `kernels`, called `by`, with one of its kernels: every one of these meets some case, at
    the cost of one."""
    return pytest.mark.parametrize(f"name, {by}, tile", [
        (name, key, (k + 2*d) % len(of_key)) for k, name in enumerate(CASES)
        for d, (key, of_key) in enumerate(kernels.items())])


@cache
def case(name):
    """(x, w, b, dy) of that convolution, b in float32 and the others what bf16 holds, and its S, P, groups."""
    C, H, W, N, F, K, S, P, groups = CASES[name]
    rng = np.random.default_rng(8)
    Ho, Wo = output_size(H, K, S, P, "floor"), output_size(W, K, S, P, "floor")
    x, w, b, dy = (rng.standard_normal(size, np.float32) for size in ((C, H, W, N), (C//groups, K, K, F), (F,), (F, Ho, Wo, N)))
    return (from_bf16(bf16(x)), from_bf16(bf16(w)), b, from_bf16(bf16(dy))), (S, P, groups)


@cache
def truth(name):
    """((y, magnitude of its products, how many), the same of dx and of dw), in float64."""
    (x, w, b, dy), (S, P, groups) = case(name)
    C, H, W, N, F, K, *_ = CASES[name]

    x, w, b, dy = (array.astype(float) for array in (x, w, b, dy))
    wanted = conv2d_reference(x, w, b, S, P, groups, "floor"), *conv2d_backward_reference(dy, x, w, S, P, groups)[:2]
    y, saved = conv2d(abs(x), abs(w), abs(b), S, P, groups, "floor")         # NumPy's form: an allowance need not be exact
    magnitudes = y, *conv2d_backward(abs(dy), saved)[:2]
    return tuple(zip(wanted, magnitudes, (C//groups*K*K, F//groups*K*K, dy[0].size)))


def right(got, wanted, magnitude, products, dtype="float32"):
    """Of float32 sums, each of the products may be cut off at the last place of the largest (test_conv2d.py: roundings); a bf16
    output is rounded once more."""
    error = (9/8*products + 10)*EPS*magnitude
    if dtype == "uint16":
        error = error + BF16_UNIT*abs(wanted)
    close(got, wanted, error)


def there(machine, name):
    (x, w, b, dy), window = case(name)
    return tuple(map(machine.array, (bf16(x), bf16(w), b, bf16(dy)))), window


def forward(x, w, b, shape, S, P, groups, dtype="float32", tile=2, relu=False):
    y = backend.empty(shape, dtype, like=x)
    kernels.launch_wgmma_forward(x, w, b, y, S, P, groups, relu, kernel=kernels.WGMMA_FORWARD[dtype][tile])
    return y


def transposed(dy, w, shape, S, P, groups, dtype="float32", tile=2):
    dx = backend.empty(shape, dtype, like=dy)
    kernels.launch_wgmma_transpose(dy, w, dx, S, P, groups, kernel=kernels.WGMMA_TRANSPOSE[dtype][tile])
    return dx


@few
@in_turn("dtype", kernels.WGMMA_FORWARD)
def test_forward_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [forward(x, w, b, dy.shape, S, P, groups, dtype, tile)])
    right(got, *truth(name)[0], dtype)


@few
@in_turn("dtype", kernels.WGMMA_TRANSPOSE)
def test_transpose_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [transposed(dy, w, x.shape, S, P, groups, dtype, tile)])
    right(got, *truth(name)[1], dtype)


@few
@in_turn("slices", {1: kernels.WGMMA_FILTER_GRADIENT, 3: kernels.WGMMA_FILTER_GRADIENT})
def test_filter_gradient_equals_the_reference(machine, name, slices, tile):
    (x, w, _, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [kernels.launch_wgmma_filter_gradient(
        x, dy, w.shape, S, P, groups, slices, kernels.WGMMA_FILTER_GRADIENT[tile])])
    right(got, *truth(name)[2])


ALL_WAYS = pytest.mark.parametrize("machine", ways("skewed", "race", "bounds", "gpu"), indirect=True)


@ALL_WAYS
def test_three_passes_in_every_order_of_threads(machine):
    """More steps than stages, few clusters of blocks for many tiles, odd counts of these."""
    (x, w, b, dy), (S, P, groups) = there(machine, "pairs of each kind")
    with tuning.use(multiprocessors=5):
        y, dx, dw = machine.results(lambda: [
            forward(x, w, b, dy.shape, S, P, groups), transposed(dy, w, x.shape, S, P, groups),
            kernels.launch_wgmma_filter_gradient(x, dy, w.shape, S, P, groups, 2, kernels.WGMMA_FILTER_GRADIENT[2])])
    for got, wanted in zip((y, dx, dw), truth("pairs of each kind")):
        right(got, *wanted)


@few
def test_blocks_that_take_several_tiles_give_the_same_bits(machine):
    (x, w, b, dy), (S, P, groups) = there(machine, "several tiles of images")
    [one] = machine.results(lambda: [forward(x, w, b, dy.shape, S, P, groups)])
    with tuning.use(multiprocessors=2):
        several = forward(x, w, b, dy.shape, S, P, groups)
    np.testing.assert_array_equal(machine.host(several), one)


@few
def test_an_image_has_the_same_bits_in_any_batch_and_tile(machine):
    (x, w, b, dy), (S, P, groups) = there(machine, "several tiles of images")
    [whole] = machine.results(lambda: [forward(x, w, b, dy.shape, S, P, groups)])
    alone = machine.array(np.ascontiguousarray(machine.host(x)[..., 40:64]))
    got = forward(alone, w, b, (*dy.shape[:3], 24), S, P, groups, tile=1)
    np.testing.assert_array_equal(machine.host(got), whole[..., 40:64])


@few
def test_relu_and_no_bias(machine):
    (x, w, _, dy), (S, P, groups) = there(machine, "two groups")
    [y] = machine.results(lambda: [forward(x, w, None, dy.shape, S, P, groups, relu=True)])
    b = case("two groups")[0][2].astype(float)[:, None, None, None]
    wanted, magnitude, products = truth("two groups")[0]
    right(y, np.maximum(wanted - b, 0), magnitude, products)


@few
@pytest.mark.parametrize("name", ["stride 2, tails everywhere", "two groups", "96 maps, an odd batch"])
def test_a_transposed_convolution_below_a_relu_is_zero_where_that_was_off(machine, name):
    (x, w, _, dy), (S, P, groups) = there(machine, name)
    [plain] = machine.results(lambda: [transposed(dy, w, x.shape, S, P, groups, "uint16", 3)])
    dx = backend.empty(x.shape, "uint16", like=dy)
    kernels.launch_wgmma_transpose(dy, w, dx, S, P, groups, kernel=kernels.WGMMA_TRANSPOSE["uint16"][3], on=x)
    np.testing.assert_array_equal(from_bf16(machine.host(dx)), np.where(from_bf16(machine.host(x)) > 0, plain, 0))


@pytest.mark.parametrize("C, F, groups, fits", [
    (384, 256, 1, True), (32, 32, 1, True), (128, 64, 2, True), (3, 96, 1, False), (384, 252, 1, False), (64, 31, 1, False),
    (62, 64, 2, False), (64, 48, 2, False)])
def test_what_training_takes_wgmma_for(hopper, monkeypatch, C, F, groups, fits):
    x, shape = executor.array(np.zeros((C, 1, 1, 5), np.uint16)), (C//groups, 3, 3, F)
    assert kernels.takes_wgmma(x, shape, groups, True) == fits
    assert not kernels.takes_wgmma(x, shape, groups, False)
    assert not kernels.takes_wgmma(x.astype(np.float32), shape, groups, True)
    monkeypatch.setitem(backend.ARCHITECTURES, executor.ExecutorArray, lambda: "sm_100a")
    assert not kernels.takes_wgmma(x, shape, groups, True)


# --------------------------------------------------------------------------------------- chosen by the operations
def drawn(rng, *shape):
    """Numbers that bf16 holds, as they are stored."""
    return bf16(rng.standard_normal(shape, np.float32))


def alone(x, first, last):
    return np.ascontiguousarray(x[..., first:last])


@few
def test_a_layer_in_training_is_wgmmas_in_any_batch_and_elsewhere_not_at_all(machine, hopper, rng):
    x, w, b, dy = (drawn(rng, 40, 3, 2, 9), drawn(rng, 40, 3, 3, 32), rng.standard_normal(32, np.float32),
                   drawn(rng, 32, 3, 2, 9))

    def passes(x, dy, training):
        y, cache = conv2d(x, machine.array(w), machine.array(b), 1, 1, precision="bf16", training=training)
        return [y, *conv2d_backward(dy, cache)]

    for training in True, False:
        _, tape = recorded(lambda x, dy: passes(x, dy, training), [machine.array(x), machine.array(dy)])
        products = {kernel.name for kernel, *_ in tape} & {kernel.name for kernel in KERNELS if "BN" in kernel.defines}
        assert products == ({"conv2d_wgmma_forward", "conv2d_wgmma_transpose", "conv2d_wgmma_gradient"} if training else
                            {"conv2d_forward", "conv2d_transpose", "conv2d_filter_gradient"})
    whole = machine.results(lambda: passes(*map(machine.array, (x, dy)), True))
    wanted = conv2d_backward_reference(*(from_bf16(one).astype(float) for one in (dy, x, w)), 1, 1)
    for got, there in zip(whole[1:], wanted, strict=True):
        assert np.linalg.norm(got - there) < 0.004*np.linalg.norm(there)
    for first, last in (0, 2), (2, 9):
        parts = passes(machine.array(alone(x, first, last)), machine.array(alone(dy, first, last)), True)
        for part, one in zip(parts[:2], whole):
            np.testing.assert_array_equal(from_bf16(machine.host(part)), one[..., first:last])


@few
def test_a_fully_connected_layer_in_training_is_wgmmas_with_its_sums_in_slices(machine, hopper, rng):
    x, w, b, dy = (drawn(rng, 200, 11), drawn(rng, 200, 136), rng.standard_normal(136, np.float32), drawn(rng, 136, 11))

    def passes(x, dy, scores=False):
        with tuning.use(slice_terms=64):
            y, cache = linear(x, machine.array(w), machine.array(b), "bf16", scores, training=True)
            return [y, *linear_backward(dy, cache)]

    _, tape = recorded(passes, [machine.array(x), machine.array(dy)])
    named = {kernel.name: dict(zip((one.name for one in kernel.arguments), arguments)) for kernel, _, arguments in tape}
    assert not {"conv2d_forward", "conv2d_filter_gradient"} & set(named)
    assert named["conv2d_wgmma_forward"]["slices"] == 3 and named["conv2d_wgmma_transpose"]["slices"] == 2
    whole = machine.results(lambda: [*passes(machine.array(x), machine.array(dy)),
                                     passes(machine.array(x), machine.array(dy), True)[0]])
    x64, w64, dy64 = (from_bf16(one).astype(float) for one in (x, w, dy))
    wanted = [w64.T@x64 + b[:, None], w64@dy64, x64@dy64.T, dy64.sum(1), w64.T@x64 + b[:, None]]
    for got, there, error in zip(whole, wanted, (0.004, 0.004, 1e-6, 1e-6, 1e-6), strict=True):
        assert np.linalg.norm(got - there) < error*np.linalg.norm(there)
    parts = passes(machine.array(alone(x, 4, 7)), machine.array(alone(dy, 4, 7)))
    for part, one in zip(parts[:2], whole):
        np.testing.assert_array_equal(from_bf16(machine.host(part)), one[..., 4:7])


@pytest.mark.parametrize("N", [8, 5])
def test_a_convolution_that_wgmma_takes_leaves_its_pool_apart_in_any_batch(hopper, N):
    x, w = executor.array(np.zeros((32, 7, 7, N), np.uint16)), executor.array(np.zeros((32, 3, 3, 96), np.uint16))
    fits = [pool_fits(x, w, 1, (3, 2, 0, "ceil"), 1, training) for training in (True, False)]
    assert fits == [False, N == 8]


@pytest.mark.parametrize("shape, box, sentence", [
    ((2, 3, 2, 2, 12), (1, 64, 1, 1, 64), "whole 16 bytes"), ((64,), (64,), "2 to 5"),
    ((2, 64), (1, 32), "the last of 128 bytes"),
    ((2, 64), (0, 64), "1 to 256"), ((2, 64), (1, 1, 64), "a box of 2 axes")])
def test_a_map_that_tma_cannot_fetch_is_refused(shape, box, sentence):
    gradient, x = kernels.WGMMA_FILTER_GRADIENT[0], executor.array(np.zeros(shape, np.uint16))
    arguments = [TensorMap(x, box), TensorMap(x, box), executor.array(np.zeros(1, np.float32)), kernels.Conv(*[1]*11), 1, 1, 1]
    with pytest.raises(Expected, match=sentence):
        gradient(1, *arguments)
    with pytest.raises(Expected, match="a TensorMap of an array of class ndarray"):
        gradient._ready(gradient.arguments[0], x, np.ndarray)
