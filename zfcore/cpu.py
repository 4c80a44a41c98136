"""Floor 0: the cores of the CPU. An operation's NumPy form cuts its arrays into blocks, and `parallel` spreads them."""
import functools
import threading
from collections import deque
from contextlib import suppress
from itertools import product
from queue import SimpleQueue

import numpy as np
from threadpoolctl import ThreadpoolController

from zfcore.system import cores

CORES = cores()


def parallel(work, items):
    """`[work(item) for item in items]`, the items spread over the cores, BLAS on one thread each.

    The items are the blocks an operation is cut into. They are cut the same way whatever the number of cores, and no
    matrix product is ever split between threads, so a result has the same bits on any number of cores. NumPy releases
    Python's lock inside copies, elementwise loops and matmul, which is where the time goes. The caller takes items too,
    and an item that calls `parallel` does its own one after another."""
    items = list(items)
    with BLAS:
        if CORES == 1 or len(items) == 1 or getattr(_thread, "at_work", False):
            return [work(item) for item in items]
        shared = _Shared(work, items)
        for _ in range(_helpers(min(CORES, len(items)) - 1)):
            _QUEUE.put(shared)
        shared.take()
        return shared.results_of_all()


class _Shared:
    """The items of one call of `parallel`, of which every thread that is at it takes the next one that is left."""

    def __init__(self, work, items):
        self.work, self.items, self.results = work, items, [None]*len(items)
        self.left, self.error = deque(range(len(items))), None
        self.threads, self.change = 0, threading.Condition()               # at it now

    def take(self):
        with self.change:
            self.threads += 1
        _thread.at_work = True
        try:
            while (k := self.one_left()) is not None:
                self.results[k] = self.work(self.items[k])
        except BaseException as error:
            self.error = error
            self.left.clear()
        finally:
            _thread.at_work = False
            with self.change:
                self.threads -= 1
                self.change.notify()

    def one_left(self):
        with suppress(IndexError):                                         # another has taken the last one
            return self.left.popleft()

    def results_of_all(self):
        with self.change:
            self.change.wait_for(lambda: not self.threads)
        self.work = self.items = None                                      # a thread that comes late must not keep arrays alive
        if self.error is not None:
            raise self.error
        return self.results


_thread, _QUEUE, _STARTED = threading.local(), SimpleQueue(), []


def _helpers(count):
    """`count`, after so many threads that take from the queue are there."""
    while len(_STARTED) < count:
        _STARTED.append(threading.Thread(target=_help, name=f"zfcore-{len(_STARTED)}", daemon=True))
        _STARTED[-1].start()
    return count


def _help():
    BLAS.on_this_thread()
    while True:
        _QUEUE.get().take()


class _OneThread:
    """Let BLAS compute every product on the thread that asks for it while any thread is inside. (`threadpoolctl.limit` undoes,
    when the first of several leaves, what the others still need, and costs as much as a small operation.)"""

    def __init__(self):
        self.lock, self.inside, self.before = threading.Lock(), 0, []

    @functools.cached_property
    def libraries(self):
        return ThreadpoolController().select(user_api="blas").lib_controllers

    def __enter__(self):
        with self.lock:
            counts = [library.get_num_threads() for library in self.libraries]
            if not self.inside:
                self.before = counts
            self.inside += 1
            self._set([1]*len(counts), counts)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self._set(self.before, [1]*len(self.before))

    def _set(self, counts, before):
        for library, threads, had in zip(self.libraries, counts, before):
            if threads == had:                             # as where a user lets BLAS have one, and in ranks
                continue
            if hasattr(library, "clear_controlling_thread"):               # else only the thread that was first can set it
                library.clear_controlling_thread(force=True)
            library.set_num_threads(threads)

    def on_this_thread(self):
        """Let BLAS use this thread alone: for good, where it counts for each thread by itself, as with OpenMP."""
        for library in self.libraries:
            if getattr(library, "threading_layer", None) == "openmp":
                library.set_num_threads(1)


BLAS = _OneThread()


def arithmetic() -> dict[str, str]:
    """{what: in words}: the code that NumPy and BLAS have chosen for this CPU, on which the bits of its products and powers
    depend."""
    facts = [library.info() for library in BLAS.libraries]
    blas = [" ".join(str(of[name]) for name in ("internal_api", "version", "architecture") if of.get(name)) for of in facts]
    vectors = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    return {"BLAS": ", ".join(sorted(blas)) or "none", "NumPy's vector code": ", ".join(vectors) or "none"}


# ------------------------------------------------------------------------------------------------------------ blocks
def slabs(x, nbytes=2**19):
    """Slices that cut axis 0 of `x` into slabs of about `nbytes`, the blocks of an elementwise operation; a single number,
    which has no axis, is one."""
    if not x.ndim:
        return [...]
    step = max(1, nbytes*len(x)//max(x.nbytes, 1))
    return [slice(k, k + step) for k in range(0, len(x), step)]


def pieces(length, most):
    """0:length cut into the fewest slices of at most `most`, as equal as can be."""
    count = -(-length//max(1, most))
    return [slice(k*length//count, (k + 1)*length//count) for k in range(count)]


def rectangles(height, width, most, least=8):
    """(rows, columns) slices that cut height x width into rectangles of at most `most` places: whole rows, or a part
    of one row. There are about `least` or more where there is enough to cut, so that no core waits long for others."""
    most = max(1, min(most, height*width//least))
    return [(r, c) for r in pieces(height, most//max(1, width)) for c in pieces(width, most)]


def map_blocks(C, rows, nbytes, budget=2**22):
    """(maps, rows) slices that cut C maps of `rows` rows of `nbytes` into blocks of about `budget` bytes: several
    maps, or part of one. Larger blocks leave the last cache; smaller ones pay more for Python than for arithmetic."""
    tall = max(budget//max(nbytes, 1), 1)
    return list(product(pieces(C, max(tall//rows, 1)), pieces(rows, tall)))
