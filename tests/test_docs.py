"""What the pages say is so: their Python prints what stands there, their commands parse, their links lead somewhere. What
docstrings are about stands at their beginning."""
import argparse
import ast
import doctest
import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest

import zfcore
from zfcore import layers

ROOT = Path(__file__).parents[1]
PAGES = [ROOT/"README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT/".github").glob("*.md"))]
COMMANDS = {name: f"{name}.__main__" for name in ("zfcore", "train", "bench")} | {
    name: name for name in ("train.evaluate", "train.predict", "train.pack", "train.reference", "train.ablation",
                            "train.transfer", "train.reproduce")}
STAND_INS = {"NAME": "drawn", "COMMAND": "sanity-checks"}

every = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# -------------------------------------------------------------------------------------------------------- Python
def examples(page):
    """The lines of Python on a page as a DocTest; the fences around them are no output."""
    text = re.sub("^```.*$", "", page.read_text(), flags=re.M)
    return doctest.DocTestParser().get_doctest(text, {}, page.parent.name, str(page), 0)


@pytest.mark.parametrize("page", [ROOT/"README.md", ROOT/"zfcore"/"README.md"], ids=("README.md", "zfcore/README.md"))
def test_python_prints_what_the_page_says(page, monkeypatch):
    said = []
    monkeypatch.setattr(layers, "KINDS", {**layers.KINDS})     # what a page enters there is on no other page
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    failed, tried = runner.run(examples(page), out=said.append)
    assert tried >= 10 and not failed, "".join(said)


def test_no_other_page_has_python_that_nobody_runs():
    assert [page for page in PAGES if examples(page).examples] == [ROOT/"README.md", ROOT/"zfcore"/"README.md"]


# ---------------------------------------------------------------------------------------------------- docstrings
VAGUE = {*"what how whether which who whom whose where why when that this these those it its something somebody someone nobody".split(),
         *"nothing everything everybody anything anybody whatever as so until unless while if also because".split(),
         # name neither what is done nor what it is
         *"of from for in into along up within told thing things".split()}


def vague(source):
    """First words of the docstrings in Python text that are VAGUE, or that an article alone comes before such."""
    nodes = (node for node in ast.walk(ast.parse(source))
             if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)))
    words = (re.match(r"(?:(?:a|the)\s+)?(\w*)", ast.get_docstring(node) or "", flags=re.I)[1] for node in nodes)
    return [word for word in words if word.lower() in VAGUE]


@pytest.mark.parametrize("folder", ["zfcore", "train", "bench"])
def test_a_docstring_begins_with_a_verb_or_a_noun(folder):
    files = [*(ROOT/folder).rglob("*.py")]
    assert len(files) >= 10
    assert {str(path.relative_to(ROOT)): found for path in files if (found := vague(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize("said, found", [("What a unit sees.", ["What"]), ("\n    whether it is so", ["whether"]),
                                         ("The thing.", ["thing"]),
                                         ("Whatever", ["Whatever"]), ("Whitening.", []), ("The form.", []), ("`x`: what", []),
                                         ("", [])])
def test_a_vague_docstring_is_seen_wherever_it_stands(said, found):
    assert vague(f'"""{said}"""') == vague(f'class A:\n  async def b():\n    """{said}"""') == found


# ------------------------------------------------------------------------------------------------------ commands
class Parsed(BaseException):
    """The command understood its options: enough."""


def commands(page):
    """Every `python -m COMMAND OPTION ...` in code on a page, as words."""
    text = page.read_text()
    fenced = re.findall("^```$(.*?)^```$", re.sub("^```python$.*?^```$", "", text, flags=re.M | re.S), flags=re.M | re.S)
    prose = re.sub(r"^```\w*$.*?^```$", "", text, flags=re.M | re.S)
    lines = "\n".join([*fenced, *re.findall("^    .*$", prose, flags=re.M)]).split("\n")
    lines += [span.replace("\n", " ") for span in re.findall("`([^`]+)`", re.sub("^    .*$", "", prose, flags=re.M))]
    for line in lines:
        for said in re.findall(r"python -m (.+?)(?=$|  | #| && |, )", line):
            name, *words = shlex.split(re.sub(r"[\[\]]", "", said))
            if name in COMMANDS and words:
                yield name, [STAND_INS.get(word, word) for word in words]


@every
def test_commands_parse(page, monkeypatch, capsys):
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser, arguments=None):
        parse(parser, arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    for name, words in commands(page):
        monkeypatch.setattr(sys, "argv", [name, *words])
        try:
            importlib.import_module(COMMANDS[name]).main()
        except Parsed:
            continue
        except SystemExit as end:
            assert not end.code, f"python -m {name} {' '.join(words)}: {capsys.readouterr().err}"


def test_the_pages_have_many_commands():
    assert sum(len(list(commands(page))) for page in PAGES) > 50


# --------------------------------------------------------------------------------------------------------- links
def anchors(page):
    """The names by which GitHub finds the headings of a page."""
    prose = re.sub("^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall("^#+ (.+)$", prose, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        to = page.parent/file if file else page
        assert to.exists(), link
        assert not anchor or anchor in anchors(to), link


# ----------------------------------------------------------------------------------------------------- reference
def test_pdoc_shows_every_public_name():
    documented = pytest.importorskip("pdoc").doc.Module(zfcore)
    modules = {name for name in zfcore.__all__ if inspect.ismodule(getattr(zfcore, name))}
    assert set(zfcore.__all__) - modules <= set(documented.members)
    assert modules <= {module.name for module in documented.submodules} | set(documented.members)
