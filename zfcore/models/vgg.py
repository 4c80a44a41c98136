"""The networks of Simonyan & Zisserman 2014 ("Very deep convolutional networks for large-scale image recognition", table 1):
convolutions of 3x3 alone, in five groups of one width each, and between the groups a pool that halves the map."""
from collections.abc import Sequence

from zfcore.layers import Conv, MaxPool, ReLU
from zfcore.models.zfnet import classifier
from zfcore.network import Network

#                   maps of group   1      2       3            4            5
CONFIGURATIONS = {"vgg11": ((64,), (128,), 2*(256,), 2*(512,), 2*(512,)),                     # column A
                  "vgg16": (2*(64,), 2*(128,), 3*(256,), 3*(512,), 3*(512,))}                 # column D


def vgg(classes: int = 1000, size: int = 224, keep_prob: float = 0.5, groups: Sequence[Sequence[int]] = CONFIGURATIONS["vgg16"],
        units: Sequence[int] = (4096, 4096), name: str = "vgg16") -> Network:
    """224, 112, 56, 28, 14, 7 pixels; at 1000 classes 132,863,336 parameters with 11 layers, 138,357,544 with 16."""
    layers = []
    for group, maps in enumerate(groups, 1):
        for number, F in enumerate(maps, 1):
            layers += [Conv(f"conv{group}_{number}", F, K=3, P=1), ReLU(f"relu{group}_{number}")]
        layers += [MaxPool(f"pool{group}", K=2, S=2)]
    return Network(name, (3, size, size), layers + classifier(classes, units, keep_prob))


def vgg11(classes: int = 1000, size: int = 224, keep_prob: float = 0.5) -> Network:
    """Column A: 11 layers with weights."""
    return vgg(classes, size, keep_prob, CONFIGURATIONS["vgg11"], name="vgg11")


def vgg16(classes: int = 1000, size: int = 224, keep_prob: float = 0.5) -> Network:
    """Column D: 16 layers with weights."""
    return vgg(classes, size, keep_prob, CONFIGURATIONS["vgg16"], name="vgg16")
