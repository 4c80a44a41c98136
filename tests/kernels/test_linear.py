import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.linear import linear, linear_backward, linear_backward_reference, linear_reference


@pytest.mark.parametrize("D, M, N", [(13, 9, 37), (5, 17, 140), (6, 8, 1)])       # N: one by one, four at once, one
def test_linear_and_its_gradients_equal_the_reference(machine, rng, D, M, N):
    x, w, b, dy = normal(rng, D, N), normal(rng, D, M), normal(rng, M), normal(rng, M, N)

    def work():
        y, cache = linear(*map(machine.array, (x, w, b)))
        return (y, *linear_backward(machine.array(dy), cache))

    y, dx, dw, db = machine.results(work)
    sizes = [np.abs(a) for a in (x, w, b, dy)]
    close(y, linear_reference(x, w, b), (D + 1)*EPS*linear_reference(*sizes[:3]))
    for got, wanted, size, terms in zip((dx, dw, db), linear_backward_reference(dy, x, w),
                                        linear_backward_reference(sizes[3], *sizes[:2]), (M, N, N)):
        close(got, wanted, terms*EPS*size)


def test_the_data_gradient_is_left_out_on_request(machine, rng):
    x, w, b, dy = normal(rng, 5, 3), normal(rng, 5, 7), normal(rng, 7), normal(rng, 7, 3)
    dx, dw, db = linear_backward(machine.array(dy), linear(*map(machine.array, (x, w, b)))[1], need_dx=False)
    assert dx is None and dw.shape == w.shape and db.shape == b.shape
