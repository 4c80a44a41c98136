"""python -m bench cpu --parts threads: the full ZFNet on 1, 2, 4 and 8 cores, of those that there are.

Each number of cores is a process of its own that is allowed so many, from the start. Printed is the median time of an image,
and how much of so many times the speed of one core is reached. Results go to threads.json in the folder --output.
"""
import multiprocessing
import os
import statistics
import time
from contextlib import contextmanager

from bench.cpu import pictures, train_step
from bench.record import Record
from zfcore.cpu import CORES
from zfcore.models.zfnet import zfnet
from zfcore.optim import SGD

COUNTS, N = (1, 2, 4, 8), 32


def main(rounds, folder):
    rounds = min(rounds, 5)
    if not hasattr(os, "sched_setaffinity"):
        print("threads: this system does not let a process be kept to some of the cores")
        return
    record = Record(folder/"threads.json", {"rounds": rounds})
    print(f"{'milliseconds an image':28}{'cores':>6}{'ours':>9}{'of linear':>11}")
    for count in (count for count in COUNTS if count <= CORES):
        if not record.has("cases", cores=count):
            with kept_to(count), multiprocessing.get_context("spawn").Pool(1) as pool:
                for name, milliseconds in pool.apply(measured, (rounds,)).items():
                    one = record.has("cases", name=name, cores=1) or {"milliseconds": milliseconds}
                    record.add("cases", {"name": name, "N": N, "cores": count, "milliseconds": milliseconds,
                                         "of_linear": one["milliseconds"]/milliseconds/count})
        for row in (row for row in record.report["cases"] if row["cores"] == count):
            print(f"{row['name']:28}{count:6}{row['milliseconds']:9.2f}{100*row['of_linear']:9.0f} %", flush=True)
    record.finish()


@contextmanager
def kept_to(count):
    """Keep this thread, and the processes that it starts in the block, to `count` of the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measured(rounds):
    """{name: milliseconds an image, the median}, in a process that is kept to some cores."""
    network, learner, (x, labels) = zfnet().init(0, "he"), zfnet().init(0), pictures(N)
    optimizer = SGD(learner, rms_max=None)
    found = {}
    for name, run in (("forward", lambda: network.forward(x)),
                      ("training step", lambda: train_step(learner, optimizer, x, labels, 0))):
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start)/N*1e3)
        found[name] = statistics.median(times[1:])
    return found
