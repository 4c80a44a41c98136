"""Figures 1 and 3: what can be asserted without a picture, of the deconvnet and of the network's table."""
import numpy as np

from train.paper.outcome import Outcome, exactly
from train.paper.setting import Item
from zfcore.backend import to_host
from zfcore.deconvnet import DECONVNET
from zfcore.models import build
from zfcore.terminal import plural

# layers of figure 3: side of the maps that each leaves, by the layer that leaves them here
SIDES = {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
PARAMETERS = {"conv1": 14_208, "conv2": 614_656, "conv3": 885_120, "conv4": 1_327_488, "conv5": 884_992, "fc6": 37_752_832,
              "fc7": 16_781_312, "fc8": 4_097_000}
ROUNDING = 1e-4                   # of float32 sums over thousands of products


def deconvnet(setting):
    """Figure 1, on the run's own layers and pictures: filters transposed, values put where the maxima were, signals
    rectified."""
    model, count = setting.model, min(4, len(setting.pictures))
    x = model.inputs(np.stack([setting.pictures.picture(i) for i in range(count)]))
    rng, wrong = np.random.Generator(np.random.Philox(key=[setting.seed, 1])), dict.fromkeys(("filters", "switches",
                                                                                              "rectifies"), 0.0)
    for layer in model.network.layers:
        y, cache = layer.forward(x)
        signal = model.device.array(rng.standard_normal(y.shape).astype(np.float32))
        if layer.has_filters or layer.has_switches:
            kind = "filters" if layer.has_filters else "switches"
            wrong[kind] = max(wrong[kind], not_adjoint(layer, x, y, signal, cache))
        elif type(layer) in DECONVNET and layer.rectifies:
            down = to_host(DECONVNET[type(layer)](layer, signal, cache))
            wrong["rectifies"] = max(wrong["rectifies"], float(np.abs(down - np.maximum(to_host(signal), 0)).max()))
        x = y
    rule = f"<W x, s> = <x, W's> for a random signal s, up to {ROUNDING:g} of their lengths; the largest difference of all layers"
    numbers = (exactly("filters are transposed on the way down", wrong["filters"], 0, "of the length", rule, ROUNDING),
               exactly("unpooling puts each value where its maximum was", wrong["switches"], 0, "of the length", rule,
                       ROUNDING),
               exactly("a ReLU hands down the signal where it is positive", wrong["rectifies"], 0, rule="the same bits as "
                                                                                                        "max(s, 0)"))
    return Outcome("fig1", numbers,
                   protocol=f"{setting.about()} Facts about the arithmetic, on {plural(count, 'picture')}: they have "
                                             f"no spread and need "
                   "no control.", took={"pictures": count})


def not_adjoint(layer, x, y, signal, cache):
    """Distance of a layer's way down from the transpose of its way up, relative to the lengths of y and the signal."""
    up = to_host(y).astype(np.float64)
    if layer.has_filters and "b" in layer.parameters:
        up -= to_host(layer.parameters["b"]).reshape(-1, *[1]*(up.ndim - 1))
    s, down = to_host(signal).astype(np.float64), to_host(layer.data_gradient(signal, cache)).astype(np.float64)
    return abs(float(np.vdot(up, s) - np.vdot(to_host(x).astype(np.float64), down)))/float(np.linalg.norm(up)*np.linalg.norm(s))


def architecture(setting):
    """Figure 3, of the network that --model zfnet builds."""
    network = build("zfnet", 1000)
    shapes = dict(zip([layer.name for layer in network.layers], network.shapes[1:]))
    numbers = [exactly(f"{name}: side of the maps", shapes[name][1], side, "pixels") for name, side in SIDES.items()]
    for layer in network.weighted:
        count = sum(int(np.prod(shape)) for shape in network.parameter_shapes()[layer.name].values())
        numbers.append(exactly(f"{layer.name}: parameters", count, PARAMETERS[layer.name], rule="the same number; the paper's "
                                                                                                "from its figure 3"))
    numbers.append(exactly("all: parameters", network.parameter_count(), 62_357_608, rule="the same number; the sum of figure "
                                                                                          "3's layers"))
    return Outcome("fig3", tuple(numbers), protocol="The network that --model zfnet builds at 1000 classes and 224x224 "
                                                    "pixels; facts about a "
                   f"table, without a picture. The run's own network: {setting.model.network.name}, "
                   f"{setting.model.network.parameter_count():,} parameters.", took={})


ITEMS = (
    Item("fig1", "The deconvnet", "2.1", "A deconvnet turns a layer around: unpooling by the switches, rectifying, transposed "
                                         "filters.",
         deconvnet, lambda setting, speed: 1 + 20*speed.step, facts=True),
    Item("fig3", "The network", "3", "Eight layers, map sizes 224, 110, 55, 26, 13, 13, 13, 13, 6.", architecture,
         lambda setting, speed: 0.1,
         facts=True),
)
