"""Floor 5: a trained network with all that it takes to use it, opened in one place.

    model = open("drawn")                            a run's folder, a checkpoint file, or a network that comes with zfcore
    model.probabilities(images)                      what it takes uint8 pictures for
    model.pictures()                                 the pictures to look at, prepared as its own were
    model.network, model.mean, model.classes         what it is made of

Every analysis takes one as its first argument; an ensemble is a list of them.
"""
import os
from dataclasses import dataclass, field, replace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zfcore import check, files, interchange
from zfcore.backend import CPU, Device, runs_kernels, to_device, to_host
from zfcore.data import OBJECTS, check_there, data_in_words, open_data, said_place, same_place
from zfcore.data.folders import VAL_FRACTION
from zfcore.data.known import PICTURES, lengths, lie_apart, listed_pictures, listed_places, places
from zfcore.data.loader import DataSet, Pictures
from zfcore.data.transforms import centre_crops, ten_crops
from zfcore.device import select
from zfcore.hints import Array, FilePath, Floats, Precision
from zfcore.models import begun_by, checkpoint_file, from_checkpoint
from zfcore.network import Network
from zfcore.networks import place
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import softmax
from zfcore.terminal import as_called, plural, printable, warn

FOREIGN = {suffix for suffix in interchange.SUFFIXES if suffix not in (".h5", ".hdf5")}        # these are zfcore's own too


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A network that was trained, and how it sees.

    network    with its weights, on its device
    mean       (3,size,size) float32, the mean image of its training pictures, on the same device: pictures are brought to
               squares of `size` pixels, and their crop, less that of the mean, is what enters
    classes    what its last layer's units stand for
    epoch      after how many epochs of training
    data       what it was trained on, as `zfcore.open_data` takes it; None: nobody knows, as of a network from elsewhere or
               of one that was trained on data sets of somebody's own; and
    val_fraction   which share of that was for validation, where it has no parts
    limit_per_class   how many pictures of each class of that there were to be; 0: all
    upscale    whether pictures smaller than its input are enlarged, as they were in training, and not refused
    path       where it was opened; None: nowhere
    begun      makes the same network with the random weights that its training began with; None where they are not known
    history    {column: values, a row an epoch}, what `plots.learning_curves` draws; {} where it is not known
    device     where the arrays are

    Raises Expected for what is none of these, and where mean image, class names and network do not fit."""
    network: Network
    mean: Array
    classes: Sequence[str] = ()
    epoch: int = 0
    data: str | None = ""
    path: Path | None = None
    begun: Callable[[], Network | None] | None = None
    device: Device = CPU
    val_fraction: float = VAL_FRACTION
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    limit_per_class: int = 0
    upscale: bool = False

    def __post_init__(self):
        for what, kinds in (("network", Network), ("history", Mapping), ("device", Device)):
            check.instance(what, getattr(self, what), kinds)
        for what, kinds in (("data", str), ("path", (str, os.PathLike)), ("begun", Callable)):
            if getattr(self, what) is not None:
                check.instance(what, getattr(self, what), kinds)
        check.whole("epoch", self.epoch, 0)
        check.number("val_fraction", self.val_fraction)
        check.whole("limit_per_class", self.limit_per_class, 0)
        check.instance("upscale", self.upscale, bool)
        outputs, (_, H, W) = self.network.shapes[-1], self.network.input_shape
        check.shape(f"{self.name}: mean image", self.mean, (3, None, None))
        self.network.check_dtype(f"{self.name}: mean image", self.mean)
        rims = self.mean.shape[1] - H, self.mean.shape[2] - W
        if rims[0] != rims[1] or rims[0] < 0:
            raise check.Expected(f"{self.name}: mean image", f"the same rim on all sides of {H}x{W} pixels",
                                 f"{self.mean.shape[1]}x{self.mean.shape[2]}")
        names = check.names(f"{self.name}: classes", self.classes, none=True)
        if names and len(outputs) == 1 and not len(names) == len(set(names)) == outputs[0]:
            raise check.Expected(f"{self.name}: classes", f"{outputs[0]} different names, one for each output",
                                 f"{len(names)}, {len(set(names))} of them different")
        if not isinstance(self.classes, (list, tuple)):            # what gives its names once only, or has no `index`
            object.__setattr__(self, "classes", names)

    def __repr__(self):
        from_where = f"{self.path}: " if self.path else ""
        return (f"{from_where}{self.name}, {'x'.join(map(str, self.network.input_shape[1:]))} pixels, "
                f"{plural(len(self.classes), 'class')}, after {plural(self.epoch, 'epoch')}")

    @property
    def name(self) -> str:
        """The model's name, e.g. "zfnet"."""
        return self.network.name

    @property
    def size(self) -> int:
        """Side of the squares that pictures are brought to, e.g. 256."""
        return self.mean.shape[1]

    @property
    def crop(self) -> int:
        """Side of what enters the network, e.g. 224."""
        return self.network.input_shape[1]

    @cached_property
    def start(self) -> Network | None:
        """The network as training began, in the dtype of what enters; None where that is not known."""
        start = self.begun() if self.begun else None
        return None if start is None else start.in_dtype(self.mean.dtype)

    def untrained(self) -> "Trained":
        """Model as its training began. Raises Expected where that is not known."""
        if self.start is None:
            raise check.Expected(self.path or self.name, "a run that says how its weights were drawn", "one that does not")
        return replace(self, network=self.start, epoch=0)

    def inputs(self, images: NDArray[np.uint8]) -> Array:
        """uint8 (N,size,size,3) -> the centre crops less the mean, (3,H,W,N) of the network's dtype, float32, on the device."""
        images = self._there(images)
        return self._seen(images, *centre_crops(len(images), self.size, self.crop))

    def probabilities(self, images: NDArray[np.uint8], crops: Literal["centre", "ten"] = "centre") -> NDArray[np.floating[Any]]:
        """P (classes,N) on the host, of the network's dtype, float32 unless somebody made it another, of uint8 images
        (N,size,size,3): the softmax of the scores, of the centre crop or the mean over the paper's ten ("ten", section 3)."""
        check.one_of("crops", crops, ("centre", "ten"))
        images, each = self._there(images), []
        views = zip(*(ten_crops(self.size, self.crop) if crops == "ten" else centre_crops(1, self.size, self.crop)))
        for view in views:                                 # (top, left, mirrored), the same for every picture
            y, _ = self.network.forward(self._seen(images, *(np.full(len(images), value) for value in view)))
            each.append(to_host(softmax(y)))
        check.finite(f"{self.name}: probabilities", p := np.mean(each, axis=0))      # NaN would win every comparison by losing it
        return p

    def _there(self, images):
        """Images on the device; those that a loader has sent there already are left as they are. Raises Expected for another
        size, and for what is no pictures."""
        images = check.pictures("pictures", images, (None, *self.mean.shape[1:], 3))
        return images if runs_kernels(images) else to_device(images, like=self.mean)

    def _seen(self, images, tops, lefts, flips):
        _, H, W = self.network.input_shape
        return crop_flip(images, self.mean, tops, lefts, flips, H, W)

    def pictures(self, data: FilePath | None = None, part: Literal["train", "val"] = "val", upscale: bool = False,
                 workers: int = 2, limit_per_class: int = 0) -> Pictures:
        """The pictures of a part of `data` (None: what it was trained on), prepared as its own were; `upscale` enlarges those
        smaller than the network's input, which otherwise are refused where its own were not enlarged. Raises Expected as `zfcore.open_data` does, for the
        empty name, and where those that it was trained on are not known."""
        return self.prepared(self.dataset(data, part, limit_per_class), upscale, workers)

    def dataset(self, data: FilePath | None = None, part: Literal["train", "val"] = "val", limit_per_class: int = 0) -> DataSet:
        """The data set of a part of `data` (None: what it was trained on). Where other data have no parts, all of them are
        "val", but of its own pictures, wherever they lie now, those that are for validation."""
        check.one_of("part", part, ("train", "val"))
        if data is None:
            check_there(self.data)
        elif not said_place(data):
            raise check.Expected("data", "a folder, a file or the name of a drawn set", "an empty name",
                                 f"{OBJECTS} is the set of drawn objects")
        data = said_place(self.data if data is None else data)
        own = same_place(data, self.data)
        found = open_data(data, self.size, limit_per_class, self.val_fraction if own else None)
        if not own and not len(found[0]) and self._knows(found[1]):                # its own, which lie elsewhere now
            found = open_data(data, self.size, limit_per_class, self.val_fraction)
        if not len(found[part == "val"]):
            raise check.Expected("--part", f"pictures in the {part} part of {data_in_words(data)}", "none",
                                 f"--part {'val' if part == 'train' else 'train'} has {len(found[part != 'val'])}")
        return found[part == "val"]

    def _knows(self, dataset):
        """True where most of the pictures that its run split into those to train on and others are in the data set, by their
        names and, where these are known, the sizes of their files: those of other sets may be called alike."""
        path = self.path and (self.path if self.path.is_dir() else self.path.parent)/PICTURES
        if not path or not path.is_file():
            return False
        if not dataset.classes:
            return False
        if lie_apart(rows := [*listed_pictures(path)]):
            return False
        there = dict(zip(places("", dataset), lengths(dataset)))
        own = dict(zip(listed_places([("", *row[1:]) for row in rows], set(there)), (row[3] for row in rows)))
        return 2*sum(at in there and ("" in (size, there[at]) or size == there[at])
                     for at, size in own.items()) > len(own)

    def prepared(self, dataset: DataSet, upscale: bool = False, workers: int = 2) -> Pictures:
        """The pictures of a data set, prepared as its own were. Raises Expected where the network does not see squares."""
        check_sees_squares(self)
        return Pictures(dataset, self.size, self.crop, upscale or self.upscale, workers)

    def with_classes(self, classes: Sequence[str]) -> "Trained":
        """Model with this one's outputs in the order of `classes`, which must be its own: with them those of the layer that makes
        the scores, and of all that lies behind it, also as training began. Raises Expected for others, and where no layer is known to make them."""
        if sorted(classes := check.names(f"{self.name}: classes", classes)) != sorted(self.classes):
            raise check.Expected(f"{self.name}: classes", f"its own {len(self.classes)} in another order",
                                 f"{len(classes)}, others among them")
        order = [self.classes.index(name) for name in classes]
        if order == sorted(order):
            return replace(self, network=self.network.copy(), classes=classes)
        begun = self.begun and partial(_start_in_order, self.begun, order)
        return replace(self, network=reordered(self.network, order), classes=classes, begun=begun)


def reordered(network: Network, order: Sequence[int]) -> Network:
    """The network with its outputs in another order. Raises Expected where no layer is known to make them."""
    network = network.copy()
    for k, shape in reversed([*enumerate(network.shapes[:-1])]):
        network.layers[k] = layer = network.layers[k].reordered(order)
        if not layer.by_units:
            return network
        if shape[0] != len(order):
            raise check.Expected(f"{network.name}: {layer.name}", f"as many units below as classes, {len(order)}", shape[0])
    raise check.Expected(f"{network.name}: classes", "a layer that makes the scores, whose order can be another", "none")


def _start_in_order(begun, order):
    """The network that `begun` makes, if it does, with its outputs in another order."""
    start = begun()
    return None if start is None else reordered(start, order)


def arrays_of(model: Trained) -> Iterator[NDArray[Any]]:
    """All arrays that a model computes with, one after the other, on the host."""
    yield np.ascontiguousarray(to_host(model.mean))
    for of_layer in (*model.network.parameters().values(), *model.network.buffers().values()):
        yield from (np.ascontiguousarray(to_host(array)) for array in of_layer.values())


def check_different(what: str, models: Iterable[Trained]) -> None:
    """Raise Expected where two of the networks are one and the same, wherever they were opened: what it says would count twice."""
    for one, other in combinations(models, 2):
        if all(map(np.array_equal, arrays_of(one), arrays_of(other))) and one.network.table() == other.network.table():
            raise check.Expected(what, "different networks", f"{other.path or other.name}, which is there already")


def check_model(model: Trained) -> None:
    """Raise Expected unless it is a Trained, which analyses take, not its network."""
    check.instance("model", model, Trained, "zfcore.open gives one")


def check_sees_squares(model: Trained) -> None:
    """Raise Expected unless what enters the network is square, as all is that zfcore cuts out of pictures."""
    _, H, W = model.network.input_shape
    if H != W:
        raise check.Expected(model.name, "a network that sees squares", f"one that sees {H}x{W} pixels",
                             "arrays of that form are taken by model.probabilities, zfcore.occlusion and zfcore.project")


def check_pictures(pictures: Pictures) -> None:
    """Raise Expected unless they are Pictures, not a data set, an array or a path."""
    check.instance("pictures", pictures, Pictures, "model.pictures() gives them, model.prepared(dataset) those of a data set")


def check_pass_of(model: Trained, pictures: Pictures, batch_size: int) -> int:
    """`batch_size` as an int. Raise Expected unless it is a Trained and Pictures, which can go up in batches of this size."""
    check_model(model)
    check_pictures(pictures)
    batch_size = check.whole("batch size", batch_size)
    if model.mean.shape[1:] != (pictures.size, pictures.size):
        raise check.Expected("pictures", "shape (any, {}, {}, 3)".format(*model.mean.shape[1:]),
                             (len(pictures), pictures.size, pictures.size, 3), "model.prepared(dataset) makes them so")
    return batch_size


def open(path: FilePath, device: Literal["auto", "cpu", "gpu"] = "auto", precision: Precision = "fp32") -> Trained:
    """The trained network of a run's folder (its best.h5), a checkpoint file, one that comes with zfcore ("drawn"), or a file
    of another engine that says how its layers lie (alexnet.onnx, a .caffemodel beside its .prototxt), on `device`, its products
    formed in that `precision`. What is assumed of such a file is told; `import_network` takes what else is known of it. Raises
    Expected for what is none of these, or has no mean image."""
    path = place(path)
    if path.suffix.lower() in FOREIGN and path.is_file():
        return import_network(path, device=device, precision=precision)
    device = select(device)
    network, checkpoint = from_checkpoint(path, device, precision)
    if checkpoint.mean_image is None:
        raise check.Expected(path, "a checkpoint with a mean image", "one without")
    data = checkpoint.state.get("data")
    if data == "" and (checkpoint_file(path).parent/PICTURES).is_file():       # an older run on data sets of somebody's own,
        data = None                                                            # since drawn pictures are not listed
    return Trained(network, device.array(checkpoint.mean_image), checkpoint.classes, checkpoint.epoch, data, path,
                   begun_by(checkpoint, device, precision), device,
                   checkpoint.state.get("val_fraction", VAL_FRACTION), checkpoint.history,
                   checkpoint.state.get("limit_per_class", 0), _were_enlarged(checkpoint_file(path), checkpoint.state))


def _were_enlarged(file, state):
    """Return whether the run of a checkpoint's file enlarged small pictures; an older one says so in its config.json alone."""
    if "upscale" in state or not (file.parent/"config.json").is_file():
        return bool(state.get("upscale", 0))
    with suppress(check.Expected, OSError):                # what is damaged there is told by whoever goes on with the run
        option = files.table({}, {"upscale": files.flag}, others=files.anything)
        form = files.table({}, {"options": option}, others=files.anything)
        return bool(files.read_json(files.inside(file.parent, "config.json"), form).get("options", {}).get("upscale", False))
    return False


def import_network(path: FilePath, graph: FilePath | None = None, model: FilePath | None = None,
                   labels: Sequence[str] | None = None, device: Literal["auto", "cpu", "gpu"] = "auto",
                   precision: Precision = "fp32", *, channels: Literal["rgb", "bgr", "grey"] | None = None,
                   mean: Floats | None = None, std: Floats | None = None, scale: float | None = None,
                   picture_size: int | None = None) -> Trained:
    """The trained network in a file of another engine (ONNX, Caffe, PyTorch, safetensors, Keras), as `python -m zfcore import`
    makes it, held against the file's own engine where that is installed:

        names = open("words.txt").read().splitlines()
        model = zfcore.import_network("vgg16.pt", model="vgg16", labels=names, mean=(0.485, 0.456, 0.406),
                                      std=(0.229, 0.224, 0.225))

    graph         Caffe's prototxt; None: the one beside the file
    model         of a file that holds weights alone: the name of one of zfcore's models, or a JSON file with a layer table
    labels        names of the classes; None: what the file says, or numbers
    channels      the order in which the network has the colours; None: what the file says, or R,G,B
    mean, std     what is subtracted from pixels, and what they are then divided by: one number or one a channel, in R,G,B, of
                  pixels 0 to 1 if all are at most 1, else of 0 to 255; `mean` may be a picture (C,S,S) in the network's order
    scale         what they are multiplied by, in place of `std`
    picture_size  side of the squares that pictures are brought to, of which the network sees the middle

    What is assumed is told on standard error. Raises Expected for what is no such file or does not fit, and where the scores are
    not those of the file's own engine."""
    device = select(device)
    found = interchange.import_network(path, graph, None if model is None else str(model), labels, channels=channels,
                                       mean=mean, std=std, scale=scale, size=picture_size)
    for line in found.notes:
        warn(f"{printable(path)}: {as_called(line)}")
    lowered = found.lowered
    network = lowered.network.load(lowered.network.parameters(), device, lowered.network.buffers()).use(precision)
    return Trained(network, device.array(lowered.mean), found.classes, data=None, path=Path(path), device=device)
