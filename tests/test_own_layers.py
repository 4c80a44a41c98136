"""Kinds of layer that zfcore does not know: what it takes from them is looked at where it is taken, and what it does not know of
them it asks, or says."""
import re
import runpy
from dataclasses import dataclass, replace

import numpy as np
import pytest

import zfcore
from tests.train.test_given import Squares
from zfcore import checkpoint
from zfcore.analysis.occlusion import occlusion
from zfcore.analysis.portraits import net_weights
from zfcore.analysis.sanity_checks import with_weights_of
from zfcore.analysis.top_activations import top_activations, unit_views
from zfcore.check import Expected
from zfcore.checkpoint import Checkpoint
from zfcore.deconvnet import DECONVNET, GRADIENT, GUIDED, descend, feature_layer, project, start_signal
from zfcore.layers import KINDS, BatchNorm, Conv, Flatten, Layer, Linear, LocalResponseNorm, MaxPool, Pixelwise, ReLU, Whole
from zfcore.models.folded import folded
from zfcore.network import Network
from zfcore.ops.window import cut
from zfcore.trained import Trained
from zfcore.training import TrainConfig, Training

MEAN, NAMES = np.full((3, 9, 9), 100, np.float32), ["ant", "bee", "cow"]


@dataclass
class Gain(Pixelwise):
    """Each unit by a factor of its own. Its cache, the input, holds no weights."""
    has_weights = by_units = True

    def parameter_shapes(self, shape):
        return {"w": shape[:1], "b": shape[:1]}

    def init(self, shape, seed, law, factor):
        return {"w": np.linspace(0.5, 2, shape[0], dtype=np.float32), "b": np.linspace(-1, 1, shape[0], dtype=np.float32)}, {}

    def of(self, key, maps):
        return self.parameters[key].reshape(-1, *[1]*(maps.ndim - 1))

    def forward(self, x, step=None):
        return x*self.of("w", x) + self.of("b", x), x

    def backward(self, dy, x):
        others = tuple(range(1, x.ndim))
        return dy*self.of("w", x), {"w": (dy*x).sum(axis=others), "b": dy.sum(axis=others)}

    def cut_cache(self, x, outputs, inputs):
        return cut(x, outputs)

    def reweighted(self, x):
        return x


class Silent(Gain):
    """Does not answer what layers with weights are asked."""
    by_units, reweighted = False, Layer.reweighted


def network(gain=Gain, *behind):
    return Network("own", (3, 9, 9), [Conv("conv1", 4, K=3, S=2), ReLU("relu1"), gain("gain"), MaxPool("pool1", 2, 2),
                                      Flatten("flat"), Linear("fc2", 3), *behind])


def pictures(n=2):
    return np.random.default_rng(0).integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)


X = pictures().transpose(3, 1, 2, 0) - MEAN[..., None]


# -------------------------------------------------------------------------------------------------- what is taken from it
def with_more(self, dy, x):
    dx, grads = Gain.backward(self, dy, x)
    return dx, {**grads, "c": grads["b"]}


WRONG = [
    ("init", lambda *_: ({}, {}), "gain: parameters that init returns: expected w, b, got none"),
    ("init", Layer.init, "gain: parameters that init returns: expected w, b, got none"),
    ("init", lambda *_: None, "gain: init: expected two things returned, .*, got None"),
    ("init", lambda *_: ({"w": np.ones(4, np.float32), "b": np.ones(5, np.float32)}, {}), r"gain: init: b: expected shape \(4,\), got \(5,\)"),
    ("init", lambda *_: ({"w": np.ones(4), "b": np.ones(4)}, {}), "gain: init: w: expected float32, got float64"),
    ("init", lambda *_: ({"w": np.full(4, np.inf, np.float32), "b": np.ones(4, np.float32)}, {}), "gain: init: w: expected finite values"),
    ("init", lambda *_: ({"w": [1.0]*4, "b": [1.0]*4}, {}), r"gain: init: w: expected an array \(4,\), got list"),
    ("buffer_shapes", lambda *_: {"mean": (4,)}, "gain: buffers that init returns: expected mean, got none"),
    ("forward", lambda self, x, step=None: x, "gain: forward: expected two things returned"),
    ("forward", lambda self, x, step=None: None, "gain: forward: expected two things returned, .*, got None"),
    ("forward", lambda self, x, step=None: (x[1:], x), r"gain: what forward returns: expected shape \(4, 4, 4, 2\), got \(3, 4, 4, 2\)"),
    ("forward", lambda self, x, step=None: (x*1j, x), "gain: what forward returns: expected float32, got complex64"),
    ("forward", lambda self, x, step=None: (x.astype(float), x), "gain: what forward returns: expected float32, got float64"),
    ("backward", lambda self, dy, x: None, "gain: backward: expected two things returned, .*, got None"),
    ("backward", lambda self, dy, x: (None, Gain.backward(self, dy, x)[1]), "gain: what backward returns: expected an array .*, got None"),
    ("backward", lambda self, dy, x: (dy[1:], Gain.backward(self, dy, x)[1]), "gain: what backward returns: expected shape"),
    ("backward", lambda self, dy, x: (dy, {}), "gain: gradients that backward returns: expected w, b, got none"),
    ("backward", with_more, "gain: gradients that backward returns: expected w, b, got w, b, c"),
    ("backward", lambda self, dy, x: (dy, {"w": dy, "b": dy}), r"gain: gradient of w: expected shape \(4,\)"),
    ("backward", lambda self, dy, x: (dy, {"w": np.ones(4), "b": np.ones(4)}), "gain: gradient of w: expected float32, got float64")]


@pytest.mark.parametrize("method, odd, sentence", WRONG)
def test_what_a_layer_gives_otherwise_than_it_told_is_said_of_it(method, odd, sentence):
    of = network(type("Odd", (Gain,), {method: odd}))
    with pytest.raises(Expected, match=f"^{sentence}"):
        y, caches = of.init(1).forward(X, 0)
        of.backward(np.ones_like(y), caches, to_pixels=False)
    if method not in ("backward", "forward"):
        assert of.drawn is None and not of.parameters()                # what is refused leaves the network as it was


def test_a_first_layer_s_gradients_are_looked_at_as_all_others():
    odd = type("Odd", (Gain,), {"backward": lambda self, dy, x: (dy, {"w": dy, "b": dy})})
    of = Network("first", (3, 9, 9), [odd("gain")]).init(1)
    y, caches = of.forward(X, 0)
    for to_pixels in (False, True):
        with pytest.raises(Expected, match="^gain: gradient of w: expected shape"):
            of.backward(y, caches, to_pixels=to_pixels)


@dataclass
class Kept(Pixelwise):
    """Keeps whatever it is given."""
    value: object

    def forward(self, x, step=None):
        return x, None

    def backward(self, dy, cache):
        return dy, {}

    def cut_cache(self, cache, outputs, inputs):
        return None


@pytest.mark.parametrize("value", [(3, 4), [[1, (2,)]], {1: 2}, {"a": float("nan")}, {3}, np.float32(0.5), np.ones(2), len, 10**50], ids=str)
def test_a_field_that_a_file_does_not_give_back_as_it_is_is_refused(value):
    with pytest.raises(Expected, match=f"^own: kept: value: expected what JSON gives back equal, got {re.escape(repr(value)[:60])};"):
        Network("own", (3, 9, 9), [Flatten("flat"), Kept("kept", value)])


@pytest.mark.parametrize("value", [None, True, 2, -0.5, float("inf"), "\u00fc\n\udcff", [1, [2.5, None]], {"a": {"b": [1]}}, []])
def test_a_field_that_json_has_is_the_file_s_own(tmp_path, monkeypatch, value):
    monkeypatch.setitem(KINDS, "Kept", Kept)
    of = Network("own", (3, 9, 9), [Kept("kept", value), Flatten("flat"), Linear("fc2", 3)]).init(1)
    checkpoint.save(tmp_path/"a.h5", Checkpoint("own", of.input_shape, of.table(), NAMES, of.parameters(), mean_image=MEAN))
    opened = zfcore.open(tmp_path/"a.h5").network
    assert opened.table() == of.table() and type(opened["kept"].value) is type(value)
    opened.backward(*of.forward(X))                                    # caches of one alike


def test_a_layer_that_lacks_a_parameter_is_told_with_those_that_it_has():
    of = network().init(1)
    del of["gain"].parameters["b"]
    for ask in (lambda: of.forward(X), lambda: of.activations(X, ["relu1"]), lambda: of.use("fp32")):
        with pytest.raises(Expected, match="^own: parameters of gain: expected w, b, got w$"):
            ask()


def test_weights_are_called_w():
    with pytest.raises(Expected, match="^own: gain: expected weights called w, as it says has_weights, got g$"):
        network(type("Odd", (Gain,), {"parameter_shapes": lambda self, shape: {"g": shape[:1]}}))


def of_other_shape(kind, **shapes):
    return type("Odd", (kind,), {"parameter_shapes": lambda self, shape: shapes})


@pytest.mark.parametrize("w", [(6, 3, 5, 5), (3, 5, 5, 7), (2, 5, 5, 6), (3, 5, 4, 6), (75, 6), (0, 5, 5, 6)], ids=str)
def test_filters_are_laid_out_as_everybody_takes_them(w):
    """The limit on their RMS and whoever shows them would take those of another engine for others, without a word."""
    with pytest.raises(Expected, match=rf"^own: conv: w: expected filters \(C,K,K,6\) of C of its 3 maps, .*, got {re.escape(str(w))}$"):
        Network("own", (3, 9, 9), [of_other_shape(Conv, w=w, b=(6,))("conv", 6, 5)])
    Network("own", (3, 9, 9), [of_other_shape(Conv, w=(1, 5, 5, 6), b=(6,))("conv", 6, 5)])


@pytest.mark.parametrize("shapes, got", [({"w": (3, 4)}, "w (3, 4)"), ({"w": (4, 3), "b": (4,)}, "w (4, 3), b (4,)")])
def test_what_says_that_it_is_affine_has_biases_and_weights_for_each_output(shapes, got):
    with pytest.raises(Expected, match=rf"^own: fc: expected w \(...,4\) and b \(4,\), as it says affine, got {re.escape(got)}$"):
        Network("own", (3, 1, 1), [Flatten("flat"), of_other_shape(Linear, **shapes)("fc", 4)])


@pytest.mark.parametrize("affine", [False, True])
def test_a_batch_normalisation_is_folded_into_what_says_that_it_is_affine_alone(affine, monkeypatch):
    """Weights may do anything: only those that form a sum may take a factor in."""
    class Own(Gain):
        def forward(self, x, step=None):
            y, x = Gain.forward(self, x)
            return (y if self.affine else y*np.abs(x)), x

    monkeypatch.setattr(Own, "affine", affine)
    monkeypatch.setitem(KINDS, "Own", Own)
    of = network(Own, BatchNorm("bn"), Own("own"), BatchNorm("last")).init(1, "he")
    of["last"].buffers = {"mean": np.float32([1, 2, 3]), "var": np.float32([4, 5, 6])}
    if affine:
        np.testing.assert_allclose(folded(of).forward(X)[0], of.forward(X)[0], rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(Expected, match="^last: expected a convolution or a fully connected layer right below .*, got own$"):
            folded(of)


@pytest.mark.parametrize("places", [None, np.array([[1, 0], [3, 2]])], ids=["dense", "cone"])
def test_what_a_rule_hands_down_is_looked_at_on_every_way(places):
    of = network().init(1)
    y, caches = of.forward(X, until="relu1")
    for odd, got in ((None, "None"), (y[1:, :1, :1], r"\(3, 1, 1, 2\)"), (y[:, :1, :1].astype(float), "float64|shape")):
        with pytest.raises(Expected, match=f"^relu1: what its rule returns: expected .*({got})"):
            descend(of, y, caches, {ReLU: lambda layer, dy, cache: odd}, places)


class Masked(ReLU):
    """ReLU up to 20, whose cache says where it is on."""
    def forward(self, x, step=None):
        return np.clip(x, 0, 20), (x > 0) & (x < 20)

    def backward(self, dy, on):
        return dy*on, {}


@pytest.mark.parametrize("places", [None, np.array([[1, 0], [3, 2]])], ids=["dense", "cone"])
def test_guided_backpropagation_asks_a_kind_of_relu_with_a_cache_of_its_own_where_it_was_on(places):
    of = Network("own", (3, 9, 9), [Conv("conv1", 4, K=3, S=2), Masked("masked1")]).init(1, "he")
    (y, caches), dy = of.forward(X), np.zeros((4, 4, 4, 2), np.float32)
    for n, (row, column) in enumerate([[1, 0], [3, 2]]):
        dy[:, row, column, n] = 1, -1, 2, 3
    wanted = descend(of, np.maximum(dy, 0)*(y > 0)*(y < 20), [caches[0], np.ones_like(caches[1])], GRADIENT)
    np.testing.assert_allclose(descend(of, dy, caches, GUIDED, places), wanted, rtol=1e-5, atol=1e-6)
    assert 0 < caches[1].mean() < 1 and wanted.any()


def test_activations_are_looked_at_as_what_goes_up():
    of = network(type("Odd", (Gain,), {"forward": lambda self, x, step=None: (x[1:], x)})).init(1)
    with pytest.raises(Expected, match="^gain: what forward returns: expected shape"):
        of.activations(X, ["gain"])


@dataclass
class Keeping(Gain):
    """Keeps the mean of each unit."""

    def buffer_shapes(self, shape):
        return {"mean": shape[:1]}

    def init(self, shape, *how):
        return Gain.init(self, shape, *how)[0], {"mean": np.zeros(shape[:1], np.float32)}

    def forward(self, x, step=None):
        if step is not None:
            self.moved(x.mean(axis=tuple(range(1, x.ndim))))
        return Gain.forward(self, x)

    def moved(self, mean):
        self.buffers["mean"] = 0.9*self.buffers["mean"] + 0.1*mean


LEFT = [("buffers", lambda m: {"mean": m.astype(float)}, "forward leaves mean: expected float32, got float64"),
        ("buffers", lambda m: {"mean": m[1:]}, r"forward leaves mean: expected shape \(4,\), got \(3,\)"),
        ("buffers", lambda m: {"mean": m.tolist()}, r"forward leaves mean: expected an array \(4,\), got list"),
        ("buffers", lambda m: {"mean": m, "var": m}, "buffers that forward leaves: expected mean, got mean, var"),
        ("buffers", lambda m: {}, "buffers that forward leaves: expected mean, got none"),
        ("parameters", lambda m: {"w": m.astype(np.float16), "b": m}, "forward leaves w: expected float32, got float16")]


@pytest.mark.parametrize("which, odd, sentence", LEFT)
def test_arrays_that_a_layer_leaves_otherwise_than_it_told_are_said_of_it_in_the_first_step(which, odd, sentence):
    of = network(type("Odd", (Keeping,), {"moved": lambda self, mean: setattr(self, which, odd(mean))})).init(1)
    with pytest.raises(Expected, match=f"^gain: {sentence}"):
        of.forward(X, 0)


def test_arrays_that_a_layer_leaves_as_it_told_are_taken_also_in_float64():
    of = network(Keeping).init(1)
    of.forward(X, 0)
    assert of.buffers()["gain"]["mean"].any()
    for layer in of.layers:
        layer.parameters = {key: array.astype(float) for key, array in layer.parameters.items()}
    of.forward(X.astype(float), 1)
    assert of.buffers()["gain"]["mean"].dtype == float


@pytest.mark.parametrize("command", ["zfcore.__main__", "train.evaluate"])
def test_a_script_that_enters_a_kind_and_calls_a_command_opens_networks_with_it(tmp_path, monkeypatch, capsys, command):
    of, file, script = network().init(1), tmp_path/"own.h5", tmp_path/"look.py"
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "Gain", Gain)
        checkpoint.save(file, Checkpoint("own", of.input_shape, of.table(), NAMES, of.parameters(), mean_image=MEAN))
    words = {"zfcore.__main__": ["occlusion", "--run", str(file)], "train.evaluate": ["--run", str(file), "--data", str(tmp_path/"none")]}
    monkeypatch.setattr("sys.argv", ["look.py", *words[command]])
    monkeypatch.setattr("zfcore.layers.KINDS", {**KINDS})
    enters = "from tests.test_own_layers import Gain; from zfcore import layers; layers.KINDS['Gain'] = Gain\n"
    for first, sentence in (("", "then calls the command's main"), (enters, "--images|--data")):
        script.write_text(f"{first}from {command} import main\nmain()\n")
        with pytest.raises(SystemExit):
            runpy.run_path(str(script))
        told = " ".join(capsys.readouterr().err.split())
        assert re.search(sentence, told) and ("KINDS" in told) == (not first)


# ---------------------------------------------------------------------------------------------------- what it is asked
def test_weights_of_the_start_are_asked_of_the_layer():
    of, start = network().init(1, "he"), network().init(1, "he")
    start["gain"].parameters["w"] = 2*start["gain"].parameters["w"]
    y, caches = of.forward(X)
    np.testing.assert_allclose(descend(of, y, caches, with_weights_of(start)), 2*descend(of, y, caches, DECONVNET), rtol=1e-5)
    np.testing.assert_array_equal(descend(of, y, caches, with_weights_of(of)), descend(of, y, caches, DECONVNET))


def test_what_a_layer_with_weights_does_not_answer_is_said():
    of = network(Silent).init(1, "he")
    y, caches = of.forward(X)
    for ask, question in ((lambda: descend(of, y, caches, with_weights_of(of)), "reweighted"), (lambda: net_weights(of, "gain"), "net_weights")):
        with pytest.raises(Expected, match=rf"^gain: expected a layer that answers {question}\(.*\), got Silent, which does not; define it"):
            ask()


def test_a_window_of_ones_own_that_knows_no_padding_is_occluded_by_whole_maps_alone():
    class Largest(MaxPool):
        inside = Layer.inside

    made = Network("own", (3, 9, 9), [Conv("conv1", 4, K=3), Largest("largest", 2, 2), Flatten("flat"), Linear("fc2", 3)]).init(1, "he")
    with pytest.raises(Expected, match=r"^largest: expected a layer that answers inside\(outputs\), .* or .* by incremental=False$"):
        occlusion(Trained(made, MEAN), pictures(1), [0], size=4, stride=4)
    assert occlusion(Trained(made, MEAN), pictures(1), [0], size=4, stride=4, incremental=False).probabilities.size


@pytest.mark.parametrize("behind", [[], [Gain("scores")], [BatchNorm("bn"), ReLU("relu"), Gain("scores")], [Linear("fc3", 3)]])
def test_the_order_of_classes_is_that_of_the_layer_that_makes_the_scores(behind):
    model, order = Trained(network(Gain, *behind).init(1, "he"), MEAN, NAMES), [2, 0, 1]
    x = np.random.default_rng(1).standard_normal((3, 9, 9, 5)).astype(np.float32)
    turned = model.with_classes([NAMES[k] for k in order])
    np.testing.assert_array_equal(turned.network.forward(x)[0], model.network.forward(x)[0][order])
    assert len({*model.network.forward(x)[0][:, 0].tolist()}) == 3


def one_for_all(shape):
    return type("OneForAll", (Gain,), {"parameter_shapes": lambda self, of: {"w": of[:1], "b": shape}, "init": lambda self, *of: (
        {"w": np.float32([0.5, 1, 2]), "b": np.full(shape, 3, np.float32)}, {})})


@pytest.mark.parametrize("shape", [(1,), ()])
def test_an_array_of_one_entry_is_every_unit_s(shape):
    model, order = Trained(network(Gain, one_for_all(shape)("scores")).init(1, "he"), MEAN, NAMES), [2, 0, 1]
    turned = model.with_classes([NAMES[k] for k in order])
    np.testing.assert_array_equal(turned.network.forward(X)[0], model.network.forward(X)[0][order])


@dataclass
class OneSlope(Pixelwise):
    """A PReLU with one slope for all, a single number, and a count of the batches that it saw, another."""
    by_units = True

    def parameter_shapes(self, shape):
        return {"slope": ()}

    def buffer_shapes(self, shape):
        return {"seen": ()}

    def init(self, shape, seed, law, factor):
        return {"slope": np.array(0.25, np.float32)}, {"seen": np.array(0, np.float32)}

    def forward(self, x, step=None):
        if step is not None:
            self.buffers["seen"][...] += 1
        return np.where(x > 0, x, self.parameters["slope"]*x), x

    def backward(self, dy, x):
        return dy*np.where(x > 0, np.float32(1), self.parameters["slope"]), {"slope": np.array((dy*np.minimum(x, 0)).sum())}

    def cut_cache(self, x, outputs, inputs):
        return cut(x, outputs)


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_a_single_number_as_a_parameter_trains_is_saved_and_opens_again_with_the_same_bits(micro_batch, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "OneSlope", OneSlope)
    config = TrainConfig(data=None, image_size=32, epochs=2, batch_size=5, lr=1e-3, init="he", device="cpu", workers=0,
                         micro_batch=micro_batch, keep_epochs=())
    data = Squares(15), Squares(6, 1)
    layers = lambda: Network("own", (3, 32, 32), [Conv("conv1", 4, K=5, S=4), OneSlope("slope"), Flatten("flat"),
                                                  Linear("fc2", 3)])
    whole = Training.begin(config, tmp_path/"whole", data=data, network=layers())
    Training.begin(replace(config, epochs=1), tmp_path/"run", data=data, network=layers()).run()
    resumed = Training.resume(tmp_path/"run", data=data, epochs=2)
    for run in whole, resumed:
        run.run()
    slope, opened = whole.network["slope"].parameters["slope"], zfcore.open(tmp_path/"run"/"latest.h5").network["slope"]
    assert slope != 0.25 and slope.shape == () and slope.tobytes() == opened.parameters["slope"].tobytes()
    assert opened.buffers["seen"] == (6 if not micro_batch else 18)
    before, after = (checkpoint.load(tmp_path/name/"latest.h5") for name in ("whole", "run"))
    assert before.velocity["slope"]["slope"].tobytes() == after.velocity["slope"]["slope"].tobytes() != bytes(4)


def test_an_array_that_is_not_one_entry_a_unit_has_no_order():
    model = Trained(network(Gain, one_for_all((6,))("scores")).init(1, "he"), MEAN, NAMES)
    with pytest.raises(Expected, match=r"^scores: b, whose last axis are to be the units: expected shape \(3,\), got \(6,\)$"):
        model.with_classes(NAMES[::-1])


@pytest.mark.parametrize("behind, sentence", [
    ([Silent("scores")], r"scores: expected a layer that answers reordered\(order\), or by_units = True, got Silent"),
    ([LocalResponseNorm("norm")], r"norm: expected a layer that answers reordered\(order\)")])
def test_an_order_that_nobody_knows_how_to_change_is_refused(behind, sentence):
    model = Trained(network(Gain, *behind).init(1, "he"), MEAN, NAMES)
    with pytest.raises(Expected, match=f"^{sentence}"):
        model.with_classes(NAMES[::-1])
    assert model.with_classes(NAMES).classes == NAMES                  # none need be changed


@pytest.mark.parametrize("layers, sentence", [
    ([Conv("conv1", 1, K=7), MaxPool("pool", K=1, S=1), Flatten("flat")], "flat: expected as many units below as classes, 9, got 1"),
    ([MaxPool("pool", 9, 9), Flatten("flat")], "classes: expected a layer that makes the scores, .*, got none")])
def test_scores_that_no_layer_makes_have_no_other_order(layers, sentence):
    made = Network("own", (3, 9, 9), layers).init(1)
    names = [str(k) for k in range(made.shapes[-1][0])]
    with pytest.raises(Expected, match=f"^own: {sentence}"):
        Trained(made, MEAN, names).with_classes(names[::-1])


# -------------------------------------------------------------------------------------------- maps that see all of the maps below
@dataclass
class GlobalMax(Whole):
    """Maximum of each map, in a map of one pixel."""
    has_switches = keeps_positive = by_units = True

    def shape_out(self, shape):
        return shape[0], 1, 1

    def forward(self, x, step=None):
        flat = x.reshape(len(x), -1, x.shape[-1])
        where = flat.argmax(axis=1)[:, None]
        return np.take_along_axis(flat, where, 1).reshape(len(x), 1, 1, -1), (where, x.shape)

    def backward(self, dy, cache):
        where, shape = cache
        dx = np.zeros((len(dy), shape[1]*shape[2], shape[3]), dy.dtype)
        np.put_along_axis(dx, where, dy.reshape(where.shape), 1)
        return dx.reshape(shape), {}


@dataclass
class Doubled(Whole):
    """Each pixel four times, side by side: no window KxK at a stride says what one of its outputs sees."""
    keeps_positive = by_units = True

    def shape_out(self, shape):
        return shape[0], 2*shape[1], 2*shape[2]

    def forward(self, x, step=None):
        return x.repeat(2, axis=1).repeat(2, axis=2), None

    def backward(self, dy, cache):
        C, H, W, N = dy.shape
        return dy.reshape(C, H//2, 2, W//2, 2, N).sum(axis=(2, 4)), {}


def behind_windows(kind, first=False):
    whole = [kind("whole")]
    return Network("own", (3, 9, 9), [*whole*first, Conv("conv1", 4, K=3), ReLU("relu1"), *whole*(not first), Conv("conv2", 5, K=1),
                                      ReLU("relu2"), Flatten("flat"), Linear("fc3", 3)]).init(1, "he")


SEEING_ALL = pytest.mark.parametrize("kind, first", [(GlobalMax, False), (Doubled, False), (Doubled, True)])


@SEEING_ALL
def test_from_a_layer_that_sees_all_maps_on_every_unit_sees_the_whole_picture(kind, first):
    of = behind_windows(kind, first)
    at = of.index("whole")
    assert of.receptive_fields() == [(3, 1, 0)]*at + [None]*(len(of.layers) - at)
    assert [line.split()[-1] for line in of.summary().splitlines()[2:-1]] == ["3/1"]*at + ["all"]*(len(of.layers) - at)


@SEEING_ALL
@pytest.mark.parametrize("rules", [GRADIENT, DECONVNET, GUIDED], ids=["gradient", "deconvnet", "guided"])
def test_the_way_down_from_maps_that_see_all_of_those_below_is_the_dense_one(kind, first, rules):
    of = behind_windows(kind, first)
    for name in ("conv1", "whole", "conv2"):
        y, caches = of.forward(X, until=of.layers[feature_layer(of, name)].name)
        found = project(of, X, name, [1, 2], rules=rules)
        dy = start_signal(y, np.array([1, 2]), found.places, found.values)
        np.testing.assert_allclose(found.pixels, of.backward(dy, caches, rules)[0], rtol=1e-5, atol=1e-4)
        assert found.pixels.any()


@SEEING_ALL
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_a_square_is_slid_below_and_behind_a_layer_that_sees_all_maps(kind, first, layer):
    model = Trained(behind_windows(kind, first), MEAN)
    cone, whole = (occlusion(model, pictures(), [0, 2], layer=layer, size=3, stride=2, incremental=how) for how in (True, False))
    for name in ("sums", "probabilities"):
        np.testing.assert_allclose(getattr(cone, name), getattr(whole, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert whole.sums.std() > 0


@SEEING_ALL
def test_views_of_units_that_see_all_maps_show_the_whole_picture(kind, first):
    model = Trained(behind_windows(kind, first), MEAN, NAMES)
    of = model.prepared(Squares(6))
    top = top_activations(model, of, ["conv1", "whole", "conv2"], k=2)
    for layer in top.values:
        f = 3 if layer == "conv1" and not first else 9
        views = unit_views(model, of, top, layer, [1, 2])
        filled = views.pictures >= 0
        assert views.projections.shape == (2, 2, f, f, 3) and filled.any()
        if f == 9:
            assert (views.boxes[filled] == [0, 0, 9, 9]).all()
