"""The memory that `empty` hands out: used again, but never while anything can still see it."""
import threading

import numpy as np

from zfcore import backend
from zfcore.backend import empty

LIKE = np.zeros(1)
SHAPE = (3, 401, 501)                                     # 2.4 MB of float32: large enough to be kept


def address(array):
    return array.ctypes.data


def test_empty_has_the_shape_and_dtype_asked_for_and_is_contiguous():
    for dtype in (np.float32, np.float64, np.uint8):
        for shape in (SHAPE, (2, 3), (0, 4), ()):
            array = empty(shape, dtype, like=LIKE)
            assert array.shape == shape and array.dtype == dtype and type(array) is np.ndarray
            assert array.flags.c_contiguous and array.flags.writeable


def test_a_large_array_takes_the_memory_that_one_of_its_size_has_left():
    first = empty(SHAPE, np.float32, like=LIKE)
    left = address(first)
    del first
    assert address(empty(SHAPE, np.float32, like=LIKE)) == left


def test_memory_is_not_handed_out_while_a_view_of_a_view_can_see_it():
    first = empty(SHAPE, np.float32, like=LIKE)
    first[:] = 7
    view = first.reshape(-1)[5:].view(np.int32)[::2]
    before = view.copy()
    del first
    others = [empty(SHAPE, np.float32, like=LIKE) for _ in range(3)]
    for other in others:
        other[:] = 8
    np.testing.assert_array_equal(view, before)


def test_memory_much_larger_than_asked_for_is_left_alone():
    large = empty((8, *SHAPE), np.float32, like=LIKE)
    left = address(large)
    del large
    assert address(empty(SHAPE, np.float32, like=LIKE)) != left


def test_memory_that_nothing_asks_for_goes_back_to_the_system(monkeypatch):
    monkeypatch.setattr(backend, "_idle", [])
    del [empty((5, *SHAPE), np.float32, like=LIKE)][:]
    assert len(backend._idle) == 1
    for _ in range(300):
        empty(SHAPE, np.float32, like=LIKE)
    assert [buffer.nbytes for _, buffer in backend._idle] == [empty(SHAPE, np.float32, like=LIKE).nbytes]


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(50):
            array = empty((300_000,), np.float32, like=LIKE)
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
