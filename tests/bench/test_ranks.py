"""bench ranks: a report of real ranks, the link that times show, what is predicted and drawn, and what is refused."""
import argparse
import json
from itertools import product

import pytest
from PIL import Image

from bench import ranks, tables
from train.step_time import Link, kept, place_of
from zfcore.check import Expected
from zfcore.device import select
from zfcore.ranks import ALONE


def parsed(*typed):
    parser = argparse.ArgumentParser()
    ranks.add_arguments(parser)
    return parser.parse_args(["--device", "cpu", "--image-size", "32", "--batch-size", "8", "--rounds", "1", "--largest",
                              "4000", *typed])


def test_two_ranks_are_measured_kept_told_drawn_and_stand_in_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr(ranks, "BESIDE", (("tiny", 3),))
    monkeypatch.setitem(ranks.NATIVE_SIZE, "tiny", 48)
    monkeypatch.setattr(ranks, "TURNS", 2)
    args = parsed("--devices", "2", "--output", str(tmp_path/"new"/"ranks.json"), "--plot", str(tmp_path/"p.png"), "--network",
                  "20", "1")
    ranks.main(args)
    report, said = json.loads((tmp_path/"new"/"ranks.json").read_text()), capsys.readouterr().out
    assert report["way"] == "Sockets" and report["ranks"] == 2 and not report["own"]
    assert {what: list(sizes) for what, sizes in report["links"].items()} == dict.fromkeys(("gather", "exchange"),
                                                                                           ["4", "40", "400", "4000"])
    assert list(report["steps"]) == ["1", "2"] and "share" not in report["steps"]["2"]
    assert all(0 < of["lowest"] <= of["median"] <= of["highest"] and of["predicted"] > 0 for of in report["steps"].values())
    assert sum(size for size, _ in report["buckets"]) >= 4*300_000 and all(0 < ready <= 1 for _, ready in report["buckets"])
    of = kept()[place_of("tiny", 32, select("cpu").description)]
    assert of.steps == {int(n): step["median"] for n, step in report["steps"].items()} and list(of.link) == report["link"]
    assert "measured: of 1, 2 ranks" in said and "predicted, each rank with a device such as" in said
    assert Image.open(tmp_path/"p.png").size[0] > 500
    table = tables.ranks_table(tmp_path/"new")
    for ranks_, of in report["steps"].items():
        share = f"{(of['median'] - of['compute'] - of['update'])/of['median']*100:+.0f} %"
        assert said.count(share) and f"| {share} |" in next(line for line in table.split("\n") if line.startswith(f"| {ranks_} |"))
    assert table.count("\n| 1 |") == table.count("\n| 2 |") == 1 and "between 2 ranks by Sockets" in table
    assert [(row["image_size"], row["batch_size"], row["turns"]) for row in report["alone"]] == [(32, 8, 2), (48, 3, 2)]
    for row in report["alone"]:
        begins = f"| tiny at {row['image_size']}, batch {row['batch_size']}, 2 turns | "
        (line,) = (line for line in table.split("\n") if line.startswith(begins))
        for cell, (by, what) in zip(line.split(" | ")[2:], product(("clock", "processor"), ("ranks", "again")), strict=True):
            of = row[what][by]
            assert 0 < of["lowest"] <= of["median"] <= of["highest"]
            assert cell.startswith(f"{of['median']:.3f} ({of['lowest']:.3f} to ")
    assert said.count("a step on one rank, as a share of one that knows of none: ") == 2


def test_steps_that_are_compared_take_turns_at_being_first_and_only_the_first_turn_is_left_out(monkeypatch):
    calls, now = [], [0.0]
    monkeypatch.setattr(ranks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ranks.time, "process_time", lambda: 10*now[0])

    def taking(name):
        def run():
            calls.append(name)
            now[0] += "abc".index(name) + 1
        return run
    found = ranks.in_turns([taking(name) for name in "abc"], 4)
    assert "".join(calls) == "abcbcacababcbca" and found == [[(1, 10), (2, 20), (3, 30)]]*4


def test_a_step_on_one_rank_moves_the_weights_as_one_that_knows_of_none():
    found = []
    for way in ("plain", "whole", "wait"):
        step = ranks.Step(parsed(), ALONE)
        getattr(step, way)()
        found.append([array.tobytes() for of in step.network.parameters().values() for array in of.values()])
    assert found[0] == found[1] != found[2]


def test_the_link_is_the_fastest_short_messages_latency_and_the_longest_ones_bandwidth():
    times = {"4": {"median": 0.5}, "400": {"median": 0.006}, "5000": {"median": 0.001}, "8000": {"median": 2.006}}
    assert ranks.link_of(times, 4) == (0.002, pytest.approx(3*8000/2))


def test_an_exchange_reaches_every_rank_and_one_rank_alone_is_timed():
    assert set(ranks.timed(ALONE, {40: ranks.exchange_of(ALONE)(40)}, 3)[40]) == {"median", "lowest", "highest"}


def test_what_is_timed_takes_turns_and_its_first_round_warms_up(monkeypatch):
    calls, now = [], [0.0]
    monkeypatch.setattr(ranks.time, "perf_counter", lambda: now[0])

    def taking(name):
        def run():
            calls.append(name)
            now[0] += len(calls)
        return run
    found = ranks.timed(ALONE, {name: taking(name) for name in "ab"}, 2)
    assert "".join(calls) == "ababab" and [found[name]["lowest"] for name in "ab"] == [3, 4]
    assert [found[name]["highest"] for name in "ab"] == [5, 6]


def test_what_a_step_takes_beyond_its_parts_is_told_below_zero_too():
    assert ranks.beyond({"median": 2.0, "compute": 1.2, "update": 0.3}) == pytest.approx(0.25)
    assert ranks.beyond({"median": 2.0, "compute": 2.2, "update": 0.1}) == pytest.approx(-0.15)


def test_a_curve_ends_where_leaves_do_and_a_verdict_names_the_fastest():
    report = {"fixed": 0.0, "each": 0.1, "update": 0.0, "buckets": [[100, 1.0]], "link": [0.01, 1e9], "batch_size": 16,
              "date": "2026-11-29", "steps": {1: {"median": 1.6}, 2: {"median": 3.2}}}
    of = ranks.measured_of(report)
    assert of.link == Link(0.01, 1e9)
    line = ranks.curve(of, lambda n: 16, lambda n: lambda size: 0.0)
    assert list(line) == [1, 2, 4, 8, 16] and line[16] == pytest.approx(0.1)
    assert list(ranks.curve(of, lambda n: 16*n, lambda n: lambda size: 0.0))[-1] == 1024
    told = " ".join(ranks.verdict(report))
    # 0.2 + 2*7*0.01
    assert "of 1, 2 ranks 1 is the fastest" in told and "a batch of 16 is the fastest on 8 ranks, 4.71 times" in told
    told = " ".join(ranks.verdict({**report, "link": [10.0, 1e9]}))
    assert "a batch of 16 is slower on every number of ranks than on one" in told


@pytest.mark.parametrize("typed, sentence", [
    (["--devices", "9"], "ranks: expected at most 8"), (["--network", "0", "1"], "network: expected a number above 0")])
def test_bad_options_are_one_sentence_before_anything_is_measured(typed, sentence, monkeypatch):
    monkeypatch.setattr(ranks, "of_ranks", lambda *_: pytest.fail("measured"))
    with pytest.raises(Expected, match=sentence):
        ranks.main(parsed(*typed))
