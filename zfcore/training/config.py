"""Every option of a training run: its default, its source, its checks, and the presets that set several at once."""
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from zfcore import check
from zfcore.data import is_drawn, open_data, said_place
from zfcore.data.folders import VAL_FRACTION
from zfcore.data.loader import DataSet
from zfcore.data.split import check_fraction
from zfcore.data.synthetic import LARGEST, SMALLEST
from zfcore.device import DEVICES
from zfcore.files import read_json, said
from zfcore.hints import Law, Precision
from zfcore.kernel import PRECISIONS
from zfcore.models import MODELS, NATIVE_SIZE, from_checkpoint
from zfcore.optim import decay_that_leaves, start_left

MOST_DECAY = 0.05                # that --start-left chooses: above it the small networks learn less (bench/README.md)
MOST_EPOCHS = 100_000
# No option may be larger; beyond, a typing error is likelier than a training.
MOST = {"image_size": 4096, "epochs": MOST_EPOCHS, "batch_size": 2**20, "micro_batch": 2**20, "patience": MOST_EPOCHS,
        "workers": 1024, "limit_per_class": 2**31}
PAPER_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)              # figure 4 shows these


@dataclass(frozen=True)
class TrainConfig:
    """A run's options, as config.json keeps them. The defaults are the paper's recipe (section 3) where it has one;
    what it leaves open is marked "ours"."""
    preset: str = "zfnet"            # the set of defaults that the run started from
    data: str | None = ""            # class folders or tar, or drawn:NAME; empty: the synthetic set; None: nobody knows where
    model: str = "zfnet"             # one of zfcore.models.MODELS, or the name of a network of one's own
    image_size: int = 224            # side of the crop that enters the network; pictures are kept at 256/224 of it
    epochs: int = 70
    batch_size: int = 128
    micro_batch: int = 0             # a batch is walked in pieces of so many pictures, to fit into memory; 0: whole
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float | None = 5e-4       # ours: the paper states none; AlexNet's value. None: what `start_left` asks for
    start_left: float = 0.0          # ours: the share of the random start that weight decay is to leave at the end; 0: any
    keep_prob: float = 0.5           # dropout keeps a unit of layers 6 and 7 with this probability
    init: Law = "gaussian"           # gaussian: N(0, 0.01), our reading of "1e-2"; he: sqrt(2/fan_in)
    rms_max: float = 0.1             # a convolution filter above this RMS is scaled back to it; 0: no limit
    patience: int = 5                # ours: epochs without a better validation error before lr is divided by 10
    drop_after: tuple[int, ...] = ()  # epochs after which lr is divided by 10, instead of by `patience`
    crops: Literal["ten", "random"] = "ten"  # ten: one of the paper's ten crops, drawn; random: any place, mirrored or not
    seed: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Precision = "fp32"    # how products are formed
    workers: int = 2                 # threads that decode pictures
    limit_per_class: int = 0         # use only so many pictures of each class; 0: all
    val_fraction: float = VAL_FRACTION  # for validation, of pictures that lie in no parts train and val
    upscale: bool = True             # enlarge pictures whose shorter side is below image_size, as the paper does
    init_from: str = ""              # a run or checkpoint whose weights are the start; empty: drawn as `init` says
    keep_epochs: tuple[int, ...] = PAPER_EPOCHS  # these epochs' checkpoints stay as epoch_NNNN.h5

    def __post_init__(self):
        for name in NAMES:
            object.__setattr__(self, name, of_the_kind(flag(name), name, getattr(self, name)))
        for name in ("image_size", "epochs", "batch_size", "lr", "patience"):
            check.positive(flag(name), getattr(self, name))
        for name in ("micro_batch", "weight_decay", "rms_max", "workers", "limit_per_class"):
            value = getattr(self, name)
            if not (name == "weight_decay" and value is None or 0 <= value < math.inf):       # a decay of None is chosen later
                raise check.Expected(flag(name), "0 or more", value)
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise check.Expected(flag(name), f"at most {most}", said(getattr(self, name)))
        drops = self.drop_after
        if 0 in drops or len(drops) > len(set(drops)):
            raise check.Expected("--drop-after", "numbers of epochs, from 1, each once", " ".join(map(str, drops)))
        check_fraction("--val-fraction", self.val_fraction)
        check.seed("--seed", self.seed)
        if not 0 <= self.momentum < 1:
            raise check.Expected("--momentum", "0 <= momentum < 1", self.momentum)
        if not 0 < self.keep_prob <= 1:
            raise check.Expected("--keep-prob", "0 < keep_prob <= 1, the share of units kept", self.keep_prob)
        if self.weight_decay is None and not self.start_left:
            raise check.Expected("--weight-decay", "a number, or --start-left above 0, which chooses one", "neither")
        if not 0 <= self.start_left < 1:
            raise check.Expected("--start-left", "a share of the start, 0 <= share < 1 (0: whatever --weight-decay leaves)",
                                 self.start_left)
        check.one_of("--init", self.init, ("gaussian", "he"))
        check.one_of("--crops", self.crops, ("ten", "random"))
        check.one_of("--device", self.device, ("auto", *DEVICES))
        check.one_of("--precision", self.precision, PRECISIONS)

    @property
    def picture_size(self) -> int:
        """Side of the square that pictures are brought to before the crop: 256 for a crop of 224."""
        return picture_size(self.image_size)

    @property
    def other_law(self) -> str:
        """"--init he" where that draws another start than the run has, "" elsewhere."""
        return "" if self.init == "he" or self.init_from else "--init he"

    def parts(self) -> tuple[DataSet, DataSet]:
        """The data sets (train, val) that `data` names. Raises Expected as `open_data` does."""
        if is_drawn(self.data) and not SMALLEST <= self.picture_size <= LARGEST:
            sizes = [n for n in range(1, LARGEST) if SMALLEST <= picture_size(n) <= LARGEST]
            raise check.Expected("--image-size", f"{sizes[0]} to {sizes[-1]}, for which pictures can be drawn", self.image_size)
        return open_data(said_place(self.data), self.picture_size, self.limit_per_class, self.val_fraction)

    def forecast(self, pictures: int) -> float:
        """The share of the random start that will be left after training on so many pictures, see `optim.start_left`: 0..1,
        more where --patience lowers the learning rate, which nobody knows beforehand."""
        return start_left(self.lr_sum(pictures), self.momentum, self.weight_decay)

    def lr_sum(self, pictures: int) -> float:
        """The learning rates of all steps over so many pictures, added up; as `forecast` without what --patience does."""
        steps = -(-pictures//self.batch_size)
        ends = [0, *sorted(min(drop, self.epochs) for drop in self.drop_after), self.epochs]
        return sum(self.lr_after(begin)*steps*(end - begin) for begin, end in itertools.pairwise(ends) if begin < end)

    def lr_after(self, epochs: int) -> float:
        """The learning rate after so many epochs by --drop-after, without what --patience does."""
        lr = self.lr
        for _ in range(sum(drop <= epochs for drop in self.drop_after)):
            lr /= 10
        return lr

    def for_epochs(self, epochs: int) -> "TrainConfig":
        """Options of a training of so many epochs: --drop-after, where it is its preset's for their number, follows."""
        rule = PRESETS[self.preset].get("drop_after")
        drops = rule(epochs) if callable(rule) and self.drop_after == rule(self.epochs) else self.drop_after
        return replace(self, epochs=epochs, drop_after=drops)

    def decided(self, pictures: int) -> "TrainConfig":
        """Options with a number for `weight_decay`: the one that leaves `start_left` of the start, at most MOST_DECAY."""
        if self.weight_decay is not None:
            return self
        return replace(self, weight_decay=min(MOST_DECAY, float(f"{self.decay_for(self.start_left, pictures):.3g}")))

    def decay_for(self, share: float, pictures: int) -> float:
        """The weight decay with which `forecast` is `share`."""
        return decay_that_leaves(share, self.lr_sum(pictures), self.momentum)

    def __str__(self):
        return "\n".join(f"{name:16} {value}" for name, value in asdict(self).items())


def picture_size(crop):
    """Side of the squares of which crops of so many pixels are taken."""
    return round(crop*256/224)


def late_drop(epochs):
    """--drop-after of a short training: once, for its last fifth."""
    return (epochs*4//5,) if epochs > 1 else ()


# What each preset changes. "tiny" is what runs when nothing is asked for; the other three follow the paper. A function is
# called with the number of epochs.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(model="tiny", image_size=96, epochs=9, batch_size=32, lr=0.003, weight_decay=None, start_left=0.4,
                 keep_prob=0.9, init="he", drop_after=late_drop, crops="random", upscale=False),
    "zfnet": dict(),
    "zfnet-b": dict(model="zfnet-b"),
    "alexnet": dict(model="alexnet"),
}
# What --resume may be given another value for. Data may have been moved, but must be the same pictures. Another device,
# micro-batch or precision changes the rounding of sums: the run goes on as it would have, but no longer with the same bits.
MAY_CHANGE = ("epochs", "data", "workers", "device", "micro_batch", "precision")


def flag(name):
    return "--" + name.replace("_", "-")


def resolve(typed: Mapping[str, Any]) -> TrainConfig:
    """{option: value} as typed, "config" (a file of options) among them -> TrainConfig. Later wins: preset, model and size of
    the network that --init-from names, config file, typed options."""
    check.instance("options", typed, Mapping, 'resolve({"preset": "tiny", "epochs": 3}) names two')
    typed = {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}
    from_file = read_options(typed.pop("config")) if "config" in typed else {}
    for name, value in typed.items():
        check.one_of("option", name, NAMES)
        typed[name] = of_the_kind(flag(name), name, value)
    asked = {**from_file, **typed}
    if asked.get("init_from"):
        network = _source(asked["init_from"])
        asked = {"model": network.name, "image_size": network.input_shape[1], **asked}
    if (model := asked.get("model")) is not None and not asked.get("init_from"):       # which may be a network from elsewhere
        check.one_of("--model", model, MODELS)
    preset = asked.get("preset") or (model if model in PRESETS else "zfnet" if model else "tiny")
    check.one_of("--preset", preset, PRESETS)
    values = {**PRESETS[preset], **_decay(typed, asked), **_drops(typed, from_file, PRESETS[preset]), "preset": preset}
    epochs = values.get("epochs", TrainConfig.epochs)
    values = {name: value(epochs) if callable(value) else value for name, value in values.items()}
    if "image_size" not in values and model:
        values["image_size"] = NATIVE_SIZE.get(model, 224)
    return TrainConfig(**values)


def _source(path):
    """The network that --init-from names."""
    with check.told_of("--init-from", "--run"):
        return from_checkpoint(path)[0]


def _decay(typed, asked):
    """The options `asked` for, with --weight-decay and --start-left in accord: of the two, the one that was typed, or else
    stands in the file, counts, and not the preset's other one. Of a run's config.json, which holds both, it is the rest that
    was asked for: other epochs or pictures need another decay. Trained weights have no random start to be forgotten."""
    if {"weight_decay", "start_left"} <= set(typed):
        raise check.Expected("options", "--weight-decay or --start-left, which chooses it", "both")
    if "weight_decay" not in typed and asked.get("start_left"):
        return {**asked, "weight_decay": None}
    if {"weight_decay", "start_left"} & set(asked) or asked.get("init_from"):
        return {"weight_decay": TrainConfig.weight_decay, **asked, "start_left": 0.0}
    return asked


def _drops(typed, from_file, preset):
    """{"drop_after": its value} where it is not what was asked for by that name: --patience and --drop-after are two ways, and
    the one that was typed, or else the file's, counts. A run's config.json holds both; where its --drop-after is the one that
    its preset has for its number of epochs, and another number is typed, the preset's for that number is meant, as in
    `_decay`."""
    if {"patience", "drop_after"} <= set(typed):
        raise check.Expected("options", "--patience or --drop-after, which is used instead of it", "both")
    rule = preset.get("drop_after")
    if "drop_after" in typed:
        return {}
    if "patience" in typed or "patience" in from_file and "drop_after" not in from_file:
        return {"drop_after": ()}
    both = "epochs" in typed and "epochs" in from_file
    if both and callable(rule) and from_file.get("drop_after") == rule(from_file["epochs"]):
        return {"drop_after": rule}
    return {}


def resumed(stored, changes):
    """The stored TrainConfig of a run with `changes` {option: value}, of which only MAY_CHANGE may differ; any other is refused
    by name."""
    for name, value in changes.items():
        check.one_of("option", name, NAMES)
        if of_the_kind(flag(name), name, value) != getattr(stored, name) and name not in MAY_CHANGE:
            raise check.Expected(f"--resume with {flag(name)}", f"the run's own value {getattr(stored, name)!r}",
                                 repr(value),
                                 f"leave it out, or start a new run; {', '.join(map(flag, MAY_CHANGE))} may change")
    return replace(stored, **changes)


def read_options(path):
    """The options in a JSON file, checked by name and type. A run's config.json is one ("options" holds them); an older run
    took an epoch that --drop-after named twice for one, and 0 for never."""
    check.instance("--config", path, (str, os.PathLike))
    path = Path(path)
    try:
        content = read_json(path)
    except OSError as error:
        raise check.Expected("--config", "a file that can be read", f"{path} ({error.strerror})") from None
    except check.Expected as sentence:
        raise check.Expected(path, "a JSON object of options", sentence.got) from None
    options = content.get("options", content) if isinstance(content, dict) else content
    if not isinstance(options, dict):
        raise check.Expected(path, "a JSON object of options", type(options).__name__)
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    for name, value in options.items():
        check.one_of(f"{path}: option", name, NAMES)
        of_the_kind(f"{path}: {name}", name, value)
    if "options" in content and "drop_after" in options:
        options["drop_after"] = tuple(dict.fromkeys(drop or MOST_EPOCHS for drop in options["drop_after"]))
    return options


def of_the_kind(what, name, value):
    """`value`, a path as a text. Raise unless it is of the type of the option `name`; a whole number does for a float, a tuple
    holds whole ones, 0 or more."""
    kind = type(DEFAULTS[name])
    if name in ("data", "init_from") and isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if kind is tuple:
        fits = isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)
    else:
        fits = type(value) is kind or kind is float and (type(value) is int or isinstance(value, float))
        fits = fits or value is None and name in ("data", "weight_decay")
    if not fits:
        of = " of whole numbers, 0 or more" if kind is tuple else ""
        raise check.Expected(what, f"a value of type {kind.__name__}{of}", repr(value)[:60])
    return value


DEFAULTS = {f.name: f.default for f in fields(TrainConfig)}
NAMES = tuple(DEFAULTS)
NEWER = "micro_batch", "start_left", "drop_after", "val_fraction", "init_from"         # which the oldest runs do not have
