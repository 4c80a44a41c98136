"""The ladder of conv2d (kernels/conv2d.cu): one convolution of ZFNet, conv4 on its way up, by each step that made it faster,
beside the rate that no kernel of that kind exceeds. Its rows are measured by `python -m bench --only ladder`; python -m bench
resources writes the table into kernels/README.md, with what the model predicts (zfcore/ops/model.py) until there is a
measurement."""
from dataclasses import dataclass


from bench.cases import Case, bytes_of, elements, on, stored
from zfcore.backend import empty, runs_kernels
from zfcore.files import read_json
from zfcore.kernel import blocks
from zfcore.models.zfnet import zfnet
from zfcore.ops import conv2d_kernels, model, tuning
from zfcore.ops.conv2d import conv2d

LAYER, N = "conv4", 128
PEAKS = {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4}       # TFLOP/s of a H100 or H200 without sparsity, by its data sheet


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: what is new, the precision of its products, the kernel that takes it."""
    what: str
    precision: str
    kernel: object

    def launch(self, x, w, b, y, S, P):
        """y = the convolution of x and w, without bias."""
        sizes = conv2d_kernels.sizes(x, w, y, S, P, 1)
        if self.kernel.arch:
            return conv2d_kernels.launch_wgmma_forward(x, w, None, y, S, P, 1, False, kernel=self.kernel)
        if "BM" not in self.kernel.defines:
            return self.kernel(blocks(y.size, self.kernel.block), x, w, b, y, sizes, False, False)
        tiles = blocks(len(y), self.kernel.defines["BM"])*blocks(y[0].size, self.kernel.defines["BN"])
        return self.kernel((tiles, 1, 1), x, w, b, y, sizes, False, False)


def rungs():
    """Every Rung, from the ground up, of filters and images in whole tiles."""
    fp32, tf32, bf16 = (conv2d_kernels.FORWARD_KERNELS[precision][0] for precision in ("fp32", "tf32", "bf16"))
    return [Rung("a thread a number", "fp32", conv2d_kernels.PLAIN),
            Rung("tiles in shared memory", "fp32", fp32.variant(STAGES=1)),
            Rung("copied while others are multiplied", "fp32", fp32),
            Rung("mma.sync", "tf32", tf32),
            Rung("stored in bf16", "bf16", bf16),
            Rung("TMA and wgmma", "bf16", conv2d_kernels.WGMMA_FORWARD["uint16"][0])]


def cases(network=None):
    """A Case for every rung."""
    network = network or zfnet()
    place = network.index(LAYER)
    layer, shape, out = network.layers[place], network.shapes[place], network.shapes[place + 1]
    return [case(k + 1, rung, layer, shape, out) for k, rung in enumerate(rungs())]


def case(number, rung, layer, shape, out):
    K, S, P = layer.window()
    w_shape, size = layer.parameter_shapes(shape)["w"], bytes_of(rung.precision)
    taps = elements(w_shape[:3])

    def draw(source, N):
        return source.outputs(*shape, N), source.normal(*w_shape, scale=(2/taps)**0.5), source.normal(layer.F)

    def run(x, w, b):
        if not runs_kernels(x):
            return conv2d(x, w, None, S, P, layer.groups, layer.rounding, precision=on(x, rung.precision))[0],
        y = empty((*out, x.shape[-1]), x.dtype, like=x)
        rung.launch(x, w, b, y, S, P)
        return y,

    return Case("conv2d", layer.name, f"ladder {number}, {rung.what}", stored(draw, rung.precision, 0, 1), run,
                lambda N: size*(elements(w_shape) + N*elements(shape, out)), lambda N: 2*layer.multiply_adds(shape)*N,
                lambda N: taps, (0,), (K, S, P, *shape[1:]), rung.precision, bool(rung.kernel.arch))


def predicted(rung):
    """TFLOP/s of a rung as the model has it; None of kernels that are made of no tiles."""
    network, kernel = zfnet(), rung.kernel
    place = network.index(LAYER)
    layer, shape, (F, Ho, Wo) = network.layers[place], network.shapes[place], network.shapes[place + 1]
    if not kernel.arch and model.words(kernel) not in model.loops():
        return None
    _, _, terms = model.sizes(kernel)
    count, steps = model.tiles(kernel, F, Ho*Wo*N), blocks(elements(layer.parameter_shapes(shape)["w"][:3]), terms)
    seconds = model.seconds(kernel, count, steps, model.tile_bytes(kernel, F, Ho*Wo*N), tuning.SHIPPED)
    return 2*layer.multiply_adds(shape)*N/seconds/1e12


def measured(results):
    """{name of a case: TFLOP/s} from the newest file of a Hopper GPU in the folder `results`."""
    found = {}
    for path in sorted(results.glob("nvidia-h*.json"), key=lambda path: path.stem[-10:]):
        report = read_json(path)
        found |= {row["name"]: row["flops"]/row["us"]/1e6 for row in report["cases"] if "ladder" in row["name"] and "us" in row}
    return found


def table(results):
    """The lines of the table of kernels/README.md."""
    times = measured(results)
    lines = ["| step | what is new | precision | peak, TFLOP/s | predicted share of it | measured |",
             "|--:|---|---|--:|--:|--:|"]
    for k, (rung, of) in enumerate(zip(rungs(), cases())):
        peak, expected, found = PEAKS[rung.precision], predicted(rung), times.get(of.name)
        expected = "not modelled" if expected is None else f"{expected/peak:.0%}"
        found = "not yet" if found is None else f"{found/peak:.0%}"
        lines.append(f"| {k + 1} | {rung.what} | {rung.precision} | {peak:.0f} | {expected} | {found} |")
    return "\n".join(lines)
