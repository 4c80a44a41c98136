"""What the executor's primitives compute, held to formulas written anew from the text of the PTX ISA, and to the answers of
a GPU where tests/executor/hardware.npz holds them."""
import re

import numpy as np
import pytest

from tests.executor import KernelError, emu, requires_executor
from tests.executor.probe import HARDWARE, SOURCE, probes, run_here
from zfcore.cubin import kernels_folder

pytestmark = requires_executor
PROBES, PRIMITIVES = probes(), kernels_folder()/"device"/"ptx.cuh"
LANES = np.arange(32)


def nearest(x, low_bits, ties_to_even):
    """float32 -> bits of the nearest float with that many low bits zero, found by comparing the two neighbours."""
    out = []
    for bits in np.asarray(x, np.float32).view(np.uint32).tolist():
        sign, magnitude = bits & 0x80000000, bits & 0x7fffffff
        if magnitude >= 0x7f800000:
            out.append(bits if magnitude == 0x7f800000 else 0x7fffffff)
            continue
        below = magnitude >> low_bits << low_bits
        rest, half = magnitude - below, 1 << (low_bits - 1)
        up = rest > half or (rest == half and (not ties_to_even or below >> low_bits & 1))
        out.append(sign | (below + (up << low_bits)))
    return np.array(out, np.uint32)


def conversions(x, total):
    bf16, truncated = nearest(x, 16, True) >> 16, x.view(np.uint32) >> 16
    return np.concatenate([bf16, bf16 | np.roll(bf16, -1) << 16, nearest(x, 13, True), truncated << 16])


def signs_of_bytes(x):
    signs = np.where(x.view(np.int8).reshape(32, 4) < 0, 0xffff, 0).astype(np.uint32)              # the lowest byte first
    return np.concatenate([x ^ pair for pair in (*(signs[:, k] | signs[:, k + 1] << 16 for k in range(3)), 0x7f800000)])


def handed_on(x, rounds):
    return np.concatenate([x[k:k + 32][::-1] for k in range(rounds)])


def shuffles(x):
    def pick(source, inside):                                    # a source beyond the segment: the lane's own value
        return x[np.where(inside, source, LANES)]
    segment8, segment16 = LANES//8*8, LANES//16*16
    ballot = np.sum((x & 1) << LANES.astype(np.uint32), dtype=np.uint32)
    return np.concatenate([
        x[segment16 + (3*LANES + 1) % 16], pick(LANES - 3, LANES - 3 >= segment8),
        pick(LANES + 5, LANES + 5 < segment16 + 16),
        pick(LANES ^ 9, LANES ^ 9 < segment8 + 8), x[LANES ^ 21], np.full(32, ballot)])


def copies(x):
    x = x.copy()
    x[:32][LANES % 3 == 0] = 0
    x[32:96].reshape(32, 2)[LANES % 3 == 1] = 0
    x[96:].reshape(32, 4)[LANES % 3 == 2] = 0
    return x


def ldmatrix(x):
    rows = x.view(np.uint16).reshape(32, 8)[5*LANES % 32]        # in the order of the lanes that name them
    matrices = rows.reshape(4, 8, 8)
    out = []
    for turned in (matrices, matrices.transpose(0, 2, 1)):
        pairs = np.ascontiguousarray(turned).view(np.uint32).reshape(4, 32)          # lane 4*row + pair
        out += [pairs[:1], pairs[:2], pairs]
    return np.concatenate(out).ravel()


def mma(words, half):
    """Row and column of each element as PTX ISA lists them for .tf32 m16n8k8 and .bf16 m16n8k16, element number i."""
    K = 16 if half else 8
    a, b, d = np.zeros((16, K)), np.zeros((K, 8)), np.zeros((16, 8))
    values = words[:6, :, None]                                  # (6,32,1); two numbers a word where half
    values = ((values.view(np.uint16).astype(np.uint32) << 16) if half else values).view(np.float32)
    y = np.zeros((4, 32), np.float32)
    for lane in range(32):
        group, member = lane >> 2, lane % 4
        for i, v in enumerate(values[:4, lane].ravel()):
            if half:
                a[group + (0 if i < 2 or 4 <= i < 6 else 8), member*2 + (i & 1) + (8 if i >= 4 else 0)] = v
            else:
                a[group + (0 if i in (0, 2) else 8), member + (0 if i < 2 else 4)] = v
        for i, v in enumerate(values[4:, lane].ravel()):
            b[(member*2 + (i & 1) + (8 if i >= 2 else 0)) if half else member + 4*i, group] = v
        for i in range(4):
            d[group + (0 if i < 2 else 8), member*2 + (i & 1)] = words[6 + i, lane].view(np.float32)
    d += a @ b
    for lane in range(32):
        for i in range(4):
            y[i, lane] = d[(lane >> 2) + (0 if i < 2 else 8), lane % 4*2 + (i & 1)]
    return y


def swizzled(rows):
    """Rows of 128 bytes -> the same with the 16-byte chunk c of row r at place c XOR r mod 8."""
    chunks = rows.view(np.uint8).reshape(-1, 8, 16)
    r, c = np.indices(chunks.shape[:2])
    out = np.empty_like(chunks)
    out[r, c ^ (r % 8)] = chunks
    return out


def tile(tensor_map, words, *at):
    x = tensor_map.array
    if tensor_map.box:
        box, at = tensor_map.box[::-1], at[:x.ndim][::-1]        # outermost axis first
        padded = np.pad(x, [(b, b + n) for b, n in zip(box, x.shape)])
        out = padded[tuple(slice(a + b, a + 2*b) for a, b in zip(at, box))]
    else:
        c, w, h, n, _, offset_w, offset_h = at
        (N, H, W, _), (_, step_w, step_h, _), far = x.shape, tensor_map.steps, 10
        walk = [(i, j, k) for i in range(N + far)
                for j in range(tensor_map.lower[1], H + tensor_map.upper[1], step_h)
                for k in range(tensor_map.lower[0], W + tensor_map.upper[0], step_w)]
        start = walk.index((n, h, w))
        padded = np.pad(x, [(far, 2*far), (far, far), (far, far), (0, 0)])
        out = np.array([padded[i + far, j + offset_h + far, k + offset_w + far, c:c + tensor_map.channels]
                        for i, j, k in walk[start:start + tensor_map.pixels]])
    out = np.ascontiguousarray(out)
    return (swizzled(out) if tensor_map.swizzle else out).reshape(-1).view(np.uint32)


def multicast(tensor_map, words, rows, *masks):
    """Numbers 0, 1, ... where nothing came, then the block's number."""
    x, out = tensor_map.array.reshape(2, rows, 64), np.empty((2, words + 1), np.uint32)
    for rank in 0, 1:
        halves = [swizzled(x[by]).reshape(-1).view(np.uint32) if masks[by] >> rank & 1 else np.arange(words//2) + by*words//2
                  for by in (0, 1)]
        out[rank] = [*np.concatenate(halves), rank]
    return out


def warpgroup(words, size, b_at, steps, leading, defines):
    """Operands in 1024-byte atoms of 8 rows, their 16-byte chunks swizzled; K-major: a row is an m or n; MN-major: a k."""
    tf32, n = "TF32" in defines, defines["WIDTH"]
    item, K = (4, 8) if tf32 else (2, 16)
    raw = words.view(np.uint8)

    def operand(start, extent, mn_major):
        out = np.zeros((extent, K*steps))
        for i, k in np.ndindex(out.shape):
            if mn_major:
                step, row, column = k//K, k % K, i
                at = start + 2048*step + (column//64)*leading + row//8*1024 + row % 8*128
                chunk, byte = divmod(column % 64*item, 16)
                at += (chunk ^ (row % 8))*16 + byte
            else:
                chunk, byte = divmod(k*item, 16)
                at = start + i//8*1024 + i % 8*128 + (chunk ^ (i % 8))*16 + byte
            bits = raw[at:at + item].view(f"u{item}")[0]
            out[i, k] = np.uint32(int(bits) << (32 - 8*item)).view(np.float32)
        return out

    a, b = operand(0, 64, defines["A_IS_MN"] == "true"), operand(b_at, n, defines["B_IS_MN"] == "true")
    d = 1000 + a @ b.T                                           # (64,n)
    y = np.zeros((n//2, 128), np.float32)
    for i, t in np.ndindex(y.shape):
        y[i, t] = d[16*(t//32) + (t % 32)//4 + 8*((i//2) % 2), 8*(i//4) + 2*(t % 4) + i % 2]
    return y


def rewritten(words, size, rounds):
    """The products of all rounds, each of the words as they were written before it."""
    defines = {"WIDTH": 64, "A_IS_MN": "false", "B_IS_MN": "false"}
    return 1000 + sum(warpgroup(np.roll(words, -37*k), size, 8192, 4, 8192, defines) - 1000 for k in range(rounds))


def registers(x):
    held = x[:, None] + np.arange(256, dtype=np.float32)
    for k in 3*list(range(len(x))):
        held[k] += held[(k + 7) % len(x)]
    return np.concatenate([(np.arange(len(x))[:, None] % 3*held).sum(0), x[np.arange(256, 384) % len(x)]]).astype(np.float32)


FORMULAS = {"multicast": multicast, "rewritten": rewritten, "registers": registers, "conversions": conversions,
            "bytes": signs_of_bytes, "by_named_barriers": handed_on, "by_mbarriers": handed_on,
            "shuffles": shuffles, "copies": copies, "fragments": ldmatrix, "tile": tile,
            "product_tf32": lambda x: mma(x, False), "product_bf16": lambda x: mma(x, True)}


@pytest.mark.parametrize("name", PROBES)
def test_primitive_equals_the_formula(name):
    probe = PROBES[name]
    wide = probe.kernel == "warpgroup"
    expected = warpgroup(*probe.values, probe.defines) if wide else FORMULAS[probe.kernel](*probe.values)
    got = run_here(probe)
    if name == "conversions":                                    # the one bf16 NaN is 0x7fff, as PTX says of cvt
        assert np.isnan(probe.values[0]).sum() == 1
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_each_primitive_has_a_probe():
    primitives = re.findall(r"^(?:template <.*> )?PTX_INLINE [\w ]*?(\w+)\(", PRIMITIVES.read_text(), re.MULTILINE)
    assert len(primitives) > 30
    probed = SOURCE.read_text() + "shared_address"                                  # which the others are made of
    assert [name for name in primitives if not re.search(rf"\b{name}\b", probed)] == []


def test_the_probes_can_tell_layouts_apart():
    """A formula that ignored the layout would need inputs without structure: every probe's output must vary."""
    for name, probe in PROBES.items():
        assert len(np.unique(run_here(probe))) > 10, name


@pytest.mark.skipif(not HARDWARE.exists(), reason="no answers of a GPU yet: python -m tests.executor.probe gpu")
@pytest.mark.parametrize("name", PROBES)
def test_primitive_equals_the_hardware(name):
    with np.load(HARDWARE) as answers:
        if name not in answers:
            pytest.skip(f"{answers['device']} does not have it")
        np.testing.assert_array_equal(run_here(PROBES[name]).view(np.uint32), answers[name].view(np.uint32))


@pytest.mark.parametrize("change, sentence", [
    (dict(box=(60, 4), swizzle=True), "whole 16 bytes"),
    (dict(box=(32, 4), swizzle=True), "not emulated"),
    (dict(box=(64, 300)), "at most 256"),
    (dict(box=(64, 4), steps=(1, 2)), "not emulated"),
])
def test_tensor_map_that_is_not_emulated_is_refused(change, sentence):
    with pytest.raises(KernelError, match=sentence):
        emu.TensorMap(np.zeros((50, 64), np.uint16), **change).packed()


@pytest.mark.parametrize("bit, sentence", [
    (62, "without 128-byte swizzle"), (63, "without 128-byte swizzle"), (49, "inside the swizzle"), (14, "reserved")])
def test_descriptor_that_is_not_emulated_is_refused(bit, sentence):
    text = f"""#include <ptx.cuh>
extern "C" __global__ void f(float *y)
{{
    DYN_SHARED(raw);
    float d[32];
    wgmma_fence();
    wgmma_bf16(d, wgmma_k_major(raw) ^ 1ull << {bit}, wgmma_k_major(raw), false);
    wgmma_commit();
    wgmma_wait<0>();
    y[threadIdx.x] = d[0];
}}"""
    with pytest.raises(KernelError, match=f"f.cu:7: .*{sentence}"):
        emu.compile(text, "f.cu", "f").launch((1,), 128, 8192, [np.zeros(128, np.float32)], ["y"], {"y"})


@pytest.mark.parametrize("extreme", ["lazy", "eager"])
def test_asynchronous_results_are_undefined_until_the_wait_or_there_at_once(extreme):
    text = """#include <ptx.cuh>
extern "C" __global__ void f(const float *x, float *y)
{
    DYN_SHARED(raw);
    float *shared = (float *)raw + 4096, d[32] = {};
    for (int i = threadIdx.x; i < 4096; i += 128) ((unsigned *)raw)[i] = 0x3f803f80;          // bf16 ones
    shared[threadIdx.x] = 5;
    __syncthreads();
    cp_async4(&shared[threadIdx.x], &x[threadIdx.x]);
    cp_async_commit();
    y[threadIdx.x] = shared[threadIdx.x];
    cp_async_wait<0>();
    y[128 + threadIdx.x] = shared[threadIdx.x];
    wgmma_fence();
    wgmma_bf16(d, wgmma_k_major(raw), wgmma_k_major(raw + 8192), true);
    wgmma_bf16(d, wgmma_k_major(raw), wgmma_k_major(raw + 8192), true);
    wgmma_commit();
    y[256 + threadIdx.x] = d[7];
    wgmma_wait<0>();
    y[384 + threadIdx.x] = d[7];
}"""
    x, y = np.full(128, 3, np.float32), np.zeros((4, 128), np.float32)
    settings = emu.Settings(copies=extreme, wgmma=extreme)
    emu.compile(text, "f.cu", "f").launch((1,), 128, 5*4096, [x, y], ["x", "y"], {"y"}, settings)
    early = [np.nan, np.nan] if extreme == "lazy" else [3, 32]
    np.testing.assert_array_equal(y, np.repeat(np.float32([[early[0]], [3], [early[1]], [32]]), 128, axis=1))
