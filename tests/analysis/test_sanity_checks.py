"""Sanity checks of projections: each replaces one thing and nothing else, and planted cases have the similarities they must
have."""
from dataclasses import replace

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tests.analysis.test_evolution import command, planted_run, refused
from tests.analysis.test_top_activations import CROP, MEAN, SIZE, Noise, pictures_of, small
from tests.spoken import in_one
from zfcore import plots, results
from zfcore.analysis.sanity_checks import (PART, SanityChecks, cascade, conditions, legibility, length, object_boxes,
                                           randomised, rank_correlation, sanity_checks, shares_in_boxes, shares_in_parts, shares_of_start,
                                           similarities)
from zfcore.analysis.top_activations import crops, field_regions, top_activations
from zfcore.check import Expected
from zfcore.commands.sanity_checks import in_words
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic, Truth, render
from zfcore.deconvnet import DECONVNET, descend, project, start_signal
from zfcore.layers import Conv, MaxPool, ReLU
from zfcore.models.zfnet import zfnet
from zfcore.network import Network
from zfcore.ops.window import Regions
from zfcore.trained import Trained

UNITS = [0, 3, 6]


def controlled(network, layer="conv2", units=UNITS, data=None, k=3, start=None, **options):
    pictures = data if isinstance(data, Pictures) else pictures_of(data or Noise())
    mean = MEAN if pictures.size == SIZE else np.full((3, pictures.size, pictures.size), 127, np.float32)
    model = Trained(network, mean, begun=lambda: start)
    top = top_activations(model, pictures, [layer], k, batch_size=8)
    return sanity_checks(model, pictures, top, layer, units, **options), top


@pytest.fixture(scope="module")
def found():
    return controlled(small())[0]


# ------------------------------------------------------------------------------------------------- what is replaced
def test_the_conditions_go_down_from_the_units_own_layer():
    network = small()
    assert conditions(network, "conv2").tolist() == ["as trained", "conv2", "conv2 to conv1", "another unit", "other switches"]
    assert cascade(network, "fc6") == [["fc6"], ["fc6", "conv2"], ["fc6", "conv2", "conv1"]]
    assert cascade(network, "relu1") == [["conv1"]] and length(network, "conv2", 7) == 35


def test_only_those_that_are_asked_for_are_made_and_are_the_same(monkeypatch):
    network, start, only = small(), small(seed=5), ("as trained", "another unit", "untrained")
    every, _ = controlled(network, start=start)
    monkeypatch.setattr("zfcore.analysis.sanity_checks.randomised",
                        lambda *_: pytest.fail("a network was made that nobody asked for"))
    some, _ = controlled(network, start=start, only=only)
    assert some.conditions.tolist() == list(only)
    at = [every.conditions.tolist().index(condition) for condition in only]
    np.testing.assert_array_equal(some.projections, every.projections[:, at])


def test_the_first_column_is_the_projection_itself_up_to_its_strength(found):
    network = small()
    x = Trained(network, MEAN).inputs(Noise().pixels[found.pictures])
    places = top_activations(Trained(network, MEAN), pictures_of(Noise()), ["conv2"], 3, batch_size=8)
    where = places.places["conv2"][UNITS].reshape(-1, 2)
    made = project(network, x, "conv2", found.units, where)
    regions = field_regions(network, "conv2", places.boxes["conv2"][UNITS].reshape(-1, 4))
    np.testing.assert_allclose(found.projections[:, 0], crops(made.pixels/made.values, regions), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.cosine[:, 0], 1)
    np.testing.assert_allclose(found.rank[:, 0], 1)
    assert found.units.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6] and found.names[0] == f"noise/{found.pictures[0]}"


def test_every_control_changes_the_projection_and_inside_and_area_are_not_known_for_noise(found):
    assert (found.cosine[:, 1:] < 0.999).all() and found.inside is None and found.area is None
    assert found.projections.any(axis=(2, 3, 4)).all() and found.patches.shape == (9, 17, 17, 3)


def test_a_random_layer_keeps_its_values_and_the_other_layers_their_arrays():
    network = small()
    made = randomised(network, ["conv2", "fc6"], seed=3)
    for name, of_layer in network.parameters().items():
        for key, array in of_layer.items():
            new = made[name].parameters[key]
            np.testing.assert_array_equal(np.sort(new, axis=None), np.sort(array, axis=None))
            assert new.dtype == array.dtype and new.shape == array.shape
            if name in ("conv2", "fc6"):
                assert key == "b" or (new != array).mean() > 0.9
            else:
                assert new is array
    more = randomised(network, ["conv2", "fc6", "conv1"], seed=3)
    np.testing.assert_array_equal(more["conv2"].parameters["w"], made["conv2"].parameters["w"])
    assert (randomised(network, ["conv2"], seed=4)["conv2"].parameters["w"] != made["conv2"].parameters["w"]).any()


def test_layers_of_one_shape_are_not_put_in_the_same_order():
    network = Network("twins", (4, 9, 9), [Conv("conv1", 4, K=3, P=1), ReLU("relu1"), Conv("conv2", 4, K=3, P=1)]).init()
    network["conv2"].parameters["w"][:] = network["conv1"].parameters["w"]
    made = randomised(network, ["conv1", "conv2"])
    assert (made["conv1"].parameters["w"] != made["conv2"].parameters["w"]).mean() > 0.9


def test_weights_that_are_all_equal_survive_any_order():
    network = small()
    network["conv2"].parameters["w"][:] = 0.01
    network["conv2"].parameters["b"][:] = 0
    found, _ = controlled(network)
    np.testing.assert_allclose(found.cosine[:, 1], 1)
    np.testing.assert_allclose(found.rank[:, 1], 1)
    assert (found.cosine[:, 2] < 0.99).all()


def test_a_twin_is_no_other_unit():
    network = small()
    for array in network["conv2"].parameters.values():
        array[...] = array[..., :1]
    found, _ = controlled(network)
    np.testing.assert_allclose(found.cosine[:, 3], 1)


def test_another_unit_and_another_picture_are_other_ones_and_drawn_by_the_seed():
    network, seen = small(), []
    pictures = pictures_of(Noise())
    one, top = controlled(network, data=pictures)
    other, _ = controlled(network, data=pictures, seed=1)
    same, _ = controlled(network, data=pictures)
    np.testing.assert_array_equal(one.projections, same.projections)
    assert (one.projections[:, 3] != other.projections[:, 3]).any() and (one.projections[:, 4] != other.projections[:, 4]).any()
    for n in range(len(one.units)):                              # the unit and the picture that give the control's bits
        x = Trained(network, MEAN).inputs(Noise().pixels)
        place = top.places["conv2"][UNITS].reshape(-1, 2)[n]
        region = field_regions(network, "conv2", top.boxes["conv2"][UNITS].reshape(-1, 4)[[n]])
        fits = [unit for unit in range(7) if np.allclose(one.projections[n, 3], crops(project(
            network, x[..., [one.pictures[n]]], "conv2", [unit], [place], start=1).pixels, region)[0], atol=1e-7)]
        assert len(fits) == 1 and fits != [one.units[n]]
        seen.append(fits[0])
    assert len(set(seen)) > 2


def test_other_switches_are_those_of_a_forward_of_another_picture_and_nothing_else_of_it():
    network = small()
    found, top = controlled(network)
    places = top.places["conv2"][UNITS].reshape(-1, 2)
    x = Trained(network, MEAN).inputs(Noise().pixels)
    _, own = network.forward(x[..., found.pictures[:1]], until="relu2")
    matches = 0
    for m in range(len(Noise())):
        y, other = network.forward(x[..., [m]], until="relu2")
        mixed = [theirs if isinstance(layer, MaxPool) else ours for layer, ours, theirs in zip(network.layers, own, other)]
        dy = start_signal(y, found.units[:1], places[:1], None, start=1)
        pixels = descend(network, dy, mixed, DECONVNET, places[:1])
        region = field_regions(network, "conv2", top.boxes["conv2"][UNITS].reshape(-1, 4)[:1])
        if np.allclose(crops(pixels, region)[0], found.projections[0, 4], atol=1e-7):
            matches += m != found.pictures[0]
    assert matches >= 1


def test_pictures_that_are_all_the_same_have_the_same_switches():
    data = Noise()
    data.pixels[:] = data.pixels[0]
    found, _ = controlled(small(), data=data)
    np.testing.assert_allclose(found.cosine[:, 4], 1)


def test_a_layer_without_a_pool_below_it_has_all_other_controls_and_one_that_there_is_not_is_refused():
    network, pictures = small(), pictures_of(Noise())
    top = top_activations(Trained(network, MEAN), pictures, ["conv1", "conv2"], 2, batch_size=8)
    found = sanity_checks(Trained(network, MEAN), pictures, top, "conv1", [0])
    assert found.conditions.tolist() == ["as trained", "conv1", "another unit"]
    with pytest.raises(Expected, match="one of conv1"):
        sanity_checks(Trained(network, MEAN), pictures, top, "conv9", [0])


def test_units_that_never_fire_layers_of_one_unit_and_a_single_picture_are_refused():
    with pytest.raises(Expected, match="units of conv2 that some picture makes fire, got 1 that never fire"):
        controlled(small(), units=[2])
    with pytest.raises(Expected, match="two or more that make units of conv2 fire, got 1"):
        controlled(small(), data=_one_picture(), k=1)
    lonely = Network("lonely", (3, CROP, CROP), [Conv("conv1", 2, K=5), ReLU("relu1"), MaxPool("pool1", K=3, S=2),
                                                Conv("conv2", 1, K=3), ReLU("relu2")]).init(0, "he")
    with pytest.raises(Expected, match="two units or more"):
        controlled(lonely, units=[0])


def _one_picture():
    data = Noise(32)
    data.pixels, data.labels, data.names = data.pixels[:1], data.labels[:1], data.names[:1]
    return data


# ------------------------------------------------------------------------------------------------------- the numbers
def test_rank_correlation_follows_order_alone_and_shares_ranks_among_equals():
    values = np.array([0.1, 5, 2, 3.5, -1])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1) and rank_correlation(values,
                                                                                             -values**3) == pytest.approx(-1)
    one, other = np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])           # ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4
    assert rank_correlation(one, other) == pytest.approx(4.5/np.sqrt(4.5*5))
    assert rank_correlation(values, np.ones(5)) == 0


def test_similarities_look_at_the_pixels_inside_the_picture_only():
    network = small()
    rng = np.random.default_rng(0)
    projections = rng.standard_normal((1, 2, 17, 17, 3)).astype(np.float32)
    projections[:, :, :9] = 0                                             # 9 rows of the field lie above the picture
    cosines, ranks = similarities(network, projections, Regions(np.array([-9]), np.array([4]), 17))
    below = projections[0, :, 9:]
    strengths = np.abs(below).sum(axis=-1).reshape(2, -1)
    assert ranks[0,
                 1] == pytest.approx(rank_correlation(*strengths)) and abs(ranks[0, 1]) < 0.3 and ranks[0, 0] == pytest.approx(1)
    assert cosines[0, 1] == pytest.approx((below[0]*below[1]).sum()/np.sqrt((below[0]**2).sum()*(below[1]**2).sum()), rel=1e-5)


def test_energy_that_is_everywhere_lies_in_a_box_as_the_area_does_and_energy_planted_there_entirely():
    network, regions = small(), Regions(np.array([-5, 10]), np.array([3, 28]), 17)
    boxes = np.array([(4.5, -3, 12, 6.25), (25, 15, 33, 40)], float)      # left, top, right, bottom
    flat, planted = np.ones((2, 2, 17, 17, 3), np.float32)
    flat[0, :5], flat[1, :, 5:] = 0, 0                                    # nothing is projected beyond the picture's border
    planted[:] = 0
    planted[0, 6:10, 5:8], planted[1, 6:9, :4] = 2, -3
    inside, area = shares_in_boxes(network, np.stack([flat, planted], axis=1), regions, boxes)
    np.testing.assert_allclose(area, [7.5*6.25/(12*17), 5*12/(17*5)])
    np.testing.assert_allclose(inside, np.stack([area, [1, 1]], axis=1))
    nothing = np.zeros((2, 1, 17, 17, 3), np.float32)
    assert np.isnan(shares_in_boxes(network, nothing, regions, boxes)[0]).all()


def test_the_box_is_where_the_object_was_drawn_in_the_crop_that_the_network_sees():
    data = Synthetic("val", 6, SIZE)
    pictures = Pictures(data, SIZE, CROP, workers=0)
    with_it, without = (np.stack([np.asarray(render(data.scene(i), SIZE, layers), float) for i in range(6)])
                        for layers in (("object",), ()))
    drawn = (with_it - without)[:, 3:-3, 3:-3]
    regions = Regions(np.zeros(6, int), np.zeros(6, int), CROP)
    boxes = object_boxes([data.truth(i) for i in range(6)], (pictures.size - CROP)//2)
    inside, area = shares_in_boxes(small(), drawn[:, None].astype(np.float32), regions, boxes)
    moved, _ = shares_in_boxes(small(), drawn[:, None].astype(np.float32), regions, boxes + 4)
    assert (inside > 0.93).all() and (area < 0.95).all() and (moved < inside).all()
    assert (inside[:, 0] > area).all()


def test_on_the_drawn_set_every_condition_has_its_share_in_the_box():
    found, _ = controlled(small(), "fc8", [0, 2], data=Pictures(Synthetic("val", 12, SIZE), SIZE, CROP, workers=0), k=2)
    assert isinstance(found, SanityChecks) and found.inside.shape == (4, 7) and found.area.shape == (4,)
    assert ((found.inside >= 0) & (found.inside <= 1)).all() and ((found.area > 0) & (found.area < 1)).all()


# -------------------------------------------------------------------------------------------- the start of the weights
def test_a_network_that_is_still_its_start_projects_as_its_start_does():
    found, _ = controlled(small(), start=small())
    assert found.conditions.tolist()[-2:] == ["weights of the start", "untrained"] and length(small(), "conv2", 7,
                                                                                              small()) == 49
    np.testing.assert_allclose(found.cosine[:, -2:], 1)


def test_the_weights_of_the_start_come_down_through_the_switches_as_trained_and_untrained_has_its_own():
    network, start = small(), small(seed=5)
    found, _ = controlled(network, start=start, units=[0, 3], k=2)
    expected = small()                                    # trained on the way up; on the way down the start's filters
    for n, (unit, picture) in enumerate(zip(found.units, found.pictures)):
        x = Trained(network, MEAN).inputs(Noise().pixels[picture:picture + 1])
        _, caches = expected.forward(x, until="relu2")
        place = project(network, x, "conv2", [unit]).places
        for k, name in ((0, "conv1"), (4, "conv2")):
            caches[k] = caches[k]._replace(w=start[name].parameters["w"])
        mixed = descend(network, start_signal(caches[5], np.array([unit]), place, None, start=1), caches)
        own = project(start, x, "conv2", [unit], place, start=1).pixels
        for pixels, j in ((mixed, -2), (own, -1)):
            shown = found.projections[n, j]
            assert shown.any() and np.isclose(np.square(shown).sum(), np.square(pixels).sum(), rtol=1e-4), j


def test_the_share_of_the_start_is_one_for_the_start_and_falls_with_what_is_learned_beside_it():
    start, network = small(), small()
    for array in network["conv2"].parameters.values():
        array *= -3                                       # size and sign are no direction
    rng = np.random.default_rng(2)
    w0 = start["fc6"].parameters["w"]
    aside = rng.standard_normal(w0.shape).astype(np.float32)
    aside -= w0*(aside*w0).sum()/np.square(w0).sum()
    network["fc6"].parameters["w"] = w0 + aside*np.sqrt(3*np.square(w0).sum()/np.square(aside).sum())
    shares = shares_of_start(network, start)
    assert shares["conv1"] == pytest.approx(1) and shares["conv2"] == pytest.approx(1)
    assert shares["fc6"] == pytest.approx(0.25, rel=1e-4)


def test_the_share_of_the_start_has_the_same_bits_on_any_number_of_threads():
    network, start = (zfnet(classes=7, size=64, maps=(16, 24, 24, 24, 16), units=(512, 64)).init(seed) for seed in (1, 2))
    found = []
    for threads in 1, 2:
        with threadpool_limits(threads):
            found.append(shares_of_start(network, start))
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------------------------- parts
def test_energy_in_parts_is_counted_inside_the_box_around_the_parts_that_are_seen():
    regions = Regions(np.array([0, -4]), np.array([0, 3]), CROP)
    truth = Truth(0, (13, 8, 33, 28), {"eye": (18, 15), "hand": (29, 22), "foot": (20, 26)},
                  {"eye": True, "hand": True, "foot": False})
    margin, radius = 3, PART*20
    planted = np.zeros((2, 3, CROP, CROP, 3), np.float32)
    for i, (top, left) in enumerate(((0, 0), (-4, 3))):
        at = lambda x, y: (i, slice(None), int(y) - margin - top, int(x) - margin - left)
        planted[at(18, 15)], planted[at(29, 22)] = 1, 2                   # in both discs
        planted[at(20, 26)], planted[at(14, 27)] = 3, 4                   # a part that is hidden; in the box, no part
        planted[at(11, 9)] = 100                                          # outside the box
    in_parts, area = shares_in_parts(small(), planted, regions, [truth]*2, margin)
    np.testing.assert_allclose(in_parts, (1 + 4)/(1 + 4 + 9 + 16), rtol=1e-6)
    np.testing.assert_allclose(area, 2*np.pi*radius**2/400, rtol=0.15)
    hidden = Truth(0, truth.box, truth.parts, dict.fromkeys(truth.parts, False))
    nothing, no_area = shares_in_parts(small(), planted[:1], regions, [hidden], margin)
    assert np.isnan(nothing).all() and np.isnan(no_area).all()


def test_the_legibility_of_a_training_run_is_the_share_in_the_boxes_of_each_pictures_strongest_unit():
    pictures, network = Pictures(Synthetic("val", 12, SIZE), SIZE, CROP, workers=0), small()
    mean = np.full((3, SIZE, SIZE), 127, np.float32)
    inside, area = legibility(Trained(network, mean), pictures)
    assert 0 < inside <= 1 and 0.3 < area < 1
    for of_layer in network.parameters().values():
        of_layer["w"][:] = 0
    assert np.isnan(legibility(Trained(network, mean), pictures)[0])               # nothing is projected


@pytest.mark.figures
@pytest.mark.filterwarnings("error")
def test_of_a_control_that_projects_nothing_no_share_is_told_and_of_the_others_theirs(found):
    n, J = found.cosine.shape
    inside = np.full((n, J), 0.5)
    inside[:, 1], inside[0, 2] = np.nan, np.nan
    some = replace(found, inside=inside, area=np.full(n, 0.25), in_parts=inside, parts_area=np.full(n, 0.1))
    assert in_words(some, 1, "conv2").endswith(", nothing is projected")
    assert in_words(some, 2, "conv2").endswith("50 % of the energy in the object's box, which is 25 % of the field, "
                                               "50 % of that in its parts, which are 10 % of the box")
    texts = [line for _, _, line, *_ in plots.sanity_checks(some).texts]
    assert texts.count("in box nothing") == texts.count("in parts nothing") == 1 and texts.count("in box 50 %") == J - 1


# ------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return planted_run(tmp_path_factory.mktemp("sanity-checks"))


def test_the_command_shows_the_last_convolution_and_the_classes_and_draws_again_from_the_arrays(run, tmp_path, capsys):
    command("sanity-checks", "--run", run, "--output", tmp_path, "--units", "0,1", "--k", "2")
    assert {p.name for p in tmp_path.iterdir()} == {"conv2.h5", "conv2.png", "fc8.h5", "fc8.png", "strongest.h5"}
    found = results.load(tmp_path/"fc8.h5", SanityChecks)
    assert found.units.tolist() == [0, 0, 1, 1] and found.conditions[4] == "fc8 to conv1" and found.inside is None
    said = in_one(capsys.readouterr().out)
    assert f"fc8, another unit: cosine {found.cosine[:, 5].mean():.2f}, rank" in said
    assert f"fc8, random order of weights: fc8 to conv1: cosine {found.cosine[:, 4].mean():.2f}, rank" in said
    before = (tmp_path/"fc8.png").read_bytes()
    (tmp_path/"fc8.png").unlink()
    with h5py.File(tmp_path/"fc8.h5", "a") as file:
        assert file.attrs["kind"] == b"SanityChecks"
        file.attrs["kind"] = np.bytes_("Controls")                     # as older files say
    command("redraw", tmp_path/"fc8.h5")
    assert (tmp_path/"fc8.png").read_bytes() == before


@pytest.mark.parametrize("more, sentence", [
    (["--layers", "conv9"], "one of conv1"),
    (["--units", "0:99"], "--units: expected 0 to 6, the units of conv2"),
    (["--layers", "conv2", "--units", 2], "units of conv2 that some picture makes fire"), (["--data", "nowhere"], "nowhere"),
    (["--output", __file__], "--output: expected a place where a folder can be made")])
def test_bad_input_is_one_sentence_and_leaves_no_figure(run, tmp_path, capsys, more, sentence):
    assert sentence in refused(capsys, "sanity-checks", "--run", run, "--output", tmp_path/"out", *more)
    assert not (tmp_path/"out").exists() or {p.name for p in (tmp_path/"out").iterdir()} <= {"strongest.h5"}


def test_a_network_without_pooling_is_checked_and_an_empty_set_is_one_sentence(run, tmp_path, capsys):
    plain = Network("plain", (3, CROP, CROP), [Conv("conv1", 4, K=5, S=2), ReLU("relu1"), Conv("conv2", 5, K=3), ReLU("relu2")])
    poolless = planted_run(tmp_path/"plain", network=plain.init(0, "he"), pictures=1)
    command("sanity-checks", "--run", poolless, "--layers", "relu2", "--k", 1)
    said = in_one(capsys.readouterr().out)
    assert "relu2, random order of weights: conv2 to conv1: cosine" in said and "switches" not in said
    for part in ("train", "val"):
        (tmp_path/"none"/part/"bee").mkdir(parents=True)
    assert "none" in refused(capsys, "sanity-checks", "--run", run, "--data", tmp_path/"none")
