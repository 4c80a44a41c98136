"""Tables 4, 5 and 7 and figure 9: a new softmax, or SVM, on a run's features of Caltech-101 or -256, beside networks trained
there from random weights; and the paper's numbers."""
import time
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from train.evaluate import write_csv
from train.loop import Lock
from train.study import Part, Study, Subset, duplicates_in_words, markdown, number, run_in_words, scratch_in_words, write_text
from zfcore import check, plots
from zfcore.analysis.duplicates import ABOVE
from zfcore.analysis.probing import GRID, held_out, probe
from zfcore.data.caltech import TREES, mean_per_class_accuracy, open_caltech, over_folds, small_classes, splits


# ------------------------------------------------------------------------------------------------ the paper's numbers
@dataclass(frozen=True)
class Table:
    """Accuracies in %, {training pictures a class: (mean, spread or None)}, of the paper's rows."""
    title: str
    tree: str
    train: tuple
    features: dict
    scratch: dict
    others: dict
    scratch_by_default: bool = True


SOHN = {15: (35.1, None), 30: (42.1, None), 45: (45.7, None), 60: (47.9, None)}
BO_256 = {15: (40.5, 0.4), 30: (48.0, 0.2), 45: (51.9, 0.2), 60: (55.2, 0.3)}
SCRATCH_256 = {15: (9.0, 1.4), 30: (22.5, 0.7), 45: (31.2, 0.5), 60: (38.8, 1.4)}
FEATURES_256 = {15: (65.7, 0.2), 30: (70.6, 0.2), 45: (72.7, 0.4), 60: (74.2, 0.3)}

TABLES = {
    "table4": Table("Caltech-101", TREES[0], (15, 30), {15: (83.8, 0.5), 30: (86.5, 0.5)}, {15: (22.8, 1.5), 30: (46.5, 1.7)},
                    {"Bo et al. 2013": {30: (81.4, 0.33)}, "Yang et al. 2009": {15: (73.2, None), 30: (84.3, None)}}),
    "table5": Table("Caltech-256", TREES[1], (15, 30, 45, 60), FEATURES_256, SCRATCH_256,
                    {"Sohn et al. 2011": SOHN, "Bo et al. 2013": BO_256}),
    # the points below 15 are read off the vector graphic of figure 9, to 0.05
    "figure9": Table("Caltech-256", TREES[1], (1, 2, 3, 4, 5, 6, 7, 10, 15, 30, 45, 60),
                     {1: (27.4, 0.9), 2: (39.3, 2.3), 3: (46.2, 0.8), 4: (51.9, 0.3), 5: (55.0, 0.4), 6: (57.1, 0.6),
                      7: (58.9, 0.6), 10: (62.6, 0.5), **FEATURES_256}, SCRATCH_256,
                     {"Sohn et al. 2011": SOHN, "Bo et al. 2013": BO_256}, scratch_by_default=False),
}
# (classifier, layer): accuracies in table 7 on Caltech-101 (30 pictures a class) and Caltech-256 (60)
TABLE7 = {("svm", 1): ((44.8, 0.7), (24.6, 0.4)), ("svm", 2): ((66.2, 0.5), (39.6, 0.3)), ("svm", 3): ((72.3, 0.4), (46.0, 0.3)),
          ("svm", 4): ((76.6, 0.4), (51.3, 0.1)), ("svm", 5): ((86.2, 0.8), (65.6, 0.3)), ("svm", 7): ((85.5, 0.4), (71.7, 0.2)),
          ("softmax", 5): ((82.9, 0.4), (65.7, 0.5)), ("softmax", 7): ((85.4, 0.4), (72.6, 0.1))}
TABLE7_TRAIN = {TREES[0]: 30, TREES[1]: 60}


# ------------------------------------------------------------------------------------------------------- a study
class Caltech(Study):
    """A study on Caltech-101 or -256."""

    def __init__(self, args):
        super().__init__(args, lambda size: {"": open_caltech(args.data, args.background, size)})
        self.dataset = self.sets[""].dataset
        self.tree = self.dataset.names[0].split("/")[0]
        check.positive("--folds", args.folds)

    def begin(self, most_train, **options):
        a = self.args
        super().begin(test_most=a.test_most, background=a.background, classes_left_out_below=a.leave_out_small and most_train,
                      **options)

    def check_sizes(self, most_train):
        """Tell classes that are too small before OUT is made and anything computed."""
        if not self.args.leave_out_small:
            splits(self.dataset.labels, most_train, self.args.test_most, 0, self.args.seed, self.dataset.classes)

    def choose_pictures(self, numbers, most_train):
        """Which of the pictures `numbers` there are: `rows` of the features, `labels` and `classes`, after near-duplicates and,
        if asked for, classes of no more than `most_train` pictures are left out. A class that is too small is told."""
        kept, labels = np.ones(len(numbers), bool), self.dataset.labels[numbers]
        if self.args.without_duplicates:
            kept &= ~np.isin(numbers, self.duplicates("").second)
        self.duplicates_left_out = int((~kept).sum())
        small = small_classes(labels[kept], most_train) if self.args.leave_out_small else np.zeros(0, int)
        gone = np.setdiff1d(labels, labels[kept])                                  # all of whose pictures are left out
        self.left_out = [self.dataset.classes[c] for c in np.union1d(small, gone)]
        kept &= ~np.isin(labels, small)
        self.rows = np.flatnonzero(kept)
        self.numbers = numbers[self.rows]
        if not len(self.rows):
            raise check.Expected("--train", "a number that leaves classes over", f"{most_train}, which leaves none")
        there, self.labels = np.unique(labels[self.rows], return_inverse=True)
        self.classes = [self.dataset.classes[c] for c in there]
        self.split(most_train, 0)

    def split(self, train_per_class, fold):
        return splits(self.labels, train_per_class, self.args.test_most, fold, self.args.seed, self.classes)

    def accuracy(self, predicted, labels):
        return mean_per_class_accuracy(predicted, labels, len(self.classes))

    def classify(self, kind, layer, features, train_per_class, fold):
        """Fit the classifier of one fold, and keep what it reaches."""
        train, test = self.split(train_per_class, fold)
        began = time.monotonic()
        found = probe(kind, features, self.rows[train], self.labels[train], self.rows[test], len(self.classes),
                      held_out(self.labels[train], fold), lambda scores, labels, _: self.accuracy(scores.argmax(axis=0), labels))
        accuracy = self.accuracy(found.scores.argmax(axis=0), self.labels[test])
        self.keep(Part(kind, layer, train_per_class, fold, accuracy, found.C, float("nan"), time.monotonic() - began,
                       len(train), len(test)))

    def train_network(self, train_per_class, fold):
        """Train one from random weights on the pictures of a fold, and keep what it reaches."""
        train, test = self.split(train_per_class, fold)
        sets = [Subset(self.dataset, self.numbers[part], self.labels[part], self.classes) for part in (train, test)]
        folder = self.output/f"scratch-{train_per_class}-fold{fold}"
        found, seconds, train_error = self.from_random_weights(folder, *sets, self.args.seed + fold)
        accuracy = self.accuracy(found.p.argmax(axis=0), found.labels)
        self.keep(Part("scratch", 0, train_per_class, fold, accuracy, float("nan"), train_error, seconds, len(train), len(test)))

    def work(self, keys, features, write):
        """Do what of `keys` (see `Part.key`) is not finished; call `write` after each part that takes long, and at the end."""
        left = [key for key in keys if key not in self.parts]
        with tqdm(total=len(keys), initial=len(keys) - len(left), unit="part", disable=None if left else True) as bar:
            for kind, layer, n, fold in left:
                what = "from random weights" if kind == "scratch" else f"{kind}({layer})"
                bar.set_description(f"{what}, {n} a class, fold {fold}")
                if kind == "scratch":
                    self.train_network(n, fold)
                    write()
                else:
                    self.classify(kind, layer, features[layer], n, fold)
                bar.update()
        write()


def caltech_accuracy(args):
    """Tables 4 and 5, figure 9: the new softmax on the topmost layer, and networks from random weights."""
    table, study = TABLES[args.table], Caltech(args)
    if study.tree in TREES and study.tree != table.tree and not args.train:
        raise check.Expected(args.table, f"{table.title} ({table.tree})", study.tree,
                             "give --train to apply its protocol to another set")
    top = max(study.layers)
    train = sorted(set(args.train or table.train))
    scratch = table.scratch_by_default if args.scratch is None else args.scratch
    trained = sorted(set(args.scratch_train or train)) if scratch else []
    study.check_sizes(max([*train, *trained]))
    study.begin(max([*train, *trained]), scratch_epochs=args.scratch_epochs)
    with Lock(study.output):
        features = study.features("", [top])
        study.choose_pictures(features[top].pictures, max([*train, *trained]))

        def write():
            write_accuracies(study, table, train, trained, features[top].seconds)

        study.work([("softmax", top, n, fold) for n in train for fold in range(args.folds)], features, write)
        study.work([("scratch", 0, n, fold) for fold in range(min(args.folds, args.scratch_folds)) for n in trained], {}, write)


def caltech_layers(args):
    """Table 7: an SVM and a softmax on the features of each layer."""
    study = Caltech(args)
    layers = sorted(set(args.layers or study.layers))
    for layer in layers:
        check.one_of("--layers", layer, sorted(study.layers))
    n = args.train or TABLE7_TRAIN.get(study.tree, 30)
    study.check_sizes(n)
    study.begin(n)
    with Lock(study.output):
        features = study.features("", layers)
        study.choose_pictures(features[layers[0]].pictures, n)

        def write():
            write_layers(study, layers, n, features)

        study.work([(kind, layer, n, fold) for fold in range(args.folds) for layer in layers for kind in GRID], features, write)


# --------------------------------------------------------------------------------------------- what is written of them
def mean_and_spread(parts):
    """(mean, spread) of accuracies in %, None without parts; the spread is None for a single one."""
    if not parts:
        return None
    mean, spread = over_folds([100*part.accuracy for part in parts])
    return mean, None if np.isnan(spread) else spread


def write_accuracies(study, table, train, trained, seconds):
    """Table 4, 5 or figure 9 as Markdown, CSV and a figure."""
    name, top = study.args.table, max(study.layers)
    counts = sorted({*train, *trained})
    ours = {n: mean_and_spread(study.of("softmax", top, n)) for n in counts}
    scratch = {n: mean_and_spread(study.of("scratch", 0, n)) for n in counts}
    paper = {**table.others, "non-pretrained": table.scratch, "ImageNet-pretrained": table.features}
    here = {"from random weights": scratch, "features of the run": ours}
    rows = [[f"{who}: {what}", *(number(of.get(n)) for n in counts)] for who, group in (("paper", paper), ("here", here))
            for what, of in group.items() if any(of.get(n) for n in counts)]
    head = [f"Accuracy in %. Training pictures a class of {table.title} (paper), {study.tree} (here)", *counts]
    networks = [part for part in study.kinds("scratch") if part.train_per_class in counts]
    write_text(study.output/f"{name}.md", markdown(head, rows),
               caltech_protocol(study, counts), classifiers_in_words(study, seconds),
               scratch_in_words(networks, study.args.scratch_epochs),
               claim_of_features({n: gains(study, top, n) for n in counts}), claim_of_six(ours) if name == "figure9" else "")
    folds = {"from random weights": ("scratch", 0), "features of the run": ("softmax", top)}
    write_csv(study.output/f"{name}.csv",
              [[who, what, n, *csv_of(of[n]), len(study.of(*folds[what], n)) if who == "here" else ""]
               for who, group in (("paper", paper), ("here", here)) for what, of in group.items() for n in sorted(of) if of[n]],
              "who", "what", "train_per_class", "accuracy", "spread", "folds")
    plots.accuracy_curve(paper, {what: {n: pair for n, pair in of.items() if pair} for what, of in here.items()},
                         f"paper: {table.title}", f"here: {study.tree}", study.output/f"{name}.png")


def csv_of(pair):
    return f"{pair[0]:.6g}", "" if pair[1] is None else f"{pair[1]:.4g}"


def caltech_protocol(study, counts):
    a = study.args
    test = sorted({part.test for part in study.parts.values() if part.train_per_class in counts})
    if not test:
        return ""
    left = f" ({', '.join(study.left_out)} left out)" if study.left_out else ""
    most = f"at most {a.test_most} of the others of each class" if a.test_most else "all others"
    return (f"Protocol of the paper: training pictures drawn at random, at most 50 of the others of each class to test on, "
            f"mean of the classes' accuracies, five folds (test pictures and folds are stated for Caltech-101 only); "
            f"near-duplicates were taken out of ImageNet before the training. Here: {len(study.classes)} classes of "
            f"{study.tree}{left}; to test on {most} ({test[0]}{f' to {test[-1]}' if len(test) > 1 else ''} pictures); mean of "
            f"the classes' accuracies ± standard deviation over {a.folds} folds; the background "
            f"{'is a class' if a.background else 'is no class'}; chance is {100/len(study.classes):.1f} %. "
            f"{duplicates_in_words(study, study.duplicates_left_out, ABOVE)}")


def classifiers_in_words(study, seconds):
    parts = study.kinds(*GRID)
    if not parts:
        return ""
    times = [part.seconds for part in parts]
    chosen = ", ".join(f"{C:g}" for C in sorted({part.C for part in parts}))
    return (f"{run_in_words(study)} They took {seconds:.0f} s. Classifiers: fitted to their optimum, C chosen on a held-out "
            f"third of the training pictures ({chosen}), {np.mean(times):.1f} s each ({min(times):.1f} to {max(times):.1f}). "
            f"The paper does not say how it trained them; its 30 pictures a class of Caltech-101 took it 17 minutes.")


def gains(study, layer, n):
    """What the features are ahead by, in points, in each fold that has a network from random weights too."""
    scratch = {part.fold: part.accuracy for part in study.of("scratch", 0, n)}
    return [100*(part.accuracy - scratch[part.fold]) for part in study.of("softmax", layer, n) if part.fold in scratch]


def claim_of_features(gains):
    """`gains`: {pictures a class: [points, one a fold]}."""
    means = {n: sum(of)/len(of) for n, of in gains.items() if of}
    if not means:
        return ""
    word = "agrees" if min(means.values()) > 0 else "does not agree" if max(means.values()) <= 0 else "agrees in part"
    found = ", ".join(f"{mean:+.1f} points at {n} a class in {len(gains[n])} fold{'s'*(len(gains[n]) > 1)}"
                      for n, mean in means.items())
    return (f"Claim 10 of the paper, that features learned elsewhere beat training from random weights: {word} ({found}; the "
            f"paper: +61.0 and +40.0 at 15 and 30 of Caltech-101).")


def claim_of_six(ours):
    """Figure 9's own claim: with six pictures a class the features do what others need sixty for."""
    if not ours.get(6):
        return ""
    most = max(n for n in ours if ours[n])
    return (f"With 6 pictures a class the features reach {ours[6][0]:.1f} %, which is {100*ours[6][0]/ours[most][0]:.0f} % of "
            f"what they reach with {most} (the paper, Caltech-256: 57.1 %, 77 % of 74.2 with 60).")


def write_layers(study, layers, n, features):
    """Table 7 as Markdown, CSV and a figure."""
    found = {(kind, layer): mean_and_spread(study.of(kind, layer, n)) for kind in GRID for layer in layers}
    rows = [[f"{'SVM' if kind == 'svm' else 'softmax'} ({layer})", study.layers[layer], features[layer].shape[1],
             *(number(pair) for pair in TABLE7.get((kind, layer), (None, None))), number(pair)]
            for (kind, layer), pair in found.items()]
    write_text(study.output/"table7.md",
               markdown(["Accuracy in %, classifier (layer)", "features", "of them", "paper: Caltech-101, 30 a class",
                         "paper: Caltech-256, 60 a class", f"here: {study.tree}, {n} a class"], rows),
               "Features of a layer are here what it hands to the next one, after ReLU, max pooling and contrast normalisation "
               "where it has them (the column names the last of these), minus their mean over the training pictures, all "
               "divided by one number. The paper does not say which it took, nor how it scaled them.",
               caltech_protocol(study, [n]), classifiers_in_words(study, features[layers[0]].seconds), claim_of_layers(found))
    write_csv(study.output/"table7.csv",
              [[kind, layer, features[layer].shape[1], n, *csv_of(pair), len(study.of(kind, layer, n)),
                *(paper[0] for paper in TABLE7.get((kind, layer), (("",), ("",))))]
               for (kind, layer), pair in found.items() if pair],
              "classifier", "layer", "features", "train_per_class", "accuracy", "spread", "folds", "paper_caltech_101",
              "paper_caltech_256")
    plots.accuracy_by_layer({title: {key: pairs[k] for key, pairs in TABLE7.items()} for k, title in
                             enumerate(("paper: Caltech-101, 30 a class", "paper: Caltech-256, 60 a class"))}
                            | {f"here: {study.tree}, {n} a class": {key: pair for key, pair in found.items() if pair}},
                            100/len(study.classes), study.output/"table7.png")


def claim_of_layers(found):
    means = [(layer, pair[0]) for (kind, layer), pair in found.items() if kind == "svm" and layer <= 5 and pair]
    if len(means) < 2:
        return ""
    steps = [(low, high) for low, high in zip(means, means[1:]) if high[1] <= low[1]]
    faults = [f"layer {high[0]} is not above layer {low[0]} ({high[1]:.1f}, {low[1]:.1f})" for low, high in steps]
    word = f"does not agree: {', '.join(faults)}" if faults else "agrees"
    return f"Claim 10 of the paper, that accuracy rises with the layer (SVM, layers {means[0][0]} to {means[-1][0]}): {word}."
