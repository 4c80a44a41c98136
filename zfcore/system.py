"""Floor 0: what Linux, macOS and Windows do in different ways: each call that one of them lacks, with its other way."""
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:                                        # Windows
    fcntl = None                 # type: ignore[assignment]
try:
    import msvcrt
except ImportError:                                        # all others
    msvcrt = None                # type: ignore[assignment]

# Flags of `os.open`; what a system does not have it does not need.
NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)                        # on Windows a descriptor changes the ends of lines without it
IN_USE = 5, 32                                             # of Windows: a file that somebody has open, a search index perhaps
FAR = 2**30                                                # the byte of a lock on Windows, behind all that anybody reads
NO_LOCKS = {getattr(errno, name, errno.ENOLCK) for name in ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS")}
_reading = threading.Lock()


def cores() -> int:
    """The number of CPU cores that this process may use: those that the system gives it, of which ZFCORE_CORES may leave some
    to others."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("ZFCORE_CORES", "")
    return min(there, int(asked)) if asked.isdecimal() and int(asked) else there


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read up to `size` bytes of an open file from byte `offset` on, for any number of threads. Raises OSError."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _reading:                                         # a descriptor has one place, which all threads share
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


class NoLocks(OSError):
    """Refusal of a file system that has no locks, as some network file systems."""


def lock(descriptor: int, wait: bool = False) -> None:
    """Hold an open file for this process, until it is closed or the process ends, however that ends. Raises BlockingIOError
    where another one holds it, or waits for its end; NoLocks where there are none; and OSError."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise NoLocks(error.errno, error.strerror) from None
            raise
    elif msvcrt is None:
        raise NoLocks(errno.ENOLCK, "no locks here")
    else:
        while not _locked_there(descriptor):
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "held by another process")
            time.sleep(0.1)


def _locked_there(descriptor):
    """Return whether Windows has given the lock."""
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, FAR, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return True
    except PermissionError:
        return False
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)


class Claim:
    """A new, empty file at `path` that is its maker's alone, until it is renamed or removed or the process ends, however that
    ends: what a killed one has left goes. Raises BlockingIOError where somebody has it who lives, or waits for their end;
    NoLocks where nobody can tell whether they live; and OSError.

    Who has it holds its lock, or on Windows, where the lock's byte would be in the way of a large file, holds it open, since no
    open file can be removed there."""

    def __init__(self, path: Path, wait: bool = False) -> None:
        self.path = path
        self.descriptor = None
        while self.descriptor is None:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
            except FileExistsError:
                with suppress(FileNotFoundError):          # its end has come meanwhile
                    _remove_left(path, wait)
                continue
            self.descriptor = _held(descriptor, path, wait)

    def become(self, path: Path) -> None:
        """Rename the file, in place of one that is called so. Raises OSError; it is still there then."""
        if msvcrt is not None:
            self._close()
        replace(self.path, path)
        self._close()

    def drop(self) -> None:
        """Remove the file. Raises OSError."""
        try:
            if msvcrt is not None:
                self._close()
            self.path.unlink(missing_ok=True)
        finally:
            self._close()

    def _close(self):
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def _held(descriptor, path, wait):
    """The descriptor, locked, of the file that was just made at `path`; None where it was taken for one that was left."""
    if msvcrt is not None:
        return descriptor
    try:
        with suppress(NoLocks):                            # nobody else made it, which is all that can be known there
            lock(descriptor, wait)
        if _is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _remove_left(path, wait):
    """Remove what a killed process left at `path`, or wait until whoever lives has removed it."""
    if msvcrt is not None:
        try:
            return path.unlink()
        except PermissionError:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "held by another process") from None
            return time.sleep(0.1)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return path.unlink()                               # a link that came with a folder is not followed
    descriptor = open_to_lock(path, lambda path, flags: os.open(path, flags | NO_LINK | NO_WAITING), os.O_RDWR)
    try:
        lock(descriptor, wait)
        if _is_at(descriptor, path):
            path.unlink()
    finally:
        os.close(descriptor)
    return None


def _is_at(descriptor, path):
    """Return whether `path` is still the name of an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def open_to_lock(path: Path, opener: Callable[[Path, int], int], flags: int) -> int:
    """Descriptor of a file to lock: open for writing, which locks need on network file systems, or where it is somebody else's
    for reading. Raises OSError."""
    try:
        return opener(path, flags)
    except PermissionError as refused:
        try:
            return opener(path, os.O_RDONLY)
        except FileNotFoundError:
            raise refused from None


def flush(path: Path) -> None:
    """Wait until the file or folder at `path` is on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return                                             # a folder cannot be opened there; the rename is enough
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)       # Windows flushes only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(old: Path, new: Path, seconds: float = 2) -> None:
    """Give the file `old` the name `new`, in place of a file that has it. Windows refuses that while somebody has `new` open:
    it is asked again for so many seconds. Raises OSError."""
    until = time.monotonic() + seconds
    while True:
        try:
            return os.replace(old, new)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE or time.monotonic() > until:
                raise
        time.sleep(0.05)


def is_left_alone(caller: int) -> bool:
    """Return whether the process `caller` that started this one has gone. Windows does not tell: a child keeps its parent's
    number, which is that of a launcher in a virtual environment; there it is False."""
    return os.name != "nt" and os.getppid() != caller


def waits_for_disk() -> bool:
    """Return whether a thread of this process waits for a disk. Only Linux tells."""
    return any(_state(thread) == "D" for thread in Path("/proc/self/task").glob("*/stat"))


def _state(thread):
    """The letter that Linux has for what a thread does; "" of one that has ended meanwhile."""
    try:
        return thread.read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
