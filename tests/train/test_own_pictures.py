"""People's own pictures, from a folder without parts to what is said of them and stands in the tables."""
import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.spoken import in_one
from tests.train.conftest import short, write_set
from train.__main__ import main
from train.evaluate import main as evaluate
from zfcore.__main__ import main as look
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.training.loop import lacking


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Class folders without parts, three damaged pictures among 61, and a class that has only one."""
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    root = write_set(tmp_path/"own", per_class=(20, 1))/"train"
    for name in ("amber/00.png", "jade/11.png", "plum/10.png"):
        (root/name).write_bytes(b"no picture")
    (root/"one of a kind").mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root/"one of a kind"/"it.png")
    return root


def column(path, name):
    with open(path, newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_numbers_are_of_what_is_trained_on_and_names_are_paths_that_a_person_can_open(own, tmp_path, capsys):
    run = tmp_path/"run"
    main([*short(own), "--epochs", "1", "--output", str(run)])
    said = capsys.readouterr()
    left_out = re.findall(r"picture left out: (\S+):", said.err)
    assert sorted(left_out) == ["amber/00.png", "jade/11.png", "plum/10.png"]
    parts = [Pictures(part, 37, 32) for part in open_data(str(own), 37)]
    for part in parts:
        part.prepare(progress=False)
    train, val = (sum(part.of_classes()) for part in parts)
    assert train + val == 58 and f"4 classes, {train} training and {val} validation pictures; 3 damaged left out" in in_one(said.out)
    assert f"{val} pictures)" in in_one(said.out)
    pictures = [entry for entry in json.loads((run/"config.json").read_text())["departures"]
                if f"{train} training pictures" in str(entry)]
    assert pictures and in_one(said.err).count("1 of 4 classes with no validation picture") == 1
    assert "'one of a kind' (1 training picture)" in in_one(said.err)

    evaluate(["--run", str(run), "--output", str(tmp_path/"evaluation"), "--device", "cpu"])
    look(["top-activations", "--run", str(run), "--output", str(tmp_path/"top"), "--layers", "conv1", "--units", "0:3", "--k",
          "2", "--device", "cpu", "--folders"])
    names = [*column(run/"pictures.csv", "picture"), *column(tmp_path/"evaluation"/"predictions.csv", "name"), *left_out,
             *json.loads((tmp_path/"evaluation"/"summary.json").read_text())["damaged"],
             *re.findall(r'"name": "([^"]*)"', "".join(path.read_text() for path in (tmp_path/"top").rglob("info.json")))]
    assert len(names) > 61 + val and all((own/name).is_file() for name in names)
    assert set(column(run/"pictures.csv", "part")) == {"train", "val"}


@pytest.mark.parametrize("seed", range(20))
def test_classes_that_lack_pictures_are_named_with_how_many_they_have(seed):
    class Some:
        picture = None                                                 # nobody looks at one

        def __init__(self, counts):
            self.classes, self.labels = ["a", "b", "c", "d", "e"], np.repeat(np.arange(5), counts)
            self.names = [str(i) for i in range(len(self.labels))]

        def __len__(self):
            return len(self.labels)

    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (2, 5))
    counts[:, 0] += 1
    damaged = [rng.random(of.sum()) < 0.3 for of in counts]
    parts = [Pictures(Some(of), 8, 8) for of in counts]
    for part, bad in zip(parts, damaged):
        part.damaged = dict.fromkeys(np.flatnonzero(bad).tolist(), "")
    sound = [[sum(label == k and not lost for label, lost in zip(part.dataset.labels, bad)) for k in range(5)]
             for part, bad in zip(parts, damaged)]
    lines = [*lacking(*parts)]
    not_learned = [k for k in range(5) if not sound[0][k]]
    not_judged = [k for k in range(5) if sound[0][k] and not sound[1][k]]
    assert len(lines) == bool(not_learned) + bool(not_judged)
    for line, classes in zip(lines, filter(None, (not_learned, not_judged))):
        assert line.startswith(f"{len(classes)} of 5 classes with no ")
        assert all(f"'{'abcde'[k]}' ({sound[0][k]} training picture{'' if sound[0][k] == 1 else 's'})" in line
                   for k in classes[:3])
