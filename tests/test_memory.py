"""Memory is used again, but never while anything can still see it."""
import threading

import numpy as np

from zfcore import memory
from zfcore.memory import recycled, workspace

SHAPE = (3, 401, 501)                                     # 2.4 MB of float32: large enough to be kept


def address(array):
    return array.ctypes.data


def test_a_large_array_takes_the_memory_that_one_of_its_size_has_left():
    first = recycled(SHAPE, np.float32)
    left = address(first)
    del first
    assert address(recycled(SHAPE, np.float32)) == left


def test_memory_is_not_handed_out_while_a_view_of_a_view_can_see_it():
    first = recycled(SHAPE, np.float32)
    first[:] = 7
    view = first.reshape(-1)[5:].view(np.int32)[::2]
    before = view.copy()
    del first
    others = [recycled(SHAPE, np.float32) for _ in range(3)]
    for other in others:
        other[:] = 8
    np.testing.assert_array_equal(view, before)


def test_memory_much_larger_than_asked_for_is_left_alone():
    large = recycled((8, *SHAPE), np.float32)
    left = address(large)
    del large
    assert address(recycled(SHAPE, np.float32)) != left


def test_memory_that_nothing_asks_for_goes_back_to_the_system(monkeypatch):
    monkeypatch.setattr(memory, "_idle", [])
    del [recycled((5, *SHAPE), np.float32)][:]
    assert len(memory._idle) == 1
    for _ in range(300):
        recycled(SHAPE, np.float32)
    assert [buffer.nbytes for _, buffer in memory._idle] == [recycled(SHAPE, np.float32).nbytes]


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(50):
            array = recycled((300_000,), np.float32)
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_workspace_is_kept_for_the_thread_and_is_its_own():
    one = workspace("test", (3, 4), np.float32)
    again = workspace("test", (2, 5), np.float32)
    other = workspace("other", (2, 5), np.float32)
    assert one.shape == (3, 4) and one.dtype == np.float32
    assert np.may_share_memory(one, again) and not np.may_share_memory(again, other)
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(workspace("test", (3, 4), np.float32)))
    thread.start(), thread.join()
    assert not np.may_share_memory(one, elsewhere[0])


def test_a_workspace_grows():
    small = workspace("grows", (2,), np.float64)
    large = workspace("grows", (3000,), np.float64)
    large[:] = 1
    assert small.shape == (2,) and large.sum() == 3000
