"""Convolution, ReLU and max pooling in one pass, the map between them never in memory: what conv2d.py and maxpool.py leave one
after the other, to the bit; and its way back. Its reference is theirs; the CUDA form is kernels/conv2d_maxpool.cu and
conv2d_maxpool_gradient.cu, in bf16 training on a Hopper GPU conv2d_wgmma_maxpool.cu and its _gradient, whose sums have another
order; and NumPy calls the two."""
import numpy as np

from zfcore import check
from zfcore.backend import empty, runs_kernels, unread
from zfcore.kernel import Kernel, TensorMap, blocks
from zfcore.ops import tuning
from zfcore.ops.conv2d import ConvCache, check_conv2d, conv2d, conv2d_backward
from zfcore.ops.conv2d_kernels import (BF16_COLOURS, BF16_MIDDLE, HOPPER, MIDDLE, TENSOR_COLOURS, TENSOR_MIDDLE, Conv,
                                        launch_bias_gradient, in_eights, on_hopper, slices_of, sum_slices, takes_wgmma, tiled)
from zfcore.ops.maxpool import MaxPoolCache, Pooling, maxpool, maxpool_backward
from zfcore.ops.window import output_size

POOLED = dict(POOL=3, STRIDE=2, SHARED=82944)               # shared memory for a stride of 2 or more
IMAGES = 8                                                  # of a block, as in kernels/conv2d_maxpool.cu
SIGNATURE = ("const stored *x, const stored *w, const float *b, stored *y, unsigned char *switches, Conv conv, "
             "int pool_P, int height, int width, int run, int biased")
KERNELS = {precision: kernel for precision, [kernel] in tiled(
    "conv2d_maxpool.cu", "conv2d_maxpool", SIGNATURE, [MIDDLE | POOLED], [TENSOR_MIDDLE | POOLED],
    [BF16_MIDDLE | dict(STAGES=3) | POOLED]).items()}
WINDOWS = dict(POOL=3, STRIDE=2)
GRADIENT_SIGNATURE = ("const stored *x, const stored *dy, const unsigned char *switches, float *partial, Conv conv, "
                      "int height, int width, int pool_P")
GRADIENT_KERNELS = tiled("conv2d_maxpool_gradient.cu", "conv2d_maxpool_filter_gradient", GRADIENT_SIGNATURE, [],
                         [TENSOR_COLOURS | WINDOWS], [BF16_COLOURS | WINDOWS])
# in training on a Hopper GPU: 2 rows of the pool by 96 filters a block, of STAGES columns of x, which are atoms of 8 pixels
COLUMN_ATOMS = 46
WGMMA = Kernel("conv2d_wgmma_maxpool.cu", "conv2d_wgmma_maxpool",
               "const __grid_constant__ TensorMap x, const unsigned short *w, const float *b, unsigned short *y, "
               "unsigned char *switches, Conv conv, int pool_P, int height, int width, int images, int biased",
               WINDOWS | dict(BM=128, BN=96, CHUNK=176, STAGES=4, SHARED=225728), 384, 225728, HOPPER)
# the same on wgmma, and the bias's: the rows of a map in atoms of 8 pixels of 64 images, 24 of them a window
WINDOW_ATOMS, STAGE_ATOMS = 24, 30
WGMMA_GRADIENT = Kernel("conv2d_wgmma_maxpool_gradient.cu", "conv2d_wgmma_maxpool_gradient",
                        "const __grid_constant__ TensorMap x, const stored *dy, const unsigned char *switches, float *partial, "
                        "Conv conv, int height, int width, int pool_P",
                        WINDOWS | dict(BM=192, BN=96, STAGES=4, SHARED=221248, PRECISION="BF16"), 384, 221248, HOPPER)


def conv2d_maxpool(x, w, b, S, P, pool, groups=1, rounding="ceil", precision="fp32", training=False):
    """`conv2d` with relu=True and `maxpool` behind it -> cache of the convolution, (y, cache of the pool), the same bits; in a
    step of training on wgmma the same in any batch.

    `pool` is maxpool's K, S, P, rounding. Where sizes suit, one kernel does both on a device, and the map between them is
    never in memory; elsewhere the two are called. Raises Expected as they do."""
    if not pool_fits(x, w, S, pool, groups, training):
        between, cache = conv2d(x, w, b, S, P, groups, rounding, True, precision, training)
        return cache, maxpool(between, *pool)
    size = check_conv2d(x, w, b, S, P, groups, rounding, precision)
    cache = ConvCache(x, w, S, P, groups, b is not None, precision, training)
    if pool_takes_wgmma(x, w, S, pool, groups, training):
        return cache, launch_wgmma_maxpool(x, w, b, S, P, pool, size)
    return cache, launch_maxpool(x, w, b, S, P, pool, size, precision)


def pool_fits(x, w, S, pool, groups, training=False):
    """Return whether a kernel of `conv2d_maxpool` takes these sizes, and gains by it. Of the products it computes about a
    sixth twice, and it saves writing and reading 4 bytes an output. Where it takes some N alone it leaves to wgmma what is
    wgmma's in any batch."""
    if pool_takes_wgmma(x, w, S, pool, groups, training):
        return True
    (C, K, _, F), (K_pool, S_pool, *_), tile = w.shape, pool, MIDDLE["BM"]
    return (runs_kernels(x) and groups == 1 and not takes_wgmma(x, w.shape, groups, training)
            and x.shape[-1] % IMAGES == 0 and F % tile == 0
            and C*K*K <= tuning.current.pool_products() and 2 <= S_pool and K_pool <= S_pool + 1)


def pool_takes_wgmma(x, w, S, pool, groups, training):
    """Return whether `launch_wgmma_maxpool` takes these sizes, with any N, and the GPU has wgmma."""
    return on_hopper(x, training) and pool_fits_wgmma(w.shape, S, groups, *pool[:2])


def pool_fits_wgmma(shape, S, groups, K_pool, S_pool):
    """Return whether it takes filters of that `shape` (C/groups,K,K,F)."""
    maps, K, _, F = shape
    rows = K + S*(S_pool*(WGMMA.defines["BM"]//64 - 1) + K_pool - 1)                 # of x, that a column of outputs sees
    return (groups == 1 and F % WGMMA.defines["BN"] == 0 and K <= 8 and maps*K <= WINDOW_ATOMS
            and rows*maps < COLUMN_ATOMS and K_pool == S_pool + 1)


def launch_maxpool(x, w, b, S, P, pool, size, precision):
    """(y, cache of the pool); `size` (F,Ho,Wo,N) is that of the map between."""
    (K_pool, S_pool, P_pool, rounding), (F, Ho, Wo, N) = pool, size
    height, width = output_size(Ho, K_pool, S_pool, P_pool, rounding), output_size(Wo, K_pool, S_pool, P_pool, rounding)
    y, switches = (empty((F, height, width, N), dtype, like=x) for dtype in (x.dtype, np.uint8))
    kernel = KERNELS[precision].variant(POOL=K_pool, STRIDE=S_pool)
    strip = (kernel.defines["BN"]//IMAGES - K_pool)//S_pool + 1
    tiles = blocks(F, kernel.defines["BM"])*blocks(width, strip)
    wanted = tuning.current.strip_blocks*tuning.current.multiprocessors
    run = blocks(height, blocks(wanted, tiles*(N//IMAGES)))                   # rows of a block, so that there are enough blocks
    kernel((tiles, N//IMAGES, blocks(height, run)), x, w, unread(x) if b is None else b, y, switches,
           Conv(*x.shape, F, w.shape[1], S, P, Ho, Wo, groups=1), P_pool, height, width, run, b is not None)
    return y, MaxPoolCache(switches, Pooling(size, K_pool, S_pool, P_pool), y)


def launch_wgmma_maxpool(x, w, b, S, P, pool, size):
    """Launch the kernel on wgmma -> (y, cache of the pool), of windows whose products are added up in another order."""
    (K_pool, S_pool, P_pool, rounding), (F, Ho, Wo, N), (maps, K, *_) = pool, size, w.shape
    height, width = output_size(Ho, K_pool, S_pool, P_pool, rounding), output_size(Wo, K_pool, S_pool, P_pool, rounding)
    y, switches = (empty((F, height, width, N), dtype, like=x) for dtype in (x.dtype, np.uint8))
    kernel, whole = WGMMA.variant(POOL=K_pool, STRIDE=S_pool, CHUNK=16*blocks(8*maps*K, 16)), in_eights(x)
    tiles, columns = F//kernel.defines["BN"], blocks(N, 64)*blocks(height, kernel.defines["BM"]//64)*width
    kernel((tiles, min(columns, max(tuning.current.multiprocessors//tiles, 1))), TensorMap(whole, (maps, 1, 8, 64)), w,
           unread(y) if b is None else b, y, switches, Conv(*whole.shape, F, K, S, P, Ho, Wo, groups=1),
           P_pool, height, width, N, b is not None)
    return y, MaxPoolCache(switches, Pooling(size, K_pool, S_pool, P_pool), y)


def conv2d_maxpool_backward(dy, of_conv, of_pool, need_dx=True):
    """dy (F,height,width,N), 0 where the ReLU was off -> (dx or None, dw, db) of the convolution, from the caches of the two.

    What `conv2d_backward` makes of `maxpool_backward`. But on a device the bias's gradient is the sum of dy itself, as the pool
    gives each of its numbers to one pixel; and where sizes suit and nobody needs dx, one kernel spreads dy over the map between
    as it forms dw, with the same bits but for the order of wgmma's sums, and that map is never in memory. Raises Expected as
    they do."""
    if not runs_kernels(dy):
        return conv2d_backward(maxpool_backward(dy, of_pool), of_conv, need_dx)
    if not need_dx and gradient_takes_wgmma(of_conv, of_pool):
        return None, *launch_wgmma_gradient(dy, of_conv, of_pool)
    db = launch_bias_gradient(dy) if of_conv.biased else None
    if not need_dx and gradient_fits(of_conv, of_pool):
        return None, launch_filter_gradient(dy, of_conv, of_pool), db
    return *conv2d_backward(maxpool_backward(dy, of_pool), of_conv._replace(biased=False), need_dx)[:2], db


def gradient_fits(of_conv, of_pool):
    """Return whether the kernel of `conv2d_maxpool_backward` takes these sizes, and gains by it: with one tile for all rows of
    dw each number of the map is formed once, and neither written nor read."""
    (maps, K, _, _), kernels = of_conv.w.shape, GRADIENT_KERNELS[of_conv.precision]
    return (bool(kernels) and of_conv.groups == 1 and of_conv.x.shape[-1] % IMAGES == 0 and maps*K*K <= kernels[0].defines["BM"]
            and of_pool.pooling.K <= 2*of_pool.pooling.S)


def gradient_takes_wgmma(of_conv, of_pool):
    """Return whether `launch_wgmma_gradient` takes these sizes, and the GPU has wgmma."""
    return (on_hopper(of_conv.x, of_conv.training) and of_conv.x.shape[-1] % IMAGES == 0
            and gradient_fits_wgmma(of_conv.w.shape, of_conv.S, of_conv.groups, of_pool.pooling.K, of_pool.pooling.S))


def gradient_fits_wgmma(shape, S, groups, K_pool, S_pool):
    """Return whether it takes filters of that `shape` (C/groups,K,K,F)."""
    maps, K, _, F = shape
    below = (S_pool - 1)*S*maps                             # atoms from a window to that of the lowest output of a step
    return (groups == 1 and F % 8 == 0 and K <= 8 and maps*K <= WINDOW_ATOMS and below + WINDOW_ATOMS <= STAGE_ATOMS
            and S_pool <= 2 and K_pool <= 2*S_pool)


def launch_wgmma_gradient(dy, of_conv, of_pool):
    """(dw (C,K,K,F), db (F,) or None) in float32."""
    x, w, (switches, ((_, Ho, Wo, N), K_pool, S_pool, P_pool), _) = of_conv.x, of_conv.w, of_pool
    _check_signal(dy, x, switches)
    (maps, K, _, F), (_, height, width, _) = w.shape, dy.shape
    kernel = WGMMA_GRADIENT.variant(POOL=K_pool, STRIDE=S_pool)
    tiles = blocks(F, kernel.defines["BN"])
    slices = slices_of(Ho*Wo*N, tuning.current.wgmma_blocks//tiles, tuning.current.slice_terms)
    partial = empty((slices, maps*K*K + 1, F), np.float32, like=x)
    kernel((tiles, slices), TensorMap(x, (maps, 1, 8, 64)), dy, switches, partial,
           Conv(*x.shape, F, K, of_conv.S, of_conv.P, Ho, Wo, groups=1), height, width, P_pool)
    total = sum_slices(partial)
    return total[:-1].reshape(w.shape), total[-1] if of_conv.biased else None


def launch_filter_gradient(dy, of_conv, of_pool):
    """dw (C,K,K,F) in float32."""
    x, w, (switches, ((_, Ho, Wo, N), K_pool, S_pool, P_pool), _) = of_conv.x, of_conv.w, of_pool
    _check_signal(dy, x, switches)
    (maps, K, _, F), (_, height, width, _) = w.shape, dy.shape
    [kernel] = GRADIENT_KERNELS[of_conv.precision]
    kernel = kernel.variant(POOL=K_pool, STRIDE=S_pool)
    tiles = blocks(maps*K*K, kernel.defines["BM"])*blocks(F, kernel.defines["BN"])
    slices = slices_of(Ho*Wo*N, tuning.current.gradient_blocks//tiles, tuning.current.slice_terms)
    partial = empty((slices, *w.shape), np.float32, like=x)
    kernel((tiles, slices, 1), x, dy, switches, partial,
           Conv(*x.shape, F, K, of_conv.S, of_conv.P, Ho, Wo, groups=1), height, width, P_pool)
    return sum_slices(partial)


def _check_signal(dy, x, switches):
    check.shape("conv2d_maxpool_backward dy", dy, switches.shape)
    check.dtype("conv2d_maxpool_backward dy", dy, x.dtype)
