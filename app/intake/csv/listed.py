"""Reads lists of `name : value` lines: vertical tables, or the output of PowerShell's Format-List.

A block of such lines is a device, or several devices in columns after the names. The next block begins with a
name that occurred before, or after an empty line.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from app.intake import columns, profiles
from app.intake.columns import IDENTITY, MAX_NAME, normalise
from app.intake.json_lines import Plans
from app.intake.profiles import Profile
from app.intake.row_builder import MAX_ROWS, too_many_rows, with_guess
from app.intake.table import MAX_CELLS, MAX_FIELD, Dialect, Encoding, Head, Kind, Notice, Row, Source
from app.intake.text import encodings
from app.intake.text.encodings import Text
from app.intake.text.records import MAX_LINE, cells_of, lines

LEAST_NAMES: Final = 2
"""How many known names make a block."""
WITHIN: Final = 20
"""The first name must be among this many lines."""
_SEPARATORS: Final = (":", "=", ",", ";", "\t", "|")
_PROPERTY: Final = (":", "=")
"""Separators between a name and a single value. The others belong to tables."""

_IN_FRONT: Final = Notice(
    "names_beside_values",
    "Each name comes before its value, one pair per line; each block of them was read as a device.",
)


class _Line(NamedTuple):
    name: str
    values: list[str]


class _Block:
    """Lines of one device, or of several beside each other."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.lines: list[_Line] = []
        self.notices: list[Notice] = []
        self._names: set[str] = set()

    def add(self, found: _Line) -> None:
        if len(self.lines) < MAX_CELLS:
            self.lines.append(found)
            self._names.add(normalise(found.name))

    def has(self, name: str) -> bool:
        return normalise(name) in self._names

    def goes_on(self, text: str) -> None:
        """The rest of a value that the console has wrapped."""
        values = self.lines[-1].values if self.lines else []
        if values and len(values[-1]) + len(text) <= MAX_FIELD:
            values[-1] += text

    def rows(self) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        names = tuple(found.name for found in self.lines)
        for at in range(max((len(found.values) for found in self.lines), default=0)):
            cells = [found.values[at] if at < len(found.values) else "" for found in self.lines]
            if any(cell.strip() for cell in cells):
                yield names, cells


def separator_of(sample: Sequence[str], profile: Profile | None) -> str | None:
    """The separator after the names, from the first lines; None for other arrangements."""
    field_of = profiles.names_of(profile)
    for separator in _SEPARATORS:
        # The first lines of most files show that they are not of this kind.
        if not any(separator in line for line in sample[:WITHIN]):
            continue
        if sum(_field(line, separator, field_of) is not None for line in sample[: 2 * WITHIN]) < LEAST_NAMES:
            continue
        found = [_parsed(line, separator) for line in sample]
        fields = [field_of(line.name) if line is not None else None for line in found]
        at = next((at for at, field in enumerate(fields[:WITHIN]) if field is not None), None)
        if at is None or not _is_block(fields[at:], separator):
            continue
        values = [value for line in found[at : at + 3] if line is not None for value in line.values]
        if not any(field_of(value) for value in values):
            return separator
    return None


def _field(line: str, separator: str, field_of: Callable[[str], str | None]) -> str | None:
    return field_of(line.partition(separator)[0].strip().strip("\"'\ufeff"))


def _is_block(fields: Sequence[str | None], separator: str) -> bool:
    """Whether different fields' names come below each other, with an identity among them."""
    block: list[str] = []
    for field in fields:
        if field in block:
            break
        if field is not None:
            block.append(field)
        elif separator not in _PROPERTY:
            break
    if len(block) < 2 or not set(block) & IDENTITY:
        return False
    return separator in _PROPERTY or 2 * sum(field is not None for field in fields) > len(fields)


def read(
    head: Head, stream: Source, encoding: Encoding, separator: str, profile: Profile | None
) -> tuple[Dialect, Iterator[Row]]:
    plans = Plans(profile)
    first = next(_blocks(Text(head, None, encoding), separator), None)
    names = tuple(found.name for found in first.lines) if first is not None else ()
    resolved = plans.of(names).columns
    plans.told.update((notice.code, notice.column) for notice in resolved.notices)
    dialect = Dialect(
        format="delimited",
        kind=Kind.GENERIC,
        encoding=encoding.name,
        delimiter=separator,
        header_row=None,
        columns=resolved.pairs,
        notices=(_IN_FRONT, *resolved.notices),
    )
    rows = _rows(Text(head, stream, encoding), separator, plans)
    guess = encodings.guess_in_words(encoding)
    return dialect, (with_guess(row, guess) for row in rows) if guess else rows


def _rows(text: Text, separator: str, plans: Plans) -> Iterator[Row]:
    number = 0
    for block in _blocks(text, separator):
        for names, cells in block.rows():
            plan = plans.of(names)
            number += 1
            if number > MAX_ROWS:
                raise too_many_rows()
            yield plan.row(number, block.line, cells, (*block.notices, *plans.news(plan)))


def _blocks(text: Text, separator: str) -> Iterator[_Block]:
    block = _Block(1)
    for at, line in enumerate(lines(text), start=1):
        found = _parsed(line, separator)
        if found is None:
            if not line.strip() and _is_device(block):
                yield block
                block = _Block(at)
            elif line[:1] in (" ", "\t"):
                block.goes_on(line.strip())
            continue
        if block.has(found.name):
            yield block
            block = _Block(at)
        if not block.lines:
            block.line = at
        block.add(_mended(text, at, found, block.notices))
    if block.lines:
        yield block


def _is_device(block: _Block) -> bool:
    return any(columns.field_of(found.name) in IDENTITY for found in block.lines)


def _mended(text: Text, line: int, found: _Line, notices: list[Notice]) -> _Line:
    if not text.damaged:
        return found
    values = text.mend_cells(line, found.values, notices)
    notices[:] = sorted(set(notices), key=lambda notice: notice.code)
    return _Line(text.mend(found.name)[0], values)


def _parsed(line: str, separator: str) -> _Line | None:
    """None for a line without a name."""
    if len(line) > MAX_LINE or line[:1].isspace() or separator not in line[: MAX_NAME * 2]:
        return None
    if separator in _PROPERTY:
        name, _, value = line.partition(separator)
        values = [value.strip()]
    else:
        name, *values = cells_of(line, separator)[:MAX_CELLS]
    name = name.strip().strip("\ufeff")
    if not name or len(name) > MAX_NAME or not any(map(str.isalpha, name)):
        return None
    return _Line(name, [value if len(value) <= MAX_FIELD else "" for value in values])
