"""Units of two networks are matched by the correlation of their answers to the same pictures."""
import numpy as np
import pytest

from tests.analysis.test_top_activations import COUNT, CROP, SIZE, Noise, pictures_of, small
from zfcore.analysis import matching as of
from zfcore.check import Expected
from zfcore.data.combinations import COMBINATIONS
from zfcore.data.loader import Pictures, shuffled
from zfcore.data.synthetic import OBJECTS, Synthetic
from zfcore.trained import Trained

LAYERS = ["conv1", "conv2", "fc8"]


def model(network):
    return Trained(network, np.full((3, SIZE, SIZE), 120, np.float32))


def all_answers(one, dataset, layer):
    pictures = pictures_of(dataset)
    return of.answers(one, np.stack([pictures.picture(i) for i in range(len(dataset))]), [layer])[layer].astype(np.float64)


@pytest.mark.parametrize("batch_size", [COUNT, 11])
def test_correlations_are_pearson_s_however_pictures_come_in_batches(batch_size):
    one, other, dataset = model(small()), model(small(1)), Noise()
    found = of.matching(one, pictures_of(dataset), other, pictures_of(dataset), LAYERS, batch_size=batch_size)
    for layer in LAYERS:
        a, b = (all_answers(each, dataset, layer) for each in (one, other))
        with np.errstate(invalid="ignore"):
            r = np.corrcoef(a, b)[:len(a), len(a):]
        r = np.where(np.isfinite(r) & (a.std(axis=1)[:, None] > 0) & (b.std(axis=1) > 0), r, -np.inf)
        alive = a.std(axis=1) > 0
        np.testing.assert_allclose(found.r[layer][alive], r.max(axis=1)[alive], atol=1e-9)
        assert found.units[layer].tolist() == np.where(alive, r.argmax(axis=1), -1).tolist()


@pytest.mark.parametrize("damaged", [(), (0, 5, 46)])
def test_chance_is_the_correlation_with_the_answers_permuted_whatever_the_batches(damaged):
    """By NumPy: the pictures in one drawn order, each with the one before it."""
    one, other = model(small()), model(small(1))
    order = np.array([i for i in shuffled(COUNT, 0, 0) if i not in damaged])
    assert (order != np.roll(order, 1)).all()
    a, b = all_answers(one, Noise(), "conv2")[:, order], all_answers(other, Noise(), "conv2")[:, np.roll(order, 1)]
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(a, b)[:len(a), len(a):], nan=-np.inf).max(axis=1)
    for batch_size in (1, 10, COUNT):
        pictures, others = (pictures_of(Noise(damaged=damaged)) for _ in range(2))
        pictures.may_be_damaged = len(damaged)
        found = of.matching(one, pictures, other, others, ["conv2"], batch_size=batch_size)
        fires = found.units["conv2"] >= 0
        np.testing.assert_allclose(found.by_chance["conv2"][fires], expected[fires], atol=1e-9)
        assert found.total == COUNT - len(damaged)


def test_a_network_matches_itself_in_another_order_far_better_than_by_chance():
    one, other, order = model(small()), model(small().copy()), np.array([3, 0, 6, 1, 5, 2, 4])
    second = other.network["conv2"]
    second.parameters = {key: np.ascontiguousarray(array[..., order]) for key, array in second.parameters.items()}
    found = of.matching(one, pictures_of(Noise()), other, pictures_of(Noise()), ["conv2"], batch_size=8)
    fires = found.units["conv2"] >= 0
    assert order[found.units["conv2"][fires]].tolist() == np.flatnonzero(fires).tolist() and not fires[2]
    assert (found.r["conv2"][fires] > 0.999).all() and (found.by_chance["conv2"][fires] < 0.8).all()
    assert np.isnan(found.r["conv2"][2]) and np.isnan(found.by_chance["conv2"][2])


def drawn(split="val", count=10, size=SIZE, seed=0, drawings=OBJECTS, **given):
    dataset = Synthetic(split, count, size, seed, drawings)
    vars(dataset).update(given)
    return Pictures(dataset, size, CROP)


@pytest.mark.parametrize("others", [{"count": 11}, {"split": "train"}, {"seed": 1}, {"drawings": COMBINATIONS},
                                    {"classes": OBJECTS.classes[::-1]}, {"labels": np.zeros(10, np.int64)}])
def test_different_sets_are_refused_and_the_same_that_is_opened_again_is_not(others):
    with pytest.raises(Expected, match="^others: expected the same as pictures, for both networks, got "):
        of.matching(model(small()), drawn(), model(small()), drawn(**others), LAYERS)
    of.check_same(drawn(), drawn())
    of.check_same(drawn(), drawn(size=SIZE + 1))


def test_a_damaged_picture_is_left_out_for_both():
    torn = Noise(damaged=(5,))
    one, other = model(small()), model(small(1))
    pictures, others = (pictures_of(torn) for _ in range(2))
    pictures.may_be_damaged = 1
    found = of.matching(one, pictures, other, others, ["conv2"], batch_size=16)
    whole = np.delete(np.arange(COUNT), 5)
    a, b = (all_answers(each, Noise(), "conv2")[:, whole] for each in (one, other))
    u = int(found.units["conv2"][0])
    np.testing.assert_allclose(found.r["conv2"][0], np.corrcoef(a[0], b[u])[0, 1], atol=1e-9)
