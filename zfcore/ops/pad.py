"""Zeros around maps, and rows and columns cut off them."""
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels
from zfcore.check import Expected, shape
from zfcore.cpu import map_blocks, parallel
from zfcore.kernel import Kernel, blocks, lanes

KERNEL = Kernel("pad.cu", "pad", "const stored *x, stored *y, int rows, int H, int W, int Ho, int Wo, int N, int top, int left",
                {"LANES": 4}).stored_too(LANES=8)


class Frame(NamedTuple):
    """Rows and columns of zeros that are laid around maps, where below 0 those that are cut off. The cache of `pad`."""
    top: int
    bottom: int
    left: int
    right: int

    def around(self, H, W):
        """Size (Ho,Wo) of maps (H,W) with this frame. Raises Expected where it cuts all of a map off."""
        for what, size, before, after in (("rows", H, self.top, self.bottom), ("columns", W, self.left, self.right)):
            if size + min(before, 0) + min(after, 0) < 1:
                raise Expected("pad", f"fewer {what} to cut off than the {size} of the map",
                               f"{-min(before, 0)} and {-min(after, 0)}")
        return H + self.top + self.bottom, W + self.left + self.right


def pad_reference(x, top, bottom, left, right):
    C, H, W, N = x.shape
    y = np.zeros((C, H + top + bottom, W + left + right, N), x.dtype)
    for p, q in np.ndindex(y.shape[1:3]):
        if 0 <= p - top < H and 0 <= q - left < W:
            y[:, p, q] = x[:, p - top, q - left]
    return y, Frame(top, bottom, left, right)


def pad_backward_reference(dy, cache):
    return pad_reference(dy, *(-rim for rim in cache))[0]


def pad(x, top, bottom, left, right):
    """y[c,p,q] = x[c, p - top, q - left], and 0 where that lies outside the map.

    x (C,H,W,N) float32, float64 or stored BF16 -> y (C, top+H+bottom, left+W+right, N), and the cache, which is the Frame.
    Numbers below 0 cut so many rows or columns off. Raises Expected where they cut all of a map off, and for another dtype or
    shape."""
    check_maps("pad: x", x)
    shape("pad: x", x, (None,)*4)
    frame, (C, H, W, N) = Frame(top, bottom, left, right), x.shape
    Ho, Wo = frame.around(H, W)
    y = empty((C, Ho, Wo, N), x.dtype, like=x)
    if runs_kernels(x):
        wide = lanes(N, x, y)
        KERNEL.variant(x, LANES=wide)(blocks(C*Ho*Wo*(N//wide), KERNEL.block), x, y, C*Ho, H, W, Ho, Wo, N, top, left)
        return y, frame
    first, last, begin, end = max(top, 0), min(Ho, top + H), max(left, 0), min(Wo, left + W)     # what of y is map

    def work(block):
        maps, rows = block
        part, on = y[maps, rows], slice(max(rows.start, first), min(rows.stop, last))
        if on.start >= on.stop:
            part[:] = 0
            return
        above, below = on.start - rows.start, on.stop - rows.start
        part[:, :above], part[:, below:] = 0, 0
        part[:, above:below, :begin], part[:, above:below, end:] = 0, 0
        part[:, above:below, begin:end] = x[maps, on.start - top:on.stop - top, begin - left:end - left]

    parallel(work, map_blocks(C, Ho, Wo*N*y.itemsize))
    return y, frame


def pad_backward(dy, cache):
    """dy -> dx, of what `pad` was given: the signal within the frame, zeros where it had cut off."""
    return pad(dy, *(-rim for rim in cache))[0]
