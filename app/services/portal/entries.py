"""Outcomes that a person enters for single devices of a portal order: finds the device and the meaning.

A module of its own, because recording and correcting share it, and it needs no database.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.db.registrations import SendableRow
from app.domain import autopilot_errors
from app.domain.registration import Meaning, RegistrationState, UpstreamRow, interpret

_S = RegistrationState
SPOKEN = {
    _S.REGISTERED: Meaning(_S.REGISTERED, None),
    _S.ALREADY_REGISTERED: Meaning(_S.ALREADY_REGISTERED, "already_registered"),
    _S.CONFLICT: Meaning(_S.CONFLICT, "assigned_to_other_tenant"),
    _S.FAILED: Meaning(_S.FAILED, "refused_at_portal"),
}
"""What an outcome means if it is entered without a code of Microsoft's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The outcome entered for one device, which is named by any of its identifiers."""

    outcome: RegistrationState
    row: int | None = None
    """The device's row in the order, from 1."""
    file_row: int | None = None
    """The device's row in the uploaded file, from 1 without the header."""
    registration_id: UUID | None = None
    line_ref: str | None = None
    serial_number: str | None = None
    product_key: str | None = None
    code: str | None = None
    """Microsoft's number or name of the error."""
    detail: str | None = None


_NAMED_BY: Final = {
    "row": "row_number",
    "registration_id": "id",
    "line_ref": "line_ref",
    "serial_number": "serial_number",
    "product_key": "product_key",
}
"""Fields by which an entry may name a device, and the attributes of a batch's row that they match."""


class Index:
    """The batch's rows by everything that may name one."""

    def __init__(self, rows: Sequence[SendableRow], *, whole: bool) -> None:
        """`whole`: every device of the uploaded file is among `rows`, so that row numbers of it are valid."""
        self._by: dict[tuple[str, object], set[int]] = defaultdict(set)
        self._rows = rows
        for place, row in enumerate(rows):
            for name, theirs in _NAMED_BY.items():
                if (value := getattr(row, theirs)) is not None:
                    self._by[name, value].add(place)
            if whole:
                self._by["file_row", place + 1].add(place)

    def find(self, entry: Entry) -> list[SendableRow]:
        """Returns the rows that match every identifier in the entry."""
        names = (*_NAMED_BY, "file_row")
        given = [(name, value) for name in names if (value := getattr(entry, name)) is not None]
        found = [self._by.get(key, set()) for key in given]
        return [self._rows[place] for place in sorted(set.intersection(*found))] if found else []


def answer_of(entry: Entry) -> UpstreamRow | None:
    """Microsoft's answer as the entry quotes it, if it does."""
    if not entry.code:
        return None
    number = entry.code if entry.code.isdecimal() else None
    return UpstreamRow(True, number, None if number else entry.code)


def meaning_of(entry: Entry) -> Meaning | None:
    """The meaning of the entry; None if Microsoft's code contradicts the outcome.

    With the outcome `failed`, the code decides the meaning; any other outcome must agree with it.
    """
    answer = answer_of(entry)
    if answer is None:
        return SPOKEN[entry.outcome]
    meaning = interpret(answer, autopilot_errors.meaning, was_uncertain=False)
    return meaning if meaning is not None and entry.outcome in (_S.FAILED, meaning.state) else None
