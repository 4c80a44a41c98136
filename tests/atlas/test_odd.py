"""Odd networks and data, half-made folders of strangers, disks that fill up: an atlas is right or is refused with one
sentence."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.atlas.conftest import CLASSES, CROP, SIZE, check_columns, small, told_curves, values, write_pictures, write_run
from tests.atlas.test_atlas import files, make, named
from tests.spoken import in_one
from zfcore import atlas, trained
from zfcore.__main__ import main
from zfcore.atlas import sheets
from zfcore.checkpoint import Checkpoint, load, save
from zfcore.layers import Conv, Flatten, Linear, ReLU
from zfcore.network import Network

FEW = "--layers", "conv2", "--units", "1,2", "--pictures", "3"


def run_of(folder, data, layers, classes=CLASSES):
    """A run of a network of these layers that has learned nothing."""
    network = Network("odd", (3, CROP, CROP), layers).init(0, "he")
    folder.mkdir()
    save(folder/"best.h5", Checkpoint("odd", network.input_shape, network.table(), classes, network.parameters(), epoch=1,
                                      mean_image=np.full((3, SIZE, SIZE), 120, np.float32),
                                      state={"data": str(data), "seed": 0, "init": "he"}))
    return folder


def refused(capsys, run, output, *options):
    """The sentence with which an atlas is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        make(run, output, *options)
    said = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2 and said.count("expected") == 1, said
    return said


def check_sheets(folder):
    """Every sheet of a layer has as many columns as its page says, and no two pages share a picture."""
    found = check_columns(folder)
    for name, page in found.items():
        if name.startswith("layer-"):
            tiles = page["sheets"]
            assert all(len(of_unit) == tiles["columns"] for of_unit in page["values"])
    names = Counter(file for name, page in found.items() if name.startswith("layer-") for file in named(page))
    assert max(names.values(), default=1) == 1 and all((folder/name).is_file() for page in found.values()
                                                       for name in named(page))
    return found


# ------------------------------------------------------------------------------------------------------------- odd ones
def test_with_fewer_pictures_than_are_shown_the_sheets_have_as_many_columns(run, tmp_path):
    found = check_sheets(make(run, tmp_path/"atlas", *FEW, "--limit-per-class", "2"))
    assert found["layer-conv2"]["sheets"]["columns"] == 6


@pytest.mark.parametrize("layers, classes", [
    ([Flatten("flatten"), Linear("fc", 3)], CLASSES),
    ([Conv("conv", 5, K=5, S=2)], []),
    ([Conv("layer", 4, K=5, S=4), ReLU("r"), Flatten("f"), Linear("network", 1)], ["only"]),
    ([Conv("whole", 4, K=5, S=4), ReLU("r"), Conv("picture", 4, K=3), ReLU("s"), Flatten("f"), Linear("picture-0", 3)],
     CLASSES)])
def test_odd_networks_have_all_of_their_pages(run, tmp_path, layers, classes):
    data = write_pictures(tmp_path/"pictures", per_class=4)
    found = check_sheets(make(run_of(tmp_path/"run", data, layers, classes), tmp_path/"atlas", "--units", "0"))
    assert {f"layer-{layer.name}" for layer in layers if isinstance(layer, Conv | Linear)} | {"network", "whole",
                                                                                              "picture-0"} <= set(found)


def test_a_layer_of_dead_units_says_so(run, tmp_path):
    network = small()
    network["conv2"].parameters["b"][:] = -1e6
    data = write_pictures(tmp_path/"pictures", per_class=4)
    found = check_sheets(make(write_run(tmp_path/"run", data, network), tmp_path/"atlas", "--layers", "conv2"))
    assert all(found["layer-conv2"]["dead"]) and found["network"]["cover"]["units"]["conv2"] == []


def test_sheets_of_a_comparison_are_those_of_no_layer(tmp_path):
    layers = [Conv("a", 3, K=5, S=4), ReLU("r"), Conv("compare-a", 3, K=3), ReLU("s"), Flatten("f"), Linear("a-matched", 3)]
    run = run_of(tmp_path/"run", write_pictures(tmp_path/"pictures", per_class=4), layers)
    found = check_sheets(make(run, tmp_path/"atlas", "--units", "0", "--beside", str(run)))
    of_layers, of_others = ({file for name, page in found.items() if name.startswith(begin)
                             for file in named(page.get(key, page))}
                            for begin, key in (("layer-", ""), ("compare-", "others")))
    assert of_others and not of_layers & of_others


@pytest.mark.parametrize("options, word", [
    (["--layers", "relu1"], "--layers"), (["--layers", "flatten"], "--layers"), (["--pictures", "99"], "--pictures"),
    (["--pictures", "-1"], "--pictures"), (["--units", "11"], "--units"), (["--units", "2:2"], "--units"),
    (["--beside", "nothing.h5"], "--beside: expected a run")])
def test_what_there_is_not_is_refused_before_anything_is_made(run, tmp_path, capsys, options, word):
    assert word in refused(capsys, run, tmp_path/"atlas", *options) and not (tmp_path/"atlas").exists()


@pytest.mark.parametrize("option", ["--beside", "--pictures"])
def test_what_takes_pictures_is_not_passed_over_where_they_are_gone(run, tmp_path, capsys, option):
    gone = write_run(tmp_path/"run", tmp_path/"gone")
    refused(capsys, gone, tmp_path/"atlas", option, str(run) if option == "--beside" else "3")
    assert not (tmp_path/"atlas").exists()


def test_another_network_without_a_common_layer_is_refused_before_anything_is_made(run, tmp_path, capsys):
    other = run_of(tmp_path/"other", tmp_path, [Flatten("flatten"), Linear("out", 3)])
    assert "--beside" in refused(capsys, run, tmp_path/"atlas", "--beside", str(other), *FEW) and not (tmp_path/"atlas").exists()


def test_views_of_another_pass_are_left_out(run, tmp_path):
    shutil.copytree(run, tmp_path/"run")
    for k, units in (("4", "1:3"), ("3", "4:6")):
        main(["top-activations", "--run", str(tmp_path/"run"), "--layers", "conv2", "--units", units, "--k", k, "--device",
              "cpu", "--batch-size", "8"])
    write_run(tmp_path/"other", tmp_path/"gone")
    shutil.copy(tmp_path/"other"/"best.h5", tmp_path/"run"/"best.h5")
    found = check_sheets(make(tmp_path/"run", tmp_path/"atlas"))
    assert found["layer-conv2"]["units"] == [1, 2] and found["layer-conv2"]["sheets"]["columns"] == 4


def test_a_network_without_history_says_that_it_has_no_curves(tmp_path):
    run = run_of(tmp_path/"run", tmp_path/"gone", [Flatten("flatten"), Linear("fc", 3)])
    assert sum("Learning curves are not shown" in note for note in values(make(run, tmp_path/"atlas"))["network"]["notes"]) == 1


def rewritten(run, *names, epochs, **other):
    """Write checkpoints of a run anew, each with a history of so many epochs, or with another one."""
    found = load(run/"best.h5")
    grown = {column: [*values, 0.75, 0.7][:epochs] for column, values in found.history.items()} | {"epoch": [*range(1, epochs + 1)]}
    for name in names:
        save(run/name, replace(found, epoch=epochs, history=grown | other))
    return run


@pytest.mark.parametrize("asked", ["run", "run/best.h5"])
def test_the_learning_curves_go_on_to_the_runs_last_epoch_and_say_which_the_network_is_of(tmp_path, asked):
    rewritten(write_run(tmp_path/"run", tmp_path/"gone"), "latest.h5", epochs=4)
    found = values(make(tmp_path/asked, tmp_path/"atlas"))["network"]
    assert found["curves"]["alt"] == ("loss and error over 4 epochs; the validation error ends at 70.0 %; this network is that of "
                                      "epoch 2")
    assert (tmp_path/"atlas"/"curves.svg").read_text() == told_curves(trained.open(tmp_path/"run"/"latest.h5").history, 2)
    assert not [note for note in found["notes"] if "curves" in note] and found["errors"]["top1"] == 12.5


@pytest.mark.parametrize("latest", ["none", "damaged", "of another run"])
def test_curves_that_may_end_too_early_are_said_to(tmp_path, latest):
    run = write_run(tmp_path/"run", tmp_path/"gone")
    if latest == "damaged":
        (run/"latest.h5").write_bytes(b"not whole")
    elif latest == "of another run":
        rewritten(run, "latest.h5", epochs=4, val_error=[0.6, 0.5, 0.4, 0.3])
    found = values(make(run, tmp_path/"atlas"))["network"]
    assert "over 2 epochs" in found["curves"]["alt"] and sum("curves end with this network's epoch" in note for note in found["notes"]) == 1


def test_a_run_that_was_stopped_in_its_first_epoch_has_an_atlas_without_curves(tmp_path):
    run = write_run(tmp_path/"run", tmp_path/"gone")
    rewritten(run, "latest.h5", epochs=0)
    (run/"best.h5").unlink()
    found = values(make(run, tmp_path/"atlas"))["network"]
    assert found["curves"] is None and found["errors"] is None and sum("Learning curves are not shown" in note for note in found["notes"]) == 1


def test_units_that_have_pages_are_told_where_not_all_have(run, tmp_path):
    layers = values(make(run, tmp_path/"atlas", "--layers", "conv2", "fc8", "--units", "0:3", "--pictures",
                         "3"))["network"]["layers"]
    assert [layer["numbers"] for layer in layers] == [[0, 1, 2], None]


def test_another_atlas_in_the_folder_where_one_stands_gets_a_folder_beside_it(run, tmp_path, monkeypatch):
    (tmp_path/"here").mkdir()
    monkeypatch.chdir(tmp_path/"here")
    make(run, ".", *FEW)
    make(run, ".", *FEW, "--seed", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here_2"] and (tmp_path/"here_2"/"index.html").is_file()


# ------------------------------------------------------------------------------------------------ stopped, and made again
@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    return make(run, tmp_path_factory.mktemp("whole")/"atlas", *FEW)


@pytest.fixture(scope="module")
def half(run, tmp_path_factory):
    """A folder in which the making was stopped when the pages of all layers were there."""
    output, write = tmp_path_factory.mktemp("half")/"atlas", sheets.Folder.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets.Folder, "write", lambda folder, name, content: 1/0 if name == "data/network.js"
                      else write(folder, name, content))
        with pytest.raises(ZeroDivisionError):
            make(run, output, *FEW)
    return output


def test_one_that_was_stopped_between_its_passes_goes_on(run, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(atlas, "make", lambda *_, **__: 1/0)
        with pytest.raises(ZeroDivisionError):
            make(run, tmp_path/"atlas", *FEW)
    assert files(make(run, tmp_path/"atlas", *FEW)) == files(whole)


def test_one_that_was_stopped_before_its_record_was_there_goes_on(run, whole, tmp_path):
    (tmp_path/"atlas").mkdir()
    (tmp_path/"atlas"/".atlas.json.part").write_text('{"form')
    assert files(make(run, tmp_path/"atlas", *FEW)) == files(whole)


def test_one_that_was_stopped_after_its_last_page_loses_what_was_kept(run, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        make(run, tmp_path/"atlas", *FEW)
    assert (tmp_path/"atlas"/"kept").exists() and files(make(run, tmp_path/"atlas", *FEW)) == files(whole)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a system without SIGKILL")
@pytest.mark.parametrize("when", ["kept/strongest.h5", "sheets/conv2-patch-000.webp"])
def test_one_that_was_killed_goes_on(run, whole, tmp_path, when):
    output = tmp_path/"atlas"
    options = ["--run", str(run), "--output", str(output), "--device", "cpu", "--workers", "1", "--batch-size", "8", *FEW]
    process = subprocess.Popen([sys.executable, "-m", "zfcore", "atlas", *options], stderr=subprocess.DEVNULL,
                               cwd=Path(__file__).parents[2])
    while process.poll() is None and not (output/when).exists():
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert (output/when).exists()
    assert files(make(run, output, *FEW)) == files(whole)


@pytest.mark.parametrize("most", [200, pytest.param(1500, marks=pytest.mark.exhaustive), 6000])
def test_a_disk_that_fills_up_is_one_sentence_and_with_room_it_goes_on(run, whole, tmp_path, capsys, most):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        said = refused(capsys, run, tmp_path/"atlas", *FEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a disk with room" in said
    assert files(make(run, tmp_path/"atlas", *FEW)) == files(whole)


def test_two_at_once_are_refused(run, half, tmp_path, capsys):
    shutil.copytree(half, tmp_path/"atlas")
    with atlas.alone(tmp_path/"atlas"):
        before = files(tmp_path/"atlas")
        assert "no other atlas is being made" in refused(capsys, run, tmp_path/"atlas", *FEW)
    assert files(tmp_path/"atlas") == before


def test_a_picture_that_is_damaged_after_the_pass_is_named(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path/"run", write_pictures(tmp_path/"pictures"))
    with monkeypatch.context() as patch:
        patch.setattr(atlas, "make", lambda *_, **__: 1/0)
        with pytest.raises(ZeroDivisionError):
            make(run, tmp_path/"atlas", *FEW)
    for path in (tmp_path/"pictures"/"val").rglob("*.png"):
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, (1, 1))
    said = refused(capsys, run, tmp_path/"atlas", *FEW)
    assert ".png" in said, said


# ----------------------------------------------------------------------------------------------------- folders of strangers
def written(name, text):
    return lambda folder, elsewhere: (folder/name).write_text(text)


def changed(name, before, after):
    def of(folder, elsewhere):
        text = (folder/name).read_text()
        assert before in text
        (folder/name).write_text(text.replace(before, after, 1))
    return of


def linked(name):
    """What is called `name` lies elsewhere, and a link to it in its place."""
    def of(folder, elsewhere):
        (elsewhere/"it").parent.mkdir(exist_ok=True)
        if (folder/name).exists():
            shutil.move(folder/name, elsewhere/"it")
        else:
            (elsewhere/"it").write_text("a stranger's")
        (folder/name).symlink_to(elsewhere/"it")
    return of


def of_another_network(folder, elsewhere):
    write_run(elsewhere/"run", write_pictures(elsewhere/"pictures"), small(seed=1))
    main(["top-activations", "--run", str(elsewhere/"run"), "--layers", "conv2", "--units", "1", "--device", "cpu",
          "--batch-size", "8", "--output", str(elsewhere/"found")])
    shutil.copy(elsewhere/"found"/"top_activations.h5", folder/"kept"/"strongest.h5")


HOSTILE = {
    "record no JSON": written("atlas.json", "{"), "record a list": written("atlas.json", "[]"),
    "record without fingerprint": written("atlas.json", "{}"),
    "record a link": linked("atlas.json"), "kept a link": linked("kept"), "data a link": linked("data"),
    "sheets a link": linked("sheets"), "page a link": linked("page"), "index a link": linked("index.html"),
    "a page empty": written("data/layer-conv2.js", ""), "a page cut off": written("data/layer-conv2.js",
                                                                                  'atlas.receive("layer-conv2",{"na'),
    "a page of something else": written("data/layer-conv2.js", "alert(1)"),
    "a page deep": written("data/layer-conv2.js", 'atlas.receive("layer-conv2",' + "["*100_000 + ");\n"),
    "a page with code behind": changed("data/layer-conv2.js", ");\n", ");alert(1);//);\n"),
    "a page of other units": changed("data/layer-conv2.js", '"units":[1,2]', '"units":[1,3]'),
    "a page of fewer units": changed("data/layer-conv2.js", '"units":[1,2]', '"units":[1]'),
    "a page of another layer": changed("data/layer-conv2.js", '"name":"conv2"', '"name":"conv1"'),
    "numbers of pictures beyond the data": changed("data/layer-conv2.js", '"pictures":[[', '"pictures":[[99,'),
    "a picture of another class": changed("data/picture-3.js", '"label":3', '"label":2'),
    "a picture a list": written("data/picture-3.js", 'atlas.receive("picture-3",[]);\n'),
    "a pass of another network": of_another_network, "a pass no HDF5": written("kept/strongest.h5", "{}"),
    "a pass a link": linked("kept/strongest.h5"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_half_made_folder_of_a_stranger_is_not_believed(run, half, tmp_path, capsys, what):
    shutil.copytree(half, tmp_path/"atlas")
    (tmp_path/"elsewhere").mkdir()
    HOSTILE[what](tmp_path/"atlas", tmp_path/"elsewhere")
    before = files(tmp_path/"elsewhere")
    refused(capsys, run, tmp_path/"atlas", *FEW)
    assert files(tmp_path/"elsewhere") == before and not (tmp_path/"atlas"/"index.html").is_file() or what == "index a link"


@pytest.mark.parametrize("place", ["a file", "in a file", "a folder of somebody's"])
def test_other_places_are_refused_and_stay(run, tmp_path, capsys, place):
    (tmp_path/"letter").write_text("dear aunt")
    (tmp_path/"letters"/"kept").mkdir(parents=True)
    (tmp_path/"letters"/"kept"/"letter").write_text("dear aunt")
    before = files(tmp_path)
    output = {"a file": tmp_path/"letter", "in a file": tmp_path/"letter"/"atlas",
              "a folder of somebody's": tmp_path/"letters"}[place]
    refused(capsys, run, output, *FEW)
    assert files(tmp_path) == before


def test_a_port_that_is_taken_is_told_before_the_work_and_leaves_nothing(run, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as end:
            make(run, tmp_path/"atlas", "--serve", "--port", str(taken.getsockname()[1]))
    assert end.value.code == 2 and "another program listens there" in in_one(capsys.readouterr().err) and not (tmp_path/"atlas").exists()


def test_no_page_tells_where_things_lie_on_the_machine_that_made_it(run, tmp_path):
    make(run, tmp_path/"atlas", "--layers", "fc8", "--data", str(run.parent/"pictures"), "--beside", str(run))
    data = b"".join(path.read_bytes() for path in (tmp_path/"atlas").rglob("*.js"))
    assert str(run.parent).encode() not in data and values(tmp_path/"atlas")["network"]["data"] == "pictures"


@pytest.mark.parametrize("kept", [True, False])
def test_why_there_are_no_pictures_is_said_here_and_not_on_the_pages(run, tmp_path, capsys, kept):
    shutil.copytree(run, tmp_path/"run")
    if kept:
        main(["top-activations", "--run", str(tmp_path/"run"), "--layers", "conv2", "--units", "1:3", "--device", "cpu",
              "--batch-size", "8"])
    shutil.copy(write_run(tmp_path/"other", tmp_path/"gone")/"best.h5", tmp_path/"run"/"best.h5")
    make(tmp_path/"run", tmp_path/"atlas")
    assert str(tmp_path/"gone") in "".join(capsys.readouterr().err.split())
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path/"atlas").rglob("*.js"))
