"""Packing: one whole file or none, the same bytes whatever happened on the way, its pictures those of the source."""
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.spoken import in_one
from tests.train.conftest import write_set
from train import pack
from zfcore.data import loader, open_data
from zfcore.data.loader import Pictures
from zfcore.data.packed import open_packed

SIZE = ["--size", "32"]                                    # the fixture's 42 pictures have 41x37 pixels


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(pack, "SHARD", 8)
    monkeypatch.setattr(pack, "PIECE", 3)


def packed(source, output, *options):
    pack.main([str(source), str(output), *SIZE, *options])
    return output


def refused(capsys, *arguments):
    """The sentence that is the answer, without a file and with nothing but it on standard error."""
    with pytest.raises(SystemExit) as exit:
        pack.main([str(argument) for argument in arguments])
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert exit.value.code == 2 and sentence.startswith("error: ") and ": expected " in sentence
    return sentence


# ----------------------------------------------------------------------------------------------------- what comes out
def test_raw_pictures_are_those_that_training_from_the_source_uses_bit_for_bit(pictures, tmp_path):
    output = packed(pictures, tmp_path/"p.h5", "--raw")
    for part, source in zip(open_packed(output), open_data(str(pictures), 32)):
        assert part.names == source.names and part.classes == source.classes
        np.testing.assert_array_equal(part.labels, source.labels)
        ours, theirs = (Pictures(dataset, 32, 28, workers=0) for dataset in (part, source))
        for i in range(len(source)):
            np.testing.assert_array_equal(ours.picture(i), theirs.picture(i))


def test_jpeg_pictures_differ_by_the_quantisation_of_their_quality(pictures, tmp_path):
    for path in pictures.glob("*/*/*.png"):                # colour noise would suffer from colour at half the resolution
        Image.open(path).convert("L").save(path)

    def error(*options):
        train, _ = open_packed(packed(pictures, tmp_path/f"{options[-1]}.h5", *options))
        source = Pictures(open_data(str(pictures), 32)[0], 32, 28, workers=0)
        return np.mean([np.abs(np.asarray(train.picture(i)).astype(int) - source.picture(i)) for i in range(len(train))])

    fine, coarse = error("--quality", "100"), error("--quality", "30")
    assert fine < 1 < 4 < coarse


@pytest.mark.parametrize("options", [["--raw"], []], ids=["raw", "jpeg"])
def test_the_mean_image_is_that_of_the_pixels_as_they_are_read_back(pictures, tmp_path, options):
    train, val = open_packed(packed(pictures, tmp_path/"p.h5", *options))
    pixels = np.stack([np.asarray(train.picture(i)) for i in range(len(train))]).astype(np.float64)
    expected = pixels.mean(axis=0).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(train.mean_image, expected)
    np.testing.assert_array_equal(val.mean_image, expected)
    assert train.mean_image.dtype == np.float32


def test_a_packed_file_explains_itself(pictures, tmp_path):
    with h5py.File(packed(pictures, tmp_path/"p.h5", "--quality", "80")) as file:
        about = {key: value.decode() if isinstance(value, bytes) else value for key, value in file.attrs.items()}
        assert about == {"format": "zfcore pictures", "version": 1, "encoding": "jpeg", "size": 32, "quality": 80,
                         "source": str(pictures)}
        assert set(file) == {"classes", "mean_image", "train", "val"}
        assert set(file["train"]) == set(file["val"]) == {"pictures", "offsets", "checksums", "labels", "names", "left_out"}
        assert file["classes"][:].tolist() == [b"amber", b"jade", b"plum"]
        small = [dataset for part in ("train", "val") for name, dataset in file[part].items() if name != "pictures"
                 and dataset.size]
        assert all(dataset.fletcher32 for dataset in [*small, file["classes"], file["mean_image"]])
        begin, end = file["val/offsets"][:2]
        assert bytes(file["val/pictures"][begin:begin + 2]) == b"\xff\xd8"           # a JPEG file


def test_any_source_can_be_packed_a_packed_file_and_the_synthetic_set_too(pictures, tmp_path, monkeypatch):
    first = packed(pictures, tmp_path/"first.h5", "--raw")
    second = packed(first, tmp_path/"second.h5", "--raw")
    for a, b in zip(open_packed(first), open_packed(second)):
        assert a.names == b.names and all(a.read(i) == b.read(i) for i in range(len(a)))
    pack.main(["drawn:objects", str(tmp_path/"drawn.h5"), "--size", "16", "--limit-per-class", "1"])
    assert [len(part) for part in open_packed(tmp_path/"drawn.h5")] == [10, 10]
    pack.main(["drawn:unseen", str(tmp_path/"unseen.h5"), "--size", "16", "--limit-per-class", "1"])
    assert [len(part) for part in open_packed(tmp_path/"unseen.h5")] == [30, 30]


def test_limit_per_class_packs_the_first_of_each_class(pictures, tmp_path):
    train, val = open_packed(packed(pictures, tmp_path/"p.h5", "--limit-per-class", "3"))
    assert train.labels.tolist() == [0]*3 + [1]*3 + [2]*3 and val.names[0] == "val/amber/00.png"
    assert train.names == open_data(str(pictures), 32, 3)[0].names


def test_the_closing_lines_tell_count_bytes_speed_and_the_next_command(pictures, tmp_path, capsys):
    output = packed(pictures, tmp_path/"p.h5", "--workers", "2")
    text = " ".join(capsys.readouterr().out.split())
    assert f"42 pictures of 32x32, 0 left out as damaged, {output.stat().st_size} bytes" in text
    assert re.search(r"42 of them packed in [\d.]+ s, \d+ pictures/s with 2 threads", text)
    assert f"python -m train --preset zfnet --data {output} --image-size 28" in text


# ------------------------------------------------------------------------------------------------- what is somebody else's
@pytest.mark.parametrize("name", ["notes.txt", "train-1.npz", "folder"])
def test_a_folder_of_parts_that_holds_something_else_is_left_alone(name, pictures, tmp_path, capsys):
    parts = tmp_path/"p.h5.parts"
    (parts/name).mkdir(parents=True) if name == "folder" else (parts.mkdir(), (parts/name).write_text("dear"))
    assert f"a folder of parts and nothing else, got {name!r}" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    (tmp_path/"p.h5").write_text("a file")
    assert "a file that does not exist yet" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    assert [path.name for path in parts.iterdir()] == [name] and (tmp_path/"p.h5").read_text() == "a file"


@pytest.mark.parametrize("options", [["--raw"], ["--quality", "50"], ["--limit-per-class", "2"]])
def test_success_is_not_reported_for_a_file_of_other_options(options, pictures, tmp_path, capsys):
    before = packed(pictures, tmp_path/"p.h5", *options).read_bytes()
    (tmp_path/"p.h5.parts").mkdir()
    assert "a file that does not exist yet" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    assert (tmp_path/"p.h5").read_bytes() == before and (tmp_path/"p.h5.parts").is_dir()


# --------------------------------------------------------------------------------------- the same bytes, come what may
@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Pictures, one of them damaged, that nobody changes."""
    pictures = write_set(tmp_path_factory.mktemp("damaged")/"pictures")
    (pictures/"train/jade/03.png").write_bytes(b"no picture")
    return pictures


@pytest.fixture(scope="module")
def expected(damaged, tmp_path_factory):
    """The bytes of an uninterrupted packing of these, beside which nothing is left."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "SHARD", 8)
        patch.setattr(pack, "PIECE", 3)
        content = packed_with_one_damaged(damaged, folder/"expected.h5").read_bytes()
    assert [path.name for path in folder.iterdir()] == ["expected.h5"]
    return content


def packed_with_one_damaged(pictures, output, *options):
    loader.MOST_DAMAGED = 0.05
    try:
        return packed(pictures, output, *options)
    finally:
        loader.MOST_DAMAGED = 0.01


@pytest.mark.parametrize("workers", ["0", "1", "3"])
def test_the_bytes_do_not_depend_on_the_workers(damaged, expected, tmp_path, workers):
    assert packed_with_one_damaged(damaged, tmp_path/"p.h5", "--workers", workers).read_bytes() == expected


def in_a_process(work):
    """The status of a forked process that does `work()`."""
    pid = os.fork()
    if not pid:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.dup2(2, 1)
            work()
            os._exit(0)
        except SystemExit as error:
            os._exit(error.code or 0)
        except BaseException:
            os._exit(99)
    return pid


def killed_before(step, work):
    """Do `work` with kill -9 before the step-th call that changes what is on the disk."""
    left = [step]

    def deadly(call):
        def counted(*args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args, **kwargs)
        return counted

    os.replace, os.fsync, os.unlink, os.rmdir = map(deadly, (os.replace, os.fsync, os.unlink, os.rmdir))
    os.mkdir, np.savez, pack.create = map(deadly, (os.mkdir, np.savez, pack.create))
    work()


def test_a_packing_killed_again_and_again_goes_on_to_the_same_bytes(damaged, expected, tmp_path):
    """A start of its own takes 4 steps, a shard 4, and what a kill left of a file another."""
    output = tmp_path/"p.h5"
    for step in range(60):
        work = lambda: packed_with_one_damaged(damaged, output)                  # noqa: E731
        status = os.waitpid(in_a_process(lambda: killed_before(5 + step % 7, work)), 0)[1]
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert not output.exists() or output.read_bytes() == expected
    assert step > 6 and os.WEXITSTATUS(status) == 0
    assert output.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.glob("p.h5*")) == ["p.h5"]


# from 28 on the shards are complete
@pytest.mark.parametrize("step", [step if step % 4 == 0 or step > 28 and step % 2 else pytest.param(step, marks=pytest.mark.exhaustive)
                                  for step in range(53)])
def test_a_packing_killed_once_goes_on_to_the_same_bytes(damaged, expected, tmp_path, step):
    output = tmp_path/"p.h5"
    work = lambda: packed_with_one_damaged(damaged, output)                      # noqa: E731
    os.waitpid(in_a_process(lambda: killed_before(step, work)), 0)
    if not output.exists() or Path(f"{output}.parts").exists():
        work()
    assert output.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.glob("p.h5*")) == ["p.h5"]


def test_a_packing_killed_at_random_moments_goes_on_to_the_same_bytes(damaged, expected, tmp_path):
    output, rng = tmp_path/"p.h5", np.random.default_rng(0)
    for _ in range(8):
        pid = in_a_process(lambda: packed_with_one_damaged(damaged, output, "--workers", "2"))
        time.sleep(rng.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not output.exists() or Path(f"{output}.parts").exists():
        packed_with_one_damaged(damaged, output)
    assert output.read_bytes() == expected


def stopped_half_way(pictures, output, monkeypatch, *options, shards=3):
    """Leave OUTPUT.h5.parts with so many shards."""
    def write(packing, shard, *rest, real=pack.Packing._write):
        if len(list(packing.folder.glob("*.npz"))) == shards:
            raise KeyboardInterrupt
        real(packing, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pack.Packing, "_write", write)
        with pytest.raises(SystemExit) as exit:
            packed(pictures, output, *options)
    assert exit.value.code == 130 and not output.exists()


def test_ctrl_c_keeps_what_is_packed_and_tells_how_to_go_on(pictures, tmp_path, monkeypatch, capsys):
    output = tmp_path/"p.h5"
    stopped_half_way(pictures, output, monkeypatch, "--raw")
    assert f"Go on with: python -m train.pack {pictures} {output} --size 32 --raw" in capsys.readouterr().err
    packed(pictures, output, "--raw")
    assert "18 of them packed in" in capsys.readouterr().out                     # 3 shards of 8 were kept


def test_a_part_that_the_disk_has_spoilt_is_packed_again(pictures, tmp_path, monkeypatch):
    whole, output = packed(pictures, tmp_path/"whole.h5"), tmp_path/"p.h5"
    stopped_half_way(pictures, output, monkeypatch)
    shards = sorted(Path(f"{output}.parts").glob("*.npz"))
    shards[0].write_bytes(b"")
    os.truncate(shards[1], 700)
    with np.load(shards[2]) as found:
        one_fewer = {**found, "lengths": found["lengths"][:-1], "checksums": found["checksums"][:-1]}
    np.savez(shards[2], **one_fewer)
    assert packed(pictures, output).read_bytes() == whole.read_bytes()


def test_upscale_may_be_added_when_it_turns_out_to_be_needed(pictures, tmp_path, capsys):
    small = Image.new("RGB", (20, 90))
    small.save(pictures/"train/plum/09.png")
    output = tmp_path/"p.h5"
    sentence = refused(capsys, pictures, output, *SIZE)
    assert "train/plum/09.png: expected a shorter side of at least 28 pixels" in sentence and "--upscale" in sentence
    train, _ = open_packed(packed(pictures, output, "--upscale"))
    assert len(train) == 30
    assert "12 of them packed" not in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize("options, word", [(["--raw"], "encoding"), (["--quality", "94"], "quality"),
                                           (["--size", "31"], "size"), (["--limit-per-class", "2"], "state of the pictures")])
def test_parts_of_other_options_are_refused(pictures, tmp_path, monkeypatch, capsys, options, word):
    output = tmp_path/"p.h5"
    stopped_half_way(pictures, output, monkeypatch)
    before = {path.name: path.read_bytes() for path in Path(f"{output}.parts").iterdir()}
    assert f"expected parts of the same work, got parts with another {word}" in refused(capsys, pictures, output, *SIZE,
                                                                                        *options)
    assert {path.name: path.read_bytes() for path in Path(f"{output}.parts").iterdir()} == before


def test_parts_of_another_source_or_of_a_source_that_has_changed_are_refused(pictures, tmp_path, monkeypatch, capsys):
    output = tmp_path/"p.h5"
    stopped_half_way(pictures, output, monkeypatch)
    pictures.rename(tmp_path/"moved")
    assert "parts with another source" in refused(capsys, tmp_path/"moved", output, *SIZE)
    (tmp_path/"moved").rename(pictures)
    Image.new("RGB", (41, 37)).save(pictures/"val/plum/02.png")
    assert "parts with another state of the pictures" in refused(capsys, pictures, output, *SIZE)


def test_enlarged_pictures_are_not_mixed_into_a_packing_without_them(pictures, tmp_path, monkeypatch, capsys):
    stopped_half_way(pictures, tmp_path/"p.h5", monkeypatch, "--upscale")
    assert "parts with another upscale" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)


def test_an_existing_output_is_not_overwritten(pictures, tmp_path, capsys):
    (tmp_path/"p.h5").write_text("precious")
    assert "p.h5: expected a file that does not exist yet" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    assert (tmp_path/"p.h5").read_text() == "precious"
    assert not (tmp_path/"p.h5.parts").exists()


def test_two_packings_of_one_output_are_refused_and_a_kill_leaves_no_lock(pictures, tmp_path, capsys):
    output = tmp_path/"p.h5"
    ready, go = os.pipe()

    def first():
        real = pack.Packing._pack
        pack.Packing._pack = lambda packing, *rest: (os.write(go, b"!"), time.sleep(60), real(packing, *rest))
        packed(pictures, output)

    pid = in_a_process(first)
    os.read(ready, 1)
    assert "p.h5.parts: expected nobody else at work in it" in refused(capsys, pictures, output, *SIZE)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    packed(pictures, output)


@pytest.mark.parametrize("arguments, sentence", [
    (["{set}", "{out}.tar"], "OUTPUT: expected a name that ends in .h5 or .hdf5"),
    (["{set}", "{out}/nowhere/p.h5"], "OUTPUT: expected a name in a folder that exists, got"),
    (["{set}/nowhere", "{out}.h5"], "SOURCE: expected a folder or a tar, got"),
    (["{set}", "{out}.h5", "--quality", "101"], "--quality: expected 1 to 100, got 101"),
    (["{set}", "{out}.h5", "--size", "0"], "--size: expected 8 to 4096, got 0"),
    (["{set}", "{out}.h5", "--workers", "-1"], "--workers: expected 0"),
    (["{set}", "{out}.h5", "--limit-per-class", "-1"], "--limit-per-class: expected 0 or more, got -1"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_bad_arguments_are_answered_with_one_sentence(pictures, tmp_path, capsys, arguments, sentence):
    arguments = [argument.format(set=pictures, out=tmp_path/"p") for argument in arguments]
    assert sentence in refused(capsys, *arguments)
    assert not list(tmp_path.glob("p.*"))


def test_a_folder_that_may_not_be_written_is_one_sentence(pictures, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")     # the superuser, who may run this, is never refused

    monkeypatch.setattr(Path, "mkdir", refuse)
    sentence = refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    assert "p.h5.parts: expected a disk with room that may be written, got Permission denied" in sentence


def test_damaged_pictures_are_named_counted_left_out_and_recorded(pictures, tmp_path, capsys):
    for name in ("train/jade/03.png", "val/plum/01.png"):
        (pictures/name).write_bytes(b"no picture")
    output = tmp_path/"p.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "MOST_DAMAGED", 0.1)
        packed(pictures, output)
    out, err = capsys.readouterr()
    assert err.count("picture left out: ") == 2 and "train/jade/03.png: not a picture in a known format" in err
    assert "40 pictures of 32x32, 2 left out" in " ".join(out.split())
    train, val = open_packed(output)
    assert "train/jade/03.png" not in train.names and np.bincount(train.labels).tolist() == [10, 9, 10]
    assert np.bincount(val.labels).tolist() == [4, 4, 3]
    with h5py.File(output) as file:
        assert file["train/left_out"][:].tolist() == [b"train/jade/03.png: not a picture in a known format"]


def test_more_than_one_per_cent_and_a_few_damaged_is_an_error(pictures, tmp_path, capsys):
    for k in range(3, 7):
        (pictures/f"train/jade/{k:02}.png").write_bytes(b"no picture")
    sentence = refused(capsys, pictures, tmp_path/"p.h5", *SIZE)
    assert "at most 3 damaged pictures, a tenth or 1, got 4 of 30 in train, the first being train/jade/03.png" in sentence
    assert not (tmp_path/"p.h5").exists()
    assert "at most 3 damaged" in refused(capsys, pictures, tmp_path/"p.h5", *SIZE)    # those of an earlier start count too


def test_a_picture_that_could_not_be_read_is_tried_again_at_the_next_start(pictures, tmp_path, monkeypatch, capsys):
    path, output = pictures/"train/amber/01.png", tmp_path/"p.h5"
    before, status = path.read_bytes(), path.stat()
    whole = packed(pictures, tmp_path/"whole.h5")
    real = pack.Packing._pack

    def vanish(packing, todo, bar):                        # after the list was made
        path.unlink()
        real(packing, todo, bar)

    with monkeypatch.context() as patch:
        patch.setattr(pack.Packing, "_pack", vanish)
        patch.setattr(loader, "FEW_DAMAGED", 0)
        assert "train/amber/01.png (No such file or directory)" in refused(capsys, pictures, output, *SIZE)
    path.write_bytes(before)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with monkeypatch.context():
        assert open_packed(packed(pictures, output))[0].names == open_packed(whole)[0].names
    with h5py.File(output) as a, h5py.File(whole) as b:
        assert a["train/pictures"][:].tobytes() == b["train/pictures"][:].tobytes()


@pytest.mark.parametrize("most", [1000, 6000, 40000])
def test_a_full_disk_is_one_sentence_and_progress_is_kept(pictures, tmp_path, most):
    """The limit on a file's size stands for a disk that is full: for the parts, for the file's frame, for the whole file."""
    told, end = os.pipe()

    def limited():
        sys.stderr = os.fdopen(end, "w", buffering=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        packed(pictures, tmp_path/"p.h5")

    pid = in_a_process(limited)
    os.close(end)
    with os.fdopen(told) as told:
        said = in_one(told.read())
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 2, said
    assert said.count("error:") == 1 and "expected a disk with room that may be written, got " in said and "File too large; what is packed is kept" in said
    assert not (tmp_path/"p.h5").exists()
    packed(pictures, tmp_path/"p.h5")
    assert (tmp_path/"p.h5").read_bytes() == packed(pictures, tmp_path/"q.h5").read_bytes()
