import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops import softmax_loss as op

SIZES = [(301, 19), (7, 3), (1, 5)]                                     # more classes than threads of a picture, and fewer


@pytest.mark.parametrize("M, N", SIZES)
def test_softmax_loss_and_its_gradient_equal_the_reference(machine, rng, M, N):
    logits, labels = 10*normal(rng, M, N), rng.integers(0, M, N)

    def work():
        loss, cache = op.softmax_loss(machine.array(logits), labels)
        return loss, cache[0], op.softmax_loss_backward(cache), op.softmax(machine.array(logits))

    loss, p, dlogits, alone = machine.results(work)
    wanted, cache = op.softmax_loss_reference(logits, labels)
    below = logits.max(axis=0) - logits                                 # exp(-below): its error is that of `below`, and 2 ulp
    relative = (below + below[labels, np.arange(N)] + M/128 + 16)*EPS
    close(p, cache[0], relative*cache[0] + 1e-38)
    close(dlogits, op.softmax_loss_backward_reference(cache), (relative*cache[0] + 2*EPS)/N + 1e-38)
    close(loss, np.asarray(wanted), relative.max())
    np.testing.assert_array_equal(alone, p)


def test_large_logits_neither_overflow_nor_lose_the_loss(machine):
    logits = np.array([[3e8, -3e8], [3e8, 3e8], [0, 3e8]], np.float32)
    loss, = machine.results(lambda: op.softmax_loss(machine.array(logits), [0, 1])[:1])
    close(loss, np.asarray(np.log(2)), 4*EPS)


@pytest.mark.parametrize("M, N", [*SIZES, (3, 300)])
def test_loss_and_wrong_answers_are_added_to_what_was_there(machine, rng, M, N):
    logits, labels = normal(rng, M, N), rng.integers(0, M, N).astype(np.int32)
    logits[:, ::3] = logits[:, ::3].round()                             # ties: the first of the largest is the answer
    before = np.array([1000.0, 5.0])

    def work():
        totals = machine.array(before)
        cache = op.softmax_loss_onto(totals, machine.array(logits), machine.array(labels))
        return totals, *cache

    totals, p, kept = machine.results(work)
    wanted = before.copy()
    np.testing.assert_array_equal(kept, labels)
    op.softmax_loss_onto(wanted, logits, labels)
    assert totals[1] == wanted[1] and totals[0] == pytest.approx(wanted[0], rel=1e-6) and np.isfinite(p).all()
