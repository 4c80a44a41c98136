"""--precision reaches the network wherever one computes: training, validation, evaluation, tables 2 and 3, analyses."""
import json

import pytest

from train.__main__ import main
from train.evaluate import main as evaluate
from train.network_tables import result_of
from train.study import Run
from zfcore import plots
from zfcore.__main__ import main as analyse
from zfcore.network import Network
from zfcore.training import resolve


@pytest.fixture
def asked(monkeypatch):
    """What `Network.use` was asked for; nothing is done about it, so that a CPU serves."""
    asked = []
    monkeypatch.setattr(Network, "use", lambda network, precision: (asked.append(precision), network)[1])
    return asked


def test_every_network_that_computes_uses_what_is_asked_for(asked, options, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "diagnostics", lambda found: None)
    monkeypatch.setattr(plots, "save", lambda drawn, path: None)
    run = tmp_path/"run"
    for command, words in ((main, [*options, "--precision", "bf16", "--output", str(run)]),
                           (main, ["--resume", str(run), "--eval-only"]), (main, ["--resume", str(run), "--epochs", "3"]),
                           (evaluate, ["--run", str(run), "--precision", "bf16"]),
                           (analyse, ["diagnostics", "--run", str(run), "--precision", "bf16"])):
        asked.clear()
        command(words)
        assert asked and set(asked) == {"bf16"}, words
    assert json.loads((run/"config.json").read_text())["options"]["precision"] == "bf16"
    asked.clear()
    evaluate(["--run", str(run)])
    assert set(asked) == {"fp32"}                          # a way to compute, not a part of the run


def test_a_row_of_table_3_is_measured_as_it_was_trained(asked, options, tmp_path):
    main([*options, "--precision", "tf32", "--output", str(tmp_path/"run")])
    asked.clear()
    run = Run(resolve({"precision": "tf32", "model": "tiny"}), tmp_path/"run")
    with pytest.raises(TypeError):                         # there are no pictures to measure with
        result_of(run, None, "centre")
    assert asked == ["tf32"]


@pytest.mark.parametrize("precision", ["fp32x3", "tf32", "bf16"])
def test_a_cpu_refuses_all_but_fp32_in_one_sentence_before_there_is_a_folder(precision, options, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*options, "--precision", precision, "--output", str(tmp_path/"run")])
    err = capsys.readouterr().err
    assert (exit.value.code, err.count("error:")) == (2, 1) and f"expected fp32, the one that NumPy has, got {precision}" in err
    assert not (tmp_path/"run").exists()
