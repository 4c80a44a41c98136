"""bf16 and back on the host: what a network in bf16 stores."""
import numpy as np
import pytest

from zfcore.backend import BF16
from zfcore.check import Expected
from zfcore.ops.convert import convert, from_bf16, in_float, to_bf16


def nearest(x):
    """Of the two neighbours in bf16, by float64 arithmetic alone: the nearer, of two as near the even one."""
    scale = 2.0**np.floor(np.log2(abs(x)))/128             # of one step of 8 bits
    return float(np.rint(x/scale)*scale)


def test_every_number_becomes_the_nearest_and_halves_the_even_one():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(500, np.float32)*np.float32(10)**rng.integers(-30, 30, 500).astype(np.float32),
                        np.float32([1 + 2**-8, 1 + 3*2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20, 255.5, 2 - 2**-9])])
    np.testing.assert_array_equal(from_bf16(to_bf16(x)), [nearest(float(one)) for one in x])


def test_what_has_no_nearest_number_keeps_its_kind():
    x = np.array([0.0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, np.nan], np.float32)
    x[-1:].view(np.uint32)[...] = 0x7f800001               # a NaN whose upper 16 bits are those of an infinity
    there = from_bf16(to_bf16(x))
    np.testing.assert_array_equal(there, np.array([0, 0, np.inf, -np.inf, np.inf, -np.inf, np.nan], np.float32))
    assert np.signbit(there[1]) and not np.signbit(there[0])


def test_all_bf16_numbers_come_back_as_they_were():
    every = np.arange(2**16, dtype=np.uint16)
    numbers = every[~np.isnan(from_bf16(every))]
    np.testing.assert_array_equal(to_bf16(from_bf16(numbers)), numbers)
    assert len(numbers) == 2**16 - 2*127


def test_convert_leaves_alone_what_is_so_already_and_refuses_what_is_neither():
    x = np.float32([[1, 2.5]])
    assert convert(x, np.float32) is x and in_float(x) is x
    short = convert(x, BF16)
    assert short.dtype == BF16 and convert(short, BF16) is short
    np.testing.assert_array_equal(in_float(short), x)
    with pytest.raises(Expected, match="convert: x: expected float32 or uint16, got float64"):
        convert(x.astype(np.float64), BF16)
