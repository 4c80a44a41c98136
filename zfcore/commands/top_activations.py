"""Floor 7: figure 2."""
import json
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

from zfcore import check, crew, plots, results
from zfcore.analysis import top_activations as top
from zfcore.checkpoint import atomic
from zfcore.commands.common import (K, LAYERS, UNITS, chosen_layers, chosen_units, classes_of, open_model, open_pictures, option,
                                    output_folder)
from zfcore.files import file_names, inside
from zfcore.terminal import Bar, plural, printable, say

HELP = "figure 2: the pictures that excite each unit most, and their projections"
OPTIONS = [
    LAYERS,
    option("--units", default="random:16", help=UNITS),
    option("--k", type=K, help="pictures kept for each unit (default: 9, or all of fewer)"),
    option("--shard", default="1/1", metavar="I/N", help="look at the I-th of N parts of the data only, and draw nothing"),
    option("--merge", nargs="+", metavar="FILE", help="the files of all shards: join them, then draw"),
    option("--devices", type=check.whole_number(1, 1024), default=1, metavar="N",
           help="let so many processes look at a part of the data each, with a GPU of its own, or sharing the cores: the same "
                "files (1)"),
    option("--folders", action="store_true", help="also LAYER/unit_0000/{projection,patch}_000.png and info.json")]
RESULT, TOGETHER = top.UnitViews, None
PAGE = 64                         # units of a layer that share a file and a sheet


def run(args):
    model = open_model(args)
    layers = chosen_layers(args, model.network, [layer.name for layer in model.network.convolutions])
    units = {layer: chosen_units(args.units, model.network, layer, args.seed) for layer in layers}
    shard = parse_shard(args.shard)
    if args.merge and shard != (1, 1):
        raise check.Expected("--merge", "no --shard beside it", args.shard)
    if args.devices > 1 and (args.merge or shard != (1, 1)):
        raise check.Expected("--devices", "no --shard or --merge beside it, as it makes and joins shards itself", args.devices)
    pictures = open_pictures(args, model)
    args.k = min(9, len(pictures)) if args.k is None else args.k
    if args.k > len(pictures):
        raise check.Expected("--k", f"at most {len(pictures)}, the pictures that there are", args.k)
    folder = output_folder(args)
    if shard != (1, 1):
        file = folder/"top_activations_{}_of_{}.h5".format(*shard)
    else:
        file = top.pass_file(folder/"top_activations.h5", model, pictures, layers, args.k, args.batch_size)
    if args.merge:
        found = top.merge([results.load(shard, top.TopActivations) for shard in args.merge])
        top.check_pass(found, model, pictures, layers, args.k, args.batch_size, "--merge")
        results.save(file, found)
    if args.devices > 1 and not (file.exists() and results.load(file, top.TopActivations).complete):
        results.save(file, of_devices(args, layers, file, pictures))
    first, stop = top.shard_range(shard, len(pictures), args.batch_size)
    with Bar(stop - first, "picture", "strongest pictures") as moving:
        found = top.top_activations(model, pictures, layers, args.k, batch_size=args.batch_size, shard=shard, file=file,
                                    bar=moving)
    if shard != (1, 1):
        return say(printable(file))
    with Bar(args.k*sum(map(len, units.values())), "projection", "projections") as moving:
        for layer, called in zip(layers, file_names(layers)):
            for number, at in enumerate(range(0, len(units[layer]), PAGE), 1):
                of_page = units[layer][at:at + PAGE]
                views = replace(top.views_of(model, pictures, found, layer, of_page, bar=moving),
                                classes=classes_of(model, layer, of_page))
                yield folder/(f"{called}.h5" if len(units[layer]) <= PAGE else f"{called}_{number:02}.h5"), views
                if args.folders:
                    write_folders(views, folder, called)


# ------------------------------------------------------------------------------------------------------ on several devices
@dataclass
class Part(crew.Unit):
    """One shard of a pass, `number` of `count`, which a process leaves in `file`."""
    number: int
    count: int
    file: Path
    size: int
    done: int = 0

    @property
    def name(self):
        return f"shard {self.number}/{self.count}"

    @property
    def order(self):
        return {"shard": [self.number, self.count], "file": str(self.file)}


def of_devices(args, layers, file, pictures):
    """The TopActivations of all pictures, each of --devices processes looking at a shard of them. A shard's file is beside
    `file` until all are joined, so that a pass that was stopped goes on."""
    parts = []
    for number in range(1, args.devices + 1):
        first, stop = top.shard_range((number, args.devices), len(pictures), args.batch_size)
        parts.append(Part(number, args.devices, file.with_name(f"{file.stem}_{number}_of_{args.devices}.h5"), stop - first))
    if empty := sum(not part.size for part in parts):
        most = f"at most {args.devices - empty}, as there are so many batches of {args.batch_size} pictures"
        raise check.Expected("--devices", most, args.devices, "fewer devices, or a smaller --batch-size")

    def take(part, damaged):
        part.done = part.size
        pictures.leave_out({int(index): reason for index, reason in damaged.items()})

    options = {name: getattr(args, name) for name in OF_A_PART}
    with (crew.crew(args.devices, args.device, f"{__name__}:served", layers=layers, k=args.k, options=options) as several,
          Bar(len(pictures), "picture", "strongest pictures") as bar):
        several.work(parts, take, bar)
    found = top.merge([results.load(part.file, top.TopActivations) for part in parts])
    for part in parts:
        part.file.unlink()
    return found


OF_A_PART = "run", "data", "part", "batch_size", "device", "precision", "workers", "upscale"


def served(layers, k, options):
    """Work of a process of a crew: do(order, progress, wait) makes the pass over a shard, and returns {index: reason} of
    damaged pictures."""
    args = Namespace(**options)
    model = open_model(args)
    pictures = open_pictures(args, model)

    def do(order, progress, wait):
        top.top_activations(model, pictures, layers, k, batch_size=args.batch_size, shard=tuple(order["shard"]),
                            file=order["file"], bar=Namespace(update=lambda count: progress(int(count))))
        return {int(index): reason for index, reason in pictures.damaged.items()}
    return do


def parse_shard(text):
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        raise check.Expected("--shard", "I/N, e.g. 2/5", repr(text)) from None
    return i, n


def draw(views, path):
    if not (views.pictures >= 0).any():
        path.unlink(missing_ok=True)                         # one of an earlier network would contradict what is said
        return f"{views.layer}: none of {plural(len(views.units), 'unit')} fires on any picture, so there is no figure"
    plots.save(plots.unit_blocks(views), path)
    return printable(path)


def write_folders(views, folder, called):
    """CALLED/unit_0000/{projection,patch}_000.png, strongest first, and info.json."""
    for u, unit in enumerate(views.units.tolist()):
        filled = int((views.pictures[u] >= 0).sum())
        of_unit = inside(folder, f"{called}/unit_{unit:04}")
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
