"""Decoding: from the bytes of a picture file to the square of uint8 pixels that networks are fed from, and crops of it.

The paper's pre-processing (section 3): shorter side to 256, the centre 256x256 of it, minus the per-pixel mean image, then
sub-crops of 224. `decode` and `square` are the first two steps; `zfcore.ops.crop_flip` does the last two on the device, and
the functions at the end of this file say which crops it shall take.
"""
import io
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError, features

from zfcore import check
from zfcore.check import Expected

HAS_HEIF, HAS_AVIF = find_spec("pillow_heif") is not None, "avif" in features.modules and features.check_module("avif")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM",        # told by content, whatever the file is called
           *(["AVIF"] if HAS_AVIF else []), *(["HEIF"] if HAS_HEIF else []))
HEIF = frozenset((".heic", ".heif", ".hif"))
SUFFIXES = frozenset((*".jpeg .jpg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm".split(),
                      *([".avif"] if HAS_AVIF else []), *(HEIF if HAS_HEIF else [])))
MAX_PIXELS = 89_478_485           # Pillow's own limit: a few kilobytes that unfold into more are a decompression bomb
MAX_JPEG = 2**28                  # pixels of a JPEG, which is decoded at reduced scale; phones make 200 megapixels
MAX_PROGRESSIVE = 2**27           # of one whose coefficients all lie in memory meanwhile, 2 bytes each
MOST_BYTES = 2**28                # of a picture's file
MOST_LACKING = 0.05               # of the rows of a JPEG that is cut short
FILLING = bytes(range(1, 255))*16  # coded rows such as no picture has
BAND = 2**22                      # pixels that are brought to RGB at a time, where that takes several times their bytes

# EXIF orientation -> what brings the picture upright
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
ORIENTATION = 0x0112
BITS, PHOTOMETRIC = 258, 262      # tags of a TIFF: bits of a sample; 0 where the value 0 is white
SIXTEEN_BITS = "PNG", "PPM"       # formats of which Pillow, by its version, brings 16 bits as mode "I", which has 32


class CorruptImage(Exception):
    """Picture `name` cannot be used, for `reason`. `lasting` is False where the file could not even be read: a disk or a
    network may be back tomorrow, whereas damaged contents stay damaged."""

    def __init__(self, name: str, reason: str, lasting: bool = True) -> None:
        self.name, self.reason, self.lasting = name, reason, lasting
        super().__init__(name, reason, lasting)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class TooSmall(Expected):
    """A picture is smaller than the network's input."""


def decode(name: str, data: bytes, shorter_side: int | None = None) -> Image.Image:
    """The bytes of a picture file -> the picture, mode RGB, upright. Raises CorruptImage, never anything of Pillow's.

    `shorter_side` allows a JPEG much larger than needed to be decoded at 1/2, 1/4 or 1/8 of its size, several times
    faster (libjpeg leaves out the high frequencies of each block). At least twice `shorter_side` is left, so that the
    antialiased resampling of `square` still decides what the pixels are."""
    if not data:
        raise CorruptImage(name, "the file is empty")
    try:
        picture = _opened(data)
        pixels, is_jpeg = picture.width*picture.height, _is_jpeg(data)
        most = MAX_PIXELS if not is_jpeg else MAX_PROGRESSIVE if "progressive" in picture.info else MAX_JPEG
        if pixels > most:
            raise CorruptImage(name, f"{picture.width}x{picture.height} pixels, more than a photograph has")
        side = 2*shorter_side if shorter_side else max(picture.size)
        while pixels > MAX_PIXELS and min(picture.size)//side < 2:            # too large for its full size, whoever asks
            side //= 2
        picture.draft(None, (side, side))
        try:
            picture.load()
        except OSError:
            if not is_jpeg:
                raise
            picture = _without_end(data, (side, side))
        return to_rgb(picture)
    except (CorruptImage, MemoryError):                # a machine without memory is not the picture's fault
        raise
    except UnidentifiedImageError:
        raise CorruptImage(name, "not a picture in a known format") from None
    except Exception as error:                    # Pillow's plug-ins answer a broken file with almost any exception
        raise CorruptImage(name, str(error) or type(error).__name__) from error


def _is_jpeg(data):
    return data[:3] == b"\xff\xd8\xff"


def _opened(data):
    """The bytes of a picture file -> the picture, not yet decoded, and the colour that is transparent in it, if there is one,
    as its own pixels have it. A JPEG does not pass Pillow's limit, which knows nothing of `draft`."""
    if _is_jpeg(data):
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    if HAS_HEIF and data[4:8] == b"ftyp":
        from pillow_heif import register_heif_opener
        register_heif_opener()
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    colour = picture.info.get("transparency")
    if picture.format == "PNG" and picture.mode != "P" and colour is not None:
        depth = data[24]                          # bits of a sample; Pillow brings them to 8, but not the colour
        if picture.mode == "L":
            picture.info["transparency"] = colour*255//(2**depth - 1)
        elif picture.mode == "RGB" and depth == 16:
            picture.info["transparency"] = tuple(value >> 8 for value in colour)
    return picture


def _without_end(data, draft):
    """The JPEG `data`, cut short, if it lacks no more than its end: a few of its rows, or of a progressive one nothing but a
    part of the last refinement. Raises OSError where it lacks more."""
    def with_end(end):
        picture = JpegImagePlugin.jpeg_factory(io.BytesIO(data.rstrip(b"\xff") + end + b"\xff\xd9"))
        height = picture.height
        picture.draft(None, draft)
        picture.load()
        return picture, height//picture.height

    picture, scale = with_end(b"")                # libjpeg makes up the rows that are not there
    if "progressive" in picture.info:
        lacks_much = not _has_all_scans(data)
    else:                                         # where all are there, what comes behind them is passed over
        differs = (np.asarray(picture) != np.asarray(with_end(FILLING)[0])).reshape(picture.height, -1).any(axis=1)
        lacks = picture.height - int(differs.argmax()) if differs.any() else 0
        blocks = 8*max(v for _, _, v, _ in picture.layer)//scale             # rows that are coded together
        lacks_much = lacks > max(MOST_LACKING*picture.height, min(blocks, picture.height//8))
    if lacks_much:
        raise OSError("the file is cut short")
    return picture


def _has_all_scans(data):
    """Return whether a progressive JPEG has, at least in part, the scan that brings each component's last coefficient to its
    last bit."""
    components, done, at = set(), set(), 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 12:
        marker, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], "big")
        if marker in (0, 0xff) or 0xd0 <= marker <= 0xd8:                    # no segment begins here
            at += 1 if marker == 0xff else 2
            continue
        if marker == 0xc2:                                                   # the frame: which components there are
            components = {data[at + 10 + 3*k] for k in range(data[at + 9])}
        # a scan: components, first and last coefficient, bits
        if marker == 0xda:
            count = data[at + 4]
            of_scan, (_, last, bits) = data[at + 5:at + 5 + 2*count:2], data[at + 5 + 2*count:at + 8 + 2*count]
            done |= set(of_scan) if last == 63 and bits & 15 == 0 else set()
        at += 2 + length
    return bool(components) and components <= done


def to_rgb(picture: Image.Image) -> Image.Image:
    """Picture of any mode -> mode RGB, 8 bits a channel, turned upright as its EXIF orientation says.

    Greyscale fills three equal channels. 16 bits are scaled to 8 (65535 -> 255). Transparent parts are laid on white, as
    a page would show them: the colour stored under them is arbitrary. CMYK and palettes are converted by Pillow; colour
    profiles are not applied. Pixels without a known white are refused with ValueError: floating-point ones, and whole numbers
    of 32 bits or with a sign."""
    orientation = _orientation(picture)
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose white is not known")
    if picture.mode == "I" and picture.format not in SIXTEEN_BITS:
        raise ValueError("pixels of 32 bits or with a sign, whose white is not known")
    colour = picture.info.get("transparency")
    if picture.mode.startswith("I"):              # I;16, I;16B ...
        black, white = _black_and_white(picture)
        picture = _in_bands(picture, "L", lambda band: _eight_bits(band, black, white, colour))
    elif picture.mode in ("1", "L", "RGB") and colour is not None:
        picture = _in_bands(picture, "RGB", lambda band: _keyed(band.convert("RGB"), colour))
    elif picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or colour is not None:
        picture = _in_bands(picture, "RGB", _on_white)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def _in_bands(picture, mode, change):
    """A PIL picture of this mode, made by `change` from bands of rows: what lies between takes several times their bytes."""
    made, rows = Image.new(mode, picture.size), max(1, BAND//picture.width)
    for top in range(0, picture.height, rows):
        made.paste(change(picture.crop((0, top, picture.width, min(top + rows, picture.height)))), (0, top))
    return made


def _black_and_white(picture):
    """The values of a picture of more than 8 bits that are black and white: Pillow brings a TIFF's as they are stored."""
    tags = picture.tag_v2 if picture.format == "TIFF" else {}
    most = 2**tags.get(BITS, (16,))[0] - 1
    return (most, 0) if tags.get(PHOTOMETRIC) == 0 else (0, most)


def _eight_bits(picture, black, white, transparent):
    most = max(black, white)
    values = np.clip(np.asarray(picture).astype(np.int64), 0, most)
    grey = np.uint8((255*abs(values - black) + most//2)//most)
    return Image.fromarray(grey if transparent is None else np.where(values == transparent, np.uint8(255), grey))


def _keyed(picture, transparent):
    """Picture, mode RGB, with white where it has the colour `transparent`, a grey or (red, green, blue)."""
    pixels = np.array(picture)
    pixels[(pixels == np.uint8(transparent)).all(axis=2)] = 255
    return Image.fromarray(pixels)


def _on_white(picture):
    picture = picture.convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    return page.convert("RGB")


def _orientation(picture):
    if picture.format == "TIFF":                  # Pillow turns these itself while loading
        return 1
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:                             # broken EXIF beside a sound picture: cameras and editors write such
        return 1


def square(picture: Image.Image, size: int, crop: int, upscale: bool = False, name: str = "picture") -> NDArray[np.uint8]:
    """Picture, mode RGB -> its centre square, the shorter side brought to `size`: (size,size,3).

    Bicubic, with the kernel widened by the reduction factor, hence antialiased; Pillow reduces and crops in one step, so
    what the crop drops is not computed. A picture whose shorter side is below `crop`, the side of the network's input,
    would have to be enlarged to fill it, and is refused unless `upscale`: the net would learn blur."""
    check_large_enough(picture, crop, upscale, name)
    side = min(picture.size)
    left, top = (picture.width - side)//2, (picture.height - side)//2      # whole pixels: no blur where side == size
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box))


def check_large_enough(picture: Image.Image, crop: int, upscale: bool, name: str) -> None:
    """Raise TooSmall for a picture whose shorter side is below `crop`, unless `upscale`."""
    if min(picture.size) < crop and not upscale:
        raise TooSmall(name, f"a shorter side of at least {crop} pixels, as the network's input has",
                       "{}x{}".format(*picture.size),
                       "--upscale enlarges small pictures; python -m train --image-size makes a network for them")


# ------------------------------------------------------------------------------------------------------ crops
# Each function gives (tops, lefts, flips), all of shape (n,): where crops of side `crop` begin in squares of side `size`,
# and which are mirrored. `zfcore.ops.crop_flip.crop_flip` takes them as they are.
Crops: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def ten_crops(size: int, crop: int) -> Crops:
    """The paper's ten, n = 10: top left, top right, bottom left, bottom right, centre, then the same five mirrored."""
    check_crop(size, crop)
    end, middle = size - crop, (size - crop)//2
    tops = np.array([0, 0, end, end, middle]*2)
    lefts = np.array([0, end, 0, end, middle]*2)
    return tops, lefts, np.arange(10) >= 5


def centre_crops(n: int, size: int, crop: int) -> Crops:
    """The centre crop, not mirrored, n times."""
    check_crop(size, crop)
    middle = np.full(n, (size - crop)//2)
    return middle, middle, np.zeros(n, bool)


def one_of_ten(indices: NDArray[np.int64], seed: int, epoch: int, size: int, crop: int) -> Crops:
    """Crops of pictures: for each one of the ten, drawn anew in every epoch."""
    drawn = (_words(indices, seed, epoch) >> np.uint64(32))*np.uint64(10) >> np.uint64(32)
    return tuple(place[drawn.astype(np.int64)] for place in ten_crops(size, crop))


def random_crops(indices: NDArray[np.int64], seed: int, epoch: int, size: int, crop: int) -> Crops:
    """Crops of pictures: for each one at any place, every second one mirrored, drawn anew in every epoch."""
    check_crop(size, crop)
    words = _words(indices, seed, epoch)
    places, low = np.uint64(size - crop + 1), np.uint64(2**31 - 1)
    tops = (words & low)*places >> np.uint64(31)                    # bits 0-30 as a fraction of 2**31, times places
    lefts = (words >> np.uint64(31) & low)*places >> np.uint64(31)  # bits 31-61
    return tops.astype(np.int64), lefts.astype(np.int64), words >> np.uint64(63) == 1


def _words(indices, seed, epoch):
    """64 random bits for each picture: word number `index` of the Philox stream of (seed, epoch).

    So a picture's crop depends on (seed, epoch, index) alone, whatever batch it is in and whoever decoded it. The
    stream is made anew at every call: 5 ns a picture of the set, 6 ms for ImageNet."""
    stream = np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 1])      # counter 0...: the order of the loader
    return stream.random_raw(int(np.max(indices, initial=-1)) + 1)[indices]


def check_crop(size: int, crop: int) -> None:
    """Raise Expected unless a crop of side `crop` can be taken out of a square of side `size`."""
    check.whole("size", size)
    check.whole("crop", crop)
    if crop > size:
        raise Expected("crop", f"1 to {size} pixels, the side of the prepared pictures", crop)
