"""What a person reads: any name can be printed, copied and drawn; lines fit; progress is told where there is no terminal; what
nobody reads, and a signal, costs nothing."""
import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zfcore
from tests.train.conftest import write_set
from train.__main__ import main as train
from train.predict import main as predict
from zfcore import check, plots, terminal
from zfcore.__main__ import main as look
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.training import TrainConfig

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
NAMES = ["a $x_1$ b", "two\nlines", os.fsdecode(b"no \xff utf-8 \xfe"),
         "猫 кот γάτα قط", "\x1b[31mred", "-dash", "it's \"q\"", "tab\t", "a\\b$", "🐈"]
names = st.one_of(st.sampled_from(NAMES), st.binary(min_size=1, max_size=12).map(os.fsdecode), st.text(min_size=1, max_size=12))


# ------------------------------------------------------------------------------------------------------------- names
@given(names)
def test_what_is_printable_is_one_line_that_can_be_encoded(name):
    shown = terminal.printable(name)
    shown.encode()
    assert len(shown.splitlines()) <= 1 and terminal.printable(shown) == shown and not re.search("[\x00-\x1f\x7f]", shown)
    assert shown == name or not name.isprintable()
    assert len(str(Expected(name, name, name)).splitlines()) <= 1


@posix
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_that_is_copied_gives_the_shell_the_same_words(encoding):
    """Also from a terminal that shows nothing but ASCII."""
    words = [*NAMES, "plain", "", "a b", "$HOME", "`ls`", "*"]
    script = f"import sys; from zfcore.terminal import command; print(command(*{words!r}))"
    line = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": encoding}).stdout
    heard = subprocess.run(["bash", "-c", b"printf '%s\\0' " + line.rstrip(b"\n")], capture_output=True).stdout
    assert heard.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    assert terminal.command(Path("-x")) == "./-x"


def drawn(names, folder):
    """Captions, classes of a confusion matrix and a title, in every format."""
    picture, n = np.zeros((8, 8, 3), np.uint8), len(names)
    sheet = plots.captioned([picture]*n, [(name, name) for name in names], [False]*n, "".join(names))
    figure = plots.confusion(np.eye(n, dtype=int), names, [(names[0], names[-1], 1, 4)], "".join(names))
    for one in (sheet, figure):
        for kind in ("png", "svg"):
            plots.save(one, folder/f"a.{kind}")
    plots.save(plots.average_precisions(names, {name: np.arange(n) for name in names[:2]}, np.ones(n)), folder/"b.png")


def test_every_name_can_be_drawn(tmp_path):
    drawn([*NAMES, "$\\frac{a$", os.fsdecode(b"\xff\n")], tmp_path)


@pytest.mark.exhaustive
@settings(max_examples=20, deadline=None)
@given(names)
def test_any_other_name_can_be_drawn(tmp_path_factory, name):
    drawn([name, f"{name} 2"], tmp_path_factory.mktemp("drawn"))


def test_a_logarithmic_axis_keeps_its_numbers(tmp_path):
    rows = [(k, 10.0**-(5 - k/3), 2.3, 2.3) for k in range(12)]
    plots.save(plots.lr_test(rows, 0.01, "suggested: $ 0.01"), tmp_path/"a.svg")
    assert "mathdefault" not in (tmp_path/"a.svg").read_text()


# -------------------------------------------------------------------------------------------------------------- lines
@given(st.text(alphabet="ab c", max_size=400))
def test_lines_fit_and_lose_no_word(text):
    lines = terminal.fitted(text)
    assert all(len(line) <= terminal.COLUMNS or " " not in line.strip() for line in lines)
    assert " ".join(lines).split() == text.split()


@given(names)
def test_no_line_moves_the_cursor_and_no_cell_ends_its_row(name):
    assert terminal.fitted(name) == terminal.fitted(terminal.printable(name))
    assert all(line.isprintable() or terminal.printable(line) == line for line in terminal.fitted(f"epoch 1: {name}"))
    row = terminal.in_table(name, name)
    assert row.count("|") == 3 and len(row.splitlines()) == 1


def test_a_number_and_its_percent_sign_stay_on_one_line():
    for shift in range(20):
        lines = terminal.fitted("x"*(terminal.COLUMNS - 20 + shift) + " owl 0.6 %, (12 %)")
        assert "0.6 %," in " | ".join(lines) and "(12 %)" in " | ".join(lines)


@pytest.mark.parametrize("line", ["python -m train --resume " + "x"*200, "| " + "a | "*60,
                                  "next:  python -m zfcore " + "x"*90 + "      what it is"])
def test_what_is_copied_and_rows_of_tables_stay_whole(line):
    assert terminal.fitted(line) == [line]


prose = st.lists(st.sampled_from("expected got the run's pictures' names (and) another; one, (a) b".split()),
                 max_size=30).map(" ".join)
paths, odd_paths = (st.builds("/{}/{}.png".format, st.text(alphabet=alphabet, min_size=1, max_size=70),
                              st.text(alphabet="xy z", max_size=40))
                    for alphabet in ("ab c$猫", "ab c'\"$\\猫"))


@settings(max_examples=60, deadline=None)
@given(prose, paths, odd_paths, prose, st.integers(40, 140))
def test_what_is_to_be_copied_stands_in_one_line_of_its_sentence(before, typed, odd, after, columns):
    """A path in a command, in quotes, as a name that is given, or as it was typed."""
    named, between = f"{typed} 2", "so"
    copied = terminal.command("python", "-m", "train", "--resume", Path(odd), "--data", "a b"), repr(odd), named, typed
    for what, names in zip(copied, ((), (), (named,), ())):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["zfcore", typed] if what == typed else ["zfcore"])
            lines = terminal.fitted(f"{before}: {what}, {between}; {what}) {after}", columns, *names)
        assert sum(line.count(what) for line in lines) == 2
        assert " ".join(map(str.strip, lines)).split() == f"{before}: {what}, {between}; {what}) {after}".split()
        assert all(len(line) <= columns or len(line.strip()) <= len(what) + 3 for line in lines)


@posix
@pytest.mark.parametrize("columns", [0, 50, pytest.param(163, marks=pytest.mark.exhaustive)])
def test_a_sentence_on_standard_error_fits_the_terminal_and_what_was_typed_stays_whole(columns, tmp_path):
    """On a terminal of so many columns; 0: into a pipe."""
    missing = tmp_path/("my holiday pictures of "*3)/"the sea"
    words = ["train", "--data", str(missing), "--device", "cpu"]
    if columns:
        import pty
        import termios
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns)) if hasattr(termios, "tcsetwinsize") else pytest.skip("needs tcsetwinsize")
        process = started(*words, stderr=theirs)
        os.close(theirs)
        process.communicate(timeout=60)
        err = os.read(ours, 2**16).decode().replace("\r\n", "\n")
        os.close(ours)
    else:
        _, _, err = ended(started(*words))
    lines = err.strip().splitlines()
    assert sum(str(missing) in line for line in lines) == 1 and lines[0].startswith("error: ")
    assert len(lines) > 1 and all(len(line) <= (columns or 100) or line.strip(" ,;:") == str(missing) for line in lines)


@pytest.mark.parametrize("words", [["train", "--device", "a b " * 40], ["zfcore", "x"],
                                   ["train.predict", "--crops", "two\nlines", "--run", "x"],
                                   ["train", "--seed", "1" * 300], ["train", "--unheard-of", "x"]], ids=lambda words: words[0])
def test_an_option_that_is_refused_is_refused_in_lines_that_fit(words, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_width", lambda: 100)
    main = {"train": train, "zfcore": look, "train.predict": predict}[words[0]]
    with pytest.raises(SystemExit) as end:
        main(words[1:])
    said = capsys.readouterr().err
    typed = [word for word in map(terminal.printable, words) if " " in word or len(word) > 99]
    assert end.value.code == 2 and "error: " in said and all(len(line) <= 100 or any(word in line for word in typed)
                                                             for line in said.splitlines())
    assert all(len(line.strip()) < len(word) + 5 for line in said.splitlines() for word in typed if word in line)


@given(st.integers(0, 3),
       st.sampled_from(["picture", "class", "linked folder", "near-duplicate", "branch", "box", "epoch", "training picture"]))
def test_a_number_agrees_with_its_noun(n, noun):
    plural = {"class": "classes", "branch": "branches", "box": "boxes"}.get(noun, f"{noun}s")
    assert terminal.plural(n, noun) == (f"1 {noun}" if n == 1 else f"{n} {plural}")


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_a_percentage_is_0_only_of_nothing_and_100_only_of_all(few, many):
    few = min(few, many)
    said = terminal.percent(few/many)
    assert (said == "0 %") == (few == 0) and (said == "100 %") == (few == many)
    assert said in ("below 1 %", "above 99 %") or abs(float(said.removesuffix(" %")) - 100*few/many) <= 0.5


COUNTED = re.compile(r" (?:[a-z-]+ "
                     r"){0,2}?(?:pictures|classes|files|folders|links|epochs|units|networks|layers|names|steps|runs|near-duplicates|threads|members)\b")
TOGETHER = re.compile(r"[A-Z_]+$")                         # a constant, which is more than 1


def counts(path):
    """(line, text) of formatted strings in which a number stands before a plural that does not follow it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for value, after in zip(node.values, node.values[1:]) if isinstance(node, ast.JoinedStr) else ():
            if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant) and COUNTED.match(after.value):
                text = ast.unparse(value.value)
                if "plural(" not in text and " if " not in text and not TOGETHER.match(text) and re.search(r"len\(|sum\(|\bn\b|count|total|epoch|number", text):
                    yield node.lineno, f"{text}{after.value}"


@pytest.mark.parametrize("folder", ["zfcore", "train"])
def test_no_text_has_a_plural_behind_a_number_that_may_be_one(folder):
    """Files of other engines are read by the interchange, which speaks of their numbers and bytes."""
    files = [path for path in (ROOT/folder).rglob("*.py") if path.parent.name not in ("interchange", "ops")]
    assert len(files) > 10 and {str(path): found for path in files if (found := [*counts(path)])} == {}


@pytest.mark.parametrize("text, found", [('f"{len(a)} pictures"', 1), ('f"{count} more names"', 1), ('f"{MOST} files"', 0),
                                         ('f"{plural(n, \'unit\')} of"', 0),
                                         ('f"at most {len(a)} left out units, {b} of"', 1), ('f"{path} pictures"', 0)])
def test_a_plural_behind_a_number_is_seen(text, found, tmp_path):
    (tmp_path/"a.py").write_text(text)
    assert len([*counts(tmp_path/"a.py")]) == found


def test_where_there_is_no_terminal_a_line_tells_how_far_it_is_and_how_long_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "TELL_EVERY", 0.1)
    monkeypatch.setattr(terminal.Bar, "told", -float("inf"))
    with terminal.Bar(1000, "picture", "a long \n name "*9, done=100) as bar:
        for _ in range(5):
            bar.update(60)
            bar.set_postfix(loss="0.123", refresh=False)
            time.sleep(0.06)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5 and all(len(line) <= 100 for line in lines)
    assert re.search(r"of 1000 pictures, \d+ %, 0 s so far, \d s left, loss=0.123", lines[-1])


def test_one_of_several_that_do_the_same_tells_nothing_until_it_is_asked_to(capfd):
    terminal.quiet()
    try:
        terminal.say("a line")
        terminal.warn("a word")
        with terminal.Bar(3, "picture", "reading") as bar:
            bar.update(1)
        assert bar.disable and capfd.readouterr() == ("", "")
    finally:
        terminal.quiet(False)
    terminal.say("a line")
    terminal.warn("a word")
    assert capfd.readouterr() == ("a line\n", "a word\n")


def test_short_bars_tell_nothing_and_many_of_them_no_more_than_one(monkeypatch, capsys):
    for item in terminal.counted(range(5), "thing", "quick"):
        pass
    assert capsys.readouterr().err == "" and item == 4
    monkeypatch.setattr(terminal, "TELL_EVERY", 0.15)
    for _ in range(8):
        with terminal.Bar(3, "step", "short"):
            time.sleep(0.05)
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 3


@pytest.mark.parametrize("seconds, words", [(0.4, "0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (4*86400, "4 d 0 h")])
def test_times_in_words(seconds, words):
    assert terminal._clock(seconds) == words


# ------------------------------------------------------------------------------------------------ a run that is shared
@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set")/"a $ name\nof two lines")


@pytest.fixture(scope="module")
def options(pictures):
    return ["--data", str(pictures), "--preset", "tiny", "--image-size", "32", "--batch-size", "8", "--epochs", "2",
            "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")/"a $ run\nof two lines"
    train([*options, "--output", str(folder)])
    return folder


def started(*words, before="", **more):
    """A command in a shell, after what is to be set there."""
    line = f"{before}exec {terminal.command(sys.executable, '-m', *words)}"
    return subprocess.Popen(["bash", "-c", line], cwd=ROOT,
                            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more})


def ended(process, seconds=60):
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return process.returncode, out, err


@posix
def test_training_into_a_pipe_that_is_closed_keeps_the_epoch_and_ends_as_a_shell_tells(options, tmp_path):
    read, write = os.pipe()
    os.close(read)
    process = started("train", *options, "--output", tmp_path/"run", stdout=write)
    os.close(write)
    assert ended(process) == (141, None, "")
    process = subprocess.Popen(["bash", "-c",
                                f"{terminal.command(sys.executable, '-m', 'train', *options, '--output', tmp_path/'b')} | grep "
                                f"-m1 'epoch  '; "
                                              "exit ${PIPESTATUS[0]}"], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    ended(process)
    assert load(tmp_path/"b"/"latest.h5").epoch >= 1 and (tmp_path/"b"/"log.csv").read_text().count("\n") >= 2


@pytest.mark.figures
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["train", pytest.param("evaluate", marks=pytest.mark.exhaustive)])
def test_a_full_disk_under_standard_output_costs_only_what_was_printed(command, options, run, tmp_path):
    words = {"train": ["train", *options, "--output", tmp_path/"run"],
             "evaluate": ["train.evaluate", "--run", run, "--output", tmp_path/"out"]}[command]
    with open("/dev/full", "w") as full:
        status, _, err = ended(started(*words, stdout=full))
    assert status == 2 and "standard output: expected a place that takes what is printed, got No space left" in err
    if command == "train":
        assert load(tmp_path/"run"/"latest.h5").epoch == 2 and (tmp_path/"run"/"figures"/"filters.png").is_file()
    if command == "evaluate":
        assert (tmp_path/"out"/"summary.json").is_file()


@posix
@pytest.mark.parametrize("before",
                         ["export PYTHONIOENCODING=ascii; unset HOME XDG_CACHE_HOME ZFCORE_CACHE; ulimit -n 32; exec 2>&-; ",
                                    "export PYTHONIOENCODING=latin-1 LC_ALL=C HOME=/nowhere; unset ZFCORE_CACHE; exec >&-; "],
                         ids=["ascii, no HOME, few files, no stderr", "latin-1, HOME gone, no stdout"])
def test_a_command_works_in_odd_surroundings(before, run, tmp_path):
    words = ["zfcore", "top-activations", "--run", run, "--output", tmp_path/"猫 $ \n", "--layers", "conv1", "--units", "0:2",
             "--device", "cpu", "--workers", "0"]
    status, _, err = ended(started(*words, before=before))
    assert status == 0 and (tmp_path/"猫 $ \n"/"conv1.png").is_file(), err


@posix
# tests/test_surroundings.py has less
@pytest.mark.parametrize("kilobytes", [pytest.param(600_000, marks=pytest.mark.exhaustive)])
def test_too_little_memory_is_a_sentence(kilobytes, run, tmp_path):
    words = ["zfcore", "top-activations", "--run", run, "--output", tmp_path/"out", "--units", "0:2", "--device", "cpu",
             "--workers", "0"]
    process = started(*words, before=f"export OPENBLAS_NUM_THREADS=1; ulimit -v {kilobytes}; ")
    status, _, err = ended(process)
    assert status == 0 or status == 2 and err.count("error:") == 1


# ------------------------------------------------------------------------------------------------------------ signals
@posix
@pytest.mark.parametrize("number", [getattr(signal, "SIGHUP", 1)])
def test_a_signal_ends_training_saved_and_said(number, options, tmp_path):
    process = started("train", *options, "--epochs", "1000", "--output", tmp_path/"run")
    until = time.monotonic() + 60
    while not (tmp_path/"run"/"best.h5").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    status, out, _ = ended(process)
    assert status == 128 + number and "stopped and saved after epoch" in out and load(tmp_path/"run"/"latest.h5").step > 0


@posix
@pytest.mark.parametrize("number", terminal.ENDING)
def test_a_signal_ends_every_other_command_with_a_word(number):
    script = ("import os, signal, sys, time; from zfcore.check import exit_with_message\n@exit_with_message\ndef main():\n"
              " print('begun', flush=True); time.sleep(30)\nmain()")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert ended(process)[::2] == (128 + number, "\nstopped\n")


@posix
def test_what_is_to_be_ignored_is_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminal.at_work():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            with pytest.raises(terminal.Ended):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
@pytest.mark.parametrize("words", [["train", "--dry-run"], ["zfcore", "--help"],
                                   pytest.param(["train.evaluate", "--help"], marks=pytest.mark.exhaustive)],
                         ids=lambda words: words[0])
def test_ctrl_c_while_modules_are_imported_is_quiet(words):
    process = subprocess.Popen([sys.executable, "-X", "importtime", "-m", *words], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    while "numpy" not in (line := process.stderr.readline()) and line:
        pass
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert [line for line in err.splitlines() if not line.startswith("import time:")] in ([], ["", "stopped"])


ON_CTRL_C = """import sys
class Numpy:
    def find_spec(name, path, target=None):
        if name == "numpy":
            import signal
            print("as the system does" if signal.getsignal(signal.SIGINT) == signal.SIG_DFL else "by a handler", flush=True)
sys.meta_path.insert(0, Numpy)
"""


def answer_to_ctrl_c(tmp_path, *words, files, cwd=ROOT):
    """What Ctrl-C would do while a program imports numpy, the first large package."""
    (tmp_path/"site").mkdir()
    for name, text in {"site/sitecustomize.py": ON_CTRL_C, **files}.items():
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text(text)
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path/"site"), str(ROOT)])}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=there, capture_output=True, text=True, timeout=60).stdout.split("\n")[0]


@posix
@pytest.mark.parametrize("words", [["-m", "train", "--help"], ["-m", "zfcore", "--help"], ["-m", "bench", "--help"],
                                   ["-um", "train.evaluate", "--help"], ["-W", "ignore", "-mzfcore", "--help"],
                                   ["-m", "zfcore", "redraw", "-m"], ["zfcore", "--help"]], ids=" ".join)
def test_ctrl_c_is_quiet_from_the_first_import_of_a_command_on(words, tmp_path):
    installed = "import sys\nfrom train.console import main\nsys.exit(main())\n"
    words = [str(tmp_path/"zfcore") if word == "zfcore" == words[0] else word for word in words]
    assert answer_to_ctrl_c(tmp_path, *words, files={"zfcore": installed}) == "as the system does"


@posix
@pytest.mark.parametrize("words, place", [
    (["own.py", "-m", "train"], "own.py"), (["-m", "train"], "train.py"), (["-m", "bench", "-m", "zfcore"], "bench/__init__.py"),
    (["-m", "train"], "train/__init__.py"), (["-m", "own.train"], "own/__init__.py"), (["zfcore", "-m", "zfcore"], "zfcore"),
    (["-c", "import zfcore.check", "-m", "zfcore"], "own.py")], ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_program_that_imports_zfcore_keeps_its_answer_to_ctrl_c_whatever_it_is_called(words, place, tmp_path):
    files = {place: "import zfcore.check", **({f"{place.split('/')[0]}/__main__.py": "import zfcore.check",
                                               "own/train.py": "import zfcore.check"} if "/" in place else {})}
    assert answer_to_ctrl_c(tmp_path, *words, files=files, cwd=tmp_path) == "by a handler"


@posix
def test_a_signal_that_is_held_is_heard_after_the_block_as_often_as_it_came_whatever_else_fails():
    heard = []

    def hear(number, frame):
        heard.append(number)
        raise terminal.Ended(number)
    before = {number: signal.signal(number, hear) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        with pytest.raises(terminal.Ended), terminal.signals_held():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(number)
            assert not heard
            1/0
        assert sorted(heard) == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is hear
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------------- advice
def test_what_the_system_refuses_is_a_sentence(capsys):
    for error in (MemoryError(), OSError(24, "Too many open files", "a\nb"), RuntimeError("can't start new thread"),
                  PermissionError(13, "no", "x"), ImportError("_c.so: failed to map segment from shared object"),
                  OSError("Could not find/load shared object file 'libllvmlite.so' from resource location"),
                  SystemError("error return without exception set")):
        @check.exit_with_message
        def main(error=error):
            raise error
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    for error in (RuntimeError("a mistake of zfcore's own keeps its traceback"),
                  SystemError("<built-in function f> returned a result with an exception set")):
        @check.exit_with_message
        def mistake(error=error):
            raise error
        with pytest.raises(type(error)):
            mistake()


# --------------------------------------------------------------------------------------------------- options and arguments
@pytest.mark.parametrize("asked, argument, option", [
    (lambda: TrainConfig(val_fraction=2), "^val_fraction: expected a share", "^--val-fraction: expected a share"),
    (lambda: TrainConfig(start_left=0.0, weight_decay=None), "^weight_decay: .* or start_left above 0",
     "^--weight-decay: .* or --start-left above 0"),
    (lambda: zfcore.open("mine"), "^run: expected .* python -m train --output mine trains one$", "^--run: expected .* --output mine"),
    (lambda: zfcore.open("a.onnx"), "^run: .* got a.onnx, which does not exist$", "^--run: .* got a.onnx, which does not exist$"),
    (lambda: zfcore.select("--tpu"), "^device: .* got '--tpu'", "^--device: .* got '--tpu'")])
def test_a_function_is_told_its_arguments_and_a_command_its_options(asked, argument, option, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(zfcore.Expected, match=argument):
        asked()
    with terminal.at_work(), pytest.raises(zfcore.Expected, match=option):
        asked()
    with pytest.raises(zfcore.Expected, match=argument):
        asked()


def test_an_interrupt_at_any_line_while_a_bar_is_made_leaves_no_noise(monkeypatch):
    noise, makers = [], [kind.__init__.__code__ for kind in (terminal.Bar, terminal.tqdm)]    # not those of locks, which they take
    monkeypatch.setattr(sys, "unraisablehook", lambda report: noise.append(report.exc_value))

    def interrupted(after):
        """Return whether the bar was made before so many lines of it were run."""
        def trace(frame, event, arg):
            nonlocal after
            if frame.f_code not in makers:
                return None
            after -= event == "line"
            if after < 0:
                raise KeyboardInterrupt
            return trace
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            terminal.Bar(3, "step", "short").close()
            return False
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)

    assert next(lines for lines in range(1000) if not interrupted(lines)) > 5 and noise == []
