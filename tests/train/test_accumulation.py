"""A batch walked in pieces makes the same step as the whole batch."""
import numpy as np
import pytest

from tests import executor
from train.options import parser
from zfcore.backend import to_host
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.training import Training, loop, resolve

BATCHES = [slice(0, 10), slice(10, 20), slice(20, 27)]     # pieces of 4: 4, 4, 2 and 4, 3


def few_maps(name, classes, size, keep_prob):
    """Small enough for the executor."""
    return Network(name, (3, size, size), [Conv("conv1", 6, K=5, S=4), ReLU("relu1"), MaxPool("pool1", K=3, S=2),
                                           LocalResponseNorm("norm1"),
                                           Flatten("flatten"), Linear("fc6", 24), ReLU("relu6"), Dropout("drop6", keep_prob),
                                           Linear("fc8", classes)])


def after_three_steps(options, device, micro_batch):
    """(losses and wrong answers, parameters) of a run that has seen BATCHES."""
    words = [*options, "--batch-size", "10", "--micro-batch", str(micro_batch), "--device", device, "--init", "he", "--lr",
             "0.01"]
    training = Training("nowhere", *Training.materials(resolve(vars(parser().parse_args(words)))))
    rng, losses = np.random.default_rng(4), []
    pictures, labels = rng.integers(0, 256, (27, 37, 37, 3), dtype=np.uint8), rng.integers(0, 3, 27)
    for batch in BATCHES:
        training.begin_sums()
        training.one_step(training.device.array(pictures[batch]), labels[batch], np.arange(27)[batch])
        training.look()
        losses.append((training.sums.loss, training.sums.wrong))
    return losses, {(name, key): to_host(array) for name, of_layer in training.network.parameters().items()
                    for key, array in of_layer.items()}


def assert_same_steps(one, other):
    assert [wrong for _, wrong in one[0]] == [wrong for _, wrong in other[0]]
    np.testing.assert_allclose([loss for loss, _ in one[0]], [loss for loss, _ in other[0]], rtol=1e-5)
    for name, wanted in one[1].items():
        np.testing.assert_allclose(other[1][name], wanted, rtol=0, atol=1e-5*np.abs(wanted).max(), err_msg=str(name))


@pytest.mark.parametrize("micro_batch", [4, 1, 10, 11])
def test_three_steps_in_pieces_end_where_whole_batches_do(options, micro_batch):
    assert_same_steps(after_three_steps(options, "cpu", 0), after_three_steps(options, "cpu", micro_batch))


@executor.requires_executor
def test_on_kernels_too(options, monkeypatch):
    monkeypatch.setattr(loop, "build", few_maps)
    whole = after_three_steps(options, "cpu", 0)
    with executor.settings("forward"):
        assert_same_steps(whole, after_three_steps(options, "executor", 4))
