import numpy as np
import pytest

from tests.ops.slope import slope
from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import local_response_norm_within as module
from zfcore.ops.avgpool import BORDERS, avgpool
from zfcore.ops.local_response_norm_within import (local_response_norm_within, local_response_norm_within_backward,
                                                   local_response_norm_within_backward_reference,
                                                   local_response_norm_within_reference)

# alpha is large on purpose: at the 5e-5 of Caffe's ZFNet the whole sum hides below a tolerance. n, alpha, beta, k, convention,
# P
RULES = [(3, 5.0, 0.75, 1.0, "mean", None), (5, 0.7, 0.5, 1.5, "sum", None), (1, 0.6, 0.75, 1.0, "mean", None),
         (3, 0.9, 1.0, 2.0, "mean", 0),
         (5, 0.8, 0.75, 0.5, "sum", 1), (5, 6.0, 0.6, 1.0, "mean", 0), (13, 0.9, 0.75, 1.0, "sum", None),
         (401, 0.9, 0.75, 1.0, "sum", None)]
SHAPE = (3, 9, 7, 4)                                                        # C, H, W, N
every = pytest.mark.parametrize("rule", RULES)


def numbers(seed, dtype=float, shape=SHAPE):
    return (3*np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_local_response_norm_within_and_its_backward_are_the_reference(rule, dtype):
    x = numbers(0, dtype)
    y, cache = local_response_norm_within(x, *rule)
    wanted, cache_ref = local_response_norm_within_reference(x.astype(float), *rule)
    dy = numbers(1, dtype, y.shape)
    dx = local_response_norm_within_backward(dy, cache)
    assert y.dtype == dx.dtype == dtype and y.shape == wanted.shape and cache.rule == cache_ref.rule
    tolerance = 40*np.finfo(dtype).eps
    np.testing.assert_allclose(y, wanted, rtol=tolerance)
    np.testing.assert_allclose(dx, local_response_norm_within_backward_reference(dy.astype(float), cache_ref), rtol=tolerance,
                               atol=9*tolerance)


@every
def test_the_backward_is_the_slope_of_the_forward(rule):
    x, v = numbers(2), numbers(4)
    y, cache = local_response_norm_within(x, *rule)
    u = numbers(3, shape=y.shape)
    change = slope(lambda x: local_response_norm_within(x, *rule)[0], x, v)
    np.testing.assert_allclose(np.vdot(u, change), np.vdot(local_response_norm_within_backward(u, cache), v), rtol=1e-6)


@pytest.mark.parametrize("borders", BORDERS)
@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_sum_is_caffes_mean_of_squares_and_divides_by_all_of_a_window_at_borders_too(n, borders):
    """Of an odd window Caffe's padding holds what reaches over a map, so that it never divides by less."""
    x = numbers(5)
    y, _ = local_response_norm_within(x, n, 0.7, 0.75, 1.0)
    caffe = x*(1 + 0.7*avgpool(x**2, n, 1, n//2, "ceil", borders)[0])**-0.75
    same = np.isclose(y, caffe, rtol=1e-13).all(axis=(0, 3))
    r = n//2
    assert same[r:9 - r, r:7 - r].all() and same.all() == (borders != "inside" or n == 1)


def test_the_two_conventions_differ_by_the_pixels_of_a_window_in_alpha():
    x = numbers(5)
    mean, total = (local_response_norm_within(x, 3, alpha, 0.75, 1.0, convention)[0]
                   for alpha, convention in ((0.9, "mean"), (0.1, "sum")))
    np.testing.assert_allclose(mean, total, rtol=1e-14)
    assert not np.allclose(mean, local_response_norm_within(x, 3, 0.9, 0.75, 1.0, "sum")[0])


def test_without_zeros_around_it_gives_what_it_gives_inside():
    x = numbers(6)
    whole, _ = local_response_norm_within(x, 5, 0.5, 0.75, 1.0)
    for P in (0, 1):
        r = 2 - P
        np.testing.assert_array_equal(local_response_norm_within(x, 5, 0.5, 0.75, 1.0, P=P)[0], whole[:, r:-r, r:-r])


def test_a_small_pixel_beside_a_large_one_keeps_its_digits():
    x = np.full((1, 1, 9, 1), 1e-3, np.float32)
    x[0, 0, 0] = 1e4                                                        # a running sum would carry its rounding
    y, _ = local_response_norm_within(x, 3, 1.0, 0.75, 1e-6, "sum")
    wanted, _ = local_response_norm_within_reference(x.astype(float), 3, 1.0, 0.75, 1e-6, "sum")
    np.testing.assert_allclose(y[0, 0, 2:], wanted[0, 0, 2:], rtol=1e-6)


@pytest.mark.parametrize("budget", [1, 300, 1000, 2**22])
@pytest.mark.parametrize("P", [None, 0])
def test_blocks_of_any_size_on_any_number_of_cores_give_the_same_bits(P, budget, monkeypatch):
    x = numbers(6, np.float32)
    y, cache = local_response_norm_within(x, 5, 0.5, 0.75, 1.0, P=P)
    dy = numbers(7, np.float32, y.shape)
    dx = local_response_norm_within_backward(dy, cache)
    monkeypatch.setattr(module, "map_blocks", lambda *of_map, cut=module.map_blocks: cut(*of_map, budget=budget))
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(y, local_response_norm_within(np.asfortranarray(x), 5, 0.5, 0.75, 1.0, P=P)[0])
        np.testing.assert_array_equal(dx, local_response_norm_within_backward(dy, cache))


def test_inputs_are_left_alone_and_numpy_numbers_do_not_widen_float32():
    x, dy = numbers(8, np.float32), numbers(9, np.float32)
    kept = x.copy(), dy.copy()
    y, cache = local_response_norm_within(x, 5, np.float64(0.5), np.float64(0.6), np.float64(2.0))
    assert y.dtype == local_response_norm_within_backward(dy, cache).dtype == np.float32
    np.testing.assert_array_equal((x, dy), kept)


@pytest.mark.parametrize("wrong", [dict(n=0), dict(n=4), dict(k=0.0), dict(alpha=-1.0), dict(convention="max"), dict(P=2),
                                   dict(P=-1)])
def test_a_rule_that_could_divide_by_zero_or_has_no_middle_is_refused(wrong):
    rule = dict(n=3, alpha=1e-4, beta=0.75, k=1.0, convention="mean")
    with pytest.raises(Expected, match="local_response_norm.*: " + next(iter(wrong))):
        local_response_norm_within(numbers(0), **{**rule, **wrong})


def test_wrong_arrays_are_refused():
    with pytest.raises(Expected, match="float32"):
        local_response_norm_within(np.ones(SHAPE, int), 3, 1e-4, 0.75, 1.0)
    with pytest.raises(Expected, match="maps of more than 8 pixels a side, got 9x7"):
        local_response_norm_within(numbers(0), 9, 1e-4, 0.75, 1.0, P=0)
    _, cache = local_response_norm_within(numbers(0), 3, 1e-4, 0.75, 1.0)
    with pytest.raises(Expected, match="dy"):
        local_response_norm_within_backward(numbers(0)[1:], cache)


@pytest.mark.parametrize("n", [3, 5])
def test_opencv_computes_the_same_of_caffes_layer(n):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV reads no Caffe")
    text = (f'input: "x" input_shape {{ dim: 4 dim: 3 dim: 9 dim: 7 }} layer {{ name: "y" type: "LRN" bottom: "x" top: "y" '
            f'lrn_param {{ local_size: {n} alpha: 0.5 beta: 0.75 norm_region: WITHIN_CHANNEL }} }}')
    network = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    x = numbers(11, np.float32)
    network.setInput(np.ascontiguousarray(x.transpose(3, 0, 1, 2)))
    np.testing.assert_allclose(local_response_norm_within(x, n, 0.5, 0.75, 1.0)[0], network.forward().transpose(1, 2, 3, 0),
                               rtol=3e-6)
