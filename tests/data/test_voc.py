"""PASCAL VOC: labels from annotations, average precision, and the files of the evaluation server."""
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.real_data import REAL_DATA, needs
from zfcore.check import Expected
from zfcore.data.voc import CLASSES, annotated, average_precision, examples, mean_average_precision, open_voc, write_results

COW, DOG, CAT, PERSON = map(CLASSES.index, ["cow", "dog", "cat", "person"])

# picture -> its objects, (class, difficult); what the labels must be follows below
OBJECTS = {"2008_1": [("dog", 0), ("dog", 1), ("person", 0)], "2008_2": [("cat", 1)], "2008_3": [("cat", 1), ("cat", 0)],
           "2008_4": [("person", 1), ("person", 1), ("dog", 0)]}
LABELS = {"2008_1": {DOG: 1, PERSON: 1}, "2008_2": {CAT: 0}, "2008_3": {CAT: 1}, "2008_4": {PERSON: 0, DOG: 1}}


def annotation(objects, before=""):
    things = "".join(f"""
    <object>
        <name>{name}</name>
        <pose>Frontal</pose>
        <difficult>{difficult}</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>
        <part><name>head</name></part>
    </object>""" for name, difficult in objects)
    return f"""{before}<annotation>
    <filename>x.jpg</filename>
    <owner><name>somebody</name></owner>{things}
</annotation>
"""


def write_year(root, parts, objects=OBJECTS, labels=LABELS, year=2012):
    """VOCdevkit with one year; `parts`: {"train": pictures}."""
    place = root / f"VOCdevkit/VOC{year}"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (place/folder).mkdir(parents=True, exist_ok=True)
    for k, (id, things) in enumerate(objects.items()):
        (place / f"Annotations/{id}.xml").write_text(annotation(things))
        Image.new("RGB", (9 + k, 7), (60*k, 9, 9)).save(place / f"JPEGImages/{id}.jpg")
    for part, ids in parts.items():
        (place / f"ImageSets/Main/{part}.txt").write_text("".join(f"{id}\n" for id in ids))
        for c, name in enumerate(CLASSES):
            text = "".join(f"{id} {labels[id].get(c, -1):2}\n" for id in ids)
            (place / f"ImageSets/Main/{name}_{part}.txt").write_text(text)
    return root


def tar(path, folder, arcname):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        file.add(folder, arcname)
    return path


@pytest.fixture
def root(tmp_path):
    return write_year(tmp_path / "set", {"train": ["2008_3", "2008_1"], "trainval": sorted(OBJECTS)})


@pytest.fixture
def place(root):
    return root / "VOCdevkit/VOC2012"


@pytest.fixture
def large(tmp_path):
    """A set of 250 pictures, of which two may be wrong."""
    ids = [f"p{k}" for k in range(250)]
    return write_year(tmp_path / "large", {"train": ids}, dict.fromkeys(ids, [("cow", 0)]), dict.fromkeys(ids, {COW: 1}))


# ---------------------------------------------------------------------------------------------------- what is there
def test_labels_say_present_absent_or_only_difficult(root):
    data = open_voc(root)
    assert data.labels.dtype == np.int8 and data.labels.shape == (4, 20) and data.classes == CLASSES
    for name, row in zip(data.names, data.labels):
        expected = np.full(20, -1)
        for c, label in LABELS[Path(name).stem].items():
            expected[c] = label
        assert row.tolist() == expected.tolist()


def test_pictures_stand_in_the_order_of_their_list(root):
    data = open_voc(root, "train")
    assert data.names == ["VOC2012/JPEGImages/2008_3.jpg", "VOC2012/JPEGImages/2008_1.jpg"]
    assert data.picture(0).size == (11, 7) and data.picture(1).size == (9, 7) and len(data) == 2
    assert (data.year, data.part) == (2012, "train")


def test_a_file_without_difficult_and_blank_lines_are_fine(root, place):
    path = place / "Annotations/2008_2.xml"
    path.write_text(path.read_text().replace("<difficult>1</difficult>", ""))
    (place / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbf2008_2\r\n\r\n  2008_4  \r\n")
    for name in CLASSES:
        (place / f"ImageSets/Main/{name}_train.txt").unlink()
    assert open_voc(root, "train").labels[:, CAT].tolist() == [1, -1]


def folder_around(root, at):
    return root


def devkit(root, at):
    return root / "VOCdevkit"


def one_year(root, at):
    return root / "VOCdevkit/VOC2012"


def tar_of_devkit(root, at):
    return tar(at / "any.tar", root / "VOCdevkit", "VOCdevkit")


def tar_in_a_folder(root, at):
    return tar_of_devkit(root, at).parent


def tar_of_one_year(root, at):
    return tar(at / "any.tar", root / "VOCdevkit/VOC2012", "VOC2012")


def tar_in_another_folder(root, at):
    return tar(at / "any.tar", root, "data/mine")


@pytest.mark.parametrize("pack", [folder_around, devkit, one_year, tar_of_devkit, tar_in_a_folder, tar_of_one_year,
                                  tar_in_another_folder], ids=lambda pack: pack.__name__)
def test_folders_and_tars_give_the_same(root, tmp_path, pack):
    expected, found = open_voc(root), open_voc(pack(root, tmp_path / "packed"))
    assert found.names == expected.names and np.array_equal(found.labels, expected.labels)
    assert [found.read(i) for i in range(4)] == [expected.read(i) for i in range(4)]


def test_the_latest_year_is_taken_unless_another_is_asked_for(root):
    write_year(root, {"trainval": ["2008_2"]}, year=2007)
    for place in (root, tar(root.parent / "x.tar", root, "")):
        assert len(open_voc(place)) == 4 and open_voc(place, year=2007).names == ["VOC2007/JPEGImages/2008_2.jpg"]
    with pytest.raises(Expected, match="expected VOC2010, got VOC2007, VOC2012"):
        open_voc(root, year=2010)


def test_the_test_part_needs_no_annotations_and_nothing_is_known_of_it(root, place):
    Image.new("RGB", (9, 7)).save(place / "JPEGImages/2010_9.jpg")
    (place / "ImageSets/Main/test.txt").write_text("2010_9\n")
    data = open_voc(root, "test")
    assert data.labels.tolist() == [[0]*20] and len(examples(data.labels)[0]) == 0
    assert np.isnan(average_precision(np.zeros((1, 20)), data.labels)).all()


def test_a_picture_is_an_example_of_each_class_it_shows(root):
    pictures, classes = examples(open_voc(root).labels)
    assert list(zip(pictures.tolist(), classes.tolist())) == [(0, DOG), (0, PERSON), (2, CAT), (3, DOG)]
    assert pictures.dtype == classes.dtype == np.int64


# -------------------------------------------------------------------------------------------------------- annotations
@pytest.mark.parametrize("objects, sentence",
                         [([("dog", 0), ("unicorn", 0)], "a.xml:12: expected the name of one of the 20 .* 'unicorn'"),
                                               ([("", 0)], "a.xml:5: expected the name of one of the 20 classes, got ''"),
                                               ([("Dog", 0)], "a.xml:5: expected the name of one .* 'Dog'"),
                                               ([("dog", 0), ("cat", "rather")], "a.xml:14: expected 0 or 1 as <difficult>, "
                                                                                 "got 'rather'")])
def test_what_an_object_says_wrongly_is_named_with_its_line(objects, sentence):
    with pytest.raises(Expected, match=sentence):
        annotated("a.xml", annotation(objects).encode())


@pytest.mark.parametrize("said, label", [("", 1), ("0", 1), (" 0 ", 1), ("false", 1), ("False", 1), ("Unspecified", 1),
                                         ("no", 1), ("1", 0), ("true", 0), ("TRUE", 0), ("yes", 0)])
def test_flags_in_words_and_empty_ones_are_read(said, label):
    assert annotated("a.xml", annotation([("dog", said)]).encode())[DOG] == label


# What labelImg, CVAT, Roboflow and those who turn LabelMe's files into these write of one object.
TOOLS = {
    "labelImg": """<annotation verified="yes"><folder>mine</folder><filename>a.jpg</filename><path>C:\\mine\\a.jpg</path>
        <source><database>Unknown</database></source><size><width>9</width><height>7</height><depth>3</depth></size><segmented>0</segmented>
        <object><name>cow</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>""",
    "CVAT": """<annotation><folder></folder><filename>a.jpg</filename><source><database>Unknown</database><annotation>Unknown</annotation></source>
        <size><width>9</width><height>7</height><depth></depth></size><segmented>0</segmented><object><name>cow</name><truncated>0</truncated>
        <occluded>0</occluded><difficult/><bndbox><xmin>1.25</xmin><ymin>1.5</ymin><xmax>5.0</xmax><ymax>5.75</ymax></bndbox>
        <attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes></object></annotation>""",
    "Roboflow": """<annotation><folder></folder><filename>a_jpg.rf.0123.jpg</filename><path>a_jpg.rf.0123.jpg</path>
        <source><database>roboflow.com</database></source><object><name>cow</name><pose>Unspecified</pose><truncated>0</truncated>
        <difficult>0</difficult><occluded>0</occluded><bndbox><xmin>1</xmin><xmax>5</xmax><ymin>1</ymin><ymax>5</ymax></bndbox>
        <polygon><x1>1</x1><y1>1</y1></polygon></object></annotation>""",
    "LabelMe": """<annotation><filename>a.jpg</filename><folder>x</folder><source><submittedBy/></source>
        <object><name>dog</name><deleted>1</deleted><verified>0</verified><occluded>no</occluded><attributes></attributes>
        <parts><hasparts></hasparts><ispartof></ispartof></parts><polygon><username>me</username><pt><x>1</x><y>1</y></pt></polygon></object>
        <object><name> cow </name><pose/><deleted>0</deleted></object></annotation>"""}


@pytest.mark.parametrize("tool", TOOLS)
def test_annotations_of_peoples_tools_are_read(tool):
    assert np.flatnonzero(annotated("a.xml", TOOLS[tool].encode()) + 1).tolist() == [COW]


def test_two_names_in_one_object_are_refused():
    with pytest.raises(Expected, match="expected the name of one of the 20 classes, got 'dog' beside another"):
        annotated("a.xml", b"<annotation><object><name>cat</name><name>dog</name></object></annotation>")


@pytest.mark.parametrize("file, text",
                         [("labelmap.txt",
                           "# label:color_rgb:parts:actions\nbackground:0,0,0::\nteddy:1,2,3::\nz\u00f6bra:4,5,6:leg,head:\n"),
                                        ("classes.txt", "\ufeffteddy\r\nz\u00f6bra\r\n\r\n")])
def test_classes_of_ones_own_are_those_that_the_set_lists(tmp_path, file, text):
    objects = {"a 1": [("teddy", 0)], "b": [("z\u00f6bra", 0), ("teddy", 1)]}
    write_year(tmp_path, {"default": []}, objects, {})
    year = tmp_path/"VOCdevkit/VOC2012"
    (year/file).write_text(text, encoding="utf-8")
    (year/"ImageSets/Main/default.txt").write_text('"a 1"\nb.jpg\n')
    (year/"ImageSets/Main/teddy_default.txt").write_text('"a 1" 1\nb 0\n')
    data = open_voc(tmp_path, "default")
    assert data.classes == ["teddy", "z\u00f6bra"] and data.labels.tolist() == [[1, -1], [0, 1]]
    places = write_results(tmp_path/"results", data.names, np.zeros((2, 2)), part="default", classes=data.classes)
    assert len(list(places.iterdir())) == 2


def test_a_list_of_classes_that_names_one_twice_or_none_is_refused(root, place):
    for text in ("dog\ncat\ndog\n", "\n# nothing\n"):
        (place/"classes.txt").write_text(text)
        with pytest.raises(Expected, match="classes.txt: expected a class in each line, each once"):
            open_voc(root)


DAMAGED = [b"", b"<annotation>", b"\xff\xfe\x00", annotation([("unicorn", 0)]).encode(),
           annotation([("cow", "rather")]).encode(),
           b"<annotation><object/></annotation>", b"<html/>", b'<!DOCTYPE annotation><annotation/>', b"\x00"*99]


def test_a_damaged_annotation_is_a_damaged_picture(large, capsys):
    for data in DAMAGED:
        (large/"VOCdevkit/VOC2012/Annotations/p7.xml").write_bytes(data)
        assert len(open_voc(large, "train")) == 249, data
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and "1 of 250 pictures left out: p7 in line 8 (" in said[0], data


def test_an_object_without_a_name_is_named_with_its_line():
    with pytest.raises(Expected, match="a.xml:3: expected a <name> in each <object>"):
        annotated("a.xml", b"<annotation>\n<object>\n</object></annotation>")


def test_names_and_difficulties_of_parts_and_owners_are_not_those_of_objects():
    text = annotation([("dog", 0)]).replace("<name>head</name>", "<name>cat</name><difficult>1</difficult>")
    assert (annotated("a.xml", text.encode()) > -1).nonzero()[0].tolist() == [DOG]


@pytest.mark.parametrize("data, line", [(annotation([("dog", 0)]).replace("</object>", "</objekt>", 1).encode(), 10),
                                        (b"", 1), (b"<annotation>\n\n<object>", 3), (b"\xff\xd8\xff\xe0 a JPEG", 1),
                                        (b'<?xml version="1.0" encoding="klingon"?>\n<annotation/>', 1),
                                        (b'<?xml version="1.0" encoding="utf-7"?>\n<annotation/>', 1),
                                        (annotation([("d\xf6g", 0)]).encode("latin-1"), 5)])
def test_malformed_xml_is_named_with_its_line(data, line):
    with pytest.raises(Expected, match=f"a.xml:{line}: expected well-formed XML") as caught:
        annotated("a.xml", data)
    assert "\n" not in str(caught.value)


def test_xml_that_is_no_annotation_is_refused():
    with pytest.raises(Expected, match="a.xml:2: expected an <annotation>, got <html>"):
        annotated("a.xml", b"\n<html><object><name>dog</name></object></html>")


@pytest.mark.parametrize("doctype", ['<!DOCTYPE annotation [<!ENTITY a "dog"><!ENTITY b "&a;&a;&a;&a;">]>',
                                     "<!DOCTYPE annotation>", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'])
def test_a_doctype_and_with_it_every_entity_is_refused(doctype):
    with pytest.raises(Expected, match="a.xml:1: expected an annotation without DOCTYPE and entities"):
        annotated("a.xml", annotation([("&b;", 0)], before=doctype).encode())


def test_a_deep_and_a_long_annotation_are_read_in_no_time():
    start = time.perf_counter()
    row = annotated("a.xml", b"<annotation>" + b"<a>"*200000 + b"</a>"*200000
                    + b"<object><name>cow</name></object></annotation>")
    assert (row > 0).nonzero()[0].tolist() == [COW] and time.perf_counter() - start < 5


def test_other_encodings_are_read():
    text = '<?xml version="1.0" encoding="{}"?>\n' + annotation([("dog", 0)]).replace("somebody", "B\xf6rne")
    for encoding in ("utf-8", "utf-16", "latin-1"):
        assert annotated("a.xml", text.format(encoding).encode(encoding))[DOG] == 1


# ---------------------------------------------------------------------------------------------------------- bad input
def no_main(root, place):
    (place / "ImageSets/Main").rename(place / "ImageSets/main2")
    return "expected VOCdevkit, with VOC2012/ImageSets/Main/ in it"


def no_such_part(root, place):
    (place / "ImageSets/Main/trainval.txt").unlink()
    return "part: expected one of train, got 'trainval'"


def empty_list(root, place):
    (place / "ImageSets/Main/trainval.txt").write_text("\n \n")
    return "trainval.txt: expected the name of a picture in each line"


def a_list_with_labels(root, place):
    (place / "ImageSets/Main/trainval.txt").write_text("2008_1\n2008_2 1\n")
    return "trainval.txt:2: expected the name of one picture, got '2008_2 1'"


def a_way_out(root, place):
    (place / "ImageSets/Main/trainval.txt").write_text("../../x\n")
    return "trainval.txt:1: expected the name of one picture, got '../../x'"


def a_picture_twice(root, place):
    (place / "ImageSets/Main/trainval.txt").write_text("2008_1\n\n2008_2\n2008_1\n")
    return "trainval.txt:4: expected each picture once, got '2008_1' a second time after line 1"


def a_picture_missing(root, place):
    (place / "JPEGImages/2008_2.jpg").unlink()
    return r"trainval.txt: expected pictures that are there.*1 of 4 otherwise: 2008_2 in line 2 \(no such picture\)"


def an_annotation_missing(root, place):
    (place / "Annotations/2008_2.xml").unlink()
    return r"1 of 4 otherwise: 2008_2 in line 2 \(no annotation\)"


def annotations_missing(root, place):
    (place / "Annotations").rename(place / "Elsewhere")
    return r"4 of 4 otherwise: 2008_1 in line 1 \(no annotation\), .* and 1 more"


def no_objects(root, place):
    (place / "Annotations/2008_3.xml").write_text(annotation([]))
    return r"1 of 4 otherwise: 2008_3 in line 3 \(an annotation without objects\)"


def an_unknown_class(root, place):
    (place / "Annotations/2008_3.xml").write_text(annotation([("cat", 0), ("teddy", 0)]))
    return "Annotations/2008_3.xml:12: expected the name of one of the 20 classes, got 'teddy'"


def a_class_file_that_contradicts(root, place):
    path = place / "ImageSets/Main/dog_trainval.txt"
    path.write_text(path.read_text().replace("2008_3 -1", "2008_3  1"))
    return r"1 of 4 otherwise: dog_trainval.txt:3 says 1 where Annotations/2008_3.xml makes it -1"


def a_class_file_of_other_numbers(root, place):
    (place / "ImageSets/Main/dog_trainval.txt").write_text("2008_1 1\n2008_3 2\n")
    return "dog_trainval.txt:2: expected a picture and one of 1 -1 0, got '2008_3 2'"


@pytest.mark.parametrize("spoil", [no_main, no_such_part, empty_list, a_list_with_labels, a_way_out, a_picture_twice,
                                   a_picture_missing, an_annotation_missing, annotations_missing, no_objects, an_unknown_class,
                                   a_class_file_that_contradicts, a_class_file_of_other_numbers],
                         ids=lambda spoil: spoil.__name__)
def test_bad_input_is_answered_with_one_sentence_from_a_folder_and_from_a_tar(root, place, spoil):
    sentence = spoil(root, place)
    for where in (root, tar(root.parent / "x.tar", root, "")):
        with pytest.raises(Expected, match=sentence) as caught:
            open_voc(where)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where, sentence", [("nowhere", "got nothing, it does not exist"), ("", "expected VOCdevkit"),
                                             ("notes.txt", "expected an uncompressed tar")])
def test_a_place_that_is_not_voc_is_answered_with_one_sentence(tmp_path, where, sentence):
    (tmp_path / "notes.txt").write_text("no tar")
    with pytest.raises(Expected, match=sentence):
        open_voc(tmp_path / where)


def test_few_pictures_with_something_missing_are_left_out_and_counted(large, capsys):
    place = large / "VOCdevkit/VOC2012"
    (place / "JPEGImages/p3.jpg").unlink()
    (place / "Annotations/p7.xml").unlink()
    data = open_voc(large, "train")
    assert len(data) == len(data.labels) == 248 and not {"p3", "p7"} & {Path(name).stem for name in data.names}
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("annotations: ")]       # how far it is
    assert len(said) == 1
    assert said[0].endswith("2 of 250 pictures left out: p3 in line 4 (no such picture), p7 in line 8 (no annotation)")
    (place / "Annotations/p8.xml").write_text(annotation([]))
    with pytest.raises(Expected, match="3 of 250 otherwise"):
        open_voc(large, "train")


def test_few_contradictions_are_told_and_the_annotations_followed(large, capsys):
    path = large / "VOCdevkit/VOC2012/ImageSets/Main/cow_train.txt"
    path.write_text(path.read_text().replace("p0  1", "p0 -1"))
    assert (open_voc(large, "train").labels[:, COW] == 1).all()
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("annotations: ")]       # how far it is
    assert len(said) == 1 and "1 of 250 pictures have other labels than their annotations" in said[0]
    assert said[0].endswith("cow_train.txt:1 says -1 where Annotations/p0.xml makes it 1")


# -------------------------------------------------------------------------------------------------- average precision
def devkit_average_precision(scores, labels, definition):
    """One class, as the development kit's VOCevalcls and VOCap do it, step by step and in the same order."""
    ranked = [labels[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i]) if labels[i]]
    positives = sum(label > 0 for label in ranked)
    recall, precision, right = [], [], 0
    for rank, label in enumerate(ranked, 1):
        right += label > 0
        recall.append(right/positives)
        precision.append(right/rank)
    if definition == "11-point":
        return sum(max((p for r, p in zip(recall, precision) if r >= t/10 - 1e-12), default=0) for t in range(11))/11
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1])*precision[i] for i in range(1, len(recall)) if recall[i] != recall[i - 1])


@given(st.lists(st.tuples(st.integers(-4, 4), st.sampled_from([-1, -1, 0, 1])), min_size=1, max_size=30),
       st.sampled_from(["2010", "11-point"]))
@settings(deadline=None, max_examples=200)
def test_average_precision_is_that_of_the_development_kit(pictures, definition):
    scores, labels = np.array(pictures).T
    found = average_precision(scores[:, None], labels[:, None], definition)
    if (labels > 0).any():
        assert found[0] == pytest.approx(devkit_average_precision(scores.tolist(), labels.tolist(), definition), abs=1e-12)
    else:
        assert np.isnan(found[0])


@pytest.mark.parametrize("labels, area, eleven", [
    ([1, 1, -1, -1], 1, 1),
    ([-1, -1, 1, 1], 1/2, 1/2),                                # precision 1/3, then 1/2, which counts for both
    ([1, -1, 1, -1, -1, 1], (1 + 2/3 + 1/2)/3, (4*1 + 3*2/3 + 4*1/2)/11),
    ([0, 0, 1, 0, -1, 1, 0], (1 + 2/3)/2, (6*1 + 5*2/3)/11),   # zeros do not count
    ([-1, 1], 1/2, 1/2)])
def test_average_precision_of_rankings_worked_by_hand(labels, area, eleven):
    scores = -np.arange(len(labels), dtype=np.float32)[:, None]
    labels = np.array(labels, np.int8)[:, None]
    assert average_precision(scores, labels)[0] == pytest.approx(area)
    assert average_precision(scores, labels, "11-point")[0] == pytest.approx(eleven)


def test_recalls_of_the_eleven_points_are_compared_exactly():
    labels = np.array([1]*3 + [-1] + [1]*7)[:, None]           # recall 3/10 is below the float 0.1 + 0.2
    found = average_precision(-np.arange(11.0)[:, None], labels, "11-point")
    assert found[0] == pytest.approx((4*1 + 7*10/11)/11, abs=1e-15)


def test_pictures_of_equal_score_stay_in_their_order():
    scores = np.zeros((40, 1))
    assert average_precision(scores, np.array([1]*10 + [-1]*30)[:, None])[0] == 1
    assert average_precision(scores, np.array([-1]*30 + [1]*10)[:, None])[0] == 0.25


def test_each_class_is_ranked_by_itself_and_the_mean_passes_over_classes_without_positives():
    scores = np.array([[3.0, 1.0, 5.0], [2.0, 2.0, 1.0], [1.0, 3.0, 0.0]])
    labels = np.array([[1, 1, -1], [-1, -1, -1], [-1, -1, 0]])
    found = average_precision(scores, labels)
    assert found.dtype == np.float64 and found[:2].tolist() == [1, 1/3] and np.isnan(found[2])
    assert mean_average_precision(scores, labels) == pytest.approx(2/3)
    assert np.isnan(mean_average_precision(scores, -np.ones((3, 3))))


def test_average_precision_of_senseless_input_is_refused():
    with pytest.raises(Expected, match="definition of average precision: expected one of 2010, 11-point, got '2007'"):
        average_precision(np.zeros((2, 1)), np.ones((2, 1)), "2007")
    with pytest.raises(Expected, match="scores: expected shape"):
        average_precision(np.zeros((2, 1)), np.ones((3, 1)))
    with pytest.raises(Expected, match="scores: expected finite values, got 1 of 2"):
        average_precision(np.array([[0], [np.nan]]), np.ones((2, 1)))


def test_the_precision_of_a_falling_curve_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.random.default_rng(0).permutation(60).astype(float)
    labels = np.where(scores > 40, 1, -1)                      # only here do both definitions of the area agree
    labels[scores.argmin()] = 1
    assert average_precision(scores[:, None], labels[:, None])[0] == pytest.approx(metrics.average_precision_score(labels > 0, scores))


# ---------------------------------------------------------------------------------------------------- results' files
def test_the_files_for_the_server_have_a_line_a_picture_and_a_file_a_class(root, tmp_path):
    data = open_voc(root)
    scores = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    place = write_results(tmp_path / "out", data.names, scores)
    assert place == tmp_path / "out/results/VOC2012/Main"
    assert sorted(path.name for path in place.iterdir()) == [f"comp2_cls_test_{name}.txt" for name in CLASSES]
    lines = [line.split(" ") for line in (place / "comp2_cls_test_dog.txt").read_text().splitlines()]
    assert [id for id, _ in lines] == ["2008_1", "2008_2", "2008_3", "2008_4"]
    assert np.array_equal(np.array([score for _, score in lines], np.float32), scores[:, DOG])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_keep_their_order_in_the_files_however_close_they_are(tmp_path, kind):
    scores = np.full((3, 20), kind(1e-7))
    scores[1] = np.nextafter(kind(1e-7), kind(1))
    scores[2] = np.nextafter(kind(1e-7), kind(0))
    place = write_results(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], scores, year=2007, part="val", competition="comp1")
    text = (place / "comp1_cls_val_tvmonitor.txt").read_text()
    assert place.parts[-2] == "VOC2007" and np.array_equal(kind([line.split()[1] for line in text.splitlines()]), scores[:, -1])


def test_results_that_cannot_be_right_are_not_written(tmp_path):
    for names, scores, sentence in ((["a"], np.zeros((1, 19)), "scores: expected shape"),
                                    (["a"], np.zeros((2, 20)), "scores: expected shape"),
                                    (["a"], np.full((1, 20), np.nan), "scores: expected finite values")):
        with pytest.raises(Expected, match=sentence):
            write_results(tmp_path / "out", names, scores)
    with pytest.raises(Expected, match="competition: expected one of comp1, comp2"):
        write_results(tmp_path / "out", ["a"], np.zeros((1, 20)), competition="comp3")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(Expected, match="expected a folder that can be made"):
        write_results(tmp_path / "file", ["a"], np.zeros((1, 20)))


# ------------------------------------------------------------------------------------------------------- real pictures
@needs("voc_format")
def test_a_tree_of_the_voc_format_agrees_with_its_files_of_single_classes(capsys):
    train, val, both = (open_voc(REAL_DATA/"voc_format", part) for part in ("train", "val", "trainval"))
    assert (len(train), len(val), len(both)) == (149, 152, 301) and capsys.readouterr().err == ""
    assert sorted(train.names + val.names) == sorted(both.names)
    assert (both.labels > 0).sum(axis=0)[[COW, CLASSES.index("horse"), CLASSES.index("bus")]].tolist() == [0, 0, 2]
    assert ((both.labels >= 0).sum(axis=1) > 1).sum() == 48 and both.picture(300).mode == "RGB"
