"""python -m zfcore ANALYSIS --run RUN ...: parse, call one analysis, save its arrays (HDF5) and its figure (PNG) beside them.

An analysis is a function here with the decorator `analysis`: its name on the command line, its help, its own options.
All share --run, --data, --output and the like; all can draw their figures again from saved arrays (--redraw)."""
import argparse
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zfcore import check, plots, results
from zfcore.analysis import top_activations as top
from zfcore.backend import select
from zfcore.checkpoint import atomic
from zfcore.data import open_data
from zfcore.data.loader import Pictures, shuffled
from zfcore.deconvnet import check_units, unit_count
from zfcore.layers import Conv
from zfcore.models import from_checkpoint

ANALYSES = {}                     # name: (function of the parsed arguments, help, options)
PAGE = 64                         # units of a layer that share a file and a sheet


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
    kind, _, number = text.partition(":")
    try:
        if text == "all":
            return np.arange(count)
        if kind == "random":
            check.positive("--units", int(number))
            return np.sort(shuffled(count, seed, zlib.crc32(layer.encode()))[:int(number)])
        if ":" in text:
            units = np.arange(int(kind or 0), int(number or count))
        else:
            units = np.array([int(word) for word in text.split(",")])
        check.positive("--units", len(units))
    except ValueError:
        raise check.Expected("--units", "all, random:N, FIRST:LAST+1 or numbers like 3,5,7", repr(text),
                             f"{layer} has the units 0 to {count - 1}") from None
    return check_units(network, layer, units)


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
