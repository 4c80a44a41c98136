"""Network in Network (Lin, Chen & Yan 2013), as its authors gave it away for ImageNet: behind every convolution two of 1x1
pixel, and the mean of a class's own map is its score, so that no layer is fully connected."""
from zfcore.layers import AvgPool, Conv, Dropout, Flatten, MaxPool, ReLU
from zfcore.network import Network


def nin(classes=1000, size=224, keep_prob=0.5):
    """224, 55, 27, 27, 13, 13, 6, 6, 1 pixels, 7,595,176 parameters at 1000 classes."""
    return Network("nin", (3, size, size), [
        *mlpconv(1, (96, 96, 96), K=11, S=4),
        MaxPool("pool1", K=3, S=2),

        *mlpconv(2, (256, 256, 256), K=5, P=2),
        MaxPool("pool2", K=3, S=2),

        *mlpconv(3, (384, 384, 384), K=3, P=1),
        MaxPool("pool3", K=3, S=2),
        Dropout("drop3", keep_prob),

        *mlpconv(4, (1024, 1024, classes), K=3, P=1),
        AvgPool("pool4"),
        Flatten("scores")])


def mlpconv(number, maps, **window):
    """A convolution with that window and two of 1x1: at each place a network of three layers."""
    windows = window, {"K": 1}, {"K": 1}
    return [layer for k, (F, of) in enumerate(zip(maps, windows), 1)
            for layer in (Conv(f"conv{number}_{k}", F, **of), ReLU(f"relu{number}_{k}"))]
