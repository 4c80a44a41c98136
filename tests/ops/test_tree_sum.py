import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore import cpu
from zfcore.check import Expected
from zfcore.ops.tree_sum import spans, tree_sum, tree_sum_reference


def drawn(leaves, shape=(5, 7), dtype=np.float32, seed=0):
    """Numbers whose sum depends on the order in which they are added."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)*10.0**rng.integers(-3, 4), dtype) for _ in range(leaves)]


def by_hand(parts):
    """The tree level by level: neighbours are added, and what has none goes up as it is."""
    while len(parts) > 1:
        parts = [parts[k] + parts[k + 1] if k + 1 < len(parts) else parts[k] for k in range(0, len(parts), 2)]
    return parts[0]


def summed(parts, cuts, leaves):
    """The sum of the leaves `parts`, of which those between two `cuts` were added up before."""
    held, begins = [], []
    for first, stop in zip(cuts, cuts[1:]):
        for a, b in spans(first, stop, leaves):
            own = [part.copy() for part in parts[a:b]]
            tree_sum(own, range(b - a), b - a)
            held.append(own[0])
            begins.append(a)
    tree_sum(held, begins, leaves)
    return held[0]


@settings(deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 3))
def test_the_bits_do_not_depend_on_where_the_leaves_are_cut(leaves, cuts, seed):
    parts = drawn(leaves, seed=seed)
    cuts = [0, *sorted(min(cut, leaves) for cut in cuts), leaves]             # a share may be empty
    assert summed(parts, cuts, leaves).tobytes() == by_hand(parts).tobytes()


@given(st.integers(1, 200).flatmap(lambda leaves: st.tuples(st.just(leaves), st.integers(0, leaves), st.integers(0, leaves))))
def test_spans_are_the_largest_nodes_of_a_share_in_order(case):
    leaves, first, stop = case
    found, nodes = spans(first, stop, leaves), set()

    def grow(a, b):                                                           # all nodes, from the root down
        nodes.add((a, b))
        if b - a > 1:
            middle = a + max(2**k for k in range(8) if 2**k < b - a)
            grow(a, middle), grow(middle, b)

    grow(0, leaves)
    inside = {(a, b) for a, b in nodes if first <= a and b <= stop}
    assert [leaf for a, b in found for leaf in range(a, b)] == list(range(first, stop))
    assert set(found) == {(a, b) for a, b in inside if not any((c, d) != (a, b) and c <= a and b <= d for c, d in inside)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7), ()])
@pytest.mark.parametrize("leaves", [1, 2, 3, 6, 7, 19])
def test_tree_sum_is_the_reference(leaves, shape, dtype):
    parts = drawn(leaves, shape, dtype)
    wanted = tree_sum_reference(parts)
    assert wanted.dtype == np.float64
    np.testing.assert_allclose(wanted, np.sum([part.astype(np.float64) for part in parts], axis=0), rtol=1e-9, atol=1e-9)
    sizes = np.abs(parts).sum(axis=0)
    tree_sum(parts, range(leaves), leaves)
    assert parts[0].dtype == dtype and (np.abs(parts[0] - wanted) <= 6*np.finfo(dtype).eps*sizes).all()


def test_three_leaves_by_hand():
    big, one = np.array([2.0**24], np.float32), np.array([1.0], np.float32)
    # (1 + 2^24) + 1 loses both; 2^24 + (1 + 1) does not
    parts = [one.copy(), big, one.copy()]
    tree_sum(parts, [0, 1, 2], 3)
    assert parts[0] == 2.0**24
    parts = [one.copy(), one.copy(), np.array([2.0**24], np.float32)]
    tree_sum(parts, [0, 1, 2], 3)
    assert parts[0] == 2.0**24 + 2


def test_blocks_on_any_number_of_cores_give_the_same_bits(monkeypatch):
    results = []
    for cores in (1, 2):
        monkeypatch.setattr(cpu, "CORES", cores)
        parts = drawn(5, (701, 523))                                          # more than one block
        tree_sum(parts, range(5), 5)
        results.append(parts[0])
    assert results[0].tobytes() == results[1].tobytes() == by_hand(drawn(5, (701, 523))).tobytes()


@pytest.mark.parametrize("begins, leaves", [([0, 1], 4), ([1, 2], 3), ([0, 3], 4), ([0], 2), ([0, 1, 2], 2)])
def test_parts_that_are_no_nodes_are_refused_before_anything_is_changed(begins, leaves):
    parts = drawn(2)
    kept = parts[0].copy()
    with pytest.raises(Expected, match="tree_sum: begins"):
        tree_sum(parts, begins, leaves)
    np.testing.assert_array_equal(parts[0], kept)


def test_parts_that_do_not_match_are_refused():
    one, other = drawn(2)
    with pytest.raises(Expected, match="shape"):
        tree_sum([one, other[1:]], [0, 1], 2)
    with pytest.raises(Expected, match="float32"):
        tree_sum([one, other.astype(np.float64)], [0, 1], 2)
