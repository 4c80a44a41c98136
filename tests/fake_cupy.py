"""A CuPy without a device: streams, events and copies that come as early, or as late, as CUDA would allow.

What is issued on a stream named in `lazy` is done when somebody waits for it and not before; on the others, at once. A
program whose waits suffice computes the same either way. `deaf` names a wait that does nothing, as if the program had
left it out: "copies.wait_event", "compute.wait_event", "event.synchronize" or "copies.synchronize".

Memory is lent as CuPy lends it: what Python drops may be handed out at once, whatever the device is still doing.
"""
from collections import deque
from math import prod
from types import SimpleNamespace

import numpy as np

POISON = 0xEE


class Stream:
    def __init__(self, fake, name):
        self.fake, self.name, self.work, self.issued, self.done = fake, name, deque(), 0, 0

    def issue(self, work):
        self.work.append(work)
        self.issued += 1
        if self.name not in self.fake.lazy:
            self.reach(self.issued)

    def reach(self, until):
        while self.done < until:
            self.done += 1
            self.work.popleft()()

    def record(self):
        return Event(self, self.issued)

    def wait_event(self, event):
        if self.fake.deaf != f"{self.name}.wait_event":
            self.issue(event.reach)

    def synchronize(self):
        if self.fake.deaf != f"{self.name}.synchronize":
            self.reach(self.issued)


class Event:
    def __init__(self, stream, place):
        self.stream, self.place = stream, place

    def reach(self):
        self.stream.reach(self.place)

    def synchronize(self):
        if self.stream.fake.deaf != "event.synchronize":
            self.reach()


class Lent:
    """A block of a pool, for NumPy: it goes back when no array uses it any more."""

    def __init__(self, pool, nbytes):
        fitting = [k for k, block in enumerate(pool) if block.nbytes == nbytes]
        self.pool, self.block = pool, pool.pop(fitting[-1]) if fitting else np.full(nbytes, POISON, np.uint8)
        self.__array_interface__ = self.block.__array_interface__

    def __del__(self):
        self.pool.append(self.block)


class Array:
    """A device array: its numbers may be touched by work on a stream alone."""

    def __init__(self, fake, shape, dtype):
        self.fake, self.shape, self.dtype = fake, shape, np.dtype(dtype)
        self.memory = Lent(fake.device_pool, prod(shape)*self.dtype.itemsize)

    def __len__(self):
        return self.shape[0]

    def set(self, host, stream):
        assert host.shape == self.shape and host.dtype == self.dtype
        source, block = self.fake.bytes_of(host), self.memory.block              # neither is kept from its pool by the copy
        stream.issue(lambda: np.copyto(block, source))


class FakeCupy:
    """Stands for the modules cupy and cupyx."""
    __version__, ndarray = "of the tests", Array

    def __init__(self, lazy=(), deaf=None, cuda=13):
        self.lazy, self.deaf, self.device_pool, self.host_pool = lazy, deaf, [], []
        self.compute, self.copies = Stream(self, "compute"), Stream(self, "copies")
        runtime = SimpleNamespace(CUDARuntimeError=OSError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
                                  runtimeGetVersion=lambda: 1000*cuda, getDeviceProperties=lambda _: {"name": b"paper"})
        self.cuda = SimpleNamespace(runtime=runtime, get_current_stream=lambda: self.compute,
                                    Stream=lambda non_blocking: self.copies)

    def empty(self, shape, dtype):
        return Array(self, shape, dtype)

    def empty_pinned(self, shape, dtype):
        return np.asarray(Lent(self.host_pool, prod(shape)*np.dtype(dtype).itemsize)).view(dtype).reshape(shape)

    def asarray(self, host):
        array = self.empty(host.shape, host.dtype)
        array.set(host.copy(), self.compute)
        return array

    def bytes_of(self, host):
        """The bytes of a pinned array as they will be when they are read; of any other array as they are now."""
        owner = host
        while isinstance(owner, np.ndarray):
            owner = owner.base
        return owner.block if isinstance(owner, Lent) else np.frombuffer(host.tobytes(), np.uint8)

    # -------------------------------------------------------------------- kernels on the current stream
    def read(self, array, seen):
        """Append what `array` holds, as a NumPy array, to the list `seen`."""
        block, shape, dtype = array.memory.block, array.shape, array.dtype
        self.compute.issue(lambda: seen.append(block.view(dtype).reshape(shape).copy()))

    def fill(self, array, value):
        block = array.memory.block
        self.compute.issue(lambda: block.fill(value))
