import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.maxpool import maxpool, maxpool_backward, maxpool_backward_reference, maxpool_reference
from zfcore.ops.relu import relu_backward

WINDOWS = [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (5, 1, 2)]       # K, S, P: overlapping, side by side, with gaps


@pytest.mark.parametrize("N", [3, 8])                                   # one image at a time, four at once
@pytest.mark.parametrize("K, S, P", WINDOWS)
def test_maxpool_equals_the_reference_and_so_do_its_switches(machine, rng, K, S, P, N):
    x = rng.integers(-9, 9, (2, 7, 40, N)).astype(np.float32)           # many ties
    y, switches = machine.results(lambda: _forward(machine.array(x), K, S, P))
    wanted, (wanted_switches, *_) = maxpool_reference(x, K, S, P)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(switches, wanted_switches)


@pytest.mark.parametrize("N", [3, 8])
@pytest.mark.parametrize("K, S, P", WINDOWS)
def test_unpooling_equals_the_reference(machine, rng, K, S, P, N):
    x = normal(rng, 2, 7, 40, N)
    _, cache = maxpool_reference(x, K, S, P)
    dy = normal(rng, *cache[0].shape)
    dx, = machine.results(lambda: [maxpool_backward(machine.array(dy), moved(machine, cache))])
    wanted = maxpool_backward_reference(dy.astype(np.float64), cache)
    total = maxpool_backward_reference(np.abs(dy, dtype=np.float64), cache)
    close(dx, wanted, K*K*EPS/2*total)


@pytest.mark.parametrize("N", [3, 8])
@pytest.mark.parametrize("K, S, P", WINDOWS)
def test_going_on_through_the_relu_below_gives_the_bits_of_its_own_backward(machine, rng, K, S, P, N):
    x = np.maximum(rng.integers(-9, 5, (2, 7, 40, N)).astype(np.float32), 0)        # windows all off, and many ties
    x[0, 3, 5] = np.nan
    _, cache = maxpool_reference(x, K, S, P)
    dy = normal(rng, *cache[0].shape)
    dy[0, 0, 0], dy[1, 1, 1] = np.inf, np.nan

    def work():
        arrays = machine.array(dy), moved(machine, cache)
        return maxpool_backward(*arrays, relu=True), relu_backward(maxpool_backward(*arrays), machine.array(x))

    one_pass, two_passes = machine.results(work)
    assert one_pass.tobytes() == two_passes.tobytes() and one_pass.any() and not one_pass[x == 0].any()


def test_the_first_nan_of_a_window_wins_and_minus_infinity_is_a_maximum(machine):
    x = np.zeros((1, 3, 6, 1), np.float32)
    x[0, :, :3] = -np.inf
    x[0, 1, 4] = x[0, 2, 3] = np.nan
    y, switches = machine.results(lambda: _forward(machine.array(x), 3, 3, 0))
    assert y[0, 0, 0, 0] == -np.inf and switches[0, 0, 0, 0] == 0
    assert np.isnan(y[0, 0, 1, 0]) and switches[0, 0, 1, 0] == 1*3 + 1


def test_the_first_place_of_a_window_cut_by_the_border_is_its_first_pixel_in_the_map(machine):
    x = np.full((1, 5, 7, 1), -np.inf, np.float32)                      # nothing is higher than what a thread starts with
    _, switches = machine.results(lambda: _forward(machine.array(x), 3, 2, 1))
    np.testing.assert_array_equal(switches, maxpool_reference(x, 3, 2, 1)[1][0])


def test_a_gradient_that_is_infinite_stays_out_of_the_other_pixels(machine):
    x = np.arange(3*5, dtype=np.float32).reshape(1, 3, 5, 1)
    y, cache = maxpool_reference(x, 3, 2)
    dy = np.full(y.shape, np.inf, np.float32)
    dx, = machine.results(lambda: [maxpool_backward(machine.array(dy), moved(machine, cache))])
    np.testing.assert_array_equal(dx, maxpool_backward_reference(dy, cache))


def moved(machine, cache):
    switches, pooling, y = cache
    return machine.array(switches), pooling, machine.array(y)


def _forward(x, K, S, P):
    y, (switches, *_) = maxpool(x, K, S, P)
    return y, switches
