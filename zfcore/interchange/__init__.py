"""Floor 5: networks from anywhere, to anywhere.

    read(path, graph, model)       a file of another engine -> a `Foreign`: what it says, in nobody's conventions but its own
    lower.to_network(...)          a Foreign -> a network of zfcore's layers that computes the same
    certificate.compare(...)       the two beside each other, layer by layer, the other computed by its own engine
    onnx.write(...) and others     a network of zfcore's -> a file

A format is a module of its own: onnx.py, caffe.py, pytorch.py (and safetensors.py, whose files hold weights alone), keras.py. Each
has `read(path, graph, model)`. A file is not believed: nothing in it is executed, no other file is opened outside its folder, and
what is there is looked at before memory is taken for it.
"""
from importlib import import_module
from pathlib import Path

from zfcore import check
from zfcore.files import opener
from zfcore.hints import FilePath
from zfcore.interchange.foreign import Foreign

SUFFIXES = {".onnx": "onnx", ".caffemodel": "caffe", ".pt": "pytorch", ".pth": "pytorch", ".bin": "pytorch",
            ".safetensors": "safetensors", ".h5": "keras", ".hdf5": "keras", ".keras": "keras"}


def read(path: FilePath, graph: FilePath | None = None, model: str | None = None) -> Foreign:
    """The network in a file of another engine, whose format its name's ending tells.

    graph   the file that says how its layers lie, where the weights do not: Caffe's prototxt
    model   likewise, for files that hold weights alone: the name of one of zfcore's models, or a JSON file with a layer table

    Raises Expected for what is no such file, is damaged, or asks for more than such a file may; Unsupported, naming the node, for
    what zfcore has no layer for; and where a package that reads the format is not installed, a sentence that names it."""
    path = Path(path)
    if (name := SUFFIXES.get(path.suffix.lower())) is None:
        raise check.Expected(path, f"a file whose name ends in one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    try:
        open(path, "rb", opener=opener).close()
    except (OSError, ValueError) as error:
        raise check.Expected(path, "a file that can be read", getattr(error, "strerror", error)) from None
    return import_module(f"zfcore.interchange.{name}").read(path, graph and Path(graph), model)
