"""The table of recipes: every one can be typed, and a run's row is what the run is."""
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench import recipes
from zfcore.check import Expected
from zfcore.models import from_checkpoint, start_of
from zfcore.trained import Trained


def test_every_recipe_is_a_command_of_its_own():
    resolved = [(recipes.config_of(recipe), recipe.words) for recipe in recipes.RECIPES.values()]
    assert len(set(resolved)) == len(resolved)


def test_what_the_page_says_of_several_recipes_is_what_their_rows_say():
    def span(of, names):
        values = [100*of(rows[name]) for name in names]
        return f"{min(values):.0f} to {max(values):.0f}"

    rows = {row["name"]: row for row in json.loads((recipes.RESULTS/"recipes.json").read_text())["rows"]}
    config = {name: recipes.config_of(recipes.RECIPES[name]) for name in rows if "--weight-decay" in rows[name]["options"]}
    decayed = {name for name in config if config[name].weight_decay >= 0.03}
    fast = {name for name in decayed if config[name].lr > 0.003}
    box, part = (lambda row: row["in_box"]["conv5"][0]), (lambda row: row["in_parts"]["conv5"][0])
    ahead = lambda row: box(row) - row["in_box"]["conv5"][1]
    parts = {name: f"{100*part(rows[name]):.0f}" for name in rows if name != "double-start"}
    near = sorted(parts[name] for name in ("drop", "drop-no-dropout", "drop-batch-24", "default"))
    said = " ".join((recipes.RESULTS.parent/"README.md").read_text("utf-8").split())
    for words in (
            f"have {', '.join(near[:-1])} and {near[-1]} % of layer 5's energy in the parts",
            f"have {span(box, decayed)} % of layer 5's energy in the box, the one with 0.0005 {100*box(rows['decay-0.0005']):.0f} %",
            f"with 0.0005 and by {span(ahead, decayed - fast)} with more, at rates of 0.004 and 0.005 by {span(ahead, fast)}.",
            f"{parts['without-normalisation']} against {parts['default']} % of the energy in the box, one seed does not settle: with "
            f"it `--keep-prob 1` has {parts['drop-no-dropout']} % and a batch of 24 {parts['drop-batch-24']}."):
        assert words in said


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Short runs, judged on few pictures; their results in tmp_path."""
    of, all_of = recipes.config_of, Trained.pictures
    monkeypatch.setattr(recipes, "config_of", lambda recipe: replace(
        of(recipe), image_size=32, limit_per_class=4, batch_size=20, epochs=2, workers=0, device="cpu"))
    monkeypatch.setattr(Trained, "pictures", lambda model, data: all_of(model, data, limit_per_class=5))
    monkeypatch.setattr(recipes, "RESULTS", tmp_path)


def run(tmp_path, *names):
    recipes.main(SimpleNamespace(output=str(tmp_path/"runs"), only=names))
    return {row["name"]: row for row in json.loads((tmp_path/"recipes.json").read_text())["rows"]}


def test_a_run_that_was_stopped_goes_on_and_one_of_another_recipe_is_refused(short, tmp_path):
    config = recipes.config_of(recipes.RECIPES["decay-0.03"])
    recipes.train_to_the_end(replace(config, epochs=1), tmp_path/"runs"/"decay-0.03")
    with pytest.raises(Expected, match="a run with the options of this recipe"):
        run(tmp_path, "decay-0.03")
    stored = json.loads((tmp_path/"runs/decay-0.03/config.json").read_text())
    stored["options"]["epochs"] = 2                                    # as if it had been stopped in between
    (tmp_path/"runs/decay-0.03/config.json").write_text(json.dumps(stored))
    assert run(tmp_path, "decay-0.03")["decay-0.03"]["epochs"] == 2


def test_what_no_option_does_is_done_before_the_first_step(short, tmp_path):
    run(tmp_path, "half-start", "without-normalisation")
    for name, recipe in (("half-start", recipes.RECIPES["half-start"]),
                         ("without-normalisation", recipes.RECIPES["without-normalisation"])):
        network, checkpoint = from_checkpoint(tmp_path/"runs"/name/"latest.h5")
        w, w0 = (net["conv3"].parameters["w"] for net in (network, start_of(checkpoint)))
        assert float((w*w0).sum()/(w0*w0).sum()) == pytest.approx(0.5 if name == "half-start" else 1, abs=0.05)
        assert {row["alpha"] for row in network.table() if row["kind"] == "LocalResponseNorm"} == {1e-4 if name == "half-start" else 0}


def test_a_run_is_trained_once_and_its_row_tells_error_start_and_legibility(short, tmp_path, monkeypatch):
    run(tmp_path, "decay-0.03", "drop-lr-0.004")
    monkeypatch.setattr(recipes.Training, "one_epoch", lambda self: pytest.fail("trained again"))
    run(tmp_path, "decay-0.03", "drop-lr-0.004")
    report = json.loads((tmp_path/"recipes.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["decay-0.03", "drop-lr-0.004"]
    row = report["rows"][0]
    assert (row["epochs"], row["steps"]) == (2, 4) and row["start"] == pytest.approx(1, abs=0.01)
    assert list(row["in_box"]) == ["conv5", "fc8"] and all(0 < share < 1 for shares in row["in_box"].values()
                                                           for share in shares)
    text = recipes.table(report)
    assert text.count("\n") == 5 and "| `--weight-decay 0.03 --epochs 10 --patience 3` | 2 |" in text


def test_the_table_says_every_machine_and_the_days_of_its_rows():
    row = json.loads((recipes.RESULTS/"recipes.json").read_text())["rows"][0]
    rows = [row | {"cpu": cpu, "cores": cores, "numpy": "2.4", "date": f"2026-11-{day}T01:02:03+00:00"}
            for cpu, cores, day in (("Old", 2, 28), ("New", 1, "09"), ("Old", 2, 27))]
    head = recipes.table({"rows": rows}).split("\n")[0]
    assert head == "Old, 2 cores, NumPy 2.4; New, 1 core, NumPy 2.4; 2026-11-09 to 2026-11-28."
    assert recipes.table({"rows": rows[:1]}).startswith("Old, 2 cores, NumPy 2.4; 2026-11-28.\n\n| ")
