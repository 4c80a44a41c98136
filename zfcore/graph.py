"""Floor 0: a function's launches recorded as a CUDA graph, and repeated at the price of one."""
import math
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from weakref import finalize

import numpy as np

from zfcore.backend import runs_kernels


def capture(cupy, work, beyond=tuple):
    """`work` as `Device.capture` has it. A call whose arrays have other shapes than the last call's, or which finds something
    else beyond them, runs launch by launch, as the first call does, which also compiles and loads the kernels. The second one in
    a row is recorded after it has run, and from then on a call is two copies and a launch. One graph is kept: an epoch's last,
    smaller batch does without."""
    graph = recorded = last = None

    def run(*arrays):
        nonlocal graph, recorded, last
        shapes, parcel = _parcel(cupy.asarray, arrays)
        before, last = last, [shapes, *_leaves(beyond())]            # held, so that no other array gets the place of one of them
        if graph is not None and _same(last, recorded):
            graph.replay(parcel)
        elif before is not None and _same(last, before):
            graph = None                       # an older one gives its memory back first
            graph, recorded = _Graph(cupy, work, shapes, parcel), last
        else:
            work(*_unpacked(shapes, parcel))
    return run


def _leaves(tree):
    """Yield what dictionaries, lists and tuples within one another end in."""
    for one in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(one, (dict, list, tuple)):
            yield from _leaves(one)
        else:
            yield one


def _same(some, others):
    """Return whether these are the same arrays, and equal in all else."""
    return len(some) == len(others) and all(one is other or not hasattr(one, "shape") and one == other
                                            for one, other in zip(some, others))


class _Graph:
    """`work` on `parcel` (see `_parcel`) as a CUDA graph. Making one runs `work` once, for the caller; so does each replay.

    A graph holds addresses: of the arrays that `work` was given, which are therefore copies that nobody else has; of those that
    it finds beyond them, after which `capture` looks before each replay; and of the arrays that it makes, which lie in a memory
    pool that lives as long as the graph, so that what Python drops and CuPy lends again stays with the graph. When the graph
    goes the pool is emptied: one that is dropped keeps its memory for good.

    While a stream is recorded nothing may wait for the device, copy to it or call cuBLAS, which CuPy refuses then; launches,
    memset and copies within the device are recorded. (CuPy's manual, Stream.begin_capture; CUDA C++ Programming Guide, CUDA
    graphs.)"""

    def __init__(self, cupy, work, shapes, parcel):
        self.parcel = [array.copy() for array in parcel]
        cupy.get_default_memory_pool().free_all_blocks()             # the steps so far have left as much as a graph takes
        self.memory, current = cupy.cuda.MemoryPool(partial(_block, cupy)), cupy.cuda.get_current_stream()
        finalize(self, self.memory.free_all_blocks).atexit = False   # then the process gives all back, CUDA's way
        stream = cupy.cuda.Stream(non_blocking=True)                 # the default stream cannot be recorded
        stream.wait_event(current.record())
        with stream, cupy.cuda.using_allocator(self.memory.malloc):
            work(*_unpacked(shapes, self.parcel))                    # fills the pool, where recording then finds its memory
            stream.begin_capture()
            try:
                work(*_unpacked(shapes, self.parcel))
            except BaseException:
                with suppress(cupy.cuda.runtime.CUDARuntimeError):   # which finds half a recording, and says no more than that
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()
        current.wait_event(stream.record())

    def replay(self, parcel):
        for mine, sent in zip(self.parcel, parcel):
            mine[...] = sent
        self.graph.launch()                                          # on the current stream, behind the copies


def _block(cupy, nbytes):
    """Memory for a graph's pool. Where there is none left, a pool would take back blocks that nobody holds at the moment and
    try again; those the graph needs. It does so for CuPy's error and not for this one."""
    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(nbytes), 0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MemoryError(f"no {nbytes} bytes left on the GPU for a step; "
                          "smaller batches (python -m train --batch-size, --micro-batch) need less") from error


def launch_by_launch(device, work):
    """Stand-in for a graph: what `capture` of that `Device` gives for `work`, without ever recording."""
    return lambda *arrays: work(*_unpacked(*_parcel(device.array, arrays)))


class _Shape(NamedTuple):
    shape: tuple
    dtype: np.dtype
    on_device: bool


def _parcel(send, arrays):
    """(shapes, parcel): `arrays` on the device, and tuples among them as they are. Those of NumPy travel together as one array
    of bytes, parcel[0], by `send`, in a copy that nothing waits for: CuPy lays it in pinned memory first."""
    arrays, given = [array for array in arrays if not isinstance(array, tuple)], arrays
    host = [np.ravel(array).view(np.uint8) for array in arrays if not runs_kernels(array)]
    packed = np.zeros(sum(map(_padded, host)), np.uint8)
    place = 0
    for array in host:
        packed[place:place + array.nbytes] = array
        place += _padded(array)
    shapes = [array if isinstance(array, tuple) else _Shape(array.shape, array.dtype, runs_kernels(array)) for array in given]
    return shapes, [send(packed), *filter(runs_kernels, arrays)]


def _unpacked(shapes, parcel):
    """Yield the arrays of `_parcel` again, all on the device now."""
    packed, *there = parcel
    place = 0
    for one in shapes:
        if not isinstance(one, _Shape):
            yield one
        elif one.on_device:
            yield there.pop(0)
        else:
            array = packed[place:place + math.prod(one.shape)*one.dtype.itemsize]
            yield array.view(one.dtype).reshape(one.shape)
            place += _padded(array)


def _padded(array):
    """Bytes of `array`, rounded up to where the next one may begin."""
    return -(-array.nbytes//16)*16
