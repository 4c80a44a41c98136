"""Setting in which the items are made: a run, its pictures, a folder, a scale; and how long things take on this machine."""
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import PIL

import zfcore
from train.features import key_of
from train.paper.outcome import Outcome
from zfcore import results
from zfcore.__main__ import parser, work
from zfcore.backend import to_host
from zfcore.commands import COMMANDS
from zfcore.data import data_in_words, is_drawn
from zfcore.data.loader import Pictures
from zfcore.deconvnet import project
from zfcore.files import inside
from zfcore.models import checkpoint_file
from zfcore.terminal import plural
from zfcore.network import Network
from zfcore.trained import Trained

SCALES = "minutes", "hours", "paper"
LOOKED = 32                       # pictures by which it is measured how long one takes


@dataclass(frozen=True)
class Item:
    """One result of the paper.

    name, title   fig5 and what it asks;  section   of the paper, third version on arXiv
    claim         of the paper, in words;  "" for this project's own
    make          function (setting) -> Outcome, without what the command adds: what it took, key, versions
    seconds       function (setting, Speed) -> about how long that takes here; {what: seconds} where items share some of it
    lacks         function (setting) -> why it cannot be measured and what to give, "" where it can
    uses          options beside --run, --data, --scale, --seed that its numbers depend on
    unsettled     {scale: what it will not settle}
    facts         True where its numbers are facts without a spread, which are not counted among the claims"""
    name: str
    title: str
    section: str
    claim: str
    make: Callable
    seconds: Callable
    lacks: Callable = lambda setting: ""
    uses: tuple = ()
    unsettled: dict = field(default_factory=dict)
    facts: bool = False


@dataclass(frozen=True)
class Setting:
    """Run, pictures, folder and scale that all items share. `data` None: what the run was trained on; `pictures`: the
    validation part, of other data that have no parts all."""
    run: str
    data: str | None
    output: Path
    scale: str
    seed: int
    model: Trained
    pictures: Pictures
    device: str = "auto"
    workers: int = 2
    options: dict = field(default_factory=dict)          # caltech101, caltech256, voc, landmarks: paths or None
    devices: int = 1

    def of(self, minutes, hours, paper):
        """Value of this scale among the three."""
        return dict(zip(SCALES, (minutes, hours, paper)))[self.scale]

    @property
    def drawn(self):
        """True where the pictures are drawn ones, whose truth is known."""
        return is_drawn(self.source)

    @property
    def source(self):
        """Data of the pictures, as `zfcore.open_data` takes it."""
        return self.data if self.data is not None else self.model.data

    @cached_property
    def weights_and_pictures(self):
        """Digest of the run's weights and of the pictures."""
        return key_of(checkpoint_file(self.run), self.pictures)

    def key(self, item):
        """Digest of all that an item's numbers depend on."""
        facts = [self.weights_and_pictures, self.scale, self.seed, zfcore.__version__, versions(), item.name,
                 [str(self.options.get(name)) for name in item.uses]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def folder(self, name):
        """The folder called `name` in that of the reproduction. Raises Expected where it is a link that leads out of it."""
        return inside(self.output, name)

    def asked(self, name, command, *words):
        """Arguments of a command of `python -m zfcore`, parsed, in the folder of the item `name`."""
        own = [f"--run={self.run}", f"--output={self.folder(name)}", f"--seed={self.seed}", f"--device={self.device}",
               f"--workers={self.workers}", *([f"--data={self.data}"] if self.data is not None else [])]
        return parser().parse_args([command, *own, *words])

    def look(self, name, command, *words):
        """([results], [Paths of figures]) of such a command."""
        files, figures = work(COMMANDS[command], self.asked(name, command, *words), say=lambda *_: None)
        return [results.load(file, COMMANDS[command].RESULT) for file in files], figures

    def about(self):
        """A sentence: whose network, which pictures."""
        network = self.model.network
        return (f"{network.name}, {network.input_shape[1]}x{network.input_shape[2]} pixels, "
                f"{plural(len(self.model.classes), 'class')}, after {plural(self.model.epoch, 'epoch')}; "
                f"{plural(len(self.pictures), 'picture')} of {data_in_words(self.source)}, the validation part.")


def versions():
    """{name: version} of what numbers may depend on."""
    return {"zfcore": zfcore.__version__, "python": platform.python_version(), "numpy": np.__version__,
            "h5py": h5py.__version__,
            "pillow": PIL.__version__}


def lacking(item, why):
    return Outcome(item, lacking=why)


# -------------------------------------------------------------------------------------------------- how long it takes
@dataclass(frozen=True)
class Speed:
    """Seconds that a picture takes this network: on its way up, for a projection of its last layer of maps, in a training
    step."""
    look: float
    project: float
    step: float


def speed_of(model, pictures):
    """The Speed of a Trained network, measured on a few of the pictures."""
    number = min(LOOKED, len(pictures))
    x = model.inputs(np.stack([pictures.picture(i) for i in range(number)]))
    network, last = model.network, [layer.name for layer in model.network.convolutions or model.network.weighted][-1]
    up = fastest(lambda: to_host(network.forward(x)[0]))
    down = fastest(lambda: to_host(project(network, x, last, [0]*number, start=1).pixels))
    return Speed(up/number, down/number, step_seconds(network, x))


def step_seconds(network: Network, x):
    """Seconds a picture of a training step on pictures x (3,H,W,N), the optimiser left out."""
    def step():
        y, caches = network.forward(x, step=0)
        network.backward(y, caches, to_pixels=False)
    return fastest(step)/x.shape[-1]


def fastest(do, rounds=2):
    """Seconds of the fastest of some rounds, the first of which meets cold caches."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return min(times)
