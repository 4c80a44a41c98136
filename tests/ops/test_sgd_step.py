import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops.sgd_step import sgd_step, sgd_step_reference

SHAPE = (5, 3, 2, 7)
RATES = dict(lr=0.03, momentum=0.9, weight_decay=0.2)                       # a decay large enough to be seen


def one(w, dw, v, lr, momentum, weight_decay):
    sgd_step([(w, dw, v, weight_decay)], lr, momentum)


def arrays(dtype=float, shape=SHAPE):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape), dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [SHAPE, (11, 13), (6,), ()])
def test_sgd_step_is_the_reference_in_place(shape, dtype):
    w, dw, v = arrays(dtype, shape)
    w_ref, v_ref = sgd_step_reference(w.astype(float), dw.astype(float), v.astype(float), **RATES)
    kept = dw.copy()
    one(w, dw, v, **RATES)
    assert w.dtype == v.dtype == dtype
    tolerance = dict(rtol=0, atol=8*np.finfo(dtype).eps)
    np.testing.assert_allclose(w, w_ref, **tolerance)
    np.testing.assert_allclose(v, v_ref, **tolerance)
    np.testing.assert_array_equal(dw, kept)


def test_one_step_by_hand():
    w, dw, v = np.array([2.0]), np.array([3.0]), np.array([0.5])
    one(w, dw, v, lr=0.1, momentum=0.8, weight_decay=0.25)
    assert v == pytest.approx([0.8*0.5 - 0.1*(3 + 0.25*2)]) and w == pytest.approx([2 + v[0]])


def test_momentum_carries_past_steps_on():
    w, v = np.zeros(1), np.zeros(1)
    for _ in range(3):
        one(w, np.ones(1), v, lr=1.0, momentum=0.5, weight_decay=0.0)
    assert v == pytest.approx([-(1 + 0.5 + 0.25)]) and w == pytest.approx([-(1 + 1.5 + 1.75)])


def test_a_change_of_the_learning_rate_leaves_the_momentum_gathered_so_far():
    w, v = np.zeros(1), np.full(1, -4.0)
    one(w, np.zeros(1), v, lr=0.0, momentum=0.5, weight_decay=0.0)
    assert v == [-2]


def test_many_steps_at_one_learning_rate_are_pytorchs():
    torch = pytest.importorskip("torch")
    w, _, v = arrays()
    v[:] = 0
    w_t = torch.tensor(w.copy(), requires_grad=True)
    optimizer = torch.optim.SGD([w_t], lr=0.03, momentum=0.9, weight_decay=0.2)
    for seed in range(4):
        dw = np.random.default_rng(seed).standard_normal(SHAPE)
        w_t.grad = torch.tensor(dw)
        optimizer.step()
        one(w, dw, v, **RATES)
    np.testing.assert_allclose(w, w_t.detach().numpy(), rtol=1e-12)


def test_blocks_on_any_number_of_cores_give_the_same_bits(monkeypatch):
    results = []
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        w, dw, v = arrays(np.float32, (701, 523))                           # more than one block
        one(w, dw, v, **RATES)
        results.append((w, v))
    np.testing.assert_array_equal(results[0], results[1])
    w, dw, v = arrays(np.float32, (701, 523))
    np.testing.assert_allclose(results[0], sgd_step_reference(w, dw, v, **RATES), rtol=0, atol=1e-6)


def test_numpy_numbers_do_not_widen_the_arithmetic():
    ours, theirs = arrays(np.float32), arrays(np.float32)
    one(*ours, **RATES)
    one(*theirs, **{name: np.float64(rate) for name, rate in RATES.items()})
    np.testing.assert_array_equal(ours, theirs)


def test_arrays_that_do_not_match_are_refused_before_anything_is_changed():
    w, dw, v = arrays()
    kept = w.copy()
    with pytest.raises(Expected, match="dw"):
        one(w, dw[1:], v, **RATES)
    with pytest.raises(Expected, match="sgd_step: v"):
        one(w, dw, v.astype(np.float32), **RATES)
    np.testing.assert_array_equal(w, kept)


def test_each_tensor_has_its_own_weight_decay_and_all_are_checked_before_one_is_changed():
    first, second = arrays(), arrays(shape=(3, 4))
    wanted = [sgd_step_reference(*tensor, 0.03, 0.9, decay)[0] for tensor, decay in ((first, 0.2), (second, 0.0))]
    kept = first[0].copy()
    with pytest.raises(Expected, match="dw"):
        sgd_step([(*first, 0.2), (second[0], second[1][1:], second[2], 0.0)], 0.03, 0.9)
    np.testing.assert_array_equal(first[0], kept)
    sgd_step([(*first, 0.2), (*second, 0.0)], 0.03, 0.9)
    np.testing.assert_allclose(first[0], wanted[0], rtol=1e-13)
    np.testing.assert_allclose(second[0], wanted[1], rtol=1e-13)


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_nothing_moves_where_the_loss_is_not_finite(loss):
    w, dw, v = arrays()
    kept = w.copy(), v.copy()
    sgd_step([(w, dw, v, 0.2)], 0.03, 0.9, loss)
    np.testing.assert_array_equal((w, v), kept)
