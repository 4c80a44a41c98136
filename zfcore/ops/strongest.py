"""The pictures that excite each unit most: what a batch adds to the lists that are kept (paper, section 4 and figure 2)."""
from typing import NamedTuple

import numpy as np

from zfcore.backend import BF16, empty, runs_kernels
from zfcore.check import dtype, shape
from zfcore.cpu import parallel, slabs
from zfcore.kernel import Kernel

ENTER = Kernel("strongest.cu", "strongest_enter",
               "const stored *y, float *values, long long *pictures, long long *places, "
               "int listed, int pixels, int N, int from, int until, long long picture", block=1024).stored_too()


class Lists(NamedTuple):
    """A list for each unit, strongest first: the activation (units,k), the number of its picture (units,k) int64, and its place
    in the map (units,k) int64, row*Wo + column."""
    values: np.ndarray
    pictures: np.ndarray
    places: np.ndarray


def strongest_reference(lists, y, pictures):
    """The new lists."""
    k, entered = lists.values.shape[1], [[] for _ in y]
    for unit, maps in enumerate(y.reshape(len(y), -1, len(pictures))):
        known = list(zip(*(array[unit] for array in lists)))
        new = [(lists.values.dtype.type(maps[:, n].max()), picture, maps[:, n].argmax()) for n, picture in enumerate(pictures)]
        entered[unit] = sorted(known + [one for one in new if one[0] == one[0]], key=lambda one: -one[0])[:k]
    return Lists(*(np.array(column, array.dtype) for column, array in zip(np.moveaxis(np.array(entered), 2, 0), lists)))


def strongest(lists, y, pictures):
    """Enter the pictures of a batch into `lists`, in place: each picture once, with the strongest activation of the unit's map
    and the first place that has it. A tie goes to the entry that was there before, then to the earlier picture; no NaN is
    entered.

    y (units,Ho,Wo,N) or (units,N), float32 or float64, which is compared in the dtype of the values; on a device of that dtype or
    stored as BF16. pictures: N whole numbers on the host, which rise. On a device nothing waits and nothing is copied there: the
    kernel is told where a run of neighbours begins."""
    if not runs_kernels(y):
        dtype("strongest: y", y, np.float32, np.float64)
    elif y.dtype != BF16:
        dtype("strongest: y", y, lists.values.dtype)
    shape("strongest: values", lists.values, (len(y), None))
    if runs_kernels(y):
        k, N = lists.values.shape[1], len(pictures)
        begins = [0, *(np.flatnonzero(np.diff(pictures) != 1) + 1).tolist()]
        for first, until in zip(begins, [*begins[1:], N]):
            ENTER.variant(y)(len(y), y, *lists, k, y.size//max(len(y)*N, 1), N, first, until, int(pictures[first]))
        return
    for array, entered in zip(lists, _entered(lists, y, pictures)):
        array[...] = entered


def _entered(lists, y, pictures):
    """The new lists, by NumPy."""
    k, maps = lists.values.shape[1], y.reshape(len(y), -1, len(pictures))            # (units,Ho*Wo,N)
    values = np.concatenate([lists.values, _highest(maps).astype(lists.values.dtype, copy=False)], axis=1)     # (units,k+N)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    units, ranks = np.nonzero(order >= k)                                            # what is new in the lists
    columns = order[units, ranks] - k
    kept = np.minimum(order, k - 1)
    entered, places = (np.take_along_axis(array, kept, axis=1) for array in lists[1:])
    entered[units, ranks] = pictures[columns]
    places[units, ranks] = maps[units, :, columns].argmax(axis=1)
    return np.take_along_axis(values, order, axis=1), entered, places


def _highest(maps):
    """The maximum of each map of each picture: (units,places,N) -> (units,N). A map is folded in the middle until one place is
    left, so that NumPy meets long runs, not N numbers at a time."""
    out = empty((len(maps), maps.shape[2]), maps.dtype, like=maps)

    def job(units):
        folded = maps[units]
        while (half := -(-folded.shape[1]//2)) < folded.shape[1]:
            folded = np.maximum(folded[:, :half], folded[:, -half:])
        out[units] = folded[:, 0]

    parallel(job, slabs(maps))
    return out
