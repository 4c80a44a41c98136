"""Dropout whose mask is a function of (seed, layer, step) alone, so that every device drops the same units."""
import math
from typing import NamedTuple

import numpy as np

from zfcore.backend import check_maps, empty, runs_kernels, scalar
from zfcore.check import Expected
from zfcore.cpu import parallel
from zfcore.kernel import Kernel, blocks, lanes

# Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011)
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)

KERNEL = Kernel("dropout.cu", "dropout", "const stored *x, stored *y, long long rows, long long n, long long first, "
                "long long N, long long each, unsigned long long seed, unsigned int layer, const unsigned long long *step, "
                "unsigned long long keep_below, float scale", {"LANES": 4}).stored_too(LANES=4)


class DropoutCache(NamedTuple):
    """The arguments of dropout, from which its mask is drawn again."""
    keep_prob: float
    key: tuple
    piece: tuple


def philox(counter, key):
    """Four random 32-bit words for each counter.

    counter   four words, each a number or an array of uint64 below 2^32 (the arrays of one shape)
    key       two numbers below 2^32
    -> four arrays (or numbers) of uint64 below 2^32"""
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    for turn in range(ROUNDS):
        k0, k1 = (np.uint64((k + turn*step) & 0xFFFFFFFF) for k, step in zip(key, KEY_STEPS))
        m, n = np.uint64(MULTIPLIERS[0])*a, np.uint64(MULTIPLIERS[1])*c                 # 32 x 32 -> 64 bits
        a, b, c, d = (n >> 32) ^ b ^ k0, n & LOW, (m >> 32) ^ d ^ k1, m & LOW
    return a, b, c, d


def dropout_reference(x, keep_prob, key, piece=None):
    seed, layer, step = key
    n = x.shape[-1]
    first, N = piece or (0, n)
    y = np.zeros(x.shape, x.dtype)
    for k in range(x.size):
        e = k//n*N + first + k % n
        words = philox((e//4, layer, step % 2**32, step//2**32), (seed % 2**32, seed//2**32))
        if int(words[e % 4]) < keep_prob*2**32:
            y.flat[k] = x.flat[k]/keep_prob
    return y, DropoutCache(keep_prob, key, piece)


def dropout(x, keep_prob, key, piece=None):
    """Keep each unit with probability keep_prob, times 1/keep_prob; set the others to 0.

    x (...,N), float32, float64 or stored BF16 -> y, and the DropoutCache: no mask is stored.
    key = (seed, layer, step) with 0 <= seed, step < 2^64 and 0 <= layer < 2^32; the step may also be an array () of uint64 on
    the device, which `dropout_backward` reads again, so that a captured step draws the mask of its turn. Element e of x,
    counted in C order (e < 2^34), is kept where word e%4 of Philox4x32-10 is below keep_prob * 2^32, with
        counter words   e//4, layer, step's low 32 bits, step's high 32 bits
        key words       seed's low 32 bits, seed's high 32 bits
    and is then multiplied by 1/keep_prob, rounded to x's dtype.
    piece = (first, N) says that x (...,n) is the images first .. first + n - 1 of a batch of N that is walked in pieces:
    its elements then count by their place e in the batch, and so each piece drops what the whole batch would.
    The paper, like AlexNet, keeps units as they are and multiplies by keep_prob when testing; dividing here instead
    leaves the tested network alone, and the expected sum is the same.
    Raises Expected unless 0 < keep_prob <= 1, the key is within these bounds and the piece inside its batch."""
    _check(x, keep_prob, key, piece)
    n = x.shape[-1]
    rows, (first, N) = math.prod(x.shape[:-1]), piece or (0, n)
    if runs_kernels(x):
        if n == N:                                         # all in one row, so that its counters run on from row to row
            rows, n, N = 1, x.size, x.size
        y = empty(x.shape, x.dtype, like=x)
        begun = first % 4 == 0 and (rows == 1 or N % 4 == 0)          # does every row begin with a counter's first word?
        each = blocks(n if begun else n + 3, 4)                       # counters that n elements touch at most
        draw = KERNEL.variant(x, LANES=lanes(n, x, y, most=4*x.itemsize) if begun else 1)
        seed, layer, step = key
        draw(blocks(rows*each, KERNEL.block), x, y, rows, n, first, N, each, seed, layer, scalar(step, np.uint64, like=x),
             math.ceil(keep_prob*2**32), 1/keep_prob)
        return y, DropoutCache(keep_prob, key, piece)
    x = np.ascontiguousarray(x)
    y = empty(x.shape, x.dtype, like=x)
    x2, y2 = x.reshape(rows, n), y.reshape(rows, n)

    def work(block):
        np.multiply(x2[block], 1/keep_prob, out=y2[block])
        kept = _kept(block.start*N, len(y2[block])*N, keep_prob, key).reshape(-1, max(N, 1))[:, first:first + n]
        y2[block][~kept] = 0

    step = 4*max(1, 2**14//max(N, 1))                      # fours of rows: each block begins with a whole counter
    parallel(work, [slice(row, row + step) for row in range(0, rows, step)])
    return y, DropoutCache(keep_prob, key, piece)


def dropout_backward(dy, cache):
    """dx: dropout multiplies each unit by 0 or 1/keep_prob, and so does its gradient; the mask is drawn again."""
    dx, _ = dropout(dy, *cache)
    return dx


def _kept(first, count, keep_prob, key):
    """The mask of elements first .. first + count - 1, first a multiple of 4."""
    seed, layer, step = (int(word) for word in key)
    blocks = np.arange(first//4, (first + count + 3)//4, dtype=np.uint64)
    words = philox((blocks, layer, step % 2**32, step//2**32), (seed % 2**32, seed//2**32))
    return (np.stack(words, axis=1) < keep_prob*2**32).reshape(-1)[:count]


def _check(x, keep_prob, key, piece):
    check_maps("dropout: x", x)
    if not 0 < keep_prob <= 1:
        raise Expected("dropout: keep_prob", "a probability above 0 and at most 1", keep_prob)
    for what, word, bits in zip(("seed", "layer", "step"), key, (64, 32, 64)):
        if not runs_kernels(word) and not 0 <= word < 2**bits:
            raise Expected(f"dropout: {what}", f"a whole number from 0 to 2^{bits} - 1", word)
    first, N = piece or (0, x.shape[-1])
    if not 0 <= first <= first + x.shape[-1] <= N:
        raise Expected("dropout: piece", f"a place (first, N) for {x.shape[-1]} of the batch's N images", piece)
    if math.prod(x.shape[:-1])*N > 2**34:
        raise Expected("dropout: x", "at most 2^34 elements", math.prod(x.shape[:-1])*N)
