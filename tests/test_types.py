"""The public names say their types: each signature has them, the stub names them all, a checker refuses wrong programs."""
import ast
import dataclasses
import functools
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import zfcore

ROOT = Path(__file__).parents[1]
MODULES = ["zfcore.check", "zfcore.checkpoint", "zfcore.data", "zfcore.data.caltech", "zfcore.data.loader",
           "zfcore.data.transforms", "zfcore.deconvnet", "zfcore.layers", "zfcore.models", "zfcore.models.alexnet",
           "zfcore.models.folded", "zfcore.models.nin", "zfcore.models.vgg", "zfcore.models.zfnet", "zfcore.network",
           "zfcore.networks", "zfcore.plots", "zfcore.results", "zfcore.trained"]
VAGUE = np.ndarray, dict, list, tuple, Callable, inspect.Parameter.empty, None       # of what, from what?


def public():
    """{name: function or class}: those of `import zfcore`, and all of its MODULES."""
    found = {name: getattr(zfcore, name) for name in zfcore.__all__}
    found |= {f"zfcore.training.{name}": getattr(zfcore.training, name) for name in zfcore.training.__all__}
    for module in map(importlib.import_module, MODULES):
        found |= {f"{module.__name__}.{name}": thing for name, thing in vars(module).items()
                  if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__}
    return {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


def functions(thing):
    """(name, function) of a function, or of a class's own constructor and public methods and properties."""
    if not inspect.isclass(thing):
        yield "", inspect.unwrap(thing)
        return
    for name, what in vars(thing).items():
        what = what.fget if isinstance(what, property) else what.func if isinstance(what, functools.cached_property) else what
        for_users = name == "__init__" or not name.startswith("_")
        if for_users and inspect.isfunction(what) and what.__module__ == thing.__module__:
            yield name, inspect.unwrap(what)


def test_every_signature_says_its_types():
    vague = []
    for name, thing in public().items():
        for method, function in functions(thing):
            signature = inspect.signature(function)
            said = {word: one.annotation for word, one in signature.parameters.items() if word not in ("self", "cls")}
            back = signature.return_annotation
            vague += [f"{name}.{method}: {word}" for word, kind in said.items() if kind in VAGUE]
            vague += [f"{name}.{method}: what it returns"]*(back is not None and back in VAGUE)
    assert vague == []


def test_every_field_says_its_type():
    assert [f"{name}.{field.name}" for name, thing in public().items() if dataclasses.is_dataclass(thing)
            for field in dataclasses.fields(thing) if field.type in VAGUE] == []


def test_every_public_function_and_class_explains_itself():
    as_written_by_dataclass = "{0.__name__}(".format
    assert [name for name, thing in public().items()
            if not thing.__doc__ or thing.__doc__.startswith(as_written_by_dataclass(thing))] == []


def test_the_stub_has_the_names_of_the_package():
    """And each from where the package takes it."""
    stubbed = {}
    for node in ast.parse((ROOT/"zfcore"/"__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            stubbed |= {alias.asname: (node.module, alias.name) for alias in node.names if alias.asname}
        elif isinstance(node, ast.Assign):
            stubbed[node.targets[0].id] = f"zfcore.{node.value.value.id}", node.value.attr
    assert stubbed == {**zfcore._PUBLIC, **{name: ("zfcore", name) for name in zfcore._MODULES}}


# ------------------------------------------------------------------------------------------------------ a user's program
RIGHT = '''
import numpy as np
import zfcore
from zfcore.network import Rules

model = zfcore.open("drawn", device="cpu")
pictures = model.pictures(part="val")
top = zfcore.top_activations(model, pictures, ["conv5"], k=4)
views = zfcore.unit_views(model, pictures, top, "conv5", [3], rules=zfcore.GUIDED)
sheet = zfcore.plots.unit_blocks(views)
zfcore.plots.save(sheet, "units.png")
zfcore.save_result("units.h5", views)
again: zfcore.UnitViews = zfcore.load_result("units.h5", zfcore.UnitViews)
strength: np.float32 = again.values[0, 0]
width: int = model.network["conv1"].K
own: Rules = {zfcore.layers.ReLU: lambda layer, dy, cache: abs(dy)}
shown = zfcore.project(model.network, model.inputs(np.zeros((1, model.size, model.size, 3), np.uint8)), "conv5", [3], rules=own)
pixels = shown.pixels + 1
found = zfcore.occlusion(model, np.zeros((2, 128, 128, 3), np.uint8), [0, 1], criterion="max")
if found.names is not None:
    print(found.names.tolist(), found.probabilities.mean())
try:
    network: zfcore.Network = zfcore.build("tiny", classes=10).init(seed=1, law="he")
except zfcore.Expected as sentence:
    print(sentence.advice)
'''
WRONG = {
    'zfcore.opne("drawn")': "attr-defined",
    'zfcore.open("drawn", device="tpu")': "arg-type",
    'zfcore.open(3)': "arg-type",
    'zfcore.plots.occlusion(zfcore.load_result("f", zfcore.UnitViews))': "arg-type",
    'zfcore.occlusion(zfcore.open("drawn"), floats)': "arg-type",
    'zfcore.occlusion(zfcore.open("drawn"), floats.astype(np.uint8), criterion="mean")': "arg-type",
    'zfcore.save_result("f", {"a": 1})': "arg-type",
    'zfcore.layers.MaxPool("pool", 3, 2, rounding="up")': "arg-type",
    'zfcore.open("drawn").path.name': "union-attr",
    'zfcore.build("tiny")': "call-arg",
    'zfcore.load_result("f", zfcore.Invariance).clean["scale"].shape': "attr-defined",
}


def test_a_checker_takes_a_right_program_and_refuses_wrong_ones(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path/"right.py").write_text(RIGHT)
    head = "import numpy as np, zfcore", "floats = np.zeros((2, 9, 9, 3), np.float32)"
    (tmp_path/"wrong.py").write_text("\n".join([*head, *WRONG]))
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT/"pyproject.toml", "--strict", "--follow-imports", "silent",
               tmp_path/"right.py", tmp_path/"wrong.py"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    errors = [line for line in said if ": error: " in line]
    assert [line for line in errors if "wrong.py" not in line] == [], "\n".join(said)
    found = {int(line.split(":")[1]): line.rsplit("[", 1)[1].rstrip("]") for line in errors}
    assert found == dict(enumerate(WRONG.values(), len(head) + 1)), "\n".join(said)
