"""Floor 6: arrays in, pictures out. The only file that imports matplotlib, and only here is a colour chosen."""
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from zfcore.checkpoint import atomic

TRAIN, VAL, GREY = "#7a8fa6", "#c8442d", "#808080"
PAPER, INK = "#ffffff", "#404040"
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


def filters(w, path, per_filter=False, columns=11, zoom=6):
    """First-layer filters w (3,K,K,F) as colour tiles, 11 in a row with gaps of one pixel, as figure 6 tiles them.

    Mid-grey is zero. One scale for all filters, so that a weak filter looks weak, or one scale each (`per_filter`)."""
    scale = np.abs(w).max(axis=(0, 1, 2) if per_filter else None)
    tiles = 0.5 + 0.5*w/np.maximum(scale, np.finfo(np.float32).tiny)           # (3,K,K,F) in 0..1
    _save_pixels(montage(tiles.transpose(3, 1, 2, 0), columns), path, zoom)


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
