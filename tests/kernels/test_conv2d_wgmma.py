"""Convolution on wgmma, of bf16 in memory: held to the reference in float64, given what bf16 holds of the numbers."""
from functools import cache

import numpy as np
import pytest

from tests.executor.samples import bf16, from_bf16
from tests.kernels.conftest import EPS, close
from zfcore import backend
from zfcore.check import Expected
from zfcore.kernel import TensorMap
from zfcore.ops import conv2d_kernels as kernels
from zfcore.ops.conv2d import conv2d_backward_reference, conv2d_reference
from zfcore.ops.window import output_size

CASES = {        # C    H  W  N    F   K  S  P  groups
    "padding, two pixels a tile":         (72, 4, 3, 104, 40, 3, 1, 1, 1),
    "stride 2, tails everywhere":         (24, 7, 5, 40, 136, 3, 2, 1, 1),
    "two groups":                         (80, 3, 4, 16, 48, 2, 1, 0, 2),
    "taps that meet nothing, one image":  (16, 2, 3, 8, 8, 5, 3, 2, 1),
    "pixels that no window sees":         (8, 5, 6, 24, 16, 1, 2, 0, 1),
    "several blocks of images":           (8, 2, 2, 264, 8, 2, 1, 1, 1),
}
tiles = pytest.mark.parametrize("tile", range(len(kernels.WGMMA_TILES)), ids=[f"BN{tile['BN']}" for tile in kernels.WGMMA_TILES])
outputs = pytest.mark.parametrize("dtype", kernels.OUTPUTS)
cases = pytest.mark.parametrize("name", CASES)


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


def right(got, wanted, magnitude, products):
    """Of float32 sums, each of the products may be cut off at the last place of the largest (test_conv2d.py: roundings); a bf16
    output is rounded once more."""
    error = (9/8*products + 10)*EPS*magnitude
    if got.dtype == np.uint16:
        got, error = from_bf16(got), error + 2.0**-8*abs(wanted)
    close(got, wanted, error)


def there(machine, name):
    (x, w, b, dy), window = case(name)
    return tuple(map(machine.array, (bf16(x), bf16(w), b, bf16(dy)))), window


@tiles
@outputs
@cases
def test_forward_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    y = backend.empty(dy.shape, dtype, like=x)
    kernels.launch_wgmma_forward(x, w, b, y, S, P, groups, False, kernels.WGMMA_FORWARD[dtype][tile])
    [got] = machine.results(lambda: [y])
    right(got, *truth(name)[0])


@tiles
@outputs
@cases
def test_transpose_equals_the_reference(machine, name, dtype, tile):
    (x, w, b, dy), (S, P, groups) = there(machine, name)
    dx = backend.empty(x.shape, dtype, like=x)
    kernels.launch_wgmma_transpose(dy, w, dx, S, P, groups, kernels.WGMMA_TRANSPOSE[dtype][tile])
    [got] = machine.results(lambda: [dx])
    right(got, *truth(name)[1])


@tiles
@cases
@pytest.mark.parametrize("slices", [1, 3])
def test_filter_gradient_equals_the_reference(machine, name, slices, tile):
    (x, w, _, dy), (S, P, groups) = there(machine, name)
    [got] = machine.results(lambda: [kernels.launch_wgmma_filter_gradient(
        x, dy, w.shape, S, P, groups, slices, kernels.WGMMA_FILTER_GRADIENT[tile])])
    right(got, *truth(name)[2])
