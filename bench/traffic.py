"""Bytes that a training step of ZFNet moves, counted from the launches that it makes: a prediction, printed by
python -m bench resources.

    memory   every array that a launch is given, read or written once; twice what it changes in place. So much the device's
             memory moves if caches keep what a launch itself reads again, and nothing from one launch to the next
    tiles    what the blocks of convolutions and products copy from the L2 cache into shared memory, once where two blocks of a
             cluster share it: zeros that are stored, but neither taps that all of a tile's windows, or of a pair's, have in the
             padding nor what lies beyond the last map or image; of a gradient that is spread over a map on its way, what comes
             of it

In bf16 it is the step of a Hopper GPU (H100, H200), whose kernels on wgmma no other has. No array holds anything and no kernel
runs: the shapes say it all."""
from collections import Counter
from itertools import product
from typing import NamedTuple

import numpy as np

from zfcore import backend
from zfcore.kernel import PRECISIONS, blocks, tensors
from zfcore.models.zfnet import zfnet
from zfcore.ops import model
from zfcore.ops.conv2d_kernels import BOX_MAPS, HOPPER
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.softmax_loss import softmax_loss_backward, softmax_loss_onto
from zfcore.optim import SGD
from zfcore.reduce import buckets

IN_PLACE = {"sgd_step": ("w", "v")}                        # arguments that a kernel both reads and writes
SELDOM = {"clip_filter_rms_scale"}                         # kernels that nearly always leave their arrays alone


class Ghost(np.ndarray):
    """An array whose kernels are not run: memory that nobody touches costs nothing, so the paper's shapes fit anywhere."""


DEVICE = backend.Device("ghost", "shapes alone", lambda host: np.empty_like(host).view(Ghost))


class Traffic(NamedTuple):
    """Bytes that launches move, see the head of this file."""
    memory: int
    tiles: int


def step(precision, N=128):
    """[(kernel, grid, arguments)] of a training step of ZFNet on N pictures."""
    tape, before = [], backend.LAUNCHERS.get(Ghost)
    backend.ARCHITECTURES[Ghost] = lambda: HOPPER
    backend.LAUNCHERS[Ghost] = lambda kernel, grid, arguments: tape.append((kernel, grid, arguments))
    try:
        network, array = zfnet(), DEVICE.array
        for layer, shapes in network.parameter_shapes().items():
            network[layer].parameters = {key: array(np.empty(shape, np.float32)) for key, shape in shapes.items()}
        optimizer, (C, H, W) = SGD(network.use(precision)), network.input_shape
        scalars = [array(np.zeros((), dtype)) for dtype in (np.uint64, np.float32, np.float64, np.float64)]
        crops = [array(np.zeros(N, dtype)) for dtype in (np.int32, np.int32, bool)]
        pictures, mean = array(np.empty((N, H + 32, W + 32, C), np.uint8)), array(np.empty((C, H + 32, W + 32), np.float32))
        tape.clear()                                       # what `use` launched
        x = crop_flip(pictures, mean, *crops, H, W, backend.BF16 if network.in_bf16 else None)
        y, caches = network.forward(x, scalars[0], piece=(0, N))
        cache = softmax_loss_onto(array(np.zeros(2)), y, array(np.zeros(N, np.int32)))
        _, grads = network.backward(softmax_loss_backward(cache), caches, to_pixels=False)
        for bucket in buckets(network.parameter_shapes()):
            optimizer.step(network, {place.layer: grads[place.layer] for place in bucket}, *scalars[1:])
        return tape
    finally:
        backend.LAUNCHERS.pop(Ghost) if before is None else backend.LAUNCHERS.update({Ghost: before})


def traffic(tape):
    """{name of a kernel: Traffic of all its launches}."""
    found = {}
    for kernel, grid, arguments in tape:
        more = Traffic(of_memory(kernel, arguments), of_tiles(kernel, grid, arguments))
        found[kernel.name] = Traffic(*map(sum, zip(found.get(kernel.name, (0, 0)), more)))
    return found


def of_memory(kernel, arguments):
    """Bytes of the arrays of a launch."""
    if kernel.name in SELDOM:
        return 0
    times, arrays = Counter(), {}
    for argument, array in tensors(kernel, arguments):
        arrays[array.ctypes.data] = array
        times[array.ctypes.data] = max(times[array.ctypes.data], 1 + (argument.name in IN_PLACE.get(kernel.name, ())))
    return sum(times[place]*array.nbytes for place, array in arrays.items())


def of_tiles(kernel, grid, arguments):
    """Bytes that the blocks of a launch copy into tiles; 0 where it has none."""
    tile = kernel.defines
    given = dict(zip((argument.name for argument in kernel.arguments), arguments))
    if kernel.name == "conv2d_wgmma_maxpool_gradient":
        return of_spread(kernel, given)
    if kernel.name == "conv2d_wgmma_maxpool":
        return of_pool(kernel, grid, given)
    if kernel.name == "conv2d_wgmma_transpose":
        return of_transpose(kernel, given)[0]
    if kernel.arch == HOPPER:
        return (of_gradient if kernel.name == "conv2d_wgmma_gradient" else of_gather)(kernel, given)
    if "BM" not in tile:
        return 0
    conv = given["conv"]
    maps, filters, K, S = (int(conv["C"]//conv["groups"]), int(conv["F"]//conv["groups"]), int(conv["K"]), int(conv["S"]))
    N, size = int(conv["N"]), given.get("x", given.get("dy")).itemsize
    if kernel.name == "conv2d_maxpool":
        rows = (int(given["run"]) - 1)*tile["STRIDE"] + tile["POOL"]               # of the convolution, that a block computes
        return int(np.prod(grid, dtype=np.int64))*rows*maps*K*K*(tile["BM"] + tile["BN"])*size
    if kernel.name in ("conv2d_filter_gradient", "conv2d_maxpool_filter_gradient"):
        products = [(maps*K*K, filters, int(conv["Ho"])*int(conv["Wo"])*N)]        # rows, columns, steps of the reduction
    elif kernel.name == "conv2d_forward":
        products = [(filters, int(conv["Ho"])*int(conv["Wo"])*N, maps*K*K)]
    else:
        taps = [len(range(phase, K, S)) for phase in range(S)]
        products = [(maps, blocks(int(conv["H"]), S)*blocks(int(conv["W"]), S)*N, filters*r*s) for r in taps for s in taps]
    return int(conv["groups"])*size*sum(steps*(blocks(columns, tile["BN"])*rows + blocks(rows, tile["BM"])*columns)
                                        for rows, columns, steps in products)


def of_gather(kernel, given):
    """The same of the forward convolution on wgmma: pair by pair of tiles the taps that meet the map, of each the filters and
    the images of the tiles' units, once each."""
    C, H, W, N, F, K, S, P, Ho, Wo, groups = map(int, given["conv"].item())
    high, moved = model.extents(F//groups, model.sizes(kernel)[0]), 0
    rows, columns = (inside(*size, K, S, P) for size in ((H, Ho), (W, Wo)))
    for pair in model.dealt(int(given["tiles_m"]), int(given["tiles_n"])):
        r, s, images = seen(kernel, pair, rows, columns, N)
        moved += len(r)*len(s)*(sum(high[m] for m in {m for m, _ in pair}) + images)
    return 2*C*moved


def of_transpose(kernel, given):
    """(the same of the transposed convolution on wgmma, steps of a tile that have as many products): pair by pair the taps of
    the pair's first phase, of each the filters of the phases that have it; and a step for as many times 64 rows that are
    multiplied as a tile has."""
    C, H, W, N, F, K, S, P, Ho, Wo, groups = map(int, given["conv"].item())
    high, maps, moved, multiplied = model.sizes(kernel)[0], F//groups, 0, 0
    boxes = [(r, s, min(BOX_MAPS, C//groups - m)) for r, s in np.ndindex(S, S) for m in range(0, C//groups, BOX_MAPS)]
    rows, columns = (np.arange(P//S, (size - 1 + P)//S + 1)[:, None] - np.arange(blocks(K, S)) for size in (H, W))     # of dy
    rows, columns = (rows >= 0) & (rows < Ho), (columns >= 0) & (columns < Wo)
    for pair in model.dealt(int(given["tiles_m"]), int(given["tiles_n"]), S):
        there = sorted({m for m, _ in pair})
        of_pair = boxes[there[0]*high//BOX_MAPS:(there[-1] + 1)*high//BOX_MAPS]
        (low, s, _), (to, *_) = of_pair[0], of_pair[-1]
        taps = [len(range(low, K, S)), len(range(s if low == to else 0, K, S))]
        *met, images = seen(kernel, pair, rows[:, :taps[0]], columns[:, :taps[1]], N)
        for r, s in product(*met):
            used = [maps*(low + S*r < K and phase + S*s < K) for low, phase, maps in of_pair]
            moved += sum(used) + images
            multiplied += sum(map(any, zip(used[::2], [*used[1::2], 0])))*len({n for _, n in pair})
    return groups*2*maps*moved, groups*blocks(maps, 64)*multiplied*64/high


def seen(kernel, pair, rows, columns, N):
    """(taps along rows, along columns, images of all units once) of a pair of tiles of a convolution on wgmma, of whose outputs
    `rows` and `columns`, bool (outputs,taps), say which tap meets the map."""
    of_tile, per_pixel = kernel.defines["BN"]//64, blocks(N, 64)
    (_, n), (_, to_n) = pair
    first, last = n*of_tile, min((to_n + 1)*of_tile, len(rows)*len(columns)*per_pixel) - 1
    if last < first:
        return [], [], 0
    (p, q), (to_p, to_q) = (divmod(unit//per_pixel, len(columns)) for unit in (first, last))
    images = sum(min(64, N - unit % per_pixel*64) for unit in range(first, last + 1))
    of_columns = columns[q:to_q + 1] if p == to_p else columns
    return np.flatnonzero(rows[p:to_p + 1].any(0)), np.flatnonzero(of_columns.any(0)), images


def inside(size, size_out, K, S, P):
    """bool (outputs,taps) along an axis: whether output i meets the map with tap t."""
    read = S*np.arange(size_out)[:, None] + np.arange(K) - P
    return (read >= 0) & (read < size)


def of_gradient(kernel, given):
    """The same of the filter gradient on wgmma: pair by pair of tiles the steps from the first to the last that is for one of
    them, with the filters there; and of each tile of rows the steps that are its own, with its maps."""
    C, H, W, N, F, K, S, P, Ho, Wo, groups = map(int, given["conv"].item())
    rows, columns = (inside(*size, K, S, P) for size in ((H, Ho), (W, Wo)))
    slices, tiles_m, tiles_n = (int(given[name]) for name in ("slices", "tiles_m", "tiles_n"))
    boxes = [(tap, min(BOX_MAPS, C//groups - c)) for tap in range(K*K) for c in range(0, C//groups, BOX_MAPS)]
    of_tile, wide, moved = model.sizes(kernel)[0]//BOX_MAPS, model.extents(F//groups, kernel.defines["BN"]), 0

    def steps(m, to_m):
        """bool (Ho*Wo, steps of a pixel): those at which a tap of these tiles meets the map."""
        (r, s), (to_r, to_s) = (divmod(tap, K) for tap, _ in (boxes[m*of_tile], boxes[min((to_m + 1)*of_tile, len(boxes)) - 1]))
        met = np.outer(rows[:, r:to_r + 1].any(1), (columns[:, s:to_s + 1] if r == to_r else columns).any(1))
        return np.repeat(met.reshape(-1, 1), blocks(N, 64), 1)

    def part(m, number):
        """The steps of slice `number` of tile m, the first and the last, and how many images they have."""
        found = np.flatnonzero(steps(m, m))
        found = found[len(found)*number//slices:len(found)*(number + 1)//slices]
        return found[:1].tolist() + found[-1:].tolist(), int(images[found].sum())

    images = np.tile(np.minimum(64, N - 64*np.arange(blocks(N, 64))), Ho*Wo)
    for pair, number in product(model.dealt(tiles_m, tiles_n), range(slices)):
        there = sorted({m for m, _ in pair if m < tiles_m})
        ends = []
        for m in there:
            of_part, count = part(m, number)
            ends += of_part
            moved += count*sum(maps for _, maps in boxes[m*of_tile:(m + 1)*of_tile])
        if ends:
            met = steps(there[0], pair[1][0]).ravel()[min(ends):max(ends) + 1]
            moved += int(images[min(ends):max(ends) + 1][met].sum())*sum(wide[n] for n in {n for _, n in pair})
    return groups*2*moved


def columns_of_windows(kernel, conv, pool_P):
    """(sixty-fours of images, rows, columns) of the columns of outputs that conv2d_wgmma_maxpool_gradient walks through."""
    stride = kernel.defines["STRIDE"]
    return blocks(int(conv["N"]), 64), *((int(conv[size]) - 1 + int(pool_P))//stride + 1 for size in ("Ho", "Wo"))


def of_spread(kernel, given):
    """The same of conv2d_wgmma_maxpool_gradient: of each column what its outputs see, in atoms of 8 pixels, and the windows of
    the pool that begin there and a row above; at the first of a slice also those before."""
    C, H, W, N, F, K, S, *_ = map(int, given["conv"].item())
    shape = columns_of_windows(kernel, given["conv"], given["pool_P"])
    slices, stride, count = len(given["partial"]), kernel.defines["STRIDE"], int(np.prod(shape))
    height, width, firsts = int(given["height"]), int(given["width"]), {count*k//slices for k in range(slices)}
    seen = 2*8*C*stride*(K + (stride - 1)*S)*blocks(F, kernel.defines["BN"])
    moved = 0
    for at, (chunk, i, j) in enumerate(np.ndindex(shape)):
        rows = sum(0 <= i - a < height for a in range(blocks(kernel.defines["POOL"], stride)))
        columns = (j < width) + (at in firsts and 0 < j <= width)
        moved += min(64, N - 64*chunk)*(seen + 3*F*rows*columns)
    return moved


def columns_of_pool(kernel, grid, given):
    """[(images, columns of outputs)] of each block of conv2d_wgmma_maxpool, of a tile of filters; the images on average."""
    width, (_, blocks_of_tile) = int(given["width"]), grid
    strips = blocks(int(given["height"]), kernel.defines["BM"]//64)
    N, found = int(given["images"]), []
    total = blocks(N, 64)*strips*width
    for block in range(blocks_of_tile):
        runs, at, end = [], total*block//blocks_of_tile, total*(block + 1)//blocks_of_tile
        while at < end:
            many = min(end - at, width - at % width)
            runs.append((min(64, N - at//width//strips*64), (many - 1)*kernel.defines["STRIDE"] + kernel.defines["POOL"]))
            at += many
        count = sum(columns for _, columns in runs)
        found.append((sum(images*columns for images, columns in runs)/count, count))
    return found


def of_pool(kernel, grid, given):
    """The same of conv2d_wgmma_maxpool: of each column of outputs what they see, in atoms of 8 pixels."""
    C, *_, K, S, _, _, _, _ = map(int, given["conv"].item())
    rows = K + S*(kernel.defines["STRIDE"]*(kernel.defines["BM"]//64 - 1) + kernel.defines["POOL"] - 1)
    return grid[0]*2*8*C*rows*round(sum(images*columns for images, columns in columns_of_pool(kernel, grid, given)))


def lines():
    """The prediction as text: a line a precision."""
    yield f"a training step of ZFNet at batch 128 for {HOPPER} (H100, H200), counted from its launches, a prediction:"
    for precision in PRECISIONS:
        tape = step(precision)
        total = Traffic(*map(sum, zip(*traffic(tape).values())))
        yield (f"{precision:8}{len(tape):4} launches, {total.memory/1e9:5.2f} GB to and from memory, "
               f"{total.tiles/1e9:5.2f} GB from L2 into tiles")
