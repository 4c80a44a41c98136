"""Blocks cover their arrays once, and what is done with them comes back in order on any number of cores."""
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from zfcore import cpu
from zfcore.cpu import map_blocks, parallel, pieces, rectangles, slabs


def test_one_item_is_worked_on_where_it_is():
    assert parallel(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_slabs_cover_an_array_once_in_about_so_many_bytes():
    for shape in [(7, 5), (1, 300), (13, 1), (0, 3)]:
        x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        cut = [x[slab] for slab in slabs(x, nbytes=100)]
        np.testing.assert_array_equal(np.concatenate([x[:0], *cut]), x)
        assert all(len(slab) == 1 or slab.nbytes <= 100 for slab in cut)
    number = np.array(3.0)
    for k in slabs(number):
        number[k] += 1
    assert number == 4


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


@pytest.fixture(params=[1, 2, 5])
def cores(request, monkeypatch):
    monkeypatch.setattr(cpu, "CORES", request.param)
    return request.param


def test_parallel_is_a_list_of_the_works_results_in_the_order_of_the_items(cores):
    for n in (0, 1, 2, 3, 17):
        assert cpu.parallel(lambda k: k*k, range(n)) == [k*k for k in range(n)]
    assert cpu.parallel(lambda a: cpu.parallel(lambda b: 10*a + b, range(4)), range(7)) \
        == [[10*a + b for b in range(4)] for a in range(7)]


@pytest.mark.parametrize("error", [ValueError, IndexError, StopIteration, KeyboardInterrupt])
def test_an_error_of_one_item_is_the_callers_and_no_item_is_still_worked_on_when_it_comes(cores, error):
    begun, ended = [], []

    def work(k):
        begun.append(k)
        time.sleep(0.002)
        if k == 5:
            raise error("of five")
        ended.append(k)

    with pytest.raises(error, match="of five"):
        cpu.parallel(work, range(40))
    assert sorted(begun) == sorted([*ended, 5]) and len(begun) < 40
    assert cpu.parallel(abs, range(-9, 0)) == [*range(9, 0, -1)]      # and the threads are there for the next


def test_every_core_takes_items(monkeypatch):
    monkeypatch.setattr(cpu, "CORES", 3)
    together = threading.Barrier(3, timeout=20)                             # it opens for three at once only
    assert len(set(cpu.parallel(lambda _: together.wait(), range(3)))) == 3


def test_blas_has_one_thread_inside_and_as_many_as_before_outside(cores):
    def threads():
        return [library.get_num_threads() for library in cpu.BLAS.libraries]

    before = threads()
    with ThreadPoolExecutor(4) as callers:                                  # who leaves first does not undo what others need
        inside = callers.map(lambda k: cpu.parallel(lambda _: (time.sleep(0.001*k), threads())[1], range(6)), range(4))
        assert all(n == 1 for one in inside for item in one for n in item)
    assert threads() == before


def told(**environment):
    """What `arithmetic` tells in a process with these variables."""
    program = "from zfcore.cpu import arithmetic; print(arithmetic())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={**os.environ, **environment}).stdout


@pytest.mark.skipif("openblas" not in cpu.arithmetic()["BLAS"] or "X86_V3" not in cpu.arithmetic()["NumPy's vector code"],
                    reason="needs OpenBLAS on a processor for which it has several codes")
def test_the_code_that_is_told_is_the_one_that_the_environment_lets_libraries_take():
    cores = {told(OPENBLAS_CORETYPE=core) for core in ("Haswell", "Sandybridge")}
    assert len(cores) == 2 and any("Haswell" in words for words in cores)
    assert told(NPY_DISABLE_CPU_FEATURES=cpu.arithmetic()["NumPy's vector code"].replace(",", "")) not in {told(), *cores}
