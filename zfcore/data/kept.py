"""Pictures that cost more to make than to read, kept on the disk. Any number of threads and processes may read and write.

A file is a row of records of one length, a checksum and a picture each. The pixels of picture i being the same whoever makes
them, who writes needs no lock; a record that a kill cut short, that was damaged or that nobody has written yet does not
fit its checksum, and the picture is made again."""
import hashlib
import json
import struct
import threading
import zlib

from zfcore.data.loader import cache_folder
from zfcore.files import opener
from zfcore.terminal import printable, warn

CHECKSUM = struct.Struct("<I")


class KeptPictures:
    """Pictures of `name`, a word for the file's name, each `length` bytes. `facts`, which JSON can hold, is all that the bytes
    depend on: other facts have another file.

    `path` is the file in `cache_folder()`, or None where nothing is kept: without such a folder, or after a write that the
    disk refused, which is told on standard error."""

    def __init__(self, name, facts, length):
        self.length = length
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        folder = cache_folder()
        self.path = folder/f"{name}-{self.fingerprint[:16]}.raw" if folder else None
        self._refusal = threading.Lock()

    def read(self, i):
        """The bytes of picture i, or None where there is no whole record of it."""
        try:
            with open(self.path, "rb", buffering=0, opener=opener) as file:
                file.seek(i*(CHECKSUM.size + self.length))
                record = file.read(CHECKSUM.size + self.length)
        except (OSError, TypeError):              # not there yet; no path at all
            return None
        pixels = record[CHECKSUM.size:]
        whole = len(pixels) == self.length and CHECKSUM.unpack_from(record)[0] == self._checksum(i, pixels)
        return pixels if whole else None

    def write(self, i, pixels):
        """Keep the bytes of picture i. What lies before it and is not written yet takes no room on most file systems."""
        path = self.path                          # which another thread may take away meanwhile
        if path is None:
            return
        try:
            if not path.exists():
                _begin(path)
            with open(path, "r+b", buffering=0, opener=opener) as file:
                file.seek(i*(CHECKSUM.size + self.length))
                file.write(CHECKSUM.pack(self._checksum(i, pixels)) + pixels)
        except OSError as error:
            with self._refusal:
                first, self.path = self.path is not None, None
            if first:
                warn(f"drawn pictures are not kept for the next run in {printable(path.parent)}: {error.strerror or error}; "
                     "ZFCORE_CACHE in the environment names another folder")

    def _checksum(self, i, pixels):
        return zlib.crc32(pixels, zlib.crc32(f"{self.fingerprint} {i}".encode()))


def _begin(path):
    """Make the file, unless somebody else just does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        open(path, "xb", opener=opener).close()
    except FileExistsError:
        return
    warn(f"pictures are drawn once and kept in {printable(path)}")
