"""python -m bench figures --run RUN: the READMEs' figures, each by the command that a user would type, from a network
trained on the synthetic set. They are written to bench/results/figures/ in true colours, each smaller than LARGEST, so that
the repository stays small."""
import shutil
import tempfile
from pathlib import Path

from train.evaluate import main as evaluate
from zfcore import check
from zfcore.__main__ import main as zfcore
from zfcore.data.combinations import COMBINATIONS
from zfcore.data.synthetic import contact_sheet
from zfcore.data.transforms import MOST_BYTES, CorruptImage, decode
from zfcore.files import read_bytes

FOLDER = Path(__file__).parent / "results" / "figures"
LARGEST = 900*1024                # bytes of a figure

# name of the figure: (the analysis and its options, the file that the command leaves)
COMMANDS = {
    "top_conv1": ("top-activations --layers conv1 --units random:6", "conv1.png"),
    "top_conv2": ("top-activations --layers conv2 --units random:8", "conv2.png"),
    "top_conv3": ("top-activations --layers conv3 --units random:6", "conv3.png"),
    "top_conv5": ("top-activations --layers conv5 --units random:6 --k 4", "conv5.png"),
    "top_fc8": ("top-activations --layers fc8 --units random:6 --k 4", "fc8.png"),
    "evolution": ("evolution --units random:2 --limit-per-class 100", "evolution.png"),
    "sanity_checks": ("sanity-checks --layers conv5 --units all --k 1 --limit-per-class 50", "conv5.png"),
    "occlusion": ("occlusion --pictures 10,12,25", "occlusion.png"),
    "invariance": ("invariance --pictures 0:10", "invariance.png"),
    "invariance_untrained": ("invariance --pictures 0:10 --against untrained", "against.png"),
    "correspondence": ("correspondence --synthetic 40", "correspondence.png"),
}
ATLAS = "#conv5/31"                         # the page of an atlas that is shown
EVALUATION = "confusion", "worst"           # what `python -m train.evaluate` draws
ALL = "synthetic", "combinations", "training", *EVALUATION, *COMMANDS, "atlas"


def add_arguments(parser):
    parser.add_argument("--run", required=True, help="a run on the synthetic set, as `python -m train` leaves it")
    parser.add_argument("--only", nargs="+", choices=ALL, help="draw these alone")


def main(args):
    wanted = set(args.only or ALL)
    FOLDER.mkdir(parents=True, exist_ok=True)
    if "synthetic" in wanted:
        keep(contact_sheet(72, 8), "synthetic")
    if "combinations" in wanted:
        keep(contact_sheet(72, 6, drawings=COMBINATIONS, rows=10), "combinations")
    if "training" in wanted:
        for name in ("learning_curves", "filters"):
            keep(drawn(Path(args.run)/"figures"/f"{name}.png"), name)
    with tempfile.TemporaryDirectory() as output:
        output = Path(output)
        if wanted & set(EVALUATION):
            evaluate(["--run", args.run, "--output", str(output/"evaluation")])
            for name in sorted(wanted & set(EVALUATION)):
                keep(drawn(output/"evaluation"/f"{name}.png"), name)
        for name, (command, file) in COMMANDS.items():
            if name in wanted:
                zfcore([*command.split(), "--run", args.run, "--output", str(output/name)])
                keep(drawn(output/name/file), name)
                if name == "correspondence":
                    shutil.copyfile(output/name/"correspondence.md", FOLDER/"table1.md")
        if "atlas" in wanted:
            zfcore(["atlas", "--run", args.run, "--output", str(output/"atlas")])
            keep(screenshot(output/"atlas"/"index.html", ATLAS, output/"atlas.png"), "atlas")


def screenshot(page, address, path):
    """The picture of a page as a browser shows it, 1100 pixels wide, once all on it has been on the screen."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise check.Expected("the figure atlas", "Playwright and a Chromium, which open the page", "no module named playwright",
                             "pip install playwright") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        shown = browser.new_page(viewport={"width": 1100, "height": 2080}, color_scheme="light")
        shown.goto(page.resolve().as_uri() + address, wait_until="networkidle")
        shown.screenshot(path=path, full_page=True)
        browser.close()
    return drawn(path)


def drawn(path):
    """The figure in a file. Raises Expected for what is none."""
    try:
        return decode(str(path), read_bytes(path, MOST_BYTES))
    except (OSError, CorruptImage) as error:
        raise check.Expected(path, "a figure", getattr(error, "strerror", None) or error) from None


def keep(picture, name):
    """Write the figure `name`. Raises Expected for one that is too large for a repository."""
    file = FOLDER/f"{name}.png"
    picture.convert("RGB").save(file, optimize=True)
    if (size := file.stat().st_size) > LARGEST:
        raise check.Expected(file, f"at most {LARGEST//1024} KiB", f"{size//1024} KiB", "show fewer units")
    print(file, size//1024, "KiB")
