"""python -m bench cpu --parts shares: which operations the time of a piece of work goes into, and how much of it is no matrix
product.

While the work runs, another thread looks every few milliseconds where each thread that computes is: in which file of
zfcore/ops, and whether at a product (np.matmul). A thread that waits for work is not counted. The full ZFNet on 224 x 224
pixels, pictures of noise that are decoded already; forward passes and steps of 32, and what looks into it: the top-9 pass,
projections, figure 5 and figure 8. Results go to shares.json in the folder --output.
"""
import linecache
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

import zfcore
from bench.cpu import pictures, train_step
from bench.projections import LAYERS, MEAN, Decoded, Noise, noise
from bench.record import Record
from zfcore.analysis.correspondence import correspondence
from zfcore.analysis.invariance import invariance
from zfcore.analysis.top_activations import top_activations
from zfcore.deconvnet import project
from zfcore.models.zfnet import zfnet
from zfcore.optim import SGD
from zfcore.trained import Trained

EVERY = 0.002                     # seconds between two looks
LEAST = 300                       # looks at a piece of work
SHOWN = 4                         # operations in a line
HERE = str(Path(zfcore.__file__).parent)
WAITING = "threading.py", "queue.py", "prefetch.py", "thread.py", "selectors.py", "_base.py"


def main(rounds, folder):
    record = Record(folder/"shares.json", {"every": EVERY})
    print(f"{'share of the time, %':28}{'no product':>11}   by operation")
    for name, work in works():
        row = record.has("cases", name=name)
        if row is None:
            record.add("cases", row := {"name": name, **shares(work)})
        largest = ", ".join(f"{operation} {100*share:.0f}" for operation, share in list(row["by_operation"].items())[:SHOWN])
        print(f"{name:28}{100*row['no_product']:11.0f}   {largest}", flush=True)
    record.finish()


def works():
    """(name, function that does the work once)."""
    network, (x, labels) = zfnet().init(0, "he"), pictures(32)
    model = Trained(network, MEAN)
    yield "forward, N 32", lambda: network.forward(x)
    learner = zfnet().init(0)
    optimizer = SGD(learner, rms_max=None)
    yield "training step, N 32", lambda: train_step(learner, optimizer, x, labels, 0)
    set_of, nine = Decoded(Noise(256), 256, 224, workers=0, memory=0), np.ascontiguousarray(x[..., :9])
    yield "top-9 pass", lambda: top_activations(model, set_of, LAYERS, 9, batch_size=32)
    yield "projections from layer 5", lambda: project(network, nine, "conv5", np.arange(9)*28)
    one = list(noise(1))
    yield "invariance, figure 5", lambda: invariance(model, one, np.zeros(1, np.int64))
    five, places = noise(5, 224), np.full((5, 3, 2), 100) + np.arange(3)[:, None]*30
    yield "correspondence, figure 8", lambda: correspondence(model, five, places, ("a", "b", "c"), random=3, permutations=99)


def shares(work):
    """{"looks": count, "no_product": share of the time, "by_operation": {name: share}}, the largest first, of a function that
    is called once before anything is counted and then until enough was seen."""
    work()
    products, operations, stop = Counter(), Counter(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(threading.get_ident(), products, operations, stop), daemon=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(EVERY/4)
    watcher.start()
    try:
        while operations.total() < LEAST:
            work()
    finally:
        stop.set()
        watcher.join()
        sys.setswitchinterval(before)
    looks = operations.total()
    return {"looks": looks, "no_product": products[False]/looks,
            "by_operation": {name: count/looks for name, count in operations.most_common()}}


def _watch(first, products, operations, stop):
    """Count until `stop` where the threads are, of which `first` has the work and others help."""
    me = threading.get_ident()
    while not stop.is_set():
        for number, frame in sys._current_frames().items():
            if number != me and (found := where(frame)):
                operation, product = found
                operations[operation] += 1
                products[product] += 1
        time.sleep(EVERY)


def where(frame):
    """(operation, whether at a product) of a thread at `frame`, None where it waits or has nothing to do with zfcore. An
    operation is a file of zfcore/ops, else the file of zfcore that is at work."""
    if Path(frame.f_code.co_filename).name in WAITING or frame.f_code.co_name in ("wait", "acquire", "get"):
        return None
    path, own = frame.f_code.co_filename, None
    product = path.startswith(HERE) and "np.matmul(" in linecache.getline(path, frame.f_lineno or 0)
    while frame:
        path = frame.f_code.co_filename
        if path.startswith(HERE):
            own = own or Path(path).stem
            if Path(path).parent.name == "ops":
                return Path(path).stem, product
        frame = frame.f_back
    return None if own in (None, "cpu") else (own, product)
