"""bench/on_gpu.sh with a `python3` that only notes what it is asked: every step runs whatever became of the one before."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2]/"bench"/"on_gpu.sh"
NUMBERS = "1234567"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None or shutil.which("timeout") is None,
                                reason="needs bash and timeout")


def run(tmp_path, number, broken="", **environment):
    """(the finished process, {name: text} of what it left): a table of epochs, too, where it was asked to train."""
    (tmp_path/"bin").mkdir(exist_ok=True)
    for name in ("python", "ncu", "compute-sanitizer"):
        (tmp_path/"bin"/name).write_text(
            f'#!/bin/sh\necho "asked: $*"\ncase "$*" in {broken or "nothing"}) exit 3;; esac\n'
            'while [ $# != 0 ]; do if [ "$1" = --output ]; then mkdir -p "$2"; echo epoch > "$2/log.csv"; fi; shift; done\n')
        (tmp_path/"bin"/name).chmod(0o755)
    done = subprocess.run(["bash", SCRIPT, number], capture_output=True, text=True, cwd=tmp_path, timeout=60,
                          env={**os.environ, "ZFCORE_DATA": "/pictures", "OUT": str(tmp_path/"out"), **environment,
                               "PYTHON": str(tmp_path/"bin"/"python"), "PATH": f"{tmp_path/'bin'}:{os.environ['PATH']}"})
    return done, {path.name: path.read_text() for path in (tmp_path/"out").glob("*.*")}


@pytest.mark.parametrize("number, steps, asked", [
    ("1", ["probe", "conv2d_wgmma", "conv2d_maxpool", "tests", "synthetic"],
     ["-m tests.executor.probe gpu", "tests/kernels/test_conv2d_wgmma.py -k gpu", "tests/kernels/test_conv2d_maxpool.py -k gpu",
      "-k test_graph or gpu and not conv2d", "-m train --device gpu"]),
    ("2", ["ceilings", "tune"], ["/ceilings --only ceilings", "-m bench tune"]),
    ("3", ["step"], ["--only training step --precisions bf16 tf32"]),
    ("4", ["conv4", "conv2"], ["--only  conv4 ", "--only  conv2 "]),
    ("5", ["ncu", "memcheck", "racecheck"], ["--kernel-name conv2d_forward", "--tool memcheck", "--tool racecheck"]),
    ("6", ["tests", "bench"], ["-k gpu and conv2d", "-m bench --output"]),
    ("7", ["bf16", "fp32"], ["--data /pictures --preset zfnet --image-size 224 --precision bf16", "--precision fp32"])])
def test_every_step_leaves_its_log_and_the_summary_says_that_all_passed(tmp_path, number, steps, asked):
    done, files = run(tmp_path, number)
    assert done.returncode == 0, done.stdout
    steps = ["compile", *steps]
    assert [line.split(":")[0] for line in files["summary.txt"].splitlines()] == steps
    said = re.split(r"^== (\w+): .*\n", files["log.txt"], flags=re.M)[1:]
    for step, words, name, log in zip(steps, ["-m bench compile", *asked], said[::2], said[1::2], strict=True):
        assert name == step and words in log
    assert files["summary.txt"].count("passed") == len(steps)
    trainings = {"1": ["synthetic.csv"], "7": ["bf16.csv", "fp32.csv"]}.get(number, [])
    assert sorted(name for name in files if name.endswith(".csv")) == trainings


def test_a_failed_step_does_not_stop_the_others_and_is_told_at_the_end(tmp_path):
    done, files = run(tmp_path, "1", broken='*tests/gpu*')
    assert done.returncode == 1
    assert "tests: failed, exit status 3" in files["summary.txt"] and "tests: failed" in done.stdout
    assert files["summary.txt"].count("passed") == 5 and "-m train" in files["log.txt"]


def test_a_step_that_takes_too_long_is_stopped_and_leaves_what_it_said(tmp_path):
    text = SCRIPT.read_text()
    hurried = tmp_path/"bench"/"on_gpu.sh"
    hurried.parent.mkdir()
    hurried.write_text(text.replace("measure conv4 200", "measure conv4 1"))
    slow = tmp_path/"python"
    slow.write_text('#!/bin/sh\necho "asked: $*"\ncase "$*" in *conv4*) sleep 30;; esac\n')
    slow.chmod(0o755)
    done = subprocess.run(["bash", hurried, "4", tmp_path/"out"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHON": str(slow)})
    assert done.returncode == 1 and "conv4: stopped after 1 s" in done.stdout and "conv2: passed" in done.stdout
    assert "--only  conv4 " in (tmp_path/"out"/"log.txt").read_text()


def test_where_there_is_no_gpu_nothing_is_begun(tmp_path):
    done, files = run(tmp_path, "1", broken="*select*")
    assert done.returncode == 2 and set(files) == {"summary.txt", "device.txt"}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_call_takes_less_than_nine_minutes(number):
    script = SCRIPT.read_text()
    called = re.search(rf"^{number}\)(.*?);;$", script, re.S | re.M)[1]
    limits = [int(seconds) for seconds in re.findall(r'\b(?:step|measure|trained) "?\$?\w+"? (\d+) ', called)]
    twice = [int(seconds) for loop in re.findall(r"\bfor .*?\bdone", called, re.S)
             for seconds in re.findall(r'\b(?:step|trained) "\$\w+" (\d+) ', loop)]
    common = int(re.search(r"^step compile (\d+)", script, re.M)[1])
    total = common + sum(limits + twice) + 5*len(["compile", *limits, *twice])
    assert limits and total < 540


def test_it_wants_a_number_and_a_folder(tmp_path):
    for words in ([], ["3"], ["8", tmp_path]):
        done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True,
                              env={name: value for name, value in os.environ.items() if name != "OUT"} | {"PYTHON": "true"})
        assert done.returncode != 0 and "usage: bash bench/on_gpu.sh NUMBER [OUTDIR], NUMBER from 1 to 7" in done.stderr
