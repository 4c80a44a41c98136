"""Tables 4, 5 and 7 and figure 9: a new softmax, or SVM, on a run's features of Caltech-101, Caltech-256 or a drawn set, beside
the same on the features of the untrained network and networks trained there from random weights; and the paper's numbers.

What the run is ahead by is taken fold by fold, with Student's 95 % interval over the folds, corrected as they draw from the
same pictures (`train.claims.interval`)."""
import argparse
import time
from dataclasses import asdict, dataclass

import numpy as np
from train import report
from train.claims import differences, interval, mean_spread, side, verdict_of_cases, verdict_of_steps
from train.report import csv_of
from train.study import Unit
from train.transfer_study import (NETWORKS, Fitted, Joined, Subset, TransferStudy, duplicates_in_words, run_in_words,
                                  scratch_in_words, untrained_in_words, vars_of)
from zfcore import check, plots
from zfcore.analysis.duplicates import ABOVE
from zfcore.analysis.probing import GRID, held_out, probe, random_projection
from zfcore.crew import crew
from zfcore.data import DRAWN, open_data
from zfcore.data.caltech import TREES, mean_per_class_accuracy, open_caltech, small_classes, splits
from zfcore.terminal import plural


# ------------------------------------------------------------------------------------------------ the paper's numbers
@dataclass(frozen=True)
class Table:
    """Accuracies in %, {training pictures a class: (mean, spread or None)}, of the paper's rows; those below `printed` pictures
    a class are read off its figure, the others are printed."""
    title: str
    tree: str
    train: tuple
    features: dict
    scratch: dict
    others: dict
    scratch_by_default: bool = True
    printed: int = 0


SOHN = {15: (35.1, None), 30: (42.1, None), 45: (45.7, None), 60: (47.9, None)}
BO_256 = {15: (40.5, 0.4), 30: (48.0, 0.2), 45: (51.9, 0.2), 60: (55.2, 0.3)}
SCRATCH_256 = {15: (9.0, 1.4), 30: (22.5, 0.7), 45: (31.2, 0.5), 60: (38.8, 1.4)}
FEATURES_256 = {15: (65.7, 0.2), 30: (70.6, 0.2), 45: (72.7, 0.4), 60: (74.2, 0.3)}

TABLES = {
    "table4": Table("Caltech-101", TREES[0], (15, 30), {15: (83.8, 0.5), 30: (86.5, 0.5)}, {15: (22.8, 1.5), 30: (46.5, 1.7)},
                    {"Bo et al. 2013": {30: (81.4, 0.33)}, "Yang et al. 2009": {15: (73.2, None), 30: (84.3, None)}}),
    "table5": Table("Caltech-256", TREES[1], (15, 30, 45, 60), FEATURES_256, SCRATCH_256,
                    {"Sohn et al. 2011": SOHN, "Bo et al. 2013": BO_256}),
    "figure9": Table("Caltech-256", TREES[1], (1, 2, 3, 4, 5, 6, 7, 10, 15, 30, 45, 60),
                     {1: (27.4, 0.9), 2: (39.3, 2.3), 3: (46.2, 0.8), 4: (51.9, 0.3), 5: (55.0, 0.4), 6: (57.1, 0.6),
                      7: (58.9, 0.6), 10: (62.6, 0.5), **FEATURES_256}, SCRATCH_256,
                     {"Sohn et al. 2011": SOHN, "Bo et al. 2013": BO_256}, scratch_by_default=False, printed=15),
}
# (classifier, layer): accuracies in table 7 on Caltech-101 (30 pictures a class) and Caltech-256 (60)
TABLE7 = {("svm", 1): ((44.8, 0.7), (24.6, 0.4)), ("svm", 2): ((66.2, 0.5), (39.6, 0.3)),
          ("svm", 3): ((72.3, 0.4), (46.0, 0.3)),
          ("svm", 4): ((76.6, 0.4), (51.3, 0.1)), ("svm", 5): ((86.2, 0.8), (65.6, 0.3)),
          ("svm", 7): ((85.5, 0.4), (71.7, 0.2)),
          ("softmax", 5): ((82.9, 0.4), (65.7, 0.5)), ("softmax", 7): ((85.4, 0.4), (72.6, 0.1))}
TABLE7_TRAIN = {TREES[0]: 30, TREES[1]: 60}
CLAIM7 = 5                        # the last of the layers of which the paper says that accuracy rises with them


# ------------------------------------------------------------------------------------------------------- a study
def open_pool(data, background, size):
    """The data set at `data` as one pool of pictures, of which each fold draws its own: Caltech-101 or -256, or a set that
    zfcore draws, such as drawn:unseen. Of the latter the training and the validation part are one pool: both are drawn by the
    same law, and the run, which knows other classes, has seen neither."""
    if not is_drawn(data):
        return open_caltech(data, background, size)
    if background:
        raise check.Expected("--background", "Caltech-101 or -256, which have pictures of no class", data)
    return Joined(*open_data(data, size))


def is_drawn(data):
    return data.startswith(DRAWN)


class Folds(TransferStudy):
    """A study over folds of one pool of pictures."""

    def __init__(self, args):
        super().__init__(args, lambda size: {"": open_pool(args.data, args.background, size)})
        self.dataset, self.projected = self.sets[""].dataset, {}
        self.title = args.data if is_drawn(args.data) else self.dataset.names[0].split("/")[0]
        if is_drawn(args.data) and self.model.classes == self.dataset.classes:
            raise check.Expected("--data", "another set than the one that the run was trained on", args.data)
        check.positive("--folds", args.folds)

    def begin(self, most_train, **options):
        a = self.args
        super().begin(test_most=a.test_most, background=a.background, classes_left_out_below=a.leave_out_small and most_train,
                      **options)

    def check_sizes(self, most_train):
        """Tell classes that are too small before OUT is made and anything computed."""
        if not self.args.leave_out_small:
            splits(self.dataset.labels, most_train, self.args.test_most, 0, self.args.seed, self.dataset.classes)

    def look(self, layers, most_train):
        """Have both networks' features of `layers`, and `choose_pictures` for that many training pictures a class."""
        self.looked_at = {"layers": layers, "most_train": most_train}
        self.known = self.features("", layers)
        self.choose_pictures(self.known["run"][layers[0]].pictures, most_train)
        self.seconds = self.known["run"][layers[0]].seconds

    def choose_pictures(self, numbers, most_train):
        """Choose among the pictures `numbers`: set `rows` of the features, `labels` and `classes`, after near-duplicates and,
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

    @property
    def fewest(self):
        """The number of features of the smallest layer."""
        return min(int(np.prod(self.model.network.shapes[self.model.network.index(name) + 1])) for name in self.layers.values())

    def seen(self, network, layer, reduced):
        """Features that a classifier is fitted to: (N,D) of a layer of one of NETWORKS, D being `reduced` if that is not 0."""
        features, key = self.known[network][layer], (network, layer, reduced)
        if reduced and key not in self.projected:
            self.projected[key] = random_projection(features, reduced)
        return self.projected[key] if reduced else features

    def classify(self, kind, network, layer, reduced, train_per_class, fold):
        """The Fitted classifier of one fold."""
        train, test = self.split(train_per_class, fold)
        began, features = time.monotonic(), self.seen(network, layer, reduced)
        found = probe(kind, features, self.rows[train], self.labels[train], self.rows[test], len(self.classes),
                      held_out(self.labels[train], fold),
                      lambda scores, labels, _: self.accuracy(scores.argmax(axis=0), labels))
        accuracy = self.accuracy(found.scores.argmax(axis=0), self.labels[test])
        return Fitted(kind, network, layer, reduced, train_per_class, fold, accuracy, found.C, float("nan"),
                      time.monotonic() - began, len(train), len(test))

    def train_network(self, train_per_class, fold):
        """The Fitted network that is trained from random weights on the pictures of a fold."""
        train, test = self.split(train_per_class, fold)
        sets = [Subset(self.dataset, self.numbers[rows], self.labels[rows], self.classes) for rows in (train, test)]
        name = f"scratch-{train_per_class}-fold{fold}"
        found, seconds, train_error = self.from_random_weights(name, *sets, self.args.seed + fold)
        accuracy = self.accuracy(found.p.argmax(axis=0), found.labels)
        return Fitted(*SCRATCH, train_per_class, fold, accuracy, float("nan"), train_error, seconds, len(train), len(test))

    def work(self, keys, write):
        """Finish those of `keys` (see `Fitted.key`) that are not; call `write` after each that takes long, and at the
        end."""
        def take(unit, fitted):
            self.keep(fitted if isinstance(fitted, Fitted) else Fitted(**fitted))
            if unit.key[0] == "scratch":
                write()

        units = [Fit(self.fitted, key) for key in keys]
        with crew(self.args.devices, self.args.device, "train.caltech_tables:served", arguments=vars_of(self.args),
                  **self.looked_at) as several:
            self.folder.work(units, lambda unit, progress: self.fit(unit.key), "fit", take, several)
        write()

    def fit(self, key):
        """The Fitted of a `Fitted.key`."""
        kind, *_, train_per_class, fold = key
        return self.train_network(train_per_class, fold) if kind == "scratch" else self.classify(*key)

    def accuracies(self, *key):
        """{fold: accuracy in %}, of a `Fitted.key` without its fold."""
        return {fold: 100*one.accuracy for fold, one in self.of(*key).items()}

    def tested_over_rest(self, train_per_class):
        """See `train.claims.interval`: of folds that train on so many pictures a class, the share of a class, mean over them, that
        is tested on, over the share that is not."""
        _, test = self.split(train_per_class, 0)
        share = float(np.mean(np.bincount(self.labels[test])/np.bincount(self.labels)))
        return share/(1 - share)


@dataclass(frozen=True)
class Fit(Unit):
    """A classifier or a network to be trained, of which `fitted` holds what is finished."""
    fitted: dict
    key: tuple                    # see `Fitted.key`

    @property
    def order(self):
        return list(self.key)

    @property
    def name(self):
        kind, network, layer, reduced, train_per_class, fold = self.key
        of = f"{network}, {kind}({layer}{f', {reduced} projections' if reduced else ''})"
        return f"{'from random weights' if kind == 'scratch' else of}, {train_per_class} a class, fold {fold}"

    @property
    def done(self):
        return int(self.key in self.fitted)


def served(arguments, layers, most_train):
    """A function that finishes a key of the study with these `arguments`, for a process of --devices: the features are there
    already."""
    study = Folds(argparse.Namespace(**arguments))
    study.look(layers, most_train)
    return lambda key, progress, wait: asdict(study.fit(tuple(key)))


SCRATCH = "scratch", "", 0, 0                                     # what the keys of networks from random weights begin with


def caltech_accuracy(args):
    """Tables 4 and 5, figure 9: the new softmax on the topmost layer of the run and of the untrained network, and networks from
    random weights. Returns the finished Folds."""
    table, study = TABLES[args.table], Folds(args)
    if study.title in TREES and study.title != table.tree and not args.train:
        raise check.Expected(args.table, f"{table.title} ({table.tree})", study.title,
                             "give --train to apply its protocol to another set")
    top = max(study.layers)
    train = sorted(set(args.train or table.train))
    trained = sorted(set(args.scratch_train or train)) if args.scratch else []
    study.check_sizes(max([*train, *trained]))
    study.begin(max([*train, *trained]), scratch_epochs=args.scratch_epochs)
    with study.folder.locked():
        study.look([top], max([*train, *trained]))

        def write():
            write_accuracies(study, table, sorted({*train, *trained}))

        study.work([("softmax", network, top, 0, n, fold) for n in train for fold in range(args.folds) for network in NETWORKS],
                   write)
        study.work([(*SCRATCH, n, fold) for fold in range(min(args.folds, args.scratch_folds)) for n in trained], write)
    return study


def caltech_layers(args):
    """Table 7: an SVM and a softmax on the features of each layer of the run and of the untrained network, and an SVM, by which
    the paper's claim is judged, on equally many random projections of each. Returns the finished Folds."""
    study = Folds(args)
    layers = sorted(set(args.layers or study.layers))
    for layer in layers:
        check.one_of("--layers", layer, sorted(study.layers))
    n = args.train or TABLE7_TRAIN.get(study.title, 30)
    study.check_sizes(n)
    study.begin(n)
    with study.folder.locked():
        study.look(layers, n)
        classifiers = ("svm", 0), ("softmax", 0), ("svm", study.fewest)
        study.work([(kind, network, layer, reduced, n, fold) for fold in range(args.folds) for layer in layers
                    for kind, reduced in classifiers for network in NETWORKS],
                   lambda: write_layers(study, layers, n, classifiers))
    return study


# --------------------------------------------------------------------------------------------- what is written of them
def over_folds(accuracies):
    """(mean, spread or None) of {fold: accuracy}, None without any."""
    return mean_spread(list(accuracies.values()))


def write_accuracies(study, table, counts):
    """Table 4, 5 or figure 9 as Markdown, CSV and a figure."""
    name, top = study.args.table, max(study.layers)
    of = {"from random weights": SCRATCH, "features of random weights": ("softmax", "untrained", top, 0),
          "features of the run": ("softmax", "run", top, 0)}
    found = {what: {n: folds for n in counts if (folds := study.accuracies(*key, n))} for what, key in of.items()}
    here = {what: {n: over_folds(folds) for n, folds in row.items()} for what, row in found.items()}
    paper = {**table.others, "non-pretrained": table.scratch, "ImageNet-pretrained": table.features}
    rows = [[f"{who}: {what}", *(report.mean_spread(row.get(n)) + "†"*(who == "paper" and n in row and n < table.printed)
                                 for n in counts)]
            for who, group in (("paper", paper), ("here", here)) for what, row in group.items()
            if any(row.get(n) for n in counts)]
    head = [f"Accuracy in %. Training pictures a class of {table.title} (paper), {study.title} (here)", *counts]
    networks = [one for one in study.kinds("scratch") if one.train_per_class in counts]
    scratch, untrained, run = found.values()
    ratios = {n: study.tested_over_rest(n) for n in run}
    paragraphs = [
        report.table(head, rows), READ_OFF*any(n < table.printed for n in counts),
        protocol_in_words(study, counts), classifiers_in_words(study), untrained_in_words(study),
        scratch_in_words(networks, study.args.scratch_epochs),
        claim_of_features(leads(run, scratch), leads(run, untrained), ratios),
        claim_of_six(here["features of the run"], here["features of random weights"]) if name == "figure9" else ""]
    numbers = [[who, what, n, *csv_of(row[n]), len(found[what][n]) if who == "here" else ""]
               for who, group in (("paper", paper), ("here", here)) for what, row in group.items() for n in sorted(row)]
    titles = f"paper: {table.title}", f"here: {study.title}"
    report.write(study.output, name, paragraphs, ("who", "what", "train_per_class", "accuracy", "spread", "folds"), numbers,
                 lambda: plots.accuracy_curve(paper, here, *titles, 100/len(study.classes)))


READ_OFF = "† read off the graphic of the paper's figure 9, to 0.05; the paper prints no number of these."


def leads(one, other):
    """{pictures a class: what `one` is ahead of `other` by, [points]}; both {pictures a class: {fold: accuracy in %}}."""
    found = {n: differences(one[n], other[n]) for n in one if n in other}
    return {n: points for n, points in found.items() if points}


def protocol_in_words(study, counts):
    a = study.args
    test = sorted({one.test for one in study.fitted.values() if one.train_per_class in counts})
    if not test:
        return ""
    left = f" ({', '.join(study.left_out)} left out)" if study.left_out else ""
    most = f"at most {a.test_most} of the others of each class" if a.test_most else "all others"
    pool = (f"{plural(len(study.dataset), 'drawn picture')}, of the training and the validation part together"
            if is_drawn(a.data) else
            f"the background {'is a class' if a.background else 'is no class'}")
    trained = len({one.fold for one in study.kinds(SCRATCH[0]) if one.train_per_class in counts})
    folds = f"{a.folds} folds" + f" ({trained} of networks from random weights)"*bool(trained)
    return (f"Protocol of the paper: training pictures drawn at random, at most 50 of the others of each class to test on, "
            f"mean of the classes' accuracies, five folds (test pictures and folds are stated for Caltech-101 only); "
            f"near-duplicates were taken out of ImageNet before the training. Here: {plural(len(study.classes), 'class')} of "
            f"{study.title}{left}; {pool}; to test on {most} ({test[0]}{f' to {test[-1]}' if len(test) > 1 else ''} pictures); "
            f"mean of the classes' accuracies ± standard deviation over {folds}; chance is "
            f"{100/len(study.classes):.1f} %. {INTERVALS*(a.folds > 1)}{duplicates_in_words(study, study.duplicates_left_out, ABOVE)}")


INTERVALS = ("All folds draw from one pool and share pictures, so each interval has Student's width times √(1 + folds x tested "
             "share of the pool / the rest) (Nadeau and Bengio 2003). ")                # see train.claims.interval


def classifiers_in_words(study):
    fitted = study.kinds(*GRID)
    if not fitted:
        return ""
    times = [one.seconds for one in fitted]
    chosen = ", ".join(f"{C:g}" for C in sorted({one.C for one in fitted}))
    return (f"{run_in_words(study)} They took {study.seconds:.0f} s. Classifiers: fitted to their optimum, C chosen on a "
            f"held-out third of the training pictures ({chosen}), {np.mean(times):.1f} s each ({min(times):.1f} to "
            f"{max(times):.1f}). The paper does not say how it trained them; its 30 pictures a class of Caltech-101 took it 17 "
            f"minutes.")


LEARNED = {"agrees": "what the run learned serves here", "agrees in part": "what the run learned serves here in part",
           "does not agree": "what the run learned does not serve here",
           "undecided": "whether what the run learned serves here is open"}


def claim_of_features(over_scratch, over_untrained, ratios):
    """Lead of the run's features over networks trained here from random weights, and of the features of random
    weights: each {pictures a class: [points, one a fold]}; `ratios`: {pictures a class: `Folds.tested_over_rest`}."""
    if not over_untrained:
        return ""
    of_scratch, learned = (verdict_of_cases(side(points, ratios[n]) for n, points in leads.items())
                           for leads in (over_scratch, over_untrained))
    control = (f"The control: of the features of random weights they are ahead by {leads_in_words(over_untrained, ratios)}: "
               f"{LEARNED[learned]}.")
    if not over_scratch:
        return f"What the features of the run owe to its training. {control}"
    return (f"Claim 10 of the paper, that features learned elsewhere beat training from random weights: "
            f"{of_scratch} ({leads_in_words(over_scratch, ratios)}; the paper: +61.0 and +40.0 "
            f"at 15 and 30 of Caltech-101). {control}")


def leads_in_words(leads, ratios):
    return ", ".join(f"{report.interval(*interval(points, tested_over_rest=ratios[n]))} points at {n} a class in {len(points)} "
                     f"fold{'s'*(len(points) > 1)}"
                     for n, points in leads.items())


def claim_of_six(ours, untrained):
    """Figure 9's own claim: with six pictures a class the features do what others need sixty for."""
    if not ours.get(6):
        return ""
    most = max(ours)
    share = (f"; those of random weights reach {untrained[6][0]:.1f} %, {100*untrained[6][0]/untrained[most][0]:.0f} % of "
             f"theirs"
             if untrained.get(6) and untrained.get(most) else "")
    return (f"With 6 pictures a class the features reach {ours[6][0]:.1f} %, which is {100*ours[6][0]/ours[most][0]:.0f} % of "
            f"what they reach with {most}{share} (the paper, Caltech-256: 57.1 % by its figure, 77 % of 74.2 with 60).")


def write_layers(study, layers, n, classifiers):
    """Table 7 as Markdown, CSV and a figure."""
    curves = {(kind, reduced): [{layer: study.accuracies(kind, network, layer, reduced, n) for layer in layers}
                                for network in NETWORKS]
              for kind, reduced in classifiers}
    here, fewest, ratio = f"here: {study.title}, {n} a class", study.fewest, study.tested_over_rest(n)
    rows, numbers = [], []
    for (kind, reduced), (run, untrained) in curves.items():
        for layer in layers:
            paper = TABLE7.get((kind, layer), (None, None)) if not reduced else (None, None)
            count, pairs = reduced or study.known["run"][layer].shape[1], [over_folds(of[layer]) for of in (run, untrained)]
            points = differences(run[layer], untrained[layer])
            lead = interval(points, tested_over_rest=ratio) if points else None
            rows.append([f"{WORDS[kind]} ({layer}){f', {reduced} projections' if reduced else ''}", study.layers[layer], count,
                         *map(report.mean_spread, (*paper, *pairs)), report.interval(*lead) if lead else ""])
            if lead:
                numbers.append([kind, layer, count, int(reduced > 0), n, len(run[layer]), *csv_of(pairs[0]), *csv_of(pairs[1]),
                                *csv_of(lead), *(pair[0] if pair else "" for pair in paper)])
    paragraphs = [
        report.table(["Accuracy in %, classifier (layer)", "features", "of them", "paper: Caltech-101, 30 a class",
                      "paper: Caltech-256, 60 a class", here, "untrained network", "ahead by, points (95 %)"], rows),
        "Features of a layer are here what it hands to the next one, after ReLU, max pooling and contrast normalisation where "
        "it has them (the column names the last of these), minus their mean over the training pictures, all divided by one "
        "number. The paper does not say which it took, nor how it scaled them. Projections: each layer's features times one "
        f"Gaussian matrix, so that all layers have as many as the smallest, {fewest}.",
        protocol_in_words(study, [n]), classifiers_in_words(study), untrained_in_words(study),
        claim_of_layers("all features", *curves["svm", 0], ratio),
        claim_of_layers(f"{fewest} projections", *curves["svm", fewest], ratio)]
    header = ("classifier", "layer", "features", "projected", "train_per_class", "folds", "accuracy", "spread",
              "untrained_accuracy", "untrained_spread", "ahead_by", "ahead_by_95_half", "paper_caltech_101",
              "paper_caltech_256")
    report.write(study.output, "table7", paragraphs, header, numbers,
                 lambda: plots.accuracy_by_layer(*panels(curves, here, fewest), 100/len(study.classes)))


WORDS = {"svm": "SVM", "softmax": "softmax"}


def panels(curves, here, fewest):
    """(the paper's panels, ours) as `plots.accuracy_by_layer` takes them. `curves`: {(kind, reduced): [{layer: {fold: accuracy
    in %}} of each of NETWORKS]}."""
    paper = {title: {word: {layer: pairs[k] for (of, layer), pairs in TABLE7.items() if of == kind}
                     for kind, word in WORDS.items()}
             for k, title in enumerate(("paper: Caltech-101, 30 a class", "paper: Caltech-256, 60 a class"))}
    full, equal = {}, {}
    for (kind, reduced), of_networks in curves.items():
        for name, curve in zip((WORDS[kind], f"{WORDS[kind]}, untrained"), of_networks):
            (equal if reduced else full)[name] = {layer: over_folds(folds) for layer, folds in curve.items() if folds}
    return paper, {here: full, f"the same, {fewest} projections a layer": equal}


def claim_of_layers(what, run, untrained, ratio):
    """Claim 10 on `what`, of the SVM: how accuracy changes from layer to layer, in the run, in the untrained network as its
    control, and in what the run is ahead by. `run`, `untrained`: {layer: {fold: accuracy in %}}; `ratio`:
    `Folds.tested_over_rest`."""
    layers = [layer for layer in sorted(run) if layer <= CLAIM7 and run[layer] and untrained[layer]]
    if len(layers) < 2:
        return ""
    lead = {layer: {fold: run[layer][fold] - untrained[layer][fold] for fold in run[layer] if fold in untrained[layer]}
            for layer in layers}
    steps = list(zip(layers, layers[1:]))
    curves = [[side(differences(curve[high], curve[low]), ratio) for low, high in steps] for curve in (run, untrained, lead)]
    of_run, of_untrained, of_lead = (steps_in_words(sides, layers) for sides in curves)
    both = any(a == b == -1 for a, b in zip(*curves[:2]))
    amounts = ", ".join(f"{over_folds(lead[layer])[0]:+.1f}" for layer in layers)
    no_finding = " A fall that both have is no finding about what was learned." if both else ""
    return (f"Claim 10 of the paper, that accuracy rises with the layer, for the SVM on {what} of layers {layers[0]} to "
            f"{layers[-1]}: {verdict_of_steps(curves[0])}, it {of_run}. The control, the untrained network's, {of_untrained}."
            f"{no_finding} What the run is ahead by, {amounts}, {of_lead}; that it rises with the layer: "
            f"{verdict_of_steps(curves[2])}.")


def steps_in_words(sides, layers):
    """The `side` of each step from one of `layers` to the next."""
    found = {word: [f"{low} to {high}" for low, high, of in zip(layers, layers[1:], sides) if of == side]
             for word, side in (("rises", 1), ("falls", -1), ("is undecided", 0))}
    return ", ".join(f"{word} from layer {', '.join(steps)}" for word, steps in found.items() if steps)
