"""Every analysis on a GPU finds what it finds on the CPU, where all of them are tested."""
import dataclasses
from functools import cache

import numpy as np
import pytest

from tests.analysis.test_correspondence import toys
from zfcore.analysis import diagnostics
from zfcore.analysis.correspondence import correspondence
from zfcore.analysis.diagnostics import diagnose
from zfcore.analysis.evolution import evolution
from zfcore.analysis.invariance import Series, invariance
from zfcore.analysis.matching import matching
from zfcore.analysis.occlusion import occlusion
from zfcore.analysis.sanity_checks import sanity_checks
from zfcore.analysis.top_activations import top_activations, unit_views
from zfcore.atlas.look import look
from zfcore.backend import BF16, CPU, to_host
from zfcore.data.loader import Pictures
from zfcore.data.synthetic import Synthetic
from zfcore.deconvnet import DECONVNET, GRADIENT, GUIDED, project
from zfcore.layers import Conv, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.trained import Trained
from zfcore.training.evaluation import evaluate
from train.features import features_of

SIZE, CROP, COUNT = 37, 31, 13
CLASSES = Synthetic("val", 1, SIZE).classes


def network(seed=0):
    made = Network("small", (3, CROP, CROP), [
        Conv("conv1", 6, K=5, S=2, P=1), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1"),
        Conv("conv2", 7, K=3, P=1), ReLU("relu2"), MaxPool("pool2", K=3, S=2),
        Flatten("flatten"), Linear("fc6", 9), ReLU("relu6"), Dropout("drop6"), Linear("fc8", len(CLASSES))])
    return made.init(seed, "he")


def model_on(device, seed=0, precision="fp32"):
    there = lambda seed: (lambda made: made.load(made.parameters(), device).use(precision))(network(seed))
    mean = np.random.default_rng(9).uniform(100, 150, (3, SIZE, SIZE)).astype(np.float32)
    return Trained(there(seed), device.array(mean), CLASSES, epoch=seed + 1, begun=lambda: there(5), device=device)


@cache
def drawn(count):
    """Pictures that are drawn once, which takes longer than to look at them."""
    data = Synthetic("val", count, SIZE)
    data.picture = cache(data.picture)
    return data


def pictures(count=COUNT):
    return Pictures(drawn(count), SIZE, CROP, workers=0, memory=0)


def images(n):
    return np.random.default_rng(4).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def close(got, wanted, where="found"):
    """Whether all numbers of two results are the same, to the rounding of float32."""
    if dataclasses.is_dataclass(wanted):
        for field in dataclasses.fields(wanted):
            if field.name != "fingerprint":                       # of a pass, which says with what precision
                close(getattr(got, field.name), getattr(wanted, field.name), f"{where}.{field.name}")
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted), where
        for key in wanted:
            close(got[key], wanted[key], f"{where}[{key!r}]")
    elif isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted), where
        for k, (one, other) in enumerate(zip(got, wanted)):
            close(one, other, f"{where}[{k}]")
    elif isinstance(wanted, (float, np.floating)) or getattr(getattr(wanted, "dtype", None), "kind", "") == "f":
        scale = np.nanmax(np.abs(wanted), initial=0) if np.size(wanted) else 0
        np.testing.assert_allclose(to_host(got), wanted, rtol=1e-3, atol=1e-4*scale, err_msg=where)
    elif isinstance(wanted, np.ndarray):
        np.testing.assert_array_equal(got, wanted, where)
    else:
        assert got == wanted, where


def the_pass(model, layers=("conv1", "conv2", "fc6", "fc8"), k=3):
    return top_activations(model, pictures(), list(layers), k, batch_size=8)


def views(model):
    return unit_views(model, pictures(), the_pass(model, ["conv2"]), "conv2", [0, 3, 6], batch_size=5)


def projections(model):
    x = model.inputs(images(3))
    return [(lambda found: (to_host(found.pixels), to_host(found.values), found.places))(project(
        model.network, x, layer, [4, 0, 2], whole_map=whole, rules=rules))
        for layer, whole, rules in (("conv2", False, DECONVNET), ("conv1", True, GRADIENT), ("fc6", False, GUIDED))]


def hidden(model):
    return [occlusion(model, images(2), layer="conv2", size=9, stride=8, batch_size=7, incremental=incremental)
            for incremental in (True, False)]


def moved(model):
    one, none = np.ones(3), np.zeros(3)
    series = {"shift": Series(np.arange(3.), np.array([0, 2.5, -3]), one*1.2, none, 0, np.arange(3)),
              "turn": Series(np.arange(3.), none, one, np.array([-20., 0, 35]), 1, np.arange(3))}
    return invariance(model, list(images(2)), series=series, batch_size=6)


def corresponding(model):
    shown, places = toys(4)
    return correspondence(model, np.resize(shown, (4, CROP, CROP, 3)), places, ["red", "none"], layers=["conv2", "fc6"],
                          random=2, permutations=19, side=6, batch_size=9)


def beside(model):
    """Another network that computes as this one does."""
    return model_on(model.device, 1, model.network.weighted[0].precision)


def grown(model):
    later = dataclasses.replace(beside(model), epoch=model.epoch + 1)
    return evolution([model, later], pictures(), ["conv1", "conv2"], {"conv1": [0, 4], "conv2": [6]}, batch_size=8)


def checked(model):
    return sanity_checks(model, pictures(), the_pass(model, ["conv2"], 2), "conv2", [1, 5], batch_size=7)


def matched(model):
    return matching(model, pictures(), beside(model), pictures(), ["conv1", "fc6"], batch_size=8)


def diagnosed(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnostics, "LOOKED_AT", 3)
        return diagnose(model, pictures(), [2, 4], name="small", k=2, batch_size=8)


WORK = {"top activations": the_pass, "views": views, "projections": projections, "occlusion": hidden, "invariance": moved,
        "correspondence": corresponding, "evolution": grown, "sanity checks": checked, "matching": matched,
        "diagnostics": diagnosed,
        "a look": lambda model: look(model, images(1)[0], ["conv2", "fc8"], stride=12, most=3),
        "evaluation": lambda model: [evaluate([model], pictures(7), 4, crops) for crops in ("centre", "ten")]}


@cache
def on_the_cpu(work):
    return work(model_on(CPU))


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_what_is_found_on_a_gpu_is_what_is_found_on_the_cpu(gpu, work):
    close(work(model_on(gpu)), on_the_cpu(work))


def numbers(found):
    """All arrays and numbers of a result, as host arrays in order."""
    if dataclasses.is_dataclass(found):
        return [one for field in dataclasses.fields(found) for one in numbers(getattr(found, field.name))]
    if isinstance(found, dict):
        return [one for value in found.values() for one in numbers(value)]
    if isinstance(found, (list, tuple)):
        return [one for value in found for one in numbers(value)]
    return [] if found is None or isinstance(found, str) else [to_host(found)]


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_in_bf16_everything_finds_numbers_as_large_as_those_of_the_cpu_and_none_as_it_is_stored(gpu, work):
    """Which unit or picture is strongest may hang on the last bit; bits that are taken for numbers are thousands."""
    got, wanted = numbers(work(model_on(gpu, precision="bf16"))), numbers(on_the_cpu(work))
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype != BF16 and one.ndim == other.ndim
        if one.dtype.kind == "f" and one.size and np.isfinite(other).any():
            largest, there = np.nanmax(np.abs(one)), np.nanmax(np.abs(other[np.isfinite(other)]))
            assert np.isfinite(largest) and largest <= 2*there + 0.5 and there <= 2*largest + 0.5


def test_the_features_for_transfer_are_those_of_the_cpu(gpu, tmp_path):
    there, here = (features_of(model_on(device), pictures(), ["norm1", "relu6"], tmp_path/device.name) for device in (gpu, CPU))
    for layer, features in here.items():
        close(there[layer][:, :], features[:, :], layer)
        np.testing.assert_array_equal(there[layer].pictures, features.pictures)
