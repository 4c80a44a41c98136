"""PyTorch's forms, on the CPU: each computes what ours computes, in both layouts, where windows reach over the border too."""
import contextlib
import weakref

import numpy as np
import pytest

from bench import peers
from bench.cases import Source, cases
from bench.gpu import error, truth
from zfcore.kernel import PRECISIONS
from zfcore.models.zfnet import tiny
from zfcore.ops.convert import from_bf16, to_bf16

torch = pytest.importorskip("torch")
N = 3
CASES = [case for case in cases(tiny(size=52)) if (case.noun, case.what) in peers.TORCH and (      # conv1 and pool1 reach over
    # maps are stored in bf16 on devices alone
    case.precision != "bf16" or case.noun in ("conv2d", "conv2d_maxpool", "linear"))]


# On the CPU PyTorch computes in TF32 what it does in float32.
@pytest.mark.parametrize("case",
                         [pytest.param(case, id=case.name,
                                       marks=[pytest.mark.exhaustive]*(case.precision in ("tf32", "fp32x3")))
                                  for case in CASES])
def test_pytorch_computes_what_ours_does(case):
    arrays = case.draw(Source(np.asarray), N)
    wanted, _ = truth(case, [a.copy() for a in arrays], N)
    made = peers.peers(case)
    assert len(made) == (2 if case.noun in peers.IN_LAYOUTS else 1)
    for name, make in made:
        contestant = make([arrays, [a.copy() for a in arrays]], clock=None)
        got = contestant.output()
        if case.noun == "dropout":
            assert got is None
            continue
        assert error(got, wanted[:len(got)]) < (1e-2 if case.precision == "bf16" else 1e-5), name
        if case.precision == "bf16":
            assert error(got, wanted[:len(got)]) > 5e-4, "not in bfloat16"
        contestant.once()
        assert contestant.sets == 2


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if (case.noun, case.what) in peers.FUSED])
def test_where_there_is_a_gpu_cudnns_fused_operation_is_a_peer_too_and_is_asked_for_what_ours_does(case, monkeypatch):
    def on_a_cpu(x, w, b, stride, padding, dilation, groups):          # as ATen declares it, and NVIDIA's GPUs alone have it
        return torch.relu(torch.conv2d(x, w, b, stride, padding, dilation, groups))

    schema = torch.ops.aten.cudnn_convolution_relu.default._schema
    assert [argument.name for argument in schema.arguments] == ["self", "weight", "bias", "stride", "padding", "dilation", "groups"]
    monkeypatch.setattr(torch, "cudnn_convolution_relu", on_a_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arrays = case.draw(Source(np.asarray), N)
    wanted, _ = truth(case, [a.copy() for a in arrays], N)
    made = dict(peers.peers(case))
    assert list(made) == [f"PyTorch {form}{layout}" for form in ("", "fused ") for layout in peers.LAYOUTS]
    for layout in peers.LAYOUTS:
        got = made[f"PyTorch fused {layout}"]([arrays], clock=None).output()
        assert error(got, wanted[:len(got)]) < (1e-2 if case.precision == "bf16" else 1e-5)


@pytest.mark.parametrize("captured", [False, True], ids=["in a loop", "in a graph"])
def test_outputs_of_two_sets_do_not_share_memory_and_those_of_two_passes_do_not_add_up(captured, monkeypatch):
    case, made, alive = next(case for case in CASES if case.noun == "relu"), [], []

    def build(layout, window, x):
        def call():
            alive.append(sum(output() is not None for output in made))         # what is held cannot be lent to this one
            made.append(weakref.ref(output := torch.empty_like(x)))
            return output
        return call
    monkeypatch.setitem(peers.TORCH, (case.noun, case.what), build)
    monkeypatch.setattr(torch.cuda, "graph", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    (_, make), *_ = peers.peers(case)
    contestant = make([case.draw(Source(np.asarray), N) for _ in range(3)], clock=None)
    if captured:
        contestant.capture(contestant.once, 2)
    else:
        contestant.once()
        contestant.once()
    assert alive == [0, 1, 2]*2


def test_every_operation_that_pytorch_has_is_measured_beside_it():
    alone = {(case.noun, case.what) for case in cases()} - set(peers.TORCH)
    assert alone == {("conv2d", f"{what}, plain kernel") for what in peers.CONVOLUTIONS} | {
        ("hinge_loss", "forward"), ("hinge_loss", "backward"), ("clip_filter_rms", "all filters"),
        ("convert", "to bf16"), ("convert", "from bf16"), ("tree_sum", "a share of 8 ranks"),
        ("crop_flip", "forward"), ("softmax_loss", "forward, added up"), ("strongest", "nine strongest"),
        ("local_response_norm_within", "within maps, forward"), ("local_response_norm_within", "within maps, backward"),
        ("conv2d_maxpool", "weight gradient through its pool")}
    assert {(case.noun, case.what) for case in cases()} > set(peers.TORCH)


def test_the_layouts_are_what_they_are_called():
    x = torch.zeros(2, 3, 4, 5)
    first, last = (peers.laid_out(layout, x)[0] for layout in peers.LAYOUTS)
    assert first.stride() == (60, 20, 5, 1) and last.stride() == (60, 1, 15, 3)


def test_tensor_shares_the_memory_and_back_undoes_it():
    x = np.arange(2*3*4*5, dtype=np.float32).reshape(2, 3, 4, 5)
    seen = peers.tensor(x)
    assert seen.shape == (5, 2, 3, 4) and seen.data_ptr() == x.ctypes.data
    np.testing.assert_array_equal(peers.back(seen), x)
    assert peers.tensor(np.zeros(3, np.float32)).shape == (3,) and peers.tensor(np.arange(3)).dtype == torch.int64


def test_without_libraries_there_are_no_peers(monkeypatch):
    monkeypatch.setattr(peers, "torch", None)
    monkeypatch.setattr(peers, "cudnn", None)
    assert not any(peers.peers(case) for case in CASES)
    assert peers.versions() == {"pytorch": None, "cudnn": None, "cudnn_frontend": None}
    peers.strict_fp32()


def test_float32_products_are_rounded_to_tf32_only_where_that_is_asked(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    allowed = lambda: {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}
    peers.strict_fp32()
    assert "NVIDIA_TF32_OVERRIDE" not in peers.os.environ
    assert allowed() == {False}
    for precision in PRECISIONS:
        with peers.products_in(precision):
            assert allowed() == {precision == "tf32"}
        assert allowed() == {False}


def test_pytorch_tries_every_algorithm_of_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark_limit", 10)            # PyTorch's own
    peers.strict_fp32()
    assert torch.backends.cudnn.benchmark and torch.backends.cudnn.benchmark_limit == 0


def test_bfloat16_is_pytorchs():
    x = np.concatenate([np.random.default_rng(0).standard_normal(1000, np.float32),
                        np.float32([1 + 2**-8, 1 + 3*2**-8, 0, -0.0])])
    short = to_bf16(x)
    np.testing.assert_array_equal(short, torch.from_numpy(x).bfloat16().view(torch.uint16).numpy())
    np.testing.assert_array_equal(from_bf16(short), torch.from_numpy(x).bfloat16().float().numpy())
