import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.ops.window import clear, output_size, pixels, tap_range, tap_spans, taps_met

GEOMETRIES = [(size, K, S, P) for size in (1, 2, 5, 6, 7, 13) for K in (1, 2, 3, 5) for S in (1, 2, 3, 7)
              for P in range(K)]


def test_the_sizes_of_zfnet_are_the_papers():
    sizes = [224]
    for K, S, P in [(7, 2, 0), (3, 2, 0), (5, 2, 0), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0)]:
        sizes.append(output_size(sizes[-1], K, S, P))
    assert sizes == [224, 110, 55, 26, 13, 13, 13, 13, 6]


def test_floor_counts_the_windows_that_fit_the_padded_map():
    for size, K, S, P in GEOMETRIES:
        fitting = sum(1 for first in range(-P, size + P, S) if first + K <= size + P)
        if fitting:
            assert output_size(size, K, S, P, "floor") == fitting
        else:
            with pytest.raises(Expected):
                output_size(size, K, S, P, "floor")


def test_ceil_leaves_no_pixel_behind_and_starts_no_window_outside():
    for size, K, S, P in GEOMETRIES:
        out = output_size(size, K, S, P)
        starts = [p*S - P for p in range(out)]
        assert starts[-1] < size
        assert starts[-1] + K >= size + P or starts[-1] + S >= size              # the next window would begin outside
        assert out == 1 or starts[-2] + K < size + P                            # and this one was needed


def test_a_map_smaller_than_the_window_has_one_output_when_sizes_round_up():
    assert output_size(2, 5, 2, 0) == 1
    assert output_size(1, 3, 1, 0) == 1


@pytest.mark.parametrize("size,K,S,P", [(0, 3, 2, 0), (5, 0, 1, 0), (5, 3, 0, 0), (5, 3, 2, 3), (5, 3, 2, -1)])
def test_an_impossible_window_is_refused(size, K, S, P):
    with pytest.raises(Expected, match="window"):
        output_size(size, K, S, P)


def test_rounding_is_ceil_or_floor():
    with pytest.raises(Expected, match="ceil, floor"):
        output_size(5, 3, 2, 0, "round")


def test_a_tap_range_holds_the_outputs_whose_tap_is_inside_the_map():
    for size, K, S, P in GEOMETRIES:
        out = output_size(size, K, S, P)
        for tap in range(K):
            lo, hi = tap_range(tap, size, out, S, P)
            assert 0 <= lo <= hi
            assert list(range(lo, hi)) == [p for p in range(out) if 0 <= p*S - P + tap < size]


def test_taps_are_all_that_meet_the_map_and_of_a_window_far_larger_than_it_hardly_more():
    for size, K, S, P in [*GEOMETRIES, (5, 2**24, 1, 0), (5, 2**24, 2**20, 2**24 - 1), (33, 2**24, 2**24, 2**23), (7, 2**24, 3, 2)]:
        out = output_size(size, K, S, P)
        met = taps_met(K, size, out, S, P)
        assert len(met) <= min(K, size + (out - 1)*S) and all(0 <= tap < K for tap in met)
        near = range(K) if K < 100 else {tap for tap in {*range(50), *range(K - 50, K), *(P - p*S + k for p in range(out)
                                                         for k in range(-9, 50))} if 0 <= tap < K}
        assert {tap for tap in near if any(0 <= p*S - P + tap < size for p in range(out))} <= set(met)


def test_tap_spans_say_for_every_tap_which_outputs_it_serves_and_where_it_lies():
    for size, K, S, P in GEOMETRIES:
        whole = output_size(size, K, S, P)
        for first in range(whole):
            out = min(2, whole - first)
            seen = []
            for taps, outputs, start in tap_spans(K, size, first, out, S, P):
                for tap in range(taps.start, taps.stop):
                    inside = [p for p in range(out) if 0 <= (first + p)*S - P + tap < size]
                    assert list(range(outputs.start, outputs.stop)) == inside
                    if inside:
                        assert start + tap - taps.start == (first + inside[0])*S - P + tap
                seen += range(taps.start, taps.stop)
            assert seen == list(range(K))


def test_away_from_the_border_all_taps_are_one_span():
    assert tap_spans(3, 20, 2, 4, 2, 1) == ((slice(0, 3), slice(0, 4), 3),)


def test_pixels_are_the_same_memory_with_one_element_a_pixel():
    x = np.arange(2*3*5*4, dtype=np.float32).reshape(2, 3, 5, 4)
    seen = pixels(x)
    assert seen.shape == (2, 3, 5)
    moved = seen[:, ::-1].copy().view(np.float32).reshape(2, 3, 5, 4)
    np.testing.assert_array_equal(moved, x[:, ::-1])
    clear(seen[1])
    assert not x[1].any() and x[0, 0, 0, 1] == 1
