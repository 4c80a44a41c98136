"""The NumPy form of convolution (conv2d.py), in blocks that the cores share.

The windows of a few outputs are written side by side as a matrix of (taps, outputs) that stays in a core's cache, and
multiplied from the left by the filters. All images of a pixel lie together in memory, so windows are copied with one pixel of
the whole batch as one element. Where maps and filters are many, Winograd's form does with fewer products (winograd.py).

    forward           y (F,Ho,Wo,N), filled from x (C,H,W,N), w (C/groups,K,K,F), b (F,) or None
    transpose         dx (C,H,W,N), filled from dy (F,Ho,Wo,N), w
    filter_gradient   dw (C/groups,K,K,F), filled from x, dy
"""
import numpy as np

from zfcore.cpu import parallel, pieces, rectangles
from zfcore.memory import workspace
from zfcore.ops import loops, winograd
from zfcore.ops.window import places, tap_pixels, tap_range, windows

BLOCK = 4*2**20                   # bytes of windows that are multiplied at once
FEW, MANY = 200, 2*2**20          # so few numbers of a map and so many bytes of filters: filters are read once


def forward(x, w, b, y, S, P, groups, relu):
    """y = the convolution, rectified if relu."""
    (_, K, _, F), C = w.shape, len(x)
    jobs = []
    for maps, filters in _groups(C, F, groups):
        bias = None if b is None else b[filters]
        if _saves_products(C//groups, F//groups, K, S):
            winograd.forward(x[maps], w[..., filters], bias, S, P, y[filters], relu)
        elif _outputs_are_few(w[..., filters], y[filters]):
            jobs += _filter_few_windows(x[maps], w[..., filters], S, P, y[filters], bias, relu)
        else:
            matrix = w[..., filters].reshape(-1, F//groups).T                   # (F/G, C/G*K*K)
            jobs += _filter_windows(x[maps], matrix, (K, K), S, (P, P), y[filters], bias, relu)
    parallel(lambda job: job(), jobs)


def transpose(dy, w, dx, S, P, groups):
    """dx = the transposed convolution.

    For S > 1 nothing is stuffed with zeros: dx is taken apart into S*S phases by row and column modulo S; the pixels of one
    phase meet the same every S-th taps, so each phase is a plain convolution of dy with stride 1. Where maps are few, as below
    layer 1, the windows of dy would be many times larger than what is made of them; there dy is multiplied by the filters
    first, and the products are added to the pixels tap by tap."""
    Cg, K, _, F = w.shape
    jobs = []
    for maps, filters in _groups(Cg*groups, F, groups):
        if _saves_products(Cg, F//groups, K, S):
            winograd.transpose(dy[filters], w[..., filters], S, P, dx[maps])
            continue
        if _maps_are_few(Cg, F//groups):
            jobs += _add_taps(dy[filters], w[..., filters], S, P, dx[maps])
            continue
        for rows, taps_r, Pr in _phases(K, S, P):
            for columns, taps_s, Ps in _phases(K, S, P):
                out = dx[maps, rows, columns]
                phase = w[:, taps_r, taps_s, filters][:, ::-1, ::-1]            # (C/G,Kr,Ks,F/G), flipped
                if phase.size == 0:
                    out[...] = 0                                                # between the windows, where S > K
                else:
                    matrix = phase.transpose(0, 3, 1, 2).reshape(Cg, -1)        # (C/G, F/G*Kr*Ks)
                    jobs += _filter_windows(dy[filters], matrix, phase.shape[1:3], 1, (Pr, Ps), out)
    parallel(lambda job: job(), jobs)


def filter_gradient(x, dy, dw, S, P, groups):
    """dw = the filter gradient."""
    (_, K, _, F), C = dw.shape, len(x)
    for maps, filters in _groups(C, F, groups):
        if _saves_products(C//groups, F//groups, K, S):
            winograd.filter_gradient(x[maps], dy[filters], S, P, dw[..., filters])
        else:
            _windows_by_gradient(x[maps], dy[filters], K, S, P, dw[..., filters])


def _filter_windows(x, matrix, K, S, P, out, bias=None, relu=False):
    """Jobs that fill out (M,Ho,Wo,N), which may be strided, with matrix (M, C*Kr*Ks) @ windows of x (C,H,W,N);
    K and P are pairs, rows and columns, and P may be negative: the first window then starts inside the map."""
    M, Ho, Wo, N = out.shape
    taps, x = matrix.shape[1], np.ascontiguousarray(x)

    def job(rows, columns):
        block = out[:, rows, columns]                                           # (M,p,q,N)
        flat = block.reshape(M, -1)                                             # a view where whole rows lie together
        seen = _windows(x, K, S, P, rows, columns)                              # (taps, p*q*N)
        if np.may_share_memory(flat, out):
            np.matmul(matrix, seen, out=flat)
        else:
            flat = np.matmul(matrix, seen)
        _add_bias(flat, bias, relu)
        if not np.may_share_memory(flat, out):
            block[...] = flat.reshape(block.shape)

    return [lambda at=at: job(*at) for at in rectangles(Ho, Wo, BLOCK//(taps*N*x.itemsize))]


def _filter_few_windows(x, w, S, P, y, bias, relu):
    """Jobs that fill y (F,Ho,Wo,N), few outputs of many filters, which leave a core's cache and would be read again for every
    block of a handful of outputs. A job is a quarter of the filters, which it applies tap by tap; with the maps of a pixel side
    by side, what a tap sees of all outputs is copied in long runs."""
    (C, H, W, N), (F, Ho, Wo, _), K = x.shape, y.shape, w.shape[1]
    seen = np.zeros((K, K, Ho, Wo, N, C), x.dtype)
    by_pixels = np.ascontiguousarray(x.transpose(1, 2, 3, 0))
    for r, s in np.ndindex(K, K):
        (p, h), (q, v) = tap_pixels(r, H, Ho, S, P), tap_pixels(s, W, Wo, S, P)
        seen[r, s, p, q] = by_pixels[h, v]
    seen = seen.reshape(K, K, -1, C)

    def job(filters):
        total = np.zeros((filters.stop - filters.start, Ho*Wo*N), x.dtype)
        for r, s in np.ndindex(K, K):
            total += np.matmul(w[:, r, s, filters].T, seen[r, s].T)
        _add_bias(total, None if bias is None else bias[filters], relu)
        y[filters] = total.reshape(y[filters].shape)

    return [lambda at=at: job(at) for at in pieces(F, -(-F//4))]


def _add_bias(y, bias, relu):
    """y (F,L) += bias (F,) or None, then rectified if relu: in one pass, while y is in cache."""
    if bias is not None and relu and (loop := loops.compiled(loops.add_bias, y)):
        loop(y, bias)
        return
    if bias is not None:
        y += bias[:, None]
    if relu:
        np.maximum(y, 0, out=y)


def _add_taps(dy, w, S, P, dx):
    """Jobs that fill dx (C,H,W,N), some rows each: the products of w (C,K,K,F) and dy (F,Ho,Wo,N), added tap by tap in the
    order of the taps to the pixels they belong to."""
    (C, H, W, N), (F, Ho, Wo, _), K = dx.shape, dy.shape, w.shape[1]
    matrix = w.reshape(-1, F)                                                   # (C*K*K,F)

    def job(rows):
        slab, tall = dx[:, rows], rows.stop - rows.start
        slab[...] = 0
        first, last = max(0, (rows.start + P - K)//S + 1), min(Ho, (rows.stop - 1 + P)//S + 1)   # rows of dy that reach these
        if first >= last:
            return                                                              # between the windows, where S > K
        products = workspace("products", (len(matrix), (last - first)*Wo*N), dy.dtype)
        np.matmul(matrix, dy[:, first:last].reshape(F, -1), out=products)
        products = products.reshape(C, K, K, last - first, Wo, N)
        over = rows.start - first*S + P                                         # pixels of the first window above these rows
        for r, s in np.ndindex(K, K):
            (p0, p1), (q0, q1) = tap_range(r, tall, last - first, S, over), tap_range(s, W, Wo, S, P)
            if p0 < p1 and q0 < q1:
                slab[:, p0*S - over + r:(p1 - 1)*S - over + r + 1:S,
                     q0*S - P + s:(q1 - 1)*S - P + s + 1:S] += products[:, r, s, p0:p1, q0:q1]

    return [lambda rows=rows: job(rows) for rows in pieces(H, max(1, BLOCK//(len(matrix)*Wo*N*dy.itemsize))*S)]


def _windows_by_gradient(x, dy, K, S, P, dw):
    """dw (C,K,K,F) = windows of x (C,H,W,N) @ dy (F,Ho,Wo,N) transposed. A few maps at a time; where maps are few, the
    outputs are dealt into shares as well, whose sums are added in order at the end."""
    C, N, (F, Ho, Wo, _) = x.shape[0], x.shape[-1], dy.shape
    x = np.ascontiguousarray(x)
    of_maps = pieces(C, 512//K**2)
    blocks = rectangles(Ho, Wo, BLOCK//(min(C*K*K, 512)*N*x.itemsize))
    of_blocks = pieces(len(blocks), -(-len(blocks)*len(of_maps)//16))
    sums = np.empty((len(of_blocks), C, K, K, F), x.dtype)

    def job(share, maps):
        total = sums[share, maps].reshape(-1, F)                                # (c*K*K,F)
        for k, (rows, columns) in enumerate(blocks[of_blocks[share]]):
            seen = _windows(x[maps], (K, K), S, (P, P), rows, columns)
            product = np.matmul(seen, dy[:, rows, columns].reshape(F, -1).T, out=None if k else total)
            if k:
                total += product

    parallel(lambda at: job(*at), [(share, maps) for share in range(len(sums)) for maps in of_maps])
    dw[...] = sums.sum(axis=0)


def _windows(x, K, S, P, rows, columns):
    """(C*Kr*Ks, p*q*N): `windows` of x (C,H,W,N), which lies together in memory."""
    C, (Kr, Ks), N, p, q = len(x), K, x.shape[3], rows.stop - rows.start, columns.stop - columns.start
    if loop := loops.compiled(loops.windows, x):
        seen = workspace("windows", (C, Kr, Ks, p, q*N), x.dtype)
        loop(x, (rows.start*S - P[0], columns.start*S - P[1], S, 1), seen, p)
    else:
        seen = windows(places(x), K, S, P, rows, columns).view(x.dtype)
    return seen.reshape(C*Kr*Ks, p*q*N)


def _saves_products(C, F, K, S):
    """Return whether Winograd's form is worth its transforms: maps and filters many. (With 64 to 96 of each, as in `tiny`, both
    forms take about as long on a core with AVX-512; at 128 this one takes 0.8 of the other's time.)"""
    return 1 < K <= 3*S and min(C*S*S, F) >= 128


def _outputs_are_few(w, y):
    """Return whether reading the filters w takes longer than filtering."""
    return y[0].size <= FEW and w.nbytes >= MANY


def _maps_are_few(C, F):
    """Return whether the products with C maps are smaller than the windows of F, by enough to pay for adding them."""
    return 4*C <= F


def _phases(K, S, P):
    """The rows (or columns) of dx by phase: for each (rows, taps, padding) as slices and a number, the rows of dx that
    meet just these taps, and the padding of the plain convolution of dy with the taps flipped."""
    for a in range(S):
        first = (a - P) % S                                     # the first row h with (h + P) mod S = a
        count = len(range(a, K, S))
        yield slice(first, None, S), slice(a, K, S), count - 1 - (first + P)//S


def _groups(C, F, groups):
    """(maps, filters) of each group, as slices."""
    Cg, Fg = C//groups, F//groups
    return [(slice(g*Cg, (g + 1)*Cg), slice(g*Fg, (g + 1)*Fg)) for g in range(groups)]
