"""The list of planted defects stays a list of this tree: each text that a defect changes stands where it says, once."""
import pytest

from tests.planted import DEFECTS, ROOT


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.what)
def test_a_defect_can_still_be_planted(defect):
    assert (ROOT/defect.file).read_text(encoding="utf-8").count(defect.old) == 1 and defect.new != defect.old
    assert all((ROOT/"tests"/place).exists() for place in defect.tests.split())
