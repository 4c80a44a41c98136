"""python -m bench pack: what a packed set costs to make, and what it costs to read.

    packing      python -m train.pack: pictures a second, bytes a picture, as JPEG and as pixels
    resumed      the same after a kill -9 in the middle: seconds until it packs on, and whether the file is the same in every
                 byte
    decoding     the packed JPEGs, in memory already, are decoded by so many threads
    reading      the same from the file, in random order, each compared with its checksum
    pixels       the packed pixels from their file, in random order, each compared with its checksum
    source       the pictures as they were before, in random order: what packing saves

All but packing take turns on the same pictures, round after round. The share of decoding is the median of those within a round,
which two medians of pictures a second need not have: for `reading` it is what the file leaves of the speed of decoding alone. By
the clock everything else that the machine does is in it, by the processor's time waiting for a disk is not. (A file that fits into
memory is kept there by the system.)
"""
import filecmp
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import PIL

from bench.record import cpu_name
from bench.loader import Sample, take_turns
from train.pack import Packing
from zfcore import check
from zfcore.cpu import CORES
from zfcore.data import open_data
from zfcore.data.loader import Pictures, shuffled

PICTURES = 512                    # in a turn
PACKINGS = 3                      # of each encoding, in turns


def add_arguments(parser):
    parser.add_argument("--data", default="",
                        help="what python -m train --data takes; without it the synthetic set, which is drawn")
    parser.add_argument("--size", type=check.whole_number(8, 4096), default=256, help="side of the stored squares in pixels")
    parser.add_argument("--workers", type=check.THREADS, nargs="+", default=sorted({1, CORES}), metavar="N",
                        help="threads that read")
    parser.add_argument("--upscale", action="store_true", help="enlarge pictures that are smaller than training takes")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=31, help="how often reading is timed")
    parser.add_argument("--folder",
                        help="where there is room for the packed files meanwhile (default: the system's for such files)")
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help="JSON file to write, bench/results/pack.json for the tables "
                                                                    "(default: none)")


def main(args):
    for option in ("size", "rounds"):
        check.positive("--" + option, getattr(args, option))
    source, _ = open_data(args.data, args.size)
    report = {"cpu": cpu_name(), "cores": CORES, "load": os.getloadavg()[0], "pillow": PIL.__version__,
              "python": platform.python_version(), "data": Path(args.data).name or "synthetic", "size": args.size,
              "rounds": args.rounds, "packings": PACKINGS, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    with tempfile.TemporaryDirectory(prefix="zfcore-", dir=args.folder) as folder:
        files = {encoding: Path(folder)/f"{encoding}.h5" for encoding in ("jpeg", "raw")}
        report["packing"] = packing(args, files)
        report["resumed"] = resumed(args, Path(folder)/"resumed.h5", files["jpeg"])
        seconds = take_turns(contestants(args, source, files), args.rounds)
    report["cases"] = [case(key, seconds) for key in seconds]
    print("\n".join(lines(report)))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written to {args.output}")


# ----------------------------------------------------------------------------------------------------------- packing
def begin(args, output, raw=False, kind=Packing):
    return kind(args.data, output, args.size, raw, workers=max(args.workers), upscale=args.upscale)


def packing(args, files):
    """Rows of {encoding, pictures, pictures_per_second, spread, bytes_per_picture}; the `files` of the last round stay."""
    rates, counts = {encoding: [] for encoding in files}, {}
    for _ in range(PACKINGS):
        for encoding, path in files.items():
            path.unlink(missing_ok=True)
            started = time.perf_counter()
            work = begin(args, path, encoding == "raw")
            work.run()
            rates[encoding].append(work.packed/(time.perf_counter() - started))
            counts[encoding] = work.packed
    return [{"encoding": encoding, "pictures": counts[encoding], "workers": max(args.workers), **middle(rates[encoding]),
             "bytes_per_picture": path.stat().st_size/counts[encoding]} for encoding, path in files.items()]


class Timed(Packing):
    """Packing that tells when it has looked at what was done before, and how much that is."""

    def _pack(self, todo, bar):
        self.ready, self.before = time.perf_counter(), bar.n
        super()._pack(todo, bar)


class Killed(Packing):
    """Packing that kills its process when it is about to write the middle one of its shards."""

    def _write(self, shard, pieces, bar):
        if shard is self.shards[len(self.shards)//2]:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write(shard, pieces, bar)


def resumed(args, output, whole):
    """Go on with a packing that was killed in the middle: {seconds until it packs on, pictures kept, same_bytes as `whole`}."""
    facts = json.dumps({key: getattr(args, key) for key in ("data", "size", "workers", "upscale")})
    code = "import json, sys; from argparse import Namespace; from bench.pack import Killed, begin; "
    code += "begin(Namespace(**json.loads(sys.argv[1])), sys.argv[2], kind=Killed).run()"
    subprocess.run([sys.executable, "-c", code, facts, str(output)], stderr=subprocess.DEVNULL)
    started = time.perf_counter()
    work = begin(args, output, kind=Timed)
    work.run()
    return {"seconds": work.ready - started, "pictures": work.before, "same_bytes": filecmp.cmp(output, whole, shallow=False)}


# ----------------------------------------------------------------------------------------------------------- reading
def contestants(args, source, files):
    """{(name, threads): run}; run() gives seconds and seconds of the processor that a picture takes. In a round all meet the
    same pictures."""
    (jpeg, _), (raw, _) = (open_data(str(path), args.size) for path in files.values())
    how, count = (args.size, round(args.size*224/256), args.upscale), min(map(len, (jpeg, raw, source)))

    def reads(dataset, workers, in_memory=False):
        turns = itertools.count()

        def run():
            sample = Sample(dataset, shuffled(count, 0, next(turns))[:PICTURES], in_memory)
            pictures = Pictures(sample, *how, workers, memory=0)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in pictures.batches(PICTURES//8, 0, 0):
                pass
            return (time.perf_counter() - wall)/len(sample), (time.process_time() - cpu)/len(sample)
        return run

    sets = {"decoding": (jpeg, True), "reading": (jpeg,), "pixels": (raw,), "source": (source,)}
    return {(name, workers): reads(what[0], workers, *what[1:]) for workers in args.workers for name, what in sets.items()}


# -------------------------------------------------------------------------------------------------------- what is said
def middle(rates):
    return {"pictures_per_second": statistics.median(rates), "spread": [min(rates), max(rates)]}


def case(key, seconds):
    """The row of one contestant, and how fast it is beside decoding by as many threads: by the clock and by the time that the
    processor worked."""
    name, workers = key
    wall, cpu = np.array(seconds[key]).T
    alone_wall, alone_cpu = np.array(seconds["decoding", workers]).T
    return {"name": name, "workers": workers, **middle((1/wall).tolist()), "cpu_ms": 1000*float(np.median(cpu)),
            "of_decoding": share(alone_wall/wall), "cpu_of_decoding": share(alone_cpu/cpu)}


def share(ratios):
    """Median, lowest and highest."""
    return [float(number) for number in (np.median(ratios), ratios.min(), ratios.max())]


def lines(report):
    """The report as it is printed."""
    yield f"{report['data']} at {report['size']} pixels; {report['cpu']}, {report['cores']} cores, load {report['load']:.1f} at the beginning"
    for row in report["packing"]:
        yield ("packing {encoding}: {pictures} pictures, {pictures_per_second:.0f} a second ({0:.0f} to {1:.0f}) with "
               "{workers} threads, {bytes_per_picture:.0f} bytes each".format(*row["spread"], **row))
    again = report["resumed"]
    yield (f"killed with {again['pictures']} packed: packs on after {again['seconds']:.2f} s, the file is "
           f"{'the same' if again['same_bytes'] else 'ANOTHER ONE'}")
    yield f"{'pictures a second':20}{'threads':>8}{'median':>9}  {'of decoding within a round':28}{'by processor time':22}ms each"
    for row in report["cases"]:
        shares = ("{:.2f} ({:.2f} to {:.2f})".format(*row[key]) for key in ("of_decoding", "cpu_of_decoding"))
        yield "{name:20}{workers:8}{pictures_per_second:9.0f}  {0:28}{1:22}{cpu_ms:.2f}".format(*shares, **row)
