"""python -m tests.ranks.forked: jobs of tests.ranks.program, all at once, whose ranks are forks of this process: it has
imported all that they need, and has no thread that a fork would lack.

On standard input stands what to do as JSON, {job: [words of the program, number of ranks, {variable: value} of their
environment]}; on standard output what came of it, {job: [[status, output, errors, seconds] of each rank]}. `run` does both
ends. A rank that is there after LIMIT seconds, or ALONE seconds after all others of its job, is killed."""
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.ranks import program
from train.launch import free_port
from zfcore.ranks.environment import FOUR

LIMIT, ALONE = 25, 3             # seconds


def run(jobs):
    """What came of these jobs; of one that is killed here the status is -9."""
    done = subprocess.run([sys.executable, "-m", __name__], input=json.dumps(jobs), stdout=subprocess.PIPE, text=True,
                          check=True, timeout=2*LIMIT)
    return json.loads(done.stdout)


class Rank:
    """A fork that does `words` of the program with these variables in its environment."""

    def __init__(self, words, environment, folder):
        self.files, self.status, self.begun = [folder/"out", folder/"err"], None, time.monotonic()
        folder.mkdir()
        self.pid = os.fork()
        if self.pid == 0:
            self.work(words, environment)

    def work(self, words, environment):
        status = 1
        try:
            for descriptor, file in enumerate(self.files, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
            os.environ.update(environment)
            program.main(*words)
            status = 0
        except SystemExit as left:
            status = left.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def look(self):
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.begun
        return self.status is not None

    @property
    def told(self):
        return [self.status, *(file.read_text() for file in self.files), self.seconds]


def work(jobs, folder):
    """{job: its ranks}, after all have ended."""
    started = {}
    for job, (words, size, environment) in jobs.items():
        port, number, started[job] = str(free_port()), len(started), []
        for rank in range(size):
            four = dict(zip(FOUR, (str(rank), str(size), "127.0.0.1", port)))
            started[job].append(Rank(words, {**environment, **four, "LOCAL_RANK": str(rank)}, folder/f"{number}-{rank}"))
    waiting, begun, last = list(started.values()), time.monotonic(), {}
    while waiting:
        for ranks in [*waiting]:
            left = [rank for rank in ranks if not rank.look()]
            others_ended = last.setdefault(id(ranks), time.monotonic()) if len(left) == 1 else time.monotonic()
            if time.monotonic() - begun > LIMIT or time.monotonic() - others_ended > ALONE:
                for rank in left:
                    os.kill(rank.pid, 9)
            if not left:
                waiting.remove(ranks)
        time.sleep(0.02)
    return started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = work(json.load(sys.stdin), Path(temporary))
        json.dump({job: [rank.told for rank in ranks] for job, ranks in found.items()}, sys.stdout)
