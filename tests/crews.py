"""What the processes of a crew do in tests: apart from these, as pytest and matplotlib take longer to load than all that."""
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from train.study import StudyFolder, Unit
from zfcore.checkpoint import Unwritable
from zfcore.commands import top_activations
from zfcore.crew import crew
from zfcore.training import Stop
from zfcore.training.folder import Busy


class Named(Unit):
    """A unit whose order is its name, done when a file of that name is in `folder`, and its failure in NAME.failed."""

    def __init__(self, folder, name, lock=""):
        self.folder, self.name, self.lock, self.order = folder, name, lock, name

    @property
    def done(self):
        return int((self.folder/self.name).is_file())

    @property
    def failure(self):
        return "failed" if (self.folder/f"{self.name}.failed").is_file() else ""


def served(folder, also=""):
    """In a process of the crew: write a unit's name, this process and its surroundings into tried.txt; then do what the name
    says."""
    folder, study = Path(folder), StudyFolder(folder)

    def do(name, progress, wait):
        with study.at(Named(folder, name, ".locked" if name.startswith("locked") else ""), wait) as is_left:
            if is_left:
                with open(folder/"tried.txt", "a") as file:
                    file.write(f"{name} {os.getpid()} {os.environ['OMP_NUM_THREADS']} "
                               f"{os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
                print("noise", file=sys.stdout, flush=True)
                WAYS[name.split("-")[0]](folder, name)
                progress()
                (folder/name).write_text("")
                return {"name": name, "also": also, "a third": 1/3}
    return do


def dies_once(folder, name):
    try:
        (folder/f"{name}.once").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def until(path, seconds=120):
    for _ in range(int(seconds/0.02)):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"no {path}")


def tell_pid(path):
    """Leave this process's number in a file, which is there only when it is whole."""
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)


def stops(folder, name):
    """As a training does: finish what is under way, then stop."""
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    tell_pid(folder/f"{name}.begun")
    while not heard:
        time.sleep(0.01)
    (folder/f"{name}.saved").touch()
    raise Stop(signal.SIGTERM)


def full(folder, name):
    raise Unwritable(folder, "room", "none")


WAYS = {"quick": lambda *_: None, "locked": lambda *_: None, "dies": dies_once, "stops": stops, "full": full,
        "dead": lambda *_: os.kill(os.getpid(), signal.SIGKILL), "wrong": lambda *_: {}["nothing"],
        "pair": lambda folder, name: ((folder/f"{name}.there").touch(), until(folder/f"pair-{1 - int(name[-1])}.there")),
        "busy": lambda folder, name: (_ for _ in ()).throw(Busy(folder, "nobody", "somebody"))}


def work(folder, *units, devices=2, results=None):
    with crew(devices, "cpu", "tests.crews:served", folder=str(folder), also="é\n\"") as several:
        StudyFolder(folder).work(units, None, take=lambda unit, result: None if results is None
                                 else results.append((unit.name, result)), crew=several)


def named(folder, *names):
    return [Named(folder, name) for name in names]


def slowed(**facts):
    """In a process of --devices: work as `top_activations.served`, kept after every batch, whose second one lasts until somebody
    ends it; a file then tells who it is."""
    top = top_activations.top
    top.top_activations = partial(top.top_activations, every=0)
    do = top_activations.served(**facts)

    def one(order, progress, wait):
        batches = []

        def told(count):
            progress(count)
            batches.append(count)
            if sum(map(bool, batches)) == 2:
                tell_pid(Path(order["file"]).parents[1]/f"begun-{order['shard'][0]}")
                time.sleep(60)
        return do(order, told, wait)
    return one
