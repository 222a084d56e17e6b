"""Writes the file of rows to correct, and reads it back.

Users open it in a spreadsheet, correct the cells and upload it as it is. So it has the original columns
unchanged, after five of ours that say what is wrong. A reader that finds these five removes them; the rows
are then the same as in the first file.

Nothing in the file runs as a formula, whatever separator the spreadsheet uses. Most of Europe's spreadsheets
split a file with commas at semicolons: `x;=1` becomes two cells, and quotation marks and line breaks lose
their meaning. So wherever a cell could begin, even inside another one, a formula's first character gets an
apostrophe in front, which the reader removes again. All other text stays as it was.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from app.intake import columns
from app.intake.columns import WRITTEN
from app.intake.devices import kept_of
from app.intake.problems import Problem
from app.intake.profiles import Profile
from app.intake.table import Row

ADDED: Final = ("line", "row", "code", "problem", "remedy")
"""The names of our columns: the file's line, and the number of the row among the devices."""
_BEFORE: Final = ADDED[1:]
"""Our columns in older files, without the line."""

_BEGINS = r",;|\t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029"
"""Separators and line breaks after which some spreadsheet begins a cell."""
_PASSED_OVER = r"\s\"'\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
"""Characters that may precede a formula: blanks, quotation marks, and what a program drops or does not
show."""
_STARTS_FORMULA = r"=+\-@\uff1d\uff0b\uff0d\uff20"
"""The last four are the wide forms, which East Asian spreadsheets also accept."""
_CELL_BEGINS: Final = re.compile(f"([{_BEGINS}][{_PASSED_OVER}]*+)([{_STARTS_FORMULA}]?)")
"""It matches a whole run of such characters at once, so that a cell of nothing else is not slower."""
_UNNAMED: Final = re.compile(r"column [0-9]+'*")

Pairs = Sequence[tuple[str, str | None]]


class Corrections:
    """Writes the file piece by piece to `write`: CSV in UTF-8 with a byte order mark."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        pairs: Pairs,
        profile: Profile | None = None,
        *,
        with_hashes: bool = True,
    ) -> None:
        """`pairs` are the columns with their fields, as a dialect has them.

        Without hashes, the cells of hash columns are empty. No other cell ever holds a hash.
        """
        self._with_hashes = with_hashes
        self._write = write
        self._profile = profile
        self._pairs: Pairs = ()
        write(b"\xef\xbb\xbf")
        self._head(pairs)

    def add(self, row: Row, problems: Iterable[Problem]) -> None:
        self.add_cells(row.line, row.number, row.original, problems, row.columns)

    def add_cells(
        self, line: int, number: int, original: Sequence[str], problems: Iterable[Problem], pairs: Pairs = ()
    ) -> None:
        """Writes a row: its line, its number and all its cells; `pairs` if its columns differ from those
        before it.

        It lists all problems, errors first: a warning may explain them.
        """
        if pairs and pairs != self._pairs:
            self._head(pairs)
        found = sorted(problems, key=lambda problem: not problem.is_error)
        told = (
            str(line),
            str(number),
            " ".join(dict.fromkeys(problem.code for problem in found)),
            " ".join(dict.fromkeys(_words(problem) for problem in found)),
            " ".join(dict.fromkeys(problem.remedy for problem in found)),
        )
        cells = _values(self._pairs, original)
        fields = [field for _, field in self._pairs]
        if not self._with_hashes:
            own = {at for at, field in enumerate(fields) if field == "hardware_hash"}
            cells = ["" if at in own else cell for at, cell in enumerate(cells)]
        self._line([*told, *kept_of(cells, fields)])

    def _head(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._line([*ADDED, *(self._name(name, field) for name, field in pairs)])

    def _name(self, name: str, field: str | None) -> str:
        """The column's own name, unless only its content revealed the field, which may change."""
        if field is None or columns.field_of(name) == field:
            return name
        if self._profile is not None and not _UNNAMED.fullmatch(name):
            return name
        return WRITTEN[field]

    def _line(self, cells: Sequence[str]) -> None:
        csv.writer(_Encoded(self._write)).writerow([disarmed(cell) for cell in cells])


class _Encoded:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        self._write(text.encode())


def disarmed(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula. `rearmed` undoes it."""
    return cell if cell.isalnum() else _CELL_BEGINS.sub(_guarded, f"\n{cell}")[1:]


def rearmed(cell: str) -> str:
    return _CELL_BEGINS.sub(_unguarded, f"\n{cell}")[1:] if "'" in cell else cell


def _guarded(found: re.Match[str]) -> str:
    return f"{found[1]}'{found[2]}" if found[2] else found[1]


def _unguarded(found: re.Match[str]) -> str:
    return found[1].removesuffix("'") + found[2] if found[2] else found[1]


def added(cells: Sequence[str]) -> int:
    """How many of our columns a header begins with; 0 for other files."""
    names = [cell.strip().lower() for cell in cells[: len(ADDED)]]
    for ours in (ADDED, _BEFORE):
        if tuple(names[: len(ours)]) == ours and len(cells) > len(ours):
            return len(ours)
    return 0


def taken_off(cells: Sequence[str], count: int) -> list[str]:
    """A row of such a file without our columns."""
    return [rearmed(cell) for cell in cells[count:]] or [""]


def _words(problem: Problem) -> str:
    return f"{problem.column}: {problem.detail}" if problem.column else problem.detail


def _values(pairs: Pairs, original: Sequence[str]) -> Sequence[str]:
    """The cells without the names that a Configuration Manager report repeats in front of every row."""
    count = len(pairs)
    names = [columns.normalise(name) for name, _ in pairs]
    if len(original) > count > 1 and [columns.normalise(cell) for cell in original[:count]] == names:
        return original[count:]
    return original
