"""Builds rows from records of cells, with notices about odd ones.

All formats with a table end here, so that a row means the same whatever it was read from. The loop runs a
million times for a large file, so `Plan` decides once per header what it can. No notice quotes a value.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Final

from app.intake import corrections, layout, profiles
from app.intake.columns import ALIASES, MAX_NAME, SENT, Columns
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.row_plan import Plan
from app.intake.table import (
    DELIMITERS,
    MAX_CELLS,
    TOO_MANY_CELLS,
    Block,
    Flaw,
    Notice,
    Record,
    Row,
    UnreadableFile,
)
from app.intake.text import tears
from app.intake.text.records import cells_of

MAX_ROWS: Final = 1_000_000
"""The most rows of one file: a hundred times the largest order."""

_LETTERS: Final = frozenset({"manufacturer", "model", "group_tag"})
"""Fields that are sent and may have non-ASCII characters."""
_FIRST_NAMES: Final = frozenset(name.lower() for names in ALIASES.values() for name in names)


def rows(
    source: Iterator[Block | Record] | Iterator[Record], found: Layout, profile: Profile | None = None
) -> Iterator[Row]:
    """The rows below the header, without blank ones. Raises UnreadableFile beyond MAX_ROWS."""
    if found.columns.groups:
        yield from _side_by_side(source, found, profile)
        return
    builder = _Builder(found, profile)
    make: Callable[[type[Row], tuple[object, ...]], Row] = tuple.__new__  # half the time of Row(...)
    for item in source:
        if type(item) is not Block:
            if (row := builder.row(*item)) is not None:
                yield row
            continue
        line, block = item
        if builder.is_plain(line, block):
            plan, number = builder.plan, builder.number
            builder.number += len(block)
            numbered = zip(count(number + 1), count(line), block, strict=False)
            yield from [make(Row, (number, at, cells, (), plan)) for number, at, cells in numbered]
            continue
        for at, cells in enumerate(block, start=line):
            if (row := builder.row(at, cells, ())) is not None:
                yield row


def _side_by_side(
    source: Iterator[Block | Record] | Iterator[Record], found: Layout, profile: Profile | None
) -> Iterator[Row]:
    """The rows of lines with several devices, each read as if it had the first device's columns."""
    whole = found.columns
    first = whole.groups[0]
    one = Columns(tuple(whole.names[at] for at in first), tuple(whole.fields[at] for at in first))
    builder = _Builder(replace(found, columns=one, seen=frozenset(), added=0), profile)
    width = len(whole.names)
    for item in source:
        records = [item] if type(item) is Record else _records_of(item)
        for line, cells, notices, _ in records:
            if found.added:
                cells = corrections.taken_off(cells, found.added)
            surplus = cells[width:] if any(map(str.strip, cells[width:])) else []
            cells += [""] * (width - len(cells))
            for group in whole.groups:
                if any(whole.fields[at] in SENT and cells[at].strip() for at in group):
                    row = builder.row(line, [*(cells[at] for at in group), *surplus], notices)
                    if row is not None:
                        yield row


def _records_of(block: Block | Record) -> Iterator[Record]:
    for line, cells in enumerate(block.cells, start=block.line):
        yield Record(line, list(cells), ())


class _Builder:
    """Makes rows from records one by one, and keeps what changes between them."""

    def __init__(self, found: Layout, profile: Profile | None) -> None:
        self.plan = Plan.of(found.columns, profile, found.offset, found)
        self.number = 0
        self.carried: tuple[Notice, ...] = ()
        self._first_names = _FIRST_NAMES
        if profile is not None:
            self._first_names = _FIRST_NAMES | {name.lower() for name in profile.columns}
        self._found = found
        self._profile = profile

    def is_plain(self, line: int, block: list[list[str]]) -> bool:
        """Whether `row` would change nothing for any of these. Checks all at once: most files have only such
        rows, and a call for each would take most of the time."""
        found = self._found
        firsts = [cells[0] for cells in block]
        return (
            not found.offset
            and not found.added
            and not self.carried
            and not found.guess
            and not self.plan.columns.twins
            and line >= found.first_line
            and self.number + len(block) <= MAX_ROWS
            and set(map(len, block)) == {self.plan.width}
            and "" not in firsts
            and not any(map(str.isspace, firsts))
            and self.plan.names[0] not in firsts
            and self._first_names.isdisjoint(map(str.lower, firsts))
            and self._are_makers_whole(block)
        )

    def _are_makers_whole(self, block: list[list[str]]) -> bool:
        at = self.plan.behind_maker
        return at is None or tears.SURE.isdisjoint([cells[at] for cells in block])

    def row(
        self,
        line: int,
        cells: list[str],
        notices: tuple[Notice, ...],
        flaws: tuple[tuple[int, Flaw], ...] = (),
    ) -> Row | None:
        """None for lines that are not rows: those above the table, blank ones, headers, rules."""
        found = self._found
        if line < found.first_line:
            return None
        if len(cells) > MAX_CELLS:
            cells, notices = cells[:MAX_CELLS], (*notices, TOO_MANY_CELLS)
        ours = bool(found.added) and corrections.added(cells) == found.added
        if found.added:
            cells = corrections.taken_off(cells, found.added)
        # A row that is empty because its cell was too long is still a row.
        if not notices and not any(cell and not cell.isspace() for cell in cells):
            return None
        if layout.is_rule(cells):
            return None
        if cells[0].startswith("\ufeff"):
            # A file with a byte order mark was appended to another one.
            cells = [cells[0].lstrip("\ufeff"), *cells[1:]]
        if not found.offset and self._is_header(line, cells, ours):
            return None
        self.number += 1
        if self.number > MAX_ROWS:
            raise too_many_rows()
        if self.carried:
            notices, self.carried = (*self.carried, *notices), ()
        if found.separator and len(cells) < self.plan.width:
            cells, notices = self._resplit(cells, notices)
        if flaws:
            notices = (*notices, *self._of_marks(flaws))
        if found.offset:
            row = self._repeating_row(line, cells, notices)
        else:
            row = self.plan.row(self.number, line, cells, notices)
        return with_guess(row, found.guess) if found.guess else row

    def _resplit(self, cells: list[str], notices: tuple[Notice, ...]) -> tuple[list[str], tuple[Notice, ...]]:
        """A row that is split by another separator than the file's, if it is whole then."""
        text = self._found.separator.join(cells)
        for separator, words in DELIMITERS.items():
            if separator != self._found.separator and text.count(separator) + 1 >= self.plan.width:
                other = cells_of(text, separator, self._found.quote)
                if len(other) == self.plan.width:
                    return other, (*notices, _other_separator(words))
        return cells, notices

    def _of_marks(self, flaws: tuple[tuple[int, Flaw], ...]) -> Iterator[Notice]:
        """Notices about odd quotation marks of used values."""
        pairs, front = self.plan.pairs, self._found.offset + self._found.added
        for at, flaw in flaws:
            name, known = pairs[at - front] if 0 <= at - front < len(pairs) else ("", None)
            if known is not None:
                yield _inside(name) if flaw is Flaw.INSIDE else _behind(name)

    def _is_header(self, line: int, cells: list[str], ours: bool) -> bool:
        """Another header: later rows are read by it."""
        first = cells[0]
        if cells == self.plan.names:
            # Collectors' files that were joined: each has the same header.
            return True
        if not ours and (
            len(first) > MAX_NAME
            or first.lower() not in self._first_names
            or not layout.is_header(cells, self._profile)
        ):
            return False
        resolved = profiles.resolve(cells, self._profile)
        if resolved.fields != self.plan.columns.fields:
            self.carried = (_header_again(line), *resolved.notices)
        self.plan = Plan.of(resolved, self._profile, found=self._found)
        return True

    def _repeating_row(self, line: int, cells: list[str], notices: tuple[Notice, ...]) -> Row:
        """A Configuration Manager row: names first, then values. Its own names count."""
        plan, offset = self.plan, self._found.offset
        if cells[:offset] != plan.names[:offset]:
            if layout.leading_names(cells) != offset:
                nothing = replace(plan, known=(), others=(), constants=(), tags=None, width=len(cells))
                return Row(self.number, line, cells, (*notices, _NAMES_MISSING), nothing)
            plan = Plan.of(profiles.resolve(cells[:offset], self._profile), self._profile, offset)
        return plan.row(self.number, line, cells, notices)


def with_guess(row: Row, guess: str) -> Row:
    """Adds a notice if guessed letters of the row are sent."""
    fields = row.fields
    doubtful = [
        name for name, known in row.columns if known in _LETTERS and not fields.get(known, "").isascii()
    ]
    return row._replace(notices=(*row.notices, _guessed(doubtful[0], guess))) if doubtful else row


def too_many_rows() -> UnreadableFile:
    return UnreadableFile(
        "too_many_rows", f"The file has more than {MAX_ROWS:,} rows. Cut it into smaller files."
    )


def _other_separator(words: str) -> Notice:
    return Notice(
        "separator_differs", f"The row is separated by {words}, other than its file; it was read so."
    )


def _inside(column: str) -> Notice:
    words = f"The value of column '{column}' has a quotation mark inside that is not doubled."
    return Notice("quote_inside", words, column)


def _behind(column: str) -> Notice:
    words = f"Text follows the closing quotation mark of the value of column '{column}'."
    return Notice("quote_misplaced", words, column)


def _guessed(column: str, encoding: str) -> Notice:
    words = f"The value of column '{column}' has letters that were read as {encoding}, which is a guess."
    return Notice("letters_guessed", words, column)


def _header_again(line: int) -> Notice:
    words = f"Line {line} is a header again; from there on the columns are read by it."
    return Notice("header_repeated", words)


_NAMES_MISSING: Final = Notice(
    "names_missing",
    "The row lacks the column names that the other rows of this report repeat.",
)
