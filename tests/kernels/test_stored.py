"""Operations on maps that are stored as bf16 count in float32: they give the numbers that they give for the same maps in
float32, each rounded once. The tests of each operation hold those against its reference."""
import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.backend import BF16
from zfcore.ops.avgpool import avgpool, avgpool_backward
from zfcore.ops.batch_norm import batch_norm, batch_norm_backward
from zfcore.ops.conv2d_kernels import launch_bias_gradient, transpose_filters
from zfcore.ops.convert import from_bf16, to_bf16
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.dropout import dropout
from zfcore.ops.linear import linear, linear_backward
from zfcore.ops.local_response_norm import local_response_norm, local_response_norm_backward, local_response_norm_of_maxpool
from zfcore.ops.local_response_norm_within import local_response_norm_within, local_response_norm_within_backward
from zfcore.ops.maxpool import maxpool, maxpool_backward
from zfcore.ops.pad import pad
from zfcore.ops.relu import relu, relu_backward
from zfcore.ops.strongest import Lists, strongest

NORM = 5, 1e-4, 0.75, 2.0


def both(forward, backward):
    """y of `forward(x)` and dx of `backward(dy, cache)`, for a dy that is drawn as large as y."""
    def work(x, dy, _):
        y, cache = forward(x)
        return y, backward(dy(y), cache)
    return work


def pooled_norm(x, dy, _):
    (maxima, (switches, *_)), (y, cache) = local_response_norm_of_maxpool(x, (3, 2, 1, "ceil"), NORM)
    return maxima, switches, y, local_response_norm_backward(dy(y), cache, relu=True)


def average_given(x, dy, _):
    divisors = np.random.default_rng(1).integers(1, 9, (3, 20, x.shape[-1])).astype(float)
    y, cache = avgpool(x, 3, 2, 0, borders=divisors)
    return y, avgpool_backward(dy(y), cache)


def list_of_strongest(x, dy, array):
    lists = Lists(array(np.zeros((len(x), 2), np.float32)), *(array(np.full((len(x), 2), -1)) for _ in range(2)))
    strongest(lists, x, np.arange(x.shape[-1]))
    return tuple(lists)


OPERATIONS = {
    "relu": both(relu, relu_backward),
    "maxpool": both(lambda x: maxpool(x, 3, 2, 1), maxpool_backward),
    "maxpool and ReLU below": both(lambda x: maxpool(x, 2, 2), lambda dy, cache: maxpool_backward(dy, cache, relu=True)),
    "avgpool": both(lambda x: avgpool(x, 3, 2, 1), avgpool_backward),
    "avgpool by given divisors": average_given,
    "pad": lambda x, dy, _: (pad(x, 1, 2, -1, 3)[0],),
    "local_response_norm": both(lambda x: local_response_norm(x, *NORM), local_response_norm_backward),
    "local_response_norm of a pool": pooled_norm,
    "local_response_norm_within": both(lambda x: local_response_norm_within(x, 3, 1e-2, 0.75, 1.0),
                                       local_response_norm_within_backward),
    "dropout": lambda x, dy, _: (dropout(x, 0.5, (1, 2, 3))[0],),
    "dropout of a piece": lambda x, dy, _: (dropout(x, 0.5, (1, 2, 3), (2, x.shape[-1] + 5))[0],),
    "transpose_filters": lambda x, dy, _: (transpose_filters(x[:, :5, :5].copy()),),
    "strongest": list_of_strongest,
}


@pytest.mark.parametrize("N", [3, 8], ids=["one by one", "eight at once"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_gives_the_numbers_of_float32_rounded_once(machine, rng, operation, N):
    x = to_bf16(np.where(rng.random((7, 6, 40, N)) < 0.3, 0, normal(rng, 7, 6, 40, N)))
    x[0, 0, 0, 0], x[1, 1, 1, 1] = to_bf16(np.float32(np.nan)), to_bf16(np.float32(np.inf))

    def work(stored):
        there = (lambda bits: machine.array(bits)) if stored else (lambda bits: machine.array(from_bf16(bits)))
        gradient = lambda y: there(to_bf16(np.random.default_rng(5).standard_normal(y.shape, np.float32)))
        return OPERATIONS[operation](there(x), gradient, machine.array)

    found = machine.results(lambda: [*work(True), *work(False)])
    for one, other in zip(found[:len(found)//2], found[len(found)//2:], strict=True):
        is_map = other.dtype == np.float32 and operation != "strongest"
        np.testing.assert_array_equal(one, from_bf16(to_bf16(other)) if is_map else other)


@pytest.mark.parametrize("N", [3, 8], ids=["one by one", "eight at once"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_counts_as_for_float32(machine, rng, N, training):
    x, dy = (to_bf16(normal(rng, 3, 5, 7, N) + shift) for shift in (10, 0))
    gamma, beta, mean, var = normal(rng, 3), normal(rng, 3), normal(rng, 3) + 10, np.float32([1, 2, 3])

    def work(there):
        kept = machine.array(mean), machine.array(var)
        y, cache = batch_norm(there(x), machine.array(gamma), machine.array(beta), *kept, 1e-5, 0.1 if training else None)
        return y, *batch_norm_backward(there(dy), cache), *kept

    found = machine.results(lambda: [*work(machine.array), *work(lambda bits: machine.array(from_bf16(bits)))])
    for one, other, is_map in zip(found[:6], found[6:], [True, True] + 4*[False], strict=True):
        close(one, other.astype(float), (2.0**-8*is_map + 4*EPS)*abs(other) + 1e-5)


def test_sums_of_gradients_are_float32(machine, rng):
    dy, flat = to_bf16(normal(rng, 3, 5, 7, 24)), to_bf16(normal(rng, 5, 24))
    stored = machine.stored("bf16")

    def work():
        _, cache = linear(stored(normal(rng, 4, 24)), stored(normal(rng, 4, 5)), machine.array(np.zeros(5, np.float32)), "bf16")
        sums = launch_bias_gradient(machine.array(dy)), linear_backward(machine.array(flat), cache)[2]
        assert all(db.dtype == np.float32 for db in sums)
        return sums

    of_maps, of_columns = machine.results(work)
    numbers, columns = from_bf16(dy).astype(float), from_bf16(flat).astype(float)
    close(of_maps, numbers.sum((1, 2, 3)), 840*EPS*abs(numbers).sum((1, 2, 3)))
    close(of_columns, columns.sum(1), 24*EPS*abs(columns).sum(1))


@pytest.mark.parametrize("N", [3, 40])
def test_pictures_are_written_as_they_are_stored(machine, rng, N):
    pictures, mean = rng.integers(0, 256, (N, 9, 8, 3), np.uint8), 255*rng.random((3, 9, 8), np.float32)
    tops, lefts, flips = rng.integers(0, 3, N), rng.integers(0, 2, N), rng.random(N) < 0.5
    crops = lambda dtype: crop_flip(machine.array(pictures), machine.array(mean), tops, lefts, flips, 7, 7, dtype)
    stored, floats = machine.results(lambda: [crops(BF16), crops(None)])
    np.testing.assert_array_equal(stored, from_bf16(to_bf16(floats)))
