"""Ranks that exchange by NCCL, which a stand-in is here: threads of one process, memory copied by its address. It has not run
on hardware yet."""
import ctypes
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.ranks import forked
from tests.ranks.test_sockets import in_threads, join
from train.launch import free_port
from zfcore.ranks.nccl import Nccl

PATIENCE = 20                    # seconds


class StandIn:
    """NCCL as CuPy has it, for `size` ranks in threads: `of(rank)` is the module that the rank sees. A unique id is of the
    `kind` of an older CuPy, a tuple of signed numbers, or of today's, bytes. What a rank sends is there when both have ended their
    groups."""
    NCCL_UINT8 = 1

    def __init__(self, size, kind=tuple):
        self.size, self.kind, self.barrier, self.sent = size, kind, threading.Barrier(size), {}
        self.unique = bytes(range(3, 256, 2))[:64] + bytes(range(255, 127, -2))[:64]

    def of(self, rank):
        def communicator(size, unique, its):
            wanted = self.unique if self.kind is bytes else tuple(np.frombuffer(self.unique, np.int8).tolist())
            assert (size, its, unique) == (self.size, rank, wanted) and type(unique) is self.kind
            self.barrier.wait(PATIENCE)
            return Communicator(self, rank)
        group = lambda begins: setattr(self, f"open{rank}", []) if begins else self.move(rank)
        return SimpleNamespace(NCCL_UINT8=self.NCCL_UINT8, get_version=lambda: 22907, NcclCommunicator=communicator,
                               groupStart=lambda: group(True),
                               groupEnd=lambda: group(False), get_unique_id=lambda: self.unique if self.kind is bytes else
                               tuple(np.frombuffer(self.unique, np.int8).tolist()))

    def move(self, rank):
        """Do what a rank's group asks for, with all others'."""
        calls = getattr(self, f"open{rank}")
        for what, address, count, peer in calls:
            if what == "send":
                self.sent[rank, peer] = address, count
        self.barrier.wait(PATIENCE)
        for what, address, count, peer in calls:
            if what == "recv":
                its, its_count = self.sent.pop((peer, rank))
                assert count == its_count
                ctypes.memmove(address, its, count)
        self.barrier.wait(PATIENCE)
        assert not self.sent
        self.barrier.wait(PATIENCE)
        delattr(self, f"open{rank}")


class Communicator:
    def __init__(self, of, rank):
        self.of, self.rank, self.asked = of, rank, 0

    def _call(self, what, address, count, kind, peer, stream):
        assert kind == StandIn.NCCL_UINT8 and stream == 7 and count
        getattr(self.of, f"open{self.rank}").append((what, address, count, peer))

    def send(self, *call):
        self._call("send", *call)

    def recv(self, *call):
        self._call("recv", *call)

    def check_async_error(self):
        self.asked += 1

    def abort(self):
        pass


CUPY = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=7)))


@pytest.mark.parametrize("size, kind", [(2, tuple), (3, bytes), (5, tuple)])
def test_what_is_exchanged_arrives_wherever_it_is_more_than_nothing(size, kind):
    nccl, port = StandIn(size, kind), free_port()

    def work(rank):
        ranks = Nccl(join(rank, size, port), CUPY, nccl.of(rank), b"GPU-%d" % rank)
        found = []
        for turn in range(3):
            count = lambda a, b: 0 if (a + b + turn) % 3 == 0 else 1 + 13*a + 5*b + turn
            sends = [np.arange(count(rank, r), dtype=np.float32) + 100*rank + r for r in range(size)]
            receives = [np.full(count(r, rank), -1, np.float32) for r in range(size)]
            ranks.exchange(sends, receives)
            found += [np.array_equal(got, np.arange(count(r, rank)) + 100*r + rank) for r, got in enumerate(receives)]
        assert ranks.gather(bytes([rank])) == [bytes([r]) for r in range(size)]
        ranks.leave()
        return found
    assert in_threads(size, work) == [[True]*3*size]*size


@pytest.fixture(scope="module")
def ended():
    """What came of pairs of ranks, one of which is not as the other."""
    return forked.run({how: [[how], 2, {"GRACE": "1"}] for how in ("same", "version", "async")})


@pytest.mark.parametrize("how, status, sentence", [
    ("same", 2, "GPU: expected one of its own, got that of rank 0 (here, H200); start no more ranks on a machine than it has "
                "GPUs"),
    ("version", 2, "NCCL: expected version 22907, as rank 0 has, got 22908"),
    ("async", 75, "expected at work until all are done, got RuntimeError: NCCL_ERROR_SYSTEM_ERROR: unhandled system error")])
def test_two_ranks_on_one_gpu_another_version_and_a_lost_network_are_told_and_end_what_spins(how, status, sentence, ended):
    assert [rank[0] for rank in ended[how]] == [status]*2
    assert [out for _, out, _, _ in ended[how]] == ["aborted\n" if how == "async" else ""]*2
    assert sum(" ".join(err.split()).count(f"error: rank 1 (here, H200): {sentence}") for _, _, err, _ in ended[how]) >= 1
