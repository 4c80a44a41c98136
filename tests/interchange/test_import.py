"""A network from elsewhere, from its file to a run: how it sees pictures, the certificate, the commands, fine-tuning."""
import json
import os
import re
import tracemalloc
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfcore
from tests.spoken import in_one
from tests.train.conftest import write_set
from train.__main__ import main as train
from zfcore import interchange
from zfcore.__main__ import main
from zfcore.checkpoint import load
from zfcore.interchange import certificate, onnx_writer, pytorch, safetensors
from zfcore.interchange.foreign import Affine, Convolution, Dense, Flattening, Foreign, MaxPooling, Probabilities, Rectifier, Window
from zfcore.interchange.lower import to_network
from zfcore.interchange.preprocessing import GREY, as_exported, seen_by
from zfcore.layers import KINDS, Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.network import Network

SIDE, CROP = 13, 11


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def of_nodes(tmp_path, C=3, first="convolution", **said):
    """A Foreign of two layers for pictures (C,CROP,CROP), and a function that computes its scores of x (N,C,CROP,CROP) in
    float64."""
    w, b, units = draw(5, C, 3, 3), draw(5), draw(4, 5*9*9, seed=1)
    matrix, scale, shift = draw(4, C*CROP*CROP, seed=2), draw(5, seed=3), draw(5, seed=4)

    def by_convolution(x):
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))                       # (N,C,9,9,3,3)
        maps = np.einsum("nchwij,fcij->nfhw", seen, w) + b[:, None, None]
        maps = maps*scale[:, None, None] + shift[:, None, None]
        return np.maximum(maps, 0).reshape(len(x), -1) @ units.T

    nodes = {"convolution": [Convolution("c", "x", "a", w, b, Window((3, 3))), Affine("n", "a", "n", scale, shift),
                             Rectifier("r", "n", "b"), Flattening("f", "b", "d"), Dense("l", "d", "y", units, None)],
             "matrix": [Flattening("f", "x", "d"), Dense("l", "d", "y", matrix, None)],
             "last axis": [Flattening("f", "x", "d", "hwc"), Dense("l", "d", "y", matrix, None)],
             "pool": [MaxPooling("p", "x", "a", Window((CROP, CROP))), Flattening("f", "a", "d"),
                      Dense("l", "d", "y", matrix[:, :C], None)]}
    scores = {"convolution": by_convolution, "matrix": lambda x: x.reshape(len(x), -1) @ matrix.T,
              "last axis": lambda x: x.transpose(0, 2, 3, 1).reshape(len(x), -1) @ matrix.T,
              "pool": lambda x: x.max(axis=(2, 3)) @ matrix[:, :C].T}
    return Foreign("test", tmp_path/"file", "x", (C, CROP, CROP), nodes[first], preprocessing=said), scores[first]


# ------------------------------------------------------------------------------------------------- how pictures are seen
@pytest.mark.parametrize("first", ["convolution", "matrix", "last axis", "pool"])
@pytest.mark.parametrize("channels, how", [
    ("rgb", {}), ("bgr", {}), ("grey", {}), ("rgb", {"mean": np.array([120., 110, 100]), "std": np.array([50., 60, 70])}),
    ("bgr", {"mean": np.array([120., 110, 100]), "scale": 0.017}), ("grey", {"mean": np.array([33.]), "std": np.array([78.])}),
    ("bgr", {"mean": draw(3, SIDE, SIDE)*20 + 100}), ("rgb",
                                                      {"mean": np.array([.485, .456, .406]),
                                                       "std": np.array([.229, .224, .225])})])
def test_pixels_give_the_scores_that_the_network_has_for_what_it_sees(tmp_path, first, channels, how):
    foreign, scores = of_nodes(tmp_path, 1 if channels == "grey" else 3, first)
    seen = seen_by(foreign, channels=channels, size=SIDE, **how)
    lowered = to_network(foreign, seen, "made")
    pixels = np.random.default_rng(5).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
    x = pixels.transpose(0, 3, 1, 2).astype(float)                                                    # as the definition has it
    x = (x*GREY[:, None, None]).sum(axis=1, keepdims=True) if channels == "grey" else x[:, ::-1] if channels == "bgr" else x
    mean, std = how.get("mean", np.zeros(1)), how.get("std", np.ones(1))/how.get("scale", 1)
    if mean.ndim == 1 and mean.any() and (mean <= 1).all():
        mean, std = mean*255, std*255
    if channels == "bgr" and mean.ndim == 1:
        mean, std = mean[::-1], std[::-1]
    mean = mean if mean.ndim == 3 else mean[:, None, None]
    expected = scores(((x - mean)/std[:, None, None])[:, :, 1:-1, 1:-1])
    model = zfcore.Trained(lowered.network, lowered.mean, data=None)
    y, _ = lowered.network.forward(model.inputs(pixels))
    np.testing.assert_allclose(y.T, expected, rtol=0, atol=1e-5*np.abs(expected).max())
    y, _ = lowered.network.forward(certificate.entering(seen, lowered, seen.of_pixels(pixels[:, 1:-1, 1:-1]))) if mean.shape[1:] == (1, 1) \
        else (y, None)
    np.testing.assert_allclose(y.T, expected, rtol=0, atol=1e-5*np.abs(expected).max())


@pytest.mark.parametrize("C, how, sentence", [
    (3, {"channels": "grey"}, "rgb or bgr for a network of three"), (1, {"channels": "bgr"}, "grey for a network of one"),
    (3, {"std": np.ones(3), "scale": 1.0}, "either std or scale"), (3, {"std": np.array([1., 0, 1])}, "numbers above 0"),
    (3, {"std": -1}, "numbers above 0, got [-1.0]"), (3, {"mean": np.ones((3, 7, 7))}, f"mean: expected a picture of at least the {CROP}x{CROP} pixels"),
    (3, {"mean": np.ones(2)}, "one number or 3"), (3, {"size": CROP - 1}, f"at least the {CROP} pixels"),
    (3, {"scale": 0.0}, "other than 0"),
    (2, {}, "one channel or three"), (3, {"mean": np.ones((3, 11, 11)), "size": 12}, "a picture (3, 12, 12)")])
def test_what_does_not_fit_the_network_is_one_sentence(tmp_path, C, how, sentence):
    foreign, _ = of_nodes(tmp_path, C)
    with pytest.raises(zfcore.Expected) as error:
        to_network(foreign, seen_by(foreign, **how), "made")
    assert sentence in str(error.value)


def test_what_the_file_says_is_taken_and_what_nobody_says_is_told(tmp_path):
    foreign, _ = of_nodes(tmp_path, channels="bgr", mean=[1, 2, 3], scale=0.5, size=SIDE)
    seen = seen_by(foreign)
    assert (seen.channels, seen.mean.tolist(), seen.scale.tolist(), seen.size,
            seen.assumed) == ("bgr", [1, 2, 3], [0.5]*3, SIDE, ())
    assert seen.as_timm(CROP)["mean"] == pytest.approx([3/255, 2/255, 1/255])                         # in R,G,B
    foreign, _ = of_nodes(tmp_path)
    assert [line.partition(":")[0] for line in seen_by(foreign).assumed] == ["channels", "pixels"]


def test_where_the_file_treats_pixels_itself_no_line_says_that_nothing_is_subtracted(tmp_path):
    foreign, _ = of_nodes(tmp_path)
    foreign.nodes[0].reads = "seen"
    foreign.nodes.insert(0, Affine("pre", "x", "seen", np.full(3, 0.5), np.full(3, -60.)))
    seen = seen_by(foreign)
    pixels, = (line for line in seen.assumed if line.startswith("pixels: "))
    assert "a factor and a shift of its own" in pixels and "nothing subtracted" not in pixels
    assert np.array_equal(to_network(foreign, seen, "made").mean, np.full((3, CROP, CROP), 120, np.float32))


def test_what_a_file_tells_of_pictures_is_a_note_unless_it_is_said_otherwise():
    foreign = Foreign("", None, "x", (3, SIDE, SIDE), [], preprocessing={"channels": "bgr", "scale": np.full(3, 0.5)},
                      told={"channels": "channels: B, G, R", "mean": "mean: not here", "scale": "scale: 0.5"})
    notes = lambda **said: [line.partition(":")[0] for line in seen_by(foreign, **said).assumed]
    assert notes() == ["channels", "mean", "scale"] and notes(channels="bgr") == ["mean", "scale"]
    assert notes(channels="rgb", mean=np.array([3., 2, 1])) == ["scale"]
    assert notes(mean=np.array([3., 2, 1]), scale=2) == notes(mean=np.array([3., 2, 1]),
                                                              std=np.array([3., 2, 1])) == ["channels"]


def test_a_softmax_of_pictures_is_no_network(tmp_path):
    foreign = Foreign("test", tmp_path/"file", "x", (3, CROP, CROP), [Probabilities("p", "x", "y")])
    with pytest.raises(zfcore.Expected, match="layers between pictures and scores, got none"):
        to_network(foreign, seen_by(foreign), "made")


@pytest.mark.parametrize("side, F, what", [(16000, 4, "x: .*3x16000x16000"), (4000, 64, "c: .*64x3998x3998")])
def test_pictures_and_maps_that_are_too_large_are_refused_before_any_is_made(tmp_path, side, F, what):
    """Whatever the format: here a Foreign of a hundred weights."""
    foreign = Foreign("test", tmp_path/"file", "x", (3, side, side), [
        Convolution("c", "x", "a", draw(F, 3, 3, 3), None, Window((3, 3))), MaxPooling("p", "a", "b", None),
        Flattening("f", "b", "d"), Dense("l", "d", "y", draw(2, F), None)])
    tracemalloc.start()
    try:
        with pytest.raises(zfcore.Expected, match=what):
            to_network(foreign, seen_by(foreign), "made")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------- the certificate
@pytest.mark.parametrize("form", ["scores", "softmax", "logarithm"])
def test_known_answers_are_scores_their_softmax_or_its_logarithm(tmp_path, form):
    foreign, scores = of_nodes(tmp_path)
    seen = seen_by(foreign)
    lowered = to_network(foreign, seen, "made")
    x = draw(6, 3, CROP, CROP, seed=9)
    y = scores(x)/(1 if form == "scores" else 30)                      # of all classes probabilities that can be told from 0
    if form != "scores":
        for array in lowered.network["l"].parameters.values():
            array /= 30
        p = np.exp(y)/np.exp(y).sum(axis=1, keepdims=True)
        y = p if form == "softmax" else np.log(p)
    found = certificate.against_answers(seen, lowered, x, y)
    assert found.relative < 1e-6
    certificate.check_answers("a.npz", found)
    y[np.unravel_index(np.abs(y).argmax(), y.shape)] *= 1.0005
    with pytest.raises(zfcore.Expected, match="^a.npz: y: expected what the network computes of x, .* its logarithm$"):
        certificate.check_answers("a.npz", certificate.against_answers(seen, lowered, x, y))


def test_two_large_pictures_are_in_float64_one_after_the_other():
    ours, theirs = draw(4, 300, 300, 2).astype(np.float32), draw(2, 4, 300, 300).astype(np.float32)
    tracemalloc.start()
    try:
        found = certificate.difference("a", ours, theirs)
        assert tracemalloc.get_traced_memory()[1] < 2.2*ours.nbytes                # 2 of one in float64, where two take 4
    finally:
        tracemalloc.stop()
    assert found.absolute == np.abs(ours.astype(np.float64) - np.moveaxis(theirs, 0, -1)).max() and found.largest == np.abs(theirs).max()


def test_a_network_that_computes_something_else_is_noticed_and_the_layer_named(tmp_path):
    foreign, _ = of_nodes(tmp_path)
    seen = seen_by(foreign)
    lowered = to_network(foreign, seen, "made")
    lowered.network["l"].parameters["w"][7, 2] += 1
    good = to_network(foreign, seen, "made")

    def engine(x, names):
        y, given = certificate.entering(seen, good, x), {}
        for layer in good.network.layers:
            y, _ = layer.forward(y)
            given[good.tensors.get(layer.name, "")] = np.moveaxis(y, -1, 0)
        return given

    foreign.engine = engine
    found = {one.layer: one.relative for one in certificate.compare(foreign, seen, lowered)}
    assert found.keys() == {"c", "r", "l"} and found["c"] == found["r"] == 0 and found["l"] > certificate.LIMIT
    with pytest.raises(zfcore.Expected,
                       match="l: expected what the file's own engine computes.*l is the first layer that differs"):
        certificate.check_all("file", certificate.compare(foreign, seen, lowered))


# --------------------------------------------------------------------------------------------------------- commands
@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A network of zfcore's as an ONNX file."""
    onnx_writer = pytest.importorskip("zfcore.interchange.onnx_writer")
    pytest.importorskip("onnx", reason="the package onnx, which reads and writes such files, is not installed")
    network = Network("made", (3, 32, 32), [Conv("conv1", 6, 5, 2), ReLU("relu1"), MaxPool("pool1", 3, 2), Conv("conv2", 8, 3),
                                            ReLU("relu2"), Flatten("flatten"), Linear("fc", 3)]).init(3, "he")
    path = tmp_path_factory.mktemp("written")/"made here.onnx"
    onnx_writer.write(network, path)
    return path, network


def refused(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    assert left.value.code == 2
    return in_one(capsys.readouterr().err)


def test_a_file_becomes_a_run_that_commands_and_training_take(written, tmp_path, capsys):
    path, network = written
    (tmp_path/"words.txt").write_text("crane\nbee\ncrane\n")
    main(["import", str(path), "--output", str(tmp_path/"run"), "--labels", str(tmp_path/"words.txt"), "--mean", "100,110,120"])
    said = in_one(capsys.readouterr().out)
    assert "sees: RGB, pixels 0 to 255 less 100, 110, 120" in said and "have their number behind them: crane " in said
    assert "parity" in said or "beside" in said
    kept = load(tmp_path/"run"/"best.h5")
    assert kept.classes == ["crane (0)", "bee", "crane (2)"] and json.loads(kept.state["imported"])["sha256"] == interchange.sha256_of(path)
    assert json.loads((tmp_path/"run"/"import.json").read_text()) == json.loads(kept.state["imported"])
    model = zfcore.open(tmp_path/"run", "cpu")
    assert model.data is None and model.network["fc"].parameters["w"].tobytes() == network["fc"].parameters["w"].tobytes()
    data = write_set(tmp_path/"pictures", (8, 4), (40, 44))
    main(["top-activations", "--run", str(tmp_path/"run"), "--data", str(data), "--units", "0:2", "--k", "2", "--device",
          "cpu"])
    picture = next((data/"val").rglob("*.png"))
    main(["occlusion", "--run", str(tmp_path/"run"), "--images", str(picture), "--stride", "16", "--device", "cpu"])
    assert "--data: expected the pictures, " in refused(capsys, "top-activations", "--run", tmp_path/"run", "--device",
                                                             "cpu")
    options = ["--init-from", str(tmp_path/"run"), "--data", str(data), "--batch-size", "8", "--lr", "1e-4", "--workers", "0",
               "--device", "cpu", "--rms-max", "0"]
    train([*options, "--epochs", "2", "--output", str(tmp_path/"whole")])
    train([*options, "--epochs", "1", "--output", str(tmp_path/"parts")])
    train(["--resume", str(tmp_path/"parts"), "--epochs", "2", "--workers", "0"])
    one, other = (load(tmp_path/name/"latest.h5") for name in ("whole", "parts"))
    assert one.layers == other.layers and len(one.classes) == 3
    for layer, of_layer in one.parameters.items():
        for key, array in of_layer.items():
            assert array.tobytes() == other.parameters[layer][key].tobytes()


def test_opening_a_file_says_what_was_assumed_and_gives_the_same_network(written, capsys):
    path, network = written
    model = zfcore.open(path, "cpu")
    assert "channels: R, G, B, since nobody says" in in_one(capsys.readouterr().err)
    assert (model.size, model.crop, list(model.classes)) == (32, 32, ["0", "1", "2"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x = np.ascontiguousarray(pixels.transpose(3, 1, 2, 0), np.float32)
    assert model.network.forward(x)[0].tobytes() == network.forward(x)[0].tobytes()


def test_a_function_makes_of_a_file_what_the_command_makes(written, tmp_path, capsys):
    path, _ = written
    (tmp_path/"words.txt").write_text("ant\nbee\ncow\n")
    main(["import", str(path), "--output", str(tmp_path/"run"), "--labels", str(tmp_path/"words.txt"), "--channels", "bgr", "--mean",
          "0.4,0.5,0.6", "--std", "0.25", "--picture-size", "36"])
    by_command = zfcore.open(tmp_path/"run", "cpu")
    model = zfcore.import_network(path, labels=np.array(["ant", "bee", "cow"]), device="cpu", channels="bgr", mean=[0.4, 0.5, 0.6], std=0.25,
                                  picture_size=np.int64(36))
    assert (model.size, model.classes, model.network.table()) == (36, by_command.classes, by_command.network.table())
    assert model.mean.tobytes() == by_command.mean.tobytes()
    for name, of_layer in model.network.parameters().items():
        for key, array in of_layer.items():
            assert array.tobytes() == by_command.network[name].parameters[key].tobytes()


@pytest.mark.parametrize("how, sentence", [
    ({"mean": "grey"}, "mean: expected a number, or one for each"), ({"std": [[1], 2]}, "std: expected a number, or one for each"),
    ({"scale": "1"}, "scale: expected a number"), ({"picture_size": 36.5}, "picture_size: expected a whole number"),
    ({"channels": "RGB"}, "rgb or bgr for a network of three|one of rgb"), ({"labels": ["ant"]}, "3 names"), *[
        ({"labels": labels}, "labels: expected one or more names in a list") for labels in ("abc", range(3), [], b"abc", 3)], ({"path": 3}, "a path, got 3")])
def test_what_the_function_cannot_use_is_one_sentence(written, how, sentence):
    with pytest.raises(zfcore.Expected, match=sentence):
        zfcore.import_network(**{"path": written[0], **how})


@pytest.mark.parametrize("labels", [None, ["cat"]])
@pytest.mark.parametrize("M, told", [(1, True), (2, False)])
def test_of_a_network_with_one_output_a_note_says_that_its_probability_is_1(tmp_path, M, told, labels):
    network = Network("one", (3, 9, 9), [Conv("conv1", 2, K=3), Flatten("flat"), Linear("fc2", M)]).init()
    safetensors.write(network, tmp_path/"one.safetensors", np.zeros((3, 9, 9), np.float32), [])
    found = interchange.import_network(tmp_path/"one.safetensors", labels=labels and labels*M)
    assert any("a single output, whose softmax is 1" in line for line in found.notes) == told
    assert len(found.classes) == M


def test_a_kind_of_somebodys_own_is_no_other_formats(tmp_path, monkeypatch):
    for package in ("onnx", "safetensors"):
        pytest.importorskip(package)

    class Mine(ReLU):
        """Ours is another class."""
    monkeypatch.setitem(KINDS, "Mine", Mine)
    network = Network("own", (3, 9, 9), [Conv("conv1", 2, K=3), Mine("mine1"), Flatten("flat"), Linear("fc2", 3)]).init()
    mean = np.zeros((3, 9, 9), np.float32)
    for write in (onnx_writer.write, safetensors.write, pytorch.write):
        with pytest.raises(zfcore.Expected, match="mine1: expected a layer of Conv, .*, got Mine"):
            write(network, tmp_path/"own", mean, ["a", "b", "c"])
    with pytest.raises(zfcore.Expected, match="own in torch.nn: mine1: "):
        pytorch.sequential(network)
    plain = Network("own", (3, 9, 9), [ReLU(layer.name) if type(layer) is Mine else layer for layer in network.layers])
    safetensors.write(plain, tmp_path/"own.safetensors", None, ["a", "b", "c"])
    (tmp_path/"own.json").write_text(json.dumps({"input": [3, 9, 9], "layers": network.table()}))
    with pytest.raises(zfcore.Expected, match="own.safetensors: mine1: expected a layer of"):
        zfcore.import_network(tmp_path/"own.safetensors", model=tmp_path/"own.json")


@pytest.mark.parametrize("more, sentence", [
    (["--labels", "two.txt"], "3 names, one for each output, got 2"),
    (["--labels", "none.txt"], "--labels: expected a text file"),
    (["--labels", "empty.txt"], "--labels: expected a text file, one name a line, got empty.txt, which holds none"),
    (["--mean", "a,b"], "--mean: expected numbers"), (["--mean", "nan"], "finite"), (["--mean", "none.npy"], "none.npy"),
    (["--graph", "x.prototxt"], "--graph"), (["--check", "wrong.npz"], "wrong.npz: y: expected what the network computes of x, "),
    (["--check", "two.txt"], "two.txt"), (["--channels", "grey"], "rgb or bgr"),
    (["--output", "full"], "a new or empty folder")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(written, tmp_path, capsys, monkeypatch, more, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"two.txt").write_text("a\nb\n")
    (tmp_path/"empty.txt").write_text(" \n\n")
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"mine.txt").write_text("mine")
    np.savez(tmp_path/"wrong.npz", x=np.zeros((1, 3, 32, 32), np.float32), y=np.ones((1, 3)))
    before = sorted(tmp_path.rglob("*"))
    assert sentence in refused(capsys, "import", written[0], "--output", "out", *more)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["file.txt", "none.onnx", "a.pt", "folder.onnx"])
def test_what_is_no_network_is_one_sentence(tmp_path, capsys, name):
    if name == "a.pt":
        Image.new("RGB", (4, 4)).save(tmp_path/name, "PNG")
    if name == "folder.onnx":
        (tmp_path/name).mkdir()
    assert str(tmp_path/name) in refused(capsys, "import", tmp_path/name, "--output", tmp_path/"out") and not (tmp_path/"out").exists()


def bomb(path, name, data, method):
    """Write a zip as PyTorch's, of which the member `name` is `data`."""
    members = {"x/data.pkl": b"\x80\x02}.", "x/byteorder": b"little", name: data}
    with zipfile.ZipFile(path, "w") as file:
        for called, content in members.items():
            file.writestr(called, content, method if called == name else zipfile.ZIP_STORED)


@pytest.mark.parametrize("name, data, method, sentence", [
    ("x/data.pkl", b"N"*10**7 + b".", zipfile.ZIP_DEFLATED, "'x/data.pkl': expected a member that is neither compressed"),
    ("x/data.pkl", b"\x80\x02]" + b"2\x86"*10**6 + b".", zipfile.ZIP_STORED, "that goes wrong|that asks for"),
    ("x/data.pkl", b"N"*2**24 + b".", zipfile.ZIP_STORED, f"at most {2**24} bytes"),
    ("x/byteorder", b"little"*10**6, zipfile.ZIP_DEFLATED, "'x/byteorder': expected a member that is neither compressed")])
def test_a_zip_that_would_unfold_is_one_sentence_of_the_command(tmp_path, capsys, name, data, method, sentence):
    bomb(tmp_path/"a.pt", name, data, method)
    tracemalloc.start()
    assert re.search(sentence, refused(capsys, "import", tmp_path/"a.pt", "--model", "zfnet", "--output", tmp_path/"out"))
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_run_goes_where_a_link_leads_and_nothing_is_written_where_it_leads_nowhere(written, tmp_path, capsys):
    (tmp_path/"real").mkdir()
    (tmp_path/"file").write_text("mine")
    for link, to in (("folder", "real"), ("gone", "nothing"), ("text", "file"), ("circle", "circle")):
        (tmp_path/link).symlink_to(to)
    before = sorted(tmp_path.rglob("*"))
    for name, sentence in (("gone", "a link that leads nowhere"), ("circle", "a link that leads nowhere"),
                           ("text", "a new or empty folder"),
                           ("gone/run", "a place where a folder can be made"),
                           ("text/run", "a place where a folder can be made")):
        assert sentence in refused(capsys, "import", written[0], "--output", tmp_path/name)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path/"file").read_text() == "mine"
    (tmp_path/"real"/".DS_Store").touch()                  # where somebody has looked into the empty folder
    main(["import", str(written[0]), "--output", str(tmp_path/"folder")])
    assert sorted(os.listdir(tmp_path/"real")) == [".DS_Store", "best.h5", "import.json"] and (tmp_path/"folder").is_symlink()


@pytest.mark.parametrize("how, suffix", [(("onnx",), "onnx"), (("onnx", "--with-preprocessing"), "onnx"), (("safetensors",), "safetensors"),
                                         (("torch",), "pt")])
def test_an_export_says_what_is_to_enter_and_an_onnx_file_says_it_too(tmp_path, capsys, how, suffix):
    onnx = pytest.importorskip("onnx")
    if suffix == "pt":
        pytest.importorskip("torch")
    model, file = zfcore.open("drawn"), tmp_path/f"a.{suffix}"
    main(["export", "drawn", "--format", *how, "--output", str(file)])
    told = in_one(capsys.readouterr().out).partition("takes: ")[2]
    form = "uint8 (N,96,96,3)" if len(how) > 1 else "float32 (N,3,96,96)"
    colours = ", ".join(f"{value:.4g}" for value in model.mean.mean(axis=(1, 2), dtype=np.float64))
    assert told.startswith(f"{form}, RGB, pixels 0 to 255") and colours in told and "brought to 110x110 pixels" in told
    assert ("mean image 3x110x110" in told) == ("subtracts the mean itself" not in told) == (len(how) == 1)
    if suffix == "onnx":
        assert told.startswith(onnx.load(file).graph.input[0].doc_string)
    even = as_exported((3, 9, 9), np.broadcast_to(np.array([1.5, 2, 3], np.float32)[:, None, None], (3, 11, 11)))
    assert even.startswith("float32 (N,3,9,9), RGB, pixels 0 to 255 less 1.5, 2, 3; pictures are brought to 11x11 pixels")


def test_an_export_takes_the_place_of_a_link_and_leaves_what_it_leads_to(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch, which writes such files, is not installed")
    (tmp_path/"file").write_text("mine")
    (tmp_path/"a.pt").symlink_to("file")
    main(["export", "drawn", "--format", "torch", "--output", str(tmp_path/"a.pt")])
    assert (tmp_path/"file").read_text() == "mine" and not (tmp_path/"a.pt").is_symlink()
    assert interchange.read(tmp_path/"a.pt").format == "PyTorch"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
@pytest.mark.parametrize("words", [("export", "drawn", "--format", "onnx", "--output", "a.onnx"),
                                   ("export", "drawn", "--format", "safetensors", "--output", "a.safetensors"),
                                   ("export", "drawn", "--format", "torch", "--output", "a.pt"),
                                   ("import", None, "--output", "run")], ids=["onnx", "safetensors", "torch", "import"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(written, tmp_path, capsys, monkeypatch, words):
    import resource
    if "torch" in words:
        pytest.importorskip("torch", reason="PyTorch, which writes such files, is not installed")
    monkeypatch.chdir(tmp_path)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, was[1]))
    try:
        said = refused(capsys, *(written[0] if word is None else word for word in words))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert "make room there" in said and not list(tmp_path.iterdir())


def test_the_readme_lists_every_kind_and_key_of_a_layer_table():
    readme = (Path(zfcore.__file__).parent/"README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.partition("| kind | must be there")[2].partition("\n\n")[0].splitlines()
            if line.startswith("| ")]
    for kind, layer in KINDS.items():
        row, = (line for line in rows if kind in line.split("|")[1].replace(",", " ").split())
        assert all(re.search(rf"\b{field.name}\b", row) for field in fields(layer) if field.init and field.name != "name"), kind


@pytest.mark.parametrize("how", [{"scale": 1e-9}, {"mean": np.full(3, 1e9)}])
def test_numbers_of_pixels_out_of_their_range_name_the_file(tmp_path, how):
    foreign, _ = of_nodes(tmp_path)
    with pytest.raises(zfcore.Expected, match=f"^{foreign.path}: (scale|mean): "):
        seen_by(foreign, **how)
    foreign.nodes.insert(0, Affine("factor", "x", "scaled", np.array([1e-9]), np.zeros(1)))
    foreign.nodes[1].reads = "scaled"
    with pytest.raises(zfcore.Expected, match=f"^{foreign.path}: factor: scale: "):
        to_network(foreign, seen_by(foreign), "made")


@pytest.mark.parametrize("words, sentence", [
    (["--format", "onnx", "--output", "a.pth"], "ends in .onnx"),
    (["--format", "torch", "--output", "a.onnx"], "ends in .pth or .pt"),
    (["--format", "safetensors", "--output", "a.safetensors", "--with-preprocessing"], "--format onnx"),
    (["--format", "onnx", "--output", "no/a.onnx"], "no/a.onnx")])
def test_an_export_that_cannot_be_is_one_sentence(tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, "export", "drawn", *words)
    assert "RUN: expected a run's folder" in refused(capsys, "export", "drown", "--format", "onnx", "--output", "a.onnx")
    assert not list(tmp_path.iterdir())
