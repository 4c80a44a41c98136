import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.convert import from_bf16, to_bf16
from zfcore.ops.sgd_step import sgd_step, sgd_step_reference

RULE = 0.1, 0.9                                                         # lr, momentum
# one, four and more than a block, and what is left of a four
SHAPES = [(3, 7, 7, 5), (9, 116), (1,), (), (7, 300), (6,)]


def drawn(rng, shapes=SHAPES):
    return [(*(normal(rng, *shape) for _ in range(3)), 0.05*(k % 2)) for k, shape in enumerate(shapes)]


def on_device(machine, tensors):
    return [(*map(machine.array, (w, dw, v)), decay) for w, dw, v, decay in tensors]


def test_two_steps_equal_the_reference(machine, rng):
    tensors = drawn(rng)

    def work():
        moved = on_device(machine, tensors)
        for _ in range(2):
            sgd_step(moved, *RULE)
        return [array for w, _, v, _ in moved for array in (w, v)]

    results = iter(machine.results(work))
    for w, dw, v, decay in tensors:
        wanted = [a.astype(np.float64) for a in (w, v)]
        for _ in range(2):
            wanted = sgd_step_reference(wanted[0], dw, wanted[1], *RULE, decay)
        sizes = 2*np.abs(w) + np.abs(dw) + 2*np.abs(v)
        close(next(results), wanted[0], 8*EPS*sizes)
        close(next(results), wanted[1], 8*EPS*sizes)


@pytest.mark.parametrize("offset", [0, 1], ids=["four at once", "one by one"])
def test_more_tensors_than_a_launch_takes_get_the_bits_that_each_gets_alone(machine, rng, offset):
    tensors = drawn(rng, [(4*k + 1,) for k in range(19)])

    def moved(groups):
        device = on_device(machine, tensors)
        device = [(*(a[offset:] for a in arrays), decay) for *arrays, decay in device]         # one float off the 16 bytes
        for group in groups:
            sgd_step(device[group], *RULE)
        return [array for w, _, v, _ in device for array in (w, v)]

    together, alone = (machine.results(lambda: moved(groups))
                       for groups in ([slice(None)], [slice(k, k + 1) for k in range(19)]))
    for one, other, (w, *_) in zip(together[::2], alone[::2], tensors):
        assert one.tobytes() == other.tobytes() and (one.size == 0 or one.tobytes() != w[offset:].tobytes())


@pytest.mark.parametrize("offset", [0, 1], ids=["four at once", "one by one"])
def test_copies_are_the_new_weights_rounded_and_the_weights_those_of_a_step_without(machine, rng, offset):
    tensors = drawn(rng, [(4*k + 3,) for k in range(18)])

    def work():
        moved, alone = ([(*(a[offset:] for a in arrays), decay) for *arrays, decay in on_device(machine, tensors)]
                        for _ in range(2))
        copies = [machine.array(np.zeros(w.shape[0] + offset, np.uint16))[offset:] for w, *_ in moved]
        sgd_step(moved, *RULE, copies=copies)
        sgd_step(alone, *RULE)
        return [array for group in (copies, [w for w, *_ in moved], [w for w, *_ in alone]) for array in group]

    found = machine.results(work)
    for copy, w, alone in zip(found[:18], found[18:36], found[36:], strict=True):
        np.testing.assert_array_equal(copy, from_bf16(to_bf16(w)))
        np.testing.assert_array_equal(w, alone)


@pytest.mark.parametrize("loss", [np.nan, np.inf, 3.0])
def test_the_rate_and_the_loss_are_read_on_the_device_and_without_a_finite_loss_nothing_moves(machine, rng, loss):
    tensors = drawn(rng, [(37,), (8,)])

    def work(lr, loss):
        moved = on_device(machine, tensors)
        sgd_step(moved, lr, 0.9, loss)
        return [array for w, _, v, _ in moved for array in (w, v)]

    got = machine.results(lambda: work(machine.array(np.array(0.25, np.float32)), machine.array(np.array(loss))))
    wanted = machine.results(lambda: work(0.25, 0.0)) if np.isfinite(loss) else [a for w, _, v, _ in tensors for a in (w, v)]
    for one, other in zip(got, wanted, strict=True):
        assert one.tobytes() == other.tobytes()
