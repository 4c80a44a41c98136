"""An array says by its class where it lives, and what is made like it lives there too."""
import numpy as np
import pytest

from zfcore import backend
from zfcore.backend import address, array_module, empty, runs_kernels, scalar, to_device, to_host, zeros


class Elsewhere:
    """An array on a device, as the module that it comes from makes it."""

    def __init__(self, host):
        self.host, self.shape, self.dtype = host, host.shape, host.dtype

    def set(self, host):
        if host.shape != self.shape:
            raise ValueError("Shape mismatch")
        self.host[...] = host


class Module:
    """What is asked of CuPy."""
    asnumpy = staticmethod(lambda array: array.host)
    empty = staticmethod(lambda shape, dtype: Elsewhere(np.full(shape, 7, dtype)))
    zeros = staticmethod(lambda shape, dtype: Elsewhere(np.zeros(shape, dtype)))
    # () is no shape to it
    empty_like = staticmethod(lambda like, shape, dtype, order: Module.empty(shape or like.shape, dtype))
    zeros_like = staticmethod(lambda like, shape, dtype, order: Module.zeros(shape or like.shape, dtype))


@pytest.fixture
def there(monkeypatch):
    """An array of a class that `select` has entered."""
    monkeypatch.setitem(backend.MODULES, Elsewhere, Module)
    monkeypatch.setitem(backend.LAUNCHERS, Elsewhere, lambda kernel, grid, arguments: None)
    return Elsewhere(np.zeros(3))


def test_empty_has_the_shape_and_dtype_asked_for_and_is_contiguous():
    for dtype in (np.float32, np.float64, np.uint8):
        for shape in ((3, 401, 501), (2, 3), (0, 4), ()):
            array = empty(shape, dtype, like=np.zeros(1))
            assert array.shape == shape and array.dtype == dtype and type(array) is np.ndarray
            assert array.flags.c_contiguous and array.flags.writeable


def test_what_is_made_like_an_array_of_a_device_is_on_that_device(there):
    host = np.arange(15, dtype=np.float32).reshape(5, 3)[:, ::2]
    for made, wanted in [(empty((5, 2), np.int32, there), np.full((5, 2), 7)),
                         (zeros((5, 2), np.int32, there), np.zeros((5, 2))),
                         (empty((), np.int32, there), np.array(7)), (zeros((), np.int32, there), np.array(0)),
                         (to_device(host, there), host), (scalar(3, np.int32, there), np.array(3))]:
        assert type(made) is Elsewhere and runs_kernels(made) and array_module(made) is Module
        assert made.shape == wanted.shape
        np.testing.assert_array_equal(to_host(made), wanted)
    assert scalar(there, np.int32, there) is there


def test_a_numpy_array_runs_no_kernels_and_a_copy_of_it_is_its_own(there):
    host = np.arange(6.0)
    copy = to_device(host, like=np.zeros(1))
    assert not runs_kernels(copy) and array_module(copy) is np and type(to_host(copy)) is np.ndarray
    assert address(copy) != address(host) and (copy == host).all()
