"""The networks that come with zfcore: each is what its card says, and its projections can still be read."""
import hashlib
import os
from functools import cache

import numpy as np
import pytest

from zfcore import networks
from zfcore.__main__ import main as zfcore
from zfcore.analysis.diagnostics import JUDGED, judge
from zfcore.analysis.sanity_checks import shares_of_start
from zfcore.analysis.top_activations import top_activations
from zfcore.check import Expected
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic
from zfcore.models import checkpoint_file, from_checkpoint, start_of
from zfcore.trained import Trained
from zfcore.training import evaluate

PICTURES = 60


@pytest.fixture(scope="module", params=networks.names())
def opened(request):
    """(card, network, mean image, the first validation pictures) of each network."""
    network, checkpoint = from_checkpoint(request.param)
    size = checkpoint.mean_image.shape[1]
    pictures = Pictures(Synthetic("val", PICTURES, size), size, network.input_shape[1], workers=2)
    return networks.card(request.param), network, checkpoint, pictures


def test_there_is_one_that_every_analysis_works_on():
    assert "drawn" in networks.names()


def test_the_file_is_the_one_that_the_card_describes_and_small(opened):
    card, network, checkpoint, _ = opened
    content = networks.file_of(card["name"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"] and len(content) == card["bytes"] < 4e6
    assert card["parameters"] == network.parameter_count() and card["classes"] == checkpoint.classes
    assert checkpoint.velocity == {} and card["made_by"] == f"python -m train.reference {card['name']}"
    assert all((w == w.astype(np.float16)).all() for of_layer in network.parameters().values() for w in of_layer.values())


def test_its_error_is_the_one_on_the_card(opened):
    card, network, checkpoint, pictures = opened
    score = evaluate([Trained(network, checkpoint.mean_image)], pictures, 64)
    expected = card["validation"]["centre"]["top1"]
    assert expected < 0.02 and abs(score.top1 - expected) < 4*np.sqrt(max(expected, 0.005)/PICTURES)


def test_little_of_the_random_start_is_left_and_its_projections_are_legible(opened):
    """In the object's box and in its parts there is more of a projection than in that of another unit, and of an untrained
    network: what was lost for a whole release, when all upper layers were still 95 % random."""
    card, network, checkpoint, pictures = opened
    start = start_of(checkpoint)
    assert all(abs(share - card["start_left"][layer]) < 1e-4 for layer, share in shares_of_start(network, start).items())
    assert shares_of_start(network, start)["conv5"] < 0.5
    layers = ["conv5", "fc8"]
    top = top_activations(Trained(network, checkpoint.mean_image), pictures, layers, 1, batch_size=64)
    legible, areas = judge(Trained(network, checkpoint.mean_image, begun=lambda: start), pictures, top, layers)
    for layer in layers:
        trained, other, weights, untrained = legible[layer]
        assert trained[0] > 0.93 and trained[0] > areas[layer][0] + 0.2 and trained[1] > areas[layer][1] + 0.05
        assert trained[0] > other[0] and trained[0] > weights[0] + 0.05 and trained[0] > untrained[0] + 0.05
        assert (trained[1] > np.array([weights[1], untrained[1]])).all()
        assert len(legible[layer]) == len(JUDGED)


@cache
def mean_of_90(size):
    return np.mean([np.asarray(Synthetic("train", 4000, size).picture(i)) for i in range(1000, 1090)], axis=0)


def test_training_on_its_pictures_begins_with_its_mean_image(opened, monkeypatch, tmp_path):
    """As far as 90 pictures, as many of each class, can tell, it is theirs: a version of the drawings too many would be
    noticed."""
    card, _, checkpoint, pictures = opened
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path))
    train, val = open_data("", pictures.size)
    monkeypatch.setattr(Synthetic, "picture", lambda *_: pytest.fail("a picture was drawn"))
    assert all(np.array_equal(Pictures(part, pictures.size, pictures.crop).prepare(), checkpoint.mean_image)
               for part in (train, val))
    monkeypatch.undo()
    some = mean_of_90(pictures.size)
    coarse = (some.transpose(2, 0, 1) - checkpoint.mean_image)[:, :108, :108].reshape(3, 3, 36, 3, 36).mean(axis=(2, 4))
    assert np.abs(coarse).max() < 15                                      # 90 pictures differ from all by 4 to 7


@pytest.mark.parametrize("data, size, limit", (("", 110, 399), ("", 111, 0), ("drawn:unseen", 110, 0)))
def test_other_pictures_have_no_mean_image_that_comes_along(data, size, limit):
    assert all(part.mean_image is None for part in open_data(data, size, limit))


def test_a_name_is_a_run_for_every_command_and_its_figures_have_a_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    zfcore(["occlusion", "--run", "drawn", "--pictures", "3", "--others", "--stride", "40"])
    assert (tmp_path/"runs/drawn/figures/occlusion").is_dir() and "runs/drawn/figures/occlusion" in capsys.readouterr().out


def test_what_is_no_run_is_told_with_the_names_that_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Expected, match="one of .*drawn.*, got darwn"):
        from_checkpoint("darwn")
    (tmp_path/"drawn").mkdir()
    (tmp_path/"drawn/latest.h5").touch()
    # a folder of one's own
    assert checkpoint_file("drawn").parent.name == "drawn" and checkpoint_file("drawn").name == "latest.h5"


def test_a_folder_of_runs_names_the_newest_and_a_word_the_network_that_is_written_like_it(tmp_path):
    for age, name in ((30, "older"), (10, "newest"), (20, "between")):
        (tmp_path/name).mkdir()
        (tmp_path/name/"latest.h5").touch()
        os.utime(tmp_path/name/"latest.h5", (10**9 - age,)*2)
    (tmp_path/"none").mkdir()
    for path, sentence in ((tmp_path, f"which holds 3 runs; the newest is {tmp_path/'newest'}"),
                           (tmp_path/"none", "which has neither"), ("drawm", "drawm, which does not exist; drawn?"),
                           ("x", "python -m train --output x trains one"), ("", "''")):
        with pytest.raises(Expected) as refused:
            checkpoint_file(path)
        assert refused.value.what == "--run" and str(refused.value).endswith(sentence)
