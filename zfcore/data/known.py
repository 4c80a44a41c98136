"""Pictures that a run knows by name: pictures.csv in its folder, a row each, so that it knows them again wherever they lie.

What is compared is (part, class, path below the part): the folders above, which a name shows too, may be others later."""
import csv
import os

from zfcore import check
from zfcore.data.folders import PARTS, PictureFiles, nfc
from zfcore.files import opener

PICTURES, COLUMNS = "pictures.csv", ("part", "class", "picture", "bytes")
MOST_LINE = 2**17                # characters of a row in it
MOST_ABOVE = 2                   # folders above those of classes, such as archive/train/
ADVICE = "without that file the run goes on with any pictures of its classes"


def listed_pictures(path):
    """Yield the rows of pictures.csv. Raises Expected for what is none."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape", opener=opener) as file:
            rows = csv.reader(iter(lambda: file.readline(MOST_LINE), ""))
            if (head := next(rows, None)) != [*COLUMNS]:
                raise check.Expected(path, f"a list of pictures under {','.join(COLUMNS)}",
                                     "an empty file" if head is None else "another file", ADVICE)
            for row in rows:
                if len(row) != 4:
                    raise check.Expected(f"{path}:{rows.line_num}", "part, class, picture and bytes", f"{len(row)} columns",
                                         ADVICE)
                yield row
            if rows.line_num == 1:
                raise check.Expected(path, "a list of one picture or more", "none", ADVICE)
    except (OSError, csv.Error) as error:
        raise check.Expected(path, "a list of pictures", getattr(error, "strerror", None) or error, ADVICE) from None


def places(part, dataset):
    """The (part, class, path below the part) of every picture of a data set."""
    below = dataset.below if isinstance(dataset, PictureFiles) else lambda i: dataset.names[i].removeprefix(f"{part}/")
    return [(part, dataset.classes[label], nfc(below(i))) for i, label in enumerate(dataset.labels.tolist())]


def lengths(dataset):
    """The bytes of every picture's file, as texts, "" where there is none or it is gone."""
    length = dataset.length if isinstance(dataset, PictureFiles) else lambda i: None
    return ["" if (size := length(i)) is None else str(size) for i in range(len(dataset.names))]


def listed_places(rows, there):
    """The same of the listed `rows`. Of their names as many folders are left out, the same number of all, as make most of them
    be `there`, a set of such places."""
    ways = ([(part, of, nfc(name).split("/", above)[-1]) for part, of, name, _ in rows] for above in range(MOST_ABOVE + 1))
    return max(ways, key=lambda found: len(there.intersection(found)))


def lie_apart(rows):
    """True where the pictures of the listed `rows` lay in a folder for each of the two parts, and nobody split them."""
    train, val = (os.path.commonpath([os.path.dirname(row[2]) for row in rows if row[0] == part] or [""]) for part in PARTS)
    return os.path.commonpath([train, val]) not in (train, val)
