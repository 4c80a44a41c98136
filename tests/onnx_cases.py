"""Cases of single nodes that nobody here wrote: those of the real data, and those of the package onnx where it is installed."""
import functools
import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from tests.real_data import REAL_DATA

MODULES = {"SoftmaxCrossEntropyLoss": "softmax_cross_entropy_loss", "BatchNormalization": "batch_normalization"}
EXPORTED = "pytorch-converted", "pytorch-operator"      # the package's folders of models that PyTorch exported


class Case(NamedTuple):
    name: str
    op_type: str
    attributes: dict
    opset: int
    inputs: list                  # arrays, None where an optional input is left out
    outputs: list                 # likewise: what must come out


def read_case(row):
    """A row of onnx_node_cases/cases.json as a Case."""
    with np.load(REAL_DATA/"onnx_node_cases"/row["npz"]) as arrays:
        inputs, outputs = ([given and arrays[given["key"]] for given in row[side]] for side in ("inputs", "outputs"))
    return Case(row["name"], row["op"], row["attributes"], row["opset"][row["domain"] or "ai.onnx"], inputs, outputs)


def rows_of_folder():
    """The rows of onnx_node_cases/cases.json, none where the real data are not here."""
    file = REAL_DATA/"onnx_node_cases/cases.json"
    return json.loads(file.read_text()) if file.is_file() else []


def cases_of_package(op_type):
    """The package's cases of one operator: of its specification, and the models of one node that PyTorch exported."""
    return specified(op_type) + [case for case in exported() if case.op_type == op_type]


def specified(op_type):
    """The cases that the package makes when the module of an operator is imported; each is told to `expect`. So that it is
    told, whoever has imported the module before, it is imported anew."""
    from onnx import defs
    from onnx.backend.test.case import node as package
    told = []

    def expect(node, inputs, outputs, name, opset_imports=None, **_):
        opset = opset_imports[0].version if opset_imports else defs.get_schema(node.op_type, domain=node.domain).since_version
        told.append(case(name, node, opset, inputs, outputs))

    name = f"{package.__name__}.{MODULES.get(op_type, op_type.lower())}"
    sys.modules.pop(name, None)
    with mock.patch.object(package, "expect", expect):
        importlib.import_module(name)
    return told


@functools.cache
def exported():
    import onnx
    from onnx.backend import test
    found = []
    for folder in sorted(path for kind in EXPORTED for path in (Path(test.__file__).parent/"data"/kind).iterdir()):
        model = onnx.load(folder/"model.onnx")
        if len(model.graph.node) == 1:
            node, = model.graph.node
            values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
            fed = [value.name for value in model.graph.input if value.name not in values]
            values.update(zip(fed, tensors(folder, "input", len(fed)), strict=True))
            outputs = tensors(folder, "output", len(node.output))
            found.append(case(folder.name, node, model.opset_import[0].version,
                              [values[name] for name in node.input if name], outputs))
    return found


def tensors(folder, side, count):
    """The first `count` arrays of an exported model's inputs or outputs."""
    from onnx import load_tensor, numpy_helper
    return [numpy_helper.to_array(load_tensor(folder/f"test_data_set_0/{side}_{k}.pb")) for k in range(count)]


def case(name, node, opset, inputs, outputs):
    """A Case from a node and the arrays of those inputs and outputs that it names."""
    from onnx import helper
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    inputs, outputs = iter(inputs), iter(outputs)
    return Case(name, node.op_type, attributes, opset, [next(inputs) if name else None for name in node.input],
                [next(outputs) if name else None for name in node.output])
