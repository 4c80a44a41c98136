"""A CuPy without a device whose kernels run in the CPU executor and whose streams can be recorded, as strict as CUDA.

While a stream is recorded nothing is executed: launches, and the few array operations that CuPy does on the device, go onto
a list that holds the addresses of their arrays and no reference to them. A replay runs the list. What a graph must not do is
an error: to wait for the device, to copy from the host, to take memory outside the pool in force, to touch memory of a pool
that is emptied or that a pool may have lent to somebody else by then."""
import ctypes
from contextlib import contextmanager
from math import prod
from types import SimpleNamespace

import numpy as np

from tests import executor

FAKE = []                         # the FakeCupy of the test that runs


class Pool:
    """Memory that Python drops is lent again at once, its bytes set to those of a NaN. A pool that is dropped keeps it."""

    def __init__(self, allocator=None):
        self.idle, self.blocks, self.private = [], {}, allocator is not None
        FAKE[0].pools.append(self)

    def malloc(self, nbytes):
        fake = FAKE[0]
        assert self.private or not fake.recording, "memory of the common pool in a graph"
        fitting = [block for block in self.idle if nbytes + 64 <= block.nbytes <= 2*nbytes + 128]
        block = min(fitting, key=lambda block: block.nbytes, default=None)
        if block is None:
            block = np.empty(max(nbytes, 1) + 64, np.uint8)
            self.blocks[block.ctypes.data] = block
        else:
            self.idle = [other for other in self.idle if other is not block]
        block.fill(0xff)
        return Lent(self, block, nbytes)

    def free_all_blocks(self):
        for block in self.idle:
            del self.blocks[block.ctypes.data]
        self.idle = []


class Lent:
    def __init__(self, pool, block, nbytes):
        self.pool, self.block = pool, block
        self.__array_interface__ = block[-block.ctypes.data % 64:][:nbytes].__array_interface__

    def __del__(self):
        self.pool.idle.append(self.block)


class DeviceArray(executor.ExecutorArray):
    def __array_ufunc__(self, ufunc, method, *inputs, out=None):
        plain = lambda values: [value.view(np.ndarray) if isinstance(value, DeviceArray) else value for value in values]
        if not FAKE[0].recording:
            getattr(ufunc, method)(*plain(inputs), out=out and tuple(plain(out)))
            return out[0]
        assert out is not None and method == "__call__", "a result outside the pool"
        FAKE[0].record([*inputs, out[0]], lambda *arrays: ufunc(*arrays[:-1], out=arrays[-1]))
        return out[0]

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        return super().__getitem__(key if Ellipsis in key else (*key, ...))      # an array (), no number

    def __setitem__(self, key, value):
        target = self.view(np.ndarray)[key]
        assert isinstance(value, DeviceArray) and value.dtype == target.dtype, "a copy from the host"
        if FAKE[0].recording:
            FAKE[0].record([self[key], value], np.copyto)
        else:
            np.copyto(target, value.view(np.ndarray))

    def set(self, host):
        FAKE[0].look()
        if host.shape != self.shape:
            raise ValueError("Shape mismatch")
        np.copyto(self.view(np.ndarray), host)

    def copy(self):
        FAKE[0].look()
        return FAKE[0].asarray(self.view(np.ndarray))

    def look(self, *_):
        raise AssertionError("a look at numbers on the device")

    __float__ = __int__ = __bool__ = __index__ = item = tolist = fill = look


class Address:
    """An array of a recorded launch: where it is and what it looks like, and nothing that keeps its memory."""

    def __init__(self, fake, array):
        self.fake, self.start, self.shape, self.dtype = fake, array.ctypes.data, array.shape, array.dtype
        self.nbytes = array.nbytes
        assert array.flags.c_contiguous

    def array(self):
        for pool in self.fake.pools:
            for start, block in pool.blocks.items():
                if start <= self.start and self.start + self.nbytes <= start + block.nbytes:
                    assert pool.private or not any(block is other for other in pool.idle), "memory that Python has dropped"
                    memory = (ctypes.c_uint8*max(self.nbytes, 1)).from_address(self.start)
                    return np.frombuffer(memory, self.dtype, prod(self.shape)).reshape(self.shape).view(executor.ExecutorArray)
        raise AssertionError("memory of a pool that is emptied")


class Stream:
    def __init__(self, fake, legacy=False):
        self.fake, self.legacy = fake, legacy

    def __enter__(self):
        self.fake.streams.append(self)

    def __exit__(self, *_):
        self.fake.streams.pop()

    def record(self):
        return SimpleNamespace(stream=self)

    def wait_event(self, event):
        self.fake.waits.append((self, event.stream))

    def begin_capture(self):
        assert not self.legacy and self.fake.recording is None
        self.fake.recording = Graph(self.fake)

    def end_capture(self):
        graph, self.fake.recording = self.fake.recording, None
        return graph


class Graph:
    def __init__(self, fake):
        self.fake, self.entries = fake, []             # (what is done, to which arrays)

    def __bool__(self):
        return True

    def launch(self):
        assert self.fake.recording is None
        self.fake.launched += 1
        for work, values in self.entries:
            work(*(value.array() if isinstance(value, Address) else tuple(v.array() if isinstance(v, Address) else v for v in value)
                   if isinstance(value, tuple) else value for value in values))


class FakeCupy:
    """Stands for cupy; `launches` counts the kernels and `waits` names the streams that waited, and for which."""
    ndarray = DeviceArray

    def __init__(self):
        FAKE[:] = [self]
        self.recording, self.pools, self.launches, self.launched, self.waits = None, [], 0, 0, []
        self.pool, self.streams = Pool(), [Stream(self, legacy=True)]
        self.allocators = [self.pool.malloc]
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: Stream(self), get_current_stream=lambda: self.streams[-1], MemoryPool=Pool,
            using_allocator=self.using_allocator, runtime=SimpleNamespace(CUDARuntimeError=OSError))

    @contextmanager
    def using_allocator(self, malloc):
        self.allocators.append(malloc)
        yield
        self.allocators.pop()

    def get_default_memory_pool(self):
        return self.pool

    def look(self):
        assert self.recording is None, "the host waits for a device that is being recorded"

    # ------------------------------------------------------------------------------------------------------ arrays
    def empty(self, shape, dtype):
        nbytes = prod(shape)*np.dtype(dtype).itemsize
        return np.asarray(self.allocators[-1](nbytes)).view(dtype).reshape(shape).view(DeviceArray)

    def zeros(self, shape, dtype):
        array = self.empty(shape, dtype)
        if self.recording:
            self.record([array], lambda array: array.fill(0))
        else:
            array.view(np.ndarray).fill(0)
        return array

    def asarray(self, host):
        self.look()
        array = self.empty(host.shape, host.dtype)
        np.copyto(array.view(np.ndarray), host)
        return array

    def asnumpy(self, array):
        self.look()
        return array.view(np.ndarray).copy()

    # ----------------------------------------------------------------------------------------------------- kernels
    def record(self, values, work):
        address = lambda value: Address(self, value) if isinstance(value, DeviceArray) else value
        self.recording.entries.append((work, [tuple(map(address, value)) if isinstance(value, tuple) else address(value)
                                              for value in values]))

    def launch(self, kernel, grid, values):
        """What a `zfcore.kernel.Kernel` calls for DeviceArrays."""
        def run(*values):
            self.launches += 1
            executor.launch(kernel, grid, list(values))
        if self.recording:
            self.record(values, run)
        else:
            run(*values)
