"""Prepared pictures in batches, decoded by threads ahead of use.

Pillow releases Python's lock while it decodes and resamples, so threads are enough. Which pictures a batch holds, and in
which order, depends on (seed, epoch) alone: not on the number of threads, not on what is in memory, not on damaged files.
"""
import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from zfcore import check
from zfcore.backend import CPU, Device, check_device
from zfcore.check import Expected
from zfcore.checkpoint import new_hdf5
from zfcore.data.transforms import CorruptImage, TooSmall, check_crop, check_large_enough, square, to_rgb
from zfcore.files import listed, parsed, said, text, whole
from zfcore.hdf5 import open_h5
from zfcore.hints import Array
from zfcore.ranks import ALONE, Ranks
from zfcore.terminal import Bar, plural, printable, warn

PIECE = 8                 # pictures a thread prepares in one go
MOST_DAMAGED = 0.01       # more than this share of a set is no accident any more, unless they are
FEW_DAMAGED = 5           # no more than so many, and at most a tenth of the set, or one of a few
MEMORY = 2**30            # bytes in which a set is kept if it fits: 5461 pictures of 256x256, 29 000 of 110x110
NAMED = 5                 # pictures that a sentence names
MOST_NAME = 10_000        # bytes of a class's or picture's name
SEEN = 16                 # pictures that tell a set without a fingerprint of its own from others
WATCHED = 64              # pictures of whose truth, where it is known, a run asks after every epoch, and so before the first
RETRY = 1.0               # seconds after which a file that could not be read is tried again


class Lost(Expected):
    """Failure of a set of which so many pictures are damaged or gone that it is no accident."""


class DataSet(Protocol):
    """Pictures with labels, as `zfcore.open_data` gives them and whoever has others may write them: any object with these five.
    Where its mean image is worth keeping on the disk, it also has `fingerprint()`, a str that changes when a picture may have
    changed, and only then, as a run knows the set again by it, too. One without is known by its classes, labels and names and by
    the pixels of SEEN pictures, spread evenly over it from the first to the last, as they are prepared; what changes in the
    others is not seen. What is kept about a set with one goes by all of these.

    Where it is known what lies where in the pictures, a set may also have `truth(i)`, which gives of every picture an object with
    `box`, (left, top, right, bottom) of what it shows, and where parts are known `parts`, {name: (x, y)}, and `visible`,
    {name: bool} of the same names; all in pixels of the square that the picture is brought to, a pixel's left edge being its
    number. Training logs then how much of a projection lies in the box, and sanity checks tell it. Nothing else that such an
    object has is asked for."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, a list or tuple of str."""

    @property
    def labels(self) -> NDArray[Any]:
        """Numbers into `classes`, an array (n,) of whole numbers; of VOC, whose pictures show several, (n,20), which
        training and errors do not take."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each picture, n of them, for messages and tables."""

    def __len__(self) -> int:
        """n, the number of pictures."""

    def picture(self, i: int) -> Image.Image:
        """Picture number i, a PIL picture of any mode and size, always the same one. Raises `zfcore.CorruptImage` where it
        cannot be used; it is then left out."""


class BuiltIn:
    """Data set of zfcore's own, which tells this besides, as far as it knows. Whoever derives a set from one answers for it; any
    other object is not asked, whatever such names mean there."""
    shorter_side: int | None = None                        # that its pictures are decoded for; None: for any
    mean_image: NDArray[np.float32] | None = None          # (3,size,size), of the pictures to train on

    def expect(self) -> None:
        """Hear that all pictures will be asked for."""


def told_by(dataset: DataSet) -> BuiltIn:
    """The BuiltIn that a data set is, or where it is none one that knows nothing."""
    return dataset if isinstance(dataset, BuiltIn) else BuiltIn()


def check_data_set(dataset: DataSet) -> None:
    """Raise Expected, which names the attribute, for what does not keep to the protocol DataSet."""
    if missing := [name for name in ("classes", "labels", "names", "__len__", "picture") if not hasattr(dataset, name)]:
        raise Expected("data set", "an object with classes, labels, names, len() and picture(i), as zfcore.DataSet says",
                       f"{said(dataset)} without {missing[0].strip('_')}", "zfcore.open_data opens folders and files")
    classes, labels, n = dataset.classes, dataset.labels, len(dataset)
    if not isinstance(classes, (list, tuple)):
        raise Expected("data set: classes", "a list of names", said(classes))
    check_names("data set: classes", classes)
    is_array = isinstance(labels, np.ndarray) and not isinstance(labels, np.ma.MaskedArray)
    if not is_array or labels.ndim not in (1, 2) or labels.ndim == 1 and labels.dtype.kind not in "iu":
        raise Expected("data set: labels", "an array of whole numbers, one a picture",
                       f"{labels.dtype} {labels.shape}" if is_array else said(labels),
                       "labels.astype(int) makes numbers of them" if is_array and labels.dtype == bool else
                       "numpy.array(labels) makes one of a list")
    if isinstance(dataset.names, (str, Mapping)) or not hasattr(dataset.names, "__getitem__"):
        raise Expected("data set: names", "a list of names, one a picture", said(dataset.names))
    for what, found in (("labels", len(labels)), ("names", len(dataset.names))):
        if found != n:
            raise Expected(f"data set: {what}", f"{n}, one a picture", found)
    if labels.ndim == 2 and labels.shape[1] != len(classes):
        raise Expected("data set: labels", f"shape ({n},), or ({n}, {len(classes)}) where pictures show several classes",
                       labels.shape, "labels.ravel() where there is one a picture" if labels.size == n else "")
    check_names("data set: names", dataset.names)
    if labels.ndim == 1 and classes and n and not 0 <= labels.min() <= labels.max() < len(classes):
        raise Expected("data set: labels", f"0 to {len(classes) - 1}, numbers into its {plural(len(classes), 'class')}",
                       f"{labels.min()} to {labels.max()}")
    if hasattr(dataset, "truth") and not isinstance(dataset, BuiltIn):
        truths_of(dataset, range(min(WATCHED, n)))


class Placed(NamedTuple):
    """Places of what a picture shows, as DataSet says."""
    box: Any
    parts: Any
    visible: Any


def truths_of(dataset: Any, numbers: Iterable[int]) -> list[Placed]:
    """The truth of these pictures, as a data set tells it. Raises Expected where it is otherwise than DataSet says."""
    found = []
    for i in numbers:
        try:
            got = dataset.truth(i) if callable(dataset.truth) else dataset.truth
        except TypeError as error:                         # a method of other arguments
            got = error
        if (truth := _placed(got)) is None:
            raise Expected(f"data set: truth({i})", "an object with box, (left, top, right, bottom), and where parts are known "
                           "parts, {name: (x, y)}, and visible, {name: bool}", got if isinstance(got, TypeError) else said(got),
                           "call it otherwise where it means something else")
        found.append(truth)
    return found


def _placed(got):
    """The Placed that this is, None where it is none."""
    try:
        truth = Placed(got.box, getattr(got, "parts", {}), getattr(got, "visible", {}))
        box, points = np.array(truth.box, float), np.array([*truth.parts.values()], float)
        fits = (box.shape == (4,) and np.isfinite(box).all() and (box[:2] <= box[2:]).all() and np.isfinite(points).all()
                and points.shape in ((0,), (len(truth.parts), 2)) and truth.parts.keys() == truth.visible.keys())
        return truth if fits else None
    except (AttributeError, TypeError, ValueError):
        return None


def check_names(what: str, names: Iterable[object]) -> None:
    """Raise Expected unless all of these are texts that a file of names can hold."""
    for k, name in enumerate(names):
        if not _is_name(name):
            raise Expected(what, f"a list of names, texts that UTF-8 has, of at most {MOST_NAME} bytes",
                           f"{said(name)}, number {k}")


def _is_name(name):
    try:
        return isinstance(name, str) and len(name.encode(errors="surrogateescape")) <= MOST_NAME
    except UnicodeEncodeError:
        return False


def check_one_class(dataset: DataSet) -> None:
    """Raise Expected unless each picture of the data set is of one class, as training and errors need it."""
    if dataset.labels.ndim != 1:
        raise Expected("data set: labels", f"shape ({len(dataset)},), one class a picture", dataset.labels.shape,
                       "labels.argmax(axis=1) takes the first class of each")


class Pictures:
    """The pictures of a data set (see `zfcore.data.folders`) as uint8 squares (size,size,3).

    size       side of the square that a picture is brought to (the paper: 256)
    crop       side of the network's input (224); a picture with a shorter side below it is refused unless `upscale`
    workers    threads that decode; 0: the caller's own
    memory     bytes; a set that fits into them as squares is kept there, so that each picture is read and decoded once, and
               what happens to its file afterwards does no harm

    A damaged picture is named on standard error once, entered in `damaged` {index: reason} and left out, its batch being
    smaller by one; above `most_damaged` of them Expected is raised. A file that cannot be read is tried once more before that.
    Where a picture is too small, all of those are counted before Expected is raised."""

    def __init__(self, dataset: DataSet, size: int, crop: int, upscale: bool = False, workers: int = 2,
                 memory: int = MEMORY) -> None:
        check_data_set(dataset)
        if not len(dataset):
            raise Expected("pictures", "one or more in each part, training and validation", "none",
                           "a class of two or more has some in both; or put them into folders train and val")
        size, crop = check_crop(size, crop)
        workers, memory = check.whole("--workers", workers, 0), check.whole("memory", memory, 0)
        shorter_side = told_by(dataset).shorter_side
        if shorter_side not in (None, size):
            raise Expected("size", f"{shorter_side}, as the data set was opened with", size)
        self.dataset, self.size, self.crop, self.upscale = dataset, size, crop, upscale
        self.workers, self.memory = workers, memory
        self.damaged: dict[int, str] = {}
        self.may_be_damaged: float | None = None  # so many; None: `most_damaged`
        self.all_were_readable = True             # no file has failed to open so far: the damage found will last
        fits = len(dataset)*size*size*3 <= memory
        self._kept: Any = np.empty((len(dataset), size, size, 3), np.uint8) if fits else None
        self._is_kept = np.zeros(len(dataset), bool)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy, or send to another process, what they are made of and which are damaged, without those in memory."""
        known = {"damaged": dict(self.damaged), "may_be_damaged": self.may_be_damaged, "all_were_readable": self.all_were_readable}
        return type(self), (self.dataset, self.size, self.crop, self.upscale, self.workers, self.memory), known

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} of {type(self.dataset).__name__}: {plural(len(self), 'picture')} of "
                f"{plural(len(self.dataset.classes), 'class')}, {self.size}x{self.size} pixels>")

    @property
    def sound(self) -> int:
        """Number of the pictures that are not damaged, as far as they have been looked at."""
        return len(self) - len(self.damaged)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the data set, whichever whole numbers it has them in."""
        return self.dataset.labels.astype(np.int64, copy=False)

    def fingerprint(self) -> str:
        """Mark of the data set that changes when its pictures may have changed: its own, or where it has none a digest of its
        classes, labels and names and of SEEN of its pictures as they are prepared: of the first, the last and those evenly
        between them. Which Python class it is does not matter."""
        dataset = self.dataset
        if hasattr(dataset, "fingerprint"):
            own = dataset.fingerprint
            if not isinstance(mark := own() if callable(own) else None, str):
                raise Expected("data set: fingerprint", "a method that returns a text", said(mark if callable(own) else own))
            return mark
        return self._looks()

    def key(self) -> str:
        """Text under which something may be kept about the set. Of one that is not BuiltIn it is others wherever `fingerprint`
        or what would be looked at without one are: two sets of somebody's own may be "v1"."""
        own = self.fingerprint()
        return f"{own} {self._looks()}" if hasattr(self.dataset, "fingerprint") and not isinstance(self.dataset, BuiltIn) else own

    def key_before(self) -> str:
        """The `key` that zfcore gave the set when it knew one by its fingerprint alone, or with its class's name, under which
        something may have been kept then."""
        return self.fingerprint() if hasattr(self.dataset, "fingerprint") else self._looks(type(self.dataset).__name__)

    def _looks(self, *more):
        """A digest of classes, names, labels and SEEN pictures, and of texts that come first."""
        dataset = self.dataset
        digest = hashlib.sha256(json.dumps([*more, dataset.classes, [*dataset.names], dataset.labels.tolist()]).encode())
        for i in np.unique(np.linspace(0, len(self) - 1, SEEN).astype(int)).tolist():
            try:
                digest.update(self._patiently(i, threading.Event()).tobytes())
            except CorruptImage:
                digest.update(b"damaged")
            except TooSmall as first:
                self._refuse_small(first)
        return digest.hexdigest()

    def of_classes(self) -> NDArray[np.int64]:
        """Number of each class's pictures that are not damaged, (classes,)."""
        labels = np.delete(self.labels, list(self.damaged))
        return np.bincount(labels, minlength=len(self.dataset.classes))

    def picture(self, i: int) -> NDArray[np.uint8]:
        """Picture i prepared: (size,size,3), read-only. Raises CorruptImage."""
        i = check.whole("picture", i, 0, len(self) - 1)
        if self._is_kept[i]:
            kept = self._kept[i]
            kept.flags.writeable = False          # of this view
            return kept
        if i in self.damaged:
            raise CorruptImage(self.dataset.names[i], self.damaged[i])
        pixels = square(self._original(i), self.size, self.crop, self.upscale, self.dataset.names[i])
        if self._kept is not None:
            self._kept[i] = pixels
            self._is_kept[i] = True               # after the pixels: another thread may be looking
        return pixels

    def _original(self, i):
        """Picture i as the data set gives it, in mode RGB. Raises CorruptImage, and Expected for what is no PIL picture."""
        picture = self.dataset.picture(i)
        if not isinstance(picture, Image.Image):
            raise Expected(f"data set: picture {i}", "a PIL picture", type(picture).__name__,
                           "PIL.Image.fromarray makes one of a uint8 array (H,W,3)")
        try:
            return picture if picture.mode == "RGB" else to_rgb(picture)
        except ValueError as error:
            raise CorruptImage(self.dataset.names[i], str(error)) from None

    def batches(self, batch_size: int, seed: int, epoch: int, shuffle: bool = True, start: int = 0,
                device: Device = CPU) -> Iterator[tuple[Array, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (pictures uint8 (n,size,size,3) on the device, labels (n,), indices (n,)), n = batch_size but
        for the last batch of the epoch and where pictures are damaged. A batch of which nothing is left has n = 0, so that
        their number is always ceil(len/batch_size).

        `start` leaves out that many batches of the epoch without decoding them: where a resumed run goes on. An exception
        in a thread reaches the caller here; leaving the loop early, in whatever way, ends the threads."""
        return self.those(self.drawn(batch_size, seed, epoch, shuffle, start), device)

    def drawn(self, batch_size: int, seed: int, epoch: int, shuffle: bool = True, start: int = 0) -> list[NDArray[np.int64]]:
        """The indices that the batches of `batches` are made of, those of damaged pictures among them."""
        batch_size, start = check.whole("--batch-size", batch_size), check.whole("start", start, 0)
        seed, epoch = check.seed("--seed", seed), check.seed("epoch", epoch)
        order = shuffled(len(self), seed, epoch) if shuffle else np.arange(len(self))
        return [order[k:k + batch_size] for k in range(start*batch_size, len(self), batch_size)]

    def those(self, drawn: Sequence[NDArray[np.int64]], device: Device = CPU,
              leave_out: Callable[[dict[int, str]], object] | None = None
              ) -> Iterator[tuple[Array, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield batches like those of `batches`, of these indices. `leave_out` is handed {index: reason} of damaged pictures
        that are found, instead of the method of this name: several ranks leave out together what one of them finds."""
        check_device(device)
        ahead = max(2, 2*PIECE*self.workers//max(len(drawn[0]), 1)) if drawn else 2
        return device.prefetch(self._ahead(drawn, ahead, device.pinned, leave_out or self.leave_out))

    def prepare(self, progress: bool = True, what: str = "mean image", ranks: Ranks = ALONE) -> NDArray[np.float32]:
        """The per-pixel mean image, (3,size,size), pixels 0..255, over all pictures that are not damaged.

        The `mean_image` of a BuiltIn set that has one of this size. Else one pass over the set, with a bar called `what`; it
        finds the damaged pictures too. Kept in `cache_folder()` under a fingerprint of the set, so that the next run starts at
        once. Of several `ranks` each looks at a part of the pictures, and the first one alone at what is kept."""
        told = told_by(self.dataset)
        told.expect()
        own = told.mean_image
        if own is not None and own.shape == (3, self.size, self.size):
            return own
        kept = _KeptMean(self)
        found = kept.read() if ranks.is_first else None
        if of_first := ranks.gather(found[0].tobytes() if found else b"")[0]:
            self.leave_out_together(found[1] if found else {}, ranks)
            return np.frombuffer(of_first, np.float32).reshape(3, self.size, self.size).copy()
        total, count, damaged = np.zeros((self.size, self.size, 3), np.int64), 0, {}      # whole numbers: exact in any order
        drawn = self.drawn(64, seed=0, epoch=0, shuffle=False)[ranks.rank::ranks.size]
        with Bar(sum(map(len, drawn)), "picture", what, hidden=not (progress and ranks.is_first)) as bar:
            for pictures, _, indices in self.those(drawn, leave_out=self.leave_out if ranks.size == 1 else damaged.update):
                total += pictures.sum(axis=0, dtype=np.uint32)
                count += len(indices)
                bar.update(count + len(damaged or self.damaged) - bar.n)
        self.leave_out_together(damaged, ranks)
        row = np.array([count, self.all_were_readable, *total.flat], np.int64)
        row = np.sum([np.frombuffer(row, np.int64) for row in ranks.gather(row.tobytes())], axis=0)
        (count, readable), total = row[:2], row[2:].reshape(total.shape)
        mean = np.ascontiguousarray((total/count).transpose(2, 0, 1), np.float32)   # float64 (H,W,3) -> float32 (3,H,W)
        if ranks.is_first and readable == ranks.size:       # else a disk or network may be back at the next run
            kept.write(mean, self.damaged)
        return mean

    def leave_out(self, damaged: dict[int, str], aloud: bool = True) -> None:
        """Enter {index: reason} of damaged pictures, and name those that are new on standard error if `aloud`. Raises Lost
        where they are too many."""
        for i in sorted(damaged.keys() - self.damaged.keys()):
            self.damaged[i] = damaged[i]
            if aloud:
                warn(printable(f"picture left out: {self.dataset.names[i]}: {damaged[i]}"), self.dataset.names[i])
        if len(self.damaged) > (most_damaged(len(self)) if self.may_be_damaged is None else self.may_be_damaged):
            i, reason = next(iter(self.damaged.items()))
            raise Lost("data", damaged_in_words(len(self)), f"{len(self.damaged)} of {len(self)}, the first being "
                       f"{self.dataset.names[i]} ({reason})", "mend or remove them")

    def leave_out_together(self, damaged: dict[int, str], ranks: Ranks) -> None:
        """Leave out what any of the `ranks` has found; `damaged` is what this one has. The first names them."""
        rows = ranks.gather(json.dumps([*damaged.items()]).encode())
        self.leave_out(dict(item for name, row in zip(ranks.names, rows)
                            for item in parsed(name, row, listed(_index_and_reason))),
                       ranks.is_first)

    # ------------------------------------------------------------------------------------------------- threads
    def _ahead(self, batches, ahead, empty, leave_out):
        """Yield the prepared `batches` (arrays of indices) in order, while threads work on the `ahead` that follow, in memory
        that `empty(shape, dtype)` gives."""
        waiting = deque()
        with _threads(self.workers) as (spread, stop):
            for indices in batches:
                pictures = empty((len(indices), self.size, self.size, 3), np.uint8)
                pieces = [slice(k, k + PIECE) for k in range(0, len(indices), PIECE)]
                waiting.append((pictures, indices, spread(partial(self._fill, pictures, indices, stop), pieces)))
                if len(waiting) > ahead:
                    yield self._finished(leave_out, *waiting.popleft())
            while waiting:
                yield self._finished(leave_out, *waiting.popleft())

    def _fill(self, pictures, indices, stop, piece):
        """Prepare the pictures of one piece of a batch; returns {index: reason} of the damaged ones. (The exception itself
        would keep the whole batch in memory through its traceback.)"""
        damaged = {}
        for row, i in zip(pictures[piece], indices[piece].tolist()):
            if stop.is_set():
                break
            try:
                row[:] = self._patiently(i, stop)
            except CorruptImage as error:
                damaged[i] = error.reason
                self.all_were_readable &= error.lasting
        return damaged

    def _patiently(self, i, stop):
        """Picture i. A file that cannot be read is tried once more, a second later, which is what a share that is being
        mounted again or a server that restarts needs: file systems that wait for longer outages do so by themselves. A
        share that stays away is not waited for: the second a picture slows the run down until 1 % is lost and ends it."""
        try:
            return self.picture(i)
        except CorruptImage as error:
            if error.lasting or stop.wait(RETRY):
                raise
        return self.picture(i)

    def _finished(self, leave_out, pictures, indices, found):
        """Wait for a batch's pieces -> the batch without its damaged pictures."""
        try:
            damaged = dict(chain.from_iterable(piece.items() for piece in found))
        except TooSmall as first:
            self._refuse_small(first)
        if damaged:
            leave_out(damaged)
            sound = ~np.isin(indices, list(damaged))
            pictures, indices = pictures[sound], indices[sound]
        return pictures, self.labels[indices], indices

    def _refuse_small(self, first):
        """Raise Expected, which counts all pictures that are too small, for the set in which `first`, a TooSmall, was found."""
        with _threads(self.workers) as (spread, _):
            small = [name for name in spread(self._small, range(len(self))) if name]
        shown = ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED} more" if len(small) > NAMED else "")
        raise TooSmall("data" if len(small) > 1 else first.what, first.expected,
                       f"{len(small)} of {len(self)} that are smaller: {shown}" if len(small) > 1 else first.got,
                       first.advice) from None

    def _small(self, i):
        """Name and size of picture i if it is too small."""
        if self._is_kept[i]:
            return ""
        try:
            check_large_enough(picture := self._original(i), self.crop, self.upscale, self.dataset.names[i])
        except TooSmall as small:
            return f"{small.what} ({small.got})"
        except CorruptImage:
            return ""
        picture.close()
        return ""


def most_damaged(count: int) -> float:
    """Largest number of `count` pictures that may be damaged."""
    return max(MOST_DAMAGED*count, min(FEW_DAMAGED, max(count//10, int(count > 1))))


def damaged_in_words(count: int) -> str:
    """Clause that tells how many pictures may be damaged."""
    most = int(most_damaged(count))
    rule = f"1 % or {FEW_DAMAGED}" if most >= FEW_DAMAGED else "a tenth or 1"
    return f"at most {plural(most, 'damaged picture')}, {rule}" if most else "no damaged pictures"


def shuffled(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..n-1, drawn from (seed, epoch) alone: the numbers in the order of n random 64-bit words.

    Philox is counter-based and NumPy guarantees its raw words for ever, which it does not for its shuffling."""
    return np.random.Philox(key=[seed, epoch]).random_raw(n).argsort(kind="stable")


@contextmanager
def _threads(workers):
    """(spread, stop): `spread(work, items)` is like `map`, its work done by `workers` threads meanwhile or, with none, when
    the results are asked for. At the end of the block `stop` is set and the threads are waited for."""
    stop = threading.Event()
    if not workers:
        yield map, stop
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        try:
            yield pool.map, stop
        finally:
            stop.set()


# ------------------------------------------------------------------------------------------- the kept mean image
def cache_folder() -> Path | None:
    """$ZFCORE_CACHE, else zfcore in $XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    if folder := os.environ.get("ZFCORE_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zfcore"
    except RuntimeError:
        return None


def _index_and_reason(where, value):
    if not isinstance(value, list) or len(value) != 2:
        raise Expected(where, "the number of a picture and a reason", said(value))
    return whole()(where, value[0]), text(2**16)(where, value[1])


class _KeptMean:
    """The file in which the mean image of `pictures` lies or will lie, named after a fingerprint of all that it depends on.

    A cache is a convenience: whatever is wrong with the file is answered by computing again, whatever prevents writing by
    a line on standard error."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.path = None                          # a set without fingerprint is not kept
        folder = cache_folder()
        if folder and hasattr(pictures.dataset, "fingerprint"):
            facts = [pictures.key(), pictures.size, pictures.crop, pictures.upscale, PIL.__version__]
            self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
            self.path = folder / f"mean-{self.fingerprint[:16]}.h5"

    def read(self):
        """(mean, {index: reason}), or None where there is no whole file of this fingerprint."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with open_h5(self.path) as file:
                size = self.pictures.size
                mean, damaged = file.array("mean_image", np.float32, (3, size, size), finite=True), file.text("damaged")
                whole = file.attribute("digest", text()) == self._digest(mean, damaged)
            return (mean, dict(parsed(self.path, damaged, listed(_index_and_reason)))) if whole else None
        except (OSError, Expected):
            return None

    def write(self, mean, damaged):
        """All or nothing."""
        if self.path is None:
            return
        damaged = json.dumps(list(damaged.items()))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new_hdf5(self.path) as file:
                file["mean_image"], file["damaged"] = mean, damaged
                file.attrs.update(format="zfcore mean image", digest=self._digest(mean, damaged))
        except (OSError, Expected) as error:
            warn(f"the mean image is not kept for the next run: {error}")

    def _digest(self, mean, damaged):
        facts = f"{self.fingerprint} {damaged} {mean.shape} {mean.dtype} "
        return hashlib.sha256(facts.encode() + mean.tobytes()).hexdigest()
