"""The real CuPy on a machine without a GPU: a stand-in for the driver, on the CPU.

    python -m tests.standin tests/gpu tests/kernels -k "gpu and relu"          pytest, in a process that has the stand-in

All that pytest runs so finds a GPU by the front door, `select("gpu")`. CuPy is the installed one, but for its module `runtime`;
kernels run in the executor. It cannot be left again, so a process has it from the first import of CuPy to its end."""
import ctypes
import importlib.util
import os
import sys
from contextlib import contextmanager

from tests.executor import emu
from tests.standin import build

RUNTIME = "cupy_backends.cuda.api.runtime"
STREAMS = {"compute": 1, "copies": 2}     # that may be late: the legacy default stream, and all others
WAITS = {"compute.wait_event": 1, "copies.wait_event": 2, "event.synchronize": 4, "copies.synchronize": 8}
library = None                            # the driver, by ctypes, of a process that has the stand-in


class _Finder:
    """Finds CuPy's module `runtime` where it was built."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path) if name == RUNTIME else None


def enter():
    """Make the stand-in the driver of this process, for good. Raises build.Missing."""
    global library
    if "cupy" in sys.modules:
        raise build.Missing("a process that has not imported CuPy yet")
    driver, runtime = build.built()
    os.environ["CUPY_ACCELERATORS"] = ""                  # neither CUB nor cuTENSOR: their kernels are not CuPy's own
    os.environ["CUPY_CACHE_DIR"] = str(emu.cache_folder()/"cupy")
    library = ctypes.CDLL(str(driver), ctypes.RTLD_GLOBAL)      # dlopen finds it by its name from now on
    library.standin_live.restype = ctypes.c_size_t
    library.standin_memory.argtypes = [ctypes.c_size_t]
    sys.meta_path.insert(0, _Finder(str(runtime)))
    from tests.standin import kernels
    kernels.enter(library)


@contextmanager
def late(*streams, deaf=None):
    """What is issued on these `STREAMS` inside is done when somebody waits for it, and not before; of `WAITS`, `deaf` does
    nothing."""
    library.standin_late(sum(STREAMS[name] for name in streams))
    library.standin_deaf(WAITS.get(deaf, 0))
    try:
        yield library
    finally:
        library.standin_deaf(0)
        library.standin_late(0)
        library.cudaDeviceSynchronize()
