"""The real CuPy without a GPU: the tests that need one, in a process of their own whose GPU is the stand-in. Where a GPU is,
they run on it by themselves. What the stand-in needs and does not find, its tests are skipped by."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import standin
from tests.standin import build

ROOT = Path(__file__).parents[2]
# Of test_conv2d.py all cases would take a minute more, and arrays of more than 2^31 elements the host's memory.
PARTS = {
    "the driver, streams": ["tests/gpu/test_driver.py", "tests/gpu/test_streams.py"],                # a first look: seconds
    "graphs": ["tests/train/test_graph.py", "tests/train/test_beside.py",
               "tests/train/test_batch_norm.py::test_a_recorded_step_moves_the_statistics_as_an_eager_one_does",
               "tests/bench/test_step.py::test_ours_is_one_replay_a_step_and_its_launches_are_counted"],
    "analyses, training, kernels": ["tests/gpu", "--ignore=tests/gpu/test_driver.py", "--ignore=tests/gpu/test_streams.py",
                                    "tests/kernels",
                                    "-k", "gpu and not two_to_the_31 and (not test_conv2d.py or conv2d_and_its)"],
}


@pytest.fixture(scope="module", autouse=True)
def built():
    if standin.library is not None:
        pytest.skip("this is the process of the stand-in")
    try:
        return build.built()
    except build.Missing as missing:
        pytest.skip(f"the stand-in for a GPU needs {missing}")


@pytest.mark.parametrize("part", PARTS)
def test_on_the_stand_in(part):
    outcome = subprocess.run([sys.executable, "-m", "tests.standin", *PARTS[part], "--tb=short"], cwd=ROOT, capture_output=True,
                             text=True, env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")})
    assert outcome.returncode == 0, outcome.stdout[-20_000:] + outcome.stderr[-2000:]
    assert " passed" in outcome.stdout and " skipped" not in outcome.stdout, outcome.stdout[-2000:]
