"""The kernels of samples.cu with one line broken: each must be caught, in the ways and with the words stated here."""
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.executor import ASYNC_WAYS, KernelError, requires_executor
from tests.executor.samples import SAMPLES, part

pytestmark = requires_executor
WRONG = "wrong numbers"               # the launch ends, the output differs or is NaN
CAUGHT = ""                           # wrong numbers, or whatever the executor says first


@dataclass(frozen=True)
class Broken:
    defect: str
    old: str                          # this text, the only one of its kind in the kernel, ...
    new: str                          # ... becomes this
    says: str                         # a regular expression, WRONG or CAUGHT
    ways: str                         # in which it is caught
    at: str = ""                      # the line with this text must be named


BROKEN = {
    "matmul": [
        Broken("barrier after the loads missing",
               "__syncthreads(); // the tile is there", "", WRONG, "forward reverse random"),
        Broken("barrier after the loads missing, in the race build",
               "__syncthreads(); // the tile is there", "", "race in static shared memory", "race"),
        Broken("barrier before the next loads missing",
               "__syncthreads(); // the tile may go", "", WRONG, "forward random"),
        Broken("barrier before the next loads missing, in the race build",
               "__syncthreads(); // the tile may go", "", "race in static shared memory", "race"),
        Broken("no test of m < M in a load",
               "m < M && k0 + column < K ?", "k0 + column < K ?",
               "read outside 'a'", "forward race", "as[row][column] ="),
        Broken("no test of the K tail of a",
               "m < M && k0 + column < K ?", "m < M ?", "read outside 'a'", "forward race", "as[row][column] ="),
        Broken("no test of n < N in a load",
               "n < N && k0 + row < K ?", "k0 + row < K ?", "read outside 'b'", "forward race", "bs[row][column] ="),
        Broken("no test of the K tail of b",
               "n < N && k0 + row < K ?", "n < N ?", "read outside 'b'", "forward race", "bs[row][column] ="),
        Broken("no test of m < M in the store",
               "if (m < M && n < N) y", "if (n < N) y", "write outside 'y'", "forward race", "= sum;"),
        Broken("no test of n < N in the store",
               "if (m < M && n < N) y", "if (m < M) y", "race in y", "race", "= sum;"),
        Broken("blocks all write the first tile",
               "y[(long long)m * N + n] = sum", "y[row * N + min(column, N - 1)] = sum",
               "race in y .* another block", "race", "= sum;"),
        Broken("row and column exchanged in shared memory",
               "bs[row][column] =", "bs[column][row] =", WRONG, "forward"),
        Broken("shared array one row short",
               "bs[16][17]", "bs[15][17]", r"index 15 is out of bounds of 'float ?\[15\]", "bounds"),
        Broken("reads an element nobody wrote", "as[row][k] *", "as[row][k + 1] *", WRONG, "forward"),
        Broken("uninitialised accumulator",
               "float sum = 0;\n    for (int k0", "float sum;\n    for (int k0", WRONG, "forward"),
        Broken("barrier in a divergent branch",
               "__syncthreads(); // the tile is there", "if (k0 + row < K) __syncthreads();",
               "divergent barrier|thread has returned", "forward reverse random skewed"),
        Broken("threads leave before a barrier",
               "float sum = 0;\n    for (int k0", "float sum = 0;\n    if (m >= M) return;\n    for (int k0",
               "__syncthreads .*returned", "forward reverse random skewed", "__syncthreads(); // the tile is there"),
        Broken("shift wider than the type",
               "float sum = 0;\n    for (int k0", "float sum = 0;\n    M += M << (N + 12) == 7;\n    for (int k0",
               "shift by 33", "bounds"),
        Broken("signed overflow in an index",
               "float sum = 0;\n    for (int k0", "float sum = 0;\n    M += M * (N << 24) == 7;\n    for (int k0",
               "overflow", "bounds"),
        Broken("integer division by zero",
               "float sum = 0;\n    for (int k0", "float sum = 0;\n    M += K / (K - 43);\n    for (int k0",
               "division by zero", "forward bounds"),
        Broken("waits for a flag in a loop",
               "float sum = 0;\n    for (int k0",
               "float sum = 0;\n    while (*(volatile float *)y != 1);\n    for (int k0",
               "still running after", "forward", "while ("),
        Broken("writes through a const pointer",
               "y[(long long)m * N + n] = sum", "const_cast<float *>(a)[0] = sum", "'a', which is const", "forward"),
        Broken("a quarter megabyte of local variables",
               "float sum = 0;\n    for (int k0",
               "float sum = 0, many[1 << 16];\n    for (int i = 0; i < 1 << 16; i++) many[i] = i * M;\n"
               "    N += many[M * N] == 7;\n    for (int k0",
               "128 KiB of local variables", "forward"),
    ],
    "row_sums": [
        Broken("barrier between warps missing", "__syncthreads(); // part is there", "", WRONG, "forward"),
        Broken("barrier between warps missing, in the race build",
               "__syncthreads(); // part is there", "", "race in dynamic shared memory", "race"),
        Broken("shuffle mask without its own lane",
               "__shfl_down_sync(0xffffffff", "__shfl_down_sync(0x0000ffff",
               "lane .* own mask 0000ffff", "forward random", "__shfl_down_sync("),
        Broken("one lane has returned before a shuffle",
               "float sum = 0;", "float sum = 0; if (threadIdx.x == 127) return;",
               "__shfl_down_sync waits for lanes 80000000, which have returned", "reverse"),
        Broken("one lane returns while others shuffle",
               "float sum = 0;", "float sum = 0; if (threadIdx.x == 127) return;",
               "__shfl_down_sync waits for lanes ffffffff, but lane 31 has returned", "forward"),
        Broken("one lane stays away from a shuffle",
               "for (int k = 16; k > 0; k /= 2) sum +=",
               "for (int k = 16; k > 0; k /= 2) if (threadIdx.x != 37) sum +=",
               "deadlock, nothing can run; .*thread 37..37 waits in __syncthreads at samples.cu",
               "forward reverse random skewed"),
        Broken("lanes in different shuffles",
               "__shfl_down_sync(0xffffffff, sum, k)",
               "(threadIdx.x & 1 ? __shfl_down_sync(0xffffffff, sum, k) : __shfl_xor_sync(0xffffffff, sum, k))",
               "divergent warp", "forward skewed", "__shfl_down_sync("),
        Broken("writes past dynamic shared memory",
               "part[threadIdx.x / 32] = sum", "part[threadIdx.x / 32 + 1] = sum",
               "outside dynamic shared memory: byte offset 16 of 16", "race", "part[threadIdx.x / 32 + 1] ="),
        Broken("reads past dynamic shared memory and ignores it",
               "threadIdx.x < 4 ?", "threadIdx.x < 5 ?",
               "outside dynamic shared memory: byte offset 16 of 16", "race", "threadIdx.x < 5 ?"),
        Broken("far outside dynamic shared memory",
               "part[threadIdx.x / 32] = sum", "part[threadIdx.x / 32 * 512] = sum",
               "outside dynamic shared memory: byte offset 2048 of 16", "forward", "* 512"),
    ],
    "reverse_runs": [
        Broken("__syncwarp missing", "__syncwarp();", "", WRONG, "forward"),
        Broken("__syncwarp missing, in the race build", "__syncwarp();", "", "race in static shared memory", "race"),
        Broken("__syncwarp of half the lanes that share",
               "__syncwarp();", "__syncwarp(lane < 16 ? 0xffff : 0xffff0000);",
               "race in static shared memory", "race"),
        Broken("shared stride that misaligns float4",
               "turned[2][32]", "turned[2][33]", "misaligned", "bounds", "make_float4"),
        Broken("no test of the last run",
               "run < runs && lane < 8", "lane < 8", "read outside 'x'", "forward race", "float4 v ="),
        Broken("one float before the array",
               "reinterpret_cast<const float4 *>(x + run * 32)[lane]",
               "*(const float4 *)(x + run * 32 + 4 * lane - 4)",
               r"read outside 'x': byte offset -\d+ of", "reverse race", "float4 v ="),
    ],
    "histogram": [
        Broken("plain addition for an atomic one",
               "atomicAdd(&counts[x[i]], 1)", "counts[x[i]]++", "race in counts", "race", "counts[x[i]]++"),
        Broken("values beyond the last bin",
               "i < total && x[i] < bins", "i < total", "(write|wrote|atomic|read) outside 'counts'", "forward race"),
    ],
    "hand_over": [
        Broken("no wait for the box to empty",
               "if (k > 0) named_barrier_sync(2, 64);", "", CAUGHT, "forward reverse random race"),
        Broken("no wait for the box to fill",
               "named_barrier_sync(1, 64);", "", CAUGHT, "forward reverse random skewed race"),
        Broken("two opinions how many threads meet",
               "named_barrier_sync(1, 64)", "named_barrier_sync(1, 32)",
               "awaited by (32|64) threads here", "forward"),
        Broken("nobody says that the box is empty",
               "named_barrier_arrive(2, 64)", "(void)0",
               "thread 0..31 waits in named_barrier_sync at samples.cu", "forward skewed"),
        Broken("barrier of part of a warp",
               "named_barrier_sync(1, 64)", "named_barrier_sync(1, 33)", "whole warps", "forward"),
    ],
    "matmul_bf16": [
        Broken("barrier after the copies missing",
               "__syncthreads(); // the stage is there", "",
               WRONG, "forward-lazy-copies-lazy-wgmma random-lazy-copies-lazy-wgmma"),
        Broken("barrier after the copies missing, in the race build",
               "__syncthreads(); // the stage is there", "", "race in dynamic shared memory", "race"),
        Broken("barrier before the next copies missing",
               "__syncthreads(); // the stage may go", "",
               WRONG, "skewed-eager-copies-lazy-wgmma skewed-lazy-copies-lazy-wgmma"),
        Broken("barrier before the next copies missing, in the race build",
               "__syncthreads(); // the stage may go", "", "race in dynamic shared memory", "race", "cp_async16("),
        Broken("no wait for the copies",
               "cp_async_wait<1>();", "", WRONG, "forward-lazy-copies-lazy-wgmma reverse-lazy-copies-lazy-wgmma"),
        Broken("waits for one group too few",
               "cp_async_wait<1>", "cp_async_wait<2>", WRONG, "forward-lazy-copies-lazy-wgmma"),
        Broken("group not committed",
               "cp_async_commit();\n        cp_async_wait", "cp_async_wait", WRONG, "forward-lazy-copies-lazy-wgmma"),
        Broken("wrong row of a fragment", "lane % 16]", "lane % 8]", WRONG, "forward"),
        Broken("wrong half of k in a fragment", "k + lane / 16 * 8", "k + lane / 8 % 2 * 8", WRONG, "forward"),
        Broken("fragments of b exchanged", "{fb[0], fb[1]}", "{fb[0], fb[2]}", WRONG, "forward"),
        Broken("shared stride that misaligns cp.async",
               "a[32][40], b[16][40]", "a[32][36], b[16][36]", "not a multiple of 16", "forward", "cp_async16("),
        Broken("no zero fill outside",
               "inside ? src + k0 + c : a, inside)", "src + k0 + c)",
               "read outside '[ab]'", "forward race", "cp_async16("),
        Broken("garbage instead of zero fill",
               "inside ? src + k0 + c : a, inside)", "inside ? src + k0 + c : a)", WRONG, "forward"),
        Broken("one lane stays away from ldmatrix",
               "ldmatrix(fa,", "if (lane != 9) ldmatrix(fa,", "divergent warp|deadlock", "forward random skewed"),
        Broken("ldmatrix of global memory",
               "&now.a[warp * 16 + lane % 16][k + lane / 16 * 8]", "a",
               "do not lie in shared memory", "forward", "ldmatrix(fa, a)"),
    ],
    "matmul_wgmma": [
        Broken("no wait for TMA",
               "mbar_wait(&ring.full[s], turn & 1);", "",
               CAUGHT, "forward reverse-lazy-copies-lazy-wgmma skewed-lazy-copies-lazy-wgmma race"),
        Broken("no wait for the stage to empty",
               "mbar_wait(&ring.empty[s], (turn & 1) ^ 1);", "", CAUGHT, "forward reverse random skewed race"),
        Broken("waits for the other parity",
               "(turn & 1) ^ 1", "turn & 1", r"deadlock.*mbar_wait\(parity 0\)", "forward skewed"),
        Broken("expects half the bytes", "2 * 8192);", "8192);", CAUGHT, "forward reverse random skewed"),
        Broken("stage released before its products are done",
               "wgmma_wait<0>();\n            mbar_arrive(&ring.empty[s]);",
               "mbar_arrive(&ring.empty[s]);\n            wgmma_wait<0>();",
               WRONG, "random-eager-copies-lazy-wgmma skewed-eager-copies-lazy-wgmma"),
        Broken("stage released before its products are done, in the race build",
               "wgmma_wait<0>();\n            mbar_arrive(&ring.empty[s]);",
               "mbar_arrive(&ring.empty[s]);\n            wgmma_wait<0>();",
               "race in dynamic shared memory", "race"),
        Broken("no wait for the products",
               "wgmma_wait<0>();", "", "without a wgmma_fence|ended before this wgmma|race", "forward race"),
        Broken("no fence before the products",
               "wgmma_fence();", "", "without a wgmma_fence", "forward", "wgmma_bf16("),
        Broken("half a step along k",
               "wgmma_k_major(ring.a[s] + 32 * step)", "wgmma_k_major(ring.a[s] + 16 * step)",
               "not emulated", "forward", "wgmma_bf16("),
        Broken("rows in the middle of the swizzle",
               "wgmma_k_major(ring.a[s] + 32 * step)", "wgmma_k_major(ring.a[s] + 128)",
               "not emulated", "forward", "wgmma_bf16("),
        Broken("one arrival too many expected",
               "mbar_init(&ring.empty[s], 128)", "mbar_init(&ring.empty[s], 129)",
               "deadlock.*mbar_wait", "forward skewed"),
        Broken("a whole warp of producers",
               "if (threadIdx.x == 128)", "if (threadIdx.x >= 128)", "more than the 1 arrivals", "forward"),
        Broken("barriers used before they are set up",
               "__syncthreads(); // the barriers are there", "", "no mbarrier was initialised", "reverse"),
        Broken("barriers used before they are set up, in the race build",
               "__syncthreads(); // the barriers are there", "", "race in dynamic shared memory", "race"),
        Broken("a warp of the warpgroup stays away",
               "if (threadIdx.x < 128) {", "if (threadIdx.x < 96) {", CAUGHT, "forward skewed"),
        Broken("tile not at a multiple of 1024 bytes",
               "unsigned char a[2][8192]", "unsigned char pad[128], a[2][8192]",
               "not a multiple of 1024|not emulated|do not lie in shared", "forward"),
        Broken("TMA into memory the block does not have",
               "tma_load_2d(ring.b[s]", "tma_load_2d(raw + 28672",
               "do not lie in shared memory", "forward", "tma_load_2d(raw"),
    ],
    "matmul_cluster": [
        Broken("stage released to its own block alone",
               "if (threadIdx.x % 32 < 2) mbar_arrive_at(threadIdx.x % 32, &ring.empty[s]);",
               "if (threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[s]);",
               r"deadlock.*of block 0 waits in mbar_wait.*of block 1 waits in mbar_wait", "forward reverse random skewed"),
        Broken("stage filled before the other block has read it",
               "mbar_init(&ring.empty[s], 2 * 4)", "mbar_init(&ring.empty[s], 4)", CAUGHT, "skewed random race"),
        Broken("stage released before its products are done",
               "wgmma_wait<0>();\n            if (threadIdx.x % 32 < 2) mbar_arrive_at(threadIdx.x % 32, &ring.empty[s]);",
               "if (threadIdx.x % 32 < 2) mbar_arrive_at(threadIdx.x % 32, &ring.empty[s]);\n            wgmma_wait<0>();",
               "race in dynamic shared memory .* of block", "race"),
        Broken("half of b to its own block alone", "tma_multicast_5d(3,", "tma_multicast_5d(1 << rank,",
               r"deadlock.*mbar_wait\(parity 0\)", "forward reverse skewed"),
        Broken("both halves of b to one block", "tma_multicast_5d(3,", "tma_multicast_5d(1,",
               CAUGHT, "forward reverse random race"),
        Broken("b to a block that there is not", "tma_multicast_5d(3,", "tma_multicast_5d(7,",
               "tma_multicast to blocks 0x7 of a cluster of 2", "forward race", "tma_multicast_5d("),
        Broken("release to a block that there is not",
               "mbar_arrive_at(threadIdx.x % 32,", "mbar_arrive_at(threadIdx.x % 32 + 1,",
               "mbar_arrive_at: block 2 of a cluster of 2", "forward", "mbar_arrive_at("),
        Broken("the same half of b by both blocks", "ring.b[s] + rank * 4096", "ring.b[s]", CAUGHT, "forward reverse race"),
        Broken("expects its own bytes alone", "2 * 8192);", "8192 + 4096);", CAUGHT, "forward reverse random skewed race"),
        Broken("barriers of the other block not waited for",
               "cluster_sync(); // the barriers of both blocks are there", "__syncthreads();",
               "no mbarrier was initialised here in block [01] of the cluster", "random skewed"),
        Broken("barriers of the other block not waited for, in the race build",
               "cluster_sync(); // the barriers of both blocks are there", "__syncthreads();",
               "race in dynamic shared memory .* by thread 0 of block [01]", "race"),
        Broken("leaves while the other block may still reach its memory",
               "cluster_sync(); // neither block's memory is reached any more", "",
               "mbar_arrive_at: block [01] of the cluster has left", "forward reverse skewed", "mbar_arrive_at("),
        Broken("leaves while the other block may still reach its memory, in the race build",
               "cluster_sync(); // neither block's memory is reached any more", "",
               "reaches here into block [01] of the cluster, which may leave before that", "race", "mbar_arrive_at("),
        Broken("half a block leaves before the end",
               "cluster_sync(); // neither block's memory is reached any more", "if (threadIdx.x < 128) cluster_sync();",
               "cluster_sync after .* of the cluster have returned|waits for the whole cluster", "forward reverse skewed"),
        Broken("one step less of one block", "int tiles = (K + 63) / 64, rank = cluster_rank();",
               "int rank = cluster_rank(), tiles = (K + 63) / 64 - rank;",
               "deadlock.*of block 0 waits in mbar_wait", "forward skewed"),
        Broken("a barrier of the cluster in a branch",
               "cluster_sync(); // the barriers of both blocks are there",
               "if (threadIdx.x < 128) cluster_sync();\n    else cluster_sync();",
               "divergent barrier: here in cluster_sync", "forward"),
        Broken("static shared memory", "DYN_SHARED(raw);", "DYN_SHARED(raw);\n    __shared__ float kept;\n    kept = K;",
               "static shared memory in a cluster is not emulated", "forward"),
    ],
    "matmul_turned": [
        Broken("written numbers not shown to wgmma",
               "fence_async_proxy(); // wgmma sees what was written", "",
               "written by thread .* without a fence_async_proxy", "race", "wgmma_bf16<true, true>("),
        Broken("barriers not shown to TMA",
               "mbar_fence_init();", "", "written by thread 0 .* without a fence_async_proxy", "race", "tma_load_2d("),
        Broken("waits for the wrong parity of b", "mbar_wait(&tile.full, t & 1)", "mbar_wait(&tile.full, ~t & 1)",
               CAUGHT, "forward reverse-lazy-copies-lazy-wgmma random race"),
        Broken("expects more bytes than come", "expect_tx(&tile.full, 8192)", "expect_tx(&tile.full, 8256)",
               r"deadlock.*mbar_wait", "forward skewed"),
        Broken("numbers where the swizzle does not put them", "(m * 2 ^ k % 8 * 16)", "m * 2", WRONG, "forward random"),
        Broken("an operand beyond its tile", "wgmma_mn_major(tile.b + 128 * k,", "wgmma_mn_major(tile.b + 1024 + 128 * k,",
               "wgmma reads byte .* of", "forward", "wgmma_bf16<true, true>("),
        Broken("an operand with its majors exchanged", "wgmma_bf16<true, true>(d,", "wgmma_bf16<false, true>(d,",
               CAUGHT, "forward"),
        Broken("steps along k as of the other major", "wgmma_mn_major(tile.a + 128 * k,", "wgmma_mn_major(tile.a + 2 * k,",
               "not emulated", "forward", "wgmma_bf16<true, true>("),
        Broken("tile overwritten while it is multiplied",
               "mbar_arrive(&tile.empty);\n            named_barrier_sync(1, 128);",
               "mbar_arrive(&tile.empty);",
               CAUGHT, "skewed random race"),
        Broken("a group of no products", "wgmma_commit();", "wgmma_commit(), wgmma_commit();", "wgmma_commit of no products",
               "forward", "wgmma_commit(), wgmma_commit();"),
        Broken("stage released before its products are done",
               "wgmma_wait<0>();\n            mbar_arrive(&tile.empty);",
               "mbar_arrive(&tile.empty);\n            wgmma_wait<0>();",
               "race in dynamic shared memory", "race"),
        Broken("registers that nobody gives", "registers_decrease<56>();", "",
               r"deadlock.*registers_increase", "forward skewed"),
        Broken("more registers than the launch had, fewer than an SM has", "registers_decrease<56>", "registers_decrease<128>",
               r"deadlock.*registers_increase", "forward skewed"),
        Broken("more registers than there are", "registers_decrease<56>", "registers_decrease<256>",
               "of a thread that has", "forward", "registers_decrease<256>"),
        Broken("one thread for its warpgroup",
               "registers_decrease<56>();\n", "if (threadIdx.x == 128) registers_decrease<56>();\n",
               "deadlock|has returned|divergent warp", "forward skewed"),
        Broken("fewer registers by an increase", "registers_increase<256>", "registers_increase<160>",
               "of a thread that has", "forward"),
    ],
}


def loose(text):
    """The pattern of `text` in which a space stands for any run of spaces, as comments are set apart by many."""
    return re.compile(re.sub(r"(\\ )+", r" +", re.escape(text)))


def mutated(kernel, broken):
    """The kernel's source with its only occurrence of `old` replaced."""
    text, count = loose(broken.old).subn(lambda match: broken.new, part(kernel))
    assert count == 1, f"{broken.old!r} is {count} times in {kernel}"
    return text


CASES = [pytest.param(kernel, broken, way, id=f"{kernel}: {broken.defect}, {way}")
         for kernel, table in BROKEN.items() for broken in table for way in broken.ways.split()]


@pytest.mark.parametrize("kernel, broken, way", CASES)
def test_broken_kernel_is_caught(kernel, broken, way):
    text = mutated(kernel, broken)
    settings = replace(ASYNC_WAYS[way], seconds=0.3 if "still running" in broken.says else 60)
    try:
        y, _ = SAMPLES[kernel].run(settings, text)
    except KernelError as error:
        assert broken.says != WRONG, f"expected wrong numbers, got: {error}"
        assert re.search(broken.says, str(error), re.S), str(error)
        lines = [f"samples.cu:{k}:" for k, line in enumerate(text.splitlines(), 1) if loose(broken.at).search(line)]
        assert not broken.at or str(error).startswith(tuple(lines)), f"{error}\nnot at {lines}"
    else:
        assert broken.says in (WRONG, CAUGHT), f"nothing was said; expected {broken.says!r}"
        assert not np.allclose(y, SAMPLES[kernel].expected, atol=1e-3), "the numbers are right"
