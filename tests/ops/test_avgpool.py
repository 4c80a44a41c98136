import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import avgpool as module
from zfcore.ops.avgpool import BORDERS, avgpool, avgpool_backward, avgpool_backward_reference, avgpool_reference, divisors

GEOMETRIES = [(3, 2, 0, "ceil"), (3, 2, 1, "ceil"), (3, 2, 1, "floor"), (2, 2, 0, "ceil"), (2, 3, 0, "ceil"),
              (2, 3, 1, "floor"), (5, 1, 4, "ceil"), (4, 3, 2, "floor"), (1, 2, 0, "ceil"), (5, 2, 3, "ceil"),
              (7, 3, 6, "ceil"), (11, 1, 0, "ceil")]                        # the last one sees all 11x8 pixels
SHAPE = (3, 11, 8, 5)                                                       # C, H, W, N
of_every_window = pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
of_every_rule = pytest.mark.parametrize("borders", BORDERS)


def maps(dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@of_every_rule
@of_every_window
def test_avgpool_and_its_way_back_are_the_reference(K, S, P, rounding, borders, dtype):
    x = maps(dtype)
    y, cache = avgpool(x, K, S, P, rounding, borders)
    wanted, cache_ref = avgpool_reference(x, K, S, P, rounding, borders)
    total, _ = avgpool_reference(np.abs(x), K, S, P, rounding, borders)
    assert y.dtype == dtype and y.shape == wanted.shape and cache == cache_ref
    eps = np.finfo(dtype).eps
    assert (np.abs(y - wanted) <= K*K*eps*total).all()
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    dx = avgpool_backward(dy, cache)
    assert dx.dtype == dtype
    assert (np.abs(dx - avgpool_backward_reference(dy, cache)) <= K*K*eps*avgpool_backward_reference(np.abs(dy), cache)).all()


@of_every_rule
@of_every_window
def test_avgpool_backward_is_the_adjoint_of_averaging(K, S, P, rounding, borders):
    v = maps(float)
    y, cache = avgpool(v, K, S, P, rounding, borders)
    u = np.random.default_rng(2).standard_normal(y.shape)
    assert np.vdot(u, y) == pytest.approx(np.vdot(avgpool_backward(u, cache), v), rel=1e-12)


def test_a_window_at_the_border_divides_by_what_its_rule_counts():
    """A row of windows 3 pixels wide at stride 2 over a map of 4x1 ones, padding 1: they begin at -1, 1 and 3; of the last one
    pixel 3 lies in the map, 4 in the padding, 5 beyond it."""
    x = np.ones((1, 4, 1, 1))
    sums, K = [2, 3, 1], 3
    across = {"inside": 1, "padded": 3, "clipped": 3}                       # of the columns -1, 0, 1 one is in the map
    counted = {"inside": [2, 3, 1], "padded": [3, 3, 3], "clipped": [3, 3, 2]}
    for borders in BORDERS:
        y, _ = avgpool(x, K, 2, 1, "ceil", borders)
        np.testing.assert_allclose(y[0, :, 0, 0], np.array(sums)/(across[borders]*np.array(counted[borders])), rtol=1e-15)


@of_every_window
def test_the_mean_of_a_constant_is_the_constant_where_only_pixels_of_the_map_count(K, S, P, rounding):
    np.testing.assert_array_equal(avgpool(np.full(SHAPE, 0.75, np.float32), K, S, P, rounding)[0], 0.75)


@of_every_rule
def test_without_windows_over_the_border_all_rules_agree(borders):
    x = maps(np.float32)[:, :, :7]
    np.testing.assert_array_equal(avgpool(x, 3, 2, 0, borders=borders)[0], avgpool(x, 3, 2)[0])


@of_every_rule
@of_every_window
def test_divisors_may_be_given_and_are_those_of_windows_by_their_numbers(K, S, P, rounding, borders):
    x = maps(np.float32)
    y, cache = avgpool(x, K, S, P, rounding, borders)
    rows, columns = (np.repeat(np.arange(n)[:, None], SHAPE[3], axis=1) for n in y.shape[1:3])
    given = divisors(SHAPE[1:3], rows, columns, K, S, P, borders)
    assert given.shape == y.shape[1:]
    same, by_number = avgpool(x, K, S, P, rounding, given)
    np.testing.assert_array_equal(same, y)
    np.testing.assert_array_equal(avgpool_backward(y, by_number), avgpool_backward(y, cache))
    beyond = divisors(SHAPE[1:3], rows + 100, columns - 100, K, S, P, borders)
    assert np.isfinite(beyond).all() and (beyond >= 1).all()


def test_each_picture_divides_by_its_own_divisors():
    x = np.ones((1, 2, 2, 3), np.float32)
    y, cache = avgpool(x, 2, 1, borders=np.array([[[1.0, 2, 8]]]))
    assert y.ravel().tolist() == [4, 2, 0.5]
    assert avgpool_backward(np.ones_like(y), cache)[0, 1, 0].tolist() == [1, 0.5, 0.125]


@of_every_rule
@pytest.mark.parametrize("K", [13, 100, 2**24])
def test_a_window_far_larger_than_the_maps_costs_no_more_than_they_and_is_their_sum(K, borders, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "tap_pixels", lambda *given, of=module.tap_pixels: asked.append(given) or of(*given))
    x = maps(np.float64)
    y, cache = avgpool(x, K, 1, 0, borders=borders)
    count = 11*8 if borders != "padded" else K*K
    np.testing.assert_allclose(y, x.sum(axis=(1, 2), keepdims=True)/count, rtol=0, atol=1e-12*88/count)
    np.testing.assert_array_equal(avgpool_backward(y, cache), np.broadcast_to(y/count, x.shape))
    assert len(asked) <= 2*(11 + 8)*len(x)


def test_what_is_not_a_number_stays_in_its_windows():
    x = maps(np.float32)
    x[1, 2, 3, 4] = np.inf
    y, cache = avgpool(x, 2, 2)
    assert np.isinf(y[1, 1, 1, 4]) and np.isfinite(y).sum() == y.size - 1
    dx = avgpool_backward(y, cache)
    assert np.isinf(dx[1, 2:4, 2:4, 4]).all() and np.isfinite(dx).sum() == dx.size - 4


@pytest.mark.parametrize("budget", [1, 700, 3000, 2**22])
@pytest.mark.parametrize("K,S,P", [(3, 2, 1), (2, 3, 1), (5, 1, 2), (11, 1, 0)])
def test_blocks_of_any_size_on_any_number_of_cores_give_the_same_bits(K, S, P, budget, monkeypatch):
    x = maps(np.float32)
    y, cache = avgpool(x, K, S, P)
    dy = np.random.default_rng(5).standard_normal(y.shape).astype(np.float32)
    dx = avgpool_backward(dy, cache)
    monkeypatch.setattr(module, "map_blocks", lambda *of_map, cut=module.map_blocks: cut(*of_map, budget=budget))
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        np.testing.assert_array_equal(y, avgpool(x, K, S, P)[0])
        np.testing.assert_array_equal(dx, avgpool_backward(dy, cache))


def test_strided_views_are_averaged_like_their_copies():
    x = np.asfortranarray(maps(np.float32))
    y, cache = avgpool(x, 3, 2)
    np.testing.assert_array_equal(y, avgpool(x.copy("C"), 3, 2)[0])
    np.testing.assert_array_equal(avgpool_backward(np.asfortranarray(y), cache), avgpool_backward(y, cache))


def test_wrong_shapes_dtypes_and_rules_are_refused():
    x = np.zeros(SHAPE, np.float32)
    with pytest.raises(Expected, match="float32"):
        avgpool(x.astype(int), 3, 2)
    with pytest.raises(Expected, match="shape"):
        avgpool(x[0], 3, 2)
    with pytest.raises(Expected, match="borders: expected one of inside, padded, clipped, got 'outside'"):
        avgpool(x, 3, 2, borders="outside")
    with pytest.raises(Expected, match=r"divisors: expected shape \(5, 4, 5\)"):
        avgpool(x, 3, 2, borders=np.ones((5, 4)))
    _, cache = avgpool(x, 3, 2)
    with pytest.raises(Expected, match="dy"):
        avgpool_backward(x, cache)


@pytest.mark.parametrize("K,S,P", [(3, 2, 0), (3, 2, 1), (2, 2, 1), (5, 3, 2), (4, 3, 1)])
@pytest.mark.parametrize("rounding", ["ceil", "floor"])
@pytest.mark.parametrize("counts, borders", [(False, "inside"), (True, "clipped")])
def test_avgpool_is_pytorchs(K, S, P, rounding, counts, borders):
    torch = pytest.importorskip("torch")
    x = maps(float)
    y, cache = avgpool(x, K, S, P, rounding, borders)
    dy = np.random.default_rng(8).standard_normal(y.shape)
    x_t = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)
    y_t = torch.nn.functional.avg_pool2d(x_t, K, S, P, ceil_mode=rounding == "ceil", count_include_pad=counts)
    y_t.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))
    np.testing.assert_allclose(y, y_t.detach().numpy().transpose(1, 2, 3, 0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(avgpool_backward(dy, cache), x_t.grad.numpy().transpose(1, 2, 3, 0), rtol=1e-13, atol=1e-13)
