"""The operations against cases that nobody here wrote: the single-operator tests of ONNX (onnx/backend/test/data).

Each case is a JSON row (operator, attributes, needs) and its arrays. ONNX puts the batch first, (N,C,H,W) and filters
(F,C,K,K); everything is turned to batch-last on the way in and back on the way out. A case the engine cannot express is
left out by a rule (`why_not`), never by name, and how many that are is itself tested.
"""
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zfcore.layers import Dropout, Step
from zfcore.ops.contrast_norm import contrast_norm
from zfcore.ops.conv2d import conv2d, conv2d_transpose
from zfcore.ops.linear import linear
from zfcore.ops.maxpool import Pooling, maxpool, maxpool_backward
from zfcore.ops.relu import relu
from zfcore.ops.sgd_step import sgd_step
from zfcore.ops.softmax_loss import softmax, softmax_loss

FOLDER = Path(__file__).resolve().parents[2] / "../shared/data/onnx_node_cases"
CASES = json.loads((FOLDER / "cases.json").read_text()) if FOLDER.is_dir() else []
pytestmark = pytest.mark.skipif(not CASES, reason=f"no {FOLDER}")


# ---------------------------------------------------------------------------------------- what the engine can express
def window(case):
    """(K, S, pads) of a case as ONNX means them: K and S one number an axis, pads (before, after) an axis."""
    attributes, size = case["attributes"], case["inputs"][0]["shape"][2:]
    K = attributes.get("kernel_shape") or (case["inputs"][1]["shape"][2:] if "Conv" in case["op"] else size)
    S = attributes.get("strides", [1]*len(size))
    pads = attributes.get("pads", [0]*2*len(size))
    pads = list(zip(pads[:len(size)], pads[len(size):]))
    if "SAME" in attributes.get("auto_pad", ""):
        missing = [max((-(-n//s) - 1)*s + k - n, 0) for n, k, s in zip(size, K, S)]
        pads = [(m//2, m - m//2) if attributes["auto_pad"] == "SAME_UPPER" else (m - m//2, m//2) for m in missing]
    return K, S, pads


def why_not(case):
    """Why the engine cannot express this case, or None."""
    op, attributes = case["op"], case["attributes"]
    if op not in OPERATIONS:
        return f"no {op}"
    if "random_mask" in case["needs"]:
        return "another random generator"
    if set(attributes.get("dilations", [1])) != {1}:
        return "dilated filters"
    if attributes.get("mode") == "nesterov":
        return "Nesterov's momentum"
    if op == "LRN" and attributes["size"] % 2 == 0:
        return "an even window with one map more above"
    if op in ("Conv", "ConvTranspose", "MaxPool", "GlobalMaxPool", "MaxUnpool"):
        K, S, pads = window(case)
        if len(set(K)) > 1:
            return "a window that is not square"
        if len(set(S)) > 1:
            return "a stride of its own for each axis"
        if op in ("ConvTranspose", "MaxUnpool") and len({p for pair in pads for p in pair}) > 1:
            return "padding of its own for each side, on the way down"


# ------------------------------------------------------------------------------------------ case in, what we make of it
def batch_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def batch_first(y):
    return np.moveaxis(y, -1, 0)


def framed(case, x, outside):
    """x batch-last, K, S and P of a case. Padding that differs from side to side is put around the maps here."""
    (K, *_), (S, *_), pads = window(case)
    if len({p for pair in pads for p in pair}) == 1:
        return batch_last(x), K, S, pads[0][0]
    return batch_last(np.pad(x, [(0, 0), (0, 0), *pads], constant_values=outside)), K, S, 0


def run_conv(case, x, w, b=None):
    x, _, S, P = framed(case, x, 0)
    y, _ = conv2d(x, batch_last(w), b, S, P, case["attributes"].get("group", 1), "floor")
    return [batch_first(y)]


def run_conv_transpose(case, x, w):
    x, _, S, P = framed(case, x, 0)
    H, W = case["outputs"][0]["shape"][2:]
    return [batch_first(conv2d_transpose(x, batch_last(w), S, P, H, W, case["attributes"].get("group", 1)))]


def run_maxpool(case, x):
    (_, C, H, W), by_column = x.shape, case["attributes"].get("storage_order", 0)
    rounding = "ceil" if case["attributes"].get("ceil_mode") else "floor"
    x, K, S, P = framed(case, x, -np.inf)
    y, (switches, *_) = maxpool(x, K, S, P, rounding)
    if len(case["outputs"]) == 1:
        return [batch_first(y)]
    c, p, q, n = np.indices(switches.shape)                        # where each maximum lies in all of x, batch first
    h, w = p*S - P + switches//K, q*S - P + switches % K
    place = w*H + h if by_column else h*W + w
    return [batch_first(y), batch_first((n*C + c)*H*W + place)]


def run_maxunpool(case, y, places):
    (K, *_), (S, *_), pads = window(case)
    P, (N, C, H, W) = pads[0][0], case["outputs"][0]["shape"]
    h, w = np.divmod(batch_last(places) % (H*W), W)
    _, p, q, _ = np.indices(h.shape)
    switches = ((h - p*S + P)*K + w - q*S + P).astype(np.uint8)
    return [batch_first(maxpool_backward(batch_last(y), (switches, Pooling((C, H, W, N), K, S, P), None)))]


def run_lrn(case, x):
    a = case["attributes"]
    return [batch_first(contrast_norm(batch_last(x), a["size"], a["alpha"], a["beta"], a["bias"], "mean")[0])]


def run_gemm(case, a, b, c=None):
    attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **case["attributes"]}
    x = a if attributes["transA"] else a.T                                          # (D,N)
    w = (b.T if attributes["transB"] else b)*np.float32(attributes["alpha"])        # (D,M)
    bias = np.zeros(w.shape[1], np.float32)
    if c is not None:
        bias += c.reshape(-1)*np.float32(attributes["beta"])
    return [linear(x, w, bias)[0].T]


def run_matmul(case, a, b):
    stack = case["outputs"][0]["shape"][:-2]
    y = np.empty(case["outputs"][0]["shape"], np.float32)
    a, b = np.broadcast_to(a, (*stack, *a.shape[-2:])), np.broadcast_to(b, (*stack, *b.shape[-2:]))
    for at in np.ndindex(*stack):
        y[at], = run_gemm({"attributes": {}}, a[at], b[at])
    return [y]


def by_class(case, x):
    """x as logits (M,N) with the classes of its softmax in front, and the way back."""
    if case["opset"]["ai.onnx"] < 13:                              # then: all axes from `axis` on, as one
        axis = case["attributes"].get("axis", 1)
        return x.reshape(int(np.prod(x.shape[:axis])), -1).T, lambda y: y.T.reshape(x.shape)
    in_front = np.moveaxis(x, case["attributes"].get("axis", -1), 0)
    return (in_front.reshape(len(in_front), -1),
            lambda y: np.moveaxis(y.reshape(in_front.shape), 0, case["attributes"].get("axis", -1)))


def run_softmax(case, x):
    logits, back = by_class(case, x)
    return [back(softmax(logits))]


def run_log_softmax(case, x):
    """The loss of one picture is -log of the probability of the class that its label names."""
    logits, back = by_class(case, x)
    y = np.empty_like(logits)
    for m, n in np.ndindex(y.shape):
        y[m, n] = -softmax_loss(logits[:, [n]], [m])[0]
    return [back(y)]


def run_softmax_loss(case, x, labels):
    if case["attributes"]["reduction"] == "none":
        return [np.array([softmax_loss(x[[n]].T, labels[[n]])[0] for n in range(len(x))])]
    loss, _ = softmax_loss(x.T, labels)
    return [loss*(len(x) if case["attributes"]["reduction"] == "sum" else 1)]


def run_dropout(case, x, ratio=0.5, training=False):
    y, _ = Dropout("dropout", keep_prob=1 - float(ratio)).forward(x, step=Step(7) if training else None)
    return [y, np.ones(x.shape, bool)][:len(case["outputs"])]                       # without random_mask all are kept


def run_momentum(case, rate, step, w, dw, velocity):
    """ONNX keeps the learning rate outside the velocity: ours is -rate times it."""
    a, w, v = case["attributes"], w.copy(), -rate*velocity
    sgd_step([(w, dw, v, a["norm_coefficient"])], rate*(a["beta"] if step > 0 else 1), a["alpha"])
    return [w, -v/rate]


OPERATIONS = {"Conv": run_conv, "ConvTranspose": run_conv_transpose,
              "MaxPool": run_maxpool, "GlobalMaxPool": run_maxpool, "MaxUnpool": run_maxunpool, "LRN": run_lrn,
              "Relu": lambda case, x: [relu(x)[0]], "Gemm": run_gemm, "MatMul": run_matmul,
              "Softmax": run_softmax, "LogSoftmax": run_log_softmax, "SoftmaxCrossEntropyLoss": run_softmax_loss,
              "Dropout": run_dropout, "Momentum": run_momentum}


# ------------------------------------------------------------------------------------------------------------ the tests
@pytest.mark.parametrize("case", [case for case in CASES if not why_not(case)], ids=lambda case: case["name"])
def test_the_case_has_the_expected_result(case):
    with np.load(FOLDER / case["npz"]) as arrays:
        inputs = [arrays[given["key"]] for given in case["inputs"] if given]
        expected = [arrays[wanted["key"]] for wanted in case["outputs"]]
    found = OPERATIONS[case["op"]](case, *inputs)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert np.shape(ours) == theirs.shape
        if theirs.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6*np.abs(theirs).max())
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_run_and_what_is_left_out():
    assert Counter(case["op"] for case in CASES if not why_not(case)) == {
        "Conv": 8, "ConvTranspose": 2, "MaxPool": 8, "GlobalMaxPool": 1, "MaxUnpool": 1, "LRN": 1, "Relu": 1, "Gemm": 7,
        "MatMul": 2, "Softmax": 5, "LogSoftmax": 5, "Dropout": 4, "SoftmaxCrossEntropyLoss": 3, "Momentum": 1}
    assert Counter(why_not(case) for case in CASES if why_not(case)) == {
        "no AveragePool": 8, "no GlobalAveragePool": 1, "no BatchNormalization": 3, "no Flatten": 6,
        "no NegativeLogLikelihoodLoss": 1, "dilated filters": 2, "a window that is not square": 1,
        "a stride of its own for each axis": 3, "another random generator": 2, "Nesterov's momentum": 1}
