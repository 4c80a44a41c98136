"""Floor 6: the atlas, a folder of pages in which a person walks through a network in a browser, opened from a disk or any web
server.

    index.html, page/     the pages: plain HTML, CSS and JavaScript, the same for every atlas
    data/NAME.js          what they show, each file one call of atlas.receive("NAME", {...}), see zfcore/atlas/sheets.py
    sheets/, pictures/    pictures in sheets of many, WebP
    kept/                 while it is made: passes over the pictures, with which a stopped making goes on

    make          writes an atlas, or the rest of one
    source.py     what it is drawn from       network_page.py, layer_page.py, compare_page.py    what the pages say
    look.py       one picture as a network sees it      serve.py     the server that answers about a visitor's own pictures

Every file is written whole or not at all, the page of a layer last of its sheets and index.html last of all: what is there is
right, and is not made again. Where a folder came from somebody, its data are looked at before they are believed.
"""
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import zfcore
from zfcore.analysis.matching import Matching
from zfcore.analysis.top_activations import decoded
from zfcore.atlas.compare_page import compare_pages
from zfcore.atlas.layer_page import known_page, layer_page, projections_of_page
from zfcore.atlas.look import encoded, look
from zfcore.atlas.network_page import FORMAT, VERSION, network_page, notes_of, whole_pictures
from zfcore.atlas.sheets import Folder, plain
from zfcore.atlas.source import Kept, Looked
from zfcore.check import Expected
from zfcore.data.folders import is_system
from zfcore.files import anything, choice, file_names, folder_made, inside, locked, numbered_folder, read_bytes, read_json, table, text
from zfcore.terminal import Bar, counted

PAGE = Path(__file__).parent/"page"
RECORD, KEPT = "atlas.json", "kept"


def fingerprint(*of: Any) -> str:
    """Digest of all that an atlas depends on."""
    return hashlib.sha256(json.dumps([zfcore.__version__, VERSION, *map(plain, of)]).encode()).hexdigest()


def place(output: Path, wanted: str) -> Path:
    """Folder for the atlas with this fingerprint: `output`; where that holds another one output_2, output_3, ..., the first
    that is free or holds this one. Raises Expected for a folder that holds something else."""
    # "." has no name to number
    number, output = 1, output if output.name not in ("", "..") else Path(os.path.abspath(output))
    while (folder := numbered_folder(output, number)).exists() and not is_free(folder):
        if not inside(folder, RECORD).is_file():
            raise Expected("--output", "a new folder, or one with an atlas", f"{folder}, which holds something else")
        if mark_of(folder) == wanted:
            break
        number += 1
    return folder


def mark_of(folder):
    """The fingerprint of the atlas in a folder."""
    return read_json(inside(folder, RECORD), table({"fingerprint": anything}, others=anything))["fingerprint"]


def is_free(folder):
    """Return whether there is nothing in a folder, or only what a kill left before the record was there, or what systems put
    into folders that they show."""
    return folder.is_dir() and all(is_system(path.name) for path in folder.iterdir())


def is_complete(folder: Path) -> bool:
    """Return whether the atlas in a folder was made to its end, and what was kept for that has gone."""
    return inside(folder, "index.html").is_file() and not (folder/KEPT).exists()


@contextmanager
def making(folder: Path, mark: str) -> Iterator[Path]:
    """`with making(folder, mark) as kept:` the folder is there for the atlas with this fingerprint, and in it the folder
    `kept`, which goes when the block ends well; nobody else makes one there meanwhile. Raises Expected where somebody does."""
    with folder_made(folder):
        if not inside(folder, RECORD).is_file():           # before anything else: a folder without it is not gone on with
            Folder(folder).write(RECORD, (json.dumps({"format": FORMAT, "fingerprint": mark}) + "\n").encode())
        with folder_made(inside(folder, KEPT)) as kept, alone(folder):
            if mark_of(folder) != mark:                    # both found the folder free, and the other one's record came last
                (kept/".lock").unlink(missing_ok=True)     # so that `kept` goes, if it is empty
                raise Expected("--output", "a new folder, or one with an atlas", f"{folder}, in which another one has just begun",
                               "give the same command again")
            yield kept
    shutil.rmtree(kept, ignore_errors=True)


@contextmanager
def alone(folder):
    """`with alone(folder):` no other process does this with the same folder. Raises Expected where one does."""
    try:
        descriptor = locked(inside(folder, f"{KEPT}/.lock"))
    except BlockingIOError:
        raise Expected("--output", "a folder in which no other atlas is being made", folder,
                       "wait for its end, or stop it") from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def make(path: Path, source: Looked | Kept, units: Mapping[str, np.ndarray], chosen: Sequence[int] = (),
         notes: Sequence[str] = (), data: str | None = None, part: str = "val",
         other: tuple[Looked, Matching] | None = None) -> None:
    """Write an atlas to a folder, or what is missing of it, within `making`.

    units     {layer: numbers of those that have pages}
    chosen    pictures of the data that have pages
    notes     sentences: what is not here, and why
    data, part   what was looked at
    other     a network to compare with, and which of its units match"""
    folder, called = Folder(path), file_names(units)
    pages = []
    for (layer, of_layer), name in zip(units.items(), called):
        if (page := known_page(folder, source, layer, name, of_layer)) is None:
            with Bar(projections_of_page(source, layer, of_layer), "projection", layer) as bar:
                page = layer_page(folder, source, layer, name, of_layer, bar)
        pages.append(page)
    looks = [picture_page(folder, source, int(number), list(units))
             for number in counted(chosen, "picture", "pages of pictures")]
    whole_pictures(folder, source, pages)
    with Bar(sum(len(units[layer]) for layer in other[1].units) if other else 0, "projection", "the other network's",
             hidden=not other) as bar:
        compare = other and compare_pages(folder, *other, units, called, pages, bar)
    network_page(folder, source, list(units), called, pages, looks, [*notes, *notes_of(source, units, pages)], data, part, compare)
    write_pages(path)


def picture_page(folder, source, number, layers):
    """Write the page of a picture of the data, or read it where it is there. Returns what it holds."""
    label = -1 if source.labels is None else int(source.labels[number])
    known = folder.known(f"picture-{number}", table({"number": choice(number), "name": text(2**16), "label": choice(label)},
                                                    others=anything))
    if known is not None:
        return known
    follows = label if 0 <= label < len(source.model.classes) else None
    found = look(source.model, decoded(source.pictures, np.array([number]))[0], layers, follows)
    page = encoded(found, source.name_of(number), label, number,
                   lambda content, called: folder.write(f"pictures/{called}.webp", content))
    folder.data(f"picture-{number}", page)
    return page


def write_pages(path: Path) -> None:
    """Copy the pages themselves to a folder, index.html the last, where it has not these very ones: they are programs, and a
    folder that came from somebody may have others."""
    for page in sorted(PAGE.iterdir(), key=lambda page: page.suffix == ".html"):
        name, content = page.name if page.suffix == ".html" else f"page/{page.name}", page.read_bytes()
        with suppress(OSError):
            if read_bytes(inside(path, name), len(content)) == content:
                continue
        Folder(path).write(name, content)
