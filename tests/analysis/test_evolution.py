"""Strips over the kept epochs, and two numbers of how much moves between them, with changes planted that have known sizes."""
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.analysis.test_top_activations import COUNT, MEAN, SIZE, Noise, Stopping, pictures_of, small
from zfcore import plots, results
from zfcore.__main__ import main
from zfcore.analysis.evolution import Evolution, cosine, evolution, kept_epochs, length
from zfcore.analysis.top_activations import top_activations, unit_views, views_of
from zfcore.check import Expected
from zfcore.commands.evolution import draw
from zfcore.checkpoint import Checkpoint, save
from zfcore.deconvnet import project, unit_count
from zfcore.plots import LABEL, LINE, MARGIN
from zfcore.trained import Trained

UNITS = {"conv1": [0, 3], "conv2": [2, 6]}


def changed(edit):
    network = small()
    edit(network)
    return network


def turn_filter_3(network):
    w = network["conv1"].parameters["w"]
    w[..., 3] = w[:, ::-1, ::-1, 3]


def negate_unit_6(network):
    for array in network["conv2"].parameters.values():
        array[..., 6] *= -1


def scale(network):
    for name in ("conv1", "conv2"):
        for array in network[name].parameters.values():
            array *= 2
    network["norm1"].alpha = 0                             # it would answer larger maps by more than a factor
    network["norm1"].k = 1.0


def plain(network):
    network["norm1"].alpha, network["norm1"].k = 0, 1.0


def grown(*networks, data=None, units=UNITS, **options):
    epochs = [10**k for k in range(len(networks))]
    return evolution([Trained(network, MEAN, epoch=epoch) for epoch, network in zip(epochs, networks)],
                     pictures_of(data or Noise()), list(units), units, batch_size=8, **options)


def test_the_strips_are_the_strongest_pictures_projections_of_each_epoch():
    networks = [small(), small(seed=1), small(seed=2)]
    found = grown(*networks)
    assert found.epochs.tolist() == [1, 10, 100] and found.total == COUNT
    for layer, units in UNITS.items():
        assert found.units[layer].tolist() == units
        for e, network in enumerate(networks):
            top = top_activations(Trained(network, MEAN), pictures_of(Noise()), [layer], 1, batch_size=8)
            views = unit_views(Trained(network, MEAN), pictures_of(Noise()), top, layer, units)
            np.testing.assert_array_equal(found.projections[layer][:, e], views.projections[:, 0])
            np.testing.assert_array_equal(found.values[layer][:, e], views.values[:, 0])
            np.testing.assert_array_equal(found.pictures[layer][:, e], views.pictures[:, 0])
            assert found.dead[layer][e] == top.dead(layer).mean()


def test_a_network_that_stays_has_no_change_and_one_drawn_anew_changes_almost_all():
    still, anew = grown(small(), small()), grown(small(), small(seed=1))
    for layer in UNITS:
        assert still.moved[layer].tolist() == [0] and abs(still.change[layer][0]) < 1e-6
        assert anew.moved[layer][0] > 0.8 and anew.change[layer][0] > 0.7
        assert still.change[layer].shape == still.moved[layer].shape == (1,)


def test_one_filter_that_changes_counts_as_one_unit_of_its_layer():
    before, after = small(), changed(turn_filter_3)
    found = grown(before, after)
    top = top_activations(Trained(after, MEAN), pictures_of(Noise()), ["conv1"], 1, batch_size=8)
    one, other = (views_of(Trained(net, MEAN), pictures_of(Noise()), top, "conv1", [3]).projections
                  for net in (before, after))
    distance = 1 - (one*other).sum()/np.sqrt((one**2).sum()*(other**2).sum())
    assert distance > 0.1 and found.change["conv1"][0] == pytest.approx(distance/6, rel=1e-4)
    assert found.moved["conv1"][0] == pytest.approx(1/6)


def test_the_change_of_a_layer_is_the_mean_of_its_units_that_fire():
    found = grown(small(), small(seed=1), small(seed=2))
    for layer in UNITS:
        changes = found.changes[layer]
        assert changes.shape == (2, unit_count(small(), layer))
        np.testing.assert_allclose(found.change[layer], np.nanmean(changes, axis=1))
        np.testing.assert_array_equal(np.isnan(changes).mean(axis=1), found.dead[layer][1:])
    assert grown(small()).changes is None


def test_a_unit_that_did_not_fire_there_has_changed_entirely():
    found = grown(small(), changed(negate_unit_6))                       # conv2 has 7 units, unit 2 never fires
    top = top_activations(Trained(changed(negate_unit_6), MEAN), pictures_of(Noise()), ["conv2"], 1, batch_size=8)
    x = (Noise().pixels[top.pictures["conv2"][6]].transpose(3, 1, 2, 0)[:, 3:-3, 3:-3] - MEAN[:, 3:-3, 3:-3, None])
    assert not project(small(), x.astype(np.float32), "conv2", [6], top.places["conv2"][6]).pixels.any()
    assert found.change["conv2"][0] == pytest.approx(1/6, rel=1e-5)


def test_a_filter_that_turns_into_its_opposite_has_changed_by_two():
    def always_on(network):
        network["conv1"].parameters["b"][3] = 1e4
    def opposite(network):
        always_on(network)
        network["conv1"].parameters["w"][..., 3] *= -1
    found = grown(changed(always_on), changed(opposite), units={"conv1": [3]})
    assert found.change["conv1"][0] == pytest.approx(2/6, rel=1e-5)


def test_a_unit_that_dies_is_not_counted_among_those_that_moved():
    def kill_unit_6(network):
        network["conv2"].parameters["b"][6] = -1e6
    found = grown(small(), changed(kill_unit_6))
    assert found.moved["conv2"][0] == 0 and abs(found.change["conv2"][0]) < 1e-6 and found.dead["conv2"][1] == pytest.approx(2/7)


def test_strength_alone_is_no_change():
    found = grown(changed(plain), changed(scale), units={"conv1": [0]})
    assert found.moved["conv1"][0] == 0 and abs(found.change["conv1"][0]) < 1e-6
    np.testing.assert_allclose(found.values["conv1"][:, 1], 2*found.values["conv1"][:, 0], rtol=1e-5)


@pytest.mark.figures
@pytest.mark.filterwarnings("error")
def test_a_layer_that_never_fires_has_no_number_and_grey_strips(tmp_path):
    def kill(network):
        network["conv2"].parameters["b"][:] = -1e6
    found = grown(small(), changed(kill), units={"conv2": [0, 1]})
    assert np.isnan(found.change["conv2"]).all() and np.isnan(found.moved["conv2"]).all()
    assert found.dead["conv2"].tolist() == [pytest.approx(1/7), 1] and not found.projections["conv2"][:, 1].any()
    assert (found.pictures["conv2"][:, 1] == -1).all() and (found.values["conv2"][:, 1] == 0).all()
    said = draw(found, tmp_path/"evolution.png")
    assert ": conv2 silent" in said and "nan" not in said and "as far from each other" not in said


@pytest.mark.parametrize("one, other", [(1, 0), (1, 1)])
def test_epochs_rise(one, other):
    models = [Trained(small(), MEAN, epoch=epoch) for epoch in (one, other)]
    with pytest.raises(Expected, match=f"^models: expected each of a later epoch than the one before, got epoch {other} after {one}"):
        evolution(models, pictures_of(Noise(32)), ["conv1"], {"conv1": [0]})


def test_one_epoch_has_strips_and_no_steps():
    found = grown(small())
    assert found.projections["conv2"].shape == (2, 1, 17, 17, 3) and found.change["conv2"].shape == (0,)


def test_a_stopped_evolution_goes_on_where_it_was_and_reads_what_is_finished(tmp_path):
    networks, files = [small(), small(seed=1)], {"file_of": lambda model: tmp_path/f"{model.epoch}.h5"}
    with pytest.raises(KeyboardInterrupt):
        grown(*networks, bar=Stopping(8), **files)                       # in the second epoch's pass
    rest, all_of_it = Noise(), Noise()
    found, plain = grown(*networks, data=rest, **files), grown(*networks, data=all_of_it)
    assert len(all_of_it.read) - len(rest.read) == COUNT                 # the first epoch's pass was not repeated
    assert (tmp_path/"1.h5").is_file() and (tmp_path/"10.h5").is_file()
    for name in ("projections", "values", "pictures", "moved", "change", "dead"):
        for layer in UNITS:
            np.testing.assert_array_equal(getattr(found, name)[layer], getattr(plain, name)[layer])
    none = SimpleNamespace(count=0)
    none.update = lambda n: setattr(none, "count", none.count + n)
    grown(*networks, bar=none, **files)
    assert none.count == length(networks[0], Noise(), list(UNITS), 2)


def test_units_that_are_twins_are_as_near_as_no_change_and_others_as_far_as_they_are():
    network = small()
    for array in network["conv2"].parameters.values():
        array[...] = array[..., :1]                                      # each filter the same
    twins, others = grown(network), grown(small())
    assert abs(twins.unrelated["conv2"][0]) < 1e-6 < others.unrelated["conv2"][0]
    top = top_activations(Trained(small(), MEAN), pictures_of(Noise()), ["conv2"], 1, batch_size=8)
    fires = np.flatnonzero(~top.dead("conv2"))
    shown = unit_views(Trained(small(), MEAN), pictures_of(Noise()), top, "conv2", fires).projections.reshape(len(fires), -1)
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    far = np.mean([1 - shown[i] @ shown[i - 1] for i in range(len(fires))])
    assert others.unrelated["conv2"][0] == pytest.approx(far, rel=1e-4)


def test_the_cosine_is_that_of_long_vectors_and_0_with_nothing():
    a = np.array([[3, 0], [1, 1], [0, 0], [1, 2]], np.float32)
    b = np.array([[6, 0], [1, -1], [1, 1], [-2, -4]], np.float32)
    np.testing.assert_allclose(cosine(a, b), [1, 0, 0, -1])


def test_the_kept_epochs_are_found_in_order_and_missing_ones_named(tmp_path):
    with pytest.raises(Expected, match="checkpoints epoch_NNNN.h5, got none; python -m train --keep-epochs"):
        kept_epochs(tmp_path)
    for name in ("epoch_0010.h5", "epoch_0002.h5", "epoch_0001.h5", "best.h5", "epoch_0003.h5.part", "epoch_12345.h5"):
        (tmp_path/name).write_text("")
    assert list(kept_epochs(tmp_path)) == [1, 2, 10, 12345] and kept_epochs(tmp_path)[2] == tmp_path/"epoch_0002.h5"
    assert list(kept_epochs(tmp_path, [10, 1])) == [1, 10]
    with pytest.raises(Expected, match="epochs: expected some of the kept ones, 1, 2, 10, 12345, got 5, 64, not kept"):
        kept_epochs(tmp_path, [1, 5, 64])
    with pytest.raises(Expected, match="a run's folder with kept epochs"):
        kept_epochs(tmp_path/"best.h5")


# ------------------------------------------------------------------------------------------------- the command line
def planted_run(place, *epochs, network=None, pictures=12):
    """PLACE/run with best.h5 and the epochs' checkpoints, each of other weights, and PLACE/data with two classes of noise."""
    (place/"run").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, name in product(("train", "val"), ("bee", "cow")):
        (place/"data"/part/name).mkdir(parents=True)
        for i in range(pictures):
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(place/"data"/part/name/f"{i:02}.png")
    for epoch in (0, *epochs):
        made = network or small(seed=epoch)
        save(place/"run"/(f"epoch_{epoch:04}.h5" if epoch else "best.h5"),
             Checkpoint("small", made.input_shape, made.table(), ["bee", "cow", *"defgh"][:made.shapes[-1][0]],
                        made.parameters(), mean_image=MEAN, epoch=epoch, state={"data": str(place/"data")}))
    return place/"run"


def command(*arguments):
    main([*map(str, arguments), *([] if "redraw" in arguments else ["--device", "cpu", "--workers", "0", "--batch-size", "8"])])


def refused(capsys, *arguments):
    """The one sentence that a command is answered with."""
    with pytest.raises(SystemExit) as left:
        command(*arguments)
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert left.value.code == 2 and said.startswith("error: ")
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return planted_run(tmp_path_factory.mktemp("evolution"), 1, 4, 30)


@pytest.mark.figures
def test_the_command_leaves_arrays_and_a_figure_that_comes_back_from_them_alone(run, tmp_path, capsys):
    command("evolution", "--run", run, "--output", tmp_path, "--layers", "conv1", "conv2", "--units", "0:2")
    assert {p.name for p in tmp_path.iterdir()} == {"evolution.h5", "evolution.png", "strongest_0001.h5", "strongest_0004.h5",
                                                    "strongest_0030.h5"}
    found = results.load(tmp_path/"evolution.h5", Evolution)
    assert found.epochs.tolist() == [1, 4, 30] and found.total == 24 and list(found.units) == ["conv1", "conv2"]
    assert "epoch 4 to 30: conv1 0." in capsys.readouterr().out
    (tmp_path/"moved").mkdir()
    (tmp_path/"evolution.h5").rename(tmp_path/"moved"/"evolution.h5")
    command("redraw", tmp_path/"moved"/"evolution.h5")
    assert (tmp_path/"moved"/"evolution.png").read_bytes() == (tmp_path/"evolution.png").read_bytes()


@pytest.mark.figures
def test_each_tile_of_a_strip_has_its_own_scale_and_below_it_the_strength_beside_the_largest(run, tmp_path):
    command("evolution", "--run", run, "--output", tmp_path, "--layers", "conv1", "--units", "0:2", "--epochs", "1", "30")
    found, sheet = results.load(tmp_path/"evolution.h5", Evolution), np.asarray(Image.open(tmp_path/"evolution.png"))
    strip, values = found.projections["conv1"][1], found.values["conv1"][1]       # (2,5,5,3), each pixel enlarged to 16
    top = MARGIN + LABEL + LINE + 8 + 80 + 7 + 4                                  # of the second unit's tiles
    left = np.flatnonzero((sheet[top:top + 80] != 255).any(axis=2).sum(axis=0) > 60)[0]
    for e in range(2):
        seen = sheet[top:top + 80:16, left + 84*e:left + 84*e + 80:16]
        scale = np.quantile(np.abs(strip[e][strip[e] != 0]), 0.997)
        np.testing.assert_allclose(seen, (127.5 + 127.5*strip[e]/scale).clip(0, 255), atol=0.51)
        dark = (sheet[top + 85, left + 84*e:left + 84*e + 80] < 100).all(axis=1)
        assert dark.sum() == round(80*values[e]/values.max()) and dark[:dark.sum()].all()


def made_up(pictures):
    """An Evolution of three units over two epochs, which fire where `pictures` (3,2) is not -1."""
    projections = np.random.default_rng(0).standard_normal((3, 2, 7, 7, 3)).astype(np.float32)
    values = np.where(np.array(pictures) < 0, 0, 1).astype(np.float32)
    projections *= (values > 0)[..., None, None, None]
    return Evolution(np.array([1, 5]), {"conv2": np.array([4, 6, 9])}, {"conv2": projections},
                     {"conv2": values}, {"conv2": np.array(pictures)}, *({"conv2": np.array([0.5])} for _ in range(2)),
                     {"conv2": np.array([0.1, 0.1])}, 24)


@pytest.mark.figures
def test_a_unit_that_never_fires_has_no_row_and_an_epoch_in_which_it_does_not_is_paper(tmp_path):
    heights = []
    for pictures in ([[1, 2], [3, 4], [5, 6]], [[1, 2], [-1, -1], [5, 6]], [[1, 2], [-1, -1], [-1, 6]], [[-1, -1]]*3):
        plots.save(plots.evolution(made_up(pictures)), tmp_path/"figure.png")
        sheet = np.asarray(Image.open(tmp_path/"figure.png"))
        heights.append((len(sheet), (sheet[:-230, 100:] == 128).all(axis=2).sum()))
    (all_fire, _), (one_dead, _), (one_late, grey), (none, grey_of_none) = heights
    assert all_fire - one_dead == 77 + 7 + 4 and one_late == one_dead and none < one_late - 2*80
    assert grey < 200 and grey_of_none < 20                                      # no tile of nothing but mid-grey


def test_only_some_pictures_of_each_class_are_looked_at_when_that_is_asked(run, tmp_path):
    command("evolution", "--run", run, "--output", tmp_path, "--layers", "conv1", "--units", "0", "--epochs", "4",
            "--limit-per-class", "3")
    found = results.load(tmp_path/"evolution.h5", Evolution)
    assert found.total == 6 and found.epochs.tolist() == [4] and found.pictures["conv1"].max() < 6


@pytest.mark.parametrize("more, sentence", [
    (["--epochs", 1, 2, 3], "--epochs: expected some of the kept ones, 1, 4, 30, got 2, 3, not kept"),
    (["--layers", "conv7"], "--layers: expected one of conv1"), (["--units", "3:99"], "--units: expected 0 to 5, the units of conv1"),
    (["--data", "nowhere"], "nowhere")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(run, tmp_path, capsys, more, sentence):
    assert sentence in refused(capsys, "evolution", "--run", run, "--output", tmp_path/"out", *more)
    assert not (tmp_path/"out").exists()


def test_a_run_without_kept_epochs_a_single_file_an_empty_set_and_a_folder_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path/"bare").mkdir()
    (tmp_path/"bare"/"best.h5").write_bytes((run/"best.h5").read_bytes())
    assert "got none; python -m train --keep-epochs" in refused(capsys, "evolution", "--run", tmp_path/"bare")
    assert "a run's folder" in refused(capsys, "evolution", "--run", run/"epoch_0004.h5")
    assert "python -m train.reference drawn trains one" in refused(capsys, "evolution", "--run", "drawn")
    (tmp_path/"file").write_text("")
    assert "--output: expected a place where a folder can be made" in refused(capsys, "evolution", "--run", run, "--output",
                                                                              tmp_path/"file")
    for part in ("train", "val"):
        (tmp_path/"none"/part/"bee").mkdir(parents=True)
    assert "none" in refused(capsys, "evolution", "--run", run, "--data", tmp_path/"none", "--output", tmp_path/"out")
    assert not (tmp_path/"out").exists()
    assert "a result that a command draws" in refused(capsys, "redraw", _other_result(tmp_path))


def _other_result(folder):
    found = top_activations(Trained(small(), MEAN), pictures_of(Noise()), ["conv1"], 1, batch_size=8)
    results.save(folder/"other.h5", found)
    return folder/"other.h5"
