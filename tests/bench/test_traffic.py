"""What a step moves, counted from its launches, against counts by hand."""
import numpy as np
import pytest

from bench import prediction, traffic
from bench.traffic import DEVICE, of_memory, of_tiles, step
from zfcore import backend
from zfcore.backend import BF16
from zfcore.ops import conv2d_kernels, tuning
from zfcore.ops.conv2d import ConvCache, conv2d, conv2d_transpose
from zfcore.ops.conv2d_maxpool import conv2d_maxpool, conv2d_maxpool_backward
from zfcore.ops.maxpool import MaxPoolCache, Pooling
from zfcore.ops.relu import relu_backward
from zfcore.ops.sgd_step import sgd_step


@pytest.fixture
def launches(monkeypatch):
    """The tape of what ghosts launch in this test."""
    tape = []
    monkeypatch.setitem(backend.LAUNCHERS, traffic.Ghost, lambda *launch: tape.append(launch))
    return tape


def ghost(*shape, dtype=np.float32):
    return DEVICE.array(np.empty(shape, dtype))


def test_memory_is_every_array_once_and_what_changes_in_place_twice(launches):
    relu_backward(ghost(5, 7), ghost(5, 7))
    x = ghost(5, 7, dtype=BF16)
    relu_backward(x, x)
    w, dw, v = ghost(40), ghost(40), ghost(40)
    sgd_step([(w, dw, v, 0.1)], ghost(), 0.9, ghost(dtype=np.float64), [ghost(40, dtype=BF16)])
    assert [of_memory(kernel, arguments) for kernel, _, arguments in launches] == [3*35*4, 2*35*2, 22*40 + 4 + 8]


def test_tiles_of_a_transposed_convolution_are_what_its_blocks_take_phase_by_phase(launches):
    conv2d_transpose(ghost(24, 4, 5, 8, dtype=BF16), ghost(40, 3, 3, 24, dtype=BF16), 2, 1, 7, 9, precision="bf16")
    (kernel, grid, arguments) = launches[-1]
    rows, columns, moved = kernel.defines["BM"], kernel.defines["BN"], 0
    for r, s in ((2, 2), (2, 1), (1, 2), (1, 1)):                            # taps of a phase, at stride 2
        for tile_m in range(0, 40, rows):
            for tile_n in range(0, 4*5*8, columns):
                moved += 24*r*s*2*(min(rows, 40 - tile_m) + min(columns, 4*5*8 - tile_n))
    assert grid[0]*grid[2] == 4*-(-40//rows)*-(-4*5*8//columns)
    assert of_tiles(kernel, grid, arguments) == moved
    assert of_tiles(*launches[0]) == 0                                       # the filters are turned


def meets(size, S, P, of, taps):
    """The `taps` with which one of the outputs `of` reads one of `size` inputs."""
    return [r for r in taps if any(0 <= p*S - P + r < size for p in of)]


def couples(tiles):
    """Two neighbours each, the last by itself if they are odd."""
    return [tiles[k:k + 2] for k in range(0, len(tiles), 2)]


def test_tiles_of_a_convolution_on_wgmma_leave_out_taps_in_the_padding(launches, monkeypatch):
    monkeypatch.setitem(backend.ARCHITECTURES, traffic.Ghost, lambda: "sm_90a")
    C, H, W, N, F, K, S, P, Ho, Wo = 48, 5, 9, 72, 264, 5, 2, 2, 3, 5
    conv2d(ghost(C, H, W, N, dtype=BF16), ghost(C, K, K, F, dtype=BF16), ghost(F), S, P, precision="bf16", training=True)
    [forward] = launches
    pixels, moved, units = [(p, q, n) for p in range(Ho) for q in range(Wo) for n in (64, 8)], 0, forward[0].defines["BN"]//64

    def step(filters, *tiles):
        """Bytes of all steps for these filters, which tiles of columns share."""
        seen = sum(tiles, [])
        rows = {p for p, *_ in seen}
        columns = {q for _, q, _ in seen} if len(rows) == 1 else range(Wo)
        taps = len(meets(H, S, P, rows, range(K)))*len(meets(W, S, P, columns, range(K)))
        return 2*C*taps*(filters + sum(n for *_, n in seen))

    for couple in couples([pixels[first:first + units] for first in range(0, len(pixels), units)]):
        moved += sum(step(128 + 128, tile) for tile in couple)              # two tiles of filters see the same windows
        moved += step(8, *couple)                                           # two tiles of windows see the last filters
    assert of_tiles(*forward) == moved


def test_tiles_of_a_filter_gradient_on_wgmma_are_what_its_pairs_walk_through(launches):
    C, H, W, N, F, K, S, P, Ho, Wo = 48, 5, 9, 72, 264, 5, 2, 2, 3, 5
    conv2d_kernels.launch_wgmma_filter_gradient(
        ghost(C, H, W, N, dtype=BF16), ghost(F, Ho, Wo, N, dtype=BF16), (C, K, K, F), S, P, 1, slices := 2,
        conv2d_kernels.WGMMA_FILTER_GRADIENT[1])
    gradient, boxes, moved = launches[0], [(tap, maps) for tap in range(K*K) for maps in (32, 16)], 0
    tiles = [boxes[first:first + 4] for first in range(0, len(boxes), 4)]
    assert (len(tiles), gradient[0].defines["BN"]) == (13, 192)             # 264 filters: tiles of 192 and 72

    def steps(tile):
        """(pixel, images) at which one of its taps meets the map."""
        rows = {tap//K for tap, _ in tile}
        columns = {tap % K for tap, _ in tile} if len(rows) == 1 else range(K)
        return [(p, q, n) for p in range(Ho) for q in range(Wo) for n in (64, 8)
                if meets(H, S, P, [p], rows) and meets(W, S, P, [q], columns)]

    def images(steps):
        return sum(n for *_, n in steps)

    def walked(number, filters, *pair):
        """Bytes of a slice, of x for each tile, of dy from the first step of one of them to the last."""
        own = [steps(tile)[len(steps(tile))*number//2:len(steps(tile))*(number + 1)//2] for tile in pair]
        places = [(p, q, -n) for p, q, n in sum(own, [])]
        between = [(p, q, n) for p, q, n in steps(sum(pair, [])) if min(places) <= (p, q, -n) <= max(places)]
        return 2*(images(between)*filters + sum(images(part)*sum(maps for _, maps in tile) for part, tile in zip(own, pair)))

    for number in range(slices):
        for couple in couples(tiles):
            moved += (walked(number, 192, *couple) + walked(number, 72, *couple) if len(couple) == 2 else
                      walked(number, 192 + 72, *couple))                    # the last rows, with all filters
    assert of_tiles(*gradient) == moved


def test_tiles_of_a_transposed_convolution_on_wgmma_are_of_several_phases(launches):
    """Two tiles of rows: of the phases (0,0), (0,1), (1,0), and of (1,1), each of 40 maps in two boxes. Two of columns, which
    share the filters, have half of the pixels."""
    dy, w, dx = ghost(32, 3, 4, 40, dtype=BF16), ghost(40, 3, 3, 32, dtype=BF16), ghost(40, 5, 7, 40, dtype=BF16)
    conv2d_kernels.launch_wgmma_transpose(dy, w, dx, 2, 1, 1, kernel=conv2d_kernels.WGMMA_TRANSPOSE["uint16"][-1])
    [(kernel, grid, arguments)], moved, multiplied = launches, 0, 0
    pixels = [(h, v) for h in range(3) for v in range(4)]                    # pixel (2*h - 1 + r, 2*v - 1 + s) in phase (r,s)
    for phases in [(0, 0), (0, 1), (1, 0)], [(1, 1)]:
        for tile in (pixels[:6], pixels[6:]):
            for r, s in [(0, 0), (0, 1), (1, 0), (1, 1)] if len(phases) == 3 else [(0, 0)]:
                if any(0 <= h - r < 3 for h, _ in tile):                     # and all columns are seen
                    having = [(a, b) for a, b in phases if a + 2*r < 3 and b + 2*s < 3]
                    moved += 2*32*(40*len(having) + 40*6)
                    multiplied += 2*len(having)                              # two tiles, 64 rows a phase
    assert of_tiles(kernel, grid, arguments) == moved
    count, steps, of_step = prediction.of_tiles(kernel, grid, arguments)
    assert (count, steps) == (8, multiplied/3/8) and count*steps*of_step == pytest.approx(moved)


def test_tiles_of_the_gradient_under_a_pool_on_wgmma_are_windows_and_what_outputs_see(launches, monkeypatch):
    monkeypatch.setitem(backend.ARCHITECTURES, traffic.Ghost, lambda: "sm_90a")
    C, K, S, F, N = 3, 4, 2, 104, 72
    x, w = ghost(C, 11, 13, N, dtype=BF16), ghost(C, K, K, F, dtype=BF16)
    of_conv, of_pool = ConvCache(x, w, S, 0, 1, True, "bf16", True), MaxPoolCache(
        ghost(F, 2, 3, N, dtype=np.uint8), Pooling((F, 5, 6, N), 3, 2, 0), None)
    with tuning.use(slice_terms=1, wgmma_blocks=2*5):
        conv2d_maxpool_backward(ghost(F, 2, 3, N, dtype=BF16), of_conv, of_pool, need_dx=False)
    columns = [(images, i, j) for images in (64, 8) for i in range(3) for j in range(3)]
    seen = sum(2*2*8*C*(K + S)*images for images, *_ in columns)             # 8 pixels a row, for two outputs
    windows = [(images, i - a, j) for images, i, j in columns for a in (0, 1)]
    windows += [(images, i - a, j - 1) for k in range(5) for images, i, j in [columns[18*k//5]] for a in (0, 1)]
    there = sum(3*F*images for images, i, j in windows if 0 <= i < 2 and 0 <= j < 3)
    assert of_tiles(*launches[0]) == 2*seen + there                          # two tiles of filters
    count, steps, moved = prediction.of_tiles(*launches[0])
    assert (count, steps) == (2*5, 4*4) and moved == pytest.approx((2*seen + there)/(2*5*4*4))


def test_tiles_of_a_convolution_under_its_pool_on_wgmma_are_what_columns_of_outputs_see(launches, monkeypatch):
    monkeypatch.setitem(backend.ARCHITECTURES, traffic.Ghost, lambda: "sm_90a")
    x, w = ghost(3, 13, 13, 72, dtype=BF16), ghost(3, 5, 5, 192, dtype=BF16)                       # 5 x 5 outputs, 3 rows of 2
    with tuning.use(multiprocessors=2*2):
        conv2d_maxpool(x, w, ghost(192), 2, 0, (3, 2, 1, "ceil"), precision="bf16", training=True)
    (kernel, grid, arguments), rows = launches[-1], 5 + 2*(2 + 2)            # of x, for 2*2 + 1 outputs below each other
    assert grid == (2, 2)                                                    # two tiles of filters, 2*2*3 windows in two blocks
    seen = 2*rows*3*8*2*(64*7 + 8*7)                                         # 3 windows are 7 columns, of 64 images and of 8
    assert of_tiles(kernel, grid, arguments) == 2*seen
    count, steps, moved = prediction.of_tiles(kernel, grid, arguments)
    assert (count, steps) == (4, 2*7*3) and moved == pytest.approx(2*seen/4/steps)


def test_a_step_in_bf16_moves_less_than_half_the_tiles_of_tf32_and_little_more_than_half_of_what_is_no_parameter():
    found = {precision: traffic.traffic(step(precision)) for precision in ("tf32", "bf16")}
    tiles, memory = ({precision: sum(getattr(one, what) for one in by.values()) for precision, by in found.items()}
                     for what in ("tiles", "memory"))
    memory = {precision: total - found[precision]["sgd_step"].memory for precision, total in memory.items()}
    assert tiles["bf16"] < 0.4*tiles["tf32"]
    for name in ("maxpool_backward", "local_response_norm_backward", "relu_backward"):
        assert found["bf16"][name].memory < 0.6*found["tf32"][name].memory
    assert memory["bf16"] < 0.66*memory["tf32"] and found["bf16"]["sgd_step"].memory > found["tf32"]["sgd_step"].memory
    filters = conv2d_kernels.TRANSPOSE_FILTERS.name                         # wgmma reads them as they are
    assert filters in found["tf32"] and filters not in found["bf16"]
