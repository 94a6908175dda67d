"""Read totals from CSV files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import nullcontext

from django.core.management.base import CommandError

from ...exceptions import InvalidKey
from .asking import subject_named
from .seeding import ALREADY_SEEDED, Total

_HEADER = ["name", "total"]


def totals_of_csv(path: str) -> Iterator[Total]:
    """Yield the totals in a file with lines of name,total. The path "-" is standard input.

    Raises CommandError, which names the file and the line, if a line is not valid or the file
    cannot be read.
    """
    try:
        with (
            nullcontext(sys.stdin)
            if path == "-"
            else open(path, newline="", encoding="utf-8-sig") as file
        ):
            lines = csv.reader(file)
            for cells in lines:
                if cells and not (lines.line_num == 1 and cells == _HEADER):
                    yield _total(cells, f"{path}, line {lines.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"{path} cannot be read: {reason}.") from error


def _total(cells: list[str], where: str) -> Total:
    try:
        name, value = cells
        return Total(subject_named(name.strip()), int(value), where)
    except InvalidKey as error:
        problem = str(error)
    except ValueError:
        problem = f"{','.join(cells)!r} is not a name, a comma and an integer."
    raise CommandError(f"{where}: {problem} {ALREADY_SEEDED}")
