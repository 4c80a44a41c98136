"""Floor 2: the ranks of a training: processes, each with a device of its own, that take every step together.

    ranks.rank, ranks.size, ranks.names       the number of this one, 0 to size - 1; how many; where each runs, in words
    ranks.gather(row)                         every rank's row of bytes, in the order of the ranks
    ranks.exchange(sends, receives)           arrays: sends[r] goes to rank r, what rank r sends here comes into receives[r]
    ranks.abort(sentence)                     end all ranks, of which the first on each machine tells the sentence
    with ranks:                               in this block an exception of one rank ends all, and at its end this one leaves

Each but the last two is a call that all ranks make, in the same order. What travels is bytes. Nothing is added on the way: a
library adds in an order that depends on how many ranks there are and how they are joined, and zfcore's sums do not
(zfcore/reduce.py).

    environment.py   by what this process was started as a rank, if it was
    meeting.py       how ranks on any machines find each other
    sockets.py       Sockets, which are joined by TCP alone
    watch.py         how a rank learns that another one is lost or stalled
    mpi.py, nccl.py  Sockets whose arrays go by MPI, between GPUs by NCCL
"""
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from zfcore.check import Expected
from zfcore.hints import Array
from zfcore.terminal import printable

LOST = 75                        # the exit status of a training that lost a rank: to be tried again (EX_TEMPFAIL of sysexits.h)


class Failed(Expected):
    """Failure of the rank `who`, by its name, in a `sentence`. It ends all ranks with `status`: LOST, or 2 where it is a user's
    to mend."""

    def __init__(self, who: str, sentence: str, status: int = LOST) -> None:
        super().__init__(who, "all ranks at work", sentence)
        self.args, self.status = (printable(f"{who}: {sentence}"),), status


class Ranks(ABC):
    """Ranks as this process sees them."""
    rank: int
    size: int
    names: Sequence[str]          # "rank 3 (host, GPU 1)"

    @property
    def is_first(self) -> bool:
        """Return whether this is rank 0, the one that writes files and speaks."""
        return self.rank == 0

    @abstractmethod
    def gather(self, row: bytes) -> list[bytes]:
        """Rows of all ranks, this one's being `row`, in the order of the ranks; they may differ in length."""

    @abstractmethod
    def exchange(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        """Fill receives[r] with what rank r gives as sends[this rank], the rank's own included. Contiguous arrays; what is sent
        has the size and dtype that is waited for, which may be 0 elements: then nothing travels between these two."""

    @abstractmethod
    def abort(self, sentence: str) -> NoReturn:
        """End this rank and all others with `sentence` (which names this rank) and exit status 2, without waiting for
        anybody."""

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the others, or end them where the block has failed."""


class Alone(Ranks):
    """One process that trains by itself."""
    rank, size, names = 0, 1, ("rank 0",)

    def gather(self, row: bytes) -> list[bytes]:
        return [row]

    def exchange(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        receives[0][...] = sends[0]

    def abort(self, sentence: str) -> NoReturn:
        raise Expected("training", "all ranks at work", sentence)


ALONE = Alone()
