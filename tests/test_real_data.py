"""The folder of real data is the one that ZFCORE_TEST_DATA names."""
import runpy
from pathlib import Path

from tests import real_data


def test_the_variable_names_the_folder_and_a_skip_names_both_and_what_is_missing(monkeypatch, tmp_path):
    (tmp_path/"photos").mkdir()
    monkeypatch.setenv("ZFCORE_TEST_DATA", str(tmp_path))
    needs = runpy.run_path(real_data.__file__)["needs"]
    assert needs("photos").args == (False,)
    missing = needs("photos/dog.json").mark
    assert missing.args == (True,)
    assert all(word in missing.kwargs["reason"] for word in ("ZFCORE_TEST_DATA", "photos/dog.json", str(tmp_path)))


def test_without_the_variable_it_lies_beside_the_checkout(monkeypatch):
    monkeypatch.delenv("ZFCORE_TEST_DATA", raising=False)
    assert runpy.run_path(real_data.__file__)["REAL_DATA"] == Path(__file__).resolve().parents[2]/"shared/data"
