"""Caltech-101 and Caltech-256, and the paper's protocol on them (tables 4, 5, 7, figure 9).

    101_ObjectCategories/accordion/image_0001.jpg      101 classes and BACKGROUND_Google
    256_ObjectCategories/001.ak47/001_0001.jpg         256 classes and 257.clutter

One set without parts: `splits` draws training and test pictures anew for each fold. The paper draws 15 or 30 pictures a
class to train on, tests on at most 50 of the others, and averages the accuracies of the classes, whatever their number of
test pictures; five folds. It does not say whether the background is a class (here it is left out unless asked for), how
many test pictures there were on Caltech-256, or what stands behind its "+-" (here: the standard deviation over folds).
"""
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.check import Expected
from zfcore.data.folders import ClassFolders, Folder, Tar, checked, some, told_apart
from zfcore.data.loader import DataSet, shuffled
from zfcore.hints import FilePath, Ints
from zfcore.terminal import plural

TREES = ("101_ObjectCategories", "256_ObjectCategories")
BACKGROUND = ("BACKGROUND_Google", "257.clutter")
PICTURE = re.compile(r"[^/]+/(image|\d{3})_\d{4}\.jpe?g", re.IGNORECASE)     # as both sets name theirs


def open_caltech(root: FilePath, background: bool = False, shorter_side: int | None = None) -> DataSet:
    """The data set (see `zfcore.data.folders`) at `root`: one of `TREES`, an uncompressed tar of one, or a folder that holds
    one of these. Such a tree is known by its name or, renamed, by how its pictures are named.

    Classes are sorted by folder; "001.ak47" is called ak47, and "251.airplanes-101", which Caltech-256 took over from
    Caltech-101, airplanes. What lies deeper than class folders (256's 056.dog has such a folder) belongs to no class.
    `background` keeps the pictures of no class as one more class. Raises Expected."""
    root = Path(root)
    try:
        source, prefix = _find_tree(root)
        listing = source.classes(prefix)
    except OSError as error:
        raise Expected(root, "a folder or tar that can be read", f"{error.strerror} ({error.filename})") from None
    listing = {folder: [path for path in paths if path.count("/") < 2] for folder, paths in listing.items()}
    if not any(PICTURE.fullmatch(path) for paths in listing.values() for path in paths):
        raise Expected(root, f"{' or '.join(TREES)}, class folders with pictures named image_0001.jpg or 001_0001.jpg",
                       f"folders {some(sorted(listing))}" if any(listing) else "no class folders")
    if not background:
        listing = {folder: paths for folder, paths in listing.items() if folder not in BACKGROUND}
    listing = checked(root, listing)
    folders = sorted(listing)
    if len(folders) < 2:
        raise Expected(root, "at least two classes", f"only {folders[0]!r}")
    classes = told_apart([re.sub(r"^\d{3}\.(.+?)(-101)?$", r"\1", folder) for folder in folders], folders)
    tree = next((tree for tree in TREES if f"/{tree}/" in f"/{source.path}/{prefix}"), root.resolve().stem)
    return ClassFolders(tree, source, prefix, classes, [listing[folder] for folder in folders], 0, shorter_side)


def _find_tree(root):
    """(source, prefix): what the prefix is put before is <class folder>/<name>."""
    if root.is_dir():
        inside = [root/name for tree in TREES for name in (tree, f"{tree}.tar", f"{tree}.tar.gz") if (root/name).exists()]
        if {path.name.split(".")[0] for path in inside} == set(TREES):
            raise Expected(root, "one of the two sets", "both", f"give {' or '.join(map(str, inside))}")
        if not inside or inside[0].is_dir():
            return Folder(inside[0] if inside else root), ""
        root = inside[0]
    elif not root.exists():
        raise Expected(root, "a folder or a tar", "nothing, it does not exist")
    tar = Tar(root)
    around = {found[0] for name in tar.members if (found := re.match(f"(.*/)?({'|'.join(TREES)})/", name))}
    if len(around) > 1:
        raise Expected(root, "one of the two sets", some(sorted(around)), "unpack it and give one of these folders")
    return tar, around.pop() if around else ""


# ---------------------------------------------------------------------------------------------- the paper's protocol
def splits(labels: NDArray[np.int64], train_per_class: int, test_most: int = 50, fold: int = 0, seed: int = 0,
           classes: Sequence[str] | None = None, without: Ints = ()) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(train, test): the numbers of the pictures to train and to test on in one fold, int64, ascending.

    labels           int (n,), numbers of classes
    train_per_class  pictures of each class in train
    test_most        at most so many of each class's others in test; 0: all of them
    classes          their names, for the sentence about a class that is too small
    without          numbers of classes left out of both, such as `small_classes` finds

    Each (seed, fold) puts the pictures in an order of its own; a class's first `train_per_class` in it are trained on, its
    last `test_most`, as far as they are not, are tested on. So the training pictures for 15 a class are among those for 30,
    and the test pictures stay the same in every class that has enough: a curve over the number shows what the number does
    and not the luck of the draw. Raises Expected where a class has fewer than train_per_class + 1 pictures."""
    labels = np.asarray(labels)
    train_per_class = check.whole("training pictures per class", train_per_class)
    test_most = check.whole("test pictures per class", test_most, 0)
    fold, seed = check.seed("fold", fold), check.seed("seed", seed)
    small = np.setdiff1d(small_classes(labels, train_per_class), without)
    if len(small):
        found = [f"{(labels == c).sum()} of {classes[c] if classes else f'class {c}'}" for c in small]
        raise Expected("training pictures per class", f"{train_per_class} of each class and one more to test on",
                       ", ".join(found[:3]) + (f" and {plural(len(found) - 3, 'more class')}" if len(found) > 3 else ""),
                       f"take at most {min(np.bincount(labels)[small]) - 1}, or leave the class out")
    kept = np.setdiff1d(labels, without)
    if not len(kept):
        raise Expected("classes", "at least one that is not left out", "none")
    order = shuffled(len(labels), seed, fold)
    orders = [order[labels[order] == c] for c in kept]
    return (np.sort(np.concatenate([of_class[:train_per_class] for of_class in orders])),
            np.sort(np.concatenate([of_class[train_per_class:][-test_most:] for of_class in orders])))


def small_classes(labels: NDArray[np.int64], train_per_class: int) -> NDArray[np.int64]:
    """The classes in which `train_per_class` pictures for training would leave none to test on, int64, ascending."""
    numbers, counts = np.unique(labels, return_counts=True)
    return numbers[counts <= train_per_class]


def mean_per_class_accuracy(predicted: Ints, labels: Ints, classes: int) -> float:
    """The mean over classes of the share of each class's pictures that is predicted right, 0..1.

    predicted, labels  (n,)        classes  how many there are; those without a picture do not count

    Raises Expected for no picture, and for predictions of another number."""
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    check.shape("predicted", predicted, labels.shape)
    if not len(labels):
        raise Expected("labels", "at least one picture", "none")
    pictures = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    return float((right[pictures > 0]/pictures[pictures > 0]).mean())


def over_folds(accuracies: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """(mean, spread) of one number a fold. The spread is the standard deviation, with n - 1 below; NaN for one fold."""
    accuracies = np.asarray(accuracies, np.float64)
    return float(accuracies.mean()), float(accuracies.std(ddof=1)) if len(accuracies) > 1 else float("nan")
