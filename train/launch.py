"""Launcher of --devices N: a training of several processes on this machine, started, stopped and, where one is lost, started
again.

Each process is `python -m train` with the same options, and a rank by the variables that torchrun sets too
(zfcore/ranks/environment.py). Rank 0 alone speaks. Signals reach the launcher, as the ranks are in sessions of their own: it
passes the first one on to rank 0, after which all stop with the same step, and the second to all. No rank outlives the
launcher, which ends those that do not end by themselves; and where it was killed each of them notices
(zfcore/ranks/watch.py)."""
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from zfcore.check import Expected
from zfcore.crew import THREADS, visible_gpus
from zfcore.ranks import LOST
from zfcore.ranks.environment import FOUR, LAUNCHER, TOKEN, is_rank
from zfcore.reduce import micro_batch
from zfcore.system import cores
from zfcore.terminal import ENDING, command, plural, warn
from zfcore.training.folder import checked_empty, dated

GRACE = 10                       # seconds for the others to end by themselves, after one has failed
LOOK_EVERY = 0.05                # seconds


def launch(arguments: list[str], config, devices: int, restarts: int = 0, output: str | None = None,
           resume: Path | None = None) -> int:
    """Train with the `arguments` of the command line, and this TrainConfig of theirs, in as many processes; returns the exit
    status. `restarts`: how often it goes on when one is lost, with those that are left. Raises Expected where there are not so
    many GPUs or pieces of a batch, or this is one of several processes already."""
    if is_rank():
        raise Expected("--devices",
                       "none in a process that mpiexec, srun or torchrun has started, as these say how many there are", devices)
    micro_batch(config.batch_size, config.micro_batch, devices)            # before so many processes come up
    cards = visible_gpus(config.device, devices)
    folder = resume or checked_empty(Path(output or dated(config.model)))
    again = arguments if resume else ["--resume", os.fspath(folder)]
    for turn in range(restarts + 1):
        begun = resume or (folder/"config.json").is_file()
        job = Job(again if begun else [*arguments, "--output", os.fspath(folder)], cards)
        with job:
            job.wait()
        lost = job.lost()
        if job.status() != LOST or turn == restarts:
            break
        cards = [card for rank, card in enumerate(cards) if rank not in lost] or cards[:1]
        warn(f"going on with {plural(len(cards), 'process')}, restart {turn + 1} of {restarts}")
    if job.status() == LOST and len(lost) == len(job.ranks):
        warn(f"error: ranks: expected at work until all are done, got all {len(lost)} gone")
    if job.status() == LOST and (folder/"config.json").is_file():
        warn(f"the last checkpoint is whole. Go on with: "
             f"{command('python', '-m', 'train', '--resume', folder, '--devices', len(cards))}")
    return job.status()


class Job:
    """`with Job(arguments, cards) as job: job.wait()`: processes of `python -m module` that work together, a rank for each of
    `cards`, whose GPU that is."""

    def __init__(self, arguments, cards, module="train"):
        self.arguments, self.cards, self.module, self.ranks, self.signals, self.killed = arguments, cards, module, [], [], set()

    def __enter__(self):
        port, token = free_port(), secrets.token_hex(16)
        threads = {name: str(max(cores()//len(self.cards), 1)) for name in THREADS}
        self.before = {number: signal.signal(number, self.pass_on) for number in ENDING
                       if signal.getsignal(number) != signal.SIG_IGN}
        for rank, card in enumerate(self.cards):
            four = dict(zip(FOUR, (str(rank), str(len(self.cards)), "127.0.0.1", str(port))))
            environment = {**os.environ, **threads, **four, "LOCAL_RANK": str(rank),
                           TOKEN: token, LAUNCHER: str(os.getpid()), **({} if card is None else {"CUDA_VISIBLE_DEVICES": card})}
            self.ranks.append(subprocess.Popen([sys.executable, "-m", self.module, *self.arguments], env=environment,
                                               stdin=subprocess.DEVNULL,
                                               start_new_session=True))
        if self.signals:                       # which came before there was anybody to hear them
            self.ranks[0].send_signal(self.signals[-1])
        return self

    def __exit__(self, *_):
        for rank, process in enumerate(self.ranks):
            if process.poll() is None:
                process.kill()
                self.killed.add(rank)
            process.wait()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def pass_on(self, number, frame):
        """Pass a signal on to rank 0, which tells the others after its step, a second one to all."""
        self.signals.append(number)
        for process in self.ranks[:1] if len(self.signals) == 1 else self.ranks:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self):
        """Wait until all have ended; GRACE seconds after one has failed or rank 0 has ended, the rest is left to `__exit__`."""
        until = None
        while None in (statuses := [process.poll() for process in self.ranks]) and (until is None or time.monotonic() < until):
            if until is None and (statuses[0] is not None or any(statuses)):
                until = time.monotonic() + GRACE
            time.sleep(LOOK_EVERY)

    def lost(self):
        """The ranks that were killed, by whomever."""
        return [rank for rank, process in enumerate(self.ranks) if process.returncode < 0]

    def status(self):
        """The exit status of all: that of the mistake that one has made, before that of a rank that is lost; by a signal to the
        launcher, as a shell tells of it."""
        statuses = [process.returncode for rank, process in enumerate(self.ranks) if rank not in self.killed]
        failed = [status for status in statuses if status > 0 and status != LOST]
        if failed:
            return 1 if 1 in failed else failed[0]
        if any(statuses) or self.killed:
            return 128 + self.signals[-1] if self.signals else LOST
        return 0


def free_port():
    """The number of a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
