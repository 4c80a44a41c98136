"""The report: numbers and tables as Markdown says them, three files each whole or not at all."""
import csv
import re

import numpy as np
import pytest

from train import report
from train.claims import Claim, Judgement, judged
from zfcore import checkpoint, plots
from zfcore.checkpoint import Unwritable


def test_numbers_have_one_decimal_and_say_only_what_is_known():
    assert [report.mean_spread(pair) for pair in ((12.34, 0.46), (12.34, None), None)] == ["12.3 ± 0.5", "12.3", ""]
    assert report.interval(1.2, 0.9) == "+1.2 (+0.3 to +2.1)" and report.interval(-1.0, None) == "-1.0"
    assert report.csv_of((1/3, None)) == ("0.333333", "") and report.csv_of((100, 0.123456)) == ("100", "0.1235")


def test_a_table_is_markdown_whose_cells_break_no_row():
    assert report.table(["a|b", "n"], [["x", 1], ["y|z", ""]]) == "| a/b | n |\n| --- | --: |\n| x | 1 |\n| y/z |  |"
    assert report.table(["", "", ""], [], text=(0, 2)).endswith("| --- | --: | --- |")


def judgement(word, little=False, needed=None):
    return Judgement(Claim("3 x", "a", "b", little=little), 1.25, -3.5, 3.4, word, 10, needed)


def test_claims_are_a_table_with_what_would_decide_them():
    first, _, *rows = report.claims_table([judgement("undecided", needed=36), judgement("undecided"), judgement("agrees")],
                                          {"top1": "top-1 error"}, [5]).split("\n")
    assert first == "| claim of the paper | difference of | paper | here (95 %) |  |"
    assert rows[0] == "| 3 x | top-1 error | +1.2 | -3.5 (-6.9 to -0.1), 10 pairs | undecided; about 36 pairs |"
    assert rows[1].endswith("| undecided; more than 1000 pairs |") and rows[2].endswith("| agrees |")
    single = Judgement(Claim("1 y", "a", "b"), None, 1.7, None, "undecided: one pair", 1)
    assert report.claims_table([single], {"top1": "top-1 error"}, [5]).endswith("| 1 y | top-1 error |  | +1.7 | undecided: one "
                                                                                "pair |")


@pytest.mark.parametrize("looks", [[5], [5, 10], [5, 10, 15]])
def test_the_head_of_the_claims_says_of_how_many_per_cent_their_intervals_are(looks):
    drawn = np.random.default_rng(0).normal(1, 2, 5)
    ours = {("a", "top1"): dict(enumerate(drawn)), ("b", "top1"): dict.fromkeys(range(5), 0.0)}
    (one,) = judged([Claim("1 x", "a", "b")], ours, {}, looks)
    said = report.claims_table([one], {"top1": "top-1 error"}, looks).split("\n")[0]
    percent = float(re.search(r"here \((.*) %\)", said)[1])
    studies = np.random.default_rng(1).normal(0, 1, (5, 400_000))              # in how many such an interval holds the truth
    halves = one.half/np.std(drawn, ddof=1)*np.std(studies, axis=0, ddof=1)
    assert 100*np.mean(np.abs(studies.mean(axis=0)) < halves) == pytest.approx(percent, abs=0.1)


def test_that_an_interval_on_one_side_of_0_may_be_undecided_is_said_where_a_claim_is_of_little_matter():
    said = report.verdicts([judgement("undecided", little=True), judgement("agrees")], [5])
    assert "1 of 2 claims are decided" in said and "the whole 95 % interval" in said and "looks" not in said
    assert "undecided where the interval holds +2 or -2, though all of it may lie on one side of 0" in said
    said = report.verdicts([judgement("agrees")], [5, 10])
    assert "one side of 0" not in said and "the whole 97.5 % interval" in said and "2 looks at a claim, after 5, 10 seeds" in said


def test_text_rows_and_figure_are_written_and_empty_paragraphs_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda figure, path: path.write_text(figure))
    text = report.write(tmp_path, "t", ["first", "", "± second"], ("a", "b"), [[1, "x,y"]], lambda: "drawn")
    assert text == "first\n\n± second\n" == (tmp_path/"t.md").read_text(encoding="utf-8")
    with open(tmp_path/"t.csv", newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", "x,y"]]
    assert (tmp_path/"t.png").read_text() == "drawn"
    report.write(tmp_path, "u", [], ("a",), [], lambda: None)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["t.csv", "t.md", "t.png", "u.csv", "u.md"]


def test_a_figure_that_cannot_be_drawn_costs_no_number_and_a_full_disk_no_earlier_table(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        report.write(tmp_path, "t", ["one"], ("a",), [[1]], lambda: 1/0)
    assert (tmp_path/"t.md").read_text() == "one\n" and (tmp_path/"t.csv").is_file()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "flush", full)
    with pytest.raises(Unwritable, match="make room"):
        report.write(tmp_path, "t", ["two"], ("a",), [[2]], lambda: None)
    assert (tmp_path/"t.md").read_text() == "one\n"
