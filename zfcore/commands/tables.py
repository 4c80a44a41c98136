"""Floor 8: tables that commands leave beside their figures."""
import csv

from zfcore.checkpoint import atomic


def write_csv(path, columns, rows):
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
