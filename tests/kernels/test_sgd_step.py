import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.sgd_step import sgd_step, sgd_step_reference


@pytest.mark.parametrize("shape", [(3, 7, 7, 5), (9, 116)], ids=["one by one", "four at once"])
def test_two_steps_equal_the_reference(machine, rng, shape):
    w, dw, v = (normal(rng, *shape) for _ in range(3))
    rule = 0.1, 0.9, 0.05                                               # lr, momentum, weight decay

    def work():
        weights, velocity = machine.array(w), machine.array(v)
        for _ in range(2):
            sgd_step(weights, machine.array(dw), velocity, *rule)
        return weights, velocity

    weights, velocity = machine.results(work)
    wanted = sizes = [a.astype(np.float64) for a in (w, v)]
    for _ in range(2):
        wanted = sgd_step_reference(wanted[0], dw, wanted[1], *rule)
    sizes = 2*np.abs(w) + np.abs(dw) + 2*np.abs(v)
    close(weights, wanted[0], 8*EPS*sizes)
    close(velocity, wanted[1], 8*EPS*sizes)
