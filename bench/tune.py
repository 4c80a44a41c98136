"""python -m bench tune: which tiles of the convolutions are quickest on this GPU, written as the table that zfcore chooses by
from then on (zfcore/ops/tuned.py), in the folder of the compiled kernels. It takes minutes; the file is written anew after
every question, and what it knew before of the same kernels stays in it.

Asked is what the convolutions of these networks ask at these batches, on their way up and on their way down, in every
precision: each kernel that could answer is launched as the operation launches it. What decides bits is not asked: filter
gradients and sums that are cut into slices."""
from datetime import datetime, timezone
from itertools import product

import numpy as np

from bench import gpu
from bench.cases import Source, stored
from bench.record import save
from bench.timing import Clock, Contestant, prepared, take_turns
from zfcore import check
from zfcore.device import select
from zfcore.gpu import card, find_cupy
from zfcore.kernel import PRECISIONS
from zfcore.layers import Conv
from zfcore.models import MODELS, build
from zfcore.ops import model, tuned
from zfcore.ops.conv2d import conv2d, conv2d_transpose

CLASSES = 1000                     # which no convolution sees


class Asked(tuned.Choices):
    """Choices that note what they are asked: {question: kernels that may answer}, of those that are more than one."""

    def __init__(self, *answers):
        super().__init__(*answers)
        self.questions = {}

    def quickest(self, question, kernels, seconds):
        if len(kernels) > 1:
            self.questions[question] = kernels
        return super().quickest(question, kernels, seconds)


def add_arguments(parser):
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["zfnet", "alexnet"], metavar="NAME",
                        help="the networks whose convolutions are asked for (zfnet alexnet)")
    parser.add_argument("--batch-sizes", type=check.BATCH, nargs="+", default=[128], metavar="N",
                        help="images at once (128, as in the paper)")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=5, help="how often each kernel is timed")


def main(args):
    device, clock = select("gpu"), Clock(find_cupy())
    name = card().name
    report = {"device": name, "driver": gpu.driver() or "", "kernels": tuned.version(),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "choices": tuned.known(name)}
    for question, times in measured(device, clock, [build(one, CLASSES) for one in args.models], args):
        best = min(times, key=times.get)
        report["choices"][question] = {"quickest": best, "us": times}
        print(f"{question:60}{times[best]:10.1f} us  {best}", flush=True)
        save(tuned.path_of(name), report)
    print(f"written to {tuned.path_of(name)}")


def passes(network):
    """(run, draw) of every convolution of the network on its way up and on its way down, in each precision and in bf16 as a
    step of training has them too, as bench/cases.py has them."""
    for k, layer in enumerate(network.layers):
        if not isinstance(layer, Conv):
            continue
        shape, out, (_, S, P) = network.shapes[k], network.shapes[k + 1], layer.window()
        w_shape = layer.parameter_shapes(shape)["w"]
        for precision, training in [*((precision, False) for precision in PRECISIONS), ("bf16", True)]:
            how = dict(precision=precision, training=training)
            up = lambda x, w, layer=layer, S=S, P=P, how=how: conv2d(x, w, None, S, P, layer.groups, layer.rounding, **how)[0]
            down = lambda dy, w, layer=layer, S=S, P=P, shape=shape, how=how: conv2d_transpose(
                dy, w, S, P, *shape[1:], layer.groups, **how)
            for run, maps in (up, shape), (down, out):
                yield run, stored(lambda source, N, maps=maps, w_shape=w_shape: (source.outputs(*maps, N),
                                                                                 source.normal(*w_shape)),
                                  precision, 0, 1)


def measured(device, clock, networks, args):
    """Yield (question, {kernel in words: microseconds}) of each question, once."""
    before, known = tuned.current, set()
    try:
        for (run, draw), N in product((one for network in networks for one in passes(network)), args.batch_sizes):
            arrays, asked = draw(Source(device.array), N), Asked()
            tuned.use(asked)
            gpu.recorded(run_of(run), arrays)
            for question, kernels in asked.questions.items():
                if question not in known:
                    known.add(question)
                    yield question, timed(run, arrays, question, kernels, clock, args.rounds)
    finally:
        tuned.use(before)


def run_of(run):
    """`run` for `gpu.recorded`, which asks for a tuple."""
    return lambda *arrays: (run(*arrays),)


def timed(run, arrays, question, kernels, clock, rounds):
    """{kernel in words: microseconds} of the operation whose `question` each of `kernels` answers."""
    contestants = {}
    for kernel in kernels:
        tuned.use(tuned.Choices({question: model.words(kernel)}))
        _, tape = gpu.recorded(run_of(run), arrays)
        contestants[model.words(kernel)] = prepared(clock, Contestant(
            model.words(kernel), lambda tape=tape: gpu.replay(tape), 1, None, clock.captured))
    return {name: float(1e6*np.median(times)) for name, times in take_turns(clock.seconds, contestants, rounds).items()}
