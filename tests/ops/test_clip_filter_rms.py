import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.ops.clip_filter_rms import clip_filter_rms, clip_filter_rms_reference, rms

SHAPE = (3, 5, 5, 11)                                                       # C, K, K, F


def limited(w, limit=0.1):
    """How many filters of `w` were scaled back."""
    clamped = np.zeros(())
    clip_filter_rms([w], limit, clamped)
    return clamped


def filters(dtype=float, seed=0):
    """Filters of RMS about 0.02, 0.04 ... 0.22: about half of them above 0.1."""
    return (np.random.default_rng(seed).standard_normal(SHAPE)*0.02*np.arange(1, 12)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_filter_rms_is_the_reference_in_place(dtype):
    w = filters(dtype)
    w_ref, clamped = clip_filter_rms_reference(w.astype(float), 0.1)
    assert 3 < clamped < 9
    assert limited(w) == clamped
    assert w.dtype == dtype
    np.testing.assert_allclose(w, w_ref, rtol=4*np.finfo(dtype).eps)


def test_a_filter_above_the_limit_is_scaled_to_it_and_keeps_its_direction():
    w = filters()
    before, size = w.copy(), rms(w)
    limited(w)
    np.testing.assert_allclose(rms(w), np.minimum(size, 0.1), rtol=1e-14)
    np.testing.assert_allclose(w*(size/rms(w)), before, rtol=1e-13)


def test_a_filter_within_the_limit_keeps_its_bits():
    w = filters(np.float32)
    before, small = w.copy(), rms(w) <= 0.1
    limited(w)
    np.testing.assert_array_equal(w[..., small], before[..., small])
    assert small.any() and not small.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 9), (2, 1, 1, 300)])
def test_a_filter_that_was_scaled_back_is_left_alone_the_next_time(shape, dtype):
    w = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    assert limited(w) > 0
    once = w.copy()
    assert limited(w) == 0
    np.testing.assert_array_equal(w, once)


def test_filters_of_zeros_are_left_alone():
    w = np.zeros(SHAPE, np.float32)
    assert limited(w) == 0 and not w.any()


def test_rms_is_taken_over_all_weights_of_each_filter():
    w = np.zeros((2, 3, 3, 4), np.float32)
    w[..., 1] = 0.5
    w[1, 2, 0, 2] = 3
    size = rms(w)
    assert size.shape == (4,) and size == pytest.approx([0, 0.5, np.sqrt(9/18), 0])


def test_the_squares_of_large_float32_weights_do_not_overflow():
    w = np.full((1, 2, 2, 3), 1e25, np.float32)
    assert limited(w) == 3
    np.testing.assert_allclose(w, np.full(w.shape, 0.1), rtol=1e-6)


def test_a_limit_that_is_not_above_zero_is_refused():
    for limit in (0, -0.1, np.nan):
        with pytest.raises(Expected, match="limit"):
            limited(filters(), limit)


def test_the_filters_of_all_convolutions_are_counted_on_top_of_those_before():
    several, clamped = [filters(), filters(seed=1), filters(seed=2)[..., :3]], np.full((), 100.0)
    wanted = [clip_filter_rms_reference(w, 0.1) for w in several]
    clip_filter_rms(several, 0.1, clamped)
    assert clamped == 100 + sum(count for _, count in wanted)
    for w, (scaled, _) in zip(several, wanted):
        np.testing.assert_allclose(w, scaled, rtol=1e-14)
