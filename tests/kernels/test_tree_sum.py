import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.ops.tree_sum import spans, tree_sum


@pytest.mark.parametrize("total, offset", [(1036, 0), (1037, 0), (260, 1)],
                         ids=["four at once", "an odd length", "off the 16 bytes"])
@pytest.mark.parametrize("cuts", [(0, 1, 2), (0, 3, 6, 8), (0, 2, 5, 7), (0, 1, 2, 4, 8, 16), (0, 7, 14, 21)], ids=str)
def test_the_bits_are_those_of_numpy(machine, rng, total, offset, cuts):
    leaves = cuts[-1]
    begins = [first for a, b in zip(cuts, cuts[1:]) for first, _ in spans(a, b, leaves)]
    parts = [normal(rng, offset + total)*np.float32(10.0**rng.integers(-3, 4)) for _ in begins]

    def work():
        there = [machine.array(part)[offset:] for part in parts]
        tree_sum(there, begins, leaves)
        return there[:1]

    got, = machine.results(work)
    wanted = [part[offset:].copy() for part in parts]
    tree_sum(wanted, begins, leaves)
    assert got.tobytes() == wanted[0].tobytes() != parts[0][offset:].tobytes()


def test_leaves_beyond_those_of_a_launch(machine, rng):
    parts = [normal(rng, 37) for _ in range(35)]

    def work():
        there = [*map(machine.array, parts)]
        tree_sum(there, range(35), 35)
        return there[:1]

    wanted = [part.copy() for part in parts]
    tree_sum(wanted, range(35), 35)
    assert machine.results(work)[0].tobytes() == wanted[0].tobytes()
