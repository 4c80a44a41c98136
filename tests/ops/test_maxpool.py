import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import maxpool as module
from zfcore.ops.maxpool import maxpool, maxpool_backward, maxpool_backward_reference, maxpool_reference
from zfcore.ops.relu import relu, relu_backward, relu_backward_reference

GEOMETRIES = [(3, 2, 0, "ceil"), (3, 2, 1, "ceil"), (3, 2, 1, "floor"), (2, 2, 0, "ceil"), (2, 3, 0, "ceil"),
              (2, 3, 1, "floor"), (5, 1, 4, "ceil"), (4, 3, 2, "floor"), (1, 1, 0, "ceil"), (1, 2, 0, "ceil"),
              (5, 2, 3, "ceil"), (7, 3, 6, "ceil")]
SHAPE = (3, 11, 8, 5)                                                       # C, H, W, N


def maps(dtype, seed=0, levels=4):
    """Few different values, so that nearly every window has a tie."""
    return np.random.default_rng(seed).integers(-levels, levels, SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_maxpool_is_the_reference_ties_included(K, S, P, rounding, dtype):
    x = maps(dtype)
    y, (switches, pooling, kept) = maxpool(x, K, S, P, rounding)
    y_ref, (switches_ref, *_) = maxpool_reference(x, K, S, P, rounding)
    np.testing.assert_array_equal(y, y_ref)
    np.testing.assert_array_equal(switches, switches_ref)
    assert y.dtype == dtype and switches.dtype == np.uint8
    assert pooling == (SHAPE, K, S, P) and kept is y


@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_every_switch_points_into_the_map_at_the_value_of_y(K, S, P, rounding):
    x = maps(np.float32)
    x[1] = -np.inf                                                          # no padding, not even -inf, may win here
    y, (switches, *_) = maxpool(x, K, S, P, rounding)
    c, p, q, n = np.indices(y.shape)
    h, w = p*S - P + switches//K, q*S - P + switches % K
    assert (h >= 0).all() and (h < SHAPE[1]).all() and (w >= 0).all() and (w < SHAPE[2]).all()
    np.testing.assert_array_equal(x[c, h, w, n], y)


def test_the_first_maximum_in_row_order_wins_a_tie():
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 2] = x[0, 2, 0] = 1
    _, (switches, *_) = maxpool(x, 3, 3)
    assert switches.item() == 1*3 + 2
    x[0, 1, 0] = 1
    _, (switches, *_) = maxpool(x, 3, 3)
    assert switches.item() == 1*3 + 0


def test_padding_never_wins_over_negative_pixels():
    y, (switches, *_) = maxpool(np.full((1, 2, 3, 1), -7.0), 3, 2, 1)
    assert (y == -7).all()
    assert switches[0, :, :, 0].tolist() == [[4, 3], [1, 0]]               # the first place inside the map


@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_a_nan_wins_over_every_number_and_the_first_nan_over_the_others(K, S, P, rounding):
    x = maps(np.float32)
    x[np.random.default_rng(1).random(SHAPE) < 0.15] = np.nan
    x[0, 0, 0, 0] = np.inf
    y, (switches, *_) = maxpool(x, K, S, P, rounding)
    y_ref, (switches_ref, *_) = maxpool_reference(x, K, S, P, rounding)
    np.testing.assert_array_equal(y, y_ref)
    np.testing.assert_array_equal(switches, switches_ref)
    assert np.isnan(y).any()


def test_a_nan_in_one_window_leaves_the_switches_of_the_others():
    x = maps(np.float32)
    _, (before, *_) = maxpool(x, 2, 2)
    x[2, 4, 4, 3] = np.nan
    y, (after, *_) = maxpool(x, 2, 2)
    assert np.isnan(y[2, 2, 2, 3]) and np.isnan(y).sum() == 1
    before[2, 2, 2, 3] = 0
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_maxpool_backward_is_the_reference(K, S, P, rounding, dtype):
    y, cache = maxpool(maps(dtype), K, S, P, rounding)
    dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
    dx = maxpool_backward(dy, cache)
    assert dx.dtype == dtype and dx.shape == SHAPE
    np.testing.assert_allclose(dx, maxpool_backward_reference(dy.astype(float), cache), rtol=0,
                               atol=8*np.finfo(dtype).eps*np.abs(dy).max()*K*K)


@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_maxpool_backward_is_the_adjoint_of_picking_the_switches(K, S, P, rounding):
    _, cache = maxpool(maps(float), K, S, P, rounding)
    switches = cache[0]
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal(switches.shape), rng.standard_normal(SHAPE)
    c, p, q, n = np.indices(switches.shape)
    picked = v[c, p*S - P + switches//K, q*S - P + switches % K, n]
    np.testing.assert_allclose(np.vdot(u, picked), np.vdot(maxpool_backward(u, cache), v), rtol=1e-12)


def test_unpooling_puts_pooled_values_back_where_the_maxima_were():
    x = np.random.default_rng(4).random(SHAPE) + 1
    y, cache = maxpool(x, 2, 2)                                             # windows that do not overlap
    back = maxpool_backward(y, cache)
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    assert (back != 0).sum() == y.size
    np.testing.assert_array_equal(maxpool(back, 2, 2)[0], y)


def test_windows_that_chose_the_same_pixel_add_up():
    x = np.zeros((1, 5, 5, 1))
    x[0, 2, 2] = 1                                                          # in all four windows
    y, cache = maxpool(x, 3, 2)
    dx = maxpool_backward(np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 2, 2, 1), cache)
    assert (y == 1).all()
    assert dx[0, 2, 2, 0] == 1111 and np.count_nonzero(dx) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K,S,P,rounding", GEOMETRIES)
def test_going_on_through_the_relu_below_gives_the_bits_of_its_own_backward(K, S, P, rounding, dtype):
    x = maps(dtype)                                                         # about half of it off
    x[np.random.default_rng(1).random(SHAPE) < 0.05] = np.nan
    x = relu(x)[0]
    y, cache = maxpool(x, K, S, P, rounding)
    dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
    dy[0, 0, 0, 0], dy[1, 1, 1, 1] = np.inf, -0.0
    wanted = relu_backward(maxpool_backward(dy, cache), x)
    assert maxpool_backward(dy, cache, relu=True).tobytes() == wanted.tobytes()
    if K <= 3:
        reference = relu_backward_reference(maxpool_backward_reference(dy, cache), x)
        np.testing.assert_array_equal(maxpool_backward_reference(dy, cache, relu=True), reference)


def test_a_window_that_is_all_off_sends_nothing_through_the_relu_but_something_to_its_first_pixel_without():
    y, cache = maxpool(np.zeros((1, 3, 3, 1)), 3, 2)
    assert maxpool_backward(np.ones_like(y), cache)[0, 0, 0, 0] == 1
    assert not maxpool_backward(np.ones_like(y), cache, relu=True).any()


def test_an_infinite_gradient_reaches_its_own_pixel_alone():
    y, cache = maxpool(maps(np.float32, levels=1000), 3, 2)
    dy = np.ones_like(y)
    dy[1, 2, 1, 3] = np.inf
    dx = maxpool_backward(dy, cache)
    assert np.isinf(dx).sum() == 1 and np.isfinite(dx).sum() == dx.size - 1


@pytest.mark.parametrize("budget", [1, 700, 3000, 2**22])
def test_blocks_of_any_size_on_any_number_of_cores_give_the_same_bits(budget, monkeypatch):
    x = maps(np.float32, levels=1000)
    y, cache = maxpool(x, 3, 2, 1)
    dy = np.random.default_rng(5).standard_normal(y.shape).astype(np.float32)
    dx = maxpool_backward(dy, cache)
    monkeypatch.setattr(module, "map_blocks", lambda *of_map, cut=module.map_blocks, **_: cut(*of_map, budget=budget))
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        y2, cache2 = maxpool(x, 3, 2, 1)
        np.testing.assert_array_equal(y, y2)
        np.testing.assert_array_equal(cache[0], cache2[0])
        np.testing.assert_array_equal(dx, maxpool_backward(dy, cache2))


def test_strided_views_are_pooled_like_their_copies():
    x = np.asfortranarray(maps(np.float32))
    y, cache = maxpool(x, 3, 2)
    np.testing.assert_array_equal(y, maxpool(x.copy("C"), 3, 2)[0])
    dy = np.random.default_rng(6).standard_normal(y.shape)
    np.testing.assert_array_equal(maxpool_backward(np.asfortranarray(dy), cache), maxpool_backward(dy, cache))


def test_the_largest_window_fits_its_places_into_a_byte():
    x = np.zeros((1, 15, 15, 1), np.float32)
    x[0, 14, 14] = 1
    _, (switches, *_) = maxpool(x, 15, 1)
    assert switches.item() == 224
    with pytest.raises(Expected, match="15x15"):
        maxpool(np.zeros((1, 16, 16, 1), np.float32), 16, 1)


def test_wrong_shapes_and_dtypes_are_refused():
    with pytest.raises(Expected, match="float32"):
        maxpool(np.zeros(SHAPE, np.int32), 3, 2)
    with pytest.raises(Expected, match="shape"):
        maxpool(np.zeros(SHAPE[1:], np.float32), 3, 2)
    _, cache = maxpool(np.zeros(SHAPE, np.float32), 3, 2)
    with pytest.raises(Expected, match="dy"):
        maxpool_backward(np.zeros(SHAPE, np.float32), cache)


@pytest.mark.parametrize("K,S,P", [(3, 2, 0), (3, 2, 1), (2, 2, 1), (5, 3, 2)])
@pytest.mark.parametrize("rounding", ["ceil", "floor"])
def test_maxpool_is_pytorchs(K, S, P, rounding):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(7).standard_normal(SHAPE)
    y, cache = maxpool(x, K, S, P, rounding)
    dy = np.random.default_rng(8).standard_normal(y.shape)
    x_t = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)
    y_t = torch.nn.functional.max_pool2d(x_t, K, S, P, ceil_mode=rounding == "ceil")
    y_t.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))
    np.testing.assert_array_equal(y, y_t.detach().numpy().transpose(1, 2, 3, 0))
    dx_t = x_t.grad.numpy().transpose(1, 2, 3, 0)
    np.testing.assert_allclose(maxpool_backward(dy, cache), dx_t, rtol=1e-14, atol=1e-14)
