"""Strangers' files for tests/test_hostile.py and tests/faults.py: sound ones of many kinds, and what somebody may do to them.

    KINDS              {kind: (function(path) that writes a sound one, function(path) that opens it as zfcore does)}
    spoil(rng, path)   changes a file in one of the ways below, drawn; returns what was done, in words
"""
import json
import os
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from zfcore import results, trained
from zfcore.analysis.correspondence import Correspondence
from zfcore.analysis.diagnostics import Diagnosis
from zfcore.analysis.evolution import Evolution
from zfcore.analysis.invariance import Invariance
from zfcore.analysis.occlusion import Occlusion
from zfcore.analysis.sanity_checks import SanityChecks
from zfcore.analysis.top_activations import TopActivations, UnitViews
from zfcore.backend import CPU
from zfcore.checkpoint import LIBVER, Checkpoint, load, save
from zfcore.commands import COMMANDS
from zfcore.data import open_data
from zfcore.data.landmarks import read_landmarks
from zfcore.data.packed import create
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.network import Network

SIZES = {"n": 2, "H": 12, "W": 12, "M": 3, "R": 2, "Q": 2, "L": 2, "S": 3, "m": 2, "h": 5, "w": 5, "f": 3, "U": 2, "k": 2,
         "E": 2, "J": 3, "K": 3, "F": 4, "B": 15, "D": 5, "P": 2, "r": 1, "o": 1, "p": 1}
SCALARS = {"int": 2, "float": 0.5, "text": "conv1", "bool": True}
RESULTS = TopActivations, UnitViews, Occlusion, Invariance, Diagnosis, Evolution, SanityChecks, Correspondence


# ------------------------------------------------------------------------------------------------------ sound files
def a_checkpoint(path):
    layers = [Conv("conv1", F=4, K=3, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2, P=1), Flatten("flat"), Linear("fc2", 3)]
    network = Network("small", (3, 17, 17), layers).init(1)
    zeros = {layer: {key: np.zeros_like(array) for key, array in of.items()} for layer, of in network.parameters().items()}
    state = {"data": "", "seed": 1, "init": "gaussian", "plateau_lr": 0.1, "plateau_patience": 5, "plateau_margin": 0.01,
             "plateau_drops": 3, "plateau_best": float("inf"), "plateau_waited": 0, "sums_loss": 0.0, "sums_seconds": 0.0,
             "sums_wrong": 0, "sums_count": 0, "sums_batches": 0, "sums_clamped": 0}
    save(path, Checkpoint("small", network.input_shape, network.table(), ["a", "b", "c"], network.parameters(), zeros,
                          np.full((3, 19, 19), 100, np.float32), 1, 7, state, {"epoch": [1.0], "val_error": [0.5]}))


def a_result(kind):
    """A function that writes a result of the dataclass `kind`, its arrays as its FORM has them."""
    def write(path):
        sizes = results._Sizes()
        sizes.known = {**SIZES, "total": 9, "size": 2, "side": 2}
        values = {}
        for field in fields(kind):
            line = results._Line(kind.FORM[field.name])
            one = _filled(line, sizes)
            keys = ("conv1", "conv2")[:1 + (kind is not TopActivations)]
            values[field.name] = {key: one for key in keys} if line.each else one
        results.save(path, kind(**values))
    return write


def _filled(line, sizes):
    if line.is_scalar:
        return SCALARS[line.type]
    shape = tuple(sizes.value(words.rstrip("?"), "") for words in line.sizes)
    if line.dtype is str:
        return np.array([f"name {k}" for k in range(int(np.prod(shape)))]).reshape(shape)
    low = sizes.value(line.range.split("..")[0], "") if ".." in line.range and line.range.split("..")[0] else 0
    varied = np.arange(int(np.prod(shape))).reshape(shape) % 2 if line.dtype == np.float32 else 0
    return np.full(shape, max(low, 0), line.dtype) + np.asarray(varied, line.dtype)


def a_packed_set(path):
    rng, size = np.random.default_rng(0), 8
    facts = {"lengths": [size*size*3]*3, "checksums": [1, 2, 3], "labels": [0, 1, 0], "names": ["x/1", "y/2", "x/3"],
             "left_out": []}
    create(path, {"source": "test", "size": size, "encoding": "raw"}, ["x", "y"],
           rng.random((3, size, size), np.float32), {"train": facts, "val": facts})


def landmarks(path):
    Path(path).write_text(json.dumps({"a.jpg": {"nose": [3, 4.5], "left eye": [1, 2]}, "b.jpg": {"nose": [3, 4]}}))


def marks_of(tool):
    """A function that writes the marks of two pictures as a tool does."""
    from tests.data import test_landmarks

    def write(path):
        getattr(test_landmarks, tool)({"a.jpg": {"nose": (3, 4.5), "left eye": (1, 2)}, "b.jpg": {"nose": (3, 4)}}, Path(path))
    return write


def redrawn(kind):
    """A function that opens a result as `python -m zfcore redraw` does."""
    def read(path):
        command = next((one for one in COMMANDS.values() if kind is one.RESULT), None)
        found = results.load(path, kind)
        if command:
            command.draw([found] if command.TOGETHER else found, Path(path).with_suffix(".png"))
        return found
    return read


def opened_and_used(path):
    model = trained.open(path, "cpu")
    assert np.isfinite(model.probabilities(np.zeros((2, model.size, model.size, 3), np.uint8))).all()
    return load(path)


def resumed(path):
    from zfcore.checkpoint import check_resumable
    found = load(path)
    network = trained.from_checkpoint(path, CPU)[0]
    check_resumable("--resume", found, network, found.mean_image.shape[1] if found.mean_image is not None else 0)
    return found


def options(path):
    from zfcore.training.config import resolve
    return resolve({"config": str(path)})


def a_config(path):
    from dataclasses import asdict

    from zfcore.training.config import TrainConfig
    Path(path).write_text(json.dumps({"options": asdict(TrainConfig()), "started": "2026-01-01 00:00:00"}, indent=2))


KINDS = {"checkpoint.h5": (a_checkpoint, opened_and_used), "latest.h5": (a_checkpoint, resumed),
         "packed.h5": (a_packed_set, lambda path: open_data(str(path), 8)),
         "landmarks.json": (landmarks, read_landmarks), "coco.json": (marks_of("coco"), read_landmarks),
         "via.json": (marks_of("via_project"), read_landmarks), "config.json": (a_config, options),
         **{f"{kind.__name__}.h5": (a_result(kind), redrawn(kind)) for kind in RESULTS}}


# ----------------------------------------------------------------------------------------------------- what is done to them
def spoil(rng, path):
    """Change the file at `path` in a way that `rng` draws; returns it in words."""
    if rng.random() < 0.3:
        return _bytes(rng, path)
    return _json(rng, path) if path.suffix == ".json" else _structure(rng, path)


def _bytes(rng, path):
    data = bytearray(path.read_bytes())
    at = int(rng.integers(len(data)))
    if rng.random() < 0.2:
        path.write_bytes(data[:at])
        return f"cut at byte {at}"
    for place in [at, *rng.integers(len(data), size=int(rng.integers(3))).tolist()]:
        data[place] = int(rng.integers(256))
    path.write_bytes(data)
    return f"bytes changed at {at}"


VALUES = [0, -1, 7, 10**6, 2**63, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../x", "a/b", "a\nb", "con",
          "x"*300, "\udc80", "7", True, None, [], [1, 2], {}, {"a": 1}, [[0]]]


def _json(rng, path):
    whole = json.loads(path.read_text())
    spots = list(_spots(whole))
    holder, key = spots[int(rng.integers(len(spots)))]
    word = ("delete", "replace", "add", "deep", "digits", "twice")[int(rng.integers(6))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    if word == "delete":
        del holder[key]
    elif word == "replace":
        holder[key] = value
    elif word == "add" and isinstance(holder, dict):
        holder[str(value)] = value
    text = json.dumps(whole)
    if word == "deep":
        text = "["*100_000 + text + "]"*100_000
    elif word == "digits":
        text = text.replace("1", "1"*5000, 1)
    elif word == "twice":
        text = '{"a": 1, "a": 2}'
    path.write_text(text)
    return f"{word} {key} {str(value)[:40]!r}"


def _spots(value):
    for key in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
        yield value, key
        yield from _spots(value[key])


def _structure(rng, path):
    with h5py.File(path, "r+", libver=LIBVER) as file:
        items, groups = [], [file]
        file.visititems(lambda name, item: (items if isinstance(item, h5py.Dataset) else groups).append(item))
        if rng.random() < 0.35:
            return _attribute(rng, groups[int(rng.integers(len(groups)))])
        return _dataset(rng, file, items[int(rng.integers(len(items)))].name)


def _attribute(rng, group):
    names = list(group.attrs)
    if not names:
        return "nothing"
    name, value = names[int(rng.integers(len(names)))], VALUES[int(rng.integers(len(VALUES)))]
    old = group.attrs[name]
    if isinstance(old, bytes) and old[:1] in (b"[", b"{") and rng.random() < 0.8:                # the layer table, the classes
        whole = json.loads(old)
        holder, key = (spots := list(_spots(whole)))[int(rng.integers(len(spots)))]
        holder[key] = value
        value, name_said = np.bytes_(json.dumps(whole).encode()), f"{name}: {key} is {str(value)[:40]!r}"
    else:
        name_said = f"attribute {name} is {str(value)[:40]!r}"
    if value is None:
        del group.attrs[name]
    elif isinstance(value, (list, dict)) or isinstance(value, int) and abs(value) >= 2**63:
        group.attrs[name] = np.arange(len(value) if isinstance(value, list) else 3)
    else:
        group.attrs[name] = np.bytes_(value.encode(errors="surrogateescape")) if isinstance(value, str) else value
    return name_said


def _dataset(rng, file, name):
    array, parent, last = file[name][()], *name.rsplit("/", 1)
    ways = {
        "deleted": lambda: None, "another type": lambda: array.astype(rng.choice(["i1", "f8", "i8", "f4", "u2", ">f4", "c8"])),
        "flat": lambda: array.ravel(), "an axis more": lambda: array[None],
        "empty": lambda: array[:0] if array.ndim else array[None][:0],
        "longer": lambda: np.concatenate([array, array]) if array.ndim else array,
        "filled": lambda: np.full_like(array, rng.choice([0, -1, 1, 99, 2**31 - 1])),
        "not finite": lambda: np.full_like(array, rng.choice([np.nan, np.inf, -np.inf])),
        "number": lambda: np.array(3), "texts": lambda: np.array([b"a", b"b"]), "soft": h5py.SoftLink("/" + "x"*9),
        "external link": h5py.ExternalLink("/etc/passwd", "/x"), "external data": "external", "odd name": "odd",
        "to itself": "itself", **{way: way for way in ("group", "huge", "hard", "virtual", "unwritten", "vlen", "compound")}}
    if array.dtype.kind == "S":
        ways = {way: made for way, made in ways.items() if way not in ("another type", "filled", "not finite")}
    if array.dtype.kind in "iub":
        ways.pop("not finite")
    way = list(ways)[int(rng.integers(len(ways)))]
    try:
        made = ways[way]() if callable(ways[way]) else ways[way]
    except (OverflowError, ValueError):
        made = array
    group = file[parent or "/"]
    del group[last]
    if isinstance(made, str):
        _odd_thing(made, file, group, last, array)
    elif made is not None:
        group[last] = made
    return f"{name}: {way}"


def _odd_thing(kind, file, group, name, array):
    """Put something that is no dataset of its own data where `array` was."""
    match kind:
        case "group":
            group.create_group(name)
        case "hard":
            group[name] = file
        case "itself":
            group[name] = group
        case "odd":
            group[name + "\n.."] = array
        case "huge":
            group.create_dataset(name, (10**6, 10**6), "f4", chunks=(100, 100))
        case "external":
            group.create_dataset(name, array.shape or (1,), array.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        case "virtual":
            group.create_virtual_dataset(name, _virtual(array))
        case "unwritten":
            group.create_dataset(name, array.shape, array.dtype)
        case "vlen":
            group.create_dataset(name, (3,), h5py.vlen_dtype(np.float32))
        case "compound":
            group.create_dataset(name, (3,), [("a", "f4"), ("b", "i8")])


def _virtual(array):
    layout = h5py.VirtualLayout(array.shape or (1,), array.dtype)
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", array.shape or (1,), array.dtype)
    return layout


def tree(folder):
    """{path: what it is} of a folder and all below it."""
    what = lambda path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return {str(path.relative_to(folder)): what(path) for path in sorted(folder.rglob("*"))}
