import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.ops.relu import relu, relu_backward, relu_backward_reference, relu_reference


@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (4, 75, 12), (1,)], ids=["one by one", "four at once", "one"])
def test_relu_equals_the_reference(machine, rng, shape):
    x, dy = normal(rng, *shape), normal(rng, *shape)
    x.flat[::3] = 0

    def work():
        y, cache = relu(machine.array(x))
        return y, relu_backward(machine.array(dy), cache)

    y, dx = machine.results(work)
    np.testing.assert_array_equal(y, relu_reference(x))
    np.testing.assert_array_equal(dx, relu_backward_reference(dy, y))


def test_relu_keeps_a_nan_and_infinities(machine):
    x = np.array([np.nan, -np.inf, np.inf, -1], np.float32)
    y, = machine.results(lambda: relu(machine.array(x))[:1])
    np.testing.assert_array_equal(y, np.array([np.nan, 0, np.inf, 0], np.float32))
