"""Loops that NumPy cannot express: what several of its calls compute one after another, in one pass over memory.

Where numba is installed (`pip install "zfcore[fast]"`) it compiles them, and large arrays go through them; without it nothing
but time is lost. The NumPy form is the specification: a loop forms the same sums in the same order, without fused
multiply-adds, and gives the same bits of finite numbers (of two zeros that a maximum meets, either). A loop is one core's;
`parallel` spreads the blocks, and a loop does not hold Python's lock. Arrays lie together in memory, but for their first axis.
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
        for part in PARTS:
            register_jitable(part)                          # compiled with each loop that calls it
        return njit(nogil=True, cache=True, error_model="numpy")(loop)
    except (ImportError, OSError):             # not there, or older than NumPy and says so; no memory for its library
        return None


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
            if N == 1:
                out, where = y[c, p].reshape(Wo), switches[c, p].reshape(Wo)
                for q in range(Wo):
                    out[q] = maxima[q*step]
                    where[q] = chosen[q*step]
                continue
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


def squares(x, c, n, start, s):
    """s (count,) = the sum of the squares of x (C,L) at columns `start` and following, of map c and then of the n-1 near it."""
    count = s.size
    own = x[c, start:start + count]
    for j in range(count):
        s[j] = own[j]*own[j]
    for shift in range(max(-(n//2), -c), min(n - n//2, len(x) - c)):
        if shift != 0:
            near = x[c + shift, start:start + count]
            for j in range(count):
                s[j] += near[j]*near[j]


def normalise(x, y, n, a, k, first, last):
    """Columns first:last of y (C,L) = x / s^0.75, s = k + a*(sum of the squares of n maps), as `local_response_norm` has it."""
    C = len(x)
    s = np.empty(STRIP, x.dtype)
    for start in range(first, last, STRIP):
        count = min(STRIP, last - start)
        for c in range(C):
            own, out = x[c, start:start + count], y[c, start:start + count]
            squares(x, c, n, start, s[:count])
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
            squares(x, c, n, start, s[:count])
            for j in range(count):
                scale = s[j]*a + k
                root = np.sqrt(scale)
                out[j] = above[j]/(np.sqrt(root)*root)
                mine[j] = out[j]*own[j]/scale
        for c in range(C):
            own, out = x[c, start:start + count], dx[c, start:start + count]
            for j in range(count):
                shared[j] = term[c, j]
            for shift in range(max(n//2 + 1 - n, -c), min(n//2 + 1, C - c)):          # the maps that have this one among theirs
                if shift != 0:
                    near = term[c + shift]
                    for j in range(count):
                        shared[j] += near[j]
            for j in range(count):
                down = out[j] - shared[j]*own[j]*factor
                out[j] = down if (own[j] > zero) | (not relu) else zero


# ------------------------------------------------------------------------------------------------- pictures at points
def sample(pixels, border, rows, columns, width, out):
    """out (C,points) = `sample` of zfcore/analysis/invariance.py at points (rows[k], columns[k]), of `width` (points,), in pixels
    (h + 2*border,w + 2*border,C or more), of which the border is 0."""
    tall, wide, several = pixels.shape
    flat, reach = pixels.reshape(pixels.size), border - 1
    top, left, line = np.empty(STRIP), np.empty(STRIP), np.empty(STRIP, out.dtype)
    down, across = np.empty((reach, STRIP), out.dtype), np.empty((reach, STRIP), out.dtype)
    raw, at = np.empty((reach + 1, STRIP)), np.empty(STRIP, np.int64)
    for start in range(0, rows.size, STRIP):
        here = slice(start, min(start + STRIP, rows.size))
        taps(rows[here], width[here], tall - 2*border, top, down, raw)
        taps(columns[here], width[here], wide - 2*border, left, across, raw)
        for j in range(here.stop - start):
            at[j] = ((np.int64(top[j]) + border)*wide + np.int64(left[j]) + border)*several
        for c in range(len(out)):
            found = out[c, here]
            for j in range(found.size):
                found[j] = 0
            for r in range(reach):
                for j in range(found.size):
                    line[j] = 0
                for s in range(reach):
                    shift, of_column = (r*wide + s)*several + c, across[s]
                    for j in range(found.size):
                        line[j] += flat[at[j] + shift]*of_column[j]
                of_row = down[r]
                for j in range(found.size):
                    found[j] += line[j]*of_row[j]


def taps(points, width, length, first, weights, raw):
    """The first pixel (STRIP,) of an axis of `length` that the kernel around each point reaches, and the weights (T,STRIP) of
    that and the next, as `_taps` of invariance.py has them; raw (T + 1,STRIP) is memory."""
    count, total = points.size, raw[len(weights)]
    for j in range(count):
        first[j] = np.floor(min(max(points[j], 0.0), float(length)) - 0.5 - 2*max(width[j], 1.0)) + 1
        total[j] = 0
    for t in range(len(weights)):
        of_tap = raw[t]
        for j in range(count):
            pixel = first[j] + t
            d = abs((pixel + 0.5 - min(max(points[j], 0.0), float(length)))/max(width[j], 1.0))
            near, far = (1.5*d - 2.5)*d*d + 1, ((-0.5*d + 2.5)*d - 4)*d + 2
            weight = near if d < 1 else (far if d <= 2 else 0.0)
            of_tap[j] = weight if (pixel >= 0) & (pixel < length) else 0.0
            total[j] += of_tap[j]
    for t in range(len(weights)):
        of_tap, out = raw[t], weights[t]
        for j in range(count):
            out[j] = of_tap[j]/total[j]


# ----------------------------------------------------------------------------------------------------------- distances
def add_squares(f, factors, other, total):
    """total (N,) float64 += the squares of f (D,N)*factors (N,) - other (D,), row after row."""
    for d in range(len(f)):
        row, less = f[d], other[d]
        for n in range(total.size):
            v = row[n]*factors[n] - less
            total[n] += v*v


# ------------------------------------------------------------------------------------------------- windows and tiles
STRETCH = 2**13                   # bytes of a tap's pixels that go through a transform together, which so stay in cache


def windows(x, grid, out, p):
    """out (C,Kr,Ks,p,q*N): the first p rows of windows of x (C,H,W,N). With grid (top, left, step, apart) tap (r,s) of window
    (i,j) is pixel (top + step*i + apart*r, left + step*j + apart*s), 0 outside; step is a multiple of apart. Each row of a map
    is read once and dealt to lines, in which the pixels that a tap sees lie together."""
    (C, H, W, N), (_, Kr, Ks, _, length), (top, left, step, apart) = x.shape, out.shape, grid
    many = step//apart
    count = length//N + (Ks - 1)//many
    lines = np.zeros((min(many, Ks), count*N), x.dtype)                               # zero for good where they lie outside
    zero = x.dtype.type(0)
    for c in range(C):
        for v in range((p - 1)*many + Kr):
            h = top + apart*v
            inside = 0 <= h < H
            for a in range(len(lines) if inside else 0):
                line, start = lines[a], left + apart*a
                for j in range(max(0, -(start//step)), min(count, (W - 1 - start)//step + 1)):
                    pixel, to = x[c, h, start + j*step], line[j*N:j*N + N]
                    for n in range(N):
                        to[n] = pixel[n]
            for r in range(v % many, Kr, many):
                i = (v - r)//many
                if 0 <= i < p:
                    for s in range(Ks):
                        seen, line = out[c, r, s, i], lines[s % many, s//many*N:s//many*N + length]
                        for j in range(length):
                            seen[j] = line[j] if inside else zero


def to_points(x, places, grid, sizes, wide, weights, terms, V, first):
    """Maps `first` and following of V (points,maps,tiles*N) = what `weigh` makes of the tiles of x (C,H,W,N), `wide` in a row.
    A tile is a window of `sizes` rows and columns, as `windows` has it. Where N is 1, rows are too short to be dealt: there a
    number is looked up at its `places` (numbers,tiles), -1 outside."""
    (_, H, W, N), length = x.shape, wide*x.shape[3]
    rows, tall = V.shape[2]//length, max(1, STRETCH//(length*x.itemsize))
    tiles, zero = np.empty((1, sizes[0], sizes[1], tall, length), x.dtype), x.dtype.type(0)
    numbers = tiles.reshape(sizes[0]*sizes[1], 1, tall*length)
    for c in range(len(x)):
        for i in range(0, rows, tall):
            count = min(tall, rows - i)
            if N == 1:
                pixels = x[c].reshape(H*W)
                for t in range(len(places)):
                    of_tap, place = numbers[t, 0], places[t, i*wide:(i + count)*wide]
                    for j in range(place.size):
                        of_tap[j] = pixels[place[j]] if place[j] >= 0 else zero
            else:
                windows(x[c:c + 1], (grid[0] + i*grid[2], grid[1], grid[2], grid[3]), tiles, count)
            for k in range(len(V)):
                weigh(weights[k], terms[k], numbers, 0, 0, V[k, first + c, i*length:(i + count)*length])


def from_points(M, first, weights, terms, bias, relu, y, places):
    """The reverse: the numbers of y (F,H*W,N) at `places` (numbers,tiles) = what `weigh` makes of maps `first` and following of
    M (points,maps,tiles*N), + bias (F,), rectified if relu."""
    (F, _, N), tiles, zero = y.shape, places.shape[1], y.dtype.type(0)
    count = max(1, STRETCH//(N*y.itemsize))
    numbers = np.empty(count*N, y.dtype)
    for f in range(F):
        pixels, of_filter = y[f].reshape(y[f].size), bias[f]
        for start in range(0, tiles, count):
            for t in range(len(places)):
                place = places[t, start:start + count]
                of_tap = numbers[:place.size*N]
                weigh(weights[t], terms[t], M, first + f, start*N, of_tap)
                for j in range(of_tap.size):
                    v = of_tap[j] + of_filter
                    of_tap[j] = zero if relu & (v <= zero) else v
                if N == 1:
                    for j in range(place.size):
                        if place[j] >= 0:
                            pixels[place[j]] = of_tap[j]
                    continue
                for j in range(place.size):
                    if place[j] >= 0:
                        pixel, of_tile = pixels[place[j]*N:place[j]*N + N], of_tap[j*N:j*N + N]
                        for n in range(N):
                            pixel[n] = of_tile[n]


def add_bias(y, bias):
    """y (F,L) = max(y + bias (F,), 0), in place."""
    zero = y.dtype.type(0)
    for f in range(len(y)):
        of_filter, offset = y[f], bias[f]
        for j in range(of_filter.size):
            v = of_filter[j] + offset
            of_filter[j] = zero if v <= zero else v


def weigh(weights, terms, numbers, m, start, out):
    """out (count,) = the sum of weights[t]*numbers[terms[t],m,start:start+count], in the order of t, four in a pass over it."""
    stop = start + out.size
    for t in range(0, len(weights) - 3, 4):
        u, v, w, x = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        a, b = numbers[terms[t], m, start:stop], numbers[terms[t + 1], m, start:stop]
        c, d = numbers[terms[t + 2], m, start:stop], numbers[terms[t + 3], m, start:stop]
        if t == 0:
            for j in range(out.size):
                out[j] = u*a[j] + v*b[j] + w*c[j] + x*d[j]
        elif u != 0:
            for j in range(out.size):
                out[j] = out[j] + u*a[j] + v*b[j] + w*c[j] + x*d[j]


PARTS = squares, windows, weigh, taps     # loops that others call
