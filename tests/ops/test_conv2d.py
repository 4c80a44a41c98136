"""conv2d, its transpose and its weight gradient, in all NumPy forms: plain windows, those by filters, Winograd's points, added
taps."""
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import conv2d_blocks, winograd
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference, conv2d_transpose
from zfcore.ops.window import output_size

#         C  H   W   N  F  K  S  P  groups rounding
SHAPES = [(3, 9, 8, 2, 5, 3, 2, 1, 1, "ceil"),          # the last column of windows reaches over the border
          (3, 9, 8, 2, 5, 3, 2, 1, 1, "floor"),
          (4, 7, 5, 1, 6, 3, 1, 0, 2, "ceil"),          # two groups, one image
          (6, 6, 9, 2, 3, 4, 3, 3, 3, "ceil"),          # as many groups as filters, P = K - 1
          (2, 2, 3, 3, 4, 5, 1, 0, 1, "ceil"),          # a window larger than the map
          (2, 11, 7, 2, 3, 2, 3, 0, 1, "ceil"),         # pixels that no window sees: S > K
          (2, 11, 7, 2, 3, 2, 3, 1, 1, "floor"),
          (1, 10, 12, 1, 2, 7, 2, 0, 1, "ceil"),        # conv1 of ZFNet in small
          (3, 13, 11, 2, 4, 5, 2, 0, 1, "ceil"),        # conv2
          (3, 10, 13, 3, 4, 3, 1, 1, 1, "ceil"),        # conv3
          (2, 14, 9, 2, 3, 11, 4, 2, 1, "floor"),       # conv1 of AlexNet
          (2, 9, 8, 2, 3, 5, 1, 2, 1, "ceil"),
          (3, 7, 6, 2, 4, 1, 3, 0, 1, "floor"),
          (3, 5, 8, 4, 2, 6, 2, 5, 1, "ceil"),
          (1, 1, 1, 1, 1, 1, 1, 0, 1, "ceil")]


@pytest.fixture(params=["windows", "filters", "points", "taps"])
def form(request, monkeypatch):
    """Every form on every shape it can take, whatever pays at that size."""
    monkeypatch.setattr(conv2d_blocks, "_outputs_are_few", lambda w, y: request.param == "filters")
    monkeypatch.setattr(conv2d_blocks, "_maps_are_few", lambda C, F: request.param == "taps")
    monkeypatch.setattr(conv2d_blocks, "_saves_products",
                        lambda C, F, K, S: request.param == "points" and K <= 3*S)
    return request.param


@pytest.fixture(params=["whole", "cut"])
def blocks(request, monkeypatch):
    """Maps in one or few blocks, and cut as finely as can be."""
    if request.param == "cut":
        for owner, name in ((conv2d_blocks, "BLOCK"), (winograd, "BLOCK"), (winograd, "SLAB")):
            monkeypatch.setattr(owner, name, 1)


def case(C, H, W, N, F, K, S, P, groups, rounding, dtype=np.float64, seed=0):
    """(x, w, b, dy) of that convolution, drawn from N(0,1)."""
    rng = np.random.default_rng(seed)
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    sizes = (C, H, W, N), (C//groups, K, K, F), (F,), (F, Ho, Wo, N)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


def close(got, wanted, rtol=1e-12):
    """Equal to rounding of the largest number: sums of random signs may cancel anywhere."""
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol*max(1, abs(wanted).max(initial=0)))


# --------------------------------------------------------------------------------------------- the specification
@pytest.mark.parametrize("shape", SHAPES[:7])
def test_reference_gradients_are_the_finite_differences_of_the_reference(shape):
    *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape)
    dx, dw, db = conv2d_backward_reference(dy, x, w, S, P, groups)
    rng = np.random.default_rng(1)
    for array, gradient in ((x, dx), (w, dw), (b, db)):
        direction = rng.standard_normal(array.shape)
        array += 0.5*direction                                        # linear in each array: the step may be large
        above = conv2d_reference(x, w, b, S, P, groups, rounding)
        array -= direction
        below = conv2d_reference(x, w, b, S, P, groups, rounding)
        array += 0.5*direction
        assert np.sum(dy*(above - below)) == pytest.approx(np.sum(gradient*direction), rel=1e-10)


def test_reference_of_one_window_is_its_dot_product_with_the_filter_not_flipped():
    x, w, b, _ = case(2, 3, 3, 1, 1, 3, 1, 0, 1, "ceil")
    y = conv2d_reference(x, w, b, 1, 0)
    assert y.item() == pytest.approx(np.sum(x[..., 0]*w[..., 0]) + b[0])


# ------------------------------------------------------------------------------------------------ the NumPy forms
@cache
def wanted(shape, dtype=np.float64):
    """(y, (dx, dw, db)) of the references, which take longer than all forms together."""
    *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape, dtype=dtype)
    return conv2d_reference(x, w, b, S, P, groups, rounding), conv2d_backward_reference(dy, x, w, S, P, groups)


@pytest.mark.parametrize("shape", SHAPES)
def test_conv2d_equals_the_reference(shape, form, blocks):
    *_, S, P, groups, rounding = shape
    x, w, b, _ = case(*shape)
    y, _ = conv2d(x, w, b, S, P, groups, rounding)
    close(y, wanted(shape)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_conv2d_backward_equals_the_reference(shape, form, blocks):
    *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape)
    _, saved = conv2d(x, w, b, S, P, groups, rounding)
    for got, gradient in zip(conv2d_backward(dy, saved), wanted(shape)[1]):
        close(got, gradient)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_size_equals_the_reference(data):
    draw = lambda low, high: data.draw(st.integers(low, high))
    H, W, N, K, S, groups = draw(1, 9), draw(1, 9), draw(1, 3), draw(1, 5), draw(1, 4), draw(1, 2)
    P, C, F = draw(0, K - 1), groups*draw(1, 2), groups*draw(1, 2)
    rounding = "ceil" if min(H, W) + 2*P < K else data.draw(st.sampled_from(["ceil", "floor"]))
    x, w, b, dy = case(C, H, W, N, F, K, S, P, groups, rounding)
    with pytest.MonkeyPatch.context() as patch:
        points = data.draw(st.booleans()) and K <= 3*S
        patch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: points)
        patch.setattr(winograd, "BLOCK", data.draw(st.sampled_from([1, 2**20])))
        y, cache = conv2d(x, w, b, S, P, groups, rounding)
        close(y, conv2d_reference(x, w, b, S, P, groups, rounding))
        for got, wanted in zip(conv2d_backward(dy, cache), conv2d_backward_reference(dy, x, w, S, P, groups)):
            close(got, wanted)


def test_many_maps_take_the_points_by_themselves_and_equal_the_sum_over_windows():
    shape = (129, 5, 4, 3, 130, 3, 1, 1, 1, "ceil")
    assert conv2d_blocks._saves_products(129, 130, 3, 1)
    x, w, b, dy = case(*shape)
    of_x, of_dy = (np.lib.stride_tricks.sliding_window_view(np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
                   for maps in (x, dy))                                 # (maps,5,4,N,3,3)
    y, cache = conv2d(x, w, b, 1, 1)
    close(y, np.einsum("cpqnrs,crsf->fpqn", of_x, w, optimize=True) + b[:, None, None, None])
    for got, wanted in zip(conv2d_backward(dy, cache), (
            np.einsum("fpqnrs,crsf->cpqn", of_dy[..., ::-1, ::-1], w, optimize=True),
            np.einsum("cpqnrs,fpqn->crsf", of_x, dy, optimize=True), dy.sum(axis=(1, 2, 3)))):
        close(got, wanted)


@pytest.mark.parametrize("K, S, products", [(3, 1, 16), (5, 2, 49), (2, 1, 9), (6, 2, 64), (7, 3, 100), (1, 2, 36)])
def test_points_that_a_phase_has_not_are_neither_multiplied_nor_read(K, S, products, monkeypatch):
    monkeypatch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: True)
    monkeypatch.setattr(winograd, "workspace", lambda name, shape, dtype: np.full(shape, np.nan, dtype))
    monkeypatch.setattr(winograd.np, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
    assert sum(maps.stop - maps.start for maps in winograd.maps_of_points(winograd.phases(2, K, S))) == 2*products
    x, w, b, dy = case(2, 9, 8, 1, 3, K, S, 0, 1, "ceil")
    y, cache = conv2d(x, w, b, S, 0)
    close(y, conv2d_reference(x, w, b, S, 0))
    for got, wanted in zip(conv2d_backward(dy, cache), conv2d_backward_reference(dy, x, w, S, 0)):
        close(got, wanted)


def test_points_of_filters_are_made_once_and_again_when_filters_change_in_place(monkeypatch):
    made, make = [], winograd.filter_points
    monkeypatch.setattr(winograd, "filter_points", lambda *of: made.append(of) or make(*of))
    monkeypatch.setattr(conv2d_blocks, "_saves_products", lambda *sizes: True)
    x, w, b, dy = case(3, 9, 8, 1, 5, 3, 1, 1, 1, "ceil")
    for times in (1, 2):
        y, cache = conv2d(x, w, b, 1, 1)
        dx, _, _ = conv2d_backward(dy, cache)
        conv2d(x, w, b, 1, 1)
        assert len(made) == times
        close(y, conv2d_reference(x, w, b, 1, 1))
        close(dx, conv2d_backward_reference(dy, x, w, 1, 1)[0])
        w[2, 1, 0, 4] += 1


def test_points_are_kept_of_a_few_filters_the_last_asked_for(monkeypatch):
    monkeypatch.setattr(winograd, "_KEPT", kept := {})
    several = [case(2, 5, 5, 1, 3, 3, 1, 1, 1, "ceil", seed=seed)[1] for seed in range(winograd.MOST_KEPT + 2)]
    of_phases = winograd.phases(2, 3, 1)
    first = winograd.kept_filter_points(several[0], 1, of_phases)
    for w in several[1:]:
        winograd.kept_filter_points(w, 1, of_phases)
        assert winograd.kept_filter_points(several[0], 1, of_phases) is first
    assert len(kept) == winograd.MOST_KEPT


def test_several_threads_may_ask_for_points_at_once():
    """More filters than are kept, so that each thread takes some away while others look which to take."""
    several = [case(2, 5, 5, 1, 3, 3, 1, 1, 1, "ceil", seed=seed)[1] for seed in range(4*winograd.MOST_KEPT)]
    of_phases, before = winograd.phases(2, 3, 1), sys.getswitchinterval()
    wanted = [winograd.filter_points(w, 1, of_phases) for w in several]

    def ask(first):
        for turn in range(30*len(several)):
            at = (first*turn + first) % len(several)
            assert np.array_equal(winograd.kept_filter_points(several[at], 1, of_phases), wanted[at])
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, (1, 3, 5, 7, 9, 11)))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_stays_float32_and_rounds_like_float32(shape, form):
    *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape, dtype=np.float32)
    y, cache = conv2d(x, w, b, S, P, groups, rounding)
    exact_y, exact_gradients = wanted(shape, np.float32)
    for got, exact in zip((y, *conv2d_backward(dy, cache)), (exact_y, *exact_gradients)):
        assert got.dtype == np.float32
        close(got, exact, rtol=3e-6)


def test_relu_in_the_epilogue_gives_the_bits_of_relu_afterwards(form, blocks):
    for shape in SHAPES:
        *_, S, P, groups, rounding = shape
        x, w, b, _ = case(*shape, dtype=np.float32)
        y, _ = conv2d(x, w, b, S, P, groups, rounding)
        rectified, _ = conv2d(x, w, b, S, P, groups, rounding, relu=True)
        np.testing.assert_array_equal(rectified, np.maximum(y, 0), str(shape))


def test_the_cache_does_not_depend_on_the_epilogue(form):
    x, w, b, dy = case(*SHAPES[0])
    plain, rectified = (conv2d(x, w, b, 2, 1, relu=relu)[1] for relu in (False, True))
    for one, other in zip(conv2d_backward(dy, plain), conv2d_backward(dy, rectified)):
        np.testing.assert_array_equal(one, other)


def test_without_a_bias_there_is_none_to_add_and_no_gradient_of_it(form):
    x, w, b, dy = case(*SHAPES[0])
    y, cache = conv2d(x, w, None, 2, 1)
    close(y, conv2d_reference(x, w, np.zeros_like(b), 2, 1))
    assert conv2d_backward(dy, cache)[2] is None


def test_the_data_gradient_is_left_out_where_nobody_reads_it(form):
    x, w, b, dy = case(*SHAPES[0])
    _, cache = conv2d(x, w, b, 2, 1)
    dx, dw, _ = conv2d_backward(dy, cache, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(dw, conv2d_backward(dy, cache)[1])


def test_transpose_is_the_adjoint_of_conv2d(form):
    for shape in SHAPES:
        _, H, W, *_, S, P, groups, rounding = shape
        x, w, _, dy = case(*shape)
        y, _ = conv2d(x, w, None, S, P, groups, rounding)
        other = np.sum(conv2d_transpose(dy, w, S, P, H, W, groups)*x)
        assert np.sum(dy*y) == pytest.approx(other, rel=1e-11, abs=1e-11), shape


def test_transpose_of_one_unit_is_its_filter_and_exactly_zero_elsewhere(form):
    w = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)
    dy = np.zeros((4, 5, 6, 1), np.float32)
    dy[3, 2, 4] = 1
    dx = conv2d_transpose(dy, w, 1, 1, 5, 6)
    field = np.zeros_like(dx)
    field[:, 1:4, 3:6, 0] = w[..., 3]
    np.testing.assert_allclose(dx, field, atol=1e-6)
    np.testing.assert_array_equal(dx[field == 0], 0)


@pytest.mark.parametrize("shape", SHAPES[:4] + SHAPES[8:10])
def test_same_bits_on_one_core_and_on_many(shape, form, monkeypatch):
    *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape, dtype=np.float32)
    results = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(cpu, "CORES", cores)
        y, cache = conv2d(x, w, b, S, P, groups, rounding)
        results.append((y, *conv2d_backward(dy, cache)))
    for other in results[1:]:
        for got, wanted in zip(other, results[0]):
            np.testing.assert_array_equal(got, wanted)


def test_inputs_are_left_as_they_were_and_may_be_strided_views(form):
    x, w, b, dy = case(*SHAPES[0])
    y, cache = conv2d(x, w, b, 2, 1)
    gradients = conv2d_backward(dy, cache)
    wide_x, wide_w, wide_dy = (np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, w, dy))
    copies = [a.copy() for a in (wide_x, wide_w, b, wide_dy)]
    again, cache = conv2d(wide_x, wide_w, b, 2, 1)
    close(again, y)
    for got, wanted in zip(conv2d_backward(wide_dy, cache), gradients):
        close(got, wanted)
    for array, copy in zip((wide_x, wide_w, b, wide_dy), copies):
        np.testing.assert_array_equal(array, copy)


# -------------------------------------------------------------------------------------------------- the yardstick
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] == "floor"] + [(36, 13, 13, 17, 40, 3, 1, 1, 1, "floor")])
def test_pytorch_computes_the_same(shape):
    torch = pytest.importorskip("torch")
    _, H, W, *_, S, P, groups, rounding = shape
    x, w, b, dy = case(*shape)
    y, cache = conv2d(x, w, b, S, P, groups, rounding)
    ours = y, *conv2d_backward(dy, cache)
    tx, tw = (torch.tensor(np.ascontiguousarray(a.transpose(3, 0, 1, 2)), requires_grad=True) for a in (x, w))
    tb = torch.tensor(b, requires_grad=True)
    ty = torch.nn.functional.conv2d(tx, tw, tb, stride=S, padding=P, groups=groups)
    ty.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))
    for got, wanted in zip(ours, (ty.detach(), tx.grad, tw.grad, tb.grad)):
        wanted = wanted.numpy()
        close(got, wanted.transpose(1, 2, 3, 0) if wanted.ndim == 4 else wanted)


# ------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("change, sentence", [
    (dict(x=(3, 9, 8)), "conv2d x: expected shape (any, any, any, any), got (3, 9, 8)"),
    (dict(w=(4, 3, 3, 5)), "conv2d w: expected shape (3, any, any, any), got (4, 3, 3, 5)"),
    (dict(w=(3, 3, 2, 5)), "conv2d w: expected shape (3, 3, 3, any), got (3, 3, 2, 5)"),
    (dict(b=(4,)), "conv2d b: expected shape (5,), got (4,)"),
    (dict(groups=2), "conv2d x: expected maps divisible by 2 groups, got 3"),
    (dict(groups=3, w=(1, 3, 3, 5)), "conv2d w: expected filters divisible by 3 groups, got 5"),
    (dict(groups=0), "conv2d groups: expected a number above 0, got 0"),
    (dict(S=0), "window: expected size, K, S > 0 and 0 <= P < K, got size 9, K 3, S 0, P 1"),
    (dict(rounding="round"), "rounding: expected one of ceil, floor, got 'round'"),
    (dict(dtype=np.int64), "conv2d x: expected float32 or float64, got int64")])
def test_what_does_not_fit_is_answered_with_one_sentence(change, sentence):
    shapes = {"x": (3, 9, 8, 2), "w": (3, 3, 3, 5), "b": (5,), **change}
    x, w, b = (np.zeros(shapes[name], change.get("dtype", np.float64)) for name in "xwb")
    with pytest.raises(Expected) as error:
        conv2d(x, w, b, change.get("S", 2), 1, change.get("groups", 1), change.get("rounding", "ceil"))
    assert str(error.value) == sentence


def test_mixed_dtypes_are_refused_by_name():
    x, w, b, dy = case(*SHAPES[0])
    with pytest.raises(Expected, match="conv2d w: expected float64, got float32"):
        conv2d(x, w.astype(np.float32), b, 2, 1)
    with pytest.raises(Expected, match="conv2d b: expected float64, got float32"):
        conv2d(x, w, b.astype(np.float32), 2, 1)
    with pytest.raises(Expected, match="conv2d_backward dy: expected float64, got float32"):
        conv2d_backward(dy.astype(np.float32), conv2d(x, w, b, 2, 1)[1])


def test_a_gradient_of_another_size_is_refused():
    x, w, b, dy = case(*SHAPES[0])                                              # y is (5, 5, 5, 2)
    _, cache = conv2d(x, w, b, 2, 1)
    with pytest.raises(Expected, match=r"conv2d_backward dy: expected shape \(5, 5, 5, 2\), got \(5, 4, 5, 2\)"):
        conv2d_backward(dy[:, 1:], cache)
    with pytest.raises(Expected, match=r"conv2d_transpose dy: expected shape \(5, 5, 5, 2\), got \(5, 5, 3, 2\)"):
        conv2d_transpose(dy[:, :, 2:], w, 2, 1, 9, 8)
