"""The size rule that convolution and pooling share, the taps of a window that meet the map, and squares cut out of maps, one
a picture."""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from zfcore.backend import array_module, empty, to_device, zeros
from zfcore.check import Expected, one_of
from zfcore.cpu import parallel, pieces
from zfcore.memory import workspace


def output_size(size, K, S, P, rounding="ceil"):
    """Output size: the number of windows of width K that fit a map of `size` pixels, at stride S with P zeros at both ends.

    "ceil", the rule of cuda-convnet and of this project: 1 + ceil((size + 2P - K)/S), where a last window that would
    start outside the map is dropped and a map smaller than the window still gives one output. The last window may reach
    over the end of the map; what lies there is padding. "floor", the rule of most frameworks: such a window is left out."""
    one_of("rounding", rounding, ("ceil", "floor"))
    if not (size > 0 and K > 0 and S > 0 and 0 <= P < K):
        raise Expected("window", "size, K, S > 0 and 0 <= P < K", f"size {size}, K {K}, S {S}, P {P}")
    over = size + 2*P - K
    if rounding == "floor":
        if over < 0:
            raise Expected("window", f"at most {size + 2*P} pixels wide", f"K {K}")
        return 1 + over//S
    out = max(1 - (-over)//S, 1)
    while out > 1 and (out - 1)*S - P >= size:
        out -= 1
    return out


def tap_range(tap, size, out, S, P):
    """The outputs lo:hi whose tap number `tap` lies inside the map: 0 <= lo*S - P + tap, (hi-1)*S - P + tap < size."""
    lo = max(0, -((tap - P)//S))
    hi = min(out, (size - 1 + P - tap)//S + 1)
    return lo, max(lo, hi)


def taps_met(K, size, out, S, P):
    """The numbers of the taps, of K, that can lie inside a map of `size` pixels for one of the outputs: of a window that is far
    larger than the map, no more than are met."""
    return range(max(P - (out - 1)*S, 0), min(K, size + P))


def tap_pixels(tap, size, out, S, P):
    """(outputs, pixels): slices of the outputs whose tap lies inside a map of `size` pixels, and of the pixels it lies on."""
    lo, hi = tap_range(tap, size, out, S, P)
    return (slice(lo, hi), slice(lo*S - P + tap, hi*S - P + tap, S)) if lo < hi else (slice(0, 0), slice(0, 0))


@lru_cache(1024)              # a small convolution takes no longer than finding them anew for each of its blocks
def tap_spans(K, size, first, out, S, P):
    """Neighbouring taps that lie inside the map for the same ones of the outputs first:first+out, as (taps, outputs,
    start): two slices, `outputs` counted from `first`, and the place in the map of the first tap of the first output.
    Away from the border that is one span of all K taps, so a whole window is then copied at once."""
    spans = []
    for tap in range(K):
        lo, hi = tap_range(tap, size, out, S, P - first*S)
        if spans and spans[-1][1] == slice(lo, hi):
            taps, outputs, start = spans.pop()
            spans.append((slice(taps.start, tap + 1), outputs, start))
        else:
            spans.append((slice(tap, tap + 1), slice(lo, hi), (first + lo)*S - P + tap))
    return tuple(spans)


# ------------------------------------------------------------------------------------------------ whole pixels
def pixels(x):
    """x (C,H,W,N) seen as (C,H,W), one element the N values of a pixel: a copy then moves whole pixels at a time, which
    for N of 4 is ten times as fast as number by number, for N of 32 twice."""
    return places(np.ascontiguousarray(x))


def places(x):
    """`pixels` of x itself, never of a copy: what is assigned to them is in x. Its last axis must lie together in memory. Those
    of one image are its numbers, which NumPy copies in two thirds of the time of elements whose kind it does not know."""
    return x[..., 0] if x.shape[-1] == 1 else x.view(np.dtype((np.void, x.shape[-1]*x.itemsize)))[..., 0]


def clear(of_pixels):
    """Set an array of pixels to zero."""
    of_pixels[...] = np.zeros((), of_pixels.dtype)


def windows(x, K, S, P, rows, columns):
    """pixels x (C,H,W) -> (C,Kr,Ks,p,q): the windows of a block of outputs, zeros where they leave the map."""
    C, H, W = x.shape
    p, q = rows.stop - rows.start, columns.stop - columns.start
    out = workspace("windows", (C, *K, p, q), x.dtype)
    c, h, v = x.strides
    for taps_r, inside_p, top in tap_spans(K[0], H, rows.start, p, S, P[0]):
        for taps_s, inside_q, left in tap_spans(K[1], W, columns.start, q, S, P[1]):
            block = out[:, taps_r, taps_s]
            inner = block[:, :, :, inside_p, inside_q]
            if inner.shape != block.shape:
                clear(block)
            if inner.size:
                inner[...] = as_strided(x[:, top:, left:], inner.shape, (c, h, v, h*S, v*S))
    return out


# ------------------------------------------------------------------------------------------- regions, one a picture
class Regions(NamedTuple):
    """One square per picture: rows tops[n] .. tops[n] + size-1 of its maps, columns alike. It may lie over the border."""
    tops: np.ndarray
    lefts: np.ndarray
    size: int

    def below(self, K, S, P):
        """The regions in a layer's input that these regions of its output see, through windows KxK at stride S, padding P."""
        return Regions(self.tops*S - P, self.lefts*S - P, (self.size - 1)*S + K)

    def pixels(self, H, W):
        """(place of each pixel in flat maps (H*W*N), whether it lies inside them), both (size,size,N)."""
        steps = np.arange(self.size)[:, None]
        rows, columns = steps + self.tops, steps + self.lefts                           # (size,N)
        inside = ((rows >= 0) & (rows < H))[:, None] & ((columns >= 0) & (columns < W))
        places = rows.clip(0, H - 1)[:, None]*W + columns.clip(0, W - 1)
        return places*len(self.tops) + np.arange(len(self.tops)), inside


def cut(maps, regions, outside=0):
    """maps (C,H,W,N) -> (C,size,size,N), a region a picture; what lies beyond the border is `outside`."""
    C, H, W, N = maps.shape
    places, inside = regions.pixels(H, W)
    flat, places = maps.reshape(C, -1), to_device(places, like=maps)
    if array_module(maps) is np:
        pieces_of_maps = pieces(C, max(1, 2**16//places.size))
        out = empty((C, *places.shape), maps.dtype, like=maps)
        parallel(lambda c: np.take(flat[c], places, axis=1, out=out[c], mode="clip"), pieces_of_maps)
    else:
        out = flat[:, places]
    if not inside.all():
        out[:, to_device(~inside, like=maps)] = outside
    return out


def lay(signal, regions, shape):
    """The reverse of `cut`: zero maps of `shape` (C,H,W) with signal (C,size,size,N) laid into them."""
    C, H, W = shape
    maps = zeros((C, H, W, signal.shape[-1]), signal.dtype, like=signal)
    places, inside = (to_device(array, like=signal) for array in regions.pixels(H, W))
    maps.reshape(C, -1)[:, places[inside]] = signal[:, inside]
    return maps
