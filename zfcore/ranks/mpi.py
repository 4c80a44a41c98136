"""Ranks that mpiexec has started: arrays go by MPI, over the fastest network that it knows. This is the only file that imports
mpi4py.

Where the others are is told by MPI; rows and the watch go by TCP, as those of Sockets: MPI does not notice a rank that is
stalled."""
import secrets
import socket
import time
from collections.abc import Mapping, Sequence

from zfcore.check import Expected
from zfcore.hints import Array
from zfcore.ranks.environment import BY_MPI, TOKEN, number
from zfcore.ranks.meeting import Links, Place, listen
from zfcore.ranks.sockets import Sockets, memory

PIECE = 2**30                    # bytes in one message, which MPI counts with 31 bits
PAUSE = 1e-4                     # seconds between two looks whether all has arrived


def place(environ: Mapping[str, str]) -> tuple[Place, socket.socket | None]:
    """Place of this process among those of mpiexec, and the socket at which rank 0 listens. Raises Expected without mpi4py, or
    where its MPI is another than mpiexec's."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise Expected("mpiexec", "mpi4py, with the MPI that it was built for", error, 'pip install "zfcore[mpi]"') from None
    except RuntimeError as error:                         # the library is not there, or does not begin
        raise Expected("mpiexec", "an MPI that begins", str(error).splitlines()[0],
                       'pip install "zfcore[mpi]" brings one with its mpiexec') from None
    world = MPI.COMM_WORLD
    wanted = max(number(environ, name, 1, 2**31, 1) for name in BY_MPI)
    if world.size != wanted:
        raise Expected("mpiexec", f"{wanted} ranks in mpi4py's MPI ({MPI.Get_library_version().split(',')[0].strip()})",
                       world.size,
                       "this mpiexec is of another MPI; take the one beside this Python")
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    host = environ.get("MASTER_ADDR") or ("127.0.0.1" if local.size == world.size else socket.gethostname())
    listener = listen(host, number(environ, "MASTER_PORT", 0, 65535, 0)) if world.rank == 0 else None
    mine = (host, listener.getsockname()[1], environ.get(TOKEN) or secrets.token_hex(16)) if listener else None
    host, port, token = _told(world, mine)
    return Place(world.rank, world.size, local.rank, host, port, token.encode()), listener


def _told(world, mine):
    """(host, port, token) as rank 0 knows them: bytes of a fixed length, as mpi4py's own way would pickle."""
    raw = bytearray(4096)
    if mine:
        words = "\n".join(map(str, mine)).encode()
        raw[:len(words)] = words
    world.Bcast(raw, root=0)
    host, port, token = raw.rstrip(b"\0").decode().split("\n")
    return host, int(port), token


class Mpi(Sockets):
    """Sockets whose arrays go by MPI."""

    def __init__(self, links: Links) -> None:
        from mpi4py import MPI
        super().__init__(links)
        self.world, self.request = MPI.COMM_WORLD, MPI.Request

    def exchange(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        if sends[self.rank].size:
            receives[self.rank][...] = sends[self.rank]
        self.raise_failure()
        under_way = [begin(piece, r) for begin, arrays in ((self.world.Irecv, receives), (self.world.Isend, sends))
                     for r, array in enumerate(arrays) if r != self.rank and array.size for piece in _pieces(memory(array))]
        with self.watch.waiting():
            while not self.request.Testall(under_way):
                self.raise_failure()
                time.sleep(PAUSE)


def _pieces(whole):
    return [whole[k:k + PIECE] for k in range(0, len(whole), PIECE)]
