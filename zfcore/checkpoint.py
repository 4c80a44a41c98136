"""Floor 3: the HDF5 checkpoint, written and read.

One file that `h5ls -r` explains by itself:

    attributes                    format="zfcore", version, model, input_shape, layers (JSON), classes (JSON), epoch, step
    /parameters/<layer>/<name>    float32: w and b, of a batch normalisation gamma and beta
    /optimizer/<layer>/<name>     float32, the momentum's velocities
    /buffers/<layer>/<name>       float32, what training keeps beside the parameters, of layers that have it
    /preprocessing/mean_image     float32 (3,H,W), pixels 0..255
    /history/<column>             float64, one entry an epoch: the columns of log.csv
    /state                        attributes: learning rate, plateau rule, place in the epoch

Every dataset carries Fletcher32 checksums. A file is written beside its final name, flushed to the disk and renamed, so
that a kill at any moment leaves the last good one. Nothing is ever unpickled.
"""
import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import to_host
from zfcore.hints import Arrays, FilePath, Row, Shape

FORMAT, VERSION = "zfcore", 1
LIBVER = ("v110", "v110")           # HDF5 1.10 and later: this form has checksums on its own headers too


@dataclass
class Checkpoint:
    """What a file holds. Arrays are NumPy float32; `layers` is the layer table (`Network.table()`)."""
    model: str
    input_shape: Shape
    layers: list[Row]
    classes: Sequence[str]
    parameters: Arrays
    velocity: Arrays = field(default_factory=dict)
    mean_image: NDArray[np.float32] | None = None
    epoch: int = 0
    step: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    buffers: Arrays = field(default_factory=dict)


def save(path: FilePath, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, all or nothing. Raises Unwritable where the disk refuses (full, read-only)."""
    with new_hdf5(path) as file:
        _describe(file, format=FORMAT, version=VERSION, model=checkpoint.model, epoch=checkpoint.epoch,
                  step=checkpoint.step, input_shape=checkpoint.input_shape,
                  layers=json.dumps(checkpoint.layers), classes=json.dumps(checkpoint.classes))
        for group, arrays in (("parameters", checkpoint.parameters), ("optimizer", checkpoint.velocity),
                              ("buffers", checkpoint.buffers)):
            file.create_group(group)
            for layer, of_layer in arrays.items():
                for key, array in of_layer.items():
                    _write(file, f"{group}/{layer}/{key}", to_host(array))
        if checkpoint.mean_image is not None:
            _write(file, "preprocessing/mean_image", to_host(checkpoint.mean_image))
        for column, values in checkpoint.history.items():
            _write(file, f"history/{column}", np.asarray(values, np.float64))
        _describe(file.create_group("state"), **checkpoint.state)


def load(path: FilePath) -> Checkpoint:
    """Read and check a file written by `save`. Whatever is wrong is one sentence that names the file and the dataset:
    not a checkpoint, another version, cut short, a failed checksum, a missing or misshapen dataset, a NaN."""
    path = Path(path)
    if not path.is_file():
        raise check.Expected("checkpoint", "a file", f"{path}, which does not exist")
    try:
        with h5py.File(path, "r") as file:
            about = _description(file)
            if about.get("format") != FORMAT:
                raise check.Expected(path, "a zfcore checkpoint", "another HDF5 file")
            if about.get("version") != VERSION:
                raise check.Expected(path, f"format version {VERSION}", about.get("version"),
                                     "read it with the zfcore that wrote it")
            return Checkpoint(
                model=about["model"], input_shape=tuple(about["input_shape"].tolist()),
                layers=json.loads(about["layers"]), classes=json.loads(about["classes"]),
                parameters=_read_layers(path, file["parameters"]), velocity=_read_layers(path, file["optimizer"]),
                buffers=_read_layers(path, file.get("buffers", {})),
                mean_image=_read(path, file["preprocessing/mean_image"]) if "preprocessing" in file else None,
                epoch=about["epoch"], step=about["step"], state=_description(file["state"]),
                history={name: _read(path, column, finite=False).tolist()
                         for name, column in file.get("history", {}).items()})
    except check.Expected:
        raise
    except (KeyError, json.JSONDecodeError) as error:
        raise check.Expected(path, "every part of a zfcore checkpoint", f"one without {_short(error)}",
                             "use another checkpoint of the run") from None
    except Exception as error:          # h5py answers a damaged file with OSError, RuntimeError, ValueError and others
        raise check.Expected(path, "a whole HDF5 file", f"one cut short or damaged ({_short(error)})",
                             "use another checkpoint of the run") from None


def _describe(group, **attributes):
    """Texts go in with a fixed length: then they lie in the object's header, which has a checksum, not in HDF5's heap."""
    group.attrs.update({key: np.bytes_(value.encode()) if isinstance(value, str) else value
                        for key, value in attributes.items()})


def _description(group):
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in group.attrs.items()}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}


def _write(file, name, array):
    file.create_dataset(name, data=array, fletcher32=array.size > 0)


def _read_layers(path, group):
    return {layer: {key: _read(path, dataset) for key, dataset in of_layer.items()} for layer, of_layer in group.items()}


def _read(path, dataset, finite=True):
    try:
        array = dataset[()]
    except OSError as error:
        raise check.Expected(f"{path}: {dataset.name}", "data that fit their checksum", f"damaged data ({_short(error)})",
                             "use another checkpoint of the run") from None
    if finite:
        check.finite(f"{path}: {dataset.name}", array)
    return array


def _short(error):
    return str(error).strip("'\"").split("\n")[0][:120]


# ------------------------------------------------------------------------------------------- files, whole or not at all
class Unwritable(check.Expected):
    """The disk refuses a file: full, read-only, gone."""


ADVICE: dict[int | None, str]
ADVICE = {**dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there"),
          **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
          errno.ENOENT: "the folder is gone"}


class atomic:
    """`with atomic(path) as temporary:` write to `temporary`; it becomes `path` when the block ends well, vanishes when not.

    The temporary file lies in the same folder, is flushed to the disk before the rename, and its name tells whose it is,
    so that what a kill leaves behind is overwritten by the next write. In a `shared` folder, where another process may be
    writing the same file, it is this process's own: whoever is last wins, with a whole file."""

    def __init__(self, path: FilePath, shared: bool = False) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}{f'-{os.getpid()}' if shared else ''}.part")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> Literal[False]:
        if kind is None:
            try:
                flush(self.temporary)
                os.replace(self.temporary, self.path)
                flush(self.path.parent)
                return False
            except OSError as refused:
                error = refused
        self.temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise Unwritable(f"writing {self.path}", "a disk with room that may be written", error.strerror or _short(error),
                             "; ".join(filter(None, ("what was in the file before is untouched", ADVICE.get(error.errno))))) from None
        return False


@contextmanager
def new_hdf5(path: FilePath, shared: bool = False) -> Iterator[h5py.File]:
    """`with new_hdf5(path) as file:` an h5py.File to fill, whole or not at all as with `atomic(path, shared)`.

    A disk that fills up under an open file makes the HDF5 library end the process with a segmentation fault, when it
    fails to close what it could not write. So HDF5 is not told: `_Output` keeps the refusal until the file is closed."""
    with atomic(path, shared) as temporary, _Output(temporary, "w+") as output:
        try:
            with h5py.File(output, "w", libver=LIBVER) as file:
                yield file
        finally:
            if output.refused:
                raise output.refused from None


def write_csv(path: FilePath, rows: Iterable[Iterable[Any]], *header: str) -> None:
    """Write `rows` under a `header`, whole or not at all; names of files may hold bytes that are no text."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([header, *rows])


class _Output(io.FileIO):
    """A file in which every write seems to succeed; `refused` is the OSError of the first one that did not."""
    refused = None

    def write(self, data):
        rest = memoryview(data).cast("B")
        try:
            while len(rest) and not self.refused:
                rest = rest[super().write(rest):]          # may take a part only
        except OSError as error:
            self.refused = error
        return memoryview(data).nbytes

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.refused = self.refused or error
            return size


def flush(path: Path) -> None:
    """Wait until the file or folder at `path` is on the disk."""
    if path.is_dir() and os.name == "nt":
        return                                             # a folder cannot be opened there; the rename is enough
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
