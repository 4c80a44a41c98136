"""A record of what is measured, in a JSON file from the first row on, so that a bench that was stopped goes on where it was.

    record = Record(path, {"rounds": 7, ...}, asked=("network",))
    if not record.has("cases", name=..., N=...): record.add("cases", {...})
    record.finish()

A file is gone on with if it was not finished and was begun on the same machine with the same versions, commit and facts. Rows
of a finished one are measured again; those of parts that nobody asked for stay, where all of that is the same too.
"""
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from zfcore.check import Expected
from zfcore.cpu import BLAS, CORES
from zfcore.files import read_json

ONCE = "date", "load_before", "under_way"                    # in which two reports of the same circumstances differ


class Record:
    """The report in the file `path`: circumstances, `facts`, and lists of rows. `rows_of` are the names of the lists."""

    def __init__(self, path, facts, rows_of=("cases",), asked=()):
        self.path = path
        self.report = {"cpu": cpu_name(), "cores": CORES, "python": platform.python_version(), "numpy": np.__version__,
                       # which the loops of zfcore/ops/loops.py are compiled by
                       "numba": installed_version("numba"),
                       "blas": [f"{library.internal_api} {library.version}" for library in BLAS.libraries], "commit": commit(),
                       **facts,
                       "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "load_before": os.getloadavg(),
                       "under_way": True, **{name: [] for name in rows_of}}
        with contextlib.suppress(OSError, Expected):             # none yet, or none that can be gone on with
            self._go_on(read_json(path), rows_of, asked)

    def _go_on(self, before, rows_of, asked):
        def circumstances(report):
            return {key: value for key, value in report.items() if key not in (*ONCE, *rows_of)}
        if isinstance(before, dict) and circumstances(before) == json.loads(json.dumps(circumstances(self.report))):
            for name in rows_of:
                self.report[name] = [row for row in before.get(name, []) if before.get("under_way")
                                     or row.get("part") not in asked]

    def has(self, rows, **which):
        """The row of the list `rows` in which these entries are, None where there is none yet."""
        return next((row for row in self.report[rows] if which.items() <= row.items()), None)

    def add(self, rows, row):
        """Add a row, and write the file."""
        self.report[rows].append(row)
        self._write()

    def finish(self):
        """Write the file as that of a bench that came to its end."""
        self.report["under_way"] = False
        self._write()
        print(f"written to {self.path}", flush=True)

    def _write(self):
        save(self.path, self.report)


def save(path, report):
    """Write `report` as JSON into the file `path`, in place of what was there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    os.replace(new, path)


def commit():
    """Commit that was measured: that of this checkout, or $ZFCORE_COMMIT where a copy without .git is measured."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                              cwd=Path(__file__).parent, check=True).stdout.strip()
    return os.environ.get("ZFCORE_COMMIT")


def cpu_name():
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def installed_version(package):
    """Version of a package by its metadata, which imports nothing; None where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def optional(name):
    """The package `name`, which is loaded when something of it is asked for, so that --help need not wait; None without it."""
    if name in sys.modules:
        return sys.modules[name]
    if (spec := importlib.util.find_spec(name)) is None:
        return None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
