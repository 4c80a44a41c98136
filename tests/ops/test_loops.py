"""The loops that numba compiles give the bits of NumPy's forms, as Python runs them and as numba does."""
import sys

import numpy as np
import pytest

from zfcore.ops import loops
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward
from zfcore.ops.maxpool import maxpool, maxpool_backward


@pytest.fixture(params=["as Python", "compiled"])
def by_loops(request, monkeypatch):
    """A function: (what it is to run by NumPy, by the loops), the results of both."""
    used = []
    if request.param == "compiled":
        pytest.importorskip("numba")

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


def test_small_arrays_and_an_installation_without_numba_take_numpys_form(monkeypatch):
    large = np.zeros(loops.LEAST, np.uint8)
    assert loops.compiled(loops.pool_rows, large[1:]) is None
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(loops, "_compiled", loops._compiled.__wrapped__)
    assert loops.compiled(loops.pool_rows, large) is None
