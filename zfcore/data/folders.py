"""Class folders as everybody keeps them, read in place.

    ROOT/train/<class>/*.JPEG       folders; what lies deeper below a class folder belongs to it too
    ROOT/val/<class>/*.JPEG
    ROOT/train.tar, ROOT/val.tar    uncompressed tars, members <class>/<name> or train/<class>/<name>
    ROOT.tar, or the only tar       one uncompressed tar of both, members train/<class>/<name> and val/<class>/<name>,
    in the folder ROOT              with or without one folder around them

A data set of zfcore is any object with
    classes     list of str, the readable class names
    labels      int64 (n,), numbers into `classes`
    names       list of n str, one for each picture
    len()       n
    picture(i)  PIL picture number i, mode RGB; raises `transforms.CorruptImage` where it cannot be used
and, if its mean image is worth keeping on disk, `fingerprint()`, a str that changes when a picture may have changed.
"""
import hashlib
import os
import posixpath
import tarfile
import weakref
from collections import Counter
from pathlib import Path

import numpy as np

from zfcore.check import Expected
from zfcore.data.transforms import MOST_BYTES, SUFFIXES, CorruptImage, decode
from zfcore.files import Bounded, opener, read_bytes, read_text
from zfcore.system import read_at

PARTS = ("train", "val")
MOST_HEADER = 2**20                               # bytes of a name in a tar
BROKEN = tarfile.TarError, RecursionError, ValueError, OverflowError        # what a tar answers with that is none


def open_folders(root, limit_per_class=0, shorter_side=None):
    """The two parts (train, val) of the set at `root`, a folder or a tar.

    Classes are the sorted folder names of train; a file classes.txt beside the parts ("n01440764 tench" a line) gives them
    readable names. Pictures are sorted by class, then by name; of each class the first `limit_per_class` are taken (0: all).
    `shorter_side` is the size they will be brought to, so that far larger JPEGs are decoded at reduced scale
    (`transforms.decode`). Raises Expected, one sentence, for whatever is missing, empty or inconsistent."""
    root = Path(root)
    try:
        places = _find_parts(root)
        listings = {part: source.classes(prefix) for part, (source, prefix) in places.items()}
    except OSError as error:
        raise Expected(root, "a folder or tar that can be read", f"{error.strerror} ({error.filename})") from None
    names = read_names((root if root.is_dir() else root.parent) / "classes.txt")
    return data_sets(root, places, listings, names, limit_per_class, shorter_side)


def data_sets(root, places, listings, names, limit_per_class, shorter_side):
    """(train, val) out of places {part: (source, prefix)} and what they hold, listings {part: {class folder: paths}}, with
    names {class folder: readable name} for as many classes as have one. Raises Expected where the listings do not fit."""
    if limit_per_class < 0:
        raise Expected("--limit-per-class", "0 (all) or more", limit_per_class)
    listings = {part: checked(f"{root}: {part}", listings[part]) for part in PARTS}
    folders = sorted(listings["train"])
    if len(folders) < 2:
        raise Expected(f"{root}: train", "at least two classes", f"only {folders[0]!r}")
    strange = sorted(set(listings["val"]) - set(folders))
    if strange:
        raise Expected(f"{root}: val", "only classes that train has", some(strange))
    classes = told_apart([names.get(folder) or folder for folder in folders], folders)
    return tuple(ClassFolders(part, *places[part], classes, [listings[part].get(folder, []) for folder in folders],
                              limit_per_class, shorter_side) for part in PARTS)


class PictureFiles:
    """Pictures in a folder or tar, read where they lie: a data set as above but for its classes and labels."""

    def __init__(self, part, source, prefix, paths, shorter_side):
        """Picture i is called <part>/<path>; `source` knows it as <prefix><path>."""
        self.names, self.shorter_side = [f"{part}/{path}" for path in paths], shorter_side
        self._source, self._prefix, self._skip = source, prefix, len(part) + 1

    def __len__(self):
        return len(self.names)

    def read(self, i):
        """The bytes of picture i's file."""
        try:
            return self._source.read(self._path(i))
        except OSError as error:
            raise CorruptImage(self.names[i], error.strerror or str(error), lasting=False) from None

    def picture(self, i):
        return decode(self.names[i], self.read(i), self.shorter_side)

    def fingerprint(self):
        """A digest of every picture's name, size and time of change, and of what decides how it is decoded."""
        digest = hashlib.sha256(f"{self.shorter_side} {self._source.stamp()}".encode())
        for i, name in enumerate(self.names):
            digest.update(f"\n{name}\0{self._source.stamp(self._path(i))}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _path(self, i):
        return self._prefix + self.names[i][self._skip:]


class ClassFolders(PictureFiles):
    """One part of a set of class folders: a data set as above. Made by `open_folders`."""

    def __init__(self, part, source, prefix, classes, paths, limit_per_class, shorter_side):
        """`paths`: for each class its pictures as <class folder>/<name>, which `source` knows with `prefix` before them."""
        taken = [of_class[:limit_per_class or None] for of_class in paths]
        super().__init__(part, source, prefix, [path for of_class in taken for path in of_class], shorter_side)
        self.classes = classes
        self.labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in taken])


# ---------------------------------------------------------------------------------------- where the parts lie
def _find_parts(root):
    """{"train": (source, prefix), "val": (source, prefix)}; what the prefix is put before is <class>/<name>."""
    if root.is_file():
        return _parts_of_one_tar(root)
    if not root.is_dir():
        raise Expected("--data", "a folder or a tar", f"{root}, which does not exist")
    found = {}
    for part in PARTS:
        if (root / part).is_dir():
            found[part] = Folder(root), part + "/"
        elif (root / f"{part}.tar").is_file():
            tar = Tar(root / f"{part}.tar")
            found[part] = tar, tar.around(part)
    if len(found) == len(PARTS):
        return found
    there = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    tars = [name for name in there if name.lower().endswith(".tar")]
    if not found and len(tars) == 1:
        return _parts_of_one_tar(root / tars[0])
    raise Expected(root, "folders train and val, or train.tar and val.tar, or one tar that holds both",
                   some(there) if there else "an empty folder")


def _parts_of_one_tar(path):
    tar = Tar(path)
    tops = {name.split("/")[0] for name in tar.members}
    outer = "" if len(tops) != 1 or tops & set(PARTS) else f"{tops.pop()}/"
    for part in PARTS:
        if not any(name.startswith(f"{outer}{part}/") for name in tar.members):
            raise Expected(path, f"members {part}/<class>/<name>", some(sorted(tar.members)) if tar.members else "none")
    return {part: (tar, f"{outer}{part}/") for part in PARTS}


def checked(what, listing):
    """`listing` without the pictures that lie in no class folder, such as a contact sheet beside the folders."""
    outside = listing.pop("", [])
    if not listing:
        raise Expected(what, "class folders with pictures in them",
                       f"pictures without a class folder: {some(sorted(outside))}" if outside else "nothing")
    empty = sorted(folder for folder, paths in listing.items() if not paths)
    if empty:
        raise Expected(what, "pictures in every class folder", f"none in {some(empty)}",
                       "pictures are files named " + " ".join(sorted(SUFFIXES)))
    return listing


def some(names, most=3):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def read_names(table):
    """{class folder: readable name} after the file `table`, "n01440764 tench" a line; {} where there is none."""
    lines = read_text(table).splitlines() if table.is_file() else []
    return {folder: name.strip() for folder, _, name in (line.strip().partition(" ") for line in lines)}


def told_apart(classes, folders):
    """`classes`, those of one name (ImageNet has two cranes) with their folder's name behind it."""
    times = Counter(classes)
    return [name if times[name] == 1 else f"{name} ({folder})" for name, folder in zip(classes, folders)]


def is_picture(path):
    return posixpath.splitext(path)[1].lower() in SUFFIXES and not path.startswith(".") and "/." not in path


# -------------------------------------------------------------------------------- sources: a folder or a tar
# Paths inside a source are written with "/". `classes(prefix)` gives {class folder: sorted paths <class folder>/<name>},
# class folders without pictures too, and under "" the pictures that lie in none. `files(prefix)` are the names that lie
# directly below it, in no order.

class Folder:
    def __init__(self, path):
        self.path = path

    def files(self, prefix):
        place = os.path.join(self.path, prefix)
        return [entry.name for entry in os.scandir(place) if entry.is_file()] if os.path.isdir(place) else []

    def classes(self, prefix):
        top, listing = os.path.join(self.path, prefix), {}
        for entry in os.scandir(top):
            if entry.is_dir() and not entry.name.startswith("."):
                listing[entry.name] = sorted(self._pictures_below(top, entry.name))
            elif is_picture(entry.name):
                listing.setdefault("", []).append(entry.name)
        return listing

    def _pictures_below(self, top, folder):
        def refuse(error):
            raise error                           # os.walk would take a folder that may not be read for an empty one

        for place, _, files in os.walk(os.path.join(top, folder), onerror=refuse):
            inside = place[len(top):].replace(os.sep, "/")
            yield from (path for path in (f"{inside}/{name}" for name in files) if is_picture(path))

    def read(self, path):
        return read_bytes(os.path.join(self.path, path), MOST_BYTES)

    def stamp(self, path=""):
        try:
            status = os.stat(os.path.join(self.path, path))
        except OSError as error:
            return error.strerror
        return f"{status.st_size} {status.st_mtime_ns}" if path else ""


class Tar:
    """An uncompressed tar: its headers are read once, its members by offset at any time and from any thread."""

    def __init__(self, path, wanted=is_picture):
        """`wanted(name)` says of which files the places are kept."""
        self.path, self.wanted = path, wanted
        self.members = {}                         # file -> (offset, size, time); a later member of one name replaces it
        self.directories = set()
        with open(path, "rb", opener=opener) as file:
            self._index(file)
        self._file = opener(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def _index(self, file):
        for member in members_of(self.path, file):
            self._enter(member, posixpath.normpath(member.name).lstrip("/"))

    def _enter(self, member, name):
        if member.isdir():
            self.directories.add(name)
        elif not self.wanted(name):
            return
        elif member.isreg():
            self.members[name] = member.offset_data, member.size, member.mtime
        elif member.islnk() and (linked := posixpath.normpath(member.linkname).lstrip("/")) in self.members:
            self.members[name] = self.members[linked]

    def around(self, part):
        """The prefix of <class>/<name> in a tar of one part: "train/" where all pictures lie below train/, else ""."""
        wrapped = self.members and all(name.startswith(f"{part}/") for name in self.members)
        return f"{part}/" if wrapped else ""

    def files(self, prefix):
        below = (name[len(prefix):] for name in self.members if name.startswith(prefix))
        return [name for name in below if "/" not in name]

    def classes(self, prefix):
        listing = {}
        for directory in self.directories:
            if directory.startswith(prefix):
                folder = directory[len(prefix):].split("/")[0]
                if not folder.startswith("."):
                    listing[folder] = []
        for name in self.members:
            if name.startswith(prefix):
                folder, slash, _ = name[len(prefix):].partition("/")
                listing.setdefault(folder if slash else "", []).append(name[len(prefix):])
        for paths in listing.values():
            paths.sort()
        return listing

    def read(self, path):
        offset, size, _ = self.members[path]
        if size > MOST_BYTES:
            raise OSError(f"{size} bytes, more than the {MOST_BYTES} that such a file may have")
        data = read_at(self._file, size, offset)
        if len(data) < size:
            raise OSError("the tar ends inside it")
        return data

    def stamp(self, path=""):
        status = os.stat(self.path)
        return " ".join(map(str, self.members[path])) if path else f"{status.st_size} {status.st_mtime_ns}"


def members_of(what, file, start=0):
    """Yield the members of the uncompressed tar that begins at byte `start` of `file`. Where it is none, cut short or
    damaged, Expected is raised, calling it `what`."""
    file.seek(start)
    try:
        tar = tarfile.open(fileobj=Bounded(file, at_once=MOST_HEADER), mode="r:")
    except (*BROKEN, OSError) as error:
        raise Expected(what, "an uncompressed tar", f"a file that is none ({error})",
                       "decompress it if it is a .tar.gz") from None
    try:
        for member in tar:
            tar.members.clear()                   # tarfile would keep them all, a kilobyte each
            yield member
    except (*BROKEN, OSError) as error:
        raise Expected(what, "a whole tar", f"one cut short or damaged ({error})", "copy it again") from None
    file.seek(tar.offset)                         # tarfile takes a damaged header for the end; a real end is all zeros
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Expected(what, "a whole tar", f"one cut short or damaged at byte {tar.offset}", "copy it again")
