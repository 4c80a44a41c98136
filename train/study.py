"""A study: a folder, the options that all its numbers have in common, and its work, a unit at a time, each done once.

    DIR/study.json      the options, remembered and compared
    DIR/.lock           or a lock a unit, of whoever is at work
    DIR/<name>/         an ordinary run, for each network that the study trains; what it prints goes into its output.txt, and a
                        failed.txt says why it could not be trained
    DIR/<name>.h5       a result that was computed once

What is finished is not done again, what was stopped or killed goes on, and what failed is tried again: a study may be begun
again at any time."""
import json
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from zfcore import check, results
from zfcore.checkpoint import atomic
from zfcore.crew import Unit
from zfcore.data import same_place
from zfcore.data.folders import is_system
from zfcore.data.known import PICTURES
from zfcore.data.loader import Pictures
from zfcore.files import folder_made, inside, opener, read_json
from zfcore.terminal import Bar
from zfcore.training import TrainConfig, Training, evaluate, predict
from zfcore.training.config import MAY_CHANGE, flag, read_options
from zfcore.training.folder import Busy, Lock

FREE = set(MAY_CHANGE) - {"epochs", "data"}                         # options that a run may go on with other values of
KEYS = {"key": "pictures or weights", "train_key": "training pictures", "val_key": "validation pictures"}    # what each is of


# --------------------------------------------------------------------------------------------------------------- units
@dataclass(frozen=True)
class Run(Unit):
    """One network to train: its options, its folder. It counts its epochs."""
    config: TrainConfig
    folder: Path

    @property
    def name(self):
        return self.folder.name

    @property
    def size(self):
        return self.config.epochs

    @property
    def done(self):
        """Read from log.csv, whose row is written after the epoch's checkpoint."""
        try:
            return (self.folder/"log.csv").read_text().count("\n") - 1
        except OSError:
            return 0

    @property
    def lock(self):
        """Name of the run's lock, which lies beside the folder, which does not exist yet or must be empty."""
        return f".{self.config.model}.{self.config.seed}.lock"

    @property
    def failure(self):
        path = self.folder/"failed.txt"
        return path.read_text().strip() if path.is_file() and not self.finished else ""

    @property
    def order(self):
        return {"config": asdict(self.config), "folder": str(self.folder)}

    @classmethod
    def of(cls, order):
        """The run of an `order` that came as JSON."""
        return cls(config_of(order["config"]), Path(order["folder"]))

    def fail(self, error):
        """Enter why it could not be trained. Raises Unwritable where the disk is full, which ends the study."""
        with atomic(own_folder(self.folder)/"failed.txt") as temporary:
            temporary.write_text(f"{str(error) or 'not enough memory'}\n")

    def check_options(self):
        """Raise Expected where its folder was begun with other options, or is a link out of the study's. Pictures may lie
        elsewhere if it has a list of them, by which they are compared."""
        path = own_folder(self.folder)/"config.json"
        stored = asdict(TrainConfig(**read_options(path))) if path.is_file() else {}
        for name, value in stored.items():
            asked = getattr(self.config, name)
            same = value == asked or name == "data" and (same_place(value, asked) or (self.folder/PICTURES).is_file())
            if name not in FREE and not same and asked is not None:          # None: a decay that --start-left chooses
                raise check.Expected(flag(name), f"{value!r}, with which {self.folder} was started", repr(asked),
                                     "leave it out, or name another --output")


def own_folder(folder):
    """The folder of a run. Raises Expected where it is a link that leads out of the study's folder, in which it lies."""
    return inside(folder.parent, folder.name)


# -------------------------------------------------------------------------------------------------------------- folder
class StudyFolder:
    """The folder of a study, whose study.json must hold `keys`, {option: its type, or what it may be}. A study that is alone in
    its folder has `own`, patterns of what it leaves, by which it is known where its study.json was lost."""

    def __init__(self, path, own=(), **keys):
        self.path, self.own, self.keys = Path(path), own, keys

    def stored(self):
        """{option: value} of study.json, {} where there is none yet."""
        path = self.path/"study.json"
        if not path.is_file():
            return {}
        try:
            options = read_json(path)
            if all(type(options[name]) is kind if isinstance(kind, type) else options[name] in kind
                   for name, kind in self.keys.items()):
                return options
        except (OSError, check.Expected, KeyError, TypeError):
            pass
        raise check.Expected(path, f"the {' and '.join(self.keys)} of a study", "something else",
                             "remove it, and type the options that the study began with" if self.may_be_taken else
                             "name another folder")

    @property
    def may_be_taken(self):
        """True where the folder may hold a study though there is no study.json."""
        return not self.own or any(any(self.path.glob(pattern)) for pattern in self.own)

    def remember(self, options, may_change=()):
        """Make the folder, or go on with it, and write study.json. `options` must be those that the study began with, but for
        those that `may_change`: numbers are not mixed. A folder of something else is refused to a study that is alone in its own."""
        with folder_made(self.path):
            self._remember(options, may_change)

    def _remember(self, options, may_change):
        before = self.stored()
        others = (one for one in self.path.iterdir() if one.suffix != ".part" and not is_system(one.name))
        if not before and not self.may_be_taken and any(others):
            raise check.Expected("--output", "a new or empty folder, or one with a study.json", self.path)
        for name, value in options.items():
            if before and name not in may_change and before.get(name) != value:
                what, got = (KEYS[name], "others") if name in KEYS else (f"{name.replace('_', ' ')} {before.get(name)}", value)
                back = "put them back as they were, pictures with the times of their files, or " if name in KEYS else ""
                raise check.Expected(f"--output {self.path}", f"the study that was begun there ({what})", got,
                                     f"{back}name another folder")
        with atomic(self.path/"study.json") as temporary:
            temporary.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")

    def locked(self, wait=False):
        """`with study.locked():` nobody else writes what the study has found. Raises Busy where somebody does, or waits."""
        return Lock(self.path, wait=wait)

    def work(self, units, do, of="unit", take=lambda unit, result: None, crew=None):
        """`take(unit, do(unit, progress))` for what of `units` is not finished, first what nobody else is at; `do` calls
        `progress()` for each share of the unit's size. With a `zfcore.crew.Crew` its processes do them. Returns when all is
        finished or has failed. `of` is what the bar counts."""
        elsewhere, done = [], sum(unit.done for unit in units)
        size = sum(unit.size for unit in units)
        with Bar(size, of, "study", done=done, hidden=done >= size) as bar:
            if crew is not None:
                return crew.work(units, take, bar)
            for turn in (units, elsewhere):
                for unit in turn:
                    try:
                        with self.at(unit, wait=turn is elsewhere) as is_left:
                            if is_left:
                                bar.n = sum(each.done for each in units)
                                bar.set_description(unit.name)
                                take(unit, do(unit, bar.update))
                    except Busy:
                        if not unit.lock:
                            raise
                        elsewhere.append(unit)

    @contextmanager
    def at(self, unit, wait):
        """`with study.at(unit, wait) as is_left:` nobody else is at it. Raises Busy where somebody is, or waits; `is_left`
        tells whether it is to be done: after waiting for one whom it failed, it is not."""
        with Lock(self.path, unit.lock, wait=wait) if unit.lock else nullcontext():
            yield not (unit.finished or wait and unit.failure)

    def kept(self, name, kind, compute):
        """The result of the dataclass `kind` in NAME.h5, computed and kept if it is not there."""
        path = inside(self.path, f"{name}.h5")
        if not path.is_file():
            results.save(path, compute())
        return results.load(path, kind)

    def run_or_resume(self, name, config, pictures, progress=None, network=None):
        """(Trained, history) of the run NAME, begun or gone on with until its last epoch; what it prints goes into its
        output.txt, as a study has too much of it for one screen.

        `pictures` are its (training, validation) Pictures, see `pictures_for`; runs may share them. `progress()` is called
        after each epoch. `network` is the one to train; None: the options' own. Raises Stop, with everything saved."""
        folder = inside(self.path, name)
        if (folder/"latest.h5").is_file():
            training = StudiedTraining.resume(folder, pictures, **{option: getattr(config, option) for option in FREE})
        else:
            clear(folder)
            training = StudiedTraining.begin(config, folder, pictures, network=network)
        (folder/"failed.txt").unlink(missing_ok=True)
        training.progress = progress or training.progress
        with open(folder/"output.txt", "a", buffering=1, opener=opener) as file:
            training.run(say=partial(print, file=file))
        return training.trained, training.history


class StudiedTraining(Training):
    """A training that calls `progress` after each epoch."""

    @staticmethod
    def progress():
        """Say nothing, where nobody wants to know."""

    def close_epoch(self, score):
        super().close_epoch(score)
        self.progress()


def config_of(options):
    """The TrainConfig of {option: value} as JSON has kept it, without tuples."""
    return TrainConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()})


def clear(folder):
    """Remove what a run leaves behind that was stopped before its first checkpoint. Raises Busy where one is at work."""
    if not folder.is_dir():
        return
    with Lock(folder):
        for name in ("config.json", "pictures.csv", "output.txt", "failed.txt", ".lock"):
            (folder/name).unlink(missing_ok=True)
        if (folder/"figures").is_dir():
            (folder/"figures").rmdir()


def pictures_for(config, datasets=None):
    """(training, validation) Pictures as runs with these options take them: of two data sets, or of what config.data names."""
    return tuple(Pictures(part, config.picture_size, config.image_size, config.upscale, config.workers)
                 for part in datasets or config.parts())


def measured(models, pictures, batch_size, crops="centre", bar=None, probabilities=False):
    """The Score of an ensemble of `Trained` models on a `Pictures` set, or with `probabilities` its Predictions."""
    return (predict if probabilities else evaluate)(models, pictures, batch_size, crops, bar)
