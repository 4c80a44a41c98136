"""Kept pictures: whole or not there, whoever writes, reads, kills or damages, and never those of another set."""
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import PIL
import pytest

from zfcore.data import open_data, synthetic
from zfcore.data.combinations import COMBINATIONS, UNSEEN
from zfcore.data.kept import CHECKSUM, KeptPictures
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic

SIZE = 19
RECORD = CHECKSUM.size + 3*SIZE*SIZE


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    monkeypatch.delenv("ZFCORE_CORES", raising=False)                       # with one there are no helpers
    return tmp_path/"cache"


def kept(count=12, seed=0, of=COMBINATIONS, split="train", size=SIZE):
    return Synthetic(split, count, size, seed, of, keep=True)


def plain(count=12):
    return [Synthetic("train", count, SIZE, drawings=COMBINATIONS).picture(i).tobytes() for i in range(count)]


def shown(data):
    return [data.picture(i).tobytes() for i in range(len(data))]


@pytest.fixture
def not_drawn(monkeypatch):
    """From now on nothing can be drawn."""
    def forbid():
        monkeypatch.setattr(synthetic, "render", lambda *_: pytest.fail("a picture was drawn"))
    return forbid


# ---------------------------------------------------------------------------------------------------- drawn only once
def test_what_is_kept_is_what_is_drawn_and_is_not_drawn_again(not_drawn):
    first = shown(kept())
    assert first == plain()
    not_drawn()
    assert shown(kept()) == first
    assert kept().picture(3).mode == "RGB" and kept().picture(3).size == (SIZE, SIZE)


def test_pictures_are_kept_in_any_order_and_by_threads(not_drawn):
    data, order = kept(40), np.random.default_rng(0).permutation(40).tolist()
    with ThreadPoolExecutor(4) as threads:
        found = dict(zip(order*2, threads.map(lambda i: data.picture(i).tobytes(), order*2)))
    not_drawn()
    assert [found[i] for i in range(40)] == shown(kept(40))


def test_a_set_of_fewer_pictures_finds_those_of_the_larger_one_and_the_other_way_round(not_drawn):
    shown(kept(12))
    not_drawn()
    assert len(shown(kept(7))) == 7


@pytest.mark.parametrize("other", (dict(seed=1), dict(of=UNSEEN), dict(split="val"), dict(size=SIZE + 1)))
def test_other_sets_have_other_files(folder, other):
    shown(kept(2))
    files = set(folder.iterdir())
    assert shown(kept(2, **other)) != shown(kept(2))
    assert len(set(folder.iterdir()) - files) == 1


@pytest.mark.parametrize("where, name", ((synthetic, "VERSION"), (PIL, "__version__"), (np, "__version__")))
def test_another_version_draws_anew_and_has_another_fingerprint(folder, monkeypatch, where, name):
    before = kept(2).fingerprint()
    shown(kept(2))
    monkeypatch.setattr(where, name, "another")
    shown(kept(2))
    assert len(list(folder.iterdir())) == 2 and kept(2).fingerprint() != before


def test_fingerprints_tell_sets_apart_and_stay():
    sets = [kept(), kept(13), kept(seed=1), kept(of=UNSEEN), kept(split="val"), kept(size=20), Synthetic("train", 12, SIZE)]
    assert len({data.fingerprint() for data in sets}) == len(sets)
    assert kept().fingerprint() == Synthetic("train", 12, SIZE, drawings=COMBINATIONS).fingerprint()


# --------------------------------------------------------------------------------------------- damage, kills, full disks
def spoil(change):
    """Let `change` alter the bytes of the file."""
    path = kept().kept_in
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip_pixel(content):
    content[3*RECORD + 100] ^= 1


def flip_checksum(content):
    content[3*RECORD] ^= 128


def cut(content):
    del content[3*RECORD + 50:]


def empty(content):
    content.clear()


def exchange(content):
    """Whole records, but at other places."""
    one, other = slice(3*RECORD, 4*RECORD), slice(5*RECORD, 6*RECORD)
    content[one], content[other] = content[other], content[one]


def zeros(content):
    content[3*RECORD:4*RECORD] = bytes(RECORD)


@pytest.mark.parametrize("damage", (flip_pixel, flip_checksum, cut, empty, exchange, zeros))
def test_a_damaged_picture_is_drawn_again_and_kept_again(damage, not_drawn):
    right = shown(kept())
    spoil(damage)
    assert shown(kept()) == right == plain()
    not_drawn()
    assert shown(kept()) == right


FILL = """
import sys
from zfcore.data.combinations import COMBINATIONS
from zfcore.data.synthetic import Synthetic
data = Synthetic("train", 2000, 19, drawings=COMBINATIONS, keep=True)
order = range(2000) if sys.argv[1] == "up" else range(1999, -1, -1)
for i in order:
    data.picture(i)
    if i in (3, 1996):
        print("begun", flush=True)
"""


def filler(way):
    return subprocess.Popen([sys.executable, "-c", FILL, way], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_kill_leaves_only_pictures_that_are_whole():
    for delay in (0, 0.03, 0.07):
        process = filler("up")
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    data, right = kept(2000), Synthetic("train", 2000, SIZE, drawings=COMBINATIONS)
    there = [i for i in range(200) if data._kept.read(i) is not None]
    assert len(there) >= 4
    assert all(data._kept.read(i) == right.picture(i).tobytes() for i in there)
    assert data.picture(150).tobytes() == right.picture(150).tobytes()


def test_two_processes_may_fill_one_file():
    ways = [filler(way) for way in ("up", "down")]
    for process in ways:
        process.stdout.readline()
    first = shown(kept(12))
    for process in ways:
        process.kill()
        process.wait()
    assert first == plain()
    assert kept(2000)._kept.read(1999) == kept(2000).picture(1999).tobytes()


def test_a_folder_that_refuses_is_told_once_and_nothing_is_lost(folder, capsys):
    folder.write_text("a file where the folder should be")
    data = kept()
    assert shown(data) == plain()
    assert capsys.readouterr().err.count("drawn pictures are not kept for the next run") == 1 and data.kept_in is None


@pytest.mark.parametrize("refused", ["exists", "mkdir"])
def test_a_thread_whose_folder_another_has_given_up_meanwhile_draws_on(folder, capsys, monkeypatch, refused):
    pictures = KeptPictures("some", [1], 3)

    def lost(path, *_, **__):
        pictures.path = None                               # what the other thread does where the disk refuses
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(Path, refused, lost)
    pictures.write(0, b"abc")
    assert pictures.path is None and capsys.readouterr().err == "", "the other one has told it"


def test_what_is_not_kept_is_told_with_the_folder_and_how_to_name_another(folder, capsys):
    folder.write_text("a file")
    KeptPictures("some", [1], 3).write(0, b"abc")
    told = " ".join(capsys.readouterr().err.split())
    assert f"in {folder}" in told and "ZFCORE_CACHE" in told and "[Errno" not in told


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("ZFCORE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    data = kept()
    assert data.kept_in is None and shown(data) == plain()


def test_the_file_is_told_once_when_it_is_begun(capsys):
    shown(kept(3))
    shown(kept(4))
    assert capsys.readouterr().err.count("pictures are drawn once and kept in") == 1


def test_records_of_other_facts_do_not_pass():
    one, other = (KeptPictures("same", facts, 4) for facts in (["a"], ["b"]))
    one.write(0, b"abcd")
    os.replace(one.path, other.path)
    assert other.read(0) is None
    other.write(1, b"efgh")
    assert (other.read(0), other.read(1), other.read(2)) == (None, b"efgh", None)


# ------------------------------------------------------------------------------------------------------------ helpers
def test_helpers_draw_the_rest_and_end_with_the_data_set(monkeypatch):
    """Pictures that were never asked for turn up in the file, the last ones first."""
    monkeypatch.setattr(synthetic, "HELP_AFTER", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    began, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kw: began.append(start(*args, **kw)) or began[-1])
    data = kept(5000)
    for i in range(3):
        data.picture(i)
    assert len(began) == 3                                                # one for each core: who called them only waits
    monkeypatch.setattr(synthetic, "render", lambda *_: pytest.fail("drawn by who called the helpers"))
    right = Synthetic("train", 5000, SIZE, drawings=COMBINATIONS)
    asked = data.picture(1234).tobytes()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(data._kept.read(i) for i in (4999, 4998, 4997, 4996)):
        time.sleep(0.05)
    monkeypatch.undo()
    assert data._kept.read(4996) == right.picture(4996).tobytes() and asked == right.picture(1234).tobytes()
    for helper in began:                                                  # as after a Ctrl-C, of which they hear too
        helper.kill()
    assert data.picture(2345).tobytes() == right.picture(2345).tobytes()
    del data
    assert all(helper.poll() is not None and helper.stdin.closed for helper in began)


def test_a_system_that_starts_no_helper_costs_time_alone(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no more processes")
    monkeypatch.setattr(synthetic, "HELP_AFTER", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert shown(kept()) == plain()


def test_nothing_of_the_folder_one_is_in_is_imported(monkeypatch, tmp_path):
    (tmp_path/"grp.py").write_text("raise SystemExit")                    # tarfile would take it for Python's own
    monkeypatch.chdir(tmp_path)
    data = called(monkeypatch)
    assert data._helpers.picture(0, 200) == Synthetic("train", 400, SIZE, drawings=COMBINATIONS).picture(200).tobytes()


@pytest.mark.parametrize("what_it_does", ("import time; time.sleep(100)", "", "print('short')"))
def test_a_helper_that_stands_still_or_ends_is_given_up(monkeypatch, what_it_does):
    monkeypatch.setattr(synthetic, "HELPER", what_it_does)
    data = called(monkeypatch)
    monkeypatch.setattr(synthetic, "PATIENCE", 0.2)
    assert [data._helpers.picture(0, i) for i in (1, 2)] == [None, None]
    monkeypatch.setattr(data._helpers, "_free", None)                     # nobody is waited for any more
    assert [data.picture(i).tobytes() for i in range(4)] == plain(4)


def test_helpers_of_which_none_gets_free_are_given_up(monkeypatch):
    data = called(monkeypatch)
    monkeypatch.setattr(synthetic, "PATIENCE", 0.1)
    monkeypatch.setattr(data._helpers, "_free", SimpleQueue())
    assert data._helpers.picture(0, 4) is None
    monkeypatch.setattr(data._helpers, "_free", None)
    assert data._helpers.picture(0, 4) is None


def called(monkeypatch, helpers=2):
    """A set for which so many helpers have been called."""
    monkeypatch.setattr(synthetic, "HELP_AFTER", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(helpers)), raising=False)
    data = kept(400)
    data.picture(0)
    return data


def test_a_helper_ends_when_whoever_called_it_is_gone():
    helper = subprocess.Popen([sys.executable, "-c", synthetic.HELPER, facts(1_000_000)], stdin=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    helper.stdin.close()
    assert helper.wait(60) == 0


def facts(*counts, first=0, k=0, step=1):
    """The argument of a helper for sets of so many pictures, training and validation."""
    return json.dumps([[["combinations", split, count, SIZE, 0] for split, count in zip(("train", "val"), counts)], first, k, step])


@pytest.mark.parametrize("first, in_train", ((0, [1, 4, 7, 10]), (1, [])))
def test_a_helper_draws_its_share_of_each_set_backwards_and_calls_no_helpers(monkeypatch, first, in_train):
    monkeypatch.setattr(synthetic, "HELP_AFTER", 2)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a helper of a helper"))
    monkeypatch.setattr(synthetic, "_listen", lambda asked: None)
    monkeypatch.setattr(sys, "argv", ["", facts(12, 8, first=first, k=1, step=3)])
    synthetic.help_drawing()
    assert [i for i in range(12) if kept().is_kept(i)] == in_train
    assert [i for i in range(8) if kept(split="val").is_kept(i)] == [0, 3, 6]


@pytest.fixture
def began(monkeypatch):
    """The processes that are started from now on."""
    found, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kw: found.append(start(*args, **kw)) or found[-1])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return found


def test_the_loader_calls_helpers_where_all_pictures_will_be_asked_for_and_are_not_kept(began, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "HELP_AFTER", 20)
    for count, helpers in ((20, 0), (21, 2)):
        data = kept(count)
        data.mean_image = np.zeros((3, SIZE, SIZE), np.float32)
        Pictures(data, SIZE, SIZE).prepare()
        assert len(began) == helpers
    assert capsys.readouterr().err.count("pictures are drawn once and kept in") == 1
    for helper in began:
        assert helper.wait(60) == 0
    assert all(map(data.is_kept, range(21)))
    again = kept(21)
    again.expect()
    assert len(began) == 2, "all of them are kept"
    Synthetic("train", 21, SIZE).expect()
    assert len(began) == 2, "nothing is"


def test_a_set_that_cannot_be_kept_has_no_helpers(began, folder, monkeypatch):
    monkeypatch.setattr(synthetic, "HELP_AFTER", 3)
    folder.write_text("a file where the folder should be")
    kept(12).expect()
    assert not began


def test_the_helpers_of_the_training_pictures_go_on_with_those_to_validate_on(began, monkeypatch):
    monkeypatch.setattr(synthetic, "HELP_AFTER", 1)
    train, val = open_data("drawn:combinations", SIZE, 1)
    train.picture(0)
    assert val.picture(7).tobytes() == Synthetic("val", 126, SIZE, drawings=COMBINATIONS).picture(7).tobytes()
    assert len(began) == 2 and not val._drawn, "the same ones, asked from the first picture on"
    for helper in began:
        assert helper.wait(60) == 0
    assert all(data.is_kept(i) for data in (train, val) for i in range(126))
    del train
    assert not any(helper.stdin.closed for helper in began)
    del val
    assert all(helper.stdin.closed for helper in began)


# ---------------------------------------------------------------------------------------------------------- the door
@pytest.mark.parametrize("name, classes", (("objects", 10), ("combinations", 126), ("unseen", 30)))
def test_the_large_sets_are_kept_and_the_loader_takes_them(folder, name, classes, not_drawn):
    train, val = open_data(f"drawn:{name}", SIZE, 1)
    assert len(train) == len(val) == len(train.classes) == classes
    mean = Pictures(train, SIZE, SIZE - 2, workers=2).prepare(progress=False)
    not_drawn()
    again = Pictures(open_data(f"drawn:{name}", SIZE, 1)[0], SIZE, SIZE - 2, workers=0)
    assert np.array_equal(again.prepare(progress=False), mean)
    assert sum(len(batch) for batch, *_ in again.batches(8, 0, 0)) == classes
    assert len(list(folder.glob(f"drawn-*-train-{SIZE}-*.raw"))) == 1
