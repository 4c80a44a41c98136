"""Time of a training step on several ranks, predicted from what `python -m bench ranks` has measured and kept in the user's
cache.

A rank goes through its leaves (zfcore/reduce.py), a leaf of n pictures in fixed + each*n seconds. In backward of the last one
bucket after bucket of gradients is ready; each then travels while backward goes on, one after the other: to the ranks that add
up its slices, and back. After the last one the weights are updated. What the network does meanwhile to the arithmetic, and how
ranks wait for the slowest of them, is left out."""
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from zfcore.check import Expected
from zfcore.checkpoint import atomic, in_turn
from zfcore.data.loader import cache_folder
from zfcore.files import folder_made, listed, mapping, read_json, real, table, text, whole
from zfcore.layers import Linear
from zfcore.network import Network
from zfcore.reduce import leaves, micro_batch, share

FILE = "ranks.json"              # in the user's cache: {place: Measured} as JSON


class Link(NamedTuple):
    """Join of two ranks: seconds that a message takes however short it is, bytes a second of a long one."""
    latency: float
    bandwidth: float


class Bucket(NamedTuple):
    """Gradients that travel together, and the share of a leaf's forward and backward after which they are there, 0 to 1."""
    bytes: int
    ready: float


@dataclass(frozen=True)
class Measured:
    """Times of one machine: seconds of a leaf, `fixed` and for `each` picture, and of the update; the link between its ranks,
    and `steps` {ranks: seconds} of whole steps of `batch_size` pictures."""
    fixed: float
    each: float
    update: float
    buckets: tuple[Bucket, ...]
    link: Link
    batch_size: int
    steps: dict[int, float]
    date: str


class Estimate(NamedTuple):
    """Seconds of a step, of its arithmetic, and of what of the communication nothing hides."""
    step: float
    compute: float
    exposed: float


# ------------------------------------------------------------------------------------------------------- communication
def exchange_seconds(size: float, ranks: int, link: Link) -> float:
    """Seconds in which `size` bytes are summed over the ranks: each sends every other one its slice, and gets the sums back. A
    rank sends 2(R - 1)/R times `size`, as in a ring, in 2(R - 1) messages."""
    return 2*((ranks - 1)*link.latency + (ranks - 1)/ranks*size/link.bandwidth)


def by_node_seconds(size: float, nodes: int, per_node: int, inside: Link, between: Link) -> float:
    """The same on nodes of so many ranks, whose slices go `inside` a node or `between` two, one after the other."""
    near, far, part = per_node - 1, (nodes - 1)*per_node, size/(nodes*per_node)
    return 2*(near*(inside.latency + part/inside.bandwidth) + far*(between.latency + part/between.bandwidth))


class Traffic(NamedTuple):
    """Bytes of a step's gradients, of those of fully connected layers among them, and of the factors of these: what goes into a
    layer and what comes back to its output, of which dw is the product over the pictures of the batch."""
    gradients: int
    connected: int
    factors: int


def traffic(network: Network, batch_size: int) -> Traffic:
    """The Traffic of a network's step of so many pictures."""
    sizes = {name: 4*sum(math.prod(shape) for shape in of.values()) for name, of in network.parameter_shapes().items()}
    connected = [layer for layer in network.layers if isinstance(layer, Linear)]
    factors = sum(4*batch_size*sum(network.parameter_shapes()[layer.name]["w"]) for layer in connected)
    return Traffic(sum(sizes.values()), sum(sizes[layer.name] for layer in connected), factors)


def by_factors_seconds(of: Traffic, ranks: int, link: Link) -> float:
    """Seconds of a step's communication, were the factors of fully connected layers sent instead of their gradients: they go to
    all and nothing comes back."""
    return exchange_seconds(of.gradients - of.connected, ranks, link) + exchange_seconds(of.factors, ranks, link)/2


# ---------------------------------------------------------------------------------------------------------------- steps
def end_of_exchange(compute: float, leaf: float, buckets: Sequence[Bucket], seconds: Callable[[int], float],
                    overlap: bool = True) -> float:
    """Time at which the last bucket has arrived, in seconds from the beginning of a step whose arithmetic takes `compute`, its
    last leaf `leaf` of them; without `overlap` nothing travels before all is computed."""
    end = 0.0
    for bucket in buckets:
        ready = compute - leaf*(1 - bucket.ready) if overlap else compute
        end = max(end, ready) + seconds(bucket.bytes)
    return end


def estimate(of: Measured, batch_size: int, ranks: int, seconds: Callable[[int], float], micro: int = 0, own: bool = True,
             overlap: bool = True) -> Estimate:
    """Estimate of a step of `batch_size` pictures on so many ranks; `seconds(bytes)` is what a bucket takes. With `own` each
    rank has a device such as the one that was measured; else they share its cores, and for each picture they are together no
    faster. Raises Expected for more ranks than leaves."""
    sizes = [leaf.stop - leaf.start for leaf in leaves(batch_size, micro_batch(batch_size, micro, ranks))]
    most = max((sizes[share(len(sizes), ranks, rank)] for rank in range(ranks)), key=sum)
    slower = 1 if own else ranks
    times = [of.fixed + slower*of.each*size for size in most]
    compute = sum(times)
    end = max(compute, end_of_exchange(compute, times[-1], of.buckets, seconds, overlap)) if ranks > 1 else compute
    return Estimate(end + slower*of.update, compute, end - compute)


# ------------------------------------------------------------------------------------------------------------ the cache
def place_of(model: str, image_size: int, device: str) -> str:
    """Name of what was measured, in the cache."""
    return f"{model}, {image_size} pixels, {device}"


NUMBERS = {name: real(0) for name in ("fixed", "each", "update")}
FORM = mapping(table({**NUMBERS, "buckets": listed(listed(real(0), 2, 2)), "link": listed(real(above=0), 2, 2),
                      "batch_size": whole(1), "steps": mapping(real(0)), "date": text()}))


def kept() -> dict[str, Measured]:
    """{place: Measured} of the user's cache; {} where nothing was measured. Raises Expected for a file that is none."""
    folder = cache_folder()
    if folder is None or not (folder/FILE).is_file():
        return {}
    try:
        return {place: Measured(**{**of, "buckets": tuple(Bucket(*bucket) for bucket in of["buckets"]),
                                   "link": Link(*of["link"]),
                                   "steps": {int(ranks): seconds for ranks, seconds in of["steps"].items()}})
                for place, of in read_json(folder/FILE, FORM).items()}
    except ValueError as error:                            # an Expected is one, too
        raise Expected(folder/FILE, "what python -m bench ranks writes", error, "remove it and measure again") from None


def keep(place: str, of: Measured) -> None:
    """Enter what was measured into the user's cache, if there is one."""
    folder = cache_folder()
    if folder is not None:
        with folder_made(folder), in_turn(folder/FILE), atomic(folder/FILE) as temporary:
            found = {**kept(), place: of}
            temporary.write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=1) + "\n")


# --------------------------------------------------------------------------------------------------------------- in words
def in_words(config, device: str, devices: int, own: bool) -> str:
    """Sentences of --dry-run about so many devices: a step on one, on all, and whether that pays; of the device with this
    description. Raises Expected for more devices than leaves."""
    micro_batch(config.batch_size, config.micro_batch, devices)
    of = kept().get(place := place_of(config.model, config.image_size, device))
    if of is None:
        size = f" --image-size {config.image_size}"
        return (f"ranks:  how long a step takes on {devices} devices was not measured here ({place}); "
                f"`python -m bench ranks --model {config.model}{size} --devices {devices}` measures it")
    alone = estimate(of, config.batch_size, 1, lambda size: 0.0, config.micro_batch)
    several = estimate(of, config.batch_size, devices, lambda size: exchange_seconds(size, devices, of.link),
                       config.micro_batch, own)
    speed = alone.step/several.step
    told = (f"ranks:  predicted from what was measured here on {of.date[:10]}: a step of {config.batch_size} pictures takes "
            f"{clock(alone.step)} on one device, {clock(several.step)} on {devices}, {clock(several.exposed)} of them waiting "
            f"for gradients: {speed:.2f} times as fast")
    if config.batch_size == of.batch_size and devices in of.steps:
        told += f"\n        measured on {devices}: {clock(of.steps[devices])}"
    if speed < 1:
        told += f"\n        {devices} devices are slower than one with batches of {config.batch_size} over this network: train on one"
    return told


def clock(seconds: float) -> str:
    """"1.2 s", "34 ms", "5 us"."""
    for unit, length in (("s", 1), ("ms", 1e-3)):
        if seconds >= length:
            return f"{seconds/length:.3g} {unit}"
    return f"{seconds/1e-6:.3g} us"

