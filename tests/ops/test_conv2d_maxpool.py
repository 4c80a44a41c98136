"""Where no kernel takes the pool along, the convolution and the pool are called, and are the references of both."""
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_reference
from zfcore.ops.conv2d_maxpool import conv2d_maxpool, conv2d_maxpool_backward
from zfcore.ops.maxpool import maxpool_backward, maxpool_reference


@pytest.mark.parametrize("pool", [(3, 2, 0, "ceil"), (3, 2, 1, "ceil"), (2, 2, 0, "floor")])
@pytest.mark.parametrize("S, P, groups, rounding", [(1, 1, 1, "ceil"), (2, 0, 2, "floor")])
def test_output_and_switches_are_the_references(S, P, groups, rounding, pool):
    rng = np.random.default_rng(3)
    sizes = (4, 11, 14, 3), (4//groups, 3, 3, 6), (6,)
    x, w, b = (rng.integers(-2, 3, size).astype(np.float32) for size in sizes)                                  # exact sums
    wanted, (switches, *_) = maxpool_reference(np.maximum(conv2d_reference(x, w, b, S, P, groups, rounding), 0), *pool)
    _, (y, of_pool) = conv2d_maxpool(x, w, b, S, P, pool, groups, rounding)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(of_pool[0], switches)


def test_both_caches_lead_the_gradient_down_as_those_of_the_two_operations():
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(size, np.float32) for size in ((3, 9, 8, 2), (3, 3, 3, 5), (5,)))
    cache, (y, of_pool) = conv2d_maxpool(x, w, b, 2, 1, (2, 2, 0, "ceil"))
    between, alone = conv2d(x, w, b, 2, 1, relu=True)
    dy = rng.standard_normal(y.shape, np.float32)
    down = maxpool_backward(dy, of_pool)
    assert down.shape == between.shape
    for got, wanted in zip(conv2d_backward(down, cache), conv2d_backward(down, alone), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("biased, need_dx", [(True, True), (False, True), (True, False)])
def test_the_gradient_of_both_is_that_of_the_one_behind_the_other(biased, need_dx):
    rng = np.random.default_rng(5)
    x, w, b = (rng.standard_normal(size, np.float32) for size in ((3, 9, 8, 2), (3, 3, 3, 5), (5,)))
    cache, (y, of_pool) = conv2d_maxpool(x, w, b if biased else None, 2, 1, (2, 2, 0, "ceil"))
    dy = rng.standard_normal(y.shape, np.float32)
    wanted = conv2d_backward(maxpool_backward(dy, of_pool), cache, need_dx)
    for got, alone in zip(conv2d_maxpool_backward(dy, cache, of_pool, need_dx), wanted, strict=True):
        assert (got is None) == (alone is None)
        if got is not None:
            np.testing.assert_array_equal(got, alone)


def test_what_does_not_fit_is_told_as_the_operations_tell_it():
    x, w = np.zeros((3, 9, 8, 2), np.float32), np.zeros((4, 3, 3, 5), np.float32)
    with pytest.raises(Expected, match="conv2d w: expected shape"):
        conv2d_maxpool(x, w, None, 1, 0, (3, 2, 0, "ceil"))
