"""Means and answers that lie beside networks, and files that are not believed."""
import io
import zipfile

import numpy as np
import pytest

from tests.interchange.caffe_files import blob, old_blob
from tests.real_data import REAL_DATA, needs
from zfcore.check import Expected
from zfcore.interchange.means import read_answers, read_mean

X = np.ones((2, 3, 4, 4))
MEAN = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)*255


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def written(path, data):
    path.write_bytes(data)
    return path


@needs("networks/ilsvrc_2012_mean.npy")
def test_the_mean_of_imagenet_is_a_picture():
    mean = read_mean(REAL_DATA/"networks/ilsvrc_2012_mean.npy")
    assert mean.shape == (3, 256, 256) and mean.dtype == np.float64
    np.testing.assert_allclose(mean.mean(axis=(1, 2)), [104, 117, 123], atol=1)        # B, G, R


@pytest.mark.parametrize("array", [MEAN, MEAN.astype(np.float64), np.asfortranarray(MEAN), MEAN.astype(np.uint8),
                                   MEAN.astype(">f8"), MEAN[None]])
def test_a_npy_is_read_as_it_is(tmp_path, array):
    mean = read_mean(written(tmp_path/"mean.npy", npy(array)))
    assert mean.dtype == np.float64 and (mean == array.reshape(MEAN.shape)).all()


@pytest.mark.parametrize("array", [np.arange(3.0), np.arange(3.0).reshape(3, 1, 1), np.arange(3.0).reshape(1, 3, 1, 1)])
def test_a_mean_of_channels_is_a_row(tmp_path, array):
    assert read_mean(written(tmp_path/"mean.npy", npy(array))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", [blob, old_blob])
def test_a_binaryproto_is_read_in_both_forms(tmp_path, form):
    pytest.importorskip("google.protobuf", reason="protobuf, which reads .binaryproto, is not installed")
    assert (read_mean(written(tmp_path/"mean.binaryproto", form(MEAN))) == MEAN).all()


@pytest.mark.parametrize("name, data, sentence", [
    ("a.npy", npy(MEAN)[:-1], "a .npy of numbers, got 3x5x4 of float32 in 239 bytes"),
    ("a.npy", npy(MEAN)[:40], "a .npy of numbers"), ("a.npy", b"", "a .npy of numbers"),
    ("a.npy", b"text", "a .npy of numbers"),
    ("a.npy", npy(np.array([{}, 1], object)), "a .npy of numbers"), ("a.npy", npy(np.array(["a"])), "a .npy of numbers"),
    ("a.npy", npy(MEAN).replace(b"(3, 5, 4)", b"(3, 5, 10000000000)"), "a .npy of numbers"),
    ("a.npy", npy(MEAN*np.nan), "finite values"),
    ("a.npy", npy(MEAN).replace(b"(3, 5, 4), } ", b"(3,5,9999999)}"), "a .npy of numbers, got 3x5x9999999"),
    ("a.npy", npy(MEAN[0]), r"a mean, \(C,\) or \(C,H,W\), got"), ("a.npy", npy(MEAN[:0]), "a mean, "),
    ("a.png", b"", ".npy or .binaryproto, got .png"), ("a.binaryproto", b"", "the numbers that its shape has"),
    ("a.binaryproto", blob(MEAN)[:-1], "a .binaryproto, got a part of one"),
    ("a.binaryproto", blob(MEAN, (3, 5, 10**12)), "the numbers that its shape has, 3x5x1000000000000, got 60")])
def test_what_is_no_mean_is_one_sentence(tmp_path, name, data, sentence):
    if name.endswith("binaryproto"):
        pytest.importorskip("google.protobuf", reason="protobuf, which reads .binaryproto, is not installed")
    with pytest.raises(Expected, match=sentence) as caught:
        read_mean(written(tmp_path/name, data))
    assert str(tmp_path/name) in str(caught.value)


@pytest.mark.parametrize("read, data", [(read_mean, npy(MEAN)), (read_answers, None)], ids=["mean", "answers"])
def test_a_spoilt_file_gives_numbers_or_one_sentence(tmp_path, read, data):
    if data is None:
        np.savez_compressed(tmp_path/"a.npz", x=MEAN[None], y=MEAN[None, 0, 0])
        data = (tmp_path/"a.npz").read_bytes()
    path, rng = tmp_path/("a.npy" if read is read_mean else "a.npz"), np.random.default_rng(1)
    for turn in range(400):
        spoilt = bytearray(data[:rng.integers(len(data))] if turn % 2 else data)
        for place in rng.integers(0, min(len(spoilt), 128), rng.integers(4)) if spoilt else ():
            spoilt[place] = rng.integers(256)
        path.write_bytes(spoilt)
        try:
            read(path)
        except Expected as sentence:
            assert len(str(sentence)) < 600


def test_answers_are_inputs_and_what_comes_out(tmp_path):
    x, y = np.random.default_rng(0).random((2, 3, 4, 4)), np.arange(10.0).reshape(2, 5)
    np.savez(tmp_path/"a.npz", x=x, y=y, other=np.array([{}], object))
    got = read_answers(tmp_path/"a.npz")
    assert got[0].dtype == np.float32 and (got[0] == x.astype(np.float32)).all() and (got[1] == y).all()


@pytest.mark.parametrize("arrays, sentence", [
    ({"x": X}, "no item named 'y.npy'"), ({"x": X[0, 0], "y": np.zeros((4, 3))}, "x: expected shape"),
    ({"x": X, "y": np.zeros((3, 5))}, "y: expected shape"), ({"x": X*np.inf, "y": np.zeros((2, 5))}, "x: expected finite"),
    ({"x": X, "y": np.array([{}, 1], object)}, "y.npy: expected a .npy of numbers")])
def test_what_are_no_answers_is_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path/"a.npz", **arrays)
    with pytest.raises(Expected, match=sentence):
        read_answers(tmp_path/"a.npz")


def test_answers_that_unfold_to_gigabytes_are_refused_by_their_size(tmp_path):
    with zipfile.ZipFile(tmp_path/"a.npz", "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("x.npy", bytes(2**28 + 1))
        folder.writestr("y.npy", npy(np.zeros((1, 1))))
    with pytest.raises(Expected, match="x.npy: expected at most 268435456 bytes, got 268435457"):
        read_answers(tmp_path/"a.npz")
