"""Claims of the paper about two rows of a table, and the verdict of numbers on them: numbers in, a verdict out.

The numbers of two rows are paired, as networks are by their seed and classifiers by their fold, and the claim is judged by the
interval of their differences, Student's. Where a claim may be looked at L times, each as more pairs arrive, the looks are fixed
beforehand and each has intervals of 1 - 0.05/L, so that of a claim at most 5 % of studies have any interval, at whatever look,
without the true difference in it (Bonferroni). Differences that are all the same do not tell how far others would be from them:
an interval without width decides nothing, nor does one with an end that is no number. An ensemble is one draw of its kind, and
other seeds would give another: the interval of its differences has room for that, as if it were spread as single networks are,
which those that average several hardly exceed. Folds of one pool of pictures are no independent draws: `interval` says how
theirs is corrected."""
import bisect
import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

LITTLE = 2.0                      # points that "hardly matter": the paper says it of differences up to 1.8
MOST_PAIRS = 1000                 # up to which it is estimated how many are needed
ROUNDING = 1e-12                  # of a mean: no interval of numbers that differ is so narrow


@dataclass(frozen=True)
class Claim:
    """The value `of` the row `higher` lies above that of the row `lower`; or, if `little`, it hardly matters which of the two
    it is. The paper's numbers are those of the two rows but for `paper`, (higher, lower), where a row's is of other people."""
    text: str
    higher: str
    lower: str
    of: str = "top1"
    little: bool = False
    paper: tuple = ()


class Judgement(NamedTuple):
    """Verdict on a claim by numbers: the paper's difference or None, ours with half its interval, from how many pairs."""
    claim: Claim
    paper: float | None
    mean: float
    half: float | None
    verdict: str
    pairs: int
    needed: int | None = None     # pairs that would decide it, see `pairs_needed`

    @property
    def undecided(self):
        return self.verdict.startswith("undecided")


# ---------------------------------------------------------------------------------------------------------- statistics
@cache
def student(degrees, confidence):
    """t such that P(-t <= T <= t) = confidence, for T Student's with so many degrees of freedom (Abramowitz and Stegun, 26.7.3
    and 26.7.4, solved by bisection)."""
    odd = degrees % 2

    def probability(angle):
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(1 + odd, degrees, 2):
            total, term = total + term, term*math.cos(angle)**2*k/(k + 1)
        return 2/math.pi*(angle + math.sin(angle)*total) if odd else math.sin(angle)*total

    low, high = 0.0, math.pi/2
    for _ in range(60):
        middle = (low + high)/2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    return math.sqrt(degrees)*math.tan(low)


def mean_spread(values):
    """(mean, standard deviation with n - 1 below) of numbers, (mean, None) of a single one; None of none."""
    if not len(values):
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval(values, confidence=0.95, against_one=False, tested_over_rest=0.0):
    """(mean, half the width of its interval), Student's; None for the half of a single value. against_one: the values are
    differences from one number, which is a draw with their spread.

    tested_over_rest: the values are one a fold, of folds that draw from one pool, of which each tests on so many pictures for
    one that it does not test on. They share pictures, so their spread tells too little of how far another pool would be, and
    more folds of one pool do not make it known: 1/n + tested/rest stands for 1/n (Nadeau and Bengio, Inference for the
    generalization error, Machine Learning 52, 2003; there all that is not tested on is trained on). It is of 95 % where chance
    is mostly that of the test pictures, and too wide where few of the rest are trained on."""
    n = len(values)
    if n < 2:
        return values[0], None
    room = 1/n + against_one + tested_over_rest
    return float(np.mean(values)), student(n - 1, confidence)*float(np.std(values, ddof=1))*math.sqrt(room)


def differences(one, other):
    """Differences of `one` from `other`, paired; both {seed or fold: number}. They are paired by their keys; a number under
    None has none, as an ensemble's, and is set against every one of the other's."""
    if None in one or None in other:
        return [x - y for x in one.values() for y in other.values()]
    return [one[key] - other[key] for key in one if key in other]


# ------------------------------------------------------------------------------------------------------------ verdicts
def verdict(mean, half, little=False):
    """agrees: the whole interval lies on the claim's side, above 0, or within LITTLE of it for one that hardly matters; does
    not agree: on the other one. A single difference, whose `half` is None, decides nothing, nor does an interval that is
    `lacking` something."""
    if half is None:
        return "undecided: one pair"
    if lacking(mean, half):
        return "undecided"
    low, high = mean - half, mean + half
    if little:
        agrees, contradicts = -LITTLE <= low and high <= LITTLE, low > LITTLE or high < -LITTLE
    else:
        agrees, contradicts = low > 0, high < 0
    return "agrees" if agrees else "does not agree" if contradicts else "undecided"


def lacking(mean, half):
    """Lack of an interval that decides nothing: "no spread", up to rounding, or "not a number"; "" of any other."""
    if not math.isfinite(mean) or not math.isfinite(half):
        return "not a number"
    return "" if half > ROUNDING*abs(mean) else "no spread"


def side(points, tested_over_rest):
    """1 or -1 where the 95 % interval of differences, one a fold, lies above or below 0; 0 where they decide nothing."""
    return {"agrees": 1, "does not agree": -1}.get(verdict(*interval(points, tested_over_rest=tested_over_rest)), 0)


def verdict_of_cases(sides):
    """Verdict on a claim which holds in each case whose `side` is 1."""
    found = set(sides)
    if found == {1}:
        return "agrees"
    return "agrees in part" if 1 in found else "does not agree" if -1 in found else "undecided"


def verdict_of_steps(sides):
    """Verdict on the claim that every step goes up, each of which has a `side`."""
    return "does not agree" if -1 in sides else "undecided" if 0 in sides else "agrees"


def pairs_needed(values, confidence, little=False, against_one=False):
    """Number of pairs that would decide a claim if mean and standard deviation of these differences were the true ones: an
    estimate; None if it is above MOST_PAIRS."""
    mean, deviation = abs(float(np.mean(values))), float(np.std(values, ddof=1))
    room = abs(LITTLE - mean) if little else mean
    decided = lambda n: student(n - 1, confidence)*deviation*math.sqrt(1/n + against_one) < room
    n = 2 + bisect.bisect_left(range(2, MOST_PAIRS + 1), True, key=decided)
    return n if n <= MOST_PAIRS else None


# --------------------------------------------------------------------------------------------------------------- looks
def looks_of(first, most):
    """Seeds of a row at each look at the claims: first, 2*first, ... and most."""
    return [*range(first, most, first), most]


def confidence_of(looks):
    return 1 - 0.05/len(looks)


def judged(claims, ours, paper, looks):
    """Judgements of the claims both of whose rows have numbers, each by the first look that decides it, else the last.

    ours      {(row, of): {seed: number}}, of an ensemble {None: number}
    paper     {(row, of): number}; a row without one has none
    looks     see `looks_of`: each is at the seeds below its number"""
    found, confidence = [], confidence_of(looks)
    for claim in claims:
        higher, lower = (claim.higher, claim.of), (claim.lower, claim.of)
        first, *others = (differences(*({seed: x for seed, x in ours.get(row, {}).items() if seed is None or seed < seeds}
                                        for row in (higher, lower))) for seeds in looks)
        if not first:
            continue
        against_one = any(None in ours.get(row, {}) for row in (higher, lower))
        for pairs in (first, *others):
            mean, half = interval(pairs, confidence, against_one)
            word = verdict(mean, half, claim.little)
            if not word.startswith("undecided"):
                break
        needed = None
        if word == "undecided":
            if lacks := lacking(mean, half):
                word += f": {lacks}"
            else:
                needed = pairs_needed(pairs, confidence, claim.little, against_one)
        told = claim.paper or [paper[row] for row in (higher, lower) if row in paper]
        found.append(Judgement(claim, told[0] - told[1] if len(told) == 2 else None, mean, half, word, len(pairs), needed))
    return found
