"""PASCAL VOC, classification task (table 6): pictures that show several classes, and how a ranking of them is scored.

    VOCdevkit/VOC2012/Annotations/2008_000008.xml       every object of a picture: class, difficult or not
                      JPEGImages/2008_000008.jpg
                      ImageSets/Main/trainval.txt       the pictures of a part, one a line; train, val, test alike
                      ImageSets/Main/dog_trainval.txt   the same with what each says of dogs: 1, -1, 0 (only difficult ones)
                      labelmap.txt or classes.txt       of a set with classes of its own: their names, one a line

The XML is what counts; the files of single classes are compared with it where they are present. The labels of the test
part are kept by the evaluation server, for which `write_results` writes. Annotations are taken as people's tools write them:
flags in words or empty, pictures listed with their suffix or in quotes, spaces in their names, further elements of any kind.
What is no annotation of the set's classes is a damaged picture.

The paper trains a softmax over the 20 classes and does not say what it does with a picture that shows several. Here such a
picture is an example of each (`examples`). Its "Acc %" can only be average precision, which is what the server returns.
"""
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.check import Expected
from zfcore.checkpoint import atomic
from zfcore.data.folders import Folder, PictureFiles, Tar, is_picture
from zfcore.data.loader import MOST_DAMAGED
from zfcore.files import file_names, inside
from zfcore.hints import FilePath
from zfcore.terminal import counted, plural, printable, warn

CLASSES = ("aeroplane bicycle bird boat bottle bus car cat chair cow "
           "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor").split()
MAIN = "ImageSets/Main/"
LISTS = "labelmap.txt", "classes.txt"      # as CVAT writes it: "name:colour:parts:actions", a comment first; as others do
MOST_CLASSES = 10_000
FLAGS = {**dict.fromkeys(("", "0", "false", "no", "unspecified"), False), **dict.fromkeys(("1", "true", "yes"), True)}


def open_voc(root: FilePath, part: str = "trainval", year: int | None = None, shorter_side: int | None = None) -> "VOC":
    """The pictures that ImageSets/Main/<part>.txt lists: a `VOC`. `root` is VOCdevkit or an uncompressed tar of it, a folder
    that holds one of these, or one year's folder; `year` is 2007, 2012, ..., the latest that is there if it is not given.

    Left out with a line on standard error: listed pictures that are missing, have no annotation, one without objects, or one
    that is damaged or names no class of the set.
    Where the file of a single class contradicts the XML, a line says so. Above 1 % of either, and for anything else that is
    not as it should be, Expected is raised, naming file and line. In the part "test" annotations may be missing altogether."""
    root = Path(root)
    try:
        source, years = _find_years(root)
        if year is not None and year not in years:
            raise Expected(root, f"VOC{year}", ", ".join(f"VOC{found}" for found in sorted(years)))
        year = max(years) if year is None else year
        return VOC(source, years[year], year, part, shorter_side)
    except OSError as error:
        raise Expected(root, "a folder or tar that can be read", f"{error.strerror} ({error.filename})") from None


class VOC(PictureFiles):
    """A data set as `zfcore.data.folders` says, but with a row of labels for each picture. Made by `open_voc`.

    classes  VOC's 20, or those that the set lists, (C,)
    labels   int8 (n,C); 1: shows an object of the class, -1: does not, 0: only difficult ones, or it is not known
    year     the number in the name of its folder, 0 where there is none        part   such as "trainval" """

    def __init__(self, source, prefix, year, part, shorter_side):
        self.classes, self.year, self.part = _classes(source, prefix), year, part
        lists = set(source.files(prefix + MAIN))
        check.one_of(f"{source.path}/{prefix}{MAIN}: part", part, _parts(lists, self.classes))
        there = {PurePosixPath(name).stem: name for name in sorted(source.files(f"{prefix}JPEGImages/")) if is_picture(name)}
        listed = _table(source, f"{prefix}{MAIN}{part}.txt", there)
        kept, self.labels = _labels(source, prefix, part, listed, there, self.classes)
        pictures = [picture for _, picture in kept]
        super().__init__(f"{_name(source, prefix)}/JPEGImages", source, f"{prefix}JPEGImages/", pictures, shorter_side)
        _compare(source, prefix, part, lists, [id for id, _ in kept], self.labels, self.classes, there)


def examples(labels: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pictures, classes), (m,) each: a pair for each class that a picture shows, to train one softmax on all of them.

    A picture of three classes is so three examples, which pull its softmax towards a third each. Ours: the paper does not
    say how. Classes of which it shows only difficult objects are no example."""
    return np.nonzero(np.asarray(labels) > 0)              # type: ignore[return-value]


# -------------------------------------------------------------------------------------------------- what lies where
def _find_years(root):
    """(source, {2012: prefix}); the prefix is put before ImageSets/Main/."""
    if root.is_dir():
        source = Folder(root)
        found = [main.parents[1].relative_to(root).as_posix() for depth in ("", "*/", "*/*/")
                 for main in sorted(root.glob(depth + MAIN))]
        prefixes = [place.removeprefix(".") + "/"*(place != ".") for place in found]
        tars = sorted(root.glob("*.tar"))
        if prefixes or len(tars) != 1:
            return source, _by_year(source, prefixes)
        root = tars[0]
    elif not root.exists():
        raise Expected(root, "VOCdevkit, a folder or a tar", "nothing, it does not exist")
    source = Tar(root, wanted=lambda name: "/." not in name and (is_picture(name) or name.endswith((".xml", ".txt"))))
    return source, _by_year(source, sorted({name.partition(MAIN)[0] for name in source.members if MAIN in name}))


def _by_year(source, prefixes):
    if not prefixes:
        raise Expected(source.path, f"VOCdevkit, with VOC2012/{MAIN} in it", "a folder or tar without")
    named = [re.search(r"VOC(\d{4})", _name(source, prefix)) for prefix in prefixes]
    return {int(year[1]) if year else 0: prefix for year, prefix in zip(named[::-1], prefixes[::-1])}


def _name(source, prefix):
    """The name of a year's folder."""
    return PurePosixPath(prefix).name or Path(source.path).resolve().stem


def _classes(source, prefix):
    """The classes that a list in the year's folder names, VOC's 20 where there is none. The lists of other tools name the
    background too."""
    there = source.files(prefix)
    path = next((prefix + name for name in LISTS if name in there), None)
    if path is None:
        return CLASSES
    lines = [line.strip() for line in source.read(path).decode("utf-8-sig", "replace").splitlines()]
    names = [line.split(":")[0].strip() for line in lines if line and not line.startswith("#")]
    names = [name for name in names if name and name.lower() != "background"]
    if not 0 < len(names) == len(set(names)) <= MOST_CLASSES:
        raise Expected(f"{source.path}/{path}", "a class in each line, each once",
                       f"{len(names)}, {len(set(names))} of them different")
    return names


def _parts(lists, classes):
    """Names of the parts, of the files in ImageSets/Main those that are of no single class."""
    stems = sorted(name[:-4] for name in lists if name.endswith(".txt"))
    return [stem for stem in stems if not any(stem.startswith(f"{name}_") for name in classes)]


def _table(source, path, there, values=None):
    """{picture: (line, value)} of a file with a picture a line, followed by one of `values` if they are given; `there` are the
    pictures, {name without suffix: with}. A name may hold spaces, stand in quotes and have its suffix."""
    table = {}
    for line, text in enumerate(source.read(path).decode("utf-8-sig", "replace").splitlines(), 1):
        words = text.split()
        if not words:
            continue
        where, name = f"{source.path}/{path}:{line}", (text.strip().removesuffix(words[-1]) if values else text).strip().strip('"')
        stem = PurePosixPath(name).stem if is_picture(name) else name
        if stem in there:
            words = [stem, *words[-1:]*bool(values)]
        if len(words) != 1 + bool(values) or "/" in words[0] or values and words[1] not in values:
            expected = f"a picture and one of {' '.join(values)}" if values else "the name of one picture"
            raise Expected(where, expected, repr(text.strip()))
        if words[0] in table:
            raise Expected(where, "each picture once", f"{words[0]!r} a second time after line {table[words[0]][0]}")
        table[words[0]] = line, words[-1]
    if not table:
        raise Expected(f"{source.path}/{path}", "the name of a picture in each line", "an empty file")
    return table


def _labels(source, prefix, part, listed, pictures, classes):
    """([(picture without suffix, with)], labels int8 (n,C)) of the listed pictures that have all they need."""
    annotations = set(source.files(f"{prefix}Annotations/"))
    known = part != "test" or any(f"{id}.xml" in annotations for id in listed)
    kept, labels, faults = [], [], {}
    for id, (line, _) in counted(listed.items(), "picture", "annotations", stays=False):
        path, row = f"{prefix}Annotations/{id}.xml", np.zeros(len(classes), np.int8)
        if id not in pictures:
            faults[id] = f"{id} in line {line} (no such picture)"
        elif known and f"{id}.xml" not in annotations:
            faults[id] = f"{id} in line {line} (no annotation)"
        else:
            try:
                row = annotated(f"{source.path}/{path}", source.read(path), classes) if known else row
            except Expected as damage:
                faults[id] = f"{id} in line {line} ({damage})"
            except OSError as damage:
                faults[id] = f"{id} in line {line} ({damage.strerror or damage})"
            else:
                if row.max() < 0:
                    faults[id] = f"{id} in line {line} (an annotation without objects)"
                else:
                    kept.append((id, pictures[id]))
                    labels.append(row)
    _tell(f"{source.path}/{prefix}{MAIN}{part}.txt", "pictures that are there, with objects in their annotations", faults,
          len(listed), "left out")
    return kept, np.stack(labels)


def annotated(name: str, data: bytes, classes: Sequence[str] = CLASSES) -> NDArray[np.int8]:
    """The bytes of an annotation, called `name` in messages -> a row of labels, (C,), all -1 if it has no objects. An object
    that LabelMe marks as deleted is none.

    Nothing is expanded or fetched: a DOCTYPE, without which there are no entities, is refused. Raises Expected."""
    row, path, text, objects = np.full(len(classes), -1, np.int8), [], [], []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(expected, got):
        raise Expected(f"{name}:{parser.CurrentLineNumber}", expected, got)

    def start(tag, attributes):
        path.append(tag)
        text.clear()
        if path[0] != "annotation":
            refuse("an <annotation>", f"<{path[0]}>")
        if path == ["annotation", "object"]:
            objects.append({"difficult": False, "deleted": False})

    def end(tag):
        value = "".join(text).strip()
        if path == ["annotation", "object"] and "name" not in objects[-1]:
            refuse("a <name> in each <object>", "none")
        if path == ["annotation", "object", tag]:          # not deeper: a person's head and hands have names too
            if tag == "name" and (value not in classes or "name" in objects[-1]):
                refuse(f"the name of one of the {plural(len(classes), 'class')}",
                       f"{value!r} beside another" if value in classes else repr(value))
            if tag in ("difficult", "deleted") and value.lower() not in FLAGS:
                refuse(f"0 or 1 as <{tag}>", repr(value))
            if tag in ("name", "difficult", "deleted"):
                objects[-1][tag] = value if tag == "name" else FLAGS[value.lower()]
        path.pop()
        text.clear()

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.StartDoctypeDeclHandler = lambda *_: refuse("an annotation without DOCTYPE and entities", "a DOCTYPE")
    try:
        parser.Parse(data, True)
    except Expected:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:          # the last two: encodings that nobody knows
        raise Expected(f"{name}:{parser.CurrentLineNumber}", "well-formed XML", error) from None
    for thing in objects:
        if not thing["deleted"]:
            c = classes.index(thing["name"])
            row[c] = max(row[c], 0 if thing["difficult"] else 1)
    return row


def _compare(source, prefix, part, lists, ids, labels, classes, there):
    """Hold what the files of single classes say of the pictures `ids` against their labels."""
    faults = {}
    for c, name in enumerate(classes):
        file = f"{name}_{part}.txt"
        table = _table(source, f"{prefix}{MAIN}{file}", there, ("1", "-1", "0")) if file in lists else {}
        for id, label in zip(ids, labels[:, c].tolist()):
            line, value = table.get(id, (0, label))
            if int(value) != label:
                faults.setdefault(id, f"{file}:{line} says {value} where Annotations/{id}.xml makes it {label}")
    _tell(f"{source.path}/{prefix}{MAIN}*_{part}.txt", "the labels that the annotations give", faults, len(ids),
          "have other labels than their annotations, which are followed")


def _tell(what, expected, faults, total, done):
    """Report on what was done about `faults` {picture: sentence} of `total` pictures, on standard error; above 1 %,
    Expected."""
    if not faults:
        return
    first = ", ".join([*faults.values()][:3]) + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")
    if len(faults) > MOST_DAMAGED*total:
        raise Expected(what, f"{expected} but for 1 % of them at most", f"{len(faults)} of {total} otherwise: {first}")
    warn(printable(f"{what}: {len(faults)} of {plural(total, 'picture')} {done}: {first}"))


# ------------------------------------------------------------------------------------------------ average precision
def average_precision(scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]],
                      definition: Literal["2010", "11-point"] = "2010") -> NDArray[np.float64]:
    """Average precision of each class, (K,), 0..1; NaN for a class without positive pictures.

    scores      (n,K), the higher the surer that the picture shows the class
    labels      (n,K), as those of `VOC`: pictures with 0 are left out, neither right nor wrong
    definition  "2010": the area under the precision over recall, precision being the best at that recall or a higher
                one; VOC2010 to 2012, table 6. "11-point": the mean of that precision at recalls 0, 0.1, ..., 1; VOC2007 to 2009

    Pictures are ranked by descending score; those of equal score stay in their order, as in the development kit, whose
    sort is stable. Raises Expected for scores that are not finite or a definition that does not exist."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    check.one_of("definition of average precision", definition, _DEFINITIONS)
    check.shape("scores", scores, labels.shape)
    check.finite("scores", scores)
    return np.array([_of_one_class(scores[:, c], labels[:, c], _DEFINITIONS[definition]) for c in range(labels.shape[1])])


def mean_average_precision(scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]],
                           definition: Literal["2010", "11-point"] = "2010") -> float:
    """The mean over the classes that have positive pictures; NaN if none has."""
    precisions = average_precision(scores, labels, definition)
    there = ~np.isnan(precisions)
    return float(precisions[there].mean()) if there.any() else float("nan")


def _of_one_class(scores, labels, definition):
    scores, labels = scores[labels != 0], labels[labels != 0]
    positive = labels[np.argsort(-scores, kind="stable")] > 0
    if not positive.any():
        return float("nan")
    found = positive.cumsum()                                              # positives down to each rank
    precision = found/np.arange(1, len(found) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]                    # at this rank or further down
    return definition(positive, found, best)


def _area(positive, found, best):
    return best[positive].mean()                 # recall grows by 1/positives at each positive, and nowhere else


def _eleven_points(positive, found, best):
    # recall >= t/10 in whole numbers: 3/10 and 0.3 need not be the same float
    ranks = [np.argmax(10*found >= t*found[-1]) for t in range(11)]
    return best[ranks].mean()


_DEFINITIONS = {"2010": _area, "11-point": _eleven_points}


# ---------------------------------------------------------------------------------------------- the evaluation server
def write_results(folder: FilePath, names: Sequence[str], scores: NDArray[np.floating[Any]], year: int = 2012,
                  part: str = "test", competition: Literal["comp1", "comp2"] = "comp2",
                  classes: Sequence[str] = CLASSES) -> Path:
    """Write what the VOC evaluation server takes, a file a class, and return where they lie:
    `folder`/results/VOC<year>/Main/<competition>_cls_<part>_<class>.txt, a line "<picture> <score>" for each picture.

    names        as a data set's `names`; a picture's is what the file is called, without folder and suffix
    scores       (n,C), written with as many digits as tell two of their type apart
    competition  "comp1": trained on VOC's own pictures only. "comp2": on any, such as ImageNet's

    To submit, pack the folder `results`. Raises Expected."""
    scores, names = np.asarray(scores), [PurePosixPath(name).stem for name in check.names("names", names, none=True)]
    classes = check.names("classes", classes)
    check.one_of("competition", competition, ("comp1", "comp2"))
    check.shape("scores", scores, (len(names), len(classes)))
    check.finite("scores", scores)
    place = inside(folder, f"results/VOC{year}/Main")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Expected(place, "a folder that can be made", error.strerror) from None
    for c, name in enumerate(file_names(classes)):
        with atomic(place / f"{competition}_cls_{part}_{name}.txt") as temporary:
            temporary.write_text("".join(f"{id} {score!s}\n" for id, score in zip(names, scores[:, c])), encoding="utf-8")
    return place
