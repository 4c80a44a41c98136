"""Convolution with fewer products: Winograd's minimal filtering F(2x2,3x3), as Lavin & Gray brought it to networks
(arXiv 1509.09308). conv2d takes it where maps and filters are many and a window has at most three taps a stride.

Four neighbouring inputs d and three taps g make two neighbouring outputs y with 4 products, not 6:

    y = A' ((G g) * (B' d))        B' d = (d0 - d2,  d1 + d2,  d2 - d1,  d1 - d3)
                                   G g  = (g0,  (g0 + g1 + g2)/2,  (g0 - g1 + g2)/2,  g2)
                                   A' m = (m0 + m1 + m2,  m1 - m2 - m3)

and by rows and columns a tile of 2x2 outputs with 16, not 36. At each of these 4x4 points the sum over maps is one matrix
product for all tiles and images. With coefficients 0, 1 and 1/2 the rounding stays near that of the plain sum, and an
input that an output does not see adds exactly 0 to it. The gradients are the same three maps transposed.

A stride S is taken apart: pixels (S*i + a - P, S*j + b - P) form the phase (a,b), S*S*C maps in all, which meet the taps
w[:, a::S, b::S] at stride 1. Of these there are at most 3x3 if K <= 3S; what is missing is zero.

    i j a tile's row and column   ti tj how many   U filters, V inputs, M outputs at the 4x4 points
"""
import numpy as np

from zfcore.cpu import parallel, pieces, rectangles
from zfcore.memory import workspace
from zfcore.ops.window import clear, pixels, places, tap_range

BLOCK = 24*2**20                  # bytes of V and M that a job works on
GRADIENT_BLOCK = 2**26            # bytes of V and D that all cores work on
SLAB = 2**20                      # bytes of maps transformed at once


def filter_points(w, S):
    """w (C,K,K,F) -> U = G g G' (4,4,S,S,C,F)."""
    C, _, _, F = w.shape
    U = np.empty((4, 4, S, S, C, F), w.dtype)

    def job(maps):
        for a, b in np.ndindex(S, S):
            taps = w[maps, a::S, b::S].transpose(1, 2, 0, 3)                    # (Kr,Ks,c,F), both up to 3
            g = np.zeros((3, 3, *taps.shape[2:]), w.dtype)
            g[:len(taps), :taps.shape[1]] = taps
            by_rows = np.empty((4, *g.shape[1:]), w.dtype)
            _G(g, by_rows)
            _G(by_rows.swapaxes(0, 1), U[:, :, a, b, maps].swapaxes(0, 1))

    parallel(job, pieces(C, 16))
    return U


def forward(x, w, b, S, P, y, relu):
    """Jobs that fill y (F,Ho,Wo,N) with the convolution of x (C,H,W,N)."""
    U = filter_points(w, S)
    matrices = U.reshape(4, 4, -1, w.shape[3]).swapaxes(2, 3)                   # (4,4,F,S*S*C)
    tiles = [-(-size//2) for size in y.shape[1:3]]
    return _filter(x, S, -P, matrices, tiles, y, 1, 0, b, relu)


def transpose(dy, w, S, P, dx):
    """Jobs that fill dx (C,H,W,N) with the transposed convolution of dy (F,Ho,Wo,N).

    At stride 1 it is the convolution of dy with the flipped taps: flipping g swaps the first and the last of its points.
    Phase (a,b) of dx comes from the taps of that phase; all phases share the tiles of dy."""
    F = w.shape[3]
    matrices = filter_points(w, S)[[3, 1, 2, 0]][:, [3, 1, 2, 0]].reshape(4, 4, -1, F)          # (4,4,S*S*C,F)
    tiles = [-(-((size - 1 + P)//S + 1)//2) for size in dx.shape[1:3]]
    return _filter(dy, 1, -2, matrices, tiles, dx, S, -P)


def filter_gradient(x, dy, S, P, dw):
    """Fill dw (C,K,K,F) = G' (sum over tiles of (A dy A') * V) G, cut to the taps there are. Tiles are taken in blocks,
    one after another; within a block each point's product is one core's, so the order of the sums is fixed."""
    (C, _, _, F), (Ho, Wo, N) = dw.shape, dy.shape[1:]
    x, dy, dtype = pixels(x), pixels(dy), dw.dtype
    dU = np.zeros((16, S*S*C, F), dtype)
    for rows, columns in rectangles(-(-Ho//2), -(-Wo//2), GRADIENT_BLOCK//(16*(S*S*C + F)*N*dtype.itemsize), least=1):
        ti, tj = rows.stop - rows.start, columns.stop - columns.start
        V = workspace("V", (4, 4, S, S, C, ti, tj, N), dtype)
        D = workspace("M", (4, 4, F, ti, tj, N), dtype)
        parallel(lambda maps: _input_points(x[maps], S, 2*S*rows.start - P, 2*S*columns.start - P, V[:, :, :, :, maps]),
                 pieces(C, 16))
        parallel(lambda maps: _gradient_points(dy[maps], 2*rows.start, 2*columns.start, D[:, :, maps]), pieces(F, 16))
        left, right = V.reshape(16, S*S*C, -1), D.reshape(16, F, -1).swapaxes(1, 2)

        def product(point):
            more = np.matmul(left[point], right[point], out=workspace("slab", dU.shape[1:], dtype))
            dU[point] += more

        parallel(product, range(16))

    points = dU.reshape(4, 4, S, S, C, F)

    def job(maps):
        for a, b in np.ndindex(S, S):
            by_rows = _G_transposed(points[:, :, a, b, maps])                   # 3 of (4,c,F)
            taps = [_G_transposed(row) for row in by_rows]                      # 3 of 3 of (c,F)
            phase = dw[maps, a::S, b::S]
            for r, s in np.ndindex(phase.shape[1:3]):
                phase[:, r, s] = taps[r][s]

    parallel(job, pieces(C, 16))


# ------------------------------------------------------------------------------------------------------ the tiles
def _filter(x, S, start, matrices, tiles, out, S_out, start_out, bias=None, relu=False):
    """Jobs that fill out (M,Ho,Wo,N), for all tiles: the first tile of x starts at row and column `start` of the map;
    its first output of phase (0,0) is at row and column `start_out`, the next output of this phase S_out further."""
    N, dtype, M = x.shape[-1], x.dtype, matrices.shape[2]
    Cs = matrices.shape[3]
    x_pixels = pixels(x)

    def job(at):
        rows, columns = at
        ti, tj = rows.stop - rows.start, columns.stop - columns.start
        V = workspace("V", (4, 4, S, S, Cs//(S*S), ti, tj, N), dtype)
        _input_points(x_pixels, S, 2*S*rows.start + start, 2*S*columns.start + start, V)
        m = workspace("M", (4, 4, M, ti*tj*N), dtype)
        np.matmul(matrices, V.reshape(4, 4, Cs, -1), out=m)
        m = m.reshape(4, 4, S_out, S_out, M//S_out**2, ti, tj, N)
        for a, b in np.ndindex(S_out, S_out):
            top, left = start_out + a + 2*S_out*rows.start, start_out + b + 2*S_out*columns.start
            for f in pieces(len(out), SLAB//(8*ti*tj*N*dtype.itemsize)):
                _outputs(m[:, :, a, b, f], out[f], top, left, S_out, None if bias is None else bias[f], relu)

    return [lambda at=at: job(at) for at in rectangles(*tiles, BLOCK//(16*(Cs + M)*N*dtype.itemsize))]


def _input_points(x, S, top, left, V):
    """V (4,4,S,S,C,ti,tj,N) = B' d B for the tiles d of pixels x (C,H,W), the first of them at (top,left)."""
    C, ti, tj, N = V.shape[4:]
    h, w = 2*ti + 2, 2*tj + 2
    for maps in pieces(C, SLAB//(S*S*h*w*x.itemsize)):
        d = _phases(x[maps], S, top, left, h, w).view(V.dtype).reshape(S, S, -1, h, 2, tj + 1, N)
        by_rows = workspace("by_rows", (4, *d.shape[:3], ti, 2, tj + 1, N), V.dtype)
        _B([d[:, :, :, k:k + 2*ti - 1:2] for k in range(4)], by_rows)
        _B([by_rows[..., k % 2, k//2:k//2 + tj, :] for k in range(4)], V[:, :, :, :, maps].swapaxes(0, 1))


def _gradient_points(dy, top, left, D):
    """D (4,4,F,ti,tj,N) = A e A' for the tiles e of 2x2 pixels of dy (F,Ho,Wo)."""
    F, ti, tj, N = D.shape[2:]
    for maps in pieces(F, SLAB//(4*ti*tj*dy.itemsize)):
        e = _phases(dy[maps], 1, top, left, 2*ti, 2*tj).view(D.dtype).reshape(-1, 2*ti, 2, tj, N)
        by_rows = workspace("by_rows", (4, len(e), ti, 2, tj, N), D.dtype)
        _A([e[:, 0::2], e[:, 1::2]], by_rows)
        _A([by_rows[..., 0, :, :], by_rows[..., 1, :, :]], D[:, :, maps].swapaxes(0, 1))


def _phases(x, S, top, left, h, w):
    """(S,S,C,h,2,w/2) pixels: phase (a,b) holds x (C,H,W) at rows top+a, top+a+S, ... and columns alike, 0 off the map; of the
    columns the even ones first, then the odd ones, so that a transform along a row finds each of its inputs in a long run."""
    C, H, W = x.shape
    slab = workspace("slab", (S, S, C, h, 2, w//2), x.dtype)
    for a, b, odd in np.ndindex(S, S, 2):
        row, column, phase = top + a, left + b + S*odd, slab[a, b, :, :, odd]
        i0, i1 = tap_range(row, H, h, S, 0)
        j0, j1 = tap_range(column, W, w//2, 2*S, 0)
        if (i1 - i0, j1 - j0) != (h, w//2):
            clear(phase)
        if i1 > i0 and j1 > j0:
            phase[:, i0:i1, j0:j1] = x[:, row + S*i0:row + S*i1:S, column + 2*S*j0:column + 2*S*j1:2*S]
    return slab


def _outputs(m, out, top, left, S, bias, relu):
    """out (F,Ho,Wo,N) at (top + S*u + 2*S*i, left + S*v + 2*S*j) = output (u,v) of A' m A, m (4,4,F,ti,tj,N)."""
    F, Ho, Wo, N = out.shape
    ti, tj = m.shape[3:5]
    by_rows = workspace("by_rows", (2, *m.shape[1:]), m.dtype)                  # (2,4,F,ti,tj,N)
    for u, pair in enumerate(by_rows):
        _A_transposed(m, u, pair)
        if bias is not None:
            pair[1] += bias[:, None, None, None]                                # point 1 enters either output once
        i0, i1 = tap_range(top + S*u, Ho, ti, 2*S, 0)
        for v in range(2):
            j0, j1 = tap_range(left + S*v, Wo, tj, 2*S, 0)
            if i1 > i0 and j1 > j0:
                y = workspace("outputs", (F, i1 - i0, j1 - j0, N), m.dtype)     # side by side, then laid out pixel by pixel
                _A_transposed(pair[:, :, i0:i1, j0:j1], v, y)
                if relu:
                    np.maximum(y, 0, out=y)
                places(out)[:, top + S*(u + 2*i0):top + S*(u + 2*i1 - 1):2*S,
                            left + S*(v + 2*j0):left + S*(v + 2*j1 - 1):2*S] = places(y)


# ------------------------------------------------------------------------- the transforms, along the first axis
def _B(d, out):
    """B' d: four inputs to four points."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def _G(g, out):
    """G g: three taps to four points."""
    half = g.dtype.type(0.5)
    even, odd = (g[0] + g[2])*half, g[1]*half
    out[0], out[1], out[2], out[3] = g[0], even + odd, even - odd, g[2]


def _G_transposed(m):
    """G' m: four points to three taps."""
    half = m.dtype.type(0.5)
    even, odd = (m[1] + m[2])*half, (m[1] - m[2])*half
    return m[0] + even, odd, m[3] + even


def _A(e, out):
    """A e: two outputs to four points."""
    out[0] = e[0]
    np.add(e[0], e[1], out=out[1])
    np.subtract(e[0], e[1], out=out[2])
    np.negative(e[1], out=out[3])


def _A_transposed(m, u, out):
    """A' m: four points to output u of two."""
    if u == 0:
        np.add(m[1], m[2], out=out)
        np.add(out, m[0], out=out)
    else:
        np.subtract(m[1], m[2], out=out)
        np.subtract(out, m[3], out=out)
