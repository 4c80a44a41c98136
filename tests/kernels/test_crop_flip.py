import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.ops.crop_flip import crop_flip, crop_flip_reference


@pytest.mark.parametrize("N, h, w", [(35, 3, 37), (5, 4, 9)])           # more pictures and columns than a tile, and fewer
def test_crop_flip_has_the_bits_of_the_reference(machine, rng, N, h, w):
    pictures = rng.integers(0, 256, (N, h + 2, w + 4, 3), np.uint8)
    mean = 128 + normal(rng, 3, h + 2, w + 4)
    tops, lefts, flips = rng.integers(0, 3, N), rng.integers(0, 5, N), rng.random(N) < 0.5
    out, = machine.results(lambda: [crop_flip(machine.array(pictures), machine.array(mean), tops, lefts, flips, h, w)])
    np.testing.assert_array_equal(out, crop_flip_reference(pictures, mean, tops, lefts, flips, h, w))
