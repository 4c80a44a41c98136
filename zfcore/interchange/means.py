"""Arrays that come beside a network: means of pictures, and answers that are known for certain inputs.

What a file says of its sizes is held against the bytes that it has before memory is taken, and nothing in it is executed.
"""
import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import opener, read_bytes
from zfcore.interchange.caffe_proto import numbers, read_blob

HEADERS = ValueError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError, RecursionError, tokenize.TokenError
MOST_MEAN, MOST_ANSWERS = 2**28, 2**28       # bytes: pictures of 2900 pixels a side in float64; a hundred of ImageNet's size


def read_mean(path: Path) -> NDArray[np.float64]:
    """The mean (C,), or the mean picture (C,H,W), in a .npy or in Caffe's .binaryproto. Raises Expected for what is none."""
    if path.suffix.lower() == ".npy":
        array = _npy(path, _bytes(path, MOST_MEAN, "a mean, (C,) or (C,H,W)"))
    elif path.suffix.lower() == ".binaryproto":
        array = numbers(path, read_blob(path))
    else:
        raise check.Expected(path, "a mean in a file .npy or .binaryproto", path.suffix or "no ending")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[1:] == (1, 1):
        array = array.reshape(-1)
    if array.ndim not in (1, 3) or not array.size:
        raise check.Expected(path, "a mean, (C,) or (C,H,W)", array.shape)
    check.finite(path, array)
    return array.astype(np.float64)


def read_answers(path: Path) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Inputs x (N,C,H,W) and what must come out for them, y (N,classes), of an .npz. Raises Expected for what is none."""
    what = "a .npz with x (N,C,H,W) and y (N,classes)"
    arrays = []
    try:
        with open(path, "rb", opener=opener) as file, zipfile.ZipFile(file) as folder:
            for name in ("x.npy", "y.npy"):
                size = folder.getinfo(name).file_size
                if size > MOST_ANSWERS:
                    raise check.Expected(f"{path}: {name}", f"at most {MOST_ANSWERS} bytes", size)
                with folder.open(name) as member:          # which gives no more than the size that it says
                    arrays.append(_npy(f"{path}: {name}", member.read(size)))
    except check.Expected:
        raise
    except KeyError as error:
        raise check.Expected(path, what, f"none ({error.args[0]})") from None
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise check.Expected(path, what, _reason(error)) from None
    x, y = arrays
    check.shape(f"{path}: x", x, (None, None, None, None))
    check.shape(f"{path}: y", y, (len(x), None))
    for name, array in (("x", x), ("y", y)):
        check.finite(f"{path}: {name}", array)
    return x.astype(np.float32), y.astype(np.float64)


def _bytes(path, most, what):
    try:
        return read_bytes(path, most)
    except OSError as error:
        raise check.Expected(path, what, _reason(error)) from None


def _npy(where, data):
    """The array of numbers that the bytes of a .npy are."""
    file = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.kind not in "fiub" or math.prod(shape)*dtype.itemsize != len(data) - file.tell():
            raise ValueError(f"{'x'.join(map(str, shape))} of {dtype} in {len(data) - file.tell()} bytes")
        file.seek(0)
        return np.load(file, allow_pickle=False)
    except HEADERS as error:
        raise check.Expected(where, "a .npy of numbers", _reason(error)) from None


def _reason(error):
    """Words of an error, as a sentence can hold it."""
    return (getattr(error, "strerror", None) or str(error).partition("\n")[0] or "another file")[:200]
