"""What a system lacks is done in its other way: the function is taken away, and what uses it is run."""
import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zfcore import system
from zfcore.training.folder import Busy, Lock


def test_a_file_is_read_at_a_place_by_many_threads_without_pread(tmp_path, monkeypatch):
    data = np.random.default_rng(0).bytes(70_001)
    (tmp_path/"x").write_bytes(data)
    monkeypatch.delattr(os, "pread", raising=False)
    descriptor, wrong = os.open(tmp_path/"x", os.O_RDONLY | system.BINARY), []

    def read(seed):
        for offset in np.random.default_rng(seed).integers(0, 70_000, 300).tolist():
            if system.read_at(descriptor, 113, offset) != data[offset:offset + 113]:
                wrong.append(offset)
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    assert not wrong


def test_cores_are_counted_without_affinity(monkeypatch):
    monkeypatch.delenv("ZFCORE_CORES", raising=False)
    assert 1 <= system.cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert system.cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.cores() == 1


@pytest.mark.parametrize("asked, found", [("2", 2), ("5", 5), ("6", 5), ("0", 5), ("many", 5), ("", 5)])
def test_some_cores_are_left_to_others(asked, found, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(5), raising=False)
    monkeypatch.setenv("ZFCORE_CORES", asked)
    assert system.cores() == found


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="only Linux tells")
def test_a_process_that_computes_waits_for_no_disk(monkeypatch, tmp_path):
    assert not system.waits_for_disk()
    for thread, state in (("7", "S"), ("8", "D")):
        (tmp_path/thread).mkdir()
        (tmp_path/thread/"stat").write_text(f"{thread} (a name) S D) {state} 1 2")
    monkeypatch.setattr(system, "Path", lambda path: tmp_path)
    assert system.waits_for_disk()
    (tmp_path/"8"/"stat").unlink()
    assert not system.waits_for_disk()


class Msvcrt:
    """msvcrt.locking of Windows: a byte of a file belongs to one descriptor."""
    LK_NBLCK = 2

    def __init__(self):
        self.held = {}

    def locking(self, descriptor, mode, count):
        byte = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        assert (mode, count) == (self.LK_NBLCK, 1)
        if self.held.setdefault(byte, descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folder_is_locked_as_windows_does_it(tmp_path, monkeypatch):
    windows = Msvcrt()
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "msvcrt", windows)
    with Lock(tmp_path):
        with pytest.raises(Busy, match=f"process {os.getpid()} on .+ training there"):
            Lock(tmp_path).__enter__()
        threading.Timer(0.2, windows.held.clear).start()
        with Lock(tmp_path, wait=True):
            assert list(windows.held) == [((tmp_path/".lock").stat().st_ino, system.FAR)]
    assert (tmp_path/".lock").read_text().startswith(f"{os.getpid()} on ")


@pytest.mark.parametrize("way", ["locks", "no locks", "Windows"])
def test_a_claimed_file_is_its_makers_until_it_ends(tmp_path, monkeypatch, way):
    """Where there are no locks, what was left stays."""
    path, held = tmp_path/"x", []
    if way != "locks":
        monkeypatch.setattr(system, "fcntl", None)
        monkeypatch.setattr(system, "msvcrt", Msvcrt() if way == "Windows" else None)
    if way == "Windows":
        def unlink(self, missing_ok=False, unlink=Path.unlink):
            if any(claim.descriptor is not None and claim.path == self for claim in held):
                raise PermissionError(errno.EACCES, "used by another process")
            unlink(self, missing_ok)
        monkeypatch.setattr(Path, "unlink", unlink)
    path.write_text("left")
    if way == "no locks":
        with pytest.raises(system.NoLocks):
            system.Claim(path)
        path.unlink()
    held.append(system.Claim(path))
    assert path.read_text() == ""
    with pytest.raises(BlockingIOError if way != "no locks" else system.NoLocks):
        system.Claim(path)
    held[0].become(tmp_path/"y")
    held.append(system.Claim(path))
    if way != "no locks":
        threading.Timer(0.2, held[1].drop).start()
        held.append(system.Claim(path, wait=True))
    held[-1].drop()
    assert os.listdir(tmp_path) == ["y"]


def test_without_any_locks_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "msvcrt", None)
    with Lock(tmp_path), Lock(tmp_path):
        pass


def test_what_is_flushed_may_be_written_and_folders_are_not_opened_on_windows(tmp_path, monkeypatch):
    (tmp_path/"x").write_text("1")
    opened = []
    monkeypatch.setattr(os, "open", lambda path, flags, open=os.open: opened.append((path, flags)) or open(path, flags))
    system.flush(tmp_path/"x")
    system.flush(tmp_path)
    assert [(path, flags & (os.O_RDWR | os.O_WRONLY) != 0) for path, flags in opened] == [(tmp_path/"x", True),
                                                                                          (tmp_path, False)]
    monkeypatch.setattr(system, "os", SimpleNamespace(name="nt"))
    system.flush(tmp_path)


@pytest.mark.parametrize("number, times, given_up", [(32, 2, False), (5, 2, False), (32, 99, True), (None, 1, True),
                                                     (1, 1, True)])
def test_a_file_that_is_open_elsewhere_is_replaced_when_it_is_closed(tmp_path, monkeypatch, number, times, given_up):
    calls = []

    def replace(old, new, replace=os.replace):
        calls.append(old)
        if len(calls) <= times:
            error = PermissionError(errno.EACCES, "Permission denied")
            error.winerror = number
            raise error
        replace(old, new)
    monkeypatch.setattr(os, "replace", replace)
    for name in "ab":
        (tmp_path/name).write_text(name)
    if given_up:
        with pytest.raises(PermissionError):
            system.replace(tmp_path/"a", tmp_path/"b", seconds=0.12)
        assert (len(calls) > 1) == (number in system.IN_USE)
    else:
        system.replace(tmp_path/"a", tmp_path/"b")
    assert (tmp_path/"b").read_text() == ("b" if given_up else "a")


def test_a_helper_ends_when_its_caller_has_gone_where_that_is_told(monkeypatch):
    assert not system.is_left_alone(os.getppid()) and system.is_left_alone(os.getppid() + 1)
    monkeypatch.setattr(system, "os", SimpleNamespace(name="nt", getppid=os.getppid))
    assert not system.is_left_alone(os.getppid() + 1)
