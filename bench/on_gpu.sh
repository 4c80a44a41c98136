#!/usr/bin/env bash
# Everything a GPU is needed for, without a network, as seven calls of less than nine minutes: bash bench/on_gpu.sh NUMBER [OUTDIR]
#
#   1   the device, one tiny kernel per PTX primitive (hardware.npz belongs into tests/executor/), the tests of what uses wgmma,
#       file by file so that a kernel that hangs in one does not keep the other from answering, then those of all but conv2d, two
#       epochs on drawn pictures
#   2   ceilings: copy, multiply-adds, mma.sync, wgmma, from L2 to shared memory, which decides how convolutions are to be built;
#       then which tiles are quickest here, which the calls after it go by (that table belongs beside them: see python -m bench tune)
#   3   the training step in bf16 and tf32 beside PyTorch, and what of it each kernel takes
#   4   conv4, its ladder among it, and conv2, all passes and precisions, beside cuDNN
#   5   ncu on one kernel, compute-sanitizer on a few tests, where they are installed
#   6   the rest: the tests of conv2d, every kernel timed
#   7   zfnet on the pictures in the folder $ZFCORE_DATA, in bf16 and in fp32
#
# All seven take 61 minutes at most, 1 to 4 take 35 and 1 to 3 take 26: who has 30 minutes leaves out 4 to 7.
#
# Each call compiles the kernels first, on all cores. OUTDIR is $OUT unless it is given, the same for all calls: what they write is
# added to what is there, and a table that call 2 has left there is brought to where zfcore looks for it, as each lent machine is
# a bare one. In OUTDIR log.txt has what each step says as it goes, each test as it begins and its failure as it fails, and
# NAME/<device>-<date>.json what a step measures, written anew after every case (that of `bench` belongs into bench/results/);
# summary.txt says which step failed. They are few files, as some machines give no more than eight back. A step that fails or takes
# too long does not keep the next one from running.
#
# Wants Python with CuPy, NumPy, h5py, Pillow, pytest, matplotlib, tqdm and threadpoolctl; PyTorch and nvidia-cudnn-frontend are
# measured beside ours where they are installed.
set -uo pipefail
usage="usage: bash bench/on_gpu.sh NUMBER [OUTDIR], NUMBER from 1 to 7"
number=${1:?$usage}
out=${2:-${OUT:?$usage}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 ZFCORE_TELL_FAILURES=1             # by tests/conftest.py
python=${PYTHON:-python3}
pytest=("$python" -m pytest -vv -p no:cacheprovider)       # -vv names each test when it begins
tables=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/zfcore/kernels
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
failed=0

note() {                                    # what the log and the summary both keep
    tee -a "$out/log.txt" >> "$out/summary.txt"
}

step() {                                    # step NAME SECONDS COMMAND...: runs it, its output in log.txt
    local name=$1 seconds=$2 begun=$SECONDS status
    shift 2
    echo "== $name: $*" | tee -a "$out/log.txt"
    timeout --kill-after=5 "$seconds" "$@" >> "$out/log.txt" 2>&1
    status=$?
    tail -n 4 "$out/log.txt"
    if [ "$status" = 0 ]; then status=passed
    elif [ "$status" = 124 ] || [ "$status" = 137 ]; then status="stopped after $seconds s"; failed=1
    else status="failed, exit status $status"; failed=1; fi
    echo "$name: $status, $((SECONDS - begun)) s" | note
}

measure() {                                 # measure NAME SECONDS OPTIONS...: python -m bench with these, its JSON file in NAME/
    local name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" "$python" -m bench --output "$out/$name" "$@"
}

trained() {                                 # trained NAME SECONDS OPTIONS...: python -m train with these; its table of epochs is kept
    local name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" "$python" -m train --device gpu --output "$runs/$name" "$@"
    cp "$runs/$name/log.csv" "$out/$name.csv" 2> /dev/null
}

installed() {
    command -v "$1" > /dev/null || { echo "$1: not installed" | note; false; }
}

before=$(cat "$out/summary.txt" 2> /dev/null | wc -l)
device=$("$python" -c 'from zfcore.device import select; print(select("gpu").description)' 2> "$runs/error")
status=$?
[ "$status" = 0 ] || device=$(tail -n 1 "$runs/error")     # one sentence: no GPU, or what is missing to use it
echo "== call $number, $(hostname), $(date -u +%Y-%m-%dT%H:%M:%SZ): $device" | note
echo "$device"
[ "$status" = 0 ] || exit 2
for table in "$out"/*.json; do
    if grep -qs '"choices"' "$table" && [ ! -e "$tables/$(basename "$table")" ]; then
        mkdir -p "$tables" && cp "$table" "$tables"
    fi
done
step compile 100 "$python" -m bench compile
case $number in
1)  step probe 60 "$python" -m tests.executor.probe gpu "$out/hardware.npz"
    for name in conv2d_wgmma conv2d_maxpool; do
        step "$name" 45 "${pytest[@]}" "tests/kernels/test_$name.py" -k gpu
    done
    step tests 180 "${pytest[@]}" tests/train/test_graph.py tests/gpu tests/kernels -k "test_graph or gpu and not conv2d"
    trained synthetic 60 --epochs 2;;
2)  measure ceilings 120 --only ceilings
    step tune 280 "$python" -m bench tune
    cp "$tables"/*.json "$out" 2> /dev/null;;
3)  measure step 400 --only "training step" --precisions bf16 tf32 --rounds 8;;
4)  measure conv4 200 --only " conv4 " --rounds 8
    measure conv2 200 --only " conv2 " --rounds 8;;
5)  installed ncu && step ncu 150 ncu --clock-control none --set full --kernel-name conv2d_forward --launch-count 1 --kill yes \
        --force-overwrite --export "$out/conv4" "$python" -m bench --only "conv4 forward" --precisions bf16 --rounds 1
    for tool in memcheck racecheck; do
        installed compute-sanitizer && step "$tool" 120 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "${pytest[@]}" tests/kernels -k "gpu and (maxpool or relu or softmax or strongest) and not wgmma"
    done;;
6)  step tests 150 "${pytest[@]}" tests/kernels -k "gpu and conv2d"
    measure bench 270 --rounds 5;;
7)  for precision in bf16 fp32; do
        trained "$precision" 200 --data "${ZFCORE_DATA:-}" --preset zfnet --image-size 224 --precision "$precision" --init he --lr 0.003 \
            --workers 16
    done;;
*)  echo "$usage" >&2; exit 2;;
esac

tail -n "+$((before + 1))" "$out/summary.txt"
exit "$failed"
