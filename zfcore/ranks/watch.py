"""Watch over the ranks: a thread in each that tells the others that it lives, and hears when one does not.

Every BEAT seconds each rank tells rank 0, and rank 0 each other, how long it has waited for the others and how long it has done
nothing at all. A connection that closes before its rank has left, and SILENT seconds without a word, mean a rank that is lost.
Where for STALLED seconds every rank either waits or does nothing, those that do nothing are stalled: the computer's time tells
a rank that sleeps from one that computes for long, which is nobody's fault. Whoever finds this tells rank 0, which tells all;
each then ends: in order, if it comes to its next call within GRACE seconds, else at once, wherever it is.
"""
import os
import selectors
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from zfcore.ranks import LOST, Failed
from zfcore.ranks.meeting import Links
from zfcore.system import is_left_alone, waits_for_disk
from zfcore.terminal import ENDING, quiet, warn

BEAT, SILENT, STALLED, GRACE = 1, 15, 20, 5               # seconds
BUSY = 0.02                      # of a core, which a rank that does anything uses; the watch itself needs less
HEAD = struct.Struct(">BI")
HEALTH, FATE, RANK = struct.Struct(">ff"), struct.Struct(">BI?"), struct.Struct(">I")
LEFT = "one that left while others waited for it"
ALIVE, END, LEAVES, HEARD = range(4)                      # kinds of messages


def end_with(launcher: int) -> None:
    """Let this process end when the one that started it has ended: for one that is alone, and has no Watch."""
    def watch():
        while not is_left_alone(launcher):
            time.sleep(BEAT)
        os._exit(LOST)
    threading.Thread(target=watch, name="launcher", daemon=True).start()


class Watch(threading.Thread):
    """Watch of one rank over `links`, see meeting.Links. `launcher` is the process that ends with the ranks and they with it;
    0: none.

    failed       Failed or None: why all must end; every call of this rank raises it
    checks       functions that are asked every BEAT; what they raise is this rank's failure
    cures        functions that are called before the process ends by force, so that nothing keeps it"""

    def __init__(self, links: Links, launcher: int = 0) -> None:
        super().__init__(name="ranks", daemon=True)
        self.rank, self.names, self.hosts, self.links = links.rank, links.names, links.hosts, links.control
        self.launcher = launcher
        self.failed: Failed | None = None
        self.lost: int | None = None           # the rank that is not there to tell anything
        self.spoken = False
        self.checks: list[Callable[[], object]] = []
        self.cures: list[Callable[[], object]] = []
        self.left: set[int] = set()
        self.heard = dict.fromkeys(self.links, time.monotonic())
        self.health = dict.fromkeys(self.links, (0.0, 0.0))           # seconds that a rank has waited, and done nothing
        self.waits_since: float | None = None
        self.used, self.busy_at, self.turned = time.process_time(), time.monotonic(), time.monotonic()
        self.sending, self.ending = threading.RLock(), threading.Lock()
        self.answers, self.last, self.over = threading.Semaphore(0), threading.Lock(), False
        self.selector, self.buffers = selectors.DefaultSelector(), {rank: bytearray() for rank in self.links}
        for rank, link in self.links.items():
            link.settimeout(GRACE)             # to send; what is there is received without waiting
            self.selector.register(link, selectors.EVENT_READ, rank)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """`with watch.waiting():` this rank waits for others."""
        self.waits_since = time.monotonic()
        try:
            yield
        finally:
            self.waits_since = None

    # -------------------------------------------------------------------------------------------------------- thread
    def run(self) -> None:
        due = 0.0
        while True:
            for key, _ in self.selector.select(max(due - time.monotonic(), 0)):
                self.read(key.data, key.fileobj)
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT
                self.beat()

    def read(self, rank, link):
        try:
            more = link.recv(2**16)
        except OSError:
            more = b""
        if not more:
            self.selector.unregister(link)
            self.answers.release()             # there will be no other
            if rank not in self.left:
                self.lose(rank, "a connection that closed", "it was killed, had no memory, or its machine is gone")
                self.left.add(rank)
            return
        self.heard[rank] = time.monotonic()
        buffer = self.buffers[rank]
        buffer += more
        while len(buffer) >= HEAD.size:
            kind, size = HEAD.unpack_from(buffer)
            if len(buffer) < HEAD.size + size:
                break
            self.take(rank, kind, bytes(buffer[HEAD.size:HEAD.size + size]))
            del buffer[:HEAD.size + size]

    def take(self, rank, kind, message):
        if kind == ALIVE:
            self.health[rank] = HEALTH.unpack(message)
        elif kind == HEARD:
            self.answers.release()
        elif kind == LEAVES:
            (who,) = RANK.unpack(message)
            self.left.add(who)
            if who == rank:
                self.send(rank, HEARD)
            for other in self.links if self.rank == 0 else ():       # so that all know why its connections close
                self.send(other, LEAVES, message)
        else:
            status, who, is_gone = FATE.unpack_from(message)
            self.send(rank, HEARD)
            self.fail(Failed(self.names[who], message[FATE.size:].decode(), status), who, is_gone)

    def beat(self):
        now, used = time.monotonic(), time.process_time()
        if now - self.turned > 5*BEAT:         # this process was stopped, and with it perhaps all
            self.heard = dict.fromkeys(self.links, now)
        if used - self.used > BUSY*(now - self.turned) or waits_for_disk():
            self.busy_at = now
        self.used, self.turned = used, now
        for rank in self.links:
            self.send(rank, ALIVE, HEALTH.pack(*self.own_health(now)))
        try:
            for check in self.checks:
                check()
        except Exception as error:
            self.lose(self.rank, f"{type(error).__name__}: {error}")
        if self.launcher and is_left_alone(self.launcher):
            self.lose(self.rank, "the end of the process that started it")
        self.judge(now)

    def own_health(self, now):
        waits_since = self.waits_since
        return now - waits_since if waits_since else 0, now - self.busy_at

    def judge(self, now):
        for rank, heard in self.heard.items():
            if now - heard > SILENT and rank not in self.left:
                self.lose(rank, f"no sign of life for {SILENT} s", "it was stopped, or the network or its machine is gone")
        if self.rank:
            return
        health = {0: self.own_health(now), **{rank: of for rank, of in self.health.items() if rank not in self.left}}
        if max(waited for waited, _ in health.values()) > STALLED and min(max(of) for of in health.values()) > STALLED:
            stalled = [rank for rank, (waited, _) in health.items() if not waited]
            if self.left:
                self.lose(min(self.left), LEFT)
            elif stalled:
                self.lose(stalled[0], f"a standstill: for {STALLED} s it has neither computed nor waited for the others")
            else:
                self.lose(0, f"a standstill: for {STALLED} s all ranks have waited for each other")

    # --------------------------------------------------------------------------------------------------------- ends
    def lose(self, rank: int, got: str, advice: str = "") -> None:
        """Say that `rank` is lost, and end all."""
        sentence = f"expected at work until all are done, got {got}" + (f"; {advice}" if advice else "")
        self.fail(Failed(self.names[rank], sentence), rank, is_gone=rank != self.rank)

    def fail(self, failed: Failed, who: int, is_gone: bool = False) -> None:
        """End all ranks for the failure of rank `who`, which perhaps is not there to tell of it."""
        with self.ending:
            if self.failed is not None or self.over:
                return
            self.lost = who if is_gone else None
            self.spoken = who == self.rank and failed.status > 128         # stopped, for which it has words, or unheard
            self.failed = failed
        for rank in self.links:
            self.send(rank, END, FATE.pack(failed.status, who, is_gone) + str(failed.got).encode())
        timer = threading.Timer(GRACE, self.end)
        timer.daemon = True
        timer.start()

    def leave(self) -> None:
        """Tell the others that this rank has done its part. What becomes of them later is not told any more."""
        there = [rank for rank in self.links if rank not in self.left]
        self.over = True
        for rank in there:
            self.send(rank, LEAVES, RANK.pack(self.rank))
        self.await_answers(len(there))

    def await_answers(self, count: int) -> None:
        """Wait until so many have heard what was sent, for GRACE seconds at most."""
        until = time.monotonic() + GRACE
        for _ in range(count):
            self.answers.acquire(timeout=max(until - time.monotonic(), 0))

    def await_first(self) -> None:
        """Wait until rank 0 has ended, which says why, for GRACE seconds at most, or where it is lost for BEAT, in which another
        says it: a launcher kills all others as soon as one has ended."""
        until = time.monotonic() + (BEAT if self.lost == 0 else GRACE)
        while time.monotonic() < until and (self.lost == 0 or 0 not in self.left):
            time.sleep(0.01)

    def send(self, rank, kind, message=b""):
        with self.sending, suppress(OSError):  # of one that has gone the other direction tells
            self.links[rank].sendall(HEAD.pack(kind, len(message)) + message)

    def end(self, error: BaseException | None = None) -> None:
        """End this process with the status of `failed`, or 1 after the traceback of an `error` that is zfcore's own. The first
        rank on each machine that is there says why."""
        self.last.acquire()                    # a second thread that comes here waits for the end
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)      # of an mpiexec that ends the others
        cures = threading.Thread(target=lambda: [cure() for cure in self.cures], daemon=True)
        cures.start()
        cures.join(GRACE)
        speaker = next((r for r, host in enumerate(self.hosts) if host == self.hosts[self.rank] and r != self.lost), self.rank)
        if error is not None:
            traceback.print_exception(error)
        elif self.failed and self.rank == speaker and not self.spoken:
            quiet(False)
            warn(f"error: {self.failed}", self.failed.what)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        if self.rank != speaker:
            self.await_first()
        os._exit(1 if error is not None or self.failed is None else self.failed.status)
