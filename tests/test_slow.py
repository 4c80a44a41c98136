"""Which tests `-m "not slow"` leaves: those that a run measured as fast, and of the others one case where that is fast."""
from types import SimpleNamespace

from tests import slow


def test_first_cases_and_one_test_of_each_file_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(slow, "TABLE", tmp_path/"slow.txt")
    slow.TABLE.write_text("0.60 30 a.py::many\n2.00 4 a.py::each\n5.00 1 b.py::one\n9.00 2 b.py::two\n")
    items = [SimpleNamespace(nodeid=name, path=name.split("::")[0]) for name in (
        "a.py::many[0]", "a.py::many[1]", "a.py::each[0]", "a.py::new", "b.py::one", "b.py::two[0]", "b.py::two[1]")]
    assert [item.nodeid for item in slow.marked(items)] == ["a.py::many[1]", "a.py::each[0]", "b.py::one", "b.py::two[1]"]


def test_a_file_takes_what_its_slow_functions_take(monkeypatch, tmp_path):
    monkeypatch.setattr(slow, "TABLE", tmp_path/"slow.txt")
    slow.TABLE.write_text("0.50 30 a.py::many\n2.00 4 a.py::each\n5.00 1 b.py::one\n")
    assert slow.of_a_file() == {"a.py": 2.5, "b.py": 5}


def test_a_run_of_fewer_cases_counts_only_where_each_takes_long(monkeypatch, tmp_path):
    monkeypatch.setattr(slow, "TABLE", tmp_path/"slow.txt")
    monkeypatch.setattr(slow, "TAKEN", {"a": [0.01], "b": [1.5], "c": [0.05]*3, "d": [0.3]})
    slow.TABLE.write_text("0.60 30 a\n0.90 30 b\n0.20 2 c\n")
    slow.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()))
    assert slow.table() == {"a": (0.6, 30), "b": (1.5, 1), "c": (0.15, 3), "d": (0.3, 1)}
