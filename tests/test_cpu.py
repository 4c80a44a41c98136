"""Blocks cover their arrays once, and what is done with them comes back in order on any number of cores."""
import threading

import numpy as np
import pytest

from zfcore import cpu
from zfcore.cpu import map_blocks, parallel, pieces, rectangles, slabs


@pytest.mark.parametrize("cores", [1, 3])
def test_results_come_in_the_order_of_the_items_also_from_within_a_job(monkeypatch, cores):
    monkeypatch.setattr(cpu, "CORES", cores)
    cpu._pool.cache_clear()
    rows = parallel(lambda k: parallel(lambda i: (k, i), range(3)), iter(range(7)))
    cpu._pool.cache_clear()
    assert rows == [[(k, i) for i in range(3)] for k in range(7)]


def test_one_item_is_worked_on_where_it_is():
    assert parallel(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_slabs_cover_an_array_once_in_about_so_many_bytes():
    for shape in [(7, 5), (1, 300), (13, 1), (0, 3)]:
        x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        cut = [x[slab] for slab in slabs(x, nbytes=100)]
        np.testing.assert_array_equal(np.concatenate([x[:0], *cut]), x)
        assert all(len(slab) == 1 or slab.nbytes <= 100 for slab in cut)


def test_pieces_cover_a_length_once_with_none_above_the_limit():
    for length in range(12):
        for most in range(1, 14):
            cut = pieces(length, most)
            assert [k for piece in cut for k in range(piece.start, piece.stop)] == list(range(length))
            sizes = [piece.stop - piece.start for piece in cut]
            assert not sizes or max(sizes) <= most and max(sizes) - min(sizes) <= 1


def test_rectangles_cover_every_place_once():
    for height, width, most in [(5, 7, 3), (5, 7, 100), (1, 1, 1), (3, 50, 7), (50, 3, 7)]:
        covered = np.zeros((height, width), int)
        for rows, columns in rectangles(height, width, most):
            covered[rows, columns] += 1
            assert covered[rows, columns].size <= most
        assert (covered == 1).all()


def test_map_blocks_cover_every_row_of_every_map_once():
    for C, rows, nbytes, budget in [(5, 7, 3, 30), (5, 7, 3, 1), (1, 9, 1, 4), (3, 2, 8, 1000)]:
        covered = np.zeros((C, rows), int)
        for maps, of_rows in map_blocks(C, rows, nbytes, budget):
            covered[maps, of_rows] += 1
            assert covered[maps, of_rows].size <= max(budget//nbytes, 1)
        assert (covered == 1).all()
