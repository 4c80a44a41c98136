"""Loops that NumPy cannot express: what several of its calls compute one after another, in one pass over memory.

Where numba is installed (`pip install "zfcore[fast]"`) it compiles them, and large arrays go through them; without it nothing
but time is lost. The NumPy form is the specification: a loop forms the same sums in the same order, without fused
multiply-adds, and gives the same bits (of two zeros that a maximum meets, either). A loop is one core's; `parallel` spreads the
blocks, and a loop does not hold Python's lock. Arrays lie together in memory, but for their first axis.
"""
from functools import cache

import numpy as np

LEAST = 2**17                     # bytes of an array from which on a loop is taken: below, loading numba costs more
MANY = 8                          # images from which on those of a pixel are a loop worth the name
BUDGET = 2**19                    # bytes of the blocks that the cores share


def compiled(loop, x):
    """The function `loop` of this file as numba compiles it, for an array as large as x; None where NumPy's form is to do."""
    return _compiled(loop) if x.nbytes >= LEAST else None


@cache
def _compiled(loop):
    try:
        from numba import njit
        from numba.extending import register_jitable
    except ImportError:                                     # not there, or older than NumPy and says so
        return None
    for part in PARTS:
        register_jitable(part)                              # compiled with each loop that calls it
    return njit(nogil=True, cache=True, error_model="numpy")(loop)


# ---------------------------------------------------------------------------------------------------------- max pooling
def pool_rows(x, y, switches, K, S, P, first, last):
    """Rows first:last of y (C,Ho,Wo,N) and switches, as `maxpool` has them, of x (C,H,W,N). First the maxima over the rows of a
    window, of every column; then those over K neighbouring columns, from every column on, of which each S-th are kept. Round
    about lies -inf, at a place behind all places."""
    C, H, W, N = x.shape
    Wo, wide = y.shape[2], W + P + K + S
    best, rows = np.full(wide*N, -np.inf, x.dtype), np.full(wide*N, 240, np.int32)
    high, places = best[P*N:P*N + W*N], rows[P*N:P*N + W*N]
    runs, length, step = (Wo, N, N) if N >= MANY else (1, (wide - K)*N, S*N)
    maxima, chosen = np.empty(runs*length, x.dtype), np.empty(runs*length, np.int32)
    for c in range(C):
        for p in range(first, last):
            top = max(p*S - P, 0)
            under, here = x[c, top].reshape(W*N), np.int32((top - p*S + P)*K)
            for j in range(W*N):
                high[j] = under[j]
                places[j] = here
            for h in range(top + 1, min(p*S - P + K, H)):
                under, here = x[c, h].reshape(W*N), np.int32((h - p*S + P)*K)
                for j in range(W*N):
                    v, m, at = under[j], high[j], places[j]
                    more = (not v <= m) & (m == m)                                    # a NaN wins, the first of several
                    high[j] = v if more else m
                    places[j] = here if more else at
            for run in range(runs):
                left, at_left = run*S*N, run*length
                for j in range(length):
                    maxima[at_left + j] = best[left + j]
                    chosen[at_left + j] = rows[left + j]
                for s in range(1, K):
                    tap, places_of_tap = best[left + s*N:], rows[left + s*N:]
                    of_run, at_run = maxima[at_left:at_left + length], chosen[at_left:at_left + length]
                    for j in range(length):
                        v, place, m, at = tap[j], np.int32(places_of_tap[j] + s), of_run[j], at_run[j]
                        more = ((not v <= m) & (m == m)) | ((place < at) & ((v == m) | ((v != v) & (m != m))))
                        of_run[j] = v if more else m
                        at_run[j] = place if more else at
            for q in range(Wo):
                out, where = y[c, p, q], switches[c, p, q]
                high_of, place_of = maxima[q*step:q*step + N], chosen[q*step:q*step + N]
                for n in range(N):
                    out[n] = high_of[n]
                    where[n] = place_of[n]


def unpool_rows(dy, switches, y, relu, dx, K, S, P, first, last):
    """Rows first:last of dx (C,H,W,N), as `maxpool_backward` has them, of dy (C,Ho,Wo,N). relu: where y is above 0 alone."""
    C, H, W, N = dx.shape
    Ho, Wo = dy.shape[1:3]
    zero = dx.dtype.type(0)
    for c in range(C):
        for h in range(first, last):
            row = dx[c, h]
            for w in range(W):
                for n in range(N):
                    row[w, n] = 0
            for r in range((h + P) % S, K, S):
                p = (h + P - r)//S
                if p < 0 or p >= Ho:
                    continue
                for q in range(Wo - 1, -1, -1):
                    above, chosen, maxima = dy[c, p, q], switches[c, p, q], y[c, p, q]
                    for s in range(max(0, P - q*S), min(K, W - q*S + P)):
                        pixel, place = row[q*S - P + s], np.uint8(r*K + s)
                        if relu:
                            for n in range(N):
                                pixel[n] += above[n] if (chosen[n] == place) & (maxima[n] > zero) else zero
                        else:
                            for n in range(N):
                                pixel[n] += above[n] if chosen[n] == place else zero


# --------------------------------------------------------------------------------------- local response normalisation
STRIP = 256                       # pixels that go through all maps together, so that the maps near by stay in cache


def normalise(x, y, n, a, k, first, last):
    """Columns first:last of y (C,L) = x / s^0.75, s = k + a*(sum of the squares of n maps), as `local_response_norm` has it."""
    C = len(x)
    s = np.empty(STRIP, x.dtype)
    for start in range(first, last, STRIP):
        count = min(STRIP, last - start)
        for c in range(C):
            own, out = x[c, start:start + count], y[c, start:start + count]
            for j in range(count):
                s[j] = own[j]*own[j]
            for shift in range(-(n//2), n - n//2):
                if shift != 0 and 0 <= c + shift < C:
                    near = x[c + shift, start:start + count]
                    for j in range(count):
                        s[j] += near[j]*near[j]
            for j in range(count):
                root = np.sqrt(s[j]*a + k)
                out[j] = own[j]/(np.sqrt(root)*root)


def normalise_back(dy, x, dx, n, a, k, factor, relu, first, last):
    """Columns first:last of dx (C,L), as `local_response_norm_backward` has it; factor is 2*a*beta with beta 0.75."""
    C = len(x)
    zero = x.dtype.type(0)
    s, shared = np.empty(STRIP, x.dtype), np.empty(STRIP, x.dtype)
    term = np.empty((C, STRIP), x.dtype)                                              # dy y / s of each map
    for start in range(first, last, STRIP):
        count = min(STRIP, last - start)
        for c in range(C):
            own, above, out, mine = x[c, start:start + count], dy[c, start:start + count], dx[c, start:start + count], term[c]
            for j in range(count):
                s[j] = own[j]*own[j]
            for shift in range(-(n//2), n - n//2):
                if shift != 0 and 0 <= c + shift < C:
                    near = x[c + shift, start:start + count]
                    for j in range(count):
                        s[j] += near[j]*near[j]
            for j in range(count):
                scale = s[j]*a + k
                root = np.sqrt(scale)
                out[j] = above[j]/(np.sqrt(root)*root)
                mine[j] = out[j]*own[j]/scale
        for c in range(C):
            own, out = x[c, start:start + count], dx[c, start:start + count]
            for j in range(count):
                shared[j] = term[c, j]
            for shift in range(n//2 + 1 - n, n//2 + 1):                              # the maps that have this one among theirs
                if shift != 0 and 0 <= c + shift < C:
                    near = term[c + shift]
                    for j in range(count):
                        shared[j] += near[j]
            for j in range(count):
                down = out[j] - shared[j]*own[j]*factor
                out[j] = down if (own[j] > zero) | (not relu) else zero


# ------------------------------------------------------------------------------------------------- windows and tiles
TILES = 2**10                     # bytes of a tap's pixels, of a few rows of tiles, which so stay in cache with those of all taps


def taps(x, top, left, step, wide, out):
    """out (tall*wide*N,) = the pixels (top + step*i, left + step*j) of a map x (H,W,N) for j < wide, row by row; 0 outside."""
    (H, W, N), tall = x.shape, out.size//(wide*x.shape[2])
    lo = min(max(0, -(left//step)), wide)
    hi = max(lo, min(wide, (W - 1 - left)//step + 1))
    for i in range(tall):
        h, row = top + step*i, out[i*wide*N:(i + 1)*wide*N]
        if h < 0 or h >= H or lo == hi:
            for j in range(wide*N):
                row[j] = 0
            continue
        for j in range(lo*N):
            row[j] = 0
        for j in range(hi*N, wide*N):
            row[j] = 0
        seen = x[h].reshape(W*N)[(left + step*lo)*N:]
        inside = row[lo*N:hi*N]
        if step == 1:
            for j in range(inside.size):
                inside[j] = seen[j]
        elif N == 1:
            for j in range(inside.size):
                inside[j] = seen[j*step]
        else:
            for j in range(hi - lo):
                pixel, to = seen[j*step*N:j*step*N + N], inside[j*N:j*N + N]
                for n in range(N):
                    to[n] = pixel[n]


def windows(x, out, top, left, S):
    """out (C,Kr,Ks,p,q*N): the windows of x (C,H,W,N) at stride S, the first of which begins at pixel (top, left)."""
    C, Kr, Ks, p, length = out.shape
    for c in range(C):
        for r in range(Kr):
            for s in range(Ks):
                taps(x[c], top + r, left + s, S, length//x.shape[3], out[c, r, s].reshape(p*length))


def weigh(weights, numbers, m, start, out):
    """out (count,) = the sum of weights[t]*numbers[t,m,start:start+count], in the order of t, without those of weight 0."""
    empty = True
    for t in range(len(weights)):
        weight, terms = weights[t], numbers[t, m, start:start + out.size]
        if weight == 0:
            continue
        if empty:
            for j in range(out.size):
                out[j] = weight*terms[j]
        else:
            for j in range(out.size):
                out[j] += weight*terms[j]
        empty = False


def to_points(x, sizes, top, left, step, apart, wide, matrix, V, first):
    """V (points,maps,tiles*N), maps `first` and following, = matrix (points,numbers) @ the tiles of x (C,H,W,N), `wide` in a row.
    Tile (i,j) begins at pixel (top + step*i, left + step*j); it has `sizes` rows and columns, so many pixels `apart`."""
    N, (rows, columns) = x.shape[3], sizes
    length = max(1, TILES//(wide*N*x.itemsize))*wide*N
    numbers = np.empty((rows*columns, 1, length), x.dtype)
    for c in range(len(x)):
        for start in range(0, V.shape[2], length):
            count = min(length, V.shape[2] - start)
            below = top + start//(wide*N)*step
            for r in range(rows):
                for s in range(columns):
                    taps(x[c], below + apart*r, left + apart*s, step, wide, numbers[r*columns + s, 0, :count])
            for k in range(len(V)):
                weigh(matrix[k], numbers, 0, 0, V[k, first + c, start:start + count])


def from_points(M, first, matrix, bias, relu, y, sizes, top, left, step, apart, wide):
    """The reverse: tiles of y (F,Ho,Wo,N), as `to_points` has those of x, = matrix (numbers,points) @ M (points,maps,tiles*N), of
    maps `first` and following, + bias (F,), rectified if relu. What lies outside is left out."""
    (F, H, W, N), (rows, columns) = y.shape, sizes
    zero = y.dtype.type(0)
    length = max(1, TILES//(wide*N*y.itemsize))*wide*N
    numbers = np.empty(length, y.dtype)
    for f in range(F):
        for start in range(0, M.shape[2], length):
            out = numbers[:min(length, M.shape[2] - start)]
            for r in range(rows):
                for s in range(columns):
                    weigh(matrix[r*columns + s], M, first + f, start, out)
                    for j in range(out.size):
                        v = out[j] + bias[f]
                        out[j] = zero if relu and v <= zero else v
                    h = top + start//(wide*N)*step + apart*r
                    put(out, y[f], h, left + apart*s, step, wide)


def put(numbers, y, top, left, step, wide):
    """The reverse of `taps`: the pixels of a map y (H,W,N) = numbers (tall*wide*N,), without those outside."""
    (H, W, N), tall = y.shape, numbers.size//(wide*y.shape[2])
    lo = min(max(0, -(left//step)), wide)
    hi = max(lo, min(wide, (W - 1 - left)//step + 1))
    for i in range(tall):
        h = top + step*i
        if h < 0 or h >= H or lo == hi:
            continue
        inside = numbers[(i*wide + lo)*N:(i*wide + hi)*N]
        row = y[h].reshape(W*N)[(left + step*lo)*N:]
        if N == 1:
            for j in range(hi - lo):
                row[j*step] = inside[j]
        else:
            for j in range(hi - lo):
                pixel, to = inside[j*N:j*N + N], row[j*step*N:j*step*N + N]
                for n in range(N):
                    to[n] = pixel[n]


PARTS = taps, weigh, put          # loops that others call
