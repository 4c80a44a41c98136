"""Training on a GPU: pictures by prefetch from pinned memory, the step as a CUDA graph, checkpoints; the CPU is what it is held
against."""
import numpy as np
import pytest

from tests.standin import STREAMS, late
from tests.train.conftest import short, write_set
from tests.train.test_graph import few_maps
from train.__main__ import main
from zfcore.checkpoint import load
from zfcore.training import loop


@pytest.fixture
def trained(gpu, tmp_path, monkeypatch):
    """trained(device, *options): the folder of a run of two epochs of three steps, two of them replayed on a GPU."""
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr(loop, "build", few_maps)
    pictures = write_set(tmp_path/"pictures", (8, 3))

    def run(device, *options, epochs=2):
        folder = tmp_path/f"{device}{len(list(tmp_path.iterdir()))}"
        main([*short(pictures), "--epochs", str(epochs), "--output", str(folder), "--device", device, *options])
        return folder
    return run


def history(folder):
    return load(folder/"latest.h5").history


def test_a_run_on_a_gpu_has_the_losses_of_one_on_the_cpu(trained):
    there, here = history(trained("gpu")), history(trained("cpu"))
    for column in ("train_loss", "val_loss"):
        assert [f"{loss:.4f}" for loss in there[column]] == [f"{loss:.4f}" for loss in here[column]]
    assert there["val_error"] == here["val_error"]


def test_a_run_in_bf16_learns_nearly_what_one_in_fp32_does_and_goes_on_from_its_checkpoint_to_the_same_bits(trained):
    whole, here = trained("gpu", "--precision", "bf16"), trained("cpu")
    for column in ("train_loss", "val_loss"):
        np.testing.assert_allclose(history(whole)[column], history(here)[column], rtol=0.02)
    assert history(whole)["train_loss"] != history(here)["train_loss"]
    part = trained("gpu", "--precision", "bf16", epochs=1)
    main(["--resume", str(part), "--epochs", "2"])
    for name, of_layer in load(whole/"latest.h5").parameters.items():
        for key, array in of_layer.items():
            np.testing.assert_array_equal(load(part/"latest.h5").parameters[name][key], array)


@pytest.mark.parametrize("schedule", [("copies",), tuple(STREAMS)], ids=" ".join)
def test_a_run_whose_work_is_done_late_ends_with_the_bits_of_one_whose_work_is_done_at_once(trained, standin, schedule):
    at_once = load(trained("gpu")/"latest.h5").parameters
    with late(*schedule):
        folder = trained("gpu")
    for name, of_layer in load(folder/"latest.h5").parameters.items():
        for key, array in of_layer.items():
            np.testing.assert_array_equal(array, at_once[name][key])
