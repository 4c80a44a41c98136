"""Python reads this file first in every process that a test starts, as conftest.py has put its folder on their path. There no
run draws curves and filters, and no loop is compiled: to load matplotlib and numba takes three times as long as such a run
trains. A test that is marked `figures` starts processes without it."""
import sys
from importlib.machinery import PathFinder


def undrawn(loop):
    loop.Training.draw = lambda training: None


def uncompiled(loops):
    loops.compiled = lambda loop, x: None


class Changed:
    """Finds these modules where they are, and changes them once they are imported."""
    of = {"zfcore.training.loop": undrawn, "zfcore.ops.loops": uncompiled}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if (change := cls.of.get(name)) and (spec := PathFinder.find_spec(name, path, target)):
            def execute(module, execute=spec.loader.exec_module):
                execute(module)
                change(module)
            spec.loader.exec_module = execute
            return spec


sys.meta_path.insert(0, Changed)
