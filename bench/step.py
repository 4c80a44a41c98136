"""The whole training step of ZFNet on a GPU, beside PyTorch's: the first part of python -m bench.

    ours                     `Training.one_step`, all that python -m train does with a batch once its pictures are on the
                             device: crops drawn on the host, one copy, one CUDA graph (crop, forward, loss, backward, update,
                             limit)
    ours, launch by launch   the same without the graph
    PyTorch eager            forward, loss, backward and fused SGD of the same network, channels last, on pictures that are on
                             the device and cropped, without the limit on filters; bf16 by autocast
    torch.compile            the same, compiled with mode="reduce-overhead", which makes CUDA graphs too

PyTorch's factors are rounded as ours are; it has no fp32x3, which stands beside its fp32. All begin with the same weights and see
the same pictures in every step: what numbers draw in power decides the clock. Who ends with a loss that is no number has
multiplied something else, and fails."""
import contextlib
import gc
import math
import statistics
from dataclasses import replace

import numpy as np

from bench import engines, gpu, peers
from bench.timing import take_turns
from train.options import parser
from zfcore.backend import to_host
from zfcore.check import Expected
from zfcore.data.loader import BuiltIn
from zfcore.graph import launch_by_launch
from zfcore.kernel import PRECISIONS
from zfcore.ops.crop_flip import crop_flip
from zfcore.ops.model import words
from zfcore.training import Training, resolve
from zfcore.training.loop import DRAW

STEPS = 10                        # between two looks at the clock
CLASSES = 1000


class Drawn(BuiltIn):
    """A data set that is never read: its mean image is given, its pictures are made by `ready`."""
    classes = [f"class {k:04}" for k in range(CLASSES)]

    def __init__(self, N, size):
        self.labels, self.names = np.zeros(N, np.int64), ["drawn"]*N
        self.mean_image = np.full((3, size, size), 128, np.float32)

    def __len__(self):
        return len(self.labels)

    def picture(self, i):
        raise NotImplementedError

    def fingerprint(self):
        return f"{len(self)} of nothing"


def measured(device, clock, args):
    """Yield a row for each precision: {"precision", "launches" of a step, "kernels": {in words: microseconds in a step},
    "contestants": {name: its times, or why it failed}}."""
    # the fastest first: time may not last
    for precision in reversed([name for name in PRECISIONS if name in args.precisions]):
        row, made = {"precision": precision, "contestants": {}}, {}
        for name, make in contestants(precision, args.batch_size, device, clock, row):
            try:
                made[name] = make()
            except Exception as failure:                   # the next one may well succeed
                row["contestants"][name] = {"failed": gpu.sentence(failure)}
        clock.wait()
        runs = {name: (run, STEPS) for name, (run, _) in made.items()}
        for name, times in take_turns(clock.seconds, runs, args.rounds).items():
            row["contestants"][name] = entry(times, made[name][1](), args.batch_size)
        yield row
        del made, runs
        gc.collect()                                       # a Training holds itself, and its memory


def entry(times, loss, N):
    """Entry of a contestant by the times of its steps; why it failed where its loss at the end is no number."""
    if not math.isfinite(loss):
        return {"failed": gpu.sentence(Expected("loss at the end", "a finite number", loss))}
    return {"ms": 1e3*statistics.median(times), "spread": [1e3*min(times), 1e3*max(times)],
            "images_per_second": N/statistics.median(times)}


def lines(row):
    """A row as it is printed."""
    for name, entry in row["contestants"].items():
        yield f"{row['precision']:8}{name:26}" + (f"{entry['ms']:9.3f} ms{entry['images_per_second']:10.0f} images/s"
                                                  if "ms" in entry
                                                  else f"  failed: {entry['failed']}")
    yield f"{row['precision']:8}{row.get('launches', '?')} launches a step"
    yield from (f"{row['precision']:8}{us:9.1f} us  {kernel}" for kernel, us in row.get("kernels", {}).items())


def contestants(precision, N, device, clock, row):
    """(name, function that prepares it and returns two: one that makes STEPS steps, one that tells its loss)."""
    config = asked(precision, N, device)

    def ours(captured):
        if "kernels" not in row:
            row.update(of_a_step(config, clock))
            gc.collect()                                   # gives the memory of that Training back, which holds itself
        training, batch = ready(config)
        if not captured:
            training.captured = launch_by_launch(device, training.learn)
        for _ in range(3):                                 # loads the kernels; then the second is recorded, the third replayed
            training.one_step(*batch)
        return lambda: [training.one_step(*batch) for _ in range(STEPS)], lambda: float(to_host(training.totals)[0])

    yield "ours", lambda: ours(True)
    yield "ours, launch by launch", lambda: ours(False)
    if peers.torch is not None and precision != "fp32x3":
        yield "PyTorch eager", lambda: torch_steps(config, clock, lambda twin: twin)
        yield "torch.compile", lambda: torch_steps(config, clock,
                                                   lambda twin: peers.torch.compile(twin, mode="reduce-overhead"))


def asked(precision, N, device, more=()):
    """The TrainConfig: ZFNet as the paper trains it."""
    words = ["--preset", "zfnet", "--batch-size", str(N), "--device", device.name,
             "--precision", precision, "--init", "he", "--lr", "1e-4", *more]
    return resolve(vars(parser().parse_args(words)))


def drawn(config):
    """(pictures (N,size,size,3) uint8, labels, indices), the batch of every step, on the host."""
    rng, N, size = np.random.default_rng(0), config.batch_size, config.picture_size
    return rng.integers(0, 256, (N, size, size, 3), np.uint8), rng.integers(0, CLASSES, N), np.arange(N)


def ready(config):
    """(a Training on drawn pictures, a batch for its one_step)."""
    training = Training("step", *Training.materials(config, [Drawn(config.batch_size, config.picture_size)]*2))  # writes nothing
    training.begin_sums()
    pictures, *rest = drawn(config)
    return training, (training.device.array(pictures), *rest)


def of_a_step(config, clock):
    """{"launches": count of them in a step, "kernels": `shares`}, on a Training of its own: its kernels run many times over, and
    what its steps so often do to weights must not be what is timed. They are too small to do much to them here, too."""
    training, (pictures, *rest) = ready(replace(config, lr=1e-12))
    _, tape = gpu.recorded(lambda pictures: training.one_step(pictures, *rest), [pictures])
    return {"launches": len(tape), "kernels": shares(tape, clock)}


def shares(tape, clock):
    """{a kernel in words: microseconds of all its launches in a step}, the longest first."""
    def seconds(kernel):
        run = clock.captured(lambda: gpu.replay([entry for entry in tape if words(entry[0]) == kernel]), STEPS)
        return statistics.median(clock.seconds(run) for _ in range(5))/STEPS
    found = {kernel: 1e6*seconds(kernel) for kernel in dict.fromkeys(words(kernel) for kernel, _, _ in tape)}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def cropped(config):
    """(images (3,H,W,N), labels) that enter the network in every step, on the host."""
    pictures, labels, indices = drawn(config)
    crops = DRAW[config.crops](indices, config.seed, 0, config.picture_size, config.image_size)
    mean = Drawn(config.batch_size, config.picture_size).mean_image
    return crop_flip(pictures, mean, *crops, config.image_size, config.image_size), labels


def torch_steps(config, clock, compiled, where="cuda"):
    """A function that makes STEPS steps of the same network in PyTorch, after a few that compile it, and one that tells the
    last loss."""
    torch, loss = peers.torch, None
    images, labels = cropped(config)
    images, labels = engines.torch_images(images, "channels last").to(where), torch.from_numpy(labels).to(where)
    network = Training.drawn_network(replace(config, device="cpu", precision="fp32"), Drawn.classes)
    twin = engines.torch_network(network).to(where, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(twin.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True)
    forward = compiled(twin)
    short = (lambda: torch.autocast(where, torch.bfloat16)) if config.precision == "bf16" else contextlib.nullcontext

    def run(steps=STEPS):
        nonlocal loss
        with peers.on_stream(clock), peers.products_in(config.precision):
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                with short():
                    loss = torch.nn.functional.cross_entropy(forward(images), labels)
                loss.backward()
                optimizer.step()
    clock.wait()
    run(3)
    return run, lambda: float(loss.detach())
