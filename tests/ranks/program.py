"""python -m tests.ranks.program WHAT [SIZES ...]: one rank, by its environment, that does WHAT with the others.

    moves        gathers and exchanges arrays of about these numbers of elements, and prints a hash of all that came to each
    computes     lets the others wait while the last rank computes
    same, version, async      ranks on GPUs that a stand-in for NCCL joins: the last has the first one's GPU or another NCCL, or
                 hears that its network is lost
    another      what the last rank, or WHO in the environment, does in step 3 of many, while the others go on: one of FAILURES
SILENT, STALLED and GRACE in the environment are seconds of zfcore/ranks/watch.py."""
import hashlib
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np

from zfcore import check
from zfcore.ranks import watch
from zfcore.ranks.environment import by_variables
from zfcore.ranks.environment import open as open_ranks
from zfcore.ranks.meeting import meet
from zfcore.ranks.nccl import Nccl


def moves(ranks, *sizes):
    found = hashlib.sha256()
    for turn, most in enumerate(map(int, sizes)):
        rows = ranks.gather(bytes([ranks.rank])*(ranks.rank*most//3 + turn))
        assert rows == [bytes([r])*(r*most//3 + turn) for r in range(ranks.size)]
        sends = [between(ranks.rank, r, most, turn) for r in range(ranks.size)]
        wanted = [between(r, ranks.rank, most, turn) for r in range(ranks.size)]
        receives = [np.full_like(array, -1) for array in wanted]
        ranks.exchange(sends, receives)
        assert all(np.array_equal(mine, its) for mine, its in zip(receives, wanted))
        for array in receives:
            found.update(array)
    print("".join(row.decode() for row in ranks.gather(found.hexdigest()[:8].encode())), flush=True)


def between(a, b, most, turn):
    """What rank a sends to rank b: of another length between each two, nothing between some."""
    rng = np.random.default_rng([a, b, turn])
    size = 0 if (a + b + turn) % 3 == 0 else max(most - 7*a - 3*b, 0)
    return rng.integers(0, 255, 4*size, np.uint8).view(np.float32).reshape(size, 1).view(np.int32)


def fails(ranks, how):
    for step in range(10**6):
        ranks.gather(b"row")
        if step == 3 and ranks.rank == int(os.environ.get("WHO", ranks.size - 1)):
            FAILURES[how](ranks)
        ranks.exchange([np.ones(1000, np.float32)]*ranks.size, [np.empty(1000, np.float32) for _ in range(ranks.size)])


def expected(ranks):
    raise check.Expected("--data", "a folder", "'none'")


def interrupted(ranks):
    # which a shell leaves out of what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)


def computes(ranks):
    """The last rank computes for longer than a standstill may last, a tenth of the time, while the others wait."""
    until = time.monotonic() + 2*watch.STALLED
    while ranks.rank and time.monotonic() < until:
        sum(range(10**5))
        time.sleep(0.01)
    ranks.gather(b"")


class Communicator:
    """NCCL's of one rank, to which a kernel hangs that waits for the others for ever."""

    def __init__(self, size, unique, rank, is_lost=False):
        self.is_lost = is_lost

    def check_async_error(self):
        if self.is_lost:
            raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")

    def abort(self):
        print("aborted", flush=True)


def on_gpus(how):
    """Join by NCCL, each rank on a machine of its own where the network is lost, and then wait for a kernel."""
    place = by_variables(os.environ)
    is_last = place.rank + 1 == place.size
    nccl = SimpleNamespace(get_version=lambda: 22907 + (how == "version" and is_last), get_unique_id=lambda: (0,)*128,
                           NcclCommunicator=lambda *of: Communicator(*of, is_lost=how == "async" and is_last))
    links = meet(place, f"rank {place.rank} (here, H200)", f"machine {place.rank*(how == 'async')}", "GPU")
    with Nccl(links, None, nccl, b"GPU" if how == "same" else b"GPU%d" % place.rank):
        time.sleep(60)


FAILURES = {"raises": lambda ranks: {}["nothing"], "expected": expected, "exits": lambda ranks: os._exit(0),
            "leaves": lambda ranks: sys.exit(0),
            "sleeps": lambda ranks: time.sleep(1000), "killed": lambda ranks: os.kill(os.getpid(), signal.SIGKILL),
            "stopped": lambda ranks: os.kill(os.getpid(), signal.SIGSTOP), "refuses": lambda ranks: ranks.abort("no more"),
            "interrupted": interrupted, "memory": lambda ranks: np.empty(2**45, np.uint8)}


@check.exit_with_message
def main(what, *sizes):
    for name in {"SILENT", "STALLED", "GRACE"} & os.environ.keys():
        setattr(watch, name, float(os.environ[name]))
    if what in ("same", "version", "async"):
        return on_gpus(what)
    with open_ranks("cpu") as ranks:
        if what == "moves":
            moves(ranks, *sizes)
        elif what == "computes":
            computes(ranks)
        else:
            fails(ranks, what)


if __name__ == "__main__":
    main(*sys.argv[1:])
