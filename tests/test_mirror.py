"""One noun, four places: kernels/<noun>.cu, zfcore/ops/<noun>.py, a test of each, a case in bench/cases.py."""
from pathlib import Path

import numpy as np
import pytest

from bench.cases import Source, cases
from bench.resources import declared
from zfcore.models.zfnet import tiny

ROOT = Path(__file__).parents[1]
NOUNS = sorted(path.stem for path in (ROOT/"kernels").glob("*.cu"))
CASES = cases(tiny(size=64))


@pytest.mark.parametrize("noun", NOUNS)
def test_every_kernel_file_has_an_operation_its_tests_and_a_bench_case(noun):
    for path in (f"zfcore/ops/{noun}.py", f"tests/ops/test_{noun}.py", f"tests/kernels/test_{noun}.py"):
        assert (ROOT/path).exists(), path
    assert noun in {kernel.file.removesuffix(".cu") for kernel in declared()}
    assert noun in {case.noun for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_bench_case_runs_and_says_what_it_moves(case):
    assert len(case.run(*case.draw(Source(np.asarray), 3))) > 0
    assert case.noun in NOUNS and case.traffic(3) > 0 and case.flops(3) >= 0
