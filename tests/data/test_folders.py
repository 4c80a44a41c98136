"""Class folders, and tars of them."""
import io
import os
import subprocess
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.real_data import REAL_DATA, needs
from zfcore.check import Expected
from zfcore.data import open_data
from zfcore.data.folders import open_folders
from zfcore.data.transforms import CorruptImage

TREE = {"train/owl/b.png": 1, "train/owl/a.JPEG": 2, "train/cat/10.bmp": 3, "train/cat/9.PNG": 4, "train/cat/deep/er.gif": 5,
        "val/owl/a.png": 6, "val/cat/z.webp": 7, "val/cat/y.ppm": 8}
OTHER = ["train/owl/.hidden.png", "train/.git/x.png", "train/cat/._9.PNG", "train/cat/notes.txt", "train/sheet.png",
         "val/owl/Thumbs.db", "train/cat/.thumbnails/9.png"]


def picture_bytes(seed, suffix):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, Image.registered_extensions()[suffix.lower()])
    return file.getvalue()


def write_tree(root, tree=TREE, other=OTHER):
    for name, seed in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture_bytes(seed, Path(name).suffix))
    for name in other:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no picture")
    return root


def tar(path, folder, arcname, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        file.add(folder, arcname)
    return path


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "set")


# -------------------------------------------------------------------------------------------------- what is there
def test_classes_are_the_sorted_folder_names_and_labels_count_them(root):
    train, val = open_folders(root)
    assert train.classes == val.classes == ["cat", "owl"]
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and val.labels.tolist() == [0, 0, 1]
    assert len(train) == 5 and len(val) == 3


def test_pictures_are_sorted_and_hidden_and_other_files_are_passed_over(root):
    train, val = open_folders(str(root))
    assert train.names == ["train/cat/10.bmp", "train/cat/9.PNG", "train/cat/deep/er.gif",
                           "train/owl/a.JPEG", "train/owl/b.png"]
    assert val.names == ["val/cat/y.ppm", "val/cat/z.webp", "val/owl/a.png"]


def test_the_order_is_that_of_the_names_and_not_of_the_disk(root, tmp_path):
    numbers = np.random.default_rng(0).permutation(40)
    write_tree(root, {f"train/elk/{k:02}.png": int(k) for k in numbers}, [])
    for place in (root, one_tar(root, tmp_path / "packed")):
        names = open_folders(place)[0].names
        assert names == sorted(names) and len(names) == 45


def test_a_picture_is_that_of_its_name(root):
    for part in open_folders(root):
        for i, name in enumerate(part.names):
            data = picture_bytes(TREE[name], Path(name).suffix)
            assert part.read(i) == data
            picture = part.picture(i)
            assert picture.mode == "RGB"
            assert np.array_equal(picture, Image.open(io.BytesIO(data)).convert("RGB"))


def test_limit_per_class_takes_the_first_of_each_class(root):
    train, val = open_folders(root, limit_per_class=2)
    assert train.names == ["train/cat/10.bmp", "train/cat/9.PNG", "train/owl/a.JPEG", "train/owl/b.png"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert open_folders(root, limit_per_class=1)[1].labels.tolist() == [0, 1]
    assert open_folders(root, limit_per_class=99)[0].names == open_folders(root)[0].names


def test_classes_txt_gives_readable_names_without_changing_labels(root):
    (root / "classes.txt").write_text("owl a night bird\nzebra not here\n\ncat\n")
    train, val = open_folders(root)
    assert train.classes == val.classes == ["cat", "a night bird"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1]


def test_two_classes_of_one_name_can_be_told_apart(root):
    (root / "classes.txt").write_text("owl crane\ncat crane\n")
    assert open_folders(root)[0].classes == ["crane (cat)", "crane (owl)"]


def test_a_class_of_train_may_be_missing_in_val(root):
    write_tree(root, {"train/ant/1.png": 9}, [])
    train, val = open_folders(root)
    assert train.classes == val.classes == ["ant", "cat", "owl"]
    assert val.labels.tolist() == [1, 1, 2]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_to_class_folders_and_pictures_are_followed(root, tmp_path):
    elsewhere = write_tree(tmp_path / "elsewhere", {"bat/1.png": 9}, [])
    (root / "train/bat").symlink_to(elsewhere / "bat")
    (root / "train/owl/c.png").symlink_to(elsewhere / "bat/1.png")
    assert {"train/bat/1.png", "train/owl/c.png"} < set(open_folders(root)[0].names)


def test_a_large_jpeg_comes_reduced_when_the_side_it_is_for_is_given(root):
    Image.new("RGB", (640, 480)).save(root / "train/cat/0.jpg")
    assert open_folders(root)[0].picture(0).size == (640, 480)
    assert open_folders(root, shorter_side=50)[0].picture(0).size == (160, 120)


# ----------------------------------------------------------------------------------------------------------- tars
def two_tars(root, at):
    for part in ("train", "val"):
        tar(at / f"{part}.tar", root / part, "")
    return at


def two_tars_wrapped(root, at):
    for part in ("train", "val"):
        tar(at / f"{part}.tar", root / part, part)
    return at


def one_tar(root, at):
    return tar(at / "any name.tar", root, "", format=tarfile.GNU_FORMAT)


def one_tar_in_a_folder(root, at):
    one_tar(root, at)
    (at / "readme.txt").write_text("beside it")
    return at


def one_tar_with_a_folder_around(root, at):
    return tar(at / "x.tar", root, "imagenette2", format=tarfile.PAX_FORMAT)


def one_tar_by_the_command(root, at):
    at.mkdir()
    subprocess.run(["tar", "-C", str(root), "-cf", str(at / "y.tar"), "."], check=True)       # members ./train/...
    return at / "y.tar"


def folder_and_tar(root, at):
    tar(at / "val.tar", root / "val", "")
    (at / "train").symlink_to(root / "train")
    return at


@pytest.mark.parametrize("pack", [two_tars, two_tars_wrapped, one_tar, one_tar_in_a_folder, one_tar_with_a_folder_around,
                                  one_tar_by_the_command, folder_and_tar], ids=lambda pack: pack.__name__)
def test_tars_give_what_the_folders_give_bit_for_bit(root, tmp_path, pack):
    long_name = "n"*80 + "/" + "m"*130 + ".png"
    write_tree(root, {f"train/{long_name}": 9, "train/gr\u00fcn/\u4e00.png": 10}, [])
    for expected, found in zip(open_folders(root), open_folders(pack(root, tmp_path / "packed"))):
        assert found.names == expected.names and found.classes == expected.classes
        assert np.array_equal(found.labels, expected.labels)
        for i in range(len(expected)):
            assert found.read(i) == expected.read(i)
            assert found.picture(i).tobytes() == expected.picture(i).tobytes()


def test_classes_txt_beside_a_tar_is_read(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    (path.parent / "classes.txt").write_text("owl a night bird\n")
    assert open_folders(path)[0].classes == open_folders(path.parent)[0].classes == ["cat", "a night bird"]


def test_a_later_member_replaces_an_earlier_one_and_hard_links_are_pictures(root, tmp_path):
    path = tar(tmp_path / "both.tar", root, "")
    (root / "train/owl/b.png").write_bytes(picture_bytes(77, ".png"))
    with tarfile.open(path, "a") as file:
        file.add(root / "train/owl/b.png", "train/owl/b.png")
        link = tarfile.TarInfo("train/owl/c.png")
        link.type, link.linkname = tarfile.LNKTYPE, "train/owl/b.png"
        file.addfile(link)
    train, _ = open_folders(path)
    assert train.names[-2:] == ["train/owl/b.png", "train/owl/c.png"]
    assert train.read(len(train) - 2) == train.read(len(train) - 1) == picture_bytes(77, ".png")


def test_a_class_may_be_called_train(root, tmp_path):
    (root / "train/owl").rename(root / "train/train")
    (root / "val/owl").rename(root / "val/train")
    assert open_folders(two_tars(root, tmp_path / "packed"))[0].classes == ["cat", "train"]
    assert open_folders(one_tar(root, tmp_path / "one"))[0].names == open_folders(root)[0].names


def test_many_threads_read_one_tar_at_once(root, tmp_path):
    train, _ = open_folders(one_tar(root, tmp_path / "packed"))
    expected = [train.read(i) for i in range(len(train))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(train.read, list(range(len(train)))*200))
    assert found == expected*200


def test_a_tar_is_closed_with_its_last_part(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    train, val = open_folders(path)
    descriptor = train._source._file.descriptor
    os.fstat(descriptor)
    del train
    val.read(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del val
    with pytest.raises(OSError):
        os.fstat(descriptor)


# ------------------------------------------------------------------------------------------------ what goes wrong
def test_a_vanished_file_is_damaged_and_may_be_back(root):
    train, _ = open_folders(root)
    (root / train.names[2]).unlink()
    with pytest.raises(CorruptImage, match="train/cat/deep/er.gif: No such file") as caught:
        train.picture(2)
    assert not caught.value.lasting


def test_a_tar_cut_short_after_it_was_opened_gives_damaged(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    train, _ = open_folders(path)
    os.truncate(path, 512)
    with pytest.raises(CorruptImage, match="the tar ends inside it"):
        train.picture(0)


def test_a_file_that_is_no_picture_is_named(root):
    (root / "train/owl/b.png").write_bytes(b"<html>")
    with pytest.raises(CorruptImage, match="^train/owl/b.png: "):
        open_folders(root)[0].picture(4)


def missing(root):
    return root / "nowhere", "nowhere, which does not exist"


def empty(root):
    (root / "nothing").mkdir()
    return root / "nothing", "got an empty folder"


def no_train(root):
    (root / "train").rename(root.parent / "elsewhere")
    return root, "expected a folder or tar train beside it, or class folders, got only 'val'"


def one_class_without_parts(root):
    (root / "train/owl").rename(root.parent / "owl")
    return root / "train", "train: expected at least two classes, got only 'cat'"


def one_class(root):
    (root / "train/owl").rename(root.parent / "owl")
    (root / "val/owl").rename(root.parent / "owl2")
    return root, "train: expected at least two classes, got only 'cat'"


def strange_class_in_val(root):
    write_tree(root, {"val/zebra/1.png": 1, "val/ant/1.png": 1}, [])
    return root, "val: expected only classes that train has, got 'ant', 'zebra'"


def class_without_pictures(root):
    write_tree(root, {}, ["train/bee/notes.txt", "train/elk/.hidden.png"])
    return root, "train: expected pictures in every class folder, got none in 'bee', 'elk'"


def class_without_pictures_in_val(root):
    (root / "val/emu").mkdir()
    return root, "val: expected pictures in every class folder, got none in 'emu'"


def flat_val(root):
    for k, path in enumerate(sorted((root / "val").glob("*/*.*"))):
        path.rename(root / f"val/{k}{path.suffix}")
    for folder in ("cat", "owl"):
        for path in (root / "val" / folder).iterdir():
            path.unlink()
        (root / "val" / folder).rmdir()
    return root, "val: expected class folders .* got pictures without a class folder: '0.ppm'"


def empty_train(root):
    (root / "train").rename(root.parent / "elsewhere")
    (root / "train").mkdir()
    return root, "train: expected class folders with pictures in them, got nothing"


def not_a_tar(root):
    path = root / "set.tar"
    path.write_bytes(b"I am no tar. "*99)
    return path, "expected an uncompressed tar, got a file that is none"


def empty_file(root):
    path = root / "set.tar"
    path.touch()
    return path, "expected an uncompressed tar, got a file that is none"


def compressed_tar(root):
    path = root.parent / "set.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(root, "")
    return path, "expected an uncompressed tar.*decompress"


def tar_of_no_pictures(root):
    path = tar(root.parent / "t.tar", root / "val/owl/Thumbs.db", "train/owl/Thumbs.db")
    return path, "expected class folders with pictures in them, .* got nothing"


def empty_class_in_a_tar(root):
    (root / "train/emu").mkdir()
    return tar(root.parent / "t.tar", root, ""), "train: expected pictures in every class folder, got none in 'emu'"


def empty_train_tar(root):
    at = two_tars(root, root.parent / "packed")
    with tarfile.open(at / "train.tar", "w"):
        pass
    return at, "train.tar: expected an uncompressed tar|train: expected class folders"


def two_tars_of_unknown_names(root):
    at = root.parent / "packed"
    tar(at / "a.tar", root, "")
    tar(at / "b.tar", root, "")
    return at, "expected class folders with pictures in them, .* got 'a.tar', 'b.tar'"


@pytest.mark.parametrize("spoil", [missing, empty, no_train, one_class_without_parts, one_class, strange_class_in_val,
                                   class_without_pictures, class_without_pictures_in_val, flat_val, empty_train, not_a_tar,
                                   empty_file, compressed_tar, tar_of_no_pictures, empty_class_in_a_tar,
                                   empty_train_tar, two_tars_of_unknown_names], ids=lambda spoil: spoil.__name__)
def test_bad_input_is_answered_with_one_sentence(root, spoil):
    path, sentence = spoil(root)
    with pytest.raises(Expected, match=sentence) as caught:
        open_folders(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(root):
    (root / "train/owl").chmod(0)
    try:
        with pytest.raises(Expected, match="expected a folder or tar that can be read, got Permission denied"):
            open_folders(root)
    finally:
        (root / "train/owl").chmod(0o755)


def test_a_tar_cut_short_is_refused_wherever_it_is_cut(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) + 511 & ~511             # the first block of the end mark
    for length in [*range(1, end, 256), end, end + 511]:
        path.write_bytes(data[:length])
        with pytest.raises(Expected, match="expected (an uncompressed|a whole) tar"):
            open_folders(path)
    path.write_bytes(data[:end + 512])
    assert len(open_folders(path)[0]) == 5


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    with tarfile.open(path) as file:
        header = file.getmembers()[len(file.getmembers())//2].offset
    data = bytearray(path.read_bytes())
    data[header + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(Expected, match=f"damaged at byte {header}"):
        open_folders(path)


@pytest.mark.parametrize("way", ["header", "list 0.0", "list 0.1", "list 1.0"])
def test_a_tar_that_leaves_the_zeros_of_files_out_is_refused(root, tmp_path, way):
    """What it holds of a picture, read as it stands, would be another picture. GNU tar has had four ways of it."""
    path, data = one_tar(root, tmp_path / "packed"), (root / "train/owl/b.png").read_bytes()
    size = str(len(data))
    lists = {"list 0.0": {"GNU.sparse.size": size, "GNU.sparse.numblocks": "1", "GNU.sparse.offset": "0", "GNU.sparse.numbytes": size},
             "list 0.1": {"GNU.sparse.size": size, "GNU.sparse.numblocks": "1", "GNU.sparse.map": f"0,{size}"},
             "list 1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": size}}
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("train/owl/holes.png")
        member.pax_headers = lists.get(way, {})
        if way == "header":
            member.type = tarfile.GNUTYPE_SPARSE
        content = f"1\n0\n{size}\n".encode().ljust(512, b"\0") + data if way == "list 1.0" else data
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    with pytest.raises(Expected, match=f"^{path}: expected a tar that holds whole files, got 'train/owl/holes.png' without its zeros; "):
        open_folders(path)


@pytest.mark.parametrize("word, odd", [
    *(("size", odd) for odd in (-5, 0, "37", 37., None)), *(("limit_per_class", odd) for odd in (-1, "3", 1.5, None)),
    *(("val_fraction", odd) for odd in (0, 1, -0.1, "0.1", float("nan"), [0.1]))])
def test_a_number_that_is_none_is_refused_whatever_the_set(root, tmp_path, word, odd):
    for data in (root, tmp_path/"packed.h5", "", "drawn:unseen"):
        with pytest.raises(Expected, match=f"^{word}: expected a"):
            open_data(data, **{"size": 37, word: odd})


def test_small_numbers_of_numpy_are_the_numbers_that_they_are(root):
    for data in (root, "drawn:objects"):
        plain, dressed = open_data(data, 100, 30), open_data(data, np.int8(100), np.uint8(30))
        assert [part.names for part in dressed] == [part.names for part in plain]


# ---------------------------------------------------------------------------------------------------- fingerprint
def test_fingerprint_stays_while_nothing_changes(root, tmp_path):
    packed = one_tar(root, tmp_path / "packed")
    for place in (root, packed):
        assert open_folders(place)[0].fingerprint() == open_folders(place)[0].fingerprint()
        assert open_folders(place)[0].fingerprint() != open_folders(place)[1].fingerprint()


def change_time(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))


def test_fingerprint_changes_with_a_name_a_size_a_time_a_limit_and_a_side(root):
    def fingerprint(**options):
        return open_folders(root, **options)[0].fingerprint()

    seen = [fingerprint(), fingerprint(limit_per_class=1), fingerprint(shorter_side=20)]
    change_time(root / "train/owl/b.png")
    seen.append(fingerprint())
    (root / "train/owl/b.png").rename(root / "train/owl/c.png")
    seen.append(fingerprint())
    status = (root / "train/owl/c.png").stat()
    with open(root / "train/owl/c.png", "ab") as file:
        file.write(b"!")
    os.utime(root / "train/owl/c.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.append(fingerprint())
    (root / "train/owl/c.png").unlink()
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_fingerprint_of_a_tar_changes_with_the_tar(root, tmp_path):
    path = one_tar(root, tmp_path / "packed")
    before = open_folders(path)[0].fingerprint()
    change_time(path)
    assert open_folders(path)[0].fingerprint() != before


# ---------------------------------------------------------------------------------------------------- real pictures
@needs("imagenette160")
def test_imagenette_in_one_tar_has_ten_named_classes():
    train, val = open_folders(REAL_DATA/"imagenette160")
    assert train.classes[:2] == ["tench", "English springer"] and len(train.classes) == 10
    assert np.bincount(train.labels).tolist() == [650]*10 and np.bincount(val.labels).tolist() == [150]*10
    assert train.picture(4321).size == val.picture(1234).size == (160, 160)


@needs("cifar10_small")
def test_cifar_in_two_tars_has_ten_classes():
    train, val = open_folders(REAL_DATA/"cifar10_small", limit_per_class=7)
    assert train.classes[3] == "cat" and len(train) == len(val) == 70
    assert train.picture(69).size == (32, 32)


def test_opening_data_needs_no_plotting_and_no_gpu_library():
    code = "import sys, zfcore.data.folders, zfcore.data.loader; print({'cupy', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).resolve().parents[2])
    assert found.stdout.strip() == "set()"
