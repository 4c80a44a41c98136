"""People's own folders: split by name and likeness, whatever the parts are called, and what is left out is said."""
import io
import os
import struct
import tarfile
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.train.conftest import write_set
from zfcore.check import Expected
from zfcore.data import open_data, same_place, split, transforms
from zfcore.data.folders import Files, open_folders, read_names
from zfcore.data.loader import Pictures
from zfcore.data.transforms import CorruptImage, decode
from zfcore.terminal import at_work


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))


def write(root, *names, seed=0, side=12):
    """Pictures of noise, no two alike, at these paths."""
    rng = np.random.default_rng(seed)
    for name in names:
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(root/name, "PNG")
    return root


def by_path(part):
    """The pictures' paths without the part before them."""
    return {part.below(i) for i in range(len(part))}


def kind(root, *classes, count=30):
    return write(root, *(f"{name}/{k:03}.png" for name in classes for k in range(count)))


# -------------------------------------------------------------------------------------------------------------- the split
def test_a_picture_stays_in_its_part_whatever_is_added_taken_away_or_moved(tmp_path):
    root = kind(tmp_path/"photos", "cat", "owl", "elk", count=40)
    train, val = map(by_path, open_folders(root))
    assert len(train) + len(val) == 120 and not train & val and 4 <= len(val) <= 24
    write(root, *(f"cat/new{k}.png" for k in range(25)), *(f"ant/{k}.png" for k in range(9)), seed=1)
    (root/"owl/007.png").unlink()
    more_train, more_val = map(by_path, open_folders(root))
    assert train - {"owl/007.png"} <= more_train and val - {"owl/007.png"} <= more_val
    root.rename(tmp_path/"moved")
    assert [*map(by_path, open_folders(tmp_path/"moved"))] == [more_train, more_val]


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999])
def test_each_class_has_a_picture_in_both_parts(tmp_path, count, fraction):
    train, val = open_folders(kind(tmp_path/"photos", *"abcde", count=count), val_fraction=fraction)
    assert set(train.labels.tolist()) == set(val.labels.tolist()) == set(range(5))
    assert len(train) + len(val) == 5*count


def test_near_duplicates_lie_on_one_side_and_thumbnails_are_made_once(tmp_path, monkeypatch, capsys):
    root = kind(tmp_path/"photos", "cat", "owl", count=30)
    for k in range(30):
        picture = Image.open(root/f"cat/{k:03}.png").resize((120, 96), Image.Resampling.BICUBIC)
        picture.save(root/f"cat/{k:03}.png")
        picture.resize((60, 48), Image.Resampling.BICUBIC).save(root/f"cat/{k:03} copy.jpg", quality=90)
        Image.fromarray((np.asarray(picture)*0.8).astype(np.uint8)).save(root/f"cat/shot{k}_2.png")
    parts = open_folders(root, val_fraction=0.3)
    for part in map(by_path, parts):
        assert all((f"cat/{k:03}.png" in part) == (f"cat/{k:03} copy.jpg" in part) == (f"cat/shot{k}_2.png" in part)
                   for k in range(30))
    assert "60 near-duplicates kept with the like" in capsys.readouterr().err
    made = []
    monkeypatch.setattr(split, "thumbnail", lambda dataset, i, make=split.thumbnail: made.append(i) or make(dataset, i))
    assert [part.names for part in open_folders(root, val_fraction=0.3)] == [part.names for part in parts] and not made
    write(root, "owl/new.png", seed=2)
    open_folders(root)
    assert len(made) == 1
    next((tmp_path/"cache").glob("thumbnails-*")).write_bytes(b"damaged")
    open_folders(root)
    assert len(made) == 1 + 121


def test_a_class_of_one_picture_is_learned_and_a_class_of_one_shot_is_divided(tmp_path):
    root = write(kind(tmp_path/"photos", "cat", count=5), "one/0.png")
    for k in range(4):
        write(root, f"shot/{k}.png", seed=9)
    train, val = map(by_path, open_folders(root))
    assert "one/0.png" in train and len([name for name in val if name.startswith("shot/")]) == 1


@pytest.mark.parametrize("below, lacks", [("", "parts train and val"), ("train", "part val")])
def test_what_is_lacking_where_pictures_are_split_is_said(tmp_path, below, lacks, capsys):
    kind(tmp_path/"photos"/below, "a", "b", count=4)
    open_folders(tmp_path/"photos")
    assert f"photos: no {lacks}, so for validation" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(40))
def test_what_is_added_to_a_class_moves_nothing_but_what_had_to_change_over(seed):
    """Pictures of three classes, few of each, some in groups: then others are added, which are like none that was there."""
    rng = np.random.default_rng(seed)
    fraction, before, added = float(rng.uniform(0.05, 0.5)), int(rng.integers(3, 25)), int(rng.integers(1, 25))
    places, labels = rng.random(before + added), rng.integers(0, 3, before + added)
    leaders = np.arange(before + added)
    for k in rng.integers(0, before, 4):
        leaders[k] = min([j for j in range(before) if labels[j] == labels[k] and leaders[j] == j], default=k)
    leaders = leaders[leaders]
    natural = places[leaders] < fraction
    for n in (before, before + added):
        found = split.sides(places[:n], labels[:n], leaders[:n], fraction)
        for label in range(3):
            of_class = np.flatnonzero(labels[:n] == label)
            apart = of_class[found[of_class] != natural[of_class]]
            assert len(set(found[of_class].tolist())) == min(len(of_class), 2)
            assert len(of_class) != 1 or not found[of_class[0]]
            assert len(apart) == 0 or len(set(natural[of_class].tolist())) == 1 and len(set(leaders[apart].tolist())) == 1


# -------------------------------------------------------------------------------------------------------- what is understood
@pytest.mark.parametrize("layout", ["{of}", "{part}/{of}", "archive/{of}", "archive/{part}/{of}", "{other}/{of}",
                                    "archive/{other}/{of}", "{of}/deep/er"])
@pytest.mark.parametrize("fraction", [0.3, None])
def test_a_picture_is_called_by_the_path_at_which_a_person_finds_it(tmp_path, layout, fraction):
    other = {"train": "Training", "val": "Test"}
    files = {layout.format(part=part, other=other[part], of=of) + f"/{part} {k}.png" for part in other
             for of in ("cat", "an owl") for k in range(3)}
    parts = open_data(str(write(tmp_path/"set", *files)), 16, val_fraction=fraction)
    assert {name for part in parts for name in part.names} == files == {name for part in parts for name in set(part.names)}
    assert {part.below(i).split("/")[0] for part in parts for i in range(len(part))} == {"cat", "an owl"}
    (tmp_path/"set"/parts[1].names[0]).write_bytes(b"no picture")
    with pytest.raises(CorruptImage, match=f"^{parts[1].names[0]}: "):
        parts[1].picture(0)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "test"])
@pytest.mark.parametrize("deeper", ["", "archive/"])
def test_parts_are_understood_by_their_names_one_folder_deeper_too(tmp_path, train, val, deeper, capsys):
    write(tmp_path/"set", *(f"{deeper}{part}/{name}/{k}.png" for part in (train, val) for name in ("a", "b") for k in range(2)))
    parts = open_folders(tmp_path/"set")
    assert [by_path(part) for part in parts] == [{"a/0.png", "a/1.png", "b/0.png", "b/1.png"}]*2
    said = capsys.readouterr().err
    assert said.count("\n") == (0 if (train, val, deeper) == ("train", "val", "") else 1)
    assert (f"'{deeper}{train}' is taken for train" in said) == (deeper + train != "train")


def test_of_a_set_without_parts_or_with_one_all_is_there_where_nothing_is_split(tmp_path):
    write(tmp_path/"own", "a/1.png", "b/2.png", "b/3.png")
    write(tmp_path/"one", "test/a/1.png", "test/b/2.png")
    write(tmp_path/"flat", "1.png", "2.png")
    for name, count, classes in (("own", 3, 2), ("one", 2, 2), ("flat", 2, 0)):
        train, val = open_data(str(tmp_path/name), 16, val_fraction=None)
        assert (len(train), len(val), len(val.classes)) == (0, count, classes)
        assert val.picture(0).size == (15, 12) and len(val.labels) == count
    with pytest.raises(Expected, match="pictures without a class folder"):
        open_folders(tmp_path/"flat")
    assert same_place(str(tmp_path/"own"), f"{tmp_path}/one/../own/") and not same_place("", str(tmp_path)) and same_place("", "drawn:objects")


# ------------------------------------------------------------------------------------------------------- what is left out
def test_what_is_left_out_is_said_by_suffix_and_number_and_what_systems_make_is_not_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zfcore.data.folders.HAS_HEIF", False)
    root = kind(tmp_path/"photos", "cat", "owl", count=3)
    for name in (*(f"cat/{k}.heix" for k in range(7)), *(f"owl/{k}.txt" for k in range(2)), "owl/README", ".DS_Store",
                 "cat/._001.png",
                 "cat/Thumbs.db", "owl/desktop.ini", ".ipynb_checkpoints/000.png", "cat/.ipynb_checkpoints/000-checkpoint.png",
                 "@eaDir/001.png/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/001.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/001.png",
                 "$RECYCLE.BIN/x.png", "System Volume Information/y.png"):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(b"no picture")
    parts = open_folders(root)
    assert sum(map(len, parts)) == 6 and parts[0].classes == ["cat", "owl"]
    assert "left out 7 .heix, 2 .txt, 1 without suffix\n" in capsys.readouterr().err
    (root/"owl/a.heic").touch()
    open_folders(root)
    assert '1 .heic; pip install pillow-heif reads HEIC pictures' in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_folders_are_followed_once_and_loops_are_noticed(tmp_path, capsys):
    root, elsewhere = kind(tmp_path/"photos", "cat", "owl", count=2), write(tmp_path/"elsewhere", "1.png", "deep/2.png", seed=3)
    (root/"cat/more").symlink_to(elsewhere)
    (root/"cat/loop").symlink_to(root/"cat")
    (elsewhere/"deep/back").symlink_to(elsewhere)
    found = set().union(*map(by_path, open_folders(root)))
    assert found == {"cat/000.png", "cat/001.png", "owl/000.png", "owl/001.png", "cat/more/1.png", "cat/more/deep/2.png"}
    said = capsys.readouterr().err
    assert "1 linked folder followed: 'cat/more -> " in said and "2 links to folders looked into before passed over" in said


def test_class_folders_equal_but_for_their_unicode_form_are_one_and_that_is_said(tmp_path, capsys):
    forms = [unicodedata.normalize(form, "gr\u00fcn") for form in ("NFC", "NFD")]
    root = write(tmp_path/"set", f"train/{forms[0]}/1.png", "train/rot/2.png", f"val/{forms[1]}/3.png", "val/rot/4.png",
                 f"train/{forms[1]}/5.png")
    train, val = open_folders(root)
    assert train.classes == val.classes == [forms[0], "rot"]
    if len(os.listdir(root/"train")) == 3:                 # a file system that tells them apart
        assert train.labels.tolist() == [0, 0, 1]
        said = " ".join(capsys.readouterr().err.split())
        with tarfile.open(tmp_path/"set.tar", "w") as tar:
            tar.add(root, "set")
        open_folders(tmp_path/"set.tar")
        for told in (said, " ".join(capsys.readouterr().err.split())):
            assert told.count(f"class folders {ascii(forms[1])} and {ascii(forms[0])}, which look alike, are taken for one class") == 1
    assert all(part.picture(i) for part in (train, val) for i in range(len(part)))


@pytest.mark.parametrize("laid", ["parts", "split", "tar", "files"])
def test_a_copy_whose_names_have_another_unicode_form_has_the_same_pictures_in_the_same_order(laid, tmp_path):
    """As on macOS: decomposed, names with an accent come before "z" and not behind it, and so do folders, also deeper ones."""
    names = [f"{part}{of}/{name}{k}.png" for part in (["train/", "val/"] if laid in ("parts", "tar") else [""])
             for of in ("\u00c5", "Z", "e\u0301t\u00e9") for name in ("z", "\u00e9", "f", "f\u00fc/\u00e9", "fz/a")
             for k in range(2)]
    found = []
    for form in ("NFC", "NFD"):
        root = write(tmp_path/form, *(unicodedata.normalize(form, name) for name in names))
        if laid == "tar":
            with tarfile.open(tmp_path/f"{form}.tar", "w") as tar:
                tar.add(root, "set")
            root = tmp_path/f"{form}.tar"
        sets = [Files([root])] if laid == "files" else open_folders(root, limit_per_class=0 if laid == "split" else 5)
        prefix = len(f"{root}/") if laid == "files" else 0
        found.append([(part.classes, part.labels.tolist(), [unicodedata.normalize("NFC", name[prefix:]) for name in part.names],
                       [part.picture(i).tobytes() for i in range(len(part))]) for part in sets])
    assert found[0] == found[1] and sum(len(of[2]) for of in found[0]) in (30, len(names))


@pytest.mark.parametrize("between", [" ", "\t", ",", ", ", ";", " \t "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_names_are_read_as_editors_write_them(tmp_path, between, end, encoding):
    table = tmp_path/"classes.txt"
    table.write_bytes(end.join([f"n01{between}great \u00e4gret, a bird", f"n02{between}cat", ""]).encode(encoding))
    names = read_names(table)
    assert names["n01"] == "great \u00e4gret, a bird" and names["n02"] == "cat"
    table.write_bytes(f'great owl{between}night bird{end}"n03"{between}"elk"'.encode(encoding))
    assert read_names(table)["n03"] == "elk" and (between == " " or read_names(table)["great owl"] == "night bird")


# ------------------------------------------------------------------------------------------------------- damaged and odd
# pictures
def jpeg(side, **options):
    small = np.random.default_rng(side).integers(0, 256, (side//8, side//6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side + 20, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("side, shorter_side", [(48, None), (160, None), (500, 30), (500, 100)])
def test_a_jpeg_that_lacks_only_its_end_is_whole_and_one_that_lacks_more_is_not(progressive, subsampling, side, shorter_side):
    data = jpeg(side, progressive=progressive, subsampling=subsampling)
    whole = np.asarray(decode("x", data, shorter_side))
    for cut in (1, 2):
        assert np.array_equal(decode("x", data[:-cut], shorter_side), whole)
    for share in (0.3, 0.5, 0.8):
        with pytest.raises(CorruptImage):
            decode("x", data[:int(len(data)*(1 - share))], shorter_side)


def png(width, depth, colour_type, row, height=1, **chunks):
    """The bytes of a PNG, of which one row is there."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
             *((k.encode(), v) for k, v in chunks.items()), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth_is_white(depth):
    top, bits = 2**depth - 1, ""
    values = [0, top//3, top//2, top]
    bits = "".join(format(value, f"0{depth}b") for value in values)
    row = int(bits + "0"*(-len(bits) % 8), 2).to_bytes(-(-len(bits)//8), "big")
    for transparent in values:
        found = np.asarray(decode("x", png(4, depth, 0, row, tRNS=struct.pack(">H", transparent))))[0]
        assert found.tolist() == [[255 if value == transparent else int(value*255/top + 0.5)]*3 for value in values]


@pytest.mark.parametrize("depth, code", [(8, "B"), (16, "H")])
def test_transparent_colours_and_alpha_of_8_and_16_bits_are_white(depth, code):
    def packed(*values):
        return struct.pack(f">{len(values)}{code}", *(value*(257 if depth == 16 else 1) for value in values))
    scale = 257 if depth == 16 else 1
    keyed = png(2, depth, 2, packed(1, 2, 3, 0, 0, 0), tRNS=struct.pack(">3H", 1*scale, 2*scale, 3*scale))
    assert np.asarray(decode("x", keyed)).tolist() == [[[255]*3, [0]*3]]
    assert np.asarray(decode("x", png(2, depth, 4, packed(0, 0, 7, 255)))).tolist() == [[[255]*3, [7]*3]]
    assert np.asarray(decode("x", png(2, depth, 6, packed(0, 0, 0, 0, 7, 8, 9, 255)))).tolist() == [[[255]*3, [7, 8, 9]]]


def test_a_telephones_picture_is_decoded_at_reduced_scale_and_a_huge_png_is_refused(monkeypatch):
    monkeypatch.setattr(transforms, "MAX_PIXELS", 90*100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90*100)
    file = io.BytesIO()
    Image.new("RGB", (330, 210), (10, 200, 30)).save(file, "JPEG")
    assert decode("x", file.getvalue(), 20).size == (83, 53) and decode("x", file.getvalue()).size == (165, 105)
    with pytest.raises(CorruptImage, match="more than the 0 million pixels that a picture that is no JPEG may have; save it as one"):
        decode("x", png(60000, 8, 2, b"", height=60000))


def test_all_pictures_that_are_too_small_are_counted_and_five_named(tmp_path):
    root = write(kind(tmp_path/"photos", "a", count=20), *(f"a/small{k}.png" for k in range(8)), side=7)
    for method in (lambda pictures: pictures.prepare(progress=False), lambda pictures: list(pictures.batches(4, 0, 0))):
        with pytest.raises(Expected,
                           match=r"8 of 28 that are smaller: .*small0.png \(10x7\), .*small4.png \(10x7\) and 3 more") as caught:
            method(Pictures(Files([root]), 16, 10, workers=2))
        assert str(caught.value).count("/small") == 5


@pytest.mark.skipif(os.name == "nt", reason="neither there")
@pytest.mark.parametrize("spoil", ["link", "FIFO", "loop", "nowhere"])
def test_a_list_of_classes_that_is_no_file_of_its_own_folder_is_refused(spoil, tmp_path):
    (tmp_path/"elsewhere.txt").write_text("a secret\n")
    root = tmp_path/"set"
    for of in "ab":
        for k in range(10):
            (root/of).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (k, 0, 0)).save(root/of/f"{k}.png")
    if spoil == "FIFO":
        os.mkfifo(root/"classes.txt")
    else:
        (root/"classes.txt").symlink_to({"link": tmp_path/"elsewhere.txt", "loop": "classes.txt",
                                         "nowhere": tmp_path/"none"}[spoil])
    with pytest.raises(Expected, match="classes.txt"):
        open_folders(root)


def test_links_that_lead_round_are_passed_over_wherever_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    root = write_set(tmp_path/"set")/"train"
    before = [sorted(part.names) for part in open_folders(root)]
    (root/"round").symlink_to(root)
    (root/"jade"/"itself.txt").symlink_to("itself.txt")
    capsys.readouterr()
    assert [sorted(part.names) for part in open_folders(root)] == before
    assert "round -> " in capsys.readouterr().err


def test_a_set_with_nothing_to_validate_on_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    root = write_set(tmp_path/"set", (1, 1))/"train"
    with pytest.raises(Expected, match="a class of two or more has some in both; or put them into folders train and val"):
        for part in open_folders(root):
            Pictures(part, 32, 30)


def test_a_command_that_opens_a_set_again_tells_its_lines_once_and_the_next_one_tells_them_too(tmp_path, capsys):
    root = kind(tmp_path/"set", "cat", "owl", count=4)
    twice = lambda: [open_folders(root) for _ in range(2)]
    for command in range(2):
        with at_work():
            twice()
            assert capsys.readouterr().err.count("no parts train and val") == 1
    twice()
    assert capsys.readouterr().err.count("no parts train and val") == 2
