"""Networks of Caffe: known answers of real ones, made-up ones beside OpenCV, and files that are not believed."""
import sys

import numpy as np
import pytest
from PIL import Image

from tests.interchange import caffe_files as made
from tests.interchange.caffe_files import caffemodel, field, layer, old_layer, random
from tests.real_data import REAL_DATA, needs
from tests.test_hostile import bounded
from zfcore.check import Expected
from zfcore.interchange import caffe_proto, import_network
from zfcore.interchange.certificate import against_answers
from zfcore.interchange.foreign import Affine, Convolution, Dense, Flattening, ResponseNorm, Unsupported

pytest.importorskip("google.protobuf", reason="protobuf, which reads files of Caffe, is not installed")
from zfcore.interchange.caffe import read  # noqa: E402

NETWORKS = REAL_DATA/"networks"
QUICK = NETWORKS/"cifar10_quick_iter_5000.caffemodel", NETWORKS/"cifar10_quick.prototxt"
MEAN = np.array([125.3, 122.95, 113.87])                   # R, G, B


def has_opencv():
    try:
        import cv2
    except ImportError:
        return False
    return hasattr(cv2.dnn, "readNetFromCaffe")


beside_opencv = pytest.mark.skipif(not has_opencv(), reason="no OpenCV before version 5 is installed")


# ---------------------------------------------------------------------------------------------------------- real networks
@needs("networks/cifar10_quick.cv.npz")
def test_cifar10_quick_gives_the_answers_that_are_known():
    known = np.load(NETWORKS/"cifar10_quick.cv.npz")
    found = import_network(*QUICK, mean=MEAN)
    assert against_answers(found.seen, found.lowered, known["x"], known["y"]).absolute < 1e-6


@needs("networks/cifar10_quick.prototxt")
@pytest.mark.parametrize("channels, classes", [(None, [5, 3, 9]), ("rgb", [5, 5, 9])])
def test_in_the_right_order_of_channels_the_cat_is_a_cat_and_in_the_other_a_dog(channels, classes):
    found = import_network(*QUICK, mean=MEAN, channels=channels)
    pixels = np.stack([np.asarray(Image.open(NETWORKS/f"{name}10.png").convert("RGB")) for name in ("dog", "cat", "truck")])
    x = pixels.transpose(3, 1, 2, 0) - found.lowered.mean[..., None]
    scores, _ = found.lowered.network.forward(x.astype(np.float32))
    assert scores.argmax(axis=0).tolist() == classes


@needs("networks/cifar10_quick.prototxt")
def test_a_network_says_how_its_training_saw_pictures_and_what_is_assumed():
    told = read(*QUICK, None).told
    assert told["channels"].startswith("channels: B, G, R") and "assumed" in told["channels"]
    assert "mean.binaryproto" in told["mean"] and "--mean" in told["mean"]


@needs("networks/cifar10_quick.prototxt")
def test_a_caffemodel_without_the_sizes_of_its_pictures_asks_for_its_graph(tmp_path):
    (tmp_path/"alone.caffemodel").write_bytes(QUICK[0].read_bytes())
    with pytest.raises(Expected, match="alone.caffemodel: data: expected the sizes .* say graph"):
        read(tmp_path/"alone.caffemodel", None, None)


@needs("networks/det3.caffemodel")
def test_a_network_with_layers_that_zfcore_lacks_is_refused_by_the_layers_name():
    with pytest.raises(Unsupported, match="det3.prototxt: prelu1: .* got PReLU"):
        read(NETWORKS/"det3.caffemodel", NETWORKS/"det3.prototxt", None)


@needs("networks/det3.caffemodel")
def test_a_prototxt_of_another_network_is_told_by_the_first_layer_that_does_not_fit():
    with pytest.raises(Expected, match="conv1: w: expected 32x3x5x5 numbers, .* got 32x3x3x3; is it another"):
        read(NETWORKS/"det3.caffemodel", QUICK[1], None)


# ------------------------------------------------------------------------------------------------------- made-up networks
def says(name, kind, reads, more="", gives=None):
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{reads}" top: "{gives or name}" {more} }}\n'


def entering(C, H, W):
    return f'input: "data" input_dim: 1 input_dim: {C} input_dim: {H} input_dim: {W}\n'


def files(folder, text, weights, of=layer):
    """(caffemodel, prototxt) of a made-up network."""
    (folder/"net.prototxt").write_text(text)
    return caffemodel(folder/"net.caffemodel", weights, of), folder/"net.prototxt"


def convolution(rng, *shape):
    return "Convolution", [random(rng, *shape), random(rng, shape[0])]


def matrix(rng, *shape):
    return "InnerProduct", [random(rng, *shape), random(rng, shape[0])]


def old_form(rng):
    """Both forms of every size, in place, in V1's words, and blobs of four sizes."""
    text = entering(3, 23, 23) + """
      layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
               convolution_param { num_output: 6 kernel_h: 3 kernel_w: 5 pad_h: 1 pad_w: 2 stride: 2 } }
      layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
      layers { name: "norm1" type: LRN bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 2e-5 beta: 0.6 } }
      layers { name: "pool1" type: POOLING bottom: "norm1" top: "pool1"
               pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
      layers { name: "conv2" type: CONVOLUTION bottom: "pool1" top: "conv2"
               convolution_param { num_output: 4 kernel_size: 3 group: 2 bias_term: false } }
      layers { name: "fc3" type: INNER_PRODUCT bottom: "conv2" top: "fc3" inner_product_param { num_output: 5 } }
      layers { name: "relu3" type: RELU bottom: "fc3" top: "fc3" }
      layers { name: "drop3" type: DROPOUT bottom: "fc3" top: "fc3" dropout_param { dropout_ratio: 0.3 } }
      layers { name: "fc4" type: INNER_PRODUCT bottom: "fc3" top: "fc4" inner_product_param { num_output: 3 } }
      layers { name: "prob" type: SOFTMAX bottom: "fc4" top: "prob" }"""
    return text, {"conv1": convolution(rng, 6, 3, 3, 5), "conv2": ("Convolution", [random(rng, 4, 3, 3, 3)]),
                  "fc3": matrix(rng, 5, 4*5*5), "fc4": matrix(rng, 3, 5)}


def normalised_grey(rng):
    """A grey picture, BatchNorm and Scale in place, Power, dilation, global pooling."""
    text = ('layer { name: "pictures" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 21 dim: 21 } } }\n'
            + says("factor", "Power", "data", "power_param { scale: 0.0078125 shift: -1 }", "data")
            + says("conv1", "Convolution", "data", "convolution_param { num_output: 5 kernel_size: 3 bias_term: false }")
            + says("bn1", "BatchNorm", "conv1", "batch_norm_param { eps: 0.002 }", "conv1")
            + says("scale1", "Scale", "conv1", "scale_param { bias_term: true }", "conv1")
            + says("relu1", "ReLU", "conv1", gives="conv1")
            + says("conv2", "Convolution", "conv1", "convolution_param { num_output: 4 kernel_size: 3 pad: 2 dilation: 2 }")
            + says("relu2", "ReLU", "conv2")
            + says("bn2", "BatchNorm", "relu2") + says("scale2", "Scale", "bn2")
            + says("pool2", "Pooling", "scale2", "pooling_param { pool: AVE global_pooling: true }")
            + says("flat", "Flatten", "pool2") + says("fc3", "InnerProduct", "flat", "inner_product_param { num_output: 3 }"))
    statistics = lambda C: ("BatchNorm", [random(rng, C), np.abs(random(rng, C)) + 1, np.array([2.5], np.float32)])
    return text, {"conv1": ("Convolution", [random(rng, 5, 1, 3, 3)]), "bn1": statistics(5),
                  "scale1": ("Scale", [random(rng, 5), random(rng, 5)]), "conv2": convolution(rng, 4, 5, 3, 3),
                  "bn2": statistics(4), "scale2": ("Scale", [random(rng, 4)]), "fc3": matrix(rng, 3, 4)}


def within_channels(rng):
    """The ZFNet of the detection papers, in small."""
    norm = "lrn_param { local_size: 3 alpha: 0.7 beta: 0.75 norm_region: WITHIN_CHANNEL }"
    text = (entering(3, 19, 19).replace("input_dim: 1 ", "input_dim: 10 ")
            + says("conv1", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 7 pad: 3 stride: 2 }")
            + says("relu1", "ReLU", "conv1", gives="conv1") + says("norm1", "LRN", "conv1", norm)
            + says("pool1", "Pooling", "norm1", "pooling_param { kernel_size: 3 stride: 2 pad: 1 pool: MAX }")
            + says("fc2", "InnerProduct", "pool1", "inner_product_param { num_output: 3 }"))
    return text, {"conv1": convolution(rng, 4, 3, 7, 7), "fc2": matrix(rng, 3, 4*6*6)}


def rounded_down(rng):
    """Pools that round down, by the two words for it, then one that rounds up."""
    text = (entering(3, 32, 32)
            + says("conv1", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }")
            + says("pool1", "Pooling", "conv1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR }")
            + says("pool2", "Pooling", "pool1", "pooling_param { pool: AVE kernel_size: 3 stride: 2 ceil_mode: false }")
            + says("pool3", "Pooling", "pool2", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
            + says("fc2", "InnerProduct", "pool3", "inner_product_param { num_output: 3 }"))
    return text, {"conv1": convolution(rng, 4, 3, 3, 3), "fc2": matrix(rng, 3, 4*3*3)}


def of_training(rng):
    """Both phases, losses, and a data layer that says how pictures are seen."""
    data = ('layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {} }} '
            'transform_param {{ crop_size: {} scale: 0.5 mean_value: 104 mean_value: 117 mean_value: 123 }} }}\n')
    text = (data.format("TRAIN", 11) + data.format("TEST", 17)
            + says("conv1", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }")
            + says("only", "ReLU", "conv1", "exclude { phase: TEST }", "conv1")
            + says("fc2", "InnerProduct", "conv1", "inner_product_param { num_output: 3 }")
            + 'layer { name: "accuracy" type: "Accuracy" bottom: "fc2" bottom: "label" top: "a" include { phase: TEST } }\n'
            + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc2" bottom: "label" top: "loss" }\n')
    return text, {"conv1": convolution(rng, 4, 3, 3, 3), "fc2": matrix(rng, 3, 4*15*15)}


MADE = [(old_form, old_layer), (normalised_grey, layer), (within_channels, layer), (rounded_down, layer), (of_training, layer)]


@beside_opencv
@pytest.mark.parametrize("network, of", MADE, ids=[network.__name__ for network, _ in MADE])
def test_every_layer_computes_what_opencv_does(tmp_path, network, of):
    found = import_network(*files(tmp_path, *network(np.random.default_rng(3)), of))
    assert found.foreign.engine_name.startswith("OpenCV 4")
    assert len(found.differences) >= len(found.lowered.network.layers) - 4
    assert max(one.relative for one in found.differences) < 2e-6
    assert min(one.largest for one in found.differences) > 1e-3


@beside_opencv
@pytest.mark.parametrize("kind, more, arrays", [
    ("LRN", "lrn_param { k: 2 }", []),
    ("InnerProduct", "inner_product_param { num_output: 3 transpose: true }", [(75, 3), (3,)]),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 1 }", [(2, 3, 1, 1), (2,)])])
def test_where_opencv_computes_something_else_there_is_no_engine_and_it_says_why(tmp_path, kind, more, arrays):
    rng = np.random.default_rng(0)
    arrays = [random(rng, *shape).astype(np.float64 if kind == "Convolution" else np.float32) for shape in arrays]
    found = import_network(*files(tmp_path, entering(3, 5, 5) + says("one", kind, "data", more), {"one": (kind, arrays)}))
    assert found.foreign.engine is None and any(note.startswith("parity not checked: one: OpenCV") for note in found.notes)


def test_of_a_training_the_layers_and_the_pictures_of_the_test_are_taken(tmp_path):
    network = read(*files(tmp_path, *of_training(np.random.default_rng(0))), None)
    assert network.input_shape == (3, 17, 17)
    assert [node.name for node in network.nodes] == ["conv1", "fc2_flat", "fc2"]
    assert network.preprocessing["mean"].tolist() == [104, 117, 123] and network.preprocessing["scale"].tolist() == [.5]*3
    assert [note.split(":")[0] for note in network.notes if "left out" in note] == ["accuracy", "loss"]


def test_tensors_in_place_are_called_by_the_layers_that_make_them(tmp_path):
    network = read(*files(tmp_path, *old_form(np.random.default_rng(0)), old_layer), None)
    names = [node.gives for node in network.nodes]
    assert len(set(names)) == len(names)
    assert names[:3] == ["conv1", "relu1", "norm1"] and [node.reads for node in network.nodes[1:4]] == names[:3]


def test_a_batch_normalisation_divides_its_statistics_by_their_factor(tmp_path):
    text = entering(4, 5, 5) + says("bn", "BatchNorm", "data", "batch_norm_param { eps: 0.5 }")
    mean, var = np.arange(1.0, 5), np.arange(2.0, 6)
    node, = read(*files(tmp_path, text, {"bn": ("BatchNorm", [mean, var, np.array([4.0])])}), None).nodes
    assert isinstance(node, Affine)
    np.testing.assert_allclose(node.scale*10 + node.shift, (10 - mean/4)/np.sqrt(var/4 + 0.5), rtol=1e-12)


def test_numbers_of_the_file_are_unchanged_in_single_and_in_double(tmp_path):
    w, b = np.random.default_rng(0).standard_normal((3, 8)), np.float32([1.5, -0.0, 3e-42])
    text = entering(2, 2, 2) + says("fc", "InnerProduct", "data", "inner_product_param { num_output: 3 }")
    flattening, dense = read(*files(tmp_path, text, {"fc": ("InnerProduct", [w, b])}), None).nodes
    assert isinstance(flattening, Flattening) and isinstance(dense, Dense)
    assert dense.w.dtype == np.float64 and (dense.w == w).all() and dense.b.tobytes() == b.tobytes()


def test_a_transposed_matrix_is_turned_round(tmp_path):
    w = np.arange(24, dtype=np.float32).reshape(8, 3)
    said = "inner_product_param { num_output: 3 bias_term: false transpose: true }"
    text = entering(2, 2, 2) + says("fc", "InnerProduct", "data", said)
    dense = read(*files(tmp_path, text, {"fc": ("InnerProduct", [w])}), None).nodes[-1]
    assert (dense.w == w.T).all() and dense.b is None


def test_the_defaults_of_what_is_not_said_are_caffes(tmp_path):
    text = entering(3, 9, 9) + says("conv", "Convolution", "data", "convolution_param { num_output: 1 kernel_size: 2 }")
    text += says("norm", "LRN", "conv")
    conv, norm = read(*files(tmp_path, text, {"conv": convolution(np.random.default_rng(0), 1, 3, 2, 2)}), None).nodes
    assert isinstance(conv, Convolution) and isinstance(norm, ResponseNorm)
    assert (conv.window.S, conv.window.pads, conv.window.dilation, conv.groups) == ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    assert (norm.n, norm.alpha, norm.beta, norm.k, norm.convention, norm.region) == (5, 1, 0.75, 1, "mean", "across")


# ------------------------------------------------------------------------------------------------- which file says the layers
FC = says("fc", "InnerProduct", "data", "inner_product_param { num_output: 3 bias_term: false }")
FC_WEIGHTS = {"fc": ("InnerProduct", [np.arange(24, dtype=np.float32).reshape(3, 8)])}


@pytest.mark.parametrize("names, taken", [
    (["net.prototxt", "other.prototxt"], "net.prototxt"), (["deploy.prototxt", "notes.txt"], "deploy.prototxt"),
    (["a.prototxt", "b.prototxt"], None), ([], None)])
def test_without_a_graph_the_one_of_the_same_name_is_taken_or_the_only_one(tmp_path, names, taken):
    caffemodel(tmp_path/"net.caffemodel", FC_WEIGHTS)
    for name in names:
        (tmp_path/name).write_text(entering(2, 2, 2) + FC if name == taken else "no prototxt")
    if taken is None:
        with pytest.raises(Expected, match="graph"):
            read(tmp_path/"net.caffemodel", None, None)
    else:
        notes = read(tmp_path/"net.caffemodel", None, None).notes
        assert f"layers: of {taken}, which lies beside the file, since --graph names none" in notes


@beside_opencv
@pytest.mark.parametrize("of", [layer, old_layer])
def test_a_caffemodel_that_says_its_own_layers_needs_no_graph(tmp_path, of):
    """As Caffe writes it: the net of the training, with a Split of what two layers read."""
    rng = np.random.default_rng(1)
    bottom, top, said = (3, 4, 106) if of is layer else (2, 3, 10)
    around = lambda reads, gives: field(bottom, reads) + field(top, gives)
    data = field(top, "data") + field(top, "label") + field(8 if of is layer else 32, field(1, 0))
    data += field(100 if of is layer else 36, field(1, 0.25) + field(3, 9))
    conv = around("data", "conv") + field(said, field(1, 4) + field(4, 3))
    fc = around("conv", "fc") + field(117 if of is layer else 17, field(1, 3))
    loss = field(bottom, "fc") + around("label", "loss")
    (tmp_path/"net.caffemodel").write_bytes(
        of("data", "Data", more=data) + of("conv", "Convolution", [random(rng, 4, 3, 3, 3), random(rng, 4)], conv)
        + of("fc", "InnerProduct", [random(rng, 3, 4*7*7), random(rng, 3)], fc) + of("loss", "SoftmaxWithLoss", more=loss))
    found = import_network(tmp_path/"net.caffemodel")
    assert found.foreign.input_shape == (3, 9, 9) and found.seen.scale.tolist() == [0.25]*3
    assert len(found.differences) >= 2 and max(one.relative for one in found.differences) < 2e-6


def test_a_mean_beside_the_network_is_taken_and_no_other_file_is_opened(tmp_path):
    text = ('layer { name: "data" type: "Data" top: "data" transform_param { crop_size: 2 mean_file: "../up/mean.npy" } }\n'
            + says("conv", "Convolution", "data", "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }"))
    weights = {"conv": ("Convolution", [np.ones((3, 3, 1, 1), np.float32)])}
    (tmp_path/"up").mkdir()
    (tmp_path/"here").mkdir()
    np.save(tmp_path/"up/mean.npy", np.full((3, 2, 2), 7.0))
    paths = files(tmp_path/"here", text, weights)
    assert "mean" not in read(*paths, None).preprocessing
    np.save(tmp_path/"here/mean.npy", np.full((3, 4, 4), 9.0))
    assert (read(*paths, None).preprocessing["mean"] == 9).all()


# --------------------------------------------------------------------------------------------------------------- refusals
CONV = "convolution_param { num_output: 2 kernel_size: 1 bias_term: false %s }"
CONV_WEIGHTS = {"conv": ("Convolution", [np.ones((2, 2, 1, 1), np.float32)])}


@pytest.mark.parametrize("said, sentence", [
    (says("conv", "Convolution", "data", CONV % "group: 3"),
     "conv: expected groups of the 2 maps below and the 2 above, got 3"),
    (says("conv", "Convolution", "data", CONV % "stride: 0"), "conv: expected windows and strides of at least 1"),
    (says("conv", "Convolution", "data", CONV % "pad: 4000000000"),
     "conv: expected windows and strides of at least 1, padding"),
    (says("conv", "Convolution", "data", CONV % "kernel_h: 2"), "conv: expected kernel_size of rows and columns, got none"),
    (says("conv", "Convolution", "data", CONV % "pad: 1 pad: 2 pad: 3"), "conv: expected pad of rows and columns, got 3"),
    (says("conv", "Convolution", "data", CONV.replace("2", "5", 1) % ""),
     "conv: w: expected 5x2x1x1 numbers, as net.prototxt has it, got 2x2x1x1"),
    (says("conv", "Convolution", "data", CONV.replace("bias_term: false", "") % ""),
     "conv: expected blobs w and b, as net.prototxt has it, got 1"),
    (says("conv", "Convolution", "data", CONV.replace("2", "0", 1) % ""), "conv: w: expected 0x2x1x1 numbers"),
    (says("other", "Convolution", "data", CONV % ""), "other: expected weights of this layer, .* got those of conv"),
    (says("conv", "Convolution", "data", CONV % "axis: 2"), "conv: expected axis 1, got 2"),
    (says("relu", "ReLU", "data", "relu_param { negative_slope: 0.1 }"), "relu: expected negative_slope 0, got 0.1"),
    (says("pool", "Pooling", "data", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
     "pool: expected MAX or AVE, got STOCHASTIC"),
    (says("pool", "Pooling", "data", "pooling_param { kernel_size: 2 pad: 2 }"), "pool: expected padding less than the window"),
    (says("pool", "Pooling", "data", "pooling_param { kernel_size: 1 stride: 2 }"), "pool: expected windows at least as large"),
    (says("pool", "Pooling", "data", "pooling_param { pool: MAX }"),
     "pool: expected kernel_size of rows and columns, got none"),
    (says("norm", "LRN", "data", "lrn_param { local_size: 4 }"), "norm: expected local_size odd"),
    (says("norm", "LRN", "data", "lrn_param { norm_region: WITHIN_CHANNEL k: 2 }"), "norm: expected k 1 within a channel"),
    (says("bn", "BatchNorm", "data", "batch_norm_param { use_global_stats: false }"), "bn: expected use_global_stats true"),
    (says("scale", "Scale", "data", "scale_param { axis: 2 }"), "scale: expected axis 1 and num_axes 1, got 2 and 1"),
    (says("power", "Power", "data", "power_param { power: 2 }"), "power: expected power 1, got 2"),
    (says("drop", "Dropout", "data", "dropout_param { dropout_ratio: 1 }"), "drop: expected dropout_ratio from 0 to below 1"),
    (says("prob", "Softmax", "data", "softmax_param { axis: 2 }"), "prob: expected axis 1, got 2"),
    (says("flat", "Flatten", "data", "flatten_param { axis: 2 }"), "flat: expected axis 1 to the last, got 2 to -1"),
    (says("up", "Deconvolution", "data"), "up: expected a layer of a type that zfcore has, got Deconvolution"),
    (says("sum", "Eltwise", "data"), "sum: .* got Eltwise; zfcore would need networks that branch"),
    (says("a", "ReLU", "data") + says("b", "ReLU", "data"), "b: expected one reader of 'data', got a and b"),
    ('layer { name: "s" type: "Split" bottom: "data" top: "x" top: "y" }' + says("a", "ReLU", "x") + says("b", "ReLU", "y"),
     "b: expected one reader of 'data', got a and b"),
    (says("a", "window", "data"), "a: expected a layer of a type that zfcore has, got window"),
    (says("a", "ReLU", "nowhere"), "a: expected a bottom that a layer above it makes, got 'nowhere'"),
    (says("a", "ReLU", "data") + says("a", "ReLU", "a"), "a: expected to be made by one node, got 2 that do"),
    ('layers { name: "a" type: RELU bottom: "data" top: "a" }' + says("b", "ReLU", "data"),
     "all `layer` or all `layers`, got 1 and 1"),
    ("", "1 to 10000 layers"),
    ("layer { ", "a .prototxt, got in line 2: "),
    ('layer { name: "a" name: "b" }', "a .prototxt, got in line 2: "),
    ('layers { name: "a" type: SOMETHING }', "a .prototxt, got in line 2: "),
    ("x {"*50_000, "too deep"),
    ("#"*100_000_000, "a .prototxt, got 1000000.. bytes, more than"),
], ids=lambda value: value.replace(" ", "")[13:33] if value.startswith("layer") else None)
def test_what_a_prototxt_says_and_zfcore_cannot_do_is_one_sentence(tmp_path, said, sentence):
    with pytest.raises(Expected, match=sentence):
        read(*files(tmp_path, entering(2, 4, 4) + said, CONV_WEIGHTS), None)


@pytest.mark.parametrize("words, sentence", [
    ('input: "data" input_dim: 1 input_dim: 2', "data: expected the sizes of what enters"),
    ('input: "data" input_dim: 1 input_dim: 2 input_dim: -4 input_dim: 4', "data: expected pictures of at most"),
    ('input: "data" input_dim: 1 input_dim: 2 input_dim: 100000 input_dim: 4', "data: expected pictures of at most"),
    ('input: "other" input_shape { dim: 1 dim: 2 dim: 4 dim: 4 }', "conv: expected a bottom that a layer above"),
    ('layer { name: "data" type: "Data" top: "data" }', "data: expected the sizes of what enters"),
])
def test_what_enters_has_sizes_of_a_picture(tmp_path, words, sentence):
    text = words + "\n" + says("conv", "Convolution", "data", CONV % "")
    with pytest.raises(Expected, match=sentence):
        read(*files(tmp_path, text, CONV_WEIGHTS), None)


@pytest.mark.parametrize("words", [
    'input: "data" input_shape { dim: 9 dim: 2 dim: 4 dim: 5 }',
    'input: "rois" input: "data" ' + "".join(f"input_dim: {size} " for size in (1, 5, 1, 1, 9, 2, 4, 5)),
    'layer { type: "Input" top: "data" top: "label" input_param { shape { dim: 9 dim: 2 dim: 4 dim: 5 } shape { dim: 9 } } }',
    'layer { type: "MemoryData" top: "data" memory_data_param { channels: 2 height: 4 width: 5 } }',
    'layer { type: "DummyData" top: "data" dummy_data_param { shape { dim: 9 dim: 2 dim: 4 dim: 5 } } }',
    'layer { type: "DummyData" top: "data" dummy_data_param { num: 9 channels: 2 height: 4 width: 5 } }',
    'layer { type: "ImageData" top: "data" image_data_param { new_height: 4 new_width: 5 } }'])
def test_all_ways_of_saying_what_enters_are_read(tmp_path, words):
    text = words + "\n" + says("conv", "Convolution", "data", CONV % "")
    assert read(*files(tmp_path, text, CONV_WEIGHTS), None).input_shape == (2, 4, 5)


@pytest.mark.parametrize("package, sentence", [("google.protobuf", "the package protobuf.*none installed; pip"), ("cv2", None)])
def test_without_a_package_it_says_which(tmp_path, monkeypatch, package, sentence):
    paths = files(tmp_path, entering(2, 2, 2) + FC, FC_WEIGHTS)
    caffe_proto._classes.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    if sentence:
        with pytest.raises(Expected, match=sentence):
            read(*paths, None)
    else:
        found = read(*paths, None)
        assert found.engine is None and found.engine_hint == 'pip install "opencv-python-headless<5"'


def test_a_model_is_no_option_of_a_network_that_has_layers(tmp_path):
    with pytest.raises(Expected, match="model"):
        read(*files(tmp_path, entering(2, 2, 2) + FC, FC_WEIGHTS), "zfnet")


# ----------------------------------------------------------------------------------------------------------- hostile files
def sentence_or_network(path, graph):
    """Whether it is read; anything but a sentence is an error of the test."""
    try:
        read(path, graph, None)
    except Expected as sentence:
        assert len(str(sentence)) < 2000
        return False
    return True


@pytest.mark.parametrize("network, of", [(old_form, old_layer), (normalised_grey, layer)])
def test_a_file_cut_off_anywhere_is_one_sentence(tmp_path, network, of):
    path, graph = files(tmp_path, *network(np.random.default_rng(0)), of)
    whole = path.read_bytes()
    assert sentence_or_network(path, graph)
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert not sentence_or_network(path, graph)


@pytest.mark.parametrize("network, of", [(old_form, old_layer), (normalised_grey, layer)])
def test_a_flipped_bit_gives_a_network_or_one_sentence(tmp_path, network, of):
    path, graph = files(tmp_path, *network(np.random.default_rng(0)), of)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        sentence_or_network(path, graph)
        sentence_or_network(path, None)


def test_a_spoilt_prototxt_gives_a_network_or_one_sentence(tmp_path):
    path, graph = files(tmp_path, *normalised_grey(np.random.default_rng(0)))
    whole, rng = graph.read_bytes(), np.random.default_rng(2)
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        graph.write_bytes(data)
        sentence_or_network(path, graph)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**32, 2**32), (0, 0), (-3, -8), (3, 8, 0), (1,)*40, (23,)])
def test_a_blob_holds_as_many_numbers_as_its_shape_says(tmp_path, shape):
    path, graph = files(tmp_path, entering(2, 2, 2) + FC, FC_WEIGHTS)
    data = made.blob(FC_WEIGHTS["fc"][1][0], shape)
    path.write_bytes(field(100, field(1, "fc") + field(2, "InnerProduct") + field(7, data)))
    with pytest.raises(Expected, match="fc: w: expected the numbers that its shape has, .* got 24"):
        read(path, graph, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limit of Linux")
@pytest.mark.parametrize("data", [
    lambda: field(100, b"")*2*10**7, lambda: field(100, field(7, b"")*2*10**7), lambda: field(2, b"")*500_000,
    lambda: field(100, field(1, "fc") + field(7, field(7, field(1, b"\x7f"*10**6)) + field(5, bytes(8))))],
    ids=["layers", "blobs", "as many layers as may be", "axes"])
def test_what_is_small_in_a_file_and_large_in_memory_is_refused_before(tmp_path, data):
    path, graph = files(tmp_path, entering(2, 2, 2) + FC, FC_WEIGHTS)
    path.write_bytes(data())
    said = bounded(f"""
        from pathlib import Path
        from zfcore.check import Expected
        from zfcore.interchange.caffe import read
        try: read(Path({str(path)!r}), Path({str(graph)!r}), None)
        except Expected as sentence: print(sentence)""", gigabytes=1.0)
    assert str(path) in said


def test_names_that_are_no_text_or_no_names_are_sentences(tmp_path):
    path, graph = files(tmp_path, entering(2, 2, 2) + FC, FC_WEIGHTS)
    for name in (b"\xff\xfe", b"x"*10_000, b"", b"../../fc", b"a\0b"):
        path.write_bytes(layer(name, "InnerProduct", FC_WEIGHTS["fc"][1]))
        assert not sentence_or_network(path, graph)
