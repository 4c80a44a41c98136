"""Floor 6: arrays in, pictures out. The only file that imports matplotlib, and only here is a colour chosen."""
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import findfont
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from PIL import Image, ImageDraw, ImageFont

from zfcore.checkpoint import atomic

TRAIN, VAL, GREY = "#7a8fa6", "#c8442d", "#808080"
PAPER, INK = "#ffffff", "#404040"
STROKE = "#e02020"
HEAT = "viridis"                             # jet's order, blue low to yellow high, without the edges that jet invents
CLASSES = "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1 #edc948 #9c755f #bab0ac".split()       # the last one for all others
MARGIN, LABEL = 24, 22                       # pixels between the blocks of a sheet, and above one for its label
FONT = ImageFont.truetype(findfont("DejaVu Sans"), 12)
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
                     "axes.titleweight": "bold", "legend.frameon": False, "figure.dpi": 110})


def learning_curves(history, path):
    """Loss and error in % over the epochs, training and validation; thin lines where the learning rate fell."""
    epochs = history["epoch"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axes, name, factor, title in ((left, "loss", 1, "loss (cross-entropy)"), (right, "error", 100, "top-1 error, %")):
        for part, colour, word in (("train", TRAIN, "training"), ("val", VAL, "validation")):
            values = factor*np.array(history[f"{part}_{name}"])
            axes.plot(epochs, values, color=colour, marker="o", ms=2.5, lw=1.5, label=f"{word} ({values[-1]:.3g})")
        for before, after, epoch in zip(history["lr"], history["lr"][1:], epochs[1:]):
            if after < before:
                axes.axvline(epoch - 0.5, color=GREY, lw=0.5)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend()
    _save(figure, path)


def lr_test(rows, lr, title, path):
    """The loss of each batch and its running mean over the growing learning rate, and the suggested rate `lr` (None: none).

    rows    tuples (step, learning rate, loss, running mean)"""
    _, lrs, losses, smoothed = np.array(rows, np.float64).reshape(-1, 4).T
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.semilogx(lrs, losses, color=TRAIN, lw=0.6, alpha=0.6, label="each batch")
    axes.semilogx(lrs, smoothed, color=INK, lw=1.8, label="running mean")
    if lr is not None:
        axes.axvline(lr, color=VAL, lw=1, label=f"suggested: {lr:g}")
    if np.isfinite(losses).any():
        axes.set_ylim(0, 1.5*np.nanmax(smoothed[:len(smoothed)//2 + 1]))          # the divergence leaves through the top
    axes.set_title(textwrap.fill(title, 82), loc="left", fontweight="normal")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    _save(figure, path)


def filters(w, path, per_filter=False, columns=11, zoom=6):
    """First-layer filters w (3,K,K,F) as colour tiles, 11 in a row with gaps of one pixel, as figure 6 tiles them.

    Mid-grey is zero. One scale for all filters, so that a weak filter looks weak, or one scale each (`per_filter`)."""
    _save_pixels(montage(filter_tiles(w, per_filter), columns), path, zoom)


def filter_tiles(w, per_filter=False):
    """(3,K,K,F) -> (F,K,K,3) in 0..1."""
    scale = np.abs(w).max(axis=(0, 1, 2) if per_filter else None)
    tiles = 0.5 + 0.5*w/np.maximum(scale, np.finfo(np.float32).tiny)
    return tiles.transpose(3, 1, 2, 0)


def unit_blocks(projections, patches, labels, path, columns=4):
    """Figure 2: for each unit a block of its strongest projections beside the block of the picture patches they come from.

    projections (U,k,f,f,3) signed, 0 is mid-grey, one scale for the k of a block; patches (U,k,f,f,3) uint8; a label a unit.
    A tile of few pixels is enlarged, each pixel to a square, to about 75."""
    units, k, f = projections.shape[:3]
    zoom, side = max(1, round(75/f)), int(np.ceil(np.sqrt(k)))
    blocks = [np.concatenate([_block(signed_tiles(above), side, zoom), _block(below/np.float32(255), side, zoom)], axis=1)
              for above, below in zip(projections, patches)]
    height, width, _ = blocks[0].shape
    columns, rows = min(columns, units), -(-units//columns)
    sheet = Image.new("RGB", (columns*(width + MARGIN) + MARGIN, rows*(height + LABEL) + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for unit, (block, label) in enumerate(zip(blocks, labels)):
        left, top = MARGIN + unit % columns*(width + MARGIN), unit//columns*(height + LABEL)
        pen.text((left, top + LABEL - 4), label, INK, FONT, anchor="ls")
        sheet.paste(_as_image(block), (left, top + LABEL))
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG")


def occlusion(found, path):
    """Figure 7 of an `analysis.occlusion.Occlusion`, a row a picture, all maps in the frame of the picture: the value for a
    square stands at the square's middle, and the mid-grey rim is where no square can have its middle.

    (a) the picture with the square where P falls most, the object's box dashed   (b) the sum of the strongest map
    (c) that map's projection from this picture, framed, and from others   (d) P of the class   (e) the most probable class
    and, as other tools show it, the fall of P spread over the pixels. A red stroke on a colour bar: the clean picture's value."""
    side, line = 2.1, 2.5                                    # inches: of a panel, from row to row
    lefts = [0.15, 2.4, 5.15, 7.4, 10.15, 13.6]              # of the panels
    n, H, W, _ = found.pictures.shape
    figure = plt.figure(figsize=(lefts[-1] + side + 0.65, line*n + 0.1))
    width, height = figure.get_size_inches()
    for i in range(n):
        name = found.labels[i] if found.classes is None else found.classes[found.labels[i]]
        titles = ["" if found.names is None else "/".join(Path(found.names[i]).parts[-2:])[-24:],
                  f"sum of {found.layer} map {found.units[i]}", "its projections", f"P({name})", "most probable class",
                  f"fall of P({name}): DROP form"]
        panels = [figure.add_axes((left/width, (line*(n - 1 - i) + 0.1)/height, side/width, side/height)) for left in lefts]
        for axes, title, letter in zip(panels, titles, ("(a) ", "(b) ", "(c) ", "(d) ", "(e) ", "")):
            axes.set_title((letter if i == 0 else "") + title, loc="left", fontsize=8, color=INK, pad=4)
            axes.set(xticks=[], yticks=[], facecolor=GREY)
            axes.spines[:].set_visible(False)
        _occluded(panels[0], found, i)
        _heat(panels[1], found, found.sums[i], found.clean_sums[i])
        _projections(panels[2], [found.views[i], *([] if found.others is None else found.others[i])])
        _heat(panels[3], found, found.probabilities[i], found.clean_probabilities[i])
        _class_map(panels[4], found, i)
        limit = np.nanmax(np.abs(found.drops[i])) or 1
        _colour_bar(panels[5], panels[5].imshow(found.drops[i], cmap="RdBu_r", vmin=-limit, vmax=limit))
    _save(figure, path)


def _occluded(axes, found, i):
    picture, size = found.pictures[i].copy(), found.size
    row, column = np.unravel_index(found.probabilities[i].argmin(), found.probabilities[i].shape)
    top, left = found.tops[row], found.lefts[column]
    picture[top:top + size, left:left + size] = found.grey
    axes.imshow(picture, extent=(0, *picture.shape[1::-1], 0))
    if found.boxes is not None:
        y0, x0, y1, x1 = found.boxes[i]
        axes.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1, ls=(0, (4, 3))))


def _heat(axes, found, values, clean):
    image = _at_middles(axes, found, values, cmap=HEAT, vmin=min(values.min(), clean), vmax=max(values.max(), clean))
    _colour_bar(axes, image).axhline(clean, color=STROKE, lw=2)


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
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.04, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, colors=INK)
    return bar.ax


def _projections(axes, views):
    """Each to its own scale; the first, which is the picture's own, in a black frame."""
    size, side = views[0].shape[0], 1 if len(views) == 1 else 2
    axes.imshow(montage(np.stack([signed_tiles(view) for view in views]), side, gap=max(1, size//40)))
    axes.add_patch(plt.Rectangle((-0.5, -0.5), size, size, fill=False, ec="black", lw=2, clip_on=False))
    axes.set_facecolor(PAPER)


def _class_map(axes, found, i):
    """The class that is followed has the first colour, the others theirs by how often they win, the rare ones the last."""
    classes, counts = np.unique(np.append(found.most_probable[i], found.labels[i]), return_counts=True)
    counts[classes == found.labels[i]] -= 1                                        # it stands in the legend in any case
    order = np.lexsort([-counts, classes != found.labels[i]])
    colour_of = np.full(classes.max() + 1, len(CLASSES) - 1)
    colour_of[classes[order]] = np.minimum(np.arange(len(order)), len(CLASSES) - 1)
    colours = np.array([matplotlib.colors.to_rgb(colour) for colour in CLASSES])
    _at_middles(axes, found, colours[colour_of[found.most_probable[i]]])
    named, rare = order[:len(CLASSES) - 1], order[len(CLASSES) - 1:]
    entries = [(str(classes[k] if found.classes is None else found.classes[classes[k]]), counts[k]) for k in named]
    if rare.size:
        entries.append((f"{rare.size} others", counts[rare].sum()))
    handles = [plt.Rectangle((0, 0), 1, 1, fc=colour, label=f"{name[:16]}  {100*count/counts.sum():.0f} %")
               for colour, (name, count) in zip(CLASSES, entries)]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=7, handlelength=1, handleheight=1,
                labelcolor=INK)


def invariance(found, path):
    """Figure 5 of an `analysis.invariance.Invariance`: a row a series, with some of its pictures, the relative distance at each
    layer, and P of the class. The first pictures in colours, as the bars beside them say; black is the mean over all."""
    n, layers = len(found.labels), found.layers.tolist()
    few = min(n, len(PICTURES))
    figure, rows = plt.subplots(len(found.steps), 2 + len(layers), figsize=(3.6 + 2.5*(len(layers) + 1), 2.3*len(found.steps)),
                                layout="constrained", squeeze=False, width_ratios=[3.5, *[2.5]*(len(layers) + 1)])
    highest = [max(np.nanmax(of[:, k]) for of in found.relative.values()) for k in range(len(layers))]
    for (name, steps), letter, axes in zip(found.steps.items(), "abcdef", rows):
        _thumbnails(axes[0], found.pictures[name][:few])
        axes[0].set_title(f"({letter}) {SERIES.get(name, name)}", loc="left", color=INK)
        curves = [(f"relative distance, {layer}", found.relative[name][:, k], highest[k]) for k, layer in enumerate(layers)]
        for axis, (title, values, top) in zip(axes[1:], [*curves, ("P(true class)", found.probabilities[name], 1)]):
            for curve, colour in zip(values, PICTURES):
                axis.plot(steps, curve, color=colour, lw=1)
            if n > 1:
                axis.plot(steps, values.mean(axis=0), color="black", lw=2, label=f"mean of {n}")
            axis.set(xlim=(steps[0], steps[-1]), ylim=(0, 1.05*top))
            axis.set_title(title, loc="left", color=INK)
            axis.set_xlabel(AXES.get(name, name), fontsize=8, color=INK)
            axis.grid(color="#e4e4e4", lw=0.6)
            axis.tick_params(labelsize=8, colors=INK)
            if name == "rotation":
                axis.set_xticks(range(0, 361, 90))
    if n > 1:
        rows[min(1, len(rows) - 1), 1].legend(fontsize=8, labelcolor=INK, loc="lower right")
    _save(figure, path)


PICTURES = "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1".split()          # one each, as many as the paper's figures 5 and 8 show
SERIES = {"translation": "vertical translation", "scale": "scale", "rotation": "rotation"}
AXES = {"translation": "pixels, down is positive", "scale": "factor", "rotation": "degrees, counter-clockwise"}


def _thumbnails(axes, pictures):
    """(n,m,h,w,3) uint8, a picture a row, with a bar of its colour at the left."""
    n, m, h, w, _ = pictures.shape
    gap = max(2, h//30)
    axes.imshow(montage(pictures.reshape(n*m, h, w, 3)/np.float32(255), m, gap), aspect="equal")
    for row, colour in zip(range(n), PICTURES):
        axes.add_patch(plt.Rectangle((-h//4, row*(h + gap)), h//6, h, fc=colour))
    axes.set(xlim=(-h//4, m*(w + gap)), ylim=(n*(h + gap), -gap))
    axes.set_anchor("NW")
    axes.axis("off")


def correspondence(found, path, most_random=3):
    """Figure 8 of `analysis.correspondence.Correspondence`s: the first five pictures of the first, each as it is, with each
    part masked, with the places of another picture's parts masked, with some of its random squares; above, the mean scores."""
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
    height, width, _ = tiles[0].shape
    zoom, gap = max(1, round(112/width)), 4
    tiles = np.stack(tiles).repeat(zoom, axis=1).repeat(zoom, axis=2)/np.float32(255)
    pixels = montage(tiles, columns, gap)
    titles = [f"{n} of {len(first.pictures)} pictures", *parts, *(f"{part} of another picture" for part in parts), "random"]
    means = dict(zip((what for what, _ in first.rows()), np.array([[[mean for mean, _ in of] for _, of in one.rows()]
                                                                 for one in found]).mean(axis=0)))
    texts = [textwrap.wrap(title.replace("_", " "), max(1, width*zoom//8))
             + [f"{layer}: {score:.3f}" for layer, score in zip(first.layers.tolist(), means.get(title, ()))]
             for title in titles]
    head = 16*max(map(len, texts)) + 12
    sheet = Image.new("RGB", (pixels.shape[1] + 2*MARGIN, head + pixels.shape[0] + MARGIN), PAPER)
    sheet.paste(_as_image(pixels), (MARGIN, head))
    pen = ImageDraw.Draw(sheet)
    for k, text in enumerate(texts):
        for line, words in enumerate(text, 1):
            pen.text((MARGIN + k*(width*zoom + gap), head - 16*(len(text) - line) - 6), words, INK, FONT, anchor="ls")
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG")


def evolution(found, path):
    """Figure 4 of an `analysis.evolution.Evolution`: a block a layer, a row a unit, a column an epoch; one scale a row, so
    that a unit which grows stronger is seen to. Below, the two numbers of each step."""
    blocks = []
    for layer, projections in found.projections.items():
        tiles = np.stack([signed_tiles(row) for row in projections])                   # (U,E,f,f,3)
        heads = [f"epoch {epoch}" for epoch in found.epochs.tolist()]
        blocks.append(_table(tiles, layer, heads, [f"unit\n{unit}" for unit in found.units[layer].tolist()]))
    sheet = _beside(blocks, 3000)
    if len(found.epochs) > 1:
        sheet = _above(sheet, _steps(found, sheet.width))
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _steps(found, width):
    """A panel a number: over the later epoch of each step, a line a layer, from dark (layer 1) to light, named at its end."""
    figure, panels = plt.subplots(1, 2, figsize=(min(max(width/110, 8), 16), 2.8), layout="constrained")
    titles = ("change of the projections, 1 - cosine", "units with another strongest picture, %")
    for axes, title, numbers, factor in zip(panels, titles, (found.change, found.moved), (1, 100)):
        for k, (layer, row) in enumerate(numbers.items()):
            axes.plot(range(len(row)), factor*row, color=matplotlib.colormaps["viridis"](k/len(numbers)), marker="o", ms=3,
                      label=f"{layer} ({factor*row[-1]:.2g})")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epochs")
        epochs = found.epochs.tolist()
        axes.set_xticks(range(len(epochs) - 1), [f"{a} to {b}" for a, b in zip(epochs, epochs[1:])])
        axes.set_ylim(0, factor*1.02)
    panels[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return _drawn(figure)


def diagnostics(found, path):
    """Figure 6 of one or more `analysis.diagnostics.Diagnosis`, a row each: layer 1's filters to one scale and each to its
    own, the strongest projections of some units of layer 2; below, the numbers of all of them."""
    rows = []
    for one in found:
        blocks = []
        for per_filter, what in ((False, "one scale"), (True, "each its own scale")):
            pixels = _enlarged(filter_tiles(one.filters, per_filter), 49 if one.filters.shape[3] <= 40 else 33)
            blocks.append(_titled(_as_image(montage(pixels, 11 if len(pixels) > 40 else 6)), f"{one.name}: layer 1, {what}"))
        k, f = one.projections.shape[1:3]
        units = [montage(_enlarged(signed_tiles(row), 45), int(np.ceil(np.sqrt(k)))) for row in one.projections]
        blocks.append(_titled(_as_image(montage(np.stack(units), 5, gap=6)),
                              f"{one.layer}: the {k} strongest projections of {len(units)} units"))
        rows.append(_beside(blocks, 4000))
    sheet = rows[0]
    for row in [*rows[1:], _numbers(found)]:
        sheet = _above(sheet, row)
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _numbers(found):
    """RMS of the filters, spectrum of layer 1, dead units of each layer; a colour a network."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 2.8), layout="constrained")
    for number, (one, colour) in enumerate(zip(found, (TRAIN, VAL))):
        left.plot(np.sort(one.rms)[::-1], color=colour, label=f"{one.name}: max/median {one.dominance:.2f}")
        low, mid, high = (100*share for share in one.bands().values())
        middle.stairs(100*np.nanmean(one.spectrum, axis=0), one.edges, color=colour, lw=1.5,
                      label=f"{one.name}: low {low:.0f}, mid {mid:.0f}, high {high:.0f} %")
        places = np.arange(len(one.dead)) + (number - (len(found) - 1)/2)*0.38
        shares = [100*dead.mean() for dead in one.dead.values()]
        alias = "" if np.isnan(one.aliasing) else f"; {one.layer} aliasing {one.aliasing:.3f}"
        right.bar(places, shares, 0.36, color=colour, label=f"{one.name}{alias}")
        for place, share in zip(places, shares):
            right.text(place, share, f"{share:.0f}", ha="center", va="bottom", fontsize=7, color=INK)
    left.set_title("RMS of layer 1's filters, sorted", loc="left")
    middle.set_title("energy of layer 1's filters, %", loc="left")
    middle.set_xlabel("cycles a pixel")
    right.set_title("units that never fire, %", loc="left")
    right.set_xticks(range(len(found[0].dead)), list(found[0].dead))
    for axes in (left, middle, right):
        axes.set_ylim(0, 1.35*axes.get_ylim()[1])
        axes.legend(loc="upper right", fontsize=7)
    return _drawn(figure)


def controls(found, path, most=4):
    """An `analysis.controls.Controls`: for up to `most` units the strongest picture, its projection as trained and under each
    control, each tile to its own scale; above each column the means over all projections."""
    rows = np.unique(found.units, return_index=True)[1][:most]
    patches, made = found.patches[rows]/np.float32(255), found.projections[rows]               # (R,f,f,3), (R,J,f,f,3)
    tiles = np.concatenate([patches[:, None], [[signed_tiles(tile[None])[0] for tile in row] for row in made]], axis=1)
    means = zip(found.conditions.tolist(), found.cosine.mean(axis=0), found.rank.mean(axis=0))
    heads = [["patch", "", ""], *([name, f"cosine {cosine:.2f}", f"rank {rank:.2f}"] for name, cosine, rank in means)]
    if found.inside is not None:
        heads[0].append(f"box {100*found.area.mean():.0f} % of it")
        for head, share in zip(heads[1:], np.nanmean(found.inside, axis=0)):
            head.append(f"in box {100*share:.0f} %")
    sheet = _table(tiles, "", ["\n".join(head) for head in heads], [f"{found.layer}\n{unit}" for unit in found.units[rows]])
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def confusion(counts, classes, pairs, title, path):
    """How often pictures of each class (rows) were taken for each (columns), as a share of the row: right answers in one
    colour, wrong ones in another, on a square-root scale and never paler than a quarter, so that a single mistake is seen.
    Beside it the most confused pairs.

    counts (M,M) integers; pairs: (true, predicted, count, pictures of the true class), the most confused first. Few classes
    have their counts in the cells, up to 60 their names at the sides; of a thousand, each is a pixel wide."""
    M = len(counts)
    cell = max(1, min(60, 960//M))                                        # pixels; whole ones, so that no class is lost
    side, named, margin = cell*M, M <= 60, 30
    if named:
        margin += int(max(FONT.getlength(_short(name)) for name in classes))
    left, panel = max(margin, 60), max(side, 180)                         # the right panel is as high as the matrix, or higher
    width = left + side + 460
    title = textwrap.wrap(title, int(width/7.5))
    top = 15*len(title) + 25
    height, dpi = top + panel + max(margin, 60), plt.rcParams["figure.dpi"]
    figure = plt.figure(figsize=(width/dpi, height/dpi))

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
        bar = figure.colorbar(image, cax=place(left + side + 25 + 18*k, top, 11, min(panel, 400)))
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1 %", "10 %", "25 %", "50 %", "100 %"] if k else [""]*6)
        bar.ax.set_xlabel(word, rotation=90, fontsize=7, color=INK)
        bar.ax.tick_params(labelsize=7, length=2 if k else 0, colors=INK)
        bar.outline.set_linewidth(0.5)
    if cell >= 30:
        for i, j in zip(*counts.nonzero()):
            axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color=PAPER if shares[i, j] > 0.5 else "black")
    ticks = range(M) if named else range(0, M, 100 if M > 400 else 20)
    for axis, word, turn in ((axes.xaxis, "predicted", 90 if named else 0), (axes.yaxis, "true", 0)):
        axis.set_ticks(ticks, [_short(classes[k]) if named else k for k in ticks], fontsize=7, rotation=turn)
        axis.set_label_text(f"{word} class" + ("" if named else ", by number"), color=INK)
    axes.tick_params(length=2, colors=INK)
    axes.spines[:].set(visible=True, linewidth=0.5)
    figure.text(10/width, 1 - 10/height, "\n".join(title), va="top", color=INK)
    lines = [_fitted(f"{count} of {of}   {_short(true)} → {_short(taken)}", 340)
             for true, taken, count, of in pairs[:min(40, panel//17 - 1)]]
    figure.text((left + side + 110)/width, 1 - top/height, "\n".join(["most confused:", *lines]), va="top", fontsize=8,
                color=INK, linespacing=1.4)
    _save(figure, path)


def _short(name, most=24):
    return name if len(name) <= most else name[:most - 1] + "…"


def accuracy_curve(paper, here, paper_title, here_title, path):
    """Tables 4 and 5, figure 9: accuracy in % over the training pictures a class, of the paper, left, and ours, right. Each
    is {name of a row: {pictures: (mean, spread or None)}}; of the paper the last two rows are its own, the others grey."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, sharex=True, layout="constrained")
    *others, scratch, features = paper.items()
    looks = [(name, of, GREY, ls) for (name, of), ls in zip(others, (":", "--", "-."))]
    groups = ((panels[0], [*looks, (*scratch, TRAIN, "-"), (*features, VAL, "-")], paper_title),
              (panels[1], [(name, of, colour, "-") for (name, of), colour in zip(here.items(), (TRAIN, VAL))], here_title))
    for axes, rows, title in groups:
        for name, of, colour, style in rows:
            if of:
                counts, (means, spreads) = sorted(of), zip(*(of[n] for n in sorted(of)))
                axes.errorbar(counts, means, [spread or 0 for spread in spreads], color=colour, ls=style, lw=1.5, marker="o", ms=3.5,
                              capsize=2, label=name)
        axes.set_title(title, loc="left")
        axes.set_xlabel("training pictures a class")
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, labelcolor=INK)
    panels[0].set(xlim=(0, 1.03*max(n for _, rows, _ in groups for _, of, _, _ in rows for n in of)), ylim=(0, 100))
    panels[0].set_ylabel("mean of the classes' accuracies, %")
    _save(figure, path)


def accuracy_by_layer(panels, chance, path):
    """Table 7: accuracy in % over the layer. `panels`: {title: {("svm" or "softmax", layer): (mean, spread or None)}}; the last
    one is ours, with a line at `chance`."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4*len(panels), 3.3), sharey=True, sharex=True, layout="constrained")
    for place, (title, of) in zip(axes, panels.items()):
        for kind, word, colour, shape in (("svm", "SVM", VAL, "o"), ("softmax", "softmax", TRAIN, "s")):
            layers = sorted(layer for which, layer in of if which == kind)
            place.errorbar(layers, [of[kind, n][0] for n in layers], [of[kind, n][1] or 0 for n in layers], color=colour,
                           marker=shape, ms=4, lw=1.5, capsize=2, label=word)
        place.set_title(title, loc="left", fontsize=8)
        place.set_xlabel("features of layer")
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        place.grid(axis="y", color="#e4e4e4", lw=0.6)
        place.set_axisbelow(True)
        place.set_ylim(0, 100)
    axes[-1].axhline(chance, color=GREY, lw=1, ls=":", label="by chance")
    axes[0].set_ylabel("mean of the classes' accuracies, %")
    axes[-1].legend(fontsize=8, labelcolor=INK)
    _save(figure, path)


def average_precisions(names, columns, chance, path):
    """Table 6: a row a class, a dot for the average precision in % of each of `columns` {name: (K,)}, the paper's first, and a
    stroke at `chance`; NaN leaves a place empty."""
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.22*len(names)), layout="constrained")
    places = np.arange(len(names))
    axes.scatter(chance, places, marker="|", s=70, color=GREY, lw=1.2, label="by chance")
    for (name, values), colour, shape in zip(columns.items(), (GREY, VAL, TRAIN), "Dos"):
        axes.scatter(values, places, s=26, color=colour, marker=shape, label=name, zorder=3, alpha=0.9, lw=0)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.axhline(len(names) - 1.5, color=GREY, lw=0.5)
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(-2, 102), xlabel="average precision, %")
    axes.legend(fontsize=8, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
    _save(figure, path)


def pairs(pictures, captions, title, path):
    """Pairs of pictures ((h,w,3), (h,w,3)) uint8 side by side, with two lines of text below each."""
    joined = [np.concatenate(pair, axis=1) for pair in pictures]
    captioned(joined, captions, [True]*len(joined), title, path, columns=5, side=200)


def captioned(pictures, captions, right, title, path, columns=8, side=136):
    """Pictures (n,h,w,3) uint8 in rows, brought to `side` pixels of width, with two lines of text below each; the second line
    is in the colour of an error where `right` is False."""
    lines = title.split("\n")
    n, head = len(pictures), 16*len(lines) + 14
    tall = round(side*pictures[0].shape[0]/pictures[0].shape[1])
    across, down = side + 14, tall + 48
    width = max(min(n, columns)*across - 14, *(int(FONT.getlength(line)) for line in lines))
    sheet = Image.new("RGB", (width + 2*MARGIN, head + -(-n//columns)*down + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 12), title, INK, FONT, spacing=2)
    for k, (picture, texts) in enumerate(zip(pictures, captions)):
        left, top = MARGIN + k % columns*across, MARGIN + head + k//columns*down - 12
        sheet.paste(Image.fromarray(picture).resize((side, tall), Image.Resampling.BICUBIC), (left, top))
        for line, (text, colour) in enumerate(zip(texts, (INK, INK if right[k] else VAL)), 1):
            pen.text((left, top + tall + 15*line), _fitted(text, side + 8), colour, FONT, anchor="ls")
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _fitted(text, width):
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if FONT.getlength(text) <= width:
        return text
    while FONT.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def beside_paper(labels, paper, ours, path):
    """Tables 2 and 3: for R rows the errors in % of the paper, left, and ours, right; on logarithmic axes, as errors differ by
    factors. Behind a row its validation error and the rank of it: where the ranks agree, so does the order of the rows.

    paper  R pairs (training, validation) error, None where there is none    ours  for each row such pairs, one a seed"""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 0.9 + 0.27*len(labels)), sharey=True, layout="constrained")
    for axes, rows, title in ((panels[0], [[pair] for pair in paper], "the paper"), (panels[1], ours, "here")):
        means = [_mean(pair[1] for pair in row) for row in rows]
        ranked = sorted(mean for mean in means if mean is not None)
        for place, (row, mean) in enumerate(zip(rows, means)):
            for column, colour, lift in ((0, TRAIN, 0.13), (1, VAL, -0.13)):
                values = [max(pair[column], LEAST_ERROR) for pair in row if pair[column] is not None]
                if values:
                    axes.scatter(values, [place + lift]*len(values), s=10, color=colour, alpha=0.45, lw=0)
                    axes.plot([min(values), max(values)], [place + lift]*2, color=colour, lw=1)
                    axes.scatter([_mean(values)], [place + lift], s=30, color=colour, zorder=3)
            if mean is not None:
                axes.text(1.01, place, f"{mean:.1f}  rank {ranked.index(mean) + 1}", transform=axes.get_yaxis_transform(), va="center",
                          fontsize=8, color=INK)
        several = any(len(row) > 1 for row in rows)
        axes.set(xscale="log", xlabel="top-1 error, %" + several*"  (mean, and every seed)", ylim=(len(labels) - 0.5, -0.5))
        axes.set_title(title, loc="left")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True) if high < 1.5*low else FixedLocator(ERRORS))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), labels)
    trains = any(pair[0] is not None for pair in (*paper, *(pair for row in ours for pair in row)))
    for colour, word in ((TRAIN, "training"), (VAL, "validation"))[not trains:]:
        panels[1].scatter([], [], s=30, color=colour, label=word)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    _save(figure, path)


ERRORS = 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100     # %: places of ticks
LEAST_ERROR = 0.05                           # %: what a row without errors is drawn at, as a logarithm has no 0


def _mean(values):
    values = [value for value in values if value is not None]
    return sum(values)/len(values) if values else None


# --------------------------------------------------------------------------------------------- sheets of tiles and labels
def _table(tiles, title, heads, names):
    """Tiles (R,C,h,w,3) in 0..1 as a PIL picture: rows with their names at the left, columns with their heads above."""
    R, C = tiles.shape[:2]
    pixels, gap = _enlarged(tiles.reshape(R*C, *tiles.shape[2:]), 80), 4
    pixels = pixels.reshape(R, C, *pixels.shape[1:])
    height, width = pixels.shape[2:4]
    words = max(FONT.getlength(line) for head in heads for line in head.split("\n"))
    across, down = max(width + gap, int(words) + 8), height + gap                        # from column to column, row to row
    left = 10 + int(max(FONT.getlength(line) for name in names for line in name.split("\n")))
    top = 15*(max(head.count("\n") for head in heads) + 1) + 8 + (LABEL if title else 0)
    sheet = Image.new("RGB", (left + C*across, top + R*down - gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 14), title, INK, FONT, anchor="ls")
    for k, head in enumerate(heads):
        pen.text((left + k*across, top - 5), head, INK, FONT, anchor="ld", spacing=2)
        sheet.paste(_as_image(montage(pixels[:, k], 1, gap)), (left + k*across, top))
    for k, name in enumerate(names):
        pen.text((left - 6, top + k*down + height//2), name, INK, FONT, anchor="rm", align="right")
    return sheet


def _enlarged(tiles, side):
    """Tiles (n,h,w,3), each pixel enlarged to a square so that a tile is about `side` pixels, if it is smaller."""
    zoom = max(1, round(side/tiles.shape[1]))
    return tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)


def _titled(picture, title):
    sheet = Image.new("RGB", (max(picture.width, int(FONT.getlength(title)) + 1), picture.height + LABEL), PAPER)
    ImageDraw.Draw(sheet).text((0, LABEL - 6), title, INK, FONT, anchor="ls")
    sheet.paste(picture, (0, LABEL))
    return sheet


def _beside(pictures, widest):
    """PIL pictures in rows of at most `widest` pixels, with a rim of paper."""
    rows = [[]]
    for picture in pictures:
        if rows[-1] and sum(p.width + MARGIN for p in rows[-1]) + picture.width > widest:
            rows.append([])
        rows[-1].append(picture)
    heights = [max(p.height for p in row) + MARGIN for row in rows]
    sheet = Image.new("RGB", (max(sum(p.width + MARGIN for p in row) for row in rows) + MARGIN, sum(heights) + MARGIN), PAPER)
    for row, top in zip(rows, np.cumsum([MARGIN, *heights]).tolist()):
        left = MARGIN
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + MARGIN
    return sheet


def _above(upper, lower):
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), PAPER)
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet


def _drawn(figure):
    """A matplotlib figure as a PIL picture."""
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    plt.close(figure)
    return pixels


def tiles(pictures, paths):
    """Write pictures (n,h,w,3), uint8 or in 0..1, each as a PNG of its own."""
    for picture, path in zip(pictures if pictures.dtype != np.uint8 else pictures/np.float32(255), paths):
        _save_pixels(picture, path)


def signed_tiles(projections):
    """Signed (k,h,w,3) -> 0..1, one scale for all k: 0 is mid-grey, and the strongest 0.3 % of what is not zero are black or
    white. (Scaled to the very strongest value, which is a lone one, everything else would be nearly grey.)"""
    strength = np.abs(projections[projections != 0])
    scale = np.quantile(strength, 0.997) if strength.size else 1
    return np.clip(0.5 + 0.5*projections/max(scale, np.finfo(np.float32).tiny), 0, 1)


def _block(pictures, side, zoom):
    """k tiles (k,f,f,3) -> a square block, side x side, with a rim of MARGIN//4 paper at its right."""
    sheet = montage(pictures.repeat(zoom, axis=1).repeat(zoom, axis=2), side)
    return np.pad(sheet, ((0, 0), (0, MARGIN//4), (0, 0)), constant_values=1.0)


def montage(tiles, columns, gap=1, background=1.0):
    """Tiles (n,h,w,3) in 0..1 -> one picture (H,W,3), filled row by row."""
    n, h, w, _ = tiles.shape
    rows = -(-n//columns)
    sheet = np.full((rows*(h + gap) - gap, min(n, columns)*(w + gap) - gap, 3), background, np.float32)
    for k, tile in enumerate(tiles):
        top, left = k//columns*(h + gap), k % columns*(w + gap)
        sheet[top:top + h, left:left + w] = tile
    return sheet


def _save_pixels(picture, path, zoom=1):
    """Write (H,W,3) in 0..1 as a PNG, each pixel `zoom` pixels wide."""
    pixels = _as_image(picture)
    with atomic(Path(path)) as temporary:
        pixels.resize((pixels.width*zoom, pixels.height*zoom), Image.NEAREST).save(temporary, "PNG")


def _as_image(picture):
    """(H,W,3) in 0..1 -> a PIL picture."""
    return Image.fromarray(np.uint8(np.clip(np.rint(255*picture), 0, 255)))


def _save(figure, path):
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)
