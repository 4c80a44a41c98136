"""Floor 3: a network is named layers in a row.

    y, trace = network.forward(x)               trace: one cache per layer, the switches of the pools among them
    dx, grads = network.backward(dy, trace)     grads: {layer name: {"w": dw, "b": db}}

`backward` walks the trace from its end to the pixels. A table of `rules` replaces the backward of a kind of layer by
another one; that is all the difference between the gradient and the deconvnet (zfcore/deconvnet.py).
"""
import zlib

import numpy as np

from zfcore import check
from zfcore.backend import CPU, to_host
from zfcore.layers import ContrastNorm, Conv, Dropout, Linear, MaxPool, ReLU
from zfcore.ops.conv2d import check_precision


class Network:
    """`layers` applied in order to pictures of `input_shape` (C,H,W); `name` is the model's."""

    def __init__(self, name, input_shape, layers):
        names = [layer.name for layer in layers]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise check.Expected(name, "layers of different names", f"{twice[0]} twice")
        self.name, self.input_shape, self.layers = name, tuple(input_shape), list(layers)
        self.shapes = [self.input_shape]                   # shapes[k] enters layers[k], shapes[k+1] leaves it
        for number, layer in enumerate(self.layers):
            self.shapes.append(layer.shape_out(self.shapes[-1]))
            if isinstance(layer, Dropout):
                layer.number = number

    # ------------------------------------------------------------------------------------------ forward, backward
    def forward(self, x, step=None, until=None, part=None):
        """x (C,H,W,N) -> (y, trace), through all layers or through the layer named `until`.

        `step` is the number of the training step, which draws the dropout masks; None evaluates, nothing dropped.
        `part` (first, N) says that x is the pictures from number `first` on of a batch of N that comes in pieces: each
        picture then meets the mask that it would meet in the whole batch.
        Layers that share a pass over memory are computed together, and their outputs and their entries in the trace are those
        that each would leave by itself: a convolution and the ReLU right behind it, a pool and the normalisation right
        behind it. In training, where nobody asks for the map between, also a convolution, its ReLU and their pool, where
        that pays (`Conv.takes_pool`): such a ReLU leaves None, as the pool's entry tells the gradient where it was on."""
        trace = []
        for _, x, cache in self.steps(x, step, until, part):
            trace.append(cache)
        return x, trace

    def steps(self, x, step=None, until=None, part=None):
        """`forward` step by step: yields (layer, output, cache), and keeps nothing of it. The output yielded for a
        convolution with a ReLU behind it is the ReLU's; in training, where the pool is taken too, for all three the pool's."""
        check.shape(f"{self.name}: pictures", x, (*self.input_shape, None))
        layers = self.layers if until is None else self.layers[:self.index(until) + 1]
        ahead = []                                         # (output, cache) of layers that one before has computed
        for layer, after, behind in zip(layers, [*layers[1:], None], [*layers[2:], None, None]):
            if ahead:
                x, cache = ahead.pop(0)
            elif isinstance(layer, Conv) and isinstance(after, ReLU):
                if step is not None and isinstance(behind, MaxPool) and layer.takes_pool(behind, x):
                    cache, (x, of_pool) = layer.forward_pooled(behind, x)
                    ahead = [(x, None), (x, of_pool)]
                else:
                    x, cache = layer.forward(x, step, relu=True)
                    ahead = [(x, x)]
            elif isinstance(layer, MaxPool) and isinstance(after, ContrastNorm):
                (x, cache), *ahead = layer.forward_with(after, x)
            elif isinstance(layer, Dropout):
                x, cache = layer.forward(x, step, part)
            else:
                x, cache = layer.forward(x, step)
            yield layer, x, cache

    def backward(self, dy, trace, rules={}, to_pixels=True):
        """dy, shaped like the output of the last traced layer -> (dx, grads).

        rules       {kind of layer: function(layer, dy, cache) -> (dx, grads of the layer)}
        to_pixels   False in training: the first layer's data gradient, which nobody reads, is not computed (dx None)

        The backward of a ReLU right below a pool or a normalisation is brought in by theirs, which have at hand what tells
        where it was on: the same gradient without reading and writing the maps once more."""
        joined = {k for k in range(len(trace) - 1) if isinstance(self.layers[k], ReLU) and ReLU not in rules
                  and type(self.layers[k + 1]) in {MaxPool, ContrastNorm} - set(rules)}        # ReLUs that another brings in
        grads = {}
        for k in reversed(range(len(trace))):
            layer, rule = self.layers[k], rules.get(type(self.layers[k]))
            if k in joined:
                continue
            if rule is not None:
                dy, grad = rule(layer, dy, trace[k])
            elif k - 1 in joined:
                dy, grad = layer.backward(dy, trace[k], relu=True)
            elif k == 0 and not to_pixels and isinstance(layer, (Conv, Linear)):
                dy, grad = layer.backward(dy, trace[k], need_dx=False)
            else:
                dy, grad = layer.backward(dy, trace[k])
            if grad:
                grads[layer.name] = grad
        return dy, grads

    def activations(self, x, names):
        """{name: output of that layer} for pictures x, in evaluation."""
        wanted = {self.index(name) for name in names}
        out = {}
        for k, layer in enumerate(self.layers[:max(wanted) + 1]):
            x, _ = layer.forward(x)
            if k in wanted:
                out[layer.name] = x
        return out

    # -------------------------------------------------------------------------------------------------- parameters
    def index(self, name):
        """Place of the layer called `name`."""
        names = [layer.name for layer in self.layers]
        check.one_of("layer", name, names)
        return names.index(name)

    def __getitem__(self, name):
        return self.layers[self.index(name)]

    def parameter_shapes(self):
        """{layer name: {"w": shape, "b": shape}} of the layers that have parameters."""
        shapes = {layer.name: layer.parameter_shapes(shape) for layer, shape in zip(self.layers, self.shapes)}
        return {name: of_layer for name, of_layer in shapes.items() if of_layer}

    def parameters(self):
        """{layer name: {"w": array, "b": array}}, the arrays themselves."""
        return {layer.name: layer.parameters for layer in self.layers if layer.parameters}

    def init(self, seed=0, law="gaussian", device=CPU):
        """Draw the parameters: biases 0, weights from N(0, std), a generator per layer so that changing one layer
        leaves the others' start alone.

        "gaussian"   std = 0.01 everywhere, made for pictures of +-128 (paper, section 3)
        "he"         std = sqrt(2/fan_in), which keeps the signal's size from layer to layer; the first layer's is divided
                     by 8 and the last one's by 64. Pixels have a spread of about 64: so the maps start near 8 and the
                     scores below 1, and a step moves the scores about as much through layer 1, where the pixels make
                     gradients large, as through the layers above it"""
        check.one_of("init", law, ("gaussian", "he"))
        shapes = self.parameter_shapes()
        first, last = list(shapes)[0], list(shapes)[-1]
        for name, of_layer in shapes.items():
            w = of_layer["w"]
            he = np.sqrt(2/np.prod(w[:-1]))/(8 if name == first else 64 if name == last else 1)
            rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
            start = rng.standard_normal(w, np.float32)*np.float32(0.01 if law == "gaussian" else he)
            self[name].parameters = {"w": device.array(start), "b": device.array(np.zeros(of_layer["b"], np.float32))}
        for layer in self.layers:
            if isinstance(layer, Dropout):
                layer.seed = seed
        return self

    def load(self, parameters, device=CPU):
        """Take over {layer name: {"w": array, "b": array}}; names, shapes and finite values are checked first."""
        shapes = self.parameter_shapes()
        if set(parameters) != set(shapes):
            raise check.Expected(f"{self.name}: parameters", f"the layers {', '.join(shapes)}", ", ".join(parameters))
        for name, of_layer in shapes.items():
            for key, shape in of_layer.items():
                check.shape(f"{name}.{key}", parameters[name][key], shape)
                check.finite(f"{name}.{key}", parameters[name][key])
        for name, of_layer in shapes.items():
            self[name].parameters = {key: device.array(np.ascontiguousarray(to_host(parameters[name][key]), np.float32))
                                     for key in of_layer}
        return self

    def use(self, precision):
        """From now on all convolutions and fully connected layers form their products in this one of PRECISIONS. It is a
        way to compute, not a part of the network: parameters stay float32, and no checkpoint keeps it. Raises Expected
        where the device of the parameters does not have it."""
        for layer in self.layers:
            if isinstance(layer, (Conv, Linear)):
                check_precision("precision", layer.parameters["w"], precision)
                layer.precision = precision
        return self

    # ----------------------------------------------------------------------------------------------------- the table
    def table(self):
        """The layer table as JSON can hold it; `models.from_table` builds the network again."""
        return [layer.fields() for layer in self.layers]

    def parameter_count(self):
        return sum(int(np.prod(shape)) for of_layer in self.parameter_shapes().values() for shape in of_layer.values())

    def receptive_fields(self):
        """Per layer (field, jump, start): the width in pixels that one unit sees, the distance between two neighbours'
        fields, and where the field of unit (0,0) starts. None for layers behind a Flatten, which see everything."""
        field, jump, start, out = 1, 1, 0, []
        for layer, shape in zip(self.layers, self.shapes[1:]):
            if len(shape) == 1:
                out.append(None)
                continue
            K, S, P = layer.window()
            field, start, jump = field + (K - 1)*jump, start - P*jump, jump*S
            out.append((field, jump, start))
        return out

    def summary(self):
        """The network as a table: layer, output size, parameters, multiply-adds, receptive field and jump."""
        rows = [f"{self.name}: {'x'.join(map(str, self.input_shape))} pictures"]
        rows.append(f"{'layer':10}{'kind':14}{'output':>15}{'parameters':>13}{'mult-adds':>15}{'field/jump':>12}")
        total = 0
        for layer, shape, out, seen in zip(self.layers, self.shapes, self.shapes[1:], self.receptive_fields()):
            count = sum(int(np.prod(s)) for s in layer.parameter_shapes(shape).values())
            work = layer.multiply_adds(shape)
            total += work
            rows.append(f"{layer.name:10}{type(layer).__name__:14}{'x'.join(map(str, out)):>15}"
                        f"{_thousands(count):>13}{_thousands(work):>15}{'%d/%d' % seen[:2] if seen else 'all':>12}")
        rows.append(f"{'sum':10}{'':14}{'':>15}{_thousands(self.parameter_count()):>13}{_thousands(total):>15}")
        return "\n".join(rows)


def _thousands(number):
    return f"{number:,}" if number else ""
