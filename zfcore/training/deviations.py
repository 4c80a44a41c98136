"""Deviations of a run from the paper's recipe (section 3), and what the paper leaves open: declared here, once.

    deviations(config, counts, start)   what the paper states and this run does otherwise. None for the presets zfnet, zfnet-b
                                        and alexnet on ImageNet 2012
    open_questions(config, start)       what the paper does not state, or states twice, and what this run does
    ANALYSES                            the same for looking inside a trained network

`start` are the facts of the Origin of the weights that training began with; None: drawn as the options say.

What is open about one network stands beside its table, in zfcore/models. config.json holds the first two, the table "Open
questions" of train/README.md all of them.
"""
from dataclasses import fields
from typing import NamedTuple

from zfcore.data import data_in_words, is_drawn
from zfcore.layers import Dropout
from zfcore.models import MODELS, OPEN_QUESTIONS, build
from zfcore.models.variants import IN_TABLES
from zfcore.terminal import plural
from zfcore.training.config import MOST_DECAY, PRESETS, TrainConfig, flag

IMAGENET = 1000, 1281167                     # classes and training pictures of ILSVRC2012


class Deviation(NamedTuple):
    what: str
    paper: str
    here: str
    why: str


# The options whose paper value, the default of TrainConfig, section 3 states: in the paper's words, and why `tiny` has another.
STATED = {
    "image_size": ("crops of 224 pixels", "minutes instead of days"),
    "epochs": ("70", "minutes instead of days"),
    "batch_size": ("128", "a small set has few batches an epoch"),
    "lr": ("0.01", "goes with its start"),
    "momentum": ("0.9", ""),
    "keep_prob": ("dropout of 0.5", "256 units are too few to lose half of them"),
    "init": ('"1e-2", biases 0', "N(0, 0.01) is too small a start for few maps and 96 pixels"),
    "rms_max": ("0.1", ""),
    "crops": ("ten: four corners, the centre, mirrored too", "few pictures: any place shows more of them"),
    "upscale": ("the shorter side of every picture brought to 256",
                "a picture smaller than asked for is more likely a mistake"),
    "limit_per_class": ("every training picture", ""),
    "init_from": ("weights drawn at random", ""),
    "precision": ("one GTX 580, which multiplies in float32", ""),
}


def deviations(config, counts=None, start=None):
    """[Deviation]. `counts` are the numbers of classes and training pictures; None where no picture has been looked at."""
    preset, found = PRESETS[config.preset], []
    if is_drawn(config.data) or counts not in (None, IMAGENET):
        size = "" if counts is None else f": {plural(counts[0], 'class')}, {plural(counts[1], 'training picture')}"
        found.append(Deviation("pictures", "ImageNet 2012: 1000 classes, 1.3 million training pictures",
                               data_in_words(config.data) + size, "needs no download" if config.data == "" else "asked for"))
    if config.model not in IN_TABLES:
        small = config.model == preset.get("model")
        found.append(Deviation("network", "those of tables 2 and 3", config.model,
                               "a quarter of the maps, 256 units: minutes instead of days" if small else "asked for"))
    if is_given(start):
        found.append(Deviation("weights at the start", "drawn at random", f"those that {start['network']} was given with", "asked for"))
    for field in fields(TrainConfig):
        here = getattr(config, field.name)
        if (field.name in STATED and here != field.default and (field.name != "keep_prob" or drops_out(config))
                and (field.name != "init" or not is_given(start))):
            paper, why = STATED[field.name]
            found.append(Deviation(flag(field.name), paper, "off" if here is False else str(here),
                                   why if here == preset.get(field.name) else "asked for"))
    return found


def drops_out(config):
    """Return whether --keep-prob is that of a Dropout: of one of MODELS that has some. A network of one's own has those of its
    table."""
    return config.model in MODELS and any(isinstance(layer, Dropout) for layer in build(config.model, 2).layers)


def is_given(start):
    """Return whether training began with the weights of a network that was given, of which --init says nothing."""
    return isinstance(start, dict) and "network" in start              # as config.json has them, of which one may be anybody's


def open_questions(config, start=None):
    """[Deviation], "" where the paper says nothing."""
    of_network = OPEN_QUESTIONS.get(config.model, lambda table: [])
    table = build(config.model, 2, config.image_size).table() if config.model in OPEN_QUESTIONS else []
    found = [Deviation(*entry) for entry in of_network(table)]
    if config.init == "gaussian" and not is_given(start):
        found.append(Deviation('weights "1e-2" at the start', "no law", "N(0, 0.01), biases 0"
                               + (", of layers that --init-from does not bring" if config.init_from else ""),
                               "a constant would not break the symmetry"))
    drops = ("after epochs " + ", ".join(map(str, config.drop_after)) if config.drop_after else
             f"after {plural(config.patience, 'epoch')} without a better validation error, three times at most")
    return found + [
        weight_decay(config),
        Deviation("when the learning rate falls", "by hand, when the validation error plateaus", f"divided by 10 {drops}",
                  "the same rule without a hand"),
        *([Deviation("ten crops in training", "whether all ten or one at a time is not said",
                     "each picture shows one of its ten a time, drawn anew every epoch",
                     "12 days for 70 epochs fit one crop a picture")]
          if config.crops == "ten" else []),
        Deviation("how pictures are made smaller", "", "bicubic, antialiased", "no moiré in what layer 1 sees"),
        Deviation("dropout's scale", "", "kept units are scaled up in training, nothing at test time",
                  "the same expectation as AlexNet's halving at test time"),
        *([Deviation("how often the RMS limit acts", "on filters of convolutions whose RMS exceeds it",
                     "after every step, on all weights of a filter together", "section 3 says which filters, not how often")]
          if config.rms_max else []),
        Deviation("crops and networks behind an error", "",
                  "centre crop, one network; `train.evaluate` has ten crops and ensembles, means of the softmax",
                  "AlexNet's; every error is printed with its protocol")]


def weight_decay(config):
    """Answer of --weight-decay, or --start-left which chooses it, to the paper's silence."""
    if config.start_left:
        return Deviation("weight decay", "",
                         f"so much on weights that {100*config.start_left:.0f} % of their start is left at the end"
                         + (f": {config.weight_decay:g}" if config.weight_decay is not None else "")
                         + (", the most that is chosen, which leaves more" if config.weight_decay == MOST_DECAY else "")
                         + "; none on biases",
                         "in few steps AlexNet's leaves the random start in the weights, which projections then show")
    return Deviation("weight decay", "", f"{config.weight_decay:g} on weights, none on biases",
                     "AlexNet's value" if config.weight_decay == TrainConfig.weight_decay else "asked for")


ANALYSES = (
    Deviation("windows that overlap in unpooling", "", "what they bring adds up", "the gradient's rule"),
    Deviation("biases on the way down", "", "none", "a projection is to show what this picture brought"),
    Deviation("fields over the border (figure 2)", "", "beyond it mid-grey", "the field keeps its size"),
    Deviation("nine strongest (figure 2)", "", "a picture counts once, with its strongest place",
              "the figure's nine patches are of nine pictures"),
    Deviation('"canonical distance" (figure 5)', "",
              "raw, relative to the clean picture's, and of unit vectors, all three; behind the ReLU",
              "the figure fits none better"),
    Deviation("square of figure 7", "grey", "128 of 255 before the mean is subtracted; 50 of 224 pixels, moved by 6",
              "measured in the figure"),
    Deviation("strongest map (figure 7)", "the strongest response", "the largest activation; `--criterion sum` follows the largest sum",
              "as everywhere else; the largest sum is often that of a map which fires a little everywhere"),
    Deviation("signs of table 1", "", "-1, 0, 1 of features behind the ReLU, per feature and pair",
              "only so are scores near 0.07 possible"),
    Deviation("features and C of table 7", "",
              "behind pooling and normalisation, centred, one scale; C from a held-out third",
              "see `zfcore/analysis/probing.py`"),
)


def in_words(config, counts=None):
    """The line that a run prints."""
    differ, choices = len(deviations(config, counts)), len(open_questions(config))
    recipe = {0: "the paper's", 1: "1 deviation from the paper's"}.get(differ, f"{differ} deviations from the paper's")
    return f"{recipe}, {choices} choices where it leaves a question open; config.json lists them"
