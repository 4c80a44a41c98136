"""Ranks on GPUs: arrays go from GPU to GPU by NCCL, rows and the watch by TCP as those of Sockets. It has not run on hardware
yet."""
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from zfcore.backend import address
from zfcore.check import Expected
from zfcore.hints import Array
from zfcore.ranks.meeting import Links
from zfcore.ranks.sockets import Sockets


class Nccl(Sockets):
    """Sockets whose arrays, which are CuPy's, go by NCCL on the current stream; nobody waits for them here. `identity` tells
    this rank's GPU from any other in the world. Raises Expected where two ranks have one GPU."""

    def __init__(self, links: Links, cupy: ModuleType, nccl: Any, identity: bytes, launcher: int = 0) -> None:
        super().__init__(links, launcher)
        self.cupy, self.nccl = cupy, nccl
        try:
            self.communicator = self.joined(identity)
        except Exception as error:
            self.__exit__(type(error), error, error.__traceback__)
        self.watch.checks.append(self.communicator.check_async_error)
        self.watch.cures.append(self.communicator.abort)       # else its kernels spin for ever, and the process with them

    def joined(self, identity):
        """The communicator of all ranks, whose GPUs and versions have been compared before."""
        cards = self.gather(identity)
        if (first := cards.index(identity)) != self.rank:
            raise Expected("GPU", "one of its own", f"that of {self.names[first]}",
                           "start no more ranks on a machine than it has GPUs")
        versions = self.gather(str(self.nccl.get_version()).encode())
        if versions[0] != versions[self.rank]:
            raise Expected("NCCL", f"version {versions[0].decode()}, as rank 0 has", versions[self.rank].decode())
        ours = self.gather(_packed(self.nccl.get_unique_id()) if self.is_first else b"")[0]
        return self.nccl.NcclCommunicator(self.size, _unpacked(ours), self.rank)

    def exchange(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        self.raise_failure()
        if sends[self.rank].size:
            receives[self.rank][...] = sends[self.rank]
        stream = self.cupy.cuda.get_current_stream().ptr
        self.nccl.groupStart()                 # all at once, or two that send to each other would wait for ever
        for move, arrays in ((self.communicator.send, sends), (self.communicator.recv, receives)):
            for r, array in enumerate(arrays):
                if r != self.rank and array.size:
                    move(address(array), array.nbytes, self.nccl.NCCL_UINT8, r, stream)
        self.nccl.groupEnd()


def _packed(unique):
    """NCCL's unique id as bytes. CuPy gives bytes, and gave 128 numbers of one signed byte."""
    return (b"b" if isinstance(unique, bytes) else b"n") + bytes(number & 255 for number in unique)


def _unpacked(raw):
    return raw[1:] if raw[:1] == b"b" else tuple(number - 256*(number > 127) for number in raw[1:])
