"""Arrays that somebody brings beside a network: mean pictures, and inputs with their answers. A file's header is looked at before
memory is taken for what it announces; nothing is unpickled."""
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import opener, read_bytes

MOST_MEAN, MOST_ANSWERS = 2**27, 2**29                # bytes


def array_of(where: object, data: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject or dtype.kind not in "fiub":
            raise check.Expected(where, "an array of numbers", dtype)
        if np.prod(shape, dtype=object)*dtype.itemsize != len(data) - file.tell():
            raise check.Expected(where, f"an array of shape {shape}, as its header says", f"{len(data) - file.tell()} bytes")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, UnicodeError) as error:
        if isinstance(error, check.Expected):
            raise
        raise check.Expected(where, "a .npy file", "something else", "numpy.save writes such files") from None


def read_answers(path: Path) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(x, y) float32 of the .npz at `path`."""
    try:
        with open(path, "rb", opener=opener) as file, zipfile.ZipFile(file) as members:
            found = []
            for key in ("x", "y"):
                member = members.getinfo(f"{key}.npy")
                if member.file_size > MOST_ANSWERS:
                    raise check.Expected(f"{path}: {key}", f"at most {MOST_ANSWERS} bytes", member.file_size)
                with members.open(member) as data:
                    found.append(array_of(f"{path}: {key}", data.read(MOST_ANSWERS + 1)))
    except KeyError:
        raise check.Expected(path, "arrays called x and y", "others", "numpy.savez writes them") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zipfile.zlib.error) as error:      # type: ignore[attr-defined]
        raise check.Expected(path, "a .npz file", getattr(error, "strerror", None) or error) from None
    x, y = found
    for key, array in (("x", x), ("y", y)):
        check.finite(f"{path}: {key}", array)
    if x.ndim != 4 or len(x) != len(y) or not len(x):
        raise check.Expected(path, "x (N,C,H,W) and y (N,classes)", f"{x.shape} and {y.shape}")
    return x.astype(np.float32), y.astype(np.float64)


def read_mean(path: Path) -> NDArray[np.float64]:
    """float64 (C,S,S), or (C,), of the mean in a .npy file, or in a .binaryproto of Caffe's."""
    if path.suffix.lower() == ".binaryproto":
        from zfcore.interchange.caffe import read_blob
        array = read_blob(path)
    else:
        try:
            array = array_of(path, read_bytes(path, MOST_MEAN))
        except OSError as error:
            raise check.Expected(path, "a file that can be read", error.strerror or error) from None
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim not in (1, 3):
        raise check.Expected(path, "a mean of each channel or a mean picture (C,S,S)", array.shape)
    check.finite(path, array)
    return array.astype(np.float64)
