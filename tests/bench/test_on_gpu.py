"""bench/on_gpu.sh with a `python3` that only notes what it is asked: every step runs whatever became of the one before."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2]/"bench"/"on_gpu.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash and timeout")


def run(tmp_path, broken="", **environment):
    stand_in = tmp_path/"python"
    stand_in.write_text(f'#!/bin/sh\necho "asked: $*"\ncase "$*" in {broken or "nothing"}) exit 3;; esac\n')
    stand_in.chmod(0o755)
    done = subprocess.run(["bash", SCRIPT, tmp_path/"out"], capture_output=True, text=True, cwd=tmp_path, timeout=60,
                          env={**os.environ, "ZFCORE_DATA": "", **environment, "PYTHON": str(stand_in)})
    return done, {path.name: path.read_text() for path in (tmp_path/"out").iterdir()}


def test_every_step_leaves_its_log_and_the_summary_says_that_all_passed(tmp_path):
    done, files = run(tmp_path)
    assert done.returncode == 0
    assert set(files) == {"probe.log", "tests.log", "bench.log", "train.log", "summary.txt"}
    assert "-m tests.executor.probe gpu " in files["probe.log"] and "hardware.npz" in files["probe.log"]
    assert "-m pytest tests/kernels tests/train/test_graph.py tests/gpu -k gpu or test_graph" in files["tests.log"] and "-m bench --output" in files["bench.log"]
    assert "-m train --device gpu" in files["train.log"] and files["summary.txt"].count("passed") == 4


def test_a_failed_step_does_not_stop_the_others_and_is_told_at_the_end(tmp_path):
    done, files = run(tmp_path, broken='*tests/kernels*', ZFCORE_DATA="/pictures")
    assert done.returncode == 1
    assert "tests: failed, exit status 3" in files["summary.txt"] and "tests: failed" in done.stdout
    assert files["summary.txt"].count("passed") == 4 and "--data /pictures" in files["pictures.log"]
    assert len(files) + 2 <= 8, "with hardware.npz and the JSON file no more than eight"


def test_where_there_is_no_gpu_nothing_is_begun(tmp_path):
    done, files = run(tmp_path, broken="*select*")
    assert done.returncode == 2 and set(files) == {"summary.txt"}


def test_all_steps_together_take_less_than_ten_minutes():
    lines = [line.split() for line in SCRIPT.read_text().splitlines() if line.strip().startswith("step ")]
    assert len(lines) == 5 and sum(int(line[2]) + 5 for line in lines) < 600


def test_it_wants_a_folder():
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert done.returncode != 0 and "usage: bash bench/on_gpu.sh OUTDIR" in done.stderr
