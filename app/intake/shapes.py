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
from typing import Final

from app.intake.cells import EXACT, Mark, SheetRow, Values, style_number
from app.intake.parts import Styles
from app.intake.records import MAX_FIELD, Block
from app.intake.texts import LOST_CHARACTER

MAX_TRIES: Final = 16
"""Rows of one sheet that are looked at to learn from: what is still different is taken apart by itself."""
MAX_COLUMNS: Final = 64

Found = tuple[str, str, str, str, str, str]
"""A cell as the general pattern finds it: letters, style, type, and its value as one of three."""


class _Form(Enum):
    """How a cell is written behind its attributes. Its value is the pattern of it."""

    SHARED = "><v>([0-9]{1,9})</v></c>"
    NUMBER = "><v>([0-9]{1,%d})</v></c>" % EXACT  # noqa: UP031 - its braces are the pattern's
    TEXT = "><v>([^<&]+)</v></c>"
    INLINE = '><is><t(?: xml:space="preserve")?>([^<&]+)</t></is></c>'
    EMPTY = "/>"


_Place = tuple[int, str]
"""A column by its position and its letters."""


class Shape:
    """What is known of the rows of one sheet."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._tries = 0
        self._forms: dict[_Place, dict[_Form, set[str]]] = {}
        """The attributes that were seen with each form in each column."""
        self._slots: list[tuple[int, _Form]] = []
        """The columns and forms that the groups of the pattern have; a line is in front, a rest behind."""
        self._pattern: re.Pattern[str] | None = None

    def learn(self, cells: Sequence[Found]) -> bool:
        """Make room for a row like this one. False when it can not be, or is not worth it."""
        if self._tries == MAX_TRIES:
            return False
        self._tries += 1
        forms = {place: {form: set(seen) for form, seen in had.items()} for place, had in self._forms.items()}
        last = -1
        for cell in cells:
            at, form = self._values.places[cell[0]], _form(cell, self._values.styles)
            if at <= last or form is None:
                return False
            last = at
            forms.setdefault((at, cell[0]), {}).setdefault(form, set()).add(_attributes(cell))
        if forms == self._forms or len(forms) > MAX_COLUMNS:
            return False
        slots = [(at, form) for (at, _), had in sorted(forms.items()) for form in had]
        slots = [slot for slot in slots if slot[1] is not _Form.EMPTY]
        if not slots:
            return False
        self._forms, self._slots = forms, slots
        self._pattern = _pattern(forms)
        return True

    def take(self, text: str, at: int) -> tuple[list[tuple[str, ...]], int]:
        """The rows from there on, as groups of the pattern, and where the first is that it does not fit."""
        if self._pattern is None or self._values.texts.has_odd:
            return [], at
        found: list[tuple[str, ...]] = self._pattern.findall(text, at)
        rest = found[-1][-1]
        if rest:
            found.pop()
        return found, len(text) - len(rest)

    def rows(self, found: list[tuple[str, ...]], after: int) -> tuple[Block | list[SheetRow], int] | None:
        """What `take` found below a line, and the last one's line. None when a value needs a closer look."""
        lines, *groups, _ = zip(*found, strict=True)
        written: dict[int, Sequence[str]] = {}
        columns: list[Iterable[str]] = [repeat("")] * (self._slots[-1][0] + 1)
        numeric: list[tuple[int, Sequence[str]]] = []
        for (at, form), group in zip(self._slots, groups, strict=True):
            values = self._texts(form, group)
            if values is None:
                return None
            is_other = at in written
            columns[at] = _merged(columns[at], values) if is_other else values
            written[at] = _merged(written[at], group) if is_other else group
            if form is _Form.NUMBER:
                numeric.append((at, group))
        cells = list(map(list, zip(*columns, strict=False)))
        numbers = list(map(int, lines))
        begin, end = numbers[0], numbers[0] + len(numbers)
        is_even = begin > after and "" not in written[len(columns) - 1] and not numeric
        if is_even and numbers == list(range(begin, end)):
            return Block(begin, cells), end - 1
        return _uneven(numbers, cells, written, numeric, after)

    def _texts(self, form: _Form, group: Sequence[str]) -> Sequence[str] | None:
        if form is _Form.SHARED:
            try:
                return self._values.texts.of(group)
            except IndexError:
                return None
        if form is not _Form.NUMBER:
            joined = "".join(group)
            if max(map(len, group)) > MAX_FIELD or LOST_CHARACTER in joined or "_x" in joined:
                return None
        return group


def _uneven(
    numbers: list[int],
    cells: list[list[str]],
    written: dict[int, Sequence[str]],
    numeric: list[tuple[int, Sequence[str]]],
    after: int,
) -> tuple[list[SheetRow], int]:
    """Rows that differ in their last cell or their marks, or that leave out lines."""
    rows = []
    for place, (number, row) in enumerate(zip(numbers, cells, strict=True)):
        after = max(after + 1, number)
        while row and not ((group := written.get(len(row) - 1)) and group[place]):
            # A row ends with the last cell that has something in it.
            row.pop()
        if row:
            marks = [(at, Mark.NUMBER) for at, group in numeric if group[place]]
            rows.append(SheetRow(after, row, marks, ()))
    return rows, after


def _merged(one: Iterable[str], other: Sequence[str]) -> list[str]:
    return [a or b for a, b in zip(one, other, strict=True)]


def _form(cell: Found, styles: Styles) -> _Form | None:
    """None for a cell that needs a closer look each time."""
    _, style, type_, digits, other, inline = cell
    value = digits or other
    if not value:
        form = _Form.INLINE if inline else _Form.EMPTY
        return None if inline and type_ not in ("str", "inlineStr") else form
    if type_ == "s":
        return _Form.SHARED if digits else None
    if type_ in ("str", "inlineStr"):
        return _Form.TEXT
    is_plain = value.isascii() and value.isdecimal() and len(value) <= EXACT
    is_shown = style_number(style) not in styles.dates and style_number(style) not in styles.digits
    return _Form.NUMBER if type_ in ("", "n") and is_plain and is_shown else None


def _attributes(cell: Found) -> str:
    _, style, type_, *_ = cell
    return (f' s="{style}"' if style else "") + (f' t="{type_}"' if type_ else "")


def _pattern(forms: dict[_Place, dict[_Form, set[str]]]) -> re.Pattern[str]:
    """A row in which each of the cells may be missing, or else all that is left.

    The groups of cells are atomic: a row that does not fit is not tried with fewer and fewer of them.
    """
    cells = ""
    for (_, letters), had in sorted(forms.items()):
        ways = "|".join(f"(?:{'|'.join(sorted(seen))}){form.value}" for form, seen in had.items())
        cells += f'(?><c r="{letters}[0-9]{{1,7}}"(?:{ways})|)'
    return re.compile(f'\\s*<row r="([0-9]{{1,9}})"(?: [^<>]*)?(?<!/)>{cells}</row>|(.+)', re.DOTALL)
