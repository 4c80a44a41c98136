"""Convolution on wgmma, of bf16 in memory: held to the reference in float64, given what bf16 holds of the numbers."""
from functools import cache

import numpy as np
import pytest

from tests import executor
from tests.executor.samples import bf16, from_bf16
from tests.kernels.conftest import BF16_UNIT, EPS, close, ways
from zfcore import backend
from zfcore.check import Expected
from zfcore.kernel import TensorMap
from zfcore.ops import conv2d_kernels as kernels
from zfcore.ops import tuning
from zfcore.ops.conv2d import conv2d_backward_reference, conv2d_reference
from zfcore.ops.window import output_size

CASES = {        # C    H  W  N    F   K  S  P  groups
    "padding, two units a pixel":         (72, 3, 2, 72, 24, 3, 1, 1, 1),
    "stride 2, tails everywhere":         (24, 4, 5, 40, 136, 3, 2, 1, 1),
    "two groups":                         (80, 3, 4, 16, 48, 2, 1, 0, 2),
    "taps that meet nothing, one image":  (16, 2, 3, 8, 8, 5, 3, 2, 1),
    "pixels that no window sees":         (8, 5, 6, 24, 16, 1, 2, 0, 1),
    "several tiles of images":            (8, 1, 2, 264, 8, 2, 1, 1, 1),
}
few = pytest.mark.parametrize("machine", ways("random", "gpu"), indirect=True)


def in_turn(word, values):
    """Every case with each of the `values` of `word` in one tile, so that each tile has a third of the cases; all with --all."""
    rows = [(name, value, tile, (k + j + tile) % 3 != 0) for k, name in enumerate(CASES) for j, value in enumerate(values) for tile in range(3)]
    return pytest.mark.parametrize(f"name, {word}, tile", [
        pytest.param(name, value, tile, id=f"{name}-{value}-BN{kernels.WGMMA_TILES[tile]['BN']}", marks=[pytest.mark.exhaustive]*more)
        for name, value, tile, more in rows])


outputs = in_turn("dtype", kernels.OUTPUTS)


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

    def all_three(x, w, b, dy):
        x, w, b, dy = (array.astype(float) for array in (x, w, b, dy))
        return conv2d_reference(x, w, b, S, P, groups, "floor"), *conv2d_backward_reference(dy, x, w, S, P, groups)[:2]

    products = C//groups*K*K, F//groups*K*K, dy[0].size
    return tuple(zip(all_three(x, w, b, dy), all_three(*map(abs, (x, w, b, dy))), products))


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
    kernels.launch_wgmma_forward(x, w, b, y, S, P, groups, relu, kernels.WGMMA_FORWARD[dtype][tile])
    return y


def transposed(dy, w, shape, S, P, groups, dtype="float32", tile=2):
    dx = backend.empty(shape, dtype, like=dy)
    kernels.launch_wgmma_transpose(dy, w, dx, S, P, groups, kernels.WGMMA_TRANSPOSE[dtype][tile])
    return dx


@few
@outputs
def test_forward_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [forward(x, w, b, dy.shape, S, P, groups, dtype, tile)])
    right(got, *truth(name)[0], dtype)


@few
@outputs
def test_transpose_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [transposed(dy, w, x.shape, S, P, groups, dtype, tile)])
    right(got, *truth(name)[1], dtype)


@few
@in_turn("slices", [1, 3])
def test_filter_gradient_equals_the_reference(machine, name, slices, tile):
    (x, w, _, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [kernels.launch_wgmma_filter_gradient(
        x, dy, w.shape, S, P, groups, slices, kernels.WGMMA_FILTER_GRADIENT[tile])])
    right(got, *truth(name)[2])


ALL_WAYS = pytest.mark.parametrize("machine", ways("skewed", "race", "bounds", "gpu"), indirect=True)


@ALL_WAYS
def test_three_passes_in_every_order_of_threads(machine):
    (x, w, b, dy), (S, P, groups) = there(machine, "taps that meet nothing, one image")
    y, dx, dw = machine.results(lambda: [forward(x, w, b, dy.shape, S, P, groups), transposed(dy, w, x.shape, S, P, groups),
                                         kernels.launch_wgmma_filter_gradient(x, dy, w.shape, S, P, groups, 2)])
    for got, wanted in zip((y, dx, dw), truth("taps that meet nothing, one image")):
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


def test_what_serves_wgmma():
    assert kernels.serves_wgmma(384, 256, 128, 1) and kernels.serves_wgmma(128, 64, 32, 2)
    assert not kernels.serves_wgmma(384, 256, 125, 1) and not kernels.serves_wgmma(384, 252, 128, 1)
    assert not kernels.serves_wgmma(3, 96, 128, 1) and not kernels.serves_wgmma(384, 256, 8, 1)


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
