"""Model (b) of table 2 and the rows of table 3, each an edit that can be made to any of the four base networks.

Layers 3-5 keep their pixels, so removing or widening them changes no map size; with layers 6 and 7 removed the softmax
layer reads pool5 (9216 values in the paper's networks), and no dropout is left."""
from dataclasses import dataclass
from functools import partial
from collections.abc import Callable

from zfcore.models.alexnet import alexnet
from zfcore.models.zfnet import zfnet
from zfcore.network import Network


@dataclass(frozen=True)
class Base:
    """A network whose layers are edited: its builder, the maps of its layers 1-5, the units of its layers 6 and 7."""
    network: Callable
    maps: tuple
    units: int


@dataclass(frozen=True)
class Edit:
    """A row of table 3: the layers left out, the factors of the maps of layers 3, 4, 5 and of the units of layers 6, 7."""
    without: tuple = ()
    maps: tuple = (1, 1, 1)
    units: float = 1


PAPER, QUARTER = (96, 256, 384, 384, 256), (24, 64, 96, 96, 64)
BASES = {"zfnet": Base(zfnet, PAPER, 4096), "alexnet": Base(alexnet, PAPER, 4096),
         "tiny": Base(zfnet, QUARTER, 256), "tiny-alexnet": Base(alexnet, QUARTER, 256)}

WIDER = (4/3, 8/3, 2)                 # 512, 1024, 512 maps of 384, 384, 256
EDITS = {                             # {half} and {double}: the units of layers 6 and 7 in figures, as in "alexnet-fc-2048"
    "without-3-4":     Edit(without=(3, 4)),
    "without-7":       Edit(without=(7,)),
    "without-6-7":     Edit(without=(6, 7)),
    "without-3-4-6-7": Edit(without=(3, 4, 6, 7)),
    "fc-{half}":       Edit(units=1/2),
    "fc-{double}":     Edit(units=2),
    "b":               Edit(maps=WIDER),
    "b-fc-{double}":   Edit(maps=WIDER, units=2),
}


def variant_name(base, edit=""):
    """The name in MODELS of the base network with that edit, a key of EDITS; the base's own if there is none."""
    units = BASES[base].units
    return f"{base}-{edit}".format(half=units//2, double=units*2) if edit else base


def edited(base, edit, name, classes=1000, size=224, keep_prob=0.5, **more):
    """The network of `base` with `edit`; `more` goes to the base's builder."""
    maps = *base.maps[:2], *(round(factor*m) for factor, m in zip(edit.maps, base.maps[2:]))
    units = 2*(round(edit.units*base.units),)
    network = base.network(classes, size, keep_prob, maps, units, name=name, **more)
    gone = tuple(map(str, edit.without))                   # conv3, relu3, fc7, drop7 ...: a layer's name ends in its number
    return Network(name, network.input_shape, [layer for layer in network.layers if not layer.name.endswith(gone)])


VARIANTS = {variant_name(base, edit): partial(edited, BASES[base], EDITS[edit], variant_name(base, edit))
            for base in BASES for edit in EDITS}
VARIANTS["alexnet-grouped"] = partial(alexnet, groups=2, name="alexnet-grouped")
IN_TABLES = ("zfnet", "zfnet-b", "zfnet-fc-2048", "zfnet-fc-8192", "zfnet-b-fc-8192", "alexnet", "alexnet-grouped",
             "alexnet-without-3-4", "alexnet-without-7", "alexnet-without-6-7", "alexnet-without-3-4-6-7", "alexnet-fc-2048",
             "alexnet-fc-8192")              # the networks of the paper's tables 2 and 3
