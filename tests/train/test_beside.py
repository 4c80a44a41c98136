"""The sum over ranks beside backward: on a thread, and on a GPU's second stream, where it is recorded with the step. NCCL is
not asked for: here the other rank is a twin who sends what this one does."""
import threading
import time

import numpy as np
import pytest

from tests.standin import STREAMS, late
from tests.train.test_graph import RATES, batches, counts, prepared, state   # noqa: F401 (a fixture among them)
from zfcore import reduce
from zfcore.beside import Thread
from zfcore.graph import launch_by_launch
from zfcore.ranks import Ranks


class Twin(Ranks):
    """Rank 0 of two that are alike: arrays come from the stream that is current, as NCCL's do."""
    rank, size, names = 0, 2, ("rank 0 (here)", "rank 1 (its twin)")

    def __init__(self):
        self.to_twin = None

    def gather(self, row):
        return [row, row]

    def exchange(self, sends, receives):
        receives[0][...] = sends[0]
        if receives[0].dtype == np.float64:                # rows of losses
            receives[1][...] = sends[1]
        elif self.to_twin is None:                         # slices of the gradients: the twin has the same
            self.to_twin, receives[1][...] = sends[1].copy(), sends[0]
        else:                                              # what it has made of its slice, which both had the half of
            receives[1][...] = 2*self.to_twin[0]
            self.to_twin = None

    def abort(self, sentence):
        raise AssertionError(sentence)


def twins(options, monkeypatch, eager=False):
    """The states of a training of twins after each step."""
    monkeypatch.setattr(reduce, "BUCKET", 100)             # several travel in a step
    training = prepared(options, ranks=Twin())
    if eager:
        training.captured = launch_by_launch(training.device, training.learn)
    for (pictures, labels, indices), lr in zip(batches(), RATES, strict=True):
        training.plateau.lr = lr
        training.one_step(training.device.array(pictures), labels, indices, ((len(labels),), (len(labels),)))
    return state(training)


def test_a_recorded_step_of_two_ranks_has_the_bits_of_an_eager_one(options, counts, monkeypatch):   # noqa: F811
    wanted = twins(options, monkeypatch, eager=True)
    assert counts.launched == 0
    got = twins(options, monkeypatch)
    assert counts.launched > 0 and all(np.isfinite(array).all() and got[key].tobytes() == array.tobytes()
                                       for key, array in wanted.items())


@pytest.mark.parametrize("schedule", [("compute",), ("copies",), tuple(STREAMS)], ids=" ".join)
def test_however_late_the_second_stream_is_the_step_has_the_same_bits(options, counts, standin, schedule, monkeypatch):   # noqa: F811
    wanted = twins(options, monkeypatch, eager=True)
    for eager in (True, False):
        with late(*schedule):
            got = twins(options, monkeypatch, eager)
        assert all(got[key].tobytes() == array.tobytes() for key, array in wanted.items())


def test_a_thread_takes_piece_after_piece_and_join_tells_what_failed():
    beside, done, go = Thread(), [], threading.Event()
    beside.join()
    for k in range(5):
        beside.run(lambda k=k: (go.wait(10), done.append((k, threading.current_thread() is threading.main_thread()))))
    assert done == []                                      # the caller goes on
    go.set()
    beside.join()
    assert done == [(k, False) for k in range(5)]
    beside.run(lambda: 1/0)
    beside.run(lambda: (time.sleep(0.05), done.append("what came behind it")))
    with pytest.raises(ZeroDivisionError):
        beside.join()
    assert done[-1] == "what came behind it"
    beside.run(lambda: done.append("again"))
    beside.join()
    assert done[-1] == "again"
