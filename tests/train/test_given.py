"""Training on data sets and networks that are given in Python: what a run knows of them, what it says it does not, what is
refused, and when."""
import csv
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import zfcore
from tests.train.conftest import write_set
from tests.train.test_loop import assert_same_bits
from train.__main__ import main as train
from train.evaluate import main as evaluate_command
from zfcore.analysis.sanity_checks import last_convolution, shares_of_start
from zfcore import checkpoint, results
from zfcore.analysis import top_activations as passes
from zfcore.checkpoint import load, save
from zfcore.layers import KINDS, AvgPool, BatchNorm, Conv, Dropout, Flatten, Linear, MaxPool, Pixelwise, ReLU, Step
from zfcore.ops.dropout import dropout
from zfcore.training import Training, evaluate, predict, resolve
from zfcore.training.accord import digest
from zfcore.training.folder import new_folder

CONFIG = resolve({"preset": "tiny", "image_size": 32, "epochs": 2, "batch_size": 10, "workers": 0, "device": "cpu"})


class Squares:
    """Pictures with a bright square at the top, in the middle or at the bottom; `more` replaces attributes."""

    def __init__(self, n=20, seed=0, **more):
        self.classes, self.names, self.seed = ["top", "middle", "bottom"], [f"square {seed} {i}" for i in range(n)], seed
        self.labels, self.n = np.arange(n) % 3, n
        vars(self).update(more)

    def __len__(self):
        return self.n

    def picture(self, i):
        pixels = np.random.default_rng([self.seed, i]).integers(0, 120, (40, 40, 3)).astype(np.uint8)
        pixels[13*(i % 3):13*(i % 3) + 13] += np.uint8(100)
        return Image.fromarray(pixels)


@dataclass
class Halved(Pixelwise):
    """A kind of layer that no table knows."""

    def forward(self, x, step=None):
        return x/2, None

    def backward(self, dy, cache):
        return dy/2, {}

    def cut_cache(self, cache, outputs, inputs):
        return None


@dataclass
class Scaled(Pixelwise):
    """A kind of layer of somebody's own, with a parameter and a buffer."""
    called, drawn = ("g", "m"), ({"g": np.ones(1, np.float32)}, {"m": np.ones(1, np.float32)})

    def parameter_shapes(self, shape):
        return {self.called[0]: (1,)}

    def buffer_shapes(self, shape):
        return {self.called[1]: (1,)}

    def init(self, shape, seed, law, factor):
        return self.drawn

    def forward(self, x, step=None):
        return x*self.parameters[self.called[0]][0], x

    def backward(self, dy, x):
        return dy*self.parameters[self.called[0]][0], {self.called[0]: (dy*x).sum(keepdims=True).reshape(1)}

    def cut_cache(self, x, outputs, inputs):
        return x


def table(*more, classes=3, size=32):
    return zfcore.Network("mine", (3, size, size), [
        Conv("conv1", 6, K=5, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2), *more, Flatten("flatten"), Dropout("drop", 0.8),
        Linear("fc2", classes)])


DATA = Squares(), Squares(12, 1)


def begun(folder, **more):
    """A training on DATA of a network that takes a fifth of the preset's time; of this one where network=None."""
    return Training.begin(more.pop("config", CONFIG), folder, **{"data": DATA, "network": table(), **more})


def ran(training):
    training.run()
    return training


@pytest.mark.figures
@pytest.mark.parametrize("groups", [1, 3])
def test_filters_are_drawn_where_they_see_all_colours(groups, tmp_path):
    layers = [Conv("conv1", 6, K=5, S=4, groups=groups), Flatten("flatten"), Linear("fc2", 3)]
    ran(begun(tmp_path/"run", network=zfcore.Network("mine", (3, 32, 32), layers)))
    assert {file.name for file in (tmp_path/"run"/"figures").iterdir()} == {"learning_curves.png", *["filters.png"]*(groups == 1)}


# ------------------------------------------------------------------------------------------------ where the pictures are
def test_a_run_on_given_pictures_does_not_take_others_for_its_own(tmp_path, capsys):
    mine = ran(begun(tmp_path/"run", network=None))
    for model in (mine.trained, zfcore.open(tmp_path/"run")):
        assert model.data is None
        with pytest.raises(zfcore.Expected, match="that this network was trained on are not known.*`prepared` a data set"):
            model.pictures()
        assert evaluate([model], model.prepared(DATA[1])).count == 12
    with pytest.raises(zfcore.Expected, match=r"^data: .* not known.*data=\(train, val\)"):
        Training.resume(tmp_path/"run", epochs=3)
    for command in (lambda: evaluate_command(["--run", str(tmp_path/"run")]), lambda: train(["--resume", str(tmp_path/"run")])):
        with pytest.raises(SystemExit, match="2"):
            command()
        assert "--data: expected the pictures" in capsys.readouterr().err
    first, = [row for row in json.loads((tmp_path/"run"/"config.json").read_text())["departures"] if row["what"] == "pictures"]
    assert first["here"] == "a data set given in Python: 3 classes, 20 training pictures" and first["why"] == "asked for"
    assert ran(Training.resume(tmp_path/"run", DATA, epochs=3)).epoch == 3


def test_a_place_that_the_options_name_and_the_drawn_set_are_remembered(tmp_path):
    named = str(tmp_path/"elsewhere")
    assert begun(tmp_path/"named", config=replace(CONFIG, data=named), network=None).trained.data == named
    drawn, combined = (zfcore.open_data(name, CONFIG.picture_size, 1) for name in ("", "drawn:combinations"))
    assert begun(tmp_path/"drawn", data=drawn, network=None).trained.data == ""
    assert begun(tmp_path/"combined", data=combined, network=None).trained.data is None         # "" would be the objects


def test_an_older_run_on_given_pictures_which_said_drawn_ones_opens_and_mends_itself(tmp_path):
    ran(begun(tmp_path/"run"))
    for file in tmp_path.glob("run/*.h5"):
        older = load(file)
        older.state["data"] = ""
        save(file, older)
    config = tmp_path/"run"/"config.json"
    config.write_text(config.read_text().replace('"data": null', '"data": ""'))
    assert zfcore.open(tmp_path/"run").data is None
    ran(Training.resume(tmp_path/"run", DATA, epochs=3))
    assert not any("data" in load(file).state for file in tmp_path.glob("run/*.h5"))


def test_paths_are_taken_as_texts_are_and_an_empty_name_is_no_name(tmp_path):
    for at in (tmp_path/"a", tmp_path/"b"):
        at.mkdir()
        Squares().picture(0).resize((120, 120)).save(at/"0.png")
    model = zfcore.open("drawn")
    assert len(model.pictures(tmp_path)) == len(model.pictures(str(tmp_path))) == 2
    assert len(zfcore.open_data(tmp_path, 110, val_fraction=None)[1]) == 2
    assert resolve({"data": tmp_path}) == resolve({"data": str(tmp_path)})
    for wrong in ("", 3, DATA[0], b"drawn:objects"):
        with pytest.raises(zfcore.Expected, match="data: expected a folder, a file or the name of a drawn set"):
            model.pictures(wrong)


# ------------------------------------------------------------------------------------------------------ classes by name
def test_an_evaluation_goes_by_the_names_of_the_classes(tmp_path):
    model = ran(begun(tmp_path/"run")).trained
    order = [2, 0, 1]
    turned = Squares(12, 1, classes=[DATA[1].classes[k] for k in order], labels=np.argsort(order)[DATA[1].labels])
    other, own = (evaluate([model], model.prepared(of)) for of in (turned, DATA[1]))
    assert other.top1 == own.top1 < 0.7 and other.loss == pytest.approx(own.loss, rel=1e-6)
    for classes in (["top", "middle", "else"], ["top", "middle", "bottom", "else"], ["top", "middle"]):
        labels = np.zeros(12, int)
        with pytest.raises(zfcore.Expected, match="pictures: expected the 3 classes of"):
            evaluate([model], model.prepared(Squares(12, classes=classes, labels=labels)))
    with pytest.raises(zfcore.Expected, match="the same classes in the same order"):
        predict([model, model.with_classes(turned.classes)], model.prepared(DATA[1]))
    nameless = replace(model, classes=())
    with pytest.raises(zfcore.Expected, match="labels below 3"):
        evaluate([nameless], model.prepared(Squares(12, classes=list("abcd"), labels=np.arange(12) % 4)))


@pytest.mark.parametrize("classes, numbers", [
    (["bottom", "top", "middle"], [2, 0, 1]), (["middle", "top"], [1, 0]), (["else", "middle", "top", "bottom"], [-1, 1, 0, 2]),
    (["a", "b"], [-1, -1]), ([], [-1])])
def test_labels_of_predictions_are_numbers_among_the_networks_classes(tmp_path, classes, numbers):
    model = begun(tmp_path/"run").trained
    labels = np.arange(12) % max(len(classes), 1)
    found = predict([model], model.prepared(Squares(12, 1, classes=classes, labels=labels)))
    assert found.labels.tolist() == [numbers[k] for k in labels] and found.labels.dtype == np.int64
    np.testing.assert_array_equal(found.p, predict([model], model.prepared(DATA[1])).p)
    nameless = predict([replace(model, classes=())], model.prepared(Squares(12, 1, classes=classes, labels=labels)))
    assert nameless.labels.tolist() == labels.tolist()
    several = np.eye(20, dtype=int)[:12]
    assert (predict([model], model.prepared(Squares(12, 1, classes=[*"abcdefghijklmnopqrst"], labels=several))).labels == several).all()


# ------------------------------------------------------------------------------------------------------------ a network
@pytest.mark.parametrize("law, seed", [("he", 1), ("gaussian", 7)])
def test_the_start_is_the_one_that_the_network_had_and_a_resumed_run_knows_it(tmp_path, law, seed):
    network = table().init(seed, law)
    first = {name: of["w"].copy() for name, of in network.parameters().items()}
    mine = ran(begun(tmp_path/"run", network=network))
    ran(Training.resume(tmp_path/"run", DATA, epochs=3))
    for model in (mine.trained, zfcore.open(tmp_path/"run")):
        of = model.untrained().network.parameters()
        assert all((of[name]["w"] == w).all() for name, w in first.items())
    last = zfcore.open(tmp_path/"run"/"latest.h5")
    with open(tmp_path/"run"/"log.csv") as file:
        row = [*csv.DictReader(file)][2]
    for name, share in shares_of_start(last.network, table().init(seed, law)).items():
        assert float(row[f"start_{name}"]) == pytest.approx(share, rel=1e-5)


def test_the_log_has_all_digits_of_whole_numbers(tmp_path):
    run = begun(tmp_path/"run")
    run.history = {**dict.fromkeys(run.columns, [0.1234567]), "step": [1234567.0], "filters_clamped": [98765432],
                   "val_loss": [1e30]}
    run.write_log()
    with open(tmp_path/"run"/"log.csv") as file:
        row, = csv.DictReader(file)
    assert [row[name] for name in ("step", "filters_clamped", "val_loss", "lr")] == ["1234567", "98765432", "1e+30", "0.123457"]


def test_training_a_network_leaves_those_that_it_was_made_of_as_they_were(tmp_path):
    model = ran(begun(tmp_path/"first", network=table())).trained
    before = {name: of["w"].copy() for name, of in model.network.parameters().items()}
    for name, made in (("other order", model.with_classes(model.classes[::-1]).network), ("copy", model.network.copy())):
        mine = ran(begun(tmp_path/name, network=made))
        assert mine.network is made and (made["conv1"].parameters["w"] != before["conv1"]).any()
        assert all((of["w"] == before[layer]).all() for layer, of in model.network.parameters().items())


def test_weights_that_are_no_draw_any_more_are_no_known_start(tmp_path):
    changed, trained = table().init(0, "he"), ran(begun(tmp_path/"first", network=table())).network
    changed["conv1"].parameters["w"][0, 0, 0, 0] += 1
    for name, network in (("changed", changed), ("trained", trained)):
        mine = ran(begun(tmp_path/name, network=network))
        assert np.isnan(mine.history["start_conv1"]).all()
        for model in (mine.trained, zfcore.open(tmp_path/name)):
            with pytest.raises(zfcore.Expected, match="how its weights were drawn"):
                model.untrained()


def test_a_table_of_ones_own_is_drawn_as_the_options_say_and_resumed_to_the_same_bits(tmp_path):
    ran(begun(tmp_path/"whole", network=table()))
    ran(begun(tmp_path/"part", config=replace(CONFIG, epochs=1), network=table()))
    assert Training.resume(tmp_path/"part", DATA).config.model == "mine"
    ran(Training.resume(tmp_path/"part", DATA, epochs=2))
    assert_same_bits(tmp_path/"whole"/"latest.h5", tmp_path/"part"/"latest.h5")
    start, drawn = zfcore.open(tmp_path/"whole").start, table().init(CONFIG.seed, CONFIG.init)
    assert (start["fc2"].parameters["w"] == drawn["fc2"].parameters["w"]).all()


def changed(network):
    network.init(0, "he")["conv1"].parameters["w"][0, 0, 0, 0] += 1
    return network


ONE = replace(CONFIG, epochs=1)
STARTS = {"drawn by the options": lambda network: network, "drawn": lambda network: network.init(7, "gaussian"), "changed": changed}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("name", ["mine", "tiny"])                 # of zfcore's networks, one has the second
def test_a_run_that_was_begun_and_never_run_goes_on_with_the_network_that_it_was_given(tmp_path, name, start):
    given = lambda: start(zfcore.Network(name, (3, 32, 32), table().layers))
    ran(begun(tmp_path/"whole", config=ONE, network=given()))
    begun(tmp_path/"part", config=ONE, network=given())
    ran(Training.resume(tmp_path/"part", DATA))
    assert_same_bits(tmp_path/"whole"/"latest.h5", tmp_path/"part"/"latest.h5")


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_dropout_goes_by_the_seed_of_the_run_whoever_drew_the_weights_and_a_resumed_run_keeps_its_own(tmp_path, start):
    x = np.ones((table().shapes[-2][0], 4), np.float32)

    def dropped(training, step=3):
        return training.network["drop"].forward(x, Step(step))[0].tolist()

    def by_seed(seed, step=3):
        return dropout(x, 0.8, (seed, training.network.index("drop"), step))[0].tolist()

    for seed in (1, 2):
        training = begun(tmp_path/str(seed), config=replace(ONE, seed=seed), network=start(table()))
        assert dropped(training) == by_seed(seed) != by_seed(0)
    training.network["drop"].seed = 0                      # as of runs on a network with weights before
    training.save("latest.h5")
    assert dropped(Training.resume(tmp_path/"2", DATA)) == by_seed(0)


def test_a_run_that_was_begun_and_never_run_has_the_weights_that_another_had_then(tmp_path):
    ran(begun(tmp_path/"source", config=ONE, network=None))
    config = replace(ONE, init_from=str(tmp_path/"source"/"latest.h5"))
    ran(begun(tmp_path/"whole", config=config, network=None))
    begun(tmp_path/"part", config=config, network=None)
    ran(Training.resume(tmp_path/"source", DATA, epochs=2))
    ran(Training.resume(tmp_path/"part", DATA))
    assert_same_bits(tmp_path/"whole"/"latest.h5", tmp_path/"part"/"latest.h5")
    origin = json.loads((tmp_path/"part"/"config.json").read_text())["init_from"]
    assert origin["epoch"] == 1 and origin["path"] == config.init_from


@pytest.mark.parametrize("file", ["pictures.csv", "latest.h5", "config.json"])
def test_a_disk_that_refuses_a_file_as_a_run_begins_leaves_no_folder(tmp_path, monkeypatch, file):
    def refuse(path, flush=checkpoint.flush):
        if path.name == f".{file}.part":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)
    monkeypatch.setattr(checkpoint, "flush", refuse)
    with pytest.raises(zfcore.Expected, match=f"{file}: expected a disk with room"):
        begun(tmp_path/"run", network=table())
    assert not (tmp_path/"run").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_wherever_a_run_is_killed_as_it_begins_another_begins_in_its_folder_and_knows_nothing_of_it(tmp_path):
    script = f"""if True:
        import os, signal
        from pathlib import Path
        from tests.train.test_given import begun
        replace = os.replace
        for moment in range(4):                            # before its first file has its name, the second, ...
            if not (child := os.fork()):
                left = iter(range(moment))
                def renamed(*names):
                    replace(*names) if next(left, None) is not None else os.kill(os.getpid(), signal.SIGKILL)
                os.replace = renamed
                begun(Path({str(tmp_path)!r})/str(moment))
                os._exit(0)
            print(os.WIFSIGNALED(os.waitpid(child, 0)[1]))
    """
    run = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.stdout.split() == ["True"]*3 + ["False"], run.stderr
    last = {"pictures.csv", "latest.h5"}
    assert last < set(os.listdir(tmp_path/"2")) and last | {"config.json"} < set(os.listdir(tmp_path/"3"))
    with pytest.raises(zfcore.Expected, match="which holds something; go on with it"):
        begun(tmp_path/"3")
    with pytest.raises(zfcore.Expected, match="config.json, got .*2, where a run was killed as it began; a new run may"):
        Training.resume(tmp_path/"2", data=DATA)
    for folder in (tmp_path/str(moment) for moment in range(3)):
        new_folder(CONFIG, folder)                         # of a run that writes neither list nor weights
        assert not last & set(os.listdir(folder))


def test_what_was_trained_and_files_of_others_are_not_taken_for_the_start_of_a_run_that_was_killed(tmp_path):
    save(tmp_path/"bare.h5", replace(begun(tmp_path/"run").checkpoint(), state={}))         # as one that was imported
    ran(Training.resume(tmp_path/"run", data=DATA))
    of_others = [("latest.h5", (tmp_path/"run/latest.h5").read_bytes()), ("latest.h5", (tmp_path/"bare.h5").read_bytes()),
                 ("latest.h5", b"mine"), ("pictures.csv", b"a,b\n1,2\n")]
    for name, content in of_others:
        (tmp_path/"other").mkdir(exist_ok=True)
        (tmp_path/"other"/name).write_bytes(content)
        with pytest.raises(zfcore.Expected, match="which holds something; name another"):
            begun(tmp_path/"other")
        assert (tmp_path/"other"/name).read_bytes() == content
        shutil.rmtree(tmp_path/"other")


def test_a_network_without_a_convolution_trains_and_is_resumed(tmp_path):
    flat = lambda: zfcore.Network("flat", (3, 32, 32), [Flatten("flatten"), Linear("fc1", 3)])
    lines, data = [], zfcore.open_data("", CONFIG.picture_size, 1)         # drawn ones, whose objects' boxes are known
    data[0].classes = data[1].classes = data[0].classes[:3]
    for part in data:
        part.labels = part.labels % 3
    begun(tmp_path/"run", config=ONE, data=data, network=flat()).run(say=lines.append)
    more = ran(Training.resume(tmp_path/"run", data, epochs=2))
    assert "start's energy" in lines[0] and "in box" not in lines[0] and np.isnan(more.history["in_box"]).all()
    with pytest.raises(zfcore.Expected, match="^flat: expected a network with a convolution"):
        last_convolution(zfcore.open(tmp_path/"run").network)


@pytest.mark.parametrize("network, sentence", [
    (lambda: zfcore.Network("none", (3, 32, 32), [AvgPool("pool", K=32, S=32), Flatten("flatten")]), "none: expected a network with weights"),
    (lambda: table(*(ReLU(f"more{k}") for k in range(1000))), "checkpoint: layers: expected a list of 1 to 1000"),
    (lambda: table(Halved("half")), r"mine: half: expected a kind of layer .* got Halved; zfcore.layers.KINDS\['Halved'\]"),
    (lambda: table(classes=4), r"mine: expected a network from \(3, 32, 32\), .* to \(3,\), .* to \(4,\)"),
    (lambda: table(size=34), r"from \(3, 32, 32\), .* got one from \(3, 34, 34\)")])
def test_a_network_that_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, network, sentence):
    with pytest.raises(zfcore.Expected, match=sentence):
        begun(tmp_path/"run", network=network())
    assert not (tmp_path/"run").exists()


def some_weights(network):
    network["conv1"].parameters = table().init(3)["conv1"].parameters
    return network


@pytest.mark.parametrize("start, folder, more", [
    (some_weights, "run", {}), *((start, "full", {}) for start in STARTS.values()),
    (changed, "run", {"data": (DATA[0], Squares(12, classes=["top", "middle", "else"]))}),
    (changed, "run", {"config": replace(CONFIG, image_size=48)})])
def test_a_network_that_begin_refuses_is_as_it_was(tmp_path, start, folder, more):
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"file").touch()
    network = start(table())
    before = [dict(vars(part)) for part in (network, *network.layers)]
    numbers = {name: {key: array.copy() for key, array in of.items()} for name, of in network.parameters().items()}
    with pytest.raises(zfcore.Expected):
        begun(tmp_path/folder, network=network, **more)
    assert [vars(part) for part in (network, *network.layers)] == before and not (tmp_path/"run").exists()
    assert all((network[name].parameters[key] == array).all() for name, of in numbers.items() for key, array in of.items())


def test_a_network_with_weights_in_some_layers_alone_is_refused(tmp_path):
    with pytest.raises(zfcore.Expected, match=r"^mine: fc2: expected weights, .* got none yet; init\(seed\) draws .*, init_from takes"):
        begun(tmp_path/"run", network=some_weights(table()))


def test_a_network_goes_on_from_its_own_weights_whatever_the_seed_and_the_log_says_so_once(tmp_path):
    network, lines, resumed = table(), [], []
    for seed in (0, 1):
        mine = begun(tmp_path/str(seed), config=replace(ONE, seed=seed), network=network)
        own = network["conv1"].parameters["w"]
        assert (load(tmp_path/str(seed)/"latest.h5").parameters["conv1"]["w"] == own).all()
        lines.append([])
        mine.run(say=lines[seed].append)
    assert "given" not in " ".join(lines[0]) and lines[1][0].startswith("weights of the network mine that was given")
    assert json.loads((tmp_path/"1"/"config.json").read_text())["init_from"] == {"network": "mine"}
    Training.resume(tmp_path/"1", DATA, epochs=2).run(say=resumed.append)
    assert "given" not in " ".join(resumed)


@pytest.mark.parametrize("law", ["gaussian", "he"])
def test_config_json_tells_of_the_start_that_there_was_and_not_of_one_that_the_options_would_have_drawn(tmp_path, law):
    def told(folder):
        content = json.loads((folder/"config.json").read_text())
        return [f"{entry['what']}: {entry['here']}" for entry in content["departures"] + content["open_questions"]
                if entry["what"] in ("--init", 'weights "1e-2" at the start', "weights at the start")]
    config = replace(ONE, init=law)
    for name, network in (("drawn", table()), ("given", table().init(5, "he"))):
        ran(begun(tmp_path/name, config=config, network=network))
        ran(Training.resume(tmp_path/name, DATA, epochs=2))
    of_law = {"gaussian": 'weights "1e-2" at the start: N(0, 0.01), biases 0', "he": "--init: he"}
    assert told(tmp_path/"drawn") == [of_law[law]]
    assert told(tmp_path/"given") == ["weights at the start: those that mine was given with"]


ONES = np.ones(1, np.float32)
DRAWN = [({"g": ONES}, {}), ({}, {"m": ONES}), ({"g": ONES}, {"m": ONES, "n": ONES}), ({"g": ONES}, {"m": np.ones(2)}),
         ({"g": np.ones(1)}, {"m": np.ones(1)}), ({"g": ONES*np.inf}, {"m": ONES}), ({"g": ONES}, {"m": [1.0]})]
CALLED = "a/b", "x\0", "a\n", "\u202e", 5, ".", "", "\ud800", "nul", "\u00e9 g"


@pytest.mark.parametrize("of", [*({"called": (name, "m")} for name in CALLED), *({"called": ("g", name)} for name in CALLED[:3]),
                                *({"drawn": drawn} for drawn in DRAWN)], ids=ascii)
def test_whatever_arrays_a_layer_of_ones_own_has_it_is_refused_or_the_run_can_be_opened_and_resumed(tmp_path, monkeypatch, of):
    if called := of.get("called"):
        of = {"called": called, "drawn": ({called[0]: ONES}, {called[1]: ONES})}
    monkeypatch.setitem(KINDS, "Scaled", type("Scaled", (Scaled,), of))
    try:
        training = begun(tmp_path/"run", config=ONE, network=table(KINDS["Scaled"]("odd")))
    except zfcore.Expected as sentence:
        assert "odd" in str(sentence) and not (tmp_path/"run").exists()
        return
    ran(training)
    assert zfcore.open(tmp_path/"run").network.buffers().keys() == {"odd"}
    assert Training.resume(tmp_path/"run", DATA, epochs=2).epoch == 1


@pytest.mark.parametrize("of", [{"called": ("h", "m")}, {"called": ("g", "n")}, {"parameter_shapes": lambda self, shape: {"g": (2,)}}])
def test_a_checkpoint_whose_layers_have_changed_since_is_not_said_to_be_damaged(tmp_path, monkeypatch, of):
    monkeypatch.setitem(KINDS, "Scaled", Scaled)
    ran(begun(tmp_path/"run", config=ONE, network=table(Scaled("odd"))))
    file = tmp_path/"run"/"best.h5"
    whole = file.read_bytes()
    place = whole.index(zfcore.open(file).network["fc2"].parameters["w"].tobytes()[:64])
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
    with pytest.raises(zfcore.Expected, match="/parameters/fc2/w: expected data that fit.*; copy latest.h5 .* to best.h5$"):
        zfcore.open(tmp_path/"run")
    file.write_bytes(whole)
    monkeypatch.setitem(KINDS, "Scaled", type("Scaled", (Scaled,), of))
    with pytest.raises(zfcore.Expected, match="/odd(/g)?: expected [^;]*$"):
        zfcore.open(tmp_path/"run")


@pytest.mark.parametrize("classes, anew", [(["top", "middle", "bottom"], []), (["left", "middle", "right"], ["fc2", "bn"]),
                                           (["left", "right"], ["fc2", "bn"])])
def test_of_another_run_with_other_classes_nothing_is_taken_over_that_is_a_class_s_own(tmp_path, classes, anew):
    def of(classes):
        return zfcore.Network("mine", (3, 32, 32), [Conv("conv1", 6, K=5, S=2), BatchNorm("bn1"), Flatten("flatten"),
                                                    Linear("fc2", classes), BatchNorm("bn"), ReLU("relu")])
    source = ran(begun(tmp_path/"source", config=ONE, network=of(3))).network
    data = tuple(Squares(part.n, part.seed, classes=classes, labels=np.arange(part.n) % len(classes)) for part in DATA)
    options = replace(ONE, model="mine", init_from=str(tmp_path/"source"))
    for network in None, of(len(classes)):
        mine = begun(tmp_path/f"run {network}", config=options, data=data, network=network)
        drawn = of(len(classes)).init(options.seed, options.init)
        for found in "parameters", "buffers":
            for name, of_layer in getattr(mine.network, found)().items():
                for key, array in of_layer.items():
                    np.testing.assert_array_equal(array, getattr(drawn if name in anew else source, found)()[name][key])
        assert mine.origin.facts["drawn_anew"] == anew and mine.origin.sentence.endswith("fc2 and bn are drawn anew") == bool(anew)
        mine.one_step(*next(mine.train.batches(10, 0, 0)))


# --------------------------------------------------------------------------------------------------------------- arguments
ODD = None, "x", 3, 1.5, True, object(), [], [None], {}, np.zeros(3), zfcore.Network, b"x", "a\0b", "\ud800", "x"*5000, ""


@pytest.mark.parametrize("door, word", [*(("begin", word) for word in ("config", "folder", "data", "ranks", "network")),
                                        *(("resume", word) for word in ("folder", "data", "ranks", "epochs", "workers", "device"))])
def test_an_odd_argument_of_a_door_is_told_in_a_sentence_that_names_it(tmp_path, monkeypatch, door, word):
    monkeypatch.chdir(tmp_path)
    given = {"begin": {"config": CONFIG, "folder": tmp_path/"new", "data": DATA}, "resume": {"folder": tmp_path/"run", "data": DATA}}[door]
    if door == "resume":
        begun(tmp_path/"run")
    fine = {("begin", "folder"): ("x", None), ("begin", "network"): (None,), ("resume", "epochs"): (3,), ("resume", "workers"): (3,)}
    for odd in ODD:
        if any(odd is one for one in fine.get((door, word), ())) or word == "data" and odd is None:
            continue
        with pytest.raises(zfcore.Expected, match=f"^({word}|data set|resume):"):
            getattr(Training, door)(**{**given, word: odd})
    assert {path.name for path in tmp_path.iterdir()} <= {"run"}


def test_a_full_folder_and_one_without_a_run_are_told_by_the_name_of_the_argument(tmp_path):
    begun(tmp_path/"run")
    for of in (tmp_path/"run", tmp_path/"run"/"config.json", tmp_path/"run"/"config.json"/"below"):
        with pytest.raises(zfcore.Expected, match="^folder: expected a (new or empty folder|place where a folder can be made)"):
            begun(of)
    with pytest.raises(zfcore.Expected, match="^folder: expected a run's folder"):
        Training.resume(tmp_path/"none")


# ----------------------------------------------------------------------------------------------------------- a data set
@pytest.mark.parametrize("more", [dict(seed=7), dict(picture=lambda i: Image.new("L", (40, 40), 5*i))])
@pytest.mark.parametrize("is_run", [False, True])
def test_other_pixels_under_the_same_names_are_refused_by_resume(tmp_path, more, is_run):
    training = begun(tmp_path/"run", config=ONE)
    if is_run:
        training.run()
    with pytest.raises(zfcore.Expected, match="^data: expected the pictures that the run began with, got others, whose mean image"):
        Training.resume(tmp_path/"run", (Squares(names=DATA[0].names, **more), DATA[1]), epochs=2)
    with pytest.raises(zfcore.Expected, match=r"20 missing .* begin another run .*: Training.begin\(TrainConfig\(init_from='.*data=\(train"):
        Training.resume(tmp_path/"run", (Squares(20, 7), DATA[1]))


MARKED = [{}, {"fingerprint": lambda: "a"}, {"fingerprint": lambda: "b"}]


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("before, now", [(0, 1), (1, 0), (1, 2), (0, 0), (1, 1)])
def test_a_resumed_run_is_given_the_sets_that_it_began_with_or_refuses_them(tmp_path, monkeypatch, part, before, now):
    def given(mark, other=False):
        """Both parts, one of them with this fingerprint and, without one of its own, with `other` pixels."""
        sets = [dict(n=20, seed=0), dict(n=12, seed=1)]
        pixels = {"picture": lambda i: Squares(seed=9).picture(i)} if other else {}
        sets[part] |= {**MARKED[mark], **pixels}
        return [Squares(**of) for of in sets]
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    begun(tmp_path/"run", config=ONE, data=given(before))
    if before == now:
        ran(Training.resume(tmp_path/"run", given(now, other=now > 0)))            # whose fingerprint says that nothing changed
        assert Training.resume(tmp_path/"run", given(now), epochs=2).epoch == 1
    if before != now or now == 0:
        with pytest.raises(zfcore.Expected, match="^data: expected the pictures that the run began .*(fingerprint|mean image)"):
            Training.resume(tmp_path/"run", given(now, other=True))


def test_a_run_of_before_that_knows_no_fingerprints_goes_on_and_knows_them_then(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    ran(begun(tmp_path/"run", config=ONE))
    older = load(tmp_path/"run"/"latest.h5")
    older.state = {key: of for key, of in older.state.items() if "fingerprint" not in key}
    save(tmp_path/"run"/"latest.h5", older)
    ran(Training.resume(tmp_path/"run", [Squares(fingerprint=lambda: "a"), DATA[1]], epochs=2))
    with pytest.raises(zfcore.Expected, match="got training pictures with another fingerprint; bring these back, or .* init_from"):
        Training.resume(tmp_path/"run", [Squares(fingerprint=lambda: "b"), DATA[1]], epochs=3)


def test_opened_folders_that_are_given_and_were_copied_since_are_the_same_pictures(tmp_path):
    write_set(tmp_path/"set", per_class=(3, 2))
    given = lambda place: zfcore.open_data(tmp_path/place, CONFIG.picture_size)
    begun(tmp_path/"run", config=ONE, data=given("set"))
    shutil.copytree(tmp_path/"set", tmp_path/"copy", copy_function=shutil.copyfile)
    for path in (tmp_path/"copy").rglob("*.png"):
        os.utime(path, (1, 1))
    assert given("copy")[0].fingerprint() != given("set")[0].fingerprint()
    ran(Training.resume(tmp_path/"run", given("copy")))
    assert Training.resume(tmp_path/"run", tmp_path/"copy", epochs=2).epoch == 1


@pytest.mark.parametrize("more", [dict(seed=7), dict(picture=lambda i: DATA[0].picture(min(i, 18))), dict(labels=2 - DATA[0].labels),
                                  dict(classes=["top", "middle", "else"]), dict(names=[f"other {i}" for i in range(20)])])
def test_a_set_without_a_fingerprint_is_known_by_all_that_it_says_and_some_of_its_pixels(more):
    of = lambda dataset, **how: zfcore.Pictures(dataset, 40, 32, workers=0, **how).fingerprint()
    own = of(Squares())
    assert own == of(Squares(labels=DATA[0].labels.astype(np.uint8)), memory=0) != of(Squares(**{"names": DATA[0].names, **more}))
    assert of(Squares(fingerprint=lambda: "its own", **more)) == "its own"


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("mark", [None, 5, [1], np.nan, b"a", "no method"], ids=ascii)
def test_a_fingerprint_that_is_no_text_is_refused(tmp_path, monkeypatch, part, mark):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    data = [*DATA]
    data[part] = Squares([20, 12][part], part, fingerprint=mark if mark == "no method" else lambda: mark)
    with pytest.raises(zfcore.Expected, match="^data set: fingerprint: expected a method that returns a text, got"):
        begun(tmp_path/"run", data=data)
    assert not any(tmp_path.iterdir())


def digest_of_before(dataset):
    """As a set without fingerprint was known when its class's name counted."""
    digest = hashlib.sha256(json.dumps([type(dataset).__name__, dataset.classes, dataset.names, dataset.labels.tolist()]).encode())
    for i in sorted({k*(len(dataset) - 1)//15 for k in range(16)}):
        digest.update(zfcore.Pictures(dataset, CONFIG.picture_size, 32, workers=0).picture(i).tobytes())
    return digest.hexdigest()


class Renamed(Squares):
    pass


@pytest.mark.parametrize("older", [False, True])
def test_the_name_of_a_sets_python_class_does_not_matter_and_runs_of_when_it_did_go_on(tmp_path, older):
    begun(tmp_path/"run", config=ONE)
    if older:
        kept = load(tmp_path/"run"/"latest.h5")
        for key, of in zip(("train_fingerprint", "val_fingerprint"), DATA):
            assert kept.state[key] != (mark := digest(digest_of_before(of).encode()))
            kept.state[key] = mark
        save(tmp_path/"run"/"latest.h5", kept)
        ran(Training.resume(tmp_path/"run", DATA))
    ran(Training.resume(tmp_path/"run", (Renamed(), Renamed(12, 1)), epochs=2))
    with pytest.raises(zfcore.Expected, match="got validation pictures with another fingerprint"):
        Training.resume(tmp_path/"run", (DATA[0], Renamed(12, 1, picture=Squares(12, 5).picture)), epochs=3)


def test_a_kept_pass_is_that_of_one_set_alone_and_one_of_before_is_gone_on_with(tmp_path, monkeypatch):
    model = begun(tmp_path/"run", config=ONE).trained
    for before, more in ((digest_of_before(DATA[1]), {}), ("v1", {"fingerprint": lambda: "v1"})):
        file, given = tmp_path/f"{before[:2]}.h5", lambda **other: model.prepared(Squares(12, **{"seed": 1, **more, **other}))
        with monkeypatch.context() as older:
            older.setattr(passes, "seen", partial(passes.seen, key=lambda pictures: before))
            kept = zfcore.top_activations(model, given(), ["conv1"], file=file)
        with monkeypatch.context() as whole:
            whole.setattr(results, "save", None)           # as nothing is left to do
            again = zfcore.top_activations(model, given(), ["conv1"], file=file)
        assert (again.values["conv1"] == kept.values["conv1"]).all() and again.fingerprint != kept.fingerprint
        for top in kept, again:
            zfcore.unit_views(model, given(), top, "conv1", [0])
        zfcore.save_result(file, again)
        names = DATA[1].names
        for other in (given(seed=7, names=names), given(labels=2 - DATA[1].labels), given(classes=list("abc")), given(names=names[::-1])):
            with pytest.raises(zfcore.Expected, match="one of another network, data set, k, batch size or precision"):
                zfcore.top_activations(model, other, ["conv1"], file=file)


MEAN = np.zeros((3, 40, 40), np.float32)
WORDS = [{"shorter_side": 24}, {"mean_image": MEAN}, {"mean_image": 5}, {"stamp": "2026"}, {"length": 20}, {"expect": 3}, {"below": "x"},
         {"drawings": zfcore.data.synthetic.OBJECTS}, {"read": 1, "size": 3, "kept_in": 5, "encoding": "x"}]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run on DATA as they are."""
    folder = tmp_path_factory.mktemp("plain")/"run"
    ran(begun(folder, config=ONE))
    return folder


@pytest.mark.parametrize("word", WORDS, ids=lambda word: next(iter(word)))
def test_what_a_set_of_somebodys_own_calls_as_zfcores_sets_call_something_of_theirs_changes_nothing(tmp_path, plain, word):
    data = lambda **more: (Squares(**more, **word), Squares(12, 1, **word))
    mine = ran(begun(tmp_path/"run", config=ONE, data=data()))
    assert mine.trained.data is None
    assert_same_bits(plain/"latest.h5", tmp_path/"run"/"latest.h5")
    assert load(plain/"latest.h5").state == load(tmp_path/"run"/"latest.h5").state
    assert (plain/"pictures.csv").read_bytes() == (tmp_path/"run"/"pictures.csv").read_bytes()
    with pytest.raises(zfcore.Expected, match="got others, whose mean image is not the same"):
        Training.resume(tmp_path/"run", data(picture=Squares(seed=7).picture), epochs=2)


def truth(i, **more):
    return SimpleNamespace(box=(0, 13*(i % 3), 40, 13*(i % 3) + 13), **more)


def test_projections_are_held_against_the_truth_that_a_set_of_somebodys_own_tells(tmp_path):
    def picture(i):
        if i == 3:
            raise zfcore.CorruptImage("the third", "too dark")
        return Squares(12, 1).picture(i)
    mine = ran(begun(tmp_path/"run", data=(DATA[0], Squares(12, 1, truth=truth, picture=picture)), network=None))
    assert np.isfinite(mine.history["in_box"]).all() and np.allclose(mine.history["box_area"], 11/32, atol=0.05)
    parts = lambda i: truth(i, parts={"middle": (20, 13*(i % 3) + 6)}, visible={"middle": True})
    for of, known in ((truth, 0), (parts, 1)):
        pictures = mine.trained.prepared(Squares(12, 1, truth=of, picture=picture))
        top = zfcore.top_activations(mine.trained, pictures, ["conv2"], k=2)
        units = np.flatnonzero(~top.dead("conv2"))
        found = zfcore.sanity_checks(mine.trained, pictures, top, "conv2", units, only=["as trained"])
        assert np.isfinite(found.inside).all() and np.isfinite(found.area).all() and np.isfinite(found.in_parts).any() == known


@pytest.mark.parametrize("of", [np.arange(20), "a file", None, lambda: 0, lambda i: (0, 0, 5, 5), lambda i: SimpleNamespace(parts={}, visible={}),
                                *(lambda i, box=box: SimpleNamespace(box=box) for box in (None, "abcd", (0, 0, 5), (0, np.nan, 5, 5), (6, 0, 5, 5))),
                                lambda i: truth(i, parts={"eye": (1, 2)}), lambda i: truth(i, parts={"eye": 1}, visible={"eye": True}),
                                lambda i: None if i == 11 else truth(i)])
@pytest.mark.parametrize("part", [0, 1])
def test_a_truth_of_another_form_is_refused_as_the_run_begins(tmp_path, part, of):
    data = [*DATA]
    data[part] = Squares([20, 12][part], part, truth=of)
    with pytest.raises(zfcore.Expected, match=r"^data set: truth\((0|11)\): expected an object with box, .* got .*; call it otherwise"):
        begun(tmp_path/"run", data=data)
    assert not (tmp_path/"run").exists()


NAMES = "", "a"*1000, "a"*1001, "a"*10001, "\ud800", "\udcff", '../a,"b\n\0\r\u2028', None, 3, b"a", "middle"


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:9])
@pytest.mark.parametrize("what", ["classes", "names"])
def test_whatever_a_class_or_picture_is_called_begin_refuses_it_or_the_run_can_be_opened_and_resumed(tmp_path, what, name):
    called = lambda n, seed: Squares(n, seed, **{what: [name, *getattr(Squares(n, seed), what)[1:]]})
    data = called(20, 0), called(12, 1)
    try:
        training = begun(tmp_path/"run", config=ONE, data=data)
    except zfcore.Expected:
        assert not (tmp_path/"run").exists()
        return
    ran(training)
    assert zfcore.open(tmp_path/"run").classes == data[0].classes
    assert Training.resume(tmp_path/"run", data, epochs=2).epoch == 1


@pytest.mark.parametrize("labels", [np.eye(3, dtype=int)[DATA[0].labels], DATA[0].labels[:, None], np.ma.array(DATA[0].labels)])
def test_labels_of_several_classes_and_masked_ones_are_refused_by_training_and_evaluation(tmp_path, labels):
    model = begun(tmp_path/"run").trained
    for use in (lambda of: begun(tmp_path/"new", data=(of, DATA[1])), lambda of: begun(tmp_path/"new", data=(DATA[0], of)),
                lambda of: evaluate([model], model.prepared(of))):
        with pytest.raises(zfcore.Expected, match=r"^data set: labels: expected (shape \(20,\)|an array of whole numbers, one a picture)"):
            use(Squares(labels=labels))
    assert not (tmp_path/"new").exists()


THREE = np.arange(20) % 3


@pytest.mark.parametrize("wrong, sentence", [
    (dict(labels=THREE.tolist()), "labels: expected an array of whole numbers, one a picture, got a list of 20"),
    (dict(labels=THREE.astype(float)), r"labels: .* got float64 \(20,\)"), (dict(labels=THREE[:19]), "labels: expected 20, "),
    (dict(labels=THREE - 1), "labels: expected 0 to 2, .*, got -1 to 1"), (dict(labels=THREE + 1), "labels: .* got 1 to 3"),
    (dict(names=["a"]), "names: expected 20, one a picture, got 1"), (dict(names=(name for name in DATA[0].names)), "names: expected a list"),
    (dict(names={*DATA[0].names}), "names: expected a list of names"), (dict(names=dict.fromkeys(DATA[0].names)), "names: expected a list"),
    (dict(classes=np.array(["top", "middle", "bottom"])), "classes: expected a list of names"),
    (dict(classes="abc"), "classes: expected a list of names"), (dict(classes=[0, 1, 2]), "classes: expected a list of names"),
    (dict(picture=lambda i: np.zeros((40, 40, 3), np.uint8)), "picture 0: expected a PIL picture, got ndarray"),
    (dict(picture=lambda i: None), "picture 0: expected a PIL picture, got NoneType")])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_breaks_the_protocol_is_refused_in_a_sentence(tmp_path, wrong, sentence, workers):
    with pytest.raises(zfcore.Expected, match=f"data set: {sentence}"):
        begun(tmp_path/"run", data=(Squares(**wrong), DATA[1]), config=replace(CONFIG, workers=workers))
    assert not (tmp_path/"run").exists()


def test_what_the_protocol_leaves_open_is_taken(tmp_path):
    given = Squares(classes=("top", "middle", "bottom"), labels=THREE.astype(np.uint8), names=(*DATA[0].names,))
    mine = begun(tmp_path/"run", data=(given, DATA[1]))
    assert ran(mine).classes == ["top", "middle", "bottom"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_a_picture_of_any_mode_is_brought_to_three_colours(mode):
    plain = Squares(3)
    other = zfcore.Pictures(Squares(3, picture=lambda i: plain.picture(i).convert(mode)), 40, 32, workers=0)
    wanted = zfcore.Pictures(Squares(3, picture=lambda i: plain.picture(i).convert(mode).convert("RGB")), 40, 32, workers=0)
    assert (other.picture(1) == wanted.picture(1)).all() and other.picture(1).shape == (40, 40, 3)


def test_a_picture_that_cannot_be_used_is_named_and_left_out(capsys):
    def picture(i):
        if i == 4:
            raise zfcore.CorruptImage("the fourth", "too dark")
        return DATA[0].picture(i).convert("F") if i == 5 else DATA[0].picture(i)
    pictures = zfcore.Pictures(Squares(picture=picture), 40, 32, workers=0)
    pictures.prepare(progress=False)
    assert sorted(pictures.damaged) == [4, 5] and "too dark" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["folder", Path("folder"), DATA[0], DATA[:1], (*DATA, DATA[0]), 3, {}])
def test_data_are_two_data_sets(tmp_path, data):
    with pytest.raises(zfcore.Expected, match=r"data: expected \(train, val\), two data sets or Pictures"):
        begun(tmp_path/"run", data=data)


@pytest.mark.parametrize("part", ["folder", Path("folder"), DATA, 3, None])
def test_a_part_is_a_data_set(tmp_path, part):
    with pytest.raises(zfcore.Expected, match="data set: expected an object with classes, labels, names"):
        begun(tmp_path/"run", data=(DATA[0], part))


def test_parts_of_other_classes_are_refused_and_say_how_they_differ(tmp_path):
    with pytest.raises(zfcore.Expected, match="validation pictures: .* another order"):
        begun(tmp_path/"run", data=(DATA[0], Squares(12, classes=["bottom", "middle", "top"])))
