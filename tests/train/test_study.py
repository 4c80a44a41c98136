"""A study's folder: its options are compared, a unit of its work is done once, whoever does it, and a run goes on."""
import json

import pytest

from train.study import Run, StudyFolder, Unit, clear
from zfcore.check import Expected
from zfcore.training import Stop, resolve
from zfcore.training.folder import Busy, Lock, new_folder


class Counted(Unit):
    """A unit of `size` parts, `done` of which are there."""

    def __init__(self, name, size=1, done=0, lock="", failure=""):
        self.name, self.size, self.done, self.lock, self.failure = name, size, done, lock, failure


def finish(names):
    def do(unit, progress):
        names.append(unit.name)
        for unit.done in range(unit.done + 1, unit.size + 1):
            progress()
    return do


# -------------------------------------------------------------------------------------------------------------- options
def test_options_are_remembered_and_other_ones_refused_but_for_those_that_may_change(tmp_path):
    study = StudyFolder(tmp_path/"s"/"t", seed=int, key=str)
    assert study.stored() == {} and not study.path.exists()
    study.remember({"seed": 1, "key": "ab", "data": "here", "test_most": None}, may_change=["data"])
    study.remember({"seed": 1, "key": "ab", "data": "there", "test_most": None}, may_change=["data"])
    assert study.stored() == {"seed": 1, "key": "ab", "data": "there", "test_most": None}
    for changed, sentence in (({"seed": 2}, r"begun there \(seed 1\), got 2; name another folder"),
                              ({"test_most": 9}, r"\(test most None\), got 9"),
                              ({"key": "cd"}, r"\(pictures or weights\), got others")):
        with pytest.raises(Expected, match=sentence):
            study.remember({**study.stored(), **changed}, may_change=["data"])
    assert study.stored()["seed"] == 1


@pytest.mark.parametrize("content", ["", "3", "{}", '{"scale": "tiny"}', '{"scale": "big", "options": {}}',
                                     '{"scale": {}, "options": {}}', '{"scale": "tiny", "options": []}', "["*100000,
                                     '"\udcff"'])
def test_what_is_no_study_json_is_one_sentence(tmp_path, content):
    (tmp_path/"study.json").write_text(content, errors="surrogateescape")
    with pytest.raises(Expected, match="study.json: expected the scale and options of a study, got something else; remove it"):
        StudyFolder(tmp_path, scale=("tiny", "full"), options=dict).stored()


def test_a_folder_of_something_else_is_refused_where_a_study_must_be_alone(tmp_path):
    (tmp_path/".study.json.part").write_text("")           # left by a kill
    own = ["*/found.json"]
    (tmp_path/"shown").mkdir()
    (tmp_path/"shown"/"Thumbs.db").touch()                 # a system's own
    StudyFolder(tmp_path/"shown", own).remember({})
    StudyFolder(tmp_path/"new", own).remember({})
    (tmp_path/"thesis.tex").write_text("")
    with pytest.raises(Expected, match="a new or empty folder, or one with a study.json"):
        StudyFolder(tmp_path, own).remember({"seed": 1})
    assert not (tmp_path/"study.json").exists()
    StudyFolder(tmp_path).remember({"seed": 1})
    StudyFolder(tmp_path, own).remember({"seed": 1})
    with pytest.raises(Expected, match="a place where a folder can be made"):
        StudyFolder(tmp_path/"thesis.tex").remember({})


def test_what_is_advised_of_a_damaged_study_json_is_what_can_be_done(tmp_path):
    study = StudyFolder(tmp_path, ["*/found.json"], seed=int)
    (tmp_path/"study.json").write_text('{"seed')
    with pytest.raises(Expected, match="; name another folder"):         # removed, it would leave a folder that nobody knows
        study.remember({"seed": 1})
    (tmp_path/"part").mkdir()
    (tmp_path/"part"/"found.json").write_text("")
    with pytest.raises(Expected, match="; remove it, and type the options"):
        study.remember({"seed": 1})
    (tmp_path/"study.json").unlink()
    study.remember({"seed": 1})
    assert study.stored() == {"seed": 1}


def test_what_leads_out_of_a_study_is_refused_and_nothing_is_written_there(tmp_path):
    (tmp_path/"elsewhere").mkdir()
    study, config = StudyFolder(tmp_path/"out"), resolve({"preset": "tiny"})
    study.remember({})
    for name in ("run", "found.h5"):
        (tmp_path/"out"/name).symlink_to(tmp_path/"elsewhere"/("" if name == "run" else name))
    run = Run(config, tmp_path/"out"/"run")
    for write in (run.check_options, lambda: run.fail("no memory"), lambda: study.run_or_resume("run", config, (None, None)),
                  lambda: study.kept("found", None, lambda: None)):
        with pytest.raises(Expected, match=f"{tmp_path}/out/.*: expected a place in its own folder, got a link that leads out of it"):
            write()
    assert not [*(tmp_path/"elsewhere").iterdir()]


# ----------------------------------------------------------------------------------------------------------------- work
def test_what_is_finished_is_not_done_again_and_a_stop_costs_nothing_that_was_done(tmp_path):
    units, names = [Counted("a", done=1), Counted("b", 3, 1), Counted("c", 2), Counted("d")], []

    def stopped(unit, progress):
        if unit.name == "c":
            raise Stop
        finish(names)(unit, progress)

    with pytest.raises(Stop):
        StudyFolder(tmp_path).work(units, stopped)
    StudyFolder(tmp_path).work(units, finish(names))
    StudyFolder(tmp_path).work(units, finish(names))
    assert names == ["b", "c", "d"] and all(unit.finished for unit in units) and not list(tmp_path.iterdir())


def test_the_bar_shows_what_is_done_whoever_did_it(tmp_path, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, total, unit, what, done, hidden):
            self.n, self.about = done, (total, done, unit, hidden)
            shown.append(self)
        __enter__ = lambda self: self
        __exit__ = lambda *_: None
        set_description = lambda *_: None

        def update(self, n=1):
            self.n += n

    monkeypatch.setattr("train.study.Bar", Bar)
    first, second = Counted("first", 2), Counted("second", 5, 1)

    def do(unit, progress):
        finish([])(unit, progress)
        second.done = max(second.done, 3)                  # meanwhile, elsewhere

    StudyFolder(tmp_path).work([first, second], do, "epoch")
    StudyFolder(tmp_path).work([first, second], do, "epoch")
    assert [bar.about for bar in shown] == [(7, 1, "epoch", False), (7, 7, "epoch", True)] and shown[0].n == 7


def test_a_unit_that_another_is_at_comes_last_and_one_that_failed_there_is_not_tried_again(tmp_path):
    names, elsewhere = [], Lock(tmp_path, "a.lock")
    units = [Counted("a", lock="a.lock"), Counted("b", lock="b.lock"), Counted("c", failure="before: tried again")]

    def do(unit, progress):
        finish(names)(unit, progress)
        if unit.name == "c":
            units[0].failure = "no memory"
            elsewhere.__exit__()

    with elsewhere:
        StudyFolder(tmp_path).work(units, do)
        elsewhere.descriptor = None
    assert names == ["b", "c"]
    units[0].failure = ""
    StudyFolder(tmp_path).work(units, finish(names))
    assert names == ["b", "c", "a"]


def test_a_unit_without_a_lock_of_its_own_is_not_waited_for(tmp_path):
    def busy(unit, progress):
        raise Busy("here", "nobody", "somebody")
    with pytest.raises(Busy):
        StudyFolder(tmp_path).work([Counted("a")], busy)


# ----------------------------------------------------------------------------------------------------------------- runs
def test_what_a_run_left_before_its_first_checkpoint_is_cleared_away_and_nothing_else(tmp_path):
    folder = tmp_path/"run"
    clear(folder)
    (folder/"figures").mkdir(parents=True)
    for name in ("config.json", "output.txt", "failed.txt", ".lock"):
        (folder/name).write_text("")
    clear(folder)
    assert not list(folder.iterdir())
    (folder/"notes.txt").write_text("")
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    with Lock(folder), pytest.raises(Busy):
        clear(folder)


def test_a_run_that_failed_says_why_until_it_is_finished(tmp_path):
    run = Run(resolve({"model": "tiny", "epochs": 2, "seed": 3}), tmp_path/"tiny-seed3")
    assert (run.name, run.size, run.done, run.finished, run.failure, run.lock) == ("tiny-seed3", 2, 0, False, "",
                                                                                   ".tiny.3.lock")
    run.check_options()
    new_folder(run.config, run.folder)
    run.check_options()
    run.fail(MemoryError())
    assert run.failure == "not enough memory"
    (run.folder/"log.csv").write_text("epoch\n1\n2\n")
    assert run.finished and run.failure == ""
    content = json.loads((run.folder/"config.json").read_text())
    content["options"].update(workers=7, momentum=0.5)     # the one is free
    (run.folder/"config.json").write_text(json.dumps(content))
    with pytest.raises(Expected, match="momentum: expected 0.5, with which .*tiny-seed3 was started, got 0.9; leave it out"):
        run.check_options()


def test_a_unit_that_another_is_at_is_waited_for_and_done_where_that_one_has_not(tmp_path):
    names, elsewhere = [], Lock(tmp_path, ".first.lock")
    units = [Counted("first", lock=".first.lock"), Counted("second")]
    elsewhere.__enter__()
    StudyFolder(tmp_path).work(units, finish(names), take=lambda unit, result: elsewhere.__exit__() if unit.name == "second"
                               else None)
    assert names == ["second", "first"] and all(unit.finished for unit in units)
