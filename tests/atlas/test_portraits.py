"""What a unit is to classes, to the units below and above, and to those of its layer."""
import math

import numpy as np
import pytest

from zfcore.analysis import portraits
from zfcore.analysis.top_activations import TopActivations, UnitViews
from zfcore.layers import AvgPool, Conv, Flatten, Linear, ReLU
from zfcore.network import Network


def passed(pictures):
    """A pass with these lists of pictures, of one layer."""
    pictures = np.array(pictures, np.int64)
    filler = {"values": np.where(pictures < 0, 0, 1).astype(np.float32), "places": np.zeros((*pictures.shape, 2), np.int64),
              "boxes": np.zeros((*pictures.shape, 4), np.int64)}
    return TopActivations(pictures={"conv": pictures}, **{name: {"conv": array} for name, array in filler.items()},
                          ranges=np.array([[0, 40]]), total=40, fingerprint="")


def viewed(projections, fires=None):
    """Views with these projections (U,k,f,f,3)."""
    U, k, f, *_ = projections.shape
    pictures = np.zeros((U, k), np.int64) if fires is None else np.where(fires, 0, -1)
    return UnitViews("conv", np.arange(U), np.ones((U, k), np.float32), pictures, np.zeros((U, k, 2), np.int64),
                     np.zeros((U, k, 4), np.int64),
                     np.full((U, k), "a"), projections.astype(np.float32), np.zeros((U, k, f, f, 3), np.uint8))


# ------------------------------------------------------------------------------------------------------------ classes
def test_classes_of_the_strongest_pictures_are_counted_and_empty_places_are_not():
    labels = np.arange(40) % 3
    counts = portraits.class_counts(passed([[0, 3, 6, 1], [2, -1, -1, -1], [-1]*4]), "conv", labels, 3)
    assert counts.tolist() == [[3, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_unit_for_one_class_is_selective_one_for_any_is_not_and_of_one_that_hardly_fires_nothing_is_said():
    labels = np.repeat(np.arange(4), 10)                                         # a quarter each
    counts = np.array([[20, 0, 0, 0], [5, 5, 5, 5], [9, 0, 0, 0], [0, 0, 0, 0]])
    common, excess = portraits.selectivity(counts, labels)
    assert common.tolist() == [0, 0, -1, -1]
    chance = portraits.by_chance(labels, 4, [20])[20]
    np.testing.assert_allclose(excess, [0.75 - chance, -chance, np.nan, np.nan])


def test_a_class_that_is_common_anyway_makes_nobody_selective():
    labels = np.array([0]*90 + [1]*10)
    _, excess = portraits.selectivity(np.array([[18, 2], [0, 20]]), labels)
    np.testing.assert_allclose(excess, [0, 0.9], atol=0.01)             # chance is the mean of DRAWN lists


@pytest.mark.parametrize("n, classes", [(10, 10), (10, 100), (20, 10), (100, 10), (37, 3)])
def test_units_that_do_not_care_have_no_selectivity_on_average(n, classes):
    """Some class is the commonest of any list: its share alone would make chance 0.05 to 0.17."""
    labels, rng = np.arange(1000) % classes, np.random.default_rng(n)
    counts = np.stack([np.bincount(labels[rng.choice(1000, n, replace=False)], minlength=classes) for _ in range(2000)])
    excess = portraits.selectivity(counts, labels).excess
    assert abs(excess.mean()) < 4*excess.std()*np.sqrt(1/2000 + 1/portraits.DRAWN)
    assert (counts.max(axis=1)/n - 1/classes).mean() > 0.04


def test_chance_is_the_mean_over_all_lists_and_does_not_depend_on_what_else_is_asked():
    """Of 30 pictures, half of each class, a list of 12 has k of the first with Pascal's weights."""
    labels = np.arange(30) % 2
    weights = np.array([math.comb(15, k)*math.comb(15, 12 - k) for k in range(13)])/math.comb(30, 12)
    exact = (weights*np.maximum(np.arange(13), 12 - np.arange(13))).sum()/12 - 0.5
    found = portraits.by_chance(labels, 2, [12])
    assert found[12] == pytest.approx(exact, abs=0.01) and portraits.by_chance(labels, 2, [12]) == found
    assert portraits.by_chance(labels, 2, [30])[30] == 0 and portraits.by_chance(labels[:0], 2, []) == {}


# ------------------------------------------------------------------------------------------------------------ weights
@pytest.mark.parametrize("groups", [1, 2])
def test_net_weights_say_what_constant_maps_below_make_of_a_unit(groups):
    network = Network("n", (4, 9, 7), [Conv("first", 6, K=2), ReLU("relu"), AvgPool("pool", K=2, S=1),
                                       Conv("second", 8, K=3, groups=groups)]).init(3, "he")
    maps = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    below = np.broadcast_to(maps[:, None, None, None], (6, 7, 5, 1)).copy()
    y, _ = network["second"].forward(below)
    np.testing.assert_allclose(y[:, 1, 1, 0], maps @ portraits.net_weights(network, "second"), rtol=1e-4, atol=1e-6)


def test_net_weights_of_a_fully_connected_layer_add_up_the_places_of_each_map():
    network = Network("n", (3, 5, 4), [Conv("first", 6, K=2), Flatten("flat"), Linear("classes", 7), ReLU("relu"),
                                       Linear("top", 2)]).init(3, "he")
    maps = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    y, _ = network["classes"].forward(np.repeat(maps, 4*3)[:, None])
    np.testing.assert_allclose(y[:, 0], maps @ portraits.net_weights(network, "classes"), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(portraits.net_weights(network, "top"), network["top"].parameters["w"])
    assert portraits.net_weights(network, "first").shape == (3, 6)               # of the first layer: of the colours
    assert [portraits.weighted_below(network, name) for name in ("first", "classes", "top")] == [None, "first", "classes"]


def test_the_strongest_weights_come_first_whatever_their_sign():
    weights = np.array([[0.5, 0], [-2, 0], [1, 0], [0.5, 3]], np.float32)
    assert portraits.strongest_weights(weights, 3) == [[(1, -2.0), (2, 1.0), (0, 0.5)], [(3, 3.0)]]


# ----------------------------------------------------------------------------------------------------------- likeness
def test_the_mean_projection_counts_each_picture_the_same_and_empty_places_not():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 5, 5, 3))
    projections = np.stack([[one*3, other*100, 0*one], [0*one]*3])
    mean = portraits.mean_projection(viewed(projections, np.array([[True, True, False], [False]*3])))
    np.testing.assert_allclose(mean[0], (one/np.linalg.norm(one) + other/np.linalg.norm(other))/2, rtol=1e-5, atol=1e-7)
    assert not mean[1].any()


@pytest.mark.parametrize("side", [3, 16, 21, 50])
def test_descriptors_do_not_know_strength_and_tell_patterns_apart(side):
    rng = np.random.default_rng(1)
    a, b = np.kron(rng.standard_normal((2, 1, 1, 3)), np.ones((1, side, side, 1)))               # two colours
    described = portraits.descriptor(np.stack([a, 7*a, -a, b, 0*a]).astype(np.float32))
    assert described.shape == (5, min(side, portraits.SIDE)**2*3)
    cosines = described @ described.T
    np.testing.assert_allclose(cosines[0, :3], [1, 1, -1], atol=1e-5)
    assert abs(cosines[0, 3]) < 0.999 and not described[4].any()


def test_most_alike_are_others_that_fire_the_most_alike_first():
    angles = np.array([0, 0.1, 0.3, 3.0])
    described = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = portraits.most_alike(np.concatenate([described, np.zeros((1, 2), np.float32)]), 2)
    assert [[j for j, _ in of] for of in found] == [[1, 2], [0, 2], [1, 0], [2, 1], []]
    np.testing.assert_allclose(found[0][0][1], np.cos(0.1), rtol=1e-5)


def test_units_of_two_kinds_come_apart_on_the_plane_and_dead_ones_have_no_place():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    kinds = np.repeat(rng.standard_normal((2, 1, 30)), 12, axis=1).reshape(24, 30)
    described = np.concatenate([kinds + 0.1*rng.standard_normal((24, 30)), np.zeros((1, 30))]).astype(np.float32)
    places = portraits.arranged(described)
    assert np.isnan(places[24]).all() and places[:24].min() == 0 and places[:24].max() == 1
    centres = places[:12].mean(axis=0), places[12:24].mean(axis=0)
    spread = max(np.linalg.norm(places[k:k + 12] - c, axis=1).mean() for k, c in zip((0, 12), centres))
    assert np.linalg.norm(centres[0] - centres[1]) > 2*spread
    np.testing.assert_array_equal(places, portraits.arranged(described))         # the same places every time


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_units_lie_in_a_row(count):
    pytest.importorskip("sklearn")
    described = np.eye(6, dtype=np.float32)*(np.arange(6) < count)[:, None]
    places = portraits.arranged(described)
    assert np.isfinite(places).all(axis=1).sum() == count and len(np.unique(places[:count], axis=0)) == count
