"""The whole paper on a run and its pictures: every figure and table, each beside the paper's number or claim, with a verdict.

    python -m train.reproduce [fig2 ... table7 | all] --run RUN --output DIR [--data D] [--scale minutes|hours|paper]
    python -m train.reproduce --output DIR --check OTHER

DIR/index.html is the page of it all, reproduction.md and numbers.csv say the same; DIR/ITEM/ holds an item's arrays, figures
and outcome.json, DIR/networks/ and DIR/features/ what several items share. What is finished is not made again and what was
stopped or killed goes on, so the command can be given again at any time, with other items too. How long each item takes here is
said beforehand, measured on a few pictures and steps.

--check OTHER compares DIR with an earlier folder and names every number that is not the same to the bit; the status is then 1.
"""
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from train.paper import ALIASES, ITEMS, outcome, page
from train.paper.looking import landmarked
from train.paper.networks import NETWORKS
from train.paper.outcome import Outcome
from train.paper.setting import SCALES, Setting, speed_of, versions
from train.study import StudyFolder
from zfcore import check, trained
from zfcore.checkpoint import Unwritable
from zfcore.crew import HELP as DEVICES
from zfcore.data.transforms import TooSmall
from zfcore.files import inside
from zfcore.terminal import Bar, command, plural, printable, say, status_of
from zfcore.training import Stop
from zfcore.training.folder import Busy

MOVED = 1                         # the status where --check finds numbers that moved
OWN = f"*/{outcome.FILE}", f"{NETWORKS}/study.json"         # what a reproduction leaves in its folder


def parser():
    p = check.Parser(prog="python -m train.reproduce", description=__doc__.split("\n\n")[0])
    p.add_argument("items", nargs="*", metavar="ITEM", help=f"all (default), or some of {', '.join([*ITEMS, *ALIASES])}")
    p.add_argument("--run", help="a run's folder, a checkpoint file, or a network that comes with zfcore, e.g. drawn")
    p.add_argument("--data", metavar="D", help="class folders, a tar or drawn:NAME (default: what the run was trained on)")
    p.add_argument("--output", metavar="DIR", required=True, help="folder of the reproduction")
    p.add_argument("--scale", choices=SCALES, default="minutes", help="minutes (default): few pictures and networks; hours: "
                                                                      "as in bench/results; "
                                                                      "paper: the paper's own protocol")
    p.add_argument("--caltech101", type=Path, metavar="DIR", help="101_ObjectCategories, for tables 4 and 7")
    p.add_argument("--caltech256", type=Path, metavar="DIR", help="256_ObjectCategories, for tables 5 and 7, figure 9")
    p.add_argument("--voc", type=Path, metavar="DIR", help="VOCdevkit, for table 6")
    p.add_argument("--landmarks", type=Path, metavar="FILE.json", help="where parts are in pictures that all lie beside "
                                                                       "it, for table 1")
    p.add_argument("--seed", type=check.SEED, default=0, help="draws what is random (0)")
    p.add_argument("--device", default="auto", help="auto, cpu or gpu")
    p.add_argument("--workers", type=check.THREADS, default=2, help="threads that decode pictures (2)")
    p.add_argument("--devices", type=check.whole_number(1, 1024), metavar="N", default=1, help=DEVICES)
    p.add_argument("--check", type=Path, metavar="OTHER", help="an earlier folder, to compare with; without ITEM and --run "
                                                               "nothing is made")
    return p


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    names = chosen(args.items)
    if args.check is not None and not names and args.run is None:
        return compare(args)
    with advised_here():
        setting = prepared(args)
    wanted = [ITEMS[name] for name in names or ITEMS]
    try:
        with advised_here(), StudyFolder(args.output).locked():
            make_all(setting, wanted)
    except (KeyboardInterrupt, Stop) as stop:
        say(f"stopped; what is finished is kept, and the same command goes on: {printable(args.output)}")
        sys.exit(status_of(stop))
    say(summary(setting, wanted), f"\n  {printable(setting.output/'index.html')}",
        *(f"  {printable(setting.output/name)}" for name in ("reproduction.md", "numbers.csv")))
    if args.check is not None:
        compare(args)


def chosen(words):
    """Names of the items that are asked for, in the paper's order; [] for none."""
    asked = set()
    for word in words:
        check.one_of("item", word, ["all", *ITEMS, *ALIASES])
        asked |= set(ITEMS) if word == "all" else {ALIASES.get(word, word)}
    return [name for name in ITEMS if name in asked]


def prepared(args):
    """The Setting that is asked for; its folder is made when all that can be wrong has been looked at."""
    if args.run is None:
        raise check.Expected("--run", "a run's folder, a checkpoint file or a network that comes with zfcore", "none")
    for name in ("caltech101", "caltech256", "voc", "landmarks"):
        if (path := getattr(args, name)) is not None and not path.exists():
            raise check.Expected(f"--{name}", "a place where something is", f"{path}, which does not exist")
    if args.landmarks is not None:
        landmarked(args.landmarks)
    model = trained.open(args.run, args.device)
    pictures = model.pictures(args.data, workers=args.workers)
    options = {name: getattr(args, name) for name in ("caltech101", "caltech256", "voc", "landmarks")}
    setting = Setting(args.run, args.data, Path(args.output), args.scale, args.seed, model, pictures, args.device, args.workers,
                      options, args.devices)
    begun = {"scale": args.scale, "seed": args.seed, "key": setting.weights_and_pictures}
    StudyFolder(args.output, OWN, scale=SCALES, seed=int, key=str).remember(begun)
    return setting


# ------------------------------------------------------------------------------------------------------------- the work
def make_all(setting, wanted):
    """Make the items that are not made, and write the page after each, so that it shows what there is whenever this ends."""
    missing = [item for item in wanted if not is_made(setting, item)]
    beforehand = forecast(setting, missing) if missing else {}
    if missing:
        say(*said_beforehand(missing, setting.scale, beforehand), "")
    for item in missing:
        folder = setting.folder(item.name)
        folder.mkdir(parents=True, exist_ok=True)
        found = made(setting, item, beforehand.get(item.name, 0.0))
        outcome.save(folder, found)
        page.write(setting)
        say(f"{item.name:10}{page.clock(found.took['seconds']):8}{page.verdict_in_words(found)}")
    page.write(setting)


def is_made(setting, item):
    found = outcome.kept(setting.folder(item.name))
    return found is not None and found.key == setting.key(item)


def forecast(setting, items):
    """{name: seconds} that those items take here which can be measured; what several share is the first one's."""
    speed, seconds, counted = speed_of(setting.model, setting.pictures), {}, set()
    with Bar(len(items), "item", "how long it will take", stays=False) as bar:
        for item in items:
            if not item.lacks(setting):
                takes = item.seconds(setting, speed)
                takes = takes if isinstance(takes, dict) else {item.name: takes}
                seconds[item.name] = sum(value for what, value in takes.items() if what not in counted)
                counted.update(takes)
            bar.update()
    return seconds


def said_beforehand(items, scale, seconds):
    """Lines: how long each item will take, all together, and what they will not settle."""
    for item in items:
        yield f"{item.name:10}" + (f"about {page.clock(seconds[item.name])}" if item.name in seconds else "cannot be measured "
                                                                                                          "here")
    yield f"{'together':10}about {page.clock(sum(seconds.values()))} on this machine, at --scale {scale}"
    of = {}
    for item in items:
        if item.name in seconds and (words := item.unsettled.get(scale)):
            of.setdefault(words, []).append(item.name)
    yield from (f"will not settle ({', '.join(names)}): {words}" for words, names in of.items())


@contextmanager
def advised_here():
    """`with advised_here():` of pictures that are too small it is said what can be done here, where no option enlarges them."""
    try:
        yield
    except TooSmall as small:
        raise check.Expected(small.what, small.expected, small.got, "--data names larger pictures") from None


def made(setting, item, beforehand):
    """The Outcome of an item. Where something is wrong with what it needs, that is its outcome, and it is tried again next
    time; a disk that is full, or somebody else at work, ends the command."""
    began, key, lacks = time.monotonic(), setting.key(item), item.lacks(setting)
    try:
        with advised_here():
            found = Outcome(item.name, lacking=lacks) if lacks else item.make(setting)
    except (Unwritable, Busy):
        raise
    except check.Expected as sentence:
        found, key = Outcome(item.name, lacking=str(sentence)), ""
    took = {"seconds": round(time.monotonic() - began, 1), "pictures": 0, "networks": 0, **(found.took or {})}
    return replace(found, took=took, key=key, beforehand=round(beforehand, 1), versions=versions())


def summary(setting, wanted):
    """A line an item, and how many claims have which verdict."""
    found = {item.name: outcome.kept(setting.folder(item.name)) for item in wanted}
    lines = [f"{name:10}{page.verdict_in_words(one)}" for name, one in found.items()]
    counts = page.counted(page.claims(found)) or "none"
    return "\n".join(["", *lines, "", f"claims: {counts}; {page.facts(found)}{page.apart(found)}"])


# ---------------------------------------------------------------------------------------------------------- --check
def compare(args):
    """Say which numbers of the folder are not those of --check OTHER; leave with the status MOVED where there are some."""
    folders = [Path(args.output), args.check]
    both = [{name: outcome.load(inside(folder, name)) for name in ITEMS if (folder/name/outcome.FILE).is_file()} for folder in folders]
    for folder, found, what in zip(folders, both, ("--output", "--check")):
        if not found:
            raise check.Expected(what, "a folder with the items of a reproduction", folder,
                                 command("python", "-m", "train.reproduce", "--run", "RUN", "--output", folder) + " makes one")
    shared, said, compared = [name for name in ITEMS if name in both[0] and name in both[1]], [], 0
    for name in shared:
        said += [f"{name}: {sentence}" for sentence in outcome.moved(both[0][name], both[1][name])]
        compared += len({number.what for found in both for number in found[name].numbers})
    only = sorted(set(both[0]) ^ set(both[1]))
    say(*said, *([f"only in one of the folders: {', '.join(only)}"] if only else []),
        f"{len(said)} of {plural(compared, 'number')} in {plural(len(shared), 'item')} moved")
    if said:
        sys.exit(MOVED)


if __name__ == "__main__":
    main()
