"""The shape that the rows of a sheet have in common: one pattern for whole rows, learned from them.

A program writes the rows of a sheet alike: the same columns with the same types and styles. A
pattern of just these takes a chunk of rows apart in one call, and what its columns hold is then
looked up a column at a time: five times as fast as cell by cell. It is learned from rows that were
understood already and fits no others; the first one that it does not fit ends what it takes.
"""

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import repeat
from typing import Final, NamedTuple

from app.intake.cells import Mark, SheetRow, Values
from app.intake.records import MAX_FIELD, Block
from app.intake.table import Notice
from app.intake.texts import LOST_CHARACTER, has_escapes

MAX_TRIES: Final = 16
"""Rows of one sheet that are looked at to learn from: what is still different is taken apart by itself."""
MAX_SLOTS: Final = 64

HIDDEN: Final = r"""\s(?:hidden=["'](?:1|true|on)["']|ht=["']0(?:\.0*)?["'])"""
"""A pattern of what hides a row, among its attributes."""

Found = tuple[str, str, str, str, str, str]
"""A cell as the general pattern finds it: letters, style, type, and its value as one of three."""


class _Form(Enum):
    """How a cell is written behind its attributes, as a pattern."""

    SHARED = "><v>([0-9]{1,9})</v></c>"
    VALUE = "><v>([^<&]+)</v></c>"
    INLINE = '><is><t(?: xml:space="preserve")?>([^<&]+)</t></is></c>'
    EMPTY = "/>"


class _Slot(NamedTuple):
    """Cells of one column that are read in one way. A style counts for numbers only."""

    at: int
    letters: str
    form: _Form
    type_: str
    style: str


class Shape:
    """What is known of the rows of one sheet."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._tries = 0
        self._seen: dict[_Slot, set[str]] = {}
        """The attributes that the cells of each slot had."""
        self._slots: list[_Slot] = []
        """Those that have a group in the pattern; the row's number is in front of them, a rest behind."""
        self._pattern: re.Pattern[str] | None = None

    def learn(self, cells: Sequence[Found]) -> bool:
        """Make room for a row like this one. False when it cannot be, or is not worth it."""
        if self._tries == MAX_TRIES:
            return False
        self._tries += 1
        seen = {slot: set(attributes) for slot, attributes in self._seen.items()}
        last = -1
        for cell in cells:
            slot = self._slot(cell)
            if slot.at <= last:
                return False
            last = slot.at
            seen.setdefault(slot, set()).add(_attributes(cell))
        slots = [slot for slot in sorted(seen, key=lambda slot: slot.at) if slot.form is not _Form.EMPTY]
        if seen == self._seen or not slots or len(seen) > MAX_SLOTS:
            return False
        self._seen, self._slots, self._pattern = seen, slots, _pattern(seen)
        return True

    def take(self, text: str, at: int) -> tuple[list[tuple[str, ...]], int]:
        """The rows from there on, as groups of the pattern, and where the first is that it does not fit."""
        if self._pattern is None:
            return [], at
        found: list[tuple[str, ...]] = self._pattern.findall(text, at)
        rest = found[-1][-1]
        if rest:
            found.pop()
        return found, len(text) - len(rest)

    def rows(self, found: list[tuple[str, ...]], after: int) -> tuple[Block | list[SheetRow], int]:
        """What `take` found below a line, and the last one's line."""
        lines, *groups, _ = zip(*found, strict=True)
        columns: list[Iterable[str]] = [repeat("")] * (self._slots[-1].at + 1)
        written: dict[int, Sequence[str]] = {}
        remarks = _Remarks([], [])
        for slot, group in zip(self._slots, groups, strict=True):
            values = self._plain(slot, group) or self._judged(slot, group, remarks)
            is_other = slot.at in written
            columns[slot.at] = _merged(columns[slot.at], values) if is_other else values
            written[slot.at] = _merged(written[slot.at], group) if is_other else group
        cells = list(map(list, zip(*columns, strict=False)))
        numbers = list(map(int, lines))
        begin, end = numbers[0], numbers[0] + len(numbers)
        is_even = begin > after and "" not in written[len(columns) - 1] and not remarks.any()
        if is_even and numbers == list(range(begin, end)):
            return Block(begin, cells), end - 1
        return _uneven(numbers, cells, written, remarks, after)

    def _slot(self, cell: Found) -> _Slot:
        letters, style, type_, digits, other, inline = cell
        if type_ == "s" and digits:
            form = _Form.SHARED
        elif digits or other:
            form = _Form.VALUE
        else:
            form = _Form.INLINE if inline else _Form.EMPTY
        return _Slot(
            self._values.places[letters], letters, form, type_, "" if type_ not in ("", "n") else style
        )

    def _plain(self, slot: _Slot, group: Sequence[str]) -> Sequence[str] | None:
        """The texts of a column at once. None when there is more to its cells than their texts."""
        if slot.form is _Form.SHARED:
            texts = self._values.texts
            try:
                return None if texts.has_odd else texts.of(group)
            except IndexError:
                return None
        if slot.type_ not in ("str", "inlineStr"):
            return None
        joined = "".join(group)
        is_odd = has_escapes(joined) or LOST_CHARACTER in joined or max(map(len, group)) > MAX_FIELD
        return None if is_odd else group

    def _judged(self, slot: _Slot, group: Sequence[str], remarks: "_Remarks") -> list[str]:
        """The same cell by cell."""
        if not remarks.marks:
            remarks.marks.extend([] for _ in group)
            remarks.flaws.extend([] for _ in group)
        of, (at, _, _, type_, style) = self._values.of, slot
        return [
            of(at, type_, style, text, marks, flaws) if text else ""
            for text, marks, flaws in zip(group, *remarks, strict=True)
        ]


class _Remarks(NamedTuple):
    """Of each row, once one of them may have some."""

    marks: list[list[tuple[int, Mark]]]
    flaws: list[list[Notice]]

    def any(self) -> bool:
        return any(self.marks) or any(self.flaws)

    def of(self, place: int) -> tuple[list[tuple[int, Mark]], tuple[Notice, ...]]:
        return (self.marks[place], tuple(self.flaws[place])) if self.marks else ([], ())


def _uneven(
    numbers: list[int],
    cells: list[list[str]],
    written: dict[int, Sequence[str]],
    remarks: _Remarks,
    after: int,
) -> tuple[list[SheetRow], int]:
    """Rows that differ in their last cell, that have remarks, or that leave out lines."""
    rows = []
    for place, (number, row) in enumerate(zip(numbers, cells, strict=True)):
        after = max(after + 1, number)
        while row and not ((group := written.get(len(row) - 1)) and group[place]):
            # A row ends with the last cell that has something in it.
            row.pop()
        if row:
            rows.append(SheetRow(after, row, *remarks.of(place)))
    return rows, after


def _merged(one: Iterable[str], other: Sequence[str]) -> list[str]:
    return [a or b for a, b in zip(one, other, strict=True)]


def _attributes(cell: Found) -> str:
    _, style, type_, *_ = cell
    return (f' s="{style}"' if style else "") + (f' t="{type_}"' if type_ else "")


def _pattern(seen: dict[_Slot, set[str]]) -> re.Pattern[str]:
    """A row in which each of the cells may be missing, or else all that is left.

    The groups of cells are atomic: a row that does not fit is not tried with fewer and fewer of them.
    """
    ways: dict[str, list[str]] = {}
    for slot in sorted(seen, key=lambda slot: slot.at):
        ways.setdefault(slot.letters, []).append(f"(?:{'|'.join(sorted(seen[slot]))}){slot.form.value}")
    cells = "".join(f'(?><c r="{letters}[0-9]{{1,7}}"(?:{"|".join(had)})|)' for letters, had in ways.items())
    row = f'\\s*<row r="([0-9]{{1,9}})"(?![^<>]*{HIDDEN})(?: [^<>]*)?(?<!/)>'
    return re.compile(f"{row}{cells}</row>|(.+)", re.DOTALL)
