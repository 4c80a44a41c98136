"""The pages that compare two networks: each unit beside the one of the other network that answers most like it."""
import numpy as np

from zfcore.analysis.top_activations import MID_GREY
from zfcore.atlas.layer_page import IN_A_ROW, SMALL, each_signed, sheets_of
from zfcore.atlas.sheets import LOSSLESS, fitted, shown_side
from zfcore.atlas.source import called_in_public


def compare_pages(folder, other, found, units, called, pages, bar):
    """Write data/compare-CALLED.js of each layer; `other` is the Looked of the other network. Returns what the network's page
    says of it."""
    rows = []
    for layer, name, page in zip(units, called, pages):
        if layer not in found.units:
            continue
        matched, r = found.units[layer][units[layer]], found.r[layer][units[layer]]
        folder.data(f"compare-{name}", {
            "name": layer, "other": layer, "units": units[layer], "control": found.by_chance[layer][units[layer]],
            "matches": [None if unit < 0 else [int(unit), float(value)] for unit, value in zip(matched, r)],
            "tiles": {key: page["tiles"][key] for key in ("side", "columns", "strongest", "patch")},
            "others": others(folder, other, layer, name, matched, bar)})
        known = r[np.isfinite(r)]
        rows.append({"name": layer, "other": layer, "mean": float(known.mean()) if len(known) else None})
    return {"name": other.model.name, "run": called_in_public(other.model.path), "epoch": other.model.epoch,
            "layers": rows}


def others(folder, other, layer, called, matched, bar):
    """Tiles of the units of the other network, in the order of those that they match."""
    tiles = {"strongest": [], "patch": []}
    for _, of_sheet in sheets_of(matched):
        views = other.views(other.top.first(1, layer), layer, np.maximum(of_sheet, 0), bar)
        none = of_sheet < 0
        for kind, pixels, grey in (("strongest", each_signed(views.projections[:, 0]), 0.5),
                                   ("patch", views.patches[:, 0], MID_GREY)):
            tiles[kind].append(fitted(np.where(none[:, None, None, None], pixels.dtype.type(grey), pixels), SMALL))
    field = views.projections.shape[2]
    return {"side": shown_side(field, SMALL), "columns": IN_A_ROW,
            **{kind: folder.sheet(f"{called}-matched_{kind}", np.concatenate(of), IN_A_ROW, field <= LOSSLESS)
               for kind, of in tiles.items()}}
