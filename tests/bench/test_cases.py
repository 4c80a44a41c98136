"""What a case says it moves and multiplies, against the counts of a paper-and-pencil study; and which kernels are measured."""
import numpy as np
import pytest

from bench.cases import Source, cases
from bench.gpu import recorded
from bench.resources import declared
from bench.traffic import Ghost
from zfcore import backend
from zfcore.kernel import tensors
from zfcore.models.alexnet import alexnet
from zfcore.models.zfnet import tiny, zfnet
from zfcore.ops.conv2d_kernels import HOPPER

PAPER = {case.name: case for case in cases()}


@pytest.mark.parametrize("name, gigaflops, megabytes", [
    ("conv1 forward", 43.71, 671.9), ("conv1 data gradient", 43.71, 671.9), ("conv1 weight gradient", 43.71, 671.9),
    ("conv2 forward", 106.33, 239.7), ("conv2 weight gradient", 106.33, 239.7), ("conv3 forward", 38.28, 58.9),
    ("conv4 data gradient", 57.42, 71.8), ("conv5 forward", 38.28, 58.9), ("conv1 bias gradient", 0, 594.7),
    ("fc6 forward", 9.66, 157.8), ("fc7 forward", 4.29, 71.3), ("fc8 forward", 1.05, 19.0), ("fc6 backward", 2*9.66, 2*157.8 - 2.1),
    ("relu1 forward", 0, 1189.5), ("relu1 backward", 0, 1784.2), ("relu5 backward", 0, 66.5),
    ("norm1 forward", 0, 297.4), ("norm1 backward", 0, 446.1), ("norm2 backward", 0, 66.5),
    ("pool1 forward", 0, 762.0 + 37.17/2), ("pool2 backward", 0, 113.5 + 5.54/2),      # counted there with switches of 4 bits
    ("sgd_step all parameters", 0, 1247.2)])
def test_work_at_batch_128_is_that_of_the_study(name, gigaflops, megabytes):
    case = PAPER[name]
    assert case.flops(128)/1e9 == pytest.approx(gigaflops, abs=0.011)
    assert case.traffic(128)/1e6 == pytest.approx(megabytes, abs=0.11)


def test_a_training_step_multiplies_853_gigaflops():
    passes = [PAPER[f"conv{k} {what}"] for k in range(1, 6) for what in ("forward", "data gradient", "weight gradient")]
    products = [case for case in passes if case.name != "conv1 data gradient"]
    products += [PAPER[f"fc{k} {what}"] for k in (6, 7, 8) for what in ("forward", "backward")]
    assert sum(case.flops(128) for case in products)/1e9 == pytest.approx(853.3, abs=0.1)


def test_layers_that_do_the_same_are_measured_once_and_names_are_unique():
    names = [case.name for case in cases()]
    assert "relu3 forward" in names and "relu4 forward" not in names and "drop7 forward" not in names
    assert {f"conv{k} forward" for k in range(1, 6)} <= set(names) and len(names) == len(set(names))


# ------------------------------------------------------------------------------------------- what is launched for them
class Ghosts(Source):
    def __init__(self):
        super().__init__(lambda host: np.empty_like(host).view(Ghost))

    def normal(self, *shape, scale=1.0):
        return np.empty(shape, np.float32).view(Ghost)

    def outputs(self, *shape):
        return self.normal(*shape)

    gradients = outputs


@pytest.fixture
def launched(monkeypatch):
    """A function: the kernels a case launches at batch N, in order."""
    monkeypatch.setitem(backend.LAUNCHERS, Ghost, lambda kernel, grid, arguments: None)
    monkeypatch.setitem(backend.ARCHITECTURES, Ghost, lambda: HOPPER)

    def kernels(case, N):
        return [kernel for kernel, _, _ in recorded(case.run, case.draw(Ghosts(), N))[1]]

    return kernels


SMALLER = cases(zfnet(classes=16, units=(16, 16)))


def test_every_kernel_function_is_launched_at_the_papers_shapes(launched):
    kernels = {kernel.name for case in cases() for kernel in launched(case, 128)}
    assert kernels == {kernel.name for kernel in declared()}


def test_every_declared_tile_of_conv2d_is_launched_by_zfnet_alexnet_or_the_small_network_at_some_batch(launched):
    def tile(kernel):
        return kernel.name, tuple(kernel.defines.items())

    networks = SMALLER + cases(tiny()) + cases(alexnet(16, groups=2))
    convolutions = [case for case in networks if case.noun.startswith(("conv2d", "linear"))]
    # whose sums are cut
    convolutions += [case for case in PAPER.values() if case.noun == "linear" and case.precision == "bf16"]
    used = {tile(kernel) for case in convolutions for N in (1, 127, 128, 192, 256) for kernel in launched(case, N)}
    assert {tile(kernel) for kernel in declared() if kernel.file.startswith("conv2d")} <= used


KEEP = "clip_filter_rms", "strongest"          # which return what they are given, and seldom change it
IN_PART = "pad", "crop_flip"                   # which read a part of what they are given


@pytest.mark.parametrize("case", PAPER.values(), ids=PAPER)
def test_traffic_is_what_a_case_is_given_and_what_it_returns_once_each(case, monkeypatch):
    """But for vectors, which may count. What no kernel asks for, such as a pool's input on its way down, is not read."""
    monkeypatch.setitem(backend.LAUNCHERS, Ghost, lambda kernel, grid, arguments: None)
    monkeypatch.setitem(backend.ARCHITECTURES, Ghost, lambda: HOPPER)
    given, at = case.draw(Ghosts(), 128), lambda array: array.__array_interface__["data"][0]
    outputs, tape = recorded(case.run, given)
    asked = {at(array) for kernel, _, arguments in tape for _, array in tensors(kernel, arguments)}
    arrays = [array for array in given if isinstance(array, Ghost) and at(array) in asked]
    arrays += [array for array in outputs if isinstance(array, Ghost) and case.noun not in KEEP]
    # which hang on the last bit, so that they are not compared
    switches = outputs[0].size if case.what == "forward with its pool" and case.noun == "conv2d_maxpool" else 0
    least, most = (switches + sum(array.nbytes for array in arrays if array.ndim > 1 - vectors) for vectors in (0, 1))
    if case.noun in IN_PART:
        assert outputs[0].nbytes < case.traffic(128) <= most
    else:
        assert least <= case.traffic(128) <= most


def test_of_what_a_frame_cuts_off_and_what_a_crop_leaves_out_nothing_moves():
    maps, row = 128*96*4, 128*3
    assert PAPER["frame1 forward"].traffic(128) == maps*(110**2 + 112**2) and PAPER["frame1 backward"].traffic(128) == 2*maps*110**2
    assert PAPER["cut1 forward"].traffic(128) == 2*maps*109**2 and PAPER["cut1 backward"].traffic(128) == maps*(109**2 + 110**2)
    assert PAPER["crop_flip forward"].traffic(128) == row*224**2*(1 + 4)


@pytest.mark.parametrize("name, kernels", [
    ("conv2 forward", ["conv2d_forward"]), ("conv2 data gradient", ["conv2d_transpose_filters", "conv2d_transpose"]),
    ("norm1 backward", ["local_response_norm_backward"]), ("pool1 backward", ["maxpool_backward"]),
    ("average1 forward", ["avgpool_forward"]), ("average backward", ["avgpool_backward"]),
    ("frame1 forward", ["pad"]), ("cut1 backward", ["pad"]),
    ("norm1 within maps, forward", ["local_response_norm_within_forward"]),
    ("norm2 within maps, backward", ["local_response_norm_within_terms", "local_response_norm_within_backward"]),
    ("softmax_loss backward", ["softmax_loss_gradient"]), ("relu1 backward", ["relu_backward"]),
    ("conv1 weight gradient, plain kernel", ["conv2d_filter_gradient_plain"]), ("fc6 bias gradient", ["linear_bias_gradient"])])
def test_a_case_launches_what_it_is_named_after_and_nothing_else(launched, name, kernels):
    case = next(case for case in SMALLER if case.name == name)
    assert [kernel.name for kernel in launched(case, 128)] == kernels


def test_half_of_the_numbers_behind_a_relu_are_zero_and_large_arrays_repeat_out_of_step():
    source = Source(np.asarray)
    assert 0.4 < np.mean(source.outputs(3, 50, 40) == 0) < 0.6
    assert 0.4 < np.mean(source.gradients(3, 50, 40) == 0) < 0.6
    large = source.normal(33, 2**17)
    assert large.size > 2**22 and not (large[0] == large[32]).any()
    assert large.std() == pytest.approx(1, abs=0.01)
