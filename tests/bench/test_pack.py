"""What packing and reading cost is measured on packed files that are right, and told beside decoding alone."""
import argparse
import json
import os

import pytest

from bench import pack, tables
from bench.pack import case, contestants, main
from tests.train.conftest import write_set
from train.pack import Packing
from zfcore.check import Expected
from zfcore.data import open_data


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(pack, "PICTURES", 16)
    monkeypatch.setattr(pack, "PACKINGS", 2)


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path/"some set")


def parsed(*typed):
    parser = argparse.ArgumentParser()
    pack.add_arguments(parser)
    return parser.parse_args([*typed, "--size", "32", "--workers", "1", "2"])


def test_the_report_has_packing_resuming_and_reading_and_makes_the_table(root, tmp_path, capsys):
    (tmp_path/"room").mkdir()
    main(parsed("--data", str(root), "--rounds", "3", "--folder", str(tmp_path/"room"), "--output",
                str(tmp_path/"new"/"pack.json")))
    report, said = json.loads((tmp_path/"new"/"pack.json").read_text()), capsys.readouterr().out
    jpeg, raw = report["packing"]
    assert [(row["encoding"], row["pictures"], row["workers"]) for row in (jpeg, raw)] == [("jpeg", 42, 2), ("raw", 42, 2)]
    assert 32*32*3 < raw["bytes_per_picture"] < 32*32*3 + 1000 and jpeg["bytes_per_picture"] < raw["bytes_per_picture"]
    assert all(0 < row["spread"][0] <= row["pictures_per_second"] <= row["spread"][1] for row in (jpeg, raw, *report["cases"]))
    assert report["resumed"]["same_bytes"] is True and report["resumed"]["pictures"] == 30 and 0 < report["resumed"]["seconds"] < 10
    assert [(row["name"], row["workers"]) for row in report["cases"]] == [
        (name, workers) for workers in (1, 2) for name in ("decoding", "reading", "pixels", "source")]
    assert not list((tmp_path/"room").iterdir()) and "the file is the same" in said
    table = tables.renewed("<!-- pack:begin -->\n<!-- pack:end -->", tmp_path/"new")
    assert ", 3 rounds of reading, 2 of packing.\n" in table
    assert table.count("| reading |") == 2 and "**some set** at 32 pixels" in table and "the same in every byte" in table
    assert f"| packing 42 as raw, {raw['bytes_per_picture']/1000:.1f} kB each | 2 |" in table
    assert {row.count("|") for row in table.splitlines() if row.startswith("|")} == {6}


def test_a_file_that_differs_from_the_uninterrupted_one_is_not_hidden(root, tmp_path):
    (tmp_path/"whole.h5").write_bytes(b"another")
    found = pack.resumed(parsed("--data", str(root)), tmp_path/"again.h5", tmp_path/"whole.h5")
    assert not found["same_bytes"] and found["pictures"] == 30                   # the training pictures are one shard


def test_what_is_timed_of_decoding_asks_no_file_and_of_the_others_does(root, tmp_path, monkeypatch):
    args, files = parsed("--data", str(root)), {encoding: tmp_path/f"{encoding}.h5" for encoding in ("jpeg", "raw")}
    for encoding, path in files.items():
        Packing(str(root), path, 32, encoding == "raw").run()
    runs = contestants(args, open_data(str(root), 32)[0], files)

    def from_here_on(*how, real=pack.Pictures, **more):
        for path in files.values():
            os.truncate(path, 0)
        return real(*how, **more)
    monkeypatch.setattr(pack, "Pictures", from_here_on)
    assert all(seconds > 0 for seconds in runs["decoding", 1]())
    for name in ("reading", "pixels"):
        with pytest.raises(Expected, match="damaged picture"):
            runs[name, 2]()


def test_shares_of_decoding_are_taken_within_a_round_and_among_as_many_threads():
    seconds = {("decoding", 1): [(2, 3), (4, 1), (4, 1)], ("decoding", 2): [(100, 100)]*3,
               ("reading", 1): [(4, 4), (4, 1), (5, 4)]}
    assert case(("reading", 1), seconds) == {
        "name": "reading", "workers": 1, "pictures_per_second": 0.25, "spread": [0.2, 0.25], "cpu_ms": 4000.0,
        "of_decoding": [0.8, 0.5, 1.0], "cpu_of_decoding": [0.75, 0.25, 1.0]}


@pytest.mark.parametrize("typed", [("--data", "nowhere")])
def test_bad_options_are_one_sentence(typed):
    with pytest.raises(Expected, match="data: expected"):
        main(parsed(*typed))
