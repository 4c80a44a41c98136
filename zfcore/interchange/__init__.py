"""Floor 5: networks from anywhere, to anywhere.

    import_network(path, ...)      a file of another engine -> an `Imported`, by way of these:
    read(path, graph, model)       -> a `Foreign`: what the file says, in nobody's conventions but its own
    lower.to_network(...)          a Foreign -> a network of zfcore's layers that computes the same
    certificate.compare(...)       the two beside each other, layer by layer, the other computed by its own engine
    onnx_writer.write(...) and others     a network of zfcore's -> a file

A format is a module of its own: onnx.py, caffe.py, pytorch.py (and safetensors.py, whose files hold weights alone), keras.py.
Each has `read(path, graph, model)`. A file is not believed: nothing in it is executed, no other file is opened outside its
folder, and what is there is looked at before memory is taken for it.
"""
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from zfcore import check
from zfcore.files import opener
from zfcore.hints import FilePath
from zfcore.interchange.certificate import Difference, check_all, compare
from zfcore.interchange.foreign import Foreign
from zfcore.interchange.lower import Lowered, to_network
from zfcore.interchange.preprocessing import Preprocessing, seen_by
from zfcore.models import MODELS

SUFFIXES = {".onnx": "onnx", ".caffemodel": "caffe", ".pt": "pytorch", ".pth": "pytorch", ".bin": "pytorch",
            ".safetensors": "safetensors", ".h5": "keras", ".hdf5": "keras", ".keras": "keras"}


def read(path: FilePath, graph: FilePath | None = None, model: str | None = None) -> Foreign:
    """The network in a file of another engine, whose format its name's ending tells.

    graph   the file that says how its layers lie, where the weights do not: Caffe's prototxt
    model   likewise, for files that hold weights alone: the name of one of zfcore's models, or a JSON file with a layer table

    Raises Expected for what is no such file, is damaged, or asks for more than such a file may; Unsupported, naming the node,
    for what zfcore has no layer for; and where a package that reads the format is not installed, a sentence that names it."""
    if not isinstance(path, (str, os.PathLike)):
        raise check.Expected("file of another engine", "a path", repr(path))
    path = Path(path)
    if (name := SUFFIXES.get(path.suffix.lower())) is None:
        raise check.Expected(path, f"a file whose name ends in one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    try:
        open(path, "rb", opener=opener).close()
    except (OSError, ValueError) as error:
        raise check.Expected(path, "a file that can be read", getattr(error, "strerror", error)) from None
    return import_module(f"zfcore.interchange.{name}").read(path, graph and Path(graph), model)


@dataclass(frozen=True)
class Imported:
    """A network from elsewhere as one of zfcore's, with all that was found out on the way.

    network, mean, classes   as `zfcore.Trained` has them       lowered      which layer computes what node of the file
    foreign                  what the file says                  seen         how it sees pictures
    differences              the certificate, layer by layer; [] where the file's own engine is not installed"""
    foreign: Foreign
    seen: Preprocessing
    lowered: Lowered
    classes: list[str]
    differences: list[Difference]
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """Record that the run keeps of it, as JSON can hold it."""
        crop = self.foreign.input_shape[1]
        return {"format": self.foreign.format, "file": self.foreign.path.name, "sha256": sha256_of(self.foreign.path),
                "preprocessing": self.seen.as_timm(crop), "notes": self.notes,
                "engine": self.foreign.engine_name if self.differences else "",
                "differences": {one.layer: one.relative for one in self.differences}}


def import_network(path: FilePath, graph: FilePath | None = None, model: str | None = None, labels: Sequence[str] | None = None,
                   **how: Any) -> Imported:
    """The network in a file of another engine as one of zfcore's: read, brought into zfcore's layers, and held against its own
    engine where that is installed. `labels` name its classes, `how` says how it sees pictures, as `preprocessing.seen_by` takes
    it; `zfcore.import_network` is for everybody. Raises Expected as `read` does, and where the scores are not those of the file's own engine."""
    labels = None if labels is None else check.names("--labels", labels)
    foreign = read(path, graph, model)
    seen = seen_by(foreign, **how)
    lowered = to_network(foreign, seen, _name_of(foreign.path))
    foreign.nodes.clear()                                  # whose weights would be in memory twice
    found = compare(foreign, seen, lowered) if foreign.engine else []
    if found:
        check_all(foreign.path, found)
    classes, of_classes = _named(labels or foreign.labels, lowered.network.shapes[-1])
    unchecked = [] if found else ["parity not checked: " + (f"{foreign.engine_name} does not show the scores" if foreign.engine
                                                            else
                                                            foreign.engine_hint or "no engine of this format is here")]
    if found and found[-1].hidden:
        unchecked = [f"the last layer is not checked: {foreign.engine_name} shows its softmax alone, which hides scores at any contrast"]
    notes = [*foreign.notes, *seen.assumed, *lowered.folded, *of_classes, *unchecked]
    return Imported(foreign, seen, lowered, classes, found, notes)


def _name_of(path):
    """Name of the network, after its file; none of zfcore's own models', whose layers it has not."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:60] or "network"
    return f"{name}-imported" if name in MODELS else name


def _named(labels, shape):
    """(names of the classes, lines of what was made of them)."""
    if len(shape) != 1:
        return [], []
    alone = ["classes: a single output, whose softmax is 1 whatever the picture: probabilities, and what goes by them, as occlusion "
             "and errors, tell nothing of this network; its units and projections are as any other's"] if shape[0] == 1 else []
    if not labels:
        numbers = "number 0" if shape[0] == 1 else f"numbers 0 to {shape[0] - 1}"
        return [str(k) for k in range(shape[0])], [f"classes: {numbers}, since nobody says --labels", *alone]
    if len(labels) != shape[0]:
        raise check.Expected("--labels", f"{shape[0]} names, one for each output", len(labels))
    again = {name for name, count in Counter(labels).items() if count > 1}
    named = [f"{name} ({k})" if name in again else name for k, name in enumerate(labels)]
    told = [f"classes: names that stand more than once have their number behind them: {', '.join(sorted(again)[:8])}"] if again else []
    return named, told + alone


def sha256_of(path: FilePath) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=opener) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
