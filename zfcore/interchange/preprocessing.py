"""Preprocessing of a network of somebody else's: x = (pixel - mean)*scale, of channels in its own order.

zfcore subtracts a mean image of RGB pixels, 0..255, and no more. The rest is put into the first weights (lower.py), which can
do it as well: a factor of a channel, another order, the grey of three.
"""
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import real, said, whole
from zfcore.hints import Floats, Shape
from zfcore.interchange.foreign import Affine, Foreign, Subtraction, part_of

SMALLEST = 1e-6                   # factor of pixels
GREY = np.array([0.299, 0.587, 0.114])                          # of R, G, B, as Pillow, OpenCV and Caffe have it


@dataclass
class Preprocessing:
    """Treatment of pixels, 0..255, before they enter.

    channels   the order in which the network has them; "grey": one, which is .299 R + .587 G + .114 B
    mean       (C,) or a picture (C,S,S), in that order, in units of pixels
    scale      (C,), what pixels less their mean are multiplied by
    size       side of the squares that pictures are brought to, of which the centre enters
    assumed    a line for each of these that the file says, or nobody"""
    channels: Literal["rgb", "bgr", "grey"]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    size: int
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check.one_of("channels", self.channels, ("rgb", "bgr", "grey"))
        C = 1 if self.channels == "grey" else 3
        if self.mean.shape not in ((C,), (C, self.size, self.size)):
            raise check.Expected("mean", f"{C} numbers or a picture ({C}, {self.size}, {self.size})", self.mean.shape)
        check.shape("scale", self.scale, (C,))
        check.finite("mean", self.mean)
        check.finite("scale", self.scale)
        if not ((SMALLEST <= abs(self.scale)) & (abs(self.scale) <= 1/SMALLEST)).all():
            raise check.Expected("scale", f"numbers other than 0, from {SMALLEST:g} to {1/SMALLEST:g} in size",
                                 self.scale.tolist())
        if np.abs(self.mean).max() > 1/SMALLEST:
            raise check.Expected("mean", f"numbers of pixels, at most {1/SMALLEST:g}", self.mean.reshape(-1)[:3].tolist())

    def mean_image(self) -> NDArray[np.float32]:
        """(3,size,size) in RGB, as zfcore subtracts it."""
        C = len(self.mean)
        picture = np.broadcast_to(self.mean.reshape(C, *(self.mean.shape[1:] or (1, 1))), (C, self.size, self.size))
        picture = picture[::-1] if self.channels == "bgr" else picture
        return np.ascontiguousarray(np.broadcast_to(picture, (3, self.size, self.size)), np.float32)

    def into_filters(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """First filters (F,C,K,K) -> (F,3,K,K), which see RGB pixels less the mean as `w` see what the network was made for."""
        w = w*self.scale[:, None, None]
        if self.channels == "grey":
            return w*GREY[:, None, None]
        return w[:, ::-1] if self.channels == "bgr" else w

    def pixels(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """x (N,C,H,W), as the network was made for -> the RGB pixels (3,H,W,N) that are seen so; of a grey one three times the
        same."""
        own = x/self.scale[:, None, None] + self._mean_of(*x.shape[2:])
        rgb = own[:, ::-1] if self.channels == "bgr" else np.broadcast_to(own, (len(x), 3, *x.shape[2:]))
        return np.moveaxis(rgb, 0, -1)

    def of_pixels(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """RGB pictures (N,size,size,3) -> (N,C,size,size), as the network was made for."""
        x = np.moveaxis(pixels.astype(np.float64), 3, 1)
        if self.channels == "grey":
            x = (x*GREY[:, None, None]).sum(axis=1, keepdims=True)
        x = x[:, ::-1] if self.channels == "bgr" else x
        return np.ascontiguousarray((x - self._mean_of(*x.shape[2:]))*self.scale[:, None, None], np.float32)

    def _mean_of(self, H, W):
        """(C,1,1), or of a mean picture its centre (C,H,W)."""
        if self.mean.ndim == 1:
            return self.mean[:, None, None]
        top, left = ((self.size - side)//2 for side in (H, W))
        return self.mean[:, top:top + H, left:left + W]

    def in_words(self) -> str:
        """Sentence that tells how pictures are seen."""
        channels = {"rgb": "RGB", "bgr": "BGR", "grey": "grey"}[self.channels]
        mean = "a mean picture" if self.mean.ndim == 3 else "nothing" if not self.mean.any() else ", ".join(f"{m:.4g}" for m in self.mean)
        factors = self.scale if len(set(self.scale.tolist())) > 1 else self.scale[:1]
        scale = "" if (self.scale == 1).all() else " times " + ", ".join(f"{s:.4g}" for s in factors)
        return (f"{channels}, pixels 0 to 255 less {mean}{scale}; pictures are brought to {self.size}x{self.size} pixels, and "
                f"their middle, as large as the network's input, is what it is given")

    def as_timm(self, crop: int) -> dict[str, object]:
        """The same by the names of the library timm, which has mean and std of pixels 0 to 1 in RGB; of a mean picture its
        mean."""
        mean = self.mean.reshape(len(self.mean), -1).mean(axis=1)/255
        std = 1/(255*self.scale)
        order = slice(None, None, -1) if self.channels == "bgr" else slice(None)
        return {"input_size": [len(self.scale), crop, crop], "mean": mean[order].tolist(), "std": std[order].tolist(),
                "crop_pct": crop/self.size, "interpolation": "bicubic", "channels": self.channels}


def as_exported(shape: Shape, mean: NDArray[np.float32], within: bool = False) -> str:
    """Sentence that tells what a network of zfcore's for pictures of `shape` (3,H,W) takes, whose mean image (3,size,size) the
    file itself subtracts (`within`) or not: whatever it saw when it was imported, RGB pixels less that."""
    _, H, W = shape
    form = f"uint8 (N,{H},{W},3)" if within else f"float32 (N,3,{H},{W})"
    colours = ", ".join(f"{value:.4g}" for value in mean.mean(axis=(1, 2), dtype=np.float64))
    even = (mean == mean[:, :1, :1]).all()
    less = (f", of which it subtracts the mean itself ({colours})" if within else f" less {colours}" if even else
            f" less the middle of the mean image {'x'.join(map(str, mean.shape))} that stands in the file ({colours} on average)")
    return (f"{form}, RGB, pixels 0 to 255{less}; pictures are brought to {mean.shape[1]}x{mean.shape[2]} pixels, whose middle "
            f"{H}x{W} enters")


def seen_by(foreign: Foreign, channels: str | None = None, mean: Floats | None = None, std: Floats | None = None,
            scale: float | None = None, size: int | None = None) -> Preprocessing:
    """The Preprocessing of a Foreign: what is given here, else what its file says, else what is usual, with lines in
    `assumed`.

    mean     a number or (C,) in R,G,B, or a picture (C,S,S) in the network's own order        std   a number or (C,), what
             pixels less the mean are divided by
    scale    what they are multiplied by, in place of `std`                        size  of pictures; the mean picture's own by
             default

    mean and std that are all at most 1 are those of pixels 0 to 1, as torchvision and timm have them. Raises Expected for what
    does not fit the network."""
    mean, std = _numbers("--mean", mean), _numbers("--std", std)
    if std is not None and not (std > 0).all():
        raise check.Expected("--std", "numbers above 0", std.tolist())
    scale = None if scale is None else real()("--scale", scale)
    size = None if size is None else whole(1, 4096)("--picture-size", size)
    given = {"channels": channels, "mean": mean, "scale": std if scale is None else scale}
    said, assumed = foreign.preprocessing, [line for key, line in foreign.told.items() if given.get(key) is None]
    C, H, W = foreign.input_shape
    if C not in (1, 3) or H != W:
        raise check.Expected(f"{foreign.path}: {foreign.input}", "square pictures of one channel or three", f"{C}x{H}x{W}")
    if std is not None and scale is not None:
        raise check.Expected("--scale", "either --std or --scale", "both")
    if channels is None and "channels" not in said:
        assumed.append(f"channels: {'grey' if C == 1 else 'R, G, B'}, since nobody says --channels")
    order = channels or said.get("channels") or ("grey" if C == 1 else "rgb")
    if (order == "grey") != (C == 1):
        raise check.Expected("--channels", "grey for a network of one channel" if C == 1
                             else "rgb or bgr for a network of three", order)
    if mean is None and std is None and scale is None and not {"mean", "scale"} & said.keys():
        own = foreign.nodes and isinstance(foreign.nodes[0], (Affine, Subtraction))
        assumed.append("pixels: 0 to 255 enter, where the file has a factor and a shift of its own for them, or a picture, since nobody "
                       "says --mean, --std or --scale" if own else
                       "pixels: 0 to 255, nothing subtracted, since neither the file nor --mean, --std or --scale says more")
    if scale is None and _are_shares(mean, std):
        assumed.append("mean and std: of pixels 0 to 1, since all are at most 1")
        mean, std = None if mean is None else mean*255, 255*(np.ones(C) if std is None else std)
    subtracted = _of_channels("--mean", mean, said.get("mean", 0.0), C, order)
    factors = _of_channels("--std or --scale", 1/std if std is not None else None if scale is None
                           else np.array([scale], float), said.get("scale", 1.0), C, order)
    if mean is not None and subtracted.ndim == 3 and min(subtracted.shape[1:]) < H:
        raise check.Expected("--mean", f"a picture of at least the {H}x{W} pixels that enter", "x".join(map(str, subtracted.shape)))
    usual = subtracted.shape[1] if subtracted.ndim == 3 else 256 if 200 <= H < 256 else H        # 224 and 227 of 256
    if size is None and "size" not in said and usual != H and subtracted.ndim == 1:
        assumed.append(f"pictures: brought to {usual}x{usual} pixels, whose middle {H}x{W} the network is given, since nobody "
                       f"says --picture-size")
    size = size or said.get("size") or usual
    if size < H:
        raise check.Expected("--picture-size", f"at least the {H} pixels that enter", size)
    with part_of(foreign.path):
        return Preprocessing(order, subtracted, factors, size, tuple(assumed))      # type: ignore[arg-type]


def _numbers(what, given):
    """`given` as float64 (C,) or a picture, None as it is."""
    if given is None:
        return None
    try:
        return np.atleast_1d(np.asarray(given, np.float64))
    except (TypeError, ValueError):
        raise check.Expected(what, "a number, or one for each channel", said(given)) from None


def _are_shares(mean, std):
    """Return whether numbers are of pixels 0 to 1: all at most 1, and not the mean 0 alone."""
    given = [array for array in (mean, std) if array is not None]
    return bool(given) and all((array <= 1).all() for array in given) and (std is not None or bool(mean.any()))


def _of_channels(what, given, said, C, order):
    """float64 (C,) in the network's own order, or a picture: of `given`, in R,G,B, else what the file has `said`, in its
    own."""
    if given is None:
        own = np.asarray(said, np.float64)
        return own if own.ndim == 3 else np.broadcast_to(own.reshape(-1), (C,))
    if given.ndim == 3:
        return np.asarray(given, np.float64)
    if given.shape not in ((1,), (C,)):
        raise check.Expected(what, f"one number or {C}", len(given))
    return np.broadcast_to(np.asarray(given, np.float64), (C,))[::-1 if order == "bgr" else 1]
