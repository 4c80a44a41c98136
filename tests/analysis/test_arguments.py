"""What is no argument of an analysis is refused by `Expected`, whichever analysis and whichever argument; what says the same in
other words is taken and gives the same numbers."""
import inspect
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import cache
from numbers import Integral

import numpy as np
import pytest

import zfcore
from tests.analysis.test_top_activations import MEAN, SIZE, Noise, pictures_of, small
from zfcore import check
from zfcore.analysis.invariance import Series
from zfcore.atlas.look import look, projected
from zfcore.backend import CPU
from zfcore.check import Expected
from zfcore.data.transforms import decode, square
from zfcore.data.voc import write_results
from zfcore.layers import AvgPool, Conv, Dropout, Layer, ReLU
from zfcore.network import Network
from zfcore.trained import Trained
from zfcore.training import evaluation

CROP, N = 33, 4


def scales():
    return {"scale": Series(np.array([1, 1.5]), np.zeros(2), np.array([1, 1.5]), np.zeros(2), 0, np.array([0, 1]))}


def arguments():
    """{name: arguments that are right} of every analysis that is public."""
    model, pictures = Trained(small(), MEAN, begun=lambda: small(1)), pictures_of(Noise(12 + 20))
    images = np.stack([pictures.picture(i) for i in range(N)])
    top = zfcore.top_activations(model, pictures, ["conv2", "fc6"], 2, batch_size=8)
    rows, of = np.arange(9), {"model": model, "pictures": pictures}
    return {
        "top_activations": {**of, "layers": ["conv1", "fc6"], "k": 2, "batch_size": 8, "shard": (1, 1), "every": 60.0},
        "unit_views": {**of, "top": top, "layer": "conv2", "units": [0, 3], "batch_size": 4, "rules": zfcore.GUIDED},
        "sanity_checks": {**of, "top": top, "layer": "conv2", "units": [0], "seed": 1, "batch_size": 4, "only": ["another unit"]},
        "evolution": {"models": [model], "pictures": pictures, "layers": ["conv1"], "units": {"conv1": [0]}, "batch_size": 8},
        "diagnose": {**of, "units": [0], "k": 1, "batch_size": 16, "name": "small"},
        "matching": {**of, "other": model, "others": pictures, "layers": ["conv1"], "batch_size": 8},
        "invariance": {"model": model, "pictures": images[:2], "labels": [0, 1], "layers": ["conv1"], "series": scales(),
                       "batch_size": 2},
        "occlusion": {"model": model, "pictures": images[:1], "labels": [0], "layer": "conv2", "size": 9, "stride": 12, "grey": 90,
                      "criterion": "max", "batch_size": 5, "incremental": True},
        "correspondence": {"model": model, "pictures": images[:, 3:-3, 3:-3], "places": np.full((N, 2, 2), 12), "parts": ["a", "b"],
                           "layers": ["conv1"], "random": 2, "permutations": 9, "grey": 90, "side": 9, "seed": 1, "batch_size": 8,
                           "names": ["1", "2", "3", "4"]},
        "project": {"network": model.network, "x": model.inputs(images), "layer": "conv2", "units": [0, 1, 3, 4],
                    "places": [[1, 2], [0, 0], [3, 1], [2, 2]], "whole_map": False, "rules": zfcore.DECONVNET, "start": 2.0},
        "probe": {"kind": "svm", "features": np.random.default_rng(0).random((9, 5)), "train": rows[:6], "labels": rows[:6] % 3,
                  "test": rows[6:], "M": 3, "held": rows[:6] % 3 == 0, "measure": lambda scores, labels, rows: 0.0},
        "feature_layers": {"network": model.network},
        "shares_of_start": {"network": model.network, "start": small(1)}}


def engine():
    """{name: (function, arguments that are right)} of what analyses and their callers are made of."""
    (model, pictures), of = (RIGHT["diagnose"][word] for word in ("model", "pictures")), RIGHT["project"]
    network, x, judged = of["network"], of["x"], {"models": [model], "pictures": pictures, "batch_size": 8}
    y, caches = network.forward(x)
    drawn = {"data": "drawn:combinations", "part": "val", "limit_per_class": 1}
    return {
        "forward": (network.forward, {"x": x, "step": 3, "until": "conv2", "piece": (0, N)}),
        "backward": (network.backward, {"dy": y, "caches": caches, "rules": zfcore.GUIDED, "to_pixels": True}),
        "activations": (network.activations, {"x": x, "names": ["conv2"]}),
        "init": (small().init, {"seed": 1, "law": "he", "device": CPU}),
        "load": (small().load, {"parameters": network.parameters(), "device": CPU, "buffers": {}}),
        "Pictures": (zfcore.Pictures, {"dataset": Noise(), "size": SIZE, "crop": CROP, "upscale": True,
                                       "workers": 1, "memory": 0}),
        "picture": (pictures.picture, {"i": 3}),
        "batches": (pictures.batches, {"batch_size": 8, "seed": 1, "epoch": 2, "shuffle": True, "start": 1, "device": CPU}),
        "open_data": (zfcore.open_data, {"data": drawn["data"], "size": 32, "limit_per_class": 1, "val_fraction": 0.3}),
        "Trained.dataset": (model.dataset, drawn),
        "Trained.pictures": (model.pictures, {**drawn, "upscale": False, "workers": 0}),
        "evaluate": (evaluation.evaluate, {**judged, "crops": "ten"}),
        "predict": (evaluation.predict, {**judged, "crops": "centre"})}


RIGHT = arguments()
CALLS = {**{name: (getattr(zfcore, name), given) for name, given in RIGHT.items()}, **engine()}
ANY = {"whole_map", "incremental", "to_pixels", "upscale", "shuffle"}            # are yes or no by Python's rules
UNASKED = {"bar", "file", "file_of", "take", "of", "ranks"}      # what is called back; words; what only training has
ALLOWED = {("unit_views", "units"): [[]], ("diagnose", "units"): [[]], ("diagnose", "name"): ["x"], ("project", "start"): [1.5, -1],
           ("unit_views", "rules"): [{}], ("project", "rules"): [{}], ("backward", "rules"): [{}],
           ("activations", "names"): [[]], ("load", "buffers"): [{}], ("open_data", "val_fraction"): [None],
           ("top_activations", "every"): [1.5, -1]}
ODD = None, "x", 1.5, -1, True, object(), [], [None], np.zeros(3), {}, np.nan


def test_every_public_analysis_is_swept():
    public = {name: getattr(zfcore, name) for name in zfcore.__all__}
    analyses = {name for name, of in public.items() if inspect.isfunction(of)
                and of.__module__.startswith(("zfcore.analysis", "zfcore.deconvnet"))}
    assert set(RIGHT) == analyses
    for name, (call, given) in CALLS.items():
        assert set(inspect.signature(call).parameters) - UNASKED == set(given), name
        call(**given)


@pytest.mark.parametrize("name, word", [(name, word) for name, (_, given) in CALLS.items() for word in given
                                        if word not in ANY])
def test_an_odd_argument_is_refused_or_one_that_the_signature_allows(name, word, monkeypatch):
    monkeypatch.setattr("zfcore.analysis.invariance.STEPS", 16)               # of None, which is the paper's series
    call, given = CALLS[name]
    default = inspect.signature(call).parameters[word].default
    allowed = ALLOWED.get((name, word), []) + [None]*(default is None)
    for odd in ODD:
        if any(type(odd) is type(one) and odd == one for one in allowed):
            call(**{**given, word: odd})
            continue
        try:
            call(**{**given, word: odd})
        except Expected:
            continue
        pytest.fail(f"{name}({word}={odd!r}) is taken")


@pytest.mark.parametrize("name, word", [(name, word) for name, (_, given) in CALLS.items() for word in given
                                        if word in ("seed", "epoch")])
def test_every_seed_has_the_same_range(name, word):
    call, given = CALLS[name]
    call(**{**given, word: check.LARGEST_SEED})
    for beyond in (check.LARGEST_SEED + 1, 2**70, np.uint64(2**63)):
        with pytest.raises(Expected, match=f"{word}: expected a whole number from 0 to {check.LARGEST_SEED}, got {beyond}"):
            call(**{**given, word: beyond})


@pytest.mark.parametrize("name, word", [(name, word) for name in RIGHT for word in ("file", "file_of")
                                        if word in inspect.signature(getattr(zfcore, name)).parameters])
def test_what_is_no_file_is_refused(name, word):
    for odd in (odd for odd in ODD if odd is not None and not isinstance(odd, str)):
        with pytest.raises(Expected, match=f"^{word}: expected "):
            getattr(zfcore, name)(**RIGHT[name], **{word: odd})


@pytest.mark.parametrize("name, word", [(name, word) for name, (_, given) in CALLS.items() for word, value in given.items()
                                        if isinstance(value, np.ndarray)])
def test_an_array_some_of_whose_numbers_are_none_is_refused(name, word):
    call, given = CALLS[name]
    with pytest.raises(Expected, match="^[a-z0-9: ]+: expected an array without a mask, got a masked one"):
        call(**{**given, word: np.ma.masked_array(given[word], given[word] > np.median(given[word]))})


NAMED = [(name, word) for name, given in RIGHT.items() for word in given if word in ("layers", "parts")]


@pytest.mark.parametrize("name, word", NAMED)
def test_what_is_named_twice_is_refused(name, word):
    with pytest.raises(Expected, match=f"^{word}: expected different names, got '{RIGHT[name][word][0]}' 2 times"):
        getattr(zfcore, name)(**{**RIGHT[name], word: [*RIGHT[name][word], RIGHT[name][word][0]]})


ONE_EACH = [("occlusion", "labels"), ("invariance", "labels"), ("correspondence", "places"), ("correspondence", "parts"),
            ("correspondence", "names"), ("project", "units"), ("project", "places"), ("probe", "labels"), ("probe", "held")]


@pytest.mark.parametrize("name, word", ONE_EACH)
def test_one_too_few_or_too_many_is_refused(name, word):
    right = RIGHT[name][word]
    for odd in right[:-1], [*right, "z" if word in ("parts", "names") else right[0]]:
        with pytest.raises(Expected, match="^[a-z]+: expected "):
            getattr(zfcore, name)(**{**RIGHT[name], word: odd})


@pytest.mark.parametrize("field", Series._fields)
def test_a_series_that_is_none_is_refused(field):
    """Two steps; -1 and 0 are steps, shifts and degrees, but no zooms; nothing need be shown."""
    taken = {"steps": [[-1, 0]], "shifts": [[-1, 0]], "degrees": [[-1, 0]], "shown": [[]]}.get(field, [])
    for odd in (odd for odd in (*ODD, [1, np.nan], [-1, 0], [0, 1, 2]) if not isinstance(odd, list) or odd not in taken):
        series = {"scale": scales()["scale"]._replace(**{field: odd})}
        with pytest.raises(Expected, match="^series scale: "):
            zfcore.invariance(**{**RIGHT["invariance"], "series": series})
    with pytest.raises(Expected, match="^series a: expected Series, got int"):
        zfcore.invariance(**{**RIGHT["invariance"], "series": {"a": 3}})


def test_a_series_of_lists_is_one_of_arrays(tmp_path):
    lists = {"scale": Series(*(value.tolist() if isinstance(value, np.ndarray) else value for value in scales()["scale"]))}
    found = zfcore.invariance(**{**RIGHT["invariance"], "series": lists})
    assert same(found, found_by("invariance"))
    zfcore.save_result(tmp_path/"a.h5", found)


@pytest.mark.parametrize("word, odd, sentence", [
    ("features", np.full((9, 5), "a"), "features: expected numbers, got <U1"),
    ("features", np.ones((9, 5), complex), "features: expected numbers, got complex128"),
    ("features", np.full((9, 5), None), "features: expected numbers, got object"),
    ("held", np.ones(6, bool), "held: expected some training pictures that are not held out, got all 6"),
    *(("measure", lambda *_, odd=odd: odd, "measure: expected a finite number") for odd in (None, np.nan, np.inf, "a", [1.0]))])
def test_a_probe_of_no_numbers_is_refused(word, odd, sentence):
    with pytest.raises(Expected, match=f"^{sentence}"):
        zfcore.probe(**{**RIGHT["probe"], word: odd})


def test_units_of_a_layer_that_has_none_and_the_start_of_another_network_are_refused():
    with pytest.raises(Expected, match="^units: expected those of conv1 too, got those of no layer"):
        zfcore.evolution(**{**RIGHT["evolution"], "units": {}})
    with pytest.raises(Expected, match="^start: expected small as its training began, got tiny, of other layers"):
        zfcore.shares_of_start(small(), zfcore.build("tiny", classes=3))


def same(one, other):
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and np.asarray(one).dtype == np.asarray(other).dtype and \
        np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")


def in_numpy(value):
    if isinstance(value, bool) or isinstance(value, str):
        return value
    return np.int8(value) if isinstance(value, int) else np.array(value) if isinstance(value, list) else value


def in_python(value):
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim < 4 and value.dtype != bool else value


@pytest.mark.parametrize("name", RIGHT)
def test_lists_arrays_and_numbers_of_numpy_say_the_same(name):
    given, plain = RIGHT[name], found_by(name)
    for dress in (in_numpy, in_python):
        dressed = {word: value if word in ("models", "features") else dress(value) for word, value in given.items()}
        assert same(getattr(zfcore, name)(**dressed), plain)


class Whole:
    """A whole number that says which one it is, and nothing can be computed with: NumPy's small ones overflow where it is."""
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    __int__ = __index__


Integral.register(Whole)


@pytest.mark.parametrize("name, word", [(name, word) for name, (_, given) in CALLS.items() for word, value in given.items()
                                        if type(value) is int])
def test_a_whole_number_is_one_of_python_s_before_anything_is_computed_with_it(name, word):
    call, given = CALLS[name]
    call(**{**given, word: Whole(given[word])})


def test_a_pass_in_batches_of_numpy_s_smallest_whole_numbers_is_the_pass():
    """The pictures of the last batch would have numbers beyond these."""
    given = {**RIGHT["top_activations"], "pictures": pictures_of(Noise(200))}
    plain = zfcore.top_activations(**{**given, "batch_size": 64})
    assert plain.complete
    for kind in np.int8, np.uint8:
        assert same(zfcore.top_activations(**{**given, "batch_size": kind(64)}), plain)


def test_a_step_and_a_piece_in_numpy_s_smallest_whole_numbers_drop_the_same_units():
    x = RIGHT["project"]["x"]
    network = Network("dropped", x.shape[:3], [Conv("conv1", 4, K=5, S=2), Dropout("drop1", 0.8)]).init(0)
    dropped, plain = (network.forward(x, step=kind(3), piece=(kind(2), kind(100)))[0] for kind in (np.int8, int))
    assert np.array_equal(dropped, plain) and not np.array_equal(plain, network.forward(x)[0])


# ------------------------------------------------------------------------------------------------- arrays of the caller's
def arrays_in(value):
    """All arrays that an argument is made of."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Trained):
        yield value.mean
        yield from arrays_in(value.network)
    elif isinstance(value, Network):
        yield from arrays_in([*value.parameters().values()])
    elif is_dataclass(value) or isinstance(value, Mapping):
        yield from arrays_in([*(vars(value) if is_dataclass(value) else value).values()])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from arrays_in(one)


def as_arrays(value):
    """Numbers in lists as an array, as a caller may have them, and so in a dict."""
    if isinstance(value, dict):
        return {key: as_arrays(one) for key, one in value.items()}
    return np.array(value) if isinstance(value, list) and isinstance(value[0], (int, list)) else value


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_found_stays_whatever_becomes_of_the_arrays_that_were_given(name):
    given = {word: deepcopy(as_arrays(value)) for word, value in RIGHT[name].items()}
    found = getattr(zfcore, name)(**given)
    before, arrays = deepcopy(found), [*arrays_in(list(given.values()))]
    for array in arrays:
        array[...] = 1 - array if array.dtype != bool else ~array
    assert arrays and same(found, before)


def test_what_is_found_shares_no_array_of_zfcore_s_own():
    found = zfcore.diagnose(**RIGHT["diagnose"])
    found.edges[:] = 0
    assert same(zfcore.diagnose(**RIGHT["diagnose"]), found_by("diagnose"))


@cache
def found_by(name):
    """What the analysis finds, given what is right."""
    return getattr(zfcore, name)(**RIGHT[name])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_may_be_whole_numbers_of_any_type(tmp_path, dtype):
    for name in ("invariance", "occlusion", "probe"):
        call, given = CALLS[name]
        found = call(**{**given, "labels": np.array(given["labels"], dtype)})
        zfcore.save_result(tmp_path/"a.h5", found)
        assert same(found, found_by(name))
    evaluate, given = CALLS["evaluate"]
    dataset = Noise(12 + 20)
    dataset.labels = dataset.labels.astype(dtype)
    pictures = pictures_of(dataset)
    assert evaluate(**{**given, "pictures": pictures}) == evaluate(**given)
    assert pictures.of_classes().tolist() == given["pictures"].of_classes().tolist()


# --------------------------------------------------------------------------------------------------------------- pictures
def callers():
    """{name: function(images (n,SIZE,SIZE,3))} of all that takes pictures as arrays."""
    model, of = RIGHT["occlusion"]["model"], lambda name, **more: lambda images: getattr(zfcore, name)(
        **{**RIGHT[name], "pictures": images, "labels": None, **more})
    marked = {word: value for word, value in RIGHT["correspondence"].items() if word != "pictures"}
    return {"occlusion": of("occlusion"), "invariance": of("invariance"),
            "correspondence": lambda images: zfcore.correspondence(pictures=images, **marked),
            "inputs": model.inputs, "probabilities": model.probabilities,
            "look": lambda images: look(model, images[0], ["conv2"], hide=False),
            "projected": lambda images: projected(model, images[0], "conv2", 1)}


CALLERS = callers()
WRONG = {"floats from 0 to 1": (lambda images: images/255, r"uint8, got float64; \(255\*pictures"),
         "other whole numbers": (lambda images: images.astype(int) + 1000, "uint8, got int64; pictures.astype"),
         "truths": (lambda images: images > 100, "uint8, got bool"),
         "grey": (lambda images: images[..., 0], "shape .* of grey ones"),
         "grey with an axis": (lambda images: images[..., :1], "shape .* of grey ones"),
         "transparent": (lambda images: np.concatenate([images, images[..., :1]], axis=-1), r"shape .*pictures\[..., :3\]"),
         "colours first": (lambda images: np.moveaxis(images, -1, -3), "shape .*np.moveaxis"),
         "one": (lambda images: images[0], "shape .*pictures.None."),
         "without pixels": (lambda images: images[:, :0], "(shape|one pixel or more, got none)"),
         "of no width": (lambda images: images[..., :0, :], "(shape|one pixel or more, got none)"),
         "texts": (lambda images: images.astype(str), "uint8, got <U"),
         "nothing": (lambda images: [None], "(uint8|shape)")}


def test_all_that_takes_pictures_is_swept():
    public = {**vars(zfcore.Trained), **{name: getattr(zfcore, name) for name in zfcore.__all__}, "look": look,
              "projected": projected}
    assert set(CALLERS) == {name for name, of in public.items() if inspect.isfunction(of) and any(
        "np.uint8" in str(one.annotation) or "numpy.uint8" in str(one.annotation)
        for one in inspect.signature(of).parameters.values())}
    for name, call in CALLERS.items():
        call(pictures_for(name))


def pictures_for(name):
    images = RIGHT["correspondence" if name == "correspondence" else "occlusion"]["pictures"]
    return np.repeat(images, N//len(images), axis=0)


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_pictures_is_refused_with_what_to_do_by_all_that_takes_pictures(name, kind):
    (change, sentence), what = WRONG[kind], {"invariance": "picture 0", "look": "picture", "projected": "picture"}.get(name, "pictures")
    with pytest.raises(Expected, match=f"^{what}: expected {sentence}"):
        CALLERS[name](change(pictures_for(name)))


def test_what_a_picture_becomes_by_pil_and_from_its_file_is_taken(tmp_path):
    picture = Noise().picture(5)
    picture.save(tmp_path/"a.png")
    model = RIGHT["occlusion"]["model"]
    own, of_file = (square(one, SIZE, CROP)[None] for one in (picture, decode("a.png", (tmp_path/"a.png").read_bytes())))
    np.testing.assert_array_equal(own[0], pictures_of(Noise()).picture(5))
    np.testing.assert_array_equal(model.probabilities(own), model.probabilities(of_file))


# ------------------------------------------------------------------------------------------------------------------ names
def takers():
    """{name: function(names)} of what takes names, beside the analyses, which are swept above."""
    model, path = RIGHT["occlusion"]["model"], "nowhere/a.h5"
    return {"Trained.__init__": lambda names: replace(model, classes=names), "Trained.with_classes": model.with_classes,
            "Network.activations": lambda names: model.network.activations(RIGHT["project"]["x"], names),
            "Checkpoint.__init__": lambda names: zfcore.checkpoint.save(path, zfcore.Checkpoint("a", (3, 9, 9), [], names, {})),
            "import_network": lambda names: zfcore.import_network(path, labels=names),
            "write_results": lambda names: write_results(path, names, np.zeros((len(names), 20)))}


def test_all_that_takes_names_is_swept():
    public = {name: getattr(zfcore, name) for name in zfcore.__all__ if name not in RIGHT}
    of_classes = {f"{name}.{word}": of for name, kind in public.items() if inspect.isclass(kind)
                  for word, of in vars(kind).items() if inspect.isfunction(of)}
    names = re.compile(r"(Sequence|Iterable|Collection)\[str\]")
    assert set(takers()) - {"write_results"} == {name for name, of in {**public, **of_classes}.items() if inspect.isfunction(of) and any(
        names.match(str(one.annotation).removeprefix("collections.abc.")) for one in inspect.signature(of).parameters.values())}


@pytest.mark.parametrize("odd", ["abcde", b"abcde", range(5), [None]*5, {*"abcde"}, frozenset("abcde"), dict.fromkeys("abcde")])
@pytest.mark.parametrize("name", takers())
def test_a_text_is_no_row_of_names(name, odd):
    with pytest.raises(Expected, match="(names|classes|labels): expected (one or more )?names in a list, got "):
        takers()[name](odd)


# ------------------------------------------------------------------------------------------------------- what fits together
@pytest.mark.parametrize("name", ["unit_views", "sanity_checks"])
@pytest.mark.parametrize("other", [{"pictures": pictures_of(Noise(12 + 20, seed=1))}, {"pictures": pictures_of(Noise(33))},
                                   {"model": Trained(small(2), MEAN)}, {"model": Trained(small(), MEAN + 1)},
                                   {"model": RIGHT["unit_views"]["model"].untrained()}])
def test_the_strongest_of_other_pictures_or_another_network_are_refused(name, other):
    with pytest.raises(Expected, match="^top: expected the pass of this network over these pictures, got one of another"):
        getattr(zfcore, name)(**{**RIGHT[name], **other})


@pytest.mark.parametrize("name", ["unit_views", "sanity_checks"])
def test_a_layer_that_the_pass_lacks_is_told_with_those_that_it_has(name):
    with pytest.raises(Expected, match="^layer: expected one of conv2, fc6, got 'conv1'"):
        getattr(zfcore, name)(**{**RIGHT[name], "layer": "conv1"})


def test_in_what_batches_a_pass_was_made_and_how_many_it_keeps_does_not_matter():
    given = RIGHT["unit_views"]
    other = zfcore.top_activations(given["model"], given["pictures"], ["conv2"], 3, batch_size=5).first(2, "conv2")
    assert same(zfcore.unit_views(**{**given, "top": other}), zfcore.unit_views(**given))


# -------------------------------------------------------------------------------------------------------------------- rules
@pytest.mark.parametrize("way", ["project", "dense", "backward"])
@pytest.mark.parametrize("rules, sentence", [
    ({"ReLU": lambda layer, dy, cache: dy}, "expected kinds of layer, such as zfcore.layers.ReLU itself, as keys, got 'ReLU'"),
    ({int: lambda layer, dy, cache: dy}, "as keys, got <class 'int'>"), ({ReLU: None}, "ReLU: expected a function"),
    ({ReLU: lambda layer, dy: dy}, r"ReLU: expected a function \(layer, dy, cache\) -> dx"),
    ([ReLU], "expected Mapping, got list")])
def test_rules_for_what_is_no_layer_and_what_is_no_rule_are_refused(way, rules, sentence):
    given = RIGHT["project"]
    y, caches = given["network"].forward(given["x"])
    with pytest.raises(Expected, match=f"^rules: .*{sentence}"):
        if way == "backward":
            given["network"].backward(y, caches, rules)
        else:
            zfcore.project(**{**given, "rules": rules, "whole_map": way == "dense"})


def test_a_rule_for_all_layers_and_one_for_a_kind_of_ones_own_are_rules():
    class Own(ReLU):
        pass
    given = RIGHT["project"]
    for rules in ({Own: lambda layer, dy, cache: dy}, {Layer: lambda layer, dy, cache: layer.data_gradient(dy, cache)}):
        assert same(zfcore.project(**{**given, "rules": rules}), zfcore.project(**{**given, "rules": zfcore.GRADIENT}))


# --------------------------------------------------------------------------------------------------------- what is not finite
LOOKING = [name for name in RIGHT if name not in ("probe", "feature_layers", "shares_of_start")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("layer, value", [("conv1", np.nan), ("conv1", np.inf), ("conv2", np.nan)])
def test_a_network_that_is_not_finite_is_told_by_whatever_looks_through_it(name, layer, value):
    broken = small()
    broken[layer].parameters["w"][..., 0] = value
    model, given = Trained(broken, MEAN), dict(RIGHT[name])
    given.update({word: {"model": model, "models": [model], "other": model, "network": broken}[word]
                  for word in given if word in ("model", "models", "other", "network")})
    if "top" in given:                                     # what a pass would have been refused already
        seen = zfcore.analysis.top_activations.seen(model, given["pictures"])
        given["top"] = replace(given["top"], fingerprint=seen)
    if name in ("top_activations", "matching", "evolution"):
        given.update({"layers": [layer], "units": {layer: [0]}} if name == "evolution" else {"layers": [layer]})
    if name == "sanity_checks":
        given["only"] = None
    with pytest.raises(Expected, match="expected finite values, got [0-9]+ .*NaN or infinite"):
        getattr(zfcore, name)(**given)


@pytest.mark.parametrize("name", ["occlusion", "invariance", "correspondence"])
def test_scores_that_are_not_finite_are_told_where_the_layers_looked_at_are(name):
    broken = small()
    broken["fc8"].parameters["b"][1] = np.nan
    with pytest.raises(Expected, match="^small: outputs: expected finite values"):
        getattr(zfcore, name)(**{**RIGHT[name], "model": Trained(broken, MEAN)})


def test_pixels_that_are_not_finite_are_told():
    given = RIGHT["project"]
    x = given["x"].copy()
    x[0, 16, 16, 1] = np.nan
    with pytest.raises(Expected, match="conv2: activations: expected finite values, got 1 of 4"):
        zfcore.project(**{**given, "x": x, "places": None})


@pytest.mark.parametrize("row", [0, 8])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_told_in_rows_to_train_on_and_to_classify(row, value):
    given = RIGHT["probe"]
    features = given["features"].copy()
    features[row, 2] = value
    with pytest.raises(Expected, match="^features: expected finite"):
        zfcore.probe(**{**given, "features": features})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("whole_map", [False, True])
def test_a_signal_starts_as_no_number_that_outgrows_its_floats(whole_map):
    given = {**RIGHT["project"], "places": None, "whole_map": whole_map}
    for start in (1e39, -1e39, 2e30, np.float32(1e38), 10**400):
        with pytest.raises(Expected, match="^start: expected a"):
            zfcore.project(**{**given, "start": start})
    assert np.isfinite(zfcore.project(**{**given, "start": 10**30}).pixels).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_projections_that_outgrow_their_floats_are_told():
    given, faint = RIGHT["project"], small()
    faint["conv2"].parameters = {"w": faint["conv2"].parameters["w"]*np.float32(1e-20), "b": np.zeros(7, np.float32)}
    with pytest.raises(Expected, match="^conv2: projections: expected finite values"):
        zfcore.project(**{**given, "network": faint, "places": None, "whole_map": True, "start": 1e30})


# ------------------------------------------------------------------------------------------------------------ saved and loaded
FOUND = {name: inspect.signature(getattr(zfcore, name)).return_annotation for name in RIGHT}
RESULTS = {name: kind for name, kind in FOUND.items() if is_dataclass(kind)}


def test_every_kind_of_result_is_some_analysis_s():
    assert set(RESULTS.values()) == {kind for kind in map(zfcore.__getattr__, zfcore.__all__) if is_dataclass(kind)
                                     and kind.__module__.startswith(("zfcore.analysis", "zfcore.deconvnet"))}


@pytest.mark.parametrize("name, units", [("unit_views", []), ("diagnose", []), ("evolution", {"conv1": []})])
def test_what_is_found_of_no_units_can_be_saved_and_loaded_too(tmp_path, name, units):
    found = getattr(zfcore, name)(**{**RIGHT[name], "units": units})
    zfcore.save_result(tmp_path/"a.h5", found)
    assert same(zfcore.load_result(tmp_path/"a.h5", type(found)), found)


@pytest.mark.parametrize("stride", [12, 33, 1000])
def test_every_occlusion_that_is_made_can_be_saved_and_loaded(tmp_path, stride):
    found = zfcore.occlusion(**{**RIGHT["occlusion"], "stride": stride})
    zfcore.save_result(tmp_path/"a.h5", found)
    assert same(zfcore.load_result(tmp_path/"a.h5", zfcore.Occlusion), found)
    if stride >= CROP:
        assert found.tops.tolist() == found.lefts.tolist() == [0]


def spoiled(found):
    """(word, result) with one field after another as no analysis leaves it."""
    for field in fields(found):
        value, word = getattr(found, field.name), field.name
        if value is None or isinstance(value, dict) and not value:
            continue
        one = next(iter(value.values())) if isinstance(value, dict) else value
        of_array = lambda: [one[None], one[:0], np.zeros(one.shape, np.float16)]
        for odd in of_array() if isinstance(one, np.ndarray) else [3, None, np.zeros(2)] if isinstance(one, str) else \
                [0.5, True, None, b"x"]:
            yield word, replace(found, **{word: {key: odd for key in value} if isinstance(value, dict) else odd})
        if isinstance(value, dict):
            yield word, replace(found, **{word: one})
        elif isinstance(one, np.ndarray):
            yield word, replace(found, **{word: {"a": one}})


@pytest.mark.parametrize("name", RESULTS)
def test_save_refuses_what_load_would_refuse_and_nothing_else(tmp_path, name, monkeypatch):
    """The oracle is `load`, asked of a file that was written without asking."""
    found, path, unasked = found_by(name), tmp_path/"a.h5", zfcore.results._read_all
    refused = 0
    for _, odd in spoiled(found):
        with monkeypatch.context() as patch:
            patch.setattr(zfcore.results, "_read_all", lambda file, kind: None if isinstance(file, zfcore.results._Unsaved)
                          else unasked(file, kind))
            try:
                zfcore.save_result(path, odd)
                zfcore.load_result(path, type(found))
                sound = True
            except (Expected, TypeError):                  # TypeError: what no HDF5 file can hold
                sound = False
        path.unlink(missing_ok=True)
        if sound:
            zfcore.save_result(path, odd)
        else:
            refused += 1
            with pytest.raises(Expected, match="^" + str(path)):
                zfcore.save_result(path, odd)
            assert not path.exists()
    assert refused > 10 or not hasattr(found, "FORM")
    zfcore.save_result(path, found)
    assert same(zfcore.load_result(path, type(found)), found)


@pytest.mark.parametrize("path", [".", "..", "/", None, 3, ""])
def test_a_path_that_is_no_file_s_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Expected, match="path|writing"):
        zfcore.save_result(path, RIGHT["unit_views"]["top"])
    with pytest.raises(Expected, match="path|TopActivations"):
        zfcore.load_result(path, zfcore.TopActivations)


def widened(network):
    """A network that computes in float64."""
    for layer in network.layers:
        layer.parameters = {key: array.astype(np.float64) for key, array in layer.parameters.items()}
    return network


def in_float64():
    """{word: argument} of a network that computes in float64, with its pass."""
    network = widened(small())
    model, images = Trained(network, MEAN.astype(np.float64), begun=lambda: small(1)), RIGHT["occlusion"]["pictures"]
    top = zfcore.top_activations(model, RIGHT["diagnose"]["pictures"], ["conv1", "conv2", "fc6"], 2, batch_size=8)
    return {"model": model, "models": [model], "other": model, "network": network, "top": top,
            "x": model.inputs(np.repeat(images, N, axis=0))}


@pytest.mark.parametrize("name, more", [*((name, {}) for name in RESULTS if name != "probe"), ("unit_views", {"layer": "conv1"})])
def test_a_network_in_float64_is_looked_through_and_what_comes_of_it_saved(tmp_path, name, more):
    wide = {word: argument for word, argument in in_float64().items() if word in RIGHT[name]}
    found = getattr(zfcore, name)(**{**RIGHT[name], **wide, **more})
    zfcore.save_result(tmp_path/"a.h5", found)
    assert same(zfcore.load_result(tmp_path/"a.h5", type(found)), found)


def test_a_network_in_float64_began_in_float64_from_the_same_numbers():
    wide, narrow = in_float64()["model"], RIGHT["occlusion"]["model"]
    images = RIGHT["occlusion"]["pictures"]
    begun = wide.untrained().network.forward(wide.inputs(images))[0]
    assert begun.dtype == np.float64
    np.testing.assert_allclose(begun, narrow.untrained().network.forward(narrow.inputs(images))[0], rtol=1e-3)
    assert zfcore.shares_of_start(wide.network, wide.start) == pytest.approx(zfcore.shares_of_start(narrow.network, narrow.start))


# -------------------------------------------------------------------------------------------------------------- other sentences
def test_a_layer_above_average_pools_alone_has_no_switches_that_others_could_replace():
    network = Network("averaged", (3, CROP, CROP), [Conv("conv1", 4, K=5, S=2), ReLU("relu1"), AvgPool("pool1", K=3, S=2),
                                                    Conv("conv2", 5, K=3), ReLU("relu2")]).init(0, "he")
    model, pictures = Trained(network, MEAN), pictures_of(Noise())
    top = zfcore.top_activations(model, pictures, ["conv2"], 1)
    found = zfcore.sanity_checks(model, pictures, top, "conv2", [0])
    assert found.conditions.tolist() == ["as trained", "conv2", "conv2 to conv1", "another unit"]
    assert found.cosine[:, 0] == pytest.approx(1) and (abs(found.cosine[:, 1:]) < 0.999).all()
    with pytest.raises(Expected, match="only: expected one of as trained, .*another unit.*, got 'other switches'"):
        zfcore.sanity_checks(model, pictures, top, "conv2", [0], only=["other switches"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_a_network_without_parameters_takes_pictures_in_float_as_others_do(dtype):
    x = RIGHT["project"]["x"]
    network = Network("pooled", x.shape[:3], [AvgPool("pool1", K=3, S=2), ReLU("relu1")])
    for fits in np.float32, np.float64:
        assert zfcore.project(network, x.astype(fits), "relu1", [0]*N).pixels.dtype == fits
    with pytest.raises(Expected, match="^pooled: pictures: expected float32, got .*; this network computes in float32"):
        zfcore.project(network, x.astype(dtype), "relu1", [0]*N)


@pytest.mark.parametrize("odd", [[], None, "tpu", 3])
def test_what_names_no_device_is_refused(odd):
    with pytest.raises(Expected, match="device: expected one of auto, cpu, gpu.*, got "):
        zfcore.select(odd)


def test_labels_that_are_true_or_false_are_told_how_they_become_numbers():
    dataset = Noise()
    dataset.labels = dataset.labels > 0
    with pytest.raises(Expected, match=r"labels: expected an array of whole numbers.*; labels.astype\(int\) makes"):
        pictures_of(dataset)


def test_activations_come_in_the_order_of_the_network_whatever_that_of_the_names():
    assert [*small().activations(RIGHT["project"]["x"], ["conv2", "conv1", "conv2"])] == ["conv1", "conv2"]


def test_no_layers_have_no_activations():
    assert small().activations(RIGHT["project"]["x"], []) == {}
