"""The convolution that takes its pool along gives the bits of conv2d, ReLU and maxpool one after the other."""
import numpy as np
import pytest

from bench.gpu import recorded
from tests import executor
from tests.kernels.conftest import Machine, in_any_order
from zfcore.backend import BF16
from zfcore.device import select
from zfcore.kernel import PRECISIONS, blocks
from zfcore.ops import conv2d_kernels, tuning
from zfcore.ops.conv2d import check_conv2d, conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference
from zfcore.ops.conv2d_maxpool import (conv2d_maxpool, conv2d_maxpool_backward, gradient_fits, gradient_fits_wgmma,
                                       launch_maxpool, pool_fits, pool_fits_wgmma)
from zfcore.ops.convert import from_bf16, to_bf16
from zfcore.ops.maxpool import Pooling, maxpool, maxpool_backward, maxpool_backward_reference, maxpool_reference

CHAINS = {      # C  H   W  N   F   K  S  P   pool: K, S, P, rounding
    "three strips, the last short":        (3, 9, 40, 8, 104, 3, 1, 0, (3, 2, 0, "ceil")),
    "windows over every border":           (2, 11, 13, 16, 24, 4, 2, 1, (3, 2, 1, "ceil")),
    "side by side, a row left over":       (3, 6, 21, 8, 96, 3, 1, 1, (2, 2, 0, "floor")),
    "with gaps":                           (3, 12, 33, 8, 5*8, 2, 1, 0, (2, 3, 1, "ceil")),
    "a map smaller than the window":       (16, 3, 3, 8, 96, 2, 1, 0, (3, 2, 1, "ceil")),
}

APART = {}      # (device, name, precision) -> y and switches of one after the other


def chain(name, dtype=np.float32):
    """(x, w, b), the window and the pool. Small whole numbers, so that many maxima are met twice; a NaN and an infinity."""
    C, H, W, N, F, K, S, P, pool = CHAINS[name]
    rng = np.random.default_rng(8)
    x, w, b = (rng.integers(-2, 3, size).astype(dtype) for size in ((C, H, W, N), (C, K, K, F), (F,)))
    x[0, 1, 2, 3], x[1, 2, 0, 1] = np.nan, np.inf
    return (x, w, b/4), (S, P), pool


def one_after_the_other(machine, name, precision):
    """(y, switches) of conv2d, ReLU and maxpool there, in whatever way they were asked for first: all ways give their bits,
    which their own tests say."""
    if (key := (machine.device, name, precision)) not in APART:
        (x, w, b), (S, P), pool = chain(name)
        stored = machine.stored(precision)
        between = conv2d(stored(x), stored(w), machine.array(b), S, P, relu=True, precision=precision)[0]
        y, (switches, *_) = maxpool(between, *pool)
        APART[key] = machine.host(y), machine.host(switches)
    return APART[key]


# Tiles of fp32x3, which rounds to TF32 twice, take turns as those of TF32 do.
in_turn = [pytest.param(way, precision, marks=[pytest.mark.exhaustive]*(precision == "fp32x3" and way not in ("random", "gpu")))
           for way in ("random", "skewed", "race", "bounds", "gpu") for precision in PRECISIONS]


@pytest.mark.parametrize("machine, precision", in_turn, indirect=["machine"])
def test_convolution_and_pool_in_one_pass_give_the_bits_of_one_after_the_other(machine, precision):
    """Blocks of one row of the pool, and of many; other pools than the paper's in fp32 alone, as each is compiled."""
    names = machine.some([name for name in CHAINS if precision == "fp32" or CHAINS[name][-1][:2] == (3, 2)])

    def together(name):
        (x, w, b), (S, P), pool = chain(name)
        x, w, b = *map(machine.stored(precision), (x, w)), machine.array(b)
        size = check_conv2d(x, w, b, S, P, 1, "ceil", precision)
        for multiprocessors in 132, 1:
            with tuning.use(multiprocessors=multiprocessors):
                y, (switches, pooling, _) = launch_maxpool(x, w, b, S, P, pool, size, precision)
            assert pooling == (size, *pool[:3])
            yield from (y, switches)

    found = iter(machine.results(lambda: [array for name in names for array in together(name)],
                                 [(name, k) for name in names for k in range(4)]))
    for name in names:
        y, switches = one_after_the_other(machine, name, precision)
        y = from_bf16(y) if y.dtype == BF16 else y
        assert np.isnan(y).any() and (y == 0).any()
        for wanted in (y, switches)*2:
            assert next(found).tobytes() == wanted.tobytes(), name
    assert next(found, None) is None


def test_convolution_and_pool_in_one_pass_are_the_reference(machine):
    (x, w, b), (S, P), pool = chain("windows over every border")
    x[~np.isfinite(x)] = 1                                                            # then every sum is exact
    between = np.maximum(conv2d_reference(x, w, b, S, P), 0)
    wanted, (wanted_switches, *_) = maxpool_reference(between, *pool)

    def work():
        y, (switches, *_) = launch_maxpool(*map(machine.array, (x, w, b)), S, P, pool, between.shape, "fp32")
        return y, switches

    y, switches = machine.results(work)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(switches, wanted_switches)


@in_any_order
def test_a_convolution_without_bias_takes_its_pool_along(machine):
    (x, w, _), (S, P), pool = chain("a map smaller than the window")
    y, = machine.results(lambda: [conv2d_maxpool(machine.array(x), machine.array(w), None, S, P, pool)[1][0]])
    between = conv2d(machine.array(x), machine.array(w), None, S, P, relu=True)[0]
    assert y.tobytes() == machine.host(maxpool(between, *pool)[0]).tobytes()


@executor.asynchronous()
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@executor.requires_executor
def test_rows_and_tiles_take_turns_in_shared_memory_however_late_copies_land(way, precision):
    (x, w, b), (S, P), pool = chain("three strips, the last short")
    with executor.settings(way), tuning.use(multiprocessors=1):
        stored = (lambda array: executor.array(to_bf16(array))) if precision == "bf16" else executor.array
        x, w, b = stored(x[:, :, :11]), stored(w), executor.array(b)
        y = launch_maxpool(x, w, b, S, P, pool, check_conv2d(x, w, b, S, P, 1, "ceil", precision), precision)[0]
        wanted, _ = maxpool(conv2d(x, w, b, S, P, relu=True, precision=precision)[0], *pool)
    assert y.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_gradient_of_both_has_the_bits_of_one_behind_the_other_and_the_bias_the_sum_before_the_pool(machine, precision):
    """Windows that share pixels: in bf16 what the pool adds up there is rounded, what the bias gets is not."""
    (x, w, b), (S, P), pool = chain("windows over every border")
    x[~np.isfinite(x)] = 1
    x, w, b = *map(machine.stored(precision), (x, w)), machine.array(b)
    cache, (y, of_pool) = conv2d_maxpool(x, w, b, S, P, pool, precision=precision)
    dy = np.random.default_rng(9).standard_normal(y.shape, np.float32)
    dy = from_bf16(to_bf16(dy)) if precision == "bf16" else dy
    stored = machine.stored(precision)(dy)
    apart = conv2d_backward(maxpool_backward(stored, of_pool), cache)
    *bits, db = machine.results(lambda: conv2d_maxpool_backward(stored, cache, of_pool))
    for got, wanted in zip(bits, map(machine.host, apart)):
        assert got.tobytes() == (from_bf16(wanted) if wanted.dtype == BF16 else wanted).tobytes()
    terms = dy.astype(np.float64).reshape(len(dy), -1)
    np.testing.assert_array_less(np.abs(db - terms.sum(axis=1)), 20*2.0**-24*np.abs(terms).sum(axis=1))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_gradient_that_spreads_over_the_map_on_its_way_has_the_bits_of_the_map(machine, precision, monkeypatch):
    """Of several tiles of filters, of windows over every border and of such that share no pixel; dw's tiles are the same in
    both ways. The map that maxpool_backward leaves is the reference's, as its own tests say."""
    names = ["three strips, the last short", "windows over every border"] + ["with gaps"]*(precision == "bf16")
    monkeypatch.setitem(conv2d_kernels.FILTER_GRADIENT_KERNELS, precision, [
        kernel for kernel in conv2d_kernels.FILTER_GRADIENT_KERNELS[precision] if kernel.defines["BM"] == 160])

    def ways(name):
        (x, w, _), (S, P), pool = chain(name)
        x[~np.isfinite(x)] = 1
        x, w = map(machine.stored(precision), (x[:, :, :12, :8], w))
        cache, (y, of_pool) = conv2d_maxpool(x, w, None, S, P, pool, precision=precision)
        dy = machine.stored(precision)(np.random.default_rng(9).standard_normal(y.shape, np.float32))
        with tuning.use(slice_terms=100):
            assert gradient_fits(cache, of_pool)
            return (conv2d_maxpool_backward(dy, cache, of_pool, need_dx=False)[1],
                    conv2d_backward(maxpool_backward(dy, of_pool), cache, need_dx=False)[1])

    found = machine.results(lambda: [dw for name in names for dw in ways(name)])
    for name, one, other in zip(names, found[::2], found[1::2], strict=True):
        assert np.isfinite(one).all() and one.any() and one.tobytes() == other.tobytes(), name


@executor.asynchronous()
@executor.requires_executor
def test_gradients_stand_in_their_tile_before_it_is_multiplied_however_late_copies_land(way):
    (x, w, _), (S, P), pool = chain("windows over every border")
    x, w = (executor.array(to_bf16(array)) for array in (x[..., :8], w))
    cache, (y, of_pool) = conv2d_maxpool(x, w, None, S, P, pool, precision="bf16")
    dy = executor.array(to_bf16(np.random.default_rng(9).standard_normal(y.shape, np.float32)))
    with executor.settings("forward"):
        wanted = conv2d_maxpool_backward(dy, cache, of_pool, need_dx=False)[1]
    with executor.settings(way):
        assert conv2d_maxpool_backward(dy, cache, of_pool, need_dx=False)[1].tobytes() == wanted.tobytes()


ON_WGMMA = {    # C  H   W  N   F   K  S  P   pool: K, S, P, rounding; slices
    "windows of 7, the second colour of images a tail": (3, 13, 15, 72, 16, 7, 2, 1, (3, 2, 1, "ceil"), 7),
    "two tiles of filters":                             (2, 9, 11, 24, 104, 4, 2, 0, (3, 2, 0, "ceil"), 2),
    "side by side, a row left over":                    (3, 6, 8, 8, 8, 3, 1, 1, (2, 2, 0, "floor"), 1),
    "more slices than steps":                           (5, 6, 5, 8, 24, 2, 1, 0, (3, 2, 1, "ceil"), 19),
}


def on_wgmma(machine, name):
    """([dw, db] of the way back from the pool there, the same in float64). Whole numbers, whose sums are exact in any order."""
    C, H, W, N, F, K, S, P, pool, slices = ON_WGMMA[name]
    rng = np.random.default_rng(8)
    x, w, b = (rng.integers(-2, 3, size).astype(np.float32) for size in ((C, H, W, N), (C, K, K, F), (F,)))
    between = np.maximum(conv2d(x, w, b, S, P)[0], 0)
    y, of_pool = maxpool_reference(between, *pool)
    dy = rng.integers(-3, 4, y.shape).astype(np.float32)*(y > 0)
    wanted = conv2d_backward_reference(maxpool_backward_reference(dy, of_pool).astype(float), x.astype(float), w, S, P)[1]
    _, cache = conv2d(*map(machine.stored("bf16"), (x, w)), machine.array(b), S, P, precision="bf16", training=True)
    of_pool, dy = of_pool._replace(switches=machine.array(of_pool.switches)), machine.stored("bf16")(dy)
    with tuning.use(slice_terms=1, wgmma_blocks=slices*blocks(F, 96)):
        (dx, *got), tape = recorded(lambda dy: conv2d_maxpool_backward(dy, cache, of_pool, need_dx=False), [dy])
    names = [kernel.name for kernel, *_ in tape]
    assert dx is None and names == ["conv2d_wgmma_maxpool_gradient"] + ["conv2d_sum_slices"]*(slices > 1)
    return got, (wanted, from_bf16(machine.host(dy)).sum((1, 2, 3)))


def test_the_gradient_on_wgmma_and_the_biass_are_the_reference(machine, hopper):
    wanted = {}

    def work():
        for name in machine.some(list(ON_WGMMA)):
            got, wanted[name] = on_wgmma(machine, name)
            yield from got

    names = machine.some(list(ON_WGMMA))
    found = machine.results(work, [(name, k) for name in names for k in range(2)])
    for name, dw, db in zip(names, found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(dw, wanted[name][0], name)
        np.testing.assert_array_equal(db, wanted[name][1], name)


@executor.asynchronous(wgmma=True)
@executor.requires_executor
def test_the_gradient_on_wgmma_waits_for_what_it_multiplies_however_late_that_comes(way, hopper):
    with executor.settings(way):
        (dw, db), wanted = on_wgmma(Machine("", select("executor"), way, again=False), "more slices than steps")
    np.testing.assert_array_equal(executor.plain(dw), wanted[0])
    np.testing.assert_array_equal(executor.plain(db), wanted[1])


@pytest.mark.parametrize("shape, S, groups, pool, fits", [
    ((3, 7, 7, 96), 2, 1, (3, 2), True), ((8, 3, 3, 8), 1, 1, (2, 1), True), ((3, 8, 8, 96), 2, 1, (4, 2), True),
    ((3, 9, 9, 96), 2, 1, (3, 2), False), ((4, 7, 7, 96), 1, 1, (3, 2), False), ((3, 7, 7, 96), 3, 1, (3, 2), False),
    ((3, 7, 7, 100), 2, 1, (3, 2), False), ((3, 7, 7, 96), 2, 2, (3, 2), False), ((3, 7, 7, 96), 1, 1, (3, 3), False),
    ((3, 7, 7, 96), 2, 1, (5, 2), False)])
def test_what_the_gradient_on_wgmma_takes(shape, S, groups, pool, fits):
    assert gradient_fits_wgmma(shape, S, groups, *pool) == fits


POOLED = {      # C  H   W  N   F   K  S  P   pool: K, S, P, rounding
    "windows over every border, an odd batch":  (3, 11, 13, 75, 96, 7, 2, 1, (3, 2, 1, "ceil")),
    "two tiles of filters, one image":          (2, 9, 12, 1, 192, 4, 2, 0, (3, 2, 0, "ceil")),
    "a row left over":                          (4, 7, 8, 16, 96, 3, 1, 1, (3, 2, 0, "floor")),
    "windows of two":                           (3, 6, 7, 8, 96, 2, 1, 0, (2, 1, 1, "ceil")),
}


def pooled(machine, name, multiprocessors=5):
    """([y, switches] of convolution and pool there, the same of one behind the other in NumPy). Quarters, of which many are
    equal, above all when they are rounded; one filter's are NaN."""
    C, H, W, N, F, K, S, P, pool = POOLED[name]
    rng = np.random.default_rng(8)
    x, w, b = (rng.integers(-1, 2, size).astype(np.float32) for size in ((C, H, W, N), (C, K, K, F), (F,)))
    b = (b - 2)/4
    b[5] = np.nan
    wanted = maxpool_reference(from_bf16(to_bf16(np.maximum(conv2d(x, w, b, S, P)[0], 0))), *pool)
    with tuning.use(multiprocessors=multiprocessors):
        x, w, b = *map(machine.stored("bf16"), (x, w)), machine.array(b)
        (cache, (y, of_pool)), tape = recorded(
            lambda x: conv2d_maxpool(x, w, b, S, P, pool, precision="bf16", training=True), [x])
    assert tape[-1][0].name == "conv2d_wgmma_maxpool" and len(tape) == 1 + (N % 8 > 0)
    assert cache.training and of_pool.pooling == wanted[1].pooling
    return (y, of_pool.switches), wanted


def test_convolution_and_pool_on_wgmma_are_the_reference_in_any_batch(machine, hopper):
    names, wanted = machine.some(list(POOLED)), {}

    def work():
        for name in names:
            got, wanted[name] = pooled(machine, name)
            yield from got

    found = machine.results(work, [(name, k) for name in names for k in range(2)])
    for name, y, switches in zip(names, found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(y, wanted[name][0], name)
        np.testing.assert_array_equal(switches, wanted[name][1].switches, name)


@executor.asynchronous(wgmma=True)
@executor.requires_executor
def test_the_pool_on_wgmma_waits_for_what_it_multiplies_however_late_that_comes(way, hopper):
    with executor.settings(way):
        (y, switches), wanted = pooled(Machine("", select("executor"), way, again=False), "a row left over", multiprocessors=1)
    np.testing.assert_array_equal(from_bf16(executor.plain(y)), wanted[0])
    np.testing.assert_array_equal(executor.plain(switches), wanted[1].switches)


@in_any_order
def test_an_image_under_a_pool_on_wgmma_has_the_same_bits_in_any_batch(machine, hopper, rng):
    x, w, b = (rng.standard_normal(size, np.float32) for size in ((3, 9, 11, 75), (3, 5, 5, 96), (96,)))

    def some(*images):
        part = machine.stored("bf16")(np.ascontiguousarray(x[..., slice(*images)]))
        _, (y, of_pool) = conv2d_maxpool(part, *stored, 2, 1, (3, 2, 1, "ceil"), precision="bf16", training=True)
        return y, of_pool.switches

    stored = machine.stored("bf16")(w), machine.array(b)
    *whole, y, switches = machine.results(lambda: [*some(0, 75), *some(61, 70)])
    np.testing.assert_array_equal(y, whole[0][..., 61:70])
    np.testing.assert_array_equal(switches, whole[1][..., 61:70])


@pytest.mark.parametrize("shape, S, groups, pool, fits", [
    ((3, 7, 7, 96), 2, 1, (3, 2), True), ((8, 3, 3, 192), 1, 1, (2, 1), True), ((3, 8, 8, 96), 1, 1, (3, 2), True),
    ((3, 9, 9, 96), 1, 1, (3, 2), False), ((4, 7, 7, 96), 1, 1, (3, 2), False), ((3, 7, 7, 96), 3, 1, (3, 2), False),
    ((3, 7, 7, 104), 2, 1, (3, 2), False), ((3, 7, 7, 96), 2, 2, (3, 2), False), ((3, 7, 7, 96), 2, 1, (2, 2), False)])
def test_what_the_pool_on_wgmma_takes(shape, S, groups, pool, fits):
    assert pool_fits_wgmma(shape, S, groups, *pool) == fits


def test_a_pool_is_taken_along_where_products_are_few_and_sizes_fit(machine):
    def fits(C=3, K=7, F=96, N=128, pool=(3, 2, 0, "ceil"), groups=1, array=machine.array):
        x, w = np.empty((C, 9, 9, N), np.float32), np.empty((C//groups, K, K, F), np.float32)
        return pool_fits(array(x), w, 2, pool, groups)

    assert fits() and fits(N=8, F=192, pool=(2, 2, 1, "floor"))
    assert not any([fits(array=np.asarray), fits(N=12), fits(F=24), fits(C=96, K=5, F=384), fits(C=6, groups=2),
                    fits(pool=(4, 2, 0, "ceil")), fits(pool=(2, 1, 0, "ceil"))])


def test_the_gradient_spreads_on_its_way_where_its_rows_are_one_tile(machine):
    cache, of_pool = conv2d_maxpool(np.zeros((1, 3, 3, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32), None, 1, 0, (3, 2))
    of_pool = of_pool[1]

    def fits(C=3, K=7, F=96, N=128, pool=(3, 2, 0), groups=1, precision="bf16"):
        x, w = np.empty((C, 9, 9, N), np.uint16), np.empty((C//groups, K, K, F), np.uint16)
        return gradient_fits(cache._replace(x=x, w=w, groups=groups, precision=precision),
                             of_pool._replace(pooling=Pooling((F, 5, 5, N), *pool)))

    assert fits() and fits(N=8, F=10, pool=(2, 2, 1), precision="tf32")
    assert not any([fits(precision="fp32"), fits(N=12), fits(C=96, K=5), fits(C=6, groups=2), fits(pool=(5, 2, 0))])
