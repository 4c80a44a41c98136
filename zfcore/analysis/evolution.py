"""Floor 6: how what a unit sees comes about in training (paper, section 4 and figure 4).

    kept_epochs     the checkpoints that a run kept
    evolution       at each of them every unit's strongest picture of a data set, its projection, and two numbers a layer

The paper shows strips and says that low layers settle in a few epochs, high ones late. Two numbers say how much moves from
one kept epoch to the next, over all units of a layer that fire at the later one:

    moved    the share whose strongest picture is another one. It jumps, as the paper's strips do: two pictures
             of nearly the same strength change places although the unit hardly changed
    change   1 - cosine between what the two networks project from one and the same place of one and the same
             picture, the strongest at the later epoch. 0: the same projection up to its strength; 1: nothing in common, as
             where the unit did not fire there at the earlier epoch. This is the unit's own change, without the jumps

Kept epochs are not equally far apart: compare layers at one step, or steps of equal ratio.
"""
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.top_activations import top_activations, views_of
from zfcore.data.loader import Pictures
from zfcore.deconvnet import check_layers, check_units, unit_count
from zfcore.files import inside
from zfcore.hints import Bar, FilePath, Ints
from zfcore.network import Network
from zfcore.networks import names
from zfcore.terminal import command
from zfcore.trained import Trained, check_pass_of

PIECE = 32                        # units whose projections are in memory at a time


@dataclass(frozen=True, eq=False)
class Evolution:
    """Strips of U units of each layer over E epochs, and the numbers of all its units over the E - 1 steps between.

    epochs        (E,) int64
    units         {layer: (U,) int64}
    projections   {layer: (U,E,f,f,3) float32}    cropped as in `top_activations.UnitViews`; 0 where the unit never fires
    values        {layer: (U,E) float32}          the activation, 0 where it never fires
    pictures      {layer: (U,E) int64}            index in the data set, -1 where it never fires
    moved, change {layer: (E-1,) float64}         NaN where no unit fires at the later epoch
    dead          {layer: (E,) float64}           share of all units that no picture makes fire
    total         pictures in the data set
    unrelated     {layer: (1,) float64}           the scale of `change`: 1 - cosine between the strongest projections of units
                  that
                                                  have nothing to do with each other, at the last epoch; or None
    classes       {layer: (U,) texts}             the units' classes, of the last layer, where the caller knows them; or None
    changes       {layer: (E-1,D) float64}        `change` of each of a layer's D units, NaN where it does not fire at the later
                                                  epoch; or None"""
    FORM = {"epochs": "int64 E 0..", "units": "{layer} int64 U 0..", "projections": "{layer} float32 U E f f 3 finite",
            "values": "{layer} float32 U E finite", "pictures": "{layer} int64 U E -1..", "moved": "{layer} float64 E-1",
            "change": "{layer} float64 E-1", "dead": "{layer} float64 E 0..1", "total": "int 1..",
            "unrelated": "{unrelated?} float64 1", "classes": "{classes?} text U", "changes": "{changes?} float64 E-1 D"}
    epochs: NDArray[np.int64]
    units: dict[str, NDArray[np.int64]]
    projections: dict[str, NDArray[np.float32]]
    values: dict[str, NDArray[np.float32]]
    pictures: dict[str, NDArray[np.int64]]
    moved: dict[str, NDArray[np.float64]]
    change: dict[str, NDArray[np.float64]]
    dead: dict[str, NDArray[np.float64]]
    total: int
    unrelated: dict[str, NDArray[np.float64]] | None = None
    classes: dict[str, NDArray[np.str_]] | None = None
    changes: dict[str, NDArray[np.float64]] | None = None


def kept_epochs(run: FilePath, wanted: Collection[int] | None = None) -> dict[int, Path]:
    """{epoch: file} of the checkpoints epoch_NNNN.h5 in a run's folder, in order: all, or those of the epochs `wanted`.

    Raises Expected where there are none, or where one that is wanted is missing."""
    if not Path(run).is_dir():
        raise check.Expected("--run", "a run's folder with kept epochs", run,
                             command(*("python", "-m", "train.reference", run) if str(run) in names() else
                                     ("python", "-m", "train", "--output", Path(run), "--keep-epochs", 1, 2, 5)) + " trains one")
    names_found = [path.name for path in Path(run).iterdir() if re.fullmatch(r"epoch_\d+\.h5", path.name)]
    files = {int(name[6:-3]): inside(run, name) for name in names_found}
    kept = dict(sorted(files.items()))
    if not kept:
        raise check.Expected(run, "checkpoints epoch_NNNN.h5", "none", "python -m train --keep-epochs 1 2 5 keeps some")
    missing = sorted(set(wanted or ()) - set(kept))
    if missing:
        raise check.Expected("--epochs", f"some of the kept ones, {_listed(kept)}", f"{_listed(missing)}, not kept")
    return {epoch: kept[epoch] for epoch in sorted(set(wanted or kept))}


def evolution(models: Iterable[Trained], pictures: Pictures, layers: Sequence[str], units: Mapping[str, Ints], *,
              batch_size: int = 64, file_of: Callable[[Trained], FilePath] | None = None, bar: Bar | None = None) -> Evolution:
    """One pass over `pictures` with each of `models`, then the projections.

    models       one at the end of each epoch, later and later ones; of an iterator two are in memory at a time
    units        {layer: the units whose strips are kept}
    file_of      says where a model's pass is kept: a stopped one goes on, a finished one is read
    bar          moved on, `length` in all

    Raises Expected for a layer or a unit that there is not, an empty data set, where there are no models, and unless each is of a
    later epoch than the one before."""
    check.instance("models", models, Iterable, "a list, of one network too: [model]")
    check.instance("units", units, Mapping, "{layer: units}")
    if file_of is not None:
        check.instance("file_of", file_of, Callable)
    for layer in (layers := check.different_names("--layers", layers)):
        if layer not in units:
            raise check.Expected("units", f"those of {layer} too", f"those of {', '.join(map(str, units)) or 'no layer'}")
    strips, epochs = {layer: [] for layer in layers}, []
    moved, changes, dead = ({layer: [] for layer in layers} for _ in range(3))
    model = top = None
    for now in models:
        check_pass_of(now, pictures, batch_size)
        check_layers(now.network, layers)
        if epochs and now.epoch <= epochs[-1]:
            raise check.Expected("models", "each of a later epoch than the one before", f"epoch {now.epoch} after {epochs[-1]}")
        earlier, before, model = model, top, now
        epochs.append(model.epoch)
        units = {layer: check_units(model.network, layer, units[layer]) for layer in layers}
        file = file_of(model) if file_of else None
        top = top_activations(model, pictures, layers, 1, batch_size=batch_size, file=file, bar=bar)
        for layer in layers:
            strips[layer].append(views_of(model, pictures, top, layer, units[layer]))
            dead[layer].append(top.dead(layer).mean())
            if earlier is not None:
                moved[layer].append(_moved(before, top, layer))
                changes[layer].append(changes_since(earlier, model, pictures, top, layer, bar))
    check.positive("epochs", len(epochs))
    joined = {name: {layer: np.concatenate([getattr(views, name) for views in strips[layer]], axis=1) for layer in layers}
              for name in ("projections", "values", "pictures")}
    numbers = {name: {layer: np.array(row, np.float64) for layer, row in rows.items()}
               for name, rows in (("moved", moved), ("dead", dead))}
    change = {layer: np.array([_mean(of_step) for of_step in rows], np.float64) for layer, rows in changes.items()}
    unrelated = {layer: np.array([_between_units(model, pictures, top, layer, bar)]) for layer in layers}
    return Evolution(np.array(epochs, np.int64), units, **joined, **numbers, change=change, total=len(pictures),
                     unrelated=unrelated,
                     changes={layer: np.array(rows) for layer, rows in changes.items()} if len(epochs) > 1 else None)


def _moved(before, top, layer):
    """Share of the units that fire now whose strongest picture was another one (or none) before."""
    now, then = top.pictures[layer][:, 0], before.pictures[layer][:, 0]
    return (now != then)[now >= 0].mean() if (now >= 0).any() else np.nan


def changes_since(earlier, model, pictures, top, layer, bar=None):
    """(D,) of each unit 1 - cosine between the projections by both networks from the place in `top`; NaN where it does not
    fire."""
    dead = top.dead(layer)
    fires, distances = np.flatnonzero(~dead), np.full(len(dead), np.nan)
    for at in range(0, len(fires), PIECE):
        units = fires[at:at + PIECE]
        one, other = (views_of(of, pictures, top, layer, units, bar=bar).projections[:, 0] for of in (earlier, model))
        distances[units] = 1 - cosine(one, other)
    if bar is not None:
        bar.update(2*int(dead.sum()))
    return distances


def _mean(distances):
    """Mean of those that are numbers, NaN without any."""
    known = distances[~np.isnan(distances)]
    return known.mean() if len(known) else np.nan


def _between_units(model, pictures, top, layer, bar):
    """Mean of 1 - cosine between the strongest projections of the units that fire and those of the next of them: what
    `changes_since` would say if a unit had become another one. NaN for fewer than two."""
    fires = np.flatnonzero(~top.dead(layer))
    shown = [views_of(model, pictures, top, layer, fires[at:at + PIECE], bar=bar).projections[:, 0]
             for at in range(0, len(fires), PIECE)]
    if bar is not None:
        bar.update(int(top.dead(layer).sum()))
    if len(fires) < 2:
        return np.nan
    shown = np.concatenate(shown)
    return (1 - cosine(shown, np.roll(shown, 1, axis=0))).mean()


def length(network: Network, pictures: Pictures, layers: Sequence[str], epochs: int) -> int:
    """Number of times that a picture is shown to a network: each at each epoch, and one twice for each unit and step and once
    more."""
    return epochs*len(pictures) + (2*epochs - 1)*sum(unit_count(network, layer) for layer in layers)


def cosine(one, other):
    """Cosine between arrays one[n] and other[n], (n,) float64; 0 where one of them is 0 everywhere."""
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
    lengths = np.linalg.norm(one, axis=1)*np.linalg.norm(other, axis=1)
    return np.einsum("np,np->n", one, other)/np.where(lengths > 0, lengths, 1)


def _listed(numbers):
    return ", ".join(map(str, numbers))
