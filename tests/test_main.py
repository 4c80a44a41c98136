"""python -m zfcore: an analysis leaves arrays and figures, figures come back from arrays alone, bad input is one sentence."""
import base64
import gc
import io
import json
import os
import re
import shutil
import signal
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.crews import until
from tests.train.test_devices import are_gone
from zfcore import crew, results
from zfcore.__main__ import main
from zfcore.analysis.top_activations import TopActivations, UnitViews
from zfcore.checkpoint import Checkpoint, load, save
from zfcore.commands import COMMANDS, TOOLS, top_activations
from zfcore.layers import Conv, Flatten, Linear, MaxPool, ReLU
from zfcore.network import Network
from zfcore.plots import LABEL, LINE, MARGIN, Sheet

SIZE, CROP = 30, 27


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with a checkpoint, and class folders of 2 x 12 pictures of noise."""
    place, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    network = Network("small", (3, CROP, CROP), [
        Conv("conv1", 6, K=5, S=2, P=1), ReLU("relu1"), MaxPool("pool1", K=3, S=2), Conv("conv2", 70, K=3, P=1), ReLU("relu2"),
        Flatten("flatten"), Linear("fc8", 2)]).init(0, "he")
    network["conv2"].parameters["b"][1] = -1e6                           # a dead unit
    (place/"run").mkdir()
    for part in ("train", "val"):
        for name in ("bee", "cow"):
            (place/"data"/part/name).mkdir(parents=True)
            for i in range(12 if part == "val" else 1):
                pixels = rng.integers(0, 256, (SIZE, SIZE + i, 3), np.uint8)
                Image.fromarray(pixels).save(place/"data"/part/name/f"{i:02}.png")
    save(place/"run"/"best.h5", Checkpoint("small", network.input_shape, network.table(), ["bee", "cow"], network.parameters(),
                                           mean_image=np.full((3, SIZE, SIZE), 127, np.float32),
                                           state={"data": str(place/"data")}))
    return place


def run(place, output, *more):
    main(["top-activations", "--run", str(place/"run"), "--output", str(output), "--workers", "0", "--batch-size", "8",
          "--device", "cpu", *more])


def refused(capsys, *arguments):
    """The one sentence that a command line is answered with."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("error: ")
    return said


def test_a_precision_that_a_cpu_has_not_is_refused_in_a_sentence(place, capsys, tmp_path):
    said = refused(capsys, "top-activations", "--run", place/"run", "--device", "cpu", "--precision", "tf32", "--output",
                   tmp_path/"out")
    assert said == ("error: precision: expected fp32, the one that NumPy has, got tf32; run it on a GPU, or leave it at fp32")
    assert not (tmp_path/"out").exists()


def test_top_activations_on_several_devices_leaves_the_files_of_one_and_names_a_damaged_picture_once(place, tmp_path, capsys):
    (place/"data"/"val"/"bee"/"12.png").write_bytes(b"no picture")
    try:
        for devices in ("1", "2"):
            run(place, tmp_path/devices, "--layers", "fc8", "--k", "2", "--devices", devices)
            assert capsys.readouterr().err.count("picture left out") == 1
    finally:
        (place/"data"/"val"/"bee"/"12.png").unlink()
    files = {name: {file.name: file.read_bytes() for file in (tmp_path/name).iterdir()} for name in ("1", "2")}
    assert files["2"] == files["1"] and files["1"].keys() == {"fc8.h5", "fc8.png", "top_activations.h5"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("whom", ["parent", "member"])
def test_a_stop_in_the_middle_of_a_shard_ends_all_and_the_same_command_goes_on(whom, place, tmp_path, monkeypatch, capsys):
    typed, members = ("--layers", "fc8", "--k", "2", "--devices", "2", "--batch-size", "4"), []

    def stop():
        for k in (1, 2):
            until(tmp_path/f"begun-{k}")
        members.extend(int((tmp_path/f"begun-{k}").read_text()) for k in (1, 2))
        os.kill(members[1] if whom == "member" else os.getpid(), signal.SIGTERM)
        members.append(time.monotonic())

    thread = threading.Thread(target=stop)
    slow = lambda devices, device, served, **facts: crew.Crew([None]*devices, "tests.crews:slowed", facts)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(top_activations.crew, "crew", slow)
        thread.start()
        run(place, tmp_path/"run", *typed)
    thread.join()
    said = " ".join(capsys.readouterr().err.split())
    assert time.monotonic() - members.pop() < 30 and left.value.code == 143 and are_gone(members)
    assert said.count("stopped; what is on the disk is whole, and the same command goes on") == 1 and "error" not in said
    there = {file.name: results.load(file, TopActivations).ranges.tolist() for file in (tmp_path/"run").iterdir()}
    assert there == {"top_activations_1_of_2.h5": [[0, 4]], "top_activations_2_of_2.h5": [[12, 16]]}
    if whom == "parent":                                                  # both leave the same files to go on with
        run(place, tmp_path/"run", *typed)
        run(place, tmp_path/"one", *typed[:-4], "--batch-size", "4")
        one, other = ({file.name: file.read_bytes() for file in (tmp_path/name).iterdir()} for name in ("run", "one"))
        assert one == other


def test_a_shard_that_cannot_be_made_is_named_and_more_devices_than_batches_are_refused(place, tmp_path, capsys):
    alike = "top-activations", "--run", place/"run", "--output", tmp_path, "--workers", "0", "--batch-size", "8", "--device", "cpu"
    assert "--devices: expected at most 3, as there are so many batches of 8 pictures, got 4" in refused(capsys, *alike, "--devices", "4")
    assert "--devices: expected no --shard or --merge" in refused(capsys, *alike, "--devices", "2", "--shard", "1/2")
    (tmp_path/"top_activations_2_of_2.h5").write_bytes(b"no shard")
    with pytest.raises(SystemExit) as left:
        main(list(map(str, [*alike, "--devices", "2"])))
    said = " ".join(capsys.readouterr().err.split())                     # in lines, after perhaps one about progress
    assert left.value.code == 2 and "error: process 2, at shard 2/2: " in said and "top_activations_2_of_2.h5" in said
    assert not (tmp_path/"top_activations.h5").exists()


@pytest.mark.parametrize("name", [name for name, module in {**COMMANDS, **TOOLS}.items()
                                  if "--layers" in [flag for flags, _ in module.OPTIONS for flag in flags]])
def test_a_layer_that_is_named_twice_is_refused_before_anything_is_written(name, place, tmp_path, capsys):
    of_run, two = shutil.copytree(place/"run", tmp_path/"run"), [place/"data"/"val"/"bee"/f"{i:02}.png" for i in range(2)]
    shutil.copy(of_run/"best.h5", of_run/"epoch_0000.h5")
    (tmp_path/"marks.json").write_text(json.dumps({picture.name: {"eye": [15, 15]} for picture in two}))
    more = {"invariance": ["--pictures", "0"], "correspondence": ["--images", *two, "--landmarks", tmp_path/"marks.json"]}
    said = refused(capsys, name, "--run", of_run, "--output", tmp_path/"out", "--device", "cpu", *more.get(name, ()),
                   "--layers", "conv2", "fc8", "conv2")
    assert said == "error: --layers: expected different names, got 'conv2' 2 times" and not (tmp_path/"out").exists()


def test_top_activations_leaves_arrays_and_a_figure_of_each_layer(place, tmp_path):
    run(place, tmp_path, "--layers", "conv1", "fc8", "--units", "0:2", "--k", "4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conv1.h5", "conv1.png", "fc8.h5", "fc8.png", "top_activations.h5"]
    assert results.load(tmp_path/"top_activations.h5", TopActivations).complete
    views = results.load(tmp_path/"conv1.h5", UnitViews)
    assert views.units.tolist() == [0, 1] and views.patches.shape == (2, 4, 5, 5, 3)
    assert views.names[0, 0].split("/")[-2] in ("bee", "cow")


def test_without_an_output_the_figures_lie_in_the_run_and_without_layers_all_convolutions_are_shown(place):
    main(["top-activations", "--run", str(place/"run"/"best.h5"), "--units", "random:3"])
    made = place/"run"/"figures"/"top_activations"
    assert {p.name for p in made.iterdir()} == {"conv1.h5", "conv1.png", "conv2.h5", "conv2.png", "top_activations.h5"}


def test_a_figure_is_drawn_again_from_its_arrays_alone(place, tmp_path):
    run(place, tmp_path, "--layers", "conv2", "--units", "0,1,5")
    before = (tmp_path/"conv2.png").read_bytes()
    (tmp_path/"moved").mkdir()
    (tmp_path/"conv2.h5").rename(tmp_path/"moved"/"conv2.h5")
    main(["redraw", str(tmp_path/"moved"/"conv2.h5")])
    assert (tmp_path/"moved"/"conv2.png").read_bytes() == before


def test_many_units_are_dealt_onto_several_sheets(place, tmp_path):
    run(place, tmp_path, "--layers", "conv2", "--units", "all", "--k", "1")
    assert [results.load(tmp_path/f"conv2_0{n}.h5", UnitViews).units.tolist() for n in (1, 2)] == [[*range(64)], [*range(64, 70)]]
    assert (tmp_path/"conv2_02.png").is_file()


def test_the_figure_shows_each_projection_beside_its_patch_zero_as_mid_grey(place, tmp_path):
    run(place, tmp_path, "--layers", "conv2", "--units", "3", "--k", "9")
    views, sheet = results.load(tmp_path/"conv2.h5", UnitViews), np.asarray(Image.open(tmp_path/"conv2.png"))
    tile = 17*4                                                            # pixels enlarged to squares of 4
    scale = np.quantile(np.abs(views.projections[0][views.projections[0] != 0]), 0.997)
    for rank in range(9):
        top, left = LABEL + rank//3*(tile + 1), MARGIN + rank % 3*(tile + 1)
        beside = left + 3*(tile + 1) - 1 + MARGIN//4
        projection, patch = (sheet[top + 2:top + tile:4, at + 2:at + tile:4] for at in (left, beside))
        np.testing.assert_allclose(projection, (127.5 + 127.5*views.projections[0, rank]/scale).clip(0, 255), atol=0.51)
        np.testing.assert_array_equal(patch, views.patches[0, rank])
        beyond = (views.boxes[0, rank, :2, None] + np.arange(17) < 0) | (views.boxes[0, rank, :2, None] + np.arange(17) >= CROP)
        assert (projection[beyond[0]] == 128).all() and (patch[:, beyond[1]] == 128).all()       # beyond the border both alike


def test_a_filter_of_the_first_layer_is_drawn_once_beside_its_patches(place, tmp_path):
    run(place, tmp_path, "--layers", "conv1", "--units", "3", "--k", "9")
    views, sheet = results.load(tmp_path/"conv1.h5", UnitViews), np.asarray(Image.open(tmp_path/"conv1.png"))
    block = 3*(5*13 + 1) - 1                                               # tiles of 65 pixels; the filter is 5 x 39 wide
    w = load(place/"run"/"best.h5").parameters["conv1"]["w"][..., 3].transpose(1, 2, 0)
    left = MARGIN + (block - 5*39)//2
    filter = sheet[LABEL + 19:LABEL + 5*39:39, left + 19:left + 5*39:39]
    np.testing.assert_allclose(filter, (127.5 + 127.5*w/np.quantile(np.abs(w), 0.997)).clip(0, 255), atol=0.51)
    patch = sheet[LABEL + 6:LABEL + 65:13, MARGIN + block + MARGIN//4 + 6:][:, :65:13]
    np.testing.assert_array_equal(patch, views.patches[0, 0])


def test_units_that_never_fire_are_left_out_of_the_figure_and_counted(place, tmp_path, capsys, monkeypatch):
    said, text = [], Sheet.text
    monkeypatch.setattr(Sheet, "text", lambda self, left, top, lines, *more, **look: (
        said.append(lines), text(self, left, top, lines, *more, **look)))
    run(place, tmp_path, "--layers", "conv2", "--units", "0,1,5", "--k", "2")
    assert said == ["conv2 unit 0", "conv2 unit 5", ["conv2: 1 of 3 units never fires and is left out: 1"]]
    with_dead = Image.open(tmp_path/"conv2.png").size
    run(place, tmp_path, "--layers", "conv2", "--units", "0,5", "--k", "2")
    assert np.subtract(with_dead, Image.open(tmp_path/"conv2_2.png").size).tolist() == [0, LINE]
    run(place, tmp_path, "--layers", "conv2", "--units", "1", "--k", "2")
    said = " ".join(capsys.readouterr().out.split())
    assert "conv2: none of 1 unit fires on any picture, so there is no figure" in said and "which stays; this one is conv2_3.h5" in said
    assert (tmp_path/"conv2_3.h5").is_file() and not (tmp_path/"conv2_3.png").exists()


def test_another_result_gets_a_number_the_same_one_takes_its_own_place(place, tmp_path):
    for units in ("0:2", "2:5", "0:2", "2:5"):
        run(place, tmp_path, "--layers", "conv1", "--units", units)
    assert sorted(path.name for path in tmp_path.glob("conv1*")) == ["conv1.h5", "conv1.png", "conv1_2.h5", "conv1_2.png"]
    assert [results.load(tmp_path/name, UnitViews).units.tolist() for name in ("conv1.h5", "conv1_2.h5")] == [[0, 1], [2, 3, 4]]


def test_units_of_the_last_layer_are_called_by_their_classes_also_when_drawn_again(place, tmp_path, monkeypatch):
    run(place, tmp_path, "--layers", "fc8", "conv1", "--units", "0:2", "--k", "2")
    said = []
    monkeypatch.setattr(Sheet, "text", lambda self, left, top, lines, *more, **look: said.append(lines))
    for layer in ("fc8", "conv1"):
        main(["redraw", str(tmp_path/f"{layer}.h5")])
    views = results.load(tmp_path/"fc8.h5", UnitViews)
    results.save(tmp_path/"old.h5", replace(views, classes=None))          # as files were before they had names
    main(["redraw", str(tmp_path/"old.h5")])
    assert [one for one in said if one] == ["fc8 bee", "fc8 cow", "conv1 unit 0", "conv1 unit 1", "fc8 unit 0", "fc8 unit 1"]


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_a_figure_of_vectors_has_the_same_bytes_again_and_holds_the_very_pixels(place, tmp_path, kind):
    run(place, tmp_path, "--layers", "conv2", "--units", "3", "--k", "4", "--format", kind)
    before = (tmp_path/f"conv2.{kind}").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"conv2.h5", f"conv2.{kind}", "top_activations.h5"}
    main(["redraw", str(tmp_path/"conv2.h5"), "--format", kind])
    assert (tmp_path/f"conv2.{kind}").read_bytes() == before
    assert b"conv2 unit 3" in before if kind == "svg" else before.startswith(b"%PDF")
    if kind == "svg":
        main(["redraw", str(tmp_path/"conv2.h5")])
        sheet, block = np.asarray(Image.open(tmp_path/"conv2.png")), 2*(17*4 + 1) - 1
        held = [np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB"))
                for code in re.findall(r"base64,([^\"]+)", before.decode())]
        for pixels, left in zip(held, (MARGIN, MARGIN + block + MARGIN//4), strict=True):
            np.testing.assert_array_equal(pixels, sheet[LABEL:LABEL + block, left:left + block])


def test_folders_hold_a_file_for_each_projection_and_patch_and_say_what_they_are(place, tmp_path):
    run(place, tmp_path, "--layers", "conv2", "--units", "1,4", "--k", "3", "--folders")
    views = results.load(tmp_path/"conv2.h5", UnitViews)
    info = json.loads((tmp_path/"conv2"/"unit_0004"/"info.json").read_text())
    assert info["layer"] == "conv2" and info["unit"] == 4 and len(info["strongest"]) == 3
    for rank, entry in enumerate(info["strongest"]):
        assert entry["name"] == views.names[1, rank] and entry["row_column"] == views.places[1, rank].tolist()
        patch = np.asarray(Image.open(tmp_path/"conv2"/"unit_0004"/entry["patch"]))
        np.testing.assert_array_equal(patch, views.patches[1, rank])
        assert (tmp_path/"conv2"/"unit_0004"/entry["projection"]).is_file()
    dead = json.loads((tmp_path/"conv2"/"unit_0001"/"info.json").read_text())
    assert dead["strongest"] == [] and len(list((tmp_path/"conv2"/"unit_0001").iterdir())) == 1


def test_shards_are_merged_into_the_pass_and_drawn(place, tmp_path, capsys):
    run(place, tmp_path/"whole", "--layers", "conv1", "--units", "0:2")
    for i in (1, 2):
        run(place, tmp_path, "--layers", "conv1", "--shard", f"{i}/2")
    parts = [str(tmp_path/f"top_activations_{i}_of_2.h5") for i in (1, 2)]
    said = refused(capsys, "top-activations", "--run", place/"run", "--output", tmp_path/"one", "--layers", "conv1",
                   "--batch-size", 8, "--merge", parts[0])
    assert "--merge: expected all of 24 pictures, got the pictures 0 to 7" in said
    run(place, tmp_path/"both", "--layers", "conv1", "--units", "0:2", "--merge", *parts)
    for name in ("top_activations.h5", "conv1.h5"):
        kind = TopActivations if name.startswith("top") else UnitViews
        one, other = (results.load(tmp_path/folder/name, kind) for folder in ("whole", "both"))
        np.testing.assert_equal(vars(one), vars(other))
    assert (tmp_path/"whole"/"conv1.png").read_bytes() == (tmp_path/"both"/"conv1.png").read_bytes()


@pytest.mark.parametrize("more, sentence", [
    (["--layers", "conv7"], "one of conv1, relu1, pool1, conv2.*got 'conv7'"),
    (["--layers", "conv1", "--units", "0:16"], "--units: expected 0 to 5, the units of conv1, got 6"),
    (["--layers", "fc8", "--units", "some"], "all, random:N, FIRST:LAST.*got 'some'; the units of fc8 are 0 to 1"),
    (["--units", "random:0"], "all, random:N"),
    (["--units", "3:3"], "all, random:N"),
    (["--shard", "3/2"], "i/n with i from 1 to n, got 3/2"),
    (["--shard", "half"], "I/N, e.g. 2/5, got 'half'"),
    (["--data", "nowhere"], "nowhere"),
    (["--device", "abacus"], "--device"),
    (["--merge", "nothing.h5"], "nothing.h5, which does not exist")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(place, tmp_path, capsys, more, sentence):
    said = refused(capsys, "top-activations", "--run", place/"run", "--output", tmp_path/"out", *more)
    assert re.search(sentence, said), said
    assert not (tmp_path/"out").exists()


def test_a_missing_run_an_output_that_is_a_file_and_a_wrong_file_to_redraw_are_one_sentence(place, tmp_path, capsys):
    (tmp_path/"file").write_text("")
    assert "--output: expected a place where a folder can be made" in refused(capsys, "top-activations", "--run", place/"run",
                                                                              "--output", tmp_path/"file")
    assert "which does not exist" in refused(capsys, "top-activations", "--run", tmp_path/"no")
    assert "--run: expected" in refused(capsys, "top-activations")
    assert "an HDF5 file, got an empty file" in refused(capsys, "redraw", tmp_path/"file")
    assert "which does not exist" in refused(capsys, "redraw", tmp_path/"none.h5")
    twice = tmp_path/"file", tmp_path/".."/tmp_path.name/"file"
    assert "FILE.h5: expected different files, got" in refused(capsys, "redraw", *twice)


@pytest.mark.parametrize("name", ["views.png", "views.PNG", "views.md", "views.csv"])
def test_redraw_never_writes_over_what_it_draws_from(name, place, tmp_path, capsys):
    run(place, tmp_path, "--layers", "conv1", "--units", "0:2")
    before = (tmp_path/"conv1.h5").rename(tmp_path/name).read_bytes()
    assert "expected a result's .h5, got ." in refused(capsys, "redraw", tmp_path/name) and (tmp_path/name).read_bytes() == before


def test_a_picture_that_does_not_decode_is_named(place, tmp_path, capsys):
    data = tmp_path/"data"
    for part in ("train", "val"):
        for name in ("bee", "cow"):
            shutil.copytree(place/"data"/"val"/name, data/part/name)
    for name in ("00.png", "01.png", "02.png"):            # two would be left out
        (data/"val"/"bee"/name).write_bytes(b"no picture")
    said = refused(capsys, "top-activations", "--run", place/"run", "--data", data, "--output", tmp_path/"out")
    assert "00.png" in said


def test_an_empty_data_set_is_one_sentence(place, tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path/"data"/part/"bee").mkdir(parents=True)
    assert "data" in refused(capsys, "top-activations", "--run", place/"run", "--data", tmp_path/"data", "--output",
                             tmp_path/"out")
    assert not (tmp_path/"out").exists()


def test_a_network_without_pooling_has_figures_too(place, tmp_path):
    network = Network("plain", (3, CROP, CROP), [Conv("conv1", 4, K=5, S=2), ReLU("relu1"), Conv("conv2", 5, K=3),
                                                 ReLU("relu2")])
    network.init(0, "he")
    save(tmp_path/"plain.h5", Checkpoint("plain", network.input_shape, network.table(), ["bee", "cow"], network.parameters(),
                                         mean_image=np.full((3, SIZE, SIZE), 127, np.float32),
                                         state={"data": str(place/"data")}))
    main(["top-activations", "--run", str(tmp_path/"plain.h5"), "--output", str(tmp_path/"out"), "--units", "0:2"])
    assert results.load(tmp_path/"out"/"conv2.h5", UnitViews).projections.any()


def test_a_command_with_other_options_or_after_more_training_keeps_a_pass_of_its_own_beside_the_first(place, tmp_path):
    """The page's commands follow each other in one folder, and a run that was gone on with is looked into again."""
    for options in (["--layers", "conv1"], ["--layers", "conv1", "conv2"], ["--layers", "conv2", "--k", "3"],
                    ["--layers", "conv1"]):
        run(place, tmp_path, *options, "--units", "0:2")
    assert sorted(path.name for path in tmp_path.glob("top_activations*")) == [
        "top_activations.h5", "top_activations_2.h5", "top_activations_3.h5"]
    before = (tmp_path/"top_activations.h5").read_bytes()
    (tmp_path/"run").mkdir()
    trained_on = load(place/"run"/"best.h5")
    trained_on.parameters["conv1"]["w"] *= 2
    save(tmp_path/"run"/"best.h5", trained_on)
    main(["top-activations", "--run", str(tmp_path/"run"), "--output", str(tmp_path), "--workers", "0", "--batch-size", "8",
          "--device", "cpu", "--layers", "conv1", "--units", "0:2"])
    assert (tmp_path/"top_activations_4.h5").exists() and (tmp_path/"top_activations.h5").read_bytes() == before
    # a damaged one is told, not passed over
    (tmp_path/"top_activations.h5").write_bytes(before[:1000])
    with pytest.raises(SystemExit):
        run(place, tmp_path, "--layers", "conv1")


def test_a_result_is_let_go_when_it_is_drawn_unless_something_is_said_of_all(place, tmp_path, monkeypatch):
    """All units of a layer of the paper's, 64 to a file, would fill any memory."""
    alive, most = weakref.WeakSet(), []
    def draw(views, path, draw=top_activations.draw):
        alive.add(views)
        gc.collect()
        most.append(len(alive))
        return draw(views, path)

    monkeypatch.setattr(top_activations, "draw", draw)
    monkeypatch.setattr(top_activations, "PAGE", 5)
    monkeypatch.setattr(UnitViews, "__hash__", object.__hash__)
    run(place, tmp_path, "--layers", "conv2", "--units", "0:12")
    assert len(most) == 3 and max(most) <= 2                 # the one in hand, and the one that is being made
