"""Floor 4: pictures with labels. `open_data` is the one door; what it returns are data sets with

    classes   list of class names              labels   int64 (n,)          names   list, one a picture, for messages
    len(d)    how many pictures                d.picture(i)   a PIL picture, or raises `transforms.Damaged`
"""
from pathlib import Path

from zfcore.check import Expected
from zfcore.data.cifar import is_cifar, open_cifar
from zfcore.data.folders import open_folders
from zfcore.data.imagenet import looks_like_imagenet, open_imagenet
from zfcore.data.packed import SUFFIXES, open_packed
from zfcore.data.synthetic import SETS, SPLITS, Synthetic

DRAWN = "drawn:"                                 # before the name of an embedded set
PER_CLASS = {"objects": (400, 100), "combinations": (100, 20), "unseen": (60, 20)}      # pictures to train, to validate on


def open_data(data, size, limit_per_class=0):
    """(train, val) data sets of the packed file, the ILSVRC2012 tree, the CIFAR files, or the class folders or tars at `data`;
    or a drawn set at `size` pixels: "drawn:objects", which is also "", "drawn:combinations" or "drawn:unseen"."""
    if not data or data.startswith(DRAWN):
        return open_drawn((data or DRAWN + "objects").removeprefix(DRAWN), size, limit_per_class)
    if Path(data).suffix.lower() in SUFFIXES:
        return open_packed(data, limit_per_class, size)
    if looks_like_imagenet(data):
        return open_imagenet(data, limit_per_class, size)
    if is_cifar(data):
        return open_cifar(data, limit_per_class)
    return open_folders(data, limit_per_class, size)


def open_drawn(name, size, limit_per_class=0):
    """(train, val) of a drawn set, by its name in `SETS`."""
    if name not in SETS:
        raise Expected(f"data {DRAWN}{name}", " or ".join(DRAWN + known for known in SETS), DRAWN + name)
    drawings = SETS[name]
    return tuple(Synthetic(split, len(drawings.classes)*min(limit_per_class or most, most), size, drawings=drawings)
                 for split, most in zip(SPLITS, PER_CLASS[name]))
