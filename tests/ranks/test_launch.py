"""--devices N: the bits are those of one process, through signals and kills; bad input is one sentence; nobody outlives the
launcher."""
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.train.conftest import short, write_set
from train import launch
from train.__main__ import main
from zfcore import gpu
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.ranks import LOST
from zfcore.training import Training


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr(Training, "draw", lambda training: None)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    return write_set(tmp_path/"pictures", (3, 1))


def options(pictures, epochs):
    """What makes a run short, whose batches are of 3 leaves, one of them smaller, and the last one of a single picture."""
    return [*short(pictures), "--micro-batch", "3", "--epochs", str(epochs), "--keep-epochs"]


def train(*words, **how):
    return subprocess.Popen([sys.executable, "-m", "train", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, **how)


def until_said(process, words):
    """Read what it says until it says `words`."""
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, said
        said += line


def ranks_of(process):
    """{rank: process id} of those that a launcher has started."""
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            variables = dict(one.split("=", 1) for one in open(f"/proc/{pid}/environ").read().split("\0") if "=" in one)
        except OSError:
            continue
        if variables.get("ZFCORE_LAUNCHER") == str(process.pid):
            found[int(variables["RANK"])] = int(pid)
    return found


def same(one, other):
    """Whether two runs have the same weights and velocities, bit for bit."""
    a, b = load(one/"latest.h5"), load(other/"latest.h5")
    assert (a.step, a.epoch) == (b.step, b.epoch)
    return all(np.array_equal(array, getattr(b, of)[layer][key]) for of in ("parameters", "velocity")
               for layer, arrays in getattr(a, of).items() for key, array in arrays.items())


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found in /proc")


@linux
def test_a_run_that_is_stopped_by_one_rank_and_goes_on_with_others_of_which_one_is_killed_has_the_bits_of_one_process(pictures, tmp_path):
    typed = options(pictures, 5)
    several = train(*typed, "--output", tmp_path/"several", "--devices", 2)
    until_said(several, "epoch   1/5")
    os.kill(ranks_of(several)[1], signal.SIGTERM)
    said, _ = several.communicate(timeout=300)
    assert several.returncode == 143 and "stopped and saved after epoch" in said and f"--resume {tmp_path/'several'} --devices 2" in " ".join(said.split())
    assert said.count("stopped and saved") == 1 and "error: " not in said
    again = train("--resume", tmp_path/"several", "--devices", 3, "--restarts", 1)
    until_said(again, "\nepoch ")
    os.kill(ranks_of(again)[0], signal.SIGKILL)
    until_said(again, "going on with 2 processes, restart 1 of 1")
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "epoch   5/5" in said
    assert f"python -m train --resume {tmp_path/'several'} --epochs 15 --devices 2" in " ".join(said.split())
    main([*typed, "--output", str(tmp_path/"one")])
    assert same(tmp_path/"several", tmp_path/"one")


@linux
def test_ctrl_c_at_the_launcher_stops_all_saved_and_its_death_ends_all(pictures, tmp_path):
    process = train(*options(pictures, 1000), "--output", tmp_path/"run", "--devices", 2)
    until_said(process, "epoch   1/1000")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and "stopped and saved" in said and not ranks_of(process)
    process = train("--resume", tmp_path/"run", "--devices", 2, stdin=subprocess.DEVNULL)
    until_said(process, "ranks share")
    ranks = ranks_of(process)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while ranks_of(process) and time.monotonic() < until:
        time.sleep(0.1)
    assert not ranks_of(process)
    said = " ".join(process.stdout.read().split())
    assert said.count("error: ") == 1 and "got the end of the process that started it" in said


def program(monkeypatch, *sources):
    """Let the launcher start these programs as its ranks instead of trainings, the last one for all further ones."""
    real = subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen",
                        lambda command, env, **how: real([sys.executable, "-c",
                                                          sources[min(int(env["RANK"]), len(sources) - 1)]],
                                                                                      env=env, **how))


def test_what_one_rank_alone_is_warned_of_is_told_with_its_name_and_what_several_are_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    for name in ("these", "those"):
        write_set(tmp_path/name, (3, 1))
        (tmp_path/name/f"{name} too").mkdir()              # beside the parts
    typed = [[*options(tmp_path/name, 1), "--output", str(tmp_path/"run")] for name in ("these", "those", "those")]
    begin = ("from train.__main__ import main; from zfcore.training import Training; "
             "Training.draw = lambda self: None; main({!r})")
    program(monkeypatch, *map(begin.format, typed))
    with launch.Job([], [None]*3) as job:
        job.wait()
    assert job.status() == 0
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("left alone: 'these too'") == said.count("left alone: 'those too'") == 1
    assert re.search(r"rank 1 \([^)]+, CPU\): \S+those: folders beside", said) and "rank 2" not in said


VALIDATES = """
import os, sys, time
from pathlib import Path
from train.__main__ import main
from zfcore.training import evaluation
def slowly(*batch, answers=evaluation.row_of_answers):
    row, begun = answers(*batch), Path({begun!r}, os.environ["RANK"])
    if begun.exists():           # its second batch
        begun.with_suffix(".second").touch()
        time.sleep(1)            # in which the signal comes
    begun.touch()
    return row
evaluation.row_of_answers = slowly
main({typed!r})
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """What is typed for a run with 5 batches to judge, of which ranks take turns; the folder of one that nothing stopped."""
    root = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(root/"cache"))
        patch.setattr(Training, "draw", lambda training: None)
        typed = options(write_set(root/"pictures", (3, 5)), 2)
        main([*typed, "--output", str(root/"one")])
    return typed, root/"one"


@linux
@pytest.mark.parametrize("whom", [(1,), (0, 1)], ids=["one rank", "both"])
def test_a_stop_in_the_middle_of_validation_ends_all_saved_and_the_run_goes_on_with_the_same_bits(whom, judged, tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    typed, one = judged
    (begun := tmp_path/"begun").mkdir()
    program(monkeypatch, VALIDATES.format(begun=str(begun), typed=[*typed, "--output", str(tmp_path/"run")]))
    with launch.Job([], [None]*2) as job:
        until = time.monotonic() + 60
        while len(list(begun.glob("*.second"))) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        stopped = time.monotonic()
        for rank in whom:
            job.ranks[rank].send_signal(signal.SIGTERM)
        job.wait()
        assert time.monotonic() - stopped < 30
    assert job.status() == 143 and [rank.returncode for rank in job.ranks] == [143, 143]    # not LOST: all have heard of it
    kept = load(tmp_path/"run"/"latest.h5")
    assert (kept.epoch, kept.step) == (0, 2) and kept.state["sums_batches"] == 2            # trained, and not judged yet
    whole = {".lock", "config.json", "pictures.csv", "latest.h5", "log.csv", "figures"}
    assert {file.name for file in (tmp_path/"run").rglob("*")} == whole
    main(["--resume", str(tmp_path/"run")])
    assert same(tmp_path/"run", one)


@pytest.mark.parametrize("sources, status", [
    (["pass"], 0), (["pass", "import sys; sys.exit(2)"], 2),
    (["import sys; sys.exit(75)", "import os; os.kill(os.getpid(), 9)"], LOST),
    (["import sys; sys.exit(2)", "import sys; sys.exit(1)"], 1), (["import sys; sys.exit(143)"], 143),
    (["pass", "import time; time.sleep(60)"], LOST)])
def test_the_status_is_that_of_the_mistake_or_the_loss(sources, status, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    program(monkeypatch, *sources)
    with launch.Job([], [None]*2) as job:
        job.wait()
    assert job.status() == status and all(process.returncode is not None for process in job.ranks)


def test_it_starts_again_with_those_that_are_left_as_often_as_allowed(monkeypatch, tmp_path, capsys):
    """The last rank is killed each time, from four to one."""
    monkeypatch.setattr(launch, "GRACE", 5)
    log = tmp_path/"log"
    program(monkeypatch, f"""
import os, sys
if int(os.environ["RANK"]) + 1 == int(os.environ["WORLD_SIZE"]):
    open({str(log)!r}, "a").write(os.environ["WORLD_SIZE"] + " " + os.environ["CUDA_VISIBLE_DEVICES"] + " " + os.environ["ZFCORE_CORES"] + "\\n")
    os.kill(os.getpid(), 9)
sys.exit(75)""")
    monkeypatch.setattr(gpu, "count", lambda: 4)
    monkeypatch.setattr(launch, "cores", lambda: 7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    config = SimpleNamespace(device="gpu", model="tiny", batch_size=32, micro_batch=0)
    assert launch.launch(["--epochs", "2"], config, 4, restarts=2, output=str(tmp_path/"run")) == LOST
    assert log.read_text().splitlines() == ["4 7 1", "3 6 2", "2 5 3"]
    said = capsys.readouterr().err
    assert said.count("going on with") == 2 and "going on with 2 processes, restart 2 of 2" in said


@pytest.mark.parametrize("typed, sentence", [
    (["--devices", "0"], "expected a whole number from 1 to 1024"),
    (["--devices", "2", "--lr-test"], "--devices: expected no --lr-test beside it"),
    (["--restarts", "1"], "--restarts: expected --devices N beside it"),
    (["--devices", "5", "--device", "gpu"], "--devices: expected at most the 4 GPUs that there are, got 5; or --device cpu"),
    (["--devices", "33", "--device", "cpu"], "ranks: expected at most 32"),
    (["--devices", "2", "--output", "full"], "--output: expected a new or empty folder")])
def test_bad_input_is_one_sentence_and_starts_nothing(typed, sentence, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "count", lambda: 4)
    monkeypatch.setattr(launch, "Job", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"something").touch()
    with pytest.raises(SystemExit) as left:
        main(typed)
    assert left.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("typed, sentence", [
    (["--devices", "2"], "--devices: expected none in a process that mpiexec, srun or torchrun has started"),
    (["--dry-run"], "--dry-run: expected one process"), (["--lr-test"], "--lr-test: expected one process"),
    (["--eval-only", "--resume", "run"], "--eval-only: expected one process")])
def test_what_one_process_does_is_refused_beside_mpiexec(typed, sentence, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        main([*typed, "--device", "cpu"])
    assert left.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


def test_no_gpu_means_processes_on_the_cpu_unless_it_was_asked_for(monkeypatch):
    def none():
        raise Expected("--device gpu", "a CUDA device", "none")
    monkeypatch.setattr(gpu, "count", none)
    assert launch.visible_gpus("auto", 3) == [None]*3
    with pytest.raises(Expected, match="a CUDA device"):
        launch.visible_gpus("gpu", 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "count", lambda: 3)
    assert launch.visible_gpus("auto", 2) == ["0", "1"]
