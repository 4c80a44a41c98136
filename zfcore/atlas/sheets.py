"""The folder of an atlas: sheets of pictures (WebP) and data, each file written whole or not at all.

A browser that has opened a page from a disk may load scripts and pictures beside it, and nothing else. So data are scripts:
data/NAME.js is one call, atlas.receive("NAME", {...}), in ASCII."""
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.files import anything, inside, mapping, parsed, read_text

LOSSLESS = 32                     # fields up to this side are shown pixel by pixel
QUALITY = 80                      # of WebP, for larger ones
MOST_DATA = 2**28                 # bytes of a file of data


# ------------------------------------------------------------------------------------------------------------------- pixels
def visible(pixels):
    """Pixel values, uint8, of pictures that are these or numbers in 0..1."""
    return pixels if pixels.dtype == np.uint8 else np.uint8(np.clip(np.rint(255*pixels), 0, 255))


def shown_side(field, most):
    """Side in pixels at which a field is shown that may have `most`: a whole multiple of its own, if one fits."""
    return field*(most//field) if field <= most else most


def fitted(tiles, most):
    """Tiles (n,f,f,3) as uint8 at their `shown_side`: each pixel repeated, or where there are too many their averages."""
    tiles, side = visible(tiles), shown_side(tiles.shape[1], most)
    if side >= tiles.shape[1]:
        return tiles.repeat(side//tiles.shape[1], axis=1).repeat(side//tiles.shape[1], axis=2)
    return np.stack([np.asarray(Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS)) for tile in tiles])


def webp(pixels, lossless=False):
    """(H,W,3), uint8 or in 0..1 -> bytes of a WebP file."""
    buffer = io.BytesIO()
    # 4 takes three times as long for 3 % less
    Image.fromarray(visible(pixels)).save(buffer, "WEBP", lossless=lossless, quality=QUALITY, method=2)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------------- the folder
class Folder:
    """The folder of an atlas at `path`."""
    def __init__(self, path):
        self.path = Path(path)

    def write(self, name, content):
        """Write bytes to the file called `name`, with folders before it. Returns the name."""
        path = inside(self.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        return name

    def sheet(self, name, tiles, columns, lossless):
        """Write tiles (n,side,side,3), so many a row, as sheets/NAME.webp. Returns that name. The page finds a tile by its
        share of the sheet's width: that is all columns wide, however few the tiles."""
        n, side = tiles.shape[:2]
        sheet = np.full((-(-n//columns)*side, columns*side, 3), 128, np.uint8)
        for k, tile in enumerate(visible(tiles)):
            top, left = k//columns*side, k % columns*side
            sheet[top:top + side, left:left + side] = tile
        return self.write(f"sheets/{name}.webp", webp(sheet, lossless))

    def data(self, name, value):
        """Write data/NAME.js, which hands `value` to the page."""
        text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return self.write(f"data/{name}.js", f"atlas.receive({json.dumps(name)},{text});\n".encode("ascii"))

    def known(self, name, form=mapping(anything)):
        """The value of data/NAME.js in the `form` that is expected; None where there is no such file. Raises Expected for one
        that `data` has not written."""
        path = inside(self.path, f"data/{name}.js")
        if not path.is_file():
            return None
        text, begin, end = read_text(path, MOST_DATA), f"atlas.receive({json.dumps(name)},", ");\n"
        if not (text.startswith(begin) and text.endswith(end)):
            raise Expected(path, f"a file that begins with {begin} and ends with );", "another",
                           "remove it, and what `zfcore atlas` made of it comes again")
        return parsed(path, text[len(begin):-len(end)], form)


def plain(value):
    """`value` as JSON can say it: of numbers five digits, of what is no number null."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value
