"""python -m train: train a ZFNet. Without any option a small one learns ten classes of drawn pictures in minutes."""
import bisect
import sys
from dataclasses import replace
from pathlib import Path

from train import lr_test, step_time
from train.launch import launch
from train.options import parser
from zfcore import check
from zfcore.backend import CPU
from zfcore.data import check_there, data_in_words, is_drawn
from zfcore.device import select
from zfcore.models import from_checkpoint
from zfcore.ranks import ALONE
from zfcore.ranks.environment import is_launched, is_rank
from zfcore.ranks.environment import open as open_ranks
from zfcore.terminal import Bar, command, plural, printable, say, status_of, warn
from zfcore.training import Stop, Training, deviations, evaluate, resolve
from zfcore.training.config import MOST_DECAY, NAMES, flag, resumed
from zfcore.training.evaluation import open_part, open_runs
from zfcore.training.folder import stored_config
from zfcore.training.loop import counts


@check.exit_with_message
def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    typed = vars(parser().parse_args(arguments))
    for other, reason in (("output", "a run goes on in its own folder"), ("init_from", "a run goes on with its own weights"),
                          ("config", "a run goes on with its own options, but for those that are typed")):
        if "resume" in typed and other in typed:
            raise check.Expected("--resume", f"no {flag(other)} beside it: {reason}", typed[other])
    if "resume" in typed and "lr_test" in typed:
        raise check.Expected("--lr-test", "no --resume beside it", typed["resume"], "--init-from begins with a run's weights")
    for other in {"dry_run", "eval_only", "lr_test"} & typed.keys():
        if "devices" in typed and other != "dry_run":
            raise check.Expected("--devices", f"no {flag(other)} beside it: that is done in one process", typed["devices"])
        if is_rank():
            raise check.Expected(flag(other), "one process, which does that alone",
                                 "one of several that mpiexec, srun or torchrun has started", "call python -m train itself")
    if "restarts" in typed and "devices" not in typed:
        raise check.Expected("--restarts", "--devices N beside it", "none",
                             "whatever else starts ranks starts them again by its own options")
    folder = Path(typed["resume"]) if "resume" in typed else None
    asked = {name: value for name, value in typed.items() if name in (*NAMES, "config")}
    config = resumed(stored_config(folder), asked) if folder else resolve(asked)
    if "devices" in typed and not is_launched() and "dry_run" not in typed:
        sys.exit(launch(arguments, config, typed["devices"], typed.get("restarts", 0), typed.get("output"), folder))
    with ALONE if typed.keys() & {"dry_run", "eval_only", "lr_test"} else open_ranks(config.device) as ranks:
        work(config, typed, folder, asked, ranks)


def work(config, typed, folder, asked, ranks):
    """Do what was `typed` with the options of `config`; `folder` is that of the run that goes on, with the options `asked` for,
    of which some may be others."""
    say(f"device: {select(config.device).description}\n{config}\n")
    if "dry_run" in typed:
        drawn = is_drawn(config.data)                         # the classes of other pictures are counted when they are read
        classes = len(config.parts()[0].classes) if drawn else 1000
        begun = folder and (folder/"latest.h5").is_file()
        say((from_checkpoint(folder/"latest.h5")[0] if begun else Training.blank_network(config, classes)).summary())
        say(f"\ndata:   {data_in_words(config.data)}, {plural(classes, 'class')}{'' if drawn else ' taken for granted'}\n"
            f"recipe: {deviations.in_words(config)}")
        if typed.get("devices", 1) > 1:
            device = select(config.device)
            say(step_time.in_words(config, device.description, typed["devices"], own=device is not CPU))
        return
    if "eval_only" in typed:
        say(error_of(folder, config, typed))
        return
    if "lr_test" in typed:
        lr_test.run(config, typed.get("output"))
        return
    training = (Training.resume(folder, ranks=ranks, **asked) if folder else
                Training.begin(config, typed.get("output"), ranks=ranks))
    folder = training.folder
    devices = ["--devices", ranks.size] if is_launched() else []
    go_on = command("python", "-m", "train", "--resume", folder, *devices)
    try:
        say(f"{training.network.summary()}\n\ndata:   "
            f"{describe(training)}\n{start_in_words(training.config, len(training.train))}recipe: "
            f"{deviations.in_words(training.config, counts(training.train))}\nrun:    {printable(folder)}\n")
        training.run(say=say)
    except Stop as stop:
        say(f"stopped and saved after epoch {training.epoch}, step {training.step}; go on with: {go_on}")
        sys.exit(stop.status)
    except KeyboardInterrupt as stop:
        warn(f"\nstopped at once; the last checkpoint is whole. Go on with: {go_on}")
        if ranks.size > 1:                     # which this ends
            raise
        sys.exit(status_of(stop))
    say(closing(training, devices))


def error_of(folder, config, typed):
    """--eval-only: the validation error of the latest checkpoint of --resume, or of --init-from, in words. Nothing is
    written."""
    if not (folder or config.init_from):
        raise check.Expected("--eval-only", "--resume RUN or --init-from RUN beside it", "neither")
    run = folder/"latest.h5" if folder else config.init_from
    data = config.data if not folder and "data" in typed else None             # None: what the run was trained on
    if folder:
        check_there(config.data)
    models = [replace(model, data=config.data, limit_per_class=config.limit_per_class) if folder else model
              for model in open_runs([run], config.device, config.precision)]              # wherever its pictures lie now
    pictures, of = open_part(models, data, "val", config.upscale, config.workers)
    with Bar(len(pictures), "picture", "validation", stays=False) as bar:
        score = evaluate([models[0].with_classes(pictures.dataset.classes)], pictures,
                         config.micro_batch or config.batch_size, bar=bar, of=of)
    return f"{printable(run)}, epoch {models[0].epoch}: {score}"


# of the start left at the end: a run says how to leave less; what was found to be little enough
WARN_ABOVE, WELL = 0.5, 0.4
MOST_EPOCHS = 10_000              # that are proposed


def start_in_words(config, pictures):
    """The line that tells how much of the random start will be left, and, where that is much, what would take it away."""
    if config.init_from:
        return ""
    left = config.forecast(pictures)
    limited = (f", not {100*config.start_left:g} %: in so few steps that takes more than the most that is chosen"
               if config.start_left and config.weight_decay == MOST_DECAY else "")
    line = (f"start:  {100*left:.0f} % of the random weights' amplitude will be left{limited} (weight decay "
            f"{config.weight_decay:g}, {plural(config.epochs, 'epoch')})\n")
    if left <= WARN_ABOVE:
        return line
    ways, decay = [], config.decay_for(WELL, pictures)
    if decay <= MOST_DECAY:
        ways.append(f"--start-left {WELL:g}, which makes the weight decay {decay:.2g}")
    more = range(config.epochs + 1, MOST_EPOCHS)
    enough = bisect.bisect_left(more, True, key=lambda epochs: config.for_epochs(epochs).forecast(pictures) <= WELL)
    if enough < len(more):
        ways.append(f"--epochs {more[enough]}")
    return line + (f"        projections from the upper layers will show them; {100*WELL:.0f} % are left with "
                   f"{' or with '.join(ways or ['more epochs or more pictures'])}\n")


def describe(training):
    source = printable(data_in_words(training.config.data))
    if is_drawn(training.config.data):
        kept_in = training.train.dataset.kept_in
        source += f" (drawn once, then kept in {printable(kept_in.parent)})" if kept_in else " (drawn as it goes, no files)"
    train, val = training.train, training.val
    damaged = f"; {len(left)} damaged left out" if (left := [*train.damaged, *val.damaged]) else ""
    return (f"{source}\n        {plural(len(training.classes), 'class')}, {train.sound} training and "
            f"{plural(val.sound, 'validation picture')}{damaged}")


def closing(training, devices):
    """The last lines of a run: the error, where the files lie, what to do next, there with the options `devices`."""
    errors, folder, run = training.history["val_error"], printable(training.folder), training.folder
    best = min(range(len(errors)), key=errors.__getitem__)
    protocol = f"(centre crop, 1 network, {plural(training.val.sound, 'picture')})"
    weights = next(name for name in ("best.h5", "latest.h5") if (run/name).exists())
    return f"""
validation error {100*errors[-1]:.1f} % after {plural(len(errors), "epoch")}; best {100*errors[best]:.1f} % after epoch {best +
1} {protocol}

  {folder}/{weights:<29} the weights (h5ls -r shows what is inside)
  {folder}/log.csv                       one row an epoch
  {folder}/figures/learning_curves.png   loss and error
  {folder}/figures/filters.png           the filters of layer 1

next:  {command("python", "-m", "zfcore", "top-activations", "--run", run)}      what its units see
       {command("python", "-m", "train.evaluate", "--run", run, "--crops", "ten")}
       {command("python", "-m", "train", "--resume", run, "--epochs", training.config.epochs + 10, *devices)}"""


if __name__ == "__main__":
    main()
