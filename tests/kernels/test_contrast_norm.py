import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops import contrast_norm as op
from zfcore.ops.contrast_norm import contrast_norm, contrast_norm_backward
from zfcore.ops.relu import relu_backward

# n odd, even, 1, wider than all maps; beta by square roots, and by powf. C = 37 takes two slabs, the second one short
RULES = [(5, 0.75, "mean", 37), (5, 0.75, "sum", 7), (4, 0.5, "mean", 37), (1, 0.75, "sum", 5), (12, 0.75, "mean", 9)]


@pytest.mark.parametrize("n, beta, convention, C", RULES)
def test_contrast_norm_equals_the_reference(machine, rng, n, beta, convention, C):
    x, dy = 4*normal(rng, C, 3, 31, 3), normal(rng, C, 3, 31, 3)
    alpha, k = 0.7, 1.5                                                # large: every term of the sum counts

    def work():
        y, cache = contrast_norm(machine.array(x), n, alpha, beta, k, convention)
        return y, contrast_norm_backward(machine.array(dy), cache)

    y, dx = machine.results(work)
    wanted, cache = op.contrast_norm_reference(x, n, alpha, beta, k, convention)
    power = (n + 16)*EPS                                               # of s (n sums), of s^-beta (two roots of 2 ulp or powf)
    close(y, wanted, power*np.abs(wanted))
    first = dy*wanted/x                                                # dy/s^beta; what dx sums up to, without the signs
    terms = 2*np.abs(first) + np.abs(op.contrast_norm_backward_reference(-np.abs(dy), (np.abs(x), cache[1])))
    close(dx, op.contrast_norm_backward_reference(dy, cache), 2*power*terms)


def test_the_result_does_not_depend_on_how_maps_are_cut_into_slabs(machine, rng, monkeypatch):
    x, dy = normal(rng, 37, 2, 3, 5), normal(rng, 37, 2, 3, 5)

    def work():
        y, cache = contrast_norm(machine.array(x), 5, 0.7, 0.75, 2)
        return y, contrast_norm_backward(machine.array(dy), cache)

    whole = machine.results(work)
    for maps in (1, 8, 37):
        arrays = machine.array(dy), machine.array(x), machine.array(np.full_like(x, np.nan))
        tuned = op.BACKWARD.variant(WINDOW=5, BETA="0.75f")
        tuned(-(-37//maps), *arrays, 30, 37, maps, 0.7/5, 2.0)
        np.testing.assert_array_equal(machine.host(arrays[2]), whole[1])


@pytest.mark.parametrize("C", [5, 37])
def test_going_on_through_the_relu_below_gives_the_bits_of_its_own_backward(machine, rng, C):
    x, dy = np.maximum(normal(rng, C, 3, 31, 3), 0), normal(rng, C, 3, 31, 3)
    x[2, 1, 7], dy[3, 2, 9] = np.nan, np.inf

    def work():
        _, cache = contrast_norm(machine.array(x), 5, 0.7, 0.75, 2)
        dx = contrast_norm_backward(machine.array(dy), cache)
        return contrast_norm_backward(machine.array(dy), cache, relu=True), relu_backward(dx, cache[0])

    one_pass, two_passes = machine.results(work)
    assert one_pass.tobytes() == two_passes.tobytes() and one_pass[x > 0].all() and not one_pass[~(x > 0)].any()
