"""The loops that numba compiles give the bits of NumPy's forms, as Python runs them and as numba does."""
import sys

import numpy as np
import pytest

from zfcore.analysis.invariance import Bordered, distances, sample
from zfcore.ops import conv2d_blocks, loops, winograd
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference, conv2d_transpose
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward
from zfcore.ops.maxpool import maxpool, maxpool_backward


@pytest.fixture(params=["as Python", "compiled"])
def by_loops(request, monkeypatch):
    """A function: (what it is to run by NumPy, by the loops), the results of both."""
    used = []
    pytest.importorskip("numba", reason="numba, which runs the loops, is not installed")
    if request.param == "as Python":
        monkeypatch.setattr(loops, "STRETCH", 64)                 # numba keeps what it compiled with the STRETCH of then

    def take(loop, x):
        used.append(loop)
        return loop if request.param == "as Python" else loops._compiled(loop)

    def both(run, *wanted):
        monkeypatch.setattr(loops, "compiled", lambda loop, x: None)
        plain = run()
        monkeypatch.setattr(loops, "compiled", take)
        looped = run()
        assert set(used) == set(wanted)
        return plain, looped
    return both


def same(plain, looped):
    for one, other in zip(plain, looped, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def maps(shape, dtype, seed=0):
    """Numbers of few values, so that many are the largest of a window."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


@pytest.mark.parametrize("N", [1, 3, 9])
@pytest.mark.parametrize("K, S, P, rounding, dtype", [(3, 2, 0, "ceil", np.float32), (3, 2, 1, "floor", np.float64),
                                                      (2, 3, 0, "ceil", np.float32), (4, 1, 3, "ceil", np.float32)])
def test_pooling_and_its_way_back(K, S, P, rounding, dtype, N, by_loops):
    x = maps((3, 9, 8, N), dtype)
    x[1, 3:6, 2:4, 0] = np.nan
    x[2, 5, 5] = np.inf

    def run():
        y, cache = maxpool(x, K, S, P, rounding)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
        dy[0, 1, 1] = np.inf
        return y, cache.switches, maxpool_backward(dy, cache), maxpool_backward(dy, cache, relu=True)

    same(*by_loops(run, loops.pool_rows, *[loops.unpool_rows]*(N >= loops.MANY)))


@pytest.mark.parametrize("maps_seen", [5, 4, 1, 11])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalisation_and_its_way_back(maps_seen, dtype, by_loops):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((7, 10, 9, 3)).astype(dtype)*20 for _ in range(2))

    assert loops.STRIP < 10*9*3                                   # numba keeps what it compiled with the STRIP of then

    def run():
        y, cache = local_response_norm(x, maps_seen, 1e-2, 0.75, 2)
        return y, local_response_norm_backward(dy, cache), local_response_norm_backward(dy, cache, relu=True)

    same(*by_loops(run, loops.normalise, loops.normalise_back))


def test_another_power_is_numpys(by_loops):
    x = maps((3, 4, 4, 2), np.float32)
    same(*by_loops(lambda: local_response_norm(x, 5, 1e-2, 0.5, 2)[:1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("planes, width", [((3, 40, 37), 1.0), ((1, 9, 30), 0.3), ((4, 33, 12), 2.7), ((3, 5, 4), 1.5)])
def test_sampling_of_a_picture_at_points_within_and_beyond_it(planes, width, dtype, by_loops):
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, planes).astype(dtype)
    rows, columns = (rng.uniform(-3, size + 3, (7, 19, 5)) for size in planes[1:])
    rows[0], columns[0] = rows[0].round(), columns[0].round()                        # on edges of pixels
    rows[1], columns[1] = np.floor(rows[1]) + 0.5, np.floor(columns[1]) + 0.5        # in their middles
    widths = width*np.linspace(1, 1.5, 5)
    same(*by_loops(lambda: [sample(Bordered.of(picture, widths), rows, columns, widths)], loops.sample))


@pytest.mark.parametrize("shape", [(700, 17), (1100, 64), (3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_of_features(shape, dtype, by_loops):
    features = maps(shape, dtype) + np.random.default_rng(1).standard_normal(shape).astype(dtype)
    features[:, 1] = 0
    same(*by_loops(lambda: distances(features[:, :1].copy(), features), loops.add_squares))


CONVOLUTIONS = [(5, 13, 11, 7, 3, 1, 1, 1, "ceil"),          # C H W F K S P groups rounding: conv3 of ZFNet in small
                (3, 14, 9, 5, 5, 2, 0, 1, "ceil"),           # conv2, whose last windows reach over the border
                (6, 9, 12, 4, 3, 2, 2, 2, "floor"),          # two groups, phases without a last point
                (2, 15, 13, 3, 7, 3, 6, 1, "ceil"),          # nine phases, P = K - 1
                (3, 10, 7, 2, 1, 2, 0, 1, "ceil"),           # S > K
                (2, 2, 3, 3, 3, 1, 0, 1, "ceil")]            # a window larger than the map


@pytest.mark.parametrize("N, dtype, block", [                # any two of them in one row
    (1, np.float32, 2**26), (3, np.float32, 2**26), (9, np.float32, 2**14),
    (1, np.float64, 2**14), (3, np.float64, 2**14), (9, np.float64, 2**26)])
@pytest.mark.parametrize("form", ["points", "windows"])
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_convolution_and_its_gradients(shape, N, dtype, form, block, by_loops, monkeypatch):
    C, H, W, F, K, S, P, groups, rounding = shape
    monkeypatch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: form == "points")
    monkeypatch.setattr(winograd, "BLOCK", block)
    monkeypatch.setattr(conv2d_blocks, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(size).astype(dtype) for size in ((C, H, W, N), (C//groups, K, K, F), (F,)))

    def run():
        y, cache = conv2d(x, w, b, S, P, groups, rounding)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
        return (y, conv2d(x, w, b, S, P, groups, rounding, relu=True)[0], conv2d(x, w, None, S, P, groups, rounding)[0],
                conv2d_transpose(dy, w, S, P, H, W, groups), *conv2d_backward(dy, cache))

    wanted = [loops.windows, loops.add_bias] if form == "windows" else [loops.to_points, loops.from_points]
    same(*by_loops(run, *wanted))


def test_one_tile_of_one_image_is_numpys_whose_product_with_a_vector_adds_in_another_order(by_loops, monkeypatch):
    monkeypatch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: True)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(size).astype(np.float32) for size in ((5, 2, 2, 1), (5, 3, 3, 7)))
    same(*by_loops(lambda: conv2d(x, w, None, 1, 1)[:1]))


@pytest.mark.parametrize("shape", CONVOLUTIONS)
@pytest.mark.parametrize("N", [1, 3])
def test_the_loops_alone_equal_the_reference_whatever_blas_does(shape, N, monkeypatch):
    C, H, W, F, K, S, P, groups, rounding = shape
    monkeypatch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: True)
    monkeypatch.setattr(winograd, "_adds_in_order", lambda *of: True)
    monkeypatch.setattr(winograd, "_terms", winograd._terms.__wrapped__)
    used = set()
    monkeypatch.setattr(loops, "compiled", lambda loop, x: used.add(loop) or loop)
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(size) for size in ((C, H, W, N), (C//groups, K, K, F), (F,)))
    y, cache = conv2d(x, w, b, S, P, groups, rounding)
    dy = rng.standard_normal(y.shape)
    for got, wanted in zip((y, *conv2d_backward(dy, cache)), (conv2d_reference(x, w, b, S, P, groups, rounding),
                                                              *conv2d_backward_reference(dy, x, w, S, P, groups))):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12*abs(wanted).max())
    assert used == {loops.to_points, loops.from_points} or y[0].size == 1


def test_where_blas_adds_in_another_order_numpys_form_is_taken(monkeypatch):
    [whole] = winograd.phases(5, 3, 1)
    monkeypatch.setattr(winograd, "_adds_in_order", lambda *of: False)
    monkeypatch.setattr(winograd, "_terms", winograd._terms.__wrapped__)
    monkeypatch.setattr(loops, "compiled", lambda loop, x: lambda *of: pytest.fail("a loop"))
    y = np.zeros((7, 6, 5, 3))
    for rows, columns, V, M in winograd._blocks((6, 5), 5, 7, 3, y.dtype):
        winograd._input_points(np.ones((5, 6, 5, 3)), 1, 1, [whole], rows, columns, V)
        winograd._gradient_points(y, rows, columns, M)
        winograd._outputs(M, winograd.phases(7, 3, 1), winograd.A, y, 1, 0, rows, columns)


def test_blas_that_sums_pairs_is_noticed(monkeypatch):
    matmul = np.matmul
    monkeypatch.setattr(winograd.np, "matmul",
                        lambda left, right: matmul(left[:, ::2], right[::2]) + matmul(left[:, 1::2], right[1::2]))
    assert winograd._terms.__wrapped__(winograd.A, 0, 16, (2, 2), np.dtype(np.float32), True) is None


def test_small_arrays_and_an_installation_without_numba_take_numpys_form(monkeypatch):
    large = np.zeros(loops.LEAST, np.uint8)
    assert loops.compiled(loops.pool_rows, large[1:]) is None
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(loops, "_compiled", loops._compiled.__wrapped__)
    assert loops.compiled(loops.pool_rows, large) is None


def test_numba_whose_library_finds_no_memory_is_as_none(monkeypatch):
    class Unloaded:
        def __getattr__(self, name):
            raise OSError("Could not find/load shared object file 'libllvmlite.so'")
    monkeypatch.setitem(sys.modules, "numba", Unloaded())
    assert loops._compiled.__wrapped__(loops.pool_rows) is None
