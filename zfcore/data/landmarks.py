"""Places of parts in pictures, marked by hand, as the tools write them that people have.

    {"a.jpg": {"nose": [x, y], ...}, ...}                our own form
    {"images": [...], "annotations": [...], ...}         COCO keypoints: CVAT, Label Studio, Roboflow, COCO Annotator
    {"a.jpg1234": {"filename": "a.jpg", "regions": ...}} VIA, as exported or as a project
    {"imagePath": "a.jpg", "shapes": [...]}              LabelMe: one such file a picture, in one folder

Only points count: what else was drawn in a picture is left out, which is said.
"""
import re
from pathlib import Path

from zfcore.check import Expected
from zfcore.files import anything, listed, mapping, read_json, real, table, text, whole
from zfcore.hints import FilePath
from zfcore.terminal import plural, printable, warn_once

LARGEST, MOST_PARTS = 10**9, 10_000        # place in pixels, parts of a picture
MOST_BYTES = 2**26                          # of a file; those of LabelMe hold the picture too
FORM = '{"picture.jpg": {"nose": [x, y], ...}, ...}, COCO keypoints, VIA or a folder of LabelMe files'



def identity(where, value):
    """A form: what a picture is numbered or called by."""
    return (text() if isinstance(value, str) else whole())(where, value)


def regions(where, value):
    """A form: the regions of VIA, a list or, in its first version, an object."""
    return (list(mapping(REGION)(where, value).values()) if isinstance(value, dict) else listed(REGION)(where, value))


PLACE = real(-LARGEST, LARGEST)
OWN = mapping(mapping(listed(PLACE, 2, 2), text(), MOST_PARTS))
COCO = table({"images": listed(table({"id": identity, "file_name": text()}, others=anything)),
              "annotations": listed(table({"image_id": identity},
                                          {"category_id": identity, "keypoints": listed(PLACE, 3*MOST_PARTS)}, anything)),
              "categories": listed(table({"id": identity, "name": text()}, {"keypoints": listed(text(), MOST_PARTS)},
                                         anything))},
             others=anything)
SHAPE = table({"label": text(), "points": listed(listed(PLACE, 2, 2))}, {"shape_type": text()}, anything)
LABELME = table({"imagePath": text(), "shapes": listed(SHAPE)}, others=anything)
REGION = table({"shape_attributes": table({"name": text()}, {"cx": PLACE, "cy": PLACE}, anything),
                "region_attributes": mapping(anything)},
               others=anything)
VIA = mapping(table({"filename": text(), "regions": regions}, others=anything))
PROJECT = table({"_via_img_metadata": VIA}, others=anything)


def read_landmarks(path: FilePath) -> dict[str, dict[str, tuple[float, float]]]:
    """{picture: {part: (x, y)}} of a file, or a folder of files, of one of the forms above, in pixels of the picture; a pixel's
    left edge is its number. Pictures are called by their names without folders. Raises Expected for another form, for a part
    that is marked twice in one picture, and for two pictures of one name."""
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise Expected("--landmarks", f"JSON like {FORM}", f"{path}, a folder without JSON files")
    marks, full, others = {}, {}, []
    for file in files:
        for picture, part, at in _points(file):
            name = re.split(r"[/\\]", picture)[-1]
            of = marks.setdefault(name, {})
            if full.setdefault(name, picture) != picture or part in of:
                raise Expected(f"--landmarks {file}", "each picture and each of its parts once",
                               f"{part!r} of {picture!r} beside "
                               f"{'another one' if part in of else repr(full[name])}",
                               "name the parts of several objects differently")
            if at is not None:
                of[part] = tuple(map(float, at))
            elif part is not None:
                others.append(f"{part!r} of {picture!r}")
    if others:
        warn_once(printable(f"{path}: left out, as they are no points: {plural(len(others), 'mark')}, the first being "
                            f"{others[0]}"))
    return marks


def _points(file):
    """Yield (picture, part, (x, y)) of what is marked in a file: None for the place of what is no point, and for part and place
    of a picture without marks."""
    try:
        content = read_json(file, None, MOST_BYTES)
        form, points = _kind(content)
        yield from points(form(file, content))
    except OSError as error:
        raise Expected("--landmarks", "a file that can be read", f"{file} ({error.strerror})") from None
    except Expected as error:
        raise Expected("--landmarks", f"JSON like {FORM}", f"another form in {error}") from None


def _kind(content):
    """(form, function that yields the points of what has it) for what a file says."""
    keys = set(content) if isinstance(content, dict) else set()
    if "_via_img_metadata" in keys:
        return PROJECT, lambda project: _of_via(project["_via_img_metadata"])
    if {"images", "annotations"} <= keys and isinstance(content["annotations"], list):
        return COCO, _of_coco
    if {"imagePath", "shapes"} <= keys and isinstance(content["shapes"], list):
        return LABELME, _of_labelme
    if keys and all(isinstance(value, dict) and {"filename", "regions"} <= set(value) for value in content.values()):
        return VIA, _of_via
    return OWN, _of_own


def _of_own(marks):
    for picture, of in marks.items():
        yield picture, None, None
        for part, at in of.items():
            yield picture, part, at


def _of_coco(coco):
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    kinds = {category["id"]: category for category in coco["categories"]}
    for number, annotation in enumerate(coco["annotations"]):
        picture, kind = names.get(annotation["image_id"]), kinds.get(annotation.get("category_id"), {})
        parts, values = kind.get("keypoints", []), annotation.get("keypoints", [])
        if picture is None or len(values) != 3*len(parts):
            raise Expected(f"annotation {number}",
                           f"the number of a picture, and x, y, visible of the {len(parts)} keypoints of its category",
                           f"{len(values)} numbers" if picture is not None else repr(annotation["image_id"]))
        yield picture, None if values else kind.get("name", "an annotation"), None
        for part, x, y, visible in zip(parts, values[::3], values[1::3], values[2::3]):
            if visible:
                yield picture, part, (x, y)


def _of_labelme(content):
    yield content["imagePath"], None, None
    for shape in content["shapes"]:
        is_point = len(shape["points"]) == 1 and shape.get("shape_type", "point") == "point"
        yield content["imagePath"], shape["label"], shape["points"][0] if is_point else None


def _of_via(pictures):
    for picture in pictures.values():
        yield picture["filename"], None, None
        for region in picture["regions"]:
            said, shape = [_chosen(value) for value in region["region_attributes"].values()], region["shape_attributes"]
            parts = [part for part in said if part]
            if len(parts) != 1:
                raise Expected(f"a region of {picture['filename']!r}", "one attribute, the name of its part",
                               f"{len(parts)} of them")
            is_point = shape["name"] == "point" and {"cx", "cy"} <= set(shape)
            yield picture["filename"], parts[0], (shape["cx"], shape["cy"]) if is_point else None


def _chosen(value):
    """Choice made for an attribute in VIA: a text, or of check boxes {choice: true} the only one; "" where it is neither."""
    if isinstance(value, dict):
        chosen = [choice for choice, is_so in value.items() if is_so is True]
        return chosen[0] if len(chosen) == 1 else ""
    return value.strip() if isinstance(value, str) else ""
