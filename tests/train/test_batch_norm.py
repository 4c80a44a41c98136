"""Networks of convolution, BatchNorm, ReLU: trained, stopped, resumed, started from, looked into."""
import csv

import numpy as np
import pytest

from tests.ranks.threads import together
from tests.train.test_graph import after_each_step, counts, prepared  # noqa: F401
from train.__main__ import main
from train.options import parser
from zfcore import backend, models
from zfcore.analysis.diagnostics import diagnose
from zfcore.analysis.probing import feature_layers
from zfcore.analysis.sanity_checks import cascade, randomised, shares_of_start, with_weights_of
from zfcore.analysis.top_activations import top_activations
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.deconvnet import DECONVNET, feature_layer, project
from zfcore.graph import launch_by_launch
from zfcore.layers import KINDS, BatchNorm, Conv, Dropout, Flatten, Linear, MaxPool, ReLU
from zfcore.models import from_checkpoint, start_of
from zfcore.models.folded import folded
from zfcore.network import Network
from zfcore.trained import Trained
from zfcore.training import Training, loop, resolve
from zfcore.training.folder import stored_config


def normalised(classes=3, size=32, keep_prob=0.5):
    return Network("normalised", (3, size, size), [
        Conv("conv1", 6, K=5, S=2), BatchNorm("bn1"), ReLU("relu1"), MaxPool("pool1", K=3, S=2),
        Conv("conv2", 8, K=3, P=1, groups=2), BatchNorm("bn2"), ReLU("relu2"), MaxPool("pool2", K=3, S=2),
        Flatten("flatten"), Linear("fc6", 13), BatchNorm("bn6"), ReLU("relu6"), Dropout("drop6", keep_prob),
        Linear("fc7", classes)])


@pytest.fixture
def typed(options, monkeypatch):
    """The options of a short run of the network above, which is a model like others meanwhile."""
    monkeypatch.setitem(models.MODELS, "normalised", normalised)
    monkeypatch.setitem(models.OPEN_QUESTIONS, "normalised", lambda table: [])
    return [*options, "--model", "normalised", "--init", "he"]


def training_of(*words, folder="nowhere"):
    return Training(folder, *Training.materials(resolve(vars(parser().parse_args(words)))))


def flat(layers):
    return {(name, key): backend.to_host(array) for name, of_layer in layers.items() for key, array in of_layer.items()}


def stored(path):
    """Everything in a checkpoint that a later bit depends on."""
    checkpoint = load(path)
    parts = {"parameters": checkpoint.parameters, "velocity": checkpoint.velocity, "buffers": checkpoint.buffers}
    return {(part, *name): array for part, layers in parts.items() for name, array in flat(layers).items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=str(name))


@pytest.fixture
def trained(typed, tmp_path):
    main([*typed, "--output", str(tmp_path/"whole")])
    return tmp_path/"whole"


# ------------------------------------------------------------------------------------------------------ training
def test_a_run_moves_gamma_beta_and_the_running_statistics_and_decays_none_of_them(trained, typed):
    end = stored(trained/"latest.h5")
    for layer, maps in (("bn1", 6), ("bn2", 8), ("bn6", 13)):
        assert all(end["parameters", layer, key].shape == (maps,) for key in ("gamma", "beta"))
        assert (end["parameters", layer, "gamma"] != 1).any() and (end["parameters", layer, "beta"] != 0).any()
        assert (end["buffers", layer, "mean"] != 0).all() and (end["buffers", layer, "var"] != 1).all()
    still = training_of(*typed, "--weight-decay", "0.5")
    still.optimizer.step(still.network, still.optimizer.velocity, 0.1)              # gradients of zero
    assert (still.network["bn1"].parameters["gamma"] == 1).all()


def test_stopped_in_the_middle_of_an_epoch_and_resumed_equals_uninterrupted(trained, typed, tmp_path, ctrl_c_after):
    ctrl_c_after(6)
    with pytest.raises(SystemExit):
        main([*typed, "--output", str(tmp_path/"part")])
    assert load(tmp_path/"part"/"latest.h5").step == 6
    main(["--resume", str(tmp_path/"part")])
    assert_same_bits(stored(trained/"latest.h5"), stored(tmp_path/"part"/"latest.h5"))


def test_a_run_that_begins_with_another_takes_over_its_statistics_too_and_leaves_them_alone(trained, typed, tmp_path):
    end, training = load(trained/"best.h5"), training_of(*typed, "--init-from", str(trained))
    assert_same_bits(flat(training.network.parameters()), flat(end.parameters))
    assert_same_bits(flat(training.network.buffers()), flat(end.buffers))
    before = stored(trained/"best.h5")
    main([*typed, "--init-from", str(trained), "--epochs", "1", "--output", str(tmp_path/"on")])
    assert_same_bits(before, stored(trained/"best.h5"))
    assert (stored(tmp_path/"on"/"latest.h5")["buffers", "bn1", "mean"] != before["buffers", "bn1", "mean"]).any()


def test_pieces_of_a_batch_are_refused_with_the_option_that_makes_them(typed, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*typed, "--micro-batch", "4", "--output", str(tmp_path/"pieces")])
    assert ("bn1: expected the whole batch of 8 pictures, whose mean and variance it takes, got a piece of 4; "
            "leave out --micro-batch") in capsys.readouterr().err
    assert not (tmp_path/"pieces").exists()
    main([*typed, "--micro-batch", "8", "--epochs", "1", "--output", str(tmp_path/"whole")])


def test_several_ranks_which_each_see_a_part_of_a_batch_are_refused(typed, tmp_path):
    config = resolve(vars(parser().parse_args(typed)))
    with pytest.raises(Expected, match="bn1: expected the whole batch of 8 pictures.*train on one device: several take pieces"):
        together(2, lambda ranks: Training.begin(config, tmp_path/"two", ranks=ranks))
    assert not (tmp_path/"two").exists()


def test_statistics_that_have_left_the_numbers_are_not_saved(typed, tmp_path):
    training = training_of(*typed, folder=tmp_path)
    training.network["bn2"].buffers["var"][3] = np.inf
    training.rescue()
    assert not (tmp_path/"latest.h5").exists()
    training.network["bn2"].buffers["var"][3] = 2
    training.rescue()
    assert load(tmp_path/"latest.h5").buffers["bn2"]["var"][3] == 2


def test_a_recorded_step_moves_the_statistics_as_an_eager_one_does(options, counts, monkeypatch):  # noqa: F811
    monkeypatch.setattr(loop, "build", lambda name, classes, size, keep_prob: Network(name, (3, size, size), [
        Conv("conv1", 6, K=5, S=4), BatchNorm("bn1"), ReLU("relu1"), Flatten("flatten"),
        Linear("fc6", 5), BatchNorm("bn6"), ReLU("relu6"), Linear("fc7", classes)]))
    one, other = prepared(options), prepared(options)
    other.captured = launch_by_launch(other.device, other.learn)
    ends = []
    for training in (other, one):
        ends.append({**after_each_step(training)[-1], **flat(training.network.buffers())})
    assert counts.launched == 4
    assert_same_bits(*ends)
    assert all((ends[0][name, "mean"] != 0).any() for name in ("bn1", "bn6"))


def test_the_validation_error_of_a_checkpoint_is_the_one_of_the_log(trained, capsys):
    with open(trained/"log.csv") as file:
        logged = float(list(csv.DictReader(file))[-1]["val_error"])
    capsys.readouterr()
    main(["--resume", str(trained), "--eval-only"])
    assert f"{100*logged:.1f} %" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------- looked into
@pytest.fixture
def seen(trained):
    """(network, its start, Pictures of the run, mean image) of a finished run."""
    pictures = Training.materials(stored_config(trained)).val
    network, checkpoint = from_checkpoint(trained/"latest.h5")
    return network, start_of(checkpoint), pictures, checkpoint.mean_image


def test_features_are_read_behind_the_relu_and_layers_are_those_with_weights(seen):
    network, start, *_ = seen
    assert [network.layers[feature_layer(network, name)].name for name in ("conv1", "conv2", "fc6", "fc7", "bn1")] \
        == ["relu1", "relu2", "relu6", "fc7", "bn1"]
    assert feature_layers(network) == {1: "pool1", 2: "pool2", 6: "relu6"}
    assert cascade(network, "fc6") == [["fc6"], ["fc6", "conv2"], ["fc6", "conv2", "conv1"]]
    shares = shares_of_start(network, start)
    assert list(shares) == ["conv1", "conv2", "fc6", "fc7"] and all(0 < share <= 1 for share in shares.values())
    assert (start["bn1"].parameters["gamma"] == 1).all() and (start["bn1"].buffers["var"] == 1).all()


def test_randomised_layers_and_the_weights_of_the_start_leave_normalisations_as_they_are(seen):
    network, start, *_ = seen
    mixed = randomised(network, ["conv2", "conv1"])
    for name in ("bn1", "bn2"):
        assert mixed[name].parameters == network[name].parameters and mixed[name].buffers == network[name].buffers
    assert (mixed["conv1"].parameters["w"] != network["conv1"].parameters["w"]).any()
    x = np.random.default_rng(0).standard_normal((3, 32, 32, 2)).astype(np.float32)
    trained, begun = (project(network, x, "conv2", [1, 2], rules=rules, start=1).pixels
                      for rules in (DECONVNET, with_weights_of(start)))
    assert np.isfinite(begun).all() and (begun != trained).any()


def test_a_diagnosis_judges_its_filters_and_units(seen):
    network, start, pictures, mean = seen
    found = diagnose(Trained(network, mean, begun=lambda: start), pictures, [0, 3], name="normalised", k=2)
    assert found.filters.shape == (3, 5, 5, 6) and list(found.dead) == ["conv1", "conv2", "fc6"]
    assert list(found.start) == ["conv1", "conv2", "fc6", "fc7"]


def test_a_pass_over_the_pictures_is_not_gone_on_with_after_other_statistics(seen):
    network, _, pictures, mean = seen
    first = top_activations(Trained(network, mean), pictures, ["conv1"], 2, batch_size=4)
    network["bn2"].buffers["mean"][3] += 0.25
    assert top_activations(Trained(network, mean), pictures, ["conv1"], 2, batch_size=4).fingerprint != first.fingerprint


# ------------------------------------------------------------------------------------------------------ folded away
def test_folded_into_the_layers_below_it_gives_the_same_scores(seen):
    network = seen[0]
    plain = folded(network)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in network.layers if not layer.name.startswith("bn")]
    x = 60*np.random.default_rng(1).standard_normal((3, 32, 32, 5)).astype(np.float32)
    wanted, got = network.forward(x)[0], plain.forward(x)[0]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6*np.abs(wanted).max())
    assert np.ptp(wanted) > 0 and (plain["conv1"].parameters["w"] != network["conv1"].parameters["w"]).any()


class Scaled(ReLU):
    """Divides by what it keeps beside parameters, a number a map."""
    def buffer_shapes(self, shape):
        return {"peak": shape[:1]}

    def init(self, shape, *how):
        return {}, {"peak": np.arange(1, 1 + shape[0], dtype=np.float32)}

    def forward(self, x, step=None):
        y, cache = super().forward(x)
        return y/self.buffers["peak"].reshape(-1, *[1]*(x.ndim - 1)), cache


def test_what_other_layers_keep_stays_where_a_normalisation_is_folded_away(monkeypatch):
    monkeypatch.setitem(KINDS, "Scaled", Scaled)
    network = Network("kept", (3, 9, 9), [Conv("conv", 4, K=3), BatchNorm("bn"), Scaled("scaled"), Flatten("flat"), Linear("fc", 2)]).init(0, "he")
    network["scaled"].buffers["peak"] = np.float32([2, 3, 5, 7])
    x = np.random.default_rng(1).standard_normal((3, 9, 9, 2)).astype(np.float32)
    np.testing.assert_allclose(folded(network).forward(x)[0], network.forward(x)[0], rtol=1e-3)


@pytest.mark.parametrize("below, got", [([], "the pictures"), ([Conv("conv", 4, K=3), ReLU("relu")], "relu")])
def test_without_a_layer_right_below_it_cannot_be_folded(below, got):
    network = Network("bare", (3, 9, 9), [*below, BatchNorm("bn"), Flatten("flat"), Linear("fc", 2)]).init()
    with pytest.raises(Expected, match=f"bn: expected a convolution or a fully connected layer right below .*, got {got}"):
        folded(network)
