"""python -m bench cpu: the full ZFNet at 224 x 224 on NumPy, beside the same network in PyTorch.

Both use the same number of threads. PyTorch runs in its two layouts, channels first and channels last, and the better one
counts. The three take turns, round after round, so that whatever else the machine does meets them alike; what is
printed is the median over the rounds of the ratio within a round, and the lowest and highest of these ratios.
First it is checked that both compute the same. Results go to bench/results/cpu.json.
"""
import contextlib
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zfcore import check
from zfcore.cpu import BLAS, CORES
from zfcore.layers import Conv
from zfcore.models.zfnet import zfnet
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_transpose
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.optim import SGD

try:
    import torch
except ImportError:
    torch = None

RESULTS = Path(__file__).parent / "results" / "cpu.json"
LAYOUTS = ("channels first", "channels last")
PARTS = ("network", "layers", "memory", "projections", "occlusion", "atlas")


def add_arguments(parser):
    parser.add_argument("--batch-sizes", type=check.BATCH, nargs="+", default=[32, 128], metavar="N", help="images at once")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=7, help="how often each is timed, after one round that warms up")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS,
                        help="network: forward and training step; layers: each convolution by itself; memory: peak of "
                             "a training step; projections: the deconvnet in forward passes (bench/projections.py); "
                             "occlusion: figure 7 by the cone alone (bench/occlusion.py); atlas: a whole one (bench/atlas.py)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file that is written")


def main(args):
    if args.output.is_dir():
        raise check.Expected("--output", "a JSON file", f"{args.output}, a folder")       # told before the minutes of measuring
    if torch is None:
        print("PyTorch is not installed: only our own times follow.")
    else:
        torch.set_num_threads(CORES)
        check_that_both_compute_the_same()
    report = {"cpu": cpu_name(), "cores": CORES, "python": platform.python_version(), "numpy": np.__version__,
              "blas": [f"{library.internal_api} {library.version}" for library in BLAS.libraries],
              "pytorch": torch and torch.__version__, "rounds": args.rounds,
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "cases": [], "peak_memory": []}
    print(f"{report['cpu']}, {report['cores']} cores, NumPy {report['numpy']}, PyTorch {report['pytorch']}")
    print(f"{'milliseconds an image':28}{'N':>5}{'ours':>9}{'PyTorch':>9}   {'layout':16}{'ratio':>6}  (spread)")
    for N in args.batch_sizes:
        cases = (*(network_cases(N) if "network" in args.parts else ()),
                 *(layer_cases(N) if "layers" in args.parts else ()))
        for name, make in cases:
            row = {"name": name, "N": N, **compare(name, make(), N, args.rounds)}
            report["cases"].append(row)
            print(line(row), flush=True)
        if "memory" in args.parts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:         # a process that has done nothing else
                gigabytes = pool.apply(peak_memory, (N,))
            report["peak_memory"].append({"N": N, "gigabytes": gigabytes})
            print(f"{'peak memory of a step':28}{N:5}{gigabytes:9.2f} GB", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {args.output}")


# -------------------------------------------------------------------------------------------------------- timing
def compare(name, runs, N, rounds):
    """Time the functions {"ours": ..., layout: ...} in turns -> milliseconds an image (medians) and the ratio."""
    times = {key: [] for key in runs}
    for warm in tqdm(range(-1, rounds), desc=name, leave=False, disable=None):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if warm >= 0:
                times[key].append((time.perf_counter() - start)/N*1e3)
    row = {"milliseconds": {key: statistics.median(each) for key, each in times.items()}}
    peers = [key for key in runs if key != "ours"]
    if peers:
        best = min(peers, key=row["milliseconds"].get)
        ratios = sorted(ours/theirs for ours, theirs in zip(times["ours"], times[best]))
        row |= {"best": best, "ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}
    return row


def line(row):
    text = f"{row['name']:28}{row['N']:5}{row['milliseconds']['ours']:9.2f}"
    if "best" in row:
        low, high = row["spread"]
        text += f"{row['milliseconds'][row['best']]:9.2f}   {row['best']:16}{row['ratio']:6.2f}  ({low:.2f} to {high:.2f})"
    return text


def cpu_name():
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --------------------------------------------------------------------------------------------- the whole network
def pictures(N):
    """(x (3,224,224,N) in +-128, labels (N,))."""
    rng = np.random.default_rng(0)
    return rng.uniform(-128, 128, (3, 224, 224, N)).astype(np.float32), rng.integers(0, 1000, N)


def train_step(network, optimizer, x, labels, step):
    logits, caches = network.forward(x, step)
    _, cache = softmax_loss(logits, labels)
    _, grads = network.backward(softmax_loss_backward(cache), caches, to_pixels=False)
    optimizer.step(network, grads, lr=1e-4)


def peak_memory(N):
    """Most memory in GB that this process ever held, after two training steps."""
    network = zfnet().init(0)
    optimizer = SGD(network, rms_max=None)
    for step in range(2):
        train_step(network, optimizer, *pictures(N), step)
    with contextlib.suppress(OSError):                       # Linux: ru_maxrss would start at what the parent held
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith("VmHWM"):
                return int(text.split()[1])*1024/1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == "darwin" else 1024)/1e9


def network_cases(N):
    """(name, function that makes the contestants): forward in evaluation, and a training step."""
    def forward():
        network, (x, _) = zfnet().init(0), pictures(N)
        runs = {"ours": lambda: network.forward(x)}
        for layout, twin, images in torch_twins(network, x):
            runs[layout] = lambda twin=twin.eval(), images=images: torch.no_grad()(twin)(images)
        return runs

    def step():
        network, (x, labels) = zfnet().init(0), pictures(N)
        optimizer = SGD(network, rms_max=None)
        runs = {"ours": lambda: train_step(network, optimizer, x, labels, 0)}
        for layout, twin, images in torch_twins(network, x):
            runs[layout] = torch_step(twin.train(), images, torch.from_numpy(labels))
        return runs

    return ("forward", forward), ("training step", step)


def torch_step(twin, images, labels):
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-4, momentum=0.9)

    def run():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(images), labels).backward()
        optimizer.step()
    return run


def torch_twins(network, x):
    """(layout, module with the parameters of `network`, images) in both of PyTorch's layouts."""
    if torch is None:
        return
    for layout in LAYOUTS:
        twin = torch_zfnet()
        modules = [m for m in twin if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
        for module, of_layer in zip(modules, network.parameters().values()):
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(np.moveaxis(of_layer["w"], -1, 0)))
                module.bias.copy_(torch.from_numpy(of_layer["b"]))
        yield layout, twin.to(memory_format=memory_format(layout)), torch_images(x, layout)


def torch_zfnet():
    """ZFNet as a user of PyTorch would write it. Rounding up is a row and a column of zeros at the end of conv1's input
    and ceil_mode in the pools; alpha of LocalResponseNorm is divided by its width, as ours is."""
    nn = torch.nn

    def conv(C, F, K, **options):
        return nn.Conv2d(C, F, K, **options), nn.ReLU(inplace=True)

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def norm():
        return nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)

    def full(D, M):
        return nn.Linear(D, M), nn.ReLU(inplace=True), nn.Dropout(0.5)

    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), *conv(3, 96, 7, stride=2), pool(), norm(),
                         *conv(96, 256, 5, stride=2), pool(), norm(),
                         *conv(256, 384, 3, padding=1), *conv(384, 384, 3, padding=1), *conv(384, 256, 3, padding=1), pool(),
                         nn.Flatten(), *full(9216, 4096), *full(4096, 4096), nn.Linear(4096, 1000))


def memory_format(layout):
    return torch.channels_last if layout == "channels last" else torch.contiguous_format


def torch_images(x, layout):
    """x (C,H,W,N) as PyTorch's tensor (N,C,H,W) in that layout."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 1, 2))).contiguous(memory_format=memory_format(layout))


def check_that_both_compute_the_same():
    """Raises AssertionError unless the logits of two pictures agree: whoever times something else learns nothing."""
    network, (x, _) = zfnet().init(0, "he"), pictures(2)
    ours, _ = network.forward(x)
    for _, twin, images in torch_twins(network, x):
        with torch.no_grad():
            theirs = twin.eval()(images).numpy().T
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4*abs(theirs).max())


# ------------------------------------------------------------------------------------- the convolutions one by one
def layer_cases(N):
    """(name, function that makes the contestants): each convolution of ZFNet forward with its ReLU, and its gradients."""
    network = zfnet()
    for layer, shape in zip(network.layers, network.shapes):
        if isinstance(layer, Conv):
            yield f"{layer.name} forward", lambda at=(layer, shape): convolution(*at, N)["forward"]
            if layer is not network.layers[0]:                                  # training needs no gradient of pictures
                yield f"{layer.name} data gradient", lambda at=(layer, shape): convolution(*at, N)["data gradient"]
            yield f"{layer.name} weight gradient", lambda at=(layer, shape): convolution(*at, N)["weight gradient"]


def convolution(layer, shape, N):
    """{what: {"ours": run, layout: run}} of one convolution layer on inputs of `shape`."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((*size, N), dtype=np.float32) for size in (shape, layer.shape_out(shape)))
    w, b = (rng.standard_normal(size, dtype=np.float32)*0.01 for size in layer.parameter_shapes(shape).values())
    K, S, P = layer.window()
    _, cache = conv2d(x, w, b, S, P)
    runs = {"forward": {"ours": lambda: conv2d(x, w, b, S, P, relu=True)},
            "data gradient": {"ours": lambda: conv2d_transpose(dy, w, S, P, *shape[1:])},
            "weight gradient": {"ours": lambda: conv2d_backward(dy, cache, need_dx=False)}}
    for layout in LAYOUTS if torch else ():
        images, gradient = torch_images(x, layout), torch_images(dy, layout)
        over = [max(0, (size - 1)*S + K - 2*P - width) for size, width in zip(dy.shape[1:3], shape[1:])]
        images = torch.nn.functional.pad(images, (0, over[1], 0, over[0])).contiguous(memory_format=memory_format(layout))
        weight, bias = torch_images(w, layout), torch.from_numpy(b)

        def forward(images=images, weight=weight, bias=bias):
            with torch.no_grad():
                torch.relu_(torch.conv2d(images, weight, bias, S, P))

        def backward(mask, images=images, weight=weight, gradient=gradient):
            torch.ops.aten.convolution_backward(gradient, images, weight, [len(b)], [S, S], [P, P], [1, 1], False, [0, 0],
                                                1, mask)

        runs["forward"][layout] = forward
        runs["data gradient"][layout] = lambda backward=backward: backward([True, False, False])
        runs["weight gradient"][layout] = lambda backward=backward: backward([False, True, True])
    return runs
