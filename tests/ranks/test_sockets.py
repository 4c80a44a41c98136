"""Ranks joined by TCP: what is sent arrives; who is not one of them stays outside; and one that is lost, stalls or fails ends
all, in time and with one sentence that names it."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from tests.ranks import forked
from train.launch import free_port
from zfcore.check import Expected
from zfcore.ranks import LOST, meeting
from zfcore.ranks.environment import FOUR
from zfcore.ranks.meeting import Place, listen, meet
from zfcore.ranks.sockets import Sockets


MOVES = {"2": [3_276_803, 1, 0], "3": [0, 1, 131_071, 5], "5": [7, 20_011]}
FAILS = "expected", "refuses", "memory", "interrupted", "raises", "exits", "killed", "leaves", "sleeps", "stopped"


@pytest.fixture(scope="module")
def ended():
    """What came of all jobs that these tests are about, which are at work at once."""
    in_order = {"GRACE": "60"}                             # before that is over
    patience = {"sleeps": {"STALLED": "2", "GRACE": "1"}, "stopped": {"SILENT": "2", **in_order}}
    return forked.run({**{size: [["moves", *map(str, most)], int(size), {}] for size, most in MOVES.items()},
                       **{how: [[how], 3, patience.get(how, in_order)] for how in FAILS},
                       "first": [["killed"], 3, {"WHO": "0", **in_order}], "computes": [["computes"], 2, {"STALLED": "2"}]})


@pytest.mark.parametrize("size", MOVES)
def test_what_is_sent_arrives(size, ended):
    assert [(status, err) for status, _, err, _ in ended[size]] == [(0, "")]*int(size)
    told = {out for _, out, _, _ in ended[size]}
    assert len(told) == 1 and len(*told) == 8*int(size) + 1


def test_interpreters_that_a_hand_has_started_are_ranks_who_say_who_speaks_and_end_where_one_fails():
    command, port = [sys.executable, "-m", "tests.ranks.program", "raises"], str(free_port())
    places = [dict(zip(FOUR, (str(rank), "2", "127.0.0.1", port))) for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, **place}) for place in places]
    try:
        (out, said), (its_out, its) = (process.communicate(timeout=30) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 1]
    assert said.count("error: rank 1 (") == 1 and its.count("KeyError: 'nothing'") == 1
    speaks = r"rank 1 \(.+, CPU\): at work with rank 0 \(.+, CPU\), which speaks for all 2"
    assert out == "" and re.fullmatch(speaks, " ".join(its_out.split()))


def in_threads(size, work):
    """[work(rank)] of so many threads; Expected is what it returns of one that raised it."""
    found = [None]*size

    def run(rank):
        try:
            found[rank] = work(rank)
        except Expected as refused:
            found[rank] = refused
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def join(rank, size, port, token=b"secret", kind="CPU"):
    return meet(Place(rank, size, rank, "127.0.0.1", port, token), f"rank {rank}", "here", kind)


def test_a_stranger_and_one_with_another_token_stay_outside(monkeypatch):
    monkeypatch.setattr(meeting, "ANSWER", 1)
    listener, received = listen("127.0.0.1"), []
    port = listener.getsockname()[1]

    def strange():
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
            received.append(link.recv(1000))
            link.settimeout(5)
            with suppress(ConnectionResetError):
                received.append(link.recv(1000))
    other = threading.Thread(target=strange)
    other.start()
    time.sleep(0.1)
    monkeypatch.setattr(meeting, "JOIN", 1)

    def work(rank):
        if rank == 0:
            return meet(Place(0, 2, 0, "127.0.0.1", port, b"secret"), "rank 0", "here", "CPU", listener)
        if rank == 2:
            return join(1, 2, port, b"other")
        time.sleep(0.2)
        return join(1, 2, port)
    links = in_threads(3, work)
    other.join()
    assert links[0].names == links[1].names == ["rank 0", "rank 1"] and set(links[0].data) == {1}
    assert len(received[0]) == 32 and not any(received[1:])          # random bytes, and then nothing
    assert isinstance(links[2], Expected) and "rank 0" in str(links[2]) and "ZFCORE_TOKEN is the same for all" in str(links[2])


def test_where_all_have_another_token_rank_0_says_so_too(monkeypatch):
    monkeypatch.setattr(meeting, "JOIN", 1)
    port = free_port()
    found = in_threads(2, lambda rank: join(rank, 2, port, b"one" if rank else b"other"))
    assert "got no rank 1; one that called had another token; give all one ZFCORE_TOKEN" in str(found[0])
    assert "ZFCORE_TOKEN is the same for all" in str(found[1])


def test_rows_pass_between_threads_in_any_order_of_arrival():
    port = free_port()

    def work(rank):
        ranks = Sockets(join(rank, 4, port))
        rows = []
        for k in range(20):
            time.sleep(0.003*((rank + k) % 4))
            rows.append(ranks.gather(bytes([k, rank])))
        ranks.leave()
        return rows
    assert in_threads(4, work) == [[[bytes([k, rank]) for rank in range(4)] for k in range(20)]]*4


@pytest.mark.parametrize("others, sentence", [
    ([(1, 3)], "expected all 3 within 1 s, got no rank 2"),
    ([(1, 3), (1, 3)], "rank 1: expected one process, got two, on here and here"),
    ([(1, 2), (2, 2)], "start all with the same WORLD_SIZE")])
def test_ranks_that_do_not_come_or_come_twice_are_named_to_all(others, sentence, monkeypatch):
    monkeypatch.setattr(meeting, "JOIN", 1)
    monkeypatch.setattr(meeting, "ANSWER", 1)
    port = free_port()
    first, *found = in_threads(1 + len(others), lambda k: join(*([(0, 3)] + others)[k], port))
    assert sentence in str(first)
    assert any(sentence in str(one) for one in found) and all(isinstance(one, Expected) for one in found)


def test_a_port_in_use_is_one_sentence():
    with listen("127.0.0.1") as listener, pytest.raises(Expected,
                                                        match="in use; end what an earlier job has left there, see that one "
                                                              "process alone has RANK 0, or choose"):
        listen("127.0.0.1", listener.getsockname()[1])


def test_an_array_in_pieces_is_refused():
    ranks = Sockets(meeting.Links(0, ["rank 0", "rank 1"], ["here"]*2, {}, {}))
    with pytest.raises(ValueError, match="contiguous"):
        ranks.exchange([np.zeros(2), np.zeros((4, 4))[:, 1]], [np.zeros(2), np.zeros(4)])


NAMES = r"rank 2 \(.+, CPU\): "
GONE = NAMES + "expected at work until all are done, got a connection that closed; it was killed, had no memory, or its machine is gone"


@pytest.mark.parametrize("how, status, sentence, its", [
    ("expected", 2, NAMES + "--data: expected a folder, got 'none'", 2), ("refuses", 2, NAMES + "no more", 2),
    ("memory", 2, NAMES + "memory: expected enough", 2), ("interrupted", 130, NAMES + "stopped", 130),
    ("raises", 2, NAMES + "KeyError: 'nothing'", 1), ("exits", LOST, GONE, 0), ("killed", LOST, GONE, -9),
    ("leaves", LOST, NAMES + ".*got one that left while others waited for it", 0),
    ("sleeps", LOST, NAMES + ".*standstill.*neither computed nor waited", LOST),
    ("stopped", LOST, NAMES + ".*no sign of life", -signal.SIGKILL)])
def test_one_that_fails_ends_all_with_one_sentence_that_names_it(how, status, sentence, its, ended):
    *others, (its_status, _, its_errors, _) = ended[how]
    assert [of[0] for of in others] == [status]*2 and its_status == its
    said = " ".join(" ".join(err.split()) for _, _, err, _ in others)
    assert len(re.findall("error: ", said)) == 1 and re.search("error: " + sentence, said) and "Traceback" not in said
    assert ("Traceback" in its_errors) == (its == 1)       # a mistake in zfcore, which only its own rank shows
    assert all(seconds < 15 for *_, seconds in others)


def test_where_the_first_rank_is_killed_the_next_one_says_so(ended):
    (its, *_), *others = ended["first"]
    assert its == -signal.SIGKILL and [of[0] for of in others] == [LOST]*2
    said = " ".join(" ".join(err.split()) for _, _, err, _ in others)
    assert said.count("error: ") == 1 and re.search("error: " + GONE.replace("rank 2", "rank 0"), said)


def test_what_is_computed_for_long_is_no_standstill(ended):
    assert [of[0] for of in ended["computes"]] == [0, 0]
