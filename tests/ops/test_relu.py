import numpy as np
import pytest

from zfcore.ops.relu import relu, relu_backward, relu_backward_reference, relu_reference

SHAPES = [(3, 5, 7, 2), (11, 6), (1, 1), (13,)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_relu_is_the_reference_and_keeps_the_dtype(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    kept = x.copy()
    y, cache = relu(x)
    np.testing.assert_array_equal(y, relu_reference(x))
    assert y.dtype == cache.dtype == dtype
    np.testing.assert_array_equal(x, kept)                                  # the input is left alone


def test_relu_of_minus_one_zero_and_one():
    y, _ = relu(np.array([-1.0, 0.0, 1.0, -np.inf, np.inf]))
    assert y.tolist() == [0, 0, 1, 0, np.inf]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_relu_backward_lets_the_gradient_pass_where_the_unit_was_on(shape, dtype):
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    _, cache = relu(x)
    dx = relu_backward(dy, cache)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))
    np.testing.assert_array_equal(dx, relu_backward_reference(dy, cache))
    assert dx.dtype == dtype


def test_relu_backward_is_zero_at_the_kink():
    _, cache = relu(np.zeros((2, 3)))
    assert not relu_backward(np.ones((2, 3)), cache).any()


def test_a_nan_stays_one():
    x = np.array([np.nan, -1, 2], np.float32)
    np.testing.assert_array_equal(relu(x)[0], [np.nan, 0, 2])
    np.testing.assert_array_equal(relu_reference(x), [np.nan, 0, 2])


def test_an_infinite_gradient_is_stopped_where_the_unit_was_off():
    _, cache = relu(np.array([-1.0, 3.0]))
    assert relu_backward(np.array([np.inf, -np.inf]), cache).tolist() == [0, -np.inf]


def test_relu_in_slabs_equals_relu_in_one_piece():
    x = np.random.default_rng(2).standard_normal((37, 4099)).astype(np.float32)       # above the size of one slab
    y, cache = relu(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(relu_backward(x, cache), np.maximum(x, 0))
