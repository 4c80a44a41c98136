"""The sum of arrays in the order of a binary tree over the leaves that they were added up from.

    leaves   0 1 2 3 4 5 6       a node of 2^k leaves begins at a multiple of 2^k; at the right end it has what is left
              +   +   +  .
                +       +
                    +

Whoever holds some neighbouring leaves adds those up that are a node together (`joined`), and hands on one array for each node
that is not part of a larger one of theirs: the spans. What then comes of all spans has the bits that it has of the single
leaves."""
import numpy as np

from zfcore.backend import runs_kernels
from zfcore.check import Expected, dtype, shape
from zfcore.cpu import parallel, slabs
from zfcore.kernel import EACH, Kernel, blocks, lanes

KERNEL = Kernel("tree_sum.cu", "tree_sum", "Each<const float *> parts, int present, float *sum, long long total", {"LANES": 4})


def joined(left, right, leaves):
    """Return whether the spans `left` (first, stop) and `right`, which begins where it stops, are the halves of a node."""
    first, middle = left
    size = middle - first
    return first % (2*size) == 0 and right == (middle, min(first + 2*size, leaves))


def spans(first, stop, leaves):
    """[(first, stop)] of the largest nodes within leaves `first` to `stop` - 1, in order."""
    found = []
    for leaf in range(first, stop):
        found.append((leaf, leaf + 1))
        while len(found) > 1 and joined(*found[-2:], leaves):
            found[-2:] = [(found[-2][0], found[-1][1])]
    return found


def tree_sum_reference(parts):
    """The sum of the leaves `parts`, split at the largest power of two below their number, in float64."""
    if len(parts) == 1:
        return np.asarray(parts[0], np.float64)
    middle = 2**((len(parts) - 1).bit_length() - 1)
    return tree_sum_reference(parts[:middle]) + tree_sum_reference(parts[middle:])


def tree_sum(parts, begins, leaves):
    """Add up `parts` in the order of the tree over so many leaves; the sum comes into parts[0]. Others may be changed.

    parts    arrays of one shape and dtype, float32 or float64 (on a GPU float32), without common memory
    begins   their first leaves, from 0 on. Each holds the leaves up to the next one's, which must be a node (`spans`)
    Raises Expected for others, before anything is changed."""
    for part in parts:
        dtype("tree_sum: parts", part, np.float32, np.float64)
        dtype("tree_sum: parts", part, parts[0].dtype)
        shape("tree_sum: parts", part, parts[0].shape)
    ends = [*begins[1:], leaves]
    whole = len(begins) == len(parts) and begins[0] == 0
    if not whole or any(spans(first, stop, leaves) != [(first, stop)] for first, stop in zip(begins, ends)):
        raise Expected("tree_sum: begins", f"nodes of the tree over {leaves} leaves, one a part, from leaf 0 on", list(begins))
    if runs_kernels(parts[0]):
        _launch(parts, begins, leaves)
    elif len(parts) > 1:
        parallel(lambda k: _added([part[k] for part in parts], begins, leaves), slabs(parts[0]))


def _added(parts, begins, leaves):
    """The sum, in parts[0]: as a node's right half comes, it is added to the left one."""
    held = []
    for part, first, stop in zip(parts, begins, [*begins[1:], leaves]):
        held.append((part, (first, stop)))
        while len(held) > 1 and joined(held[-2][1], held[-1][1], leaves):
            (left, (first, _)), (right, (_, stop)) = held.pop(-2), held.pop()
            left += right
            held.append((left, (first, stop)))


def _launch(parts, begins, leaves):
    """The sum, in parts[0]. What begins at more than EACH leaves is added up in two halves first."""
    if len(parts) == 1:
        return
    if leaves > EACH:
        middle = 2**((leaves - 1).bit_length() - 1)
        left = sum(first < middle for first in begins)
        _launch(parts[:left], begins[:left], middle)
        _launch(parts[left:], [first - middle for first in begins[left:]], leaves - middle)
        parts, begins = [parts[0], parts[left]], [0, 1]
    wide = lanes(parts[0].size, *parts)
    place = {first: part for first, part in zip(begins, parts)}
    KERNEL.variant(LANES=wide)(blocks(parts[0].size, wide*KERNEL.block), [place.get(t, parts[0]) for t in range(EACH)],
                               sum(1 << first for first in begins), parts[0], parts[0].size)
