"""A record is on the disk after every row; what was stopped goes on, what is of other circumstances begins again."""
import json

from bench.record import Record


def rows(path):
    return json.loads(path.read_text())["cases"]


def test_a_row_is_on_the_disk_at_once_and_what_was_stopped_goes_on(tmp_path):
    path = tmp_path/"new"/"r.json"
    record = Record(path, {"rounds": 3})
    record.add("cases", {"name": "a", "N": 1})
    assert rows(path) == [{"name": "a", "N": 1}]
    again = Record(path, {"rounds": 3})
    assert again.has("cases", name="a", N=1) and not again.has("cases", name="a", N=2)
    again.add("cases", {"name": "b", "N": 1})
    assert [row["name"] for row in rows(path)] == ["a", "b"]


def test_other_circumstances_and_a_finished_record_begin_again(tmp_path):
    path = tmp_path/"r.json"
    record = Record(path, {"rounds": 3})
    record.add("cases", {"name": "a"})
    assert not Record(path, {"rounds": 4}).has("cases", name="a")
    record.finish()
    assert Record(path, {"rounds": 3}, asked=["else"]).has("cases", name="a")
    path.write_text("no JSON")
    assert not Record(path, {"rounds": 3}).has("cases", name="a")


def test_parts_that_nobody_asked_for_stay(tmp_path):
    path = tmp_path/"r.json"
    record = Record(path, {})
    for part in ("network", "layers"):
        record.add("cases", {"part": part})
    record.finish()
    again = Record(path, {}, asked=["network"])
    assert again.has("cases", part="layers") and not again.has("cases", part="network")
