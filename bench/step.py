"""The whole training step of ZFNet on a GPU, beside PyTorch's: the first part of python -m bench.

    ours                     `Training.one_step`, all that python -m train does with a batch once its pictures are on the
                             device: crops drawn on the host, one copy, one CUDA graph (crop, forward, loss, backward, update,
                             limit)
    ours, launch by launch   the same without the graph
    PyTorch eager            forward, loss, backward and fused SGD of the same network, channels last, on pictures that are on
                             the device and cropped, without the limit on filters; bf16 by autocast
    torch.compile            the same, compiled with mode="reduce-overhead", which makes CUDA graphs too

PyTorch's factors are rounded as ours are; it has no fp32x3, which stands beside its fp32."""
import contextlib
import statistics

import numpy as np

from bench import engines, gpu, peers
from bench.timing import take_turns
from train.options import parser
from zfcore.data.loader import BuiltIn
from zfcore.graph import launch_by_launch
from zfcore.kernel import PRECISIONS
from zfcore.models.zfnet import zfnet
from zfcore.training import Training, resolve

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
    """Yield a row for each precision: {"precision", "launches" of a step, "kernels": {name: microseconds in a step},
    "contestants": {name: its times, or why it failed}}."""
    # the fastest first: time may not last
    for precision in reversed([name for name in PRECISIONS if name in args.precisions]):
        row, runs = {"precision": precision, "contestants": {}}, {}
        for name, make in contestants(precision, args.batch_size, device, clock, row):
            try:
                runs[name] = make(), STEPS
            except Exception as failure:                   # the next one may well succeed
                row["contestants"][name] = {"failed": gpu.sentence(failure)}
        clock.wait()
        for name, times in take_turns(clock.seconds, runs, args.rounds).items():
            row["contestants"][name] = {"ms": 1e3*statistics.median(times), "spread": [1e3*min(times), 1e3*max(times)],
                                        "images_per_second": args.batch_size/statistics.median(times)}
        yield row
        del runs                                           # and the memory with it


def lines(row):
    """A row as it is printed."""
    for name, entry in row["contestants"].items():
        yield f"{row['precision']:8}{name:26}" + (f"{entry['ms']:9.3f} ms{entry['images_per_second']:10.0f} images/s"
                                                  if "ms" in entry
                                                  else f"  failed: {entry['failed']}")
    yield f"{row['precision']:8}{row.get('launches', '?')} launches a step"
    yield from (f"{row['precision']:8}  {name:34}{us:9.1f} us" for name, us in row.get("kernels", {}).items())


def contestants(precision, N, device, clock, row):
    """(name, function that prepares it and returns one that makes STEPS steps)."""
    def ours(captured):
        training, batch = ready(precision, N, device)
        if not captured:
            training.captured = launch_by_launch(device, training.learn)
        tape = launched(training, batch)
        row["launches"], row["kernels"] = len(tape), row.get("kernels") or shares(tape, clock)
        for _ in range(3):                                 # loads the kernels; then the second is recorded, the third replayed
            training.one_step(*batch)
        return lambda: [training.one_step(*batch) for _ in range(STEPS)]

    yield "ours", lambda: ours(True)
    yield "ours, launch by launch", lambda: ours(False)
    if peers.torch is not None and precision != "fp32x3":
        yield "PyTorch eager", lambda: torch_steps(precision, N, clock, lambda twin: twin)
        yield "torch.compile", lambda: torch_steps(precision, N, clock,
                                                   lambda twin: peers.torch.compile(twin, mode="reduce-overhead"))


def ready(precision, N, device, more=()):
    """(a Training, a batch for its one_step): ZFNet on drawn pictures, as the paper trains it."""
    words = ["--preset", "zfnet", "--batch-size", str(N), "--device", device.name,
             "--precision", precision, "--init", "he", "--lr", "1e-4", *more]
    config = resolve(vars(parser().parse_args(words)))
    training = Training("step", *Training.materials(config, [Drawn(N, config.picture_size)]*2))        # writes nothing
    training.begin_sums()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (N, config.picture_size, config.picture_size, 3), np.uint8)
    return training, (device.array(pictures), rng.integers(0, CLASSES, N), np.arange(N))


def launched(training, batch):
    """The tape (see gpu.recorded) of the next step of `training`, which must not be a replay."""
    pictures, *rest = batch
    return gpu.recorded(lambda pictures: training.one_step(pictures, *rest), [pictures])[1]


def shares(tape, clock):
    """{name of a kernel: microseconds of all its launches in a step}, the longest first."""
    def seconds(name):
        run = clock.captured(lambda: gpu.replay([entry for entry in tape if entry[0].name == name]), STEPS)
        return statistics.median(clock.seconds(run) for _ in range(5))/STEPS
    found = {name: 1e6*seconds(name) for name in {kernel.name: None for kernel, _, _ in tape}}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def torch_steps(precision, N, clock, compiled, where="cuda"):
    """A function that makes STEPS steps of the same network in PyTorch, after a few that compile it."""
    torch = peers.torch
    images = torch.randn(N, 3, 224, 224, device=where).mul_(64).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (N,), device=where)
    twin = engines.torch_network(zfnet()).to(where, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    forward = compiled(twin)
    short = (lambda: torch.autocast(where, torch.bfloat16)) if precision == "bf16" else contextlib.nullcontext

    def run(steps=STEPS):
        with peers.on_stream(clock), peers.products_in(precision):
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                with short():
                    loss = torch.nn.functional.cross_entropy(forward(images), labels)
                loss.backward()
                optimizer.step()
    clock.wait()
    run(3)
    return run
