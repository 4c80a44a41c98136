"""Tables 2 and 3: every row's networks trained from scratch, and what they reach set beside the paper's numbers.

    python -m train.ablation table2|table3 --output DIR [--scale tiny|full] [--data DIR] [--seeds N] [--until-decided N]
                                                         [--rows MODEL ...] [--devices N] [--collect]

Every network is an ordinary run in DIR/<model>-seed<k>/. What is finished is not trained again and what was stopped or
killed goes on, so the command can be given again at any time, with more seeds or rows too. Both tables may have the same
DIR; then the networks that both name are trained once. --devices N trains N at once, each in a process with a GPU of its own,
or with its share of the cores: the same table, to the bit. The same command may be at work several times at once, too: each
takes the networks that no other is at, and waits for the others' before it writes the table.

The paper's claims about the rows are judged by differences, taken seed by seed: seed k draws the same order of pictures and
the same crops for every row. With --until-decided, claims are looked at after the first seeds and again after each as many
more, which only the rows of claims still undecided get; train.claims says how they are judged.
"""
import argparse
import sys
from dataclasses import asdict, dataclass, fields, replace

from train.claims import Claim, looks_of
from train.network_tables import Ensemble, Errors, Row, collect, judged, protocol, result_of, write
from train.options import HELP
from train.study import Busy, Run, StudyFolder, config_of, pictures_for
from zfcore import check
from zfcore.crew import HELP as DEVICES
from zfcore.crew import crew
from zfcore.data.folders import PARTS, some
from zfcore.data.known import PICTURES
from zfcore.device import select
from zfcore.models import MODELS, build
from zfcore.models.variants import EDITS, variant_name
from zfcore.terminal import plural, printable, say, status_of, warn
from zfcore.training import Stop, TrainConfig, resolve
from zfcore.training.config import flag, read_options
from zfcore.training.folder import compared

# ------------------------------------------------------------------------------------------------------- what is asked
KRIZHEVSKY_1, KRIZHEVSKY_5 = (40.7, 18.2), (38.1, 16.4)            # top-1, top-5: of table 2's rows, his own 1 and 5 networks
TABLE2 = (
    Row("AlexNet replication, 1 net", "alexnet", Errors(None, 40.5, 18.1)),
    Ensemble("AlexNet, all seeds", "alexnet", paper=Errors(None, *KRIZHEVSKY_5)),
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
# rows are called by their model or an ensemble's label; of: a field of Errors, or "middle" of Result
CLAIMS = (
    Claim("1 the 7x7/2 network beats AlexNet", "alexnet", "zfnet"),
    Claim("1 networks together beat one: (a)", "zfnet", "(a), all seeds"),
    Claim("1 networks together beat one: AlexNet", "alexnet", "AlexNet, all seeds", paper=(KRIZHEVSKY_1[0], KRIZHEVSKY_5[0])),
    Claim("1 with (b) they are better still", "(a), all seeds", "(a), all seeds, and (b)"),
    Claim("2 without layers 3, 4 it is worse", "alexnet-without-3-4", "alexnet"),
    Claim("2 without layers 6, 7 it is worse", "alexnet-without-6-7", "alexnet"),
    Claim("2 without all four it is worse than without 3, 4", "alexnet-without-3-4-6-7", "alexnet-without-3-4"),
    Claim("2 without all four it is worse than without 6, 7", "alexnet-without-3-4-6-7", "alexnet-without-6-7"),
    Claim("2 without layer 7 alone hardly matters", "alexnet-without-7", "alexnet", little=True),
    Claim("3 half the units in 6, 7 hardly matter: AlexNet", "alexnet-fc-2048", "alexnet", little=True),
    Claim("3 twice the units in 6, 7 hardly matter: AlexNet", "alexnet-fc-8192", "alexnet", little=True),
    Claim("3 half the units in 6, 7 hardly matter: figure 3", "zfnet-fc-2048", "zfnet", little=True),
    Claim("3 twice the units in 6, 7 hardly matter: figure 3", "zfnet-fc-8192", "zfnet", little=True),
    Claim("3 wider layers 3, 4, 5 help", "zfnet", "zfnet-b"),
    Claim("3 and lower the training error", "zfnet", "zfnet-b", of="train"),
    Claim("3 with twice the units in 6, 7 as well it is worse again", "zfnet-b-fc-8192", "zfnet-b"),
    Claim("3 though the training error is lower still", "zfnet-b", "zfnet-b-fc-8192", of="train"),
    Claim("4 the 7x7/2 filters have more of the middle frequencies than 11x11/4 ones", "zfnet", "alexnet", of="middle"),
)
OF = {"train": "training error", "top1": "top-1 error", "middle": "share of layer 1's energy"}


@dataclass(frozen=True)
class Scale:
    """Networks that stand for the paper's, and how they are trained: a preset, and what differs from it."""
    words: str
    models: dict
    options: dict
    seeds: dict                   # table: how many if --seeds is not typed


# Errors must be neither at the ceiling nor at the floor, on classes that only a combination of parts tells apart, and half of
# the random start is left: this leaves the base networks near 50 %, in a minute each on one core. The 126 classes of
# drawn:combinations would need more steps than sixty networks can have on two cores. The learning rate falls at the same epoch
# in all of them: left to the plateau rule, a row would be judged by whether its plateau came in time. At the rate of tiny some
# rows die in their first steps and never learn.
SCALES = {
    "tiny": Scale("Networks called tiny have a quarter of the paper's maps in layers 1 to 5 and 256 units, not 4096, in layers "
                  "6, 7.",
                  {variant_name(big, edit): variant_name(small, edit) for edit in ("", *EDITS)
                   for big, small in (("zfnet", "tiny"), ("alexnet", "tiny-alexnet"))},
                  dict(preset="tiny", data="drawn:unseen", image_size=48, epochs=20, lr=0.002, start_left=0.5, keep_epochs=()),
                  {"table2": 5, "table3": 5}),
    "full": Scale("", {}, dict(preset="zfnet", keep_epochs=()), {"table2": 5, "table3": 1}),
}
TABLES = {"table2": TABLE2, "table3": TABLE3}
RUNS = "*-seed*"                                            # folders of `runs_of`
OPTIONS = {f.name: f for f in fields(TrainConfig)          # of the runs, as typed; the others are set by the study
           if f.name not in ("preset", "model", "seed", "crops", "init_from", "keep_epochs")}


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
    return [Run(resolve({**scale.options, **typed, "model": row.model, "seed": seed}), output/f"{row.model}-seed{seed}")
            for seed in range(seeds) for row in rows if seed < row.most_seeds]


# --------------------------------------------------------------------------------------------------------------- a study
@dataclass(frozen=True)
class Ablation:
    """Material of a table: `runs` are all that it could come to, up to the seeds of the last look."""
    folder: StudyFolder
    scale: Scale
    shown: list                   # Rows and Ensembles
    runs: list
    looks: list
    pictures: tuple               # (training, validation) Pictures, which all runs share
    crops: str
    devices: int = 1              # on so many at once

    def looked_at(self, train):
        """(runs asked for, Lines, Judgements) when no claim is undecided or no look is left; without `train` as they are."""
        models, asked = {run.config.model for run in self.runs}, []
        for before, seeds in zip((0, *self.looks), self.looks):
            asked += [run for run in self.runs if before <= run.config.seed < seeds and run.config.model in models]
            if train:
                self.have_trained(asked)
            lines = collect(self.shown, asked, self.looks[0], self.pictures, self.crops)
            claims = judged(CLAIMS, lines, self.scale.models, self.looks)
            models = asked_again(lines, claims, self.scale)
            if any(not run.finished and not run.failure for run in asked):
                break
        return asked, lines, claims

    def have_trained(self, runs):
        """Train those of the runs that are not finished. Where one fails, that is said, and the others go on."""
        def tell(run, sentence):
            if sentence:                                   # else another has done it
                (warn if run.failure else say)(sentence)

        config = self.runs[0].config
        with crew(self.devices, config.device, "train.ablation:served", folder=str(self.folder.path), config=asdict(config),
                  crops=self.crops) as several:
            self.folder.work(runs, self.train, "epoch", tell, several)

    def train(self, run, progress):
        """Train and measure one run; returns a sentence about it. Where it fails, that is entered in its failed.txt."""
        try:
            self.folder.run_or_resume(run.name, run.config, self.pictures, progress)
            result = result_of(run, self.pictures, self.crops)
            return f"{run.name}: validation error {result.errors.top1:.1f} %, {result.seconds:.0f} s of training"
        except Busy:
            raise
        except (check.Expected, MemoryError) as error:                   # CuPy's out of memory is a MemoryError
            run.fail(error)
            return f"{printable(run.folder)}: {error}"

    def write(self, table, runs, lines, judgements):
        """Write what `looked_at` gave as TABLE.md, .csv and .png. Returns the Markdown."""
        with self.folder.locked(wait=True):                              # who else is at it writes the same
            return write(self.folder.path, table, lines, judgements, self.looks, OF,
                         protocol(self.scale.words, runs, self.pictures, self.crops))


def served(folder, config, crops):
    """A function that trains a run of the study in `folder`, for a process of --devices; `config` is that of one of the
    runs."""
    study = Ablation(StudyFolder(folder), None, [], [], [], pictures_for(config_of(config)), crops)

    def do(order, progress, wait):
        run = Run.of(order)
        with study.folder.at(run, wait) as is_left:
            return study.train(run, progress) if is_left else ""
    return do


def asked_again(lines, judgements, scale):
    """The models of which more seeds may decide a claim that is undecided; more of an ensemble are none."""
    rows = {line.row.model for line in lines if isinstance(line.row, Row)}
    return {model for one in judgements if one.undecided for name in (one.claim.higher, one.claim.lower)
            if (model := scale.models.get(name, name)) in rows}


# ------------------------------------------------------------------------------------------------------- command line
def parser():
    p = check.Parser(prog="python -m train.ablation", argument_default=argparse.SUPPRESS,
                     description="Train the rows of the paper's table 2 or 3 and set them beside the paper's numbers.")
    p.add_argument("table", choices=TABLES)
    p.add_argument("--output", metavar="DIR", required=True, help="folder of the runs and tables; both tables may share it")
    p.add_argument("--scale", choices=SCALES, help="tiny (default): small networks on small pictures; full: the paper's")
    p.add_argument("--seeds", type=check.whole_number(1, 1000), metavar="N",
                   help="train each network with seeds 0 to N-1; (b) of table 2 with seed 0 alone, as the paper has one of it")
    p.add_argument("--until-decided", type=check.whole_number(1, 1000), metavar="N",
                   help="train more seeds, up to N, of the rows of undecided claims")
    p.add_argument("--rows", nargs="+", metavar="MODEL", default=[], help="these networks, any --model, instead of the table's")
    p.add_argument("--devices", type=check.whole_number(1, 1024), metavar="N", default=1, help=DEVICES)
    p.add_argument("--crops", choices=("ten", "centre"), default="ten",
                   help="crops that errors are measured with (default: ten)")
    p.add_argument("--collect", action="store_true", default=False, help="train nothing: the tables of what is there")
    of_training = p.add_argument_group("options of every run, as for python -m train")
    for f in OPTIONS.values():
        if type(f.default) is bool:
            of_training.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            many = dict(type=int, nargs="*") if type(f.default) is tuple else dict(type=type(f.default))
            of_training.add_argument(flag(f.name), **many, metavar=f.name.upper(), help=HELP.get(f.name))
    return p


def remembered(folder, typed):
    """(name of the scale, {option: value}): what is typed and, for the rest, what was typed when the study began, which its
    study.json keeps."""
    before = {"scale": "tiny", **folder.stored()}
    options = {**(read_options(folder.path/"study.json") if "options" in before else {}),
               **{name: value for name, value in typed.items() if name in OPTIONS}}
    scale = typed.get("scale", before["scale"])
    if scale == "full" and not options.get("data"):
        raise check.Expected("--scale full", "--data with the pictures of ImageNet", "none")
    return scale, options


def remember(folder, typed, pictures):
    """Write what was `typed` into study.json, with the keys of the (training, validation) `pictures`. Raises Expected where these
    are others than those that the networks were begun with; which, is said as far as the networks' own lists tell. These are all
    that a study has which was begun before there were keys."""
    keys, before = {f"{part}_key": of.key() for part, of in zip(PARTS, pictures)}, folder.stored()
    begun = any(folder.path.glob(f"{RUNS}/config.json"))                       # else any pictures may still be taken
    if begun and any(before.get(name) != key for name, key in keys.items()):
        for path in sorted(folder.path.glob(f"{RUNS}/{PICTURES}")):
            count, faults, changed = compared(path, *(of.dataset for of in pictures))
            if changed:
                faults = ", ".join(filter(None, [faults, f"{len(changed)} of another size ({some(changed)})"]))
            if faults:
                raise check.Expected(path.parent, f"the {plural(count, 'picture')} that it began with", faults,
                                     "put them back as they were, or name another folder")
    known = before.keys() & keys.keys() if begun else set()
    folder.remember({**typed, **keys}, may_change={*typed, *keys} - known)     # of what is typed every run has looked at its own


def prepared(args):
    """The Ablation that is asked for, remembered in its folder when all that can be wrong with it has been looked at."""
    folder, typed = StudyFolder(args.output, scale=SCALES, options=dict), vars(args)
    name, options = remembered(folder, typed)
    scale, seeds = SCALES[name], typed.get("seeds", SCALES[name].seeds[args.table])
    check.positive("--seeds", seeds)
    looks = looks_of(seeds, typed.get("until_decided", seeds))
    if looks[-1] < seeds:
        raise check.Expected("--until-decided", f"no fewer than the first {seeds} seeds", looks[-1])
    rows, shown = chosen(args.table, scale, args.rows)
    runs = runs_of(rows, scale, options, looks[-1], folder.path)
    for run in runs:
        run.check_options()
    config = runs[0].config
    select(config.device)                                  # that it is there is found before anything begins
    pictures = pictures_for(config)
    for row in rows:                                       # a size that a network cannot have is said before anything begins
        build(row.model, len(pictures[0].dataset.classes), config.image_size, config.keep_prob)
    remember(folder, {"scale": name, "options": options}, pictures)
    return Ablation(folder, scale, shown, runs, looks, pictures, args.crops, args.devices)


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    study = prepared(args)
    output = study.folder.path
    try:
        if not args.collect:
            study.pictures[0].prepare()      # what is wrong with them is wrong for every run
        runs, lines, claims = study.looked_at(not args.collect)
    except (KeyboardInterrupt, Stop) as stopped:
        say(f"stopped; the same command goes on, and with --collect it shows what is there: {printable(output)}")
        sys.exit(status_of(stopped))
    say(study.write(args.table, runs, lines, claims), printable(f"{output/args.table}.md, .csv, .png"))
    if all(run.failure for run in runs):
        raise check.Expected(output, "a network that could be trained",
                             f"{len(runs)} that failed, the first by: {runs[0].failure}")


if __name__ == "__main__":
    main()
