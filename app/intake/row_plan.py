"""Decides once per header which cell of a row is which field.

If several columns mean the same field, each row uses the first filled one, in the order of the table of
names. For models that is the firmware's name. LENOVO's firmware has the machine type and not the marketing
name, so its rows use a column with a machine type.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from app.intake import profiles
from app.intake.columns import IDENTITY, Columns, Twin
from app.intake.layout import Layout
from app.intake.profiles import Profile, TagChooser
from app.intake.table import Notice, Row
from app.intake.text import tears
from app.intake.text.tears import Tears, long_row

_EMPTY: Final = frozenset({"''", '""', "``", "“”", "„“", "‘’", "«»"})
"""Quotation marks around nothing."""
_MACHINE_TYPE: Final = re.compile(r"[0-9][0-9A-Z]{3}[0-9A-Z]{3,6}")
_OTHER_PARTS: Final = re.compile(r"chassis|asset|product|unit", re.IGNORECASE)
"""Serial numbers of parts or of an inventory, which may differ from the device's."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """`Columns` and a profile, prepared for the loop over rows. Implements `table.Reading`."""

    columns: Columns
    pairs: tuple[tuple[str, str | None], ...]
    names: list[str]
    offset: int
    """Cells in front of the values: a report's repeated names."""
    width: int
    """Cells of a whole row, including those in front."""
    known: tuple[tuple[int, str], ...]
    others: tuple[tuple[int, str], ...]
    constants: tuple[tuple[str, str], ...]
    tag_at: int | None
    tags: TagChooser | None
    tears: Tears | None = None
    """How to repair torn rows; None if rows cannot be torn."""
    variants: dict[object, "Plan"] = field(default_factory=dict)
    """Plans for rows that use other columns than most."""

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
        """The column in which a torn maker's name continues."""
        at = self.tears.maker if self.tears is not None else None
        return at + 1 if at is not None and at + 1 < self.width else None

    def row(self, number: int, line: int, cells: Sequence[str], notices: tuple[Notice, ...]) -> Row:
        """The row with notices about its number of cells."""
        plan = self
        if self.tears is not None and (len(cells) > self.width or self._goes_on_behind_maker(cells)):
            cells, more, end = self.tears.judge(cells)
            notices = (*notices, *more)
            plan = self if end is None else self._up_to(end)
        elif len(cells) > self.width and any(cell and not cell.isspace() for cell in cells[self.width :]):
            notices = (*notices, long_row(len(cells) - self.offset, self.width - self.offset))
        if len(cells) < self.width:
            notices = (*notices, _short(len(cells) - self.offset, self.width - self.offset))
        if self.columns.twins and plan is self:
            chosen, more = choose_twins(self.columns, cells[self.offset :])
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
        """The columns that this row uses, if several mean the same."""
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
        # Twice as fast as a comprehension, where `cell` would be a closure variable.
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
    """The reading of a row that could not be understood: no columns, no values."""

    pairs = ()

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]:
        return {}

    def extra_of(self, cells: Sequence[str]) -> dict[str, str]:
        return {}


NOTHING: Final = _Nothing()


# --- columns that mean the same -----------------------------------------------------------------


def choose_twins(columns: Columns, cells: Sequence[str]) -> tuple[dict[str, int], tuple[Notice, ...]]:
    """The columns that this row uses if they are not the usual ones, and notices about them."""
    chosen: dict[str, int] = {}
    notices: list[Notice] = []
    for twin in columns.twins:
        filled = [
            (at, cells[at].strip()) for at in (twin.at, *twin.others) if at < len(cells) and cells[at].strip()
        ]
        if not filled:
            continue
        at = _of_lenovo(columns, cells, filled) if twin.field == "model" else None
        at = filled[0][0] if at is None else at
        if at != twin.at:
            chosen[twin.field] = at
        differing = [
            other for other, value in filled if _folded(twin, value) != _folded(twin, cells[at].strip())
        ]
        if differing:
            notices.append(_differ(columns, twin, at, differing))
    return chosen, tuple(notices)


def _of_lenovo(columns: Columns, cells: Sequence[str], filled: list[tuple[int, str]]) -> int | None:
    maker = columns.fields.index("manufacturer") if "manufacturer" in columns.fields else len(cells)
    if maker >= len(cells) or not cells[maker].strip().upper().startswith("LENOVO"):
        return None
    return next((at for at, value in filled if _MACHINE_TYPE.fullmatch(value)), None)


def _folded(twin: Twin, value: str) -> str:
    return value.casefold() if twin.field in IDENTITY else value


def _differ(columns: Columns, twin: Twin, at: int, differing: list[int]) -> Notice:
    used, others = columns.names[at], ", ".join(f"'{columns.names[other]}'" for other in differing)
    contradicting = [other for other in differing if not _OTHER_PARTS.search(columns.names[other])]
    if twin.field in IDENTITY and contradicting and not _OTHER_PARTS.search(used):
        words = f"Columns '{used}' and {others} both mean {twin.field} and differ: whose is the row?"
        return Notice("identity_contradicts", words, used)
    words = f"Column '{used}' is used; {others} means {twin.field} too and has another value."
    return Notice("columns_differ", words, used)


def _short(count: int, width: int) -> Notice:
    words = f"The row has {count} of {width} cells; the missing ones are taken as empty."
    return Notice("row_short", words)
