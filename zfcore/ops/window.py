"""The size rule that convolution and pooling share, the taps of a window that meet the map, and the cutting of maps into
blocks whose workspace stays in a core's cache."""
import math
import threading

import numpy as np

from zfcore.check import Expected, one_of


def output_size(size, K, S, P, rounding="ceil"):
    """How many windows of width K fit a map of `size` pixels, at stride S with P zeros at both ends.

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
    return spans


# ------------------------------------------------------------------------------------- work in blocks, on the CPU
def pixels(x):
    """x (C,H,W,N) seen as (C,H,W), one element the N values of a pixel: a copy then moves whole pixels at a time, which
    for N of 4 is ten times as fast as number by number, for N of 32 twice."""
    return np.ascontiguousarray(x).view(np.dtype((np.void, x.shape[-1]*x.itemsize)))[..., 0]


def clear(of_pixels):
    """Set an array of pixels to zero."""
    of_pixels[...] = np.zeros((), of_pixels.dtype)


def rectangles(height, width, most, least=8):
    """(rows, columns) slices that cut height x width into rectangles of at most `most` places: whole rows, or a part
    of one row. There are about `least` or more where there is enough to cut, so that no core waits long for others."""
    most = max(1, min(most, height*width//least))
    return [(r, c) for r in pieces(height, most//max(1, width)) for c in pieces(width, most)]


def pieces(length, most):
    """0:length cut into the fewest slices of at most `most`, as equal as can be."""
    count = -(-length//max(1, most))
    return [slice(k*length//count, (k + 1)*length//count) for k in range(count)]


_own = threading.local()


def workspace(name, shape, dtype):
    """An uninitialised array in this thread's buffer `name`, which is kept and grows: fresh memory costs page faults.
    It holds until the thread asks for the same name again."""
    nbytes = math.prod(shape)*np.dtype(dtype).itemsize
    buffer = getattr(_own, name, None)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = np.empty(nbytes, np.uint8)
        setattr(_own, name, buffer)
    return buffer[:nbytes].view(dtype).reshape(shape)
