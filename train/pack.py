"""Pack a set of pictures into one HDF5 file, prepared as the paper prepares them, so that training need not do it again.

    python -m train.pack SOURCE OUTPUT.h5 [--size 256] [--raw] [--quality 95] [--workers N] [--limit-per-class N] [--upscale]

SOURCE is whatever `python -m train --data` takes. Each picture is decoded, brought to its centre square of SIZE pixels and
stored as JPEG (about 27 kB at 256 and quality 95: 36 GB for ImageNet) or, with --raw, as its pixels (197 kB: 262 GB), which
are those that training from SOURCE would use, bit for bit. `zfcore.data.packed` describes the file.

Shards of 512 pictures are written to OUTPUT.h5.parts/, each whole or not at all. When all are there, the file is laid out and
the shards move into it one by one, so that the disk never needs room for more than the finished file and a shard. Started
again after whatever ended it, the same command goes on; the bytes of the file depend neither on that nor on --workers.
"""
import json
import math
import os
import re
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile
from zlib import crc32

import numpy as np
import PIL
from PIL import Image, features

from zfcore import check, system
from zfcore.checkpoint import atomic
from zfcore.cpu import CORES
from zfcore.data import data_in_words, open_data
from zfcore.data.folders import PARTS
from zfcore.data.loader import damaged_in_words, most_damaged
from zfcore.data.packed import SUFFIXES, VERSION, create, open_packed
from zfcore.data.transforms import CorruptImage, decode, square
from zfcore.files import anything, choice, inside, locked, mapping, opener, parsed, read_json, text, whole
from zfcore.hdf5 import open_h5
from zfcore.terminal import Bar, command, counted, plural, printable, say, status_of, warn

SHARD = 512               # pictures in a file of OUTPUT.h5.parts
PIECE = 16                # pictures a thread packs in one go
# names in OUTPUT.h5.parts
PARTS_OF = re.compile(r"(train|val)-\d{8,}\.npz|lock|(work|layout)\.json|assembled\.h5|\..*\.part")
AHEAD = 1                 # shards that threads work on while one is written


@dataclass(frozen=True)
class Shard:
    """Pictures `begin` to `end` of a part, and the file in which they wait for the rest."""
    part: str
    begin: int
    end: int
    path: Path


class Packing:
    """The work on one output file: `Packing(...)`, then `.run()`. Everything that was done before is found in `folder`."""

    def __init__(self, source, output, size=256, raw=False, quality=95, workers=1, limit_per_class=0, upscale=False):
        self.source, self.output, self.size, self.raw, self.quality = source, Path(output), size, raw, quality
        self.workers, self.upscale = workers, upscale
        self.crop = round(size*224/256)                    # smallest picture that training takes at this size
        self.folder = self.output.with_name(self.output.name + ".parts")
        self.sets = dict(zip(PARTS, open_data(source, size, limit_per_class)))
        self.shards = [Shard(part, k, min(k + SHARD, len(dataset)), self.folder/f"{part}-{k:08}.npz")
                       for part, dataset in self.sets.items() for k in range(0, len(dataset), SHARD)]
        self.damaged = {part: {} for part in PARTS}        # {index: reason}
        self.packed = 0                                    # pictures that this process has packed
        self.stop = threading.Event()

    @property
    def total(self):
        return sum(map(len, self.sets.values()))

    def run(self):
        """Pack what is not packed yet, then put the file together under its final name."""
        if os.path.lexists(self.output):
            if not self._is_finished():
                raise check.Expected(self.output, "a file that does not exist yet", "one that does",
                                     "remove it or choose another name")
            self._clear()                                  # all that a kill after the last step left to do
            return
        with self._folder_of_parts():
            if not self._layout.is_file():
                todo = [shard for shard in self.shards if not self._is_done(shard)]
                done = self.total - sum(shard.end - shard.begin for shard in todo)
                with Bar(self.total, "picture", "packing", done=done) as bar:
                    self._pack(todo, bar)
                self._lay_out()
            self._move_in()
            self._clear()

    # ------------------------------------------------------------------------------------------------ what is done already
    @contextmanager
    def _folder_of_parts(self):
        """Hold OUTPUT.h5.parts, new or of the same work, with a lock that ends with this process, however it ends."""
        if self.folder.exists() and (strange := self._strangers()):
            raise check.Expected(self.folder, "a folder of parts and nothing else", ", ".join(map(repr, strange[:3])),
                                 "choose another name")
        with written(self.folder):
            self.folder.mkdir(exist_ok=True)
        try:
            descriptor = locked(inside(self.output.parent, self.folder.name)/"lock")
        except BlockingIOError:
            raise check.Expected(self.folder, "nobody else at work in it", "another python -m train.pack") from None
        try:
            self._compare_with_before()
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _compare_with_before(self):
        """Refuse to mix the parts of another source or of other options, which work.json tells."""
        path, now = self.folder/"work.json", self._work()
        if changed := self._changed(now) if path.is_file() else []:
            raise check.Expected(self.folder, "parts of the same work", f"parts with another {' and '.join(changed)}",
                                 f"give the arguments that began it, or remove {self.folder}")
        with kept(path) as temporary:
            temporary.write_text(json.dumps(now, indent=1))

    def _work(self):
        """Source, options and versions that the bytes of the parts depend on."""
        return {**self._about(), "state of the pictures": {part: fingerprint(dataset) for part, dataset in self.sets.items()},
                "format": VERSION, "upscale": self.upscale, "Pillow": f"{PIL.__version__}, libjpeg {features.version('jpg')}"}

    def _changed(self, now):
        """Options of `now` that are others than in the work.json that is there."""
        before = read_json(self.folder/"work.json", mapping(anything))
        changed = [key for key in now if now[key] != before.get(key)]
        # what was packed without it is the same with it
        return [] if changed == ["upscale"] and self.upscale else changed

    def _strangers(self):
        """The names of what lies in OUTPUT.h5.parts and is no part."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_symlink() or not path.is_file()
                      or not PARTS_OF.fullmatch(path.name))

    def _clear(self):
        """Remove OUTPUT.h5.parts, which holds nothing but what was made there; last what says whose it is, as a kill may
        come."""
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "work.json"):
            if PARTS_OF.fullmatch(path.name):
                path.unlink()
        self.folder.rmdir()

    def _is_finished(self):
        """Return whether the output is what this work has made, and only OUTPUT.h5.parts was still to go: nothing in it is to
        be moved any more, its work.json is of this very work, or it is empty; and the output is of this source, options and
        pictures."""
        if not self.folder.is_dir() or self._strangers() or self._assembled.exists() or any(self.folder.glob("*.npz")):
            return False
        if any(self.folder.iterdir()) and (not (self.folder/"work.json").is_file() or self._changed(self._work())):
            return False
        try:
            of_file = dict(zip(PARTS, open_packed(self.output)))
            with open_h5(self.output) as file:
                about = {key: file.attribute(key, anything) for key in self._about()}
                left_out = {part: len(file.group(part).texts("left_out", (None,), 2**30)) for part in PARTS}
        except (check.Expected, OSError):
            return False
        return about == self._about() and all(
            set(of_file[part].names) <= set(dataset.names) and len(of_file[part]) + left_out[part] == len(dataset)
            for part, dataset in self.sets.items())

    def _is_done(self, shard):
        """Return whether the shard's file is there and whole. Pictures that could not be read, as opposed to damaged ones, are
        tried again: a disk or network may be back."""
        try:
            with shard_of(shard.path) as found:
                damaged = parsed(shard.path, str(found["damaged"]), mapping(text()))
                if found["lengths"].size + len(damaged) != shard.end - shard.begin or not found["lasting"]:
                    return False
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):     # not there; or not whole, which no sound disk does
            return False
        self._leave_out(shard.part, {int(i): reason for i, reason in damaged.items()})
        return True

    def _leave_out(self, part, damaged):
        dataset, found = self.sets[part], self.damaged[part]
        found.update(damaged)
        for i, reason in damaged.items():
            warn(printable(f"picture left out: {dataset.names[i]}: {reason}"), dataset.names[i])
        if len(found) > most_damaged(len(dataset)):
            i, reason = next(iter(found.items()))
            raise check.Expected("data", damaged_in_words(len(dataset)), f"{len(found)} of {len(dataset)} in {part}, the first "
                                 f"being {dataset.names[i]} ({reason})", "mend or remove them")

    # ------------------------------------------------------------------------------------------------------------- packing
    def _pack(self, todo, bar):
        """Pack the shards `todo` and write each as soon as it is done, in their order."""
        waiting = deque()
        with ThreadPoolExecutor(max(self.workers, 1), thread_name_prefix="pack") as pool:
            try:
                for shard in todo:
                    pieces = [range(k, min(k + PIECE, shard.end)) for k in range(shard.begin, shard.end, PIECE)]
                    waiting.append((shard, (pool.map if self.workers else map)(partial(self._piece, shard.part), pieces)))
                    if len(waiting) > AHEAD:
                        self._write(*waiting.popleft(), bar)
                while waiting:
                    self._write(*waiting.popleft(), bar)
            finally:
                self.stop.set()

    def _piece(self, part, indices):
        """Pack the pictures `indices`: ({index: bytes}, {index: reason}, whether the damage will last, sum of the pixels)."""
        dataset, contents, damaged, lasting = self.sets[part], {}, {}, True
        total = np.zeros((self.size, self.size, 3), np.uint32)
        for i in indices:
            if self.stop.is_set():
                break
            try:
                pixels = square(dataset.picture(i), self.size, self.crop, self.upscale, dataset.names[i])
            except CorruptImage as error:
                damaged[i], lasting = error.reason, lasting and error.lasting
                continue
            except check.Expected as small:
                raise check.Expected(small.what, small.expected, small.got,
                                     "start again with --upscale to enlarge small pictures, or take a smaller --size") from None
            contents[i] = pixels.tobytes() if self.raw else jpeg(pixels, self.quality)
            if part == "train":
                total += pixels if self.raw else np.asarray(decode(dataset.names[i], contents[i]))
        return contents, damaged, lasting, total

    def _write(self, shard, pieces, bar):
        """Wait for the pieces of a shard and write its file. The sum fits into uint32: 512*255."""
        contents, damaged, all_lasting = {}, {}, True
        total = np.zeros((self.size, self.size, 3), np.uint32)
        for of_piece, reasons, lasting, pixels in pieces:
            contents.update(of_piece)
            damaged.update(reasons)
            all_lasting &= lasting
            total += pixels
            bar.update(len(of_piece) + len(reasons))
        with kept(shard.path) as temporary, open(temporary, "wb", opener=opener) as file:
            np.savez(file, pictures=np.frombuffer(b"".join(contents.values()), np.uint8),
                     lengths=[len(data) for data in contents.values()],
                     checksums=np.array([crc32(data) for data in contents.values()], np.uint32),
                     damaged=json.dumps(damaged), lasting=all_lasting, **{"total": total} if shard.part == "train" else {})
        self.packed += len(contents)
        self._leave_out(shard.part, damaged)

    # ---------------------------------------------------------------------------------------------------- putting together
    @property
    def _layout(self):
        """The file that exists when the output is laid out: {shard's file: byte of the output where it belongs}."""
        return self.folder/"layout.json"

    @property
    def _assembled(self):
        return self.folder/"assembled.h5"

    def _lay_out(self):
        """Write the output, complete but for the pictures, beside the shards."""
        facts = {part: {"lengths": [], "checksums": [], "labels": [], "names": [], "left_out": []} for part in PARTS}
        total = np.zeros((self.size, self.size, 3), np.int64)
        starts, size = {}, dict.fromkeys(PARTS, 0)         # {shard: byte of its part's pictures}; bytes of each part
        for shard in self.shards:
            of_part, dataset, damaged = facts[shard.part], self.sets[shard.part], self.damaged[shard.part]
            starts[shard] = size[shard.part]
            with shard_of(shard.path) as found:
                of_part["lengths"] += found["lengths"].tolist()
                size[shard.part] += int(found["lengths"].sum())
                of_part["checksums"] += found["checksums"].tolist()
                if shard.part == "train":
                    total += found["total"]
            sound = [i for i in range(shard.begin, shard.end) if i not in damaged]
            of_part["labels"] += dataset.labels[sound].tolist()
            of_part["names"] += [dataset.names[i] for i in sound]
            of_part["left_out"] += [f"{dataset.names[i]}: {damaged[i]}" for i in range(shard.begin, shard.end) if i in damaged]
        mean = (total/len(facts["train"]["lengths"])).transpose(2, 0, 1).astype(np.float32)      # (S,S,3) -> (3,S,S)
        with kept(self._assembled) as temporary:
            begins = create(temporary, self._about(), self.sets["train"].classes, np.ascontiguousarray(mean), facts)
        with kept(self._layout) as temporary:
            temporary.write_text(json.dumps({shard.path.name: begins[shard.part] + start for shard, start in starts.items()}))

    def _move_in(self):
        """Move the shards that are left into the output, then the output to its place."""
        layout = read_json(self._layout, mapping(whole(), choice(*(shard.path.name for shard in self.shards))))
        with written(self.output):
            with open(self._assembled, "r+b", opener=opener) as file:
                for name, begin in counted(layout.items(), "shard", "putting together"):
                    if (path := self.folder/name).is_file():
                        file.seek(begin)
                        file.write(pictures_of(path))
                        file.flush()
                        os.fsync(file.fileno())            # before its only other copy goes
                        path.unlink()
            system.replace(self._assembled, self.output)
            system.flush(self.output.parent)

    def _about(self):
        """Attributes of the file beside its format."""
        return {"source": str(self.source), "size": self.size, "encoding": "raw" if self.raw else "jpeg",
                **({} if self.raw else {"quality": self.quality})}


def jpeg(pixels, quality):
    """uint8 (S,S,3) -> bytes of a JPEG file. Colour at half the resolution (4:2:0), as in nearly every photograph on disk:
    at quality 95 full colour costs 18 % more bytes and brings the error from 1.6 to 1.4 (RMS, of 255)."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


@contextmanager
def shard_of(path):
    """The arrays of a shard's file, {name: array}, each as large as it says. Raises OSError, and ValueError or BadZipFile where
    it is damaged."""
    with open(path, "rb", opener=opener) as file, ZipFile(file) as members:
        for member in members.infolist():
            with members.open(member) as array:
                np.lib.format.read_magic(array)
                shape, _, dtype = np.lib.format.read_array_header_1_0(array)
                if member.compress_type != ZIP_STORED or dtype.hasobject or math.prod(shape)*dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} is not what a shard has")
        file.seek(0)
        with np.load(file) as found:
            yield found


def pictures_of(path):
    """The pictures' bytes in a shard's file, uint8."""
    try:
        with shard_of(path) as found:
            return found["pictures"]
    except (ValueError, EOFError, BadZipFile) as error:
        raise check.Expected(path, "the pictures that were packed", f"damaged ones ({error})",
                             f"remove {path.parent} and pack again") from None


def fingerprint(dataset):
    """Mark of a data set that changes when its pictures may have changed."""
    if hasattr(dataset, "fingerprint"):
        return dataset.fingerprint()
    return sha256("\n".join(dataset.names).encode() + dataset.labels.tobytes()).hexdigest()


@contextmanager
def written(path):
    """Turn what a disk refuses in this block into one sentence, which says that nothing is lost."""
    try:
        yield
    except OSError as error:
        raise _refused(f"writing {path}", error.strerror or error) from None


@contextmanager
def kept(path):
    """`atomic(path)` with such a sentence."""
    try:
        with atomic(path) as temporary:
            yield temporary
    except check.Expected as refused:
        raise _refused(refused.what, refused.got) from None


def _refused(what, got):
    return check.Expected(what, "a disk with room that may be written", got,
                          "what is packed is kept: mend it and give the same command again")


# --------------------------------------------------------------------------------------------------------- command line
@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    for name, low, high in (("size", 8, 4096), ("quality", 1, 100), ("workers", 0, 1024), ("limit_per_class", 0, 2**62)):
        if not low <= (value := getattr(args, name)) <= high:
            raise check.Expected("--" + name.replace("_", "-"), f"{low} or more" if high > 2**32 else f"{low} to {high}", value)
    if args.output.suffix.lower() not in SUFFIXES:
        raise check.Expected("OUTPUT", f"a name that ends in {' or '.join(SUFFIXES)}", args.output)
    if not args.output.parent.is_dir():
        raise check.Expected("OUTPUT", "a name in a folder that exists", args.output)
    started = time.monotonic()
    with check.told_of("SOURCE", "--data"):
        packing = Packing(**vars(args))
    say(printable(f"{data_in_words(args.source)}: {len(packing.sets['train'])} training and "
                  f"{plural(len(packing.sets['val']), 'validation picture')} of "
                  f"{plural(len(packing.sets['train'].classes), 'class')}"))
    try:
        packing.run()
    except KeyboardInterrupt as stop:
        again = command("python", "-m", "train.pack", *(sys.argv[1:] if arguments is None else arguments))
        warn(f"\nstopped; what is packed is kept. Go on with: {again}")
        sys.exit(status_of(stop))
    say(closing(packing, time.monotonic() - started))


def parser():
    p = check.Parser(prog="python -m train.pack", description="Pack pictures into one HDF5 file to train from.")
    p.add_argument("source", metavar="SOURCE", help="ImageNet as downloaded or unpacked, class folders, tars of them, "
                                                     "a packed file, drawn:NAME")
    p.add_argument("output", metavar="OUTPUT.h5", type=Path, help="the file to write; OUTPUT.h5.parts lies beside it meanwhile")
    p.add_argument("--size", type=int, default=256, help="side of the stored squares in pixels (default: the paper's 256)")
    p.add_argument("--raw", action="store_true", help="store pixels instead of JPEG: several times the bytes, no loss, faster")
    p.add_argument("--quality", type=int, default=95, help="quality of the JPEGs, 1 to 100 (default: 95)")
    p.add_argument("--workers", type=int, default=CORES, help="threads (default: as many as cores)")
    p.add_argument("--limit-per-class", type=int, default=0, metavar="N", help="pack only the first N pictures of each class")
    p.add_argument("--upscale", action="store_true", help="enlarge pictures that are smaller than training takes")
    return p


def closing(packing, seconds):
    """The last lines: what was packed, how fast, and the command that trains from it."""
    count = sum(map(len, open_packed(packing.output)))
    image_size = [] if packing.size == 256 else ["--image-size", packing.crop]
    damaged, size = f"{packing.total - count} left out as damaged", packing.output.stat().st_size
    return f"""
{printable(packing.output)}: {plural(count, "picture")} of {packing.size}x{packing.size}, {damaged}, {size} bytes
{packing.packed} of them packed in {seconds:.1f} s, {packing.packed/seconds:.0f} pictures/s with {plural(packing.workers,
"thread")}

next:  {command("python", "-m", "train", "--preset", "zfnet", "--data", packing.output, *image_size)}"""


if __name__ == "__main__":
    main()
