"""Which tests are slow, by measurement and not by taste: `python -m pytest -p tests.slow` runs the tests that are asked for
and writes slow.txt, the table by which conftest.py marks them.

    seconds cases file::function          CPU time of this process and of its children, all cases of the function together

A function of LIMIT or more stands there. All its cases are marked but the first, where a case takes less than LIMIT on
average, so that most subjects keep a fast test; and a file whose tests all are slow keeps one."""
import os
from collections import defaultdict
from pathlib import Path

import pytest

TABLE, LIMIT = Path(__file__).with_name("slow.txt"), 0.1
TAKEN = defaultdict(list)                      # function -> seconds of its cases


def function(item):
    return item.nodeid.split("[")[0]


def marked(items):
    """Those of the collected `items` that are slow."""
    rows = [line.split(" ", 2) for line in TABLE.read_text().splitlines()]
    of_a_case = {name: float(seconds)/int(cases) for seconds, cases, name in rows}
    seen, slow = set(), []
    for item in items:
        name = function(item)
        if name in of_a_case and (name in seen or of_a_case[name] >= LIMIT):
            slow.append(item)
        seen.add(name)
    with_fast, kept = {item.path for item in set(items).difference(slow)}, set()
    for item in slow:
        if item.path in with_fast or item.path in kept:
            yield item
        kept.add(item.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    begun = os.times()
    try:
        return (yield)
    finally:
        TAKEN[function(item)].append(sum(os.times()[:4]) - sum(begun[:4]))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for name, taken in node.workeroutput["taken"].items():
        TAKEN[name] += taken


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["taken"] = dict(TAKEN)
        return
    rows = [line.split(" ", 2) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []
    write({name: (float(seconds), int(cases)) for seconds, cases, name in rows if name not in TAKEN} |
          {name: (sum(taken), len(taken)) for name, taken in TAKEN.items()})


def write(rows):
    """Writes the table of {function: (seconds, cases)}; what is fast is left out."""
    TABLE.write_text("".join(f"{seconds:.2f} {cases} {name}\n" for name, (seconds, cases) in sorted(rows.items()) if seconds >= LIMIT))
