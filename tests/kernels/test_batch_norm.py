import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops import batch_norm as op
from zfcore.ops.batch_norm import (batch_norm, batch_norm_backward, batch_norm_backward_reference, batch_norm_reference,
                                   batch_norm_transpose)

# one by one in three slices, four at once in two, one map; more maps than a block's warps; units; a unit of a single value
SHAPES = [(5, 31, 27, 11), (3, 23, 29, 8), (1, 3, 5, 7), (37, 2, 3, 5), (41, 12), (6, 1)]


def drawn(rng, shape):
    """x around means far from 0, dy, gamma, beta, running mean and var."""
    C = shape[0]
    middles = 100*normal(rng, C).reshape(-1, *[1]*(len(shape) - 1))
    gamma, beta, mean, root = normal(rng, 4, C)
    return middles + normal(rng, *shape), normal(rng, *shape), gamma, beta, mean, np.square(root)


@pytest.mark.parametrize("momentum", [None, 0.3], ids=["evaluation", "training"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_and_its_gradients_equal_the_reference(machine, rng, shape, momentum):
    """The bounds are those of single roundings: sums in float32 would exceed them, means being a hundred times the spread."""
    x, dy, gamma, beta, *running = drawn(rng, shape)

    def work():
        kept = [machine.array(array.copy()) for array in running]
        y, cache = batch_norm(*map(machine.array, (x, gamma, beta)), *kept, 1e-3, momentum)
        return y, *kept, *batch_norm_backward(machine.array(dy), cache), batch_norm_transpose(machine.array(dy), cache)

    y, mean, var, dx, dgamma, dbeta, transposed = machine.results(work)
    wanted, cache, wanted_mean, wanted_var = batch_norm_reference(x, gamma, beta, *running, 1e-3, momentum)
    wanted_dx, wanted_dgamma, wanted_dbeta = batch_norm_backward_reference(dy, cache)
    column = lambda of_maps: of_maps.reshape(-1, *[1]*(x.ndim - 1))
    root = np.sqrt(cache.var + 1e-3)
    size = column(1/root)*(np.abs(x) + column(np.abs(cache.mean)))           # of the normalised x, before the difference
    close(y, wanted, 4*EPS*(column(np.abs(gamma))*size + column(np.abs(beta))))
    close(mean, wanted_mean, EPS*np.abs(wanted_mean))
    close(var, wanted_var, EPS*np.abs(wanted_var))
    close(dbeta, wanted_dbeta, EPS*np.abs(wanted_dbeta))
    # the rounding of the mean is in every x - mean
    of_gamma = np.abs(wanted_dgamma) + np.abs(cache.mean*wanted_dbeta)/root
    close(dgamma, wanted_dgamma, 2*EPS*of_gamma)
    through = (column(np.abs(wanted_dbeta)) + size*column(of_gamma))/(x.size//len(x)) if momentum else 0
    close(dx, wanted_dx, 6*EPS*column(np.abs(gamma)/root)*(np.abs(dy) + through))
    np.testing.assert_array_equal(transposed, dx)
    assert momentum is None or x.shape == (6, 1) or (mean != running[0]).all()


def test_a_picture_has_the_same_bits_in_any_batch_of_an_evaluation(machine, rng):
    x, _, *parameters = drawn(rng, (5, 3, 7, 12))

    def of(pictures):
        return batch_norm(machine.array(np.ascontiguousarray(x[..., pictures])), *map(machine.array, parameters), 1e-3)[0]

    whole, some = machine.results(lambda: (of(slice(0, 12)), of(slice(3, 10))))
    np.testing.assert_array_equal(whole[..., 3:10], some)


@pytest.mark.parametrize("C, L", [(5, 4*op.SLICE), (3, op.SLICE + 1)])
def test_a_map_of_one_value_everywhere_has_no_spread_and_stays_a_number(machine, C, L):
    x = np.full((C, L), 0.1, np.float32)
    one, zero = np.ones(C, np.float32), np.zeros(C, np.float32)

    def work():
        arrays = [machine.array(array.copy()) for array in (x, one, zero, zero, one)]
        return batch_norm(*arrays, 1e-5, 0.5)[0], arrays[-1]

    y, var = machine.results(work)
    assert (y == 0).all() and (var == 0.5).all()
