"""The README's figures keep their colours, and stay small."""
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench import figures
from zfcore.check import Expected


def test_a_figure_keeps_every_colour_and_pixel_and_one_too_large_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 1700, 3), np.uint8)              # many more than 256 colours
    figures.keep(Image.fromarray(pixels), "small")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path/"small.png")), pixels)
    monkeypatch.setattr(figures, "LARGEST", 100*1024)
    with pytest.raises(Expected, match="large.png: expected at most 100 KiB, got 4[0-9]+ KiB; show fewer units"):
        figures.keep(Image.fromarray(pixels), "large")


def test_only_the_figures_asked_for_are_made_each_in_a_folder_of_its_own(tmp_path, monkeypatch):
    asked = []

    def evaluate(arguments):
        asked.append("evaluate")
        write(arguments, "confusion.png", "worst.png")

    def zfcore(arguments):
        asked.append(arguments[0])
        write(arguments, "conv3.png", "occlusion.png")

    def write(arguments, *names):
        folder = figures.Path(arguments[arguments.index("--output") + 1])
        folder.mkdir(parents=True)
        for name in names:
            Image.new("RGB", (9, 5)).save(folder/name)

    for name, stand_in in (("FOLDER", tmp_path), ("evaluate", evaluate), ("zfcore", zfcore)):
        monkeypatch.setattr(figures, name, stand_in)
    figures.main(SimpleNamespace(run="run", only=["worst", "top_conv3", "occlusion"]))
    assert asked == ["evaluate", "top-activations", "occlusion"]
    assert {p.name for p in tmp_path.iterdir()} == {"worst.png", "top_conv3.png", "occlusion.png"}
