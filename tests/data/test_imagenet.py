"""ILSVRC2012 in every layout: the same pictures with the same classes, or one sentence. The trees here are made up."""
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.real_data import REAL_DATA, needs
from train.pack import main as pack
from zfcore.check import Expected
from zfcore.data import open_data
from zfcore.data.folders import open_folders
from zfcore.data.imagenet import looks_like_imagenet, open_imagenet

# ILSVRC2012_IDs are not in the order of the synsets' names: that is the trap
IDS = {1: "n02119789", 2: "n02100735", 3: "n01440764", 4: "n02012849", 5: "n03126707"}
TRAIN = {"n01440764": 3, "n02012849": 2, "n02100735": 1, "n02119789": 4, "n03126707": 2}       # pictures of each synset
VAL = [3, 1, 1, 5, 4, 3, 2, 3]                                                                 # the ground truth, by ID
COLOUR = {synset: (50*k, 250 - 50*k, 37*k) for k, synset in enumerate(sorted(TRAIN))}
WORDS = {"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n02100735": "English setter",
         "n02119789": "kit fox, Vulpes macrotis", "n03126707": "crane"}
CLASSES = ["tench", "crane (n02012849)", "English setter", "kit fox", "crane (n03126707)"]


def picture(synset, k):
    """A plain picture in its synset's colour, of a size of its own."""
    file = io.BytesIO()
    Image.new("RGB", (20 + k, 31 - k), COLOUR[synset]).save(file, "PNG")             # named JPEG: content decides
    return file.getvalue()


def val_name(k):
    return f"ILSVRC2012_val_{k:08}.JPEG"


FILES = {**{f"train/{synset}/{synset}_{k}.JPEG": picture(synset, k) for synset, n in TRAIN.items() for k in range(n)},
         **{f"val/{val_name(k)}": picture(IDS[number], k) for k, number in enumerate(VAL, 1)}}


def write(root, files):
    for name, data in files.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def tar_bytes(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


# ------------------------------------------------------------------------------------ a MAT-file, written by its definition
def element(kind, data, small=False):
    if small and len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind, shape, name, *contents):
    return element(14, element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *shape))
                   + element(1, name, small=True) + b"".join(contents))


def number(value, code=9):
    """MATLAB stores a double as the smallest integers that hold it."""
    return array(6, (1, 1), b"", element(code, struct.pack({9: "<d", 4: "<H", 2: "<B"}[code], value), small=code != 9))


def text(value, wide=False):
    return array(4, (1, len(value)), b"", element(4 if wide else 16, value.encode("utf-16-le" if wide else "utf-8")))


def meta_mat(ids=IDS, compressed=True, wide=True, code=9, name=b"synsets"):
    """The devkit's meta.mat: structures with 8 fields, of which some are arrays; first the leaves, then inner synsets."""
    fields = [b"ILSVRC2012_ID", b"WNID", b"words", b"gloss", b"num_children", b"children", b"wordnet_height",
              b"num_train_images"]
    rows = [(n, wnid, WORDS.get(wnid, "?"), 0) for n, wnid in ids.items()] + [(6, "n00001740", "entity", 2)]
    cells = b"".join(number(n, code) + text(wnid, wide) + text(words, wide) + text("a gloss; " + words, wide) + number(children)
                     + array(6, (1, children), b"", element(9, struct.pack(f"<{children}d", *range(children))))
                     + number(0) + number(1300) for n, wnid, words, children in rows)
    width = 32
    body = array(2, (len(rows), 1), name, element(5, struct.pack("<i", width), small=True),
                 element(1, b"".join(field.ljust(width, b"\0") for field in fields)), cells)
    other = array(6, (1, 1), b"before", element(9, struct.pack("<d", 1)))
    if compressed:
        body, other = (struct.pack("<II", 15, len(packed)) + packed for packed in map(zlib.compress, (body, other)))
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + other + body


# ------------------------------------------------------------------------------------------------------------------ lists
GROUND_TRUTH = "".join(f"{n}\n" for n in VAL)
SYNSETS = "".join(f"{IDS[n]}\n" for n in VAL)
SOLUTION = "ImageId,PredictionString\n" + "".join(f"{val_name(k)[:-5]},{IDS[VAL[k - 1]]} 85 1 499 272 {IDS[VAL[k - 1]]} 1 2 3 "
                                                  f"4 \n"
                                                  for k in (5, 2, 8, 1, 3, 4, 7, 6))            # in no order, as Kaggle's
TABLE = "".join(f"{synset} {words}\n" for synset, words in WORDS.items())
DEVKIT = {"ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH.encode(),
          "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(), "ILSVRC2012_devkit_t12/readme.txt": b"hello"}
LABELS = {
    "synset list": {"imagenet_2012_validation_synset_labels.txt": SYNSETS},
    "synset list in val": {"val/imagenet_2012_validation_synset_labels.txt": SYNSETS},
    "solution": {"LOC_val_solution.csv": SOLUTION},
    "devkit": DEVKIT,
    "devkit's files": {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, "meta.mat": meta_mat()},
    "devkit's archive": {"ILSVRC2012_devkit_t12.tar.gz": None},
    "ground truth beside the archive": {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH,
                                        "ILSVRC2012_devkit_t12.tar.gz": None},
}


def with_labels(root, labels):
    files = dict(LABELS[labels])
    if "ILSVRC2012_devkit_t12.tar.gz" in files:
        with tarfile.open(root/"ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            for name, data in DEVKIT.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        files = {name: data for name, data in files.items() if data is not None}
    return write(root, files)


# ---------------------------------------------------------------------------------------------------------------- layouts
def flat(root):
    return write(root, FILES), root


def original_tars(root):
    inner = {f"{synset}.tar": tar_bytes({name.rsplit("/")[-1]: data for name, data in FILES.items()
                                         if f"train/{synset}/" in name})
             for synset in TRAIN}
    write(root, {"ILSVRC2012_img_train.tar": tar_bytes(inner),
                 "ILSVRC2012_img_val.tar": tar_bytes({name[4:]: data for name, data in FILES.items()
                                                      if name.startswith("val/")})})
    return root, root


def tar_and_folder(root):
    original_tars(root)
    (root/"ILSVRC2012_img_val.tar").unlink()
    return write(root, {name: data for name, data in FILES.items() if name.startswith("val/")}), root


def kaggle(root):
    return root, write(root/"ILSVRC/Data/CLS-LOC", FILES).parents[2]


def kaggle_from_within(root):
    write(root/"ILSVRC/Data/CLS-LOC", FILES)
    return root/"ILSVRC/Data/CLS-LOC", root


def kaggle_unpacked_without_its_top(root):
    write(root/"Data/CLS-LOC", FILES)
    return root, root


def assert_right(train, val):
    """Every picture has the class whose colour it has."""
    synsets = sorted(TRAIN)
    assert train.labels.tolist() == np.repeat(range(5), [TRAIN[synset] for synset in synsets]).tolist()
    assert sorted(name.split("/")[-1] for name in val.names) == [val_name(k) for k in range(1, 9)]
    for part in (train, val):
        for i, label in enumerate(part.labels):
            assert part.picture(i).getpixel((3, 3)) == COLOUR[synsets[label]]
    for i, name in enumerate(val.names):
        k = int(name[-13:-5])
        assert val.labels[i] == synsets.index(IDS[VAL[k - 1]]) and val.picture(i).size == (20 + k, 31 - k)


@pytest.mark.parametrize("layout", [flat, original_tars, tar_and_folder, kaggle, kaggle_from_within,
                                    kaggle_unpacked_without_its_top], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("labels", ["devkit", "solution"])
def test_every_layout_gives_every_picture_its_class(tmp_path, layout, labels):
    root, top = layout(tmp_path)
    with_labels(top, labels)
    assert_right(*open_data(str(root), 256))


@pytest.mark.parametrize("labels", LABELS)
def test_every_list_of_labels_is_read(tmp_path, labels):
    assert_right(*open_imagenet(with_labels(flat(tmp_path)[0], labels)))


def test_class_folders_of_val_are_taken_as_they_are_in_any_layout(tmp_path):
    sorted_into = {f"val/{IDS[n]}/{val_name(k)}": picture(IDS[n], k) for k, n in enumerate(VAL, 1)}
    train_only = {name: data for name, data in FILES.items() if name.startswith("train/")}
    write(tmp_path/"plain", {**train_only, **sorted_into})
    write(tmp_path/"kaggle/ILSVRC/Data/CLS-LOC", {**train_only, **sorted_into})
    for root in (tmp_path/"plain", tmp_path/"kaggle"):
        assert_right(*open_data(str(root), 256))
    assert not looks_like_imagenet(tmp_path/"plain") and looks_like_imagenet(tmp_path/"kaggle")


@pytest.mark.parametrize("table", ["LOC_synset_mapping.txt", "synset_words.txt"])
def test_classes_are_called_by_their_first_synonym_and_told_apart(tmp_path, table):
    root = write(with_labels(flat(tmp_path)[0], "solution"), {table: TABLE})
    assert open_data(str(root), 256)[0].classes == CLASSES
    write(root, {"classes.txt": "n01440764 a fish, alive\n"})
    assert open_data(str(root), 256)[0].classes == ["a fish, alive", *sorted(TRAIN)[1:]]


def test_without_names_classes_are_synsets(tmp_path):
    assert open_imagenet(with_labels(flat(tmp_path)[0], "devkit"))[1].classes == sorted(TRAIN)


def test_the_number_in_a_pictures_name_decides_so_that_missing_pictures_shift_nothing(tmp_path):
    root = with_labels(flat(tmp_path)[0], "synset list")
    (root/"val"/val_name(2)).unlink()
    write(root, {"val/contact_sheet.png": b"not a picture of the set"})
    _, val = open_imagenet(root)
    assert len(val) == 7
    for i, name in enumerate(val.names):
        assert val.labels[i] == sorted(TRAIN).index(IDS[VAL[int(name[-13:-5]) - 1]])


def test_limit_per_class_and_fingerprint_are_those_of_class_folders(tmp_path):
    root = with_labels(original_tars(tmp_path)[0], "devkit")
    train, val = open_imagenet(root, limit_per_class=1)
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and val.labels.tolist() == [0, 1, 2, 3, 4]
    assert val.names[0] == "val/" + val_name(1)
    assert train.fingerprint() == open_imagenet(root, 1)[0].fingerprint() != open_imagenet(root)[0].fingerprint()


@pytest.mark.parametrize("form", [dict(), dict(compressed=False), dict(wide=False), dict(code=2),
                                  dict(code=4, compressed=False)],
                         ids=str)
def test_meta_mat_is_read_in_every_form_matlab_writes(tmp_path, form):
    write(flat(tmp_path)[0], {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, "meta.mat": meta_mat(**form)})
    assert_right(*open_imagenet(tmp_path))


def test_meta_mat_as_scipy_writes_it_is_read(tmp_path):
    scipy = pytest.importorskip("scipy.io")
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("children", object)]
    rows = np.array([(float(n), wnid, "words", np.arange(n)) for n, wnid in IDS.items()], fields).reshape(-1, 1)
    for compressed in (False, True):
        scipy.savemat(tmp_path/"meta.mat", {"x": 1.0, "synsets": rows}, do_compression=compressed)
        write(flat(tmp_path)[0], {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH})
        assert_right(*open_imagenet(tmp_path))


def test_greyscale_cmyk_and_pngs_that_are_called_jpeg_are_pictures_and_pack(tmp_path):
    root = with_labels(flat(tmp_path)[0], "devkit")
    grey, cmyk = root/"train/n02119789/n02119789_0.JPEG", root/"train/n02119789/n02119789_1.JPEG"
    Image.new("L", (40, 30), 77).save(grey, "JPEG")
    Image.new("CMYK", (30, 40), (0, 0, 0, 0)).save(cmyk, "JPEG")
    pack([str(root), str(tmp_path/"p.h5"), "--size", "16", "--raw", "--workers", "1"])
    train, _ = open_data(str(tmp_path/"p.h5"), 16)
    at = {name.rsplit("/")[-1]: train.picture(i).getpixel((8, 8)) for i, name in enumerate(train.names)}
    assert at[grey.name] == (77, 77, 77) and min(at[cmyk.name]) > 250
    assert at["n02119789_2.JPEG"] == COLOUR["n02119789"]


@pytest.mark.parametrize("layout", [flat, original_tars, kaggle], ids=lambda layout: layout.__name__)
def test_packing_keeps_every_picture_in_its_class(tmp_path, layout):
    root, top = layout(tmp_path/"source")
    with_labels(top, "devkit")
    pack([str(root), str(tmp_path/"p.h5"), "--size", "20", "--workers", "1", "--raw"])
    for part in open_data(str(tmp_path/"p.h5"), 20):
        for i, label in enumerate(part.labels):
            assert part.picture(i).getpixel((3, 3)) == COLOUR[part.classes[label]]


# ---------------------------------------------------------------------------------------------------------- what goes wrong
def no_labels(root):
    return "val: expected class folders, or labels .* imagenet_2012_validation_synset_labels.txt, LOC_val_solution.csv, " \
           "ILSVRC2012_validation_ground_truth.txt with meta.mat, or ILSVRC2012_devkit_t12.tar.gz, got none of these in .*/val"


def numbers_without_meta(root):
    write(root, {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH})
    return "ground_truth.txt: expected meta.mat of the devkit beside it, which tells what its numbers mean, got none"


def another_mat_file(root):
    write(root, {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, "meta.mat": meta_mat(name=b"other")})
    return "meta.mat: expected the devkit's meta.mat, got another file or a damaged one .no array `synsets`"


def no_mat_file(root):
    write(root, {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, "meta.mat": b"hello"})
    return "meta.mat: expected the devkit's meta.mat, got another file"


def unknown_number(root):
    write(root, {**DEVKIT, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "3\n1\n1\n5\n7\n3\n2\n3\n"})
    return "ground_truth.txt: expected an ILSVRC2012_ID that meta.mat has in every line, got '7' in line 5"


def no_number(root):
    write(root, {**DEVKIT, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "3\n1\nx\n5\n7\n3\n2\n3\n"})
    return "ground_truth.txt: expected an ILSVRC2012_ID .* got 'x' in line 3"


def an_inner_synset(root):
    write(root, {**DEVKIT, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "3\n1\n6\n5\n4\n3\n2\n3\n"})
    return "val: expected only classes that train has, got 'n00001740'"


def list_too_short(root):
    write(root, {"imagenet_2012_validation_synset_labels.txt": SYNSETS[:-10]})
    return f"labels.txt: expected the class of every validation picture, got none of {val_name(8)}"


def no_synsets(root):
    write(root, {"imagenet_2012_validation_synset_labels.txt": "tench\n"*8})
    return "labels.txt: expected a synset such as n01440764 for every validation picture, got 'tench'"


def empty_list(root):
    write(root, {"LOC_val_solution.csv": ""})
    return "LOC_val_solution.csv: expected a synset .* got none"


def binary_list(root):
    write(root, {"imagenet_2012_validation_synset_labels.txt": bytes(range(128, 256))})
    return "labels.txt: expected a synset such as n01440764"


def damaged_archive(root):
    with_labels(root, "devkit's archive")
    path = root/"ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(path.read_bytes()[:-60])
    return "ILSVRC2012_devkit_t12.tar.gz: expected a whole archive, got one cut short or damaged"


def another_archive(root):
    with tarfile.open(root/"ILSVRC2012_devkit_t12.tar.gz", "w:gz"):
        pass
    return "ILSVRC2012_devkit_t12.tar.gz: expected .* got neither"


def half_sorted(root):
    with_labels(root, "devkit")
    write(root, {"val/n01440764/" + val_name(1): picture("n01440764", 1)})
    return f"val: expected flat pictures or class folders, got both, '{val_name(1)}' and 7 more and 'n01440764'"


def class_without_pictures(root):
    with_labels(root, "devkit")
    for path in (root/"train/n02100735").iterdir():
        path.unlink()
    return "train: expected pictures in every class folder, got none in 'n02100735'"


def no_train(root):
    with_labels(root, "devkit")
    (root/"train").rename(root/"training")
    return "expected a folder train or ILSVRC2012_img_train.tar, got"


@pytest.mark.parametrize("spoil", [no_labels, numbers_without_meta, another_mat_file, no_mat_file, unknown_number, no_number,
                                   an_inner_synset, list_too_short, no_synsets, empty_list, binary_list, damaged_archive,
                                   another_archive, half_sorted, class_without_pictures, no_train],
                         ids=lambda spoil: spoil.__name__)
def test_bad_input_is_answered_with_one_sentence(tmp_path, spoil):
    root, _ = flat(tmp_path)
    sentence = spoil(root)
    with pytest.raises(Expected, match=sentence) as caught:
        open_data(str(root), 256)
    assert "\n" not in str(caught.value)


def test_a_damaged_meta_mat_is_refused_and_never_read_as_another(tmp_path):
    root = write(flat(tmp_path)[0], {"ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH})
    for form, step in ((dict(), 3), (dict(compressed=False), 41)):
        data = meta_mat(**form)
        for length in range(0, len(data), step):
            (root/"meta.mat").write_bytes(data[:length])
            with pytest.raises(Expected, match="expected the devkit's meta.mat"):
                open_imagenet(root)
    rng, data = np.random.default_rng(0), bytearray(meta_mat())
    for at in rng.integers(126, len(data), 60):            # zlib's own checksum covers what is compressed
        data[at] ^= 0x15
        (root/"meta.mat").write_bytes(data)
        try:
            assert_right(*open_imagenet(root))
        except Expected:
            pass
        data[at] ^= 0x15


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_a_tar_cut_short_is_refused_wherever_it_is_cut(tmp_path, name):
    root = with_labels(original_tars(tmp_path)[0], "devkit")
    data = (root/name).read_bytes()
    end = len(data.rstrip(b"\0")) + 511 & ~511
    for length in range(1, end, 1777):
        (root/name).write_bytes(data[:length])
        with pytest.raises(Expected, match="expected (an uncompressed|a whole) tar"):
            open_imagenet(root)


def test_an_inner_tar_that_is_damaged_is_named(tmp_path):
    inner = {f"{synset}.tar": tar_bytes({f"{synset}_0.JPEG": picture(synset, 0)}) for synset in TRAIN}
    inner["n02100735.tar"] = b"\1"*2048
    root = with_labels(flat(tmp_path)[0], "devkit")
    (root/"train").rename(root/"elsewhere")
    write(root, {"ILSVRC2012_img_train.tar": tar_bytes(inner)})
    with pytest.raises(Expected, match="ILSVRC2012_img_train.tar: n02100735.tar: expected (an uncompressed|a whole) tar"):
        open_imagenet(root)


# ------------------------------------------------------------------------------------------------------------ real pictures
@needs("imagenette160")
def test_imagenette_as_original_tars_gives_what_its_class_folders_give(tmp_path):
    train, val = open_folders(REAL_DATA/"imagenette160", limit_per_class=3)
    folders = {name.split("/")[1] for name in train.names}
    inner = {f"{synset}.tar": tar_bytes({name.rsplit("/")[-1]: train.read(i) for i, name in enumerate(train.names)
                                         if synset in name})
             for synset in sorted(folders)}
    write(tmp_path, {"ILSVRC2012_img_train.tar": tar_bytes(inner),
                     "ILSVRC2012_img_val.tar": tar_bytes({val_name(i + 1): val.read(i) for i in range(len(val))}),
                     "imagenet_2012_validation_synset_labels.txt": "".join(name.split("/")[1] + "\n" for name in val.names)})
    ours = open_imagenet(tmp_path)
    for mine, theirs in zip(ours, (train, val)):
        assert mine.labels.tolist() == theirs.labels.tolist()
        assert [mine.read(i) for i in range(len(mine))] == [theirs.read(i) for i in range(len(theirs))]
