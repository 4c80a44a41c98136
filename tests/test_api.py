"""`import zfcore` is the library: what it promises is there, is explained, and costs nothing before it is asked for."""
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zfcore
from zfcore import plots
from zfcore.late import read_when_used
from zfcore.trained import Trained

# that --help of all commands together loads, the standard library's among them; there were 598 when this was set
MOST_MODULES = 650

PUBLIC = {name: getattr(zfcore, name) for name in zfcore.__all__}


def test_every_public_name_is_there_and_explains_itself():
    assert PUBLIC.keys() <= set(dir(zfcore)) and all(getattr(zfcore, name) is thing for name, thing in PUBLIC.items())
    assert [name for name, thing in PUBLIC.items()
            if callable(thing) and inspect.getdoc(thing) in (None, "", inspect.getdoc(type(thing)))] == []


def test_what_holds_arrays_is_equal_to_itself_alone_and_may_be_a_key():
    """Of arrays == has many answers."""
    assert [name for name, kind in PUBLIC.items() if dataclasses.is_dataclass(kind)
            and not (kind.__eq__ is object.__eq__ and kind.__hash__ is object.__hash__)] == []


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(AttributeError, match="zfcore has no 'opne'; it has .*open_data"):
        zfcore.opne


def test_the_list_in_the_docstring_is_the_whole_of_it():
    told = set(re.findall(r"\w+", zfcore.__doc__.split("What there is")[1]))
    table = (Path(__file__).parents[1]/"zfcore"/"README.md").read_text().split("## The API")[1]
    results = {kind.__name__ for kind in (inspect.signature(of).return_annotation for of in PUBLIC.values() if inspect.isfunction(of))
               if dataclasses.is_dataclass(kind) and kind.__module__.startswith(("zfcore.analysis", "zfcore.deconvnet"))}
    assert len(results) == 11 and set(zfcore.__all__) - results <= told & set(re.findall(r"`(\w+)`", table))


def test_importing_it_imports_nothing_else():
    code = "import sys, zfcore; print([name for name in ('numpy', 'h5py', 'matplotlib', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_command_does_not_wait_for_matplotlib_until_it_draws():
    code = ("import sys, train.__main__, train.transfer, zfcore.__main__; print('matplotlib' in sys.modules); from zfcore "
            "import plots; plots.FORMATS; import zfcore.plots; print('matplotlib' in sys.modules, zfcore.plots is plots)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert said.stdout == "False\nTrue True\n", said.stderr


def test_threads_that_are_the_first_to_draw_wait_for_the_one_that_reads_how():
    code = ("import threading, time, zfcore\n"
            "said = []\n"
            "def draw(delay):\n"
            "    time.sleep(delay)\n"
            "    try: said.append(str(callable(zfcore.plots.unit_blocks)))\n"
            "    except BaseException as error: said.append(repr(error))\n"
            "def bring(delay):\n"
            "    time.sleep(delay)\n"
            "    import zfcore.plots\n"
            "    draw(0)\n"
            "threads = [threading.Thread(target=of, args=(0.02*k,)) for k, of in enumerate({order})]\n"
            "for thread in threads: thread.start()\n"
            "for thread in threads: thread.join()\n"
            "print(*said)")
    for order in "[draw]*6", "[bring, draw]*3", "[draw, bring]*3":
        said = subprocess.run([sys.executable, "-c", code.replace("{order}", order)], capture_output=True, text=True)
        assert said.stdout == "True True True True True True\n", said.stderr


def test_what_cannot_be_read_is_tried_again_by_whoever_asks_next(tmp_path, monkeypatch):
    (tmp_path/"late_one.py").write_text("import sys\nsys.late_turns += 1\n1/(sys.late_turns - 1)\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "late_turns", 0, raising=False)
    late_one = read_when_used("late_one")
    monkeypatch.delitem(sys.modules, "late_one")
    assert sys.late_turns == 0
    with pytest.raises(ZeroDivisionError):
        late_one.value
    assert late_one.value == 3 and sys.late_turns == 2 and type(late_one) is type(sys)


def test_help_loads_nothing_that_is_slow():
    """All commands in one process, one after the other: what one of them loads is there for the next."""
    commands = ["zfcore", "train", "train.evaluate", "train.predict", "train.pack", "train.reproduce", "train.ablation",
                "train.transfer", "bench"]
    code = ("import runpy, sys\n"
            f"for command in {commands}:\n"
            "    sys.argv = [command, '--help']\n"
            "    try: runpy.run_module(command, run_name='__main__')\n"
            "    except SystemExit: pass\n"
            "    slow = {'matplotlib', 'scipy', 'onnx', 'onnxruntime', 'jax', 'captum', 'keras', 'cv2', 'cupy', 'torch._C'}\n"
            "    print(command, slow & set(sys.modules), len(sys.modules), file=sys.stderr)")
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
                          cwd=Path(__file__).parents[1]).stderr
    lines = [line.split() for line in said.splitlines()]
    assert [(command, slow) for command, slow, _ in lines] == [(command, "set()") for command in commands]
    assert max(int(modules) for _, _, modules in lines) < MOST_MODULES, said


def test_the_lines_at_its_head_run(monkeypatch):
    monkeypatch.setattr(Trained, "pictures", lambda model, pictures=Trained.pictures: pictures(model, limit_per_class=5))
    lines = [line.strip() for line in zfcore.__doc__.split("\n") if line.startswith("    ")][:5]
    assert lines[0] == "import zfcore" and "unit_blocks" in lines[4]
    names = {}
    exec("\n".join(lines[:4]), names)
    sheet = eval(lines[4], names)
    assert isinstance(sheet, plots.Sheet) and sheet._repr_png_().startswith(b"\x89PNG")
    assert names["views"].projections.shape[:2] == (1, 9) and names["views"].projections.any()
