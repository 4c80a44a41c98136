"""python -m bench, on a machine with a GPU: every kernel at the paper's shapes, beside the floor and beside its peers.

For each case of bench/cases.py, in this order:

    check     the outputs, on memory poisoned with NaN, against the same operation in float64 NumPy (for operations that
              treat images one by one: on a few images of the full batch). What is wrong is reported and not timed
    time      the launches that the operation made, replayed as a CUDA graph over arrays larger than the last cache, in
              turns with the peers (bench/timing.py, bench/peers.py)
    floor     bytes over the copy bandwidth or FLOPs over the rate of multiply-adds, or of mma.sync where products are formed on
              tensor cores, whichever takes longer, all measured in this run

One JSON file a run, written anew after every case, so that what was measured outlives whatever happens next.
"""
import contextlib
import math
import platform
import statistics
import subprocess
import sys
import traceback
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bench import ladder, peers
from bench.cases import Source, cases
from bench.record import commit, save
from bench.timing import Clock, Contestant, microseconds, prepared, ratio, take_turns
from zfcore import backend, check, nvrtc
from zfcore.backend import to_host
from zfcore.cubin import in_one_piece
from zfcore.files import slug
from zfcore.device import select
from zfcore.gpu import find_cupy
from zfcore.kernel import PRECISIONS, tensors
from zfcore.ops import tuned, tuning
from zfcore.ops.convert import from_bf16
from zfcore.ops.model import words
from zfcore.terminal import plural

RESULTS = Path(__file__).parent/"results"
CHECKED = 4                       # images of the batch that are checked
SETS = 256                        # most sets of arrays that take turns
EPS = float(np.finfo(np.float32).eps)
MEASURED = ("multiprocessors", "fma_tflop_s", "tf32_tflop_s", "bf16_tflop_s", "wgmma_tflop_s", "copy_gb_s",
            "l2_gb_s")            # fields of zfcore.ops.tuning that this finds out, of wgmma where there is such
FACTORS = {"fp32": 0.0, "fp32x3": 4*EPS, "tf32": 2.0**-11, "bf16": 2.0**-8}     # relative error of a rounded factor

# What numbers draw in power decides the clock: all the same, they would make a ceiling that no data reach. So those that are
# multiplied, read and copied here differ, and sums change from step to step.

# Sixteen chains of multiply-adds a thread, enough that the pipelines are never empty; nothing is read, little is written. Two
# steps make c - c/b - a of a, four make a again, so that it stays finite. `steps` is even.
FMA = r"""
extern "C" __global__ void fma_rate(float *y, int steps)
{
    float a[16], b = 0.7f + 0.001f * threadIdx.x, back = -1 / b, c = 0.3f;
    for (int k = 0; k < 16; k++) a[k] = 1.618034f * (threadIdx.x + 1) + 0.7320508f * k;
    for (int i = 0; i < steps; i += 2) {
        #pragma unroll
        for (int k = 0; k < 16; k++) a[k] = fmaf(a[k], b, c);
        #pragma unroll
        for (int k = 0; k < 16; k++) a[k] = fmaf(a[k], back, c);
    }
    float sum = 0;
    for (int k = 0; k < 16; k++) sum += a[k];
    y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}"""


# Words that are two numbers of bf16 or one of tf32, of either sign, between 1 and 2 but for that.
WORD = r"""
__device__ unsigned word(unsigned k) { return 0x3f803f80u | (k * 2654435761u & 0x807f807fu); }
"""

# The same of mma.sync: eight chains a warp, the products of two tiles and four, as a warp of the convolutions has them.
MMA = WORD + r"""
#include <ptx.cuh>
extern "C" __global__ void mma_rate(float *y, int steps)
{
    unsigned a[2][4], b[4][2];
    for (int k = 0; k < 8; k++) a[k / 4][k % 4] = word(16 * threadIdx.x + k);
    for (int k = 0; k < 8; k++) b[k / 2][k % 2] = word(16 * threadIdx.x + 8 + k);
    float d[8][4];
    for (int k = 0; k < 32; k++) d[k / 4][k % 4] = k;
    for (int i = 0; i < steps; i++) {
        #pragma unroll
        for (int k = 0; k < 8; k++) PRODUCT(d[k], a[k / 4], b[k % 4]);
    }
    float sum = 0;
    for (int k = 0; k < 32; k++) sum += d[k / 4][k % 4];
    y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}"""

# The same of wgmma, on Hopper: two warpgroups multiply the same 64 rows each by the same 256 columns, which lie in shared
# memory for good.
WGMMA = WORD + r"""
#include <ptx.cuh>
extern "C" __global__ void __launch_bounds__(256, 1) wgmma_rate(float *y, int steps)
{
    DYN_SHARED(tiles);
    for (int k = threadIdx.x; k < (2 * 64 + 256) * 32; k += 256) reinterpret_cast<unsigned *>(tiles)[k] = word(k);
    fence_async_proxy();
    __syncthreads();
    const unsigned char *a = tiles + threadIdx.x / 128 * 64 * 128, *b = tiles + 2 * 64 * 128;
    float d[128];
    for (int i = 0; i < 128; i++) d[i] = i;
    for (int step = 0; step < steps; step++) {
        wgmma_fence();
        #pragma unroll
        for (int k = 0; k < 4; k++) wgmma_bf16(d, wgmma_k_major(a + 32 * k), wgmma_k_major(b + 32 * k), true);
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    float sum = 0;
    for (int i = 0; i < 128; i++) sum += d[i];
    y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}"""
WGMMA_FLOPS, WGMMA_BYTES = 2*128*256*64, (2*64 + 256)*128          # of a step of a block; of its shared memory

# Every block reads the same few MiB, which the last cache holds, past L1 into shared memory as the convolutions do. Eight
# copies of a thread are in flight. What the last eight have brought is added up, so that it can be seen what they were.
READ = r"""
#include <ptx.cuh>
extern "C" __global__ void read_rate(float *y, const float *x, int tiles, int steps)
{
    __shared__ __align__(16) float held[8][4 * 256];
    for (int i = 0; i < steps; i++) {
        const float *tile = x + (blockIdx.x * 7 + i) % tiles * 1024;
        cp_async16(&held[i % 8][4 * threadIdx.x], tile + 4 * threadIdx.x);
        cp_async_commit();
        cp_async_wait<7>();
    }
    cp_async_wait<0>();
    float sum = 0;
    for (int k = 0; k < 8; k++) sum += held[k][4 * threadIdx.x + k % 4];
    y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}"""
READ_TILES = 2**11                 # 8 MiB
MMA_FLOPS = {"tf32": 2*16*8*8, "bf16": 2*16*8*16}          # of one mma of a warp


def add_arguments(parser):
    parser.add_argument("--only", default="", metavar="TEXT",
                        help="only cases whose noun and name contain it: conv1, 'pool1 f'")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS,
                        help="only steps and cases whose products are formed so; what forms none is fp32")
    parser.add_argument("--batch-size", type=check.BATCH, default=128, metavar="N",
                        help="images at once (128, as in the paper)")
    parser.add_argument("--rounds", type=check.whole_number(1, 10_000), default=20, help="how often each contestant is timed")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where the JSON file goes (default: bench/results; none for another batch, a part of the cases or "
                             "--tune)")
    parser.add_argument("--tune", action="store_true",
                        help="choose kernels by what this run finds the GPU to be, not what zfcore/ops/tuning.py takes it to "
                             "be")


def main(args, step=None):
    """Returns the names of the cases that failed. `step` is the module bench.step, or None where no step is measured."""
    device, cupy = select("gpu"), find_cupy()
    peers.strict_fp32()
    clock, report = Clock(cupy), about(cupy, args)
    whole = not args.only and args.batch_size == 128 and not args.tune and set(args.precisions) == set(PRECISIONS)
    folder = args.output or (RESULTS if whole else None)
    path = folder and folder/f"{slug(report['device'])}-{report['date'][:10]}.json"
    hopper = report["capability"] == "90"
    report["ceilings"] = ceilings(clock, report["multiprocessors"], hopper)
    found = {name: value for name, value in (report | report["ceilings"]).items() if name in MEASURED}
    print(f"{report['device']}, driver {report['driver']}, CUDA {report['cuda']}, CuPy {report['cupy']}, PyTorch "
          f"{report['pytorch']}, cuDNN {report['cudnn']}; batch {args.batch_size}")
    print("ceilings: copy {copy_gb_s:.0f} GB/s, from L2 to shared memory {l2_gb_s:.0f} GB/s; TFLOP/s: fp32 {fma_tflop_s:.1f} "
          "(cuBLAS {matmul_tflop_s:.1f}), mma.sync in tf32 {tf32_tflop_s:.0f}, in bf16 {bf16_tflop_s:.0f}".format(**report["ceilings"])
          + (f", wgmma in bf16 {report['ceilings']['wgmma_tflop_s']:.0f}" if hopper else ""))
    with tuning.use(**(found if args.tune else {})) as in_force:
        report["tuning"], report["choices"] = asdict(in_force), dict(tuned.current)
        print("kernels are chosen for " + ", ".join(f"{name} {report['tuning'][name]:g} (found: {value:g})"
                                                    for name, value in found.items())
              + f"; before that counts a table of this card, of {plural(len(tuned.current), 'choice')}"*bool(tuned.current))
        if path:
            save(path, report)
        measure(device, clock, report, args, path, step)
    if path:
        print(f"written to {path}")
    steps = [f"{name} {row['precision']}" for row in report["steps"] for name, entry in row["contestants"].items()
             if "failed" in entry and name.startswith("ours")]
    return steps + [row["name"] for row in report["cases"] if "failed" in row]


def measure(device, clock, report, args, path, step):
    """Add the rows of steps and cases to the report, and write it to `path` after each, if there is one."""
    print(f"{'microseconds':40}{'ours':>10}{'of floor':>9}{'peer':>10}{'ratio':>7}  {'error':>8}  which; ratios within a round")
    for row in step.measured(device, clock, args) if step and args.only in "training step" else ():
        report["steps"].append(row)
        print(*step.lines(row), sep="\n", flush=True)
        if path:
            save(path, report)
    hopper = report["capability"] == "90"
    for case in [*cases(), *ladder.cases()]:
        if args.only not in f"{case.noun} {case.name}" or case.precision not in args.precisions or case.wgmma and not hopper:
            continue
        row = {"noun": case.noun, "name": case.name, "precision": case.precision}
        report["cases"].append(row)
        try:
            row |= measured(case, device, clock, report, args)
        except Exception as failure:                       # the next case may well succeed; what failed is said at the end
            traceback.print_exc()
            row["failed"] = sentence(failure)
        print(line(row), flush=True)
        if path:
            save(path, report)
        if not still_alive(clock):
            print("the device no longer answers: the kernel before this line broke its context", file=sys.stderr)
            break


def measured(case, device, clock, report, args):
    """The row of a case: what it moves and multiplies, its error, its times, its peers."""
    N, bandwidth, rate = args.batch_size, 1e9*report["ceilings"]["copy_gb_s"], 1e12*of_products(report["ceilings"], case)
    arrays = tuple(case.draw(Source(device.array), N))
    wanted, chosen = truth(case, arrays, N)
    outputs, tape = checked(case, arrays)
    row = {"kernels": [words(kernel) for kernel, _, _ in tape], "bytes": case.traffic(N), "flops": case.flops(N),
           "error": error(shown(case, outputs, chosen), wanted), "error_allowed": allowed(case, N), "peers": {}}
    if not row["error"] <= row["error_allowed"]:
        raise AssertionError(f"relative error {row['error']:.1e}, rounding explains {row['error_allowed']:.1e}")
    sets = [arrays, *(copied(arrays) for _ in range(1, sets_needed(case.traffic(N), report["l2_bytes"])))]
    contestants = {}
    for name, make in peers.peers(case):
        try:
            contestant = make(sets, clock)
            got = contestant.output()
            off = error([to_host(a) for a in shown(case, got, chosen)], wanted[:len(got)]) if got is not None else None
            if off is not None and not off < 1e-2:
                raise AssertionError(f"computes something else, relative error {off:.1e}")
            row["peers"][name] = {"error": off}
            contestants[name] = contestant
        except Exception as failure:
            row["peers"][name] = {"failed": sentence(failure)}
    contestants["ours"] = ours(case, sets, clock)          # last: an update in place changes what the peers are given
    runs = {}
    for name, contestant in contestants.items():
        try:
            runs[name] = prepared(clock, contestant)
        except Exception as failure:                       # a peer's that cannot be captured, say
            if name == "ours":
                raise
            row["peers"][name] = {"failed": sentence(failure)}
    times = take_turns(clock.seconds, runs, args.rounds)
    row |= microseconds(times["ours"]) | floor(case.traffic(N), case.flops(N), bandwidth, rate)
    row["share_of_floor"] = row["floor_us"]/row["us"]
    for name in runs:
        if name != "ours":
            row["peers"][name] |= microseconds(times[name])
    timed = {name: peer["us"] for name, peer in row["peers"].items() if "us" in peer}
    if timed:
        row["best_peer"] = min(timed, key=timed.get)
        row |= ratio(times[row["best_peer"]], times["ours"])
    return row


# ---------------------------------------------------------------------------------------------------------- is it right?
def truth(case, arrays, N):
    """(outputs in float64 by NumPy, the images they are of): of a few images where each stands for itself, else of all ([])."""
    chosen = sorted(np.random.default_rng(N).choice(N, min(CHECKED, N), replace=False).tolist()) if case.images else []
    host = [to_host(a[..., chosen] if k in case.images else a) for k, a in enumerate(arrays)]
    host = [from_bf16(a) if a.dtype == backend.BF16 else a for a in host]
    return case.run(*(a.astype(np.float64) if a.dtype == np.float32 else a.copy() for a in host)), chosen


def checked(case, arrays):
    """(outputs, tape): the operation on copies of `arrays`. Everything its kernels write is poisoned, whatever they change is
    put back, and the tape is run again: an element that no thread writes shows."""
    mine = copied(arrays)
    outputs, tape = recorded(case.run, mine)
    for array in written(tape):
        given = next((k for k, a in enumerate(mine) if a is array), None)
        if given is None:
            array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
        else:
            array[...] = arrays[given]
    replay(tape)
    return outputs, tape


def recorded(run, arrays):
    """(run(*arrays), tape): the tape is [(kernel, grid, arguments)] of every kernel that was launched on the way."""
    kind, tape = next(type(a) for a in arrays if backend.runs_kernels(a)), []
    launch = backend.LAUNCHERS[kind]

    def both(kernel, grid, arguments):
        tape.append((kernel, grid, arguments))
        launch(kernel, grid, arguments)

    backend.LAUNCHERS[kind] = both
    try:
        return run(*arrays), tape
    finally:
        backend.LAUNCHERS[kind] = launch


def replay(tape):
    """Launch a tape's kernels again, on the same memory."""
    for kernel, grid, arguments in tape:
        backend.LAUNCHERS[type(tensors(kernel, arguments)[0][1])](kernel, grid, arguments)


def written(tape):
    """Every array that a tape's kernels write to, once."""
    return list({id(array): array for kernel, _, arguments in tape for argument, array in tensors(kernel, arguments)
                 if not argument.const}.values())


def copied(arrays):
    return tuple(a.copy() for a in arrays)


def shown(case, outputs, chosen):
    """The outputs of the images that are checked, on the host."""
    host = [to_host(a[..., chosen] if case.images else a) for a in outputs]
    return [from_bf16(a) if a.dtype == backend.BF16 else a for a in host]


def error(got, wanted):
    """The largest relative error |got - wanted|/|wanted| of the outputs, in the Euclidean norm; infinite where whole
    numbers differ, where a shape does or where something is not finite."""
    worst = 0.0
    for one, truth in zip(got, wanted, strict=True):
        one, truth = to_host(one), np.asarray(truth)
        if one.shape != truth.shape or not np.isfinite(one).all():
            return math.inf
        if truth.dtype.kind in "iu":
            worst = max(worst, 0.0 if np.array_equal(one, truth) else math.inf)
        elif one.size:
            size = float(np.linalg.norm(truth.ravel()))
            off = float(np.linalg.norm(one.ravel().astype(np.float64) - truth.ravel()))
            worst = max(worst, off/size if size else (0.0 if off == 0 else math.inf))
    return worst


def allowed(case, N):
    """The relative error that rounding explains. Each of n summands adds half an EPS of the sum so far, in any direction; a
    tensor core instead cuts off up to one for each of its 8 products, always towards zero (sums here are cut into slices of
    no more than 2^13). To that comes what is lost of the factors: 0.6 of FACTORS on average, and for a few outputs that a
    ReLU has left small up to that of both factors."""
    n = case.terms(N)
    return 2*EPS*math.sqrt(n) + (case.precision != "fp32")*EPS*min(n, 2**13)/8 + 2*FACTORS[case.precision]


# --------------------------------------------------------------------------------------------------------- how fast is it?
def ours(case, sets, clock):
    """The Contestant: the tapes of all sets."""
    tapes = [recorded(case.run, arrays)[1] for arrays in sets]
    return Contestant("ours", lambda: [replay(tape) for tape in tapes], len(sets), None, clock.captured)


def sets_needed(nbytes, l2):
    """Count of sets of arrays that are together twice as large as the last cache."""
    return max(1, min(SETS, -(-2*l2//nbytes)))


def floor(nbytes, flops, bandwidth, rate):
    """{"floor_us": ..., "bound": ...}: no implementation is faster than its bytes at the bandwidth or its FLOPs at the rate."""
    move, multiply = 1e6*nbytes/bandwidth, 1e6*flops/rate
    return {"floor_us": max(move, multiply), "bound": "memory" if move >= multiply else "math"}


def of_products(ceilings, case):
    """TFLOP/s that kernels like ours cannot exceed: three tf32 products make one of fp32x3."""
    if case.wgmma:
        return ceilings["wgmma_tflop_s"]
    return {"fp32": ceilings["fma_tflop_s"], "fp32x3": ceilings["tf32_tflop_s"]/3, "tf32": ceilings["tf32_tflop_s"],
            "bf16": ceilings["bf16_tflop_s"]}[case.precision]


def ceilings(clock, multiprocessors, hopper):
    """Ceilings of this device: a copy within its memory (bytes read and written), from L2 to shared memory, multiply-adds,
    mma.sync, on Hopper wgmma, a matrix product."""
    cupy = clock.cupy
    left, right = (cupy.asarray(Source(np.asarray, k).normal(8192, 8192)) for k in (0, 1))
    a, b = (cupy.resize(numbers, 2**28) for numbers in (left, right))           # 1 GiB each
    copy = lambda: [b.data.copy_from_device_async(a.data, a.nbytes) for _ in range(4)]
    compiled = lambda code, *options: cupy.RawModule(code=in_one_piece(code), options=options)
    fma, steps, blocks = compiled(FMA).get_function("fma_rate"), 2**14, 8*multiprocessors
    y, z = (cupy.empty(blocks*256, np.float32) for _ in range(2))
    multiply = lambda: fma((blocks,), (256,), (y, np.int32(steps)))
    mma = {name: compiled(MMA, f"-DPRODUCT=mma_{name}").get_function("mma_rate") for name in MMA_FLOPS}
    tensor = {name: lambda kernel=kernel: kernel((blocks,), (256,), (z, np.int32(steps))) for name, kernel in mma.items()}
    if hopper:                                             # of two -arch NVRTC takes the first, CuPy adds its own behind
        wgmma = compiled(WGMMA, "-arch=sm_90a").get_function("wgmma_rate")
        tensor["wgmma"] = lambda: wgmma((multiprocessors,), (256,), (z, np.int32(steps)), shared_mem=WGMMA_BYTES)
    read, cached = compiled(READ).get_function("read_rate"), cupy.resize(left, 1024*READ_TILES)
    from_l2 = lambda: read((blocks,), (256,), (z, cached, np.int32(READ_TILES), np.int32(steps//4)))
    product = cupy.empty_like(left)
    matmul = lambda: cupy.matmul(left, right, out=product)
    clock.wait()
    once = {}
    for name, run in {"copy": copy, "l2": from_l2, "fma": multiply, "matmul": matmul, **tensor}.items():
        once[name] = statistics.median([clock.seconds(run) for _ in range(12)][2:])
    if not bool(cupy.isfinite(y).all() and cupy.isfinite(z).all()):
        raise RuntimeError("the multiply-add kernels computed nonsense")
    return {"copy_gb_s": 4*2*a.nbytes/once["copy"]/1e9, "l2_gb_s": 16*z.size*(steps//4)/once["l2"]/1e9,
            "fma_tflop_s": 2*16*steps*y.size/once["fma"]/1e12, "matmul_tflop_s": 2*8192**3/once["matmul"]/1e12,
            **({"wgmma_tflop_s": WGMMA_FLOPS*steps*multiprocessors/once["wgmma"]/1e12} if hopper else {}),
            **{f"{name}_tflop_s": flops*8*steps*(z.size//32)/once[name]/1e12 for name, flops in MMA_FLOPS.items()}}


def still_alive(clock):
    """Return whether the device still works, and give unused memory back: the next case may want other sizes."""
    try:
        clock.wait()
        clock.cupy.get_default_memory_pool().free_all_blocks()
        if peers.torch is not None and peers.torch.cuda.is_available():
            peers.torch.cuda.empty_cache()
        return True
    except Exception:
        return False


# ------------------------------------------------------------------------------------------------------------ the report
def about(cupy, args):
    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    cuda, properties = runtime.runtimeGetVersion(), runtime.getDeviceProperties(device.id)
    return {"device": properties["name"].decode(), "capability": device.compute_capability,
            "multiprocessors": properties["multiProcessorCount"], "l2_bytes": properties["l2CacheSize"],
            "driver": driver(), "cuda": f"{cuda//1000}.{cuda % 1000//10}", "nvrtc": "%d.%d" % nvrtc.version(),
            "cupy": cupy.__version__, "numpy": np.__version__, "python": platform.python_version(), **peers.versions(),
            "commit": commit(), "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "N": args.batch_size,
            "rounds": args.rounds, "steps": [], "cases": []}


def driver():
    """The driver's version as users know it, "580.95"; None where nvidia-smi does not say."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                              text=True, timeout=20, check=True).stdout.split()[0]


def sentence(failure):
    return f"{type(failure).__name__}: {str(failure).strip()}".splitlines()[0]


def line(row):
    if "failed" in row:
        return f"{row['name']:40}{row['failed'][:100]}"
    text = f"{row['name']:40}{row['us']:10.1f}{100*row['share_of_floor']:8.0f}%"
    if "best_peer" in row:
        text += f"{row['peers'][row['best_peer']]['us']:10.1f}{row['ratio']:7.2f}"
    else:
        text += " "*17
    return text + f"  {row['error']:8.1e}  {row.get('best_peer', '')}"
