import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops import hinge_loss as op


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("M, N", [(101, 19), (5, 3)])
def test_hinge_loss_and_its_gradient_equal_the_reference(machine, rng, M, N, squared):
    scores, targets = normal(rng, M, N), rng.integers(-1, 2, (M, N))

    def work():
        loss, cache = op.hinge_loss(machine.array(scores), targets, squared)
        return loss, op.hinge_loss_backward(cache)

    loss, dscores = machine.results(work)
    wanted, cache = op.hinge_loss(scores.astype(np.float64), targets, squared)
    close(loss, np.asarray(wanted), (M/32 + 12)*EPS*wanted)
    slope = op.hinge_loss_backward(cache)
    close(dscores, slope, 4*EPS*(2 + np.abs(scores))/N*(slope != 0))
    assert op.hinge_loss_reference(scores, targets, squared) == pytest.approx(wanted)


def test_hinge_loss_takes_one_class_a_picture_as_well(machine, rng):
    scores, labels = normal(rng, 7, 9), rng.integers(0, 7, 9)
    loss, = machine.results(lambda: op.hinge_loss(machine.array(scores), labels)[:1])
    close(loss, np.asarray(op.hinge_loss_reference(scores, labels)), 16*EPS*loss)
