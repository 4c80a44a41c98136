"""Whatever stops a run - a full disk, a signal, a second run, a folder that is gone - no progress is lost and one sentence says
why."""
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from matplotlib.figure import Figure

import zfcore
from tests.train.test_loop import ROOT, assert_same_bits
from tests.spoken import in_one
from train.__main__ import main
from train.evaluate import main as evaluate
from zfcore import checkpoint, plots, system
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.data import loader
from zfcore.models import from_checkpoint
from zfcore.training import Training, loop
from zfcore.training.folder import Busy, Lock


@pytest.fixture
def whole(made, pictures, tmp_path):
    """The folder of an uninterrupted run of two epochs."""
    return made(2, tmp_path/"whole")


def refused(capsys, *words):
    """The sentence that `python -m train WORDS` leaves with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(list(map(str, words)))
    err = capsys.readouterr().err
    assert exit.value.code == 2 and err.count("error:") == 1 and "Traceback" not in err
    return err


# ------------------------------------------------------------------------------------------------------ the disk
@pytest.mark.parametrize("name, code, cure", [
    *((name, errno.ENOSPC, "make room there") for name in ("latest.h5", "log.csv")),
    pytest.param("epoch_0001.h5", errno.ENOSPC, "make room there", marks=pytest.mark.exhaustive),
    pytest.param("learning_curves.png", errno.ENOSPC, "make room there", marks=pytest.mark.figures),
    ("best.h5", errno.EROFS, "make the folder writable")])
def test_a_disk_that_refuses_a_file_is_named_and_the_run_goes_on_when_it_is_mended(name, code, cure, whole, options, tmp_path,
                                                                                  monkeypatch, capsys):
    run, flush, times = tmp_path/"run", checkpoint.flush, []
    def refuse(path):
        if path.name == f".{name}.part":
            times.append(path)
            if len(times) > (name in ("latest.h5", "log.csv")):          # these two are first written when a run begins
                raise OSError(code, os.strerror(code))
        flush(path)
    monkeypatch.setattr(checkpoint, "flush", refuse)
    for figure in ("learning_curves", "filters"):                             # what they show takes long and does not matter
        monkeypatch.setattr(plots, figure, lambda *_: Figure((1, 1)))
    said = refused(capsys, *options, "--output", run)
    assert name in said and os.strerror(code) in said and cure in said and f"--resume {run}" in said
    assert not list(run.rglob("*.part")) and load(run/"latest.h5").epoch <= 1
    monkeypatch.undo()
    main(["--resume", str(run)])
    assert_same_bits(whole/"latest.h5", run/"latest.h5")
    assert_same_bits(whole/"best.h5", run/"best.h5")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_a_disk_too_small_for_the_first_checkpoint_leaves_a_run_that_can_be_resumed(whole, options, tmp_path):
    run = tmp_path/"run"
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); from train.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *options, "--output", str(run)], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2 and done.stderr.count("error:") == 1, done.stderr
    assert "latest.h5" in done.stderr and "make room there" in done.stderr
    assert not list(run.glob(".latest*")) and not list(run.glob("*.h5"))
    main(["--resume", str(run)])
    assert_same_bits(whole/"latest.h5", run/"latest.h5")


def test_a_disk_that_refuses_config_json_leaves_no_folder(options, tmp_path, monkeypatch, capsys):
    def refuse(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    main([*options, "--epochs", "1", "--output", str(tmp_path/"first")])          # fills the cache of the mean image
    monkeypatch.setattr(checkpoint, "flush", refuse)
    assert "config.json" in refused(capsys, *options, "--output", tmp_path/"run") and not (tmp_path/"run").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(whole, capsys):
    whole.chmod(0o500)
    try:
        assert "make the folder writable" in refused(capsys, "--resume", whole, "--epochs", "3")
    finally:
        whole.chmod(0o700)


def test_a_folder_that_vanishes_ends_the_run_and_is_not_made_again(options, tmp_path, monkeypatch, capsys):
    def one_step(self, *batch, step=Training.one_step):
        step(self, *batch)
        if self.step == 3:
            shutil.rmtree(self.folder)
    monkeypatch.setattr(Training, "one_step", one_step)
    said = refused(capsys, *options, "--output", tmp_path/"run")
    assert "there is no such folder" in said and "--resume" not in said and not (tmp_path/"run").exists()


def test_a_run_killed_before_its_first_checkpoint_begins_again(whole, tmp_path):
    (tmp_path/"run").mkdir()
    shutil.copy(whole/"config.json", tmp_path/"run"/"config.json")
    main(["--resume", str(tmp_path/"run")])
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")


def spoil(path, how):
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:{"empty": 0, "cut short": -1}[how]])


@pytest.mark.parametrize("how", ["gone", "empty", "cut short"])
def test_a_run_whose_latest_checkpoint_is_lost_goes_on_when_what_is_said_is_done(how, whole, capsys):
    untouched = load(whole/"latest.h5")
    spoil(whole/"latest.h5", how)
    said = " ".join(refused(capsys, "--resume", whole).split())
    assert ("latest.h5" if how != "gone" else "a run's folder with a latest.h5") in said
    names = re.search(r"; copy (.*), which that folder has too, to latest.h5$", said)[1].split(" or ")
    assert sorted(names) == sorted(path.name for path in whole.glob("*.h5") if path.name != "latest.h5")
    for name in names:
        shutil.copy(whole/name, whole/"latest.h5")
        assert Training.resume(whole).epoch <= untouched.epoch
    main(["--resume", str(whole)])
    assert_same_bits(whole/"latest.h5", whole/"epoch_0002.h5")


@pytest.mark.parametrize("how", ["empty", "cut short"])
def test_a_best_checkpoint_that_is_damaged_is_told_when_its_run_goes_on_and_when_it_is_opened(how, whole, capsys):
    spoil(whole/"best.h5", how)
    advice = "copy .*latest.h5.*, which that folder has too, to best.h5$"
    main(["--resume", str(whole)])
    assert re.search(f"{whole}/best.h5: expected .*{advice}", " ".join(capsys.readouterr().err.split()))
    with pytest.raises(Expected, match=advice):
        zfcore.open(whole)
    shutil.copy(whole/"latest.h5", whole/"best.h5")
    assert zfcore.open(whole).epoch == 2
    main(["--resume", str(whole)])
    assert capsys.readouterr().err == ""


def test_a_best_checkpoint_that_is_gone_is_told_and_the_last_lines_name_one_that_is_there(whole, capsys):
    (whole/"best.h5").unlink()
    main(["--resume", str(whole)])
    said = capsys.readouterr()
    assert f"{whole}/best.h5 is not there" in " ".join(said.err.split())
    assert "best.h5" not in said.out and f"{whole}/latest.h5" in said.out


@pytest.mark.parametrize("name", ["mine.h5", "epoch_0001.h5"])
def test_a_checkpoint_whose_place_no_other_can_take_is_told_without_one(name, whole):
    (whole/name).write_bytes(b"")
    with pytest.raises(Expected, match="got an empty file$"):
        zfcore.open(whole/name)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("text", ["{}", '{"options": {}}', '{"options": {"model": "tiny", "data": ""}}', "", "[]"])
def test_a_config_json_without_the_runs_options_is_named(text, begun, whole, capsys):
    (whole/"config.json").write_text(text)
    if not begun:
        for path in whole.glob("*.h5"):
            path.unlink()
    said = " ".join(refused(capsys, "--resume", whole).split())
    assert f"{whole}/config.json: expected a" in said and "mean image" not in said
    assert ("--init-from" in said) == (begun and text.startswith("{"))


# ------------------------------------------------------------------------------------------------------ the pictures
@pytest.fixture
def read_anew(monkeypatch):
    """Pictures that are too many for the memory, of which a few may be lost; no second is waited for each."""
    monkeypatch.setattr(loader.Pictures.__init__, "__defaults__", (False, 2, 0))
    monkeypatch.setattr(loader, "MOST_DAMAGED", 0.1)
    monkeypatch.setattr(loader, "RETRY", 0)


def before_step(number, monkeypatch, do):
    """Call `do` when the steps `number` are done."""
    def one_step(self, *batch, step=Training.one_step):
        step(self, *batch)
        if self.step == number:
            do()
    monkeypatch.setattr(Training, "one_step", one_step)


def vanish(*paths):
    for path in paths:
        path.rename(path.with_suffix(".gone"))


def test_pictures_that_vanish_or_break_in_the_third_epoch_are_named_and_the_run_goes_on(options, pictures, tmp_path, read_anew,
                                                                                     monkeypatch, capsys):
    jade = pictures/"train/jade"
    before_step(8, monkeypatch, lambda: (vanish(jade/"03.png"), (jade/"07.png").write_bytes(b"no picture")))
    main([*options, "--epochs", "4", "--output", str(tmp_path/"run")])
    err, stored = capsys.readouterr().err, load(tmp_path/"run"/"latest.h5")
    for said in ("train/jade/03.png: No such file", "train/jade/07.png: not a picture"):
        assert err.count(f"picture left out: {said}") == 1
    assert stored.epoch == 4 and stored.step == 16


@pytest.mark.parametrize("part, step, kept", [("train", 5, [5, 6]), ("val", 6, [8])])
def test_a_run_that_loses_its_pictures_keeps_its_steps_and_goes_on_when_they_are_back(part, step, kept, options, pictures,
                                                                                      tmp_path,
                                                                                    read_anew, monkeypatch, capsys):
    before_step(step, monkeypatch, lambda: vanish(*(pictures/part/"plum").glob("*.png")))
    said = refused(capsys, *options, "--workers", "0", "--output", tmp_path/"run")
    assert f"at most {'3 damaged pictures' if part == 'train' else '1 damaged picture'}," in said
    assert f"mend or remove them, then go on with python -m train --resume {tmp_path}" in said
    assert load(tmp_path/"run"/"latest.h5").step in kept and load(tmp_path/"run"/"latest.h5").epoch == 1
    for path in (pictures/part/"plum").glob("*.gone"):
        path.rename(path.with_suffix(".png"))
    main(["--resume", str(tmp_path/"run")])
    assert (load(tmp_path/"run"/"latest.h5").epoch, load(tmp_path/"run"/"latest.h5").step) == (2, 8)


def test_weights_that_are_no_numbers_any_more_do_not_replace_the_last_checkpoint(options, tmp_path, monkeypatch, capsys):
    def spoil():
        network["fc8"].parameters["b"][:] = float("nan")
    def start(self, real=Training.run, **options):
        nonlocal network
        network = self.network
        real(self, **options)
    network = None
    monkeypatch.setattr(Training, "run", start)
    before_step(8, monkeypatch, spoil)
    assert "finite" in refused(capsys, *options, "--output", tmp_path/"run") and load(tmp_path/"run"/"latest.h5").step == 4


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_worker_that_dies_ends_the_run_with_its_cause_and_the_steps_before_are_kept(workers, whole, options, tmp_path,
                                                                                      read_anew,
                                                                                     monkeypatch, capsys):
    def square(*args, real=loader.square):
        if dead:
            raise MemoryError("no room for a picture")
        return real(*args)
    dead = []
    monkeypatch.setattr(loader, "square", square)
    before_step(5, monkeypatch, lambda: dead.append(True))
    assert "no room for a picture" in refused(capsys, *options, "--workers", workers, "--output", tmp_path/"run")
    assert load(tmp_path/"run"/"latest.h5").step in (range(5, 9) if workers == "2" else [5])     # two have made up to 3 steps ahead
    dead.clear()
    main(["--resume", str(tmp_path/"run")])
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")
    assert load(tmp_path/"run"/"latest.h5").history["train_loss"] == load(whole/"latest.h5").history["train_loss"]


# ------------------------------------------------------------------------------------------------------ signals
def test_ctrl_c_before_the_first_step_is_one_word_and_leaves_no_folder(options, tmp_path, monkeypatch, capsys):
    def prepare(self, progress=True, ranks=None):
        raise KeyboardInterrupt
    monkeypatch.setattr(loader.Pictures, "prepare", prepare)
    with pytest.raises(SystemExit) as exit:
        main([*options, "--output", str(tmp_path/"run")])
    assert (exit.value.code, capsys.readouterr().err) == (130, "\nstopped\n") and not (tmp_path/"run").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_sigterm_saves_and_stops_with_status_143_and_the_run_goes_on(options, tmp_path):
    run = tmp_path/"run"
    process = subprocess.Popen([sys.executable, "-m", "train", *options, "--epochs", "1000", "--output", str(run)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (run/"epoch_0002.h5").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and f"go on with: python -m train --resume {run}" in in_one(out), err
    epochs = str(load(run/"latest.h5").epoch + 1)
    main(["--resume", str(run), "--epochs", epochs])
    main([*options, "--epochs", epochs, "--output", str(tmp_path/"whole")])
    assert_same_bits(tmp_path/"whole"/"latest.h5", run/"latest.h5")


def test_a_signal_during_the_validation_is_heard_there_and_the_epoch_is_not_trained_again(whole, options, tmp_path,
                                                                                          monkeypatch):
    calls = []
    def evaluate(*args, real=loop.evaluate, **options):
        calls.append(os.kill(os.getpid(), signal.SIGTERM))
        return real(*args, **options)
    monkeypatch.setattr(loop, "evaluate", evaluate)
    with pytest.raises(SystemExit) as exit:
        main([*options, "--output", str(tmp_path/"run")])
    stored = load(tmp_path/"run"/"latest.h5")
    assert (exit.value.code, stored.epoch, stored.step, stored.state["sums_batches"]) == (143, 0, 4, 4)
    monkeypatch.undo()
    main(["--resume", str(tmp_path/"run")])
    assert load(tmp_path/"run"/"latest.h5").step == 8
    assert_same_bits(whole/"latest.h5", tmp_path/"run"/"latest.h5")


# ------------------------------------------------------------------------------------------------------ two runs
needs_flock = pytest.mark.skipif(system.fcntl is None, reason="needs flock")


@needs_flock
def test_a_second_run_in_a_folder_is_refused_with_the_process_of_the_first_and_readers_are_not(whole, tmp_path, capsys):
    before = (whole/"latest.h5").read_bytes()
    with Lock(whole):
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        assert f"{owner} training there" in refused(capsys, "--resume", whole, "--epochs", "3")
        assert from_checkpoint(whole)[1].epoch and load(whole/"latest.h5").epoch == 2
        evaluate(["--run", str(whole), "--output", str(tmp_path/"evaluation")])
    assert (whole/"latest.h5").read_bytes() == before
    main(["--resume", str(whole), "--epochs", "3"])


@needs_flock
def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    script = f"import time; from zfcore.training.folder import Lock; Lock({str(tmp_path)!r}).__enter__(); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Expected, match=f"process {process.pid} on .* training there"):
        Lock(tmp_path).__enter__()
    process.kill()
    process.communicate()
    with Lock(tmp_path):
        assert (tmp_path/".lock").read_text() == f"{os.getpid()} on {socket.gethostname()}"


@needs_flock
@pytest.mark.parametrize("odd", ["link", "another's", "no descriptors", "unknown"])
def test_a_lock_that_cannot_be_had_is_told_and_one_of_another_user_holds_for_all(tmp_path, monkeypatch, odd):
    before = Lock(tmp_path)
    with before:
        if odd == "another's":                             # who made it 0644
            def refuse(path, flags, *rest, open=os.open):
                if flags & os.O_RDWR and str(path).endswith(".lock"):
                    raise PermissionError(errno.EACCES, "Permission denied")
                return open(path, flags, *rest)
            monkeypatch.setattr(os, "open", refuse)
            with pytest.raises(Busy, match=f"process {os.getpid()} on .* training there"):
                Lock(tmp_path).__enter__()
    if odd == "another's":
        with Lock(tmp_path):
            with pytest.raises(Busy):
                Lock(tmp_path).__enter__()
        (tmp_path/".lock").unlink()                        # in a folder that cannot be written
    elif odd == "link":
        (tmp_path/".lock").unlink()
        (tmp_path/".lock").symlink_to("elsewhere")
    elif odd == "no descriptors":
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
    else:
        monkeypatch.setattr(system.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    words = {"link": "a link, where a file should be", "another's": "Permission denied", "no descriptors": "Too many open files",
             "unknown": "Input/output error"}
    with pytest.raises(Expected, match=f"{tmp_path}/.lock: expected a file that can be locked.*got {words[odd]}"):
        Lock(tmp_path).__enter__()


@needs_flock
def test_where_there_are_no_locks_training_goes_on_without(whole, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(system.fcntl, "flock", no_locks)
    main(["--resume", str(whole), "--epochs", "3"])
    monkeypatch.setattr(system, "fcntl", None)
    main(["--resume", str(whole), "--epochs", "4"])
    assert load(whole/"latest.h5").epoch == 4
