"""What is wrong with the first layers: planted filters, gratings and dead units are found, and nothing where there is
nothing."""
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.analysis.test_evolution import command, planted_run, refused
from tests.analysis.test_top_activations import COUNT, CROP, MEAN, SIZE, Noise, Stopping, pictures_of, small
from zfcore import plots, results
from zfcore.commands.common import names_of
from zfcore.commands.diagnostics import in_words
from zfcore.analysis.diagnostics import (EDGES, HIGH, JUDGED, LOW, Diagnosis, aliasing, diagnose, first_two, judged_layers,
                                         length, power_spectrum, radial_shares, radius, rectified)
from zfcore.analysis.occlusion import occlusion
from zfcore.analysis.top_activations import top_activations, unit_views
from zfcore.check import Expected
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic
from zfcore.layers import Conv, Flatten, Linear, ReLU
from zfcore.network import Network
from zfcore.trained import Trained


def diagnosed(network=None, data=None, units=(2, 4), **options):
    return diagnose(Trained(network or small(), MEAN), pictures_of(data or Noise()), list(units), name="small", k=3,
                    batch_size=8, **options)


def measured(projections, stride):
    return aliasing(power_spectrum(projections.astype(np.float32), stride), stride, projections.shape[1])


def grating(f, *waves, n=1):
    """(n,f,f,3) of cos(2 pi (a h + b w)) over the waves (a, b)."""
    h, w = np.mgrid[:f, :f]
    picture = sum(np.cos(2*np.pi*(a*h + b*w)) for a, b in waves)
    return np.broadcast_to(picture[None, :, :, None], (n, f, f, 3))


def noise(f, n=40, seed=0):
    return np.random.default_rng(seed).standard_normal((n, f, f, 3))


# ------------------------------------------------------------------------------------- the start, what can be read
def test_of_the_drawn_set_every_layer_above_a_pool_is_judged_beside_its_controls():
    pictures, start = Pictures(Synthetic("val", 12, SIZE), SIZE, CROP, workers=0), small(seed=4)
    mean = np.full((3, SIZE, SIZE), 127, np.float32)
    found, alone = (diagnose(Trained(small(), mean, begun=begun), pictures, [2], name="small", k=2, batch_size=8)
                    for begun in (lambda: start, None))
    assert judged_layers(small()) == ["conv2", "fc6", "fc8"]
    # one picture excites all classes of `small`
    assert list(found.legible) == list(found.areas) == ["conv2", "fc6"]
    for layer, (box, parts) in found.areas.items():
        assert found.legible[layer].shape == (len(JUDGED), 2) and ((found.legible[layer] >= 0)
                                                                   & (found.legible[layer] <= 1)).all()
        assert 0 < parts < box < 1
        np.testing.assert_array_equal(found.legible[layer][:2], alone.legible[layer][:2])               # the units are the same
        assert np.isnan(alone.legible[layer][2:]).all()                                                 # no such control
    assert alone.start == {} and list(found.start) == ["conv1", "conv2", "fc6", "fc8"]
    assert diagnosed().legible == {} == diagnosed().areas                                               # nobody knows the boxes
    itself = diagnose(Trained(small(), mean, begun=small), pictures, [2], name="small", k=2, batch_size=8)
    np.testing.assert_allclose(itself.legible["conv2"][[2, 3]], itself.legible["conv2"][[0, 0]], rtol=1e-6)
    assert all(share[0] == pytest.approx(1) for share in itself.start.values())


# ---------------------------------------------------------------------------------------------- filters of layer 1
def test_dominance_is_the_largest_rms_over_the_median():
    network = small()
    w = network["conv1"].parameters["w"]
    w /= np.sqrt((w**2).mean(axis=(0, 1, 2)))
    w[..., 4] *= 9
    found = diagnosed(network)
    assert found.dominance == pytest.approx(9) and found.rms == pytest.approx([1, 1, 1, 1, 9, 1])
    np.testing.assert_array_equal(found.filters, w)


@pytest.mark.figures
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alive, scale, words", [(6, 1, "9.00"), (6, 1e-9, "9.00"), (3, 1, "18.00"),
                                                 (2, 1, "infinite, most filters are 0"), (0, 1, "none, all filters are 0")])
def test_dominance_and_energy_are_said_so_that_they_can_be_read_however_many_filters_are_0(alive, scale, words):
    network = small()
    w = network["conv1"].parameters["w"]
    w *= scale/np.sqrt((w**2).mean(axis=(0, 1, 2)))
    w[..., 0] *= 9
    w[..., alive:] = 0                                                    # of six: with three alive the median is 1/2
    found = diagnosed(network)
    assert (np.isfinite(found.dominance), np.isnan(found.dominance)) == (alive > 2, not alive)
    said = in_words(found)
    assert f"filter RMS max/median {words}; energy of layer 1 {'low' if alive else 'none'}" in said and "nan" not in said
    assert len(said) < 300 and plots.diagnostics([found]).image()


def test_a_single_weight_has_all_frequencies_alike():
    w = np.zeros((3, 7, 7, 2), np.float32)
    w[1, 2, 5, 0] = -3
    shares = radial_shares(w)
    disc = np.pi*EDGES**2
    assert shares[0, :10] == pytest.approx(np.diff(disc)[:10], abs=0.004) and shares[0].sum() == pytest.approx(1)
    assert np.isnan(shares[1]).all()                                      # a filter of 0 has no spectrum


@pytest.mark.parametrize("frequency, band", [(0.0, (0, LOW)), (0.17, (LOW, HIGH)), (0.4, (HIGH, 1))])
@pytest.mark.parametrize("turned", [False, True])
def test_a_filter_with_one_frequency_has_its_energy_in_that_band_whatever_its_direction(frequency, band, turned):
    K = 25
    h, w = np.mgrid[:K, :K] - K//2
    wave = np.cos(2*np.pi*frequency*((h + w)/np.sqrt(2) if turned else w))*np.exp(-(h**2 + w**2)/2/7**2)
    shares = radial_shares(np.broadcast_to(wave[None, :, :, None], (3, K, K, 1)))[0]
    low, high = band
    assert shares[(EDGES[:-1] >= low - 1e-9) & (EDGES[:-1] < high - 1e-9)].sum() > 0.97


def test_the_bands_share_all_energy_and_every_filter_weighs_the_same():
    network = small()
    plain = diagnosed(network)
    network["conv1"].parameters["w"][..., 0] *= 100
    loud = diagnosed(network)
    assert sum(plain.bands().values()) == pytest.approx(1) and plain.bands() == pytest.approx(loud.bands())
    assert plain.bands()["high"] > plain.bands()["mid"] > plain.bands()["low"] > 0         # weights drawn at random are white
    assert list(plain.bands()) == ["low", "mid", "high"]
    np.testing.assert_allclose(list(plain.bands().values()), np.pi*np.array([0.01, 0.0525, 1/np.pi - 0.0625]), atol=0.05)


# ---------------------------------------------------------------------------------------------------- dead units
def test_dead_units_are_those_that_no_picture_makes_fire_and_classes_are_not_asked():
    network = small()
    network["fc6"].parameters["b"][[0, 7, 8]] = -1e6
    found = diagnosed(network)
    assert list(found.dead) == rectified(network) == ["conv1", "conv2", "fc6"] and found.total == COUNT
    assert not found.dead["conv1"].any() and np.flatnonzero(found.dead["conv2"]).tolist() == [2]
    assert np.flatnonzero(found.dead["fc6"]).tolist() == [0, 7, 8]


# ------------------------------------------------------------------------------------------------------ aliasing
@pytest.mark.parametrize("stride, f", [(2, 27), (3, 40), (4, 51)])
def test_white_noise_has_no_aliasing_and_a_grating_of_the_grids_period_nothing_else(stride, f):
    assert abs(measured(noise(f), stride)) < 0.05
    for wave in ((0, 1/stride), (1/stride, 0), (1/stride, 1/stride)):
        assert measured(grating(f, wave), stride) > 0.93


def test_harmonics_of_the_grid_count_and_gratings_off_it_do_not():
    assert measured(grating(51, (0.5, 0.25), (0, 0.5)), 4) > 0.93
    for wave in ((0, 0.125), (0.125, 0.125), (0.25, 0.125), (0, 0.375), (0, 0)):
        # in the ring around a line it counts a little less than 0
        assert -0.15 < measured(grating(51, wave), 4) < 0.02


def test_a_planted_share_is_found_again():
    f, n = 51, 60
    white, comb = noise(f, n), grating(f, (0, 0.25), n=n)
    for share in (0.1, 0.4):
        mixed = np.sqrt(1 - share)*white + np.sqrt(share/0.5)*comb        # a cosine's mean square is 1/2
        assert measured(mixed, 4) == pytest.approx(share, abs=0.05)


def test_a_smooth_spectrum_that_falls_as_those_of_pictures_do_has_no_aliasing():
    f = 51
    white = np.fft.fft2(noise(128, 60), axes=(1, 2))
    pink = np.fft.ifft2(white/(radius(128) + 0.02)[..., None], axes=(1, 2)).real[:, :f, :f]
    for stride in (2, 4):
        assert abs(measured(pink, stride)) < 0.04


def test_filters_laid_at_every_fourth_pixel_alias_and_the_same_at_every_pixel_do_not():
    rng, f = np.random.default_rng(0), 51
    blob = rng.standard_normal((11, 11, 3))
    def laid(step):
        canvas = np.zeros((20, f + 30, f + 30, 3))
        for n, h, w in np.ndindex(20, (f + 15)//step, (f + 15)//step):
            strength = np.exp(-((h*step - 33)**2 + (w*step - 33)**2)/2/12**2)
            canvas[n, h*step:h*step + 11, w*step:w*step + 11] += strength*blob
        return canvas[:, 10:10 + f, 10:10 + f]
    assert measured(laid(4), 4) > 0.3 and abs(measured(laid(1), 4)) < 0.05


def test_what_cannot_be_measured_is_no_number():
    assert np.isnan(measured(noise(27), 1)) and np.isnan(measured(noise(17), 4)) and np.isnan(measured(np.zeros((0, 27, 27, 3)), 2))
    assert np.isfinite(measured(noise(17), 2))


def test_every_projection_weighs_the_same():
    quiet, loud = grating(51, (0, 0.25)), 100*grating(51, (0, 0.125))
    both = power_spectrum(np.concatenate([quiet, loud]), 4)
    assert aliasing(both, 4, 51) == pytest.approx(0.5, abs=0.05)


def test_the_aliasing_of_a_network_is_that_of_all_its_layer_2_projections_and_the_views_those_of_the_units_asked_for():
    found = diagnosed()
    top = top_activations(Trained(small(), MEAN), pictures_of(Noise()), ["conv2"], 3, batch_size=8)
    views = unit_views(Trained(small(), MEAN), pictures_of(Noise()), top, "conv2", range(7))
    assert found.aliasing == pytest.approx(measured(views.projections[views.pictures >= 0], 2), rel=1e-6)
    assert found.measured == 6 and found.stride == 2 and found.layer == "conv2"
    np.testing.assert_allclose(found.projections, views.projections[[2, 4]], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.patches, views.patches[[2, 4]])


# ------------------------------------------------------------------------------------------------- the whole of it
def test_a_stopped_diagnosis_goes_on_and_its_bar_reaches_the_end(tmp_path):
    file, moved = tmp_path/"top.h5", []
    diagnosed(file=file)
    none, bar = Noise(), Stopping(1000)
    bar.update = moved.append
    diagnosed(data=none, file=file, bar=bar)
    assert sum(moved) == length(small(), none, 3) and len(none.read) < COUNT


def test_a_network_without_pools_is_measured_and_one_without_two_convolutions_is_refused():
    plain = Network("plain", (3, CROP, CROP), [Conv("conv1", 4, K=5, S=2), ReLU("relu1"), Conv("conv2", 5, K=3), ReLU("relu2")])
    assert diagnosed(plain.init(0, "he")).measured > 0
    flat = Network("flat", (3, CROP, CROP), [Conv("conv1", 4, K=5), ReLU("relu1"), Flatten("flatten"), Linear("fc8", 2)])
    with pytest.raises(Expected, match="layers 1 and 2 are convolutions, got 1 convolutions"):
        first_two(flat.init(0, "he"))


def test_filters_that_do_not_see_all_colours_are_refused():
    grouped = Network("grouped", (3, CROP, CROP), [Conv("conv1", 6, K=5, S=2, groups=3), ReLU("relu1"), Conv("conv2", 5, K=3)])
    with pytest.raises(Expected, match=r"grouped: conv1: expected filters that see all three colours, .*, got filters \(1, 5, 5, 6\)"):
        diagnosed(grouped.init(0, "he"))


class Own(Conv):
    """Tells its fields to zfcore.layers alone, as the fields of a kind that one writes oneself have other names."""
    def __getattribute__(self, name):
        if name in ("F", "K", "S", "P", "groups", "rounding") and sys._getframe(1).f_globals["__name__"] != "zfcore.layers":
            raise AttributeError(f"{name} is asked of a layer")
        return super().__getattribute__(name)


def test_convolutions_of_ones_own_are_diagnosed_and_shown_as_any():
    plain, own = (Network("same", (3, CROP, CROP), [kind("conv1", 4, 5, 2), ReLU("relu1"), kind("conv2", 5, 3), ReLU("relu2"),
                                                    Flatten("flat"), Linear("fc3", 3)]).init(0, "he") for kind in (Conv, Own))
    for name in ("filters", "spectrum", "projections", "stride", "aliasing"):
        np.testing.assert_array_equal(getattr(diagnosed(own), name), getattr(diagnosed(plain), name))
    top = top_activations(Trained(own, MEAN), pictures_of(Noise()), ["conv1"], k=2)
    assert unit_views(Trained(own, MEAN), pictures_of(Noise()), top, "conv1", [1]).filters.shape == (1, 5, 5, 3)
    occlusion(Trained(own, MEAN), Noise().pixels[:1], [0], size=10, stride=10)
    assert length(own, pictures_of(Noise()), 3) == COUNT + 15 and "conv1" in own.summary()


# ------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return planted_run(tmp_path_factory.mktemp("diagnostics"), 7)


def test_one_run_is_diagnosed_and_drawn_again_from_its_arrays(run, tmp_path, capsys):
    command("diagnostics", "--run", run, "--output", tmp_path, "--units", "0:3", "--k", "4")
    assert {p.name for p in tmp_path.iterdir()} == {"diagnostics.h5", "diagnostics.png", "strongest.h5"}
    found = results.load(tmp_path/"diagnostics.h5", Diagnosis)
    assert found.name == "small" and found.total == 24 and found.projections.shape == (3, 4, 17, 17, 3)
    said = capsys.readouterr().out
    assert f"small: filter RMS max/median {found.dominance:.2f}" in said and f"conv2 {found.dead['conv2'].sum()} of 7" in said
    before = (tmp_path/"diagnostics.png").read_bytes()
    (tmp_path/"diagnostics.png").unlink()
    command("redraw", tmp_path/"diagnostics.h5")
    assert (tmp_path/"diagnostics.png").read_bytes() == before


def test_networks_are_called_by_model_and_two_of_one_model_by_what_tells_them_apart(run, tmp_path):
    first, second = tmp_path/"first", tmp_path/"second"
    for folder, options in ((first, {"model": "small", "rms_max": 0.0, "lr": 0.1, "workers": 1}),
                            (second, {"model": "small", "rms_max": 0.03, "lr": 0.1, "workers": 2})):
        folder.mkdir()
        (folder/"config.json").write_text(json.dumps({"options": options}))
        (folder/"best.h5").touch()
    one, other = small(), Network("large", (3, CROP, CROP), small().layers)

    def called(*models):
        return names_of([Trained(network, MEAN, epoch=epoch, path=path) for network, path, epoch in models])

    assert called((one, first, 3)) == ["small"] and called((one, first, 3), (other, second, 3)) == ["small", "large"]
    assert called((one, first, 3), (one, second/"best.h5", 3)) == ["small, rms-max 0.0", "small, rms-max 0.03"]
    assert called((one, "drawn", 3), (one, second, 3))[0] == "small, model tiny, lr 0.003"          # as its card tells
    assert called((one, first, 3), (one, first/"epoch_0009.h5", 9)) == ["small, epoch 3", "small, epoch 9"]
    assert called((one, first, 3), (one, run, 3)) == ["small, the first", "small, the second"]             # no config.json
    for folder, told in ((first, {"data": "", "init_from": ""}), (second, {"data": "a\nb", "init_from": "c"})):
        (folder/"config.json").write_text(json.dumps({"options": told}))
    assert called((one, first, 3), (one, second, 3)) == ["small, data drawn:objects, init-from none",
                                                         r"small, data a\nb, init-from c"]
    (second/"config.json").write_text("[1")
    assert called((one, first, 3), (one, second, 9)) == ["small, epoch 3", "small, epoch 9"]


@pytest.mark.figures
def test_two_runs_are_set_side_by_side_in_the_order_given(run, tmp_path, capsys):
    command("diagnostics", "--run", run/"epoch_0007.h5", "--run", run, "--output", tmp_path, "--units", "0", "--k", "2")
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}_{k}.h5" for name in ("strongest", "diagnostics")
                                                    for k in (1, 2)} | {
        "diagnostics.png"}
    one, other = (results.load(tmp_path/f"diagnostics_{k}.h5", Diagnosis) for k in (1, 2))
    assert (one.name, other.name) == ("small, epoch 7", "small, epoch 0") and (one.filters != other.filters).any()
    both = Image.open(tmp_path/"diagnostics.png").height
    command("redraw", tmp_path/"diagnostics_1.h5")
    assert Image.open(tmp_path/"diagnostics.png").height < both


@pytest.mark.parametrize("more, sentence", [
    (["--units", "0:99"], "--units: expected 0 to 6, the units of conv2"),
    (["--units", "3,0,3"], "--units: expected different numbers, got '3' 2 times"),
    (["--run", "no/such"], "which does not exist"), (["--data", "nowhere"], "nowhere"),
    (["--output", __file__], "--output: expected a place where a folder can be made")])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(run, tmp_path, capsys, more, sentence):
    assert sentence in refused(capsys, "diagnostics", "--run", run, "--output", tmp_path/"out", *more)
    assert not (tmp_path/"out").exists() or not any((tmp_path/"out").iterdir())


def test_no_run_three_runs_a_network_with_one_convolution_and_an_empty_set_are_one_sentence(run, tmp_path, capsys):
    assert "--run: expected" in refused(capsys, "diagnostics")
    assert "one run, or two to compare, got 3" in refused(capsys, "diagnostics", *["--run", run]*3)
    assert "--run: expected different networks, got" in refused(capsys, "diagnostics", "--run", run, "--run", run/"best.h5")
    flat = Network("flat", (3, CROP, CROP), [Conv("conv1", 4, K=5), ReLU("relu1"), Flatten("flatten"), Linear("fc8", 2)])
    lone = planted_run(tmp_path/"flat", network=flat.init(0, "he"), pictures=1)
    assert "layers 1 and 2 are convolutions" in refused(capsys, "diagnostics", "--run", lone)
    for part in ("train", "val"):
        (tmp_path/"none"/part/"bee").mkdir(parents=True)
    assert "none" in refused(capsys, "diagnostics", "--run", run, "--data", tmp_path/"none")
