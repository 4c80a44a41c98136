"""conv2d, its transpose and its filter gradient as kernels: the plain ones against the reference, the tiled ones against
the plain ones, bit by bit where the order of the sum is the same; those of tensor cores against the reference, given factors
rounded as the kernels round them."""
from functools import cache

import numpy as np
import pytest

from tests import executor
from tests.kernels.conftest import BF16_UNIT, EPS, close, in_any_order
from zfcore import backend
from zfcore.check import Expected
from zfcore.cubin import kernels_folder
from zfcore.device import select
from zfcore.kernel import PRECISIONS, blocks
from zfcore.ops import conv2d_kernels, tuning
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_backward_reference, conv2d_reference, conv2d_transpose
from zfcore.ops.conv2d_kernels import (FILTER_GRADIENT_KERNELS, FILTER_GRADIENT_PLAIN, FORWARD_KERNELS, PLAIN,
                                       TRANSPOSE_KERNELS, TRANSPOSE_PLAIN)
from zfcore.ops.convert import in_float, to_bf16
from zfcore.ops.window import output_size

CASES = {       # C   H   W    N    F  K  S  P groups rounding
    "tails on every tile, by eights":    (4, 5, 4, 40, 136, 3, 2, 1, 1, "ceil"),
    "tails on every tile, odd":          (3, 5, 4, 37, 131, 3, 2, 1, 1, "floor"),
    "one pixel a tile, padding":         (16, 3, 2, 128, 16, 3, 1, 1, 1, "ceil"),
    "two groups by fours":               (8, 7, 5, 8, 32, 3, 1, 0, 2, "ceil"),
    "three groups, P = K - 1":           (3, 6, 9, 5, 6, 4, 3, 3, 3, "ceil"),
    "windows reach over the border":     (2, 7, 10, 3, 5, 4, 3, 0, 1, "ceil"),
    "the same map, windows inside":      (2, 7, 10, 3, 5, 4, 3, 0, 1, "floor"),
    "a window larger than the map":      (2, 2, 3, 3, 4, 5, 1, 0, 1, "ceil"),
    "pixels that no window sees":        (2, 11, 7, 3, 3, 2, 3, 1, 1, "floor"),
    "32 maps, a tile of places each":    (32, 7, 5, 3, 3, 5, 2, 2, 1, "ceil"),
    "one picture":                       (3, 13, 9, 1, 10, 5, 2, 1, 1, "ceil"),
    "more than one tile of images":      (2, 6, 5, 130, 5, 4, 3, 2, 1, "ceil"),
    "8 maps and 16 filters by eights":   (8, 4, 5, 40, 16, 3, 2, 1, 1, "ceil"),
}
DOWN = [name for name, (_, _, _, _, F, *_) in CASES.items() if F < 100]     # to the transpose F is but the length of a sum
TENSOR = PRECISIONS[1:]
PLAIN_BITS = {}                                  # (device, name of a case) -> y, dx and dw of the plain kernels
DROPPED = {"tf32": 13, "bf16": 16}               # low bits of a float32 number that rounding drops


def rounded(x, low):
    """x, each number to the nearest of those whose `low` last bits are zero."""
    low = np.uint32(low)
    bits = x.view(np.uint32)
    half = (np.uint32(1) << low >> np.uint32(1)) - (low > 0) + (bits >> low & 1)*(low > 0)
    return ((bits + half.astype(np.uint32)) >> low << low).view(np.float32)


@cache
def case(name, seed=0):
    """(x, w, b, dy) of that convolution, and its S, P, groups. No number lies half-way between two of tf32 or bf16: which of
    these is the nearest depends on the GPU."""
    C, H, W, N, F, K, S, P, groups, rounding = CASES[name]
    rng = np.random.default_rng(seed)
    Ho, Wo = output_size(H, K, S, P, rounding), output_size(W, K, S, P, rounding)
    arrays = [rng.standard_normal(size, np.float32) for size in (
        (C, H, W, N), (C//groups, K, K, F), (F,), (F, Ho, Wo, N))]
    for array in arrays:
        array.view(np.uint32)[...] |= 1
    return tuple(arrays), (S, P, groups)


def roundings(n, precision):
    """How many EPS of the sum of their magnitudes a sum of n products may be wrong by, given rounded factors.

    Added one by one, half a one for each (Higham, Accuracy and Stability, section 3.1). A tensor core may cut off each of 8
    products and the sum that it adds them to at the last place of the largest of the nine (Fasi, Higham, Mikaitis and Pranesh
    2021, Numerical behavior of NVIDIA tensor cores). fp32x3 leaves out products of 2^-22 and two remainders of 2^-23."""
    return (n + 2)/2 if precision == "fp32" else 9/8*n + 10 + 4*(precision == "fp32x3")


@cache
def sums(name, low):
    """(y, dx, dw) in float64, of factors that are rounded to so many bits less."""
    (x, w, b, dy), (S, P, groups) = case(name)
    x, w, rounded_dy = (rounded(array, low) for array in (x, w, dy))
    return conv2d_reference(x, w, b, S, P, groups, CASES[name][-1]), *conv2d_backward_reference(rounded_dy, x, w, S, P,
                                                                                                groups)[:2]


@cache
def sizes(name):
    """Of y, dx and dw, the sums of their products' magnitudes, as NumPy's form has them: an allowance need not be exact."""
    (x, w, b, dy), (S, P, groups) = case(name)
    x, w, b, dy = (abs(array).astype(float) for array in (x, w, b, dy))
    y, saved = conv2d(x, w, b, S, P, groups, CASES[name][-1])
    return y, *conv2d_backward(dy, saved)[:2]


@cache
def truth(name, precision="fp32"):
    """((y, error of y), (dx, error), (dw, error), (db, error)) in float64, of rounded factors."""
    (_, w, _, dy), (*_, groups) = case(name)
    dy = rounded(dy, 16) if precision == "bf16" else dy
    (F, Ho, Wo, N), (Cg, K), low = dy.shape, w.shape[:2], DROPPED.get(precision, 0)
    products = Cg*K*K, F//groups*K*K, Ho*Wo*N
    larger = (1 + 2.0**(low - 24))**2 if low else 1                # what rounding may add to the magnitude of two factors
    stored = (BF16_UNIT, BF16_UNIT, 0) if precision == "bf16" else (0, 0, 0)          # y and dx are rounded once more
    return [*((value, (1 + unit)*roundings(n, precision)*EPS*larger*size + unit*abs(value))
              for value, size, n, unit in zip(sums(name, low), sizes(name), products, stored)),
            (dy.sum(axis=(1, 2, 3), dtype=np.float64), (Ho*Wo*N + 2)*EPS/2*abs(dy).sum(axis=(1, 2, 3), dtype=np.float64))]


def fits(kernel, M, N):
    return kernel in conv2d_kernels.fitting([kernel], M, N)


def by(kernel):
    return kernel.defines.get("PRECISION", "").lower() + " " + "x".join(str(kernel.defines[side]) for side in ("BM", "BN")) + (
        " one by one" if kernel.defines.get("VECTOR_B") == 1 else "")


def precision_of(kernel):
    return kernel.defines.get("PRECISION", "fp32").lower()


def tiles(kernels, *precisions):
    """Every kernel in ways that differ in all respects: copies as late and as early as is legal, one warp ahead, races, bounds.
    That of FP32X3, which rounds to TF32 twice, may do what that of TF32 may."""
    def ways(precision):
        return ["random", "gpu"] if precision == "fp32x3" else ["random", "skewed", "race", "bounds", "gpu"]

    found = [(way, kernel) for precision in precisions for kernel in kernels[precision] for way in ways(precision)]
    return pytest.mark.parametrize("machine, kernel", found, indirect=["machine"],
                                   ids=[f"{way} {by(kernel)}" for way, kernel in found])


def sliced(kernels, *precisions):
    """`tiles`, with the sum in three slices, and in one where that is not the same once more: under one schedule, in a
    precision with mma and in the one without."""
    [names, found], given = tiles(kernels, *precisions).args, tiles(kernels, *precisions).kwargs
    tells = lambda way, kernel: way in ("random", "gpu") and precision_of(kernel) in ("fp32", "tf32")
    rows = [pytest.param(*row, slices, id=f"{one}-{slices}", marks=[] if slices > 1 or tells(*row) else pytest.mark.exhaustive)
            for row, one in zip(found, given["ids"]) for slices in (3, 1)]
    return pytest.mark.parametrize(f"{names}, slices", rows, indirect=["machine"])


def plain(machine, arrays, window):
    """y without bias, dx and dw by the plain kernels."""
    (x, w, b, dy), (S, P, groups) = map(machine.array, arrays), window
    y, dx, dw = (backend.empty(like.shape, np.float32, like) for like in (dy, x, w))
    sizes = conv2d_kernels.sizes(x, w, dy, S, P, groups)
    PLAIN(blocks(y.size, PLAIN.block), x, w, b, y, sizes, False, False)
    TRANSPOSE_PLAIN(blocks(dx.size, TRANSPOSE_PLAIN.block), dy, w, dx, sizes)
    FILTER_GRADIENT_PLAIN(blocks(dw.size, FILTER_GRADIENT_PLAIN.block), x, dy, dw, sizes)
    return y, dx, dw


def bits_of_plain(machine, name):
    """`plain` there, in whatever way it was asked for first: all ways give its bits, a test of its own says."""
    if (key := (machine.device, name)) not in PLAIN_BITS:
        PLAIN_BITS[key] = tuple(map(machine.host, plain(machine, *case(name))))
    return PLAIN_BITS[key]


# --------------------------------------------------------------------------------------- against the specification
@pytest.mark.parametrize("name", CASES)
def test_plain_kernels_equal_the_reference(machine, name):
    y, dx, dw = machine.results(lambda: plain(machine, *case(name)))
    (_, _, b, _), _ = case(name)
    (wanted, error), *gradients = truth(name)
    close(y, wanted - b[:, None, None, None], error)
    close(dx, *gradients[0])
    close(dw, *gradients[1])


@in_any_order
@pytest.mark.parametrize("name", CASES)
def test_conv2d_and_its_gradients_equal_the_reference(machine, name):
    (x, w, b, dy), (S, P, groups) = case(name)

    def work():
        y, saved = conv2d(*map(machine.array, (x, w, b)), S, P, groups, CASES[name][-1])
        return y, *conv2d_backward(machine.array(dy), saved)

    for got, (wanted, error) in zip(machine.results(work), truth(name), strict=True):
        close(got, wanted, error)


@sliced(FILTER_GRADIENT_KERNELS, *PRECISIONS)
def test_filter_gradient_equals_the_reference_in_every_tile_and_slice(machine, monkeypatch, kernel, slices):
    precision = precision_of(kernel)
    monkeypatch.setitem(FILTER_GRADIENT_KERNELS, precision, [kernel])
    monkeypatch.setattr(conv2d_kernels, "slices_of", lambda length, wanted, least: slices)    # of short sums some are empty
    fitting = [name for name in CASES if precision == "fp32" or fits(kernel, 8, CASES[name][3])]
    assert len(fitting) > 3
    fitting = machine.some(fitting)

    def gradient(name):
        (x, w, _, dy), (S, P, groups) = case(name)
        return conv2d_kernels.launch_filter_gradient(*map(machine.stored(precision), (x, dy)), w.shape, S, P, groups, precision)

    for name, dw in zip(fitting, machine.results(lambda: map(gradient, fitting), fitting), strict=True):
        close(dw, *truth(name, precision)[2])


@tiles(FORWARD_KERNELS, *TENSOR)
def test_every_forward_tile_of_tensor_cores_equals_the_reference_of_rounded_factors(machine, monkeypatch, kernel):
    precision = precision_of(kernel)
    monkeypatch.setitem(FORWARD_KERNELS, precision, [kernel])
    fitting = [name for name in CASES if fits(kernel, CASES[name][4]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 3
    fitting = machine.some(fitting)

    def forward(name):
        (x, w, b, _), (S, P, groups) = case(name)
        x, w = map(machine.stored(precision), (x, w))
        return conv2d(x, w, machine.array(b), S, P, groups, CASES[name][-1], precision=precision)[0]

    for name, y in zip(fitting, machine.results(lambda: map(forward, fitting), fitting), strict=True):
        close(y, *truth(name, precision)[0])


@tiles(TRANSPOSE_KERNELS, *TENSOR)
def test_every_transpose_tile_of_tensor_cores_equals_the_reference_of_rounded_factors(machine, monkeypatch, kernel):
    precision = precision_of(kernel)
    monkeypatch.setitem(TRANSPOSE_KERNELS, precision, [kernel])
    monkeypatch.setitem(conv2d_kernels.FEW, "BM", 0)                                # few maps too
    fitting = [name for name in DOWN if fits(kernel, CASES[name][0]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 1
    fitting = machine.some(fitting)

    def transpose(name):
        (x, w, _, dy), (S, P, groups) = case(name)
        return conv2d_transpose(*map(machine.stored(precision), (dy, w)), S, P, *x.shape[1:3], groups, precision)

    for name, dx in zip(fitting, machine.results(lambda: map(transpose, fitting), fitting), strict=True):
        close(dx, *truth(name, precision)[1])


@in_any_order
@pytest.mark.parametrize("precision", TENSOR)
def test_gradients_are_formed_in_the_precision_of_the_forward_pass(machine, precision):
    name = "8 maps and 16 filters by eights"
    (x, w, b, dy), (S, P, groups) = case(name)

    def work():
        y, saved = conv2d(*map(machine.stored(precision), (x, w)), machine.array(b), S, P, precision=precision)
        return y, *conv2d_backward(machine.stored(precision)(dy), saved)

    for got, (wanted, error), (exact, _) in zip(machine.results(work), truth(name, precision), truth(name), strict=True):
        close(got, wanted, error)
        if precision == "tf32" and got.ndim > 1:
            assert np.linalg.norm(got - wanted) < np.linalg.norm(got - exact)/8, "not rounded, or not as it should be"


@in_any_order
@pytest.mark.parametrize("precision, unit", [("tf32", 2**-11), ("bf16", 2**-8)])
def test_an_error_is_that_of_two_rounded_factors(machine, precision, unit):
    name = "two groups by fours"
    (x, w, b, dy), (S, P, groups) = case(name)
    stored = machine.stored(precision)
    y, = machine.results(lambda: conv2d(stored(x), stored(w), machine.array(b), S, P, groups, precision=precision)[:1])
    (exact, error), size = truth(name)[0], conv2d_reference(abs(x), abs(w), 0*b, S, P, groups)
    close(y, exact, 3*error + (2 + unit)*unit*size*(1 + unit) + (precision == "bf16")*unit*abs(exact))
    assert np.linalg.norm(y - exact) > unit/8*np.linalg.norm(exact)


@in_any_order
def test_fp32x3_is_about_as_near_to_the_truth_as_fp32(machine):
    name = "32 maps, a tile of places each"
    (x, w, b, dy), (S, P, groups) = case(name)

    def work(precision):
        y, saved = conv2d(*map(machine.array, (x, w, b)), S, P, groups, precision=precision)
        return y, *conv2d_backward(machine.array(dy), saved)

    found = machine.results(lambda: (*work("fp32x3"), *work("fp32")))
    for got, beside, (wanted, _) in zip(found[:4], found[4:], truth(name), strict=True):
        assert np.linalg.norm(got - wanted) <= 4*np.linalg.norm(beside - wanted)


@in_any_order
def test_few_maps_stored_in_float32_are_transposed_in_fp32_whatever_the_precision(machine):
    (x, w, _, dy), (S, P, groups) = case("tails on every tile, odd")
    results = machine.results(lambda: [conv2d_transpose(machine.array(dy), machine.array(w), S, P, *x.shape[1:3], groups,
                                                        precision)
                                       for precision in PRECISIONS if precision != "bf16"])
    for dx in results[1:]:
        np.testing.assert_array_equal(dx, results[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sliced_sum_has_bias_and_relu_as_an_unsliced_one(machine, monkeypatch, precision):
    name = "32 maps, a tile of places each"
    (x, w, b, dy), (S, P, groups) = case(name)
    x, w, b = *map(machine.stored(precision), (x, w)), machine.array(b)
    monkeypatch.setattr(conv2d_kernels, "slices_of", lambda length, wanted, least: 7)

    def work(relu, dtype):
        y = backend.empty(dy.shape, dtype, x)
        conv2d_kernels.launch_forward(x, w, b, y, S, P, groups, relu, precision, sliced=True)
        return y

    y, rectified, scores = machine.results(lambda: [work(False, x.dtype), work(True, x.dtype), work(False, np.float32)])
    close(y, *truth(name, precision)[0])
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))
    np.testing.assert_array_equal(rounded(scores, DROPPED["bf16"]) if precision == "bf16" else scores, y)


def test_bias_gradient_of_several_slices_equals_the_sum(machine, rng):
    dy = rng.standard_normal((3, 12, 11, 131), np.float32)
    with tuning.use(bias_slice_terms=8192):
        assert conv2d_kernels.slices_of(dy[0].size, 9, tuning.current.bias_slice_terms) == 2
        db, = machine.results(lambda: [conv2d_kernels.launch_bias_gradient(machine.array(dy))])
    close(db, dy.sum((1, 2, 3), np.float64), dy[0].size*EPS/2*abs(dy).sum((1, 2, 3)))


# ---------------------------------------------------------------------------------------------- against each other
@tiles(FORWARD_KERNELS, "fp32")
def test_every_forward_tile_gives_the_bits_of_the_plain_kernel(machine, monkeypatch, kernel):
    monkeypatch.setitem(FORWARD_KERNELS, "fp32", [kernel])
    fitting = [name for name in CASES if fits(kernel, CASES[name][4]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 2
    fitting = machine.some(fitting)

    def forward(name):
        (x, w, _, _), (S, P, groups) = case(name)
        return conv2d(machine.array(x), machine.array(w), None, S, P, groups, CASES[name][-1])[0]

    for name, y in zip(fitting, machine.results(lambda: map(forward, fitting), fitting), strict=True):
        np.testing.assert_array_equal(y, bits_of_plain(machine, name)[0], err_msg=name)


@tiles(TRANSPOSE_KERNELS, "fp32")
def test_every_transpose_tile_gives_the_bits_of_the_plain_kernel(machine, monkeypatch, kernel):
    monkeypatch.setitem(TRANSPOSE_KERNELS, "fp32", [kernel])
    fitting = [name for name in DOWN if fits(kernel, CASES[name][0]//CASES[name][8], CASES[name][3])]
    assert len(fitting) > 2
    fitting = machine.some(fitting)

    def transpose(name):
        (x, w, _, dy), (S, P, groups) = case(name)
        return conv2d_transpose(machine.array(dy), machine.array(w), S, P, *x.shape[1:3], groups)

    for name, dx in zip(fitting, machine.results(lambda: map(transpose, fitting), fitting), strict=True):
        np.testing.assert_array_equal(dx, bits_of_plain(machine, name)[1], err_msg=name)


@executor.asynchronous()
@pytest.mark.parametrize("name, precision", [("tails on every tile, odd", "fp32"), ("8 maps and 16 filters by eights", "tf32"),
                                             ("8 maps and 16 filters by eights", "bf16")])
@executor.requires_executor
def test_copies_may_land_as_early_or_as_late_as_is_legal(way, name, precision):
    (x, w, b, dy), (S, P, groups) = case(name)
    stored = (lambda array: executor.array(to_bf16(array))) if precision == "bf16" else executor.array
    with executor.settings(way):
        y, saved = conv2d(stored(x), stored(w), executor.array(b), S, P, groups, CASES[name][-1], precision=precision)
        results = y, *conv2d_backward(stored(dy), saved)
        results = [in_float(part) for part in results]
    for got, (wanted, error) in zip(map(executor.plain, results), truth(name, precision), strict=True):
        close(got, wanted, error)


@pytest.mark.parametrize("precision", TENSOR)
@executor.requires_executor
def test_tensor_cores_are_fed_from_shared_memory_without_bank_conflicts(monkeypatch, precision):
    name = "8 maps and 16 filters by eights"
    (x, w, _, dy), (S, P, groups) = case(name)
    for kernels in (FORWARD_KERNELS, TRANSPOSE_KERNELS, FILTER_GRADIENT_KERNELS):
        monkeypatch.setitem(kernels, precision, kernels[precision][:1])
    with executor.settings("race", report=True) as traffic:
        stored = (lambda array: executor.array(to_bf16(array))) if precision == "bf16" else executor.array
        _, saved = conv2d(stored(x), stored(w), None, S, P, precision=precision)
        conv2d_backward(stored(dy), saved)
    source = (kernels_folder()/"device"/"tensor_tiles.cuh").read_text().splitlines()
    text = lambda row: source[int(row.line.rsplit(":", 1)[1]) - 1]
    fed = [row for row in traffic if row.space == "shared" and "tensor_tiles.cuh" in row.line
           and any(word in text(row) for word in ("x[i] = __float_as_uint", "ldmatrix(", "ldmatrix_trans("))]
    assert len({text(row) for row in fed}) == 4, "both factors of both kinds of tiles"
    assert max(row.ratio for row in fed) == 1


@in_any_order
@pytest.mark.parametrize("name, precision", [
    pytest.param(name, precision, marks=[pytest.mark.exhaustive]*(precision == "fp32x3" and name != "two groups by fours"))
    for name in ("one pixel a tile, padding", "two groups by fours", "8 maps and 16 filters by eights") for precision in TENSOR])
def test_every_tile_of_tensor_cores_gives_the_same_bits(machine, monkeypatch, name, precision):
    """Of 16, 8 and 4 maps in: a whole number of mma or not, at the border too. Tiles of FP32X3 have the order of TF32's."""
    (x, w, b, dy), (S, P, groups) = case(name)
    up, down = ([kernel for kernel in kernels[precision] if fits(kernel, len(maps)//groups, dy.shape[-1])]
                for kernels, maps in ((FORWARD_KERNELS, dy), (TRANSPOSE_KERNELS, x)))
    assert all(len({kernel.defines["BN"] for kernel in kernels}) > 1 for kernels in (up, down))
    monkeypatch.setitem(conv2d_kernels.FEW, "BM", 0)
    stored = machine.stored(precision)

    def work():
        for kernel in up:
            monkeypatch.setitem(FORWARD_KERNELS, precision, [kernel])
            yield conv2d(stored(x), stored(w), machine.array(b), S, P, groups, precision=precision)[0]
        for kernel in down:
            monkeypatch.setitem(TRANSPOSE_KERNELS, precision, [kernel])
            yield conv2d_transpose(stored(dy), stored(w), S, P, *x.shape[1:3], groups, precision)

    found = machine.results(work)
    for y in found[:len(up)]:
        np.testing.assert_array_equal(y, found[0])
    for dx in found[len(up):]:
        np.testing.assert_array_equal(dx, found[-1])


@in_any_order
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tails on every tile, odd", "one pixel a tile, padding"])
def test_an_image_has_the_same_bits_in_any_batch_up_and_down(machine, name, precision):
    (x, w, b, dy), (S, P, groups) = case(name)
    stored = machine.stored(precision)

    def work():
        for images in (slice(None), slice(30, 33), slice(31, 32)):
            yield conv2d(stored(x[..., images]), stored(w), machine.array(b), S, P, groups, CASES[name][-1],
                         precision=precision)[0]
            yield conv2d_transpose(stored(dy[..., images]), stored(w), S, P, *x.shape[1:3], groups, precision)

    y, dx, y3, dx3, y1, dx1 = machine.results(work)
    for whole, three, one in ((y, y3, y1), (dx, dx3, dx1)):
        np.testing.assert_array_equal(three, whole[..., 30:33])
        np.testing.assert_array_equal(one, whole[..., 31:32])


@in_any_order
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("maps", [16, 3])
def test_padding_that_is_left_out_and_zeros_that_are_multiplied_give_the_same_bits(machine, rng, maps, precision):
    """What the incremental forms ask: a window with its zeros around is computed as the map was (analysis/occlusion.py)."""
    x, w, b = (rng.standard_normal(size, np.float32) for size in ((maps, 5, 4, 33), (maps, 3, 3, 5), (5,)))
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def work():
        stored = machine.stored(precision)
        w_b = stored(w), machine.array(b)
        yield conv2d(stored(x), *w_b, 1, 1, precision=precision)[0]
        yield conv2d(stored(around), *w_b, 1, 0, precision=precision)[0]
        yield conv2d(stored(around[:, :4, 1:]), *w_b, 1, 0, precision=precision)[0]

    padded, zeros, window = machine.results(work)
    np.testing.assert_array_equal(zeros, padded)
    np.testing.assert_array_equal(window, padded[:, :2, 1:])


# -------------------------------------------------------------------------------------------------- properties
@in_any_order
@pytest.mark.parametrize("name", ["two groups by fours", "windows reach over the border", "one picture"])
def test_transpose_is_the_adjoint_of_conv2d(machine, name):
    (x, w, _, dy), (S, P, groups) = case(name)
    y, dx = machine.results(lambda: (conv2d(machine.array(x), machine.array(w), None, S, P, groups, CASES[name][-1])[0],
                                     conv2d_transpose(machine.array(dy), machine.array(w), S, P, *x.shape[1:3], groups)))
    _, (_, error), *_ = truth(name)
    assert abs(np.vdot(dy.astype(np.float64), y) - np.vdot(dx.astype(np.float64), x)) <= 2*np.sum(error*abs(x))


@in_any_order
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tails on every tile, by eights", "one picture"])
def test_relu_in_the_epilogue_is_relu_of_the_output_and_keeps_a_nan(machine, name, precision):
    (x, w, b, _), (S, P, groups) = case(name)
    x = x.copy()
    x[0, 0, 0, 0] = np.nan
    x, w = map(machine.stored(precision), (x, w))
    forward = lambda relu: conv2d(x, w, machine.array(b), S, P, groups, CASES[name][-1], relu, precision)[0]
    y, rectified = machine.results(lambda: (forward(False), forward(True)))
    assert np.isnan(y).any() and (y < 0).any()
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))


# A product that is not formed cannot spread a NaN: 3x3 windows on a map of 3 x 2, P = 1, a tile on one pixel.
@in_any_order
@pytest.mark.parametrize("how", ["plain", *PRECISIONS])
def test_taps_outside_the_map_are_not_multiplied(machine, monkeypatch, how):
    (x, w, b, dy), (S, P, groups) = case("one pixel a tile, padding")
    w = w.copy()
    w[:, 0, 0] = w[:, 2, 2] = np.nan          # outside at the first row or column, and at the last: together at two corners
    for kernels in (FORWARD_KERNELS, TRANSPOSE_KERNELS):
        monkeypatch.setitem(kernels, how, kernels.get(how, [])[:1])
    monkeypatch.setitem(conv2d_kernels.FEW, "BM", 0)

    def tiled():
        stored = machine.stored(how)
        return (conv2d(stored(x), stored(w), None, S, P, groups, precision=how)[0],
                conv2d_transpose(stored(dy), stored(w), S, P, 3, 2, groups, how))

    for result in machine.results(lambda: plain(machine, (x, w, b, dy), (S, P, groups))[:2] if how == "plain" else tiled()):
        finite = np.isfinite(result).all(axis=(0, 3))
        np.testing.assert_array_equal(finite, [[False, True], [False, False], [True, False]])


@in_any_order
@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_whose_place_is_outside_the_map_are_not_multiplied(machine, monkeypatch, precision):
    of_one_place = FILTER_GRADIENT_KERNELS[precision][-1:]                  # 32 x 32: one place (r,s) a tile
    monkeypatch.setitem(FILTER_GRADIENT_KERNELS, precision, of_one_place)
    (x, w, _, dy), (S, P, groups) = case("32 maps, a tile of places each")
    upper, left = dy.copy(), dy.copy()
    upper[:, 0], left[:, :, -1] = np.nan, np.nan

    def work():
        stored = machine.stored(precision)
        return [conv2d_kernels.launch_filter_gradient(stored(x), stored(part), w.shape, S, P, groups, precision)
                for part in (upper, left)]

    upper, left = machine.results(work)       # 4 x 3 outputs at rows -2, 0, 2, 4 and columns -2, 0, 2 of a map of 7 x 5
    np.testing.assert_array_equal(np.isfinite(upper).all(axis=(0, 2, 3)), [True, True, False, False, False])
    np.testing.assert_array_equal(np.isfinite(left).all(axis=(0, 1, 3)), [False, False, False, True, True])


@pytest.mark.parametrize("precision", TENSOR)
def test_numpy_refuses_other_precisions_than_fp32_in_a_sentence(precision):
    (x, w, b, dy), (S, P, groups) = case("one picture")
    with pytest.raises(Expected, match=f"conv2d precision: expected fp32, the one that NumPy has, got {precision}"):
        conv2d(x, w, b, S, P, groups, precision=precision)
    with pytest.raises(Expected, match="conv2d_transpose precision"):
        conv2d_transpose(dy, w, S, P, *x.shape[1:3], groups, precision)


def test_an_unknown_precision_is_refused_in_a_sentence(machine):
    (x, w, b, _), (S, P, groups) = case("one picture")
    with pytest.raises(Expected, match="conv2d precision: expected one of fp32, fp32x3, tf32, bf16, got 'fp16'"):
        conv2d(*map(machine.array, (x, w, b)), S, P, groups, precision="fp16")


def test_float64_is_refused_in_a_sentence(machine):
    (x, w, b, _), (S, P, groups) = case("one picture")
    with pytest.raises(Expected, match="conv2d x: expected float32 or uint16, got float64"):
        conv2d(*(machine.array(part.astype(np.float64)) for part in (x, w, b)), S, P, groups)


def test_offsets_beyond_two_to_the_31_reach_the_right_pixels():
    try:
        device = select("gpu")
    except Expected as none:
        pytest.skip(f"no GPU: {none.got}")
    H, W, N, S = 32769, 32767, 2, 251
    w = device.array(np.ones((1, 1, 1, 1), np.float32))
    x = backend.zeros((1, H, W, N), np.float32, like=w)
    assert x.size > 2**31
    rows, columns = np.arange(0, H, S), np.arange(0, W, S)
    dy = np.random.default_rng(0).standard_normal((1, len(rows), len(columns), N), np.float32)
    x[:, ::S, ::S] = device.array(dy)
    np.testing.assert_array_equal(backend.to_host(conv2d(x, w, None, S, 0)[0]), dy)
    dx = conv2d_transpose(device.array(dy), w, S, 0, H, W)
    np.testing.assert_array_equal(backend.to_host(dx[:, ::S, ::S]), dy)
    assert float(abs(dx).sum()) == pytest.approx(abs(dy).sum(), rel=1e-4)
