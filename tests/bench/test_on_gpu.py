"""bench/on_gpu.sh with a `python3` that only notes what it is asked: every step runs whatever became of the one before."""
import os
import re
import shutil
import subprocess
import sys
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
                          env={**os.environ, "ZFCORE_DATA": "/pictures", "OUT": str(tmp_path/"out"),
                               "XDG_CACHE_HOME": str(tmp_path/"cache"), **environment,
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
    heading, *verdicts = files["summary.txt"].splitlines()
    assert heading.startswith(f"== call {number}, ") and [line.split(":")[0] for line in verdicts] == steps
    assert [line for line in files["log.txt"].splitlines() if line in (heading, *verdicts)] == [heading, *verdicts]
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


def test_calls_into_one_folder_leave_what_each_has_said(tmp_path):
    run(tmp_path, "2", broken="*tune*")
    done, files = run(tmp_path, "3")
    assert done.returncode == 0 and done.stdout.splitlines()[-3].startswith("== call 3")
    assert [line.split(",")[0].split(":")[0] for line in files["summary.txt"].splitlines()] == [
        "== call 2", "compile", "ceilings", "tune", "== call 3", "compile", "step"]
    assert "tune: failed, exit status 3" in files["log.txt"] and "asked: -m bench tune" in files["log.txt"]


def test_a_table_that_call_2_has_left_is_where_zfcore_looks_before_a_bare_machine_compiles_and_no_other_file_is(tmp_path):
    cache = tmp_path/"cache"/"zfcore"/"kernels"
    cache.mkdir(parents=True)
    (cache/"nvidia-test.json").write_text('{"device": "NVIDIA Test", "choices": {}}')
    _, files = run(tmp_path, "2")
    assert files["nvidia-test.json"] == (cache/"nvidia-test.json").read_text()
    (tmp_path/"out"/"other.json").write_text("{}")
    bare = tmp_path/"bare"/"zfcore"/"kernels"
    seen = tmp_path/"seen"
    seen.write_text(f'#!/bin/sh\ncase "$*" in *compile*) ls {bare} > {tmp_path}/there;; esac\n')
    seen.chmod(0o755)
    for there in (files["nvidia-test.json"], "{}"):        # brought; and what the machine itself has found since
        subprocess.run(["bash", SCRIPT, "3"], check=True, capture_output=True,
                       env={**os.environ, "OUT": str(tmp_path/"out"), "XDG_CACHE_HOME": str(tmp_path/"bare"), "PYTHON": str(seen)})
        assert (tmp_path/"there").read_text() == "nvidia-test.json\n"
        assert (bare/"nvidia-test.json").read_text() == there
        (bare/"nvidia-test.json").write_text("{}")


def test_tests_are_named_as_they_begin_and_what_failed_is_told_though_a_later_one_hangs(tmp_path):
    (tmp_path/"conftest.py").write_text("from tests.conftest import pytest_runtest_logreport\n")
    (tmp_path/"test_it.py").write_text("import time\ndef test_fails():\n    assert 'this' == 'that'\n"
                                       "def test_passes(): pass\ndef test_hangs():\n    time.sleep(60)\n")
    asked = re.search(r'^pytest=\("\$python" (.*)\)', SCRIPT.read_text(), re.M)[1].split()
    variable = re.search(r"^export .*?(\w*FAILURES)=1", SCRIPT.read_text(), re.M)[1]
    with subprocess.Popen([sys.executable, *asked, "-q", "--rootdir", tmp_path, tmp_path], stdout=subprocess.PIPE, text=True,
                          cwd=SCRIPT.parents[1], env={**os.environ, "PYTHONUNBUFFERED": "1", variable: "1"}) as process:
        said = ""
        while "test_hangs" not in said and (text := process.stdout.read(1)):
            said += text
        process.kill()
    assert "test_it.py::test_fails FAILED" in said and "assert 'this' == 'that'" in said.split("test_passes")[0]


def test_every_run_of_tests_and_of_ncu_is_one_that_may_be_stopped(tmp_path):
    for number in NUMBERS:
        run(tmp_path, number)
    asked = [line for line in (tmp_path/"out"/"log.txt").read_text().splitlines() if line.startswith("asked")]
    tests, (ncu,) = ([line for line in asked if word in line] for word in (" pytest ", "--launch-count 1 "))
    assert len(tests) == 6 and all(" -vv " in line for line in tests) and "--kill yes" in ncu and "--force-overwrite" in ncu


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
    assert done.returncode == 2 and set(files) == {"summary.txt", "log.txt"} and "step" not in files["log.txt"]
    assert len(files["log.txt"].splitlines()) == 1 and files["log.txt"] == files["summary.txt"]


def seconds_of(number):
    """The most seconds that a call takes, by the limits of its steps and the time that each has to end."""
    script = SCRIPT.read_text()
    called = re.search(rf"^{number}\)(.*?);;$", script, re.S | re.M)[1]
    limits = [int(seconds) for seconds in re.findall(r'\b(?:step|measure|trained) "?\$?\w+"? (\d+) ', called)]
    twice = [int(seconds) for loop in re.findall(r"\bfor .*?\bdone", called, re.S)
             for seconds in re.findall(r'\b(?:step|trained) "\$\w+" (\d+) ', loop)]
    common = int(re.search(r"^step compile (\d+)", script, re.M)[1])
    return common + sum(limits + twice) + 5*len(["compile", *limits, *twice])


@pytest.mark.parametrize("number", NUMBERS)
def test_a_call_takes_less_than_nine_minutes(number):
    assert 105 < seconds_of(number) < 540


def test_the_head_says_what_the_calls_take_together():
    all_seven, first_four, first_three = (-(-sum(map(seconds_of, NUMBERS[:count]))//60) for count in (7, 4, 3))
    assert (f"All seven take {all_seven} minutes at most, 1 to 4 take {first_four} and 1 to 3 take {first_three}: who has 30 minutes "
            f"leaves out 4 to 7.") in SCRIPT.read_text() and first_three < 30 < first_four


def test_it_wants_a_number_and_a_folder(tmp_path):
    for words in ([], ["3"], ["8", tmp_path]):
        done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True,
                              env={name: value for name, value in os.environ.items() if name != "OUT"} | {"PYTHON": "true"})
        assert done.returncode != 0 and "usage: bash bench/on_gpu.sh NUMBER [OUTDIR], NUMBER from 1 to 7" in done.stderr
