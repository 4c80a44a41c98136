import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import pad as module
from zfcore.ops.pad import pad, pad_backward, pad_backward_reference, pad_reference

SHAPE = (3, 5, 4, 2)                                                        # C, H, W, N
FRAMES = [(0, 0, 0, 0), (1, 2, 3, 0), (0, -1, 0, -1), (-2, -1, 0, 2), (2, -4, -3, 5), (7, -4, 0, 0), (-1, 1, -1, 1)]
every = pytest.mark.parametrize("frame", FRAMES)


def maps(dtype=float, seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_pad_and_its_way_back_are_the_reference(frame, dtype):
    x = maps(dtype)
    y, cache = pad(x, *frame)
    wanted, cache_ref = pad_reference(x, *frame)
    np.testing.assert_array_equal(y, wanted, strict=True)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    np.testing.assert_array_equal(pad_backward(dy, cache), pad_backward_reference(dy, cache_ref), strict=True)


@every
def test_pad_backward_is_the_adjoint_of_pad(frame):
    v = maps()
    y, cache = pad(v, *frame)
    u = np.random.default_rng(2).standard_normal(y.shape)
    assert np.vdot(u, y) == pytest.approx(np.vdot(pad_backward(u, cache), v), rel=1e-12)


@every
def test_numpy_pads_so_what_is_cut(frame):
    top, bottom, left, right = frame
    x = maps()
    kept = x[:, max(-top, 0):5 - max(-bottom, 0), max(-left, 0):4 - max(-right, 0)]
    np.testing.assert_array_equal(pad(x, *frame)[0], np.pad(kept,
                                                            ((0, 0), *np.maximum(((top, bottom), (left, right)), 0), (0, 0))))


@pytest.mark.parametrize("budget", [1, 70, 300, 2**22])
@every
def test_blocks_of_any_size_on_any_number_of_cores_give_the_same(frame, budget, monkeypatch):
    x = maps(np.float32)
    wanted, _ = pad_reference(x, *frame)
    monkeypatch.setattr(module, "map_blocks", lambda *of_map, cut=module.map_blocks: cut(*of_map, budget=budget))
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(pad(np.asfortranarray(x), *frame)[0], wanted)


def test_what_cuts_all_off_and_wrong_arrays_are_refused():
    x = maps()
    for frame, what in (((-5, 9, 0, 0), "fewer rows to cut off than the 5 of the map, got 5 and 0"),
                        ((0, 0, -2, -2), "fewer columns to cut off than the 4 of the map, got 2 and 2")):
        with pytest.raises(Expected, match=what):
            pad(x, *frame)
    with pytest.raises(Expected, match="float32"):
        pad(x.astype(int), 1, 1, 1, 1)
    with pytest.raises(Expected, match="shape"):
        pad(x[0], 1, 1, 1, 1)
