"""Pictures that were moved, changed, lost or added between two halves of a run."""
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfcore
from tests.train.conftest import COLOURS, short, write_set
from tests.train.test_loop import assert_same_bits
from train.__main__ import main
from train.evaluate import main as evaluate
from zfcore.check import Expected
from zfcore.checkpoint import load, save, write_csv
from zfcore.data import open_data
from zfcore.terminal import command
from zfcore.training import Training
from zfcore.training.folder import check_pictures


@pytest.fixture
def run(made, tmp_path):
    """A run of one epoch, whose pictures are as those of the fixture `pictures`, elsewhere."""
    return made(1, tmp_path/"run")


def refused(capsys, *words):
    """The sentence with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: "), said
    return said.removeprefix("error: ").strip()


def test_a_run_goes_on_with_its_pictures_at_another_place_bit_for_bit_and_all_its_files_say_so(run, made, pictures, tmp_path):
    before = load(run/"best.h5")
    main(["--resume", str(run), "--data", str(pictures), "--epochs", "4"])
    assert_same_bits(made(4, tmp_path/"whole")/"latest.h5", run/"latest.h5")
    assert {load(path).state["data"] for path in run.glob("*.h5")} == {str(pictures)}
    assert json.loads((run/"config.json").read_text())["options"]["data"] == str(pictures)
    kept = load(run/"best.h5")
    if kept.epoch == before.epoch:                         # nothing else in it is another
        assert kept.step == before.step and all(np.array_equal(kept.velocity[layer][key], array)
                                                for layer, of in before.velocity.items()
                                                for key, array in of.items())
    assert len(zfcore.open(run).pictures()) == 12


def test_an_evaluation_of_a_run_whose_pictures_were_moved_says_how_to_name_them(run, tmp_path, capsys):
    checkpoint = load(run/"best.h5")
    save(run/"best.h5", replace(checkpoint, state={**checkpoint.state, "data": str(tmp_path/"gone")}))
    with pytest.raises(SystemExit) as end:
        evaluate(["--run", str(run), "--device", "cpu"])
    assert end.value.code == 2 and "gone', which does not exist; --data NEW names where they are now" in capsys.readouterr().err


def test_what_a_relative_place_names_is_found_from_any_folder(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([*short(pictures), "--data", "pictures", "--epochs", "1", "--output", "run"])
    (tmp_path/"elsewhere").mkdir()
    monkeypatch.chdir(tmp_path/"elsewhere")
    assert len(zfcore.open("../run").pictures()) == 12
    capsys.readouterr()
    evaluate(["--run", "../run"])
    assert "12 validation" in capsys.readouterr().out
    main(["--resume", "../run", "--epochs", "2"])
    main(["--resume", "../run", "--eval-only"])


def test_a_run_that_stored_a_relative_place_goes_on_opening_where_that_is(run, pictures, tmp_path, monkeypatch, capsys):
    for path in run.glob("*.h5"):
        found = load(path)
        save(path, replace(found, state={**found.state, "data": "pictures"}))
    config = json.loads((run/"config.json").read_text())
    config["options"]["data"] = "pictures"
    (run/"config.json").write_text(json.dumps(config))
    (tmp_path/"elsewhere").mkdir()
    monkeypatch.chdir(tmp_path/"elsewhere")
    for said in (refused(capsys, "--resume", run), refused(capsys, "--resume", run, "--eval-only")):
        assert "'pictures', which does not exist; --data NEW names where they are now" in said
    with pytest.raises(Expected, match="which does not exist; data NEW"):
        zfcore.open(run).pictures()
    monkeypatch.chdir(tmp_path)
    assert len(zfcore.open(run).pictures()) == 12
    main(["--resume", str(run), "--epochs", "2"])
    assert load(run/"best.h5").state["data"] == str(pictures)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(2, 6))])
def test_what_was_lost_added_renamed_and_put_into_another_class_is_counted_and_named(seed, run, pictures, capsys):
    rng = np.random.default_rng(seed)
    files = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    chosen = rng.choice(files, int(rng.integers(1, 9)), replace=False).tolist()
    lost, new = set(), set()
    for name in chosen:
        part, of, file = name.split("/")
        lost.add(name)
        match int(rng.integers(3)):
            case 0:
                (pictures/name).unlink()
            case 1:
                (pictures/name).rename(pictures/part/of/f"also {file}")
                new.add(f"{part}/{of}/also {file}")
            case 2:
                other = next(colour for colour in COLOURS if colour != of)
                (pictures/name).rename(pictures/part/other/f"from {of} {file}")
                new.add(f"{part}/{other}/from {of} {file}")
    said = refused(capsys, "--resume", run, "--data", pictures, "--epochs", "2")
    assert "the 42 pictures that the run began with" in said and f"{len(lost)} missing" in said and "\n" not in said
    assert (f"{len(new)} new" in said) == bool(new)
    assert sum(name in said for name in lost) == min(len(lost), 3) and sum(name in said for name in new) == min(len(new), 3)
    assert load(run/"latest.h5").epoch == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2))])
def test_what_was_moved_is_named_from_where_to_where(seed, run, pictures, capsys):
    rng = np.random.default_rng(seed)
    for k, path in enumerate(sorted(pictures.rglob("*.png"))):
        with open(path, "ab") as file:
            file.write(bytes(k))                           # behind the picture's end: no two files of one size
    main(["--resume", str(run), "--data", str(pictures), "--epochs", "2"])
    ways = {}
    for name in rng.choice(sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")), 3,
                           replace=False).tolist():
        part, of, file = name.split("/")
        to = ["train", "val"][int(rng.integers(2))], str(rng.choice([colour for colour in COLOURS if colour != of])), "deep"
        ways[name] = "/".join((*to, file))
        (pictures/ways[name]).parent.mkdir(exist_ok=True)
        (pictures/name).rename(pictures/ways[name])
    said = refused(capsys, "--resume", run, "--epochs", "3")
    assert "got 3 moved (" in said and "missing" not in said and said.endswith(command("python", "-m", "train", "--data",
                                                                                       pictures, "--init-from", run))
    assert all(f"{name!r} to {to!r}" in said for name, to in ways.items())
    for name, to in ways.items():
        (pictures/to).rename(pictures/name)
    main(["--resume", str(run), "--epochs", "3"])


@pytest.mark.parametrize("before, now", [("{part}/{path}", "{path}"), ("{part}/{path}", "archive/{path}"), ("{path}", "{path}"),
                                         ("archive/{path}", "{path}"), ("{part}/{path}", "{other}/{path}"),
                                         ("archive/{part}/{path}", "{other}/{path}")])
def test_a_run_knows_its_pictures_by_whatever_name_it_listed_them(before, now, made, tmp_path):
    """As older versions did, or from a folder that was called otherwise then."""
    run, other = made(1, tmp_path/"run"), {"train": "Training", "val": "Valid"}
    with open(run/"pictures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    source, copy = Path(load(run/"latest.h5").state["data"]), tmp_path/"copy"
    split = "{part}" not in now and "{other}" not in now
    for row in rows:
        path = row["picture"].partition("/")[2]
        if split:                                          # where no folder tells, the name does
            path = path.replace("/", f"/{row['part']} ")
        to = copy/now.format(part=row["part"], other=other[row["part"]], path=path)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source/row["picture"], to)
        row["picture"] = path
    if split:                                              # as the names fall
        part_of = {part.below(i): name for name, part in zip(other, open_data(str(copy), 37)) for i in range(len(part))}
        for row in rows:
            row["part"] = part_of[row["picture"]]
        rows.sort(key=lambda row: (row["part"], row["class"], row["picture"]))
    for row in rows:
        row["picture"] = before.format(part=row["part"], path=row["picture"])
    write_csv(run/"pictures.csv", (row.values() for row in rows), *rows[0])
    assert check_pictures(run, *open_data(str(copy), 37), copy)
    rows[0]["picture"] = f"{rows[0]['picture']} is gone.png"
    write_csv(run/"pictures.csv", (row.values() for row in rows), *rows[0])
    with pytest.raises(Expected, match=r"got 1 missing \('.* is gone.png'\), 1 new \('"):
        check_pictures(run, *open_data(str(copy), 37), copy)


def test_classes_that_are_missing_or_new_are_named(run, pictures, capsys):
    shutil.rmtree(pictures/"train"/"jade")
    shutil.rmtree(pictures/"val"/"jade")
    said = refused(capsys, "--resume", run, "--data", pictures)
    assert "the 3 classes of the checkpoint, got other classes: 1 missing ('jade')" in said


def test_pictures_that_are_others_under_their_old_names_are_named_and_the_run_goes_on(run, pictures, capsys):
    Image.new("RGB", (50, 40)).save(pictures/"train"/"plum"/"03.png")
    main(["--resume", str(run), "--data", str(pictures), "--epochs", "2"])
    assert "of 42 pictures 1 changed since the run began" in (said := capsys.readouterr().err) and "train/plum/03.png" in said
    main(["--resume", str(run), "--epochs", "3"])
    assert "changed" not in capsys.readouterr().err, "told once"


def test_a_run_from_before_there_was_a_list_knows_its_pictures_by_their_mean(run, pictures, capsys):
    (run/"pictures.csv").unlink()
    others = write_set(pictures.parent/"others")
    for path in others.rglob("*.png"):
        Image.new("RGB", (41, 37), "blue").save(path)
    assert "others, whose mean image is not the same" in refused(capsys, "--resume", run, "--data", others)
    main(["--resume", str(run), "--data", str(pictures), "--epochs", "2"])
    with open(run/"pictures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42 and rows[0] == {"part": "train", "class": "amber", "picture": "train/amber/00.png",
                                           "bytes": str((pictures/"train/amber/00.png").stat().st_size)}


def test_the_same_pictures_in_another_order_are_refused_as_each_draw_is_by_a_picture_s_number(run, pictures, capsys):
    with open(run/"pictures.csv", newline="") as file:
        head, *rows = csv.reader(file)
    write_csv(run/"pictures.csv", [rows[1], rows[0], *rows[2:]], *head)
    said = refused(capsys, "--resume", run, "--data", pictures)
    assert "the 42 pictures that the run began with, got the same in another order" in said
    write_csv(run/"pictures.csv", rows, *head)
    main(["--resume", str(run), "--data", str(pictures), "--epochs", "1"])


@pytest.mark.parametrize("text", ["part,class,picture,bytes\ntrain,amber\n", "x,y\n" + "a\n"*5,
                                  'part,class,picture,bytes\n"' + "x"*200_000 + '",1,2,3\n',
                                  "\n,,,\x00,\n", "\udcff,a\n\udcff\n", "", "\n", "part,class,picture,bytes\n",
                                  "train,amber,train/amber/00.png,1\n"])
def test_a_list_that_is_none_is_one_sentence(text, run, pictures, capsys):
    (run/"pictures.csv").write_bytes(text.encode(errors="surrogateescape"))
    said = refused(capsys, "--resume", run, "--data", pictures)
    assert "pictures.csv" in said and "pictures that the run began with" not in said and "\n" not in said


def test_pictures_without_parts_are_split_alike_at_their_new_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    flat = write_set(tmp_path/"set")/"train"
    main([*short(flat), "--epochs", "1", "--val-fraction", "0.2", "--output", str(tmp_path/"run")])
    judged = Training.resume(tmp_path/"run").trained.pictures().dataset.names
    flat.rename(tmp_path/"moved")
    assert "which does not exist; --data NEW" in refused(capsys, "--resume", tmp_path/"run")
    main(["--resume", str(tmp_path/"run"), "--data", str(tmp_path/"moved"), "--eval-only"])
    assert f"{len(judged)} validation" in capsys.readouterr().out
    main(["--resume", str(tmp_path/"run"), "--data", str(tmp_path/"moved"), "--epochs", "2"])
    assert zfcore.open(tmp_path/"run").pictures().dataset.names == judged and 0 < len(judged) < 15


def test_other_pictures_that_are_called_alike_are_not_taken_for_its_own(tmp_path, monkeypatch):
    """Of its own, wherever they lie, those for validation are asked for; of others, and of a part of its own, all."""
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    flat = write_set(tmp_path/"set")/"train"
    main([*short(flat), "--epochs", "1", "--val-fraction", "0.2", "--output", str(tmp_path/"run")])
    model, count = zfcore.open(tmp_path/"run"), sum(1 for _ in flat.rglob("*.png"))
    shutil.copytree(flat, tmp_path/"moved")
    assert len(model.dataset(tmp_path/"moved")) == len(model.dataset()) < count
    shutil.copytree(flat, tmp_path/"others")
    for path in (tmp_path/"others").rglob("*.png"):
        Image.open(path).rotate(90).save(path)
        path.write_bytes(path.read_bytes() + bytes(7))
    assert len(model.dataset(tmp_path/"others")) == count


def test_the_part_for_validation_named_by_itself_is_not_split_again(tmp_path):
    root = write_set(tmp_path/"set")
    shutil.rmtree(root/"train")
    shutil.copytree(root/"val", root/"train")              # called alike in both parts, as 0001.jpg is
    main([*short(root), "--epochs", "1", "--output", str(tmp_path/"run")])
    model = zfcore.open(tmp_path/"run")
    assert len(model.dataset(root/"val")) == len(model.dataset()) == sum(1 for _ in (root/"val").rglob("*.png"))


def test_names_that_are_no_text_are_listed_and_known_again(run, pictures, tmp_path):
    odd = pictures.parent/"\udcff pictures"
    pictures.rename(odd)
    for name in ("a\nb.png", "\udc80.png", 'quote".png', "comma,.png"):
        shutil.copy(odd/"train/amber/00.png", odd/"train/amber"/name)
    main([*short(odd), "--epochs", "1", "--output", str(tmp_path/"odd")])
    odd.rename(tmp_path/"plain")
    main(["--resume", str(tmp_path/"odd"), "--data", str(tmp_path/"plain"), "--epochs", "2"])
    assert load(tmp_path/"odd"/"latest.h5").epoch == 2
