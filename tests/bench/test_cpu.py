"""`python -m bench cpu` says what it cannot do before it measures."""
from types import SimpleNamespace

import pytest

from bench import cpu
from zfcore.check import Expected


def test_an_output_that_is_a_folder_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "cpu_name", None)             # called before the first measurement
    with pytest.raises(Expected, match="--output: expected a JSON file, got .*, a folder"):
        cpu.main(SimpleNamespace(output=tmp_path))
