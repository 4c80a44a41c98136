"""A run that starts from another run's weights: what is taken over, what is drawn anew, what is refused."""
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.train.conftest import write_set
from tests.spoken import in_one
from train.__main__ import main
from train.options import parser
from zfcore.check import Expected
from zfcore.checkpoint import load, save
from zfcore.training import Training, resolve


@pytest.fixture
def source(made, tmp_path):
    """The folder of a run of one epoch on amber, jade and plum."""
    return made(1, tmp_path/"source")


def trained_from(source, *words):
    training = Training("nowhere",
                        *Training.materials(resolve(vars(parser().parse_args([*words, "--init-from", str(source)])))))
    return training, training.origin.sentence


def assert_equal(of_layer, other):
    for key in of_layer:
        np.testing.assert_array_equal(of_layer[key], other[key])


def test_the_same_classes_take_over_every_layer_and_nothing_but_weights(source, options):
    training, said = trained_from(source, *options)
    stored = load(source/"best.h5")
    for name, of_layer in training.network.parameters().items():
        assert_equal(of_layer, stored.parameters[name])
    assert (training.epoch, training.step) == (0, 0)
    assert all((v == 0).all() for of_layer in training.optimizer.velocity.values() for v in of_layer.values())
    assert said.endswith("after epoch 1")


@pytest.mark.parametrize("change", ["one class fewer", "another name"])
def test_other_classes_get_a_classifier_drawn_anew_and_keep_the_other_layers(source, options, pictures, change, tmp_path):
    for part in ("train", "val"):
        plum = pictures/part/"plum"
        plum.rename(tmp_path/part if change == "one class fewer" else plum.with_name("violet"))
    training, said = trained_from(source, *options)
    fresh = Training.drawn_network(training.config, training.classes)
    stored = load(source/"best.h5").parameters
    for name, of_layer in training.network.parameters().items():
        assert_equal(of_layer, fresh.parameters()[name] if name == "fc8" else stored[name])
    assert "its 3 classes are not the" in said and said.endswith("fc8 is drawn anew")


def test_the_same_classes_in_another_order_keep_the_classifier_each_class_its_own_unit(source, options):
    stored = load(source/"best.h5")
    order = [2, 0, 1]
    save(source/"best.h5", replace(stored, classes=[stored.classes[k] for k in order]))
    training, said = trained_from(source, *options)
    assert training.classes == stored.classes and training.origin.facts["drawn_anew"] == []
    for name, of_layer in training.network.parameters().items():
        for key, array in of_layer.items():
            wanted = stored.parameters[name][key]
            np.testing.assert_array_equal(array[..., order] if name == "fc8" else array, wanted)
    assert said.endswith("its classes are put in the order of those here")


def test_filters_that_the_first_step_would_scale_back_are_refused_with_what_leaves_them(source, options, capsys):
    stored = load(source/"best.h5")
    three = stored.parameters["conv2"]["w"][..., :3]
    three *= 0.5/np.sqrt(np.mean(np.square(three), (0, 1, 2)))
    save(source/"best.h5", stored)
    with pytest.raises(Expected, match=r"^rms_max: expected 0, for no limit, or at least 0.5, the largest RMS of a filter "
                                       r"of .*, got 0.1; the first step would scale 3 of its \d+ filters back to it$"):
        trained_from(source, *options)
    for limit in ("0", "0.51"):
        training, _ = trained_from(source, *options, "--rms-max", limit)
        assert_equal(training.network.parameters()["conv2"], stored.parameters["conv2"])


def test_another_size_of_pictures_than_the_weights_have_seen_is_said(source, options):
    stored = load(source/"best.h5")
    assert "brought" not in trained_from(source, *options)[1]
    seen = stored.mean_image.shape[1] - 4
    save(source/"best.h5", replace(stored, mean_image=stored.mean_image[:, 2:-2, 2:-2]))
    said = trained_from(source, *options)[1]
    assert f"for which pictures were brought to {seen} pixels a side, not to the {seen + 4} here" in said


def test_the_mean_image_is_that_of_the_new_pictures(source, options, tmp_path):
    other = write_set(tmp_path/"other", per_class=(3, 2))
    main([*options, "--data", str(other), "--epochs", "1", "--init-from", str(source), "--output", str(tmp_path/"run")])
    one, theirs = load(tmp_path/"run"/"latest.h5"), load(source/"latest.h5")
    assert np.abs(one.mean_image - theirs.mean_image).max() > 1 and one.epoch == 1


def test_the_model_and_size_are_the_sources_unless_typed(source):
    c = resolve(vars(parser().parse_args(["--init-from", str(source)])))
    assert (c.preset, c.model, c.image_size) == ("tiny", "tiny", 32)
    assert resolve(vars(parser().parse_args(["--init-from", str(source), "--image-size", "64"]))).image_size == 64


def test_a_dry_run_of_a_network_from_elsewhere_shows_its_layers(source, options, tmp_path, capsys):
    own = load(source/"best.h5")
    save(tmp_path/"other.h5", replace(own, model="of_cifar"))
    words = [*options, "--dry-run"]
    main(words)
    shown = capsys.readouterr().out
    main([*words, "--init-from", str(tmp_path/"other.h5")])
    assert table_of(capsys.readouterr().out) == table_of(shown).replace("tiny", "of_cifar")
    main([*options, "--epochs", "1", "--init-from", str(tmp_path/"other.h5"), "--output", str(tmp_path/"run")])
    (tmp_path/"other.h5").unlink()                         # the run has its layers
    capsys.readouterr()
    main(["--resume", str(tmp_path/"run"), "--dry-run"])
    assert "of_cifar" in table_of(capsys.readouterr().out)


def table_of(printed):
    """The table of layers in what was printed."""
    return printed.partition("\n\n")[2].partition("\n\n")[0]


@pytest.mark.parametrize("words, sentence", [
    (["--model", "tiny-alexnet"], "expected a network whose next layer is conv1 (Conv F=24 K=11 S=4 P=0"),
    (["--image-size", "96", "--upscale"], "--image-size: expected 32, for which"),
    (["--init-from", "nowhere"], "nowhere"),
    (["--resume", "RUN"], "no --init-from beside it")])
def test_what_does_not_fit_is_one_sentence_and_leaves_no_folder(source, options, words, sentence, tmp_path, capsys):
    words = [*([] if "--resume" in words else [*options, "--output", str(tmp_path/"run")]), "--init-from", str(source), *words]
    with pytest.raises(SystemExit) as exit:
        main([str(source) if word == "RUN" else word for word in words])
    assert exit.value.code == 2 and sentence in capsys.readouterr().err and not (tmp_path/"run").exists()


def test_the_source_and_its_epoch_are_printed_and_stay_in_config_json_when_the_run_is_resumed(source, options, tmp_path,
                                                                                              capsys):
    run = tmp_path/"run"
    main([*options, "--epochs", "1", "--init-from", str(source), "--output", str(run)])
    assert f"weights of {source} after epoch 1" in in_one(capsys.readouterr().out)
    first = json.loads((run/"config.json").read_text())
    assert first["init_from"] == {"path": str(source), "epoch": 1, "step": 4, "drawn_anew": []}
    main(["--resume", str(run), "--epochs", "2"])
    again = json.loads((run/"config.json").read_text())
    assert (again["init_from"], again["started"]) == (first["init_from"], first["started"])
    assert again["options"]["init_from"] == str(source) and again["options"]["epochs"] == 2
