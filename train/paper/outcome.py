"""Outcome of one item of the paper: its numbers beside the paper's, the verdicts on its claims, its figures, and what it took.
It lies in ITEM/outcome.json, whole or not at all, and is read again instead of being made again.

A claim is judged by differences from a control, one a picture, unit, fold or seed: it agrees where the whole interval (95 %, or
what its rule says) of their mean lies on the claim's side of 0, does not where it lies on the other side, and is undecided
otherwise (train.claims; Student's for paired differences, corrected for folds of one pool of pictures, Welch's for two groups,
the jackknife over pictures for means over pairs of them)."""
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from train.claims import interval, student, verdict
from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.files import choice, listed, mapping, read_json, real, table, text, whole
from zfcore.terminal import plural, warn_once

VERDICTS = "agrees", "does not agree", "undecided", "not measurable here"
FILE = "outcome.json"


@dataclass(frozen=True)
class Number:
    """A number, or a claim that it decides.

    what       is measured, or the claim in words
    here       the number; None: there is none, as where it was not finite
    low, high  ends of its interval, of 95 % unless `rule` names another, or None
    paper      the paper's number or words, "" where it has none
    rule       by which the verdict comes about; or what the number is of
    verdict    one of VERDICTS; "": a number that decides nothing, such as a control's"""
    what: str
    here: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    paper: str = ""
    rule: str = ""
    verdict: str = ""

    def __post_init__(self):
        if all(x is None or math.isfinite(x) for x in (self.here, self.low, self.high)):
            return
        here = self.here if self.here is not None and math.isfinite(self.here) else None
        for name, value in {"here": here, "low": None, "high": None, "verdict": self.verdict and VERDICTS[3],
                            "rule": f"{self.rule}; not finite here".removeprefix("; ")}.items():
            object.__setattr__(self, name, value)             # so no file or page has to hold what is no number


@dataclass(frozen=True)
class Picture:
    """A figure: its file in the item's folder, and what it shows."""
    file: str
    shows: str


@dataclass(frozen=True)
class Outcome:
    """Outcome of an item.

    numbers      Numbers             figures   Pictures
    protocol     how the numbers came about, in sentences
    notes        what else was found, in sentences
    lacking      why it could not be measured, and what to give; "": it was
    took         {seconds, pictures, networks}: networks that were trained for it
    beforehand   seconds that were said beforehand
    key          digest of all that it depends on; "": it is to be tried again
    versions     {name: version}"""
    item: str
    numbers: tuple = ()
    figures: tuple = ()
    protocol: str = ""
    notes: str = ""
    lacking: str = ""
    took: dict = None
    beforehand: float = 0.0
    key: str = ""
    versions: dict = None

    @property
    def verdicts(self):
        """{verdict: how many claims have it}, in the order of VERDICTS; what could not be measured counts as one claim."""
        if self.lacking:
            return {VERDICTS[3]: 1}
        count = Counter(number.verdict for number in self.numbers if number.verdict)
        return {word: count[word] for word in VERDICTS if count[word]}

    @property
    def verdict(self):
        """The verdicts in one word or two: that of all its claims, else "in part" where some agree, ..."""
        found = set(self.verdicts)
        if not found:
            return ""
        decided = found - {VERDICTS[2], VERDICTS[3]}
        if len(found) == 1 or not decided:
            return found.pop() if len(found) == 1 else VERDICTS[2]
        return "agrees in part" if VERDICTS[0] in decided else VERDICTS[1] if VERDICTS[1] in decided else VERDICTS[2]


# ------------------------------------------------------------------------------------------------------- numbers and rules
def paired(what, differences, unit="", paper="", of="pictures", little=False, groups=None, tested_over_rest=0.0):
    """The Number of a claim by differences from its control, one each `of` something; NaN ones, where nothing could be
    measured, are left out. With `little` it claims that nothing differs. Differences that are no independent draws: `groups`
    are the pictures that they are of, where several are of one; `tested_over_rest` is of folds, see `train.claims.interval`."""
    differences = np.asarray(differences, float).ravel()
    known = differences[finite := np.isfinite(differences)]
    if len(known) < 2:
        return Number(what, float(known[0]) if len(known) else None, unit=unit, paper=paper, verdict=VERDICTS[2],
                      rule=f"needs two {of} or more with a number, there {'is one' if len(known) else 'are none'}")
    over = f"{len(known)} {of}"
    if groups is None:
        mean, half = interval(known.tolist(), tested_over_rest=tested_over_rest)
    else:
        groups = np.unique(np.asarray(groups).ravel()[finite], return_inverse=True)[1]
        over += f" of {plural(groups.max() + 1, 'picture')}"
        if not groups.any():
            return Number(what, float(known.mean()), unit=unit, paper=paper, verdict=VERDICTS[2],
                          rule=f"{over}: needs those of two")
        mean, half = float(known.mean()), of_groups(known, groups)
    students = "Student's, corrected: they share pictures" if tested_over_rest else "Student's"
    return Number(what, mean, mean - half, mean + half, unit, paper, f"95 % interval ({students}) over {over}",
                  verdict(mean, half, little))


def of_groups(values, groups):
    """Half the 95 % interval of the mean of values in groups 0, 1, ...: those of a group may go together, groups are independent.
    The deviations of a group are added up before they are squared; as many degrees of freedom as groups, less one."""
    sums = np.bincount(groups, values - values.mean())
    error = math.sqrt(len(sums)/(len(sums) - 1)*float(np.square(sums).sum()))/len(values)
    return student(len(sums) - 1, 0.95)*error


def of_two_groups(what, one, other, unit="", paper="", of="units"):
    """The Number of the claim that `one` lies above `other`, two groups that are not paired, by Welch's interval of the
    difference of their means, the degrees of freedom rounded down."""
    groups = [values[np.isfinite(values)] for values in (np.asarray(one, float).ravel(), np.asarray(other, float).ravel())]
    sizes = " and ".join(str(len(group)) for group in groups)
    if min(map(len, groups)) < 2:
        return Number(what, None, unit=unit, paper=paper, rule=f"needs two {of} or more on both sides, there are {sizes}",
                      verdict=VERDICTS[2])
    mean = float(groups[0].mean() - groups[1].mean())
    errors = [float(group.var(ddof=1))/len(group) for group in groups]
    degrees = sum(errors)**2/sum(e*e/(len(group) - 1) for e, group in zip(errors, groups)) if sum(errors) else 1
    half = student(max(1, math.floor(degrees)), 0.95)*math.sqrt(sum(errors))
    return Number(what, mean, mean - half, mean + half, unit, paper, f"95 % interval (Welch's) over {sizes} {of}",
                  verdict(mean, half))


def jackknife(statistic, n):
    """(value, half its 95 % interval) of a statistic of n things; `statistic(kept)` gives it of those where kept (n,) is
    True."""
    all_ = np.ones(n, bool)
    without = np.array([statistic(all_ & (np.arange(n) != i)) for i in range(n)])
    error = math.sqrt((n - 1)/n*float(np.square(without - without.mean()).sum()))
    return float(statistic(all_)), student(n - 1, 0.95)*error


def exactly(what, here, paper, unit="", rule="the same number", near=0.0):
    """The Number of a fact that has no spread: it agrees where it is the paper's, up to `near`."""
    return Number(what, float(here), unit=unit, paper=f"{paper:,}" if isinstance(paper, int) else str(paper), rule=rule,
                  verdict=VERDICTS[0] if abs(here - paper) <= near else VERDICTS[1])


def number(what, values, unit="", paper="", of="pictures", **dependent):
    """The Number of a mean that is judged by nothing, with its interval over so many; the others as of `paired`."""
    return replace(paired(what, values, unit, paper, of, **dependent), verdict="")


# ------------------------------------------------------------------------------------------------------------ kept as JSON
def _maybe(where, value):
    """A form: a number or none."""
    return value if value is None else real()(where, value)


NUMBER = table({"what": text(), "here": _maybe, "low": _maybe, "high": _maybe, "unit": text(100), "paper": text(),
                "rule": text(),
                "verdict": choice("", *VERDICTS)})
FORM = table({"item": text(100), "numbers": listed(NUMBER, 10_000),
              "figures": listed(table({"file": text(), "shows": text(5000)}), 1000),
              "protocol": text(20_000), "notes": text(20_000), "lacking": text(5000),
              "took": table({"seconds": real(0), "pictures": whole(), "networks": whole()}), "beforehand": real(0),
              "key": text(100),
              "versions": mapping(text(100))})


def save(folder, outcome):
    """Write outcome.json into the item's folder. Raises Unwritable where the disk refuses."""
    with atomic(folder/FILE) as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load(folder):
    """The Outcome that lies in an item's folder. Raises OSError where there is none, Expected for another file."""
    try:
        told = read_json(folder/FILE, FORM)
    except Expected as sentence:
        raise Expected(sentence.what, sentence.expected, sentence.got,
                       f"python -m train.reproduce {folder.name} makes it anew") from None
    return Outcome(**{**told, "numbers": tuple(Number(**each) for each in told["numbers"]),
                      "figures": tuple(Picture(**each) for each in told["figures"])})


def kept(folder):
    """The Outcome that lies in an item's folder; None where there is none, or a damaged one, which is told."""
    try:
        return load(folder)
    except OSError:
        return None
    except Expected as sentence:
        warn_once(str(sentence))
        return None


# ------------------------------------------------------------------------------------------------------ earlier and now
COMPARED = [field.name for field in fields(Number) if field.name in ("here", "low", "high", "verdict")]


def moved(now, before):
    """Sentences, one for each number of two Outcomes of an item that is not the same in both, to the bit."""
    ours, theirs = ({number.what: number for number in outcome.numbers} for outcome in (now, before))
    for what in dict.fromkeys([*theirs, *ours]):
        if what not in ours or what not in theirs:
            yield f"{what}: only in the {'earlier' if what in theirs else 'newer'} one"
            continue
        pairs = {name: (getattr(theirs[what], name), getattr(ours[what], name)) for name in COMPARED}
        changes = [f"{name if name != 'here' else 'the number'} was {one}, is {other}"
                   for name, (one, other) in pairs.items() if one != other]
        if changes:
            yield f"{what}: {'; '.join(changes)}"
