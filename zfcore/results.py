"""Floor 3: what an analysis found, as one HDF5 file that explains itself.

A result is a frozen dataclass; each of its fields becomes what HDF5 calls it:

    array of numbers or texts      dataset /field, with Fletcher32 checksums (texts as UTF-8)
    dict {name: array or number}   group /field, the arrays in the dict's order, behind them the numbers
    text, number, bool             attribute `field` of the file
    None                           nothing, which is read as the field's default, and so must be it

and the file's attributes also say format="zfcore result", version, `kind`, the dataclass, and `digest`, the SHA-256 of all of
it (files from before there was one are read without). A field that is called as one of these four has the name "FIELD of the
result". `load` gives back an equal dataclass, every array with its dtype. Written
beside its final name and renamed (`checkpoint.new_hdf5`): whole or not at all.

A dataclass that anybody's file may claim to be says in its attribute FORM what its fields hold, {field: a line such as these}:

    "float32 U k 2"              an array of that type and shape. A letter is one size, 1 or more, wherever it stands; 2U+1 too
    "int64 U -1..M-1"            with the values that it may have, both ends included; either may be left out
    "float64 U finite"           without NaN and infinite ones
    "text U"                     texts
    "{layer} float32 U k"        a dict of such arrays, in which letters that stand nowhere else may differ from name to name;
                                 all dicts of a layer have the same names, at least one, or with "{layer?}" perhaps none
    "int64 U? 2"                 U may be 0
    "int 1..H", "float", "text"  a number or text
    "bool", "{series} int"
"""
import hashlib
import itertools
import math
import os
import re
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from zfcore import check, files
from zfcore.backend import to_host
from zfcore.checkpoint import check_format, in_turn, new_hdf5
from zfcore.hdf5 import ANY, MOST_ATTRIBUTE, MOST_NAMES, check_names, open_h5, short, write_array
from zfcore.hints import FilePath, Result

Kind = TypeVar("Kind", bound=Result)

FORMAT, VERSION = "zfcore result", 1
SCALARS = str, bool, int, float
FORMS = {"int": files.whole(-2**63), "float": files.real(infinite=True, nan=True), "text": files.text(2**16),
         "bool": files.flag}
WHOLE = files.whole(-2**63, 2**64 - 1)                    # as HDF5 has whole numbers
OWN = "format", "version", "kind", "digest"                # the file's attributes that are no fields
FORMER = {"Controls": "SanityChecks"}      # kinds by the names they have in older files
FIGURES = "png", "svg", "pdf"              # formats of a result's figures
MOST_TEXT, LARGEST = 2**26, 2**20         # bytes of an array of texts; the largest size of an axis


def save(path: FilePath, result: Result) -> None:
    """Write the dataclass `result` to `path`. Raises Expected where the disk refuses, and for what `load` would refuse."""
    _write_all(path, result, _values_of(path, result))


def keep(path: FilePath, result: Result) -> tuple[Path, int]:
    """Save the result so that no other one is lost: as `path`, or where that holds another result as path_2, path_3, ..., the
    first that is free or holds this one. Returns (the file, its number). Raises Expected where the disk refuses."""
    own = digest(values := _values_of(path, result))
    with in_turn(path):                                    # else two that find the same number free would write one file
        file, number = next((file, number) for number in itertools.count(1)
                            if not (file := files.numbered(Path(path), number)).exists() or _digest_of(file) == own)
        _write_all(file, result, values)
    return file, number


def _digest_of(file):
    """Digest of the result in a file, "" where there is none that can be read."""
    try:
        with _opened(file, "result") as opened:
            return opened.attribute("digest", files.text(64), "")
    except check.Expected:
        return ""


def load(path: FilePath, kind: type[Kind]) -> Kind:
    """The dataclass of class `kind` that `save` wrote to `path`. Raises Expected for whatever is wrong with the file."""
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise check.Expected("kind", "a dataclass, such as zfcore.Occlusion", repr(kind)[:60])
    with _opened(path, kind.__name__) as file:
        if (found := _kind(file)) != kind.__name__:
            raise check.Expected(path, f"a result of kind {kind.__name__}", found)
        values = _read_all(file, kind)
        if (told := file.attribute("digest", files.text(64), "")) and told != digest(values):
            raise check.Expected(path, "arrays that fit their checksum", "others", file.advice)
    return kind(**values)


def _stored(name):
    """Name of a field in the file, never one of the file's own, as no field has spaces in its name."""
    return f"{name} of the result" if name in OWN else name


def _all_stored(values):
    return {_stored(name): value for name, value in values.items()}


def _read_all(file, kind):
    """{field: value} of the dataclass `kind` in a file, each in the form that it must have."""
    there = {*file.names(), *file.attributes()}
    wanted = [field.name for field in fields(kind)
              if _stored(field.name) in there or field.default is MISSING and field.default_factory is MISSING]
    if missing := [name for name in wanted if _stored(name) not in there]:
        raise check.Expected(file.path, f"every part of a {kind.__name__}", f"none called {', '.join(missing)}")
    form = getattr(kind, "FORM", None)
    return {name: _any(file, _stored(name)) for name in wanted} if form is None else _formed(file, wanted, form)


def kind_of(path: FilePath) -> str:
    """Name of the dataclass that `save` wrote to `path`. Raises Expected where there is none."""
    with _opened(path, "result") as file:
        return _kind(file)


def _kind(file):
    kind = file.attribute("kind", files.name)
    return FORMER.get(kind, kind)


def digest(values: dict[str, Any]) -> str:
    """SHA-256 of {field: value}, whatever order they come in."""
    sum_of_all = hashlib.sha256()
    for name, value in sorted(values.items()):
        for key, item in value.items() if isinstance(value, dict) else [("", value)]:
            array = np.asarray(item)
            kind = "text" if array.dtype.kind == "U" else array.dtype.str
            sum_of_all.update(f"\n{name}/{key} {kind} {array.shape} ".encode(errors="surrogateescape"))
            sum_of_all.update("\0".join(array.ravel().tolist()).encode(errors="surrogateescape") if kind == "text" else
                              np.ascontiguousarray(array).data)
    return sum_of_all.hexdigest()


@contextmanager
def _opened(path, what):
    """The `hdf5.Reader` of a file that `save` wrote."""
    check.instance("path", path, (str, os.PathLike))
    if not os.path.isfile(path):
        raise check.Expected(what, "a file", f"{path}, which {'is none' if os.path.lexists(path) else 'does not exist'}")
    try:
        with open_h5(path, "remove it and run the analysis again") as file:
            check_format(file, path, FORMAT, "the result of an analysis")
            yield file
    except OSError as error:
        raise check.Expected(path, "a file that can be read", error.strerror or short(error)) from None


# ------------------------------------------------------------------------------------------------------------- writing
def _values_of(path, result):
    """{field: value} of a dataclass, on the host, without those that are None. Raises Expected for what could not be read again
    at `path`."""
    if not is_dataclass(result) or isinstance(result, type):
        raise check.Expected("result", "what an analysis gives, a dataclass", type(result).__name__)
    values = {}
    for field in fields(result):
        where, value = f"{path}: {field.name}", getattr(result, field.name)
        if value is not None:
            values[field.name] = _on_host(where, value)
        elif field.default is not None:
            raise check.Expected(where, "a value, since None is not the field's default", "None")
    _read_all(_Unsaved(path, _all_stored(values)), type(result))
    return values


class _Unsaved:
    """Result that is to be saved, asked as a `hdf5.Reader` is."""
    advice = ""

    def __init__(self, path, values):
        self.path, self.values = path, values

    def place(self, name=""):
        return f"{self.path}: {name}" if name else f"{self.path}"

    def names(self):
        return [name for name, value in self.values.items() if isinstance(value, (dict, np.ndarray))]

    def attributes(self):
        return [name for name, value in self.values.items() if isinstance(value, SCALARS)]

    def __contains__(self, name):
        return name in self.names()

    def is_group(self, name):
        return isinstance(self.values[name], dict)

    def group(self, name):
        check.instance(self.place(name), entries := self.values[name], dict)
        check_names(self.place(name), entries)
        check.whole(f"{self.place(name)}: number of entries", len(entries), 0, MOST_NAMES)
        return _Unsaved(self.place(name), entries)

    def attribute(self, name, form):
        check.instance(self.place(name), value := self.values.get(name), SCALARS)
        if isinstance(value, str):
            self._encoded(name, value, MOST_ATTRIBUTE)
        return form(self.place(name), value)

    def dataset(self, name, dtype, shape=None, unread=True):
        array = self.values[name]
        check.instance(self.place(name), array, np.ndarray)
        is_text, is_number = array.dtype.kind == "U", array.dtype.kind in "biuf" and array.dtype.isnative
        if not {str: is_text, ANY: is_text or is_number}.get(dtype, is_number and (dtype is None or dtype == array.dtype)):
            words = {None: "numbers", str: "texts", ANY: "numbers or texts"}
            raise check.Expected(self.place(name), words.get(dtype) or np.dtype(dtype), array.dtype)
        if not array.ndim:
            raise check.Expected(self.place(name), "an array with an axis or more", "one without", "array.item() is its number")
        if shape is not None:
            check.shape(self.place(name), array, shape)
        return array

    array = dataset

    def texts(self, name, shape=None, most=MOST_TEXT):
        return self._encoded(name, self.dataset(name, str, shape), most)

    def _encoded(self, name, texts, most):
        try:
            texts = np.char.encode(texts, "utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise check.Expected(self.place(name), "texts that UTF-8 has", files.said(error.object)) from None
        check.whole(f"{self.place(name)}: bytes of texts", texts.nbytes, 0, most)
        return texts


def _on_host(where, value):
    """`value` with its arrays on the host, numbers as Python's, so that its digest is that of what is read again."""
    check.unmasked(where, value)
    if isinstance(value, dict):                             # the numbers last, as they are read
        entries = {key: _on_host(f"{where}: {key}", item) for key, item in value.items()}
        return dict(sorted(entries.items(), key=lambda entry: isinstance(entry[1], SCALARS)))
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, SCALARS) else to_host(value)


def _write_all(path, result, values):
    about = dict(zip(OWN, (FORMAT, VERSION, type(result).__name__, digest(values))))
    with new_hdf5(path) as file:
        for name, value in {**about, **_all_stored(values)}.items():
            _write(file, name, value)


def _write(group, name, value):
    if isinstance(value, dict):
        inner = group.create_group(name, track_order=True)
        for key, item in value.items():
            _write(inner, key, item)
    elif isinstance(value, str):
        # of fixed length: it then lies in a header that has a checksum
        group.attrs[name] = np.bytes_(value.encode(errors="surrogateescape"))
    elif isinstance(value, SCALARS):
        group.attrs[name] = value
    else:
        if value.dtype.kind == "U":
            texts = np.char.encode(value, "utf-8", "surrogateescape")
            value = texts.astype(h5py.string_dtype("utf-8", max(texts.dtype.itemsize, 1)))
        write_array(group, name, value)


# ------------------------------------------------------------------------------------------- reading what has no form
def _any(file, name):
    """Read whatever numbers, texts or dict of them `name` is."""
    if name not in file:
        return file.attribute(name, _scalar)
    if not file.is_group(name):
        return _array(file, name)
    inner = file.group(name)
    return {**{key: _array(inner, key) for key in inner.names()},
            **{key: inner.attribute(key, _scalar) for key in inner.attributes()}}


def _scalar(where, value):
    if not isinstance(value, SCALARS):
        raise check.Expected(where, "a text or number", files.said(value))
    return WHOLE(where, value) if type(value) is int else value


def _array(file, name, dtype=None, shape=None):
    """An array of numbers or, where it holds texts or is to, of texts."""
    if dtype is str or dtype is None and file.dataset(name, ANY, unread=True).dtype.kind in "SU":
        found = file.texts(name, shape, MOST_TEXT)
        return np.char.decode(found, "utf-8", "surrogateescape").astype(str).reshape(found.shape)
    return file.array(name, dtype, shape)


# ---------------------------------------------------------------------------------------- reading what has a form
class _Line:
    """A line of a FORM, taken apart: `each` where it is of every entry of a dict, the type, the sizes, the range."""

    def __init__(self, line):
        words = line.split()
        self.each = words.pop(0)[1:-1] if words[0].startswith("{") else ""
        self.type, *words = words
        self.range = words.pop() if words and (".." in words[-1] or words[-1] == "finite") else ""
        self.sizes, self.is_scalar = words, self.type in FORMS and not words
        self.dtype = str if self.type == "text" else None if self.is_scalar else np.dtype(self.type)


class _Sizes:
    """Sizes that the letters of a FORM stand for: those of dicts, where they stand nowhere else, for each entry `key` by
    itself."""

    def __init__(self):
        self.known = {}

    def value(self, words, key):
        """The number that "3", "M-1" or "P+2R" is; None where a letter of it is not known."""
        total = 0
        for sign, times, letter in re.findall(r"([+-]?)(\d*)([A-Za-z]*)", words):
            one = 1 if not letter else self.known.get(letter, self.known.get((letter, key)))
            if one is None:
                return None
            if times or letter:
                total += (-1 if sign == "-" else 1)*int(times or 1)*one
        return total

    def learn(self, where, words, key, size):
        """Let a letter that is not known yet be `size`."""
        letter = words.rstrip("?")
        if not letter.isalpha() or self.value(letter, key) is not None:
            return
        if not (words != letter) + size >= 1 or size > LARGEST:
            raise check.Expected(where, f"1 to {LARGEST} along the axis {letter}", size)
        self.known[(letter, key) if key else letter] = size


def _formed(file, names, form):
    """{field: value} of the fields `names`, each as its line of `form` has it."""
    lines, sizes, values, alike = {name: _Line(form[name]) for name in names}, _Sizes(), {}, {}
    for name in sorted(names, key=lambda name: (bool(lines[name].each), not lines[name].is_scalar)):     # first what all share
        line = lines[name]
        if line.each:
            inner = file.group(_stored(name))
            keys = inner.attributes() if line.is_scalar else inner.names()
            if set(keys) != (wanted := alike.setdefault(line.each, set(keys))) or not keys and not line.each.endswith("?"):
                raise check.Expected(inner.place(), f"an array for each of {', '.join(sorted(wanted)) or 'some names'}",
                                     f"those for {', '.join(keys) or 'none'}", file.advice)
            values[name] = {key: _read(inner, key, line, sizes, key) for key in keys}
        else:
            values[name] = _read(file, _stored(name), line, sizes, "")
    for name in names:
        for key, value in values[name].items() if lines[name].each else [("", values[name])]:
            _check_range(f"{file.place(_stored(name))}{key and f'/{key}'}", value, lines[name].range, sizes, key)
    return {name: values[name] for name in names}


def _read(group, name, line, sizes, key):
    if line.is_scalar:
        value = group.attribute(name, FORMS[line.type])
        if line.type == "int" and not key:
            sizes.known[name] = value
        return value
    where, shape = group.place(name), tuple(sizes.value(words.rstrip("?"), key) for words in line.sizes)
    for words, size in zip(line.sizes, group.dataset(name, line.dtype, shape, unread=True).shape):
        sizes.learn(where, words, key, size)
    shape = tuple(sizes.value(words.rstrip("?"), key) for words in line.sizes)       # a letter twice in a line: the same size
    return _array(group, name, line.dtype, shape)


def _check_range(where, value, words, sizes, key):
    """Raise Expected unless all of the numbers are in the range "low..high"."""
    if not words:
        return
    array = np.asarray(value)
    if words == "finite" or array.dtype.kind == "f":
        check.finite(where, array)
    low, high = (sizes.value(end, key) if end else None for end in (words.split("..") if words != "finite" else ("", "")))
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if array.size and not low <= array.min() <= array.max() <= high:
        raise check.Expected(where, f"numbers from {low} to {high}", f"{array.min()} to {array.max()}")
