"""ZFNet: the network of figure 3, and a small one with the same seven layers."""
from collections.abc import Sequence

from zfcore.hints import Row
from zfcore.layers import Conv, Dropout, Flatten, Layer, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network


def zfnet(classes: int = 1000, size: int = 224, keep_prob: float = 0.5, maps: Sequence[int] = (96, 256, 384, 384, 256),
          units: Sequence[int] = (4096, 4096), name: str = "zfnet") -> Network:
    """The paper's network (figure 3): 224, 110, 55, 26, 13, 13, 13, 13, 6 pixels, 62,357,608 parameters at 1000 classes.

    `maps` are the feature maps of layers 1-5, `units` the widths of layers 6 and 7. The paper states neither padding
    nor the constants of the contrast normalisation; these give its map sizes (design: sizes round up)."""
    m1, m2, m3, m4, m5 = maps
    return Network(name, (3, size, size), [
        Conv("conv1", m1, K=7, S=2),
        ReLU("relu1"),
        MaxPool("pool1", K=3, S=2),
        LocalResponseNorm("norm1"),

        Conv("conv2", m2, K=5, S=2),
        ReLU("relu2"),
        MaxPool("pool2", K=3, S=2),
        LocalResponseNorm("norm2"),

        Conv("conv3", m3, K=3, P=1),
        ReLU("relu3"),

        Conv("conv4", m4, K=3, P=1),
        ReLU("relu4"),

        Conv("conv5", m5, K=3, P=1),
        ReLU("relu5"),
        MaxPool("pool5", K=3, S=2),

        *classifier(classes, units, keep_prob)])


def classifier(classes: int, units: Sequence[int], keep_prob: float) -> list[Layer]:
    """Layers 6, 7 and the softmax layer 8: every width in `units` is a Linear, ReLU, Dropout; layer 8 is always fc8."""
    layers: list[Layer] = [Flatten("flatten")]
    for number, width in zip((6, 7), units):
        layers += [Linear(f"fc{number}", width), ReLU(f"relu{number}"), Dropout(f"drop{number}", keep_prob)]
    return layers + [Linear("fc8", classes)]


def tiny(classes: int = 10, size: int = 96, keep_prob: float = 0.5) -> Network:
    """The same seven layers for 96x96 pictures with a quarter of the maps: what `python -m train` trains on a laptop."""
    return zfnet(classes, size, keep_prob, maps=(24, 64, 96, 96, 64), units=(256, 256), name="tiny")


def small(classes: int = 10, size: int = 128, keep_prob: float = 0.5) -> Network:
    """Half as many maps again as `tiny`, for 128x128 pictures, where layers 3-5 have 7x7 places instead of 5x5."""
    return zfnet(classes, size, keep_prob, maps=(36, 96, 144, 144, 96), units=(384, 384), name="small")


# ----------------------------------------------------------------------------------------- what the paper leaves open
def open_questions(table: list[Row]) -> list[tuple[str, str, str, str]]:
    """[(what, what the paper says, what the layer table does, why)] about this network."""
    (_, second, *_) = [row for row in table if row["kind"] == "Conv"]
    return [padding(table, "figure 3's 110, 55, 26, 13"), constants(table, "behind the pool"),
            ("stride of layer 2", "2 in figure 3 and section 5.1; section 4.1 changes layer 1 alone", str(second["S"]),
             "gives figure 3's 26 pixels")]


def padding(table: list[Row], gives: str) -> tuple[str, str, str, str]:
    """The entry of `open_questions` about padding, which `gives` the paper's sizes."""
    paddings = ", ".join(str(row["P"]) for row in table if row["kind"] == "Conv")
    return ("padding, rounding of sizes", "", f"sizes round up; padding {paddings}",
            f"the rule of cuda-convnet, which gives {gives}")


def constants(table: list[Row], where: str) -> tuple[str, str, str, str]:
    """The entry of `open_questions` about the contrast normalisation, which stands `where` it says."""
    norm = next(row for row in table if row["kind"] == "LocalResponseNorm")
    return ("constants of the contrast normalisation", "",
            f"n {norm['n']}, alpha {norm['alpha']:g} (divided by n), beta {norm['beta']:g}, k {norm['k']:g}, {where}",
            "AlexNet's, in cuda-convnet's reading of alpha")
