"""A GPU, by the front door: a real one, or the stand-in (`python -m tests.standin tests/gpu`). Without one these tests are skipped by
name, and tests/standin/test_standin.py runs them on the stand-in."""
import sys

import pytest

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
    """The stand-in's driver, by ctypes; what asks it when something is done, no real GPU can answer."""
    module = sys.modules.get("tests.standin")
    if module is None:
        pytest.skip("the stand-in for a GPU is asked")
    return module.enter()
