"""One noun, four places: kernels/<noun>.cu, zfcore/ops/<noun>.py, a test of each, a case in bench/cases.py. What takes more
than one file is kernels/<noun>_<part>.cu, zfcore/ops/<noun>_<part>.py."""
from pathlib import Path

import numpy as np
import pytest

from bench.cases import Source, cases
from bench.resources import declared
from zfcore.models.zfnet import tiny

ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT/"kernels").glob("*.cu"))
CASES = cases(tiny(size=64))
NOUNS = {case.noun for case in CASES}


def noun(file):
    """The longest noun that the name of a file begins with, or the name."""
    return max((one for one in NOUNS if f"{file}_".startswith(f"{one}_")), key=len, default=file)


@pytest.mark.parametrize("file", FILES)
def test_every_kernel_file_has_an_operation_its_tests_and_a_bench_case(file):
    for path in (f"kernels/{noun(file)}.cu", f"zfcore/ops/{noun(file)}.py", f"tests/ops/test_{noun(file)}.py",
                 f"tests/kernels/test_{noun(file)}.py"):
        assert (ROOT/path).exists(), path
    assert file in {kernel.file.removesuffix(".cu") for kernel in declared()}
    assert noun(file) in NOUNS


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_bench_case_runs_and_says_what_it_moves(noun):
    assert noun in FILES
    for case in (case for case in CASES if case.noun == noun):
        assert len(case.run(*case.draw(Source(np.asarray), 3))) > 0, case.name
        assert case.traffic(3) > 0 and case.flops(3) >= 0, case.name
