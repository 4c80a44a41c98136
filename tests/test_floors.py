"""A file imports only from lower floors; CuPy is known to one file, matplotlib to one."""
import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [                                        # from the ground up; what stands in one row does not import each other
    ["zfcore.hints", "zfcore.system", "zfcore.terminal", "zfcore.late"],
    ["zfcore.check"],
    ["zfcore.files", "zfcore.cpu", "zfcore.memory", "zfcore.pickles", "zfcore.beside"],
    ["zfcore.hdf5", "zfcore.nvrtc"],
    ["zfcore.backend", "zfcore.cubin"],
    ["zfcore.kernel", "zfcore.prefetch", "zfcore.graph"],
    ["zfcore.ops", "zfcore.gpu"],
    ["zfcore.ranks"],
    ["zfcore.layers"],
    ["zfcore.fusion"],
    ["zfcore.network"],
    ["zfcore.optim", "zfcore.checkpoint", "zfcore.networks", "zfcore.reduce"],
    ["zfcore.results"],
    ["zfcore.models", "zfcore.data", "zfcore.device"],
    ["zfcore.interchange"],
    ["zfcore.deconvnet", "zfcore.trained"],
    ["zfcore.analysis"],
    ["zfcore.plots"],
    ["zfcore.atlas"],
    ["zfcore.training"],
    ["zfcore.crew"],
    ["zfcore.commands"],
    ["zfcore.__main__"],
    ["train"],
    ["bench"],
]
FILES = sorted(path for folder in ("zfcore", "train", "bench") for path in (ROOT/folder).rglob("*.py"))


def module(path):
    """zfcore/ops/relu.py -> "zfcore.ops.relu"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path):
    """Every module that a file imports anywhere in it, functions included: "from zfcore import check" is zfcore.check."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def floor(name):
    """The number of the floor that module (or name in a module) `name` is on; None for the packages' own __init__."""
    return next((k for k, row in enumerate(FLOORS) for unit in row if name == unit or name.startswith(unit + ".")), None)


def unit(name):
    return next((unit for row in FLOORS for unit in row if name == unit or name.startswith(unit + ".")), name)


def test_a_file_imports_only_from_lower_floors():
    upward = []
    for own, name in ((module(path), name) for path in FILES for name in imports(path)):
        apart = floor(name) is not None and floor(own) is not None and unit(name) != unit(own)
        if name.split(".")[0] == "tests" or apart and floor(name) >= floor(own):
            upward.append(f"{own} imports {name}")
    assert upward == []


@pytest.mark.parametrize("library, file", [("cupy", "zfcore.gpu"), ("cupyx", "zfcore.gpu"), ("mpi4py", "zfcore.ranks.mpi"),
                                           ("matplotlib", "zfcore.plots"), ("numba", "zfcore.ops.loops")])
def test_a_library_is_imported_by_its_one_file(library, file):
    found = {module(path) for path in FILES for name in imports(path) if name.split(".")[0] == library}
    assert found <= {file}


def test_no_file_stands_outside_the_floors():
    assert [module(path) for path in FILES if floor(module(path)) is None and module(path) != "zfcore"] == []
