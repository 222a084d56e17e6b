"""Imports: the states of a file that becomes orders, its legal moves, and the verdicts on its rows.

The API and the workers that read and commit follow the same table of moves. Callers see the verdicts before
anything is ordered.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.ids import PartnerId


class ImportState(StrEnum):
    UPLOADING = "uploading"  # the file is arriving
    UPLOADED = "uploaded"  # waiting for a worker
    READING = "reading"
    READY = "ready"  # every row can be ordered
    READY_WITH_ERRORS = "ready_with_errors"  # some rows cannot be ordered
    REFUSED = "refused"  # the file cannot be read
    COMMITTING = "committing"  # its orders are being made
    COMMITTED = "committed"
    DISCARDED = "discarded"
    EXPIRED = "expired"


_I = ImportState

IMPORT_TRANSITIONS: dict[ImportState, frozenset[ImportState]] = {
    _I.UPLOADING: frozenset({_I.UPLOADED, _I.DISCARDED}),
    _I.UPLOADED: frozenset({_I.READING, _I.REFUSED, _I.DISCARDED}),
    _I.READING: frozenset({_I.READY, _I.READY_WITH_ERRORS, _I.REFUSED, _I.DISCARDED}),
    _I.READY: frozenset({_I.COMMITTING, _I.DISCARDED, _I.EXPIRED}),
    _I.READY_WITH_ERRORS: frozenset({_I.COMMITTING, _I.DISCARDED, _I.EXPIRED}),
    _I.REFUSED: frozenset({_I.DISCARDED}),
    # Back if a row's verdict has changed and all rows had to be valid, or if the reference is taken.
    _I.COMMITTING: frozenset({_I.COMMITTED, _I.READY, _I.READY_WITH_ERRORS}),
    _I.COMMITTED: frozenset(),
    _I.DISCARDED: frozenset(),
    _I.EXPIRED: frozenset(),
}

READY = frozenset({_I.READY, _I.READY_WITH_ERRORS})
MOVING = frozenset({_I.UPLOADING, _I.UPLOADED, _I.READING, _I.COMMITTING})
"""States that change without further calls."""
OVER = frozenset({_I.REFUSED, _I.COMMITTED, _I.DISCARDED, _I.EXPIRED})
"""Final states; only the staged rows are still deleted."""
WITH_WORKERS = frozenset({_I.UPLOADED, _I.READING, _I.COMMITTING})
"""States in which a worker processes the import, or will."""


class Verdict(StrEnum):
    """The verdict on one row of a file."""

    VALID = "valid"
    WARNING = "warning"  # ordered; a person should look at it
    INVALID = "invalid"  # never sent


def ready_state(invalid: int) -> ImportState:
    return ImportState.READY_WITH_ERRORS if invalid else ImportState.READY


MAX_BASE_REFERENCE = 240
"""Characters of an import's reference; orders of several customers get a suffix."""


def order_reference(base: str, customer: object, *, alone: bool) -> str:
    """The reference of one customer's order. Its suffix, the end of the customer's id, never changes."""
    return base if alone else f"{base}/{suffix_of(customer)}"


def suffix_of(customer: object) -> str:
    return str(customer).replace("-", "")[-8:]


@dataclass(frozen=True, slots=True)
class Import:
    id: UUID
    partner_id: PartnerId
    state: ImportState
    file_name: str | None
    size_bytes: int
    digest: bytes | None
    customer_id: UUID | None
    reference: str
    purchase_order: str | None
    group_tag: str | None
    profile_name: str | None
    profile: dict[str, Any] | None
    dialect: dict[str, Any] | None
    rows_read: int
    bytes_read: int
    counts: dict[str, Any]
    summary: dict[str, Any] | None
    on_invalid: str | None
    failure_code: str | None
    failure_said: str | None
    due_at: datetime | None
    attempts: int
    created_by: UUID | None
    """The API key of the call that uploaded it."""
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ImportedOrder:
    """An order that was made from an import."""

    import_id: UUID
    customer_id: UUID
    order_id: UUID
    reference: str
