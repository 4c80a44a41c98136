"""Floor 6: arrays in, pictures out. The only file that imports matplotlib, and only here is a colour chosen.

Each function returns a Figure of matplotlib, or a Sheet, which a notebook shows and `save` writes, as PNG or as SVG or PDF,
whose texts and lines are vectors around the same pixels. The same arrays give the same bytes."""
import io
import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle, pairwise
from pathlib import Path
from threading import RLock
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zfcore import check
from zfcore.analysis.correspondence import Correspondence
from zfcore.analysis.diagnostics import Diagnosis
from zfcore.analysis.evolution import Evolution
from zfcore.analysis.invariance import Invariance
from zfcore.analysis.known import mean_of_known
from zfcore.analysis.occlusion import Occlusion, silent
from zfcore.analysis.sanity_checks import OTHER_CONDITIONS, SanityChecks
from zfcore.analysis.top_activations import MID_GREY, UnitViews
from zfcore.backend import to_host
from zfcore.checkpoint import atomic
from zfcore.deconvnet import Projection
from zfcore.hints import FilePath
from zfcore.results import FIGURES
from zfcore.terminal import percent, plural, printable

TRAIN, VAL, GREY = "#7a8fa6", "#c8442d", "#808080"
UNTRAINED = "#b5893b"                        # of what random weights give, beside what was learned
PAPER, INK, FAINT = "#ffffff", "#404040", "#d8d8d8"
STROKE = "#e02020"
HEAT = "viridis"                             # jet's order, blue low to yellow high, without the edges that jet invents
CLASSES = "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1 #edc948 #9c755f #bab0ac".split()       # the last one for all others
MARGIN, LABEL, LINE = 24, 22, 15             # pixels between the blocks of a sheet, above one for its label, of a line of text
WIDEST = 1280                                # pixels, of a sheet: a screen; a README shows it at 0.7 of that
MOST = 2**27                                 # numbers in the tiles of a figure
DPI = 110
TINY, SMALL, LARGE = 9, 12, 14               # pixels, of letters
FORMATS = dict(zip(FIGURES, ({}, {"Date": None}, {"CreationDate": None})))                # and what is left out of each
STYLE: dict[Any, Any]
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titleweight": "bold",
         "legend.frameon": False, "figure.dpi": DPI, "image.interpolation": "none", "image.composite_image": False,
         "svg.hashsalt": "zfcore", "pdf.fonttype": 42, "text.parse_math": False}       # a name may hold a $
Pixels: TypeAlias = NDArray[np.floating[Any]]
# {name of a row: {place: (mean, spread or None)}}
Curves: TypeAlias = Mapping[str, Mapping[int, tuple[float, float | None]]]
Errors: TypeAlias = tuple[float | None, float | None]                           # in training, in validation

_STYLE_LOCK = RLock()                        # matplotlib has one style: what two threads put back by turns is neither's


@contextmanager
def _style() -> Iterator[None]:
    with _STYLE_LOCK, matplotlib.rc_context(STYLE):
        yield


styled = _style()                            # a decorator: within the function, so that a user's own figures stay as they are


@styled
def save(drawn: "Figure | Sheet", path: FilePath) -> None:
    """Write a Figure of matplotlib or a Sheet, which is what the functions below return, in the format that `path` ends with:
    .png, or .svg and .pdf. All or nothing. Raises Expected for another ending, and where the disk refuses."""
    check.instance("drawn", drawn, (Figure, Sheet), "plots.as_image(pixels).save(path) writes pixels in 0..1")
    check.instance("path", path, (str, os.PathLike))
    kind = Path(path).suffix[1:].lower()
    check.one_of(f"{path}: format", kind, FORMATS)
    if isinstance(drawn, Sheet) and kind != "png":
        drawn = drawn.figure()
    with atomic(Path(path)) as temporary, warnings.catch_warnings():
        # of an alphabet that the font lacks: a box stands for it
        warnings.filterwarnings("ignore", "Glyph .* missing")
        if isinstance(drawn, Sheet):
            drawn.image().save(temporary, "PNG", compress_type=Image.RLE)          # a third of the time, 5 % more bytes
        else:
            drawn.savefig(temporary, format=kind, metadata=FORMATS[kind])


@styled
def learning_curves(history: Mapping[str, Sequence[float]], epoch: int | None = None) -> Figure:
    """Loss and error in % over the epochs, training and validation; thin lines where the learning rate fell, as the legend
    says, and a dashed one at an `epoch`, that of the network at hand. Raises Expected for a history without these columns or
    epochs."""
    check.instance("history", history, Mapping)
    history = {column: check.numbers(f"history: {column}", history.get(column, ()))
               for column in ("epoch", "lr", "train_loss", "train_error", "val_loss", "val_error")}
    epochs = history["epoch"]
    if not epochs.size:
        raise check.Expected("history", "a row for each epoch", "none", "a run that has trained for one has them: "
                             "zfcore.open(folder).history; a network that comes with zfcore, or from elsewhere, has none")
    for column, values in history.items():
        check.shape(f"history: {column}", values, (epochs.size,))
    figure, (left, right) = _subplots(1, 2, figsize=(8, 3))
    for axes, name, factor, title in ((left, "loss", 1, "loss (cross-entropy)"), (right, "error", 100, "top-1 error, %")):
        for part, colour, word in (("train", TRAIN, "training"), ("val", VAL, "validation")):
            values = factor*history[f"{part}_{name}"]
            axes.plot(epochs, values, color=colour, marker="o", ms=2.5, lw=1.5, label=f"{word} ({_digits(values[-1], 3)})",
                      clip_on=False)
        falls = [later for before, after, later in zip(history["lr"], history["lr"][1:], epochs[1:]) if after < before]
        for number, fall in enumerate(falls):
            axes.axvline(fall - 0.5, color=GREY, lw=0.5, label="_" if number else "the learning rate falls")
        if epoch is not None:
            axes.axvline(epoch, color=INK, lw=1, ls=(0, (3, 3)), label=f"this network: epoch {epoch}")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        margin = max(0.5, 0.03*(epochs[-1] - epochs[0]))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


def _whole_numbers(most="auto"):
    """Ticks at whole numbers alone, be it a single one: else matplotlib, which wants two, takes fractions."""
    return MaxNLocator(most, integer=True, min_n_ticks=1)


@styled
def lr_test(rows: Sequence[tuple[int, float, float, float]], lr: float | None, title: str) -> Figure:
    """The loss of each batch and its running mean over the growing learning rate, and the suggested rate `lr` (None: none).

    rows    (step, learning rate, loss, running mean) each"""
    _, lrs, losses, smoothed = np.array(rows, np.float64).reshape(-1, 4).T
    figure, axes = _subplots(figsize=(6, 3.2))
    axes.semilogx(lrs, losses, color=TRAIN, lw=0.6, alpha=0.6, label="each batch")
    axes.semilogx(lrs, smoothed, color=INK, lw=1.8, label="running mean")
    if lr is not None:
        axes.axvline(lr, color=VAL, lw=1, label=f"suggested: {lr:g}")
    if np.isfinite(losses).any():
        axes.set_ylim(0, 1.5*np.nanmax(smoothed[:len(smoothed)//2 + 1]))          # the divergence leaves through the top
    axes.set_title(textwrap.fill(title, 82), loc="left", fontweight="normal")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    return figure


@styled
def step_times(measured: Mapping[int, float], predicted: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Seconds of a training step over the number of ranks: dots for what was `measured`, a line for each of the `predicted`
    {name: {ranks: seconds}}."""
    figure, axes = _subplots(figsize=(7.2, 4))
    for (name, of), colour, style in zip(predicted.items(), cycle((TRAIN, VAL, UNTRAINED, GREY)),
                                         cycle(("-", "--", "-.", ":"))):
        axes.loglog(list(of), list(of.values()), color=colour, ls=style, lw=1.3, label=f"predicted: {name}")
    axes.loglog(list(measured), list(measured.values()), "o", color=INK, ms=5, label="measured")
    axes.set_title(textwrap.fill(title, 88), loc="left", fontweight="normal")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
    axes.yaxis.set_minor_formatter(lambda x, _: _digits(x, 2))
    axes.set_xlabel("ranks")
    axes.set_ylabel("seconds a step")
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.legend(fontsize=8, labelcolor=INK)
    return figure


def filters(w: Pixels) -> "Sheet":
    """First-layer filters w (3,K,K,F) as colour tiles, six in a row or, of many, eight, about as wide as a page of text.

    Mid-grey is zero, and each filter has a scale of its own: what it looks for is legible, how strong it is not."""
    columns = _filter_columns(w.shape[3])
    tiles = _enlarged(filter_tiles(w, per_filter=True), 672/columns)
    return _beside([_titled(montage(tiles, columns, gap=3), f"filters of layer 1, {OWN_SCALE}", LARGE)], WIDEST)


OWN_SCALE = "each to its own scale"


def _filter_columns(count):
    return 6 if count <= 36 else 8


def filter_tiles(w: Pixels, per_filter: bool = False) -> Pixels:
    """(3,K,K,F) -> (F,K,K,3) in 0..1."""
    scale = np.abs(w).max(axis=(0, 1, 2) if per_filter else None)
    tiles = 0.5 + 0.5*w/np.maximum(scale, np.finfo(np.float32).tiny)
    return tiles.transpose(3, 1, 2, 0)


def projections(found: Projection) -> "Sheet":
    """Projections side by side, each to its own scale with mid-grey for 0, below the activation that it comes from.
    Small ones are enlarged, each pixel to a square."""
    check.instance("found", found, Projection)
    tiles, values = to_host(found.pixels).transpose(3, 1, 2, 0), to_host(found.values)
    return _beside([_titled(_enlarged(signed_tiles(tile[None]), 96)[0], _digits(value, 3))
                    for tile, value in zip(tiles, values)], WIDEST)


def unit_blocks(views: UnitViews) -> "Sheet":
    """Figure 2 of an `analysis.top_activations.UnitViews`: for each unit that fires a block of its strongest projections (0 is
    mid-grey, one scale a block) beside the block of the picture patches they come from. All projections of a unit of the
    first layer are its filter, so that is shown once. A place says why it has no picture, or why nothing is projected to it.
    Units that never fire are counted in a line below.

    A tile of few pixels is enlarged, each pixel to a square, to about 64."""
    check.instance("views", views, UnitViews)
    fires, k, f = views.pictures[:, 0] >= 0, *views.projections.shape[1:3]
    zoom, side = max(1, round(64/f)), int(np.ceil(np.sqrt(k)))
    block = side*(f*zoom + 1) - 1
    across, down = 2*block + MARGIN//4 + MARGIN, block + LABEL + 6
    units = np.flatnonzero(fires)
    columns = max(1, min(len(units), (WIDEST - MARGIN)//across))
    width = columns*across + MARGIN
    silent = _silent(views.layer, [_unit(views, u) for u in np.flatnonzero(~fires)], len(fires))
    foot = _wrapped(silent, width - 2*MARGIN) if silent else []
    sheet = Sheet(width, -(-len(units)//columns)*down + MARGIN + LINE*len(foot))
    for number, u in enumerate(units):
        left, top = MARGIN + number % columns*across, number//columns*down + LABEL
        sheet.text(left, top - 5, _block_name(views, u, 2*block), size=LARGE)
        if views.filters is None:
            sheet.picture(left, top, _block(signed_tiles(views.projections[u]), views.pictures[u], side, zoom))
            _say_why(sheet, left, top, views.pictures[u] >= 0, views.projections[u].any(axis=(1, 2, 3)), side, f*zoom)
        else:
            larger = block//f
            sheet.picture(left + (block - f*larger)//2, top, _enlarged(signed_tiles(views.filters[u][None]), f*larger)[0])
        sheet.picture(left + block + MARGIN//4, top, _block(views.patches[u]/np.float32(255), views.pictures[u], side, zoom))
    sheet.text(MARGIN, sheet.height - 8 - LINE*(len(foot) - 1), foot)
    return sheet


def _say_why(sheet, left, top, there, projected, side, tile):
    """Words in the places of a block of side x side tiles: the first without a picture, and those where the ReLUs on the way
    down left nothing."""
    for k in range(len(there)):
        place = left + k % side*(tile + 1), top + k//side*(tile + 1), tile, tile
        if not there[k]:
            return _word(sheet, *place, f"fires on {plural(k, 'picture')} only")
        if not projected[k]:
            _word(sheet, *place, "all rectified to 0", PAPER)


def _unit(views, u):
    """Name of a unit behind its layer's name: by its class where it has one."""
    return f"unit {views.units[u]}" if views.classes is None else named(views.classes[u], views.units[u])


def _block_name(views, u, width):
    """Names of the layer, which is the same for all blocks, and of a unit: what is too long is cut, but never a unit's number."""
    unit = _unit(views, u)
    if views.classes is not None:
        unit = _fitted(unit, width - min(_length(f"{views.layer} ", LARGE), width/3), LARGE)
    return _fitted(views.layer, width, LARGE, after=f" {unit}")


def _silent(layer, names, count):
    """The sentence about units that never fire; "" where there are none."""
    if not names:
        return ""
    which = ": " + ", ".join(name.removeprefix("unit ") for name in names) if len(names) <= 24 else ""
    return f"{layer}: {len(names)} of {plural(count, 'unit')} {'never fires and is' if len(names) == 1 else 'never fire and are'} left out{which}"


def _block(tiles, pictures, side, zoom):
    """Tiles (k,f,f,3) -> a square block, side x side; paper where there is no picture."""
    there = (pictures >= 0)[:, None, None, None]
    return montage(np.where(there, tiles, 1).repeat(zoom, axis=1).repeat(zoom, axis=2), side)


def occlusion(found: Occlusion) -> "Sheet":
    """Figure 7 of an `analysis.occlusion.Occlusion`, two rows a picture, all maps in the frame of the picture: the value for a
    square stands at the square's middle, and the mid-grey rim is where no square can have its middle.

    (a) the picture with the square where P falls most, the object's box dashed   (b) the sum of the strongest map
    (c) that map's projection from this picture, framed, and from others   (d) P of the class, always from 0 to 1
    where P falls nowhere (a) has no square, where no map fires (b) is of the first one: the titles say so
    then the fall of P where a pixel is hidden, the mean over all squares that hide it, from blue (P rises) to red; its scale
    reaches at least to 0.1, so that a fall of nothing looks like nothing, and the title has its range   (e) the most probable
    class

    A red stroke on a colour bar: the clean picture's value."""
    check.instance("found", found, Occlusion)
    side = found.pictures.shape[2]*max(1, round(192/found.pictures.shape[2]))                # of a panel
    lefts, row = [MARGIN + k*(side + 72) for k in range(3)], side + 30
    down = LABEL + 2*row + MARGIN
    sheet = Sheet(lefts[-1] + side + 172, len(found.pictures)*down + 12)
    for i, label in enumerate(found.labels.tolist()):
        name = str(label) if found.classes is None else named(found.classes[label], label)
        falls = np.nanmin(found.drops[i]), np.nanmax(found.drops[i])
        pale = max(map(abs, falls)) < LEAST_FALL
        none = bool(silent(found)[i])
        panels = [
            ("(a) hidden where P falls most" if _falls(found, i) else "(a) P falls nowhere", _occluded),
            (f"(b) {f'no {found.layer} map fires; sum of' if none else f'sum of {found.layer}'} map {found.units[i]}", _map_sum),
            (f"(c) projected: {'nothing '*none}from here{' (framed), from others'*bool(_others(found, i))}", _map_views),
            (f"(d) P({name})", _probability),
            ("fall of P: {:.1g} to {:.1g}".format(*falls) if pale else "fall of P where hidden", _fall),
            ("(e) most probable class", _class_map)]
        heading = _fitted(f"{_picture_name(found, i)}: {name}", sheet.width - 2*MARGIN, LARGE)
        sheet.text(MARGIN, i*down + 18, heading, size=LARGE)
        for number, (title, draw) in enumerate(panels):
            left, top = lefts[number % 3], i*down + LABEL + number//3*row + LABEL
            sheet.text(left, top - 6, _fitted(title, side + (150 if number % 3 == 2 else 66)))
            sheet.panel(left, top, side, side, _framed(draw, found, i))
        _class_legend(sheet, lefts[2] + side + 8, top, found, i)
    return sheet


LEAST_FALL = 0.1                             # where the scale of a fall of P ends at the least


def _picture_name(found, i):
    """"picture 4" of a drawn one, or where names are not known; else the file's name."""
    name = str(i) if found.names is None else Path(found.names[i]).name
    return f"picture {int(name)}" if name.isdecimal() else name


def _framed(draw, found, i):
    """draw(axes, found, i) on axes without ticks, mid-grey where nothing is drawn."""
    def inside(axes):
        axes.set(xticks=[], yticks=[], facecolor=GREY)
        axes.spines[:].set_visible(False)
        draw(axes, found, i)
    return inside


def _falls(found, i):
    return found.probabilities[i].min() < found.clean_probabilities[i]


def _occluded(axes, found, i):
    picture, size = found.pictures[i].copy(), found.size
    if _falls(found, i):
        row, column = np.unravel_index(found.probabilities[i].argmin(), found.probabilities[i].shape)
        top, left = found.tops[row], found.lefts[column]
        picture[top:top + size, left:left + size] = found.grey
    axes.imshow(picture, extent=(0, *picture.shape[1::-1], 0))
    if found.boxes is not None:
        y0, x0, y1, x1 = found.boxes[i]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1, ls=(0, (4, 3))))


def _map_sum(axes, found, i):
    values, clean = found.sums[i], found.clean_sums[i]
    _heat(axes, found, values, clean, min(0, values.min()), max(values.max(), clean))


def _probability(axes, found, i):
    _heat(axes, found, found.probabilities[i], found.clean_probabilities[i], 0, 1)


def _heat(axes, found, values, clean, low, high):
    image = _at_middles(axes, found, values, cmap=HEAT, vmin=low, vmax=high)
    _colour_bar(axes, image).axhline(clean, color=STROKE, lw=2)


def _fall(axes, found, i):
    limit = max(np.nanmax(np.abs(found.drops[i])), LEAST_FALL)
    _colour_bar(axes, axes.imshow(found.drops[i], cmap="RdBu_r", vmin=-limit, vmax=limit))


def _at_middles(axes, found, values, **look):
    """A map with one value a place of the square, drawn around the square's middle, in the frame of the picture."""
    H, W = found.pictures.shape[1:3]
    first, last = (found.size - found.stride)/2, (found.size + found.stride)/2
    image = axes.imshow(values, extent=(found.lefts[0] + first, found.lefts[-1] + last,
                                        found.tops[-1] + last, found.tops[0] + first), **look)
    axes.set(xlim=(0, W), ylim=(H, 0))
    return image


def _colour_bar(axes, image):
    """The axes of a narrow bar at the right of a panel."""
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.04, 1)), ticks=MaxNLocator(5))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, colors=INK)
    return bar.ax


def _others(found, i):
    """Views of the map from other pictures; one of 0 alone stands for no picture."""
    return [] if found.others is None else [view for view in found.others[i] if view.any()]


def _map_views(axes, found, i):
    """Each to its own scale; the first, which is the picture's own, in a black frame."""
    views = [found.views[i], *_others(found, i)]
    size, side = views[0].shape[0], 1 if len(views) == 1 else 2
    axes.imshow(montage(np.stack([signed_tiles(view) for view in views]), side, gap=max(1, size//40)))
    axes.add_patch(Rectangle((-0.5, -0.5), size, size, fill=False, ec="black", lw=2, clip_on=False))
    axes.set_facecolor(PAPER)


def _winners(found, i):
    """(classes, counts): those that are most probable somewhere, by how often, but first the one that is followed."""
    classes, counts = np.unique(np.append(found.most_probable[i], found.labels[i]), return_counts=True)
    counts[classes == found.labels[i]] -= 1                                        # it stands in the legend in any case
    order = np.lexsort([-counts, classes != found.labels[i]])
    return classes[order], counts[order]


def _class_map(axes, found, i):
    """The class that is followed has the first colour, the others theirs by how often they win, the rare ones the last."""
    classes, _ = _winners(found, i)
    colour_of = np.full(classes.max() + 1, len(CLASSES) - 1)
    colour_of[classes] = np.minimum(np.arange(len(classes)), len(CLASSES) - 1)
    colours = np.array([matplotlib.colors.to_rgb(colour) for colour in CLASSES])
    _at_middles(axes, found, colours[colour_of[found.most_probable[i]]])


def _class_legend(sheet, left, top, found, i):
    """A square in the colour of each class, its name and its share of the places."""
    classes, counts = _winners(found, i)
    few = len(CLASSES) - 1
    entries = [(str(k) if found.classes is None else named(found.classes[k], k), count)
               for k, count in zip(classes[:few], counts)]
    if len(classes) > few:
        entries.append((f"{len(classes) - few} others", counts[few:].sum()))
    for line, (colour, (name, count)) in enumerate(zip(CLASSES, entries)):
        sheet.picture(left, top + 20*line + 2, np.tile(np.array(matplotlib.colors.to_rgb(colour)), (10, 10, 1)))
        share = f"  {percent(count/counts.sum())}"
        sheet.text(left + 16, top + 20*line + 11, _fitted(name, sheet.width - left - 18, after=share))


@styled
def invariance(found: Invariance) -> Figure:
    """Figure 5 of an `analysis.invariance.Invariance`: a row a series, with some of its pictures, the relative distance at each
    layer, and P of the class. The first pictures in colours, as the bars beside them say; black is the mean over all, or over
    those in which the layer is not silent, as the legend says: a picture in which it is has no relative distance. The scale of
    the distances reaches at least to 0.01, so that a distance of nothing looks like nothing."""
    check.instance("found", found, Invariance)
    n, layers = len(found.labels), found.layers.tolist()
    few = min(n, len(PICTURES))
    figure, rows = _subplots(len(found.steps), 2 + len(layers), figsize=(3.6 + 2.5*(len(layers) + 1), 2.3*len(found.steps)),
                             squeeze=False, width_ratios=[3.5, *[2.5]*(len(layers) + 1)])
    highest = [max(np.max(of[:, k], initial=LEAST_DISTANCE, where=np.isfinite(of[:, k])) for of in found.relative.values())
               for k in range(len(layers))]
    panels = []                                              # (axes, of how many pictures it has the mean), a list a series
    for (name, steps), letter, axes in zip(found.steps.items(), "abcdef", rows):
        _thumbnails(axes[0], found.pictures[name][:few])
        axes[0].set_title(f"({letter}) {SERIES.get(name, name)}", loc="left", color=INK)
        curves = [(textwrap.fill(f"relative distance, {_short(layer)}", 31), found.relative[name][:, k], highest[k],
                   f"{layer} is silent: 0 on every clean picture") for k, layer in enumerate(layers)]
        curves.append(("P(class)", found.probabilities[name], 1, ""))
        panels.append([(axis, _curves(axis, steps, values, without)) for axis, (_, values, _, without) in zip(axes[1:], curves)])
        for axis, (title, _, top, _) in zip(axes[1:], curves):
            axis.set(xlim=(steps[0], steps[-1]), ylim=(0, 1.05*top))
            axis.set_title(title, loc="left", color=INK)
            axis.set_xlabel(AXES.get(name, name), fontsize=8, color=INK)
            axis.grid(color="#e4e4e4", lw=0.6)
            axis.tick_params(labelsize=8, colors=INK)
            if name == "rotation":
                axis.set_xticks(range(0, 361, 90))
    if n > 1:
        first = next(axis for axis, count in panels[min(1, len(rows) - 1)] if count)
        for axis in (first, *(axis for row in panels for axis, count in row if 0 < count < n)):
            axis.legend(fontsize=8, labelcolor=INK, loc="lower right")
    return figure


def _curves(axis, steps, values, without):
    """Curves (n,S), a picture each, the first in colours, and the mean of those that are known; the sentence `without` where none
    is. Returns how many are known."""
    for curve, colour in zip(values, PICTURES):
        axis.plot(steps, curve, color=colour, lw=1)
    n, (mean, counts) = len(values), mean_of_known(values)
    if not (known := counts.max()):
        axis.text(0.5, 0.5, textwrap.fill(without, 28), ha="center", va="center", transform=axis.transAxes, color=INK, fontsize=8)
    elif n > 1:
        axis.plot(steps, mean, color="black", lw=2, label=f"mean of {n}" if known == n else f"mean of {known} of {n}")
    return known


LEAST_DISTANCE = 0.01                        # where the scale of a relative distance ends at the least
PICTURES = "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1".split()          # one each, as many as the paper's figures 5 and 8 show
SERIES = {"translation": "vertical translation", "scale": "scale", "rotation": "rotation"}
AXES = {"translation": "pixels, down is positive", "scale": "factor", "rotation": "degrees, counter-clockwise"}


def _thumbnails(axes, pictures):
    """(n,m,h,w,3) uint8, a picture a row, with a bar of its colour at the left."""
    n, m, h, w, _ = pictures.shape
    gap = max(2, h//30)
    axes.imshow(montage(pictures.reshape(n*m, h, w, 3)/np.float32(255), m, gap), aspect="equal")
    for row, colour in zip(range(n), PICTURES):
        axes.add_patch(Rectangle((-h//4, row*(h + gap)), h//6, h, fc=colour))
    axes.set(xlim=(-h//4, m*(w + gap)), ylim=(n*(h + gap), -gap))
    axes.set_anchor("NW")
    axes.axis("off")


def correspondence(found: Sequence[Correspondence], most_random: int = 3) -> "Sheet":
    """Figure 8 of `analysis.correspondence.Correspondence`s: the first five pictures of the first, each as it is, with each
    part masked, with the places of another picture's parts masked, with some of its random squares; above, the mean scores."""
    check.each("found", found, Correspondence)
    first = found[0]
    parts, random, n = first.parts.tolist(), min(most_random, first.random.shape[1]), min(len(PICTURES), len(first.pictures))
    own, lent = first.corners[:n, :len(parts)], first.corners[first.lenders[0, :n], :len(parts)]
    corners = np.concatenate([own, lent, first.corners[:n, len(parts):len(parts) + random]], axis=1)
    columns = 1 + corners.shape[1]
    tiles = [picture.copy() for picture in first.pictures[:n] for _ in range(columns)]
    for number, tile in enumerate(tiles):
        i, k = divmod(number, columns)
        if k:
            top, left = corners[i, k - 1]
            tile[top:top + first.side, left:left + first.side] = first.grey
    tiles, gap = _enlarged(np.stack(tiles), 112)/np.float32(255), 4
    width, pixels = tiles.shape[2], montage(tiles, columns, gap)
    titles = [f"{n} of {plural(len(first.pictures), 'picture')}", *parts, *(f"{part} of another picture" for part in parts),
              "random"]
    means = dict(zip((what for what, _ in first.rows()), np.array([[[mean for mean, _ in of] for _, of in one.rows()]
                                                                 for one in found]).mean(axis=0)))
    texts = [[*(_fitted(line, width - gap) for line in _wrapped(title.replace("_", " "), width)),
              *(_fitted(layer, width - gap, after=f": {score:.3f}")
                for layer, score in zip(first.layers.tolist(), means.get(title, ())))]
             for title in titles]
    head = LINE*max(map(len, texts)) + 14
    sheet = Sheet(pixels.shape[1] + 2*MARGIN, head + pixels.shape[0] + MARGIN)
    sheet.picture(MARGIN, head, pixels)
    for k, lines in enumerate(texts):
        sheet.text(MARGIN + k*(width + gap), head - LINE*(len(lines) - 1) - 6, lines)
    return sheet


def evolution(found: Evolution) -> "Sheet":
    """Figure 4 of an `analysis.evolution.Evolution`: a block a layer, a row a unit, a column an epoch. Each tile has a scale of
    its own: in the first epochs a projection is weak, and to one scale with the last it would be grey. How strong it is
    the bar below it says, the activation beside the unit's largest, without ink where it is not above 0; where the unit does not
    fire, the place says so. Units that never do are counted behind the layer's name. Below, the two numbers of each step."""
    check.instance("found", found, Evolution)
    sheet = _beside([_strips(found, layer) for layer in found.projections], WIDEST)
    return sheet if len(found.epochs) < 2 else _above(sheet, _steps(found))


def _strips(found, layer):
    """The block of a layer."""
    units, fires = found.units[layer], (found.pictures[layer] >= 0).any(axis=1)
    title = f"{layer}: none of these {plural(len(units), 'unit')} ever fires" if not fires.any() else layer
    if 0 < fires.sum() < len(units):
        title += f"  ({(silent := (~fires).sum())} of {plural(len(units), 'unit')} never {'fires' if silent == 1 else 'fire'})"
    values = np.maximum(found.values[layer], 0)               # of a layer that no ReLU ends, such as the last, some are negative
    shares = values/np.maximum(values.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    there = found.pictures[layer] >= 0
    tiles = np.array([[_with_bar(signed_tiles(found.projections[layer][u, e][None])[0], shares[u, e])
                       for e in range(len(found.epochs))] for u in np.flatnonzero(fires)])
    heads = [[f"epoch {epoch}"] for epoch in found.epochs.tolist()]
    classes = (found.classes or {}).get(layer)
    names = [["unit", str(units[u])] if classes is None else [named(classes[u], units[u])]
             for u in np.flatnonzero(fires)]
    return _table(tiles, title, heads, names, ~there[fires], "does not fire")


def _with_bar(tile, share, side=80):
    """A tile (f,f,3) enlarged to about `side` pixels, below it a bar of that share of its width."""
    pixels = _enlarged(tile[None], side)[0]
    bar = np.ones((7, *pixels.shape[1:]), np.float32)
    bar[3:] = np.array(matplotlib.colors.to_rgb(FAINT))
    bar[3:, :round(share*bar.shape[1])] = np.array(matplotlib.colors.to_rgb(INK))
    return np.concatenate([pixels, bar])


def _steps(found):
    """A panel a number: over the later epoch of each step, a line a layer, from dark (layer 1) to light, named at its end."""
    titles = ("change of the projections, 1 - cosine", "units with another strongest picture, %")
    sheet, epochs = Sheet(1110, 250), found.epochs.tolist()

    def panel(title, curves, factor):
        def draw(axes):
            for k, (layer, row) in enumerate(curves.items()):
                axes.plot(range(len(row)), factor*row, color=matplotlib.colormaps[HEAT](k/len(curves)), marker="o", ms=3,
                          label=f"{_short(layer, 12)}  {'silent' if np.isnan(row[-1]) else _digits(factor*row[-1], 2)}")
            axes.set_title(title, loc="left")
            steps, each = list(pairwise(epochs)), -(-(len(epochs) - 1)//MOST_STEPS)
            axes.set_xticks(range(0, len(steps), each), [f"{a} to\n{b}" for a, b in steps[::each]])
            axes.set_xlabel("epochs")
            axes.set_ylim(0, 1.02*np.nanmax([factor, *(factor*step for row in curves.values() for step in row)]))
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=8, title="the last step", title_fontsize=8)
        return draw
    for left, title, curves, factor in zip((MARGIN + 30, MARGIN + 600), titles, (found.change, found.moved), (1, 100)):
        sheet.panel(left, 24, 330, 150, panel(title, curves, factor))
    return sheet


MOST_STEPS = 7                               # that are named below a panel, as many as the paper's eight epochs have


def diagnostics(found: Sequence[Diagnosis]) -> "Sheet":
    """Figure 6 of one or more `analysis.diagnostics.Diagnosis`, a row each: layer 1's filters to one scale and each to its
    own, the strongest projections of those units of layer 2 that fire; below, the numbers of all of them."""
    check.each("found", found, Diagnosis)
    page = Sheet(0, 8)
    for one in found:
        name = _titled(np.ones((1, 1, 3)), one.name, LARGE)
        heading = Sheet(MARGIN + name.width, name.height - 12)
        heading.put(name, MARGIN, 0)
        filters = [_first_layer(one, False, "to one scale"), _first_layer(one, True, OWN_SCALE)]
        page = _above(_above(page, heading), _beside([_above(*filters), _second_layer(one)], WIDEST))
    return _above(page, _statistics(found))


def _first_layer(one, per_filter, what):
    tiles = _enlarged(filter_tiles(one.filters, per_filter), 49 if one.filters.shape[3] <= 36 else 35)
    return _titled(montage(tiles, _filter_columns(len(tiles))), f"filters of layer 1, {what}")


def _second_layer(one):
    projected = one.projections.any(axis=(2, 3, 4))                            # (U,k)
    there = projected | (one.patches != MID_GREY).any(axis=(2, 3, 4))          # where there is no picture, all is mid-grey
    fires, most = there.any(axis=1), max(1, there.sum(axis=1).max(initial=0))
    each = "up to "*bool((there[fires].sum(axis=1) < most).any()) + str(most)
    title = f"{one.layer}: the strongest projections of {plural(fires.sum(), 'unit')}, {each} each"
    if lost := (there & ~projected).sum():
        title += f" ({lost} all rectified to 0)"
    if not fires.any():
        title = f"{one.layer}: none of these {plural(len(fires), 'unit')} ever fires"
    elif not fires.all():
        title += f"; {(silent := (~fires).sum())} more never {'fires' if silent == 1 else 'fire'}"
    if np.isfinite(one.aliasing):
        title += f"; aliasing {one.aliasing:.3f}"
    zoom, side = max(1, round(45/one.projections.shape[2])), int(np.ceil(np.sqrt(most)))
    units = [_block(signed_tiles(one.projections[u, :most]), there[u, :most] - 1, side, zoom) for u in np.flatnonzero(fires)]
    columns = min((5, 4, 3), key=lambda columns: -len(units) % columns)           # with the fewest empty places in the last row
    return _titled(montage(np.stack(units), columns, gap=6) if units else np.ones((1, 1, 3)), title)


def _statistics(found):
    """RMS of the filters, spectrum of layer 1, dead units of each layer; a colour a network."""
    ticks = list(dict.fromkeys(layer for one in found for layer in one.dead))
    names = [_short(layer, 8) for layer in ticks]
    width = 335                                                            # of a panel
    turn = 90*(sum(map(_length, names)) > width)                           # degrees
    sheet = Sheet(1240, 270 if turn else 250)
    looks, apart = list(zip(found, cycle((TRAIN, VAL, UNTRAINED, GREY)))), 0.76/max(2, len(found))

    def sizes(axes):
        for one, colour in looks:
            axes.plot(np.sort(one.rms)[::-1], color=colour, label=f"{_short(one.name)}: max/median {one.dominance_in_words()}")
        axes.set_title("RMS of layer 1's filters, sorted", loc="left")

    def spectra(axes):
        for one, colour in looks:
            low, mid, high = (100*share for share in one.bands().values())
            axes.stairs(100*mean_of_known(one.spectrum)[0], one.edges, color=colour, lw=1.5, label=f"{_short(one.name)}: "
                        + (f"low {low:.0f}, mid {mid:.0f}, high {high:.0f} %" if one.rms.any() else "none, all filters are 0"))
        axes.set_title("energy of layer 1's filters, %", loc="left")
        axes.set_xlabel("cycles a pixel")

    def dead(axes):
        for number, (one, colour) in enumerate(looks):
            places = [ticks.index(layer) + (number - (len(found) - 1)/2)*apart for layer in one.dead]
            shares = [100*of.mean() for of in one.dead.values()]
            axes.bar(places, shares, 0.95*apart, color=colour, label=_short(one.name))
            for place, share in zip(places, shares):
                axes.text(place, share, f"{share:.0f}", ha="center", va="bottom", fontsize=7, color=INK, rotation=turn)
        axes.set_title("units that never fire, %" if ticks else "no layer ends in a ReLU", loc="left")
        axes.set_xticks(range(len(ticks)), names, fontsize=8, rotation=turn)
        axes.yaxis.set_visible(bool(ticks))
        axes.set_ylim(0, max(axes.get_ylim()[1], 1))

    def with_legend(draw):
        def inside(axes):
            draw(axes)
            _, top = axes.get_ylim()
            axes.set_ylim(0, top)
            axes.locator_params(axis="y", nbins=5)
            axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top])
            axes.set_ylim(0, 1.4*top)                                     # above all that is drawn, and without ticks, the legend
            axes.legend(loc="upper right", fontsize=7)
        return inside
    for number, draw in enumerate((with_legend(sizes), with_legend(spectra), with_legend(dead) if ticks else dead)):
        sheet.panel(MARGIN + 40 + 400*number, 24, width, 170, draw)
    return sheet


def sanity_checks(found: SanityChecks, most: int = 4) -> "Sheet":
    """An `analysis.sanity_checks.SanityChecks`: for up to `most` units the strongest picture, its projection as trained and
    under each control, each tile to its own scale; above each column the means over all projections. The title has the share
    of the area that the box has, and of the box its parts: what a projection that is nowhere in particular has in them."""
    check.instance("found", found, SanityChecks)
    rows = np.unique(found.units, return_index=True)[1][:most]
    patches, made = found.patches[rows]/np.float32(255), found.projections[rows]               # (R,f,f,3), (R,J,f,f,3)
    tiles = np.concatenate([patches[:, None], [[signed_tiles(tile[None])[0] for tile in row] for row in made]], axis=1)
    tiles = np.stack([_enlarged(row, 80) for row in tiles])
    means = zip(found.conditions.tolist(), found.cosine.mean(axis=0), found.rank.mean(axis=0))
    heads = [["patch", "", ""], *([*_wrapped(condition_in_words(name), max(90, tiles.shape[3])),
                                   f"cosine {cosine:.2f}", f"rank {rank:.2f}"] for name, cosine, rank in means)]
    title = []
    for word, whole, shares, area in (("box", "area", found.inside, found.area),
                                      ("parts", "box", found.in_parts, found.parts_area)):
        if shares is not None and np.isfinite(shares).any():
            title.append(f"{word}: {100*np.nanmean(area):.0f} % of the {whole}")
            heads[0].append("")
            for head, share in zip(heads[1:], mean_of_known(shares)[0]):
                head.append(f"in {word} {100*share:.0f} %" if np.isfinite(share) else f"in {word} nothing")
    names = [[found.layer, "unit", str(found.units[k])] if found.classes is None
             else [found.layer, named(found.classes[k], found.units[k])] for k in rows]
    return _table(tiles, ", ".join(title), heads, names, np.zeros(tiles.shape[:2], bool), "")


def condition_in_words(condition: str) -> str:
    """A control as a heading: "conv5 to conv4" alone does not say what is done to these layers."""
    return condition if condition in OTHER_CONDITIONS else f"random order of weights: {condition}"


@styled
def confusion(counts: NDArray[np.integer[Any]], classes: Sequence[str], pairs: Sequence[tuple[str, str, int, int]],
              title: str) -> Figure:
    """Confusion matrix: how often pictures of each class (rows) were taken for each (columns), as a share of the row: right
    answers in one colour, wrong ones in another, on a square-root scale and never paler than a quarter, so that a single
    mistake is seen. Beside it the most confused pairs.

    counts (M,M); pairs: (true, predicted, count, pictures of the true class), the most confused first. Few classes
    have their counts in the cells, up to 60 their names at the sides; of a thousand, each is a pixel wide. A name in letters
    that the font lacks is replaced by the class's number."""
    M = len(counts)
    names = {name: _short(named(name, number)) for number, name in enumerate(classes)}
    alike = {short for short, count in Counter(names.values()).items() if count > 1}
    names |= {name: f"{_short(names[name], 18)} {number}" for number, name in enumerate(classes) if names[name] in alike}
    cell = max(1, min(60, 960//M))                                        # pixels; whole ones, so that no class is lost
    side, has_names, margin = cell*M, M <= 60, 30
    if has_names:
        margin += int(max(map(_length, names.values())))
    left, panel = max(margin, 60), max(side, 180)                         # the right panel is as high as the matrix, or higher
    lines = ["most confused:" if pairs else "none is confused", *(f"{count} of {of}   {_fitted(names[true], 170)} → {_fitted(names[taken], 170)}"
                                 for true, taken, count, of in pairs[:min(40, panel//17 - 1)])]
    across = max(side, 120)                                               # a single cell is narrower than what stands below it
    listed = left + across + 110                                          # where they begin
    width = int(listed + 1.05*max(map(_length, lines))) + MARGIN          # matplotlib's letters are a little wider than PIL's
    title = textwrap.wrap(printable(title), int(width/7.5))
    top = 15*len(title) + 25
    height = top + panel + max(margin, 60)
    figure = Figure((width/DPI, height/DPI), dpi=DPI)

    def place(x, y, w, h):
        """Axes at whole pixels, counted from the left and the top."""
        return figure.add_axes((x/width, 1 - (y + h)/height, w/width, h/height))

    axes = place(left, top, side, side)
    shares = counts/np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(M, dtype=bool)
    for k, (shown, colour, word) in enumerate(((right, TRAIN, "right"), (~right, VAL, "wrong"))):
        pale = 0.25*np.array(matplotlib.colors.to_rgb(colour)) + 0.75
        colours = matplotlib.colors.LinearSegmentedColormap.from_list(word, [pale, colour])
        image = axes.imshow(np.ma.array(shares, mask=~shown | (counts == 0)), cmap=colours, interpolation="nearest",
                            norm=matplotlib.colors.PowerNorm(0.5, 0, 1))
        bar = figure.colorbar(image, cax=place(left + across + 25 + 18*k, top, 11, min(panel, 400)))
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1 %", "10 %", "25 %", "50 %", "100 %"] if k else [""]*6)
        bar.ax.set_xlabel(word, rotation=90, fontsize=7, color=INK)
        bar.ax.tick_params(labelsize=7, length=2 if k else 0, colors=INK)
        bar.outline.set_linewidth(0.5)
    if cell >= 30:
        for i, j in zip(*counts.nonzero()):
            axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color=PAPER if shares[i, j] > 0.5 else "black")
    ticks = range(M) if has_names else range(0, M, 100 if M > 400 else 20)
    for axis, word, turn in ((axes.xaxis, "predicted", 90 if has_names else 0), (axes.yaxis, "true", 0)):
        axis.set_ticks(ticks, [names[classes[k]] if has_names else k for k in ticks], fontsize=7, rotation=turn)
        axis.set_label_text(f"{word} class" + ("" if has_names else ", by number"), color=INK)
    axes.tick_params(length=2, colors=INK)
    axes.spines[:].set(visible=True, linewidth=0.5)
    figure.text(10/width, 1 - 10/height, "\n".join(title), va="top", color=INK)
    figure.text(listed/width, 1 - top/height, "\n".join(lines), va="top", fontsize=8, color=INK, linespacing=1.4)
    return figure


def _short(name, most=24):
    """A name without its middle where it is long: names of runs and of layers differ at their ends."""
    name, end = printable(name), most//2
    return name if len(name) <= most else f"{name[:most - end - 1]}…{name[-end:]}"


@styled
def accuracy_curve(paper: Curves, here: Curves, paper_title: str, here_title: str, chance: float) -> Figure:
    """Tables 4 and 5, figure 9: accuracy in % over the training pictures a class, of the paper, left, and ours, right, with a
    line at `chance`; where a panel has single dots alone, their numbers stand beside them. Each is {name of a row: {pictures:
    (mean, spread or None)}}; of the paper the last two rows are its own, the others grey; ours are of random weights trained
    here, of the features of random weights, of the run's features."""
    figure, panels = _subplots(1, 2, figsize=(9.5, 3.6), sharey=True, sharex=True)
    *others, scratch, features = paper.items()
    looks = [(name, of, GREY, ls) for (name, of), ls in zip(others, (":", "--", "-."))]
    groups = ((panels[0], [*looks, (*scratch, TRAIN, "-"), (*features, VAL, "-")], paper_title),
              (panels[1], [(*row, colour, "-") for row, colour in zip(here.items(), (TRAIN, UNTRAINED, VAL))], here_title))
    panels[1].axhline(chance, color=GREY, lw=1, ls=":", label="by chance")
    for axes, rows, title in groups:
        for name, of, colour, style in rows:
            if of:
                counts, (means, spreads) = sorted(of), zip(*(of[n] for n in sorted(of)))
                axes.errorbar(counts, means, [spread or 0 for spread in spreads], color=colour, ls=style, lw=1.5, marker="o",
                              ms=3.5, capsize=2, label=name)
        if all(len(of) <= 1 for _, of, _, _ in rows):            # dots without a line to follow
            for n, (mean, _) in (point for _, of, _, _ in rows for point in of.items()):
                axes.annotate(f"{mean:.1f}", (n, mean), (-7, 0), textcoords="offset points", ha="right", va="center",
                              fontsize=8)
        axes.set_title(title, loc="left")
        axes.set_xlabel("training pictures a class")
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, labelcolor=INK)
    panels[0].set(xlim=(0, 1.03*max(n for _, rows, _ in groups for _, of, _, _ in rows for n in of)), ylim=(0, 100))
    panels[0].set_ylabel("mean of the classes' accuracies, %")
    return figure


@styled
def accuracy_by_layer(paper: Mapping[str, Curves], here: Mapping[str, Curves], chance: float) -> Figure:
    """Table 7: accuracy in % over the layer, the paper's panels and then ours, which have a line at `chance`. A panel is
    {title: {"SVM", "softmax" or one of these and ", untrained": {layer: (mean, spread or None)}}}; the untrained network's is
    dashed."""
    panels, looks = {**paper, **here}, {"SVM": (VAL, "o"), "softmax": (TRAIN, "s")}
    figure, axes = _subplots(1, len(panels), figsize=(2.8*len(panels), 3.3), sharey=True, sharex=True)
    for place, (title, rows) in zip(axes, panels.items()):
        for name, of in rows.items():
            kind, _, untrained = name.partition(", ")
            (colour, shape), layers = looks[kind], sorted(of)
            place.errorbar(layers, [of[n][0] for n in layers], [of[n][1] or 0 for n in layers], color=colour, marker=shape,
                           ms=4,
                           mfc=PAPER if untrained else colour, lw=1.5, ls="--" if untrained else "-", capsize=2, label=name)
        if title in here:
            place.axhline(chance, color=GREY, lw=1, ls=":", label="by chance")
        place.set_title(title, loc="left", fontsize=8)
        place.set_xlabel("features of layer")
        place.xaxis.set_major_locator(_whole_numbers())
        place.grid(axis="y", color="#e4e4e4", lw=0.6)
        place.set_axisbelow(True)
        place.set_ylim(0, 100)
    axes[0].set_ylabel("mean of the classes' accuracies, %")
    axes[len(paper)].legend(fontsize=8, labelcolor=INK)
    return figure


@styled
def average_precisions(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]],
                       chance: NDArray[np.float64]) -> Figure:
    """Table 6: a row a class, a dot for the average precision in % of each of `columns` {name: (K,)}: the paper, the run's
    features, those of random weights, networks from random weights; and a stroke at `chance`. NaN leaves a place empty."""
    figure, axes = _subplots(figsize=(7, 1.1 + 0.22*len(names)))
    places = np.arange(len(names))
    axes.scatter(chance, places, marker="|", s=70, color=GREY, lw=1.2, label="by chance")
    for (name, values), colour, shape in zip(columns.items(), (GREY, VAL, UNTRAINED, TRAIN), "Dovs"):
        axes.scatter(values, places, s=26, color=colour, marker=shape, label=printable(name), zorder=3, alpha=0.9, lw=0)
    axes.set_yticks(places, list(map(printable, names)))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axhline(len(names) - 1.5, color=GREY, lw=0.5)
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(-2, 102), xlabel="average precision, %")
    figure.legend(fontsize=8, labelcolor=INK, loc="outside upper center", ncols=3)
    return figure


def pairs(pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], captions: Sequence[Sequence[str]],
          title: str) -> "Sheet":
    """Pairs of pictures ((h,w,3), (h,w,3)) side by side, with two lines of text below each."""
    joined = [np.concatenate(pair, axis=1) for pair in pictures]
    return captioned(joined, captions, [True]*len(joined), title, columns=5, side=200)


def captioned(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[str]], right: Sequence[bool], title: str,
              columns: int = 6, side: int = 136) -> "Sheet":
    """Pictures (n,h,w,3) in rows, brought to `side` pixels of width, with two lines of text below each; the second line
    is in the colour of an error where `right` is False."""
    lines = title.split("\n")
    n, head = len(pictures), LINE*len(lines) + 14
    tall = round(side*pictures[0].shape[0]/pictures[0].shape[1]) if n else 0
    across, down = side + 14, tall + 48
    width = max(min(n, columns)*across - 14, *(int(_length(line)) for line in lines))
    sheet = Sheet(width + 2*MARGIN, head + -(-n//columns)*down + MARGIN)
    sheet.text(MARGIN, 22, lines)
    for k, (picture, texts) in enumerate(zip(pictures, captions)):
        left, top = MARGIN + k % columns*across, MARGIN + head + k//columns*down - 12
        sheet.picture(left, top, Image.fromarray(picture).resize((side, tall), Image.Resampling.BICUBIC))
        for line, (text, colour) in enumerate(zip(texts, (INK, INK if right[k] else VAL)), 1):
            sheet.text(left, top + tall + 15*line, _fitted(text, side + 8), colour)
    return sheet


@styled
def beside_paper(labels: Sequence[str], paper: Sequence[Errors], ours: Sequence[Sequence[Errors]]) -> Figure:
    """Tables 2 and 3: for R rows the errors in % of the paper, left, and ours, right; on logarithmic axes, as errors differ by
    factors; what is below LEAST_ERROR stands there, as the axis then says. Behind a row its validation error and the rank of it:
    where the ranks agree, so does the order of the rows.

    paper  R pairs (training, validation) error, None where there is none    ours  for each row such pairs, one a seed"""
    figure, panels = _subplots(1, 2, figsize=(9.5, 0.9 + 0.27*len(labels)), sharey=True)
    for axes, rows, title in ((panels[0], [[pair] for pair in paper], "the paper"), (panels[1], ours, "here")):
        means = [_mean(pair[1] for pair in row) for row in rows]
        ranked = sorted(mean for mean in means if mean is not None)
        for place, (row, mean) in enumerate(zip(rows, means)):
            for column, colour, lift in ((0, TRAIN, 0.13), (1, VAL, -0.13)):
                values = [pair[column] for pair in row if pair[column] is not None]
                if values:
                    at = np.maximum(values, LEAST_ERROR)
                    axes.scatter(at, [place + lift]*len(at), s=10, color=colour, alpha=0.45, lw=0)
                    axes.plot([at.min(), at.max()], [place + lift]*2, color=colour, lw=1)
                    axes.scatter([max(_mean(values), LEAST_ERROR)], [place + lift], s=30, color=colour, zorder=3)
            if mean is not None:
                axes.text(1.01, place, f"{mean:.1f}  rank {ranked.index(mean) + 1}", transform=axes.get_yaxis_transform(),
                          va="center", fontsize=8, color=INK)
        several = any(len(row) > 1 for row in rows)
        beyond = any(error is not None and error < LEAST_ERROR for row in rows for pair in row for error in pair)
        axes.set(xscale="log", xlabel="top-1 error, %" + several*"  (mean, and every seed)"
                 + beyond*f"\nless than {LEAST_ERROR} stands at {LEAST_ERROR}", ylim=(len(labels) - 0.5, -0.5))
        axes.set_title(title, loc="left")
        low, high = axes.get_xlim()
        if high < LEAST_RATIO*low:
            low, high = axes.set_xlim(*np.sqrt(low*high)*np.array([LEAST_RATIO**-0.5, LEAST_RATIO**0.5]))
        axes.xaxis.set_major_locator(_whole_numbers(6) if high < 1.5*low else FixedLocator(_ticks_apart(low, high)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), labels)
    trains = any(pair[0] is not None for pair in (*paper, *(pair for row in ours for pair in row)))
    for colour, word in ((TRAIN, "training"), (VAL, "validation"))[not trains:]:
        panels[1].scatter([], [], s=30, color=colour, label=word)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    return figure


def _ticks_apart(low, high):
    """Places of ticks from `low` to `high` %: as many as leave room for their numbers."""
    for ticks in ERRORS:
        inside = [tick for tick in ticks if low <= tick <= high]
        if all(later >= before*(high/low)**LEAST_GAP for before, later in pairwise(inside)):
            break
    return inside


ERRORS = ((0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100),         # %, the more distant the ends of an axis
          (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100), (0.1, 1, 10, 100))           # are, the fewer ticks
LEAST_GAP = 1/12                             # of an axis' length, between two ticks
LEAST_RATIO = 1.125                          # of an axis' ends: of the paper's own table 2; less would make much of chance
LEAST_ERROR = 0.05                           # %: where an error of 0 is drawn, as a logarithm has no 0


def _mean(values):
    values = [value for value in values if value is not None]
    return sum(values)/len(values) if values else None


# --------------------------------------------------------------------------------------------- sheets of tiles and labels
class Sheet:
    """Pictures, texts and panels (axes of matplotlib) at pixels of a white page, counted from the left and the top. As a PNG
    the pictures keep their pixels and the letters are hinted; as vectors the same pixels lie between vectors."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = int(width), int(height)
        self.pictures, self.texts, self.panels = [], [], []

    def picture(self, left: int, top: int, pixels: Pixels | Image.Image) -> None:
        """A picture (h,w,3) in 0..1, or of PIL."""
        self.pictures.append((left, top, pixels if isinstance(pixels, Image.Image) else as_image(pixels)))

    def text(self, left: float, baseline: float, lines: str | Sequence[str], colour: str = INK, size: int = SMALL,
             align: Literal["left", "right"] = "left") -> None:
        """A line of text or several, the first on `baseline`; `align` "right" has them end at `left`."""
        for number, line in enumerate([lines] if isinstance(lines, str) else lines):
            self.texts.append((left, baseline + LINE*number, printable(line), colour, size, align))

    def panel(self, left: float, top: float, width: float, height: float, draw: Callable[[Axes], object]) -> None:
        """Axes that draw(axes) fills when the sheet is drawn."""
        self.panels.append((left, top, width, height, draw))

    def put(self, other: "Sheet", left: int, top: int) -> None:
        """Another sheet's content on this one."""
        for own, its in zip((self.pictures, self.texts, self.panels), (other.pictures, other.texts, other.panels)):
            own += [(left + x, top + y, *rest) for x, y, *rest in its]

    @styled
    def image(self) -> Image.Image:
        """The page as a PIL picture."""
        page = _drawn(self._figure()) if self.panels else Image.new("RGB", (self.width, self.height), PAPER)
        pen = ImageDraw.Draw(page)
        for left, top, picture in self.pictures:
            page.paste(picture, (left, top))
        for left, baseline, line, colour, size, align in self.texts:
            pen.text((left, baseline), line, colour, _font(size), anchor=f"{align[0]}s")
        return page

    def _repr_png_(self):
        """The page as a notebook shows it."""
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()

    def _figure(self):
        """The panels alone."""
        figure = Figure((self.width/DPI, self.height/DPI), dpi=DPI)
        for left, top, width, height, draw in self.panels:
            draw(figure.add_axes(self._place(left, top, width, height)))
        return figure

    @styled
    def figure(self) -> Figure:
        """The page as a Figure of matplotlib, whose texts and lines are vectors."""
        figure = self._figure()
        for left, top, picture in self.pictures:
            axes = figure.add_axes(self._place(left, top, *picture.size))
            axes.imshow(np.asarray(picture), aspect="auto")
            axes.axis("off")
        for left, baseline, line, colour, size, align in self.texts:
            figure.text(left/self.width, 1 - baseline/self.height, line, color=colour, fontsize=72*size/DPI, ha=align,
                        va="baseline", parse_math=False)
        return figure

    def _place(self, left, top, width, height):
        """Place in shares of the page, from its lower left corner, as matplotlib counts."""
        return left/self.width, 1 - (top + height)/self.height, width/self.width, height/self.height


def _table(tiles, title, heads, names, empty, word):
    """Tiles (R,C,h,w,3) in 0..1 as a Sheet: rows with their names at the left, columns with their heads (lists of lines) above;
    of no tiles the title alone. A name is a list of texts, each on a line of its own, but for the last, which has as many as a
    tile is high. Where `empty` (R,C), there is no tile, and the word why."""
    if not tiles.size:
        return _titled(np.ones((1, 1, 3)), title, LARGE)
    (R, C, height, width), gap = tiles.shape[:4], 4
    names = [[*(_fitted(text, ROW_NAME) for text in first), *_fitted_lines(last, ROW_NAME, max(1, height//LINE - len(first)))]
             for *first, last in names]
    across, down = max(width + gap, int(max(map(_length, sum(heads, [])))) + 8), height + gap    # from one to the next
    left, top = 10 + int(max(map(_length, sum(names, [])))), LINE*max(map(len, heads)) + 8 + (LABEL if title else 0)
    sheet = Sheet(max(left + C*across, left + _length(title, LARGE) + 1), top + R*down - gap)
    sheet.text(left, 15, title, size=LARGE)
    for k, head in enumerate(heads):
        sheet.text(left + k*across, top - 6 - LINE*(len(head) - 1), head)
        for row in range(R):
            if empty[row, k]:
                _word(sheet, left + k*across, top + row*down, width, height, word)
            else:
                sheet.picture(left + k*across, top + row*down, tiles[row, k])
    for row, name in enumerate(names):
        sheet.text(left - 6, top + row*down + height//2 + 4 - LINE*(len(name) - 1)//2, name, align="right")
    return sheet


ROW_NAME = 160                               # pixels of a row's name: of ImageNet's classes, four lines have the longest


def _word(sheet, left, top, width, height, text, colour=INK):
    """A few words in a place of width x height pixels, in lines about its middle; in smaller letters where one is too wide."""
    size = SMALL if all(_length(word) <= width - 4 for word in text.split()) else TINY
    lines = _wrapped(text, width - 4, size)
    first = top + (height - LINE*len(lines))//2 + SMALL
    sheet.text(left + 2, first, lines, colour, size)


def _enlarged(tiles, side):
    """Tiles (n,h,w,3), each pixel enlarged to a square so that a tile is about `side` pixels, if it is smaller."""
    zoom = max(1, round(side/tiles.shape[1]))
    if tiles.size*zoom**2 > MOST:
        raise check.Expected("figure", f"at most {MOST} pixels and colours of its tiles", tiles.size*zoom**2)
    return tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)


def _titled(pixels, title, size=SMALL):
    sheet = Sheet(max(pixels.shape[1], _length(title, size) + 1), pixels.shape[0] + LABEL)
    sheet.text(0, LABEL - 6, title, size=size)
    sheet.picture(0, LABEL, pixels)
    return sheet


def _beside(sheets, widest):
    """Sheets in rows of at most `widest` pixels, with a rim of paper."""
    rows = [[]]
    for one in sheets:
        if rows[-1] and sum(each.width + MARGIN for each in rows[-1]) + one.width + 2*MARGIN > widest:
            rows.append([])
        rows[-1].append(one)
    heights = [max((each.height for each in row), default=0) + MARGIN for row in rows]
    page = Sheet(max(sum(each.width + MARGIN for each in row) for row in rows) + MARGIN, sum(heights) + MARGIN)
    for row, top in zip(rows, np.cumsum([MARGIN, *heights]).tolist()):
        left = MARGIN
        for one in row:
            page.put(one, left, top)
            left += one.width + MARGIN
    return page


def _above(upper, lower):
    page = Sheet(max(upper.width, lower.width), upper.height + lower.height)
    page.put(upper, 0, 0)
    page.put(lower, 0, upper.height)
    return page


def _drawn(figure):
    """A matplotlib figure as a PIL picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _subplots(*shape, figsize, **more):
    """(figure, its axes) that no one but the caller knows: pyplot would keep it, and belongs to the user."""
    figure = Figure(figsize, layout="constrained")
    return figure, figure.subplots(*shape, **more)


@cache
def _font(size):
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def named(name: str, number: int) -> str:
    """Name of a class, or, as the font has a box for a letter that it lacks, its number."""
    return str(name) if all(ord(letter) in _letters() for letter in printable(name)) else f"class {number}"


@cache
def _letters():
    return get_font(findfont("DejaVu Sans")).get_charmap()


def _digits(value, count):
    """A number with so many digits that count, or with all before the point: 100, where a format of two digits has 1e+02."""
    return f"{value:.0f}" if 10**count - 0.5 <= abs(value) < 1e6 else f"{value:.{count}g}"


def _length(text, size=SMALL):
    """Pixels."""
    return _font(size).getlength(printable(text))


def _fitted(text, width, size=SMALL, after=""):
    """`text` and `after`, printable, in `width` pixels. Where they are wider, `text` is without some of its middle: as many
    letters as there is room for stay, two at its beginning to one at its end, as names may differ at either."""
    text, after = printable(text), printable(after)
    said, kept = text + after, len(text)
    while kept and _length(said, size) > width:
        kept -= 1
        said = f"{text[:kept - kept//3].rstrip()}…{text[len(text) - kept//3:].lstrip()}{after}"
    return said


def _fitted_lines(text, width, most):
    """`text` in lines of at most `width` pixels, `most` of them at most."""
    lines = _wrapped(text, width)
    if len(lines) > most:
        lines[most - 1:] = [" ".join(lines[most - 1:])]
    return [_fitted(line, width) for line in lines]


def _wrapped(text, width, size=SMALL):
    """`text` in lines of at most `width` pixels, but for a word that is wider."""
    lines = []
    for word in text.split():
        if lines and _length(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def tiles(pictures: NDArray[Any], paths: Iterable[FilePath]) -> None:
    """Write pictures (n,h,w,3), uint8 or in 0..1, each as a PNG of its own."""
    for picture, path in zip(pictures if pictures.dtype != np.uint8 else pictures/np.float32(255), paths):
        with atomic(Path(path)) as temporary:
            as_image(picture).save(temporary, "PNG")


def signed_tiles(projections: Pixels) -> Pixels:
    """Signed (k,h,w,3) -> 0..1, one scale for all k: 0 is mid-grey, and the strongest 0.3 % of what is not zero are black or
    white. (Scaled to the very strongest value, which is a lone one, everything else would be nearly grey.)"""
    strength = np.abs(projections[projections != 0])
    scale = np.quantile(strength, 0.997) if strength.size else 1
    return np.clip(0.5 + 0.5*projections/max(scale, np.finfo(np.float32).tiny), 0, 1)


def montage(tiles: Pixels, columns: int, gap: int = 1, background: float = 1.0) -> NDArray[np.float32]:
    """Tiles (n,h,w,3) in 0..1 -> one picture (H,W,3), filled row by row."""
    n, h, w, _ = tiles.shape
    rows = -(-n//columns)
    sheet = np.full((rows*(h + gap) - gap, min(n, columns)*(w + gap) - gap, 3), background, np.float32)
    for k, tile in enumerate(tiles):
        top, left = k//columns*(h + gap), k % columns*(w + gap)
        sheet[top:top + h, left:left + w] = tile
    return sheet


def as_image(picture: Pixels) -> Image.Image:
    """(H,W,3) in 0..1 -> a PIL picture."""
    return Image.fromarray(np.uint8(np.clip(np.rint(255*picture), 0, 255)))
