"""Convolution with fewer products: Winograd's minimal filtering F(2x2,3x3), as Lavin & Gray brought it to networks
(arXiv 1509.09308). conv2d takes it where maps and filters are many and a window has at most three taps a stride.

Four neighbouring inputs d and three taps g make two neighbouring outputs y with 4 products, not 6:

    y = A' ((G g) * (B' d))        B' d = (d0 - d2,  d1 + d2,  d2 - d1,  d1 - d3)
                                   G g  = (g0,  (g0 + g1 + g2)/2,  (g0 - g1 + g2)/2,  g2)
                                   A' m = (m0 + m1 + m2,  m1 - m2 - m3)

and by rows and columns a tile of 2x2 outputs with 16, not 36. At each of these 4x4 points the sum over maps is one matrix
product for all tiles and images. With coefficients 0, 1 and 1/2 the rounding stays near that of the plain sum, and a
finite input that an output does not see adds exactly 0 to it. The gradients are the same three maps transposed. What takes a tile
to its points and back is a small matrix product as well: by rows and columns at once, and from cache to cache; where it is
compiled (loops.py), without the many zeros of the matrix.

A stride S is taken apart: pixels (S*i + a - P, S*j + b - P) form the phase (a,b), S*S*C maps in all, which meet the taps
w[:, a::S, b::S] at stride 1. Of these there are at most 3x3 if K <= 3S. Where g2 is missing, g has no last point: a point is
multiplied for those phases alone that have it.

    ti tj   rows and columns of tiles      U filters, V inputs, D gradients, M outputs at the points
"""
import functools
import math
import threading
from itertools import product
from typing import NamedTuple

import numpy as np

from zfcore.cpu import parallel, pieces
from zfcore.memory import workspace
from zfcore.ops import loops
from zfcore.ops.window import places, tap_range, windows

BLOCK = 2**26                     # bytes of V and M, or V and D, that all cores work on
SLAB = 2**21                      # bytes of tiles transformed at once
B = (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)                  # B' of the text
G = (1, 0, 0), (.5, .5, .5), (.5, -.5, .5), (0, 0, 1)
A = (1, 0), (1, 1), (1, -1), (0, -1)
MOST_KEPT, _KEPT = 8, {}          # {where filters lie, and how: (a copy of them, their U)}, the last asked for last
_KEEPING = threading.Lock()       # a caller may compute in several threads
FLIPPED_B, FLIPPED_A = (tuple(of[k] for k in (3, 1, 2, 0)) for of in (B, A))   # of flipped taps: then d and y are flipped, too

# By whether a point is the last of its row and of its column, and a phase has three taps: in these orders the points of each
# kind of phase lie side by side, and the phases of each kind of point.
POINTS = sorted(product(range(4), repeat=2), key=lambda at: [(1, 0), (0, 0), (0, 1), (1, 1)].index((at[0] == 3, at[1] == 3)))
KINDS = [(True, False), (True, True), (False, True), (False, False)]


class Phase(NamedTuple):
    """Phase (a,b): its maps among the S*S*C, its points among POINTS, and the taps and points of a row and of a column."""
    a: int
    b: int
    maps: slice
    points: slice
    taps: tuple
    sizes: tuple

    def matrix(self, transform, dtype, sizes=None):
        """The transform (points, numbers) of one direction by rows and columns at once: (this phase's points, numbers), of the
        first `sizes` numbers of a row and of a column."""
        return _matrix(transform, self.points.start, self.points.stop, sizes or self.sizes, dtype)

    def terms(self, transform, dtype, sizes=None, back=False):
        """(weights, terms) of `matrix`, or of it transposed, for `loops.weigh`: what is not 0 in each row and where it stands,
        in order, in fours; a row that has fewer than the fullest ends in weights of 0. None where BLAS has another order."""
        return _terms(transform, self.points.start, self.points.stop, sizes or self.sizes, dtype, back)


@functools.lru_cache(256)
def _matrix(transform, first, last, sizes, dtype):
    rows, columns = (np.array(transform)[:, :size] for size in sizes)
    return np.stack([np.outer(rows[i], columns[j]).reshape(-1) for i, j in POINTS[first:last]]).astype(dtype)


@functools.lru_cache(256)
def _terms(transform, first, last, sizes, dtype, back):
    matrix = _matrix(transform, first, last, sizes, dtype)
    matrix = matrix.T if back else matrix
    most = -(-np.count_nonzero(matrix, axis=1).max()//4)*4
    padded = np.pad(matrix, ((0, 0), (0, 3)))
    terms = np.argsort(padded == 0, axis=1, kind="stable")[:, :most]                         # the zeros last
    weights = np.take_along_axis(padded, terms, axis=1)
    terms[weights == 0] = 0
    return (weights, terms) if _adds_in_order(matrix, weights, terms) else None


def _adds_in_order(matrix, weights, terms):
    """Return whether BLAS adds the terms of matrix @ tiles one after another, as a loop does. Some kernels do, as OpenBLAS's
    for AVX-512 in float32; others add up two sums, or do so in the last columns: so all numbers of those are tried."""
    tiles = np.random.default_rng(0).standard_normal((matrix.shape[1], 512)).astype(matrix.dtype)
    wanted = sum(weights[:, t, None]*tiles[terms[:, t]] for t in range(weights.shape[1]))
    return all(np.array_equal(np.matmul(matrix, tiles[:, :count]), wanted[:, :count]) for count in (*range(2, 66), 512))


@functools.lru_cache(256)
def phases(C, K, S):
    """The phases of filters (C,K,K,F) at stride S, in the order of their maps."""
    taps = [len(range(a, K, S)) for a in range(S)]
    found = []
    for a, b in sorted(np.ndindex(S, S), key=lambda at: KINDS.index((taps[at[0]] == 3, taps[at[1]] == 3))):
        sizes = tuple(3 + (taps[of] == 3) for of in (a, b))
        on = [k for k, (i, j) in enumerate(POINTS) if i < sizes[0] and j < sizes[1]]
        found.append(Phase(a, b, slice(len(found)*C, (len(found) + 1)*C), slice(on[0], on[-1] + 1), (taps[a], taps[b]), sizes))
    return tuple(found)


def maps_of_points(of_phases):
    """Slices of the S*S*C maps whose phases have each of POINTS."""
    with_it = [[phase.maps for phase in of_phases if phase.points.start <= k < phase.points.stop] for k in range(len(POINTS))]
    return [slice(maps[0].start, maps[-1].stop) if maps else slice(0, 0) for maps in with_it]


def filter_points(w, S, of_phases):
    """w (C,K,K,F) -> U = G g G' (16,S*S*C,F); what a phase has not is not filled."""
    C, _, _, F = w.shape
    U = np.empty((16, S*S*C, F), w.dtype)

    def job(at):
        phase, maps = at
        taps = w[maps, phase.a::S, phase.b::S].reshape(maps.stop - maps.start, -1, F)
        _transform(phase.matrix(G, w.dtype, phase.taps), taps, U[phase.points, phase.maps][:, maps])

    parallel(job, product(of_phases, pieces(C, 16)))
    return U


def kept_filter_points(w, S, of_phases):
    """`filter_points` as it was computed for these filters, compared number by number: whoever changes filters in place
    need not say so. Of a picture or two the products take no longer than making U, and a step meets its filters twice."""
    key = w.__array_interface__["data"][0], w.shape, w.strides, w.dtype, S
    with _KEEPING:
        filters, U = _KEPT.pop(key, (None, None))
    in_8 = pieces(len(w), -(-len(w)//8))
    if filters is None or not all(parallel(lambda maps: np.array_equal(filters[maps], w[maps]), in_8)):
        filters, U = w.copy(), filter_points(w, S, of_phases)
    with _KEEPING:
        while len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))                        # the one that was asked for longest ago
        _KEPT[key] = filters, U
    return U


def forward(x, w, b, S, P, y, relu):
    """Fill y (F,Ho,Wo,N) with the convolution of x (C,H,W,N)."""
    (C, K, _, F), N, x = w.shape, x.shape[-1], np.ascontiguousarray(x)
    of_phases, whole = phases(C, K, S), phases(F, 3, 1)
    U, of_points = kept_filter_points(w, S, of_phases), maps_of_points(of_phases)
    for rows, columns, V, M in _blocks(y.shape[1:3], S*S*C, F, N, w.dtype):
        _input_points(x, S, P, of_phases, rows, columns, V)
        _multiply((U[point, maps].T, V[point, maps], M[point]) for point, maps in enumerate(of_points))
        _outputs(M, whole, A, y, 1, 0, rows, columns, b, relu)


def transpose(dy, w, S, P, dx):
    """Fill dx (C,H,W,N) with the transposed convolution of dy (F,Ho,Wo,N).

    Phase (a,b) of dx is the convolution of dy with the flipped taps of that phase; all phases share the tiles of dy."""
    (C, K, _, F), N, dy = w.shape, dy.shape[-1], np.ascontiguousarray(dy)
    of_phases, whole = phases(C, K, S), phases(F, 3, 1)
    U, of_points = kept_filter_points(w, S, of_phases), maps_of_points(of_phases)
    for rows, columns, V, M in _blocks([(size - 1 + P)//S + 1 for size in dx.shape[1:3]], F, S*S*C, N, w.dtype):
        _input_points(dy, 1, 2, whole, rows, columns, V, FLIPPED_B)
        _multiply((U[point, maps], V[point], M[point, maps]) for point, maps in enumerate(of_points))
        _outputs(M, of_phases, FLIPPED_A, dx, S, -P, rows, columns)


def filter_gradient(x, dy, S, P, dw):
    """Fill dw (C,K,K,F) = G' (sum over tiles of V * (A dy A')) G, cut to the taps there are. Tiles are taken in blocks,
    one after another; within a block each point's product is one core's, so the order of the sums is fixed."""
    (C, K, _, F), N, dtype = dw.shape, dy.shape[-1], dw.dtype
    of_phases, (Ho, Wo), x, dy = phases(C, K, S), dy.shape[1:3], np.ascontiguousarray(x), np.ascontiguousarray(dy)
    of_points, dU = maps_of_points(of_phases), np.empty((16, F, S*S*C), dtype)
    for block, (rows, columns, V, D) in enumerate(_blocks((Ho, Wo), S*S*C, F, N, dtype)):
        _input_points(x, S, P, of_phases, rows, columns, V)
        _gradient_points(dy, rows, columns, D)
        _add_products(((D[point], _flat(V[point, maps]).T, dU[point, :, maps]) for point, maps in enumerate(of_points)), block == 0)

    def job(at):
        phase, maps = at
        taps = dw[maps, phase.a::S, phase.b::S]
        of_phase = dU[phase.points, :, phase.maps][..., maps].transpose(2, 0, 1)              # (c,points,F)
        taps[...] = np.matmul(phase.matrix(G, dtype, phase.taps).T, np.ascontiguousarray(of_phase)).reshape(taps.shape)

    parallel(job, product(of_phases, pieces(C, 16)))


def _multiply(factors):
    """out (m,ti,tj,N) = left (m,c) @ right (c,ti,tj,N) of each (left, right, out)."""
    parallel(lambda of: np.matmul(of[0], _flat(of[1]), out=_flat(of[2])), factors)


def _add_products(factors, first):
    """total (F,c) += left (F,ti,tj,N) @ right (ti*tj*N,c) of each (left, right, total), which the first of them fills: the
    filters, which are more than the maps of conv2, as rows, as BLAS packs what is on the right anew for so many rows."""
    def job(of):
        left, right, total = of
        if first:
            np.matmul(_flat(left), right, out=total)
        else:
            total += np.matmul(_flat(left), right, out=workspace("more", total.shape, total.dtype))

    parallel(job, factors)


def _flat(maps):
    """(c,ti,tj,N) -> (c,ti*tj*N), of no maps as well."""
    return maps.reshape(len(maps), math.prod(maps.shape[1:]))


# ------------------------------------------------------------------------------------------------------ the tiles
def _blocks(size, C, F, N, dtype):
    """(rows, columns, V (16,C,ti,tj,N), M (16,F,ti,tj,N)) of the blocks of tiles that cover `size` outputs; V and M hold until
    the next."""
    height, width = (-(-outputs//2) for outputs in size)
    most = BLOCK//(16*(C + F)*N*dtype.itemsize)
    for rows in pieces(height, most//width):
        for columns in pieces(width, most):
            of_tiles = rows.stop - rows.start, columns.stop - columns.start, N
            yield rows, columns, workspace("V", (16, C, *of_tiles), dtype), workspace("M", (16, F, *of_tiles), dtype)


def _slabs(of_point, maps, of_phases):
    """Slices of so many maps, whose tiles at all points take at most SLAB; of all phases together 8 or more."""
    return pieces(maps, min(SLAB//(16*of_point[0].nbytes), -(-maps*len(of_phases)//8)))


def _loop(loop, V):
    """The compiled `loop`, None where NumPy's form is to do: of one number a point that is a product with a vector, for which
    BLAS has an order of its own."""
    return loops.compiled(loop, V) if V[0, 0].size > 1 else None


@functools.lru_cache(256)
def _tile_places(size, grid, sizes, tiles):
    """(numbers,tiles): where in a flat map of `size` each number of each tile is, -1 outside; grid as in `loops.windows`."""
    top, left, step, apart = grid
    rows, columns = (begin + apart*np.arange(taps)[:, None] + step*np.arange(count)
                     for begin, taps, count in ((top, sizes[0], tiles[0]), (left, sizes[1], tiles[1])))
    inside = ((rows >= 0) & (rows < size[0]))[:, None, :, None] & ((columns >= 0) & (columns < size[1]))[:, None]
    return np.where(inside, rows[:, None, :, None]*size[1] + columns[:, None], -1).reshape(math.prod(sizes), -1)


def _input_points(x, S, P, of_phases, rows, columns, V, transform=B):
    """V (16,S*S*C,ti,tj,N) = B' d B for the tiles d of x (C,H,W,N)."""
    loop = _loop(loops.to_points, V)

    def job(at):
        phase, maps = at
        if loop and (terms := phase.terms(transform, V.dtype)):
            grid = 2*S*rows.start + phase.a - P, 2*S*columns.start + phase.b - P, 2*S, S
            _tiles_to_points(loop, x[maps], grid, phase.sizes, terms, V[phase.points], phase.maps.start + maps.start)
            return
        h, w = (phase.a - P) % S, (phase.b - P) % S                             # the first pixel of the phase
        zeros = (h + P - phase.a)//S, (w + P - phase.b)//S                      # and how many lie before it
        d = windows(places(x)[maps, h::S, w::S], phase.sizes, 2, zeros, rows, columns).view(V.dtype)
        _transform(phase.matrix(transform, V.dtype), d.reshape(len(d), -1, V[0, 0].size), V[phase.points, phase.maps][:, maps])

    parallel(job, product(of_phases, _slabs(V[0], len(x), of_phases)))


def _gradient_points(dy, rows, columns, D):
    """D (16,F,ti,tj,N) = A e A' for the tiles e of 2x2 pixels of dy (F,Ho,Wo,N)."""
    loop, whole = _loop(loops.to_points, D), phases(len(dy), 3, 1)

    def job(maps):
        if loop and (terms := whole[0].terms(A, D.dtype, (2, 2))):
            _tiles_to_points(loop, dy[maps], (2*rows.start, 2*columns.start, 2, 1), (2, 2), terms, D, maps.start)
            return
        e = windows(places(dy)[maps], (2, 2), 2, (0, 0), rows, columns).view(D.dtype)
        _transform(whole[0].matrix(A, D.dtype, (2, 2)), e.reshape(len(e), 4, -1), D[:, maps])

    parallel(job, _slabs(D[0], len(dy), whole))


def _tiles_to_points(loop, x, grid, sizes, terms, V, first):
    """The compiled `to_points` of the maps x (c,H,W,N)."""
    one = x.shape[3] == 1
    places = _tile_places(x.shape[1:3], grid, sizes, V.shape[2:4] if one else (0, 0))
    loop(x, places, grid, sizes, V.shape[3], *terms, _flat_tiles(V), first)


def _flat_tiles(V):
    """V (points,c,ti,tj,N) -> (points,c,ti*tj*N)."""
    return V.reshape(*V.shape[:2], -1)


def _transform(matrix, tiles, out):
    """out (points,c,...) = matrix (points,n) @ tiles (c,n,L), where L numbers are the ... of out."""
    np.matmul(matrix, tiles, out=out.reshape(*out.shape[:2], -1).swapaxes(0, 1))


def _outputs(M, of_phases, transform, out, S, start, rows, columns, bias=None, relu=False):
    """out (F,Ho,Wo,N) = A' M A: phase (a,b) of a tile (i,j) begins at row start + a + 2*S*i, column start + b + 2*S*j."""
    (F, Ho, Wo, N), (ti, tj) = out.shape, M.shape[2:4]
    loop, none = _loop(loops.from_points, M), np.zeros(F, M.dtype)

    def job(at):
        phase, maps = at
        top, left = start + phase.a + 2*S*rows.start, start + phase.b + 2*S*columns.start
        if loop and (terms := phase.terms(transform, M.dtype, (2, 2), back=True)):
            at_tiles = _tile_places((Ho, Wo), (top, left, 2*S, S), (2, 2), (ti, tj))
            loop(_flat_tiles(M[phase.points]), phase.maps.start + maps.start, *terms, (none if bias is None else bias)[maps],
                 relu, out[maps].reshape(-1, Ho*Wo, N), at_tiles)
            return
        matrix = phase.matrix(transform, M.dtype, (2, 2)).T
        of_phase = M[phase.points, phase.maps][:, maps]
        y = workspace("outputs", (of_phase.shape[1], 2, 2, ti, tj, N), M.dtype)
        np.matmul(matrix, of_phase.reshape(*of_phase.shape[:2], -1).swapaxes(0, 1), out=y.reshape(len(y), 4, -1))
        if bias is not None:
            y += bias[maps].reshape(-1, 1, 1, 1, 1, 1)
        if relu:
            np.maximum(y, 0, out=y)
        for u, v in np.ndindex(2, 2):
            (i0, i1), (j0, j1) = (tap_range(first + S*of, size, tiles, 2*S, 0)
                                  for first, of, size, tiles in ((top, u, Ho, ti), (left, v, Wo, tj)))
            if i1 > i0 and j1 > j0:
                places(out)[maps, top + S*(u + 2*i0):top + S*(u + 2*i1 - 2) + 1:2*S,
                            left + S*(v + 2*j0):left + S*(v + 2*j1 - 2) + 1:2*S] = places(y)[:, u, v, i0:i1, j0:j1]

    parallel(job, product(of_phases, _slabs(M[0], F, of_phases)))
