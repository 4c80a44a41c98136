"""Batches reach a device ahead of use. That no wait may be left out, tests/gpu/test_streams.py proves."""
import numpy as np
import pytest

from zfcore.backend import CPU, to_host
from zfcore.check import Expected
from zfcore.device import select


def numbered(device, count, n=6):
    """Batches (array full of k, k) for k < count, which nobody but the receiver holds on to."""
    def full(k):
        host = device.pinned((n, 5), np.uint8)
        host[...] = k
        return host

    for k in range(count):
        yield full(k), k


def test_on_the_cpu_batches_pass_through_uncopied():
    batches = numbered(CPU, 3)
    assert CPU.prefetch(batches) is batches


def test_batches_arrive_whole_on_a_gpu():
    try:
        device = select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    sums = [(array.astype(np.int64).sum(), k) for array, k in device.prefetch(numbered(device, 50, n=2**20))]
    assert [int(to_host(total)) for total, _ in sums] == [5*2**20*k for k in range(50)]
