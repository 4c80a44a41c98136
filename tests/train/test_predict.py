"""Own pictures from the folder to the prediction: what is trained on ROOT/CLASS/*.png is judged on its other part, on other
folders, and says what it takes pictures without classes for."""
import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import zfcore
from tests.train.conftest import write_set
from train.__main__ import main as train
from train.evaluate import main as evaluate
from train.predict import FILES, OF_EVALUATION, in_words, is_own, main, write_sheet, write_tables
from zfcore import plots
from zfcore.data.folders import Files, open_folders
from zfcore.data.loader import Pictures
from zfcore.training import predict

TINY = ("--preset tiny --image-size 32 --batch-size 8 --epochs 1 --lr 0.003 --workers 1 --device cpu").split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder ROOT/CLASS/*.png, [run, run] trained on it)."""
    root = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(root/"cache"))
        write_set(root/"set")
        for seed in "01":
            train(["--data", str(root/"set"/"train"), "--val-fraction", "0.3", *TINY, "--seed", seed, "--output",
                   str(root/f"run{seed}")])
        yield root/"set"/"train", [root/"run0", root/"run1"]


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def run(*words):
    main([*map(str, words), "--device", "cpu", "--workers", "1"])


def refused(capsys, command, *words):
    with pytest.raises(SystemExit) as exit:
        command([*map(str, words), "--device", "cpu"])
    assert exit.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_is_judged_on_its_own_other_part_and_on_all_of_other_folders(made, tmp_path):
    data, (first, _) = made
    shutil.copytree(data/"jade", tmp_path/"other"/"jade")
    parts = open_folders(data, val_fraction=0.3)
    for k, (words, count) in enumerate((((), len(parts[1])), (("--data", data), len(parts[1])),
                                        (("--data", data, "--part", "train"), len(parts[0])),
                         (("--data", tmp_path/"other"), 10), (("--data", data.parent), 12))):
        evaluate([*map(str, ["--run", first, *words, "--output", tmp_path/f"out{k}"]), "--device", "cpu"])
        assert json.loads((tmp_path/f"out{k}"/"summary.json").read_text())["count"] == count
    assert 3 <= len(parts[1]) <= 18


def test_a_run_is_judged_on_its_validation_pictures_wherever_they_lie_now(made, tmp_path):
    data, (first, _) = made
    before = open_folders(data, val_fraction=0.3)[1]
    shutil.copytree(data, tmp_path/"moved")
    shutil.copytree(data/"jade", tmp_path/"others"/"jade")
    for path in (tmp_path/"others"/"jade").iterdir():
        path.rename(path.with_name(f"new {path.name}"))
    model = zfcore.open(first, "cpu")
    assert list(model.dataset(str(tmp_path/"moved")).names) == list(before.names)
    assert len(model.dataset(str(tmp_path/"moved"), "train")) == 30 - len(before)
    assert len(model.dataset(str(tmp_path/"others"))) == 10                    # somebody else's: all of them


def test_a_name_that_there_is_not_is_no_damaged_picture(made, tmp_path, capsys):
    data, (first, _) = made
    assert "nope.png: expected a picture or a folder of pictures" in refused(capsys, main, "--run", first, data/"jade",
                                                                             tmp_path/"nope.png")


def test_what_has_no_classes_or_no_such_part_is_refused_by_name(made, tmp_path, capsys):
    data, (first, _) = made
    assert "train.predict says what they are taken for" in refused(capsys, evaluate, "--run", first, "--data", data/"jade")
    shutil.copytree(data, tmp_path/"other")
    for path in [*(tmp_path/"other").rglob("*.png")]:
        path.rename(path.with_name(f"other {path.name}"))
    (tmp_path/"other"/"jade").rename(tmp_path/"other"/"green")
    said = refused(capsys, evaluate, "--run", first, "--data", tmp_path/"other")
    assert "among them green; a file classes.txt beside" in said and "zfcore import --labels" in said
    (tmp_path/"other"/"green").rename(tmp_path/"other"/"jade")
    assert "--part val has 30" in refused(capsys, evaluate, "--run", first, "--data", tmp_path/"other", "--part", "train")
    assert "pictures without a class folder" in refused(capsys, train, "--data", data/"jade", "--output", tmp_path/"run")


@pytest.mark.parametrize("crops", ["centre", "ten"])
@pytest.mark.parametrize("many", [1, 2])
def test_predictions_are_those_of_the_library_the_likeliest_first(made, tmp_path, capsys, crops, many):
    data, runs = made
    files = [data/"plum"/"03.png", data/"amber"]
    run("--run", *runs[:many], *files, "--crops", crops, "--output", tmp_path/"out")
    models = [zfcore.open(path, "cpu") for path in runs[:many]]
    found = predict(models, Pictures(Files(files, models[0].size), models[0].size, models[0].crop), crops=crops)
    head, *table = rows(tmp_path/"out"/"probabilities.csv")
    assert head == ["name", *models[0].classes] and [row[0] for row in table] == [str(files[0]),
                                                                                  *map(str, sorted(files[1].iterdir()))]
    np.testing.assert_allclose(np.array([row[1:] for row in table], float), found.p.T, rtol=1e-4)
    _, *top = rows(tmp_path/"out"/"predictions.csv")
    for row, p in zip(top, found.p.T):
        assert row[1::2] == [models[0].classes[k] for k in np.argsort(-p)] and np.allclose(np.float32(row[2::2]),
                                                                                           np.sort(p)[::-1], rtol=1e-4)
    said = capsys.readouterr().out
    assert f"{files[0]}: {top[0][1]} {100*float(top[0][2]):.1f} %, " in said and {path.name for path in (tmp_path/"out").iterdir()} == set(FILES)


def test_pictures_may_stand_before_or_behind_the_runs_and_damaged_ones_are_left_out(made, tmp_path, capsys):
    data, (first, _) = made
    shutil.copytree(data/"jade", tmp_path/"mine")
    for k in range(6):
        (tmp_path/"mine"/f"{k:02}.png").write_bytes(b"no picture")
    tables = []
    for words in ((tmp_path/"mine", "--run", first), ("--run", first, tmp_path/"mine")):
        run(*words, "--output", tmp_path/"out")
        tables.append(rows(tmp_path/"out"/"predictions.csv"))
        assert capsys.readouterr().err.count("picture left out: ") == 6
    assert tables[0] == tables[1] and len(tables[0]) == 1 + 4
    assert "FILE_OR_FOLDER: expected pictures" in refused(capsys, main, "--run", first)


def test_a_file_behind_the_runs_that_is_no_network_is_looked_at_as_a_picture(made, tmp_path, capsys):
    data, (first, second) = made
    (tmp_path/"own.py").write_text("pass")
    shutil.copy(second/"best.h5", tmp_path/"second.bak")
    assert "got 1 that cannot" in refused(capsys, main, "--run", first, tmp_path/"own.py")
    run("--run", first, tmp_path/"second.bak", tmp_path/"own.py", data/"plum"/"03.png", "--output", tmp_path/"out")
    assert "own.py: not a picture" in capsys.readouterr().err and len(rows(tmp_path/"out"/"predictions.csv")) == 1 + 1
    assert "none beside --run" in refused(capsys, main, "--run", data/"plum"/"03.png")
    assert "--output: expected a new folder" in refused(capsys, main, "--run", first, data/"plum", "--output", tmp_path/"own.py")


def test_any_class_is_one_line_on_the_terminal_and_to_be_seen_on_the_sheet(monkeypatch):
    classes, p, order = ["b\nnew\x1b[31mline", "犬", "a " + "x"*60], np.full((3, 1), 1/3), np.arange(3)[:, None]
    (line,) = in_words(["a.png"], order, p, classes)
    assert line.isprintable()
    sheets = []
    monkeypatch.setattr(plots, "save", lambda sheet, path: sheets.append(sheet))
    pictures, found = SimpleNamespace(picture=lambda i: np.zeros((8, 8, 3), np.uint8)), SimpleNamespace(p=p, indices=np.arange(1))
    for likeliest in (order, order[::-1]):
        write_sheet("a.png", pictures, found, likeliest, classes)
    said = [line for sheet in sheets for _, _, line, *_ in sheet.texts[-2:]]
    assert said[0].startswith(r"0.333 b\nnew") and said[1] == said[3] == "0.333 class 1" and said[2].startswith("0.333 a xx")


def test_a_folder_may_hold_what_was_predicted_of_it_before_and_small_pictures(made, tmp_path, capsys):
    data, (first, _) = made
    shutil.copytree(data/"jade", tmp_path/"mine")
    Image.new("RGB", (31, 90)).save(tmp_path/"mine"/"small.png")
    shutil.copy(data/"plum"/"03.png", tmp_path/"mine"/"predictions.png")       # a picture of that name is one
    for _ in range(2):
        run("--run", first, tmp_path/"mine", "--output", tmp_path/"mine"/"out")
        said = capsys.readouterr()
        assert "small.png: 31x90 pixels, where the network's input has 32x32; --upscale enlarges it" in said.err
        assert len(rows(tmp_path/"mine"/"out"/"predictions.csv")) == 1 + 11
    assert {path.name for path in (tmp_path/"mine"/"out").iterdir()} == set(FILES)
    shutil.copytree(first, tmp_path/"mine"/"run")                              # with figures, and evaluations of its own
    for folder in (tmp_path/"mine"/"run"/"figures"/"atlas"/"sheets", tmp_path/"mine"/"judged"):
        folder.mkdir(parents=True)
        shutil.copy(data/"plum"/"03.png", folder/"worst.png")
    assert len(Files([tmp_path/"mine"], written=is_own).names) == 13           # the one that is beside no tables
    for name in OF_EVALUATION:
        (tmp_path/"mine"/"judged"/name).touch()
    assert len(Files([tmp_path/"mine"], written=is_own).names) == 12
    shutil.rmtree(tmp_path/"mine"/"run"), shutil.rmtree(tmp_path/"mine"/"judged")
    run("--run", first, tmp_path/"mine", "--upscale", "--output", tmp_path/"out")
    assert len(rows(tmp_path/"out"/"predictions.csv")) == 1 + 12
    assert "pictures: expected at least one that can be used, got 1 that cannot" in refused(capsys, main, "--run", first,
                                                                                            tmp_path/"mine"/"small.png")


def test_both_parts_are_looked_at_before_the_first_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    data = write_set(tmp_path/"set")
    for k in (0, 1):
        (data/"val"/"jade"/f"{k:02}.png").write_bytes(b"no picture")
    sentence = refused(capsys, train, "--data", data, *TINY, "--output", tmp_path/"run")
    assert "at most 1 damaged picture," in sentence and "2 of 12" in sentence and not (tmp_path/"run").exists()


def test_what_a_system_puts_into_folders_is_no_answer_of_somebody_elses_and_a_dot_begins_no_suffix(made, tmp_path):
    data, runs = made
    output = tmp_path/"trip 2026.11"
    for number, pictures in enumerate((data/"jade", data/"jade", data/"plum")):
        run("--run", runs[0], pictures, "--output", output)
        (output/".DS_Store").touch()
        (output/"Thumbs.db").touch()
    assert {path.name for path in tmp_path.iterdir()} >= {"trip 2026.11", "trip 2026.11_2"}


def test_a_class_called_as_a_column_has_one_of_its_own(tmp_path):
    write_tables(tmp_path, ["1.png"], np.array([[1], [0]]), np.array([[0.25], [0.75]]), ["name", "other"])
    with open(tmp_path/"probabilities.csv", newline="") as file:
        assert [*csv.DictReader(file)] == [{"picture": "1.png", "name": "0.25", "other": "0.75"}]
