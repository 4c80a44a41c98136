"""A certificate that an imported network is the one in its file: every layer beside what the file's own engine computes.

Both are given the same pictures, of random pixels, or inputs that somebody brings with the answers; each layer's largest
difference is held against its largest value. Float32 sums in another order differ by about 1e-6 of that; a network whose scores
differ by more than LIMIT is not the one in the file. Where an engine shows no scores but their softmax, its logarithm is held
against them: of pictures that are faded until no probability is lost in rounding to 0, which would tell nothing of the last layer.
"""
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.backend import to_host
from zfcore.interchange.foreign import Foreign
from zfcore.interchange.lower import Lowered
from zfcore.interchange.preprocessing import Preprocessing
from zfcore.ops.softmax_loss import softmax

LIMIT = 5e-5                      # of the largest score
PICTURES, SEED = 2, 1
LEAST = -60.0                     # logarithm of a probability that float32 still has well
FADED = 6                         # times that the contrast of pictures is divided by 4: to 1/16 of a pixel


@dataclass(frozen=True)
class Difference:
    """Largest difference of a layer's outputs from those of the file's own engine, and their largest value. `hidden`: what the
    engine shows tells nothing of them."""
    layer: str
    shape: tuple[int, ...]
    absolute: float
    largest: float
    hidden: bool = False

    @property
    def relative(self) -> float:
        return self.absolute/self.largest if self.largest else self.absolute


def compare(foreign: Foreign, seen: Preprocessing, lowered: Lowered) -> list[Difference]:
    """The Difference of every layer that computes what a node of the file does, the scores last, or their softmax where the
    engine shows no more; [] where it shows neither. `foreign` must have an engine."""
    C, H, W = foreign.input_shape
    pixels = np.random.default_rng(SEED).integers(0, 256, (PICTURES, H, W, 3), np.uint8)
    x = np.concatenate([seen.of_pixels(pixels[n:n + 1]) for n in range(PICTURES)])      # of one in float64 at a time
    asked = dict.fromkeys([*lowered.tensors.values(), *filter(None, [lowered.probabilities])])
    theirs: Mapping[str, NDArray[Any]] = foreign.engine(x, list(asked))  # type: ignore[misc]
    found, y = [], entering(seen, lowered, x)
    for layer in lowered.network.layers:
        with np.errstate(over="ignore", invalid="ignore"):           # told by `check_same`
            y, _ = layer.forward(y)
        if (tensor := lowered.tensors.get(layer.name)) is not None and tensor in theirs:
            found.append(difference(layer.name, to_host(y), np.asarray(theirs[tensor])))
    if set(list(lowered.tensors.values())[-1:]) & theirs.keys():
        return found
    p = theirs.get(lowered.probabilities or "")                      # an engine that fuses its softmax does not show the scores
    if p is None or y.ndim != 2:
        return []
    return [*found, behind_softmax(foreign, seen, lowered, x, to_host(y), np.asarray(p))]


def behind_softmax(foreign: Foreign, seen: Preprocessing, lowered: Lowered, x: NDArray[np.float32], scores: NDArray[Any],
                   p: NDArray[Any]) -> Difference:
    """The Difference of the scores (classes,N) of pictures x (N,C,H,W) from those of which the engine shows the softmax p alone.
    While a class has next to none of it, whose score it hides, pictures come nearer to the one that the first layer sees as 0."""
    H, W = x.shape[2:]
    top = (lowered.mean.shape[1] - H)//2
    nothing = seen.of_pixels(lowered.mean[None, :, top:top + H, top:top + W].transpose(0, 2, 3, 1))
    for faded in range(FADED + 1):
        if faded:
            x = nothing + (x - nothing)/np.float32(4)
            p = np.asarray(foreign.engine(x, [lowered.probabilities])[lowered.probabilities])  # type: ignore[misc, list-item, index]
            with np.errstate(over="ignore", invalid="ignore"):
                scores = to_host(lowered.network.forward(entering(seen, lowered, x))[0])
        found, hidden = of_scores(scores, p.reshape(len(p), -1))
        if not hidden or not found.relative <= LIMIT:
            return found
    return replace(found, hidden=True)


def of_scores(scores: NDArray[Any], p: NDArray[Any]) -> tuple[Difference, bool]:
    """(the Difference of scores (classes,N), up to a number for each picture, from the logarithm of a softmax p (N,classes), or
    from p if that is one; whether p hides a score)."""
    with np.errstate(divide="ignore", invalid="ignore"):             # told by `check_same`
        theirs = p if (p <= 0).all() else np.log(p)
        ours, theirs = (np.maximum(one - one.max(axis=0), LEAST) for one in (scores, theirs.T))
    one = replace(difference("softmax", ours, theirs.T), largest=float(np.abs(scores).max()))
    return one, len(scores) == 1 or bool((theirs <= LEAST).any())


def entering(seen: Preprocessing, lowered: Lowered, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x (N,C,H,W), as the file's network was made for -> (3,H,W,N), what enters zfcore's in its place."""
    H, W = x.shape[2:]
    top = (lowered.mean.shape[1] - H)//2
    mean = lowered.mean[:, top:top + H, top:top + W, None]
    y = np.empty((len(mean), H, W, len(x)), np.float32)
    for n in range(len(x)):                                # in float64 one at a time
        y[..., n:n + 1] = seen.pixels(x[n:n + 1]) - mean
    return y


def difference(layer: str, ours: NDArray[Any], theirs: NDArray[Any]) -> Difference:
    """The Difference of `ours`, batch last, from `theirs`, batch first. Raises Expected where they have other shapes."""
    if theirs.size != ours.size:
        raise check.Expected(f"{layer}: outputs of the file's own engine", f"{ours.size} numbers, of shape {ours.shape}",
                             theirs.shape)
    # a picture at a time: in float64 large maps take twice as much as all else
    absolute, largest = np.zeros((2, ours.shape[-1]))
    for n, one in enumerate(theirs.reshape(-1, *ours.shape[:-1])):
        absolute[n] = np.abs(np.subtract(ours[..., n], one, dtype=np.float64)).max(initial=0)
        largest[n] = np.abs(one).max(initial=0)
    return Difference(layer, ours.shape[:-1], float(absolute.max(initial=0)), float(largest.max(initial=0)))


def against_answers(seen: Preprocessing, lowered: Lowered, x: NDArray[np.float32], y: NDArray[Any]) -> Difference:
    """The Difference from answers y (N,classes) that somebody knows for inputs x (N,C,H,W): scores, or what a softmax makes of
    them if they sum to 1, or its logarithm if their exponentials do."""
    check.shape("--check: x", x, (None, *(len(seen.scale), *lowered.network.input_shape[1:])))
    scores = to_host(lowered.network.forward(entering(seen, lowered, np.asarray(x, np.float32)))[0])
    if (y >= 0).all() and _sum_to_1(y):
        scores = softmax(scores)
    elif (y <= 0).all() and _sum_to_1(np.exp(y)):
        less = scores - scores.max(axis=0)
        scores = less - np.log(np.exp(less).sum(axis=0))
    return difference("answers", scores, y)


def _sum_to_1(y):
    return np.allclose(y.reshape(len(y), -1).sum(axis=1), 1, atol=1e-3)


def check_all(what: object, found: list[Difference]) -> None:
    """Raise Expected unless the last of them, that of the scores, is no more than the rounding of float32; the sentence names
    the first layer that differs by more."""
    first = next((one for one in found if not one.relative <= LIMIT), None)
    check_same(what, found[-1], f"{first.layer} is the first layer that differs, by {first.relative:.1e}; " if first else "")


def check_same(what: object, found: Difference, where: str = "") -> None:
    """Raise Expected unless it is no more than the rounding of float32; `where` tells where that begins."""
    if not np.isfinite(found.absolute + found.largest):
        raise check.Expected(f"{what}: {found.layer}", "numbers that are finite for pictures of random pixels", "others",
                             "look at --mean, --std and --scale; or its weights are damaged")
    if not found.relative <= LIMIT:
        raise check.Expected(f"{what}: {found.layer}",
                             f"what the file's own engine computes, to {LIMIT:g} of the largest value",
                             f"a difference of {found.relative:.1e}", f"{where}nothing is written; please report the network")


def check_answers(what: object, found: Difference) -> None:
    """Raise Expected unless the Difference from the answers in the file `what` is no more than the rounding of float32."""
    if not found.relative <= LIMIT:
        raise check.Expected(f"{what}: y", f"what the network computes of x, to {LIMIT:g} of the largest value",
                             f"a difference of {found.relative:.1e}",
                             "nothing is written; x is what enters the file's own network, less its mean and in its own order of "
                             "channels, y its scores, their softmax or its logarithm")


def table(found: list[Difference]) -> list[str]:
    """The lines of a table of Differences."""
    width = max((len(one.layer) for one in found), default=5)
    head = f"{'layer':{width}}  {'maps or units':>15}  {'difference':>10}  {'of largest':>10}"
    return [head,
            *(f"{one.layer:{width}}  {'x'.join(map(str, one.shape)):>15}  {one.absolute:10.1e}  {one.relative:10.1e}"
              for one in found)]
