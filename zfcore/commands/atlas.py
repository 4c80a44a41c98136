"""Floor 7: `zfcore atlas`: a network as a folder of pages, to walk through in a browser."""
import os
from pathlib import Path

import numpy as np

from zfcore import atlas, check, trained
from zfcore.analysis import top_activations as top
from zfcore.analysis.evolution import kept_epochs
from zfcore.analysis.matching import matching
from zfcore.analysis.portraits import FEWEST
from zfcore.atlas.layer_page import K
from zfcore.atlas.serve import Server, serve
from zfcore.atlas.source import Looked, kept_source
from zfcore.commands.common import FORMAT, SHARED, UNITS, chosen_layers, chosen_of_data, chosen_units, open_model, open_pictures, option
from zfcore.data import OBJECTS
from zfcore.files import inside
from zfcore.networks import home_of
from zfcore.terminal import Bar, printable, say, warn

HELP = "walk through a network in a browser: its units, what excites them, how they are connected"
GOES_ON = True
OPTIONS = [
    *[shared for shared in SHARED if shared is not FORMAT],
    option("--output", help="folder to write (default: RUN/figures/atlas)"),
    option("--layers", nargs="+", help="those that have pages (default: all with weights)"),
    option("--units", default="random:1000", help=UNITS),
    option("--pictures", metavar="NUMBERS", help="pictures of the data with pages of their own: all, random:N, FIRST:LAST+1 or "
                                                 "3,5,7 (default: the first of each class, up to 12)"),
    option("--beside", metavar="RUN", help="compare with another network: each unit beside the one there that answers most "
                                           "like it"),
    option("--limit-per-class", type=check.whole_number(0, 2**31), default=0,
           help="look at only so many pictures of each class, 0 for all"),
    option("--serve", action="store_true", help="then answer, at an address of this machine, about pictures that are dropped "
                                                "on the page"),
    option("--port", type=check.whole_number(0, 65535), default=0, help="of that address (default: any that is free)"),
]
STRONGEST = 100                   # pictures of each unit whose classes are counted, at most
PICTURES = 12                     # with pages of their own


def work(args):
    """Run the command."""
    model = open_model(args)
    weighted = [layer.name for layer in model.network.weighted]
    layers = chosen_layers(args, model.network, weighted)
    for layer in layers:
        check.one_of("--layers", layer, weighted)
    units = {layer: chosen_units(args.units, model.network, layer, args.seed) for layer in layers}
    output = Path(args.output) if args.output else inside(home_of(args.run), "figures/atlas")
    if args.serve:
        Server(output, model, layers, args.port).server_close()        # a port that cannot be had is told before all the work
    pictures, why = pictures_or_reason(args, model)
    if pictures is None:
        folder = from_kept(args, model, units, output, why)
    else:
        folder = from_pictures(args, model, pictures, units, output)
    atlas.write_pages(folder)
    if folder.name != Path(os.path.abspath(output)).name:
        say(f"{printable(output)} holds another atlas, which stays; this one is in {printable(folder.name)}")
    say(f"{printable(folder/'index.html')}      open it in a browser")
    if args.serve:
        serve(folder, model, list(units), args.port)


def pictures_or_reason(args, model):
    """(the Pictures to look at, ""), or (None, the sentence that says why there are none) of a network whose own are gone."""
    try:
        return open_pictures(args, model), ""
    except check.Expected as error:
        if args.part != "val" or [asked for asked in (args.data, args.pictures, args.beside) if asked is not None]:
            raise
        return None, str(error)


# -------------------------------------------------------------------------------------------------------------- with pictures
def from_pictures(args, model, pictures, units, output):
    """The folder of the atlas of a network with its pictures, whole."""
    k, numbers, epochs, beside = strongest_counted(pictures), chosen_pictures(args, pictures), epochs_of(args, model), opened_beside(args, model, units)
    asked = [{layer: of.tolist() for layer, of in units.items()}, numbers.tolist(), list(epochs), args.seed, args.part]
    if beside:
        asked.append(top.fingerprint(*beside, 1, args.batch_size))
    mark = atlas.fingerprint(top.fingerprint(model, pictures, k, args.batch_size), *asked)
    folder = atlas.place(output, mark)
    if atlas.is_complete(folder):
        return folder
    with atlas.making(folder, mark) as kept:
        passes = strongest(args, model, pictures, units, k, inside(kept, "strongest.h5"), "strongest pictures")
        growing = {epoch: (then, strongest(args, then, pictures, units, 1, inside(kept, f"epoch_{epoch:04}.h5"),
                                           f"epoch {epoch}"))
                   for epoch, then in epochs.items()}
        source = Looked(model, pictures, passes, growing, args.seed)
        other = beside and compared(args, source, *beside, units, inside(kept, "beside.h5"))
        atlas.make(folder, source, units, numbers, data=args.data or model.data or "", part=args.part, other=other)
    return folder


def opened_beside(args, model, layers):
    """(the network of --beside, the same pictures as it sees them); None without. Raises Expected for one that has none of the
    layers."""
    if args.beside is None:
        return None
    other = open_model(args, args.beside, "--beside")
    if not shared_layers(layers, other):
        raise check.Expected("--beside", f"a network with some of the layers {', '.join(layers)}",
                             ", ".join(each.name for each in other.network.weighted))
    return other, open_pictures(args, other, args.data or model.data or OBJECTS)


def compared(args, source, other, pictures, units, file):
    """(the other network with its own strongest pictures, how its units match), over the layers that both have."""
    shared = shared_layers(units, other)
    passes = strongest(args, other, pictures, shared, 1, file, "the other network's")
    with Bar(len(pictures), "picture", "answers of both") as bar:
        found = matching(source.model, source.pictures, other, pictures, shared, batch_size=args.batch_size, bar=bar)
    return Looked(other, pictures, passes), found


def shared_layers(layers, other):
    """Names of those of the layers that the other network has too."""
    return [layer for layer in layers if layer in [each.name for each in other.network.weighted]]


def strongest(args, model, pictures, units, k, file, what):
    with Bar(len(pictures), "picture", what) as bar:
        return top.top_activations(model, pictures, list(units), k, batch_size=args.batch_size, file=file, bar=bar)


def strongest_counted(pictures):
    """Number of pictures of each unit whose classes are counted: as many as a class has, so that a unit for one class could
    have that alone; at least those that are shown, and as many as it takes to say something; at most STRONGEST."""
    of_class = len(pictures)//max(len(pictures.dataset.classes), 1)
    return min(max(of_class, K, FEWEST), STRONGEST, len(pictures))


def chosen_pictures(args, pictures):
    """Numbers of the pictures that have pages."""
    if args.pictures is not None:
        return chosen_of_data(args, pictures)
    labels = np.asarray(pictures.dataset.labels)
    first = np.unique(labels, return_index=True)[1] if len(pictures.dataset.classes) and labels.ndim == 1 else np.arange(len(pictures))
    return np.sort(first[:PICTURES])


def epochs_of(args, model):
    """{epoch: the network then} of the epochs that the run kept, {} where it kept none."""
    try:
        files = kept_epochs(args.run)
    except check.Expected:
        return {}
    return {epoch: trained.open(file, args.device, args.precision) for epoch, file in files.items()}


# ----------------------------------------------------------------------------------------------------------- without pictures
def from_kept(args, model, units, output, why):
    """An atlas of what an earlier pass kept, where the pictures are gone; of the network alone where there is nothing."""
    source = kept_source(model, inside(home_of(args.run), "figures/top_activations"), list(units), args.seed)
    units = {layer: np.intersect1d(of, source.of_layer[layer].units) for layer, of in units.items() if layer in source.of_layer}
    mark = atlas.fingerprint(source.fingerprint, {layer: of.tolist() for layer, of in units.items()}, args.seed)
    folder = atlas.place(output, mark)
    if not atlas.is_complete(folder):
        notes = ["Its pictures are not to be had; `--data FOLDER` names others. What is here was kept by `zfcore "
                 "top-activations`, without classes, sanity checks, growth and pages of pictures." if units else
                 "What its units see is not shown, as there are no pictures; `--data FOLDER` names some."]
        # which the pages do not say: it may tell where things lie on this machine
        warn(f"{notes[0]} ({why})")
        with atlas.making(folder, mark):
            atlas.make(folder, source, units, notes=notes)
    return folder
