"""python -m tests.kills FOLDER KILLS OPTIONS ...: a training of `python -m train` with these options that is killed at KILLS
random moments and gone on with each time, until it ends by itself in FOLDER. Prints how often it was killed.

A process that has loaded everything forks the training and kills it after a random time, again and again."""
import os
import random
import shutil
import signal
import sys
import time

from train.__main__ import main


def train_and_kill(folder, wanted, *options, seed=5, longest=0.4):
    rng, kills = random.Random(seed), 0
    while True:
        resume = os.path.exists(os.path.join(folder, "config.json"))
        child = os.fork()
        if not child:
            sys.stdout = open(os.devnull, "w")
            main(["--resume", folder] if resume else [*options, "--output", folder])
            os._exit(0)
        if kills < wanted:
            time.sleep(rng.uniform(0.02, longest))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        kills += os.WIFSIGNALED(status)
        if kills == wanted and status == 0:
            return kills
        if status == 0:                                     # it ended before the kill came: a shorter run is killed next
            shutil.rmtree(folder)


if __name__ == "__main__":
    print(train_and_kill(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
