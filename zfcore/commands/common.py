"""Floor 7: what commands share: options, how a run and its pictures are opened, how units, pictures and labels are named.

A command is a module whose name is the command's, with - for _:

    HELP, OPTIONS        its help and its own options, beside SHARED
    RESULT               the dataclass of arrays that it leaves
    TOGETHER             the name of the one figure of all results of a call; None: a figure each, under the name of its file
    run(args)            yields (file, result), each to be saved and drawn as it comes
    draw(found, path)    the figure of a result, or of all, and what is beside it -> what is to be said, in lines
    closing(args, all)   what is to be said of all results at the end; of a command without it, a result is let go when it is
                         drawn
"""
import difflib
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from zfcore import check, results, trained
from zfcore.data import OBJECTS
from zfcore.data.folders import Files
from zfcore.data.loader import shuffled
from zfcore.data.transforms import CorruptImage, check_large_enough
from zfcore.deconvnet import check_layers, feature_layer, unit_count
from zfcore.files import anything, folder_made, inside, mapping, read_json, table
from zfcore.kernel import PRECISIONS
from zfcore.networks import home_of, recipe_of
from zfcore.terminal import plural, printable


def option(*flags, **keywords):
    """Flags and keywords of `argparse.ArgumentParser.add_argument`."""
    return flags, keywords


FORMAT = option("--format", choices=results.FIGURES, default="png",
                help="of figures; svg and pdf have texts and lines as vectors")
SHARED = [
    option("--run", help="a run's folder (its best.h5), a checkpoint file, or a network that comes with zfcore, e.g. drawn"),
    option("--data", help="class folders, a tar or drawn:NAME (default: what the run was trained on)"),
    option("--part", choices=("train", "val"), default="val", help="the part of the data to look at (the paper: val)"),
    option("--output", help="folder for arrays and figures (default: RUN/figures/COMMAND)"),
    FORMAT,
    option("--seed", type=check.SEED, default=0, help="draws what is random"),
    option("--batch-size", type=check.BATCH, default=64),
    option("--device", default="auto", help="auto, cpu or gpu"),
    option("--precision", default="fp32", help=f"how products are formed: {', '.join(PRECISIONS)} (on a CPU: fp32)"),
    option("--workers", type=check.THREADS, default=2, help="threads that decode pictures"),
    option("--upscale", action="store_true", help="enlarge pictures smaller than the network's input, as is done where its own were enlarged"),
]
K, PIXELS, GREY = check.whole_number(1, 10_000), check.whole_number(1, 4096), check.whole_number(0, 255)
LAYERS = option("--layers", nargs="+", help="e.g. conv1 conv5 fc8 (default: all convolutions)")
UNITS = "all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of each layer"
LIMIT = option("--limit-per-class", type=check.whole_number(0, 2**31), default=0,
               help="look at only so many pictures of each class, 0 for all")
LABEL = option("--label", nargs="+", metavar="NAME", help="class whose probability is followed, one or one for each picture "
                                                          "(default: the data's; for files what the network takes them for)")


# --------------------------------------------------------------------------------------------------- what is opened
def open_model(args, path=None, option="--run"):
    """The Trained of --run, or at another `path`, that of another `option`."""
    path = path or args.run
    if path is None:
        raise check.Expected("--run", "a run's folder or a checkpoint file", "none")
    check.positive("--batch-size", args.batch_size)
    return open_run(path, option, args.device, args.precision)


def open_run(path, option, *how):
    """The Trained at `path`, which was given as `option`."""
    with check.told_of(option, "--run"):
        return trained.open(path, *how)


def open_pictures(args, model, data=None):
    """The `Pictures` of --data, or of other `data`, and --part, prepared as the model's own were."""
    limit = getattr(args, "limit_per_class", 0)
    if limit < 0:
        raise check.Expected("--limit-per-class", "0 or more", limit)
    return model.pictures(args.data if data is None else data, args.part, args.upscale, args.workers, limit)


def open_files(paths, args, model, option="--images"):
    """The `Pictures` of single files, which an option names, prepared as the model's own were."""
    pictures = model.prepared(Files(paths), args.upscale, workers=0)
    check.different(option, map(os.path.realpath, pictures.dataset.names), "files")
    return pictures


def asked_for(args, model):
    """(Pictures, int64 numbers of those that are asked for): the files of --images, or --pictures of the data."""
    if (args.images is None) == (args.pictures is None):
        raise check.Expected("pictures", "either --images FILES or --pictures NUMBERS", "both" if args.images else "neither")
    if args.images is not None:
        pictures = open_files(args.images, args, model)            # of a folder all that it holds
        return pictures, np.arange(len(pictures))
    pictures = open_pictures(args, model)
    return pictures, chosen_of_data(args, pictures)


def chosen_of_data(args, pictures):
    """int64 numbers of the pictures of the data that --pictures names."""
    return chosen("--pictures", args.pictures, len(pictures), "pictures", args.seed, 0)


def images_of(pictures, numbers):
    """uint8 (n,size,size,3) of these pictures."""
    try:
        return np.stack([pictures.picture(i) for i in numbers])
    except CorruptImage as error:
        raise check.Expected("picture", "a file that holds one", error) from None


def labels_of(args, dataset, numbers, classes):
    """int64 (n,), the network's classes of these pictures: those of --label, else those that the data name; None for files, and
    pictures without class folders, without --label."""
    if args.label is not None:
        return class_numbers(args.label, classes, len(numbers))
    if args.images is not None or not dataset.classes or not classes:
        return None
    return class_numbers([dataset.classes[label] for label in dataset.labels[numbers]], classes, len(numbers), "classes of the pictures",
                         "they are to be the network's; --label NAME follows one of these in all")


def class_numbers(names, classes, count, what="--label", advice=""):
    """int64 (count,) of one name for all pictures or one for each, which stand in `what`."""
    for name in names:
        if not classes:
            raise check.Expected(what, "none, since the network has no classes", repr(name), advice)
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=3, cutoff=0.5) or classes[:10]
            raise check.Expected(what, f"one of the {plural(len(classes), 'class')}, e.g. {', '.join(close)}", repr(name), advice)
    if len(names) not in (1, count):
        raise check.Expected(what, f"one name, or one for each of {plural(count, 'picture')}", plural(len(names), "name"))
    return np.array([classes.index(name) for name in names]*(count//len(names)))


def originals(dataset, numbers, crop, upscale):
    """[uint8 (h,w,3)] of these pictures, neither scaled nor cropped."""
    found = []
    for i in numbers:
        try:
            picture = dataset.picture(i)
        except CorruptImage as error:
            raise check.Expected("picture", "a file that holds one", error) from None
        check_large_enough(picture, crop, upscale, dataset.names[i])
        found.append(np.asarray(picture))
    return found


def output_folder(args):
    """--output, or RUN/figures/COMMAND: made, with `args.left` for an ExitStack of what is to be left at the end, and found to
    take files, before anything is computed."""
    home = Path(args.output) if args.output else home_of(first_run(args))
    folder = home if args.output else inside(home, f"figures/{args.command.replace('-', '_')}")
    try:
        args.left.enter_context(folder_made(folder))       # if the command finds nothing, it leaves none
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise check.Expected("--output", "a folder that can be written", f"{folder} ({error.strerror})") from None
    return folder


def first_run(args):
    """--run, of several the first one."""
    return args.run[0] if isinstance(args.run, list) else args.run


# ------------------------------------------------------------------------------------------------ what things are called
def classes_of(model, layer, units):
    """(U,) texts: the classes that units of the last layer stand for; None for another layer."""
    is_last = feature_layer(model.network, layer) == len(model.network.layers) - 1
    if not is_last or len(model.classes) != unit_count(model.network, layer):
        return None
    return np.array(model.classes, dtype=str)[units]


def names_of(models, most=2):
    """Names of one or two networks in a figure: by their models; two of one model also by the first options that tell
    them apart, or else by their epochs or their order."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    one, other = (options_of(model.path) for model in models)
    apart = [key for key in one if key in other and one[key] != other[key]][:most]
    if apart:
        told = [", ".join(f"{key.replace('_', '-')} {_said(key, options[key])}" for key in apart) for options in (one, other)]
    elif models[0].epoch != models[1].epoch:
        told = [f"epoch {model.epoch}" for model in models]
    else:
        told = ["the first", "the second"]
    return [printable(f"{name}, {words}") for name, words in zip(names, told)]


def _said(key, value):
    """Value of an option in words: the empty one of --data is the drawn objects, any other's is none."""
    return OBJECTS if key == "data" and value == "" else "none" if value in ("", None) else value


def options_of(run):
    """The options that a run's config.json or a network's card tells of its training, but for what belongs to the machine; {}
    without one."""
    try:
        file = recipe_of(run)
        told = read_json(inside(file.parent, file.name), table({"options": mapping(anything)}, others=anything))["options"]
        return {key: value for key, value in told.items() if key not in ("preset", "device", "workers", "keep_epochs")}
    except (OSError, check.Expected):
        return {}


def chosen_layers(args, network, default):
    """Names of the layers of --layers, or those of `default`."""
    return default if args.layers is None else check_layers(network, args.layers)


def chosen_units(text, network, layer, seed=0):
    """int64 (U,): the units of `layer` that `text` names: all, random:N, FIRST:LAST+1 or 3,5,7."""
    count = unit_count(network, layer)
    return chosen("--units", text, count, f"units of {layer}", seed, zlib.crc32(layer.encode()))


def chosen(flag, text, count, things, *seeds):
    """int64: the numbers of those of `count` things that `text` names: all, random:N, FIRST:LAST+1 or 3,5,7."""
    kind, _, number = text.partition(":")
    try:
        if text == "all":
            return np.arange(count)
        if kind == "random":
            check.positive(flag, int(number))
            return np.sort(shuffled(count, *seeds)[:int(number)])
        if ":" in text:
            # what is beyond is refused by its first
            numbers = np.arange(max(int(kind or 0), -1), min(int(number or count), count + 1))
        else:
            numbers = np.array([int(word) for word in text.split(",")], np.int64)
        check.positive(flag, len(numbers))
    except (ValueError, OverflowError):
        raise check.Expected(flag, "all, random:N, FIRST:LAST+1 or numbers like 3,5,7", repr(text),
                             f"the {things} are 0 to {count - 1}") from None
    if (wrong := numbers[(numbers < 0) | (numbers >= count)]).size:
        raise check.Expected(flag, f"0 to {count - 1}, the {things}", wrong[0])
    check.different(flag, map(str, numbers), "numbers")
    return numbers
