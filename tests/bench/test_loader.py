"""The report measures what decodes, is not fooled by what is kept, and its last sentence names the side that limits."""
import argparse
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench import loader, tables
from bench.loader import Sample, case, contestants, line, main, rate, training_step, verdict
from tests.train.conftest import write_set
from zfcore import backend
from zfcore.check import Expected
from zfcore.data import open_data
from zfcore.data.loader import Pictures


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(loader, "SECONDS", 0.01)


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path/"some set")


def parsed(*typed):
    parser = argparse.ArgumentParser()
    loader.add_arguments(parser)
    return parser.parse_args([*typed, "--device", "cpu", "--image-size", "32", "--batch-size", "8", "--workers", "2", "1"])


def test_the_report_has_a_row_for_each_contestant_and_ends_with_the_verdict(root, tmp_path, capsys):
    main(parsed("--data", str(root), "--rounds", "2", "--output", str(tmp_path/"new"/"loader.json")))
    report, said = json.loads((tmp_path/"new"/"loader.json").read_text()), capsys.readouterr().out
    assert [(row["name"], row["workers"]) for row in report["cases"]] == [
        ("decoding", 1), ("decoding", 2), ("loader", 1), ("loader", 2), ("kept", 2), ("device", None), ("together", 1),
        ("together", 2)]
    assert all(0 < row["spread"][0] <= row["pictures_per_second"] <= row["spread"][1] for row in report["cases"])
    assert (report["data"], report["kind"], report["pictures"], report["picture_size"]) == ("some set", "files", 30, 37)
    assert all(line(row) in said for row in report["cases"])
    assert said.index(verdict(report)) > said.index(line(report["cases"][-1]))


def test_nothing_is_written_unless_asked_and_the_synthetic_set_will_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loader, "SAMPLE", 16)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    main(parsed("--rounds", "1"))
    said = capsys.readouterr().out
    assert "synthetic: 4000 pictures (drawn)" in said and "written" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", [("--data", "nowhere")])
def test_bad_options_are_one_sentence(typed):
    with pytest.raises(Expected, match="data: expected"):
        main(parsed(*typed))


# ---------------------------------------------------------------------------------------------- what is measured
def counted(root, monkeypatch):
    """(data set, {picture: how often it was decoded}, [files read])."""
    dataset, _ = open_data(str(root), 37)
    decoded, read = dict.fromkeys(range(len(dataset)), 0), []
    kind = type(dataset)
    picture, of_disk = kind.picture, kind.read

    def counting(self, i):
        decoded[i] += 1
        return picture(self, i)

    monkeypatch.setattr(kind, "picture", counting)
    monkeypatch.setattr(kind, "read", lambda self, i: read.append(i) or of_disk(self, i))
    return dataset, decoded, read


@pytest.mark.parametrize("key, decodes, reads", [(("decoding", 1), True, False), (("loader", 2), True, True),
                                                 (("kept", 2), False, False),
                                                 (("device", None), False, False), (("together", 1), True, True)],
                         ids=lambda value: str(value[0]) if isinstance(value, tuple) else "")
def test_each_contestant_reads_and_decodes_what_it_says_it_does(root, monkeypatch, key, decodes, reads):
    dataset, decoded, read = counted(root, monkeypatch)
    run = contestants(parsed(), backend.CPU, dataset, 32, (37, 32, False))[key]
    before, read[:] = sum(decoded.values()), []
    for _ in range(5):                                              # two batches or more each, on however busy a machine
        run()
    assert (sum(decoded.values()) - before > len(decoded)) == decodes             # the second epoch of whatever might be kept
    assert bool(read) == reads


def test_a_set_too_large_to_be_kept_has_no_such_row(root, monkeypatch):
    monkeypatch.setattr(loader, "MEMORY", 30*37*37*3 - 1)
    dataset, _ = open_data(str(root), 37)
    assert "kept" not in {name for name, _ in contestants(parsed(), backend.CPU, dataset, 32, (37, 32, False))}


def test_a_sample_in_memory_gives_the_same_pictures_and_leaves_the_set_alone(root):
    dataset, _ = open_data(str(root), 37)
    (root/"train/jade/03.png").unlink()                             # number 13
    sample = Sample(dataset, np.array([21, 13, 4]), in_memory=True)
    how = dict(size=37, crop=32, workers=0, memory=0)
    for path in sorted((root/"train/plum").iterdir()):
        path.unlink()
    assert len(sample) == 3 and sample.labels.tolist() == [2, 1, 0] and sample.names[2] == dataset.names[4]
    assert np.array_equal(Pictures(sample, **how).picture(2), Pictures(dataset, **how).picture(4))
    assert Pictures(sample, **how).picture(0).shape == (37, 37, 3)
    with pytest.raises(OSError, match="cannot find|No such file"):
        Image.open(root/"train/plum/01.png")
    with pytest.raises(loader.CorruptImage, match="empty"):
        sample.picture(1)
    with pytest.raises(loader.CorruptImage, match="No such file"):
        dataset.picture(21)


def test_rate_counts_from_the_first_batch_on_and_closes_what_it_was_given(monkeypatch):
    closed, sizes, now = [], [], [0.0]
    monkeypatch.setattr(loader, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def batches():
        try:
            now[0] += 50                                            # threads start, kernels load
            for n in itertools.chain([100], itertools.repeat(3)):
                yield None, np.zeros(n), None
        finally:
            closed.append(True)

    def work(pictures, labels, indices):
        now[0] += 0.004
        sizes.append(len(labels))

    held = batches()                                                # or dropping it would close it
    assert rate(held, work) == pytest.approx(3/0.004)
    assert closed == [True] and sizes == [100, 3, 3, 3]             # until a hundredth of a second is over


def test_shares_of_the_device_are_taken_within_a_round():
    rates = {("device", None): [2, 4, 4], ("together", 1): [1, 4, 3]}
    assert case(("together", 1), rates) == {"name": "together", "workers": 1, "pictures_per_second": 3, "spread": [1, 4],
                                            "of_device": 0.75, "of_device_spread": [0.5, 1.0]}
    assert "of_device" not in case(("device", None), rates)


def test_a_step_trains(root):
    step = training_step("tiny", backend.CPU, 3, 32, 37)
    network = step.__closure__[step.__code__.co_freevars.index("network")].cell_contents
    before = network["conv1"].parameters["w"].copy()
    step(np.zeros((4, 37, 37, 3), np.uint8), np.array([0, 1, 2, 0]), np.arange(4))
    assert (network["conv1"].parameters["w"] != before).any()


# -------------------------------------------------------------------------------------------------- what is said
def report(decoding, loaders, device, together, kept=None, kind="files", on_cpu=False, cores=16):
    def row(name, workers, rate, **more):
        return {"name": name, "workers": workers, "pictures_per_second": rate, "spread": [rate, rate], **more}

    cases = [row("decoding", 1, decoding/max(loaders)), row("decoding", max(loaders), decoding),
             *(row("loader", n, rate) for n, rate in loaders.items()),
             *([row("kept", max(loaders), kept)] if kept else []), row("device", None, device),
             *(row("together", n, rate, of_device=rate/device, of_device_spread=[rate/device]*2)
               for n, rate in together.items())]
    return {"cases": cases, "kind": kind, "on_cpu": on_cpu, "cores": cores}


@pytest.mark.parametrize("facts, begins, contains", [
    (dict(decoding=2400, loaders={4: 1200, 8: 2400}, device=1000, together={4: 950, 8: 990}),
     "The device limits: training gets 99 % (99 to 99) of what the device does alone, so", "--workers 4 is enough."),
    (dict(decoding=2500, loaders={4: 1200, 8: 2400}, device=9000, together={4: 1200, 8: 2390}),
     "The loader limits: training gets 27 % (27 to 27)", "for it brings 2400 pictures/s, the device alone does 9000; to change "
                                                         "that, use more threads (--workers 16)."),
    (dict(decoding=4700, loaders={8: 2300, 16: 4600}, device=9000, together={8: 2300, 16: 4500}),
     "The loader limits", "decode less: pack the set at the size that is needed (python -m train.pack)."),
    (dict(decoding=4800, loaders={8: 2300, 16: 2400}, device=9000, together={16: 2400}, kind="jpeg", cores=32),
     "The loader limits", "read faster, for the threads wait for the disk: more of them at once (--workers 32), or the set on "
                          "a local one."),
    (dict(decoding=4800, loaders={8: 500, 16: 1000}, device=9000, together={16: 1000}, cores=32),
     "The loader limits", "or the set on a local one, in one file (python -m train.pack)."),
    (dict(decoding=4700, loaders={8: 4500, 16: 4600}, device=9000, together={16: 4500}, kind="jpeg", cores=32),
     "The loader limits", "pack the set as pixels (python -m train.pack --raw)."),
    (dict(decoding=91000, loaders={16: 90000}, device=99000, together={16: 50000}, kind="raw"),
     "The loader limits", "nothing is decoded any more."),
    (dict(decoding=5000, loaders={8: 5000}, device=4000, together={8: 2000}),
     "The thread that feeds the device limits: training gets 50 %", "though the loader brings 5000 pictures/s, the device alone "
                                                                    "does 4000; try fewer --workers."),
    (dict(decoding=560, loaders={1: 300, 2: 550}, device=300, together={1: 150, 2: 160}, on_cpu=True, cores=2),
     "The cores are shared: training gets 53 %", "to change that, decode less: pack"),
    (dict(decoding=4700, loaders={8: 2300, 16: 4600}, device=9000, together={16: 4500}, kept=80000),
     "The loader limits", "This is of the first epoch alone: the set fits into memory, and from the second epoch on the loader brings "
                          "80000."),
    (dict(decoding=90, loaders={2: 90}, device=300, together={2: 80}, kind="drawn", on_cpu=True, cores=2),
     "The cores are shared", "train on pictures instead of drawings"),
], ids=["device", "more threads", "pack", "disk of a packed set", "disk of files", "raw", "raw already", "feeding", "cpu",
        "kept", "drawn"])
def test_the_verdict_names_what_limits_and_what_to_change(facts, begins, contains):
    said = verdict(report(**facts))
    assert said.startswith(begins) and contains in said and said.endswith(".")


def test_a_verdict_says_a_share_that_rounds_had_and_no_quotient_of_two_medians():
    rates = {("device", None): [2, 4, 400], ("together", 1): [1, 400, 80], ("loader", 1): [9, 9, 9]}
    said = verdict({"cases": [case(key, rates) for key in rates], "kind": "files", "on_cpu": False, "cores": 2})
    assert "training gets 50 % (20 to 10000) of what the device does alone" in said and "of the 4" not in said


@pytest.mark.parametrize("spread, begins", [((0.5, 0.899), "The cores are shared: "), ((0.5, 0.9), "Undecided: "),
                                            ((0.899, 0.97), "Undecided: "), ((0.9, 1.2), "The device limits: ")])
@pytest.mark.parametrize("of_device", [0.85, 0.95])
def test_what_limits_is_undecided_where_rounds_lie_on_both_sides_of_what_is_enough(spread, begins, of_device):
    facts = report(560, {1: 300, 2: 550}, 300, {1: 150, 2: 160}, kept=900, on_cpu=True, cores=2)
    facts["cases"][-1] |= {"of_device": of_device, "of_device_spread": list(spread)}
    said = verdict(facts)
    assert said.startswith(begins) and "{:.0f} % ({:.0f} to {:.0f})".format(100*of_device, *(100*share for share in spread)) in said
    assert ("measure again" in said) == begins.startswith("Und") and "pack" not in said.split("shared")[0]
    assert "--workers 2 is enough" in said or not begins.startswith("The device")


def test_the_table_is_made_of_the_file(tmp_path):
    facts = {**report(300, {8: 2300}, 9000, {8: 2000}), "cpu": "Test CPU", "load": 0.25, "device": "CuPy on Test",
             "data": "folk", "pictures": 77,
             "picture_size": 256, "model": "zfnet", "image_size": 224, "batch_size": 128, "date": "2026-01-02T03:04:05+00:00",
             "rounds": 15}
    (tmp_path/"loader.json").write_text(json.dumps(facts))
    text = tables.renewed("<!-- loader:begin -->\nstale\n<!-- loader:end -->", tmp_path)
    assert ("**folk** (files): 77 pictures brought to 256 pixels; zfnet at 224, batch 128, on CuPy on Test. "
            "Test CPU, 16 cores, load 0.2 when it began; 2026-01-02, 15 rounds.") in text
    assert "| loader | 8 | 2300 (2300 to 2300) | |" in text and "| device |  | 9000 (9000 to 9000) | |" in text
    assert "| together | 8 | 2000 (2000 to 2000) | 0.22 (0.22 to 0.22) |" in text
    assert text.rstrip().endswith(f"{verdict(facts)}\n<!-- loader:end -->") and "stale" not in text
    (tmp_path/"loader-packed.json").write_text(json.dumps({**facts, "data": "folk.h5"}))
    text = tables.renewed(text, tmp_path)
    assert text.count(verdict(facts)) == 2 and text.index("**folk**") < text.index("**folk.h5**")
    assert "Not measured yet" in tables.renewed("<!-- loader:begin -->\n<!-- loader:end -->", tmp_path/"none")
