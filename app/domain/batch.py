"""Batches: how a batch moves, and which answer belongs to which device.

A batch goes to the platform in one call and carries one customer's devices of one group tag. Answers are
matched by key where they carry one; where they do not, by position, and a position is trusted only when
nothing depends on it.
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
    HELD = "held"  # stands still for the reasons that are stored with it
    QUEUED = "queued"
    SUBMITTING = "submitting"  # intent is written, the call is on its way
    SUBMITTED = "submitted"  # accepted by Microsoft; polled until it has settled
    UNKNOWN = "unknown"  # the outcome is being looked up
    SETTLED = "settled"
    CANCELLED = "cancelled"


_B = BatchState

BATCH_TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    _B.HELD: frozenset({_B.QUEUED, _B.CANCELLED}),
    # SUBMITTED at once: a person has uploaded its file at a portal.
    _B.QUEUED: frozenset({_B.HELD, _B.SUBMITTING, _B.SUBMITTED, _B.CANCELLED, _B.SETTLED}),
    _B.SUBMITTING: frozenset({_B.QUEUED, _B.HELD, _B.SUBMITTED, _B.UNKNOWN, _B.SETTLED}),
    # QUEUED: a person says that the file was not uploaded to the portal after all.
    _B.SUBMITTED: frozenset({_B.QUEUED, _B.UNKNOWN, _B.SETTLED}),
    _B.UNKNOWN: frozenset({_B.QUEUED, _B.SUBMITTING, _B.SUBMITTED, _B.SETTLED}),
    _B.SETTLED: frozenset(),
    _B.CANCELLED: frozenset(),
}

OPEN_BATCH = frozenset({_B.HELD, _B.QUEUED, _B.SUBMITTING, _B.SUBMITTED, _B.UNKNOWN})
IN_FLIGHT = frozenset({_B.SUBMITTING, _B.SUBMITTED, _B.UNKNOWN})


SMALLEST_SPLIT = 100
"""A batch of so many devices is not halved any more: one that is refused then has a device in it that the
platform does not take, and not too many of them."""


def halves(rows: Sequence[UUID]) -> tuple[Sequence[UUID], Sequence[UUID]]:
    middle = (len(rows) + 1) // 2
    return rows[:middle], rows[middle:]


def cut(rows: Sequence[UUID], max_devices: int) -> list[Sequence[UUID]]:
    """Devices of one group tag, in as many batches as they need."""
    return [rows[start : start + max_devices] for start in range(0, len(rows), max_devices)]


class SentRow(NamedTuple):
    """What identifies a device in the call that carried it, in the order it was sent."""

    serial_number: str | None
    product_key: str | None


class Match(NamedTuple):
    answer: UpstreamRow | None
    """None: the answer says nothing of this device."""
    certain: bool
    """False: matched by position while the positions' answers differ; to be verified."""


_NOTHING = Match(None, certain=False)
_Key = tuple[str, str]
"""Serial number and PKID as an answer echoes them; empty where it has none."""


def match_answers(sent: Sequence[SentRow], answers: Sequence[UpstreamRow]) -> list[Match]:
    """One match per sent row. Keys first; what has no key on either side goes by position."""
    keyed: dict[_Key, list[UpstreamRow]] = defaultdict(list)
    keyless: list[UpstreamRow] = []
    for answer in answers:
        key = _key(answer.serial_number, answer.product_key)
        if key is None:
            keyless.append(answer)
        else:
            keyed[key].append(answer)
    # Two makers may use one serial number, so several rows can share a key.
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
    """Answers that all say the same need no telling apart; others go by position, which is doubtful.

    With an answer missing or surplus no position means anything.
    """
    if len(answers) != rows:
        return [_NOTHING] * rows
    alike = len({(answer.done, answer.code, answer.name) for answer in answers}) == 1
    return [Match(answer, certain=alike) for answer in answers]


def _answered_key(row: SentRow, answered: Container[_Key]) -> _Key | None:
    """The key under which this row was answered. Microsoft may echo one of two keys that were sent."""
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
    """By name the reasons that hold it: those of a later release too."""
    due_at: datetime
    submissions: int
    polls: int
    lookups: int
    troubles: int
    request_id: UUID | None
    correlation_id: UUID
    uncertain: bool
    """Whether a call was made whose outcome is not known."""
    tracking_id: str | None
    failure_code: str | None
    failure_said: str | None
    submitted_at: datetime | None
    settled_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What a batch's file is named by, and what became of it."""

    id: UUID
    group_tag: str
    state: BatchState
    device_count: int
    submitted_at: datetime | None
    settled_at: datetime | None


class Cutting:
    """Places of devices in batches: a group tag's next batch begins when the last one is full."""

    def __init__(self, max_devices: int) -> None:
        self._max_devices = max_devices
        self._placed: Counter[str | None] = Counter()

    def place(self, group_tag: str | None) -> tuple[int, int]:
        """The next device of this tag: which of the tag's batches it goes into, and where; both from 0."""
        place = divmod(self._placed[group_tag], self._max_devices)
        self._placed[group_tag] += 1
        return place
