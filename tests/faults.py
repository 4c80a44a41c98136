"""python -m tests.faults [--minutes 10] [--seed 0] [--kind checkpoint.h5]: strangers' files of every kind, spoiled at random,
and options with odd values, in turns, until the time is up.

Each input is one sentence or sound; anything else - a traceback, more than 20 seconds, a touched file - is told with the line
that repeats it, and the exit status is then 1."""
import argparse
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from tests import odd_options
from tests.hostile import KINDS, spoil, tree
from zfcore.check import Expected

MOST_SECONDS = 20


def main():
    p = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--seed", type=int, default=0, help="of the first input; the next one has the next")
    p.add_argument("--only", action="store_true", help="this one input")
    p.add_argument("--kind", choices=[*KINDS, "options"], nargs="+", default=[*KINDS, "options"])
    args = p.parse_args()
    warnings.simplefilter("ignore")
    outcomes, until = Counter(), time.monotonic() + 60*args.minutes
    with tempfile.TemporaryDirectory() as folder:
        sound, options = {}, []
        for kind in args.kind:
            if kind == "options":
                place, options = odd_options.make(folder), np.random.default_rng(0).permutation(odd_options.inputs()).tolist()
                continue
            KINDS[kind][0](Path(folder, kind))
            sound[kind] = Path(folder, kind).read_bytes()
        seed = args.seed
        while time.monotonic() < until:
            kind = args.kind[seed % len(args.kind)]
            if kind == "options":
                outcomes[tried_option(seed, place, options[seed//len(args.kind) % len(options)], args.kind)] += 1
            else:
                outcomes[tried(seed, kind, sound[kind], args.kind)] += 1
            seed += 1
            if args.only:
                break
    print(f"seeds {args.seed} to {seed - 1}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    sys.exit(1 if outcomes["failed"] else 0)


def tried(seed, kind, sound, kinds):
    """What became of one input: "sound", "refused" or "failed"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run", kind)
        path.parent.mkdir()
        Path(folder, "precious.txt").write_text("mine")
        path.write_bytes(sound)
        what, outcome = spoil(np.random.default_rng(seed), path), "sound"
        before = tree(Path(folder))
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(MOST_SECONDS)
        try:
            KINDS[kind][1](path)
        except Expected as sentence:
            outcome = "refused" if "\n" not in str(sentence) else "failed"
        except (Exception, TimeoutError):
            traceback.print_exc()
            outcome = "failed"
        finally:
            signal.alarm(0)
        after = tree(Path(folder))
        if any(after.get(name) != contents for name, contents in before.items()):
            outcome = "failed"
        if outcome == "failed":
            print(f"FAILED: {what}. Again: python -m tests.faults --only --seed {seed} --kind {' '.join(kinds)}", flush=True)
        return outcome


def tried_option(seed, place, odd, kinds):
    """As `tried`, of a command with an odd value of an option."""
    status, wrong = odd_options.tried(place, *odd)
    if wrong:
        print(f"{wrong}\nFAILED: {', '.join(odd)}. Again: python -m tests.faults --only --seed {seed} --kind {' '.join(kinds)}",
              flush=True)
        return "failed"
    return "refused" if status else "sound"


def _too_long(*_):
    raise TimeoutError(f"more than {MOST_SECONDS} seconds")


if __name__ == "__main__":
    main()
