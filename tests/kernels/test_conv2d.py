"""conv2d, its transpose and its filter gradient as kernels: the plain ones against the reference, the tiled ones against
the plain ones, bit by bit where the order of the sum is the same."""
from functools import cache

import numpy as np
import pytest

from tests import executor
from tests.kernels.conftest import EPS, close
from zfcore import backend
from zfcore.check import Expected
from zfcore.ops import conv2d as module
from zfcore.ops.conv2d import (FILTER_GRADIENT_KERNELS, FILTER_GRADIENT_PLAIN, FORWARD_KERNELS, PLAIN, TRANSPOSE_KERNELS,
                               TRANSPOSE_PLAIN, conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference,
                               conv2d_transpose)
from zfcore.ops.window import output_size

CASES = {       # C   H   W    N    F  K  S  P groups rounding
    "tails on every tile, by fours":     (4, 5, 4, 36, 132, 3, 2, 1, 1, "ceil"),
    "tails on every tile, odd":          (3, 5, 4, 37, 131, 3, 2, 1, 1, "floor"),
    "one pixel a tile, padding":         (4, 3, 2, 128, 8, 3, 1, 1, 1, "ceil"),
    "two groups by fours":               (8, 7, 5, 12, 24, 3, 1, 0, 2, "ceil"),
    "three groups, P = K - 1":           (3, 6, 9, 5, 6, 4, 3, 3, 3, "ceil"),
    "windows reach over the border":     (2, 7, 10, 3, 5, 4, 3, 0, 1, "ceil"),
    "the same map, windows inside":      (2, 7, 10, 3, 5, 4, 3, 0, 1, "floor"),
    "a window larger than the map":      (2, 2, 3, 3, 4, 5, 1, 0, 1, "ceil"),
    "pixels that no window sees":        (2, 11, 7, 3, 3, 2, 3, 1, 1, "floor"),
    "32 maps, a tile of places each":    (32, 7, 5, 3, 3, 5, 2, 2, 1, "ceil"),
    "one picture":                       (3, 13, 9, 1, 10, 5, 2, 1, 1, "ceil"),
    "more than one tile of images":      (2, 6, 5, 130, 5, 4, 3, 2, 1, "ceil"),
}


@cache
def case(name, seed=0):
    """(x, w, b, dy) of that convolution, and its S, P, groups."""
    C, H, W, N, F, K, S, P, groups, rounding = CASES[name]
    rng = np.random.default_rng(seed)
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    return tuple(rng.standard_normal(size, np.float32) for size in (
        (C, H, W, N), (C//groups, K, K, F), (F,), (F, Ho, Wo, N))), (S, P, groups)


@cache
def truth(name):
    """((y, error of y), (dx, error), (dw, error), (db, error)) in float64: a sum of n products, each rounded, is wrong by
    at most n*EPS/2 times the sum of their magnitudes, in whatever order (Higham, Accuracy and Stability, section 3.1)."""
    (x, w, b, dy), (S, P, groups) = case(name)
    rounding, (F, Ho, Wo, N), (Cg, K) = CASES[name][-1], dy.shape, w.shape[:2]
    values = conv2d_reference(x, w, b, S, P, groups, rounding), *conv2d_backward_reference(dy, x, w, S, P, groups)
    sizes = (conv2d_reference(abs(x), abs(w), abs(b), S, P, groups, rounding),
             *conv2d_backward_reference(abs(dy), abs(x), abs(w), S, P, groups))
    products = Cg*K*K, F//groups*K*K, Ho*Wo*N, Ho*Wo*N
    return [(value, (n + 2)*EPS/2*size) for value, size, n in zip(values, sizes, products)]


def fits(kernel, M, N):
    return M % kernel.defines.get("VECTOR_A", 1) == 0 and N % kernel.defines.get("VECTOR_B", 1) == 0


def by(kernel):
    return "x".join(str(kernel.defines[side]) for side in ("BM", "BN")) + (
        " one by one" if kernel.defines.get("VECTOR_B") == 1 else "")


def plain(machine, arrays, window):
    """y without bias, dx and dw by the plain kernels."""
    (x, w, b, dy), (S, P, groups) = map(machine.array, arrays), window
    y, dx, dw = (backend.empty(like.shape, np.float32, like) for like in (dy, x, w))
    sizes = module._sizes(x, w, dy, S, P, groups)
    PLAIN(backend.blocks(y.size, PLAIN.block), x, w, b, y, *sizes, False, False)
    TRANSPOSE_PLAIN(backend.blocks(dx.size, TRANSPOSE_PLAIN.block), dy, w, dx, *sizes)
    FILTER_GRADIENT_PLAIN(backend.blocks(dw.size, FILTER_GRADIENT_PLAIN.block), x, dy, dw, *sizes)
    return y, dx, dw


# --------------------------------------------------------------------------------------- against the specification
@pytest.mark.parametrize("name", CASES)
def test_plain_kernels_equal_the_reference(machine, name):
    y, dx, dw = machine.results(lambda: plain(machine, *case(name)))
    (_, _, b, _), _ = case(name)
    (wanted, error), *gradients = truth(name)
    close(y, wanted - b[:, None, None, None], error)
    close(dx, *gradients[0])
    close(dw, *gradients[1])


@pytest.mark.parametrize("name", CASES)
def test_conv2d_and_its_gradients_equal_the_reference(machine, name):
    (x, w, b, dy), (S, P, groups) = case(name)

    def work():
        y, saved = conv2d(*map(machine.array, (x, w, b)), S, P, groups, CASES[name][-1])
        return y, *conv2d_backward(machine.array(dy), saved)

    for got, (wanted, error) in zip(machine.results(work), truth(name), strict=True):
        close(got, wanted, error)


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("kernel", FILTER_GRADIENT_KERNELS, ids=by)
def test_filter_gradient_equals_the_reference_in_every_tile_and_slice(machine, monkeypatch, kernel, slices):
    monkeypatch.setattr(module, "FILTER_GRADIENT_KERNELS", [kernel])
    monkeypatch.setattr(module, "_slices", lambda length, wanted, least: slices)          # of short sums some are empty

    def gradient(name):
        (x, w, _, dy), (S, P, groups) = case(name)
        return module._launch_filter_gradient(*map(machine.array, (x, dy, w)), S, P, groups)

    for name, dw in zip(CASES, machine.results(lambda: map(gradient, CASES)), strict=True):
        close(dw, *truth(name)[2])


def test_bias_gradient_of_several_slices_equals_the_sum(machine, rng):
    dy = rng.standard_normal((3, 12, 11, 131), np.float32)
    assert dy[0].size >= 2*8192
    db, = machine.results(lambda: [module._launch_bias_gradient(machine.array(dy))])
    close(db, dy.sum((1, 2, 3), np.float64), dy[0].size*EPS/2*abs(dy).sum((1, 2, 3)))


# ---------------------------------------------------------------------------------------------- against each other
@pytest.mark.parametrize("kernel", FORWARD_KERNELS, ids=by)
def test_every_forward_tile_gives_the_bits_of_the_plain_kernel(machine, monkeypatch, kernel):
    monkeypatch.setattr(module, "FORWARD_KERNELS", [kernel])
    fitting = [name for name in CASES if fits(kernel, CASES[name][4]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 2

    def forward(name):
        (x, w, _, _), (S, P, groups) = case(name)
        return conv2d(machine.array(x), machine.array(w), None, S, P, groups, CASES[name][-1])[0]

    for name, y in zip(fitting, machine.results(lambda: map(forward, fitting)), strict=True):
        np.testing.assert_array_equal(y, machine.host(plain(machine, *case(name))[0]), err_msg=name)


@pytest.mark.parametrize("kernel", TRANSPOSE_KERNELS, ids=by)
def test_every_transpose_tile_gives_the_bits_of_the_plain_kernel(machine, monkeypatch, kernel):
    monkeypatch.setattr(module, "TRANSPOSE_KERNELS", [kernel])
    fitting = [name for name in CASES if fits(kernel, CASES[name][0]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 2

    def transpose(name):
        (x, w, _, dy), (S, P, groups) = case(name)
        return conv2d_transpose(machine.array(dy), machine.array(w), S, P, *x.shape[1:3], groups)

    for name, dx in zip(fitting, machine.results(lambda: map(transpose, fitting)), strict=True):
        np.testing.assert_array_equal(dx, machine.host(plain(machine, *case(name))[1]), err_msg=name)


@pytest.mark.parametrize("way", executor.ASYNC_WAYS)
@executor.requires_executor
def test_copies_may_land_as_early_or_as_late_as_is_legal(way):
    name = "tails on every tile, odd"
    (x, w, b, dy), (S, P, groups) = case(name)
    with executor.settings(way):
        y, saved = conv2d(*map(executor.array, (x, w, b)), S, P, groups, CASES[name][-1])
        results = y, *conv2d_backward(executor.array(dy), saved)
    for got, (wanted, error) in zip(map(executor.plain, results), truth(name), strict=True):
        close(got, wanted, error)


def test_an_image_has_the_same_bits_in_any_batch(machine):
    (x, w, b, _), (S, P, groups) = case("tails on every tile, odd")
    forward = lambda images: conv2d(*map(machine.array, (x[..., images], w, b)), S, P, groups, "floor")[0]
    whole, three, one = machine.results(lambda: map(forward, (slice(None), slice(30, 33), slice(31, 32))))
    np.testing.assert_array_equal(three, whole[..., 30:33])
    np.testing.assert_array_equal(one, whole[..., 31:32])


# -------------------------------------------------------------------------------------------------- properties
@pytest.mark.parametrize("name", ["two groups by fours", "windows reach over the border", "one picture"])
def test_transpose_is_the_adjoint_of_conv2d(machine, name):
    (x, w, _, dy), (S, P, groups) = case(name)
    y, dx = machine.results(lambda: (conv2d(machine.array(x), machine.array(w), None, S, P, groups, CASES[name][-1])[0],
                                     conv2d_transpose(machine.array(dy), machine.array(w), S, P, *x.shape[1:3], groups)))
    _, (_, error), *_ = truth(name)
    assert abs(np.vdot(dy.astype(np.float64), y) - np.vdot(dx.astype(np.float64), x)) <= 2*np.sum(error*abs(x))


@pytest.mark.parametrize("name", ["tails on every tile, by fours", "one picture"])
def test_relu_in_the_epilogue_is_relu_of_the_output_and_keeps_a_nan(machine, name):
    (x, w, b, _), (S, P, groups) = case(name)
    x = x.copy()
    x[0, 0, 0, 0] = np.nan
    forward = lambda relu: conv2d(*map(machine.array, (x, w, b)), S, P, groups, CASES[name][-1], relu)[0]
    y, rectified = machine.results(lambda: (forward(False), forward(True)))
    assert np.isnan(y).any() and (y < 0).any()
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))


# A product that is not formed cannot spread a NaN: 3x3 windows on a map of 3 x 2, P = 1, a tile on one pixel.
@pytest.mark.parametrize("plainly", [True, False], ids=["plain", "tiled"])
def test_taps_outside_the_map_are_not_multiplied(machine, monkeypatch, plainly):
    (x, w, b, dy), (S, P, groups) = case("one pixel a tile, padding")
    w = w.copy()
    w[:, 0, 0] = w[:, 2, 2] = np.nan          # outside at the first row or column, and at the last: together at two corners
    monkeypatch.setattr(module, "FORWARD_KERNELS", FORWARD_KERNELS[:1])
    monkeypatch.setattr(module, "TRANSPOSE_KERNELS", TRANSPOSE_KERNELS[:1])

    def tiled():
        return (conv2d(machine.array(x), machine.array(w), None, S, P, groups)[0],
                conv2d_transpose(machine.array(dy), machine.array(w), S, P, 3, 2, groups))

    for result in machine.results(lambda: plain(machine, (x, w, b, dy), (S, P, groups))[:2] if plainly else tiled()):
        finite = np.isfinite(result).all(axis=(0, 3))
        np.testing.assert_array_equal(finite, [[False, True], [False, False], [True, False]])


def test_outputs_whose_place_is_outside_the_map_are_not_multiplied(machine, monkeypatch):
    monkeypatch.setattr(module, "FILTER_GRADIENT_KERNELS", FILTER_GRADIENT_KERNELS[-1:])      # 32 x 32: one place (r,s) a tile
    (x, w, _, dy), (S, P, groups) = case("32 maps, a tile of places each")
    upper, left = dy.copy(), dy.copy()
    upper[:, 0], left[:, :, -1] = np.nan, np.nan

    def work():
        return [module._launch_filter_gradient(*map(machine.array, (x, part, w)), S, P, groups) for part in (upper, left)]

    upper, left = machine.results(work)       # 4 x 3 outputs at rows -2, 0, 2, 4 and columns -2, 0, 2 of a map of 7 x 5
    np.testing.assert_array_equal(np.isfinite(upper).all(axis=(0, 2, 3)), [True, True, False, False, False])
    np.testing.assert_array_equal(np.isfinite(left).all(axis=(0, 1, 3)), [False, False, False, True, True])


def test_float64_is_refused_in_a_sentence(machine):
    (x, w, b, _), (S, P, groups) = case("one picture")
    with pytest.raises(Expected, match="conv2d_forward.x.: expected float32, got float64"):
        conv2d(*(machine.array(part.astype(np.float64)) for part in (x, w, b)), S, P, groups)


def test_offsets_beyond_two_to_the_31_reach_the_right_pixels():
    try:
        device = backend.select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    H, W, N, S = 32769, 32767, 2, 251
    w = device.array(np.ones((1, 1, 1, 1), np.float32))
    x = backend.zeros((1, H, W, N), np.float32, like=w)
    assert x.size > 2**31
    rows, columns = np.arange(0, H, S), np.arange(0, W, S)
    dy = np.random.default_rng(0).standard_normal((1, len(rows), len(columns), N), np.float32)
    x[:, ::S, ::S] = device.array(dy)
    np.testing.assert_array_equal(backend.to_host(conv2d(x, w, None, S, 0)[0]), dy)
    dx = conv2d_transpose(device.array(dy), w, S, 0, H, W)
    np.testing.assert_array_equal(backend.to_host(dx[:, ::S, ::S]), dy)
    assert float(abs(dx).sum()) == pytest.approx(abs(dy).sum(), rel=1e-4)
