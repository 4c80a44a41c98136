"""python -m zfcore ANALYSIS --run RUN ...: parse, call one analysis, save its arrays (HDF5) and its figure (PNG) beside them.

An analysis is a function here with the decorator `analysis`: its name on the command line, its help, its own options.
All share --run, --data, --output and the like; all can draw their figures again from saved arrays (--redraw)."""
import argparse
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
from zfcore.analysis import occlusion as occluding
from zfcore.analysis import top_activations as top
from zfcore.backend import select
from zfcore.checkpoint import atomic
from zfcore.data import open_data
from zfcore.data.loader import Pictures, shuffled
from zfcore.data.transforms import Damaged, decode
from zfcore.deconvnet import check_units, unit_count
from zfcore.layers import Conv
from zfcore.models import from_checkpoint

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
    option("--run", help="a run's folder (its best.h5) or a checkpoint file"),
    option("--data", help="class folders or a tar (default: what the run was trained on)"),
    option("--part", choices=("train", "val"), default="val", help="the part of the data to look at (the paper: val)"),
    option("--output", help="folder for arrays and figures (default: RUN/figures/ANALYSIS)"),
    option("--redraw", metavar="FILE", nargs="+", help="draw the figure again from saved arrays; needs no network"),
    option("--seed", type=int, default=0, help="draws what is random"),
    option("--batch-size", type=int, default=64),
    option("--device", default="auto", help="auto, cpu or gpu"),
    option("--workers", type=int, default=2, help="threads that decode pictures"),
    option("--upscale", action="store_true", help="enlarge pictures smaller than the network's input"),
]


def open_run(args):
    """(network, checkpoint, mean image on the device) of --run."""
    if args.run is None:
        raise check.Expected("--run", "a run's folder or a checkpoint file", "none")
    check.positive("--batch-size", args.batch_size)
    device = select(args.device)
    network, checkpoint = from_checkpoint(args.run, device)
    if checkpoint.mean_image is None:
        raise check.Expected(args.run, "a checkpoint with a mean image", "one without")
    return network, checkpoint, device.array(checkpoint.mean_image)


def open_pictures(args, network, checkpoint):
    """The `Pictures` of --data and --part, prepared as the run's own were."""
    size = checkpoint.mean_image.shape[1]
    parts = open_data(args.data if args.data is not None else checkpoint.state.get("data", ""), size)
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


def class_numbers(names, classes, count):
    """int64 (count,) of one name for all pictures or one for each; None where no name is given."""
    if names is None:
        return None
    for name in names:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=3, cutoff=0.5) or classes[:10]
            raise check.Expected("--label", f"one of the {len(classes)} classes, e.g. {', '.join(close)}", repr(name))
    if len(names) not in (1, count):
        raise check.Expected("--label", f"one name, or one for each of {count} pictures", f"{len(names)} names")
    return np.array([classes.index(name) for name in names]*(count//len(names)))


def output_folder(args, name):
    """--output, or RUN/figures/NAME: made, and found to take files, before anything is computed."""
    run = Path(args.run)
    folder = Path(args.output) if args.output else (run if run.is_dir() else run.parent)/"figures"/name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise check.Expected("--output", "a folder that can be written", f"{folder} ({error.strerror})") from None
    return folder


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
        return [draw_views(results.load(file, top.UnitViews), Path(file).with_suffix(".png")) for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    layers = args.layers or [layer.name for layer in network.layers if isinstance(layer, Conv)]
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
                views = top.unit_views(network, pictures, mean, found, layer, units[layer][at:at + PAGE], bar=moving)
                page = folder/(f"{layer}.h5" if len(units[layer]) <= PAGE else f"{layer}_{number:02}.h5")
                results.save(page, views)
                draw_views(views, page.with_suffix(".png"))
                if args.folders:
                    write_folders(views, folder)


def parse_shard(text):
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        raise check.Expected("--shard", "I/N, e.g. 2/5", repr(text)) from None
    return i, n


def draw_views(views, path):
    labels = [f"{views.layer} unit {unit}" + ("" if pictures[0] >= 0 else ": never fires")
              for unit, pictures in zip(views.units, views.pictures)]
    plots.unit_blocks(views.projections, views.patches, labels, path)
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
        return [draw_occlusion(results.load(file, occluding.Occlusion), Path(file).with_suffix(".png"))
                for file in args.redraw]
    network, checkpoint, mean = open_run(args)
    pictures, numbers = asked_for(args, network, checkpoint)
    labels = class_numbers(args.label, checkpoint.classes, len(numbers))
    if labels is None and args.pictures is not None:
        labels = pictures.dataset.labels[numbers]
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
            parts.append(replace(found, names=np.array(pictures.dataset.names)[numbers[page]], classes=np.array(checkpoint.classes),
                                 boxes=true_boxes(pictures, numbers[page], network.input_shape[1]),
                                 others=views_of_others(found.units, numbers[page])))
            file = folder/("occlusion.h5" if len(numbers) <= ROWS else f"occlusion_{number:02}.h5")
            results.save(file, parts[-1])
            draw_occlusion(parts[-1], file.with_suffix(".png"))
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
    if not np.isnan(follows).all():
        said += f"; how far the strongest {parts[0].layer} map falls follows its projection with a correlation of {np.nanmean(follows):.2f}"
    return said


# ------------------------------------------------------------------------------------------------- the command line
@check.speak_and_exit
def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m zfcore", description="Look into a trained network.")
    names = parser.add_subparsers(dest="analysis", metavar="ANALYSIS", required=True)
    for name, (_, help, options) in ANALYSES.items():
        one = names.add_parser(name, help=help, description=help)
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
