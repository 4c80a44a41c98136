"""Batches reach a GPU ahead of use, and no wait may be left out: on the stand-in everything comes as early, or as late, as CUDA
allows."""
import gc

import numpy as np
import pytest

from tests.data.test_loader import Drawn, pictures, same, threads
from tests.standin import WAITS, late
from tests.test_prefetch import numbered
from zfcore.backend import to_host

SCHEDULES = [(), ("copies",), ("compute",), ("copies", "compute")]       # the streams on which everything comes late
in_all_schedules = pytest.mark.parametrize("schedule", SCHEDULES,
                                           ids=lambda schedule: f"late: {' '.join(schedule) or 'nothing'}")


@pytest.fixture
def cupy(standin):
    """CuPy on the stand-in, with pools that hold nothing."""
    import cupy
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()
    return cupy


def steps(device, cupy, batches, seen):
    """A step for each batch: one kernel reads it, another fills an array of its own; both are dropped before they ran."""
    for array, k in device.prefetch(batches):
        seen.append(array.copy())
        del array
        cupy.empty((6, 5), np.uint8).fill(200 + k)


def right(device, cupy):
    """Whether all that can go wrong did not: every step reads its batch, and what is lent after an end, early or not,
    is written by its new owner alone."""
    seen = []
    steps(device, cupy, numbered(device, 7), seen)
    fine = [to_host(array).tolist() for array in seen] == [[[k]*5]*6 for k in range(7)]
    for array, k in device.prefetch(numbered(device, 7)):
        del array
        if k == 3:
            break
    mine, ours = [device.pinned((6, 5), np.uint8) for _ in range(9)], [cupy.empty((6, 5), np.uint8) for _ in range(9)]
    for host, array in zip(mine, ours):
        host[...] = 98
        array.fill(99)
    cupy.cuda.runtime.deviceSynchronize()
    return fine and all((host == 98).all() for host in mine) and all((to_host(array) == 99).all() for array in ours)


@in_all_schedules
def test_batches_arrive_whole_however_early_or_late_copies_and_kernels_come(gpu, cupy, schedule):
    with late(*schedule):
        assert right(gpu, cupy)


@pytest.mark.parametrize("wait", WAITS)
def test_each_of_the_four_waits_is_needed(gpu, cupy, wait):
    outcomes = []
    for schedule in SCHEDULES:
        with late(*schedule, deaf=wait):
            outcomes.append(right(gpu, cupy))
    assert not all(outcomes)


def test_the_next_copy_is_under_way_before_a_step_begins_and_no_step_is_waited_for(gpu, cupy):
    ends, made = [], []
    with late("copies", "compute") as standin:
        batches = (made.append(k) or (host, k) for host, k in numbered(gpu, 5))
        for array, k in gpu.prefetch(batches):
            assert made == list(range(min(k + 2, 5)))
            if k >= 2:
                assert standin.standin_done() <= ends[k - 2]             # the step before this one need not have begun
            array += 1
            ends.append(standin.standin_issued())


def test_memory_on_host_and_device_is_used_again(gpu, cupy):
    for array, k in gpu.prefetch(numbered(gpu, 40)):
        array.fill(k)
    assert cupy.get_default_memory_pool().total_bytes() <= 4*512
    del array
    assert 1 <= cupy.get_default_pinned_memory_pool().n_free_blocks() <= 4


def test_the_rest_of_a_batch_stays_on_the_host(gpu, cupy):
    labels = np.arange(6)
    (array, first, second), = gpu.prefetch(batch for batch in [(gpu.pinned((6, 5), np.uint8), labels, "x")])
    assert array.shape == (6, 5) and first is labels and second == "x"


@in_all_schedules
def test_an_array_that_is_not_pinned_arrives_too(gpu, cupy, schedule):
    seen = []
    with late(*schedule):
        steps(gpu, cupy, ((np.full((n, 5), k, np.float32), k) for k, n in enumerate([6, 0, 3])), seen)
        assert [to_host(array).tolist() for array in seen] == [[[0]*5]*6, [], [[2]*5]*3]


@pytest.mark.parametrize("end", ["break", "exception in a step", "exception in the source"])
def test_however_it_ends_the_source_is_closed(gpu, cupy, end):
    closed = []

    def source():
        try:
            for k, batch in enumerate(numbered(gpu, 9)):
                if k == 5 and end == "exception in the source":
                    raise ZeroDivisionError
                yield batch
        finally:
            closed.append(True)

    held = source()                                              # or dropping it would close it

    def consume():
        for _, k in gpu.prefetch(held):
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


@in_all_schedules
@pytest.mark.parametrize("workers", [0, 3])
def test_on_a_device_arrives_what_arrives_on_the_host(gpu, cupy, workers, schedule):
    dataset, on_host, on_device = Drawn(201, damaged=[200, 17]), [], []
    with late(*schedule):
        for pixels, labels, indices in pictures(dataset, workers, memory=0).batches(8, 1, 0, shuffle=False, device=gpu):
            assert isinstance(pixels, cupy.ndarray) and len(pixels) == len(labels)
            on_device.append(pixels.copy())
            del pixels
            on_host.append((labels, indices))
        seen = [(to_host(pixels), *rest) for pixels, rest in zip(on_device, on_host)]
    assert len(seen) == 26
    assert same(seen, pictures(Drawn(201, damaged=[200, 17])).batches(8, 1, 0, shuffle=False))
    assert not threads()


def test_batches_for_a_device_are_assembled_in_pinned_memory_that_is_used_again(gpu, cupy):
    for _ in pictures(Drawn(400), workers=2, memory=0).batches(8, 1, 0, device=gpu):
        pass
    gc.collect()
    assert 4 <= cupy.get_default_pinned_memory_pool().n_free_blocks() <= 9
