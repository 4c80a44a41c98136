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

FOUR_PLACES = ["test_averagepool_2d_ceil_last_window_starts_on_pad"]     # whose results are written so
TRAINING = "ai.onnx.preview.training"
LEFT_OUT = {"no BatchNormalization", "dilations: above 1", "kernel_shape: not of two axes", "kernel_shape: not square",
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
            atol = 5e-5 if case.name in FOUR_PLACES else 2e-6*largest
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
        "agrees": 65, "no BatchNormalization": 3, "dilations: above 1": 2, "kernel_shape: not square": 1,
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
    specified = {name: REQUIRED if entry.required else onnx.helper.get_attribute_value(entry.default_value)
                 if entry.default_value.type else None for name, entry in schema.attributes.items()}
    specified = {name: value.decode() if isinstance(value, bytes) else value for name, value in specified.items()}
    ours = OPERATORS[op_type].defaults
    by_version = {"Dropout": {"ratio", "is_test"}, "Gemm": {"broadcast"}, "Softmax": {"axis"}, "LogSoftmax": {"axis"}}
    assert ours.keys() ^ specified.keys() <= by_version.get(op_type, set())
    for name in specified.keys() - by_version.get(op_type, set()):
        same = ours[name] is specified[name] or ours[name] == pytest.approx(specified[name], rel=1e-6)
        assert same or (specified[name], ours[name]) in [(None, None)], name


# ----------------------------------------------------------------------------------- what no case of the two tells apart
def pooled_by_definition(x, K, S, pads, ceil, count_padding):
    """(maxima, means) of one map x (H,W), window by window: pads are (top, left, bottom, right)."""
    first, size = [-pads[0], -pads[1]], [n + pads[k + 2] for k, n in enumerate(x.shape)]      # where padding begins and ends
    starts = [[at for at in range(lo, n, S) if (at < n if ceil else at + K <= end)] for lo, n, end in zip(first, x.shape, size)]
    starts = [[at for at in line if at - S + K < end or at == lo] for line, lo, end in zip(starts, first, size)]
    y = np.empty((2, *map(len, starts)))
    for at in np.ndindex(y.shape[1:]):
        (h, w) = (line[k] for line, k in zip(starts, at))
        seen = x[max(h, 0):h + K, max(w, 0):w + K]
        padded = np.prod([min(place + K, end) - place for place, end in zip((h, w), size)])
        y[:, *at] = seen.max(), seen.sum()/(padded if count_padding else seen.size)
    return y
