"""Floor 6: arrays in, pictures out. The only file that imports matplotlib, and only here is a colour chosen."""
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from zfcore.checkpoint import atomic

TRAIN, VAL, GREY = "#7a8fa6", "#c8442d", "#808080"
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
    pixels = Image.fromarray(np.uint8(np.clip(np.rint(255*picture), 0, 255)))
    with atomic(Path(path)) as temporary:
        pixels.resize((pixels.width*zoom, pixels.height*zoom), Image.NEAREST).save(temporary, "PNG")


def _save(figure, path):
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)
