"""What every test has: a cache of drawn pictures and mean images that one run of pytest shares, and not the user's. Which
tests a run is made of: `-m "not slow"` leaves out what takes long, and only `--all` adds the cases that prove nothing new."""
import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

from tests.slow import marked, of_a_file

# Read when NumPy and PyTorch are imported, here and in what tests start: for the small products of tests the threads of BLAS
# cost more than they bring, a third of a training.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# So do those of zfcore, where several workers share the cores: a twelfth of all that is not the executor's. Each operation's
# own tests give it several.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("ZFCORE_CORES", "1")
STARTED = str(Path(__file__).with_name("started"))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:       # the workers of one run, too
        root = root.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(root/"cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _bars():
    """The lock of all bars is one of this process: a fork that is killed while it draws would keep for ever the one that tqdm
    has for several."""
    tqdm.set_lock(threading.RLock())


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory):
    """Where Python is told to keep no compiled modules, each process that a test starts would compile all of zfcore, half of
    its CPU time: they keep them in a folder of this run."""
    root = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root)/"compiled"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _started():
    """What processes that tests start leave out, tests/started/sitecustomize.py says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [STARTED, os.environ.get("PYTHONPATH")])))
        yield


@pytest.fixture(scope="session", autouse=True)
def _unhurried():
    """How far something is, is told every so many seconds of the whole run, and so in any test. A sentence on standard error is
    one line."""
    from zfcore import terminal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "TELL_EVERY", 1e9)
        patch.setattr(terminal, "_width", lambda: 1_000_000)
        yield


@pytest.fixture(scope="session", autouse=True)
def _unflushed():
    """No test's files outlive a power cut. A disk that refuses to flush, or a kill at that moment, is a test's own
    monkeypatch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)               # which refuses a descriptor that is closed, too
        yield


@pytest.fixture(autouse=True)
def undrawn(request):
    """A run draws its curves and filters, which takes longer than a short training, where the test is marked `figures`, and so
    do those that it starts. What undoes a test's own monkeypatch leaves this as it is."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("figures"):
            patch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].removeprefix(STARTED).removeprefix(os.pathsep))
        elif "zfcore.training" in sys.modules:
            patch.setattr(sys.modules["zfcore.training"].Training, "draw", lambda training: None)
        yield


@pytest.fixture
def gpu():
    """A GPU, by the front door: a real one, or in `python -m tests.standin` the stand-in."""
    from zfcore.check import Expected
    from zfcore.device import select
    try:
        return select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")


@pytest.fixture
def standin(gpu):
    """The stand-in's driver, by ctypes: no real GPU says when something is done, or does it as late as it may."""
    from tests import standin
    if standin.library is None:
        pytest.skip("a real GPU is not asked so much")
    return standin.library


def pytest_runtest_logreport(report):
    """Where $ZFCORE_TELL_FAILURES is set, why a test failed is told at once: a run that is stopped would not come to it."""
    if report.failed and os.environ.get("ZFCORE_TELL_FAILURES"):
        print(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}", flush=True)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="with the cases marked exhaustive, which others cover")


def pytest_configure(config):
    # pytest-xdist hands out files in the order below, not those of most tests first
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers():
    """`-n auto` is one worker more than cores: a tenth of the time tests wait, for processes and for what must not come."""
    return (yield) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported and collected stays, so that looking for what may go would look through it in vain, a third of the
    time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in marked(items):
        item.add_marker(pytest.mark.slow)
    if not config.getoption("all"):
        left_out = {item: None for item in items if item.get_closest_marker("exhaustive")}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    if hasattr(config, "workerinput"):                     # the longest files first, so that all cores are busy until the end
        seconds = of_a_file()
        items.sort(key=lambda item: -seconds.get(item.nodeid.split("::")[0], 0))
