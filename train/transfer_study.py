"""A study of how well a run's features serve on another set of pictures: RUN, the set, and a folder with what is measured.

    OUT/study.json            the options that every number in OUT has in common (train.study)
    OUT/parts.csv             a row for each classifier that was trained, written anew after each
    OUT/scratch-15-fold0/     an ordinary run, for each network trained from random weights
    OUT/duplicates.csv .png   pictures of the set that RUN was trained on already, where they were looked for
    RUN/features/             what RUN's layers make of the pictures (train.features), and those of the untrained network,
                              for all studies

Whatever RUN's features reach, those of the same network as it was before it learned anything stand beside it: the untrained
network, without which nobody can tell what was learned from what the architecture gives for nothing."""
import csv
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from train.features import features_of, key_of
from train.study import StudyFolder, measured, pictures_for
from zfcore import check, plots, trained
from zfcore.analysis.duplicates import Duplicates, near_duplicates, thumbnails
from zfcore.analysis.probing import feature_layers
from zfcore.checkpoint import load, write_csv
from zfcore.data import open_data
from zfcore.data.loader import BuiltIn
from zfcore.files import inside, opener
from zfcore.models import checkpoint_file, from_table
from zfcore.networks import home_of, recipe_of
from zfcore.terminal import Bar, plural
from zfcore.training import TrainConfig
from zfcore.training.config import read_options
from zfcore.training.start import blank_like

NETWORKS = ("run", "untrained")   # whose features a classifier is fitted to
OWN = "parts.csv", "scores-*.h5", "duplicates*.h5", "scratch*/config.json"       # what a study leaves in its folder
WATCHED = 256                     # test pictures at most on which a network from random weights is watched while it trains


@dataclass(frozen=True)
class Fitted:
    """One finished classifier: a row of parts.csv. A network trained from random weights is of the kind "scratch", and has ""
    and 0 where others have the origin of their features."""
    kind: str                     # svm, softmax, scratch
    network: str                  # whose features: one of NETWORKS
    layer: int
    reduced: int                  # to so many features by random projection; 0: all of the layer's as they are
    train_per_class: int
    fold: int
    accuracy: float               # mean over the classes, 0..1
    C: float                      # of the regulariser; NaN for a network
    train_error: float            # of a network in its last epoch, dropout and crops included, 0..1; NaN for a classifier
    seconds: float
    train: int                    # pictures
    test: int

    @property
    def key(self):
        return self.kind, self.network, self.layer, self.reduced, self.train_per_class, self.fold


class TransferStudy:
    """RUN, its network and the sets {name: Pictures}; `open_sets(shorter side)` gives {name: data set}. What is measured goes
    into a StudyFolder."""

    def __init__(self, args, open_sets):
        self.args, self.folder = args, StudyFolder(args.output, OWN, table=str, key=str)
        self.output = self.folder.path
        check.positive("--scratch-epochs", getattr(args, "scratch_epochs", 1))
        self.model = trained.open(args.run, args.device)
        if (args.scratch or args.without_duplicates) and not self.has_recipe:
            raise check.Expected("--run", "a run's folder with its config.json, which says what it was trained on and how",
                                 args.run, "--no-scratch goes without networks from random weights" if args.scratch else "")
        self.layers = feature_layers(self.model.network)
        self.sets = {name: self.pictures(dataset) for name, dataset in open_sets(self.model.size).items()}
        self.fitted = {}

    def pictures(self, dataset):
        """A data set prepared as RUN's own pictures were; small ones are enlarged."""
        return self.model.prepared(dataset, upscale=True, workers=self.args.workers)

    @property
    def run_folder(self):
        return home_of(self.args.run)

    @property
    def checkpoint_file(self):
        return checkpoint_file(self.args.run)

    @cached_property
    def keys(self):
        """{one of NETWORKS: {name of a set: what its features depend on}}."""
        return {network: {name: key_of(self.checkpoint_file, pictures, start) for name, pictures in self.sets.items()}
                for network, start in zip(NETWORKS, (None, self.start))}

    @cached_property
    def start(self):
        """(seed, law) that `Network.init` draws the untrained network with: RUN's own, as its checkpoint or its recipe says;
        (0, "he") where neither does."""
        state = load(self.checkpoint_file, velocity=False).state
        if state.get("init"):
            return state["seed"], state["init"]
        if not self.has_recipe:
            return 0, "he"
        config = self.run_config()
        return config.seed, config.init

    @cached_property
    def untrained(self):
        """RUN's model with weights as at its random start."""
        of = self.model.network
        return replace(self.model, network=from_table(of.name, of.input_shape, of.table()).init(*self.start, self.model.device))

    # ---------------------------------------------------------------------------------------------- what is kept
    def begin(self, **options):
        """Make OUT, or go on with it: what it holds must have been measured with the same options."""
        options = {"table": self.args.table, "run": str(self.checkpoint_file), "data": str(self.args.data),
                   "key": " ".join(self.keys["run"].values()), "seed": self.args.seed, "untrained": list(self.start),
                   "without_duplicates": self.args.without_duplicates, **options}
        self.folder.remember(options, may_change=("run", "data"))     # these are places; what lies there, key tells
        self.fitted = read_fitted(self.output/"parts.csv")

    def keep(self, fitted):
        self.fitted[fitted.key] = fitted
        names = [f.name for f in fields(Fitted)]
        rows = [[getattr(one, name) for name in names] for _, one in sorted(self.fitted.items())]
        write_csv(self.output/"parts.csv", rows, *names)

    def of(self, *key):
        """Finished ones over the folds: {fold: Fitted}, of a `Fitted.key` without its fold."""
        return {one.fold: one for one in self.fitted.values() if one.key[:-1] == key}

    def kinds(self, *kinds):
        return [one for one in self.fitted.values() if one.kind in kinds]

    # -------------------------------------------------------------------------------------------------- features
    def features(self, name, numbers):
        """{one of NETWORKS: {number of a layer: Features}} of the set called `name`."""
        layers, features, pictures = [self.layers[n] for n in numbers], {}, self.sets[name]
        for which, model in zip(NETWORKS, (self.model, self.untrained)):
            folder = inside(self.args.features or inside(self.run_folder, "features"), self.keys[which][name])
            what = " ".join(filter(None, ["features", which, name]))
            with Bar(len(pictures), "picture", what) as bar:
                found = features_of(model, pictures, layers, folder, bar)
            features[which] = {number: found[layer] for number, layer in zip(numbers, layers)}
        return features

    # ------------------------------------------------------------------------------------------------ duplicates
    def duplicates(self, name):
        """The Duplicates of RUN's training pictures (first) and the set called `name` (second); listed in OUT."""
        stem = "-".join(filter(None, ["duplicates", name]))
        return self.folder.kept(stem, Duplicates, lambda: self.find_duplicates(name, self.output/stem))

    def find_duplicates(self, name, file):
        own, numbers, thumbs = self.run_thumbnails
        new = self.sets[name]
        new_numbers, new_thumbs = thumbnails_of(new, f"thumbnails {name}")
        found = near_duplicates(thumbs, new_thumbs)
        found = replace(found, first=numbers[found.first], second=new_numbers[found.second])
        rows = list(zip(found.second.tolist(), found.first.tolist(), found.correlation.tolist()))
        named = [(new.dataset.names[i], own.dataset.names[j], f"{value:.4f}") for i, j, value in rows]
        write_csv(file.with_suffix(".csv"), named, "new_picture", "run_picture", "correlation")
        if rows:
            plots.save(plots.pairs([(new.picture(i), own.picture(j)) for i, j, _ in rows[:40]],
                        [(new.dataset.names[i].split("/", 1)[-1], f"{value:.3f}") for i, _, value in rows[:40]],
                        f"{len(rows)} pairs: left a new picture, right one that the run was trained on; below, their "
                        f"correlation"
                        + (". The first 40." if len(rows) > 40 else ".")), file.with_suffix(".png"))
        return found

    @cached_property
    def run_thumbnails(self):
        """(Pictures, numbers, thumbnails) of what RUN was trained on."""
        config = self.run_config()
        if config.data is None:
            raise check.Expected("--without-duplicates", "a run whose training pictures can be found again",
                                 f"{self.args.run}, which was given data sets in Python")
        own = self.pictures(open_data(config.data, self.model.size, config.limit_per_class)[0])
        return own, *thumbnails_of(own, "thumbnails of the run's pictures")

    @property
    def has_recipe(self):
        return recipe_of(self.args.run).is_file()

    def run_config(self):
        return TrainConfig(**read_options(recipe_of(self.args.run)))

    # -------------------------------------------------------------------------------- a network from random weights
    def from_random_weights(self, name, train, test, seed):
        """(Predictions of the data set `test`, seconds of training, its last training error): an ordinary run in OUT/NAME of RUN's
        own layers, begun or gone on with, on the data set `train`. Some of the test pictures are its validation set, which decides nothing:
        the last weights count."""
        config = self.scratch_config(seed)
        watched = test.subset(np.arange(0, len(test), -(-len(test)//WATCHED)))
        model, history = self.folder.run_or_resume(name, config, pictures_for(config, (train, watched)), network=blank_like(
            self.model.network, len(train.classes), config.image_size))
        found = measured([model], self.pictures(test), config.batch_size, probabilities=True)
        return found, sum(history["seconds"]), history["train_error"][-1]

    def scratch_config(self, seed):
        """RUN's own options, for a network trained on few pictures: so many epochs that it can fit them, and a learning rate
        that falls after 2/3 and 5/6 of them, as no picture can be spared to watch. As much of its start is left as of RUN's."""
        epochs, run = self.args.scratch_epochs, self.run_config()
        return replace(run, weight_decay=None if run.start_left else run.weight_decay, data=str(self.args.data), epochs=epochs,
                       seed=seed, init_from="", limit_per_class=0, upscale=True, keep_epochs=(),
                       drop_after=tuple(sorted({epochs*2//3, epochs*5//6} - {0})), device=self.args.device, workers=self.args.workers)


def vars_of(args):
    """The arguments of a command as JSON can hold them, for the processes of its --devices."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def thumbnails_of(pictures, what):
    """(numbers, thumbnails) of the pictures of a set that are not damaged."""
    numbers, found = [], []
    with Bar(len(pictures), "picture", what) as bar:
        for batch, _, indices in pictures.batches(256, 0, 0, shuffle=False):
            numbers.append(indices)
            found.append(thumbnails(batch))
            bar.update(len(indices))
    return np.concatenate(numbers), np.concatenate(found)


def read_fitted(path):
    """{key: Fitted} of a parts.csv, {} where there is none."""
    if not path.is_file():
        return {}
    with open(path, newline="", opener=opener) as file:
        try:
            rows = [Fitted(**{f.name: f.type(row[f.name]) for f in fields(Fitted)}) for row in csv.DictReader(file)]
        except (KeyError, ValueError, TypeError) as error:
            raise check.Expected(path, "the rows that this command wrote", f"others ({error})",
                                 "name another --output") from None
    return {one.key: one for one in rows}


class Joined(BuiltIn):
    """Two data sets of the same classes as one: first the pictures of the one, then those of the other."""

    def __init__(self, one, other):
        self.sets, self.classes, self.shorter_side = (one, other), one.classes, one.shorter_side
        self.labels, self.names = np.concatenate([one.labels, other.labels]), [*one.names, *other.names]

    def __len__(self):
        return len(self.labels)

    def picture(self, i):
        one, other = self.sets
        return one.picture(i) if i < len(one) else other.picture(i - len(one))

    def fingerprint(self):
        return " ".join(one.fingerprint() for one in self.sets)


class Subset(BuiltIn):
    """Some pictures of a data set, each with a label of its own; a picture may be in it more than once."""

    def __init__(self, dataset, numbers, labels, classes):
        self.dataset, self.numbers, self.labels, self.classes = dataset, np.asarray(numbers).tolist(), labels, list(classes)
        self.names, self.shorter_side = [dataset.names[i] for i in self.numbers], dataset.shorter_side

    def __len__(self):
        return len(self.numbers)

    def picture(self, i):
        return self.dataset.picture(self.numbers[i])

    def subset(self, places):
        return Subset(self.dataset, [self.numbers[k] for k in places], self.labels[places], self.classes)

    def fingerprint(self):
        return f"{self.dataset.fingerprint()} {self.numbers}"


# ------------------------------------------------------------------------------------------------- what is written
def run_in_words(study):
    network, epoch = study.model.network, study.model.epoch
    return (f"The run: {study.args.run} ({network.name}, {network.input_shape[1]}x{network.input_shape[2]} pixels, trained on "
            f"{plural(len(study.model.classes), 'class')}, epoch {epoch}). Features: evaluation mode, centre crop; pictures "
            f"smaller than the input are enlarged.")


def untrained_in_words(study):
    seed, law = study.start
    known = study.model.begun or study.has_recipe
    why = "those of the run's own start" if known else "as the run does not say its own"
    return (f"The untrained network, the control, whose features are those of random weights: the run's architecture with seed "
            f"{seed} and the law \"{law}\" ({why}), the same pictures, mean image, folds and classifiers; one draw.")


def duplicates_in_words(study, left_out, correlation):
    if not study.args.without_duplicates:
        return "Near-duplicates of the run's training pictures were not looked for."
    correlate, are = ("correlates", "is") if left_out == 1 else ("correlate", "are")
    return (f"{plural(left_out, 'picture')} of the new set that {correlate} by {correlation} or more with one that the run was "
            f"trained on {are} left out (the paper left such pictures out of ImageNet and trained again).")


def scratch_in_words(networks, epochs, most_error=30):
    """Training of the networks from random weights, in words; "" without any. Above `most_error` % on their own training
    pictures they are said not to fit them yet."""
    if not networks:
        return ""
    seconds, errors = [one.seconds for one in networks], [100*one.train_error for one in networks]
    unfinished = (" They do not fit their own training pictures yet: with more --scratch-epochs they may reach more, so what "
                  "the features are ahead by is not settled.") if max(errors) > most_error else ""
    return (f"From random weights: the run's network and options, {plural(epochs, 'epoch')} of the training pictures, the "
            f"learning rate divided by 10 after 2/3 and 5/6 of them; the last weights, centre crop. Networks: {len(networks)}; "
            f"seconds of training each: {span(seconds)}; training error at the end, %: {span(errors)}.{unfinished} "
            f"The paper states none of these.")


def span(values):
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
