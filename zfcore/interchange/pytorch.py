"""PyTorch's files of weights, written by torch and read with NumPy alone: .pt and .pth, as a zip (since 1.6) or as pickles in a
row (before).

A state_dict alone or within a dictionary is taken. The pickle in it is followed by zfcore/pickles.py, where tensors are made of
our own functions; a whole module, which is a program, is refused by name. Every tensor is looked at before its numbers are: it
must lie within its storage, and the storage within the file.
"""
import io
import math
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.files import opener, said
from zfcore.hints import FilePath
from zfcore.interchange import state_dict
from zfcore.interchange.archive import Archive
from zfcore.interchange.foreign import Foreign, for_kind
from zfcore.interchange.state_dict import Weights
from zfcore.layers import AvgPool, BatchNorm, Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm, MaxPool, Pad, ReLU
from zfcore.network import Network
from zfcore.pickles import LARGEST_KEY, Code, Filled, Global, Machine, followed, plain

MOST_PICKLE = 2**24               # bytes; a state_dict of a thousand tensors takes 0.3 million
MOST_NUMBER = 2**48               # of a size, stride or place
LARGEST_RANK = 8
MAGIC, PROTOCOL = 0x1950a86a20f9469cfc6c, 1001                                # of the older form
NESTED = "state_dict", "model_state_dict", "model"
SAVE = "save what model.state_dict() gives, and import that"
DTYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "<u2", "Long": "<i8", "Int": "<i4", "Short": "<i2",
          "Char": "i1", "Byte": "u1", "Bool": "?"}


def read(path: Path, graph: Path | None, model: str | None) -> Foreign:
    """The network whose weights are in a file of PyTorch's, and whose layers `model` names (`state_dict.foreign`). `graph` is
    not needed. Raises Expected for everything that is wrong with the file, and for one that is more than weights."""
    with opened(path) as weights:
        return state_dict.foreign("PyTorch", path, weights, model)


@contextmanager
def opened(path: Path) -> Iterator[Weights]:
    """`with opened(path) as weights:` the Weights in a file, whose numbers may be asked for within. bfloat16 comes as
    float32."""
    with open(path, "rb", opener=opener) as file:
        is_zip = file.read(4) == b"PK\3\4"
        file.seek(0)
        found, read_storage = _zipped(path, file) if is_zip else _legacy(path, file)
        within, tensors = _state_dict(path, found)
        arrays: dict[str, NDArray[Any]] = {}               # of storages, which several tensors may share

        def numbers(tensor):
            if tensor.storage.key not in arrays:
                arrays[tensor.storage.key] = read_storage(tensor.storage)
            return tensor.of(arrays[tensor.storage.key])

        shapes = {name: tensor.check(f"{path}: {name}") for name, tensor in tensors.items()}
        about, mean = (found.get(key) if within is not None else None for key in (state_dict.ABOUT, state_dict.MEAN))
        if isinstance(mean, _Tensor):
            mean.check(f"{path}: {state_dict.MEAN}")
        yield Weights(shapes, lambda name: numbers(tensors[name]), lambda: _by_torch(path, within),
                      about=about if isinstance(about, str) else None,
                      mean=numbers(mean) if isinstance(mean, _Tensor) else None)


def _by_torch(path, within):
    """{name: torch.Tensor} as torch itself reads it."""
    import torch
    found = torch.load(path, map_location="cpu", weights_only=True)
    found = found if within is None else found[within]
    return {name: thing.float() for name, thing in found.items() if isinstance(thing, torch.Tensor)}


# ------------------------------------------------------------------------------------------------------ the two forms
def _zipped(path, file):
    """(what the pickle describes, a function: storage -> its numbers)."""
    archive = Archive(path, file)
    pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Expected(path, "a zip with one data.pkl, as torch.save writes it", f"one with {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.members and (order := archive.bytes_of(f"{folder}byteorder", 10)) != b"little":
        raise Expected(f"{path}: byteorder", "little", said(order))
    machine, (found, _) = _followed(path, archive.bytes_of(pickles[0], MOST_PICKLE))

    def numbers(storage):
        with archive.part(f"{folder}data/{storage.key}") as part:
            return storage.numbers(path, part, len(part))
    return found, numbers


def _legacy(path, file):
    """The same of the older form: four pickles, a fifth that lists the storages, and these, each behind its length."""
    data, place, found = file.read(MOST_PICKLE), 0, []
    for _ in range(5):
        machine, (thing, length) = _followed(path, data[place:])
        if not found and thing != MAGIC:
            raise Expected(path, "a file that torch.save has written", "a pickle of something else", SAVE)
        found.append((thing, machine.storages))
        place += length
    (_, _), (protocol, _), (system, _), (described, storages), (keys, _) = found
    if protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Expected(path, f"version {PROTOCOL}, of a little-endian machine", f"version {said(protocol)}, {said(system)}")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise Expected(path, f"a list of its {len(storages)} storages", said(keys))
    places = {}
    for key in keys:
        file.seek(place)
        if file.read(8) != struct.pack("<q", storages[key].count):
            raise Expected(f"{path}: storage {said(key)}", f"{storages[key].count} numbers",
                           "another number, or the end of the file")
        places[key] = place + 8
        place += 8 + storages[key].size

    def numbers(storage):
        file.seek(places[storage.key])
        return storage.numbers(path, file, os.fstat(file.fileno()).st_size - places[storage.key], is_all=False)
    return described, numbers


def _state_dict(path, found):
    """(the key of the state_dict in what was saved, None if it is that itself; {name: _Tensor} of it)."""
    if not isinstance(found, dict):
        raise Expected(path, "a dictionary of tensors", "a tensor alone" if isinstance(found, _Tensor) else said(found), SAVE)
    inner = [key for key, thing in found.items() if isinstance(thing, dict)
             and any(isinstance(one, _Tensor) for one in thing.values())]
    known = [key for key in NESTED if key in inner]
    if not known and any(isinstance(thing, _Tensor) for thing in found.values()):
        within, chosen = None, found
    elif known or len(inner) == 1:
        within = (known or inner)[0]
        chosen = found[within]
    else:
        raise Expected(path, "a dictionary of tensors, or one in it", f"{', '.join(map(said, inner[:10])) or 'none'}", SAVE)
    tensors = {key: thing for key, thing in chosen.items() if isinstance(thing, _Tensor)}
    if strange := [key for key in tensors if not isinstance(key, str) or not key.isprintable() or len(key) > 300]:
        raise Expected(path, "tensors with names that can be printed", said(strange[0]))
    return within, tensors


# ----------------------------------------------------------------------------------------------------------- the pickle
def _followed(path, data):
    machine = _Machine(len(data)//4 + 1000)
    return machine, followed(path, data, machine, "tensors", SAVE, "save or fetch the file again")


class _Machine(Machine):
    """A machine that knows storages too, and dictionaries by number, as optimizers have them. `storages`: {key: _Storage}."""

    def __init__(self, room: int) -> None:
        super().__init__(MADE, room)
        self.storages: dict[str, _Storage] = {}

    def step(self, instruction: str, value: Any) -> None:
        if instruction == "BINPERSID":
            self.stack.append(self._storage(*self.stack.pop()))
        elif instruction in ("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"):          # the texts of Python 2, names here
            self.stack.append(value)
        else:
            super().step(instruction, value)

    def _storage(self, word, kind, key, place, count, view=None):
        if plain(word) != "storage" or not isinstance(kind, Global) or view is not None:
            raise Code("something else than a storage")
        name = kind.name.removeprefix("torch.").removesuffix("Storage")
        if name not in DTYPES:
            raise Code(ascii(kind.name))
        storage = _Storage(plain(key), name, _whole(count))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key[:40]!r} of two kinds")
        return storage

    @staticmethod
    def text(thing: Any) -> Any:
        return thing if type(thing) is int and thing.bit_length() <= LARGEST_KEY else Machine.text(thing)


@dataclass(frozen=True)
class _Storage:
    """`count` numbers of a `kind` in the file, of which tensors are parts."""
    key: str
    kind: str
    count: int

    @property
    def size(self):
        return self.count*np.dtype(DTYPES[self.kind]).itemsize

    def numbers(self, path, file, there, is_all=True):
        """The numbers, from a `file` with so many bytes left; bfloat16, which NumPy has not, as float32."""
        if there < self.size or is_all and there != self.size:
            raise Expected(f"{path}: storage {said(self.key)}", f"{self.size} bytes", there)
        array = np.empty(self.count, DTYPES[self.kind])
        if file.readinto(array.view(np.uint8)) != self.size:
            raise Expected(f"{path}: storage {said(self.key)}", f"{self.size} bytes", "fewer")
        return (array.astype("<u4") << 16).view("<f4") if self.kind == "BFloat16" else array


@dataclass
class _Tensor:
    """A part of a storage: from `offset` on, of `shape`, with so many numbers to the next along each axis."""
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def check(self, where):
        """The shape of the tensor, which must lie within its storage, and be no more than it."""
        last = self.offset + sum((size - 1)*stride for size, stride in zip(self.shape, self.strides))
        axes = math.prod(max(size, 1) for size in self.shape)
        is_empty = min(self.shape, default=1) == 0
        if not is_empty and (last >= self.storage.count or axes > self.storage.count) or axes > MOST_NUMBER:
            raise Expected(where, f"a tensor within its storage of {self.storage.count} numbers",
                           f"shape {self.shape}, strides {self.strides} from number {self.offset} on")
        return self.shape

    def of(self, numbers):
        """The tensor as an array, of the storage's `numbers`."""
        strides = [stride*numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset:], self.shape, strides, writeable=False)


class _Ordered(dict, Filled):
    """An OrderedDict; what it is filled with beside its entries, a state_dict's versions, is left."""

    def __init__(self, pairs=()):
        super().__init__((Machine.text(key), value) for key, value in pairs)

    def fill(self, *_):
        pass


def _tensor(storage, offset, shape, strides, requires_grad=None, hooks=None, metadata=None):
    if metadata:                                           # of a view that torch computes: -w, or conjugate numbers
        raise Code(f"a tensor that is not as its numbers are, by {said(next(iter(metadata)))}")
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > LARGEST_RANK:
        raise ValueError("a tensor of something else than a storage, or of too many axes")
    return _Tensor(storage, _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, strides)))


def _parameter(tensor, *_):
    if not isinstance(tensor, _Tensor):
        raise TypeError("a parameter of something else than a tensor")
    return tensor


def _whole(value):
    if type(value) is not int or not 0 <= value <= MOST_NUMBER:
        raise ValueError(f"{said(value)} for a size or place")
    return value


MADE = {"collections.OrderedDict": _Ordered, "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter, "torch.Size": tuple, "torch.device": lambda *words: None,
        **{f"torch.{kind}Storage": None for kind in DTYPES},
        **dict.fromkeys(("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16", "torch.int64", "torch.int32"))}


# -------------------------------------------------------------------------------------------------------------- written
def write(network: Network, path: FilePath, mean: NDArray[np.float32] | None, classes: Sequence[str]) -> None:
    """Write {"state_dict": ..., "mean_image": (3,S,S), "zfcore": ...} to `path` by torch.save, all or nothing: the weights for
    the network that `sequential` prints. Raises Expected where PyTorch is not installed, Unwritable where the disk refuses."""
    try:
        import torch
    except ImportError:
        raise Expected("--format torch", "PyTorch, which writes such files", "none that is installed",
                       "pip install torch, or take --format safetensors, which torch reads too") from None
    found = OrderedDict((name, torch.from_numpy(array)) for name, array in state_dict.tensors(network).items())
    beside = {} if mean is None else {state_dict.MEAN: torch.from_numpy(np.ascontiguousarray(mean, np.float32))}
    torch.save({"state_dict": found, **beside, state_dict.ABOUT: state_dict.about(network, classes)}, packed := io.BytesIO())
    with atomic(path) as temporary, open(temporary, "wb", opener=opener) as file:
        file.write(packed.getbuffer())                     # torch tells of a disk that is full as of a mistake of its own


def sequential(network: Network) -> str:
    """The network as a program of PyTorch's, whose `network` takes the state_dict that `write` and safetensors.write write, and
    gives the scores of pictures (N,C,H,W) in RGB, 0 to 255, less the mean. Raises Expected for a layer that torch.nn has no
    module for."""
    names, lines = state_dict.module_names(network), []
    for layer, (shape, out) in zip(network.layers, pairwise(network.shapes)):
        lines += [f'    ("{names[layer.name]}{suffix}", nn.{module}),'
                  for suffix, module in for_kind(_MODULES, layer, f"{network.name} in torch.nn")(layer, shape, out)]
    return "\n".join(["from collections import OrderedDict", "", "from torch import nn", "",
                      "network = nn.Sequential(OrderedDict([", *lines, "])).eval()", ""])


def _framed(layer, shape, out, module, value=0):
    """[(suffix, module)] with what PyTorch cannot say of its padding laid around the maps before it. `module`: what it is but
    for that."""
    behind = [(count - 1)*layer.S + layer.K - size - layer.P for count, size in zip(out[1:], shape[1:])]
    as_floor = [1 + (size + 2*layer.P - layer.K)//layer.S for size in shape[1:]]
    if as_floor == list(out[1:]) and 2*layer.P <= layer.K:
        return [("", f"{module}{f', padding={layer.P}' if layer.P else ''})")]
    around = f"{layer.P}, {behind[1]}, {layer.P}, {behind[0]}"
    pad = f"ZeroPad2d(({around}))" if value == 0 else f'ConstantPad2d(({around}), -float("inf"))'
    return [("_pad", pad), ("", f"{module})")]


def _conv(layer, shape, out):
    groups = f", groups={layer.groups}" if layer.groups > 1 else ""
    return _framed(layer, shape, out, f"Conv2d({shape[0]}, {layer.F}, {layer.K}, stride={layer.S}{groups}")


def _max_pool(layer, shape, out):
    if layer.rounding == "ceil" and 2*layer.P <= layer.K:
        return [("", f"MaxPool2d({layer.K}, {layer.S}, {layer.P}, ceil_mode=True)")]
    return _framed(layer, shape, out, f"MaxPool2d({layer.K}, {layer.S}", -np.inf)


def _avg_pool(layer, shape, out):
    if layer.K is None:
        return [("", "AdaptiveAvgPool2d(1)")]
    if layer.borders == "padded":
        return _framed(layer, shape, out, f"AvgPool2d({layer.K}, {layer.S}")
    if 2*layer.P > layer.K:
        raise Expected(f"{layer.name}: P", f"at most {layer.K//2}, half the window, as PyTorch has it", layer.P)
    return [("", f"AvgPool2d({layer.K}, {layer.S}, {layer.P}, ceil_mode={layer.rounding == 'ceil'}, "
                 f"count_include_pad={layer.borders == 'clipped'})")]


def _response_norm(layer, shape, out):
    alpha = layer.alpha*(layer.n if layer.convention == "sum" else 1)
    return [("", f"LocalResponseNorm({layer.n}, {alpha!r}, {layer.beta!r}, {layer.k!r})")]


_MODULES: dict[type[Layer], Any]                  # function(layer, shape, out) -> [(suffix of the name, module)]
_MODULES = {Conv: _conv, MaxPool: _max_pool, AvgPool: _avg_pool, LocalResponseNorm: _response_norm,
            ReLU: lambda layer, shape, out: [("", "ReLU()")],
            BatchNorm: lambda layer, shape, out: [
                ("", f"BatchNorm{'2d' if len(shape) == 3 else '1d'}({shape[0]}, {layer.eps!r}, {layer.momentum!r})")],
            Flatten: lambda layer, shape, out: [("", "Flatten()")],
            Linear: lambda layer, shape, out: [("", f"Linear({shape[0]}, {layer.M})")],
            Dropout: lambda layer, shape, out: [("", f"Dropout({1 - layer.keep_prob!r})")],
            Pad: lambda layer, shape, out: [("", f"ZeroPad2d(({layer.left}, {layer.right}, {layer.top}, {layer.bottom}))")]}
