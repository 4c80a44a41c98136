"""python -m zfcore ANALYSIS --run RUN ...: parse, call one analysis, save its arrays (HDF5) and its figure beside them.

An analysis is a function here with the decorator `analysis`: its name on the command line, its help, its own options.
All share --run, --data, --output and the like; all can draw their figures again from saved arrays (--redraw)."""
import argparse
import csv
import difflib
import json
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zfcore import check, plots, results
from zfcore.analysis import controls as controlled
from zfcore.analysis import correspondence as alike
from zfcore.analysis import diagnostics as measured
from zfcore.analysis import evolution as growing
from zfcore.analysis import invariance as moved
from zfcore.analysis import occlusion as occluding
from zfcore.analysis import top_activations as top
from zfcore.backend import PRECISIONS, select
from zfcore.checkpoint import atomic
from zfcore.data import is_drawn, open_data
from zfcore.data.loader import Pictures, shuffled
from zfcore.data.synthetic import Synthetic
from zfcore.data.transforms import Damaged, check_large_enough, decode
from zfcore.deconvnet import check_units, feature_layer, unit_count
from zfcore.models import from_checkpoint, start_of
from zfcore.networks import home_of

ANALYSES = {}                     # name: (function of the parsed arguments, help, options)
PAGE = 64                         # units of a layer that share a file and a sheet
ROWS, OTHERS = 4, 3               # pictures that share a file and a sheet; others whose projections stand beside


def analysis(name, help, *options):
    """Decorator: enter a function(args) as `python -m zfcore NAME`. An option is (flags, keywords of add_argument)."""
    def enter(function):
        ANALYSES[name] = function, help, options
        return function
    return enter


def option(*flags, **keywords):
    return flags, keywords


# ---------------------------------------------------------------------------------------------- what analyses share
SHARED = [
    option("--run", help="a run's folder (its best.h5), a checkpoint file, or a network that comes with zfcore, e.g. drawn"),
    option("--data", help="class folders, a tar or drawn:NAME (default: what the run was trained on)"),
    option("--part", choices=("train", "val"), default="val", help="the part of the data to look at (the paper: val)"),
    option("--output", help="folder for arrays and figures (default: RUN/figures/ANALYSIS)"),
    option("--redraw", metavar="FILE", nargs="+", help="draw the figure again from saved arrays; needs no network"),
    option("--format", choices=tuple(plots.FORMATS), default="png", help="of figures; svg and pdf have texts and lines as vectors"),
    option("--seed", type=int, default=0, help="draws what is random"),
    option("--batch-size", type=int, default=64),
    option("--device", default="auto", help="auto, cpu or gpu"),
    option("--precision", default="fp32", help=f"how products are formed: {', '.join(PRECISIONS)} (on a CPU: fp32)"),
    option("--workers", type=int, default=2, help="threads that decode pictures"),
    option("--upscale", action="store_true", help="enlarge pictures smaller than the network's input"),
]


def open_run(args):
    """(network, checkpoint, mean image on the device) of --run."""
    if args.run is None:
        raise check.Expected("--run", "a run's folder or a checkpoint file", "none")
    check.positive("--batch-size", args.batch_size)
    device = select(args.device)
    network, checkpoint = from_checkpoint(args.run, device, args.precision)
    if checkpoint.mean_image is None:
        raise check.Expected(args.run, "a checkpoint with a mean image", "one without")
    return network, checkpoint, device.array(checkpoint.mean_image)


def open_pictures(args, network, checkpoint):
    """The `Pictures` of --data and --part, prepared as the run's own were."""
    size = checkpoint.mean_image.shape[1]
    limit = getattr(args, "limit_per_class", 0)
    if limit < 0:
        raise check.Expected("--limit-per-class", "0 or more", limit)
    parts = open_data(args.data if args.data is not None else checkpoint.state.get("data", ""), size, limit)
    return Pictures(parts[args.part == "val"], size, network.input_shape[1], args.upscale, args.workers)


class Files:
    """Picture files as a data set whose classes nobody knows."""

    def __init__(self, paths):
        self.names, self.classes, self.labels = list(map(str, paths)), [], np.zeros(len(paths), np.int64)

    def __len__(self):
        return len(self.names)

    def picture(self, i):
        try:
            return decode(self.names[i], Path(self.names[i]).read_bytes())
        except OSError as error:
            raise Damaged(self.names[i], error.strerror) from None


def open_files(paths, args, network, checkpoint):
    """The `Pictures` of single files, prepared as the run's own were."""
    return Pictures(Files(paths), checkpoint.mean_image.shape[1], network.input_shape[1], args.upscale, workers=0)


def asked_for(args, network, checkpoint):
    """(Pictures, int64 numbers of those that are asked for): the files of --images, or --pictures of the data."""
    if (args.images is None) == (args.pictures is None):
        raise check.Expected("pictures", "either --images FILES or --pictures NUMBERS", "both" if args.images else "neither")
    if args.images is not None:
        return open_files(args.images, args, network, checkpoint), np.arange(len(args.images))
    pictures = open_pictures(args, network, checkpoint)
    numbers = chosen("--pictures", args.pictures, len(pictures), f"there are 0 to {len(pictures) - 1}", args.seed, 0)
    if (wrong := numbers[(numbers < 0) | (numbers >= len(pictures))]).size:
        raise check.Expected("--pictures", f"0 to {len(pictures) - 1}", wrong[0])
    return pictures, numbers


def prepared(pictures, numbers):
    """uint8 (n,size,size,3) of these pictures."""
    try:
        return np.stack([pictures.picture(i) for i in numbers])
    except Damaged as error:
        raise check.Expected("picture", "a file that holds one", error) from None


def labels_of(args, dataset, numbers, classes):
    """int64 (n,), the network's classes of these pictures: those of --label, else those that the data name; None for files
    without --label."""
    if args.label is not None:
        return class_numbers(args.label, classes, len(numbers))
    if args.images is not None:
        return None
    return class_numbers([dataset.classes[label] for label in dataset.labels[numbers]], classes, len(numbers))


def class_numbers(names, classes, count):
    """int64 (count,) of one name for all pictures or one for each."""
    for name in names:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=3, cutoff=0.5) or classes[:10]
            raise check.Expected("--label", f"one of the {len(classes)} classes, e.g. {', '.join(close)}", repr(name))
    if len(names) not in (1, count):
        raise check.Expected("--label", f"one name, or one for each of {count} pictures", f"{len(names)} names")
    return np.array([classes.index(name) for name in names]*(count//len(names)))


def output_folder(args, name):
    """--output, or RUN/figures/NAME: made, and found to take files, before anything is computed."""
    folder = Path(args.output) if args.output else home_of(args.run)/"figures"/name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise check.Expected("--output", "a folder that can be written", f"{folder} ({error.strerror})") from None
    return folder


def figure_of(file, args):
    """Where the figure of saved arrays lies: beside them, under their name."""
    return Path(file).with_suffix(f".{args.format}")


def classes_of(network, checkpoint, layer, units):
    """(U,) texts: the classes that units of the last layer stand for; None for another layer."""
    is_last = feature_layer(network, layer) == len(network.layers) - 1
    if not is_last or len(checkpoint.classes) != unit_count(network, layer):
        return None
    return np.array(checkpoint.classes, dtype=str)[units]


def names_of(runs, checkpoints, most=2):
    """What one or two networks are called in a figure: by their models; two of one model also by the first options that tell
    them apart, or else by their epochs or their order."""
    models = [checkpoint.model for checkpoint in checkpoints]
    if len(set(models)) == len(models):
        return models
    one, other = map(options_of, runs)
    apart = [key for key in one if key in other and one[key] != other[key]][:most]
    if apart:
        told = [", ".join(f"{key.replace('_', '-')} {options[key]}" for key in apart) for options in (one, other)]
    elif checkpoints[0].epoch != checkpoints[1].epoch:
        told = [f"epoch {checkpoint.epoch}" for checkpoint in checkpoints]
    else:
        told = ["the first", "the second"]
    return [f"{model}, {words}" for model, words in zip(models, told)]


def options_of(run):
    """The options that a run's config.json tells of its training, but for what belongs to the machine; {} without one."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    try:
        told = json.loads((folder/"config.json").read_text(encoding="utf-8"))["options"]
        return {key: value for key, value in told.items() if key not in ("preset", "device", "workers", "keep_epochs")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def chosen_units(text, network, layer, seed=0):
    """int64 (U,): the units of `layer` that `text` names: all, random:N, FIRST:LAST+1 or 3,5,7."""
    count = unit_count(network, layer)
    units = chosen("--units", text, count, f"{layer} has the units 0 to {count - 1}", seed, zlib.crc32(layer.encode()))
    return check_units(network, layer, units)


def chosen(flag, text, count, advice, *seeds):
    """int64: the numbers of `count` things that `text` names: all, random:N, FIRST:LAST+1 or 3,5,7."""
    kind, _, number = text.partition(":")
    try:
        if text == "all":
            return np.arange(count)
        if kind == "random":
            check.positive(flag, int(number))
            return np.sort(shuffled(count, *seeds)[:int(number)])
        if ":" in text:
            numbers = np.arange(int(kind or 0), int(number or count))
        else:
            numbers = np.array([int(word) for word in text.split(",")])
        check.positive(flag, len(numbers))
    except ValueError:
        raise check.Expected(flag, "all, random:N, FIRST:LAST+1 or numbers like 3,5,7", repr(text), advice) from None
    return numbers


def bar(total, unit, what):
    return tqdm(total=total, unit=unit, desc=what, disable=None)


# ------------------------------------------------------------------------------------------------- top activations
@analysis(
    "top-activations", "figure 2: the pictures that excite each unit most, and their projections",
    option("--layers", nargs="+", help="e.g. conv1 conv5 fc8 (default: all convolutions)"),
    option("--units", default="random:16", help="all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of each layer"),
    option("--k", type=int, default=9, help="pictures kept for each unit"),
    option("--shard", default="1/1", metavar="I/N", help="look at the I-th of N parts of the data only, and draw nothing"),
    option("--merge", nargs="+", metavar="FILE", help="the files of all shards: join them, then draw"),
    option("--folders", action="store_true", help="also LAYER/unit_0000/{projection,patch}_000.png and info.json"))
def top_activations(args):
    if args.redraw:
        return [draw_views(results.load(file, top.UnitViews), figure_of(file, args)) for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    layers = args.layers or [layer.name for layer in network.convolutions]
    units = {layer: chosen_units(args.units, network, layer, args.seed) for layer in layers}
    shard = parse_shard(args.shard)
    if args.merge and shard != (1, 1):
        raise check.Expected("--merge", "no --shard beside it", args.shard)
    pictures = open_pictures(args, network, checkpoint)
    folder = output_folder(args, "top_activations")
    file = folder/("top_activations.h5" if shard == (1, 1) else "top_activations_{}_of_{}.h5".format(*shard))
    if args.merge:
        found = top.merge([results.load(part, top.TopActivations) for part in args.merge])
        top.check_pass(found, network, pictures, mean, layers, args.k, args.batch_size, "--merge")
        results.save(file, found)
    first, stop = top.shard_range(shard, len(pictures), args.batch_size)
    with bar(stop - first, "picture", "strongest pictures") as moving:
        found = top.top_activations(network, pictures, mean, layers, args.k, args.batch_size, shard, file, bar=moving)
    print(file)
    if shard != (1, 1):
        return
    with bar(args.k*sum(map(len, units.values())), "projection", "projections") as moving:
        for layer in layers:
            for number, at in enumerate(range(0, len(units[layer]), PAGE), 1):
                of_page = units[layer][at:at + PAGE]
                views = replace(top.unit_views(network, pictures, mean, found, layer, of_page, bar=moving),
                                classes=classes_of(network, checkpoint, layer, of_page))
                page = folder/(f"{layer}.h5" if len(units[layer]) <= PAGE else f"{layer}_{number:02}.h5")
                results.save(page, views)
                draw_views(views, figure_of(page, args))
                if args.folders:
                    write_folders(views, folder)


def parse_shard(text):
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        raise check.Expected("--shard", "I/N, e.g. 2/5", repr(text)) from None
    return i, n


def draw_views(views, path):
    if not (views.pictures >= 0).any():
        path.unlink(missing_ok=True)                         # one of an earlier network would contradict what is said
        return print(f"{views.layer}: none of the {len(views.units)} units fires on any picture, so there is no figure")
    plots.unit_blocks(views, path)
    print(path)


def write_folders(views, folder):
    """LAYER/unit_0000/{projection,patch}_000.png, strongest first, and info.json."""
    for u, unit in enumerate(views.units.tolist()):
        filled = int((views.pictures[u] >= 0).sum())
        of_unit = folder/views.layer/f"unit_{unit:04}"
        of_unit.mkdir(parents=True, exist_ok=True)
        files = {kind: [f"{kind}_{rank:03}.png" for rank in range(filled)] for kind in ("projection", "patch")}
        plots.tiles(plots.signed_tiles(views.projections[u]), [of_unit/name for name in files["projection"]])
        plots.tiles(views.patches[u], [of_unit/name for name in files["patch"]])
        strongest = [{"picture": int(views.pictures[u, rank]), "name": str(views.names[u, rank]),
                      "activation": float(views.values[u, rank]), "row_column": views.places[u, rank].tolist(),
                      "box_top_left_bottom_right": views.boxes[u, rank].tolist(),
                      "projection": files["projection"][rank], "patch": files["patch"][rank]} for rank in range(filled)]
        with atomic(of_unit/"info.json") as temporary:
            temporary.write_text(json.dumps({"layer": views.layer, "unit": unit, "strongest": strongest}, indent=1))


# ------------------------------------------------------------------------------------------------------ occlusion
@analysis(
    "occlusion", "figure 7: what of a picture the network relies on, told by a grey square that hides it",
    option("--images", nargs="+", metavar="FILE", help="pictures to look at"),
    option("--pictures", metavar="NUMBERS", help="or pictures of the data: all, random:N, FIRST:LAST+1 or 3,5,7; of the "
                                                 "synthetic set the objects' boxes are known too"),
    option("--label", nargs="+", metavar="NAME", help="class whose probability is followed, one or one for each picture "
                                                      "(default: the data's; for files what the network takes them for)"),
    option("--layer", help="the layer whose strongest map is followed (default: the last convolution)"),
    option("--criterion", choices=tuple(occluding.CRITERIA), default="sum", help="what makes a map the strongest"),
    option("--square", type=int, help="side of the square in pixels (default: 50 of 224)"),
    option("--stride", type=int, help="pixels by which it moves (default: 6 of 224)"),
    option("--grey", type=int, default=top.MID_GREY, help="its pixel value, 0 to 255, before the mean is subtracted"),
    option("--others", nargs="*", metavar="FILE", help="pictures among which up to three that excite the map most are shown "
                                                       "beside (default: the data, in one pass that is kept; none given: none)"),
    option("--whole", action="store_true", help="compute every layer as a whole at every place, to compare"))
def occlusion(args):
    if args.redraw:
        return [draw_occlusion(results.load(file, occluding.Occlusion), figure_of(file, args)) for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    pictures, numbers = asked_for(args, network, checkpoint)
    labels = labels_of(args, pictures.dataset, numbers, checkpoint.classes)
    square = occluding.check_square(network, args.layer, args.square, args.stride, args.grey)
    shown = prepared(pictures, numbers)
    folder = output_folder(args, "occlusion")
    views_of_others = strongest_others(args, network, checkpoint, mean, square.layer, folder)

    parts = []
    with bar(square.places*len(numbers), "place", "occlusion") as moving:
        for number, at in enumerate(range(0, len(numbers), ROWS), 1):
            page = slice(at, at + ROWS)
            found = occluding.occlusion(network, shown[page], mean, None if labels is None else labels[page], *square[:4],
                                        args.criterion, args.batch_size, not args.whole, moving)
            parts.append(replace(found, names=np.array([pictures.dataset.names[i] for i in numbers[page]]),
                                 classes=np.array(checkpoint.classes),
                                 boxes=true_boxes(pictures, numbers[page], network.input_shape[1]),
                                 others=views_of_others(found.units, numbers[page])))
            file = folder/("occlusion.h5" if len(numbers) <= ROWS else f"occlusion_{number:02}.h5")
            results.save(file, parts[-1])
            draw_occlusion(parts[-1], figure_of(file, args))
    print(what_occlusion_found(parts))


def strongest_others(args, network, checkpoint, mean, layer, folder):
    """A function of (units of `layer`, numbers of the pictures they were followed in) that gives for each unit the views
    (n,m,f,f,3) of the pictures of --others, or of the data, that excite it most, its own picture left out; None for none."""
    if args.others == []:
        return lambda units, own: None
    if args.others is None:
        pictures, file = open_pictures(args, network, checkpoint), folder/f"strongest_{layer}.h5"
    else:
        pictures, file = open_files(args.others, args, network, checkpoint), None
        prepared(pictures, range(len(pictures)))
    same_set, count = args.others is None and args.pictures is not None, min(OTHERS, len(pictures))
    with bar(len(pictures), "picture", "strongest pictures") as moving:
        found = top.top_activations(network, pictures, mean, [layer], OTHERS + 1, args.batch_size, file=file, bar=moving)

    def views(units, own):
        all_views = top.unit_views(network, pictures, mean, found, layer, units)
        other = [np.flatnonzero(of_unit != i)[:count] if same_set else np.arange(count)
                 for of_unit, i in zip(all_views.pictures, own)]
        return np.take_along_axis(all_views.projections, np.array(other)[..., None, None, None], axis=1)
    return views


def true_boxes(pictures, numbers, side):
    """(n,4) top, left, bottom, right of the objects in the centre crop of `side` pixels; None where the data do not tell."""
    if not hasattr(pictures.dataset, "truth"):
        return None
    boxes = np.array([pictures.dataset.truth(i).box for i in numbers])[:, [1, 0, 3, 2]]
    return (boxes - (pictures.size - side)//2).clip(0, side)


def draw_occlusion(found, path):
    plots.occlusion(found, path)
    print(path)


def what_occlusion_found(parts):
    """One sentence about all pictures; numbers are means over them."""
    clean, lowest, lost, follows = (np.concatenate(each) for each in zip(*(
        (part.clean_probabilities, part.probabilities.min(axis=(1, 2)),
         (part.most_probable != part.clean_classes[:, None, None]).mean(axis=(1, 2)),
         occluding.correlation_with_projection(part)) for part in parts)))
    who = parts[0].names[0] if len(clean) == 1 else f"over {len(clean)} pictures"
    said = (f"{who}: the square takes P of the class from {clean.mean():.2f} to {lowest.mean():.2f} at its worst place, and "
            f"another class wins at {100*lost.mean():.0f} % of the places")
    if parts[0].boxes is not None:
        inside, area = np.concatenate([occluding.fall_inside_box(part) for part in parts], axis=1)
        if not np.isnan(inside).all():
            said += (f"; {100*np.nanmean(inside):.0f} % of the fall lies inside the object's box, which is "
                     f"{100*np.nanmean(area):.0f} % of the picture")
            if len(inside) > 1:
                said += f" ({100*np.nanmean(occluding.fall_inside_other_boxes(parts)):.0f} % inside the boxes of the other pictures)"
    if not np.isnan(follows).all():
        said += (f"; how far the strongest {parts[0].layer} map falls follows its projection with a correlation of "
                 f"{np.nanmean(follows):.2f}")
    return said


# ----------------------------------------------------------------------------------------------------- invariance
@analysis(
    "invariance", "figure 5: how far shifting, enlarging and turning a picture takes the network from it",
    option("--images", nargs="+", metavar="FILE", help="pictures to look at"),
    option("--pictures", metavar="NUMBERS", help="or pictures of the data: all, random:N, FIRST:LAST+1 or 3,5,7"),
    option("--label", nargs="+", metavar="NAME", help="class whose probability is followed, one or one for each picture "
                                                      "(default: the data's; for files what the network takes them for)"),
    option("--layers", nargs="+", help="where to measure; conv1 is after its ReLU, norm1 the end of the layer (default: the first "
                                       "convolution and the last hidden layer)"),
    option("--against", metavar="RUN", help="a second network, to compare the numbers with; untrained: this one before its first "
                                            "step"))
def invariance(args):
    if args.redraw:
        return [draw_invariance(results.load(file, moved.Invariance), figure_of(file, args)) for file in args.redraw]
    ready = {"invariance": (args, *open_run(args))}
    if args.against:
        of = argparse.Namespace(**{**vars(args), "run": args.against})
        ready["against"] = of, *(untrained(args, *ready["invariance"][2:]) if args.against == "untrained" else open_run(of))
    ready = {name: (*rest, *moving_pictures(*rest)) for name, rest in ready.items()}
    folder = output_folder(args, "invariance")
    for name, (of, network, checkpoint, mean, pictures, labels, names) in ready.items():
        series = moved.paper_series(mean.shape[1], network.input_shape[1])
        with bar(len(pictures)*sum(len(one.steps) for one in series.values()), "step", name) as moving:
            found = moved.invariance(network, pictures, mean, labels, args.layers, series, args.batch_size, moving)
        found = replace(found, names=np.array(names), classes=np.array(checkpoint.classes, dtype=str))
        results.save(folder/f"{name}.h5", found)
        draw_invariance(found, figure_of(folder/f"{name}.h5", args))
        print(f"{of.run}: {what_invariance_found(found)}" if args.against else what_invariance_found(found))


def untrained(args, checkpoint, mean):
    """(network, checkpoint, mean) as `open_run` gives them, of --run as its training began."""
    start = start_of(checkpoint, select(args.device), args.precision)
    if start is None:
        raise check.Expected("--against untrained", "a run that says how its weights were drawn", args.run)
    return start, checkpoint, mean


def moving_pictures(args, network, checkpoint, mean):
    """(pictures in all their pixels, labels or None, names). The synthetic ones are drawn larger than the network wants them, so
    that there is something to see when they are enlarged."""
    pictures, numbers = asked_for(args, network, checkpoint)
    dataset = pictures.dataset
    labels = labels_of(args, dataset, numbers, checkpoint.classes)
    if isinstance(dataset, Synthetic):
        dataset = Synthetic(dataset.split, len(dataset), moved.LARGEST_ZOOM*dataset.size, dataset.seed, dataset.drawings)
    return originals(dataset, numbers, network.input_shape[1], args.upscale), labels, [dataset.names[i] for i in numbers]


def originals(dataset, numbers, crop, upscale):
    """[uint8 (h,w,3)] of these pictures, neither scaled nor cropped."""
    found = []
    for i in numbers:
        try:
            picture = dataset.picture(i)
        except Damaged as error:
            raise check.Expected("picture", "a file that holds one", error) from None
        check_large_enough(picture, crop, upscale, dataset.names[i])
        found.append(np.asarray(picture))
    return found


def draw_invariance(found, path):
    """The figure and beside it a CSV: figure 5, and a row of numbers for each picture and series."""
    plots.invariance(found, path)
    table = moved.numbers(found)
    columns = list(next(iter(table.values())))
    rows = [[name, series, *(f"{of[column][i]:.6g}" for column in columns)]
            for i, name in enumerate(found.names.tolist()) for series, of in table.items()]
    write_csv(path.with_suffix(".csv"), ["picture", "series", *columns], rows)
    print(path)


def write_csv(path, columns, rows):
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def what_invariance_found(found):
    table = {series: {what: values.mean() for what, values in of.items()} for series, of in moved.numbers(found).items()}
    words = {"translation": "enlarged and shifted", "scale": "enlarged", "rotation": "turned"}
    kept = "; ".join(f"{words[series]}: the same class at {100*of['consistency']:.0f} % of the steps, P(true) {of['P(mean)']:.2f} on "
                     f"average against {of['P(clean)']:.2f}" for series, of in table.items())
    rises = {layer: table["translation"][f"{layer} early rise"] for layer in found.layers}
    early = " and ".join(f"{100*rise:.0f} % of its distance at {layer}" for layer, rise in rises.items())
    return f"{kept}. After an eighth of the largest shift a picture has gone {early} (in a straight line: 12 %)"


# ------------------------------------------------------------------------------------------------- correspondence
@analysis(
    "correspondence", "figure 8 and table 1: whether hiding the same part of different objects changes the features alike",
    option("--run", action="append", help="a run's folder (its best.h5) or a checkpoint file; given several times, the table "
                                          "says in how many networks a part is found"),
    option("--seeds", type=int, default=1, metavar="N", help="draw the controls N times, with seeds from --seed on"),
    option("--images", nargs="+", metavar="FILE", help="pictures to look at, and where their parts are:"),
    option("--landmarks", metavar="FILE.json", help='{"picture.jpg": {"nose": [x, y], ...}, ...}, in pixels of each picture'),
    option("--synthetic", type=int, metavar="N", help="or N pictures of the synthetic set whose parts are all to be seen"),
    option("--label", metavar="NAME", default="dog face", help="the class of --synthetic"),
    option("--parts", nargs="+", metavar="NAME", help="parts to mask (default: those that all pictures have; of the synthetic set "
                                                      "the eyes and the nose)"),
    option("--layers", nargs="+", help="default: the last convolution and the last hidden layer"),
    option("--random", type=int, default=20, metavar="N", help="random squares a picture"),
    option("--permutations", type=int, default=9999, help="of the test against the random squares"),
    option("--square", type=int, help="side of the square in pixels (default: 29/101 of the input)"),
    option("--grey", type=int, default=top.MID_GREY, help="its pixel value, 0 to 255, before the mean is subtracted"))
def correspondence(args):
    if args.redraw:
        found = [results.load(file, alike.Correspondence) for file in args.redraw]
        return draw_correspondence(found, figure_of(Path(args.redraw[0]).with_name("correspondence.h5"), args))
    if (args.synthetic is None) == (args.landmarks is None):
        raise check.Expected("pictures", "either --images FILES --landmarks FILE.json or --synthetic N",
                             "neither" if args.landmarks is None else "both")
    check.positive("--seeds", args.seeds)
    runs = args.run or [None]
    opened = [masked_by(argparse.Namespace(**{**vars(args), "run": run})) for run in runs]
    folder = output_folder(argparse.Namespace(**{**vars(args), "run": runs[0]}), "correspondence")
    found = []
    for network, mean, shown, places, parts, names in opened:
        for seed in range(args.seed, args.seed + args.seeds):
            with bar(alike.length(len(shown), len(parts), args.random), "picture", "masked pictures") as moving:
                found.append(alike.correspondence(network, shown, mean, places, parts, args.layers, args.random,
                                                  args.permutations, args.grey, args.square, seed, args.batch_size, names, moving))
    for number, one in enumerate(found, 1):
        results.save(folder/("correspondence.h5" if len(found) == 1 else f"correspondence_{number}.h5"), one)
    draw_correspondence(found, figure_of(folder/"correspondence.h5", args))


def masked_by(args):
    """(network, mean, centre crops, places of the parts in them, names of the parts, names of the pictures) of one --run."""
    network, checkpoint, mean = open_run(args)
    gather = landmarked_files if args.synthetic is None else synthetic_faces
    pictures, numbers, places, parts = gather(args, network, checkpoint)
    crop = network.input_shape[1]
    margin = (pictures.size - crop)//2
    shown = prepared(pictures, numbers)[:, margin:margin + crop, margin:margin + crop]
    return network, mean, shown, places, parts, [pictures.dataset.names[i] for i in numbers]


def landmarked_files(args, network, checkpoint):
    """(Pictures, their numbers, (n,P,2) places of the parts in the centre crop, names of the P parts) of --images, --landmarks."""
    marks = alike.read_landmarks(args.landmarks)
    if not args.images:
        raise check.Expected("--images", "the pictures of --landmarks", "none")
    pictures = open_files(args.images, args, network, checkpoint)
    for name in args.images:
        if Path(name).name not in marks:
            raise check.Expected("--landmarks", f"the parts of {Path(name).name}", f"those of {', '.join(list(marks)[:5])}")
    of_pictures = {name: marks[Path(name).name] for name in args.images}
    if len(of_pictures) < max(2, len(args.images)):
        raise check.Expected("--images", "two different pictures or more, to compare",
                             f"{len(of_pictures)} among {len(args.images)}")
    parts = args.parts or alike.common_parts(of_pictures)
    places = np.empty((len(of_pictures), len(parts), 2))
    for i, (name, marked) in enumerate(of_pictures.items()):
        width, height = originals(pictures.dataset, [i], network.input_shape[1], args.upscale)[0].shape[1::-1]
        for k, part in enumerate(parts):
            check.one_of(f"parts of {name}", part, list(marked))
            x, y = marked[part]
            if not (0 <= x < width and 0 <= y < height):
                raise check.Expected(f"{part} in {name}", f"a place inside its {width}x{height} pixels", f"{x:g}, {y:g}")
            places[i, k] = alike.in_crop((x, y), width, height, pictures.size, network.input_shape[1])
    return pictures, np.arange(len(args.images)), places, parts


def synthetic_faces(args, network, checkpoint):
    """As `landmarked_files`, of the first pictures of --label in the synthetic set, or the drawn one that --data names, that
    show all parts."""
    args = argparse.Namespace(**{**vars(args), "data": args.data if is_drawn(args.data or "") else ""})
    pictures, parts, crop = open_pictures(args, network, checkpoint), args.parts or list(alike.PARTS), network.input_shape[1]
    dataset, numbers, places = pictures.dataset, [], []
    label = class_numbers([args.label], dataset.classes, 1)[0]
    if args.synthetic < 2:
        raise check.Expected("--synthetic", "two pictures or more, to compare", args.synthetic)
    for i in np.flatnonzero(dataset.labels == label):
        truth = dataset.truth(i)
        for part in parts:
            check.one_of(f"parts of a {args.label}", part, list(truth.parts))
        at = alike.in_crop([truth.parts[part] for part in parts], dataset.size, dataset.size, dataset.size, crop)
        if all(truth.visible[part] for part in parts) and ((at >= 0) & (at < crop)).all():
            numbers.append(i)
            places.append(at)
        if len(numbers) == args.synthetic:
            return pictures, np.array(numbers), np.array(places), parts
    raise check.Expected("--synthetic", f"at most {len(numbers)}, the pictures of a {args.label} that show all parts",
                         args.synthetic)


def draw_correspondence(found, path):
    """The figure, and beside it Markdown and CSV, of Correspondences of the same parts and layers: figure 8, table 1 as it is
    printed and as numbers."""
    check_comparable(found)
    plots.correspondence(found, path)
    layers, many = found[0].layers.tolist(), len(found) > 1
    tested = (f"{kind} {of}" for of in TESTED for kind in ("p", "corrected p"))
    write_csv(path.with_suffix(".csv"), ["number", "masked", "layer", "mean", "spread", *tested],
              [row for number, one in enumerate(found, 1) for row in table_rows(number, one)])
    table = [["masked", *layers], ["---"]*(1 + len(layers))]
    for of in zip(*(one.rows() for one in found)):
        values = np.array([row for _, row in of])                                             # (number, layer, mean and spread)
        mean, spread = values[..., 0].mean(axis=0), values[..., 0].std(axis=0, ddof=1) if many else values[0, :, 1]
        table.append([of[0][0], *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread))])
    text = "\n".join(f"| {' | '.join(row)} |" for row in table)
    over = (f"mean and standard deviation over {len(found)} repetitions (networks times seeds)" if many else
            "± standard deviation over the pairs")
    text += (f"\n\nMean sign change per feature and pair of {len(found[0].pictures)} pictures, {over}; low: alike in all. "
             f"\"of another picture\": the square lies where the part is in another picture.\n\n{what_was_tested(found)}\n")
    with atomic(path.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(path.with_suffix(".md"), path, text[text.index("Mean"):].strip(), sep="\n")


TESTED = "lower than random", "lower than of another picture"


def check_comparable(found):
    for one in found[1:]:
        for what in ("parts", "layers"):
            if (theirs := getattr(one, what).tolist()) != (first := getattr(found[0], what).tolist()):
                raise check.Expected(what, f"the same in all networks, {', '.join(first)}", ", ".join(theirs))


def table_rows(number, found):
    """The rows of one Correspondence in the csv; what is not a part has no p."""
    p = {part: np.stack([found.p_values[:, k], found.corrected[:, k]], axis=2) for k, part in enumerate(found.parts.tolist())}
    return [[number, what, layer, f"{mean:.6g}", f"{spread:.6g}",
             *(f"{value:.6g}" for value in p[what][k].ravel())] if what in p else
            [number, what, layer, f"{mean:.6g}", f"{spread:.6g}", *[""]*4]
            for what, of in found.rows() for k, (layer, (mean, spread)) in enumerate(zip(found.layers.tolist(), of))]


def what_was_tested(found, level=0.05):
    """A table of the corrected p, and of each layer which parts are found: lower than both controls, after correction."""
    p = np.array([one.corrected for one in found])                                            # (number, layer, part, test)
    layers, parts = found[0].layers.tolist(), found[0].parts.tolist()
    agree = (p < level).sum(axis=0)
    cell = lambda k, j, t: (f"{p[0, k, j, t]:.2g}" if len(found) == 1 else
                            f"{agree[k, j, t]} of {len(found)} (median {np.median(p[:, k, j, t]):.2g})")
    table = [["corrected p" if len(found) == 1 else f"corrected p below {level:g}",
              *(f"{layer}, {of}" for layer in layers for of in TESTED)]]
    table += [["---"]*len(table[0])]
    table += [[part, *(cell(k, j, t) for k in range(len(layers)) for t in range(2))] for j, part in enumerate(parts)]
    said = []
    for k, layer in enumerate(layers):
        both = (p[:, k] < level).all(axis=2).sum(axis=0)
        told = [part if len(found) == 1 else f"{part} in {both[j]} of {len(found)}" for j, part in enumerate(parts) if both[j]]
        said.append(f"{layer}: " + (f"hiding {', '.join(told)} changes the signs more alike than both hiding random places and "
                                    "hiding the place of another picture's part" if told else
                                    "no part changes the signs more alike than both controls"))
    tests = p[0].size
    return ("\n".join(f"| {' | '.join(row)} |" for row in table) +
            f"\n\np corrected for {tests} tests (Holm; {found[0].permutations} permutations each; the least possible is "
            f"{tests/(1 + found[0].permutations):.2g}), a part being found below {level:g}. {'; '.join(said)}.")


# ------------------------------------------------------------------------------------------------------ evolution
LIMIT = option("--limit-per-class", type=int, default=0, help="look at only so many pictures of each class, 0 for all")


@analysis(
    "evolution", "figure 4: how the strongest projection of a unit comes about over a run's kept epochs",
    option("--part", choices=("train", "val"), default="train", help="the part of the data to look at (the paper: train)"),
    option("--epochs", type=int, nargs="+", metavar="N", help="some of the kept epochs (default: all)"),
    option("--layers", nargs="+", help="e.g. conv1 conv5 fc8 (default: all convolutions)"),
    option("--units", default="random:6", help="all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of each layer"), LIMIT)
def evolution(args):
    if args.redraw:
        return [draw_evolution(results.load(file, growing.Evolution), figure_of(file, args)) for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    files = growing.kept_epochs(args.run, args.epochs)
    layers = args.layers or [layer.name for layer in network.convolutions]
    units = {layer: chosen_units(args.units, network, layer, args.seed) for layer in layers}
    pictures = open_pictures(args, network, checkpoint)
    folder = output_folder(args, "evolution")
    device = select(args.device)
    with bar(growing.length(network, pictures, layers, len(files)), "picture", f"{len(files)} epochs") as moving:
        found = growing.evolution(list(files), lambda epoch: from_checkpoint(files[epoch], device, args.precision)[0], pictures, mean, layers,
                                  units, args.batch_size, lambda epoch: folder/f"strongest_{epoch:04}.h5", moving)
    named = {layer: classes_of(network, checkpoint, layer, units[layer]) for layer in layers}
    found = replace(found, classes={layer: names for layer, names in named.items() if names is not None})
    results.save(folder/"evolution.h5", found)
    draw_evolution(found, figure_of(folder/"evolution.h5", args))


def draw_evolution(found, path):
    plots.evolution(found, path)
    steps = list(zip(found.epochs.tolist(), found.epochs.tolist()[1:]))
    for k, (a, b) in enumerate(steps):
        print(f"epoch {a} to {b}: " + ", ".join(f"{layer} {found.change[layer][k]:.2f} ({100*found.moved[layer][k]:.0f} %)"
                                                for layer in found.units))
    if steps:
        print("change of the projections, 1 - cosine; in brackets: units whose strongest picture is another one")
    if found.unrelated:
        print("as far from each other as units that have nothing to do with each other would be: "
              + ", ".join(f"{layer} {distance[0]:.2f}" for layer, distance in found.unrelated.items()))
    print(path)


# ---------------------------------------------------------------------------------------------------- diagnostics
@analysis(
    "diagnostics", "figure 6: what is wrong with the first layers, of one run or of two side by side",
    option("--run", action="append", help="a run's folder (its best.h5) or a checkpoint file; given twice, two are compared"),
    option("--units", default="random:15", help="all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of layer 2, to be shown"),
    option("--k", type=int, default=9, help="pictures kept for each unit"), LIMIT)
def diagnostics(args):
    if args.redraw:
        found = [results.load(file, measured.Diagnosis) for file in args.redraw]
        return draw_diagnostics(found, figure_of(Path(args.redraw[0]).with_name("diagnostics.h5"), args))
    opened, runs = [], args.run or [None]
    if len(runs) > 2:
        raise check.Expected("--run", "one run, or two to compare", len(runs))
    for run in runs:
        of_run = argparse.Namespace(**{**vars(args), "run": run})
        network, checkpoint, mean = open_run(of_run)
        units = chosen_units(args.units, network, measured.first_two(network)[1], args.seed)
        start = start_of(checkpoint, select(args.device), args.precision)
        opened.append((checkpoint, network, open_pictures(of_run, network, checkpoint), mean, units, start))
    folder = output_folder(argparse.Namespace(**{**vars(args), "run": runs[0]}), "diagnostics")
    found, names = [], names_of(runs, [checkpoint for checkpoint, *_ in opened])
    for number, (name, (_, network, pictures, mean, units, start)) in enumerate(zip(names, opened), 1):
        ending = "" if len(opened) == 1 else f"_{number}"
        with bar(measured.length(network, pictures, args.k), "picture", name) as moving:
            found.append(measured.diagnose(name, network, pictures, mean, units, start, args.k, args.batch_size,
                                           folder/f"strongest{ending}.h5", moving))
        results.save(folder/f"diagnostics{ending}.h5", found[-1])
    draw_diagnostics(found, figure_of(folder/"diagnostics.h5", args))


def draw_diagnostics(found, path):
    plots.diagnostics(found, path)
    for one in found:
        bands = ", ".join(f"{band} {100*share:.0f} %" for band, share in one.bands().items())
        dead = ", ".join(f"{layer} {of.sum()} of {len(of)}" for layer, of in one.dead.items())
        alias = (f"{one.aliasing:.3f} of the energy of {one.layer}'s projections stands out at the frequencies of the grid of "
                 f"{one.stride} pixels" if np.isfinite(one.aliasing) else f"aliasing of {one.layer} cannot be measured")
        print(f"{one.name}: filter RMS max/median {one.dominance:.2f}; energy of layer 1 {bands}; never fire on {one.total} "
              f"pictures: {dead}; {alias}")
        print(what_is_legible(one))
    print(path)


def what_is_legible(one):
    """Of a Diagnosis, a line a layer: what is left of the start, what its projections have in the object's box and parts."""
    shares = lambda values: " ".join("  - " if np.isnan(value) else f"{100*value:3.0f}" for value in values)
    lines = [f"{'layer':8}{'start':>7}   in the box: " + ", ".join(measured.JUDGED) + ", of the area | in its parts: the same"] * bool(one.legible)
    for layer in dict.fromkeys([*one.start, *one.legible]):
        start = f"{100*one.start[layer][0]:5.1f} %" if layer in one.start else "       "
        if layer in one.legible:
            of, areas = one.legible[layer], one.areas[layer]
            start += "   " + " | ".join(f"{shares(of[:, k])} of {100*areas[k]:.0f} %" for k in range(2))
        lines.append(f"{layer:8}{start}")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------- controls
@analysis(
    "controls", "whether projections depend on what was learned, on the unit, and on the picture",
    option("--layers", nargs="+", help="layers above a pool (default: the last convolution and the last layer)"),
    option("--units", default="random:8", help="all, random:N, FIRST:LAST+1 or numbers like 3,5,7; of each layer"),
    option("--k", type=int, default=3, help="pictures of each unit, the strongest"), LIMIT)
def controls(args):
    if args.redraw:
        return [draw_controls(results.load(file, controlled.Controls), figure_of(file, args)) for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    layers = args.layers or [controlled.last_convolution(network), network.layers[-1].name]
    units = {layer: chosen_units(args.units, network, layer, args.seed) for layer in layers}
    start = start_of(checkpoint, select(args.device), args.precision)
    for layer in layers:
        controlled.check_possible(network, layer)
    pictures = open_pictures(args, network, checkpoint)
    folder = output_folder(args, "controls")
    with bar(len(pictures), "picture", "strongest pictures") as moving:
        found = top.top_activations(network, pictures, mean, layers, args.k, args.batch_size,
                                    file=folder/"strongest.h5", bar=moving)
    for layer in layers:
        with bar(controlled.length(network, layer, args.k*len(units[layer]), start), "projection", layer) as moving:
            made = controlled.controls(network, pictures, mean, found, layer, units[layer], start, args.seed, bar=moving)
        made = replace(made, classes=classes_of(network, checkpoint, layer, made.units))
        results.save(folder/f"{layer}.h5", made)
        draw_controls(made, figure_of(folder/f"{layer}.h5", args))


def draw_controls(found, path):
    plots.controls(found, path)
    for j, condition in enumerate(found.conditions.tolist()):
        said = f"{found.layer}, {condition}: cosine {found.cosine[:, j].mean():.2f}, rank {found.rank[:, j].mean():.2f}"
        if found.inside is not None:
            said += (f", {100*np.nanmean(found.inside[:, j]):.0f} % of the energy in the object's box, which is "
                     f"{100*found.area.mean():.0f} % of the field")
        if found.in_parts is not None and np.isfinite(found.in_parts[:, j]).any():
            said += (f", {100*np.nanmean(found.in_parts[:, j]):.0f} % of that in its parts, which are "
                     f"{100*np.nanmean(found.parts_area):.0f} % of the box")
        print(said)
    print(path)


# ------------------------------------------------------------------------------------------------- the command line
@check.speak_and_exit
def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m zfcore", description="Look into a trained network.")
    names = parser.add_subparsers(dest="analysis", metavar="ANALYSIS", required=True)
    for name, (_, help, options) in ANALYSES.items():
        one = names.add_parser(name, help=help, description=help, conflict_handler="resolve")      # its own options win
        for flags, keywords in [*SHARED, *options]:
            one.add_argument(*flags, **keywords)
    args = parser.parse_args(arguments)
    try:
        ANALYSES[args.analysis][0](args)
    except KeyboardInterrupt:
        print("\nstopped; what is on the disk is whole, and the same command goes on with a pass over pictures", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
