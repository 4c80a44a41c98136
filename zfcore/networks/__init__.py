"""Floor 3: networks that come with zfcore, trained: `--run drawn` means zfcore/networks/drawn.h5.

Each is a checkpoint without what only training needs, its weights rounded to float16: it is the network with the rounded
weights that its card NAME.json describes: data, recipe, errors, how legible its projections are, and the file's checksum. One
command makes both, `python -m train.reference NAME`.
"""
import difflib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check, files
from zfcore.hdf5 import open_h5
from zfcore.hints import FilePath
from zfcore.terminal import command

FOLDER = Path(__file__).parent
CARD = files.table({"name": files.name, "file": files.name, "sha256": files.text(64), "bytes": files.whole(1),
                    "model": files.name, "input": files.whole(1), "classes": files.listed(files.text())}, others=files.anything)


def names() -> list[str]:
    """Names of the networks that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.h5"))


def place(path: FilePath) -> Path:
    """`path` as a Path. Raises Expected for what is none, and for the empty one, which would be the folder one happens to be
    in."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise check.Expected("--run", f"a run's folder, a checkpoint file or one of {', '.join(names())}", repr(path))
    return Path(path)


def file_of(path: FilePath) -> Path:
    """The checkpoint that `path` means: a file of that name, else the network called so. Raises Expected for neither."""
    path = place(path)
    if not os.path.isfile(path) and str(path) in names():
        return FOLDER/f"{path}.h5"
    if not os.path.exists(path):
        alike = difflib.get_close_matches(str(path), names(), 1)
        raise check.Expected("--run", f"a run's folder, a checkpoint file or one of {', '.join(names())}",
                             f"{path}, which does not exist", f"{alike[0]}?" if alike else "" if path.suffix else
                             f"{command('python', '-m', 'train', '--output', path)} trains one")
    return path


def home_of(path: FilePath) -> Path:
    """The folder into which belongs what is found out about a network: the run's own, the checkpoint file's, or runs/NAME."""
    path = place(path)
    if os.path.isdir(path):
        return path
    return Path("runs")/path if file_of(path).parent == FOLDER else path.parent


def recipe_of(path: FilePath) -> Path:
    """The JSON file whose "options" say how a network was trained: the config.json of its run, or the card of one that comes
    with zfcore. It need not be there."""
    file = place(path)
    comes_along = not os.path.isdir(file) and (file := file_of(file)).parent == FOLDER
    return file.with_suffix(".json") if comes_along else home_of(path)/"config.json"


def card(name: str) -> dict[str, Any]:
    """Card of the network `name`, as `python -m train.reference` wrote it. Raises Expected for another name."""
    check.one_of("network", name, names())
    return files.read_json(FOLDER/f"{name}.json", CARD)


def mean_image(of: dict[str, int]) -> NDArray[np.float32] | None:
    """The mean image (3,size,size) of the drawn pictures `of` {"size", "drawings" (their version), "count"}, where one of the
    networks was trained on just these; else None. Who has it need not draw all of them before training begins."""
    for name in names():
        if (about := card(name)).get("learned_from") == of:
            with open_h5(FOLDER/about["file"]) as file:
                return file.group("preprocessing").array("mean_image", np.float32, (3, of["size"], of["size"]), finite=True)
    return None
