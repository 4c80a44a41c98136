"""A packed data set: one HDF5 file, written by `python -m train.pack`, that `h5ls -rv` explains by itself.

    attributes          format="zfcore pictures", version, encoding ("jpeg" or "raw"), size (S), source and options
    /classes            (classes,), the class names
    /mean_image         float32 (3,S,S), mean of the training pictures as they are read back, pixels 0..255
    /train/pictures     uint8: the JPEG files one after another, or the pixels (n,S,S,3)
    /train/offsets      int64 (n+1,): picture i is bytes offsets[i] to offsets[i+1] of pictures
    /train/checksums    uint32 (n,), CRC-32 of each picture's bytes
    /train/labels       int64 (n,), numbers into /classes
    /train/names        (n,), what each picture was called in the source
    /train/left_out     (damaged,), "name: reason" of the source's pictures that could not be used
    /val/...            the same

Names and messages are UTF-8 of fixed width; every dataset but pictures carries Fletcher32 checksums. pictures is contiguous,
its first byte is byte get_offset() of the file: so any thread reads a picture with one `read_at`, without HDF5, whose global
lock would let only one thread read at a time, and without its chunk cache, which random order defeats.
"""
import hashlib
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from zfcore.check import Expected
from zfcore.checkpoint import LIBVER, check_format
from zfcore.data.folders import PARTS
from zfcore.data.loader import BuiltIn
from zfcore.data.transforms import MOST_BYTES, CorruptImage, decode
from zfcore.files import OpenFile, opener, text, whole
from zfcore.hdf5 import MOST_UNFOLDED, Missing, open_h5, short, write_array
from zfcore.terminal import plural, signals_held

FORMAT, VERSION = "zfcore pictures", 1
ENCODINGS = ("jpeg", "raw")
SUFFIXES = (".h5", ".hdf5")
MOST_SIZE, MOST_TEXTS = 2**13, MOST_UNFOLDED      # pixels a side; bytes of all names, each as wide as the longest


def open_packed(path, limit_per_class=0, size=None):
    """The data sets (train, val), see `zfcore.data.folders`, of the file at `path`; of each class the first
    `limit_per_class` pictures (0: all). `size` is the side that they will be brought to.

    They have a `mean_image`, float32 (3,S,S), unless there is a limit: then it is None, being that of all pictures.
    Raises Expected, one sentence, for another file, another version, one cut short or damaged or inconsistent."""
    path = Path(path)
    if not path.is_file():
        raise Expected("--data", "a packed data set", f"{path}, which is not a file")
    try:
        with open_h5(path, "copy it or pack it again") as file:
            check_format(file, path, FORMAT, "a packed data set", "pack one with python -m train.pack")
            size_inside, encoding = file.attribute("size", whole(1, MOST_SIZE)), file.attribute("encoding", text(20))
            classes, mean_image = _texts(file, "classes"), file.array("mean_image", np.float32, (3, None, None))
            parts = {part: _Index(file.group(part), size_inside if encoding == "raw" else 0) for part in PARTS}
    except Missing as error:
        raise Expected(path, "every part of a packed data set", f"one without {error.what.removeprefix(f'{path}: ')}",
                       "pack it again") from None
    except OSError as error:
        raise Expected("--data", "a packed data set", f"{path} ({error.strerror or short(error)})") from None
    if encoding not in ENCODINGS or mean_image.shape != (3, size_inside, size_inside) or not np.isfinite(mean_image).all():
        raise Expected(path, f"{' or '.join(ENCODINGS)} and a mean image of {size_inside}x{size_inside}",
                       f"{encoding} and {mean_image.shape}", "pack it again")
    for part, index in parts.items():
        if fault := index.fault(path.stat().st_size, len(classes), size_inside**2*3 if encoding == "raw" else None):
            raise Expected(f"{path}: {part}", "as many pictures, labels, names and checksums, all inside the file", fault,
                           "copy it or pack it again")
    file = OpenFile(path)
    return tuple(Packed(file, parts[part], classes, size_inside, encoding, None if limit_per_class else mean_image,
                        limit_per_class, size) for part in PARTS)


class Packed(BuiltIn):
    """One part of a packed set: a data set as in `zfcore.data.folders`. Made by `open_packed`. Pictures are read by any
    number of threads, and by processes forked after it was opened. `raw_size` is the side of the squares that `pixels` gives
    without any decoding, None for JPEGs."""

    def __init__(self, file, index, classes, size, encoding, mean_image, limit_per_class, shorter_side):
        taken = _first_of_each_class(index.labels, limit_per_class) if limit_per_class else np.arange(len(index.labels))
        self.classes, self.labels, self.mean_image = classes, index.labels[taken], mean_image
        self.names = [index.names[i] for i in taken.tolist()]
        self.size, self.encoding, self.shorter_side = size, encoding, shorter_side
        self.raw_size = size if encoding == "raw" else None
        self._file, self._checksums = file, index.checksums[taken]
        self._begins, self._lengths = index.first_byte + index.offsets[taken], np.diff(index.offsets)[taken]

    def __len__(self):
        return len(self.names)

    def read(self, i):
        """The bytes of picture i, which fit their checksum: a JPEG file, or pixels (S,S,3). Raises CorruptImage."""
        try:
            data = self._file.read(self._lengths[i], self._begins[i])
        except OSError as error:
            raise CorruptImage(self.names[i], error.strerror, lasting=False) from None
        if zlib.crc32(data) != self._checksums[i]:
            raise CorruptImage(self.names[i], "its bytes in the packed file do not fit their checksum")
        return data

    def picture(self, i):
        return Image.fromarray(self.pixels(i)) if self.raw_size else decode(self.names[i], self.read(i), self.shorter_side)

    def pixels(self, i):
        """Picture i of a raw set as it is stored, uint8 (S,S,3), read-only. Raises CorruptImage."""
        return np.frombuffer(self.read(i), np.uint8).reshape(self.size, self.size, 3)

    def fingerprint(self):
        """A digest of every picture's checksum and name, and of what decides how it is decoded: the same for a copy."""
        digest = hashlib.sha256(f"{self.size} {self.encoding} {self.shorter_side}\n".encode())
        for facts in (self._checksums, self._lengths, self.labels):
            digest.update(facts.tobytes())
        digest.update("\0".join(self.names).encode(errors="surrogateescape"))
        return digest.hexdigest()


def _first_of_each_class(labels, limit):
    """Numbers of the first `limit` pictures of each class, rising."""
    order = labels.argsort(kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])     # within the class
    return np.sort(order[rank < limit])


class _Index:
    """Index of a part's pictures, as its small datasets say, which are squares of `size` pixels, or JPEG files for 0."""

    def __init__(self, group, size):
        pictures = group.dataset("pictures", np.uint8, (None, size, size, 3) if size else (None,), unread=True)
        self.shape, self.first_byte = pictures.shape, pictures.id.get_offset()
        self.offsets, self.checksums, self.labels = (group.array(name, dtype, (None,)) for name, dtype in
                                                     (("offsets", np.int64), ("checksums", np.uint32), ("labels", np.int64)))
        self.names = _texts(group, "names")

    def fault(self, file_size, classes, bytes_each):
        """Fault of a file, in words: what does not fit; "" where all does. `bytes_each` is a raw picture's size."""
        n, size = len(self.labels), int(np.prod(self.shape))
        lengths = np.diff(self.offsets)
        if not len(self.names) == len(self.checksums) == len(lengths) == n > 0:
            return f"{n} labels, {plural(len(self.names), 'name')}, {len(self.checksums)} checksums, {len(self.offsets)} offsets"
        if self.first_byte is None:
            return "pictures that do not lie in one piece"
        lies = self.offsets[0] != 0 or self.offsets[-1] != size or not 0 <= lengths.min() <= lengths.max() <= MOST_BYTES
        if lies or bytes_each and (lengths != bytes_each).any():
            return "offsets that do not fit the pictures"
        if self.first_byte + size > file_size:
            return f"a file that ends {self.first_byte + size - file_size} bytes too early"
        if not 0 <= self.labels.min() <= self.labels.max() < classes:
            return f"labels from {self.labels.min()} to {self.labels.max()} for {classes} classes"
        return ""


def _texts(group, name):
    return [value.decode("utf-8", "surrogateescape") for value in group.texts(name, (None,), MOST_TEXTS).tolist()]


# ------------------------------------------------------------------------------------------------------------ writing
def create(path, about, classes, mean_image, parts):
    """Write a packed data set whose pictures are still missing; returns {part: byte of the file where they begin}.

    about        the file's attributes; `size` and `encoding` are among them
    mean_image   float32 (3,S,S)
    parts        {"train": facts, "val": facts}, facts being the dict of lengths (n,), checksums (n,), labels (n,) and the
                 lists names and left_out

    Raises OSError where the disk refuses."""
    begins, writes = {}, _Writes()
    with signals_held(), h5py.File(writes, "w", libver=LIBVER) as file:
        file.attrs.update({key: np.bytes_(value.encode(errors="surrogateescape")) if isinstance(value, str) else value
                           for key, value in {"format": FORMAT, "version": VERSION, **about}.items()})
        _write_texts(file, "classes", classes)
        write_array(file, "mean_image", mean_image)
        for part, facts in parts.items():
            group, lengths = file.create_group(part), np.asarray(facts["lengths"], np.int64)
            write_array(group, "offsets", np.concatenate([[0], lengths.cumsum()]))
            write_array(group, "checksums", np.asarray(facts["checksums"], np.uint32))
            write_array(group, "labels", np.asarray(facts["labels"], np.int64))
            _write_texts(group, "names", facts["names"])
            _write_texts(group, "left_out", facts["left_out"])
            raw = (len(lengths), about["size"], about["size"], 3)
            begins[part] = _make_room(group, raw if about["encoding"] == "raw" else (int(lengths.sum()),))
    with open(path, "wb", opener=opener) as file:
        writes.repeat(file)
    return begins


class _Writes:
    """A file for HDF5 to write to, which only remembers what was written where. HDF5 2.0 ends the process when a disk is
    full as it closes a file, whereas Python raises OSError; and what is never written, the pictures, takes no memory."""

    def __init__(self):
        self.done, self.size, self.at = [], 0, 0

    def seek(self, offset, whence=os.SEEK_SET):
        self.at = offset + (self.size if whence == os.SEEK_END else 0)
        return self.at

    def tell(self):
        return self.at

    def write(self, data):
        self.done.append((self.at, bytes(data)))
        self.at += len(data)
        self.size = max(self.size, self.at)
        return len(data)

    def read(self, length):
        here = np.zeros(length, np.uint8)
        for begin, data in self.done:                      # a later write covers an earlier one
            low, high = max(begin, self.at), min(begin + len(data), self.at + length)
            if low < high:
                here[low - self.at:high - self.at] = np.frombuffer(data, np.uint8)[low - begin:high - begin]
        self.at += length
        return here.tobytes()

    def truncate(self, size):
        self.size = size

    def flush(self):
        pass

    def repeat(self, file):
        """Write the same to a real file, with holes between."""
        for begin, data in self.done:
            file.seek(begin)
            file.write(data)
        file.truncate(self.size)


def _make_room(group, shape):
    """The dataset `pictures`, whose bytes are written later; returns the byte of the file where they will begin."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return group.create_dataset("pictures", shape, np.uint8, dcpl=how).id.get_offset()


def _write_texts(group, name, texts):
    """Strings of a fixed width lie in the dataset, where its checksum covers them; compression undoes the padding."""
    encoded = [text.encode(errors="surrogateescape") for text in texts]
    width = max(map(len, encoded), default=1) or 1
    array = np.array(encoded, h5py.string_dtype("utf-8", width))
    write_array(group, name, array, compressed=True)
