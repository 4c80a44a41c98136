"""Floor 6: what is wrong with the first layers (paper, section 4.1 and figure 6): the numbers behind what the paper saw.

    dominance   of layer 1's filters, max/median of their RMS. Without the RMS limit a few of them come to dominate
    dead        units that no picture of the data set makes fire, a share of each layer
    spectrum    of layer 1's filters, energy over the radial frequency in cycles a pixel, each filter weighing the same.
                In AlexNet's the paper sees very high and very low frequencies and little between them
    aliasing    of layer 2's projections, which the paper sees with stride 4 and not with stride 2

and, of all layers, what decides whether their projections can be read (zfcore/analysis/sanity_checks.py):

    start       how much of the weights is still the random start
    legible     how much of the projections of some units lies in the object's box and in its parts, beside controls

Aliasing. On the way down every value of layer 1's maps lays a filter on the picture, at every S-th pixel: what comes from
this grid and not from the picture has the grid's period, so it lies at the frequencies (k/S, l/S). (The grids above leave no
such mark, as the unpooling moves what it hands down to where the switches say.) A real texture can have such frequencies
too, so only what stands out of the spectrum around them is counted: from the mean power spectrum of the projections, each
under a Hann window and at energy 1,

    aliasing = sum over the frequencies (k/S, l/S) but (0, 0) of [energy nearer than r
               - area of that disc * density of the ring from r to 1/(2S) around it],

r = 2/f being the width of a line under that window of f pixels. It is a share of all energy: 0 for any smooth spectrum,
white noise among them, about 1 for a grating of the grid's period, a little below 0 where something stands out in the rings.
It sees the regular comb that smooth maps lay; copies of a filter at scattered points of the grid leave no line.
"""
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.known import mean_of_known
from zfcore.analysis.sanity_checks import sanity_checks, shares_of_start
from zfcore.analysis.top_activations import top_activations, views_of
from zfcore.backend import to_host
from zfcore.data.loader import Pictures, shuffled
from zfcore.deconvnet import feature_layer, unit_count
from zfcore.hints import Bar, FilePath, Ints
from zfcore.ops.clip_filter_rms import rms
from zfcore.trained import Trained, check_pass_of

EDGES = np.arange(16)/20                                # of the spectrum's bands, in cycles a pixel; the highest has 0.71
LOW, HIGH = 0.1, 0.25                                   # periods of 10 pixels, as wide as AlexNet's filters, and of 4
FREQUENCIES = 128                                       # of the transform, along each side


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Diagnosis of one network's filters and maps.

    filters      (3,K,K,F) float32     of layer 1, whose stride is `stride`
    rms          (F,) float64          root mean square of each over its weights
    dominance    max/median of these; infinite where most of them are 0, NaN where all are
    spectrum     (F,B) float64         share of each filter's energy in the bands between `edges`, NaN for a filter of 0
    dead         {layer: (units,) bool}  that no picture makes fire; of the layers that a ReLU ends
    total        pictures in the data set, damaged ones among them
    units (U,), projections (U,k,f,f,3), patches (U,k,f,f,3)    of some of layer 2's units, as in `top_activations.UnitViews`
    aliasing     of the projections of `measured` units of layer 2; NaN where it has no meaning: stride 1, or a field of fewer
                 than 8 strides, in which lines cannot be told apart
    start        {layer: (1,) float64}   share of the start in its weights' energy, {} where the start is not known
    legible      {layer: (4,2) float64}   of the projections of up to LOOKED_AT units under each of JUDGED: mean share of the
                 energy inside the object's box, and of the box's inside its parts; {} where the truth is not known. NaN: no
                 such control
    areas        {layer: (2,) float64}    what these shares are of the area
    """
    FORM = {"name": "text", "filters": "float32 3 K K F finite", "stride": "int 1..", "rms": "float64 F 0..",
            "dominance": "float", "spectrum": "float64 F B", "edges": "float64 B+1 finite", "dead": "{dead?} bool D",
            "total": "int 1..", "layer": "text", "units": "int64 U? 0..", "projections": "float32 U k f f 3 finite",
            "patches": "uint8 U k f f 3", "aliasing": "float", "measured": "int 0..", "start": "{start?} float64 1",
            "legible": "{legible?} float64 4 2", "areas": "{legible?} float64 2"}
    name: str
    filters: NDArray[np.float32]
    stride: int
    rms: NDArray[np.float64]
    dominance: float
    spectrum: NDArray[np.float64]
    edges: NDArray[np.float64]
    dead: dict[str, NDArray[np.bool_]]
    total: int
    layer: str
    units: NDArray[np.int64]
    projections: NDArray[np.float32]
    patches: NDArray[np.uint8]
    aliasing: float
    measured: int
    start: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    legible: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    areas: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def bands(self) -> dict[str, float]:
        return bands(self.spectrum)

    def dominance_in_words(self) -> str:
        """Dominance as a person reads it: over a median of 0 it is no number."""
        if np.median(self.rms) > 0:
            return f"{self.dominance:.2f}" if self.dominance < 1e6 else f"{self.dominance:.1e}"
        return "infinite, most filters are 0" if self.rms.any() else "none, all filters are 0"


def diagnose(model: Trained, pictures: Pictures, units: Ints, *, name: str | None = None, k: int = 9, batch_size: int = 64,
             file: FilePath | None = None, bar: Bar | None = None) -> Diagnosis:
    """Diagnosis of a network over a data set; `units` of layer 2 are kept with their k strongest pictures' projections, and
    aliasing is measured on those of all its units. `name` is what it is called, None: by its model. `bar` moves on by one a
    picture and one a projection (`length`).

    Raises Expected for a network that does not begin with two convolutions, the first of which sees all colours through a window,
    or an empty data set."""
    batch_size, k = check_pass_of(model, pictures, batch_size), check.whole("k", k)
    check.instance("name", name := model.name if name is None else name, str)
    network, start = model.network, model.start
    first, second = first_two(network)
    w = to_host(network.colour_filters)                                         # on a CPU the network's own, which may learn on
    _, stride, _ = network[first].window()
    layers, upper = rectified(network), judged_layers(network)
    top = top_activations(model, pictures, looked_at(network), k, batch_size=batch_size, file=file, bar=bar)
    power, measured = 0, 0
    for unit in range(unit_count(network, second)):                             # k projections in memory at a time
        views = views_of(model, pictures, top, second, [unit], bar=bar)
        shown = views.projections[views.pictures >= 0]
        power = power + power_spectrum(shown, stride)
        measured += bool(len(shown))
        if bar is not None:
            bar.update(k - len(shown))
    kept = views_of(model, pictures, top, second, units)
    return Diagnosis(name, w.astype(np.float32), stride, rms(w), dominance(w),
                     radial_shares(w), EDGES.copy(), {layer: top.dead(layer) for layer in layers}, top.total,
                     second, kept.units, kept.projections, kept.patches,
                     aliasing(power, stride, kept.projections.shape[2]), measured,
                     {} if start is None else {layer: np.array([share])
                                               for layer, share in shares_of_start(network, start).items()},
                     *judge(model, pictures, top, upper))


JUDGED = "as trained", "another unit", "weights of the start", "untrained"      # of the conditions of `sanity_checks`
LOOKED_AT = 24                                          # units of a layer at most


def judged_layers(network):
    """Names of the layers whose projections are judged: those above a pool, the classes among them."""
    pooled = [network.index(layer.name) for layer in network.layers if layer.has_switches]
    return [layer.name for k, layer in enumerate(network.layers) if layer.has_weights and pooled and k > pooled[0]]


def looked_at(network):
    """Names of the layers whose strongest pictures a diagnosis looks for: those that a ReLU ends, and those that are judged."""
    return list(dict.fromkeys([*rectified(network), *judged_layers(network)]))


def judge(model, pictures, top, layers):
    """(legible, areas) of a Diagnosis, each unit with its strongest picture. Both are {} where the truth is not known; a layer
    that fewer than two pictures make fire is left out."""
    legible, areas = {}, {}
    for layer in layers if hasattr(pictures.dataset, "truth") else ():
        alive = np.flatnonzero(~top.dead(layer))
        if len(np.unique(top.pictures[layer][alive, 0])) < 2 or len(top.pictures[layer]) < 2:
            continue                                                             # nothing that a control could bring instead
        units = np.sort(shuffled(len(alive), 0, model.network.index(layer))[:LOOKED_AT])
        found = sanity_checks(model, pictures, top.first(1, layer), layer, alive[units], only=JUDGED)
        at = [found.conditions.tolist().index(name) if name in found.conditions else -1 for name in JUDGED]
        of = np.stack([mean_of_known(shares)[0] for shares in (found.inside, found.in_parts)], axis=1)            # (J,2)
        legible[layer] = np.where(np.array(at)[:, None] < 0, np.nan, of[at])
        areas[layer] = np.array([found.area.mean(), mean_of_known(found.parts_area)[0]])
    return legible, areas


def dominance(w):
    """max/median of the RMS of filters (C,K,K,F); infinite where most of them are 0, NaN where all are."""
    sizes = rms(w)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(sizes.max(), np.median(sizes)))


def first_two(network):
    """Names of the first two convolutions."""
    names = [layer.name for layer in network.convolutions]
    if len(names) < 2 or not network.layers[0].has_filters:
        raise check.Expected(network.name, "a network whose layers 1 and 2 are convolutions", f"{len(names)} convolutions")
    if network.colour_filters is None or network.layers[0].window() is None:
        raise check.Expected(f"{network.name}: {names[0]}", "filters that see all three colours, at a stride",
                             f"filters {network.layers[0].parameters['w'].shape}")
    return names[:2]


def rectified(network):
    """Names of the layers whose units fire or do not: those with weights and a ReLU behind them."""
    return [layer.name for layer in network.weighted
            if network.layers[feature_layer(network, layer.name)].rectifies]


def length(network, pictures, k):
    return len(pictures) + k*unit_count(network, first_two(network)[1])


# ---------------------------------------------------------------------------------------------- spectrum of filters
def radial_shares(w):
    """Filters (C,K,K,F) -> (F,B): the share of energy of each between EDGES. The transform of a filter amid zeros tells its
    energy at any frequency, so filters of different sizes are measured by the same bands."""
    energy = np.square(np.abs(np.fft.fft2(w.astype(float), (FREQUENCIES, FREQUENCIES), axes=(1, 2)))).sum(axis=0)
    band = np.digitize(radius(FREQUENCIES), EDGES) - 1
    sums = np.stack([energy[band == b].sum(axis=0) for b in range(len(EDGES) - 1)], axis=1)      # (F,B)
    total = sums.sum(axis=1, keepdims=True)
    return np.divide(sums, total, where=total > 0, out=np.full(sums.shape, np.nan))


def bands(spectrum):
    """The filters' mean shares of energy below LOW, from there to HIGH, and above, of a spectrum (F,B); NaN if all are 0."""
    (shares, _), middles = mean_of_known(spectrum), (EDGES[:-1] + EDGES[1:])/2
    band = np.digitize(middles, (LOW, HIGH))
    return {name: float(shares[band == b].sum()) for b, name in enumerate(("low", "mid", "high"))}


def radius(count, centre=(0, 0)):
    """(count,count): how far the frequencies of a transform are from `centre`, in cycles a pixel; frequencies are periodic."""
    rows, columns = (np.abs((np.fft.fftfreq(count) - at + 0.5) % 1 - 0.5) for at in centre)
    return np.hypot(rows[:, None], columns)


# ---------------------------------------------------------------------------------------- aliasing of projections
def power_spectrum(projections, stride):
    """Projections (n,f,f,3) -> the sum of their power spectra (M,M), each at energy 1; M is a multiple of the stride, so
    that the grid's frequencies are among the transform's, and at least 4f, so that a disc of width 2/f has many of them."""
    f = projections.shape[1]
    M = stride*-(-4*f//stride)
    hann = np.hanning(f + 2)[1:-1]
    seen = projections*(hann[:, None]*hann)[..., None]
    power = np.square(np.abs(np.fft.fft2(seen.astype(float), (M, M), axes=(1, 2)))).sum(axis=3)
    total = power.sum(axis=(1, 2), keepdims=True)
    return (power/np.where(total > 0, total, 1)).sum(axis=0)


def aliasing(power, stride, f):
    """The share of energy at the frequencies of a grid of `stride` pixels that stands out of a power spectrum (M,M) of
    projections f pixels wide; see above."""
    line, half = 2/f, 1/(2*stride)
    if stride == 1 or 2*line > half or not power.any():
        return float("nan")
    share = 0
    for k, l in np.ndindex(stride, stride):
        distance = radius(len(power), (k/stride, l/stride))
        disc, ring = distance < line, (distance >= line) & (distance < half)
        if (k, l) != (0, 0):
            share += power[disc].sum() - disc.sum()*power[ring].mean()
    return float(share/power.sum())
