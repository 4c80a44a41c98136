"""Timing on a GPU: contestants in turns, each a graph of many launches, between two CUDA events.

A contestant goes through several sets of arrays, together larger than the last cache, so that no run finds its inputs
there. What is reported is the median over the rounds, the lowest and the highest; ratios are taken within a round."""
import contextlib
import math
import statistics
from dataclasses import dataclass
from collections.abc import Callable

LONG = 2e-3                       # seconds that are measured at once
MOST = 2000                       # launches of a graph
ROUNDS, PATIENCE = 20, 2.0        # rounds, and seconds after which those measured must do


class Clock:
    """CUDA events on a stream of CuPy's; everything that is timed runs on that stream."""

    def __init__(self, cupy):
        self.cupy, self.stream = cupy, cupy.cuda.Stream(non_blocking=True)

    def seconds(self, run):
        """Seconds that the device works on what `run()` hands it."""
        first, last = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        with self.stream:
            first.record()
            run()
            last.record()
        last.synchronize()
        return self.cupy.cuda.get_elapsed_time(first, last)/1e3

    def captured(self, once, passes):
        """A function that replays `passes` times `once()`, kernel launches only, as one graph."""
        with self.stream:
            self.stream.begin_capture()
            try:
                for _ in range(passes):
                    once()
            except BaseException:
                with contextlib.suppress(Exception):       # what CUDA says of a capture that broke off hides why it did
                    self.stream.end_capture()
                raise
            graph = self.stream.end_capture()
            graph.upload()
        return graph.launch

    def wait(self):
        """Wait until all streams have finished: what was prepared on others may then be used on this one."""
        self.cupy.cuda.Device().synchronize()


@dataclass
class Contestant:
    name: str
    once: Callable                # runs the operation on each set of arrays, one after the other
    sets: int                     # how many these are
    output: Callable              # () -> what it computes for the first set, as NumPy arrays; None if not to be compared
    capture: Callable = None      # (once, passes) -> a function that replays them; None: called in a loop


def prepared(clock, contestant):
    """(run, operations): a function that does so many operations, which take about LONG together."""
    clock.wait()
    for _ in range(2):                                     # loads code, finds algorithms, fills pools
        clock.seconds(contestant.once)
    one = clock.seconds(contestant.once)
    passes = max(1, min(math.ceil(LONG/max(one, 1e-9)), MOST//contestant.sets))
    run = contestant.once if passes == 1 else lambda: [contestant.once() for _ in range(passes)]
    if contestant.capture:
        run = contestant.capture(contestant.once, passes)
    return run, passes*contestant.sets


def take_turns(seconds, runs, rounds=ROUNDS, patience=PATIENCE):
    """{name: (run, operations)} -> {name: seconds of an operation, one number a round}.

    The first round warms up. After three rounds the next one is only begun while `patience` seconds are not over."""
    times, spent = {name: [] for name in runs}, 0.0
    for turn in range(-1, rounds):
        if turn >= 3 and spent > patience:
            break
        for name, (run, operations) in runs.items():
            whole = seconds(run)
            spent += whole
            if turn >= 0:
                times[name].append(whole/operations)
    return times


def microseconds(times):
    """{"us": median, "spread": [lowest, highest]} of seconds."""
    return {"us": 1e6*statistics.median(times), "spread": [1e6*min(times), 1e6*max(times)]}


def ratio(theirs, ours):
    """{"ratio": median, "ratio_spread": [lowest, highest]} of the other's time over ours, round by round: above 1, ours is
    the faster one."""
    ratios = [other/own for other, own in zip(theirs, ours)]
    return {"ratio": statistics.median(ratios), "ratio_spread": [min(ratios), max(ratios)]}
