"""Pictures that two sets share, or nearly: the paper (section 5.2) looks for those of Caltech in ImageNet by
normalised correlation, as a test picture that was trained on proves nothing.

Each picture becomes a grey thumbnail of 32x32 pixels, of mean 0 and length 1; the inner product of two of them is their
normalised correlation, which brightness, contrast, JPEG and size leave alone. The paper says neither what it correlated nor
from which value on a pair counts. Mirrored, turned or differently cropped copies are not found."""
from dataclasses import dataclass

import numpy as np

from zfcore import check
from zfcore.cpu import parallel, pieces

SIDE, ABOVE = 32, 0.95
ROUNDING = 2e-5                   # by which the float32 product of a thumbnail with itself may differ from 1
FLAT = 2.0                        # grey levels: a thumbnail that deviates less has no shape that could be told again
GREY = np.array([0.299, 0.587, 0.114], np.float32)
ROWS, COLUMNS = 256, 16384        # pictures of the second set that are held against so many of the first at a time


@dataclass(frozen=True)
class Duplicates:
    """Pairs of at least `above`, the most alike first: numbers in the first and in the second set, int64 (p,), and their
    correlations, float32 (p,)."""
    FORM = {"above": "float", "first": "int64 p? 0..", "second": "int64 p? 0..", "correlation": "float32 p? finite"}
    above: float
    first: np.ndarray
    second: np.ndarray
    correlation: np.ndarray


def thumbnails(pictures):
    """uint8 (n,S,S,3) -> float32 (n,1024): grey, each pixel the mean of the area that it covers, mean 0, length 1; all zeros
    for a picture without contrast."""
    check.shape("pictures", pictures, (None, None, pictures.shape[1], 3))
    S = pictures.shape[1]
    edges, pixels = np.arange(SIDE + 1)[:, None]*S/SIDE, np.arange(S)
    reach = np.clip(edges - pixels, 0, 1)                                        # of each pixel, how much lies before an edge
    area = (np.diff(reach, axis=0)*SIDE/S).astype(np.float32)                    # (SIDE,S)
    small = (area @ (pictures @ GREY) @ area.T).reshape(len(pictures), -1)
    small -= small.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(small).sum(axis=1, keepdims=True))
    return np.divide(small, length, out=np.zeros_like(small), where=length > FLAT*SIDE)


def near_duplicates(first, second, above=ABOVE):
    """The Duplicates of two sets of thumbnails, (n,1024) and (m,1024). Of 1, those that are the same up to ROUNDING."""
    if not 0 < above <= 1:
        raise check.Expected("correlation", "a number above 0, at most 1", above)

    def alike(rows):
        pairs = []
        for columns in pieces(len(first), COLUMNS):
            correlation = second[rows] @ first[columns].T
            i, j = np.nonzero(correlation >= min(above, 1 - ROUNDING))
            pairs.append((j + columns.start, i + rows.start, correlation[i, j]))
        return pairs

    found = [pair for pairs in parallel(alike, pieces(len(second), ROWS)) for pair in pairs]
    one, other, correlation = (np.concatenate(parts) for parts in zip(*found))
    order = np.lexsort([one, other, -correlation])
    return Duplicates(above, one[order], other[order], correlation[order])
