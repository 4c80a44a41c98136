"""A GPU, by the front door: a real one, or the stand-in (`python -m tests.standin tests/gpu`). Without one these tests are skipped by
name, and tests/standin/test_standin.py runs them on the stand-in."""
import pytest

from tests import standin as module
from zfcore.check import Expected
from zfcore.device import select


@pytest.fixture
def gpu():
    try:
        return select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")


@pytest.fixture
def standin(gpu):
    """The stand-in's driver, by ctypes: no real GPU says when something is done, or does it late."""
    if module.library is None:
        pytest.skip("a real GPU is never as late as the stand-in")
    return module.library
