"""The cases of single operators of ONNX through the importer: each a graph of one node, read and brought into zfcore's layers.

A case that layers cannot express is left out for a reason that the importer gives, never by its name; what the reasons are is
itself tested. `pytest -rP` prints how many cases of each operator agree, and why others were left out."""
from collections import Counter

import numpy as np
import pytest

from tests.interchange.onnx_models import helper, numpy_helper, onnx
from tests.onnx_cases import Case, cases_of_package, read_case, rows_of_folder
from tests.real_data import needs
from zfcore.check import Expected
from zfcore.interchange import lower
from zfcore.interchange.foreign import Probabilities
from zfcore.interchange.onnx import read
from zfcore.ops.softmax_loss import softmax

OPERATORS = ("AveragePool", "BatchNormalization", "Clip", "Conv", "ConvTranspose", "Dropout", "Flatten", "Gemm",
             "GlobalAveragePool", "GlobalMaxPool", "LRN", "LogSoftmax", "MatMul", "MaxPool", "Pad", "Relu", "Softmax")
ANY_AXES = "Relu", "Dropout", "Clip", "Identity"             # to which axes say nothing
FOUR_PLACES = ["test_averagepool_2d_ceil_last_window_starts_on_pad"]     # whose numbers are written so


def one_node(case, path):
    """Write the case as a model to `path`, its first input the pictures, and return them (N,C,H,W)."""
    x, at = case.inputs[0], "x"
    shape = (*x.shape, *[1]*(4 - x.ndim)) if x.ndim < 4 and (x.ndim == 2 or case.op_type in ANY_AXES) else x.shape
    nodes, names = [], [f"c{k}" if array is not None else "" for k, array in enumerate(case.inputs)]
    if x.ndim == 2 and case.op_type not in ANY_AXES:
        nodes, at = [helper.make_node("Flatten", ["x"], ["units"])], "units"
    attributes = {key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
                  for key, value in case.attributes.items()}
    outputs = ["y", *(f"y{k}" if array is not None else "" for k, array in enumerate(case.outputs[1:]))]
    nodes.append(helper.make_node(case.op_type, [at, *names[1:]], outputs, case.op_type, **attributes))
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(nodes, "case", [helper.make_tensor_value_info("x", kind, shape)], [onnx.ValueInfoProto(name="y")],
                              [numpy_helper.from_array(array, name) for name, array in list(zip(names, case.inputs))[1:]
                               if name])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", max(case.opset, 6))]).SerializeToString())
    return x.reshape(shape)


def imported(case, path):
    """The case's first output as zfcore computes it. Raises Expected where the importer refuses."""
    x = one_node(case, path)
    foreign = read(path)
    y, _ = lower.as_it_is(foreign, "case").forward(np.ascontiguousarray(np.moveaxis(x, 0, -1)).astype(np.float32))
    if isinstance(foreign.nodes[-1], Probabilities):
        y = softmax(y) if case.op_type == "Softmax" else np.log(softmax(y))
    return np.moveaxis(y, -1, 0)


def outcome(case, folder):
    """"agrees", or why the case was left out; other numbers are an error."""
    theirs = case.outputs[0]
    try:
        ours = imported(case, folder/"case.onnx")
    except Expected as reason:
        return f"expected {reason.expected}"
    assert ours.size == theirs.size, case.name
    largest = np.abs(theirs).max(initial=0)
    atol = 1e-4 if case.name in FOUR_PLACES else 2e-6*largest
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=2e-6, atol=atol, err_msg=case.name)
    return "agrees"


# What the importer expected of those that it refused.
LEFT_OUT = {"pictures (N,C,H,W) of a fixed size", "pictures that are cast to float before", "no dilation",
            "pictures of numbers that can be pixels, 0 to 255",
            "the same stride for rows and columns", "an operator that zfcore has a layer for",
            "batch normalisation as it is used", "dropout that does nothing", "a clip without an upper end",
            "maxima of at most 15x15 pixels", "scores that are computed of pictures", "the axes behind the pictures as one",
            "units as they are",
            "4 biases", "units times a constant", "padding with one number", "a softmax over the classes", "strides of 1"}


@needs("onnx_node_cases/cases.json")
def test_cases_of_the_data_folder_agree_but_for_those_that_are_left_out(tmp_path):
    outcomes = Counter(outcome(read_case(row), tmp_path) for row in rows_of_folder())
    assert outcomes.pop("agrees") == 50
    assert {what.removeprefix("expected ") for what in outcomes} <= LEFT_OUT


@pytest.mark.parametrize("op_type", OPERATORS)
def test_cases_of_the_package_agree_but_for_those_that_are_left_out(op_type, tmp_path):
    outcomes = Counter(outcome(case, tmp_path) for case in cases_of_package(op_type))
    print(f"{op_type}:", ", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    assert outcomes.pop("agrees") > 0
    assert {what.removeprefix("expected ") for what in outcomes} <= LEFT_OUT


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
@pytest.mark.parametrize("K, S", [(2, 1), (2, 3), (3, 1), (3, 2), (4, 3)])
def test_pools_see_every_padding_and_way_of_counting(K, S, ceil_mode, tmp_path):
    rng = np.random.default_rng([K, S, ceil_mode])
    # zeros would be the largest
    x = rng.standard_normal((2, 3, 7, 5)).astype(np.float32) - 2
    for pads in rng.integers(0, K, (10, 4)).tolist():
        attributes = {"kernel_shape": [K, K], "strides": [S, S], "pads": pads, "ceil_mode": ceil_mode}
        for op_type, more, which in (("MaxPool", {}, 0), ("AveragePool", {"count_include_pad": 0}, 1),
                                     ("AveragePool", {"count_include_pad": 1}, 1)):
            expected = np.array([[pooled_by_definition(one, K, S, pads, ceil_mode, more.get("count_include_pad"))[which]
                                  for one in maps]
                                 for maps in x])
            found = imported(Case("", op_type, {**attributes, **more}, 22, [x], [expected]), tmp_path/"case.onnx")
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6, err_msg=f"{op_type} {pads} {more}")
