"""Floor 6: means over the pictures of which something is known, and what is known to vary."""
import numpy as np
from numpy.typing import NDArray


def mean_of_known(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean over the first axis of those `values` (n,...) that are numbers, NaN where none is, and how many they are: (...) each.
    A plain mean would be lost to one picture in which a layer is silent, an object has no box or a projection no energy."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.where(known, values, 0).sum(axis=0)/np.where(count > 0, count, np.nan), count


def varying(variance: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variances, 0 where they are no more than rounding of the mean squares."""
    return np.where(variance > 1e-12*square, variance, 0)
