"""Batches: their states and moves, and matching a platform's answers to devices.

A batch carries one customer's devices of one group tag to the platform in one call. Answers are matched by
serial number or PKID. Answers without either are matched by position, and count as certain only if all of
them say the same.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from app.domain.ids import PartnerId
from app.domain.registration import UpstreamRow


class BatchState(StrEnum):
    HELD = "held"  # waits for the reasons that are stored with it
    QUEUED = "queued"
    SUBMITTING = "submitting"  # the intent is stored; the call is being made
    SUBMITTED = "submitted"  # accepted by Microsoft; polled until every device has an outcome
    UNKNOWN = "unknown"  # the outcome is being looked up
    SETTLED = "settled"
    CANCELLED = "cancelled"


_B = BatchState

BATCH_TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    _B.HELD: frozenset({_B.QUEUED, _B.CANCELLED}),
    # SUBMITTED directly: a person has uploaded the batch's file at a portal.
    _B.QUEUED: frozenset({_B.HELD, _B.SUBMITTING, _B.SUBMITTED, _B.CANCELLED, _B.SETTLED}),
    _B.SUBMITTING: frozenset({_B.QUEUED, _B.HELD, _B.SUBMITTED, _B.UNKNOWN, _B.SETTLED}),
    # QUEUED: a person reports that the file was not uploaded to the portal after all.
    _B.SUBMITTED: frozenset({_B.QUEUED, _B.UNKNOWN, _B.SETTLED}),
    _B.UNKNOWN: frozenset({_B.QUEUED, _B.SUBMITTING, _B.SUBMITTED, _B.SETTLED}),
    _B.SETTLED: frozenset(),
    _B.CANCELLED: frozenset(),
}

OPEN_BATCH = frozenset({_B.HELD, _B.QUEUED, _B.SUBMITTING, _B.SUBMITTED, _B.UNKNOWN})
IN_FLIGHT = frozenset({_B.SUBMITTING, _B.SUBMITTED, _B.UNKNOWN})


SMALLEST_SPLIT = 100
"""Batches of this size or smaller are not split further when refused: the batch then has a device that the
platform does not accept, among few others."""


def halves(rows: Sequence[UUID]) -> tuple[Sequence[UUID], Sequence[UUID]]:
    middle = (len(rows) + 1) // 2
    return rows[:middle], rows[middle:]


def cut(rows: Sequence[UUID], max_devices: int) -> list[Sequence[UUID]]:
    """Divides the devices of one group tag into batches of at most `max_devices`."""
    return [rows[start : start + max_devices] for start in range(0, len(rows), max_devices)]


class SentRow(NamedTuple):
    """The identifiers of one device in a call. Rows are in the order in which they were sent."""

    serial_number: str | None
    product_key: str | None


class Match(NamedTuple):
    answer: UpstreamRow | None
    """None: there is no answer for this device."""
    certain: bool
    """False: matched by position although the answers differ, so it must be verified."""


_NOTHING = Match(None, certain=False)
_Key = tuple[str, str]
"""Serial number and PKID as an answer repeats them; empty if it does not."""


def match_answers(sent: Sequence[SentRow], answers: Sequence[UpstreamRow]) -> list[Match]:
    """One match per sent row: by key first, by position for rows and answers without a key."""
    keyed: dict[_Key, list[UpstreamRow]] = defaultdict(list)
    keyless: list[UpstreamRow] = []
    for answer in answers:
        key = _key(answer.serial_number, answer.product_key)
        if key is None:
            keyless.append(answer)
        else:
            keyed[key].append(answer)
    # Two manufacturers may use the same serial number, so several rows can share a key.
    sharing: dict[_Key | None, list[int]] = defaultdict(list)
    for index, row in enumerate(sent):
        sharing[_answered_key(row, keyed)].append(index)
    matched = [_NOTHING] * len(sent)
    for shared, indices in sharing.items():
        found = keyless if shared is None else keyed[shared]
        for index, match in zip(indices, _share_out(len(indices), found), strict=True):
            matched[index] = match
    return matched


def _share_out(rows: int, answers: Sequence[UpstreamRow]) -> list[Match]:
    """Assigns answers to rows by position: certain if all answers are the same, uncertain if they differ.

    If there are more or fewer answers than rows, nothing is matched.
    """
    if len(answers) != rows:
        return [_NOTHING] * rows
    alike = len({(answer.done, answer.code, answer.name) for answer in answers}) == 1
    return [Match(answer, certain=alike) for answer in answers]


def _answered_key(row: SentRow, answered: Container[_Key]) -> _Key | None:
    """The key under which this row was answered. Microsoft may repeat only one of two keys."""
    for key in (
        _key(row.serial_number, row.product_key),
        _key(row.serial_number, None),
        _key(None, row.product_key),
    ):
        if key is not None and key in answered:
            return key
    return None


def _key(serial_number: str | None, product_key: str | None) -> _Key | None:
    if not serial_number and not product_key:
        return None
    return (serial_number or "", product_key or "")


@dataclass(frozen=True, slots=True)
class Batch:
    id: UUID
    partner_id: PartnerId
    order_id: UUID
    customer_id: UUID
    connection_id: UUID
    group_tag: str
    device_count: int
    state: BatchState
    holds: list[str]
    """The names of the reasons that hold it, including those that only a later release knows."""
    due_at: datetime
    submissions: int
    polls: int
    lookups: int
    troubles: int
    request_id: UUID | None
    correlation_id: UUID
    uncertain: bool
    """Whether a call was made and its outcome is not known."""
    tracking_id: str | None
    failure_code: str | None
    failure_said: str | None
    submitted_at: datetime | None
    settled_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What names a batch's file, and the batch's outcome."""

    id: UUID
    group_tag: str
    state: BatchState
    device_count: int
    submitted_at: datetime | None
    settled_at: datetime | None


class Cutting:
    """Assigns devices to batches: a group tag's next batch begins when the last one is full."""

    def __init__(self, max_devices: int) -> None:
        self._max_devices = max_devices
        self._placed: Counter[str | None] = Counter()

    def place(self, group_tag: str | None) -> tuple[int, int]:
        """The place of this tag's next device: number of the tag's batch, and position; both from 0."""
        place = divmod(self._placed[group_tag], self._max_devices)
        self._placed[group_tag] += 1
        return place
