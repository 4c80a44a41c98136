import time

import numpy as np
import pytest

from tests.ops.slope import slope
from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import local_response_norm as module
from zfcore.ops.local_response_norm import (local_response_norm, local_response_norm_backward,
                                            local_response_norm_backward_reference,
                                            local_response_norm_of_maxpool, local_response_norm_reference)
from zfcore.ops.maxpool import maxpool
from zfcore.ops.relu import relu_backward

# alpha is large on purpose: at AlexNet's 1e-4 the whole sum hides below a tolerance
RULES = [(5, 0.5, 0.75, 2.0), (1, 0.7, 0.75, 1.0), (2, 0.6, 0.5, 1.5), (4, 0.8, 1.0, 0.5), (3, 0.4, 0.6, 2.0),
         (13, 0.9, 0.75, 1.0), (30, 0.9, 0.4, 1.0)]
SHAPE = (7, 3, 5, 4)                                                        # C, H, W, N


def numbers(seed, dtype=float):
    return (3*np.random.default_rng(seed).standard_normal(SHAPE)).astype(dtype)


@pytest.mark.parametrize("convention", ["mean", "sum"])
@pytest.mark.parametrize("n,alpha,beta,k", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_local_response_norm_and_its_backward_are_the_reference(n, alpha, beta, k, convention, dtype):
    x, dy = numbers(0, dtype), numbers(1, dtype)
    y, cache = local_response_norm(x, n, alpha, beta, k, convention)
    dx = local_response_norm_backward(dy, cache)
    y_ref, cache_ref = local_response_norm_reference(x.astype(float), n, alpha, beta, k, convention)
    assert y.dtype == dx.dtype == dtype
    tolerance = 40*np.finfo(dtype).eps
    np.testing.assert_allclose(y, y_ref, rtol=tolerance)
    dx_ref = local_response_norm_backward_reference(dy.astype(float), cache_ref)
    np.testing.assert_allclose(dx, dx_ref, rtol=tolerance, atol=9*tolerance)


@pytest.mark.parametrize("convention", ["mean", "sum"])
@pytest.mark.parametrize("n,alpha,beta,k", RULES)
def test_the_backward_is_the_slope_of_the_forward(n, alpha, beta, k, convention):
    x, u, v = numbers(2), numbers(3), numbers(4)
    change = slope(lambda x: local_response_norm(x, n, alpha, beta, k, convention)[0], x, v)
    _, cache = local_response_norm(x, n, alpha, beta, k, convention)
    np.testing.assert_allclose(np.vdot(u, change), np.vdot(local_response_norm_backward(u, cache), v), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_far_more_neighbours_than_there_are_maps_cost_no_more_than_the_maps(beta):
    """Their bits are those of as many as reach every map."""
    x, dy = numbers(0), numbers(1)
    many, enough = (local_response_norm(x, n, 0.9, beta, 1.0, "sum") for n in (13, 14))
    began = time.process_time()
    y, cache = local_response_norm(x, 2**26, 0.9, beta, 1.0, "sum")
    dx = local_response_norm_backward(dy, cache)
    assert time.process_time() - began < 0.5               # to walk over them takes seconds
    for of_x, of_cache in (many, enough):
        np.testing.assert_array_equal(y, of_x)
        np.testing.assert_array_equal(dx, local_response_norm_backward(dy, of_cache))


def seen_by_the_middle_map(n):
    """y[3] of seven maps that are 0, 1 in map 3, and 2 more in one map after the other: 1/6 where that map counts."""
    x = np.zeros((7, 1, 1, 1))
    x[3] = 1
    others = 2*np.eye(7).reshape(7, 7, 1, 1, 1)
    return [local_response_norm(x + other, n, 1.0, 1.0, 1.0, "sum")[0][3].item() for other in others]


def test_an_odd_window_is_symmetric():
    assert seen_by_the_middle_map(5) == pytest.approx([1/2, 1/6, 1/6, 3/10, 1/6, 1/6, 1/2])


def test_an_even_window_has_one_map_more_below():
    assert seen_by_the_middle_map(4) == pytest.approx([1/2, 1/6, 1/6, 3/10, 1/6, 1/2, 1/2])


def test_the_two_conventions_differ_by_n_in_alpha():
    x = numbers(5)
    mean, total = local_response_norm(x, 5, 0.5, 0.75, 2.0, "mean")[0], local_response_norm(x, 5, 0.1, 0.75, 2.0, "sum")[0]
    np.testing.assert_allclose(mean, total, rtol=1e-14)
    assert not np.allclose(mean, local_response_norm(x, 5, 0.5, 0.75, 2.0, "sum")[0])


def test_mean_is_the_default():
    x = numbers(5)
    y, _ = local_response_norm(x, 5, 0.5, 0.75, 2.0)
    np.testing.assert_array_equal(y, local_response_norm(x, 5, 0.5, 0.75, 2.0, "mean")[0])


def test_a_small_map_behind_a_large_one_keeps_its_digits():
    x = np.full((9, 1, 1, 1), 1e-3, np.float32)
    x[0] = 1e4                                                              # a running sum would carry its rounding
    y, _ = local_response_norm(x, 3, 1.0, 0.75, 1e-6, "sum")
    y_ref, _ = local_response_norm_reference(x.astype(float), 3, 1.0, 0.75, 1e-6, "sum")
    np.testing.assert_allclose(y[2:], y_ref[2:], rtol=1e-6)


@pytest.mark.parametrize("budget", [1, 300, 1000, 2**21])
def test_blocks_of_any_size_on_any_number_of_cores_give_the_same_bits(budget, monkeypatch):
    x, dy = numbers(6, np.float32), numbers(7, np.float32)
    y, cache = local_response_norm(x, 5, 0.5, 0.75, 2.0)
    dx = local_response_norm_backward(dy, cache)
    monkeypatch.setattr(module, "_blocks", lambda columns, cut=module._blocks: cut(columns, budget))
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(y, local_response_norm(x, 5, 0.5, 0.75, 2.0)[0])
        np.testing.assert_array_equal(dx, local_response_norm_backward(dy, cache))


def test_inputs_are_left_alone_and_numpy_numbers_do_not_widen_float32():
    x, dy = numbers(8, np.float32), numbers(9, np.float32)
    kept = x.copy(), dy.copy()
    y, cache = local_response_norm(x, 5, np.float64(0.5), np.float64(0.6), np.float64(2.0))
    assert y.dtype == local_response_norm_backward(dy, cache).dtype == np.float32
    np.testing.assert_array_equal(y, local_response_norm(x, 5, 0.5, 0.6, 2.0)[0])
    np.testing.assert_array_equal((x, dy), kept)


def test_strided_views_are_normalised_like_their_copies():
    x, dy = numbers(12), numbers(13)
    y, cache = local_response_norm(np.asfortranarray(x), 5, 0.5, 0.75, 2.0)
    np.testing.assert_array_equal(y, local_response_norm(x, 5, 0.5, 0.75, 2.0)[0])
    dx = local_response_norm_backward(np.asfortranarray(dy), cache)
    np.testing.assert_array_equal(dx, local_response_norm_backward(dy, cache))


@pytest.mark.parametrize("wrong", [dict(n=0), dict(k=0.0), dict(alpha=-1.0), dict(convention="max")])
def test_a_rule_that_could_divide_by_zero_is_refused(wrong):
    rule = dict(n=5, alpha=1e-4, beta=0.75, k=2.0, convention="mean")
    with pytest.raises(Expected, match="local_response_norm: " + next(iter(wrong))):
        local_response_norm(numbers(0), **{**rule, **wrong})


def test_wrong_arrays_are_refused():
    with pytest.raises(Expected, match="float32"):
        local_response_norm(np.ones(SHAPE, int), 5, 1e-4, 0.75, 2.0)
    _, cache = local_response_norm(numbers(0), 5, 1e-4, 0.75, 2.0)
    with pytest.raises(Expected, match="dy"):
        local_response_norm_backward(numbers(0)[1:], cache)


@pytest.mark.parametrize("n,alpha,beta,k", RULES[:5])
def test_local_response_norm_is_pytorchs_even_windows_included(n, alpha, beta, k):
    torch = pytest.importorskip("torch")
    x, dy = numbers(10), numbers(11)
    y, cache = local_response_norm(x, n, alpha, beta, k, "mean")
    x_t = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)
    y_t = torch.nn.functional.local_response_norm(x_t, n, alpha, beta, k)
    y_t.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))
    np.testing.assert_allclose(y, y_t.detach().numpy().transpose(1, 2, 3, 0), rtol=1e-12)
    dx_t = x_t.grad.numpy().transpose(1, 2, 3, 0)
    np.testing.assert_allclose(local_response_norm_backward(dy, cache), dx_t, rtol=1e-10, atol=1e-12)


def test_going_on_through_the_relu_below_gives_the_bits_of_its_own_backward():
    x, dy = np.maximum(numbers(0), 0), numbers(1)
    x[2, 1, 3] = np.nan
    _, cache = local_response_norm(x, *RULES[0])
    wanted = relu_backward(local_response_norm_backward(dy, cache), x)
    assert local_response_norm_backward(dy, cache, relu=True).tobytes() == wanted.tobytes()
    finite = np.nan_to_num(x, nan=1.0), cache[1]
    np.testing.assert_allclose(local_response_norm_backward_reference(numbers(1), finite, relu=True),
                               local_response_norm_backward(numbers(1), finite, relu=True), rtol=1e-12, atol=1e-12)


def test_behind_a_pool_both_give_what_they_give_alone_and_refuse_what_they_refuse():
    x, pool, norm = numbers(0), (2, 2, 1, "floor"), (*RULES[0], "sum")
    (maxima, of_pool), (y, of_norm) = local_response_norm_of_maxpool(x, pool, norm)
    wanted, (switches, pooling, _) = maxpool(x, *pool)
    np.testing.assert_array_equal(maxima, wanted)
    np.testing.assert_array_equal(of_pool[0], switches)
    np.testing.assert_array_equal(y, local_response_norm(wanted, *norm)[0])
    assert of_pool[1] == pooling and of_pool[2] is of_norm[0] is maxima
    with pytest.raises(Expected, match="15x15"):
        local_response_norm_of_maxpool(x, (16, 2, 0, "ceil"), norm)
    with pytest.raises(Expected, match="alpha"):
        local_response_norm_of_maxpool(x, pool, (5, -1, 0.75, 2, "mean"))
