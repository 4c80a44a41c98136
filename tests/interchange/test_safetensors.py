"""Weights in files of safetensors, and what zfcore writes for PyTorch: read back it is the same network."""
import json
import struct

import numpy as np
import pytest

from tests.interchange.test_pytorch import SMALL, table
from zfcore import interchange
from zfcore.check import Expected
from zfcore.interchange import pytorch, safetensors, state_dict
from zfcore.layers import (AvgPool, BatchNorm, Conv, Dropout, Flatten, Linear, LocalResponseNorm, LocalResponseNormWithin,
                           MaxPool, Pad, ReLU)
from zfcore.models import build
from zfcore.network import Network

MEAN = np.random.default_rng(2).random((3, 19, 19), np.float32)*255
# Every kind of layer that torch.nn has, each size another; names that are no names in Python, or a module's own.
LAYERS = [Conv("conv 1", F=6, K=4, S=3, P=1), ReLU("forward"), MaxPool("pool.1", K=3, S=2, P=1),
          LocalResponseNorm("norm1", 4, 0.5, convention="sum"),
          Pad("pad", 1, 0, 2, -1), Conv("conv2", F=8, K=2, S=1, P=1, groups=2, rounding="floor"), ReLU("relu"),
          AvgPool("pool2", K=3, S=2, P=1, borders="padded"), Dropout("drop", 0.8), Flatten("flatten"), Linear("fc-3", 5)]
OTHERS = [Conv("conv1", F=4, K=5, S=2, P=3), BatchNorm("norm1", 1e-3), ReLU("relu1"),
          AvgPool("pool1", K=3, S=2, P=1, borders="clipped"),
          AvgPool("pool2", K=2, S=2, P=1, borders="inside"), MaxPool("pool3", K=2, S=2, P=1, rounding="floor"),
          Conv("conv2", 7, 1), AvgPool("pool4"), Flatten("flatten"), BatchNorm("norm2"), Linear("fc3", 3)]


def network(layers=LAYERS, size=17):
    made = Network("made", (3, size, size), layers).init(4, "he")
    rng = np.random.default_rng(5)
    for layer in made.layers:
        for key in layer.parameters:
            layer.parameters[key] = rng.standard_normal(layer.parameters[key].shape, np.float32)
        for key in layer.buffers:
            layer.buffers[key] = rng.random(layer.buffers[key].shape, np.float32) + np.float32(0.5)
    return made


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")


def written(form, made, path):
    if form is pytorch:
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    form.write(made, path, MEAN, ["a", "b", "c", "d", "e"])
    return path


# ------------------------------------------------------------------------------------------------------ there and back
@pytest.mark.parametrize("form, name", [(safetensors, "x.safetensors"), (pytorch, "x.pth")], ids=["safetensors", "torch"])
def test_read_back_it_is_the_same_network_to_the_bit(form, name, tmp_path):
    made = network([*LAYERS[:3], LocalResponseNormWithin("within", 3, 0.5), *LAYERS[3:]])
    found = interchange.import_network(written(form, made, tmp_path/name))
    x = np.random.default_rng(1).random((3, 17, 17, 2), np.float32)*200 - 100
    assert np.array_equal(found.lowered.network.forward(x)[0], made.forward(x)[0])
    for (_, ours), (_, theirs) in zip(made.parameters().items(), found.lowered.network.parameters().items(), strict=True):
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert np.array_equal(found.lowered.mean, MEAN) and found.classes == ["a", "b", "c", "d", "e"] and found.seen.size == 19
    assert not found.seen.assumed and not found.lowered.folded
    assert [type(layer) for layer in found.lowered.network.layers] == [type(layer) for layer in made.layers]
    assert max((one.relative for one in found.differences), default=0) < 5e-6


@pytest.mark.parametrize("name", ["tiny", "tiny-alexnet", "nin", pytest.param("vgg11", marks=pytest.mark.exhaustive)])
def test_models_come_back_to_the_bit(name, tmp_path):
    made = build(name, 3, 64).init(1)
    safetensors.write(made, tmp_path/"x.safetensors", None, ["a", "b", "c"])
    found = interchange.lower.to_network(*with_seen(interchange.read(tmp_path/"x.safetensors")), name).network
    for layer, arrays in made.parameters().items():
        assert all(np.array_equal(arrays[key], found[layer].parameters[key]) for key in arrays)
    assert found.shapes == made.shapes


def with_seen(foreign):
    return foreign, interchange.seen_by(foreign)


def test_a_batch_normalisation_is_folded_and_the_scores_are_the_same(tmp_path):
    made = network(OTHERS)
    safetensors.write(made, tmp_path/"x.safetensors", MEAN, ["a", "b", "c"])
    found = interchange.import_network(tmp_path/"x.safetensors")
    x = np.random.default_rng(1).random((3, 17, 17, 2), np.float32)*200 - 100
    ours, theirs = made.forward(x)[0], found.lowered.network.forward(x)[0]
    assert np.abs(ours - theirs).max() < 3e-6*np.abs(ours).max()
    assert any("norm1" in line for line in found.notes)


@pytest.mark.parametrize("layers, size", [(LAYERS, 17), (LAYERS, 18), (OTHERS, 17), (OTHERS, 20), (OTHERS, 22)])
def test_the_printed_program_takes_the_weights_and_gives_the_scores(torch, tmp_path, layers, size):
    made, scope = network(layers, size), {}
    exec(pytorch.sequential(made), scope)
    pytorch.write(made, tmp_path/"x.pth", MEAN, ["a", "b", "c"])
    scope["network"].load_state_dict(torch.load(tmp_path/"x.pth", weights_only=True)["state_dict"])
    x = np.random.default_rng(1).random((3, size, size, 2), np.float32)*200 - 100
    with torch.no_grad():
        theirs = scope["network"](torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 1, 2)))).numpy()
    ours = made.forward(x)[0]
    assert np.abs(ours.T - theirs).max() < 1e-6*np.abs(theirs).max()


def test_safetensors_own_package_reads_what_is_written(tmp_path):
    package = pytest.importorskip("safetensors", reason="safetensors is not installed: pip install safetensors")
    from safetensors.numpy import load_file, save_file
    made = network()
    safetensors.write(made, tmp_path/"x.safetensors", MEAN, ["a"])
    found = load_file(tmp_path/"x.safetensors")
    assert np.array_equal(found.pop("mean_image"), MEAN)
    assert found.keys() == state_dict.tensors(made).keys()
    assert np.array_equal(found["conv_1.weight"], made["conv 1"].parameters["w"].transpose(3, 0, 1, 2))
    with package.safe_open(tmp_path/"x.safetensors", "np") as file:
        assert json.loads(file.metadata()["zfcore"])["layers"] == made.table()
    odd = {"half": np.arange(6, dtype=np.float16).reshape(2, 3), "double": np.array([1/3]), "long": np.array([[2**40]]),
           "none": np.zeros((0, 3), np.float32),
           "number": np.array(3, np.int32), "byte": np.array([0, 255], np.uint8), "bool": np.array([True, False])}
    save_file(odd, tmp_path/"odd.safetensors")
    with safetensors.opened(tmp_path/"odd.safetensors") as weights:
        for name, theirs in odd.items():
            ours = weights.numbers(name)
            assert ours.dtype == theirs.dtype and weights.shapes[name] == theirs.shape and np.array_equal(ours, theirs)


def test_bfloat16_comes_as_float32(torch, tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install safetensors")
    from safetensors.torch import save_file
    tensor = torch.randn(3, 5).bfloat16()
    save_file({"a": tensor}, tmp_path/"x.safetensors")
    with safetensors.opened(tmp_path/"x.safetensors") as weights:
        assert np.array_equal(weights.numbers("a"), tensor.float().numpy())


def test_tensors_of_others_are_matched_by_shape_whatever_order_they_stand_in(tmp_path):
    """Ten before two, and the classifier before the features, as names are sorted."""
    rng = np.random.default_rng(0)
    shapes = {"classifier.1": (3, 32), "features.10": (2, 2, 1, 1), "features.2": (2, 2, 1, 1), "features.0": (2, 3, 3, 3)}
    arrays = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    path = tmp_path/"x.safetensors"
    plain(path, arrays)
    rows = [SMALL["layers"][0], {"kind": "Conv", "name": "b", "F": 2, "K": 1}, {"kind": "Conv", "name": "c", "F": 2, "K": 1},
            *SMALL["layers"][2:]]
    found = interchange.read(path, model=table(tmp_path, {"input": [3, 7, 7], "layers": rows}))
    assert [np.array_equal(node.w, arrays[f"{name}.weight"]) for node, name in zip(found.nodes[:3],
                                                                                   ("features.0", "features.2",
                                                                                    "features.10"))] == [True]*3
    assert found.notes == ["tensors of equal shapes: matched to layers by the order of their names alone: "
                           "b <- features.2.weight, c <- features.10.weight"]


# --------------------------------------------------------------------------------------------------------- other files
def plain(path, arrays, change=lambda header: None):
    """A file of safetensors made by hand, its header changed."""
    header, place = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [place, place := place + array.nbytes]}
    change(header)
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(words)) + words + b"".join(array.tobytes() for array in arrays.values()))
    return path


def put(**fields):
    return lambda header: header["a.weight"].update(fields)


CHANGES = {"beyond the end": put(data_offsets=[0, 2**40]), "10^12 numbers": put(shape=[10**12, 1], data_offsets=[0, 4*10**12]),
           "10^15 axes of nothing": put(shape=[0, 2**40, 2**40], data_offsets=[0, 0]), "another size": put(shape=[2, 2]),
           "negative": put(shape=[-2, -3]), "a gap": put(data_offsets=[4, 28]),
           "overlapping": put(data_offsets=[0, 0], shape=[0]),
           "backwards": put(data_offsets=[24, 0]), "another type": put(dtype="F8_E4M3"), "no type": put(dtype=None),
           "fraction": put(shape=[2.0, 3]),
           "more": put(extra=1), "huge number": put(shape=[10**30, 3]), "a hundred axes": put(shape=[1]*100),
           "a list": lambda header: header.update({"b": []}), "metadata": lambda header: header.update(__metadata__={"a": 1}),
           "odd name": lambda header: header.update({"a\nb": header.pop("a.weight")}),
           "description": lambda header: header.update(__metadata__={"zfcore": "{"}),
           "other description": lambda header: header.update(__metadata__={"zfcore": json.dumps(
               {"version": 1, "input": [3, 4, 4], "layers": [{"kind": "Nonsense", "name": "a"}], "classes": []})}),
           "description of another": lambda header: header.update(__metadata__={"zfcore": json.dumps(
               {"version": 1, "input": [3, 4, 4], "layers": [{"kind": "Flatten", "name": "a"},
                                                             {"kind": "Linear", "name": "b", "M": 2}], "classes": []})}),
           "a layer of nothing but size": lambda header: header.update(__metadata__={"zfcore": json.dumps(
               {"version": 1, "input": [2**14]*3, "layers": [{"kind": "Conv", "name": "a", "F": 2**24, "K": 1}],
                "classes": []})})}


@pytest.mark.parametrize("which", CHANGES)
def test_a_header_that_is_wrong_is_one_sentence(which, tmp_path):
    path = plain(tmp_path/"x.safetensors", {"a.weight": np.zeros((2, 3), np.float32)}, CHANGES[which])
    with pytest.raises(Expected) as caught:
        interchange.import_network(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("head", [b"", b"\1", struct.pack("<Q", 0), struct.pack("<Q", 2**63),
                                  struct.pack("<Q", 10) + b"\xff"*10,
                                  struct.pack("<Q", 200_000) + b"["*200_000, struct.pack("<Q", 2**40) + b"{}"])
def test_a_file_without_a_header_is_one_sentence(head, tmp_path):
    (tmp_path/"x.safetensors").write_bytes(head)
    with pytest.raises(Expected, match="x.safetensors: expected "):
        interchange.import_network(tmp_path/"x.safetensors")


def test_truncated_and_flipped_files_are_one_sentence_or_sound(tmp_path):
    made = network(OTHERS)
    path = tmp_path/"x.safetensors"
    safetensors.write(made, path, MEAN, ["a", "b", "c"])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in [*range(0, len(whole), 509), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(Expected):
            interchange.read(path)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for bit in rng.integers(8*header, size=300):
        data = bytearray(whole)
        data[bit//8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            interchange.lower.to_network(*with_seen(interchange.read(path)), "x")
        except Expected as sentence:
            assert "\n" not in str(sentence)


def test_a_disk_that_refuses_leaves_nothing(tmp_path):
    with pytest.raises(Expected, match="No such file|writing "):
        safetensors.write(network(), tmp_path/"none"/"x.safetensors", None, [])
    assert list(tmp_path.iterdir()) == []
