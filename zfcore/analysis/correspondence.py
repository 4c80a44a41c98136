"""Floor 6: does hiding the same part of different objects change the features alike (paper, table 1 and figure 8)?

    correspondence      masks the parts, and places that control for them, in each picture, compares the signs of the changes
    read_landmarks      part positions from a JSON file
    random_test         whether a part's score is lower than those of random places
    place_test          whether it is lower than with the same places dealt to other pictures
    holm                p values corrected for their number
    least_p             how low they can be at all, in so many pictures

In each picture i a grey square hides a part; eps_i = (features of the picture) - (features with the part hidden). The score of
a part is the Hamming distance H between sign(eps_i) and sign(eps_j), divided by the number of features, and averaged over all
pairs of pictures: 0 if every feature moves the same way in all pictures. Signs are -1, 0 or 1 and the features those after the
ReLU, where most do not move at all; only so are the printed scores near 0.07 possible. A feature has moved if it changed by
more than 1e-5 of the picture's largest: below that are rounding errors, as the sums of a batch may be formed in any order.

The square's side is 29/101 of the input's, as in figure 8; it is pushed inwards where it would lie over the border, so that
all squares hide the same area. There are three controls. The paper's are random squares, anywhere in the picture, at another
place in each. It does not have the other two. Random squares at one place, the same in all pictures: in pictures that are
aligned, as frontal faces are, a part is at nearly one place too, and the features that move are then the same for that
reason alone. And the other picture's part: in picture i the square lies where the part is in picture j. These places are
those of the part itself, only dealt to the wrong pictures, so a part that scores lower than this does so for what it shows,
not for where it lies; `place_test` says whether it does. The printed +- is not explained in the paper; here it is the
standard deviation over the pairs of pictures, for the controls over the pairs of all draws.

A network before its first step mostly passes both tests as well: hiding like pixels at like places changes any network alike.
What was learned is told by the same squares with `model.untrained()`, as `python -m train.reproduce table1` does.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.analysis.invariance import MOVED, default_layers, look, subtract
from zfcore.analysis.top_activations import MID_GREY
from zfcore.backend import to_host
from zfcore.cpu import parallel, pieces
from zfcore.deconvnet import check_layers
from zfcore.hints import Bar
from zfcore.terminal import plural
from zfcore.trained import Trained, check_model, check_sees_squares

SIDE = 29/101                     # of the input's side; 64 pixels of 224
GROUP = 10                        # pictures, or up to nearly twice as many, that lend each other the places of their parts
PARTS = "right eye", "left eye", "nose"                    # the paper's, as the synthetic faces call them


@dataclass(frozen=True, eq=False)
class Correspondence:
    """n pictures, m = n*(n-1)/2 pairs of them in the order of np.triu_indices(n, 1), P parts, R random squares a picture, L
    layers.

    parts        (P,) texts             layers      (L,) texts              side    pixels, of the square;  grey    its value
    pictures     (n,H,W,3) uint8        as the network sees them: the centre crop
    corners      (n,P+2R,2) int64       row, column of each square's first pixel: parts, random places, common places
    lenders      (R,n) int64            in picture i the places of the parts of picture lenders[r,i], another, are hidden too
    scores       (L,P,m) float64        of each part and pair
    random       (L,R,m) float64        of random squares, another place in each picture
    common       (L,R,m) float64        of random squares, one place in all pictures
    lent         (L,P,R,m) float64      of each part's places, where they lie in another picture
    p_values     (L,P,2) float64        of "lower than random" and "lower than with another picture's part", see `random_test`
                                        and `place_test`
    permutations how many of them
    names        (n,) texts, or None"""
    FORM = {"parts": "text P", "layers": "text L", "side": "int 1..H", "grey": "int 0..255", "pictures": "uint8 n H W 3",
            "corners": "int64 n P+2R 2 -H..H", "lenders": "int64 R n 0..n-1", "scores": "float64 L P m finite",
            "random": "float64 L R m finite", "common": "float64 L R m finite", "lent": "float64 L P R m finite",
            "p_values": "float64 L P 2 0..1", "permutations": "int 1..", "names": "text n"}
    parts: NDArray[np.str_]
    layers: NDArray[np.str_]
    side: int
    grey: int
    pictures: NDArray[np.uint8]
    corners: NDArray[np.int64]
    lenders: NDArray[np.int64]
    scores: NDArray[np.float64]
    random: NDArray[np.float64]
    common: NDArray[np.float64]
    lent: NDArray[np.float64]
    p_values: NDArray[np.float64]
    permutations: int
    names: NDArray[np.str_] | None = None

    def rows(self) -> list[tuple[str, list[tuple[float, float]]]]:
        """[(what is masked, [(mean, spread) of each layer])], the rows of table 1."""
        table = [*zip(self.parts.tolist(), self.scores.swapaxes(0, 1)),
                 *((f"{part} of another picture", of) for part, of in zip(self.parts.tolist(), self.lent.swapaxes(0, 1))),
                 ("random", self.random), ("random, one place", self.common)]
        return [(what, [(float(pairs.mean()), float(pairs.std())) for pairs in of]) for what, of in table]

    @property
    def corrected(self) -> NDArray[np.float64]:
        """(L,P,2), the p values corrected for the 2*L*P tests that they are."""
        return holm(self.p_values)

    def least(self, n: int | None = None) -> float:
        """The least corrected p that can be expected, of parts that are all found in both tests in all layers; in n pictures,
        None: in these."""
        p = least_p(len(self.pictures) if n is None else n, self.random.shape[1], self.permutations)
        return float(holm(np.broadcast_to(p, self.p_values.shape)).max())

    def lacking(self, level: float = 0.05) -> str:
        """Reason why no part can be found below `level`, and what is needed; "" where one can."""
        if self.least() < level:
            return ""
        enough = next((n for n in range(len(self.pictures) + 1, 2*GROUP) if self.least(n) < level), None)
        too_few, needed = ((plural(len(self.pictures), "picture"), enough) if enough else
                           (plural(self.permutations, "permutation"), f"more than {self.p_values.size/level - 1:.0f}"))
        return (f"In {too_few} no part can be found, as the least corrected p to be expected is {self.least():.2g}: {needed} are "
                "needed")


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values of any shape, corrected for their number by Holm's step-down: the smallest of m is multiplied by m, the next by
    m - 1 and so on; none becomes smaller than one before it, none larger than 1. The probability that any of those whose
    hypothesis holds is at most a is then at most a, however the tests depend on each other."""
    order = np.argsort(p, axis=None)
    steps = np.ravel(p)[order]*np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.reshape(np.shape(p))


def least_p(n: int, random: int, permutations: int) -> NDArray[np.float64]:
    """(2,): p of `random_test` and `place_test` to be expected in n pictures where nothing that is drawn scores as low as the
    part, but the part itself: it is one of (1 + random)^n choices, and its places one of the ways to deal those of a group."""
    ways = (1 + random)**n, prod(factorial(len(group)) for group in groups_of(n, 0))
    return np.array([(1 + permutations/of)/(1 + permutations) for of in ways])


# ------------------------------------------------------------------------------------------------------ the analysis
def correspondence(model: Trained, pictures: NDArray[np.uint8], places: NDArray[Any], parts: Sequence[str], *,
                   layers: Sequence[str] | None = None, random: int = 20, permutations: int = 9999, grey: int = MID_GREY,
                   side: int | None = None, seed: int = 0, batch_size: int = 64, names: Sequence[str] | None = None,
                   bar: Bar | None = None) -> Correspondence:
    """Mask the same parts in pictures (n,H,W,3), the centre crops that the network sees.

    places         (n,P,2): x, y of each of the P `parts`, in pixels of the crop
    layers         names as in `deconvnet.feature_layer`; None: the last convolution and the last layer with a ReLU, 5 and 7
    random         random squares a picture and kind, and how often the places of the parts are dealt to other pictures
    grey           0..255, the value of the square's pixels;  side: its pixels, None: 29/101 of the input's
    seed           draws the random squares, who lends places to whom, and the permutations
    names          of the pictures, for messages
    bar            moved on by one a picture shown to the network, `length` in all

    Raises Expected for fewer than two pictures, a part outside the crop, a layer or a side that there cannot be."""
    check_model(model)
    check_sees_squares(model)
    network, crop, P = model.network, model.crop, len(parts := check.different_names("--parts", parts))
    pictures = check.pictures("pictures", pictures, (None, crop, crop, 3))
    if (n := len(pictures)) < 2:
        raise check.Expected("pictures", "at least two, to compare", n)
    names = [f"picture {i}" for i in range(n)] if names is None else check.names("names", names)
    if len(names) != n:
        raise check.Expected("names", f"{n}, one a picture", len(names))
    random, permutations, batch_size = (check.whole(what, value) for what, value in (
        ("random squares", random), ("permutations", permutations), ("batch size", batch_size)))
    grey = check.whole("grey", grey, 0, 255)
    side = check.whole("side of the square", default_side(crop) if side is None else side, 1, crop)
    seed = check.seed("seed", seed)
    places = check.numbers("places", places).astype(float)
    check.shape("places", places, (n, P, 2))
    for i, k in np.argwhere(~((places >= 0) & (places < crop)).all(axis=2)):
        raise check.Expected(f"{parts[k]} in {names[i]}", "a place in the centre crop that the network sees", "one outside it",
                             "leave the picture out, or the part")
    layers = default_layers(network, first=False) if layers is None else check_layers(network, layers)
    corners, groups = _corners(places, crop, side, random, seed), groups_of(n, seed)
    borrowed = corners[lenders_of(groups)[:, 1:], :P].reshape(n, -1, 2)                         # of the next in the group, ...
    signs = _signs(model, pictures, np.concatenate([corners, borrowed], axis=1), side, grey, layers, batch_size, bar)
    dealt = _derangements(groups, random, seed)
    found = [_of_layer(signs[name], P, random, groups, dealt, permutations, seed) for name in layers]
    lenders = np.take_along_axis(lenders_of(groups), dealt.T, axis=1).T
    return Correspondence(np.array(parts), np.array(layers), side, grey, pictures.copy(), corners, lenders,
                          *map(np.stack, zip(*found)), permutations, np.array(names))


def _of_layer(signs, P, R, groups, dealt, permutations, seed):
    """(scores, random, common, lent, p_values) of a Correspondence for one layer, whose signs are (n,P+2R+P*(G-1),D)."""
    pairs = np.triu_indices(len(signs), 1)
    differ = hamming(signs[:, :P + 2*R])
    scores = np.stack([differ[pairs[0], k, pairs[1], k] for k in range(P + 2*R)])
    lent, p_values = np.empty((P, R, len(pairs[0]))), np.empty((P, 2))
    for k in range(P):
        by_lender = hamming(signs[:, [k, *range(P + 2*R + k, signs.shape[1], P)]])             # (n,G,n,G), its own place first
        lent[k] = [by_lender[pairs[0], shift[pairs[0]], pairs[1], shift[pairs[1]]] for shift in dealt]
        p_values[k] = (random_test(differ, k, np.arange(P, P + R), permutations, seed),
                       place_test(by_lender, groups, permutations, seed))
    return scores[:P], scores[P:P + R], scores[P + R:], lent, p_values


def length(n: int, parts: int, random: int) -> int:
    """Number of pictures that `correspondence` shows to the network, for n pictures with so many parts."""
    return n*(1 + 2*random + parts*max(map(len, groups_of(n, 0))))


def default_side(crop):
    """Pixels of figure 8's square, for an input of `crop` pixels."""
    return max(1, round(SIDE*crop))


def _corners(places, crop, side, random, seed):
    """(n,P+2R,2) int64: row and column where each square begins."""
    n, rng = len(places), np.random.Generator(np.random.Philox(key=[seed, 0]))
    around = np.rint(places[..., ::-1] - side/2).astype(np.int64).clip(0, crop - side)          # x, y -> row, column
    apart = rng.integers(0, crop - side + 1, (n, random, 2))
    common = np.broadcast_to(rng.integers(0, crop - side + 1, (random, 2)), (n, random, 2))
    return np.concatenate([around, apart, common], axis=1)


def groups_of(n, seed):
    """n pictures in groups, drawn: [(g,) int64, the numbers of a group's pictures], GROUP <= g < 2*GROUP, or one of n.

    Were any picture to lend to any other, n*n squares a part would have to be looked at, not n*g."""
    order = np.random.Generator(np.random.Philox(key=[seed, 2])).permutation(n)
    return np.array_split(order, max(1, n//GROUP))


def lenders_of(groups):
    """(n,G) int64: the pictures of each one's group from itself on, in its order and round again, G the largest group."""
    table = np.empty((sum(map(len, groups)), max(map(len, groups))), np.int64)
    for group in groups:
        turn = np.arange(len(group))[:, None] + np.arange(table.shape[1])
        table[group] = group[turn % len(group)]
    return table


def _dealt(groups, count, rng):
    """(count,n) int64: by how many members of its group the lender of each picture stands behind it, when each group's places
    are dealt anew to its pictures, all orders being as likely."""
    shifts = np.empty((count, sum(map(len, groups))), np.int64)
    for group in groups:
        g = len(group)
        shifts[:, group] = (rng.permuted(np.tile(np.arange(g), (count, 1)), axis=1) - np.arange(g)) % g
    return shifts


def _derangements(groups, count, seed):
    """Deal as `_dealt` does, but no picture keeps its own place: drawn group by group until that is so."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 3]))
    shifts = np.zeros((count, sum(map(len, groups))), np.int64)
    for group in groups:
        while (again := np.flatnonzero((shifts[:, group] == 0).any(axis=1))).size:
            shifts[np.ix_(again, group)] = _dealt([np.arange(len(group))], again.size, rng)
    return shifts


def masked(picture, corners, side, grey=MID_GREY):
    """A picture (H,W,3) with a grey square at each of the corners (K,2): (K,H,W,3)."""
    shown = np.repeat(picture[None], len(corners), axis=0)
    for one, (top, left) in zip(shown, corners.tolist()):
        one[top:top + side, left:left + side] = grey
    return shown


def _signs(model, pictures, corners, side, grey, layers, batch_size, bar):
    """{layer: (n,K,D) int8}: how each feature changes when each of K squares hides its part of each picture."""
    K, signs = corners.shape[1], {name: [] for name in layers}
    for picture, at in zip(pictures, corners):
        clean, moved = None, {name: [] for name in layers}
        for first in range(0, K, batch_size):
            shown = masked(picture, at[first:first + batch_size], side, grey)
            if clean is None:
                shown = np.concatenate([picture[None], shown])
            x = subtract(np.ascontiguousarray(shown.transpose(3, 1, 2, 0), np.float32), model.mean)
            features, _ = look(model.network, x, layers)
            features = {name: to_host(f).T for name, f in features.items()}                     # (N,D)
            if clean is None:
                clean = {name: f[0].copy() for name, f in features.items()}
                features = {name: f[1:] for name, f in features.items()}
            for name, f in features.items():
                moved[name].append(sign_of_change(clean[name], f))
            if bar is not None:
                bar.update(len(shown))
        for name in layers:
            signs[name].append(np.concatenate(moved[name]))
    return {name: np.stack(each) for name, each in signs.items()}


def sign_of_change(clean, features):
    """sign(clean - features) in int8; what moved by no more than MOVED of the largest clean feature has not moved. clean
    (D,)."""
    change = clean - features
    return (np.sign(change)*(abs(change) > MOVED*abs(clean).max())).astype(np.int8)


def hamming(signs):
    """The share of features in which signs (n,K,D), all of -1, 0, 1, differ, for any two of the n*K: (n,K,n,K)."""
    n, K, D = signs.shape
    flat, agree = signs.reshape(n*K, D), np.zeros((n*K, n*K))
    for first in range(0, D, 4096):
        block = flat[:, first:first + 4096]
        for value in (-1, 0, 1):
            here = (block == value).astype(np.float32)       # counts up to 4096 are exact
            agree += here @ here.T
    return (1 - agree/D).reshape(n, K, n, K)


# ------------------------------------------------------------------------------------------------------ permutations
def random_test(differ, part, random, permutations=9999, seed=0):
    """p of the one-sided test whether the mean score of mask `part` is lower than that of the masks `random` (their numbers).

    The hypothesis tested: hiding the part is like hiding one more random place, so that in each picture, independently of the
    others, the part's square and its random squares could change names. So in each picture one of them all is drawn, and the
    mean score over the pairs of pictures is formed as for the part.

    differ (n,K,n,K), see `hamming`"""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    masks = np.array([part, *random])
    return _share_as_low(differ, np.full(len(differ), part), masks[rng.integers(0, len(masks), (permutations, len(differ)))])


def place_test(differ, groups, permutations=9999, seed=0):
    """p of the one-sided test whether the mean score of a part is lower than with its places dealt to other pictures.

    The hypothesis tested: what hiding a square changes may depend on the picture and on where the square lies, but where the
    part lies in one picture might as well be where it lies in another. Then all ways to deal the places of a group to its
    pictures are as likely, the true one among them; some are drawn, and the mean score is formed as for the true one. As in
    each of them every place is used once, it makes no difference that the places resemble each other.

    differ (n,G,n,G), see `hamming`: mask s of picture i lies at the part of lenders_of(groups)[i,s], 0 at its own"""
    rng = np.random.Generator(np.random.Philox(key=[seed, 4]))
    return _share_as_low(differ, np.zeros(len(differ), np.int64), _dealt(groups, permutations, rng))


def _share_as_low(differ, own, drawn):
    """p = (1 + number of draws with a score no larger than the part's)/(1 + draws): if the hypothesis holds, p is at most any
    level a with a probability of at most a, whatever the number of draws. own (n,), drawn (M,n): masks."""
    (n, K), drawn = differ.shape[:2], np.concatenate([own[None], drawn])
    scores, flat = np.empty(len(drawn)), np.ascontiguousarray(differ).ravel()         # of n*K by n*K, K rows a picture

    def score(some):
        of = np.arange(n)*K + drawn[some]
        scores[some] = flat.take(of[:, :, None]*(n*K) + of[:, None, :]).sum(axis=(1, 2))        # none differs from itself

    parallel(score, pieces(len(drawn), 2**15//n**2))
    return (1 + int((scores[1:] <= scores[0] + 1e-9*n*n).sum()))/len(drawn)


# --------------------------------------------------------------------------------------------------- part positions
def common_parts(marks):
    """The parts that all pictures of `read_landmarks` have, in the order of the first."""
    every = list(marks.values())
    parts = [part for part in (every[0] if every else ()) if all(part in of for of in every)]
    if not parts:
        raise check.Expected("--landmarks", "a part that all pictures have", "none")
    return parts


def in_crop(places, width, height, size, crop):
    """Places (...,2), x and y in a picture of width x height, in pixels of its centre crop, see `data.transforms.square`."""
    side = min(width, height)
    corner = np.array([(width - side)//2, (height - side)//2])
    return (np.asarray(places, float) - corner)*size/side - (size - crop)//2
