"""python -m bench tune with a clock that is told, on shapes alone; and what zfcore makes of the table: it is one device's, and
decides about no bit."""
import json
import re
import types

import numpy as np
import pytest

from bench import gpu, traffic, tune
from bench.timing import LONG
from tests import executor
from tests.bench.test_gpu import ToldClock
from tests.kernels.conftest import normal
from zfcore import backend, device
from zfcore.models.zfnet import zfnet
from zfcore.ops import conv2d_kernels, model, tuned
from zfcore.ops.conv2d import conv2d, conv2d_transpose

NAME = "NVIDIA Test 9000"
SMALL = lambda: zfnet(classes=7, size=34, maps=(4, 8, 8, 8, 4), units=(12, 8))


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of tables, for this test alone; the Choices in force are put back."""
    monkeypatch.setattr(tuned, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(tuned, "current", tuned.Choices())
    return tmp_path


@pytest.fixture
def tuned_here(monkeypatch, capsys):
    """A function: the questions and answers of bench tune on a card whose kernels take as long as `seconds` says, and what it
    printed."""
    def ran(seconds, N=8, network=SMALL):
        clock = ToldClock()

        def replay(tape):
            clock.now += sum(seconds(kernel) for kernel, _, _ in tape)
        monkeypatch.setitem(backend.LAUNCHERS, traffic.Ghost, lambda *launch: None)
        for owner, name, value in ((tune, "select", lambda name: traffic.DEVICE), (tune, "find_cupy", lambda: None),
                                   (tune, "Clock", lambda cupy: clock),
                                   (tune, "card", lambda: types.SimpleNamespace(name=NAME)),
                                   (tune, "build", lambda name, classes: network()), (gpu, "replay", replay)):
            monkeypatch.setattr(owner, name, value)
        tune.main(types.SimpleNamespace(models=["small"], batch_sizes=[N], rounds=3))
        return json.loads(tuned.path_of(NAME).read_text())["choices"], capsys.readouterr().out
    return ran


def small_is_quick(kernel):
    return LONG*(1 if kernel.defines.get("BM") == 32 else 3)


def test_the_quickest_tile_of_every_question_is_written_and_then_taken(tuned_here, monkeypatch):
    answers, printed = tuned_here(small_is_quick)
    assert str(tuned.path_of(NAME)) in printed and len(answers) > 20
    assert {question.split()[0] for question in answers} == {"conv2d_forward", "conv2d_transpose"}
    for answer in answers.values():
        assert len(answer["us"]) > 1 and answer["quickest"] == min(answer["us"], key=answer["us"].get)
        if any("BM=32" in name for name in answer["us"]):
            assert "BM=32" in answer["quickest"] and answer["us"][answer["quickest"]] <= min(answer["us"].values())
    assert tuned.current == tuned.Choices(), "what was in force before is again"
    launched = lambda: [kernel.defines["BM"] for kernel, _, _ in gpu.recorded(
        lambda x: conv2d(x, ghost(8, 3, 3, 8), None, 1, 1), [ghost(8, 8, 8, 8)])[1]]
    asked = tune.Asked()
    tuned.use(asked)
    launched()
    (question, kernels), = asked.questions.items()
    for kernel in kernels:
        tuned.use(tuned.Choices({question: model.words(kernel)}))
        assert launched() == [kernel.defines["BM"]]
    tuned.use(tuned.Choices({question: "conv2d.cu no such kernel"}))
    by_model = launched()
    tuned.use(tuned.Choices())
    assert launched() == by_model


def test_the_tiles_of_a_training_step_on_a_hopper_gpu_are_asked_for_too_and_taken(tuned_here, monkeypatch):
    monkeypatch.setitem(backend.ARCHITECTURES, traffic.Ghost, lambda: conv2d_kernels.HOPPER)
    network = lambda: zfnet(classes=7, size=34, maps=(32, 64, 64, 64, 32), units=(12, 8))
    answers, _ = tuned_here(lambda kernel: LONG*(1 if kernel.defines.get("BN") == 192 else 3), network=network)
    asked = {question: answer for question, answer in answers.items() if "wgmma" in question}
    assert {question.split()[0] for question in asked} == {"conv2d_wgmma_forward", "conv2d_wgmma_transpose"}
    assert all("BN=192" in answer["quickest"] for answer in asked.values())
    x, w = (np.empty(shape, np.uint16).view(traffic.Ghost) for shape in ((64, 5, 5, 8), (64, 3, 3, 64)))
    for work in (lambda x: conv2d(x, w, None, 1, 1, precision="bf16", training=True),
                 lambda x: (conv2d_transpose(x, w, 1, 1, 5, 5, precision="bf16", training=True),)):
        tuned.use(noted := tune.Asked())
        gpu.recorded(work, [x])
        (question, kernels), = noted.questions.items()
        for kernel in kernels:
            tuned.use(tuned.Choices({question: model.words(kernel)}))
            assert [launched for launched, _, _ in gpu.recorded(work, [x])[1]] == [kernel]


def test_what_other_batches_have_found_stays_in_the_table_of_the_same_kernels(tuned_here):
    eight, _ = tuned_here(small_is_quick)
    both, _ = tuned_here(lambda kernel: LONG, N=24)
    assert eight.items() <= both.items() and len(both) > len(eight)
    tuned.path_of(NAME).write_text(tuned.path_of(NAME).read_text().replace(tuned.version(), "older"))
    assert not eight.keys() & tuned_here(small_is_quick, N=24)[0].keys()


def ghost(*shape):
    return np.empty(shape, np.float32).view(traffic.Ghost)


def written(**changes):
    tuned.path_of(NAME).write_text(json.dumps({"device": NAME, "kernels": tuned.version(), "choices": {
        "f: 1 of 2 x 3, 4 terms": {"quickest": "f.cu f", "us": {"f.cu f": 2.5}}}} | changes))


def test_a_table_is_read_when_its_card_is_selected(monkeypatch, capsys):
    written()
    monkeypatch.setattr(device.gpu, "device", lambda: "the device")
    monkeypatch.setattr(device.gpu, "card", lambda: types.SimpleNamespace(name=NAME))
    assert device.select("gpu") == "the device" and tuned.current == {"f: 1 of 2 x 3, 4 terms": "f.cu f"}
    monkeypatch.setattr(device.gpu, "card", lambda: types.SimpleNamespace(name="NVIDIA Other"))
    device.select("gpu")
    assert tuned.current == {} and capsys.readouterr().err == ""


@pytest.mark.parametrize("changes, got", [
    ({"device": "NVIDIA Other"}, "device: expected NVIDIA Test 9000, got NVIDIA Other"),
    ({"kernels": "old"}, "kernels: expected .*, got old"),
    ({"choices": {"f": {"quickest": "f.cu f"}}}, "without us"), ({"choices": [1]}, "a list of 1"), ({"strange": 1}, "strange")])
def test_a_table_of_something_else_is_told_in_a_sentence_and_not_used(changes, got, capsys):
    written(**changes)
    assert tuned.of_card(NAME) == {}
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(got, told) and "kernels are chosen by a model of the GPU" in told and "bench tune again" in told


def test_a_file_that_is_no_json_and_one_that_is_no_file_are_not_used(folder, capsys):
    tuned.path_of(NAME).write_bytes(b"\xff{")
    assert tuned.of_card(NAME) == {} and "is not used" in capsys.readouterr().err
    tuned.path_of(NAME).unlink()
    tuned.path_of(NAME).mkdir()
    assert tuned.of_card(NAME) == {} and "is not used" in " ".join(capsys.readouterr().err.split())


def test_the_version_is_that_of_the_kernels_that_are_chosen_from(monkeypatch, tmp_path):
    before = tuned.version()
    (tmp_path/"device").mkdir()
    (tmp_path/"conv2d.cu").write_text("one")
    monkeypatch.setattr(tuned, "kernels_folder", lambda: tmp_path)
    other = tuned.version()
    (tmp_path/"conv2d.cu").write_text("two")
    assert len({before, other, tuned.version()}) == 3


@executor.requires_executor
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_an_answer_decides_about_no_bit(precision):
    rng = np.random.default_rng(0)
    x, w = executor.array(normal(rng, 8, 5, 6, 8)), executor.array(normal(rng, 8, 3, 3, 8))
    asked = tune.Asked()
    tuned.use(asked)
    wanted = executor.plain(conv2d(x, w, None, 1, 1, precision=precision)[0])
    (question, kernels), = asked.questions.items()
    assert kernels == conv2d_kernels.fitting(conv2d_kernels.FORWARD_KERNELS[precision], 8, 8)
    for kernel in kernels:
        tuned.use(tuned.Choices({question: model.words(kernel)}))
        got, tape = gpu.recorded(lambda x: conv2d(x, w, None, 1, 1, precision=precision)[:1], [x])
        assert tape[0][0] is kernel and executor.plain(got[0]).tobytes() == wanted.tobytes()


