"""Table 6: average precision on PASCAL VOC of a new softmax on a run's features, beside one on the features of the untrained
network and the same network trained there from random weights; and the files that the VOC evaluation server takes.

The paper trains a 20-way softmax on train+val and has the server score the test set, whose labels are not public; it does
not say what it does with pictures that show several classes. Here such a picture is an example of each of them, and
pictures are ranked by the softmax's probability of a class."""
import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train import report
from train.study import Unit
from train.transfer_study import (NETWORKS, Subset, TransferStudy, duplicates_in_words, run_in_words, scratch_in_words,
                                  untrained_in_words, vars_of)
from zfcore import check, plots
from zfcore.analysis.duplicates import ABOVE
from zfcore.analysis.probing import held_out, probe
from zfcore.crew import crew
from zfcore.data.voc import average_precision, examples, mean_average_precision, open_voc, write_results
from zfcore.ops.softmax_loss import softmax
from zfcore.terminal import plural

# average precision in %: the paper, Sande et al. 2012, Yan et al. 2012
TABLE6 = {"aeroplane": (96.0, 92.0, 97.3), "bicycle": (77.1, 74.2, 84.2), "bird": (88.4, 73.0, 80.8),
          "boat": (85.5, 77.5, 85.3),
          "bottle": (55.8, 54.3, 60.8), "bus": (85.8, 85.2, 89.9), "car": (78.6, 81.9, 86.8), "cat": (91.2, 76.4, 89.3),
          "chair": (65.0, 65.2, 75.4), "cow": (74.4, 63.2, 77.8), "diningtable": (67.7, 63.2, 77.8), "dog": (87.8, 68.9, 83.0),
          "horse": (86.0, 78.2, 87.5), "motorbike": (85.1, 81.0, 90.1), "person": (90.9, 91.6, 95.0),
          "pottedplant": (52.2, 55.9, 57.8), "sheep": (83.6, 69.4, 79.2), "sofa": (61.1, 65.4, 73.4),
          "train": (91.8, 86.7, 94.5), "tvmonitor": (76.1, 77.4, 80.7), "mean": (79.0, 74.3, 82.2)}
DEFINITIONS = {"2010": "2010+", "11-point": "11-point"}
WAYS = {"run": "features of the run", "untrained": "features of random weights", "scratch": "from random weights"}
ALONE = "One training each and one set, so no spread is known."
COMPETITIONS = {"run": "comp2", "scratch": "comp1"}             # of the evaluation server: other pictures, VOC's own ones alone


@dataclass(frozen=True)
class Scores:
    """Answers of a classifier for the pictures that are scored: p float64 (n,20), probabilities, of the pictures with the
    numbers `pictures` int64 (n,). C, train_error: see `train.transfer_study.Fitted`. `train` counts its training pictures."""
    FORM = {"C": "float", "train_error": "float", "seconds": "float", "train": "int 0..", "pictures": "int64 n 0..",
            "p": "float64 n K 0..1"}
    C: float
    train_error: float
    seconds: float
    train: int
    pictures: np.ndarray
    p: np.ndarray


class VOC(TransferStudy):
    """A study on PASCAL VOC: the part to train on, "train" for short, and the part to score."""

    def __init__(self, args):
        if args.train_part == args.score_part:
            raise check.Expected("--score-part", "another part than --train-part", args.score_part)
        super().__init__(args, lambda size: {part: open_voc(args.data, part, args.year, size)
                                             for part in (args.train_part, args.score_part)})
        self.train, self.scored = (self.sets[part].dataset for part in (args.train_part, args.score_part))

    def choose_pictures(self, of_train, of_scored):
        """`numbers`, `rows`: pictures that are trained on, in their set and in the features. `counts` bool (n,): which of the
        features' pictures that are scored count."""
        gone = {part: self.duplicates(part).second if self.args.without_duplicates else [] for part in self.sets}
        trained = ~np.isin(of_train, gone[self.args.train_part]) & (self.train.labels[of_train] > 0).any(axis=1)
        self.rows = np.flatnonzero(trained)
        self.numbers = of_train[self.rows]
        self.left_out = sum(len(np.unique(numbers)) for numbers in gone.values())
        self.not_counted = gone[self.args.score_part]
        if not len(self.rows):
            raise check.Expected(f"{self.args.data}, {self.args.train_part}", "pictures that show one of the classes", "none")

    def classify(self, of_train, of_scored):
        """The Scores of a softmax on the features. The held-out pictures that choose C are whole pictures, never some of the
        classes of one: their measure is mean average precision."""
        began = time.monotonic()
        x = np.concatenate([of_train[:, :], of_scored[:, :]])
        labels = self.train.labels[self.numbers]                                     # (k,C)
        pictures, classes = examples(labels)
        there, targets = np.unique(classes, return_inverse=True)
        held = held_out((labels > 0).argmax(axis=1), self.args.seed)[pictures]

        def measure(scores, _, rows):
            of, place = np.unique(np.searchsorted(self.rows, rows), return_index=True)
            return np.nan_to_num(mean_average_precision(softmax(scores[:, place]).T, labels[of][:, there]))

        found = probe("softmax", x, self.rows[pictures], targets, len(of_train.pictures) + np.arange(len(of_scored.pictures)),
                      len(there), held, measure)
        p = np.zeros((len(of_scored.pictures), len(self.train.classes)))
        p[:, there] = softmax(found.scores).T
        return Scores(found.C, float("nan"), time.monotonic() - began, len(self.rows), of_scored.pictures, p)

    def train_network(self):
        """The Scores of a network trained from random weights."""
        pictures, classes = examples(self.train.labels[self.numbers])
        train = Subset(self.train, self.numbers[pictures], classes, self.train.classes)
        shown = (self.scored.labels > 0).argmax(axis=1)           # the first class, to watch the training by
        found, seconds, train_error = self.from_random_weights(
            "scratch", train, Subset(self.scored, np.arange(len(self.scored)), shown, self.train.classes), self.args.seed)
        return Scores(float("nan"), train_error, seconds, len(self.numbers), found.indices, found.p.T.astype(np.float64))

    def look(self):
        """Have both networks' features of the topmost layer, and `choose_pictures`."""
        top = max(self.layers)
        of_sets = [self.features(name, [top]) for name in self.sets]
        self.known = {network: [of[network][top] for of in of_sets] for network in NETWORKS}
        self.choose_pictures(*(of.pictures for of in self.known["run"]))
        self.seconds = sum(of.seconds for of in self.known["run"])

    def kept(self, way):
        """The Scores of one of WAYS in OUT, computed and kept if they are not there."""
        return self.folder.kept(f"scores-{way}", Scores, lambda: self.train_network() if way == "scratch"
                                else self.classify(*self.known[way]))


def voc_precision(args):
    """Table 6. Returns (the VOC, its Scores by the ways of WAYS)."""
    study = VOC(args)
    study.begin(train_part=args.train_part, score_part=args.score_part, scratch_epochs=args.scratch_epochs)
    with study.folder.locked():
        study.look()
        ways = [Way(study.output, way) for way in (*NETWORKS, *["scratch"]*args.scratch)]

        def write():
            found = {way.name: study.kept(way.name) for way in ways if way.finished}
            if found.keys() >= set(NETWORKS):
                write_precisions(study, found, study.seconds)
            return found

        with crew(args.devices, args.device, "train.voc_table:served", arguments=vars_of(args)) as several:
            study.folder.work(ways, lambda way, progress: study.kept(way.name) and None, "classifier", lambda *_: write(),
                              several)
        found = write()
    return study, found


@dataclass(frozen=True)
class Way(Unit):
    """One of WAYS, whose Scores are kept in the folder `output`."""
    output: Path
    name: str

    @property
    def order(self):
        return self.name

    @property
    def done(self):
        return int((self.output/f"scores-{self.name}.h5").is_file())


def served(arguments):
    """A function that finishes one of WAYS, for a process of --devices: the features are there already."""
    study = VOC(argparse.Namespace(**arguments))
    study.look()
    return lambda way, progress, wait: study.kept(way) and None


# --------------------------------------------------------------------------------------------- what is written of it
def precisions(study, scores):
    """{definition: average precision (C+1,) in %, of the classes and, last, the mean}; NaN for a class that no picture to score
    shows, or none to train on, as it was never ranked."""
    counted = ~np.isin(scores.pictures, study.not_counted)
    trained = (study.train.labels[study.numbers] > 0).any(axis=0)
    p, labels = scores.p[counted], study.scored.labels[scores.pictures[counted]]*trained
    return {definition: 100*np.append(average_precision(p, labels, definition), mean_average_precision(p, labels, definition))
            for definition in DEFINITIONS}


def write_precisions(study, found, seconds):
    """table6.md, .csv, .png, and the evaluation server's files."""
    a, ours = study.args, {way: precisions(study, scores) for way, scores in found.items()}
    labels = study.scored.labels[np.setdiff1d(found["run"].pictures, study.not_counted)]
    trained, positive = ((of > 0).sum(axis=0) for of in (study.train.labels[study.numbers], labels))
    known = (labels != 0).sum(axis=0)
    ranked = (positive > 0) & (trained > 0)
    share = np.divide(100*positive, known, out=np.full(len(study.train.classes), np.nan), where=ranked)
    chance = np.append(share, np.nanmean(share) if ranked.any() else np.nan)
    counts = [*zip(trained, positive), (len(study.numbers), len(labels))]
    names = [*study.train.classes, "mean"]
    published = {name: TABLE6.get(name, (np.nan,)*3) for name in names}              # nothing of a set's own classes
    columns = [(f"{WAYS[way]}, {word}", ours[way][definition]) for way in found for definition, word in DEFINITIONS.items()]
    head = ["Average precision in %", f"pictures in {a.train_part}", f"in {a.score_part}", "by chance",
            *(name for name, _ in columns), "paper", "Sande et al. 2012", "Yan et al. 2012"]
    rows = [[name, *counts[k], *(cell(values[k]) for values in (chance, *(column for _, column in columns))),
             *map(cell, published[name])]
            for k, name in enumerate(names)]
    places = [write_results(study.output, [study.scored.names[i] for i in found[way].pictures], found[way].p,
                            study.scored.year or 2012, a.score_part, name, study.train.classes)
              for way, name in COMPETITIONS.items() if way in found]
    paragraphs = [
        report.table(head, rows), voc_protocol(study, places[0]), classifier_in_words(study, found, seconds),
        untrained_in_words(study),
        # of a picture of several classes one example at most can be right: no training error is too high
        scratch_in_words([found["scratch"]] if "scratch" in found else [], a.scratch_epochs, most_error=100), claim(ours)]
    numbers = [[name, *counts[k], *(f"{values[k]:.6g}" for values in (chance, *(column for _, column in columns))),
                *published[name]]
               for k, name in enumerate(names)]
    header = ("class", "train_pictures", "scored_pictures", "chance",
              *(f"{way}_{definition}" for way in found for definition in DEFINITIONS), "paper", "sande_2012", "yan_2012")
    report.write(study.output, "table6", paragraphs, header, numbers, lambda: plots.average_precisions(
        names, {"the paper, test": np.array([published[name][0] for name in names]),
                **{f"here, {WAYS[way]}": of["2010"] for way, of in ours.items()}}, chance))


def cell(value):
    return "" if np.isnan(value) else f"{value:.1f}"


def voc_protocol(study, place):
    a, source = study.args, study.scored.names[0].split("/")[0]
    return (f"Protocol of the paper: a 20-way softmax trained on trainval of VOC2012, average precision on its test set by the "
            f"evaluation server. Here: trained on {a.train_part} of {source} ({plural(len(study.numbers), 'picture')}; one "
            f"that shows several classes is an example of each), scored on {a.score_part}, pictures ranked by the softmax's "
            f"probability, difficult objects left out. 2010+: the area under precision over recall, which the server computes "
            f"since 2010; 11-point: its definition before. By chance: the share of pictures that show the class. A class "
            f"without a picture to train on or to score has no precision and is not in the mean. "
            f"{duplicates_in_words(study, study.left_out, ABOVE)} The server's files lie in "
            f"`{place.relative_to(study.output).as_posix()}` (comp2: features; comp1: only VOC's own pictures).")


def classifier_in_words(study, found, seconds):
    scores = found["run"]
    return (f"{run_in_words(study)} They took {seconds:.0f} s. Softmax: fitted to its optimum in {scores.seconds:.1f} s, C = "
            f"{scores.C:g} by mean average precision on a held-out third of the training pictures.")


def claim(ours):
    """`ours`: {way: precisions}."""
    if np.isnan(ours["run"]["2010"][-1]):
        return ""
    control = f"The control: of the features of random weights they are {beside(ours, 'untrained')}"
    if "scratch" not in ours:
        return f"What the features of the run owe to its training. {control}. {ALONE}"
    return (f"Claim 10 of the paper, that features learned elsewhere beat training from random weights: of these networks the "
            f"features of the run are {beside(ours, 'scratch')}. {control}. {ALONE}")


def beside(ours, way):
    """Comparison of the run's features with another of `WAYS`."""
    one, other = ours["run"]["2010"], ours[way]["2010"]
    lead, count, there = one[-1] - other[-1], int((one[:-1] > other[:-1]).sum()), int((~np.isnan(one[:-1])).sum())
    return (f"{'ahead' if lead > 0 else 'not ahead'} (mean {one[-1]:.1f} against {other[-1]:.1f} %, ahead in {count} of "
            f"{there} classes)")
