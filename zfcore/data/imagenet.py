"""ILSVRC2012 as people have it, read in place: nothing need be unpacked, moved or renamed.

    ROOT/train/<synset>/*.JPEG       or  ROOT/ILSVRC2012_img_train.tar, a tar of 1000 tars <synset>.tar
    ROOT/val/ILSVRC2012_val_*.JPEG   or  ROOT/ILSVRC2012_img_val.tar, or val/<synset>/*.JPEG
    ROOT/ILSVRC/Data/CLS-LOC/...     the same two folders where Kaggle's archive has them

Flat validation pictures do not tell their class. It is read from the first of these lists that is found in ROOT, ROOT/val,
or a folder of the devkit:

    imagenet_2012_validation_synset_labels.txt   a synset a line; line n belongs to ILSVRC2012_val_<n>.JPEG
    LOC_val_solution.csv                         Kaggle's, "ILSVRC2012_val_00000001,n01751748 111 108 441 193 "
    ILSVRC2012_validation_ground_truth.txt       the devkit's, a number a line, and meta.mat, which says which class it is
    ILSVRC2012_devkit_t12.tar.gz                 the devkit as it comes

The devkit's numbers (ILSVRC2012_ID) do not follow the order of the synsets' names: without meta.mat they mean nothing, and a
set that took them for that order would train well and test at chance. So they are refused without it. meta.mat is a MAT-file
of level 5; the one array of structures that is needed of it is read here.

Class names are those of classes.txt, else the first synonym in LOC_synset_mapping.txt or synset_words.txt.
"""
import os
import posixpath
import re
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

from zfcore.check import Expected
from zfcore.data.folders import BROKEN, PARTS, Folder, Tar, data_sets, members_of, read_names, some
from zfcore.files import read_bytes, read_text, unfolded
from zfcore.terminal import counted

TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
SYNSETS, SOLUTION = "imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv"
GROUND_TRUTH, META, DEVKIT = "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "ILSVRC2012_devkit_t12.tar.gz"
DEVKIT_FOLDERS = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data")
FLAT = re.compile(r"ILSVRC2012_val_(\d{8})(\.JPEG)?")
SYNSET = re.compile(r"n\d{8}")


def looks_like_imagenet(root):
    """Return whether the folder `root` has one of the layouts above that are not plain class folders."""
    root = Path(root)
    try:
        flat = any(FLAT.match(entry.name) for entry in os.scandir(root/"val"))
    except OSError:                                        # no folder, or one whose trouble `open_folders` tells
        flat = False
    return (flat or any((root/tar).is_file() for tar in TARS.values()) or any((root/inside).is_dir() for inside in KAGGLE))


def open_imagenet(root, limit_per_class=0, shorter_side=None):
    """(train, val) of the set at `root`; arguments, data sets and errors are those of `zfcore.data.folders.open_folders`."""
    place = next((place for inside in KAGGLE if (place := Path(root, inside)).is_dir()), Path(root))
    folders = _folders_of_lists(place)
    try:
        places = {part: _find_part(place, part) for part in PARTS}
        listings = {part: source.classes(prefix) for part, (source, prefix) in places.items()}
        listings["val"] = _labelled(f"{place}: val", listings["val"], folders)
        names = _class_names(folders)
    except OSError as error:
        raise Expected(root, "a folder that can be read", f"{error.strerror} ({error.filename})") from None
    return data_sets(place, places, listings, names, limit_per_class, shorter_side)


def _find_part(place, part):
    """(source, prefix) of one part."""
    tar = place/TARS[part]
    if (place/part).is_dir():
        return Folder(place), part + "/"
    if not tar.is_file():
        raise Expected(place, f"a folder {part} or {tar.name}", some(sorted(os.listdir(place))))
    source = TarOfTars(tar) if part == "train" else Tar(tar)
    return source, source.around(part)


class TarOfTars(Tar):
    """An uncompressed tar of uncompressed tars <class>.tar: picture <name> of one is <class>/<name>, read by its offset
    in the outer file. The 1.3 million headers of ImageNet are read one by one, hence the bar."""

    def _index(self, file):
        inner = {posixpath.basename(member.name)[:-len(".tar")]: member.offset_data
                 for member in members_of(self.path, file) if member.isreg() and member.name.endswith(".tar")}
        for folder, start in counted(inner.items(), "class", f"looking through {self.path.name}"):
            self.directories.add(folder)
            for member in members_of(f"{self.path}: {folder}.tar", file, start):
                self._enter(member, f"{folder}/{posixpath.basename(member.name)}")


# ------------------------------------------------------------------------------------------- lists beside the pictures
def _folders_of_lists(place):
    """Folders in which the lists may lie: at the pictures, where Kaggle's archive has them, and in the devkit's folder."""
    place = Path(os.path.abspath(place))
    tops = [place, place.parents[1], place.parents[2]] if place.parts[-2:] == ("Data", "CLS-LOC") else [place]
    return [top/inside for top in tops for inside in ("", "val", *DEVKIT_FOLDERS)]


def _find(name, folders):
    return next((path for folder in folders if (path := folder/name).is_file()), None)


def _text(path):
    return read_text(path)


def _class_names(folders):
    if path := _find("classes.txt", folders):
        return read_names(path)
    path = _find("LOC_synset_mapping.txt", folders) or _find("synset_words.txt", folders)
    return {synset: words.split(",")[0] for synset, words in read_names(path).items()} if path else {}


def _labelled(what, listing, folders):
    """The listing of the validation part with its flat pictures in the classes that a list in one of `folders` gives them."""
    flat = sorted(path for path in listing.get("", []) if FLAT.match(path))
    if not flat:
        return listing                                     # class folders
    if len(listing) > 1:
        raise Expected(what, "flat pictures or class folders", f"both, {some(flat, 1)} and "
                       f"{some(sorted(listing.keys() - {''}), 1)}", "finish sorting them into folders, or undo it")
    path, synsets = _validation_synsets(what, folders)
    listing = {}
    for name in flat:
        number = int(FLAT.match(name)[1])
        if number not in synsets:
            raise Expected(path, "the class of every validation picture", f"none of {name}")
        listing.setdefault(synsets[number], []).append(name)
    return listing


def _validation_synsets(what, folders):
    """(path of the list, {number of a validation picture: its synset})."""
    if path := _find(SYNSETS, folders):
        found = dict(enumerate(_text(path).split(), 1))
    elif path := _find(SOLUTION, folders):
        rows = (row.partition(",") for row in _text(path).splitlines())
        found = {int(picture[1]): boxes.split(maxsplit=1)[0] for name, _, boxes in rows
                 if (picture := FLAT.fullmatch(name)) and boxes.strip()}
    elif (path := _find(GROUND_TRUTH, folders)) and (meta := _find(META, [path.parent, *folders])):
        found = _by_number(path, _text(path), meta, read_bytes(meta, MOST))
    elif archive := _find(DEVKIT, folders):
        path, found = archive, _by_number(archive, *_devkit(archive))
    elif path:
        raise Expected(path, f"{META} of the devkit beside it, which tells what its numbers mean", "none",
                       f"copy it there, or put {SYNSETS} or {DEVKIT} into {folders[0]}")
    else:
        raise Expected(what, f"class folders, or labels of the flat pictures in {SYNSETS}, {SOLUTION}, {GROUND_TRUTH} with "
                       f"{META}, or {DEVKIT}", f"none of these in {', '.join(map(str, folders))}")
    wrong = next((synset for synset in found.values() if not SYNSET.fullmatch(synset)), None)
    if wrong is not None or not found:
        raise Expected(path, "a synset such as n01440764 for every validation picture",
                       "none" if wrong is None else repr(wrong))
    return path, found


def _devkit(path):
    """(text of the ground truth, name and bytes of meta.mat) in the devkit's archive."""
    found = {}
    try:
        with unfolded(path, MOST_DEVKIT) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if (name := posixpath.basename(member.name)) in (GROUND_TRUTH, META) and member.isreg():
                    found[name] = archive.extractfile(member).read()
    except (*BROKEN, EOFError, zlib.error, OSError) as error:
        raise Expected(path, "a whole archive", f"one cut short or damaged ({error})", "copy it again") from None
    if len(found) < 2:
        raise Expected(path, f"{GROUND_TRUTH} and {META} in it", some(sorted(found)) if found else "neither")
    return found[GROUND_TRUTH].decode("ascii", "replace"), f"{path}: {META}", found[META]


def _by_number(path, ground_truth, meta, contents):
    """{number of a validation picture: synset} after the devkit's ground truth, one ILSVRC2012_ID a line."""
    try:
        synsets = _synsets(contents)
    except Exception as error:                             # a broken file may say anything: lengths, types, counts
        raise Expected(meta, f"the devkit's {META}", f"another file or a damaged one ({error})") from None
    found = {}
    for number, line in enumerate(ground_truth.split(), 1):
        if not line.isdecimal() or int(line) not in synsets:
            raise Expected(path, f"an ILSVRC2012_ID that {META} has in every line", f"{line!r} in line {number}")
        found[number] = synsets[int(line)]
    return found


# ---------------------------------------------------------------------------------------------------------- meta.mat
# A MAT-file of level 5 ("MAT-File Format", The MathWorks, chapter 1): after 128 bytes of header come data elements, each a
# type, a length and contents. An array is an element whose contents are elements again: flags, dimensions, name, then for an
# array of structures the width and the list of field names and one array for each field of each structure.
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8", 16: "<u1"}
MOST = 2**24                                               # bytes of meta.mat unfolded; the devkit's has half a million
MOST_DEVKIT = 2**27                                        # of all that is in its archive


def _synsets(data):
    """{ILSVRC2012_ID: WNID} of the array of structures `synsets` in the bytes of a MAT-file."""
    if data[126:128] != b"IM":
        raise ValueError("no MAT-file of level 5, low byte first")
    for kind, array in _elements(data[128:]):
        if kind == MATRIX and (inside := [contents for _, contents in _elements(array)])[2] == b"synsets":
            width, fields, cells = int.from_bytes(inside[3], "little"), inside[4], inside[5:]
            fields = [fields[k:k + width].rstrip(b"\0") for k in range(0, len(fields), width)]
            numbers, wnids = (cells[fields.index(field)::len(fields)] for field in (b"ILSVRC2012_ID", b"WNID"))
            return {int(_values(n)[0]): "".join(map(chr, _values(w).tolist())) for n, w in zip(numbers, wnids, strict=True)}
    raise ValueError("no array `synsets`")


def _elements(data, folded=True):
    """The elements (type, contents) that follow one another in `data`; those that are `folded` hold no folded ones."""
    at, elements = 0, []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        begin, next_at = at + 8, at + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:                                     # up to 4 bytes lie in the place of the length
            kind, size, begin, next_at = kind & 0xffff, kind >> 16, at + 4, at + 8
        contents, at = data[begin:begin + size], next_at
        if len(contents) < size:
            raise ValueError("it is cut short")
        if kind == COMPRESSED and not folded:
            raise ValueError("compressed data in compressed data")
        elements += ([(kind, contents)] if kind != COMPRESSED else
                     _elements(zlib.decompressobj().decompress(contents, MOST), False))
    return elements


def _values(cell):
    """The numbers, or codes of the characters, of the contents of an array."""
    kind, contents = _elements(cell)[3]
    return np.frombuffer(contents, NUMBERS[kind])
