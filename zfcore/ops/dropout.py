"""Dropout whose mask is a function of (seed, layer, step) alone, so that every device drops the same units."""
import math

import numpy as np

from zfcore.backend import Kernel, blocks, empty, lanes, parallel, runs_kernels
from zfcore.check import Expected, dtype

# Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011)
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)

KERNEL = Kernel("dropout.cu", "dropout", "const float *x, float *y, long long total, unsigned long long seed, "
                "unsigned int layer, unsigned long long step, unsigned long long keep_below, float scale", {"LANES": 4})


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


def dropout_reference(x, keep_prob, key):
    seed, layer, step = key
    y = np.zeros(x.shape, x.dtype)
    for e in range(x.size):
        words = philox((e//4, layer, step % 2**32, step//2**32), (seed % 2**32, seed//2**32))
        if int(words[e % 4]) < keep_prob*2**32:
            y.flat[e] = x.flat[e]/keep_prob
    return y, (keep_prob, key)


def dropout(x, keep_prob, key):
    """Keep each unit with probability keep_prob, times 1/keep_prob; set the others to 0.

    x of any shape, float32 or float64 -> y, and the cache (keep_prob, key): no mask is stored.
    key = (seed, layer, step) with 0 <= seed, step < 2^64 and 0 <= layer < 2^32. Element e of x, counted in C order
    (e < 2^34), is kept where word e%4 of Philox4x32-10 is below keep_prob * 2^32, with
        counter words   e//4, layer, step's low 32 bits, step's high 32 bits
        key words       seed's low 32 bits, seed's high 32 bits
    and is then multiplied by 1/keep_prob, rounded to x's dtype.
    The paper, like AlexNet, keeps units as they are and multiplies by keep_prob when testing; dividing here instead
    leaves the tested network alone, and the expected sum is the same.
    Raises Expected unless 0 < keep_prob <= 1 and the key is within these bounds."""
    _check(x, keep_prob, key)
    if runs_kernels(x):
        y = empty(x.shape, x.dtype, like=x)
        draw = KERNEL.variant(LANES=lanes(x.size, x, y))
        draw(blocks(blocks(x.size, 4), KERNEL.block), x, y, x.size, *key, math.ceil(keep_prob*2**32), 1/keep_prob)
        return y, (keep_prob, key)
    x = np.ascontiguousarray(x)
    y = empty(x.shape, x.dtype, like=x)
    x1, y1 = x.reshape(-1), y.reshape(-1)

    def work(block):
        np.multiply(x1[block], 1/keep_prob, out=y1[block])
        y1[block][~_kept(block.start, y1[block].size, keep_prob, key)] = 0

    parallel(work, [slice(e, e + 2**16) for e in range(0, x.size, 2**16)])
    return y, (keep_prob, key)


def dropout_backward(dy, cache):
    """dx: dropout multiplies each unit by 0 or 1/keep_prob, and so does its gradient; the mask is drawn again."""
    dx, _ = dropout(dy, *cache)
    return dx


def _kept(first, count, keep_prob, key):
    """The mask of elements first .. first + count - 1, first a multiple of 4."""
    seed, layer, step = key
    blocks = np.arange(first//4, (first + count + 3)//4, dtype=np.uint64)
    words = philox((blocks, layer, step % 2**32, step//2**32), (seed % 2**32, seed//2**32))
    return (np.stack(words, axis=1) < keep_prob*2**32).reshape(-1)[:count]


def _check(x, keep_prob, key):
    dtype("dropout: x", x, np.float32, np.float64)
    if not 0 < keep_prob <= 1:
        raise Expected("dropout: keep_prob", "a probability above 0 and at most 1", keep_prob)
    for what, word, bits in zip(("seed", "layer", "step"), key, (64, 32, 64)):
        if not 0 <= word < 2**bits:
            raise Expected(f"dropout: {what}", f"a whole number from 0 to 2^{bits} - 1", word)
    if x.size > 2**34:
        raise Expected("dropout: x", "at most 2^34 elements", x.size)
