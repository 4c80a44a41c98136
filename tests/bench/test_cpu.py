"""`python -m bench cpu` says what it cannot do before it measures, tells how long it takes, and has the best of the engines
beside ours."""
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import cpu, engines
from zfcore.check import Expected


def test_an_output_that_is_a_file_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "forecast", None)             # the first measurement
    with pytest.raises(Expected, match="output: expected a folder, got .*, a file"):
        cpu.say_forecast(SimpleNamespace(output=Path(__file__)))


def test_every_part_that_is_asked_for_has_a_forecast(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cpu, "zfnet", lambda: SimpleNamespace(init=lambda seed: SimpleNamespace(forward=lambda x: None)))
    args = SimpleNamespace(output=tmp_path, batch_sizes=[1], rounds=1, parts=cpu.PARTS)
    assert list(cpu.forecast(args)) == list(cpu.PARTS) and all(seconds > 0 for seconds in cpu.forecast(args).values())
    args.parts = ("threads", "network")
    cpu.say_forecast(args)
    said = capsys.readouterr().out
    assert said.startswith("about ") and said.index("network") < said.index("threads") and "atlas" not in said


def test_the_best_engine_counts(monkeypatch):
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: clock[0])
    clock = [0.0]

    def lasting(seconds):
        def run():
            clock[0] += seconds
        return run
    row = cpu.compare("x", {"ours": lasting(0.5), "slow": lasting(4), "fast": lasting(2)}, 5, 3)
    assert row["best"] == "fast" and row["ratio"] == pytest.approx(0.25) and row["milliseconds"]["ours"] == pytest.approx(100)


def test_a_turn_of_short_calls_is_told_by_their_median(monkeypatch):
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: clock[0])
    clock, lasting = [0.0], iter([0.2, *[0.01]*1000])

    def run():
        clock[0] += next(lasting)
    assert cpu.of_a_turn(run) == pytest.approx(0.01) and cpu.LONG <= clock[0] < cpu.LONG + 0.02


def test_what_is_stopped_goes_on_without_measuring_again(tmp_path, monkeypatch):
    measured = []

    def compare(name, runs, N, rounds):
        if name == "training step" and stopping:
            raise KeyboardInterrupt
        measured.append((name, N))
        return {"milliseconds": {"ours": 1.0}}
    monkeypatch.setattr(cpu, "compare", compare)
    monkeypatch.setattr(cpu, "checked_engines", dict)
    monkeypatch.setattr(cpu, "network_cases", lambda N, left_out: (("forward", dict), ("training step", dict)))
    args, stopping = SimpleNamespace(output=tmp_path, batch_sizes=[1, 3], rounds=2, parts=["network"]), True
    with pytest.raises(KeyboardInterrupt):
        cpu.main(args)
    stopping = False
    cpu.main(args)
    assert measured == [("forward", 1), ("training step", 1), ("forward", 3), ("training step", 3)]


def test_an_engine_that_fails_is_left_out_and_one_that_is_wrong_is_told(monkeypatch):
    network = SimpleNamespace(init=lambda *_: network, forward=lambda x: (cpu.np.ones((3, 2)), None))
    monkeypatch.setattr(cpu, "zfnet", lambda: network)

    def broken(network, x):
        raise OSError("no compiler")
    found = [engines.Engine("broken", "sys", broken), engines.Engine("right", "sys", lambda *_: lambda: cpu.np.ones((3, 2)))]
    monkeypatch.setattr(engines, "installed", lambda: found)
    assert cpu.checked_engines() == {"broken": "OSError: no compiler"}
    found.append(engines.Engine("wrong", "sys", lambda *_: lambda: cpu.np.full((3, 2), 1.1)))
    with pytest.raises(AssertionError, match="wrong"):
        cpu.checked_engines()
