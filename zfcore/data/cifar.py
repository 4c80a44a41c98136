"""CIFAR-10 and CIFAR-100, 32x32 pictures, in the binary and in the Python form, as folders or tars as they are downloaded.

    cifar-10-batches-bin   data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt
    cifar-10-batches-py    data_batch_1     ... data_batch_5,     test_batch,     batches.meta
    cifar-100-binary       train.bin, test.bin, fine_label_names.txt, coarse_label_names.txt
    cifar-100-python       train,     test,     meta

The Python form is pickles, and a pickle is a program: loading one may do whatever its author likes. So none is loaded here:
`read_pickle` goes through its instructions and follows those that make numbers, text, lists, dictionaries and arrays of
whole numbers; anything else is refused, by name.
"""
import hashlib
import itertools
import lzma
import os
import re
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from zfcore.check import Expected
from zfcore.data.folders import some
from zfcore.data.loader import BuiltIn
from zfcore.files import read_bytes, unfolded
from zfcore.pickles import Code, Filled, Machine, followed, plain

BATCHES = [f"data_batch_{k}" for k in range(1, 6)]
BROKEN = (OSError, EOFError, ValueError, RecursionError, zlib.error, lzma.LZMAError, tarfile.TarError)      # of a spoiled tar
MOST_BYTES = 2**28                # of a file; the largest, CIFAR-100's training pictures, has 155 MB
MOST_CLASSES, LONGEST = 1000, 1000


@dataclass(frozen=True)
class Form:
    """Make-up of one of the four."""
    folder: str
    tar: str                      # what its tar is called, without .tar.gz
    train: list                   # files of the training set
    test: str                     # file of the test set
    classes: dict                 # kind of label -> (file of its classes' names, key in it; None: text, a name a line)
    labels: dict                  # kind of label -> key in a batch; binary: which byte of a picture's record

    @property
    def files(self):
        return {*self.train, self.test, *(file for file, _ in self.classes.values())}


FORMS = (
    Form("cifar-10-batches-py", "cifar-10-python", BATCHES, "test_batch",
         {"fine": ("batches.meta", "label_names")}, {"fine": "labels"}),
    Form("cifar-10-batches-bin", "cifar-10-binary", [f"{name}.bin" for name in BATCHES], "test_batch.bin",
         {"fine": ("batches.meta.txt", None)}, {"fine": 0}),
    Form("cifar-100-python", "cifar-100-python", ["train"], "test",
         {"fine": ("meta", "fine_label_names"), "coarse": ("meta", "coarse_label_names")},
         {"fine": "fine_labels", "coarse": "coarse_labels"}),
    Form("cifar-100-binary", "cifar-100-binary", ["train.bin"], "test.bin",
         {"fine": ("fine_label_names.txt", None), "coarse": ("coarse_label_names.txt", None)}, {"coarse": 0, "fine": 1}),
)


def open_cifar(root, limit_per_class=0, coarse=False):
    """The two parts (train, val) of the set at `root`; val is what CIFAR calls test. `root` is a folder or tar of one of the
    `FORMS`, or a folder that holds exactly one under the name it is published by.

    Pictures stand in the files' order; of each class the first `limit_per_class` are taken (0: all). `coarse` takes the 20
    superclasses of CIFAR-100 for classes in place of the 100. All pixels are kept in memory, 184 MB for a whole set; opening
    one takes three seconds and three times as much.
    Raises Expected for whatever is missing, cut short or inconsistent, and for a pickle that holds more than data."""
    root = Path(root)
    try:
        found = _find(root)
        if len(found) != 1:
            raise Expected(root, "one CIFAR set", " and ".join(str(path) for path, _ in found) or "none")
        (path, form), = found
        files = _read(path, form)
    except BROKEN as error:
        raise Expected(root, "a folder or a whole tar that can be read", error) from None
    missing = form.files - files.keys()
    if missing:
        raise Expected(path, f"the files of {form.folder}", f"none called {some(sorted(missing))}")
    kind = "coarse" if coarse else "fine"
    if kind not in form.labels:
        raise Expected(path, "CIFAR-100, which has coarse classes", form.folder)
    file, key = form.classes[kind]
    classes = _class_names(f"{path}/{file}", files[file], key)
    read = {name: _batch(f"{path}/{name}", files.pop(name), form, kind, len(classes)) for name in (*form.train, form.test)}
    return tuple(CIFAR(part, classes, {name: read[name] for name in names}, limit_per_class)
                 for part, names in (("train", form.train), ("val", [form.test])))


def is_cifar(root):
    """Return whether `open_cifar` is the one to open what is at `root`."""
    try:
        return bool(_find(Path(root)))
    except BROKEN:
        return False


class CIFAR(BuiltIn):
    """A data set as `zfcore.data.folders` says. Made by `open_cifar`.

    pixels  uint8 (n,3,32,32)"""

    def __init__(self, part, classes, batches, limit_per_class):
        """`batches`: {file: (pixels, labels)}."""
        pixels, labels = (np.concatenate(parts) for parts in zip(*batches.values()))
        names = [f"{part}/{classes[label]}/{PurePosixPath(file).stem}_{row:05}"
                 for file, (_, of_file) in batches.items() for row, label in enumerate(of_file.tolist())]
        if limit_per_class:
            taken = _first_of_each_class(labels, limit_per_class)
            pixels, labels, names = pixels[taken], labels[taken], [names[i] for i in taken]
        self.classes, self.pixels, self.labels, self.names = classes, pixels, labels, names

    def __len__(self):
        return len(self.names)

    def picture(self, i):
        return Image.fromarray(np.ascontiguousarray(self.pixels[i].transpose(1, 2, 0)))       # (3,32,32) -> (32,32,3)

    def fingerprint(self):
        """A digest of the pixels and names."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(self.pixels)
        return digest.hexdigest()


def _first_of_each_class(labels, count):
    """The numbers of each class's first `count` pictures, ascending."""
    order = labels.argsort(kind="stable")
    place_in_class = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return np.sort(order[place_in_class < count])


# ------------------------------------------------------------------------------------------------- where the files lie
def _find(root):
    """[(folder or tar, form)] at `root`: itself, else what it holds."""
    itself = _form(root)
    if itself:
        return [(root, itself)]
    if not root.is_dir():
        return []
    folders = [(root/form.folder, form) for form in FORMS if _form(root/form.folder) == form]
    return folders or [(path, form) for form in FORMS for suffix in (".tar.gz", ".tar")
                       if _form(path := root/(form.tar + suffix)) == form]


def _form(path):
    """The form of which a folder or tar has at least two files, or None."""
    names = set()
    if path.is_dir():
        names = {entry.name for entry in os.scandir(path) if entry.is_file()}
    elif path.is_file():
        with _tar(path) as tar:
            for member in itertools.islice(tar, 20):       # theirs have ten; a tar of a million pictures is not gone through
                names |= {PurePosixPath(member.name).name} if member.isreg() else set()
                if _of(names):
                    break                                  # and a compressed one is not unpacked twice
    return _of(names)


@contextmanager
def _tar(path):
    """The tar at `path`, compressed or not, all of whose files are no larger than two of theirs."""
    with unfolded(path, 2*MOST_BYTES) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield tar


def _of(names):
    return next((form for form in FORMS if len(form.files & names) > 1), None)


def _read(path, form):
    """{name: bytes} of those of the form's files that are there."""
    if path.is_dir():
        return {name: read_bytes(path/name, MOST_BYTES) for name in form.files if (path/name).is_file()}
    with _tar(path) as tar:
        return {name: tar.extractfile(member).read() for member in tar
                if (name := PurePosixPath(member.name).name) in form.files and member.isreg()}


# -------------------------------------------------------------------------------------------- what the files contain
def _class_names(what, data, key):
    names = data.decode("utf-8", "replace").split("\n") if key is None else _entry(what, read_pickle(what, data), key)
    if not isinstance(names, list) or not all(isinstance(name, (bytes, str)) for name in names):
        raise Expected(what, f"a list of names as {key}", "something else")
    if len(names) > MOST_CLASSES or max(map(len, names), default=0) > LONGEST:
        raise Expected(what, f"the names of at most {MOST_CLASSES} classes", f"{len(names)}, or long ones")
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise Expected(what, "the names of at least two classes", names)
    return names


def _batch(what, data, form, kind, classes):
    """(pixels uint8 (n,3,32,32), labels int64 (n,)) of one file. In both forms a picture is 1024 bytes of red, then green,
    then blue, rows from the top. `classes`: how many there are."""
    where = form.labels[kind]
    if isinstance(where, int):
        width = len(form.labels) + 3072                    # the label bytes stand first
        if not data or len(data) % width:
            raise Expected(what, f"records of {width} bytes, a picture each", f"{len(data)} bytes")
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        pixels, labels = records[:, -3072:], records[:, where].tolist()
    else:
        batch = read_pickle(what, data)
        pixels, labels = _entry(what, batch, "data"), _entry(what, batch, where)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,) or not len(pixels):
            raise Expected(what, "an array of bytes (n, 3072) as data", _kind(pixels))
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise Expected(what, f"a list of {len(pixels)} numbers as {where}", _kind(labels))
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise Expected(f"{what}, picture {row}", f"a label from 0 to {classes - 1}", _kind(label))
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _entry(what, table, key):
    """Python 2 wrote the keys as bytes, which is what the published files have; Python 3 as text."""
    for found in (key, key.encode()):
        if found in table:
            return table[found]
    raise Expected(what, f"a dictionary with the key {key}", some(sorted(map(str, table))) if table else "an empty one")


def _kind(thing):
    """Kind of a thing out of a pickle, in a few words: its contents may be of any size."""
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype} {thing.shape}"
    if isinstance(thing, list):
        return f"a list of {len(thing)}"
    return str(thing) if isinstance(thing, int) and abs(thing) < 10**9 else type(thing).__name__


# ----------------------------------------------------------------------------------------------- pickles, not loaded
def read_pickle(name, data):
    """The dictionary that a pickle, bytes `data` called `name` in messages, describes, its arrays as NumPy arrays. Nothing of
    it is run (zfcore/pickles.py): in place of six functions of NumPy and Python, `MADE`, it has our own. Raises Expected for
    whatever else it asks for, by name."""
    found, _ = followed(name, data, Machine(MADE, 2*len(data)), "numbers, text and arrays",
                        "fetch the file from where CIFAR is published", "fetch the file again if it is damaged")
    if not isinstance(found, dict):
        raise Expected(name, "a whole pickle of a dictionary", _kind(found))
    return {key: item.values if isinstance(item, _Array) else item for key, item in found.items()}


class _Type(Filled):
    """A type of whole numbers, as `numpy.dtype` would make it from its code; `fill` gives it its byte order."""

    def __init__(self, code, *_):
        self.code = plain(code)
        if not re.fullmatch("[iu][1248]", self.code):
            raise Code(f"an array of type {self.code[:20]!r}")

    def fill(self, version, order, *_):
        self.code = np.dtype(self.code).newbyteorder(plain(order)).str


class _Array(Filled):
    """An array, empty at first as in its pickle; `fill` gives it shape, type and contents."""

    def __init__(self, *_):
        self.values = None

    def fill(self, version, shape, kind, fortran, contents):
        self.values = np.frombuffer(contents, kind.code).reshape(shape, order="F" if fortran else "C")


def _from_buffer(contents, kind, shape, order):
    array = _Array()
    array.fill(1, shape, kind, order == "F", contents)
    return array


def _latin1(text, codec):
    """Bytes as Python 3 writes them for Python 2."""
    if codec != "latin1":
        raise ValueError("text in another code than latin1")
    return text.encode(codec)


MADE = {"numpy.ndarray": None, "numpy.dtype": _Type, "_codecs.encode": _latin1,
        "numpy.core.multiarray._reconstruct": _Array, "numpy._core.multiarray._reconstruct": _Array,
        "numpy.core.numeric._frombuffer": _from_buffer, "numpy._core.numeric._frombuffer": _from_buffer}
