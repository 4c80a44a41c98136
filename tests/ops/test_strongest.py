import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.ops.strongest import Lists, strongest, strongest_reference

UNITS, K = 7, 4


def empty_lists(lowest=-np.inf, dtype=np.float32):
    return Lists(np.full((UNITS, K), lowest, dtype), np.full((UNITS, K), -1), np.full((UNITS, K), -1))


def maps(seed, *shape, dtype=np.float32):
    """Few different values, so that there are ties within a map, a batch, and between batches."""
    return np.random.default_rng(seed).integers(-3, 12, (UNITS, *shape)).astype(dtype)


@pytest.mark.parametrize("listed, dtype", [(np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float64)])
@pytest.mark.parametrize("shape", [(5, 3), ()], ids=["maps", "units"])
def test_batch_after_batch_the_lists_are_those_of_the_reference(shape, listed, dtype):
    """In thirds, which float64 maps and float32 lists have differently."""
    lists = wanted = empty_lists(0, listed)
    for seed, pictures in enumerate((np.arange(6), np.array([6, 8, 9]), np.array([40]))):
        y = maps(seed, *shape, len(pictures), dtype=dtype)/dtype(3)
        wanted = strongest_reference(wanted, y, pictures)
        strongest(lists, y, pictures)
        for got, right in zip(lists, wanted):
            np.testing.assert_array_equal(got, right)
            assert got.dtype == right.dtype
    assert (lists.values > 0).all() or not shape


def test_batches_one_behind_the_other_are_one_batch():
    y, pictures, whole, parts = maps(3, 4, 5, 11), np.arange(11), empty_lists(), empty_lists()
    strongest(whole, y, pictures)
    for some in (slice(0, 3), slice(3, 4), slice(4, 11)):
        strongest(parts, y[..., some], pictures[some])
    for one, other in zip(whole, parts):
        np.testing.assert_array_equal(one, other)


def test_of_equal_pictures_and_places_the_first_is_listed_and_a_nan_is_not():
    y = np.full((UNITS, 2, 3, 5), 2, np.float32)
    y[:, 1, 2, 1] = np.nan
    lists = empty_lists()
    strongest(lists, y, np.arange(10, 15))
    assert (lists.pictures == [10, 12, 13, 14]).all() and not lists.places.any() and (lists.values == 2).all()
    strongest(lists, y, np.arange(20, 25))
    assert (lists.pictures == [10, 12, 13, 14]).all()


def test_maps_of_another_count_or_dtype_are_refused():
    for y, sentence in ((maps(0, 5)[1:], "values: expected shape"),
                        (maps(0, 5, dtype=np.float16), "y: expected float32 or float64, got float16")):
        with pytest.raises(Expected, match=sentence):
            strongest(empty_lists(), y, np.arange(5))
