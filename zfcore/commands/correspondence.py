"""Floor 7: figure 8 and table 1."""
from pathlib import Path

import numpy as np

from zfcore import check, plots
from zfcore.analysis import correspondence as alike
from zfcore.analysis import top_activations as top
from zfcore.checkpoint import atomic, write_csv
from zfcore.commands.common import (GREY, PIXELS, class_numbers, images_of, open_files, open_model, open_pictures, option,
                                    originals, output_folder)
from zfcore.data import OBJECTS, is_drawn
from zfcore.data.landmarks import read_landmarks
from zfcore.terminal import Bar, in_table, plural, printable
from zfcore.trained import check_different

HELP = "figure 8 and table 1: whether hiding the same part of different objects changes the features alike"
OPTIONS = [
    option("--run", action="append", help="a run's folder (its best.h5) or a checkpoint file; given several times, the table "
                                          "says in how many networks a part is found"),
    option("--seeds", type=check.whole_number(1, 1000), default=1, metavar="N",
           help="draw the controls N times, with seeds from --seed on"),
    option("--images", nargs="+", metavar="FILE", help="pictures to look at, and where their parts are:"),
    option("--landmarks", metavar="FILE.json", help='{"picture.jpg": {"nose": [x, y], ...}, ...}, in pixels of each picture, '
                                                    'COCO keypoints, '
                                                       "VIA or a folder of LabelMe files"),
    option("--synthetic", type=check.whole_number(2, 100_000), metavar="N",
           help="or N pictures of the synthetic set whose parts are all to be seen"),
    option("--label", metavar="NAME", default="dog face", help="the class of --synthetic"),
    option("--parts", nargs="+", metavar="NAME", help="parts to mask (default: those that all pictures have; of the synthetic "
                                                      "set the eyes and the nose)"),
    option("--layers", nargs="+", help="default: the last convolution and the last layer with a ReLU behind it"),
    option("--random", type=check.whole_number(1, 10_000), default=20, metavar="N", help="random squares a picture"),
    option("--permutations", type=check.whole_number(1, 10**6), default=9999, help="of the test against the random squares"),
    option("--square", type=PIXELS, help="side of the square in pixels (default: 29/101 of the input)"),
    option("--grey", type=GREY, default=top.MID_GREY, help="its pixel value, 0 to 255, before the mean is subtracted")]
RESULT, TOGETHER = alike.Correspondence, "correspondence"


def run(args):
    if (args.synthetic is None) == (args.landmarks is None):
        raise check.Expected("pictures", "either --images FILES --landmarks FILE.json or --synthetic N",
                             "neither" if args.landmarks is None else "both")
    check.positive("--seeds", args.seeds)
    opened = [masked_by(args, path) for path in args.run or [None]]
    check_different("--run", [model for model, *_ in opened])
    folder, number, count = output_folder(args), 0, len(opened)*args.seeds
    for model, shown, places, parts, names in opened:
        for seed in range(args.seed, args.seed + args.seeds):
            number += 1
            with Bar(alike.length(len(shown), len(parts), args.random), "picture", "masked pictures") as moving:
                found = alike.correspondence(model, shown, places, parts, layers=args.layers, random=args.random,
                                             permutations=args.permutations, grey=args.grey, side=args.square, seed=seed,
                                             batch_size=args.batch_size, names=names, bar=moving)
            yield folder/("correspondence.h5" if count == 1 else f"correspondence_{number}.h5"), found


def masked_by(args, path):
    """(Trained, centre crops, places of the parts in them, names of the parts, names of the pictures) of one --run."""
    model = open_model(args, path)
    gather = landmarked_files if args.synthetic is None else synthetic_faces
    pictures, numbers, places, parts = gather(args, model)
    margin = (pictures.size - model.crop)//2
    shown = images_of(pictures, numbers)[:, margin:margin + model.crop, margin:margin + model.crop]
    return model, shown, places, parts, [pictures.dataset.names[i] for i in numbers]


def landmarked_files(args, model):
    """(Pictures, their numbers, (n,P,2) places of the parts in the centre crop, names of the P parts) of --images,
    --landmarks."""
    marks = read_landmarks(args.landmarks)
    if not args.images:
        raise check.Expected("--images", "the pictures of --landmarks", "none")
    pictures = open_files(args.images, args, model)
    for name in args.images:
        if Path(name).name not in marks:
            raise check.Expected("--landmarks", f"the parts of {Path(name).name}", f"those of {', '.join(list(marks)[:5])}")
    of_pictures = {name: marks[Path(name).name] for name in args.images}
    if len(args.images) < 2:
        raise check.Expected("--images", "two pictures or more, to compare", "one")
    parts = args.parts or alike.common_parts(of_pictures)
    places = np.empty((len(of_pictures), len(parts), 2))
    for i, (name, marked) in enumerate(of_pictures.items()):
        width, height = originals(pictures.dataset, [i], model.crop, pictures.upscale)[0].shape[1::-1]
        for k, part in enumerate(parts):
            check.one_of(f"parts of {name}", part, list(marked))
            x, y = marked[part]
            if not (0 <= x < width and 0 <= y < height):
                raise check.Expected(f"{part} in {name}", f"a place inside its {width}x{height} pixels", f"{x:g}, {y:g}")
            places[i, k] = alike.in_crop((x, y), width, height, pictures.size, model.crop)
    return pictures, np.arange(len(args.images)), places, parts


def synthetic_faces(args, model):
    """Landmarks as `landmarked_files` gives them, of the first pictures of --label in the synthetic set, or the drawn one that
    --data names, that show all parts."""
    pictures = open_pictures(args, model, args.data if args.data and is_drawn(args.data) else OBJECTS)
    parts, crop = args.parts or list(alike.PARTS), model.crop
    dataset, numbers, places = pictures.dataset, [], []
    label = class_numbers([args.label], dataset.classes, 1)[0]
    if args.synthetic < 2:
        raise check.Expected("--synthetic", "two pictures or more, to compare", args.synthetic)
    for i in np.flatnonzero(dataset.labels == label):
        truth = dataset.truth(i)
        for part in parts:
            check.one_of(f"parts of a {args.label}", part, list(truth.parts))
        at = alike.in_crop([truth.parts[part] for part in parts], dataset.size, dataset.size, dataset.size, crop)
        if all(truth.visible[part] for part in parts) and ((at >= 0) & (at < crop)).all():
            numbers.append(i)
            places.append(at)
        if len(numbers) == args.synthetic:
            return pictures, np.array(numbers), np.array(places), parts
    raise check.Expected("--synthetic", f"at most {len(numbers)}, the pictures of a {args.label} that show all parts",
                         args.synthetic)


def draw(found, path):
    """The figure, and beside it Markdown and CSV, of Correspondences of the same parts and layers: figure 8, table 1 as it is
    printed and as numbers."""
    check_comparable(found)
    plots.save(plots.correspondence(found), path)
    layers, many = found[0].layers.tolist(), len(found) > 1
    tested = (f"{kind} {of}" for of in TESTED for kind in ("p", "corrected p"))
    write_csv(path.with_suffix(".csv"), (row for number, one in enumerate(found, 1) for row in table_rows(number, one)),
              "number", "masked", "layer", "mean", "spread", *tested)
    table = [["masked", *layers], ["---"]*(1 + len(layers))]
    for of in zip(*(one.rows() for one in found)):
        values = np.array([row for _, row in of])                                             # (number, layer, mean and spread)
        mean, spread = values[..., 0].mean(axis=0), values[..., 0].std(axis=0, ddof=1) if many else values[0, :, 1]
        table.append([of[0][0], *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread))])
    text = "\n".join(in_table(*row) for row in table)
    over = (f"mean and standard deviation over {len(found)} repetitions (networks times seeds)" if many else
            "± standard deviation over the pairs")
    text += (f"\n\nMean sign change per feature and pair of {plural(len(found[0].pictures), 'picture')}, {over}; low: alike in "
             f"all. \"of another picture\": the square lies where the part is in another "
             f"picture.\n\n{what_was_tested(found)}\n")
    with atomic(path.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return "\n".join([printable(path.with_suffix(".md")), printable(path), text[text.index("Mean"):].strip()])


TESTED = "lower than random", "lower than of another picture"


def check_comparable(found):
    for one in found[1:]:
        for what in ("parts", "layers"):
            if (theirs := getattr(one, what).tolist()) != (first := getattr(found[0], what).tolist()):
                raise check.Expected(what, f"the same in all networks, {', '.join(first)}", ", ".join(theirs))


def table_rows(number, found):
    """The rows of one Correspondence in the csv; what is not a part has no p."""
    p = {part: np.stack([found.p_values[:, k], found.corrected[:, k]], axis=2) for k, part in enumerate(found.parts.tolist())}
    return [[number, what, layer, f"{mean:.6g}", f"{spread:.6g}",
             *(f"{value:.6g}" for value in p[what][k].ravel())] if what in p else
            [number, what, layer, f"{mean:.6g}", f"{spread:.6g}", *[""]*4]
            for what, of in found.rows() for k, (layer, (mean, spread)) in enumerate(zip(found.layers.tolist(), of))]


def what_was_tested(found, level=0.05):
    """A table of the corrected p, and of each layer which parts are found: lower than both controls, after correction."""
    p = np.array([one.corrected for one in found])                                            # (number, layer, part, test)
    layers, parts = found[0].layers.tolist(), [printable(part) for part in found[0].parts.tolist()]
    agree = (p < level).sum(axis=0)
    cell = lambda k, j, t: (f"{p[0, k, j, t]:.2g}" if len(found) == 1 else
                            f"{agree[k, j, t]} of {len(found)} (median {np.median(p[:, k, j, t]):.2g})")
    table = [["corrected p" if len(found) == 1 else f"corrected p below {level:g}",
              *(f"{layer}, {of}" for layer in layers for of in TESTED)]]
    table += [["---"]*len(table[0])]
    table += [[part, *(cell(k, j, t) for k in range(len(layers)) for t in range(2))] for j, part in enumerate(parts)]
    said = []
    for k, layer in enumerate(layers):
        both = (p[:, k] < level).all(axis=2).sum(axis=0)
        told = [part if len(found) == 1 else f"{part} in {both[j]} of {len(found)}" for j, part in enumerate(parts) if both[j]]
        said.append(f"{layer}: " + (f"hiding {', '.join(told)} changes the signs more alike than both hiding random places and "
                                    "hiding the place of another picture's part" if told else
                                    "no part changes the signs more alike than both controls"))
    if lacks := found[0].lacking(level):
        said = [lacks]
    elif (p < level).all(axis=3).any():
        said.append("an untrained network may pass this too: python -m train.reproduce table1 says what was learned")
    return ("\n".join(in_table(*row) for row in table) +
            f"\n\np corrected for {p[0].size} tests (Holm; {found[0].permutations} permutations each; the least possible is "
            f"{found[0].least():.2g}), a part being found below {level:g}. {'; '.join(said)}.")
