"""python -m tests.standin PYTEST ARGUMENTS: pytest in a process whose GPU is the stand-in. A test that ends while device memory
is in use has failed."""
import gc
import sys

import pytest

from tests import standin
from tests.standin import build


class Watch:
    """What is looked at around each test, and which are run: of the kernels, whose numbers in all sizes the executor shows, one
    case of each function in each precision, as CuPy hands all sizes on alike."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        seen, kept = set(), []
        for item in items:
            given = item.callspec.params if hasattr(item, "callspec") else {}
            case = item.nodeid.split("[")[0], *(str(given.get(word)) for word in ("precision", "dtype", "operation"))
            if item.nodeid.startswith("tests/kernels/") and case in seen and not config.getoption("all"):
                continue
            if given.get("machine") in (None, "gpu"):
                seen.add(case)
            kept.append(item)
        items[:] = kept

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
