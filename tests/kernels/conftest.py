"""Every kernel test runs under two schedules of the CPU executor, in its race build and its bounds build, and on a GPU
where CuPy sees one; with --all under the plain schedules too, whose orders the race build has watched already. A test's sizes
all differ and divide no tile; where a kernel has a wide form, both are launched."""
import numpy as np
import pytest

from tests import executor
from zfcore import backend
from zfcore.check import Expected
from zfcore.device import select
from zfcore.ops.convert import from_bf16, to_bf16

EPS = float(np.finfo(np.float32).eps)      # 2^-23; one rounding is wrong by at most half of that
BF16_UNIT = 2.0**-8                        # what rounding to bf16 is wrong by at most, relative to the number


class Machine:
    """Where a test's kernels run. `array` brings a NumPy array there; `results` brings arrays back and holds every way of
    running the same test, and a second run of it where `again`, to the same bits. What one run leaves behind another meets in
    the executor too, where two schedules share what was compiled."""
    first = {}                                      # (test, executor or gpu, name of a result) -> its bits in the first run

    def __init__(self, test, device, way, again):
        self.test, self.device, self.array, self.way, self.again = test, device.name, device.array, way, again

    def host(self, array):
        return np.asarray(backend.to_host(array))

    def stored(self, precision):
        """A function that brings maps, or filters, there as they are stored where products are formed so."""
        return (lambda array: self.array(to_bf16(array))) if precision == "bf16" else self.array

    def some(self, names):
        """Of the names of cases those that this way is given: which threads meet, and where, all have in common, so that a few
        tell it as well as all would. Numbers and bounds are looked at in all."""
        return names[:2] + names[-1:] if self.way in ("skewed", "race") else names

    def results(self, work, names=None):
        """What `work()` returns, as a tuple of NumPy arrays and numbers; what is stored as BF16, as float32. Where not every
        way has the same ones, `names` says which they are."""
        runs = [tuple(self.host(part) if hasattr(part, "shape") else np.asarray(part) for part in work())
                for _ in range(1 + self.again)]
        runs.append(tuple(Machine.first.setdefault((self.test, self.device, name), part)
                          for name, part in zip(range(len(runs[0])) if names is None else names, runs[0], strict=True)))
        for run in runs:
            for one, other in zip(run, runs[0], strict=True):
                assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), "other bits in another run or schedule"
        return tuple(from_bf16(part) if part.dtype == backend.BF16 else part for part in runs[0])


def ways(*names):
    """The params of `machine` that take these ways and a GPU, and the others with --all."""
    return [pytest.param(way, marks=[] if way in names else pytest.mark.exhaustive) for way in (*executor.WAYS, "gpu")]


# For what does not depend on the order of threads: the numbers of a kernel of which another test sees the order, or whose
# threads have nothing to do with each other.
in_any_order = pytest.mark.parametrize("machine", ways("random", "gpu"), indirect=True)


@pytest.fixture(params=ways("random", "skewed", "race", "bounds", "gpu"))
def machine(request):
    test = request.node.nodeid.replace(request.node.callspec.id, "") + str(sorted(
        (name, str(value)) for name, value in request.node.callspec.params.items() if name != "machine"))
    if request.param == "gpu":
        try:
            yield Machine(test, select("gpu"), "gpu", again=True)
        except Expected as none:
            pytest.skip(f"no GPU: {none.got}")
    elif executor.emu.GXX is None:
        pytest.skip("the CPU executor needs g++")
    else:
        with executor.settings(request.param):
            yield Machine(test, select("executor"), request.param, again=False)


@pytest.fixture
def hopper(request, monkeypatch):
    """The executor plays a GPU that has wgmma; a real one has it or the test is skipped."""
    monkeypatch.setitem(backend.ARCHITECTURES, executor.ExecutorArray, lambda: "sm_90a")
    if "machine" in request.fixturenames and backend.architecture(request.getfixturevalue("machine").array(np.zeros(1))) != "sm_90a":
        pytest.skip("a GPU without wgmma")


@pytest.fixture
def rng():
    return np.random.default_rng(2013)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def close(got, wanted, error):
    """|got - wanted| <= error elementwise, with the largest share of the allowed error in the message."""
    assert got.shape == wanted.shape and np.isfinite(got).all()
    share = np.max(np.abs(got.astype(np.float64) - wanted)/np.maximum(error, 1e-45), initial=0)
    assert share <= 1, f"{share:.2f} times the error that rounding explains"
