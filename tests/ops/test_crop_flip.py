import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops.crop_flip import crop_flip, crop_flip_reference

N, H, W, h, w = 5, 13, 11, 6, 4


def case(dtype=np.float32):
    rng = np.random.default_rng(0)
    return dict(pictures=rng.integers(0, 256, (N, H, W, 3), np.uint8),
                mean=rng.uniform(90, 140, (3, H, W)).astype(dtype), tops=np.array([0, 7, 3, 2, 7]),
                lefts=np.array([7, 0, 1, 7, 3]), flips=np.array([True, False, True, False, False]), h=h, w=w)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_crop_flip_is_the_reference(dtype):
    x = crop_flip(**case(dtype))
    assert x.shape == (3, h, w, N) and x.dtype == dtype and x.flags.c_contiguous
    np.testing.assert_array_equal(x, crop_flip_reference(**case(dtype)))


def test_the_mean_belongs_to_the_place_in_the_stored_picture_not_in_the_crop():
    given = case()
    given["pictures"][:] = np.arange(H)[:, None, None]*10 + np.arange(W)[:, None]     # every picture is the mean itself
    given["mean"] = given["pictures"][0].transpose(2, 0, 1).astype(np.float32)
    assert not crop_flip(**given).any()                                                 # wherever cut, however flipped


def test_a_flip_mirrors_left_to_right_only():
    given = case()
    given["flips"] = np.zeros(N, bool)
    plain = crop_flip(**given)
    given["flips"] = np.ones(N, bool)
    np.testing.assert_array_equal(crop_flip(**given), plain[:, :, ::-1])


def test_colours_stay_in_order():
    given = case()
    given["pictures"][:] = np.array([10, 20, 30], np.uint8)
    given["mean"][:] = 1
    assert [np.unique(colour).tolist() for colour in crop_flip(**given)] == [[9], [19], [29]]


def test_a_crop_of_the_whole_picture_needs_no_offset():
    given = {**case(), "tops": np.zeros(N, int), "lefts": np.zeros(N, int), "flips": np.zeros(N, bool), "h": H, "w": W}
    x = given["pictures"].transpose(3, 1, 2, 0) - given["mean"][..., None]
    np.testing.assert_array_equal(crop_flip(**given), x)


def test_rows_in_blocks_on_any_number_of_cores_give_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    given = dict(pictures=rng.integers(0, 256, (3, 300, 301, 3), np.uint8),
                 mean=rng.standard_normal((3, 300, 301)).astype(np.float32), tops=[0, 5, 13], lefts=[4, 0, 2],
                 flips=np.array([False, True, True]), h=287, w=296)
    expected = crop_flip_reference(**given)
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(crop_flip(**given), expected)


@pytest.mark.parametrize("wrong,sentence", [
    (dict(tops=[0, 0, 0, 0, 8]), "tops: expected 0 to 7, got 8"),
    (dict(lefts=[-1, 0, 0, 0, 0]), "lefts: expected 0 to 7, got -1"),
    (dict(tops=[0, 0]), "tops"),
    (dict(tops=np.zeros(N)), "whole numbers"),
    (dict(flips=np.zeros(N, int)), "flips"),
    (dict(flips=np.zeros(2, bool)), "flips"),
    (dict(h=H + 1), "inside pictures of 13x11, got 14x4"),
    (dict(w=0), "got 6x0"),
    (dict(pictures=np.zeros((N, H, W, 4), np.uint8)), "pictures"),
    (dict(pictures=np.zeros((N, H, W, 3))), "uint8"),
    (dict(mean=np.zeros((3, H, W + 1), np.float32)), "mean")])
def test_what_does_not_fit_is_refused(wrong, sentence):
    with pytest.raises(Expected, match=sentence):
        crop_flip(**{**case(), **wrong})
