"""Sheets and settings: what is drawn stays inside its page, and drawing leaves no trace in matplotlib."""
import matplotlib
import numpy as np
import pytest
from PIL import Image

from zfcore import plots
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


def test_a_title_is_cut_between_words_and_a_long_word_anywhere():
    words = "the sum of the strongest map"
    for width in range(40, 200, 7):
        cut = plots._fitted(words, width)
        assert plots._length(cut) <= width or " " not in cut
        assert cut == words or words.split()[:len(cut.split())] == cut.rstrip("…").split()
    assert plots._fitted("n02123045_1234.JPEG", 60).endswith("…") and plots._fitted("short", 60) == "short"


def test_text_is_wrapped_into_the_width_and_no_word_is_lost():
    words = "conv5: 3 of 16 units never fire and are left out: 4, 7, 11"
    lines = plots._wrapped(words, 120)
    assert " ".join(lines) == words and len(lines) > 2 and all(plots._length(line) <= 120 for line in lines)


@pytest.mark.parametrize("count, columns", [(24, 6), (36, 6), (37, 8), (96, 8)])
def test_filters_are_large_in_six_or_eight_columns_each_to_its_own_scale(count, columns, tmp_path):
    w = np.random.default_rng(0).standard_normal((3, 7, 7, count)).astype(np.float32)
    w[..., 1] /= 1000
    plots.save(plots.filters(w), tmp_path/"filters.png")
    sheet, side, rim = np.asarray(Image.open(tmp_path/"filters.png")), 672//columns, plots.MARGIN
    assert sheet.shape[:2] == (plots.LABEL + -(-count//columns)*(side + 3) - 3 + 2*rim, columns*(side + 3) - 3 + 2*rim)
    assert sheet[rim:rim + plots.LABEL].min() < 128          # a title
    zoom, left = side//7, rim + side + 3
    top = rim + plots.LABEL
    shown = sheet[top + zoom//2:top + side:zoom, left + zoom//2:left + side:zoom]
    np.testing.assert_allclose(shown, 127.5 + 127.5*(w[..., 1]/np.abs(w[..., 1]).max()).transpose(1, 2, 0), atol=0.51)
