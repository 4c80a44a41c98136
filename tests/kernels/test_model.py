"""The model of a kernel's time, against sums by hand; every tile that may be chosen is counted."""
import json

import numpy as np
import pytest

from bench import ladder
from bench.resources import declared
from zfcore.cubin import kernels_folder
from zfcore.ops import conv2d_kernels as kernels
from zfcore.ops import model
from zfcore.ops.tuning import SHIPPED, Tuning

TILED = [kernel for kernel in declared() if "BM" in kernel.defines]
LARGE = kernels.FORWARD_KERNELS["bf16"][0]                # 128 x 128 results, 32 terms a step, 4 warps, 2 blocks, 4 stages


def test_every_tile_that_is_multiplied_by_ffma_or_mma_is_counted():
    counted = {model.words(kernel): kernel for kernel in [*TILED, *(rung.kernel for rung in ladder.rungs())]
               if "BM" in kernel.defines}
    assert set(model.loops()) == set(counted)
    for name, loop in model.loops().items():
        assert loop.products == loop.steps*model.products(counted[name]) and loop.instructions > loop.products and loop.wavefronts > 0


@pytest.mark.parametrize("precision, products", [("fp32", 8*8*8), ("tf32", 4*8*2), ("fp32x3", 3*4*8*2), ("bf16", 4*8*2)])
def test_products_of_a_warp_in_a_step(precision, products):
    assert model.products(kernels.FORWARD_KERNELS[precision][0]) == products


def test_cycles_of_a_step_are_those_of_a_sum_by_hand():
    gpu = Tuning(multiprocessors=100, clock_ghz=2.0, bf16_tflop_s=400.0, l2_gb_s=4000.0)
    found = model.cycles(LARGE, 10_000, gpu)
    loop = model.loops()[model.words(LARGE)]
    assert found.issue == pytest.approx(4*loop.instructions/loop.steps/4) and found.shared == pytest.approx(4*loop.wavefronts/loop.steps)
    assert found.math == pytest.approx(2*128*128*32/(400e12/(100*2e9)))          # FLOPs over FLOPs a cycle of a multiprocessor
    assert found.l2 == pytest.approx(10_000/(4000e9/(100*2e9)))
    assert found.together() == pytest.approx(0.9*max(found) + 0.1*sum(found))


def test_tiles_fetch_what_there_is_and_no_more():
    assert model.tile_bytes(LARGE, 256, 1280) == 2*32*(128 + 128)
    assert model.tile_bytes(LARGE, 4096, 1) == 2*32*(128 + 1)
    assert model.tile_bytes(kernels.FORWARD_KERNELS["tf32"][0], 192, 1280) == 4*16*(96 + 128)


def test_blocks_come_in_rounds_and_few_of_them_wait_for_the_cache():
    def seconds(count, **changes):
        return model.seconds(LARGE, count, 50, 16384, Tuning(**changes))

    busy = dict(l2_latency=1.0)
    assert seconds(132, **busy) == seconds(1, **busy) and seconds(133, **busy) == seconds(264, **busy) == 2*seconds(132, **busy)
    slow = dict(l2_latency=90_000.0)                       # two blocks wait together, three stages ahead
    assert seconds(264,
                   **slow) == seconds(1, **slow) == pytest.approx(50*30_000/1.83e9) and seconds(265,
                                                                                                **slow) == 2*seconds(264, **slow)


def test_a_kernel_of_one_stage_waits_and_then_multiplies():
    one, two = ladder.rungs()[1].kernel, ladder.rungs()[2].kernel
    gpu = Tuning(l2_latency=10_000.0)
    waits, cycles = model.wait(one, 8192, gpu), model.cycles(one, 8192, gpu).together()
    assert waits == pytest.approx(10_000 + cycles) and model.wait(two, 8192, gpu) == 10_000
    assert model.seconds(one, 132, 9, 8192, gpu) > model.seconds(two, 132, 9, 8192, gpu)


def test_wgmma_is_bound_by_its_products_and_the_cache():
    kernel = kernels.WGMMA_FORWARD["uint16"][0]
    found = model.cycles(kernel, 2*64*(128 + 256), SHIPPED)
    assert model.precision(kernel) == "wgmma" and found.issue == found.shared == 0
    assert found.math == pytest.approx(2*128*256*64*132*1.83e9/790e12)


def test_tiles_of_several_phases_are_dealt_along_their_rows():
    assert list(model.dealt(2, 3, 2)) == [((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 2), (1, 2))] and model.pairs(2, 3, 2) == 3
    assert model.pairs(1, 3, 2) == len(list(model.dealt(1, 3, 2))) == 2


@pytest.mark.parametrize("m", range(1, 6))
@pytest.mark.parametrize("n", range(1, 6))
def test_every_tile_is_dealt_once_and_in_a_pair_with_one_that_reads_the_same(m, n):
    found = list(model.dealt(m, n))
    assert len(found) == model.pairs(m, n) == -(-m*n//2)
    there = [tile for pair in found for tile in pair if tile != (m, n - 1)]
    assert sorted(there) == [(row, column) for row in range(m) for column in range(n)]
    for (row, column), other in found:
        assert other == (row + 1, column) or (other == (row, column + 1) and row == m - 1 and m % 2)


def test_what_two_tiles_share_is_fetched_by_one_of_their_blocks():
    kernel = kernels.WGMMA_FORWARD["uint16"][0]           # 128 x 256 results, 64 terms a step
    assert model.tile_bytes(kernel, 256, 512) == 2*64*(256 + 256)/2
    assert model.tile_bytes(kernel, 128, 512) == 2*64*(128 + 512)/2
    assert model.tile_bytes(kernel, 384, 512) == 2*64*(2*(256 + 256) + 128 + 512)/6
    assert model.tile_bytes(kernel, 40, 100) == 2*64*(40 + 100)/2 and model.tiles(kernel, 40, 100) == 2      # one of them idle
    assert model.tile_bytes(kernel, 300, 700) == pytest.approx(
        2*64*((256 + 256) + (256 + 256) + (44 + 512) + (256 + 188) + (44 + 188))/10) and model.tiles(kernel, 300, 700) == 10


def test_the_file_of_counts_is_one_object():
    found = json.loads((kernels_folder()/"loops.json").read_text())
    assert set(found) == {"nvrtc", "arch", "loops"} and found["arch"] == "sm_90a"
    assert all(np.array(counts).shape == (4,) for counts in found["loops"].values())
