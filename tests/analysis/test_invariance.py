"""Pictures along a series of similarities: the sampler against Pillow and exact turns, distances and numbers by hand."""
import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from zfcore import plots, results
from zfcore.__main__ import main
from zfcore.analysis.invariance import (MOVED, Bordered, Invariance, Series, centre_square, columns, consistency, default_layers,
                                        distances, early_rise, invariance, look, mean_height, paper_series, sample, subtract,
                                        transform)
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, save
from zfcore.commands.invariance import in_words
from zfcore.data.transforms import square
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.models import build
from zfcore.network import Network
from zfcore.trained import Trained
from tests.spoken import spoken


def picture(h, w, seed=0):
    """Soft structure between 60 and 200, so that no kernel overshoots 0..255."""
    noise = np.random.default_rng(seed).integers(60, 200, (h//5 + 2, w//5 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((w, h), Image.Resampling.BICUBIC)).clip(60, 200)


def series(shifts=0.0, zooms=1.0, degrees=0.0, clean=0):
    shifts, zooms, degrees = np.broadcast_arrays(*map(np.atleast_1d, (shifts, zooms, degrees)))
    return Series(np.arange(len(shifts)), shifts, zooms, degrees, clean, np.array([0]))


# ------------------------------------------------------------------------------------------------------- the sampler
def test_an_unchanged_picture_is_what_preparation_makes_of_it():
    for (h, w), size, crop in (((83, 120), 83, 70), ((121, 90), 57, 44), ((60, 61), 40, 33), ((40, 52), 55, 48),
                               ((300, 310), 41, 38)):
        pixels = picture(h, w)
        margin = (size - crop)//2
        prepared = square(Image.fromarray(pixels), size, crop, upscale=True)[margin:margin + crop, margin:margin + crop]
        ours = transform(centre_square(pixels, size), crop, [0], [1], [0])[..., 0].transpose(1, 2, 0)
        assert abs(ours - prepared).max() <= (2 if min(h, w) < 4*size else 4)          # Pillow rounds twice; averaged first


@pytest.mark.parametrize("shift, zoom, crop", [(0, 1, 80), (7, 1.5, 80), (-3.25, 1.31, 80), (2.5, 2, 70), (0, 1.9, 100),
                                               (0, 1, 100)])
def test_shifts_and_zooms_are_pillows_resampling_of_the_box_that_is_seen(shift, zoom, crop):
    pixels, size = picture(150, 130), 100                                   # 1.3 pixels to one; no margin where crop is 100
    ours = transform(centre_square(pixels, size, np.float64), crop, [shift], [zoom], [0])[..., 0]
    side = 1.3*crop/zoom
    middle = 75 - 1.3*shift/zoom, 65
    box = middle[1] - side/2, middle[0] - side/2, middle[1] + side/2, middle[0] + side/2
    for plane, channel in zip(ours, pixels.transpose(2, 0, 1)):
        theirs = Image.fromarray(channel.astype(np.float32)).resize((crop, crop), Image.Resampling.BICUBIC, box)
        np.testing.assert_allclose(plane, theirs, atol=0.01)


@pytest.mark.parametrize("size, crop", [(50, 41), (50, 42)])
def test_a_shift_by_whole_pixels_moves_the_content_down_exactly(size, crop):
    pixels, margin = picture(50, 50), (size - crop)//2
    seen = transform(centre_square(pixels, size), crop, [3, -2, 0], [1]*3, [0]*3)
    for n, shift in enumerate((3, -2, 0)):
        expected = pixels[margin - shift:margin - shift + crop, margin:margin + crop]
        np.testing.assert_allclose(seen[..., n].transpose(1, 2, 0), expected, atol=1e-4)


@pytest.mark.parametrize("size, crop", [(50, 42), (51, 41)])
def test_turns_by_right_angles_are_exact_and_counter_clockwise(size, crop):
    pixels, margin = picture(size, size), (size - crop)//2
    seen = transform(centre_square(pixels, size), crop, [0]*4, [1]*4, [0, 90, 180, 270])
    for n in range(4):
        expected = np.rot90(pixels[margin:margin + crop, margin:margin + crop], n)
        np.testing.assert_allclose(seen[..., n].transpose(1, 2, 0), expected, atol=1e-3)


def test_a_ramp_stays_a_ramp_when_it_is_turned_enlarged_and_shifted():
    y, x = np.mgrid[:90, :90] + 0.5
    pixels = np.repeat((100 + 0.9*(x - 45) - 0.4*(y - 45))[..., None], 3, axis=2)
    turn, zoom, shift = 30, 1.4, 5
    seen = transform(centre_square(pixels, 90, np.float64), 40, [shift], [zoom], [turn])[0, ..., 0]
    v, u = np.mgrid[:40, :40] - 19.5
    v, c, s = v - shift, np.cos(np.pi/6), np.sin(np.pi/6)
    np.testing.assert_allclose(seen, 100 + 0.9*(u*c - v*s)/zoom - 0.4*(u*s + v*c)/zoom, atol=1e-9)


def test_a_step_that_is_not_turned_is_the_same_to_the_bit_alone_and_beside_turned_ones():
    seen = centre_square(picture(83, 71), 57)
    shifts, zooms = np.array([-3.5, 0, 4.25, 0]), np.array([1.25, 1, 1.5, 0.75])
    beside = transform(seen, 44, np.append(shifts, 0), np.append(zooms, 1), np.array([0, 0, 0, 0, 33]))
    assert np.array_equal(transform(seen, 44, shifts, zooms, np.zeros(4)), beside[..., :4])


def test_where_the_picture_shrinks_fine_patterns_become_their_mean():
    board = np.indices((360, 360)).sum(axis=0) % 2*255
    pixels = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    for size in (100, 90, 47, 20):                                          # 3.6 to 18 pixels to one
        for zoom in (1, 1.3):
            seen = transform(centre_square(pixels, size), size - 4, [0, 0], [zoom, 1], [0, 33])
            middle = seen[:, size//4:-size//4, size//4:-size//4]
            assert abs(middle - 127.5).max() < 4


def test_the_largest_zoom_still_sees_every_pixel_of_a_large_picture():
    """Averaged in advance no further than to one a pixel: an edge of the original stays sharp when enlarged, without the
    kernel's overshooting the range of pixels."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[:, 200:] = 255
    seen = transform(centre_square(pixels, 50), 40, [0], [2], [0])[0, 20, :, 0]           # 4 pixels to one here
    np.testing.assert_allclose(seen[[0, 10, 18]], 0, atol=1)
    np.testing.assert_allclose(seen[[21, 30, 39]], 255, atol=1)
    enlarged = transform(centre_square(pixels, 300), 40, [0], [1.7], [0])
    assert enlarged.min() == 0 and enlarged.max() == 255


def test_beyond_the_turned_square_is_black_though_the_picture_goes_on():
    pixels = np.full((100, 160, 3), 200, np.uint8)
    seen = transform(centre_square(pixels, 100), 88, [0, 0], [1, 1], [0, 45])
    away = np.abs(np.mgrid[:88, :88] - 43.5).sum(axis=0) - 50*2**0.5       # beyond the edges of the square on its corner
    assert (seen[:, away > 1, 1] == 0).all() and (away > 1).sum() > 500
    np.testing.assert_allclose(seen[..., 0], 200, atol=0.01)
    np.testing.assert_allclose(seen[:, away < -1, 1], 200, atol=0.01)
    assert 0 < seen[0, ..., 1][abs(away) < 0.3].min() and seen[0, ..., 1][abs(away) < 0.3].max() < 200


def test_a_point_on_a_pixels_middle_gives_the_pixel_and_a_point_beyond_gives_a_finite_number():
    planes = np.random.default_rng(0).uniform(0, 255, (3, 7, 9))
    at = lambda rows, columns, width: sample(Bordered.of(planes, width), np.array(rows), np.array(columns), width)
    np.testing.assert_allclose(at([2.5, 0.5], [4.5, 8.5], 1), planes[:, [2, 0], [4, 8]])
    assert np.isfinite(at([-50.0, 90], [400.0, -3], 1.7)).all()


# --------------------------------------------------------------------------------------------------------- the series
def test_the_series_have_the_papers_ranges_and_steps_and_scale_with_the_input():
    shift, scale, turn = paper_series(256, 224).values()
    np.testing.assert_allclose(shift.shifts, np.arange(-63, 64))
    assert shift.clean == 63 and set(shift.zooms) == {350/256} and set(shift.degrees) == {0}
    np.testing.assert_allclose(scale.zooms, 1 + np.arange(128)/128)
    np.testing.assert_allclose(turn.degrees, np.arange(128)*360/128)
    np.testing.assert_array_equal(scale.steps, scale.zooms)
    np.testing.assert_allclose(paper_series(110, 96)["translation"].shifts, np.arange(-63, 64)*96/224)
    assert all(len(one.shown) == 8 and one.shown.max() < len(one.steps) for one in (shift, scale, turn))


@pytest.mark.parametrize("size, crop", [(32, 28), (33, 28), (50, 20)])
def test_translations_show_picture_in_every_pixel_and_keep_their_size_where_there_is_room(size, crop):
    of = paper_series(size, crop)["translation"]
    pixels = np.full((64, 64, 3), 200, np.uint8)
    assert transform(centre_square(pixels, size), crop, of.shifts, of.zooms, of.degrees).min() > 199.9
    assert set(of.zooms) == ({1} if size == 50 else {(28 + 2*63/8 + size % 2)/size})


# ------------------------------------------------------------------------------------------------------- the analysis
def shift_invariant():
    """What it finds it finds anywhere: a pool over the whole map."""
    network = Network("anywhere", (3, 30, 30), [
        Conv("conv1", 7, K=3), ReLU("relu1"), MaxPool("pool1", K=14, S=14), MaxPool("pool2", K=2, S=2), Flatten("flatten"),
        Linear("fc6", 5), ReLU("relu6"), Linear("fc8", 4)]).init(1, "he")
    network["fc6"].parameters["b"] += 3
    return network


def blob():
    pixels = np.full((40, 40, 3), 90, np.uint8)
    pixels[16:23, 17:24] = np.random.default_rng(0).integers(60, 200, (7, 7, 3))
    return pixels


MEAN = np.full((3, 40, 40), 90, np.float32)


def test_an_unchanged_picture_has_distance_0_to_the_bit_whatever_the_batch():
    for batch_size in (1, 3, 64):
        found = invariance(Trained(shift_invariant(), MEAN), [picture(40, 40)], series={"none": series([0.0, 4], clean=0)},
                           batch_size=batch_size)
        for of in (found.distances, found.relative, found.unit):
            assert (of["none"][0, :, 0] == 0).all() and (of["none"][0, :, 1] > 0).all()


def test_a_shift_invariant_network_moves_in_layer_1_and_nowhere_above():
    found = invariance(Trained(shift_invariant(), MEAN), [blob(), blob()[:, ::-1]], layers=["conv1", "pool2", "fc6"],
                       series={"shift": series(np.arange(-5.0, 6), clean=5)}, batch_size=4)
    assert (found.relative["shift"][:, 0, [0, 4, 6, 10]] > 0.1).all()
    assert found.relative["shift"][:, 1:].max() < 1e-4 and found.unit["shift"][:, 1:].max() < 1e-4
    assert (consistency(found.most_probable["shift"], 5) == 1).all()
    np.testing.assert_allclose(found.probabilities["shift"], found.probabilities["shift"][:, 5:6].repeat(11, axis=1), rtol=1e-3)


def test_each_step_stands_at_its_own_place_whatever_the_batch():
    network, pixels = shift_invariant(), [picture(44, 61), picture(70, 50, 1)]
    along = series(np.linspace(-4, 4, 9), np.linspace(1, 1.6, 9), np.linspace(0, 80, 9), clean=3)
    found = invariance(Trained(network, MEAN), pixels, [1, 3], layers=["conv1", "fc6"], series={"all": along}, batch_size=4)
    seen = [transform(centre_square(p, 40), 30, *along[1:4]) for p in pixels]
    for n, (x, label) in enumerate(zip(seen, (1, 3))):
        features, scores = look(network, subtract(x, MEAN), ["conv1", "fc6"])
        for k, f in enumerate(features.values()):
            f = f.astype(float)
            np.testing.assert_allclose(found.distances["all"][n, k], np.linalg.norm(f - f[:, 3:4], axis=0), rtol=1e-4,
                                       atol=1e-3)
        p = np.exp(scores - scores.max(axis=0))
        np.testing.assert_allclose(found.probabilities["all"][n], (p/p.sum(axis=0))[label], rtol=1e-4)
        np.testing.assert_array_equal(found.most_probable["all"][n], scores.argmax(axis=0))
        np.testing.assert_array_equal(found.pictures["all"][n, 0], np.rint(x[..., 0]).transpose(1, 2, 0))


def test_without_labels_the_class_of_the_centre_crop_is_followed():
    network, pixels = shift_invariant(), [picture(40, 40), blob()]
    x = np.stack([p[5:35, 5:35] for p in pixels]).transpose(3, 1, 2, 0) - np.float32(90)
    found = invariance(Trained(network, MEAN), pixels, series={"turn": series(degrees=[90.0, 0], clean=1)})
    np.testing.assert_array_equal(found.labels, network.forward(np.ascontiguousarray(x))[0].argmax(axis=0))


def test_the_mean_that_is_subtracted_is_that_of_the_centre():
    network, pixels = shift_invariant(), picture(41, 41)
    mean = np.random.default_rng(0).uniform(0, 255, (3, 41, 41)).astype(np.float32)
    seen = np.ascontiguousarray(pixels[None, 5:35, 5:35].transpose(3, 1, 2, 0), np.float32)
    np.testing.assert_array_equal(subtract(seen, mean), Trained(network, mean).inputs(pixels[None]))


def test_the_layers_are_1_and_7_unless_named():
    assert default_layers(build("zfnet", 10)) == ["conv1", "fc7"]
    assert default_layers(build("alexnet", 10), first=False) == ["conv5", "fc7"]
    assert default_layers(shift_invariant()) == ["conv1", "fc6"]


def test_distances_are_raw_relative_and_between_unit_vectors():
    clean, others = np.array([[3.0], [4]]), np.array([[3.0, 6, 0, -4, 0], [4, 8, 5, 3, 0]])
    raw, relative, unit = distances(clean, others)
    np.testing.assert_allclose(raw, [0, 5, 10**0.5, 50**0.5, 5])
    np.testing.assert_allclose(relative, raw/5)
    np.testing.assert_allclose(unit, [0, 0, 0.4**0.5, 2**0.5, 1], atol=1e-15)
    raw, relative, unit = distances(0*clean, others)
    assert raw[1] == 10 and np.isnan(relative).all() and unit.tolist() == pytest.approx([1, 1, 1, 1, 0])


def test_consistency_leaves_the_clean_step_out():
    assert consistency(np.array([[2, 2, 1, 2, 0], [4, 4, 4, 4, 4], [1, 2, 3, 4, 5]]), 1).tolist() == [0.5, 1, 0]


def test_the_mean_height_is_the_area_over_the_range():
    assert mean_height(np.array([1.0, 2, 4]), np.array([[0.0, 2, 2], [1, 1, 1]])).tolist() == pytest.approx([5/3, 1])


def test_a_straight_line_has_risen_by_an_eighth_after_an_eighth_and_both_directions_count():
    line = np.abs(np.arange(-63.0, 64))
    assert early_rise(line, 63) == pytest.approx(1/8) and early_rise(np.arange(128.0), 0) == pytest.approx(1/8)
    assert early_rise(np.minimum(line, 7), 63) == pytest.approx(1)
    assert early_rise(np.where(np.arange(127) < 63, 2*line, np.minimum(line, 7)), 63) == pytest.approx((1/8 + 1)/2)
    assert early_rise(np.arange(9.0)[::-1], 8) == pytest.approx(1/8)


@pytest.mark.parametrize("largest, is_number", [(0, False), (8e-7, False), (MOVED, False), (2*MOVED, True), (np.nan, False)])
def test_of_a_distance_that_is_rounding_there_is_no_rise_and_other_pictures_keep_theirs(largest, is_number):
    line = np.arange(9.0)
    found = early_rise(np.stack([line, largest*line/8, line]), 0)
    assert found[[0, 2]] == pytest.approx(1/8) and np.isfinite(found[1]) == is_number


@pytest.mark.parametrize("change, sentence", [
    ({"labels": [4]}, "labels: .*0 to 3"), ({"labels": [0, 1]}, "labels"), ({"layers": ["conv9"]}, "one of conv1, relu1"),
    ({"batch_size": 0}, "batch size"), ({"series": {"one": series([0.0])}}, "series one: steps: expected two or more, got 1")])
def test_what_cannot_be_is_refused(change, sentence):
    with pytest.raises(Expected, match=sentence):
        invariance(Trained(shift_invariant(), MEAN), [blob()], **{"series": {"none": series([0.0, 1])}, **change})


# ------------------------------------------------------------------------------------- layers that are silent on a picture
def silenced(names_of_bias):
    """What is found of three pictures of soft structure and a constant one, with these layers' biases below all they see."""
    network = shift_invariant()
    for name in names_of_bias:
        network[name].parameters["b"][:] = -1e6
    model = Trained(network, MEAN)
    pictures = [*(picture(64, 50, seed) for seed in range(3)), np.full((64, 50, 3), 128, np.uint8)]
    return invariance(model, pictures, [0]*4, batch_size=37)


def silent_on(found, which):
    """The same with the last layer silent on some of the pictures."""
    relative = {name: of.copy() for name, of in found.relative.items()}
    for of in relative.values():
        of[which, -1] = np.nan
    return replace(found, relative=relative)


@pytest.mark.figures
def test_a_layer_that_is_silent_on_all_pictures_is_said_to_be_where_it_would_be_drawn():
    found = silenced(["fc6"])
    assert all(np.isnan(of[:, 1]).all() for of in found.relative.values())
    figure = plots.invariance(found)
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert [" ".join(texts).replace("\n", " ") for texts in said] == ["", "", "fc6 is silent: 0 on every clean picture", ""]*3
    words = in_words(found)
    assert "nan" not in words
    assert words.endswith("at conv1 (mean of 3 of 4) (in a straight line: 12.5 %); fc6 is silent, or no shift moves it")


@pytest.mark.figures
@pytest.mark.parametrize("which", [[0], [1, 2], [0, 1, 2]])
def test_the_mean_is_that_of_the_pictures_on_which_a_layer_is_not_silent_and_says_of_how_many(which):
    found = silenced([])
    rest = [k for k in range(4) if k not in which]
    for axes in plots.invariance(silent_on(found, which)).axes[2::4]:
        mean = axes.get_lines()[-1]
        assert mean.get_label() == f"mean of {len(rest)} of 4" == axes.get_legend().get_texts()[0].get_text()
        name = {"pixels, down is positive": "translation", "factor": "scale"}.get(axes.get_xlabel(), "rotation")
        np.testing.assert_allclose(mean.get_ydata(), found.relative[name][rest, 1].mean(axis=0))
    assert [text.get_text() for text in plots.invariance(found).axes[5].get_legend().get_texts()] == ["mean of 4"]


@pytest.mark.figures
def test_a_constant_picture_changes_no_mean_and_its_rounding_is_drawn_as_nothing():
    """Whatever its distances are by rounding, and by the batches that it was computed in."""
    found = silenced([])
    assert all(found.relative["translation"][3].max(axis=1) <= MOVED)
    assert np.isnan(columns(found)["translation"]["conv1 early rise"][3])
    rises = columns(found)["translation"]["conv1 early rise"][:3]
    assert f"has gone {100*rises.mean():.0f} % of its distance at conv1 (mean of 3 of 4) and" in in_words(found)
    alone = replace(found, **{field: {name: of[3:] for name, of in getattr(found, field).items()}
                              for field in ("relative", "probabilities", "most_probable", "pictures", "distances", "unit")},
                    labels=found.labels[3:])
    for axes in (one for k, one in enumerate(plots.invariance(alone).axes[:4]) if k % 4 in (1, 2)):
        assert max(line.get_ydata().max() for line in axes.get_lines()) < 0.01*axes.get_ylim()[1]


# -------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of 30-pixel crops out of 40, trained on the synthetic set's classes, and two pictures."""
    place, network = tmp_path_factory.mktemp("place"), shift_invariant()
    save(place/"run.h5", Checkpoint("small", network.input_shape, network.table(), list("abcd"), network.parameters(),
                                    mean_image=MEAN))
    Image.fromarray(picture(64, 50)).save(place/"one.png")
    Image.fromarray(picture(41, 45, 2)).save(place/"two.png")
    Image.fromarray(picture(29, 60)).save(place/"small.png")
    return place


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["invariance", *map(str, arguments)])
    assert left.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@pytest.mark.figures
def test_the_command_leaves_arrays_figure_and_numbers_and_draws_the_figure_again(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zfcore.analysis.invariance.STEPS", 16)
    main(["invariance", "--run", str(place/"run.h5"), "--images", str(place/"one.png"), str(place/"two.png"), "--label", "b",
          "d", "--output", str(tmp_path), "--against", str(place/"run.h5")])
    expected = {f"{name}.{end}" for name in ("invariance", "against") for end in ("h5", "png", "csv")}
    assert {p.name for p in tmp_path.iterdir()} == expected
    found, other = (results.load(tmp_path/f"{name}.h5", Invariance) for name in ("invariance", "against"))
    np.testing.assert_equal(vars(found), vars(other))
    assert found.labels.tolist() == [1, 3] and found.layers.tolist() == ["conv1", "fc6"]
    table = list(csv.DictReader((tmp_path/"invariance.csv").open()))
    assert [row["series"] for row in table] == ["translation", "scale", "rotation"]*2 and table[3]["picture"].endswith("two.png")
    assert float(table[4]["consistency"]) == pytest.approx(columns(found)["scale"]["consistency"][1], abs=1e-5)
    assert "the same class at" in spoken(capsys.readouterr().out)[-1]
    before = (tmp_path/"invariance.png").read_bytes()
    (tmp_path/"invariance.png").unlink()
    main(["redraw", str(tmp_path/"invariance.h5")])
    assert (tmp_path/"invariance.png").read_bytes() == before


@pytest.mark.parametrize("more, sentence", [
    (["--images", "small.png"], "small.png: expected a shorter side of at least 30 pixels.*got 60x29.*--upscale"),
    (["--images", "one.png", "--label", "cow"], "--label: expected one of the 4 classes.*'cow'"),
    (["--images", "one.png", "--layers", "conv7"], "one of conv1, relu1.*'conv7'"),
    (["--images", "nowhere.png"], "nowhere.png"),
    ([], "--images FILES"),
    (["--images", "one.png", "--against", "nothing.h5"], "^error: --against: expected .*nothing.h5")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(place, tmp_path, capsys, more, sentence, monkeypatch):
    monkeypatch.chdir(place)
    said = refused(capsys, "--run", "run.h5", "--output", tmp_path/"out", *more)
    assert said.startswith("error: ") and re.search(sentence, said), said
    assert not (tmp_path/"out").exists() or not any((tmp_path/"out").iterdir())


def test_a_small_picture_is_enlarged_when_that_is_asked_for(place, tmp_path):
    main(["invariance", "--run", str(place/"run.h5"), "--images", str(place/"small.png"), "--upscale", "--output",
          str(tmp_path)])
    assert results.load(tmp_path/"invariance.h5", Invariance).pictures["scale"].shape == (1, 8, 30, 30, 3)
