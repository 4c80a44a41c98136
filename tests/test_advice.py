"""Options that a sentence names are options of a command that can say it."""
import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from zfcore.commands import COMMANDS, TOOLS

ROOT = Path(__file__).parents[1]
WORD = re.compile(r"--[a-z][a-z0-9-]*")
MODULES = ["train.options", "train.evaluate", "train.predict", "train.pack", "train.reference", "train.ablation",
           "train.transfer", "train.reproduce", "zfcore.__main__", "bench.__main__"]
OF_OTHERS = {"--ptxas-options", "--query-gpu", "--format", "--always", "--dirty", "--abbrev"}    # of ptxas, nvidia-smi, git


def options(module):
    """All options of a module's parser and of the commands below it."""
    import argparse
    found, left = set(), [import_module(module).parser()]
    while left:
        for action in left.pop()._actions:
            found |= {word for word in action.option_strings if word.startswith("--")}
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
    return found


def named(path):
    """(line, option) of the options that texts of the file name, docstrings and other commands left out."""
    tree = ast.parse(path.read_text("utf-8"))
    left_out = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command"
                for part in ast.walk(node)}                # commands that are advised, which have options of their own
    left_out |= {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
                 and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield from ((node.lineno, word) for word in WORD.findall(node.value))


@pytest.mark.parametrize("folder", ["zfcore", "train", "bench"])
def test_every_option_that_a_text_names_is_one_of_a_command(folder):
    known = set().union(*map(options, MODULES), OF_OTHERS)
    assert [f"{path.name}:{line}: {word}" for path in sorted((ROOT/folder).rglob("*.py")) for line, word in named(path)
            if word not in known] == []


@pytest.mark.parametrize("name", sorted({**COMMANDS, **TOOLS}))
def test_a_commands_file_names_its_own_options(name):
    from zfcore.__main__ import parser
    of, = [action for action in parser()._actions if action.choices]
    own = {word for action in of.choices[name]._actions for word in action.option_strings}
    path = Path(import_module({**COMMANDS, **TOOLS}[name].__name__).__file__)
    assert [f"{line}: {word}" for line, word in named(path) if word not in own] == []
