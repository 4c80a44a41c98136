"""Drawings of the objects of the drawn sets: the palette, curves, a pen, and the ten objects, one function a class.

A drawing is a list of filled polygons in the object's own coordinates, about [-1,1] x [-1,1], x right, y down, painted
in order. Polygons rather than pixels, so that a scene is the same at any size and its truth is exact.

    points      (n,2) float64; a closed shape does not repeat its first point unless that is harmless
    Pen         records polygons, their colours and which loose part they belong to, and marks named parts
    Drawings    what a data set shows: names of classes, and how one of a class is drawn
    OBJECTS     the ten; DRAW has their functions, class name -> function of a pen. Others are in combinations.py
"""
import math
from functools import cache
from typing import NamedTuple

import numpy as np

# ------------------------------------------------------------------------------------------------------- colours
COATS = ((238, 226, 200), (208, 168, 116), (212, 132, 64), (150, 102, 64), (96, 64, 46), (70, 66, 68), (140, 138, 138),
         (192, 190, 188), (236, 234, 228))             # cream, browns, greys, white
PAINTS = ((188, 60, 50), (214, 122, 130), (226, 186, 74), (124, 132, 74), (74, 126, 82), (66, 132, 138), (72, 106, 168),
          (130, 170, 206), (50, 64, 106), (124, 94, 156))            # red .. green .. blue, violet
SKINS = ((244, 208, 178), (228, 184, 148), (198, 148, 110), (150, 104, 74), (104, 70, 52))
IRISES = ((226, 180, 50), (150, 170, 70), (90, 150, 110), (90, 140, 180), (196, 120, 40), (110, 74, 46))
INK, CHALK, PINK, GLASS, STEEL = (38, 32, 34), (246, 244, 238), (214, 138, 138), (150, 184, 204), (176, 180, 186)


def shade(colour, factor):
    """`colour` made darker (factor below 1) or lighter; lighter goes towards white, so that it never saturates."""
    if factor <= 1:
        r, g, b = colour
        return r*factor, g*factor, b*factor
    return mix(colour, (255, 250, 240), 1 - 1/factor)


def mix(a, b, t):
    """Mix colour a (t = 0) with colour b (t = 1)."""
    return a[0] + (b[0] - a[0])*t, a[1] + (b[1] - a[1])*t, a[2] + (b[2] - a[2])*t


# -------------------------------------------------------------------------------------------------------- shapes
_TURN = np.linspace(0, 2*np.pi, 29)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)               # (29,2), the last point is the first
_T = np.linspace(0, 1, 5, endpoint=False)[:, None]
_CATMULL_ROM = (_T**np.arange(4)) @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])/2   # (5,4)


def ellipse(x, y, rx, ry=None):
    return _CIRCLE*(rx, rx if ry is None else ry) + (x, y)


def arc(x, y, rx, ry, start, stop, count=12):
    """Open piece of an ellipse; angles in degrees, clockwise on the screen from the x axis."""
    angle = _ramp(math.radians(start), math.radians(stop), count)
    return np.stack([x + rx*np.cos(angle), y + ry*np.sin(angle)], axis=1)


def _ramp(start, stop, count):
    """`np.linspace` without its overhead, which a few hundred calls a picture would feel."""
    return start + (stop - start)/(count - 1)*np.arange(count)


def smooth(*points):
    """Closed curve through the points (Catmull-Rom, 5 points a piece)."""
    p = np.array(points, dtype=float)
    return (_CATMULL_ROM @ p[_four_around(len(p))]).reshape(-1, 2)


def curve(*points):
    """Open curve through the points, from the first to the last."""
    p = np.array(points, dtype=float)
    pieces = _CATMULL_ROM @ p[_four_within(len(p) - 1)]
    return np.concatenate([pieces.reshape(-1, 2), p[-1:]])


@cache
def _four_around(pieces):
    """(pieces,4): the numbers of the points that each piece of a closed curve depends on."""
    return (np.arange(pieces)[:, None] + (-1, 0, 1, 2)) % pieces


@cache
def _four_within(pieces):
    """The same of an open curve, whose ends stand for what would lie beyond them."""
    return (np.arange(pieces)[:, None] + (-1, 0, 1, 2)).clip(0, pieces)


def polygon(*points):
    return np.array(points, dtype=float)


def box(x0, y0, x1, y1):
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def rounded(x0, y0, x1, y1, r):
    """Rectangle with corners of radius r."""
    corner = np.repeat([(x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r)], 7, axis=0)
    return corner + r*_CIRCLE[:28]


def symmetric(*points):
    """Closed curve through points of the right half, from top to bottom, and their mirror images at the left."""
    return smooth(*points, *((-x, y) for x, y in reversed(points) if x))


def ribbon(points, width):
    """The open line through `points` (n,2) as a polygon; `width` is a number, or (at the first point, at the last)."""
    if isinstance(width, tuple):
        width = _ramp(*width, len(points))[:, None]
    half = _normals(points)*(width/2)
    return np.concatenate([points + half, (points - half)[::-1]])


def _normals(points):
    """Unit vectors (n,2) across an open line."""
    d = np.empty_like(points)
    d[1:-1] = points[2:] - points[:-2]
    d[0], d[-1] = points[1] - points[0], points[-1] - points[-2]
    return _across(d)


def outward(points):
    """Unit vectors (n,2) that point out of a closed shape, whichever way round its points run."""
    return _outward(points, points - points.sum(axis=0)/len(points))


def _outward(points, spokes):
    """`outward`, with the vectors to the points from their mean."""
    behind, before = _neighbours(len(points))
    normals = _across(points.take(behind, axis=0) - points.take(before, axis=0))
    return normals if np.vdot(normals, spokes) > 0 else -normals


@cache
def _neighbours(n):
    """(the point behind each of n in a ring, the one before it)."""
    ring = np.arange(n)
    return (ring + 1) % n, ring - 1


def _across(d):
    """Vectors d (n,2) turned by 90 degrees and made one long."""
    x, y = d.T
    length = np.sqrt(x*x + y*y) + 1e-9
    normals = np.empty_like(d)
    np.divide(y, length, out=normals[:, 0])
    np.divide(x, -length, out=normals[:, 1])
    return normals


def turned(points, degrees, x=0, y=0):
    """`points` rotated about the origin and moved to (x, y)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ polygon((c, s), (-s, c)) + (x, y)


_SHRINK = np.array((1, 0.86, 0.66, 0.38))[:, None, None]


class Pen:
    """Records a drawing: `polygons` (n,2) with their `colours` and `groups`, and `parts`, name -> (x, y).

    `light` is the direction towards the lamp. `group` is set by a drawing to the name of a loose part, whose polygons
    may lie around alone in a picture of another class, or to "" for what belongs to the whole."""

    def __init__(self, rng, light):
        self.rng, self.light = rng, np.asarray(light)
        self.polygons, self.colours, self.groups, self.parts = [], [], [], {}
        self.group, self.base = "", CHALK

    # chance
    def chance(self, probability):
        return self.rng.random() < probability

    def between(self, low, high):
        return low + (high - low)*self.rng.random()

    def pick(self, choices):
        return choices[int(self.rng.random()*len(choices))]

    def colour(self, choices):
        """One of `choices`, a little lighter or darker and a little off its hue."""
        r, g, b = shade(self.pick(choices), self.between(0.85, 1.15))
        return r + self.between(-8, 8), g + self.between(-8, 8), b + self.between(-8, 8)

    def any_colour(self):
        """Colour from the whole palette, coats and paints alike often."""
        return self.colour(COATS if self.chance(0.5) else PAINTS)

    # marks on the paper
    def mark(self, name, x, y):
        self.parts[name] = (x, y)

    def flat(self, points, colour):
        self.polygons.append(points)
        self.colours.append(colour)
        self.groups.append(self.group)

    def line(self, points, width, colour):
        self.flat(ribbon(points, width), colour)

    def plain(self, points, colour, outline=0.025):
        """One colour with a dark outline."""
        self.flat(points + outward(points)*outline, shade(colour, 0.42))
        self.flat(points, colour)

    def solid(self, points, colour, outline=0.025, bulge=1.0):
        """A shaded body with a dark outline: the shape, then smaller copies drawn towards the lamp, each lighter.

        They shrink onto a point of the shape's ellipse of inertia, so they stay inside of any shape that is convex,
        or nearly, however thin and tilted it is."""
        middle = points.sum(axis=0)/len(points)
        spokes = points - middle
        if outline:
            self.flat(points + _outward(points, spokes)*outline, shade(colour, 0.42))
        along = spokes @ self.light
        focus = middle + along @ spokes*(0.6/math.sqrt(len(points)*(along @ along) + 1e-12))
        for shrunk, level in zip(focus + (points - focus)*_SHRINK, (-0.22, -0.05, 0.06, 0.15)):
            self.flat(shrunk, shade(colour, 1 + level*bulge))

    def furry(self, points, amount):
        """`points` pushed in and out at random: the outline of fur."""
        return points + outward(points)*self.rng.uniform(-amount/2, amount, (len(points), 1))

    def ticks(self, x, y, rx, ry, count, length, colour, spread=0.5):
        """Tufts: thin triangles strewn over an ellipse, pointing away from its middle and down."""
        angle, radius = self.rng.uniform(0, 2*np.pi, count), np.sqrt(self.rng.uniform(0.1, 1, count))
        at = np.stack([rx*radius*np.cos(angle), ry*radius*np.sin(angle)], axis=1)            # (count,2)
        way = at/np.hypot(rx, ry) + (0, spread)
        way *= length/np.sqrt((way*way).sum(axis=1, keepdims=True))
        side = way[:, ::-1]*(0.22, -0.22)
        for triangle in np.stack([at - side, at + way, at + side], axis=1) + (x, y):
            self.flat(triangle, colour)


class Sketch(Pen):
    """A pen that takes down what it is told, and of a drawing makes the polygons of the loose part that is asked for."""

    def __init__(self, rng, light):
        super().__init__(rng, light)
        self.told = []                                                   # (group, function of a pen, its arguments)

    def of_group(self, group):
        """A Pen with the polygons of this group alone."""
        pen = Pen(None, self.light)
        for told_in, draw, arguments, named in self.told:
            if told_in == group:
                draw(pen, *arguments, **named)
        return pen


def _take_down(draw):
    return lambda sketch, *arguments, **named: sketch.told.append((sketch.group, draw, arguments, named))


for _draw in (Pen.flat, Pen.line, Pen.plain, Pen.solid):                 # what needs no chance, and may wait
    setattr(Sketch, _draw.__name__, _take_down(_draw))

SIDES = ((-1, "left"), (1, "right"))


# ---------------------------------------------------------------------------------------------------- the classes
def dog_face(pen):
    pen.base = coat = pen.colour(COATS)
    dark, pale = shade(coat, pen.between(0.5, 0.75)), mix(coat, CHALK, pen.between(0.35, 0.75))
    turn, jowl, floppy = pen.between(-0.09, 0.09), pen.between(0.3, 0.4), pen.chance(0.75)
    head = symmetric((0, -0.74), (0.4, -0.68), (0.62, -0.3), (0.57, 0.15), (jowl + 0.06, 0.55), (0.24, 0.84),
                               (0, 0.9))
    length = pen.between(0.3, 0.62)
    if not floppy:
        _pricked_ears(pen, dark, mix(PINK, coat, 0.4), inner=0.18, tip=0.62, top=-1.02)
    pen.solid(pen.furry(head, 0.03), coat)
    pen.ticks(0, -0.35, 0.45, 0.3, 9, 0.13, shade(coat, 0.85))
    if pen.chance(0.5):                                                  # a blaze up the forehead
        pen.flat(symmetric((0, -0.68), (0.1, -0.4), (0.14, 0.2)) + (turn, 0), pale)
    if floppy:
        pen.group = "ear"
        for side, _ in SIDES:
            ear = smooth((side*0.36, -0.7), (side*0.66, -0.74), (side*0.9, -0.35), (side*0.94, length - 0.1),
                         (side*0.78, length), (side*0.62, length - 0.22), (side*0.56, -0.25))
            pen.solid(pen.furry(ear, 0.02), dark, bulge=0.8)
    pen.group = "muzzle"
    if pen.chance(0.5):
        pen.solid(symmetric((0, 0.52), (0.12, 0.56), (0.13, 0.84), (0.07, 0.97), (0, 0.99)) + (turn, 0), PINK)
    for side, _ in SIDES:
        pen.solid(pen.furry(ellipse(turn + side*0.17, 0.46, 0.24, 0.22), 0.02), pale, outline=0, bulge=0.6)
    pen.flat(ellipse(turn, 0.3, 0.2, 0.2), pale)
    pen.line(curve((turn, 0.35), (turn, 0.54)), 0.035, INK)
    for side, _ in SIDES:
        pen.line(curve((turn, 0.54), (turn + side*0.12, 0.63), (turn + side*0.27, 0.56)), (0.045, 0.015), INK)
        for x, y in ((0.14, 0.42), (0.2, 0.5), (0.25, 0.42)):
            pen.flat(ellipse(turn + side*x, y, 0.014), shade(pale, 0.5))
    nose = symmetric((0, 0.13), (0.13, 0.14), (0.19, 0.22), (0.11, 0.34), (0, 0.38)) + (turn*1.3, 0)
    pen.solid(nose, mix(INK, coat, 0.12), outline=0.01)
    pen.flat(ellipse(turn*1.3 + 0.05*pen.light[0], 0.19, 0.06, 0.028), (150, 146, 150))
    pen.mark("nose", turn*1.3, 0.25)
    pen.group = "eye"
    spot = pen.pick((-1, 0, 0, 1))
    for side, name in SIDES:
        x, y = side*0.28 + turn*0.7, -0.12
        if side == spot:                                                 # a patch round one eye
            pen.solid(pen.furry(ellipse(x + side*0.04, y - 0.04, 0.22, 0.25), 0.03), dark, outline=0, bulge=0.5)
        pen.line(curve((x - 0.12, y - 0.16), (x, y - 0.22), (x + 0.12, y - 0.16)), 0.05, shade(coat, 0.7))
        _round_eye(pen, x, y, 0.115, (112, 72, 40), name)
    pen.mark("mouth", turn, 0.56)


def cat_face(pen):
    pen.base = coat = pen.colour(COATS)
    dark, pale = shade(coat, pen.between(0.45, 0.65)), mix(coat, CHALK, pen.between(0.35, 0.75))
    turn, broad = pen.between(-0.08, 0.08), pen.between(0.78, 0.88)
    tip, top = pen.between(0.62, 0.74), pen.between(-1.05, -0.92)
    _pricked_ears(pen, coat, mix(PINK, coat, 0.25), 0.14, tip, top)
    head = symmetric((0, -0.58), (0.36, -0.57), (0.68, -0.32), (broad, 0.1), (0.7, 0.44), (0.36, 0.69), (0, 0.76))
    pen.solid(pen.furry(head, 0.035), coat)
    pen.ticks(0, 0.1, 0.7, 0.5, 10, 0.1, shade(coat, 0.86))
    if pen.chance(0.65):                                                 # tabby stripes
        for x in (-0.2, 0, 0.2):
            pen.line(curve((x*1.2, -0.56), (x*0.9 + turn/2, -0.42), (x*0.7 + turn, -0.24)), (0.075, 0.005), dark)
        for side, _ in SIDES:
            for y in (0.06, 0.2, 0.34):
                pen.line(curve((side*(0.8 - y*0.2), y), (side*0.64, y + 0.01), (side*0.5, y + 0.06)),
                         (0.075, 0.005), dark)
    pen.group = "muzzle"
    pen.flat(smooth((turn, 0.0), (turn + 0.12, 0.3), (turn, 0.5), (turn - 0.12, 0.3)), pale)
    pen.solid(ellipse(turn, 0.55, 0.15, 0.12), pale, outline=0, bulge=0.5)
    for side, _ in SIDES:
        pen.solid(pen.furry(ellipse(turn + side*0.14, 0.4, 0.19, 0.14), 0.015), pale, outline=0, bulge=0.6)
        pen.line(curve((turn, 0.34), (turn + side*0.06, 0.45), (turn + side*0.2, 0.46)), (0.032, 0.012), INK)
    nose = smooth((turn*1.3 - 0.1, 0.2), (turn*1.3 + 0.1, 0.2), (turn*1.3, 0.33))
    pen.solid(nose, mix(PINK, dark, pen.between(0, 0.5)), outline=0.012)
    pen.mark("nose", turn*1.3, 0.25)
    pen.mark("mouth", turn, 0.43)
    iris = pen.colour(IRISES)
    pen.group = "eye"
    for side, name in SIDES:
        _cat_eye(pen, side*0.34 + turn*0.7, -0.04, side, iris, name)
    pen.group = "whiskers"
    thread = CHALK if sum(coat) < 520 else shade(coat, 0.4)
    for side, _ in SIDES:
        for y, drop in ((0.34, -0.12), (0.4, 0.02), (0.45, 0.16)):
            end = pen.between(0.92, 1.08)
            pen.line(curve((turn + side*0.2, y), (side*0.6, y + drop*0.4 - 0.02), (side*end, y + drop)),
                     (0.024, 0.004), thread)


def _pricked_ears(pen, coat, lining, inner, tip, top):
    """Two upright triangles that the head will cover at their roots, from x = `inner` outwards."""
    pen.group = "ear"
    for side, _ in SIDES:
        ear = polygon((side*inner, -0.52), (side*(inner + tip)*0.52, (top - 0.6)*0.5), (side*tip, top),
                        (side*(tip + 0.08), -0.62), (side*0.76, -0.16), (side*0.4, -0.2))
        pen.solid(pen.furry(ear, 0.01), coat, bulge=0.7)
        middle = ear[:5].mean(axis=0) + (0, 0.03)
        pen.flat(middle + (ear[:5] - middle)*0.6, lining)
    pen.group = ""


def _round_eye(pen, x, y, r, iris, name):
    """An eye without white: rim, iris lit from below, pupil, glint."""
    pen.flat(ellipse(x, y, r*1.15, r*1.1), INK)
    pen.flat(ellipse(x, y, r*0.9, r*0.88), shade(iris, 0.7))
    pen.flat(ellipse(x - pen.light[0]*r*0.25, y - pen.light[1]*r*0.25, r*0.6), shade(iris, 1.25))
    pen.flat(ellipse(x, y, r*0.56), INK)
    pen.flat(ellipse(x + pen.light[0]*r*0.4, y + pen.light[1]*r*0.4, r*0.24), CHALK)
    pen.mark(f"{name} eye", x, y)


def _cat_eye(pen, x, y, side, iris, name):
    lids = np.concatenate([arc(0, 0.05, 0.19, 0.17, 195, 345), arc(0, -0.04, 0.19, 0.16, 15, 165)])
    almond = turned(lids, -10*side, x, y)
    pen.flat(almond + outward(almond)*0.03, INK)
    pen.flat(almond, shade(iris, 0.75))
    pen.flat(ellipse(x - pen.light[0]*0.02, y - pen.light[1]*0.02, 0.11, 0.085), shade(iris, 1.15))
    pen.flat(ellipse(x, y, pen.between(0.03, 0.055), 0.115), INK)
    pen.flat(ellipse(x + pen.light[0]*0.06, y + pen.light[1]*0.06, 0.03), CHALK)
    pen.mark(f"{name} eye", x, y)


def owl(pen):
    pen.base = coat = pen.colour(COATS)
    dark, pale = shade(coat, pen.between(0.5, 0.7)), mix(coat, CHALK, pen.between(0.4, 0.75))
    turn, wide = pen.between(-0.06, 0.06), pen.between(0.56, 0.68)
    pen.solid(symmetric((0, 0.5), (0.2, 0.6), (0.18, 1.0), (0, 1.04)), dark)                        # tail
    body = symmetric((0, -0.6), (wide*0.8, -0.45), (wide, 0.1), (wide*0.82, 0.6), (0.26, 0.86), (0, 0.9))
    pen.solid(pen.furry(body, 0.02), coat)
    pen.solid(pen.furry(ellipse(0, 0.36, wide*0.72, 0.46), 0.02), pale, outline=0, bulge=0.6)
    scallop = ribbon(arc(0, 0, 0.065, 0.07, 0, 180, 7), 0.03)
    for row in range(4):                                                 # breast feathers
        for k in range(-2, 3):
            x, y = (k + row % 2/2)*0.155, 0.12 + row*0.16
            if abs(x) < wide*0.66*math.sqrt(max(0, 1 - ((y - 0.36)/0.5)**2)):
                pen.flat(scallop + (x, y), shade(coat, 0.72))
    pen.group = "wing"
    for side, name in SIDES:
        wing = smooth((side*(wide - 0.12), -0.18), (side*(wide + 0.1), 0.1), (side*(wide + 0.06), 0.5),
                      (side*wide*0.7, 0.84), (side*(wide - 0.2), 0.4))
        pen.solid(pen.furry(wing, 0.01), dark, bulge=0.8)
        for k in range(3):
            x = side*(wide - 0.08 + k*0.055)
            quill = curve((x, 0.05 + k*0.03), (x - side*0.01, 0.35), (x - side*0.09, 0.58 - k*0.03))
            pen.line(quill, 0.018, shade(dark, 0.6))
        pen.mark(f"{name} wing", side*(wide - 0.03), 0.3)
    pen.group = "foot"
    horn = pen.colour(((224, 168, 70), (120, 112, 100)))
    for side, _ in SIDES:
        for k in (-1, 0, 1):
            pen.solid(ellipse(side*0.2 + k*0.075, 0.9, 0.045, 0.08), horn, outline=0.015)
    pen.group = ""
    if pen.chance(0.6):                                                  # ear tufts
        for side, _ in SIDES:
            tuft = polygon((0.2, -0.8), (0.42, -0.9), (0.64, -1.08), (0.6, -0.7), (0.5, -0.55))
            pen.solid(tuft*(side, 1), dark)
    pen.solid(pen.furry(symmetric((0, -0.84), (0.36, -0.84), (0.6, -0.6), (0.58, -0.3), (0.34, -0.1), (0, -0.06)),
                        0.02), coat)
    pen.ticks(0, -0.72, 0.34, 0.1, 6, 0.08, dark)
    pen.group = "eye"
    iris = pen.colour(IRISES)
    for side, name in SIDES:
        x, y = side*0.25 + turn, -0.44
        pen.solid(pen.furry(ellipse(x, y, 0.27, 0.26), 0.02), pale, outline=0.02, bulge=0.5)
        pen.flat(ellipse(x, y, 0.165), shade(coat, 0.45))
        pen.flat(ellipse(x, y, 0.145), shade(iris, 0.85))
        pen.flat(ellipse(x - pen.light[0]*0.03, y - pen.light[1]*0.03, 0.105), shade(iris, 1.2))
        pen.flat(ellipse(x, y, 0.085), INK)
        pen.flat(ellipse(x + pen.light[0]*0.055, y + pen.light[1]*0.055, 0.034), CHALK)
        pen.mark(f"{name} eye", x, y)
    pen.group = "beak"
    pen.solid(smooth((turn*1.4, -0.46), (turn*1.4 + 0.085, -0.33), (turn*1.4, -0.12), (turn*1.4 - 0.085, -0.33)), horn)
    pen.mark("nose", turn*1.4, -0.3)


def person(pen):
    skin, hair, cloth = pen.colour(SKINS), pen.colour(COATS), pen.any_colour()
    pen.base = cloth
    turn, style = pen.between(-0.07, 0.07), pen.pick(("short", "long", "bald", "hat", "long", "short"))
    if style == "long":
        locks = symmetric((0, -0.86), (0.42, -0.76), (0.6, -0.3), (0.6, 0.3), (0.5, 0.62), (0, 0.66))
        pen.solid(locks, shade(hair, 0.8))
    shoulders = np.concatenate([curve((-0.9, 1.0), (-0.82, 0.74), (-0.5, 0.6), (-0.2, 0.5), (0.2, 0.5), (0.5, 0.6),
                                      (0.82, 0.74), (0.9, 1.0)), [(0.9, 1.02), (-0.9, 1.02)]])
    pen.solid(shoulders, cloth)
    if pen.chance(0.4):                                                  # a striped jersey
        for y in (0.7, 0.82, 0.94):
            pen.flat(box(-0.74, y, 0.74, y + 0.05), mix(cloth, CHALK, 0.6))
    pen.solid(smooth((-0.18, 0.25), (0.18, 0.25), (0.2, 0.52), (0.12, 0.64), (0, 0.68), (-0.12, 0.64), (-0.2, 0.52)),
              shade(skin, 0.82), outline=0.02)
    for side, _ in SIDES:
        pen.solid(ellipse(side*0.45, -0.08, 0.085, 0.13), shade(skin, 0.92), outline=0.02)
    face = symmetric((0, -0.74), (0.32, -0.66), (0.45, -0.3), (0.43, 0.06), (0.29, 0.36), (0.12, 0.5), (0, 0.52))
    pen.solid(face, skin)
    if pen.chance(0.25):
        pen.solid(symmetric((0, 0.14), (0.2, 0.16), (0.42, 0.0), (0.4, 0.22), (0.28, 0.42), (0, 0.58)), hair, outline=0,
                  bulge=0.6)
    _headgear(pen, style, hair)
    _human_features(pen, skin, hair, turn)


def _headgear(pen, style, hair):
    """A hat, or hair parted somewhere, or nothing."""
    pen.group = "hair"
    if style == "hat":
        crown = pen.any_colour()
        pen.solid(symmetric((0, -1.0), (0.3, -0.96), (0.46, -0.7), (0.48, -0.48), (0, -0.5)), crown)
        brim = smooth((-0.66, -0.46), (0, -0.56), (0.66, -0.46), (0.6, -0.38), (0, -0.44), (-0.6, -0.38))
        pen.plain(brim, shade(crown, 0.85))
    elif style != "bald":
        part, low = pen.between(-0.28, 0.28), pen.between(-0.3, -0.05)
        cap = smooth((-0.48, low), (-0.53, -0.5), (-0.34, -0.82), (0, -0.92), (0.34, -0.82), (0.53, -0.5), (0.48, low),
                     (0.41, -0.32), (part + 0.16, -0.46), (part - 0.04, -0.56), (part - 0.2, -0.46), (-0.41, -0.32))
        pen.plain(cap, hair)
        for k in range(-3, 4):                                           # strands from the parting outwards
            strand = curve((part*0.6 + k*0.04, -0.86), (part*0.5 + k*0.11, -0.76), (part*0.3 + k*0.15, -0.56 + 0.015*k*k))
            pen.line(strand, (0.012, 0.03), shade(hair, (1.3, 0.8)[k % 2]))


def _human_features(pen, skin, hair, turn):
    iris = pen.colour(IRISES)
    pen.group = "eye"
    for side, name in SIDES:
        x, y = side*0.19 + turn, -0.1
        pen.line(curve((x - 0.1, y - 0.11), (x, y - 0.15), (x + 0.1, y - 0.11)), 0.045, shade(hair, 0.5))
        pen.flat(ellipse(x, y, 0.11, 0.072), shade(skin, 0.5))
        pen.flat(ellipse(x, y + 0.006, 0.095, 0.056), CHALK)
        pen.flat(ellipse(x, y, 0.055), shade(iris, 0.7))
        pen.flat(ellipse(x, y, 0.032), INK)
        pen.flat(ellipse(x + pen.light[0]*0.025, y + pen.light[1]*0.025, 0.016), CHALK)
        pen.mark(f"{name} eye", x, y)
    if pen.chance(0.25):                                                 # glasses
        for side, _ in SIDES:
            pen.line(ellipse(side*0.19 + turn, -0.1, 0.15, 0.125), 0.026, INK)
        pen.line(curve((turn - 0.05, -0.12), (turn + 0.05, -0.12)), 0.026, INK)
    pen.group = "mouth"
    x = turn*1.5
    pen.solid(smooth((x, -0.08), (x + 0.05, 0.04), (x + 0.095, 0.12), (x, 0.165), (x - 0.095, 0.12), (x - 0.05, 0.04)),
              mix(skin, PINK, 0.12), outline=0, bulge=0.9)
    for side, _ in SIDES:
        pen.line(curve((x + side*0.105, 0.1), (x + side*0.07, 0.155), (x + side*0.02, 0.165)), 0.024, shade(skin, 0.55))
    pen.mark("nose", x, 0.1)
    smile = pen.between(-0.01, 0.06)
    lips = mix(skin, (170, 50, 60), 0.5)
    left, right = (turn - 0.16, 0.29 - smile), (turn + 0.16, 0.29 - smile)
    pen.flat(smooth(left, (turn, 0.255), right, (turn, 0.31 + smile)), lips)
    pen.line(curve(left, (turn, 0.285 + smile/2), right), 0.02, shade(lips, 0.5))
    pen.mark("mouth", turn, 0.28)


def car(pen):
    pen.base = paint = pen.any_colour()
    # height of the roof; where the rear window begins, the roof begins and ends, the bonnet begins
    roof, back, top0, top1, front = pen.pick(((-0.46, -0.7, -0.42, 0.14, 0.46),       # saloon
                                              (-0.5, -0.94, -0.74, 0.1, 0.46),        # hatchback
                                              (-0.62, -0.97, -0.93, 0.36, 0.64)))     # van
    roof, belt = roof + pen.between(-0.04, 0.04), -0.12                               # belt: lower edge of the windows
    body = np.concatenate([
        curve((-0.98, 0.3), (-0.98, 0.05), (-0.96, belt - 0.01), (back, belt - 0.03), (top0, roof + 0.03),
              (top0 + 0.1, roof), (top1 - 0.08, roof), (top1, roof + 0.03), (front, belt - 0.02), (0.84, -0.03),
              (0.97, 0.07), (1.0, 0.3)), [(0.98, 0.33), (-0.96, 0.33)]])
    pen.plain(body, paint)
    pen.flat(np.minimum(body, (2, belt + 0.02)), shade(paint, 1.12))                  # what faces the sky is lighter,
    pen.flat(np.maximum(body, (-2, 0.18)), shade(paint, 0.78))                        # the sill darker
    pen.flat(box(-0.97, 0.26, 0.99, 0.33), shade(paint, 0.5))
    pen.line(curve((-0.95, 0.0), (0.0, -0.03), (0.9, 0.07)), 0.022, shade(paint, 1.4))
    pillar = (top0 + top1)/2 + 0.03
    for x in (pillar, front - 0.1):                                                   # doors, a handle
        pen.line(curve((x, belt + 0.03), (x + 0.01, 0.1), (x - 0.02, 0.26)), 0.016, shade(paint, 0.55))
    pen.flat(rounded(pillar - 0.2, 0.0, pillar - 0.06, 0.04, 0.015), shade(paint, 0.4))
    for x0, x1 in ((0.86, 1.02), (-1.02, -0.88)):                                     # bumpers
        pen.flat(rounded(x0, 0.22, x1, 0.3, 0.03), shade(STEEL, 0.8))
    pen.group = "lamp"
    pen.solid(smooth((0.86, 0.0), (0.95, 0.06), (0.985, 0.15), (0.87, 0.12)), (250, 236, 180), outline=0.015)
    pen.mark("headlight", 0.92, 0.08)
    pen.solid(rounded(-0.975, -0.04, -0.9, 0.14, 0.02), (186, 40, 36), outline=0.015)
    _car_windows(pen, paint, roof, belt, (back + 0.1, top0 + 0.08, pillar, top1 - 0.02, front - 0.1))
    _car_wheels(pen)


def _car_windows(pen, paint, roof, belt, across):
    """Two side windows with a glare; `across`: x of the rear corner below, above, the pillar, the front above, below."""
    pen.group = "window"
    rear, rear_top, pillar, front_top, front = across
    glass, top = mix(GLASS, (60, 76, 92), pen.between(0, 0.8)), roof + 0.07
    for a, b, c, d in ((rear, rear_top, pillar - 0.03, pillar - 0.03), (pillar + 0.03, pillar + 0.03, front_top, front)):
        pane = polygon((a, belt), (b, top), (c, top), (d, belt))
        pen.flat(pane + outward(pane)*0.02, shade(paint, 0.35))
        pen.flat(pane, glass)
        x0, x1 = b*0.65 + c*0.35, b*0.3 + c*0.7
        glare = polygon((x0, top), (x1, top), (x1 - 0.12, belt), (x0 - 0.12, belt))
        pen.flat(glare.clip((min(a, b), -2), (max(c, d), 2)), shade(glass, 1.35))
    pen.mark("window", (pillar + front_top)/2, (roof + belt)/2)


def _car_wheels(pen):
    pen.group = "wheel"
    spokes, r, y = int(pen.between(4, 8)), pen.between(0.2, 0.24), 0.33
    for x, name in ((-0.58, "rear wheel"), (0.58, "front wheel")):
        pen.flat(arc(x, y, r + 0.05, r + 0.06, 180, 360), (30, 28, 30))
        pen.solid(ellipse(x, y, r), (52, 50, 54), outline=0.012)
        pen.solid(ellipse(x, y, r*0.62), STEEL, outline=0.012, bulge=0.7)
        for k in range(spokes):
            pen.line(turned(polygon((0, -r*0.15), (0, -r*0.54)), k*360/spokes, x, y), r*0.16, shade(STEEL, 0.5))
        pen.flat(ellipse(x, y, r*0.14), shade(STEEL, 0.6))
        pen.mark(name, x, y)


def bicycle(pen):
    pen.base = paint = pen.any_colour()
    r, tube, y = pen.between(0.38, 0.44), pen.between(0.055, 0.075), 0.36
    rubber, metal = pen.colour(((44, 42, 46), (70, 56, 48))), shade(STEEL, pen.between(0.7, 1.1))
    rear, front, crank = (-0.57, y), (0.57, y), (-0.06, y + 0.03)
    seat, neck = (-0.2, -0.28), (0.36, -0.3 + pen.between(-0.03, 0.03))
    pen.group = "wheel"
    for (x, _), name in ((rear, "rear wheel"), (front, "front wheel")):
        for k in range(7):
            reach = turned(polygon((-r, 0), (r, 0)), k*180/7, x, y)
            pen.line(reach, 0.014, metal)
        pen.line(ellipse(x, y, r*0.92), 0.03, metal)
        pen.line(ellipse(x, y, r), 0.075, rubber)
        pen.line(arc(x, y, r + 0.012, r + 0.012, 190, 350, 18), 0.014, shade(rubber, 1.6))
        pen.flat(ellipse(x, y, 0.045), shade(metal, 0.7))
        pen.mark(name, x, y)
    if pen.chance(0.4):                                                  # mudguards
        for x, _ in (rear, front):
            pen.line(arc(x, y, r + 0.07, r + 0.07, 195, 320, 14), 0.03, shade(paint, 0.9))
    pen.group = ""
    tubes = [polygon(*ends) for ends in ((rear, crank), (rear, seat), (seat, crank), (crank, neck), (seat, neck),
                                         ((0.34, -0.42), front))]
    for line in tubes:
        pen.line(line, tube + 0.03, shade(paint, 0.42))
    for line in tubes:
        pen.line(line, tube, paint)
        pen.line(line - (0.006, tube*0.22), tube*0.28, shade(paint, 1.45))
    pen.group = "saddle"
    pen.line(np.array([seat, (-0.24, -0.44)]), 0.045, metal)
    seat_top = smooth((-0.44, -0.5), (-0.3, -0.52), (-0.06, -0.49), (-0.04, -0.45), (-0.24, -0.42), (-0.4, -0.4))
    pen.solid(seat_top, rubber)
    pen.mark("saddle", -0.25, -0.47)
    pen.group = "handlebar"
    bar = pen.pick((((0.26, -0.5), (0.36, -0.47), (0.52, -0.5), (0.56, -0.38), (0.44, -0.32)),
                    ((0.14, -0.54), (0.26, -0.58), (0.38, -0.5), (0.34, -0.4)),
                    ((0.22, -0.47), (0.34, -0.46), (0.48, -0.5))))
    pen.line(curve(*bar), 0.06, rubber)
    pen.line(curve(*bar), 0.025, metal)
    pen.mark("handlebar", 0.35, -0.46)
    pen.group = "crank"
    pen.line(ellipse(*crank, 0.1), 0.035, metal)
    pen.flat(ellipse(*crank, 0.04), rubber)
    angle = pen.between(0, 180)
    for half in (0, 180):
        arm = turned(polygon((0, 0), (0.17, 0)), angle + half, *crank)
        pen.line(arm, 0.03, shade(metal, 0.6))
        pen.flat(box(-0.065, -0.022, 0.065, 0.022) + arm[1], rubber)
    pen.mark("crank", *crank)


def house(pen):
    pen.base = wall = pen.any_colour()
    tiles, wood = pen.any_colour(), pen.any_colour()
    wide, eaves = pen.between(0.62, 0.8), pen.between(-0.22, -0.05)
    ridge = pen.pick((0, 0, 0.3, 0.45))                                  # half length of the ridge; 0 is a gable
    top = pen.between(-0.95, -0.75)
    x = pen.pick((-0.38, 0.38))
    pen.group = "chimney"
    pen.solid(box(x - 0.09, top - 0.06, x + 0.09, eaves - 0.1), shade(mix(wall, tiles, 0.5), 0.8))
    pen.flat(box(x - 0.12, top - 0.1, x + 0.12, top - 0.02), shade(tiles, 0.55))
    pen.mark("chimney", x, top + 0.04)
    pen.group = ""
    pen.solid(box(-wide, eaves, wide, 0.86), wall, bulge=0.4)
    for row in range(5):                                                 # some bricks or boards
        for _ in range(2):
            x0 = pen.between(-wide + 0.03, wide - 0.2)
            pen.flat(box(x0, eaves + 0.1 + row*0.18, x0 + 0.13, eaves + 0.135 + row*0.18), shade(wall, 0.8))
    pen.flat(box(-wide, 0.78, wide, 0.86), shade(wall, 0.55))
    pen.flat(box(-wide, eaves, wide, eaves + 0.06), shade(wall, 0.6))    # shadow of the eaves
    pen.group = "roof"
    roof = polygon((-wide - 0.14, eaves), (-ridge, top), (ridge + 1e-3, top), (wide + 0.14, eaves))
    pen.plain(roof, tiles, outline=0.03)
    for k in range(1, 5):                                                # courses of tiles
        level, reach = top + (eaves - top)*k/5, ridge + (wide + 0.14 - ridge)*k/5
        pen.flat(box(-reach + 0.01, level, reach - 0.01, level + 0.028), shade(tiles, 0.72))
    pen.flat(box(-wide - 0.14, eaves - 0.04, wide + 0.14, eaves + 0.02), shade(tiles, 0.6))
    pen.mark("roof", 0, (top*1.2 + eaves*0.8)/2)
    if not ridge:
        pen.solid(ellipse(0, (top + eaves*2)/3, 0.1), mix(GLASS, INK, 0.3), outline=0.035)
    pen.group = "door"
    at = pen.pick((-0.36, 0.0, 0.0, 0.36))*wide/0.7
    lintel = arc(at, 0.36, 0.15, pen.pick((0.01, 0.13)), 180, 360)
    pen.solid(np.concatenate([lintel, [(at + 0.15, 0.86), (at - 0.15, 0.86)]]), wood, outline=0.035, bulge=0.6)
    pen.flat(ellipse(at + 0.09, 0.62, 0.025), (230, 200, 110))
    pen.mark("door", at, 0.6)
    _house_windows(pen, at, wide, wood)


def _house_windows(pen, door, wide, wood):
    """A window wherever the door leaves room, with its cross and perhaps with shutters."""
    glass, shutters = mix(GLASS, pen.pick(((250, 226, 150), (60, 70, 90))), pen.between(0.1, 0.7)), pen.chance(0.4)
    pen.group = "window"
    columns = [x for x in (-0.42*wide/0.7, 0.0, 0.42*wide/0.7) if abs(x - door) > 0.3]
    for number, x in enumerate(columns):
        y = 0.3
        if shutters:
            for side, _ in SIDES:
                pen.flat(box(x + side*0.17 - 0.045, y - 0.16, x + side*0.17 + 0.045, y + 0.16), shade(wood, 0.8))
        pen.flat(box(x - 0.145, y - 0.165, x + 0.145, y + 0.165), CHALK)
        pen.flat(box(x - 0.115, y - 0.135, x + 0.115, y + 0.135), shade(glass, 0.75))
        pen.flat(polygon((x - 0.115, y - 0.135), (x + 0.115, y - 0.135), (x - 0.115, y + 0.135)), shade(glass, 1.1))
        pen.flat(box(x - 0.014, y - 0.14, x + 0.014, y + 0.14), CHALK)
        pen.flat(box(x - 0.12, y - 0.014, x + 0.12, y + 0.014), CHALK)
        pen.flat(box(x - 0.17, y + 0.15, x + 0.17, y + 0.195), shade(CHALK, 0.7))
        pen.mark("left window" if number == 0 else "right window", x, y)


def flower(pen):
    pen.base = petal = pen.any_colour()
    green = mix(pen.colour(((92, 134, 66), (116, 130, 76), (76, 116, 82))), pen.any_colour(), 0.15)
    bend, x, y = pen.between(-0.16, 0.16), 0.0, -0.36
    pen.line(curve((x, y), (bend, 0.35), (bend*0.4, 1.0)), 0.115, shade(green, 0.42))
    pen.line(curve((x, y), (bend, 0.35), (bend*0.4, 1.0)), 0.07, green)
    pen.mark("stem", bend*0.95, 0.45)
    pen.group = "leaf"
    for side, name in SIDES:
        size, lift, root = pen.between(0.42, 0.6), pen.between(-0.3, 0.05), pen.between(0.6, 0.8)
        tip = (bend*0.7 + side*size, root + lift)
        leaf = smooth((bend*0.7, root), (bend*0.7 + side*size*0.35, root + lift*0.9 - 0.1), tip,
                      (bend*0.7 + side*size*0.55, root + lift*0.5 + 0.12))
        pen.solid(leaf, green, bulge=0.8)
        pen.line(curve((bend*0.7, root), (bend*0.7 + side*size*0.5, root + lift*0.65), tip), (0.025, 0.005),
                 shade(green, 1.4))
        pen.mark(f"{name} leaf", bend*0.7 + side*size*0.5, root + lift*0.6)
    count, heart = int(pen.between(5, 12)), pen.between(0.15, 0.24)
    long, broad = pen.between(0.52, 0.64), pen.between(0.75, 1.05)*1.9/count
    start, waist = pen.between(0, 360), pen.between(0.3, 0.6)
    shape = smooth((0, 0.05), (broad*waist, -long*0.4), (broad*0.62, -long*0.75), (0, -long*pen.between(0.92, 1.0)),
                   (-broad*0.62, -long*0.75), (-broad*waist, -long*0.4))
    pen.group = "petal"
    for ring in range(2 if pen.chance(0.4) else 1):
        for k in range(count):
            angle = start + (k + ring/2)*360/count + pen.between(-4, 4)
            pen.solid(turned(shape*(1 - 0.3*ring), angle, x, y), shade(petal, 0.92 + 0.2*ring), bulge=0.8, outline=0.02)
            crease = turned(polygon((0, -heart), (0, -long*(0.7 - 0.25*ring))), angle, x, y)
            pen.line(crease, (0.03, 0.006), shade(petal, 0.62))
    pen.group = "heart"
    middle = pen.colour(((222, 176, 60), (120, 78, 44), (226, 210, 140), (90, 70, 60)))
    pen.solid(ellipse(x, y, heart), middle)
    pen.ticks(x, y - 0.02, heart*0.8, heart*0.8, 14, 0.05, shade(middle, 0.6))
    pen.mark("heart", x, y)


def keyboard(pen):
    pen.base = case = pen.any_colour()
    cap = mix(case, pen.pick((CHALK, CHALK, INK)), pen.between(0.45, 0.8))
    accent = pen.colour(PAINTS) if pen.chance(0.5) else shade(cap, 0.8)
    columns, rows, deep = int(pen.between(9, 13)), pen.pick((3, 4, 4)), pen.between(0.36, 0.46)
    pen.flat(rounded(-1.02, -deep - 0.02, 1.02, deep + 0.1, 0.07), shade(case, 0.4))   # the front edge, seen from above
    pen.solid(rounded(-1.0, -deep, 1.0, deep, 0.06), case, outline=0, bulge=0.35)
    pen.flat(rounded(-0.95, -deep + 0.05, 0.95, deep - 0.05, 0.03), shade(case, 0.5))
    high, gap = (2*deep - 0.12)/(rows + 1), 0.022
    keys = []                                                            # (x0, y0, x1, y1, colour)
    for row in range(rows):
        y = -deep + 0.06 + row*high
        cuts = np.linspace(-0.94, 0.94, columns + 1)
        cuts[1:-1] += (0, 0.05, 0.08, 0.11)[row]*(columns < 12 or 0.6)   # keyboards stagger their rows
        keys += [(a, y, b, y + high, cap) for a, b in zip(cuts, cuts[1:])]
    keys[0] = (*keys[0][:4], accent)
    keys[2*columns - 1] = (*keys[2*columns - 1][:4], accent)
    y, cuts = -deep + 0.06 + rows*high, (-0.94, -0.74, -0.52, -0.34, 0.36, 0.56, 0.75, 0.94)
    keys += [(a, y, b, y + high, cap) for a, b in zip(cuts, cuts[1:])]
    pen.group = "key"
    for x0, y0, x1, y1, colour in keys:
        pen.flat(box(x0 + gap/2, y0 + gap/2, x1 - gap/2, y1 - gap/2), shade(colour, 0.62))
        pen.flat(box(x0 + gap/2 + 0.018, y0 + gap/2 + 0.008, x1 - gap/2 - 0.018, y1 - gap/2 - 0.038), colour)
    pen.mark("escape key", (keys[0][0] + keys[0][2])/2, (keys[0][1] + keys[0][3])/2)
    enter = keys[2*columns - 1]
    pen.mark("enter key", (enter[0] + enter[2])/2, (enter[1] + enter[3])/2)
    pen.mark("space bar", 0.01, y + high/2)


def clock(pen):
    pen.base = rim = pen.any_colour()
    dial = mix(pen.any_colour(), pen.pick((CHALK, CHALK, CHALK, INK)), pen.between(0.6, 0.9))
    ink = INK if sum(dial) > 380 else CHALK
    kind, thick = pen.pick(("wall", "alarm", "square")), pen.between(0.1, 0.18)
    pen.group = "bell"
    if kind == "alarm":
        for side, _ in SIDES:
            pen.line(polygon((side*0.5, 0.6), (side*0.7, 0.98)), 0.13, shade(rim, 0.42))
            pen.solid(turned(arc(0, 0, 0.3, 0.26, 180, 360), side*35, side*0.55, -0.72), mix(rim, STEEL, 0.5))
        pen.line(curve((-0.1, -0.98), (0, -1.04), (0.1, -0.98)), 0.07, shade(rim, 0.6))
    pen.group = ""
    if kind == "square":
        pen.solid(rounded(-0.85, -0.85, 0.85, 0.85, pen.between(0.08, 0.3)), rim)
    else:
        pen.solid(ellipse(0, 0, 0.85), rim)
    r = 0.85 - thick
    pen.solid(ellipse(0, 0, r), dial, outline=0.025, bulge=0.3)
    pen.group = "dial"
    for hour in range(12):
        long, wide = (0.2, 0.055) if hour % 3 == 0 else (0.11, 0.035)
        pen.line(turned(polygon((0, -r*0.93), (0, -r*(0.93 - long))), hour*30), wide, ink)
    pen.mark("twelve", 0, -r*0.83)
    pen.mark("six", 0, r*0.83)
    pen.group = "hand"
    minutes = pen.between(0, 720)
    for angle, long, wide in ((minutes/2, 0.5, 0.085), (minutes*6, 0.78, 0.055)):
        hand = polygon((-wide/2, 0.14), (wide/2, 0.14), (wide*0.55, -r*long*0.8), (0, -r*long), (-wide*0.55, -r*long*0.8))
        pen.flat(turned(hand, angle), ink)
    if pen.chance(0.6):
        pen.line(turned(polygon((0, 0.2), (0, -r*0.8)), pen.between(0, 360)), 0.022, (196, 52, 44))
    pen.flat(ellipse(0, 0, 0.06), mix(rim, ink, 0.5))
    pen.mark("centre", 0, 0)


DRAW = {"dog face": dog_face, "cat face": cat_face, "owl": owl, "person": person, "car": car, "bicycle": bicycle,
        "house": house, "flower": flower, "keyboard": keyboard, "clock": clock}


class Drawings(NamedTuple):
    """`name` and `number` of a set, its `classes`, a list of names, and `draw(pen, class name)`, which draws one of a class,
    different every time. Pictures of sets with different numbers have nothing in common."""
    name: str
    number: int
    classes: list
    draw: object


def draw_object(pen, name):
    """Draw one of the class `name` of the ten objects."""
    DRAW[name](pen)


OBJECTS = Drawings("synthetic", 0, list(DRAW), draw_object)
