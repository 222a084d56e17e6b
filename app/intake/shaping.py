"""Cells to rows: which cell is which field, what stands beside them, and what is odd about a row.

Every format that has a table in it ends here, so that a row means the same whatever it was read
from. The loop runs a million times for a large file: what can be decided once per header is
decided in `Plan`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from app.intake import corrections, layout, profiles, remarks, tears, twins
from app.intake.columns import ALIASES, MAX_NAME, SENT, Columns
from app.intake.layout import Layout
from app.intake.profiles import Profile, TagChooser
from app.intake.records import MAX_CELLS, TOO_MANY_CELLS, Block, Flaw, Record, cells_of
from app.intake.table import Notice, Row, UnreadableFile
from app.intake.tears import Tears, long_row

MAX_ROWS: Final = 1_000_000
"""Rows of one file; a hundred times the largest order."""

_EMPTY: Final = frozenset({"''", '""', "``", "“”", "„“", "‘’", "«»"})
"""Quotation marks around nothing."""
_LETTERS: Final = frozenset({"manufacturer", "model", "group_tag"})
"""Fields that are sent and may have other characters than ASCII."""
_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
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
    tears: Tears | None = None
    """How torn rows look; None where a row cannot be torn."""
    variants: dict[object, "Plan"] = field(default_factory=dict)
    """Plans for rows that go by other columns than most."""

    @classmethod
    def of(
        cls,
        resolved: Columns,
        profile: Profile | None = None,
        offset: int = 0,
        found: Layout | None = None,
    ) -> "Plan":
        places = list(enumerate(resolved.pairs, start=offset))
        rule = profile.group_tag if profile is not None else None
        tag_at = profiles.tag_place(profile, resolved.names)
        torn = None
        if found is not None and found.separator:
            named = {known: (at, name) for at, (name, known) in places if known is not None}
            torn = Tears(found.separator, offset + len(places), named, found.seen)
        return cls(
            columns=resolved,
            pairs=resolved.pairs,
            names=list(resolved.names),
            offset=offset,
            width=offset + len(places),
            known=tuple((at, known) for at, (_, known) in places if known is not None),
            others=tuple((at, name) for at, (name, known) in places if known is None),
            constants=tuple(profile.constants.items()) if profile is not None else (),
            tag_at=None if tag_at is None else tag_at + offset,
            tags=rule.chooser() if rule is not None else None,
            tears=torn,
        )

    @property
    def behind_maker(self) -> int | None:
        """The column in which a torn maker's name goes on."""
        at = self.tears.maker if self.tears is not None else None
        return at + 1 if at is not None and at + 1 < self.width else None

    def row(self, number: int, line: int, cells: Sequence[str], notices: tuple[Notice, ...]) -> Row:
        """The row with what its number of cells says about it."""
        plan = self
        if self.tears is not None and (len(cells) > self.width or self._goes_on_behind_maker(cells)):
            cells, more, end = self.tears.judge(cells)
            notices = (*notices, *more)
            plan = self if end is None else self._up_to(end)
        elif len(cells) > self.width and any(cell and not cell.isspace() for cell in cells[self.width :]):
            notices = (*notices, long_row(len(cells) - self.offset, self.width - self.offset))
        if len(cells) < self.width:
            notices = (*notices, remarks.short(len(cells) - self.offset, self.width - self.offset))
        if self.columns.twins and plan is self:
            chosen, more = twins.choose(self.columns, cells[self.offset :])
            notices = (*notices, *more)
            plan = self._by(chosen) if chosen else self
        return Row(number, line, cells, notices, plan)

    def _goes_on_behind_maker(self, cells: Sequence[str]) -> bool:
        at = self.behind_maker
        return at is not None and at < len(cells) and cells[at] in tears.SURE

    def _up_to(self, end: int) -> "Plan":
        """Only the columns in front of a torn value."""
        if end not in self.variants:
            known = tuple((at, of) for at, of in self.known if at < end)
            names = tuple((at, self.names[at - self.offset]) for at, _ in self.known if at >= end)
            others = tuple(sorted((*self.others, *names)))
            self.variants[end] = replace(self, known=known, others=others, variants={})
        return self.variants[end]

    def _by(self, chosen: dict[str, int]) -> "Plan":
        """The columns of this row, where several mean the same."""
        key = tuple(chosen.items())
        if key not in self.variants:
            fields = [None if of in chosen else of for of in self.columns.fields]
            for of, at in chosen.items():
                fields[at] = of
            columns = replace(self.columns, fields=tuple(fields))
            places = list(enumerate(columns.pairs, start=self.offset))
            self.variants[key] = replace(
                self,
                columns=columns,
                pairs=columns.pairs,
                known=tuple((at, of) for at, (_, of) in places if of is not None),
                others=tuple((at, name) for at, (name, of) in places if of is None),
                variants={},
            )
        return self.variants[key]

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]:
        if len(cells) < self.width:
            cells = [*cells, *[""] * (self.width - len(cells))]
        fields: dict[str, str] = {}
        # In half the time of a comprehension, in which `cell` would be a variable of the function around it.
        for at, known in self.known:
            cell = cells[at]
            if cell and not cell.isspace() and not (len(cell) == 2 and cell in _EMPTY):
                fields[known] = cell
        if self.tags is not None:
            cell = cells[self.tag_at] if self.tag_at is not None else ""
            if tag := self.tags.choose(cell, fields.get("group_tag")):
                fields["group_tag"] = tag
        for known, constant in self.constants:
            fields.setdefault(known, constant)
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
    if found.columns.groups:
        yield from _side_by_side(source, found, profile)
        return
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


def _side_by_side(
    source: Iterator[Block | Record] | Iterator[Record], found: Layout, profile: Profile | None
) -> Iterator[Row]:
    """The rows of lines that have several devices; each reads as if it had the first device's columns."""
    whole = found.columns
    first = whole.groups[0]
    one = Columns(tuple(whole.names[at] for at in first), tuple(whole.fields[at] for at in first))
    shaper = _Shaper(replace(found, columns=one, seen=frozenset(), added=0), profile)
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
                    row = shaper.row(line, [*(cells[at] for at in group), *surplus], notices)
                    if row is not None:
                        yield row


def _records_of(block: Block | Record) -> Iterator[Record]:
    for line, cells in enumerate(block.cells, start=block.line):
        yield Record(line, list(cells), ())


class _Shaper:
    """Makes rows of records one by one, and knows what changes from one to the next."""

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
        """Whether `row` would find nothing to do for any of these: asked of all at once, as most files
        have nothing else and a call for each row would take most of the time."""
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
        """None for what is no row: lines above the table, blank ones, headers, rules."""
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
        """A row whose cells are told apart by another separator than the file's, if it is whole then."""
        text = self._found.separator.join(cells)
        for separator, words in _SEPARATORS.items():
            if separator != self._found.separator and text.count(separator) + 1 >= self.plan.width:
                other = cells_of(text, separator, self._found.quote)
                if len(other) == self.plan.width:
                    return other, (*notices, remarks.other_separator(words))
        return cells, notices

    def _of_marks(self, flaws: tuple[tuple[int, Flaw], ...]) -> Iterator[Notice]:
        """What is odd about the quotation marks of values that are used."""
        pairs, front = self.plan.pairs, self._found.offset + self._found.added
        for at, flaw in flaws:
            name, known = pairs[at - front] if 0 <= at - front < len(pairs) else ("", None)
            if known is not None:
                yield remarks.inside(name) if flaw is Flaw.INSIDE else remarks.behind(name)

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
            self.carried = (remarks.header_again(line), *resolved.notices)
        self.plan = Plan.of(resolved, self._profile, found=self._found)
        return True

    def _repeating_row(self, line: int, cells: list[str], notices: tuple[Notice, ...]) -> Row:
        """A Configuration Manager row: names in front, values behind. Its own names count."""
        plan, offset = self.plan, self._found.offset
        if cells[:offset] != plan.names[:offset]:
            if layout.leading_names(cells) != offset:
                nothing = replace(plan, known=(), others=(), constants=(), tags=None, width=len(cells))
                return Row(self.number, line, cells, (*notices, remarks.NAMES_MISSING), nothing)
            plan = Plan.of(profiles.resolve(cells[:offset], self._profile), self._profile, offset)
        return plan.row(self.number, line, cells, notices)


def with_guess(row: Row, guess: str) -> Row:
    """A row with letters that are a guess says so, where they are sent."""
    fields = row.fields
    doubtful = [
        name for name, known in row.columns if known in _LETTERS and not fields.get(known, "").isascii()
    ]
    return row._replace(notices=(*row.notices, remarks.guessed(doubtful[0], guess))) if doubtful else row


def too_many_rows() -> UnreadableFile:
    return UnreadableFile(
        "too_many_rows", f"The file has more than {MAX_ROWS:,} rows. Cut it into smaller files."
    )
