"""The training loop: epochs of steps, checkpoints, the log, and going on after any kind of stop.

What a run will do next follows from its checkpoint alone: parameters, velocities, learning-rate rule, epoch, place in the
epoch and step number; every draw (order of the pictures, crops, dropout) is keyed by seed and one of these numbers. So
a run that was killed and resumed ends with the same bits as one that was not.
"""
import json
import math
import os
import platform
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

import zfcore
from train.config import TrainConfig, read_options
from train.departures import departures, open_questions
from train.evaluate import evaluate
from zfcore import check, plots
from zfcore.analysis.controls import last_convolution, legibility, shares_of_start
from zfcore.backend import runs_kernels, select, to_host
from zfcore.checkpoint import Checkpoint, Unwritable, atomic, check_resumable, save, write_csv
from zfcore.data import open_data
from zfcore.data.loader import Lost, Pictures
from zfcore.data.transforms import one_of_ten, random_crops
from zfcore.files import anything, inside, opener, read_json, table, text
from zfcore.models import build, from_checkpoint, from_table
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import class_labels, softmax_loss_backward, softmax_loss_onto
from zfcore.optim import SGD, Plateau
from zfcore.trained import Trained

try:
    import fcntl
except ImportError:              # Windows
    fcntl = None

COLUMNS = ("epoch", "step", "lr", "train_loss", "train_error", "val_loss", "val_error", "val_error_top5",
           "filters_clamped", "images_per_second", "seconds", "in_box", "box_area")
DRAW = {"ten": one_of_ten, "random": random_crops}
SAVE_EVERY = 600                 # seconds between checkpoints inside a long epoch
LOOK_EVERY = 0.2                 # seconds between looks at what the device has added up; between two it runs without a pause
DRAW_EVERY = 10                  # seconds between drawings of the curves and filters


class Stop(Exception):
    """The user asked to stop; everything is saved."""


class Training:
    """One run: `Training(config)`, perhaps `.restore(checkpoint)` or `.start_from(path)`, then `.prepare()` and
    `.run(folder)`."""

    def __init__(self, config, data=None):
        """`data` (train, val) are the data sets to use instead of those that `config.data` names."""
        self.device = select(config.device)
        train, val = data or open_data(config.data, config.picture_size, config.limit_per_class)
        self.config = config = config.decided(len(train))
        if val.classes != train.classes:
            raise check.Expected("validation pictures", f"the {len(train.classes)} classes of the training pictures",
                                 f"{len(val.classes)} classes or other names")
        how = (config.picture_size, config.image_size, config.upscale, config.workers)
        self.train, self.val, self.classes = Pictures(train, *how), Pictures(val, *how), train.classes
        self.network = build(config.model, len(self.classes), config.image_size, config.keep_prob)
        self.network.init(config.seed, config.init, self.device).use(config.precision)
        self.optimizer = SGD(self.network, config.momentum, config.weight_decay, config.rms_max or None)
        self.plateau = Plateau(config.lr, config.patience)
        self.mean = None                       # the mean image, (3,H,W)
        self.columns = *COLUMNS, *(f"start_{layer.name}" for layer in self.network.weighted)
        self.history = {column: [] for column in self.columns}
        self.epoch = self.step = 0             # whole epochs and steps done
        self.sums = Sums()                     # of the epoch under way, as of the last look
        self.looked = 0, 0                     # steps of the run and pictures of the epoch at the last look
        self.totals = self.device.array(np.zeros(3))       # loss, wrong answers, clamped filters: what `sums` will be
        self.interrupt = Interrupt()
        self.origin = None                     # what `start_from` took: goes into config.json

    @property
    def trained(self):
        """The network as it is, with what it takes to use it."""
        return Trained(self.network, self.device_mean, self.classes, self.epoch, self.config.data, device=self.device)

    @property
    def counts(self):
        """The numbers of classes and training pictures."""
        return len(self.classes), len(self.train)

    # ------------------------------------------------------------------------------------------------------ running
    def prepare(self):
        """Look at every training picture once, for the mean image; from here on a run fails only for new reasons."""
        mean = self.train.prepare(progress=sys.stderr.isatty())
        self.mean = mean if self.mean is None else self.mean
        self.device_mean = self.device.array(self.mean)
        self.captured = self.device.capture(self.learn)

    def run(self, folder):
        """Train to config.epochs in `folder`, alone there. Raises Stop after a first Ctrl-C or SIGTERM, with everything
        saved; Expected where another run is at it, and where the disk refuses or pictures are lost, the last checkpoint being
        whole."""
        self.folder, self.drawn, self.guard = Path(folder), -math.inf, StallGuard(len(self.classes))
        with Lock(self.folder), self.interrupt:
            try:
                write_config(self.folder, self.config, self.origin, self.counts)
                inside(self.folder, "figures").mkdir(exist_ok=True)
                self.save("latest.h5")         # so that whatever happens next, there is something to resume
                self.write_log()
                while self.epoch < self.config.epochs:
                    self.one_epoch()
                self.draw()
            except (Unwritable, Lost) as refused:
                if not (self.folder/"config.json").is_file():
                    raise
                raise check.Expected(refused.what, refused.expected, refused.got,
                                     f"{refused.advice}, then go on with python -m train --resume {self.folder}") from None

    def one_epoch(self):
        """The rest of the epoch under way, the validation error, a row of the log, a checkpoint."""
        c, started, saved, looked = self.config, *[time.monotonic()]*3
        earlier = self.sums.seconds            # of this epoch, before an interruption
        self.begin_sums()
        with tqdm(total=len(self.train), initial=self.sums.count, unit="img", disable=None, leave=False,
                  desc=f"epoch {self.epoch + 1}/{c.epochs}") as bar:
            for pictures, labels, indices in self.arriving():
                if not len(labels):            # all damaged: nothing to learn, but the next one has a number higher
                    self.sums.batches += 1
                    continue
                self.one_step(pictures, labels, indices)
                bar.update(len(labels))
                now = time.monotonic()
                if self.interrupt.asked or now - looked > LOOK_EVERY:
                    self.look()
                    looked, self.sums.seconds = now, earlier + time.monotonic() - started
                    bar.set_postfix(loss=f"{self.sums.loss/self.sums.count:.3f}",
                                    error=f"{100*self.sums.wrong/self.sums.count:.1f}%", refresh=False)
                    if self.interrupt.asked or now - saved > SAVE_EVERY:
                        self.save("latest.h5")
                        saved = now
                    if self.interrupt.asked:
                        raise Stop
            self.look()
            self.sums.seconds = earlier + time.monotonic() - started
        try:
            score = self.validate()
        except Exception:
            self.rescue()                      # with all of the epoch's batches done: a resumed run begins with the validation
            raise
        self.close_epoch(score)

    def arriving(self):
        """The batches that are left of the epoch. Whatever keeps one from arriving - too many pictures lost, a thread that
        died - the steps so far are saved."""
        c = self.config
        try:
            yield from self.train.batches(c.batch_size, c.seed, self.epoch, start=self.sums.batches, device=self.device)
        except Exception:
            self.rescue()
            raise

    def rescue(self):
        """Save the steps so far. Weights or running statistics that have left the numbers are not saved: no run could go on
        from them."""
        of_layers = *self.network.parameters().values(), *self.network.buffers().values()
        if all(np.isfinite(to_host(array)).all() for of_layer in of_layers for array in of_layer.values()):
            self.save("latest.h5")

    def validate(self):
        """The Score of the network as it is on the validation pictures, from their centre crop. Raises Stop as `run` does."""
        with Watched(self.interrupt, total=len(self.val), unit="img", disable=None, leave=False, desc="validation") as bar:
            return evaluate([self.trained], self.val,
                            self.config.micro_batch or self.config.batch_size, bar=bar, of="validation pictures")

    def one_step(self, pictures, labels, indices):
        """Forward, backward, update on one batch of uint8 pictures (N,H,W,3) on the device. What comes of it stays there
        until `look`."""
        c = self.config
        tops, lefts, flips = DRAW[c.crops](indices, c.seed, self.epoch, pictures.shape[1], c.image_size)
        labels = class_labels("training labels", labels, len(self.classes), len(indices))
        self.captured(pictures, tops.astype(np.int32), lefts.astype(np.int32), flips, labels.astype(np.int32),
                      np.array(self.step, np.uint64), np.array(self.plateau.lr, np.float32))
        self.sums.count, self.sums.batches, self.step = self.sums.count + len(labels), self.sums.batches + 1, self.step + 1

    def learn(self, pictures, tops, lefts, flips, labels, step, lr):
        """What the device does in a step, without a word to the host. The arrays are as one_step makes them; step and lr
        are arrays too, so that nothing that changes from step to step is part of the code.

        The batch is walked in pieces of --micro-batch pictures, whose gradients add up: to those of the whole batch, but
        for the rounding of float32 sums. From a loss on that is not finite, no parameter moves: `totals` never gets finite
        again. Running statistics do move, before there is a loss; such a run ends at the next look, without saving."""
        N, grads = len(labels), None
        for first in range(0, N, self.config.micro_batch or N):
            piece = slice(first, first + (self.config.micro_batch or N))
            crops = tops[piece], lefts[piece], flips[piece]
            more = self.gradients(pictures[piece], crops, labels[piece], step, first, N)
            if more is None:
                return
            grads = more if grads is None else added(grads, more)
        self.optimizer.step(self.network, grads, lr, self.totals[0, ...], self.totals[2, ...])

    def gradients(self, pictures, crops, labels, step, first, N):
        """The gradients {layer: {"w": dw, "b": db}} of the pictures from number `first` on, of a batch of N, their loss and
        wrong answers added to `totals`. None where the host sees at once that the loss is not finite, as on a CPU."""
        size, share = self.config.image_size, len(labels)/N
        x = crop_flip(pictures, self.device_mean, *crops, size, size)
        y, trace = self.network.forward(x, step, part=(first, N))
        cache = softmax_loss_onto(self.totals[:2], y, labels)
        if not runs_kernels(y) and not math.isfinite(self.totals[0]):
            return None
        dy = softmax_loss_backward(cache)
        if share < 1:
            dy *= share                        # from the mean over the piece to its share of the mean over the batch
        return self.network.backward(dy, trace, to_pixels=False)[1]

    def begin_sums(self):
        """Let the device add up from where `sums` is."""
        s = self.sums
        self.totals[...] = self.device.array(np.array([s.loss, s.wrong, s.clamped], np.float64))
        self.looked = self.step, s.count

    def added_up(self):
        """(loss, wrong answers, clamped filters) that the device has added up so far; waits for it."""
        return to_host(self.totals).tolist()

    def look(self):
        """Wait for the device and bring `sums` up to date.

        Raises Expected where a loss was not finite; the parameters are then still those from before that step."""
        s, (step, count) = self.sums, self.looked
        loss, wrong, clamped = self.added_up()
        if not math.isfinite(loss):
            steps = f"step {self.step}" if self.step == step + 1 else f"steps {step + 1} to {self.step}"
            raise check.Expected("training", "a finite loss", f"{loss} at epoch {self.epoch + 1}, {steps}",
                                 f"lower --lr (it was {self.plateau.lr:g}) or try --init he; {self.folder} keeps the last checkpoint")
        if self.step > step and (advice := self.guard.update((loss - s.loss)/(s.count - count), self.step - step)):
            tqdm.write(advice)
        s.loss, s.wrong, s.clamped, self.looked = loss, int(wrong), int(clamped), (self.step, s.count)

    def close_epoch(self, score):
        s = self.sums
        row = (self.epoch + 1, self.step, self.plateau.lr, s.loss/s.count, s.wrong/s.count, score.loss, score.top1,
               score.top5, s.clamped, s.count/s.seconds, s.seconds, *self.legibility(), *self.shares_of_start().values())
        for column, value in zip(self.columns, row):
            self.history[column].append(value)
        best = score.top1 == min(self.history["val_error"]) and self.history["val_error"].count(score.top1) == 1
        tqdm.write(epoch_line(self.history, self.config.epochs, last_convolution(self.network)) + ("  best" if best else ""))
        if self.config.drop_after:
            if self.epoch + 1 in self.config.drop_after:
                self.plateau.lr /= 10
                tqdm.write(f"lr is now {self.plateau.lr:g}, as --drop-after says")
        elif self.plateau.update(score.top1):
            tqdm.write(f"validation error has not improved for {self.plateau.patience} epochs: lr is now {self.plateau.lr:g}")
        self.epoch, self.sums = self.epoch + 1, Sums()
        kept = [f"epoch_{self.epoch:04}.h5"] if self.epoch in self.config.keep_epochs else []
        self.save(*kept, *(["best.h5"] if best else []), "latest.h5")
        self.write_log()
        if time.monotonic() - self.drawn > DRAW_EVERY:
            self.draw()
            self.drawn = time.monotonic()

    def shares_of_start(self):
        """{layer: share of the energy of its weights that is still their random start}; no numbers where they had none."""
        c, network = self.config, self.network
        if c.init_from:
            return {layer.name: math.nan for layer in network.weighted}
        start = from_table(network.name, network.input_shape, network.table()).init(c.seed, c.init)     # kept only for a moment
        return shares_of_start(network, start)

    def legibility(self):
        """(share of the projected energy inside the objects' boxes, the boxes' share of the area) of the last convolution on
        some validation pictures, see `controls.legibility`; no numbers where nobody knows the boxes."""
        if not hasattr(self.val.dataset, "truth"):
            return math.nan, math.nan
        return legibility(self.trained, self.val)

    # ------------------------------------------------------------------------------------------------ on the disk
    def save(self, *names):
        """One checkpoint under each name, "latest.h5" last: a run resumes from it and then writes the others again."""
        first = self.folder/names[0]
        save(first, Checkpoint(
            model=self.network.name, input_shape=self.network.input_shape, layers=self.network.table(),
            classes=self.classes, parameters=self.network.parameters(), velocity=self.optimizer.velocity, buffers=self.network.buffers(),
            mean_image=self.mean, epoch=self.epoch, step=self.step, history=self.history,
            state={"data": self.config.data, "seed": self.config.seed, "init": "" if self.config.init_from else self.config.init,
                   **{f"plateau_{k}": v for k, v in vars(self.plateau).items()},
                   **{f"sums_{k}": v for k, v in vars(self.sums).items()}}))
        for name in names[1:]:
            with atomic(self.folder/name) as temporary:
                shutil.copyfile(first, temporary)

    def restore(self, checkpoint):
        """Continue from `checkpoint`: everything that a later bit depends on is taken from it."""
        if checkpoint.layers != self.network.table() or checkpoint.classes != self.classes:
            what = "classes" if checkpoint.classes != self.classes else "network"
            raise check.Expected("--resume", f"the {what} of the checkpoint", f"another {what}",
                                 "the data or the code changed since; start a new run")
        check_resumable("--resume", checkpoint, self.network, self.config.picture_size)
        self.network.load(checkpoint.parameters, self.device, checkpoint.buffers)
        self.optimizer.velocity = {name: {key: self.device.array(array) for key, array in of_layer.items()}
                                   for name, of_layer in checkpoint.velocity.items()}
        self.mean = checkpoint.mean_image
        unknown = [math.nan]*len(checkpoint.history["epoch"])                  # to a checkpoint from before there was the column
        self.history = {column: checkpoint.history.get(column, list(unknown)) for column in self.columns}   # HDF5 sorts them by name
        self.epoch, self.step = checkpoint.epoch, checkpoint.step
        for key, value in checkpoint.state.items():
            owner, _, name = key.partition("_")
            if owner in ("plateau", "sums"):
                setattr(getattr(self, owner), name, value)

    def start_from(self, path):
        """Take over the weights of another run or checkpoint file, and nothing else: no velocity, no epoch.

        The classifier (the last layer) is taken only if the classes are the same, in name and order, for its unit k
        means class k; else it stays as it was drawn. Every other layer must fit. Returns what was done as a sentence."""
        network, checkpoint = from_checkpoint(path)
        same = checkpoint.classes == self.classes
        last = self.network.weighted[-1].name
        mine, theirs = ([layer.fields() for layer in of.layers if not layer.hands_on and layer.name != last]
                        for of in (self.network, network))
        for row, other in zip_longest(mine, theirs):
            if row != other:
                raise check.Expected("--init-from", f"a network whose next layer is {in_words(row)}", in_words(other),
                                     f"the network to train is {self.network.name}, the other {network.name}")
        parameters = network.parameters()
        if not same:
            parameters = {**parameters, last: self.network.parameters()[last]}
        self.network.load(parameters, self.device, network.buffers())
        self.origin = {"path": str(path), "epoch": checkpoint.epoch, "step": checkpoint.step,
                       "drawn_anew": [] if same else [last]}
        return (f"weights of {path} after epoch {checkpoint.epoch}" +
                ("" if same else f"; its {len(checkpoint.classes)} classes are not the {len(self.classes)} here: {last} is drawn anew"))

    def write_log(self):
        """log.csv, one row an epoch, always written whole from the history that the checkpoint carries."""
        rows = ([f"{value:.6g}" for value in row] for row in zip(*self.history.values()))
        write_csv(self.folder/"log.csv", rows, *self.columns)

    def draw(self):
        """figures/learning_curves.png and figures/filters.png as they are now."""
        if self.history["epoch"]:
            plots.save(plots.learning_curves(self.history), self.folder/"figures"/"learning_curves.png")
            first = self.network.layers[0]
            if first.has_filters:
                plots.save(plots.filters(to_host(first.parameters["w"])), self.folder/"figures"/"filters.png")


@dataclass
class Sums:
    """What an epoch adds up over its batches; `clamped` counts filters that the RMS limit scaled back."""
    loss: float = 0.0
    seconds: float = 0.0
    wrong: int = 0
    count: int = 0
    batches: int = 0
    clamped: int = 0


def added(total, grads):
    """`total` with `grads` added to it, in place."""
    for name, of_layer in grads.items():
        for key, gradient in of_layer.items():
            total[name][key] += gradient
    return total


def in_words(row):
    """A row of a layer table: "conv1 (Conv F=96 K=7 S=2 P=0 groups=1 rounding=ceil)"."""
    if row is None:
        return "none"
    return f"{row['name']} ({' '.join([row['kind'], *(f'{k}={v}' for k, v in row.items() if k not in ('kind', 'name'))])})"


def epoch_line(history, epochs, layer):
    """The last row of the history as the line that a run prints; of the start it tells what is left in `layer`."""
    h = {column: values[-1] for column, values in history.items()}
    start = h[f"start_{layer}"]
    return (f"epoch {int(h['epoch']):3}/{epochs}  lr {h['lr']:<7g} train loss {h['train_loss']:.3f} error {100*h['train_error']:5.1f} %"
            f"  val loss {h['val_loss']:.3f} error {100*h['val_error']:5.1f} % top-5 {100*h['val_error_top5']:4.1f} %"
            + (f"  clamped {int(h['filters_clamped'])}" if h["filters_clamped"] else "")
            + (f"  start {100*start:3.0f} %" if math.isfinite(start) else "")
            + (f"  in box {100*h['in_box']:.0f} %" if math.isfinite(h["in_box"]) else "")
            + f"  {h['images_per_second']:5.0f} img/s")


class StallGuard:
    """Notices a loss that stays at ln(classes), the loss of guessing, and says once which cures there are.

    `after` steps with the running mean of the loss above 0.98 ln(classes) count as a stall."""

    def __init__(self, classes, after=300):
        self.guess, self.after, self.mean, self.steps, self.said = math.log(classes), after, None, 0, False

    def update(self, loss, steps=1):
        """Tell the mean loss of the next `steps` steps; returns the advice when it is due, else None."""
        kept = 0.98**steps
        self.mean = loss if self.mean is None else kept*self.mean + (1 - kept)*loss
        self.steps = self.steps + steps if self.mean > 0.98*self.guess else 0
        if self.steps < self.after or self.said:
            return None
        self.said = True
        return (f"the loss has stayed at ln(classes) = {self.guess:.2f}, that of guessing, for {self.after} steps. Cures: --init he "
                f"(N(0, 0.01) is too small for few maps or small pictures), a larger --lr, or a look at whether the labels are right")


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into `asked`, its number, so that the step under way is finished and saved; the
    next Ctrl-C stops at once."""

    def __init__(self):
        self.asked = 0

    def __enter__(self):
        self.asked = 0

        def ask(number, frame):
            self.asked = number
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tqdm.write("stopping after this step; Ctrl-C again stops at once, without saving", file=sys.stderr)
        self.before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for s, handler in self.before.items():
            signal.signal(s, handler)


class Watched(tqdm):
    """A bar that raises Stop when it is moved on after `interrupt` was asked."""

    def __init__(self, interrupt, **options):
        self.interrupt = interrupt
        super().__init__(**options)

    def update(self, n=1):
        super().update(n)
        if self.interrupt.asked:
            raise Stop


class Busy(check.Expected):
    """Somebody else is at work there."""


class Lock:
    """`with Lock(folder):` nobody else trains in `folder` meanwhile. Raises Busy where somebody does, or waits for their end.

    The system drops a lock with the process that holds it, however that ends; the file `.lock`, or another `name`, that stays
    means nothing but holds the process id for the sentence. Who only reads needs no lock: every file of a run is replaced
    whole.
    Where there are no such locks (Windows, some network file systems) training goes on without."""

    def __init__(self, folder, name=".lock", wait=False):
        self.folder, self.name, self.wait, self.descriptor = Path(folder), name, wait, None

    def __enter__(self):
        try:
            self.descriptor = opener(self.folder/self.name, os.O_RDWR | os.O_CREAT)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
            os.ftruncate(self.descriptor, 0)
            os.write(self.descriptor, str(os.getpid()).encode())
        except BlockingIOError:
            owner = os.read(self.descriptor, 20).decode() or "that has just begun"
            os.close(self.descriptor)
            raise Busy(self.folder, "a folder in which no other run is at work", f"process {owner} training there",
                       "wait for its end, or stop it with Ctrl-C") from None
        except (OSError, AttributeError):      # no locks here, or a folder that cannot be written, which `save` will tell
            pass
        return self

    def __exit__(self, *_):
        if self.descriptor is not None:
            os.close(self.descriptor)


# ------------------------------------------------------------------------------------------------------ run folders
def new_folder(config, output=None):
    """Make the folder of a new run and write config.json into it."""
    folder = empty_folder(output, config.model)
    try:
        write_config(folder, config)
    except Unwritable:
        with suppress(OSError):
            folder.rmdir()
        raise
    return folder


def empty_folder(output, name):
    """Make the folder `output`, or runs/<date>-<time>-<name>. A folder that holds something is refused."""
    folder = Path(output) if output else Path("runs")/f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    if folder.exists() and (not folder.is_dir() or any(path.suffix != ".part" for path in folder.iterdir())):
        raise check.Expected("--output", "a new or empty folder", f"{folder}, which holds something",
                             f"go on with it by --resume {folder}, or name another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise check.Expected("--output", "a place where a folder can be made", f"{folder} ({error.strerror})") from None
    return folder


def write_config(folder, config, origin=None, counts=None):
    """config.json: every option, where they differ from the paper's recipe, and the versions and device that the run has;
    when it started and from which weights (`origin`) stays as it was first written."""
    versions = {"zfcore": zfcore.__version__, "python": platform.python_version(), "numpy": np.__version__,
                "h5py": h5py.__version__}
    content = {"options": asdict(config), "device": select(config.device).description, "versions": versions,
               "started": time.strftime("%Y-%m-%d %H:%M:%S"), "init_from": origin,
               "departures": [entry._asdict() for entry in departures(config, counts)],
               "open_questions": [entry._asdict() for entry in open_questions(config)]}
    if (folder/"config.json").is_file():
        before = read_json(inside(folder, "config.json"), table({"started": text()}, others=anything))
        content = {**content, "started": before["started"], "init_from": origin or before.get("init_from")}
    with atomic(folder/"config.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def stored_config(folder):
    """The TrainConfig in a run's config.json. A run that was stopped before its first checkpoint has nothing else, and
    begins again; one that has lost its latest.h5 is refused."""
    folder = Path(folder)
    begun = any(inside(folder, path.name) for path in folder.glob("*.h5"))
    if not (folder/("latest.h5" if begun else "config.json")).is_file():
        raise check.Expected("--resume", "a run's folder with a latest.h5", folder)
    return TrainConfig(**read_options(inside(folder, "config.json")))
