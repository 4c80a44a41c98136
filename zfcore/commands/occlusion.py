"""Floor 7: figure 7."""
from dataclasses import replace

import numpy as np

from zfcore import plots
from zfcore.analysis import occlusion as occluding
from zfcore.analysis import top_activations as top
from zfcore.commands.common import (GREY, PIXELS, LABEL, asked_for, images_of, labels_of, open_files, open_model, open_pictures,
                                    option, output_folder)
from zfcore.terminal import Bar, percent, plural, printable

HELP = "figure 7: what of a picture the network relies on, told by a grey square that hides it"
OPTIONS = [
    option("--images", nargs="+", metavar="FILE", help="pictures to look at"),
    option("--pictures", metavar="NUMBERS", help="or pictures of the data: all, random:N, FIRST:LAST+1 or 3,5,7; of the "
                                                 "synthetic set the objects' boxes are known too"),
    LABEL,
    option("--layer", help="the layer whose strongest map is followed (default: the last convolution)"),
    option("--criterion", choices=tuple(occluding.CRITERIA), default="max",
           help="what makes a map the strongest: its largest activation (max, the default) or the sum of all of them"),
    option("--square", type=PIXELS, help="side of the square in pixels (default: 50 of 224)"),
    option("--stride", type=PIXELS, help="pixels by which it moves (default: 6 of 224)"),
    option("--grey", type=GREY, default=top.MID_GREY, help="its pixel value, 0 to 255, before the mean is subtracted"),
    option("--others", nargs="*", metavar="FILE", help="pictures among which up to three that excite the map most are shown "
                                                       "beside (default: the data, in one pass that is kept; none given: none)"),
    option("--whole", action="store_true", help="compute every layer as a whole at every place, to compare")]
RESULT, TOGETHER = occluding.Occlusion, None
ROWS, OTHERS = 4, 3               # pictures that share a file and a sheet; others whose projections stand beside


def run(args):
    model = open_model(args)
    pictures, numbers = asked_for(args, model)
    labels = labels_of(args, pictures.dataset, numbers, model.classes)
    square = occluding.check_square(model.network, args.layer, args.square, args.stride, args.grey)
    shown = images_of(pictures, numbers)
    folder = output_folder(args)
    views_of_others = strongest_others(args, model, square.layer, folder)
    with Bar(square.places*len(numbers), "place", "occlusion") as moving:
        for number, at in enumerate(range(0, len(numbers), ROWS), 1):
            page = slice(at, at + ROWS)
            found = occluding.occlusion(model, shown[page], None if labels is None else labels[page], layer=square.layer,
                                        size=square.size, stride=square.stride, grey=square.grey, criterion=args.criterion,
                                        batch_size=args.batch_size, incremental=not args.whole, bar=moving)
            yield (folder/("occlusion.h5" if len(numbers) <= ROWS else f"occlusion_{number:02}.h5"),
                   replace(found, names=np.array([pictures.dataset.names[i] for i in numbers[page]]),
                           classes=np.array(model.classes), boxes=true_boxes(pictures, numbers[page], model.crop),
                           others=views_of_others(found.units, numbers[page])))


def strongest_others(args, model, layer, folder):
    """A function of (units of `layer`, numbers of the pictures they were followed in) that gives for each unit the views
    (n,m,f,f,3) of the pictures of --others, or of the data, that excite it most, its own picture left out; None for none."""
    of_data = args.others is None
    # of a network from elsewhere there are none
    if args.others == [] or of_data and args.data is None and model.data is None:
        return lambda units, own: None
    if of_data:
        pictures = open_pictures(args, model)
        file = top.pass_file(folder/f"strongest_{layer}.h5", model, pictures, [layer], OTHERS + 1, args.batch_size)
    else:
        pictures, file = open_files(args.others, args, model, "--others"), None
        images_of(pictures, range(len(pictures)))
    same_set, count = of_data and args.pictures is not None, min(OTHERS, len(pictures))
    with Bar(len(pictures), "picture", "strongest pictures") as moving:
        found = top.top_activations(model, pictures, [layer], OTHERS + 1, batch_size=args.batch_size, file=file, bar=moving)

    def views(units, own):
        all_views = top.views_of(model, pictures, found, layer, units)
        other = [np.flatnonzero(of_unit != i)[:count] if same_set else np.arange(count)
                 for of_unit, i in zip(all_views.pictures, own)]
        return np.take_along_axis(all_views.projections, np.array(other)[..., None, None, None], axis=1)
    return views


def true_boxes(pictures, numbers, side):
    """(n,4) top, left, bottom, right of the objects in the centre crop of `side` pixels; None where the data do not tell."""
    if not hasattr(pictures.dataset, "truth"):
        return None
    boxes = np.array([pictures.dataset.truth(i).box for i in numbers])[:, [1, 0, 3, 2]]
    return (boxes - (pictures.size - side)//2).clip(0, side)


def draw(found, path):
    plots.save(plots.occlusion(found), path)
    return printable(path)


def closing(args, found):
    """One sentence about all pictures; numbers are means over them."""
    clean, lowest, lost, wrong, follows = (np.concatenate(each) for each in zip(*(
        (one.clean_probabilities, one.probabilities.min(axis=(1, 2)), occluding.share_lost(one),
         one.clean_classes != one.labels, occluding.correlation_with_projection(one)) for one in found)))
    who = printable(found[0].names[0]) if len(clean) == 1 else f"over {plural(len(clean), 'picture')}"
    said = (f"{who}: the square takes P of the class from {clean.mean():.2f} to {lowest.mean():.2f} at its worst place, and "
            f"another class wins at {percent(lost.mean())} of the places")
    if wrong.any():
        said += f", as it does without the square{f' in {wrong.sum()} of them' if len(wrong) > 1 else ''}"
    if found[0].boxes is not None:
        inside, area = np.concatenate([occluding.fall_inside_box(one) for one in found], axis=1)
        if not np.isnan(inside).all():
            said += (f"; {100*np.nanmean(inside):.0f} % of the fall lies inside the object's box, which is "
                     f"{100*np.nanmean(area):.0f} % of the picture")
            if len(inside) > 1:
                said += f" ({100*np.nanmean(occluding.fall_inside_other_boxes(found)):.0f} % inside the boxes of the other pictures)"
    silent, known = np.concatenate([occluding.silent(one) for one in found]), np.isfinite(follows)
    if known.any():
        said += (f"; how far the strongest {found[0].layer} map falls follows its projection with a correlation of "
                 f"{follows[known].mean():.2f}{'' if known.all() else f', over the {known.sum()} in which it does fall'}")
    if silent.any():
        said += f"; no {found[0].layer} map fires{f' in {silent.sum()} of them' if len(silent) > 1 else ''}"
    return said
