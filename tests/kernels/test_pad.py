import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.ops.pad import pad, pad_backward, pad_backward_reference, pad_reference

SHAPE = 3, 7, 13                                                        # several blocks, which begin amid rows
FRAMES = [(1, 2, 3, 0), (0, -1, 0, -1), (-2, -1, 0, 2), (2, -6, -3, 5)]


@pytest.mark.parametrize("N", [3, 8])
@pytest.mark.parametrize("frame", FRAMES)
def test_pad_and_its_way_back_are_the_reference(machine, rng, frame, N):
    x = normal(rng, *SHAPE, N)
    x[1, 3, 4] = np.nan
    wanted, cache = pad_reference(x, *frame)
    dy = normal(rng, *wanted.shape)
    y, dx = machine.results(lambda: (pad(machine.array(x), *frame)[0], pad_backward(machine.array(dy), cache)))
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(dx, pad_backward_reference(dy, cache))
