"""Floor 0: the cores of the CPU. An operation's NumPy form cuts its arrays into blocks, and `parallel` spreads them."""
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from threadpoolctl import ThreadpoolController

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@functools.cache
def _pool():
    return ThreadPoolExecutor(CORES, thread_name_prefix="zfcore")


@functools.cache
def blas():
    """The controller of the thread pools that NumPy's BLAS has."""
    return ThreadpoolController()


def parallel(work, items):
    """`[work(item) for item in items]`, the items spread over the cores, BLAS on one thread each.

    The items are the blocks an operation is cut into. They are cut the same way whatever the number of cores, and no
    matrix product is ever split between threads, so a result has the same bits on any number of cores. NumPy releases
    Python's lock inside copies, elementwise loops and matmul, which is where the time goes."""
    items = list(items)
    with blas().limit(limits=1, user_api="blas"):
        if CORES == 1 or len(items) == 1 or threading.current_thread().name.startswith("zfcore"):
            return [work(item) for item in items]
        return list(_pool().map(work, items))


# ------------------------------------------------------------------------------------------------------------ blocks
def slabs(x, nbytes=2**19):
    """Slices that cut axis 0 of `x` into slabs of about `nbytes`, the blocks of an elementwise operation."""
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
