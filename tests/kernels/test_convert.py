import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.backend import BF16
from zfcore.ops.convert import convert, from_bf16, to_bf16


@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 75, 8), (1,)], ids=["one by one", "eight at once", "one"])
def test_convert_has_the_bits_of_the_host_both_ways(machine, rng, shape):
    x = normal(rng, *shape)
    x.flat[::5] = np.resize(np.float32([np.nan, np.inf, -0.0, 1 + 2**-8, 3.4e38]), x.flat[::5].shape)

    def work():
        there = convert(machine.array(x), BF16)
        assert there.dtype == BF16
        return there, convert(there, np.float32)

    there, back = machine.results(work)                    # `results` reads BF16 by from_bf16
    np.testing.assert_array_equal(there, from_bf16(to_bf16(x)))
    np.testing.assert_array_equal(back, there)
