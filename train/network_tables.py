"""Results of the networks of tables 2 and 3: measured once, collected from whatever is finished, judged and written beside
the paper's numbers."""
import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from train import claims, report
from train.study import measured
from zfcore import plots, trained
from zfcore.analysis.diagnostics import bands, radial_shares
from zfcore.backend import to_host
from zfcore.checkpoint import atomic, load
from zfcore.data import data_in_words
from zfcore.files import anything, mapping, read_json, table, text
from zfcore.terminal import Bar, plural


# ---------------------------------------------------------------------------------------------------------------- rows
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

    @property
    def key(self):
        """Name that claims call it by."""
        return self.model

    @property
    def network(self):
        return self.model


@dataclass(frozen=True)
class Ensemble:
    """A row whose probabilities are the mean over networks: those of all seeds of a model, or of its seed 0 alone."""
    label: str
    all_seeds: str
    seed_0: tuple = ()
    paper: Errors = Errors(None, None, None)

    @property
    def key(self):
        return self.label

    @property
    def network(self):
        return " + ".join((self.all_seeds, *self.seed_0))


@dataclass(frozen=True)
class Result:
    """Errors that one finished run, or an ensemble of them, reached."""
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
    results: dict
    networks: int = 0             # that the results are of
    missing: str = ""

    def values(self, of):
        """{seed: value} of a field of Errors, or of "middle"; {} where the row has none."""
        found = {seed: result.value(of) for seed, result in self.results.items()}
        return {} if None in found.values() else found

    def mean_spread(self, of):
        """(mean, spread or None) over the seeds, None where there is nothing."""
        return claims.mean_spread(list(self.values(of).values()))


# ----------------------------------------------------------------------------------------------------------- measuring
def result_of(run, pictures, crops):
    """The Result of a finished run, measured once and kept in its results-<crops>.json."""
    kept = run.folder/f"results-{crops}.json"
    try:
        content = read_json(kept, mapping(anything))
        if content.pop("epochs") == run.config.epochs:
            return Result(**{**content, "errors": Errors(**content["errors"])})
    except (OSError, ValueError, KeyError, TypeError):     # none yet, or of another version: measured anew
        pass
    model, history = opened(run), load(run.folder/"latest.h5", velocity=False).history
    train, val = (errors([model], part, run, crops) for part in pictures)
    w = to_host(model.network.convolutions[0].parameters["w"])   # of layer 1
    result = Result(Errors(train.top1, val.top1, val.top5), model.network.parameter_count(), sum(history["seconds"]),
                    int(sum(history["filters_clamped"])), 100*bands(radial_shares(w))["mid"])
    with atomic(kept) as temporary:
        temporary.write_text(json.dumps({**asdict(result), "errors": result.errors._asdict(), "epochs": run.config.epochs},
                                        indent=2) + "\n")
    return result


def opened(run):
    return trained.open(run.folder/"latest.h5", run.config.device, run.config.precision)


def errors(models, part, run, crops):
    """Errors of an ensemble on one part of the pictures, as if it were the validation part; a top-5 error among five classes
    has no meaning."""
    with Bar(len(part), "picture", f"measuring {run.name}", stays=False) as bar:
        score = measured(models, part, run.config.micro_batch or run.config.batch_size, crops, bar)
    return Errors(None, 100*score.top1, 100*score.top5 if score.classes > 5 else None)


def ensemble_result(runs, pictures, crops):
    """The Result of the mean of the runs' probabilities on the validation pictures; parameters add up."""
    models = [opened(run) for run in runs]
    return Result(errors(models, pictures[1], runs[0], crops), sum(model.network.parameter_count() for model in models))


# ---------------------------------------------------------------------------------------------------------- collecting
def collect(rows, runs, first, pictures, crops):
    """The Lines of a table, from whatever is finished. `rows` are Rows and Ensembles in the table's order; an Ensemble is of
    the `first` seeds, however many a row has got since."""
    lines = []
    for row in rows:
        if isinstance(row, Row):
            mine = [run for run in runs if run.config.model == row.model]
            results = {run.config.seed: result_of(run, pictures, crops) for run in mine if run.finished}
            lines.append(Line(row, results, len(results), missing_in(mine)))
        else:
            mine = [run for run in runs if run.config.model == row.all_seeds and run.config.seed < first
                    or run.config.model in row.seed_0 and run.config.seed == 0]
            missing = missing_in(mine)
            results = {} if missing else {None: ensemble_result(mine, pictures, crops)}
            lines.append(Line(row, results, len(mine), missing))
    return lines


def missing_in(runs):
    """List of what is not there yet: "2 of 5 trained; seed 3: a sentence", or "" where all is."""
    failed = [run for run in runs if run.failure]
    told = f"; {', '.join(run.name for run in failed)} failed: {failed[0].failure}" if failed else ""
    done = sum(run.finished for run in runs)
    return "" if done == len(runs) else f"{done} of {len(runs)} trained{told}"


def judged(asked, lines, models, looks):
    """Judgements of the claims `asked` whose rows are among the `lines`. `models` {model of the paper: the one that stands for
    it}, see `Scale`: claims call rows by the paper's."""
    of_key, ours, paper = {line.row.key: line for line in lines}, {}, {}
    for claim in asked:
        for name in (claim.higher, claim.lower):
            if line := of_key.get(models.get(name, name)):
                ours[name, claim.of] = line.values(claim.of)
                if (number := getattr(line.row.paper, claim.of, None)) is not None:
                    paper[name, claim.of] = number
    return claims.judged(asked, ours, paper, looks)


def in_order(lines):
    """(pairs of lines whose validation errors differ the same way as the paper's, pairs), the paper's ties left out."""
    both = [(line.row.paper.top1, mean[0]) for line in lines
            if line.row.paper.top1 is not None and (mean := line.mean_spread("top1"))]
    pairs = [(a[0] - b[0])*(a[1] - b[1]) for k, a in enumerate(both) for b in both[:k] if a[0] != b[0]]
    return sum(pair > 0 for pair in pairs), len(pairs)


# --------------------------------------------------------------------------------------------------- what is written
def write(folder, name, lines, judgements, looks, of, protocol):
    """NAME.md, NAME.csv and NAME.png in `folder`. `of` are the words for what claims are of. Returns the Markdown."""
    rows = ((line.row.label, line.row.network, "all" if seed is None else seed, *map(figures, result.errors), result.parameters,
             figures(result.seconds), *map(figures, line.row.paper)) for line in lines for seed, result in line.results.items())
    header = ("row", "network", "seed", "train_error", "val_top1_error", "val_top5_error", "parameters", "seconds",
              "paper_train_error", "paper_val_top1_error", "paper_val_top5_error")
    return report.write(folder, name, paragraphs(lines, judgements, looks, of, protocol), header, rows,
                        lambda: drawing(lines))


def drawing(lines):
    """The errors beside the paper's as a figure; None without any."""
    drawn = [line for line in lines if line.results]
    if not drawn:
        return None
    trains = with_training(drawn)
    ours = [[(result.errors.train if trains else None, result.errors.top1) for result in line.results.values()]
            for line in drawn]
    return plots.beside_paper([line.row.label for line in drawn], [line.row.paper[:2] for line in drawn], ours)


def with_training(lines):
    """Return whether there are training errors to be shown: table 2 has none."""
    return any(line.row.paper.train is not None for line in lines)


def paragraphs(lines, judgements, looks, of, protocol):
    if missing := sum(bool(line.missing) for line in lines):
        yield f"**Incomplete: networks are missing in {missing} of {len(lines)} rows.**"
    yield protocol
    yield rows_table(lines)
    agree, pairs = in_order(lines)
    if pairs > 1:
        yield f"Of the {pairs} pairs of rows whose validation top-1 errors differ in the paper, {agree} differ alike here."
    if clamped := sum(result.clamped for line in lines for result in line.results.values()):
        yield f"The RMS limit of the filters (section 3) scaled a filter back {clamped:,} times."
    elif any(line.results for line in lines):
        yield ("The RMS limit of the filters (section 3) never acted: whether some dominate without it (claim 4) is not seen "
               "here.")
    if judgements:
        yield report.claims_table(judgements, of, looks)
        yield report.verdicts(judgements, looks)


def rows_table(lines):
    shown = Errors._fields if with_training(lines) else Errors._fields[1:]
    words = {"train": "train", "top1": "top-1", "top5": "top-5"}
    errors_of = {who: [f"{who}: {words[shown[0]]}", *(words[of] for of in shown[1:])] for who in ("paper", "here")}
    head = ["", "network", *errors_of["paper"], *errors_of["here"], "parameters", "seconds", "networks"]
    rows = []
    for line in lines:
        many = list(line.results.values())
        rows.append([line.row.label, f"`{line.row.network}`",
                     *("" if (x := getattr(line.row.paper, of)) is None else f"{x:.1f}" for of in shown),
                     *(report.mean_spread(line.mean_spread(of)) for of in shown), f"{many[0].parameters:,}" if many else "",
                     f"{min(result.seconds for result in many):.0f}" if many and many[0].seconds else "",
                     line.missing or line.networks])
    return report.table(head, rows, text=(0, 1))


def figures(x):
    return "" if x is None else f"{x:.4g}"


def protocol(words, runs, pictures, crops):
    """The sentences above a table that say how its numbers came about, `words` of the scale first."""
    (train, val), c = pictures, runs[0].config
    devices = {read_json(path, table({"device": text()}, others=anything))["device"] for run in runs
               if (path := run.folder/"config.json").is_file()}
    drops = (f"a tenth of it after epoch {', '.join(map(str, c.drop_after))}" if c.drop_after else
             f"a tenth of it after {plural(c.patience, 'epoch')} without a better validation error")
    how = "the mean of ten crops" if crops == "ten" else "the centre crop"
    start = f", a weight decay that leaves {100*c.start_left:g} % of the random start" if c.start_left else ""
    return (f"{words and words + ' '}Every network was trained from scratch on {data_in_words(c.data)}: "
            f"{plural(len(train.dataset.classes), 'class')}, {len(train)} training and "
            f"{plural(len(val), 'validation picture')}, input {c.image_size}x{c.image_size}, {plural(c.epochs, 'epoch')}, "
            f"batch {c.batch_size}, lr {c.lr:g}, {drops}{start}; the rest as in --preset {c.preset}. Errors in %, mean ± "
            f"standard deviation over the networks, of the last checkpoint, from {how}, nothing dropped out; the training "
            f"error alike, on the training pictures. (The paper states neither its crops nor how it measures the training "
            f"error.) Seconds: of training one network, the fastest of the row's, validation not counted, on "
            f"{', '.join(sorted(devices)) or 'no device yet'}.")
