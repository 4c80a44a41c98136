"""The ladder of conv2d: each rung is right, launches its own kernel, and stands in the table as predicted or as measured."""
import json

import pytest

from bench import ladder
from bench.cases import Source
from bench.gpu import allowed, checked, error, shown, truth
from tests import executor
from zfcore.models.zfnet import zfnet

SMALL = ladder.cases(zfnet(classes=7, size=34, maps=(4, 8, 16, 24, 4), units=(12, 8)))


@executor.requires_executor
@pytest.mark.parametrize("number", range(len(SMALL)), ids=[case.what for case in SMALL])
def test_a_rung_computes_the_convolution_by_its_own_kernel(number):
    case, N = SMALL[number], 8
    arrays = case.draw(Source(executor.array), N)
    wanted, chosen = truth(case, arrays, N)
    outputs, tape = checked(case, arrays)
    assert error(shown(case, outputs, chosen), wanted) <= allowed(case, N)
    assert [kernel for kernel, _, _ in tape] == [ladder.rungs()[number].kernel]


def test_only_a_hopper_gpu_has_the_last_rung():
    assert [case.wgmma for case in ladder.cases()] == [False]*5 + [True]


def test_tensor_cores_are_predicted_to_be_faster_with_each_step():
    found = [ladder.predicted(rung) for rung in ladder.rungs()]
    # two blocks hide each other's waits
    assert found[0] is None and found[2:] == sorted(found[2:]) and found[1] < 1.05*found[2]
    assert all(0 < rate < ladder.PEAKS[rung.precision] for rate, rung in zip(found[1:], ladder.rungs()[1:]))


def test_the_table_says_what_is_measured_by_the_newest_file(tmp_path):
    rows = ladder.table(tmp_path).splitlines()
    assert len(rows) == 2 + len(ladder.rungs()) and rows[2].startswith("| 1 | a thread a number | fp32 | 67 | not modelled | "
                                                                       "not yet |")
    last = ladder.cases()[-1]
    for date, us in ("2026-01-02", 200.0), ("2027-01-02", 100.0):
        cases = [{"name": last.name, "flops": last.flops(128), "us": us}, {"name": "conv4 forward", "flops": 1, "us": 1.0}]
        (tmp_path/f"nvidia-h200-{date}.json").write_text(json.dumps({"cases": cases}))
    share = last.flops(128)/100e-6/1e12/ladder.PEAKS["bf16"]
    assert ladder.table(tmp_path).splitlines()[-1].endswith(f"| {share:.0%} |")
    assert ladder.table(tmp_path).count("not yet") == len(ladder.rungs()) - 1
