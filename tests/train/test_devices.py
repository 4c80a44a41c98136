"""Crew: units done in several processes. Each once, what nobody else is at first; a process that is killed, fails, is stopped;
and no one outlives the one that started them."""
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from train.study import StudyFolder, Unit
from zfcore.checkpoint import Unwritable
from zfcore.crew import crew
from zfcore.ranks import Failed
from zfcore.training import Stop
from zfcore.training.folder import Busy, Lock

ROOT = Path(__file__).parents[2]


class Named(Unit):
    """A unit whose order is its name, done when a file of that name is in `folder`, and its failure in NAME.failed."""

    def __init__(self, folder, name, lock=""):
        self.folder, self.name, self.lock, self.order = folder, name, lock, name

    @property
    def done(self):
        return int((self.folder/self.name).is_file())

    @property
    def failure(self):
        return "failed" if (self.folder/f"{self.name}.failed").is_file() else ""


def served(folder, also=""):
    """In a process of the crew: write a unit's name, this process and its surroundings into tried.txt; then do what the name
    says."""
    folder, study = Path(folder), StudyFolder(folder)

    def do(name, progress, wait):
        with study.at(Named(folder, name, ".locked" if name.startswith("locked") else ""), wait) as is_left:
            if is_left:
                with open(folder/"tried.txt", "a") as file:
                    file.write(f"{name} {os.getpid()} {os.environ['OMP_NUM_THREADS']} "
                               f"{os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
                print("noise", file=sys.stdout, flush=True)
                WAYS[name.split("-")[0]](folder, name)
                progress()
                (folder/name).write_text("")
                return {"name": name, "also": also, "a third": 1/3}
    return do


def dies_once(folder, name):
    try:
        (folder/f"{name}.once").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def until(path, seconds=120):
    for _ in range(int(seconds/0.02)):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"no {path}")


def tell_pid(path):
    """Leave this process's number in a file, which is there only when it is whole."""
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)


def stops(folder, name):
    """As a training does: finish what is under way, then stop."""
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    tell_pid(folder/f"{name}.begun")
    while not heard:
        time.sleep(0.01)
    (folder/f"{name}.saved").touch()
    raise Stop(signal.SIGTERM)


def full(folder, name):
    raise Unwritable(folder, "room", "none")


WAYS = {"quick": lambda *_: None, "locked": lambda *_: None, "dies": dies_once, "stops": stops, "full": full,
        "dead": lambda *_: os.kill(os.getpid(), signal.SIGKILL), "wrong": lambda *_: {}["nothing"],
        "pair": lambda folder, name: ((folder/f"{name}.there").touch(), until(folder/f"pair-{1 - int(name[-1])}.there")),
        "busy": lambda folder, name: (_ for _ in ()).throw(Busy(folder, "nobody", "somebody"))}


def work(folder, *units, devices=2, results=None):
    with crew(devices, "cpu", "tests.train.test_devices:served", folder=str(folder), also="é\n\"") as several:
        StudyFolder(folder).work(units, None, take=lambda unit, result: None if results is None
                                 else results.append((unit.name, result)), crew=several)


def named(folder, *names):
    return [Named(folder, name) for name in names]


def tried(folder):
    return [line.split() for line in (folder/"tried.txt").read_text().splitlines()]


def test_each_unit_is_done_once_by_processes_at_once_and_tells_what_it_gave(tmp_path, capfd):
    (tmp_path/"quick-done").touch()
    results = []
    # a pair meets, or waits for ever
    work(tmp_path, *named(tmp_path, "pair-0", "quick-done", "pair-1", "quick-2", "quick-3"), results=results)
    lines = tried(tmp_path)
    assert sorted(name for name, *_ in lines) == ["pair-0", "pair-1", "quick-2", "quick-3"]
    assert len({pid for name, pid, *_ in lines if name.startswith("pair")}) == 2
    assert {(threads, card) for _, _, threads, card in lines} == {(lines[0][2], "-")}
    assert dict(results) == {name: {"name": name, "also": "é\n\"", "a third": 1/3} for name, *_ in lines} and len(results) == 4
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("noise") == 4                    # what is printed there is no answer


def test_one_device_works_here(tmp_path):
    with crew(1, "cpu", "no.such:thing") as nobody:
        assert nobody is None


def test_a_unit_that_another_is_at_comes_last_and_is_waited_for(tmp_path):
    elsewhere, results = Lock(tmp_path, ".locked"), []
    units = [Named(tmp_path, "locked-1", ".locked"), *named(tmp_path, "quick-1", "quick-2")]

    def take(unit, result):
        results.append(unit.name)
        if len(results) == 2:                  # both others, in whatever order
            elsewhere.__exit__()

    elsewhere.__enter__()
    with crew(2, "cpu", "tests.train.test_devices:served", folder=str(tmp_path)) as several:
        StudyFolder(tmp_path).work(units, None, take=take, crew=several)
    assert results[-1] == "locked-1" and sorted(results) == ["locked-1", "quick-1", "quick-2"]
    # of a study that has one lock for all
    with pytest.raises(Failed, match="process 1: .*expected nobody, got somebody"):
        work(tmp_path, *named(tmp_path, "busy-1"))


def test_what_a_killed_process_was_at_is_done_by_another_which_is_said_once(tmp_path, capsys):
    work(tmp_path, *named(tmp_path, "dies-1", "quick-1", "quick-2", "quick-3"))
    counted = Counter(name for name, *_ in tried(tmp_path))
    assert counted == {"dies-1": 2, "quick-1": 1, "quick-2": 1, "quick-3": 1}
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("process 1 was killed by SIGKILL at dies-1, which is another's now") == 1


def test_where_all_are_killed_a_sentence_ends_the_study(tmp_path):
    with pytest.raises(Failed, match="--devices: expected at work until all is done, got all 2 processes gone") as failed:
        work(tmp_path, *named(tmp_path, "dead-1", "quick-1"))
    assert failed.value.status == 75 and len([name for name, *_ in tried(tmp_path) if name == "dead-1"]) == 2


def test_what_ends_one_process_with_a_sentence_or_a_mistake_ends_all(tmp_path, capfd):
    with pytest.raises(Failed, match="process 1, at full-1: .*expected room, got none") as failed:
        work(tmp_path, *named(tmp_path, "full-1", "stops-1"))
    assert failed.value.status == 2
    if (tmp_path/"stops-1.begun").exists():                # it may not have come so far
        assert (tmp_path/"stops-1.saved").exists()
    with pytest.raises(Failed, match="got its end with status 1") as failed:
        work(tmp_path, *named(tmp_path, "wrong-1"))
    assert failed.value.status == 1 and "KeyError: 'nothing'" in capfd.readouterr().err


PARENT = """
import sys, signal
from pathlib import Path
from tests.train.test_devices import named, work
from zfcore.terminal import at_work
folder = Path(sys.argv[1])
with at_work():
    work(folder, *named(folder, "stops-1", "stops-2"))
"""


def begun(folder):
    """A study of two units that only a signal ends, both under way: its process, and those of its crew."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    files = [folder/f"stops-{k}.begun" for k in (1, 2)]
    for file in files:
        until(file)
    return process, [int(file.read_text()) for file in files]


def are_gone(pids, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() and not re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(),
                                                                   re.M) for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_stop_of_the_parent_or_of_one_process_lets_all_save(tmp_path):
    for name, whom in (("parent", 0), ("member", 1)):
        folder = tmp_path/name
        folder.mkdir()
        process, members = begun(folder)
        os.kill([process.pid, *members][whom], signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode and (folder/"stops-1.saved").exists() and (folder/"stops-2.saved").exists() and are_gone(members)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_parent_leaves_no_process_behind(tmp_path):
    process, members = begun(tmp_path)
    process.kill()
    process.communicate(timeout=120)
    assert are_gone(members)
