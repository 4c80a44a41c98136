import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops.dropout import dropout, dropout_backward, dropout_reference, philox

KEY = (2013, 6, 41)                                                         # seed, layer, step

# counter, key, result: the three "philox4x32 10" lines of kat_vectors in D. E. Shaw Research's Random123
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1")]


def words(text):
    return [int(word, 16) for word in text.split()]


def test_philox_gives_the_published_answers_one_by_one_and_all_at_once():
    for counter, key, result in KNOWN_ANSWERS:
        assert [int(word) for word in philox(words(counter), words(key))] == words(result)
    counters = np.array([words(counter) for counter, _, _ in KNOWN_ANSWERS], np.uint64).T
    together = philox(counters, words(KNOWN_ANSWERS[2][1]))
    assert [int(word[2]) for word in together] == words(KNOWN_ANSWERS[2][2])


@pytest.mark.parametrize("shape", [(13, 7), (3, 5, 2, 3), (1,), (2, 3), (5,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_the_reference_element_by_element(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    key = (2**40 + 3, 6, 2**35 + 11)                                        # all four words of key and step in use
    y, _ = dropout(x, 0.8, key)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, dropout_reference(x, 0.8, key)[0], rtol=2*np.finfo(dtype).eps)


def test_the_mask_is_the_one_the_docstring_defines():
    kept = dropout(np.ones(8), 0.5, (0x299f31d0_a4093822, 0x85a308d3, 0x03707344_13198a2e))[0] > 0
    for block in (0, 1):
        word = philox((block, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0))
        assert kept[4*block:4*block + 4].tolist() == [int(w) < 2**31 for w in word]


def test_the_expected_sum_is_kept_when_keep_prob_is_not_one_half():
    y, _ = dropout(np.ones(200_000), 0.8, KEY)
    assert abs((y > 0).mean() - 0.8) < 5*np.sqrt(0.8*0.2/200_000)           # a swap with 0.2 is 600 sigma away
    assert abs(y.mean() - 1) < 5*np.sqrt(0.2/0.8/200_000)
    assert set(np.unique(y)) == {0, 1/0.8}


def test_keep_prob_one_keeps_everything():
    x = np.random.default_rng(1).standard_normal((7, 9)).astype(np.float32)
    np.testing.assert_array_equal(dropout(x, 1, KEY)[0], x)


def test_a_dropped_unit_is_zero_whatever_it_was():
    x = np.full((40, 5), np.inf, np.float32)
    y, _ = dropout(x, 0.5, KEY)
    assert set(np.unique(y)) == {0, np.inf}


def test_seed_layer_and_step_each_draw_another_mask():
    x = np.ones(4096)
    keys = [KEY, (2014, 6, 41), (2013 + 2**32, 6, 41), (2013, 7, 41), (2013, 6, 42), (2013, 6, 41 + 2**32),
            (6, 2013, 41)]
    masks = [dropout(x, 0.5, key)[0] > 0 for key in keys]
    for k, mask in enumerate(masks):
        for other in masks[:k]:
            assert abs((mask == other).mean() - 0.5) < 0.05                 # independent masks agree on half the units


def test_the_same_key_draws_the_same_mask_on_any_number_of_cores(monkeypatch):
    x = np.ones((307, 431), np.float32)                                     # three blocks
    y, _ = dropout(x, 0.5, KEY)
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(y, dropout(x, 0.5, KEY)[0])
    np.testing.assert_array_equal(y.reshape(-1)[:1000], dropout(np.ones(1000, np.float32), 0.5, KEY)[0])


def test_elements_of_all_blocks_are_drawn_by_their_place_alone():
    """The second block of rows continues the counter of the first."""
    kept = (dropout(np.ones((2**13, 11)), 0.5, KEY)[0] > 0).reshape(-1)
    border = 4*(2**14//11)*11
    for e in range(border - 5, border + 9):
        assert kept[e] == (int(philox((e//4, 6, 41, 0), (2013, 0))[e % 4]) < 2**31)


@pytest.mark.parametrize("first, n", [(0, 13), (0, 4), (4, 8), (3, 1), (5, 6), (12, 1)])
@pytest.mark.parametrize("shape", [(7,), (3, 5), ()])
def test_a_piece_of_a_batch_drops_what_the_whole_batch_drops_there(shape, first, n):
    x = np.random.default_rng(3).standard_normal((*shape, 13))
    piece, cache = dropout(x[..., first:first + n], 0.8, KEY, (first, 13))
    np.testing.assert_array_equal(piece, dropout(x, 0.8, KEY)[0][..., first:first + n])
    np.testing.assert_allclose(piece, dropout_reference(x[..., first:first + n], 0.8, KEY, (first, 13))[0], rtol=1e-15)
    np.testing.assert_array_equal(dropout_backward(np.ones(piece.shape), cache) != 0, piece != 0)


def test_a_piece_of_many_blocks_is_drawn_by_its_place_in_the_batch():
    x = np.ones((5001, 11))                                                 # two blocks
    np.testing.assert_array_equal(dropout(x[:, 3:9], 0.5, KEY, (3, 11))[0], dropout(x, 0.5, KEY)[0][:, 3:9])


def test_no_pictures_are_no_work():
    for shape in ((0,), (5, 0), (0, 3)):
        assert dropout(np.ones(shape), 0.5, KEY)[0].shape == shape


def test_backward_drops_what_forward_dropped():
    rng = np.random.default_rng(2)
    u, x = rng.standard_normal((11, 13)), rng.standard_normal((11, 13))
    y, cache = dropout(x, 0.8, KEY)
    np.testing.assert_allclose(np.vdot(u, y), np.vdot(dropout_backward(u, cache), x), rtol=1e-12)     # adjoint
    np.testing.assert_array_equal(dropout_backward(u, cache) != 0, y != 0)


def test_no_mask_is_stored():
    _, cache = dropout(np.ones((5, 3)), 0.8, KEY)
    assert cache == (0.8, KEY, None)


def test_strided_views_are_counted_like_their_copies():
    x = np.arange(35.0).reshape(5, 7).T
    np.testing.assert_array_equal(dropout(x, 0.5, KEY)[0], dropout(x.copy(), 0.5, KEY)[0])


@pytest.mark.parametrize("keep_prob,key,what", [
    (0, KEY, "keep_prob"), (1.5, KEY, "keep_prob"), (np.nan, KEY, "keep_prob"), (0.5, (-1, 0, 0), "seed"),
    (0.5, (2**64, 0, 0), "seed"), (0.5, (0, 2**32, 0), "layer"), (0.5, (0, 0, -1), "step")])
def test_a_wrong_probability_or_key_is_refused(keep_prob, key, what):
    with pytest.raises(Expected, match=f"dropout: {what}"):
        dropout(np.ones(3), keep_prob, key)


@pytest.mark.parametrize("piece", [(-1, 9), (7, 9), (0, 2)])
def test_a_piece_outside_its_batch_is_refused(piece):
    with pytest.raises(Expected, match="dropout: piece"):
        dropout(np.ones((2, 3)), 0.5, KEY, piece)
