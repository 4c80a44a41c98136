"""python -m bench figures --run RUN: the README's figures, each by the command that a user would type, from a network
trained on the synthetic set. They are written to bench/results/figures/ in 256 colours, so that the repository stays small."""
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from zfcore.__main__ import main as zfcore
from zfcore.data.combinations import COMBINATIONS
from zfcore.data.synthetic import contact_sheet

FOLDER = Path(__file__).parent / "results" / "figures"

# name of the figure: (the analysis and its options, the file that the command leaves)
COMMANDS = {
    "top_conv2": ("top-activations --layers conv2 --units random:8", "conv2.png"),
    "top_conv3": ("top-activations --layers conv3 --units random:8", "conv3.png"),
    "top_conv5": ("top-activations --layers conv5 --units random:8", "conv5.png"),
    "evolution": ("evolution --layers conv1 conv2 conv3 conv5 --units random:2 --limit-per-class 100", "evolution.png"),
    "controls": ("controls --layers conv3 --units all --k 1 --limit-per-class 50", "conv3.png"),
    "occlusion": ("occlusion --pictures 0,4,9", "occlusion.png"),
    "invariance": ("invariance --pictures 0:10", "invariance.png"),
    "correspondence": ("correspondence --synthetic 40", "correspondence.png"),
}


def add_arguments(parser):
    parser.add_argument("--run", required=True, help="a run on the synthetic set, as `python -m train` leaves it")
    parser.add_argument("--only", nargs="+", choices=("synthetic", "combinations", "training", *COMMANDS),
                        help="draw these alone")


def main(args):
    wanted = set(args.only or ("synthetic", "combinations", "training", *COMMANDS))
    FOLDER.mkdir(parents=True, exist_ok=True)
    if "synthetic" in wanted:
        keep(contact_sheet(96, 8), "synthetic")
    if "combinations" in wanted:
        keep(contact_sheet(96, 8, drawings=COMBINATIONS, rows=12), "combinations")
    if "training" in wanted:
        for name in ("learning_curves", "filters"):
            keep(Image.open(Path(args.run)/"figures"/f"{name}.png"), name)
    for name, (command, file) in COMMANDS.items():
        if name in wanted:
            with tempfile.TemporaryDirectory() as output:
                zfcore([*command.split(), "--run", args.run, "--output", output])
                keep(Image.open(Path(output)/file), name)
                if name == "correspondence":
                    shutil.copyfile(Path(output)/"correspondence.md", FOLDER/"table1.md")


def keep(picture, name, widest=1600):
    """Write the figure `name`, at most `widest` pixels wide, in 256 colours."""
    picture = picture.convert("RGB")
    if picture.width > widest:
        picture = picture.resize((widest, round(picture.height*widest/picture.width)), Image.LANCZOS)
    picture.quantize(256).save(FOLDER/f"{name}.png", optimize=True)
    print(FOLDER/f"{name}.png", (FOLDER/f"{name}.png").stat().st_size//1024, "KiB")
