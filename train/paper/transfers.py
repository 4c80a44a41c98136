"""Tables 4 to 7 and figure 9: the run's features on other pictures, studies of train.transfer in the items' folders, which
share the features that they compute, in OUTPUT/features."""
import hashlib
import json

import numpy as np

from train import transfer
from train.caltech_tables import (SCRATCH, TABLE7, TABLES, TREES, caltech_accuracy, caltech_layers, classifiers_in_words,
                                  protocol_in_words)
from train.claims import differences
from train.paper.outcome import VERDICTS, Number, Outcome, Picture, number, paired
from train.paper.setting import Item
from train.transfer_study import scratch_in_words, untrained_in_words
from train.voc_table import ALONE, TABLE6, WAYS, precisions, voc_precision, voc_protocol
from zfcore.networks import recipe_of

UNSEEN = "drawn:unseen"           # parts in combinations that no other drawn set has
CALTECH = {"table4": "caltech101", "table5": "caltech256", "figure9": "caltech256"}
FOLDS = "how another pool of pictures would come out, which is judged by folds of one, their intervals wider for it"


def set_for(setting, *names):
    """The first data set that is given by these options; of a run on drawn pictures the drawn set that is kept apart; or
    None."""
    given = [path for name in names if (path := setting.options.get(name))]
    return str(given[0]) if given else UNSEEN if setting.drawn and not other_set_is_its_own(setting) else None


def other_set_is_its_own(setting):
    """True where the run was trained on what is kept apart from others."""
    return setting.model.data == UNSEEN


def no_other_set(*names):
    def lacks(setting):
        if set_for(setting, *names):
            return ""
        options = " or ".join(f"--{name} DIR" for name in names)
        return f"Features are tried on other pictures than the run's: {options} (Caltech's ObjectCategories)."
    return lacks


def arguments(setting, table, data, item, *words):
    """The arguments of `python -m train.transfer` for a table. Its folder, in that of the item, is called by the data and the
    words: where another set is given later, that is another study."""
    called = hashlib.sha256(json.dumps([str(data), *words]).encode()).hexdigest()[:8]
    return transfer.parser().parse_args([
        table, f"--run={setting.run}", f"--data={data}", f"--output={setting.folder(f'{item}/{called}')}",
        f"--features={setting.folder('features')}", f"--seed={setting.seed}", f"--device={setting.device}",
        f"--workers={setting.workers}", f"--devices={setting.devices}", *words])


def figure_of(study, table, words):
    """The Picture that a study has drawn, if it has."""
    return (Picture(f"{study.output.name}/{table}.png", words),)*(study.output/f"{table}.png").is_file()


# ------------------------------------------------------------------------------------------- tables 4 and 5, figure 9
def accuracies(item, table, counts, folds, scratch):
    """(make, seconds) of an Item of `train.caltech_tables.caltech_accuracy`. `counts`, `folds` and `scratch` are of the three
    scales: training pictures a class; folds; (folds, epochs, pictures a class) of networks from random weights, () for none."""
    def make(setting):
        many, of_scratch = setting.of(*counts), setting.of(*scratch) if has_recipe(setting) else ()
        words = ["--train", *map(str, many), f"--folds={setting.of(*folds)}", "--scratch" if of_scratch else "--no-scratch"]
        if of_scratch:
            few, epochs, trained = of_scratch
            words += [f"--scratch-folds={few}", f"--scratch-epochs={epochs}", "--scratch-train", *map(str, trained)]
        study = caltech_accuracy(arguments(setting, table, set_for(setting, CALTECH[table]), item, *words))
        networks = study.kinds("scratch")
        numbers = [each for n in many for each in of_count(study, TABLES[table], n)]
        if item == "fig9" and {6, 60} <= set(many):
            numbers.append(of_six(study))
        if setting.of(*scratch) and not of_scratch:
            numbers.append(Number("features learned elsewhere beat random weights trained there", None, verdict=VERDICTS[3],
                                  rule="needs a run's folder with its config.json, which says how the run was trained"))
        said = protocol_in_words(study, many), classifiers_in_words(study), untrained_in_words(study)
        drawn = figure_of(study, table, "Accuracy over training pictures a class, beside the paper's.")
        return Outcome(item, tuple(numbers), drawn, " ".join(filter(None, said)),
                       scratch_in_words(networks, of_scratch[1]) if networks else "",
                       took={"pictures": len(study.dataset), "networks": len(networks)})

    def seconds(setting, speed):
        of_scratch = setting.of(*scratch) if has_recipe(setting) else ()
        classes = 30 if set_for(setting, CALTECH[table]) == UNSEEN else TABLES[table].title == "Caltech-101" and 101 or 256
        pictures = classes*80
        trained = sum(n*classes for n in of_scratch[2])*of_scratch[0]*of_scratch[1]*speed.step if of_scratch else 0
        return 2*pictures*speed.look + 2*len(setting.of(*counts))*setting.of(*folds)*1.0*classes/30 + trained
    return make, seconds


def of_count(study, paper, n):
    """Numbers of n training pictures a class of a finished Folds, and the claims that they decide."""
    top = max(study.layers)
    of = {"of": "folds", "tested_over_rest": study.tested_over_rest(n)}
    features, untrained, scratch = (study.accuracies(*key, n) for key in (
        ("softmax", "run", top, 0), ("softmax", "untrained", top, 0), SCRATCH))
    read_off = ", read off the figure"*(n in paper.features and n < paper.printed)
    yield number(f"{n} a class: features of the run", list(features.values()), "%", cell(paper.features.get(n)) + read_off, **of)
    if scratch:
        both = n in paper.features and n in paper.scratch
        yield number(f"{n} a class: trained there from random weights", list(scratch.values()), "%", cell(paper.scratch.get(n)),
                     **of)
        yield paired(f"{n} a class: features learned elsewhere beat random weights trained there",
                     differences(features, scratch),
                     "points", f"{paper.features[n][0] - paper.scratch[n][0]:+.1f}" if both else "", **of)
    yield number(f"{n} a class: features of the untrained network (control)", list(untrained.values()), "%", **of)
    yield paired(f"{n} a class: what was learned serves here", differences(features, untrained), "points",
                 **{**of, "of": "folds, less the untrained network's features"})


def has_recipe(setting):
    """Return whether it is known how the run was trained, so that another network can be trained as it was."""
    return recipe_of(setting.run).is_file()


def of_six(study):
    """The Number of figure 9's own claim. The paper sets 6 pictures a class beside other people's 60; here they are set beside
    the untrained network's features with 60, by the wider interval of the two."""
    key = max(study.layers), 0
    return paired("features with 6 pictures a class beat the untrained network's with 60", differences(
        study.accuracies("softmax", "run", *key, 6), study.accuracies("softmax", "untrained", *key, 60)), "points",
        "57.1 % with 6, read off the figure, beat Bo et al.'s 55.2 % with 60", "folds", tested_over_rest=study.tested_over_rest(6))


def cell(pair):
    """"83.8 ± 0.5" of the paper's (mean, spread or None), "" of None."""
    return "" if pair is None else f"{pair[0]}" if pair[1] is None else f"{pair[0]} ± {pair[1]}"


# -------------------------------------------------------------------------------------------------------------- table 7
def layers(setting):
    """Table 7, by the SVM on all features of each layer and on equally many random projections."""
    data = set_for(setting, "caltech101", "caltech256")
    n, folds = setting.of(15, 30, None), setting.of(2, 3, 5)
    study = caltech_layers(arguments(setting, "table7", data, "table7", f"--folds={folds}", *([f"--train={n}"] if n else [])))
    n = n or {one.train_per_class for one in study.fitted.values()}.pop()
    there, column, numbers = sorted(study.layers), 1 if study.title == TREES[1] else 0, []
    run, untrained = ({layer: study.accuracies("svm", network, layer, 0, n) for layer in there}
                      for network in ("run", "untrained"))
    printed = {layer: pairs[column] for (kind, layer), pairs in TABLE7.items() if kind == "svm"}
    of = {"of": "folds", "tested_over_rest": study.tested_over_rest(n)}
    for layer in there:
        numbers.append(number(f"SVM ({layer})", list(run[layer].values()), "%", cell(printed.get(layer)), **of))
        numbers.append(number(f"SVM ({layer}), untrained (control)", list(untrained[layer].values()), "%", **of))
    for low, high in zip(there, there[1:]):
        if high > 5:
            continue                                                             # the paper's own rises to 5, and falls to 7
        rise, control = differences(run[high], run[low]), differences(untrained[high], untrained[low])
        both = low in printed and high in printed
        numbers += [paired(f"accuracy rises from layer {low} to {high}", rise, "points",
                           f"{printed[high][0] - printed[low][0]:+.1f}" if both else "", **of),
                    number(f"untrained (control): from layer {low} to {high}", control, "points", **of),
                    paired(f"from layer {low} to {high} by more than the untrained network's", np.subtract(rise, control),
                           "points", **of)]
    said = protocol_in_words(study, [n]), classifiers_in_words(study), untrained_in_words(study)
    return Outcome("table7", tuple(numbers), figure_of(study, "table7", "What each layer knows, beside the paper's."),
                   " ".join([*said, f"The paper's column: {('Caltech-101, 30', 'Caltech-256, 60')[column]} pictures a class."]),
                   took={"pictures": len(study.dataset)})


# -------------------------------------------------------------------------------------------------------------- table 6
def no_voc(setting):
    return "" if setting.options.get("voc") else "PASCAL VOC is needed, whose pictures show several classes each: --voc VOCdevkit."


def average_precision(setting):
    """Table 6: class by class, beside the untrained network's features and, but for minutes, a network from random weights."""
    words = setting.of(["--no-scratch"], ["--scratch"], ["--scratch", "--train-part=trainval", "--score-part=test"])
    study, found = voc_precision(arguments(setting, "table6", setting.options["voc"], "table6", *words))
    ours = {way: precisions(study, scores)["2010"] for way, scores in found.items()}
    names, numbers = [*study.train.classes, "mean"], []
    for k, name in enumerate(names):
        printed = f"{TABLE6[name][0]}" if name in TABLE6 else ""
        numbers += [Number(f"{name}: {WAYS[way]}", float(values[k]), unit="% average precision", paper=printed*(way == "run"),
                           rule="one training") for way, values in ours.items() if np.isfinite(values[k])]
    numbers += [Number(f"the run's features beat {WAYS[way]}", float(ours["run"][-1] - ours[way][-1]),
                       unit="points of mean average precision", rule=ALONE, verdict=VERDICTS[2]) for way in ours if way != "run"]
    drawn = figure_of(study, "table6", "Average precision of each class, beside the paper's.")
    return Outcome("table6", tuple(numbers), drawn,
                   f"{voc_protocol(study, study.output/'results')} {untrained_in_words(study)}",
                   took={"pictures": len(study.train) + len(study.scored), "networks": int("scratch" in found)})


# ---------------------------------------------------------------------------------------------------------------- items
MINUTES = {"minutes": f"few folds; networks from random weights at 15 a class alone; {FOLDS}", "hours": FOLDS, "paper": FOLDS}
NONE = {**MINUTES, "minutes": f"two folds; no networks from random weights; {FOLDS}"}
ONCE = dict.fromkeys(("minutes", "hours", "paper"), "one training each: whether another would come out so")
COUNTS5, COUNTS9 = TABLES["table5"].train, TABLES["figure9"].train
TABLE4 = accuracies("table4", "table4", ((15, 30),)*3, (3, 5, 5), ((2, 30, (15,)), (2, 60, (15, 30)), (5, 60, (15, 30))))
TABLE5 = accuracies("table5", "table5", (COUNTS5,)*3, (2, 5, 5), ((), (2, 60, COUNTS5), (5, 60, COUNTS5)))
FIGURE9 = accuracies("fig9", "figure9", ((1, 3, 6, 15, 60), COUNTS9, COUNTS9), (3, 5, 5), ((), (), ()))
BEAT = "Features learned on other pictures beat training from random weights."
ITEMS = (
    Item("table4", "Do the features serve for other pictures? Caltech-101", "5.2, table 4", BEAT, *TABLE4,
         no_other_set("caltech101"), ("caltech101",), MINUTES),
    Item("fig9", "How few pictures are enough? Caltech-256", "5.2, figure 9", "With six pictures a class the features do what "
         "others need sixty for.", *FIGURE9, no_other_set("caltech256"), ("caltech256",), NONE),
    Item("table5", "Do the features serve for other pictures? Caltech-256", "5.2, table 5", BEAT, *TABLE5,
         no_other_set("caltech256"), ("caltech256",), NONE),
    Item("table6", "And where pictures show several things? PASCAL VOC 2012", "5.2, table 6", BEAT, average_precision,
         lambda setting, speed: 23_000*speed.look + 60 + (setting.scale != "minutes")*60*6000*speed.step, no_voc, ("voc",),
         ONCE),
    Item("table7", "What does each layer know?", "5.3, table 7", "Accuracy rises with the layer.", layers,
         lambda setting, speed: 2*2400*speed.look + 42*setting.of(2, 3, 5)*setting.of(1, 2, 4),
         no_other_set("caltech101", "caltech256"), ("caltech101", "caltech256"), NONE),
)
