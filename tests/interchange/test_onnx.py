"""ONNX, in and out: other people's graphs and operators against onnxruntime, what is written read back, and files that lie."""
import os
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interchange.caffe_files import field
from tests.interchange.onnx_models import FLOAT, chain, helper, numpy_helper, of_package, onnx
from tests.real_data import REAL_DATA, needs
from tests.test_deconvnet import autograd, close, rectify, some_units
from tests.test_hostile import bounded
from zfcore.check import Expected
from zfcore.deconvnet import project
from zfcore.interchange import import_network, lower, read, seen_by, to_network
from zfcore.interchange.certificate import check_all, compare, entering
from zfcore.interchange.foreign import (Affine, AveragePooling, Convolution, Dense, Flattening, MaxPooling, Padding,
                                        Probabilities, Rectifier, ResponseNorm, Unsupported)
from zfcore.interchange.onnx import LAYERS as OPERATORS
from zfcore.interchange.onnx_writer import _NODES, write
from zfcore.layers import (KINDS, AvgPool, BatchNorm, Conv, Dropout, Flatten, Linear, LocalResponseNorm,
                           LocalResponseNormWithin, MaxPool, Pad, ReLU)
from zfcore.models import build
from zfcore.network import Network

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, the yardstick, is not installed")


def imported(path):
    """(Foreign, Preprocessing, Lowered) of a file."""
    foreign = read(path)
    seen = seen_by(foreign)
    return foreign, seen, to_network(foreign, seen, "imported")


def differences(path):
    """The largest relative difference of any layer from onnxruntime."""
    foreign, seen, lowered = imported(path)
    found = compare(foreign, seen, lowered)
    assert found
    return max(one.relative for one in found)


def runtime(path, x):
    """What onnxruntime makes of the whole file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def kinds(path):
    return [type(node) for node in read(path).nodes]


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ other people's graphs
FULL = pytest.mark.exhaustive


@pytest.mark.parametrize("name, side, fc6", [
    ("zfnet512", 59, 512), ("bvlc_alexnet", 99, 1024), pytest.param("vgg19", 64, 2048, marks=FULL),
    *(pytest.param(name, 224, None, marks=FULL) for name in ("zfnet512", "bvlc_alexnet", "vgg19"))])
def test_every_layer_of_the_packages_graphs_is_onnxruntimes(name, side, fc6, tmp_path):
    assert differences(of_package(name, tmp_path/"graph.onnx", side, fc6)) < 1e-5


def test_projections_of_an_imported_network_are_those_of_autograd_whose_relu_is_replaced(tmp_path):
    path = of_package("zfnet512", tmp_path/"graph.onnx", side=59, fc6=512)
    _, _, lowered = imported(path)
    network, x = lowered.network, drawn((3, 59, 59, 4))
    for of_layer in network.parameters().values():
        of_layer.update({key: array.astype(np.float64) for key, array in of_layer.items()})
    for layer in ("n4", "n12", "n20"):
        units = some_units(network, layer, x.astype(np.float64))
        pixels, values = autograd(network, x.astype(np.float64), layer, units, rectify)
        found = project(network, x.astype(np.float64), layer, units)
        close(found.pixels, pixels)
        np.testing.assert_allclose(found.values, values, rtol=1e-10)


@needs("networks/opt-mnist.onnx")
def test_digits_are_read_as_is_known():
    path = REAL_DATA/"networks/opt-mnist.onnx"
    foreign, seen, lowered = imported(path)
    assert (foreign.input_shape, seen.channels) == ((1, 28, 28), "grey")
    with np.load(f"{path}.npz") as known:
        x, y = known["x"], known["y"]
    scores, _ = lowered.network.forward(entering(seen, lowered, x))
    assert np.abs(scores.T - y).max() < 1e-5*np.abs(y).max()
    assert scores.argmax(axis=0).tolist() == y.argmax(axis=1).tolist()
    assert differences(path) < 1e-5


@pytest.mark.parametrize("name, node", [("densenet121", "n22"), ("inception_v1", "n23"), ("resnet50", "n14"),
                                        ("shufflenet", "n7"), ("squeezenet", "n9")])
def test_branches_are_refused_by_the_name_of_the_node_where_they_meet(name, node):
    with pytest.raises(Unsupported, match=f": {node}: "):
        read(f"{onnx.__path__[0]}/backend/test/data/light/light_{name}.onnx")


# ---------------------------------------------------------------------------------------------------- constants and shapes
CONV = {"w": drawn((4, 3, 3, 3)), "b": drawn(4, 1)}
FC = {"fc": drawn((4*5*5, 6), 2)}


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_a_shape_that_is_put_together_of_the_number_of_pictures_is_a_flattening(batch, tmp_path):
    nodes = [("Conv", ["w", "b"], {}), helper.make_node("Shape", ["t0"], ["shape"]),
             helper.make_node("Gather", ["shape", "zero"], ["n"]),
             helper.make_node("Unsqueeze", ["n", "axes"], ["row"]), helper.make_node("Cast", ["row"], ["whole"], to=7),
             helper.make_node("Concat", ["whole", "rest"], ["wanted"], axis=0),
             helper.make_node("Reshape", ["t0", "wanted"], ["flat"]),
             helper.make_node("MatMul", ["flat", "fc"], ["y"]), helper.make_node("Add", ["y", "c"], ["scores"])]
    path = chain(tmp_path/"a.onnx", (3, 7, 7), nodes, batch=batch, constants={
        **CONV, **FC, "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "c": drawn(6, 3)})
    assert kinds(path) == [Convolution, Flattening, Dense, Affine]
    assert differences(path) < 1e-5


def test_weights_are_computed_of_constants_and_read_in_any_precision(tmp_path):
    half, whole = CONV["w"].astype(np.float16), CONV["b"].astype(np.float64)
    wide = helper.make_tensor("wide", onnx.TensorProto.BFLOAT16, [4], CONV["b"].tolist())
    nodes = [helper.make_node("Constant", [], ["stored"],
                              value=numpy_helper.from_array(half.transpose(1, 0, 2, 3).reshape(3, 36))),
             helper.make_node("Constant", [], ["bfloat"], value=wide),
             helper.make_node("Reshape", ["stored", "shape"], ["shaped"]),
             helper.make_node("Transpose", ["shaped"], ["turned"], perm=[1, 0, 2, 3]),
             helper.make_node("Cast", ["turned"], ["w"], to=FLOAT), helper.make_node("Cast", ["double"], ["b"], to=FLOAT),
             helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    path = chain(tmp_path/"a.onnx", (3, 7, 7), nodes, {"shape": np.array([3, 4, 3, 3]), "double": whole})
    node, = read(path).nodes
    np.testing.assert_array_equal(node.w, half.astype(np.float32))
    np.testing.assert_array_equal(node.b, CONV["b"])
    assert differences(path) < 1e-5
    nodes[-2] = helper.make_node("Cast", ["bfloat"], ["b"], to=FLOAT)
    np.testing.assert_allclose(read(chain(path, (3, 7, 7), nodes, {"shape": np.array([3, 4, 3, 3])})).nodes[0].b, CONV["b"],
                               rtol=2**-8)


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, FLOAT])
def test_a_network_of_16_bits_is_held_against_the_same_numbers_in_32(kind, tmp_path):
    half = {name: array.astype(np.float16) for name, array in {**CONV, **FC}.items()}
    cast = [("Cast", [], {"to": onnx.TensorProto.FLOAT16})]*(kind == FLOAT)
    path = chain(tmp_path/"a.onnx", (3, 7, 7), [*cast, ("Conv", ["w", "b"]), ("Relu", []), ("Flatten", []), ("MatMul", ["fc"])],
                 half, kind=kind)
    assert differences(path) < 1e-5
    assert any("16 bits" in note for note in read(path).notes)
    by_itself = runtime(path, drawn((2, 3, 7, 7)).astype(helper.tensor_dtype_to_np_dtype(kind)))
    ours, _ = lower.as_it_is(read(path), "made").forward(np.moveaxis(drawn((2, 3, 7, 7)), 0, -1).copy())
    assert 5e-5 < np.abs(ours.T - by_itself).max()/np.abs(by_itself).max() < 5e-3            # what a network of 16 bits rounds


@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, FLOAT])
def test_a_network_of_64_bits_of_which_onnxruntime_has_no_convolution_is_held_against_it_in_32(kind, tmp_path):
    """A shift of a node's own among them."""
    double = {name: array.astype(np.float64) for name, array in {**CONV, **FC}.items()}
    shift = helper.make_node("Constant", [], ["shift"], value=numpy_helper.from_array(drawn((4, 1, 1), 5).astype(np.float64)))
    cast = [("Cast", [], {"to": onnx.TensorProto.DOUBLE})]*(kind == FLOAT)
    path = chain(tmp_path/"a.onnx", (3, 7, 7), [*cast, ("Conv", ["w", "b"]), ("Relu", []), ("Add", ["shift"]), ("Flatten", []),
                                                ("MatMul", ["fc"])], double, kind=kind)
    model = onnx.load(path)
    model.graph.node.insert(0, shift)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        runtime(path, drawn((2, 3, 7, 7)).astype(helper.tensor_dtype_to_np_dtype(kind)))
    assert differences(path) < 1e-5
    assert any("64 bits" in note for note in read(path).notes)


def test_what_onnxruntime_has_not_is_not_checked_and_a_note_says_so(tmp_path, monkeypatch):
    def session(engine, model):
        raise onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED")
    path = chain(tmp_path/"a.onnx", (3, 7, 7), [("Conv", ["w", "b"])], CONV)
    assert not any("not checked" in note for note in import_network(path).notes)
    monkeypatch.setattr("zfcore.interchange.onnx.Engine._session", session)
    assert any(note.startswith("parity not checked: onnxruntime ") for note in import_network(path).notes)


def test_weights_are_in_memory_hardly_more_than_once_beside_the_networks(tmp_path):
    """Of NumPy's arrays and the bytes that are handed about; the file itself, parsed, is one more in memory that this does not
    count."""
    wide = drawn((3*16*16, 4000))
    path = chain(tmp_path/"a.onnx", (3, 16, 16), [("Flatten", []), ("MatMul", ["w"]), ("Relu", []), ("MatMul", ["fc"])],
                 {"w": wide, "fc": drawn((4000, 3))})
    imports = [{}, {"mean": np.array([100., 110, 120]), "std": np.array([50., 60, 70])}]
    for how in imports:
        tracemalloc.start()
        found = import_network(path, **how)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.differences and peak < 2.5*wide.nbytes


def test_maps_that_are_flattened_with_channels_last_give_the_same_scores(tmp_path):
    nodes = [("Conv", ["w", "b"]), ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Reshape", ["rest"]), ("MatMul", ["fc"])]
    path = chain(tmp_path/"a.onnx", (3, 7, 7), nodes, {**CONV, **FC, "rest": np.array([-1, 100])})
    assert read(path).nodes[1].order == "hwc"
    assert differences(path) < 1e-5


def test_pixels_in_channels_last_less_a_mean_picture_are_the_networks_preprocessing(tmp_path):
    mean = np.random.default_rng(1).uniform(0, 255, (3, 7, 7)).astype(np.float32)
    nodes = [("Cast", [], {"to": FLOAT}), ("Transpose", [], {"perm": [0, 3, 1, 2]}), ("Sub", ["mean"]), ("Mul", ["factor"]),
             ("Conv", ["w", "b"]), ("Flatten", [])]
    path = chain(tmp_path/"a.onnx", (7, 7, 3), nodes, {**CONV, "mean": mean, "factor": np.float32(1/64)},
                 kind=onnx.TensorProto.UINT8)
    foreign, seen, lowered = imported(path)
    assert foreign.input_shape == (3, 7, 7) and not seen.assumed[1:]
    pixels = np.random.default_rng(2).integers(0, 256, (2, 7, 7, 3), np.uint8)
    ours, _ = lowered.network.forward(np.moveaxis(pixels, 0, -1).transpose(2, 0, 1, 3) - lowered.mean[..., None])
    theirs = runtime(path, pixels)
    np.testing.assert_allclose(ours.T, theirs, atol=1e-5*np.abs(theirs).max())
    assert differences(path) < 1e-5


HEADS = [("Sub", ["near"]), ("Sub", ["far"]), ("Add", ["near"]), ("Mul", ["half"]), ("Sub", ["colour"]), ("Identity", [])]
PICTURES = {"near": 50 + 20*drawn((3, 9, 9), 1), "far": 20*drawn((1, 3, 9, 9), 2), "half": np.float32(-0.5), "colour": 30*drawn((3, 1, 1), 3),
            "w": drawn((4, 3, 3, 3))}


@pytest.mark.parametrize("how", [{}, {"mean": (103, 117, 124)}, {"std": (58, 57, 56)}, {"mean": (103, 117, 124), "std": (58, 57, 56)},
                                 {"mean": 100 + 20*drawn((3, 9, 9), 4).astype(float), "scale": 0.017}, {"channels": "bgr", "mean": (103, 117, 124)}])
def test_whatever_pictures_the_graph_subtracts_add_up_with_what_is_given(how, tmp_path):
    """Beside onnxruntime, which is given the whole file and x = (pixel - mean)/std."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 9, 9, 3), np.uint8)
    x = np.moveaxis(pixels.astype(float), 3, 1)[:, ::-1 if how.get("channels") == "bgr" else 1]
    mean, std = (np.reshape(how.get(key, of_all), (-1, 1, 1)) for key, of_all in (("mean", 0.0), ("std", 1/how.get("scale", 1))))
    mean = how["mean"] if np.ndim(how.get("mean")) == 3 else mean[::-1] if how.get("channels") == "bgr" else mean
    for k in range(12):
        head = [HEADS[n] for n in rng.integers(0, len(HEADS), 1 + k % 4)]
        path = chain(tmp_path/"a.onnx", (3, 9, 9), [*head, ("Conv", ["w"]), ("Relu", []), ("Flatten", [])], PICTURES)
        found = import_network(path, **how)
        ours, _ = found.lowered.network.forward(pixels.transpose(3, 1, 2, 0) - found.lowered.mean[..., None])
        theirs = runtime(path, ((x - mean)/std).astype(np.float32))
        np.testing.assert_allclose(ours.T, theirs, atol=1e-5*np.abs(theirs).max(), err_msg=str(head))
        assert found.differences and max(one.relative for one in found.differences) < 1e-5


@pytest.mark.parametrize("kind", [FLOAT, onnx.TensorProto.UINT8])
def test_the_certificate_sees_what_lies_before_the_first_layer(kind, tmp_path):
    """A mean picture that is read otherwise than the file has it."""
    nodes = [*([("Cast", [], {"to": FLOAT}), ("Transpose", [], {"perm": [0, 3, 1, 2]})] if kind != FLOAT else []), ("Sub", ["near"]),
             ("Conv", ["w"]), ("Flatten", [])]
    path = chain(tmp_path/"a.onnx", (3, 9, 9) if kind == FLOAT else (9, 9, 3), nodes, PICTURES, kind=kind)
    foreign, seen, lowered = imported(path)
    check_all(path, compare(foreign, seen, lowered))
    foreign.nodes[0].picture = foreign.nodes[0].picture[:, ::-1]
    with pytest.raises(Expected, match="what the file's own engine computes"):
        check_all(path, compare(foreign, seen, to_network(foreign, seen, "other")))


LAST = {"colours": np.float32([[[[123.7, 116.8, 103.9]]]]), "three": np.float32([58, 57, 50]), "factor": np.float32([255]), "half": np.float32(-0.5),
        "picture": 50 + 20*drawn((9, 9, 3), 1), "grey": 50 + 20*drawn((1, 9, 9, 1), 2), "w": drawn((4, 3, 3, 3))}
TURNED = ("Transpose", [], {"perm": [0, 3, 1, 2]})


@pytest.mark.parametrize("kind", [FLOAT, onnx.TensorProto.UINT8])
def test_what_stands_before_the_axes_are_turned_is_as_onnxruntime_has_it(kind, tmp_path):
    """Drawn heads on (N,H,W,C), the form of TensorFlow's exports."""
    heads = [("Sub", ["colours"]), ("Div", ["three"]), ("Add", ["three"]), ("Div", ["factor"]), ("Mul", ["half"]), ("Sub", ["picture"]),
             ("Add", ["grey"]), ("Identity", []), helper.make_node("Sub", ["colours", "c"], ["r"], "from")]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 9, 9, 3)).astype(np.float32 if kind == FLOAT else np.uint8)
    cast = helper.make_node("Identity" if kind == FLOAT else "Cast", ["x"], ["c"], "cast", **({} if kind == FLOAT else {"to": FLOAT}))
    for k in range(16):
        drawn_heads = [heads[n] for n in rng.integers(0, len(heads) - 1, k % 4)]
        own = [cast, *([heads[-1]] if k % 3 == 0 else []), *drawn_heads]
        path = chain(tmp_path/"a.onnx", (9, 9, 3), [*own, TURNED, ("Conv", ["w"]), ("Relu", []), ("Flatten", [])], LAST, kind=kind)
        found = import_network(path)
        ours, _ = found.lowered.network.forward(pixels.transpose(3, 1, 2, 0).astype(np.float32) - found.lowered.mean[..., None])
        theirs = runtime(path, pixels)
        np.testing.assert_allclose(ours.T, theirs, atol=1e-5*np.abs(theirs).max(), err_msg=str(own))
        assert len(found.differences) == 2 and max(one.relative for one in found.differences) < 1e-5


@pytest.mark.parametrize("node, got", [
    (("Relu", []), "got Relu"), (("Pad", ["pads"]), "got Pad"), (("Clip", ["zero"]), "got Clip"), (("Neg", []), "got Neg"),
    (("Sub", ["column"]), "got a constant of shape (9, 1)"), (("Mul", ["grey"]), "got a constant of shape (1, 9, 9, 1)")])
def test_what_cannot_stand_before_the_axes_are_turned_is_told_so(node, got, tmp_path):
    constants = {**LAST, "pads": np.array([0, 1, 1, 0, 0, 1, 1, 0]), "zero": np.float32(0), "column": drawn((9, 1))}
    for before in ([], [("Sub", ["colours"])]):
        with pytest.raises(Unsupported) as refused:
            read(chain(tmp_path/"a.onnx", (9, 9, 3), [*before, node, TURNED, ("Conv", ["w"])], constants))
        assert f"node{len(before)}: expected before the Transpose to N,C,H,W a cast, and sums" in str(refused.value)
        assert got in str(refused.value) and "behind its Transpose, or without it" in str(refused.value)


def test_numbers_that_the_file_has_in_another_order_are_not_held_against_ours(tmp_path):
    """Those of sums and products between two Transposes, or of a factor 0, which cannot be folded into how pictures are seen."""
    there, three = ("Transpose", [], {"perm": [0, 2, 3, 1]}), np.float32([2, 0, 3])
    for shape, nodes in (((3, 9, 9), [("Relu", []), there, ("Mul", ["three"]), ("Add", ["three"]), TURNED, ("Conv", ["w"])]),
                         ((9, 9, 3), [("Mul", ["three"]), TURNED, ("Conv", ["w"])])):
        path = chain(tmp_path/"a.onnx", shape, nodes, {"three": three, "w": LAST["w"]})
        assert differences(path) < 1e-5


def test_a_mean_picture_may_be_the_same_for_all_channels(tmp_path):
    for shape in ((9, 9, 1), (1, 9, 9)):
        channels_last = shape[-1] == 1
        path = chain(tmp_path/"a.onnx", (9, 9, 3) if channels_last else (3, 9, 9), [("Sub", ["mean"]), *([TURNED] if channels_last else []),
                                                                                   ("Conv", ["w"]), ("Flatten", [])],
                     {"w": LAST["w"], "mean": 50 + 20*drawn((1, *shape), 1)})
        assert differences(path) < 1e-5
        seen = import_network(path).lowered.mean
        assert np.array_equal(seen, np.broadcast_to((50 + 20*drawn((1, *shape), 1)).reshape(1, 9, 9), (3, 9, 9)))


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_last_layer_that_computes_something_else_is_refused_behind_a_softmax(kind, shown, tmp_path):
    """Whether the engine shows the scores too, as onnxruntime does, or not."""
    path = chain(tmp_path/"a.onnx", (7, 7, 3), [("Cast", [], {"to": FLOAT}), ("Transpose", [], {"perm": [0, 3, 1, 2]}), ("Sub", ["mean"]),
                                                ("Conv", ["w", "b"]), ("Relu", []), ("Flatten", []), ("Gemm", ["fc", "add"]), (kind, [])],
                 {**CONV, **FC, "mean": np.float32([[[123.7]], [[116.8]], [[103.9]]]), "add": drawn(FC["fc"].shape[1:])},
                 kind=onnx.TensorProto.UINT8)
    foreign, seen, lowered = imported(path)
    engine = foreign.engine
    if not shown:
        foreign.engine = lambda x, names: {lowered.probabilities: engine(x, [lowered.probabilities])[lowered.probabilities]}
    found = compare(foreign, seen, lowered)
    assert (found[-1].layer == "softmax") != shown and found[-1].relative < 1e-5 and not found[-1].hidden
    for key, change in (("w", lambda w: 3*w), ("b", lambda b: b + 0.5*np.arange(len(b), dtype=np.float32))):
        right = lowered.network.layers[-1].parameters[key].copy()
        lowered.network.layers[-1].parameters[key][:] = change(right)
        with pytest.raises(Expected, match="expected what the file's own engine computes"):
            check_all(path, compare(foreign, seen, lowered))
        lowered.network.layers[-1].parameters[key][:] = right


def test_pixels_that_are_no_whole_numbers_enter_behind_the_cast(tmp_path):
    """Grey ones, and such as less a mean are below 0, which the file's input cannot hold."""
    for C, how in ((1, {}), (3, {"mean": (103.5, 117, 124)})):
        path = chain(tmp_path/"a.onnx", (9, 9, C), [("Cast", [], {"to": FLOAT}), ("Transpose", [], {"perm": [0, 3, 1, 2]}), ("Conv", ["w"]),
                                                    ("Flatten", [])], {"w": drawn((4, C, 3, 3))}, kind=onnx.TensorProto.UINT8)
        found = import_network(path, **how)
        assert found.differences and max(one.relative for one in found.differences) < 1e-5


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT8, onnx.TensorProto.BOOL])
def test_pictures_of_numbers_that_no_pixels_fit_are_refused(kind, tmp_path):
    with pytest.raises(Expected, match="expected pictures of numbers that can be pixels, 0 to 255, got data type"):
        read(chain(tmp_path/"a.onnx", (3, 8, 8), [("Cast", [], {"to": FLOAT}), ("Conv", ["w"])], CONV, kind=kind))


def test_a_picture_is_subtracted_from_those_that_enter_alone_and_in_their_size(tmp_path):
    path = chain(tmp_path/"a.onnx", (3, 9, 9), [("Sub", ["near"]), ("Conv", ["w"])], PICTURES)
    with pytest.raises(Expected, match="picture_size: expected 9, the side of the picture that the file itself subtracts, got 12"):
        import_network(path, size=12)
    with pytest.raises(Unsupported, match="node1: expected one number, or one for each map"):
        read(chain(path, (3, 9, 9), [("Relu", []), ("Sub", ["near"]), ("Conv", ["w"])], PICTURES))
    nothing = {**PICTURES, "nothing": np.zeros((3, 1, 1), np.float32)}
    with pytest.raises(Unsupported, match="node1: expected a picture that is subtracted from those that enter"):
        import_network(chain(path, (3, 9, 9), [("Mul", ["nothing"]), ("Sub", ["near"]), ("Conv", ["w"])], nothing))
    with pytest.raises(Expected, match="layers between pictures and scores"):
        import_network(chain(path, (3, 9, 9), [("Sub", ["near"])], PICTURES))


@pytest.mark.parametrize("nodes, constants, found", [
    ([("Clip", ["zero"])], {"zero": np.float32(0)}, [Rectifier]),
    ([("Pad", ["pads"])], {"pads": np.array([0, 0, 1, 2, 0, 0, 0, -3])}, [Padding]),
    ([("GlobalAveragePool", []), ("Squeeze", ["axes"])], {"axes": np.array([2, 3])}, [AveragePooling, Flattening]),
    ([("ReduceMean", [], {"axes": [-1, 2], "keepdims": 0})], {}, [AveragePooling, Flattening]),
    ([("GlobalMaxPool", []), ("Reshape", ["rest"])], {"rest": np.array([0, -1])}, [MaxPooling, Flattening]),
    ([("Identity", []), ("Mul", ["each"]), ("Sub", ["one"])], {"each": drawn((3, 1, 1)), "one": np.float32(2)},
     [Affine, Affine]),
    ([("Div", ["each"])], {"each": np.array([2, 3, 4], np.float32).reshape(1, 3, 1, 1)}, [Affine]),
    ([("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})], {}, [MaxPooling]),
    ([("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1]*4, "count_include_pad": 1})], {},
     [AveragePooling]),
    ([("Conv", ["w"], {"auto_pad": "SAME_LOWER", "strides": [2, 2]})], CONV, [Convolution]),
    ([("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1,
                           "ceil_mode": 1})], {}, [AveragePooling]),
    ([("AveragePool", [], {"kernel_shape": [4, 4], "strides": [3, 3], "pads": [2, 1, 0, 3]})], {}, [AveragePooling]),
    ([("AveragePool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1})], {},
     [AveragePooling]),
    ([("MaxPool", [], {"kernel_shape": [4, 4], "strides": [3, 3], "pads": [2, 1, 0, 3]})], {}, [MaxPooling]),
    ([("MaxPool", [], {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"})], {}, [MaxPooling]),
    ([("ReduceMax", [], {"axes": [2, 3]})], {}, [MaxPooling]), ([("Neg", [])], {}, [Affine]),
    ([("Pad", ["pads", "two"])], {"pads": np.array([0, 0, 1, 2, 0, 0, 0, -3]), "two": np.float32(2)},
     [Affine, Padding, Affine]),
    ([("Slice", ["from", "to", "axes"])], {"from": np.array([1, -7]), "to": np.array([2**40, -2]), "axes": np.array([-1, 2])},
     [Padding]),
    ([("Clip", ["two"])], {"two": np.float32(2)}, [Affine, Rectifier, Affine]),
    ([("Max", ["zero"])], {"zero": np.zeros((1, 1), np.float32)}, [Rectifier]),
    ([("ConvTranspose", ["wide"], {"group": 3, "pads": [1, 0, 2, 1], "dilations": [1, 2]})], {"wide": drawn((3, 2, 3, 2))},
     [Convolution]),
    ([("ConvTranspose", ["wide", "b"], {"auto_pad": "SAME_LOWER"})], {"wide": drawn((3, 4, 2, 2)), **CONV}, [Convolution]),
    ([("ConvTranspose", ["wide"], {"output_shape": [8, 9]})], {"wide": drawn((3, 4, 3, 3))}, [Convolution]),
    ([("ConvTranspose", ["wide"], {"pads": [3, 3, 3, 3]})], {"wide": drawn((3, 4, 3, 3))}, [Convolution]),
    ([helper.make_node("Sqrt", ["var"], ["std"]), helper.make_node("Div", ["gamma", "std"], ["scale"]),
      helper.make_node("Neg", ["scale"], ["factor"]),
      helper.make_node("Mul", ["t0", "factor"], ["y"])], {"var": np.float32([[[4]], [[9]], [[2]]]), "gamma": drawn((3, 1, 1))},
     [Affine])])
def test_what_the_usual_nodes_compute_is_onnxruntimes(nodes, constants, found, tmp_path):
    path = chain(tmp_path/"a.onnx", (3, 8, 8), [("Relu", []), *nodes], constants)
    assert kinds(path) == [Rectifier, *found]
    assert differences(path) < 1e-5


def test_a_softmax_of_maps_is_over_all_of_them_before_version_13_and_one_of_pixels_is_refused_from_then_on(tmp_path):
    path = chain(tmp_path/"a.onnx", (3, 7, 7), [("Conv", ["w"]), ("Softmax", [])], CONV, opset=11)
    assert kinds(path) == [Convolution, Flattening, Probabilities] and differences(path) < 1e-5
    with pytest.raises(Unsupported, match="a softmax over the classes, got one over axis 1 of 4"):
        read(chain(path, (3, 7, 7), [("Conv", ["w"]), ("Softmax", [], {"axis": 1})], CONV))


def test_normalisation_over_an_even_number_of_maps_has_one_more_above(tmp_path):
    path = chain(tmp_path/"a.onnx", (3, 7, 7), [("Conv", ["w"]),
                                                ("LRN", [], {"size": 2, "alpha": 3.0, "beta": 0.5, "bias": 2.0})], CONV)
    assert kinds(path) == [Convolution, ResponseNorm]
    found = import_network(path)
    assert "node1: onnxruntime has no normalisation over an even number" in found.notes[-1]
    x, layers = drawn((3, 7, 7, 2)), found.lowered.network.layers
    y = maps = layers[0].forward(x)[0]
    for layer in layers[1:]:
        y, _ = layer.forward(y)
    squares = maps**2 + np.concatenate([maps[1:]**2, np.zeros_like(maps[:1])])
    np.testing.assert_allclose(y, maps/np.sqrt(2 + 3/2*squares), rtol=1e-5, atol=1e-6)


def torch_normalising(path, n, opset, dynamic=False):
    """Write a network of PyTorch's with a response normalisation over n maps to `path`, as it exports it."""
    torch = pytest.importorskip("torch", reason="PyTorch, which makes this file, is not installed")
    nn = torch.nn
    network = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.LocalResponseNorm(n, 0.3, 0.7, 2.0), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(63, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, torch.rand(1, 3, 9, 9), path, opset_version=opset, dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "n"}} if dynamic else None)
    return path


@pytest.mark.parametrize("n, opset, dynamic", [(5, 9, False), (5, 17, True), (4, 17, False), (3, 12, True)])
def test_pytorchs_response_normalisation_is_found_in_what_it_is_made_of(n, opset, dynamic, tmp_path):
    path = torch_normalising(tmp_path/"a.onnx", n, opset, dynamic)
    node = read(path).nodes[2]
    assert (node.n, node.alpha, node.beta, node.k, node.above) == (n, 0.3, 0.7, 2.0, False)
    assert differences(path) < 1e-5


@pytest.mark.parametrize("change", ["window", "pads", "axes", "maps", "branch"])
def test_squares_that_become_something_else_are_refused(change, tmp_path):
    path = torch_normalising(tmp_path/"a.onnx", 5, 9)
    model = onnx.load(path)
    nodes = {node.op_type: node for node in reversed(model.graph.node)}
    attributes = {entry.name: entry for node in (nodes["Pad"], nodes["AveragePool"]) for entry in node.attribute}
    if change == "window":
        attributes["kernel_shape"].ints[0] = 3
    elif change == "axes":
        attributes["kernel_shape"].ints[:] = [1, 5, 1]
    elif change == "maps":
        nodes["Div"].input[0] = nodes["Conv"].output[0]
    elif change == "branch":
        nodes["Pow"].input[1] = nodes["Mul"].output[0]
    else:
        next(entry for entry in nodes["Pad"].attribute if entry.name == "pads").ints[:] = [0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    onnx.save(model, path)
    with pytest.raises(Unsupported, match="squares of maps in a response normalisation"):
        read(path)


@pytest.mark.parametrize("old, new", [(b"/1/Relu", b"\xff1/Relu"), (b"Pow", b"\xffow"), (b"AveragePool", b"\xffveragePool"),
                                      (b"Squeeze", b"If\xffeeze")])
def test_names_that_are_no_text_are_one_sentence(old, new, tmp_path):
    path = torch_normalising(tmp_path/"a.onnx", 5, 9)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(Expected):
        lower.as_it_is(read(path), "made")


@pytest.mark.parametrize("old", [b"chain", b"numbers", b"producer", b"told"])
def test_names_by_which_nothing_is_found_need_be_no_text(old, tmp_path):
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(CONV["w"], "numbers"))
    path = chain(tmp_path/"a.onnx", (3, 8, 8), [constant, helper.make_node("Conv", ["x", "w"], ["y"])])
    model = onnx.load(path)
    model.producer_name, model.doc_string = "producer", "told"
    path.write_bytes(model.SerializeToString().replace(old, b"\xff" + old[1:]))
    assert differences(path) < 1e-5


def test_a_choice_without_a_condition_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="choice"):
        read(chain(tmp_path/"a.onnx", (3, 8, 8), [helper.make_node("If", [], ["y"], "choice")]))


def test_all_of_a_single_picture_may_be_flattened_from_the_first_axis_on(tmp_path):
    nodes = [("Conv", ["w"]), ("Flatten", [], {"axis": 0}), ("MatMul", ["fc"])]
    assert kinds(chain(tmp_path/"a.onnx", (3, 7, 7), nodes, {**CONV, **FC}, batch=1)) == [Convolution, Flattening, Dense]
    assert differences(tmp_path/"a.onnx") < 1e-5
    with pytest.raises(Unsupported, match="axis 0"):
        read(chain(tmp_path/"a.onnx", (3, 7, 7), nodes, {**CONV, **FC}))


def test_pixels_in_another_order_get_filters_of_their_own_where_the_network_begins_with_none(tmp_path):
    path = chain(tmp_path/"a.onnx", (3, 8, 8), [("MaxPool", [], {"kernel_shape": [2, 2]}), ("Conv", ["w", "b"])], CONV)
    found = import_network(path, channels="bgr")
    assert [one.layer for one in found.differences] == ["node0", "node1"] and max(one.relative
                                                                                  for one in found.differences) < 1e-6
    assert [layer.name for layer in found.lowered.network.layers][:2] == ["pixels", "node0"]


# --------------------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("nodes, words", [
    ([("Sigmoid", [])], "node0: expected an operator that zfcore has a layer for, got 'Sigmoid'"),
    ([("PRelu", ["w"])], "got 'PRelu'; zfcore would need a rectifier with a slope"),
    ([("Clip", ["zero", "six"])], "node0: expected a clip without an upper end, got one to 0 and 6"),
    ([("Relu", []), helper.make_node("Add", ["t0", "x"], ["y"], "sum")], "sum: expected one input that is no constant, got 2"),
    ([("Relu", []), helper.make_node("MatMul", ["w", "t0"], ["y"])], "y: expected units times a constant"),
    ([("Conv", ["b"])], "node0: expected filters"),
    ([("Conv", ["w"], {"dilations": [4, 4]})], "node0: expected maps of at least 9x9 pixels"),
    ([("Conv", ["w"], {"momentum": 1})], "node0: expected attributes of Conv of version 13, got 'momentum'"),
    ([("MaxPool", [], {"strides": [2, 2]})], "node0: expected the attribute kernel_shape"),
    ([("Pad", ["pads"], {"mode": "reflect"})], "node0: expected padding with one number, got mode 'reflect'"),
    ([("Softmax", [], {"axis": 2})], "node0: expected a softmax over the classes"),
    ([("Slice", ["axis", "eight", "axis"])], "node0: expected rows and columns that lie together"),
    ([("Slice", ["axis", "axis", "two"])], "node0: expected something left of the maps"),
    ([("ConvTranspose", ["w"], {"strides": [2, 2]})], "node0: expected strides of 1"),
    ([("Max", ["picture"])], "node0: expected one number for all"),
    ([("Relu", []), ("Add", ["picture"])], "node1: expected one number, or one for each map or unit"),
    ([("Dropout", ["half", "true"])], "node0: expected dropout that does nothing"),
    ([helper.make_node("Relu", ["y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])], "circle"),
    ([helper.make_node("Relu", ["nowhere"], ["y"])], "y: expected inputs that other nodes give first"),
    ([helper.make_node("Relu", ["x"], ["w"])], "expected to be made by one node"),
    ([helper.make_node("ConstantOfShape", ["huge"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])], "c: expected "
     "constants of at most"),
    ([helper.make_node("Relu", ["x"], ["y"], domain="com.acme")], "got 'Relu'"),
    ([("Reshape", ["six"])], "node0: expected a shape that is known")])
def test_what_cannot_be_expressed_is_refused_by_the_name_of_the_node(nodes, words, tmp_path):
    constants = {**CONV, "zero": np.float32(0), "six": np.float32(6), "half": np.float32(0.5),
                 "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
                 "axis": np.array([1]), "two": np.array([2]), "eight": np.array([8]), "huge": np.array([10**6, 10**6]),
                 "true": np.array(True), "picture": drawn((3, 8, 8))}
    with pytest.raises(Expected) as refused:
        read(chain(tmp_path/"a.onnx", (3, 8, 8), nodes, constants))
    assert words in str(refused.value) and str(refused.value).startswith(f"{tmp_path}/a.onnx: ")


def operators():
    """(operator, place of an input) of every operator that becomes a layer."""
    for op_type in OPERATORS:
        schema = onnx.defs.get_schema(op_type, 13, "")
        yield from ((op_type, place) for place in range(min(schema.max_input, 4)))


@pytest.mark.parametrize("op_type, place", list(operators()))
@pytest.mark.parametrize("thing", ["number of pictures", "shape", "nothing", "maps", "text", "half", "five"])
def test_whatever_stands_as_an_input_is_read_or_one_sentence(op_type, place, thing, tmp_path):
    """The number of pictures, which nobody knows when the file is read, or the shape that it is a part of; no numbers, two of them, or
    what the pictures became, in place of a constant; a constant in place of the pictures."""
    schema = onnx.defs.get_schema(op_type, 13, "")
    needed = {"kernel_shape": [2, 2], "to": FLOAT, "alpha": 0.5}
    constants = {"at": np.array(0), "nothing": np.zeros(0, np.float32), "text": np.array([0, 1]), "half": np.float32(0.5),
                 "five": drawn((5,)), **CONV, "fc": drawn((192, 6)), "flat": np.array([-1, 192])}
    usual = {"Conv": ["x", "w", "b"], "ConvTranspose": ["x", "w", "b"], "BatchNormalization": ["x", "b", "b", "b", "b"], "Gemm": ["x", "fc"],
             "MatMul": ["x", "fc"], "Reshape": ["x", "flat"]}.get(op_type, ["x"])
    names = (usual + [""]*4)[:max(len(usual), place + 1)]
    names[place] = {"number of pictures": "number", "maps": "relu"}.get(thing, thing)
    if "x" not in names and thing != "maps":
        names[-1 if place == 0 and len(names) > 1 else min(1, len(names) - 1)] = "x"
    attributes = {key: value for key, value in needed.items() if key in schema.attributes and schema.attributes[key].required}
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Shape", ["x"], ["shape"]),
             helper.make_node("Gather", ["shape", "at"], ["number"]), helper.make_node(op_type, names, ["y"], "odd", **attributes)]
    try:
        read(chain(tmp_path/"a.onnx", (3, 8, 8), nodes, constants))
    except Expected as sentence:
        assert "odd: expected " in str(sentence) or "branches" in str(sentence) or "scores that are computed" in str(sentence)


@pytest.mark.parametrize("nodes, words", [
    ([("Clip", ["number"])], "expected a constant as min, got none"), ([("Pad", ["pads", "number"])], "expected a constant as value, got none"),
    ([("Clip", ["two"])], "expected one number as min, got shape (2,)"),
    ([helper.make_node("Clip", ["half", "x"], ["y"])], "y: expected maps or units as the first input of Clip, got a constant"),
    ([("Dropout", ["two"])], "expected one number as ratio, got shape (2,)")])
def test_a_number_that_is_none_is_refused_by_what_it_should_be(nodes, words, tmp_path):
    before = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "at"], ["number"])]
    constants = {"at": np.array(0), "half": np.float32(0.5), "two": np.float32([0, 1]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    nodes = [helper.make_node(node[0], ["x", *node[1]], ["y"]) if isinstance(node, tuple) else node for node in nodes]
    with pytest.raises(Unsupported) as refused:
        read(chain(tmp_path/"a.onnx", (3, 8, 8), [*before, *nodes], constants))
    assert words in str(refused.value)


@pytest.mark.parametrize("turn", [("Slice", ["last", "first", "one", "back"]), ("Gather", ["turned"], {"axis": 1}),
                                  ("Gather", ["turned"], {"axis": -3})])
@pytest.mark.parametrize("before, words", [
    ([], "node0: expected the colours in the order in which they enter, got another order; export the network without this node; "
         "if it turns them round, channels bgr does that"),
    ([("Sub", ["means"])], "node1: expected maps in their order, got another order; zfcore would need a layer for it"),
    ([("Conv", ["three"])], "node1: expected maps in their order, got another order; zfcore would need a layer for it")])
def test_colours_that_the_graph_turns_round_are_refused_with_what_does_the_same(turn, before, words, tmp_path):
    constants = {"last": np.array([-1]), "first": np.array([-2**63]), "one": np.array([1]), "back": np.array([-1]),
                 "turned": np.array([2, 1, 0]), "means": drawn((3, 1, 1)), "three": drawn((3, 3, 1, 1)), "w": CONV["w"]}
    with pytest.raises(Unsupported) as refused:
        read(chain(tmp_path/"a.onnx", (3, 8, 8), [*before, turn, ("Conv", ["w"])], constants))
    assert words in str(refused.value)


@pytest.mark.parametrize("node, words", [
    (("MaxPool", [], {"kernel_shape": [16, 16]}), "node0: expected maxima of at most 15x15 pixels, got 16x16"),
    (("Conv", ["w"], {"dilations": [1900, 1900]}), "node0: expected filters that stand in square ones of ")])
def test_windows_that_layers_cannot_have_are_refused_before_memory_is_taken_for_them(node, words, tmp_path):
    with pytest.raises(Unsupported) as refused:
        imported(chain(tmp_path/"a.onnx", (3, 4000, 4000), [node], CONV))
    assert words in str(refused.value)


def two_readers(path):
    chain(path, (3, 8, 8), [("Relu", []), helper.make_node("Conv", ["t0", "w"], ["a"]),
                            helper.make_node("Conv", ["t0", "w"], ["b"]),
                            helper.make_node("Concat", ["a", "b"], ["y"], "meet", axis=1)], {"w": CONV["w"]})


def two_outputs(path):
    model = onnx.load(chain(path, (3, 8, 8), [("Relu", []), ("Relu", [])]))
    model.graph.output.append(onnx.ValueInfoProto(name="t0"))
    path.write_bytes(model.SerializeToString())


def of_one_tensor(change):
    """A model of a convolution whose filters are changed."""
    def make(path):
        model = onnx.load(chain(path, (3, 8, 8), [("Conv", ["w"])], {"w": CONV["w"]}))
        change(model.graph.initializer[0], path)
        path.write_bytes(model.SerializeToString())
    return make


def larger(tensor, path):
    tensor.dims[0] = 10**9


def negative(tensor, path):
    tensor.dims[0] = -1


def beside(location, offset=0, length=None, make=None):
    """A change that says that the numbers are in another file."""
    def change(tensor, path):
        data = tensor.raw_data
        (path.parent/"weights.bin").write_bytes(data)
        if make:
            make(path.parent)
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", len(data) if length is None else length)):
            tensor.external_data.add(key=key, value=str(value))
    return change


def full(*shape):
    """A file whose filters are a constant of that shape, made by a node of it."""
    return lambda path: chain(path, (3, 64, 64), [helper.make_node("ConstantOfShape", ["shape"], ["w"]),
                                                  helper.make_node("Conv", ["x", "w"], ["y"])], {"shape": np.array(shape)})


def doubled(times):
    """A file whose filters are `times` times laid behind themselves."""
    return lambda path: chain(path, (3, 8, 8), [
        *(helper.make_node("Concat", [f"w{k}"]*2, [f"w{k + 1}"], f"double{k}", axis=0) for k in range(times)),
        helper.make_node("Conv", ["x", f"w{times}"], ["y"])], {"w0": CONV["w"]})


def crossed(path):
    """A file in which every number of a row is asked whether it is one of a column."""
    row = np.arange(20_000)
    nodes = [helper.make_node("Equal", ["row", "column"], ["same"]), helper.make_node("Cast", ["same"], ["w"], to=FLOAT),
             helper.make_node("Conv", ["x", "w"], ["y"])]
    return chain(path, (3, 8, 8), nodes, {"row": row, "column": row[:, None]})


@pytest.mark.parametrize("make, words", [
    (full(20_000, 3, 64, 64), "w: expected constants of at most 134"), (doubled(40), "double17: expected constants of at most 134"),
    (crossed, "same: expected constants of at most 139"),
    (lambda path: path.write_bytes(b""), "a.onnx: expected an ONNX model with nodes"),
    (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "a.onnx: expected an ONNX model"),
    (lambda path: os.mkfifo(path), "a.onnx: expected a file that can be read"),
    (two_readers, "meet: expected one input that is no constant, got 2 of Concat; zfcore would need branches"),
    (two_outputs, "outputs: expected one, the scores, got 2"),
    (lambda path: chain(path, ("h", "w", 3), [("Relu", [])]), "x: expected pictures (N,C,H,W) of a fixed size, got ?x?x?x3"),
    (lambda path: chain(path, (3, 8, 8), [("Relu", [])], opset=5), "version of its operators: expected 6 to"),
    (of_one_tensor(larger), "w: expected 108000000000 bytes for the shape 1000000000x3x3x3, got 432"),
    (of_one_tensor(negative), "w: expected a shape"),
    (of_one_tensor(beside("../weights.bin")), "w: expected its numbers in a file in the model's own folder"),
    (of_one_tensor(beside("/etc/passwd")), "w: expected its numbers in a file in the model's own folder"),
    (of_one_tensor(beside("weights.bin", offset=8)), "w: expected 432 bytes from byte 8 on in weights.bin"),
    (of_one_tensor(beside("weights.bin", length=9)), "w: expected 432 bytes"),
    (of_one_tensor(beside("link.bin", make=lambda folder: (folder/"link.bin").symlink_to("weights.bin"))), "which is a link"),
    (of_one_tensor(beside("link.bin", make=lambda folder: os.link(folder/"weights.bin", folder/"link.bin"))),
     "which is a link"),
    (of_one_tensor(beside("in/w.bin", make=lambda folder: (folder/"in").symlink_to("/etc"))), "leads out of it"),
    (of_one_tensor(beside("fifo.bin", make=lambda folder: os.mkfifo(folder/"fifo.bin"))), "got a file of 0 bytes"),
    (of_one_tensor(beside("gone.bin")), "w: expected its numbers in ")])
def test_a_file_that_lies_is_one_sentence_and_takes_no_memory(make, words, tmp_path):
    path = tmp_path/"a.onnx"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(Expected) as refused:
            read(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in str(refused.value)
    assert most < 2**27


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limit of Linux")
@pytest.mark.parametrize("numbers", [(7, 1), (7, 5), (7, 13), (7, 1, 5), (7, 1, 5, 6, 1), (25,), (20, 1, 1)],
                         ids=["nodes", "initializers", "values", "attributes", "nodes of a branch", "functions", "nodes for training"])
def test_what_is_small_in_a_file_and_large_in_memory_is_refused_before(tmp_path, numbers):
    """Ten million messages of two bytes, at the places that the numbers of fields lead to."""
    data = field(numbers[-1], b"")*10**7
    for number in reversed(numbers[:-1]):
        data = field(number, data)
    (tmp_path/"a.onnx").write_bytes(data)
    said = bounded(f"""
        from pathlib import Path
        from zfcore.check import Expected
        from zfcore.interchange.onnx import read
        try: read(Path({str(tmp_path/'a.onnx')!r}))
        except Expected as sentence: print(sentence)""", gigabytes=1.0)
    assert "expected an ONNX model of at most 500000 parts" in said


def test_constants_may_be_computed_that_are_many_times_as_large_as_the_file(tmp_path):
    w = np.zeros((3*2**20, 3, 3, 3), np.float16)           # 170 MB, which a Cast doubles
    node, = read(chain(tmp_path/"a.onnx", (3, 3, 3), [helper.make_node("Cast", ["half"], ["w"], to=FLOAT),
                                                       helper.make_node("Conv", ["x", "w"], ["y"])], {"half": w})).nodes
    assert node.w.nbytes == 2*w.nbytes > 2**28


def test_weights_in_a_file_beside_it_are_read(tmp_path):
    of_one_tensor(beside("weights.bin"))(tmp_path/"a.onnx")
    np.testing.assert_array_equal(read(tmp_path/"a.onnx").nodes[0].w, CONV["w"])
    assert differences(tmp_path/"a.onnx") < 1e-5


def test_whatever_is_cut_or_flipped_is_read_or_refused_in_one_sentence(tmp_path):
    path, rng, refused = tmp_path/"a.onnx", np.random.default_rng(3), 0
    network = Network("small", (3, 9, 9), [Conv("conv1", 4, 3), BatchNorm("bn1"), ReLU("relu1"), MaxPool("pool1", 2, 2),
                                           Dropout("drop"),
                                           LocalResponseNorm("norm1"), Pad("pad", 1, 0, 0, -1), Flatten("flat"),
                                           Linear("fc2", 3)]).init(1)
    write(network, path, drawn((3, 11, 11)), ["a", "b", "c"], preprocessing=True)
    sound = path.read_bytes()
    heads = len(sound) - 3*network.parameter_count()                      # most of the damage to what is no weight
    for _ in range(300):
        data = bytearray(sound)
        if rng.random() < 0.2:
            data = data[:rng.integers(len(data))]
        for _ in range(rng.integers(1, 4)):
            if len(data):
                data[rng.integers(min(len(data), heads))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            imported(path)
        except Expected as sentence:
            assert "\n" not in str(sentence) and len(str(sentence)) < 1000
            refused += 1
    assert refused > 100


# ------------------------------------------------------------------------------------------------------------------ writing
def outputs(network, x):
    return network.forward(x)[0]


def round_trip(network, folder, **how):
    """Write a network, and return (scores, onnxruntime's, the network as it is read again, x); the checker finds nothing."""
    path, (C, H, W) = folder/"written.onnx", network.input_shape
    write(network, path, **how)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x = np.random.default_rng(8).uniform(-128, 128, (C, H, W, 3)).astype(np.float32)
    scores = outputs(network, x)
    theirs = np.moveaxis(runtime(path, np.ascontiguousarray(np.moveaxis(x, 3, 0))), 0, -1).reshape(scores.shape)
    return scores, theirs, imported(path)[2].network, x


@pytest.mark.parametrize("model", ["tiny", "tiny-alexnet", "nin"])
def test_a_model_that_is_written_and_read_again_is_the_same_to_the_bit(model, tmp_path):
    network = build(model, 7, 96).init(3, "he")
    scores, theirs, again, x = round_trip(network, tmp_path)
    assert np.abs(scores - theirs).max() < 5e-6*np.abs(scores).max()
    np.testing.assert_array_equal(outputs(again, x).reshape(scores.shape), scores)
    assert [layer.name for layer in again.layers][:len(network.layers)] == [layer.name for layer in network.layers]


def test_the_network_that_comes_with_zfcore_is_onnxruntimes_to_a_millionth(tmp_path):
    import zfcore
    model = zfcore.open("drawn")
    write(model.network, tmp_path/"drawn.onnx", model.mean, model.classes, preprocessing=True, softmax=True)
    pixels = np.random.default_rng(4).integers(0, 256, (4, model.size, model.size, 3), np.uint8)
    rim = (model.size - model.crop)//2
    crops = np.ascontiguousarray(pixels[:, rim:rim + model.crop, rim:rim + model.crop])
    assert np.abs(runtime(tmp_path/"drawn.onnx", crops).T - model.probabilities(pixels)).max() < 1e-6
    foreign, seen, lowered = imported(tmp_path/"drawn.onnx")
    assert foreign.labels == list(model.classes) and seen.assumed == ()
    np.testing.assert_array_equal(lowered.mean, model.mean)
    np.testing.assert_array_equal(outputs(lowered.network, model.inputs(pixels)), outputs(model.network, model.inputs(pixels)))


def test_a_mean_image_beside_the_graph_that_is_not_the_one_in_it_is_refused(tmp_path):
    """One that the graph subtracts otherwise, elsewhere, or not at all from whole numbers; --mean comes on top of the right one."""
    network = Network("small", (3, 9, 9), [Conv("conv1", 4, 3), Flatten("flat"), Linear("fc2", 3)]).init(1, "he")
    path, mean = tmp_path/"a.onnx", 100 + 20*drawn((3, 11, 11))
    write(network, path, mean, preprocessing=True)
    np.testing.assert_array_equal(imported(path)[2].mean, mean)
    found = import_network(path, mean=(10, 20, 30))
    np.testing.assert_allclose(found.lowered.mean, mean + np.reshape([10, 20, 30], (3, 1, 1)), rtol=1e-6)
    assert max(one.relative for one in found.differences) < 1e-5
    model = onnx.load(path)
    subtracting, = (node for node in model.graph.node if node.op_type == "Sub")
    for change in ("operator", "nothing"):
        if change == "operator":
            subtracting.op_type = "Add"
        else:
            subtracting.op_type, subtracting.input[1:] = "Identity", []
        path.write_bytes(model.SerializeToString())
        with pytest.raises(Expected, match="metadata zfcore: expected the mean image that the graph subtracts, got another"):
            read(path)


def test_a_batch_normalisation_is_written_and_read_again_folded(tmp_path):
    network = Network("normed", (3, 9, 9), [Conv("conv1", 4, 3), BatchNorm("bn1"), ReLU("relu1"), Flatten("flat"),
                                            Linear("fc2", 3)]).init(1, "he")
    rng = np.random.default_rng(5)
    for of_layer in (network["bn1"].parameters, network["bn1"].buffers):
        of_layer.update({key: rng.uniform(0.5, 2, 4).astype(np.float32) for key in of_layer})
    scores, theirs, again, x = round_trip(network, tmp_path)
    assert np.abs(scores - theirs).max() < 5e-6*np.abs(scores).max()
    assert np.abs(scores - outputs(again, x)).max() < 5e-6*np.abs(scores).max()
    assert [layer.name for layer in again.layers] == ["conv1", "relu1", "flat", "fc2"]


def test_every_kind_of_layer_is_written_or_refused_by_its_name(tmp_path):
    assert _NODES.keys() == set(KINDS.values())
    for layer in (LocalResponseNormWithin("norm1", 3), LocalResponseNorm("norm1", 4)):
        with pytest.raises(Expected, match="^norm1: "):
            write(Network("refused", (3, 9, 9), [layer]), tmp_path/"a.onnx")
    with pytest.raises(Expected, match="with_preprocessing"):
        write(build("tiny", 3, 96).init(), tmp_path/"a.onnx", preprocessing=True)
    assert not list(tmp_path.iterdir())


WINDOW = {"K": st.integers(1, 4), "S": st.integers(1, 3), "P": st.integers(0, 2),
          "rounding": st.sampled_from(["ceil", "floor"])}
LAYERS = st.lists(st.one_of(
    st.builds(Conv, st.just("layer"), st.integers(1, 3).map(lambda n: 2*n), **WINDOW, groups=st.sampled_from([1, 1, 2])),
    st.builds(MaxPool, st.just("layer"), **WINDOW),
    st.builds(AvgPool, st.just("layer"), **WINDOW, borders=st.sampled_from(["inside", "padded", "clipped"])),
    st.builds(AvgPool, st.just("layer")),
    st.builds(LocalResponseNorm, st.just("layer"), st.sampled_from([1, 3, 5]), st.sampled_from([1e-4, 0.3]),
              st.sampled_from([0.5, 0.75]), st.sampled_from([1.0, 2.0]), st.sampled_from(["mean", "sum"])),
    st.builds(Pad, st.just("layer"), *[st.integers(-1, 3)]*4), st.builds(BatchNorm, st.just("layer")), st.builds(ReLU, st.just("layer")),
    st.builds(Dropout, st.just("layer"), st.sampled_from([0.5, 0.7]))), min_size=1, max_size=7)


def check_chain(layers, size, classes, folder):
    """The chain, without the layers that do not fit, is onnxruntime's, and its own when it is read again."""
    kept, shape = [], (3, *size)
    for layer in layers:
        layer.name = f"layer{len(kept)}"
        try:
            shape = layer.shape_out(shape)
        except Expected:
            continue
        kept.append(layer)
    network = Network("random", (3, *size), [*kept, Flatten("flat"), Linear("fc", classes)]).init(6, "he")
    rng = np.random.default_rng(7)
    for layer in network.layers:
        for of_layer in (layer.parameters, layer.buffers) if isinstance(layer, BatchNorm) else ():
            of_layer.update({key: rng.uniform(0.5, 2, len(array)).astype(np.float32) for key, array in of_layer.items()})
        if "b" in layer.parameters:
            layer.parameters["b"] = drawn(layer.parameters["b"].shape, 9)
    write(network, folder/"a.onnx")
    onnx.checker.check_model(str(folder/"a.onnx"), full_check=True)
    x = np.random.default_rng(8).uniform(-128, 128, (3, *size, 2)).astype(np.float32)
    scores, theirs = outputs(network, x), runtime(folder/"a.onnx", np.ascontiguousarray(np.moveaxis(x, 3, 0))).T
    largest = np.abs(scores).max()
    assert np.abs(scores - theirs).max() <= 1e-5*largest
    again = outputs(lower.as_it_is(read(folder/"a.onnx"), "again"), x)
    if any(isinstance(layer, BatchNorm) for layer in kept):
        assert np.abs(scores - again).max() <= 1e-5*largest
    else:
        np.testing.assert_array_equal(again, scores)


CHAINS = {"layers": LAYERS, "size": st.tuples(st.integers(5, 13), st.integers(5, 13)), "classes": st.integers(1, 4)}
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture], "derandomize": True}


@given(**CHAINS)
@settings(max_examples=30, **UNHURRIED)
def test_random_chains_of_layers_are_onnxruntimes_and_the_same_when_read_again(tmp_path, layers, size, classes):
    check_chain(layers, size, classes, tmp_path)


@pytest.mark.exhaustive
@given(**CHAINS)
@settings(max_examples=200, **UNHURRIED)
def test_two_hundred_random_chains_are_onnxruntimes_and_the_same_when_read_again(tmp_path, layers, size, classes):
    check_chain(layers, size, classes, tmp_path)
