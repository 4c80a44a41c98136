"""The operations against cases that nobody here wrote: the tests of single operators of ONNX, through tests/onnx_nodes.py.

A case that the engine cannot express is left out for a reason that its node gives, never by its name; what the reasons are is
itself tested. `pytest -rP` prints how many cases of each operator of the package agree, and why others were left out."""
import itertools
from collections import Counter

import numpy as np
import pytest

from tests.onnx_cases import cases_of_package, read_case, rows_of_folder
from tests.onnx_nodes import OPERATORS, REQUIRED, Unsupported, run
from tests.real_data import needs

FOUR_PLACES = ["test_averagepool_2d_ceil_last_window_starts_on_pad"]     # whose numbers are written so
TRAINING = "ai.onnx.preview.training"
OF_VERSIONS = {"Dropout": {"ratio", "is_test"}, "BatchNormalization": {"is_test", "spatial"}, "Gemm": {"broadcast"},
               "Softmax": {"axis"}, "LogSoftmax": {"axis"}}
LEFT_OUT = {"dilations: above 1", "kernel_shape: not of two axes", "kernel_shape: not square",
            "strides: not the same for both axes", "mode: nesterov", "numbers of uint8",
            "training_mode: units are chosen by another random generator"}


def differences(case):
    """What of a case came out otherwise, as sentences; Unsupported where the engine cannot express it."""
    found = run(case.op_type, case.attributes, case.inputs, case.opset)
    for ours, theirs in zip(map(np.asarray, found), case.outputs, strict=False):
        if theirs is None:
            continue
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            yield f"{case.name}: {ours.dtype} {ours.shape}, not {theirs.dtype} {theirs.shape}"
        elif theirs.dtype.kind != "f":
            if not np.array_equal(ours, theirs):
                yield f"{case.name}: {ours}, not {theirs}"
        else:
            largest = np.abs(theirs).max(initial=0)
            atol = 1e-4 if case.name in FOUR_PLACES else 2e-6*largest
            if not np.allclose(ours, theirs, rtol=2e-6, atol=atol, equal_nan=True):
                yield f"{case.name}: differs by {np.abs(ours - theirs).max()/largest:.1e} of the largest"
    if len(found) < len(case.outputs):
        yield f"{case.name}: {len(found)} outputs, not {len(case.outputs)}"


def outcome(case):
    """"agrees", or why the case was left out."""
    try:
        different = list(differences(case))
    except Unsupported as reason:
        return str(reason)
    assert not different, different
    return "agrees"


# ----------------------------------------------------------------------------------------------------------- the real data
@needs("onnx_node_cases/cases.json")
def test_cases_of_the_data_folder_agree_but_for_those_that_are_left_out():
    assert Counter(outcome(read_case(row)) for row in rows_of_folder()) == {
        "agrees": 68, "dilations: above 1": 2, "kernel_shape: not square": 1,
        "strides: not the same for both axes": 3, "training_mode: units are chosen by another random generator": 2,
        "mode: nesterov": 1}


# ------------------------------------------------------------------------------------------------------------- the package
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_cases_of_the_package_agree_but_for_those_that_are_left_out(op_type):
    pytest.importorskip("onnx", reason="the package onnx, whose cases these are, is not installed")
    outcomes = Counter(map(outcome, cases_of_package(op_type)))
    print(f"{op_type}:", ", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    assert outcomes.pop("agrees") > 0
    assert outcomes.keys() <= LEFT_OUT


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_attributes_and_defaults_are_those_of_the_specification(op_type):
    onnx = pytest.importorskip("onnx", reason="the package onnx, whose schemas are the specification, is not installed")
    schema = onnx.defs.get_schema(op_type, domain=TRAINING if op_type == "Momentum" else "")
    ours, of_versions = OPERATORS[op_type].defaults, OF_VERSIONS.get(op_type, set())
    assert ours.keys() ^ schema.attributes.keys() <= of_versions
    for name, entry in schema.attributes.items():
        default = onnx.helper.get_attribute_value(entry.default_value) if entry.default_value.type else None
        default = default.decode() if isinstance(default, bytes) else REQUIRED if entry.required else default
        same = np.float32(ours[name]) == default if isinstance(default, float) else ours[name] == default
        assert same or name in of_versions, name


# ------------------------------------------------------------------------------------ what the cases do not tell apart
def pooled_by_definition(x, K, S, pads, ceil, count_padding):
    """(maxima, means) of one map, window by window; pads are (top, left, bottom, right)."""
    counts = []
    for n, before, after in zip(x.shape, pads[:2], pads[2:]):
        over = (n + before + after - K)/S
        count = int(np.ceil(over) if ceil else np.floor(over)) + 1
        counts.append(count - (ceil and (count - 1)*S >= n + before))         # not one that begins in the padding behind
    y = np.empty((2, *counts))
    for p, q in np.ndindex(*counts):
        h, w = p*S - pads[0], q*S - pads[1]
        seen = x[max(h, 0):max(h + K, 0), max(w, 0):max(w + K, 0)]
        padded = (min(h + K, x.shape[0] + pads[2]) - h)*(min(w + K, x.shape[1] + pads[3]) - w)
        y[:, p, q] = seen.max(), seen.sum()/(padded if count_padding else seen.size)
    return y


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("K, S", [(2, 3), (3, 1), (3, 2), (4, 3)])
def test_pools_see_every_padding_and_way_of_counting(K, S, ceil_mode):
    x = np.random.default_rng(3).standard_normal((2, 3, 7, 5)).astype(np.float32)
    for pads, counted in itertools.product(itertools.product(range(K - 1), repeat=4), (0, 1)):
        attributes = {"kernel_shape": [K, K], "strides": [S, S], "pads": list(pads), "ceil_mode": ceil_mode}
        maxima, places = run("MaxPool", attributes, [x], 22)
        means, = run("AveragePool", {**attributes, "count_include_pad": counted}, [x], 22)
        for n, c in np.ndindex(2, 3):
            highest, mean = pooled_by_definition(x[n, c], K, S, pads, ceil_mode, counted)
            np.testing.assert_array_equal(maxima[n, c], highest.astype(np.float32))
            np.testing.assert_array_equal(x.reshape(-1)[places[n, c]], maxima[n, c])
            np.testing.assert_allclose(means[n, c], mean, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_a_transposed_convolution_cut_to_a_given_size_is_the_whole_one_without_its_border(auto_pad):
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(size).astype(np.float32) for size in ((2, 4, 3, 5), (4, 3, 3, 3), (6,)))
    whole, = run("ConvTranspose", {"strides": [2, 2], "group": 2}, [x, w, b], 22)
    assert whole.shape == (2, 6, 7, 11)
    without, = run("ConvTranspose", {"strides": [2, 2], "group": 2}, [x, w], 22)
    np.testing.assert_array_equal(whole, without + b[:, None, None])
    given, = run("ConvTranspose", {"strides": [2, 2], "group": 2, "output_shape": [4, 10], "auto_pad": auto_pad}, [x, w, b], 22)
    same, = run("ConvTranspose", {"strides": [2, 2], "group": 2, "auto_pad": auto_pad}, [x, w, b], 22)
    left = 0 if auto_pad == "SAME_UPPER" else 1
    np.testing.assert_array_equal(given, whole[:, :, left + 1:left + 5, left:left + 10])
    np.testing.assert_array_equal(same, whole[:, :, left:left + 6, left:left + 10])
    with pytest.raises(Unsupported, match="^output_shape: larger"):
        run("ConvTranspose", {"strides": [2, 2], "group": 2, "output_shape": [8, 10]}, [x, w, b], 22)


def test_global_pools_see_maps_of_any_size_and_number_of_axes():
    for size in ((31, 18), (5,), (3, 4, 20)):
        x = np.random.default_rng(5).standard_normal((2, 3, *size)).astype(np.float32)
        axes = tuple(range(2, x.ndim))
        np.testing.assert_array_equal(run("GlobalMaxPool", {}, [x], 22)[0], x.max(axis=axes, keepdims=True))
        np.testing.assert_allclose(run("GlobalAveragePool", {}, [x], 22)[0], x.mean(axis=axes, keepdims=True), atol=1e-6)


def test_softmax_is_over_all_axes_from_the_second_on_before_version_13_and_over_the_last_from_then_on():
    x = np.random.default_rng(6).standard_normal((2, 3, 4)).astype(np.float32)
    assert run("Softmax", {}, [x], 12)[0].sum(axis=(1, 2)) == pytest.approx([1, 1])
    assert run("Softmax", {}, [x], 13)[0].sum(axis=2) == pytest.approx(np.ones((2, 3)))


def test_local_response_normalisation_over_an_even_window_has_one_map_more_above():
    x = np.random.default_rng(7).standard_normal((2, 5, 3, 4)).astype(np.float32)
    squares = np.pad(x.astype(float)**2, [(0, 0), (1, 2), (0, 0), (0, 0)])
    expected = x/(1 + 0.5/4*sum(squares[:, k:k + 5] for k in range(4)))**0.75
    np.testing.assert_allclose(run("LRN", {"size": 4, "alpha": 0.5}, [x], 13)[0], expected, rtol=2e-6)


@pytest.mark.parametrize("op_type, attributes, reason", [
    ("Conv", {"dilations": [1, 2]}, "dilations"), ("Conv", {"strides": [1, 2]}, "strides"), ("Conv", {"pads": [-1]*4}, "pads"),
    ("ConvTranspose", {"dilations": [2, 2]}, "dilations"), ("ConvTranspose", {"strides": [3, 2]}, "strides"),
    ("MaxPool", {"kernel_shape": [2, 3]}, "kernel_shape"), ("MaxPool", {"kernel_shape": [16, 16]}, "kernel_shape"),
    ("AveragePool", {"kernel_shape": [2, 2], "p": 2}, "p"), ("LRN", {"size": 3, "bias": 0.0}, "bias"), ("Tanh", {}, "no Tanh")])
def test_what_the_engine_has_not_is_refused_by_the_name_of_the_attribute(op_type, attributes, reason):
    inputs = [np.ones((2, 4, 17, 17), np.float32), np.ones((4, 4, 3, 3), np.float32)]
    with pytest.raises(Unsupported, match=f"^{reason}\\b"):
        run(op_type, attributes, inputs[:2 if "Conv" in op_type else 1], 22)


def test_a_place_that_two_maxima_share_or_that_their_window_has_not_is_refused():
    y, attributes = np.ones((1, 1, 2, 2), np.float32), {"kernel_shape": [2, 2], "strides": [2, 2]}
    for places, reason in (([0, 2, 8, 8], "I: a place that two"), ([0, 1, 8, 10], "I: a place outside")):
        with pytest.raises(Unsupported, match=reason):
            run("MaxUnpool", attributes, [y, np.reshape(places, y.shape)], 22)
