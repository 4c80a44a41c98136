"""Machines that have little: a command does its work there, or says in one sentence what it lacks."""
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.conftest import write_set
from zfcore.__main__ import main

resource = pytest.importorskip("resource", reason="this system sets no limits")
ROOT = Path(__file__).parents[1]
WORK = "top-activations", "--run", "drawn", "--layers", "conv1", "--units", "0:2", "--workers", "0", "--k", "2", "--data"


def run(folder, limits=(), **environment):
    """(exit status, lines of standard error) of a command with these limits [(which, number)]."""
    data = write_set(folder/"set", (1, 3), (110, 120))

    def lower():
        for which, number in limits:
            resource.setrlimit(which, (number, number))
    done = subprocess.run([sys.executable, "-m", "zfcore", *WORK, data, "--output", folder/"out"], preexec_fn=lower,
                          capture_output=True, text=True,
                          cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(folder), **environment},
                          timeout=120)
    return done.returncode, done.stderr.strip().splitlines()


@pytest.mark.exhaustive                                # tests/test_terminal.py has them in odder surroundings
@pytest.mark.parametrize("limits, environment", [([(resource.RLIMIT_NOFILE, 32)], {}),
                                                 ([], {"HOME": "/dev/null/none", "XDG_CACHE_HOME": "",
                                                                                            "ZFCORE_CACHE": ""})],
                         ids=["files", "home"])
def test_few_files_and_no_home_are_enough(tmp_path, limits, environment):
    status, said = run(tmp_path, limits, **environment)
    assert status == 0 and (tmp_path/"out"/"conv1.png").is_file() and "Traceback" not in "".join(said)


# A command that has so many bytes beside what loading it took: what Python itself finds no room for is not zfcore's to tell.
NARROW = """import resource, sys
import numpy as np
from zfcore.__main__ import main
np.ones((300, 300)) @ np.ones((300, 300))                  # OpenBLAS has its buffer
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, [pages*resource.getpagesize() + int(sys.argv.pop(1))]*2)
main()"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc tells how much memory a process has")
@pytest.mark.parametrize("more", [2**23, 2**26])
def test_too_little_memory_is_one_sentence(tmp_path, more):
    data = write_set(tmp_path/"set", (1, 3), (110, 120))
    done = subprocess.run([sys.executable, "-c", NARROW, str(more), *WORK, data, "--output", tmp_path/"out"], capture_output=True,
                          text=True, cwd=tmp_path, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path), "OPENBLAS_NUM_THREADS": "1",
                               "ZFCORE_CORES": "2"})
    status, said = done.returncode, done.stderr.strip().splitlines()
    assert "Traceback" not in "".join(said)
    # it ends the process itself, by exit or by a fault, when its own buffer is the one too many
    if "OpenBLAS error: Memory" in "".join(said):
        assert status != 0
    else:
        assert status == 2 and re.search("^error: .*memory", "\n".join(said), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("what", ["mkdir", "open"])
def test_a_read_only_disk_is_one_sentence(tmp_path, capsys, monkeypatch, what):
    data = write_set(tmp_path/"set", (1, 3), (110, 120))

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))
    sound = os.open
    if what == "mkdir":
        monkeypatch.setattr(os, "mkdir", refuse)
    else:
        monkeypatch.setattr(os, "open", lambda path, flags, *more, **how: refuse(path) if flags & (os.O_WRONLY | os.O_RDWR)
                            else sound(path, flags, *more, **how))
    with pytest.raises(SystemExit) as left:
        main([*WORK, str(data), "--device", "cpu", "--output", str(tmp_path/"out")])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert left.value.code == 2 and said.startswith("error: ") and "Read-only file system" in said
