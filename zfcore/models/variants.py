"""Model (b) of table 2 and the rows of table 3, each as an edit of the two base networks.

Layers 3-5 keep 13x13 pixels, so removing or widening them changes no map size; with layers 6 and 7 removed the softmax
layer reads the 9216 values of pool5, and no dropout is left."""
from functools import partial

from zfcore.models.alexnet import alexnet
from zfcore.models.zfnet import zfnet

WIDE_MAPS = (96, 256, 512, 1024, 512)
NO_3_4 = (96, 256, None, None, 256)


def _named(base, name, **edit):
    return partial(base, name=name, **edit)


VARIANTS = {row.keywords["name"]: row for row in (
    _named(alexnet, "alexnet-grouped", groups=2),
    _named(alexnet, "alexnet-without-3-4", maps=NO_3_4),
    _named(alexnet, "alexnet-without-7", units=(4096,)),
    _named(alexnet, "alexnet-without-6-7", units=()),
    _named(alexnet, "alexnet-without-3-4-6-7", maps=NO_3_4, units=()),
    _named(alexnet, "alexnet-fc-2048", units=(2048, 2048)),
    _named(alexnet, "alexnet-fc-8192", units=(8192, 8192)),
    _named(zfnet, "zfnet-b", maps=WIDE_MAPS),
    _named(zfnet, "zfnet-fc-2048", units=(2048, 2048)),
    _named(zfnet, "zfnet-fc-8192", units=(8192, 8192)),
    _named(zfnet, "zfnet-b-fc-8192", maps=WIDE_MAPS, units=(8192, 8192)),
)}
