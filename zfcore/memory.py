"""Floor 0: memory on the host that is used again, of large arrays and of workspaces. Fresh memory costs page faults."""
import itertools
import math
import threading

import numpy as np


class _Memory:
    """Memory for one array. NumPy keeps it alive as long as any view of the array; then it waits in `_idle`."""

    def __init__(self, buffer, nbytes):
        self.buffer = buffer
        self.__array_interface__ = dict(buffer[:nbytes].__array_interface__)

    def __del__(self):
        _idle.append((next(_clock), self.buffer))


_idle = []                        # (when, buffer): memory that no array uses, the longest unused first
_clock = itertools.count()
_requests = threading.Lock()


def recycled(shape, dtype):
    """An uninitialised NumPy array, large ones in memory that an array of about the same size has left.

    Every training step makes and drops the same large arrays. Were they given back to the system each time, it would
    clear the pages again at the first touch, which costs as much as the arithmetic of a pooling. What 256 arrays that
    came and went after it found no use for is given back."""
    nbytes = math.prod(shape)*np.dtype(dtype).itemsize
    if nbytes < 2**20:
        return np.empty(shape, dtype)
    with _requests:                                                    # `__del__` only ever appends, at any moment
        now = next(_clock)
        while _idle and _idle[0][0] < now - 512:                       # a tick when it came, a tick when it went
            del _idle[0]
        sizes = {buffer.nbytes: k for k, (_, buffer) in enumerate(_idle) if nbytes <= buffer.nbytes <= 1.25*nbytes}
        buffer = _idle.pop(sizes[min(sizes)])[1] if sizes else np.empty(nbytes, np.uint8)
    return np.asarray(_Memory(buffer, nbytes)).view(dtype).reshape(shape)


_own = threading.local()


def workspace(name, shape, dtype):
    """An uninitialised array in this thread's buffer `name`, which is kept and grows. It holds until the
    thread asks for the same name again."""
    nbytes = math.prod(shape)*np.dtype(dtype).itemsize
    buffer = getattr(_own, name, None)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = np.empty(nbytes, np.uint8)
        setattr(_own, name, buffer)
    return buffer[:nbytes].view(dtype).reshape(shape)
