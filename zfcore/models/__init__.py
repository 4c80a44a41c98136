"""Floor 4: the paper's networks and others of its time, each a table of layers.

    build(name, classes, size, keep_prob)     one of MODELS, e.g. "zfnet", "alexnet", or a row of table 3 such as "tiny-b"
    from_table(name, input_shape, rows)       the network whose `table()` gave the rows (from a checkpoint)
    from_checkpoint(path)                     the trained network in a checkpoint file, in a run's folder, or of zfcore.networks
    start_of(checkpoint)                      the same network as its training began, with its random weights
"""
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from zfcore import check
from zfcore.backend import CPU, Device
from zfcore.checkpoint import Checkpoint, load
from zfcore.files import inside, whole
from zfcore.hints import FilePath, Law, Precision, Row
from zfcore.layers import from_fields
from zfcore.models import alexnet as of_alexnet
from zfcore.models import zfnet as of_zfnet
from zfcore.models.alexnet import alexnet, tiny_alexnet
from zfcore.models.nin import nin
from zfcore.models.variants import VARIANTS
from zfcore.models.vgg import vgg11, vgg16
from zfcore.models.zfnet import small, tiny, zfnet
from zfcore.network import Network
from zfcore.networks import file_of, place
from zfcore.terminal import plural

OF_PAPER: dict[str, Callable[..., Network]]
OF_PAPER = {"tiny": tiny, "small": small, "zfnet": zfnet, "alexnet": alexnet, "tiny-alexnet": tiny_alexnet, **VARIANTS}
MODELS = {**OF_PAPER, "vgg11": vgg11, "vgg16": vgg16, "nin": nin}
OPEN_QUESTIONS = {name: (of_alexnet if "alexnet" in name else of_zfnet).open_questions for name in OF_PAPER}    # about these
NATIVE_SIZE = {"small": 128, **{name: 96 for name in MODELS if name.startswith("tiny")}}      # pixels a side; else 224


def build(name: str, classes: int, size: int | None = None, keep_prob: float = 0.5) -> Network:
    """The model called `name` for so many classes and square pictures of `size` pixels (its native size if None), which
    has no parameters until `init` or `load`. Raises Expected for another name, and for fewer than two classes."""
    check.one_of("--model", name, MODELS)
    size = NATIVE_SIZE.get(name, 224) if size is None else whole(1, 2**14)("size", size)
    return MODELS[name](classes=whole(2, 2**24)("classes", classes), size=size, keep_prob=keep_prob)


def from_table(name: str, input_shape: Sequence[int], rows: Iterable[Row]) -> Network:
    """The network whose `table()` gave the rows, without parameters. Raises Expected for a row that is no layer's."""
    return Network(name, tuple(input_shape), [from_fields(row) for row in rows])


def from_checkpoint(path: FilePath, device: Device = CPU, precision: Precision = "fp32") -> tuple[Network, Checkpoint]:
    """(network, checkpoint without velocities) of a checkpoint file, of a run's folder (its best.h5, or latest.h5 before there is
    one), or of a network that comes with zfcore, by its name. The network forms its products in that `precision`. Raises
    Expected for a path that leads to none."""
    checkpoint = load(checkpoint_file(path), velocity=False)
    network = from_table(checkpoint.model, checkpoint.input_shape, checkpoint.layers)
    return network.load(checkpoint.parameters, device, checkpoint.buffers).use(precision), checkpoint


def drawn(name: str, input_shape: Sequence[int], rows: Iterable[Row], seed: int, law: Law, device: Device = CPU,
          precision: Precision = "fp32") -> Network:
    """The network of `from_table` with weights that are drawn from a seed by a law, as `Network.init` does."""
    return from_table(name, input_shape, rows).init(seed, law, device).use(precision)


def start_of(checkpoint: Checkpoint, device: Device = CPU, precision: Precision = "fp32") -> Network | None:
    """The network of a checkpoint with the weights that its training began with, drawn anew from the seed and the law that
    the checkpoint names; None where it began with other weights than drawn ones, or does not say."""
    begun = begun_by(checkpoint, device, precision)
    return begun() if begun else None


def begun_by(checkpoint: Checkpoint, device: Device = CPU, precision: Precision = "fp32") -> Callable[[], Network] | None:
    """Function that makes what `start_of` returns, without keeping the checkpoint's arrays; None where that is None."""
    law = checkpoint.state.get("init")
    return partial(drawn, checkpoint.model, checkpoint.input_shape, checkpoint.layers, checkpoint.state["seed"], law, device,
                   precision) if law else None


def checkpoint_file(path: FilePath) -> Path:
    """The checkpoint that a file, a run's folder or the name of a network of zfcore's means."""
    path = place(path)
    if not os.path.isdir(path):                   # so for what no path can be: too long, a zero byte
        return file_of(path)
    if found := _own_file(path):
        return inside(path, found.name)
    below = {file.parent: file.stat().st_mtime for run in sorted(path.iterdir()) if run.is_dir() and (file := _own_file(run))}
    newest = max(below, key=below.__getitem__, default=None)
    raise check.Expected("--run", "a run's folder, with its best.h5 or latest.h5",
                         f"{path}, which holds {plural(len(below), 'run')}" if below else f"{path}, which has neither",
                         f"the newest is {newest}" if below else "")


def _own_file(folder):
    """The checkpoint of a run's folder that counts, None where there is none."""
    return next((folder/name for name in ("best.h5", "latest.h5") if (folder/name).is_file()), None)
