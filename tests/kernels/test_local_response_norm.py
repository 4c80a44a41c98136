import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops import local_response_norm as op
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward
from zfcore.ops.maxpool import maxpool, maxpool_reference
from zfcore.ops.relu import relu_backward

# n odd, even, 1, wider than all maps; beta by square roots, and by powf. C = 37 takes two slabs, the second one short
RULES = [(5, 0.75, "mean", 37), (5, 0.75, "sum", 7), (4, 0.5, "mean", 37), (1, 0.75, "sum", 5), (12, 0.75, "mean", 9)]


@pytest.mark.parametrize("n, beta, convention, C", RULES)
def test_local_response_norm_equals_the_reference(machine, rng, n, beta, convention, C):
    x, dy = 4*normal(rng, C, 3, 31, 3), normal(rng, C, 3, 31, 3)
    alpha, k = 0.7, 1.5                                                # large: every term of the sum counts

    def work():
        y, cache = local_response_norm(machine.array(x), n, alpha, beta, k, convention)
        return y, local_response_norm_backward(machine.array(dy), cache)

    y, dx = machine.results(work)
    wanted, cache = op.local_response_norm_reference(x, n, alpha, beta, k, convention)
    power = (n + 16)*EPS                                               # of s (n sums), of s^-beta (two roots of 2 ulp or powf)
    close(y, wanted, power*np.abs(wanted))
    first = dy*wanted/x                                                # dy/s^beta; what dx sums up to, without the signs
    terms = 2*np.abs(first) + np.abs(op.local_response_norm_backward_reference(-np.abs(dy), (np.abs(x), cache[1])))
    close(dx, op.local_response_norm_backward_reference(dy, cache), 2*power*terms)


def test_the_result_does_not_depend_on_how_maps_are_cut_into_slabs(machine, rng, monkeypatch):
    x, dy = normal(rng, 37, 2, 3, 5), normal(rng, 37, 2, 3, 5)

    def work():
        y, cache = local_response_norm(machine.array(x), 5, 0.7, 0.75, 2)
        return y, local_response_norm_backward(machine.array(dy), cache)

    whole = machine.results(work)
    for maps in (1, 8, 37):
        arrays = machine.array(dy), machine.array(x), machine.array(np.full_like(x, np.nan))
        tuned = op.BACKWARD.variant(NEIGHBOURS=5, BETA="0.75f")
        tuned(-(-37//maps), *arrays, 30, 37, maps, 0.7/5, 2.0)
        np.testing.assert_array_equal(machine.host(arrays[2]), whole[1])


@pytest.mark.parametrize("C", [5, 37])
def test_going_on_through_the_relu_below_gives_the_bits_of_its_own_backward(machine, rng, C):
    x, dy = np.maximum(normal(rng, C, 3, 31, 3), 0), normal(rng, C, 3, 31, 3)
    x[2, 1, 7], dy[3, 2, 9] = np.nan, np.inf

    def work():
        _, cache = local_response_norm(machine.array(x), 5, 0.7, 0.75, 2)
        dx = local_response_norm_backward(machine.array(dy), cache)
        return local_response_norm_backward(machine.array(dy), cache, relu=True), relu_backward(dx, cache[0])

    one_pass, two_passes = machine.results(work)
    assert one_pass.tobytes() == two_passes.tobytes() and one_pass[x > 0].all() and not one_pass[~(x > 0)].any()


# K, S, P, rounding of the pool; n, alpha, beta, k, convention; C: slabs of 32 maps and a short one, one map, fewer than n
CHAINS = [((3, 2, 0, "ceil"), (5, 0.7, 0.75, 1.5, "mean"), 37), ((3, 2, 1, "floor"), (4, 0.7, 0.5, 1.5, "sum"), 9),
          ((2, 2, 0, "ceil"), (1, 0.7, 0.75, 2.0, "mean"), 5), ((2, 3, 1, "ceil"), (12, 0.7, 0.75, 2.0, "mean"), 33),
          ((5, 1, 2, "floor"), (5, 0.7, 0.75, 2.0, "mean"), 1)]


@pytest.mark.parametrize("N", [3, 8])
@pytest.mark.parametrize("pool, norm, C", CHAINS)
def test_pool_and_norm_in_one_pass_give_the_bits_of_one_after_the_other(machine, rng, pool, norm, C, N):
    x = rng.integers(-9, 9, (C, 7, 10, N)).astype(np.float32)                # many ties
    x[0, 3, 5], x[C//2, 4:], x[C - 1, 2, 1, 0] = np.nan, -np.inf, np.inf

    def together():
        (maxima, (switches, *_)), (y, _) = op.local_response_norm_of_maxpool(machine.array(x), pool, norm)
        return maxima, switches, y

    def apart():
        maxima, (switches, *_) = maxpool(machine.array(x), *pool)
        return maxima, switches, local_response_norm(maxima, *norm)[0]

    one_pass = machine.results(together)
    for got, array in zip(one_pass, apart(), strict=True):
        np.testing.assert_array_equal(got.view(np.uint8), machine.host(array).view(np.uint8))
    wanted, (switches, *_) = maxpool_reference(x, *pool)
    np.testing.assert_array_equal(one_pass[0], wanted)
    np.testing.assert_array_equal(one_pass[1], switches)
