"""Floor 2: layers that share a pass over memory, as tables in which the engine looks things up. What each layer would have left
by itself, output and cache, a pass leaves too, to the bit; so that a layer need not know its neighbours.

    FORWARD     {kinds of neighbouring layers, from below: function(*layers, x, step) -> [(output, cache)], one each, or None where
                it does not pay}
    BACKWARD    {(kind below, kind above): function(dy, cache of the one above) -> dx of both}
"""
from zfcore.backend import runs_kernels
from zfcore.layers import Conv, LocalResponseNorm, MaxPool, ReLU
from zfcore.ops.conv2d import conv2d
from zfcore.ops.conv2d_maxpool import conv2d_maxpool, pool_fits
from zfcore.ops.local_response_norm import local_response_norm_backward, local_response_norm_of_maxpool
from zfcore.ops.maxpool import maxpool_backward


def conv_relu(conv, relu, x, step):
    """The ReLU while the outputs are still in cache or registers. What is told as the convolution's output is the ReLU's."""
    y, cache = conv2d(x, *conv.arguments(), relu=True, precision=conv.precision, training=step is not None)
    return [(y, cache), (y, y)]


def conv_relu_pool(conv, relu, pool, x, step):
    """Run the three as one in training, where nobody asks for the map between: a kernel where it gains by it, and on the CPU for
    the memory that the map leaves for its gradient. The pool's output is told. The ReLU's cache is None, as the pool's tells the
    gradient where it was on."""
    w, b, S, P, groups, rounding = conv.arguments()
    if step is None or runs_kernels(x) and not pool_fits(x, w, pool.arguments(), groups, True):
        return None
    cache, (y, of_pool) = conv2d_maxpool(x, w, b, S, P, pool.arguments(), groups, rounding, conv.precision, training=True)
    return [(y, cache), (y, None), (y, of_pool)]


def pool_norm(pool, norm, x, step):
    return list(local_response_norm_of_maxpool(x, pool.arguments(), norm.arguments()))


FORWARD = {(Conv, ReLU, MaxPool): conv_relu_pool, (Conv, ReLU): conv_relu, (MaxPool, LocalResponseNorm): pool_norm}    # longest first

# The layer above has at hand what tells where the ReLU was on: the same gradient without reading and writing the maps again.
BACKWARD = {(ReLU, MaxPool): lambda dy, cache: maxpool_backward(dy, cache, relu=True),
            (ReLU, LocalResponseNorm): lambda dy, cache: local_response_norm_backward(dy, cache, relu=True)}


def walk(layers, x, step=None):
    """x through `layers`: yields (layer, output, cache) of each, and keeps nothing of it."""
    k = 0
    while k < len(layers):
        for output, cache in first_pass(layers[k:], x, step):
            yield layers[k], output, cache
            x, k = output, k + 1


def first_pass(layers, x, step):
    """[(output, cache)] of the first of `layers`, and of those behind it that one pass computes with it."""
    kinds = tuple(map(type, layers))
    for fused, together in FORWARD.items():
        if kinds[:len(fused)] == fused and (done := together(*layers[:len(fused)], x, step)) is not None:
            return done
    return [layers[0].forward(x, step)]
