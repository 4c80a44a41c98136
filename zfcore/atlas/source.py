"""Sources of an atlas: a network with the pictures that it looked at, or, where these are gone, what an earlier pass kept of
them."""
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zfcore import results
from zfcore.analysis.top_activations import TopActivations, UnitViews, field_regions, views_of
from zfcore.data.loader import Pictures
from zfcore.deconvnet import feature_layer, unit_count
from zfcore.files import inside
from zfcore.trained import Trained, arrays_of

BATCH = 36                        # projections at once


@dataclass
class Looked:
    """A network and what it found in its pictures.

    top       a pass over all of them: the strongest of every unit, more than are shown
    epochs    {epoch: (the network then, a pass of its own)}, {} where the run kept none
    seed      draws what is random: controls, the plane of the units"""
    model: Trained
    pictures: Pictures
    top: TopActivations
    epochs: Mapping[int, tuple[Trained, TopActivations]] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def labels(self) -> Any:
        """int64 (pictures,), numbers among `classes`; None where the pictures have none, or several each."""
        dataset, labels = self.pictures.dataset, self.pictures.labels
        if not len(dataset.classes) or labels.ndim != 1:
            return None
        return np.array([self.classes.index(name) for name in dataset.classes])[labels]

    @cached_property
    def classes(self) -> list[str]:
        """The network's classes, and those of the pictures that are not among them."""
        return list(dict.fromkeys([*self.model.classes, *self.pictures.dataset.classes]))

    def classes_of_units(self, layer, units):
        return classes_of_units(self.model, layer, units)

    def views(self, top, layer, units, bar=None):
        """Views of these units with the pictures of the pass `top`."""
        return views_of(self.model, self.pictures, top, layer, units, batch_size=BATCH, bar=bar)

    def name_of(self, number):
        return self.pictures.dataset.names[number]


@dataclass
class Kept:
    """A network whose pictures are gone, and what `zfcore top-activations` kept of them: a pass, and views of some units."""
    model: Trained
    top: TopActivations | None = None
    of_layer: Mapping[str, UnitViews] = field(default_factory=dict)
    seed: int = 0
    pictures = labels = None
    epochs: Mapping[int, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A digest of the pass, or of the network where there is none."""
        if self.top:
            return self.top.fingerprint
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays_of(self.model))).hexdigest()

    @property
    def classes(self) -> list[str]:
        return list(self.model.classes)

    def classes_of_units(self, layer, units):
        return classes_of_units(self.model, layer, units)

    def views(self, top, layer, units, bar=None):
        """Views of these units, which must be among those that were kept, with the first of their pictures."""
        kept, k = self.of_layer[layer], top.values[layer].shape[1]
        rows = [kept.units.tolist().index(unit) for unit in units]
        if bar is not None:
            bar.update(k*len(rows))
        return chosen(kept, rows, k)

    @cached_property
    def names(self) -> dict[int, str]:
        return {int(number): str(name) for views in self.of_layer.values()
                for number, name in zip(views.pictures.ravel(), views.names.ravel()) if number >= 0}

    def name_of(self, number):
        return self.names.get(int(number), "")


def chosen(views, rows, k):
    """The views of these rows of units, with the first k of each unit's pictures."""
    of_pictures = "values", "pictures", "places", "boxes", "names", "projections", "patches"
    return replace(views, units=views.units[rows], filters=None, classes=None,
                   **{name: getattr(views, name)[rows, :k] for name in of_pictures})


def called_in_public(place):
    """Last name of a path, "" of none: who puts an atlas on a web server tells nobody where things lie on his machine."""
    return "" if place is None else Path(place).name


def classes_of_units(model, layer, units):
    """Numbers of the classes that units of the last layer stand for; None for another layer."""
    is_last = feature_layer(model.network, layer) == len(model.network.layers) - 1
    return units.tolist() if is_last and len(model.classes) == model.network.shapes[-1][0] else None


def kept_source(model: Trained, folder: Path, layers: Sequence[str], seed: int = 0) -> Kept:
    """Results that `zfcore top-activations` kept in `folder` of these layers; none where there is nothing of this network."""
    if not inside(folder, "top_activations.h5").is_file():
        return Kept(model, seed=seed)
    top, found = results.load(inside(folder, "top_activations.h5"), TopActivations), {}
    for path in sorted(folder.glob("*.h5")):
        if results.kind_of(inside(folder, path.name)) == "UnitViews":
            views = results.load(path, UnitViews)
            if views.layer in layers and fits(model, top, views):
                found.setdefault(views.layer, []).append(views)
    of_layer = {layer: joined(found[layer]) for layer in layers if layer in found}
    return Kept(model, top, of_layer, seed) if of_layer else Kept(model, seed=seed)


def joined(several):
    """Views of one layer from several files as one, in the order of the units; of a unit that comes twice the first."""
    _, first = np.unique(np.concatenate([views.units for views in several]), return_index=True)
    arrays = {each.name: np.concatenate([getattr(views, each.name) for views in several])[first] for each in fields(UnitViews)
              if each.name not in ("layer", "filters", "classes")}
    return UnitViews(several[0].layer, **arrays)


def fits(model, top, views):
    """Return whether views are of this pass, and of a network with such a layer."""
    layer, count = views.layer, unit_count(model.network, views.layer)
    if layer not in top.values or len(top.values[layer]) != count or views.units.max() >= count:
        return False
    side = field_regions(model.network, layer, views.boxes[:0, 0]).size
    return views.patches.shape[2] == side and all(np.array_equal(getattr(views, each), getattr(top, each)[layer][views.units])
                                                  for each in ("values", "pictures", "places", "boxes"))
