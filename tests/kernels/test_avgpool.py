import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.avgpool import BORDERS, avgpool, avgpool_backward, avgpool_backward_reference, avgpool_reference, divisors

WINDOWS = [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (5, 1, 2),       # K, S, P: overlapping, side by side, with gaps,
           (13, 1, 0), (50, 1, 0), (40, 5, 36)]                         # the whole map, and far more
SHAPE = 2, 7, 13                                                        # several blocks, which begin amid rows


# Every window with each rule and every rule with both widths: one image at a time, four at once.
@pytest.mark.parametrize("K, S, P, borders, N", [(*window, borders, (3, 8)[(i + j) % 2]) for i, window in enumerate(WINDOWS)
                                                 for j, borders in enumerate(BORDERS)])
def test_avgpool_and_its_way_back_equal_the_reference(machine, rng, K, S, P, borders, N):
    x = normal(rng, *SHAPE, N)
    wanted, cache = avgpool_reference(x, K, S, P, borders=borders)
    dy = normal(rng, *wanted.shape)
    y, dx = machine.results(lambda: (avgpool(machine.array(x), K, S, P, borders=borders)[0],
                                     avgpool_backward(machine.array(dy), cache)))
    close(y, wanted, K*K*EPS/2*avgpool_reference(np.abs(x), K, S, P, borders=borders)[0])
    close(dx, avgpool_backward_reference(dy, cache), (K*K + 1)*EPS/2*avgpool_backward_reference(np.abs(dy), cache))


@pytest.mark.parametrize("N", [3, 8])
@pytest.mark.parametrize("borders", BORDERS)
def test_divisors_that_are_given_are_read(machine, rng, borders, N):
    """The bits of the rule by which they were made, and twice the divisor is half the mean."""
    x = normal(rng, *SHAPE, N)
    _, cache = avgpool_reference(x, 3, 2, 1, borders=borders)
    rows, columns = (np.repeat(np.arange(n)[:, None], N, axis=1) for n in cache.out)
    by_number = divisors(SHAPE[1:], rows, columns, 3, 2, 1, borders)
    by_number[..., 1] *= 2                                              # of one picture
    dy = normal(rng, SHAPE[0], *cache.out, N)

    def work():
        on, above = machine.array(x), machine.array(dy)
        return (*(avgpool(on, 3, 2, 1, borders=way)[0] for way in (borders, by_number)),
                *(avgpool_backward(above, cache._replace(borders=way)) for way in (borders, by_number)))

    y, same, dx, same_dx = machine.results(work)
    halved = np.where(np.arange(N) == 1, np.float32(0.5), np.float32(1))
    np.testing.assert_array_equal(same, y*halved)
    np.testing.assert_array_equal(same_dx, dx*halved)


def test_what_is_infinite_stays_in_its_windows(machine):
    x = np.zeros((1, 5, 9, 1), np.float32)
    x[0, 2, 3] = np.inf
    wanted, cache = avgpool_reference(x, 2, 2)
    dy = wanted.astype(np.float32)
    y, dx = machine.results(lambda: (avgpool(machine.array(x), 2, 2)[0], avgpool_backward(machine.array(dy), cache)))
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(dx, avgpool_backward_reference(wanted, cache))
