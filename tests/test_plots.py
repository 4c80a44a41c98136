"""Sheets and settings: what is drawn stays inside its page, and drawing leaves no trace in matplotlib."""
import inspect
import threading
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from zfcore import plots
from zfcore.check import Expected
from zfcore.analysis.correspondence import Correspondence
from zfcore.analysis.diagnostics import EDGES, Diagnosis
from zfcore.analysis.evolution import Evolution
from zfcore.analysis.invariance import Invariance
from zfcore.analysis.occlusion import Occlusion
from zfcore.analysis.sanity_checks import SanityChecks
from zfcore.analysis.top_activations import UnitViews
from zfcore.deconvnet import Projection
from zfcore.plots import LARGE, Sheet


def page(width, height):
    """A sheet with a picture, two lines of text and a panel."""
    sheet, rng = Sheet(width, height), np.random.default_rng(0)
    sheet.picture(7, 11, rng.random((5, 9, 3)))
    sheet.text(40, 20, ["one $line", "another"], size=LARGE)
    sheet.panel(90, 12, 60, 50, lambda axes: axes.plot([0, 1], [1, 3]))
    return sheet


def test_a_sheet_put_on_another_is_drawn_the_same_at_its_new_place(tmp_path):
    alone, larger = page(170, 90), Sheet(230, 140)
    larger.put(alone, 23, 31)
    for sheet, name in ((alone, "alone"), (larger, "larger")):
        plots.save(sheet, tmp_path/f"{name}.png")
    one, other = (np.asarray(Image.open(tmp_path/f"{name}.png")) for name in ("alone", "larger"))
    assert one.shape == (90, 170, 3) and other.shape == (140, 230, 3)
    np.testing.assert_array_equal(one, other[31:31 + 90, 23:23 + 170])
    np.testing.assert_array_equal(one[11:16, 7:16], np.rint(255*np.random.default_rng(0).random((5, 9, 3))))


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_vectors_have_the_same_size_and_the_same_bytes_each_time(tmp_path, kind):
    for name in ("first", "second"):
        plots.save(page(170, 90), tmp_path/f"{name}.{kind}")
    first = (tmp_path/f"first.{kind}").read_bytes()
    assert first == (tmp_path/f"second.{kind}").read_bytes()
    points = [f"{pixels*72/110:g}"[:6].encode() for pixels in (170, 90)]
    assert all(each in first[:900] for each in points) and b"20" + b"26-" not in first


def test_a_picture_among_vectors_lies_at_its_pixels(tmp_path):
    plots.save(page(170, 90), tmp_path/"page.svg")
    text = (tmp_path/"page.svg").read_text()
    start = text.index("<image")
    element = text[start:text.index(">", start)]
    numbers = [float(each) for each in element.split("matrix(")[1].split(")")[0].split()]
    np.testing.assert_allclose(np.array(numbers)*110/72, [1, 0, 0, 1, 7, 11], atol=1e-4)
    assert "pixelated" in element


def test_drawing_leaves_matplotlibs_settings_and_figures_alone(tmp_path):
    before = matplotlib.rcParams.copy()
    plots.save(plots.learning_curves({"epoch": [1, 2], "lr": [0.1, 0.01],
                                      **{f"{part}_{what}": [1.0, 0.5] for part in ("train", "val")
                                                                  for what in ("loss", "error")}}), tmp_path/"curves.png")
    plots.save(page(170, 90), tmp_path/"page.svg")
    assert matplotlib.rcParams.copy() == before
    assert Image.open(tmp_path/"curves.png").size == (880, 330)


def test_two_threads_that_draw_at_once_leave_no_trace_either():
    """Were the second to begin before the first ends, it would end last, and put back what the first had set."""
    before, first_draws, second_draws = matplotlib.rcParams.copy(), threading.Event(), threading.Event()

    @plots.styled
    def first():
        first_draws.set()
        second_draws.wait(0.3)

    @plots.styled
    def second():
        second_draws.set()
        threads[0].join()

    threads = [threading.Thread(target=draw) for draw in (first, second)]
    threads[0].start()
    first_draws.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert matplotlib.rcParams.copy() == before


@pytest.mark.parametrize("text", ["the sum of the strongest map", "0.577 → cassette_player_recorder", "n02123045_1234.JPEG", "short"])
def test_a_text_loses_no_more_of_its_middle_than_there_is_no_room_for(text):
    for width in range(20, 260, 7):
        cut = plots._fitted(text, width)
        begin, _, end = cut.partition("…")
        assert plots._length(cut) <= width and text.startswith(begin) and text.endswith(end)
        assert cut == text or plots._length(f"{text[:len(begin) + 2]}…{text[len(text) - len(end) - 1:]}") > width
        assert cut == text or -2 <= len(begin) - 2*len(end) <= 5


def test_what_tells_texts_apart_stays_where_they_are_cut():
    for names in ([f"{LONG}_{k}" for k in range(3)], [f"{k}_{LONG}" for k in range(3)]):
        assert len({plots._fitted(name, 90) for name in names}) == 3
    said = plots._fitted(LONG, 130, after=" unit 4095")
    assert plots._length(said) <= 130 and said.startswith(LONG[0]) and said.endswith(" unit 4095")


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9])
def test_a_name_has_as_many_lines_as_there_is_room_for(most):
    for name in CLASSES:
        lines = plots._fitted_lines(name, 160, most)
        assert 1 <= len(lines) <= most and all(plots._length(line) <= 160 for line in lines)
        assert most < 4 or len(name.split()) == 1 or " ".join(lines) == name


def test_classes_whose_long_names_read_alike_once_cut_keep_their_numbers():
    of = "(a freshwater fish of the carp family)"
    classes = [f"Tench, Tinca tinca {of}", f"Tench, Tinca vulgaris {of}", "owl"]
    figure = plots.confusion(np.diag([2, 3, 4]), classes, [(*classes[:2], 1, 3)], "title")
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(named)) == 3 and named[0].endswith("family) 0") and named[1].endswith("family) 1") and named[2] == "owl"


def test_both_names_of_a_confused_pair_are_begun_however_long_they_are():
    names = ["W"*24, "cassette_player_recorder", "x"*60, "a tv"]
    pairs = [(one, other, 1, 100) for one in names for other in names if one != other]
    figure = plots.confusion(np.ones((4, 4), int), names, pairs, "title")
    lines = next(text.get_text() for text in figure.texts if "most confused" in text.get_text()).split("\n")[1:]
    assert len(lines) >= 9
    for line, (one, other, *_) in zip(lines, pairs):
        _, _, said = line.partition("   ")
        assert all(name.startswith(begun[:4]) for name, begun in zip((one, other), said.split(" → "), strict=True))


def test_text_is_wrapped_into_the_width_and_no_word_is_lost():
    words = "conv5: 3 of 16 units never fire and are left out: 4, 7, 11"
    lines = plots._wrapped(words, 120)
    assert " ".join(lines) == words and len(lines) > 2 and all(plots._length(line) <= 120 for line in lines)


@pytest.mark.parametrize("count, columns", [(24, 6), (36, 6), (37, 8), (96, 8)])
def test_filters_are_large_in_six_or_eight_columns_each_to_its_own_scale(count, columns, tmp_path):
    w = np.random.default_rng(0).standard_normal((3, 7, 7, count)).astype(np.float32)
    w[..., 1] /= 1000
    plots.save(plots.filters(w), tmp_path/"filters.PNG")
    sheet, side, rim = np.asarray(Image.open(tmp_path/"filters.PNG")), 672//columns, plots.MARGIN
    assert sheet.shape[:2] == (plots.LABEL + -(-count//columns)*(side + 3) - 3 + 2*rim, columns*(side + 3) - 3 + 2*rim)
    assert sheet[rim:rim + plots.LABEL].min() < 128          # a title
    zoom, left = side//7, rim + side + 3
    top = rim + plots.LABEL
    shown = sheet[top + zoom//2:top + side:zoom, left + zoom//2:left + side:zoom]
    np.testing.assert_allclose(shown, 127.5 + 127.5*(w[..., 1]/np.abs(w[..., 1]).max()).transpose(1, 2, 0), atol=0.51)


# ------------------------------------------------------------------------------------------------- nothing beyond the edge
LONG = "features/inception_4c/relu_3x3_reduce"               # a layer as others name theirs
RUN = "20261129-061650-tiny-alexnet-half-the-rate"
CONTROLS = ["as trained", "conv5", "conv5 to conv4", "weights of the start"]


CLASSES = ["great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
           "Pneumonoultramicroscopicsilicovolcanoconiosis_"*3, "great grey owl, great gray owl, Strix nebulosa", "car"]


def bytes_of(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def floats_of(*shape):
    return np.random.default_rng(2).random(shape)


def signed_of(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def unit_views(f=9, layer="conv5"):
    """Three units: one with four pictures, one with two of four, the second of which leaves nothing, one that never fires."""
    pictures = np.array([[3, 1, 4, 0], [2, 5, -1, -1], [-1]*4])
    projections = signed_of(3, 4, f, f, 3)*(pictures >= 0)[..., None, None, None]
    projections[1, 1] = 0
    return UnitViews(layer, np.array([7, 100, 4095]), floats_of(3, 4).astype(np.float32), pictures, np.zeros((3, 4, 2), int),
                     np.zeros((3, 4, 4), int), np.full((3, 4), "a.png"), projections, bytes_of(3, 4, f, f, 3))


def strongest(layer, classes=None):
    """The one strongest picture of three units, cropped to so few pixels that there is hardly room for a name."""
    views = unit_views(43, layer)
    of_one = {name: getattr(views, name)[:, :1] for name in ("values", "places", "boxes", "names", "patches")}
    return replace(views, **of_one, projections=signed_of(3, 1, 43, 43, 3), pictures=np.array([[3], [2], [4]]),
                   classes=None if classes is None else np.array(classes))


def a_projection(n):
    return Projection(signed_of(3, 21, 13, n), floats_of(n).astype(np.float32)*1e9, np.zeros((n, 2), np.int64))


def an_evolution(layers=("conv1", LONG, "conv3"), E=4):
    """Two units of each layer over E epochs; the second of each does not fire at the first."""
    pictures = {layer: np.array([[0, *range(1, E)], [-1, *range(1, E)]]) for layer in layers}
    return Evolution(np.array([1, 2, 1000, *range(1200, 1197 + E)]), {layer: np.array([3, 4095]) for layer in layers},
                     {layer: signed_of(2, E, 5, 5, 3) for layer in layers}, {layer: floats_of(2, E) for layer in layers},
                     pictures, {layer: floats_of(E - 1) for layer in layers}, {layer: floats_of(E - 1)*1e-4 for layer in layers},
                     {layer: np.zeros(E) for layer in layers}, 60)


def of_classes():
    """The last layer's units over the epochs: that of a class whose logit is never above 0, and that of one whose is."""
    return replace(an_evolution(["fc8"]), values={"fc8": np.array([[-4, -3, -2, -1], [-4, 0, 1, 4]], np.float32)},
                   pictures={"fc8": np.zeros((2, 4), int)}, classes={"fc8": np.array(CLASSES[:2])})


def a_diagnosis(name, units=12):
    filters = signed_of(3, 7, 7, 24)
    return Diagnosis(name, filters, 4, floats_of(24), 1.5, floats_of(24, len(EDGES) - 1), EDGES,
                     {f"conv{k}": np.arange(9) < k for k in range(1, 6)} | dict.fromkeys(("fc6", LONG), np.ones(9, bool)), 60,
                     "conv2", np.arange(units), signed_of(units, 4, 11, 11, 3), bytes_of(units, 4, 11, 11, 3), -0.0078, 40)


def sanity_checks(**truth):
    return SanityChecks("conv5", np.array(CONTROLS), np.array([0, 4095]), np.arange(2), np.array(["a", "b"]),
                        bytes_of(2, 9, 9, 3), signed_of(2, 4, 9, 9, 3), floats_of(2, 4), floats_of(2, 4), **truth)


def an_occlusion():
    n, H, R = 2, 24, 4
    return Occlusion("conv5", "sum", 9, 5, 128, np.arange(R)*5, np.arange(R)*5, bytes_of(n, H, H, 3), np.array([0, 2]),
                     np.array([3, 4095]), floats_of(n)*1e5, floats_of(n), np.array([0, 2]), floats_of(n, R, R)*1e5,
                     floats_of(n, R, R), np.arange(n*R*R).reshape(n, R, R) % 11, floats_of(n, H, H) - 0.5,
                     signed_of(n, H, H, 3), signed_of(n, 9, 9, 3), names=np.array(["n02123045/" + LONG + ".JPEG", "4"]),
                     classes=np.array([f"{LONG} {k}" for k in range(11)]))


def an_invariance():
    series = {"translation": 5, "scale": 4, "rotation": 6}
    each = lambda *shape: {name: floats_of(*(steps if each is None else each for each in shape))
                           for name, steps in series.items()}
    return Invariance(np.array(["conv1", "fc7"]), np.arange(3), {name: np.linspace(0, 357, m) for name, m in series.items()},
                      dict.fromkeys(series, 0), each(3, 2, None), each(3, 2, None), each(3, 2, None), each(3, None),
                      dict.fromkeys(series), dict.fromkeys(series), dict.fromkeys(series, bytes_of(3, 8, 12, 12, 3)))


def a_correspondence():
    n, parts = 4, ["left_eye", "upper_lip_of_the_mouth"]
    return Correspondence(np.array(parts), np.array(["conv5", "fc7"]), 5, 128, bytes_of(n, 30, 30, 3), np.full((n, 6, 2), 7),
                          np.array([[1, 2, 3, 0]]*2), *(floats_of(2, 2, 6) for _ in range(3)), floats_of(2, 2, 2, 6),
                          floats_of(2, 2, 2), 100)


def history(epochs):
    return {"epoch": list(range(1, epochs + 1)), "lr": [10.0**-k for k in range(epochs)],
            **{f"{part}_{what}": floats_of(epochs) for part in ("train", "val") for what in ("loss", "error")}}


def points(*counts):
    return {n: (50.25, 1.5) for n in counts}


PAPER = {"Bo et al. 2013": points(60), "non-pretrained": points(15, 60), "ImageNet-pretrained": points(15, 60)}
OURS = "from random weights", "features of random weights", "features of the run"
COUNTS = np.diag([1000, 900, 800]) + np.eye(3, k=1, dtype=int)*77
ERRORS = [[(0.1, 96.67), (0.3, 96.33)], [(None, 95.83)], [(None, 100.0)]]
# name of a plot: what it draws, each with names as long, and as few or as many of a thing, as there may be
DRAWN = {
    "learning_curves": [(history(1),), (history(3),), (history(90),)],
    "lr_test": [([(k, 10.0**(k - 6), 2.3, 2.4) for k in range(6)], 0.01, LONG + " " + "the loss falls fastest there; "*9)],
    "step_times": [({1: 0.3, 2: 0.2}, {f"{LONG}, {k} GB/s": {1: 0.3, 1024: 0.01} for k in (1, 9)}, "a step of ZFNet; "*15)],
    "filters": [(signed_of(3, 7, 7, 1),), (signed_of(3, 7, 7, 24),), (signed_of(3, 11, 11, 96),)],
    "projections": [(a_projection(1),), (a_projection(17),)],
    "unit_blocks": [(unit_views(),), (unit_views(90),), (unit_views(3, LONG),), (strongest(LONG),),
                    (strongest(LONG, CLASSES[:3]),)],
    "occlusion": [(an_occlusion(),)],
    "invariance": [(an_invariance(),), (replace(an_invariance(), layers=np.array([f"{LONG}_1", f"{LONG}_2"])),)],
    "correspondence": [([a_correspondence()],), ([replace(a_correspondence(), layers=np.array([f"{LONG}_1", f"{LONG}_2"]))],)],
    "evolution": [(an_evolution(),), (an_evolution([f"{k}/{LONG}" for k in range(8)]),), (of_classes(),), (an_evolution(["conv1"], 30),)],
    "diagnostics": [([a_diagnosis("tiny")],), ([a_diagnosis("of no unit", 0)],),
                    ([a_diagnosis(RUN), a_diagnosis(RUN + "-2", 7)],),
                    ([replace(a_diagnosis("own"), rms=np.linspace(0.013, 0.026, 24), dead={})],),
                    ([replace(a_diagnosis("vgg16"), dead={f"conv{k // 3}_{k % 3}": np.arange(9) < 3 for k in range(15)})],)],
    "sanity_checks": [(sanity_checks(),), (sanity_checks(inside=floats_of(2, 4), area=floats_of(2), in_parts=floats_of(2, 4),
                                                         parts_area=floats_of(2)),),
                      (sanity_checks(classes=np.array(CLASSES[:2])),), (sanity_checks(classes=np.array(CLASSES[2:])),)],
    "confusion": [(COUNTS, [LONG, "car", "犬"], [(LONG, "犬", 77, 1000)]*4, "top-1 error 0.3 %, loss 0.027; "*6),
                  (np.eye(90, dtype=int), [f"{k} {LONG}" for k in range(90)], [], "no error"),
                  (np.array([[3]]), ["car"], [], "one class"), (COUNTS, CLASSES[:3], [(*CLASSES[:2], 77, 1000)], "long"),
                  (np.eye(1000, dtype=int), [f"{CLASSES[0]} {k}" for k in range(1000)], [(f"{CLASSES[0]} 1", f"{CLASSES[0]} 2", 1, 9)], "")],
    "accuracy_curve": [(PAPER, dict(zip(OURS, (points(15), {}, points(15)))), "paper", f"here: {LONG}", 3.3),
                       (PAPER, dict(zip(OURS, [points(15, 60)]*3)), "paper", "here", 3.3)],
    "accuracy_by_layer": [({"paper": {"SVM": points(1, 2, 7)}},
                           {"here": {"SVM": points(7), "softmax, untrained": points(7)}}, 9)],
    "average_precisions": [([LONG, "car", "mean"], dict.fromkeys(("the paper, test", *(f"here, {what}" for what in OURS)),
                                                               np.array([1, 100, 50.5])),
                            np.array([0.0, 100, 7]))],
    "pairs": [([(bytes_of(20, 20, 3), bytes_of(20, 20, 3))]*3, [(LONG*2, "car")]*3, f"{RUN} and\n{LONG}")],
    "captioned": [([bytes_of(20, 31, 3)]*7, [("car 100 %", LONG*2)]*7, [True, False]*4, RUN*3)],
    "beside_paper": [([LONG, "(a), all seeds", "three"], [(19.1, 40.5), (None, 38.1), (None, None)], ERRORS),
                     (list("abcdef"), [(9.9 + k, 38.0 + k) for k in range(6)], [[(0.0, 1.5 + k), (0.1, 2 + 9*k)] for k in range(6)]),
                     (list("ab"), [(None, 40.5), (None, 38.1)], [[(0.0, 0.0)], [(0.3, 100.0)]])],
}


def test_there_is_something_to_draw_for_every_plot():
    public = {name: of for name, of in vars(plots).items() if inspect.isfunction(of) and name[0] != "_"
              and inspect.unwrap(of).__module__ == plots.__name__}
    assert set(DRAWN) == {name for name, of in public.items() if of.__annotations__["return"] in (Figure, "Sheet")}


@pytest.mark.parametrize("name, number", [(name, number) for name, cases in DRAWN.items() for number in range(len(cases))])
def test_every_text_lies_within_its_figure_and_over_no_other(name, number, monkeypatch):
    boxes = []                                               # of what is drawn: ticks beyond an axis are there, and are not

    def draw(text, renderer, draw=Text.draw):
        if text.get_text():
            boxes.append((text.get_text(), text.get_window_extent(renderer).extents))
        draw(text, renderer)
    monkeypatch.setattr(Text, "draw", draw)
    drawn = getattr(plots, name)(*DRAWN[name][number])
    figure = drawn.figure() if isinstance(drawn, Sheet) else drawn
    with matplotlib.rc_context(plots.STYLE):
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    assert boxes
    beyond = [(text, box.round().tolist()) for text, box in boxes
              if min(box[:2]) < -1 or box[2] > figure.bbox.width + 1 or box[3] > figure.bbox.height + 1]
    assert not beyond, figure.bbox.size
    over = [(one, other) for k, (one, a) in enumerate(boxes) for other, b in boxes[:k]
            if one != other and min(a[2], b[2]) - max(a[0], b[0]) > 2 and min(a[3], b[3]) - max(a[1], b[1]) > 3]
    assert not over


def test_projections_stand_each_to_its_own_scale_below_their_activations():
    found = a_projection(3)
    found.pixels[..., 1] *= 1000
    sheet = plots.projections(found)
    assert words(sheet) == [f"{value:.3g}" for value in found.values]
    for n, (_, _, picture) in enumerate(sheet.pictures):
        alone = np.clip(np.rint(255*plots.signed_tiles(found.pixels[..., n].transpose(1, 2, 0)[None])[0]), 0, 255)
        np.testing.assert_array_equal(np.asarray(picture)[2::5, 2::5], alone)            # each pixel is a square of 5


@pytest.mark.parametrize("name", [name for name, of in vars(plots).items() if inspect.isfunction(of) and name[0] != "_"
                                  and any(kind in str(of.__annotations__) for kind in ("UnitViews", "analysis", "Projection"))])
def test_what_is_no_result_is_refused_by_the_plot_that_would_draw_it(name):
    for wrong in (None, np.zeros((2, 3)), "found.h5", [], [None], 3, page(9, 9)):
        with pytest.raises(Expected, match="^(found|views): expected "):
            getattr(plots, name)(wrong)


@pytest.mark.parametrize("wrong", [np.zeros((3, 4, 3)), None, Image.new("RGB", (3, 3))])
def test_what_is_no_drawing_is_not_saved(tmp_path, wrong):
    with pytest.raises(Expected, match="^drawn: expected Figure or Sheet, got "):
        plots.save(wrong, tmp_path/"a.png")
    assert not list(tmp_path.iterdir())


def words(sheet):
    return [line for _, _, line, *_ in sheet.texts]


def test_a_place_says_why_it_is_empty_and_why_nothing_is_projected_to_it():
    said = " ".join(words(plots.unit_blocks(unit_views())))
    assert said.count("all rectified to 0") == 1 and said.count("fires on 2 pictures only") == 1
    sheet = plots.unit_blocks(unit_views(43))
    assert all(plots._length(line, size) <= 39 for _, _, line, _, size, _ in sheet.texts if line in ("all", "rectified", "pictures"))
    sheet = plots.evolution(an_evolution(["conv1"]))
    assert " ".join(words(sheet)).count("does not fire") == 1 and len(sheet.pictures) == 2*4 - 1


def test_an_activation_below_0_has_no_bar_and_the_others_have_their_share_of_the_largest():
    sheet = plots.evolution(of_classes())
    inked = [(np.asarray(picture)[-1] < 128).all(axis=1).mean() for *_, picture in sheet.pictures]
    assert inked == [0, 0, 0, 0, 0, 0.25, 0, 1]                                     # epoch by epoch


@pytest.mark.parametrize("names", [CLASSES[:2], CLASSES[2:]])
def test_names_of_rows_lie_beside_their_tiles_however_long_they_are(names):
    for sheet in (plots.evolution(replace(of_classes(), classes={"fc8": np.array(names)})),
                  plots.sanity_checks(sanity_checks(classes=np.array(names)))):
        tops, heights = zip(*((top, picture.height) for _, top, picture in sheet.pictures))
        baselines = [baseline for _, baseline, *_, align in sheet.texts if align == "right"]
        for top, height in set(zip(tops, heights)):
            assert any(top < baseline <= top + height for baseline in baselines)
        assert all(any(top < baseline <= top + height for top, height in zip(tops, heights)) for baseline in baselines)
        assert min(left for left, *_ in sheet.pictures) < 160 + 2*plots.MARGIN


@pytest.mark.parametrize("views", [strongest(LONG), strongest("Convolution110"), strongest(LONG, CLASSES[:3])])
def test_no_two_blocks_have_the_same_name_and_none_is_wider_than_its_block(views):
    said = words(plots.unit_blocks(views))
    assert len(set(said)) == 3 and all(plots._length(line, LARGE) <= 2*43 for line in said)
    assert views.classes is not None or [line.split()[-1] for line in said] == ["7", "100", "4095"]


@pytest.mark.parametrize("drops, said", [([-7.4e-4, 4e-5], "fall of P: -0.0007 to 4e-05"), ([0, 0.03], "fall of P: 0 to 0.03"),
                                         ([-0.2, 4e-5], "fall of P where hidden")])
def test_a_rise_of_p_is_not_called_a_fall(drops, said):
    found = an_occlusion()
    found.drops[0] = np.nan
    found.drops[0, 3:5, 3] = drops
    assert said in words(plots.occlusion(found))


@pytest.mark.parametrize("others, said", [(None, 0), (np.zeros((2, 0, 9, 9, 3), np.float32), 0), (signed_of(2, 1, 9, 9, 3), 2),
                                          (signed_of(2, 1, 9, 9, 3)*np.array([0, 1])[:, None, None, None, None], 1)])
def test_others_are_named_where_there_are_some(others, said):
    lines = words(plots.occlusion(replace(an_occlusion(), others=others)))
    assert sum("from others" in line for line in lines) == said


def test_what_is_drawn_of_nothing_is_a_page_without_it():
    assert words(plots.captioned([], [], [], "of none")) == ["of none"]
    assert plots.projections(a_projection(0)).image().size == (plots.MARGIN, 2*plots.MARGIN)


def test_a_control_says_what_is_done_to_its_layers_and_the_title_what_a_share_is_a_share_of():
    said = " ".join(words(plots.sanity_checks(sanity_checks(inside=np.full((2, 4), 0.9), area=np.array([0.5, 0.7])))))
    assert said.count("random order of weights:") == 2 and "random order of weights: conv5 to conv4" in said
    assert "box: 60 % of the area" in said and "in box 90 %" in said and "parts" not in said


@pytest.mark.parametrize("odd", [None, [], {}, dict.fromkeys(history(2), ()), *(
    {**history(2), column: value} for column in ("epoch", "lr", "train_loss", "val_error") for value in (None, [], [0.1], 3, ["a", "b"]))])
def test_curves_without_epochs_or_with_gaps_are_one_sentence(odd):
    with pytest.raises(Expected, match="^history(: [a-z_]+)?: expected "):
        plots.learning_curves(odd)


@pytest.mark.parametrize("epochs", [1, 2, 3, 90])
def test_epochs_are_whole_lie_inside_and_a_fall_of_the_rate_is_named_once(epochs):
    for axes in plots.learning_curves(history(epochs)).axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and ticks == [int(tick) for tick in ticks] and low <= 0.5 and high >= epochs + 0.5
        assert [text.get_text() for text in axes.get_legend().texts][2:] == ["the learning rate falls"]*(epochs > 1)


@pytest.mark.parametrize("value, count, said", [(100, 2, "100"), (99.4, 2, "99"), (99.6, 2, "100"), (1234.6, 3, "1235"), (-250, 2, "-250"),
                                                (0.0123, 2, "0.012"), (2.345, 3, "2.35"), (1e7, 2, "1e+07"), (np.nan, 2, "nan")])
def test_a_number_above_100_is_written_out(value, count, said):
    assert plots._digits(value, count) == said


def test_all_of_a_change_is_written_out_and_lies_on_its_axis():
    found = an_evolution(["conv1"])
    found = replace(found, moved={"conv1": np.array([0.5, np.nan, 1])}, change={"conv1": np.array([1.9, 1.2, np.nan])})
    change, moved = [figure_of(draw) for *_, draw in plots.evolution(found).panels]
    assert change.get_ylim()[1] > 1.9 and moved.get_ylim()[1] == pytest.approx(102)
    assert [text.get_text() for text in moved.get_legend().texts] == ["conv1  100"]


@pytest.mark.parametrize("silent, said", [(0, "the strongest projections of 3 units, 4 each; aliasing"),
                                          (1, "the strongest projections of 2 units, 4 each; 1 more never fires; aliasing"),
                                          (2, "the strongest projections of 1 unit, 4 each; 2 more never fire; aliasing"),
                                          (3, "none of these 3 units ever fires; aliasing")])
def test_units_that_never_fire_are_counted_as_what_they_are_and_no_tick_says_more_than_100_percent(silent, said):
    found = a_diagnosis("tiny", 3)
    found.projections[:silent], found.patches[:silent] = 0, 128
    sheet = plots.diagnostics([found])
    assert sum(line.startswith(f"conv2: {said}") for line in words(sheet)) == 1
    axes = figure_of(sheet.panels[-1][-1])                                          # fc6 has no unit that fires
    assert max(axes.get_yticks()) == 100 < axes.get_ylim()[1] and len(axes.get_yticks()) > 3


@pytest.mark.parametrize("missing, lost, said", [(0, 0, "3 units, 4 each"), (2, 0, "3 units, 2 each"), (2, 2, "3 units, 2 each (2 all rectified to 0)"),
                                                 (0, 4, "3 units, 4 each (4 all rectified to 0)")])
def test_projections_are_counted_as_they_are_there_and_one_without_anything_still_fires(missing, lost, said):
    found = a_diagnosis("tiny", 3)
    found.projections[:, 4 - missing:], found.patches[:, 4 - missing:] = 0, 128          # where there is no picture
    found.projections[0, :lost] = 0
    assert f"conv2: the strongest projections of {said}; aliasing -0.008" in words(plots.diagnostics([found]))
    found.projections[1, 1:], found.patches[1, 1:] = 0, 128
    assert any(f"3 units, up to {4 - missing} each" in line for line in words(plots.diagnostics([found])))


def test_layers_that_one_network_has_are_not_drawn_as_those_of_another():
    found = [replace(a_diagnosis(name), dead=dict.fromkeys(layers, np.arange(9) < 3)) for name, layers in
             (("one", ["conv1", "fc7"]), ("two", ["fc7", "fc8"]), ("three", ["fc8"]))]
    axes = figure_of(plots.diagnostics(found).panels[-1][-1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["conv1", "fc7", "fc8"]
    places = [[round(bar.get_x() + bar.get_width()/2) for bar in bars] for bars in axes.containers]
    assert places == [[0, 1], [1, 2], [2]] and len({bars[0].get_facecolor() for bars in axes.containers}) == 3


def figure_of(draw):
    """Axes that a panel of a sheet has drawn on."""
    axes = Figure().add_subplot()
    draw(axes)
    return axes


def test_the_epoch_of_the_network_at_hand_is_marked_and_named():
    for axes in plots.learning_curves(history(9), 5).axes:
        assert "this network: epoch 5" in [text.get_text() for text in axes.get_legend().texts]
        assert [5, 5] in [list(line.get_xdata()) for line in axes.lines]


@pytest.mark.parametrize("draw, found", [(plots.unit_blocks, unit_views(layer="fc8")),
                                         (plots.sanity_checks, sanity_checks())])
def test_a_unit_of_a_class_whose_letters_the_font_lacks_has_the_class_s_number(draw, found):
    names = np.array(["Katze", "犬", "café"][:len(found.units)])
    said = " ".join(words(draw(replace(found, classes=names))))
    assert "Katze" in said and f"class {found.units[1]}" in said and "犬" not in said


def test_what_follows_a_class_has_its_number_where_the_font_lacks_letters():
    found = an_occlusion()
    said = words(plots.occlusion(replace(found, classes=np.array(["犬", *found.classes[1:]]))))
    assert sum("class 0" in line for line in said) >= 3 and not any("犬" in line for line in said)
    found = an_evolution(["fc8"])
    said = words(plots.evolution(replace(found, classes={"fc8": np.array(["犬", "owl"])})))
    assert {"class 3", "owl"} <= set(said) and "犬" not in said


def test_a_class_whose_letters_the_font_lacks_has_its_number():
    figure = plots.confusion(COUNTS, ["Katze", "犬", "café"], [("犬", "café", 77, 977)], "title")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Katze", "class 1", "café"]
    assert any("77 of 977   class 1 → café" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize("M", [1, 2, 9])
def test_the_colours_of_a_confusion_lie_beside_what_stands_below_its_matrix(M):
    figure = plots.confusion(np.eye(M, dtype=int), [f"class {k}" for k in range(M)], [], "title")
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    assert figure.axes[0].xaxis.label.get_window_extent().x1 < figure.axes[1].get_window_extent().x0
    assert "none is confused" in figure.texts[1].get_text()


def test_a_long_name_keeps_both_ends():
    assert plots._short("x"*24) == "x"*24 and plots._short("abcdefghij", 6) == "ab…hij"


def test_errors_that_hardly_differ_are_not_drawn_as_if_they_did():
    for errors, factor in (([96.67, 95.33], 1.125), ([20.0, 40.0], 2)):
        figure = plots.beside_paper(["a", "b"], [(None, 40.5), (None, 36)], [[(None, error)] for error in errors])
        low, high = figure.axes[1].get_xlim()
        assert low < min(errors) < max(errors) < high and factor*0.999 < high/low < 1.15*factor


def test_the_mean_of_errors_is_their_own_and_what_lies_below_the_axis_is_told():
    for errors, mean, told in (((0.0, 0.1), 0.05, 1), ((0.02, 0.2), 0.11, 1), ((0.0, 0.0), 0.05, 1), ((0.1, 0.3), 0.2, 0)):
        figure = plots.beside_paper(["a"], [(None, 40.5)], [[(None, error) for error in errors]])
        dots = figure.axes[1].collections
        assert dots[1].get_offsets()[0, 0] == pytest.approx(mean)
        np.testing.assert_allclose(dots[0].get_offsets()[:, 0], np.maximum(errors, 0.05))
        assert figure.axes[1].get_xlabel().count("less than 0.05 stands at 0.05") == told
        assert "less" not in figure.axes[0].get_xlabel()


@pytest.mark.parametrize("units, columns", [(5, 5), (7, 4), (12, 4), (13, 5), (15, 5), (16, 4), (9, 3)])
def test_blocks_of_layer_2_leave_as_few_places_empty_as_can_be(units, columns):
    blocks = plots._second_layer(a_diagnosis("tiny", units)).pictures[0][2]
    assert blocks.width == columns*(2*4*11 + 1) + 6*(columns - 1)
