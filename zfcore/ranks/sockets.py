"""Ranks joined by TCP: rows go through rank 0, arrays between each two, from memory to memory."""
import selectors
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from zfcore.check import Expected, of_the_system
from zfcore.hints import Array
from zfcore.ranks import Failed, Ranks
from zfcore.ranks.meeting import Links
from zfcore.ranks.watch import LEFT, Watch
from zfcore.terminal import CLOSED, Unheard, refusal, status_of

HEAD = struct.Struct(">QQ")      # before what travels: the number of the call, bytes
LOOK_EVERY = 0.2                 # seconds, for a failure that the watch has found
TOLD = 1                         # seconds until the watch tells why a connection has closed


class Sockets(Ranks):
    """Ranks over the Links of a meeting, under a Watch."""

    def __init__(self, links: Links, launcher: int = 0) -> None:
        self.rank, self.size, self.names = links.rank, len(links.names), links.names
        self.data, self.calls = links.data, 0
        for link in self.data.values():
            link.setblocking(False)
        self.watch = Watch(links, launcher)
        self.watch.start()

    # --------------------------------------------------------------------------------------------------------- calls
    def gather(self, row: bytes) -> list[bytes]:
        others = dict.fromkeys(range(1, self.size))
        if self.rank:
            return _unpacked(self.swap({0: row}, {0: None})[0])
        found = self.swap({}, others)
        rows = [row, *(bytes(found[r]) for r in others)]
        self.swap(dict.fromkeys(others, _packed(rows)), {}, call=self.calls)
        return rows

    def exchange(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        if sends[self.rank].size:
            receives[self.rank][...] = sends[self.rank]
        self.swap({r: memory(array) for r, array in enumerate(sends) if r != self.rank and array.size},
                  {r: memory(array) for r, array in enumerate(receives) if r != self.rank and array.size})

    def swap(self, sends: Mapping[int, Any], receives: Mapping[int, Any], call: int | None = None) -> dict[int, Any]:
        """Send to some ranks and receive from some, all at once. `receives` holds memory to fill, or None: then as much as
        comes. Returns what was received."""
        self.calls += call is None
        self.raise_failure()
        out = {rank: [memoryview(HEAD.pack(self.calls, len(what))), memoryview(what)] for rank, what in sends.items()}
        inward = {rank: _Inward(self.calls, into) for rank, into in receives.items()}
        with self.watch.waiting(), selectors.DefaultSelector() as ready:
            for rank in {*out, *inward}:
                ready.register(self.data[rank], self.wanted(rank, out, inward), rank)
            while ready.get_map():
                for key, events in ready.select(LOOK_EVERY):
                    self.move(key.data, key.fileobj, events, out, inward)
                    if (wanted := self.wanted(key.data, out, inward)) != key.events:
                        ready.modify(key.fileobj, wanted, key.data) if wanted else ready.unregister(key.fileobj)
                self.raise_failure()
        return {rank: of.into for rank, of in inward.items()}

    @staticmethod
    def wanted(rank, out, inward):
        """The events of a rank's connection that are waited for."""
        return (selectors.EVENT_WRITE*(rank in out)) | (selectors.EVENT_READ*(rank in inward and not inward[rank].whole))

    def move(self, rank, link, events, out, inward):
        """Send and receive as much as goes without waiting."""
        try:
            if events & selectors.EVENT_WRITE:
                sent = link.sendmsg(out[rank]) if hasattr(link, "sendmsg") else link.send(out[rank][0])
                while out[rank] and sent >= len(out[rank][0]):
                    sent -= len(out[rank].pop(0))
                if out[rank]:
                    out[rank][0] = out[rank][0][sent:]
                else:
                    del out[rank]
            if events & selectors.EVENT_READ:
                inward[rank].receive(link)
        except BlockingIOError:
            pass
        except (OSError, EOFError):
            self.closed(rank)

    def closed(self, rank):
        """Raise why the connection to `rank` has closed. Most often the watch knows: another one is lost, for which this one
        ended."""
        self.await_failure()
        self.watch.lose(rank, LEFT if rank in self.watch.left else "a connection that closed")
        self.raise_failure()

    def await_failure(self):
        """Give the watch the time to hear of a failure that this one may follow from."""
        until = time.monotonic() + TOLD
        while self.watch.failed is None and time.monotonic() < until:
            time.sleep(0.01)

    def raise_failure(self):
        if self.watch.failed is not None:
            raise self.watch.failed

    # ---------------------------------------------------------------------------------------------------------- ends
    def abort(self, sentence: str) -> NoReturn:
        self.fail(Failed(self.names[self.rank], sentence, status=2))

    def fail(self, failed: Failed, error: BaseException | None = None, who: int | None = None) -> NoReturn:
        """End all ranks for a failure of this one, or of rank `who`."""
        self.watch.fail(failed, self.rank if who is None else who)
        self.watch.await_answers(len(self.watch.selector.get_map()))
        self.watch.end(error)
        raise AssertionError("the process has ended")

    def __exit__(self, kind, error, trace):
        if error is None or isinstance(error, SystemExit):
            self.leave()
            return
        if isinstance(error, KeyboardInterrupt):           # perhaps of an mpiexec that ends the others
            self.await_failure()
        if self.watch.failed is not None:
            self.watch.end()
        elif isinstance(error, KeyboardInterrupt):
            self.fail(Failed(self.names[self.rank], "stopped", status_of(error)))
        elif isinstance(error, Unheard):
            self.fail(Failed(self.names[self.rank], "nobody reads what it prints any more", CLOSED))
        elif isinstance(error, Expected):
            self.tell(error)
        elif of_the_system(error):
            self.abort(refusal(error))
        else:
            self.fail(Failed(self.names[self.rank], f"{kind.__name__}: {error}", status=2), error)

    def tell(self, error):
        """End all ranks for an error of this one, or one that all have found in the rank that it names."""
        who = self.names.index(error.what) if error.what in self.names else self.rank
        self.fail(Failed(self.names[who], str(error).removeprefix(f"{self.names[who]}: "), status=2), who=who)

    def leave(self):
        """Let the others know that this rank has done its part."""
        if self.watch.failed is not None:
            self.watch.end()
        self.watch.leave()


class _Inward:
    """Arrival of what one rank sends in one call: into the memory `into`, or, where that is None, into as much as it takes."""

    def __init__(self, call, into):
        self.call, self.into, self.whole = call, into, False
        self.head = bytearray(HEAD.size)
        self.left = memoryview(self.head)      # of what is being filled

    def receive(self, link):
        """Take what is there. Raises EOFError where the other end has closed."""
        if not (more := link.recv_into(self.left)):
            raise EOFError
        self.left = self.left[more:]
        if len(self.left) == 0 and self.head is not None:
            self.begin(*HEAD.unpack(self.head))
        self.whole = len(self.left) == 0

    def begin(self, call, size):
        self.head, self.into = None, bytearray(size) if self.into is None else self.into
        if (call, size) != (self.call, len(self.into)):
            raise RuntimeError(f"a call of the ranks, number {self.call}, waits for {len(self.into)} bytes "
                               f"and is sent {size} of number {call}")
        self.left = memoryview(self.into)


def memory(array: Array) -> memoryview:
    """The memory of a contiguous array as bytes. Raises ValueError for another."""
    if not array.flags.c_contiguous:
        raise ValueError("expected a contiguous array")
    return memoryview(array.reshape(-1).view(np.uint8))


def _packed(rows):
    return b"".join([struct.pack(f">I{len(rows)}Q", len(rows), *map(len, rows)), *rows])


def _unpacked(raw):
    (count,) = struct.unpack_from(">I", raw)
    sizes, at = struct.unpack_from(f">{count}Q", raw, 4), 4 + 8*count
    rows = []
    for size in sizes:
        rows.append(bytes(raw[at:at + size]))
        at += size
    return rows
