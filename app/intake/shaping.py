"""Cells to rows: which cell is which field, what stands beside them, and what is odd about a row.

Every format that has a table in it ends here, so that a row means the same whatever it was read
from. The loop runs a million times for a large file: what can be decided once per header is
decided in `Plan`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from app.intake import corrections, layout, profiles
from app.intake.columns import ALIASES, MAX_NAME, Columns
from app.intake.layout import Layout
from app.intake.profiles import Profile, TagChooser
from app.intake.records import MAX_CELLS, TOO_MANY_CELLS, Block, Record
from app.intake.table import Notice, Row, UnreadableFile

MAX_ROWS: Final = 1_000_000
"""Rows of one file; a hundred times the largest order."""

_FIRST_NAMES: Final = frozenset(name.lower() for names in ALIASES.values() for name in names)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """`Columns` and a profile prepared for the loop over rows. Implements `table.Reading`."""

    columns: Columns
    pairs: tuple[tuple[str, str | None], ...]
    names: list[str]
    offset: int
    """Cells in front of the values: a report's repeated names."""
    width: int
    """Cells of a whole row, with those in front."""
    known: tuple[tuple[int, str], ...]
    others: tuple[tuple[int, str], ...]
    constants: tuple[tuple[str, str], ...]
    tag_at: int | None
    tags: TagChooser | None

    @classmethod
    def of(cls, resolved: Columns, profile: Profile | None = None, offset: int = 0) -> "Plan":
        places = list(enumerate(resolved.pairs, start=offset))
        rule = profile.group_tag if profile is not None else None
        tag_at = profiles.tag_place(profile, resolved.names)
        return cls(
            columns=resolved,
            pairs=resolved.pairs,
            names=list(resolved.names),
            offset=offset,
            width=offset + len(places),
            known=tuple((at, field) for at, (_, field) in places if field is not None),
            others=tuple((at, name) for at, (name, field) in places if field is None),
            constants=tuple(profile.constants.items()) if profile is not None else (),
            tag_at=None if tag_at is None else tag_at + offset,
            tags=rule.chooser() if rule is not None else None,
        )

    def row(self, number: int, line: int, cells: Sequence[str], notices: tuple[Notice, ...]) -> Row:
        """The row with what its number of cells says about it."""
        given = len(cells) - self.offset
        width = self.width - self.offset
        if given < width:
            notices = (*notices, _short(given, width))
        elif given > width and any(cell and not cell.isspace() for cell in cells[self.width :]):
            notices = (*notices, _long(given, width))
        return Row(number, line, cells, notices, self)

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]:
        if len(cells) < self.width:
            cells = [*cells, *[""] * (self.width - len(cells))]
        fields: dict[str, str] = {}
        # In half the time of a comprehension, in which `cell` would be a variable of the function around it.
        for at, field in self.known:
            cell = cells[at]
            if cell and not cell.isspace():
                fields[field] = cell
        if self.tags is not None:
            cell = cells[self.tag_at] if self.tag_at is not None else ""
            if tag := self.tags.choose(cell, fields.get("group_tag")):
                fields["group_tag"] = tag
        for field, constant in self.constants:
            fields.setdefault(field, constant)
        return fields

    def extra_of(self, cells: Sequence[str]) -> dict[str, str]:
        if len(cells) < self.width:
            cells = [*cells, *[""] * (self.width - len(cells))]
        extra = {name: cell for at, name in self.others if (cell := cells[at]) and not cell.isspace()}
        for at, cell in enumerate(cells[self.width :], start=self.width - self.offset + 1):
            if cell and not cell.isspace():
                # A column may itself be called "column 7".
                name = f"column {at}"
                extra[name if name not in extra else f"{name} (no header)"] = cell
        return extra


class _Nothing:
    """How a row is understood of which nothing could be: no columns, no values."""

    pairs = ()

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]:
        return {}

    def extra_of(self, cells: Sequence[str]) -> dict[str, str]:
        return {}


NOTHING: Final = _Nothing()


def rows(
    source: Iterator[Block | Record] | Iterator[Record], found: Layout, profile: Profile | None = None
) -> Iterator[Row]:
    """The rows below the header, blank ones passed over. Raises UnreadableFile beyond MAX_ROWS."""
    shaper = _Shaper(found, profile)
    make: Callable[[type[Row], tuple[object, ...]], Row] = tuple.__new__  # half the time of Row(...)
    for item in source:
        if type(item) is not Block:
            if (row := shaper.row(*item)) is not None:
                yield row
            continue
        line, block = item
        if shaper.is_plain(line, block):
            plan, number = shaper.plan, shaper.number
            shaper.number += len(block)
            numbered = zip(count(number + 1), count(line), block, strict=False)
            yield from [make(Row, (number, at, cells, (), plan)) for number, at, cells in numbered]
            continue
        for at, cells in enumerate(block, start=line):
            if (row := shaper.row(at, cells, ())) is not None:
                yield row


class _Shaper:
    """Makes rows of records one by one, and knows what changes from one to the next."""

    def __init__(self, found: Layout, profile: Profile | None) -> None:
        self.plan = Plan.of(found.columns, profile, found.offset)
        self.number = 0
        self.carried: tuple[Notice, ...] = ()
        self._first_names = _FIRST_NAMES
        if profile is not None:
            self._first_names = _FIRST_NAMES | {name.lower() for name in profile.columns}
        self._found = found
        self._profile = profile

    def is_plain(self, line: int, block: list[list[str]]) -> bool:
        """Whether `row` would find nothing to do for any of these: asked of all at once, as most files
        have nothing else and a call for each row would take most of the time."""
        found = self._found
        firsts = [cells[0] for cells in block]
        return (
            not found.offset
            and not found.added
            and not self.carried
            and line >= found.first_line
            and self.number + len(block) <= MAX_ROWS
            and set(map(len, block)) == {self.plan.width}
            and "" not in firsts
            and not any(map(str.isspace, firsts))
            and self.plan.names[0] not in firsts
            and self._first_names.isdisjoint(map(str.lower, firsts))
        )

    def row(self, line: int, cells: list[str], notices: tuple[Notice, ...]) -> Row | None:
        """None for what is no row: lines above the table, blank ones, headers."""
        found = self._found
        if line < found.first_line:
            return None
        if len(cells) > MAX_CELLS:
            cells, notices = cells[:MAX_CELLS], (*notices, TOO_MANY_CELLS)
        ours = bool(found.added) and corrections.added(cells) == found.added
        if found.added:
            cells = corrections.taken_off(cells, found.added)
        # A row emptied because its cell was too long is still a row.
        if not notices and not any(cell and not cell.isspace() for cell in cells):
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
        if found.offset:
            return self._repeating_row(line, cells, notices)
        return self.plan.row(self.number, line, cells, notices)

    def _is_header(self, line: int, cells: list[str], ours: bool) -> bool:
        """A header again; from there on the columns are read by it."""
        first = cells[0]
        if cells == self.plan.names:
            # Collectors' files put one behind the other: the same header in front of each.
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
        self.plan = Plan.of(resolved, self._profile)
        return True

    def _repeating_row(self, line: int, cells: list[str], notices: tuple[Notice, ...]) -> Row:
        """A Configuration Manager row: names in front, values behind. Its own names count."""
        plan, offset = self.plan, self._found.offset
        if cells[:offset] != plan.names[:offset]:
            if layout.leading_names(cells) != offset:
                nothing = replace(plan, known=(), others=(), constants=(), tags=None, width=len(cells))
                return Row(self.number, line, cells, (*notices, _NAMES_MISSING), nothing)
            plan = Plan.of(profiles.resolve(cells[:offset], self._profile), self._profile, offset)
        return plan.row(self.number, line, cells, notices)


def too_many_rows() -> UnreadableFile:
    return UnreadableFile(
        "too_many_rows", f"The file has more than {MAX_ROWS:,} rows. Cut it into smaller files."
    )


def _short(count: int, width: int) -> Notice:
    words = f"The row has {count} of {width} cells; the missing ones are taken as empty."
    return Notice("row_short", words)


def _long(count: int, width: int) -> Notice:
    words = (
        f"The row has {count} cells for {width} columns. A separator inside a value without quotation marks "
        "moves everything after it: compare the row with its source."
    )
    return Notice("row_long", words)


def _header_again(line: int) -> Notice:
    words = f"Line {line} is a header again; from there on the columns are read by it."
    return Notice("header_repeated", words)


_NAMES_MISSING: Final = Notice(
    "names_missing",
    "The row lacks the column names that the other rows of this report repeat.",
)
