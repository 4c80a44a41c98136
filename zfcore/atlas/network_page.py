"""The page of the network: its layers, what is known of each, how it learned; and the thumbnails of whole pictures that units
refer to."""
import time
from importlib.util import find_spec

import numpy as np

import zfcore
from zfcore import plots
from zfcore.analysis import diagnostics
from zfcore.analysis.portraits import FEWEST, net_weights
from zfcore.analysis.top_activations import decoded, field_boxes
from zfcore.atlas.sheets import fitted, shown_side
from zfcore.atlas.source import called_in_public
from zfcore.backend import to_host
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.data import data_in_words
from zfcore.deconvnet import feature_layer, unit_count
from zfcore.interchange.preprocessing import GREY
from zfcore.models import checkpoint_file
from zfcore.networks import card, names
from zfcore.terminal import counted, plural

FORMAT, VERSION = "zfcore atlas", 4
TOLD_ELSEWHERE = "kind", "name", "seed", "number", "rounding", "F", "M", "K", "S", "P"      # of a layer's fields
LATEST = "latest.h5"              # of a run's folder
COVER, COVER_SIDE = 8, 64         # units of each layer on the first page, and how wide they are
WHOLE, WHOLE_A_ROW = 96, 8        # pixels of a whole picture's thumbnail; a sheet has as many rows


def network_page(folder, source, layers, called, pages, pictures, notes, data, part, compare=None):
    """Write data/network.js: `pages` are what the layers' pages hold, `pictures` the objects of the picture pages."""
    model = source.model
    folder.data("network", {
        "format": FORMAT, "version": VERSION, "made": time.strftime("%Y-%m-%d"), "zfcore": zfcore.__version__,
        "name": model.name, "run": called_in_public(model.path), "epoch": model.epoch, "input": model.network.input_shape, "grey": sees_grey(model.network),
        "data": None if data is None else called_in_public(data_in_words(data)), "part": part,
        "total": source.top.total if source.top else 0,
        "classes": source.classes, "outputs": len(model.classes), "labelled": source.labels is not None,
        "shares": shares(source), "errors": errors(model), "notes": notes,
        "table": table(model.network, dict(zip(layers, called))),
        "layers": [summary(model.network, name, page) for name, page in zip(layers, pages)],
        "cover": cover(folder, source, layers, pages), "curves": curves(folder, model),
        "pictures": [{key: one[key] for key in ("number", "name", "label")} for one in pictures], "compare": compare})


def shares(source):
    """Share that each class has of all pictures; None where they have no classes."""
    return None if source.labels is None else np.bincount(source.labels, minlength=len(source.classes))/len(source.labels)


def notes_of(source, units, pages):
    """Sentences about what the pages do not show of a network, and how to have it."""
    history, is_whole = history_of(source.model)
    found = [] if history else ["Learning curves are not shown, as the file of this network holds none."]
    if history and not is_whole:
        found.append("The learning curves end with this network's epoch: what followed stands in the run's `latest.h5`, which is "
                     "not beside it.")
    if source.pictures is None:
        return found
    counts = {layer: unit_count(source.model.network, layer) for layer in units}
    if few := [f"{len(of)} of {counts[layer]} of {layer}" for layer, of in units.items() if len(of) < counts[layer]]:
        found.append(f"Not all units have pages: {', '.join(few)}. `--units all` makes pages of all.")
    if source.labels is None:
        found.append("The pictures have no classes, so nothing is said of selectivity.")
    elif not any(one is not None for page in pages for one in page["selectivity"]):
        found.append(f"Nothing is said of selectivity and of classes of units, as none fires for {FEWEST} pictures or more.")
    if source.model.start is None:
        found.append("It is not known with which weights its training began, so the sanity checks lack the untrained network.")
    if not source.epochs and source.model.data is not None:
        found.append("How the units came about (figure 4) is not shown, as the run kept no epochs; `python -m train "
                     "--keep-epochs 1 2 5` keeps some.")
    if find_spec("sklearn") is None:
        found.append('There are no maps of units, as scikit-learn is not installed: `pip install "zfcore[atlas]"`, then make '
                     'the atlas in a new folder.')
    return found


def sees_grey(network):
    """Return whether a network sees no more of its pictures than their grey: one that was made for grey pictures and imported has
    the grey of R, G and B folded into its first weights."""
    if not network.weighted or network.input_shape[0] != len(GREY):
        return False
    of_grey = net_weights(network, network.weighted[0].name)/GREY[:, None]
    return bool(of_grey.any()) and np.allclose(of_grey, of_grey[1], rtol=0, atol=1e-5*np.abs(of_grey).max())


def table(network, called):
    """The layers as they follow each other, those with pages with their names."""
    rows, fields = [], network.receptive_fields()
    for layer, entered, shape, seen in zip(network.layers, network.shapes, network.shapes[1:], fields):
        count = sum(int(np.prod(one)) for one in layer.parameter_shapes(entered).values())
        rows.append({"name": layer.name, "kind": type(layer).__name__, "settings": settings(layer), "shape": shape,
                     "parameters": count, "field": seen and seen[0], "jump": seen and seen[1], "page": called.get(layer.name)})
    return rows


def settings(layer):
    """Settings of a layer in words, e.g. "7x7, stride 2", and what else it has of its own."""
    fields = {key: value for key, value in layer.fields().items() if key not in TOLD_ELSEWHERE}
    words = []
    if layer.window() is not None and not layer.pixelwise:
        K, S, P = layer.window()
        words = [f"{K}x{K}", f"stride {S}", *([f"padding {P}"] if P else [])]
    if fields.get("groups") == 1:
        del fields["groups"]
    return ", ".join([*words,
                      *(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in fields.items())])


def summary(network, layer, page):
    """Line of a layer on the first page."""
    field, known = network.receptive_fields()[network.index(layer)], [one for one in page["selectivity"] or []
                                                                      if one is not None]
    return {"name": layer, "units": page["shown_of"], "shown": len(page["units"]),
            "numbers": None if len(page["units"]) == page["shown_of"] else page["units"], "dead": int(np.sum(page["dead"])),
            "dominance": dominance(network[layer]), "selectivity": float(np.median(known)) if known else None,
            "field": field and field[0], "whole": all_see_all(network, layer)}


def all_see_all(network, layer):
    """Return whether every unit of the layer, wherever in its map, sees the whole input: a field that is wider than the input
    lies beside it at the map's border."""
    _, H, W = network.input_shape
    rows, columns = (*network.shapes[feature_layer(network, layer) + 1][1:], 1, 1)[:2]
    first, last = field_boxes(network, layer, np.array([[0, 0], [rows - 1, columns - 1]]))
    return bool((first[2:] >= (H, W)).all() and (last[:2] <= 0).all())


def dominance(layer):
    """max/median of the filters' RMS (section 4.1); None for a layer without filters."""
    return diagnostics.dominance(to_host(layer.parameters["w"])) if layer.has_filters else None


def errors(model):
    """Errors in % on its validation part: of a network that comes along by its card, else as training measured them at the end
    of the epoch that it is from; None where they are not known."""
    top5 = len(model.classes) > 5
    if str(model.path) in names():
        found = card(str(model.path))["validation"]["centre"]
        return {"top1": 100*found["top1"], "top5": 100*found["top5"] if top5 else None, "on": f"{found['count']} {found['of']}"}
    epochs = list(model.history.get("epoch", []))
    if model.epoch not in epochs:
        return None
    top1, of_five = (100*model.history[column][epochs.index(model.epoch)] for column in ("val_error", "val_error_top5"))
    return {"top1": top1, "top5": of_five if top5 else None, "on": f"the validation part, after epoch {model.epoch}"}


def curves(folder, model):
    """The learning curves as a picture; None where they are not known."""
    history, _ = history_of(model)
    if not history:
        return None
    plots.save(plots.learning_curves(history, model.epoch), folder.path/"curves.svg")
    last = history["val_error"][-1]
    return {"file": "curves.svg",
            "alt": f"loss and error over {plural(len(history['epoch']), 'epoch')}; the validation error ends at "
                   f"{100*last:.1f} %; this network is that of epoch {model.epoch}"}


def history_of(model):
    """(the history of the run that a network is from, {} where that has none; whether it is whole). The network's own ends with
    its epoch, the best one: that of latest.h5, which lies beside it, goes on."""
    own = model.history
    if not len(own.get("epoch", ())):                      # stopped in its first one, the columns are there
        return {}, True
    if model.path is None:
        return own, False
    try:
        file = checkpoint_file(model.path)
        history = own if file.name == LATEST else load(file.parent/LATEST, velocity=False).history
    except Expected:
        return own, False
    is_it = all(np.array_equal(history.get(column, ())[:len(values)], values, equal_nan=True) for column, values in own.items())
    return (history, True) if is_it else (own, False)


# ------------------------------------------------------------------------------------------------------------------ pictures
def cover(folder, source, layers, pages):
    """Strips of the first page: of each layer some units that fire, those first that are for one class, else the strongest."""
    strips, chosen = [], {}
    for layer, page in zip(layers, pages):
        score = np.array([-np.inf if one is None else one for one in page["selectivity"] or page["strength"]], float)
        score[np.array(page["dead"], bool)] = -np.inf
        at = [k for k in np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[:COVER] if not page["dead"][k]]
        units = np.array(page["units"])[at].astype(np.int64)
        strip = np.full((COVER, COVER_SIDE, COVER_SIDE, 3), 128, np.uint8)
        if len(units):
            views = source.views(source.top.first(1, layer), layer, units)
            tiles = np.stack([plots.signed_tiles(of_unit)[0] for of_unit in views.projections])
            strip[:len(units)] = padded(fitted(tiles, COVER_SIDE))
        strips.append(strip)
        chosen[layer] = units.tolist()
    if not strips:
        return None
    return {"file": folder.sheet("cover", np.concatenate(strips), COVER, lossless=False), "side": COVER_SIDE, "columns": COVER,
            "units": chosen}


def padded(tiles):
    """Tiles (n,side,side,3) in the middle of squares of COVER_SIDE pixels, mid-grey around them."""
    rim = COVER_SIDE - tiles.shape[1]
    return np.pad(tiles, ((0, 0), (rim//2, rim - rim//2), (rim//2, rim - rim//2), (0, 0)), constant_values=128)


def whole_pictures(folder, source, pages):
    """Write data/whole.js and thumbnails of the pictures in which a unit sees a part, as the network sees them: the centre
    crop."""
    named = sorted({int(n) for page in pages for of_unit in page["pictures"] for n in of_unit if n >= 0})
    shown = sorted({int(n) for page in pages if not page["whole"] for of_unit in page["pictures"] for n in of_unit if n >= 0})
    if source.pictures is None:
        shown = []
    margin, crop, files = (source.model.size - source.model.crop)//2, source.model.crop, []
    for number, at in enumerate(counted(range(0, len(shown), WHOLE_A_ROW**2), "sheet", "whole pictures")):
        numbers = np.array(shown[at:at + WHOLE_A_ROW**2])
        whole = decoded(source.pictures, numbers)[:, margin:margin + crop, margin:margin + crop]
        files.append(folder.sheet(f"whole-{number:03}", fitted(whole, WHOLE), WHOLE_A_ROW, lossless=False))
    folder.data("whole", {"side": shown_side(crop, WHOLE), "columns": WHOLE_A_ROW, "rows": WHOLE_A_ROW, "files": files,
                          "place": {n: k for k, n in enumerate(shown)}, "names": {n: source.name_of(n) for n in named},
                          "labels": {} if source.labels is None else {n: int(source.labels[n]) for n in named}})
