"""The networks have their papers' sizes and parameter counts (figure 3 and table 3; counts: sum of the layers)."""
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.layers import Conv, LocalResponseNormWithin, MaxPool, ReLU
from zfcore.models import MODELS, OPEN_QUESTIONS, build, from_table
from zfcore.models.variants import BASES, EDITS, Edit, edited, variant_name
from zfcore.network import Network

COUNTS = {
    "zfnet": 62_357_608, "zfnet-b": 107_627_624, "zfnet-fc-2048": 28_848_232, "zfnet-fc-8192": 154_542_184,
    "zfnet-b-fc-8192": 237_560_936, "zfnet-without-3-4": 59_850_088, "zfnet-without-7": 45_576_296,
    "zfnet-without-6-7": 12_943_464, "zfnet-without-3-4-6-7": 10_435_944,
    "alexnet": 62_378_344, "alexnet-grouped": 60_965_224, "alexnet-without-3-4": 59_870_824,
    "alexnet-without-7": 45_597_032, "alexnet-without-6-7": 12_964_200, "alexnet-without-3-4-6-7": 10_456_680,
    "alexnet-fc-2048": 28_868_968, "alexnet-fc-8192": 154_562_920, "alexnet-b": 107_648_360,
    "alexnet-b-fc-8192": 237_581_672,
    "vgg11": 132_863_336, "vgg16": 138_357_544, "nin": 7_595_176,
}
GROUPED = {"without-3-4": 59_268_712, "without-7": 44_183_912, "without-6-7": 11_551_080, "without-3-4-6-7": 9_854_568,
           "fc-{half}": 27_455_848, "fc-{double}": 153_149_800}


def map_sizes(network):
    """The picture's size, then that of every convolution and pool."""
    return [network.input_shape[1]] + [shape[1] for layer, shape in zip(network.layers, network.shapes[1:])
                                       if isinstance(layer, (Conv, MaxPool))]


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_at_1000_classes_are_those_of_the_paper(name):
    assert build(name, 1000).parameter_count() == COUNTS[name]


@pytest.mark.parametrize("edit", GROUPED)
def test_grouped_alexnet_variants_have_their_parameters(edit):
    assert edited(BASES["alexnet"], EDITS[edit], "grouped", groups=2).parameter_count() == GROUPED[edit]


def test_every_model_but_the_tiny_ones_has_its_count_asserted():
    assert set(COUNTS) == {name for name in MODELS if not name.startswith(("tiny", "small"))}


@pytest.mark.parametrize("base", BASES)
def test_an_edit_that_changes_nothing_gives_the_base_network(base):
    assert edited(BASES[base], Edit(), base, 10, 96).table() == build(base, 10, 96).table()


@pytest.mark.parametrize("small, big", [("tiny", "zfnet"), ("tiny-alexnet", "alexnet")])
@pytest.mark.parametrize("edit", EDITS)
def test_a_small_row_of_table_3_has_the_layers_of_the_big_one_and_keeps_its_proportions(small, big, edit):
    a, b = (build(variant_name(base, edit), 10, 96) for base in (small, big))
    assert [(type(layer), layer.name, layer.window()) for layer in a.layers] == [
        (type(layer), layer.name, layer.window()) for layer in b.layers]
    for one, other in zip(a.layers[:-1], b.layers[:-1]):
        assert 4*getattr(one, "F", 0) == getattr(other, "F", 0) and 16*getattr(one, "M", 0) == getattr(other, "M", 0)


def test_small_rows_are_called_after_their_own_units():
    assert {"tiny-without-3-4", "tiny-b", "tiny-fc-128", "tiny-b-fc-512", "tiny-alexnet-fc-512"} <= set(MODELS)
    assert build("tiny-b", 10).input_shape == (3, 96, 96) and build("tiny-b", 10)["conv4"].F == 256
    assert build("tiny-fc-128", 10)["fc7"].M == 128


def test_a_layer_left_out_takes_its_relu_and_dropout_along():
    names = {layer.name for layer in build("tiny-alexnet-without-3-4-6-7", 10).layers}
    assert names == {"conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", "conv5", "relu5", "pool5",
                     "flatten", "fc8"}


def test_zfnet_has_the_map_sizes_of_figure_3():
    assert map_sizes(build("zfnet", 1000)) == [224, 110, 55, 26, 13, 13, 13, 13, 6]


def test_alexnet_has_its_map_sizes():
    assert map_sizes(build("alexnet", 1000)) == [224, 55, 27, 27, 13, 13, 13, 13, 6]


def test_vgg_halves_its_maps_five_times_in_11_and_16_layers_with_weights():
    for name, convolutions in (("vgg11", 8), ("vgg16", 13)):
        network = build(name, 1000)
        pooled = [shape[1] for layer, shape in zip(network.layers, network.shapes[1:]) if isinstance(layer, MaxPool)]
        assert pooled == [112, 56, 28, 14, 7]
        assert [layer.window() for layer in network.convolutions] == convolutions*[(3, 1, 1)]
        assert len(network.weighted) == convolutions + 3


def test_every_class_of_nin_is_the_mean_of_its_own_map():
    network = build("nin", 7, 96)
    assert map_sizes(build("nin", 1000)) == [224, 55, 55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 6, 6, 6, 6]
    network.init(1, "he")
    x = np.random.default_rng(0).uniform(-100, 100, (3, 96, 96, 2)).astype(np.float32)
    maps, scores = (network.activations(x, ["relu4_3", "scores"])[name] for name in ("relu4_3", "scores"))
    assert maps.shape[1] > 1 and scores.shape == (7, 2)
    np.testing.assert_allclose(scores, maps.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", ["vgg11", "vgg16", "nin"])
def test_networks_that_are_not_the_papers_raise_no_questions_of_the_paper(name):
    assert name not in OPEN_QUESTIONS and build(name, 5, 32).shapes[-1] == (5,)


def test_layers_of_zfnet_have_the_parameters_of_figure_3():
    shapes = build("zfnet", 1000).parameter_shapes()
    counts = {name: sum(int(np.prod(s)) for s in of_layer.values()) for name, of_layer in shapes.items()}
    assert counts == {"conv1": 14_208, "conv2": 614_656, "conv3": 885_120, "conv4": 1_327_488, "conv5": 884_992,
                      "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000}


def test_tiny_has_zfnets_seven_layers_and_at_most_a_quarter_of_its_maps():
    tiny, big = build("tiny", 10), build("zfnet", 10)
    assert [type(a) for a in tiny.layers] == [type(b) for b in big.layers] and tiny.input_shape == (3, 96, 96)
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        assert 4*tiny[name].F <= big[name].F


def test_tiny_alexnet_has_alexnets_layers_and_the_maps_of_tiny():
    tiny, alexnet, zfnet = build("tiny-alexnet", 10), build("alexnet", 10), build("tiny", 10)
    assert map_sizes(tiny) == [96, 23, 11, 11, 5, 5, 5, 5, 2]
    assert [(type(a), a.name, a.window()) for a in tiny.layers] == [(type(b), b.name, b.window()) for b in alexnet.layers]
    names = ("conv1", "conv2", "conv3", "conv4", "conv5")
    assert [tiny[name].F for name in names] == [zfnet[name].F for name in names]
    assert (tiny["fc6"].M, tiny["fc7"].M, tiny["fc8"].M) == (zfnet["fc6"].M, zfnet["fc7"].M, 10)


def test_receptive_fields_of_zfnet_are_7_27_75_107_139_pixels():
    network = build("zfnet", 1000)
    seen = dict(zip((layer.name for layer in network.layers), network.receptive_fields()))
    assert [seen[f"conv{k}"][:2] for k in range(1, 6)] == [(7, 2), (27, 8), (75, 16), (107, 16), (139, 16)]
    assert [seen[f"conv{k}"][2] for k in range(1, 6)] == [0, 0, -16, -32, -48]
    assert seen["pool5"][:2] == (171, 32) and seen["fc6"] is None


def test_multiply_adds_of_zfnet_match_the_public_count():
    network = build("zfnet", 1000)
    work = sum(layer.multiply_adds(shape) for layer, shape in zip(network.layers, network.shapes))
    assert round(work/1e9, 2) == 1.17


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_network_rebuilt_from_its_table_is_the_same(name):
    network = build(name, 12, keep_prob=0.8)
    again = from_table(network.name, network.input_shape, network.table())
    assert again.table() == network.table() and again.shapes == network.shapes and again.name == name


def test_summary_names_every_layer_and_the_sums():
    text = build("zfnet", 1000).summary()
    assert "62,357,608" in text and "96x110x110" in text and "139/16" in text
    assert all(layer.name in text for layer in build("zfnet", 1000).layers)


def test_a_summarys_columns_stand_apart_and_below_each_other_whatever_layers_are_called():
    network = Network("x", (3, 9, 9), [LocalResponseNormWithin("7_LocalResponseNormWithin", 3), ReLU("a")])
    head, *rows = network.summary().splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["7_LocalResponseNormWithin", "LocalResponseNormWithin"], ["a", "ReLU"],
                                                 ["sum"]]
    assert len({len(row) for row in (head, *rows[:-1])}) == 1


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(Expected, match="tiny, small, zfnet, alexnet.*got 'resnet'"):
        build("resnet", 10)


def test_a_layer_table_with_unknown_kind_or_field_is_refused():
    with pytest.raises(Expected, match="kind"):
        from_table("x", (3, 8, 8), [{"kind": "Attention", "name": "a"}])
    with pytest.raises(Expected, match="fields of ReLU"):
        from_table("x", (3, 8, 8), [{"kind": "ReLU", "name": "a", "slope": 1}])


@pytest.mark.parametrize("asked, sentence", [
    (("tiny", 10, 30.5), "size: expected a whole number from 1 to 16384, got 30.5"), (("tiny", 10, 0), "size: expected"),
    (("tiny", 10.0), "classes: expected a whole number from 2"), (("tiny", 1), "classes: expected a whole number from 2"),
    (("tiny", 10, 96, 1.5), "keep_prob: expected a number above 0 to 1, got 1.5"),
    ((["tiny"], 10), r"expected one of tiny, .*, got \['tiny'\]")])
def test_what_no_model_has_is_refused(asked, sentence):
    with pytest.raises(Expected, match=sentence):
        build(*asked)
