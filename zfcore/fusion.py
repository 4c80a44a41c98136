"""Floor 2: layers that share a pass over memory, as tables in which the engine looks things up. What each layer would have left
by itself a pass leaves too, to the bit, so that a layer need not know its neighbours: its cache, unless that is `Unkept`, and its
output, but for those below the last, which may tell that one's as theirs.

    FORWARD     {kinds of neighbouring layers, from below: function(*layers, x, step) -> [(output, cache)], one each, or None
                where it does not pay}
    BACKWARD    {kinds of neighbouring layers, from below: function(dy, their caches, need_dx) -> (dx of all, gradients of the
                parameters of the one that has some, {} of none)}
"""
from zfcore import check
from zfcore.backend import runs_kernels
from zfcore.layers import Conv, Linear, LocalResponseNorm, MaxPool, ReLU, check_maps, pair
from zfcore.ops.conv2d import conv2d, conv2d_backward
from zfcore.ops.conv2d_maxpool import conv2d_maxpool, conv2d_maxpool_backward, pool_fits
from zfcore.ops.local_response_norm import local_response_norm_backward, local_response_norm_of_maxpool
from zfcore.ops.maxpool import maxpool_backward


class Unkept:
    """Stands itself for the cache of a layer of which a pass in training keeps none, for the memory. Rules, which ask the layer
    for its way down alone, take the caches of an evaluation."""


def kept(layer, cache):
    """The cache of a layer that goes down alone. Raises Expected where a pass kept none."""
    if cache is Unkept:
        raise check.Expected(f"caches: {layer.name}", "those of an evaluation, where its way down is asked for alone",
                             "those of a training step, which computes it together with the pool above", "forward(x) without a step")
    return cache


def conv_relu(conv, relu, x, step):
    """The ReLU while the outputs are still in cache or registers. What is told as the convolution's output is the ReLU's."""
    y, cache = conv2d(x, *conv.arguments(), relu=True, precision=conv.precision, training=step is not None)
    return [(y, cache), (y, y)]


def linear_relu(linear_layer, relu, x, step):
    y, cache = linear_layer.forward(x, step, relu=True)
    return [(y, cache), (y, y)]


def conv_relu_pool(conv, relu, pool, x, step):
    """Run the three as one in training, where nobody asks for the map between: a kernel where it gains by it, and on the CPU
    for the memory that the map leaves for its gradient. The pool's output is told. The ReLU's cache is not kept, as the pool's
    tells the gradient where it was on."""
    w, b, S, P, groups, rounding = conv.arguments()
    if step is None or runs_kernels(x) and not pool_fits(x, w, S, pool.arguments(), groups, True):
        return None
    cache, (y, of_pool) = conv2d_maxpool(x, w, b, S, P, pool.arguments(), groups, rounding, conv.precision, training=True)
    return [(y, cache), (y, Unkept), (y, of_pool)]


def pool_norm(pool, norm, x, step):
    return list(local_response_norm_of_maxpool(x, pool.arguments(), norm.arguments()))


# longest first
FORWARD = {(Conv, ReLU, MaxPool): conv_relu_pool, (Conv, ReLU): conv_relu, (Linear, ReLU): linear_relu,
           (MaxPool, LocalResponseNorm): pool_norm}


def conv_pool_norm_backward(dy, caches, need_dx):
    """The normalisation asks where the ReLU was on, as it has the maxima at hand. So the gradient needs no map that the pool
    spreads it over to be summed for the bias."""
    of_conv, _, of_pool, of_norm = caches
    dx, dw, db = conv2d_maxpool_backward(local_response_norm_backward(dy, of_norm, relu=True), of_conv, of_pool, need_dx)
    return dx, {"w": dw, "b": db}


def relu_conv_backward(dy, caches, need_dx):
    dx, dw, db = conv2d_backward(dy, caches[1], need_dx, relu=True)
    return dx, {"w": dw, "b": db}


# The layer above has at hand what tells where the ReLU was on: the same gradient without reading and writing the maps again.
BACKWARD = {(Conv, ReLU, MaxPool, LocalResponseNorm): conv_pool_norm_backward,                                   # longest first
            (ReLU, MaxPool, LocalResponseNorm): lambda dy, caches, _: (
                maxpool_backward(local_response_norm_backward(dy, caches[2], relu=True), caches[1]), {}),
            (ReLU, Conv): relu_conv_backward,
            (ReLU, MaxPool): lambda dy, caches, _: (maxpool_backward(dy, caches[1], relu=True), {}),
            (ReLU, LocalResponseNorm): lambda dy, caches, _: (local_response_norm_backward(dy, caches[1], relu=True), {})}


def walk(layers, x, step=None, leaving=None):
    """x through `layers`: yields (layer, output, cache) of each, and keeps nothing of it. `leaving` has the shapes of what leaves
    them, to which those that are computed alone are held; None: none are."""
    k = 0
    while k < len(layers):
        for output, cache in first_pass(layers[k:], x, step, leaving and leaving[k]):
            yield layers[k], output, cache
            x, k = output, k + 1


def first_pass(layers, x, step, leaving):
    """[(output, cache)] of the first of `layers`, and of those behind it that one pass computes with it."""
    kinds = tuple(map(type, layers))
    for fused, together in FORWARD.items():
        if kinds[:len(fused)] == fused and (done := together(*layers[:len(fused)], x, step)) is not None:
            return done
    y, cache = pair(layers[0], "forward", layers[0].forward(x, step))
    return [(y if leaving is None else check_maps(layers[0], "forward", y, x, leaving), cache)]


def backward_pass(layers, rules):
    """(how many of the last of `layers` share a pass down, its function); (1, None) where none do. What `rules` has another way
    down for takes part in none, and with rules no layer whose parameters a pass would have to tell of."""
    for kinds, together in BACKWARD.items():
        last = layers[-len(kinds):]
        if tuple(map(type, last)) == kinds and (
                rules is None or not any(issubclass(kind, tuple(rules)) for kind in kinds)
                and not any(one.parameters for one in last)):
            return len(kinds), together
    return 1, None
