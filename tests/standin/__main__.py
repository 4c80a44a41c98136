"""python -m tests.standin PYTEST ARGUMENTS: pytest in a process whose GPU is the stand-in. After each test no device memory may be
in use but what the test's file or session keeps in a fixture: all is freed when the run is over."""
import gc
import sys

import pytest

from tests import standin
from tests.standin import build


class Memory:
    """Device memory is given back: that of a test when it ends, counted when no fixture of wider scope has been made by it."""

    def __init__(self, library):
        self.library = library

    def live(self):
        import cupy
        gc.collect()
        self.library.cudaDeviceSynchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        return self.library.standin_live()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        from tests.standin import kernels
        del kernels.failures[:]
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item, nextitem):
        yield
        left = self.live()
        if left and not item.get_closest_marker("keeps_memory"):
            pytest.fail(f"{left} bytes of device memory are still in use after the test", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        from tests.standin import kernels
        if report.failed and kernels.failures:
            report.sections.append(("what went wrong below the driver", "\n".join(map(repr, kernels.failures))))
        return report


def main():
    try:
        standin.enter()
    except build.Missing as missing:
        sys.exit(f"the stand-in needs {missing}")
    return pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Memory(standin.library)])


sys.exit(main())
