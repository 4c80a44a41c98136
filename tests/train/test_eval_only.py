"""--eval-only prints the validation error with its protocol and leaves everything as it was."""
import os

import pytest

import zfcore
from tests.train.conftest import write_set
from tests.spoken import spoken
from train.__main__ import main
from zfcore.training.evaluation import open_part


@pytest.fixture
def run(options, tmp_path, capsys):
    main([*options, "--epochs", "3", "--output", str(tmp_path/"run")])
    capsys.readouterr()
    return tmp_path/"run"


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def printed(capsys, *words):
    main(list(map(str, words)))
    return spoken(capsys.readouterr().out)[-1]


def test_the_error_of_a_run_is_that_of_its_log_with_crops_networks_set_and_count(run, pictures, capsys):
    before = state(run.parent)
    line = printed(capsys, "--resume", run, "--eval-only")
    error = 100*float((run/"log.csv").read_text().splitlines()[-1].split(",")[6])
    assert line.startswith(f"{run}/latest.h5, epoch 3: top-1 error {error:.1f} %")
    assert f"(centre crop, 1 network, 12 validation pictures of {pictures})" in line
    assert state(run.parent) == before


def test_a_run_on_some_of_each_class_is_judged_on_as_many(options, pictures, tmp_path, capsys):
    main([*options, "--epochs", "1", "--output", str(tmp_path/"few"), "--limit-per-class", "2"])
    capsys.readouterr()
    model = zfcore.open(tmp_path/"few")
    assert (f"1 network, {2*len(model.classes)} validation pictures of"
            in printed(capsys, "--resume", tmp_path/"few", "--eval-only"))
    assert model.limit_per_class == 2 and len(open_part([model], None, "train", False, 1)[0]) == 2*len(model.classes)
    assert len(open_part([model], str(pictures), "train", False, 1)[0]) > 2*len(model.classes)


def test_another_set_of_the_same_classes_may_be_named(run, tmp_path, capsys):
    other = write_set(tmp_path/"other", per_class=(1, 3))
    line = printed(capsys, "--init-from", run, "--data", other, "--eval-only")
    assert line.startswith(f"{run}, epoch ") and f"9 validation pictures of {other})" in line
    assert "of " + str(other) not in printed(capsys, "--init-from", run, "--eval-only")


def test_it_needs_a_network_and_that_networks_classes(run, pictures, capsys):
    for words, sentence in ((["--eval-only"], "--eval-only: expected --resume RUN or --init-from RUN"),
                            (["--eval-only", "--init-from", str(run), "--data", str(pictures)], "violet")):
        if "--data" in words:
            for part in ("train", "val"):
                os.rename(pictures/part/"plum", pictures/part/"violet")
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 2 and sentence in capsys.readouterr().err
