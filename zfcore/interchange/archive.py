"""Zip files in which PyTorch and Keras keep networks: members that lie there as they are, each looked at before it is read.

Neither compresses, so nothing unfolds here: a member is a part of the file, and all that is read together is no more than the
file has.
"""
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from zfcore.check import Expected
from zfcore.files import Bounded, opener, said

MOST_LIST = 2**22                 # bytes of the list of members
LOCAL = struct.Struct("<4s22xHH")            # the header before a member: signature, lengths of what follows it
BLOCK = 2**22


class Archive:
    """The zip `file` at `path`, for sentences."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.left = self.size = os.fstat(file.fileno()).st_size
        try:
            members = zipfile.ZipFile(Bounded(file, at_once=MOST_LIST)).infolist()           # type: ignore[arg-type]
        except Exception as error:                         # zipfile answers a damaged one with many
            raise Expected(path, "a whole zip file", f"one cut short or damaged ({_short(error)})") from None
        self.members = {member.filename: member for member in members}
        if len(self.members) < len(members):
            raise Expected(path, "members of different names", f"{len(members)} of {len(self.members)} names")

    def bytes_of(self, name: str, most: int) -> bytes:
        """A member of at most so many bytes."""
        with self.part(name, most) as part:
            return part.read()

    def part(self, name: str, most: int | None = None) -> "Part":
        """A file of the member `name`, which has been held against its checksum. Raises Expected where it is not there, is
        compressed, or is not the one whose checksum it has."""
        where = f"{self.path}: {said(name)}"
        if (member := self.members.get(name)) is None:
            raise Expected(where, "a member of the zip file", "none")
        size = member.file_size
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.compress_size != size:
            raise Expected(where, "a member that is neither compressed nor encrypted", "one that is",
                           "save it as its own library does")
        if size > (limit := self.left if most is None else min(most, self.left)):
            raise Expected(where, f"at most {limit} bytes", f"{size}")
        self.left -= size
        part = Part(self.file, self._start(where, member), size)
        crc = 0
        while block := part.read(BLOCK):
            crc = zlib.crc32(block, crc)
        if crc != member.CRC or part.tell() != size:
            raise Expected(where, "data that fit their checksum", "data cut short or damaged")
        part.seek(0)
        return part

    def _start(self, where, member):
        header = b""
        if 0 <= member.header_offset < self.size:
            self.file.seek(member.header_offset)
            header = self.file.read(LOCAL.size)
        signature, name, extra = LOCAL.unpack(header) if len(header) == LOCAL.size else (b"", 0, 0)
        start = member.header_offset + LOCAL.size + name + extra
        if signature != b"PK\3\4" or start + member.file_size > self.size:
            raise Expected(where, "a place in the file", "one beyond it, or no member there")
        return start


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """`with open_archive(path) as archive:` the Archive in a file. Raises Expected for what is none."""
    with open(path, "rb", opener=opener) as file:
        yield Archive(path, file)


class Part(io.RawIOBase):
    """To read from: the `size` bytes of `file` from `start` on."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Do as files do."""
        self._at = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Do as files do."""
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[:max(self._size - self._at, 0)])       # type: ignore[attr-defined]
        self._at += count
        return count


def _short(error):
    return " ".join(f"{error}".split())[:120] or type(error).__name__
