import numpy as np
import pytest

from tests.kernels.conftest import normal
from zfcore.ops.dropout import dropout, dropout_backward, philox

KEYS = [(0, 0, 0), (2**40 + 3, 5, 2**33 + 9), (2**64 - 1, 2**32 - 1, 2**64 - 1)]


@pytest.mark.parametrize("shape", [(3, 7, 13), (5, 32)], ids=["one by one", "four at once"])
@pytest.mark.parametrize("key", KEYS)
def test_dropout_draws_the_same_mask_and_bits_as_numpy(machine, rng, key, shape):
    x = normal(rng, *shape)
    y, dx = machine.results(lambda: _both(machine.array(x), 0.8, key))
    wanted, _ = dropout(x, 0.8, key)
    assert y.tobytes() == wanted.tobytes() and dx.tobytes() == wanted.tobytes()
    assert 0 < (y == 0).sum() < y.size/2


@pytest.mark.parametrize("first, n, N", [(0, 8, 12), (4, 8, 12), (4, 7, 12), (3, 8, 12), (5, 1, 13), (0, 4, 13), (9, 4, 13)])
def test_a_piece_of_a_batch_has_the_bits_of_the_whole_there(machine, rng, first, n, N):
    x = normal(rng, 7, N)
    y, dx = machine.results(lambda: _both(machine.array(np.ascontiguousarray(x[:, first:first + n])), 0.8, KEYS[1], (first, N)))
    wanted = np.ascontiguousarray(dropout(x, 0.8, KEYS[1])[0][:, first:first + n])
    assert y.tobytes() == wanted.tobytes() and dx.tobytes() == wanted.tobytes()


def test_keep_prob_one_keeps_everything(machine, rng):
    x = normal(rng, 3, 701)
    y, _ = machine.results(lambda: _both(machine.array(x), 1.0, KEYS[1]))
    np.testing.assert_array_equal(y, x)


def test_a_unit_whose_word_is_exactly_the_threshold_is_dropped(machine, rng):
    x = normal(rng, 4)
    words = [int(word) for word in philox((0, 5, 9, 2), (3, 2**8))]     # of key (2**40 + 3, 5, 2**33 + 9)
    y, _ = machine.results(lambda: _both(machine.array(x), words[2]/2**32, KEYS[1]))
    np.testing.assert_array_equal(y != 0, [word < words[2] for word in words])
    assert y[2] == 0


def _both(x, keep_prob, key, piece=None):
    y, cache = dropout(x, keep_prob, key, piece)
    return y, dropout_backward(x, cache)
