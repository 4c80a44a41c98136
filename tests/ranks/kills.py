"""python -m tests.ranks.kills FOLDER KILLS OPTIONS ...: a training of `python -m train` with these options in 1 to MOST
processes, one of which is killed at a random moment, KILLS times, and each time it goes on with another number of processes,
until it ends by itself in FOLDER. Prints how often it was killed with how many processes."""
import random
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path

from train.launch import Job

MOST = 4


def train_and_kill(folder, wanted, *options, seed=5, longest=6.0):
    rng, kills, size = random.Random(seed), Counter(), 1
    while True:
        size = rng.choice([other for other in range(1, MOST + 1) if other != size])
        begun = (folder/"config.json").is_file()
        with Job(["--resume", str(folder)] if begun else [*options, "--output", str(folder)], [None]*size) as job:
            timer = threading.Timer(rng.uniform(0.3, longest), job.ranks[rng.randrange(size)].kill)
            if sum(kills.values()) < wanted:
                timer.start()
            job.wait()
            timer.cancel()
        if job.lost():
            kills[size] += 1
        elif job.status():
            raise SystemExit(f"status {job.status()} with {size} processes, after {kills}")
        elif sum(kills.values()) == wanted:
            return kills
        else:                                              # it ended before the kill came: a shorter run is killed next
            shutil.rmtree(folder)


if __name__ == "__main__":
    found = train_and_kill(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    print(f"killed {sum(found.values())} times, with these numbers of processes: {dict(sorted(found.items()))}")
