"""Near-duplicates: normalised correlation of thumbnails, whatever brightness, contrast, JPEG and size made of a picture."""
import io

import numpy as np
import pytest
from PIL import Image

from zfcore.analysis.duplicates import ABOVE, near_duplicates, thumbnails
from zfcore.data import alike
from zfcore.check import Expected
from zfcore.data.synthetic import Synthetic


def drawn(n, size, part="train"):
    data = Synthetic(part, 40, size)
    return np.stack([np.asarray(data.picture(i).convert("RGB").resize((size, size))) for i in range(n)])


def changed(picture, how):
    image = Image.fromarray(picture)
    if how == "darker":
        return np.uint8(0.5*picture)
    if how == "brighter":
        return np.uint8(np.minimum(0.8*picture.astype(float) + 40, 255))
    if how == "grey":
        return np.asarray(image.convert("L").convert("RGB"))
    if how == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=20)
        return np.asarray(Image.open(file).convert("RGB"))
    return np.asarray(image.resize((61, 61), Image.BICUBIC).resize(image.size, Image.BICUBIC))


GREY = np.array([0.299, 0.587, 0.114])


def normalised(small):
    return (small - small.mean()).ravel()/np.linalg.norm(small - small.mean())


@pytest.mark.parametrize("size", [32, 64, 160])
def test_a_thumbnail_is_what_pillows_box_filter_leaves_of_the_grey_picture(size):
    pictures = np.random.default_rng(size).integers(0, 256, (3, size, size, 3), np.uint8)
    found = thumbnails(pictures)
    assert found.shape == (3, 1024) and found.dtype == np.float32
    for picture, thumbnail in zip(pictures, found):
        grey = Image.fromarray((picture @ GREY).astype(np.float32))
        assert np.allclose(thumbnail, normalised(np.asarray(grey.resize((32, 32), Image.BOX), np.float64)), atol=1e-5)


@pytest.mark.parametrize("size", [19, 48, 77, 110])
def test_a_pixel_that_an_edge_cuts_counts_by_its_parts(size):
    pictures = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
    for picture, thumbnail in zip(pictures, thumbnails(pictures)):
        fine = (picture @ GREY).repeat(32, axis=0).repeat(32, axis=1)
        assert np.allclose(thumbnail, normalised(fine.reshape(32, size, 32, size).mean(axis=(1, 3))), atol=1e-5)


def test_thumbnails_have_mean_0_and_length_1_and_a_flat_picture_is_nothing():
    pictures = drawn(4, 64)
    pictures[1] = 90
    pictures[2] = 200 + 2*(np.arange(64)[:, None, None] > 20)                # a shape, of two grey levels
    found = thumbnails(pictures)
    assert np.allclose(found.mean(axis=1), 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), [1, 0, 0, 1], atol=1e-5)
    assert len(near_duplicates(found[1:3], found[1:3]).first) == 0


@pytest.mark.parametrize("rows, columns", [(256, 16384), (3, 5)])
def test_pairs_are_those_whose_correlation_numpy_finds_high_the_most_alike_first(monkeypatch, rows, columns):
    monkeypatch.setattr(alike, "ROWS", rows)
    monkeypatch.setattr(alike, "COLUMNS", columns)
    rng = np.random.default_rng(2)
    first = rng.integers(0, 256, (13, 32, 32, 3), np.uint8).astype(float)
    second = first[rng.integers(0, 13, 7)]*0.8 + rng.normal(0, 20, (7, 32, 32, 3))*np.arange(7)[:, None, None, None]
    first, second = first.astype(np.uint8), np.clip(second, 0, 255).astype(np.uint8)
    expected = np.corrcoef((first @ GREY).reshape(13, -1), (second @ GREY).reshape(7, -1))[:13, 13:]
    found = near_duplicates(thumbnails(first), thumbnails(second), 0.5)
    assert {*zip(found.first.tolist(), found.second.tolist())} == {*zip(*(k.tolist() for k in np.nonzero(expected >= 0.5)))}
    assert 3 <= len(found.first) < 13*7 and found.above == 0.5
    assert np.allclose(found.correlation, expected[found.first, found.second], atol=1e-4)
    assert (np.diff(found.correlation) <= 0).all()


@pytest.fixture(scope="module")
def two_parts():
    """Drawn pictures of the training and of the validation part."""
    return drawn(30, 96), drawn(9, 96, "val")


@pytest.mark.parametrize("how", ["darker", "brighter", "grey", "jpeg", "other size"])
def test_a_changed_copy_is_found_and_other_pictures_of_its_class_are_not(two_parts, how):
    pictures, others = two_parts
    copies = np.stack([changed(picture, how) for picture in pictures[[7, 21]]])
    found = near_duplicates(thumbnails(pictures), thumbnails(np.concatenate([others, copies])))
    assert sorted(zip(found.first.tolist(), found.second.tolist())) == [(7, 9), (21, 10)]
    assert (found.correlation > ABOVE).all()


def test_copies_of_several_sizes_are_found_across_sets():
    pictures = drawn(3, 96)
    large = np.stack([np.asarray(Image.fromarray(picture).resize((131, 131), Image.BICUBIC)) for picture in pictures])
    found = near_duplicates(thumbnails(pictures), thumbnails(large))
    assert sorted(zip(found.first.tolist(), found.second.tolist())) == [(0, 0), (1, 1), (2, 2)]


def test_the_limit_is_where_it_is_said_to_be_and_a_negative_is_no_copy():
    pictures = drawn(2, 96)
    shuffled = np.random.default_rng(3).permutation(pictures[0].reshape(-1, 3)).reshape(96, 96, 3)
    first, second = thumbnails(pictures[:1]), thumbnails(np.uint8(0.6*pictures[:1] + 0.4*shuffled))
    correlation = float((first @ second.T)[0, 0])
    assert 0.2 < correlation < 0.999
    assert len(near_duplicates(first, second, correlation - 1e-3).first) == 1
    assert len(near_duplicates(first, second, correlation + 1e-3).first) == 0
    assert len(near_duplicates(first, thumbnails(255 - pictures), 0.9).first) == 0


@pytest.mark.parametrize("cells", [4, 16, 96])
def test_at_a_correlation_of_1_all_that_are_the_same_are_found_and_no_others(cells):
    """Of pictures of few large cells a product of float32 is rounded most."""
    pictures = np.random.default_rng(cells).integers(0, 256, (40, cells, cells, 3), np.uint8)
    some = thumbnails(pictures.repeat(96//cells, axis=1).repeat(96//cells, axis=2))
    copies = np.repeat(some, 5, axis=0)
    found = near_duplicates(copies, some, above=1)
    assert sorted(zip(found.first.tolist(), found.second.tolist())) == [(k, k//5) for k in range(200)]


@pytest.mark.parametrize("above", [0, -0.5, 1.5, float("nan")])
def test_a_correlation_that_means_nothing_is_refused(above):
    with pytest.raises(Expected, match="correlation: expected a number above 0, at most 1"):
        near_duplicates(np.zeros((1, 1024)), np.zeros((1, 1024)), above)


def test_pictures_that_are_not_square_are_refused():
    with pytest.raises(Expected, match="pictures: expected shape"):
        thumbnails(np.zeros((2, 40, 50, 3), np.uint8))
