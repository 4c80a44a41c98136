"""Batches reach a device ahead of use, and no wait may be left out."""
import sys

import numpy as np
import pytest

from tests.fake_cupy import FakeCupy
from zfcore import backend, nvrtc
from zfcore.backend import CPU, to_host
from zfcore.check import Expected
from zfcore.device import select

SCHEDULES = [(), ("copies",), ("compute",), ("copies", "compute")]       # the streams on which everything comes late


@pytest.fixture
def fake_gpu(monkeypatch):
    """A function that makes (device, FakeCupy), the device by the front door."""
    def make(lazy=(), deaf=None):
        fake = FakeCupy(lazy, deaf)
        for name in ("cupy", "cupyx"):
            monkeypatch.setitem(sys.modules, name, fake)
        for entered in (backend.LAUNCHERS, backend.MODULES):     # by `select`, to be taken out at the end
            monkeypatch.setitem(entered, fake.ndarray, None)
        monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
        return select("gpu"), fake
    return make


def numbered(device, count, n=6):
    """Batches (array full of k, k) for k < count, which nobody but the receiver holds on to."""
    def full(k):
        host = device.pinned((n, 5), np.uint8)
        host[...] = k
        return host

    for k in range(count):
        yield full(k), k


def steps(device, fake, batches, seen):
    """A step for each batch: one kernel reads it, another fills an array of its own; both are dropped before they ran."""
    for array, k in device.prefetch(batches):
        fake.read(array, seen)
        del array
        fake.fill(fake.empty((6, 5), np.uint8), 200 + k)


def right(device, fake):
    """Whether all that can go wrong did not: every step reads its batch, and what is lent after an end, early or not,
    is written by its new owner alone."""
    seen = []
    steps(device, fake, numbered(device, 7), seen)
    fake.compute.reach(fake.compute.issued)
    fine = [array.tolist() for array in seen] == [[[k]*5]*6 for k in range(7)]
    for array, k in device.prefetch(numbered(device, 7)):
        del array
        if k == 3:
            break
    mine, ours = [device.pinned((6, 5), np.uint8) for _ in range(9)], [fake.empty((6, 5), np.uint8) for _ in range(9)]
    for host, array in zip(mine, ours):
        host[...] = 98
        fake.fill(array, 99)
    for stream in (fake.compute, fake.copies):
        stream.reach(stream.issued)
    return fine and all((host == 98).all() for host in mine) and all((array.memory.block == 99).all() for array in ours)


@pytest.mark.parametrize("lazy", SCHEDULES, ids=lambda lazy: f"late: {' '.join(lazy) or 'nothing'}")
def test_batches_arrive_whole_however_early_or_late_copies_and_kernels_come(fake_gpu, lazy):
    assert right(*fake_gpu(lazy))


@pytest.mark.parametrize("wait", ["copies.wait_event", "compute.wait_event", "event.synchronize", "copies.synchronize"])
def test_each_of_the_four_waits_is_needed(fake_gpu, wait):
    assert not all(right(*fake_gpu(lazy, deaf=wait)) for lazy in SCHEDULES)


def test_the_next_copy_is_under_way_before_a_step_begins_and_no_step_is_waited_for(fake_gpu):
    device, fake = fake_gpu(lazy=("copies", "compute"))
    ends, made = [], []
    batches = (made.append(k) or (host, k) for host, k in numbered(device, 5))
    batches_on_device = device.prefetch(batches)
    for array, k in batches_on_device:
        assert made == list(range(min(k + 2, 5)))
        if k >= 2:
            assert fake.compute.done <= ends[k - 2]              # the step before this one need not have begun
        fake.read(array, [])
        ends.append(fake.compute.issued)


def test_memory_on_host_and_device_is_used_again(fake_gpu):
    device, fake = fake_gpu()
    steps(device, fake, numbered(device, 40), [])
    assert len(fake.host_pool) <= 4 and len(fake.device_pool) <= 4


def test_the_rest_of_a_batch_stays_on_the_host(fake_gpu):
    device, _ = fake_gpu()
    labels = np.arange(6)
    (array, first, second), = device.prefetch(batch for batch in [(device.pinned((6, 5), np.uint8), labels, "x")])
    assert array.shape == (6, 5) and first is labels and second == "x"


@pytest.mark.parametrize("lazy", SCHEDULES, ids=lambda lazy: f"late: {' '.join(lazy) or 'nothing'}")
def test_an_array_that_is_not_pinned_arrives_too(fake_gpu, lazy):
    device, fake = fake_gpu(lazy)
    seen = []
    steps(device, fake, ((np.full((n, 5), k, np.float32), k) for k, n in enumerate([6, 0, 3])), seen)
    fake.compute.synchronize()
    assert [array.tolist() for array in seen] == [[[0]*5]*6, [], [[2]*5]*3]


@pytest.mark.parametrize("end", ["break", "exception in a step", "exception in the source"])
def test_however_it_ends_the_source_is_closed(fake_gpu, end):
    device, _ = fake_gpu()
    closed = []

    def source():
        try:
            for k, batch in enumerate(numbered(device, 9)):
                if k == 5 and end == "exception in the source":
                    raise ZeroDivisionError
                yield batch
        finally:
            closed.append(True)

    held = source()                                              # or dropping it would close it

    def consume():
        for _, k in device.prefetch(held):
            if k == 3 and end == "break":
                break
            if k == 3 and end == "exception in a step":
                raise ZeroDivisionError

    if end == "break":
        consume()
    else:
        with pytest.raises(ZeroDivisionError):
            consume()
    assert closed == [True]


def test_on_the_cpu_batches_pass_through_uncopied():
    batches = numbered(CPU, 3)
    assert CPU.prefetch(batches) is batches


def test_batches_arrive_whole_on_a_gpu():
    try:
        device = select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    sums = [(array.astype(np.int64).sum(), k) for array, k in device.prefetch(numbered(device, 50, n=2**20))]
    assert [int(to_host(total)) for total, _ in sums] == [5*2**20*k for k in range(50)]
