"""Network in Network (Lin, Chen & Yan 2013), as its authors gave it away for ImageNet: behind every convolution two of 1x1
pixel, and the mean of a class's own map is its score, so that no layer is fully connected."""
from collections.abc import Sequence
from typing import Any

from zfcore.layers import AvgPool, Conv, Dropout, Flatten, Layer, MaxPool, ReLU
from zfcore.network import Network


def nin(classes: int = 1000, size: int = 224, keep_prob: float = 0.5, maps: Sequence[int] = (96, 256, 384, 1024)) -> Network:
    """224, 55, 27, 27, 13, 13, 6, 6, 1 pixels, 7,595,176 parameters at 1000 classes; `maps` are those of blocks 1-4, the last
    of which ends in one map a class."""
    m1, m2, m3, m4 = maps
    return Network("nin", (3, size, size), [
        *mlpconv(1, (m1, m1, m1), K=11, S=4),
        MaxPool("pool1", K=3, S=2),

        *mlpconv(2, (m2, m2, m2), K=5, P=2),
        MaxPool("pool2", K=3, S=2),

        *mlpconv(3, (m3, m3, m3), K=3, P=1),
        MaxPool("pool3", K=3, S=2),
        Dropout("drop3", keep_prob),

        *mlpconv(4, (m4, m4, classes), K=3, P=1),
        AvgPool("pool4"),
        Flatten("scores")])


def mlpconv(block: int, maps: Sequence[int], **window: Any) -> list[Layer]:
    """A convolution with that window and two of 1x1, a ReLU behind each: at every place a network of three layers."""
    windows = window, {"K": 1}, {"K": 1}
    return [layer for number, (F, of) in enumerate(zip(maps, windows), 1)
            for layer in (Conv(f"conv{block}_{number}", F, **of), ReLU(f"relu{block}_{number}"))]
