"""python -m bench loader: does the loader or the device limit a training run, and what would change it.

    decoding     files that are in memory already are decoded and scaled, by one thread and by the most that are asked for
    loader       the loader as training uses it, with so many threads, brings batches to the device; nothing computes on them
    kept         the same from the second epoch on, where the set fits into `Pictures`' memory (measured on a sample of it)
    device       training steps on one batch that stays on the device
    together     training steps on what the loader brings

All but `kept` are of a first epoch: nothing is kept in memory, every turn has an order of its own. (The system may still keep
the files of a set that is smaller than the memory.) All take turns, round after round, a second each and at least one batch
after one that is not counted. Printed are pictures a second, the median over the rounds with the lowest and highest, and the
same of `together` over `device` within a round, which says how much of the device the loader lets lie idle: a median of shares,
which two medians of rates need not have. Where some rounds say that the loader limits and others that it does not, so does the
last sentence.
"""
import copy
import itertools
import json
import os
import platform
import statistics
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from bench.cpu import train_step
from bench.record import cpu_name
from zfcore import backend, check
from zfcore.cpu import CORES
from zfcore.data import open_data
from zfcore.data.loader import MEMORY, Pictures, shuffled
from zfcore.data.transforms import CorruptImage, random_crops
from zfcore.device import select
from zfcore.models import MODELS, NATIVE_SIZE, build
from zfcore.ops.crop_flip import crop_flip
from zfcore.optim import SGD

SECONDS = 1.0                     # that a turn lasts
SAMPLE = 1024                     # pictures that are decoded from memory, and kept
ENOUGH = 0.9                      # of the device's own rate: the loader does not limit
GAIN = 1.2                        # more threads are worth having if the last ones brought so much
WAITING = 0.7                     # of the rate of decoding from memory: below it the disk limits


def add_arguments(parser):
    powers = [2**k for k in range(CORES.bit_length())]
    parser.add_argument("--data", default="",
                        help="what python -m train --data takes; without it the synthetic set, which is drawn")
    parser.add_argument("--model", choices=MODELS, default="tiny", help="the network that is trained")
    parser.add_argument("--image-size", type=check.whole_number(1, 4096),
                        help="side of its input in pixels (default: what it was made for)")
    parser.add_argument("--batch-size", type=check.BATCH, default=128)
    parser.add_argument("--workers", type=check.THREADS, nargs="+", default=powers, metavar="N", help="threads that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--upscale", action="store_true", help="enlarge pictures smaller than --image-size")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=5, help="how often each is timed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write, bench/results/loader.json for the "
                                                                    "tables (default: none)")


def main(args):
    for option in ("batch_size", "rounds"):
        check.positive("--" + option.replace("_", "-"), getattr(args, option))
    device = select(args.device)
    image_size = args.image_size or NATIVE_SIZE.get(args.model, 224)
    size = round(image_size*256/224)                                      # of the stored pictures, as in training
    dataset, _ = open_data(args.data, size)
    how = (size, image_size, args.upscale)
    report = {"cpu": cpu_name(), "cores": CORES, "device": device.description, "on_cpu": device is backend.CPU,
              "load": os.getloadavg()[0],
              "numpy": np.__version__, "pillow": PIL.__version__, "python": platform.python_version(),
              "data": Path(args.data).name or "synthetic", "kind": kind(dataset), "pictures": len(dataset), "model": args.model,
              "image_size": image_size, "picture_size": size, "batch_size": args.batch_size, "rounds": args.rounds,
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    print(heading(report))
    rates = take_turns(contestants(args, device, dataset, image_size, how), args.rounds)
    report["cases"] = [case(key, rates) for key in rates]
    print(f"{'pictures a second':28}{'threads':>8}{'median':>9}  {'lowest to highest':20}of the device alone within a round")
    print("\n".join(map(line, report["cases"])) + f"\n\n{verdict(report)}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written to {args.output}")


def kind(dataset):
    """Kind of a picture before it is decoded: "files", "jpeg" or "raw" of a packed set, or "drawn"."""
    return getattr(dataset, "encoding", "files" if hasattr(dataset, "read") else "drawn")


# --------------------------------------------------------------------------------------------------- what is measured
def contestants(args, device, dataset, image_size, how):
    """{(name, threads): run}; run() gives pictures a second."""
    step, epochs = training_step(args.model, device, len(dataset.classes), image_size, how[0]), itertools.count()
    sample = Sample(dataset, shuffled(len(dataset), 0, 0)[:SAMPLE])

    def feed(pictures):
        """Batches without end; each call begins with another epoch, whose pictures nobody has touched lately."""
        for epoch in epochs:
            yield from pictures.batches(args.batch_size, 0, epoch, device=device)

    def nothing(*batch):
        pass

    in_memory = Sample(dataset, sample.numbers, in_memory=True)
    decoders = {workers: Pictures(in_memory, *how, workers, memory=0) for workers in sorted({1, max(args.workers)})}
    resident = next(feed(Pictures(sample, *how, workers=0, memory=0)))
    loaders = {workers: Pictures(dataset, *how, workers, memory=0) for workers in sorted(set(args.workers))}
    runs = {("decoding", workers): lambda loader=loader: rate(feed(loader), nothing) for workers, loader in decoders.items()}
    runs |= {("loader", workers): lambda loader=loader: rate(feed(loader), nothing) for workers, loader in loaders.items()}
    if len(dataset)*how[0]**2*3 <= MEMORY:
        kept = Pictures(sample, *how, max(args.workers))
        list(kept.batches(args.batch_size, 0, 0))
        runs["kept", max(args.workers)] = lambda: rate(feed(kept), nothing)
    runs["device", None] = lambda: rate((resident for _ in epochs), step)
    runs |= {("together", workers): lambda loader=loader: rate(feed(loader), step) for workers, loader in loaders.items()}
    return runs


def rate(batches, work):
    """Pictures a second that `work(pictures, labels, indices)` gets from the generator `batches`, once the first batch is
    done: threads are at work by then and kernels loaded, and what was made ahead then is made ahead at the end too."""
    with closing(batches):
        work(*next(batches))
        count, started, seconds = 0, time.perf_counter(), 0.0
        while seconds < SECONDS:
            pictures, labels, indices = next(batches)
            work(pictures, labels, indices)
            count, seconds = count + len(labels), time.perf_counter() - started
        return count/seconds


def training_step(model, device, classes, image_size, size):
    """A function (pictures on the device, labels, indices) that does what training does with a batch. It ends with the host
    waiting for the loss, so that a second of steps is a second of work."""
    network = build(model, classes, image_size).init(0, "he", device)
    optimizer, mean = SGD(network), device.array(np.full((3, size, size), 128, np.float32))
    numbers = itertools.count()

    def step(pictures, labels, indices):
        crops = random_crops(indices, 0, 0, size, image_size)
        x = crop_flip(pictures, mean, *crops, image_size, image_size)
        train_step(network, optimizer, x, labels, next(numbers))
    return step


class Sample:
    """The pictures `numbers` of a data set, their files read into memory before anything is timed if `in_memory`."""

    def __init__(self, dataset, numbers, in_memory=False):
        self.dataset, self.numbers, self.classes = dataset, numbers, dataset.classes
        self.labels, self.names = dataset.labels[numbers], [dataset.names[i] for i in numbers.tolist()]
        if in_memory and hasattr(dataset, "read"):
            files = {}
            for i in numbers.tolist():
                try:
                    files[i] = dataset.read(i)
                except CorruptImage:
                    files[i] = b""                                        # which is damaged too
            self.dataset = copy.copy(dataset)
            self.dataset.read = files.__getitem__

    def __len__(self):
        return len(self.numbers)

    def picture(self, k):
        return self.dataset.picture(int(self.numbers[k]))


def take_turns(runs, rounds):
    """{key: run} -> {key: pictures a second, one number a round}."""
    rates = {key: [] for key in runs}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=None):
        for key, run in runs.items():
            rates[key].append(run())
    return rates


def case(key, rates):
    """The row of one contestant."""
    name, workers = key
    row = {"name": name, "workers": workers, "pictures_per_second": statistics.median(rates[key]),
           "spread": [min(rates[key]), max(rates[key])]}
    if name == "together":
        shares = [both/alone for both, alone in zip(rates[key], rates["device", None])]
        row |= {"of_device": statistics.median(shares), "of_device_spread": [min(shares), max(shares)]}
    return row


# ------------------------------------------------------------------------------------------------------ what is said
def heading(report):
    return (f"{report['data']}: {report['pictures']} pictures ({report['kind']}) brought to {report['picture_size']} pixels; "
            f"{report['model']} at {report['image_size']}, batches of {report['batch_size']}, on {report['device']}; "
            f"{report['cpu']}, {report['cores']} cores")


def line(row):
    low, high = row["spread"]
    text = f"{row['name']:28}{row['workers'] or '':>8}{row['pictures_per_second']:9.0f}  {f'{low:.0f} to {high:.0f}':20}"
    if "of_device" in row:
        text += "{:.2f} ({:.2f} to {:.2f})".format(row["of_device"], *row["of_device_spread"])
    return text.rstrip()


def verdict(report):
    """One or two sentences: which of the two limits, and what to change. None limits where the shares of the rounds lie on both
    sides of ENOUGH."""
    def best(name):
        return max((row for row in report["cases"] if row["name"] == name), key=lambda row: row["pictures_per_second"],
                   default=None)

    together, loader, device, kept = map(best, ("together", "loader", "device", "kept"))
    lowest, highest = together["of_device_spread"]
    share = "training gets {:.0f} % ({:.0f} to {:.0f}) of what the device does alone".format(
        *(100*share for share in (together["of_device"], lowest, highest)))
    brings = "{:.0f} pictures/s, the device alone does {:.0f}".format(*(of["pictures_per_second"] for of in (loader, device)))
    if lowest >= ENOUGH:
        fewest = min(row["workers"] for row in report["cases"] if row.get("of_device_spread", [0])[0] >= ENOUGH)
        return f"The device limits: {share}, so faster loading would bring next to nothing; --workers {fewest} is enough."
    if highest >= ENOUGH:
        text = (f"Undecided: {share}, and from {100*ENOUGH:.0f} % on faster loading would bring next to nothing; measure again "
                f"where nothing else runs.")
    elif report["on_cpu"]:
        text = f"The cores are shared: {share}, the rest goes into loading; to change that, {advice(report)}."
    elif loader["pictures_per_second"] < device["pictures_per_second"]:
        text = f"The loader limits: {share}, for it brings {brings}; to change that, {advice(report)}."
    else:
        text = f"The thread that feeds the device limits: {share}, though the loader brings {brings}; try fewer --workers."
    if kept:
        text += (f" This is of the first epoch alone: the set fits into memory, and from the second epoch on the loader "
                 f"brings {kept['pictures_per_second']:.0f}.")
    return text


def advice(report):
    """Advice on how to make the loader faster."""
    decoding, loading = ({row["workers"]: row["pictures_per_second"] for row in report["cases"] if row["name"] == name}
                         for name in ("decoding", "loader"))
    most, fewer = max(loading), [rate for workers, rate in loading.items() if workers < max(loading)]
    if loading[most] < WAITING*decoding[most]:
        return (f"read faster, for the threads wait for the disk: more of them at once (--workers {2*most}), or the set on a "
                f"local one" +
                (", in one file (python -m train.pack)" if report["kind"] == "files" else ""))
    if not report["on_cpu"] and most < report["cores"] and (not fewer or loading[most] > GAIN*max(fewer)):
        return f"use more threads (--workers {min(2*most, report['cores'])})"
    return {"files": "decode less: pack the set at the size that is needed (python -m train.pack)",
            "jpeg": "decode nothing: pack the set as pixels (python -m train.pack --raw)",
            "raw": "find a machine with more cores or faster memory: nothing is decoded any more",
            "drawn": "train on pictures instead of drawings, which are made anew each time"}[report["kind"]]
