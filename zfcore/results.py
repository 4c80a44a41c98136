"""Floor 3: what an analysis found, as one HDF5 file that explains itself.

A result is a frozen dataclass; each of its fields becomes what HDF5 calls it:

    array of numbers or texts      dataset /field, with Fletcher32 checksums (texts as UTF-8)
    dict {name: array or number}   group /field, the arrays in the dict's order
    text, number, bool             attribute `field` of the file
    None                           nothing

and the file's attributes also say format="zfcore result", version, and `kind`, the dataclass. `load` gives back an equal
dataclass, every array with its dtype. Written beside its final name and renamed (`checkpoint.new_hdf5`): whole or not at all.
"""
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from zfcore import check
from zfcore.backend import to_host
from zfcore.checkpoint import new_hdf5
from zfcore.hints import FilePath, Result

Kind = TypeVar("Kind", bound=Result)

FORMAT, VERSION = "zfcore result", 1
SCALARS = str, bool, int, float, np.generic


def save(path: FilePath, result: Result) -> None:
    """Write the dataclass `result` to `path`. Raises Expected where the disk refuses."""
    with new_hdf5(path) as file:
        _write(file, "format", FORMAT)
        _write(file, "version", VERSION)
        _write(file, "kind", type(result).__name__)
        for field in fields(result):
            _write(file, field.name, getattr(result, field.name))


def load(path: FilePath, kind: type[Kind]) -> Kind:
    """The dataclass of class `kind` that `save` wrote to `path`. Raises Expected for whatever is wrong with the file."""
    with _opened(path, kind.__name__) as (file, about):
        if (found := about.pop("kind")) != kind.__name__:
            raise check.Expected(path, f"a result of kind {kind.__name__}", found)
        values = {**about, **{name: _read(item) for name, item in file.items()}}
    missing = [field.name for field in fields(kind) if field.name not in values and field.default is MISSING]
    if missing:
        raise check.Expected(path, f"every part of a {kind.__name__}", f"none called {', '.join(missing)}")
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})


def kind_of(path: FilePath) -> str:
    """Name of the dataclass that `save` wrote to `path`. Raises Expected where there is none."""
    with _opened(path, "result") as (_, about):
        return about["kind"]


@contextmanager
def _opened(path, what):
    """(the file, its attributes but for format and version), of a file that `save` wrote."""
    if not Path(path).is_file():
        raise check.Expected(what, "a file", f"{path}, which does not exist")
    try:
        with h5py.File(path, "r") as file:
            about = _attributes(file)
            if about.pop("format", None) != FORMAT:
                raise check.Expected(path, "the result of an analysis", "another HDF5 file")
            if about.pop("version") != VERSION:
                raise check.Expected(path, f"format version {VERSION}", file.attrs["version"],
                                     "read it with the zfcore that wrote it")
            yield file, about
    except check.Expected:
        raise
    except Exception as error:          # h5py answers a damaged file with OSError, RuntimeError, ValueError and others
        raise check.Expected(path, "a whole HDF5 file", f"one cut short or damaged ({str(error)[:120]})",
                             "remove it and run the analysis again") from None


def _write(group, name, value):
    if value is None:
        return
    if isinstance(value, dict):
        inner = group.create_group(name, track_order=True)
        for key, item in value.items():
            _write(inner, key, item)
    elif isinstance(value, str):
        group.attrs[name] = np.bytes_(value.encode())      # of fixed length: it then lies in a header that has a checksum
    elif isinstance(value, SCALARS):
        group.attrs[name] = value
    else:
        array = to_host(value)
        if array.dtype.kind == "U":
            texts = np.char.encode(array, "utf-8")
            array = texts.astype(h5py.string_dtype("utf-8", max(texts.dtype.itemsize, 1)))
        group.create_dataset(name, data=array, fletcher32=array.size > 0)


def _read(item):
    if isinstance(item, h5py.Group):
        return {**{name: _read(inner) for name, inner in item.items()}, **_attributes(item)}
    if h5py.check_string_dtype(item.dtype):
        return np.array(item.asstr()[()], dtype=str).reshape(item.shape)
    return item[()]


def _attributes(group):
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in group.attrs.items()}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
