"""A network without its batch normalisations: in evaluation each is a scaling and a shift, which the layer with weights below
it can do as well."""
import numpy as np

from zfcore import check
from zfcore.backend import CPU, Device, to_host
from zfcore.hints import Precision
from zfcore.layers import BatchNorm, from_fields
from zfcore.network import Network


def folded(network: Network, device: Device = CPU, precision: Precision = "fp32") -> Network:
    """The network that gives in evaluation the scores of `network`, up to the rounding of float32, and has no BatchNorm.

    Each is folded into the convolution or fully connected layer right below it: with f = gamma/sqrt(var + eps)

        w -> w*f        b -> (b - mean)*f + beta

    formed in float64 and rounded once. Raises Expected where right below a BatchNorm there is no such layer: none that says it
    is `affine`, of whatever kind."""
    kept, parameters, buffers = [], {}, {}
    for layer in network.layers:
        arrays = {key: to_host(array).astype(np.float64) for key, array in layer.parameters.items()}
        if isinstance(layer, BatchNorm):
            if not (kept and kept[-1].affine):
                raise check.Expected(layer.name, "a convolution or a fully connected layer right below the BatchNorm",
                                     kept[-1].name if kept else "the pictures")
            _fold(layer, arrays, parameters[kept[-1].name])
        else:
            kept.append(from_fields(layer.fields()))
            parameters |= {layer.name: arrays} if arrays else {}
            buffers |= {layer.name: layer.buffers} if layer.buffers else {}
    return Network(network.name, network.input_shape, kept).load(parameters, device, buffers).use(precision)


def _fold(norm, arrays, below):
    """Change the float64 parameters `below` so that they do what `norm` did behind them; outputs are their last axis."""
    mean, var = (to_host(norm.buffers[key]).astype(np.float64) for key in ("mean", "var"))
    factor = arrays["gamma"]/np.sqrt(var + norm.eps)
    below["w"], below["b"] = below["w"]*factor, (below["b"] - mean)*factor + arrays["beta"]
