"""The training loop: epochs of steps, checkpoints, the log, and going on after any kind of stop.

What a run will do next follows from its checkpoint alone: parameters, velocities, learning-rate rule, epoch, place in the
epoch and step number; every draw (order of the pictures, crops, dropout) is keyed by seed and one of these numbers. So
a run that was killed and resumed ends with the same bits as one that was not.
"""
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zfcore import check, plots
from zfcore.analysis.sanity_checks import legibility, shares_of_start
from zfcore.backend import BF16, CPU, Device, runs_kernels, to_host, zeros
from zfcore.checkpoint import Checkpoint, Unwritable, atomic, check_readable, check_resumable, load, save, write_csv
from zfcore.data import check_there, known_place, lasting, said_place, same_place
from zfcore.data.folders import PictureFiles, some
from zfcore.data.loader import DataSet, Lost, Pictures, check_one_class
from zfcore.data.transforms import one_of_ten, random_crops
from zfcore.device import select
from zfcore.files import inside, said
from zfcore.hints import Array, Arrays, FilePath
from zfcore.layers import KINDS
from zfcore.models import MODELS, build, drawn, from_table
from zfcore.network import Network
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import class_labels, softmax_loss_backward, softmax_loss_onto
from zfcore.optim import SGD, Plateau
from zfcore.ranks import ALONE, Ranks
from zfcore.reduce import Cut, GradientSum, leaves, micro_batch, share
from zfcore.terminal import Bar, command, plural, printable, warn, warnings_kept
from zfcore.trained import Trained, check_model
from zfcore.training.accord import any_asked, check_same, check_weights, digest, facts, tell_once
from zfcore.training.config import TrainConfig, resumed
from zfcore.training.evaluation import Score, evaluate
from zfcore.training.folder import (OUTPUT, RESUME, Lock, check_path, check_pictures, check_unchanged, move, new_folder,
                                    place_in_state, stamp, stored_config, tell_unusable, write_config, write_pictures)
from zfcore.training.start import Origin, like_source, start_from
from zfcore.training.watch import Interrupt, StallGuard, Stop, Sums, Watched, told_by_the_loss

COLUMNS = ("epoch", "step", "lr", "train_loss", "train_error", "val_loss", "val_error", "val_error_top5",
           "filters_clamped", "images_per_second", "seconds", "in_box", "box_area")
DRAW = {"ten": one_of_ten, "random": random_crops}
STILL = 1 - 1e-6                 # share of a draw in the weights (`shares_of_start`) above which they are still what was drawn
SAVE_EVERY = 600                 # seconds between checkpoints inside a long epoch
LOOK_EVERY = 0.2                 # seconds between looks at what the device has added up; between two it runs without a pause
DRAW_EVERY = 10                  # seconds between drawings of the curves and filters

Parts: TypeAlias = tuple[DataSet | Pictures, DataSet | Pictures]          # (training, validation)


class Materials(NamedTuple):
    """Materials that a Training is made of, besides its folder."""
    config: TrainConfig           # with a number for its weight decay
    train: Pictures
    val: Pictures
    network: Network              # with the weights to go on from, on the device of `config`
    mean: NDArray[np.float32]     # the mean image, (3,size,size) float32 on the host
    origin: Origin | None = None  # of those weights; None: drawn at random, or the run's own
    checkpoint: Checkpoint | None = None          # to go on from; None: a new run
    marks: dict[str, str] | None = None           # by which data sets that were given are known again, see `marks_of`


class Training:
    """One run: `Training.begin(config, folder)` or `Training.resume(folder)`, then `.run()`.

    config               TrainConfig                  its options
    folder               Path                         where its files go
    train, val, classes  Pictures, Pictures, list     what it learns, what it is judged on, the names of the classes
    network, mean        Network, (3,size,size)       what is trained, and the mean image that it subtracts
    ranks                Ranks                        who takes the steps together: the first writes and speaks, the others do
                         neither
    epoch, step          int                          whole epochs and steps done
    history              {column: list}               a row an epoch, as log.csv has them
    trained              Trained                      the network as it is, with what it takes to use it"""

    def __init__(self, folder: FilePath, config: TrainConfig, train: Pictures, val: Pictures, network: Network,
                 mean: NDArray[np.float32], origin: Origin | None = None, checkpoint: Checkpoint | None = None,
                 marks: dict[str, str] | None = None, ranks: Ranks = ALONE) -> None:
        """The arguments behind `folder` are those of Materials; `folder` is where `run` writes, and must be there by then."""
        for layer in network.layers:
            if KINDS.get(kind := type(layer).__name__) is not type(layer):
                raise check.Expected(f"{network.name}: {layer.name}", "a kind of layer that a checkpoint can be read with",
                                     kind, f"zfcore.layers.KINDS[{kind!r}] = {kind} makes it one")
        # a network and pictures that were given, and not named, are what the run is
        self.config = config = replace(config, model=network.name, data=known_place(config.data, train.dataset))
        self.folder, self.origin, self.ranks = Path(folder), origin, ranks
        self.train, self.val, self.marks, self.network = train, val, marks or {}, network
        self.device, self.classes = select(config.device), list(train.dataset.classes)
        self.mean, self.device_mean = mean, self.device.array(mean)
        self.optimizer = SGD(network, config.momentum, config.weight_decay, config.rms_max or None)
        self.plateau = Plateau(config.lr, config.patience)
        self.columns = *COLUMNS, *(f"start_{layer.name}" for layer in network.weighted)
        self.history = {column: [] for column in self.columns}
        self.epoch = self.step = 0             # whole epochs and steps done
        self.sums = Sums()                     # of the epoch under way, as of the last look
        self.looked = 0, 0                     # steps of the run and pictures of the epoch at the last look
        self.totals = self.device.array(np.zeros(3))       # loss, wrong answers, clamped filters: what `sums` will be
        self.interrupt, self.guard = Interrupt(aloud=ranks.is_first), StallGuard(len(self.classes), config.other_law)
        self.moved_from = config.data          # where the pictures lay when the checkpoint was written
        self.drawn = -math.inf                 # when the curves and filters were drawn last
        self.shapes = network.parameter_shapes()
        self.latest: tuple[int, int] | None = None         # stamp of latest.h5 as this Training wrote or read it last
        self.is_broken = False                 # stopped within what belongs together, see `undivided`
        self.settle()
        self.seed_and_law = network.drawn      # seed and law of the weights that training began with; None: not known
        if checkpoint is not None:
            self.go_on_from(checkpoint)
        elif self.seed_and_law and not all(share > STILL for share in shares_of_start(network, self.start()).values()):
            self.seed_and_law = None           # others since
        self.begin_sums()
        check_readable(self.checkpoint())
        check_model(self.trained)              # its classes have different names

    def settle(self) -> None:
        """Make what belongs to this process and this Training alone."""
        self.say: Callable[[str], object] = lambda line: None          # whom the lines of the log are told
        self.beside, self.captured = self.device.beside(), self.device.capture(self.learn, self.gone_by)

    def __getstate__(self) -> dict[str, Any]:
        """All else, for a copy or another process."""
        return {name: value for name, value in vars(self).items() if name not in ("say", "beside", "captured")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take that, and settle anew."""
        vars(self).update(state)
        self.settle()

    # -------------------------------------------------------------------------------------------------------- doors
    @classmethod
    def begin(cls, config: TrainConfig, folder: FilePath | None = None, data: Parts | None = None,
              ranks: Ranks = ALONE, network: Network | None = None) -> "Training":
        """A new run of the TrainConfig `config` in `folder`, which is made, or must be empty; None: runs/<date>-<time>-<model>.
        What was given and what is another run's is written there at once, so that it can be resumed before its first step.

        `data` (train, val) are data sets, or Pictures, to use instead of what `config.data` names; where it names nothing, the
        run does not know where they are to be found again. Every picture is looked at once, those to train on for the mean
        image, before the folder is made: from then on a run fails only for new reasons. Only sets that bring their mean image,
        packed or drawn ones, are not. `network` is one to train instead of what `config.model` names, itself and not a copy. The
        weights that it has are where training begins, whatever the seed, so that a second run with it goes on from those that
        the first one left; one without weights is drawn as the options say. A begin that is refused leaves it as it was.
        Each of several `ranks` calls this with the same options, and sees the same pictures. Raises Expected for a folder,
        pictures or weights that cannot be used, and for ranks that differ or are more than the pieces of a batch."""
        check.instance("config", config, TrainConfig, 'resolve({"preset": "tiny"}) makes one')
        if folder is not None:
            check_path(OUTPUT(), folder)
        if network is not None:
            check.instance("network", network, Network, "zfcore.Network(name, (3, size, size), layers) makes one of layers, "
                           "zfcore.build(name, classes) one of zfcore's, and `network` is a trained model's")
        with unchanged_if_refused(network):
            new = cls("", *cls.materials(config, data, ranks=ranks, network=network), ranks=ranks)
            is_said = data is None and network is None and not config.init_from
            before = None if is_said else new.keep_start
            made = new_folder(new.config, folder, new.origin, counts(new.train), before) if ranks.is_first else ""
            new.folder = Path(os.fsdecode(ranks.gather(os.fsencode(made))[0]))
        return new

    def keep_start(self, folder: Path) -> None:
        """Write into the `folder` of a new run what its options do not say: the pictures, weights and layers that were given, or
        are another run's, which may have others when this one is resumed."""
        self.folder = folder
        write_pictures(folder, self.train.dataset, self.val.dataset)
        self.save("latest.h5")

    @classmethod
    def resume(cls, folder: FilePath, data: Parts | FilePath | None = None, ranks: Ranks = ALONE, **changes: Any) -> "Training":
        """The run in `folder` as it was when its latest checkpoint was written, or from its beginning where it was stopped
        before the first; it ends with the bits of one that was never stopped. `data` as for `begin`, of the fingerprints that
        the run began with, or where the pictures lie now; `changes` are options that may have other values from here on
        (config.MAY_CHANGE). `ranks` as for `begin`, as many as there are now: the bits are the same. The network is that of the
        checkpoint. Raises Expected for a folder without a run, for other changes, and where pictures or classes are missing,
        new or others."""
        check_path(RESUME(), folder)
        if isinstance(data, (str, os.PathLike)):
            changes, data = {**changes, "data": said_place(data)}, None
        config, latest = resumed(stored_config(folder), changes), Path(folder)/"latest.h5"
        if data is None:
            check_there(config.data)
        before = stamp(latest)                 # one that is replaced while it is read is not the one that was read
        checkpoint = load(inside(folder, "latest.h5")) if latest.is_file() else None
        if checkpoint is not None and config.epochs < checkpoint.epoch:
            raise check.Expected("--epochs", f"{checkpoint.epoch} or more, as many as {Path(folder)} has done", config.epochs,
                                 "epochs that are done stay; epoch_NNNN.h5 and best.h5 are networks of earlier ones")
        new = cls(folder, *cls.materials(config, data, checkpoint, Path(folder), ranks), ranks=ranks)
        new.latest = before
        return new

    @classmethod
    def materials(cls, config: TrainConfig, data: Parts | None = None, checkpoint: Checkpoint | None = None,
                  folder: Path | None = None, ranks: Ranks = ALONE, network: Network | None = None) -> Materials:
        """The Materials of a run, which is to go on from `checkpoint`, that of the run in `folder`, if there is one, or to
        train the `network` that it is given. Nothing is written."""
        check.instance("ranks", ranks, Ranks, "zfcore.ranks.environment.open gives those that a launcher has started")
        device = select(config.device)
        if data is not None and (isinstance(data, str) or not isinstance(data, Sequence) or len(data) != 2):
            raise check.Expected("data", "(train, val), two data sets or Pictures", said(data),
                                 "a folder or the name of a drawn set is what TrainConfig(data=...) takes")
        with warnings_kept() as warnings:
            parts = data or config.parts()
        how = config.picture_size, config.image_size, config.upscale, config.workers
        train, val = (part if isinstance(part, Pictures) else Pictures(part, *how) for part in parts)
        for part in train, val:
            check_one_class(part.dataset)
        classes = list(train.dataset.classes)
        if list(val.dataset.classes) != classes:
            raise check.Expected("validation pictures", f"the {plural(len(classes), 'class')} of the training pictures",
                                 differing(classes, list(val.dataset.classes)))
        if (train.size, train.crop) != how[:2] or (val.size, val.crop) != how[:2]:
            raise check.Expected("pictures", f"squares of {how[0]} pixels for crops of {how[1]}, as the options say",
                                 f"{train.size} for {train.crop} and {val.size} for {val.crop}")
        config = replace(config.decided(len(train)), data=lasting(config.data),
                         micro_batch=micro_batch(config.batch_size, config.micro_batch, ranks.size))
        origin = None
        if checkpoint is not None:
            network = from_table(checkpoint.model, checkpoint.input_shape, checkpoint.layers)
        elif network is None:
            network = cls.drawn_network(config, classes)
        else:
            origin = made_ready(network, config, device)
        for layer in network.layers:
            layer.check_whole(config.micro_batch or config.batch_size, config.batch_size)
            if checkpoint is None:             # whoever drew the weights; a resumed run keeps the seed that it began with
                layer.seeded(config.seed)
        if checkpoint is not None:
            if list(checkpoint.classes) != classes:
                raise check.Expected("--resume", f"the {plural(len(checkpoint.classes), 'class')} of the checkpoint",
                                     differing(checkpoint.classes, classes),
                                     "bring these back, or begin a new run with --init-from")
            is_known = folder is not None and check_pictures(folder, train.dataset, val.dataset, config.data, ranks.is_first)
            check_resumable("--resume", checkpoint, network, config.picture_size)
            network.load(checkpoint.parameters, device, checkpoint.buffers).use(config.precision)
        elif config.init_from:
            origin = start_from(config, network, classes, device)
        check_fits(network, config.image_size, len(classes))
        if ranks.size > 1:
            place = (checkpoint.epoch, checkpoint.step) if checkpoint else (0, 0)
            check_same(ranks, facts(config, device, train.dataset, val.dataset, network, *place))
            tell_once(ranks, warnings)
        mean = train.prepare(ranks=ranks)
        # so that what is wrong is found before an epoch
        val.prepare(what="validation pictures", ranks=ranks)
        for line in lacking(train, val) if ranks.is_first else ():
            warn(printable(line))
        marks = marks_of(train, val) if data is not None else {}
        if checkpoint is not None and checkpoint.mean_image is not None:
            before = {key: checkpoint.state[key] for key in MARKS if key in checkpoint.state}
            # a list says nothing of the pixels in sets of somebody's own, nor does a fingerprint that only one side has; a run
            # from before there was a list has none
            is_own = not hasattr(train.dataset, "fingerprint")
            is_there = is_known or same_place(config.data, checkpoint.state.get("data"))
            if is_own or before.keys() != marks.keys() or not is_there:
                check_mean(mean, checkpoint.mean_image)
            check_marks(before, marks, partial(marks_of, train, val, Pictures.key_before))
            mean, marks = checkpoint.mean_image, {**before, **marks}
        return Materials(config, train, val, network, mean, origin, checkpoint, marks)

    @staticmethod
    def drawn_network(config: TrainConfig, classes: Sequence[str]) -> Network:
        """The Network that `config` names, for these classes, its weights drawn at random on its device."""
        network = Training.blank_network(config, len(classes))
        return network.init(config.seed, config.init, select(config.device)).use(config.precision)

    @staticmethod
    def blank_network(config: TrainConfig, classes: int) -> Network:
        """The Network that `config` names, for so many classes, without weights. One from elsewhere has the layers of the
        network that --init-from names."""
        if config.model in MODELS or not config.init_from:
            return build(config.model, classes, config.image_size, config.keep_prob)
        return like_source(config.init_from, classes, config.image_size)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Take from the run's own `checkpoint`, besides weights and mean image, everything that a later bit depends on."""
        self.optimizer.velocity = {name: {key: self.device.array(array) for key, array in of_layer.items()}
                                   for name, of_layer in checkpoint.velocity.items()}
        # to a checkpoint from before there was the column
        unknown = [math.nan]*len(checkpoint.history["epoch"])
        # HDF5 sorts them by name
        self.history = {column: checkpoint.history.get(column, list(unknown)) for column in self.columns}
        self.epoch, self.step, self.moved_from = checkpoint.epoch, checkpoint.step, checkpoint.state.get("data")
        # the oldest do not say by which law
        law = checkpoint.state.get("init", "" if self.config.init_from else self.config.init)
        self.seed_and_law = (checkpoint.state.get("seed", self.config.seed), law) if law else None
        for key, value in checkpoint.state.items():
            owner, _, name = key.partition("_")
            if owner in ("plateau", "sums"):
                setattr(getattr(self, owner), name, value)

    @property
    def trained(self) -> Trained:
        """The Trained of the network as it is now, after the last step; zfcore.open(folder) gives that of the best epoch."""
        network = self.network
        begun = partial(drawn, network.name, network.input_shape, network.table(), *self.seed_and_law, self.device,
                        self.config.precision) if self.seed_and_law else None
        return Trained(self.network, self.device_mean, self.classes, self.epoch, self.config.data, self.folder, begun,
                       self.device, self.config.val_fraction,
                       {column: list(values) for column, values in self.history.items() if values},
                       self.config.limit_per_class, self.config.upscale)

    def start(self, device: Device = CPU) -> Network:
        """The network with the weights that were drawn for it, on `device`. Raises Expected where that is not known."""
        if self.seed_and_law is None:
            raise check.Expected(self.folder, "a run whose weights were drawn at random as it began", "another")
        network = self.network
        return from_table(network.name, network.input_shape, network.table()).init(*self.seed_and_law, device)

    # ------------------------------------------------------------------------------------------------------ running
    def run(self, say: Callable[[str], object] | None = None) -> None:
        """Train to config.epochs. `say`, e.g. `print`, is called with each line of the log, and with advice.

        The first Ctrl-C, SIGTERM or SIGHUP ends the step under way, saves it and raises Stop; a second one raises
        KeyboardInterrupt at once, the last checkpoint being whole. After either `Training.resume(folder)` goes on, after the
        first also `run` again. Meanwhile these signals are this method's, if it was called in the main thread. What `say` raises
        ends the run, with what it was to tell saved. Raises Expected where another run is at work in the folder, or has gone on
        there since; where this Training was broken off within a step; where the loss is not finite, also on the validation
        pictures, and where the disk refuses or pictures are lost, the last checkpoint being whole."""
        if self.is_broken:
            raise check.Expected(self.folder, "a Training whose last step was finished", "one that was broken off within it",
                                 self.resumed_instead())
        self.say, self.guard = say if say and self.ranks.is_first else self.say, StallGuard(len(self.classes), self.config.other_law)
        with Lock(self.folder) if self.ranks.is_first else nullcontext(), self.interrupt, told_by_the_loss():
            try:
                self.look()                    # steps of before that nobody has looked at: their losses count
                if self.ranks.is_first:
                    check_unchanged(self.folder/"latest.h5", self.latest, self.resumed_instead())
                    self.write_beginning()
                self.save("latest.h5")         # so that whatever happens next, there is something to resume
                self.write_log()
                if self.origin and not self.step:
                    self.say(self.origin.sentence)
                if self.ranks.size > 1:
                    pieces = plural(len(leaves(self.config.batch_size, self.config.micro_batch)), "piece")
                    self.say(f"{self.ranks.size} ranks share each batch: {self.config.batch_size} pictures in {pieces} of "
                             f"{self.config.micro_batch}, "
                             "which decide about the bits, not the number of ranks")
                while self.epoch < self.config.epochs:
                    self.one_epoch()
                self.draw()
            except (Unwritable, Lost) as refused:
                if not (self.folder/"config.json").is_file():
                    raise
                raise check.Expected(refused.what, refused.expected, refused.got,
                                     f"{refused.advice}, then go on with "
                                     f"{command('python', '-m', 'train', '--resume', self.folder)}") from None

    def resumed_instead(self) -> str:
        """Advice where this Training cannot go on, but the run can."""
        return f"Training.resume({os.fspath(self.folder)!r}) goes on from the run's last checkpoint"

    def write_beginning(self) -> None:
        """Write what stands in the folder before the first checkpoint."""
        if self.moved_from != self.config.data:
            move(self.folder, self.config.data)
        tell_unusable(self.folder/"best.h5", self.epoch)       # of a resumed run, which may never write it again
        write_config(self.folder, self.config, self.origin, counts(self.train))
        write_pictures(self.folder, self.train.dataset, self.val.dataset)
        inside(self.folder, "figures").mkdir(exist_ok=True)

    def one_epoch(self) -> None:
        """The rest of the epoch under way, the validation error, a row of the log, a checkpoint."""
        c = self.config
        started = saved = looked = time.monotonic()
        earlier = self.sums.seconds            # of this epoch, before an interruption
        with Bar(self.train.sound, "picture", f"epoch {self.epoch + 1}/{c.epochs}", done=self.sums.count, stays=False,
                 hidden=not self.ranks.is_first) as bar:
            for pictures, labels, indices, cut in self.arriving():
                if not any(cut):               # all damaged: nothing to learn, but the next one has a number higher
                    self.sums.batches += 1
                    continue
                self.one_step(pictures, labels, indices, cut)
                bar.update(pictures_of(cut))
                now = time.monotonic()
                asked, look, keep = self.agreed(now - looked > LOOK_EVERY, now - saved > SAVE_EVERY)
                if asked or look:
                    self.look()
                    looked, self.sums.seconds = now, earlier + time.monotonic() - started
                    bar.set_postfix(loss=f"{self.sums.loss/self.sums.count:.3f}",
                                    error=f"{100*self.sums.wrong/self.sums.count:.1f}%", refresh=False)
                    if asked or keep:
                        self.save("latest.h5")
                        saved = now
                    if asked:
                        raise Stop(asked)
            self.look()
            self.sums.seconds = earlier + time.monotonic() - started
        try:
            score = self.validate()
        except check.NotFinite:                # the epoch's last step has spoilt the weights, so they are not saved
            raise self.diverged("nan on the validation pictures", f"after step {self.step}") from None
        except Exception:
            self.rescue()                      # with all of the epoch's batches done: a resumed run begins with the validation
            raise
        self.close_epoch(score)

    def agreed(self, look: bool, keep: bool) -> tuple[int, int, int]:
        """(signal to stop by or 0, whether to look now, whether to save now), on all ranks the same: who is asked to stop stops
        all, and the first one's clock counts."""
        rows = self.ranks.gather(bytes([self.interrupt.asked, look, keep]))
        return max(row[0] for row in rows), rows[0][1], rows[0][2]

    def arriving(self) -> Iterator[tuple[Array, Array, Array, Cut]]:
        """The batches that are left of the epoch, of each this rank's leaves, and the Cut of the whole. Whatever keeps one from
        arriving - too many pictures lost, a thread that died - the steps so far are saved."""
        c, damaged = self.config, {}
        drawn = self.train.drawn(c.batch_size, c.seed, self.epoch, start=self.sums.batches)
        mine = [[batch[leaf] for leaf in self.own(leaves(len(batch), c.micro_batch))] for batch in drawn]
        try:
            together = [np.concatenate([batch[:0], *own]) for batch, own in zip(drawn, mine)]
            for own, (pictures, labels, indices) in zip(mine, self.train.those(together, self.device, damaged.update)):
                yield pictures, labels, indices, self.cut(own, indices, damaged)
        except Exception:
            self.rescue()
            raise

    def own(self, of_all: Sequence[Any]) -> Sequence[Any]:
        """Leaves, or whatever stands for each, that are this rank's."""
        return of_all[share(len(of_all), self.ranks.size, self.ranks.rank)]

    def cut(self, own: Sequence[NDArray[np.int64]], indices: NDArray[np.int64], damaged: dict[int, str]) -> Cut:
        """The Cut of a batch of whose `own` leaves the pictures `indices` are sound; others may be in `damaged`, which all
        ranks leave out and which is empty then."""
        sizes = [len(leaf) if len(indices) == sum(map(len, own)) else int(np.isin(leaf, indices).sum()) for leaf in own]
        rows = [np.frombuffer(row, np.int64).tolist() for row in self.ranks.gather(np.array([len(damaged), *sizes],
                                                                                            np.int64).tobytes())]
        if any(found for found, *_ in rows):
            self.train.leave_out_together(damaged, self.ranks)
            damaged.clear()
        return tuple(tuple(size for size in sizes if size) for _, *sizes in rows)

    def rescue(self) -> None:
        """Save the steps so far. Weights or running statistics that have left the numbers are not saved: no run could go on
        from them."""
        of_layers = *self.network.parameters().values(), *self.network.buffers().values()
        if all(np.isfinite(to_host(array)).all() for of_layer in of_layers for array in of_layer.values()):
            self.look()
            self.save("latest.h5")

    def validate(self) -> Score:
        """The Score of the network as it is on the validation pictures, from their centre crop. Raises Stop as `run` does."""
        asked = lambda: any_asked(self.ranks, self.interrupt.asked)
        with Watched(asked, self.val.sound, "picture", "validation", stays=False, hidden=not self.ranks.is_first) as bar:
            return evaluate([self.trained], self.val, self.config.micro_batch or self.config.batch_size, bar=bar,
                            of="validation pictures", ranks=self.ranks)

    def one_step(self, pictures: Array, labels: Array, indices: Array, cut: Cut | None = None) -> None:
        """Forward, backward, update on one batch of uint8 pictures (N,H,W,3) on the device, of `cut` this rank's part; None: on
        a whole one. What comes of it stays there until `look`."""
        c = self.config
        if cut is None:
            cut = tuple(leaf.stop - leaf.start for leaf in leaves(len(labels), c.micro_batch)),
        tops, lefts, flips = DRAW[c.crops](indices, c.seed, self.epoch, pictures.shape[1], c.image_size)
        if len(labels):
            labels = class_labels("training labels", labels, len(self.classes), len(indices))
        with self.undivided():
            self.captured(cut, pictures, tops.astype(np.int32), lefts.astype(np.int32), flips, labels.astype(np.int32),
                          np.array(self.step, np.uint64), np.array(self.plateau.lr, np.float32))
            self.sums.count, self.sums.batches, self.step = (self.sums.count + pictures_of(cut), self.sums.batches + 1,
                                                             self.step + 1)

    @contextmanager
    def undivided(self) -> Iterator[None]:
        """`with self.undivided():` what the block changes belongs together: a Training that is broken off in it is not gone on
        with."""
        self.is_broken = True
        yield
        self.is_broken = False

    def gone_by(self) -> list[Any]:
        """All that a step goes by besides its arguments: each may be replaced between two steps, as `Network.load` does."""
        return [self.totals, self.device_mean, vars(self.optimizer), *map(vars, self.network.layers)]

    def learn(self, cut: Cut, pictures: Array, tops: Array, lefts: Array, flips: Array, labels: Array, step: Array,
              lr: Array) -> None:
        """One training step on the device, without host synchronisation. The arguments are as one_step makes them; step and lr
        are arrays too, so that nothing that changes from step to step is part of the code.

        The batch is walked in leaves of --micro-batch pictures, whose gradients add up (zfcore/reduce.py): to those of the
        whole batch, but for the rounding of float32 sums. On a GPU an upper layer moves while the gradients of those below it
        are still computed. From a loss on that is not finite, no parameter moves: `totals` never gets finite again.
        Running statistics do move, before there is a loss; such a run ends at the next look, without saving."""
        before, N, counts = pictures_of(cut[:self.ranks.rank]), pictures_of(cut), [len(sizes) for sizes in cut]
        rows = zeros((sum(counts), 2), np.float64, like=self.totals)
        uncounted = list(rows)

        def move(grads: Arrays) -> None:
            while uncounted:                   # the losses of all pictures are there before the first sum of gradients
                self.totals[:2] += uncounted.pop(0)
            if runs_kernels(rows) or math.isfinite(self.totals[0]):
                self.optimizer.step(self.network, grads, lr, self.totals[0, ...], self.totals[2, ...])

        early, first = runs_kernels(rows), 0   # on a CPU the same cores would do both
        sums = GradientSum(self.ranks, self.beside, self.shapes, counts, rows, self.device_mean, move if early else None)
        for k, size in enumerate(cut[self.ranks.rank]):
            piece = slice(first, first + size)
            crops = tops[piece], lefts[piece], flips[piece]
            self.gradients(pictures[piece], crops, labels[piece], step, (before + first, N), sums.row(k), sums.add)
            first += size
        grads = sums.total()
        if not early:
            move(grads)

    def gradients(self, pictures: Array, crops: tuple[Array, Array, Array], labels: Array, step: Array, piece: tuple[int, int],
                  row: Array, take: Callable[[str, dict[str, Array]], object]) -> None:
        """Hand the gradients of a `piece` (first, N) of a batch to `take`, layer by layer, and add its loss and wrong answers
        to `row` (2,). Where the host sees at once that the loss is not finite, as on a CPU, they are zeros: nothing moves, but
        other ranks wait for them."""
        size, part = self.config.image_size, len(labels)/piece[1]
        x = crop_flip(pictures, self.device_mean, *crops, size, size, BF16 if self.network.in_bf16 else None)
        y, caches = self.network.forward(x, step, piece=piece)
        cache = softmax_loss_onto(row, y, labels)
        if not runs_kernels(y) and not math.isfinite(row[0]):
            for name, of_layer in reversed(self.shapes.items()):
                take(name, {key: zeros(shape, np.float32, like=y) for key, shape in of_layer.items()})
            return
        dy = softmax_loss_backward(cache)
        if part < 1:
            dy *= part                         # from the mean over the piece to its share of the mean over the batch
        self.network.backward(dy, caches, to_pixels=False, take=take)

    def begin_sums(self) -> None:
        """Let the device add up from where `sums` is."""
        s = self.sums
        self.totals[...] = self.device.array(np.array([s.loss, s.wrong, s.clamped], np.float64))
        self.looked = self.step, s.count

    def added_up(self) -> list[float]:
        """(loss, wrong answers, clamped filters) that the device has added up so far; waits for it."""
        return to_host(self.totals).tolist()

    def look(self) -> None:
        """Wait for the device and bring `sums` up to date.

        Raises Expected where a loss was not finite; the parameters are then still those from before that step."""
        s, (step, count) = self.sums, self.looked
        loss, wrong, clamped = self.added_up()
        if not math.isfinite(loss):
            raise self.diverged(loss, f"step {self.step}" if self.step == step + 1 else f"steps {step + 1} to {self.step}")
        mean, steps = (loss - s.loss)/max(s.count - count, 1), self.step - step
        s.loss, s.wrong, s.clamped, self.looked = loss, int(wrong), int(clamped), (self.step, s.count)
        if steps > 0 and (advice := self.guard.update(mean, steps)):
            try:
                self.say(advice)
            except Exception:
                self.rescue()
                raise

    def diverged(self, loss: object, steps: str) -> check.Expected:
        """Expected, for a `loss` that is not finite, in words, at these steps."""
        law = self.config.other_law and f", or try its {self.config.other_law}"
        return check.Expected("training", "a finite loss", f"{loss} at epoch {self.epoch + 1}, {steps}",
                              f"lower the learning rate (it was {self.plateau.lr:g}), python -m train --lr{law}; "
                              f"{self.folder} keeps the last checkpoint")

    def close_epoch(self, score: Score) -> None:
        """A row of the log, a checkpoint, the learning rate of the next epoch."""
        check_weights(self.ranks, self.step, self.network.parameters(), self.optimizer.velocity, self.network.buffers())
        s = self.sums
        row = (self.epoch + 1, self.step, self.plateau.lr, s.loss/s.count, s.wrong/s.count, score.loss, score.top1,
               score.top5, s.clamped, s.count/s.seconds, s.seconds, *self.legibility(), *self.shares_of_start().values())
        with self.undivided():
            lines = self.enter(row, score)
        self.write_log()
        for line in lines:                     # after all is on the disk: a terminal that is gone costs nothing
            self.say(line)
        if time.monotonic() - self.drawn > DRAW_EVERY:     # nor are figures waited for: loading matplotlib takes half a second
            self.draw()
            self.drawn = time.monotonic()

    def enter(self, row: Sequence[float], score: Score) -> list[str]:
        """Enter the `row` of the epoch into the history, go over to the next epoch and save; returns the lines that tell it."""
        for column, value in zip(self.columns, row):
            self.history[column].append(value)
        best = score.top1 == min(self.history["val_error"]) and self.history["val_error"].count(score.top1) == 1
        watched = (self.network.convolutions or self.network.weighted)[-1].name
        lines = [epoch_lines(self.history, self.config.epochs, watched, len(self.classes), best)]
        if self.config.drop_after:
            if self.epoch + 1 in self.config.drop_after:
                self.plateau.lr = self.config.lr_after(self.epoch + 1)
                lines.append(f"lr is now {self.plateau.lr:g}, as --drop-after says")
        elif self.plateau.update(score.top1):
            lines.append(f"validation error has not improved for {plural(self.plateau.patience, 'epoch')}: lr is now "
                         f"{self.plateau.lr:g}")
        if over_fits(self.history):
            lines.append("over-fits: the validation loss rises while the training error falls; best.h5 keeps the epoch with "
                         "the lowest validation error. Cures: more pictures, fewer epochs, a lower --keep-prob")
        self.epoch, self.sums = self.epoch + 1, Sums()
        self.begin_sums()
        kept = [f"epoch_{self.epoch:04}.h5"] if self.epoch in self.config.keep_epochs else []
        self.save(*kept, *(["best.h5"] if best else []), "latest.h5")
        return lines

    def shares_of_start(self) -> dict[str, float]:
        """{layer: share of the energy of its weights that is still their random start}; no numbers where they had none, and on
        a rank that writes no log."""
        if self.seed_and_law is None or not self.ranks.is_first:
            return {layer.name: math.nan for layer in self.network.weighted}
        return shares_of_start(self.network, self.start())                     # the start is kept only for a moment

    def legibility(self) -> tuple[float, float]:
        """(share of the projected energy inside the objects' boxes, the boxes' share of the area) of the last convolution on
        some validation pictures, see `sanity_checks.legibility`; no numbers where there is no convolution or nobody knows the
        boxes, and on a rank that writes no log."""
        if not (hasattr(self.val.dataset, "truth") and self.network.convolutions and self.ranks.is_first):
            return math.nan, math.nan
        return legibility(self.trained, self.val)

    # ------------------------------------------------------------------------------------------------ on the disk
    def checkpoint(self) -> Checkpoint:
        """The Checkpoint of the run as it is now; its arrays are the run's own."""
        return Checkpoint(
            model=self.network.name, input_shape=self.network.input_shape, layers=self.network.table(),
            classes=self.classes, parameters=self.network.parameters(), velocity=self.optimizer.velocity,
            buffers=self.network.buffers(), mean_image=self.mean, epoch=self.epoch, step=self.step, history=self.history,
            state={**place_in_state(self.config.data), **self.marks, "val_fraction": self.config.val_fraction,
                   "limit_per_class": self.config.limit_per_class, "upscale": int(self.config.upscale),
                   **dict(zip(("seed", "init"), self.seed_and_law or (self.config.seed, ""))),
                   **{f"plateau_{k}": v for k, v in vars(self.plateau).items()},
                   **{f"sums_{k}": v for k, v in vars(self.sums).items()}})

    def save(self, *names: str) -> None:
        """One checkpoint under each name, "latest.h5" last: a run resumes from it and then writes the others again.
        This and what follows is the first rank's alone."""
        if not self.ranks.is_first:
            return
        first = self.folder/names[0]
        save(first, self.checkpoint())
        for name in names[1:]:
            with atomic(self.folder/name) as temporary:
                shutil.copyfile(first, temporary)
        self.latest = stamp(self.folder/"latest.h5")

    def write_log(self) -> None:
        """log.csv, one row an epoch, always written whole from the history that the checkpoint carries."""
        if not self.ranks.is_first:
            return
        rows = ([in_log(value) for value in row] for row in zip(*self.history.values()))
        write_csv(self.folder/"log.csv", rows, *self.columns)

    def draw(self) -> None:
        """figures/learning_curves.png as they are now, and figures/filters.png where filters see all colours."""
        if self.history["epoch"] and self.ranks.is_first:
            plots.save(plots.learning_curves(self.history), self.folder/"figures"/"learning_curves.png")
            if (w := self.network.colour_filters) is not None:
                plots.save(plots.filters(to_host(w)), self.folder/"figures"/"filters.png")


@contextmanager
def unchanged_if_refused(network):
    """`with unchanged_if_refused(network):` where the block fails, the network, if there is one, is again as it was; arrays are
    only replaced meanwhile."""
    parts = [] if network is None else [network, *network.layers]
    before = [dict(vars(part)) for part in parts]
    try:
        yield
    except BaseException:
        for part, of_part in zip(parts, before):
            vars(part).clear()
            vars(part).update(of_part)
        raise


def made_ready(network, config, device):
    """Bring a network that was given to the device, and draw its weights if it has none; returns the Origin of those that it
    has. Raises Expected where some layers have weights and others none."""
    own, layers = network.parameters(), network.parameter_shapes()
    if not own:
        network.init(config.seed, config.init, device).use(config.precision)
        return None
    if lacking := [name for name in layers if name not in own]:
        raise check.Expected(f"{network.name}: {lacking[0]}", "weights, as other layers have some", "none yet",
                             "init(seed) draws those of all layers, --init-from takes another run's, but for a last layer of "
                             "other classes")
    parameters, buffers = deepcopy((own, network.buffers()))        # others may have the same arrays, as of `with_classes`
    network.load(parameters, device, buffers).use(config.precision)
    return Origin({"network": network.name}, f"weights of the network {network.name} that was given, which is trained further "
                  f"itself; seed {config.seed} draws the order of the pictures, crops and dropout, not these")


def check_fits(network, size, classes):
    """Raise Expected unless the network has weights, takes pictures of that size and tells so many classes apart."""
    if not network.weighted:
        raise check.Expected(network.name, "a network with weights, which training moves", "one without")
    if (network.input_shape, network.shapes[-1]) != ((3, size, size), (classes,)):
        raise check.Expected(network.name, f"a network from (3, {size}, {size}), as --image-size says, to ({classes},), a "
                             "score for each class", f"one from {network.input_shape} to {network.shapes[-1]}")


def counts(train):
    """The numbers of classes and of pictures that are trained on."""
    return len(train.dataset.classes), train.sound


def lacking(train, val):
    """The lines that tell of classes without pictures to learn from or to be judged on."""
    classes, learned, judged = train.dataset.classes, train.of_classes(), val.of_classes()
    for none, verdict in ((learned == 0, "no training picture, so they cannot be learned"),
                          ((judged == 0) & (learned > 0),
                           "no validation picture, so no error tells how well they are learned")):
        if none.any():
            few = [f"{classes[k]!r} ({plural(learned[k], 'training picture')})" for k in np.flatnonzero(none)]
            yield f"{none.sum()} of {plural(len(classes), 'class')} with {verdict}: {some(few, shown=str)}"


def differing(before, now):
    """Words for what has become of the classes `before`."""
    found = [(sorted(set(before) - set(now)), "missing"), (sorted(set(now) - set(before)), "new")]
    return "other classes: " + (", ".join(f"{len(names)} {what} ({some(names)})" for names, what in found if names)
                                or "another order")


MOST_APART = 2                   # grey levels between two mean images of the same pictures, which other decoders read


def check_mean(found, expected):
    """Raise Expected unless two mean images are of the same pictures, as far as can be seen."""
    if np.abs(found - expected).max() > MOST_APART:
        raise check.Expected("--data", "the pictures that the run began with", "others, whose mean image is not the same")


MARKS = {"train_fingerprint": "training", "val_fingerprint": "validation"}         # in a checkpoint's state


def marks_of(train, val, mark=Pictures.fingerprint):
    """Entries of a checkpoint's state by which Pictures of data sets that were given are known again: digests of their
    fingerprints. Files of pictures have none, as these may be copied, and their fingerprint has times in it."""
    return {key: digest(mark(of).encode(errors="surrogatepass")) for key, of in zip(MARKS, (train, val))
            if not isinstance(of.dataset, PictureFiles)}


def check_marks(before, now, older):
    """Raise Expected where one of these `marks_of` a run's pictures is another now, and also another than `older()` has, those
    that zfcore gave the same pictures before."""
    for key in before.keys() & now.keys():
        if before[key] != now[key] and before[key] != older()[key]:
            raise check.Expected("--data", "the pictures that the run began with", f"{MARKS[key]} pictures with another "
                                 "fingerprint", "bring these back, or begin a new run with --init-from")


def in_log(value):
    """A number of the history as a text: whole ones, such as a step, with all their digits."""
    return f"{value:.15g}" if float(value).is_integer() else f"{value:.6g}"


def pictures_of(cut):
    """Number of the pictures of a Cut, or of its first ranks."""
    return sum(map(sum, cut))


def epoch_lines(history, epochs, layer, classes, best):
    """The last row of the history as the two lines that a run prints; of the start they tell what is left in `layer`."""
    h = {column: values[-1] for column, values in history.items()}
    start, number = h[f"start_{layer}"], f"epoch {int(h['epoch']):3}/{epochs}"
    return (f"{number}  lr {h['lr']:<7g} train loss {h['train_loss']:.3f} error {100*h['train_error']:5.1f} %"
            f"  val loss {h['val_loss']:.3f} error {100*h['val_error']:5.1f} %" + ("  best" if best else "") + "\n"
            + " "*len(number)
            + (f"  top-5 {100*h['val_error_top5']:4.1f} %" if classes > 5 else "")
            + (f"  clamped {int(h['filters_clamped'])}" if h["filters_clamped"] else "")
            + (f"  start's energy {100*start:3.0f} %" if math.isfinite(start) else "")
            + (f"  in box {100*h['in_box']:.0f} %" if math.isfinite(h["in_box"]) else "")
            + f"  {h['images_per_second']:5.0f} img/s")


RISE, FALL = 3, 0.1              # epochs, and the share of the lowest validation loss by which it must have risen over it


def over_fits(history):
    """Return whether it is seen with the last row, and with none before: for RISE epochs the validation loss has been FALL
    above its lowest while the training error is below what it was there."""
    def seen(losses, errors):
        lowest = min(range(len(losses)), key=losses.__getitem__)
        since = losses[lowest + 1:]
        return (len(since) >= RISE and min(since[-RISE:]) > (1 + FALL)*losses[lowest] and errors[-1] < errors[lowest])
    losses, errors = history["val_loss"], history["train_error"]
    return seen(losses, errors) and not any(seen(losses[:n], errors[:n]) for n in range(1, len(losses)))
