"""The cases of single operators of ONNX through the importer: each a graph of one node, read and brought into zfcore's layers.

A case that layers cannot express is left out for a reason that the importer gives, never by its name; what the reasons are is
itself tested. `pytest -rP` prints how many cases of each operator agree, and why others were left out."""
from collections import Counter

import numpy as np
import pytest

from tests.interchange.onnx_models import helper, numpy_helper, onnx
from tests.onnx_cases import cases_of_package, read_case, rows_of_folder
from tests.real_data import needs
from zfcore.check import Expected
from zfcore.interchange import lower
from zfcore.interchange.foreign import Probabilities
from zfcore.interchange.onnx import read
from zfcore.ops.softmax_loss import softmax

OPERATORS = ("AveragePool", "BatchNormalization", "Clip", "Conv", "Dropout", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
             "LRN", "LogSoftmax", "MatMul", "MaxPool", "Pad", "Relu", "Softmax")
ANY_AXES = "Relu", "Dropout", "Clip", "Identity"             # to which axes say nothing
FOUR_PLACES = ["test_averagepool_2d_ceil_last_window_starts_on_pad"]     # whose numbers are written so


def one_node(case, path):
    """Write the case as a model to `path`, its first input the pictures, and return them (N,C,H,W)."""
    x, at = case.inputs[0], "x"
    shape = (*x.shape, *[1]*(4 - x.ndim)) if x.ndim < 4 and (x.ndim == 2 or case.op_type in ANY_AXES) else x.shape
    nodes, names = [], [f"c{k}" if array is not None else "" for k, array in enumerate(case.inputs)]
    if x.ndim == 2 and case.op_type not in ANY_AXES:
        nodes, at = [helper.make_node("Flatten", ["x"], ["units"])], "units"
    attributes = {key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value for key, value in case.attributes.items()}
    outputs = ["y", *(f"y{k}" if array is not None else "" for k, array in enumerate(case.outputs[1:]))]
    nodes.append(helper.make_node(case.op_type, [at, *names[1:]], outputs, case.op_type, **attributes))
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(nodes, "case", [helper.make_tensor_value_info("x", kind, shape)], [onnx.ValueInfoProto(name="y")],
                              [numpy_helper.from_array(array, name) for name, array in list(zip(names, case.inputs))[1:] if name])
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
LEFT_OUT = {"pictures (N,C,H,W) of a fixed size", "pictures that are cast to float before", "no dilation", "windows as high as wide",
            "the same stride for rows and columns", "padding in front that is the same for rows and columns, and behind not much more",
            "ceil_mode or count_include_pad", "batch normalisation as it is used", "dropout that does nothing", "a clip to 0 and above", "maxima of at most 15x15 pixels",
            "scores that are computed of pictures", "the axes behind the pictures as one", "units as they are", "4 biases",
            "units times a constant", "padding with zeros", "a softmax over the classes", "an odd number of neighbours, or one more below"}


@needs("onnx_node_cases/cases.json")
def test_cases_of_the_data_folder_agree_but_for_those_that_are_left_out(tmp_path):
    outcomes = Counter(outcome(read_case(row), tmp_path) for row in rows_of_folder() if row["op"] in OPERATORS)
    assert outcomes.pop("agrees") == 47
    assert {what.removeprefix("expected ") for what in outcomes} <= LEFT_OUT


@pytest.mark.parametrize("op_type", OPERATORS)
def test_cases_of_the_package_agree_but_for_those_that_are_left_out(op_type, tmp_path):
    outcomes = Counter(outcome(case, tmp_path) for case in cases_of_package(op_type))
    print(f"{op_type}:", ", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    assert outcomes.pop("agrees") > 0
    assert {what.removeprefix("expected ") for what in outcomes} <= LEFT_OUT
