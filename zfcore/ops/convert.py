"""Conversion of maps to how they are stored, float32 numbers rounded to bf16, their upper 16 bits, and back. A network in bf16
stores all its maps, their gradients and a copy of its weights so (`Network.use`); sums, losses and parameters are float32."""
import numpy as np

from zfcore.backend import BF16, empty, runs_kernels
from zfcore.check import dtype
from zfcore.kernel import Kernel, blocks, lanes

DEFINES = {"LANES": 8, "PRECISION": "BF16"}
TO_STORED = Kernel("convert.cu", "convert_to_stored", "const float *x, stored *y, long long total", DEFINES)
FROM_STORED = Kernel("convert.cu", "convert_from_stored", "const stored *x, float *y, long long total", DEFINES)


def to_bf16(x):
    """x float32, on the host -> BF16 of its shape: each number the nearest of those whose lower 16 bits are 0, ties to even;
    every NaN the same one."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    nearest = (bits + (np.uint32(0x7fff) + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(x), np.uint32(0x7fff), nearest).astype(BF16)


def from_bf16(x):
    """x BF16, on the host -> float32 of its shape, the same numbers."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def in_float(x):
    """x, as float32 where it is stored as BF16."""
    return convert(x, np.float32) if x.dtype == BF16 else x


def convert(x, stored):
    """x float32 or BF16 -> the same numbers in the dtype `stored`, one of the two, rounded where they must be; x itself where
    it is so already. Raises Expected for another dtype of x."""
    dtype("convert: x", x, np.float32, BF16)
    if x.dtype == stored:
        return x
    if not runs_kernels(x):
        return to_bf16(x) if stored == BF16 else from_bf16(x)
    y, kernel = empty(x.shape, stored, like=x), TO_STORED if stored == BF16 else FROM_STORED
    wide = lanes(x.size, *sorted((x, y), key=lambda array: array.itemsize))
    kernel.variant(LANES=wide)(blocks(x.size//wide, kernel.block), x, y, x.size)
    return y
