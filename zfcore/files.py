"""Floor 0: every file that is opened, and every JSON that is read, looked at before it is believed.

    open(path, "rb", opener=opener)      a regular file or OSError: no FIFO, device or socket, where it would wait
    read_bytes(path, most)               its bytes, of a file no larger than `most`
    OpenFile(path)                       one of which any thread reads, at any time
    read_json(path, form)                what it says, in the form that is expected; else one sentence that names the place
    unfolded(path, most)                 a compressed file to read from, up to `most` bytes of what it unfolds to
    file_names(names)                    names of layers, classes, pictures as names that files can have on any system
    inside(folder, name)                 the path of a file of somebody's folder, which no link leads out of
    locked(path)                         a descriptor, by which nobody else holds the file
    slug(text)                           a name as that of a file, in small letters, digits and hyphens
    folder_made(path)                    a folder that goes again if it stays empty

A form is a function (where, value) -> value, which raises Expected, calling the value `where`. They are made by `text`,
`whole`, `real`, `choice`, `listed`, `table` and `mapping`, and serve the attributes of HDF5 files as well (zfcore/hdf5.py).
"""
import bz2
import gzip
import hashlib
import json
import lzma
import math
import os
import re
import stat
import unicodedata
import weakref
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path

from zfcore.check import Expected
from zfcore.system import BINARY, NO_LINK, NO_WAITING, NoLocks, lock, open_to_lock, read_at

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
         stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
MOST_JSON = 2**24                 # bytes; as Python's objects they are up to twenty times as many
MOST_DIGITS = 40                  # of a whole number; the largest that zfcore writes has 20
FORBIDDEN = '/\\:*?"<>|'          # in names of files, on some system
MOST_NAME = 100                   # bytes
RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *(port + k for port in ("COM", "LPT") for k in "123456789¹²³")}


# ------------------------------------------------------------------------------------------------------------- opening
def opener(path, flags):
    """Descriptor, for `open(path, mode, opener=opener)`, of a regular file. Raises OSError at once for anything else; where
    the file is to be written for a link too, since that may lead anywhere."""
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    try:
        refuse_others(os.lstat(path) if writes else os.stat(path), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | BINARY | NO_WAITING | (NO_LINK if writes else 0), 0o666)
    try:
        refuse_others(os.fstat(descriptor), path)                            # it may have changed meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def refuse_others(status, path):
    """Raise OSError unless `status` is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(0, f"{KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, where a file should be", str(path))


class NotRegular(OSError):
    """File that is not a regular one."""


class OpenFile:
    """A regular file, open until nobody has it any more, of which any number of threads read. A copy, and what another process is
    sent of it, opens it anew. Raises OSError."""

    def __init__(self, path):
        self.path, self.descriptor = path, opener(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)

    def __reduce__(self):
        return OpenFile, (self.path,)

    def read(self, size, offset):
        """Read up to `size` bytes from byte `offset` on."""
        return read_at(self.descriptor, size, offset)


def read_bytes(path, most):
    """The bytes of the regular file at `path`. Raises OSError as `open` does, and for a file of more than `most` bytes."""
    with open(path, "rb", opener=opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(0, f"{size} bytes, more than the {most} that such a file may have", str(path))
        return file.read(size)                             # which takes this memory at once: not `most`


def read_text(path, most=2**26):
    """The text of the file at `path`, UTF-8 with or without a mark at its beginning, or UTF-16 with one, as editors write it;
    bytes that are none become question marks. Raises OSError."""
    data = read_bytes(path, most)
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def inside(folder, name):
    """The path of what is called `name`, perhaps with folders before it, in `folder`. Raises Expected where a link on the way,
    or the file itself, leads to somewhere else: a folder that came from somebody is not left."""
    path = Path(folder, name)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise Expected(path, "a place in its own folder", "a link that leads out of it", f"put the file itself into {folder}")
    return path


def locked(path, wait=False):
    """Descriptor of the file at `path`, made where there is none, which nobody else holds until it is closed or this process ends;
    None where there are no locks, as on some network file systems. Raises BlockingIOError where another process holds it, or
    waits for its end; Expected where it cannot be opened or locked: nobody is to think that it is held."""
    try:
        descriptor = open_to_lock(path, opener, os.O_RDWR | os.O_CREAT)
        try:
            lock(descriptor, wait)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
    except NoLocks:
        return None
    except BlockingIOError:
        raise
    except OSError as error:
        raise Expected(path, "a file that can be locked, so that no two write here at once", error.strerror,
                       "make it and its folder writable, or remove it where nobody is at work") from None


def file_names(names: Iterable[str]) -> list[str]:
    """Names of files of layers, classes or pictures of these different names: they themselves, where any system takes them.
    What it may not take is written as in addresses, "a/b" as "a%2Fb" and "con" as "%63on", and two names that are one on a
    system which does not tell a from A, or too long, end in a digest of the name."""
    found, taken = [], set()
    for one in names:
        called = "".join(c if c.isprintable() and c not in FORBIDDEN + "%" else _escaped(c) for c in one) or "%"
        called = called[:-1] + _escaped(called[-1]) if called[-1] in ". " else called
        called = _escaped(called[0]) + called[1:] if called[0] in ".~-" or _is_reserved(called) else called
        if len(called.encode()) > MOST_NAME or _alike(called) in taken:
            digest = hashlib.sha256(one.encode(errors="surrogateescape")).hexdigest()[:12]
            called = called.encode()[:MOST_NAME - 13].decode(errors="ignore").rstrip("%. ") + "-" + digest
        taken.add(_alike(called))
        found.append(called)
    return found


def slug(text):
    """`text` in small letters, digits and hyphens: "NVIDIA RTX 4090" as nvidia-rtx-4090."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def _escaped(character):
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogateescape"))


def _is_reserved(called):
    """True where Windows takes a name for a device's."""
    return called.split(".")[0].rstrip().upper() in RESERVED


def _alike(called):
    """Form that two names have in common which are one on some system."""
    return unicodedata.normalize("NFC", called).casefold()


@contextmanager
def folder_made(path, what="--output"):
    """`with folder_made(path):` the folder is there, with those above it. Of what was made for that, what is still empty
    vanishes when the block fails. Raises Expected, calling it `what`, where it cannot be made."""
    missing = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Expected(what, "a place where a folder can be made", f"{path} ({error.strerror})") from None
    try:
        yield Path(path)
    except BaseException:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def numbered(path, number):
    """Name of the `number`-th file that was to be `path`, where the ones before are others: a.h5, a_2.h5, a_3.h5."""
    return path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")


def numbered_folder(path, number):
    """The same of a folder, in whose name a dot begins no suffix: trip 2026.11, trip 2026.11_2."""
    return path if number == 1 else path.with_name(f"{path.name}_{number}")


@contextmanager
def unfolded(path, most):
    """`with unfolded(path, most) as file:` what the file at `path` holds, decompressed if it is compressed. Raises OSError, as
    soon as more than `most` bytes come out of it."""
    with open(path, "rb", opener=opener) as file:
        begin = file.read(6)
        file.seek(0)
        fold = next((fold for magic, fold in FOLDED.items() if begin.startswith(magic)), None)
        yield Bounded(file if fold is None else fold(file), math.inf if fold is None else most)


FOLDED = {b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file), b"BZh": bz2.BZ2File, b"\xfd7zXZ\0": lzma.LZMAFile}


class Bounded:
    """A file to read from which gives no byte behind number `most`, and not more than `at_once` in one call: a header that
    claims gigabytes for a name takes none."""

    def __init__(self, file, most=math.inf, at_once=2**28):
        self.file, self.most, self.at_once = file, most, at_once
        self.tell = file.tell

    def read(self, size=-1):
        size = self.at_once + 1 if size is None or size < 0 else size
        if size > self.at_once + 1:
            raise OSError(f"{size} bytes in one piece")
        data = self.file.read(size)
        if len(data) > self.at_once or self.file.tell() > self.most:
            raise OSError(f"more than {min(self.most, self.at_once)} bytes unfold out of it")
        return data

    def seek(self, place, whence=os.SEEK_SET):
        if whence == os.SEEK_SET and place > self.most:
            raise OSError(f"more than {self.most} bytes unfold out of it")
        return self.file.seek(place, whence)


# ---------------------------------------------------------------------------------------------------------------- JSON
def read_json(path, form=None, most=MOST_JSON):
    """Contents of the JSON file at `path`, in the `form` that is expected (None: any). Raises OSError and Expected."""
    data = read_bytes(path, most)
    try:
        return parsed(path, data.decode("utf-8-sig"), form)
    except UnicodeDecodeError as error:
        raise Expected(path, "JSON in UTF-8", f"other bytes ({error.reason} at byte {error.start})") from None


def parsed(where, text, form=None):
    """Parse the JSON `text`, called `where` in messages. Refused beside what is no JSON: a name twice in one object, whole
    numbers of more than MOST_DIGITS digits, and objects in objects beyond what Python takes."""
    try:
        value = json.loads(text, parse_int=_whole_number, object_pairs_hook=_once)
    except RecursionError:
        raise Expected(where, "JSON", "lists or objects inside one another, too deep to be read") from None
    except ValueError as error:
        raise Expected(where, "JSON", str(error)) from None
    return value if form is None else form(where, value)


def _whole_number(digits):
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"{said(Counter(key for key, _ in pairs).most_common(1)[0][0])} twice in one object")
    return found


# --------------------------------------------------------------------------------------------------------------- forms
def said(value, most=60):
    """`value` as a sentence can hold it, whatever it is."""
    if isinstance(value, (list, tuple, dict)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return "a number of too many digits"
    words = ascii(value[:most]) if isinstance(value, (str, bytes)) else repr(value)
    return words if len(words) <= most else words[:most] + "..."


def text(most=1000):
    """A text of at most so many characters."""
    def form(where, value):
        if not isinstance(value, str) or len(value) > most:
            raise Expected(where, f"a text of at most {most} characters", said(value))
        return value
    return form


def name(where, value):
    """A form: a text that may name a file on any system: printable, without separators, not one that Windows reserves."""
    if (not isinstance(value, str) or not 0 < len(value) <= 100 or not value.isprintable() or set(value) & set(FORBIDDEN)
            or value[0] in ".~-" or value[-1] in ". " or _is_reserved(value)):
        raise Expected(where, "a name that a file could have", said(value))
    return value


def whole(low=0, high=2**63 - 1, or_none=False):
    """A whole number from `low` to `high`, Python's or NumPy's, or None."""
    def form(where, value):
        if or_none and value is None:
            return None
        if not (isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high):
            raise Expected(where, f"a whole number from {low} to {high}", said(value))
        return int(value)
    return form


def real(low=-math.inf, high=math.inf, above=-math.inf, infinite=False, nan=False):
    """A number from `low` to `high`, larger than `above`, Python's or NumPy's; `infinite` or `nan` only where that is asked
    for."""
    words = "a number" + (f" above {above:g}" if above > -math.inf else f" from {low:g}" if low > -math.inf else "")
    words += f" to {high:g}" if high < math.inf else ""

    def form(where, value):
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        fits = is_number and low <= value <= high and (above < value or above == -math.inf)
        if is_number and math.isnan(value):
            fits = nan
        if not fits or abs(value) == math.inf and not infinite:
            raise Expected(where, words, said(value))
        return value if type(value) in (int, float) else float(value)
    return form


def choice(*values):
    """One of `values`."""
    def form(where, value):
        if not isinstance(value, (str, int)) or value not in values:
            raise Expected(where, f"one of {', '.join(map(str, values))}", said(value))
        return value
    return form


def flag(where, value):
    """A form: true or false."""
    if not isinstance(value, bool):
        raise Expected(where, "true or false", said(value))
    return value


def listed(form, most=10**6, least=0):
    """A list of `least` to `most` things in this form."""
    def of_list(where, value):
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Expected(where, f"a list of {f'{least}' if least == most else f'{least} to {most}'}", said(value))
        return [form(f"{where}[{k}]", item) for k, item in enumerate(value)]
    return of_list


def table(needed, optional=None, others=None):
    """An object with the keys `needed` and perhaps the `optional` ones, {key: form} both; `others` is the form of any other
    key, None: there may be none."""
    def form(where, value):
        _object(where, value)
        if missing := [key for key in needed if key not in value]:
            raise Expected(where, f"an object with {', '.join(needed)}", f"one without {', '.join(missing)}")
        forms = {**needed, **(optional or {})}
        if others is None and (strange := [key for key in value if key not in forms]):
            raise Expected(where, f"only {', '.join(forms)}", f"{said(strange[0])} too")
        return {key: forms.get(key, others)(_within(where, key), item) for key, item in value.items()}
    return form


def mapping(form, key=None, most=10**6):
    """An object of at most so many keys, all of this form."""
    def of_object(where, value):
        _object(where, value)
        if len(value) > most:
            raise Expected(where, f"at most {most} entries", len(value))
        return {(key or text())(where, k): form(_within(where, k), item) for k, item in value.items()}
    return of_object


def anything(where, value):
    """A form: whatever JSON can hold."""
    return value


def _within(where, key):
    """Name in messages of the value of `key` in the object `where`."""
    return f"{where}: {key if key.isidentifier() else said(key)}"


def _object(where, value):
    if not isinstance(value, dict):
        raise Expected(where, "an object", said(value))
