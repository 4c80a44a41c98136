"""Floor 6: which units of one network answer to pictures as units of another do.

Of each unit the answer to a picture is the strongest activation in its map. Two units are as like as these answers are
correlated over a data set (Pearson's r; as Li, Yosinski, Clune, Lipson and Hopcroft 2015 compare networks). The best of many
units is somewhat correlated with anything, so beside each match stands what the best would be by chance: the same with the
answers of the other network permuted, the usual control of a correlation. The pictures go up in one order that is drawn once,
and each is paired with the one before it there, the first with the last: no picture with itself, and the same pairs in whatever
batches.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.known import varying
from zfcore.analysis.top_activations import decoded
from zfcore.backend import to_host
from zfcore.check import Expected
from zfcore.data.loader import Pictures
from zfcore.deconvnet import check_layers, feature_layer
from zfcore.hints import Bar
from zfcore.trained import Trained, check_pass_of


@dataclass(frozen=True, eq=False)
class Matching:
    """Match of each unit of a network's layers in the layers of the same names of another.

    units      {layer: (units,) int64}      the unit of the other network whose answers are correlated most; -1 of a unit that
               always
                                            answers the same
    r          {layer: (units,) float64}    the correlation, NaN where there is no match
    by_chance  {layer: (units,) float64}    what the best correlation is with answers to other pictures, the same permuted
    total      pictures that both were asked of, without damaged ones"""
    FORM = {"units": "{layer} int64 U -1..", "r": "{layer} float64 U", "by_chance": "{layer} float64 U", "total": "int 1.."}
    units: dict[str, NDArray[np.int64]]
    r: dict[str, NDArray[np.float64]]
    by_chance: dict[str, NDArray[np.float64]]
    total: int


class Sums:
    """Sums over pictures from which the correlations of two layers' units follow."""
    def __init__(self, one, other):
        self.count, self.a, self.b, self.aa, self.bb = 0, np.zeros(one), np.zeros(other), np.zeros(one), np.zeros(other)
        self.ab, self.chance = np.zeros((one, other)), np.zeros((one, other))         # of one picture; of one and that before
        self.first, self.last = np.zeros((one, 1)), np.zeros((other, 1))              # answers that meet when all are there

    def add(self, a, b):
        """Add the answers (units,N) of both to the N pictures that come next."""
        a, b = a.astype(np.float64), b.astype(np.float64)
        self.chance += a @ np.concatenate([self.last, b[:, :-1]], axis=1).T
        self.first, self.last = self.first if self.count else a[:, :1], b[:, -1:]
        self.count += a.shape[1]
        self.a, self.aa = self.a + a.sum(axis=1), self.aa + np.square(a).sum(axis=1)
        self.b, self.bb = self.b + b.sum(axis=1), self.bb + np.square(b).sum(axis=1)
        self.ab += a @ b.T

    def correlations(self, by_chance=False):
        """(units,units) float64 of Pearson's r, NaN where an answer never changes."""
        products = self.chance + self.first @ self.last.T if by_chance else self.ab
        n = max(self.count, 1)
        scale = np.sqrt(np.outer(varying(self.aa/n - (self.a/n)**2, self.aa/n), varying(self.bb/n - (self.b/n)**2, self.bb/n)))
        return np.divide(products/n - np.outer(self.a/n, self.b/n), scale, where=scale > 0, out=np.full(scale.shape, np.nan))


def matching(model: Trained, pictures: Pictures, other: Trained, others: Pictures, layers: Sequence[str], *,
             batch_size: int = 64, bar: Bar | None = None) -> Matching:
    """Match the units of `model` with those of `other`, in one pass over the same data set, which each sees as its own pictures
    were prepared. `bar` moves on by one a picture. Raises Expected for different data sets, and for a layer that one of them
    does not have."""
    check_pass_of(model, pictures, batch_size)
    check_pass_of(other, others, batch_size)
    layers = check_layers(model.network, layers)
    check_same(pictures, others)
    count = lambda of, layer: of.network.shapes[feature_layer(of.network, layer) + 1][0]
    sums = {layer: Sums(count(model, layer), count(other, layer)) for layer in layers}
    for batch, _, indices in pictures.batches(batch_size, seed=0, epoch=0):          # shuffled: a neighbour is any picture
        if not len(indices):                               # all damaged
            continue
        ours, theirs = answers(model, batch, layers), answers(other, decoded(others, indices), layers)
        for layer in layers:
            sums[layer].add(ours[layer], theirs[layer])
        if bar is not None:
            bar.update(len(indices))
    units, r, chance = {}, {}, {}
    for layer, of_layer in sums.items():
        units[layer], r[layer] = best(of_layer.correlations())
        _, chance[layer] = best(of_layer.correlations(by_chance=True))
    return Matching(units, r, chance, pictures.sound)


def check_same(pictures, others):
    """Raise Expected unless both are the pictures of one data set, which may have been opened once for each."""
    one, other = pictures.dataset, others.dataset
    if len(one) != len(other):
        raise Expected("others", "the same as pictures, for both networks", f"{len(other)}, not {len(one)}")
    for what in "names", "classes", "labels":
        if not np.array_equal(getattr(one, what), getattr(other, what)):
            raise Expected("others", "the same as pictures, for both networks", f"some with other {what}")
    alike = type(one) is type(other) and pictures.size == others.size           # of another one they may be decoded in another way
    if alike and pictures.key() != others.key():
        raise Expected("others", "the same as pictures, for both networks", "others of the same names")


def answers(model, batch, layers):
    """{layer: (units,N)}: the strongest activation of each map for each picture."""
    names = {layer: model.network.layers[feature_layer(model.network, layer)].name for layer in layers}
    maps = model.network.activations(model.inputs(batch), names.values())
    found = {layer: to_host(maps[name].reshape(len(maps[name]), -1, len(batch)).max(axis=1)) for layer, name in names.items()}
    for layer, values in found.items():
        check.finite(f"{layer}: activations", values)
    return found


def best(correlations):
    """((units,) int64 of the columns with the largest correlation, -1 where there is none; that correlation)."""
    known = np.where(np.isnan(correlations), -np.inf, correlations)
    columns = known.argmax(axis=1)
    r = known[np.arange(len(known)), columns]
    return np.where(np.isfinite(r), columns, -1), np.where(np.isfinite(r), r, np.nan)
