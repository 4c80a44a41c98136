"""Floor 5: the deconvnet, from one activation back to the pixels that caused it (paper, section 2.1).

The way down is `Network.backward` with a table of rules that replaces what some kinds of layer hand down:

    GRADIENT    nothing else: the gradient of the activation with respect to the pixels
    DECONVNET   ReLU acts on the signal coming down, not where the unit was off on the way up; contrast normalisation
                is skipped. Unpooling by switches is the gradient's, and so are the flipped filters, without bias
    GUIDED      ReLU does both (Springenberg et al. 2014, "guided backpropagation"); normalisation as in the gradient

None of them computes gradients of parameters. Windows of a pool that chose the same pixel add up there (the paper is
silent on this). Nothing rectifies the last signal: a projection is signed, and 0 means "no influence".

A unit of a layer is one of its maps, or one of the M outputs of a fully connected layer. "conv1" and "fc6" mean the
maps after their ReLU, which is where the paper takes its activations; so does "relu1". A layer that no ReLU follows,
such as the classes of fc8, is taken as it is. Every other name ("pool1", "norm2") is that layer's output.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import array_module, to_device, to_host, zeros
from zfcore.fusion import kept
from zfcore.hints import Array, Ints, Points
from zfcore.layers import Layer, LocalResponseNorm, ReLU, check_maps
from zfcore.network import Network, Rules, check_rules, rule_of
from zfcore.ops.convert import in_float
from zfcore.ops.relu import relu
from zfcore.ops.window import Regions, cut, lay


# ------------------------------------------------------------------------------------------------------ the rules
def rectify(layer: Layer, dy: Array, cache: Any) -> Array:
    """dy where it is above 0, else 0: the deconvnet's ReLU."""
    return relu(dy)[0]


def rectify_where_on(layer: Layer, dy: Array, cache: Any) -> Array:
    """dy where it is above 0 and the unit was on, as the layer's gradient knows, else 0: the ReLU of guided backpropagation."""
    return layer.data_gradient(relu(dy)[0], cache)


def skip(layer: Layer, dy: Array, cache: Any) -> Array:
    """dy as it is."""
    return dy


GRADIENT: Rules = {}
DECONVNET: Rules = {ReLU: rectify, LocalResponseNorm: skip}
GUIDED: Rules = {ReLU: rectify_where_on}
MOST_START = 1e30                            # of a signal: float32 ends at 3e38, and on the way down weights multiply it
BLIND = rectify, skip                        # rules that do not look at what was on the way up


# ------------------------------------------------------------------------------------------------ units, projections
@dataclass(frozen=True, eq=False)
class Projection:
    """One projection a picture; arrays on the network's device, `places` on the host.

    pixels   (3,H,W,N)   what of the picture excited the unit, signed
    values   (N,)        the unit's activation, for a whole map its strongest one
    places   (N,2)       row and column of that activation; 0, 0 in a fully connected layer"""
    pixels: Array
    values: Array
    places: NDArray[np.int64]


def project(network: Network, x: Array, layer: str, units: Ints, places: Points | None = None, whole_map: bool = False,
            rules: Rules = DECONVNET, start: float | None = None) -> Projection:
    """Project one unit per picture back to the pixels: picture n of x (3,H,W,N) from unit `units[n]` of `layer`.

    places      (N,2) row and column of the activation in the unit's map; None: the strongest one, the first in row order
    whole_map   all activations of the map at once instead of one
    rules       as `Network.backward` has them. From one place each is given the signal in a region, (F,h,h,N), and the cache
                that `cut_cache` makes of it, and hands down the wider region that this sees; one that gives another shape is
                given whole maps instead
    start       None: the signal starts as the activation. A number: it starts as that number (for a whole map, scaled
                so that its strongest activation is that number; one of 0 stays 0). The way down is positively homogeneous, so
                from a positive activation this only scales the picture; from a negative one it turns the signal's sign.

    Raises Expected for a layer, a unit or a place that there is not, for rules that are none, and for activations or
    pixels that are not finite."""
    check.instance("network", network, Network, "of a trained one: model.network")
    units = check_units(network, layer, units)
    if start is not None:
        check.number("start", start)
        if abs(float(start)) > MOST_START:
            raise check.Expected("start", f"a number from {-MOST_START:g} to {MOST_START:g}", start)
    y, caches = network.forward(x, until=network.layers[feature_layer(network, layer)].name)
    check.shape("units", units, (x.shape[-1],))
    places, values = find_places(y, units, places)
    check.finite(f"{layer}: activations", values)
    dy = start_signal(y, units, places, values, whole_map, start)
    pixels = descend(network, dy, caches, rules, None if whole_map else places)
    check.finite(f"{layer}: projections", pixels)
    return Projection(pixels, values, places)


def feature_layer(network: Network, name: str) -> int:
    """Index of the layer whose output holds the units of the layer called `name`: of one with weights the ReLU behind it, with
    nothing between but what keeps the units as they are; else itself."""
    k = network.index(name)
    behind = k + 1
    while behind < len(network.layers) and network.layers[behind].keeps_units:
        behind += 1
    followed = behind < len(network.layers) and network.layers[behind].rectifies
    return behind if followed and network.layers[k].has_weights else k


def check_layers(network: Network, layers: Iterable[str]) -> list[str]:
    """`layers` as a list. Raises Expected unless they are one or more names of layers that the network has, each once."""
    found = check.different_names("--layers", layers)
    for name in found:
        network.index(name)
    return found


def unit_count(network: Network, layer: str) -> int:
    """Number of units of a layer: maps, or outputs of a fully connected one. Raises Expected for a layer that there is not."""
    return network.shapes[network.index(layer) + 1][0]


def check_units(network: Network, layer: str, units: Ints) -> NDArray[np.int64]:
    """`units` as an array (n,). Raises Expected for one that the layer does not have, and for what is no row of numbers."""
    units, count = check.whole_numbers("units", units), unit_count(network, layer)
    check.shape("units", units, (None,))
    wrong = units[(units < 0) | (units >= count)]
    if wrong.size:
        raise check.Expected(f"unit of {layer}", f"0 to {count - 1}", wrong[0])
    return units


def find_places(y: Array, units: NDArray[np.int64], places: Points | None = None) -> tuple[NDArray[np.int64], Array]:
    """(places, values) of the activation to project in y (F,Ho,Wo,N) or (M,N), one unit a picture; see `project`."""
    maps = y.reshape(len(y), *(y.shape[1:3] if y.ndim == 4 else (1, 1)), -1)           # (F,Ho,Wo,N)
    _, Ho, Wo, N = maps.shape
    if places is None:
        strongest = to_host(maps[units, :, :, np.arange(N)].reshape(N, Ho*Wo).argmax(axis=1))
        places = np.stack(np.divmod(strongest.astype(np.int64), Wo), axis=1)
    places = check.whole_numbers("places", places)
    check.shape("places", places, (N, 2))
    wrong = places[((places < 0) | (places >= (Ho, Wo))).any(axis=1)]
    if wrong.size:
        raise check.Expected("place", f"rows 0 to {Ho - 1}, columns 0 to {Wo - 1}", tuple(wrong[0].tolist()))
    return places, maps[units, places[:, 0], places[:, 1], np.arange(N)]


def start_signal(y: Array, units: NDArray[np.int64], places: NDArray[np.int64], values: Array, whole_map: bool = False,
                 start: float | None = None) -> Array:
    """dy of the shape of y, zero but for the chosen activation, or the chosen map, of each picture."""
    dy, pictures = zeros(y.shape, y.dtype, like=y), np.arange(y.shape[-1])
    if whole_map:
        factor = 1 if start is None else start/array_module(y).where(values != 0, values, 1)
        chosen = (units, slice(None), slice(None), pictures) if y.ndim == 4 else (units, pictures)
        dy[chosen] = (y[chosen].T*factor).T                                             # (N,Ho,Wo), a factor a picture
    else:
        at = (units, *places.T, pictures) if y.ndim == 4 else (units, pictures)
        dy[at] = values if start is None else start
    return dy


# --------------------------------------------------------------------------------------------------- the way down
def descend(network: Network, dy: Array, caches: Sequence[Any], rules: Rules = DECONVNET,
            places: NDArray[np.int64] | None = None) -> Array:
    """The signal dy, shaped like the output of the last traced layer, brought down to the pixels (3,H,W,N).

    `places` (N,2) tells that dy is zero except there, one place a picture. Then only the cone of that place is computed:
    in each layer the square region that it sees, which is 1 pixel wide at the top and doubles at every stride on the way.
    For layer 2 of ZFNet that is 27 of 224 pixels, for layer 5 139. Where a region outgrows its map, or a layer sees
    all of it, the rest is dense; so it is below a rule that hands down another shape than the region's, as it is written for
    whole maps: {kind with a window: dy as it is}, say."""
    network.check_caches(dy, caches)
    check_rules(rules)
    if places is None or dy.ndim == 2:
        return network.backward(dy, caches, rules)[0]

    def dense(dy, region, k):
        """Bring the signal of a region in the output of layer k down to the pixels by whole maps."""
        return network.backward(lay(dy, region, network.shapes[k + 1]), caches[:k + 1], rules)[0]

    region = Regions(places[:, 0], places[:, 1], size=1)
    dy = cut(network.stored(dy), region)                                                                # (F,1,1,N)
    for k in reversed(range(len(caches))):
        layer, window = network.layers[k], network.layers[k].window()
        rule = rule_of(layer, rules)
        if rule is skip:                                     # dy as it is is dy where it is, however wide the layer's window
            continue
        below = None if window is None else region.below(*window)
        if below is None or below.size > min(network.shapes[k][1:]):
            return dense(dy, region, k)
        C, H, W = network.shapes[k]
        found = rule(layer, dy, None if rule in BLIND else layer.cut_cache(kept(layer, caches[k]), region, below))
        if np.shape(found) != (C, below.size, below.size, dy.shape[-1]):
            return dense(dy, region, k)
        dy = check_maps(layer, "its rule", found, dy, (C, below.size, below.size))
        if not layer.pixelwise:                              # it filled the region to its edge: beyond the map is nothing
            _, inside = below.pixels(H, W)
            if not inside.all():
                dy[:, to_device(~inside, like=dy)] = 0
        region = below
    return in_float(lay(dy, region, network.input_shape))
