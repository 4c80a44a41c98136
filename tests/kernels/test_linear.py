import numpy as np
import pytest

from tests import executor
from tests.kernels.conftest import EPS, close, normal
from zfcore.check import Expected
from zfcore.kernel import PRECISIONS
from zfcore.ops.convert import from_bf16, to_bf16
from zfcore.ops.linear import linear, linear_backward, linear_backward_reference, linear_reference, linear_transpose


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


@pytest.mark.parametrize("D", [9, 1100])                                     # sums in one, and in slices
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_linear_ends_in_its_relu_with_the_same_bits(machine, rng, D, precision):
    x, w = map(machine.stored(precision), (normal(rng, D, 5), normal(rng, D, 8)))
    b = machine.array(normal(rng, 8))
    y, rectified = machine.results(lambda: [linear(x, w, b, precision, relu=relu)[0] for relu in (False, True)])
    assert (y < 0).any() and (y > 0).any()
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))


def test_the_data_gradient_is_left_out_on_request(machine, rng):
    x, w, b, dy = normal(rng, 5, 3), normal(rng, 5, 7), normal(rng, 7), normal(rng, 7, 3)
    dx, dw, db = linear_backward(machine.array(dy), linear(*map(machine.array, (x, w, b)))[1], need_dx=False)
    assert dx is None and dw.shape == w.shape and db.shape == b.shape


@pytest.mark.parametrize("precision, unit", [("fp32x3", 4*EPS), ("tf32", 2**-11), ("bf16", 2**-8)])
def test_products_are_formed_in_the_precision_of_the_forward_pass(machine, rng, precision, unit):
    """Each of two factors may be wrong by its unit; a tensor core adds 8 products at a time (tests/kernels/test_conv2d.py)."""
    D, M, N = 44, 12, 36
    x, w, b, dy = normal(rng, D, N), normal(rng, D, M), normal(rng, M), normal(rng, M, N)

    def work():
        stored = machine.stored(precision)
        y, cache = linear(stored(x), stored(w), machine.array(b), precision)
        return y, *linear_backward(stored(dy), cache), linear_transpose(stored(dy), stored(w), precision)

    y, dx, dw, db, transposed = machine.results(work)
    np.testing.assert_array_equal(transposed, dx)
    sizes = [np.abs(a) for a in (x, w, b, dy)]
    pairs = [(y, linear_reference(x, w, b), linear_reference(*sizes[:3])),
             *zip((dx, dw), linear_backward_reference(dy, x, w), linear_backward_reference(sizes[3], *sizes[:2]))]
    for (got, wanted, size), is_stored in zip(pairs, (True, True, False)):
        error = ((2 + unit)*unit + 60*EPS)*size
        close(got, wanted, error + (precision == "bf16" and is_stored)*unit*(abs(wanted) + error))
        if precision != "fp32x3":
            assert np.linalg.norm(got - wanted) > unit/8*np.linalg.norm(wanted), "not rounded"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("D, M", [(1100, 8), (8, 1100)])                    # long sums on the way up, on the way down
@executor.requires_executor
def test_an_image_has_the_same_bits_in_any_batch_though_sums_are_cut(rng, precision, D, M):
    x, w, b, dy = normal(rng, D, 36), normal(rng, D, M), normal(rng, M), normal(rng, M, 36)

    stored = (lambda array: executor.array(to_bf16(array))) if precision == "bf16" else executor.array

    def up_and_down(images):
        y, _ = linear(stored(x[:, images]), stored(w), executor.array(b), precision)
        return y, linear_transpose(stored(dy[:, images]), stored(w), precision)

    for whole, some, one in zip(*map(up_and_down, (slice(None), slice(3, 36), slice(20, 21)))):
        np.testing.assert_array_equal(some, whole[:, 3:])
        np.testing.assert_array_equal(one, whole[:, 20:21])


def test_scores_of_what_is_stored_are_the_numbers_before_they_are_rounded(machine, rng):
    x, w, b = normal(rng, 1100, 9), normal(rng, 1100, 7), normal(rng, 7)
    stored = machine.stored("bf16")
    forward = lambda scores: linear(stored(x), stored(w), machine.array(b), "bf16", scores)[0]
    scores, y = machine.results(lambda: map(forward, (True, False)))
    np.testing.assert_array_equal(from_bf16(to_bf16(scores)), y)
    assert (scores != y).mean() > 0.9


def test_numpy_refuses_other_precisions_than_fp32_in_a_sentence(rng):
    with pytest.raises(Expected, match="linear precision: expected fp32, the one that NumPy has, got tf32"):
        linear(normal(rng, 3, 2), normal(rng, 3, 4), normal(rng, 4), "tf32")
