"""Cells to rows: which cell is which field, what stands beside them, and what is odd about a row.

Every format that has a table in it ends here, so that a row means the same whatever it was read
from. The loop runs a million times for a large file: what can be decided once per header is
decided in `Plan`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.intake import layout, profiles
from app.intake.columns import ALIASES, MAX_NAME, Columns
from app.intake.layout import Layout
from app.intake.profiles import Profile, TagChooser
from app.intake.records import Record
from app.intake.table import Notice, Row, UnreadableFile

MAX_ROWS: Final = 1_000_000
"""Rows of one file; a hundred times the largest order."""

_FIRST_NAMES: Final = frozenset(name.casefold() for names in ALIASES.values() for name in names)


@dataclass(frozen=True, slots=True)
class Plan:
    """`Columns` and a profile prepared for the loop over rows."""

    columns: Columns
    pairs: tuple[tuple[str, str | None], ...]
    names: list[str]
    known: tuple[tuple[int, str], ...]
    others: tuple[tuple[int, str], ...]
    constants: tuple[tuple[str, str], ...]
    tag_at: int | None
    tags: TagChooser | None

    @classmethod
    def of(cls, resolved: Columns, profile: Profile | None = None) -> "Plan":
        places = list(enumerate(resolved.pairs))
        rule = profile.group_tag if profile is not None else None
        return cls(
            columns=resolved,
            pairs=resolved.pairs,
            names=list(resolved.names),
            known=tuple((at, field) for at, (_, field) in places if field is not None),
            others=tuple((at, name) for at, (name, field) in places if field is None),
            constants=tuple(profile.constants.items()) if profile is not None else (),
            tag_at=profiles.tag_place(profile, resolved.names),
            tags=rule.chooser() if rule is not None else None,
        )

    def row(
        self,
        number: int,
        line: int,
        original: Sequence[str],
        values: Sequence[str],
        notices: tuple[Notice, ...],
    ) -> Row:
        """`original` is what is kept of the row, `values` the cells that stand under the columns."""
        count, width = len(values), len(self.names)
        surplus: dict[str, str] = {}
        if count != width:
            values = [*values, *[""] * (width - count)]
            surplus = {
                f"column {at + 1}": cell for at, cell in enumerate(values) if at >= width and cell.strip()
            }
        fields = {field: cell for at, field in self.known if (cell := values[at]) and not cell.isspace()}
        extra = {name: cell for at, name in self.others if (cell := values[at]) and not cell.isspace()}
        if count < width:
            notices = (*notices, _short(count, width))
        elif surplus:
            notices = (*notices, _long(count, width))
            for name, cell in surplus.items():
                # A column may itself be called "column 7".
                extra[name if name not in extra else f"{name} (no header)"] = cell
        if self.tags is not None:
            cell = values[self.tag_at] if self.tag_at is not None else ""
            if tag := self.tags.choose(cell, fields.get("group_tag")):
                fields["group_tag"] = tag
        for field, constant in self.constants:
            fields.setdefault(field, constant)
        return Row(number, line, fields, extra, tuple(original), notices, self.pairs)


def rows(source: Iterator[Record], found: Layout, profile: Profile | None = None) -> Iterator[Row]:
    """The rows below the header, blank ones passed over. Raises UnreadableFile beyond MAX_ROWS."""
    plan = Plan.of(found.columns, profile)
    first_names = _FIRST_NAMES
    if profile is not None:
        first_names = _FIRST_NAMES | {name.casefold() for name in profile.columns}
    carried: tuple[Notice, ...] = ()
    number = 0
    for line, cells, notices in source:
        if line < found.first_line:
            continue
        # A row emptied because its cell was too long is still a row.
        if not notices and not any(cell and not cell.isspace() for cell in cells):
            continue
        first = cells[0]
        if first.startswith("\ufeff"):
            # A file with a byte order mark was appended to another one.
            first = first.lstrip("\ufeff")
            cells = [first, *cells[1:]]
        if not found.offset and len(first) <= MAX_NAME:
            if cells == plan.names:
                # Collectors' files put one behind the other: the same header in front of each.
                continue
            if first.casefold() in first_names and layout.is_header(cells, profile):
                resolved = profiles.resolve(cells, profile)
                if resolved.fields != plan.columns.fields:
                    carried = (_header_again(line), *resolved.notices)
                plan = Plan.of(resolved, profile)
                continue
        number += 1
        if number > MAX_ROWS:
            raise too_many_rows()
        if carried:
            notices, carried = (*carried, *notices), ()
        if found.offset:
            yield _repeating_row(number, line, cells, notices, plan, found, profile)
        else:
            yield plan.row(number, line, cells, cells, notices)


def too_many_rows() -> UnreadableFile:
    return UnreadableFile(
        "too_many_rows", f"The file has more than {MAX_ROWS:,} rows. Cut it into smaller files."
    )


def _repeating_row(
    number: int,
    line: int,
    cells: Sequence[str],
    notices: tuple[Notice, ...],
    plan: Plan,
    found: Layout,
    profile: Profile | None,
) -> Row:
    """A Configuration Manager row: names in front, values behind. Its own names count."""
    offset = found.offset
    if cells[:offset] != plan.names[:offset]:
        if layout.leading_names(cells) != offset:
            return Row(number, line, {}, {}, tuple(cells), (*notices, _NAMES_MISSING), plan.pairs)
        plan = Plan.of(profiles.resolve(cells[:offset], profile), profile)
    return plan.row(number, line, cells, cells[offset:], notices)


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
