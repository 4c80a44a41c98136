"""Features of a set of pictures, as the layers of a network make them: computed once, kept on the disk, read a block of columns
at a time.

    FOLDER/<key>/<layer>-<first picture>.h5        a `Block` each, written whole or not at all

The key changes with the checkpoint, with any picture of the set, and with how pictures are prepared; so whatever lies under
it is right, and a pass that was killed goes on behind the last whole file."""
import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from zfcore import check, results
from zfcore.backend import to_host
from zfcore.files import file_names, real
from zfcore.hdf5 import open_h5, short

PICTURES = 64                     # in a file: those of the paper's layer 1 are 74 MB


@dataclass(frozen=True)
class Block:
    """pictures int64 (n,), their numbers in the set, damaged ones left out; features float32 (n,D); seconds that they took,
    with those of the other layers of the same pass."""
    FORM = {"pictures": "int64 n? 0..", "features": "float32 n? D finite", "seconds": "float"}
    pictures: np.ndarray
    features: np.ndarray
    seconds: float


class Features:
    """Features of one layer: float32 (n,D), of which `features[:, first:last]` reads some columns.

    pictures   int64 (n,)    which picture of the set each row is
    seconds    that it took to compute them"""

    def __init__(self, files):
        self.files, rows, self.seconds = files, [], 0.0
        for path in files:
            with _opened(path) as file:
                rows.append(file.array("pictures", np.int64, (None,)))
                self.shape = sum(map(len, rows)), _features(file).shape[1]
                self.seconds += file.attribute("seconds", real(0))
        self.pictures = np.concatenate(rows)

    def __getitem__(self, place):
        rows, columns = place
        blocks = []
        for path in self.files:
            with _opened(path) as file:
                blocks.append(_features(file)[:, columns])
        return np.concatenate(blocks)[rows]


def _features(file):
    return file.dataset("features", np.float32, (None, None))


@contextmanager
def _opened(path):
    """The `hdf5.Reader` of a file of features, whose damage is told in a sentence."""
    try:
        with open_h5(path, "remove it and give the command again") as file:
            yield file
    except (OSError, check.Expected) as error:
        raise check.Expected(path, "a whole file of features", f"a damaged one ({short(error)})",
                             "remove it and give the command again") from None


def key_of(checkpoint_file, pictures, start=None):
    """Key of what features depend on, 16 hexadecimal digits. `start` (seed, law) stands for the network of the checkpoint with
    this random start instead of its weights."""
    weights = hashlib.sha256(Path(checkpoint_file).read_bytes()).hexdigest()
    facts = [weights, pictures.key(), pictures.size, pictures.crop, pictures.upscale, PIL.__version__,
             "centre crop", PICTURES, *([start] if start else [])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def features_of(model, pictures, layers, folder, bar=None):
    """{layer: Features} of a `Pictures` set for layers of a `Trained` model, by name; from the centre crops, dropout doing
    nothing. What `folder` has is not computed again. `bar` is a tqdm bar that moves on by one a picture."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise check.Expected("--features", "a place where a folder can be made", f"{folder} ({error.strerror})") from None
    files = {layer: [folder/f"{called}-{first:07}.h5" for first in range(0, len(pictures), PICTURES)]
             for layer, called in zip(layers, file_names(layers))}
    lacking = [k for k, of_block in enumerate(zip(*files.values())) if not all(path.is_file() for path in of_block)]
    start = lacking[0] if lacking else len(files[layers[0]])
    if bar is not None:
        bar.update(min(start*PICTURES, len(pictures)))
    if lacking:
        began = time.monotonic()
        for k, (batch, _, indices) in enumerate(pictures.batches(PICTURES, 0, 0, False, start, model.device), start):
            if not len(indices):                                      # all damaged
                batch = np.zeros((1, *batch.shape[1:]), np.uint8)
            found = layer_outputs(model, batch, layers)
            seconds, began = time.monotonic() - began, time.monotonic()
            for layer, features in found.items():
                results.save(files[layer][k], Block(indices, features[:len(indices)], seconds))
            if bar is not None:
                bar.update(min(PICTURES, len(pictures) - k*PICTURES))
    return {layer: Features(of_layer) for layer, of_layer in files.items()}


def layer_outputs(model, images, layers):
    """{layer: float32 (n,D)} on the host, for uint8 images (n,size,size,3)."""
    outputs = model.network.activations(model.inputs(images), layers)
    return {layer: np.ascontiguousarray(to_host(y).reshape(-1, len(images)).T) for layer, y in outputs.items()}
