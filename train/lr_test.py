"""python -m train --lr-test: at which learning rates does this network learn these pictures at all?

The range test of Smith (Cyclical Learning Rates for Training Neural Networks, 2017): training begins with a rate at which
nothing moves, each step has a rate larger than the last one's by the same factor, and it ends where the loss diverges. Small
rates leave the loss where it was, larger ones lower it, still larger ones throw the weights about. The steps are those of a
run with the same options, but for the rate; nothing of the network is kept.
"""
import math
import sys
from contextlib import suppress
from typing import NamedTuple

from zfcore import plots
from zfcore.checkpoint import write_csv
from zfcore.terminal import counted, printable, say
from zfcore.training import Training
from zfcore.training.folder import empty_folder
from zfcore.training.watch import Sums, told_by_the_loss

STEPS, LOWEST, HIGHEST = 500, 1e-5, 1.0      # 100 steps a decade
KEPT = 0.95                                  # of the running mean at each step: about the last 20 steps speak
SETTLED = 20                                 # steps after which the running mean is more than noise
DIVERGED = 4                                 # times the lowest running mean
FALL = 0.05                                  # of the running mean, below which it is not called learning


class Row(NamedTuple):
    """A step: its learning rate, the loss of its batch, and the running mean of the losses so far."""
    step: int
    lr: float
    loss: float
    smoothed: float


def run(config, output=None):
    """The range test of `config`, told, written and drawn into the new folder `output` (runs/<date>-<time>-<model>-lr-test)."""
    materials = Training.materials(config)
    if materials.origin:
        say(materials.origin.sentence)
    with empty_folder(output, f"{config.model}-lr-test") as folder:
        training, rows = Training(folder, *materials), []
        # a second Ctrl-C comes in the middle of a step
        with suppress(KeyboardInterrupt), training.interrupt, told_by_the_loss():
            for row in counted(measured(training), "step", "learning rates", STEPS, stays=False):
                rows.append(row)
                if training.interrupt.asked:
                    break
        lr, reason = suggestion(rows, config.other_law)
        write(folder/"lr_test.csv", rows)
        plots.save(plots.lr_test(rows, lr, reason), folder/"lr_test.png")
    place = printable(folder)
    say(ending(rows, training.interrupt.asked), reason, "",
        f"  {place}/lr_test.csv   one row a step", f"  {place}/lr_test.png   the loss over the learning rate")
    if training.interrupt.asked:
        sys.exit(128 + training.interrupt.asked)


def measured(training):
    """Yield the Rows of training with a growing rate, epoch after epoch, until the last rate or until the loss diverges."""
    c, mean, lowest = training.config, 0.0, math.inf
    while training.step < STEPS:
        for batch in training.train.batches(c.batch_size, c.seed, training.epoch, device=training.device):
            if not len(batch[1]):                                    # all its pictures are damaged
                continue
            lr = LOWEST*(HIGHEST/LOWEST)**(training.step/(STEPS - 1))
            training.plateau.lr, training.sums = lr, Sums()
            training.begin_sums()
            training.one_step(*batch)
            loss = training.added_up()[0]/len(batch[1])
            mean = KEPT*mean + (1 - KEPT)*loss
            smoothed = mean/(1 - KEPT**training.step)                # the mean begins at 0: this divides that out
            yield Row(training.step, lr, loss, smoothed)
            if training.step > SETTLED:
                lowest = min(lowest, smoothed)
            if not (math.isfinite(loss) and smoothed <= DIVERGED*lowest) or training.step == STEPS:
                return
        training.epoch += 1


def suggestion(rows, law=""):
    """(learning rate or None, the reason in a sentence): the rate at which the running mean of the loss fell fastest, before it
    was lowest, rounded to one figure. A rate at the lowest point would be too large: there what a step wins and what it
    spoils are equal. Where there is none, `law` is another start to try (TrainConfig.other_law)."""
    settled = [row for row in rows[SETTLED:] if math.isfinite(row.smoothed)]
    if len(settled) <= SETTLED:
        return None, "too few steps for a suggestion"
    means = [row.smoothed for row in settled]
    lowest = means.index(min(means))
    if means[lowest] > (1 - FALL)*means[0]:
        return None, (f"no suggestion: the loss never fell by {100*FALL:.0f} % below the {means[0]:.3g} it began with; "
                      f"try {law and law + ', '}a larger --batch-size, or look at whether the labels are right")
    falls = [means[k] - means[k + SETTLED] for k in range(max(lowest - SETTLED, 0) + 1)]
    fastest = settled[falls.index(max(falls)) + SETTLED//2].lr
    lr = float(f"{fastest:.0e}")
    return lr, (f"suggested: --lr {lr:g}, near where the smoothed loss fell fastest; it was lowest, {means[lowest]:.3g}, "
                f"at {settled[lowest].lr:.2g}")


def ending(rows, asked):
    """End of the test, in words; `asked` is what stopped it, 0 for nothing."""
    if len(rows) == STEPS:
        return f"the loss did not diverge up to a learning rate of {HIGHEST:g}"
    if asked:
        return f"stopped after {len(rows)} of {STEPS} steps"
    return f"the loss diverged at a learning rate of {rows[-1].lr:.2g}, step {len(rows)}"


def write(path, rows):
    write_csv(path, ((row.step, *(f"{value:.6g}" for value in row[1:])) for row in rows), *Row._fields)
