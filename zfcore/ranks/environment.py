"""Rank of this process, by what started it: zfcore's own launcher, torchrun or whoever sets the same variables, mpiexec, or
srun."""
import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from typing import Literal

from zfcore import gpu
from zfcore.check import Expected
from zfcore.ranks import ALONE, Ranks
from zfcore.ranks.meeting import Place, meet
from zfcore.ranks.watch import end_with
from zfcore.terminal import quiet, say

FOUR = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"           # of torchrun; also of train/launch.py, and to set by hand
TOKEN, LAUNCHER = "ZFCORE_TOKEN", "ZFCORE_LAUNCHER"                  # what all ranks of a job know; who started it
BY_MPI = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"                          # Open MPI; MPICH, Intel MPI
MOST = 2**16                     # ranks


def is_rank(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process is one of several ranks already."""
    return starter(environ) != "nobody"


def is_launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether zfcore's own launcher has started this process."""
    return LAUNCHER in environ


def starter(environ: Mapping[str, str]) -> Literal["nobody", "hand", "mpiexec", "srun"]:
    """The one who made this process one of several ranks; "hand" is everybody who sets the FOUR variables. Raises Expected for
    some of them, or no numbers."""
    by_slurm = number(environ, "SLURM_STEP_NUM_TASKS", 1, MOST, 1) > 1
    if number(environ, "WORLD_SIZE", 1, MOST, 1) > 1 and "RANK" in environ:
        if missing := [name for name in FOUR if name not in environ]:
            raise Expected("ranks", ", ".join(FOUR) + " in the environment", f"no {', '.join(missing)}",
                           "or none of them, for one process")
        return "hand"
    if any(number(environ, name, 1, MOST, 1) > 1 for name in BY_MPI) and not (by_slurm and BY_MPI[0] not in environ):
        return "mpiexec"
    return "srun" if by_slurm else "nobody"


def number(environ: Mapping[str, str], name: str, low: int, high: int, missing: int | None = None) -> int:
    """The whole number that a variable of the environment holds. Raises Expected for another, and where there is none and no
    `missing`."""
    if (value := environ.get(name)) is None and missing is not None:
        return missing
    try:
        if low <= int(value or "") <= high:
            return int(value or "")
    except ValueError:
        pass
    raise Expected(name, f"a whole number from {low} to {high} in the environment", repr(value))


def open(device: Literal["auto", "cpu", "gpu"], environ: MutableMapping[str, str] = os.environ) -> Ranks:
    """The Ranks that this process is one of, on the device of that name; ALONE where nobody started several. A rank takes one
    GPU of its machine, and from then on this process sees no other. All but rank 0 are quiet from then on. Raises Expected
    where they do not find each other."""
    launcher = number(environ, LAUNCHER, 1, 2**31, 0)
    if (by := starter(environ)) == "nobody":
        if launcher:
            end_with(launcher)
        return ALONE
    host, listener = socket.gethostname(), None
    if by == "mpiexec":
        from zfcore.ranks import mpi
        place, listener = mpi.place(environ)
    else:
        place = by_variables(environ) if by == "hand" else by_slurm(environ)
    card = own_gpu(device, place.local, environ)
    name = f"rank {place.rank} ({host}, {card.name if card else 'CPU'})"
    links = meet(place, name, host, "GPU" if card else "CPU", listener, all_pairs=by != "mpiexec" and not card)
    if by == "hand" and not launcher and place.rank and not place.local:        # on a machine where nobody else speaks
        say(f"{name}: at work with {links.names[0]}, which speaks for all {place.size}")
    quiet(place.rank > 0)
    if card:
        from zfcore.ranks.nccl import Nccl
        return Nccl(links, *gpu.find_nccl(), card.identity, launcher)
    if by == "mpiexec":
        return mpi.Mpi(links)
    from zfcore.ranks.sockets import Sockets
    return Sockets(links, launcher)


def by_variables(environ: Mapping[str, str]) -> Place:
    """Place that the FOUR variables say, and LOCAL_RANK; without that one each rank is taken to be on a machine of its own."""
    size, port = number(environ, "WORLD_SIZE", 2, MOST), number(environ, "MASTER_PORT", 1, 65534)
    taken = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"   # where torchrun itself listens
    return Place(number(environ, "RANK", 0, size - 1), size, number(environ, "LOCAL_RANK", 0, MOST, 0), environ["MASTER_ADDR"],
                 port + taken,
                 token(environ, environ.get("TORCHELASTIC_RUN_ID", "")))


def by_slurm(environ: Mapping[str, str]) -> Place:
    """Place of a task of srun. Rank 0 runs on the first machine of the step, and listens at a port that follows from the job's
    number."""
    size, job = number(environ, "SLURM_STEP_NUM_TASKS", 2, MOST), environ.get("SLURM_JOB_ID", "0")
    port = 20000 + number(environ, "SLURM_JOB_ID", 0, 2**63, 0) % 20000
    return Place(number(environ, "SLURM_PROCID", 0, size - 1), size, number(environ, "SLURM_LOCALID", 0, MOST),
                 environ.get("MASTER_ADDR") or first_machine(environ.get("SLURM_STEP_NODELIST", "")),
                 number(environ, "MASTER_PORT", 1, 65535, port),
                 token(environ, f"{job}.{environ.get('SLURM_STEP_ID', '0')}"))


def token(environ: Mapping[str, str], job: str) -> bytes:
    """The job's token: ZFCORE_TOKEN, or what tells it from other jobs, but is no secret."""
    return environ.get(TOKEN, f"zfcore {job}").encode()


def first_machine(machines: str) -> str:
    """The first name in a list of Slurm's: "gpu[003-010,012],login1" begins with gpu003. Raises Expected for none."""
    if not (found := re.match(r"([^,\[\]]+)(?:\[([^\],-]+))?", machines)):
        raise Expected("SLURM_STEP_NODELIST", "names of machines", repr(machines),
                       "MASTER_ADDR may name that of rank 0 instead")
    return found[1] + (found[2] or "")


def own_gpu(device: str, local: int, environ: MutableMapping[str, str]) -> "gpu.Card | None":
    """Let this process see the GPU for the rank `local` of its machine alone, the only one where it sees but one already, and
    return that, or None for a CPU. CuPy must not have asked for GPUs before."""
    if device == "cpu":
        return None
    before = environ.get("CUDA_VISIBLE_DEVICES")
    there = [name for name in (before or "").split(",") if name]
    if before is None:
        environ["CUDA_VISIBLE_DEVICES"] = str(local)
    elif len(there) > 1:
        if local >= len(there):
            raise Expected("--device gpu", f"a GPU of its own for each rank of {socket.gethostname()}, {local + 1} or more",
                           f"{len(there)} (CUDA_VISIBLE_DEVICES={before})")
        environ["CUDA_VISIBLE_DEVICES"] = there[local]
    try:
        return gpu.card()
    except Expected:
        if device == "gpu":
            raise
        return None
