"""Runs the kernels of probe.cu in the executor or on a GPU.

    python -m tests.executor.probe                      # here; prints a checksum per probe
    python -m tests.executor.probe gpu [FILE]           # on a GPU through CuPy; writes FILE (tests/executor/hardware.npz)

test_ptx.py holds the executor's answers to formulas, and to that file where it exists. A GPU before Hopper answers the
probes it can; needs CuPy and NumPy, no g++."""
import ctypes
import sys
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.executor import emu
from zfcore.cubin import in_one_piece

SOURCE = Path(__file__).with_name("probe.cu")
HARDWARE = Path(__file__).with_name("hardware.npz")


@dataclass(frozen=True)
class Probe:
    kernel: str
    values: list                      # the arguments but for y, the second one
    shape: tuple                      # of y
    dtype: type = np.uint32           # of y
    block: int = 32
    shared: int = 0
    hopper: bool = False
    defines: dict = field(default_factory=dict)
    grid: tuple = (1,)

    def arguments(self):
        y = np.full(self.shape, 255, np.uint8 if self.dtype is np.uint8 else self.dtype)
        return [self.values[0], y, *(np.int32(v) for v in self.values[1:])]

    def all_defines(self):
        return {**({"HOPPER": 1} if self.hopper else {}), **self.defines}


def small(rng, *shape):
    """Integers -4..4 as float32: exact in bf16 and tf32, and so are their sums of products."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def bf16_bits(x):
    """float32 -> bf16 by dropping the low half; exact for small integers."""
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def conversions():
    rng = np.random.default_rng(1)
    halfway = np.float32(1) + np.float32(2.0)**-np.arange(6, 15, dtype=np.float32)
    bits = np.array([0, 1 << 31, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 1, 0x00012345, 0x007fffff,
                     0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0x3f801000, 0x3f803000, 0x3f800fff], np.uint32)
    return np.concatenate([bits.view(np.float32), halfway, -halfway, rng.standard_normal(100, np.float32)])


def registers(rng, half):
    a, b, d = small(rng, 4, 32, 2), small(rng, 2, 32, 2), small(rng, 4, 32)
    ab = np.concatenate([a, b])                                               # (6,32,2)
    if half:
        words = bf16_bits(ab).astype(np.uint32)
        words = words[..., 0] | words[..., 1] << 16
    else:
        words = np.ascontiguousarray(ab[..., 0]).view(np.uint32)
    return np.concatenate([words, d.view(np.uint32)])                          # (10,32)


def tile(array, rank, words, at, **how):
    at = [*at, *[0]*(5 - len(at))] if rank else [*at[:4], 0, *at[4:]]
    values = [emu.TensorMap(array, **how), words, *at, *[0]*(7 - len(at))]
    return Probe("tile", values, (words,), shared=words*4 + 8, hopper=True, defines={"RANK": rank})


def multicast(array, mask0, mask1):
    """Of the array, rows of 64 uint16, each of two blocks loads half, into the blocks of its mask."""
    rows, words = array.shape[0]//2, array.size//2
    box = emu.TensorMap(array.reshape(1, 1, 1, *array.shape), (64, rows, 1, 1, 1), swizzle=True)
    return Probe("multicast", [box, words, rows, mask0, mask1], (2, words + 1), block=128, shared=words*4 + 16, hopper=True,
                 grid=(2,))


def warpgroup(seed, n, a_mn=False, b_mn=False, tf32=False, K=64):
    """K of bf16, by operands along whose rows of 128 bytes it runs always 64; 32 of tf32."""
    rng = np.random.default_rng(seed)
    words = small(rng, (64 + n)*32) if tf32 else bf16_bits(small(rng, (64 + n)*K))
    words = words.view(np.uint32)
    defines = {"WIDTH": n, "A_IS_MN": str(a_mn).lower(), "B_IS_MN": str(b_mn).lower(), **({"TF32": 1} if tf32 else {})}
    return Probe("warpgroup", [words, words.size, 128*K, K//16, 128*K], (n//2, 128), np.float32, 128, words.size*4, True, defines)


def probes():
    """name -> Probe, what kernels use before what none does; the same inputs on every machine."""
    rng = np.random.default_rng(0)
    x = conversions()
    images = rng.integers(1, 60000, (3, 7, 6, 64)).astype(np.uint16)            # (N,H,W,C)
    words = rng.integers(1, 2**32, (5, 3, 6, 7, 8), np.uint32)
    return {
        "conversions": Probe("conversions", [x, x.size], (4*x.size,)),
        "signs of bytes": Probe("bytes", [rng.integers(0, 2**32, 32, np.uint32)], (4*32,)),
        "named barriers": Probe("by_named_barriers", [np.arange(100, 140, dtype=np.uint32), 9], (9*32,), block=64),
        "mbarriers": Probe("by_mbarriers", [np.arange(200, 240, dtype=np.uint32), 9], (9*32,), block=64, hopper=True),
        "shuffles": Probe("shuffles", [rng.integers(0, 2**32, 32, np.uint32)], (6*32,)),
        "cp.async": Probe("copies", [rng.integers(1, 2**32, 224, np.uint32)], (224,)),
        "ldmatrix": Probe("fragments", [rng.integers(0, 2**32, 128, np.uint32)], (14*32,)),
        "mma tf32": Probe("product_tf32", [registers(rng, False)], (4, 32), np.float32),
        "mma bf16": Probe("product_bf16", [registers(rng, True)], (4, 32), np.float32),
        "tma 2d": tile(words.reshape(-1, 56), 2, 20*9, (-3, 25), box=(20, 9)),
        "tma 2d swizzled": tile(images.reshape(-1, 64), 2, 32*20, (0, 113), box=(64, 20), swizzle=True),
        "tma 3d": tile(words.reshape(15, 42, 8), 3, 8*5*3, (4, -2, 13), box=(8, 5, 3)),
        "tma 4d": tile(words.reshape(15, 6, 7, 8), 4, 4*3*2*2, (2, 5, -1, 12), box=(4, 3, 2, 2)),
        "tma 5d": tile(words, 5, 4*2*2*2*2, (6, -1, 3, 1, 2), box=(4, 2, 2, 2, 2)),
        "tma multicast": multicast(images.reshape(-1, 64)[:48], 3, 3),
        "tma multicast, each to the other": multicast(images.reshape(-1, 64)[48:80], 2, 1),
        "tma multicast, one to both, one to nobody": multicast(images.reshape(-1, 64)[:32], 0, 3),
        **{f"wgmma bf16 n={n}": warpgroup(n, n) for n in (64, 96, 128, 192, 256)},
        "wgmma bf16 b mn-major": warpgroup(1, 128, b_mn=True),
        "wgmma bf16 a mn-major": warpgroup(2, 64, a_mn=True),
        "wgmma bf16 both mn-major": warpgroup(3, 128, a_mn=True, b_mn=True),
        "wgmma bf16 b mn-major n=256": warpgroup(5, 256, b_mn=True),
        "wgmma bf16 both mn-major n=192 k=48": warpgroup(6, 192, a_mn=True, b_mn=True, K=48),
        "fence.proxy": replace(warpgroup(4, 64), kernel="rewritten",
                               values=[bf16_bits(small(rng, 128*64)).view(np.uint32), 64*64, 3]),
        "setmaxnreg": Probe("registers", [small(rng, 180)], (384,), np.float32, 384, hopper=True),
        **{f"wgmma tf32 n={n}": warpgroup(n, n, tf32=True) for n in (64, 96, 128, 192, 256)},
        "tma im2col": tile(images, 0, 16*30, (32, 1, 2, 0, 2, 1),
                           channels=32, pixels=30, lower=(-1, -1), upper=(-1, -1)),
        "tma im2col stride 2": tile(images, 0, 32*21, (0, -1, 3, 0, 1, 2), channels=64, pixels=21,
                                    lower=(-1, -1), upper=(-2, -1), steps=(1, 2, 2, 1), swizzle=True),
    }


# --------------------------------------------------------------------------------------------------- in the executor
def run_here(probe, settings=emu.Settings()):
    defines, values = tuple(probe.all_defines().items()), probe.arguments()
    names = ["x", "y", *(f"argument {k}" for k in range(2, len(values)))]
    library = emu.compile(SOURCE.read_text(), SOURCE.name, probe.kernel, defines, settings.build)
    library.launch(probe.grid, probe.block, probe.shared, values, names, {"y"}, settings)
    return values[1]


# -------------------------------------------------------------------------------------------------------- on a GPU
def encoded(tensor_map, address):
    """The CUtensorMap of a TensorMap over device memory, made by the driver."""
    driver = ctypes.CDLL("libcuda.so.1")
    array, rank = tensor_map.array, tensor_map.array.ndim
    types = {("u", 1): 0, ("u", 2): 1, ("u", 4): 2, ("f", 4): 7}
    raw = np.zeros(192, np.uint8)
    raw = raw[-raw.ctypes.data % 64:][:128]

    def numbers(kind, values):
        return (kind*len(values))(*values)

    common = [ctypes.c_void_p(raw.ctypes.data), types[array.dtype.kind, array.itemsize], rank, ctypes.c_void_p(address),
              numbers(ctypes.c_uint64, array.shape[::-1]), numbers(ctypes.c_uint64, array.strides[-2::-1])]
    steps, layout = numbers(ctypes.c_uint32, (tensor_map.steps + (1,))[:rank]), [0, 3 if tensor_map.swizzle else 0, 0, 0]
    if tensor_map.box:
        status = driver.cuTensorMapEncodeTiled(*common, numbers(ctypes.c_uint32, tensor_map.box), steps, *layout)
    else:
        corners = [numbers(ctypes.c_int, corner) for corner in (tensor_map.lower, tensor_map.upper)]
        status = driver.cuTensorMapEncodeIm2col(*common, *corners, tensor_map.channels, tensor_map.pixels, steps, *layout)
    if status:
        raise RuntimeError(f"the driver refuses a tensor map, error {status}")
    return raw.view("V128")


def translation(probe, arch):
    """(source in one piece, options) of NVRTC."""
    return (in_one_piece(SOURCE.read_text()),
            (f"-arch={arch}", *(f"-D{key}={value}" for key, value in probe.all_defines().items())))


def run_on_gpu(probe, cupy, arch):
    source, options = translation(probe, arch)
    kernel = cupy.RawModule(code=source, options=options).get_function(probe.kernel)
    kernel.max_dynamic_shared_size_bytes = max(probe.shared, 1024)
    keep, values = [], []
    for value in probe.arguments():
        host = value.array if isinstance(value, emu.TensorMap) else value
        if isinstance(host, np.ndarray):
            keep.append(cupy.asarray(host))
            values.append(encoded(value, keep[-1].data.ptr) if isinstance(value, emu.TensorMap) else keep[-1])
        else:
            values.append(value)
    kernel(probe.grid, (probe.block,), tuple(values), shared_mem=probe.shared)
    cupy.cuda.Device().synchronize()
    return cupy.asnumpy(values[1])


def main(arguments):
    if arguments[:1] != ["gpu"]:
        for name, probe in probes().items():
            print(f"{name:28}{zlib.crc32(run_here(probe).tobytes()):08x}")
        return
    import cupy
    major, minor = map(int, divmod(int(cupy.cuda.Device().compute_capability), 10))
    arch = f"sm_{major}{minor}" + "a"*(major == 9)
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    path, answers = Path(arguments[1]) if arguments[1:] else HARDWARE, {}
    for name, probe in probes().items():
        if major == 9 or not probe.hopper:
            print(name, flush=True)
            answers[name] = run_on_gpu(probe, cupy, arch)
            np.savez_compressed(path, device=device, **answers)            # after each, as the next one may never end
    print(f"{len(answers)} probes on {device} -> {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
