"""python -m tests.standin PYTEST ARGUMENTS: pytest in a process whose GPU is the stand-in. A test that ends while device memory is in
use has failed."""
import gc
import sys

import pytest

from tests import standin
from tests.standin import build


class Watch:
    """What is looked at around each test."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self):
        import cupy
        yield
        for collect in (lambda: None, gc.collect):            # it takes longer than many a test
            collect()
            standin.library.cudaDeviceSynchronize()
            cupy.get_default_memory_pool().free_all_blocks()
            if not (left := standin.library.standin_live()):
                break
        else:
            pytest.fail(f"{left} bytes of device memory are still in use after the test", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        from tests.standin import kernels
        report = yield
        if report.failed and kernels.failures:
            report.sections.append(("what went wrong below the driver", "\n".join(map(repr, kernels.failures))))
        kernels.failures.clear()
        return report


def main():
    try:
        standin.enter()
    except build.Missing as missing:
        sys.exit(f"the stand-in for a GPU needs {missing}")
    return pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Watch()])


sys.exit(main())
