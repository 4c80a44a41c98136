"""Floor 6: what a unit is to the classes, to the units below and above it, and to the others of its layer.

    class_counts     of each unit's strongest pictures, how many are of which class
    selectivity      how much they are of one class
    net_weights      what a unit takes from the units of the layer below
    descriptor       what its projections look like, as a vector: the cosine of two is how alike two units are
    most_alike       the units that are most alike
    arranged         all of them on a plane, like beside like

None of these is the paper's; it looks at units one by one (section 4). They are what a person asks next.
"""
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zfcore.analysis.top_activations import TopActivations, UnitViews
from zfcore.backend import to_host
from zfcore.check import Expected
from zfcore.network import Network

FEWEST = 10                       # pictures that must make a unit fire before anything is said of their classes
DRAWN = 1000                      # lists of pictures that chance is the mean of
SIDE = 16                         # of the squares that projections are compared as
EXACT = 400                       # units up to which the exact way onto the plane is the faster one


# ------------------------------------------------------------------------------------------------------------ classes
def class_counts(top: TopActivations, layer: str, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(units,classes) int64: of each unit's strongest pictures in the pass `top`, how many have which of `labels`
    (pictures,)."""
    pictures = top.pictures[layer]
    units, ranks = np.nonzero(pictures >= 0)
    of = units*classes + labels[pictures[units, ranks]]
    return np.bincount(of, minlength=len(pictures)*classes).reshape(len(pictures), classes)


class Selectivity(NamedTuple):
    """Selectivity of the units of a layer for classes.

    common    (units,) int64      the commonest class among a unit's strongest pictures, the first of several; -1: none, as
                                  fewer than FEWEST pictures make it fire
    excess    (units,) float64    that class's share of these pictures, less its share of all pictures, less `by_chance`: on
                                  average 0 where the unit does not care, near 1 where it fires for one of many classes alone.
                                  NaN: none"""
    common: NDArray[np.int64]
    excess: NDArray[np.float64]


def selectivity(counts: NDArray[np.int64], labels: NDArray[np.int64]) -> Selectivity:
    """Selectivity of units with these `class_counts`, over a data set with these labels."""
    seen = counts.sum(axis=1)
    known = seen >= FEWEST
    of_all = np.bincount(labels, minlength=counts.shape[1])/max(len(labels), 1)
    common, excess = _commonest(counts, np.maximum(seen, 1), of_all)
    chance = by_chance(labels, counts.shape[1], np.unique(seen[known]).tolist())
    excess -= np.array([chance.get(n, np.nan) for n in seen.tolist()])
    return Selectivity(np.where(known, common, -1), np.where(known, excess, np.nan))


def by_chance(labels: NDArray[np.int64], classes: int, sizes: list[int]) -> dict[int, float]:
    """{size: how far the share of the commonest class lies above that class's share of all pictures in lists of so many of them,
    drawn at random}: above 0, as some class is always the commonest. The mean over DRAWN lists, always the same ones, of which
    a shorter one is a longer one's beginning."""
    if not sizes:
        return {}
    rng, most = np.random.Generator(np.random.Philox(key=[0, 0])), max(sizes)
    lists = np.stack([labels[rng.choice(len(labels), most, replace=False)] for _ in range(DRAWN)])
    of_all, counts = np.bincount(labels, minlength=classes)/max(len(labels), 1), np.zeros((DRAWN, classes), np.int64)
    found = {}
    for n in range(1, most + 1):
        counts[np.arange(DRAWN), lists[:, n - 1]] += 1
        if n in sizes:
            found[n] = float(_commonest(counts, n, of_all)[1].mean())
    return found


def _commonest(counts, seen, of_all):
    """(the commonest class of each row of `counts` (n,classes), its share of `seen` less its share `of_all`), (n,) each."""
    common = counts.argmax(axis=1)
    return common, counts[np.arange(len(counts)), common]/seen - of_all[common]


# ------------------------------------------------------------------------------------------------------------ weights
def weighted_below(network: Network, layer: str) -> str | None:
    """Name of the layer with weights whose units those of `layer` are computed from; None for the first."""
    names = [each.name for each in network.weighted]
    k = names.index(layer)
    return names[k - 1] if k else None


def net_weights(network: Network, layer: str) -> NDArray[np.float32]:
    """(units below, units) float32: the weight with which each unit of a layer with weights sees each unit of the one below (of
    the first: each colour), summed over the places at which it sees it. What lies between is left aside: a normalisation
    scales, a pool chooses."""
    below = weighted_below(network, layer)
    count = network.input_shape[0] if below is None else network.shapes[network.index(below) + 1][0]
    return to_host(network[layer].net_weights(count))


def strongest_weights(weights: NDArray[np.float32], most: int) -> list[list[tuple[int, float]]]:
    """Largest weights, up to `most` by their size, of each column of `weights` (inputs,units), as (input, weight): the largest
    first, a tie in order."""
    order = np.argsort(-np.abs(weights), axis=0, kind="stable")[:most]
    return [[(int(i), float(weights[i, unit])) for i in order[:, unit] if weights[i, unit]] for unit in range(weights.shape[1])]


# ----------------------------------------------------------------------------------------------------------- likeness
def mean_projection(views: UnitViews) -> NDArray[np.float32]:
    """(U,f,f,3): the mean of each unit's projections, each scaled to length 1; 0 where the unit never fires."""
    lengths = np.sqrt(np.square(views.projections, dtype=np.float64).sum(axis=(2, 3, 4), keepdims=True))
    unit_length = views.projections/np.where(lengths > 0, lengths, 1)
    fired = np.maximum((views.pictures >= 0).sum(axis=1), 1)
    return (unit_length.sum(axis=1)/fired[:, None, None, None]).astype(np.float32)


def descriptor(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """(U,D): mean projections (U,f,f,3) shrunk to at most SIDE x SIDE pixels by means over blocks, scaled to length 1; 0 of a
    unit that never fires."""
    side = min(SIDE, mean.shape[1])
    edges = np.linspace(0, mean.shape[1], side + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(mean.astype(np.float64), edges[:-1], axis=1), edges[:-1], axis=2)
    sizes = np.diff(edges)
    shrunk = (sums/(sizes[:, None, None]*sizes[:, None])).reshape(len(mean), -1)
    lengths = np.linalg.norm(shrunk, axis=1, keepdims=True)
    return (shrunk/np.where(lengths > 0, lengths, 1)).astype(np.float32)


def most_alike(described: NDArray[np.float32], most: int) -> list[list[tuple[int, float]]]:
    """Units most alike to each of U units with descriptors (U,D), up to `most` others, as (position, cosine), the most alike
    first. Units that never fire are alike to none."""
    fires = np.asarray(described.any(axis=1))
    cosines = described @ described.T
    cosines[:, ~fires] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    return [[(int(j), float(cosines[i, j])) for j in order[i] if fires[i] and np.isfinite(cosines[i, j])]
            for i in range(len(described))]


def arranged(described: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """(U,2) in 0..1: units on a plane so that those with like descriptors (U,D) lie together (t-SNE, van der Maaten and Hinton
    2008, as scikit-learn computes it); NaN for units that never fire. Distances between groups mean nothing. Raises Expected
    without scikit-learn."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise Expected("the map of units", "scikit-learn", "none", 'pip install "zfcore[atlas]"') from None
    places, fires = np.full((len(described), 2), np.nan), np.flatnonzero(described.any(axis=1))
    if len(fires) < 5:                                     # too few for neighbourhoods: in a row
        places[fires] = np.stack([(np.arange(len(fires)) + 0.5)/max(len(fires), 1), np.full(len(fires), 0.5)], axis=1)
        return places
    method = "exact" if len(fires) <= EXACT else "barnes_hut"
    found = TSNE(perplexity=min(30, (len(fires) - 1)/3), init="pca", random_state=seed,
                 method=method).fit_transform(described[fires])
    low, high = found.min(axis=0), found.max(axis=0)
    places[fires] = (found - low)/np.where(high > low, high - low, 1)
    return places
