"""The step as a CUDA graph, proven without a GPU: recorded once on a fake device whose kernels run in the CPU executor, its
list of launches run again with other pictures, labels, crops, step number and learning rate gives the bits of eager steps."""
import math
from functools import partial

import numpy as np
import pytest

from tests import executor
from tests.fake_graphs import DeviceArray, FakeCupy
from train.options import parser
from zfcore import backend
from zfcore.check import Expected
from zfcore.device import DEVICES, select
from zfcore.graph import capture, launch_by_launch
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.training import Training, loop, resolve
from zfcore.training.watch import Sums

SIZES = 6, 6, 6, 6, 5, 6, 6       # pictures of each batch: eager, recorded, replayed, replayed, eager, replayed, replayed
RATES = 0.02, 0.02, 0.02, 0.002, 0.002, 0.002, 0.0002


def few_maps(name, classes, size, keep_prob):
    return Network(name, (3, size, size), [
        Conv("conv1", 6, K=5, S=4), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"), Conv("conv2", 5, K=3, P=1),
        ReLU("relu2"), Flatten("flatten"), Linear("fc6", 13), ReLU("relu6"), Dropout("drop6", keep_prob), Linear("fc8", classes)])


@pytest.fixture
def fake(monkeypatch):
    """A FakeCupy that `--device gpu` finds."""
    if executor.emu.GXX is None:
        pytest.skip("the CPU executor needs g++")
    fake = FakeCupy()
    monkeypatch.setitem(backend.MODULES, DeviceArray, fake)
    monkeypatch.setitem(backend.LAUNCHERS, DeviceArray, fake.launch)
    monkeypatch.setitem(DEVICES, "gpu", lambda: backend.Device("gpu", "a fake", fake.asarray, capture=partial(capture, fake)))
    monkeypatch.setattr(loop, "build", few_maps)
    return fake


@pytest.fixture(params=["fake", "gpu"])
def anywhere(request, monkeypatch):
    """The FakeCupy; and None where the real one is used, if there is a GPU."""
    if request.param == "fake":
        return request.getfixturevalue("fake")
    try:
        select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    monkeypatch.setattr(loop, "build", few_maps)


def prepared(options, *more):
    """A Training just before its first step, with a limit on filters low enough that some are scaled back."""
    words = [*options, "--batch-size", "6", "--device", "gpu", "--init", "he", "--rms-max", "0.05", *more]
    training = Training("somewhere", *Training.materials(resolve(vars(parser().parse_args(words)))))
    training.begin_sums()
    return training


def batches():
    rng = np.random.default_rng(3)
    for size in SIZES:
        indices = rng.permutation(30)[:size]
        yield rng.integers(0, 256, (size, 37, 37, 3), dtype=np.uint8), rng.integers(0, 3, size), indices


def state(training):
    """Everything on the device that a step changes."""
    arrays = {(name, key): array for name, of_layer in training.network.parameters().items() for key, array in of_layer.items()}
    arrays |= {(name, key, "v"): array for name, of_layer in training.optimizer.velocity.items() for key, array in of_layer.items()}
    return {key: backend.to_host(array) for key, array in {**arrays, "totals": training.totals}.items()}


def after_each_step(training):
    states = []
    for (pictures, labels, indices), lr in zip(batches(), RATES, strict=True):
        if len(states) == 5:               # an epoch later
            training.epoch, training.sums = 1, Sums()
            training.begin_sums()
        training.plateau.lr = lr
        training.one_step(training.device.array(pictures), labels, indices)
        states.append(state(training))
    return states


@pytest.mark.parametrize("more", [(), ("--micro-batch", "4"), ("--precision", "bf16")], ids=["whole", "in pieces", "in bf16"])
def test_a_replayed_step_has_the_bits_of_an_eager_one(options, anywhere, more):
    one, other = prepared(options, *more), prepared(options, *more)
    other.captured = launch_by_launch(other.device, other.learn)
    wanted = after_each_step(other)
    assert not anywhere or anywhere.launched == 0
    got = after_each_step(one)
    assert not anywhere or anywhere.launched == 4
    for number, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
        for key, array in theirs.items():
            assert np.isfinite(array).all() and mine[key].tobytes() == array.tobytes(), (number, key)
    loss, wrong, clamped = wanted[-1]["totals"]
    assert 0 < loss < 2*12*math.log(3) and 0 <= wrong <= 12 and 0 < clamped <= 2*11      # of two steps of the second epoch


def test_what_is_recorded_waits_for_what_came_before_and_is_waited_for(options, fake):
    training = prepared(options)
    after_each_step(training)
    (waiting, first), (then, waited) = fake.waits
    assert waiting is waited and first is then and first.legacy and not waiting.legacy


def test_after_a_loss_that_is_not_finite_nothing_moves_and_the_host_hears_of_it_at_its_next_look(options, fake):
    training = prepared(options)
    (pictures, labels, indices), *_ = batches()
    step = lambda: training.one_step(training.device.array(pictures), labels, indices)
    for _ in range(3):
        step()
    before = state(training)
    training.look()
    assert training.sums.loss == before["totals"][0] and training.sums.count == 18
    training.network["fc8"].parameters["b"][...] = fake.asarray(np.array([np.inf, 0, 0], np.float32))
    for _ in range(2):
        step()
    with pytest.raises(Expected, match=r"a finite loss, got \w+ at epoch 1, steps 4 to 5"):
        training.look()
    after = state(training)
    for key in before.keys() - {"totals", ("fc8", "b")}:
        assert after[key].tobytes() == before[key].tobytes(), key
    assert fake.launched == 3


def test_a_graph_keeps_its_memory_and_gives_it_back_when_another_takes_its_place(fake):
    total = fake.asarray(np.zeros(5, np.float32))

    def work(x, there):
        y = backend.zeros(x.shape, x.dtype, like=x)
        y += x
        y += there
        total[...] = y[:5]
    run, given = capture(fake, work), []
    for k, length in enumerate((7, 7, 7, 9, 7, 9, 9)):
        given.append(fake.asarray(np.full(length, 10*k, np.float32)))
        run(np.arange(length, dtype=np.float32), given[-1])
        taken = backend.zeros((64,), np.float32, like=total)           # whoever asks next gets none of the graph's memory
        assert fake.asnumpy(total).tolist() == [10*k + i for i in range(5)] and not fake.asnumpy(taken).any()
    assert fake.launched == 2 and [pool.private for pool in fake.pools if pool.blocks] == [False, True]
    del run
    assert not any(pool.blocks for pool in fake.pools if pool.private), "a graph that nobody has any more keeps memory"
    assert all((fake.asnumpy(array) == 10*k).all() for k, array in enumerate(given)), "a replay wrote into the caller's array"


def test_a_graph_that_could_not_be_recorded_gives_its_memory_back(fake):
    def work(x):
        backend.zeros((64,), np.float32, like=x)
        if fake.recording:
            backend.to_host(x)
    run = capture(fake, work)
    run(np.zeros(3))
    try:
        run(np.zeros(3))
    except AssertionError:
        assert any(pool.blocks for pool in fake.pools if pool.private)
    assert len(fake.pools) > 1 and not any(pool.blocks for pool in fake.pools if pool.private)


@pytest.mark.parametrize("mistake, sentence", [
    (lambda x: backend.to_host(x), "the host waits"), (lambda x: float(x[0]), "a look at numbers"),
    (lambda x: backend.to_device(np.zeros(3), like=x), "the host waits")], ids=["read", "number", "send"])
def test_a_step_that_needs_the_host_cannot_be_recorded(fake, mistake, sentence):
    recorded = []

    def work(x):
        if fake.recording:
            recorded.append(True)
            mistake(x)
    run = capture(fake, work)
    run(np.zeros(3))
    with pytest.raises(AssertionError, match=sentence):
        run(np.zeros(3))
    assert recorded
