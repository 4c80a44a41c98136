"""Predicted times of a step: against what is computed by hand, at the ends where one of two times hides the other, and what
--dry-run says."""
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from train import step_time
from train.__main__ import main
from train.step_time import (Bucket, Link, Measured, by_factors_seconds, by_node_seconds, clock, end_of_exchange, estimate,
                             exchange_seconds, kept, place_of, traffic)
from zfcore.check import Expected
from zfcore.device import select
from zfcore.layers import Conv, Flatten, Linear
from zfcore.network import Network
from zfcore.training import resolve

LINK = Link(0.5, 100.0)           # half a second a message, 100 bytes a second
OF = Measured(0.25, 0.125, 2.0, (Bucket(300, 0.5), Bucket(100, 1.0)), LINK, 16, {1: 4.25, 2: 9.0}, "2026-11-29T12:00:00+00:00")


def test_an_exchange_moves_what_a_ring_moves_and_waits_for_a_message_of_each_other_rank_twice():
    assert exchange_seconds(300, 1, LINK) == 0
    assert exchange_seconds(300, 2, LINK) == 2*0.5 + 300/100
    assert exchange_seconds(300, 3, LINK) == pytest.approx(2*2*0.5 + 2*2/3*300/100)
    assert exchange_seconds(300, 5, Link(0, 100)) == pytest.approx(2*4/5*3) and exchange_seconds(0, 5, LINK) == 2*4*0.5


def test_a_rank_sends_its_slice_to_those_of_its_node_by_one_link_and_to_all_others_by_the_other():
    fast = Link(0.0, 1000.0)
    assert by_node_seconds(300, 1, 4, LINK, fast) == exchange_seconds(300, 4, LINK)
    assert by_node_seconds(300, 4, 1, fast, LINK) == exchange_seconds(300, 4, LINK)
    inside, between = 2*2*20/1000, 2*12*(0.5 + 20/100)                              # 5 nodes of 3: slices of 20 bytes
    assert by_node_seconds(300, 5, 3, fast, LINK) == pytest.approx(inside + between)


def test_factors_travel_once_and_are_as_long_as_what_goes_into_a_layer_and_comes_back_to_its_output():
    network = Network("one", (2, 8, 8), [Conv("conv1", 3, K=3, P=1), Flatten("flatten"), Linear("fc", 5)])
    of = traffic(network, 7)
    assert of == (4*(2*9*3 + 3) + 4*(192*5 + 5), 4*(192*5 + 5), 4*7*(192 + 5))
    assert by_factors_seconds(of, 3, Link(0, 100)) == pytest.approx(2*2/3*4*57/100 + 2/3*4*7*197/100)


def test_what_is_ready_early_travels_behind_the_arithmetic_one_after_the_other():
    buckets, seconds = [Bucket(30, 0.5), Bucket(20, 0.75), Bucket(10, 1.0)], {30: 3.0, 20: 2.0, 10: 1.0}.get
    assert end_of_exchange(8.0, 4.0, buckets, seconds) == 12.0             # ready at 6, 7, 8; end at 9, 11, 12
    assert end_of_exchange(8.0, 4.0, buckets, seconds, overlap=False) == 8.0 + 6.0
    assert end_of_exchange(8.0, 8.0, [Bucket(30, 0.0), Bucket(20, 0.0)], seconds) == 5.0
    # the second waits for the arithmetic
    assert end_of_exchange(8.0, 4.0, [Bucket(10, 0.5), Bucket(10, 1.0)], seconds) == 9.0


def test_a_step_is_the_sum_without_overlap_and_the_longer_of_both_where_all_is_hidden():
    one = estimate(OF, 16, 1, lambda size: 99.0)
    assert one == (0.25 + 16*0.125 + 2, 2.25, 0)
    compute = 4*(0.25 + 2*0.125)                                          # 8 leaves of 2 pictures on two ranks
    assert estimate(OF, 16, 2, lambda size: size/100, overlap=False) == (compute + 4 + 2, compute, 4)
    early = Measured(**{**vars(OF), "buckets": (Bucket(300, 0.0),)})
    begins = compute - 0.5                                                # with the last leaf
    assert estimate(early, 16, 2, lambda size: 5.0) == (begins + 5 + 2, compute, begins + 5 - compute)
    assert estimate(early, 16, 2, lambda size: 0.25) == (compute + 2, compute, 0)


def test_the_rank_with_the_most_leaves_counts_and_ranks_that_share_a_device_are_slower():
    assert estimate(OF, 16, 3, lambda size: 0.0).compute == 3*0.5         # of 8 leaves 2, 3 and 3
    assert estimate(OF, 16, 2, lambda size: 0.0, micro=5).compute == 2*(0.25 + 5*0.125)
    shared = estimate(OF, 16, 2, lambda size: 0.0, own=False)
    assert shared.compute == 4*(0.25 + 2*2*0.125) and shared.step == shared.compute + 2*OF.update
    with pytest.raises(Expected, match="ranks: expected at most 16"):
        estimate(OF, 16, 17, lambda size: 0.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    return tmp_path/"cache"


def test_what_is_kept_comes_back_whole_beside_what_was_there(cache):
    assert kept() == {}
    step_time.keep("here", OF)
    step_time.keep("there", Measured(**{**vars(OF), "update": 3.0}))
    assert kept() == {"here": OF, "there": Measured(**{**vars(OF), "update": 3.0})}


def test_what_several_keep_at_once_is_all_there(cache, monkeypatch):
    monkeypatch.setattr(step_time, "kept", lambda kept=kept: (kept(), time.sleep(0.02))[0])
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda k: step_time.keep(f"place {k}", OF), range(6))]
    assert kept() == {f"place {k}": OF for k in range(6)}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"fixed": -1}}', "steps"])
def test_a_spoilt_cache_is_one_sentence(cache, content):
    step_time.keep("a", OF)
    if content == "steps":
        content = json.dumps({"a": {**json.loads((cache/"ranks.json").read_text())["a"], "steps": {"two": 1.0}}})
    (cache/"ranks.json").write_text(content)
    with pytest.raises(Expected,
                       match="ranks.json: expected what python -m bench ranks writes, got .*; remove it and measure again"):
        kept()


def test_dry_run_tells_of_devices_what_was_measured_and_when_one_is_faster(cache, capsys):
    words = ["--dry-run", "--device", "cpu", "--image-size", "32", "--batch-size", "16"]

    def said(*more):
        main([*words, *more])
        return " ".join(capsys.readouterr().out.split())

    assert "ranks:" not in said() and "ranks:" not in said("--devices", "1")
    assert "on 2 devices was not measured here (tiny, 32 pixels, " in (told := said("--devices", "2"))
    assert "`python -m bench ranks --model tiny --image-size 32 --devices 2` measures it" in told
    place = place_of("tiny", 32, select("cpu").description)
    step_time.keep(place, OF)
    several = estimate(OF, 16, 2, lambda size: exchange_seconds(size, 2, LINK), own=False)
    told = said("--devices", "2")
    assert f"a step of 16 pictures takes 4.25 s on one device, {clock(several.step)} on 2, {clock(several.exposed)} of them waiting" in told
    assert "measured on 2: 9 s" in told and "2 devices are slower than one with batches of 16 over this network: train on one" in told
    step_time.keep(place,
                   Measured(**{**vars(OF), "each": 4.0, "fixed": 0.0, "link": Link(1e-9, 1e12), "update": 0.0,
                               "batch_size": 99}))
    told = step_time.in_words(resolve({"image_size": 32, "batch_size": 16}), select("cpu").description, 2, own=True)
    assert "2.00 times as fast" in told and "measured on 2" not in told and "slower" not in told


def test_more_devices_than_leaves_are_refused_where_nothing_was_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path))
    with pytest.raises(Expected, match="expected at most 16, of which each has a piece"):
        step_time.in_words(resolve({"batch_size": 16}), "a device", 17, own=True)


def test_times_have_units():
    assert [clock(s) for s in (90, 1.234, 0.0345, 5e-6)] == ["90 s", "1.23 s", "34.5 ms", "5 us"]
