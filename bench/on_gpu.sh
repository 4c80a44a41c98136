#!/usr/bin/env bash
# Everything a GPU is needed for, in under ten minutes and without a network: bash bench/on_gpu.sh OUTDIR
#
#   tests.log        every kernel's tests on CuPy, and the captured step's
#   probe.log        one tiny kernel per PTX primitive; its answers in hardware.npz belong into tests/executor/
#   bench.log        the training step and every kernel timed; <device>-<date>.json belongs into bench/results/
#   train.log        a short training run on drawn pictures
#   pictures.log     and on the pictures in the folder $ZFCORE_DATA, if it is set
#   summary.txt      which step failed
#
# Wants Python with CuPy, NumPy, h5py, Pillow, pytest, matplotlib, tqdm and threadpoolctl; PyTorch and nvidia-cudnn-frontend are
# measured beside ours where they are installed. A step that fails or takes too long does not keep the next one from running.
set -uo pipefail
out=${1:?usage: bash bench/on_gpu.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
failed=0

step() {                                    # step NAME SECONDS COMMAND...: runs it, its output in NAME.log
    local name=$1 seconds=$2 begun=$SECONDS status
    shift 2
    echo "== $name: $*"
    timeout --kill-after=5 "$seconds" "$@" > "$out/$name.log" 2>&1
    status=$?
    tail -n 4 "$out/$name.log"
    if [ "$status" = 0 ]; then status=passed
    elif [ "$status" = 124 ] || [ "$status" = 137 ]; then status="stopped after $seconds s"; failed=1
    else status="failed, exit status $status"; failed=1; fi
    echo "$name: $status, $((SECONDS - begun)) s" >> "$out/summary.txt"
}

"$python" -c 'from zfcore.device import select; print(select("gpu").description)' 2> "$out/summary.txt" || {
    tail -n 1 "$out/summary.txt"; exit 2; }                # one sentence: no GPU, or what is missing to use it
step probe 30 "$python" -m tests.executor.probe gpu "$out/hardware.npz"
step tests 150 "$python" -m pytest tests/kernels tests/train/test_graph.py tests/gpu -k "gpu or test_graph" -p no:cacheprovider
step bench 250 "$python" -m bench --output "$out" --rounds 8
step train 60 "$python" -m train --device gpu --epochs 2 --output "$runs/synthetic"
if [ -n "${ZFCORE_DATA:-}" ]; then
    step pictures 80 "$python" -m train --device gpu --data "$ZFCORE_DATA" --preset zfnet --image-size 128 --epochs 1 \
        --init he --lr 0.003 --workers 8 --output "$runs/pictures"
fi

echo "== $(hostname), $(date -u +%Y-%m-%dT%H:%M:%SZ)"
cat "$out/summary.txt"
exit "$failed"
