"""Pictures that a run knows by name: pictures.csv in its folder, a row each, so that it knows them again wherever they lie."""
import csv
import itertools

from zfcore import check
from zfcore.files import opener

PICTURES = "pictures.csv"
MOST_LINE = 2**17                # characters of a row in it
ADVICE = "without that file the run goes on with any pictures of its classes"


def listed_pictures(path):
    """Yield the rows of pictures.csv. Raises Expected for what is none."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape", opener=opener) as file:
            rows = csv.reader(iter(lambda: file.readline(MOST_LINE), ""))
            for row in itertools.islice(rows, 1, None):
                if len(row) != 4:
                    raise check.Expected(f"{path}:{rows.line_num}", "part, class, picture and bytes", f"{len(row)} columns", ADVICE)
                yield row
    except (OSError, csv.Error) as error:
        raise check.Expected(path, "a list of pictures", getattr(error, "strerror", None) or error, ADVICE) from None
