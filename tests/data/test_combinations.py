"""The combinations: every part stands in many classes, only all parts together tell one, and unseen ones are unseen."""
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zfcore.data.combinations import COMBINATIONS, FAMILIES, PARTS_OF, UNSEEN, UNSEEN_OF_A_FAMILY
from zfcore.data.drawings import OBJECTS, Pen
from zfcore.data.synthetic import SETS, Synthetic

SEEN = [PARTS_OF[name] for name in COMBINATIONS.classes]
APART = [PARTS_OF[name] for name in UNSEEN.classes]
PARTS = {part: place for family in FAMILIES.values() for place in family.places for part in place}


def pen_of(seed):
    return Pen(np.random.Generator(np.random.Philox(key=np.array((9, seed), np.uint64))), (0.6, -0.8))


def drawn(of, name, seed):
    pen = pen_of(seed)
    of.draw(pen, name)
    return pen


def differ(one, other):
    return sum(a != b for a, b in zip(one, other)) if len(one) == len(other) else 9


# ------------------------------------------------------------------------------------------------------- the classes
def test_there_are_126_classes_and_30_others_and_their_names_say_the_combination():
    assert (len(COMBINATIONS.classes), len(UNSEEN.classes)) == (126, 30)
    names = [*COMBINATIONS.classes, *UNSEEN.classes]
    assert len(set(names)) == len({frozenset(PARTS_OF[name]) for name in names}) == 156
    assert all(name == ", ".join(PARTS_OF[name]) for name in names)
    assert len(PARTS) == sum(len(place) for family in FAMILIES.values() for place in family.places)      # no name twice
    for of in FAMILIES.values():
        assert all(len(place) == 3 for place in of.places[:3]) and len(of.places) == 4


def test_every_part_stands_in_many_classes_and_as_often_as_any_other_of_its_place():
    for parts, least in ((SEEN, 12), (APART, 3)):
        found = Counter(part for of_class in parts for part in of_class)
        assert set(found) == set(PARTS) and min(found.values()) >= least
        for family in FAMILIES.values():
            for place in family.places:
                numbers = [found[part] for part in place]
                assert max(numbers) - min(numbers) <= (parts is APART), numbers


def test_no_part_and_not_even_all_but_one_tell_the_class():
    for one in SEEN:
        for k in range(4):
            alike = [other for other in SEEN if other[:k] + other[k + 1:] == one[:k] + one[k + 1:]]
            assert len(alike) > 1, (one, k)


def test_any_two_parts_of_different_places_stand_together_in_some_class():
    for family in FAMILIES.values():
        for one, other in combinations(family.places, 2):
            assert all(any({a, b} <= set(of_class) for of_class in SEEN) for a in one for b in other)


def test_unseen_combinations_are_no_class_but_each_part_apart_from_the_fourth_away_from_two():
    assert not set(SEEN) & set(APART)
    assert all(sum(differ(one, other) == 1 for other in SEEN) == 6 for one in APART)
    for family in FAMILIES.values():
        assert sum(one[0] in family.places[0] for one in APART) == UNSEEN_OF_A_FAMILY


# ------------------------------------------------------------------------------------------------------- the drawings
@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_a_family_mark_the_same_parts_within_the_drawing(family):
    of_family = [name for name in COMBINATIONS.classes if PARTS_OF[name][0] in FAMILIES[family].places[0]]
    marks = set()
    for seed, name in enumerate(of_family):
        pen = drawn(COMBINATIONS, name, seed)
        marks.add(tuple(sorted(pen.parts)))
        points = np.concatenate(pen.polygons)
        assert all((points.min(axis=0) < at).all() and (at < points.max(axis=0)).all() for at in pen.parts.values())
        assert len(set(pen.groups) - {""}) >= 3                                       # that may lie around alone
    assert len(marks) == 1 and len(marks.pop()) >= 4


def test_the_colours_do_not_depend_on_the_class():
    """The palette is drawn first: from one seed all classes have the same main colour, and share their other paints."""
    for seed in range(5):
        pens = [drawn(of, name, seed) for of in (COMBINATIONS, UNSEEN) for name in of.classes]
        assert len({pen.base for pen in pens}) == 1
        for family in FAMILIES.values():
            palettes = [{tuple(np.round(colour, 6)) for colour in pen.colours} for pen, name in
                        zip(pens, [*COMBINATIONS.classes, *UNSEEN.classes]) if PARTS_OF[name][0] in family.places[0]]
            assert all(len(one & other) >= 3 for one, other in zip(palettes, palettes[1:]))


def test_another_part_is_another_picture():
    """Classes that differ in one part, drawn from one seed in one pose, differ where the eye can see it."""
    def picture(name):
        pen = drawn(COMBINATIONS, name, 3)
        image = Image.new("RGB", (48, 48))
        for polygon, colour in zip(pen.polygons, pen.colours):
            ImageDraw.Draw(image).polygon(((polygon + 1.2)*20).ravel().tolist(), fill=tuple(map(int, colour)))
        return np.asarray(image, float)

    pictures = {name: picture(name) for name in COMBINATIONS.classes}
    for one, other in combinations(COMBINATIONS.classes, 2):
        if differ(PARTS_OF[one], PARTS_OF[other]) == 1:
            changed = np.abs(pictures[one] - pictures[other]).max(axis=2) > 40
            assert changed.sum() > 12, (one, other, changed.sum())


# ----------------------------------------------------------------------------------------------------------- the sets
def test_the_sets_have_nothing_in_common_but_the_way_they_are_drawn():
    assert [of.number for of in SETS.values()] == [0, 1, 2] and SETS["objects"] is OBJECTS
    grounds = [Synthetic(split, 6, 32, drawings=of).scene(i).ground for of in SETS.values() for split in ("train", "val")
               for i in range(6)]
    assert len(set(grounds)) == len(grounds)


def test_colour_and_background_do_not_tell_the_class():
    """The mean and spread of a picture's colours: the nearest class mean is right about as often as by chance, 0.8 %."""
    def colours(split, count):
        data = Synthetic(split, count, 24, drawings=COMBINATIONS)
        pixels = [np.asarray(data.picture(i), float).reshape(-1, 3) for i in range(count)]
        return np.array([[*p.mean(axis=0), *p.std(axis=0)] for p in pixels]), data.labels

    (x, labels), (y, labels_y) = colours("train", 252), colours("val", 126)
    means = np.array([x[labels == label].mean(axis=0) for label in range(126)])
    nearest = (((y[:, None] - means)/x.std(axis=0))**2).sum(axis=2).argmin(axis=1)
    assert (nearest == labels_y).mean() < 0.04
