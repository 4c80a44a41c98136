"""Floor 3: the HDF5 checkpoint, written and read.

One file that `h5ls -r` explains by itself:

    attributes                    format="zfcore", version, model, input_shape, layers (JSON), classes (JSON), epoch, step
    /parameters/<layer>/<name>    float32: w and b, of a batch normalisation gamma and beta
    /optimizer/<layer>/<name>     float32, the momentum's velocities
    /buffers/<layer>/<name>       float32, what training keeps beside the parameters, of layers that have it
    /preprocessing/mean_image     float32 (3,H,W), pixels 0..255
    /history                      float64, a table: a row an epoch, the columns of log.csv
    /state                        attributes: learning rate, plateau rule, place in the epoch

Every dataset carries Fletcher32 checksums, but for single numbers, which lie in a header that has one. A file is written beside
its final name, flushed to the disk and renamed, so that a kill at any moment leaves the last good one. Nothing is ever unpickled,
and a file is not believed: what must be there, with type, shape and range, is looked at before it is read (zfcore/hdf5.py).
"""
import csv
import errno
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import to_host
from zfcore.files import anything, choice, listed, mapping, name, opener, parsed, real, said, text, whole
from zfcore.hdf5 import DamagedFile, Reader, check_names, open_h5, short, write_array, write_table
from zfcore.hints import Arrays, FilePath, Row, Shape
from zfcore.layers import from_fields, renamed
from zfcore.network import Network
from zfcore.system import Claim, NoLocks, flush
from zfcore.terminal import signals_held

FORMAT, VERSION = "zfcore", 1
LIBVER = ("v110", "v110")           # HDF5 1.10 and later: this form has checksums on its own headers too
MOST_LAYERS, MOST_CLASSES, MOST_EPOCHS, MOST_COLUMNS = 1000, 10**6, 10**6, 100
FLOATS = np.dtype(np.float32), np.dtype(np.float16)       # as weights are stored; those that come with zfcore are rounded

OF_A_RUN = re.compile(r"(latest|best|epoch_\d+)\.h5")           # names of the checkpoints in its folder

# What a run goes on from, beside the arrays. Other names may be there, but none that begins like one of these.
PLATEAU = {"lr": real(above=0), "patience": whole(1), "margin": real(0, 1), "drops": whole(),
           "best": real(0, infinite=True), "waited": whole()}
SUMS = {"loss": real(), "seconds": real(0), "wrong": whole(), "count": whole(), "batches": whole(), "clamped": whole()}
GOES_ON = {**{f"plateau_{key}": form for key, form in PLATEAU.items()}, **{f"sums_{key}": form for key, form in SUMS.items()}}
STATE = {"data": text(10_000), "imported": text(60_000), "val_fraction": real(0, 1), "seed": whole(),
         "limit_per_class": whole(), "upscale": whole(0, 1), "init": choice("", "gaussian", "he"), "train_fingerprint": text(100),
         "val_fingerprint": text(100), **GOES_ON}


@dataclass(eq=False)
class Checkpoint:
    """Contents of a checkpoint file. Arrays are NumPy float32; `layers` is the layer table (`Network.table()`)."""
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
    """Write `checkpoint` to `path`, all or nothing. Raises Expected, before anything is written, for what `load` would refuse, and
    Unwritable where the disk refuses (full, read-only)."""
    root = _unwritten(checkpoint)
    _read(root)
    with new_hdf5(path) as file:
        _describe(file, **root.values)
        for group, arrays in _groups(checkpoint).items():
            file.create_group(group)
            for layer, of_layer in arrays.items():
                for key, array in of_layer.items():
                    write_array(file, f"{group}/{layer}/{key}", to_host(array))
        if checkpoint.mean_image is not None:
            write_array(file, "preprocessing/mean_image", to_host(checkpoint.mean_image))
        if checkpoint.history:
            write_table(file, "history", checkpoint.history)
        _describe(file.create_group("state"), **checkpoint.state)


def load(path: FilePath, velocity: bool = True) -> Checkpoint:
    """Read and check a file written by `save`; without its velocities, half of it, where training does not go on from it. Whatever
    is wrong is one sentence that names the file and the dataset: not a checkpoint, another version, cut short, a failed
    checksum, a missing or misshapen dataset, a NaN."""
    path = Path(path)
    if not os.path.isfile(path):
        raise check.Expected("checkpoint", "a file",
                             f"{path}, which {'is none' if os.path.lexists(path) else 'does not exist'}")
    try:
        with open_h5(path) as file:
            check_format(file, path, FORMAT, "a zfcore checkpoint")
            return _read(file, velocity)
    except DamagedFile as damage:
        raise DamagedFile(damage.what, damage.expected, damage.got, others_beside(path)) from None
    except OSError as error:
        raise check.Expected(path, "a file that can be read", error.strerror or short(error)) from None


def _read(file, velocity=True):
    """The Checkpoint that a file holds, which may be one that is yet to be written."""
    network, layers, classes = _head(file)
    velocity = velocity and file.group("optimizer").names()
    return Checkpoint(
        network.name, network.input_shape, layers, classes,
        parameters=_arrays(file, "parameters", network.parameter_shapes()),
        velocity=_arrays(file, "optimizer", network.parameter_shapes()) if velocity else {},
        buffers=_arrays(file, "buffers", network.buffer_shapes()) if "buffers" in file or network.buffer_shapes() else {},
        mean_image=file.group("preprocessing").array("mean_image", np.float32, (3, None, None), finite=True)
        if "preprocessing" in file else None,
        epoch=file.attribute("epoch", whole()), step=file.attribute("step", whole()),
        state=_state(file.group("state")), history=_history(file) if "history" in file else {})


def others_beside(path: Path) -> str:
    """Advice where a run's latest.h5 or best.h5 is damaged or missing: which of its other checkpoints may take the place, the
    newest first; "" where there is none, and for another file, whose place none can take."""
    others = [other for other in path.parent.glob("*.h5") if OF_A_RUN.fullmatch(other.name) and other.is_file()]
    others = sorted((other for other in others if other.name != path.name), key=os.path.getmtime, reverse=True)
    if not others or path.name not in ("latest.h5", "best.h5"):
        return ""
    return f"copy {' or '.join(other.name for other in others[:3])}, which that folder has too, to {path.name}"


def check_readable(checkpoint: Checkpoint) -> None:
    """Raise Expected where `load` would refuse what the `checkpoint` says beside its arrays: what is trained can be opened."""
    root = _unwritten(checkpoint)
    _head(root)
    _state(root.group("state"))


@dataclass
class _Unwritten:
    """A group that is to be written, asked as a `hdf5.Reader` is: its attributes, and what it will hold by name."""
    values: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    path, advice = "checkpoint", ""

    def place(self, key=""):
        return f"{self.path}: {self.name}/{key}".rstrip("/: ")

    def attributes(self):
        return [*self.values]

    def attribute(self, key, form):
        value = self.values[key]
        try:
            _described(value)
        except UnicodeEncodeError:
            raise check.Expected(f"{self.path}: {key}", "a text that UTF-8 has", said(value)) from None
        return form(f"{self.path}: {key}", value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value)

    def names(self):
        check_names(self.place(), [*self.held])
        return [*self.held]

    def __contains__(self, key):
        return key in self.held

    def is_group(self, key):
        return isinstance(self.held[key], _Unwritten)

    def group(self, key):
        return self.held[key]

    def array(self, key, dtypes, shape, finite):
        check.shape(self.place(key), self.held[key], shape)
        check.dtype(self.place(key), self.held[key], *(dtypes if isinstance(dtypes, tuple) else (dtypes,)))
        check.finite(self.place(key), self.held[key])
        return self.held[key]

    def table(self, key, most):
        check_names(self.place(key), [*self.held[key]])
        return {column: np.asarray(values, np.float64) for column, values in self.held[key].items()}


def _unwritten(checkpoint):
    """The root of the file that `save` is to write."""
    held = {group: _Unwritten(name=f"/{group}", held={layer: _Unwritten(name=f"/{group}/{layer}", held=of_layer)
                                                      for layer, of_layer in arrays.items()})
            for group, arrays in _groups(checkpoint).items()}
    held["state"] = _Unwritten(checkpoint.state, name="/state")
    if checkpoint.mean_image is not None:
        held["preprocessing"] = _Unwritten(held={"mean_image": checkpoint.mean_image}, name="/preprocessing")
    if checkpoint.history:
        held["history"] = checkpoint.history
    return _Unwritten(_attributes(checkpoint), held)


def _groups(checkpoint):
    """{group of a file: its arrays by layer and name}."""
    return {"parameters": checkpoint.parameters, "optimizer": checkpoint.velocity, "buffers": checkpoint.buffers}


def _attributes(checkpoint):
    try:
        layers = json.dumps(checkpoint.layers)
    except TypeError as error:
        raise check.Expected(f"{checkpoint.model}: layers", "fields that JSON has", error) from None
    return {"format": FORMAT, "version": VERSION, "model": checkpoint.model, "epoch": checkpoint.epoch, "step": checkpoint.step,
            "input_shape": list(checkpoint.input_shape), "layers": layers,
            "classes": json.dumps(check.names("classes", checkpoint.classes, none=True))}


def check_format(file: Reader, path: FilePath, expected: str, what: str, advice: str = "") -> None:
    """Raise Expected unless the file, a `hdf5.Reader`, has this format in VERSION."""
    if (found := file.attribute("format", anything, "")) != expected:
        known = {FORMAT: "a checkpoint", "zfcore result": "the result of an analysis", "zfcore pictures": "a packed data set"}
        raise check.Expected(path, what, known.get(found if isinstance(found, str) else "", "another HDF5 file"), advice)
    if (version := file.attribute("version", anything)) != VERSION:
        raise check.Expected(path, f"format version {VERSION}", said(version), "read it with the zfcore that wrote it")


def _json(file, key, form):
    return parsed(f"{file.path}: {key}", file.attribute(key, text(2**24)), form)


def _head(file):
    """(network, layer table, classes) of a file. The Network is without arrays: it knows the shapes of those that must be
    there."""
    model = file.attribute("model", name)
    layers = [renamed(row) for row in _json(file, "layers", listed(mapping(anything), MOST_LAYERS, 1))]
    input_shape = file.attribute("input_shape", listed(whole(1, 2**14), 3, 3))
    try:
        network = Network(model, input_shape, [from_fields(row) for row in layers])
    except check.Expected as error:
        raise check.Expected(f"{file.path}: {error.what}", error.expected, error.got, error.advice) from None
    return network, layers, _json(file, "classes", listed(text(), MOST_CLASSES))


def _arrays(file, key, shapes):
    """{layer: {name: array}} of the group called `key`, which must hold arrays of exactly these `shapes`."""
    group = file.group(key)
    same_names(group, shapes, "the layers ")
    layers = {layer: group.group(layer) for layer in shapes}
    for layer, of_layer in shapes.items():
        same_names(layers[layer], of_layer)
    return {layer: {name: layers[layer].array(name, FLOATS, shape, finite=True) for name, shape in of_layer.items()}
            for layer, of_layer in shapes.items()}


def same_names(group: Reader, names: Iterable[str], what: str = "") -> None:
    """Raise Expected unless the group, a `hdf5.Reader`, holds what is called by these `names` and nothing else."""
    if set(found := group.names()) != set(names):
        raise check.Expected(group.place(), f"{what}{', '.join(names) or 'none'}", ", ".join(found[:20]) or "none",
                             group.advice)


def _state(group):
    """Entries of the state: what is known in its form, what is not as a text or number; nothing that only looks like a part of
    what a run goes on from."""
    found = {key: group.attribute(key, STATE.get(key, _scalar)) for key in group.attributes()}
    if strange := [key for key in found if key not in STATE and key.startswith(("plateau_", "sums_"))]:
        raise check.Expected(group.place(), f"only {', '.join(GOES_ON)} of a run's state", said(strange[0]))
    return found


def _scalar(where, value):
    return text(10_000)(where, value) if not isinstance(value, (int, float)) else value


def _history(file):
    if file.is_group("history"):                           # before 0.2.0: a dataset a column
        group = file.group("history")
        columns = {column: group.array(column, np.float64, (None,), 8*MOST_EPOCHS) for column in group.names()}
    else:
        columns = file.table("history", 8*MOST_EPOCHS*MOST_COLUMNS)
    return {column: values.tolist() for column, values in columns.items()}


def check_resumable(what: str, found: Checkpoint, network: Network, size: int) -> None:
    """Raise Expected unless a run of `network` on pictures of `size` pixels can go on from the Checkpoint `found`, which `what`
    names: with a velocity for every parameter, a mean image, a row of history for every epoch, and the state of its rules."""
    advice = "resume a run's own latest.h5"
    if missing := [key for key in GOES_ON if key not in found.state]:
        raise check.Expected(f"{what}: state", ", ".join(GOES_ON), f"none called {missing[0]}", advice)
    shapes = {layer: {key: array.shape for key, array in of_layer.items()} for layer, of_layer in found.velocity.items()}
    if shapes != network.parameter_shapes():
        raise check.Expected(f"{what}: optimizer", "a velocity of the shape of every parameter", "others", advice)
    if found.mean_image is None or found.mean_image.shape != (3, size, size):
        raise check.Expected(f"{what}: mean image", f"shape (3, {size}, {size})", getattr(found.mean_image, "shape", "none"),
                             advice)
    rows = {len(column) for column in found.history.values()}
    if "epoch" not in found.history or rows != {found.epoch} or not found.history["epoch"] == list(range(1, found.epoch + 1)):
        raise check.Expected(f"{what}: history", f"{found.epoch} rows, one an epoch", f"{sorted(rows)}", advice)


def _describe(group, **attributes):
    """Texts go in with a fixed length: then they lie in the object's header, which has a checksum, not in HDF5's heap."""
    group.attrs.update({key: _described(value) for key, value in attributes.items()})


def _described(value):
    return np.bytes_(value.encode(errors="surrogateescape")) if isinstance(value, str) else value


# ------------------------------------------------------------------------------------------- files, whole or not at all
class Unwritable(check.Expected):
    """The disk refuses a file: full, read-only, gone."""


ADVICE: dict[int | None, str]
ADVICE = {**dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there"),
          **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
          errno.ENOENT: "there is no such folder"}


class atomic:
    """`with atomic(path) as temporary:` write to `temporary`; it becomes `path` when the block ends well, vanishes when not.

    The temporary file lies in the same folder, is flushed to the disk before the rename, and its name tells whose it is,
    so that what a kill leaves behind goes with the next write. Where others write the same file, each has a temporary one of its
    own: whoever is last wins, with a whole file."""

    def __init__(self, path: FilePath) -> None:
        check.instance("path", path, (str, os.PathLike))
        self.path = Path(path)
        if not self.path.name:
            raise check.Expected("path", "a file", f"{path}, a folder")

    def __enter__(self) -> Path:
        try:
            self.claim = claimed(self.path, ".part")
        except OSError as refused:
            raise _unwritable(self.path, refused) from None
        return self.claim.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> Literal[False]:
        if kind is None:
            try:
                flush(self.claim.path)
                self.claim.become(self.path)
                flush(self.path.parent)
                return False
            except OSError as refused:
                error = refused
        with suppress(OSError):                  # a disk that cannot be written cannot be cleaned either
            self.claim.drop()
        if isinstance(error, OSError):
            raise _unwritable(self.path, error) from None
        return False


def claimed(path: Path, ending: str) -> Claim:
    """The Claim on .NAME and this ending, beside what is to be called `path`; on .NAME-2, .NAME-3, ... where others have those
    before: there are never more than were at work at once. Raises OSError."""
    for number in itertools.count(1):
        with suppress(BlockingIOError, NoLocks):
            return Claim(path.with_name(f".{path.name}{'' if number == 1 else f'-{number}'}{ending}"))
    raise AssertionError


@contextmanager
def in_turn(path: FilePath) -> Iterator[None]:
    """`with in_turn(path):` of all who do so for the same path one at a time looks what is there and writes it, while others
    wait; where there are no locks nobody waits. Raises Unwritable."""
    path, claim = Path(path), None
    try:
        with suppress(NoLocks):
            claim = Claim(path.with_name(f".{path.name}.lock"), wait=True)
    except OSError as refused:
        raise _unwritable(path, refused) from None
    try:
        yield
    finally:
        if claim is not None:
            with suppress(OSError):
                claim.drop()


def _unwritable(path, error):
    return Unwritable(f"writing {path}", "a disk with room that may be written", error.strerror or short(error),
                      "; ".join(filter(None, ("what was in the file before is untouched" if path.exists() else "",
                                              ADVICE.get(error.errno)))))


@contextmanager
def new_hdf5(path: FilePath) -> Iterator[h5py.File]:
    """`with new_hdf5(path) as file:` an h5py.File to fill, whole or not at all as with `atomic(path)`.

    A disk that fills up under an open file makes the HDF5 library end the process with a segmentation fault, when it
    fails to close what it could not write. So HDF5 is not told: `_Output` keeps the refusal until the file is closed. Nor does
    it pass on an exception that is raised as it writes, such as a KeyboardInterrupt: signals are heard when it is closed."""
    with atomic(path) as temporary, _Output(temporary, "w+") as output:
        try:
            with signals_held(), h5py.File(output, "w", libver=LIBVER) as file:
                yield file
        finally:
            if output.refused:
                raise output.refused from None


def write_csv(path: FilePath, rows: Iterable[Iterable[Any]], *header: str) -> None:
    """Write `rows` under a `header`, whole or not at all; names of files may hold bytes that are no text."""
    with (atomic(path) as temporary,
          open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape", opener=opener) as file):
        csv.writer(file).writerows([header, *rows])


class _Output(io.FileIO):
    """A file in which every write seems to succeed; `refused` is what the first one raised that did not."""
    refused: BaseException | None = None

    def write(self, data):
        rest = memoryview(data).cast("B")
        try:
            while len(rest) and not self.refused:
                rest = rest[super().write(rest):]          # may take a part only
        except BaseException as error:
            self.refused = error
        return memoryview(data).nbytes

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except BaseException as error:
            self.refused = self.refused or error
            return size
