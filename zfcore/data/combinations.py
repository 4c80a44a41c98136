"""Objects put together from parts that many classes share: what a class is, only the combination of its parts tells.

A family has four places and a few parts for each; a class is one part for each place, "round head, pricked ears, slit eyes,
beak". In colours, pose and whatever is no part the classes of a family agree.

Count the parts of a place from 0. Where those of the first three places add up to 0 or 1, divided by three, the combination
is a class of `COMBINATIONS`. So every class has for each of its parts a neighbour that differs in that part alone, and the
parts of a place stand in equally many classes. Where the rest is 2 the combination is not among them; ten of these a
family are the classes of `UNSEEN`.

    FAMILIES                  name -> Family: its places, and the function that draws one with a pen
    COMBINATIONS, UNSEEN      Drawings; PARTS_OF says for each class of which parts it is
"""
from itertools import product
from typing import NamedTuple

import numpy as np

from zfcore.data.drawings import (CHALK, INK, SIDES, Drawings, arc, box, curve, ellipse, mix, polygon, rounded, shade,
                                  smooth, symmetric, turned)

UNSEEN_OF_A_FAMILY = 10


class Paint(NamedTuple):
    """The colours of one object, chosen before its parts are looked at."""
    main: tuple
    second: tuple
    third: tuple
    pale: tuple                   # of eyeballs, panes, hubs
    dark: tuple                   # of pupils, tyres, seeds


def _paint(pen):
    pen.base, second, third = pen.any_colour(), pen.any_colour(), pen.any_colour()
    return Paint(pen.base, second, third, mix(CHALK, third, pen.between(0.05, 0.35)), mix(INK, second, pen.between(0, 0.2)))


# ------------------------------------------------------------------------------------------------------ creatures
def creature(pen, paint, head, ears, eyes, muzzle):
    """A face. A head is (half width, half height, width of the chin to that of the head); the others are functions below."""
    wide, high, chin = head
    wide, high = wide*pen.between(0.95, 1.05), high*pen.between(0.95, 1.05)
    turn = pen.between(-0.07, 0.07)
    face = symmetric((0, -high), (wide*0.62, -high*0.86), (wide, -high*0.22), (wide*chin, high*0.55),
                     (wide*chin*0.5, high*0.93), (0, high))
    pen.group = "ear"
    ears(pen, paint, wide, high)
    pen.group = ""
    pen.solid(pen.furry(face, 0.02), paint.main)
    pen.ticks(0, -high*0.5, wide*0.4, high*0.3, 3, 0.12, shade(paint.main, 0.8))
    pen.group = "muzzle"
    muzzle(pen, paint, turn*1.3, high*0.42)
    pen.group = "eye"
    apart = 0.14 + 0.32*wide
    for side, name in SIDES:
        x, y = side*apart + turn, -high*0.18
        eyes(pen, paint, x, y, side)
        pen.mark(f"{name} eye", x, y)


def pricked_ears(pen, paint, wide, high):
    lean = pen.between(0.62, 0.85)
    for side, name in SIDES:
        ear = polygon((side*wide*0.12, -high*0.7), (side*wide*lean, -high - 0.42), (side*wide*1.0, -high*0.2))
        pen.solid(ear, paint.second, bulge=0.7)
        middle = ear.sum(axis=0)/3
        pen.flat(middle + (ear - middle)*0.5, shade(paint.second, 0.6))
        pen.mark(f"{name} ear", *middle)


def hanging_ears(pen, paint, wide, high):
    long = pen.between(0.25, 0.5)
    for side, name in SIDES:
        ear = smooth((side*wide*0.4, -high*0.85), (side*wide*0.95, -high*0.8), (side*(wide + 0.3), -high*0.1),
                     (side*(wide + 0.26), long), (side*(wide + 0.04), long + 0.08), (side*wide*0.9, -high*0.1))
        pen.solid(ear, paint.second, bulge=0.8)
        pen.mark(f"{name} ear", side*(wide + 0.14), 0.1)


def round_ears(pen, paint, wide, high):
    r = pen.between(0.26, 0.32)
    for side, name in SIDES:
        x, y = side*wide*0.72, -high*0.78
        pen.solid(ellipse(x, y, r), paint.second)
        pen.flat(ellipse(x, y, r*0.55), shade(paint.second, 0.6))
        pen.mark(f"{name} ear", x + side*r*0.4, y - r*0.5)


def round_eyes(pen, paint, x, y, side):
    r = pen.between(0.18, 0.21)
    pen.plain(ellipse(x, y, r), paint.pale)
    pen.flat(ellipse(x, y, r*0.5), INK)
    pen.flat(ellipse(x + pen.light[0]*r*0.3, y + pen.light[1]*r*0.3, r*0.18), CHALK)


def slit_eyes(pen, paint, x, y, side):
    r = pen.between(0.23, 0.26)
    almond = turned(smooth((-r, 0), (0, -r*0.62), (r, 0), (0, r*0.62)), -22*side, x, y)
    pen.plain(almond, paint.pale)
    pen.flat(ellipse(x, y, r*0.2, r*0.55), INK)


def lidded_eyes(pen, paint, x, y, side):
    r = pen.between(0.19, 0.22)
    lid = shade(paint.main, 0.5)
    pen.plain(ellipse(x, y, r), lid)
    pen.flat(arc(x, y, r, r, 0, 180), paint.pale)
    pen.flat(arc(x, y - 0.01, r*0.6, r*0.62, 0, 180), INK)
    pen.line(polygon((x - r*1.25, y), (x + r*1.25, y)), 0.05, INK)


def beak(pen, paint, x, y):
    long = pen.between(0.36, 0.44)
    pen.solid(smooth((x - 0.2, y - 0.18), (x, y - 0.26), (x + 0.2, y - 0.18), (x + 0.05, y + long - 0.18),
                     (x - 0.05, y + long - 0.18)), paint.third)
    pen.line(curve((x - 0.16, y - 0.06), (x, y + 0.02), (x + 0.16, y - 0.06)), 0.035, shade(paint.third, 0.42))
    pen.mark("nose", x, y)


def snout(pen, paint, x, y):
    wide = pen.between(0.27, 0.32)
    pen.solid(ellipse(x, y, wide, 0.2), paint.third)
    for side, _ in SIDES:
        pen.flat(ellipse(x + side*wide*0.42, y, 0.055, 0.085), shade(paint.third, 0.3))
    pen.mark("nose", x, y)


def whiskers(pen, paint, x, y):
    thread = shade(paint.third, 0.45)
    for side, _ in SIDES:
        for drop in (-0.12, 0.02, 0.16):
            pen.line(polygon((x + side*0.1, y + 0.02), (x + side*pen.between(0.44, 0.52), y + drop)), (0.045, 0.015), thread)
        pen.line(curve((x, y), (x + side*0.06, y + 0.16), (x + side*0.17, y + 0.14)), 0.035, INK)
    pen.plain(smooth((x - 0.12, y - 0.1), (x + 0.12, y - 0.1), (x, y + 0.06)), paint.third)
    pen.mark("nose", x, y - 0.04)


# ------------------------------------------------------------------------------------------------------- vehicles
def vehicle(pen, paint, body, wheels, windows, top):
    """Draw a vehicle from the side. A body is (outline, (x0, y0, x1, y1) of the panes, x of the top); the others are functions
    below."""
    outline, panes, at = body
    low = pen.between(0.3, 0.36)
    hull = smooth(*outline) if len(outline) > 12 else polygon(*outline)
    hull[:, 1] = np.where(hull[:, 1] > 0.2, low, hull[:, 1])
    pen.group = "top"
    top(pen, paint, at, panes[1] - 0.12)
    pen.group = ""
    pen.plain(hull, paint.main)
    pen.flat(np.maximum(hull, (-2, 0.14)), shade(paint.main, 0.72))
    pen.flat(np.minimum(hull, (2, panes[1])), shade(paint.main, 1.2))
    pen.flat(box(-0.9, 0.06, 0.9, 0.11), shade(paint.main, 1.45))
    pen.solid(ellipse(0.9, 0.1, 0.07), paint.pale, outline=0.02)
    pen.mark("headlight", 0.9, 0.1)
    pen.group = "window"
    windows(pen, paint, *panes)
    pen.mark("window", (panes[0] + panes[2])/2, (panes[1] + panes[3])/2)
    pen.group = "wheel"
    wheels(pen, paint, low)
    pen.mark("rear wheel", -0.56, low + 0.06)
    pen.mark("front wheel", 0.56, low + 0.06)


CAR = (((-0.98, 0.3), (-0.96, -0.06), (-0.72, -0.12), (-0.5, -0.52), (0.3, -0.52), (0.56, -0.1), (0.94, -0.02), (1.0, 0.3)),
       (-0.52, -0.42, 0.34, -0.1), -0.1)
BUS = (((-0.98, 0.3), (-0.98, -0.56), (-0.9, -0.62), (0.84, -0.62), (0.94, -0.52), (1.0, 0.0), (1.0, 0.3)),
       (-0.84, -0.5, 0.8, -0.12), 0.1)
ENGINE = (((-0.98, 0.3), (-0.98, -0.5), (-1.04, -0.62), (-0.06, -0.62), (-0.12, -0.5), (-0.12, -0.2), (0.86, -0.2),
           (0.98, -0.1), (1.0, 0.3)), (-0.88, -0.5, -0.2, -0.1), -0.56)


def disc_wheels(pen, paint, y):
    r = pen.between(0.26, 0.3)
    for x in (-0.56, 0.56):
        pen.flat(ellipse(x, y + 0.06, r), INK)
        pen.solid(ellipse(x, y + 0.06, r*0.72), paint.second, outline=0)
        pen.flat(ellipse(x, y + 0.06, r*0.2), paint.dark)


def spoked_wheels(pen, paint, y):
    r = pen.between(0.28, 0.32)
    start = pen.between(0, 45)
    for x in (-0.56, 0.56):
        pen.flat(ellipse(x, y + 0.06, r), INK)
        pen.flat(ellipse(x, y + 0.06, r*0.78), paint.pale)
        for k in range(4):
            pen.line(turned(polygon((0, -r*0.8), (0, r*0.8)), start + k*45, x, y + 0.06), 0.05, shade(paint.second, 0.5))
        pen.flat(ellipse(x, y + 0.06, r*0.2), INK)


def tracks(pen, paint, y):
    r = pen.between(0.2, 0.23)
    pen.flat(rounded(-0.6 - r, y + 0.06 - r, 0.6 + r, y + 0.06 + r, r - 0.01), INK)
    pen.flat(rounded(-0.62 - r*0.5, y + 0.06 - r*0.62, 0.62 + r*0.5, y + 0.06 + r*0.62, r*0.6), shade(paint.second, 0.55))
    for x in (-0.56, -0.19, 0.19, 0.56):
        pen.plain(ellipse(x, y + 0.06, r*0.56), paint.second)


def round_windows(pen, paint, x0, y0, x1, y1):
    r = min((y1 - y0)/2, (x1 - x0)/4 - 0.02)
    for x in (x0*0.75 + x1*0.25, x0*0.25 + x1*0.75):
        pen.flat(ellipse(x, (y0 + y1)/2, r), shade(paint.third, 0.45))
        pen.flat(ellipse(x, (y0 + y1)/2, r*0.74), paint.pale)


def barred_windows(pen, paint, x0, y0, x1, y1):
    pen.flat(box(x0, y0, x1, y1), shade(paint.third, 0.45))
    wide = (x1 - x0)/4
    for k in range(4):
        pen.flat(box(x0 + k*wide + 0.03, y0 + 0.04, x0 + (k + 1)*wide - 0.03, y1 - 0.04), paint.pale)


def slanted_window(pen, paint, x0, y0, x1, y1):
    pane = polygon((x0 + 0.14, y0), (x1 - 0.02, y0), (x1 - 0.16, y1), (x0, y1))
    pen.plain(pane, paint.pale, outline=0.03)
    x = (x0 + x1)/2
    pen.flat(polygon((x + 0.02, y0), (x + 0.16, y0), (x, y1), (x - 0.14, y1)), shade(paint.pale, 0.78))


def funnel(pen, paint, x, y):
    high = pen.between(0.36, 0.46)
    pen.solid(polygon((x - 0.13, y + 0.14), (x - 0.13, y - high), (x + 0.13, y - high), (x + 0.13, y + 0.14)), paint.third)
    pen.plain(box(x - 0.19, y - high - 0.1, x + 0.19, y - high + 0.02), shade(paint.third, 0.7))
    pen.mark("top", x, y - high*0.5)


def flag(pen, paint, x, y):
    high = pen.between(0.42, 0.5)
    pen.line(polygon((x, y + 0.14), (x, y - high)), 0.06, INK)
    cloth = smooth((x, y - high), (x - 0.2, y - high + 0.05), (x - 0.42, y - high - 0.03), (x - 0.42, y - high + 0.22),
                   (x - 0.2, y - high + 0.3), (x, y - high + 0.25))
    pen.solid(cloth, paint.third)
    pen.mark("top", x - 0.2, y - high + 0.14)


# --------------------------------------------------------------------------------------------------------- plants
def plant(pen, paint, leaves, petals, heart, foot):
    """A flower on its stem; all four are functions below."""
    bend, x, y = pen.between(-0.12, 0.12), 0.0, -0.32
    stem = curve((x, y), (bend, 0.25), (bend*0.4, 0.85))
    pen.group = "foot"
    foot(pen, paint, bend*0.4, 0.68)
    pen.group = ""
    pen.line(stem, 0.12, shade(paint.second, 0.42))
    pen.line(stem, 0.075, paint.second)
    pen.group = "leaf"
    for side, name in SIDES:
        root, lift = (bend*0.8, pen.between(0.46, 0.56)), pen.between(-0.16, 0.02)
        leaves(pen, paint, *root, side, lift)
        pen.mark(f"{name} leaf", root[0] + side*0.34, root[1] + lift*0.6)
    pen.group = "petal"
    petals(pen, paint, x, y, pen.between(0, 360))
    pen.group = "heart"
    heart(pen, paint, x, y, pen.between(0.3, 0.34))
    pen.mark("heart", x, y)


def long_leaves(pen, paint, x, y, side, lift):
    tip = (x + side*0.78, y + lift)
    pen.solid(smooth((x, y), (x + side*0.3, y + lift*0.6 - 0.09), tip, (x + side*0.4, y + lift*0.6 + 0.09)), paint.second)


def round_leaves(pen, paint, x, y, side, lift):
    pen.line(polygon((x, y), (x + side*0.3, y + lift*0.6)), 0.06, shade(paint.second, 0.6))
    pen.solid(ellipse(x + side*0.4, y + lift*0.6, 0.24, 0.2), paint.second)


def forked_leaves(pen, paint, x, y, side, lift):
    for degrees in (-38, 0, 38):
        leaf = smooth((0, 0.02), (0.22, -0.09), (0.5, 0), (0.22, 0.09))*(side, 1)
        pen.plain(turned(leaf, degrees*side, x + side*0.18, y + lift*0.4), paint.second)
    pen.line(polygon((x, y), (x + side*0.24, y + lift*0.4)), 0.06, shade(paint.second, 0.6))
    pen.flat(ellipse(x + side*0.34, y + lift*0.55, 0.05), paint.second)


def _around(pen, petal, count, start, colour, x, y):
    for k in range(count):
        pen.plain(turned(petal, start + k*360/count, x, y), shade(colour, 0.92 if k % 2 else 1.08), outline=0.03)


def round_petals(pen, paint, x, y, start):
    _around(pen, ellipse(0, -0.45, 0.28, 0.28), int(pen.between(5, 7)), start, paint.main, x, y)


def pointed_petals(pen, paint, x, y, start):
    _around(pen, polygon((-0.26, -0.22), (0, -0.84), (0.26, -0.22)), int(pen.between(6, 8)), start, paint.main, x, y)


def thin_petals(pen, paint, x, y, start):
    petal = polygon((-0.04, -0.22), (-0.08, -0.7), (0, -0.77), (0.08, -0.7), (0.04, -0.22))
    _around(pen, petal, int(pen.between(12, 15)), start, paint.main, x, y)


def plain_heart(pen, paint, x, y, r):
    pen.solid(ellipse(x, y, r), paint.third)


def ringed_heart(pen, paint, x, y, r):
    pen.plain(ellipse(x, y, r), shade(paint.third, 0.5))
    pen.flat(ellipse(x, y, r*0.78), paint.pale)
    pen.flat(ellipse(x, y, r*0.42), shade(paint.third, 0.5))


def dotted_heart(pen, paint, x, y, r):
    pen.plain(ellipse(x, y, r), paint.pale)
    for k in range(6):
        dx, dy = turned(polygon((0, -r*0.6)), k*60)[0]
        pen.flat(ellipse(x + dx, y + dy, r*0.2), paint.dark)
    pen.flat(ellipse(x, y, r*0.2), paint.dark)


def pot(pen, paint, x, y):
    wide = pen.between(0.34, 0.42)
    pen.solid(polygon((x - wide, y), (x + wide, y), (x + wide*0.7, y + 0.38), (x - wide*0.7, y + 0.38)), paint.third)
    pen.plain(box(x - wide - 0.06, y - 0.06, x + wide + 0.06, y + 0.06), shade(paint.third, 0.8))
    pen.mark("foot", x, y + 0.2)


def roots(pen, paint, x, y):
    colour = mix(paint.third, paint.dark, 0.35)
    for reach, drop in ((-0.44, 0.22), (-0.2, 0.38), (0.04, 0.42), (0.24, 0.36), (0.46, 0.2)):
        root = curve((x, y - 0.05), (x + reach*0.5, y + drop*0.35 + pen.between(-0.03, 0.03)), (x + reach, y + drop))
        pen.line(root, (0.15, 0.03), shade(colour, 0.5))
        pen.line(root, (0.09, 0.01), colour)
    pen.mark("foot", x, y + 0.1)


# --------------------------------------------------------------------------------------------------------- classes
class Family(NamedTuple):
    draw: object                  # (pen, paint, one part for each place)
    places: tuple                 # {name of a part: what `draw` takes for it}, three parts in each of the first three places


FAMILIES = {
    "creature": Family(creature, (
        {"round head": (0.72, 0.7, 0.86), "long head": (0.54, 0.88, 0.8), "wedge head": (0.84, 0.68, 0.45)},
        {"pricked ears": pricked_ears, "hanging ears": hanging_ears, "round ears": round_ears},
        {"round eyes": round_eyes, "slit eyes": slit_eyes, "lidded eyes": lidded_eyes},
        {"beak": beak, "snout": snout, "whiskers": whiskers})),
    "vehicle": Family(vehicle, (
        {"car": CAR, "bus": BUS, "engine": ENGINE},
        {"disc wheels": disc_wheels, "spoked wheels": spoked_wheels, "tracks": tracks},
        {"round windows": round_windows, "barred windows": barred_windows, "slanted window": slanted_window},
        {"funnel": funnel, "flag": flag})),
    "plant": Family(plant, (
        {"long leaves": long_leaves, "round leaves": round_leaves, "forked leaves": forked_leaves},
        {"round petals": round_petals, "pointed petals": pointed_petals, "thin petals": thin_petals},
        {"plain heart": plain_heart, "ringed heart": ringed_heart, "dotted heart": dotted_heart},
        {"pot": pot, "roots": roots})),
}


def _kinds(places):
    """([parts of a class], [parts of a class]): the seen and the unseen combinations, each a tuple of names."""
    seen, rest = [], []
    for numbers in product(*(range(len(place)) for place in places)):
        names = tuple(list(place)[k] for place, k in zip(places, numbers))
        if sum(numbers[:3]) % 3 < 2:
            seen.append(names)
        else:                                                            # first those with the fourth part in turn
            rest.append(((numbers[0] + numbers[1] + numbers[3]) % len(places[3]), names))
    return seen, [names for _, names in sorted(rest, key=lambda entry: entry[0])[:UNSEEN_OF_A_FAMILY]]


PARTS_OF, _FAMILY_OF, _SEEN, _UNSEEN = {}, {}, [], []
for _family in FAMILIES.values():
    for _classes, _found in zip((_SEEN, _UNSEEN), _kinds(_family.places)):
        _classes += map(", ".join, _found)
        PARTS_OF.update({", ".join(names): names for names in _found})
        _FAMILY_OF.update({", ".join(names): _family for names in _found})


def draw_combination(pen, name):
    """Draw one of the class with a pen; its colours do not depend on the class."""
    family, paint = _FAMILY_OF[name], _paint(pen)
    family.draw(pen, paint, *(place[part] for place, part in zip(family.places, PARTS_OF[name])))


COMBINATIONS = Drawings("combinations", 1, _SEEN, draw_combination)
UNSEEN = Drawings("unseen", 2, _UNSEEN, draw_combination)
