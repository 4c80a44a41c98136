"""A run's folder: made once, one run at a time in it, its config.json and the list of its pictures."""
import json
import os
import platform
import socket
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np

import zfcore
from zfcore import check
from zfcore.checkpoint import GOES_ON, atomic, load, others_beside, save, write_csv
from zfcore.data.folders import PARTS, is_system, some
from zfcore.data.known import COLUMNS, PICTURES, lengths, listed_pictures, listed_places, places
from zfcore.data.synthetic import Synthetic
from zfcore.device import select
from zfcore.files import anything, folder_made, inside, locked, read_json, read_text, said, table, text
from zfcore.networks import names
from zfcore.terminal import called, command, plural, printable, warn
from zfcore.training.config import NAMES, NEWER, TrainConfig, read_options
from zfcore.training.deviations import deviations, open_questions



class Busy(check.Expected):
    """Refusal of a folder in which somebody else is at work."""


class Lock:
    """`with Lock(folder):` nobody else trains in `folder` meanwhile. Raises Busy where somebody does, or waits for their end.

    The system drops a lock with the process that holds it, however that ends; the file `.lock`, or another `name`, that stays
    means nothing but holds the process id and its machine for the sentence. Who only reads needs no lock: every file of a run
    is replaced whole.
    Where there are no such locks (some network file systems) training goes on without. Raises Expected where one cannot be had
    for another reason."""

    def __init__(self, folder, name=".lock", wait=False):
        self.folder, self.name, self.wait, self.descriptor = Path(folder), name, wait, None

    def __enter__(self):
        path = self.folder/self.name
        try:
            self.descriptor = locked(path, self.wait)
        except BlockingIOError:
            owner = printable(read_text(path)[:300]) or "that has just begun"
            raise Busy(self.folder, "a folder in which no other run is at work", f"process {owner} training there",
                       "wait for its end, or stop it: with Ctrl-C, or where nobody hears that any more by kill") from None
        if self.descriptor is not None:
            with suppress(OSError):                        # another user's file, which may only be read, or a full disk
                os.ftruncate(self.descriptor, 0)
                os.write(self.descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
        return self

    def __exit__(self, *_):
        if self.descriptor is not None:
            os.close(self.descriptor)


START = PICTURES, "latest.h5"                              # what a run may write before the config.json that makes a folder one
OUTPUT, RESUME = (partial(called, option, "folder") for option in ("--output", "--resume"))      # as the doors of Training


def check_path(what, folder):
    """Raise Expected, calling it `what`, unless it is a path that a folder can have."""
    check.instance(what, folder, (str, os.PathLike))
    try:
        os.stat(folder)
        return
    except (FileNotFoundError, NotADirectoryError):        # told by whoever makes it or looks for it
        reason = "" if os.fspath(folder) else "an empty name"
    except (OSError, ValueError) as error:                 # too long, with a zero byte, or where one may not look
        reason = f"{said(folder)} ({getattr(error, 'strerror', None) or error})"
    if reason:
        raise check.Expected(what, "a path that a folder can have", reason)


def new_folder(config, output=None, origin=None, counts=None, before=None):
    """Make the folder of a new run, runs/<date>-<time>-<model> if `output` is None, and write config.json into it, which makes
    it one; `before` is called with the folder to write what must be there by then. Of two runs that do so at the same moment one
    is refused."""
    with empty_folder(output, config.model) as folder, Lock(folder):
        if (folder/"config.json").exists():                # since it was looked at
            raise check.Expected(OUTPUT(), "a new or empty folder", f"{folder}, in which another run has just begun",
                                 "name another")
        try:
            clear(folder, *START)                          # of a run that was killed as it began; this one may write none
            if before:
                before(folder)
            write_config(folder, config, origin, counts)
        except BaseException:
            clear(folder, *START, ".lock")                 # nothing is left then, and the folder vanishes
            raise
    return folder


def clear(folder, *names):
    """Remove these files of a folder, as far as they are there."""
    for name in names:
        with suppress(OSError):
            (folder/name).unlink()


def dated(name):
    """The folder of a run that was given none: runs/<date>-<time>-<name>."""
    return Path("runs")/f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


@contextmanager
def empty_folder(output, name):
    """`with empty_folder(output, name) as folder:` make the folder `output`, or runs/<date>-<time>-<name>, which vanishes if it
    stays empty and the block fails. A folder that holds something is refused."""
    folder = checked_empty(Path(output) if output else dated(name))
    with folder_made(folder, OUTPUT()):
        yield folder


def checked_empty(folder):
    """The folder, which is not there or holds nothing but what is `left` of a run that was killed as it began. Raises Expected
    for another."""
    if folder.exists() and not folder.is_dir():
        raise check.Expected(OUTPUT(), "a new or empty folder", f"{folder}, a file", "name another")
    if folder.exists() and not all(map(left, folder.iterdir())):
        go_on = f"go on with it by {command('python', '-m', 'train', '--resume', folder)}, or "
        raise check.Expected(OUTPUT(), "a new or empty folder", f"{folder}, which holds something",
                             f"{go_on if (folder/'config.json').is_file() else ''}name another")
    return folder


def left(path):
    """True for what a run leaves that was killed before it had a config.json: nothing that was trained, and nothing of others;
    nor is anything what a system puts into folders that it shows."""
    if path.suffix == ".part" or is_system(path.name):
        return True
    with suppress(check.Expected, OSError):
        if path.name == PICTURES:
            return any(listed_pictures(path))
        if path.name == "latest.h5":
            checkpoint = load(path, velocity=False)
            return checkpoint.step == 0 and GOES_ON.keys() <= checkpoint.state.keys()          # else an imported network, say
    return False


def write_config(folder, config, origin=None, counts=None):
    """config.json: every option, where they differ from the paper's recipe, and the versions and device that the run has;
    when it started and from which weights (an Origin) stays as it was first written."""
    versions = {"zfcore": zfcore.__version__, "python": platform.python_version(), "numpy": np.__version__,
                "h5py": h5py.__version__}
    started, start = time.strftime("%Y-%m-%d %H:%M:%S"), origin and origin.facts
    if (folder/"config.json").is_file():
        before = read_json(inside(folder, "config.json"), table({"started": text()}, others=anything))
        started, start = before["started"], start or before.get("init_from")
    content = {"options": asdict(config), "device": select(config.device).description, "versions": versions,
               "started": started, "init_from": start,
               "departures": [entry._asdict() for entry in deviations(config, counts, start)],
               "open_questions": [entry._asdict() for entry in open_questions(config, start)]}
    with atomic(folder/"config.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def stored_config(folder):
    """The TrainConfig in a run's config.json. A run that was stopped before its first checkpoint has nothing else, and
    begins again; one that has lost its latest.h5 is refused."""
    folder = Path(folder)
    begun = any(inside(folder, path.name) for path in folder.glob("*.h5"))
    begins = f"{command('python', '-m', 'train', '--init-from', folder)} begins a run with its weights"
    if not (folder/("latest.h5" if begun else "config.json")).is_file():
        from_weights = folder.is_file() or str(folder) in names()
        raise check.Expected(RESUME(), "a run's folder with a latest.h5", folder if from_weights or folder.exists() else
                             f"{folder}, which does not exist", begins if from_weights else others_beside(folder/"latest.h5"))
    if begun and not (folder/"config.json").is_file() and left(folder/"latest.h5"):
        raise check.Expected(RESUME(), "a run's folder with a config.json", f"{folder}, where a run was killed as it began",
                             "a new run may have that folder")
    options = read_options(inside(folder, "config.json"))
    if missing := [name for name in NAMES if name not in options and name not in NEWER]:
        raise check.Expected(folder/"config.json", "all options of the run", f"none called {missing[0]}",
                             f"put the file back as it was{f', or {begins}' if begun else ''}")
    return TrainConfig(**options)


def stamp(path):
    """(bytes, time of the last change) by which a file is known not to have been written since; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def check_unchanged(path, known, advice):
    """Raise Expected where a checkpoint lies at `path` that is not the one whose `stamp` is `known`: it would be written over.
    Where there is none any more, none is lost."""
    if stamp(path) not in (None, known):
        raise check.Expected(path, "the checkpoint that this Training wrote or read last", "one that another has written since", advice)


def tell_unusable(path, epochs):
    """Tell, on standard error, what is wrong with the best epoch's checkpoint of a run of so many epochs, and what to do."""
    if epochs and not path.exists():
        warn(f"{path} is not there: it comes again with the first epoch that is better than all before", path)
    elif epochs:
        try:
            load(inside(path.parent, path.name), velocity=False)
        except check.Expected as sentence:
            warn(sentence, path)


# ------------------------------------------------------------------------------------------------------- its pictures
def write_pictures(folder, train, val):
    """pictures.csv: part, class, name and, where it is known, bytes of every picture of these two data sets. Drawn ones, which
    their name says all about, have none."""
    if not isinstance(train, Synthetic):
        write_csv(folder/PICTURES, (row for part, of in zip(PARTS, (train, val)) for row in rows_of(part, of)), *COLUMNS)


def rows_of(part, dataset):
    """Yield (part, class, name, bytes or "") of each picture."""
    for name, label, size in zip(dataset.names, dataset.labels.tolist(), lengths(dataset)):
        yield part, dataset.classes[label], name, size


def check_pictures(folder, train, val, data, aloud=True):
    """True where there is a list of the run's pictures. Raises Expected unless the two data sets of `data` have those, each in
    its class, wherever they lie now. Those whose files have other sizes are named on standard error, if `aloud`; what is in the
    files is not compared."""
    if isinstance(train, Synthetic) or not (path := inside(folder, PICTURES)).is_file():
        return False
    count, faults, changed = compared(path, train, val)
    another = (f"Training.begin(TrainConfig(init_from={str(folder)!r}, ...), data=(train, val))" if data is None else
               command("python", "-m", "train", "--data", data or "FOLDER", "--init-from", folder))
    if faults:
        raise check.Expected(f"--resume {folder}", f"the {plural(count, 'picture')} that the run began with", faults,
                             f"put them back as they were, or begin another run with these and its weights: {another}")
    if changed and aloud:
        warn(printable(f"{folder}: of {plural(count, 'picture')} {len(changed)} changed since the run began, which goes "
                       f"on with what there is now: {some(changed)}"))
    return True


def compared(path, train, val):
    """(number of the pictures that the list at `path` has, words for which of them are missing, moved or new in these two data
    sets, wherever those lie now, or for another order, names of those whose files have other sizes)."""
    there, gone, changed, now = defaultdict(list), [], [], []
    for part, dataset in zip(PARTS, (train, val)):
        for at, row in zip(places(part, dataset), rows_of(part, dataset)):
            there[at].append(row)
            now.append(at)
    listed = [*listed_pictures(path)]
    before = listed_places(listed, set(there))
    for at, row in zip(before, listed):
        if not there[at]:
            gone.append(row)
        elif "" not in (sizes := (row[3], there[at].pop(0)[3])) and sizes[0] != sizes[1]:
            changed.append(row[2])
    faults = _faults(gone, [row for rows in there.values() for row in rows])
    # the draws of crops and batches are by a picture's number
    return len(listed), faults or ("" if now == before else "the same in another order"), changed


def _faults(gone, new):
    """Words for rows (part, class, name, bytes) that are `gone` and `new`; those that have but one counterpart of the same file
    name and size were moved."""
    def by_file(rows):
        found = defaultdict(list)
        for row in rows:
            found[row[2].rpartition("/")[2], row[3]].append(row)
        return found

    before, now = by_file(gone), by_file(new)
    moved = [key for key in before if len(before[key]) == len(now[key]) == 1]
    ways = [_way(*before.pop(key), *now.pop(key)) for key in moved]
    missing, added = ([name for rows in left.values() for _, _, name, _ in rows] for left in (before, now))
    return ", ".join(f"{len(names)} {what} ({some(names, shown=shown)})" for names, what, shown in
                     ((missing, "missing", repr), (ways, "moved", str), (added, "new", repr)) if names)


def _way(before, now):
    """Words for the way of a picture between two rows."""
    (part, of, name, _), (its_part, its, other, _) = before, now
    if name != other:
        return f"{name!r} to {other!r}"
    return f"{name!r} from {part} to {its_part}" if part != its_part else f"{name!r} from class {of} to {its}"


def move(folder, data):
    """Let the checkpoints that the run keeps, beside the latest one, say that its pictures lie at `data` now; None: that nobody
    knows where."""
    for path in (folder/"best.h5", *folder.glob("epoch_*.h5")):
        with suppress(check.Expected):                     # one that is missing or damaged stays as it is
            kept = load(inside(folder, path.name))
            others = {key: value for key, value in kept.state.items() if key != "data"}
            save(path, replace(kept, state={**others, **place_in_state(data)}))


def place_in_state(data):
    """Entry of a checkpoint's state that says where the pictures lie; none where nobody knows."""
    return {} if data is None else {"data": data}
