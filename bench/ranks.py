"""python -m bench ranks: what ranks cost on this machine, and where more of them stop paying.

    alone    a training step on one rank beside one that knows of no ranks, in turns, and beside that one once more, which tells
             what differs by chance
    links    rows gathered and arrays exchanged between the ranks, from 4 bytes to 250 MB: median and spread over the rounds
    steps    training steps of one batch on 1, 2, 4 ... ranks, beside what train/step_time.py predicts of them from the time of
             a leaf on one rank and from the links, and which share of a step is neither arithmetic nor update: communication that
             nothing hides, and chance
    plot     the same prediction for up to 1,024 ranks, with the batch that was measured and with as many pictures for each rank

`mpiexec -n R python -m bench ranks` (or srun, torchrun) measures the links and the step of the ranks that it has started. What
is found is kept in the user's cache, where `python -m train --dry-run --devices 2` looks for it.
"""
import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bench.record import cpu_name
from train.launch import Job
from train.step_time import Bucket, Link, Measured, by_node_seconds, clock, estimate, exchange_seconds, keep, place_of
from zfcore import check, plots
from zfcore.backend import CPU, to_host
from zfcore.cpu import CORES
from zfcore.crew import visible_gpus
from zfcore.device import select
from zfcore.models import MODELS, NATIVE_SIZE, build
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.optim import SGD
from zfcore.ranks import ALONE
from zfcore.ranks.environment import is_rank
from zfcore.ranks.environment import open as open_ranks
from zfcore.reduce import GradientSum, buckets, leaves, micro_batch, share
from zfcore.terminal import printable, say

CLASSES = 1000                   # of the network that is trained, on noise
SIZES = tuple(4*10**k for k in range(8)) + (250_000_000,)           # bytes between each two ranks
SHORT = 4000                     # bytes up to which a message is no more than its latency
ROWS = 4*10**6                   # bytes of the longest row, which rank 0 has of all
MOST = 1024                      # ranks that are predicted
TURNS = 4                        # in which steps are compared, for each of the rounds
BESIDE = ("alexnet", 16),        # a network with many weights and its batch, whose steps are compared too


def add_arguments(parser):
    parser.add_argument("--devices", type=check.whole_number(1, MOST), default=2, metavar="N",
                        help="ranks at most: GPUs of this machine, or processes that share its cores (2)")
    parser.add_argument("--model", choices=MODELS, default="tiny", help="the network that is trained (tiny)")
    parser.add_argument("--image-size", type=check.whole_number(1, 4096),
                        help="side of its input in pixels (default: what it was made for)")
    parser.add_argument("--batch-size", type=check.BATCH, default=128, help="pictures of a step, on all ranks together (128)")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=5,
                        help="how often each is timed, after one round that warms up (5)")
    parser.add_argument("--largest", type=check.whole_number(4, 2**31), default=SIZES[-1], metavar="BYTES",
                        help="the longest array that is exchanged (250 MB)")
    parser.add_argument("--network", type=float, nargs=2, metavar=("US", "GB_S"),
                        help="predict nodes joined by another network too, by its latency and bandwidth")
    parser.add_argument("--per-node", type=check.whole_number(1, MOST), default=8, metavar="N",
                        help="ranks of each node of --network (8)")
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help="JSON file to write, bench/results/ranks.json for the tables (default: none)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG to draw (default: none)")


def main(args):
    for value in args.network or ():
        check.positive("--network", value)
    args.image_size = args.image_size or NATIVE_SIZE.get(args.model, 224)
    if is_rank():
        return of_this_rank(args)
    counts = sorted({*(2**k for k in range(args.devices.bit_length()) if 2**k <= args.devices), args.devices})
    for ranks in counts:
        micro_batch(args.batch_size, 0, ranks)             # more than there are leaves are refused before anything is measured
    cards, reports, load = visible_gpus(args.device, args.devices), {}, os.getloadavg()[0]
    for ranks in counts:
        reports[ranks] = of_ranks(args, cards[:ranks])
        say(*link_lines(reports[ranks]))
    report = {**summed_up(args, reports), "alone": list(compared(args)), "load": load}
    keep(place_of(args.model, args.image_size, report["device"]), measured_of(report))
    say(*step_lines(report), "", *alone_lines(report), "", *verdict(report))
    if args.output:
        write(args.output, {**report, "links": reports[counts[-1]]["links"]})
    if args.plot:
        draw(args, report)
        say(f"drawn in {printable(args.plot)}")


# ----------------------------------------------------------------------------------------------------- what is measured
def of_ranks(args, cards):
    """The report of a job of this machine with a rank for each of `cards`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/"report.json"
        words = ["ranks", f"--model={args.model}", f"--image-size={args.image_size}", f"--batch-size={args.batch_size}",
                 f"--device={args.device}",
                 f"--rounds={args.rounds}", f"--largest={args.largest}", f"--output={file}"]
        if len(cards) == 1:
            with open_ranks(args.device, {}) as alone:
                return of_job(args, alone)
        with Job(words, cards, "bench") as job:
            job.wait()
        if job.status():
            raise check.Expected("python -m bench ranks", f"{len(cards)} ranks at work until all is measured",
                                 f"the status {job.status()}")
        return json.loads(file.read_text())


def of_this_rank(args):
    """Measure with the ranks that somebody has started; rank 0 tells."""
    with open_ranks(args.device) as ranks:
        report = of_job(args, ranks)
        if ranks.is_first and args.output:
            write(args.output, report)
        elif ranks.is_first:
            say(*link_lines(report),
                f"a step of {args.batch_size} pictures on {ranks.size} ranks: {clock(report['step']['median'])}, the "
                                     f"arithmetic alone {clock(report['compute']['median'])}")


def of_job(args, ranks):
    """Report of what ranks measure together; all of them call it."""
    step = Step(args, ranks)
    links = {what: {size: timed(ranks, {size: link(size)}, args.rounds)[size] for size in SIZES if size <= most}
             for what, link, most in (
                 ("gather", lambda size: lambda: ranks.gather(bytes(size)), min(ROWS, args.largest)),
                 ("exchange", exchange_of(ranks), args.largest))} if ranks.size > 1 else {}
    found = timed(ranks, {"step": step.whole, "compute": step.compute, "update": step.update}, args.rounds)
    few, many = map(statistics.median, zip(*(map(step.leaf_seconds, step.few_and_all) for _ in range(args.rounds))))
    return {**found, "links": links, "ranks": ranks.size, "way": type(ranks).__name__, "device": step.device.description,
            "own": step.device is not CPU, "buckets": step.buckets(),
            "leaves": [[step.few_and_all[0], few], [step.few_and_all[1], many]]}


def compared(args):
    """Yield for each network a row of what a step takes on one rank, as shares of one that knows of no ranks."""
    beside = [(model, NATIVE_SIZE.get(model, 224), batch) for model, batch in BESIDE]
    for model, size, batch in [(args.model, args.image_size, args.batch_size), *beside]:
        step = Step(argparse.Namespace(device=args.device, model=model, image_size=size, batch_size=batch), ALONE)
        times = in_turns((step.plain, step.whole, step.plain), TURNS*args.rounds)
        shares = {what: {by: spread([turn[k][which]/turn[0][which] for turn in times])
                         for which, by in enumerate(("clock", "processor"))} for k, what in ((1, "ranks"), (2, "again"))}
        yield {"model": model, "image_size": size, "batch_size": batch, "turns": len(times),
               "plain": statistics.median(plain for (plain, _), *_ in times), **shares}


def in_turns(runs, turns):
    """[[(seconds by the clock, of the processor's time) of each run] of each turn], after one that warms up; each turn begins
    with another of the `runs`."""
    found = []
    for turn in range(turns + 1):
        times = [None]*len(runs)
        for k in range(turn, turn + len(runs)):
            began = time.perf_counter(), time.process_time()
            runs[k % len(runs)]()
            times[k % len(runs)] = time.perf_counter() - began[0], time.process_time() - began[1]
        found.append(times)
    return found[1:]


def timed(ranks, runs, rounds):
    """{name: {"median", "lowest", "highest"} seconds} of {name: run}, which take turns and which all ranks begin together."""
    times = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            ranks.gather(b"")
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: spread(of_run[1:]) for name, of_run in times.items()}


def spread(values):
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def exchange_of(ranks):
    """A function (bytes) -> one that lets each rank send as many to each."""
    def of(size):
        sends = [np.zeros(size//4, np.float32)]*ranks.size
        receives = [np.empty(size//4, np.float32) for _ in sends]
        return lambda: ranks.exchange(sends, receives)
    return of


class Step:
    """A training step of the ranks, on noise: as Training makes it, without the pictures."""

    def __init__(self, args, ranks):
        self.ranks, self.device = ranks, select(args.device)
        self.network = build(args.model, CLASSES, args.image_size).init(0, "he", self.device)
        self.optimizer, self.beside = SGD(self.network), self.device.beside()
        self.shapes = {name: {key: array.shape for key, array in of.items()} for name, of in self.network.parameters().items()}
        self.N = args.batch_size
        sizes = [leaf.stop - leaf.start for leaf in leaves(self.N, micro_batch(self.N, 0, ranks.size))]
        self.counts = [len(sizes[share(len(sizes), ranks.size, rank)]) for rank in range(ranks.size)]
        self.sizes = sizes[share(len(sizes), ranks.size, ranks.rank)]
        self.few_and_all = max(self.N//8, 1), self.N
        rng = np.random.default_rng(ranks.rank)
        self.x = self.device.array(rng.standard_normal((3, args.image_size, args.image_size, self.N), np.float32))
        self.labels = self.device.array(rng.integers(0, CLASSES, self.N).astype(np.int32))
        self.grads = {name: {key: self.device.array(np.zeros(shape, np.float32)) for key, shape in of.items()}
                      for name, of in self.shapes.items()}

    def wait(self):
        """Wait for the device."""
        to_host(self.labels[:1])

    def leaf(self, size, take=None):
        """Forward and backward of a leaf; returns the gradients that `take` is not handed."""
        y, caches = self.network.forward(self.x[..., :size], 0)
        _, cache = softmax_loss(y, self.labels[:size])
        return self.network.backward(softmax_loss_backward(cache), caches, to_pixels=False, take=take)[1]

    def whole(self):
        self.ranks.gather(np.array([0, *self.sizes], np.int64).tobytes())     # the pictures that are left of each leaf
        rows = self.device.array(np.zeros((sum(self.counts), 2), np.float64))
        sums = GradientSum(self.ranks, self.beside, self.shapes, self.counts, rows, like=self.x)
        for size in self.sizes:
            self.leaf(size, sums.add)
        self.optimizer.step(self.network, sums.total(), 1e-6)
        self.ranks.gather(bytes(3))                        # who is to stop, look, save
        self.wait()

    def plain(self):
        """The step of all pictures where nobody has heard of ranks."""
        self.optimizer.step(self.network, self.leaf(self.N), 1e-6)
        self.wait()

    def compute(self):
        """The arithmetic of the rank's own leaves, and no more."""
        for size in self.sizes:
            self.leaf(size, lambda *_: None)
        self.wait()

    def update(self):
        self.optimizer.step(self.network, self.grads, 1e-6)
        self.wait()

    def leaf_seconds(self, size):
        began = time.perf_counter()
        self.leaf(size, lambda *_: None)
        self.wait()
        return time.perf_counter() - began

    def buckets(self):
        """[bytes, share of a leaf after which they are there] of each bucket."""
        there, began = {}, time.perf_counter()

        def take(layer, grads):
            self.wait()
            there[layer] = time.perf_counter() - began

        self.leaf(self.sizes[-1], take)
        whole = time.perf_counter() - began
        return [[4*bucket[-1].stop, max(there[place.layer] for place in bucket)/whole] for bucket in buckets(self.shapes)]


# ---------------------------------------------------------------------------------------------------- what comes of it
def link_of(exchange, ranks):
    """The Link that {bytes: seconds} of exchanges between so many ranks show: latency of a message by the fastest of the SHORT
    ones, bandwidth of a rank by the longest."""
    sizes = {int(size): of["median"] for size, of in exchange.items()}
    fastest, long = min(seconds for size, seconds in sizes.items() if size <= SHORT), max(sizes)
    return Link(fastest/(ranks - 1), (ranks - 1)*long/max(sizes[long] - fastest, 1e-9))


def summed_up(args, reports):
    """The report of all: times of one rank, the link of the most ranks, and the steps beside what is predicted of them."""
    alone, most = reports[min(reports)], reports[max(reports)]
    (few, of_few), (many, of_many) = alone["leaves"]
    each = max(of_many - of_few, 0)/(many - few) if many > few else of_many/many        # on a busy machine few may take longer
    report = {"cpu": cpu_name(), "cores": CORES, "ranks": most["ranks"], "way": most["way"], "rounds": args.rounds,
              "model": args.model, "image_size": args.image_size, "batch_size": args.batch_size, "device": alone["device"],
              "own": alone["own"],
              "fixed": max(of_many - many*each, 0.0), "each": each, "update": alone["update"]["median"],
              "buckets": alone["buckets"],
              "link": link_of(most["links"]["exchange"], most["ranks"]) if most["links"] else Link(1.0, 1.0),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "steps": {ranks: {**of["step"], "compute": of["compute"]["median"], "update": of["update"]["median"]}
                        for ranks, of in reports.items()}}
    of = measured_of(report)
    for ranks, step in report["steps"].items():
        step["predicted"] = predicted(of, args.batch_size, ranks, report["own"]).step
    return report


def measured_of(report):
    return Measured(report["fixed"], report["each"], report["update"], tuple(Bucket(*bucket) for bucket in report["buckets"]),
                    Link(*report["link"]),
                    report["batch_size"], {ranks: of["median"] for ranks, of in report["steps"].items()}, report["date"])


def predicted(of, batch_size, ranks, own):
    return estimate(of, batch_size, ranks, lambda size: exchange_seconds(size, ranks, of.link), own=own)


def beyond(step):
    """The share of a step that its arithmetic and update by themselves do not take, of medians: what is communication, and what
    differs by chance. Below 0 where they took longer by themselves."""
    return (step["median"] - step["compute"] - step["update"])/step["median"]


# ------------------------------------------------------------------------------------------------------ what is said
def link_lines(report):
    for what, sizes in report["links"].items():
        yield f"\n{what} between {report['ranks']} ranks by {report['way']}, bytes      median  (lowest to highest)"
        for size, of in sizes.items():
            speed = f"  {int(size)*(report['ranks'] - 1)/of['median']/1e9:.3g} GB/s" if what == "exchange" else ""
            yield f"{int(size):>12}  {clock(of['median']):>9}  ({clock(of['lowest'])} to {clock(of['highest'])}){speed}"


def step_lines(report):
    yield (f"\na step of {report['batch_size']} pictures: {report['model']}, {report['image_size']} pixels, "
           f"on {report['device']}")
    yield f"{'ranks':>6}  {'measured':>9}  {'lowest':>9}  {'highest':>9}  {'predicted':>9}  communication"
    for ranks, of in report["steps"].items():
        yield (f"{ranks:>6}  {clock(of['median']):>9}  {clock(of['lowest']):>9}  {clock(of['highest']):>9}  "
               f"{clock(of['predicted']):>9}  "
               f"{100*beyond(of):+.0f} %")


def alone_lines(report):
    for row in report["alone"]:
        yield (f"a step on one rank, as a share of one that knows of none: {row['batch_size']} pictures, {row['model']}, "
               f"{row['image_size']} pixels, {clock(row['plain'])}, {row['turns']} turns")
        for by, words in ("clock", "by the clock"), ("processor", "by the processor's time"):
            shares = ("{median:.3f} ({lowest:.3f} to {highest:.3f})".format(**row[what][by]) for what in ("ranks", "again"))
            yield "    {:<24} {}; that one once more {}".format(words, *shares)


def verdict(report):
    """Sentences: which number of ranks was the fastest, and up to which it is predicted to pay."""
    steps = {ranks: of["median"] for ranks, of in report["steps"].items()}
    best = min(steps, key=steps.get)
    yield (f"measured: of {', '.join(map(str, steps))} ranks {best} {'is' if best == 1 else 'are'} the fastest, "
           f"{steps[min(steps)]/steps[best]:.2f} times as fast as one"
           if len(steps) > 1 else "measured: one rank alone")
    if len(steps) > 1:
        of = measured_of(report)
        line = curve(of, lambda ranks: report["batch_size"], lambda ranks: lambda size: exchange_seconds(size, ranks, of.link))
        ahead = min(line, key=line.get)
        yield ("predicted, each rank with a device such as one alone has here and this link: " +
               (f"a batch of {report['batch_size']} is the fastest on {ahead} ranks, "
                f"{line[1]/line[ahead]:.2f} times as fast as on one"
                if ahead > 1 else f"a batch of {report['batch_size']} is slower on every number of ranks than on one"))


def curve(of, batch, seconds):
    """{ranks: predicted seconds a step} for powers of two up to MOST, as far as batch(ranks) has leaves; seconds(ranks)(bytes)
    is the exchange's."""
    found = {}
    for ranks in (2**k for k in range(MOST.bit_length())):
        if ranks <= batch(ranks):
            found[ranks] = estimate(of, batch(ranks), ranks, seconds(ranks)).step
    return found


def draw(args, report):
    """The plot of --plot: what was measured, and the predictions."""
    of, size = measured_of(report), report["batch_size"]

    def plain(ranks):
        return lambda nbytes: exchange_seconds(nbytes, ranks, of.link)

    lines = {f"batch {size}": curve(of, lambda ranks: size, plain),
             f"{size} a rank": curve(of, lambda ranks: size*ranks, plain)}
    if args.network:
        between, inside = Link(args.network[0]*1e-6, args.network[1]*1e9), of.link

        def nodes(ranks):
            per_node = min(args.per_node, ranks)
            return lambda nbytes: by_node_seconds(nbytes, ranks//per_node, per_node, inside, between)

        lines |= {f"batch {size}, nodes of {args.per_node}": curve(of, lambda ranks: size, nodes),
                  f"{size} a rank, nodes of {args.per_node}": curve(of, lambda ranks: size*ranks, nodes)}
    title = (f"{report['model']}, {report['image_size']} pixels, {report['device']}; predicted: each rank has a device "
             f"such as one alone has here, the link "
             f"{clock(of.link.latency)}, {of.link.bandwidth/1e9:.2g} GB/s" +
             (f", between nodes {args.network[0]:g} us, {args.network[1]:g} GB/s (given, not measured)" if args.network
              else ""))
    plots.save(plots.step_times(of.steps, lines, title), args.plot)


def write(path, report):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
