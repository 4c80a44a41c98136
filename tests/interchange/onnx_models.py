"""ONNX models for tests: chains of nodes, and the graphs of the package onnx with weights drawn."""
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx, which reads and writes such files, is not installed")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT


def chain(path, shape, nodes, constants=(), opset=13, batch="N", kind=FLOAT, ir=7, output=None):
    """Write a model of `nodes` to `path`: (op_type, constants it reads, attributes), each reading what the one before gives, or
    NodeProto. `shape` is that of a picture as the file has it; constants {name: array}."""
    protos, at = [], "x"
    for k, node in enumerate(nodes):
        if isinstance(node, tuple):
            op_type, names, attributes = (*node, {})[:3] if len(node) < 3 else node
            node = helper.make_node(op_type, [at, *names], [f"t{k}"], f"node{k}", **attributes)
        protos.append(node)
        at = node.output[0]
    graph = helper.make_graph(protos, "chain", [helper.make_tensor_value_info("x", kind, [batch, *shape])],
                              [onnx.ValueInfoProto(name=output or at)],
                              [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()])
    path.write_bytes(helper.make_model(graph, ir_version=ir,
                                       opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())
    return path


def of_package(name, path, side=224, fc6=None, seed=0):
    """Write the graph called `name` of the package onnx to `path`, its weights drawn so that the signal keeps its size; for
    pictures of another `side`, of which `fc6` units enter the layer of that name."""
    model = onnx.load(Path(onnx.__file__).parent/f"backend/test/data/light/light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in shapes:
            for dim in value.type.tensor_type.shape.dim[2:]:
                dim.dim_value = side
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = shapes[node.input[0]].tolist()
        if fc6 and "fc6_w" in node.output[0]:
            shape[1] = fc6
        w = rng.standard_normal(shape, np.float32)*np.float32(np.sqrt(2/np.prod(shape[1:])) if len(shape) > 1 else 0.1)
        graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(w, node.output[0]))
    for tensor in graph.initializer:
        if fc6 and tensor.name == "OC2_DUMMY_1":
            tensor.CopyFrom(numpy_helper.from_array(np.array([1, fc6]), tensor.name))
    path.write_bytes(model.SerializeToString())
    return path
