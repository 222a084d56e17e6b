"""The file of rows to be corrected: what was wrong in front, the row as it was behind, and back again.

A person opens it in a spreadsheet, mends the cells and uploads it as it is. So the original columns
stand untouched behind four of ours, and a reader that meets our four at the start takes them off:
the rows are then the same as in the first file. Cells that a spreadsheet would run as a formula get
an apostrophe in front, which the reader takes off again.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from app.intake import columns
from app.intake.columns import ALIASES
from app.intake.problems import Problem
from app.intake.profiles import Profile
from app.intake.table import Row

ADDED: Final = ("row", "code", "problem", "remedy")
"""The names of our columns."""

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_DISARMED: Final = re.compile(r"'+[=+\-@\t\r]")
_UNNAMED: Final = re.compile(r"column [0-9]+'*")

Pairs = Sequence[tuple[str, str | None]]


class Corrections:
    """Writes the file piece by piece through `write`, which gets bytes: CSV in UTF-8 with its mark."""

    def __init__(
        self, write: Callable[[bytes], object], pairs: Pairs, profile: Profile | None = None
    ) -> None:
        """`pairs` are the columns with their fields, as a dialect has them."""
        self._write = write
        self._profile = profile
        self._pairs: Pairs = ()
        write(b"\xef\xbb\xbf")
        self._head(pairs)

    def add(self, row: Row, problems: Iterable[Problem]) -> None:
        self.add_cells(row.number, row.original, problems, row.columns)

    def add_cells(
        self, number: int, original: Sequence[str], problems: Iterable[Problem], pairs: Pairs = ()
    ) -> None:
        """A row by its number and all its cells; `pairs` when its columns are not those before it."""
        if pairs and pairs != self._pairs:
            self._head(pairs)
        found = list(problems)
        told = (
            str(number),
            " ".join(dict.fromkeys(problem.code for problem in found)),
            " ".join(dict.fromkeys(_words(problem) for problem in found)),
            " ".join(dict.fromkeys(problem.remedy for problem in found)),
        )
        self._line([*told, *_values(self._pairs, original)])

    def _head(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._line([*ADDED, *(self._name(name, field) for name, field in pairs)])

    def _name(self, name: str, field: str | None) -> str:
        """The column's own name, unless the field was told by the content alone: that may change."""
        if field is None or columns.field_of(name) == field:
            return name
        if self._profile is not None and not _UNNAMED.fullmatch(name):
            return name
        return ALIASES[field][0]

    def _line(self, cells: Sequence[str]) -> None:
        csv.writer(_Encoded(self._write)).writerow([disarmed(cell) for cell in cells])


class _Encoded:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        self._write(text.encode())


def disarmed(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `rearmed` gives it back."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def rearmed(cell: str) -> str:
    return cell[1:] if _DISARMED.match(cell) else cell


def is_ours(cells: Sequence[str]) -> bool:
    """The header of a file that was written here."""
    return tuple(cell.strip().lower() for cell in cells[: len(ADDED)]) == ADDED and len(cells) > len(ADDED)


def taken_off(cells: Sequence[str]) -> list[str]:
    """A row of such a file as it was before our columns stood in front of it."""
    return [rearmed(cell) for cell in cells[len(ADDED) :]] or [""]


def _words(problem: Problem) -> str:
    return f"{problem.column}: {problem.detail}" if problem.column else problem.detail


def _values(pairs: Pairs, original: Sequence[str]) -> Sequence[str]:
    """Without the names that a Configuration Manager report repeats in front of every row."""
    count = len(pairs)
    names = [columns.normalise(name) for name, _ in pairs]
    if len(original) > count > 1 and [columns.normalise(cell) for cell in original[:count]] == names:
        return original[count:]
    return original
