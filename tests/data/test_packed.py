"""The packed file, read: by any number of threads and processes, checked by the byte, every wrong file refused in a
sentence."""
import os
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import h5py
import numpy as np
import pytest
from PIL import Image

from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint, save
from zfcore.data import open_data, packed
from zfcore.data.loader import Pictures
from zfcore.data.packed import create, open_packed
from zfcore.data.transforms import CorruptImage

S = 12
LABELS = {"train": [2, 0, 1, 0, 2, 2, 0], "val": [1, 0, 2]}           # in no order: a packed set need not be sorted
CLASSES = ["owl", "gr\u00fcn", "sea cucumber"]


def contents(encoding):
    """{part: bytes of its pictures}; the first of train is grey, so that JPEGs have different lengths."""
    rng = np.random.default_rng(0)
    pixels = {part: rng.integers(0, 256, (len(labels), S, S, 3), dtype=np.uint8) for part, labels in LABELS.items()}
    pixels["train"][0] = 128
    return {part: [array.tobytes() if encoding == "raw" else jpeg(array) for array in of_part]
            for part, of_part in pixels.items()}


def jpeg(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def names(part):
    return [f"{part}/{'x'*k}\udcff{k}.png" for k in range(len(LABELS[part]))]        # of different lengths, one byte no UTF-8


def write(path, encoding="jpeg", **changes):
    """A small packed file; `changes` are made to the facts of train."""
    pictures = contents(encoding)
    facts = {part: {"lengths": list(map(len, of_part)), "checksums": list(map(zlib.crc32, of_part)), "labels": LABELS[part],
                    "names": names(part), "left_out": []} for part, of_part in pictures.items()}
    facts["train"].update(changes)
    mean = np.arange(3*S*S, dtype=np.float32).reshape(3, S, S)/2
    begins = create(path, {"size": S, "encoding": encoding, "source": "here"}, CLASSES, mean, facts)
    with open(path, "r+b") as file:
        for part, begin in begins.items():
            if begin is not None:                          # without pictures there is no place for them
                file.seek(begin)
                file.write(b"".join(pictures[part]))
    return path


@pytest.fixture(params=["jpeg", "raw"])
def encoding(request):
    return request.param


@pytest.fixture
def path(tmp_path, encoding):
    return write(tmp_path/"p.h5", encoding)


@pytest.mark.parametrize("at", [1, 3, 9])
def test_ctrl_c_while_hdf5_writes_is_heard_and_leaves_no_file(tmp_path, monkeypatch, at):
    class Interrupted(packed._Writes):
        count = 0

        def write(self, data):
            self.count += 1
            if self.count == at:
                signal.raise_signal(signal.SIGINT)
            return super().write(data)

    monkeypatch.setattr(packed, "_Writes", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path/"p.h5")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- what is read
def test_a_packed_file_gives_back_what_was_written(path, encoding):
    for part, dataset in zip(("train", "val"), open_packed(path)):
        assert dataset.classes == CLASSES and dataset.names == names(part) and len(dataset) == len(LABELS[part])
        assert dataset.labels.dtype == np.int64 and dataset.labels.tolist() == LABELS[part]
        assert [dataset.read(i) for i in range(len(dataset))] == contents(encoding)[part]


def test_a_picture_is_that_of_its_bytes(path, encoding):
    train, _ = open_packed(path)
    for i, data in enumerate(contents(encoding)["train"]):
        picture = train.picture(i)
        expected = np.frombuffer(data, np.uint8).reshape(S, S, 3) if encoding == "raw" else np.asarray(Image.open(BytesIO(data)))
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), expected)
        if train.raw_size:
            assert train.raw_size == S
            np.testing.assert_array_equal(train.pixels(i), expected)


def test_the_bytes_of_a_file_are_decided_by_what_is_in_it(path, tmp_path, encoding):
    assert write(tmp_path/"again.hdf5", encoding).read_bytes() == path.read_bytes()


def test_h5py_finds_the_pictures_where_pread_does(path, encoding):
    with h5py.File(path) as file:
        data, offsets = file["train/pictures"][:].tobytes(), file["train/offsets"][:]
        assert file["train/pictures"].chunks is None
    assert [data[a:b] for a, b in zip(offsets, offsets[1:])] == contents(encoding)["train"]


def test_the_mean_image_is_that_of_the_file_unless_pictures_are_left_out(path):
    train, val = open_packed(path)
    np.testing.assert_array_equal(train.mean_image, np.arange(3*S*S, dtype=np.float32).reshape(3, S, S)/2)
    assert train.mean_image.dtype == val.mean_image.dtype == np.float32
    assert open_packed(path, limit_per_class=99)[0].mean_image is None


def test_limit_per_class_takes_the_first_of_each_class_in_their_order(path, encoding):
    train, val = open_packed(path, limit_per_class=2)
    taken = [0, 1, 2, 3, 4]                                # of labels 2 0 1 0 2 2 0
    assert train.labels.tolist() == [2, 0, 1, 0, 2] and train.names == [names("train")[k] for k in taken]
    assert [train.read(i) for i in range(5)] == contents(encoding)["train"][:5]
    only_one, _ = open_packed(path, limit_per_class=1)
    assert only_one.names == [names("train")[k] for k in (0, 1, 2)] and len(val) == 3


def test_open_data_knows_packed_files_by_their_name_and_the_loader_takes_them(path, tmp_path, encoding):
    other = path.rename(tmp_path/"P.HDF5")
    train, _ = open_data(str(other), 8, 1)
    pictures = Pictures(train, 8, 7, workers=2)
    (batch, labels, _), = pictures.batches(4, 0, 0, shuffle=False)
    assert batch.shape == (3, 8, 8, 3) and labels.tolist() == [2, 0, 1]


def test_larger_squares_are_resampled_and_smaller_ones_refused_as_any_picture(path):
    train, _ = open_packed(path, size=6)
    assert Pictures(train, 6, 5, workers=0).picture(1).shape == (6, 6, 3)
    train, _ = open_packed(path, size=16)
    with pytest.raises(Expected, match="expected a shorter side of at least 14 pixels.*got 12x12"):
        Pictures(train, 16, 14, workers=0).picture(1)
    assert Pictures(train, 16, 14, upscale=True, workers=0).picture(1).shape == (16, 16, 3)


# --------------------------------------------------------------------------------------------------- threads, processes
def test_many_threads_read_in_any_order(path, encoding):
    train, val = open_packed(path)
    expected = contents(encoding)
    order = np.random.default_rng(1).permutation(700) % 7
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(train.read, order.tolist()))
    assert found == [expected["train"][i] for i in order]


def test_a_forked_process_reads_beside_its_parent(path, encoding):
    train, val = open_packed(path)
    pid = os.fork()
    if not pid:
        same = all(train.read(i % 7) == contents(encoding)["train"][i % 7] for i in range(300))
        os._exit(0 if same else 1)
    assert all(train.read(i % 7) == contents(encoding)["train"][i % 7] for i in range(300))
    assert os.waitpid(pid, 0)[1] == 0


def test_the_file_is_closed_with_its_last_part(path):
    train, val = open_packed(path)
    descriptor = train._file.descriptor
    del train
    val.read(0)
    del val
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_a_file_is_not_locked_while_it_is_read(path):
    parts = open_packed(path)
    with h5py.File(path, "r+"):
        assert parts[0].read(0)


# --------------------------------------------------------------------------------------------------------- what is wrong
def test_every_flipped_byte_of_a_picture_is_found(tmp_path):
    path = write(tmp_path/"p.h5", "raw")
    train, _ = open_packed(path)
    begin = int(train._begins[4])
    with open(path, "r+b") as file:
        for at in range(begin, begin + S*S*3, 7):
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
            file.flush()
            with pytest.raises(CorruptImage, match="xxxx.*its bytes in the packed file do not fit their checksum") as caught:
                train.picture(4)
            assert caught.value.lasting
            train.picture(3), train.picture(5)
            file.seek(at)
            file.write(bytes([byte]))
            file.flush()
    train.picture(4)


def test_a_flipped_byte_anywhere_else_is_refused_or_changes_nothing(path, encoding):
    """The superblock, headers, indices, small datasets: HDF5's own checksums or Fletcher32 cover them. They are alike in both
    encodings, which take turns."""
    data, seen = path.read_bytes(), facts(path)
    pictures = [data.index(b"".join(of_part)) for of_part in contents(encoding).values()]
    sizes = [sum(map(len, of_part)) for of_part in contents(encoding).values()]
    outside = [k for k in range(len(data)) if not any(a <= k < a + n for a, n in zip(pictures, sizes))]
    refused = 0
    for at in outside[23*(encoding == "raw")::46]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
        try:
            assert facts(path) == seen
        except Expected as sentence:
            assert "\n" not in str(sentence)
            refused += 1
    assert refused > 25


def facts(path):
    train, val = open_packed(path)
    return [(d.classes, d.names, d.labels.tolist(), d.mean_image.tolist(), [d.read(i) for i in range(len(d))])
            for d in (train, val)]


def test_a_file_that_shrinks_after_it_was_opened_gives_damaged(path):
    train, _ = open_packed(path)
    os.truncate(path, 3000)
    with pytest.raises(CorruptImage):
        train.picture(6)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(path):
    data = path.read_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(Expected, match="p.h5.*expected (a whole|an) HDF5 file|p.h5: (train|val): expected") as caught:
            open_packed(path)
        assert "\n" not in str(caught.value)


def missing(path):
    return path.with_name("nowhere.h5"), "data: expected a packed data set, got .*nowhere.h5, which is not a file"


def a_folder(path):
    (path.parent/"x.h5").mkdir()
    return path.parent/"x.h5", "data: expected a packed data set, got .*x.h5, which is not a file"


def no_hdf5(path):
    path.write_text("I am no HDF5 file. "*999)
    return path, "expected an HDF5 file, got a file that does not begin as one; copy it or pack it again"


def empty(path):
    path.write_bytes(b"")
    return path, "expected an HDF5 file, got an empty file"


def a_checkpoint(path):
    save(path, Checkpoint("zfnet", (3, 8, 8), [{"kind": "ReLU", "name": "relu1"}], ["a", "b"], {}))
    return path, "expected a packed data set, got a checkpoint; pack one with python -m train.pack"


def any_hdf5(path):
    h5py.File(path, "w").close()
    return path, "expected a packed data set, got another HDF5 file"


def another_version(path):
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    return path, "expected format version 1, got 2"


def another_encoding(path):
    with h5py.File(path, "r+") as file:
        file.attrs["encoding"] = np.bytes_(b"webp")
    return path, "expected jpeg or raw.*got webp"


def without_labels(path):
    with h5py.File(path, "r+") as file:
        del file["val/labels"]
    return path, "expected every part of a packed data set, got one without .*labels"


def without_val(path):
    with h5py.File(path, "r+") as file:
        del file["val"]
    return path, "expected every part of a packed data set, got one without .*val"


def repacked_in_chunks(path):
    with h5py.File(path, "r+") as file:
        data = file["train/pictures"][()]
        del file["train/pictures"]
        file.create_dataset("train/pictures", data=data, chunks=True)
    return path, "train: expected .* got pictures that do not lie in one piece"


def a_nan_in_the_mean(path):
    with h5py.File(path, "r+") as file:
        file["mean_image"][0, 0, 0] = np.nan
    return path, "mean image"


def fewer_labels(path):
    return write(path,
                 labels=[0, 1, 2]), "train: expected as many pictures, labels.* got 3 labels, 7 names, 7 checksums, 8 offsets"


def fewer_checksums(path):
    return write(path, checksums=[1]), "train: expected .* got 7 labels, 7 names, 1 checksums"


def a_label_too_large(path):
    return write(path, labels=[2, 0, 1, 0, 3, 2, 0]), "train: .* got labels from 0 to 3 for 3 classes"


def a_negative_label(path):
    return write(path, labels=[2, 0, 1, 0, -1, 2, 0]), "train: .* got labels from -1 to 2 for 3 classes"


def offsets_out_of_order(path):
    with h5py.File(path, "r+") as file:
        file["train/offsets"][2] = 0
    return path, "train: .* got offsets that do not fit the pictures"


def offsets_beyond_the_end(path):
    with h5py.File(path, "r+") as file:
        file["val/offsets"][-1] += 1
    return path, "val: .* got offsets that do not fit the pictures"


def no_pictures(path):
    return write(path, lengths=[], checksums=[], labels=[], names=[]), "train: .* got 0 labels"


@pytest.mark.parametrize("spoil", [missing, a_folder, no_hdf5, empty, a_checkpoint, any_hdf5, another_version, another_encoding,
                                   without_labels, without_val, repacked_in_chunks, a_nan_in_the_mean, fewer_labels,
                                   fewer_checksums, a_label_too_large, a_negative_label, offsets_out_of_order,
                                   offsets_beyond_the_end, no_pictures], ids=lambda spoil: spoil.__name__)
def test_a_wrong_file_is_answered_with_one_sentence(tmp_path, spoil):
    path, sentence = spoil(write(tmp_path/"p.h5"))
    with pytest.raises(Expected, match=sentence) as caught:
        open_packed(path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- fingerprint
def test_a_copy_has_the_same_fingerprint_and_other_pictures_another(path, tmp_path, encoding):
    copy = tmp_path/"copy.h5"
    copy.write_bytes(path.read_bytes())
    train, val = open_packed(path)
    assert train.fingerprint() == open_packed(copy)[0].fingerprint()
    others = [val, open_packed(path, size=6)[0], open_packed(path, 1)[0],
              open_packed(write(copy, encoding, labels=LABELS["train"][::-1]))[0],
              open_packed(write(copy, encoding, names=names("train")[::-1]))[0],
              open_packed(write(copy, encoding, checksums=[*range(7)]))[0]]
    assert len({train.fingerprint(), *(dataset.fingerprint() for dataset in others)}) == 7
