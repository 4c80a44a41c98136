"""Class folders as everybody keeps them, read in place.

    ROOT/train/<class>/*.JPEG       folders; what lies deeper below a class folder belongs to it too
    ROOT/val/<class>/*.JPEG
    ROOT/<class>/*.JPEG             no parts: split by name and by likeness (zfcore/data/split.py)
    ROOT/*.JPEG                     no classes: for what asks for none
    ROOT/train.tar, ROOT/val.tar    uncompressed tars, members <class>/<name> or train/<class>/<name>
    ROOT.tar, or the only tar       one uncompressed tar of any of these, members such as train/<class>/<name>,
    in the folder ROOT              with or without one folder around them

Parts may also be called `training`, and `valid`, `validation`, `test` or `testing` (the first of these that is there), in small
letters or not, and lie one folder deeper. Hidden files and folders, and those of systems (SYSTEM), count neither as pictures
nor as classes. Linked folders are followed, each once within a class. Class folders whose names differ in their Unicode form
alone are one. What is understood, followed, taken for one or left out is said, a line each, on standard error. A picture is
called by its path below ROOT, where a person finds it; in a tar with parts, which nobody opens there, <part>/<class>/<name>.

What they are opened as is a data set as `zfcore.data.loader.DataSet` says.
"""
import hashlib
import os
import posixpath
import re
import tarfile
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from zfcore.check import Expected
from zfcore.data.loader import BuiltIn
from zfcore.data.split import split
from zfcore.data.transforms import HAS_HEIF, HEIF, MOST_BYTES, SUFFIXES, CorruptImage, decode
from zfcore.files import Bounded, OpenFile, inside, opener, read_bytes, read_text, said
from zfcore.terminal import plural, printable, warn_once

PARTS = ("train", "val")
CALLED = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test", "testing")}
VAL_FRACTION = 0.1                                # of the pictures of a set without parts
SYSTEM = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "icon\uf00d", "$recycle.bin",
                    "recycler",
                    "system volume information", "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle",
                    "@recently-snapshot", "__pycache__", "lost+found"))
LIST = "classes.txt"
SEPARATOR = re.compile(r"\s*\t\s*|(?:\s*[,;]\s*|[^\S\t]+)(?!.*\t)")             # a tab, and where there is none another
MOST_HEADER = 2**20                               # bytes of a name in a tar
BROKEN = tarfile.TarError, RecursionError, ValueError, OverflowError        # what a tar answers with that is none


def open_folders(root, limit_per_class=0, shorter_side=None, val_fraction=VAL_FRACTION):
    """The two parts (train, val) of the set at `root`, a folder or a tar.

    Classes are the sorted folder names of train; a file classes.txt beside the parts ("n01440764 tench" a line) gives them
    readable names. Pictures are sorted by class, then by name; of each class the first `limit_per_class` are taken (0: all).
    `shorter_side` is the size they will be brought to, so that far larger JPEGs are decoded at reduced scale
    (`transforms.decode`). Of a set without parts, `val_fraction` is for validation; None: all of it, as of a set that has only
    that part, and pictures without class folders will do: train is empty then. Raises Expected, one sentence, for whatever is
    missing, empty or inconsistent."""
    root = Path(root)
    try:
        places = _find_parts(root)
        listings = {part: source.classes(prefix) for part, (source, prefix) in places.items()}
    except OSError as error:
        raise Expected(root, "a folder or tar that can be read", f"{error.strerror} ({error.filename})") from None
    for line in _left_out(root, places, listings):
        say(line)
    names = _names_beside(root, places)
    if "" in listings.get("all", {}) and len(listings["all"]) == 1 and val_fraction is None:
        return _without_classes(*places["all"], listings["all"][""], limit_per_class, shorter_side)
    if set(listings) == set(PARTS):
        return data_sets(root, places, listings, names, limit_per_class, shorter_side)
    (part, place), = places.items()
    of_part = checked(f"{root}: {part}" if part in PARTS else root, listings[part])
    folders = sorted(of_part)
    classes = told_apart([names.get(folder) or folder for folder in folders], folders)
    if val_fraction is None and part != "train":           # all that there is
        return tuple(ClassFolders(called, *place, classes, [of_part[folder] if called == "val" else [] for folder in folders],
                                  limit_per_class, shorter_side, _above(part, *place)) for called in PARTS)
    if part == "val":
        raise Expected(root, "a folder or tar train beside it, or class folders", f"only {place[1].rstrip('/')!r}")
    if len(folders) < 2:
        raise Expected(root, "at least two classes", f"only {folders[0]!r}")
    return _split(root, part, place, classes, [of_part[folder] for folder in folders], limit_per_class, shorter_side,
                  VAL_FRACTION if val_fraction is None else val_fraction)


def _split(root, part, place, classes, paths, limit_per_class, shorter_side, val_fraction):
    """(train, val) of the pictures `paths` of each class; `part` is "train" where that alone is there, else "all"."""
    whole = ClassFolders("train", *place, classes, paths, 0, None, _above("all", *place))
    is_val = split(root, whole, val_fraction, say, "part val" if part == "train" else "parts train and val")
    ends = np.cumsum([0, *map(len, paths)])
    return tuple(ClassFolders(part, *place, classes,
                              [[path for path, val in zip(of_class, is_val[begin:]) if val == (part == "val")]
                                                      for of_class, begin in zip(paths, ends)], limit_per_class, shorter_side,
                              _above("all", *place))
                 for part in PARTS)


def _without_classes(source, prefix, paths, limit, shorter_side):
    """(nothing, the pictures `paths`), two data sets without classes."""
    sets = [PictureFiles(part, source, prefix, taken, shorter_side, _above("all", source, prefix))
            for part, taken in zip(PARTS, ([], paths[:limit or None]))]
    for dataset in sets:
        dataset.classes, dataset.labels = [], np.zeros(len(dataset), np.int64)
    return tuple(sets)


def _above(part, source, prefix):
    """Path that pictures of a part, or of "all", have before <class folder>/<name> in their names."""
    return prefix if part == "all" or isinstance(source, Folder) else f"{part}/"


def say(line):
    """Tell the user, on standard error, what was understood or left out; a command that opens it twice, once."""
    warn_once(printable(line))


def _left_out(root, places, listings):
    """The lines that tell which names were understood, which folders linked from elsewhere, and which files are not taken."""
    understood = [f"{prefix.rstrip('/')!r} is taken for {part}" for part, (_, prefix) in places.items()
                  if part in PARTS and prefix and prefix.rstrip("/") != part]
    understood += [f"its pictures lie in {prefix.rstrip('/')!r}" for part, (_, prefix) in places.items() if part == "all"
                   and prefix]
    if understood:
        yield f"{root}: {', '.join(understood)}"
    if beside := _beside(places):
        yield f"{root}: folders beside the parts are left alone: {some(beside)}"
    sources = {id(source): source for source, _ in places.values()}.values()
    if links := [link for source in sources for link in source.links]:
        yield f"{root}: {plural(len(links), 'linked folder')} followed: {some(links)}"
    if loops := [loop for source in sources for loop in source.loops]:
        yield f"{root}: {plural(len(loops), 'link')} to folders looked into before passed over: {some(loops)}"
    for names in (names for source in sources for names in source.forms.values() if len(names) > 1):
        yield f"{root}: class folders {' and '.join(map(ascii, sorted(names)))}, which look alike, are taken for one class"
    suffixes = sum((source.left_out for source in sources), Counter())
    left = [f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common()]
    outside = sum(len(listing.get("", [])) for listing in listings.values() if len(listing) > 1)
    left += [f"{plural(outside, 'picture')} outside of class folders"] if outside else []
    if left:
        yield f"{root}: left out {', '.join(left)}{how_to_read(suffixes)}"


def _beside(places):
    """The folders that lie beside those of the parts."""
    used = {prefix.rstrip("/"): source for part, (source, prefix) in places.items() if part in PARTS and prefix}
    above = {posixpath.dirname(folder): source for folder, source in used.items()}
    return sorted(path for top, source in above.items() for name in source.folders(f"{top}/" if top else "")
                  if (path := posixpath.join(top, name)) not in used and f"{name}.tar" not in used)


def how_to_read(suffixes):
    """Advice on what would read files of these `suffixes` that are not read here, as the end of a sentence; empty where nothing
    would."""
    if HEIF & set(suffixes) and not HAS_HEIF:
        return '; pip install pillow-heif reads HEIC pictures'
    return "; a newer Pillow reads AVIF pictures" if ".avif" in suffixes else ""


def data_sets(root, places, listings, names, limit_per_class, shorter_side):
    """(train, val) out of places {part: (source, prefix)} and what they hold, listings {part: {class folder: paths}}, with
    names {class folder: readable name} for as many classes as have one. Raises Expected where the listings do not fit."""
    suffixes = [suffix for source, _ in places.values() for suffix in source.left_out]
    listings = {part: checked(f"{root}: {part}", listings[part], suffixes) for part in PARTS}
    folders = sorted(listings["train"])
    if len(folders) < 2:
        raise Expected(f"{root}: train", "at least two classes", f"only {folders[0]!r}")
    strange = sorted(set(listings["val"]) - set(folders))
    if strange:
        raise Expected(f"{root}: val", "only classes that train has", some(strange))
    classes = told_apart([names.get(folder) or folder for folder in folders], folders)
    return tuple(ClassFolders(part, *places[part], classes, [listings[part].get(folder, []) for folder in folders],
                              limit_per_class, shorter_side, _above(part, *places[part])) for part in PARTS)


class PictureFiles(BuiltIn):
    """Pictures in a folder or tar, read where they lie: a data set as above but for its classes and labels."""

    def __init__(self, part, source, prefix, paths, shorter_side, above=None):
        """Picture i is called <above><path>, or else <part>/<path>; `source` knows it as <prefix><path>."""
        above = f"{part}/" if above is None else above
        self.names, self.shorter_side = [f"{above}{path}" for path in paths], shorter_side
        self._part, self._source, self._prefix, self._skip = part, source, prefix, len(above)

    def __len__(self):
        return len(self.names)

    def below(self, i):
        """The path of picture i below its part, which is the same wherever and under whatever name that lies."""
        return self.names[i][self._skip:]

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
        for i in range(len(self)):
            digest.update(f"\n{self._known_as(i)}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def length(self, i):
        """The bytes of picture i's file, None where that is gone."""
        return self._source.length(self._path(i))

    def stamp(self, i):
        """16 bytes that are others when picture i's name, size or time of change is."""
        return hashlib.sha256(self._known_as(i).encode(errors="surrogateescape")).digest()[:16]

    def _known_as(self, i):
        return f"{self._part}/{self.below(i)}\0{self._source.stamp(self._path(i))}"

    def _path(self, i):
        return self._prefix + self.below(i)


class Files(BuiltIn):
    """Picture files as a data set whose classes nobody knows: a file by its path, a folder for all pictures below it, but those
    that are `written` there by zfcore. Raises Expected for what is neither, and for folders without pictures."""

    def __init__(self, paths, shorter_side=None, written=lambda path: False):
        self.names, self.classes = [name for path in paths for name in _names_at(str(path), written)], []
        self.shorter_side = shorter_side
        self.labels = np.zeros(len(self.names), np.int64)

    def __len__(self):
        return len(self.names)

    def picture(self, i):
        try:
            return decode(self.names[i], read_bytes(self.names[i], MOST_BYTES), self.shorter_side)
        except OSError as error:
            raise CorruptImage(self.names[i], error.strerror or str(error)) from None


def _names_at(path, written):
    if not os.path.isdir(path):
        if not os.path.lexists(path):
            raise Expected(path or "FILE_OR_FOLDER", "a picture or a folder of pictures",
                           "nothing of that name" if path else "an empty name")
        return [path]
    folder = Folder(path)
    try:
        listing = folder.classes("")
    except OSError as error:
        raise Expected(path, "a folder that can be read", f"{error.strerror} ({error.filename})") from None
    names = sorted((os.path.join(path, name) for of_class in listing.values() for name in of_class), key=in_order)
    names = [name for name in names if not written(name)]
    if not names:
        raise Expected(path, "pictures in it or in folders below it", "none",
                       "pictures are files named " + " ".join(sorted(SUFFIXES)) + how_to_read(folder.left_out))
    for line in _left_out(path, {"all": (folder, "")}, {}):
        say(line)
    return names


class ClassFolders(PictureFiles):
    """One part of a set of class folders: a data set as above. Made by `open_folders`."""

    def __init__(self, part, source, prefix, classes, paths, limit_per_class, shorter_side, above=None):
        """`paths`: for each class its pictures as <class folder>/<name>, which `source` knows with `prefix` before them."""
        taken = [of_class[:limit_per_class or None] for of_class in paths]
        super().__init__(part, source, prefix, [path for of_class in taken for path in of_class], shorter_side, above)
        self.classes = classes
        self.labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in taken])


# ---------------------------------------------------------------------------------------- where the parts lie
def _find_parts(root):
    """{"train": (source, prefix), "val": (source, prefix)}, only one of them, or {"all": ...} of a set without parts; what the
    prefix is put before is <class>/<name>."""
    if root.is_file():
        return _parts_in(root, Tar(root))
    if not root.is_dir():
        raise Expected("--data", "a folder or a tar", f"{root}, which does not exist")
    found = _parts_below(lambda: Folder(root), "")
    for part in PARTS:
        if part not in found and (root / f"{part}.tar").is_file():
            tar = Tar(root / f"{part}.tar")
            found[part] = tar, tar.around(part)
    if found:
        return found
    tars = sorted(name for name in os.listdir(root) if name.lower().endswith(".tar") and not is_system(name))
    folder = Folder(root)
    if len(tars) == 1 and not folder.folders(""):
        return _parts_in(root / tars[0], Tar(root / tars[0]))
    return _parts_in(root, folder)


def _parts_in(path, source):
    """The parts in a source, perhaps one folder deeper, or all of it."""
    inner = source.folders("")
    deeper = f"{inner[0]}/" if len(inner) == 1 and not any(map(is_picture, source.files(""))) else ""
    found = _parts_below(lambda: source, "") or deeper and _parts_below(lambda: source, deeper)
    if found:
        return found
    if deeper and source.folders(deeper) and not any(map(is_picture, source.files(deeper))):
        return {"all": (source, deeper)}
    if inner or any(map(is_picture, source.files(""))):
        return {"all": (source, "")}
    there = source.names()
    raise Expected(path, "class folders with pictures in them, or folders train and val of such, or one tar that holds them",
                   (some(there) + how_to_read({posixpath.splitext(name)[1].lower() for name in there})) if there else "nothing"
                   if isinstance(source, Tar) else "an empty folder")


def _parts_below(source, prefix):
    """{part: (source(), prefix of its classes)} for the folders below `prefix` that are called as a part."""
    there, found = {}, {}
    for name in source().folders(prefix):
        there.setdefault(name.lower(), name)
        there[name] = name                                 # `train` before `Train`
    for part, names in CALLED.items():
        called = next((there[name] for name in names if name in there), None)
        if called is not None:
            found[part] = source(), f"{prefix}{called}/"
    return found


def _names_beside(root, places):
    """{class folder: readable name} of the list beside the parts or classes."""
    beside = root if root.is_dir() else root.parent
    inner = next((prefix for part, (source, prefix) in places.items() if isinstance(source, Folder)), "")
    inner = inner.split("/")[0] if inner.count("/") > 1 or "all" in places else ""
    outer = [beside.parent] if beside.name.lower() in (*CALLED["train"], *CALLED["val"]) else []     # of a part alone
    lists = (folder / LIST for folder in (beside, beside / inner, *outer))
    return read_names(next((table for table in lists if _is_there(table)), beside / LIST))


def checked(what, listing, suffixes=()):
    """`listing` without the pictures that lie in no class folder, such as a contact sheet beside the folders. `suffixes` are
    those of the files that were left out."""
    outside = listing.pop("", [])
    if not listing:
        raise Expected(what, "class folders with pictures in them",
                       f"pictures without a class folder: {some(sorted(outside))}" if outside else "nothing")
    empty = sorted(folder for folder, paths in listing.items() if not paths)
    if empty:
        raise Expected(what, "pictures in every class folder", f"none in {some(empty)}",
                       "pictures are files named " + " ".join(sorted(SUFFIXES)) + how_to_read(suffixes))
    return listing


def some(names, most=3, shown=repr):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def read_names(table):
    """{class folder: readable name} after the file `table`, "n01440764 tench" a line; {} where there is none. Between the two
    stands a tab, or else a space, comma or semicolon; what holds one of these may stand in quotes. Raises Expected for a link
    that leads elsewhere, and for what is no file."""
    names, others = {}, {}
    try:
        lines = read_text(inside(table.parent, table.name)).splitlines() if _is_there(table) else []
    except OSError as error:
        raise Expected(table, "a list of class names, a file", error.strerror) from None
    for line in lines:
        line = nfc(line.strip())
        pairs = [(line[:at.start()], line[at.end():]) for at in SEPARATOR.finditer(line)]
        pairs = [tuple(word.strip().strip('"').strip() for word in pair) for pair in pairs]
        names.update(pairs[:1])
        others.update(pairs[1:])                           # "great owl,a bird": which of them is a folder is not known here
    return {**others, **names}


def _is_there(table):
    """True where something is called like the list that is no folder: a class could be."""
    return os.path.lexists(table) and not os.path.isdir(table)


def told_apart(classes, folders):
    """`classes`, those of one name (ImageNet has two cranes) with their folder's name behind it."""
    times = Counter(classes)
    return [name if times[name] == 1 else f"{name} ({folder})" for name, folder in zip(classes, folders)]


def is_picture(path):
    return posixpath.splitext(path)[1].lower() in SUFFIXES and not is_system(path)


def is_system(path):
    """Return whether a file or folder on the way to `path` is hidden or one of those that systems make for themselves."""
    return any(name[:1] == "." or name[:2] == "~$" or name.lower() in SYSTEM for name in path.split("/"))


def nfc(name):
    """`name` in the Unicode form that is compared: macOS writes another one than others do."""
    return unicodedata.normalize("NFC", name)


def in_order(name):
    """The key by which names are sorted: pictures of one set have one order, in whatever Unicode form a copy has their names."""
    return nfc(name), name


# -------------------------------------------------------------------------------- sources: a folder or a tar
# Paths inside a source are written with "/". `classes(prefix)` gives {class folder: sorted paths <class folder>/<name>},
# class folders without pictures too, and under "" the pictures that lie in none; it counts in `left_out`, by suffix, what are
# no pictures, and lists in `links` the linked folders it went into and in `loops` those it did not, since they were looked into
# before; `forms` has the names of class folders that are taken for one, {prefix and NFC name: names}. `files(prefix)` and
# `folders(prefix)` are the names that lie directly below it, `names()` all that lie directly in the source.

def _is_folder(entry):
    """True for a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


class Folder:
    def __init__(self, path):
        self.path, self.left_out, self.links, self.loops, self.forms = path, Counter(), [], [], defaultdict(set)

    def names(self):
        return sorted((name for name in os.listdir(self.path) if not is_system(name)), key=in_order)

    def files(self, prefix):
        place = os.path.join(self.path, prefix)
        return [entry.name for entry in os.scandir(place) if entry.is_file()] if os.path.isdir(place) else []

    def folders(self, prefix):
        place = os.path.join(self.path, prefix)
        return sorted((entry.name for entry in os.scandir(place) if entry.is_dir() and not is_system(entry.name)), key=in_order)

    def classes(self, prefix):
        top, listing = os.path.join(self.path, prefix), {}
        for entry in sorted(os.scandir(top), key=lambda entry: in_order(entry.name)):
            if is_system(entry.name) or prefix == "" and entry.name == LIST:
                continue
            if _is_folder(entry) and os.path.realpath(entry.path) == os.path.realpath(top):
                self.loops.append(f"{entry.name} -> {os.path.realpath(top)}")
            elif _is_folder(entry):
                self.forms[prefix + nfc(entry.name)].add(entry.name)
                listing.setdefault(nfc(entry.name), []).extend(self._pictures_below(top, entry.name))
            elif is_picture(entry.name):
                listing.setdefault("", []).append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() != ".tar":
                self._leave_out(entry.name)
        for paths in listing.values():
            paths.sort(key=in_order)
        return listing

    def _pictures_below(self, top, folder):
        """Yield the pictures below a folder, each real folder being looked into once."""
        waiting, seen = [folder], {os.path.realpath(top)}
        while waiting:
            inside = waiting.pop(0)
            place = os.path.join(top, inside)
            real = os.path.realpath(place)
            if os.path.islink(place):
                (self.loops if real in seen else self.links).append(f"{inside} -> {real}")
            if real in seen:
                continue
            seen.add(real)
            for entry in sorted(os.scandir(place), key=lambda entry: in_order(entry.name)):
                path = f"{inside}/{entry.name}"
                if is_system(entry.name):
                    continue
                if _is_folder(entry):
                    waiting.append(path)
                elif is_picture(entry.name):
                    yield path
                else:
                    self._leave_out(entry.name)

    def _leave_out(self, name):
        self.left_out[posixpath.splitext(name)[1].lower()] += 1

    def read(self, path):
        return read_bytes(os.path.join(self.path, path), MOST_BYTES)

    def stamp(self, path=""):
        try:
            status = os.stat(os.path.join(self.path, path))
        except OSError as error:
            return error.strerror
        return f"{status.st_size} {status.st_mtime_ns}" if path else ""

    def length(self, path):
        try:
            return os.stat(os.path.join(self.path, path)).st_size
        except OSError:
            return None


class Tar:
    """An uncompressed tar: its headers are read once, its members by offset at any time and from any thread."""

    def __init__(self, path, wanted=is_picture):
        """`wanted(name)` says of which files the places are kept."""
        self.path, self.wanted, self.left_out, self.links, self.loops = path, wanted, Counter(), [], []
        self.forms = defaultdict(set)
        self.members = {}                         # file -> (offset, size, time); a later member of one name replaces it
        self.directories = set()
        with open(path, "rb", opener=opener) as file:
            self._index(file)
        self._file = OpenFile(path)

    def _index(self, file):
        for member in members_of(self.path, file):
            self._enter(member, posixpath.normpath(member.name).lstrip("/"))

    def _enter(self, member, name):
        if member.isdir():
            self.directories.add(name)
        elif not self.wanted(name):
            if not is_system(name) and posixpath.basename(name) != LIST:
                self.left_out[posixpath.splitext(name)[1].lower()] += 1
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

    def folders(self, prefix):
        paths = [*self.members, *(f"{directory}/" for directory in self.directories)]
        below = {path[len(prefix):].split("/")[0] for path in paths if path.startswith(prefix) and "/" in path[len(prefix):]}
        return sorted((name for name in below if name != "." and not is_system(name)), key=in_order)

    def names(self):
        return sorted({*self.members, *(suffix for suffix in self.left_out)})

    def classes(self, prefix):
        listing = {nfc(folder): [] for folder in self.folders(prefix)}
        for folder in self.folders(prefix):
            self.forms[prefix + nfc(folder)].add(folder)
        for name in self.members:
            if name.startswith(prefix):
                folder, slash, _ = name[len(prefix):].partition("/")
                listing.setdefault(nfc(folder) if slash else "", []).append(name[len(prefix):])
        for paths in listing.values():
            paths.sort(key=in_order)
        return listing

    def read(self, path):
        offset, size, _ = self.members[path]
        if size > MOST_BYTES:
            raise OSError(f"{size} bytes, more than the {MOST_BYTES} that such a file may have")
        data = self._file.read(size, offset)
        if len(data) < size:
            raise OSError("the tar ends inside it")
        return data

    def length(self, path):
        return self.members[path][1]

    def stamp(self, path=""):
        status = os.stat(self.path)
        return " ".join(map(str, self.members[path])) if path else f"{status.st_size} {status.st_mtime_ns}"


def members_of(what, file, start=0):
    """Yield the members of the uncompressed tar that begins at byte `start` of `file`. Where it is none, cut short or
    damaged, or leaves the zeros in files out, Expected is raised, calling it `what`."""
    file.seek(start)
    try:
        tar = tarfile.open(fileobj=Bounded(file, at_once=MOST_HEADER), mode="r:")
    except (*BROKEN, OSError) as error:
        raise Expected(what, "an uncompressed tar", f"a file that is none ({error})",
                       "decompress it if it is a .tar.gz") from None
    try:
        for member in tar:
            tar.members.clear()                   # tarfile would keep them all, a kilobyte each
            if member.issparse():                 # what lies at its offset is not what is in the file
                raise Expected(what, "a tar that holds whole files", f"{said(member.name)} without its zeros",
                               "pack it again, without tar's option -S")
            yield member
    except Expected:
        raise
    except (*BROKEN, OSError) as error:
        raise Expected(what, "a whole tar", f"one cut short or damaged ({error})", "copy it again") from None
    file.seek(tar.offset)                         # tarfile takes a damaged header for the end; a real end is all zeros
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Expected(what, "a whole tar", f"one cut short or damaged at byte {tar.offset}", "copy it again")
