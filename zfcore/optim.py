"""Floor 3: how the parameters move. Momentum SGD with the filter RMS limit, the plateau rule for the learning rate, and how
much of the random start weight decay leaves."""
import math
from dataclasses import dataclass

import numpy as np

from zfcore.backend import zeros
from zfcore.ops.clip_filter_rms import clip_filter_rms
from zfcore.ops.sgd_step import sgd_step


class SGD:
    """Stochastic gradient descent as the paper trains (section 3): momentum, and after every step each convolution
    filter whose RMS exceeds `rms_max` is scaled back to it (None: no limit, figure 6a).

        v = momentum*v - lr*(dw + weight_decay*w);   w = w + v

    Weight decay acts on weights, "w" of the layers that have some, not on biases, nor on what scales a map. The paper states none;
    it is our choice, see zfcore/training/config.py."""

    def __init__(self, network, momentum=0.9, weight_decay=0.0, rms_max=0.1):
        self.momentum, self.weight_decay, self.rms_max = momentum, weight_decay, rms_max
        self.velocity = {name: {key: zeros(array.shape, array.dtype, like=array) for key, array in of_layer.items()}
                         for name, of_layer in network.parameters().items()}

    def step(self, network, grads, lr, loss=0.0, clamped=None):
        """Move every parameter of `network` in place, in one launch, those of which there are copies in one of their own, and
        scale filters back in two.

        lr and loss as `sgd_step` has them: nothing moves where the loss is not finite. The number of filters scaled back
        is added to `clamped`, an array () of float64 on the network's device, for whoever wants to know."""
        moved = [(network[name], key, gradient) for name, of_layer in grads.items() for key, gradient in of_layer.items()]
        for has_copy in (True, False):
            part = [one for one in moved if (one[0].copy_of(one[1]) is not None) == has_copy]
            if part:
                sgd_step([(layer.parameters[key], gradient, self.velocity[layer.name][key],
                           self.weight_decay if key == "w" and layer.has_weights else 0.0) for layer, key, gradient in part],
                         lr, self.momentum, loss, [layer.copy_of(key) for layer, key, _ in part] if has_copy else None)
        filters = [network[name] for name in grads if network[name].has_filters]
        if filters and self.rms_max is not None:
            w, copies = [layer.parameters["w"] for layer in filters], [layer.copy_of("w") for layer in filters]
            clip_filter_rms(w, self.rms_max, zeros((), np.float64, like=w[0]) if clamped is None else clamped,
                            None if copies[0] is None else copies)


@dataclass
class Plateau:
    """Divides the learning rate by 10 when the validation error has not improved for `patience` epochs; the paper
    lowers it by hand when the validation error plateaus (section 3).

    An improvement is a fall below the best error so far by more than `margin` (relative). After `drops` divisions the
    rate stays: below a thousandth of the start nothing moves any more."""
    lr: float
    patience: int = 5
    margin: float = 0.01
    drops: int = 3
    best: float = float("inf")
    waited: int = 0

    def update(self, error):
        """Tell the validation error of one more epoch; True when the learning rate was lowered."""
        if error < self.best*(1 - self.margin):
            self.best, self.waited = error, 0
            return False
        self.waited += 1
        if self.waited < self.patience or self.drops == 0:
            return False
        self.lr, self.waited, self.drops = self.lr/10, 0, self.drops - 1
        return True


# ------------------------------------------------------------------------------------------- what is left of the start
def start_left(lr_sum, momentum, weight_decay):
    """The factor by which momentum SGD with weight decay has shrunk what the weights were at the start, 0..1.

    lr_sum    the learning rates of all steps, added up

    Without gradients a step takes w to w*(1 - lr*weight_decay/(1 - momentum)) in the long run, so what was there decays like
    exp(-weight_decay/(1 - momentum) * sum of lr), whatever the gradients add beside it. Nothing else takes the random start
    out of the weights: where the factor is near 1, they are their start plus what was learned."""
    return math.exp(-weight_decay/(1 - momentum)*lr_sum)


def decay_that_leaves(share, lr_sum, momentum):
    """The weight decay with which `start_left` is `share`, 0 < share <= 1."""
    return math.log(1/share)*(1 - momentum)/lr_sum
