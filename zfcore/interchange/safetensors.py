"""Files of safetensors: a header in JSON that says where each tensor lies, and the tensors.

    8 bytes    length of the header          {"conv1.weight": {"dtype": "F32", "shape": [96, 3, 7, 7], "data_offsets": [0,
               56448]},
    header     JSON, as on the right          ..., "__metadata__": {"zfcore": "..."}}
    data       little-endian, from the header's end on, without gaps

There is no program in it, and no package is needed. Tensors stand in the order of their names, so what is matched to layers
goes by shapes too; what zfcore writes says itself what network it is.
"""
import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.files import MOST_JSON, choice, listed, mapping, opener, parsed, table, text, whole
from zfcore.hints import FilePath
from zfcore.interchange import state_dict
from zfcore.interchange.foreign import Foreign
from zfcore.interchange.state_dict import Weights
from zfcore.network import Network

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U8": "u1", "BOOL": "?"}
METADATA, ALIGNED = "__metadata__", 8
MOST_NUMBERS = 2**48
TENSOR = table({"dtype": choice(*DTYPES), "shape": listed(whole(0, 2**48), 8), "data_offsets": listed(whole(0, 2**60), 2, 2)})
HEADER = table({}, {METADATA: mapping(text(MOST_JSON))}, TENSOR)


def read(path: Path, graph: Path | None, model: str | None) -> Foreign:
    """The network whose weights are in a file of safetensors, and whose layers `model` names (`state_dict.foreign`), or the
    file itself if zfcore wrote it. `graph` is not needed. Raises Expected for everything that is wrong with the file."""
    with opened(path) as weights:
        return state_dict.foreign("safetensors", path, weights, model)


@contextmanager
def opened(path: Path) -> Iterator[Weights]:
    """`with opened(path) as weights:` the Weights in a file, whose numbers may be asked for within. bfloat16 comes as
    float32."""
    with open(path, "rb", opener=opener) as file:
        size = os.fstat(file.fileno()).st_size
        length = struct.unpack("<Q", head)[0] if len(head := file.read(8)) == 8 else 0
        if not 0 < length <= min(MOST_JSON, size - 8):
            raise Expected(path, "a file of safetensors, which begins with its header's length",
                           f"{length} in one of {size} bytes")
        try:
            header = parsed(path, file.read(length).decode(), HEADER)
        except UnicodeDecodeError:
            raise Expected(path, "a header in UTF-8", "other bytes") from None
        written = header.pop(METADATA, {})
        if strange := [name for name in header if not name.isprintable() or len(name) > 300]:
            raise Expected(path, "tensors with names that can be printed", ascii(strange[0][:60]))
        _check_places(path, header, size - 8 - length)

        def numbers(name):
            """The tensor of that name."""
            array = np.empty(header[name]["shape"], DTYPES[header[name]["dtype"]])
            file.seek(8 + length + header[name]["data_offsets"][0])
            if file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:
                raise Expected(f"{path}: {name}", f"{array.nbytes} bytes", "fewer")
            return (array.astype("<u4") << 16).view("<f4") if header[name]["dtype"] == "BF16" else array

        about = written.get(state_dict.ABOUT)
        mean = numbers(state_dict.MEAN) if about is not None and state_dict.MEAN in header else None
        shapes = {name: tuple(of["shape"]) for name, of in header.items() if about is None or name != state_dict.MEAN}
        yield Weights(shapes, numbers, lambda: _by_torch(path), ("torch", "safetensors"), ordered=False, about=about, mean=mean)


def _check_places(path, header, size):
    """Raise Expected unless the tensors fill the `size` bytes behind the header, one behind the other."""
    place = 0
    for name, of in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = of["data_offsets"]
        needed = math.prod(of["shape"])*np.dtype(DTYPES[of["dtype"]]).itemsize
        if math.prod(max(size, 1) for size in of["shape"]) > MOST_NUMBERS:
            raise Expected(f"{path}: {name}", f"at most {MOST_NUMBERS} numbers along its axes", f"shape {of['shape']}")
        if first != place or last - first != needed:
            raise Expected(f"{path}: {name}", f"{needed} bytes from {place} on", f"bytes {first} to {last}")
        place = last
    if place != size:
        raise Expected(path, f"{place} bytes of tensors", f"{size}")


def _by_torch(path):
    from safetensors.torch import load_file
    return load_file(path)


def write(network: Network, path: FilePath, mean: NDArray[np.float32] | None, classes: Sequence[str]) -> None:
    """Write the weights to `path`, all or nothing, by the names and in the order that PyTorch has, with the layer table, the
    classes and the mean picture (3,S,S) beside them. Raises Unwritable where the disk refuses."""
    arrays: dict[str, NDArray[Any]] = {**state_dict.tensors(network), **({} if mean is None else {state_dict.MEAN: mean})}
    header: dict[str, Any] = {METADATA: {"format": "pt", state_dict.ABOUT: state_dict.about(network, classes)}}
    place = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    words = json.dumps(header).encode()
    words += b" "*(-len(words) % ALIGNED)
    with atomic(path) as temporary, open(temporary, "wb", opener=opener) as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f4").tobytes())
