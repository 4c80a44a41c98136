"""Agreement of the ranks of a training: at the start all that a bit depends on, and every epoch the weights."""
import hashlib
import json
import platform
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

import numpy as np
import PIL

import zfcore
from zfcore import check
from zfcore.backend import CPU, Device, architecture, to_host
from zfcore.cpu import arithmetic
from zfcore.data.loader import DataSet
from zfcore.files import listed, mapping, parsed, text
from zfcore.hints import Array, Arrays
from zfcore.network import Network
from zfcore.ranks import Ranks
from zfcore.terminal import warn
from zfcore.training.config import TrainConfig, flag
from zfcore.training.folder import rows_of

MAY_DIFFER = ("data", "workers")     # options: the same pictures may lie elsewhere on another machine
SAME_PICTURES = (": the digits stand for their classes, names and bytes; rsync -rcni ROOT/ HOST:ROOT/ names those "
                 "that differ")
ADVICE = {"training pictures": SAME_PICTURES, "validation pictures": SAME_PICTURES,
          "BLAS": ": OPENBLAS_CORETYPE in the environment of all, the older processor's, lets OpenBLAS take one code",
          "NumPy's vector code": ": NPY_DISABLE_CPU_FEATURES in the newer processor's environment leaves out what the older "
                                 "lacks"}


def facts(config: TrainConfig, device: Device, train: DataSet, val: DataSet, network: Network, epoch: int,
          step: int) -> dict[str, str]:
    """{what: in words} of all that must be the same on all ranks, for `check_same`; `epoch` and `step` are where the run goes
    on."""
    options = {flag(f.name): repr(getattr(config, f.name)) for f in fields(config) if f.name not in MAY_DIFFER}
    return {"zfcore": zfcore.__version__, "numpy": np.__version__, "Pillow": PIL.__version__, "machine": platform.machine(),
            **options,
            "device": device.name if device is CPU else device.description,               # its cores' number does not matter
            **(arithmetic() if device is CPU else {}),
            "kernels": architecture(next(in_order([network.parameters()]))) or "none",     # a newer GPU's have other bits
            "training pictures": pictures_in_words("train", train), "validation pictures": pictures_in_words("val", val),
            "layers": digest(json.dumps(network.table()).encode()), "place in the run": f"epoch {epoch}, step {step}",
            "weights": f"{checksum(network.parameters(), network.buffers()):08x}"}


def pictures_in_words(part: str, dataset: DataSet) -> str:
    """Number and digest of the pictures' classes, names and, where they are known, bytes."""
    return f"{len(dataset)} ({digest(*('/'.join(row).encode(errors='surrogateescape') for row in rows_of(part, dataset)))})"


def digest(*texts: bytes) -> str:
    """Eight digits that are others for other texts."""
    found = hashlib.sha256()
    for one in texts:
        found.update(len(one).to_bytes(8, "little") + one)
    return found.hexdigest()[:8]


def check_same(ranks: Ranks, mine: Mapping[str, str]) -> None:
    """Raise Expected, on every rank, where the facts of one are not those of the first."""
    rows = [parsed(name, row, mapping(text(2**20))) for name, row in zip(ranks.names, ranks.gather(json.dumps(mine).encode()))]
    for name, row in zip(ranks.names, rows):
        for what in {**rows[0], **row}:
            if (wanted := rows[0].get(what)) != (got := row.get(what)):
                raise check.Expected(name, f"{what} {wanted}, as {ranks.names[0]} has", got,
                                     f"let all ranks have the same{ADVICE.get(what, '')}")


def checksum(*of: Arrays) -> int:
    """A checksum of all arrays in {layer: {name: array}}, in the order of their names."""
    value = 0
    for array in in_order(of):
        value = zlib.crc32(np.ascontiguousarray(to_host(array)).data, value)
    return value


def in_order(of: Iterable[Arrays]) -> Iterator[Array]:
    """Yield the arrays, by the names of their layers and their own."""
    yield from (of_layer[key] for arrays in of for _, of_layer in sorted(arrays.items()) for key in sorted(of_layer))


def check_weights(ranks: Ranks, step: int, *of: Arrays) -> None:
    """Raise Expected, on every rank, unless all have the same arrays after that step: they have computed them from the same
    numbers."""
    if ranks.size == 1:
        return
    found = ranks.gather(checksum(*of).to_bytes(4, "little"))
    (usual, _), = Counter(found).most_common(1)
    for name, one in zip(ranks.names, found):
        if one != usual:
            raise check.Expected(name, f"the weights of the other ranks after step {step}",
                                 "others, so one of them has computed wrongly",
                                 "look at that machine's memory and device, then go on from the last checkpoint")


def tell_once(ranks: Ranks, warnings: Iterable[str]) -> None:
    """Let the first rank, which alone speaks, tell what others were warned of and itself was not, with the name of the first
    that was. `warnings` are this rank's."""
    rows = ranks.gather(json.dumps([*warnings]).encode())
    rows = [parsed(name, row, listed(text(2**16))) for name, row in zip(ranks.names, rows)]
    told = {*rows[0]}
    for name, row in zip(ranks.names, rows) if ranks.is_first else ():
        for line in row:
            if line not in told:
                warn(f"{name}: {line}")
            told.add(line)


def any_asked(ranks: Ranks, asked: int) -> int:
    """The number of the signal by which any rank was asked to stop, 0: none; `asked` is what this one knows."""
    return max(row[0] for row in ranks.gather(bytes([asked])))
