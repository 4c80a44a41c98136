"""The step as a CUDA graph, on a GPU or the stand-in: recorded once, its launches run again with other pictures, labels, crops,
step number and learning rate give the bits of eager steps."""
import gc
import math

import numpy as np
import pytest

from bench.gpu import recorded
from tests.standin import STREAMS, late
from train.options import parser
from zfcore import backend, graph, reduce
from zfcore.check import Expected
from zfcore.graph import capture, launch_by_launch
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.ranks import ALONE
from zfcore.training import Training, loop, resolve
from zfcore.training.watch import Sums

SIZES = 6, 6, 6, 6, 5, 6, 6       # pictures of each batch: eager, recorded, replayed, replayed, eager, replayed, replayed
RATES = 0.02, 0.02, 0.02, 0.002, 0.002, 0.002, 0.0002


def few_maps(name, classes, size, keep_prob):
    return Network(name, (3, size, size), [
        Conv("conv1", 6, K=5, S=4), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"),
        Conv("conv2", 5, K=3, P=1),
        ReLU("relu2"), Flatten("flatten"), Linear("fc6", 13), ReLU("relu6"), Dropout("drop6", keep_prob),
        Linear("fc8", classes)])


class Counts:
    launched = 0                           # graphs


@pytest.fixture
def counts(gpu, monkeypatch):
    """The Counts of the test, on a GPU that trains `few_maps`. What a graph holds on to and nobody has is gone before each
    replay."""
    counts = Counts()

    def replay(self, parcel, replay=graph._Graph.replay):
        counts.launched += 1
        import cupy
        cupy.get_default_memory_pool().free_all_blocks()
        replay(self, parcel)
    monkeypatch.setattr(graph._Graph, "replay", replay)
    monkeypatch.setattr(loop, "build", few_maps)
    return counts


def prepared(options, *more, ranks=ALONE):
    """A Training just before its first step, with a limit on filters low enough that some are scaled back."""
    words = [*options, "--batch-size", "6", "--device", "gpu", "--init", "he", "--rms-max", "0.05", *more]
    training = Training("somewhere", *Training.materials(resolve(vars(parser().parse_args(words)))), ranks=ranks)
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
    arrays |= {(name, key, "v"): array for name, of_layer in training.optimizer.velocity.items()
               for key, array in of_layer.items()}
    return {key: backend.to_host(array) for key, array in {**arrays, "totals": training.totals}.items()}


def after_each_step(training, look=0):
    """The states after each step, from step number `look` on: to look waits for the device."""
    states = []
    for (pictures, labels, indices), lr in zip(batches(), RATES, strict=True):
        if len(states) == 5:               # an epoch later
            training.epoch, training.sums = 1, Sums()
            training.begin_sums()
        training.plateau.lr = lr
        training.one_step(training.device.array(pictures), labels, indices)
        states.append(state(training) if len(states) >= look else None)
    return states


@pytest.mark.parametrize("more", [(), ("--micro-batch", "4"), ("--precision", "bf16")], ids=["whole", "in pieces", "in bf16"])
def test_a_replayed_step_has_the_bits_of_an_eager_one(options, counts, more):
    one, other = prepared(options, *more), prepared(options, *more)
    other.captured = launch_by_launch(other.device, other.learn)
    wanted = after_each_step(other)
    assert counts.launched == 0
    got = after_each_step(one)
    assert counts.launched == 4
    for number, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
        for key, array in theirs.items():
            assert np.isfinite(array).all() and mine[key].tobytes() == array.tobytes(), (number, key)
    loss, wrong, clamped = wanted[-1]["totals"]
    assert 0 < loss < 2*12*math.log(3) and 0 <= wrong <= 12 and 0 < clamped <= 2*11      # of two steps of the second epoch


def others_weights(training):
    training.network.load({name: {key: backend.to_host(array)/2 for key, array in of_layer.items()}
                           for name, of_layer in training.network.parameters().items()}, training.device)


def others_velocity(training):
    training.optimizer.velocity = {name: {key: -array for key, array in of_layer.items()}
                                   for name, of_layer in training.optimizer.velocity.items()}


@pytest.mark.parametrize("replace", [
    others_weights, others_velocity, lambda training: setattr(training.optimizer, "momentum", 0.5),
    lambda training: training.network.use("bf16"), lambda training: training.network["drop6"].seeded(7),
    lambda training: setattr(training, "totals", training.totals + 1)],
    ids=["weights", "velocity", "momentum", "precision", "seed of dropout", "sums"])
def test_what_a_step_goes_by_may_be_replaced_between_two_steps(options, counts, replace):
    one, other = prepared(options), prepared(options)
    other.captured = launch_by_launch(other.device, other.learn)
    for number, (pictures, labels, indices) in enumerate(list(batches())[:4]*2):
        for training in (one, other):
            if number == 4:
                replace(training)
            training.one_step(training.device.array(pictures), labels, indices)
        wanted, got = state(other), state(one)
        assert all(got[key].tobytes() == array.tobytes() for key, array in wanted.items()), number
    assert counts.launched == 2 + 2                        # two of four steps before, two of four after


def test_two_trainings_of_one_network_take_turns(options, counts):
    """The second replaces the arrays of both; the first goes on with those."""
    def step(training, number):
        for pictures, labels, indices in list(batches())[:number]:
            training.one_step(training.device.array(pictures), labels, indices)

    def in_turn(settle):
        one = settle(prepared(options))
        step(one, 4)
        two = settle(Training("elsewhere", *Training.materials(one.config, network=one.network)))
        step(two, 4)
        step(one, 3)
        return {**state(one), "totals of the second": backend.to_host(two.totals)}

    def eager(training):
        training.captured = launch_by_launch(training.device, training.learn)
        return training
    wanted, got = in_turn(eager), in_turn(lambda training: training)
    assert counts.launched == 2 + 2 + 1
    assert all(np.isfinite(array).all() and got[key].tobytes() == array.tobytes() for key, array in wanted.items())


def many_maps(name, classes, size, keep_prob):
    return Network(name, (3, size, size), [
        Conv("conv1", 32, K=5, S=6), ReLU("relu1"), Conv("conv2", 40, K=3, S=2, P=1), ReLU("relu2"), Flatten("flatten"),
        Linear("fc6", 32), ReLU("relu6"), Linear("fc8", classes)])


def test_a_replayed_step_on_wgmma_has_the_bits_of_an_eager_one(options, counts, monkeypatch):
    """A tensor map holds an address, and six pictures are copied into eight: both are the graph's for as long as it is."""
    monkeypatch.setattr(loop, "build", many_maps)
    one, other = prepared(options, "--precision", "bf16"), prepared(options, "--precision", "bf16")
    x = other.device.array(np.zeros(1))
    if backend.architecture(x) != "sm_90a":
        pytest.skip("a GPU without wgmma")
    other.captured = launch_by_launch(other.device, other.learn)

    def steps(training):
        for (pictures, labels, indices), _ in zip(batches(), range(4)):
            training.one_step(training.device.array(pictures), labels, indices)
        return state(training)

    wanted, tape = recorded(lambda _: steps(other), [x])
    assert {f"conv2d_wgmma_{name}" for name in ("forward", "transpose", "gradient")} <= {kernel.name for kernel, *_ in tape}
    got = steps(one)
    assert counts.launched == 2
    assert all(np.isfinite(array).all() and got[key].tobytes() == array.tobytes() for key, array in wanted.items())


@pytest.mark.parametrize("schedule", [("compute",), ("copies",), tuple(STREAMS)], ids=" ".join)
def test_however_late_work_is_done_the_step_has_the_bits_of_one_done_at_once(options, counts, standin, schedule):
    wanted = after_each_step(prepared(options))
    with late(*schedule):
        got = after_each_step(prepared(options), look=len(SIZES) - 1)
    assert all(got[-1][key].tobytes() == array.tobytes() for key, array in wanted[-1].items())


@pytest.mark.parametrize("schedule", [(), ("copies",), tuple(STREAMS)], ids=lambda schedule: " ".join(schedule) or "at once")
@pytest.mark.parametrize("more", [(), ("--micro-batch", "4")], ids=["whole", "in pieces"])
def test_layers_that_move_beside_backward_come_to_the_bits_of_all_at_its_end(options, counts, standin, schedule, more,
                                                                             monkeypatch):
    wanted, moved = after_each_step(prepared(options, *more)), []
    monkeypatch.setattr(reduce, "BUCKET", 100)
    training = prepared(options, *more)
    step, backward = training.optimizer.step, training.network.backward
    training.optimizer.step = lambda network, grads, *rest: moved.append(list(grads)) or step(network, grads, *rest)
    training.network.backward = lambda *given, **named: (backward(*given, **named), moved.append("end of backward"))
    with late(*schedule):
        got = after_each_step(training, look=len(SIZES) - 1)
    assert moved[-5:-1] == [["fc8"], ["fc6"], ["conv2"], ["conv1"]] and moved[-1] == "end of backward"
    assert all(got[-1][key].tobytes() == array.tobytes() for key, array in wanted[-1].items())


@pytest.mark.parametrize("wait", ["compute.wait_event", "copies.wait_event"])
def test_what_is_recorded_waits_for_what_came_before_and_is_waited_for(gpu, standin, wait):
    def outcome(*schedule, deaf=None):
        total = gpu.array(np.zeros(5, np.float32))
        live(standin)                      # memory that is given back waits for the device: there is to be none

        def work(x):
            nonlocal total
            total *= 2
            total += x
        with late(*schedule, deaf=deaf):
            run = capture(module_of(total), work)
            for k in range(4):
                run(np.full(5, k, np.float32))
            return backend.to_host(total).tolist()
    schedules = [(), ("compute",), ("copies",), tuple(STREAMS)]
    assert all(outcome(*schedule) == [11]*5 for schedule in schedules)
    assert not all(outcome(*schedule, deaf=wait) == [11]*5 for schedule in schedules)


def test_after_a_loss_that_is_not_finite_nothing_moves_and_the_host_hears_of_it_at_its_next_look(options, counts):
    training = prepared(options)
    (pictures, labels, indices), *_ = batches()
    step = lambda: training.one_step(training.device.array(pictures), labels, indices)
    for _ in range(3):
        step()
    before = state(training)
    training.look()
    assert training.sums.loss == before["totals"][0] and training.sums.count == 18
    training.network["fc8"].parameters["b"][...] = training.device.array(np.array([np.inf, 0, 0], np.float32))
    for _ in range(2):
        step()
    with pytest.raises(Expected, match=r"a finite loss, got \w+ at epoch 1, steps 4 to 5"):
        training.look()
    after = state(training)
    for key in before.keys() - {"totals", ("fc8", "b")}:
        assert after[key].tobytes() == before[key].tobytes(), key
    assert counts.launched == 3


def module_of(array):
    return backend.array_module(array)


def live(standin):
    """Bytes of device memory that something holds, beside CuPy's pool for all."""
    import cupy
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    return standin.standin_live()


def test_a_graph_keeps_its_memory_and_gives_it_back_when_another_takes_its_place(gpu, counts, standin):
    total = gpu.array(np.zeros(5, np.float32))

    def work(x, there):
        y = backend.zeros((100_000,), x.dtype, like=x)
        y[:len(x)] += x
        y[:len(x)] += there
        total[...] = y[:5]
    before, run, given = live(standin), capture(module_of(total), work), []
    for k, length in enumerate((7, 7, 7, 9, 7, 9, 9, 7, 7, 9, 9)):           # four graphs
        given.append(gpu.array(np.full(length, 10*k, np.float32)))
        run(np.arange(length, dtype=np.float32), given[-1])
        taken = backend.zeros((64,), np.float32, like=total)           # whoever asks next gets none of the graph's memory
        assert backend.to_host(total).tolist() == [10*k + i for i in range(5)] and not backend.to_host(taken).any()
    assert counts.launched == 2
    assert 400_000 <= live(standin) - before < 1_300_000, "the memory of one graph, and what small arrays keep from going of CuPy's blocks"
    assert all((backend.to_host(array) == 10*k).all() for k, array in enumerate(given)), "a replay wrote into the caller's array"
    del run, given, taken
    assert live(standin) == before, "a graph that nobody has any more keeps memory"


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_ends_a_recording_is_raised_and_not_what_cuda_says_of_half_a_one(gpu, standin, error):
    x, beside = gpu.array(np.zeros(3)), []
    cupy = module_of(x)

    def work(x):
        stream = cupy.cuda.get_current_stream()
        if stream.is_capturing():
            beside.append(cupy.cuda.Stream(non_blocking=True))
            beside[0].wait_event(stream.record())
            with beside[0]:
                x *= 2                                               # and nobody waits for it
            raise error
    run = capture(cupy, work)
    run(np.zeros(3))
    with pytest.raises(error):
        run(np.zeros(3))
    assert beside


@pytest.mark.parametrize("mistake", [
    lambda x: backend.to_host(x), lambda x: float(x[0]), lambda x: backend.to_device(np.zeros(3), like=x)],
                         ids=["read", "number", "send"])
def test_a_step_that_needs_the_host_cannot_be_recorded_and_gives_its_memory_back(gpu, standin, mistake):
    x, recorded = gpu.array(np.zeros(3)), []
    cupy = module_of(x)

    def work(x):
        backend.zeros((64,), np.float32, like=x)
        if cupy.cuda.get_current_stream().is_capturing():
            recorded.append(True)
            mistake(x)
    before, run = live(standin), capture(cupy, work)
    run(np.zeros(3))
    with pytest.raises(RuntimeError):
        run(np.zeros(3))
    assert recorded
    del run
    assert live(standin) == before
