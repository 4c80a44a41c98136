"""The page of a layer: its units with their pictures and projections (paper, figure 2), and what else is known of each."""
from base64 import b64encode

import numpy as np

from zfcore import plots
from zfcore.analysis.portraits import (arranged, class_counts, descriptor, mean_projection, most_alike, net_weights,
                                       selectivity, strongest_weights, weighted_below)
from zfcore.analysis.sanity_checks import check_possible, conditions, found_pictures, sanity_checks
from zfcore.analysis.top_activations import field_regions, sees_all, views_of
from zfcore.atlas.sheets import LOSSLESS, fitted, plain, shown_side
from zfcore.check import Expected
from zfcore.deconvnet import unit_count
from zfcore.files import anything, choice, flag, listed, real, table, text, whole

K = 9                             # pictures of a unit that are shown
ROWS = 8                          # units that share a sheet
SMALL, LARGE = 56, 96             # most pixels of a tile in the page of the layer, and in the unit's own
IN_A_ROW = 16                     # units, in the sheets of the layer's page
ALIKE, FEEDING, CLASSES = 8, 8, 10     # units alike, inputs and outputs, classes of a histogram that are told
STEPS = 32767                     # of a descriptor's numbers from 0 to 1, so that cosines come to within about 0.0001
CONTROLS = "as trained", "another unit", "weights of the start", "untrained"


def layer_page(folder, source, layer, called, units, bar=None):
    """Write the sheets of these units of a layer, data/likeness-CALLED.js, and data/layer-CALLED.js, the last. Returns what that
    holds."""
    top = source.top.first(K, layer)
    pictured, described = pictures_and_projections(folder, source, top, layer, called, units, bar)
    page = plain({
        "name": layer, "below": weighted_below(source.model.network, layer),
        "above": weighted_above(source.model.network, layer),
        "shown_of": unit_count(source.model.network, layer), "whole": sees_all(source.model.network, layer), "units": units,
        **of_pass(source, top, layer, units), **pictured, "alike": most_alike(described, ALIKE),
        "map": plane(described, source.seed),
        **weights(source.model.network, layer, units), "checks": checks(folder, source, layer, called, units, bar),
        "evolution": evolution(folder, source, layer, called, units, bar)})
    folder.data(f"likeness-{called}", likeness(described))
    folder.data(f"layer-{called}", page)
    return page


def known_page(folder, source, layer, called, units):
    """Read what data/layer-CALLED.js holds; None where it is not there. Raises Expected for one that is not of these units of
    the layer."""
    total, of_units = source.top.total, lambda form: listed(form, len(units), len(units))
    page = folder.known(f"layer-{called}", table({
        "name": choice(layer), "shown_of": choice(unit_count(source.model.network, layer)), "whole": flag,
        "units": of_units(whole()),
        "dead": of_units(flag), "strength": of_units(real()), "pictures": of_units(listed(whole(-1, total - 1), K)),
        "selectivity": or_null(of_units(or_null(real()))),
        "tiles": table({"side": whole(1, SMALL), "columns": choice(IN_A_ROW), "strongest": text(), "patch": text()},
                       others=anything)}, others=anything))
    if page is not None and page["units"] != list(units):
        raise Expected(folder.path/f"data/layer-{called}.js", "the units that are asked for", "others",
                       "remove it, and it is made again")
    return page


def or_null(form):
    """The form of what may also be null."""
    return lambda where, value: None if value is None else form(where, value)


def projections_of_page(source, layer, units):
    """Number of projections that the page of a layer takes."""
    return len(units)*(K + len(controls_of(source, layer)) + len(source.epochs))


def sheets_of(units):
    """("000", the first ROWS units), ("001", the next), ..."""
    for number, at in enumerate(range(0, len(units), ROWS)):
        yield f"{number:03}", units[at:at + ROWS]


# --------------------------------------------------------------------------------------------------- pictures and projections
def pictures_and_projections(folder, source, top, layer, called, units, bar):
    """({"tiles": ..., "sheets": ...} of the page, the units' descriptors (U,D))."""
    described, small, large = [], {"strongest": [], "mean": [], "patch": []}, {"projection": [], "patch": []}
    for number, of_sheet in sheets_of(units):
        views = source.views(top, layer, of_sheet, bar)
        shaded, mean = np.stack([plots.signed_tiles(of_unit) for of_unit in views.projections]), mean_projection(views)
        for kind, tiles in (("projection", shaded), ("patch", views.patches)):
            large[kind].append(sheet(folder, f"{called}-{kind}-{number}", tiles))
        for kind, tiles in (("strongest", shaded[:, 0]), ("mean", each_signed(mean)), ("patch", views.patches[:, 0])):
            small[kind].append(fitted(tiles, SMALL))
        described.append(descriptor(mean))
    field = views.projections.shape[2]
    tiles = {"side": shown_side(field, SMALL), "columns": IN_A_ROW,
             **{kind: folder.sheet(f"{called}-{kind}", np.concatenate(of), IN_A_ROW, field <= LOSSLESS)
                for kind, of in small.items()}}
    shown = views.projections.shape[1]                     # K, or as many pictures as there are
    return {"tiles": tiles, "sheets": {"side": shown_side(field, LARGE), "rows": ROWS, "columns": shown,
                                       **large}}, np.concatenate(described)


def sheet(folder, name, tiles):
    """Write tiles (rows,columns,f,f,3), uint8 or in 0..1, as a sheet of pictures in a unit's own page. Returns its name."""
    _, columns, field, *_ = tiles.shape
    return folder.sheet(name, fitted(tiles.reshape(-1, *tiles.shape[2:]), LARGE), columns, field <= LOSSLESS)


def each_signed(projections):
    """Signed (...,f,f,3) -> 0..1 as `plots.signed_tiles`, each by its own scale."""
    return np.stack([plots.signed_tiles(one[None])[0] for one in projections.reshape(-1,
                                                                                     *projections.shape[-3:])]).reshape(projections.shape)


# ---------------------------------------------------------------------------------------------------------- the pass's numbers
def of_pass(source, top, layer, units):
    """Tell of the units what the pass over the pictures found."""
    found = {"dead": top.dead(layer)[units], "strength": top.values[layer][units, 0], "values": top.values[layer][units],
             "pictures": top.pictures[layer][units], "boxes": top.boxes[layer][units], "selectivity": None, "common": None,
             "histogram": None, "counted": None, "class": source.classes_of_units(layer, units)}
    if source.labels is None:
        return found
    counts = class_counts(source.top, layer, source.labels, len(source.classes))[units]
    common, excess = selectivity(counts, source.labels)
    order = np.argsort(-counts, axis=1, kind="stable")[:, :CLASSES]
    histogram = [[(int(c), int(of_unit[c])) for c in first if of_unit[c]] for of_unit, first in zip(counts, order)]
    return {**found, "selectivity": excess, "common": common, "histogram": histogram, "counted": counts.sum(axis=1)}


# ------------------------------------------------------------------------------------------------------- units among each other
def weighted_above(network, layer):
    """Name of the next layer with weights; None for the last."""
    return next((each.name for each in network.weighted if weighted_below(network, each.name) == layer), None)


def weights(network, layer, units):
    """The units below that feed these units most, and those above that these feed most, with the weights; None where there are
    none."""
    above, below = weighted_above(network, layer), weighted_below(network, layer)
    return {"inputs": below and strongest_weights(net_weights(network, layer)[:, units], FEEDING),
            "outputs": above and strongest_weights(net_weights(network, above)[units].T, FEEDING)}


def likeness(described):
    """The descriptors (U,D) of the units, with which the page sorts all of them by their likeness to any: whole numbers of two
    bytes, the lower first, in base64. A file of its own, as few ask for it and it is the largest."""
    return {"length": described.shape[1], "described": b64encode(np.rint(STEPS*described).astype("<i2").tobytes()).decode()}


def plane(described, seed):
    """Places of the units on a plane; None where the library for it is missing."""
    try:
        return arranged(described, seed)
    except Expected:
        return None


# ------------------------------------------------------------------------------------------------------------- sanity checks
def controls_of(source, layer):
    """Names of the conditions under which the strongest projections of a layer are shown; () where a control is impossible."""
    if source.pictures is None:
        return ()
    try:
        check_possible(source.model.network, layer)
        found_pictures(source.top.first(1, layer), layer)
    except Expected:
        return ()
    return tuple(name for name in CONTROLS if name in conditions(source.model.network, layer, source.model.start))


def checks(folder, source, layer, called, units, bar):
    """Strongest projection of each unit under the controls, with its cosine to the one as trained; None where there are
    none."""
    if not (controls := controls_of(source, layer)):
        return None
    sheets, cosines, first = [], [], source.top.first(1, layer)
    side = field_regions(source.model.network, layer, first.boxes[layer][:0, 0]).size
    for number, of_sheet in sheets_of(units):
        alive = np.flatnonzero(~first.dead(layer)[of_sheet])
        shown, of = np.zeros((len(of_sheet), len(controls), side, side, 3), np.float32), [None]*len(of_sheet)
        if len(alive):
            found = sanity_checks(source.model, source.pictures, first, layer, of_sheet[alive], seed=source.seed, only=controls,
                                  bar=bar)
            shown[alive] = found.projections
            for u, row in zip(alive, found.cosine):
                of[u] = row
        sheets.append(sheet(folder, f"{called}-checks-{number}", each_signed(shown)))
        cosines += of
    return {"conditions": controls, "cosine": cosines, "sheets": sheets, "rows": ROWS, "columns": len(controls)}


# ----------------------------------------------------------------------------------------------------------------- evolution
def evolution(folder, source, layer, called, units, bar):
    """Strips of the units over the kept epochs (paper, figure 4): at each the strongest picture's projection. None without
    epochs."""
    if not source.epochs:
        return None
    sheets, values = [], []
    for number, of_sheet in sheets_of(units):
        views = [views_of(model, source.pictures, top.first(1, layer), layer, of_sheet, bar=bar)
                 for model, top in source.epochs.values()]
        strips = np.stack([one.projections[:, 0] for one in views], axis=1)                  # (rows,E,f,f,3)
        sheets.append(sheet(folder, f"{called}-evolution-{number}", each_signed(strips)))
        values += np.stack([one.values[:, 0] for one in views], axis=1).tolist()
    return {"epochs": list(source.epochs), "values": values, "sheets": sheets, "rows": ROWS, "columns": len(source.epochs)}
