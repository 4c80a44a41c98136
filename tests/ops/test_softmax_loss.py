import numpy as np
import pytest

from tests.ops.slope import slope
from zfcore.check import Expected
from zfcore.ops.softmax_loss import (softmax, softmax_loss, softmax_loss_backward, softmax_loss_backward_reference,
                                     softmax_loss_onto, softmax_loss_reference, softmax_reference)

M, N = 7, 5


def case(dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    return (4*rng.standard_normal((M, N))).astype(dtype), rng.integers(0, M, N)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_its_loss_are_the_reference(dtype):
    logits, labels = case(dtype)
    tolerance = 20*float(np.finfo(dtype).eps)
    loss, cache = softmax_loss(logits, labels)
    loss_ref, cache_ref = softmax_loss_reference(logits.astype(float), labels)
    assert type(loss) is float and loss == pytest.approx(loss_ref, rel=tolerance)
    np.testing.assert_allclose(softmax(logits), softmax_reference(logits), rtol=tolerance)
    dlogits = softmax_loss_backward(cache)
    assert softmax(logits).dtype == dlogits.dtype == dtype
    np.testing.assert_allclose(dlogits, softmax_loss_backward_reference(cache_ref), rtol=tolerance, atol=tolerance)


def test_probabilities_sum_to_one_over_the_classes():
    np.testing.assert_allclose(softmax(case()[0]).sum(axis=0), np.ones(N), rtol=1e-14)


def test_the_loss_of_equal_logits_is_the_log_of_the_number_of_classes():
    assert softmax_loss(np.full((M, N), 3.0), [0, 1, 2, 3, 6])[0] == pytest.approx(np.log(M))


def test_the_loss_is_the_mean_over_pictures():
    logits, labels = case()
    one_by_one = [softmax_loss(logits[:, [n]], labels[[n]])[0] for n in range(N)]
    assert softmax_loss(logits, labels)[0] == pytest.approx(np.mean(one_by_one))


def test_the_backward_is_the_slope_of_the_loss():
    logits, labels = case(seed=1)
    v = np.random.default_rng(2).standard_normal((M, N))
    _, cache = softmax_loss(logits, labels)
    change = slope(lambda logits: softmax_loss(logits, labels)[0], logits, v)
    assert np.vdot(softmax_loss_backward(cache), v) == pytest.approx(change, rel=1e-7)


def test_backward_twice_gives_the_same():
    _, cache = softmax_loss(*case())
    once = softmax_loss_backward(cache).copy()
    np.testing.assert_array_equal(softmax_loss_backward(cache), once)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_neither_overflow_nor_lose_the_loss(dtype):
    logits = np.array([[1e4, -1e4], [0, 0], [-1e4, 1e4]], dtype)
    assert softmax_loss(logits, [0, 2])[0] == 0
    assert softmax_loss(logits, [1, 0])[0] == 15000
    assert np.isfinite(softmax(logits)).all()


def test_a_loss_far_below_the_smallest_probability_is_exact():
    assert softmax_loss(np.array([[0.0], [-800.0]]), [1])[0] == 800            # exp(-800) is 0


def test_adding_a_number_to_all_logits_of_a_picture_changes_nothing():
    logits, labels = case()
    shifted = logits + 100*np.arange(N)
    np.testing.assert_allclose(softmax(shifted), softmax(logits), rtol=1e-12)
    assert softmax_loss(shifted, labels)[0] == pytest.approx(softmax_loss(logits, labels)[0])


def test_logits_that_are_not_finite_give_a_loss_of_nan_without_a_warning():
    assert np.isnan(softmax_loss(np.array([[np.nan], [1.0]]), [1])[0])
    assert np.isnan(softmax_loss(np.array([[np.inf], [1.0]]), [1])[0])


def test_logits_are_left_alone():
    logits, labels = case()
    kept = logits.copy()
    softmax(logits), softmax_loss_backward(softmax_loss(logits, labels)[1])
    np.testing.assert_array_equal(logits, kept)


@pytest.mark.parametrize("labels,sentence", [
    ([0, 1, 2, 3, 7], "classes 0 to 6, got 7"), ([0, 1, -1, 3, 2], "got -1"), ([0, 1], r"shape \(5,\)"),
    ([0.0, 1, 2, 3, 4], "whole numbers"), ([[0, 1, 2, 3, 4]], "shape")])
def test_labels_that_name_no_class_are_refused(labels, sentence):
    with pytest.raises(Expected, match=sentence):
        softmax_loss(case()[0], labels)


def test_an_empty_batch_is_refused():
    with pytest.raises(Expected, match="at least one picture"):
        softmax_loss(np.zeros((M, 0)), np.zeros(0, int))


def test_softmax_loss_is_pytorchs_cross_entropy():
    torch = pytest.importorskip("torch")
    logits, labels = case()
    z = torch.tensor(logits.T.copy(), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(z, torch.tensor(labels))
    loss.backward()
    ours, cache = softmax_loss(logits, labels)
    assert ours == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(softmax_loss_backward(cache), z.grad.numpy().T, rtol=1e-12, atol=1e-15)


def test_an_epochs_totals_are_the_sums_of_its_batches():
    totals, losses, wrong = np.zeros(2), 0.0, 0
    for seed in range(3):
        logits, labels = case(seed=seed)
        cache = softmax_loss_onto(totals, logits, labels)
        loss, wanted = softmax_loss(logits, labels)
        losses, wrong = losses + loss*N, wrong + (logits.argmax(axis=0) != labels).sum()
        np.testing.assert_array_equal(cache[0], wanted[0])
    assert totals.tolist() == [losses, wrong]
    with pytest.raises(Expected, match="totals"):
        softmax_loss_onto(np.zeros(3), *case())
