"""The time of a training step of ZFNet on a H100 or H200, predicted from its launches (bench/traffic.py) by the model that
kernels are chosen by (zfcore/ops/model.py): printed by python -m bench resources. Nothing of it is measured.

A launch takes what its blocks take, or its bytes at the rate of a copy if that is more, and LAUNCH besides."""
from typing import NamedTuple

import numpy as np

from bench import traffic
from zfcore.kernel import PRECISIONS, blocks
from zfcore.ops import model, tuning

LAUNCH = 2e-6                     # seconds from the end of a launch in a graph to the beginning of the next; predicted
MOST = 10                         # kernels that are listed


class Share(NamedTuple):
    """Share of a step of a kernel: its launches, their time, and how much of that waits for each thing a launch asks for."""
    launches: int
    seconds: float
    bounds: dict


def outputs(kernel, given):
    """(rows, columns, how often): the matrices of results of a launch that is made of tiles, of the largest size."""
    C, H, W, N, F, K, S, _, Ho, Wo, groups = map(int, given["conv"].item())
    slices = int(given.get("slices", 1))
    if "gradient" in kernel.name:
        return C//groups*K*K, F//groups, groups*slices
    if "transpose" in kernel.name:
        return C//groups, blocks(H, S)*blocks(W, S)*N, groups*S*S*slices
    return F//groups, Ho*Wo*N, groups*slices


def of_tiles(kernel, grid, arguments):
    """(blocks, steps of each, bytes of a step) of a launch that is made of tiles; blocks that stay for several tiles are
    counted once for each. None where there are none."""
    if not (moved := traffic.of_tiles(kernel, grid, arguments)):
        return None
    if kernel.name == "conv2d_wgmma_maxpool_gradient":
        return of_spread(kernel, grid, arguments, moved)
    given = dict(zip((argument.name for argument in kernel.arguments), arguments))
    if kernel.name == "conv2d_wgmma_transpose":
        return of_transpose(kernel, given)
    if kernel.name == "conv2d_wgmma_maxpool":
        return of_pool(kernel, grid, given, moved)
    M, columns, times = outputs(kernel, given)
    count = times*model.tiles(kernel, M, columns) if kernel.arch else int(np.prod(grid, dtype=np.int64))
    of_step = model.tile_bytes(kernel, M, columns)
    return count, moved/of_step/count, of_step


def of_spread(kernel, grid, arguments, moved):
    """The same of conv2d_wgmma_maxpool_gradient: an output, of 64 images, is a step."""
    *_, conv, _, _, pool_P = arguments
    count, columns = int(np.prod(grid)), int(np.prod(traffic.columns_of_windows(kernel, conv, pool_P)))
    steps = blocks(columns, grid[1])*kernel.defines["STRIDE"]**2
    return count, steps, moved/count/steps


def of_transpose(kernel, given):
    """The same of conv2d_wgmma_transpose: a step has the products of a tile, whichever taps they are of."""
    count = 2*int(given["conv"]["groups"])*int(given["slices"])*model.pairs(*(
        int(given[name]) for name in ("tiles_m", "tiles_n")), int(given["conv"]["S"]))
    moved, steps = traffic.of_transpose(kernel, given)
    return count, steps/count, moved/steps


def of_pool(kernel, grid, given, moved):
    """The same of conv2d_wgmma_maxpool: an output of each consumer, of 64 images, is a step; all blocks have as many as one of
    them has."""
    columns = [columns for _, columns in traffic.columns_of_pool(kernel, grid, given)]
    steps = max(columns)*kernel.defines["POOL"]
    return int(np.prod(grid)), steps, moved/grid[0]/sum(columns)/kernel.defines["POOL"]


def of_launch(kernel, grid, arguments):
    """(seconds of a launch, what bounds it)."""
    memory = traffic.of_memory(kernel, arguments)/(1e9*tuning.current.copy_gb_s)
    tiles = of_tiles(kernel, grid, arguments)
    work = model.seconds(kernel, *tiles, tuning.current) if tiles else 0
    if memory >= work:
        return memory + LAUNCH, "memory"
    cycles = model.cycles(kernel, tiles[2], tuning.current)
    return work + LAUNCH, max(zip(cycles, cycles._fields))[1]


def shares(tape):
    """{name of a kernel: its Share}, the longest first."""
    found = {}
    for launch in tape:
        time, bound = of_launch(*launch)
        before = found.get(launch[0].name, Share(0, 0, {}))
        found[launch[0].name] = Share(before.launches + 1, before.seconds + time,
                                      before.bounds | {bound: before.bounds.get(bound, 0) + time})
    return dict(sorted(found.items(), key=lambda entry: -entry[1].seconds))


def issued(tape):
    """(products on tensor cores in an issue slot, issue slots in the cycles that these products take) of the main loops of a
    step."""
    slots = products = cycles = 0
    for kernel, grid, arguments in tape:
        if (tiles := of_tiles(kernel, grid, arguments)) and model.precision(kernel) not in ("fp32", "wgmma"):
            (count, steps, moved), loop = tiles, model.loops()[model.words(kernel)]
            issue, math, *_ = model.cycles(kernel, moved, tuning.current)
            warp_steps = count*steps*kernel.block/32
            slots, products = slots + warp_steps*loop.instructions/loop.steps, products + warp_steps*loop.products/loop.steps
            cycles += warp_steps*loop.instructions/loop.steps*math/issue
    return (products/slots, slots/cycles) if slots else None


def lines():
    """The prediction as text, each precision with the kernels that take most of it."""
    yield "a training step of ZFNet at batch 128 on a H200 as zfcore/ops/tuning.py takes it to be, a prediction:"
    for precision in reversed(PRECISIONS):
        tape = traffic.step(precision)
        parts, found = shares(tape), issued(tape)
        yield f"{precision:8}{1e3*sum(part.seconds for part in parts.values()):6.2f} ms" + (
            f"; main loops on mma.sync: {found[0]:.3f} products an issue slot, {found[1]:.2f} issue slots in a cycle that "
            "the products take" if found else "")
        for name, part in list(parts.items())[:MOST]:
            longest = sorted(part.bounds.items(), key=lambda one: -one[1])
            bounds = ", ".join(f"{bound} {time/part.seconds:.0%}" for bound, time in longest)
            yield f"        {1e3*part.seconds:6.2f} ms {part.launches:3}  {name:32} bound by {bounds}"
