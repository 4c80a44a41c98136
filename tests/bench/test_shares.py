"""Where a thread is tells the operation; a thread that waits is not counted."""
import sys
import threading

import numpy as np
import pytest

from bench import shares
from bench.projections import Noise
from bench.step import Drawn
from zfcore.data.loader import check_data_set
from zfcore.layers import Conv, LocalResponseNorm
from zfcore.network import Network


def test_the_time_goes_where_the_work_is(monkeypatch):
    monkeypatch.setattr(shares, "LEAST", 30)
    network = Network("small", (8, 40, 40), [LocalResponseNorm("norm1")]).init(0, "he")
    x = np.ones((8, 40, 40, 16), np.float32)
    found = shares.shares(lambda: network.forward(x))
    assert next(iter(found["by_operation"])) == "local_response_norm" and found["no_product"] > 0.9
    network = Network("small", (64, 9, 9), [Conv("conv1", 256, K=9)]).init(0, "he")          # a product alone
    x = np.ones((64, 9, 9, 64), np.float32)
    found = shares.shares(lambda: network.forward(x))
    assert next(iter(found["by_operation"])) == "conv2d_blocks" and found["no_product"] < 0.6
    assert abs(sum(found["by_operation"].values()) - 1) < 1e-9


def test_who_waits_and_who_is_not_ours_is_not_counted():
    ready, end = threading.Event(), threading.Event()

    def idle():
        ready.set()
        end.wait()
    thread = threading.Thread(target=idle)
    thread.start()
    ready.wait()
    assert shares.where(sys._current_frames()[thread.ident]) is None
    end.set()
    thread.join()
    assert shares.where(sys._getframe()) is None


@pytest.mark.parametrize("dataset", [Noise(3), Drawn(3, 48)])
def test_data_sets_of_the_bench_are_some(dataset):
    check_data_set(dataset)
