import numpy as np
import pytest

from tests.kernels.conftest import EPS, close, normal
from zfcore.ops.filter_rms import filter_rms, filter_rms_reference


@pytest.mark.parametrize("C, K, F", [(6, 7, 37), (1, 1, 3)])            # more weights than a part, more filters than a block
def test_filters_above_the_limit_are_scaled_back_and_counted(machine, rng, C, K, F):
    w = normal(rng, C, K, K, F)
    w *= rng.uniform(0.02, 0.3, F).astype(np.float32)/np.sqrt(np.mean(np.square(w), axis=(0, 1, 2)))

    def work():
        weights = machine.array(w)
        return filter_rms(weights, 0.1), weights, filter_rms(weights, 0.1)

    count, weights, again = machine.results(work)
    wanted, over = filter_rms_reference(w, 0.1)
    assert 0 < over < F and count == over and again == 0
    close(weights, wanted, 2*EPS*np.abs(wanted))
    untouched = np.sqrt(np.mean(np.square(w, dtype=float), axis=(0, 1, 2))) <= 0.1
    assert weights[..., untouched].tobytes() == w[..., untouched].tobytes()
