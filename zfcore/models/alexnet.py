"""AlexNet (Krizhevsky et al. 2012) as the paper replicates it (section 3 and table 2)."""
from collections.abc import Sequence

from zfcore.hints import Row
from zfcore.layers import Conv, LocalResponseNorm, MaxPool, ReLU
from zfcore.models.zfnet import classifier, constants, padding
from zfcore.network import Network


def alexnet(classes: int = 1000, size: int = 224, keep_prob: float = 0.5, maps: Sequence[int] = (96, 256, 384, 384, 256),
            units: Sequence[int] = (4096, 4096), groups: int = 1, name: str = "alexnet") -> Network:
    """224, 55, 27, 27, 13, 13, 13, 13, 6 pixels; normalisation comes before the pool.

    groups=1 connects every map with every map (62,378,344 parameters at 1000 classes); groups=2 splits layers 2, 4 and 5
    in two as the two GPUs of the original did (60,965,224)."""
    m1, m2, m3, m4, m5 = maps
    return Network(name, (3, size, size), [
        Conv("conv1", m1, K=11, S=4),
        ReLU("relu1"),
        LocalResponseNorm("norm1"),
        MaxPool("pool1", K=3, S=2),

        Conv("conv2", m2, K=5, P=2, groups=groups),
        ReLU("relu2"),
        LocalResponseNorm("norm2"),
        MaxPool("pool2", K=3, S=2),

        Conv("conv3", m3, K=3, P=1),
        ReLU("relu3"),

        Conv("conv4", m4, K=3, P=1, groups=groups),
        ReLU("relu4"),

        Conv("conv5", m5, K=3, P=1, groups=groups),
        ReLU("relu5"),
        MaxPool("pool5", K=3, S=2),

        *classifier(classes, units, keep_prob)])


def tiny_alexnet(classes: int = 10, size: int = 96, keep_prob: float = 0.5) -> Network:
    """AlexNet's layers for 96x96 pixels with the maps and units of `zfnet.tiny`: what figure 6 compares, on a laptop."""
    return alexnet(classes, size, keep_prob, maps=(24, 64, 96, 96, 64), units=(256, 256), name="tiny-alexnet")


def open_questions(table: list[Row]) -> list[tuple[str, str, str, str]]:
    """[(what, what the paper says, what the layer table does, why)] about this network."""
    (_, second, *_) = [row for row in table if row["kind"] == "Conv"]
    halves = (("every map sees every map", "one GPU in the paper; `--model alexnet-grouped` has the split")
              if second["groups"] == 1
              else ("layers 2, 4 and 5 in two groups", "asked for"))
    return [padding(table, "AlexNet's 55, 27, 13"), constants(table, "before the pool"),
            ("AlexNet's two halves", "the exact architecture; whether split as over two GPUs is not said", *halves)]
