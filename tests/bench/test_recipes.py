"""The table of recipes: every one can be typed, and a run's row is what the run is."""
import json
from types import SimpleNamespace

import pytest

from bench import recipes
from train.config import parser, resolve


def test_every_recipe_is_a_command_of_its_own():
    resolved = [resolve(vars(parser().parse_args(words.split()))) for words in recipes.RECIPES.values()]
    assert len(set(resolved)) == len(resolved)


def test_a_run_is_trained_once_and_its_row_tells_error_start_and_legibility(tmp_path, monkeypatch):
    trained = []
    def short(words, train=recipes.train):
        trained.append(words)
        train([*words, "--image-size", "32", "--limit-per-class", "4", "--batch-size", "20", "--epochs", "2", "--workers", "0", "--device", "cpu"])
    monkeypatch.setattr(recipes, "train", short)
    monkeypatch.setattr(recipes, "RESULTS", tmp_path/"cpu.json")
    for _ in range(2):
        recipes.main(SimpleNamespace(output=str(tmp_path/"runs"), only=["decay-0.03", "drop-lr-0.004"]))
    report = json.loads((tmp_path/"recipes.json").read_text())
    assert len(trained) == 2 and [row["name"] for row in report["rows"]] == ["decay-0.03", "drop-lr-0.004"]
    row = report["rows"][0]
    assert (row["epochs"], row["steps"]) == (2, 4) and row["start"] == pytest.approx(1, abs=0.01)
    assert list(row["in_box"]) == ["conv5", "fc8"] and all(0 < share < 1 for shares in row["in_box"].values() for share in shares)
    text = recipes.table(report)
    assert text.count("\n") == 3 and "| `--weight-decay 0.03 --epochs 10 --patience 3` | 2 |" in text
