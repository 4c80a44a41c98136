"""The embedded data sets: drawn objects whose truth is known. None comes as a file.

Picture i of a split is a function of (seed, split, i): a Philox generator with that key draws a `Scene` of polygons in
the unit square, which `render` paints at any size. Of the same draws `truth` says where the object and its named parts are and
which parts something covers; that is what lets occlusion, projections and correspondence be checked.

    scene       class, pose, light, background, what lies around and what stands in front
    truth       where the object and its parts are
    render      scene -> picture
    Synthetic   the data set; SETS names what there is to draw

All classes share one palette, one range of poses and sizes, and the same surroundings, so that neither colour nor
background tells the class. What they look like is in drawings.py (ten objects) and combinations.py.
"""
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from zfcore import check
from zfcore.cpu import BLAS
from zfcore.data.combinations import COMBINATIONS, UNSEEN
from zfcore.data.drawings import OBJECTS, Pen, Sketch, box, curve, ellipse, mix, ribbon, shade, smooth, turned
from zfcore.data.kept import KeptPictures
from zfcore.data.loader import BuiltIn
from zfcore.system import cores

SETS = {"objects": OBJECTS, "combinations": COMBINATIONS, "unseen": UNSEEN}
CLASSES = OBJECTS.classes
SPLITS = ("train", "val")
MOST = 2**56                      # pictures a set and split, at most half of it
VERSION = 2                       # to be raised with every change to what a picture looks like: kept ones are then drawn anew
HELP_AFTER = 48                   # pictures of a set drawn one after the other, after which all are likely to be asked for
LOOKED_AT = 16
MOST_HELPERS = 8
_DRAWING = threading.Lock()         # drawing is Python: two threads at it take twice as long for each, so other processes help
_ASKED = struct.Struct("<2q")       # a picture that a helper is asked for: number of the set, number in it
PATIENCE = 5                      # seconds that a helper may take for a picture, its own start among them
HELPER = """import sys
sys.path[:] = filter(None, sys.path)      # nothing from the folder that one happens to be in
from zfcore.data import synthetic
synthetic.help_drawing()"""
SMALLEST, LARGEST = 16, 4096      # pixels a side; below nothing can be recognised


# ------------------------------------------------------------------------------------------------------ the scene
@dataclass(frozen=True)
class Truth:
    """Truth of a picture: what is where, in pixels (floats; a pixel's left edge is its number).

    label    the class, an index into the set's classes
    box      (x0, y0, x1, y1) of the object, of its covered places too, cut at the picture's edge
    parts    name -> (x, y) of the part's middle. "left" and "right" are the sides on the picture when it stands upright
    visible  name -> False where something in front covers that point or it lies outside the picture"""
    label: int
    box: tuple
    parts: dict
    visible: dict


@dataclass(frozen=True)
class Layer:
    """Polygons (n,2) in the unit square, painted in order, each in one colour."""
    polygons: list
    colours: list


@dataclass(frozen=True)
class Scene:
    """Scene as `render` needs it, in the unit square."""
    behind: Layer
    object: Layer
    front: Layer
    ground: tuple                 # two colours of the background
    horizon: tuple                # (nx, ny, place, softness): where one goes over into the other
    roughness: tuple              # contrast of the 1/f texture on the background, on what is painted
    light: tuple                  # (x, y) towards the lamp
    lamp: tuple                   # (red, green, blue) factors of its colour and strength; fall-off across the picture
    key: tuple                    # of the generator of the texture


def scene(of, seed, split, index, label):
    """The scene of picture `index`, whose object is of class `label` of the `Drawings`."""
    key = _key(of, seed, split, index)
    rng = _generator(key)
    light, _, body, base, front = _foreground(rng, of, label)
    ground = _ground(Pen(rng, light), base)
    behind = _clutter(Pen(rng, light), ground, of, label)
    tilt, warm, strength = rng.uniform(-0.5, 0.5), rng.uniform(-0.08, 0.08), rng.uniform(0.72, 1.12)
    return Scene(behind, body, front, ground,
                 (math.sin(tilt), math.cos(tilt), rng.uniform(0.3, 0.8), rng.uniform(0.01, 0.5)),
                 (rng.uniform(4, 13), rng.uniform(3, 8)), light,
                 (strength*(1 + warm), strength, strength*(1 - warm), rng.uniform(0, 0.45)), key)


def truth(of, seed, split, index, label):
    """The Truth of that picture, in the unit square. What lies behind the object is not drawn for it."""
    _, found, _, _, front = _foreground(_generator(_key(of, seed, split, index)), of, label)
    places = np.array(list(found.parts.values()))
    seen = ((places > 0) & (places < 1)).all(axis=1) & ~covered(front, places)
    return replace(found, visible=dict(zip(found.parts, seen.tolist())))


def _key(of, seed, split, index):
    return seed, MOST*of.number + 2*index + SPLITS.index(split)


def _generator(key, stream=0):
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 0, stream]))


def _foreground(rng, of, label):
    """Draw what comes first: (the direction towards the lamp, truth without visibility, the object's Layer, its colour, the
    Layer in front of it)."""
    angle = rng.uniform(-2.6, -0.54)                                     # the lamp is above: y is negative
    light = (math.cos(angle), math.sin(angle))
    truth, body, base = _place(rng, light, of, label)
    return light, truth, body, base, _occluders(Pen(rng, light), truth.box)


def _pose(rng, widest):
    """(2,2) matrix of a rotation up to `widest` radians, a mirror half of the time and a stretch; (2,) perspective."""
    turn, stretch, mirror = rng.uniform(-widest, widest), rng.uniform(0.86, 1.16), rng.random() < 0.5
    c, s = math.cos(turn), math.sin(turn)
    matrix = np.array([(c, -s), (s, c)])*((-1 if mirror else 1)*stretch, 1/stretch)
    return matrix, rng.uniform(-0.16, 0.16, 2), mirror


def _project(points, matrix, perspective):
    return points @ matrix.T/(1 + points @ perspective)[:, None]


def _place(rng, light, of, label):
    """Draw the object in a pose of its own, at a size and a place: (truth without visibility, its Layer, its colour).

    Its longer side is 0.68 to 0.98 of the picture whatever the class, and up to 3 % of it may lie outside."""
    matrix, perspective, mirror = _pose(rng, 0.22)
    towards = np.linalg.solve(matrix, light)
    pen = Pen(rng, towards/np.hypot(*towards))
    of.draw(pen, of.classes[label])
    names, marks = list(pen.parts), np.array(list(pen.parts.values()))
    points = _project(np.concatenate([*pen.polygons, marks]), matrix, perspective)
    low, high = _bounds(points)
    longer = rng.uniform(0.68, 0.98)
    scale = longer/(high - low).max()
    size = (high - low)*scale
    corner = rng.uniform(-0.03*size, 1 - 0.97*size)
    points = (points - low)*scale + corner
    if mirror:
        swap = {"left": "right", "right": "left"}
        names = [" ".join(swap.get(word, word) for word in name.split()) for name in names]
    x0, y0, x1, y1 = (*corner.clip(0, 1), *(corner + size).clip(0, 1))
    parts = {name: (float(x), float(y)) for name, (x, y) in zip(names, points[len(points) - len(marks):])}
    truth = Truth(label, (float(x0), float(y0), float(x1), float(y1)), parts, {})
    return truth, Layer(_cut(points, pen.polygons), pen.colours), pen.base


def _cut(points, polygons):
    """`points`, one array of the points of all `polygons` (and perhaps more), cut into as many polygons again."""
    ends = list(accumulate(map(len, polygons)))
    return [points[start:end] for start, end in zip([0, *ends], ends)]


def _bounds(points):
    """The lowest and the highest (2,) of points (n,2): a column after the other, as along short rows NumPy is slow."""
    x, y = points.T
    return np.array((x.min(), y.min())), np.array((x.max(), y.max()))


def _ground(pen, base):
    """Two background colours, the first kept apart in brightness from the object's own colour `base`."""
    first, second = (mix(pen.any_colour(), (150, 148, 142), 0.3) for _ in range(2))
    apart = sum(first) - sum(base)
    if abs(apart) < 110:
        first = shade(first, 1.5) if apart > 0 and sum(first) < 600 else shade(first, 0.6)
    return first, mix(first, second, pen.between(0.2, 0.9))


def _clutter(pen, ground, of, label):
    """Clutter that lies around: discs, boards and blades in colours near the ground's, and loose parts of other classes."""
    for _ in range(int(pen.between(2, 8))):
        x, y, r = pen.between(0, 1), pen.between(0, 1), pen.between(0.02, 0.14)
        colour = mix(pen.pick(ground), pen.any_colour(), pen.between(0.15, 0.7))
        kind = pen.pick(("disc", "board", "blade"))
        if kind == "disc":
            pen.solid(ellipse(x, y, r, r*pen.between(0.6, 1)), colour, outline=0.004)
        elif kind == "board":
            board = box(-r, -r*0.6, r, r*0.6)*(pen.between(0.6, 2), 1)
            pen.solid(turned(board, pen.between(-40, 40), x, y), colour, outline=0.004)
        else:
            pen.line(curve((x, y), (x + pen.between(-r, r), y - 2*r), (x + pen.between(-2, 2)*r, y - 4*r)),
                     (0.02, 0.001), colour)
    if pen.chance(0.75):
        count = len(of.classes)
        _strew_parts(pen, of, of.classes[(label + 1 + int(pen.between(0, count - 1))) % count])
    return Layer(pen.polygons, pen.colours)


def _strew_parts(pen, of, name):
    """One to three loose parts of an object of class `name`, each at a place, size and angle of its own."""
    other = Sketch(pen.rng, pen.light)
    of.draw(other, name)
    groups = sorted({group for group, *_ in other.told} - {""})
    for _ in range(pen.pick((1, 1, 2, 3))):
        part = other.of_group(pen.pick(groups))
        polygons = part.polygons
        points = _project(np.concatenate(polygons), *_pose(pen.rng, 3.1)[:2])
        low, high = _bounds(points)
        points = (points - (low + high)/2)*pen.between(0.08, 0.2)/(high - low).max() + pen.rng.uniform(0, 1, 2)
        for polygon, colour in zip(_cut(points, polygons), part.colours):
            pen.flat(polygon, colour)


def _occluders(pen, around):
    """Occluders in front of two pictures in five: a twig, a post, a ball or a card over a piece of the object."""
    x0, y0, x1, y1 = around
    size = max(x1 - x0, y1 - y0)
    for _ in range(pen.pick((0, 0, 0, 0, 0, 1, 1, 2))):
        x, y, colour = pen.between(x0, x1), pen.between(y0, y1), pen.any_colour()
        kind, r = pen.pick(("twig", "post", "ball", "card")), size*pen.between(0.06, 0.13)
        if kind == "post":
            lean = pen.between(-0.25, 0.25)
            _post(pen, np.array([(x - lean, -0.05), (x + lean, 1.05)]), r*0.8, colour)
        elif kind == "ball":
            pen.solid(ellipse(x, y, r), colour, outline=0.006, bulge=1.3)
        elif kind == "card":
            card = box(-r*1.3, -r*0.8, r*1.3, r*0.8)
            pen.solid(turned(card, pen.between(-60, 60), x, y), colour, outline=0.006, bulge=0.5)
        else:
            _twig(pen, x, y, r, mix(colour, (92, 122, 60), 0.5))
    return Layer(pen.polygons, pen.colours)


def _post(pen, line, width, colour):
    """Strips along the line, brighter towards the lamp."""
    across = ribbon(line, 1)[0] - line[0]
    towards = across*np.sign(across @ pen.light)
    pen.line(line, width + 0.012, shade(colour, 0.42))
    for share, level in ((1, 0.75), (0.76, 0.9), (0.5, 1.05), (0.22, 1.2)):
        pen.line(line + towards*width*(1 - share)*0.6, width*share, shade(colour, level))


def _twig(pen, x, y, r, colour):
    """A stalk with leaves that hangs in from the nearer side."""
    side = -1 if x < 0.5 else 1
    stalk = curve((x, y), (x + side*r*2, y - r*0.8), (0.5 + side*0.56, y - r*pen.between(0.5, 3)))
    pen.line(stalk, 0.012, shade(colour, 0.5))
    leaf = smooth((0, 0), (r*0.4, -r*0.6), (0, -r*1.4), (-r*0.4, -r*0.6))
    for k, (px, py) in enumerate(stalk[::3]):
        pen.solid(turned(leaf, (60 if k % 2 else 140)*-side + pen.between(-20, 20), px, py), colour, outline=0.004)


def covered(layer, points):
    """(m,) bool: which of `points` (m,2) lie in a polygon of the layer, by the even-odd rule."""
    x, y = points[:, :1], points[:, 1:]
    hit = np.zeros(len(points), bool)
    for p in layer.polygons:
        q = p[np.arange(-1, len(p) - 1)]                                 # the other end of the edge that ends in p
        crosses = (p[:, 1] > y) != (q[:, 1] > y)                         # (m,n): the edge passes the height of the point
        run, rise = (q - p).T
        at = p[:, 0] + (y - p[:, 1])*run/np.where(rise == 0, 1, rise)    # and is there at this x
        hit |= (crosses & (at > x)).sum(axis=1) % 2 == 1
    return hit


# ----------------------------------------------------------------------------------------------------- rendering
_GRAIN = 96                       # side of the 1/f texture, which is periodic
_FALLOFF = np.hypot(np.fft.fftfreq(_GRAIN)[:, None], np.fft.fftfreq(_GRAIN)) + 1/_GRAIN/2
_FALLOFF = (_FALLOFF**-1.25).astype(np.float32)
_FALLOFF[0, 0] = 0


def _texture(key, size):
    """Two independent (size, size) fields of 1/f noise with mean 0 and standard deviation 1, from one complex FFT."""
    white = _generator(key, stream=1).random((2, _GRAIN, _GRAIN), np.float32)
    white -= np.float32(0.5)
    white *= _FALLOFF
    spectrum = np.empty((_GRAIN, _GRAIN), np.complex64)
    spectrum.real, spectrum.imag = white
    field = np.fft.ifft2(spectrum)
    return [np.asarray(Image.fromarray(part/part.std()).resize((size, size), Image.Resampling.BICUBIC))
            for part in (np.ascontiguousarray(field.real), np.ascontiguousarray(field.imag))]


def _paint(layer, corners, fine, width, height):
    """The layer on nothing, with its `corners` (n,2) in a window of width x height pixels, each of them `fine` units long:
    (4,height,width) float32 with the colours times coverage and, last, the coverage 0..255, which is an "L" image too.

    Pillow fills polygons without anti-aliasing, so they are painted several times too large and averaged down. Every
    colour is opaque, so the fourth band averages to the coverage and the other three come out premultiplied by it."""
    canvas = Image.new("RGBX", (width*fine, height*fine))
    draw, start = ImageDraw.Draw(canvas), 0
    corners = np.trunc(corners).astype(np.float32)                       # whole, as Pillow takes them; read faster than a list
    for polygon, (r, g, b) in zip(layer.polygons, layer.colours):
        stop = start + len(polygon)
        draw.polygon(corners[start:stop], fill=(int(r), int(g), int(b), 255))
        start = stop
    small = canvas.reduce(fine)
    return np.asarray(small).transpose(2, 0, 1).astype(np.float32, order="C"), small.getchannel("X")


def _moved(image, dx, dy):
    """The image (h,w) uint8 moved by -dx, -dy pixels, with nothing beyond its edges. Value for value what Pillow's bilinear
    affine transform gives, which finds the place of each pixel anew."""
    values = image
    for by in (dx, dy):
        values = values.T.astype(np.float64, order="C")                  # whole rows move faster than pixels of them
        at = np.arange(len(values)) + 0.5 + by
        outside = (at < 0) | (at >= len(values))
        at -= 0.5
        whole = np.floor(at)
        first, share = whole.astype(np.intp), (at - whole)[:, None]
        step = values.take(first + 1, axis=0, mode="clip")
        values = values.take(first, axis=0, mode="clip")
        step -= values
        step *= share
        values += step
        values[outside] = 0
    return values.astype(np.uint8)                                       # cut off, not rounded


def _lay(picture, layer, light, grain, height):
    """Lay `layer` on `picture` (3,size,size), in place, as a body `height` thick (in sides of the picture): it casts a
    shadow away from the lamp, and its edge is bright towards the lamp and dark behind."""
    if not layer.polygons:
        return
    size, thick = len(grain), height*len(grain)
    points = np.concatenate(layer.polygons)*size
    reach = 3*thick                               # of the shadow 2.5 thick
    (x0, x1), (y0, y1) = (_window(of, reach, size) for of in points.T)
    picture, relief = picture[:, y0:y1, x0:x1], 1 + grain[y0:y1, x0:x1]
    fine = 3 if size <= 320 else 2
    points -= x0, y0
    points *= fine
    bands, solid = _paint(layer, points, fine, x1 - x0, y1 - y0)
    soft = np.asarray(solid.filter(ImageFilter.BoxBlur(thick)))
    shadow = _moved(soft, 1.5*thick*light[0], 1.5*thick*light[1])
    picture *= (1 - shadow*np.float32(0.45/255))*(1 - bands[3]*np.float32(1/255))
    slope = soft*np.float32(thick/255)
    relief[:, 1:-1] += (slope[:, :-2] - slope[:, 2:])*np.float32(light[0]*0.5)
    relief[1:-1] += (slope[:-2] - slope[2:])*np.float32(light[1]*0.5)
    bands[:3] *= relief
    picture += bands[:3]


def _window(places, reach, size):
    """(first, behind the last) of `size` pixels that what lies at `places` touches, and `reach` further."""
    first = min(max(math.floor(places.min() - reach), 0), size - 1)
    return first, min(max(math.ceil(places.max() + reach), first + 1), size)


def render(scene, size, layers=("behind", "object", "front")):
    """The scene as an RGB picture of size x size pixels; `layers` names what is laid on the background."""
    ground, grain = _texture(scene.key, size)
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5))/np.float32(size)
    x, y = place[None, :], place[:, None]
    nx, ny, edge, softness = scene.horizon
    blend = np.clip((x*nx + y*ny - edge + ground*0.04)/softness + 0.5, 0, 1)
    first, second = np.array(scene.ground, np.float32)[..., None, None]
    picture = first + (second - first)*blend + ground*scene.roughness[0]                     # (3,size,size) from here on
    surface = grain*(scene.roughness[1]/100)
    for name, height in zip(("behind", "object", "front"), (0.008, 0.025, 0.02)):
        if name in layers:
            _lay(picture, getattr(scene, name), scene.light, surface, height)
    *lamp, fall = scene.lamp
    picture *= 1 + ((x - 0.5)*scene.light[0] + (y - 0.5)*scene.light[1])*fall
    picture *= np.array(lamp, np.float32)[:, None, None]
    return Image.merge("RGB", [Image.fromarray(band) for band in picture.clip(0, 255, out=picture).astype(np.uint8)])


# --------------------------------------------------------------------------------------------------- the data set
class Synthetic(BuiltIn):
    """`count` pictures of `size` x `size` pixels of the split "train" or "val", of the `Drawings` (default: the ten objects).

    classes, labels (int64 (count,), balanced), names ("synthetic/train/000123"), picture(i), truth(i), fingerprint().
    Picture i depends on (drawings, seed, split, i) alone, not on count, order or thread; another size shows the same scene.
    With `keep` a picture is drawn once and read from the disk from then on (`KeptPictures`), and for whoever has had many drawn
    other processes draw (`Helpers`). Those of the set `before`, of the same size, go on with this one.
    `mean_image` is that of the training set, float32 (3,size,size), where it is known without drawing; else None.
    Raises `Expected` for a split, count, size, seed or picture number that there cannot be."""

    def __init__(self, split, count, size, seed=0, drawings=OBJECTS, keep=False, mean_image=None, before=None):
        check.one_of("synthetic set: split", split, SPLITS)
        count = check.whole("synthetic set: number of pictures", count, 1, MOST//2)
        self.split, self.size = split, check.whole("synthetic set: picture size", size, SMALLEST, LARGEST)
        self.seed = check.seed("synthetic set: seed", seed)
        self.drawings, self.classes = drawings, drawings.classes
        self.labels = np.arange(count, dtype=np.int64) % len(self.classes)
        self.names = [f"{drawings.name}/{split}/{i:06d}" for i in range(count)]
        name = f"drawn-{drawings.name}-{split}-{self.size}"
        self._kept = KeptPictures(name, self._facts(), 3*self.size*self.size) if keep else None
        self.mean_image = mean_image
        self._drawn = 0                           # pictures that were not found kept
        self._helpers = before._helpers if before else Helpers(3*self.size*self.size)
        self._number = len(self._helpers.sets)    # among the sets that they draw
        self._helpers.sets.append([drawings.name, split, len(self), self.size, self.seed])

    def _facts(self):
        """Facts that every picture depends on beside its number."""
        return [self.drawings.name, self.drawings.classes, VERSION, self.split, self.size, self.seed, PIL.__version__,
                np.__version__]

    @property
    def kept_in(self):
        """The file in which drawn pictures are kept, None where none are."""
        return self._kept and self._kept.path

    def is_kept(self, i):
        """Return whether a whole record of picture i is there."""
        return self._kept.read(i) is not None

    def fingerprint(self):
        """A str that changes when a picture may have changed."""
        return hashlib.sha256(json.dumps([*self._facts(), len(self)]).encode()).hexdigest()

    def __reduce__(self):                         # a copy, or another process's, calls helpers of its own
        return Synthetic, (self.split, len(self), self.size, self.seed, self.drawings, self._kept is not None, self.mean_image)

    def __len__(self):
        return len(self.labels)

    def scene(self, i):
        """The scene of picture i, in the unit square."""
        return scene(*self._which(i))

    def _which(self, i):
        """Arguments of the functions `scene` and `truth`."""
        i = check.whole(f"{self.drawings.name}/{self.split}: picture", i, 0, len(self) - 1)
        return self.drawings, self.seed, self.split, i, int(self.labels[i])

    def picture(self, i):
        """Picture i, PIL RGB."""
        if self._kept is None:
            return render(self.scene(i), self.size)
        i = check.whole(f"{self.drawings.name}/{self.split}: picture", i, 0, len(self) - 1)
        pixels = self._kept.read(i) or self._helpers.picture(self._number, i)
        if pixels is None:
            with _DRAWING:
                pixels = self.draw(i)
                self._drawn += 1
                if self._drawn == HELP_AFTER and self.kept_in:
                    self._helpers.call(self._number)
        return Image.frombytes("RGB", (self.size, self.size), pixels)

    def expect(self):
        """Call the helpers at once, where all pictures will be asked for and not all of those LOOKED_AT are kept."""
        if self._kept is None or len(self) <= HELP_AFTER:
            return
        if all(map(self.is_kept, range(0, len(self), -(-len(self)//LOOKED_AT)))):
            return
        self.draw(0)                              # which begins the file, and says so, or finds that nothing can be kept
        if self.kept_in:
            self._helpers.call(self._number)

    def draw(self, i):
        """The bytes of picture i, drawn here and kept."""
        with BLAS:                                # whose other threads would wait busily, on the cores of the helpers
            pixels = render(self.scene(i), self.size).tobytes()
        self._kept.write(i, pixels)
        return pixels

    def truth(self, i):
        """The Truth of picture i, in its pixels."""
        unit = truth(*self._which(i))
        return Truth(unit.label, tuple(v*self.size for v in unit.box),
                     {name: (x*self.size, y*self.size) for name, (x, y) in unit.parts.items()}, unit.visible)


# ---------------------------------------------------------------------------------------------------------- helpers
class Helpers:
    """Processes that draw pictures of `sets`, each `length` bytes, one for each core once they are called. What they draw they
    keep: what is asked for, which they also send, and meanwhile the rest.

    They are new interpreters, not forks nor children of `multiprocessing`, so that nothing is asked of the caller's main module;
    they end with the caller or with the last of the sets. The caller's own threads draw no more: each would keep Python's lock
    from a network that is training meanwhile."""

    def __init__(self, length):
        self.sets, self._length = [], length      # of each the drawings' name, split, count, size, seed
        self._there, self._free = 0, SimpleQueue()

    def call(self, first):
        """Start them, unless they are there. They begin with the rest of set number `first` and go on with those behind it."""
        helpers = min(cores(), MOST_HELPERS)
        if helpers == 1 or self._there:
            return
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        # one thread of OpenBLAS: the others would begin by waiting busily
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        for k in range(helpers):
            command = [sys.executable, "-c", HELPER, json.dumps([self.sets, first, k, helpers])]
            try:
                helper = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.DEVNULL, env=environment)
            except OSError:                       # no room for another process: the set is drawn all the same
                break
            sent = SimpleQueue()
            threading.Thread(target=_receive, args=(helper.stdout, self._length, sent), daemon=True).start()
            weakref.finalize(self, _end, helper)
            self._there += 1
            self._free.put((helper, sent))

    def picture(self, number, i):
        """The bytes of picture i of set `number`, drawn by one of them; None where none is there. One that has ended, as after
        its share of the sets, or lets PATIENCE seconds go by is not asked again, and none where for so long none is free."""
        if not self._there:
            return None
        try:
            helper, sent = self._free.get(timeout=PATIENCE)
        except Empty:
            self._there = 0
            return None
        try:
            helper.stdin.write(_ASKED.pack(number, i))
            pixels = sent.get(timeout=PATIENCE)
        except (OSError, Empty):
            pixels = None
        if pixels is None:
            self._there -= 1
        else:
            self._free.put((helper, sent))
        return pixels


def _receive(pipe, length, sent):
    """Put what a helper draws into the queue `sent`, `length` bytes each, and None when it has ended."""
    with pipe:
        while pixels := _all_of(pipe, length):
            sent.put(pixels)
    sent.put(None)


def _all_of(pipe, length):
    """`length` bytes; b"" where the pipe ends before."""
    parts = []
    while length and (part := pipe.read(length)):
        parts.append(part)
        length -= len(part)
    return b"" if length else b"".join(parts)


def _end(helper):
    helper.kill()                                 # what it is writing is then drawn again
    helper.wait()
    helper.stdin.close()


def help_drawing():
    """Work of a helper: draw the pictures that are asked for, and meanwhile every `step`-th that is not kept of the sets from
    number `first` on, backwards, until none is left."""
    facts, first, k, step = json.loads(sys.argv[1])
    drawings = {of.name: of for of in SETS.values()}
    sets = [Synthetic(split, count, size, seed, drawings[name], keep=True) for name, split, count, size, seed in facts]
    asked = SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    for data in sets[first:]:
        for i in range(len(data) - 1 - k, -1, -step):
            while not asked.empty():
                number, wanted = asked.get()
                sys.stdout.buffer.write(sets[number].draw(wanted))
                sys.stdout.buffer.flush()
            if data.kept_in is None:
                return
            if not data.is_kept(i):
                data.draw(i)


def _listen(asked):
    """Put the pictures that are asked for into the queue `asked`, (number of the set, number in it) each; end this process when
    the caller has gone, however that came."""
    while len(row := os.read(0, _ASKED.size)) == _ASKED.size:               # sys.stdin could not be closed under this thread
        asked.put(_ASKED.unpack(row))
    os._exit(0)


def contact_sheet(size=96, columns=10, seed=0, drawings=OBJECTS, rows=24):
    """Pictures of `size` pixels, a class a row with its name at the left, `columns` examples each; PIL RGB. Of more classes
    than `rows` that many, as evenly spread as can be."""
    columns, rows = (check.whole(f"contact sheet: {what}", value, 1, 1000) for what, value in (("columns", columns), ("rows", rows)))
    classes = drawings.classes
    data = Synthetic("train", columns*len(classes), size, seed, drawings)
    shown = np.unique(np.linspace(0, len(classes) - 1, min(rows, len(classes))).round().astype(int)).tolist()
    gap, font = max(2, size//32), ImageFont.load_default(size=max(10, size//6))
    margin = int(max(font.getlength(classes[label]) for label in shown)) + 4*gap
    sheet = Image.new("RGB", (margin + columns*(size + gap) + gap, len(shown)*(size + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(shown):
        for column in range(columns):
            place = margin + column*(size + gap), gap + row*(size + gap)
            sheet.paste(data.picture(label + column*len(classes)), place)
        draw.text((margin - 2*gap, gap + row*(size + gap) + size//2), classes[label], (60, 60, 60), font, anchor="rm")
    return sheet
