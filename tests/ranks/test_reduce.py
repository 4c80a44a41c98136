"""Gradients summed over ranks that are threads: the bits of one alone, whatever their number and who has which leaf."""
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import executor
from tests.ranks.threads import together
from zfcore import reduce
from zfcore.beside import Thread
from zfcore.check import Expected
from zfcore.device import select
from zfcore.ops.tree_sum import tree_sum
from zfcore.ranks import ALONE
from zfcore.reduce import GradientSum, buckets, leaves, micro_batch, share, slices

SHAPES = {"conv1": {"w": (3, 5, 5, 7), "b": (7,)}, "norm1": {"gamma": (7,), "beta": (7,)}, "fc6": {"w": (31, 13), "b": (13,)},
          "fc8": {"w": (13, 3), "b": (3,)}}


class AtOnce:
    """Work beside the caller's that is done before it goes on."""

    def run(self, work):
        work()

    def join(self):
        pass


def gradients(leaf):
    rng = np.random.default_rng(leaf)
    return {layer: {key: (rng.standard_normal(shape)*10.0**rng.integers(-3, 4)).astype(np.float32)
                    for key, shape in of_layer.items()}
            for layer, of_layer in SHAPES.items()}


def summed(counts, beside, ranks, array=np.array):
    """({(layer, key): bits}, rows) that the rank gets for the leaves 0, 1, ..., of which it has counts[rank]."""
    rows = array(np.zeros((sum(counts), 2)))
    sums = GradientSum(ranks, beside(), SHAPES, counts, rows, like=array(np.zeros(1, np.float32)))
    for k in range(counts[ranks.rank]):
        leaf = sum(counts[:ranks.rank]) + k
        sums.row(k)[...] = array(np.array([leaf + 0.5, leaf]))
        for layer, of_layer in reversed(gradients(leaf).items()):
            sums.add(layer, {key: array(one) for key, one in of_layer.items()})
    total = sums.total()
    assert list(sorted(total)) == list(sorted(SHAPES))
    return ({(layer, key): np.asarray(one).tobytes() for layer, of_layer in total.items() for key, one in of_layer.items()},
            np.asarray(rows).tolist())


def wanted(count):
    found = {}
    for layer, of_layer in SHAPES.items():
        for key in of_layer:
            parts = [gradients(leaf)[layer][key] for leaf in range(count)]
            tree_sum(parts, range(count), count)
            found[layer, key] = parts[0].tobytes()
    return found, [[leaf + 0.5, leaf] for leaf in range(count)]


@pytest.mark.parametrize("beside", [Thread, AtOnce])
@pytest.mark.parametrize("bucket", [1, 2000, 2**24], ids=["a bucket a layer", "two buckets", "one bucket"])
@pytest.mark.parametrize("counts", [[5], [3, 2], [2, 2, 1], [1, 1, 1], [0, 3, 0, 4], [2, 1, 2, 1, 2], [0, 1]], ids=str)
def test_the_sum_has_the_bits_of_the_tree_on_every_rank(counts, bucket, beside, monkeypatch):
    monkeypatch.setattr(reduce, "BUCKET", bucket)
    for got in together(len(counts), partial(summed, counts, beside)):
        assert got == wanted(sum(counts))


@executor.requires_executor
@pytest.mark.parametrize("counts", [[3], [2, 3, 1]], ids=str)
def test_on_kernels_too(counts):
    device = select("executor")
    with executor.settings("forward"):
        for got in together(len(counts), partial(summed, counts, AtOnce, array=device.array)):
            assert got == wanted(sum(counts))


def test_gradients_travel_while_those_of_lower_layers_are_still_to_come(monkeypatch):
    monkeypatch.setattr(reduce, "BUCKET", 100)

    def work(ranks):
        sums, seen = GradientSum(ranks, AtOnce(), SHAPES, [2, 2], np.zeros((4, 2)), np.zeros(1, np.float32)), []
        for leaf in range(2):
            for layer, of_layer in reversed(gradients(leaf).items()):
                sums.add(layer, of_layer)
                seen.append(sum(call == "exchange" for call, _ in ranks.calls))
        sums.total()
        return seen, ranks.calls

    for seen, calls in together(2, work):
        assert seen == [0, 0, 0, 0, 3, 5, 5, 7]           # with the first one the rows; gamma and beta wait for conv1
        assert sum(sum(sizes) for _, sizes in calls) < 2.2*sum(4*np.prod(shape) for of in SHAPES.values()
                                                               for shape in of.values())


@given(st.integers(1, 300), st.integers(1, 40))
def test_shares_are_neighbours_that_hold_each_leaf_once_and_as_many_as_others(count, ranks):
    shares = [range(count)[share(count, ranks, rank)] for rank in range(ranks)]
    assert [leaf for one in shares for leaf in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 200), st.integers(0, 50))
def test_leaves_hold_each_picture_once_in_order(N, size):
    found = leaves(N, size)
    assert [n for leaf in found for n in range(N)[leaf]] == list(range(N))
    assert all(leaf.stop - leaf.start == (size or N) for leaf in found[:-1]) and all(leaf.stop > leaf.start for leaf in found)


@given(st.integers(1, 5000), st.integers(1, 40))
def test_slices_of_a_bucket_begin_at_multiples_of_four(length, count):
    found = slices(length, count)
    assert len(found) == count and [n for cut in found for n in range(length)[cut]] == list(range(length))
    assert all(cut.start % 4 == 0 or cut.start == cut.stop == length for cut in found)


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_buckets_hold_every_gradient_once_from_the_last_layer_down(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "BUCKET", size)
        found = buckets(SHAPES)
    assert [(place.layer, place.key) for bucket in found for place in bucket] == [
        (layer, key) for layer, of_layer in reversed(SHAPES.items()) for key in of_layer]
    for bucket in found:
        assert all(place.first % 4 == 0 and place.stop - place.first == np.prod(place.shape) for place in bucket)
        assert all(one.stop <= other.first for one, other in zip(bucket, bucket[1:]))
    assert all(4*bucket[-1].stop >= size - 12 for bucket in found[:-1])


@pytest.mark.parametrize("batch_size, asked, ranks, size", [
    (128, 0, 1, 0), (128, 16, 1, 16), (128, 0, 2, 16), (128, 0, 8, 16), (128, 0, 9, 8), (128, 5, 26, 5), (10, 0, 7, 1),
    (3, 0, 3, 1)])
def test_a_batch_is_cut_by_what_was_asked_for_or_into_eight(batch_size, asked, ranks, size):
    assert micro_batch(batch_size, asked, ranks) == size


@pytest.mark.parametrize("batch_size, asked, ranks, most", [(128, 5, 27, 26), (3, 0, 4, 3), (10, 10, 2, 1)])
def test_more_ranks_than_leaves_are_refused_with_both_numbers(batch_size, asked, ranks, most):
    with pytest.raises(Expected, match=rf"ranks: expected at most {most}, .* got {ranks};"):
        micro_batch(batch_size, asked, ranks)


def test_alone_no_gradient_travels():
    sums = GradientSum(ALONE, None, SHAPES, [1], np.zeros((1, 2)), np.zeros(1, np.float32))
    given = gradients(0)
    for layer, of_layer in reversed(given.items()):
        sums.add(layer, of_layer)
    assert all(sums.total()[layer][key] is one for layer, of_layer in given.items() for key, one in of_layer.items())
