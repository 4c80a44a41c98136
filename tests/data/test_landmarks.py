"""Places of parts as people's tools write them: the same marks out of each, and one sentence for what is none."""
import json

import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.data.landmarks import read_landmarks

PARTS = ["nose", "left eye", "Gr\u00fc\u00dfe \u4e00"]


def drawn(seed):
    """Marks of a few pictures, some without any."""
    rng = np.random.default_rng(seed)
    return {f"picture {k}.jpg": {part: (round(float(x), 2), float(y))
                                 for part, x, y in zip(PARTS, rng.uniform(0, 900, 3), rng.integers(0, 900, 3))
                                 if rng.random() < 0.7} for k in range(int(rng.integers(1, 5)))}


def own(marks, path):
    path.write_text(json.dumps(marks))
    return path


def with_a_mark_of_windows(marks, path):
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(marks).encode())
    return path


def coco(marks, path, folder="images/"):
    annotations = [{"id": k, "image_id": 10 + k, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0, "segmentation": [],
                    "num_keypoints": len(of),
                    "keypoints": [value for part in PARTS for value in ([*of[part], 2] if part in of else [0, 0, 0])]}
                   for k, of in enumerate(marks.values())]
    path.write_text(json.dumps({
        "info": {"description": "mine"}, "licenses": [], "annotations": annotations,
        "images": [{"id": 10 + k, "file_name": folder + name, "width": 900, "height": 900} for k, name in enumerate(marks)],
        "categories": [{"id": 1, "name": "dog", "supercategory": "", "keypoints": PARTS, "skeleton": [[1, 2]]}]}))
    return path


def coco_of_windows(marks, path):
    return coco(marks, path, "C:\\Users\\me\\")


def via(marks, path, old=False):
    def region(part, at):
        return {"shape_attributes": {"name": "point", "cx": at[0], "cy": at[1]},
                "region_attributes": {"part": part, "note": ""}}
    regions = {name: [region(part, at) for part, at in of.items()] for name, of in marks.items()}
    path.write_text(json.dumps({f"{name}{7*k}": {"filename": name, "size": 7*k, "file_attributes": {}, "regions": {
        str(i): one for i, one in enumerate(regions[name])} if old else regions[name]} for k, name in enumerate(marks)}))
    return path


def via_of_old(marks, path):
    return via(marks, path, old=True)


def via_project(marks, path):
    pictures = json.loads(via(marks, path).read_text())
    path.write_text(json.dumps({"_via_settings": {"core": {}}, "_via_img_metadata": pictures, "_via_attributes": {}}))
    return path


def via_boxes(marks, path):
    """Where the part is chosen by a check box."""
    content = json.loads(via(marks, path).read_text())
    for picture in content.values():
        for one in picture["regions"]:
            one["region_attributes"] = {"part": {one["region_attributes"]["part"]: True}}
    path.write_text(json.dumps(content))
    return path


def labelme(marks, path):
    folder = path.with_suffix("")
    folder.mkdir()
    for name, of in marks.items():
        shapes = [{"label": part, "points": [list(at)], "group_id": None, "description": "", "shape_type": "point", "flags": {}}
                  for part, at in of.items()]
        (folder/name).with_suffix(".json").write_text(json.dumps({
            "version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\pictures\\{name}",
            "imageData": "iVBORw0KGgo"*100, "imageHeight": 900, "imageWidth": 900}))
    return folder


@pytest.mark.parametrize("write", [own, with_a_mark_of_windows, coco, coco_of_windows, via, via_of_old, via_project, via_boxes,
                                   labelme],
                         ids=lambda write: write.__name__)
def test_each_tool_says_the_same(write, tmp_path):
    for seed in range(8):
        marks = drawn(seed)
        assert read_landmarks(write(marks, tmp_path/f"marks {seed}.json")) == marks


def boxes(marks, path):
    content = json.loads(via(marks, path).read_text())
    content["a.jpg0"]["regions"].append({"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
                                         "region_attributes": {"part": "ear"}})
    return path.write_text(json.dumps(content))


def polygons(marks, path):
    path.write_text(json.dumps({"imagePath": "a.jpg", "shapes": [
        {"label": "nose", "points": [[1, 2]], "shape_type": "point"},
        {"label": "ear", "points": [[1, 2], [3, 4], [5, 6]], "shape_type": "polygon"}]}))


def boxes_of_coco(marks, path):
    content = json.loads(coco(marks, path).read_text())
    content["annotations"].append({"id": 9, "image_id": 10, "category_id": 2, "bbox": [1, 2, 3, 4]})
    content["categories"].append({"id": 2, "name": "ear"})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("write", [boxes, polygons, boxes_of_coco], ids=lambda write: write.__name__)
def test_what_is_no_point_is_left_out_counted_and_named(write, tmp_path, capsys):
    write({"a.jpg": {"nose": (1, 2)}}, tmp_path/"marks.json")
    assert read_landmarks(tmp_path/"marks.json") == {"a.jpg": {"nose": (1, 2)}}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "left out, as they are no points: 1 mark, the first" in said and "'ear'" in said and "a.jpg" in said


def test_a_part_twice_in_one_picture_and_two_pictures_of_one_name_are_refused(tmp_path):
    two_dogs = json.loads(coco({"a.jpg": {"nose": (1, 2)}}, tmp_path/"a.json").read_text())
    two_dogs["annotations"] *= 2
    two_places = json.loads(coco({"a.jpg": {"nose": (1, 2)}, "b.jpg": {}}, tmp_path/"a.json").read_text())
    two_places["images"][1]["file_name"] = "elsewhere/a.jpg"
    for content in (two_dogs, two_places):
        (tmp_path/"a.json").write_text(json.dumps(content))
        with pytest.raises(Expected, match="each picture and each of its parts once, got .*a.jpg"):
            read_landmarks(tmp_path/"a.json")


def test_keypoints_of_another_number_than_the_category_has_are_refused(tmp_path):
    content = json.loads(coco({"a.jpg": {"nose": (1, 2)}}, tmp_path/"a.json").read_text())
    content["annotations"][0]["keypoints"].pop()
    (tmp_path/"a.json").write_text(json.dumps(content))
    with pytest.raises(Expected, match="of the 3 keypoints of its category, got 8 numbers"):
        read_landmarks(tmp_path/"a.json")


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(Expected, match="a folder without JSON files"):
        read_landmarks(tmp_path)


@pytest.mark.parametrize("text, sentence", [
    ("[1, 2]", "another form"), ("{", "JSON like"), ('{"a.jpg": {"nose": [1]}}', "another form"),
    ('{"a.jpg": {"nose": [1, "2"]}}', "another form"), ('{"a.jpg": [1, 2]}', "another form")])
def test_a_file_of_another_form_is_refused(tmp_path, text, sentence):
    (tmp_path/"marks.json").write_text(text)
    with pytest.raises(Expected, match=sentence):
        read_landmarks(tmp_path/"marks.json")
