"""The drawn sets in training, evaluation and the studies: chosen by name, told by name, kept between runs."""
import numpy as np
import pytest
from PIL import Image

from train import evaluate
from train.__main__ import main
from train.features import features_of, key_of
from train.transfer_study import Subset
from zfcore.data import kept, open_data, synthetic
from zfcore.data.caltech import splits
from zfcore.data.loader import Pictures
from zfcore.models import from_checkpoint
from zfcore.trained import Trained
from tests.spoken import in_one

OPTIONS = ["--preset", "tiny", "--image-size", "32", "--batch-size", "10", "--epochs", "1", "--limit-per-class", "1",
           "--workers", "1", "--device", "cpu"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path/"cache"))
    return tmp_path/"cache"


def test_a_run_on_a_drawn_set_tells_it_keeps_its_pictures_and_is_evaluated(cache, tmp_path, capsys, monkeypatch):
    main([*OPTIONS, "--data", "drawn:unseen", "--output", str(tmp_path/"run")])
    assert (f"data: the drawn combinations that are kept apart (drawn once, then kept in {cache}) 30 classes, 30 training "
            "and 30 validation pictures ") in in_one(capsys.readouterr().out)
    monkeypatch.setattr(synthetic, "render", lambda *_: pytest.fail("a picture was drawn again"))
    main([*OPTIONS, "--data", "drawn:unseen", "--output", str(tmp_path/"again")])
    assert (tmp_path/"run"/"log.csv").read_text().split(",")[:6] == (tmp_path/"again"/"log.csv").read_text().split(",")[:6]
    monkeypatch.undo()
    monkeypatch.setenv("ZFCORE_CACHE", str(cache))
    monkeypatch.setattr(synthetic.Synthetic, "picture", lambda *_: Image.new("RGB", (37, 37)))
    evaluate.main(["--run", str(tmp_path/"run"), "--device", "cpu"])
    assert ", 1 network, 30 validation pictures of the drawn combinations that are kept apart" in in_one(capsys.readouterr().out)


def test_the_ten_objects_are_kept_too(cache, tmp_path, capsys):
    main([*OPTIONS, "--output", str(tmp_path/"run")])
    said = in_one(capsys.readouterr().out)
    assert f"data: the synthetic set (drawn once, then kept in {cache}) 10 classes, 10 training" in said
    assert len(list(cache.glob("drawn-*.raw"))) == 2


def test_without_a_folder_to_keep_them_pictures_are_drawn_as_it_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kept, "cache_folder", lambda: None)
    main([*OPTIONS, "--output", str(tmp_path/"run")])
    assert "data: the synthetic set (drawn as it goes, no files) 10 classes, 10 training" in in_one(capsys.readouterr().out)


def test_a_study_takes_a_drawn_set(cache, tmp_path):
    """Folds of it are drawn, its features are kept under a key of their own, parts of it are sets again."""
    main([*OPTIONS, "--data", "drawn:unseen", "--output", str(tmp_path/"run")])
    network, checkpoint = from_checkpoint(tmp_path/"run")
    dataset = open_data("drawn:unseen", 37, 4)[0]
    train, test = splits(dataset.labels, 3)
    assert (len(train), len(test)) == (90, 30)
    sets = [Pictures(part, 37, 32, workers=0) for part in
            (dataset, Subset(dataset, test, dataset.labels[test], dataset.classes))]
    keys = [key_of(tmp_path/"run"/"best.h5", pictures) for pictures in sets]
    assert len(set(keys)) == 2
    found = [features_of(Trained(network, checkpoint.mean_image), pictures, ["fc7"], tmp_path/key)["fc7"]
             for pictures, key in zip(sets, keys)]
    np.testing.assert_allclose(found[0][test, :], found[1][:, :], rtol=1e-4, atol=1e-5)
