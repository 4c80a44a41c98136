"""Floor 1: every HDF5 file that is read, each part of it looked at before its data are; and how arrays are written.

    with open_h5(path) as file:                                        a `Reader` of the file's root
        file.attribute("epoch", whole())                               in the form of zfcore/files.py
        file.group("parameters").names()                               what lies in a group
        file.array("mean_image", np.float32, (3, None, None))          an array, its type and shape known before it is read
        file.table("history")                                          columns of numbers
    write_array(group, "mean_image", array)                        one with checksums, of an h5py.File that is made
    write_table(group, "history", columns)                         the same, of {column: numbers}

An HDF5 file may say that its data lie in other files (external storage, external links, virtual datasets), may describe a
dataset of any size that was never written, and may hold filters that unfold without end or name a plug-in to load. None of it
is followed: data lie in the file itself, as many bytes as they need, under the filters that zfcore writes. Whatever else is
found is one sentence naming file and place."""
import os
from contextlib import contextmanager, nullcontext
from math import ceil, prod

import h5py
import numpy as np

from zfcore import check
from zfcore.check import Expected
from zfcore.files import opener, said
from zfcore.terminal import signals_held

ANY = "any"                                          # numbers or texts
FILTERS = {h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE}
MOST_NAMES, MOST_ATTRIBUTE = 100_000, 2**24          # in a group; bytes
MOST_NAME = 2**15                                    # bytes of a name; HDF5 has none of 2**16 for an attribute
MOST_UNFOLDED = 2**28                                # bytes of a compressed dataset
DEFLATE = 1032                                       # the most bytes that one of deflate can unfold to
ONE_CHUNK = 2**22                                    # bytes that a chunk may have beyond those of its dataset
CHUNK = 2**20                                        # bytes of a chunk that is written, but for rows that are longer


@contextmanager
def open_h5(path, advice="", member=None):
    """`with open_h5(path) as file:` the `Reader` of a file's root, or of that of a `member` of the file at `path`, which is a
    file too. Raises OSError where it cannot be opened or is no regular file, Expected for whatever is wrong with it, h5py's own
    exceptions, which may be any, included; `advice` is what to do."""
    if member is None:
        with open(path, "rb", opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
    else:
        size = len(member)
    try:
        with nullcontext() if member is None else signals_held(), h5py.File(path if member is None else member, "r") as file:
            yield Reader(path, file, [size], advice)
    except (Expected, MemoryError):
        raise
    except Exception as error:          # h5py answers a damaged file with OSError, RuntimeError, ValueError and others
        if member is None and not h5py.is_hdf5(path):
            raise DamagedFile(path, "an HDF5 file", "a file that does not begin as one" if size else "an empty file",
                              advice) from None
        raise DamagedFile(path, "a whole HDF5 file", f"one cut short or damaged ({short(error)})", advice) from None


def short(error):
    """Text of an exception, in one line."""
    return str(error).strip("'\"").split("\n")[0][:120]


class Missing(Expected):
    """A part that a file of this format has is not there."""


class DamagedFile(Expected):
    """A file is cut short, or its data are not those that were written: another copy of it may be whole."""


class Reader:
    """A group of an HDF5 file, and what it holds. `left` is the number of bytes that may still be read, in a list that all
    groups of the file share: no more than the file has, however often it names one place."""

    def __init__(self, path, group, left, advice):
        self.path, self.left, self.advice = path, left, advice
        self._group = group

    def place(self, name=""):
        """Name in messages of what is called `name` here."""
        inner = f"{self._group.name.rstrip('/')}/{name}".rstrip("/")
        return f"{self.path}: {inner if inner.isprintable() else ascii(inner)}" if inner else f"{self.path}"

    # ------------------------------------------------------------------------------------------------------ what there is
    def names(self):
        """Names of what lies in the group, in its order."""
        if len(self._group) > MOST_NAMES:
            raise Expected(self.place(), f"at most {MOST_NAMES} entries", len(self._group), self.advice)
        names = list(self._group)
        check_names(self.place(), names, self.advice)
        return names

    def __contains__(self, name):
        return "/" not in name and self._group.id.links.exists(name.encode(errors="surrogateescape"))

    def is_group(self, name):
        """Return whether `name` is a group; else it is a dataset."""
        return isinstance(self._open(name, "a part"), h5py.h5g.GroupID)

    def group(self, name):
        """The Reader of the group called `name`."""
        found = self._open(name, "a group")
        if not isinstance(found, h5py.h5g.GroupID):
            raise Expected(self.place(name), "a group", "a dataset", self.advice)
        return Reader(self.path, h5py.Group(found), self.left, self.advice)

    def _open(self, name, what):
        encoded = name.encode(errors="surrogateescape")
        if name not in self:
            # nor is there one with "/" in it, which may lead anywhere
            raise Missing(self.place(name), what, "none", self.advice)
        if self._group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
            raise Expected(self.place(name), f"{what} in the file itself", "a link to somewhere else", self.advice)
        found = h5py.h5o.open(self._group.id, encoded)
        if not isinstance(found, (h5py.h5g.GroupID, h5py.h5d.DatasetID)):
            raise Expected(self.place(name), what, "a type", self.advice)
        return found

    # ------------------------------------------------------------------------------------------------------------ datasets
    def dataset(self, name, dtype=None, shape=None, most=None, unread=False):
        """The h5py.Dataset called `name`, every byte of which lies in the file and may be read.

        dtype   the types it may have, one or a tuple; None: any of numbers; str: texts of a fixed width; ANY: either
        shape   as `check.shape` has it; None: any               most    bytes it may have; None: as many as the file
        unread  it is only asked for its type and shape: not counted among the bytes that are read

        Raises Expected, naming it, for another type or shape, for data elsewhere, missing, or too many."""
        where, (found, how) = self.place(name), self._own_data(name)
        self._check_storage(where, found, how, most, unread, *self._check_type(where, found, dtype, shape))
        return found

    def _own_data(self, name):
        """(the h5py.Dataset called `name`, how it was made), of one whose data lie in the file itself."""
        found = self._open(name, "a dataset")
        if not isinstance(found, h5py.h5d.DatasetID):
            raise Expected(self.place(name), "a dataset", "a group", self.advice)
        how = found.get_create_plist()
        if how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count():
            raise Expected(self.place(name), "data in the file itself", "a dataset whose data lie in others", self.advice)
        return h5py.Dataset(found), how

    def _check_type(self, where, found, dtype, shape):
        type_found, sizes = found.dtype, found.shape
        # `is`: to NumPy np.dtype(float64) == None
        wanted = () if dtype is None or dtype is str or dtype is ANY else dtype if isinstance(dtype, tuple) else (np.dtype(dtype),)
        is_text = type_found.kind == "S"
        is_number = type_found.isnative and type_found.kind in "biuf" and (not wanted or type_found in wanted)
        fits = {str: is_text, ANY: is_text or is_number}.get(dtype, is_number)
        if sizes is None or not fits or shape is not None and len(sizes) != len(shape):
            kind = {None: "numbers", str: "texts", ANY: "numbers or texts"}.get(dtype)
            kind = kind or " or ".join(map(str, map(np.dtype, wanted)))
            expected = "" if shape is None else " (" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
            got = "texts" if is_text else type_found if type_found.kind in "biuf" else "another type"
            raise Expected(where, f"{kind}{expected}", f"{got} {sizes}", self.advice)
        if shape is not None and sizes != shape:
            check.shape(where, found, shape)
        return sizes, type_found.itemsize

    def _check_storage(self, where, found, how, most, unread, shape, itemsize):
        size, stored, tiles = prod(shape)*itemsize, found.id.get_storage_size(), found.chunks
        filters = {how.get_filter(k)[0] for k in range(how.get_nfilters())}
        if filters - FILTERS:
            raise Expected(where, "the filters fletcher32, shuffle and gzip", f"filter number {max(filters - FILTERS)}",
                           self.advice)
        folded = h5py.h5z.FILTER_DEFLATE in filters
        most = min(most or self.left[0], MOST_UNFOLDED if folded else self.left[0])
        if size > most:
            raise Expected(where, f"at most {most} bytes of data", f"{size} bytes, {found.dtype} {shape}", self.advice)
        chunks = prod(ceil(a/b) for a, b in zip(shape, tiles)) if tiles else 0
        if stored < (1 if folded else size) and size or tiles and found.id.get_num_chunks() < chunks:
            raise DamagedFile(where, f"{size} bytes of data", f"{stored} that were written", self.advice)
        if tiles and prod(tiles)*itemsize > max(size, ONE_CHUNK):
            raise Expected(where, "chunks no larger than the data", f"{found.dtype} {tiles}", self.advice)
        if folded and max((found.id.get_chunk_info(k).size for k in range(chunks)), default=0)*DEFLATE > MOST_UNFOLDED:
            raise Expected(where, f"chunks of at most {MOST_UNFOLDED//DEFLATE} bytes", "larger ones", self.advice)
        self.left[0] -= 0 if folded or unread else size

    def array(self, name, dtype=None, shape=None, most=None, finite=False):
        """The array called `name`, see `dataset`; Expected is also raised where it does not fit its checksum or, if it is to be
        `finite`, holds a number that is not."""
        array = self._values(name, self.dataset(name, dtype, shape, most))
        if finite:
            check.finite(self.place(name), array)
        return array

    def table(self, name, most=None):
        """{column: float64 array (rows,)} of the table called `name`, see `write_table`; `most` and Expected as for an `array`."""
        where, (found, how) = self.place(name), self._own_data(name)
        dtype, rows = found.dtype, found.shape
        columns = dtype.names or ()
        if rows is None or len(rows) != 1 or not columns or any(dtype[column] != np.float64 for column in columns):
            raise Expected(where, "a table of float64 columns", f"something else {rows}", self.advice)
        check_names(where, columns, self.advice)
        self._check_storage(where, found, how, most, False, rows, dtype.itemsize)
        values = self._values(name, found)
        return {column: np.ascontiguousarray(values[column]) for column in columns}

    def _values(self, name, found):
        try:
            return found[...]                              # an array, of a single number too
        except OSError as error:
            raise DamagedFile(self.place(name), "data that fit their checksum", f"data cut short or damaged ({short(error)})",
                              self.advice) from None

    def texts(self, name, shape=None, most=2**26):
        """An array of texts of a fixed width, as bytes."""
        return self.array(name, str, shape, most)

    def text(self, name):
        """The one text of any length that the dataset `name` holds."""
        found, _ = self._own_data(name)
        if found.shape != () or h5py.check_string_dtype(found.dtype) is None:
            raise Expected(self.place(name), "a text", f"something else {found.shape}", self.advice)
        return found[()].decode("utf-8", "surrogateescape")

    # ---------------------------------------------------------------------------------------------------------- attributes
    def attributes(self):
        """Names of the group's attributes."""
        if len(self._group.attrs) > MOST_NAMES:
            raise Expected(self.place(), f"at most {MOST_NAMES} attributes", len(self._group.attrs), self.advice)
        return list(self._group.attrs)

    def attribute(self, name, form, default=None):
        """The attribute called `name` in the form `form`, as Python has it: a text, a number, a list of numbers. `default`
        where there is none, unless that is None: then it must be there."""
        where, encoded = f"{self.place()}: {name}", name.encode(errors="surrogateescape")
        if not h5py.h5a.exists(self._group.id, encoded):
            if default is None:
                raise Expected(where, "an attribute", "none", self.advice)
            return default
        found = h5py.h5a.open(self._group.id, encoded)
        dtype, count = found.dtype, prod(found.shape) if found.shape is not None else 0
        is_text = (text := h5py.check_string_dtype(dtype)) is not None
        size = max(dtype.itemsize*count, found.get_storage_size())
        if not (is_text and found.shape == () or dtype.kind in "biuf") or size > MOST_ATTRIBUTE:
            raise Expected(where, "a text or numbers", f"{dtype.kind if text is None else 'texts'} {found.shape}", self.advice)
        value = self._group.attrs[name]
        value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
        return form(where, value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value)


def check_names(where, names, advice=""):
    """Raise Expected unless what lies in a group may have these names, and is found again by them."""
    if strange := [name for name in names if not isinstance(name, str) or not name.isprintable() or "/" in name
                   or name in ("", ".", "..") or len(name.encode()) > MOST_NAME]:
        raise Expected(where, f"names that can be printed, without \"/\", of up to {MOST_NAME} bytes", said(strange[0]), advice)


def write_table(group, name, columns):
    """Write {column: numbers (rows,)} as the dataset `name` of an h5py.Group, whose elements are rows of float64 numbers. Raises
    Expected for columns of different lengths."""
    arrays = {column: np.asarray(values, np.float64) for column, values in columns.items()}
    rows = max((len(array) for array in arrays.values()), default=0)
    table = np.empty(rows, [(column, np.float64) for column in arrays])
    for column, array in arrays.items():
        check.shape(f"{name}: {column}", array, (rows,))
        table[column] = array
    write_array(group, name, table)


def write_array(group, name, array, compressed=False):
    """Write `array` as the dataset `name` of an h5py.Group, with a checksum for each of its chunks. These are whole rows, as many
    in each; h5py's own choice fills up the last ones, which made a small checkpoint two fifths larger and slower to write."""
    if not array.ndim:
        _write_number(group, name, array)
        return
    if not array.size:                               # no chunks, which alone have checksums
        group.create_dataset(name, data=array)
        return
    count = min(ceil(array.nbytes/(CHUNK//8 if compressed else CHUNK)), len(array))      # DEFLATE: nobody reads larger ones
    chunk = (ceil(len(array)/count), *array.shape[1:])
    group.create_dataset(name, data=array, chunks=chunk, fletcher32=True, compression="gzip" if compressed else None)


def _write_number(group, name, array):
    """Write an array () as a dataset that lies in its own header, which has a checksum: a single number has no chunks."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    how.set_obj_track_times(False)
    made = h5py.h5d.create(group.id, None, h5py.h5t.py_create(array.dtype, logical=True), h5py.h5s.create(h5py.h5s.SCALAR), how)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    group[name] = h5py.Dataset(made)
