"""Ranks that mpiexec starts: the same program as over TCP, the same ends. Where mpi4py, or the mpiexec beside this Python, is missing these tests are skipped."""
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ranks.test_sockets import NAMES
from zfcore.ranks import LOST

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
if MPIEXEC is None:
    pytest.skip("there is no mpiexec", allow_module_level=True)
OPEN = "Open MPI" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(size, *words, program="tests.ranks.program", **environment):
    return subprocess.run([MPIEXEC, "-n", str(size), *(["--oversubscribe"] if OPEN else []), sys.executable, "-m", program, *map(str, words)],
                          capture_output=True, text=True, timeout=60, env={**os.environ, **AS_ROOT, **environment})


@pytest.mark.parametrize("size, most", [(2, [131_071, 0, 1]), (3, [7, 20_011])])
def test_what_is_sent_arrives(size, most):
    done = run(size, "moves", *most)
    assert done.returncode == 0 and len(set(done.stdout.split())) == 1 and len(done.stdout.split()) == size


@pytest.mark.parametrize("how, statuses, sentence", [
    ("expected", [2], "--data: expected a folder"), ("killed", [LOST, 137, 9], "expected at work until all are done"),
    ("sleeps", [LOST], ".*standstill"), ("leaves", [LOST], ".*got one that left")])
def test_one_that_fails_ends_all_with_one_sentence_that_names_it(how, statuses, sentence):
    begun, done = time.monotonic(), run(3, how, PATIENCE="3")
    assert time.monotonic() - begun < 30 and done.returncode in statuses and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert len(re.findall("error: rank", said)) == 1 and re.search("error: " + NAMES + sentence, said)
