"""A grey square over a picture: the cone alone gives what the whole network gives, and the numbers find planted truth."""
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from zfcore import fusion, plots, results
from zfcore.__main__ import main
from zfcore.analysis.occlusion import (Occlusion, check_square, correlation_with_other_projections, correlation_with_projection,
                                       drop_form, fall_inside_box, fall_inside_other_boxes, occlusion, share_lost, silent)
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, save
from zfcore.commands.common import labels_of
from zfcore.commands.occlusion import closing
from zfcore.data.synthetic import CLASSES as DRAWN
from zfcore.data.synthetic import Synthetic
from zfcore.deconvnet import project
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.models.zfnet import zfnet
from zfcore.network import Network
from zfcore.plots import LABEL, MARGIN
from zfcore.trained import Trained
from tests.spoken import in_one, spoken

N, CLASSES, GREY = 2, 5, 90


def head(width=6):
    return [Flatten("flatten"), Linear("fc6", width), ReLU("relu6"), Dropout("drop6"), Linear("fc8", CLASSES)]


def zfnet_order():
    """The seven layers of ZFNet on 67 pixels: 31, 15, 6, 3 and on with padding; pools that round up."""
    return zfnet(CLASSES, 67, maps=(6, 8, 7, 5, 9), units=(11, 10))


def alexnet_order():
    """Norm before pool, groups, and an input that is not square."""
    return Network("alexnet", (3, 59, 43), [
        Conv("conv1", 6, K=7, S=3, P=2), ReLU("relu1"), LocalResponseNorm("norm1", alpha=0.3), MaxPool("pool1", K=3, S=2),
        Conv("conv2", 8, K=5, P=2, groups=2), ReLU("relu2"), LocalResponseNorm("norm2", alpha=0.3), MaxPool("pool2", K=3, S=2),
        Conv("conv3", 4, K=3, P=1), ReLU("relu3"), *head()])


def odd_one():
    """Windows with gaps between them, sizes that round down, a pool of negative values with padding, a ReLU behind a pool, a
    convolution without any."""
    return Network("odd", (3, 38, 47), [
        Conv("conv1", 5, K=2, S=3, P=1, rounding="floor"), MaxPool("pool1", K=2, S=2, P=1), Dropout("drop1"),
        Conv("conv2", 4, K=4, S=2, P=3, rounding="floor"), MaxPool("pool2", K=2, S=3, rounding="floor"), ReLU("relu2"),
        Conv("conv3", 6, K=1), *head()])


def deep_one():
    """So deep that every square reaches all of the last maps."""
    convolutions = [layer for k in "abcdefg" for layer in (Conv(f"conv_{k}", 4, K=5, P=2), ReLU(f"relu_{k}"))]
    return Network("deep", (3, 19, 23), [*convolutions, *head()])


MADE = {"zfnet": zfnet_order, "alexnet": alexnet_order, "odd": odd_one, "deep": deep_one}


def made(name):
    """(network in float64, pictures uint8 (N,H,W,3), mean). All maps and scores are alive."""
    network, rng = MADE[name]().init(3, "he"), np.random.default_rng(7)
    for of_layer in network.parameters().values():
        for key, array in of_layer.items():
            of_layer[key] = array.astype(float) + (rng.normal(0, 0.3, array.shape) if key == "b" else 0)
    network["fc8"].parameters["w"] *= 40
    _, H, W = network.input_shape
    return network, rng.integers(0, 256, (N, H, W, 3), np.uint8), rng.uniform(90, 150, (3, H, W))


def by_hand(network, picture, mean, layer, unit, label, size, stride):
    """(sums, P of label, most probable class), each (R,Q): the square painted on the picture, all of it computed again."""
    H, W, _ = picture.shape
    tops, lefts = range(0, H - size + 1, stride), range(0, W - size + 1, stride)
    painted = np.stack([picture]*len(tops)*len(lefts))
    for n, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        painted[n, top:top + size, left:left + size] = GREY
    x = np.ascontiguousarray(painted.transpose(3, 1, 2, 0) - mean[..., None])
    y = network.activations(x, [layer, "fc8"])
    p = np.exp(y["fc8"] - y["fc8"].max(axis=0))
    p /= p.sum(axis=0)
    shape = len(tops), len(lefts)
    return y[layer][unit].sum(axis=(0, 1)).reshape(shape), p[label].reshape(shape), p.argmax(axis=0).reshape(shape)


# ---------------------------------------------------------------------------------------------- the cone is exact
SQUARES = (9, 4), (1, 7), (14, 3), (19, 5)                          # size, stride
FOLLOWED = [("zfnet", None, "relu5"), ("zfnet", "norm1", "norm1"), ("alexnet", "conv2", "relu2"), ("alexnet", "pool2", "pool2"),
            ("odd", "conv1", "conv1"), ("odd", None, "conv3"), ("deep", None, "relu_g")]


# Every layer with one of the squares, every square with one or two layers.
@pytest.mark.parametrize("name, layer, features, size, stride", [
    pytest.param(*followed, *square, marks=[] if (i + j) % 4 == 0 else pytest.mark.exhaustive)
    for i, followed in enumerate(FOLLOWED) for j, square in enumerate(SQUARES)])
def test_the_cone_alone_gives_what_the_whole_network_gives_for_every_painted_picture(name, layer, features, size, stride):
    network, pictures, mean = made(name)
    found = occlusion(Trained(network, mean), pictures, [1, 4], layer=layer, size=size, stride=stride, grey=GREY, batch_size=19)
    for n in range(N):
        sums, p, best = by_hand(network, pictures[n], mean, features, found.units[n], [1, 4][n], size, stride)
        np.testing.assert_allclose(found.sums[n], sums, rtol=0, atol=1e-11*np.abs(sums).max())
        np.testing.assert_allclose(found.probabilities[n], p, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(found.most_probable[n], best)
    assert np.ptp(found.sums, axis=(1, 2)).all() and np.ptp(found.probabilities, axis=(1, 2)).all()


def test_in_float32_the_classes_are_the_same_and_the_values_differ_by_rounding():
    network, pictures, mean = made("zfnet")
    network.load(network.parameters())
    cone, whole = (occlusion(Trained(network, mean.astype(np.float32)), pictures, size=11, stride=3, incremental=way)
                   for way in (True, False))
    np.testing.assert_array_equal(cone.most_probable, whole.most_probable)
    np.testing.assert_allclose(cone.probabilities, whole.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cone.sums, whole.sums, rtol=1e-5)
    assert len(np.unique(cone.most_probable)) > 1


def test_computing_everything_again_is_the_same_analysis():
    network, pictures, mean = made("odd")
    cone, whole = (occlusion(Trained(network, mean), pictures, size=8, stride=5, incremental=way) for way in (True, False))
    for name, value in vars(cone).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(value, getattr(whole, name), atol=1e-10*max(1, np.nanmax(np.abs(value))), err_msg=name)
        else:
            np.testing.assert_array_equal(value, getattr(whole, name), name)


def test_only_the_cone_is_computed_and_never_more_places_than_a_batch(monkeypatch):
    network, pictures, mean = made("zfnet")
    seen = {}

    def spy(conv, relu, x, step, together=fusion.conv_relu):
        done = together(conv, relu, x, step)
        seen.setdefault(conv.name, []).append(done[0][0].shape[1:])
        return done

    monkeypatch.setitem(fusion.FORWARD, (Conv, ReLU), spy)
    occlusion(Trained(network, mean), pictures[:1], size=5, stride=2, batch_size=23)
    assert sum(N for _, _, N in seen["conv1"] if N > 1) == 32**2 and max(N for _, _, N in seen["conv1"]) <= 23
    widest = {name: max(max(h, w) for h, w, N in shapes if N > 1) for name, shapes in seen.items()}
    assert widest["conv1"] == 6 and widest["conv2"] == 4                                  # of 31 and of 6


def test_the_size_of_a_batch_changes_nothing():
    network, pictures, mean = made("alexnet")
    one, other = (occlusion(Trained(network, mean), pictures, size=9, stride=6, batch_size=batch) for batch in (1, 50))
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.sums, other.sums, rtol=1e-12)


# --------------------------------------------------------------------------------------------------- what is asked
def test_the_square_of_the_paper_has_30_by_30_places_always_inside():
    square = check_square(zfnet())
    assert (square.layer, square.size, square.stride, square.grey, square.places) == ("conv5", 50, 6, 128, 900)
    assert square.tops.tolist() == square.lefts.tolist() == list(range(0, 175, 6))
    network, pictures, mean = made("zfnet")
    found = occlusion(Trained(network, mean), pictures[:1])
    assert (found.size, found.stride, found.grey) == (15, 2, 128) and found.sums.shape == (1, 27, 27)
    assert found.tops.tolist() == list(range(0, 53, 2)) and found.tops[-1] + 15 == 67


def test_the_strongest_map_is_that_of_the_clean_picture_by_its_sum_or_by_its_maximum():
    network, pictures, mean = made("zfnet")
    y = network.activations(pictures.transpose(3, 1, 2, 0) - mean[..., None], ["relu1"])["relu1"]           # (F,H,W,N)
    by_sum, by_max = (occlusion(Trained(network, mean), pictures, None, layer="conv1", size=40, stride=20, criterion=which)
                      for which in ("sum", "max"))
    assert by_sum.units.tolist() == y.sum(axis=(1, 2)).argmax(axis=0).tolist()
    assert by_max.units.tolist() == y.max(axis=(1, 2)).argmax(axis=0).tolist()
    assert by_sum.units.tolist() != by_max.units.tolist()
    np.testing.assert_allclose(by_sum.clean_sums, y.sum(axis=(1, 2)).max(axis=0))


def test_without_a_label_the_class_of_the_clean_picture_is_followed():
    network, pictures, mean = made("zfnet")
    x = np.ascontiguousarray(pictures.transpose(3, 1, 2, 0) - mean[..., None])
    best = network.forward(x)[0].argmax(axis=0)
    unknown, known = (occlusion(Trained(network, mean), pictures, labels, size=30, stride=20)
                      for labels in (None, (best + 1) % CLASSES))
    assert unknown.labels.tolist() == unknown.clean_classes.tolist() == best.tolist()
    assert known.labels.tolist() == ((best + 1) % CLASSES).tolist() and known.clean_classes.tolist() == best.tolist()
    assert (known.clean_probabilities < unknown.clean_probabilities).all()


def test_the_square_lies_on_the_centre_crop():
    network, pictures, mean = made("zfnet")
    larger, around = (np.pad(array, pad, mode="edge") for array, pad in ((pictures, ((0, 0), (3, 3), (3, 3), (0, 0))),
                                                                        (mean, ((0, 0), (3, 3), (3, 3)))))
    cropped, plain = (occlusion(Trained(network, m), p, size=20, stride=10) for p, m in ((larger, around), (pictures, mean)))
    np.testing.assert_array_equal(cropped.pictures, pictures)
    np.testing.assert_array_equal(cropped.sums, plain.sums)


def test_the_projection_is_of_the_whole_map_and_the_view_of_its_strongest_place_in_its_field():
    network, pictures, mean = made("alexnet")
    found = occlusion(Trained(network, mean), pictures, None, layer="conv1", size=30, stride=20)
    for n in range(N):
        x = np.ascontiguousarray(pictures[n:n + 1].transpose(3, 1, 2, 0) - mean[..., None])
        whole = project(network, x, "conv1", found.units[n:n + 1], whole_map=True).pixels[..., 0]
        np.testing.assert_allclose(found.projections[n], whole.transpose(1, 2, 0), rtol=1e-6)
        one = project(network, x, "conv1", found.units[n:n + 1])
        top, left = 3*one.places[0] - 2
        field = np.pad(one.pixels[..., 0], ((0, 0), (7, 7), (7, 7)))[:, top + 7:top + 14, left + 7:left + 14]
        np.testing.assert_allclose(found.views[n], field.transpose(1, 2, 0), rtol=1e-6)
    assert occlusion(Trained(network, mean), pictures, None, layer="conv3", size=30, stride=20).views.shape == (N, 59, 43, 3)


def test_a_result_comes_back_from_its_file(tmp_path):
    network, pictures, mean = made("odd")
    found = replace(occlusion(Trained(network, mean), pictures, size=8, stride=9), names=np.array(["a", "b"]))
    results.save(tmp_path/"found.h5", found)
    np.testing.assert_equal(vars(results.load(tmp_path/"found.h5", Occlusion)), vars(found))


@pytest.mark.parametrize("options, sentence", [
    ({"size": 68}, "size of the square, in an input of .*: expected a whole number from 1 to 67, got 68"),
    ({"size": 0}, "size of the square"), ({"stride": 0}, "stride of the square"), ({"batch_size": 0}, "batch size"),
    ({"grey": 256}, "grey: expected a whole number from 0 to 255, got 256"), ({"grey": -1}, "grey"),
    ({"layer": "fc6"}, "layer: expected one of maps, got fc6"), ({"layer": "conv9"}, "conv9"),
    ({"criterion": "mean"}, "criterion: expected one of max, sum"),
    ({"labels": [1, 5]}, "labels: expected classes 0 to 4, got 5"), ({"labels": [1]}, "labels: expected shape")])
def test_what_cannot_be_is_one_sentence(options, sentence):
    network, pictures, mean = made("zfnet")
    with pytest.raises(Expected, match=sentence):
        occlusion(Trained(network, mean), pictures, **options)


def test_a_network_that_does_not_end_in_classes_is_refused():
    network = Network("maps", (3, 20, 20), [Conv("conv1", 4, K=3), ReLU("relu1")]).init(0)
    with pytest.raises(Expected, match="maps: expected a network of convolutions that ends in scores of classes"):
        occlusion(Trained(network, np.zeros((3, 20, 20), np.float32)), np.zeros((1, 20, 20, 3), np.uint8))


# ------------------------------------------------------------------------------------------------ planted truth
def planted(where, H=30, W=40):
    """A network of one class that is there where the picture is bright, looking at rows and columns `where` alone: map 0 is
    the brightness, map 1 the darkness of 2x2 pixels. And the picture: black, with a bright blob at 8:16, 20:32."""
    network = Network("planted", (3, H, W), [Conv("conv1", 2, K=2, S=2), ReLU("relu1"), Flatten("flatten"), Linear("fc8", 2)])
    network.init(0)
    network["conv1"].parameters = {"w": np.stack([np.ones((3, 2, 2)), -0.1*np.ones((3, 2, 2))], axis=-1)/12, "b": np.zeros(2)}
    seen = np.zeros((2, H//2, W//2, 2))
    seen[0, where[0], where[1], 0] = 0.01
    network["fc8"].parameters = {"w": seen.reshape(-1, 2), "b": np.zeros(2)}
    picture = np.full((1, H, W, 3), 60, np.uint8)
    picture[:, 8:16, 20:32] = 255
    return network, picture, np.full((3, H, W), 128.0)


EVERYWHERE = slice(None), slice(None)


def test_the_fall_of_a_class_seen_in_one_place_lies_in_the_box_around_that_place():
    network, picture, mean = planted((slice(4, 8), slice(10, 16)))                        # pixels 8:16, 20:32
    found = occlusion(Trained(network, mean), picture, [0], size=3, stride=1)
    share, area = fall_inside_box(replace(found, boxes=np.array([[8.0, 20, 16, 32]])))
    assert area == pytest.approx(8*12/1200)
    reached, _ = fall_inside_box(replace(found, boxes=np.array([[6.0, 18, 18, 34]])))     # and all that a square of 3 reaches
    assert reached == pytest.approx(1) and 0.6 < share < 1
    elsewhere, _ = fall_inside_box(replace(found, boxes=np.array([[0.0, 0, 6, 40]])))
    assert elsewhere == 0
    hit = np.zeros(found.sums.shape[1:], bool)
    hit[6:16, 18:32] = True                                  # squares from here on meet the blob
    assert (found.probabilities[0][hit] < found.clean_probabilities).all()
    np.testing.assert_allclose(found.probabilities[0][~hit], found.clean_probabilities[0], rtol=1e-12)


def test_a_fall_that_is_the_same_everywhere_lies_in_the_box_by_its_area():
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), picture, [0], size=5, stride=5)
    even = replace(found, drops=np.full((1, 30, 40), 0.25), boxes=np.array([[3.0, 10, 13, 36]]))
    share, area = fall_inside_box(even)
    assert share == area == pytest.approx(10*26/1200)
    mixed = replace(even, drops=np.where(np.arange(40) < 20, 0.5, -0.5)*np.ones((1, 30, 1)))       # rises do not count
    assert fall_inside_box(mixed)[0] == pytest.approx(10*10/600)


@pytest.mark.parametrize("size, stride", [(5, 5), (7, 9), (9, 12)])
def test_a_fall_that_is_the_same_at_all_places_lies_in_the_box_by_its_area_also_where_the_stride_leaves_a_rim(size, stride):
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), picture, [0], size=size, stride=stride)
    even = np.full(found.probabilities.shape[1:], 0.25)
    drops = drop_form(even, found.tops, found.lefts, size, 30, 40)[None]
    assert np.isnan(drops).any() == (stride > 5)
    share, area = fall_inside_box(replace(found, drops=drops, boxes=np.array([[3.0, 10, 30, 36]])))
    assert share == pytest.approx(area, rel=1e-12)


def test_another_class_wins_where_it_is_not_the_one_that_is_followed():
    network, picture, mean = planted(EVERYWHERE)
    one = occlusion(Trained(network, mean), np.concatenate([picture]*2), [0, 1], size=10, stride=5)            # 5 x 7 places
    winners = np.zeros((2, 5, 7), np.int64)
    winners[:, 0, :5] = 1
    found = replace(one, most_probable=winners, clean_classes=np.array([0, 0]))
    np.testing.assert_allclose(share_lost(found), [5/35, 30/35])
    assert "and another class wins at 50 % of the places, as it does without the square in 1 of them" in closing(None, [found])
    alone = lambda i: replace(found, **{name: value[i:i + 1] for name, value in vars(found).items()
                                        if isinstance(value, np.ndarray) and len(value) == 2}, names=np.array(["it"]))
    assert "wins at 86 % of the places, as it does without the square;" in closing(None, [alone(1)]) + ";"
    assert "wins at 14 % of the places;" in closing(None, [alone(0)]) + ";"
    for i in range(2):                                                # the legend of panel (e) says the same
        classes, counts = plots._winners(found, i)
        assert classes[0] == found.labels[i] and 1 - counts[0]/counts.sum() == pytest.approx(share_lost(found)[i])


def test_without_a_box_or_without_a_fall_there_is_no_share():
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), np.concatenate([picture]*3), [0]*3, size=5, stride=5)
    boxes = np.array([[np.nan]*4, [8, 20, 16, 32], [8, 20, 16, 32]])
    drops = found.drops.copy()
    drops[1] = -1
    share, area = fall_inside_box(replace(found, boxes=boxes, drops=drops))
    assert np.isnan(share).tolist() == [True, True, False] and np.isnan(area).tolist() == [True, False, False]


def test_a_map_falls_where_its_projection_lies_and_not_where_another_lies():
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), picture, [0], size=5, stride=1)
    assert found.units.tolist() == [0]
    assert correlation_with_projection(found) == pytest.approx(1, abs=1e-6)               # both count the bright pixels hidden
    shifted = replace(found, projections=np.roll(found.projections, (12, -14), axis=(1, 2)))
    assert correlation_with_projection(shifted) < 0
    signed = found.projections*np.where(np.arange(40) % 2, 1, -1)[:, None]                # energy does not cancel
    assert correlation_with_projection(replace(found, projections=signed)) == pytest.approx(1, abs=1e-6)
    constant = replace(found, projections=np.zeros_like(found.projections))
    assert np.isnan(correlation_with_projection(constant))
    for sums in (0.1, 0.3, 7e6):                                                          # whose means are rounded
        assert np.isnan(correlation_with_projection(replace(found, sums=np.full_like(found.sums, sums)))), sums
    three = correlation_with_other_projections([found, shifted, constant])               # each with the one before it
    assert np.isnan(three[0]) and three[1] == pytest.approx(1, abs=1e-6) and three[2] == correlation_with_projection(shifted)


def test_the_drop_form_is_the_mean_fall_over_the_squares_that_cover_a_pixel():
    rng, H, W, size = np.random.default_rng(1), 13, 17, 5
    tops, lefts = np.arange(0, 7, 3), np.arange(0, 13, 4)
    fall = rng.normal(size=(3, 4))
    drops = drop_form(fall, tops, lefts, size, H, W)
    for y, x in np.ndindex(H, W):
        covering = [fall[i, j] for i, top in enumerate(tops) for j, left in enumerate(lefts)
                    if top <= y < top + size and left <= x < left + size]
        assert np.isnan(drops[y, x]) if not covering else drops[y, x] == pytest.approx(np.mean(covering))
    assert np.isnan(drops[11:]).all() and not np.isnan(drops[:11]).any()


def test_drops_are_kept_for_each_picture():
    network, pictures, mean = made("odd")
    found = occlusion(Trained(network, mean), pictures, [0, 3], size=8, stride=5)
    for n in range(N):
        fall = found.clean_probabilities[n] - found.probabilities[n]
        np.testing.assert_array_equal(found.drops[n], drop_form(fall, found.tops, found.lefts, 8, 38, 47))


# --------------------------------------------------------------------------------------------- figure and command
@pytest.mark.figures
def test_in_the_figure_each_value_stands_at_the_middle_of_its_square_in_the_frame_of_the_picture(tmp_path):
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), picture, [0], size=10, stride=5)                     # 5 x 7 places
    p = np.full((1, 5, 7), 0.9)
    p[0, 3, 1] = 0                                           # the square at rows 15:25, columns 5:15
    found = replace(found, probabilities=p, clean_probabilities=np.array([0.9]), classes=np.array(["bright", "dark"]),
                    most_probable=np.where(p > 0.5, 0, 1), boxes=np.array([[8.0, 20, 16, 32]]))
    plots.save(plots.occlusion(found), tmp_path/"figure.png")
    sheet = np.asarray(Image.open(tmp_path/"figure.png").convert("RGB")).astype(int)

    def colour(panel, row, column):                          # panels of 200 pixels, 30 x 40 pixels in each
        left, top = MARGIN + 272*(panel % 3), 2*LABEL + 230*(panel//3) + 25
        return sheet[round(top + 5*row), round(left + 5*column)]

    low, high = (255*np.array(colormaps["viridis"](value)[:3]) for value in (0.0, 0.9))          # one scale, from 0 to 1
    for at, wanted in (((20, 10), low), ((20, 15), high), ((15, 10), high), ((5, 5), high), ((25, 35), high)):
        np.testing.assert_allclose(colour(3, *at), wanted, atol=2)
    for panel in (1, 3, 5):
        np.testing.assert_allclose(colour(panel, 1, 20), 128, atol=1)                     # nothing has its middle here
        np.testing.assert_allclose(colour(panel, 20, 39), 128, atol=1)
    np.testing.assert_allclose(colour(5, 20, 10), [242, 142, 43], atol=2)                 # the second class, once
    np.testing.assert_allclose(colour(5, 20, 20), [78, 121, 167], atol=2)
    np.testing.assert_allclose(colour(0, 20, 10), found.grey, atol=2)                     # hidden where P falls most
    np.testing.assert_allclose(colour(0, 12, 25), 255, atol=2)


@pytest.mark.figures
def test_more_classes_than_colours_and_no_names_at_all_can_be_drawn(tmp_path):
    network, pictures, mean = made("odd")
    found = occlusion(Trained(network, mean), pictures, size=8, stride=5)
    places = np.arange(found.most_probable[0].size).reshape(found.most_probable[0].shape)
    plots.save(plots.occlusion(replace(found, most_probable=np.stack([places, 0*places]))), tmp_path/"figure.png")
    assert Image.open(tmp_path/"figure.png").height > 2*2*190


@pytest.mark.figures
def test_a_fall_of_nothing_looks_like_nothing_and_titles_say_what_is_seen(tmp_path, monkeypatch):
    said, text = [], plots.Sheet.text
    monkeypatch.setattr(plots.Sheet, "text", lambda self, left, top, lines, *more, **look: (
        said.append(lines), text(self, left, top, lines, *more, **look)))
    network, picture, mean = planted(EVERYWHERE)
    found = occlusion(Trained(network, mean), picture, [0], size=10, stride=5)
    found = replace(found, classes=np.array(["a bright one", "dark"]), names=np.array(["synthetic/val/000007"]))
    shades = []
    for fall in (2e-5, 0.3):
        drops = np.zeros_like(found.drops)
        drops[0, 20, 20] = fall
        plots.save(plots.occlusion(replace(found, drops=drops)), tmp_path/"figure.png")
        sheet = np.asarray(Image.open(tmp_path/"figure.png").convert("RGB")).astype(int)
        shades.append(np.ptp(sheet[2*LABEL + 230 + 25 + 5*20 + 2, MARGIN + 272 + 5*20 + 2]))
    assert shades[0] < 5 and shades[1] > 60
    assert said[0] == "picture 7: a bright one" and "(d) P(a bright one)" in said
    assert "fall of P: 0 to 2e-05" in said and "fall of P where hidden" in said


def silent_one():
    """Two pictures that make no map fire, so that P is the same at all places, and one that does."""
    network, picture, mean = planted(EVERYWHERE)
    network["conv1"].parameters["b"] = np.float64([-20, -1e6])                  # the blob alone is brighter than that
    return occlusion(Trained(network, mean), np.concatenate([picture]*3)*np.uint8([0, 0, 1])[:, None, None, None], [0, 1, 0], size=10,
                     stride=5)


@pytest.mark.figures
def test_where_no_map_fires_and_p_falls_nowhere_titles_and_the_sentence_say_so(monkeypatch):
    found, said, panels = silent_one(), [], []
    monkeypatch.setattr(plots.Sheet, "text", lambda self, left, top, lines, *more, **look: said.append(lines))
    plots.occlusion(found)
    assert silent(found).tolist() == [True, True, False] and found.units.tolist() == [0, 0, 0]
    assert [sum(line.startswith(title) for line in said) for title in (
        "(a) P falls nowhere", "(a) hidden where P falls most", "(b) no conv1 map fires; sum of map 0", "(b) sum of conv1 map 0",
        "(c) projected: nothing from here", "(c) projected: from here")] == [2, 1, 2, 1, 2, 1]
    shown = lambda i: plots._occluded(type("", (), {"imshow": lambda self, pixels, extent: panels.append(pixels)})(), found, i)
    for i in (0, 2):
        shown(i)
    assert (panels[0] == found.pictures[0]).all() and (panels[1] == found.grey).sum() == 3*10*10
    told = closing(None, [found])
    assert re.search(r"a correlation of \d\.\d\d, over the 1 in which it does fall; no conv1 map fires in 2 of them$", told)
    only = closing(None, [replace(found, **{name: value[:2] for name, value in vars(found).items()
                                            if isinstance(value, np.ndarray) and len(value) == 3})])
    assert "correlation" not in only and only.endswith("; no conv1 map fires in 2 of them")


def test_a_map_whose_sum_is_0_though_it_is_projected_is_not_silent():
    found = silent_one()
    assert not silent(replace(found, projections=np.ones_like(found.projections))).any()


CROP = 27


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run for ten classes, class folders of 2 x 6 pictures of noise, and files: two sound ones, a small one, a broken one."""
    place, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    network = Network("small", (3, CROP, CROP), [
        Conv("conv1", 6, K=5, S=2, P=1), ReLU("relu1"), MaxPool("pool1", K=3, S=2), Conv("conv2", 8, K=3, P=1), ReLU("relu2"),
        Flatten("flatten"), Linear("fc8", 10)]).init(0, "he")
    network["fc8"].parameters["w"] *= 64
    for part in ("train", "val"):
        for name in DRAWN[:2]:
            (place/"data"/part/name).mkdir(parents=True)
            for i in range(6 if part == "val" else 1):
                Image.fromarray(rng.integers(0, 256, (31, 31, 3), np.uint8)).save(place/"data"/part/name/f"{i}.png")
    for name, size in (("one.png", 31), ("two.png", 40), ("small.png", 20)):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(place/name)
    (place/"broken.png").write_bytes(b"no picture")
    save(place/"run.h5", Checkpoint("small", network.input_shape, network.table(), DRAWN, network.parameters(),
                                    mean_image=np.full((3, 31, 31), 127, np.float32), state={"data": str(place/"data")}))
    return place


def command(place, *more):
    main(["occlusion", "--run", str(place/"run.h5"), "--device", "cpu", "--workers", "0", *map(str, more)])


@pytest.mark.figures
def test_files_leave_arrays_a_figure_and_a_sentence_and_the_figure_comes_back_from_the_arrays(place, tmp_path, capsys):
    command(place, "--images", place/"one.png", place/"two.png", "--label", DRAWN[3], "--output", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"occlusion.h5", "occlusion.png", "strongest_conv2.h5"}
    said = spoken(capsys.readouterr().out)[-1]
    assert re.match(r"over 2 pictures: the square takes P of the class from 0\.\d\d to 0\.\d\d at its worst place, and another "
                    r"class wins at \d+ % of the places, as it does without the square in [12] of them; "
                    r"how far the strongest conv2 map falls .* correlation of", said), said
    found = results.load(tmp_path/"occlusion.h5", Occlusion)
    assert found.labels.tolist() == [3, 3] and found.classes.tolist() == DRAWN and found.boxes is None
    assert found.names.tolist() == [str(place/"one.png"), str(place/"two.png")] and found.sums.shape == (2, 22, 22)
    np.testing.assert_array_equal(found.pictures[0], np.asarray(Image.open(place/"one.png"))[2:29, 2:29])
    before = (tmp_path/"occlusion.png").read_bytes()
    (tmp_path/"occlusion.png").unlink()
    main(["redraw", str(tmp_path/"occlusion.h5")])
    assert (tmp_path/"occlusion.png").read_bytes() == before


def test_pictures_of_the_data_have_their_labels_and_are_not_among_the_others(place, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "occlusion", lambda page: None)                  # three figures take longer than all else
    monkeypatch.setattr(plots, "save", lambda drawn, path: path.touch())
    command(place, "--pictures", "all", "--layer", "conv1", "--square", 9, "--stride", 9, "--output", tmp_path)
    pages = [results.load(tmp_path/f"occlusion_0{k}.h5", Occlusion) for k in (1, 2, 3)]
    assert [len(page.labels) for page in pages] == [4, 4, 4] and (tmp_path/"occlusion_03.png").is_file()
    assert np.concatenate([page.labels for page in pages]).tolist() == [1]*6 + [0]*6      # "cat face" before "dog face"
    for page in pages:
        assert page.others.shape == (4, 3, 5, 5, 3) and page.others.any(axis=(2, 3, 4)).all()
        assert not any((view == page.views[i]).all() for i in range(4) for view in page.others[i])


def test_labels_of_other_data_are_found_by_their_names(place, tmp_path, capsys):
    for part in ("train", "val"):                            # sorted, "clock" is class 0 of these data, 9 of the network
        for name in ("clock", "owl"):
            (tmp_path/"data"/part/name).mkdir(parents=True)
            Image.open(place/"one.png").save(tmp_path/"data"/part/name/"0.png")
    ask = "--data", tmp_path/"data", "--pictures", "all", "--others", "--square", 20, "--output", tmp_path
    command(place, *ask)
    assert results.load(tmp_path/"occlusion.h5", Occlusion).labels.tolist() == [DRAWN.index("clock"), DRAWN.index("owl")]
    for part in ("train", "val"):
        (tmp_path/"data"/part/"owl").rename(tmp_path/"data"/part/"walrus")
    with pytest.raises(SystemExit):
        command(place, *ask)
    told = in_one(capsys.readouterr().err)
    assert "error: classes of the pictures: expected one of the 10 classes, e.g. " in told and "got 'walrus'; they are to be" in told


def test_of_a_network_without_classes_no_class_is_missed_and_no_label_taken():
    """What refuses such networks then says what it wants of them."""
    pictures = SimpleNamespace(classes=["owl"], labels=np.zeros(3, np.int64))
    asked = SimpleNamespace(label=None, images=None)
    assert labels_of(asked, pictures, [0, 2], []) is None and labels_of(asked, pictures, [0, 2], ["owl"]).tolist() == [0, 0]
    with pytest.raises(Expected, match="label: expected none, since the network has no classes, got 'owl'"):
        labels_of(SimpleNamespace(label=["owl"]), pictures, [0, 2], [])


def test_others_may_be_given_or_left_out(place, tmp_path):
    ask = "--square", 20, "--stride", 7, "--images", place/"one.png", "--output", tmp_path
    command(place, *ask, "--others")
    assert results.load(tmp_path/"occlusion.h5", Occlusion).others is None
    command(place, *ask, "--others", place/"two.png", place/"one.png")
    found = results.load(tmp_path/"occlusion_2.h5", Occlusion)
    assert found.others.shape[:2] == (1, 2) and any(np.allclose(view, found.views[0], atol=1e-5) for view in found.others[0])


def test_the_whole_network_at_every_place_says_the_same(place, tmp_path, capsys):
    for more in ((), ("--whole",)):
        command(place, "--pictures", "1,7", "--others", "--output", tmp_path/"".join(more), *more)
    one, other = spoken(capsys.readouterr().out)[1::2]
    assert one == other


def test_of_the_synthetic_set_the_boxes_are_known_in_the_crop(place, tmp_path, capsys):
    command(place, "--data", "drawn:objects", "--pictures", "3:5", "--others", "--output", tmp_path)
    found, drawn = results.load(tmp_path/"occlusion.h5", Occlusion), Synthetic("val", 1000, 31)
    for i, box in zip((3, 4), found.boxes):
        x0, y0, x1, y1 = drawn.truth(i).box
        np.testing.assert_allclose(box, np.clip([y0 - 2, x0 - 2, y1 - 2, x1 - 2], 0, 27))
    inside, area = fall_inside_box(found)
    wanted = f"{100*inside.mean():.0f} % of the fall lies inside the object's box, which is {100*area.mean():.0f} %"
    assert wanted in in_one(capsys.readouterr().out)


def test_of_a_folder_all_pictures_are_looked_at(place, tmp_path):
    (tmp_path/"pictures").mkdir()
    for name in "ab":
        shutil.copy(place/"one.png", tmp_path/"pictures"/f"{name}.png")
    command(place, "--images", tmp_path/"pictures", "--others", "--output", tmp_path)
    assert len(results.load(tmp_path/"occlusion.h5", Occlusion).pictures) == 2


@pytest.mark.parametrize("more, sentence", [
    (["--images", "small.png"], r"small.png: expected a shorter side of at least 27 pixels.*got 20x20.*--upscale"),
    (["--images", "one.png", "--square", "28"], "expected a whole number from 1 to 27, got 28"),
    (["--images", "one.png", "--label", "clok"], "--label: expected one of the 10 classes, e.g. clock.*got 'clok'"),
    (["--images", "one.png", "--label", "clock", "car"], "--label: expected one name, or one for each of 1 picture"),
    (["--images", "one.png", "--layer", "conv9"], "^error: --layer: expected one of conv1"),
    (["--images", "one.png", "--layer", "fc8"], "layer: expected one of maps, got fc8"),
    (["--images", "broken.png"], "broken.png"), (["--images", "none.png"], "none.png.*nothing of that name"),
    (["--images", "one.png", "--others", "broken.png"], "broken.png"),
    (["--pictures", "12"], "--pictures: expected 0 to 11, the pictures, got 12"),
    (["--pictures", "some"], "--pictures: expected all, random:N"),
    (["--pictures", "1,3,1"], "--pictures: expected different numbers, got '1' 2 times"),
    (["--images", "one.png", "./one.png"], "--images: expected different files, got '/.*one.png' 2 times"),
    (["--images", "one.png", "--others", "two.png", "two.png"], "--others: expected different files, got '/.*two.png' 2 times"),
    ([], "either --images FILES or --pictures NUMBERS, got neither"),
    (["--images", "one.png", "--pictures", "1"], "either --images FILES or --pictures NUMBERS, got both")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(place, tmp_path, capsys, monkeypatch, more, sentence):
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as left:
        command(place, *more, "--output", tmp_path/"out")
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert left.value.code == 2 and said.startswith("error: ") and re.search(sentence, said), said
    assert not (tmp_path/"out").exists() or not any((tmp_path/"out").iterdir())


def test_a_small_picture_is_enlarged_when_asked(place, tmp_path):
    command(place, "--images", place/"small.png", "--upscale", "--others", "--output", tmp_path)
    assert results.load(tmp_path/"occlusion.h5", Occlusion).pictures.shape == (1, 27, 27, 3)


def test_the_fall_inside_the_boxes_of_other_pictures_is_the_mean_over_all_of_them():
    network, picture, mean = planted((slice(4, 8), slice(10, 16)))
    found = occlusion(Trained(network, mean), np.repeat(picture, 3, axis=0), [0, 0, 0], size=3, stride=1)
    boxes = np.array([[6.0, 18, 18, 34], [0, 0, 6, 40], [6, 18, 18, 26]])                # all of the fall, none, a part
    of = [fall_inside_box(replace(found, boxes=np.repeat(box[None], 3, axis=0)))[0][0] for box in boxes]
    parts = [replace(found, boxes=boxes)]
    np.testing.assert_allclose(fall_inside_other_boxes(parts), [(of[1] + of[2])/2, (of[0] + of[2])/2, (of[0] + of[1])/2])


def test_a_picture_whose_box_is_not_known_is_left_out_of_the_boxes_of_the_others():
    network, picture, mean = planted((slice(4, 8), slice(10, 16)))
    found = occlusion(Trained(network, mean), np.repeat(picture, 4, axis=0), [0]*4, size=3, stride=1)
    boxes = np.array([[6.0, 18, 18, 34], [0, 0, 6, 40], [np.nan]*4, [6, 18, 18, 26]])
    known = boxes[[0, 1, 3]]
    without = fall_inside_other_boxes([replace(found, **{name: value[[0, 1, 3]] for name, value in vars(found).items()
                                                         if isinstance(value, np.ndarray) and len(value) == 4}, boxes=known)])
    whole = [fall_inside_box(replace(found, boxes=np.repeat(box[None], 4, axis=0)))[0][0] for box in known]
    np.testing.assert_allclose(fall_inside_other_boxes([replace(found, boxes=boxes)])[[0, 1, 3]], without)
    assert fall_inside_other_boxes([replace(found, boxes=boxes)])[2] == pytest.approx(np.mean(whole))
    nowhere = np.where(np.arange(4)[:, None] == 1, boxes, np.nan)
    assert np.isnan(fall_inside_other_boxes([replace(found, boxes=nowhere)])).tolist() == [False, True, False, False]
