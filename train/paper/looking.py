"""Figures 2 and 4 to 8, table 1 and this project's sanity checks: what the commands of `python -m zfcore` find, judged."""
import os
from dataclasses import replace

import numpy as np

from train.paper.outcome import VERDICTS, Number, Outcome, Picture, jackknife, number, of_two_groups, paired
from train.paper.setting import Item
from zfcore.analysis import correspondence as alike
from zfcore.analysis import evolution as growing
from zfcore.analysis import invariance as moved
from zfcore.analysis import occlusion as occluding
from zfcore.analysis import sanity_checks as checks
from zfcore.analysis import top_activations as top
from zfcore.check import Expected
from zfcore.commands.common import open_pictures
from zfcore.data.landmarks import read_landmarks
from zfcore.terminal import Bar, plural
from zfcore.trained import open as opened

FACE = "dog face"                 # the drawn class whose parts are hidden in table 1
NO_BOXES = "needs the objects' boxes, which only drawn pictures tell: of a network of their classes, --data drawn:objects"
NO_START = "The run does not say how its weights were drawn, so the untrained network, the control, is not there."


def shown(figures, words, most=2):
    """Pictures of an item's first figures, the last of which says how many there are."""
    more = f" The first {most} of {len(figures)}; the others lie beside them." if len(figures) > most else ""
    return tuple(Picture(path.name, words + more*(k == min(most, len(figures)) - 1)) for k, path in enumerate(figures[:most]))


def learned(what, run, untrained, unit, of="pictures", **how):
    """The Number of the claim that the run has more of it than the untrained network, where that too may pass the paper's."""
    return paired(f"{what}: more than before training", run - untrained, unit, of=f"{of}, less the untrained network's", **how)


# ------------------------------------------------------------------------------------------------------------- figure 2
def strongest(setting):
    """Figure 2: a pass each with the run and the untrained network, the control; then the units' pictures and projections."""
    model, layers = setting.model, [layer.name for layer in setting.model.network.convolutions]
    units = setting.of("random:12", "random:24", "random:48")
    k = min(9, len(setting.pictures))
    views, figures = setting.look("fig2", "top-activations", "--layers", *layers, f"--units={units}", f"--k={k}")
    passes = {name: (of, passed(setting, name, of, layers, k)) for name, of in networks_of(setting).items()}
    of_classes = min(k, len(setting.pictures.dataset.classes)) > 1
    numbers = of_one_class(setting, layers, {name: found for name, (_, found) in passes.items()}) if of_classes else []
    for of in views[1:]:                                                  # layer 1's projections are its filters
        alike_in_map = grouping(of)
        numbers.append(paired(f"{of.layer}: the projections of a map are more alike than those of two maps", alike_in_map,
                              "cosine", "strong grouping within each map", "units, less the next unit's projections"))
        if "untrained" in passes:
            model, found = passes["untrained"]
            before = grouping(top.views_of(model, setting.pictures, found, of.layer, of.units))
            numbers.append(learned(f"{of.layer}: that they are so alike", alike_in_map, before, "cosine", "units"))
    left = [f"the projections of each unit's {k} strongest activations" if of.filters is None else
            "each unit's filter, which all of its projections are" for of in views]
    how = (f"The {k} strongest pictures of every unit, one activation a picture. Likeness: cosines between the projections of "
           f"{units.removeprefix('random:')} random units of a layer, pixel by pixel, which see no likeness that is shifted or "
           f"turned. Of one class: over the units that {k} pictures or more make fire (with a control: in both networks), as of "
           "fewer a larger share is of one class by chance.")
    pictures = tuple(Picture(path.name, f"{path.stem}: left {what} (mid-grey is zero), right the patches of the pictures.")
                     for path, what in zip(figures, left))
    return Outcome("fig2", tuple(numbers), pictures, f"{setting.about()} {how}",
                   took={"pictures": len(setting.pictures)*(2 if model.start is not None else 1)})


def networks_of(setting):
    """{name: Trained} of the run and, where its start is known, the control."""
    return {"run": setting.model, **({"untrained": setting.model.untrained()} if setting.model.start is not None else {})}


def passed(setting, name, model, layers, k):
    """The strongest pictures that a network's units have, kept in the folder of figure 2."""
    file = top.pass_file(setting.folder("fig2")/f"of_one_class_{name}.h5", model, setting.pictures, layers, k)
    with Bar(len(setting.pictures), "picture", f"fig2, {name}") as bar:
        return top.top_activations(model, setting.pictures, layers, k, file=file, bar=bar)


def of_one_class(setting, layers, passes):
    """Numbers of what share of a unit's strongest pictures is of their commonest class, layer by layer."""
    labels = setting.pictures.dataset.labels
    found = {name: {layer: commonest(of.pictures[layer], labels) for layer in layers} for name, of in passes.items()}
    last, second = layers[-1], layers[min(1, len(layers) - 1)]
    of = {layer: f"of {plural(len(shares), 'unit')}" for layer, shares in found["run"].items()}
    of_last, of_second = 100*found["run"][last], 100*found["run"][second]
    numbers = [number(f"{layer}: of a unit's nine strongest pictures those of one class", 100*shares, "%", of=of[layer])
               for layer, shares in found["run"].items()]
    if last != second:
        numbers.append(of_two_groups(f"{last} is more class-specific than {second}", of_last, of_second, "points",
                                     "layer 2: corners, edges; layer 4: class-specific; layer 5: whole objects"))
    if "untrained" in found:
        before = 100*found["untrained"][last]
        numbers.append(number(f"{last}, untrained (control): those of one class", before, "%", of=of[last]))
        numbers.append(learned(f"{last} is class-specific", of_last, before, "points", of[last]))
    return numbers


def commonest(pictures, labels):
    """(U,) of pictures (U,k) the share that the commonest class has, NaN where fewer than k are there:
    of two one class has half or all."""
    shares = np.full(len(pictures), np.nan)
    for u, of_unit in enumerate(pictures):
        if (of_unit >= 0).all():
            shares[u] = np.bincount(labels[of_unit]).max()/len(of_unit)
    return shares


def grouping(views):
    """(U,) of UnitViews: mean cosine between two of a unit's projections, less that between one of its and one of the next
    unit's; NaN of units that fewer than two pictures make fire."""
    there, found = views.pictures >= 0, np.full(len(views.units), np.nan)
    flat = views.projections.reshape(*there.shape, -1).astype(np.float64)
    flat /= np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), np.finfo(float).tiny)
    fire = np.flatnonzero(there.sum(axis=1) > 1)
    for u, following in zip(fire, np.roll(fire, -1)):
        one, other = flat[u][there[u]], flat[following][there[following]]
        if u != following:
            found[u] = (one @ one.T)[~np.eye(len(one), dtype=bool)].mean() - (one @ other.T).mean()
    return found


# ------------------------------------------------------------------------------------------------------------- figure 4
def no_epochs(setting):
    try:
        kept = growing.kept_epochs(setting.run)
    except Expected as sentence:
        return str(sentence)
    return "" if len(kept) > 1 else f"Kept is epoch {min(kept)} alone; python -m train --keep-epochs 1 2 5 keeps more."


def evolving(setting):
    """Figure 4, and how far each layer still goes in the middle of training."""
    per_class = setting.of(20, 100, 0)
    words = "evolution", "--units=random:4", f"--limit-per-class={per_class}"
    (found,), figures = setting.look("fig4", *words)
    epochs, layers = found.epochs.tolist(), list(found.units)
    step = min(range(len(epochs) - 1), key=lambda k: abs(epochs[k] - epochs[-1]/4))
    span = f"from epoch {epochs[step]} to {epochs[step + 1]} of {epochs[-1]}"
    change, first = {layer: found.changes[layer][step] for layer in layers}, layers[0]
    own = by_own_weights(setting, found, step, setting.asked("fig4", *words))
    numbers = [number(f"{layer}: change of its projections {span}", change[layer], "1 - cosine", of="units")
               for layer in layers]
    numbers += [of_two_groups(f"{layer} still changes more than {first} {span}", change[layer], change[first], "1 - cosine",
                              "layers 1, 2 settle in a few epochs, 4, 5 only after 40 to 50 of 70") for layer in layers[1:]]
    numbers += [number(f"{layer} (control): where its own weights alone change so", own[layer], "1 - cosine", of="units")
                for layer in layers]
    numbers += [of_two_groups(f"{layer} still changes more than {first} by its own weights", own[layer], own[first], "1 - cosine")
                for layer in layers[1:]]
    numbers += [Number(f"{layer} (control): between units that have nothing to do with each other",
                       float(found.unrelated[layer][0]), unit="1 - cosine", rule="a mean over pairs of units, without a spread")
                for layer in dict.fromkeys((first, layers[-1]))]
    looked = f", {per_class} pictures of each class" if per_class else ""
    return Outcome("fig4", tuple(numbers), shown(figures,
                                                 "The strongest projection of a unit after the kept epochs; below, how "
                                                          "much projections change from one to the next."),
                   f"{setting.about()} Here the training part, as in the paper{looked}. All units that fire; the step of the "
                   f"kept "
                   "epochs that begins nearest to a quarter of the training is judged. The control: of the network after that "
                   "step one layer has the weights of before, so that what moves is not what lies below it.",
                   took={"pictures": found.total*len(epochs)})


def by_own_weights(setting, found, step, args):
    """{layer: (D,) changes}, the control of figure 4: how far the projections of the epoch after `step` are from those of the same
    network with this one layer as it was before the step. An upper layer sees the changes of all below it, and so may change
    more than a lower one though it has settled. args: of the command that found it, whose pass is read again."""
    files, layers, control = growing.kept_epochs(setting.run), list(found.units), {}
    earlier, later = (opened(files[epoch], setting.device) for epoch in found.epochs[step:step + 2].tolist())
    pictures = open_pictures(args, setting.model)
    file = top.pass_file(setting.folder("fig4")/f"strongest_{later.epoch:04}.h5", later, pictures, layers, 1, args.batch_size)
    passed = top.top_activations(later, pictures, layers, 1, batch_size=args.batch_size, file=file)
    for layer in layers:
        network = later.network.copy()
        network[layer].parameters = earlier.network[layer].parameters
        control[layer] = growing.changes_since(replace(later, network=network), later, pictures, passed, layer)
    return control


# ------------------------------------------------------------------------------------------------------------- figure 5
def moving(setting):
    """Figure 5, beside the untrained network."""
    count = setting.of(8, 50, 200)
    against = ["--against=untrained"] if setting.model.start is not None else []
    found, figures = setting.look("fig5", "invariance", f"--pictures=random:{min(count, len(setting.pictures))}", *against)
    tables = [moved.columns(one) for one in found]
    layers, table, numbers = found[0].layers.tolist(), tables[0], []
    low, high = layers[0], layers[-1]
    for series, words in (("translation", "shift"), ("scale", "zoom")):
        rise = {layer: 100*table[series][f"{layer} early rise"] for layer in (low, high)}
        printed = {low: "about half its plateau within 8 of 63 pixels"} if series == "translation" else {}
        numbers += [number(f"{layer}: of its largest distance after an eighth of the {words}", rise[layer], "%",
                           printed.get(layer, "")) for layer in rise]
        if low != high:
            numbers.append(paired(f"{low} leaves a picture sooner than {high}: {words}", rise[low] - rise[high], "points",
                                  "layer 1 abruptly, layer 7 quasi-linearly"))
            numbers.append(paired(f"{high} goes in a line, an eighth of its way after an eighth of the {words}",
                                  rise[high] - 100/8, "points", "layer 7 quasi-linearly", little=True))
        if against:
            before = 100*tables[1][series][f"{high} early rise"]
            numbers.append(number(f"{high}, untrained (control): after an eighth of the {words}", before, "%"))
            numbers.append(paired(f"that {high} goes so gradually was learned: {words}", before - rise[high], "points"))
    kept = {series: 100*of["consistency"] for series, of in table.items()}
    words = {"translation": "shifts", "scale": "zooms", "rotation": "turns"}
    numbers += [number(f"the same class at this share of the {words[series]}", kept[series], "%") for series in words]
    numbers += [paired(f"the class is more stable to {words[series]} than to turns", kept[series] - kept["rotation"], "points",
                       "stable to shifts and zooms, not to turns") for series in ("translation", "scale")]
    words = f"pictures shifted, enlarged and turned; how far that takes {low} and {high} from the picture, and P(true class)."
    whose = "The run", "Untrained, the control"
    return Outcome("fig5", tuple(numbers), tuple(Picture(path.name, f"{of}: {words}") for of, path in zip(whose, figures)),
                   f"{setting.about()} {plural(len(found[0].labels), 'random picture')}, 127 or 128 steps of each series; "
                   f"distances relative "
                   "to the clean picture's features." + ("" if against else " " + NO_START),
                   took={"pictures": sum(len(one.labels)*sum(map(len, one.steps.values())) for one in found)})


# ------------------------------------------------------------------------------------------------------------- figure 7
def hiding(setting):
    """Figure 7: where P falls and where the strongest map's sum does, beside other pictures' boxes and projections."""
    count = min(setting.of(24, 60, 200), len(setting.pictures))
    found, figures = setting.look("fig7", "occlusion", f"--pictures=random:{count}")
    clean, lowest, lost, wrong, follows = (np.concatenate(each) for each in zip(*(
        (one.clean_probabilities, one.probabilities.min(axis=(1, 2)), occluding.share_lost(one),
         one.clean_classes != one.labels, occluding.correlation_with_projection(one)) for one in found)))
    others = occluding.correlation_with_other_projections(found) if count > 1 else np.full(count, np.nan)
    numbers = [number("P(true class) of the clean picture", 100*clean, "%"),
               number("P(true class) at the worst place of the square", 100*lowest, "%"),
               number("places at which another class wins", 100*lost, "%", "2 and 15 % in two pictures"),
               number("clean pictures in which another class wins", 100*wrong, "%"),
               number("correlation of the map's fall with its own projection", follows),
               number("with the projection of another picture (control)", others),
               paired("the strongest map's sum falls where its projection lies", follows - others, "correlation", "section 4.2",
                      "pictures, less another picture's projection")]
    control = [untrained_occlusion(setting, one) for one in found] if setting.model.start is not None else []
    if control and count > 1:
        before = np.concatenate([occluding.correlation_with_projection(one) for one in control])
        numbers += [number("untrained (control): with its own projection", before),
                    learned("that the sum falls there", follows - others,
                            before - occluding.correlation_with_other_projections(control), "correlation")]
    hidden = dict(what="P falls where the object is hidden", paper="hiding the object drops P (section 4.2)")
    if found[0].boxes is None:
        numbers.append(Number(**hidden, here=None, rule=NO_BOXES, verdict=VERDICTS[3]))
    else:
        inside, area = 100*np.concatenate([occluding.fall_inside_box(one) for one in found], axis=1)
        elsewhere = 100*occluding.fall_inside_other_boxes(found) if count > 1 else np.full(count, np.nan)
        numbers += [number("of the fall of P inside the object's box", inside, "%"), number("of the area, the box", area, "%"),
                    number("of the fall inside the boxes of other pictures (control)", elsewhere, "%"),
                    paired(**hidden, differences=inside - elsewhere, unit="points", of="pictures, less other pictures' boxes")]
        if control and count > 1:
            before = 100*np.concatenate([occluding.fall_inside_box(one)[0] for one in control])
            numbers += [number("untrained (control): of the fall inside the object's box", before, "%"),
                        learned("that P falls there", inside - elsewhere,
                                before - 100*occluding.fall_inside_other_boxes(control), "points")]
    places = found[0].sums[0].size
    return Outcome("fig7", tuple(numbers), shown(figures,
                                                 "A grey square slides over the picture: (b) the strongest map's sum, (c) "
                                                          "its projections, (d) P(true class), (e) the most probable class."),
                   f"{setting.about()} {plural(count, 'random picture')}, the square {found[0].size} pixels wide, moved by "
                   f"{found[0].stride}: {places} places.", took={"pictures": count*places*(2 if control else 1)})


def untrained_occlusion(setting, found):
    """The Occlusion of the untrained network, the control, on the pictures and about the classes of one of the run."""
    border = [((whole - seen)//2, -(-(whole - seen)//2))                  # around the centre crop; it is cut off again
              for whole, seen in zip(setting.model.mean.shape[1:], found.pictures.shape[1:3])]
    pictures = np.pad(found.pictures, ((0, 0), *border, (0, 0)))
    with Bar(found.sums.size, "place", "fig7, untrained") as bar:
        control = occluding.occlusion(setting.model.untrained(), pictures, found.labels, layer=found.layer,
                                      size=found.size, stride=found.stride, grey=found.grey, criterion=found.criterion, bar=bar)
    return replace(control, boxes=found.boxes)


# --------------------------------------------------------------------------------------------------- figure 8 and table 1
TABLE1 = {("right eye", 0): "0.067 ± 0.007", ("left eye", 0): "0.069 ± 0.007", ("nose", 0): "0.079 ± 0.017",
          ("random", 0): "0.107 ± 0.017", ("right eye", 1): "0.069 ± 0.015", ("left eye", 1): "0.068 ± 0.013",
          ("nose", 1): "0.069 ± 0.011", ("random", 1): "0.073 ± 0.014"}       # (hidden, layer 5 or 7)


def no_landmarks(setting):
    if setting.options.get("landmarks") or setting.drawn and FACE in setting.model.classes:
        return ""
    return ("Where the parts of the objects are is not known of these pictures. --landmarks FILE.json says it: "
            '{"picture.jpg": {"nose": [x, y], ...}, ...}, COCO keypoints or VIA, the pictures beside it.')


def landmarked(marks):
    """Paths of the pictures whose parts a file of landmarks, or a folder of such files, says. Raises Expected unless these are
    landmarks of pictures that can be compared and that all lie beside the file, or in the folder."""
    folder, parts = marks if marks.is_dir() else marks.parent, read_landmarks(marks)
    if len(parts) < 2:
        raise Expected(f"--landmarks {marks}", "the parts of two pictures or more, to compare",
                       f"those of {len(parts) or 'none'}")
    paths = {name: os.path.join(folder, name) for name in parts}           # "./-1.jpg": no option
    missing = [name for name, path in paths.items() if not os.path.isfile(path)]
    if missing:
        raise Expected(f"--landmarks {marks}", f"its {plural(len(parts), 'picture')} in {folder.absolute()}",
                       f"{len(missing)} missing: {', '.join(missing[:3])}{', ...' if missing[3:] else ''}",
                       "copy the landmarks to where the pictures lie, or the pictures there; or remove the entries of those "
                       "that are missing")
    alike.common_parts(parts)
    return list(paths.values())


def corresponding(setting):
    """Figure 8 and table 1, with both controls."""
    marks = setting.options.get("landmarks")
    if marks:
        words = [f"--landmarks={marks}", "--images", *landmarked(marks)]
    else:
        words = [f"--synthetic={setting.of(40, 60, 60)}", f"--label={FACE}"]
    (found,), figures = setting.look("table1", "correspondence", *words)
    control = untrained_correspondence(setting, found) if setting.model.start is not None else None
    numbers = []
    for k, layer in enumerate(found.layers.tolist()):
        rows = dict(found.rows())
        numbers += [Number(f"{layer}, {what} hidden: mean sign change", of[k][0], unit="per feature and pair",
                           paper=TABLE1.get((what, k), ""), rule=f"± {of[k][1]:.3f} over the pairs")
                    for what, of in rows.items()]
        numbers += [of_part(found, k, j, layer, part) for j, part in enumerate(found.parts.tolist())]
        numbers.append(of_common_place(found, k, layer))
        if control is not None:
            numbers.append(of_untrained(found, control, k, layer))
    if len(found.layers) == 2:
        numbers.append(shrinking(found))
    return Outcome("table1", tuple(numbers), shown(figures, "Figure 8: the pictures with a part, or a random place, hidden."),
                   f"{setting.about()} {plural(len(found.pictures), 'picture')} with their parts, a square of {found.side} "
                   f"pixels, {found.random.shape[1]} random places a picture. Controls: these, the part's places in other "
                   f"pictures, and the untrained network, in which parts may be ahead too: like pixels hidden at like places "
                   "change any network alike." + ("" if control is not None else " " + NO_START),
                   took={"pictures": (1 if control is None else 2)*alike.length(len(found.pictures), len(found.parts),
                                                                               found.random.shape[1])})


def untrained_correspondence(setting, found):
    """The Correspondence of the untrained network, the control, with the squares of one of the run."""
    places = found.corners[:, :len(found.parts), ::-1] + found.side/2                         # row, column -> x, y of the middle
    with Bar(alike.length(*places.shape[:2], found.random.shape[1]), "picture", "table1, untrained") as bar:
        return alike.correspondence(setting.model.untrained(), found.pictures, places, found.parts.tolist(),
                                    layers=found.layers.tolist(), random=found.random.shape[1],
                                    permutations=found.permutations, grey=found.grey, side=found.side, seed=setting.seed,
                                    bar=bar)


def of_untrained(found, control, k, layer):
    """The Number of the claim that parts are ahead of other pictures' places of them by more than in the untrained network."""
    n = len(found.pictures)
    first, second = np.triu_indices(n, 1)
    ahead = [(of.lent[k].mean(axis=1) - of.scores[k]).mean(axis=0) for of in (found, control)]               # (m,) of pairs
    return with_jackknife(f"{layer}, parts: ahead of other pictures' places of them by more than before training",
                          lambda kept: (ahead[0] - ahead[1])[kept[first] & kept[second]].mean(), n, "sign change", "",
                          f"95 % interval (jackknife over {plural(n, 'picture')}), less the untrained network's", by_interval)


def of_part(found, k, j, layer, part):
    """The Number of the claim that hiding a part changes signs more alike than both controls do; its interval from the
    jackknife over pictures, its verdict from the permutations."""
    n, corrected = len(found.pictures), found.corrected[k, j]
    first, second = np.triu_indices(n, 1)
    ahead = lambda kept: (found.random[k].mean(axis=0) - found.scores[k, j])[kept[first] & kept[second]].mean()
    rule = (f"agrees: both p < 0.05, corrected for {found.corrected.size} tests (p {corrected[0]:.2g}, {corrected[1]:.2g}; "
            f"{found.permutations} permutations); does not: the interval (jackknife over {plural(n, 'picture')}) lies below 0")
    what = f"{layer}, {part}: more alike than random places, and than other pictures' places of it"
    if lacks := found.lacking():
        rule = f"{lacks}; {rule}"
    return with_jackknife(what, ahead, n, "sign change", "lower than random (section 4.3)", rule,
                          lambda low, high: VERDICTS[0] if (corrected < 0.05).all() and not lacks else VERDICTS[1] if high < 0
                          else VERDICTS[3] if lacks else VERDICTS[2])


def of_common_place(found, k, layer):
    """The Number of the claim that hiding the parts changes signs more alike than hiding one place, the same in all pictures,
    does: a control that the paper lacks, as a part of faces that are aligned is at nearly one place too."""
    n = len(found.pictures)
    first, second = np.triu_indices(n, 1)
    ahead = lambda kept: (found.common[k].mean(axis=0) - found.scores[k].mean(axis=0))[kept[first] & kept[second]].mean()
    return with_jackknife(f"{layer}, parts: more alike than one random place, the same in all pictures", ahead, n,
                          "sign change", "", f"95 % interval (jackknife over {plural(n, 'picture')})", by_interval)


def by_interval(low, high):
    return VERDICTS[0] if low > 0 else VERDICTS[1] if high < 0 else VERDICTS[2]


def shrinking(found):
    """The Number of the claim that parts are ahead of random places by less in the upper layer than in the lower one."""
    n = len(found.pictures)
    first, second = np.triu_indices(n, 1)

    def lead(kept):
        pairs = kept[first] & kept[second]
        of = [1 - found.scores[k][:, pairs].mean()/(found.random[k][:, pairs].mean() or np.nan) for k in range(2)]
        return 100*(of[0] - of[1])

    lower, upper = found.layers.tolist()
    claim = with_jackknife(f"what parts are ahead by shrinks from {lower} to {upper}", lead, n, "points",
                           "0.107 - 0.072 at layer 5, 0.073 - 0.069 at layer 7: 33 and 6 %",
                           f"95 % interval (jackknife over {plural(n, 'picture')}) of the lead in % of random", by_interval)
    return claim if claim.verdict != VERDICTS[3] else replace(
        claim, rule=f"hiding random places changes the signs of {lower} or {upper} alike in all of these pictures, or in all "
                    "but one: of nothing no lead can be told")


def with_jackknife(what, statistic, n, unit, paper, rule, judge):
    """The Number of a `statistic` of n pictures; `judge(low, high)` is the verdict by its interval, which three or fewer
    lack."""
    if n < 4:
        value, low, high = float(statistic(np.ones(n, bool))), None, None
        return Number(what, value, low, high, unit, paper, f"{rule}; fewer than four pictures", judge(-np.inf, np.inf))
    mean, half = jackknife(statistic, n)
    return Number(what, mean, mean - half, mean + half, unit, paper, rule, judge(mean - half, mean + half))


# -------------------------------------------------------------------------------------------------------- sanity checks
CONTROLS = "another unit", "untrained", "weights of the start"            # beside which the energy in the object is judged
NAMED = {"another unit": "another unit's projection", "untrained": "the untrained network",
         "other switches": "another picture's switches", "weights of the start": "the start's weights on the way down"}


def sanity(setting):
    """Sanity checks: what projections owe to what was learned."""
    layer = checks.last_convolution(setting.model.network)
    units, limit = setting.of("random:32", "all", "all"), setting.of(50, 0, 0)
    (found,), figures = setting.look("sanity", "sanity-checks", f"--layers={layer}", f"--units={units}", "--k=1",
                                     f"--limit-per-class={limit}")
    at, of = {name: j for j, name in enumerate(found.conditions.tolist())}, "projections"
    numbers = []
    if found.inside is not None:
        numbers = [number("energy in the object's box, as trained", 100*found.inside[:, 0], "%", of=of, groups=found.pictures),
                   number("of the field, the object's box", 100*found.area, "%", of=of, groups=found.pictures)]
    for name in (found.conditions.tolist()[1], *(name for name in (*CONTROLS, "other switches") if name in at)):
        called = NAMED.get(name, f"{name} in random order")
        numbers.append(number(f"likeness to the projection with {called}", found.cosine[:, at[name]], "cosine", of=of,
                              groups=found.pictures))
    for name in (name for name in CONTROLS if name in at):
        for values, where in ((found.inside, "energy in the object's box"), (found.in_parts, "of that, in the object's parts")):
            claim = f"{where}: more than {NAMED[name]}"
            if values is None:
                numbers.append(Number(claim, None, rule=NO_BOXES, verdict=VERDICTS[3]))
                continue
            control = 100*values[:, at[name]]
            numbers += [number(f"{where}, {NAMED[name]} (control)", control, "%", of=of, groups=found.pictures),
                        paired(claim, 100*values[:, 0] - control, "points", of=of, groups=found.pictures)]
    return Outcome("sanity", tuple(numbers), shown(figures, "The same projection with one thing replaced."),
                   f"{setting.about()} {len(found.units)} projections from {layer}, each unit with its strongest picture "
                   "(Adebayo et al. 2018)." + ("" if "untrained" in at else " " + NO_START),
                   took={"pictures": len(found.units)*len(at)})


# ---------------------------------------------------------------------------------------------------------------- items
def no_convolution(setting):
    return "" if setting.model.network.convolutions else f"{setting.model.name} has no convolution, whose maps could be shown."


def no_other_unit(setting):
    """Sentence why there can be no sanity checks, "" where there can."""
    if lacks := no_convolution(setting):
        return lacks
    try:
        checks.check_possible(setting.model.network, checks.last_convolution(setting.model.network))
    except Expected as sentence:
        return str(sentence)
    return ""


def seconds_of(passes=0.0, projections=0, seen=0):
    """About how long: `passes` over the validation pictures, so many projections, so many pictures; functions of a setting."""
    def seconds(setting, speed):
        projected, looked = (of(setting) if callable(of) else of for of in (projections, seen))
        return 4 + (passes*len(setting.pictures) + looked)*speed.look + projected*speed.project
    return seconds


GENERAL = "one network, so nothing about training in general"
ONE = {"minutes": f"few pictures: small differences stay undecided; {GENERAL}", "hours": GENERAL, "paper": GENERAL}
ITEMS = (
    Item("fig2", "Which pictures excite a unit most, and what in them?", "4, figure 2",
         "The nine strongest pictures of a map show one thing, ever more of one class from layer 2 to 5.", strongest,
         seconds_of(3, projections=lambda setting: 2*9*60*setting.of(1, 2, 4)), no_convolution, unsettled=ONE),
    Item("fig4", "How do they come about?", "4, figure 4", "Low layers settle in a few epochs, upper ones only after 40 to 50.",
         evolving, seconds_of(seen=lambda setting: 8*len(setting.model.classes)*setting.of(20, 100, 400), projections=10*300),
         no_epochs, unsettled=ONE),
    Item("fig5", "How far may a picture move?", "4, figure 5",
         "Small shifts take layer 1 far away, layer 7 only quasi-linearly; "
         "the class is stable to shifts and zooms, not to turns.", moving,
         # sampling costs as much again
         seconds_of(seen=lambda setting: 2*2*383*setting.of(8, 50, 200)), unsettled=ONE),
    Item("fig7", "What does it rely on?", "4.2, figure 7", "Hiding the object drops P(true class), and the strongest map's sum "
         "falls where its projection lies.", hiding, seconds_of(1, seen=lambda setting: 2*300*setting.of(24, 60, 200)),
         unsettled=ONE),
    Item("table1", "Do the same parts of different objects correspond? Figure 8, table 1", "4.3, figure 8, table 1",
         "Hiding the same part changes features more alike than hiding random places does, at layer 5 more so than at layer 7.",
         corresponding, seconds_of(seen=lambda setting: 2*90*setting.of(40, 60, 60)), no_landmarks, ("landmarks",), ONE),
    Item("sanity", "Do projections depend on what was learned?", "Adebayo et al. 2018", "", sanity,
         seconds_of(0.5, projections=lambda setting: 20*setting.of(32, 256, 256)), no_other_unit, unsettled=ONE),
)
