"""The kernels of convolution (conv2d.py): their declarations, the choice between their tiles, and their launches, which fully
connected layers share (linear.py). The kernels themselves are kernels/conv2d*.cu, of which conv2d.cu is to be read first."""
import numpy as np

from zfcore.backend import BF16, address, architecture, empty, unread
from zfcore.kernel import PRECISIONS, Kernel, TensorMap, blocks, struct
from zfcore.ops import model, tuned, tuning
from zfcore.ops.pad import KERNEL as PAD
from zfcore.ops.relu import relu_backward

Conv = struct("Conv", "int C, int H, int W, int N, int F, int K, int S, int P, int Ho, int Wo, int groups")
FORWARD = "const stored *x, const stored *w, const float *b, result *y, Conv conv, int biased, int relu"
TRANSPOSE = "const stored *dy, const stored *transposed, stored *dx, Conv conv"
FILTER_GRADIENT = "const stored *x, const stored *dy, float *partial, Conv conv"

# BM x BN results a block, TM x TN a thread; VECTOR_A floats a copy of filters, VECTOR_B of windows; BLOCKS on an SM
LARGE = dict(BM=128, BN=128, TM=8, TN=8, VECTOR_A=4, VECTOR_B=4, BLOCKS=2)
LARGE_ODD = LARGE | dict(VECTOR_A=1, VECTOR_B=1)
MIDDLE = LARGE | dict(BM=96)                                          # the 96 filters of conv1, the 96 maps of conv2
SMALL = dict(BM=32, BN=32, TM=4, TN=4, VECTOR_A=1, VECTOR_B=1, STAGES=4, BLOCKS=8)        # single pictures
FEW = dict(BM=4, BN=512, TM=4, TN=4, LANES_M=1, VECTOR_A=1, VECTOR_B=4, BLOCKS=4)         # back to the 3 colours
FEW_ODD = FEW | dict(VECTOR_B=1)
COLOURS = dict(BM=64, BN=96, TM=8, TN=8, LANES_M=8, BLOCKS=4)         # the 3*7*7 places of conv1 by its 96 filters

# the same for tensor cores, of which a warp owns 8*TM x 4*TN results
TENSOR_LARGE = dict(BM=128, BN=128, TM=8, TN=16, VECTOR_A=4, VECTOR_B=4, BLOCKS=2)
TENSOR_LARGE_ODD = TENSOR_LARGE | dict(VECTOR_A=1, VECTOR_B=1)
TENSOR_MIDDLE = TENSOR_LARGE | dict(BM=96, TM=6)
TENSOR_SMALL = dict(BM=32, BN=32, TM=2, TN=8, VECTOR_A=1, VECTOR_B=1, STAGES=4, BLOCKS=8)
TENSOR_COLOURS = dict(BM=160, BN=96, TM=10, TN=8, VECTOR_B=4, BLOCKS=2)

# and for numbers stored in bf16, 16 bytes of which are 8. More than 48 KB of tiles are asked for as SHARED
BF16_LARGE = dict(BM=128, BN=128, TM=8, TN=16, VECTOR_A=8, VECTOR_B=8, STAGES=4, BLOCKS=2, SHARED=73728)
BF16_MIDDLE = BF16_LARGE | dict(BM=96, TM=6)
BF16_ODD = dict(BM=128, BN=128, TM=8, TN=16, VECTOR_A=1, VECTOR_B=1, BLOCKS=2)
BF16_SMALL = dict(BM=32, BN=32, TM=2, TN=8, VECTOR_A=8, VECTOR_B=8, STAGES=4, BLOCKS=8)
BF16_SINGLE = BF16_SMALL | dict(VECTOR_B=1)
BF16_FEW = dict(BM=16, BN=256, TM=2, TN=16, VECTOR_A=1, VECTOR_B=8, STAGES=3, BLOCKS=2, SHARED=61440)
BF16_FEW_ODD = dict(BM=16, BN=256, TM=2, TN=16, VECTOR_A=1, VECTOR_B=1, BLOCKS=2)
BF16_STRIPS = BF16_LARGE | dict(STAGES=3)                             # whose rows are longer
BF16_COLOURS = dict(BM=160, BN=96, TM=10, TN=8, VECTOR_B=8, STAGES=3, BLOCKS=2, SHARED=73728)


def tiled(file, name, signature, tiles, tensor_tiles, bf16_tiles):
    """{precision: a Kernel per tile}: `tiles` of fp32, `bf16_tiles` of bf16, `tensor_tiles` of every other precision."""
    def kernels(tiles):
        return [Kernel(file, name, signature, tile, tile["BM"]//tile["TM"]*(tile["BN"]//tile["TN"]), tile.get("SHARED", 0))
                for tile in tiles]

    return {"fp32": kernels(tiles), **{precision: kernels([
        tile | dict(PRECISION=precision.upper()) for tile in (bf16_tiles if precision == "bf16" else tensor_tiles)])
        for precision in PRECISIONS[1:]}}


FORWARD_KERNELS = tiled("conv2d.cu", "conv2d_forward", FORWARD, [LARGE, LARGE_ODD, MIDDLE, SMALL],
                        [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_MIDDLE, TENSOR_SMALL],
                        [BF16_LARGE, BF16_ODD, BF16_MIDDLE, BF16_SMALL, BF16_SINGLE])
SUMS_KERNELS = tiled("conv2d.cu", "conv2d_forward", FORWARD, [], [],                        # of bf16 maps, left in float32
                     [tile | dict(SUMS=1) for tile in (BF16_LARGE, BF16_ODD, BF16_SMALL, BF16_SINGLE)])["bf16"]
TRANSPOSE_KERNELS = tiled("conv2d_transpose.cu", "conv2d_transpose", TRANSPOSE, [LARGE, LARGE_ODD, MIDDLE, SMALL, FEW, FEW_ODD],
                          [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_MIDDLE, TENSOR_SMALL],
                          [BF16_LARGE, BF16_ODD, BF16_MIDDLE, BF16_SMALL, BF16_SINGLE, BF16_FEW, BF16_FEW_ODD])
FILTER_GRADIENT_KERNELS = tiled("conv2d_gradient.cu", "conv2d_filter_gradient", FILTER_GRADIENT, [LARGE, COLOURS, SMALL],
                                [TENSOR_LARGE, TENSOR_LARGE_ODD, TENSOR_COLOURS, TENSOR_SMALL],
                                [BF16_STRIPS, BF16_ODD, BF16_COLOURS, BF16_SINGLE])
TRANSPOSE_FILTERS = Kernel("conv2d_filters.cu", "conv2d_transpose_filters",
                           "const stored *w, stored *transposed, int C, int T, int F").stored_too()
BIAS_GRADIENT = Kernel("conv2d_sums.cu", "conv2d_bias_gradient",
                       "const stored *dy, float *partial, long long length, int F, int slices").stored_too()
SUM_SLICES = Kernel("conv2d_sums.cu", "conv2d_sum_slices", "const float *partial, const float *b, stored *sum, long long size, "
                    "long long map, int slices, int biased, int relu").stored_too()

# the same, a thread a number: to be read first, and for tests and bench to hold the others against
PLAIN = Kernel("conv2d_plain.cu", "conv2d_plain",
               "const float *x, const float *w, const float *b, float *y, Conv conv, int biased, int relu")
TRANSPOSE_PLAIN = Kernel("conv2d_plain.cu", "conv2d_transpose_plain", "const float *dy, const float *w, float *dx, Conv conv")
FILTER_GRADIENT_PLAIN = Kernel("conv2d_plain.cu", "conv2d_filter_gradient_plain",
                               "const float *x, const float *dy, float *dw, Conv conv")

# the same for a Hopper GPU, of maps and filters in bf16: 128 x BN results a block, from a ring of STAGES, each CHUNK terms of a
# sum, 64 where it says nothing
HOPPER = "sm_90a"
WGMMA_TILES = [dict(BN=256, STAGES=4), dict(BN=192, STAGES=5), dict(BN=128, STAGES=6)]
WGMMA_FORTY_EIGHT = [dict(BN=256, CHUNK=48, STAGES=6), dict(BN=192, CHUNK=48, STAGES=7), dict(BN=128, CHUNK=48, STAGES=8)]
WGMMA_HIGH = [dict(BN=192, STAGES=4, CONSUMERS=3)]                    # 192 rows: two phases of 96 maps, on the way down
BOX_MAPS = 32                                                         # of a tap, or a phase, side by side in the rows of a tile
OUTPUTS = {"float32": "float", "uint16": "unsigned short"}            # dtype of the maps out -> its name in the source


def on_wgmma(file, name, signature, tiles=WGMMA_TILES, **macros):
    """[a Kernel per tile], each with the shared memory that its ring takes: bf16 boxes of CHUNK rows, two barriers a stage."""
    def shared(tile):
        return tile["STAGES"]*(2*tile.get("CHUNK", 64)*(model.wgmma_rows(tile) + tile["BN"]) + 16)

    return [Kernel(file, name, signature, tile | macros | dict(SHARED=shared(tile)), 128*(tile.get("CONSUMERS", 2) + 1),
                   shared(tile), HOPPER) for tile in tiles]


WGMMA_FORWARD = {dtype: on_wgmma("conv2d_wgmma.cu", "conv2d_wgmma_forward",
                                 "const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const float *b, "
                                 "OUTPUT *y, Conv conv, int tiles_m, int tiles_n, int slices, int biased, int relu",
                                 WGMMA_TILES + WGMMA_FORTY_EIGHT*(dtype == "uint16"), OUTPUT=output)
                 for dtype, output in OUTPUTS.items()}
WGMMA_TRANSPOSE = {dtype: on_wgmma("conv2d_wgmma_transpose.cu", "conv2d_wgmma_transpose",
                                   "const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w, "
                                   "const OUTPUT *on, OUTPUT *dx, Conv conv, int tiles_m, int tiles_n, int slices, "
                                   "int rectified", WGMMA_TILES + WGMMA_HIGH*(dtype == "uint16"), OUTPUT=output)
                   for dtype, output in OUTPUTS.items()}
WGMMA_FILTER_GRADIENT = on_wgmma("conv2d_wgmma_gradient.cu", "conv2d_wgmma_gradient",
                                 "const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap dy, float *partial, "
                                 "Conv conv, int tiles_m, int tiles_n, int slices", WGMMA_TILES + WGMMA_HIGH)


def sizes(x, w, y, S, P, groups):
    """The Conv of maps x (C,H,W,N), filters w (C/groups,K,K,F) and y (F,Ho,Wo,N), or of gradients of these shapes."""
    (C, H, W, N), (F, Ho, Wo, _) = x.shape, y.shape
    return Conv(C, H, W, N, F, w.shape[1], S, P, Ho, Wo, groups)


def _tiles(kernel, M, columns):
    """Count of tiles of `kernel` that cover M rows and so many columns."""
    return blocks(M, kernel.defines["BM"])*blocks(columns, kernel.defines["BN"])


def fitting(kernels, M, N):
    """Kernels of `kernels` whose copies fit rows of M filters and of N images."""
    return [kernel for kernel in kernels
            if M % kernel.defines.get("VECTOR_A", 1) == 0 and N % kernel.defines.get("VECTOR_B", 1) == 0]


def _quickest(kernels, M, columns, length, times):
    """The kernel whose tiles, `times` M rows by `columns` of sums of `length` terms, take the least time: as this card has
    found it, or by the model. All of `kernels` add in the same order."""
    def seconds(kernel):
        steps = blocks(length, model.sizes(kernel)[2])
        return model.seconds(kernel, times*_tiles(kernel, M, columns), steps, model.tile_bytes(kernel, M, columns),
                             tuning.current)
    question = f"{kernels[0].name} {model.precision(kernels[0])}: {times} of {M} x {columns}, {length} terms"
    return tuned.current.quickest(question, kernels, seconds)


def _cheapest(kernels, M, columns, slices):
    """The kernel whose tiles cost least in all, of sums that can be cut into so many slices, by what is shipped: into how many
    the sums of a filter gradient are cut follows from its tiles, so this is the same on every GPU."""
    def cost(kernel):
        share = model.share(kernel, model.tile_bytes(kernel, M, columns), tuning.SHIPPED)
        return blocks(slices*_tiles(kernel, M, columns), tuning.SHIPPED.multiprocessors)*share
    return min(kernels, key=cost)


def launch_forward(x, w, b, y, S, P, groups, relu, precision, sliced=False, training=False):
    """y = the convolution, stored as x is or float32. sliced: its sums are cut into slices, as their length and the filters
    say, not N: so an image keeps its bits in any batch."""
    if takes_wgmma(x, w.shape, groups, training):
        return launch_wgmma_forward(x, w, b, y, S, P, groups, relu, sliced)
    (_, Ho, Wo, N), (maps, K, _, _), M = y.shape, w.shape, w.shape[3]//groups
    slices = slices_of_rows(maps*K*K, groups*M) if sliced else 1
    out = y if slices == 1 else empty((slices, *y.shape), np.float32, like=y)
    kernels = fitting(FORWARD_KERNELS[precision] if out.dtype == x.dtype else SUMS_KERNELS, M, N)
    kernel = _cheapest(kernels, M, Ho*Wo*N, slices) if sliced else _quickest(kernels, M, Ho*Wo*N, maps*K*K, groups)
    kernel((_tiles(kernel, M, Ho*Wo*N), groups, slices), x, w, unread(x) if b is None else b, out,
           sizes(x, w, y, S, P, groups), b is not None and slices == 1, relu and slices == 1)
    if slices > 1:
        sum_slices(out, y, b, relu)


def launch_transpose(dy, w, dx, S, P, groups, precision, training=False, on=None):
    """dx = the transposed convolution, or what `relu_backward` makes of it where a ReLU left `on` -> dx."""
    if takes_wgmma(dy, w.shape, groups, training):
        launch_wgmma_transpose(dy, w, dx, S, P, groups, on=on)
        return dx
    (M, *_), (_, H, W, N) = w.shape, dx.shape
    if M <= FEW["BM"] and precision != "bf16":
        precision = "fp32"                                  # tensor cores multiply 16 rows at once, used or not
    transposed = transpose_filters(w)
    columns = blocks(H, S)*blocks(W, S)*N                                       # of the largest phase
    kernel = _quickest(fitting(TRANSPOSE_KERNELS[precision], M, N), M, columns, len(dy)//groups*blocks(w.shape[1], S)**2,
                       groups*S*S)
    kernel((_tiles(kernel, M, columns), groups, S*S), dy, transposed, dx, sizes(dx, w, dy, S, P, groups))
    return dx if on is None else relu_backward(dx, on)


def transpose_filters(w):
    """w (C,K,K,F) -> (F,K,K,C)."""
    C, K, _, F = w.shape
    transposed = empty((F, K, K, C), w.dtype, like=w)
    TRANSPOSE_FILTERS.variant(w)((blocks(C, 32)*blocks(F, 32), K*K), w, transposed, C, K*K, F)
    return transposed


def slices_of_rows(length, rows):
    """Count of slices into which sums of `length` terms are cut, of which there are so many rows and columns unknown."""
    return slices_of(length, tuning.current.forward_blocks//blocks(rows, LARGE["BM"]), tuning.current.slice_terms)


def launch_filter_gradient(x, dy, shape, S, P, groups, precision, slices=None, stored=np.float32, training=False):
    """dw of that `shape` (C/groups,K,K,F), in the dtype `stored`."""
    if takes_wgmma(x, shape, groups, training):
        return launch_wgmma_filter_gradient(x, dy, shape, S, P, groups, slices)
    (maps, K, _, F), (_, Ho, Wo, N) = shape, dy.shape
    rows, columns = maps*K*K, F//groups
    kernels = FILTER_GRADIENT_KERNELS[precision]
    kernel = _cheapest(kernels if precision == "fp32" else fitting(kernels, 8, N), rows, columns,
                       slices or max(1, Ho*Wo*N//tuning.SHIPPED.slice_terms))
    tiles = _tiles(kernel, rows, columns)
    slices = slices or slices_of(Ho*Wo*N, tuning.current.gradient_blocks//(tiles*groups), tuning.current.slice_terms)
    partial = empty((slices, *shape), np.float32, like=x)
    kernel((tiles, slices, groups), x, dy, partial, sizes(x, partial[0], dy, S, P, groups))
    return sum_slices(partial, None if stored == np.float32 else empty(shape, stored, like=x))


def launch_bias_gradient(dy):
    """db (F,) of dy (F,Ho,Wo,N)."""
    F, Ho, Wo, N = dy.shape
    slices = slices_of(Ho*Wo*N, tuning.current.bias_blocks//F, tuning.current.bias_slice_terms)
    partial = empty((slices, F), np.float32, like=dy)
    BIAS_GRADIENT.variant(dy)(F*slices, dy, partial, Ho*Wo*N, F, slices)
    return sum_slices(partial)


def slices_of(length, wanted, least):
    """Count of slices into which a sum of `length` terms is cut: `wanted`, but each of `least` terms or more."""
    return max(1, min(wanted, length//least))


def sum_slices(partial, total=None, b=None, relu=False):
    """partial (slices, ...) -> their sum (...), in `total` where there is one, where b is given plus b of its first axis, and
    rectified if relu."""
    if total is None:
        if len(partial) == 1:
            return partial[0]
        total = empty(partial.shape[1:], partial.dtype, like=partial)
    SUM_SLICES.variant(total)(blocks(total.size, SUM_SLICES.block), partial, partial if b is None else b, total, total.size,
               total.size//len(total), len(partial), b is not None, relu)
    return total


# ---------------------------------------------------------------------------------- bf16 in memory, on a Hopper GPU
# Training takes these, looking at a network never does. wgmma may add up in another order than mma.sync, and an image has the
# same bits in any batch, also in the last, odd one of an epoch: so what takes them must not follow from N, though TMA wants
# whole eights of images and tiles have 64. A step has images enough to fill them, and a batch that is odd is copied; one
# picture alone, of a projection or a prediction, must not pay for 64.
def takes_wgmma(x, shape, groups, training):
    """Return whether a pass over maps, or gradients, like x with filters of that `shape` (C/groups,K,K,F) is for the kernels on
    wgmma: a training step's, of bf16, on a GPU that has it. Where a sum or the outputs are short they multiply mostly zeros."""
    return on_hopper(x, training) and fits_wgmma(shape, groups)


def on_hopper(x, training):
    """Return whether this is a training step's pass over bf16 on a GPU that has wgmma."""
    return training and x.dtype == BF16 and architecture(x) == HOPPER


def fits_wgmma(shape, groups):
    """Return whether filters of that `shape` (C/groups,K,K,F) are enough for them, and as TMA wants them."""
    maps, filters = shape[0], shape[3]//groups
    return filters % 8 == 0 and maps >= 32 and filters >= 32


def launch_wgmma_forward(x, w, b, y, S, P, groups, relu, sliced=False, kernel=None):
    """y (F,Ho,Wo,N), uint16 or float32, = the convolution of bf16 maps x (C,H,W,N) with bf16 filters w (C/groups,K,K,F), both
    uint16, plus b (F,) in float32 where there is one. sliced: as in `launch_forward`."""
    (maps, K, _, F), out = w.shape, _of_eights(y)
    M, units, slices = F//groups, y.shape[1]*y.shape[2]*blocks(y.shape[3], 64), _wgmma_slices(maps*K*K, F) if sliced else 1
    sums = out if slices == 1 else empty((slices, *out.shape), np.float32, like=y)
    kernel = kernel or _quickest_wgmma(WGMMA_FORWARD[sums.dtype.name], M, 64*units, groups*slices, maps)
    m, n, x, chunk = blocks(M, 128), blocks(64*units, kernel.defines["BN"]), in_eights(x), _chunk(kernel)
    kernel(_persistent(groups*slices*model.pairs(m, n)), _boxes(x, groups, chunk), _filter_boxes(w, groups, chunk),
           unread(y) if b is None else b, sums, sizes(x, w, out, S, P, groups), m, n, slices,
           b is not None and slices == 1, relu and slices == 1)
    if slices > 1:
        sum_slices(sums, out, b, relu)
    _images(out, y)


def launch_wgmma_transpose(dy, w, dx, S, P, groups, sliced=False, kernel=None, on=None):
    """dx (C,H,W,N), uint16 or float32, = the transposed convolution of bf16 maps dy and bf16 filters w, both uint16. Where `on`
    is given, as dx of uint16 is, 0 where it is not above 0."""
    (maps, K, _, F), out = w.shape, _of_eights(dx)
    M, columns = rows_of_phases(maps, S), 64*columns_of_phases(*dx.shape[1:3], S, P)*blocks(dx.shape[3], 64)
    slices = _wgmma_slices(F//groups*K*K, maps*groups) if sliced else 1
    sums = out if slices == 1 else empty((slices, *out.shape), np.float32, like=dx)
    kernel = kernel or _quickest_wgmma(WGMMA_TRANSPOSE[sums.dtype.name], M, columns, groups*slices, F//groups, S)
    m, n, dy = blocks(M, model.sizes(kernel)[0]), blocks(columns, kernel.defines["BN"]), in_eights(dy)
    kernel(_persistent(groups*slices*model.pairs(m, n, S)), _boxes(dy, groups), _filter_boxes(w, groups, BOX_MAPS),
           sums if on is None else in_eights(on), sums, sizes(out, w, dy, S, P, groups), m, n, slices, on is not None)
    if slices > 1:
        sum_slices(sums, out)
    _images(out, dx)


def rows_of_phases(maps, S):
    """Count of rows of the tiles of a transposed convolution of stride S to so many maps: of each phase the maps in boxes."""
    return S*S*BOX_MAPS*blocks(maps, BOX_MAPS)


def columns_of_phases(H, W, S, P):
    """Count of pixels in a phase of maps H x W, as many in each: with those that some lack."""
    return ((H - 1 + P)//S - P//S + 1)*((W - 1 + P)//S - P//S + 1)


def launch_wgmma_filter_gradient(x, dy, shape, S, P, groups, slices=None, kernel=None):
    """dw of that `shape` (C/groups,K,K,F), in float32, of bf16 maps x and gradients dy, both uint16."""
    (maps, K, _, F), (_, Ho, Wo, N) = shape, dy.shape
    M, length = K*K*BOX_MAPS*blocks(maps, BOX_MAPS), Ho*Wo*N
    kernel = kernel or _cheapest_wgmma(WGMMA_FILTER_GRADIENT, M, F//groups, groups, length)
    high, wide, _ = model.sizes(kernel)
    m, n = blocks(M, high), blocks(F//groups, wide)
    slices = slices or _slices_of_gradient(m*n*groups, length)
    partial, x, dy = empty((slices, *shape), "float32", like=x), in_eights(x), in_eights(dy)
    kernel(_persistent(groups*slices*model.pairs(m, n)), _boxes(x, groups, BOX_MAPS), _boxes(dy, groups), partial,
           sizes(x, partial[0], dy, S, P, groups), m, n, slices)
    return sum_slices(partial)


def _wgmma_slices(length, rows):
    """Count of slices into which sums of `length` terms are cut, of so many rows of outputs: with which rounds of blocks do
    least in all, up to as many as one round has, or a few where it has not two."""
    tiles, blocks_of_round = blocks(rows, 128), tuning.current.wgmma_blocks
    most = slices_of(length, max(blocks_of_round//tiles, 3), tuning.current.slice_terms)
    return min(range(1, most + 1), key=lambda slices: blocks(tiles*slices, blocks_of_round)/slices)


def _of_eights(y):
    """y, or where its images are no whole eights an array that has room for as many more."""
    N = y.shape[-1]
    return y if N % 8 == 0 else empty((*y.shape[:-1], 8*blocks(N, 8)), y.dtype, like=y)


def in_eights(x):
    """x as TMA can fetch it: a copy where its images are no whole eights, or it lies across 16 bytes."""
    return x if x.shape[-1] % 8 == 0 == address(x) % 16 else _images(x, empty(
        (*x.shape[:-1], 8*blocks(x.shape[-1], 8)), x.dtype, like=x))


def _images(x, y):
    """y = x with fewer images, or with more, of zeros."""
    if x is not y:
        rows, (N, images) = x.size//x.shape[-1], (x.shape[-1], y.shape[-1])
        PAD.variant(x, LANES=1)(blocks(rows*images, PAD.block), x, y, rows, 1, N, 1, images, 1, 0, 0)
    return y


def _boxes(x, groups, maps=64):
    """Maps x (C,H,W,N) in boxes of 64 images of a pixel by so many maps of a group."""
    C, H, W, N = x.shape
    return TensorMap(x.reshape(groups, C//groups, H, W, N), (1, maps, 1, 1, 64))


def _filter_boxes(w, groups, maps=64):
    """Filters w (C/groups,K,K,F) in boxes of 64 filters of a group by so many maps, of a tap."""
    C, K, _, F = w.shape
    return TensorMap(w.reshape(C, K, K, groups, F//groups), (maps, 1, 1, 1, 64))


def _persistent(pairs):
    """Count of blocks, two a cluster, that share so many pairs of tiles."""
    return 2*min(pairs, max(tuning.current.multiprocessors//2, 1))


def _slices_of_gradient(tiles, length):
    """Count of slices into which a filter gradient's sums of that length are cut, of which there are so many tiles."""
    return slices_of(length, tuning.current.wgmma_blocks//tiles, tuning.current.slice_terms)


def _cheapest_wgmma(kernels, M, columns, groups, length):
    """The kernel whose tiles of M rows by `columns` of a filter gradient take the least time by what is shipped, as its slices
    decide about bits: the same on every GPU."""
    def cost(kernel):
        high, wide, terms = model.sizes(kernel)
        slices = _slices_of_gradient(groups*blocks(M, high)*blocks(columns, wide), length)
        return model.seconds(kernel, groups*slices*model.tiles(kernel, M, columns), length/terms/slices,
                             model.tile_bytes(kernel, M, columns), tuning.SHIPPED)

    return min(kernels, key=cost)


def _chunk(kernel):
    """Count of terms of a sum in a step of `kernel`."""
    return kernel.defines.get("CHUNK", 64)


def _quickest_wgmma(kernels, M, columns, times, terms, S=1):
    """The kernel whose tiles of `times` M rows by `columns`, of S*S phases, take the least time, for sums of so many terms a
    tap: as this card has found it, or by the model. All of `kernels` add in the same order."""
    def seconds(kernel):
        return model.seconds(kernel, times*model.tiles(kernel, M, columns, S), blocks(terms, _chunk(kernel)),
                             model.tile_bytes(kernel, M, columns, S), tuning.current)
    question = (f"{kernels[0].name} {kernels[0].defines['OUTPUT']}: {times} of {M} x {columns} in {S*S} phases, {terms} terms a "
                f"tap")
    return tuned.current.quickest(question, kernels, seconds)
