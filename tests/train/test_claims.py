"""Claims: numbers in, a verdict out; Student's interval, pairs by seed, looks fixed beforehand."""
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train import claims
from train.claims import LITTLE, Claim, differences, interval, judged, mean_spread, side, student, verdict
from zfcore.data.caltech import splits

POINTS = st.lists(st.integers(-400, 400).map(lambda n: n/8), min_size=2, max_size=12)       # exact: sums in any order are equal
BEATS, HARDLY = Claim("a beats b", "a", "b"), Claim("a or b hardly matters", "a", "b", little=True)


def one_judged(claim, a, b, looks=(1000,), paper=()):
    [found] = judged([claim], {("a", "top1"): a, ("b", "top1"): b}, dict(paper), looks)
    return found


# ------------------------------------------------------------------------------------------------------------ Student's
@pytest.mark.parametrize("degrees, confidence, table", [
    (1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.99, 5.841), (4, 0.95, 2.776), (9, 0.99, 3.250), (30, 0.95, 2.042),
    (120, 0.9, 1.658)])
def test_students_t_is_that_of_the_printed_tables(degrees, confidence, table):
    assert student(degrees, confidence) == pytest.approx(table, abs=6e-4)


@pytest.mark.parametrize("degrees, confidence", [(1, 0.9), (2, 0.975), (3, 0.5), (6, 0.99), (11, 0.95), (38, 0.9875),
                                                 (101, 0.95)])
def test_between_the_quantiles_lies_so_much_of_students_density(degrees, confidence):
    t = student(degrees, confidence)
    x = np.linspace(-t, t, 200001)
    log = math.lgamma((degrees + 1)/2) - math.lgamma(degrees/2) - 0.5*math.log(degrees*math.pi)
    density = np.exp(log - (degrees + 1)/2*np.log1p(x*x/degrees))
    assert np.sum((density[1:] + density[:-1])/2)*(x[1] - x[0]) == pytest.approx(confidence, abs=1e-7)


def test_the_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and half == pytest.approx(2.7764*np.sqrt(2.5/5), rel=1e-4)
    assert interval([4.0]) == (4.0, None)
    assert interval([1.0, 2.0])[1] == pytest.approx(12.706*0.5, rel=1e-4)


@given(POINTS, st.randoms(), st.integers(-50, 50))
@settings(deadline=None)
def test_order_sign_and_place_do_not_matter_to_an_interval(points, random, shift):
    mean, half = interval(points)
    mixed = list(points)
    random.shuffle(mixed)
    assert interval(mixed) == pytest.approx((mean, half), abs=1e-9)
    assert interval([-x for x in points]) == pytest.approx((-mean, half), abs=1e-9)
    assert interval([x + shift for x in points]) == pytest.approx((mean + shift, half), abs=1e-9)
    assert interval(points, 0.99)[1] >= half >= interval(points, 0.5)[1]


def test_so_many_intervals_hold_the_true_mean_as_they_say():
    draws = np.random.default_rng(0).normal(3, 2, (2000, 5))
    held = [abs(mean - 3) <= half for mean, half in (interval(list(draw), 0.9) for draw in draws)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)                 # three standard deviations of the share


@given(POINTS, st.integers(1, 400), st.integers(1, 400))
def test_over_folds_the_variance_is_theirs_times_one_over_folds_plus_tested_over_rest(points, tested, rest):
    mean, half = interval(points, tested_over_rest=tested/rest)
    J = len(points)
    assert (mean, half/student(J - 1, 0.95)) == pytest.approx(
        (np.mean(points), np.sqrt(np.var(points, ddof=1)*(1/J + tested/rest))), abs=1e-9)
    assert half >= interval(points)[1]


def test_the_interval_over_folds_is_that_of_the_printed_formula():
    """By hand: five folds that test on 50 of 80 a class, spread sqrt(2.5), t 2.7764 of four degrees of freedom."""
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0], tested_over_rest=50/30)
    assert mean == 3 and half == pytest.approx(2.7764*1.58114*1.36626, rel=1e-4)
    assert interval([4.0], tested_over_rest=50/30) == (4.0, None)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_of_pools_in_which_nothing_differs_folds_decide_one_in_twenty(folds):
    """Whatever is right or wrong about a picture differs between two equally good networks by chance: a fold's difference is the
    mean over its test pictures. Student's own interval decides two to eight times as often."""
    rng, pools = np.random.default_rng(0), 2000
    labels = np.repeat(np.arange(4), 16)
    parts = [splits(labels, 8, 8, fold) for fold in range(folds)]
    pictures = rng.normal(size=(pools, len(labels)))
    points = np.stack([pictures[:, test].mean(axis=1) for _, test in parts], axis=1).tolist()
    ratio = len(parts[0][1])/len(parts[0][0])
    wrong, students = (np.mean([side(of, r) != 0 for of in points]) for r in (ratio, 0.0))
    assert wrong == pytest.approx(0.05, abs=0.02) and students > 0.08


def test_mean_and_spread_are_those_of_a_sample():
    assert mean_spread([0.5, 0.6, 0.8]) == pytest.approx((1.9/3, math.sqrt(0.07/3)))     # by hand: 2*0.07/3 are the squares
    assert mean_spread([0.7]) == (0.7, None) and mean_spread([]) is None


# ---------------------------------------------------------------------------------------------------------- differences
def test_what_two_rows_share_by_their_seed_cancels():
    assert differences({0: 10, 1: 50, 2: 90}, {2: 89, 0: 9, 1: 48, 3: 7}) == [1, 2, 1]


def test_every_seed_is_set_against_the_one_number_of_an_ensemble():
    assert differences({0: 10, 1: 12}, {None: 9}) == [1, 3] and differences({None: 9}, {0: 10, 1: 12}) == [-1, -3]
    assert differences({}, {None: 9}) == differences({0: 1}, {1: 1}) == []


NUMBERS = st.dictionaries(st.integers(0, 9), st.integers(0, 100), max_size=8)


@given(NUMBERS, NUMBERS, st.randoms())
def test_differences_are_of_common_seeds_and_change_their_sign_with_the_rows(a, b, random):
    found = differences(a, b)
    assert len(found) == len(a.keys() & b.keys()) and sum(found) == sum(a[k] - b[k] for k in a.keys() & b.keys())
    mixed = list(b)
    random.shuffle(mixed)
    assert sorted(differences({k: b[k] for k in mixed}, a)) == sorted(-x for x in found)


# ------------------------------------------------------------------------------------------------------------- verdicts
@pytest.mark.parametrize("mean, half, little, word", [
    (2, 1, False, "agrees"), (-2, 1, False, "does not agree"), (1, 2, False, "undecided"), (0.5, 1, True, "agrees"),
    (4, 1, True, "does not agree"), (-4, 1, True, "does not agree"), (1.5, 1, True, "undecided"),
    (-3.5, 3.3, True, "undecided"), (1, None, False, "undecided: one pair"), (0, None, True, "undecided: one pair"),
    (1, 0, False, "undecided"), (0, 0, True, "undecided"), (-1, 1e-16, False, "undecided"), (math.nan, 1, False, "undecided"),
    (1, math.nan, True, "undecided"), (math.inf, 1, False, "undecided")])
def test_a_claim_agrees_where_its_whole_interval_lies_on_its_side(mean, half, little, word):
    assert verdict(mean, half, little) == word


@given(st.integers(-60, 60), st.integers(0, 60), st.booleans())
def test_a_claim_is_undecided_exactly_where_its_interval_holds_points_of_both_sides(mean, half, little):
    """In eighths of a point, every one of which in the interval is asked where it lies."""
    sides = {abs(point) <= 8*LITTLE if little else point > 0 for point in range(mean - half, mean + half + 1)}
    if not half or not little and 0 in (mean - half, mean + half):
        sides = {True, False}                              # no width tells nothing; no difference at all is on neither side
    assert verdict(mean/8, half/8, little) == ("undecided" if len(sides) == 2 else "agrees" if sides == {True}
                                               else "does not agree")


def test_a_side_is_decided_by_the_interval():
    assert [side(points, 1.0) for points in ([2.0, 2.1, 1.9], [-2.0, -2.1, -1.9], [9.0, 0.1], [5.0], [0.0, 0.0])] == [1, -1, 0, 0, 0]
    assert side([2.0, 2.2, 2.4], 0.0) == 1 and side([2.0, 2.2, 2.4], 7.0) == 0              # the halves are 0.5 and 2.3


@given(st.floats(-1e6, 1e6), st.integers(2, 12), st.booleans())
def test_the_same_difference_every_time_decides_nothing_and_the_reason_is_told(difference, n, little):
    """Sums of thirds, tenths, ... are rounded, and the mean is then not quite the difference."""
    assert side([difference]*n, 1.0) == 0
    found = one_judged(HARDLY if little else BEATS, dict.fromkeys(range(n), difference), dict.fromkeys(range(n), 0.0))
    assert found[4:] == ("undecided: no spread", n, None) and found.undecided


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=5), st.sampled_from((math.nan, math.inf, -math.inf)), st.booleans())
def test_what_is_no_number_decides_nothing(points, odd, little):
    points = [*points, odd]
    with np.errstate(invalid="ignore"):
        assert side(points, 1.0) == side(points[::-1], 1.0) == 0
        found = one_judged(HARDLY if little else BEATS, dict(enumerate(points)), dict.fromkeys(range(len(points)), 0.0))
    assert found.verdict == "undecided: not a number" and found.needed is None


@given(POINTS, st.floats(0, 50))
def test_a_side_is_the_verdict_on_a_claim_of_more(points, ratio):
    assert {1: "agrees", -1: "does not agree", 0: "undecided"}[side(points, ratio)] == verdict(
        *interval(points, tested_over_rest=ratio))


@given(st.lists(st.sampled_from((1, 0, -1)), min_size=1), st.randoms())
def test_several_sides_together_do_not_depend_on_their_order(sides, random):
    cases = "agrees" if all(s == 1 for s in sides) else "agrees in part" if 1 in sides else \
        "undecided" if all(s == 0 for s in sides) else "does not agree"
    steps = "does not agree" if min(sides) < 0 else "agrees" if min(sides) > 0 else "undecided"
    mixed = list(sides)
    random.shuffle(mixed)
    for order in (sides, mixed, iter(mixed)):
        assert claims.verdict_of_cases(order) == cases
    assert claims.verdict_of_steps(mixed) == steps


@pytest.mark.parametrize("values, little, needed", [
    ([0.0, 2.0, 1.0, 1.0], False, 6),                       # 2.571*0.816/sqrt(6) = 0.857 < 1 < 1.014 = 2.776*0.816/sqrt(5)
    ([0.0, -2.0, -1.0, -1.0], False, 6), ([0.5, 2.5, 1.5, 1.5], True, 13), ([1.5, 3.5, 2.5, 2.5], True, 13),
    ([-1.0, 1.0], False, None), ([0.0, 0.0], False, None), ([2.0, 2.0], True, None), ([0.1, 8.0, -7.9, 0.2], False, None)])
def test_how_many_pairs_are_needed_follows_from_mean_and_spread(values, little, needed):
    found = claims.pairs_needed(values, 0.95, little)
    assert found == needed
    if needed:
        room = abs(LITTLE - abs(np.mean(values))) if little else abs(np.mean(values))
        half = lambda n: student(n - 1, 0.95)*np.std(values, ddof=1)/np.sqrt(n)
        assert half(needed) < room <= half(needed - 1)


# ---------------------------------------------------------------------------------------------------------------- looks
def test_claims_without_their_rows_or_numbers_are_left_out():
    ours = {("a", "top1"): {0: 12}, ("b", "top1"): {0: 10, 1: 7}, ("c", "top1"): {}, ("d", "top1"): {3: 1}}
    found = judged([BEATS, *(Claim("", "a", other) for other in "cde"), Claim("", "a", "b", of="train")], ours,
                   {("a", "top1"): 40.5, ("b", "top1"): 38.4}, [3])
    assert found == [(BEATS, pytest.approx(2.1), 2, None, "undecided: one pair", 1, None)]
    assert judged([BEATS], ours, {("a", "top1"): 40.5}, [3])[0].paper is None
    others = replace(BEATS, paper=(40.75, 38.25))                             # of the rows' own numbers none is asked then
    assert judged([others], ours, {("a", "top1"): 40.5, ("b", "top1"): 1.0}, [3])[0].paper == 2.5


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=8), st.booleans(), st.randoms())
@settings(deadline=None)
def test_a_judgement_is_of_the_differences_whatever_the_order_of_the_seeds(pairs, little, random):
    seeds = list(range(len(pairs)))
    random.shuffle(seeds)
    found = one_judged(HARDLY if little else BEATS, *({k: float(pairs[k][row]) for k in seeds} for row in (0, 1)))
    mean, half = interval([float(a - b) for a, b in pairs])
    assert (found.mean, found.half) == pytest.approx((mean, half), abs=1e-9) and found.pairs == len(pairs)
    assert found.undecided == (found.verdict in ("undecided", "undecided: no spread"))
    assert found.undecided or found.needed is None


def studies(difference, looks, count=400):
    """Judgements of many studies of two rows whose true difference is this."""
    rng = np.random.default_rng(0)
    return [one_judged(BEATS, *(dict(enumerate(rng.normal(mean, 1, looks[-1]))) for mean in (difference, 0)), looks)
            for _ in range(count)]


@pytest.mark.parametrize("seeds", [3, 10])
def test_one_number_that_is_drawn_as_all_others_are_is_seldom_found_to_differ(seeds):
    """An ensemble's, which would be another with other seeds: what is set against it shares that chance."""
    rng = np.random.default_rng(1)
    for ensemble_first in (True, False):
        rows = ((one, many) if ensemble_first else (many, one)
                for one, many in (({None: rng.normal()}, dict(enumerate(rng.normal(size=seeds)))) for _ in range(500)))
        assert np.mean([not one_judged(BEATS, *of_both, [seeds]).undecided for of_both in rows]) < 0.075


def test_looking_often_does_not_find_more_often_what_is_not_there():
    assert np.mean([not one.undecided for one in studies(0, [3, 6, 9, 12])]) < 0.055


def test_a_claim_is_judged_by_the_first_look_that_decides_it():
    found = studies(2, [3, 6, 9, 12], 60)
    assert {one.pairs for one in found} >= {3, 6, 9} and all(one.verdict == "agrees" for one in found if one.pairs < 12)
    assert claims.looks_of(3, 8) == [3, 6, 8] and claims.looks_of(5, 5) == [5]
    late = {0: 0.0, 1: 2.0, 2: 1.0, 3: 1.0, 4: -90.0}      # the first four decide, whatever a fifth would say
    assert one_judged(BEATS, {k: x + 9 for k, x in late.items()}, {k: 0.0 for k in late}, [4, 5]).pairs == 4
