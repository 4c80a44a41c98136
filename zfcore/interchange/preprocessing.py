"""How a network of somebody else's sees pictures: x = (pixel - mean)*scale, of channels in its own order.

zfcore subtracts a mean image of RGB pixels, 0..255, and no more. The rest is put into the first weights (lower.py), which can do
it as well: a factor of a channel, another order, the grey of three.
"""
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zfcore import check

GREY = np.array([0.299, 0.587, 0.114])                          # of R, G, B, as Pillow, OpenCV and Caffe have it


@dataclass
class Preprocessing:
    """What is done to pixels, 0..255, before they enter.

    channels   the order in which the network has them; "grey": one, which is .299 R + .587 G + .114 B
    mean       (C,) or a picture (C,S,S), in that order, in units of pixels
    scale      (C,), what pixels less their mean are multiplied by
    size       side of the squares that pictures are brought to, of which the centre enters
    assumed    a line for each of these that nobody said"""
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
        if not self.scale.all():
            raise check.Expected("scale", "numbers other than 0", self.scale.tolist())

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

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """x (N,C,H,W), as the network was made for -> (3,H,W,N) float32, what enters zfcore's in its place."""
        x = x/self.scale[:, None, None]
        x = x[:, ::-1] if self.channels == "bgr" else np.broadcast_to(x, (len(x), 3, *x.shape[2:]))
        return np.ascontiguousarray(np.moveaxis(x, 0, -1), np.float32)

    def of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB pictures (N,size,size,3) -> (N,C,size,size), as the network was made for."""
        x = np.moveaxis(pixels.astype(np.float64), 3, 1)
        if self.channels == "grey":
            x = (x*GREY[:, None, None]).sum(axis=1, keepdims=True)
        x = x[:, ::-1] if self.channels == "bgr" else x
        mean = self.mean if self.mean.ndim == 3 else self.mean[:, None, None]
        return np.ascontiguousarray((x - mean)*self.scale[:, None, None], np.float32)
