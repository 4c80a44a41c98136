"""One pass finds the strongest pictures of every unit; their projections and patches are cropped to the unit's field."""
import copy

import numpy as np
import pytest
from PIL import Image

from zfcore import plots, results
from zfcore.analysis.top_activations import TopActivations, fingerprint, merge, top_activations, unit_views
from zfcore.check import Expected
from zfcore.data.loader import SEEN, Pictures
from zfcore.data.transforms import CorruptImage
from zfcore.deconvnet import project
from zfcore.layers import Conv, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.trained import Trained

SIZE, CROP, COUNT, K = 39, 33, 47, 4
SELDOM = -8.29                               # a bias with which conv2's unit 5 fires for fewer than K pictures
LAYERS = ["conv1", "norm1", "conv2", "fc6", "fc8"]


class Noise:
    """47 pictures in memory; 20 and 31 are the same as 3, so some ties are within a batch and some are not."""
    def __init__(self, count=COUNT, seed=0, damaged=()):
        self.pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
        self.pixels[[20, 31]] = self.pixels[3]
        self.classes, self.labels = ["a", "b"], np.arange(count) % 2
        self.names, self.damaged, self.read = [f"noise/{i}" for i in range(count)], damaged, []

    def __len__(self):
        return len(self.pixels)

    def picture(self, i):
        self.read.append(i)
        if i in self.damaged:
            raise CorruptImage(self.names[i], "torn")
        return Image.fromarray(self.pixels[i])


def pictures_of(dataset):
    return Pictures(dataset, SIZE, CROP, workers=0, memory=0)


def small(seed=0):
    """Unit 2 of conv2 never fires, unit 5 seldom; the scores of all classes are below zero."""
    made = Network("small", (3, CROP, CROP), [
        Conv("conv1", 6, K=5, S=2, P=1), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"),
        Conv("conv2", 7, K=3, P=1), ReLU("relu2"), MaxPool("pool2", K=3, S=2),
        Flatten("flatten"), Linear("fc6", 9), ReLU("relu6"), Linear("fc8", 3)]).init()
    rng = np.random.default_rng(seed)
    for of_layer in made.parameters().values():
        fan_in = np.prod(of_layer["w"].shape[:-1])
        of_layer["w"] = rng.standard_normal(of_layer["w"].shape, np.float32)*np.float32(np.sqrt(2/fan_in))
    made["conv1"].parameters["w"] /= 64
    made["conv2"].parameters["b"][[2, 5]] = -1e3, SELDOM
    made["fc8"].parameters["b"][:] = -1e3
    return made


@pytest.fixture(scope="module")
def network():
    return small()


MEAN = np.random.default_rng(9).uniform(100, 150, (3, SIZE, SIZE)).astype(np.float32)


def scan(network, dataset=None, **options):
    options = {"layers": LAYERS, "k": K, "batch_size": 8, **options}
    return top_activations(Trained(network, MEAN), pictures_of(dataset or Noise()), **options)


@pytest.fixture(scope="module")
def found(network):
    return scan(network)


def same(a, b):
    assert a.total == b.total and a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.ranges, b.ranges)
    for name in ("values", "pictures", "places", "boxes"):
        one, other = getattr(a, name), getattr(b, name)
        assert list(one) == list(other)
        for layer in one:
            assert one[layer].dtype == other[layer].dtype
            np.testing.assert_array_equal(one[layer], other[layer], f"{name} {layer}")


def test_a_pass_in_another_precision_is_another_pass(network, found):
    twin = copy.deepcopy(network)
    assert fingerprint(Trained(twin, MEAN), pictures_of(Noise()), K, 8) == found.fingerprint
    twin[LAYERS[0]].precision = "tf32"
    assert fingerprint(Trained(twin, MEAN), pictures_of(Noise()), K, 8) == found.fingerprint + " tf32"


# ------------------------------------------------------------------------------------------------------- the pass
def test_the_strongest_pictures_of_every_unit_are_those_that_sorting_all_activations_gives(network, found):
    x = Trained(network, MEAN).inputs(Noise().pixels)
    for layer, plain in zip(LAYERS, ("relu1", "norm1", "relu2", "relu6", "fc8")):
        y = network.activations(x, [plain])[plain]
        maps = y.reshape(len(y), -1, COUNT)
        for unit in range(len(y)):
            strongest = np.sort(maps[unit].max(axis=0))[::-1][:K]
            strongest = strongest if layer == "fc8" else strongest[strongest > 0]
            kept = [n for n in found.pictures[layer][unit].tolist() if n >= 0]
            assert len(set(kept)) == len(strongest)
            np.testing.assert_allclose(found.values[layer][unit, :len(kept)], strongest, rtol=1e-5)
            for rank, n in enumerate(kept):
                place = int(maps[unit, :, n].argmax())
                assert found.values[layer][unit, rank] == pytest.approx(maps[unit, place, n], rel=1e-5)
                if y.ndim == 4:
                    assert tuple(found.places[layer][unit, rank]) == divmod(place, y.shape[2])


def test_equal_pictures_keep_the_order_of_the_data_set(found):
    trios = [row.tolist() for layer in LAYERS for row in found.pictures[layer] if 3 in row]
    assert trios and all(row[row.index(3):][:3] == [3, 20, 31][:K - row.index(3)] for row in trios)


def test_a_unit_that_never_fires_has_no_pictures_and_one_that_seldom_does_has_few(found):
    assert found.dead("conv2").tolist() == [unit == 2 for unit in range(7)]
    assert not found.dead("conv1").any() and not found.dead("fc8").any()
    for name, empty in (("values", 0), ("pictures", -1), ("places", -1), ("boxes", -1)):
        assert (getattr(found, name)["conv2"][2] == empty).all()
    few = found.pictures["conv2"][5]
    assert 0 < (few >= 0).sum() < K and (found.values["conv2"][5][few < 0] == 0).all() and (few[:1] >= 0).all()


def test_classes_are_ranked_although_their_scores_are_below_zero(found):
    assert (found.values["fc8"] < 0).all() and (found.pictures["fc8"] >= 0).all()
    assert (np.diff(found.values["fc8"], axis=1) <= 0).all()


def test_a_box_is_the_receptive_field_of_its_place(network, found):
    field, jump, start = network.receptive_fields()[network.index("conv2")]
    assert (field, jump, start) == (17, 4, -5)
    filled = found.pictures["conv2"] >= 0
    boxes, places = found.boxes["conv2"][filled], found.places["conv2"][filled]
    np.testing.assert_array_equal(boxes[:, :2], 4*places - 5)
    np.testing.assert_array_equal(boxes[:, 2:], boxes[:, :2] + 17)
    assert (found.boxes["fc8"] == (0, 0, CROP, CROP)).all()


def test_the_batch_size_changes_no_picture_and_no_place(network, found):
    other = scan(network, batch_size=13)
    for layer in LAYERS:
        np.testing.assert_array_equal(found.pictures[layer], other.pictures[layer])
        np.testing.assert_allclose(found.values[layer], other.values[layer], rtol=1e-4, atol=1e-4)


def test_a_list_longer_than_the_data_set_ends_empty(network):
    found = scan(network, k=COUNT + 5, layers=["fc8"])
    assert (np.sort(found.pictures["fc8"])[:, 5:] == np.arange(COUNT)).all() and (found.pictures["fc8"][:, COUNT:] == -1).all()


def test_a_damaged_picture_is_in_no_list_and_the_others_keep_their_numbers(network, capsys):
    whole, torn = Noise(200), Noise(200, damaged=(11,))
    plain, found = (scan(network, dataset, layers=["conv1"], k=200) for dataset in (whole, torn))
    assert 11 in plain.pictures["conv1"] and 11 not in found.pictures["conv1"] and found.complete
    assert "noise/11" in capsys.readouterr().err
    for with_it, without in zip(plain.pictures["conv1"], found.pictures["conv1"]):
        assert [n for n in with_it if n not in (11, -1)] == [n for n in without if n != -1]


# ------------------------------------------------------------------------------------------- stopped, in parts
class Stopping:
    """A progress bar at which the pass is stopped, as Ctrl-C would, after so many batches."""
    def __init__(self, batches):
        self.left = batches + 1

    def update(self, count):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batches", [1, 4])
def test_a_pass_that_was_stopped_goes_on_and_ends_with_the_same_bits(network, found, tmp_path, batches):
    file = tmp_path/"top.h5"
    with pytest.raises(KeyboardInterrupt):
        scan(network, file=file, every=0, bar=Stopping(batches))
    half = results.load(file, TopActivations)
    assert half.ranges.tolist() == [[0, 8*batches]] and not half.complete
    rest = Noise()
    same(scan(network, rest, file=file), found)
    assert min(rest.read[SEEN:]) == 8*batches              # behind those that it is known by
    same(results.load(file, TopActivations), found)


def test_a_finished_pass_is_read_and_looks_at_no_other_picture_than_those_that_a_set_is_known_by(network, found, tmp_path):
    scan(network, file=tmp_path/"top.h5")
    none = Noise()
    same(scan(network, none, file=tmp_path/"top.h5"), found)
    assert scan(network, none, file=tmp_path/"top.h5", layers=["fc6"]).complete
    assert len(none.read) == 2*SEEN                        # those that it is known by


def test_a_file_is_not_written_more_often_than_asked(network, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        scan(network, file=tmp_path/"top.h5", every=3600, bar=Stopping(4))
    assert not (tmp_path/"top.h5").exists()


def test_a_file_of_another_pass_is_refused_and_untouched(network, tmp_path):
    file = tmp_path/"top.h5"
    scan(network, file=file, layers=["conv1"])
    before = file.read_bytes()
    for options in ({"k": K + 1}, {"batch_size": 9}, {"dataset": Noise(COUNT - 1)}):
        with pytest.raises(Expected, match="one of another network, data set, k, batch size or precision; remove it, or"):
            scan(network, file=file, **options)
    with pytest.raises(Expected, match="one of another network"):
        scan(small(seed=1), file=file)
    with pytest.raises(Expected, match="a pass with the layers conv1, fc8, got one with conv1"):
        scan(network, file=file, layers=["conv1", "fc8"])
    assert file.read_bytes() == before


@pytest.mark.parametrize("n", [2, 3, 9])
def test_merged_shards_are_the_single_pass_in_whatever_order(network, found, n):
    parts = [scan(network, shard=(i, n)) for i in range(1, n + 1)]
    assert not any(part.complete for part in parts)
    same(merge(parts), found)
    same(merge(parts[::-1]), found)
    same(merge([merge(parts[1:]), parts[0]]), found)


def test_shards_that_overlap_or_are_of_different_passes_are_refused_and_missing_ones_are_known(network):
    first, second, other = scan(network, shard=(1, 3)), scan(network, shard=(2, 3)), scan(network, shard=(2, 3), k=K + 1)
    with pytest.raises(Expected, match="pictures 16 to 31 twice"):
        merge([first, second, second])
    with pytest.raises(Expected, match="shards of one pass"):
        merge([first, other])
    assert merge([first, second]).ranges.tolist() == [[0, 32]] and not merge([first, second]).complete
    with pytest.raises(Expected, match="shard: expected i/n.*got 4/3"):
        scan(network, shard=(4, 3))


def test_what_is_not_there_is_named(network):
    with pytest.raises(Expected, match="one of conv1, relu1.*got 'conv3'"):
        scan(network, layers=["conv3"])
    with pytest.raises(Expected, match="pictures: expected one or more in each part"):
        empty = Noise()
        empty.labels, empty.names, empty.pixels = empty.labels[:0], [], empty.pixels[:0]
        pictures_of(empty)


# ------------------------------------------------------------------------------------- projections and patches
def test_projections_and_patches_are_cropped_to_the_field_and_grey_beyond_the_border(network, found):
    data, margin = Noise(), (SIZE - CROP)//2
    views = unit_views(Trained(network, MEAN), pictures_of(data), found, "conv2", [0, 6], batch_size=3)
    assert views.projections.shape == views.patches.shape == (2, K, 17, 17, 3)
    over_the_border = 0
    for u, unit in enumerate((0, 6)):
        for rank in range(K):
            n, place = views.pictures[u, rank], views.places[u, rank]
            top, left = views.boxes[u, rank, :2]
            x = Trained(network, MEAN).inputs(data.pixels[[n]])
            pixels = project(network, x, "conv2", [unit], [place]).pixels[..., 0]
            for row, column in np.ndindex(17, 17):
                h, w = top + row, left + column
                if 0 <= h < CROP and 0 <= w < CROP:
                    assert (views.patches[u, rank, row, column] == data.pixels[n, margin + h, margin + w]).all()
                    np.testing.assert_allclose(views.projections[u, rank, row, column], pixels[:, h, w], rtol=1e-4, atol=1e-6)
                else:
                    over_the_border += 1
                    assert (views.patches[u, rank, row, column] == 128).all() and not views.projections[u, rank, row, column].any()
            assert views.projections[u, rank].any() and views.names[u, rank] == f"noise/{n}"
    assert over_the_border


def test_a_field_wider_than_the_picture_and_a_fully_connected_layer_show_the_whole_picture(network, found):
    data, margin = Noise(), (SIZE - CROP)//2
    for layer in ("fc6", "fc8"):
        views = unit_views(Trained(network, MEAN), pictures_of(data), found, layer, [2])
        assert views.patches.shape == (1, K, CROP, CROP, 3)
        np.testing.assert_array_equal(views.patches[0, 0], data.pixels[views.pictures[0, 0], margin:-margin, margin:-margin])
    wide = Network("wide", (3, 13, 13), [Conv("conv1", 4, K=15, P=14), ReLU("relu1")]).init(0, "he")
    pictures = Pictures(data, SIZE, 13, workers=0, memory=0)
    top = top_activations(Trained(wide, MEAN), pictures, ["conv1"], k=2)
    assert unit_views(Trained(wide, MEAN), pictures, top, "conv1", [0]).patches.shape == (1, 2, 13, 13, 3)


def test_projections_of_the_first_layer_are_its_filters_which_come_along_once(network, found):
    views = unit_views(Trained(network, MEAN), pictures_of(Noise()), found, "conv1", [4, 1])
    assert views.filters.shape == (2, 5, 5, 3)
    for u, k in np.argwhere(views.pictures >= 0):
        shown = views.projections[u, k]
        there = shown != 0                                                       # beyond the border of the picture nothing is
        assert there.any()
        np.testing.assert_allclose(shown[there], views.values[u, k]*views.filters[u][there], rtol=1e-5)
    assert unit_views(Trained(network, MEAN), pictures_of(Noise()), found, "conv2", [0]).filters is None


def test_filters_that_do_not_see_all_colours_are_no_pictures_and_their_projections_are_shown():
    network = Network("grouped", (3, CROP, CROP), [Conv("conv1", 6, K=5, S=2, groups=3), ReLU("relu1")]).init(0, "he")
    model = Trained(network, MEAN)
    views = unit_views(model, pictures_of(Noise()), top_activations(model, pictures_of(Noise()), ["conv1"], k=2), "conv1", [0, 5])
    assert views.filters is None and views.projections[..., 0][0].any() and not views.projections[0, ..., 1:].any()
    assert plots.unit_blocks(views).height > 0


def test_where_there_is_no_picture_the_views_are_grey(network, found):
    views = unit_views(Trained(network, MEAN), pictures_of(Noise()), found, "conv2", [5, 2])
    missing = views.pictures < 0
    assert missing[1].all() and missing[0].any() and not missing[0].all()
    assert (views.patches[missing] == 128).all() and not views.projections[missing].any()
    assert (views.names[missing] == "").all() and (views.names[~missing] != "").all()
    assert views.projections[0, 0].any() and (views.patches[0, 0] != 128).any()


def test_views_of_a_unit_that_is_not_there_or_of_a_picture_that_changed_are_refused(network, found):
    with pytest.raises(Expected, match="unit of conv2: expected 0 to 6, got 7"):
        unit_views(Trained(network, MEAN), pictures_of(Noise()), found, "conv2", [7])
    pictures_of(looked_at := Noise()).fingerprint()
    known = {*looked_at.read}
    with pytest.raises(Expected, match="torn.*run the pass again"):
        unit_views(Trained(network, MEAN), pictures_of(Noise(damaged={*range(COUNT)} - known)), found, "conv1", [0])
