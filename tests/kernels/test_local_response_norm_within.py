import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.local_response_norm_within import (local_response_norm_within, local_response_norm_within_backward,
                                                   local_response_norm_within_backward_reference,
                                                   local_response_norm_within_reference)

# n, beta by square roots and by powf, convention, P, N: one image at a time, four at once
RULES = [(3, 0.75, "mean", None, 3), (3, 0.75, "mean", None, 8), (5, 0.5, "sum", 1, 8), (3, 0.75, "sum", 0, 4),
         (1, 0.75, "mean", None, 3),
         (9, 0.6, "mean", None, 3)]                                     # wider than the maps are high


@pytest.mark.parametrize("n, beta, convention, P, N", RULES)
def test_local_response_norm_within_equals_the_reference(machine, rng, n, beta, convention, P, N):
    x, alpha, k = 4*normal(rng, 2, 7, 13, N), 0.7, 1.5                 # large: every term of the sum counts
    wanted, cache = local_response_norm_within_reference(x, n, alpha, beta, k, convention, P)
    dy = normal(rng, *wanted.shape)

    def work():
        y, cache = local_response_norm_within(machine.array(x), n, alpha, beta, k, convention, P)
        return y, local_response_norm_within_backward(machine.array(dy), cache)

    y, dx = machine.results(work)
    # of s (n^2 sums), of s^-beta (two roots of 2 ulp or powf)
    power = (n*n + 16)*EPS
    close(y, wanted, power*np.abs(wanted))
    r = n//2 - cache.rule.P
    first = np.zeros(x.shape)                                          # dy/s^beta; what dx sums up to, without the signs
    first[:, r:7 - r, r:13 - r] = np.abs(dy*wanted/x[:, r:7 - r, r:13 - r])
    terms = 2*first + np.abs(local_response_norm_within_backward_reference(-np.abs(dy), cache._replace(x=np.abs(x))))
    close(dx, local_response_norm_within_backward_reference(dy, cache), 2*power*terms)
