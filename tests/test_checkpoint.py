"""The checkpoint is whole or refused: written at once, checked when read, described by itself."""
import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from zfcore import checkpoint as module
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, Unwritable, atomic, in_turn, load, new_hdf5, save
from zfcore.models import build, from_checkpoint
from zfcore.optim import SGD

ROOT = Path(__file__).parents[1]


@pytest.fixture
def stored(tmp_path):
    network = build("tiny", 10).init(1)
    velocity = SGD(network).velocity
    velocity["conv2"]["w"] += 0.25
    made = Checkpoint("tiny", network.input_shape, network.table(), [f"class {k}" for k in range(10)],
                      network.parameters(), velocity, np.full((3, 110, 110), 101.5, np.float32), epoch=3, step=77,
                      state={"lr": 1e-3, "data": "", "waited": 2}, history={"loss": [2.0, 1/3, float("inf")]})
    save(tmp_path/"latest.h5", made)
    return tmp_path/"latest.h5", made


def same(a, b):
    for name in ("model", "input_shape", "layers", "classes", "epoch", "step", "state", "history"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(a.mean_image, b.mean_image)
    for one, other in ((a.parameters, b.parameters), (a.velocity, b.velocity)):
        assert {k: set(v) for k, v in one.items()} == {k: set(v) for k, v in other.items()}
        for layer, of_layer in one.items():
            for key in of_layer:
                np.testing.assert_array_equal(of_layer[key], other[layer][key])


def test_what_is_read_is_what_was_written_to_the_bit(stored):
    path, made = stored
    same(load(path), made)


def test_a_history_of_a_dataset_a_column_as_before_is_read(stored):
    path, made = stored
    with h5py.File(path, "a") as file:
        del file["history"]
        for column, values in made.history.items():
            file.create_dataset(f"history/{column}", data=values, fletcher32=True)
    same(load(path), made)


def test_every_dataset_carries_a_checksum_and_the_file_explains_itself(stored):
    found = {}
    with h5py.File(stored[0]) as file:
        file.visititems(lambda name, item: found.update({name: item.fletcher32}) if isinstance(item, h5py.Dataset) else None)
        assert file.attrs["format"] == b"zfcore" and b'"kind": "Conv"' in file.attrs["layers"]
    assert all(found.values()) and {"parameters/conv1/w", "optimizer/fc8/b", "preprocessing/mean_image"} <= set(found)


def test_a_checkpoint_with_the_kinds_names_of_before_opens_as_one_of_today(stored):
    path, made = stored
    older = [{**row, "kind": "ContrastNorm"} if row["kind"] == "LocalResponseNorm" else row for row in made.layers]
    assert older != made.layers
    save(path, replace(made, layers=older))
    assert load(path).layers == from_checkpoint(path)[0].table() == made.layers


def test_a_network_comes_back_from_its_file_and_from_its_run_folder(stored):
    path, made = stored
    for place in (path, path.parent):
        network, checkpoint = from_checkpoint(place)
        np.testing.assert_array_equal(network["fc7"].parameters["w"], made.parameters["fc7"]["w"])
        assert checkpoint.classes == made.classes
    save(path.with_name("best.h5"), Checkpoint(**{**vars(made), "epoch": 2}))
    assert from_checkpoint(path.parent)[1].epoch == 2


def test_a_file_cut_short_anywhere_is_refused_by_name(stored):
    path, _ = stored
    whole = path.read_bytes()
    for part in (0, 1, 100, len(whole)//2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(Expected, match="latest.h5"):
            load(path)


def test_a_flipped_byte_in_the_weights_is_found_and_the_dataset_named(stored):
    path, made = stored
    whole = bytearray(path.read_bytes())
    place = whole.index(made.parameters["fc6"]["w"].tobytes()[:64])
    whole[place + 10] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Expected, match="latest.h5: /parameters/fc6/w"):
        load(path)


def test_what_is_opened_to_look_at_is_read_without_what_training_goes_on_from(stored):
    path, made = stored
    with h5py.File(path, "r+") as file:
        file["optimizer/fc6/w"][0] = np.nan
    network, checkpoint = from_checkpoint(path)
    np.testing.assert_array_equal(network["fc6"].parameters["w"], made.parameters["fc6"]["w"])
    assert made.velocity and checkpoint.velocity == {}
    with pytest.raises(Expected, match="/optimizer/fc6/w"):
        load(path)


def test_a_damaged_byte_anywhere_is_refused_or_harmless(stored):
    """Headers, attributes and data have checksums; what lies outside them is empty space."""
    path, made = stored
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in np.concatenate([rng.integers(0, 6000, 60), rng.integers(0, len(whole), 20)]):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = load(path)
        except Expected:
            continue
        same(read, made)


@pytest.mark.parametrize("change, sentence", [
    (lambda f: f.attrs.update(version=2), "expected format version 1, got 2"),
    (lambda f: f.attrs.update(format=np.bytes_("other")), "expected a zfcore checkpoint, got another HDF5 file"),
    (lambda f: f.attrs.__delitem__("layers"), "layers"),
    (lambda f: f.__delitem__("optimizer"), "optimizer"),
    (lambda f: f["parameters/conv3/b"].write_direct(np.full(96, np.nan, np.float32)), "/parameters/conv3/b: expected finite"),
])
def test_what_is_wrong_is_said(stored, change, sentence):
    with h5py.File(stored[0], "r+") as file:
        change(file)
    with pytest.raises(Expected, match=sentence):
        load(stored[0])


def other(arrays, layer, key, array):
    return {**arrays, layer: {**arrays[layer], key: array}}


B = np.zeros(96, np.float32)                     # as conv3 has biases


@pytest.mark.parametrize("change, sentence", [
    (lambda c: {"parameters": other(c.parameters, "conv3", "b", B.astype(float))}, "/parameters/conv3/b: expected float32 or float16, got float64"),
    (lambda c: {"parameters": other(c.parameters, "conv3", "b", B[1:])}, r"/parameters/conv3/b: expected shape \(96,\), got \(95,\)"),
    (lambda c: {"parameters": other(c.parameters, "conv3", "b", B + np.nan)}, "/parameters/conv3/b: expected finite values, got 96 of 96"),
    (lambda c: {"parameters": other(c.parameters, "conv3", "b", [0.0]*96)}, r"/parameters/conv3/b: expected an array \(96,\), got list"),
    (lambda c: {"parameters": other(c.parameters, "conv3", "c", B)}, "/parameters/conv3: expected w, b, got w, b, c"),
    (lambda c: {"parameters": {}}, "/parameters: expected the layers conv1, .*, got none"),
    (lambda c: {"velocity": other(c.velocity, "conv3", "b", B - np.inf)}, "/optimizer/conv3/b: expected finite values"),
    (lambda c: {"buffers": {"conv3": {"mean": B}}}, "/buffers: expected the layers none, got conv3"),
    (lambda c: {"mean_image": c.mean_image.astype(float)}, "/preprocessing/mean_image: expected float32, got float64"),
    (lambda c: {"mean_image": c.mean_image*np.nan}, "/preprocessing/mean_image: expected finite values"),
    (lambda c: {"epoch": -1}, "epoch: expected a whole number"),
    (lambda c: {"state": {"plateau_x": 1}}, "/state: expected only"),
    (lambda c: {"history": {"a/b": [1.0]}}, "/history: expected names"),
    (lambda c: {"layers": c.layers[:-1] + [{"kind": "Unknown"}]}, "layer table: kind: expected one of"),
])
def test_what_would_not_be_read_is_not_written(stored, change, sentence):
    path, made = stored
    before = path.read_bytes()
    with pytest.raises(Expected, match=f"^checkpoint: {sentence}"):
        save(path, replace(made, **change(made)))
    assert path.read_bytes() == before and os.listdir(path.parent) == ["latest.h5"]


def test_a_missing_layer_or_a_wrong_shape_is_found_when_the_network_is_built(stored):
    with h5py.File(stored[0], "r+") as file:
        del file["parameters/conv3"]
    with pytest.raises(Expected, match="the layers conv1, conv2, conv3"):
        from_checkpoint(stored[0])


def test_no_file_is_said():
    with pytest.raises(Expected, match="nowhere/latest.h5"):
        load("nowhere/latest.h5")


@pytest.mark.parametrize("moment", ["write", "flush", "rename"])
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(stored, moment, monkeypatch):
    path, made = stored
    before = path.read_bytes()
    def refuse(*_):
        raise OSError(28, "No space left on device")
    if moment == "write":
        monkeypatch.setattr(module, "write_array", refuse)
    else:
        monkeypatch.setattr(os, {"flush": "fsync", "rename": "replace"}[moment], refuse)
    with pytest.raises(Expected, match="No space left on device.*untouched"):
        save(path, made)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["latest.h5"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
# of none as in the first bytes, early in the arrays as late in them
@pytest.mark.parametrize("room", [pytest.param(0, marks=pytest.mark.exhaustive), 100, 3000, pytest.param(100_000, marks=pytest.mark.exhaustive),
                                  2_900_000])
def test_a_disk_that_fills_up_while_hdf5_writes_is_a_sentence_and_no_crash(stored, room):
    """A process that may write files of `room` bytes meets EFBIG in the middle of the file, where a full disk is ENOSPC."""
    path, _ = stored
    before = path.read_bytes()
    script = f"""if True:
        import resource
        from zfcore.check import Expected
        from zfcore.checkpoint import load, save
        made = load({str(path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
        try:
            save({str(path)!r}, made)
        except Expected as sentence:
            print(sentence)
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and not run.stderr and "make room there" in run.stdout
    assert path.read_bytes() == before and os.listdir(path.parent) == ["latest.h5"]


def test_a_ctrl_c_at_any_write_of_a_file_is_heard_once_it_is_closed_and_leaves_the_old_file_whole(stored):
    """In a process of its own: where HDF5 sees the exception it crashes. Nor is anything else that a write raises lost."""
    path, _ = stored
    script = f"""if True:
        import io, signal
        from pathlib import Path
        from zfcore import checkpoint
        path = Path({str(path)!r})
        made, handler = checkpoint.load(path), signal.getsignal(signal.SIGINT)
        def counting(base, interrupt):
            class Counting(base):
                def write(self, data):
                    global writes
                    writes += 1
                    if writes == k:
                        interrupt()
                    return super().write(data)
            return Counting
        def refuse():
            raise MemoryError
        plain = checkpoint._Output
        for expected in (KeyboardInterrupt, MemoryError):
            if expected is MemoryError:                    # within what looks after refusals
                checkpoint._Output, plain.__bases__ = plain, (counting(io.FileIO, refuse),)
            else:
                checkpoint._Output = counting(plain, lambda: signal.raise_signal(signal.SIGINT))
            before, k, writes = path.read_bytes(), 0, 1
            while k <= writes:
                k, writes, raised = k + 1, 0, None
                try:
                    checkpoint.save(path, made)
                except BaseException as error:
                    raised = type(error)
                assert raised is (expected if k <= writes else None), (k, raised)
                assert raised is None or path.read_bytes() == before, k
            print(k)
        assert signal.getsignal(signal.SIGINT) is handler
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and not run.stderr and min(map(int, run.stdout.split())) > 20
    assert os.listdir(path.parent) == ["latest.h5"] and load(path).step == stored[1].step


def test_a_folder_that_is_not_there_is_said_and_no_file_that_was(stored):
    path, made = stored
    with pytest.raises(Unwritable, match="No such file or directory; there is no such folder$"):
        save(path.parent/"gone"/"latest.h5", made)


def test_an_error_inside_the_block_leaves_nothing_and_is_passed_on(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with atomic(tmp_path/"x") as temporary:
            temporary.write_text("half")
            1/0
    assert os.listdir(tmp_path) == []


def test_two_who_write_one_file_at_once_do_not_mix_and_the_last_wins_whole(tmp_path):
    with atomic(tmp_path/"x") as one:
        one.write_text("on")
        with atomic(tmp_path/"x") as other:
            other.write_text("other")
            with open(one, "a") as file:
                file.write("e")
        assert (tmp_path/"x").read_text() == "other"
        with pytest.raises(ZeroDivisionError), atomic(tmp_path/"x") as third:
            third.write_text("third")
            1/0
    assert (tmp_path/"x").read_text() == "one" and os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
def test_what_a_kill_left_goes_with_the_next_write_and_no_sooner_than_its_writer(tmp_path):
    script = f"""if True:
        import time
        from zfcore.checkpoint import atomic, in_turn
        with in_turn({str(tmp_path/"x")!r}), atomic({str(tmp_path/"x")!r}) as temporary:
            temporary.write_text("half")
            print("there", flush=True)
            time.sleep(600)"""
    def write():
        with atomic(tmp_path/"x") as temporary:
            temporary.write_text("whole")
    others = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)]
    others.append(subprocess.Popen([sys.executable, "-c", script.replace("in_turn(", "atomic(")], cwd=ROOT, stdout=subprocess.PIPE))
    for other in others:
        other.stdout.readline()
    before = set(os.listdir(tmp_path))
    write()
    assert len(before) == 4 and set(os.listdir(tmp_path)) == before | {"x"} and (tmp_path/"x").read_text() == "whole"
    for other in others:
        other.kill()
        other.communicate()
    with in_turn(tmp_path/"x"), atomic(tmp_path/"x"), atomic(tmp_path/"x"):
        write()
    assert os.listdir(tmp_path) == ["x"]


def test_a_disk_that_cannot_even_be_cleaned_is_one_sentence(tmp_path, monkeypatch):
    """As one that is mounted read-only, on which removing what is not there fails too."""
    def unlink(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(Expected, match="writing .*got No such file or directory"), new_hdf5(tmp_path/"no"/"a.h5"):
        pass
