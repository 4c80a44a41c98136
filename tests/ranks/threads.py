"""Ranks that are threads of one process. What they send each other is copied, as if it travelled."""
import threading

import numpy as np

from zfcore.check import Expected
from zfcore.ranks import Ranks

PATIENCE = 60                    # seconds in which all must come to the same call


class ThreadRanks(Ranks):
    """One of `size` ranks. `calls` lists what it took part in: ("gather", bytes) and ("exchange", sizes)."""

    def __init__(self, rank, shared):
        self.rank, self.size, self.shared, self.calls = rank, len(shared.rows), shared, []
        self.names = [f"rank {k} (here)" for k in range(self.size)]

    def gather(self, row):
        self.calls.append(("gather", len(row)))
        return self._all(bytes(row), "gather")

    def exchange(self, sends, receives):
        self.calls.append(("exchange", [part.nbytes for part in sends]))
        assert len(sends) == len(receives) == self.size
        assert all(part.flags.c_contiguous for part in (*sends, *receives))
        from_all = self._all([np.array(part) for part in sends], "exchange")
        for mine, sent in zip(receives, from_all):
            sent = sent[self.rank]
            assert sent.size == mine.size and sent.dtype == mine.dtype, (sent.shape, mine.shape)
            mine.reshape(-1)[...] = sent.reshape(-1)
        self.shared.barrier.wait(PATIENCE)

    def abort(self, sentence):
        self.shared.barrier.abort()
        raise Expected(self.names[self.rank], "all ranks at work", sentence)

    def _all(self, mine, call):
        self.shared.rows[self.rank] = call, mine
        self.shared.barrier.wait(PATIENCE)
        found = [*self.shared.rows]
        self.shared.barrier.wait(PATIENCE)
        assert {name for name, _ in found} == {call}, "ranks make different calls"
        return [row for _, row in found]


class _Shared:
    def __init__(self, size):
        self.rows, self.barrier = [None]*size, threading.Barrier(size)


def together(size, work):
    """[work(ranks) of each of `size` ranks], at the same time. Raises what the first of them raised by itself."""
    shared, found, failed = _Shared(size), [None]*size, []

    def run(rank):
        try:
            found[rank] = work(ThreadRanks(rank, shared))
        except BaseException as error:
            failed.append(error)
            shared.barrier.abort()
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise next((error for error in failed if not isinstance(error, threading.BrokenBarrierError)), failed[0])
    return found
