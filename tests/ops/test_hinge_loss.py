import numpy as np
import pytest

from tests.ops.slope import slope
from zfcore.check import Expected
from zfcore.ops.hinge_loss import hinge_loss, hinge_loss_backward, hinge_loss_reference

M, N = 4, 7


def scores(dtype=float, seed=0):
    return np.random.default_rng(seed).standard_normal((M, N)).astype(dtype)


LABELS = np.array([0, 3, 1, 1, 2, 0, 3])
TARGETS = np.random.default_rng(1).integers(-1, 2, (M, N))                  # -1, 0 and +1, several classes a picture


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("labels", [LABELS, TARGETS], ids=["one class", "several classes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hinge_loss_is_the_reference(labels, squared, dtype):
    loss, cache = hinge_loss(scores(dtype), labels, squared)
    assert type(loss) is float
    loss_ref = hinge_loss_reference(scores(dtype), labels, squared)
    assert loss == pytest.approx(loss_ref, rel=20*float(np.finfo(dtype).eps))
    assert hinge_loss_backward(cache).dtype == dtype


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("labels", [LABELS, TARGETS], ids=["one class", "several classes"])
def test_the_backward_is_the_slope_of_the_loss(labels, squared):
    s, v = scores(), np.random.default_rng(2).standard_normal((M, N))
    _, cache = hinge_loss(s, labels, squared)
    change = slope(lambda s: hinge_loss(s, labels, squared)[0], s, v)
    assert np.vdot(hinge_loss_backward(cache), v) == pytest.approx(change, rel=1e-6)


def test_one_label_a_picture_means_plus_one_for_its_class_and_minus_one_for_the_others():
    targets = np.where(np.arange(M)[:, None] == LABELS, 1, -1)
    assert hinge_loss(scores(), LABELS)[0] == hinge_loss(scores(), targets)[0]


def test_the_squared_loss_is_the_default_as_in_linear_svc():
    assert hinge_loss(np.full((1, 1), -2.0), [[1]])[0] == 9
    assert hinge_loss(np.full((1, 1), -2.0), [[1]], squared=False)[0] == 3


def test_a_score_beyond_the_margin_costs_nothing():
    loss, cache = hinge_loss(np.array([[1.5], [-1.0]]), [0])
    assert loss == 0 and not hinge_loss_backward(cache).any()


def test_a_target_of_zero_takes_no_part():
    s = scores()
    loss, cache = hinge_loss(s, np.zeros((M, N)))
    assert loss == 0 and not hinge_loss_backward(cache).any()


@pytest.mark.parametrize("labels,sentence", [
    (np.full((M, N), 2), "-1, 0 or"), (np.full((M, N), np.nan), "-1, 0 or"), (TARGETS[1:], "shape"),
    (LABELS[1:], "shape"), (LABELS + 1, "classes 0 to 3")])
def test_wrong_labels_are_refused(labels, sentence):
    with pytest.raises(Expected, match=sentence):
        hinge_loss(scores(), labels)


@pytest.mark.parametrize("squared", [True, False])
def test_hinge_loss_is_what_pytorch_differentiates(squared):
    torch = pytest.importorskip("torch")
    s = torch.tensor(scores(), requires_grad=True)
    t = torch.tensor(np.where(np.arange(M)[:, None] == LABELS, 1.0, -1.0))
    loss = (torch.relu(1 - t*s)**(2 if squared else 1)).sum(0).mean()
    loss.backward()
    ours, cache = hinge_loss(scores(), LABELS, squared)
    assert ours == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(hinge_loss_backward(cache), s.grad.numpy(), rtol=1e-14)
