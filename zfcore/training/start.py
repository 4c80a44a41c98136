"""The weights of another run or checkpoint file as the start of a training (`init_from`), and nothing else of it."""
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from zfcore import check
from zfcore.models import begun_by, from_checkpoint, from_table
from zfcore.ops.clip_filter_rms import rms
from zfcore.terminal import plural
from zfcore.trained import reordered


class Origin(NamedTuple):
    """Origin of the weights at the start: `facts`, which config.json keeps, and the sentence that tells it."""
    facts: dict
    sentence: str


def start_from(config, network, classes, device):
    """Take over the weights of another run or checkpoint file, `config.init_from`, into `network`, and nothing else: no
    velocity, no epoch.

    The classifier (the last layer with weights and what lies behind it) is taken only if the classes are the same, in the order
    in which they are here, for its unit k means class k; else it stays as it was drawn. Every other layer must fit. Returns the
    Origin."""
    path = config.init_from
    other, checkpoint = from_checkpoint(path)
    same, moved = sorted(checkpoint.classes) == sorted(classes), checkpoint.classes != classes
    if same and moved:
        other = reordered(other, [checkpoint.classes.index(name) for name in classes])
    last = network.weighted[-1].name
    classifier = {layer.name for layer in network.layers[network.index(last):]}
    mine, theirs = ([layer.fields() for layer in of.layers if not layer.hands_on and layer.name != last]
                    for of in (network, other))
    for row, its_row in zip_longest(mine, theirs):
        if row != its_row:
            raise check.Expected("--init-from", f"a network whose next layer is {in_words(row)}", in_words(its_row),
                                 f"the network to train is {network.name}, the other {other.name}")
    shapes, its_shapes = (of.parameter_shapes() for of in (network, other))
    if any(shapes[layer] != its_shapes[layer] for layer in shapes if same or layer not in classifier):
        raise check.Expected("--image-size", f"{other.input_shape[1]}, for which {path} has its weights",
                             network.input_shape[1])
    anew = [] if same else [layer.name for layer in network.layers if layer.name in classifier and (layer.parameters or layer.buffers)]
    if checkpoint.step or not begun_by(checkpoint):        # of weights that were just drawn the first step makes what it may
        check_limit(path, [layer for layer in other.weighted if layer.name not in anew], config.rms_max)
    parameters, buffers = ({**theirs, **{name: mine[name] for name in anew if name in mine}} for theirs, mine in
                            ((other.parameters(), network.parameters()), (other.buffers(), network.buffers())))
    network.load(parameters, device, buffers)
    seen = None if checkpoint.mean_image is None else checkpoint.mean_image.shape[1]
    return Origin({"path": str(path), "epoch": checkpoint.epoch, "step": checkpoint.step, "drawn_anew": anew},
                  f"weights of {path} after epoch {checkpoint.epoch}" +
                  ("" if seen in (None, config.picture_size) else f", for which pictures were brought to {seen} pixels a side, "
                   f"not to the {config.picture_size} here") +
                  ("; its classes are put in the order of those here"*moved if same else
                   f"; its {plural(M := len(checkpoint.classes), 'class')} {'is' if M == 1 else 'are'} not the "
                   f"{len(classes)} here: {' and '.join(anew)} {'is' if len(anew) == 1 else 'are'} drawn anew"))


def check_limit(path, layers, rms_max):
    """Raise Expected where filters of the layers lie above `rms_max`, as those of other engines often do: the first step would
    scale them all back, and little of what they have learned would be left."""
    sizes = np.concatenate([rms(layer.parameters["w"]) for layer in layers if layer.has_filters] or [[0.0]])
    if rms_max and (over := sizes > rms_max*(1 + 1e-5)).any():
        raise check.Expected("--rms-max", f"0, for no limit, or at least {sizes.max():.2g}, the largest RMS of a filter of "
                             f"{path}", f"{rms_max:g}",
                             f"the first step would scale {int(over.sum())} of its {len(sizes)} filters back to it")


def like_source(path, classes, size):
    """The Network of another run or checkpoint file, without its weights, for so many classes and pictures of `size` pixels:
    where it has others, its last layer with weights has another number of outputs."""
    return blank_like(from_checkpoint(path)[0], classes, size)


def blank_like(network, classes, size):
    """The `network` without its weights, as `like_source` gives it."""
    last = network.weighted[-1]
    outputs = "M" if "M" in last.fields() else "F"
    rows = [{**row, outputs: classes} if row["name"] == last.name else row for row in network.table()]
    return from_table(network.name, (3, size, size), rows)


def in_words(row):
    """A row of a layer table: "conv1 (Conv F=96 K=7 S=2 P=0 groups=1 rounding=ceil)"."""
    if row is None:
        return "none"
    return f"{row['name']} ({' '.join([row['kind'], *(f'{k}={v}' for k, v in row.items() if k not in ('kind', 'name'))])})"
