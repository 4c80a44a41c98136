"""An atlas says what the analyses say, is whole or goes on where it stopped, and writes over nothing."""
import shutil
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from tests.atlas.conftest import CLASSES, CROP, check_columns, small, told_curves, values, write_run
from tests.spoken import in_one
from zfcore import atlas, trained
from zfcore.__main__ import main
from zfcore.analysis.portraits import net_weights
from zfcore.analysis.sanity_checks import sanity_checks
from zfcore.analysis.top_activations import top_activations, unit_views
from zfcore.atlas import RECORD, is_free, sheets
from zfcore.atlas.layer_page import CONTROLS
from zfcore.atlas.network_page import all_see_all, sees_grey
from zfcore.check import Expected
from zfcore.layers import Conv, Flatten, Linear
from zfcore.network import Network
from zfcore.plots import signed_tiles

LAYERS = ["conv1", "conv2", "fc6", "fc8"]


def make(run, output, *options):
    main(["atlas", "--run", str(run), "--output", str(output), "--device", "cpu", "--workers", "1", "--batch-size", "8",
          *options])
    return output


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    return make(run, tmp_path_factory.mktemp("made")/"atlas")


@pytest.fixture(scope="module")
def told(made):
    return values(made)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def named(value):
    """Every file that data name."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {name for one in value for name in named(one)}
    return {value} if isinstance(value, str) and value.endswith((".webp", ".svg")) else set()


# ------------------------------------------------------------------------------------------------------- what it says
def test_every_file_that_data_name_is_there_and_no_other(made, told):
    pages = {path for path in files(made) if path.startswith(("page/", "data/")) or path in ("index.html", "atlas.json")}
    assert set(files(made)) - pages == named(told)
    assert set(told) == {"network", "whole", *(f"{kind}-{layer}" for layer in LAYERS for kind in ("layer", "likeness")), "picture-0", "picture-8", "picture-16"}


def test_sheets_have_the_tiles_that_data_speak_of(made, told):
    for layer in LAYERS:
        page = told[f"layer-{layer}"]
        count = len(page["units"])
        for kind in ("projection", "patch"):
            assert len(page["sheets"][kind]) == -(-count//page["sheets"]["rows"])
            for number, name in enumerate(page["sheets"][kind]):
                rows = min(count - number*page["sheets"]["rows"], page["sheets"]["rows"])
                assert Image.open(made/name).size == (page["sheets"]["side"]*page["sheets"]["columns"],
                                                      page["sheets"]["side"]*rows)
        for kind in ("strongest", "mean", "patch"):
            tiles = page["tiles"]
            rows = -(-count//tiles["columns"])
            assert Image.open(made/tiles[kind]).size == (tiles["side"]*tiles["columns"], tiles["side"]*rows)
    check_columns(made)


def test_its_numbers_are_those_of_the_analyses(run, told):
    model = trained.open(run, "cpu")
    pictures = model.pictures(workers=0)
    top = top_activations(model, pictures, LAYERS, 10, batch_size=8)         # as many as classes are counted of
    for layer in LAYERS:
        page, first = told[f"layer-{layer}"], top.first(9, layer)
        np.testing.assert_allclose(page["values"], first.values[layer], rtol=1e-4)
        assert page["pictures"] == first.pictures[layer].tolist() and page["boxes"] == first.boxes[layer].tolist()
        assert page["dead"] == top.dead(layer).tolist() and page["units"] == list(range(len(first.values[layer])))
        for u, histogram in enumerate(page["histogram"]):
            assert sum(count for _, count in histogram) == page["counted"][u] == (top.pictures[layer][u] >= 0).sum()
    assert told["layer-conv2"]["dead"][2] and told["layer-conv2"]["common"][2] == -1
    assert [place == [None, None] for place in told["layer-conv2"]["map"]] == [u == 2 for u in range(11)]
    assert all(counts == sorted(counts, reverse=True) for of_unit in told["layer-conv1"]["histogram"]
               for counts in [[n for _, n in of_unit]])
    assert [told[f"layer-{layer}"]["class"] for layer in LAYERS] == [None, None, None, [0, 1, 2]]


def test_a_unit_s_projections_are_shown_as_they_are(run, made, told):
    model = trained.open(run, "cpu")
    pictures = model.pictures(workers=0)
    top = top_activations(model, pictures, LAYERS, 9, batch_size=8)
    views, page = unit_views(model, pictures, top, "conv1", [4]), told["layer-conv1"]["sheets"]
    sheet, side = np.asarray(Image.open(made/page["projection"][0])), page["side"]                # lossless: the field is small
    zoom = side//views.projections.shape[2]
    for rank, tile in enumerate(sheets.visible(signed_tiles(views.projections[0]))):
        shown = sheet[4*side:5*side:zoom, rank*side:(rank + 1)*side:zoom]
        np.testing.assert_array_equal(shown, tile)


def test_weights_are_told_from_both_ends(run, told):
    model = trained.open(run, "cpu")
    weights = net_weights(model.network, "fc6")
    up, down = told["layer-conv2"]["outputs"], told["layer-fc6"]["inputs"]
    assert told["layer-conv1"]["inputs"] is None and told["layer-fc8"]["outputs"] is None
    assert [told["layer-conv2"][end] for end in ("below", "above")] == ["conv1", "fc6"]
    for u, of_unit in enumerate(down):
        assert [i for i, _ in of_unit] == np.argsort(-np.abs(weights[:, u]), kind="stable")[:8].tolist()
        np.testing.assert_allclose([w for _, w in of_unit], [weights[i, u] for i, _ in of_unit], rtol=1e-4)
    for i, of_unit in enumerate(up):
        assert [u for u, _ in of_unit] == np.argsort(-np.abs(weights[i]), kind="stable")[:8].tolist()


def test_likeness_of_any_two_units_is_kept_to_four_digits(run, told):
    """Cosines of the mean projections, which of a field of 5 pixels are not shrunk; the eight most alike are theirs."""
    model = trained.open(run, "cpu")
    pictures = model.pictures(workers=0)
    top = top_activations(model, pictures, LAYERS, 9, batch_size=8)
    for layer in ("conv1", "conv2"):
        flat = unit_views(model, pictures, top, layer, np.arange(len(top.values[layer]))).projections.astype(float)
        flat = flat.reshape(*flat.shape[:2], -1)
        mean = (flat/np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-30)).mean(axis=1)
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
        kept = told[f"likeness-{layer}"]
        described = np.frombuffer(b64decode(kept["described"]), "<i2").reshape(len(mean), kept["length"])/32767
        if layer == "conv1":
            np.testing.assert_allclose(described @ described.T, mean @ mean.T, atol=1e-4)
        for p, alike in enumerate(told[f"layer-{layer}"]["alike"]):
            assert all(abs(described[p] @ described[q] - cosine) < 1e-4 for q, cosine in alike)
    assert not described[2].any()                          # it never fires


@pytest.mark.parametrize("shape, layers, whole", [
    ((3, 9, 9), [Conv("only", 2, K=9)], True), ((3, 9, 9), [Conv("only", 2, K=9, P=1)], False),
    ((3, 9, 9), [Conv("only", 2, K=11, P=2)], True), ((3, 9, 9), [Conv("only", 2, K=11, P=3)], False),
    ((3, 9, 9), [Flatten("flat"), Linear("only", 2)], True), ((3, 9, 7), [Conv("only", 2, K=8, P=1)], False)])
def test_units_see_the_whole_picture_only_where_every_place_of_the_layer_does(shape, layers, whole):
    """Beside the slopes: the pixels that any output moves with."""
    network = Network("n", shape, layers).init(0, "he")
    network["only"].parameters["w"][:] = 1
    x, moved = np.zeros((*shape, 1), np.float32), []
    before = network.forward(x)[0].reshape(-1)
    for at in np.ndindex(shape[1:]):
        there = x.copy()
        there[(0, *at)] = 1
        moved.append(network.forward(there)[0].reshape(-1) != before)
    assert all_see_all(network, "only") == whole == bool(np.all(moved))


@pytest.mark.parametrize("first", [[Conv("only", 4, K=3, P=1)], [Flatten("flat"), Linear("only", 4)]])
def test_a_network_that_sees_only_the_grey_of_its_pictures_is_known_by_its_weights(first):
    network = Network("n", (3, 5, 5), first).init(0, "he")
    assert not sees_grey(network)
    w = network["only"].parameters["w"]
    by_colour = w.reshape(3, -1)
    by_colour[:] = by_colour[0]*np.array([0.299, 0.587, 0.114], np.float32)[:, None]
    picture = np.random.default_rng(0).uniform(0, 255, (3, 5, 5, 1)).astype(np.float32)
    grey = np.broadcast_to(np.tensordot([0.299, 0.587, 0.114], picture, 1), picture.shape).astype(np.float32)
    np.testing.assert_allclose(network.forward(picture)[0], network.forward(grey)[0], rtol=1e-3, atol=1e-2)
    assert sees_grey(network)
    w[:] = 0
    assert not sees_grey(network) and not sees_grey(Network("n", (1, 5, 5), [Conv("only", 4, K=3)]).init(0, "he"))


def test_with_few_pictures_of_a_class_units_are_of_classes_all_the_same(run, tmp_path):
    """Of fewer than ten pictures nothing is said: so many are counted, though nine are shown and a class has fewer."""
    found = values(make(run, tmp_path/"atlas", "--layers", "conv1", "fc8", "--limit-per-class", "4"))
    for layer in ("conv1", "fc8"):
        page = found[f"layer-{layer}"]
        assert all((count == 10) == (one is not None) for count, one in zip(page["counted"], page["selectivity"]))
        assert 10 in page["counted"] and max(page["common"]) >= 0 and len(page["values"][0]) == 9
    assert not any("selectivity" in note for note in found["network"]["notes"])


def test_where_selectivity_is_known_of_no_unit_the_first_page_says_why(run, tmp_path):
    found = values(make(run, tmp_path/"atlas", "--layers", "conv1", "--limit-per-class", "3"))
    assert found["layer-conv1"]["selectivity"] == [None]*6
    assert [note for note in found["network"]["notes"] if "selectivity" in note] == [
        "Nothing is said of selectivity and of classes of units, as none fires for 10 pictures or more."]


def test_controls_are_those_of_the_sanity_checks_also_of_a_layer_below_all_pools(run, told):
    model = trained.open(run, "cpu")
    pictures = model.pictures(workers=0)
    top = top_activations(model, pictures, LAYERS, 9, batch_size=8).first(1, "conv2")
    checks = told["layer-conv2"]["checks"]
    # whose other unit depends on who is asked with it
    alone = sanity_checks(model, pictures, top, "conv2", [4], only=CONTROLS)
    assert told["layer-conv1"]["checks"]["conditions"] == checks["conditions"] == list(CONTROLS) == alone.conditions.tolist()
    assert checks["cosine"][2] is None and checks["cosine"][4][0] == 1
    np.testing.assert_allclose(np.array(checks["cosine"][4])[2:], alone.cosine[0, 2:], rtol=1e-4, atol=1e-6)


def test_pictures_of_parts_are_kept_whole_and_names_of_all(run, made, told):
    whole, pages = told["whole"], [told[f"layer-{layer}"] for layer in LAYERS]
    parts = {n for page in pages if not page["whole"] for of_unit in page["pictures"] for n in of_unit if n >= 0}
    assert {int(n) for n in whole["place"]} == parts
    assert {int(n) for n in whole["names"]} == {n for page in pages for of_unit in page["pictures"] for n in of_unit if n >= 0}
    model = trained.open(run, "cpu")
    n, place = next(iter(whole["place"].items()))
    sheet = np.asarray(Image.open(made/whole["files"][0]), float)
    left, top = whole["side"]*(place % whole["columns"]), whole["side"]*(place//whole["columns"])
    tile, crop = sheet[top:top + whole["side"], left:left + whole["side"]], model.pictures(workers=0).picture(int(n))[3:3 + CROP, 3:3 + CROP]
    assert np.abs(tile - sheets.fitted(crop[None], 96)[0]).mean() < 30 < np.abs(tile
                                                                                - sheets.fitted(crop[None, ::-1], 96)[0]).mean()


def test_the_first_page_knows_the_network_its_errors_and_what_is_not_here(run, made, told):
    network = told["network"]
    assert (made/network["curves"]["file"]).read_text() == told_curves(trained.open(run, "cpu").history, 2)
    assert [row["name"] for row in network["table"]] == [layer.name for layer in small().layers] and network["total"] == 24
    assert network["errors"] == {"top1": 12.5, "top5": None, "on": "the validation part, after epoch 2"}
    assert [row["dead"] for row in network["layers"]][:2] == [0, 1] and network["curves"]["alt"].endswith(
        "over 2 epochs; the validation error ends at 12.5 %; this network is that of epoch 2")
    assert sum("figure 4" in note for note in network["notes"]) == 1 and network["classes"][:3] == CLASSES


def test_epochs_that_were_kept_are_strips(run, tmp_path):
    shutil.copytree(run, tmp_path/"run")
    for epoch in (1, 2):
        shutil.copy(run/"best.h5", tmp_path/"run"/f"epoch_{epoch:04}.h5")
    page = values(make(tmp_path/"run", tmp_path/"atlas", "--layers", "conv2", "--units", "3,5"))["layer-conv2"]
    assert page["units"] == [3, 5] and page["shown_of"] == 11
    assert page["evolution"]["epochs"] == [1, 2] and page["evolution"]["columns"] == 2
    np.testing.assert_allclose(page["evolution"]["values"], np.repeat([[v] for v in page["strength"]], 2, axis=1))


# ------------------------------------------------------------------------------------------------ stopped, and made again
@pytest.mark.parametrize("at", [*(pytest.param(k, marks=pytest.mark.exhaustive) for k in (3, 9)), 20])
def test_one_that_was_stopped_goes_on_and_ends_with_the_same_bytes(run, made, tmp_path, monkeypatch, at):
    output, write, left = tmp_path/"atlas", sheets.Folder.write, iter(range(at))
    with monkeypatch.context() as patch:
        patch.setattr(sheets.Folder, "write", lambda folder, name, content: next(left) and 0 or write(folder, name, content))
        with pytest.raises((StopIteration, RuntimeError)):
            make(run, output)
    assert not (output/"index.html").exists()
    make(run, output)
    assert files(output) == files(made)


def test_one_that_is_whole_is_left_alone(run, made, monkeypatch, capsys):
    monkeypatch.setattr(atlas, "make", None)
    make(run, made)
    assert f"{made/'index.html'}" in capsys.readouterr().out


def test_pages_that_another_has_put_into_a_whole_one_are_zfcores_again_and_the_rest_stays(run, made, tmp_path):
    shutil.copytree(made, tmp_path/"atlas")
    before = files(tmp_path/"atlas")
    (tmp_path/"atlas"/"page"/"start.js").write_text("alert('another')")
    (tmp_path/"atlas"/"page"/"words.js").unlink()
    (tmp_path/"atlas"/"page"/"words.js").symlink_to("start.js")
    (tmp_path/"atlas"/"index.html").write_bytes(before["index.html"] + b"<script src=page/more.js></script>")
    times = {name: (tmp_path/"atlas"/name).stat().st_mtime_ns for name in before}
    make(run, tmp_path/"atlas")
    assert files(tmp_path/"atlas") == before and not (tmp_path/"atlas"/"page"/"words.js").is_symlink()
    assert {name for name in before if (tmp_path/"atlas"/name).stat().st_mtime_ns != times[name]} == {
        "index.html", "page/start.js", "page/words.js"}


def test_of_two_that_find_a_folder_free_one_makes_its_own_there_and_the_other_nothing(tmp_path):
    assert atlas.place(tmp_path/"atlas", "one") == atlas.place(tmp_path/"atlas", "other") == tmp_path/"atlas"
    with atlas.making(tmp_path/"atlas", "one"):
        with pytest.raises(Expected, match="no other atlas is being made"), atlas.making(tmp_path/"atlas", "other"):
            pass
    with pytest.raises(Expected, match="another one has just begun; give the same command again"):
        with atlas.making(tmp_path/"atlas", "other"):
            pass
    assert atlas.place(tmp_path/"atlas", "other") == tmp_path/"atlas_2" and not (tmp_path/"atlas"/"kept").exists()


def test_another_one_gets_a_folder_of_its_own_and_says_so(run, tmp_path, capsys):
    output = make(run, tmp_path/"atlas", "--layers", "fc8")
    before = files(output)
    assert "which stays" not in in_one(capsys.readouterr().out)
    make(run, output, "--layers", "fc6")
    assert "holds another atlas, which stays; this one is in atlas_2" in in_one(capsys.readouterr().out)
    assert files(output) == before and "layer-fc6" in values(tmp_path/"atlas_2") and "layer-fc8" not in values(tmp_path/"atlas_2")


def test_what_a_system_puts_into_a_folder_does_not_fill_it(tmp_path):
    for name in (".DS_Store", "Thumbs.db", f".{RECORD}.x.part"):
        (tmp_path/name).touch()
    assert is_free(tmp_path)
    (tmp_path/"letter.txt").touch()
    assert not is_free(tmp_path)


def test_a_folder_with_something_else_is_refused(run, tmp_path, capsys):
    (tmp_path/"letters").mkdir()
    (tmp_path/"letters"/"to my aunt.txt").write_text("dear aunt")
    with pytest.raises(SystemExit) as end:
        make(run, tmp_path/"letters")
    assert end.value.code == 2 and "which holds something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path/"letters").iterdir()] == ["to my aunt.txt"]


# ------------------------------------------------------------------------------------------------------ without pictures
def test_without_its_pictures_it_is_drawn_from_what_was_kept(run, told, tmp_path):
    shutil.copytree(run, tmp_path/"run")
    main(["top-activations", "--run", str(tmp_path/"run"), "--layers", "conv2", "--units", "1:6", "--device", "cpu",
          "--batch-size", "8"])
    write_run(tmp_path/"other", tmp_path/"gone")
    shutil.copy(tmp_path/"other"/"best.h5", tmp_path/"run"/"best.h5")
    found = values(make(tmp_path/"run", tmp_path/"atlas"))
    page, network, full = found["layer-conv2"], found["network"], told["layer-conv2"]
    assert set(found) == {"network", "whole", "layer-conv2", "likeness-conv2"} and page["units"] == [1, 2, 3, 4, 5]
    assert [page[key] for key in ("values", "pictures")] == [full[key][1:6] for key in ("values", "pictures")]
    assert page["histogram"] is page["checks"] is None and "are not to be had" in network["notes"][0] and found["whole"]["place"] == {}
    assert found["whole"]["names"] == {n: told["whole"]["names"][n] for n in found["whole"]["names"]}


def test_without_pictures_and_anything_kept_the_network_itself_is_shown(tmp_path):
    found = values(make(write_run(tmp_path/"run", tmp_path/"gone"), tmp_path/"atlas"))
    assert found["network"]["layers"] == [] and found["network"]["cover"] is None and len(found["network"]["table"]) == 10
    assert "What its units see is not shown" in found["network"]["notes"][0]


def test_data_that_were_asked_for_and_are_not_there_are_refused(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        make(run, tmp_path/"atlas", "--data", str(tmp_path/"gone"))
    assert end.value.code == 2 and not (tmp_path/"atlas").exists()


# ------------------------------------------------------------------------------------------------------------- odd ones
def test_data_are_ascii_and_say_null_for_what_is_no_number(tmp_path):
    folder = sheets.Folder(tmp_path)
    folder.data("odd", {"a": [float("nan"), np.float32(1/3)], "b": "</script>\u2028\u732b", 3: np.arange(2)})
    text = (tmp_path/"data"/"odd.js").read_bytes()
    assert text == b'atlas.receive("odd",{"a":[null,0.33333],"b":"</script>\\u2028\\u732b","3":[0,1]});\n'
    assert folder.known("odd") == {"a": [None, 0.33333], "b": "</script>\u2028\u732b", "3": [0, 1]} and folder.known("even") is None


@pytest.mark.parametrize("field, most, side", [(1, 96, 96), (7, 96, 91), (33, 96, 66), (96, 96, 96), (97, 96, 96),
                                               (224, 96, 96)])
def test_tiles_are_enlarged_by_whole_factors_or_shrunk(field, most, side):
    tiles = np.random.default_rng(0).integers(0, 256, (2, field, field, 3), np.uint8)
    shown = sheets.fitted(tiles, most)
    assert shown.shape == (2, side, side, 3) and sheets.shown_side(field, most) == side
    if side >= field:
        np.testing.assert_array_equal(shown[:, ::side//field, ::side//field], tiles)
    else:
        assert abs(shown.mean() - tiles.mean()) < 2


# ------------------------------------------------------------------------------------------------------ beside another one
def test_beside_itself_each_unit_is_its_own_match(run, tmp_path):
    found = values(make(run, tmp_path/"atlas", "--layers", "conv2", "fc8", "--beside", str(run)))
    page = found["compare-conv2"]
    # unit 2 never fires
    assert [match and match[0] for match in page["matches"]] == [None if u == 2 else u for u in range(11)]
    assert all(match is None or match[1] == 1 for match in page["matches"])
    assert [row["mean"] for row in found["network"]["compare"]["layers"]] == [1, 1]
    ours, theirs = (np.asarray(Image.open(tmp_path/"atlas"/page[side]["patch"])) for side in ("tiles", "others"))
    np.testing.assert_array_equal(ours, theirs)            # the dead unit's too, which is grey
