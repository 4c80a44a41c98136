"""Would it be noticed? `python -m tests.planted` plants one defect at a time into a copy of the tree, runs there the files of
tests that are about its place, with the cases that plain `pytest` runs, and prints which of them notice.

    python -m tests.planted                 all of them, as many at once as there are cores; status 1 unless each is noticed
    python -m tests.planted maxpool seed    those whose description or file has one of these words

A defect is one that somebody could make: a sign, a side, an axis, a seed, a barrier, a check that is gone. Before a test is
cut, made smaller or left to --all, this must still end with status 0; what it misses needs a test.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = 2                                     # tests that notice, after which no more are run
PATIENCE = 1200                                # seconds; whatever hangs so long has not been noticed


class Defect(NamedTuple):
    what: str
    file: str
    old: str                                   # this text, the only one of its kind in the file, ...
    new: str                                   # ... becomes this
    tests: str                                 # files or folders below tests/, in the order in which they are run


DEFECTS = [
    # ---------------------------------------------------------------------------------------------------- kernels
    Defect("windows begin a pixel too late", "kernels/device/axis.cuh",
           ".inputs = H, .start = -P,", ".inputs = H, .start = 1 - P,", "kernels/test_conv2d.py"),
    Defect("a column outside the map is read on one side", "kernels/device/windows.cuh",
           "&& (unsigned)(v[i] + step.dv) < (unsigned)W;", "&& v[i] + step.dv < W;", "kernels/test_conv2d.py"),
    Defect("the tap at the last row counts as outside the map", "kernels/device/axis.cuh",
           "int last = axis.way > 0 ? axis.inputs - 1 - low : high;", "int last = axis.way > 0 ? axis.inputs - 2 - low : high;",
           "kernels/test_conv2d.py"),
    Defect("a race: tiles are filled while others still read them", "kernels/device/ring.cuh",
           "cp_async_wait<STAGES - 2>();\n        __syncthreads();", "cp_async_wait<STAGES - 2>();", "kernels/test_conv2d.py"),
    Defect("a tile is multiplied before its copies have landed", "kernels/device/ring.cuh",
           "cp_async_wait<STAGES - 2>();", "cp_async_wait<STAGES - 1>();", "kernels/test_conv2d.py"),
    Defect("a stage is filled anew when the warps of one block of a cluster have read it", "kernels/device/wgmma_ring.cuh",
           "mbar_init(&ring.empty[s], PAIR * 4 * CONSUMERS)", "mbar_init(&ring.empty[s], 4 * CONSUMERS)",
           "kernels/test_conv2d_wgmma.py"),
    Defect("the other block of a cluster is not told that a stage has been read", "kernels/device/wgmma_ring.cuh",
           "if (threadIdx.x % 32 < PAIR) mbar_arrive_at(threadIdx.x % 32, &empty);",
           "if (threadIdx.x % 32 == 0) mbar_arrive(&empty);", "kernels/test_conv2d_wgmma.py"),
    Defect("a block uses the barriers of its cluster's other block before they are there", "kernels/device/wgmma_ring.cuh",
           "cluster_sync();                   // the barriers", "__syncthreads();                  // the barriers",
           "kernels/test_conv2d_wgmma.py"),
    Defect("a block leaves while the other of its cluster may still write into it", "kernels/device/wgmma_ring.cuh",
           "    cluster_sync();                   // nobody", "    // nobody", "kernels/test_conv2d_wgmma.py"),
    Defect("of two tiles that read the same filters the taps of one are taken", "kernels/device/wgmma_windows.cuh",
           "(shares_w ? PAIR : 1) * UNITS", "UNITS", "kernels/test_conv2d_wgmma.py"),
    Defect("the gradient passes a ReLU that was off", "kernels/device/wgmma_windows.cuh",
           "four[2] &= above_zero(was.z), ", "", "kernels/test_conv2d_wgmma.py"),
    Defect("rows of several phases get the taps of the last", "kernels/device/wgmma_windows.cuh",
           "rows.taps = taps_of(low.r)", "rows.taps = taps_of(high.r)", "kernels/test_conv2d_wgmma.py"),
    Defect("of two tiles of unlike phases each takes its own taps", "kernels/device/wgmma_windows.cuh",
           "int pair_m0 = shares_w ? m0 : m0 - rank * BM;", "int pair_m0 = m0;", "kernels/test_conv2d_wgmma.py"),
    Defect("of two boxes of rows the second is not asked whether it is multiplied", "kernels/device/wgmma_windows.cuh",
           "box < 64; box += BOX", "box < BOX; box += BOX", "kernels/test_conv2d_wgmma.py"),
    Defect("the first pixel of a phase that lacks it is written", "kernels/device/wgmma_windows.cuh",
           "(unsigned)q < (unsigned)columns.size", "q < columns.size", "kernels/test_conv2d_wgmma.py"),
    Defect("a filter gradient's slice takes in steps of its pair's other tile", "kernels/conv2d_wgmma_gradient.cu",
           "used ? boxes[i].c : conv.maps()", "boxes[i].c", "kernels/test_conv2d_wgmma.py"),
    Defect("one of the three products of fp32x3 is left out", "kernels/device/tensor_tiles.cuh",
           "int term = LIMBS == 2 ? 2 : 0;", "int term = LIMBS == 2 ? 1 : 0;", "kernels/test_conv2d.py"),
    Defect("a phase of the way down has a tap too few", "kernels/device/axis.cuh",
           ".taps = (K - phase + S - 1) / S,", ".taps = (K - phase) / S,", "kernels/test_conv2d.py"),
    Defect("the filter gradient leaves out the last column of outputs", "kernels/device/products.cuh",
           "(size - 1 + conv.P - low) / conv.S, outputs - 1);", "(size - 1 + conv.P - low) / conv.S, outputs - 2);",
           "kernels/test_conv2d.py"),
    Defect("the last slice of a sum is not added", "kernels/conv2d_sums.cu",
           "slice < slices; slice++", "slice < slices - 1; slice++", "kernels/test_conv2d.py"),
    Defect("a row of the pool is folded into the window above alone", "kernels/conv2d_maxpool.cu",
           "int last = min((h + pool_P) / STRIDE, p1 - 1);", "int last = min((h + pool_P - 1) / STRIDE, p1 - 1);",
           "kernels/test_conv2d_maxpool.py"),
    Defect("a gradient on its way into a tile asks one window a row too few", "kernels/conv2d_maxpool_gradient.cu",
           "b < REACH; b++)", "b < REACH - 1; b++)", "kernels/test_conv2d_maxpool.py"),
    Defect("the last of equal maxima wins, on wgmma", "kernels/conv2d_wgmma_maxpool.cu",
           "place = FIRST - r * POOL", "place = r * POOL", "kernels/test_conv2d_maxpool.py"),
    Defect("filters are multiplied before all are there", "kernels/conv2d_wgmma_maxpool.cu",
           "    fence_async_proxy();\n    __syncthreads();", "    __syncthreads();", "kernels/test_conv2d_maxpool.py"),
    Defect("a column of x is let go before its last output", "kernels/conv2d_wgmma_maxpool.cu",
           "r == POOL - 1 && threadIdx.x % 32 == 0", "r == POOL - 2 && threadIdx.x % 32 == 0",
           "kernels/test_conv2d_maxpool.py"),
    Defect("what follows the window's last row is not zero", "kernels/conv2d_wgmma_maxpool.cu",
           "(ring.x[s][work.rows() * C])[i] = 0;", "(ring.x[s][work.rows() * C - 1])[i] = 0;",
           "kernels/test_conv2d_maxpool.py"),
    Defect("an output beyond the map counts", "kernels/conv2d_wgmma_maxpool.cu",
           "if ((unsigned)(p + r) < (unsigned)conv.Ho && ", "if (", "kernels/test_conv2d_maxpool.py"),
    Defect("wgmma is not told of what the spreaders have written", "kernels/conv2d_wgmma_maxpool_gradient.cu",
           "            fence_async_proxy();\n", "", "kernels/test_conv2d_maxpool.py"),
    Defect("a slice begins without the windows before it", "kernels/conv2d_wgmma_maxpool_gradient.cu",
           "at > first && to.j > 0", "to.j > 0", "kernels/test_conv2d_maxpool.py"),
    Defect("a tile is multiplied that one warp is still writing", "kernels/conv2d_wgmma_maxpool_gradient.cu",
           "SPREADERS / 32 + 1)", "SPREADERS / 32)", "kernels/test_conv2d_maxpool.py"),
    Defect("a stage is let go while its products are under way", "kernels/conv2d_wgmma_maxpool_gradient.cu",
           "ring.empty[(turn - 1) % STAGES]", "ring.empty[turn % STAGES]", "kernels/test_conv2d_maxpool.py"),
    Defect("what is written for wgmma lies without its swizzle", "kernels/conv2d_wgmma_maxpool_gradient.cu",
           "16 * (thread % 8 ^ f % 8)", "16 * (thread % 8)", "kernels/test_conv2d_maxpool.py"),
    Defect("wrong switch: row and column exchanged", "kernels/maxpool.cu",
           "chosen.v[k] == (j * S + r) * K + i * S + s ?", "chosen.v[k] == (i * S + s) * K + j * S + r ?",
           "kernels/test_maxpool.py"),
    Defect("the right half of the largest tree is not added", "kernels/tree_sum.cu",
           "s < TENSORS; s *= 2", "s < TENSORS / 2; s *= 2", "kernels/test_tree_sum.py"),
    Defect("of equally strong places the last is listed", "kernels/strongest.cu",
           "a.value == b.value && a.place < b.place", "a.value == b.value && a.place > b.place", "kernels/test_strongest.py"),
    Defect("of equally strong pictures the later comes first", "kernels/strongest.cu",
           "rank > 0 && best.value > values[rank - 1]", "rank > 0 && best.value >= values[rank - 1]",
           "kernels/test_strongest.py"),
    Defect("a picture behind a gap is listed with its neighbour's number", "zfcore/ops/strongest.py",
           "int(pictures[first]))", "int(pictures[0]) + first)", "kernels/test_strongest.py"),
    Defect("a pool that is dropped keeps the memory of its graph", "zfcore/graph.py",
           "finalize(self, self.memory.free_all_blocks).atexit = False", "pass", "train/test_graph.py standin/test_standin.py"),
    Defect("the last of equal maxima wins", "kernels/maxpool.cu",
           "!(a.v[k] <= best.v[k]) &&", "!(a.v[k] < best.v[k]) &&", "kernels/test_maxpool.py"),
    Defect("a missing minus in the way back of local response normalisation", "kernels/local_response_norm.cu",
           "d[j] - 2 * a * BETA", "d[j] + 2 * a * BETA", "kernels/test_local_response_norm.py"),
    Defect("a running variance that is not unbiased", "kernels/batch_norm.cu",
           "spread / max(L - 1, 1LL)", "spread / max(L, 1LL)", "kernels/test_batch_norm.py"),
    Defect("average pooling divides by the whole window at the far border", "kernels/avgpool.cu",
           "min(first + K, size)", "first + K", "kernels/test_avgpool.py"),
    Defect("a barrier of the softmax is missing", "kernels/softmax_loss.cu",
           "    value = held[0][image];\n    __syncthreads();", "    value = held[0][image];", "kernels/test_softmax_loss.py"),
    Defect("the last weight that fills no pack is not moved", "kernels/sgd_step.cu",
           "k < total.of[t] - i; k++", "k < total.of[t] - i - 1; k++", "kernels/test_sgd_step.py"),
    Defect("a piece of a batch meets another mask", "kernels/dropout.cu",
           "begin = row * N + first,", "begin = row * N,", "kernels/test_dropout.py"),
    Defect("mirrored crops lie a pixel further right", "kernels/crop_flip.cu",
           "flips[n] ? columns - 1 - q : q", "flips[n] ? columns - q : q", "kernels/test_crop_flip.py"),
    # ------------------------------------------------------------------------------------------------- operations
    Defect("a window that begins behind the map is kept", "zfcore/ops/window.py",
           "(out - 1)*S - P >= size", "(out - 1)*S - P > size", "ops"),
    Defect("the bias of a group is another group's", "zfcore/ops/conv2d_blocks.py",
           "None if b is None else b[filters]", "None if b is None else b[:F//groups]", "ops/test_conv2d.py"),
    Defect("filters are not flipped on the way down", "zfcore/ops/conv2d_blocks.py",
           "filters][:, ::-1, ::-1] ", "filters] ", "ops/test_conv2d.py"),
    Defect("the column of a switch at the left border is the padding's", "zfcore/ops/maxpool.py",
           "    np.maximum(column, s0, out=column)\n", "", "ops/test_maxpool.py"),
    Defect("even windows of maps reach to the wrong side on the way back", "zfcore/ops/local_response_norm.py",
           "_neighbours(power, n, n - 1 - n//2, shared)", "_neighbours(power, n, n//2, shared)",
           "ops/test_local_response_norm.py"),
    Defect("wrong axis: crops are mirrored upside down", "zfcore/ops/crop_flip.py",
           "crop[flips, ..., ::-1]", "crop[flips, :, ::-1]", "ops/test_crop_flip.py"),
    Defect("the size of a filter is that of its first map", "zfcore/ops/clip_filter_rms.py",
           "flat, flat, dtype=np.float64)/len(flat))", "flat, flat, dtype=np.float64)/len(w))", "ops/test_clip_filter_rms.py"),
    Defect("a missing check: filters that are not square", "zfcore/ops/conv2d.py",
           '    check.shape(f"{op} w", w, (C//groups, w.shape[1], w.shape[1], None))\n', "", "ops/test_conv2d.py"),
    # ------------------------------------------------------------------------------------------ layers, network, optimiser
    Defect("the gradient of biases is dropped", "zfcore/layers.py",
           'return dx, {"w": dw, "b": db}', 'return dx, {"w": dw, "b": 0*db}', "test_layers.py"),
    Defect("the padding of a pool counts as 0 in the cone of a square", "zfcore/layers.py",
           "border = -np.inf", "border = 0.0", "test_layers.py analysis/test_occlusion.py"),
    Defect("dropout has one seed in all runs", "zfcore/layers.py",
           "        self.seed = seed\n", "        pass\n", "test_network.py test_layers.py train/test_loop.py train/test_given.py"),
    Defect("a missing check: weights that are not finite are loaded", "zfcore/network.py",
           '    check.finite(what if single is numbers else f"{what} in float32", single)\n', "",
           "test_network.py test_checkpoint.py test_layers.py"),
    Defect("biases decay too", "zfcore/optim.py",
           'self.weight_decay if key == "w" and layer.has_weights else 0.0', "self.weight_decay", "test_optim.py test_yardstick.py"),
    # -------------------------------------------------------------------------------------------- deconvnet and analyses
    Defect("the deconvnet goes through the normalisation", "zfcore/deconvnet.py",
           "{ReLU: rectify, LocalResponseNorm: skip}", "{ReLU: rectify}", "test_deconvnet.py"),
    Defect("the cone keeps what it put into the padding", "zfcore/deconvnet.py",
           "                dy[:, to_device(~inside, like=dy)] = 0\n", "                pass\n",
           "test_layers.py test_deconvnet.py"),
    Defect("the strongest place has row and column exchanged", "zfcore/deconvnet.py",
           "np.divmod(strongest.astype(np.int64), Wo)", "np.divmod(strongest.astype(np.int64), Wo)[::-1]", "test_deconvnet.py"),
    Defect("a one-sided border: the square's cone ends too early", "zfcore/analysis/occlusion.py",
           "(last - 1 + P)//S + 1", "(last - 1 + P)//S", "analysis/test_occlusion.py"),
    Defect("a probe sees the mean of the pictures it is tested on", "zfcore/analysis/probing.py",
           "block[train].mean(axis=0", "block.mean(axis=0", "analysis/test_probing.py"),
    Defect("features that change count as agreeing", "zfcore/analysis/correspondence.py",
           "for value in (-1, 0, 1):", "for value in (-1, 1):", "analysis/test_correspondence.py"),
    Defect("rows and columns of a box exchanged", "zfcore/analysis/sanity_checks.py",
           "((regions.tops, boxes[:, 1], boxes[:, 3]), (regions.lefts, boxes[:, 0], boxes[:, 2]))",
           "((regions.tops, boxes[:, 0], boxes[:, 2]), (regions.lefts, boxes[:, 1], boxes[:, 3]))",
           "analysis/test_sanity_checks.py"),
    Defect("equal activations are listed in any order", "zfcore/ops/strongest.py",
           "np.argsort(-values, axis=1, kind=\"stable\")", "np.argsort(values, axis=1, kind=\"stable\")[:, ::-1]",
           "ops/test_strongest.py"),
    # ------------------------------------------------------------------------------------------------------- pictures
    Defect("the last place of a random crop is never drawn", "zfcore/data/transforms.py",
           "np.uint64(size - crop + 1)", "np.uint64(size - crop)", "data"),
    Defect("every epoch has the order of the first", "zfcore/data/loader.py",
           "np.random.Philox(key=[seed, epoch]).random_raw(n)", "np.random.Philox(key=[seed, 0]).random_raw(n)", "data"),
    Defect("wrong axis: the mean image lies on its side", "zfcore/data/loader.py",
           "(total/count).transpose(2, 0, 1)", "(total/count).transpose(2, 1, 0)", "data"),
    Defect("pictures held sideways are turned the wrong way", "zfcore/data/transforms.py",
           "6: Image.Transpose.ROTATE_270", "6: Image.Transpose.ROTATE_90", "data"),
    Defect("a missing check: a packed set whose labels are none", "zfcore/data/packed.py",
           "if not 0 <= self.labels.min() <= self.labels.max() < classes:", "if False:", "data test_hostile.py"),
    # ------------------------------------------------------------------------------------------------------- training
    Defect("velocities are lost when a run is resumed", "zfcore/training/loop.py",
           "{key: self.device.array(array) for key, array in of_layer.items()}",
           "{key: self.device.array(0*array) for key, array in of_layer.items()}", "train/test_loop.py"),
    Defect("a piece of a batch counts as a whole one", "zfcore/training/loop.py",
           "            dy *= part ", "            dy *= 1 ", "train/test_accumulation.py"),
    Defect("a rank begins to count its pictures at 0, and drops what others do", "zfcore/training/loop.py",
           "step, (before + first, N)", "step, (first, N)", "train/test_ranks.py"),
    Defect("what one rank finds damaged the others keep", "zfcore/data/loader.py",
           "self.leave_out(dict(item for name, row in zip(ranks.names, rows)",
           "self.leave_out(dict(item for name, row in zip(ranks.names, rows[:1])", "train/test_ranks.py"),
    Defect("ranks add up in the order in which they are", "zfcore/reduce.py",
           "tree_sum(received, self.begins, self.leaves)", "tree_sum(received, range(len(received)), len(received))",
           "ranks/test_reduce.py"),
    Defect("the shares of the start are told of another seed", "zfcore/training/loop.py",
           "network.table()).init(*self.seed_and_law,", "network.table()).init(0, self.seed_and_law[1],", "train"),
    Defect("a file is renamed before it is on the disk", "zfcore/checkpoint.py",
           "                flush(self.claim.path)\n", "", "test_checkpoint.py train/test_robust.py"),
    Defect("the fifth wrong class still counts as top 5", "zfcore/training/evaluation.py",
           "(found.rank >= 5).mean()", "(found.rank > 5).mean()", "train/test_evaluate.py"),
    Defect("the learning rate falls an epoch too late", "zfcore/optim.py",
           "if self.waited < self.patience or", "if self.waited <= self.patience or", "test_optim.py train/test_loop.py"),
    # ------------------------------------------------------------------------------------------------- commands, studies
    Defect("an interval that is as wide as n numbers make it, not their mean", "train/claims.py",
           "float(np.std(values, ddof=1))*math.sqrt(room)", "float(np.std(values, ddof=1))", "train/test_claims.py"),
    Defect("folds of one pool count as independent draws", "train/claims.py",
           "1/n + against_one + tested_over_rest", "1/n + against_one", "train/test_claims.py train/test_transfer.py"),
    Defect("an ensemble's one number counts as if it were known", "train/claims.py",
           "mean, half = interval(pairs, confidence, against_one)", "mean, half = interval(pairs, confidence)",
           "train/test_claims.py"),
    Defect("a claim that contradicts counts as undecided", "train/claims.py",
           "agrees, contradicts = low > 0, high < 0", "agrees, contradicts = low > 0, False", "train/test_claims.py"),
    Defect("the running mean of the range test begins at 0", "train/lr_test.py",
           "smoothed = mean/(1 - KEPT**training.step)", "smoothed = mean", "train/test_lr_test.py"),
    Defect("a study goes on with other options", "train/study.py",
           "if name not in FREE and not same and asked is not None:", "if False:",
           "train/test_ablation.py train/test_study.py"),
    Defect("a shard with a picture too few counts as done", "train/pack.py",
           "found[\"lengths\"].size + len(damaged) != shard.end - shard.begin or", "", "train/test_pack.py"),
    # ------------------------------------------------------------------------------------------- networks from elsewhere
    Defect("the order of the channels is forgotten", "zfcore/interchange/preprocessing.py",
           "return w[:, ::-1] if self.channels == \"bgr\" else w", "return w", "interchange/test_import.py"),
    Defect("the bias below a normalisation is not scaled", "zfcore/interchange/lower.py", "b*scale + shift", "b + shift",
           "interchange/test_import.py"),
    Defect("an odd pixel of padding lies on the other side", "zfcore/interchange/foreign.py",
           "if window.pads == \"same_upper\"", "if window.pads != \"same_upper\"",
           "interchange/test_onnx_cases.py interchange/test_onnx.py"),
    Defect("a network that computes something else is written", "zfcore/interchange/certificate.py",
           'if not found.relative <= LIMIT:\n        raise check.Expected(f"{what}: {found.layer}",',
           'if False:\n        raise check.Expected(f"{what}: {found.layer}",', "interchange/test_import.py"),
]


def trial(defect):
    """(number of failed tests, the last lines of pytest, or what stopped it) with the defect in a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder)/"zfcore"
        root.mkdir()
        for name in ("kernels", "zfcore", "train", "bench", "tests", "pyproject.toml", "README.md", "setup.py"):
            copy = shutil.copytree if (ROOT/name).is_dir() else shutil.copy
            copy(ROOT/name, root/name)
        text = (root/defect.file).read_text(encoding="utf-8")
        if text.count(defect.old) != 1:
            return 0, [f"stale: the text stands {text.count(defect.old)} times in {defect.file}"]
        (root/defect.file).write_text(text.replace(defect.old, defect.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", f"--maxfail={ENOUGH}", "-q", "--tb=no", "-p", "no:cacheprovider",
                   *(str(Path("tests", name)) for name in defect.tests.split())]
        try:
            done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True,
                                  text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return 0, [f"nothing within {PATIENCE} s"]
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return len(failed), failed or done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-1:]


def main():
    words = sys.argv[1:]
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.what + defect.file for word in words)]
    noticed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for defect, (count, lines) in zip(chosen, pool.map(trial, chosen)):
            noticed += bool(count)
            print(f"{'noticed' if count else 'MISSED '}  {defect.what} ({defect.file})",
                  *(f"           {line[:180]}" for line in lines), sep="\n", flush=True)
    print(f"{noticed} of {len(chosen)} were noticed")
    sys.exit(noticed < len(chosen))


if __name__ == "__main__":
    main()
