"""The tables of the READMEs are what the files in bench/results/ say, and say so where there are none."""
import csv
import json

import pytest

from bench import tables
from bench.tables import NO_GPU, cpu_table, digits, renewed
from zfcore.check import Expected

CPU = {"cpu": "Test CPU", "cores": 2, "numpy": "2.4", "pytorch": "2.13", "date": "2026-01-02T03:04:05+00:00", "cases": [
    {"name": "forward", "N": 32, "milliseconds": {"ours": 20.51, "channels last": 30.0, "channels first": 40.0},
     "best": "channels last", "ratio": 0.684, "spread": [0.6, 0.75]},
    {"name": "conv1 forward", "N": 32, "milliseconds": {"ours": 123.4}}], "peak_memory": [{"N": 32, "gigabytes": 3.21}]}
ROW = {"noun": "conv2d", "name": "conv1 forward", "precision": "fp32", "us": 1000.0, "spread": [990.0, 1100.0], "bound": "math",
       "bytes": 671900000,
       "flops": 43.71e9, "share_of_floor": 0.7286, "error": 4.1e-7, "best_peer": "PyTorch channels last", "ratio": 0.9,
       "ratio_spread": [0.88, 0.91], "peers": {"PyTorch channels last": {"us": 900.0, "error": 3e-7}}}
GPU = {"device": "NVIDIA Test", "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "driver": None, "cuda": "13.0",
       "cupy": "14.2", "pytorch": "2.11", "cudnn": 91900, "N": 128, "steps": [], "choices": {},
       "ceilings": {"copy_gb_s": 4301.2, "fma_tflop_s": 60.04, "tf32_tflop_s": 310.2, "bf16_tflop_s": 620.4}, "cases": [
           ROW, {"noun": "relu", "name": "relu1 forward", "precision": "fp32", "us": 300.0, "spread": [299.0, 301.0],
                 "bound": "memory", "bytes": 1189478400, "flops": 0, "share_of_floor": 0.92, "error": 0.0, "peers": {}},
           {**ROW, "name": "conv1 forward, bf16", "precision": "bf16"},
           {"noun": "conv2d", "name": "conv2 forward", "precision": "fp32", "failed": "AssertionError: off"}]}


def test_the_steps_table_has_a_column_for_whoever_was_there():
    ran = {"ms": 2.5, "spread": [2.4, 2.61], "images_per_second": 51200.0}
    steps = [{"precision": "bf16", "launches": 41, "contestants": {"ours": ran, "torch.compile": {"failed": "luck"}}},
             {"precision": "fp32x3", "contestants": {"ours": {**ran, "ms": 3.0}}}]
    assert tables.steps_table(steps)[3:] == [
        "| products in | launches | ours | torch.compile |", "|---|--:|--:|--:|",
        "| bf16 | 41 | 2.50 (2.40 to 2.61) | failed |", "| fp32x3 |  | 3.00 (2.40 to 2.61) |  |"]
    assert tables.steps_table([]) == []


def test_cores_and_shares_stand_behind_the_layers(tmp_path):
    (tmp_path/"cpu.json").write_text(json.dumps(CPU))
    (tmp_path/"threads.json").write_text(json.dumps({"cases": [{"name": "forward", "N": 32, "cores": 2, "milliseconds": 28.04,
                                                                "of_linear": 0.934}]}))
    (tmp_path/"shares.json").write_text(json.dumps({"cases": [{"name": "top-9 pass", "no_product": 0.251,
                                                               "by_operation": {"winograd": 0.6, "maxpool": 0.4}}]}))
    text = tables.cpu_table(tmp_path, with_layers=True)
    assert "| forward | 32 | 2 | 28 | 93 % |" in text and "| top-9 pass | 25 % | `winograd` 60 %, `maxpool` 40 % |" in text
    assert "winograd" not in tables.cpu_table(tmp_path)
    case = {**CPU["cases"][0], "best": "JAX", "milliseconds": {"ours": 20.5, "JAX": 30}}
    (tmp_path/"cpu.json").write_text(json.dumps({**CPU, "engines": {"torch": "2.13", "jax": "0.10"}, "cases": [case]}))
    text = tables.cpu_table(tmp_path)
    assert "| forward | 32 | 20.5 | JAX | 30 |" in text and "NumPy 2.4, PyTorch 2.13, jax 0.10, 2026-01-02." in text


def between(text, mark):
    return text.split(f"<!-- {mark}:begin -->\n")[1].split(f"<!-- {mark}:end -->")[0].strip()


def page(*marks):
    return "before\n" + "\n".join(f"<!-- {mark}:begin -->\nstale\n<!-- {mark}:end -->" for mark in marks) + "\nafter\n"


@pytest.mark.parametrize("name", tables.FILES)
def test_tables_are_what_the_results_say(name):
    text = (tables.ROOT/name).read_text()
    assert renewed(text, tables.RESULTS) == text, "run python -m bench tables"
    assert sorted(tables.re.findall("<!-- (.*):begin -->", text)) == sorted(tables.FILES[name])


def test_what_unfinished_networks_reach_is_quoted_as_that():
    """As long as table 4 says so of those that are trained from random weights."""
    assert "is not settled" in (tables.RESULTS/"table4.md").read_text("utf-8")
    with open(tables.RESULTS/"table4.csv", newline="", encoding="utf-8") as file:
        reached = [float(row["accuracy"]) for row in csv.DictReader(file) if (row["who"], row["what"]) == ("here", "from random weights")]
    numbers, quoted = {f"{x:.{digits}f}" for x in reached for digits in (0, 1)}, []
    for name in tables.FILES:
        text = tables.re.sub(r"<!-- (\S+):begin -->.*?<!-- \1:end -->", "", (tables.ROOT/name).read_text("utf-8"), flags=tables.re.S)
        quoted += [(name, part) for part in tables.re.split(r"\n\n|\n(?=\|)", text) if "random weights" in part
                   and numbers & set(tables.re.findall(r"[\d.]*\d", part))]
    assert {name for name, _ in quoted} == set(tables.FILES)
    assert not [part for _, part in quoted if "unfinished" not in part or "2 folds" not in part]


def test_every_table_stands_in_one_file():
    assert sorted(mark for marks in tables.FILES.values() for mark in marks) == sorted(tables.TABLES)
    with pytest.raises(Expected, match="README.md: expected marks trained, agreed, cpu, got layers"):
        renewed(page("layers"), tables.RESULTS, "README.md", tables.FILES["README.md"])


def test_without_results_every_table_is_a_sentence(tmp_path):
    text = renewed(page(*tables.TABLES), tmp_path)
    assert between(text, "gpu") == NO_GPU
    assert between(text, "cpu") == between(text, "layers") == "Not measured yet: `python -m bench cpu`."
    assert between(text, "train") == between(text, "trained") == "Not recorded yet."
    assert between(text, "table2") == "Not trained yet: `python -m train.ablation table2 --output runs/tables`."
    assert between(text, "table7") == "Not trained yet: `python -m train.transfer table7 --run RUN --data DIR`."
    assert between(text, "claims") == between(text, "agreed") == "No network of tables 2 and 3 is trained yet."
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert renewed(text, tmp_path) == text


def test_claims_keep_the_head_that_they_have_in_both_tables_and_of_two_kinds_none_is_made(tmp_path):
    text = "{}\n\n| claim of the paper | difference of | here ({} %) |\n| --- | --- | --: |\n| {} x | error | +1.0 | agrees |\n\nmore\n"
    (tmp_path/"table2.md").write_text(text.format("first", 97.5, 1))
    (tmp_path/"table3.md").write_text(text.format("second", 97.5, 2))
    assert between(renewed(page("claims"), tmp_path), "claims").split("\n") == [
        "| claim of the paper (section 5.1) | difference of | here (97.5 %) |", "| --- | --- | --: |",
        "| 1 x | error | +1.0 | agrees |", "| 2 x | error | +1.0 | agrees |"]
    (tmp_path/"table3.md").write_text(text.format("second", 95, 2))
    with pytest.raises(Expected, match="tables 2 and 3: expected as many looks at the claims of both"):
        renewed(page("claims"), tmp_path)


def test_cpu_table_has_the_network_at_its_largest_batch_and_the_long_one_everything(tmp_path):
    first, *others = CPU["cases"]
    (tmp_path/"cpu.json").write_text(json.dumps({**CPU, "cases": [{**first, "N": 8}, first, *others]}))
    (tmp_path/"projections.json").write_text(json.dumps({**CPU, "peak_memory": [], "cases": [
        {"name": "projections from layer 5", "N": 64, "milliseconds": {"ours": 11.0, "forward": 10.0}, "best": "forward",
         "ratio": 1.1, "spread": [1.0, 1.2]}]}))
    text = renewed(page("cpu", "layers"), tmp_path)
    short, long = between(text, "cpu"), between(text, "layers")
    assert short.startswith("Test CPU, 2 cores, NumPy 2.4, PyTorch 2.13, 2026-01-02.")
    assert "| forward | 32 | 20.5 | PyTorch, channels last | 30 | 0.68 (0.60 to 0.75) |" in short
    assert "| projections from layer 5 | 64 | 11 | forward pass | 10 | 1.10 (1.00 to 1.20) |" in short
    assert "conv1" not in short and "| forward | 8 |" not in short and "| forward | 8 |" in long
    assert "| conv1 forward | 32 | 123 | | | |" in long
    assert "| peak memory of a training step | 32 | 3.21 GB | | | |" in long
    (tmp_path/"cpu.json").write_text(json.dumps(CPU | {"numba": "0.68"}))
    assert cpu_table(tmp_path).startswith("Test CPU, 2 cores, NumPy 2.4 with numba 0.68, PyTorch 2.13")
    (tmp_path/"occlusion.json").write_text(json.dumps(CPU | {"cpu": "Other", "cases": [{**first, "name": "cone or every layer "
                                                                                                         "whole"}]}))
    assert "Other" in cpu_table(tmp_path, with_layers=True) and "Other" not in cpu_table(tmp_path)


def test_the_analyses_are_a_row_each_and_their_sum(tmp_path):
    rows = [{"name": "invariance (figure 5)", "seconds": 2.04, "cpu_seconds": 3.06},
            {"name": "where it is wrong", "seconds": 1.5, "cpu_seconds": 2.5}]
    (tmp_path/"analyses.json").write_text(json.dumps({**CPU, "run": "drawn", "numba": None, "cases": rows}))
    table = between(renewed(page("analyses"), tmp_path), "analyses")
    assert table.startswith("`drawn`, seconds. Test CPU, 2 cores, NumPy 2.4, 2026-01-02.")
    assert table.endswith("| where it is wrong | 1.5 | 2.5 |\n| all of them, one after the other | 3.54 | 5.56 |")


def test_the_sentence_on_an_atlas_says_what_was_measured(tmp_path):
    (tmp_path/"atlas.json").write_text(json.dumps({**CPU, "run": "drawn", "units": 866, "pictures": 1000, "seconds": 71.4,
                                                   "cpu_seconds": 99.6, "megabytes": 31.2, "files": 400}))
    assert between(renewed(page("atlas"), tmp_path), "atlas") == (
        "The atlas of `drawn`, 866 units over 1000 pictures: 71 s, 100 s of the CPU, 31 MB in 400 files (Test CPU, 2 cores, "
        "2026-01-02).")


def test_heads_say_of_how_many_rounds_a_table_is_where_its_files_do(tmp_path):
    assert [tables.in_rounds(*({"rounds": n} for n in counts)) for counts in ([1], [7, 3, 7], [])] == [", 1 round", ", 3 or 7 rounds", ""]
    for rounds, said in ({"rounds": 7}, ", 7 rounds."), ({}, "2026-01-02."):
        (tmp_path/"cpu.json").write_text(json.dumps(CPU | rounds))
        (tmp_path/"nvidia-test-2026-01-02.json").write_text(json.dumps(GPU | rounds))
        text = renewed(page("cpu", "layers", "gpu"), tmp_path)
        assert all(between(text, mark).split("\n")[0].endswith(said) for mark in ("cpu", "layers"))
        assert ("Batch 128, at most 7 rounds." in text) == bool(rounds) and ("Batch 128. " in text) == (not rounds)


def test_results_of_two_machines_are_two_tables(tmp_path):
    (tmp_path/"cpu.json").write_text(json.dumps(CPU))
    for other in {"cores": 8}, {"numba": "0.68"}:
        (tmp_path/"projections.json").write_text(json.dumps({**CPU, **other}))
        assert between(renewed(page("cpu"), tmp_path), "cpu").count("Test CPU") == 2


def test_gpu_table_shows_the_newest_run_of_each_device(tmp_path):
    (tmp_path/"nvidia-test-2026-01-02.json").write_text(json.dumps(GPU))
    (tmp_path/"nvidia-test-2025-12-31.json").write_text(json.dumps({**GPU, "date": "2025-12-31", "commit": "older"}))
    (tmp_path/"another-2025-01-01.json").write_text(json.dumps({**GPU, "device": "Another", "pytorch": None, "cudnn": None}))
    table = between(renewed(page("gpu"), tmp_path), "gpu")
    assert "older" not in table and table.count("**") == 4 and "**Another**" in table and "no peer installed" in table
    assert "**NVIDIA Test**, 2026-01-02, commit abc: driver unknown, CUDA 13.0, CuPy 14.2, PyTorch 2.11, cuDNN 91900." in table
    assert ("| conv1 forward | 1000 (990 to 1100) | 43.7 TFLOP/s | 73 % | PyTorch channels last | 900 | 0.90 (0.88 to 0.91) "
            "| 4e-07 | 3e-07 |") in table
    assert "| relu1 forward | 300 (299 to 301) | 3965 GB/s | 92 % | | | | 0e+00 | |" in table
    assert "| conv2 forward | failed: AssertionError: off |" in table
    rows = [line.count("|") for line in table.splitlines() if line.startswith("|")]
    assert set(rows) == {10}


def test_gpu_table_says_whether_a_table_of_choices_was_in_force(tmp_path):
    for choices, wanted in {1: "Kernels are chosen by a table of `python -m bench tune` (1 choice) and, where that knows nothing, by "
                               "the model of a GPU.\n",
                            0: "Kernels are chosen by the model of a GPU.\n"}.items():
        (tmp_path/"nvidia-test-2026-01-02.json").write_text(json.dumps({**GPU, "choices": {"a question": "a kernel"} if choices else {}}))
        assert wanted in between(renewed(page("gpu"), tmp_path), "gpu")


def test_gpu_table_keeps_precisions_apart(tmp_path):
    (tmp_path/"nvidia-test-2026-01-02.json").write_text(json.dumps(GPU))
    table = between(renewed(page("gpu"), tmp_path), "gpu")
    assert "copy 4301 GB/s; TFLOP/s: fp32 60.0, mma.sync in tf32 310, in bf16 620." in table
    fp32, bf16 = table.split("Products in ")[1:]
    assert fp32.startswith("fp32, beside peers in fp32 without TF32:") and "conv2 forward" in fp32 and "bf16" not in fp32
    assert bf16.startswith("bf16, beside peers in bfloat16") and "| conv1 forward, bf16 | 1000" in bf16
    assert "relu" not in bf16


def test_train_table_is_the_text_as_it_was_printed(tmp_path):
    (tmp_path/"train.txt").write_text("\nvalidation error 9.9 %\n  runs/x \\1 <b>\n")
    assert between(renewed(page("train"), tmp_path), "train") == "```\nvalidation error 9.9 %\n  runs/x \\1 <b>\n```"


def test_what_a_training_printed_in_short_is_its_first_and_last_epoch_and_its_result(tmp_path):
    (tmp_path/"train.txt").write_text("epoch   1/3  a\nepoch   2/3  b\nlr is now 1\nepoch   3/3  c\n\nvalidation error 9.9 %\n "
                                      " runs/x\n")
    assert between(renewed(page("trained"), tmp_path), "trained").split("\n") == [
        "```", "epoch   1/3  a", "...", "epoch   3/3  c", "validation error 9.9 %", "```"]


def test_marks_without_a_table_or_without_their_end_are_refused(tmp_path):
    with pytest.raises(Expected,
                       match="marks cpu, layers, train, trained, gpu, .*table2, table3, claims, agreed, table4, .*figure9, got "
                             "other"):
        renewed(page("other"), tmp_path)
    with pytest.raises(Expected, match="to have its"):
        renewed(page("cpu").replace("cpu:end", "gpu:end"), tmp_path)


def test_a_broken_file_of_results_is_one_sentence(tmp_path):
    (tmp_path/"cpu.json").write_text('{"cases": [')
    with pytest.raises(Expected, match="cpu.json: expected JSON written by python -m bench"):
        renewed(page("cpu"), tmp_path)


def test_three_figures_without_an_exponent():
    assert [digits(n) for n in (0.01234, 0.5, 1.2345, 12.345, 99.96, 123.4, 45678.9)] == [
        "0.012", "0.5", "1.23", "12.3", "100", "123", "45679"]


def test_claims_of_two_networks_come_from_table_2_and_the_others_from_table_3(tmp_path):
    head = "| claim of the paper | here |\n| --- | --- |\n"
    (tmp_path/"table2.md").write_text(f"| figure 3 | `tiny` | 38.4 |\n\n{head}| 1 beats | of five |\n| 3 wider | of one |\n"
                                      "| 4 middle | of five |\n")
    (tmp_path/"table3.md").write_text(f"{head}| 1 beats | of three |\n| 2 depth | here |\n| 3 wider | of three |\n"
                                      "| 4 middle | no |\n")
    text = renewed(page("claims", "table2"), tmp_path)
    assert between(text, "claims").splitlines()[2:] == ["| 1 beats | of five |", "| 2 depth | here |", "| 3 wider | of three |",
                                                        "| 4 middle | of five |"]
    assert between(text, "table2") == (tmp_path/"table2.md").read_text().strip()


def test_claims_are_counted_by_what_is_said_of_them(tmp_path):
    head = "| claim of the paper | of | paper | here | |\n|---|---|--:|--:|---|\n"
    (tmp_path/"table2.md").write_text(f"{head}| 1 a | x | +1 | +2 | agrees |\n| 1 b | x | +1 | +2 | undecided; about 5 pairs |\n")
    (tmp_path/"table3.md").write_text(f"{head}| 2 c | x | +1 | -2 | does not agree |\n| 3 d | x | +1 | +3 | agrees |\n")
    assert "Of the 4 differences between rows of tables 2 and 3 that the paper builds on, 2 agree in small, 1 do not and 1 are" in (
        renewed(page("agreed"), tmp_path))
