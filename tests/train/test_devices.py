"""Crew: units done in several processes. Each once, what nobody else is at first; a process that is killed, fails, is stopped;
and no one outlives the one that started them."""
import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crews import Named, named, until, work
from train.study import StudyFolder
from zfcore.crew import Member, crew
from zfcore.ranks import Failed
from zfcore.training.folder import Lock

ROOT = Path(__file__).parents[2]


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
    with crew(2, "cpu", "tests.crews:served", folder=str(tmp_path)) as several:
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


@pytest.mark.parametrize("said, sentence", [(b'{"done": {"a": 1', ""), (b'{"done": 1}', ""), (b"", ""),
                                            (b"}{\n", "expected lines of JSON from it, got"),
                                            (b'"\xff"\n', "expected lines of JSON from it, got"),
                                            (b"["*10**5 + b"\n", "expected lines of JSON from it, got")])
def test_whatever_a_process_leaves_its_end_is_told_and_half_a_line_is_nothing(said, sentence, monkeypatch):
    """It dies by itself, or where it said what nobody can read, is killed."""
    script = f"""if True:
        import os, signal, time
        os.write(1, eval({str(said)!r}))
        {'time.sleep(600)' if sentence else 'os.kill(os.getpid(), signal.SIGKILL)'}"""
    start, told = subprocess.Popen, queue.SimpleQueue()
    monkeypatch.setattr(subprocess, "Popen", lambda _, **how: start([sys.executable, "-c", script], **how))
    member = Member(1, None, 1, told, {})
    messages = [told.get(timeout=60)[1]]
    if sentence:
        assert messages[0]["failed"].startswith(sentence)
        messages.append(told.get(timeout=60)[1])
    assert messages[-1] == {"ended": -signal.SIGKILL}
    member.leave()


PARENT = """
import sys, signal
from pathlib import Path
from tests.crews import named, work
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
