"""Floor 6: what a layer knows (paper, section 5 and table 7): the best linear classifier on its features.

    svm       each class against the rest, squared hinge loss        (zfcore.ops.hinge_loss; as scikit-learn's LinearSVC)
    softmax   all classes against each other, cross-entropy          (zfcore.ops.softmax_loss; as its LogisticRegression)

Both are the weights w (D,M) and biases b (M,) that make

    F(w, b) = 1/2 sum of w^2  +  C * sum over the n training pictures of loss(w'x + b)

least; the biases are free. F is convex and is followed to its minimum, so that the result is a property of the features and
not of a schedule. Its gradient in w is w plus a sum of training pictures, so the best w is itself such a sum: w = x a', with
coefficients a (M,n). Then w'x = a G, G = x'x (n,n) being the Gram matrix, through which alone the D features enter: the
290,400 of the paper's layer 1 are as quick to fit as the 4,096 of its layer 7, and are read a block of columns at a time.

The paper leaves open what a layer's features are, whether they are scaled, and how strongly the classifier is regularised.
Here they are what layer l hands to the layer above it, after ReLU, pooling and normalisation where it has them
(`feature_layers`), minus their mean over the training pictures, all divided by one number, so that the mean square length of
a training picture is 1. Neither changes which classifiers there are; they give C one meaning in all layers. (Were each unit
divided by its own deviation, one that fires on a single picture would weigh as much as any.) C is the one of `GRID` that does
best on a held-out third of the training pictures, of equals the smallest, which regularises most; the classifier is then
fitted anew to all of them. `random_projection` gives layers of unlike size equally many features.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.cpu import parallel, pieces
from zfcore.data.loader import shuffled
from zfcore.network import Network
from zfcore.ops.hinge_loss import hinge_loss, hinge_loss_backward
from zfcore.ops.softmax_loss import class_labels, softmax_loss, softmax_loss_backward

GRID = {"svm": (0.1, 0.3, 1, 3, 10), "softmax": (1, 3, 10, 30, 100)}      # of C, the middle one where nothing is held out
COLUMNS, ROWS = 2048, 256               # features in memory at a time; rows or columns of a product that one core forms
TOLERANCE, MOST_STEPS = 1e-5, 100       # of the gradient, relative to the one at w = 0; Newton steps


@dataclass(frozen=True, eq=False)
class Probe:
    """A classifier of M classes on n training pictures, and what it says of t test pictures.

    C             the chosen one
    grid          (G,) float64     those tried
    held_out      (G,) float64     the measure on the held-out pictures with each, NaN if none were held out
    coefficients  (M,n) float64    of the standardised training pictures in w
    bias          (M,) float64
    scores        (M,t) float64    w'x + b of the test pictures
    """
    FORM = {"kind": "text", "C": "float", "grid": "float64 G finite", "held_out": "float64 G", "coefficients": "float64 M n finite",
            "bias": "float64 M finite", "scores": "float64 M t finite"}
    kind: str
    C: float
    grid: NDArray[np.float64]
    held_out: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    bias: NDArray[np.float64]
    scores: NDArray[np.float64]


def feature_layers(network: Network) -> dict[int, str]:
    """{number of a layer with weights: name of what hands its features on}: {1: "norm1", 2: "norm2", 3: "relu3", 4: "relu4",
    5: "pool5", 6: "relu6", 7: "relu7"} for the paper's network, without the last, which holds the classes. A layer's number is
    the one at the end of its name where these rise, as in a network with layers left out; else they are counted."""
    check.instance("network", network, Network, "of a trained one: model.network")
    names = [layer.name for layer in network.weighted]
    numbers = [int(end[0]) for name in names if (end := re.search(r"\d+$", name))]
    if numbers != sorted(set(numbers)) or len(numbers) < len(names):
        numbers = range(1, len(names) + 1)
    last = [[layer.name for layer in network.layers[:network.index(above)] if not layer.hands_on][-1] for above in names[1:]]
    return dict(zip(numbers, last))


def probe(kind: Literal["svm", "softmax"], features: Any, train: NDArray[np.int64], labels: NDArray[np.int64],
          test: NDArray[np.int64], M: int, held: NDArray[np.bool_],
          measure: Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], float]) -> Probe:
    """The linear classifier of that kind on features (N,D), a NumPy array or anything that gives columns as
    `features[:, first:last]`.

    train    (n,)    rows to train on; one that stands there twice counts twice
    labels   (n,)    their classes, 0..M-1
    test     (t,)    rows to classify
    held     (n,)    which training pictures are held out while C is chosen, such as `held_out` gives
    measure  of scores (M,k), labels (k,), rows (k,) of held-out pictures: the higher the better

    Raises Expected for another kind, for numbers and a mask that do not fit or leave nothing to train on, for a measure that
    says no number, and for features that are not finite."""
    check.one_of("probe", kind, GRID)
    check.shape("features", features, (None, None))
    M = check.whole("classes", M)
    check.instance("measure", measure, Callable)
    train, test = _rows("train", train, features), _rows("test", test, features)
    labels, held = class_labels("labels", labels, M, len(train)), check.numbers("held", held, "b", "bool")
    check.shape("held", held, (len(train),))
    if held.all():
        raise check.Expected("held", "some training pictures that are not held out", f"all {len(held)} held out")
    gram, scale = gram_matrix(features, train)
    C, reached = choose(kind, gram, labels, M, held, lambda scores: measure(scores, labels[held], train[held]))
    u = fit(kind, gram, labels, M, C)
    return Probe(kind, C, np.array(GRID[kind], float), reached, u[:, :-1], u[:, -1],
                 scores_of(u, features, train, test, scale))


def _rows(what, rows, features):
    """`rows` as an array. Raises Expected unless they are one or more rows of the features."""
    rows, N = check.whole_numbers(what, rows), features.shape[0]
    check.shape(what, rows, (None,))
    if not len(rows) or not 0 <= rows.min() <= rows.max() < N:
        raise check.Expected(what, f"one or more rows from 0 to {N - 1}", f"{rows.min()} to {rows.max()}" if len(rows) else "none")
    return rows


def held_out(labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """(n,): a third of the pictures of each class, rounded down but at least one of two; drawn from `seed`."""
    order = shuffled(len(labels), seed, 0)
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        of_class = order[labels[order] == c]
        held[of_class[:max(len(of_class)//3, int(len(of_class) > 1))]] = True
    return held


def choose(kind, gram, labels, M, held, measure):
    """(C, what `measure(scores)` says of each of GRID); of equals the smallest C. Each fit begins where the last one ended."""
    grid, u, reached = GRID[kind], None, []
    if not held.any():
        return float(grid[len(grid)//2]), np.full(len(grid), np.nan)
    kept = gram[np.ix_(~held, ~held)]
    between = gram[np.ix_(~held, held)]
    for C in grid:
        u = fit(kind, kept, labels[~held], M, C, u)
        reached.append(measure(product(u[:, :-1], between) + u[:, -1:]))
        check.number("measure", reached[-1])
    return float(grid[int(np.argmax(reached))]), np.array(reached, float)


# ------------------------------------------------------------------------------------------- as many features a layer
def random_projection(features: Any, D: int, seed: int = 0) -> NDArray[np.float32]:
    """(N,D): features (N,any), as `probe` takes them, times one matrix of independent draws from N(0, 1/D).

    Layers differ in their number of features, and the more there are the more a linear classifier can tell apart, learned or
    not; so layers are compared with equally many. After Johnson and Lindenstrauss such a projection keeps all inner products,
    which is all that `probe` sees, up to some 1/sqrt(D) of the lengths: an error that depends on D and not on how many
    features there were. So every layer is treated alike, even one that has D features as it is; and unlike the principal
    components, the best units or the strongest, it asks no training picture and favours no layer whose features are few
    underneath. `seed` draws the matrix; features that are equally many meet the same one."""
    check.positive("random projection: features", D)
    draws, projected = np.random.Generator(np.random.Philox(seed)), np.zeros((features.shape[0], D), np.float32)
    for columns in pieces(features.shape[1], COLUMNS):
        x = block_of(features, columns).astype(np.float32, copy=False)
        projected += x @ draws.standard_normal((x.shape[1], D), np.float32)
    return projected/np.float32(np.sqrt(D))        # type: ignore[return-value]   # float32, whatever NumPy's types say


# ---------------------------------------------------------------------------------------------- features, standardised
def gram_matrix(features, train):
    """(G (n,n) float64, scale): the inner products of the standardised training pictures, and what they were divided by."""
    G = np.zeros((len(train), len(train)))
    for columns in pieces(features.shape[1], COLUMNS):
        x, _ = centred(features, columns, train)

        def job(rows):
            G[rows, :rows.stop] += x[rows] @ x[:rows.stop].T            # the lower half

        parallel(job, pieces(len(G), ROWS))
    for rows in pieces(len(G), ROWS):
        G[:rows.stop, rows] = G[rows, :rows.stop].T
    check.finite("features", G)
    scale = float(np.sqrt(max(np.trace(G)/len(G), np.finfo(float).tiny)))
    G /= scale*scale
    return G, scale


def block_of(features, columns):
    """A block of columns of the features. Raises Expected for what is no numbers, and where they are not finite."""
    block = check.numbers("features", features[:, columns], "biuf")
    check.finite("features", block)
    return block


def centred(features, columns, train, test=()):
    """A block of columns of the training and the test pictures, float64, minus their mean over the training pictures."""
    block = block_of(features, columns)
    mean = block[train].mean(axis=0, dtype=np.float64)
    return block[train] - mean, block[test] - mean if len(test) else None


def scores_of(u, features, train, test, scale):
    """w'x + b (M,t) for the test pictures: w is formed, used and forgotten a block of features at a time."""
    scores = np.repeat(u[:, -1:], len(test), axis=1)
    for columns in pieces(features.shape[1], COLUMNS):
        x, y = centred(features, columns, train, test)
        w = product(u[:, :-1], x)/scale                                   # (M,d)
        scores += product(w, y.T)/scale
    return scores


# ---------------------------------------------------------------------------------------------- the minimum of F
# A classifier is one array u (M,n+1): its coefficients and, last, its biases. With the matrix of inner products
# diag(G, 1), times(u) = [a G | b], the inner product of two classifiers (of w and w', b and b') is sum(u*times(u')), and
# the scores of the training pictures are the columns of times(u) plus its last one.

def fit(kind, gram, labels, M, C, start=None, tolerance=TOLERANCE):
    """u (M,n+1) with the least F, for the Gram matrix (n,n) of the training pictures; see above.

    Newton's method, each step by conjugate gradients in the metric of w and b, where the system is the identity plus C
    times something. The classes of an SVM have nothing to do with each other, so each has a step length of its own there.
    A step that does not lower F as it should is halved. The end is a gradient of `tolerance` times that at w = 0."""
    loss, axis = {"svm": (squared_hinge, 1), "softmax": (cross_entropy, None)}[kind]
    regularised = np.append(np.ones(len(gram)), 0)

    def gradient(u, slopes):               # slopes: of the loss in the scores, (M,n)
        return regularised*u + C*np.append(slopes, slopes.sum(axis=1, keepdims=True), axis=1)

    def F(u, g, value):
        return (u*g)[:, :-1].sum()/2 + C*value

    def square(u, g):
        return (u*g).sum(axis=axis, keepdims=True)

    origin = np.zeros((M, len(gram) + 1))
    steepest = gradient(origin, loss(origin[:, :-1], labels)[1])
    goal = tolerance**2*(steepest*times(steepest, gram)).sum()
    u = origin if start is None else start
    g = times(u, gram)
    value, slopes, curvature = loss(scores(g), labels)
    for _ in range(MOST_STEPS):
        r = -gradient(u, slopes)
        size = (r*times(r, gram)).sum()
        if size <= goal:
            return u
        enough = max(min(0.01, (size*tolerance**2/goal)**0.5)*size, goal/4)          # tighter towards the end
        d, dg = conjugate_gradients(lambda p, pg: gradient(p, curvature(scores(pg))), r, gram, square, enough)
        before, fall, t = F(u, g, value), -(r*dg).sum(), 1.0
        while True:
            value, slopes, curvature = loss(scores(g + t*dg), labels)
            if F(u + t*d, g + t*dg, value) <= before + 1e-4*t*fall or t < 1e-9:
                break
            t /= 2
        u, g = u + t*d, g + t*dg
    raise check.Expected(f"{kind} with C = {C:g}", f"a minimum within {MOST_STEPS} Newton steps", "none")


def conjugate_gradients(hessian, r, gram, square, enough):
    """(d, times(d)) with hessian(d) = r, up to a residual of square length `enough`, of which each system (an SVM has one a
    class) may leave its share. One that is there rests: steps beyond it would only blow up what was rounded."""
    d, dg = np.zeros(r.shape), np.zeros(r.shape)
    p, pg = r, times(r, gram)
    size = square(r, pg)
    share = enough/size.size
    while (size > share).any():
        hp = hessian(p, pg)
        t = np.divide(size, square(hp, pg), out=np.zeros(size.shape), where=size > share)
        d, dg, r = d + t*p, dg + t*pg, r - t*hp
        rg = times(r, gram)
        before, size = size, square(r, rg)
        turn = np.divide(size, before, out=np.zeros(size.shape), where=size > share)
        p, pg = r + turn*p, rg + turn*pg
    return d, dg


def times(u, gram):
    """[a G | b] for u = [a | b]."""
    return np.append(product(u[:, :-1], gram), u[:, -1:], axis=1)


def scores(g):
    """Scores of the training pictures, (M,n), from times(u)."""
    return g[:, :-1] + g[:, -1:]


def product(a, b):
    """a (M,n) times b (n,k), float64, a block of columns a core."""
    out = np.empty((len(a), b.shape[1]))

    def job(columns):
        np.matmul(a, b[:, columns], out=out[:, columns])

    parallel(job, pieces(b.shape[1], ROWS))
    return out


# Each loss: scores z (M,n) -> (sum over the pictures, its derivative (M,n), its second derivative as what it makes of a
# change v (M,n) of the scores).

def squared_hinge(z, labels):
    value, cache = hinge_loss(z, labels, squared=True)
    slopes = z.shape[1]*hinge_loss_backward(cache)
    short = slopes != 0                    # of their margin
    return z.shape[1]*value, slopes, lambda v: 2*short*v


def cross_entropy(z, labels):
    value, cache = softmax_loss(z, labels)
    p, _ = cache
    return z.shape[1]*value, z.shape[1]*softmax_loss_backward(cache), lambda v: p*(v - (p*v).sum(axis=0))
