import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.clip_filter_rms import clip_filter_rms, clip_filter_rms_reference
from zfcore.ops.convert import from_bf16, to_bf16

# more weights than a part, more filters than a block, more than a block counts
SHAPES = [(6, 7, 37), (1, 1, 3), (2, 3, 300)]


def drawn(rng, C, K, F):
    w = normal(rng, C, K, K, F)
    return w*rng.uniform(0.02, 0.3, F).astype(np.float32)/np.sqrt(np.mean(np.square(w), axis=(0, 1, 2)))


@pytest.mark.parametrize("copies", [1, 6], ids=["one launch", "two"])
def test_filters_above_the_limit_are_scaled_back_and_counted(machine, rng, copies):
    several = [drawn(rng, *shape) for shape in SHAPES]*copies

    def work():
        filters, clamped = [machine.array(w) for w in several], machine.array(np.full((), 7.0))
        clip_filter_rms(filters, 0.1, clamped)
        first = machine.host(clamped).copy()
        clip_filter_rms(filters, 0.1, clamped)
        return first, clamped, *filters

    first, again, *results = machine.results(work)
    wanted = [clip_filter_rms_reference(w, 0.1) for w in several]
    scaled_back = sum(over for _, over in wanted)
    assert first == again == 7 + scaled_back and 0 < scaled_back < copies*340
    for w, got, (scaled, _) in zip(several, results, wanted, strict=True):
        close(got, scaled, 2*EPS*np.abs(scaled))
        untouched = np.sqrt(np.mean(np.square(w, dtype=float), axis=(0, 1, 2))) <= 0.1
        assert got[..., untouched].tobytes() == w[..., untouched].tobytes()


def test_copies_of_filters_are_scaled_with_them(machine, rng):
    several = [drawn(rng, *shape) for shape in SHAPES]

    def work():
        filters, copies = [machine.array(w) for w in several], [machine.stored("bf16")(w) for w in several]
        clip_filter_rms(filters, 0.1, machine.array(np.zeros(())), copies)
        return *filters, *copies

    found = machine.results(work)
    for w, copy in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(copy, from_bf16(to_bf16(w)))
