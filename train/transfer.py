"""Tables 4 to 7 and figure 9: what a network learned on one set of pictures is worth on another.

    python -m train.transfer table4 --run RUN --data 101_ObjectCategories     Caltech-101, 15 and 30 pictures a class
    python -m train.transfer table5 --run RUN --data 256_ObjectCategories     Caltech-256, 15, 30, 45, 60
    python -m train.transfer table6 --run RUN --data VOCdevkit                PASCAL VOC
    python -m train.transfer table7 --run RUN --data ..._ObjectCategories     what each layer of RUN knows
    python -m train.transfer figure9 --run RUN --data ..._ObjectCategories    accuracy over pictures a class
    python -m train.transfer duplicates --run RUN --data ...                  pictures that RUN was trained on already

Where a Caltech set is taken, a set that zfcore draws is taken too: --data drawn:unseen.

Layers 1 to 7 of RUN stay as they are and a new softmax is put on them (zfcore.analysis.probing). Beside it stand, as controls,
the same softmax on the layers of the untrained network, as it was before RUN learned anything, and the same network trained on
the same pictures from random weights. OUT/NAME.md, .csv and .png hold what was found beside the paper's numbers and its
protocol; train.transfer_study says what else lies in OUT.

What is finished is not done again: a command that was stopped or killed goes on when it is given again, and it may be given
again with more --folds or --scratch-folds.
"""
import argparse
import sys
from pathlib import Path

from train.caltech_tables import TABLES, caltech_accuracy, caltech_layers, is_drawn, open_pool
from train.transfer_study import TransferStudy
from train.voc_table import voc_precision
from zfcore import check
from zfcore.check import Expected
from zfcore.crew import HELP as DEVICES
from zfcore.data.voc import open_voc
from zfcore.networks import home_of
from zfcore.terminal import plural, printable, say, status_of, warn
from zfcore.training import Stop
from zfcore.training.config import MOST_EPOCHS

HELP = {"table4": "Caltech-101: a new softmax on the run's features and on an untrained network's, and training from random "
                  "weights",
        "table5": "Caltech-256: the same",
        "table6": "PASCAL VOC: average precision, and files for the evaluation server",
        "table7": "Caltech: an SVM and a softmax on the features of each layer, beside the untrained network's",
        "figure9": "Caltech: accuracy over the number of training pictures a class",
        "duplicates": "list the pictures of a set that the run was trained on"}
MANY, FOLDS = check.whole_number(1, 10**6), check.whole_number(1, 1000)


def parser():
    p = check.Parser(prog="python -m train.transfer", formatter_class=argparse.RawDescriptionHelpFormatter,
                     description=__doc__.split("\n\n")[0])
    commands = p.add_subparsers(dest="table", required=True, metavar="|".join(HELP))
    for name, words in HELP.items():
        command = commands.add_parser(name, help=words, description=words)
        common_options(command)
        if name in (*TABLES, "table7"):
            caltech_options(command, many=name != "table7")
        if name in (*TABLES, "table6"):
            scratch_options(command, folds=name != "table6")
        command.set_defaults(scratch=name == "table6" or name in TABLES and TABLES[name].scratch_by_default)
    command = commands.choices["table7"]
    command.add_argument("--layers", type=check.whole_number(1, 1000), nargs="+", metavar="L",
                         help="layers to look at (all that have one above them)")
    command = commands.choices["table6"]
    command.add_argument("--train-part", default="train", help="a file of ImageSets/Main (train); the paper: trainval")
    command.add_argument("--score-part", default="val", help="another one (val); the paper: test, by the server")
    command.add_argument("--year", type=check.whole_number(2005, 2012), help="2007, 2012 ... (the latest that is there)")
    return p


def common_options(p):
    p.add_argument("--run", required=True, help="a run's folder, a checkpoint in it, or a network that comes with zfcore")
    p.add_argument("--data", required=True, metavar="DIR", help="the new set: a folder, an uncompressed tar, or drawn:unseen")
    p.add_argument("--output", metavar="OUT", help="folder of this study (RUN/<name of the table>)")
    p.add_argument("--features", metavar="DIR", help="where computed features are kept (RUN/features)")
    if "duplicates" not in p.prog:
        p.add_argument("--without-duplicates", action="store_true",
                       help="find pictures that the run was trained on already, list them, leave them out")
    p.add_argument("--seed", type=check.SEED, default=0, help="of the folds (0)")
    p.add_argument("--device", default="auto", help="auto, cpu or gpu")
    p.add_argument("--workers", type=check.THREADS, default=2, help="threads that decode pictures (2)")
    if "duplicates" not in p.prog:
        p.add_argument("--devices", type=check.whole_number(1, 1024), metavar="N", default=1, help=DEVICES)


def caltech_options(p, many):
    p.add_argument("--train", type=MANY, nargs="+" if many else None, metavar="N",
                   help="training pictures a class (the paper's)")
    p.add_argument("--folds", type=FOLDS, default=5, help="draws of training and test pictures (5)")
    p.add_argument("--test-most", type=check.whole_number(0, 10**6), default=50, metavar="N",
                   help="test pictures a class at most, 0 for all others (50)")
    p.add_argument("--background", action="store_true", help="the pictures of no class are one more class")
    p.add_argument("--leave-out-small", action="store_true", help="go on without classes that have too few pictures")


def scratch_options(p, folds):
    p.add_argument("--scratch", action=argparse.BooleanOptionalAction, help="train networks from random weights too")
    p.add_argument("--scratch-epochs", type=check.whole_number(1, MOST_EPOCHS), default=60, metavar="N",
                   help="epochs of each (60)")
    if folds:
        p.add_argument("--scratch-folds", type=FOLDS, default=5, metavar="N", help="of the folds, on how many (5)")
        p.add_argument("--scratch-train", type=MANY, nargs="+", metavar="N", help="for which numbers a class (all)")


def list_duplicates(args):
    """The command `duplicates`: on Caltech, on VOC, on both's tars or on a drawn set."""
    args.without_duplicates = True
    study = TransferStudy(args, lambda size: {"": open_either(args.data, size)})
    study.begin()
    with study.folder.locked():
        found = study.duplicates("")
    say(f"{len(found.second)} pairs that correlate by {found.above} or more, of "
        f"{plural(len(set(found.second.tolist())), 'new picture')}")


def open_either(data, size):
    """Caltech, a drawn set or VOC at `data`; what none can read is told as Caltech tells it."""
    try:
        return open_pool(data, not is_drawn(data), size)
    except Expected as sentence:
        try:
            return open_voc(data, shorter_side=size)
        except Expected:
            raise sentence from None


COMMANDS = {**dict.fromkeys(TABLES, caltech_accuracy), "table6": voc_precision, "table7": caltech_layers,
            "duplicates": list_duplicates}


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    if args.output is None:
        args.output = home_of(args.run)/args.table
    try:
        COMMANDS[args.table](args)
    except (Stop, KeyboardInterrupt) as stopped:
        warn(f"\nstopped; what is finished is kept in {printable(args.output)}. Give the command again to go on")
        sys.exit(status_of(stopped))
    if (text := Path(args.output)/f"{args.table}.md").is_file():
        say(text.read_text(encoding="utf-8"))
    files = sorted(Path(args.output).glob(f"{args.table}*.*"))
    say(*(f"  {printable(path)}" for path in files if path.suffix in (".md", ".csv", ".png")))


if __name__ == "__main__":
    main()
