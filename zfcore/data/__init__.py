"""Floor 4: pictures with labels. `open_data` is the one door; what it returns are data sets with

    classes   list of class names              labels   int64 (n,)          names   list, one a picture, for messages
    len(d)    how many pictures                d.picture(i)   a PIL picture, or raises `transforms.Damaged`
"""
from pathlib import Path

from zfcore.data.cifar import is_cifar, open_cifar
from zfcore.data.folders import open_folders
from zfcore.data.imagenet import looks_like_imagenet, open_imagenet
from zfcore.data.packed import SUFFIXES, open_packed
from zfcore.data.synthetic import Synthetic

SYNTHETIC_TRAIN, SYNTHETIC_VAL = 4000, 1000      # pictures of the embedded set


def open_data(data, size, limit_per_class=0):
    """(train, val) data sets of the packed file, the ILSVRC2012 tree, the CIFAR files, or the class folders or tars at `data`,
    or the synthetic set at `size` pixels if it is ""."""
    if Path(data).suffix.lower() in SUFFIXES:
        return open_packed(data, limit_per_class, size)
    if data and looks_like_imagenet(data):
        return open_imagenet(data, limit_per_class, size)
    if data and is_cifar(data):
        return open_cifar(data, limit_per_class)
    if data:
        return open_folders(data, limit_per_class, size)
    limit = 10*limit_per_class
    return (Synthetic("train", min(limit, SYNTHETIC_TRAIN) if limit else SYNTHETIC_TRAIN, size),
            Synthetic("val", min(limit, SYNTHETIC_VAL) if limit else SYNTHETIC_VAL, size))
