"""Split of a set without parts: pictures for training and pictures for validation.

By name: the hash of a picture's path below the set's folder, a number in [0, 1), is below the fraction for those of validation.
So a picture stays in its part whatever else is added, taken away or moved with the set, but for two reasons. Near-duplicates
within a class (`alike.near_duplicates`), such as a series of shots of one thing, go where the first of them by name goes, also
those that were there before: a network that has learned one knows the others. And each class has at least one picture in both
parts, if it has two; its only one is learned. Where all of a class fall into one part, as few do, the nearest to the other part
changes over, and back when others are added that lie there.

Thumbnails to find them by are made once and kept in `cache_folder()`, under the set's place.
"""
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from unicodedata import normalize

import numpy as np

from zfcore import check
from zfcore.checkpoint import new_hdf5
from zfcore.cpu import CORES
from zfcore.data.alike import SIDE, near_duplicates, thumbnails
from zfcore.data.loader import cache_folder
from zfcore.data.transforms import CorruptImage, decode, square
from zfcore.files import text
from zfcore.hdf5 import open_h5
from zfcore.terminal import Bar, plural, printable, warn

# pictures; among more, near-duplicates are not looked for: that would take longer than an epoch
MOST = 50_000
STEPS = 2**11                     # of a thumbnail's values: their products then add up exactly, on every machine alike
KEY = 16                          # bytes of a digest of a picture's name, size and time


def check_fraction(what, value):
    """Raise Expected unless `value` is the share of a set that is for validation."""
    check.number(what, value)
    if not 0 < value < 1:
        raise check.Expected(what, "a share of the pictures, 0 < share < 1", value)


def split(root, dataset, fraction, say, lacks="parts train and val"):
    """bool (n,), True for pictures of validation, of the data set of files `dataset` at `root`, which `lacks` that. `say` is
    told what is chosen."""
    labels, n = dataset.labels, len(dataset)
    leaders = np.arange(n)                                 # of each picture, the first by name of those that are like it
    if n <= MOST:
        thumbs = kept_thumbnails(root, dataset)
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            leaders[of_class] = of_class[grouped(thumbs[of_class])]
    places = np.array([place(dataset.below(i)) for i in range(n)])
    is_val = sides(places, labels, leaders, fraction)
    alike = f"{plural(int((leaders != np.arange(n)).sum()), 'near-duplicate')} kept with the like" if n <= MOST else \
        f"near-duplicates not looked for among more than {MOST} pictures"
    say(f"{root}: no {lacks}, so for validation {int(is_val.sum())} of {plural(n, 'picture')}, by their names "
        f"(--val-fraction {fraction:g}; {alike})")
    return is_val


def place(name):
    """The number in [0, 1) of a name, in whatever Unicode form it is written."""
    digest = hashlib.sha256(normalize("NFC", name).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big")/2**48


def sides(places, labels, leaders, fraction):
    """bool (n,): `places` (n,) below `fraction`, each picture's being that of its leader; then of each class that has two
    pictures one group, or of a class that is one group one picture, is moved if all are on one side."""
    by_group = places[leaders]
    is_val = by_group < fraction
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < 2:
            is_val[of_class] = False
        elif len(set(is_val[of_class].tolist())) == 1:
            one_group = len(set(leaders[of_class].tolist())) == 1
            numbers = (places if one_group else by_group)[of_class]
            nearest = numbers.max() if is_val[of_class[0]] else numbers.min()      # to the other side
            moved = of_class[numbers == nearest]
            is_val[moved[:1] if len(moved) == len(of_class) else moved] ^= True
    return is_val


def grouped(thumbs):
    """int64 (n,): for each of n thumbnails the first of those that it is like, or like one that is like ..."""
    leaders = np.arange(len(thumbs))

    def leader(k):
        while leaders[k] != k:
            leaders[k] = k = leaders[leaders[k]]
        return k

    found = near_duplicates(thumbs, thumbs)
    for one, other in zip(found.first.tolist(), found.second.tolist()):
        if one < other:
            first, last = sorted((leader(one), leader(other)))
            leaders[last] = first
    return np.array([leader(k) for k in range(len(thumbs))], np.int64)


# ---------------------------------------------------------------------------------------------------------- thumbnails
def kept_thumbnails(root, dataset):
    """float32 (n,1024) of the data set's pictures, all zeros for damaged ones: kept ones, and those of new or changed files."""
    keys = [dataset.stamp(i) for i in range(len(dataset))]
    folder = cache_folder()
    path = folder and folder/f"thumbnails-{hashlib.sha256(os.path.realpath(root).encode(errors='surrogateescape')).hexdigest()[:16]}.h5"
    known = _read(path)
    missing = [i for i, key in enumerate(keys) if key not in known]
    with ThreadPoolExecutor(CORES, thread_name_prefix="thumbnails") as pool, \
            Bar(len(missing), "picture", "looking for near-duplicates") as bar:
        for i, thumb in zip(missing, pool.map(lambda i: thumbnail(dataset, i), missing)):
            known[keys[i]] = thumb
            bar.update()
    thumbs = np.stack([known[key] for key in keys])
    if missing and path:
        _write(path, keys, thumbs)
    return thumbs.astype(np.float32)


def thumbnail(dataset, i):
    """float16 (1024,), in whole steps of 1/STEPS; all zeros for a damaged picture."""
    try:
        picture = decode(dataset.names[i], dataset.read(i), SIDE)
    except CorruptImage:
        return np.zeros(SIDE*SIDE, np.float16)
    found = thumbnails(square(picture, 2*SIDE, 1, upscale=True)[None])[0]
    return (np.rint(found*STEPS)/STEPS).astype(np.float16)


def _read(path):
    """{key: thumbnail} of the file at `path`; {} where there is none that is whole."""
    if path is None or not path.is_file():
        return {}
    try:
        with open_h5(path) as file:
            keys = file.array("keys", np.uint8, (None, KEY))
            thumbs = file.array("thumbnails", np.float16, (len(keys), SIDE*SIDE), finite=True)
            whole = file.attribute("digest", text()) == _digest(keys, thumbs)
        return dict(zip(map(bytes, keys), thumbs)) if whole else {}
    except (OSError, check.Expected):
        return {}


def _write(path, keys, thumbs):
    keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_hdf5(path) as file:
            file["keys"], file["thumbnails"] = keys, thumbs
            file.attrs.update(format="zfcore thumbnails", digest=_digest(keys, thumbs))
    except (OSError, check.Expected) as error:
        warn(f"the thumbnails are not kept for the next run: {printable(error)}")


def _digest(keys, thumbs):
    return hashlib.sha256(keys.tobytes() + thumbs.tobytes()).hexdigest()
