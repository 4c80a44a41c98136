"""Ranks that mpiexec starts: the same program as over TCP, the same ends. Where mpi4py, or the mpiexec beside this Python, is
missing these tests are skipped."""
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


FAILS = {"expected": ([2], "--data: expected a folder"), "killed": ([LOST, 137, 9], "expected at work until all are done"),
         "sleeps": ([LOST], ".*standstill"), "leaves": ([LOST], ".*got one that left")}
MOVES = {"2": ["131071", "0", "1"], "3": ["7", "20011"]}


@pytest.fixture(scope="module")
def ended():
    """(status, output, errors, seconds) of what mpiexec has started, all of it at once."""
    jobs = {**{size: (size, "moves", *most) for size, most in MOVES.items()}, **{how: ("3", how) for how in FAILS}}
    program = [*(["--oversubscribe"] if OPEN else []), sys.executable, "-m", "tests.ranks.program"]
    begun, environment = time.monotonic(), {**os.environ, **AS_ROOT, "STALLED": "2", "GRACE": "3"}
    processes = {job: subprocess.Popen([MPIEXEC, "-n", size, *program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, env=environment) for job, (size, *words) in jobs.items()}
    try:
        said = {job: process.communicate(timeout=60) for job, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    return {job: (process.returncode, *said[job], time.monotonic() - begun) for job, process in processes.items()}


@pytest.mark.parametrize("size", MOVES)
def test_what_is_sent_arrives(size, ended):
    status, out, _, _ = ended[size]
    assert status == 0 and len(set(out.split())) == 1 and len(out.split()) == int(size)


@pytest.mark.parametrize("how", FAILS)
def test_one_that_fails_ends_all_with_one_sentence_that_names_it(how, ended):
    (statuses, sentence), (status, _, errors, seconds) = FAILS[how], ended[how]
    assert seconds < 30 and status in statuses and "Traceback" not in errors
    said = " ".join(errors.split())
    assert len(re.findall("error: rank", said)) == 1 and re.search("error: " + NAMES + sentence, said)
