"""Floor 4: pictures with labels. `open_data` is the one door; what it returns are data sets as `loader.DataSet` says."""
import os
from pathlib import Path

from zfcore import check, networks
from zfcore.check import Expected
from zfcore.data.cifar import is_cifar, open_cifar
from zfcore.data.folders import VAL_FRACTION, open_folders
from zfcore.data.imagenet import looks_like_imagenet, open_imagenet
from zfcore.data.loader import DataSet
from zfcore.data.packed import SUFFIXES, open_packed
from zfcore.data.split import check_fraction
from zfcore.data.synthetic import SETS, VERSION, Synthetic
from zfcore.files import said
from zfcore.hints import FilePath

DRAWN = "drawn:"                                 # before the name of a set of `SETS`
OBJECTS = DRAWN + "objects"                      # what "" stands for
IN_WORDS = {"objects": "the synthetic set", "combinations": "the drawn combinations",
            "unseen": "the drawn combinations that are kept apart"}
PER_CLASS = {"objects": (400, 100), "combinations": (100, 20), "unseen": (60, 20)}      # pictures to train, to validate on


def open_data(data: FilePath, size: int, limit_per_class: int = 0,
              val_fraction: float | None = VAL_FRACTION) -> tuple[DataSet, DataSet]:
    """(train, val) data sets of the packed file, the ILSVRC2012 tree, the CIFAR files, or the class folders or tars at `data`;
    or a drawn set at `size` pixels: "drawn:objects", which is also "", "drawn:combinations" or "drawn:unseen". Of class folders
    without parts `val_fraction` is for validation; None: all of them, train being empty, and pictures without classes will do.
    Raises Expected, one sentence, for whatever is missing, damaged or inconsistent there."""
    data = said_place(data)
    size, limit_per_class = check.whole("--size", size), check.whole("--limit-per-class", limit_per_class, 0)
    if val_fraction is not None:
        check_fraction("--val-fraction", val_fraction)
    if is_drawn(data):
        return _open_drawn(data, size, limit_per_class)
    try:
        os.stat(data)
    except FileNotFoundError:
        pass                                               # told by whoever looks for it
    except (OSError, ValueError) as error:                 # a name too long, with a zero byte, or where one may not look
        reason = getattr(error, "strerror", error)
        raise Expected("--data", "a place that can be looked at", f"{said(data)} ({reason})") from None
    if Path(data).suffix.lower() in SUFFIXES:
        return open_packed(data, limit_per_class, size)
    if looks_like_imagenet(data):
        return open_imagenet(data, limit_per_class, size)
    if is_cifar(data):
        return open_cifar(data, limit_per_class)
    return open_folders(data, limit_per_class, size, val_fraction)


def said_place(data: object) -> str:
    """`data`, as `open_data` takes it, as a str. Raises Expected for what is no name and no path."""
    if not isinstance(data, (str, os.PathLike)):
        raise Expected("data", "a folder, a file or the name of a drawn set", said(data), "a data set of one's own is no such "
                       "place: Pictures and the method `prepared` of a trained network take it")
    return os.fsdecode(data)


def same_place(one: str | None, other: str | None) -> bool:
    """Return whether two names of data, as `open_data` takes them, are of the same set; None is that of no known one."""
    if one is None or other is None:
        return False
    if is_drawn(one) or is_drawn(other):
        return (one.removeprefix(DRAWN) or "objects") == (other.removeprefix(DRAWN) or "objects") and is_drawn(one) == is_drawn(other)
    return Path(one).resolve() == Path(other).resolve()


def lasting(data: str | None) -> str | None:
    """`data`, as `open_data` takes it, so that it means the same from any folder."""
    return data if data is None or is_drawn(data) else os.path.abspath(data)


def known_place(data: str | None, dataset: DataSet) -> str | None:
    """The place at which `dataset`, on which is trained, is found again: `data`, if that names one; None where it does not, and
    the data set is not the drawn one for which the empty name stands."""
    return data if data or isinstance(dataset, Synthetic) and dataset.drawings is SETS["objects"] else None


def check_there(data: str | None) -> None:
    """Raise Expected where nothing lies at `data`, at which a run found its pictures, or nobody knows where that was."""
    if data is None:
        raise Expected("--data", "the pictures, since those that this network was trained on are not known: it comes from "
                       "elsewhere, or was given data sets of somebody's own", "none",
                       "in Python `pictures` takes a folder, `prepared` a data set, and `Training.resume` data=(train, val)")
    if not is_drawn(data) and not os.path.exists(data):
        raise Expected("--data", "the run's pictures", f"{said(data, 1000)}, which does not exist",
                       "--data NEW names where they are now")


def is_drawn(data: str | None) -> bool:
    """Return whether `data`, as `open_data` takes it, asks for a drawn set."""
    return data is not None and (not data or data.startswith(DRAWN))


def data_in_words(data: str | None) -> str:
    """Words by which a sentence calls the set at `data`."""
    if data is None:
        return "a data set given in Python"
    return IN_WORDS.get(data.removeprefix(DRAWN) or "objects", data) if is_drawn(data) else data


def _open_drawn(data, size, limit_per_class):
    name = data.removeprefix(DRAWN) or "objects"
    if data and name not in SETS or data == DRAWN:
        raise Expected("--data", "one of " + ", ".join(DRAWN + known for known in SETS), repr(data))
    drawings = SETS[name]
    counts = [len(drawings.classes)*min(limit_per_class or most, most) for most in PER_CLASS[name]]
    mean = networks.mean_image(learned_from(size, counts[0])) if name == "objects" else None
    train = Synthetic("train", counts[0], size, drawings=drawings, keep=True, mean_image=mean)
    return train, Synthetic("val", counts[1], size, drawings=drawings, keep=True, mean_image=mean, before=train)


def learned_from(size: int, count: int) -> dict[str, int]:
    """Facts by which the card of a network tells that it was trained on `count` drawn pictures of the ten objects."""
    return {"size": size, "drawings": VERSION, "count": count}
