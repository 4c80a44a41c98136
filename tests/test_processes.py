"""What goes from one process to another, or is copied, arrives as it was: sentences, networks, pictures."""
import copy
import inspect
import pickle
import pkgutil
import tarfile
from concurrent.futures import ProcessPoolExecutor
from http import HTTPStatus
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfcore
from train.pack import main as pack
from zfcore.backend import CPU
from zfcore.data.loader import Pictures
from zfcore.training import Training, resolve

ROOT = Path(__file__).parents[1]
VALUES = {str: "some words", int: 15, bool: False, object: Path("a/b"), HTTPStatus: HTTPStatus.NOT_FOUND}


def sent(thing):
    """`thing` as it arrives in another process."""
    return pickle.loads(pickle.dumps(thing))


def exceptions():
    """All classes of exceptions that zfcore, train and bench have."""
    found = set()
    for package in ("zfcore", "train", "bench"):
        for _, name, _ in pkgutil.walk_packages([str(ROOT/package)], f"{package}."):
            if not name.endswith("__main__"):
                found |= {kind for kind in vars(import_module(name)).values() if inspect.isclass(kind)
                          and issubclass(kind, BaseException) and kind.__module__.split(".")[0] == package}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def made(kind):
    """An exception of this class, with an argument for each that its `__init__` has."""
    if "__init__" not in (name for base in kind.__mro__ for name in vars(base) if base.__module__ != "builtins"):
        return kind(7, "some words")
    return kind(*(VALUES[parameter.annotation] for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]))


@pytest.mark.parametrize("through", [sent, copy.copy, copy.deepcopy])
def test_every_exception_arrives_as_it_was(through):
    tried = exceptions()
    for kind in tried:
        before = made(kind)
        after = through(before)
        assert type(after) is kind and str(after) == str(before) and after.args == before.args and vars(after) == vars(before)
    assert {"Expected", "Failed", "Busy", "Lost", "TooSmall", "CorruptImage", "Stop", "Ended"} <= {kind.__name__ for kind in tried}


def test_a_sentence_reaches_the_caller_of_a_pool():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.raises(zfcore.Expected, match="expected a run's folder, .* got nix, which does not exist"):
            pool.submit(zfcore.open, "nix").result(timeout=60)


# ------------------------------------------------------------------------------------------------- networks, pictures
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training that has made one step, in its folder."""
    options = resolve({"preset": "tiny", "image_size": 32, "limit_per_class": 3, "epochs": 1, "batch_size": 10})
    training = Training.begin(options, tmp_path_factory.mktemp("runs")/"run")
    training.run()
    return training


@pytest.mark.parametrize("through", [sent, copy.copy, copy.deepcopy])
def test_a_training_arrives_and_takes_the_same_steps(through, run):
    one, other = copy.deepcopy(run), through(copy.deepcopy(run))
    for each in (one, other):
        each.one_step(*next(run.train.batches(10, 0, 0)))
    assert other.captured.__self__ is other and other.trained.history == run.trained.history and run.trained.history
    for mine, its in zip(arrays(one.network), arrays(other.network), strict=True):
        np.testing.assert_array_equal(mine, its)


def arrays(network):
    return [array for of in (network.parameters(), network.buffers()) for layer in of.values() for array in layer.values()]


@pytest.mark.parametrize("of", [lambda run: zfcore.open("drawn"), lambda run: zfcore.open(run.folder), lambda run: run.trained])
@pytest.mark.parametrize("through", [sent, copy.copy, copy.deepcopy])
def test_a_trained_network_arrives_with_all_that_it_takes_to_use_it(of, through, run):
    before = of(run)
    after = through(before)
    assert len(pickle.dumps(before)) < 1.1*sum(array.nbytes for array in [*arrays(before.network), before.mean]) + 2**18
    assert repr(after) == repr(before) and after.device is CPU and after.history == before.history
    for one, other in ((before.network, after.network), (before.start, after.start)):
        assert one.table() == other.table()
        for mine, its in zip(arrays(one), arrays(other), strict=True):
            np.testing.assert_array_equal(mine, its)
    images = np.random.default_rng(0).integers(0, 256, (2, before.size, before.size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(before.probabilities(images), after.probabilities(images))


def asked(model, images):
    return model.probabilities(images)


def test_a_pool_of_processes_asks_a_network(run):
    model, images = zfcore.open(run.folder), np.zeros((1, 38, 38, 3), np.uint8)[:, :run.trained.size, :run.trained.size]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(asked, model, images).result(timeout=60), model.probabilities(images))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Data of every kind that is read from files, by name."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, name, k in product(("train", "val"), "ab", range(3)):
        (root/"folders"/part/name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root/"folders"/part/name/f"{k}.png")
    (root/"tars").mkdir()
    for part in ("train", "val"):
        with tarfile.open(root/"tars"/f"{part}.tar", "w") as tar:
            tar.add(root/"folders"/part, ".")
    pack([str(root/"folders"), str(root/"packed.h5"), "--size", "36"])
    return {"drawn": "drawn:objects", "folders": str(root/"folders"), "tars": str(root/"tars"), "packed": str(root/"packed.h5")}


@pytest.mark.parametrize("kind", ["drawn", "folders", "tars", "packed"])
@pytest.mark.parametrize("through", [sent, copy.copy, copy.deepcopy])
def test_pictures_of_any_kind_arrive_without_those_in_memory(kind, through, places):
    before = Pictures(zfcore.open_data(places[kind], 36)[1], 36, 32)
    pixels = [before.picture(i) for i in (0, 2)]
    before.leave_out({1: "torn"}, aloud=False)
    after = through(before)
    del before
    assert after.damaged == {1: "torn"} and not after._is_kept.any()
    for one, i in zip(pixels, (0, 2)):
        np.testing.assert_array_equal(one, after.picture(i))
