"""batch_norm: each map by its own mean and variance, and its gradients."""
import numpy as np
import pytest

from tests.ops.slope import slope
from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import batch_norm as module
from zfcore.ops.batch_norm import (batch_norm, batch_norm_backward, batch_norm_backward_reference, batch_norm_reference,
                                   batch_norm_transpose)

SHAPES = [(7, 3, 5, 4), (1, 2, 3, 1), (6, 11), (5, 1)]
ways = pytest.mark.parametrize("momentum", [None, 0.3], ids=["evaluation", "training"])
shapes = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture(params=["whole", "cut"])
def cut(request, monkeypatch):
    if request.param == "cut":
        monkeypatch.setattr(module, "BLOCK", 7)


def case(shape, dtype=np.float64):
    """x, gamma, beta, running mean and var, dy."""
    rng = np.random.default_rng(3)
    x, (gamma, beta, mean, var) = 3 + 2*rng.standard_normal(shape), rng.standard_normal((4, shape[0]))
    return [array.astype(dtype) for array in (x, gamma, beta, mean, np.square(var), rng.standard_normal(shape))]


@ways
@shapes
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 4e-6)])
def test_batch_norm_and_its_gradients_are_the_reference(shape, momentum, dtype, tolerance, cut):
    x, gamma, beta, mean, var, dy = case(shape, dtype)
    wanted, cache, *running = batch_norm_reference(x, gamma, beta, mean, var, 0.1, momentum)
    y, kept = batch_norm(x, gamma, beta, mean, var, 0.1, momentum)
    gradients = batch_norm_backward_reference(dy, cache)
    for got, right in zip((y, mean, var, *batch_norm_backward(dy, kept)), (wanted, *running, *gradients), strict=True):
        assert got.dtype == dtype and got.shape == right.shape
        np.testing.assert_allclose(got, right, rtol=0, atol=tolerance*max(1, np.abs(right).max()))
    np.testing.assert_array_equal(batch_norm_transpose(dy, kept), batch_norm_backward(dy, kept)[0])
    assert batch_norm_backward(dy, kept, need_dx=False)[0] is None


@ways
@shapes
def test_the_gradients_are_the_slopes(shape, momentum):
    x, gamma, beta, mean, var, dy = case(shape)
    of = lambda x, gamma, beta: batch_norm(x, gamma, beta, mean.copy(), var.copy(), 0.1, momentum)
    gradients = batch_norm_backward(dy, of(x, gamma, beta)[1])
    rng = np.random.default_rng(1)
    for k, gradient in enumerate(gradients):
        direction, given = rng.standard_normal(gradient.shape), [x, gamma, beta]
        change = slope(lambda array: of(*given[:k], array, *given[k + 1:])[0], given[k], direction)
        assert np.vdot(dy, change) == pytest.approx(np.vdot(gradient, direction), rel=1e-6, abs=1e-7)


def test_in_training_every_map_leaves_with_mean_beta_and_spread_gamma():
    x, gamma, beta, mean, var, _ = case((7, 6, 5, 8))
    y, _ = batch_norm(x, gamma, beta, mean, var, 1e-12, 0.1)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), beta, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=(1, 2, 3)), np.abs(gamma), rtol=1e-9)


def test_a_spread_that_float32_squares_would_lose_is_found():
    rng = np.random.default_rng(0)
    x = (1000 + 0.25*rng.integers(-2, 3, (3, 40, 50, 9))).astype(np.float32)
    mean, var = np.zeros(3, np.float32), np.zeros(3, np.float32)
    batch_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), mean, var, 1e-5, 1.0)
    np.testing.assert_allclose(var, x.astype(float).var(axis=(1, 2, 3), ddof=1), rtol=1e-7)
    naive = (x*x).mean(axis=(1, 2, 3), dtype=np.float32) - x.mean(axis=(1, 2, 3), dtype=np.float32)**2
    assert (np.abs(naive/var - 1) > 0.1).any()


def test_evaluation_moves_nothing_and_a_single_value_moves_no_running_statistic():
    for shape, momentum in (((4, 3, 2, 5), None), ((4, 1), 0.5)):
        x, gamma, beta, mean, var, _ = case(shape)
        before = mean.copy(), var.copy()
        y, _ = batch_norm(x, gamma, beta, mean, var, 0.1, momentum)
        np.testing.assert_array_equal((mean, var), before)
    np.testing.assert_array_equal(y[:, 0], beta)


def test_same_bits_on_one_core_and_on_many(monkeypatch, cut):
    results = []
    for cores in (1, 4):
        monkeypatch.setattr(cpu, "CORES", cores)
        *arrays, dy = case((37, 9, 11, 5), np.float32)
        y, cache = batch_norm(*arrays, 1e-5, 0.1)
        results.append((y, *arrays, *batch_norm_backward(dy, cache)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@ways
@pytest.mark.parametrize("shape", SHAPES[:1] + SHAPES[2:3])
def test_pytorch_computes_the_same(shape, momentum):
    torch = pytest.importorskip("torch")
    x, gamma, beta, mean, var, dy = case(shape)
    given = [torch.tensor(array.copy()) for array in (np.moveaxis(x, -1, 0), mean, var, gamma, beta)]
    tx, tmean, tvar, tgamma, tbeta = given
    for tensor in (tx, tgamma, tbeta):
        tensor.requires_grad_()
    ty = torch.nn.functional.batch_norm(tx, tmean, tvar, tgamma, tbeta, momentum is not None, momentum or 0.0, 0.1)
    ty.backward(torch.tensor(np.moveaxis(dy, -1, 0).copy()))
    y, cache = batch_norm(x, gamma, beta, mean, var, 0.1, momentum)
    dx, dgamma, dbeta = batch_norm_backward(dy, cache)
    wanted = np.moveaxis(ty.detach().numpy(), 0, -1), np.moveaxis(tx.grad.numpy(), 0, -1), tgamma.grad, tbeta.grad, tmean, tvar
    for got, right in zip((y, dx, dgamma, dbeta, mean, var), wanted, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("number, shape, sentence", [
    (1, (6,), "batch_norm: gamma: expected shape (7,), got (6,)"),
    (4, (7, 1), "batch_norm: var: expected shape (7,), got (7, 1)")])
def test_shapes_that_do_not_fit_are_answered_with_one_sentence(number, shape, sentence):
    *arrays, _ = case(SHAPES[0])
    arrays[number] = np.ones(shape)
    with pytest.raises(Expected) as error:
        batch_norm(*arrays, 0.1)
    assert str(error.value) == sentence


def test_other_dtypes_an_eps_of_nothing_and_a_gradient_of_another_shape_are_refused():
    *arrays, dy = case(SHAPES[0])
    with pytest.raises(Expected, match="batch_norm: beta: expected float64, got float32"):
        batch_norm(*arrays[:2], arrays[2].astype(np.float32), *arrays[3:], 0.1)
    with pytest.raises(Expected, match="batch_norm: eps: expected a number above 0, got 0"):
        batch_norm(*arrays, 0)
    with pytest.raises(Expected, match="batch_norm_backward: dy: expected shape"):
        batch_norm_backward(dy[..., 1:], batch_norm(*arrays, 0.1)[1])
