"""The list of planted defects stays a list of this tree: each text that a defect changes stands where it says, once."""
from tests.planted import DEFECTS, ROOT


def test_each_defect_can_still_be_planted():
    assert [defect.what for defect in DEFECTS
            if (ROOT/defect.file).read_text(encoding="utf-8").count(defect.old) != 1 or defect.new == defect.old] == []


def test_the_tests_about_each_defect_are_there():
    assert [defect.what for defect in DEFECTS if not all((ROOT/"tests"/place).exists() for place in defect.tests.split())] == []
