"""Metadata that zfcore itself writes into an ONNX file beside the graph, and reads again: names of classes, and how pictures
are seen."""
import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore.check import Expected
from zfcore.files import choice, listed, parsed, said, table, text, whole
from zfcore.hints import FilePath, Shape

KEY = "zfcore"                    # of the model's metadata
MOST = 2**26                      # characters
FORM = table({"version": whole(1, 1), "classes": listed(text(), 10**6)},
             {"preprocessing": table({"channels": choice("rgb"), "size": whole(1, 2**14), "mean": text(MOST)})})


def to_metadata(classes: Sequence[str], mean: NDArray[np.float32] | None) -> str:
    """The text: names of classes, and the mean image (3,size,size) as float32 in base64."""
    told: dict[str, Any] = {"version": 1, "classes": list(classes)}
    if mean is not None:
        told["preprocessing"] = {"channels": "rgb", "size": mean.shape[1],
                                 "mean": base64.b64encode(np.ascontiguousarray(mean, "<f4").tobytes()).decode()}
    return json.dumps(told)


def from_metadata(path: FilePath, written: str | None, shape: Shape) -> tuple[list[str] | None, dict[str, Any]]:
    """(names of classes or None, keywords of `preprocessing.Preprocessing`) of the text of a network for pictures of `shape`;
    None: it has none."""
    if written is None:
        return None, {}
    where = f"{path}: metadata {KEY}"
    if len(written) > MOST:
        raise Expected(where, f"at most {MOST} characters", len(written))
    told = parsed(where, written, FORM)
    seen, labels = told.get("preprocessing"), told["classes"] or None
    if seen is None:
        return labels, {}
    size = seen["size"]
    try:
        mean = np.frombuffer(base64.b64decode(seen["mean"], validate=True), "<f4").reshape(3, size, size)
    except (binascii.Error, ValueError):
        raise Expected(where, f"a mean image of {size}x{size} pixels", said(seen["mean"])) from None
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or size < shape[1] or not np.isfinite(mean).all():
        raise Expected(where, f"a mean image for pictures of {'x'.join(map(str, shape))}", f"one of 3x{size}x{size}")
    return labels, {"channels": "rgb", "size": size, "mean": mean.astype(np.float64), "scale": 1.0}
