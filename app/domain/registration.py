"""Registrations: the states of one device in one order, its legal moves, and the meaning of answers.

The legal moves are a table. Each platform has its own table of what its codes mean; unknown codes are kept
unchanged and shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class RegistrationState(StrEnum):
    INVALID = "invalid"  # refused by our own checks; never sent
    HELD = "held"  # its batch waits for a reason
    QUEUED = "queued"  # waits for its turn
    SUBMITTING = "submitting"  # the call with it is being made
    PROCESSING = "processing"  # accepted by Microsoft, which is working on it
    REGISTERED = "registered"
    ALREADY_REGISTERED = "already_registered"  # success: the customer had it before
    CONFLICT = "conflict"  # another organisation has it; needs people
    FAILED = "failed"
    UNKNOWN = "unknown"  # sent; the outcome is not known
    CANCELLED = "cancelled"


_S = RegistrationState

TRANSITIONS: dict[RegistrationState, frozenset[RegistrationState]] = {
    _S.INVALID: frozenset(),
    _S.HELD: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.HELD, _S.SUBMITTING, _S.CANCELLED, _S.FAILED}),
    _S.SUBMITTING: frozenset(
        {_S.QUEUED, _S.HELD, _S.PROCESSING, _S.UNKNOWN, _S.FAILED, _S.REGISTERED, _S.ALREADY_REGISTERED}
    ),
    _S.PROCESSING: frozenset(
        {_S.QUEUED, _S.REGISTERED, _S.ALREADY_REGISTERED, _S.CONFLICT, _S.FAILED, _S.UNKNOWN}
    ),
    _S.UNKNOWN: frozenset(
        {
            _S.QUEUED,
            _S.HELD,
            _S.PROCESSING,
            _S.REGISTERED,
            _S.ALREADY_REGISTERED,
            _S.CONFLICT,
            _S.FAILED,
        }
    ),
    _S.REGISTERED: frozenset(),
    _S.ALREADY_REGISTERED: frozenset(),
    _S.CONFLICT: frozenset({_S.QUEUED, _S.HELD}),
    _S.FAILED: frozenset({_S.QUEUED, _S.HELD}),
    _S.CANCELLED: frozenset(),
}

SUCCESS = frozenset({_S.REGISTERED, _S.ALREADY_REGISTERED})
RETRYABLE = frozenset({_S.CONFLICT, _S.FAILED, _S.UNKNOWN})
"""The states that `:retry-failed` takes up again."""
OPEN = frozenset({_S.HELD, _S.QUEUED, _S.SUBMITTING, _S.PROCESSING})
"""States that change without further calls. `unknown` changes only while its batch is open."""
MOVING_WITH_BATCH = frozenset({_S.HELD, _S.QUEUED, _S.SUBMITTING, _S.PROCESSING, _S.UNKNOWN})
"""States without an outcome. While its batch is open, a row in one of them has its batch's state."""


_ON_ITS_WAY = frozenset({_S.QUEUED, _S.SUBMITTING, _S.PROCESSING, _S.UNKNOWN})
OUTCOME_MOVES = frozenset(
    {(old, new) for old in _ON_ITS_WAY for new in TRANSITIONS[old] & (SUCCESS | RETRYABLE)}
) | {(_S.UNKNOWN, _S.UNKNOWN)}
"""Moves that an answer, or giving up on one, may cause. An unknown row may stay unknown, with a reason."""


_RECORDED = SUCCESS | {_S.CONFLICT, _S.FAILED}
CORRECTIONS = frozenset({(old, new) for old in _RECORDED for new in _RECORDED})
"""Moves by which a person corrects a portal's outcome that was recorded wrongly; the device has not changed.
Microsoft's answers never cause one. From a state to itself: only the code or the words were wrong."""


@dataclass(frozen=True, slots=True)
class Meaning:
    state: RegistrationState
    code: str | None
    """The catalogue code; None if there is nothing to report."""


Means = Callable[[str | None, str | None], Meaning | None]
"""Translates a platform's number and name of a device's outcome; None if the platform does not know them."""

TRANSIENT_CODES = frozenset({"upstream_busy"})
"""Row outcomes that Registrar retries automatically, up to MAX_TRANSIENT_ATTEMPTS attempts in all."""
MAX_TRANSIENT_ATTEMPTS = 3


class UpstreamRow(NamedTuple):
    """A platform's answer about one device, unchanged."""

    done: bool
    code: str | None
    name: str | None
    serial_number: str | None = None
    product_key: str | None = None
    device_id: str | None = None


def interpret(row: UpstreamRow, means: Means, *, was_uncertain: bool) -> Meaning | None:
    """The meaning of a row's answer; None while the platform is still working on it.

    `was_uncertain`: an earlier call may have registered the device without our knowing. Then "already in this
    tenant" does not tell whether that call did it or the customer had the device long before: the meaning is
    UNKNOWN until the platform's list of devices has been read.
    """
    if not row.done:
        return None
    if not row.code and not row.name:
        return Meaning(_S.REGISTERED, None)
    meaning = means(row.code, row.name)
    if meaning is None:
        return Meaning(_S.FAILED, "upstream_other")
    if meaning.state is _S.ALREADY_REGISTERED and was_uncertain:
        return Meaning(_S.UNKNOWN, "outcome_unknown")
    return meaning


def is_with_customer(meaning: Meaning | None) -> bool:
    """Whether the platform's answer means that the customer has the device, registered by us or by others."""
    return meaning is not None and meaning.state is _S.ALREADY_REGISTERED


@dataclass(frozen=True, slots=True)
class Registration:
    """One device in one order, as callers see it."""

    id: UUID
    order_id: UUID
    customer_id: UUID
    batch_id: UUID | None
    row_number: int
    state: RegistrationState
    line_ref: str | None
    group_tag: str | None
    identity: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    findings: list[dict[str, Any]] | None
    error_code: str | None
    error_detail: str | None
    upstream_code: str | None
    upstream_name: str | None
    upstream_device_id: str | None
    attempt: int
    created_at: datetime
    settled_at: datetime | None
    updated_at: datetime
