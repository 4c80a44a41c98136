"""The same part hidden in different pictures: signs and their Hamming distance by hand, a planted network, the test's level."""
import csv
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.real_data import REAL_DATA, needs
from tests.spoken import in_one
from train.paper.looking import of_part
from zfcore import results
from zfcore.__main__ import main
from zfcore.analysis.correspondence import (GROUP, PARTS, Correspondence, common_parts, correspondence, default_side, groups_of,
                                            hamming, holm, in_crop, least_p, lenders_of, length, masked, place_test,
                                            random_test, sign_of_change)
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, save
from zfcore.commands.correspondence import what_was_tested
from zfcore.data import open_data
from zfcore.data.landmarks import read_landmarks
from zfcore.data.synthetic import CLASSES, Synthetic
from zfcore.data.transforms import square
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.network import Network
from zfcore.trained import Trained

PHOTOS = REAL_DATA/"photos"
SIDE, CROP = 34, 30
MEAN = np.full((3, SIDE, SIDE), 100, np.float32)


def colour_finder():
    """Unit k of fc6 says how strong colour k is anywhere: red, green, blue. Scores are anything."""
    network = Network("colours", (3, CROP, CROP), [
        Conv("conv1", 3, K=1), ReLU("relu1"), MaxPool("pool1", K=15, S=15), MaxPool("pool2", K=2, S=2), Flatten("flatten"),
        Linear("fc6", 3), ReLU("relu6"), Linear("fc8", 10)]).init(0, "he")
    network["conv1"].parameters = {"w": np.eye(3, dtype=np.float32)[:, None, None], "b": np.float32([-50]*3)}
    network["fc6"].parameters = {"w": np.eye(3, dtype=np.float32), "b": np.zeros(3, np.float32)}
    return network


def toys(n=6, seed=0):
    """(pictures (n,CROP,CROP,3), places (n,2,2)): a red spot, which is part 0, a green and a blue one on grey, far apart; part
    1 is nothing but background."""
    rng, pictures, places = np.random.default_rng(seed), np.full((n, CROP, CROP, 3), 100, np.uint8), np.empty((n, 2, 2))
    quarters = np.array([(7, 7), (7, 22), (22, 7), (22, 22)])
    for picture, place in zip(pictures, places):
        spots = quarters[rng.permutation(4)] + rng.integers(-2, 3, (4, 2))
        for colour, (y, x) in enumerate(spots[:3]):
            picture[y - 1:y + 2, x - 1:x + 2, colour] = 250
        place[:] = spots[[0, 3], ::-1] + 0.5
    return pictures, places


# --------------------------------------------------------------------------------------------------- signs, distances
def test_a_sign_is_of_clean_minus_masked_and_rounding_errors_have_none():
    clean, masked_ = np.float32([100, 0, 50, 7, 0]), np.float32([[90, 3, 50, 7.0005, 0], [100.002, 0, 50, 0, 0.0011]])
    assert sign_of_change(clean, masked_).tolist() == [[1, -1, 0, 0, 0], [-1, 0, 0, 1, -1]]


def test_hamming_is_the_share_of_features_that_differ_by_hand():
    signs = np.array([[[1, 0, -1, 0], [1, 1, 1, 1]], [[1, 0, 1, 0], [0, 0, 0, 0]]], np.int8)
    table = hamming(signs)
    assert table[0, 0, 1, 0] == 0.25 and table[0, 0, 1, 1] == 0.5 and table[0, 1, 1, 1] == 1 and table[0, 1, 1, 0] == 0.5
    assert (table[[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1]] == 0).all()


def test_hamming_counts_every_feature_of_a_wide_layer():
    signs = np.random.default_rng(0).integers(-1, 2, (3, 4, 9001)).astype(np.int8)
    expected = (signs[:, :, None, None] != signs[None, None]).mean(axis=-1)
    np.testing.assert_allclose(hamming(signs), expected, atol=1e-12)


def test_a_mask_hides_its_square_and_nothing_else():
    picture = np.random.default_rng(0).integers(0, 100, (9, 11, 3), np.uint8)
    seen = masked(picture, np.array([[2, 5], [0, 8]]), 3, 128)
    assert (seen[0, 2:5, 5:8] == 128).all() and (seen[1, :3, 8:] == 128).all()
    assert [(one != picture).any(axis=2).sum() for one in seen] == [9, 9]


# ------------------------------------------------------------------------------------------------------- the analysis
def test_the_square_is_that_of_figure_8():
    assert default_side(224) == 64 and default_side(96) == 28


def test_squares_lie_around_their_parts_pushed_inside_and_random_ones_where_the_seed_says():
    pictures, places = toys(5)
    places[0, 0], places[1, 0] = (0, 29.9), (15, 12)
    run = lambda seed: correspondence(Trained(colour_finder(), MEAN), pictures, places, ["red", "none"], random=7,
                                      permutations=9, side=6, seed=seed)
    one, other, third = run(0), run(0), run(1)
    assert one.corners.shape == (5, 2 + 2*7, 2) and one.corners[0, 0].tolist() == [24, 0] and one.corners[1, 0].tolist() == [9, 12]
    assert one.corners.min() >= 0 and one.corners.max() <= CROP - 6
    assert (one.corners[:, 9:] == one.corners[:1, 9:]).all() and not (one.corners[:, 2:9] == one.corners[:1, 2:9]).all()
    np.testing.assert_equal(vars(one), vars(other))
    assert (one.corners[:, 2:] != third.corners[:, 2:]).any() and (one.corners[:, :2] == third.corners[:, :2]).all()


def test_a_part_that_one_unit_reads_in_all_pictures_scores_0_and_lower_than_random():
    pictures, places = toys(12)
    found = correspondence(Trained(colour_finder(), MEAN), pictures, places, ["red", "none"], layers=["fc6", "conv1"],
                           random=10, permutations=999, side=13)
    assert (found.scores[0] == 0).all()                                      # red gone everywhere; nothing gone anywhere
    assert found.random[0].mean() > 0.1 and found.p_values[0, :, 0].max() < 0.05
    assert found.lent[0, 0].mean() > 0.1 and found.p_values[0, 0, 1] < 0.05
    assert found.scores[1, 0].max() > 0 and found.scores.shape == (2, 2, 66) and found.random.shape == (2, 10, 66)


def test_the_scores_and_their_p_are_those_of_a_slow_loop():
    pictures, places, network = *toys(4), colour_finder()
    pictures += np.random.default_rng(3).integers(0, 5, pictures.shape, np.uint8)
    found = correspondence(Trained(network, MEAN), pictures, places, ["red", "none"], layers=["conv1", "fc6"], random=3,
                           permutations=199, grey=200, side=8, batch_size=5)

    def features(picture, name):
        x = np.ascontiguousarray(picture.transpose(2, 0, 1)[..., None] - MEAN[:, 2:32, 2:32, None])
        return network.activations(x, [name])[name].astype(float).ravel()

    for k, name in enumerate(("relu1", "relu6")):
        signs = np.empty((4, 8), object)
        for i, j in np.ndindex(4, 8):
            hidden, (top, left) = pictures[i].copy(), found.corners[i, j]
            hidden[top:top + 8, left:left + 8] = 200
            signs[i, j] = np.sign(features(pictures[i], name) - features(hidden, name))
        for of, masks in ((found.scores, range(2)), (found.random, range(2, 5)), (found.common, range(5, 8))):
            for row, j in enumerate(masks):
                expected = [(signs[a, j] != signs[b, j]).mean() for a, b in itertools.combinations(range(4), 2)]
                np.testing.assert_allclose(of[k, row], expected, atol=1e-12)
        table = np.array([[[[(one != other).mean() for other in of] for of in signs] for one in each] for each in signs])
        assert found.p_values[k, :, 0].tolist() == [random_test(table, part, np.arange(2, 5), 199) for part in range(2)]
        for part, draw in np.ndindex(2, 3):
            lent = []
            for i, lender in enumerate(found.lenders[draw]):
                hidden, (top, left) = pictures[i].copy(), found.corners[lender, part]
                hidden[top:top + 8, left:left + 8] = 200
                lent.append(np.sign(features(pictures[i], name) - features(hidden, name)))
            expected = [(lent[a] != lent[b]).mean() for a, b in itertools.combinations(range(4), 2)]
            np.testing.assert_allclose(found.lent[k, part, draw], expected, atol=1e-12)


def test_the_rows_of_table_1_are_means_and_spreads_over_pairs():
    scores, random, lent = np.arange(12.0).reshape(2, 2, 3), np.arange(24.0).reshape(2, 4, 3), np.arange(48.0).reshape(2, 2, 4, 3)
    found = Correspondence(np.array(["eye", "nose"]), np.array(["conv5", "fc7"]), 3, 128, None, None, None, scores, random,
                           2*random, lent, np.array([[[0.1, 0.001], [0.004, 0.2]], [[0.3, 0.4], [1, 0.5]]]), 9)
    rows = dict(found.rows())
    assert list(rows) == ["eye", "nose", "eye of another picture", "nose of another picture", "random", "random, one place"]
    assert rows["nose"][1] == (10, pytest.approx((2/3)**0.5))
    assert rows["nose of another picture"][1] == (41.5, pytest.approx(np.std(range(12))))
    assert rows["random"][0] == (5.5, pytest.approx(np.std(range(12))))
    assert rows["random, one place"][1][0] == 35
    assert found.corrected[0].tolist() == [[pytest.approx(0.6), pytest.approx(0.008)], [pytest.approx(0.028), 1]]


def test_places_are_lent_within_groups_and_never_by_a_picture_to_itself():
    pictures, places = toys(23)
    # no two corners of a part are told apart by rounding
    places = np.rint(places)
    found = correspondence(Trained(colour_finder(), MEAN), pictures, places, ["red", "none"], layers=["fc6"], random=8,
                           permutations=9, side=6)
    group = np.empty(23, int)
    for number, members in enumerate(groups_of(23, 0)):
        group[members] = number
    assert np.bincount(group).tolist() == [12, 11] and GROUP <= 11
    assert found.lenders.shape == (8, 23) and (group[found.lenders] == group).all()
    assert (np.sort(found.lenders) == np.arange(23)).all() and (found.lenders != np.arange(23)).all()
    assert len({tuple(deal) for deal in found.lenders.tolist()}) == 8


@pytest.mark.parametrize("n, sizes", [(2, [2]), (19, [19]), (20, [10, 10]), (45, [12, 11, 11, 11])])
def test_groups_hold_every_picture_once(n, sizes):
    groups = groups_of(n, 3)
    assert list(map(len, groups)) == sizes and np.sort(np.concatenate(groups)).tolist() == list(range(n))
    table = lenders_of(groups)
    assert (table[:, 0] == np.arange(n)).all()
    for group in groups:
        assert (np.sort(table[group, :len(group)]) == np.sort(group)).all()


def test_the_bar_is_told_how_many_pictures_are_shown():
    class Count:
        n = 0
        def update(self, by):
            self.n += by
    pictures, places = toys(21)
    bar = Count()
    correspondence(Trained(colour_finder(), MEAN), pictures, places, ["red", "none"], layers=["fc6"], random=3, permutations=9,
                   batch_size=7, bar=bar)
    assert bar.n == length(21, 2, 3)


# ---------------------------------------------------------------------------------------------- the number of the tests
def test_holms_correction_by_hand():
    p = np.array([[0.01, 0.04], [0.03, 0.005]])
    np.testing.assert_allclose(holm(p), [[0.03, 0.06], [0.06, 0.02]])         # 3*0.01, then 1*0.04 < 2*0.03, 4*0.005
    assert holm(np.array([0.5, 0.9, 0.6])).tolist() == [1, 1, 1] and holm(np.array([0.04])).tolist() == [0.04]


def test_of_tests_whose_hypotheses_all_hold_few_tables_find_anything():
    rng = np.random.default_rng(0)
    found = [(holm(rng.random(6)) < 0.05).any() for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)


# ------------------------------------------------------------------------------------------------------ permutations
def distances(n, K, seed, lower=0.0):
    """(n,K,n,K) symmetric, mask 0 lower than the others by `lower`."""
    rng = np.random.default_rng(seed)
    table = rng.uniform(0.3, 0.6, (n*K, n*K))
    table = ((table + table.T)/2).reshape(n, K, n, K)
    table[:, 0, :, 0] -= lower
    table[np.arange(n), :, np.arange(n)] *= 1 - np.eye(K)[None]
    return table


def test_p_is_the_share_of_all_choices_of_a_mask_a_picture_that_score_no_higher():
    table = distances(3, 3, seed=5)
    score = lambda choice: sum(table[i, choice[i], j, choice[j]] for i in range(3) for j in range(3) if i != j)
    scores = [score(choice) for choice in itertools.product(range(3), repeat=3)]
    for part in range(3):
        exact = np.mean([s <= score((part,)*3) + 1e-12 for s in scores])
        others = np.delete(np.arange(3), part)
        assert random_test(table, part, others, 20000) == pytest.approx(exact, abs=0.015)


def test_p_is_as_small_as_permutations_allow_where_the_part_is_far_lower_and_1_where_it_is_highest():
    assert random_test(distances(8, 6, 0, lower=0.3), 0, np.arange(1, 6), 499) == 1/500
    assert random_test(distances(8, 6, 0, lower=-0.3), 0, np.arange(1, 6), 499) == 1


def test_where_all_is_equal_p_is_1():
    assert random_test(np.full((4, 3, 4, 3), 0.1), 0, np.arange(1, 3), 99) == 1


def test_where_the_part_is_like_the_random_places_p_stays_below_a_level_as_often_as_the_level_says():
    """Signs drawn for each picture and mask alike: pictures differ, masks do not."""
    rng, p = np.random.default_rng(1), []
    for trial in range(400):
        strength = rng.uniform(0.05, 0.5, (4, 1, 1))
        table = hamming((rng.random((4, 5, 60)) < strength).astype(np.int8))
        p.append(random_test(table, 0, np.arange(1, 5), 99, seed=trial))
    for level in (0.1, 0.3, 0.6):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.065)


def planted(n, rng, of_place=0.0, of_part=0.0, D=80):
    """(groups, differ (n,G,n,G)) of pictures whose parts' places resemble each other: hiding the square moves a feature in a
    way that is common to all places with the weight `of_place`, to all true parts with the weight `of_part`, else anyhow."""
    groups, common = groups_of(n, 0), rng.standard_normal((2, D))
    lenders = lenders_of(groups)
    at_place = common[0] + 0.5*rng.standard_normal((n, D))                     # of picture j's place, wherever it is used
    true = (lenders == np.arange(n)[:, None])[..., None]
    moved = of_place*at_place[lenders] + of_part*common[1]*true + rng.standard_normal((*lenders.shape, D))
    return groups, hamming(np.sign(moved).astype(np.int8))


def test_the_places_p_is_the_share_of_all_ways_to_deal_them_that_score_no_higher():
    groups, table = planted(4, np.random.default_rng(2), of_place=1, of_part=0.1)
    mask = [{lender: s for s, lender in enumerate(of)} for of in lenders_of(groups).tolist()]
    score = lambda deal: sum(table[i, mask[i][deal[i]], j, mask[j][deal[j]]] for i in range(4) for j in range(4) if i != j)
    exact = np.mean([score(deal) <= score(range(4)) + 1e-12 for deal in itertools.permutations(range(4))])
    assert 0.05 < exact < 0.95 and place_test(table, groups, 20000) == pytest.approx(exact, abs=0.015)


def test_where_the_part_matters_the_places_p_is_as_small_as_permutations_allow():
    groups, table = planted(20, np.random.default_rng(0), of_place=1, of_part=1)
    assert len(groups) == 2 and place_test(table, groups, 499) == 1/500


@pytest.mark.parametrize("of_place", [0, 1])
def test_where_the_place_alone_matters_or_nothing_p_stays_below_a_level_as_often_as_the_level_says(of_place):
    """The test against random squares would find every such part: they resemble each other, and random squares do not."""
    p = [place_test(planted(7, np.random.default_rng(trial), of_place)[1], groups_of(7, 0), 99, seed=trial)
         for trial in range(400)]
    for level in (0.05, 0.1, 0.3, 0.6):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.065)


@pytest.mark.parametrize("n", range(2, 8))
def test_the_least_p_is_what_a_part_gets_that_nothing_else_comes_near(n):
    groups, permutations = groups_of(n, 0), 4999
    own = lambda K: np.where(np.eye(K, 1) @ np.eye(1, K), 0.0, 0.5)                       # mask 0 of one with mask 0 of another
    tests = lambda K: np.broadcast_to(own(K)[None, :, None], (n, K, n, K))
    found = random_test(tests(4), 0, np.arange(1, 4), permutations), place_test(tests(n), groups, permutations)
    np.testing.assert_allclose(least_p(n, 3, permutations), found, atol=4*(0.25/permutations)**0.5 if n < 4 else 0.01)
    assert min(found) >= 1/(1 + permutations)


def made_up(n, parts=3, layers=2, random=20, permutations=9999, p=1e-4):
    """A Correspondence of so many, all of whose p are `p`."""
    pairs = n*(n - 1)//2
    of = lambda *shape: np.full((*shape, pairs), 0.2)
    return Correspondence(np.array([f"part{k}" for k in range(parts)]), np.array([f"layer{k}" for k in range(layers)]), 3, 128,
                          np.zeros((n, 1, 1, 3), np.uint8), None, None, of(layers, parts), of(layers, random),
                          of(layers, random), of(layers, parts, random), np.full((layers, parts, 2), p), permutations)


@pytest.mark.parametrize("of, said", [
    ({"n": 3}, "In 3 pictures no part can be found, as the least corrected p to be expected is 1: 6 are needed"),
    ({"n": 5}, "In 5 pictures no part can be found, as the least corrected p to be expected is 0.051: 6 are needed"), ({"n": 6}, ""),
    ({"n": 40, "permutations": 240}, ""),
    ({"n": 40, "permutations": 239}, "In 239 permutations no part can be found, as the least corrected p to be expected is 0.05: more than 239 are needed"),
    ({"n": 4, "parts": 1, "layers": 1}, ""),
    ({"n": 3, "parts": 1, "layers": 1}, "In 3 pictures no part can be found, as the least corrected p to be expected is 0.17: 4 are needed")])
def test_how_many_pictures_are_needed_to_find_a_part_is_said_and_none_is_found_in_fewer(of, said):
    """By chance p may be a little lower than what is to be expected: that finds nothing either."""
    found = made_up(**of)
    told = what_was_tested([found]).split("\n")[-1]
    assert found.lacking() == said and f"the least possible is {found.least():.2g}" in told
    assert told.endswith(f" {said}." if said else "hiding the place of another picture's part; an untrained network may pass this "
                         "too: python -m train.reproduce table1 says what was learned.")
    claim = of_part(found, 0, 0, "conv5", "nose")
    assert (claim.verdict, claim.rule.startswith(said or "agrees")) == ("not measurable here" if said else "agrees", True)
    below = replace(found, scores=found.scores + 1)
    assert of_part(below, 0, 0, "conv5", "nose").verdict == ("does not agree" if said and of["n"] > 3 else claim.verdict)


def test_p_depends_on_the_seed_alone():
    table = distances(5, 4, 2)
    assert random_test(table, 0, np.arange(1, 4), 300, 3) == random_test(table, 0, np.arange(1, 4), 300, 3)
    assert len({random_test(table, 0, np.arange(1, 4), 300, seed) for seed in range(6)}) > 1


# --------------------------------------------------------------------------------------------------- part positions
@pytest.mark.parametrize("width, height, size", [(60, 80, 34), (91, 50, 40), (70, 70, 70)])
def test_a_place_in_the_file_is_found_again_in_the_centre_crop(width, height, size):
    x, y = width/2 + 9.5, height/2 - 7.5
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[int(y) - 2:int(y) + 3, int(x) - 2:int(x) + 3] = 255
    margin = (size - CROP)//2
    crop = square(Image.fromarray(pixels), size, CROP)[margin:margin + CROP, margin:margin + CROP, 0].astype(float)
    rows, columns = np.mgrid[:CROP, :CROP] + 0.5
    seen = (columns*crop).sum()/crop.sum(), (rows*crop).sum()/crop.sum()
    np.testing.assert_allclose(in_crop((int(x) + 0.5, int(y) + 0.5), width, height, size, CROP), seen, atol=0.06)


def test_the_parts_are_those_that_all_pictures_have():
    assert common_parts({"a": {"nose": 0, "eye": 0, "ear": 0}, "b": {"ear": 0, "nose": 0}}) == ["nose", "ear"]
    with pytest.raises(Expected, match="a part that all pictures have"):
        common_parts({"a": {"nose": 0}, "b": {"ear": 0}})


@pytest.mark.parametrize("change, sentence", [
    ({"layers": ["conv9"]}, "one of conv1"), ({"side": 31}, "side of the square: expected a whole number from 1 to 30"), ({"grey": 256}, "grey"),
    ({"random": 0}, "random squares"), ({"permutations": 0}, "permutations"), ({"parts": []}, "parts")])
def test_what_cannot_be_is_refused(change, sentence):
    pictures, places = toys(3)
    with pytest.raises(Expected, match=sentence):
        correspondence(Trained(colour_finder(), MEAN), pictures, places, **{"parts": ["red", "none"], **change})


def test_one_picture_and_a_part_outside_the_crop_are_refused():
    pictures, places = toys(3)
    with pytest.raises(Expected, match="at least two, to compare, got 1"):
        correspondence(Trained(colour_finder(), MEAN), pictures[:1], places[:1], ["red", "none"])
    places[2, 1] = -0.1, 5
    with pytest.raises(Expected, match="none in picture 2: expected a place in the centre crop"):
        correspondence(Trained(colour_finder(), MEAN), pictures, places, ["red", "none"])


# -------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on 30 of 34 pixels, another with other scores, three pictures of 68 and where their red spot is."""
    place, network, marks = tmp_path_factory.mktemp("place"), colour_finder(), {}
    for name in "run.h5", "other.h5":
        save(place/name, Checkpoint("colours", network.input_shape, network.table(), CLASSES, network.parameters(),
                                    mean_image=MEAN, state={"data": ""}))
        network["fc8"].parameters["b"][0] += 1
    for i, (pixels, at) in enumerate(zip(*toys(3))):
        whole = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge").repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(whole).save(place/f"{i}.png")
        marks[f"{i}.png"] = {"red": (2*at[0] + 4).tolist(), "none": (2*at[1] + 4).tolist()}
    (place/"marks.json").write_text(json.dumps(marks))
    for side, at in (("right", [68, 3]), ("left", [-0.5, 3]), ("above", [3, -0.5]), ("below", [3, 68])):
        (place/f"{side}.json").write_text(json.dumps({**marks, "1.png": {"red": at}}))
    (place/"rim.json").write_text(json.dumps({**marks, "1.png": {"red": [1, 40]}}))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(place/"small.png")
    return place


def run(place, output, *more):
    main(["correspondence", "--run", str(place/"run.h5"), "--output", str(output), "--random", "6", "--permutations", "99",
          *map(str, more)])


@pytest.mark.figures
def test_the_command_leaves_arrays_table_and_figure_and_draws_them_again(place, tmp_path, capsys):
    files = [place/f"{i}.png" for i in range(3)]
    run(place, tmp_path, "--images", *files, "--landmarks", place/"marks.json", "--layers", "fc6", "conv1")
    assert {p.name for p in tmp_path.iterdir()} == {f"correspondence.{end}" for end in ("h5", "png", "csv", "md")}
    found = results.load(tmp_path/"correspondence.h5", Correspondence)
    np.testing.assert_array_equal(found.corners[:, :2],
                                  np.rint(toys(3)[1][..., ::-1] - found.side/2).clip(0, CROP - found.side))
    text = (tmp_path/"correspondence.md").read_text().split("\n")
    assert text[0] == "| masked | fc6 | conv1 |" and re.match(r"\| red \| 0.000 ± 0.000 \| 0.\d{3} ± 0.\d{3} \|", text[2])
    assert text[4].startswith("| red of another picture |") and text[7].startswith("| random, one place |")
    table = list(csv.DictReader((tmp_path/"correspondence.csv").open()))
    assert table[0]["masked"] == "red" and table[-1]["p lower than random"] == ""
    for t, of in enumerate(("lower than random", "lower than of another picture")):
        assert float(table[0][f"p {of}"]) == pytest.approx(found.p_values[0, 0, t], rel=1e-4)
        assert float(table[0][f"corrected p {of}"]) == pytest.approx(found.corrected[0, 0, t], rel=1e-4)
    said = in_one(capsys.readouterr().out)
    assert "corrected for 8 tests (Holm; 99 permutations each; the least possible is 0.7)" in said and in_one(text[-2]) in said
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for end in ("png", "csv", "md"):
        (tmp_path/f"correspondence.{end}").unlink()
    main(["redraw", str(tmp_path/"correspondence.h5")])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_several_networks_and_seeds_share_a_table_that_counts_who_agrees(place, tmp_path, capsys):
    run(place, tmp_path, "--synthetic", 12, "--layers", "fc6", "--run", place/"other.h5", "--seeds", 2, "--permutations", 999)
    found = [results.load(tmp_path/f"correspondence_{k}.h5", Correspondence) for k in range(1, 5)]
    for a, b in ((0, 2), (1, 3)):                                             # up to fc6 the same network, the same seeds
        np.testing.assert_equal(vars(found[a]), vars(found[b]))
    assert (found[0].corners[:, 3:] != found[1].corners[:, 3:]).any() and (found[0].scores == found[1].scores).all()
    text = (tmp_path/"correspondence.md").read_text()
    means = [one.random[0].mean() for one in found]
    assert f"| random | {np.mean(means):.3f} ± {np.std(means, ddof=1):.3f} |" in text
    assert f"| right eye | {found[0].scores[0, 0].mean():.3f} ± 0.000 |" in text
    below = sum(one.corrected[0, 2, 1] < 0.05 for one in found)
    assert re.search(rf"\| nose \| \d of 4 \(median [^|]*\) \| {below} of 4 \(", text)
    assert {row["number"] for row in csv.DictReader((tmp_path/"correspondence.csv").open())} == set("1234")
    before = text, (tmp_path/"correspondence.png").read_bytes()
    main(["redraw", *(str(tmp_path/f"correspondence_{k}.h5") for k in range(1, 5))])
    assert ((tmp_path/"correspondence.md").read_text(), (tmp_path/"correspondence.png").read_bytes()) == before


def test_networks_with_other_layers_do_not_share_a_table(place, tmp_path, capsys):
    for layer in ("fc6", "conv1"):
        run(place, tmp_path/layer, "--synthetic", 3, "--layers", layer)
    with pytest.raises(SystemExit):
        main(["redraw", *(str(tmp_path/layer/"correspondence.h5") for layer in ("fc6", "conv1"))])
    assert "layers: expected the same in all networks, fc6, got conv1" in capsys.readouterr().err


def test_synthetic_faces_show_all_parts_and_are_of_the_class(place, tmp_path):
    run(place, tmp_path, "--synthetic", 4, "--label", "cat face")
    found = results.load(tmp_path/"correspondence.h5", Correspondence)
    assert found.parts.tolist() == list(PARTS) and len(found.pictures) == 4
    assert all(int(name[-6:]) % 10 == CLASSES.index("cat face") for name in found.names.tolist())
    right, left = (found.corners[:, k, 1] for k in range(2))
    assert (right >= left).all() and (right > left).any()                    # the sides on the picture


@pytest.mark.parametrize("at", [(1.5, 17), (17, 1.5), (32.5, 17), (17, 32.5)], ids=["left", "above", "right", "below"])
def test_a_synthetic_face_with_a_part_beyond_the_crop_is_passed_over(place, tmp_path, monkeypatch, at):
    """Of 34 pixels the network sees those from 2 to 32."""
    first = CLASSES.index("cat face")

    def moved(data, i, truth=Synthetic.truth):
        found = truth(data, i)
        return replace(found, parts={**found.parts, "nose": at}) if i == first else found

    whole = open_data("", SIDE)[1]
    assert all(whole.truth(first).visible[part] for part in PARTS)
    monkeypatch.setattr(Synthetic, "truth", moved)
    run(place, tmp_path, "--synthetic", 2, "--label", "cat face")
    found = results.load(tmp_path/"correspondence.h5", Correspondence)
    assert len(found.names) == 2 and whole.names[first] not in found.names.tolist()


def test_another_drawn_set_is_looked_at_when_it_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    label = "round head, pricked ears, slit eyes, beak"
    run(place, tmp_path/"found", "--data", "drawn:combinations", "--synthetic", 2, "--label", label, "--parts", "nose",
        "left ear")
    found = results.load(tmp_path/"found"/"correspondence.h5", Correspondence)
    assert found.parts.tolist() == ["nose", "left ear"] and all(name.startswith("combinations/")
                                                                for name in found.names.tolist())


@pytest.mark.parametrize("more, sentence", [
    (["--images", "0.png", "--landmarks", "marks.json"], "two pictures or more, to compare, got one"),
    (["--images", "0.png", "1.png", "0.png", "--landmarks", "marks.json"], "--images: expected different files, got '.*0.png' 2 times"),
    (["--run", "run.h5", "--synthetic", "2"], "--run: expected different networks, got run.h5, which is there already"),
    (["--synthetic", "900"], "--synthetic: expected at most"),
    (["--synthetic", "3", "--label", "dragon"], "--label.*'dragon'"),
    (["--synthetic", "3", "--label", "clock"], "parts of a clock: expected one of"),
    *((["--images", "0.png", "1.png", "--landmarks", f"{side}.json"], f"red in 1.png: expected a place inside its 68x68 "
                                                                      f"pixels, got {at}")
      for side, at in (("right", "68, 3"), ("left", "-0.5, 3"), ("above", "3, -0.5"), ("below", "3, 68"))),
    (["--images", "0.png", "1.png", "--landmarks", "rim.json"], "red in 1.png: expected a place in the centre crop"),
    (["--images", "0.png", "1.png", "--landmarks", "marks.json", "--parts", "tail"], "parts of 0.png: expected one of red, "
                                                                                     "none"),
    (["--images", "0.png", "small.png", "--landmarks", "marks.json"], "the parts of small.png"),
    (["--images", "0.png", "1.png", "--landmarks", "nothing.json"], "nothing.json"),
    (["--landmarks", "marks.json"], "--images: expected the pictures of --landmarks"),
    (["--images", "0.png"], "either --images FILES --landmarks"),
    (["--synthetic", "2", "--landmarks", "marks.json"], "got both"),
    (["--synthetic", "2", "--layers", "conv7"], "one of conv1.*'conv7'"),
    (["--synthetic", "2", "--square", "40"], "side of the square: expected a whole number from 1 to 30")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(place, tmp_path, capsys, more, sentence, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as left:
        main(["correspondence", "--run", "run.h5", "--output", str(tmp_path/"out"), *more])
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert left.value.code == 2 and said.startswith("error: ") and re.search(sentence, said), said
    assert not (tmp_path/"out").exists() or not any((tmp_path/"out").iterdir())


@needs("photos/dog_landmarks.json")
def test_the_dog_photos_are_masked_where_their_eyes_and_noses_are(place, tmp_path):
    marks = read_landmarks(PHOTOS/"dog_landmarks.json")
    files = [PHOTOS/"animal_faces"/name for name in marks]
    run(place, tmp_path, "--images", *files, "--landmarks", PHOTOS/"dog_landmarks.json", "--square", 6)
    found = results.load(tmp_path/"correspondence.h5", Correspondence)
    assert len(found.pictures) == 6 and found.parts.tolist() == ["eye_on_image_left", "eye_on_image_right", "nose"]
    left, right, nose = found.corners[:, :3].transpose(1, 0, 2)
    assert (left[:, 1] < nose[:, 1]).all() and (nose[:, 1] < right[:, 1]).all() and (nose[:, 0] > left[:, 0]).all()
