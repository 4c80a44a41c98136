"""python -m bench cpu: the full ZFNet at 224 x 224 on NumPy, beside the same network by other engines (bench/engines.py).

All use the same number of threads. They take turns, round after round, so that whatever else the machine does meets them
alike, each for LONG or one call; what is printed is the median over the rounds of the ratio within a round to the engine whose
median is best, and the lowest and highest of these ratios. First it is checked that all compute the same. Results go to cpu.json in the folder
--output, case by case; given again after it was stopped, the bench goes on where it was.
"""
import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench import engines
from bench.engines import LAYOUTS, torch, torch_images
from bench.record import Record
from zfcore import check
from zfcore.layers import Conv
from zfcore.models.zfnet import zfnet
from zfcore.ops.conv2d import conv2d, conv2d_backward, conv2d_transpose
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.optim import SGD

RESULTS = Path("runs", "bench")                              # those that the READMEs show lie in bench/results
OWN = ("network", "layers", "memory")                        # parts that are measured here; the others have files of their own
LONG = 0.3                                                   # seconds of a turn, or one call where that takes longer
PARTS = (*OWN, "shares", "endtoend", "threads", "projections", "occlusion", "analyses", "atlas")


def add_arguments(parser):
    parser.add_argument("--batch-sizes", type=check.BATCH, nargs="+", default=[1, 32, 128], metavar="N", help="images at once")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=7,
                        help="how often each is timed, after one round that warms up")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS,
                        help="network: forward and training step; layers: each convolution by itself; memory: peak of "
                             "a training step; shares: which operations take the time (bench/shares.py); endtoend: tiny with "
                             "its pictures (bench/endtoend.py); threads: on fewer cores (bench/threads.py); projections: the "
                             "deconvnet in forward passes (bench/projections.py); occlusion: figure 7 by the cone alone "
                             "(bench/occlusion.py); analyses: each figure by its command (bench/analyses.py); atlas: a whole "
                             "one (bench/atlas.py)")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="the folder of the JSON files")


def main(args):
    parts = [part for part in OWN if part in args.parts]
    record = Record(args.output/"cpu.json", {"engines": engines.versions(), "pytorch": engines.versions().get("torch"),
                                             "rounds": args.rounds}, ("cases", "peak_memory"), parts)
    report = record.report
    print(f"{report['cpu']}, {report['cores']} cores, NumPy {report['numpy']}; beside it "
          + (", ".join(f"{name} {version}" for name, version in report["engines"].items()) or "nothing that is installed"))
    left_out = checked_engines() if {"network", "layers"} & set(parts) else {}
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")
    print(f"{'milliseconds an image':28}{'N':>5}{'ours':>9}{'best':>9}   {'which':22}{'ratio':>6}  (spread), within a round")
    for N in args.batch_sizes:
        for part, name, make in cases(parts, N, left_out):
            row = record.has("cases", part=part, name=name, N=N)
            if row is None:
                record.add("cases", row := {"part": part, "name": name, "N": N, **compare(name, make(), N, args.rounds)})
            print(line(row), flush=True)
        if "memory" in parts:
            row = record.has("peak_memory", N=N)
            if row is None:
                with multiprocessing.get_context("spawn").Pool(1) as pool:     # a process that has done nothing else
                    record.add("peak_memory", row := {"part": "memory", "N": N, "gigabytes": pool.apply(peak_memory, (N,))})
            print(f"{'peak memory of a step':28}{N:5}{row['gigabytes']:9.2f} GB", flush=True)
    record.finish()


def cases(parts, N, left_out):
    """(part, name, function that makes the contestants) of every case that is timed."""
    for part, of_part in (("network", lambda: network_cases(N, left_out)), ("layers", lambda: layer_cases(N))):
        if part in parts:
            yield from ((part, name, make) for name, make in of_part())


# ---------------------------------------------------------------------------------------------------- how long it takes
# Forward passes of one image that a part takes a round, an image of the batch; ours counts 1, the engines what they took beside
# it.
FORWARD, STEP, LAYERS, COMPILED = 8.5, 27, 9, 60             # COMPILED: seconds a compilation
ONCE = {"shares": 150, "endtoend": 300, "threads": 120, "projections": 60, "occlusion": 480, "analyses": 120, "atlas": 120}


def forecast(args):
    """{part: seconds} of what `args` ask for, from the time that a forward pass takes now. None is meant to be exact."""
    network, (x, _) = zfnet().init(0), pictures(8)
    network.forward(x)
    start = time.perf_counter()
    network.forward(x)
    seconds = (time.perf_counter() - start)/8
    turns, count = args.rounds + 1, sum(max(N, LONG/seconds) for N in args.batch_sizes)
    compiles = 2*len(args.batch_sizes) + 1 if torch else 0
    found = {"network": turns*count*seconds*(FORWARD + STEP) + compiles*COMPILED, "layers": turns*count*seconds*LAYERS,
             "memory": 10*sum(args.batch_sizes)*seconds + 5*len(args.batch_sizes), **ONCE}
    return {part: found[part] for part in PARTS if part in args.parts}


def say_forecast(args):
    """Say how long it will take. Raises Expected for an output that cannot be written, before the minutes of measuring."""
    if args.output.exists() and not args.output.is_dir():
        raise check.Expected("--output", "a folder", f"{args.output}, a file")
    parts = forecast(args)
    shown = ", ".join(f"{part} {max(1, round(seconds/60))}" for part, seconds in parts.items())
    print(f"about {max(1, round(sum(parts.values())/60))} minutes if nothing else runs here: {shown}", flush=True)


# -------------------------------------------------------------------------------------------------------- timing
def compare(name, runs, N, rounds):
    """Time the functions {"ours": ..., layout: ...} in turns -> milliseconds an image (medians) and the ratio."""
    times = {key: [] for key in runs}
    for warm in tqdm(range(-1, rounds), desc=name, leave=False, disable=None):
        for key, run in runs.items():
            seconds = of_a_turn(run)
            if warm >= 0:
                times[key].append(seconds/N*1e3)
    row = {"milliseconds": {key: statistics.median(each) for key, each in times.items()}}
    peers = [key for key in runs if key != "ours"]
    if peers:
        best = min(peers, key=row["milliseconds"].get)
        ratios = sorted(ours/theirs for ours, theirs in zip(times["ours"], times[best]))
        row |= {"best": best, "ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}
    return row


def of_a_turn(run):
    """Seconds of one call of `run`, the median of as many as LONG holds: the first of them would find its arrays out of cache,
    and the cores at what the one before it left its threads waiting for."""
    each = []
    while sum(each) < LONG:
        start = time.perf_counter()
        run()
        each.append(time.perf_counter() - start)
    return statistics.median(each)


def line(row):
    text = f"{row['name']:28}{row['N']:5}{row['milliseconds']['ours']:9.2f}"
    if "best" in row:
        low, high = row["spread"]
        text += f"{row['milliseconds'][row['best']]:9.2f}   {row['best']:22}{row['ratio']:6.2f}  ({low:.2f} to {high:.2f})"
    return text


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


def network_cases(N, left_out):
    """(name, function that makes the contestants): forward in evaluation, and a training step."""
    def forward():
        network, (x, _) = zfnet().init(0), pictures(N)
        return {"ours": lambda: network.forward(x), **engines.contestants(network, x, None, left_out)}

    def step():
        network, (x, labels) = zfnet().init(0), pictures(N)
        optimizer = SGD(network, rms_max=None)
        return {"ours": lambda: train_step(network, optimizer, x, labels, 0),
                **engines.contestants(network, x, labels, left_out)}

    return ("forward", forward), ("training step", step)


def checked_engines():
    """{engine: why it cannot be used here} of those that are installed and fail. Raises AssertionError where the scores of two
    pictures differ from ours: whoever times something else learns nothing."""
    network, (x, _) = zfnet().init(0, "he"), pictures(2)
    (ours, _), left_out = network.forward(x), {}
    for engine in engines.installed():
        try:
            theirs = engine.forward(network, x)()
        except Exception as error:                         # without a compiler, or of a version that has changed
            left_out[engine.name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4*abs(theirs).max(), err_msg=engine.name)
    return left_out


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
        images = torch.nn.functional.pad(images, (0, over[1], 0, over[0])).contiguous(memory_format=engines.memory_format(layout))
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
