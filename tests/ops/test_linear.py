"""linear: y = w' x + b, and its gradients."""
import numpy as np
import pytest

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops import linear as module
from zfcore.ops.linear import linear, linear_backward, linear_backward_reference, linear_reference

SHAPES = [(7, 5, 3), (1, 4, 2), (9, 1, 1), (6, 11, 4)]                          # D M N


@pytest.fixture(params=["whole", "cut"])
def blocks(request, monkeypatch):
    if request.param == "cut":
        monkeypatch.setattr(module, "BLOCK", 2)


def case(D, M, N, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size).astype(dtype) for size in ((D, N), (D, M), (M,), (M, N))]


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_gradients_are_the_finite_differences_of_the_reference(shape):
    x, w, b, dy = case(*shape)
    rng = np.random.default_rng(1)
    for array, gradient in zip((x, w, b), linear_backward_reference(dy, x, w)):
        direction = rng.standard_normal(array.shape)
        array += 0.5*direction
        above = linear_reference(x, w, b)
        array -= direction
        below = linear_reference(x, w, b)
        array += 0.5*direction
        assert np.sum(dy*(above - below)) == pytest.approx(np.sum(gradient*direction), rel=1e-10)


@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_and_its_gradients_equal_the_reference_in_the_dtype_of_their_input(shape, dtype, rtol, blocks):
    x, w, b, dy = case(*shape, dtype=dtype)
    y, cache = linear(x, w, b)
    for got, wanted in zip((y, *linear_backward(dy, cache)),
                           (linear_reference(x, w, b), *linear_backward_reference(dy, x, w))):
        assert got.dtype == dtype and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol*max(1, abs(wanted).max()))


def test_linear_ends_in_its_relu(blocks):
    rng = np.random.default_rng(4)
    x, w, b = rng.standard_normal((5, 7)), rng.standard_normal((5, 9)), rng.standard_normal(9)
    np.testing.assert_array_equal(linear(x, w, b, relu=True)[0], np.maximum(linear(x, w, b)[0], 0))


def test_the_data_gradient_is_left_out_where_nobody_reads_it():
    x, w, b, dy = case(*SHAPES[0])
    _, cache = linear(x, w, b)
    dx, dw, _ = linear_backward(dy, cache, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(dw, linear_backward(dy, cache)[1])


def test_same_bits_on_one_core_and_on_many(blocks, monkeypatch):
    x, w, b, dy = case(50, 40, 6, np.float32)
    results = []
    for cores in (1, 4):
        monkeypatch.setattr(cpu, "CORES", cores)
        y, cache = linear(x, w, b)
        results.append((y, *linear_backward(dy, cache)))
    for got, wanted in zip(*results):
        np.testing.assert_array_equal(got, wanted)


def test_pytorch_computes_the_same():
    torch = pytest.importorskip("torch")
    x, w, b, dy = case(*SHAPES[0])
    y, cache = linear(x, w, b)
    tx, tw, tb = (torch.tensor(a.T.copy(), requires_grad=True) for a in (x, w, b))
    ty = torch.nn.functional.linear(tx, tw, tb)
    ty.backward(torch.tensor(dy.T.copy()))
    for got, wanted in zip((y, *linear_backward(dy, cache)), (ty.detach(), tx.grad, tw.grad, tb.grad)):
        np.testing.assert_allclose(got, wanted.numpy().T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("x, w, b, sentence", [
    ((7,), (7, 5), (5,), "linear x: expected shape (any, any), got (7,)"),
    ((7, 3), (5, 7), (5,), "linear w: expected shape (7, any), got (5, 7)"),
    ((7, 3), (7, 5), (7,), "linear b: expected shape (5,), got (7,)")])
def test_shapes_that_do_not_fit_are_answered_with_one_sentence(x, w, b, sentence):
    with pytest.raises(Expected) as error:
        linear(np.zeros(x), np.zeros(w), np.zeros(b))
    assert str(error.value) == sentence


def test_mixed_dtypes_are_refused_by_name():
    x, w, b, dy = case(*SHAPES[0])
    with pytest.raises(Expected, match="linear w: expected float64, got float32"):
        linear(x, w.astype(np.float32), b)
    with pytest.raises(Expected, match="linear_backward dy: expected float64, got float32"):
        linear_backward(dy.astype(np.float32), linear(x, w, b)[1])


def test_a_gradient_of_another_shape_is_refused():
    x, w, b, dy = case(*SHAPES[0])
    with pytest.raises(Expected, match=r"linear_backward dy: expected shape \(5, 3\), got \(5, 2\)"):
        linear_backward(dy[:, 1:], linear(x, w, b)[1])
