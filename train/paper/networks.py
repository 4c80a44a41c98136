"""Tables 2 and 3 and figure 6: networks trained from scratch, in one ordinary study of train.ablation, OUTPUT/networks."""
import numpy as np

from train import ablation
from train.network_tables import Row, opened
from train.paper.outcome import VERDICTS, Number, Outcome, Picture, number, paired
from train.paper.setting import Item, step_seconds
from train.report import level, mean_spread
from zfcore.analysis import diagnostics
from zfcore.models import build
from zfcore.terminal import Bar

NETWORKS = "networks"             # the folder of the study
PAIR = "tiny-alexnet", "tiny"     # whose networks figure 6 compares; at --scale minutes all that are trained


def study_of(setting, table):
    """The train.ablation study of a table, at the setting's scale."""
    words = [table, f"--output={setting.folder(NETWORKS)}", f"--device={setting.device}", f"--workers={setting.workers}",
             f"--devices={setting.devices}", f"--scale={setting.of('tiny', 'tiny', 'full')}",
             *([] if setting.drawn else [f"--data={setting.source}"]), *["--upscale"]*setting.model.upscale]
    words += setting.of(["--seeds=3", "--rows", *PAIR], ["--seeds=5", "--until-decided=10"], [])
    return ablation.prepared(ablation.parser().parse_args(words))


def needs_pictures(setting):
    if setting.scale == "paper" and setting.drawn:
        return ("The paper's networks need the pictures of ImageNet: --data DIR. With drawn pictures, --scale hours trains "
                "small ones.")
    return ""


def not_in_minutes(setting):
    if setting.scale == "minutes":
        return ("Not at --scale minutes: one network of each of its 12 rows takes longer than all else, and one decides "
                "nothing. --scale hours trains five to ten of each.")
    return needs_pictures(setting)


def trained_rows(setting, table, paper):
    """The Outcome of table 2 or 3: a number for each row, a verdict for each claim."""
    study = study_of(setting, table)
    study.pictures[0].prepare()
    runs, lines, judgements = study.looked_at(train=True)
    study.write(table, runs, lines, judgements)
    numbers = [of_line(line, of) for line in lines for of in paper if line.mean_spread(of) is not None or line.missing]
    numbers += [of_claim(one, study.looks) for one in judgements]
    folder, figure = setting.folder(table), study.folder.path/f"{table}.png"
    if figure.is_file():
        (folder/figure.name).write_bytes(figure.read_bytes())
    notes = [f"{run.name}: {run.failure}" for run in runs if run.failure]
    protocol = ablation.protocol(study.scale.words, runs, study.pictures, study.crops)
    took = {"networks": sum(run.finished for run in runs), "pictures": len(study.pictures[0])}
    drawn = (Picture(figure.name, "The rows' errors beside the paper's."),)*figure.is_file()
    return Outcome(table, tuple(numbers), drawn, protocol, " ".join(notes), took=took)


def of_line(line, of):
    pair = line.mean_spread(of)
    words = {"train": "training error", "top1": "top-1 error", "top5": "top-5 error"}[of]
    paper = getattr(line.row.paper, of)
    of_networks = f"{line.networks} networks together"
    if isinstance(line.row, Row):
        of_networks = f"{mean_spread(pair)}, mean ± spread over {line.networks} networks" if pair else line.missing
    return Number(f"{line.row.label}: {words}", pair[0] if pair else None, unit="%",
                  paper="" if paper is None else f"{paper:.1f}", rule=of_networks if pair else line.missing)


def of_claim(one, looks):
    """The Number of a train.claims Judgement by one of the looks."""
    low, high = (None, None) if one.half is None else (one.mean - one.half, one.mean + one.half)
    where, of = "within ±2 points" if one.claim.little else "above 0", ablation.OF[one.claim.of]
    together = f", so that those of all {len(looks)} looks together are of 95 %"*(len(looks) > 1)
    rule = (f"{of}; the whole {level(looks)} interval (Student's{together}) {where}; "
            f"{one.pairs} pair{'s'*(one.pairs > 1)} of seeds")
    return Number(one.claim.text, one.mean, low, high, "points", "" if one.paper is None else f"{one.paper:+.1f}", rule,
                  one.verdict.partition(":")[0])


def table2(setting):
    return trained_rows(setting, "table2", ("top1", "top5"))


def table3(setting):
    return trained_rows(setting, "table3", ("train", "top1", "top5"))


# ------------------------------------------------------------------------------------------------------------- figure 6
def first_layers(setting):
    """Figure 6: of the run as it is; and AlexNet's first layers beside the paper's over the seeds of table 2."""
    (own,), figures = setting.look("fig6", "diagnostics", "--units=random:12")
    alone = dict(unit="%", rule="one network")
    silent = 100*float(np.mean(np.concatenate(list(own.dead.values())))) if own.dead else None
    numbers = [Number("run: largest over median RMS of layer 1's filters", own.dominance, rule="1: none dominates; one network",
                      paper="some dominate without the limit of 0.1"),
               Number("run: units that no picture makes fire", silent, **alone),
               *(Number(f"run: energy of layer 1 in the {band} frequencies", 100*share, **alone)
                 for band, share in own.bands().items()),
               Number("without the RMS limit some filters dominate", None, paper="section 3; figure 6 (a)", verdict=VERDICTS[3],
                      rule="needs a second network, trained without the limit: python -m train --rms-max 0")]
    study = study_of(setting, "table2")
    alexnet, ours = pair = [study.scale.models.get(name, name) for name in ("alexnet", "zfnet")]
    runs = [run for run in study.runs if run.config.seed < study.looks[0] and run.config.model in pair]
    study.pictures[0].prepare()
    study.have_trained(runs)
    found = {(run.config.model, run.config.seed): diagnosed(setting, study, run) for run in runs if run.finished}
    for words, of, claim, sign in COMPARED:
        one, other = ({seed: of(each) for (model, seed), each in found.items() if model == name} for name in pair)
        numbers += [number(f"{name}: {words}", list(values.values()), "%", of="networks")
                    for name, values in ((alexnet, one), (ours, other))]
        numbers.append(paired(claim, [sign*(one[seed] - other[seed]) for seed in one if seed in other], "points",
                              "section 4.1; figure 6 (b) to (e)", "pairs of seeds"))
    words = "The run's filters of layer 1, projections of layer 2, and their spectra."
    return Outcome("fig6", tuple(numbers), tuple(Picture(path.name, words) for path in figures),
                   f"{setting.about()} The comparison: AlexNet's layers 1 and 2 (11x11, stride 4) beside figure 3's (7x7, "
                   f"stride 2), networks of table 2, {study.looks[0]} seeds each.",
                   took={"networks": len(found), "pictures": len(setting.pictures)})


# what is measured, function of a Diagnosis, the claim, and whether AlexNet has more (1) or less (-1) of it
COMPARED = (
    ("energy of layer 1 in the middle frequencies", lambda one: 100*one.bands()["mid"],
     "7x7/2 filters have more of the middle frequencies than 11x11/4 ones", -1),
    ("units of layers 1, 2 that never fire", lambda one: 100*np.mean(np.concatenate(list(one.dead.values())[:2])),
     "11x11/4 leaves more dead units", 1),
    ("energy of layer 2's projections at the grid of layer 1's stride", lambda one: 100*one.aliasing,
     "stride 4 aliases more in layer 2 than stride 2 does", 1),
)


def diagnosed(setting, study, run):
    """The Diagnosis of one network of the study, on the study's validation pictures."""
    pictures, model = study.pictures[1], opened(run)
    k = min(9, len(pictures))
    with Bar(diagnostics.length(model.network, pictures, k), "picture", f"fig6, {run.name}") as bar:
        return diagnostics.diagnose(model, pictures, [0], k=k, bar=bar)


def seconds_of_table2(setting, speed):
    return seconds_of_networks(setting, "table2")


def seconds_of_table3(setting, speed):
    return seconds_of_networks(setting, "table3")


def seconds_of_figure6(setting, speed):
    pair = seconds_of_networks(setting, "table2", of=("alexnet", "zfnet"))
    return {"fig6": 20 + len(setting.pictures)*speed.look + 6*(600*speed.look + 9*64*speed.project), **pair}


def seconds_of_networks(setting, table, of=None):
    """{name of a network: seconds} of training those that the study of a table lacks at its first look, from one step of each
    model: of all models, or of those that stand for the paper's `of`."""
    study, found, steps = study_of(setting, table), {}, {}
    wanted = None if of is None else {study.scale.models.get(name, name) for name in of}
    train, val = study.pictures
    for run in study.runs:
        config = run.config
        if config.seed >= study.looks[0] or run.finished or wanted is not None and config.model not in wanted:
            continue
        if config.model not in steps:
            network = build(config.model, len(train.dataset.classes), config.image_size, config.keep_prob)
            x = setting.model.device.array(np.zeros((*network.input_shape, config.batch_size), np.float32))
            steps[config.model] = step_seconds(network.init(0, "he", setting.model.device), x)
        shown = config.epochs*(len(train) + len(val)/3) + 10*(len(train) + len(val))/3     # a way up alone: a third of a step
        found[run.name] = steps[config.model]*shown
    return found


SMALL = "small networks on few pictures: what needs ImageNet and 70 epochs may come out otherwise there"
AGAIN = f"{SMALL}. Rows of undecided claims get as many seeds again, which is not in this time"
FEW = "three seeds: differences below some five points stay undecided"
ITEMS = (
    Item("table2", "Which networks, and how many together?", "5.1, table 2",
         "The 7x7/2 network beats AlexNet; networks together "
         "beat one.", table2, seconds_of_table2, needs_pictures,
         unsettled={"minutes": f"{FEW}; not (b), nor the ensemble with it; {SMALL}", "hours": AGAIN}),
    Item("fig6", "Are the first layers healthy?", "4.1, figure 6",
         "Stride 4 and 11x11 filters leave out middle frequencies, kill "
         "filters and alias; without the RMS limit a few filters dominate.", first_layers, seconds_of_figure6, needs_pictures,
         unsettled={"minutes": f"{FEW}; the RMS limit", "hours": f"{SMALL}; the RMS limit", "paper": "the RMS limit"}),
    Item("table3", "Which layers matter?", "5.1, table 3",
         "Depth matters: without layers 3, 4 or 6, 7 it is worse, without all "
         "far worse; the width of 6, 7 hardly matters, wider 3, 4, 5 help.", table3, seconds_of_table3, not_in_minutes,
         unsettled={"minutes": "all of it", "hours": AGAIN, "paper": "one seed: no claim is decided"}),
)
