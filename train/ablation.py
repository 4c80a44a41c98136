"""Tables 2 and 3: every row's networks trained from scratch, and what they reach set beside the paper's numbers.

    python -m train.ablation table2|table3 --output DIR [--scale tiny|full] [--data DIR] [--seeds N] [--until-decided N]
                                                         [--rows MODEL ...] [--collect]

Every network is an ordinary run in DIR/<model>-seed<k>/. What is finished is not trained again and what was stopped or
killed goes on, so the command can be given again at any time, with more seeds or rows too. Both tables may have the same
DIR; then the networks that both name are trained once. The same command may be at work several times at once, such as once a
core: each takes the networks that no other is at, and waits for the others' before it writes the table.

The paper's claims about the rows are judged by differences, taken seed by seed: seed k draws the same order of pictures and
the same crops for every row. The 95 % interval of a difference is Student's, over the seeds. With --until-decided, claims are
looked at after the first seeds and again after each as many more, which only the rows of claims still undecided get. The looks
are fixed beforehand, L of them, and each has intervals of 1 - 0.05/L, so that of a claim at most 5 % of studies have any
interval, at whatever look, without the true difference in it (Bonferroni); a claim is judged by the first look that decides it.
"""
import argparse
import bisect
import json
import math
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from train.config import HELP, MAY_CHANGE, TrainConfig, flag, read_options, resolve
from train.evaluate import evaluate
from train.loop import Busy, Lock, Stop, Training, new_folder
from zfcore import check, plots, trained
from zfcore.analysis.diagnostics import bands, radial_shares
from zfcore.backend import select, to_host
from zfcore.checkpoint import atomic, load, write_csv
from zfcore.data import data_in_words, open_data
from zfcore.data.loader import Pictures
from zfcore.files import anything, mapping, opener, read_json, table, text
from zfcore.models import MODELS, build
from zfcore.models.variants import EDITS, variant_name


# ------------------------------------------------------------------------------------------------------- what is asked
class Errors(NamedTuple):
    """Top-1 error on the training pictures, top-1 and top-5 error on the validation pictures, in %; None: not given."""
    train: float
    top1: float
    top5: float


@dataclass(frozen=True)
class Row:
    """One network of a table. A row that is not the paper's has no errors beside it."""
    label: str
    model: str
    paper: Errors = Errors(None, None, None)
    most_seeds: int = 1000        # train no more than so many of it, whatever --seeds says


@dataclass(frozen=True)
class Ensemble:
    """A row whose probabilities are the mean over networks: those of all seeds of a model, or of its seed 0 alone."""
    label: str
    all_seeds: str
    seed_0: tuple = ()
    paper: Errors = Errors(None, None, None)


@dataclass(frozen=True)
class Claim:
    """The value `of` the row `higher` lies above that of the row `lower`; or, if `little`, it hardly matters which of the two.
    Rows are called by their model or an ensemble's label; `of` is a field of Errors, or "middle" of Result."""
    text: str
    higher: str
    lower: str
    of: str = "top1"
    little: bool = False


TABLE2 = (
    Row("AlexNet replication, 1 net", "alexnet", Errors(None, 40.5, 18.1)),
    Ensemble("AlexNet, all seeds", "alexnet", paper=Errors(None, 38.1, 16.4)),         # of Krizhevsky's 5 nets
    Row("figure 3: (a), 1 net", "zfnet", Errors(None, 38.4, 16.5)),
    Ensemble("(a), all seeds", "zfnet", paper=Errors(None, 36.7, 15.3)),
    Row("wider layers 3, 4, 5: (b), 1 net", "zfnet-b", Errors(None, 37.5, 16.0), most_seeds=1),
    Ensemble("(a), all seeds, and (b)", "zfnet", ("zfnet-b",), Errors(None, 36.0, 14.7)),
)
TABLE3 = (
    Row("AlexNet replication", "alexnet", Errors(35.1, 40.5, 18.1)),
    Row("AlexNet without layers 3, 4", "alexnet-without-3-4", Errors(41.8, 45.4, 22.1)),
    Row("AlexNet without layer 7", "alexnet-without-7", Errors(27.4, 40.0, 18.4)),
    Row("AlexNet without layers 6, 7", "alexnet-without-6-7", Errors(27.4, 44.8, 22.4)),
    Row("AlexNet without layers 3, 4, 6, 7", "alexnet-without-3-4-6-7", Errors(71.1, 71.3, 50.1)),
    Row("AlexNet, half the units in 6, 7", "alexnet-fc-2048", Errors(40.3, 41.7, 18.8)),
    Row("AlexNet, twice the units in 6, 7", "alexnet-fc-8192", Errors(26.8, 40.0, 18.1)),
    Row("figure 3", "zfnet", Errors(33.1, 38.4, 16.5)),
    Row("figure 3, half the units in 6, 7", "zfnet-fc-2048", Errors(38.2, 40.2, 17.6)),
    Row("figure 3, twice the units in 6, 7", "zfnet-fc-8192", Errors(22.0, 38.8, 17.0)),
    Row("figure 3, wider layers 3, 4, 5: (b)", "zfnet-b", Errors(18.8, 37.5, 16.0)),
    Row("(b), twice the units in 6, 7", "zfnet-b-fc-8192", Errors(10.0, 38.3, 16.9)),
)
CLAIMS = (
    Claim("1 the 7x7/2 network beats AlexNet", "alexnet", "zfnet"),
    Claim("1 networks together beat one: (a)", "zfnet", "(a), all seeds"),
    Claim("1 networks together beat one: AlexNet", "alexnet", "AlexNet, all seeds"),
    Claim("1 with (b) they are better still", "(a), all seeds", "(a), all seeds, and (b)"),
    Claim("2 without layers 3, 4 it is worse", "alexnet-without-3-4", "alexnet"),
    Claim("2 without layers 6, 7 it is worse", "alexnet-without-6-7", "alexnet"),
    Claim("2 without all four it is far worse than without 3, 4", "alexnet-without-3-4-6-7", "alexnet-without-3-4"),
    Claim("2 without all four it is far worse than without 6, 7", "alexnet-without-3-4-6-7", "alexnet-without-6-7"),
    Claim("2 without layer 7 alone hardly matters", "alexnet-without-7", "alexnet", little=True),
    Claim("3 half the units in 6, 7 hardly matter: AlexNet", "alexnet-fc-2048", "alexnet", little=True),
    Claim("3 twice the units in 6, 7 hardly matter: AlexNet", "alexnet-fc-8192", "alexnet", little=True),
    Claim("3 half the units in 6, 7 hardly matter: figure 3", "zfnet-fc-2048", "zfnet", little=True),
    Claim("3 twice the units in 6, 7 hardly matter: figure 3", "zfnet-fc-8192", "zfnet", little=True),
    Claim("3 wider layers 3, 4, 5 help", "zfnet", "zfnet-b"),
    Claim("3 and lower the training error", "zfnet", "zfnet-b", of="train"),
    Claim("3 with twice the units in 6, 7 as well it is worse again", "zfnet-b-fc-8192", "zfnet-b"),
    Claim("3 though the training error is lower still: it over-fits", "zfnet-b", "zfnet-b-fc-8192", of="train"),
    Claim("4 the 7x7/2 filters have the middle frequencies that 11x11/4 ones lack", "zfnet", "alexnet", of="middle"),
)
OF = {"train": "training error", "top1": "top-1 error", "middle": "share of layer 1's energy"}
LITTLE = 2.0                      # points that "hardly matter": the paper says it of differences up to 1.8


@dataclass(frozen=True)
class Scale:
    """Which networks stand for the paper's, and how they are trained: a preset, and what differs from it."""
    words: str
    models: dict
    options: dict
    seeds: dict                   # table: how many if --seeds is not typed


# Errors must be neither at the ceiling nor at the floor, on classes that only a combination of parts tells apart, and half of
# the random start is left: this leaves the base networks near 50 %, in a minute each on one core. The 126 classes of
# drawn:combinations would need more steps than sixty networks can have on two cores. The learning rate falls at the same epoch in
# all of them: left to the plateau rule, a row would be judged by whether its plateau came in time. At the rate of tiny some rows
# die in their first steps and never learn.
SCALES = {
    "tiny": Scale("Networks called tiny have a quarter of the paper's maps in layers 1 to 5 and 256 units, not 4096, in layers 6, 7.",
                  {variant_name(big, edit): variant_name(small, edit) for edit in ("", *EDITS)
                   for big, small in (("zfnet", "tiny"), ("alexnet", "tiny-alexnet"))},
                  dict(preset="tiny", data="drawn:unseen", image_size=48, epochs=20, lr=0.002, start_left=0.5, keep_epochs=()),
                  {"table2": 5, "table3": 5}),
    "full": Scale("", {}, dict(preset="zfnet", keep_epochs=()), {"table2": 5, "table3": 1}),
}
TABLES = {"table2": TABLE2, "table3": TABLE3}
OPTIONS = {f.name: f for f in fields(TrainConfig)          # of the runs, as typed; the others are set by the study
           if f.name not in ("preset", "model", "seed", "crops", "init_from", "keep_epochs")}
FREE = set(MAY_CHANGE) - {"epochs"}                         # options that a run may go on with other values of


@dataclass(frozen=True)
class Run:
    """One network to train: its row, its options, its folder."""
    row: Row
    config: TrainConfig
    folder: Path

    def epochs_done(self):
        """Read from log.csv, whose row is written after the epoch's checkpoint."""
        try:
            return (self.folder/"log.csv").read_text().count("\n") - 1
        except OSError:
            return 0

    @property
    def lock(self):
        """The name of the lock of whoever trains it. It lies beside the folder, which does not exist yet or must be empty."""
        return f".{self.row.model}.{self.config.seed}.lock"

    @property
    def finished(self):
        return self.epochs_done() >= self.config.epochs

    @property
    def failure(self):
        """The sentence with which it failed the last time, or ""."""
        path = self.folder/"failed.txt"
        return path.read_text().strip() if path.is_file() and not self.finished else ""


def scaled(table, scale):
    """The Rows and Ensembles of a table with the networks of a scale."""
    def model(name):
        return scale.models.get(name, name)
    return [replace(row, model=model(row.model)) if isinstance(row, Row) else
            replace(row, all_seeds=model(row.all_seeds), seed_0=tuple(map(model, row.seed_0))) for row in TABLES[table]]


def chosen(table, scale, names=()):
    """(Rows to train, Rows and Ensembles to show): a table's, or only those of the models `names`, which may be any."""
    for name in names:
        check.one_of("--rows", name, MODELS)
    everything = scaled(table, scale)
    known = {row.model: row for row in everything if isinstance(row, Row)}
    rows = [known.get(name, Row(name, name)) for name in dict.fromkeys(names)] or list(known.values())
    there = {row.model for row in rows}
    shown = [row for row in everything if there >= ({row.model} if isinstance(row, Row) else {row.all_seeds, *row.seed_0})]
    return rows, shown + [row for row in rows if row not in shown]


def runs_of(rows, scale, typed, seeds, output):
    """The runs, seed by seed, so that a table under way has all its rows early."""
    return [Run(row, resolve({**scale.options, **typed, "model": row.model, "seed": seed}), output/f"{row.model}-seed{seed}")
            for seed in range(seeds) for row in rows if seed < row.most_seeds]


# ------------------------------------------------------------------------------------------------------------ training
class SharedTraining(Training):
    """A training that shares its decoded pictures with the other runs of the study and moves the study's bar on."""

    def __init__(self, config, pictures, bar):
        super().__init__(config, data=tuple(part.dataset for part in pictures))
        self.train, self.val = pictures
        self.bar = bar

    def close_epoch(self, score):
        super().close_epoch(score)
        self.bar.update()


def check_runs(runs):
    """Raise Expected where a run's folder was started with other options, before anything is trained."""
    for run in runs:
        path = run.folder/"config.json"
        if not path.is_file():
            continue
        stored = TrainConfig(**read_options(path))
        for name, value in asdict(stored).items():
            asked = getattr(run.config, name)
            if name not in FREE and value != asked and asked is not None:    # None: a decay that --start-left chooses
                raise check.Expected(flag(name), f"{value!r}, with which {run.folder} was started", repr(asked),
                                     "leave it out, or name another --output")


def open_pictures(config):
    """(training, validation) Pictures, which all runs of a study share."""
    return tuple(Pictures(part, config.picture_size, config.image_size, config.upscale, config.workers)
                 for part in open_data(config.data, config.picture_size, config.limit_per_class))


def train_all(runs, pictures, crops, output):
    """Train and measure what is not finished, first what nobody else is at. Returns when all is finished or has failed."""
    elsewhere = []
    with tqdm(total=sum(run.config.epochs for run in runs), unit="epoch", disable=None) as bar:
        for turn in (runs, elsewhere):
            for run in turn:
                try:
                    with Lock(output, run.lock, wait=turn is elsewhere):
                        if not (run.finished or turn is elsewhere and run.failure):    # it has just failed there
                            bar.n = sum(each.epochs_done() for each in runs)
                            one(run, pictures, crops, bar)
                except Busy:
                    elsewhere.append(run)


def one(run, pictures, crops, bar):
    """Train and measure one run. Where it fails, that is entered in its failed.txt."""
    bar.set_description(run.folder.name)
    try:
        train(run, pictures, bar)
        result = result_of(run, pictures, crops)
        tqdm.write(f"{run.folder.name}: validation error {result.errors.top1:.1f} %, {result.seconds:.0f} s of training")
    except Busy:
        raise
    except (check.Expected, MemoryError) as error:                       # CuPy's out of memory is a MemoryError
        with atomic(run.folder/"failed.txt") as temporary:               # Unwritable where the disk is full: the study ends
            temporary.write_text(f"{error or 'not enough memory'}\n")
        tqdm.write(f"{run.folder}: {error}", file=sys.stderr)


def train(run, pictures, bar):
    """Begin or go on with one run. What it prints goes into output.txt, as a study has too much of it for one screen."""
    training = SharedTraining(run.config, pictures, bar)
    if (run.folder/"latest.h5").is_file():
        training.restore(load(run.folder/"latest.h5"))
    else:
        clear(run.folder)
        new_folder(run.config, run.folder)
    (run.folder/"failed.txt").unlink(missing_ok=True)
    training.prepare()
    with open(run.folder/"output.txt", "a", opener=opener) as file, redirect_stdout(file):
        try:
            training.run(run.folder)
        except Stop:
            sys.exit(128 + training.interrupt.asked)       # 130 Ctrl-C, 143 SIGTERM


def clear(folder):
    """Remove what a run leaves behind that was stopped before its first checkpoint."""
    for name in ("config.json", "output.txt", "failed.txt"):
        (folder/name).unlink(missing_ok=True)
    if (folder/"figures").is_dir():
        (folder/"figures").rmdir()


# ---------------------------------------------------------------------------------------------------------- collecting
@dataclass(frozen=True)
class Result:
    """What one finished run, or an ensemble of them, reached."""
    errors: Errors
    parameters: int
    seconds: float = None         # of training, validation not counted; of one network only
    clamped: int = 0              # how often the RMS limit scaled a filter back
    middle: float = None          # % of layer 1's energy in the middle frequencies; of one network only

    def value(self, of):
        return self.middle if of == "middle" else getattr(self.errors, of)


@dataclass(frozen=True)
class Line:
    """A line of the table: a row, its Results by seed (an ensemble's only one under None), and what is missing."""
    row: Row | Ensemble
    key: str                      # model or label, by which claims call it
    results: dict
    networks: int = 0             # that the results are of
    missing: str = ""

    def mean(self, of):
        """Mean over the seeds of a field of Errors; None where there is nothing."""
        values = [result.value(of) for result in self.results.values()]
        return None if None in values or not values else sum(values)/len(values)

    def spread(self, of):
        """Standard deviation over the seeds; None for fewer than two."""
        values = [result.value(of) for result in self.results.values()]
        return None if None in values or len(values) < 2 else float(np.std(values, ddof=1))


def result_of(run, pictures, crops):
    """The Result of a finished run, measured once and kept in its results-<crops>.json."""
    kept = run.folder/f"results-{crops}.json"
    try:
        content = read_json(kept, mapping(anything))
        if content.pop("epochs") == run.config.epochs:
            return Result(**{**content, "errors": Errors(**content["errors"])})
    except (OSError, ValueError, KeyError, TypeError):     # none yet, or of another version: measured anew
        pass
    model, history = trained.open(run.folder/"latest.h5", run.config.device, run.config.precision), load(run.folder/"latest.h5").history
    train, val = (errors([model], part, run, crops) for part in pictures)
    w = to_host(model.network.convolutions[0].parameters["w"])   # of layer 1
    result = Result(Errors(train.top1, val.top1, val.top5), model.network.parameter_count(), sum(history["seconds"]),
                    int(sum(history["filters_clamped"])), 100*bands(radial_shares(w))["mid"])
    with atomic(kept) as temporary:
        temporary.write_text(json.dumps({**asdict(result), "errors": result.errors._asdict(), "epochs": run.config.epochs},
                                        indent=2) + "\n")
    return result


def errors(models, part, run, crops):
    """Errors of an ensemble on one part of the pictures, as if it were the validation part; a top-5 error among five classes
    has no meaning."""
    with tqdm(total=len(part), unit="img", disable=None, leave=False, desc=f"measuring {run.folder.name}") as bar:
        score = evaluate(models, part, run.config.micro_batch or run.config.batch_size, crops, bar)
    return Errors(None, 100*score.top1, 100*score.top5 if score.classes > 5 else None)


def ensemble_result(runs, pictures, crops):
    """The Result of the mean of the runs' probabilities on the validation pictures; parameters add up."""
    models = [trained.open(run.folder/"latest.h5", run.config.device, run.config.precision) for run in runs]
    return Result(errors(models, pictures[1], runs[0], crops), sum(model.network.parameter_count() for model in models))


def collect(rows, runs, first, pictures, crops):
    """The Lines of a table, from whatever is finished. `rows` are Rows and Ensembles in the table's order; an Ensemble is of
    the `first` seeds, however many a row has got since."""
    lines = []
    for row in rows:
        if isinstance(row, Row):
            mine = [run for run in runs if run.row == row]
            results = {run.config.seed: result_of(run, pictures, crops) for run in mine if run.finished}
            lines.append(Line(row, row.model, results, len(results), missing_in(mine)))
        else:
            mine = [run for run in runs if run.row.model == row.all_seeds and run.config.seed < first
                    or run.row.model in row.seed_0 and run.config.seed == 0]
            missing = missing_in(mine)
            results = {} if missing else {None: ensemble_result(mine, pictures, crops)}
            lines.append(Line(row, row.label, results, len(mine), missing))
    return lines


def missing_in(runs):
    """What is not there yet: "2 of 5 trained; seed 3: a sentence", or "" where all is."""
    failed = [run for run in runs if run.failure]
    told = f"; {', '.join(run.folder.name for run in failed)} failed: {failed[0].failure}" if failed else ""
    done = sum(run.finished for run in runs)
    return "" if done == len(runs) else f"{done} of {len(runs)} trained{told}"


# -------------------------------------------------------------------------------------------------------------- claims
MOST_PAIRS = 1000                 # up to which it is estimated how many are needed


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


def interval(values, confidence=0.95):
    """(mean, half the width of its interval), Student's; None for the half of a single value."""
    n = len(values)
    if n < 2:
        return values[0], None
    return float(np.mean(values)), student(n - 1, confidence)*float(np.std(values, ddof=1))/math.sqrt(n)


def differences(claim, higher, lower, seeds=math.inf):
    """higher - lower in points, of so many seeds at most: seed by seed for two rows, every seed against the one number of an
    ensemble."""
    a, b = ({seed: result.value(claim.of) for seed, result in line.results.items() if seed is None or seed < seeds}
            for line in (higher, lower))
    if None in a or None in b:
        return [x - y for x in a.values() for y in b.values()]
    return [a[seed] - b[seed] for seed in a if seed in b]


def verdict(claim, mean, half):
    """agrees: the whole interval lies on the claim's side; does not agree: on the other one. A single difference, whose
    `half` is None, decides nothing."""
    if half is None:
        return "undecided: one pair"
    low, high = mean - half, mean + half
    if claim.little:
        agrees, contradicts = -LITTLE <= low and high <= LITTLE, low > LITTLE or high < -LITTLE
    else:
        agrees, contradicts = low > 0, high < 0
    return "agrees" if agrees else "does not agree" if contradicts else "undecided"


def pairs_needed(claim, values, confidence):
    """How many pairs would decide a claim if mean and standard deviation of these differences were the true ones: an estimate;
    None if it is above MOST_PAIRS."""
    mean, deviation = abs(float(np.mean(values))), float(np.std(values, ddof=1))
    room = abs(LITTLE - mean) if claim.little else mean
    decided = lambda n: student(n - 1, confidence)*deviation/math.sqrt(n) < room
    n = 2 + bisect.bisect_left(range(2, MOST_PAIRS + 1), True, key=decided)
    return n if n <= MOST_PAIRS else None


class Judgement(NamedTuple):
    """What the rows say of a claim: the paper's difference or None, ours with half its interval, from how many pairs."""
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


def looks_of(first, most):
    """Seeds of a row at each look at the claims: first, 2*first, ... and most."""
    return [*range(first, most, first), most]


def confidence_of(looks):
    return 1 - 0.05/len(looks)


def judged(lines, scale, looks):
    """Judgements of the claims whose two lines have results, each by the first look that decides it, else the last."""
    of_key, found, confidence = {line.key: line for line in lines}, [], confidence_of(looks)
    for claim in CLAIMS:
        higher, lower = (of_key.get(scale.models.get(name, name)) for name in (claim.higher, claim.lower))
        if not (higher and lower and differences(claim, higher, lower, looks[0])):
            continue
        paper = [getattr(line.row.paper, claim.of, None) for line in (higher, lower)]
        for seeds in looks:
            ours = differences(claim, higher, lower, seeds)
            mean, half = interval(ours, confidence)
            judgement = Judgement(claim, None if None in paper else paper[0] - paper[1], mean, half, verdict(claim, mean, half),
                                  len(ours))
            if not judgement.undecided:
                break
        if judgement.undecided and half is not None:
            judgement = judgement._replace(needed=pairs_needed(claim, ours, confidence))
        found.append(judgement)
    return found


def asked_again(lines, judgements, scale):
    """The models of which more seeds may decide a claim that is undecided; more of an ensemble are none."""
    rows = {line.key for line in lines if isinstance(line.row, Row)}
    return {model for one in judgements if one.undecided for name in (one.claim.higher, one.claim.lower)
            if (model := scale.models.get(name, name)) in rows}


def in_order(lines):
    """(pairs of lines whose validation errors differ the same way as the paper's, pairs), the paper's ties left out."""
    pairs = [(a.row.paper.top1 - b.row.paper.top1)*(a.mean("top1") - b.mean("top1")) for k, a in enumerate(lines)
             for b in lines[:k] if None not in (a.row.paper.top1, b.row.paper.top1, a.mean("top1"), b.mean("top1"))
             and a.row.paper.top1 != b.row.paper.top1]
    return sum(pair > 0 for pair in pairs), len(pairs)


# --------------------------------------------------------------------------------------------------------------- looks
@dataclass(frozen=True)
class Study:
    """What a table is made from: `runs` are all that it could come to, up to the seeds of the last look."""
    scale: Scale
    rows: list
    shown: list
    runs: list
    looks: list
    pictures: tuple
    crops: str
    output: Path

    def looked_at(self, train):
        """(runs asked for, Lines, Judgements) when no claim is undecided or no look is left; without `train` as they are now."""
        models, asked = {row.model for row in self.rows}, []
        for before, seeds in zip((0, *self.looks), self.looks):
            asked += [run for run in self.runs if before <= run.config.seed < seeds and run.row.model in models]
            if train:
                train_all(asked, self.pictures, self.crops, self.output)
            lines = collect(self.shown, asked, self.looks[0], self.pictures, self.crops)
            claims = judged(lines, self.scale, self.looks)
            models = asked_again(lines, claims, self.scale)
            if any(not run.finished and not run.failure for run in asked):
                break
        return asked, lines, claims


# --------------------------------------------------------------------------------------------------------------- files
def write(name, lines, claims, looks, protocol, output):
    """NAME.md, NAME.csv and NAME.png in `output`. Returns the Markdown."""
    text = markdown(name, lines, claims, looks, protocol)
    with atomic(output/f"{name}.md") as temporary:
        temporary.write_text(text)
    rows = ((line.row.label, network_of(line.row), "all" if seed is None else seed, *map(figures, result.errors), result.parameters,
             figures(result.seconds), *map(figures, line.row.paper)) for line in lines for seed, result in line.results.items())
    write_csv(output/f"{name}.csv", rows, "row", "network", "seed", "train_error", "val_top1_error", "val_top5_error", "parameters",
              "seconds", "paper_train_error", "paper_val_top1_error", "paper_val_top5_error")
    drawn = [line for line in lines if line.results]
    if drawn:
        trains = any(line.row.paper.train is not None for line in drawn)       # table 2 has no training errors
        plots.save(plots.beside_paper([line.row.label for line in drawn], [line.row.paper[:2] for line in drawn],
                           [[(result.errors.train if trains else None, result.errors.top1) for result in line.results.values()]
                            for line in drawn]), output/f"{name}.png")
    return text


def markdown(name, lines, claims, looks, protocol):
    missing = [line for line in lines if line.missing]
    parts = [f"**Incomplete: networks are missing in {len(missing)} of {len(lines)} rows.**"] if missing else []
    parts.append(protocol)
    trains = any(line.row.paper.train is not None for line in lines)
    head = ["", "network", *(["paper: train"] if trains else []), *(["top-1", "top-5"] if trains else ["paper: top-1", "top-5"]),
            *(["here: train"] if trains else []), *(["top-1", "top-5"] if trains else ["here: top-1", "top-5"]), "parameters",
            "seconds", "networks"]
    rows = [head, ["---", "---", *["--:"]*(len(head) - 2)]]
    for line in lines:
        shown = Errors._fields if trains else Errors._fields[1:]
        many = list(line.results.values())
        rows.append([line.row.label, f"`{network_of(line.row)}`",
                     *("" if (x := getattr(line.row.paper, of)) is None else f"{x:.1f}" for of in shown),
                     *(number(line, of) for of in shown), f"{many[0].parameters:,}" if many else "",
                     f"{min(result.seconds for result in many):.0f}" if many and many[0].seconds else "",
                     line.missing or str(line.networks)])
    parts.append("\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows))
    agree, pairs = in_order(lines)
    if pairs > 1:
        parts.append(f"Of the {pairs} pairs of rows whose validation top-1 errors differ in the paper, {agree} differ alike here.")
    if clamped := sum(result.clamped for line in lines for result in line.results.values()):
        parts.append(f"The RMS limit of the filters (section 3) scaled a filter back {clamped:,} times.")
    elif any(line.results for line in lines):
        parts.append("The RMS limit of the filters (section 3) never acted: whether some dominate without it (claim 4) is not seen here.")
    if claims:
        parts += [claims_table(claims), verdicts(claims, looks)]
    return "\n\n".join(parts) + "\n"


def verdicts(claims, looks):
    """What the words of the table of claims mean, and how many claims are decided."""
    percent = f"{100*confidence_of(looks):.4g}"
    decided = sum(not one.undecided for one in claims)
    text = (f"{decided} of {len(claims)} claims are decided. Differences in points: of two rows seed by seed, with an ensemble "
            f"from every seed to its one number. \"agrees\": the whole {percent} % interval (Student's) lies on the claim's side, "
            f"for what hardly matters within ±{LITTLE:g} points; \"does not agree\": it lies on the other side; \"undecided\": "
            f"neither; beside it an estimate, how many pairs would decide were their mean and spread the true ones.")
    if len(looks) > 1:
        text += (f" Rows of undecided claims got more seeds: at most {len(looks)} looks at a claim, after "
                 f"{', '.join(map(str, looks))} seeds, fixed beforehand. An interval of one look is one of {percent} %, so that "
                 f"those of all looks together hold the true difference in 95 % of studies at least. Each claim is judged by the "
                 f"first look that decides it.")
    return text


def figures(x):
    return "" if x is None else f"{x:.4g}"


def network_of(row):
    return row.model if isinstance(row, Row) else " + ".join((row.all_seeds, *row.seed_0))


def number(line, of):
    mean, spread = line.mean(of), line.spread(of)
    return "" if mean is None else f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def claims_table(claims):
    rows = ["| claim of the paper | difference of | paper | here (95 %) | |", "|---|---|--:|--:|---|"]
    for claim, paper, mean, half, word, pairs, needed in claims:
        ours = f"{mean:+.1f}" if half is None else f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f}), {pairs} pairs"
        if word == "undecided":
            word += f"; {f'about {needed}' if needed else f'more than {MOST_PAIRS}'} pairs"
        rows.append(f"| {claim.text} | {OF[claim.of]} | {'' if paper is None else f'{paper:+.1f}'} | {ours} | {word} |")
    return "\n".join(rows)


# ------------------------------------------------------------------------------------------------------- command line
def parser():
    p = argparse.ArgumentParser(prog="python -m train.ablation", argument_default=argparse.SUPPRESS,
                                description="Train the rows of the paper's table 2 or 3 and set them beside the paper's numbers.")
    p.add_argument("table", choices=TABLES)
    p.add_argument("--output", metavar="DIR", required=True, help="folder of the runs and tables; both tables may share it")
    p.add_argument("--scale", choices=SCALES, help="tiny (default): small networks on small pictures; full: the paper's")
    p.add_argument("--seeds", type=int, metavar="N", help="train each network with seeds 0 to N-1")
    p.add_argument("--until-decided", type=int, metavar="N", help="train more seeds, up to N, of the rows of undecided claims")
    p.add_argument("--rows", nargs="+", metavar="MODEL", default=[], help="these networks, any --model, instead of the table's")
    p.add_argument("--crops", choices=("ten", "centre"), default="ten", help="crops that errors are measured with (default: ten)")
    p.add_argument("--collect", action="store_true", default=False, help="train nothing: the tables of what is there")
    of_training = p.add_argument_group("options of every run, as for python -m train")
    for f in OPTIONS.values():
        if type(f.default) is bool:
            of_training.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            many = dict(type=int, nargs="*") if type(f.default) is tuple else dict(type=type(f.default))
            of_training.add_argument(flag(f.name), **many, metavar=f.name.upper(), help=HELP.get(f.name))
    return p


def remembered(output, typed):
    """(name of the scale, {option: value}): what is typed and, for the rest, what was typed when the study began, which its
    study.json keeps."""
    path = output/"study.json"
    try:
        before = read_json(path) if path.is_file() else {"scale": "tiny", "options": {}}
        SCALES[before["scale"]], before["options"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise check.Expected(path, "the scale and options of a study", "something else",
                             "remove it, and type the options that the study began with") from None
    options = {name: value for name, value in typed.items() if name in OPTIONS}
    scale = typed.get("scale", before["scale"])
    if scale == "full" and not {**before["options"], **options}.get("data"):
        raise check.Expected("--scale full", "--data with the pictures of ImageNet", "none")
    return scale, {**before["options"], **options}


def remember(output, scale, options):
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise check.Expected("--output", "a place where a folder can be made", f"{output} ({error.strerror})") from None
    with atomic(output/"study.json") as temporary:
        temporary.write_text(json.dumps({"scale": scale, "options": options}, indent=2) + "\n")


def protocol(scale, runs, pictures, crops):
    """The sentences above a table that say how its numbers came about."""
    (train, val), c = pictures, runs[0].config
    devices = {read_json(path, table({"device": text()}, others=anything))["device"]
               for run in runs if (path := run.folder/"config.json").is_file()}
    drops = (f"a tenth of it after epoch {', '.join(map(str, c.drop_after))}" if c.drop_after else
             f"a tenth of it after {c.patience} epochs without a better validation error")
    how = "the mean of ten crops" if crops == "ten" else "the centre crop"
    start = f", a weight decay that leaves {100*c.start_left:g} % of the random start" if c.start_left else ""
    return (f"{scale.words and scale.words + ' '}Every network was trained from scratch on {data_in_words(c.data)}: "
            f"{len(train.dataset.classes)} classes, {len(train)} training and {len(val)} validation pictures, input "
            f"{c.image_size}x{c.image_size}, {c.epochs} epochs, batch {c.batch_size}, lr {c.lr:g}, {drops}{start}; the rest as in --preset {c.preset}. Errors in %, mean ± standard deviation over the "
            f"networks, of the last checkpoint, from {how}, nothing dropped out; the training error alike, on the training "
            f"pictures. (The paper states neither its crops nor how it measures the training error.) Seconds: of training one "
            f"network, the fastest of the row's, validation not counted, on {', '.join(sorted(devices)) or 'no device yet'}.")


@check.speak_and_exit
def main(arguments=None):
    args = parser().parse_args(arguments)
    output, typed = Path(args.output), vars(args)
    name, options = remembered(output, typed)
    scale, seeds = SCALES[name], typed.get("seeds", SCALES[name].seeds[args.table])
    check.positive("--seeds", seeds)
    looks = looks_of(seeds, typed.get("until_decided", seeds))
    if looks[-1] < seeds:
        raise check.Expected("--until-decided", f"no fewer than the first {seeds} seeds", looks[-1])
    rows, shown = chosen(args.table, scale, args.rows)
    runs = runs_of(rows, scale, options, looks[-1], output)
    check_runs(runs)
    select(runs[0].config.device)                          # that it is there is found before anything begins
    pictures = open_pictures(runs[0].config)
    for row in rows:                                       # a size that a network cannot have is said before anything begins
        build(row.model, len(pictures[0].dataset.classes), runs[0].config.image_size, runs[0].config.keep_prob)
    remember(output, name, options)
    study = Study(scale, rows, shown, runs, looks, pictures, args.crops, output)
    try:
        if not args.collect:
            pictures[0].prepare(progress=sys.stderr.isatty())          # what is wrong with them is wrong for every run
        runs, lines, claims = study.looked_at(not args.collect)
    except (KeyboardInterrupt, SystemExit) as stopped:
        print(f"stopped; the same command goes on, and with --collect it shows what is there: {output}")
        sys.exit(getattr(stopped, "code", 130))
    with Lock(output, wait=True):                                      # who else is at it writes the same
        print(write(args.table, lines, claims, looks, protocol(scale, runs, pictures, args.crops), output))
    print(f"{output/args.table}.md, .csv, .png")


if __name__ == "__main__":
    main()
