"""Which tests are slow, by measurement and not by taste: `python -m pytest -p tests.slow` runs the tests that are asked for
and writes slow.txt, the table by which conftest.py marks them.

    seconds cases file::function          CPU time of this process and of its children, all cases of the function together

A function of LIMIT or more stands there. All its cases are marked but the first, where a case takes less than LIMIT on
average, so that most subjects keep a fast test; and a file whose tests all are slow keeps the cheapest. Measure all of them,
then `-m "not slow"`: there a first case pays for what others shared, and where that takes SHARED or more it stands there alone
and all are marked. Again, if you like: then the next pays."""
import os
from collections import defaultdict
from pathlib import Path

import pytest

TABLE, LIMIT, SHARED = Path(__file__).with_name("slow.txt"), 0.1, 0.3
TAKEN = defaultdict(list)                      # function -> seconds of its cases


def function(item):
    return item.nodeid.split("[")[0]


def table():
    """{function: (seconds, cases)}"""
    rows = [line.split(" ", 2) for line in TABLE.read_text().splitlines()]
    return {name: (float(seconds), int(cases)) for seconds, cases, name in rows}


def of_a_file():
    """{file: seconds of its slow functions}"""
    taken = defaultdict(float)
    for name, (seconds, _) in table().items():
        taken[name.split("::")[0]] += seconds
    return taken


def marked(items):
    """Those of the collected `items` that are slow."""
    of_a_case = {name: seconds/cases for name, (seconds, cases) in table().items()}
    seen, slow = set(), []
    for item in items:
        name = function(item)
        if name in of_a_case and (name in seen or of_a_case[name] >= LIMIT):
            slow.append(item)
        seen.add(name)
    left_out = set(map(id, slow))
    with_fast = {item.path for item in items if id(item) not in left_out}
    kept = {}                                  # file -> its cheapest test
    for item in sorted(slow, key=lambda item: of_a_case[function(item)]):
        if item.path not in with_fast:
            kept.setdefault(item.path, item)
    return [item for item in slow if item is not kept.get(item.path)]


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
    rows = table()
    for name, taken in TAKEN.items():
        if len(taken) >= rows.get(name, (0, 0))[1]:
            rows[name] = sum(taken), len(taken)
        elif max(taken) >= SHARED and rows[name][0] < LIMIT*rows[name][1]:
            rows[name] = max(taken), 1
    TABLE.write_text("".join(f"{seconds:.2f} {cases} {name}\n" for name, (seconds, cases) in sorted(rows.items())
                             if seconds >= LIMIT))
