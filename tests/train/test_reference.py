"""How a network that comes along is made: trained to its end whatever stops it, then written with its card, both or neither."""
import hashlib
import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest

from train import reference
from zfcore import networks
from zfcore.check import Expected
from zfcore.models import from_checkpoint, start_of
from zfcore.training import Stop, Training
from tests.spoken import in_one

SHORT = dict(preset="tiny", image_size=32, epochs=2, batch_size=10, limit_per_class=3, workers=1, device="cpu")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of networks, in which the recipe "drawn" is a short one."""
    (tmp_path/"networks").mkdir()
    monkeypatch.setattr(networks, "FOLDER", tmp_path/"networks")
    monkeypatch.setitem(reference.RECIPES, "drawn", SHORT)
    return tmp_path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the network that the recipe leaves and its run, and what was said of it. Nobody changes it."""
    root, said = tmp_path_factory.mktemp("written"), io.StringIO()
    (root/"networks").mkdir()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(networks, "FOLDER", root/"networks")
        patch.setitem(reference.RECIPES, "drawn", SHORT)
        reference.main(["drawn", "--output", str(root/"run")])
    return root, in_one(said.getvalue())


def files(place):
    return sorted(path.name for path in (place/"networks").iterdir())


def test_the_file_holds_the_best_epochs_weights_in_half_the_bits_and_the_card_describes_it(place, written):
    root, said = written
    shutil.copytree(root, place, dirs_exist_ok=True)
    network, stored = from_checkpoint("drawn")
    card, (_, trained) = networks.card("drawn"), from_checkpoint(place/"run")
    assert files(place) == ["drawn.h5", "drawn.json"] and "MB; " in said
    assert card["sha256"] == hashlib.sha256((place/"networks/drawn.h5").read_bytes()).hexdigest()
    assert (card["epoch"], card["input"], card["options"]["limit_per_class"]) == (trained.epoch, 32, 3)
    assert card["chosen"] == (f"the best of {card['options']['epochs']} epochs, by the validation pictures on which its errors "
                              "are told")
    assert stored.velocity == {} and stored.history == {} and start_of(stored) is not None
    for layer, of_layer in trained.parameters.items():
        for key, array in of_layer.items():
            np.testing.assert_array_equal(stored.parameters[layer][key], array.astype(np.float16).astype(np.float32))
    assert 0 < card["rounding"]["largest_change_of_a_score"] < 0.05*card["rounding"]["largest_score"]
    assert set(card["start_left"]) == set(network.parameters()) and card["validation"]["ten"]["count"] == 30


def test_a_stopped_run_goes_on_to_the_same_weights(place, written, monkeypatch):
    def stop(self, score, close=Training.close_epoch):
        close(self, score)
        raise Stop
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Training, "close_epoch", stop)
        reference.train_to_the_end(reference.resolve(SHORT), place/"run")
    reference.train_to_the_end(reference.resolve(SHORT), place/"run")
    whole, gone_on = (from_checkpoint(folder/"run"/"latest.h5")[1] for folder in (written[0], place))
    assert gone_on.epoch == 2
    np.testing.assert_array_equal(gone_on.parameters["conv5"]["w"], whole.parameters["conv5"]["w"])


def test_a_run_of_other_options_is_refused_and_left_alone(place):
    reference.train_to_the_end(replace(reference.resolve(SHORT), epochs=1), place/"run")
    before = (place/"run/latest.h5").read_bytes()
    with pytest.raises(Expected, match="a run with the options of this recipe, got one with others; name another folder"):
        reference.train_to_the_end(reference.resolve(SHORT), place/"run")
    assert (place/"run/latest.h5").read_bytes() == before


def test_a_measurement_that_fails_leaves_the_network_and_its_card_as_they_were(place, written, monkeypatch):
    shutil.copytree(written[0], place, dirs_exist_ok=True)
    before = {name: (place/"networks"/name).read_bytes() for name in files(place)}
    def fail(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(reference, "measured", fail)
    with pytest.raises(KeyboardInterrupt):
        reference.write("drawn", place/"run")
    assert {name: (place/"networks"/name).read_bytes() for name in files(place)} == before
    assert json.loads(before["drawn.json"])["name"] == "drawn"
