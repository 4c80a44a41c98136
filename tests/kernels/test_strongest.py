import numpy as np
import pytest

from zfcore.ops.strongest import Lists, strongest, strongest_reference

BATCHES = np.arange(3, 40), np.array([40, 41, 43, 44, 47]), np.array([90])     # more images than a warp; with gaps; one


@pytest.mark.parametrize("shape, k", [((7, 6), 9), ((), 3), ((2, 3), 1)], ids=["maps", "units", "fewer places than warps"])
def test_the_lists_are_those_of_the_reference_to_the_bit(machine, rng, shape, k):
    units = 5
    # ties everywhere
    maps = [np.round(rng.standard_normal((units, *shape, len(batch)), np.float32), 1) for batch in BATCHES]
    maps[0][1] = np.abs(maps[0][1]) - 99                                       # no picture of it enters the list
    maps[0][2, ..., 4] = maps[1][3, ..., 2] = np.nan
    maps[2][4] = -np.inf
    start = Lists(np.full((units, k), -2, np.float32), np.full((units, k), -1), np.full((units, k), -1))

    def work():
        lists = Lists(*map(machine.array, start))
        for batch, y in zip(BATCHES, maps):
            strongest(lists, machine.array(y), batch)
        return lists

    wanted = start
    for batch, y in zip(BATCHES, maps):
        wanted = strongest_reference(wanted, y, batch)
    for got, right in zip(machine.results(work), wanted, strict=True):
        assert got.dtype == right.dtype
        np.testing.assert_array_equal(got, right)
    assert (wanted.pictures[1] == -1).sum() < k or not shape
